"""Fisher's randomization test of the differences between pairs, for training and evaluation.

`randomization_p` is where to begin; `shows_a_gain` decides with it.

Notes:

* Each picture is compared with itself: its value with the picture, and with another one. Pictures are independent, the
  texts of one picture are not, so a picture is one pair.
* The test is exact: it assumes no distribution, and is right for few pairs, too.

Paper: none. Notebook: none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Of fewer pairs than this, `randomization_p` is never below 0.05, whatever they are.
FEWEST_PAIRS = 6
MIN_GALLERY = 10  #: pictures below which retrieval is not judged: one of few is often found by chance
EXACT_PAIRS = 13  #: up to so many differences, all ways of exchanging are computed


def randomization_p(differences: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> float:
    """Fisher's paired randomization test: the probability that a sum of `differences`, one for each picture, is as far
    from 0 as this one, in either direction, if the two values of each picture were exchanged at random.

    All ways of exchanging for at most `EXACT_PAIRS` differences other than 0, else `draws` of them.
    """
    values = torch.tensor([value for value in differences if value], dtype=torch.float64)
    if not len(values):
        return 1.0
    if len(values) <= EXACT_PAIRS:
        signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * len(values)).view(
            -1, len(values)
        )
        return _as_far(signs @ values, values.sum()).double().mean().item()
    generator, found = torch.Generator().manual_seed(seed), 1  # 1: as they are is one way, too
    for _ in range(0, draws, 1000):
        signs = torch.randint(2, (1000, len(values)), generator=generator).double() * 2 - 1
        found += int(_as_far(signs @ values, values.sum()).sum())
    return found / (draws + 1)


def shows_a_gain(value: float, p: float, pairs: int) -> bool | None:
    """Whether a mean difference `value` with the p-value `p` is a gain: above 0, and significant at 5 %. None for so
    few pairs that none could be."""
    return None if pairs < FEWEST_PAIRS else value > 0 and p < 0.05


def _as_far(sums: Tensor, observed: Tensor) -> Tensor:
    """bool: whether each sum is as far from 0 as the observed one; equal ones may differ by rounding."""
    return sums.abs() >= observed.abs() * (1 - 1e-9)
