"""From the sizes in a recipe (`BridgeParts`) to a new bridge, or to the sizes of a dual encoder.

`bridge_of` is where to begin; the builders call it for training, the planner on the meta device.

Paper: section 3.3. Notebook: 08.
"""

from __future__ import annotations

from blip2_lab.common.console import did_you_mean
from blip2_lab.models.bridges import (
    Bridge,
    DualEncoderConfig,
    GatedCrossAttention,
    GatedCrossAttentionConfig,
    LinearBridge,
    LinearConfig,
    wide_qformer_config,
)
from blip2_lab.models.qformer import QFormer
from blip2_lab.training.recipes.schema import BridgeParts

HEAD_WIDTH = 64  #: of the micro language models; large ones have heads of 128
LARGE_HEAD_WIDTH, LARGE = 128, 2048
ANSWERING = ("linear", "wide_qformer", "gated_cross_attention")


def bridge_of(parts: BridgeParts, image_width: int, language_width: int, language_layers: int) -> Bridge | QFormer:
    """A new bridge, for a language model of this width and so many decoder layers. Raises ValueError."""
    if parts.bridge == "linear":
        return LinearBridge(LinearConfig(image_width, language_width, parts.num_visual_tokens))
    if parts.bridge == "wide_qformer":
        tokens = parts.num_visual_tokens or 32
        return QFormer(
            wide_qformer_config(image_width, parts.width, num_layers=parts.num_layers, num_query_tokens=tokens)
        )
    if parts.bridge == "gated_cross_attention":
        return GatedCrossAttention(
            GatedCrossAttentionConfig(
                image_width,
                language_width,
                num_layers=language_layers,
                num_heads=num_heads(language_width),
                every=parts.every,
                ffn_width=parts.ffn_width,
                num_latents=parts.num_visual_tokens,
                resampler_layers=2 if language_width < LARGE else 6,
            )
        )
    raise ValueError(f"there is no bridge {parts.bridge!r}{did_you_mean(parts.bridge, ANSWERING)}")


def dual_encoder_config(parts: BridgeParts, image_width: int, language_width: int) -> DualEncoderConfig:
    """The sizes of a dual encoder, for encoders of these widths."""
    return DualEncoderConfig(
        image_width,
        language_width,
        num_heads(language_width),
        num_blocks=parts.num_blocks,
        ffn_width=parts.ffn_width,
        num_codes=parts.num_codes,
    )


def num_heads(language_width: int) -> int:
    """Heads of a block inside, or on top of, a language model of this width."""
    return max(1, language_width // (HEAD_WIDTH if language_width < LARGE else LARGE_HEAD_WIDTH))
