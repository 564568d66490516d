"""Checks of notebook 15, first half: several pictures in one prompt, and answers that are copied from the examples.

Paper: section 5. Notebook: 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_lab.evaluation.metrics import exact_match
from blip2_lab.teaching.checks.check import Check
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
