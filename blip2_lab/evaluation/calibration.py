"""Calibration: how often answers of a probability are right, and a map from the probability to that share.

`fit` is where to begin; `expected_calibration_error` and `reliability` measure what it found.

Notes:

* The confidence of an answer is the product of its words' probabilities: what the chat shows word by word.
* A language model's confidence is about its text. Whether the answer is true of the picture is learned from answers
  that were judged: a logistic regression on the log-odds of the confidence (Platt scaling), two numbers a model.
* The questions that it is fitted on are not those that it is measured on.

Paper: none; Guo et al., "On Calibration of Modern Neural Networks" (2017). Notebook: 12.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from blip2_lab.checkpoints.names import model_path
from blip2_lab.common.files import read_object

FILE = "calibration.json"  #: beside the weights that it was fitted to
BINS = 10
UNSURE = 0.5  #: an answer that is right less often than this is said to be unsure


@dataclass(frozen=True)
class Calibration:
    """How often an answer of a confidence is right: sigmoid(slope * log-odds + offset)."""

    slope: float
    offset: float

    def share_right(self, confidence: float) -> float:
        """The expected share of right answers among those of this confidence, both from 0 to 1."""
        return 1 / (1 + math.exp(-(self.slope * _log_odds(confidence) + self.offset)))

    def is_unsure(self, confidence: float) -> bool:
        """Is an answer of this confidence more often wrong than right?"""
        return self.share_right(confidence) < UNSURE

    def save(self, folder: str | Path) -> Path:
        """Write `calibration.json` into a model's folder."""
        path = Path(folder) / FILE
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def load(name: str | Path) -> Calibration | None:
    """The calibration beside the weights of a model: "micro" or a folder; None where it was never measured."""
    path = model_path(name) / FILE
    if not path.is_file():
        return None
    names = [field.name for field in fields(Calibration)]
    saved = read_object(
        path,
        *names,
        fits=lambda saved: all(isinstance(saved[name], int | float) for name in names),
        remedy="remove this file, and answers are given without a word on how sure they are",
    )
    return Calibration(**{name: saved[name] for name in names})


def fit(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The calibration that makes these verdicts likeliest. Raises ValueError without any."""
    if not right:
        raise ValueError("There are no answers to calibrate on.")
    log_odds = torch.tensor([_log_odds(c) for c in confidences], dtype=torch.float64)
    truth = torch.tensor(right, dtype=torch.float64)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = line[0] * log_odds + line[1]
        # the weak pull keeps the line finite where confidence parts right from wrong, or all answers are of one kind
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth) + 1e-4 * line.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Calibration(*line.tolist())


def calibration_scores(confidences: Sequence[float], right: Sequence[bool], calibration: Calibration | None) -> dict:
    """The calibration error of the raw confidences; with a calibration also that of the expected shares, their bins,
    how many answers are unsure, and the share right of these and of the others (None where there are none)."""
    scores: dict = {"count": len(right), "raw_error": expected_calibration_error(confidences, right)}
    if calibration is None:
        return scores
    expected = [calibration.share_right(c) for c in confidences]
    unsure = [hit for share, hit in zip(expected, right, strict=True) if share < UNSURE]
    sure = [hit for share, hit in zip(expected, right, strict=True) if share >= UNSURE]
    return scores | {
        "error": expected_calibration_error(expected, right),
        "bins": [asdict(found) for found in reliability(expected, right)],
        "unsure": len(unsure) / len(right),
        "right_unsure": sum(unsure) / len(unsure) if unsure else None,
        "right_sure": sum(sure) / len(sure) if sure else None,
    }


@dataclass(frozen=True)
class Bin:
    """Answers of about the same expected share: its mean, the share that was right, and how many they are."""

    expected: float
    right: float
    count: int


def reliability(expected: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Bins of equal width from 0 to 1; empty ones are left out."""
    held: dict[int, list[tuple[float, bool]]] = {}
    for share, hit in zip(expected, right, strict=True):
        held.setdefault(min(int(share * bins), bins - 1), []).append((share, hit))
    return [
        Bin(sum(s for s, _ in found) / len(found), sum(h for _, h in found) / len(found), len(found))
        for _, found in sorted(held.items())
    ]


def expected_calibration_error(expected: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """The mean distance between expected and true share over the bins, each weighted by its answers; NaN for none."""
    found = reliability(expected, right, bins)
    return sum(b.count * abs(b.expected - b.right) for b in found) / len(expected) if found else math.nan


def _log_odds(confidence: float) -> float:
    clipped = min(max(confidence, 1e-6), 1 - 1e-6)
    return math.log(clipped / (1 - clipped))
