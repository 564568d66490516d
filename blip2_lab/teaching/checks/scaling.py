"""Checks of notebook 17: the memory of training, its FLOPs, its days, and what a batch does to a schedule.

Paper: section 3.4. Notebook: 17.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of
from blip2_lab.training.planning.plan import memory_of

# --- Memory ---------------------------------------------------------------------------------------------------------


def _memory_cases() -> list[Case]:
    return [
        Case("nothing is trained", ({"encoder": 3, "language model": 10}, ())),
        Case("everything is trained", ({"bridge": 5}, ("bridge",))),
        Case("a small bridge", ({"encoder": 100, "bridge": 7, "language model": 1000}, ("bridge",))),
        Case("two parts are trained", ({"encoder": 40, "bridge": 9, "head": 2}, ("bridge", "head"))),
        Case("BLIP-2 with FlanT5-XL, in millions", ({"ViT": 986, "Q-Former": 107, "T5": 2850}, ("Q-Former",))),
    ]


def _own_memory(function: Callable, args: tuple) -> Any:
    """The four kinds that grow with the model; the library's constant reserve is no part of the exercise."""
    found = function(*args)
    if isinstance(found, Mapping):
        return {key: value for key, value in found.items() if key != "reserve"}
    return found


@variants_of
def _memory_but(**other: float | str) -> Callable:
    """Other bytes for a parameter of a kind (`weights=4.0`), or other parameters counted (`count_weights="all"`)."""
    bytes_ = {"frozen": 2.0, "weights": 6.0, "gradients": 4.0, "optimizer": 8.0} | other

    def wrong(parameters: Mapping[str, int], trained: tuple[str, ...]) -> dict[str, float]:
        every, training = sum(parameters.values()), sum(parameters[name] for name in trained)
        counts = {"frozen": every - training, "weights": training, "gradients": training, "optimizer": training}
        names = {"frozen": "frozen weights", "weights": "trained weights"}
        return {
            names.get(kind, kind): bytes_[kind]
            * {"all": every, "others": every - training}.get(other.get(f"count_{kind}"), count)
            for kind, count in counts.items()
        }

    return wrong


def _exchanged(parameters: Mapping[str, int], trained: tuple[str, ...]) -> dict[str, float]:
    return _memory_but()(parameters, tuple(name for name in parameters if name not in trained))


_MEMORY = {
    "frozen weights": "2 bytes for each parameter that is not trained",
    "trained weights": "4 + 2 bytes for each parameter that is trained",
    "gradients": "4 bytes for each parameter that is trained, none for a frozen one",
    "optimizer": "two moments of 4 bytes for each parameter that is trained",
    "reserve": "the same whatever is trained",
}


def _memory_rules(case: Case, got: Any, expected: dict) -> str | None:
    if not isinstance(got, Mapping):
        return f"Return a dictionary with the keys {', '.join(expected)}."
    if missing := [key for key in expected if key not in got]:
        return f"The key {missing[0]!r} is missing: the dictionary has {', '.join(expected)}."
    if extra := [key for key in got if key not in expected]:
        return f"The key {extra[0]!r} is too much: the dictionary has {', '.join(expected)}."
    for key, value in expected.items():
        if got[key] != value:
            return f"`{key}` is {got[key]:,.0f} bytes and should be {value:,.0f}: {_MEMORY[key]}."
    return None


training_memory = Check(
    "training_memory",
    memory_of,
    _memory_cases,
    "2 bytes for a frozen parameter, 18 for a trained one: weight, its copy, gradient and two moments.",
    {
        "A frozen weight has 2 bytes: it is only read, so 16 bits are enough.": _memory_but(frozen=4.0),
        "A trained weight has 4 bytes and a copy of 2 for the products: 6.": _memory_but(weights=4.0),
        "A trained weight is kept in 32 bits, beside its copy in 16: 6 bytes, not 2.": _memory_but(weights=2.0),
        "A gradient has 4 bytes here: it is kept in 32 bits.": _memory_but(gradients=2.0),
        "AdamW keeps *two* moments of 4 bytes for a trained parameter: 8.": _memory_but(optimizer=4.0),
        "AdamW's moments are kept in 32 bits: 8 bytes.": _memory_but(optimizer=2.0),
        "AdamW's two moments are 8 bytes. With 12, the weight in 32 bits is counted a second time.": (
            _memory_but(optimizer=12.0)
        ),
        "Frozen parameters get no gradient: count the trained ones.": _memory_but(count_gradients="all"),
        "AdamW keeps nothing for frozen parameters: count the trained ones.": _memory_but(count_optimizer="all"),
        "Frozen parameters get neither gradients nor moments: count the trained ones.": _memory_but(
            count_gradients="all", count_optimizer="all"
        ),
        "The trained parameters are counted as frozen, too: subtract them.": _memory_but(count_frozen="all"),
        "All parameters are counted as trained weights: `trained` names those that are.": _memory_but(
            count_weights="all"
        ),
        "What is not trained gets gradients, moments and 32 bits in yours: that is for `trained`.": (
            _memory_but(count_weights="others", count_gradients="others", count_optimizer="others")
        ),
        "Frozen and trained are exchanged.": _exchanged,
        "Those are numbers of parameters: multiply by the bytes of each.": (
            _memory_but(frozen=1.0, weights=1.0, gradients=1.0, optimizer=2.0)
        ),
        "The parts are counted, not their parameters: sum up the values of `parameters`.": (
            lambda parameters, trained: memory_of(dict.fromkeys(parameters, 1), trained)
        ),
        "Those are bits: a byte has 8 of them.": (
            _memory_but(frozen=16.0, weights=48.0, gradients=32.0, optimizer=64.0)
        ),
    },
    rules=(_memory_rules,),
    run=_own_memory,
    tolerance=1e-9,
)

# --- Work -----------------------------------------------------------------------------------------------------------


def count_training_flops(parameters: float, tokens: int, trained: bool, passes_gradient: bool) -> float:
    """FLOPs of matrix products for so many tokens through a model of so many parameters, forward and backward.

    trained          its own weights get gradients
    passes_gradient  something before it is trained, so the gradient goes through it to its inputs

    One product of a token with a weight, and its addition, are 2 FLOPs. The gradient of the inputs costs as much as the
    forward pass, and the gradient of the weights as much again. Attention's own products are left out.
    """
    return 2.0 * parameters * tokens * (1 + int(passes_gradient) + int(trained))


def _flops_cases() -> list[Case]:
    told = {
        "a frozen image encoder": (7, 3, False, False),
        "a frozen language model behind a trained bridge": (5, 4, False, True),
        "a trained model behind a trained bridge": (5, 4, True, True),
        "a trained model with nothing trained before it": (11, 2, True, False),
        "a frozen model of 65 billion, 24 tokens": (65e9, 24, False, True),
    }
    return [
        Case(f"{name}: {n:g} parameters, {t} tokens, trained {own}, passes_gradient {passes}", (n, t, own, passes))
        for name, (n, t, own, passes) in told.items()
    ]


@variants_of
def _flops_but(times: Callable[[bool, bool], float], tokens: Callable[[int], float] = float) -> Callable:
    return lambda n, t, trained, passes_gradient: float(n) * tokens(t) * times(trained, passes_gradient)


def _flops_rules(case: Case, got: Any, expected: float) -> str | None:
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    parameters, tokens, trained, passes = case.args
    parts = ["2 forward", *(["2 for the inputs"] if passes else []), *(["2 for the weights"] if trained else [])]
    return (
        f"It is {got / (parameters * tokens):.3g} FLOPs for each parameter and token, and should be "
        f"{expected / (parameters * tokens):.3g}: {', '.join(parts)}."
    )


def _as_deep_models_train(parameters: float, tokens: int, trained: bool, passes_gradient: bool) -> float:
    """A trained model always needs both: inside it, every layer but the first has trained layers before it. So the
    planner counts (training/planning/flops.py)."""
    return 2.0 * parameters * tokens * (3 if trained else 2 if passes_gradient else 1)


training_flops = Check(
    "training_flops",
    count_training_flops,
    _flops_cases,
    "2 FLOPs for each parameter and token forward, 2 more for the inputs' gradient, 2 more for the weights'.",
    {
        "A multiplication and its addition are two FLOPs: yours counts one.": _flops_but(lambda own, p: 1 + own + p),
        "That is the forward pass alone.": _flops_but(lambda own, p: 2.0),
        "Six for everything: frozen weights need no gradient of their own.": _flops_but(lambda own, p: 6.0),
        "A frozen model behind a trained bridge must pass the gradient on to it: that costs as much as the forward.": (
            _flops_but(lambda own, p: 6.0 if own and p else 4.0 if own else 2.0)
        ),
        "A frozen image encoder has nothing to learn before it, so no gradient goes through it: 2.": (
            _flops_but(lambda own, p: 6.0 if own and p else 4.0)
        ),
        "Frozen is not free: the forward pass is computed all the same.": (
            _flops_but(lambda own, p: 2.0 * (1 + own + p) if own else 0.0)
        ),
        "The forward pass is forgotten.": _flops_but(lambda own, p: 2.0 * (own + p)),
        "The two gradients are counted as one: inputs and weights have a product each.": (
            _flops_but(lambda own, p: 4.0 if own or p else 2.0)
        ),
        "One gradient alone is counted as two: weights and inputs have a product each, only where they are needed.": (
            _flops_but(lambda own, p: 6.0 if own or p else 2.0)
        ),
        "The gradient of the inputs is counted as two products: it is one.": (
            _flops_but(lambda own, p: 2.0 * (1 + own + 2 * p))
        ),
        "The gradient of the weights is counted as two products: it is one.": (
            _flops_but(lambda own, p: 2.0 * (1 + 2 * own + p))
        ),
        "The tokens are forgotten: the work grows with their number.": (
            _flops_but(lambda own, p: 2.0 * (1 + own + p), lambda t: 1.0)
        ),
        "The work grows with the square of the tokens in yours: that is true of attention alone.": (
            _flops_but(lambda own, p: 2.0 * (1 + own + p), lambda t: float(t * t))
        ),
    },
    also_right=(_as_deep_models_train,),
    rules=(_flops_rules,),
    tolerance=1e-9,
)

# --- Days -----------------------------------------------------------------------------------------------------------


def count_training_days(flops_per_example: float, examples: float, gpus: int, peak: float, utilization: float) -> float:
    """Days of training: work / speed.

    peak         FLOP/s of one GPU by its data sheet
    utilization  the share of the peak that training reaches
    """
    return flops_per_example * examples / (gpus * peak * utilization) / (24 * 3600)


def _days_cases() -> list[Case]:
    day = 24 * 3600.0
    return [
        Case("10 FLOPs, a day's worth of examples, one GPU of 10 FLOP/s, all of it", (10.0, day, 1, 10.0, 1.0)),
        Case("the same at half of the peak", (10.0, day, 1, 10.0, 0.5)),
        Case("the same on four GPUs", (10.0, day, 4, 10.0, 0.5)),
        Case("ten times the work of an example", (100.0, day, 4, 10.0, 0.5)),
        Case("15 TFLOP, 1.5 billion pairs, 128 A100 at 40 %", (15e12, 1.5e9, 128, 312e12, 0.4)),
    ]


@variants_of
def _days_but(seconds: Callable[[float, float, int, float, float], float], unit: float = 24 * 3600.0) -> Callable:
    return lambda flops_per_example, examples, gpus, peak, utilization: (
        seconds(flops_per_example, examples, gpus, peak, utilization) / unit
    )


def _days_rules(case: Case, got: Any, expected: float) -> str | None:
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    work, examples, gpus, peak, share = case.args
    return (
        f"It is {got:.4g} days and should be {expected:.4g}: {work * examples:.3g} FLOPs in all, at "
        f"{gpus * peak * share:.3g} FLOP/s, and a day has 86,400 seconds."
    )


training_days = Check(
    "training_days",
    count_training_days,
    _days_cases,
    "All FLOPs, divided by what all GPUs really reach in a second, in days.",
    {
        "Those are hours: a day has 24 of them.": _days_but(lambda f, n, g, p, u: f * n / (g * p * u), 3600.0),
        "Those are seconds: a day has 86,400 of them.": _days_but(lambda f, n, g, p, u: f * n / (g * p * u), 1.0),
        "Those are minutes: a day has 1,440 of them.": _days_but(lambda f, n, g, p, u: f * n / (g * p * u), 60.0),
        "The utilization is forgotten: no training reaches the peak.": _days_but(lambda f, n, g, p, u: f * n / (g * p)),
        "A lower utilization makes training longer: divide by it.": _days_but(
            lambda f, n, g, p, u: f * n * u / (g * p)
        ),
        "The number of GPUs is forgotten: those are GPU days, and all GPUs work at the same time.": _days_but(
            lambda f, n, g, p, u: f * n / (p * u)
        ),
        "More GPUs need less time: divide by their number.": _days_but(lambda f, n, g, p, u: f * n * g / (p * u)),
        "The number of examples is forgotten.": _days_but(lambda f, n, g, p, u: f / (g * p * u)),
        "The work of an example is forgotten.": _days_but(lambda f, n, g, p, u: n / (g * p * u)),
        "Upside down: work divided by speed is time. (Or a factor of the speed is far too large.)": (
            _days_but(lambda f, n, g, p, u: g * p * u / (f * n))
        ),
        "What is left of the peak is used: `utilization` is the share that training reaches.": (
            _days_but(lambda f, n, g, p, u: f * n / (g * p * (1 - u if u < 1 else u)))
        ),
    },
    rules=(_days_rules,),
    tolerance=1e-6,
)

# --- A batch and its schedule ---------------------------------------------------------------------------------------


def schedule_of(batch_size: int, gpus: int, per_gpu: int, pairs: int, warmup_steps: int) -> tuple[int, int, float]:
    """-> (passes of a step, steps of an epoch, epochs that the warm-up takes).

    batch_size  examples of a step, of all GPUs and passes together
    per_gpu     examples that a GPU takes in one pass
    pairs       examples of an epoch; a last, smaller batch is left out
    """
    return math.ceil(batch_size / (gpus * per_gpu)), pairs // batch_size, warmup_steps * batch_size / pairs


def _by_whole_steps(batch_size: int, gpus: int, per_gpu: int, pairs: int, warmup_steps: int) -> tuple[int, int, float]:
    """The epochs of the warm-up by the steps of an epoch, which leave out a last, smaller batch."""
    passes, steps, _ = schedule_of(batch_size, gpus, per_gpu, pairs, warmup_steps)
    return passes, steps, warmup_steps / steps


def _schedule_cases() -> list[Case]:
    told = ((16, 2, 4, 160, 5), (16, 2, 8, 160, 5), (20, 2, 4, 110, 11), (8, 1, 16, 100, 0), (2048, 128, 4, 10**6, 100))
    return [
        Case(
            f"batches of {b}, {g} GPU{'s' * (g > 1)} of {each}, {pairs:,} pairs, warm-up {warm}",
            (b, g, each, pairs, warm),
        )
        for b, g, each, pairs, warm in told
    ]


@variants_of
def _schedule_but(
    passes: Callable[[int, int, int], int] = lambda b, g, each: math.ceil(b / (g * each)),
    epoch: Callable[[int, int, int, int], int] = lambda b, g, each, pairs: pairs // b,
    warmup: Callable[[int, int, int, int, int], float] = lambda b, g, each, pairs, w: w * b / pairs,
) -> Callable:
    return lambda batch_size, gpus, per_gpu, pairs, warmup_steps: (
        passes(batch_size, gpus, per_gpu),
        epoch(batch_size, gpus, per_gpu, pairs),
        float(warmup(batch_size, gpus, per_gpu, pairs, warmup_steps)),
    )


def _schedule_rules(case: Case, got: Any, expected: tuple[int, int, float]) -> str | None:
    if not isinstance(got, tuple | list) or len(got) != 3:
        return None
    told = (
        "passes of a step: batch_size examples, gpus * per_gpu in each pass, rounded up",
        "steps of an epoch: pairs // batch_size",
        "epochs of the warm-up: warmup_steps * batch_size examples, divided by pairs, not rounded",
    )
    wrong = (words for words, a, b in zip(told, got, expected, strict=True) if not equal(a, b, 1e-6))
    return f"The {next(wrong)}."


batch_schedule = Check(
    "batch_schedule",
    schedule_of,
    _schedule_cases,
    "As many passes as the GPUs need for the batch, whole batches in an epoch, and the warm-up in pairs read.",
    {
        "A GPU's examples are forgotten: all GPUs together take gpus * per_gpu in a pass.": (
            _schedule_but(lambda b, g, each: math.ceil(b / g))
        ),
        "The number of GPUs is forgotten: all of them take examples in each pass.": (
            _schedule_but(lambda b, g, each: math.ceil(b / each))
        ),
        "Passes are rounded down: what is left over needs a pass, too, and a step has at least one.": (
            _schedule_but(lambda b, g, each: b // (g * each))
        ),
        "Passes are rounded down: what is left over needs a pass, too.": (
            _schedule_but(lambda b, g, each: max(1, b // (g * each)))
        ),
        "One pass too many: where the batch fits, nothing is accumulated, and there is one pass.": (
            _schedule_but(lambda b, g, each: b // (g * each) + 1)
        ),
        "The batch is the batch of all GPUs already: an epoch has pairs // batch_size steps.": (
            _schedule_but(
                epoch=lambda b, g, each, pairs: pairs // (b * g), warmup=lambda b, g, each, pairs, w: w * b * g / pairs
            )
        ),
        "The batch is the batch of all GPUs already: the warm-up reads warmup_steps * batch_size pairs.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w * b * g / pairs)
        ),
        "An epoch is rounded up: its last, smaller batch is left out.": (
            _schedule_but(epoch=lambda b, g, each, pairs: math.ceil(pairs / b))
        ),
        "An epoch is rounded to the nearest number of steps: its last, smaller batch is left out, so round down.": (
            _schedule_but(epoch=lambda b, g, each, pairs: int(pairs / b + 0.5))
        ),
        "A step reads batch_size examples, however many passes it takes: an epoch is pairs // batch_size steps.": (
            _schedule_but(epoch=lambda b, g, each, pairs: pairs // (g * each))
        ),
        "The last pass of a step may be smaller: a step reads batch_size examples, not passes * gpus * per_gpu.": (
            _schedule_but(epoch=lambda b, g, each, pairs: pairs // (math.ceil(b / (g * each)) * g * each))
        ),
        "The warm-up is given in steps: each of them reads batch_size pairs.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w / pairs)
        ),
        "The epochs of the warm-up are upside down: pairs read, divided by pairs of an epoch.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: pairs / (w * b) if w else 0.0)
        ),
        "A step reads batch_size examples, not those of one pass: the warm-up reads warmup_steps * batch_size pairs.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w * g * each / pairs)
        ),
        "A step reads batch_size examples, not those of one GPU: the warm-up reads warmup_steps * batch_size pairs.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w * each / pairs)
        ),
        "The epochs of the warm-up are upside down, and steps of an epoch are rounded: warmup_steps * batch_size / "
        "pairs.": _schedule_but(warmup=lambda b, g, each, pairs, w: pairs // b / w if w else 0.0),
        "The epochs of the warm-up are rounded: half an epoch is 0.5.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w * b // pairs)
        ),
        "Pairs that the warm-up reads are returned: divide by those of an epoch.": (
            _schedule_but(warmup=lambda b, g, each, pairs, w: w * b)
        ),
    },
    also_right=(_by_whole_steps,),
    rules=(_schedule_rules,),
    parts=("passes", "steps of an epoch", "epochs of the warm-up"),
    tolerance=1e-6,
)
