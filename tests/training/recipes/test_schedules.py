"""Two schedules in miniature: their shares are those of the texts, and nothing else differs."""

from dataclasses import replace

import pytest

from blip2_lab.training.optim import learning_rate
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schedules import MICRO_SCHEDULES


@pytest.mark.parametrize(
    "name,full",
    [("micro-schedule-paper", "paper-stage2-vit-g-flant5-xl"), ("micro-schedule-flant5", "flant5-xl-stage2")],
)
def test_shares_of_the_texts(name, full):
    ours, theirs = get(name).optim, get(full).optim
    assert ours.warmup_steps / ours.steps == pytest.approx(theirs.warmup_steps / theirs.steps)
    assert ours.min_lr / ours.lr == pytest.approx(theirs.min_lr / theirs.lr)
    assert learning_rate(ours, ours.warmup_steps - 1) == ours.lr == get("micro-stage2").optim.lr
    assert learning_rate(ours, ours.steps) == pytest.approx(ours.min_lr)


def test_nothing_else_differs():
    paper, flant5 = MICRO_SCHEDULES
    optim = replace(paper.optim, warmup_steps=flant5.optim.warmup_steps, min_lr=flant5.optim.min_lr)
    assert replace(paper, name=flant5.name, summary=flant5.summary, optim=optim) == flant5
    stage2 = get("micro-stage2")
    assert (paper.model, paper.data, paper.seed) == (stage2.model, stage2.data, stage2.seed)
    assert paper.optim.steps * paper.optim.batch_size == stage2.optim.steps * stage2.optim.batch_size
