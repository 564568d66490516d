"""Which losses stop a run, which do not, and which checkpoint is a good one."""

import random

import pytest

from blip2_lab.training.divergence import Diverged, LossMonitor


def watch(losses) -> tuple[LossMonitor, int]:
    """The watch after these losses, and at which of them it gave up (0: never)."""
    watched = LossMonitor()
    for step, loss in enumerate(losses, 1):
        try:
            watched.add(loss)
        except Diverged:
            return watched, step
    return watched, 0


def noisy(level: float, steps: int, noise: float = 0.3) -> list[float]:
    rng = random.Random(0)
    return [level * (1 + noise * rng.uniform(-1, 1)) for _ in range(steps)]


def test_a_constant_loss_is_no_divergence():
    assert watch(noisy(3.0, 2000))[1] == 0


def test_a_loss_that_falls_and_stays_is_no_divergence():
    assert watch([*noisy(9.0, 50), *noisy(3.0, 500), *noisy(0.02, 1000, noise=3.0)])[1] == 0


def test_a_loss_that_doubles_stops_at_once():
    assert 201 <= watch([*noisy(3.0, 200), *[1e4] * 20])[1] <= 203


def test_a_loss_back_at_its_initial_value_stops_after_patience():
    began, back = [*noisy(9.0, 50), *noisy(3.0, 500)], noisy(9.5, 500, noise=0.05)
    stopped = watch([*began, *back])[1]
    assert 550 + LossMonitor.PATIENCE < stopped < 550 + 3 * LossMonitor.PATIENCE


def test_the_curriculum_may_raise_the_loss_for_some_steps():
    assert watch([*noisy(4.6, 50), *noisy(0.1, 500), *noisy(4.6, 40), *noisy(1.0, 500)])[1] == 0


def test_a_checkpoint_is_good_while_the_loss_is_near_its_best():
    watched, _ = watch([*noisy(9.0, 30), *noisy(3.0, 200)])
    watched.mark_checkpoint(230)
    for loss in noisy(7.0, 60, noise=0.1):
        watched.add(loss)
    watched.mark_checkpoint(290)
    assert watched.good_step == 230


@pytest.mark.parametrize("first", [0.0, -5.0])
def test_a_loss_that_is_not_positive_is_not_judged(first):
    assert watch([first] * 50 + [first + 1] * 200)[1] == 0
