"""Checks of notebook 15: several pictures in one prompt, answers that are copied, word sums, the first broken link.

Paper: section 5, Figure 6. Notebook: 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_lab.evaluation.metrics import exact_match
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import describe
from blip2_lab.teaching.checks.exercise import Case, learning
from blip2_lab.teaching.checks.variants import variants_of

# --- Several pictures in one prompt ---------------------------------------------------------------------------------

Shot = tuple[Tensor, Tensor]  #: the visual prompt [Q,D] of a picture, and the embeddings [T,D] of its text


def interleave(samples: Sequence[Sequence[Shot]]) -> tuple[Tensor, Tensor]:
    """B samples of (visual_prompt [Q,D], text [T,D]) -> embeddings [B,L,D] and mask bool[B,L], padded on the right.

    In each sample: picture, its text, the next picture, its text, ... The last text is the question.
    """
    rows = [torch.cat([part for shot in sample for part in shot]) for sample in samples]
    length = max(len(row) for row in rows)
    embeddings = torch.stack([torch.cat([row, row.new_zeros(length - len(row), row.shape[1])]) for row in rows])
    mask = torch.tensor([[place < len(row) for place in range(length)] for row in rows])
    return embeddings, mask


def _shot_cases() -> list[Case]:
    cases = []
    told = {
        "one sample of one picture": [[(2, 3)]],
        "one sample of two pictures": [[(2, 3), (2, 1)]],
        "three samples of one, three and two pictures": [[(2, 2)], [(2, 3), (2, 1), (2, 4)], [(2, 1), (2, 2)]],
    }
    for seed, (name, sizes) in enumerate(told.items()):
        generator = torch.Generator().manual_seed(seed)
        samples, learns = [], {}
        for sample in sizes:
            shots = []
            for queries, tokens in sample:
                leaf, visual = learning(torch.randn(queries, 3, generator=generator))
                text = torch.randn(tokens, 3, generator=generator)
                text[tokens // 2 :: 3] = 0.0  # where a word sum tells nothing, say
                shots.append((visual, text))
                learns[f"the visual prompt of picture {len(shots)} of sample {len(samples) + 1}"] = leaf
            samples.append(shots)
        cases.append(Case(f"{name}; Q = 2, D = 3", (samples,), learns))
    return cases


def _masked(function: Callable, args: tuple) -> Any:
    """Embeddings with zeros wherever the library's mask is False, and the mask as bool: padding may hold anything."""
    found = function(*args)
    if not isinstance(found, tuple | list) or len(found) != 2:
        return found
    embeddings, mask = found
    if not isinstance(mask, Tensor) or mask.device.type == "meta" or mask.is_complex():
        return embeddings, mask
    lengths = [sum(len(part) for shot in sample for part in shot) for sample in args[0]]
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    if isinstance(embeddings, Tensor) and embeddings.ndim == 3 and embeddings.shape[:2] == real.shape:
        embeddings = embeddings.masked_fill(~real[:, :, None], 0.0)
    return embeddings, mask.bool()


def _shot_rules(case: Case, got: Any, expected: Any) -> str | None:
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    embeddings, mask = got
    if not isinstance(embeddings, Tensor) or not isinstance(mask, Tensor):
        return None
    if embeddings.shape != expected[0].shape:
        longest = expected[0].shape[1]
        gap = longest - embeddings.shape[1]
        told = f" There are {abs(gap)} too {'few' if gap > 0 else 'many'}." if embeddings.ndim == 3 else ""
        return f"The embeddings have the shape {list(embeddings.shape)}; the longest sample has {longest} places.{told}"
    if mask.shape != expected[1].shape:
        return f"The mask has the shape {list(mask.shape)} and should have {list(expected[1].shape)}."
    if not torch.allclose(embeddings.double(), expected[0].double(), atol=1e-5):
        return "The mask has the right shape; the embeddings stand in another order: picture, text, picture, text."
    return "The embeddings are right; the mask is not: True where there is a picture or a text, False at padding."


def _ordered(order: Callable[[Sequence[Shot]], list[Tensor]], left: bool = False, mask_of: Callable | None = None):
    """Samples whose parts stand in another order, or are padded or masked in another way."""

    def wrong(samples: Sequence[Sequence[Shot]]) -> tuple[Tensor, Tensor]:
        rows = [torch.cat(order(sample)) for sample in samples]
        length = max(len(row) for row in rows)
        filled, masks = [], []
        for row, sample in zip(rows, samples, strict=True):
            gap = row.new_zeros(length - len(row), row.shape[1])
            filled.append(torch.cat([gap, row] if left else [row, gap]))
            real = torch.arange(length) >= length - len(row) if left else torch.arange(length) < len(row)
            masks.append(mask_of(real, sample) if mask_of else real)
        return torch.stack(filled), torch.stack(masks)

    return wrong


def _usual(sample: Sequence[Shot]) -> list[Tensor]:
    return [part for shot in sample for part in shot]


def _hide_pictures(real: Tensor, sample: Sequence[Shot]) -> Tensor:
    """False at the examples' pictures, as if only the last one were there."""
    hidden, place = real.clone(), 0
    for visual, text in sample[:-1]:
        hidden[place : place + len(visual)] = False
        place += len(visual) + len(text)
    return hidden


def _masked_by_zeros(samples: Sequence[Sequence[Shot]]) -> tuple[Tensor, Tensor]:
    embeddings, _ = interleave(samples)
    return embeddings, (embeddings != 0).any(dim=2)


def _cut(samples: Sequence[Sequence[Shot]]) -> tuple[Tensor, Tensor]:
    rows = [torch.cat(_usual(sample)) for sample in samples]
    length = min(len(row) for row in rows)
    return torch.stack([row[:length] for row in rows]), torch.ones(len(rows), length, dtype=torch.bool)


def _mean_picture(sample: Sequence[Shot]) -> list[Tensor]:
    mean = torch.stack([visual for visual, _ in sample]).mean(dim=0)
    return [mean, *(text for _, text in sample)]


interleave_pictures = Check(
    "interleave_pictures",
    interleave,
    _shot_cases,
    "Every picture stands in front of its own text, padding is on the right and hidden, and every picture learns.",
    {
        "All pictures stand in front of all texts: each belongs in front of its own.": (
            _ordered(lambda sample: [v for v, _ in sample] + [t for _, t in sample])
        ),
        "The texts stand in front of their pictures: the picture comes first.": (
            _ordered(lambda sample: [part for v, t in sample for part in (t, v)])
        ),
        "Only the last picture is there: the examples have pictures, too.": (
            _ordered(lambda sample: [t for _, t in sample[:-1]] + [*sample[-1]])
        ),
        "Only the first picture is there: every text has its own.": (
            _ordered(lambda sample: [sample[0][0], *(t for _, t in sample)])
        ),
        "The examples are left out: only the last picture and its question are there.": (
            _ordered(lambda sample: [*sample[-1]])
        ),
        "The samples are turned round: the question is last, so keep the order.": (
            _ordered(lambda sample: _usual(sample[::-1]))
        ),
        "Padded on the left: an encoder-decoder is padded on the right.": _ordered(_usual, left=True),
        "Padding is not hidden: the mask is True everywhere.": (
            _ordered(_usual, mask_of=lambda real, sample: torch.ones_like(real))
        ),
        "The mask is made by looking for zeros: a real vector may be zeros, too. Take the lengths.": _masked_by_zeros,
        "The mask is turned round: True means that it may be read.": (
            _ordered(_usual, mask_of=lambda real, sample: ~real)
        ),
        "The pictures of the examples are hidden by the mask.": _ordered(_usual, mask_of=_hide_pictures),
        "Longer samples are cut to the shortest: pad the shorter ones.": _cut,
        "The pictures are averaged into one: every text has its own.": _ordered(_mean_picture),
        "Every picture is there twice.": _ordered(lambda sample: [part for v, t in sample for part in (v, t, v)]),
        "The texts are left out: the language model reads pictures and texts.": (
            _ordered(lambda sample: [v for v, _ in sample])
        ),
        "Pictures and texts are swapped between the shots: each text belongs to the picture in front of it.": (
            _ordered(lambda sample: [p for (v, _), (_, t) in zip(sample, sample[::-1], strict=True) for p in (v, t)])
        ),
    },
    rules=(_shot_rules,),
    run=_masked,
    parts=("embeddings", "mask"),
)

# --- Copied answers -------------------------------------------------------------------------------------------------


def share_copied(answers: Sequence[str], truths: Sequence[str], examples: Sequence[Sequence[str]]) -> float:
    """The share of the *wrong* answers that are the answer of one of their prompt's examples; 0 if none is wrong.

    examples: for each answer, the answers of the examples in its prompt.
    """
    wrong = [i for i, (answer, truth) in enumerate(zip(answers, truths, strict=True)) if not exact_match(answer, truth)]
    copied = [any(exact_match(answers[i], example) for example in examples[i]) for i in wrong]
    return sum(copied) / len(copied) if copied else 0.0


def _copied_cases() -> list[Case]:
    return [
        Case(
            "answers red, blue, boat, cat; truths red, green, cat, cat; the second is copied",
            (
                ["red", "blue", "boat", "cat"],
                ["red", "green", "cat", "cat"],
                [["blue", "gray"], ["blue", "red"], ["car", "key"], ["boat", "cup"]],
            ),
        ),
        Case(
            "a right answer that is also an example's",
            (["red", "blue", "two"], ["red", "red", "one"], [["red"], ["gray"], ["two"]]),
        ),
        Case(
            "case and a full stop do not matter",
            (["Red.", "a boat"], ["blue", "boat"], [["red", "red"], ["boat", "cat"]]),
        ),
        Case("nothing is wrong", (["red", "cat"], ["red", "cat"], [["red"], ["dog"]])),
        Case(
            "two examples say the same; another row's example is no source",
            (["key", "key", "cup"], ["cat", "cup", "cat"], [["key", "key"], ["cat"], ["boat", "cup"]]),
        ),
        Case(
            "examples that contain the answer, or stand in it",
            (["boat", "red", "top left", "cat"], ["cat", "blue", "top", "car"],
             [["a boat"], ["infrared"], ["left"], ["car", "cat"]]),
        ),
        Case("no examples at all", (["red", "cat"], ["blue", "cat"], [[], []])),
        Case(
            "a right answer whose truth has a capital, and which an example gives, too",
            (["red", "cat"], ["Red", "car"], [["red"], ["key"]]),
        ),
    ]  # fmt: skip


@variants_of
def _copied_but(
    counts: Callable[[str, str], bool] = lambda answer, truth: not exact_match(answer, truth),
    copied: Callable[[str, Sequence[str]], bool] = lambda answer, given: any(exact_match(answer, e) for e in given),
    of: Callable[[list[bool], int], float] = lambda hits, total: sum(hits) / len(hits) if hits else 0.0,
) -> Callable:
    def wrong(answers: Sequence[str], truths: Sequence[str], examples: Sequence[Sequence[str]]) -> float:
        rows = zip(answers, truths, examples, strict=True)
        return float(of([copied(a, e) for a, t, e in rows if counts(a, t)], len(answers)))

    return wrong


def _others(answers: Sequence[str], truths: Sequence[str], examples: Sequence[Sequence[str]]) -> float:
    everything = [[e for given in examples for e in given]] * len(answers)
    return share_copied(answers, truths, everything)


def _matches(
    answers: Sequence[str], truths: Sequence[str], examples: Sequence[Sequence[str]], size: Callable[[Sequence], int]
) -> float:
    """Examples that equal the wrong answer, all of them counted, divided by the sizes of the wrong answers' rows."""
    rows = [(a, given) for a, t, given in zip(answers, truths, examples, strict=True) if not exact_match(a, t)]
    return sum(exact_match(a, e) for a, given in rows for e in given) / max(1, sum(size(given) for _, given in rows))


def _wrong_among_copied(answers: Sequence[str], truths: Sequence[str], examples: Sequence[Sequence[str]]) -> float:
    rows = zip(answers, truths, examples, strict=True)
    wrong = [not exact_match(a, t) for a, t, given in rows if any(exact_match(a, e) for e in given)]
    return sum(wrong) / len(wrong) if wrong else 0.0


def _all_must(answer: str, given: Sequence[str]) -> bool:
    return bool(given) and all(exact_match(answer, e) for e in given)


def _copied_rules(case: Case, got: Any, expected: float) -> str | None:
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    if math.isnan(got):
        return "It is not a number: where no answer is wrong, the share is 0."
    return (
        f"It is {got:.3g} and should be {expected:.3g}: of the wrong answers, those that equal an example's answer in "
        "their own prompt."
    )


copied_answers = Check(
    "copied_answers",
    share_copied,
    _copied_cases,
    "Only wrong answers are counted, each against the examples of its own prompt.",
    {
        "Right answers are counted as well: an example with the same answer need not have been copied.": (
            _copied_but(lambda a, t: True)
        ),
        "Divided by all answers: by the wrong ones, for a right one may be no copy.": (
            _copied_but(of=lambda hits, total: sum(hits) / total)
        ),
        "The number is returned: return a share of the wrong answers.": _copied_but(of=lambda hits, total: sum(hits)),
        "The examples of all prompts are searched: only those of its own prompt can have been copied.": _others,
        "Every example must have this answer: one is enough.": _copied_but(copied=_all_must),
        "Only the last example is searched.": _copied_but(copied=lambda a, e: bool(e) and exact_match(a, e[-1])),
        "Only the first example is searched.": _copied_but(copied=lambda a, e: bool(e) and exact_match(a, e[0])),
        "Strings are compared as they are: 'Red.' is the answer 'red' (exact_match).": (
            _copied_but(lambda a, t: a != t, lambda a, e: a in e)
        ),
        "Answer and truth are compared as they are: 'Red.' is the answer 'red' (exact_match).": (
            _copied_but(lambda a, t: a != t)
        ),
        "Answer and examples are compared as they are: 'Red.' is the answer 'red' (exact_match).": (
            _copied_but(copied=lambda a, e: a in e)
        ),
        "It is enough that an example contains the answer: it must be the same answer.": (
            _copied_but(copied=lambda a, e: any(a.strip().lower() in one for one in e))
        ),
        "It is enough that the answer contains an example: it must be the same answer.": (
            _copied_but(copied=lambda a, e: any(one in a.lower() for one in e))
        ),
        "That is the share of wrong answers: of them, those that are copied are counted.": (
            lambda answers, truths, examples: sum(
                not exact_match(a, t) for a, t in zip(answers, truths, strict=True)
            ) / len(answers)
        ),
        "An answer that several examples give counts several times: once is enough.": (
            lambda answers, truths, examples: _matches(answers, truths, examples, lambda given: 1)
        ),
        "Divided by the number of examples: divide by the number of wrong answers.": (
            lambda answers, truths, examples: _matches(answers, truths, examples, len)
        ),
        "1 minus the share is returned.": (
            lambda answers, truths, examples: 1 - share_copied(answers, truths, examples)
        ),
        "Those that are not copied are counted.": (
            _copied_but(of=lambda hits, total: 1 - sum(hits) / len(hits) if hits else 0.0)
        ),
        "Where nothing is wrong, nothing is copied: the share is 0, not 1.": (
            _copied_but(of=lambda hits, total: sum(hits) / len(hits) if hits else 1.0)
        ),
        "The right answers are counted, not the wrong ones.": _copied_but(exact_match),
        "That is the share of the copied answers that are wrong: of the wrong answers, how many are copied?": (
            _wrong_among_copied
        ),
        "It is counted whether the truth is among the examples: whether the answer is, was asked.": (
            lambda answers, truths, examples: (
                lambda hits: sum(hits) / len(hits) if hits else 0.0
            )([any(exact_match(t, e) for e in given) for a, t, given in zip(answers, truths, examples, strict=True)
               if not exact_match(a, t)])
        ),
        "Percent are returned: a share lies between 0 and 1.": (
            _copied_but(of=lambda hits, total: 100 * sum(hits) / len(hits) if hits else 0.0)
        ),
    },
    rules=(_copied_rules,),
)  # fmt: skip

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
