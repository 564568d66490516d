"""Two schedules in miniature: their shares are those of the texts, nothing else differs, and a run follows them."""

import math
from dataclasses import replace

import pytest

from blip2_lab.compare.rows import BRIDGES, recipes_of
from blip2_lab.training import run
from blip2_lab.training.builders import build_task
from blip2_lab.training.optim import learning_rate
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schedules import MICRO_SCHEDULES
from blip2_lab.training.run_folder import read_log
from blip2_lab.training.trainer import train
from tests.training.tasks.test_stages import parts  # noqa: F401  a fixture

SMALL = ("data.scenes=12", "data.held_out=4", "data.hard_batches_from=none", "optim.batch_size=4")


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


def test_compare_takes_both_at_equal_samples_and_not_by_default():
    rows = ("schedule-paper", "schedule-flant5")
    assert not set(rows) & set(BRIDGES)
    (stage1, paper), (again, flant5) = (recipes_of(row, 2700, 0) for row in rows)
    assert replace(stage1, name=again.name) == again
    assert (paper.optim, flant5.optim) == tuple(recipe.optim for recipe in MICRO_SCHEDULES)
    assert paper.data == flant5.data and paper.seed == flant5.seed


@pytest.mark.parametrize("row", ["schedule-paper", "schedule-flant5"])
def test_a_short_run_has_the_rates_of_its_schedule(parts, row, tmp_path):  # noqa: F811
    """22 steps, of which stage 2 has 8. The paper warms up for 2.5 % of the steps, none of 8; FlanT5-XL for half of
    them, 4. Then half a cosine from 1e-3 down to the last rate, which would be that of one step more."""
    stage1, stage2 = recipes_of(row, 22, 0, SMALL)
    run.run(stage1, parts, resume=False, progress=False)
    train(build_task(stage2, parts), stage2.optim, run_dir=tmp_path, log_every=1, progress=False)
    log = [record for record in read_log(tmp_path) if "lr" in record]
    warm, last = (0, 5e-4) if row == "schedule-paper" else (4, 1e-5)
    rising = [1e-3 * (step + 1) / 4 for step in range(warm)]
    falling = [last + (1e-3 - last) * (1 + math.cos(math.pi * i / (8 - warm))) / 2 for i in range(8 - warm)]
    assert [record["step"] for record in log] == list(range(1, 9))
    assert [record["lr"] for record in log] == pytest.approx(rising + falling, rel=1e-3)
    assert all(math.isfinite(record["total"]) and record["grad_norm"] > 0 for record in log)
