"""The micro model's configurations in transformers' classes: ViT, BERT, T5 and OPT, in three sizes each.

Each `micro_…_config` returns one; `SIZES` is the table of their sizes.

Notes:

* Heads have width 64 and widths are multiples of 64, as NF4 requires. The shipped model has size "S"; "XS" is for a few
  hundred pictures.
* Vocabularies have a spare row: transformers' BLIP-2 layout needs an id for `<image>`.

Paper: section 3.4 (frozen image encoders and language models). Notebooks: 01, 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import BertConfig, Blip2VisionConfig, OPTConfig, PreTrainedModel, T5Config

SIZES = {
    "image encoder": {  # without the last layer, which BLIP-2 drops
        "XS": dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=2, intermediate_size=512),
        "S": dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768),
        "M": dict(hidden_size=320, num_hidden_layers=8, num_attention_heads=5, intermediate_size=1280),
    },
    "BERT": {  # the Q-Former, initialized from it, has the same sizes
        "XS": dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512),
        "S": dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=768),
        "M": dict(hidden_size=384, num_hidden_layers=8, num_attention_heads=6, intermediate_size=1536),
    },
    "T5": {
        "XS": dict(d_model=128, d_kv=64, d_ff=256, num_layers=2, num_decoder_layers=2, num_heads=4),
        "S": dict(d_model=256, d_kv=64, d_ff=512, num_layers=4, num_decoder_layers=3, num_heads=6),
        "M": dict(d_model=384, d_kv=64, d_ff=1024, num_layers=6, num_decoder_layers=6, num_heads=6),
    },
    "OPT": {
        "XS": dict(hidden_size=128, ffn_dim=512, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=128),
        "S": dict(hidden_size=256, ffn_dim=1024, num_hidden_layers=4, num_attention_heads=4, word_embed_proj_dim=256),
        "M": dict(hidden_size=384, ffn_dim=1536, num_hidden_layers=6, num_attention_heads=6, word_embed_proj_dim=384),
    },
}


def _size_options(part: str, size: str) -> dict[str, int]:
    if size not in SIZES[part]:
        raise ValueError(f"There is no micro {part} of size {size!r}; choose one of {', '.join(SIZES[part])}.")
    return SIZES[part][size]


def micro_vit_config(size: str = "S") -> Blip2VisionConfig:
    """A ViT for images of 96 pixels in patches of 12."""
    from transformers import Blip2VisionConfig

    return Blip2VisionConfig(
        **_size_options("image encoder", size),
        image_size=96,
        patch_size=12,
        initializer_range=0.02,  # transformers' default, 1e-10, gives a new ViT features of size 1e-6
    )


def micro_bert_config(vocab_size: int, size: str = "S") -> BertConfig:
    """A miniature BERT-base."""
    from transformers import BertConfig

    return BertConfig(vocab_size=vocab_size, **_size_options("BERT", size), max_position_embeddings=128, pad_token_id=0)


def micro_t5_config(vocab_size: int, size: str = "S") -> T5Config:
    """A miniature FlanT5: gated gelu, untied lm_head (build it with `new_t5`). Ids: pad 0, eos 1, unk 2."""
    from transformers import T5Config

    config = T5Config(
        vocab_size=padded_vocab_size(vocab_size),
        **_size_options("T5", size),
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=0,  # without one, transformers' Blip2 fails on an empty prompt
        decoder_start_token_id=0,
    )
    # differs from FlanT5 (gelu_new): the released BLIP-2 checkpoints have exact gelu, which is also faster on a CPU
    config.dense_act_fn = "gelu"
    return config


def micro_opt_config(vocab_size: int, size: str = "S") -> OPTConfig:
    """A miniature OPT. Ids: pad 1, bos = eos 2."""
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=padded_vocab_size(vocab_size),
        **_size_options("OPT", size),
        max_position_embeddings=512,
        dropout=0.0,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )


def padded_vocab_size(vocab_size: int) -> int:
    """The next multiple of 64 above `vocab_size`: a spare row for transformers' `<image>`, a multiple of 64 for NF4."""
    return 64 * (vocab_size // 64 + 1)


def new_t5(config: T5Config) -> PreTrainedModel:
    """A randomly initialized T5 with an untied lm_head, as FlanT5 has (`T5Config` does not untie it)."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def new_opt(config: OPTConfig) -> PreTrainedModel:
    """A randomly initialized OPT. Its lm_head is tied to its word embeddings."""
    from transformers import OPTForCausalLM

    return OPTForCausalLM(config)
