"""The parts of a sequence (`blip2-lab train micro-all`), trained side by side.

What is unusual about it:

* Small models do not fill many cores: two processes with half of the threads each do more than one with all of them.
* A part begins as soon as what it needs is trained; of several that could begin, the first in the sequence.
* A part that fails stops the others, and so does Ctrl-C. The same command goes on from each part's last checkpoint.

Notebook: 08.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TextIO

import torch

from blip2_lab.common.distributed import number_of_processes
from blip2_lab.training import run as run_module
from blip2_lab.training.recipes.registry import needs
from blip2_lab.training.recipes.schema import Recipe


def run(
    recipes: Sequence[Recipe], runs_dir: Path, *, jobs: int | None = None, resume: bool = True, progress: bool = True
) -> None:
    """Train the recipes in `runs_dir`, `jobs` at a time (default: two on a CPU of several cores, else one).

    Raises what a part raises, and ValueError when the system ended a part or the rest wait for one another.
    """
    jobs = min(jobs or _default_jobs(), len(recipes))
    if jobs == 1:
        for recipe in recipes:
            _announce(recipe, progress)
            run_module.run(recipe, runs_dir, resume=resume, progress=progress)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads, locks and all
    threads = max(1, torch.get_num_threads() // jobs)
    waiting, running = list(recipes), {}
    try:
        while waiting or running:
            for recipe in ready(waiting, [recipe for recipe, _, _ in running.values()])[: jobs - len(running)]:
                _announce(recipe, progress)
                result, sender = spawn.Pipe(duplex=False)
                process = spawn.Process(
                    target=_train_in_process, args=(recipe, runs_dir, resume, progress, threads, sender)
                )
                process.start()
                sender.close()
                waiting.remove(recipe)
                running[process.sentinel] = recipe, process, result
            if not running:
                raise ValueError(f"{' and '.join(recipe.name for recipe in waiting)} need one another: none can begin")
            for sentinel in wait(list(running)):
                recipe, process, result = running.pop(sentinel)
                process.join()
                _raise_error_of(recipe, process.exitcode, result)
    finally:
        for _, process, _ in running.values():
            process.terminate()  # at any time: checkpoints are written whole or not at all
            process.join()


def ready(waiting: Sequence[Recipe], running: Sequence[Recipe]) -> list[Recipe]:
    """Those of the waiting that need nothing that is still to come."""
    to_come = {recipe.name for recipe in (*waiting, *running)}
    return [recipe for recipe in waiting if not to_come.intersection(needs(recipe))]


def _default_jobs() -> int:
    alone = number_of_processes() > 1 or torch.accelerator.is_available() or torch.get_num_threads() == 1
    return 1 if alone else 2


def _announce(recipe: Recipe, progress: bool) -> None:
    if progress:
        print(f"{recipe.name}: {recipe.summary} ({recipe.cost})", flush=True)


def _train_in_process(
    recipe: Recipe, runs_dir: Path, resume: bool, progress: bool, threads: int, sender: Connection
) -> None:
    """Train one recipe; runs in a process of its own, and sends None or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, who ends its parts
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        with redirect_stdout(_PrefixedOutput(recipe.name, sys.stdout)):
            run_module.run(recipe, runs_dir, resume=resume, progress=progress)
        sender.send(None)
    except Exception as error:  # handed over: it belongs to the process that asked
        error.add_note(f"in the process of {recipe.name}:\n{traceback.format_exc()}")
        sender.send(error)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # else a part whose parent was killed would train on, beside the one that the same command begins


def _raise_error_of(recipe: Recipe, exitcode: int, result: Connection) -> None:
    try:
        error = result.recv()
    except EOFError:
        error = ValueError(
            f"the process of {recipe.name} was ended from outside (exit code {exitcode}), for want of memory perhaps; "
            "the same command goes on from the last checkpoint, --jobs 1 needs less memory"
        )
    if error is not None:
        raise error


class _PrefixedOutput(io.TextIOBase):
    """Writes whole lines to `out`, the part's name before each."""

    def __init__(self, name: str, out: TextIO) -> None:
        self.name, self.out, self.rest = name, out, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        self.out.write("".join(f"{self.name}: {line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        self.out.flush()
