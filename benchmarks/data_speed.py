"""How much faster picture-book data is made than the micro models eat it, on one core.

    python -m benchmarks.data_speed                       all micro trainings
    python -m benchmarks.data_speed --only micro-vit --rounds 2

Made: what the engine's background thread does, `task.batch`. Eaten: forward, backward and AdamW at the recipe's sizes
and precision, one thread. The image encoder's pictures are drawn for every batch; in stages 1 and 2 their features are
cached, and the last columns add the drawing: what would be, were every picture a new one. Medians of the rounds, with
their range.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import blip2_lab
from benchmarks.measure import own_clock, ratio, spread
from blip2_lab.data.scenes import PictureBook
from blip2_lab.training.optim import bf16_is_fast, parameter_groups, train_mode
from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.schema import Recipe
from blip2_lab.training.scene_batches import SceneBatches
from blip2_lab.training.tasks import pretraining
from blip2_lab.training.trainer import Task

NAMES = ("micro-vit", "micro-t5", "micro-opt", "micro-bert", "micro-stage1", "micro-stage2")
MADE, EATEN = 5, 2  #: batches of a round
WARM = 20  #: batches before the clock runs: draw.py keeps shapes it has drawn, and a run has thousands


class CachedTask:
    """A stage's task: the shipped model, random features instead of the image encoder's."""

    def __init__(self, recipe: Recipe) -> None:
        micro = blip2_lab.load("micro")
        encoder = micro.image_encoder
        self.model = micro.stage1 if recipe.task == "stage1" else micro
        self.model.float()
        cut = micro.stage1.config if recipe.task == "stage1" else micro.language_model
        cut.max_text_tokens = recipe.model.max_text_tokens
        features = torch.randn(1, encoder.num_features, encoder.width, dtype=torch.bfloat16)
        features = features.expand(recipe.data.scenes, -1, -1)  # one picture's, as often as all would be read
        book = PictureBook(recipe.data.seed, image_size=encoder.image_size, caption=recipe.data.caption)
        self.batches = SceneBatches(book, features, recipe.optim.pass_size, recipe.seed, recipe.data.hard_batches_from)
        self.batch = self.batches.batch

    def compute_losses(self, batch) -> dict[str, torch.Tensor]:
        seen = dict(image_features=batch.image_features, captions=batch.captions)
        return {
            "total": self.model.losses(**seen).total if hasattr(self.model, "itm_head") else self.model.loss(**seen)
        }


def task_of(recipe: Recipe) -> Task:
    if recipe.task in ("stage1", "stage2"):
        return CachedTask(recipe)
    with tempfile.TemporaryDirectory() as nowhere:
        return pretraining.build_task(recipe, Path(nowhere))


def seconds(work: Callable[[int], object], rounds: int, each: int, warm: int = 1) -> list[float]:
    """Seconds of a call of `work(index)` in each round: the mean of `each` calls, since batches are of several kinds;
    before the first round, `warm` others."""
    took, clock = [], own_clock()
    for index in range(warm + rounds * each):
        began = clock()
        work(index)
        took.append(clock() - began)
    return [statistics.fmean(took[start : start + each]) for start in range(warm, len(took), each)]


def measure(recipe: Recipe, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds to make a batch, to eat it, and to draw its pictures (none where `task.batch` does), of each round."""
    task, optim = task_of(recipe), recipe.optim
    optimizer = torch.optim.AdamW(parameter_groups(task.model, optim.lr, optim.weight_decay), lr=optim.lr, fused=True)
    train_mode(task.model)
    last_lesson = 100_000  # a course's later batches: the full mixture
    batches = [task.batch(last_lesson + index) for index in range(EATEN * rounds + 1)]

    def eat(index: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast("cpu")):
            total = task.compute_losses(batches[index])["total"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    made = seconds(lambda index: task.batch(last_lesson + len(batches) + index), rounds, MADE, WARM)
    drawn = []
    if isinstance(task, CachedTask):
        book = task.batches.book
        drawn = seconds(lambda index: [book.image(64 * index + i) for i in range(optim.pass_size)], rounds, 1, WARM)
    return made, seconds(eat, rounds, EATEN), drawn


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("recipe | made, ms | eaten, ms | ratio | made and drawn, ms | ratio")
    for name in [options.only] if options.only else NAMES:
        made, eaten, drawn = measure(registry.get(name), options.rounds)
        cells = [name, in_ms(made), in_ms(eaten), ratio(eaten, made)]
        if drawn:
            both = [a + b for a, b in zip(made, drawn, strict=True)]
            cells += [in_ms(both), ratio(eaten, both)]
        print(" | ".join(cells), flush=True)


def in_ms(seconds: Sequence[float]) -> str:
    return spread([1e3 * one for one in seconds], ".1f")


if __name__ == "__main__":
    main()
