"""Detect divergence: when to stop a run, and which checkpoint was the last good one.

`LossMonitor.add` is called with the loss of each step.

Notes:

* A loss can diverge without becoming NaN: it rises to its initial value and stays there. A change of the curriculum
  (training/tasks/pretraining.py) raises the loss for a short time, so a run stops only after `PATIENCE` steps.
* A checkpoint written while the loss was rising is not recommended to resume from.

Notebook: 08.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


class Diverged(FloatingPointError):
    """A loss or a gradient is not finite, or the loss rose; the message says at which step, and what to try."""


@dataclass
class LossMonitor:
    """Running means of the loss over about `SPAN` steps: `first`, `best` and `recent`. Saved in each checkpoint.

    `good_step` is the step of the last checkpoint at which the loss was near its best.
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
        """Add the loss of a step. Raises Diverged if the mean is above twice its initial value, or if it fell to half
        of the initial value and has been back there for `PATIENCE` steps."""
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
        """Record that a checkpoint of this step is written."""
        if self.steps <= self.SPAN or self.recent <= self.best + (self.first - self.best) / 4:
            self.good_step = step
