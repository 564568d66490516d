"""Every released BLIP-2: its name, its shape, what it weighs, and whether this machine has room for it.

What is unusual about it:

* Sizes are counted, not quoted: a model is built on the meta device and its bytes summed in any precision, by the same
  rule that loads it (`blip2-lab models` prints the table; a test compares with a loaded model).
* What does not fit is said before anything is fetched, with the next smaller choice that does: the same model in fewer
  bits first, then a smaller one.

Paper: section 3.4 and Table 2 (the models). Notebook: 12.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blip2_lab.assemble import model_bytes, skeleton
from blip2_lab.quantize import METHODS

if TYPE_CHECKING:
    from transformers import Blip2Config

    from blip2_lab.stage1 import Stage1Model
    from blip2_lab.stage2 import Stage2Model

GIB = 2**30
WORKING_SPACE = GIB  #: beside the weights: a tensor on its way, activations, the cache of keys and values
SMALL = GIB  #: weights below this are loaded without asking for room

OPT_LICENSE = "MIT; OPT: research only"
LANGUAGE_MODELS = {  # key -> transformers' configuration; vocabulary sizes are the released files'
    "flan-t5-xl": dict(model_type="t5", d_model=2048, d_ff=5120, num_heads=32),
    "flan-t5-xxl": dict(model_type="t5", d_model=4096, d_ff=10240, num_heads=64),
    "opt-2.7b": dict(model_type="opt", hidden_size=2560, ffn_dim=10240, num_attention_heads=32),
    "opt-6.7b": dict(model_type="opt", hidden_size=4096, ffn_dim=16384, num_attention_heads=32),
}


@dataclass(frozen=True)
class Released:
    """A model on the hub. `parameters` is what transformers' layout holds, FlanT5's lm_head counted by itself."""

    name: str
    language_model: str | None  #: key of LANGUAGE_MODELS; None: retrieval
    image_size: int
    parameters: int
    license: str
    lavis: str  #: the same weights in LAVIS (which has the frozen parts elsewhere)


# name, language model, pixels, parameters, license, LAVIS's file
MODELS = (
    Released("Salesforce/blip2-flan-t5-xl", "flan-t5-xl", 224, 3_942_446_592, "MIT", "blip2_pretrained_flant5xl.pth"),
    Released("Salesforce/blip2-flan-t5-xl-coco", "flan-t5-xl", 364, 3_943_037_952, "MIT", "blip2_caption_flant5xl.pth"),
    Released(
        "Salesforce/blip2-flan-t5-xxl", "flan-t5-xxl", 224, 12_229_596_672, "MIT", "blip2_pretrained_flant5xxl.pth"
    ),
    Released("Salesforce/blip2-opt-2.7b", "opt-2.7b", 224, 3_744_679_936, OPT_LICENSE, "blip2_pretrained_opt2.7b.pth"),
    Released(
        "Salesforce/blip2-opt-2.7b-coco", "opt-2.7b", 364, 3_745_271_296, OPT_LICENSE, "blip2_caption_opt2.7b.pth"
    ),
    Released("Salesforce/blip2-opt-6.7b", "opt-6.7b", 224, 7_752_738_304, OPT_LICENSE, "blip2_pretrained_opt6.7b.pth"),
    Released(
        "Salesforce/blip2-opt-6.7b-coco", "opt-6.7b", 364, 7_753_329_664, OPT_LICENSE, "blip2_caption_opt6.7b.pth"
    ),
    Released("Salesforce/blip2-itm-vit-g", None, 224, 1_172_032_258, "MIT", "blip2_pretrained.pth"),
    Released("Salesforce/blip2-itm-vit-g-coco", None, 364, 1_172_623_618, "MIT", "blip2_finetune_coco.pth"),
)


def released(name: str) -> Released | None:
    """The table's row of a hub name."""
    return next((model for model in MODELS if model.name == name), None)


def blip2_config(model: Released) -> Blip2Config:
    """transformers' configuration, as in the released folder."""
    from transformers import Blip2Config

    vision = dict(image_size=model.image_size)
    if model.language_model is None:
        qformer = dict(use_qformer_text_input=True, vocab_size=30523)
        return Blip2Config(vision_config=vision, qformer_config=qformer)
    text = language_config(model.language_model).to_dict()
    return Blip2Config(vision_config=vision, qformer_config={}, text_config=text)


def language_config(key: str):
    """transformers' OPTConfig or T5Config of a key of LANGUAGE_MODELS, with BLIP-2's two changes."""
    from transformers import OPTConfig, T5Config

    sizes = {name: value for name, value in LANGUAGE_MODELS[key].items() if name != "model_type"}
    if LANGUAGE_MODELS[key]["model_type"] == "opt":
        width = sizes["hidden_size"]
        # BLIP-2's captions end in a new line (token 50118), not in OPT's end of text
        return OPTConfig(vocab_size=50272, num_hidden_layers=32, word_embed_proj_dim=width, eos_token_id=50118, **sizes)
    ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=1, decoder_start_token_id=0)
    layers = dict(num_layers=24, num_decoder_layers=24, d_kv=64, feed_forward_proj="gated-gelu")
    config = T5Config(vocab_size=32128, **layers, **sizes, **ids)
    config.dense_act_fn = "gelu"  # exact, as LAVIS ran FlanT5 and the released folders say; FlanT5's own is gelu_new
    return config


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
        return model_bytes(skeleton(config), quantize, dtype)
    one = _bytes_of_depth(config, names, 1, 1, quantize, dtype)
    more = [_bytes_of_depth(config, names, *depth, quantize, dtype) - one for depth in ((2, 1), (1, 2))]
    return one + sum(extra * each for (_, _, extra), each in zip(deep, more, strict=True))


@cache
def _skeleton_by_json(config: str) -> Stage2Model | Stage1Model:
    from transformers import Blip2Config

    return skeleton(Blip2Config.from_dict(json.loads(config)))


def _bytes_of_depth(
    config: Blip2Config, names: tuple[str, ...], text: int, vision: int, quantize: str | None, dtype: torch.dtype
) -> int:
    shape = config.to_dict()
    shape["text_config"] |= dict.fromkeys(names, text)
    shape["vision_config"]["num_hidden_layers"] = vision
    return model_bytes(_skeleton_by_json(json.dumps(shape, default=str)), quantize, dtype)


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
        check_room(needed, f"{name} in {how}", device, _instead(config, name, device, needed, free_memory(device)))


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


def _instead(config: Blip2Config, name: str, device: torch.device, needed: int, free: int) -> str:
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


# --- The table ------------------------------------------------------------------------------------------------------


def sizes(model: Released) -> dict[str, float]:
    """GiB of weights in memory: "half" (float16 or bfloat16, the paper's), and for every method of quantization."""
    config = blip2_config(model)
    if model.language_model is None:  # small, and stays as it is
        return {"half": weight_bytes(config, None, torch.float32) / GIB}
    half = default_dtype(config.text_config.model_type == "t5", "cuda", None)
    return {what: weight_bytes(config, None if what == "half" else what, half) / GIB for what in COLUMNS}


COLUMNS = ("half", *METHODS)  #: of the table: GiB in memory


def table() -> str:
    """What `blip2-lab models` prints."""
    head = f"{'name':33}{'parameters':>11}{'to fetch':>10}{'GiB:':>6}"
    lines = [head + "".join(f"{column:>9}" for column in COLUMNS) + "   license"]
    lines.append("-" * len(lines[0]))
    for model in MODELS:
        size = sizes(model)
        line = f"{model.name:33}{model.parameters / 1e9:9.2f} B{4 * model.parameters / 1e9:7.1f} GB{'':6}"
        cells = "".join(f"{size[column]:9.1f}" if column in size else f"{'-':>9}" for column in COLUMNS)
        lines.append(f"{line}{cells}   {model.license}")
    return "\n".join([*lines, "", *NOTES])


NOTES = (
    "The shipped micro model needs none of this. Add 1 GiB to work in. half: what the paper took, float16 for OPT and",
    "bfloat16 for FlanT5; the Q-Former stays in float32. On a CPU the default is float32: two times half.",
    "A name, a folder in transformers' layout, or a file or folder of LAVIS's can stand here:",
    "    python app.py --model Salesforce/blip2-flan-t5-xxl --quantize int8 --device cuda",
)
