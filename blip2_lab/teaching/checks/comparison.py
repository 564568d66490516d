"""Comparing a student's value with the library's, and naming differences that occur in every subject.

`equal` decides; `diagnose` names differences that occur in every subject: a turned sign, a factor, a transposed
matrix, swapped parts, an answer that ignores its input; `in_words.describe_difference` names the rest.

Notes:

* A value may have another style than the library's: a list for a tuple, numpy's numbers, a tensor of one number for a
  float. It may not have another kind: whole numbers where the library has whole numbers, int64 where it has int64.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LARGEST = 10**300  #: whole numbers beyond it count as infinite
NEARLY = 0.02  #: a share of the largest number: less is no other formula, but another precision

# --- Equal ----------------------------------------------------------------------------------------------------------


def equal(got: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Equal shapes and kinds and close values; tuples, lists, dicts, dataclasses and modules part by part."""
    if isinstance(expected, Tensor):
        return isinstance(got, Tensor) and _equal_tensors(got, expected, tolerance)
    if isinstance(expected, tuple | list):
        parts = parts_of(got)
        return (
            parts is not None
            and len(parts) == len(expected)
            and all(equal(x, y, tolerance) for x, y in zip(parts, expected, strict=True))
        )
    if isinstance(expected, dict):
        same_keys = isinstance(got, dict) and got.keys() == expected.keys()
        return same_keys and all(equal(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, np.ndarray):
        return isinstance(got, np.ndarray) and np.array_equal(got, expected)
    if isinstance(expected, BaseException):
        return type(got) is type(expected)
    if isinstance(expected, torch.Generator):
        return True  # its state changes with use
    if isinstance(expected, nn.Module):
        return isinstance(got, nn.Module) and equal(dict(got.state_dict()), dict(expected.state_dict()), tolerance)
    if is_dataclass(expected):
        return type(got) is type(expected) and all(
            equal(getattr(got, field.name), getattr(expected, field.name), tolerance) for field in fields(expected)
        )
    number = plain_number(got)
    if isinstance(expected, bool):
        return isinstance(number, bool) and number == expected
    if isinstance(expected, int):
        return isinstance(number, int) and not isinstance(number, bool) and number == expected
    if isinstance(expected, float):
        return isinstance(number, int | float) and _close(float(number), expected, tolerance)
    return type(got) is type(expected) and bool(got == expected)


def _equal_tensors(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    if got.shape != expected.shape or got.is_complex() or got.device.type == "meta" or got.layout != torch.strided:
        return False
    if kind_of(got) != kind_of(expected):
        return False
    a, b = (tensor.detach().cpu().double() for tensor in (got, expected))
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def kind_of(tensor: Tensor) -> str:
    """Any floating dtype is "float"; bool and each integer dtype stand for themselves."""
    return "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


def _close(a: float, b: float, tolerance: float) -> bool:
    near = math.isfinite(b) and abs(a - b) <= tolerance * max(1.0, abs(b))
    return a == b or near or (math.isnan(a) and math.isnan(b))


def plain_number(value: Any) -> Any:
    """numpy's numbers and tensors of one number without dimensions as Python's; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0 and value.device.type != "meta"):
        return value.item()
    if isinstance(value, int) and abs(value) > LARGEST:
        return math.inf  # no float holds it
    return value


def parts_of(value: Any) -> list | None:
    """The parts of whatever can stand for a tuple or a list, or None."""
    if isinstance(value, tuple | list | range):
        return list(value)
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return list(value)
    return None


# --- Differences of every subject -----------------------------------------------------------------------------------


def diagnose(got: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-4) -> str | None:
    """The name of a difference that holds in every case, or None. got and expected: one value for each case."""
    if any(isinstance(value, BaseException) for value in (*got, *expected)):
        return None
    if all(isinstance(value, tuple) for value in expected):
        return _swapped_parts(got, expected, tolerance)
    if all(isinstance(value, dict) and not is_promises(value) for value in expected):
        if any(not isinstance(a, dict) or a.keys() != b.keys() for a, b in zip(got, expected, strict=True)):
            return None
        rows = [_numbers_of(a, b) for a, b in zip(got, expected, strict=True)]
        if exchanged := _exchanged_keys(got, expected):
            return exchanged
        got, expected = [[row[i] for row in rows] for i in (0, 1)]
    if any(isinstance(a, Tensor) != isinstance(b, Tensor) for a, b in zip(got, expected, strict=True)):
        return None
    pairs = [(_as_tensor(a), _as_tensor(b)) for a, b in zip(got, expected, strict=True)]
    if any(a is None or b is None or kind_of(b) != "float" or kind_of(a) == "bool" for a, b in pairs):
        return None
    pairs = [(a.detach().cpu().double(), b.detach().cpu().double()) for a, b in pairs]
    if all(_same(a, b, tolerance) for a, b in pairs):
        return None  # right but for its kind
    for message, change in _CHANGES.items():
        if all(_same(change(a), b, tolerance) for a, b in pairs):
            return message
    if all(_same(a, b.softmax(-1) if b.ndim else b, tolerance) for a, b in pairs) and any(b.ndim for _, b in pairs):
        return "There is a softmax too many: yours is the softmax of the right answer."
    if any(a.shape != b.shape for a, b in pairs):
        return None
    a, b = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    factor = _factor_or_offset(a, b, tolerance)
    return factor or (None if isinstance(expected[0], int) else _multiples(pairs, tolerance))


def common_to_all(got: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-4) -> str | None:
    """What all wrong numbers have in common where no change of the right ones explains them, or None: they are nearly
    right, in other places, or right but for a factor and an added amount, of all numbers or of each row."""
    if not all(isinstance(a, Tensor) and isinstance(b, Tensor) for a, b in zip(got, expected, strict=True)):
        return None
    usable = all(a.shape == b.shape and kind_of(a) == kind_of(b) == "float" for a, b in zip(got, expected, strict=True))
    if not usable or any(value.device.type == "meta" for value in got):
        return None
    pairs = [(a.detach().cpu().double(), b.detach().cpu().double()) for a, b in zip(got, expected, strict=True)]
    found = (_nearly(got, pairs), _other_places(pairs, tolerance), _on_a_line(pairs, tolerance))
    return next(filter(None, found), None) or _each_its_own(pairs, tolerance)


def of_one_form(got: Any, expected: Any) -> bool:
    """Whether a value has the shape, the kind and the number of parts of another one."""
    if isinstance(expected, Tensor):
        alike = isinstance(got, Tensor) and got.shape == expected.shape and kind_of(got) == kind_of(expected)
        return alike and got.device.type != "meta"
    if isinstance(expected, tuple | list):
        parts = parts_of(got)
        return parts is not None and len(parts) == len(expected) and all(map(of_one_form, parts, expected))
    if isinstance(expected, bool | int | float):
        return isinstance(plain_number(got), int | float)
    return type(got) is type(expected)


def is_promises(value: Any) -> bool:
    """Whether a value is a dict of observations, not of numbers."""
    return isinstance(value, dict) and _numbers_of(value, value)[0] is None


def _numbers_of(got: dict, expected: dict) -> tuple[Tensor | None, Tensor | None]:
    """Both dicts' numbers, in the same order; None where something else than numbers is in them."""
    found = []
    for value in (got, expected):
        parts = [_as_tensor(value[key]) for key in expected]
        usable = all(part is not None and part.ndim == 0 and part.dtype != torch.bool for part in parts)
        found.append(torch.stack([part.double() for part in parts]) if usable and parts else None)
    return found[0], found[1]


def has_its_parts(got: Sequence[Any], wrong: Sequence[Any], expected: Sequence[Any], tolerance: float) -> bool:
    """Whether the parts of the answer that a mistake changes, the first wrong one among them, are as it makes them."""
    rows = [[parts_of(value) for value in values] for values in (got, wrong, expected)]
    if not isinstance(expected[0], tuple) or any(parts is None for row in rows for parts in row):
        return False
    size = len(expected[0])
    if any(len(parts) != size for row in rows for parts in row):
        return False

    def alike(one: list, other: list, part: int) -> bool:
        return all(equal(a[part], b[part], tolerance) for a, b in zip(one, other, strict=True))

    changed = [part for part in range(size) if not alike(rows[1], rows[2], part)]
    wrong_ones = [part for part in range(size) if not alike(rows[0], rows[2], part)]
    first_is_explained = bool(changed) and wrong_ones[0] in changed
    return first_is_explained and all(alike(rows[0], rows[1], part) for part in changed)


def has_nan(value: Any) -> bool:
    """Whether a tensor has a number in it that is none."""
    return isinstance(value, Tensor) and bool(value.isnan().any())


def _exchanged_keys(got: Sequence[dict], expected: Sequence[dict]) -> str | None:
    """Two keys whose numbers are exchanged in every case, all others right."""
    for one, other in itertools.combinations(expected[0], 2):
        turned = [{**value, one: value[other], other: value[one]} for value in got]
        if all(equal(a, b) for a, b in zip(turned, expected, strict=True)):
            return f"`{one}` and `{other}` are exchanged."
    return None


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def _as_tensor(value: Any) -> Tensor | None:
    """A float or a tensor as a tensor, or None."""
    value = plain_number(value)
    if isinstance(value, Tensor):
        return None if value.is_complex() or value.device.type == "meta" else value
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return torch.tensor(float(value), dtype=torch.float64)


def _log_of_positive(x: Tensor) -> Tensor:
    return x.clamp(min=0).log()


_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "The sign is turned: yours is minus the right answer.": lambda x: -x,
    "Those are logarithms: yours is the logarithm of the right answer.": torch.exp,
    "There is an exp too many: yours is e to the power of the right answer.": _log_of_positive,
    "A square root is missing: yours is the square of the right answer.": lambda x: x.clamp(min=0).sqrt(),
    "There is a square root too many.": lambda x: x.square().copysign(x),
    "Upside down: yours is 1 divided by the right answer.": lambda x: 1 / x,
    "A softmax over the last dimension is missing.": lambda x: x.softmax(-1) if x.ndim else x,
    "The last two dimensions are exchanged (transposed).": lambda x: x.mT if x.ndim >= 2 else x,
    "The order is turned round: the last comes first.": lambda x: x.flip(0) if x.ndim else x,
    "A dimension of size 1 too many or too few.": torch.squeeze,
}


def too_much_or_too_little(got: Sequence[Any], expected: Sequence[Any], tolerance: float) -> str | None:
    """Along which dimension the answers go on in front of, or behind, the right ones, or stop before them, or None."""
    both = list(zip(got, expected, strict=True))
    if not all(isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim == b.ndim for a, b in both):
        return None
    if any(kind_of(a) != kind_of(b) or a.is_complex() or a.device.type == "meta" for a, b in both):
        return None
    for dim in range(expected[0].ndim):
        more = [a.shape[dim] - b.shape[dim] for a, b in both]
        if not any(more) or min(more) < 0 < max(more):
            continue
        pairs = both if max(more) > 0 else [(b, a) for a, b in both]  # the long one first
        sides = {"end": [0] * len(pairs), "front": [a.shape[dim] - b.shape[dim] for a, b in pairs]}
        for side, starts in sides.items():
            parts = [a.narrow(dim, start, b.shape[dim]) for (a, b), start in zip(pairs, starts, strict=True)]
            if all(equal(part, b, tolerance) for part, (_, b) in zip(parts, pairs, strict=True)):
                count = next(abs(n) for n in more if n)
                many = "too many" if max(more) > 0 else "missing"
                are = "is" if count == 1 else "are"
                return f"What is there is right, but along dimension {dim} {count} {are} {many}, at the {side}."
    return None


def _factor_or_offset(a: Tensor, b: Tensor, tolerance: float) -> str | None:
    if len(a) < 2 or not (a.isfinite().all() and b.isfinite().all()):
        return None
    where = b.abs() > 1e-3
    if where.sum() >= 2:
        ratios = a[where] / b[where]
        factor = float(ratios.median())
        constant = bool(((ratios - factor).abs() <= max(10 * tolerance, 1e-6) * abs(factor)).all()) and factor != 0
        if constant and abs(factor - 1) > NEARLY and torch.allclose(a, factor * b, rtol=10 * tolerance, atol=tolerance):
            return f"Every number is {factor:.3g} times the right one{_as_unit(factor)}"
    offset = float((a - b).median())
    if abs(offset) > 100 * tolerance and torch.allclose(a, b + offset, rtol=tolerance, atol=10 * tolerance):
        return (
            f"Every number is {abs(offset):.3g} too {'large' if offset > 0 else 'small'}: the same amount everywhere."
        )
    return None


def _as_unit(factor: float) -> str:
    """What a factor may be: another unit, where it is a power of 1,000 or 1,024, else a slip in the formula."""
    for base in (1000, 1024):
        power = round(math.log(abs(factor), base))
        if power and math.isclose(factor, float(base) ** power, rel_tol=1e-3):
            told = f"{base:,}" + (f" to the power of {abs(power)}" if abs(power) > 1 else "")
            return f": it is {'multiplied' if power > 0 else 'divided'} by {told}, so it has another unit."
    return ": a constant factor is wrong or missing."


def _multiples(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """A whole number in each case that the right answer is multiplied with, or divided by: a sum for a mean, say."""
    factors = []
    for a, b in pairs:
        usable = bool(a.isfinite().all() and b.isfinite().all()) and bool((b.abs() > 1e-3).any())
        if not usable:
            return None
        factors.append(float((a * b).sum() / (b * b).sum()))
        if not torch.allclose(a, factors[-1] * b, rtol=10 * tolerance, atol=tolerance):
            return None
    for message, numbers in (
        ("{} times the right answer, case by case: a sum in place of a mean, or of another mean?", factors),
        ("the right answer divided by {}, case by case: a mean too many?", [1 / f if f else 0.0 for f in factors]),
    ):
        whole = [round(n) for n in numbers]
        near = all(64 >= n >= 1 and abs(n - m) < 10 * tolerance * n for n, m in zip(whole, numbers, strict=True))
        if near and max(whole) > 1 and len(set(whole)) > 1:
            return "Yours is " + message.format(", ".join(map(str, whole[:4]))).strip()
    return None


def _other_places(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """The right numbers in another order, in every case: by a reshape or a transposition, say."""
    if not all(_same(a.flatten().sort().values, b.flatten().sort().values, tolerance) for a, b in pairs):
        return None
    a, b = next((a, b) for a, b in reversed(pairs) if not _same(a, b, tolerance))
    place = next(place for place in itertools.product(*map(range, a.shape)) if abs(a[place] - b[place]) > tolerance)
    origin = (b - a[place]).abs().flatten().argmin()
    here, there = (f"[{', '.join(map(str, index))}]" for index in (place, _place_of(int(origin), b.shape)))
    return f"The numbers are the right ones, in other places: {here} of your answer has what belongs to {there}."


def _place_of(number: int, shape: torch.Size) -> tuple[int, ...]:
    return tuple(int(index) for index in torch.unravel_index(torch.tensor(number), shape))


def _on_a_line(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """One factor and one amount that make all numbers of the right ones."""
    a, b = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    if len(b.round(decimals=4).unique()) < 4 or not (a.isfinite().all() and b.isfinite().all()):
        return None  # any line fits two numbers
    factor = float(((a - a.mean()) * (b - b.mean())).sum() / (b - b.mean()).square().sum())
    amount = float(a.mean() - factor * b.mean())
    if abs(factor) < 1e-3 or not torch.allclose(a, factor * b + amount, rtol=tolerance, atol=tolerance):
        return None
    sign = "plus" if amount > 0 else "minus"
    return f"Every number is {factor:.3g} times the right one, {sign} {abs(amount):.3g}."


def _each_its_own(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float) -> str | None:
    """Rows or columns that are right but for a factor, or an added amount, of their own."""
    if any(b.ndim == 0 or not (a.isfinite().all() and b.isfinite().all()) for a, b in pairs):
        return None
    for dim, what in ((-1, "row (along the last dimension)"), (-2, "column (along the last dimension but one)")):
        wrong = [b for a, b in pairs if not _same(a, b, tolerance)]
        if not all(b.ndim >= -dim for _, b in pairs) or min((b.shape[dim] for b in wrong), default=0) < 2:
            continue
        factors = [(a * b).sum(dim, keepdim=True) / (b * b).sum(dim, keepdim=True).clamp(min=1e-12) for a, b in pairs]
        if all(_same(a, factor * b, tolerance) for factor, (a, b) in zip(factors, pairs, strict=True)):
            return (
                f"Each {what} is right but for a factor of its own (the first: {float(factors[0].flatten()[0]):.3g}): "
                "look at what it is multiplied with or divided by."
            )
        amounts = [(a - b).mean(dim, keepdim=True) for a, b in pairs]
        if all(_same(a, amount + b, tolerance) for amount, (a, b) in zip(amounts, pairs, strict=True)):
            return (
                f"Each {what} is right but for an amount of its own that is added to all its numbers (the first: "
                f"{float(amounts[0].flatten()[0]):.3g})."
            )
    return None


def strangest_sum(rows: Tensor) -> str:
    """The number and the sum of the row whose sum is farthest from 1, in words."""
    sums = rows.detach().double().sum(dim=1)
    number = int((sums - 1).abs().argmax())
    return f"row {number} sums to {float(sums[number]):.3f}"


def _nearly(got: Sequence[Any], pairs: Sequence[tuple[Tensor, Tensor]]) -> str | None:
    """The right numbers, but for less than two percent of the largest one of a case."""
    if not all(isinstance(value, Tensor) and value.numel() > 1 for value in got):
        return None
    if not all(a.isfinite().all() and b.isfinite().all() for a, b in pairs):
        return None
    off = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs]
    if max(off) > NEARLY:
        return None
    half = [value.dtype for value in got if value.dtype in (torch.float16, torch.bfloat16)]
    found = (
        f"the answer is {half[0]}" if half else "less precision, rounding, an approximation or a small term left out"
    )
    return f"Nearly right: off by {100 * max(off):.2g} % at most. Look for the cause: {found}."


def _swapped_parts(got: Sequence[Any], expected: Sequence[tuple], tolerance: float) -> str | None:
    parts = [parts_of(value) for value in got]
    size = len(expected[0])
    if size > 4 or any(part is None or len(part) != size for part in parts):
        return None
    for order in itertools.permutations(range(size)):
        turned = [tuple(part[i] for i in order) for part in parts]
        if order != tuple(range(size)) and all(equal(t, e, tolerance) for t, e in zip(turned, expected, strict=True)):
            return "The right parts in another order: exchange what you return."
    return None


def on_one_line(one: Sequence[Any], other: Sequence[Any], third: Sequence[Any], tolerance: float = 1e-4) -> bool:
    """Whether all of `third` lie on the line from `one` to `other`, at the same place: numbers, of each case."""
    rows = [[_as_tensor(value) for value in values] for values in (one, other, third)]
    if any(value is None or value.dtype == torch.bool for row in rows for value in row):
        return False
    if any(a.shape != b.shape or a.shape != c.shape for a, b, c in zip(*rows, strict=True)):
        return False
    start, end, point = (torch.cat([value.detach().cpu().double().flatten() for value in row]) for row in rows)
    way, gone = end - start, point - start
    if not (way.isfinite().all() and gone.isfinite().all()) or (way.abs() > tolerance).sum() < 3:
        return False
    share = float(way @ gone / (way @ way))
    return share > 0.01 and torch.allclose(gone, share * way, rtol=10 * tolerance, atol=tolerance)


def ignores_input(got: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether the answer is the same in all cases, although the right answers differ."""
    return len(got) > 1 and all(equal(value, got[0], 0.0) for value in got[1:]) and not equal(expected[0], expected[-1])
