"""Eight bits instead of thirty-two: what `quantize="int8"` does to a matrix, in the open.

What is unusual about it:

* bitsandbytes does this in fused kernels (huggingface.py hands it the language model); here are the same sums in a few
  lines of torch, to be read and measured. No model is run with them.
* A scale for each row of the input and for each row of the weight, never one for the whole matrix: a single large
  number spoils only its own row.
* But outliers of a language model stand in *columns* (a few features are large for every token), so they spoil every
  row. LLM.int8() multiplies those few columns in full precision and the rest in 8 bits.

Matrices are torch's: `linear(x, weight)` is x [..., D] times weight [O, D] transposed.

Paper: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), section 2 (absmax), 3.1 (row by row), 3.2 (outliers).
Notebook: 12.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The largest int8 value used; -128 has no counterpart and stays unused.
LARGEST = 127
#: From which size on a feature is an outlier (LLM.int8(), section 3.2: alpha = 6.0).
THRESHOLD = 6.0


def absmax_quantize(x: Tensor, dim: int | None = -1, top: int = LARGEST) -> tuple[Tensor, Tensor]:
    """x [...] -> values int8 [...] in -top .. top, and scale with x ~ values * scale.

    The largest |x| along `dim` becomes `top`. dim=-1: one scale for each row, [..., 1]; None: one for the whole tensor.
    A row of zeros has scale 1, and stays zeros. Fewer bits than eight: top = 2 ** (bits - 1) - 1.
    """
    largest = x.abs().max() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    scale = torch.where(largest > 0, largest / top, torch.ones_like(largest))
    return (x / scale).round().clamp(-top, top).to(torch.int8), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """int8 values and their scale -> an approximation of what was quantized, off by half a scale at most."""
    return values.to(scale.dtype) * scale


def int8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, D] and weight [O, D] -> x @ weight.T [M, O], multiplied in 8 bits and summed in 32."""
    x_values, x_scale = absmax_quantize(x)
    weight_values, weight_scale = absmax_quantize(weight)
    return (x_values.int() @ weight_values.int().T) * x_scale * weight_scale.T


def outlier_columns(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """x [..., D] -> bool[D]: features that are at least `threshold` large for some row."""
    return (x.abs() >= threshold).flatten(0, -2).any(dim=0)


def mixed_linear(x: Tensor, weight: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """LLM.int8(): the outlier columns of x [M, D] in full precision, the others in 8 bits -> x @ weight.T [M, O]."""
    outlier = outlier_columns(x, threshold)
    in_full = x[:, outlier] @ weight[:, outlier].T
    return in_full if outlier.all() else in_full + int8_linear(x[:, ~outlier], weight[:, ~outlier])
