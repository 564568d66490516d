"""Check of notebook 08: the learning rate of a step.

Paper: section 3.4 (warm-up and cosine). Notebook: 08.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of
from blip2_lab.training import optim
from blip2_lab.training.recipes.schema import OptimConfig

# --- The learning rate ----------------------------------------------------------------------------------------------


def _rate_cases() -> list[Case]:
    first = OptimConfig(lr=1.0, warmup_steps=4, steps=12, batch_size=1, min_lr=0.2)
    second = OptimConfig(lr=4.0, warmup_steps=3, steps=10, batch_size=1, min_lr=1.0)
    return [
        Case(f"lr {o.lr:g}, {o.warmup_steps} steps of warm-up, {o.steps} in all, min_lr {o.min_lr:g}; step {i}", (o, i))
        for o in (first, second)
        for i in range(o.steps)
    ]


@variants_of
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


def _progress(optim: OptimConfig, step: int) -> float:
    return (step - optim.warmup_steps) / (optim.steps - optim.warmup_steps)


def _rate_rules(case: Case, got: object, expected: float) -> str | None:
    """Where the rate differs: in the warm-up, at its end, or after it."""
    config, step = case.args
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    how = f"It is {got:.4g} and should be {expected:.4g}"
    if step < config.warmup_steps:
        return f"{how} in the warm-up (step {step}): lr * (step + 1) / warmup_steps."
    if step == config.warmup_steps:
        return f"{how} at step warmup_steps, where the cosine begins: progress is 0 there, and the rate is lr."
    formula = "min_lr + (lr - min_lr) * (1 + cos(pi * progress)) / 2"
    return f"The warm-up is right, and so is its end. {how} after it: {formula}."


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
        "The rate falls by the same factor in each step (exponentially): the paper's is half a cosine.": (
            lambda o, step: (
                optim.learning_rate(o, step)
                if step < o.warmup_steps
                else o.lr * (max(o.min_lr, 1e-8) / o.lr) ** min(1.0, _progress(o, step))
            )
        ),
        "A quarter of a cosine: it ends at full slope. Half of it, lifted: (1 + cos(pi * progress)) / 2.": (
            _rate_but(fall=lambda p: math.cos(math.pi * p / 2))
        ),
        "The warm-up is not multiplied by the peak, lr.": (
            lambda o, step: (
                optim.learning_rate(o, step) / o.lr if step < o.warmup_steps else optim.learning_rate(o, step)
            )
        ),
        "`lr` is not used at all.": (
            lambda o, step: (
                (step + 1) / o.warmup_steps
                if step < o.warmup_steps
                else o.min_lr + (1 - o.min_lr) * 0.5 * (1 + math.cos(math.pi * _progress(o, step)))
            )
        ),
        "The warm-up lasts one step too long: at step warmup_steps the cosine begins.": (
            lambda o, step: (
                o.lr * (step + 1) / o.warmup_steps if step <= o.warmup_steps else optim.learning_rate(o, step)
            )
        ),
        "Progress is divided by all steps, not by those that remain after the warm-up.": (
            _rate_but(progress=lambda o, step: (step - o.warmup_steps) / o.steps)
        ),
        "Progress is one step ahead: it is 0 at step warmup_steps.": (
            _rate_but(progress=lambda o, step: (step + 1 - o.warmup_steps) / (o.steps - o.warmup_steps))
        ),
        "Progress reaches 1 at the last step: divide by steps - warmup_steps.": (
            _rate_but(progress=lambda o, step: (step - o.warmup_steps) / (o.steps - o.warmup_steps - 1))
        ),
        "The sine is not the cosine: it begins at 0.": _rate_but(fall=lambda p: math.sin(math.pi * p)),
        "The cosine's argument is in turns: multiply by pi.": _rate_but(fall=lambda p: 0.5 * (1 + math.cos(p))),
        "The cosine is not halved: (1 + cos) / 2.": _rate_but(fall=lambda p: 1 + math.cos(math.pi * p)),
        "The cosine rises: the sign in (1 + cos) / 2 is turned.": (
            _rate_but(fall=lambda p: 0.5 * (1 - math.cos(math.pi * p)))
        ),
        "The cosine is not lifted: it becomes negative.": _rate_but(fall=lambda p: math.cos(math.pi * p)),
        "After the warm-up the rate stays at its peak: the cosine is missing.": _rate_but(fall=lambda p: 1.0),
        "The rate falls exponentially: the paper's is half a cosine.": _rate_but(fall=lambda p: 0.1**p),
        "The minimum is a floor (max) here; the cosine ends at it: min_lr + (lr - min_lr) * ...": (
            lambda o, step: (
                optim.learning_rate(o, step)
                if step < o.warmup_steps
                else max(o.min_lr, o.lr * 0.5 * (1 + math.cos(math.pi * _progress(o, step))))
            )
        ),
        "The warm-up begins at min_lr; it is a straight line up from 0.": (
            _rate_but(warmup=lambda o, step: o.min_lr + (o.lr - o.min_lr) * (step + 1) / o.warmup_steps)
        ),
        "The warm-up is divided by one step too few.": (
            _rate_but(warmup=lambda o, step: o.lr * (step + 1) / (o.warmup_steps - 1))
        ),
        "The warm-up is divided by one step too many.": (
            _rate_but(warmup=lambda o, step: o.lr * (step + 1) / (o.warmup_steps + 1))
        ),
        "The warm-up is no straight line: lr * (step + 1) / warmup_steps.": (
            _rate_but(warmup=lambda o, step: o.lr * ((step + 1) / o.warmup_steps) ** 2)
        ),
        "`min_lr` is subtracted, but not added again: the rate falls to 0, from below its peak.": (
            lambda o, step: optim.learning_rate(o, step) - (0.0 if step < o.warmup_steps else o.min_lr)
        ),
        "The warm-up runs over all steps.": _rate_but(warmup=lambda o, step: o.lr * (step + 1) / o.steps),
        "In the warm-up the rate is the peak already.": _rate_but(warmup=lambda o, step: o.lr),
    },
    rules=(_rate_rules,),
)
