"""Models on the meta device, and weights streamed from disk into them.

`empty_model` builds a model without weights, `load_tensors` fills it, `model_bytes` counts its size.

Notes:

* On the meta device a tensor has a shape and no storage. A model of 12 billion parameters can be counted on a laptop,
  and loading needs the memory of the finished model and one tensor.
* Each tensor is read, moved to its device, cast or quantized, and set; no other copy is kept. Nothing is offloaded and
  nothing is initialized at random: a parameter without a tensor raises an error with its name.
* Tied tensors (T5's `shared`, OPT's `lm_head`) exist once in memory, also where the file lists them several times.

Paper: section 3.4 (frozen models in half precision). Notebook: 07.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.models.language_model import language_model
from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.quantize import (
    is_quantized,
    is_quantized_layer,
    layers_to_quantize,
    linear_bytes,
    quantize_empty_model,
    quantize_weight,
)
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

if TYPE_CHECKING:
    from transformers import Blip2Config, PreTrainedConfig, PreTrainedModel

#: Tied tensors of a language model: (the copy, the original). T5's `lm_head` is tied only where the file has none
#: (FlanT5 has one); OPT's always is.
ALWAYS_TIED = (
    ("encoder.embed_tokens.weight", "shared.weight"),
    ("decoder.embed_tokens.weight", "shared.weight"),
    ("lm_head.weight", "model.decoder.embed_tokens.weight"),
)
TIED_IF_MISSING = (("lm_head.weight", "shared.weight"),)

QUESTIONS = "InstructBlipForConditionalGeneration"  #: transformers' class of a model whose Q-Former reads questions

FROZEN_PREFIXES = ("image_encoder.", "language_model.")


def empty_model(config: Blip2Config) -> Stage2Model | Stage1Model:
    """A model of this shape on the meta device, without weights: a Stage1Model for the layout of a stage 1, else a
    Stage2Model."""
    with without_weights():
        encoder = ImageEncoder.from_config(config.vision_config)
        if is_retrieval(config):
            stage1 = Stage1Config(
                embed_width=config.image_text_hidden_size, decode_token_id=config.qformer_config.vocab_size - 1
            )
            return Stage1Model(qformer_config(config), stage1, image_encoder=encoder).eval()
        language = language_model(empty_language_model(config.text_config))
        return Stage2Model(encoder, QFormer(qformer_config(config)), language).eval()


def is_retrieval(config: Blip2Config) -> bool:
    """Whether this is transformers' layout of a stage 1. (That of a model whose Q-Former reads questions is
    InstructBLIP's.)"""
    return config.qformer_config.use_qformer_text_input and QUESTIONS not in (config.architectures or ())


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules built inside the block are on the meta device and are not initialized."""
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        yield


def empty_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """An OPT or a T5 on the meta device, without weights. T5's lm_head is untied, as in FlanT5."""
    from transformers import OPTForCausalLM, T5ForConditionalGeneration

    kinds = {"opt": OPTForCausalLM, "t5": T5ForConditionalGeneration}
    if config.model_type not in kinds:
        raise ValueError(f"The language model is of type {config.model_type!r}; BLIP-2's are OPT and (Flan)T5.")
    with without_weights():
        model = kinds[config.model_type](config)
        if config.model_type == "t5":
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    for copy, original in ALWAYS_TIED:
        with suppress(AttributeError):  # a pair of the other model type
            owner, _, leaf = copy.rpartition(".")
            setattr(model.get_submodule(owner), leaf, model.get_parameter(original))
    return model


def qformer_config(config: Blip2Config) -> QFormerConfig:
    """transformers' configuration of a Q-Former -> QFormerConfig."""
    theirs = config.qformer_config
    return QFormerConfig(
        vocab_size=theirs.vocab_size,
        width=theirs.hidden_size,
        num_layers=theirs.num_hidden_layers,
        num_heads=theirs.num_attention_heads,
        ffn_width=theirs.intermediate_size,
        cross_attention_frequency=theirs.cross_attention_frequency,
        image_width=config.vision_config.hidden_size,
        num_query_tokens=config.num_query_tokens,
        max_positions=theirs.max_position_embeddings,
        dropout=theirs.hidden_dropout_prob,
        layer_norm_eps=theirs.layer_norm_eps,
        image_layer_norm_eps=config.vision_config.layer_norm_eps,
        pad_token_id=theirs.pad_token_id,
        initializer_range=theirs.initializer_range,
        has_text=theirs.use_qformer_text_input,
    )


def dtype_of(name: str, dtype: torch.dtype, quantized: bool = False) -> torch.dtype:
    """The dtype of a parameter (our name) in a model whose frozen models have `dtype`. The Q-Former has float32, or
    bfloat16 beside quantized models, which are loaded for inference."""
    if not name.startswith(FROZEN_PREFIXES):
        return torch.bfloat16 if quantized and dtype == torch.bfloat16 else torch.float32
    # as in transformers: the output of T5's wo overflows float16
    return torch.float32 if dtype == torch.float16 and ".wo." in name else dtype


def model_bytes(model: Stage2Model | Stage1Model, quantize: str | None, dtype: torch.dtype) -> int:
    """The bytes of a model's weights, loaded with these options. `model` may be on the meta device."""
    layers = layers_to_quantize(model, quantize).values()
    counted = {id(layer.weight) for layer in layers}
    return sum(linear_bytes(layer, quantize) for layer in layers) + sum(
        parameter.numel() * dtype_of(name, dtype, bool(quantize)).itemsize
        for name, parameter in model.named_parameters()  # tied parameters once
        if id(parameter) not in counted
    )


def load_tensors(
    model: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    to_ours: Callable[[str], str | None] = lambda name: name,
    to_theirs: Callable[[str], str | None] = lambda name: name,
    optional: tuple[str, ...] = (),
    layout: str = "the weights",
) -> None:
    """Load (their name, tensor) pairs, in any order, into a model on the meta device.

    to_ours    their name -> ours, None where it is unknown; to_theirs is its inverse, for messages
    optional   prefixes of our names that may have no tensor (these stay on the meta device)
    layout     names the source in the error message
    Raises ValueError with all missing and unexpected keys and all keys of another shape.
    """
    waiting = {name: p.shape for name, p in _named_tensors(model)}
    prefix = "language_model.model." if any(name.startswith("language_model.model.") for name in waiting) else ""
    copies = {prefix + copy: prefix + original for copy, original in ALWAYS_TIED if prefix + original in waiting}
    quantized = is_quantized(model)
    unexpected, mismatched, filled = [], [], set()
    for theirs, tensor in tensors:
        name = to_ours(theirs)
        if name in copies:
            continue
        if name not in waiting:
            unexpected.append(theirs)
        elif waiting[name] != tensor.shape:
            mismatched.append(f"{theirs} {list(tensor.shape)} instead of {list(waiting[name])}")
        else:
            _set_tensor(model, name, tensor, device, dtype_of(name, dtype, quantized))
            filled.add(name)
    ties = copies | {
        prefix + copy: prefix + original
        for copy, original in TIED_IF_MISSING
        if prefix + original in filled and prefix + copy in waiting and prefix + copy not in filled
    }
    for copy, original in ties.items():
        if copy in waiting and original in filled:
            owner, _, leaf = copy.rpartition(".")
            if is_quantized_layer(module := model.get_submodule(owner)):
                quantize_weight(module, model.get_parameter(original), device)
            else:
                setattr(module, leaf, model.get_parameter(original))
            filled.add(copy)
    missing = [to_theirs(name) or name for name in waiting if name not in filled and not name.startswith(optional)]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    if any(problems.values()):
        lines = "; ".join(f"{what}: {', '.join(sorted(keys))}" for what, keys in problems.items() if keys)
        raise ValueError(f"{layout} do not fit their config.json. Keys {lines}.")


def _named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The tensors that a file must have: parameters under all their names, and quantized weights; no other buffers."""
    named = list(model.named_parameters(remove_duplicate=False))
    for name, module in model.named_modules():
        if is_quantized_layer(module):
            outer = name.removesuffix(".inner")
            named = [pair for pair in named if pair[0] != f"{name}.weight"]
            shape = (module.out_features, module.in_features)
            named.append((f"{outer}.weight", torch.empty(shape, device="meta")))
    return named


def _set_tensor(model: nn.Module, name: str, tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    module = getattr(module, "inner", module)
    if leaf == "weight" and is_quantized_layer(module):
        quantize_weight(module, tensor, device)
    else:
        requires_grad = module._parameters[leaf].requires_grad
        # a copy: a view of a memory-mapped file would keep the file open
        copied = tensor.to(device=device, dtype=dtype, copy=True)
        setattr(module, leaf, nn.Parameter(copied, requires_grad=requires_grad))


def empty_quantized_model(
    config: Blip2Config, quantize: str | None, device: torch.device | str, dtype: torch.dtype
) -> Stage2Model | Stage1Model:
    """`empty_model`, with the layers replaced that `quantize` selects."""
    model = empty_model(config)
    quantize_empty_model(model, quantize, device, dtype)
    return model
