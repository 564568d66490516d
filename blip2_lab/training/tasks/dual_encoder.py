"""A dual encoder as a task: ITC and ITM of a batch, and an evaluation on a held-out gallery.

Notes:

* ITC compares the captions and images of a whole step, so the passes of a step are computed as one batch: more passes
  save no memory here.

Paper: arXiv 2107.07651 (ALBEF), section 3. Notebook: 08.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.models.losses import ITM_CHANCE, itc_loss
from blip2_lab.training.batches import ImageTextBatches
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.vocabulary import Coverage


class DualEncoderTask(ImageTask):
    """Contrastive learning and matching, both encoders frozen. `held_out`: images and captions to evaluate on, or
    None. On your own images the evaluation has ITC's loss, `held_out`, and the number of `pictures`, as stage 1."""

    def __init__(self, *arguments, held_out: Batch | None, words: dict[str, Coverage] | None = None) -> None:
        super().__init__(*arguments, words=words)
        self.held_out = held_out
        self.generator = torch.Generator()  # draws the negatives; the trainer seeds it for each step

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.compute_joint_losses([batch])

    def compute_joint_losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        captions = [caption for batch in batches for caption in batch.captions]
        features = torch.cat([self.features(batch) for batch in batches])
        losses = self.model.losses(features, captions, self.generator, self._matches(batches))
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm}

    def _matches(self, batches: Sequence[Batch]) -> Tensor | None:
        """bool[B,B]: captions that are true of an image; None: only its own."""
        if any(batch.matches is not None for batch in batches):
            if len(batches) > 1:
                raise ValueError(
                    "captions that are true of several pictures are trained in one pass: optim.accumulate=1"
                )
            return batches[0].matches
        ids = [image for batch in batches for image in batch.ids]  # captions of the same picture
        return torch.tensor([[one == other for other in ids] for one in ids]).to(self.model.device) if ids else None

    def chance(self) -> dict[str, float]:
        return {"itc": math.log(self.batches.batch_size * self.batches.parts), "itm": ITM_CHANCE}

    def evaluate(self, step: int) -> dict[str, float]:
        """On a held-out gallery: R@1 by ITC, both ways; ITM's accuracy on true pairs and on the hardest wrong texts;
        with codes, the share of the features' variance that they lose."""
        model, held_out = self.model, self.held_out.to(self.model.device)
        features = self.features(held_out)
        states, mask = model.text_states(held_out.captions)
        similarity = model.embed_images(features) @ model.embed_texts(states).T
        own = torch.arange(len(similarity), device=similarity.device)
        wrong = similarity.masked_fill(own[:, None] == own, -torch.inf).argmax(dim=1)
        tokens = model.image_tokens(features)
        true = model.match_logits(tokens, states, mask)
        false = model.match_logits(tokens, states[wrong], mask[wrong])
        hits = torch.cat([true.argmax(dim=1) == 1, false.argmax(dim=1) == 0])
        more = {} if model.codebook is None else {"lost_by_codes": model.quantization_error(features)}
        if isinstance(self.batches, ImageTextBatches):
            logits = similarity / model.temperature
            more["held_out"] = itc_loss(logits, logits.T, own[:, None] == own).item()
            more["pictures"] = float(len(own))
        return more | {
            "image_to_text_r1": (similarity.argmax(dim=1) == own).float().mean().item(),
            "text_to_image_r1": (similarity.argmax(dim=0) == own).float().mean().item(),
            "itm_accuracy": hits.float().mean().item(),
        }
