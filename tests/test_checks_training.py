"""The checks of notebooks 08 and 11: the library passes, every mistake gets its own message."""

from __future__ import annotations

import math

import pytest
from checks_room import assert_named, assert_sound, checks_of, mistakes_of

from blip2_lab.checks import training

CHECKS = checks_of(training)


def test_all_three_are_here():
    assert CHECKS.keys() == {"learning_rate", "exact_match", "confidence_interval"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_sound(name):
    assert_sound(CHECKS[name])


@pytest.mark.parametrize(("name", "message"), mistakes_of(CHECKS))
def test_each_mistake_is_named(name, message):
    assert_named(CHECKS[name], CHECKS[name].mistakes[message], message)


def test_students_mistakes():
    def from_zero(optim, step):
        if step < optim.warmup_steps:
            return step / optim.warmup_steps * optim.lr
        done = (step - optim.warmup_steps) / (optim.steps - optim.warmup_steps)
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(done * math.pi) + 1) / 2

    def jumps(optim, step):
        if step < optim.warmup_steps:
            return (step + 1) / optim.warmup_steps * optim.lr
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(step / optim.steps * math.pi) + 1) / 2

    def contains(prediction, answer):
        return prediction.lower().find(answer) >= 0

    def textbook(share, count):
        half = 1.96 * (share * (1 - share) / count) ** 0.5
        return max(share - half, 0.0), min(share + half, 1.0)

    assert_named(training.learning_rate, from_zero, "The first step has rate 0")
    assert_named(training.learning_rate, jumps, "The cosine begins at step 0")
    assert_named(training.exact_match, contains, "It is enough that the answer occurs somewhere")
    assert_named(training.confidence_interval, textbook, "The textbook's normal interval")
