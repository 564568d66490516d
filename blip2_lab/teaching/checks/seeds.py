"""Seeds of all generators, for checks of functions that draw, and whether the student's function set one.

Paper: none. Notebooks: 06, 10.
"""

from __future__ import annotations

import random

import numpy as np
import torch

_UNUSUAL = 1_000_003  #: added to every seed, so that no student sets the same one
SEEDED = (
    "torch.manual_seed is called in your function: then whatever is drawn after it repeats itself, batch after batch. "
    "Leave it out; the generator is given."
)


def set_seeds(seed: int) -> None:
    """Seed torch's, Python's and numpy's global generators."""
    torch.manual_seed(_UNUSUAL + seed), random.seed(seed), np.random.seed(seed)


def was_seeded(seed: int) -> bool:
    """Whether torch's global generator was seeded after `set_seeds(seed)`."""
    return torch.initial_seed() != _UNUSUAL + seed
