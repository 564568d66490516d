"""Whole models in folders: load what transformers or we have saved, and save what transformers can load.

What is unusual about it:

* transformers' BLIP-2 layout is the only layout of a whole model: config.json, safetensors (in shards where it is
  large), processor and tokenizer. What is trained here loads there, with the same logits and answers (tested).
* That layout has no stage 1. Ours lies beside it, in a sub-folder `stage1`, and comes back as `model.stage1`.
* Only the language model is quantized (it is 90 % of the parameters, and frozen); the Q-Former stays in float32. Both
  int8 and NF4 answer on a CPU too; to train through them there, take int8 (bitsandbytes' NF4 has no gradient on a CPU).
* transformers normalizes image features with the encoder's eps (1e-6), LAVIS trained with 1e-5. The layout has no place
  for the second: a model converted from LAVIS differs by about 1e-5 in transformers, as Salesforce's own do.

Paper: section 3.4 (frozen models in half precision). Notebook: 07.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab.checkpoints import (
    FROZEN,
    TRANSFORMERS_STAGE1,
    TRANSFORMERS_STAGE2,
    load_strictly,
    rename_keys,
    reverse,
)
from blip2_lab.language import language_model
from blip2_lab.qformer import QFormer, QFormerConfig
from blip2_lab.stage1 import Stage1Config, Stage1Model
from blip2_lab.stage2 import Stage2Model
from blip2_lab.vision import ImageEncoder, freeze, image_processor

if TYPE_CHECKING:
    from transformers import Blip2Config, PreTrainedModel, PreTrainedTokenizerBase

MICRO = Path(__file__).parent / "assets" / "micro"
QUANTIZED = {
    "int8": dict(load_in_8bit=True),
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
}
NOT_QUANTIZED = ["vision_model", "qformer", "language_projection", "lm_head"]
WEIGHTS = "*.safetensors"


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Stage2Model | Stage1Model:
    """A whole model in eval mode: "micro", a folder in transformers' layout, or a hub name.

    quantize  "int8" or "nf4" for the language model
    dtype     of the frozen parts; by default float32 on the CPU, and on a GPU what the paper took: float16 for OPT and
              bfloat16 for FlanT5 (section 3.4)
    A folder of transformers' retrieval model gives a Stage1Model; `stage1` inside a folder becomes `model.stage1`.
    """
    if quantize is not None and quantize not in QUANTIZED:
        raise ValueError(f"quantize={quantize!r} is unknown; choose {', '.join(map(repr, QUANTIZED))} or None.")
    folder = find(name_or_path)
    model = from_transformers(folder, device=device, quantize=quantize, dtype=dtype)
    if (folder / "stage1" / "config.json").is_file():
        stage1 = Stage1Model.from_pretrained(folder / "stage1", image_encoder=model.image_encoder)
        model.attach_stage1(stage1.to(device))
    return model


def find(name_or_path: str | Path) -> Path:
    """The folder of a model: the shipped one, one of yours, or a download from the hub. Raises ValueError."""
    if str(name_or_path) == "micro":
        if not (MICRO / "config.json").is_file():
            raise ValueError("This copy of blip2_lab has no micro model; make one with `blip2-lab train micro-all`.")
        return MICRO
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no model: it has no config.json. Give a folder in transformers' layout.")
        return folder
    name = str(name_or_path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f'There is no folder {name}; give "micro", a folder, or a hub name such as "owner/model".')
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", WEIGHTS]))
    except (OSError, ValueError, HfHubHTTPError) as error:  # no network, no such name, or no permission
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{name} is not a folder here and could not be fetched from the Hugging Face hub ({reason}); "
            "check the name and the network, or give a folder in transformers' layout."
        ) from None


# --- Loading --------------------------------------------------------------------------------------------------------


def from_transformers(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Stage2Model | Stage1Model:
    """A `Blip2ForConditionalGeneration` folder as Stage2Model, a `Blip2ForImageTextRetrieval` folder as Stage1Model."""
    folder = Path(folder)
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind != "blip-2":
        raise ValueError(f'{folder} holds a model of type {kind!r}, not a BLIP-2 ("blip-2").')
    from transformers import Blip2Config

    config = Blip2Config.from_pretrained(folder)
    tokenizer = _tokenizer(folder)
    if config.qformer_config.use_qformer_text_input:
        return _retrieval(_read(folder), config, tokenizer).to(device)
    if dtype is None:
        half = torch.bfloat16 if config.text_config.is_encoder_decoder else torch.float16
        dtype = torch.float32 if torch.device(device).type == "cpu" else half
    blip2 = _blip2_for_conditional_generation(folder, device, quantize, dtype)
    return wrap(blip2, tokenizer).to(device)


def wrap(blip2: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> Stage2Model:
    """transformers' `Blip2ForConditionalGeneration` as a Stage2Model in eval mode. The frozen parts are shared."""
    own, _ = _split(blip2.state_dict())
    qformer = QFormer(_qformer_config(blip2.config))
    model = Stage2Model(ImageEncoder(blip2.vision_model), qformer, language_model(blip2.language_model, tokenizer))
    load_strictly(model, rename_keys(own, TRANSFORMERS_STAGE2, ignore=("language_model.",)), ignore=FROZEN)
    return model.eval()


def _split(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """transformers' tensors -> what is the Q-Former's (the encoder's last LayerNorm is), the image encoder's own."""
    own, vision = {}, {}
    for name, tensor in state_dict.items():
        if name.startswith("vision_model.") and not name.startswith("vision_model.post_layernorm."):
            vision[name.removeprefix("vision_model.")] = tensor
        else:
            own[name] = tensor
    return own, vision


def _blip2_for_conditional_generation(
    folder: Path, device: str | torch.device, quantize: str | None, dtype: torch.dtype
) -> PreTrainedModel:
    """transformers' model, with an error for every key that found no place."""
    from transformers import Blip2ForConditionalGeneration

    quantization = None
    if quantize is not None:
        from transformers import BitsAndBytesConfig

        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on the CPU it logs a line for every layer and call
        quantization = BitsAndBytesConfig(**QUANTIZED[quantize], llm_int8_skip_modules=NOT_QUANTIZED)
        if quantize == "nf4":
            quantization.bnb_4bit_compute_dtype = dtype
    with _quietly(progress=sum(file.stat().st_size for file in folder.glob(WEIGHTS)) > 2**30):
        blip2, report = Blip2ForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            device_map=None if torch.device(device).type == "cpu" else {"": device},
            quantization_config=quantization,
            local_files_only=True,
            output_loading_info=True,
        )
    problems = {what: sorted(report[f"{what}_keys"]) for what in ("missing", "unexpected", "mismatched")}
    if any(problems.values()):
        lines = "; ".join(f"{what}: {', '.join(map(str, keys))}" for what, keys in problems.items() if keys)
        raise ValueError(f"The weights in {folder} do not fit its config.json. Keys {lines}.")
    return blip2


@contextmanager
def _quietly(progress: bool) -> Iterator[None]:
    """transformers warns that a FlanT5's lm_head is untied, which is right; its bars are worth it above 1 GB."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not progress:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _retrieval(
    state_dict: dict[str, Tensor], config: Blip2Config, tokenizer: PreTrainedTokenizerBase | None
) -> Stage1Model:
    """`Blip2ForImageTextRetrieval` as a Stage1Model that retrieves and matches, but cannot write or train."""
    own, vision = _split(state_dict)
    encoder = ImageEncoder.from_config(config.vision_config)
    load_strictly(encoder.model, vision)
    stage1 = Stage1Config(
        embed_width=config.image_text_hidden_size,
        sep_token_id=getattr(tokenizer, "sep_token_id", None) or 102,
        decode_token_id=config.qformer_config.vocab_size - 1,
    )
    model = Stage1Model(_qformer_config(config), stage1, image_encoder=freeze(encoder), tokenizer=tokenizer)
    load_strictly(model, rename_keys(own, TRANSFORMERS_STAGE1), ignore=("image_encoder.", "lm_head.", "temperature"))
    model.lm_head = MissingHead()
    return model.eval()


class MissingHead(nn.Module):
    """Stands where transformers' retrieval layout has no language modeling head, and says so."""

    def forward(self, *_: Tensor) -> Tensor:
        raise ValueError("transformers' retrieval layout has no language modeling head: this model cannot write.")


def _qformer_config(config: Blip2Config) -> QFormerConfig:
    """transformers' configuration of a Q-Former, in our words."""
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


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, one or many."""
    from safetensors.torch import load_file

    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise ValueError(f"{folder} holds no weights: there is no *.safetensors file in it.")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


# --- Saving ---------------------------------------------------------------------------------------------------------


def save_pretrained(
    model: Stage2Model | Stage1Model,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write transformers' layout: a Stage2Model as `Blip2ForConditionalGeneration`, a Stage1Model with its image
    encoder as `Blip2ForImageTextRetrieval`, where the language modeling head and the temperature have no place.

    dtype  of the file's tensors, by default the model's own. Files of more than `max_shard_size` are split.
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
    if isinstance(model, Stage2Model) and model.stage1 is not None:
        model.stage1.save_pretrained(folder / "stage1", dtype=dtype)


def to_transformers(model: Stage2Model | Stage1Model) -> dict[str, Tensor]:
    """The model's tensors under transformers' names. A tensor that two names share (tied) is listed once."""
    encoder = model.image_encoder
    if encoder is None:
        raise ValueError("transformers' layout holds the image encoder too; give the model one before saving it there.")
    if encoder.model.config.model_type != "blip_2_vision_model":
        raise ValueError("transformers' BLIP-2 layout has ViT-g's shape only; a model on CLIP ViT-L cannot be saved.")
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ValueError("A quantized language model cannot be saved; load the model without quantize= to save it.")
    table = TRANSFORMERS_STAGE2 if isinstance(model, Stage2Model) else TRANSFORMERS_STAGE1
    ignored = (*FROZEN, "lm_head.", "temperature")
    state = rename_keys(model.state_dict(), reverse(table), ignore=ignored)
    state |= {f"vision_model.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    if isinstance(model, Stage2Model):
        state |= {f"language_model.{name}": t for name, t in model.language_model.model.state_dict().items()}
    seen: set[int] = set()
    return {
        name: tensor.contiguous()
        for name, tensor in state.items()
        if not (tensor.data_ptr() in seen or seen.add(tensor.data_ptr()))
    }


def _blip2_config(model: Stage2Model | Stage1Model, dtype: torch.dtype) -> Blip2Config:
    from transformers import Blip2Config

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
        use_qformer_text_input=ours.has_text,
    )
    vision = model.image_encoder.model.config.to_dict()
    if isinstance(model, Stage1Model):
        config = Blip2Config(vision_config=vision, qformer_config=qformer, num_query_tokens=ours.num_query_tokens)
        config.image_text_hidden_size = model.config.embed_width
        config.architectures = ["Blip2ForImageTextRetrieval"]
    else:
        text = model.language_model.model.config.to_dict() | {"eos_token_id": model.language_model.end_token_id}
        config = Blip2Config(
            vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=ours.num_query_tokens
        )
        config.architectures = ["Blip2ForConditionalGeneration"]
    config.dtype = dtype
    return config


def _save_processor(
    model: Stage2Model | Stage1Model, tokenizer: PreTrainedTokenizerBase, config: Blip2Config, folder: Path
) -> None:
    """transformers' processor: pictures, and Q `<image>` tokens in front of a text (none for retrieval)."""
    from transformers import Blip2Processor

    tokenizer = copy.deepcopy(tokenizer)  # the processor adds <image> to it
    generates = isinstance(model, Stage2Model)
    if generates and not model.language_model.model.config.is_encoder_decoder:
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = (
            "left"  # a decoder goes on where its prompt ends
        )
    num_query_tokens = config.num_query_tokens if generates else None
    processor = Blip2Processor(image_processor(model.image_encoder.image_size), tokenizer, num_query_tokens)
    if generates:
        config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
        if config.image_token_index >= config.text_config.vocab_size:
            raise ValueError(
                f"transformers' layout needs a token <image>, number {config.image_token_index}, but this language "
                f"model has {config.text_config.vocab_size} embeddings; resize its token embeddings first."
            )
    processor.save_pretrained(folder)
