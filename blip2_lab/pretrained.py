"""Whole models: load what transformers, LAVIS or we have saved, and save what transformers can load.

What is unusual about it:

* transformers' BLIP-2 layout is the only layout of a whole model: config.json, safetensors (in shards where it is
  large), processor and tokenizer. What is trained here loads there, with the same logits and answers (tested).
* A model is built without weights and filled tensor by tensor (assemble.py): loading needs the memory of the finished
  model and one tensor, in any precision. Whether there is room is asked before anything is fetched or read.
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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2_lab import lavis_files, model_zoo, weights
from blip2_lab.assemble import pour, quantized_skeleton
from blip2_lab.checkpoints import (
    FROZEN,
    TRANSFORMERS_STAGE1,
    TRANSFORMERS_STAGE2,
    load_strictly,
    rename_keys,
    reverse,
    transformers_names,
)
from blip2_lab.qformer import QFormerConfig
from blip2_lab.quantize import check_method, is_quantized
from blip2_lab.stage1 import Stage1Config, Stage1Model
from blip2_lab.stage2 import Stage2Model
from blip2_lab.vision import ImageEncoder, image_processor

if TYPE_CHECKING:
    from transformers import Blip2Config, PreTrainedModel, PreTrainedTokenizerBase

MICRO = Path(__file__).parent / "assets" / "micro"
DTYPES = {
    **dict.fromkeys(("float32", "fp32"), torch.float32),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("float16", "fp16"), torch.float16),
}


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    quantize: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> Stage2Model | Stage1Model:
    """A whole model in eval mode: "micro", a folder in transformers' layout, a LAVIS file or folder, or a hub name.

    quantize  "int8", "int8-all" or "nf4" for the language model (quantize.py); None or "none": as it is
    dtype     of the frozen parts; by default float32 on the CPU (bfloat16 where it is quantized), and on a GPU what the
              paper took: float16 for OPT and bfloat16 for FlanT5 (section 3.4). The Q-Former stays in float32
    A folder of transformers' retrieval model gives a Stage1Model; `stage1` inside a folder becomes `model.stage1`, or
    gives that Stage1Model the heads which transformers has no place for.
    Raises ValueError, in one sentence, for what cannot be found, fetched, read or held.
    """
    quantize, dtype, device = check_method(quantize), check_dtype(dtype), check_device(device)
    path = find(name_or_path, device=device, quantize=quantize, dtype=dtype)
    if path.is_file() or not (path / "config.json").is_file():
        return lavis_files.load(path, device=device, quantize=quantize, dtype=dtype)
    model = from_transformers(path, device=device, quantize=quantize, dtype=dtype)
    if (path / "stage1" / "config.json").is_file():
        stage1 = read_stage1(path / "stage1", image_encoder=model.image_encoder).to(device)
        if isinstance(model, Stage1Model):
            return stage1
        model.attach_stage1(stage1)
    return model


def check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A float type by name. Raises ValueError for what is none."""
    if dtype is None or dtype in DTYPES.values():
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose float32, bfloat16 or float16.")
    return DTYPES[dtype]


def check_device(device: str | torch.device) -> torch.device:
    """Raises ValueError for a device that cannot compute here: nothing is moved to the CPU in silence."""
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={str(device)!r} is unknown; choose cpu, cuda, cuda:1, mps or the like.") from None
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # each device has its own: RuntimeError, AssertionError, ModuleNotFoundError
        why = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(f"There is no device {device} here that torch can use ({why}); take --device cpu.") from None
    return device


def find(
    name_or_path: str | Path,
    *,
    device: torch.device | str = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """The folder (or LAVIS file) of a model: the shipped one, one of yours, or a download from the hub.

    Before a download, disk and memory are asked whether they hold it. Raises ValueError.
    """
    if str(name_or_path) == "micro":
        if not (MICRO / "config.json").is_file():
            raise ValueError("This copy of blip2_lab has no micro model; make one with `blip2-lab train micro-all`.")
        return MICRO
    path = Path(name_or_path).expanduser()
    if path.is_file() or lavis_files.is_lavis_folder(path):
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} holds no model: it has no config.json. Give a folder in transformers' layout.")
        return path
    name = str(name_or_path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or path.suffix in (".pth", ".safetensors"):
        raise ValueError(f'There is no folder {name}; give "micro", a folder, or a hub name such as "owner/model".')
    known = model_zoo.released(name)
    if known is not None:
        _check_memory(model_zoo.blip2_config(known), name, device, quantize, dtype)
    if (folder := weights.cached(name)) is not None:
        return folder
    from huggingface_hub import constants

    size = weights.bytes_to_fetch(name) or (4 * known.parameters if known else 0)
    model_zoo.check_disk(name, size, Path(constants.HF_HUB_CACHE))
    return weights.fetch(name)


def _check_memory(
    config: Blip2Config, name: str, device: torch.device | str, quantize: str | None, dtype: torch.dtype | None
) -> torch.dtype:
    """-> the dtype that will be used. Raises ValueError when the device has no room (`model_zoo.check_memory`)."""
    is_encoder_decoder = config.text_config.model_type == "t5"
    if dtype is None:
        dtype = model_zoo.default_dtype(is_encoder_decoder, device, quantize)
    model_zoo.check_memory(config, name, device, quantize, dtype)
    return dtype


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
    config, files = read_config(folder), weights.weight_files(folder)
    weights.check_whole(files)
    retrieval = config.qformer_config.use_qformer_text_input
    if retrieval:
        quantize, dtype = None, dtype or torch.float32  # no language model, and small: as it is
    dtype = _check_memory(config, str(folder), device, quantize, dtype)
    model = quantized_skeleton(config, quantize, device, dtype)
    to_ours, to_theirs = transformers_names(TRANSFORMERS_STAGE1 if retrieval else TRANSFORMERS_STAGE2)
    pour(
        model,
        weights.read_tensors(files),
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
    return model


def read_stage1(folder: str | Path, *, image_encoder: ImageEncoder | None = None) -> Stage1Model:
    """What `save_stage1` wrote, in eval mode. Raises ValueError, in one sentence, for a folder that is damaged."""
    folder = Path(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} has no config.json: give a folder that Stage1Model.save_pretrained wrote.")
    try:
        config = json.loads(file.read_text())
        model = Stage1Model(QFormerConfig(**config["qformer"]), Stage1Config(**config["stage1"]))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not describe a Stage1Model: {error}.") from None
    files = weights.weight_files(folder)
    weights.check_whole(files)
    load_strictly(model, dict(weights.read_tensors(files)))
    model.attach_image_encoder(image_encoder)
    model.tokenizer = read_tokenizer(folder)
    return model.eval()


def read_config(folder: Path) -> Blip2Config:
    """config.json of a BLIP-2 in transformers' layout. Raises ValueError for any other."""
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise ValueError(f"{folder / 'config.json'} is damaged: it is no JSON. Fetch the same model again.") from None
    if kind != "blip-2":
        raise ValueError(f'{folder} holds a model of type {kind!r}, not a BLIP-2 ("blip-2").')
    from transformers import Blip2Config

    return Blip2Config.from_pretrained(folder)


def _without_lm_head(
    model: Stage1Model, tokenizer: PreTrainedTokenizerBase | None, device: torch.device | str
) -> Stage1Model:
    """`Blip2ForImageTextRetrieval` retrieves and matches, but cannot write or train."""
    model.config.sep_token_id = getattr(tokenizer, "sep_token_id", None) or 102
    model.tokenizer = tokenizer
    model.lm_head = MissingHead()
    model.temperature = nn.Parameter(torch.tensor(model.config.temperature, device=device))
    return model


class MissingHead(nn.Module):
    """Stands where transformers' retrieval layout has no language modeling head, and says so."""

    def forward(self, *_: Tensor) -> Tensor:
        raise ValueError("transformers' retrieval layout has no language modeling head: this model cannot write.")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


# --- Saving ---------------------------------------------------------------------------------------------------------


def save_pretrained(
    model: Stage2Model | Stage1Model,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write transformers' layout: a Stage2Model as `Blip2ForConditionalGeneration`, a Stage1Model with its image
    encoder as `Blip2ForImageTextRetrieval`. There the language modeling head and the temperature have no place, so
    `stage1` inside the folder holds the whole stage-1 model, as it does for a Stage2Model that has one.

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
    stage1 = model.stage1 if isinstance(model, Stage2Model) else model
    if stage1 is not None and not isinstance(stage1.lm_head, MissingHead):
        save_stage1(stage1, folder / "stage1", dtype=dtype)


def save_stage1(model: Stage1Model, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """config.json, model.safetensors (in `dtype`, by default the model's own) and the tokenizer. The image encoder is
    kept elsewhere: it is frozen."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"qformer": asdict(model.qformer.config), "stage1": asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    own = {name: t for name, t in model.state_dict().items() if not name.startswith("image_encoder.")}
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in own.items()}, folder / weights.WHOLE)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)


def to_transformers(model: Stage2Model | Stage1Model) -> dict[str, Tensor]:
    """The model's tensors under transformers' names. A tensor that two names share (tied) is listed once."""
    encoder = model.image_encoder
    if encoder is None:
        raise ValueError("transformers' layout holds the image encoder too; give the model one before saving it there.")
    check_layout(encoder)
    if is_quantized(model):
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


def check_layout(image_encoder: ImageEncoder) -> None:
    """Raises ValueError for an image encoder that transformers' layout has no place for."""
    if image_encoder.model.config.model_type != "blip_2_vision_model":
        raise ValueError("transformers' BLIP-2 layout has ViT-g's shape only; a model on CLIP ViT-L cannot be saved.")


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
    vision = _shape_of(model.image_encoder.model)
    if isinstance(model, Stage1Model):
        config = Blip2Config(vision_config=vision, qformer_config=qformer, num_query_tokens=ours.num_query_tokens)
        config.image_text_hidden_size = model.config.embed_width
        config.architectures = ["Blip2ForImageTextRetrieval"]
    else:
        text = _shape_of(model.language_model.model) | {"eos_token_id": model.language_model.end_token_id}
        config = Blip2Config(
            vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=ours.num_query_tokens
        )
        config.architectures = ["Blip2ForConditionalGeneration"]
    config.dtype = dtype
    return config


def _shape_of(part: PreTrainedModel) -> dict:
    """Its configuration, without the folder it was once loaded from: that is nobody's business."""
    return {name: value for name, value in part.config.to_dict().items() if name != "_name_or_path"}


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
