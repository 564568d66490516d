"""What all tasks on pictures share: where batches come from, and the image encoder for batches that come as pixels.

`ImageTask` is the base of the tasks in stage1.py, stage2.py and finetune.py. What the trainer asks of a task is
written down as `trainer.Task`.

Notes:

* A task does not know where its batches come from (batches.py): cached features of drawn scenes, your own pictures
  encoded on the way, or their cached features.
* `shuffled` gives the same texts with other pictures: if the losses do not rise, the model does not look.

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
from blip2_lab.training.batches import (
    ImageTextBatches,
    SceneBatches,
    encode_frozen,
)
from blip2_lab.training.optim import vit_lr_scales


class ImageTask:
    """What the stages and fine-tuning have in common: a batches, and the image encoder for batches that come as pixels.

    Where the image encoder trains, it is the model's own, its layers each at their own rate (Tables 7 to 9).
    """

    def __init__(
        self,
        model: nn.Module,
        batches: SceneBatches | ImageTextBatches,
        image_encoder: ImageEncoder,
        layer_decay: float = 1.0,
    ) -> None:
        self.model, self.batches, self.image_encoder, self.layer_decay = model, batches, image_encoder, layer_decay

    def batch(self, index: int) -> Batch:
        return self.batches.batch(index)

    def lr_scales(self) -> dict[str, float]:
        return vit_lr_scales(self.image_encoder.model.config.num_hidden_layers, self.layer_decay)

    def features(self, batch: Batch) -> Tensor:
        """image_features [B,N,Dv] of a batch, without gradient."""
        if batch.image_features is not None:
            return batch.image_features
        return encode_frozen(self.image_encoder, batch.pixels)

    def seen(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """What a model looks at to learn from these batches: pixels where the image encoder learns, too."""
        if any(parameter.requires_grad for parameter in self.image_encoder.parameters()):
            return {"pixels": torch.cat([batch.pixels for batch in batches])}
        return {"image_features": torch.cat([self.features(batch) for batch in batches])}

    def shuffled(self, batch: Batch) -> Batch:
        """The same texts, each with the next one's picture: what the losses are when the picture is no help."""
        pixels, features = (None if x is None else x.roll(1, dims=0) for x in (batch.pixels, batch.image_features))
        return replace(batch, pixels=pixels, image_features=features, ids=batch.ids[-1:] + batch.ids[:-1])

    def save(self, folder: Path) -> None:
        save(self.model, folder)
