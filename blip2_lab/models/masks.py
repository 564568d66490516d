"""The three self-attention masks of Figure 2 (right): one for each objective of stage 1.

`unimodal_mask` (ITC), `multimodal_causal_mask` (ITG) and `bidirectional_mask` (ITM) take the number of queries and the
text's padding mask.

Notes:

* ITC, ITG and ITM share queries, text and weights; they differ in the mask.
* Each mask is bool[B, 1, L, L] over the L = Q + T rows [queries ; text]: row i may read column j where it is True.
* Padding masks columns, not rows: the output of a padded row is computed and not used.
* With `num_query_tokens=0` they are the masks of a text-only pass. Rows `[:, :, Q:]` are the mask of a text pass after
  cached queries.

In the matrices below: Q = 2 queries (q), T = 3 tokens (t), the last of which is padding (p).

Paper: section 3.2. Notebook: 04.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE_INDEX = -100  #: the label that losses ignore


def unimodal_mask(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    """ITC: queries and text do not see each other, so neither leaks into the other's embedding.

           q q t t p
        q  1 1 0 0 0
        q  1 1 0 0 0
        t  0 0 1 1 0
        t  0 0 1 1 0
        p  0 0 1 1 0

    text_mask bool[B, T], True = a real token -> bool[B, 1, L, L].
    """
    row, column = _rows_and_columns(num_query_tokens, text_mask)
    same_modality = (row < num_query_tokens) == (column < num_query_tokens)
    return same_modality & _real(num_query_tokens, text_mask)


def multimodal_causal_mask(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    """ITG: queries see queries only; a token sees all queries and the tokens up to itself.

           q q t t p
        q  1 1 0 0 0
        q  1 1 0 0 0
        t  1 1 1 0 0
        t  1 1 1 1 0
        p  1 1 1 1 0

    The text reads the image only through the queries. (UniLM's prefix mask.)
    text_mask bool[B, T], True = a real token -> bool[B, 1, L, L].
    """
    row, column = _rows_and_columns(num_query_tokens, text_mask)
    return ((column < num_query_tokens) | (column <= row)) & _real(num_query_tokens, text_mask)


def bidirectional_mask(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    """ITM: all queries and tokens see each other, so the queries can compare image and text.

           q q t t p
        q  1 1 1 1 0
        q  1 1 1 1 0
        t  1 1 1 1 0
        t  1 1 1 1 0
        p  1 1 1 1 0

    text_mask bool[B, T], True = a real token -> bool[B, 1, L, L].
    """
    real = _real(num_query_tokens, text_mask)
    return real.expand(-1, -1, real.shape[-1], -1)


def _rows_and_columns(num_query_tokens: int, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of rows [L, 1] and columns [1, L]."""
    index = torch.arange(num_query_tokens + text_mask.shape[1], device=text_mask.device)
    return index[:, None], index[None, :]


def _real(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    """bool[B, 1, 1, L]: columns that are not padding."""
    queries = text_mask.new_ones(len(text_mask), num_query_tokens, dtype=torch.bool)
    return torch.cat([queries, text_mask.bool()], dim=1)[:, None, None, :]
