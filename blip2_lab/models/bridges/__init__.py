"""Bridges: what joins a frozen image encoder and a frozen language model.

    bridge                  the protocol: image features -> what the language model reads
    linear                  a projector: one matrix a patch (LLaVA), all patches or pooled to fewer
    qformer                 the Q-Former and its projection (BLIP-2); the default of a Stage2Model
    wide_qformer            the same with wider layers
    resampler               learned latents that attend to the patches (Flamingo's Perceiver resampler)
    gated_cross_attention   blocks between the layers of the language model (Flamingo): deep fusion
    dual_encoder            two encoders and fusion blocks; matches, retrieves, ranks; generates no text

Early fusion: the image becomes tokens in front of the text, a soft prompt (`linear`, `qformer`, `wide_qformer`). Deep
fusion: the layers of the language model attend to the image (`gated_cross_attention`). A dual encoder has no decoder,
so it is not a bridge of a Stage2Model.

Begin with `bridge.Bridge`.

Paper: section 3.3, and the papers that each file names. Notebooks: 10, 16.
"""

from blip2_lab.models.bridges.bridge import Bridge
from blip2_lab.models.bridges.dual_encoder import DualEncoder, DualEncoderConfig
from blip2_lab.models.bridges.gated_cross_attention import GatedCrossAttention, GatedCrossAttentionConfig
from blip2_lab.models.bridges.linear import LinearBridge, LinearConfig
from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.bridges.resampler import Resampler
from blip2_lab.models.bridges.wide_qformer import wide_qformer_config

#: The bridges that `blip2_lab.save` stores under their own names: name -> (configuration, class). A Q-Former, wide or
#: not, is stored in transformers' BLIP-2 layout; a dual encoder is a whole model.
BRIDGES = {
    "linear": (LinearConfig, LinearBridge),
    "gated_cross_attention": (GatedCrossAttentionConfig, GatedCrossAttention),
}

__all__ = [
    "BRIDGES",
    "Bridge",
    "DualEncoder",
    "DualEncoderConfig",
    "GatedCrossAttention",
    "GatedCrossAttentionConfig",
    "LinearBridge",
    "LinearConfig",
    "QFormerBridge",
    "Resampler",
    "wide_qformer_config",
]
