"""Where a calculation leaves the library's: recorded expressions, the first that differs, what a student is told."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.steps import first_difference, steps_of

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def right(x):
    scale = x.abs().amax(dim=-1, keepdim=True)
    return x / scale


def by_the_spread(x):
    spread = x.std(dim=-1, keepdim=True)
    return x / spread


def in_another_style(x):
    rows = []
    for row in x:
        rows.append(row / row.abs().max())
    return torch.stack(rows)


def told(answer):
    ours, theirs = (steps_of(function, lambda made: made(X)) for function in (answer, right))
    return first_difference(ours, theirs, [X])


def test_expressions_are_recorded_in_the_order_in_which_they_are_computed():
    steps = steps_of(right, lambda function: function(X))
    assert [text for text, _, _ in steps] == ["x.abs()", "x.abs().amax(dim=-1, keepdim=True)", "x / scale"]
    assert torch.equal(steps[-1][1], right(X)) and all(own for _, _, own in steps)
    assert steps_of(torch.abs, lambda function: function(X)) == []


def test_the_first_step_that_differs_is_named():
    assert told(by_the_spread).startswith("Your function computes `x.std(dim=-1, keepdim=True)`, which is no step")
    assert told(by_the_spread).endswith("`x.abs().amax(dim=-1, keepdim=True)`.")
    assert told(lambda x: right(x.clone())) == told(in_another_style) == ""


def test_steps_of_helpers_count_but_are_not_the_students():
    from blip2_lab.teaching import int8_by_hand

    def answer(x):
        values, scale = int8_by_hand.absmax_quantize(x)
        return values * scale

    steps = steps_of(answer, lambda function: function(X))
    assert [text for text, _, own in steps if own] == ["int8_by_hand.absmax_quantize(x)", "values * scale"]
    assert any(text == "x.abs()" for text, _, own in steps if not own)


def spread(x):
    scale = x.std(-1, keepdim=True)
    return (x / scale).round().to(torch.int8), scale


def reshaped(features, count):
    patches = features[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    grid = patches.reshape(len(patches), -1, side, side)
    rows = max(n for n in range(1, int(count**0.5) + 1) if count % n == 0)
    return torch.nn.functional.adaptive_avg_pool2d(grid, (rows, count // rows)).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("name", "answer", "expression"),
    [
        ("absmax_quantize", spread, "x.std(-1, keepdim=True)"),
        ("pool_patches", reshaped, "patches.reshape(len(patches), -1, side, side)"),
    ],
)
def test_a_check_tells_it_where_no_mistake_is_known(name, answer, expression):
    message = getattr(checks, name)(answer).message
    assert f"Your function computes `{expression}`, which is no step of the library's" in message
