"""The path of real weights, at their true shapes: a random checkpoint in the released layout, loaded and asked.

    python -m benchmarks.full_size                             FlanT5-XL, 2 layers of every kind, full width
    python -m benchmarks.full_size --model flan-t5-xxl --layers 0 --device cuda --quantize int8 nf4   all layers

Writes config.json, an index and shards of float32 tensors as `Salesforce/blip2-*` has them (random numbers, the micro
model's tokenizer), loads them with `blip2_lab.load` as app.py does, in a process of its own for each precision, and
streams one answer. Reported: weights in memory against the planner's number, the peak while loading against the weights
(pages of the mapped file not counted: the system may drop them), seconds to load and to answer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.measure import heading, largest, spread
from blip2_lab.checkpoints import catalog, load, memory
from blip2_lab.checkpoints.key_maps import TRANSFORMERS_STAGE1, TRANSFORMERS_STAGE2, transformers_names
from blip2_lab.checkpoints.meta_model import empty_model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.picturebook.tokenizer import build_tokenizer

SHARD = 2 * 10**9  #: bytes
PROMPT = "Question: what is in the picture? Short answer:"


def config_of(name: str, layers: int):
    """transformers' configuration of a released model; `layers` of every kind, 0 for all."""
    config = catalog.blip2_config(catalog.released(f"Salesforce/blip2-{name}"))
    if layers:
        text = config.text_config
        for kind in ("num_layers", "num_decoder_layers") if text.model_type == "t5" else ("num_hidden_layers",):
            setattr(text, kind, layers)
        config.vision_config.num_hidden_layers = config.qformer_config.num_hidden_layers = layers
    config.architectures = ["Blip2ForConditionalGeneration"]
    return config


def write_checkpoint(folder: Path, config) -> int:
    """Shards of random float32 tensors and their index; one shard in memory at a time. -> bytes written."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    retrieval = config.qformer_config.use_qformer_text_input
    _, to_theirs = transformers_names(TRANSFORMERS_STAGE1 if retrieval else TRANSFORMERS_STAGE2)
    shards: list[list[tuple[str, torch.Size]]] = [[]]
    room = SHARD
    for name, parameter in empty_model(config).named_parameters():
        if to_theirs(name) is None:
            continue  # ITG's head and the temperature, which the retrieval layout leaves out
        size = 4 * parameter.numel()
        if shards[-1] and size > room:
            shards.append([])
            room = SHARD
        room -= size
        shards[-1].append((to_theirs(name), parameter.shape))
    where, total = {}, 0
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _random(name, shape, generator) for name, shape in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        total += sum(4 * tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tokenizer = build_tokenizer("bert" if retrieval else "t5" if config.text_config.model_type == "t5" else "opt")
    tokenizer.save_pretrained(folder)
    config.image_token_index = len(tokenizer)
    config.save_pretrained(folder)
    return total


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if "norm" in name.lower() and name.endswith("weight"):
        return torch.ones(shape)
    if name.endswith("bias") and "relative_attention" not in name:
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator) * min(0.02, (shape[-1] or 1) ** -0.5)


class Peak:
    """The most memory that this process had to itself: anonymous pages on the CPU, what torch took on a GPU."""

    def __init__(self, device: str) -> None:
        self.device, self.most, self._stop = device, 0, threading.Event()
        self.before = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        self.most = torch.cuda.max_memory_allocated() if self.device.startswith("cuda") else self.most - self.before

    def _now(self) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
        raise SystemExit("this script reads /proc: run it on Linux")

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.most = max(self.most, self._now())


def load_and_ask(folder: str, device: str, quantize: str, tokens: int, sender) -> None:
    """In a process of its own: -> what was measured."""
    for name in ("opt-2.7b", "flan-t5-xl"):
        empty_model(config_of(name, 1))  # code is no weights: import it before
    began = time.perf_counter()
    with Peak(device) as peak:
        model = load.load(folder, device=device, quantize=quantize)
    loaded = time.perf_counter() - began
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    held = sum(t.numel() * t.element_size() for t in tensors)
    picture = draw(sample_scene(7, 3), model.image_encoder.image_size)
    began = time.perf_counter()
    steps = model.stream(picture, PROMPT, max_new_tokens=tokens, min_new_tokens=tokens)
    next(steps)
    first = time.perf_counter() - began
    rest = len(list(steps))
    finite = bool(torch.isfinite(model.encode_image(picture)).all())
    seconds = (time.perf_counter() - began - first) / max(rest, 1)
    sender.send(dict(held=held, peak=peak.most, loaded=loaded, first=first, token=seconds, finite=finite))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(catalog.LANGUAGE_MODELS), default="flan-t5-xl")
    parser.add_argument("--layers", type=int, default=2, help="of every kind; 0: all (default 2)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quantize", nargs="+", default=["none", "int8"], choices=["none", "int8", "int8-all", "nf4"])
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="new processes; medians are told, with their range")
    parser.add_argument(
        "--folder", type=Path, help="where to write the checkpoint and leave it (default: a passing one)"
    )
    args = parser.parse_args()
    config = config_of(args.model, args.layers)
    with tempfile.TemporaryDirectory() as passing:
        folder = args.folder or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        with heading(f"{args.model}, {args.layers or 'all'} layers of every kind"):
            if not (folder / "config.json").is_file():
                print(f"  written: {write_checkpoint(folder, config) / 1e9:.2f} GB of float32")
            heads = f"  {'':9}{'planned':>10}{'held':>10}{'peak/held':>11}"
            print(heads + f"{'loaded':>26}{'1st word':>26}{'a token':>26}")
            for quantize in args.quantize:
                print(line(folder, config, args.device, quantize, args.tokens, args.rounds), flush=True)


def line(folder: Path, config, device: str, quantize: str, tokens: int, rounds: int) -> str:
    method = None if quantize == "none" else quantize
    dtype = memory.default_dtype(config.text_config.model_type == "t5", device, method)
    planned = memory.weight_bytes(config, method, dtype)
    got = [measured(folder, device, quantize, tokens) for _ in range(rounds)]
    held, peak = got[-1]["held"], largest(one["peak"] / one["held"] for one in got)
    seconds = (
        spread([one["loaded"] for one in got], ".1f", " s"),
        spread([1000 * one["first"] for one in got], ".0f", " ms"),
        spread([1000 * one["token"] for one in got], ".1f", " ms"),
    )
    numbers = f"  {quantize:9}{planned / 2**30:6.2f} GiB{held / 2**30:6.2f} GiB{peak:11.2f}"
    return numbers + "".join(f"{text:>26}" for text in seconds)


def measured(folder: Path, device: str, quantize: str, tokens: int) -> dict[str, float]:
    """What `load_and_ask` measures, in a new process. Raises SystemExit if it ends early or finds no finite numbers."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=load_and_ask, args=(str(folder), device, quantize, tokens, sender))
    process.start()
    sender.close()
    try:
        got = receiver.recv()
    except EOFError:
        raise SystemExit(f"{quantize}: the process ended before it could report") from None
    finally:
        process.join()
    if not got["finite"]:
        raise SystemExit(f"{quantize}: the visual prompt is not finite")
    return got


if __name__ == "__main__":
    main()
