"""Checks of notebook 04: the three masks of Figure 2.

A mask is checked with lengths that differ (so that padding shows) and with Q != T (so that a wrong block shows).

Paper: section 3.2, Figure 2. Notebook: 04.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from blip2_lab.models import masks
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.in_words import format_value

SHAPES = ((1, ((1, 1),)), (2, ((1, 1, 0),)), (3, ((1, 1), (1, 0))))  # queries, and a text mask for each caption


def _cases() -> list[Case]:
    made = []
    for num_query_tokens, rows in SHAPES:
        text = torch.tensor(rows, dtype=torch.bool)
        description = f"{num_query_tokens} queries, {len(rows)} caption(s), {text.sum(1).tolist()} real tokens"
        made.append(Case(f"{description} of {text.shape[1]}", (num_query_tokens, text)))
    return made


def _matrices(case: Case, got: Tensor, expected: Tensor) -> str:
    """Both masks of the first caption on which they differ, wrong cells marked."""
    num_query_tokens, text_mask = case.args
    if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != torch.bool:
        return f"input: {case.description}\nyours:\n{format_value(got)}"
    wrong = got != expected
    caption = int(wrong.flatten(1).any(dim=1).nonzero()[0])
    ours, theirs, wrong = got[caption, 0], expected[caption, 0], wrong[caption, 0]
    names = ["q"] * num_query_tokens + ["t" if real else "p" for real in text_mask[caption].tolist()]
    lines = [f"input: {case.description}   (q query, t token, p padding; ! wrong)"]
    lines.append("   yours" + " " * (3 * len(names) - 2) + "the library's")
    lines.append("     " + "  ".join(names) + "        " + "  ".join(names))
    for i, name in enumerate(names):
        left = " ".join(f"{int(ours[i, j])}{'!' if wrong[i, j] else ' '}" for j in range(len(names)))
        lines.append(f"  {name}  {left}    {name}  " + "  ".join(str(int(x)) for x in theirs[i]))
    return "\n".join(lines)


def _region(case: Case, got: Tensor, expected: Tensor) -> str | None:
    """Which block of the matrix is wrong, for a mask that makes none of the known mistakes."""
    num_query_tokens, text_mask = case.args
    if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != torch.bool:
        return None
    return misreadings(got, expected, num_query_tokens, text_mask)


def misreadings(got: Tensor, expected: Tensor, num_query_tokens: int, text_mask: Tensor) -> str:
    """Who reads whom, wrongly: of masks bool[B, 1, R, L], whose R rows are the last of all L (queries, then tokens)."""
    wrong = got != expected
    first = wrong.shape[3] - wrong.shape[2]
    cells = [(caption, first + row, column) for caption, _, row, column in wrong.nonzero().tolist()]
    said = []
    for caption, row, column in cells:
        real = [True] * num_query_tokens + text_mask[caption].tolist()
        who = "queries" if row < num_query_tokens else "tokens" if real[row] else "rows of padding"
        may = "may" if got[caption, 0, row - first, column] else "may not"
        said.append(f"{who} {may} read {_whom(row, column, num_query_tokens, real)}")
    said = list(dict.fromkeys(said))
    if len(cells) == 1:
        _, row, column = cells[0]
        said = [f"{_place(row, num_query_tokens)} {may} read {_place(column, num_query_tokens)} ({said[0]})"]
    return f"In yours, {'; '.join(said)}. It should be the other way."


def _place(index: int, num_query_tokens: int) -> str:
    return f"query {index}" if index < num_query_tokens else f"token {index - num_query_tokens}"


def _whom(row: int, column: int, num_query_tokens: int, real: list[bool]) -> str:
    if not real[column]:
        return "padding"
    if row == column:
        return "themselves"
    if column < num_query_tokens:
        return "other queries" if row < num_query_tokens else "queries"
    if row < num_query_tokens:
        return "the text"
    return "later tokens" if column > row else "earlier tokens"


def _without_padding(mask: Callable) -> Callable:
    return lambda num_query_tokens, text_mask: mask(num_query_tokens, torch.ones_like(text_mask))


def _mistakes(mask: Callable) -> dict[str, Callable]:
    """Mistakes that apply to all three masks."""
    return {
        "Padding is forgotten: columns of padding must be hidden from every row.": _without_padding(mask),
        "Rows and columns are swapped: rows are who reads, columns are who is read.": (
            lambda q, text: mask(q, text).transpose(-1, -2)
        ),
        "True and False are swapped: True means `may attend`.": lambda q, text: ~mask(q, text),
        "Padding hides rows here as well. Hide columns only: a row that may read nothing makes a softmax over nothing, "
        "and padding is never read.": (lambda q, text: mask(q, text) & masks._real(q, text).transpose(-1, -2)),
        "The text stands in front of the queries here: rows and columns are [queries ; text].": (
            lambda q, text: mask(q, text).roll((-q, -q), (2, 3))
        ),
        "Every caption is masked by the padding of the first one: each has its own.": (
            lambda q, text: mask(q, text[:1].expand_as(text))
        ),
        "The head dimension is missing: [B, 1, L, L], so that one mask serves all heads.": (
            lambda q, text: mask(q, text).squeeze(1)
        ),
        "The mask is a number, not a bool. Additive masks are made in one place, inside the attention.": (
            lambda q, text: mask(q, text).float()
        ),
    }


def _check(mask: Callable, verified: str, mistakes: dict[str, Callable]) -> Check:
    mistakes = {**mistakes, **_mistakes(mask)}
    return Check(mask.__name__, mask, _cases, verified, mistakes, rules=(_region,), show=_matrices)


def _causal_over_all(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    return masks.multimodal_causal_mask(0, torch.cat([_ones(num_query_tokens, text_mask), text_mask], dim=1))


def _ones(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    return text_mask.new_ones(len(text_mask), num_query_tokens, dtype=torch.bool)


def _queries_see_text(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    mask = masks.multimodal_causal_mask(num_query_tokens, text_mask).clone()
    mask[:, :, :num_query_tokens] = masks.bidirectional_mask(num_query_tokens, text_mask)[:, :, :num_query_tokens]
    return mask


def _not_itself(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    row, column = masks._rows_and_columns(num_query_tokens, text_mask)
    real = masks._real(num_query_tokens, text_mask)
    return ((column < num_query_tokens) | (column < row)) & real


unimodal_mask = _check(
    masks.unimodal_mask,
    "Queries read queries, tokens read tokens, padding is never read, and the two never meet.",
    {
        "Queries and text see each other: then ITC's image vector knows the caption it is to be compared with.": (
            masks.bidirectional_mask
        ),
        "Text reads the queries: it must not know the image when ITC compares it with the image.": (
            lambda q, text: masks.unimodal_mask(q, text) | masks.multimodal_causal_mask(q, text)
        ),
        "The text is causal here. In ITC a token may read the whole caption, later words too.": (
            lambda q, text: masks.unimodal_mask(q, text) & masks.multimodal_causal_mask(q, text)
        ),
    },
)
multimodal_causal_mask = _check(
    masks.multimodal_causal_mask,
    "Queries read queries only, a token reads all queries and the tokens up to itself, padding is never read.",
    {
        "Query rows see the text: the answer leaks into the queries, and the loss falls to nothing.": _queries_see_text,
        "Queries are causal here, too: every query may read every query.": _causal_over_all,
        "Tokens see later tokens: the word to be written is already read.": (
            lambda q, text: masks.unimodal_mask(q, text) | _queries_for_all(q, text)
        ),
        "Tokens do not see the queries: they would write without an image.": (
            lambda q, text: masks.multimodal_causal_mask(q, text) & masks.unimodal_mask(q, text)
        ),
        "A token does not see itself: `up to itself` includes itself (<=, not <).": _not_itself,
    },
)


def _queries_for_all(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    _, column = masks._rows_and_columns(num_query_tokens, text_mask)
    return (column < num_query_tokens) & masks._real(num_query_tokens, text_mask)


bidirectional_mask = _check(
    masks.bidirectional_mask,
    "Every row reads every query and every real token; padding is never read.",
    {
        "Query rows do not see the text: then no query can say whether image and text match.": (
            masks.multimodal_causal_mask
        ),
        "Queries and text do not meet: that is ITC's mask.": masks.unimodal_mask,
        "The shape is [B, 1, 1, L]. It would broadcast to the right thing; give every row: [B, 1, L, L].": (
            lambda q, text: masks._real(q, text)
        ),
    },
)
