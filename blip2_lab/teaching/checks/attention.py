"""Checks of notebook 02: attention weights, a cross-attention head, several heads.

The functions here are the steps of `attention.MultiHeadAttention` in a slow and obvious form; a test compares them.

Paper: section 3.1. Notebook: 02.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blip2_lab.models.attention import MASKED
from blip2_lab.teaching.checks.check import Case, Check


def _random(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# --- Attention weights ----------------------------------------------------------------------------------------------


def weights_of(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """queries [L, D], keys [M, D], mask bool[L, M] (True = may attend) -> weights [L, M]; each row sums to 1."""
    scores = queries @ keys.T / math.sqrt(queries.shape[-1])
    if mask is not None:
        scores = scores + torch.zeros_like(scores).masked_fill(~mask, MASKED)
    return scores.softmax(dim=-1)


def _weights_cases() -> list[Case]:
    queries, keys = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mask = torch.tensor([[True, True, False], [True, False, True]])
    big_queries, big_keys = _random((3, 8), (5, 8))
    return [
        Case("2 rows look at 3, D = 2, nothing hidden", (queries, keys, None)),
        Case("the same, with something hidden from each row", (queries, keys, mask)),
        Case("3 rows look at 5, D = 8", (big_queries, big_keys, None)),
    ]


def _softmax_over(dim: int, scale: float = -0.5):
    def wrong(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = queries @ keys.T * queries.shape[-1] ** scale
        return (scores if mask is None else scores.masked_fill(~mask, MASKED)).softmax(dim=dim)

    return wrong


def _masked_after(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    weights = weights_of(queries, keys)
    return weights if mask is None else weights * mask


attention_weights = Check(
    "attention_weights",
    weights_of,
    _weights_cases,
    "Scores are divided by the root of D, what is hidden gets no weight, and every row sums to 1.",
    {
        "The scores are not divided by the root of D: with wide vectors the softmax becomes a choice of one.": (
            _softmax_over(-1, 0.0)
        ),
        "Divided by D, not by its square root: the softmax becomes too flat.": _softmax_over(-1, -1.0),
        "Multiplied by the root of D: divide.": _softmax_over(-1, 0.5),
        "Columns sum to 1 here. Each row shares out its attention: softmax over the last dimension.": _softmax_over(0),
        "The mask comes after the softmax: rows no longer sum to 1, and hidden columns have already taken their share. "
        "Mask the scores.": _masked_after,
        "The mask is ignored.": lambda q, k, mask=None: weights_of(q, k),
        "The mask is upside down: True means `may attend`.": (
            lambda q, k, mask=None: weights_of(q, k, None if mask is None else ~mask)
        ),
        "Those are scores: the softmax is missing.": lambda q, k, mask=None: q @ k.T / math.sqrt(q.shape[-1]),
    },
)

# --- One cross-attention head ---------------------------------------------------------------------------------------


def one_cross_attention_head(
    x: Tensor, image_features: Tensor, to_query: Tensor, to_key: Tensor, to_value: Tensor
) -> Tensor:
    """x [Q, Dq] makes the queries, image_features [N, Dv] the keys and values -> [Q, Dh].

    to_query [Dq, Dh], to_key and to_value [Dv, Dh]: matrices to multiply with from the right.
    """
    weights = weights_of(x @ to_query, image_features @ to_key)
    return weights @ (image_features @ to_value)


def _head_cases() -> list[Case]:
    made = []
    for num_queries, patches, width, image_width, head in ((1, 2, 2, 2, 2), (2, 3, 4, 4, 4), (2, 5, 4, 6, 2)):
        shapes = (num_queries, width), (patches, image_width), (width, head), (image_width, head), (image_width, head)
        description = f"{num_queries} queries of width {width} look at {patches} patches of width {image_width}"
        made.append(Case(description, tuple(_random(*shapes, seed=num_queries + patches))))
    return made


cross_attention_head = Check(
    "cross_attention_head",
    one_cross_attention_head,
    _head_cases,
    "Queries ask, the image gives keys and values; one vector for each query, whatever the number of patches.",
    {
        "Keys and values come from x: that is self-attention, and the image is never read.": (
            lambda x, image, q, k, v: one_cross_attention_head(x, x, q, k, v)
        ),
        "The roles are swapped: here the patches ask and the queries answer, one vector for each patch.": (
            lambda x, image, q, k, v: weights_of(image @ q, x @ k) @ (x @ v)
        ),
        "The keys are used as values, too: values have a matrix of their own.": (
            lambda x, image, q, k, v: one_cross_attention_head(x, image, q, k, k)
        ),
        "The scores are not divided by the root of the head's width.": (
            lambda x, image, q, k, v: ((x @ q) @ (image @ k).T).softmax(-1) @ (image @ v)
        ),
        "The softmax runs over the queries. Each query shares out its attention over the patches.": (
            lambda x, image, q, k, v: _softmax_over(0)(x @ q, image @ k) @ (image @ v)
        ),
        "Those are the weights. They still have to mix the values.": (
            lambda x, image, q, k, v: weights_of(x @ q, image @ k)
        ),
        "The image gives the keys, but the values come from x.": (
            lambda x, image, q, k, v: weights_of(x @ q, image @ k)[:, : len(x)] @ (x @ v)
        ),
    },
)

# --- Several heads ----------------------------------------------------------------------------------------------------


def split_into_heads(x: Tensor, num_heads: int) -> Tensor:
    """x [B, L, D] -> [B, H, L, D/H]: head h takes the h-th block of D/H numbers of every row."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


split_heads = Check(
    "split_heads",
    split_into_heads,
    lambda: [
        Case("1 row of 4 numbers, 2 heads", (torch.arange(4.0).view(1, 1, 4), 2)),
        Case("2 rows of 4 numbers, 2 heads", (torch.arange(8.0).view(1, 2, 4), 2)),
        Case("2 samples, 3 rows of 8 numbers, 4 heads", (torch.arange(48.0).view(2, 3, 8), 4)),
    ],
    "Head h sees numbers h*D/H to (h+1)*D/H of every row, and rows stay apart.",
    {
        "Rows are mixed: `view` cannot turn [B, L, H, D/H] into [B, H, L, D/H]. Split first, then transpose.": (
            lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1)
        ),
        "The heads are not in front of the rows yet: transpose L and H.": lambda x, heads: x.unflatten(-1, (heads, -1)),
        "A head takes a stretch of neighboring numbers, not every H-th number.": (
            lambda x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)
        ),
        "Heads stand before the batch here: [B, H, L, D/H].": (
            lambda x, heads: x.unflatten(-1, (heads, -1)).permute(2, 0, 1, 3)
        ),
        "D/H and L are swapped.": lambda x, heads: split_into_heads(x, heads).transpose(-1, -2),
    },
)
