"""Batches made ahead of their use, in one thread that takes no core from those who compute.

What is unusual about it:

* The order is that of the indices, whatever they cost: a batch is a pure function of its index.
* The thread computes on one core. With OpenMP workers of its own there would be more threads than cores, and then no
  worker stays awake for its next piece: on two cores a training step of a miniature took 1.7 times as long.

Paper: section 3.4 (what a step costs). Notebook: 08.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

PREFETCHED_BATCHES = 2


def prefetch(make: Callable[[int], Any], indices: Sequence[int], depth: int = PREFETCHED_BATCHES) -> Iterator[Any]:
    """`make(index)` for each index, in order, prepared by one thread at most `depth` ahead.

    An exception in `make` is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    begun, closed = threading.Event(), threading.Event()

    def put(item: tuple[Any, Exception | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        torch.get_num_threads()  # else this thread's first product would take the process's number over again
        torch.set_num_threads(1)
        begun.set()
        for index in indices:
            try:
                item = (make(index), None)
            except Exception as error:  # handed over: it belongs to the thread that asked
                put((None, error))
                return
            if not put(item):
                return

    thread, all_cores = threading.Thread(target=work, name="prefetch", daemon=True), torch.get_num_threads()
    thread.start()
    begun.wait()
    torch.set_num_threads(all_cores)  # a thread keeps what it set; whoever begins later gets what was set last
    try:
        for _ in indices:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join(timeout=10)
