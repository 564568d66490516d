"""Two schedules in miniature: their shares are those of the texts, and nothing else differs."""

from dataclasses import replace

import pytest

from blip2_lab.training.optim import learning_rate
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schedules import MICRO_SCHEDULES


def test_shares_of_the_texts():
    paper, flant5 = (get(recipe.name).optim for recipe in MICRO_SCHEDULES)
    assert (paper.warmup_steps / paper.steps, paper.min_lr / paper.lr) == (pytest.approx(2000 / 80_000), 0.5)
    assert flant5.warmup_steps / flant5.steps == 0.5 and flant5.min_lr / flant5.lr == pytest.approx(1e-6 / 1e-4)
    assert learning_rate(flant5, flant5.warmup_steps - 1) == flant5.lr == learning_rate(paper, paper.warmup_steps - 1)
    assert learning_rate(flant5, flant5.steps) == pytest.approx(1e-5)
    assert learning_rate(paper, paper.steps) == pytest.approx(5e-4)


def test_nothing_else_differs():
    paper, flant5 = MICRO_SCHEDULES
    optim = replace(paper.optim, warmup_steps=flant5.optim.warmup_steps, min_lr=flant5.optim.min_lr)
    assert replace(paper, name=flant5.name, summary=flant5.summary, optim=optim) == flant5
    stage2 = get("micro-stage2")
    assert (paper.model, paper.data, paper.seed) == (stage2.model, stage2.data, stage2.seed)
    assert paper.optim.steps * paper.optim.batch_size == stage2.optim.steps * stage2.optim.batch_size
