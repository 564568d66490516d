"""The checks of notebook 17 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import datetime
from fractions import Fraction

import numpy as np
import pytest
import torch

from blip2_lab.teaching.checks.scaling import count_training_days as days
from blip2_lab.teaching.checks.scaling import count_training_flops as flops
from blip2_lab.teaching.checks.scaling import schedule_of as schedule
from blip2_lab.training.planning.flops import language_work
from blip2_lab.training.planning.large_models import llama
from blip2_lab.training.planning.parameters import count_parameters
from blip2_lab.training.planning.plan import memory_of as memory
from tests.teaching.checks.verdicts import variant_tests

KINDS = ("frozen weights", "trained weights", "gradients", "optimizer")


def memory_by_loops(parameters, trained):
    found = dict.fromkeys(KINDS, 0)
    for name, number in parameters.items():
        for kind, size in zip(KINDS, (0, 6, 4, 8) if name in trained else (2, 0, 0, 0), strict=True):
            found[kind] += size * number
    return found


def memory_by_sets(parameters, trained):
    frozen = sum(parameters[name] for name in set(parameters) - set(trained))
    own = sum(parameters.values()) - frozen
    return {
        "optimizer": own * 8,
        "gradients": own * 4,
        "trained weights": own * 4 + own * 2,
        "frozen weights": frozen * 2,
    }


def memory_by_numpy(parameters, trained):
    numbers = np.array(list(parameters.values()), dtype=float)
    own = numbers[[name in trained for name in parameters]].sum()
    return dict(zip(KINDS, np.array([2 * (numbers.sum() - own), 6 * own, 4 * own, 8 * own]), strict=True))


def flops_by_steps(n, tokens, trained, passes_gradient):
    work = 2 * n * tokens
    if passes_gradient:
        work += 2 * n * tokens
    if trained:
        work += 2 * n * tokens
    return work


def schedule_by_loops(batch_size, gpus, per_gpu, pairs, warmup_steps):
    passes, taken = 0, 0
    while taken < batch_size:
        passes, taken = passes + 1, taken + gpus * per_gpu
    return passes, int(pairs / batch_size), warmup_steps / (pairs / batch_size)


RIGHT = [
    *(("training_memory", f) for f in (memory_by_loops, memory_by_sets, memory_by_numpy)),
    ("training_memory", lambda p, t: {k: torch.tensor(float(v)) for k, v in memory_by_loops(p, t).items()}),
    ("training_memory", lambda p, t: memory(dict(p), tuple(t), frozen_bytes=2)),
    ("training_memory", lambda parameters, trained: (lambda own: {
        "frozen weights": 2 * sum(n for k, n in parameters.items() if k not in trained),
        "trained weights": 6 * own, "gradients": 4.0 * own, "optimizer": 2 * 4 * own})(
            sum(n for k, n in parameters.items() if k in trained))),
    ("training_flops", flops_by_steps),
    ("training_flops", lambda n, t, trained, passes_gradient: n * t * (2 + 2 * trained + 2 * passes_gradient)),
    ("training_flops", lambda n, t, w, p: sum(2 * n * t for yes in (True, w, p) if yes)),
    ("training_flops", lambda n, t, w, p: {0: 2, 1: 4, 2: 6}[w + p] * n * t),
    ("training_flops", lambda n, t, w, p: np.float64(2 * n * t) * np.count_nonzero([1, w, p])),
    ("training_flops", lambda n, t, w, p: torch.tensor(2.0 * n * t, dtype=torch.float64) * (1 + w + p)),
    ("training_days", lambda f, n, g, p, u: f / p / u * n / g / 86_400),
    ("training_days", lambda f, n, g, p, u: datetime.timedelta(seconds=f * n / g / p / u) / datetime.timedelta(days=1)),
    ("training_days", lambda f, n, g, p, u: np.divide(f * n, g * p * u) / 60 / 60 / 24),
    ("training_days", lambda flops_per_example, examples, gpus, peak, utilization: (
        examples / (gpus * peak * utilization / flops_per_example) / 24 / 3600)),
    ("training_days", lambda f, n, g, p, u: (
        float(Fraction(f) * Fraction(n) / (g * Fraction(p) * Fraction(u)) / 86_400))),
    ("training_days", lambda f, n, g, p, u: sum(f * (n / 10) for _ in range(10)) / (p * u) / (86_400 * g)),
    ("batch_schedule", schedule_by_loops),
    ("batch_schedule", lambda b, g, each, n, w: (-(-b // (g * each)), n // b, w * (b / n))),
    ("batch_schedule", lambda b, g, each, n, w: [(b + g * each - 1) // (g * each), divmod(n, b)[0], b * w / n]),
    ("batch_schedule", lambda b, g, each, n, w: (int(np.ceil(b / g / each)), np.int64(n // b), np.float64(w * b / n))),
    ("batch_schedule", lambda b, g, each, n, w: (len(range(0, b, g * each)), len(range(b, n + 1, b)), w / n * b)),
    ("batch_schedule", lambda b, g, each, n, w: (
        b // (g * each) + bool(b % (g * each)), n // b, float(Fraction(w * b, n)))),
]  # fmt: skip

#: name of the check, answer, and a word that its message must have
WRONG = [
    ("training_memory", lambda p, t: sum(p.values()) * 2, "dictionary"),
    ("training_memory", lambda p, t: {k: v for k, v in memory(p, t).items() if k != "gradients"}, "missing"),
    ("training_memory", lambda p, t: memory(p, t) | {"activations": 0.0}, "too much"),
    ("training_memory", lambda p, t: memory(p, t, frozen_bytes=1), "should be"),
    ("training_memory", lambda p, t: memory(p, t, frozen_bytes=4), "2 bytes"),
    ("training_memory", lambda p, t: memory(p, tuple(p)), "should be"),
    ("training_memory", lambda p, t: memory(p, t[:1]), "should be"),
    ("training_memory", lambda p, t: list(memory_by_loops(p, t).values()), "dictionary"),
    ("training_memory", lambda p, t: {k: v / 2**30 for k, v in memory_by_loops(p, t).items()}, "should be"),
    ("training_flops", lambda n, t, w, p: 6 * n * t, "Six"),
    ("training_flops", lambda n, t, w, p: 2 * n * t + 2 * n * w + 2 * n * p, "should be"),
    ("training_flops", lambda n, t, w, p: 2 * n, "should be"),
    ("training_flops", lambda n, t, w, p: 3 * n * t * (1 + w + p), "should be"),
    ("training_flops", lambda n, t, w, p: f"{flops(n, t, w, p)}", "number"),
    ("training_flops", lambda n, t, w, p: flops(n, t, w, p) / 1e12, "should be"),
    ("training_flops", lambda n, t, w, p: flops(n, t, not w, p), "should be"),
    ("training_flops", lambda n, t, w, p: -flops(n, t, w, p), "should be"),
    ("training_days", lambda f, n, g, p, u: f * n / (g * p * u) / 3600, "hours"),
    ("training_days", lambda f, n, g, p, u: f * n / (p * u) / 86_400, "GPU"),
    ("training_days", lambda f, n, g, p, u: round(days(f, n, g, p, u), 1), "should be"),
    ("training_days", lambda f, n, g, p, u: days(f, n, g, p, u) / 7, "should be"),
    ("training_days", lambda f, n, g, p, u: f"{days(f, n, g, p, u):.1f} days", "number"),
    ("training_days", lambda f, n, g, p, u: days(f, n, g, p, u) * u, "peak"),
    ("training_days", lambda f, n, g, p, u: days(f, n, g, 2 * p, u), "should be"),
    ("training_days", lambda f, n, g, p, u: days(f, n, 8, p, u), "should be"),
    ("batch_schedule", lambda b, g, each, n, w: schedule(b, g, each, n, w)[::-1], "order"),
    ("batch_schedule", lambda b, g, each, n, w: schedule(b, g, each, n, w)[:2], "3 things"),
    ("batch_schedule", lambda b, g, each, n, w: (b // (g * each), *schedule(b, g, each, n, w)[1:]), "rounded down"),
    ("batch_schedule", lambda b, g, each, n, w: (-(-b // each), *schedule(b, g, each, n, w)[1:]), "number of GPUs"),
    ("batch_schedule", lambda b, g, each, n, w: (*schedule(b, g, each, n, w)[:2], w), "warm-up"),
    ("batch_schedule", lambda b, g, each, n, w: (*schedule(b, g, each, n, w)[:2], 0.0), "warm-up"),
    ("batch_schedule", lambda b, g, each, n, w: (b / (g * each), *schedule(b, g, each, n, w)[1:]), "passes"),
    ("batch_schedule", lambda b, g, each, n, w: (schedule(b, g, each, n, w)[0], n / b, w * b / n), "epoch"),
]  # fmt: skip


test_a_right_answer_passes_in_any_style, test_a_wrong_answer_fails_and_is_told_why, test_there_are_enough_of_both = (
    variant_tests(("training_memory", "training_flops", "training_days", "batch_schedule"), RIGHT, WRONG)
)


def test_the_rule_of_two_agrees_with_the_plan():
    """Without attention's own products and the embeddings, which are looked up, not multiplied."""
    with torch.device("meta"):
        model = llama("llama-33b")
    multiplied = count_parameters(model) - count_parameters(model.get_input_embeddings())
    for trained in (False, True):
        rule = flops(multiplied, 24, trained, passes_gradient=True)
        assert rule == pytest.approx(language_work(model, 0, 0, 24, trained=trained).flops, rel=0.01)
