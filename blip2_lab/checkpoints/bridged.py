"""Models whose bridge is no Q-Former, and dual encoders, read and written: transformers' BLIP-2 layout has no place
for them.

`write_bridged` writes a folder, `read_bridged` reads it; `blip2_lab.load` and `blip2_lab.save` call them.

Notes:

* config.json has transformers' configurations of the two frozen models and `bridge`: its name and its sizes. Its
  `model_type` is none of transformers', which refuses the folder instead of giving it a random Q-Former.
* A folder without `bridge` is a BLIP-2 with a Q-Former. The bridge "dual_encoder" makes the folder a DualEncoder, whose
  text encoder is in `text_config`.
* As in huggingface.py, a model is built without weights and filled tensor by tensor, in any precision.

Paper: section 3.4 (frozen models in half precision). Notebook: 07.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from blip2_lab.checkpoints import memory
from blip2_lab.checkpoints.files import check_complete, read_tensors, weight_files
from blip2_lab.checkpoints.huggingface import check_layout, config_dict, language_config_dict, read_tokenizer
from blip2_lab.checkpoints.key_maps import TRANSFORMERS_FROZEN
from blip2_lab.checkpoints.meta_model import empty_language_model, load_tensors, model_bytes, without_weights
from blip2_lab.models.bridges import BRIDGES, Bridge, DualEncoder, DualEncoderConfig
from blip2_lab.models.language_model import language_model
from blip2_lab.models.quantize import is_quantized, quantize_empty_model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

MODEL_TYPE = "blip2-lab-bridge"
DUAL_ENCODER = "dual_encoder"
#: (the file's prefix, ours)
PREFIXES = (*TRANSFORMERS_FROZEN, ("bridge.", "bridge."))
DUAL_PREFIXES = (*TRANSFORMERS_FROZEN, ("bridge.", ""))  # its own parts stand beside the two encoders

BridgedModel = Stage2Model | DualEncoder


def is_bridged_folder(folder: Path) -> bool:
    """Whether a folder is a model as `write_bridged` writes it."""
    try:
        return json.loads((folder / "config.json").read_text()).get("model_type") == MODEL_TYPE
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return False  # `huggingface.read_config` raises for this file


def write_bridged(
    model: BridgedModel, folder: str | Path, *, dtype: torch.dtype | None = None, max_shard_size: str = "5GB"
) -> None:
    """config.json, the weights (in `dtype`, by default the model's), and the tokenizer."""
    from huggingface_hub import save_torch_state_dict

    check_layout(model.image_encoder)
    if is_quantized(model):
        raise ValueError("A quantized language model cannot be saved; load the model without quantize= to save it.")
    is_dual = isinstance(model, DualEncoder)
    bridge, prefixes = (model, DUAL_PREFIXES) if is_dual else (model.bridge, PREFIXES)
    known = {DUAL_ENCODER: DualEncoder} | {name: kind for name, (_, kind) in BRIDGES.items()}
    name = next(name for name, kind in known.items() if type(bridge) is kind)
    config = {
        "model_type": MODEL_TYPE,
        "bridge": {"name": name, **asdict(bridge.config)},
        "vision_config": config_dict(model.image_encoder.model),
        "text_config": language_config_dict(model.language_model),
    }
    state, seen = {}, set()
    for own, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied tensor is listed once
            seen.add(tensor.data_ptr())
            state[_rename(own, [(ours, theirs) for theirs, ours in prefixes])] = tensor.to(dtype).contiguous()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    save_torch_state_dict(state, folder, max_shard_size=max_shard_size, metadata={"format": "pt"})
    if model.language_model.tokenizer is not None:
        model.language_model.tokenizer.save_pretrained(folder)


def read_bridged(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> BridgedModel:
    """The model that `write_bridged` wrote, in eval mode. Raises ValueError, in one sentence, for a damaged folder."""
    files = weight_files(folder)
    check_complete(files)
    model = _empty_model(folder)
    prefixes = DUAL_PREFIXES if isinstance(model, DualEncoder) else PREFIXES
    is_encoder_decoder = model.language_model.model.config.is_encoder_decoder
    dtype = dtype or memory.default_dtype(is_encoder_decoder, device, quantize)
    needed = model_bytes(model, quantize, dtype)
    memory.check_room(needed, str(folder), torch.device(device), "Choose fewer bits with --quantize.")
    quantize_empty_model(model, quantize, device, dtype)
    load_tensors(
        model,
        read_tensors(files),
        device=device,
        dtype=dtype,
        to_ours=lambda name: _rename(name, prefixes),
        to_theirs=lambda name: _rename(name, [(ours, theirs) for theirs, ours in prefixes]),
        layout=f"The weights in {folder}",
    )
    model.language_model.tokenizer = read_tokenizer(folder)
    return model


def _empty_model(folder: Path) -> BridgedModel:
    """The model that config.json describes, on the meta device."""
    from transformers import Blip2VisionConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = json.loads((folder / "config.json").read_text())
    try:
        vision, text = config["vision_config"], config["text_config"]
        with without_weights():
            encoder = ImageEncoder.from_config(Blip2VisionConfig(**vision))
            bridge = None if config["bridge"]["name"] == DUAL_ENCODER else new_bridge(config["bridge"])
        language = language_model(empty_language_model(CONFIG_MAPPING[text["model_type"]](**text)))
        if bridge is not None:
            return Stage2Model(encoder, bridge, language).eval()
        sizes = {key: value for key, value in config["bridge"].items() if key != "name"}
        with without_weights():
            return DualEncoder(DualEncoderConfig(**sizes), encoder, language).eval()
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a model with a bridge: {error}.") from None


def new_bridge(sizes: dict) -> Bridge:
    """A new bridge from its name and its sizes, as config.json has them. Raises ValueError for an unknown name."""
    sizes = dict(sizes)
    name = sizes.pop("name")
    if name not in BRIDGES:
        raise ValueError(f"There is no bridge {name!r}; known are {', '.join((*BRIDGES, DUAL_ENCODER))}.")
    config, kind = BRIDGES[name]
    return kind(config(**sizes))


def our_name(name: str) -> str | None:
    """A tensor's name in the folder -> its name in this package."""
    return _rename(name, PREFIXES)


def _rename(name: str, prefixes: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str | None:
    return next((new + name.removeprefix(old) for old, new in prefixes if name.startswith(old)), None)
