"""NF4, the 4-bit number format of QLoRA, in plain torch: what `quantize="nf4"` does to a weight.

`normal_levels` gives the sixteen numbers that four bits stand for, `quantize_blocks` rounds to them, `bits_per_weight`
counts what a weight then costs with its scales.

Notes:

* The weights of a linear layer are roughly normally distributed. The levels are quantiles of the normal distribution,
  so they are used more equally than evenly spaced ones; zero is one of them.
* A scale belongs to a block of 64 weights that follow one another, not to a row.
* Double quantization stores the scales in 8 bits as well, 256 of them with one float32 scale of their own. The
  functions here keep the scales in float32; `bits_per_weight` counts both.
* differs from bitsandbytes: two codes are not packed into one byte.

Paper: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), section 3. Notebook: 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64  #: weights that share a scale
#: The probability of the outermost quantile, which is then scaled to 1: bitsandbytes' value.
OFFSET = 0.9677083


def normal_levels() -> Tensor:
    """The 16 levels of NF4, rising from -1 to 1: seven below zero, zero, and eight above it."""
    above, below = (
        torch.special.ndtri(torch.linspace(OFFSET, 0.5, count, dtype=torch.float64)[:-1]) for count in (9, 8)
    )
    return (torch.cat([-below, torch.zeros(1), above.flip(0)]) / above[0]).float()


def quantize_blocks(x: Tensor, levels: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """x [D], levels [L] -> codes uint8 [D], the numbers of the nearest levels, and scales [D / block].

    Each block is divided by its largest |x|, its scale, before it is rounded. A block of zeros has scale 1.
    """
    blocks = x.reshape(-1, block)
    scale = blocks.abs().amax(dim=1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    distance = (blocks[:, :, None] / scale[:, None, None] - levels).abs()
    return distance.argmin(dim=2).to(torch.uint8).flatten(), scale


def dequantize_blocks(codes: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Codes [D], scales [D / block] and levels [L] -> an approximation of the quantized numbers [D]."""
    return (levels[codes.long()].reshape(len(scale), -1) * scale[:, None]).flatten()


def bits_per_weight(
    bits: int, block: int, scale_bits: int = 32, scales_per_group: int | None = None, group_bits: int = 32
) -> float:
    """Bits that a weight costs on average: its own, and its share of the scales.

    `block` weights share a scale of `scale_bits`. With double quantization, `scales_per_group` scales share a scale of
    their own, of `group_bits`.
    """
    total = bits + scale_bits / block
    return total if scales_per_group is None else total + group_bits / (block * scales_per_group)
