"""Metrics as pure functions: predictions and truth in, numbers out.

Notes:

* No function here depends on a model, a data set or a file; `evaluation/scenes.py` applies them.
* A share is reported with its 95 % confidence interval (Wilson's), because the number of scenes is finite.

Paper: section 4 (Tables 1 to 6). Notebook: 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


def exact_match(prediction: str, answer: str) -> bool:
    """Whether prediction and answer are equal, apart from case, surrounding spaces and a final full stop."""
    return prediction.strip().rstrip(".").strip().lower() == answer.lower()


def accuracy(hits: Sequence[bool]) -> float:
    """The share of hits. Raises ValueError for an empty sequence."""
    if not hits:
        raise ValueError("There is nothing to take the accuracy of: no question was asked.")
    return sum(hits) / len(hits)


def confidence_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share of `count` independent cases; 95 % with the default `z`."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class SetScores:
    """Predicted sets against true sets. `low` and `high`: the 95 % interval of `f1`."""

    f1: float
    low: float
    high: float
    precision: float
    recall: float


def set_scores(predicted: Iterable[set[str]], true: Iterable[set[str]]) -> SetScores:
    """Micro-averaged over pairs of sets; 0 if all sets are empty. The interval linearizes F1, a ratio of two sums over
    independent pairs."""
    pairs = list(zip(predicted, true, strict=True))
    hits, sizes = [2 * len(p & t) for p, t in pairs], [len(p) + len(t) for p, t in pairs]
    both, named, there = sum(hits) / 2, sum(len(p) for p, _ in pairs), sum(len(t) for _, t in pairs)
    f1 = sum(hits) / max(1, sum(sizes))
    deviation = math.sqrt(sum((h - f1 * size) ** 2 for h, size in zip(hits, sizes, strict=True))) / max(1, sum(sizes))
    low, high = max(0.0, f1 - 1.96 * deviation), min(1.0, f1 + 1.96 * deviation)
    return SetScores(f1, low, high, precision=both / max(1, named), recall=both / max(1, there))


def recall_at(scores: Tensor, k: int) -> float:
    """scores [M, M], the true match of row m in column m -> the share of rows that have it among their `k` best.

    A tie with a wrong column counts as a miss, so that a constant score has no recall.
    """
    own = scores.diagonal()[:, None]
    better = (scores >= own).sum(dim=1) - 1
    return (better < k).float().mean().item()
