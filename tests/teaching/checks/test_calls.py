"""What modules among the arguments are given: recorded, named by where it comes from, compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blip2_lab.teaching.checks.calls import compare_calls, modules_among, recorded
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.first, self.second = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)


def right(block, x):
    x = x + block.first(block.norm(x))
    return block.second(x[:, :2])


def no_norm(block, x):
    return block.second((x + block.first(x))[:, :2])


def no_residual(block, x):
    return block.second(block.first(block.norm(x))[:, :2])


def last_rows(block, x):
    return block.second((x + block.first(block.norm(x)))[:, 2:])


def twice(block, x):
    return block.second((x + block.first(block.norm(block.norm(x))))[:, :2])


def cases():
    return [(Block(), torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(n))) for n in range(2)]


def recordings(function):
    found = []
    for block, x in cases():
        arguments = {"block": block, "x": x}
        found.append(recorded(lambda block=block, x=x: function(block, x), modules_among(arguments), arguments))
    return found


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (right, ""),
        (no_norm, "`norm` is never called. `first` gets `x`; it should get what `norm` returned."),
        (no_residual, "`second` gets the first rows of what `first` returned; it should get the first rows of `x` + "),
        (last_rows, "`second` gets the last rows of `x` + the last rows of what `first` returned; it should get"),
        (twice, "`norm` is called 2 times; it should be called once."),
    ],
)
def test_what_a_module_is_given(answer, said):
    message = compare_calls(recordings(answer), recordings(right))
    assert message.startswith(said) and bool(message) == bool(said), message


def test_a_part_given_in_each_of_several_calls_is_not_something_else():
    def row_by_row(block, x):
        return torch.stack([right(block, row[None])[0] + 1 for row in x])

    assert "something else" not in compare_calls(recordings(row_by_row), recordings(right))


def test_only_the_outermost_calls_are_recorded_and_hooks_are_gone():
    block, x = cases()[0]
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
    found = recorded(lambda: nested(x), modules_among({"nested": nested}) | {"all": nested}, {"x": x})
    assert found.counts == {"all": 1}
    assert recorded(lambda: ValueError("no"), modules_among({"block": block}), {"x": x}) is None
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in (*block.modules(), *nested.modules())
    )


def test_a_check_tells_it():
    check = Check("block", right, lambda: [Case(str(n), case) for n, case in enumerate(cases())], "Right.")
    assert check(right).passed
    assert "`norm` is never called" in check(lambda block, x: no_norm(block, x).tanh() * 3).message
