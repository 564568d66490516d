"""Arguments that are not used, places that read others than they should, what a change of an argument keeps."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.changes import as_scaled_by
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.dependence import broken_symmetry, unused_arguments, wrong_places
from blip2_lab.teaching.checks.exercise import Case

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def shares(x, temperature=1.0):
    return (x / temperature).softmax(dim=-1)


def run(function):
    try:
        return function(X, 0.5)
    except RuntimeError as error:
        return error


CALLS = [((X, 0.5), {})]
unused = partial(unused_arguments, solution=shares, calls=CALLS, runs=[run])
wrong = partial(wrong_places, solution=shares, calls=CALLS, run=run, at_most=60)


def test_an_argument_that_is_not_used_is_named():
    assert unused(lambda x, temperature: (x / 0.5).softmax(-1)).startswith("`temperature` is not used")
    assert unused(lambda x, temperature: torch.ones(3, 4)).startswith("`x` and `temperature` are not used")
    assert unused(lambda x, temperature: x + temperature) == ""
    assert unused(lambda x, *others: x) == ""  # it has no such argument: nothing is told of it


def test_an_argument_that_is_read_but_has_no_effect_is_not_called_unused():
    told = "`temperature` makes no difference: with another value your answer stays the same."
    assert unused(lambda x, temperature: x.softmax(-1) if temperature else x.softmax(-1)) == told


def test_a_number_that_rounding_hides_is_used():
    price = lambda n: n / 1000  # noqa: E731
    asked = dict(solution=price, calls=[((3,), {})], runs=[lambda function: function(3)])
    assert unused_arguments(lambda n: n // 1000, **asked) == ""
    assert unused_arguments(lambda n: 0, **asked).startswith("`n` is not used")
    shared = dict(solution=lambda n: 5 / n, calls=[((9,), {})], runs=[lambda function: function(9)])
    assert unused_arguments(lambda n: 5 // n, **shared) == ""


def test_no_list_of_millions_is_asked_for():
    sizes = []

    def answer(n):
        sizes.append(n)
        return [0] * n

    asked = dict(solution=lambda n: list(range(n)), calls=[((5,), {})], runs=[lambda function: function(5)])
    assert unused_arguments(answer, **asked) == "" and max(sizes) < 1000


def test_a_place_that_reads_others_is_named():
    message = wrong(lambda x, temperature: (x / temperature).softmax(dim=0))
    assert "along dimension 0 of your answer depends on place 0 along dimension 0 of `x`" in message
    assert wrong(lambda x, temperature: (x / temperature).softmax(dim=-1) ** 2) == ""


def test_a_place_that_is_not_read_is_named():
    assert wrong(lambda x, temperature: shares(x[:, :3].repeat(1, 2)[:, :4], temperature)) == (
        "Here your answer does not depend on place 3 along dimension 1 of `x`, and it should."
    )


def test_what_a_change_keeps_is_told_both_ways():
    told = partial(broken_symmetry, calls=CALLS, run=run, tolerance=1e-4)
    normalized = lambda x, temperature: (x / temperature).abs() / x.abs().sum(-1, keepdim=True)  # noqa: E731
    assert told(normalized, shares) == "If `x` is doubled, your answer stays the same, and the right one does not."
    assert "the right answer is doubled, too, and yours does not" in told(lambda x, t: x**3, lambda x, t: 2 * x)
    assert "is doubled" not in told(lambda x, t: x**3, lambda x, t: torch.zeros(3, 4))  # 0 also stays the same
    assert told(shares, shares) == ""


def test_the_size_that_is_a_factor_is_named():
    calls = [((torch.ones(n, 5), 0.1 * n), {}) for n in (2, 3, 4)]
    right = [x.sum(dim=0) for (x, _), _ in calls]
    divided = [value / n for value, n in zip(right, (2, 3, 4), strict=True)]
    assert as_scaled_by(divided, right, shares, calls) == (
        "Yours is the right answer divided by the size of `x` along dimension 0."
    )
    times = [value * 0.1 * n for value, n in zip(right, (2, 3, 4), strict=True)]
    assert as_scaled_by(times, right, shares, calls) == "Yours is the right answer multiplied with `temperature`."
    assert as_scaled_by([2 * value for value in right], right, shares, calls) is None  # no argument: a constant


def squared(x):
    return x.square().sum(dim=1)


check = Check(
    "squared",
    squared,
    lambda: [Case("2 x 2", (X[:2, :2],)), Case("3 x 4", (X,))],
    "Squared.",
    {"Sum of all.": torch.sum},
)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x[:, 0] ** 2 + 0.3 * x[:, 0] ** 4, "does not depend on place 1 along dimension 1 of `x`"),
        (lambda x: x.exp().sum(1) + x.exp().sum().log(), "depends on place 0 along dimension 0 of `x`"),
        (lambda x: torch.tensor([1.0, 2.0, 3.0])[: len(x)], "`x` is not used"),
    ],
)
def test_a_check_tells_them_where_no_mistake_is_known(answer, said):
    assert said in check(partial(answer)).message  # without a source: no step of it can be told


def test_a_constant_in_the_place_of_arguments_is_named():
    def paper(optim, step):
        return 1e-4 * min(1.0, (step + 1) / 2000)

    assert "`optim.lr`, `optim.warmup_steps`, `optim.steps` and `optim.min_lr` are not used" in (
        checks.learning_rate(paper).message
    )
