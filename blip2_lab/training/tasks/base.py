"""What all tasks on images share: the source of batches, and the image encoder for batches of pixels.

`ImageTask` is the base of the tasks in stage1.py, stage2.py and finetune.py. `trainer.Task` is the interface between a
task and the trainer.

Notes:

* A task does not depend on the source of its batches (batches.py): cached features of drawn scenes, images that are
  encoded at each step, or their cached features.
* `shuffled` pairs the texts with other images: if the losses do not rise, the model does not use the image.

Paper: sections 3.2 to 3.4. Notebooks: 08, 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from blip2_lab.checkpoints.load import save
from blip2_lab.data.examples import Batch
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.batches import ImageTextBatches
from blip2_lab.training.frozen_features import encode_frozen
from blip2_lab.training.lora import merge_lora
from blip2_lab.training.optim import vit_lr_scales
from blip2_lab.training.scene_batches import SceneBatches
from blip2_lab.training.vocabulary import Coverage


class ImageTask:
    """Base of both stages and of fine-tuning: `batches`, and the image encoder for batches of pixels.

    If the image encoder is trained, its layers have their own learning rates, by `layer_decay` (Tables 7 to 9).
    `words`: what a tokenizer knows of your own texts, by the part that has it.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: SceneBatches | ImageTextBatches,
        image_encoder: ImageEncoder,
        layer_decay: float = 1.0,
        words: dict[str, Coverage] | None = None,
    ) -> None:
        self.model, self.batches, self.image_encoder, self.layer_decay = model, batches, image_encoder, layer_decay
        self.words = words or {}

    def batch(self, index: int) -> Batch:
        return self.batches.batch(index)

    def lr_scales(self) -> dict[str, float]:
        return vit_lr_scales(self.image_encoder.model.config.num_hidden_layers, self.layer_decay)

    def features(self, batch: Batch) -> Tensor:
        """image_features [B,N,Dv] of a batch, without gradient."""
        if batch.image_features is not None:
            return batch.image_features
        return encode_frozen(self.image_encoder, batch.pixels)

    def image_inputs(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """The images as arguments of the model: pixels if the image encoder is trained, else features."""
        if any(parameter.requires_grad for parameter in self.image_encoder.parameters()):
            return {"pixels": torch.cat([batch.pixels for batch in batches])}
        return {"image_features": torch.cat([self.features(batch) for batch in batches])}

    def shuffled(self, batch: Batch) -> Batch:
        """The same texts, each with the image of the previous example."""
        pixels, features = (None if x is None else x.roll(1, dims=0) for x in (batch.pixels, batch.image_features))
        return replace(batch, pixels=pixels, image_features=features, ids=batch.ids[-1:] + batch.ids[:-1])

    def save(self, folder: Path) -> None:
        merge_lora(self.model)
        save(self.model, folder)
