"""8-bit quantization of a matrix product in plain torch: what `quantize="int8"` does on a GPU.

`absmax_quantize` quantizes a matrix, `int8_linear` multiplies two, `mixed_linear` is LLM.int8() with outliers.

Notes:

* bitsandbytes does this in fused kernels (models/quantize.py); here are the same computations in a few lines, to read
  and to measure. No model uses them.
* Each row of the input and each row of the weight has its own scale, so a large entry affects only its own row.
* Outliers of a language model are in *columns* (a few features are large for every token), so they affect every row.
  LLM.int8() multiplies those columns in full precision and the others in 8 bits.

Matrices are torch's: `linear(x, weight)` is x [..., D] times weight [O, D] transposed.

Paper: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), section 2 (absmax), 3.1 (row by row), 3.2 (outliers).
Notebook: 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The largest int8 value used; -128 has no counterpart and stays unused.
LARGEST = 127
#: A feature with at least this magnitude is an outlier (LLM.int8(), section 3.2: alpha = 6.0).
THRESHOLD = 6.0


def absmax_quantize(x: Tensor, dim: int | None = -1, top: int = LARGEST) -> tuple[Tensor, Tensor]:
    """x [...] -> values int8 [...] in -top .. top, and scale with x ~ values * scale.

    The largest |x| along `dim` becomes `top`. dim=-1: one scale for each row, [..., 1]; None: one for the whole tensor.
    A row of zeros has scale 1 and stays zero. For fewer bits than eight: top = 2 ** (bits - 1) - 1.
    """
    largest = x.abs().max() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    scale = torch.where(largest > 0, largest / top, torch.ones_like(largest))
    return (x / scale).round().clamp(-top, top).to(torch.int8), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """int8 values and their scale -> an approximation of the quantized tensor, with an error of at most scale / 2."""
    return values.to(scale.dtype) * scale


def int8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [M, D] and weight [O, D] -> x @ weight.T [M, O], multiplied in 8 bits and summed in 32."""
    x_values, x_scale = absmax_quantize(x)
    weight_values, weight_scale = absmax_quantize(weight)
    return (x_values.int() @ weight_values.int().T) * x_scale * weight_scale.T


def outlier_columns(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """x [..., D] -> bool[D]: features with a magnitude of at least `threshold` in some row."""
    return (x.abs() >= threshold).flatten(0, -2).any(dim=0)


def mixed_linear(x: Tensor, weight: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """LLM.int8(): the outlier columns of x [M, D] in full precision, the others in 8 bits -> x @ weight.T [M, O]."""
    outlier = outlier_columns(x, threshold)
    in_full = x[:, outlier] @ weight[:, outlier].T
    return in_full if outlier.all() else in_full + int8_linear(x[:, ~outlier], weight[:, ~outlier])
