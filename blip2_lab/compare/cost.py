"""What a training step costs: seconds, the bytes of its tensors at their peak, and how much is trained.

`training_cost` is where to begin.

Notes:

* Batches are prepared before the clock starts: in training, another thread prepares them.
* The clock is that of `evaluation/bridges.py`: on one thread of a CPU the time of this process alone, so that other
  work on the machine does not change what "equal minutes" means.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from blip2_lab.evaluation.bridges import own_clock, peak_bytes
from blip2_lab.training.builders import build_task
from blip2_lab.training.loading import hf_logging_off
from blip2_lab.training.optim import bf16_is_fast, build_optimizer, present_device, train_mode
from blip2_lab.training.recipes.schema import Recipe
from blip2_lab.training.trainer import Task

TIMED = 5  #: steps, after one that is not timed


def training_cost(recipe: Recipe, runs_dir: Path) -> dict[str, float | int]:
    """`seconds` of a step (median), `bytes` of all tensors at their peak, and the number of trained `parameters`.

    Nothing of the run's folder is read or written.
    """
    with hf_logging_off():
        task = build_task(recipe, runs_dir)
    device = present_device()
    task.model.to(device)
    train_mode(task.model)
    prepare = _steps(task, recipe, device)
    peak = peak_bytes(prepare(0), task.model)  # warms up, too
    seconds, clock = [], own_clock(device)
    for number in range(1, 1 + TIMED):
        step = prepare(number)
        began = clock()
        step()
        seconds.append(clock() - began)
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    return {"seconds": statistics.median(seconds), "bytes": peak, "parameters": trained}


def _steps(task: Task, recipe: Recipe, device: torch.device) -> Callable[[int], Callable[[], None]]:
    """Number of a step -> the step itself, its batches prepared: passes, backward, clipping, update."""
    optim = recipe.optim
    optimizer = build_optimizer(task.model, optim, device)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    half = optim.precision in ("bf16", "fp16") or (optim.precision == "auto" and bf16_is_fast(device.type))

    def prepare(number: int) -> Callable[[], None]:
        batches = [task.batch(number * optim.accumulate + i).to(device) for i in range(optim.accumulate)]
        joint = getattr(task, "compute_joint_losses", None)

        def step() -> None:
            for part in [batches] if joint else batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    losses = joint(part) if joint else task.compute_losses(part)
                losses["total"].backward()
            torch.nn.utils.clip_grad_norm_(parameters, optim.grad_clip or float("inf"))
            optimizer.step()
            optimizer.zero_grad()

        return step

    return prepare
