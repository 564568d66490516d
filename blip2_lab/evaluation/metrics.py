"""Metrics as pure functions: predictions and truth in, numbers out.

Notes:

* No function here depends on a model, a data set or a file; `evaluation/scenes.py` applies them.
* A share is reported with its 95 % confidence interval (Wilson's), because the number of scenes is finite. Where
  pictures have several texts, pictures are drawn with replacement instead (`bootstrap_interval`).
* Whether a difference is more than chance is decided by `common/significance.py`, which is exact for a few pictures.
  The bootstrap is not: of two pictures that differ in one direction, every sample does.

Paper: section 4 (Tables 1 to 6). Notebook: 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
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
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return hits_at(scores, own, k).float().mean().item()


def hits_at(scores: Tensor, right: Tensor, k: int) -> Tensor:
    """scores [R, C], right bool[R, C] -> bool[R]: has the row a right column among its `k` best?

    A tie with a wrong column counts as a miss.
    """
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~right).sum(dim=1) < k


def chance_recall(columns: int, right: int, k: int) -> float:
    """The probability that `k` columns drawn at random contain one of `right` columns."""
    return 1 - math.comb(columns - right, k) / math.comb(columns, k) if k < columns else float(right > 0)


Corners = tuple[float, float, float, float]  #: left, top, right, bottom


def box_iou(one: Corners, other: Corners) -> float:
    """The intersection of two boxes over their union; 0 where both are empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return both / (areas - both) if areas > both else 0.0


def accuracy_at_iou(predicted: Sequence[Corners], true: Sequence[Corners], threshold: float = 0.5) -> float:
    """Acc@IoU, the measure of referring expressions (RefCOCOg): the share of boxes with an IoU >= `threshold`."""
    return accuracy([box_iou(p, t) >= threshold for p, t in zip(predicted, true, strict=True)])


def middle_95_percent(values: Tensor) -> tuple[float, float]:
    """From the quantile 0.025 to the quantile 0.975 of `values` [R]: the interval that R resamples give."""
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def bootstrap_interval(
    sums: Sequence[float], counts: Sequence[int] | None = None, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of sum(sums) / sum(counts), by drawing pictures with replacement.

    `sums`: of each picture, over its `counts` texts; without counts each picture has one.
    """
    if not sums:
        raise ValueError("There is no picture to draw: pass at least one.")
    values = torch.tensor(sums, dtype=torch.float64)
    weights = torch.ones_like(values) if counts is None else torch.tensor(counts, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(resamples):
        drawn = torch.randint(len(values), (len(values),), generator=generator)
        means.append(values[drawn].sum() / weights[drawn].sum())
    return middle_95_percent(torch.stack(means))


def paired_bootstrap(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> tuple[float, float]:
    """The 95 % interval of accuracy(one) - accuracy(other), by drawing scenes with replacement.

    one, other   bool[Q]: the hits of two models on the same questions, or their means over several runs
    scenes       int[Q]: the scene of each question, from 0 to S - 1
    drawn        int[R, S]: R times S scenes, drawn with replacement
    """
    size = drawn.shape[1]
    gained = torch.zeros(size, dtype=torch.float64).index_add(0, scenes, one.double() - other.double())
    asked = torch.bincount(scenes, minlength=size)
    return middle_95_percent(gained[drawn].sum(dim=1) / asked[drawn].sum(dim=1))


Sums = tuple[Tensor, Tensor]  #: of each scene [S]: numerator and denominator of a ratio of sums, such as F1


def paired_ratio_bootstrap(one: Sums, other: Sums, drawn: Tensor) -> tuple[float, float]:
    """The 95 % interval of the difference of two ratios of sums over scenes, by drawing scenes with replacement.

    drawn   int[R, S]: R times S scenes, drawn with replacement; both ratios are of the same scenes
    """
    ratios = [over.double()[drawn].sum(dim=1) / under.double()[drawn].sum(dim=1) for over, under in (one, other)]
    return middle_95_percent(ratios[0] - ratios[1])
