"""A training step of the miniatures through the engine, its layers compiled (`optim.compile_layers`) or as written.

    python -m benchmarks.train_loop                                      micro-t5, which needs nothing trained before
    python -m benchmarks.train_loop micro-stage1 micro-stage2 --runs runs       with the frozen parts that lie there
    python -m benchmarks.train_loop --steps 6                            in seconds, to try it out

Each recipe on the batches of its full course, so many steps of them, as written first. A step is what `log.jsonl` calls
so: the next batch, losses, gradients, update. Medians, the first quarter left out; what compiling took is beside them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.measure import heading
from blip2_lab import recipes, tasks
from blip2_lab.recipes import Recipe, override
from blip2_lab.run_folder import read_log
from blip2_lab.train import train

#: Batches as they are when a recipe has left its first lessons behind.
FULL_COURSE = {
    "micro-t5": ("data.lessons=0,0,0,0", "data.piles_from=0"),
    "micro-stage1": ("data.alike_from=0",),
}


def seconds_of_steps(recipe: Recipe, runs: Path, steps: int, compiled: bool) -> list[float]:
    """Seconds of each step of the recipe's first `steps`."""
    torch.compiler.reset()
    optim = replace(recipe.optim, steps=steps, compile_layers=compiled)
    with tempfile.TemporaryDirectory() as folder:
        task = tasks.build_task(recipe, runs)
        train(task, optim, run_dir=folder, seed=recipe.seed, log_every=1, save_every=steps, progress=False)
        ends = [record["seconds"] for record in read_log(folder) if "total" in record]
    return [end - start for start, end in zip([0.0, *ends], ends, strict=False)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["micro-t5"])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the frozen parts are (default runs)")
    parser.add_argument("--steps", type=int, default=48)
    options = parser.parse_args(arguments)
    for name in options.recipes:
        recipe = recipes.get(name)
        for change in FULL_COURSE.get(name, ()):
            recipe = override(recipe, change)
        with heading(f"{name}, {recipe.optim.batch_size} examples a step, {torch.get_num_threads()} threads"):
            medians = {}
            for label, compiled in (("as written", False), ("compiled", True)):
                seconds = seconds_of_steps(recipe, options.runs, options.steps, compiled)
                medians[label] = statistics.median(seconds[options.steps // 4 :])
                once = sum(seconds) - medians[label] * len(seconds)
                print(f"  {label:12s} {medians[label]:6.3f} s     beyond {options.steps} such steps {once:5.1f} s")
            print(f"  ratio {medians['as written'] / medians['compiled']:.2f}")


if __name__ == "__main__":
    main()
