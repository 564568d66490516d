"""A prediction: a guess, written down before a cell is run, compared with what comes out.

Notes:

* Without a guess, `prediction` says only that one is missing; a guess that cannot be read does not give the answer
  away either.
* The spelling of a guess is forgiven: case, quotes, punctuation and one slip of the pen in a word, "2,3" and
  "about 2.3" for 2.3, "1/3", "50 %", "yes" for True, letters in any order.

Paper: none. Notebooks: all with predictions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from blip2_lab.teaching.checks.check import FAILED, NOT_ATTEMPTED, PASSED, Verdict, graded

NAME = "prediction"
CLOSE = 0.1  #: how far a guessed number may be from the true one, as a share of it
_YES, _NO = {"true", "yes", "y", "t", "1"}, {"false", "no", "n", "f", "0"}
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = re.compile(r"[-+]?(?:\d[\d.,]*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)


def prediction(guess: Any, truth: Any, because: str = "", tempting: Mapping[Any, str] | None = None) -> Verdict:
    """Compare a prediction, made before running, with the result.

    guess     None: not attempted
    because   the reason for the result, one sentence
    tempting  wrong answer -> the reasoning that leads to it
    """
    guess, truth = _plain(guess), _plain(truth)
    if not _is_made(guess):
        return graded(Verdict(NOT_ATTEMPTED, NAME, "Write your guess into the cell above first, then run this one."))
    unreadable = _unreadable(guess, truth)
    if unreadable:
        return graded(Verdict(FAILED, NAME, unreadable))
    shown = f"{truth:.4g}" if isinstance(truth, float) else f"{truth}"
    if matches(guess, truth):
        return Verdict(PASSED, NAME, f"It is {shown}. {because}".strip())
    thought = next((text for answer, text in (tempting or {}).items() if matches(guess, answer, 0.01)), "")
    parts = (f"It is {shown}, not {guess}.", thought, because)
    return graded(Verdict(FAILED, NAME, " ".join(part for part in parts if part)))


def print_after(guess: Any) -> Callable[..., None]:
    """`print` once there is a guess, and nothing before: for what a prediction's cell measures."""
    return print if _is_made(_plain(guess)) else lambda *values, **options: None


def _is_made(guess: Any) -> bool:
    return not (guess is None or (isinstance(guess, str) and not guess.strip()) or guess == [])


def matches(guess: Any, truth: Any, close: float = CLOSE) -> bool:
    """Whether a guess, as it was written, is the truth. A float may be `close` (a share) to it."""
    guess, truth = _plain(guess), _plain(truth)
    if isinstance(truth, bool):
        return _truth_value(guess) is truth
    if isinstance(truth, int):
        return any(number == truth for number in _numbers(guess))
    if isinstance(truth, float):
        return any(abs(number - truth) <= close * abs(truth) for number in _numbers(guess))
    if _is_letters(str(truth)):
        letters = _letters(guess)
        if letters is not None:
            return letters == str(truth)
    written, wanted = (_canonical(text) for text in (guess, truth))
    allowed = 0 if len(wanted) < 5 else 1 if len(wanted) < 10 else 2
    return written == wanted or distance(written, wanted) <= allowed


def _unreadable(guess: Any, truth: Any) -> str | None:
    """A sentence for a guess of a kind that cannot be the truth's, or None. It does not tell the truth."""
    if isinstance(truth, bool):
        return None if _truth_value(guess) is not None else f"Write True or False; yours is {guess!r}."
    if isinstance(truth, int | float):
        return None if _numbers(guess) else f"Write a number; yours is {guess!r}."
    if isinstance(guess, str | bool | int | float) or (isinstance(guess, list) and all(_is_word(x) for x in guess)):
        return None
    return f"Write a word or letters, in quotes; yours is of the type {type(guess).__name__}."


def _plain(value: Any) -> Any:
    """numpy's and torch's values as Python's, other sequences as lists, a list of one as its element."""
    if isinstance(value, np.generic | np.ndarray | Tensor):
        value = value.tolist()
    if isinstance(value, tuple | set | frozenset):
        value = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    return _plain(value[0]) if isinstance(value, list) and len(value) == 1 else value


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _truth_value(guess: Any) -> bool | None:
    if isinstance(guess, bool | int | float) and guess in (0, 1):
        return bool(guess)
    word = _canonical(guess) if isinstance(guess, str) else ""
    return True if word in _YES else False if word in _NO else None


def _numbers(guess: Any) -> list[float]:
    """The numbers that a guess can mean: "1,000" is a thousand, and one written with a decimal comma."""
    if isinstance(guess, int | float) and not isinstance(guess, bool):
        return [float(guess)]
    if not isinstance(guess, str):
        return []
    text = guess.strip().lower().replace("\u2212", "-")
    if text in _WORDS:
        return [float(_WORDS.index(text))]
    fraction = re.search(r"(\d+)\s*/\s*([1-9]\d*)", text)
    if fraction:
        return [int(fraction[1]) / int(fraction[2])]
    found = _NUMBER.search(text)
    if not found:
        return []
    digits, scale = found[0].rstrip(".,"), 0.01 if "%" in text else 1.0
    readings = {digits.replace(",", ""), digits.replace(",", "."), digits.replace(".", "").replace(",", ".")}
    readings = {digits} if "," not in digits else readings if digits.count(",") == 1 else {digits.replace(",", "")}
    numbers = []
    for reading in readings:
        try:
            numbers.append(float(reading) * scale)
        except ValueError:  # "2.3,4.5" has readings that are no numbers
            continue
    return numbers


def _is_letters(truth: str) -> bool:
    """Whether a truth is a set of letters in order, as in "which of a to f"."""
    return len(truth) > 1 and truth.isalpha() and truth.islower() and list(truth) == sorted(set(truth))


def _letters(guess: Any) -> str | None:
    """The letters of a guess such as "c, b and e", ["b", "c"] or "BCE", in order; None for other words."""
    text = " ".join(guess) if isinstance(guess, list) else str(guess)
    pieces = [piece for piece in re.findall(r"[a-z]+", text.lower()) if piece != "and"]
    if len(pieces) > 1 and any(len(piece) > 1 for piece in pieces):
        return None
    return "".join(sorted(set("".join(pieces))))


def _canonical(text: Any) -> str:
    """Lower case, without an article in front and without anything but letters and digits."""
    words = " ".join(text) if isinstance(text, list) else str(text)
    words = re.sub(r"^\s*(the|an?)\s+", "", words.casefold())
    return re.sub(r"[\W_]+", "", words)


def distance(a: str, b: str) -> int:
    """How many letters have to be put in, left out, exchanged, or swapped with their neighbor, to make b of a."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
