"""Load a whole model by name or folder, and save one: `blip2_lab.load` and `blip2_lab.save`.

`load` finds the model (shipped, a folder, a LAVIS file, a hub name) and calls the module that reads its layout:
huggingface.py or lavis.py. `save` writes what `load` reads.

Notes:

* transformers' layout has no field for stage 1. It is saved in a sub-folder `stage1` and loaded as `model.stage1`.
* A stage-1 model without image encoder (which is frozen, and stored elsewhere) is saved alone, in the same form.

Paper: section 3.4. Notebook: 07.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from blip2_lab.checkpoints import files, lavis, memory
from blip2_lab.checkpoints.bridged import is_bridged_folder, read_bridged, write_bridged
from blip2_lab.checkpoints.catalog import blip2_config, released
from blip2_lab.checkpoints.huggingface import (
    MissingHead,
    as_loaded,
    from_transformers,
    read_tokenizer,
    write_transformers,
)
from blip2_lab.checkpoints.key_maps import load_strictly
from blip2_lab.checkpoints.local import is_lavis_folder, why_no_model
from blip2_lab.checkpoints.names import MICRO, check_name, model_path
from blip2_lab.models.bridges.dual_encoder import DualEncoder
from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.quantize import check_method
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

#: Classes that hold a model -> the model in them.
INSIDE = {
    "PeftModel": "model.merge_and_unload()",
    "OptimizedModule": "model._orig_mod",  # torch.compile's
    "DataParallel": "model.module",
    "DistributedDataParallel": "model.module",
}

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
) -> Stage2Model | Stage1Model | DualEncoder:
    """A whole model in eval mode: "micro", a folder in transformers' layout, a LAVIS file or folder, a run's folder or
    its name in `runs`, or a hub name.

    quantize  "int8", "int8-all" or "nf4" for the frozen models (models/quantize.py); None or "none": not quantized
    dtype     of the frozen models; by default float32 on a CPU (bfloat16 with quantization), and on a GPU as in the
              paper: float16 for OPT and bfloat16 for FlanT5 (section 3.4). The Q-Former stays in float32
    A folder of a stage-1 model alone (`save` of one without image encoder) gives a Stage1Model without image encoder.
    A folder of transformers' retrieval model gives a Stage1Model; `stage1` inside a folder becomes `model.stage1`, or
    adds the heads that transformers' retrieval layout lacks.
    Raises ValueError, in one sentence, for a model that cannot be found, fetched or read, or does not fit in memory.
    """
    quantize, dtype, device = check_method(quantize), check_dtype(dtype), check_device(device)
    path = find_model(name_or_path, device=device, quantize=quantize, dtype=dtype)
    if path.is_file() or not (path / "config.json").is_file():
        return lavis.load_lavis(path, device=device, quantize=quantize, dtype=dtype)
    if is_stage1_folder(path):
        return read_stage1(path).to(device)
    if is_bridged_folder(path):
        return read_bridged(path, device=device, quantize=quantize, dtype=dtype)
    model = from_transformers(path, device=device, quantize=quantize, dtype=dtype)
    if (path / "stage1" / "config.json").is_file():
        stage1 = read_stage1(path / "stage1", image_encoder=model.image_encoder).to(device)
        if isinstance(model, Stage1Model):
            return stage1
        model.attach_stage1(stage1)
    return model


def check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of a name. Raises ValueError for an unknown one."""
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES.values()):
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; choose float32, bfloat16 or float16.")
    return DTYPES[dtype]


def check_device(device: str | torch.device) -> torch.device:
    """The torch device. Raises ValueError for one that is not available; there is no fallback to the CPU."""
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={str(device)!r} is unknown; choose cpu, cuda, cuda:1, mps or the like.") from None
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # depends on the device: RuntimeError, AssertionError, ModuleNotFoundError
        why = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(f"There is no device {device} here that torch can use ({why}); take --device cpu.") from None
    return device


def find_model(
    name_or_path: str | Path,
    *,
    device: torch.device | str = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """The folder (or LAVIS file) of a model: the shipped one, one of yours, or a download from the hub.

    Before a download, free disk and memory are checked. Raises ValueError.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"A model is a name or a folder, and this is of type {type(name_or_path).__name__}.")
    if str(name_or_path) == "micro":
        if not (MICRO / "config.json").is_file():
            raise ValueError("This copy of blip2_lab has no micro model; make one with `blip2-lab train micro-all`.")
        return MICRO
    path = model_path(name_or_path)
    if path.is_file() or is_lavis_folder(path):
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(why_no_model(path))
        return path
    check_name(name_or_path)
    name = str(name_or_path)
    known = released(name)
    if known is not None:
        memory.choose_dtype(blip2_config(known), name, device, quantize, dtype)
    if (folder := files.cached_folder(name)) is not None:
        return folder
    from huggingface_hub import constants

    size = files.bytes_to_fetch(name) or (4 * known.parameters if known else 0)
    memory.check_disk(name, size, Path(constants.HF_HUB_CACHE))
    return files.fetch(name)


# --- Stage 1, in a folder of its own --------------------------------------------------------------------------------


def is_stage1_folder(folder: Path) -> bool:
    """Whether a folder is a stage-1 model as `save_stage1` writes it."""
    try:
        return {"qformer", "stage1"} <= json.loads((folder / "config.json").read_text()).keys()
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return False  # `read_config` raises for this file


def read_stage1(folder: str | Path, *, image_encoder: ImageEncoder | None = None) -> Stage1Model:
    """The model that `save_stage1` wrote, in eval mode. Raises ValueError, in one sentence, for a damaged folder."""
    folder = Path(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} has no config.json: pass a folder that blip2_lab.save wrote.")
    try:
        config = json.loads(file.read_text())
        model = Stage1Model(QFormerConfig(**config["qformer"]), Stage1Config(**config["stage1"]))
    except (ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:  # no JSON, or no such model
        raise ValueError(f"{file} does not describe a Stage1Model: {error}.") from None
    paths = files.weight_files(folder)
    files.check_complete(paths)
    load_strictly(model, dict(files.read_tensors(paths)))
    model.attach_image_encoder(image_encoder)
    model.tokenizer = read_tokenizer(folder)
    return model.eval()


def save_stage1(model: Stage1Model, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write config.json, model.safetensors (in `dtype`, by default the model's) and the tokenizer, without the frozen
    image encoder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"qformer": asdict(model.qformer.config), "stage1": asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    own = {name: t for name, t in model.state_dict().items() if not name.startswith("image_encoder.")}
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in own.items()}, folder / files.SINGLE_FILE)
    if model.tokenizer is not None:
        as_loaded(model.tokenizer).save_pretrained(folder)


# --- Saving ---------------------------------------------------------------------------------------------------------


def check_plain(model: torch.nn.Module) -> None:
    """Raises ValueError for a model with adapters that are not merged, or with a compiled part: its tensors have names
    that nothing reads."""
    for name, module in model.named_modules():
        if hasattr(module, "merge_and_unload") or hasattr(module, "lora_A"):
            raise ValueError(
                f"{name or 'The model'} has adapters (LoRA) that are not merged into it, and the saved model would "
                "have no place for them: put what peft's `merge_and_unload` gives in its place, then save."
            )
        if hasattr(module, "_orig_mod"):
            raise ValueError(f"{name} is compiled by torch: put its `_orig_mod` in its place, then save.")


def save(
    model: Stage2Model | Stage1Model | DualEncoder,
    folder: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write a model so that `load(folder)` returns it and transformers can read it.

    A Stage2Model, and a Stage1Model with its image encoder, are written in transformers' layout. It has no field for
    the language modeling head and the temperature of stage 1, so the sub-folder `stage1` has the whole stage-1 model. A
    Stage1Model without image encoder is written alone (`save_stage1`). A Stage2Model whose bridge is no Q-Former has no
    place in transformers' layout (`bridged.write_bridged`), and neither has a DualEncoder.

    The files of an older model in the folder, and what describes it, are replaced as a whole (`files.model_folder`).

    dtype  of the tensors in the files, by default those of the model. Files above `max_shard_size` are split.
    """
    if not isinstance(model, Stage2Model | Stage1Model | DualEncoder):
        inside = INSIDE.get(type(model).__name__) or ("model.module" if hasattr(model, "module") else "")
        remedy = f": save {inside}" if inside else ""
        raise ValueError(
            f"blip2_lab.save writes a model that blip2_lab.load gave, not a {type(model).__name__}{remedy}."
        )
    check_plain(model)
    if not isinstance(folder, str | os.PathLike) or not str(folder).strip() or "\0" in str(folder):
        raise ValueError(f"The model is saved in a folder, and {folder!r:.60} is no name of one.")
    folder, dtype = Path(folder).expanduser(), check_dtype(dtype)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a model is saved in a folder: give another name.")
    stage1 = model.stage1 if isinstance(model, Stage2Model) else model
    with files.model_folder(folder) as fresh:
        if isinstance(model, DualEncoder):
            return write_bridged(model, fresh, dtype=dtype, max_shard_size=max_shard_size)
        if isinstance(model, Stage1Model) and model.image_encoder is None:
            return save_stage1(model, fresh, dtype=dtype)
        if isinstance(model, Stage2Model) and not isinstance(model.bridge, QFormerBridge):
            return write_bridged(model, fresh, dtype=dtype, max_shard_size=max_shard_size)
        write_transformers(model, fresh, dtype=dtype, max_shard_size=max_shard_size)
        if stage1 is not None and not isinstance(stage1.lm_head, MissingHead):
            save_stage1(stage1, fresh / files.STAGE1, dtype=dtype)
