"""Prepare batches in a background thread, which leaves the cores to the training step.

`prefetch` is the only function.

Notes:

* Batches come in the order of their indices: a batch is a pure function of its index.
* The thread computes on one core. With its own OpenMP workers there would be more threads than cores, and a training
  step of a miniature took 1.7 times as long (measured on two cores).

Paper: section 3.4 (cost of a step). Notebook: 08.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

PREFETCHED_BATCHES = 2


def prefetch(make: Callable[[int], Any], indices: Sequence[int], depth: int = PREFETCHED_BATCHES) -> Iterator[Any]:
    """`make(index)` for each index, in order, prepared by one thread up to `depth` batches ahead.

    An exception in `make` is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    started, closed = threading.Event(), threading.Event()

    def put(item: tuple[Any, Exception | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        torch.get_num_threads()  # else this thread's first operation would reset the number to the process's default
        torch.set_num_threads(1)
        started.set()
        for index in indices:
            try:
                item = (make(index), None)
            except Exception as error:  # sent to the consumer, which raises it
                put((None, error))
                return
            if not put(item):
                return

    thread, all_cores = threading.Thread(target=work, name="prefetch", daemon=True), torch.get_num_threads()
    thread.start()
    started.wait()
    torch.set_num_threads(all_cores)  # torch's setting is per thread, but threads started later inherit the last one
    try:
        for _ in indices:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join(timeout=10)
