"""Stage 1 as a task: the three losses of a batch, their chance levels, and an evaluation on a held-out gallery.

Paper: section 3.2. Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch, image_ids
from blip2_lab.models.losses import chance_levels, itc_similarity
from blip2_lab.training.tasks.base import PicturesTask


class Stage1Task(PicturesTask):
    """Representation learning (section 3.2), and fine-tuning for retrieval by the same losses (section 4.4).
    `held_out`: pictures and captions to evaluate on, if any."""

    def __init__(self, *arguments, held_out: Batch | None, layer_decay: float = 1.0) -> None:
        super().__init__(*arguments, layer_decay)
        self.held_out = held_out
        self.generator = torch.Generator()  # of the negatives; the engine seeds it, alike in all processes

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.joint_losses([batch])

    def joint_losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Those of all passes of a step as one batch, computed piece by piece: ITC compares them all."""
        ids = [name for batch in batches for name in batch.ids]
        losses = self.model.losses(
            **self.seen(batches),
            captions=[caption for batch in batches for caption in batch.captions],
            image_id=image_ids(ids).to(self.model.device) if ids else None,
            matches=batches[0].matches if len(batches) == 1 else None,
            generator=self.generator,
            passes=len(batches),
        )
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

    def chance(self) -> dict[str, float]:
        return chance_levels(self.feed.batch_size, self.model.qformer.config.vocab_size)

    def evaluate(self, step: int) -> dict[str, float]:
        """On a held-out gallery: R@1 by ITC both ways, and ITM's accuracy on true pairs and the hardest wrong ones."""
        features = self.features(self.held_out.to(self.model.device))
        input_ids, attention_mask = self.model.tokenize(self.held_out.captions)
        image_embeds = self.model.embed_image(features)
        text_embeds = self.model.embed_text(input_ids, attention_mask)
        similarity = itc_similarity(image_embeds, text_embeds)  # [M, M]
        own = torch.arange(len(similarity), device=similarity.device)
        wrong = similarity.masked_fill(own[:, None] == own, -torch.inf).argmax(dim=1)  # the text most like image m
        memory = self.model.qformer.read_image(features)
        true = self.model.itm_logits(memory, input_ids, attention_mask)
        false = self.model.itm_logits(memory, input_ids[wrong], attention_mask[wrong])
        hits = torch.cat([true.argmax(1) == 1, false.argmax(1) == 0])
        return {
            "image_to_text_r1": (similarity.argmax(dim=1) == own).float().mean().item(),
            "text_to_image_r1": (similarity.argmax(dim=0) == own).float().mean().item(),
            "itm_accuracy": hits.float().mean().item(),
        }
