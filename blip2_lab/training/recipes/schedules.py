"""Recipes of the miniature with two schedules of the learning rate: the paper's, and that of BLIP-2-FlanT5-XL.

`MICRO_SCHEDULES` lists them: `micro-schedule-paper` and `micro-schedule-flant5`. Both are `micro-stage2`, with as many
examples, in the same order.

    blip2-lab compare bridges --bridges schedule-paper schedule-flant5 --frozen micro
    blip2-lab train micro-schedule-paper     one of them

Notes:

* What is kept of a schedule: the warm-up as a share of the steps, and the last learning rate as a share of the largest.
  The largest is the miniature's, 1e-3, since the text of FlanT5-XL gives none.
* The paper: 2,000 of 80,000 steps, from 1e-4 to 5e-5. The description of FlanT5-XL: 10,000 steps and 1e-6; its number
  of steps is not in the text, so the 20,000 of `flant5-xl-stage2` are assumed.
* Batches have the same size in both, 64. The text's are 86 times the paper's, which a miniature cannot follow: its
  64,000 examples would be 11 steps.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

from dataclasses import replace

from blip2_lab.training.recipes.micro import MICRO
from blip2_lab.training.recipes.schema import Recipe

STAGE2 = next(recipe for recipe in MICRO if recipe.name == "micro-stage2")


def _scheduled(name: str, whose: str, warmup_steps: int, min_lr: float) -> Recipe:
    optim = replace(STAGE2.optim, warmup_steps=warmup_steps, min_lr=min_lr)
    summary = f"micro-stage2 with the schedule of {whose} in miniature"
    return replace(STAGE2, name=name, summary=summary, optim=optim)


MICRO_SCHEDULES = (
    _scheduled("micro-schedule-paper", "the paper", warmup_steps=25, min_lr=5e-4),
    _scheduled("micro-schedule-flant5", "the described BLIP-2-FlanT5-XL", warmup_steps=500, min_lr=1e-5),
)
