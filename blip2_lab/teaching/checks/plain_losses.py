"""Cross-entropy in single steps: torch's own is one step, so nothing could be said of what happens inside of it.

`in_steps` is where to begin: it gives the function that steps.py records in the place of one of torch's.

Notes:

* The values are those of torch's function, in float64, so that the logarithm of a small probability is finite.

Paper: none. Notebooks: 05, 07, 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models.masks import IGNORE_INDEX

_USUAL: Mapping[str, Any] = {"label_smoothing": 0.0, "reduction": "mean", "weight": None}


def in_steps(function: Any, options: Mapping[str, Any]) -> Callable | None:
    """The function whose mean is the same, in single steps, if it is called with these options, or None."""
    usual = all(options.get(name, default) == default for name, default in _USUAL.items())
    return cross_entropy if function is F.cross_entropy and usual else None


def classes_last(logits: Tensor, targets: Tensor, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The arguments of torch's function [N,C], [C] or [N,C,T] as `cross_entropy` takes them."""
    classes = min(1, logits.ndim - 1)
    targets = targets.movedim(classes, -1) if targets.is_floating_point() else targets
    return logits.double().movedim(classes, -1), targets, options


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = IGNORE_INDEX, **usual: Any) -> Tensor:
    """logits [..., C]; targets long[...], or shares of all classes [..., C] -> the losses whose mean is taken."""
    probabilities = logits.softmax(dim=-1)
    log_probabilities = probabilities.log()
    if targets.is_floating_point():
        return -(targets * log_probabilities).sum(dim=-1)
    real = targets != ignore_index
    return -log_probabilities[real].gather(-1, targets[real][..., None])
