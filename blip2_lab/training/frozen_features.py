"""What the frozen image encoder gives: image features for training and for the feature cache, and its fingerprint.

`encode_function` is where to begin.

Paper: section 3.4 (frozen image encoders). Notebook: 08.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.optim import bf16_is_fast


def fingerprint(module: nn.Module) -> str:
    """A hash of the module's weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_frozen(image_encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """pixels [B,3,S,S] -> image_features bf16 [B,N,Dv], without gradient, in the precision of the feature
    cache, so that training with and without the cache gives the same losses. Computed in bf16 if the device supports
    it in hardware, else in the encoder's own precision."""
    half = bf16_is_fast(pixels.device.type) or image_encoder.model.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        return image_encoder.to(pixels.device)(pixels).to(torch.bfloat16)


def encode_function(image_encoder: ImageEncoder):
    """The encoder as a function from images to image_features bf16 [B,N,Dv], on the GPU if there is one."""
    image_encoder.to("cuda" if torch.cuda.is_available() else "cpu")

    def encode(images: Sequence[Image.Image]) -> Tensor:
        return encode_frozen(image_encoder, image_encoder.preprocess(images)).cpu()

    return encode
