"""What several test files share: a whole BLIP-2 with random weights, small enough to build in a second; tiny data."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from blip2_lab.data.examples import ImageTextList


def build_tiny_model(language_model_kind: str = "t5"):
    """A Stage2Model with a stage 1 beside it. Random weights, the micro models' tokenizers."""
    from transformers import Blip2VisionConfig, OPTConfig, T5Config

    from blip2_lab.models.language_model import language_model
    from blip2_lab.models.micro import new_opt, new_t5, padded_vocab_size
    from blip2_lab.models.qformer import QFormerConfig
    from blip2_lab.models.stage1 import Stage1Config, Stage1Model
    from blip2_lab.models.stage2 import Stage2Model
    from blip2_lab.models.vision_encoder import ImageEncoder
    from blip2_lab.picturebook.tokenizer import build_tokenizer

    torch.manual_seed(0)
    image_encoder = ImageEncoder.from_config(
        Blip2VisionConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            image_size=48,
            patch_size=12,
            initializer_range=0.02,
        )
    )
    bert = build_tokenizer("bert")
    config = QFormerConfig(
        vocab_size=len(bert),
        width=64,
        num_layers=2,
        num_heads=2,
        ffn_width=128,
        image_width=64,
        num_query_tokens=8,
        max_positions=64,
        pad_token_id=bert.pad_token_id,
    )
    heads = Stage1Config(embed_width=32, sep_token_id=bert.sep_token_id, decode_token_id=bert.bos_token_id)
    stage1 = Stage1Model(config, heads, tokenizer=bert)
    tokenizer = build_tokenizer(language_model_kind)
    vocab_size = padded_vocab_size(len(tokenizer))
    if language_model_kind == "t5":
        sizes = dict(d_model=64, d_kv=32, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=2)
        ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=0, decoder_start_token_id=0)
        frozen = new_t5(T5Config(vocab_size=vocab_size, **sizes, **ids, feed_forward_proj="gated-gelu"))
    else:
        sizes = dict(hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=64)
        ids = dict(pad_token_id=1, bos_token_id=2, eos_token_id=2)
        frozen = new_opt(OPTConfig(vocab_size=vocab_size, **sizes, **ids, max_position_embeddings=512))
    with torch.no_grad():  # so that it says words: nothing special, nothing beyond the vocabulary
        frozen.get_output_embeddings().weight[[*tokenizer.all_special_ids, *range(len(tokenizer), vocab_size)]] = 0
    model = Stage2Model.from_stage1(stage1, image_encoder, language_model(frozen, tokenizer))
    stage1.image_encoder = model.image_encoder
    model.attach_stage1(stage1.eval())
    return model.eval()


@torch.no_grad()
def loud(*modules: nn.Module, seed: int = 5) -> nn.Module:
    """Add noise to every parameter, so that answers depend on what is read; returns the first module."""
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.ndim > 1 else 0.05))
    return modules[0]


def encoded(number: int, format: str = "PNG") -> bytes:
    """An image file of 3 x 2 pixels."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (number, 0, 0)).save(stream, format)
    return stream.getvalue()


def write_shard(path, *files) -> None:
    """A tar file of (name, content); what is no bytes is written as JSON."""
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def listed_pictures(count: int, name: str = "x") -> ImageTextList:
    """A source of so many captions, without pictures."""
    from blip2_lab.data.examples import ImageTextList, Record

    return ImageTextList([Record(b"", (f"{name} {i}",), id=f"{name}{i}") for i in range(count)], name=name)


BRIDGES = ("linear", "linear-pooled", "mlp", "wide_qformer", "gated", "gated-resampler")


def new_bridge(name: str):
    """A new bridge, one of `BRIDGES`, for the tiny model's image encoder and language models."""
    from blip2_lab.models.bridges import (
        GatedCrossAttention,
        GatedCrossAttentionConfig,
        LinearBridge,
        LinearConfig,
        wide_qformer_config,
    )
    from blip2_lab.models.qformer import QFormer

    torch.manual_seed(1)
    width = dict(image_width=64, language_width=64)
    gated = dict(**width, num_layers=2, num_heads=2, ffn_width=128)
    return {
        "linear": lambda: LinearBridge(LinearConfig(**width)),
        "linear-pooled": lambda: LinearBridge(LinearConfig(**width, num_visual_tokens=8)),
        "mlp": lambda: LinearBridge(LinearConfig(**width, hidden_width=96)),
        "wide_qformer": lambda: QFormer(wide_qformer_config(64, 128, num_layers=2, num_query_tokens=8)),
        "gated": lambda: GatedCrossAttention(GatedCrossAttentionConfig(**gated)),
        "gated-resampler": lambda: GatedCrossAttention(
            GatedCrossAttentionConfig(**gated, every=2, num_latents=5, resampler_layers=2)
        ),
    }[name]()


@torch.no_grad()
def open_gates(model: nn.Module, value: float = 1.0) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("_gate"):
            parameter.fill_(value)


@torch.no_grad()
def build_bridged_model(name: str, frozen):
    """A Stage2Model with this bridge between the frozen parts of a tiny model; its answers depend on the image."""
    from blip2_lab.models.stage2 import Stage2Model

    model = Stage2Model(frozen.image_encoder, new_bridge(name), frozen.language_model).eval()
    open_gates(model)
    if model.bridge.deep_fusion:
        for block in model.bridge.blocks:
            block.cross_attention.query.weight.mul_(4)
            block.cross_attention.output.weight.mul_(20)
    else:
        model.bridge.language_projection.weight.mul_(5)
    return model
