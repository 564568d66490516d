"""The checks of notebook 12, eight bits: the library passes, every mistake gets its own message."""

from __future__ import annotations

import pytest
import torch
from checks_room import assert_named, assert_sound, checks_of, mistakes_of

from blip2_lab.checks import numbers

CHECKS = checks_of(numbers)


def test_all_three_are_here():
    assert CHECKS.keys() == {"absmax_quantize", "int8_linear", "mixed_linear"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_sound(name):
    assert_sound(CHECKS[name])


@pytest.mark.parametrize(("name", "message"), mistakes_of(CHECKS))
def test_each_mistake_is_named(name, message):
    assert_named(CHECKS[name], CHECKS[name].mistakes[message], message)


def test_students_mistakes():
    def cut_off(x):
        scale = x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-9) / 127
        scale[scale < 1e-8] = 1.0
        return (x / scale).to(torch.int8), scale

    def zero_divides(x):
        scale = x.abs().max(dim=-1, keepdim=True).values / 127
        return torch.nan_to_num(x / scale).round().to(torch.int8), scale

    def overflows(x, weight):
        a, b = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1, keepdim=True) / 127
        sums = (x / a).round().int() @ (weight / b).round().int().T
        return sums.to(torch.int8) * a * b.T

    def only_positive(x, weight):
        apart = x.max(dim=0).values >= 6
        rest = numbers.int8_linear.solution(x[:, ~apart], weight[:, ~apart])
        return rest + x[:, apart] @ weight[:, apart].T

    assert_named(numbers.absmax_quantize, cut_off, "Cut off, not rounded")
    assert_named(numbers.absmax_quantize, zero_divides, "A row of zeros")
    assert_named(numbers.int8_linear, overflows, "The sums are kept in int8")
    assert_named(numbers.mixed_linear, only_positive, "Only positive outliers are found")
