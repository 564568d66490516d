"""The keys of LAVIS and of transformers beside ours, as literal two-column tables, and conversion by them.

`from_lavis` and `to_lavis` convert stage 1, `from_lavis_stage2` stage 2; `transformers_names` is for whole models.

Notes:

* Every key is accounted for: unknown keys, missing keys and other shapes raise an error that lists them.
* A row names a module (with its `weight` and `bias`) or a parameter; `{i}` is the index of a layer.
* Sizes are inferred from the tensors, except the number of attention heads, which is an argument.

Paper: section 3 (the released models). Notebook: 07.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from blip2_lab.models.language_model import LanguageModel
from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

Table = tuple[tuple[str, str], ...]


def renamer(table: Table) -> Callable[[str], str | None]:
    """A function: key -> its name in the right column of the table, None where no row matches."""
    patterns = (re.escape(left).replace(r"\{i\}", r"(\d+)") + r"(\.weight|\.bias)?" for left, _ in table)
    rows = [(re.compile(pattern), right) for pattern, (_, right) in zip(patterns, table, strict=True)]

    def rename(key: str) -> str | None:
        for pattern, right in rows:
            if match := pattern.fullmatch(key):
                *layer, suffix = match.groups(default="")
                return (right.replace("{i}", layer[0]) if layer else right) + suffix
        return None

    return rename


def rename_keys(state_dict: dict[str, Tensor], table: Table, ignore: Iterable[str] = ()) -> dict[str, Tensor]:
    """The same tensors under the names of the table's right column.

    Keys that start with one of `ignore` are left out; any other key without a row raises ValueError.
    """
    rename = renamer(table)
    names = {key: rename(key) for key in state_dict if not key.startswith(tuple(ignore))}
    if unknown := sorted(key for key, name in names.items() if name is None):
        raise ValueError(f"The checkpoint has keys that this layout does not have: {', '.join(unknown)}.")
    return {name: state_dict[key] for key, name in names.items()}


def reverse(table: Table) -> Table:
    """The table with its columns swapped."""
    return tuple((right, left) for left, right in table)


def load_strictly(module: torch.nn.Module, state_dict: dict[str, Tensor], ignore: Iterable[str] = ()) -> None:
    """load_state_dict with one error that lists all missing and unknown keys and all keys of another shape.

    `ignore`: prefixes of our keys that the state dict need not have.
    """
    ours = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(tuple(ignore))}
    problems = {
        "missing": sorted(ours.keys() - state_dict.keys()),
        "unknown": sorted(state_dict.keys() - ours.keys()),
        "of another shape": sorted(
            f"{name} {list(state_dict[name].shape)} instead of {list(ours[name].shape)}"
            for name in ours.keys() & state_dict.keys()
            if ours[name].shape != state_dict[name].shape
        ),
    }
    if any(problems.values()):
        lines = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
        raise ValueError("The checkpoint does not fit the model. Keys " + "; ".join(lines) + ".")
    module.load_state_dict(state_dict, strict=False)


# --- LAVIS, stage 1 -------------------------------------------------------------------------------------------------

#: LAVIS's Q-Former and ours.
LAVIS_QFORMER: Table = (
    ("query_tokens", "qformer.query_tokens"),
    ("ln_vision", "qformer.image_layer_norm"),
    ("Qformer.bert.embeddings.word_embeddings", "qformer.word_embeddings"),
    ("Qformer.bert.embeddings.position_embeddings", "qformer.position_embeddings"),
    ("Qformer.bert.embeddings.LayerNorm", "qformer.embedding_layer_norm"),
    ("Qformer.bert.encoder.layer.{i}.attention.self.query", "qformer.layers.{i}.self_attention.query"),
    ("Qformer.bert.encoder.layer.{i}.attention.self.key", "qformer.layers.{i}.self_attention.key"),
    ("Qformer.bert.encoder.layer.{i}.attention.self.value", "qformer.layers.{i}.self_attention.value"),
    ("Qformer.bert.encoder.layer.{i}.attention.output.dense", "qformer.layers.{i}.self_attention.output"),
    ("Qformer.bert.encoder.layer.{i}.attention.output.LayerNorm", "qformer.layers.{i}.self_attention_layer_norm"),
    ("Qformer.bert.encoder.layer.{i}.crossattention.self.query", "qformer.layers.{i}.cross_attention.query"),
    ("Qformer.bert.encoder.layer.{i}.crossattention.self.key", "qformer.layers.{i}.cross_attention.key"),
    ("Qformer.bert.encoder.layer.{i}.crossattention.self.value", "qformer.layers.{i}.cross_attention.value"),
    ("Qformer.bert.encoder.layer.{i}.crossattention.output.dense", "qformer.layers.{i}.cross_attention.output"),
    ("Qformer.bert.encoder.layer.{i}.crossattention.output.LayerNorm", "qformer.layers.{i}.cross_attention_layer_norm"),
    ("Qformer.bert.encoder.layer.{i}.intermediate.dense", "qformer.layers.{i}.text_ffn.expand"),
    ("Qformer.bert.encoder.layer.{i}.output.dense", "qformer.layers.{i}.text_ffn.contract"),
    ("Qformer.bert.encoder.layer.{i}.output.LayerNorm", "qformer.layers.{i}.text_ffn.layer_norm"),
    ("Qformer.bert.encoder.layer.{i}.intermediate_query.dense", "qformer.layers.{i}.query_ffn.expand"),
    ("Qformer.bert.encoder.layer.{i}.output_query.dense", "qformer.layers.{i}.query_ffn.contract"),
    ("Qformer.bert.encoder.layer.{i}.output_query.LayerNorm", "qformer.layers.{i}.query_ffn.layer_norm"),
)

#: Stage 1: the Q-Former and its heads.
LAVIS_STAGE1: Table = (
    *LAVIS_QFORMER,
    ("Qformer.cls.predictions.transform.dense", "lm_head.dense"),
    ("Qformer.cls.predictions.transform.LayerNorm", "lm_head.layer_norm"),
    ("Qformer.cls.predictions.bias", "lm_head.bias"),
    ("vision_proj", "vision_projection"),
    ("text_proj", "text_projection"),
    ("itm_head", "itm_head"),
    ("temp", "temperature"),
)

#: LAVIS stores these twice: (the copy, what it is tied to).
LAVIS_TIED: Table = (
    ("Qformer.cls.predictions.decoder.weight", "Qformer.bert.embeddings.word_embeddings.weight"),
    ("Qformer.cls.predictions.decoder.bias", "Qformer.cls.predictions.bias"),
)

#: A buffer with the numbers 0, 1, 2, …
LAVIS_IGNORED = ("Qformer.bert.embeddings.position_ids",)


def from_lavis(
    state_dict: dict[str, Tensor],
    *,
    num_attention_heads: int = 12,
    sep_token_id: int = 102,
    image_encoder: ImageEncoder | None = None,
) -> Stage1Model:
    """LAVIS's `Blip2Qformer` as a Stage1Model in eval mode, without a tokenizer.

    state_dict     as LAVIS saves it (the checkpoint's entry "model", or the whole checkpoint)
    image_encoder  the image encoder of a file that has one (fine-tuned models do) is loaded into this; None: ignored
    """
    state_dict = dict(state_dict.get("model", state_dict))
    vision = _pop_prefix(state_dict, "visual_encoder.")
    if vision and image_encoder is not None:
        load_strictly(image_encoder.model, from_eva(vision))
    for copy, original in LAVIS_TIED:
        tensor = state_dict.pop(copy, None)
        if tensor is not None and original in state_dict and not torch.equal(tensor, state_dict[original]):
            raise ValueError(f"{copy} differs from {original}, but they are one tensor in BLIP-2.")
    state = rename_keys(state_dict, LAVIS_STAGE1, LAVIS_IGNORED)
    try:
        qformer = infer_qformer_config(state, num_attention_heads)
        embed_width = len(state["vision_projection.weight"])
    except KeyError as missing:
        raise ValueError(f"The checkpoint does not fit the model. Keys missing: {missing.args[0]}.") from None
    config = Stage1Config(embed_width=embed_width, sep_token_id=sep_token_id, decode_token_id=qformer.vocab_size - 1)
    model = Stage1Model(qformer, config)
    load_strictly(model, state)
    model.attach_image_encoder(image_encoder)
    return model.eval()


def to_lavis(model: Stage1Model) -> dict[str, Tensor]:
    """A Stage1Model's parameters under LAVIS's keys, tied ones twice, as LAVIS loads them."""
    state = rename_keys(model.state_dict(), reverse(LAVIS_STAGE1), ignore=("image_encoder.",))
    return state | {copy: state[original] for copy, original in LAVIS_TIED}


def infer_qformer_config(state: dict[str, Tensor], num_attention_heads: int, prefix: str = "qformer.") -> QFormerConfig:
    """The configuration of a Q-Former from its tensors under our names; a missing tensor raises KeyError."""
    _, num_query_tokens, width = state[f"{prefix}query_tokens"].shape
    layers = {int(match[1]) for name in state if (match := re.match(rf"{re.escape(prefix)}layers\.(\d+)\.", name))}
    crossing = sorted(i for i in layers if f"{prefix}layers.{i}.cross_attention.key.weight" in state)
    has_text = f"{prefix}word_embeddings.weight" in state
    config = QFormerConfig(
        width=width,
        num_layers=len(layers),
        num_heads=num_attention_heads,
        ffn_width=len(state[f"{prefix}layers.0.query_ffn.expand.weight"]),
        cross_attention_frequency=crossing[1] if len(crossing) > 1 else max(1, len(layers)),
        image_width=len(state[f"{prefix}image_layer_norm.weight"]),
        num_query_tokens=num_query_tokens,
        has_text=has_text,
    )
    if has_text:
        config.vocab_size = len(state[f"{prefix}word_embeddings.weight"])
        config.max_positions = len(state[f"{prefix}position_embeddings.weight"])
    return config


# --- LAVIS, stage 2, and its image encoder --------------------------------------------------------------------------

#: The frozen models of a Stage2Model, which have separate keys in every layout.
FROZEN = ("image_encoder.", "language_model.")

#: `Blip2OPT` and `Blip2T5`: `LAVIS_QFORMER` (without its text parts) and the projection.
LAVIS_STAGE2: Table = (
    *LAVIS_QFORMER,
    ("opt_proj", "language_projection"),
    ("t5_proj", "language_projection"),
)

#: EVA-CLIP's ViT and transformers' Blip2VisionModel. `attn.q_bias`, `attn.v_bias` become one bias: see `from_eva`.
EVA: Table = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj", "embeddings.patch_embedding"),
    ("blocks.{i}.norm1", "encoder.layers.{i}.layer_norm1"),
    ("blocks.{i}.norm2", "encoder.layers.{i}.layer_norm2"),
    ("blocks.{i}.attn.qkv", "encoder.layers.{i}.self_attn.qkv"),
    ("blocks.{i}.attn.proj", "encoder.layers.{i}.self_attn.projection"),
    ("blocks.{i}.mlp.fc1", "encoder.layers.{i}.mlp.fc1"),
    ("blocks.{i}.mlp.fc2", "encoder.layers.{i}.mlp.fc2"),
)


def from_lavis_stage2(
    state_dict: dict[str, Tensor],
    *,
    image_encoder: ImageEncoder,
    language_model: LanguageModel,
    num_attention_heads: int = 12,
) -> Stage2Model:
    """LAVIS's `Blip2OPT` or `Blip2T5` as a Stage2Model in eval mode.

    The checkpoint has the trained parameters; the frozen models are arguments. Where the file has an image encoder
    (fine-tuned models do) or a language model, it is loaded into them.
    """
    state_dict = dict(state_dict.get("model", state_dict))
    vision = _pop_prefix(state_dict, "visual_encoder.")
    language = {**_pop_prefix(state_dict, "opt_model."), **_pop_prefix(state_dict, "t5_model.")}
    state = rename_keys(state_dict, LAVIS_STAGE2, ("Qformer.bert.embeddings.position_ids",))
    try:
        config = infer_qformer_config(state, num_attention_heads)
    except KeyError as missing:
        raise ValueError(f"The checkpoint does not fit the model. Keys missing: {missing.args[0]}.") from None
    model = Stage2Model(image_encoder, QFormer(config), language_model)
    load_strictly(model, state, ignore=FROZEN)
    if vision:
        load_strictly(image_encoder.model, from_eva(vision))
    if language:
        load_strictly(language_model.model, language)
    return model.eval()


def from_eva(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """EVA-CLIP's ViT (LAVIS's `visual_encoder`) under transformers' keys. It has no key bias; transformers' is set to
    0."""
    state = dict(state_dict)
    for name in [name for name in state if name.endswith(".attn.q_bias")]:
        block = name.removesuffix("q_bias")
        query, value = state.pop(f"{block}q_bias"), state.pop(f"{block}v_bias")
        state[f"{block}qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
    return rename_keys(state, EVA)


# --- transformers ---------------------------------------------------------------------------------------------------

#: transformers' Q-Former and ours. `embeddings` and the text FFNs exist in the retrieval layout only.
TRANSFORMERS_QFORMER: Table = (
    ("query_tokens", "qformer.query_tokens"),
    ("vision_model.post_layernorm", "qformer.image_layer_norm"),
    ("embeddings.word_embeddings", "qformer.word_embeddings"),
    ("embeddings.position_embeddings", "qformer.position_embeddings"),
    ("qformer.layernorm", "qformer.embedding_layer_norm"),
    ("qformer.encoder.layer.{i}.attention.attention.query", "qformer.layers.{i}.self_attention.query"),
    ("qformer.encoder.layer.{i}.attention.attention.key", "qformer.layers.{i}.self_attention.key"),
    ("qformer.encoder.layer.{i}.attention.attention.value", "qformer.layers.{i}.self_attention.value"),
    ("qformer.encoder.layer.{i}.attention.output.dense", "qformer.layers.{i}.self_attention.output"),
    ("qformer.encoder.layer.{i}.attention.output.LayerNorm", "qformer.layers.{i}.self_attention_layer_norm"),
    ("qformer.encoder.layer.{i}.crossattention.attention.query", "qformer.layers.{i}.cross_attention.query"),
    ("qformer.encoder.layer.{i}.crossattention.attention.key", "qformer.layers.{i}.cross_attention.key"),
    ("qformer.encoder.layer.{i}.crossattention.attention.value", "qformer.layers.{i}.cross_attention.value"),
    ("qformer.encoder.layer.{i}.crossattention.output.dense", "qformer.layers.{i}.cross_attention.output"),
    ("qformer.encoder.layer.{i}.crossattention.output.LayerNorm", "qformer.layers.{i}.cross_attention_layer_norm"),
    ("qformer.encoder.layer.{i}.intermediate.dense", "qformer.layers.{i}.text_ffn.expand"),
    ("qformer.encoder.layer.{i}.output.dense", "qformer.layers.{i}.text_ffn.contract"),
    ("qformer.encoder.layer.{i}.output.LayerNorm", "qformer.layers.{i}.text_ffn.layer_norm"),
    ("qformer.encoder.layer.{i}.intermediate_query.dense", "qformer.layers.{i}.query_ffn.expand"),
    ("qformer.encoder.layer.{i}.output_query.dense", "qformer.layers.{i}.query_ffn.contract"),
    ("qformer.encoder.layer.{i}.output_query.LayerNorm", "qformer.layers.{i}.query_ffn.layer_norm"),
)

#: Blip2ForConditionalGeneration. The frozen models keep transformers' keys, with the prefixes `FROZEN`.
TRANSFORMERS_STAGE2: Table = (*TRANSFORMERS_QFORMER, ("language_projection", "language_projection"))

#: InstructBlipForConditionalGeneration: the same with the Q-Former's text side inside `qformer`.
TRANSFORMERS_QUESTIONS: Table = (
    ("qformer.embeddings.layernorm", "qformer.embedding_layer_norm"),
    *(
        (f"qformer.{theirs}" if theirs.startswith("embeddings.") else theirs, ours)
        for theirs, ours in TRANSFORMERS_STAGE2
        if theirs != "qformer.layernorm"
    ),
)

#: Blip2ForImageTextRetrieval: stage 1 without its language modeling head, and without a temperature.
TRANSFORMERS_STAGE1: Table = (
    *TRANSFORMERS_QFORMER,
    ("vision_projection", "vision_projection"),
    ("text_projection", "text_projection"),
    ("itm_head", "itm_head"),
)


def table_of(model: Stage1Model | Stage2Model) -> Table:
    """The table of transformers' layout of this model."""
    if isinstance(model, Stage1Model):
        return TRANSFORMERS_STAGE1
    return TRANSFORMERS_QUESTIONS if model.reads_questions else TRANSFORMERS_STAGE2


#: Modules whose inner keys are the same in transformers: (transformers' prefix, ours).
TRANSFORMERS_FROZEN = (("vision_model.", "image_encoder.model."), ("language_model.", "language_model.model."))


def transformers_names(table: Table) -> tuple[Callable[[str], str | None], Callable[[str], str | None]]:
    """(transformers' name -> ours, ours -> transformers') for a whole model: the table and the frozen models."""
    return _with_prefixes(table, TRANSFORMERS_FROZEN), _with_prefixes(
        reverse(table), tuple((ours, theirs) for theirs, ours in TRANSFORMERS_FROZEN)
    )


def _with_prefixes(table: Table, prefixes: Table) -> Callable[[str], str | None]:
    rename = renamer(table)

    def rename_with_prefixes(key: str) -> str | None:
        name = rename(key)  # first: post_layernorm has the prefix vision_model, and is part of our Q-Former
        for left, right in prefixes:
            if name is None and key.startswith(left):
                return right + key.removeprefix(left)
        return name

    return rename_with_prefixes


def _pop_prefix(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the entries whose keys start with `prefix`, and return them without the prefix."""
    return {name.removeprefix(prefix): state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
