"""Check that the gradient of an answer reaches what learns, as the library's does.

`gradients_of` computes the gradients, `compare_gradients` says what is wrong with those of a right value.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.errors import text_of

NO_GRADIENT = 1e-6  #: rounding: a key's bias, say, has no gradient, because a softmax does not depend on it


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def gradients_of(value: Any, learns: Mapping[str, Tensor]) -> tuple[dict[str, Tensor | None], str]:
    """The gradient of a fixed weighted sum of the value on each tensor, None where there is none; and an error."""
    total = 0.0
    for i, tensor in enumerate(_tensors(value)):
        if tensor.requires_grad:
            weights = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            total = total + (tensor.double() * weights).sum()
    asking = {name: leaf for name, leaf in learns.items() if leaf.requires_grad}
    found: dict[str, Tensor | None] = dict.fromkeys(learns)
    if isinstance(total, Tensor) and asking:
        try:
            gradients = torch.autograd.grad(total, list(asking.values()), allow_unused=True)
        except Exception as error:  # of the steps that the student's function took
            return found, text_of(error)
        found.update(zip(asking, gradients, strict=True))
    return found, ""


def compare_gradients(
    ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor | None], backward_error: str, no_gradient: str
) -> str | None:
    """What is wrong with the gradients of an answer of the right value, or None."""
    if backward_error:
        return f"The value is right, but its gradient cannot be computed: {backward_error}"
    for name, expected in theirs.items():
        got = ours[name]
        has = got is not None and bool(got.any())
        should = expected is not None and bool((expected.abs() > NO_GRADIENT).any())
        if has and not should and no_gradient:
            return no_gradient
        if should and not has:
            return (
                f"The value is right, but no gradient reaches {name}, so nothing is learned there: look for detach, "
                "no_grad, float(), .item(), .data, numpy or torch.tensor in your function."
            )
        if should and not equal(got, expected, 1e-3):
            return (
                f"The value is right, but only a part of the gradient reaches {name}: some step is cut off by detach, "
                "no_grad, float(), .item(), .data, numpy or torch.tensor."
            )
    return None
