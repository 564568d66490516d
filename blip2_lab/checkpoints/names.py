"""Names of models: where a model is, and whether there can be one, found out before torch is imported.

`model_path` and `check_name` are where to begin.

Notebook: 07.
"""

from __future__ import annotations

import re
from pathlib import Path

from blip2_lab.common.console import did_you_mean

MICRO = Path(__file__).parents[1] / "assets" / "micro"  #: the shipped model
#: What the hub allows as a name.
HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
RUNS = Path("runs")  #: where training writes its runs, if it is not told otherwise


def model_path(name_or_path: str | Path) -> Path:
    """The folder or file of a model that is here: of "micro", of a path, of a run's folder, or of a run's name in RUNS
    (a run is called as its recipe, or as --name says). For any other name, that name as a path, where nothing is.
    Raises ValueError for an empty name."""
    if not str(name_or_path):
        raise ValueError('A model has a name: give "micro", a folder, a run, or a hub name such as "owner/model".')
    if str(name_or_path) == "micro":
        return MICRO
    path = Path(name_or_path).expanduser()
    if not path.exists() and (RUNS / path).is_dir():
        path = RUNS / path
    finished = path / "model"
    return finished if (finished / "config.json").is_file() and not (path / "config.json").is_file() else path


def check_name(name_or_path: str | Path) -> None:
    """Raises ValueError for what is neither here nor a name of the hub ("owner/model"). Asks no network."""
    name, path = str(name_or_path), model_path(name_or_path)
    if name == "micro" or path.is_file() or path.is_dir():
        return
    if not HUB_NAME.fullmatch(name) or name.startswith(".") or path.suffix in (".pth", ".safetensors"):
        raise ValueError(
            f'There is no folder or file {name!r}; give "micro", a folder, a run, or a hub name such as "owner/model".'
        )


_DEVICE = "use device, of all parts; several GPUs: docs/serving.md"
_DTYPE = "use dtype, for example dtype='bfloat16'"
#: What other libraries call an option of loading -> what to do here.
OTHER_OPTIONS = {
    "device_map": _DEVICE,
    "max_memory": _DEVICE,
    "torch_dtype": _DTYPE,
    "precision": _DTYPE,
    "vit_precision": _DTYPE,
    "load_in_8bit": "use quantize='int8'",
    "load_in_4bit": "use quantize='nf4'",
    "quantization_config": "use quantize='int8' or 'nf4'",
    "model_type": "the name says it, for example 'Salesforce/blip2-flan-t5-xl'; `blip2-lab models` lists them",
    "is_eval": "a model is loaded in eval mode",
    "attn_implementation": "the fastest attention of the device is taken",
    "low_cpu_mem_usage": "the weights are read tensor by tensor",
    "trust_remote_code": "code of the hub is never run",
    "image_size": "pixels of another size are read with interpolated positions; in training: data.image_size",
    "cache_dir": "set the environment variable HF_HUB_CACHE",
    "token": "set the environment variable HF_TOKEN, or run `hf auth login`",
}


def check_no_option(other: dict[str, object]) -> None:
    """Raises TypeError for an option that loading has not, with what to do instead."""
    for name in other:
        known = ("device", "quantize", "dtype", "compile")
        remedy = OTHER_OPTIONS.get(name) or f"the options are {', '.join(known)}{did_you_mean(name, known)}"
        raise TypeError(f"blip2_lab.load has no option {name!r}: {remedy}.")
