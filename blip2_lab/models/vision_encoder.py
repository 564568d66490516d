"""Frozen image encoders: EVA-CLIP ViT-g/14, CLIP ViT-L/14 and the micro ViTs (`models/micro.py`).

`ImageEncoder` is where to begin: `preprocess` makes pixels of images, `forward` makes features of pixels.

Notes:

* The features are those of the *second-to-last* layer, all tokens, [CLS] first. A ViT-g of 40 blocks keeps 39.
* There is no final LayerNorm here. The one that follows (LAVIS `ln_vision`, transformers `post_layernorm`) is
  trainable in both stages, so it is part of the Q-Former: `QFormer.image_layer_norm`.
* Frozen means (tested): no gradients; eval mode, also when the model around it is put in training mode; the same bytes
  after any number of training steps.
* Images are resized to a square (bicubic, no crop, aspect ratio not kept) and normalized with CLIP's mean and standard
  deviation.

Paper: section 3.4 (pre-trained image encoder) and 3.1. Notebook: 01.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.common.images import ImageSource, image_list, open_image

if TYPE_CHECKING:
    from transformers import Blip2VisionConfig, Blip2VisionModel, CLIPVisionModel


def freeze(module: nn.Module) -> nn.Module:
    """Turn gradients off and switch to eval mode for good: `module.train()` has no effect afterwards.

    Gradients still flow *through* a frozen module to its inputs: the Q-Former of stage 2 trains by them.
    """
    module.requires_grad_(False)
    module.eval()
    module.train = partial(_stay_in_eval, module)
    return module


def unfreeze(module: nn.Module) -> nn.Module:
    """Undo `freeze`: the paper trains the image encoder with the rest when it fine-tunes (Tables 7 to 9)."""
    vars(module).pop("train", None)
    return module.requires_grad_(True)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def eva_vit_g_config(image_size: int = 224) -> Blip2VisionConfig:
    """EVA-CLIP ViT-g/14 as BLIP-2 uses it: 39 of 40 blocks, width 1408, 16 heads of 88. Images of 224 or 364."""
    from transformers import Blip2VisionConfig

    return Blip2VisionConfig(image_size=image_size, initializer_range=0.02)


class ImageEncoder(nn.Module):
    """Pixels -> one feature vector for each patch, and one for [CLS].

    `model` is transformers' `Blip2VisionModel` (EVA-CLIP ViT-g and the micro ViTs) or `CLIPVisionModel` (ViT-L),
    already without its last layer (see `drop_last_layer`). The stages freeze it; pre-training does not.
    """

    def __init__(self, model: Blip2VisionModel | CLIPVisionModel) -> None:
        super().__init__()
        model.post_layernorm = nn.Identity()  # it is part of the Q-Former: QFormer.image_layer_norm
        self.model = model

    @classmethod
    def from_config(cls, config: Blip2VisionConfig) -> ImageEncoder:
        """A randomly initialized encoder of this shape."""
        from transformers import Blip2VisionModel

        return cls(Blip2VisionModel(config))

    @classmethod
    def from_clip(cls, name_or_folder: str = "openai/clip-vit-large-patch14") -> ImageEncoder:
        """CLIP's image tower up to its second-to-last layer (ViT-L/14: 23 of 24 layers, width 1024)."""
        from transformers import CLIPVisionModel

        return cls(drop_last_layer(CLIPVisionModel.from_pretrained(name_or_folder)))

    @property
    def width(self) -> int:
        """Dv, the width of a feature vector."""
        return self.model.config.hidden_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the square image that the position embeddings were trained for."""
        return self.model.config.image_size

    @property
    def num_features(self) -> int:
        """N: one feature vector for each patch, and [CLS]."""
        return (self.image_size // self.model.config.patch_size) ** 2 + 1

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,H,W] -> image_features [B,N,Dv], [CLS] first, before `image_layer_norm`.

        For another size than `image_size` the position embeddings are interpolated (bicubic), as in the paper's
        fine-tuning at 364 pixels. Raises ValueError for integers, which are not normalized, and for another shape.
        """
        if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
            kind = pixels.dtype if isinstance(pixels, Tensor) else f"of type {type(pixels).__name__}"
            raise ValueError(f"Pixels are normalized floats, as `preprocess` makes them; these are {kind}.")
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not len(pixels):
            raise ValueError(f"Pixels have the shape [B, 3, height, width]; these have {list(pixels.shape)}.")
        other_size = pixels.shape[-2:] != (self.image_size, self.image_size)
        patch = self.model.config.patch_size
        if other_size and any(side % patch or not side for side in pixels.shape[-2:]):
            height, width = pixels.shape[-2:]
            raise ValueError(
                f"Pixels of {height} x {width} are no whole number of patches of {patch}, and the rest is not seen: "
                f"make them {self.image_size} x {self.image_size}, as `preprocess` does."
            )
        return self.model(pixel_values=pixels, interpolate_pos_encoding=other_size).last_hidden_state

    def preprocess(self, images: ImageSource | Sequence[ImageSource]) -> Tensor:
        """Images of any size and mode -> pixels [B,3,S,S] float32 on the encoder's device."""
        return preprocess(images, self.image_size).to(next(self.parameters()).device)


def at_resolution(encoder: ImageEncoder, image_size: int) -> ImageEncoder:
    """The same encoder for images of another size: a copy whose position embeddings are interpolated once (bicubic).

    Its features are those that `encoder` gives for images of this size; at its own size it is the encoder itself.
    Raises ValueError where patches do not fill the image: 512 pixels are not a multiple of 14, 504 and 518 are.
    """
    config = encoder.model.config
    if image_size % config.patch_size:
        below = image_size // config.patch_size * config.patch_size
        raise ValueError(
            f"Images of {image_size} pixels are no whole number of patches of {config.patch_size}: take {below} or "
            f"{below + config.patch_size}."
        )
    if image_size == config.image_size:
        return encoder
    larger = copy.deepcopy(encoder)
    embeddings = larger.model.embeddings
    of_clip = isinstance(embeddings.position_embedding, nn.Embedding)
    old = embeddings.position_embedding.weight if of_clip else embeddings.position_embedding
    grid = old.new_zeros(1, (image_size // config.patch_size) ** 2 + 1, config.hidden_size)
    positions = nn.Parameter(embeddings.interpolate_pos_encoding(grid, image_size, image_size).detach())
    if of_clip:
        embeddings.position_embedding = nn.Embedding(grid.shape[1], config.hidden_size, _weight=positions[0].detach())
        embeddings.position_ids = torch.arange(grid.shape[1], device=old.device).expand(1, -1)
    else:
        embeddings.position_embedding = positions
    embeddings.position_embedding.requires_grad_(old.requires_grad)
    embeddings.num_patches, embeddings.num_positions = grid.shape[1] - 1, grid.shape[1]
    embeddings.image_size = larger.model.config.image_size = image_size
    return larger


def preprocess(images: ImageSource | Sequence[ImageSource], image_size: int) -> Tensor:
    """Images -> pixels [B,3,S,S]: RGB, resized to a square (bicubic), CLIP's mean and standard deviation.

    An image is anything that `images.open_image` reads. One image gives B = 1.
    """
    rgb = [open_image(image) for image in image_list(images)]
    return image_processor(image_size)(images=rgb, return_tensors="pt")["pixel_values"]


#: Normalized pixels are between -1.8 and 2.2 (black and white by CLIP's mean and standard deviation).
LARGEST_PIXEL = 8.0
MOST_OF_TWO = 1.2  #: values from -1 to 1 that are a picture of that scale, and no detail of low contrast


def check_pixels(pixels: Tensor) -> Tensor:
    """Returns pixels [B,3,H,W]. Raises ValueError for another shape, and for what is not normalized: integers, 0..255,
    0..1, -1..1, or values that are not finite. A wrong scale would give an answer, or a loss, that does not show it.

    What is between 0 and 1, or spreads over most of -1 to 1 and no more, is refused unless its values are those that
    `preprocess` makes of 8-bit colors: a plain gray or a foggy picture. (Most pictures have a darker and a lighter
    place, so their normalized values go beyond -1 and 1.)
    """
    remedy = "pass what `image_encoder.preprocess` makes of a picture (a path, PIL, or an array of uint8)"
    if not isinstance(pixels, Tensor):
        raise ValueError(f"Pixels are a tensor, and this is of type {type(pixels).__name__}: {remedy}.")
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        last = "; the colors are last here: pixels.movedim(-1, -3)" if pixels.ndim > 2 and pixels.shape[-1] == 3 else ""
        raise ValueError(f"Pixels have the shape [B, 3, height, width]; these have {list(pixels.shape)}{last}.")
    if pixels.layout != torch.strided or pixels.is_meta:
        raise ValueError(f"Pixels are a dense tensor with values, and this one is not: {remedy}.")
    if not pixels.is_floating_point():
        raise ValueError(f"Pixels are normalized floats, and these are {pixels.dtype}: {remedy}.")
    if not pixels.numel():
        raise ValueError(f"There are no pixels: the shape is {list(pixels.shape)}.")
    for number, (low, high) in enumerate(zip(*(x.tolist() for x in pixels.flatten(1).aminmax(dim=1)), strict=True)):
        where = f"Picture {number} of the pixels" if len(pixels) > 1 else "The pixels"
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{where}: there are values that are not finite (NaN or infinity).")
        if max(-low, high) > LARGEST_PIXEL:
            raise ValueError(
                f"{where}: the values go from {low:.3g} to {high:.3g}, so they are not normalized: {remedy}."
            )
        scale = _other_scale(low, high)
        if scale is not None and not _are_normalized_colors(pixels[number]):
            raise ValueError(
                f"{where}: the values go from {low:.3g} to {high:.3g}, which looks like a scale of {scale} "
                f"that is not normalized: {remedy}."
            )
    return pixels


def _other_scale(low: float, high: float) -> str | None:
    """The scale of 0 to 1 or -1 to 1 that these values may have; None for others."""
    if 0 <= low < high <= 1:
        return "0 to 1"
    return "-1 to 1" if -1 <= low < high <= 1 and high - low > MOST_OF_TWO else None


def _are_normalized_colors(pixels: Tensor) -> bool:
    """Whether the values [3,H,W] are those of whole numbers from 0 to 255, normalized. In bf16 that cannot be known."""
    processor = image_processor(1)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (processor.image_mean, processor.image_std))
    colors = (pixels.float().cpu() * std + mean) * 255
    return bool(((colors - colors.round()).abs() < 0.1).all())


def image_processor(image_size: int):
    """transformers' image processor of BLIP-2, the PIL version: torchvision is not needed."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil(size={"height": image_size, "width": image_size})


def drop_last_layer(model: nn.Module) -> nn.Module:
    """Remove a ViT's last layer, in place: its output is then that of the second-to-last layer (section 3.4)."""
    layers = model.encoder.layers
    model.encoder.layers = layers[:-1]
    model.config.num_hidden_layers = len(layers) - 1
    return model
