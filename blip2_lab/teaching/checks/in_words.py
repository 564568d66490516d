"""A student's value and its difference from the library's, in words: kind, shape, dtype, and where the numbers differ.

`describe_difference` is where to begin; comparison.py decides whether there is a difference at all.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blip2_lab.teaching.checks.comparison import diagnose, equal, kind_of, parts_of, plain_number
from blip2_lab.teaching.checks.values import Unsupported


def describe_difference(got: Any, expected: Any, tolerance: float, names: Sequence[str] = ()) -> str:
    """The difference in words, for an answer that makes none of the known mistakes. names: of the answer's parts."""
    if isinstance(expected, tuple | list):
        return _describe_parts(got, expected, tolerance, names)
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor):
            return f"Return a tensor; yours returns {describe(got)}."
        if got.shape != expected.shape:
            shapes = f"The shape is {list(got.shape)} and should be {list(expected.shape)}."
            return shapes + _of_another_shape(got, expected)
        if kind_of(got) != kind_of(expected):
            wanted = "a floating dtype" if kind_of(expected) == "float" else f"{expected.dtype}"
            return f"The dtype is {got.dtype} and should be {wanted}."
        if got.isnan().any() and not expected.isnan().any():
            return "There are NaNs in your answer: a division by zero, or a softmax over nothing but -inf."
        if got.isinf().any() and not expected.isinf().any():
            return "There are infinite numbers in your answer: a division by zero, or a logarithm of 0."
        return f"The numbers differ{_where(got, expected, tolerance)}; the smallest case where they do:"
    number = plain_number(got)
    if isinstance(expected, bool) and not isinstance(number, bool):
        return f"Return True or False; yours returns {describe(got)}."
    if isinstance(expected, int) and (not isinstance(number, int) or isinstance(number, bool)):
        return f"Return a whole number (int); yours returns {describe(got)}."
    if isinstance(expected, float) and not isinstance(number, int | float):
        return f"Return a number; yours returns {describe(got)}."
    if isinstance(expected, float) and math.isnan(number) and not math.isnan(expected):
        return "Your answer is not a number (nan): a division by zero?"
    if isinstance(expected, str) and not isinstance(got, str):
        return f"Return a string; yours returns {describe(got)}."
    if isinstance(expected, int | float):
        return f"It is {describe(got)} and should be {describe(expected)}; the smallest case where it differs:"
    return "Your answer differs; the smallest case where it does:"


def _of_another_shape(got: Tensor, expected: Tensor) -> str:
    """What a tensor of another shape than the right one has in common with it."""
    if got.numel() != expected.numel() or got.device.type == "meta" or got.is_complex():
        return ""
    if sorted(got.shape) == sorted(expected.shape):
        orders = (got.permute(order) for order in itertools.permutations(range(got.ndim)))
        transposed = any(turned.shape == expected.shape and equal(turned, expected) for turned in orders)
        return " It is transposed." if transposed else " Are dimensions exchanged, or is another one cut?"
    a, b = (value.detach().double().flatten() for value in (got, expected))
    if torch.allclose(a, b, equal_nan=True):
        return " The numbers are right, in the right order: dimensions are laid together, or one is cut in two."
    if torch.allclose(a.sort().values, b.sort().values, equal_nan=True):
        return " The numbers are right, but in another order: dimensions are laid together, or cut, in the wrong place."
    return ""


def _where(got: Tensor, expected: Tensor, tolerance: float) -> str:
    """In which places of a tensor, and in which direction: of many wrong numbers what they have in common."""
    if expected.ndim == 0 or expected.dtype == torch.bool:
        return ""
    a, b = (value.detach().cpu().double() for value in (got, expected))
    wrong = ~torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    found = []
    for dim in range(wrong.ndim):
        others = [other for other in range(wrong.ndim) if other != dim]
        places = (wrong.any(dim=others) if others else wrong).nonzero().flatten().tolist()
        if len(places) < wrong.shape[dim]:
            found.append(f"{', '.join(map(str, places[:4]))}{', …' * (len(places) > 4)} along dimension {dim}")
    where = f", only at {' and '.join(found)}" if found else ""
    signs = (a - b)[wrong].sign().unique().tolist()
    too = {(1.0,): ": yours are too large", (-1.0,): ": yours are too small"}.get(tuple(signs), "")
    return where + (too if wrong.sum() > 2 else "")


def _describe_parts(got: Any, expected: Sequence, tolerance: float, names: Sequence[str]) -> str:
    parts = parts_of(got)
    listed = f" ({', '.join(names)})" if names else ""
    if parts is None:
        return f"Return {len(expected)} things{listed}, in this order; yours returns {describe(got)}."
    if len(parts) != len(expected):
        return f"Return {len(expected)} things{listed}; yours returns {len(parts)}."
    for i, (ours, theirs) in enumerate(zip(parts, expected, strict=True)):
        if not equal(ours, theirs, tolerance):
            name = f"`{names[i]}`" if names else f"Part {i + 1} of your answer"
            general = diagnose([ours], [theirs], tolerance) if isinstance(theirs, Tensor) else None
            return f"{name} differs. {general or describe_difference(ours, theirs, tolerance)}"
    return "Your answer differs; the smallest case where it does:"


def describe(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Unsupported):
        return value.words
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a list of {len(value)} things" if isinstance(value, list) else f"{len(value)} things"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str | int | None):
        return f"{value!r}"[:80]
    return f"something of the type {type(value).__name__}"


def format_value(value: Any, indent: str = "  ") -> str:
    """A value in a few lines: small tensors in full, large ones by shape and first numbers."""
    if isinstance(value, Tensor):
        value = value.detach()
        if value.device.type == "meta":
            return f"{indent}a tensor of shape {list(value.shape)} without numbers"
        if value.numel() > 64:
            head = ", ".join(f"{number:.3f}" for number in value.flatten()[:4].double().tolist())
            return f"{indent}shape {list(value.shape)}: {head}, ..."
        if value.ndim == 2:
            return "\n".join(indent + " ".join(_digits(x) for x in row) for row in value.tolist())
        return indent + str(_rounded(value.tolist()))
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return "\n".join(format_value(part, indent) for part in value)
    if isinstance(value, dict):
        return "\n".join(f"{indent}{key}: {part}" for key, part in value.items())
    return f"{indent}{value}"[:2000]


def _digits(x: Any) -> str:
    return f"{x:7.3f}" if isinstance(x, float) else f"{int(x):2d}" if isinstance(x, int) else str(x)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 3) if isinstance(value, float) else value
