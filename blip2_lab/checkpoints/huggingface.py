"""transformers' BLIP-2 layout, read and written: config.json, safetensors, processor and tokenizer.

`from_transformers` reads a folder, `write_transformers` writes one; `blip2_lab.load` and `blip2_lab.save` call them.

Notes:

* A model trained here loads in transformers with the same logits and answers (tested).
* A model is built without weights and filled tensor by tensor (meta_model.py): loading needs the memory of the finished
  model and one tensor, in any precision.
* Quantization is described in models/quantize.py. int8 and NF4 run on a CPU too; training through them on a CPU needs
  int8 (bitsandbytes' NF4 has no gradient there).
* transformers normalizes image features with the encoder's eps (1e-6); LAVIS trained with 1e-5. The layout has no field
  for the second, so a model converted from LAVIS differs by about 1e-5 in transformers, as Salesforce's models do.

Paper: section 3.4 (frozen models in half precision). Notebook: 07.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.checkpoints import memory
from blip2_lab.checkpoints.files import (
    QFORMER_TOKENIZER,
    check_complete,
    read_tensors,
    weight_files,
    why_unreadable,
)
from blip2_lab.checkpoints.key_maps import (
    FROZEN,
    rename_keys,
    reverse,
    table_of,
    transformers_names,
)
from blip2_lab.checkpoints.meta_model import QUESTIONS, empty_quantized_model, is_retrieval, load_tensors
from blip2_lab.models.language_model import LanguageModel
from blip2_lab.models.quantize import is_quantized
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder, image_processor

if TYPE_CHECKING:
    from transformers import Blip2Config, InstructBlipConfig, PreTrainedModel, PreTrainedTokenizerBase

# --- Loading --------------------------------------------------------------------------------------------------------


def from_transformers(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Stage2Model | Stage1Model:
    """A `Blip2ForConditionalGeneration` folder as Stage2Model, and an `InstructBlipForConditionalGeneration` folder as
    one whose Q-Former reads questions; a `Blip2ForImageTextRetrieval` folder as Stage1Model."""
    folder = Path(folder)
    config, files = read_config(folder), weight_files(folder)
    check_complete(files)
    retrieval = is_retrieval(config)
    if retrieval:
        quantize, dtype = None, dtype or torch.float32  # no language model, and small: not quantized
    try:  # builds the model on the meta device, to learn its size
        dtype = memory.choose_dtype(config, str(folder), device, quantize, dtype)
    except (ArithmeticError, TypeError, RuntimeError) as error:  # a number that is a text, 0 or negative
        raise ValueError(f"{folder / 'config.json'} does not describe a BLIP-2: {_one_line(error)}") from None
    model = empty_quantized_model(config, quantize, device, dtype)
    to_ours, to_theirs = transformers_names(table_of(model))
    load_tensors(
        model,
        read_tensors(files),
        device=device,
        dtype=dtype,
        to_ours=to_ours,
        to_theirs=to_theirs,
        optional=("lm_head.", "temperature") if retrieval else (),
        layout=f"The weights in {folder}",
    )
    tokenizer = read_tokenizer(folder)
    if retrieval:
        return _without_lm_head(model, tokenizer, device)
    model.language_model.tokenizer = tokenizer
    if model.reads_questions:
        model.question_tokenizer = read_tokenizer(folder / QFORMER_TOKENIZER)
    return model


def read_config(folder: Path) -> Blip2Config:
    """config.json of a BLIP-2 in transformers' layout. Raises ValueError for any other.

    InstructBLIP's is read as a BLIP-2 whose Q-Former reads text (`meta_model.QUESTIONS`): its parts are the same.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = content.get("model_type")
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(why_unreadable(folder / "config.json", "is damaged: it is no JSON object")) from None
    if kind not in ("blip-2", "instructblip"):
        raise ValueError(f'{folder} holds a model of type {kind!r}, not a BLIP-2 ("blip-2").')
    from transformers import Blip2Config

    try:
        if kind == "instructblip":
            return _from_instructblip(content)
        return Blip2Config.from_pretrained(folder)
    except Exception as error:  # values of another type: the library raises many kinds of exceptions
        raise ValueError(f"{folder / 'config.json'} does not describe a BLIP-2: {_one_line(error)}") from None


def _from_instructblip(content: dict) -> Blip2Config:
    """InstructBLIP's config.json as a BLIP-2's."""
    from transformers import Blip2Config

    vision, qformer = (
        {name: value for name, value in content[part].items() if name not in ("model_type", "architectures")}
        for part in ("vision_config", "qformer_config")
    )
    whole = {
        name: content[name] for name in ("num_query_tokens", "image_token_index", "text_config") if name in content
    }
    config = Blip2Config(vision_config=vision, qformer_config=qformer | {"use_qformer_text_input": True}, **whole)
    config.architectures = [QUESTIONS]
    return config


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _without_lm_head(
    model: Stage1Model, tokenizer: PreTrainedTokenizerBase | None, device: torch.device | str
) -> Stage1Model:
    """`Blip2ForImageTextRetrieval` has ITC and ITM, but no ITG head and no temperature, so it cannot train."""
    model.config.sep_token_id = getattr(tokenizer, "sep_token_id", None) or 102
    model.tokenizer = tokenizer
    model.lm_head = MissingHead()
    model.temperature = nn.Parameter(torch.tensor(model.config.temperature, device=device))
    return model


class MissingHead(nn.Module):
    """Replaces the language modeling head, which transformers' retrieval layout lacks; raises when called."""

    def forward(self, *_: Tensor) -> Tensor:
        raise ValueError(
            "transformers' retrieval layout has no language modeling head, so this model generates no captions: load "
            "one that blip2_lab.save or LAVIS wrote."
        )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged or missing file: the library raises many kinds of exceptions
        raise ValueError(
            f"the tokenizer in {folder} cannot be read ({_one_line(error)}): copy all of its files again"
        ) from None


# --- Saving ---------------------------------------------------------------------------------------------------------


def as_loaded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy without the truncation and padding of the last call, which would be written to tokenizer.json."""
    tokenizer = copy.deepcopy(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)  # slow tokenizers have none
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def write_transformers(
    model: Stage2Model | Stage1Model,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write transformers' layout: a Stage2Model as `Blip2ForConditionalGeneration`, a Stage1Model with its image
    encoder as `Blip2ForImageTextRetrieval` (which has no field for its language modeling head and temperature).

    dtype  of the tensors in the files, by default those of the model. Files above `max_shard_size` are split.
    """
    from huggingface_hub import save_torch_state_dict

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(dtype) for name, tensor in to_transformers(model).items()}
    config = _blip2_config(model, next(iter(state.values())).dtype)
    tokenizer = model.language_model.tokenizer if isinstance(model, Stage2Model) else model.tokenizer
    if tokenizer is not None:
        _save_processor(model, tokenizer, config, folder)
    config.save_pretrained(folder)
    save_torch_state_dict(state, folder, max_shard_size=max_shard_size, metadata={"format": "pt"})


def to_transformers(model: Stage2Model | Stage1Model) -> dict[str, Tensor]:
    """The model's tensors under transformers' keys. A tied tensor is listed once."""
    encoder = model.image_encoder
    if encoder is None:
        raise ValueError("transformers' layout contains the image encoder: attach one to the model before saving it.")
    check_layout(encoder)
    if is_quantized(model):
        raise ValueError("A quantized language model cannot be saved; load the model without quantize= to save it.")
    ignored = (*FROZEN, "lm_head.", "temperature")
    state = rename_keys(model.state_dict(), reverse(table_of(model)), ignore=ignored)
    state |= {f"vision_model.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    if isinstance(model, Stage2Model):
        state |= {f"language_model.{name}": t for name, t in model.language_model.model.state_dict().items()}
    seen: set[int] = set()
    return {
        name: tensor.contiguous()
        for name, tensor in state.items()
        if not (tensor.data_ptr() in seen or seen.add(tensor.data_ptr()))
    }


def check_layout(image_encoder: ImageEncoder) -> None:
    """Raises ValueError for an image encoder that transformers' layout cannot represent."""
    if image_encoder.model.config.model_type != "blip_2_vision_model":
        raise ValueError("transformers' BLIP-2 layout has ViT-g's shape only; a model on CLIP ViT-L cannot be saved.")


def _blip2_config(model: Stage2Model | Stage1Model, dtype: torch.dtype) -> Blip2Config | InstructBlipConfig:
    from transformers import Blip2Config, InstructBlipConfig

    ours = model.qformer.config
    qformer = dict(
        vocab_size=ours.vocab_size,
        hidden_size=ours.width,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_heads,
        intermediate_size=ours.ffn_width,
        max_position_embeddings=ours.max_positions,
        hidden_dropout_prob=ours.dropout,
        attention_probs_dropout_prob=ours.dropout,
        initializer_range=ours.initializer_range,
        layer_norm_eps=ours.layer_norm_eps,
        pad_token_id=ours.pad_token_id,
        cross_attention_frequency=ours.cross_attention_frequency,
    )
    questions = isinstance(model, Stage2Model) and model.reads_questions
    if not questions:
        qformer["use_qformer_text_input"] = ours.has_text
    vision = config_dict(model.image_encoder.model)
    if isinstance(model, Stage1Model):
        config = Blip2Config(vision_config=vision, qformer_config=qformer, num_query_tokens=ours.num_query_tokens)
        config.image_text_hidden_size = model.config.embed_width
        config.architectures = ["Blip2ForImageTextRetrieval"]
    else:
        text = language_config_dict(model.language_model)
        if questions:
            vision = {name: value for name, value in vision.items() if name != "model_type"}
        kind = InstructBlipConfig if questions else Blip2Config
        config = kind(
            vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=ours.num_query_tokens
        )
        config.architectures = [QUESTIONS if questions else "Blip2ForConditionalGeneration"]
        config.text_config.tie_word_embeddings = text["tie_word_embeddings"]  # T5Config's own is always true
    config.dtype = dtype
    return config


def config_dict(part: PreTrainedModel) -> dict:
    """Its configuration, without `_name_or_path`: the folder it was loaded from is private."""
    return {name: value for name, value in part.config.to_dict().items() if name != "_name_or_path"}


def language_config_dict(language_model: LanguageModel) -> dict:
    """`config_dict` of a language model, with its end token and with what is true of its output matrix.

    T5Config says that the matrices are tied, always; FlanT5's and the miniature's are two. A version of transformers
    that believed it would replace one by the other. A T5 that scales its decoder's output is written as it is: reading
    "not tied" turns the scaling off.
    """
    config, model = config_dict(language_model.model), language_model.model
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    if config["model_type"] == "t5" and not tied and not config.get("scale_decoder_outputs", True):
        config["tie_word_embeddings"] = False
    return config | {"eos_token_id": language_model.end_token_id}


def _save_processor(
    model: Stage2Model | Stage1Model, tokenizer: PreTrainedTokenizerBase, config: Blip2Config, folder: Path
) -> None:
    """transformers' processor: image preprocessing, and Q `<image>` tokens before a text (none for retrieval)."""
    from transformers import Blip2Processor, InstructBlipProcessor

    tokenizer = as_loaded(tokenizer)  # the processor adds <image> to this copy
    generates = isinstance(model, Stage2Model)
    if generates and not model.language_model.model.config.is_encoder_decoder:
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = (
            "left"  # a decoder goes on where its prompt ends
        )
    num_query_tokens = config.num_query_tokens if generates else None
    images = image_processor(model.image_encoder.image_size)
    if generates and model.reads_questions:
        processor = InstructBlipProcessor(images, tokenizer, as_loaded(model.question_tokenizer), num_query_tokens)
    else:
        processor = Blip2Processor(images, tokenizer, num_query_tokens)
    if generates:
        config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
        if config.image_token_index >= config.text_config.vocab_size:
            raise ValueError(
                f"transformers' layout needs a token <image>, number {config.image_token_index}, but this language "
                f"model has {config.text_config.vocab_size} embeddings; resize its token embeddings first."
            )
    processor.save_pretrained(folder)
