"""Does the loss still go down? What stops a run, and which checkpoint was the last good one.

What is unusual about it:

* NaN is not the only way to diverge: a loss may climb back to where it began and stay there for days. A harder lesson
  (training/tasks/pretraining.py) lets it climb, too, but not for long: it is given some steps to come down.
* A checkpoint that was written while the loss climbed is not a good one, and is not recommended.

Notebook: 08.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


class Diverged(FloatingPointError):
    """A loss or a gradient is no number any more, or the loss climbs; the message says where, and what to try."""


@dataclass
class LossMonitor:
    """Does the loss climb? Means over about `SPAN` steps: where it began, the best, the latest. Part of a checkpoint.

    `good_step` is the last checkpoint at which the loss was near its best.
    """

    SPAN: ClassVar[int] = 20
    PATIENCE: ClassVar[int] = 60

    steps: int = 0
    first: float = 0.0
    best: float = math.inf
    recent: float = 0.0
    steps_back: int = 0
    good_step: int = 0

    def add(self, loss: float) -> None:
        """Note a step's loss. Raises Diverged when it is twice what it was in the beginning, or when it has been back
        there for `PATIENCE` steps after it had fallen to half."""
        self.steps += 1
        self.recent += (loss - self.recent) / min(self.steps, self.SPAN)
        if self.steps <= self.SPAN:
            self.first = self.recent
            return
        self.best = min(self.best, self.recent)
        back = self.best < self.first / 2 and self.recent > 0.95 * self.first
        self.steps_back = self.steps_back + 1 if back else 0
        if self.first > 0 and (self.steps_back > self.PATIENCE or self.recent > 2 * self.first):
            raise Diverged(f"the loss climbed to {self.recent:.4g} (it began at {self.first:.4g})")

    def mark_checkpoint(self, step: int) -> None:
        """A checkpoint of this step is written."""
        if self.steps <= self.SPAN or self.recent <= self.best + (self.first - self.best) / 4:
            self.good_step = step
