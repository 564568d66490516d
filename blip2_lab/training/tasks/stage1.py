"""Stage 1 as a task: the three losses of a batch, their chance levels, and an evaluation on a held-out gallery.

Paper: section 3.2. Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from blip2_lab.checkpoints.huggingface import check_layout
from blip2_lab.checkpoints.load import save
from blip2_lab.data.examples import Batch, image_ids
from blip2_lab.models.losses import chance_levels, itc_loss, itc_similarity
from blip2_lab.training.batches import ImageTextBatches
from blip2_lab.training.lora import merge_lora
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.vocabulary import Coverage


class Stage1Task(ImageTask):
    """Representation learning (section 3.2), and fine-tuning for retrieval by the same losses (section 4.4).
    `held_out`: images and captions to evaluate on, or None."""

    def __init__(
        self,
        *arguments,
        held_out: Batch | None,
        layer_decay: float = 1.0,
        words: dict[str, Coverage] | None = None,
    ) -> None:
        super().__init__(*arguments, layer_decay, words)
        self.held_out = held_out
        self.generator = (
            torch.Generator()
        )  # draws the negatives; the trainer seeds it for each step, equally in all processes

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.compute_joint_losses([batch])

    def compute_joint_losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """The losses of all passes of a step as one batch, because ITC compares all of its examples. The model computes
        them in chunks that need the memory of one pass."""
        if len(batches) > 1 and any(batch.matches is not None for batch in batches):
            raise ValueError("captions that are true of several pictures are trained in one pass: optim.accumulate=1")
        ids = [image for batch in batches for image in batch.ids]
        # as ids, of which `losses` does not warn: unknown words were counted before the first step
        input_ids, attention_mask = self.model.tokenize([caption for batch in batches for caption in batch.captions])
        losses = self.model.losses(
            **self.image_inputs(batches),
            input_ids=input_ids,
            attention_mask=attention_mask,
            image_id=image_ids(ids).to(self.model.device) if ids else None,
            matches=batches[0].matches if len(batches) == 1 else None,
            generator=self.generator,
            passes=len(batches),
        )
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

    def chance(self) -> dict[str, float]:
        return chance_levels(self.batches.batch_size * self.batches.parts, self.model.qformer.config.vocab_size)

    def evaluate(self, step: int) -> dict[str, float]:
        """On a held-out gallery: R@1 by ITC, both ways; ITM's accuracy on true pairs and on the hardest negatives. On
        your own images also ITC's loss, `held_out`, and the number of `pictures`, whose inverse is the chance level."""
        features = self.features(self.held_out.to(self.model.device))
        input_ids, attention_mask = self.model.tokenize(self.held_out.captions)
        image_embeds = self.model.embed_image(features)
        text_embeds = self.model.embed_text(input_ids, attention_mask)
        similarity = itc_similarity(image_embeds, text_embeds)  # [M, M]
        own = torch.arange(len(similarity), device=similarity.device)
        wrong = similarity.masked_fill(own[:, None] == own, -torch.inf).argmax(
            dim=1
        )  # the wrong text most similar to image m
        memory = self.model.qformer.read_image(features)
        true = self.model.itm_logits(memory, input_ids, attention_mask)
        false = self.model.itm_logits(memory, input_ids[wrong], attention_mask[wrong])
        hits = torch.cat([true.argmax(1) == 1, false.argmax(1) == 0])
        own_images = {}
        if isinstance(self.batches, ImageTextBatches):
            logits = similarity.float() / self.model.temperature
            loss = itc_loss(logits, logits.T, torch.eye(len(own), dtype=torch.bool, device=own.device))
            own_images = {"held_out": loss.item(), "pictures": float(len(own))}
        return own_images | {
            "image_to_text_r1": (similarity.argmax(dim=1) == own).float().mean().item(),
            "text_to_image_r1": (similarity.argmax(dim=0) == own).float().mean().item(),
            "itm_accuracy": hits.float().mean().item(),
        }

    def save(self, folder: Path) -> None:
        """A stage 1 of your own images is saved with its frozen image encoder, so that the folder is a whole model: for
        search, and to go on from. transformers' layout has no other encoder than ViT-g's; with one, it is saved alone.
        """
        merge_lora(self.model)
        alone = self.model.image_encoder is None
        if alone and isinstance(self.batches, ImageTextBatches):
            try:
                check_layout(self.image_encoder)
                self.model.attach_image_encoder(self.image_encoder)
            except ValueError as error:
                print(f"note: {error} It is saved without its image encoder.", flush=True)
        save(self.model, folder)
        if alone:
            self.model.attach_image_encoder(None)
