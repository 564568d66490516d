"""A prediction: a guess, written down before a cell is run, compared with what comes out.

Notes:

* Without a guess, `prediction` says only that one is missing; a guess that cannot be read does not give the answer
  away either. `print_after` and `show_after` hold back what the cells behind it print and draw.
* While the notebooks are run for reading (`READING` is set, by notebooks/run_all.py), prints and figures are shown.
* The spelling of a guess is forgiven: case, quotes, punctuation and one slip of the pen in a word, "2,3", "about 2.3"
  and "log 10" for 2.3, "1/3", "a third", "50 %", "1.5k", "sixty-five", "yes" for True, letters in any order, "b to d".

Paper: none. Notebooks: all with predictions.
"""

from __future__ import annotations

import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from blip2_lab.teaching.checks.values import Unsupported, supported
from blip2_lab.teaching.checks.verdicts import FAILED, NOT_ATTEMPTED, PASSED, Verdict, graded

NAME = "prediction"
CLOSE = 0.1  #: how far a guessed number may be from the true one, as a share of it
#: Set while the notebooks are run for the copies with outputs.
READING = "BLIP2_LAB_READ_THROUGH"
_YES = {"true", "yes", "yep", "yeah", "y", "t", "1", "right", "correct"}
_NO = {"false", "no", "nope", "n", "f", "0", "not", "wrong", "incorrect"}
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_WORDS |= {"no": 0, "none": 0, "nothing": 0, "a": 1, "an": 1}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9}
_SHARES = {"half": 1 / 2, "halves": 1 / 2, "third": 1 / 3, "thirds": 1 / 3, "quarter": 1 / 4, "quarters": 1 / 4}
_SHARES |= {"fifth": 1 / 5, "fifths": 1 / 5, "tenth": 1 / 10, "tenths": 1 / 10}
_SHARES |= {"percent": 0.01, "%": 0.01}
_LOGARITHMS = {"ln": math.log, "log": math.log, "log2": math.log2, "log10": math.log10}
_NUMBER = re.compile(r"[-+]?(?:\d[\d.,]*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
#: Words that change nothing about a guess: "it stays the same", "the CLS token", "worse, I think".
_FILLERS = re.compile(
    r"\b(the one|the|an?|its?|is|stays?|becomes?|gets?|will|be|i|think|guess|probably|token|loss|only|just|of them)\b"
)
#: Words beside a letter: "answer a", "only b and c".
_BESIDE_LETTERS = re.compile(r"\b(the|answers?|options?|letters?|only|just|and|parts?)\b")


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
    return print if _is_made(_plain(guess)) or os.environ.get(READING) else lambda *values, **options: None


def show_after(shown: Any, *, guess: Any) -> Any:
    """`shown`, a figure that gives a prediction away, once there is a guess; before, a sentence in its place."""
    if _is_made(_plain(guess)) or os.environ.get(READING):
        return shown
    return Verdict(NOT_ATTEMPTED, "figure", "It answers the prediction. Write your guess, then run this cell again.")


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
    if re.fullmatch("[a-z]", str(truth)):
        alone = _BESIDE_LETTERS.sub("", str(guess).lower()).strip()
        if alone == truth or re.match(rf"\W*{truth}\W", alone):  # "answer a", "a) the first"
            return True
    if _is_letters(str(truth)):
        letters = _letters(guess)
        if letters is not None:
            return letters == str(truth)
    written, wanted = (_canonical(text) for text in (guess, truth))
    allowed = 0 if len(wanted) < 5 else 1 if len(wanted) < 10 else 2
    return written == wanted or distance(written, wanted) <= allowed


def _unreadable(guess: Any, truth: Any) -> str | None:
    """A sentence for a guess of a kind that cannot be the truth's, or None. It does not tell the truth."""
    yours = str(guess) if isinstance(guess, Unsupported) else repr(guess)
    if isinstance(guess, str) and re.search(r"\bor\b", guess.lower()):
        return f"Write one guess, not several; yours is {yours}."
    if isinstance(truth, bool):
        return None if _truth_value(guess) is not None else f"Write True or False; yours is {yours}."
    if isinstance(truth, int | float):
        return None if _numbers(guess) else f"Write a number; yours is {yours}."
    if isinstance(guess, str | bool | int | float) or (isinstance(guess, list) and all(_is_word(x) for x in guess)):
        return None
    kind = yours if isinstance(guess, Unsupported) else f"of the type {type(guess).__name__}"
    return f"Write a word or letters, in quotes; yours is {kind}."


def _plain(value: Any) -> Any:
    """numpy's and torch's values as Python's, other sequences as lists, a list of one as its element; Unsupported for
    what no guess can be, and infinity for a whole number that no float holds."""
    value = supported(value)
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
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
    words = re.findall(r"[\w'\u2019]+", guess.casefold().removesuffix(".0")) if isinstance(guess, str) else []
    yes, no = [word for word in words if word in _YES], [word for word in words if word in _NO]
    if not words or words[0] not in _YES | _NO or (yes and no):
        return None
    return bool(yes)


def _numbers(guess: Any) -> list[float]:
    """The numbers that a guess can mean: "1,000" is a thousand, and one written with a decimal comma."""
    if isinstance(guess, int | float) and not isinstance(guess, bool):
        return [float(guess)]
    if not isinstance(guess, str):
        return []
    text = unicodedata.normalize("NFKC", guess).lower().replace("\u2044", "/").replace("\u2212", "-")
    text = re.sub(r"(?<=\d)[ _'\u2019](?=\d{3}(?!\d))", "", text)  # 1 000, 1_000, 1'000
    text = re.sub(r"\b(?:math|np|numpy|torch)\.(?=log)", "", text).replace("per cent", "percent")
    logarithm = re.search(r"(-?)\s*\b(ln|log(?:2|10)?)\b\W*(\d.*)", text)
    if logarithm:
        inner = [number for number in _numbers(logarithm[3]) if number > 0]
        return [(-1 if logarithm[1] else 1) * _LOGARITHMS[logarithm[2]](number) for number in inner]
    for pattern, value in (
        (r"(\d+)\s*[/:]\s*([1-9]\d*)", lambda a, b: a / b),
        (r"(\d{1,4})\s*(?:\^|\*\*)\s*(\d{1,2})(?!\d)", lambda a, b: float(a**b)),
    ):
        found = re.search(pattern, text)
        if found:
            return [value(int(found[1]), int(found[2]))]
    digits = _NUMBER.search(text)
    numbers, rest = (_readings(digits[0]), text[digits.end() :]) if digits else _number_words(text)
    share = re.match(r"\s*and a (half|third|quarter)\b", rest)
    if share:
        numbers, rest = [number + _SHARES[share[1]] for number in numbers], rest[share.end() :]
    scale = -1.0 if re.match(r"\W*minus\b", text) else 1.0
    while (unit := re.match(r"\s*(?:an? )?([a-z]+|%)", rest)) and unit[1] in _SCALES | _SHARES:
        scale, rest = scale * (_SCALES | _SHARES)[unit[1]], rest[unit.end() :]
    return [scale * number for number in numbers]


def _readings(digits: str) -> list[float]:
    """What a number in digits can mean: a comma or a dot may stand before decimals or between thousands."""
    digits = digits.rstrip(".,")
    readings = {digits.replace(",", ""), digits.replace(",", "."), digits.replace(".", "").replace(",", ".")}
    if "," not in digits:
        readings = {digits, digits.replace(".", "")} if re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+", digits) else {digits}
    elif digits.count(",") > 1:
        readings = {digits.replace(",", "")}
    numbers = []
    for reading in readings:
        try:
            numbers.append(float(reading))
        except ValueError:  # "2.3,4.5" has readings that are no numbers
            continue
    return numbers


def _number_words(text: str) -> tuple[list[float], str]:
    """The first number that a text tells in words, and what follows: "a thousand and twenty-four", "two thirds"."""
    words = re.findall(r"[a-z]+", text.removeprefix("minus ").replace("fold", ""))
    first = next((i for i, word in enumerate(words) if word in _WORDS or _is_unit(word)), None)
    if first is None or (words[first] in ("a", "an") and not any(map(_is_unit, words[first + 1 : first + 2]))):
        return [], ""
    thousands, below, end = 0.0, float(_WORDS.get(words[first], 1)), first + (words[first] in _WORDS)
    while end < len(words):
        word, after = words[end], words[end + 1 : end + 2]
        if word == "hundred":
            below *= 100
        elif word in _SCALES and _is_unit(word):
            thousands, below = thousands + below * _SCALES[word], 0.0
        elif _fits_behind(word, below):
            below += _WORDS[word]
        elif word != "and" or not (after and _fits_behind(after[0], below)):
            break
        end += 1
    number, rest = thousands + below, words[end:]
    if rest[:1] == ["point"] and rest[1:]:
        decimals = "".join(str(_UNITS.index(word)) for word in rest[1:] if word in _UNITS[:10])
        number, rest = float(f"{number:.0f}.{decimals or 0}"), rest[1 + len(decimals) :]
    return [number], " ".join(rest)


def _fits_behind(word: str, number: float) -> bool:
    """Whether a word below a hundred goes on with a number: "five" behind 20, 100 and 0, not behind 12 or 25."""
    if word not in _UNITS and word not in _TENS:
        return False
    return number % 100 == 0 if _WORDS[word] >= 10 else number % 10 == 0 and number % 100 != 10


def _is_unit(word: str) -> bool:
    return len(word) > 2 and (word in _SCALES or word in _SHARES)


def _is_letters(truth: str) -> bool:
    """Whether a truth is a set of letters in order, as in "which of a to f"."""
    return len(truth) > 1 and truth.isalpha() and truth.islower() and list(truth) == sorted(set(truth))


def _letters(guess: Any) -> str | None:
    """The letters of a guess such as "c, b and e", ["b", "c"], "b to e" or "BCE", in order; None for other words."""
    text = _BESIDE_LETTERS.sub(" ", (" ".join(guess) if isinstance(guess, list) else str(guess)).lower())
    span = re.fullmatch(r"\W*([a-z])\s*(?:-|\u2013|to)\s*([a-z])\W*", text)
    if span:
        return "".join(chr(code) for code in range(ord(span[1]), ord(span[2]) + 1))
    pieces = re.findall(r"[a-z]+", text)
    if len(pieces) > 1 and any(len(piece) > 1 for piece in pieces):
        return None
    return "".join(sorted(set("".join(pieces))))


def _canonical(text: Any) -> str:
    """Lower case, without fillers and without anything but letters and digits."""
    words = (" ".join(text) if isinstance(text, list) else str(text)).casefold()
    return re.sub(r"[\W_]+", "", _FILLERS.sub("", words)) or re.sub(r"[\W_]+", "", words)


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
