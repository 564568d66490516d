"""Checks of notebook 02: attention weights, a cross-attention head, several heads.

The functions here are the steps of `attention.MultiHeadAttention` in a slow and obvious form; a test compares them.

Paper: section 3.1. Notebook: 02.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models.attention import MASKED
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import strangest_sum
from blip2_lab.teaching.checks.exercise import Case, learning
from blip2_lab.teaching.checks.variants import variants_of


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
    def small() -> tuple[Tensor, Tensor]:
        return torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    mask = torch.tensor([[True, True, False], [True, False, True]])
    far = torch.tensor([[-40.0, 0.0], [-42.0, 0.0], [8.0, 0.0]])
    return [
        Case("2 rows look at 3, D = 2, nothing hidden", (*small(), None)),
        Case("the same, with something hidden from each row", (*small(), mask.clone())),
        Case("3 rows look at 5, D = 8", (*_random((3, 8), (5, 8)), None)),
        Case(
            "what is hidden has a high score, what is left scores near -30", (torch.ones(1, 2), far, mask[:1].clone())
        ),
        Case(
            "4 rows look at 6, D = 16, about half is hidden", (*_random((4, 16), (6, 16), seed=1), _some_hidden(4, 6))
        ),
    ]


def _some_hidden(rows: int, columns: int) -> Tensor:
    """bool[rows, columns]: in every row some columns are hidden and some are not."""
    return (torch.arange(rows)[:, None] + torch.arange(columns)) % 3 != 0


def _weights_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Which property of attention weights does not hold."""
    mask = case.args[2]
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point() or got.isnan().any():
        return None
    if mask is not None and bool((got[~mask].abs() > 1e-6).any()):
        return "What is hidden still gets weight: its score has to be so low that nothing is left (-10000, or -inf)."
    if (got < 0).any():
        return "There are negative weights: those are scores, or the softmax is missing."
    if not torch.allclose(got.sum(1), torch.ones(len(got)), atol=1e-3):
        return f"Rows do not sum to 1 ({strangest_sum(got)}): softmax over the last dimension."
    return "Each row sums to 1, but the shares are others: check the scores, their scale and which rows meet which."


@variants_of
def _weights(
    *,
    divide: Callable[[Tensor, Tensor], float] = lambda q, k: q.shape[1] ** 0.5,
    score: Callable[[Tensor, Tensor], Tensor] = lambda q, k: q @ k.T,
    hide: Callable[[Tensor, Tensor], Tensor] = lambda scores, mask: scores.masked_fill(~mask, MASKED),
    share: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(dim=-1),
    after: Callable[[Tensor, Tensor], Tensor] = lambda weights, mask: weights,
) -> Callable[..., Tensor]:
    """`weights_of` with one step done differently."""

    def wrong(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = score(queries, keys) / divide(queries, keys)
        weights = share(scores if mask is None else hide(scores, mask))
        return weights if mask is None else after(weights, mask)

    return wrong


def _root_of(size: Callable[[Tensor, Tensor], int]) -> Callable[..., Tensor]:
    """Weights whose scores are divided by the root of something else."""
    return _weights(divide=lambda q, k: math.sqrt(size(q, k)))


def _cosines(q: Tensor, k: Tensor) -> Tensor:
    return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).T


def _not_hidden(scores: Tensor, mask: Tensor) -> Tensor:
    return scores


attention_weights = Check(
    "attention_weights",
    weights_of,
    _weights_cases,
    "Scores are divided by the root of D, what is hidden gets no weight, and every row sums to 1.",
    {
        "The scores are not divided by the root of D: with wide vectors the softmax becomes a choice of one.": (
            _weights(divide=lambda q, k: 1.0)
        ),
        "Divided by D, not by its square root: the softmax becomes too flat.": (
            _weights(divide=lambda q, k: float(q.shape[1]))
        ),
        "Multiplied by the root of D: divide.": _weights(divide=lambda q, k: q.shape[1] ** -0.5),
        "Columns sum to 1 here. Each row shares out its attention: softmax over the last dimension.": (
            _weights(share=lambda scores: scores.softmax(dim=0))
        ),
        "The softmax runs over all scores together: each row shares out 1 of its own.": (
            _weights(share=lambda scores: scores.flatten().softmax(0).view_as(scores))
        ),
        "The mask comes after the softmax: rows no longer sum to 1, and hidden columns have already taken their share. "
        "Mask the scores.": _weights(hide=_not_hidden, after=lambda weights, mask: weights * mask),
        "The scores are multiplied by the mask: a score of 0 still gets a share, exp(0) = 1. Take -10000 or -inf.": (
            _weights(hide=lambda scores, mask: scores * mask)
        ),
        "What is hidden is only made a little less likely: -10 is not low enough. Take -10000 or -inf.": (
            _weights(hide=lambda scores, mask: scores.masked_fill(~mask, -10.0))
        ),
        "10 is subtracted where it is hidden: not enough. Take -10000 or -inf.": (
            _weights(hide=lambda scores, mask: scores - 10.0 * ~mask)
        ),
        "+10000 where it is hidden: the sign is turned, and what is hidden gets everything.": (
            _weights(hide=lambda scores, mask: scores.masked_fill(~mask, -MASKED))
        ),
        "The mask is added as a number, 1 or 0: that changes next to nothing. Take -10000 or -inf for False.": (
            _weights(hide=lambda scores, mask: scores + mask)
        ),
        "The root is taken of the number of keys, not of D.": _root_of(lambda q, k: len(k)),
        "The root is taken of the number of queries, not of D.": _root_of(lambda q, k: len(q)),
        "The root is taken of 2 D, not of D.": _root_of(lambda q, k: 2 * q.shape[1]),
        "Queries and keys are normalized first: attention takes the dot product, not the cosine.": (
            _weights(score=_cosines)
        ),
        "A sigmoid is no softmax: rows do not share out 1.": (
            _weights(hide=_not_hidden, share=torch.sigmoid, after=lambda weights, mask: weights * mask)
        ),
        "exp is missing: divided by their sum, scores are no shares.": (
            _weights(hide=lambda scores, mask: scores * mask, share=lambda scores: F.normalize(scores, p=1, dim=-1))
        ),
        "The largest gets everything: a softmax is soft, not argmax.": (
            _weights(share=lambda scores: F.one_hot(scores.argmax(-1), scores.shape[1]).to(scores.dtype))
        ),
        "The weights are divided by the sums of the columns: each row has to sum to 1.": (
            lambda q, k, mask=None: weights_of(q, k, mask) / weights_of(q, k, mask).sum(0, keepdim=True)
        ),
        "The logarithm is taken: log_softmax gives logarithms of shares.": (
            lambda q, k, mask=None: weights_of(q, k, mask).clamp_min(1e-30).log()
        ),
        "The sign of the scores is turned: what fits best must get most.": _weights(score=lambda q, k: -q @ k.T),
        "A distance is no score: take the dot products of queries and keys.": _weights(
            score=lambda q, k: -torch.cdist(q, k)
        ),
        "The mask is ignored.": _weights(hide=_not_hidden),
        "The mask is upside down: True means `may attend`.": (
            _weights(hide=lambda scores, mask: scores.masked_fill(mask, MASKED))
        ),
        "Those are scores: the softmax is missing.": lambda q, k, mask=None: q @ k.T / math.sqrt(q.shape[-1]),
    },
    rules=(_weights_rules,),
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


@variants_of
def _head(
    *,
    asks: str = "x",
    divide: Callable[[Tensor, Tensor, Tensor], float] = lambda x, image, to_query: to_query.shape[1] ** 0.5,
    score: Callable[[Tensor, Tensor], Tensor] = lambda q, k: q @ k.T,
    share: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(dim=-1),
    queries: Callable[[Tensor, Tensor], Tensor] = lambda x, to_query: x @ to_query,
    keys: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda image, to_key, to_value: image @ to_key,
    values: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda image, to_key, to_value: image @ to_value,
    add: Callable[[Tensor, Tensor], Tensor] = lambda mixed, queries: mixed,
) -> Callable[..., Tensor]:
    """`one_cross_attention_head` with one step done differently."""

    def wrong(x: Tensor, image: Tensor, to_query: Tensor, to_key: Tensor, to_value: Tensor) -> Tensor:
        read = {"x": image, "itself": x}[asks]
        asking = queries(x, to_query)
        weights = share(score(asking, keys(read, to_key, to_value)) / divide(x, image, to_query))
        return add(weights @ values(read, to_key, to_value), asking)

    return wrong


def _weights_told(got: Tensor, values: Tensor) -> str | None:
    """What is wrong with the sums of the weights, where they can be computed from the output."""
    if len(values) > values.shape[1]:
        return None
    weights = got.detach() @ torch.linalg.pinv(values.detach())
    if not torch.allclose(weights @ values, got, atol=1e-3):
        return None
    sums = weights.sum(1)
    if torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return "Each query's weights sum to 1, but the shares are others: check the scores and what divides them."
    return (
        f"A query's weights of the patches sum to {float(sums[0]):.3g}, not to 1: is there a softmax, over the patches "
        "(dim=-1), and nothing behind it?"
    )


def _head_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Whether the output is any mixture of the values at all."""
    x, image, _, _, to_value = case.args
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    values = image @ to_value
    if told := _weights_told(got, values):
        return told
    low, high = values.amin(0) - 1e-4, values.amax(0) + 1e-4
    if ((got < low) | (got > high)).any():
        return "These are no mixtures of the values image_features @ to_value: they lie outside of all of them."
    return "These are mixtures of some values, but with other shares: check the weights that make them."


def _head_cases() -> list[Case]:
    made = []
    for num_queries, patches, width, image_width, head in (
        (1, 2, 2, 2, 2),
        (2, 3, 4, 4, 4),
        (2, 5, 4, 6, 3),
        (3, 7, 8, 16, 4),
    ):
        shapes = (num_queries, width), (patches, image_width), (width, head), (image_width, head), (image_width, head)
        description = f"{num_queries} queries of width {width} look at {patches} patches of width {image_width}"
        leaves, args = zip(*map(learning, _random(*shapes, seed=num_queries + patches)), strict=True)
        names = ("x", "the image features", "to_query", "to_key", "to_value")
        made.append(Case(description, args, dict(zip(names, leaves, strict=True))))
    return made


cross_attention_head = Check(
    "cross_attention_head",
    one_cross_attention_head,
    _head_cases,
    "Queries ask, the image gives keys and values; one vector for each query, whatever the number of patches.",
    {
        "Keys and values come from x: that is self-attention, and the image is never read.": _head(asks="itself"),
        "The roles are swapped: here the patches ask and the queries answer, one vector for each patch.": (
            lambda x, image, q, k, v: weights_of(image @ q, x @ k) @ (x @ v)
        ),
        "Keys and values are swapped: to_value makes the keys here, to_key the values.": (
            _head(keys=lambda image, k, v: image @ v, values=lambda image, k, v: image @ k)
        ),
        "The keys are used as values, too: values have a matrix of their own.": (
            _head(values=lambda image, k, v: image @ k)
        ),
        "The values are used as keys, too: keys have a matrix of their own.": _head(keys=lambda image, k, v: image @ v),
        "The values are not projected: multiply image_features by to_value.": _head(values=lambda image, k, v: image),
        "The queries are not projected: multiply x by to_query.": _head(queries=lambda x, q: x),
        "The keys are not projected: multiply image_features by to_key.": _head(keys=lambda image, k, v: image),
        "The matrix of the queries is transposed: multiply x by to_query from the right.": (
            _head(queries=lambda x, q: x @ q.T)
        ),
        "The matrix of the keys is transposed: multiply image_features by to_key from the right.": (
            _head(keys=lambda image, k, v: image @ k.T)
        ),
        "The matrix of the values is transposed: multiply image_features by to_value from the right.": (
            _head(values=lambda image, k, v: image @ v.T)
        ),
        "The scores are not divided by the root of the head's width.": _head(divide=lambda x, image, q: 1.0),
        "The root is taken of x's width: the dot products have the head's width, Dh.": (
            _head(divide=lambda x, image, q: x.shape[1] ** 0.5)
        ),
        "The root is taken of the image features' width: the dot products have the head's width, Dh.": (
            _head(divide=lambda x, image, q: image.shape[1] ** 0.5)
        ),
        "The root is taken of the number of patches: take the head's width, Dh.": (
            _head(divide=lambda x, image, q: len(image) ** 0.5)
        ),
        "The root is taken of the number of queries: take the head's width, Dh.": (
            _head(divide=lambda x, image, q: len(x) ** 0.5)
        ),
        "Divided by the head's width, or twice by its root (attention_weights divides already): once by the root.": (
            _head(divide=lambda x, image, q: float(q.shape[1]))
        ),
        "The scores are multiplied by the root of the head's width: divide.": (
            _head(divide=lambda x, image, q: q.shape[1] ** -0.5)
        ),
        "The softmax is taken twice.": _head(share=lambda scores: scores.softmax(-1).softmax(-1)),
        "Queries and keys are normalized: attention takes the dot product, not the cosine.": _head(score=_cosines),
        "The sign of the scores is turned: what fits best must get most.": _head(score=lambda q, k: -q @ k.T),
        "A distance is no score: take the dot products of queries and keys.": (
            _head(score=lambda q, k: -torch.cdist(q, k))
        ),
        "A sigmoid is no softmax: the shares of a query do not sum to 1.": _head(share=torch.sigmoid),
        "Everybody gets the sum of all queries' outputs: keep one vector for each query.": (
            _head(add=lambda mixed, asking: mixed.sum(0, keepdim=True).expand(len(mixed), -1))
        ),
        "The softmax is missing: the values are mixed by raw scores.": _head(share=lambda scores: scores),
        "x is added: the residual connection is not part of the head.": _head(add=lambda mixed, asking: mixed + asking),
        "The values are averaged with equal shares: the queries do not choose.": (
            _head(share=lambda scores: torch.ones_like(scores) / scores.shape[1])
        ),
        "The outputs of all queries are averaged: keep one vector for each query.": (
            _head(add=lambda mixed, asking: mixed.mean(0))
        ),
        "The best patch is taken alone: mix all of them by their weights.": (
            _head(share=lambda scores: F.one_hot(scores.argmax(-1), scores.shape[1]).to(scores.dtype))
        ),
        "The output is transposed: [Q, Dh], one row for each query.": _head(add=lambda mixed, asking: mixed.T),
        "The softmax runs over the queries. Each query shares out its attention over the patches.": (
            _head(share=lambda scores: scores.softmax(0))
        ),
        "The softmax runs over all scores together: each query shares out 1 of its own.": (
            _head(share=lambda scores: scores.flatten().softmax(0).view_as(scores))
        ),
        "Those are the weights. They still have to mix the values.": (
            lambda x, image, q, k, v: weights_of(x @ q, image @ k)
        ),
        "The image gives the keys, but the values come from x.": (
            lambda x, image, q, k, v: weights_of(x @ q, image @ k)[:, : len(x)] @ (x @ v)
        ),
    },
    rules=(_head_rules,),
)

# --- Several heads ----------------------------------------------------------------------------------------------------


def split_into_heads(x: Tensor, num_heads: int) -> Tensor:
    """x [B, L, D] -> [B, H, L, D/H]: head h takes the h-th block of D/H numbers of every row."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _rows_of_heads(case: Case, got: object, expected: Tensor) -> str | None:
    """Which numbers stand where they do not belong."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    b, h, row, _ = (int(i) for i in (got != expected).nonzero()[0])
    if sorted(got.flatten().tolist()) != sorted(expected.flatten().tolist()):
        return "Some numbers of x are there twice and others not at all: every number belongs to exactly one head."
    return f"Head {h} of row {row} (sample {b}) has the numbers of another head or another row."


split_heads = Check(
    "split_heads",
    split_into_heads,
    lambda: [
        Case("1 row of 4 numbers, 2 heads", (torch.arange(4.0).view(1, 1, 4), 2)),
        Case("2 rows of 4 numbers, 2 heads", (torch.arange(8.0).view(1, 2, 4), 2)),
        Case("2 samples, 3 rows of 8 numbers, 4 heads", (torch.arange(48.0).view(2, 3, 8), 4)),
        Case("2 samples, 3 rows of 20 numbers, 5 heads", (torch.arange(120.0).view(2, 3, 20), 5)),
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
        "H and D/H are confused: `num_heads` is the number of heads, not the width of one.": (
            lambda x, heads: x.unflatten(-1, (-1, heads)).transpose(1, 2)
        ),
        "Every head gets the whole width: head h takes the h-th stretch of every row.": (
            lambda x, heads: x.repeat(1, heads, 1).reshape(len(x), heads, x.shape[1], -1)
        ),
        "The batch is lost: keep [B, H, L, D/H].": lambda x, heads: split_into_heads(x, heads)[0],
        "The heads are laid into the batch: keep B and H apart.": lambda x, heads: split_into_heads(x, heads).flatten(
            0, 1
        ),
        "A list of heads: put them together with torch.stack(..., dim=1).": lambda x, heads: x.chunk(heads, dim=-1),
        "The heads are put side by side again: that is x as it was.": lambda x, heads: x,
        "The heads stand in the reverse order.": lambda x, heads: split_into_heads(x, heads).flip(1),
        "The heads stand last: [B, H, L, D/H] has them right after the batch.": (
            lambda x, heads: x.unflatten(-1, (heads, -1)).movedim(2, -1)
        ),
    },
    rules=(_rows_of_heads,),
)
