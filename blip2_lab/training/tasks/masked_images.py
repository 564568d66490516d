"""An image encoder from images alone: what is in the masked patches, from the others.

`MaeTask` trains a masked autoencoder; `MaskedImagesTask` is what it shares with `own_parts.MaskedPatchTask`.

Notes:

* Which patches are masked is a function of the seed and of the number of the batch.
* The encoder is saved without its last layer, as BLIP-2 reads the second-to-last one (section 3.4), in the layout of
  the other image encoders: it can stand wherever one is asked for. The whole autoencoder is saved beside it, in `mae/`,
  for the figure (`masked_autoencoder.reconstruct`).

Paper: arXiv 2111.06377 (MAE); section 3.4 (frozen image encoders). Notebook: none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.models.masked_autoencoder import image_encoder_of
from blip2_lab.models.vision_encoder import drop_last_layer, preprocess
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import VALIDATION_BOOK, sample_scene

if TYPE_CHECKING:
    from transformers import ViTMAEForPreTraining

Pixels = Callable[[int], Tensor]  #: the number of a batch -> pixels [B,3,S,S]
MAE_FOLDER = "mae"  #: of the whole autoencoder, in the folder of its encoder


def scene_pixels(batch_size: int, seed: int, image_size: int, split: str = "train") -> Pixels:
    """Batches of drawn scenes."""

    def pixels(index: int) -> Tensor:
        numbers = range(index * batch_size, (index + 1) * batch_size)
        return preprocess([draw(sample_scene(seed, number, split), image_size) for number in numbers], image_size)

    return pixels


def held_out_scenes(image_size: int, count: int = 64) -> Tensor:
    """Scenes of the validation book as pixels."""
    return scene_pixels(count, VALIDATION_BOOK, image_size, "in")(0)


class MaskedImagesTask:
    """Batches of images with a random number for each patch, and a loss on those held out.

    pixels    a batch by its number
    held_out  pixels [B,3,S,S], or None
    """

    model: nn.Module

    def __init__(self, pixels: Pixels, held_out: Tensor | None, seed: int, patches: int) -> None:
        self.pixels, self.held_out, self.seed, self.patches = pixels, held_out, seed, patches

    def batch(self, index: int) -> dict[str, Tensor]:
        return self.with_noise(self.pixels(index), hash((self.seed, index)))  # hash of integers: the same everywhere

    def with_noise(self, pixels: Tensor, seed: int) -> dict[str, Tensor]:
        """The batch with noise [B,patches] from 0 to 1, whose order says which patches are masked."""
        generator = torch.Generator().manual_seed(seed)
        return {"pixels": pixels, "noise": torch.rand(len(pixels), self.patches, generator=generator)}

    def compute_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def flat(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a prediction that shows nothing."""
        raise NotImplementedError

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss on held-out images, and that of `flat`."""
        device = next(self.model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self.with_noise(self.held_out, seed=0).items()}
        return {"held_out": float(self.compute_losses(batch)["total"]), "flat": float(self.flat(batch))}


class MaeTask(MaskedImagesTask):
    """A masked autoencoder, from images alone."""

    def __init__(self, mae: ViTMAEForPreTraining, pixels: Pixels, held_out: Tensor | None, seed: int) -> None:
        super().__init__(pixels, held_out, seed, mae.vit.embeddings.patch_embeddings.num_patches)
        self.model = mae

    def compute_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"total": self.model(pixel_values=batch["pixels"], noise=batch["noise"]).loss}

    def flat(self, batch: dict[str, Tensor]) -> Tensor:
        """Each masked patch in one color: its own mean if patches are normalized, else the mean of the visible ones."""
        target = self.model.patchify(batch["pixels"]).unflatten(-1, (-1, 3))  # [B,patches,pixels,3]
        rank = batch["noise"].argsort(dim=1).argsort(dim=1)
        masked = rank >= int(self.patches * (1 - self.model.config.mask_ratio))
        if self.model.config.norm_pix_loss:
            return torch.ones((), device=target.device)  # the variance of a normalized patch
        visible = (~masked)[:, :, None, None]
        mean = (target * visible).sum(dim=(1, 2)) / (visible.sum(dim=(1, 2)) * target.shape[2])
        return (target - mean[:, None, None]).square()[masked].mean()

    def save(self, folder: Path) -> None:
        drop_last_layer(image_encoder_of(self.model).model).save_pretrained(folder)
        self.model.save_pretrained(folder / MAE_FOLDER)
