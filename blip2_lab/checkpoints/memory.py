"""The memory that a model needs, compared with what is free before anything is downloaded or read.

`check_memory` is where to begin: its error names the next smaller choice that fits, first the same model in fewer bits,
then a smaller model. `weight_bytes` counts the bytes.

Notes:

* Sizes are counted on the meta device with the function that loading uses (meta_model.py). The table of released models
  (catalog.py) has the results; a test counts them again.

Paper: section 3.4 (frozen models in half precision). Notebook: 13.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blip2_lab.checkpoints.catalog import MODELS, blip2_config
from blip2_lab.checkpoints.meta_model import empty_model, is_retrieval, model_bytes
from blip2_lab.models.quantize import METHODS

if TYPE_CHECKING:
    from transformers import Blip2Config

    from blip2_lab.models.stage1 import Stage1Model
    from blip2_lab.models.stage2 import Stage2Model

GIB = 2**30
WORKING_SPACE = GIB  #: beside the weights: the tensor being loaded, activations, the cache of keys and values
SMALL = GIB  #: weights below this size are loaded without a check


def default_dtype(is_encoder_decoder: bool, device: torch.device | str, quantize: str | None) -> torch.dtype:
    """The dtype of the frozen models: as in the paper on a GPU (float16, FlanT5 bfloat16), float32 on a CPU
    (quantized: bfloat16)."""
    if torch.device(device).type == "cpu":
        return torch.float32 if quantize is None else torch.bfloat16
    return torch.bfloat16 if is_encoder_decoder else torch.float16


def weight_bytes(config: Blip2Config, quantize: str | None, dtype: torch.dtype) -> int:
    """The bytes of the weights of a model of this shape, loaded with these options.

    All layers of a stack have the same size, so the bytes of a deep model are extrapolated from three small ones, with
    one layer and with two.
    """
    text, vision = config.text_config, config.vision_config
    names = ("num_layers", "num_decoder_layers") if text.model_type == "t5" else ("num_hidden_layers",)
    deep = [(text, names, getattr(text, names[0]) - 1), (vision, ("num_hidden_layers",), vision.num_hidden_layers - 1)]
    if any(
        getattr(part, name) - 1 != extra for part, own, extra in deep for name in own
    ):  # encoder and decoder differ in depth
        return model_bytes(empty_model(config), quantize, dtype)
    one = _bytes_of_depth(config, names, 1, 1, quantize, dtype)
    more = [_bytes_of_depth(config, names, *depth, quantize, dtype) - one for depth in ((2, 1), (1, 2))]
    return one + sum(extra * each for (_, _, extra), each in zip(deep, more, strict=True))


@cache
def _empty_model_from_json(config: str) -> Stage2Model | Stage1Model:
    from transformers import Blip2Config

    return empty_model(Blip2Config.from_dict(json.loads(config)))


def _bytes_of_depth(
    config: Blip2Config, names: tuple[str, ...], text: int, vision: int, quantize: str | None, dtype: torch.dtype
) -> int:
    shape = config.to_dict()
    shape["text_config"] |= dict.fromkeys(names, text)
    shape["vision_config"]["num_hidden_layers"] = vision
    return model_bytes(_empty_model_from_json(json.dumps(shape, default=str)), quantize, dtype)


# --- Room -----------------------------------------------------------------------------------------------------------


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder that exists or will be created."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory(device: torch.device | str) -> int:
    """Free bytes on this device: a GPU's free memory, or the RAM that this process may still use."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # a dependency of accelerate

    return min([psutil.virtual_memory().available, *_container_limits()])


def _container_limits() -> Iterator[int]:
    """The bytes that a container (cgroup v2) leaves free, which psutil does not report."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        yield int(most) - int(used.read_text())


def check_memory(
    config: Blip2Config, name: str, device: torch.device | str, quantize: str | None, dtype: torch.dtype
) -> None:
    """Raises ValueError when a model of this shape does not fit the device; the message names a choice that fits."""
    device = torch.device(device)
    needed = weight_bytes(config, quantize, dtype)
    if needed >= SMALL and needed + WORKING_SPACE > free_memory(device):
        how = quantize or str(dtype).removeprefix("torch.")
        check_room(
            needed, f"{name} in {how}", device, _smaller_choice(config, name, device, needed, free_memory(device))
        )


def choose_dtype(
    config: Blip2Config, name: str, device: torch.device | str, quantize: str | None, dtype: torch.dtype | None
) -> torch.dtype:
    """-> the dtype to load with. Raises ValueError when the model does not fit the device."""
    is_encoder_decoder = config.text_config.model_type == "t5"
    if dtype is None:
        dtype = default_dtype(is_encoder_decoder, device, quantize)
    check_memory(config, name, device, quantize, dtype)
    return dtype


def check_room(needed: int, what: str, device: torch.device | str, instead: str) -> None:
    """Raises ValueError when this number of bytes does not fit the device; `instead` is the message's last sentence."""
    free = free_memory(device)
    if needed >= SMALL and needed + WORKING_SPACE > free:
        raise ValueError(
            f"{what} needs {needed / GIB:.1f} GiB for its weights and {WORKING_SPACE // GIB} to work in, and {device} "
            f"has {free / GIB:.1f} GiB free. {instead}"
        )


def check_disk(name: str, fetched: int, folder: Path) -> None:
    """Raises ValueError when a download of this number of bytes does not fit on the disk."""
    free = free_disk(folder)
    if fetched <= free:
        return
    smaller = [m for m in MODELS if m.language_model and m.name != name and 4 * m.parameters <= min(free, fetched)]
    instead = f"{max(smaller, key=lambda m: m.parameters).name} would fit" if smaller else "no released model would fit"
    raise ValueError(
        f"{name} is {fetched / 1e9:.1f} GB to fetch, and the disk of {folder} has {free / 1e9:.1f} GB free. Make room, "
        f"or let HF_HOME name a larger disk; {instead}."
    )


def _smaller_choice(config: Blip2Config, name: str, device: torch.device, needed: int, free: int) -> str:
    """The next smaller choice that fits: fewer bits first, then a smaller model in the most bits that fit."""
    for what, size, options in _choices(config, name, device):
        if size < needed and size + WORKING_SPACE <= free:
            return f"What fits: {what} ({size / GIB:.1f} GiB){options}."
    return 'No released model fits; the shipped "micro" does.'


def _choices(config: Blip2Config, name: str, device: torch.device) -> Iterator[tuple[str, int, str]]:
    own = [(name, config)]
    others = sorted((m for m in MODELS if m.language_model and m.image_size == 224), key=lambda m: -m.parameters)
    for other, shape in [*own, *((m.name, blip2_config(m)) for m in others if m.name != name)]:
        if is_retrieval(shape):
            continue
        for method in (None, *METHODS):
            dtype = default_dtype(shape.text_config.model_type == "t5", device, method)
            options = f", with --quantize {method}" if method else ""
            yield other, weight_bytes(shape, method, dtype), options
