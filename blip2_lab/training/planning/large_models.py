"""Shapes of large frozen models that no released BLIP-2 contains: ViT-bigG/14, ViT-H/14, LLaMA. On the meta device.

`large_vit` and `llama` build one by its name; `parameters.build_image_encoder` and `build_language_model` call them.

Notes:

* transformers' classes with the published sizes; no weights, no download. A two-layer model of the same width really
  runs (`layers=2`).
* MAE's encoder is a plain ViT: the shape of ViT-H/14.

Paper: arXiv 2302.13971 (LLaMA), Table 2; arXiv 2111.06377 (MAE). Notebooks: 08, 17.
"""

from __future__ import annotations

from torch import nn

from blip2_lab.models.vision_encoder import ImageEncoder

#: All layers; patches of 14 pixels. OpenCLIP's ViT-bigG/14 and the ViT-H/14 of MAE.
LARGE_VITS = {
    "vit-bigg-14": dict(hidden_size=1664, intermediate_size=8192, num_hidden_layers=48, num_attention_heads=16),
    "mae-vit-h-14": dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16),
}
#: arXiv 2302.13971, Table 2; widths of the feed-forward networks as released. The last has a larger vocabulary.
_65B = dict(hidden_size=8192, intermediate_size=22016, num_hidden_layers=80, num_attention_heads=64)
LLAMAS = {
    "llama-33b": dict(
        vocab_size=32_000, hidden_size=6656, intermediate_size=17920, num_hidden_layers=60, num_attention_heads=52
    ),
    "llama-65b": dict(vocab_size=32_000, **_65B),
    "llama-65b-65k": dict(vocab_size=65_536, **_65B),
}


def large_vit(name: str, image_size: int = 224, layers: int | None = None) -> ImageEncoder:
    """A ViT of these sizes on the current device, with random weights; `layers`: fewer of them."""
    from transformers import Blip2VisionConfig

    sizes = LARGE_VITS[name] | ({"num_hidden_layers": layers} if layers else {})
    return ImageEncoder.from_config(
        Blip2VisionConfig(**sizes, image_size=image_size, patch_size=14, initializer_range=0.02)
    )


def llama(name: str, layers: int | None = None, vocab_size: int | None = None) -> nn.Module:
    """A LLaMA of these sizes on the current device, with random weights; `layers`, `vocab_size`: fewer of them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(LLAMAS[name])
    if layers:
        sizes["num_hidden_layers"] = layers
    if vocab_size:
        sizes["vocab_size"] = vocab_size
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=2048, pad_token_id=0))
