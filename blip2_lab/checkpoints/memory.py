"""How much memory a model takes, and whether this machine has it: asked before anything is fetched or read.

`check_memory` is where to begin: it raises one sentence that names the next smaller choice that fits, the same model in
fewer bits first, then a smaller one. `weight_bytes` is the count it rests on.

Notes:

* Sizes are counted on the meta device, by the same rule that loads a model (meta_model.py). The table of released
  models (catalog.py) keeps the results; a test counts them again.

Paper: section 3.4 (frozen models in half precision). Notebook: 12.
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
from blip2_lab.checkpoints.meta_model import empty_model, model_bytes
from blip2_lab.models.quantize import METHODS

if TYPE_CHECKING:
    from transformers import Blip2Config

    from blip2_lab.models.stage1 import Stage1Model
    from blip2_lab.models.stage2 import Stage2Model

GIB = 2**30
WORKING_SPACE = GIB  #: beside the weights: a tensor on its way, activations, the cache of keys and values
SMALL = GIB  #: weights below this are loaded without asking for room


def default_dtype(is_encoder_decoder: bool, device: torch.device | str, quantize: str | None) -> torch.dtype:
    """Of the frozen parts: the paper's on a GPU (float16, FlanT5 bfloat16), float32 on a CPU (quantized: bfloat16)."""
    if torch.device(device).type == "cpu":
        return torch.float32 if quantize is None else torch.bfloat16
    return torch.bfloat16 if is_encoder_decoder else torch.float16


def weight_bytes(config: Blip2Config, quantize: str | None, dtype: torch.dtype) -> int:
    """What the weights of a model of this shape take in memory, once loaded so.

    The layers of a part are alike: three small models, with one and with two of them, tell what a deep one weighs.
    """
    text, vision = config.text_config, config.vision_config
    names = ("num_layers", "num_decoder_layers") if text.model_type == "t5" else ("num_hidden_layers",)
    deep = [(text, names, getattr(text, names[0]) - 1), (vision, ("num_hidden_layers",), vision.num_hidden_layers - 1)]
    if any(getattr(part, name) - 1 != extra for part, own, extra in deep for name in own):  # unlike depths: count all
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
    """Bytes free where this folder is, or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory(device: torch.device | str) -> int:
    """Bytes that a model could take on this device: a GPU's free memory, or the RAM this process may still use."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # comes with accelerate

    return min([psutil.virtual_memory().available, *_container_limits()])


def _container_limits() -> Iterator[int]:
    """What a container (cgroup v2) leaves, of which psutil knows nothing."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        yield int(most) - int(used.read_text())


def check_memory(
    config: Blip2Config, name: str, device: torch.device | str, quantize: str | None, dtype: torch.dtype
) -> None:
    """Raises ValueError when a model of this shape has no room on the device, with a smaller choice that has."""
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
    """-> the dtype that will be used. Raises ValueError when the device has no room."""
    is_encoder_decoder = config.text_config.model_type == "t5"
    if dtype is None:
        dtype = default_dtype(is_encoder_decoder, device, quantize)
    check_memory(config, name, device, quantize, dtype)
    return dtype


def check_room(needed: int, what: str, device: torch.device | str, instead: str) -> None:
    """Raises ValueError when so many bytes of weights have no room on the device; `instead` is its last sentence."""
    free = free_memory(device)
    if needed >= SMALL and needed + WORKING_SPACE > free:
        raise ValueError(
            f"{what} needs {needed / GIB:.1f} GiB for its weights and {WORKING_SPACE // GIB} to work in, and {device} "
            f"has {free / GIB:.1f} GiB free. {instead}"
        )


def check_disk(name: str, fetched: int, folder: Path) -> None:
    """Raises ValueError when a download of so many bytes would not fit on the disk."""
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
    """The next smaller choice that fits: fewer bits, then a smaller model in the most bits that fit."""
    for what, size, options in _choices(config, name, device):
        if size < needed and size + WORKING_SPACE <= free:
            return f"What fits: {what} ({size / GIB:.1f} GiB){options}."
    return 'No released model fits; the shipped "micro" does.'


def _choices(config: Blip2Config, name: str, device: torch.device) -> Iterator[tuple[str, int, str]]:
    own = [(name, config)]
    others = sorted((m for m in MODELS if m.language_model and m.image_size == 224), key=lambda m: -m.parameters)
    for other, shape in [*own, *((m.name, blip2_config(m)) for m in others if m.name != name)]:
        if shape.qformer_config.use_qformer_text_input:
            continue
        for method in (None, *METHODS):
            dtype = default_dtype(shape.text_config.model_type == "t5", device, method)
            options = f", with --quantize {method}" if method else ""
            yield other, weight_bytes(shape, method, dtype), options
