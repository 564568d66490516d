"""Checks of notebook 15, second half: word sums, and the first broken link of a chain.

Paper: section 5, Figure 6. Notebook: 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case, learning
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.variants import variants_of

# --- Word sums ------------------------------------------------------------------------------------------------------


def sum_words(rows: Sequence[Sequence[int]], embedding: Tensor, size: int) -> Tensor:
    """Token ids of each thing, embedding [V,D] -> [size,D]: one vector a thing, zeros where nothing is told.

    A vector is the sum of the thing's word embeddings, divided by the square root of their number: independent vectors
    of one length add up to that root times the length, so it has about a word's length.
    """
    summed = [embedding[list(row)].sum(dim=0) / math.sqrt(len(row)) for row in rows]
    return torch.cat([torch.stack(summed), embedding.new_zeros(size - len(rows), embedding.shape[1])])


def _sum_cases() -> list[Case]:
    cases = []
    told = {
        "one thing of two words, 1 place": ([[1, 2]], 1),
        "things of three words and one, 4 places": ([[4, 0, 3], [2]], 4),
        "the same word twice, and two things that share one, 3 places": ([[5, 5], [1, 5, 2, 3], [0]], 3),
    }
    for seed, (name, (rows, size)) in enumerate(told.items()):
        leaf, embedding = learning(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)))
        cases.append(Case(name, (rows, embedding, size), {"the word embeddings": leaf}))
    return cases


@variants_of
def _sums_but(
    divide: Callable[[Tensor, int], Tensor] = lambda total, count: total / math.sqrt(count),
    ids: Callable[[Sequence[int]], Sequence[int]] = lambda row: row,
    fill: Callable[[Tensor, int], Tensor] = lambda summed, size: torch.cat(
        [summed, summed.new_zeros(size - len(summed), summed.shape[1])]
    ),
) -> Callable:
    def wrong(rows: Sequence[Sequence[int]], embedding: Tensor, size: int) -> Tensor:
        summed = [divide(embedding[list(ids(row))].sum(dim=0), len(row)) for row in rows]
        return fill(torch.stack(summed), size)

    return wrong


def _put_together(how: Callable[[Tensor], Tensor]) -> Callable:
    """Words of a thing that are put together in another way than by a sum."""

    def wrong(rows: Sequence[Sequence[int]], embedding: Tensor, size: int) -> Tensor:
        things = torch.stack([how(embedding[list(row)]) for row in rows])
        return torch.cat([things, things.new_zeros(size - len(rows), things.shape[1])])

    return wrong


def _sum_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    rows, embedding, size = case.args
    if not isinstance(got, Tensor) or got.ndim != 2:
        return None
    if got.shape[0] != size and got.shape[1] == embedding.shape[1]:
        return f"There are {got.shape[0]} vectors and should be {size}: zeros where nothing is told."
    if got.shape == expected.shape and got[len(rows) :].any():
        return "The places where nothing is told are not zero."
    return None


word_sums = Check(
    "word_sums",
    sum_words,
    _sum_cases,
    "One vector a thing, of about a word's length, zeros behind them, and a gradient for the word embeddings.",
    {
        "The sums are not divided: a thing of many words becomes longer than any word.": (
            _sums_but(lambda total, count: total)
        ),
        "The mean is taken: a thing of many words becomes shorter than any word. Divide by the root of the number.": (
            _sums_but(lambda total, count: total / count)
        ),
        "Every vector is brought to the length 1: words have another length.": (
            _sums_but(lambda total, count: total / total.norm())
        ),
        "The zeros are missing: there are `size` vectors.": _sums_but(fill=lambda summed, size: summed),
        "The zeros stand in front: they come after the things.": (
            _sums_but(fill=lambda s, size: torch.cat([s.new_zeros(size - len(s), s.shape[1]), s]))
        ),
        "The last thing is repeated where nothing is told: zeros.": (
            _sums_but(fill=lambda s, size: torch.cat([s, s[-1:].expand(size - len(s), -1)]))
        ),
        "The things are repeated where nothing is told: zeros.": (
            _sums_but(fill=lambda s, size: s.repeat(-(-size // len(s)), 1)[:size])
        ),
        "A word that is told twice counts once: sum over all of them.": (_sums_but(ids=lambda row: sorted(set(row)))),
        "The first word of each thing is left out.": _sums_but(ids=lambda row: row[1:]),
        "Only the first word of each thing is taken.": _sums_but(ids=lambda row: row[:1]),
        "The last word of each thing is left out.": _sums_but(ids=lambda row: row[:-1]),
        "Everything is one vector: each thing has its own.": (
            lambda rows, embedding, size: sum_words([[i for row in rows for i in row]], embedding, size)
        ),
        "The words are not added up: one vector a word. One vector a thing is asked for.": (
            lambda rows, embedding, size: embedding[[i for row in rows for i in row]]
        ),
        "Multiplied by the root of the number: divide by it.": (
            _sums_but(lambda total, count: total * math.sqrt(count))
        ),
        "Divided by the root of `size`: divide by the root of the thing's number of words.": (
            lambda rows, embedding, size: _sums_but(lambda total, count: total / math.sqrt(size))(rows, embedding, size)
        ),
        "Divided by the root of the number of things: divide by the root of the thing's number of words.": (
            lambda rows, embedding, size: _sums_but(lambda total, count: total / math.sqrt(len(rows)))(
                rows, embedding, size
            )
        ),
        "Divided by the logarithm of the number of words: divide by its root.": (
            _sums_but(lambda total, count: total / math.log(1 + count))
        ),
        "The largest numbers of the words are taken: add the words up.": _put_together(lambda words: words.amax(0)),
        "The words are multiplied with each other: add them up.": _put_together(lambda words: words.prod(0)),
        "Divided by the root of the width: divide by the root of the number of words.": (
            _sums_but(lambda total, count: total / math.sqrt(len(total)))
        ),
        "Ids are counted from 1: row 0 of the embedding is the token 0.": (
            _sums_but(ids=lambda row: [i - 1 for i in row])
        ),
    },
    rules=(_sum_rules,),
)

# --- The first broken link ------------------------------------------------------------------------------------------


def sort_errors(right: Tensor, links: Sequence[str]) -> list[str | None]:
    """right bool[L,N]: is question n answered right when it is asked at link l? -> the cause of each wrong answer.

    The links stand in the order of the chain, the picture last. A question that is right at the last link has no cause
    (None); for the others it is the first link at which the answer is wrong.
    """
    return [
        None if column[-1] else next(link for link, is_right in zip(links, column, strict=True) if not is_right)
        for column in right.T.tolist()
    ]


def _link_cases() -> list[Case]:
    chain = ("text", "sums", "features", "picture")
    rows = [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 1]]
    many = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) < 0.6
    return [
        Case(
            "6 questions; right by text, by sums, by features, by picture: "
            + ", ".join("".join("+-"[1 - x] for x in column) for column in zip(*rows, strict=True)),
            (torch.tensor(rows, dtype=torch.bool), chain),
        ),
        Case("2 links, all four patterns", (torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]).bool(), ("told", "seen"))),
        Case("3 links, 40 questions", (many, ("a", "b", "c"))),
    ]


def _causes_but(cause: Callable[[list[bool], Sequence[str]], str | None]) -> Callable:
    def wrong(right: Tensor, links: Sequence[str]) -> list[str | None]:
        return [cause(column, links) for column in right.T.tolist()]

    return wrong


def _first_wrong(column: list[bool], links: Sequence[str]) -> str | None:
    return next((link for link, is_right in zip(links, column, strict=True) if not is_right), None)


def _last_right_then(column: list[bool], links: Sequence[str]) -> str | None:
    """The link after the last right one."""
    if column[-1]:
        return None
    after = max((i + 1 for i, is_right in enumerate(column) if is_right), default=0)
    return links[after]


def _link_rules(case: Case, got: Any, expected: list) -> str | None:
    right, links = case.args
    if not isinstance(got, tuple | list) or len(got) != len(expected):
        return None
    for number, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        if ours is not theirs and ours != theirs:
            pattern = ", ".join(
                f"{link} {'right' if ok else 'wrong'}"
                for link, ok in zip(links, right[:, number].tolist(), strict=True)
            )
            return f"Question {number} ({pattern}): yours is {describe(ours)} and it should be {theirs!r}."
    return None


first_broken_link = Check(
    "first_broken_link",
    sort_errors,
    _link_cases,
    "A right answer to the picture has no cause; a wrong one has the first link at which it is wrong.",
    {
        "Questions that are answered right about the picture get a cause: they have none.": _causes_but(_first_wrong),
        "The first link at which it is right is returned: the first at which it is wrong.": (
            _causes_but(
                lambda column, links: (
                    None if column[-1] else next((x for x, ok in zip(links, column, strict=True) if ok), links[0])
                )
            )
        ),
        "The link after the last right one is taken: what is wrong earlier is the earlier cause.": (
            _causes_but(_last_right_then)
        ),
        "The last right link is returned: the cause is the first wrong one.": (
            _causes_but(
                lambda column, links: (
                    None
                    if column[-1]
                    else next((x for x, ok in reversed([*zip(links, column, strict=True)]) if ok), links[0])
                )
            )
        ),
        "Numbers are returned: return the names of the links.": (
            lambda right, links: [None if c is None else links.index(c) for c in sort_errors(right, links)]
        ),
        "Right questions are left out: return one cause for each question, None for those.": (
            lambda right, links: [c for c in sort_errors(right, links) if c is not None]
        ),
        "That is the opposite: causes for right answers, None for wrong ones.": (
            _causes_but(lambda column, links: (_first_wrong(column, links) or links[-1]) if column[-1] else None)
        ),
        "Every wrong answer is blamed on the last link, the picture: take the first at which it is wrong.": (
            _causes_but(lambda column, links: None if column[-1] else links[-1])
        ),
        "The link in front of the first wrong one is returned: return the wrong one itself.": (
            _causes_but(lambda column, links: None if column[-1] else links[max(0, column.index(False) - 1)])
        ),
        "The link behind the first wrong one is returned: return the wrong one itself.": (
            _causes_but(
                lambda column, links: None if column[-1] else links[min(len(links) - 1, column.index(False) + 1)]
            )
        ),
        "The right links are counted, as if all of them stood in front of the first wrong one: look for that one.": (
            _causes_but(lambda column, links: None if column[-1] else links[sum(column)])
        ),
        "Fixed names are returned: return those in `links`.": (
            lambda right, links: [
                None if c is None else ("text", "sums", "features", "picture")[links.index(c)]
                for c in sort_errors(right, links)
            ]
        ),
        "Every wrong answer is blamed on the first link.": (
            _causes_but(lambda column, links: None if column[-1] else links[0])
        ),
        "Links are counted, not questions: each column is a question.": (
            lambda right, links: [
                None if row[-1] else links[min(row.index(False), len(links) - 1)] for row in right.tolist()
            ]
        ),
        "A question that is right at any link has no cause in yours: the picture's answer decides.": (
            _causes_but(lambda column, links: None if any(column) else links[0])
        ),
        "A question that is right at the first link has no cause in yours: the picture's answer decides.": (
            _causes_but(lambda column, links: None if column[0] or column[-1] else links[0])
        ),
        "An empty text stands for None: return None where there is no cause.": (
            lambda right, links: [c or "" for c in sort_errors(right, links)]
        ),
        "All wrong links are returned: the first one is the cause.": (
            _causes_but(
                lambda column, links: None if column[-1] else [x for x, ok in zip(links, column, strict=True) if not ok]
            )
        ),
    },
    rules=(_link_rules,),
)
