"""What the benchmarks share: counting without computing, clocks that take turns, memory of a process of its own."""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import FlopCounterMode


class _Ghost(TorchDispatchMode):
    """Floats on the meta device, ids and masks real: shapes that depend on the text are known, and nothing is computed.

    What meets a meta tensor becomes one; a mask that picks rows of it is asked for their numbers before.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        if any(x.is_meta for x in tensors):
            if function is torch.ops.aten.index.Tensor:
                args = (args[0], [number for index in args[1] for number in _numbers(index)])
            args, kwargs = tree_map_only(Tensor, lambda x: x.to("meta"), (args, kwargs))
        return function(*args, **kwargs)


def _numbers(index: Tensor | None) -> list[Tensor | None]:
    """An index of x[index]; a mask as the numbers of its rows, columns, …"""
    is_mask = isinstance(index, Tensor) and index.dtype == torch.bool
    return list(index.nonzero(as_tuple=True)) if is_mask else [index]


@contextmanager
def _ghosts():
    with _Ghost(), patch.object(torch, "autocast", lambda *_, **__: nullcontext()):  # there is none for meta tensors
        yield


def largest(differences: Iterable[float]) -> float:
    """Their maximum, NaN if one is NaN: Python's `max` drops a NaN that is not the first. Raises ValueError if there
    are none."""
    differences = list(differences)
    if not differences:
        raise ValueError("nothing was compared")
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def flops(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `step`, which has its floats on the meta device."""
    counter = FlopCounterMode(display=False)
    with counter, _ghosts():
        step()
    return counter.get_total_flops()


def kept_bytes(step: Callable[[], object], model: nn.Module) -> int:
    """Bytes that autograd keeps from forward to backward (meta device) besides the weights, each storage once."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, tuple[object, int]] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = (storage, storage.nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), _ghosts():
        result = step()  # noqa: F841  (the graph must live until it is counted)
    return sum(size for _, size in storages.values())


def own_clock(device: str = "cpu") -> Callable[[], float]:
    """On one thread of a CPU the processor time of this process alone; else the time of the clock."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def take_turns(
    steps: dict[str, Callable[[], object]],
    rounds: int,
    synchronize: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each step in each round, after a round to warm up. They take turns: a busy machine is fair to all."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            synchronize()
            began = clock()
            step()
            synchronize()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """ "1.06 s (0.98 to 1.10)": the median of several rounds, and their range."""
    low, middle, high = (format(value, form) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle}{unit} ({low} to {high})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """How many times as fast the second is: round by round, since both have met the same minutes of a busy machine."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def peak_memory(target: Callable[..., None], *arguments: object) -> int:
    """Peak bytes of a fresh process that runs `target(*arguments)`.

    Of Linux's allocator every block of 256 KB or more goes back when it is freed: by default it keeps blocks of up to
    32 MB, and the peak then tells in which order they came.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_report, args=(sender, target, arguments))
    with patch.dict(os.environ, MALLOC_MMAP_THRESHOLD_=str(256 << 10)):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{target.__name__} ended before it could report: is there enough memory?") from None
    finally:
        process.join()


def _run_and_report(sender, target: Callable[..., None], arguments: tuple) -> None:
    target(*arguments)
    if platform.system() == "Linux":  # where ru_maxrss begins with the size of the process that started this one
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        sender.send(1024 * int(peak[1]))
    else:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


@contextmanager
def heading(text: str):
    """A title, and how long what stands under it took."""
    print(f"\n{text}", flush=True)
    began = time.perf_counter()
    yield
    print(f"  ({time.perf_counter() - began:.1f} s)", flush=True)
