"""Train the recipes of a sequence (`blip2-lab train micro-all`) in parallel processes.

`run` is where to begin.

Notes:

* Small models do not use many cores: two processes with half of the threads each are faster than one with all.
* A recipe starts as soon as the recipes it needs are trained, in the order of the sequence.
* If a recipe fails, or at Ctrl-C, the others are stopped. The same command resumes each from its last checkpoint.

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

    Raises the error of a recipe that fails, and ValueError if the system ended a process or recipes need one another.
    """
    jobs = min(jobs or _default_jobs(), len(recipes))
    if jobs == 1:
        for recipe in recipes:
            _announce(recipe, progress)
            run_module.run(recipe, runs_dir, resume=resume, progress=progress)
        return
    spawn = multiprocessing.get_context("spawn")  # fork is not safe with torch's threads
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
                raise ValueError(f"{' and '.join(recipe.name for recipe in waiting)} need one another: none can start")
            for sentinel in wait(list(running)):
                recipe, process, result = running.pop(sentinel)
                process.join()
                _raise_error_of(recipe, process.exitcode, result)
    finally:
        for _, process, _ in running.values():
            process.terminate()  # safe at any time: checkpoints are written atomically
            process.join()


def ready(waiting: Sequence[Recipe], running: Sequence[Recipe]) -> list[Recipe]:
    """The waiting recipes whose inputs are all trained."""
    unfinished = {recipe.name for recipe in (*waiting, *running)}
    return [recipe for recipe in waiting if not unfinished.intersection(needs(recipe))]


def _default_jobs() -> int:
    alone = number_of_processes() > 1 or torch.accelerator.is_available() or torch.get_num_threads() == 1
    return 1 if alone else 2


def _announce(recipe: Recipe, progress: bool) -> None:
    if progress:
        print(f"{recipe.name}: {recipe.summary} ({recipe.cost})", flush=True)


def _train_in_process(
    recipe: Recipe, runs_dir: Path, resume: bool, progress: bool, threads: int, sender: Connection
) -> None:
    """Train one recipe in its own process; sends None, or the error, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        with redirect_stdout(_PrefixedOutput(recipe.name, sys.stdout)):
            run_module.run(recipe, runs_dir, resume=resume, progress=progress)
        sender.send(None)
    except Exception as error:  # sent to the parent, which raises it
        error.add_note(f"in the process of {recipe.name}:\n{traceback.format_exc()}")
        sender.send(error)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # else, after the parent is killed, two processes could train in one run folder


def _raise_error_of(recipe: Recipe, exitcode: int, result: Connection) -> None:
    try:
        error = result.recv()
    except EOFError:
        error = ValueError(
            f"the process of {recipe.name} was ended from outside (exit code {exitcode}), possibly for lack of memory; "
            "the same command resumes from the last checkpoint, --jobs 1 needs less memory"
        )
    if error is not None:
        raise error


class _PrefixedOutput(io.TextIOBase):
    """Writes complete lines to `out`, each with the recipe's name in front."""

    def __init__(self, name: str, out: TextIO) -> None:
        self.name, self.out, self.rest = name, out, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        self.out.write("".join(f"{self.name}: {line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        self.out.flush()
