"""A masked autoencoder (MAE) in the shape of one of the image encoders here, and the image encoder it has trained.

`new_mae` builds transformers' `ViTMAEForPreTraining`, `image_encoder_of` takes its encoder as an `ImageEncoder`, and
`reconstruct` gives what the paper's figure shows.

Notes:

* The encoder reads the visible patches only, a quarter of them; a small decoder predicts the pixels of all patches, and
  the loss counts the masked ones. After training the decoder is not needed.
* transformers' MAE and its BLIP-2 encoder name and store the same layers differently: three matrices for queries, keys
  and values, or one. Position embeddings are fixed sines and cosines in MAE; the image encoder stores them as it stores
  learned ones.
* MAE's last LayerNorm is left out, as the other encoders' is: it is part of the Q-Former.

Paper: arXiv 2111.06377 (He et al., Masked Autoencoders Are Scalable Vision Learners). Notebook: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.models.vision_encoder import ImageEncoder, image_processor

if TYPE_CHECKING:
    from transformers import Blip2VisionConfig, ViTMAEForPreTraining

HEAD_WIDTH = 64  #: of the decoder


def new_mae(
    config: Blip2VisionConfig,
    *,
    mask_ratio: float = 0.75,
    decoder_width: int = 128,
    decoder_layers: int = 2,
    normalize_pixels: bool = False,
) -> ViTMAEForPreTraining:
    """A new MAE whose encoder has the shape of `config`.

    mask_ratio        the share of patches that the encoder does not read
    normalize_pixels  predict each patch with its own mean 0 and deviation 1, which leaves out its mean color
    Raises ValueError for a width of the decoder that is no multiple of `HEAD_WIDTH`, or where no patch is left.
    """
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    patches = (config.image_size // config.patch_size) ** 2
    if decoder_width % HEAD_WIDTH:
        raise ValueError(f"decoder_width {decoder_width} must be a multiple of {HEAD_WIDTH}, the width of a head")
    if not 1 <= int(patches * (1 - mask_ratio)) < patches:
        raise ValueError(f"mask_ratio {mask_ratio:g} of {patches} patches must leave some and mask some")
    same = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    same += ("layer_norm_eps", "image_size", "patch_size")
    decoder = dict(
        decoder_hidden_size=decoder_width,
        decoder_num_hidden_layers=decoder_layers,
        decoder_num_attention_heads=decoder_width // HEAD_WIDTH,
        decoder_intermediate_size=4 * decoder_width,
    )
    shape = {name: getattr(config, name) for name in same}
    return ViTMAEForPreTraining(
        ViTMAEConfig(**shape, **decoder, mask_ratio=mask_ratio, norm_pix_loss=normalize_pixels, qkv_bias=True)
    )


@torch.no_grad()
def image_encoder_of(mae: ViTMAEForPreTraining) -> ImageEncoder:
    """A copy of the encoder of an MAE, which reads all patches: its features are those of `mae.vit` without a mask,
    before the last LayerNorm."""
    from transformers import Blip2VisionConfig

    shape = mae.config
    config = Blip2VisionConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        hidden_act=shape.hidden_act,
        layer_norm_eps=shape.layer_norm_eps,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        initializer_range=shape.initializer_range,
    )
    encoder = ImageEncoder.from_config(config)
    theirs, ours = mae.vit.embeddings, encoder.model.embeddings
    ours.patch_embedding.load_state_dict(theirs.patch_embeddings.projection.state_dict())
    ours.class_embedding.copy_(theirs.cls_token)
    ours.position_embedding.copy_(theirs.position_embeddings)
    for source, layer in zip(_encoder_layers(mae), encoder.model.encoder.layers, strict=True):
        # in the order of both versions that transformers has had: q, k, v, output, and the two of the MLP
        query, key, value, output, first, second = (m for m in source.modules() if isinstance(m, nn.Linear))
        layer.self_attn.qkv.weight.copy_(torch.cat([m.weight for m in (query, key, value)]))
        layer.self_attn.qkv.bias.copy_(torch.cat([m.bias for m in (query, key, value)]))
        layer.self_attn.projection.load_state_dict(output.state_dict())
        layer.mlp.fc1.load_state_dict(first.state_dict())
        layer.mlp.fc2.load_state_dict(second.state_dict())
        layer.layer_norm1.load_state_dict(source.layernorm_before.state_dict())
        layer.layer_norm2.load_state_dict(source.layernorm_after.state_dict())
    return encoder


def _encoder_layers(mae: ViTMAEForPreTraining) -> nn.ModuleList:
    return next(module for module in mae.vit.modules() if isinstance(module, nn.ModuleList))


@dataclass(frozen=True)
class Reconstruction:
    """Images [B,3,S,S] from 0 to 1, as the paper's figure shows them, and masked bool[B,patches]."""

    masked_images: Tensor  #: masked patches are gray
    rebuilt: Tensor  #: all patches as predicted; no loss is computed on visible ones, so these are worse
    images: Tensor
    masked: Tensor


@torch.no_grad()
def reconstruct(mae: ViTMAEForPreTraining, pixels: Tensor, seed: int = 0) -> Reconstruction:
    """What an MAE makes of pixels [B,3,S,S] with patches masked at random. Predictions of normalized patches get the
    true mean and deviation of their patch."""
    patches = (mae.config.image_size // mae.config.patch_size) ** 2
    noise = torch.rand(len(pixels), patches, generator=torch.Generator().manual_seed(seed)).to(pixels.device)
    mae.eval()
    found = mae(pixel_values=pixels, noise=noise)
    true, predicted = mae.patchify(pixels), found.logits
    if mae.config.norm_pix_loss:
        predicted = predicted * (true.var(-1, keepdim=True) + 1e-6).sqrt() + true.mean(-1, keepdim=True)
    masked = found.mask.bool()
    images = _unit_range(pixels)
    covered = mae.unpatchify(masked[:, :, None].expand_as(true).float()).bool()
    return Reconstruction(images.masked_fill(covered, 0.5), _unit_range(mae.unpatchify(predicted)), images, masked)


def _unit_range(pixels: Tensor) -> Tensor:
    """Normalized pixels [B,3,S,S] -> from 0 to 1."""
    processor = image_processor(pixels.shape[-1])
    mean, deviation = (pixels.new_tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (pixels * deviation + mean).clamp(0, 1)
