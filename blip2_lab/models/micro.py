"""The miniature's four parts, as transformers' configurations: ViT, BERT, T5 and OPT, in two sizes each.

What is unusual about it:

* Heads are 64 wide and widths are multiples of 64, as NF4 wants them. Size "S" is what is shipped.
* Vocabularies have a free row: transformers' BLIP-2 layout needs an id for `<image>`.

Paper: section 3.4 (frozen image encoders and language models). Notebooks: 01, 10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import BertConfig, Blip2VisionConfig, OPTConfig, PreTrainedModel, T5Config

SIZES = {
    "image encoder": {  # counted after the last layer is dropped
        "S": dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768),
        "M": dict(hidden_size=320, num_hidden_layers=8, num_attention_heads=5, intermediate_size=1280),
    },
    "BERT": {  # and so of the Q-Former that starts from it
        "S": dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=768),
        "M": dict(hidden_size=384, num_hidden_layers=8, num_attention_heads=6, intermediate_size=1536),
    },
    "T5": {
        "S": dict(d_model=256, d_kv=64, d_ff=512, num_layers=4, num_decoder_layers=3, num_heads=6),
        "M": dict(d_model=384, d_kv=64, d_ff=1024, num_layers=6, num_decoder_layers=6, num_heads=6),
    },
    "OPT": {
        "S": dict(hidden_size=256, ffn_dim=1024, num_hidden_layers=4, num_attention_heads=4, word_embed_proj_dim=256),
        "M": dict(hidden_size=384, ffn_dim=1536, num_hidden_layers=6, num_attention_heads=6, word_embed_proj_dim=384),
    },
}


def _size_options(part: str, size: str) -> dict[str, int]:
    if size not in SIZES[part]:
        raise ValueError(f"There is no micro {part} of size {size!r}; choose one of {', '.join(SIZES[part])}.")
    return SIZES[part][size]


def micro_vit_config(size: str = "S") -> Blip2VisionConfig:
    """For pictures of 96 pixels in patches of 12."""
    from transformers import Blip2VisionConfig

    return Blip2VisionConfig(
        **_size_options("image encoder", size),
        image_size=96,
        patch_size=12,
        initializer_range=0.02,  # transformers' default is 1e-10: features of a fresh ViT would be 1e-6 small
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
        bos_token_id=0,  # transformers' Blip2 crashes without a prompt if there is none
        decoder_start_token_id=0,
    )
    # differs from FlanT5, which has gelu_new: the released BLIP-2 checkpoints have exact gelu, and it is faster on CPU
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
    """The next multiple of 64 with a free row: transformers' layout needs an `<image>` id, and NF4 likes 64s."""
    return 64 * (vocab_size // 64 + 1)


def new_t5(config: T5Config) -> PreTrainedModel:
    """A freshly initialized T5 whose lm_head is its own tensor, as FlanT5's is (`T5Config` ties it whatever we ask)."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def new_opt(config: OPTConfig) -> PreTrainedModel:
    """A freshly initialized OPT. Its lm_head is tied to its word embeddings."""
    from transformers import OPTForCausalLM

    return OPTForCausalLM(config)
