"""Multi-head attention, for the Q-Former's self-attention and for its cross-attention to the image.

`MultiHeadAttention` is where to begin: `keys_values` projects what is attended to, `forward` attends to it.

Notes:

* Keys and values are an argument of `forward`, so the caller can compute them once and use them several times: the
  image's for three objectives, the queries' as the cached prefix of ITG.
* Attention runs in PyTorch's fused kernel. The eager path runs for training on CPU, where it is faster, and while
  `softmax` has forward hooks, so that attention maps can be recorded. Both paths compute the same function.
* The affine part of a LayerNorm in front of keys and values can be folded into their matrices:
  W (g x + b) + c = (W g) x + (W b + c). Where x needs no gradient, none is computed for it.
* Masks are bool, True = may attend. They are converted to additive masks here only.

Paper: section 3.1. Notebook: 02.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Added to masked scores. Finite, as in BERT: a row that may attend to nothing gets uniform weights, not NaN.
MASKED = -10000.0


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of H heads, without residual and LayerNorm.

    `memory_width` is the width of the memory that is attended to: Dq for self-attention (default), Dv for
    cross-attention.
    """

    def __init__(self, width: int, num_heads: int, *, memory_width: int | None = None, dropout: float = 0.0):
        super().__init__()
        if width % num_heads:
            raise ValueError(f"The width ({width}) must be a multiple of the number of attention heads ({num_heads}).")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_width or width, width)
        self.value = nn.Linear(memory_width or width, width)
        self.softmax = nn.Softmax(dim=-1)  # a module, so that it can be hooked
        self.output = nn.Linear(width, width)

    def keys_values(self, memory: Tensor, layer_norm: nn.LayerNorm | None = None) -> tuple[Tensor, Tensor]:
        """memory [B, M, D] -> keys, values, each [B, H, M, D/H].

        layer_norm  given: `memory` is normalized but not scaled and shifted by this LayerNorm yet; its weight and bias
                    are folded into the two matrices.
        """
        if layer_norm is None:
            return self.split(self.key(memory)), self.split(self.value(memory))
        keys = _linear_after_affine(self.key, layer_norm, memory)
        values = _linear_after_affine(self.value, layer_norm, memory)
        return self.split(keys).contiguous(), self.split(values).contiguous()

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, L, D], keys and values [B, H, M, D/H], mask bool[B, 1, L, M] or None (no mask) -> [B, L, D]."""
        context = self.attend(self.split(self.query(x)), keys, values, mask)
        return self.output(context.transpose(1, 2).flatten(2))  # [B, H, L, D/H] -> [B, L, D]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """The kernel: queries [B, H, L, D/H], keys and values [B, H, M, D/H] -> [B, H, L, D/H]."""
        dropout = self.dropout if self.training else 0.0
        bias = None if mask is None else torch.zeros_like(mask, dtype=queries.dtype).masked_fill(~mask, MASKED)
        if self._has_hooks() or (queries.device.type == "cpu" and torch.is_grad_enabled()):
            # On CPU the fused kernel's backward is slow: 45 % of a micro training step, against 10 % for these lines.
            scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-2, -1)  # [B, H, L, M]
            weights = self.softmax(scores if bias is None else scores + bias)
            return F.dropout(weights, dropout) @ values
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropout)

    def split(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, H, L, D/H]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def _has_hooks(self) -> bool:
        return bool(self.softmax._forward_hooks or self.softmax._forward_pre_hooks)


def _linear_after_affine(linear: nn.Linear, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """linear(norm.weight * x + norm.bias), with weight and bias of `norm` folded into the linear layer."""
    if type(linear) is not nn.Linear:  # LoRA computes more than one product: `linear.weight` is not all of it
        return linear(x * norm.weight + norm.bias)
    return F.linear(x, linear.weight * norm.weight, F.linear(norm.bias, linear.weight, linear.bias))
