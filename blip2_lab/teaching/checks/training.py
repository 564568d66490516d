"""Checks of notebooks 08 and 11: the learning rate of a step, and the confidence interval of an accuracy.

Paper: section 3.4 (warm-up and cosine), 4.1 (zero-shot VQA). Notebooks: 08, 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from blip2_lab.evaluation import metrics
from blip2_lab.teaching.checks.check import Case, Check
from blip2_lab.training import optim
from blip2_lab.training.recipes.schema import OptimConfig

# --- The learning rate ----------------------------------------------------------------------------------------------


def _rate_cases() -> list[Case]:
    optim = OptimConfig(lr=1.0, warmup_steps=4, steps=12, batch_size=1, min_lr=0.2)
    return [Case(f"lr 1, 4 steps of warm-up, 12 in all, min_lr 0.2; step {i}", (optim, i)) for i in range(12)]


def _rate_but(
    warmup: Callable[[OptimConfig, int], float] = lambda o, step: o.lr * (step + 1) / o.warmup_steps,
    progress: Callable[[OptimConfig, int], float] = lambda o, step: (
        (step - o.warmup_steps) / (o.steps - o.warmup_steps)
    ),
    fall: Callable[[float], float] = lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    least: Callable[[OptimConfig], float] = lambda o: o.min_lr,
) -> Callable:
    """The schedule with one part done differently."""

    def wrong(optim: OptimConfig, step: int) -> float:
        if step < optim.warmup_steps:
            return warmup(optim, step)
        return least(optim) + (optim.lr - least(optim)) * fall(progress(optim, step))

    return wrong


def _no_warmup(optim: OptimConfig, step: int) -> float:
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * step / optim.steps))


def _cosine_over_everything(optim: OptimConfig, step: int) -> float:
    return optim.lr * (step + 1) / optim.warmup_steps if step < optim.warmup_steps else _no_warmup(optim, step)


learning_rate = Check(
    "learning_rate",
    optim.learning_rate,
    _rate_cases,
    "A straight line up to the peak, then half a cosine from the peak towards the minimum.",
    {
        "The first step has rate 0 and teaches nothing: count from step + 1 in the warm-up.": (
            _rate_but(warmup=lambda o, step: o.lr * step / o.warmup_steps)
        ),
        "The cosine begins at step 0, so the rate jumps down when the warm-up ends. Begin where the warm-up ends.": (
            _cosine_over_everything
        ),
        "There is no warm-up: the first steps go at full speed through random cross-attention.": _no_warmup,
        "The minimum is not used: the rate falls towards 0.": _rate_but(least=lambda o: 0.0),
        "The minimum is added on top: then the peak is higher than lr.": (
            lambda o, step: (
                optim.learning_rate(o, step)
                if step < o.warmup_steps
                else o.min_lr
                + o.lr * 0.5 * (1 + math.cos(math.pi * (step - o.warmup_steps) / (o.steps - o.warmup_steps)))
            )
        ),
        "A straight line down: the paper's is half a cosine, slow at both ends.": _rate_but(fall=lambda p: 1 - p),
        "A whole cosine: cos(2 * pi * progress) is back at the peak in the end. Half of it: cos(pi * progress).": (
            _rate_but(fall=lambda p: 0.5 * (1 + math.cos(2 * math.pi * p)))
        ),
        "A quarter of a cosine: it ends at full slope. Half of it, lifted: (1 + cos(pi * progress)) / 2.": (
            _rate_but(fall=lambda p: math.cos(math.pi * p / 2))
        ),
    },
)

# --- Is the answer right? -------------------------------------------------------------------------------------------


def _match_cases() -> list[Case]:
    pairs = (
        ("red", "red"), ("blue", "red"), ("Red", "red"), ("red.", "red"), (" red ", "red"), ("a red boat", "red"),
        ("re", "red"), ("", "red"),
    )  # fmt: skip
    return [Case(f"prediction {prediction!r}, answer {answer!r}", (prediction, answer)) for prediction, answer in pairs]


exact_match = Check(
    "exact_match",
    metrics.exact_match,
    _match_cases,
    "Case, spaces around and a closing full stop do not matter; a longer or a shorter answer is wrong.",
    {
        "Upper and lower case are told apart: 'Red.' answers 'red'.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip() == answer
        ),
        "The full stop is not taken off.": lambda prediction, answer: prediction.strip().lower() == answer,
        "It is enough that the answer occurs somewhere: then 'red blue green' answers every question about colors.": (
            lambda prediction, answer: answer in prediction.lower()
        ),
        "It is enough that the prediction occurs in the answer: then saying nothing is always right.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip().lower() in answer
        ),
        "The spaces around are not taken off.": lambda prediction, answer: prediction.rstrip(".").lower() == answer,
        "The strings are compared as they are: case, spaces and a full stop must not matter.": (
            lambda prediction, answer: prediction == answer
        ),
    },
)

# --- The confidence interval ----------------------------------------------------------------------------------------


def _interval_cases() -> list[Case]:
    return [
        Case(f"a share of {share} among {count}", (share, count)) for share, count in ((0.5, 100), (0.9, 40), (1.0, 10))
    ]


def _wald(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    half = z * math.sqrt(share * (1 - share) / count)
    return max(0.0, share - half), min(1.0, share + half)


def _without_the_root(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * (share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _around_the_share(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    low, high = metrics.confidence_interval(share, count, z)
    return max(0.0, share - (high - low) / 2), min(1.0, share + (high - low) / 2)


confidence_interval = Check(
    "confidence_interval",
    metrics.confidence_interval,
    _interval_cases,
    "Wilson's interval, also where a share is 1: ten of ten right does not make a model perfect.",
    {
        "The textbook's normal interval: for a share of 1 it has no width at all, as if ten cases proved everything. "
        "Wilson's is the one asked for.": _wald,
        "z = 1 gives 68 %, not 95: use 1.96.": lambda share, count: metrics.confidence_interval(share, count, z=1.0),
        "The square root is missing: the width falls with the root of the count, not with the count.": (
            _without_the_root
        ),
        "The middle is not the share itself: Wilson's is pulled towards one half.": _around_the_share,
        "Half the width is returned, or one side only: return (low, high).": (
            lambda share, count: (share, metrics.confidence_interval(share, count)[1])
        ),
    },
    tolerance=1e-3,
)
