"""Checks of notebook 14, first half: pictures that are held out, and the best step of a run on them.

Paper: sections 4.2 to 4.4. Notebook: 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from torch import Tensor

from blip2_lab.doctor.own_images import OVERFITTED
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.variants import variants_of

# --- Hold out pictures ----------------------------------------------------------------------------------------------


def hold_out(files: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    """The rows of a table -> numbers of the rows to train on, and of the rows of `count` pictures, drawn by `seed`."""
    pictures = sorted(set(files))
    held_out = set(Random(seed).sample(pictures, count))
    rows = range(len(files))
    return [i for i in rows if files[i] not in held_out], [i for i in rows if files[i] in held_out]


ALBUM = ("a.png", "a.png", "b.png", "c.png", "c.png", "c.png", "d.png", "e.png", "f.png", "f.png", "g.png", "h.png")
MIXED = ("z.jpg", "a.jpg", "z.jpg", "b.jpg", "a.jpg", "c.jpg", "z.jpg", "d.jpg", "e.jpg", "f.jpg", "d.jpg")
SEEDS = range(12)


def _hold_out_cases() -> list[Case]:
    return [
        Case("12 rows of 8 pictures, 3 held out", (list(ALBUM), 3)),
        Case("11 rows of 7 pictures, the rows of a picture not together, 2 held out", (list(MIXED), 2)),
    ]


def _numbers(part: Any) -> list[int] | None:
    """A list of whole numbers in any form, or None."""
    if isinstance(part, Tensor | np.ndarray) and part.ndim == 1 and str(getattr(part, "device", "")) != "meta":
        part = part.tolist()
    part = list(part) if isinstance(part, tuple | list | range | set | frozenset) else None
    if part is None or any(isinstance(i, bool) or not isinstance(i, int | np.integer) for i in part):
        return None
    return [int(i) for i in part]


class _Name(str):
    """A file's name that a set puts in another place, as the next start of Python would."""

    salt = 0

    def __hash__(self) -> int:
        return hash((self.salt, str(self)))


def _by_the_order_of_a_set(function: Callable, files: Sequence[str], count: int, split: tuple[list, list]) -> bool:
    """Whether the split depends on the order that a set of the names happens to have."""
    for salt in (1, 2, 3):
        names = [_Name(name) for name in files]
        for name in names:
            name.salt = salt
        try:
            found = [_numbers(part) for part in function(names, count, SEEDS[0])]
        except Exception:  # a function that turns the names into others: nothing is told of it
            return False
        drawn = {files[i] for i in found[1]} if len(found) == 2 and None not in found else set()
        if len(drawn) == count and tuple(found) != split:
            return True
    return False


def _properties(function: Callable, args: tuple) -> Any:
    """What must be true of any split: the draw itself is free."""
    files, count = args
    splits, untouched = [], True
    for seed in (*SEEDS, *SEEDS):
        given = list(files)
        found = function(given, count, seed)
        untouched = untouched and given == list(files)
        parts = [_numbers(part) for part in found] if isinstance(found, tuple | list) and len(found) == 2 else [None]
        if None in parts:
            return found
        splits.append(tuple(parts))
    again = splits[len(SEEDS) :]
    splits = splits[: len(SEEDS)]
    if any(not 0 <= i < len(files) for split in splits for part in split for i in part):
        return "numbers that are no rows"
    drawn = [frozenset(files[i] for i in test) for _, test in splits]
    often = {name: sum(name in one for one in drawn) for name in set(files)}
    first, last = files[0], files[-1]
    sizes = {len(one) - count for one in drawn}
    return {
        "input as before": untouched,
        "pictures on both sides": any({files[i] for i in train} & {files[i] for i in test} for train, test in splits),
        "rows twice": any(len(set(train + test)) < len(train + test) for train, test in splits),
        "rows lost": sorted({_whose(files, train, test) for train, test in splits}),
        "held out, more than asked": "varies" if len(sizes) > 1 else sizes.pop(),
        "sides exchanged": all(len({files[i] for i in train}) == count for train, _ in splits),
        "another split for the same seed": splits != again,
        "by the order of a set": _by_the_order_of_a_set(function, files, count, splits[0]),
        "the same split for every seed": len(set(drawn)) == 1,
        "few different splits": len(set(drawn)) <= len(SEEDS) // 3,
        "always the first picture": often[first] == len(SEEDS),
        "always the last picture": often[last] == len(SEEDS),
    }


def _whose(files: Sequence[str], train: list[int], test: list[int]) -> str:
    """Of which pictures rows are on neither side."""
    lost = {files[i] for i in range(len(files))} if not train + test else set()
    lost |= {files[i] for i in set(range(len(files))) - set(train) - set(test)}
    return "none" if not lost else "held out" if lost <= {files[i] for i in test} else "others"


_HELD_OUT_MESSAGES = {
    "input as before": "Your function changes its input in place, so its rows have other numbers now. Work on a copy.",
    "rows lost": "Rows are lost: every row is on one of the two sides.",
    "rows twice": "A row is there twice: every row is on one side, once.",
    "pictures on both sides": "A picture is on both sides: all rows of a picture go together.",
    "another split for the same seed": "The same seed gives another split: draw with Random(seed).",
    "by the order of a set": "Pictures are drawn from a set in the order that it happens to have, which is another one "
    "at the next start of Python: sort them, sorted(set(files)).",
    "the same split for every seed": "Every seed gives the same split: draw the pictures with Random(seed).",
    "few different splits": "Different seeds give few different splits: draw the pictures with Random(seed).",
    "held out, more than asked": "The number of pictures that are held out is not `count`.",
}


def _hold_out_rules(case: Case, got: Any, expected: dict) -> str | None:
    if isinstance(got, str) and got.startswith("numbers"):
        return "There are numbers that are no rows: rows are counted from 0."
    parts = got if isinstance(got, tuple | list) and len(got) == 2 else ()
    if any(isinstance(part, list) and part and isinstance(part[0], str) for part in parts):
        return "Names are returned: return the numbers of the rows."
    if not isinstance(got, dict):
        return f"Return two lists, the rows to train on and the rows held out; yours is {describe(got)}."
    return next((text for name, text in _HELD_OUT_MESSAGES.items() if got[name] != expected[name]), None)


def _split_rows(files: Sequence[str], chosen: Callable[[int], bool]) -> tuple[list[int], list[int]]:
    rows = range(len(files))
    return [i for i in rows if not chosen(i)], [i for i in rows if chosen(i)]


def _rows_drawn(files: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    drawn = set(Random(seed).sample(range(len(files)), count))
    return _split_rows(files, lambda i: i in drawn)


def _pictures_of(choose: Callable[[list[str], int, int], Sequence[str]]) -> Callable:
    def split(files: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
        drawn = set(choose(list(dict.fromkeys(files)), count, seed))
        return _split_rows(files, lambda i: files[i] in drawn)

    return split


def _one_row_each(files: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    train, test = hold_out(files, count, seed)
    return train, [i for n, i in enumerate(test) if files[i] not in {files[j] for j in test[:n]}]


def _one_row_trained(files: Sequence[str], count: int, seed: int) -> tuple[list[int], list[int]]:
    train, test = hold_out(files, count, seed)
    return [i for n, i in enumerate(train) if files[i] not in {files[j] for j in train[:n]}], test


hold_out_pictures = Check(
    "hold_out_pictures",
    hold_out,
    _hold_out_cases,
    "All rows of a picture are on one side, every row is used once, and the seed alone decides which.",
    {
        "Rows are drawn, not pictures: a picture with several captions is then trained on and tested.": _rows_drawn,
        "The first pictures are held out: a folder is often sorted, so draw them.": _pictures_of(lambda p, n, s: p[:n]),
        "The last pictures are held out: a folder is often sorted, so draw them.": _pictures_of(lambda p, n, s: p[-n:]),
        "The two sides are exchanged: the rows to train on come first.": lambda f, n, s: hold_out(f, n, s)[::-1],
        "The held-out rows are trained on as well: take them out of the first list.": (
            lambda f, n, s: (list(range(len(f))), hold_out(f, n, s)[1])
        ),
        "Held-out pictures keep one row only: all of their rows belong to the held-out side.": _one_row_each,
        "Pictures that are trained on keep one row only: all of their captions can be trained on.": _one_row_trained,
        "One picture too many is held out.": lambda f, n, s: hold_out(f, n + 1, s),
        "One picture too few is held out.": lambda f, n, s: hold_out(f, n - 1, s),
        "The seed is not used: everybody gets the same split, and no second one can be tried.": (
            lambda f, n, s: hold_out(f, n, 3)
        ),
        "Nothing is held out: the second list is empty.": lambda f, n, s: (list(range(len(f))), []),
        "Fewer than `count` pictures are held out: were some drawn twice, or rows counted in the place of pictures?": (
            _pictures_of(lambda p, n, s: Random(s).choices(p, k=n))
        ),
        "The names of the files are returned: return the numbers of the rows.": (
            lambda f, n, s: tuple([f[i] for i in part] for part in hold_out(f, n, s))
        ),
        "Rows are counted from 1: the first row has the number 0.": (
            lambda f, n, s: tuple([i + 1 for i in part] for part in hold_out(f, n, s))
        ),
    },
    rules=(_hold_out_rules,),
    run=_properties,
)

# --- The best step --------------------------------------------------------------------------------------------------


def choose_step(held_out: Sequence[tuple[int, float]], tolerance: float = OVERFITTED) -> tuple[int, bool]:
    """(step, loss on held-out pictures) of a run -> the step whose weights to keep, and whether the run overfits.

    It overfits if its last loss is larger than `tolerance` times its lowest.
    """
    best, step = min((loss, step) for step, loss in held_out)
    return step, held_out[-1][1] > tolerance * best


def _step_cases() -> list[Case]:
    runs = {
        "falls, then rises": [(10, 2.0), (20, 1.5), (30, 1.2), (40, 1.3), (50, 1.9)],
        "still falls": [(10, 2.0), (20, 1.0), (30, 0.9)],
        "rises a little, within 3 %": [(5, 1.0), (10, 0.50), (15, 0.51)],
        "rises and falls again": [(10, 1.0), (20, 1.4), (30, 0.8)],
        "rises slowly, step by step": [(10, 1.0), (20, 1.02), (30, 1.04), (40, 1.06)],
        "rises by 4 %": [(5, 1.0), (10, 0.50), (15, 0.52)],
        "rises by 4 %, from a high level": [(5, 9.0), (10, 5.0), (15, 5.2)],
        "rises a lot, from a very high level": [(5, 90.0), (10, 50.0), (15, 60.0)],
        "the same loss twice": [(10, 0.7), (20, 0.6), (30, 0.6), (40, 0.9)],
        "higher at its end than at its start": [(100, 1.0), (200, 0.9), (300, 1.1)],
        "ends below its start, above its lowest": [(1, 3.0), (2, 1.0), (3, 2.0)],
        "rises before its end and comes back": [(10, 1.0), (20, 0.5), (30, 0.8), (40, 0.51)],
        "one evaluation": [(10, 1.0)],
    }
    cases = [Case(f"a loss that {name}: {run}" if " " in name else name, (run,)) for name, run in runs.items()]
    wide = [(10, 1.0), (20, 1.15)]
    exact = [(10, 2.0), (20, 3.0)]
    return [
        *cases,
        Case(f"tolerance 1.2: {wide}", (wide, 1.2)),
        Case(f"tolerance 1.5, and the last loss is exactly 1.5 times the lowest: {exact}", (exact, 1.5)),
    ]


@variants_of
def _step_but(
    step: Callable[[Sequence[tuple[int, float]]], int] = lambda run: choose_step(run)[0],
    overfits: Callable[[Sequence[tuple[int, float]], float], bool] = lambda run, t: choose_step(run, t)[1],
) -> Callable:
    def wrong(held_out: Sequence[tuple[int, float]], tolerance: float = OVERFITTED) -> tuple[int, bool]:
        return step(held_out), overfits(held_out, tolerance)

    return wrong


def _lowest(run: Sequence[tuple[int, float]]) -> float:
    return min(loss for _, loss in run)


def _first_rise(run: Sequence[tuple[int, float]]) -> int:
    """The step before the loss rises for the first time."""
    return next((a[0] for a, b in zip(run, run[1:], strict=False) if b[1] > a[1]), run[-1][0])


def _step_rules(case: Case, got: Any, expected: tuple[int, bool]) -> str | None:
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    step, overfits = got
    if isinstance(step, bool) and isinstance(overfits, int):
        return "Exchanged: the step comes first, then whether the run overfits."
    if isinstance(step, bool) or not isinstance(step, int):
        return f"The step is to be a whole number; yours is {describe(step)}."
    if step != expected[0]:
        return f"The step is {step} and should be {expected[0]}: the one with the lowest loss, the first of several."
    if not isinstance(overfits, bool):
        return f"Whether it overfits is True or False; yours is {describe(overfits)}."
    return (
        f"The step is right. You say {overfits}: compare the last loss with `tolerance` times the lowest. "
        f"It is {case.args[0][-1][1] / _lowest(case.args[0]):.3g} times the lowest."
    )


best_step = Check(
    "best_step",
    choose_step,
    _step_cases,
    "The lowest loss on held-out pictures chooses the weights, and the last one says whether the run went too far.",
    {
        "The last step is kept: it has the lowest loss on the pictures it was trained on, not on others.": (
            _step_but(lambda run: run[-1][0])
        ),
        "The place in the list is returned: return the step.": (
            _step_but(lambda run: min(range(len(run)), key=lambda i: run[i][1]))
        ),
        "The highest loss is chosen: the lowest is the best.": _step_but(lambda run: max(run, key=lambda r: r[1])[0]),
        "The lowest loss is returned: return its step.": _step_but(_lowest),
        "You stop at the first rise: a loss may rise and fall again.": _step_but(_first_rise),
        "Every rise counts as overfitting: a loss varies, so allow for `tolerance`.": (
            _step_but(overfits=lambda run, t: run[-1][1] > _lowest(run))
        ),
        "The last loss is compared with the first one: a run that fell a long way and rose again overfits, too.": (
            _step_but(overfits=lambda run, t: run[-1][1] > t * run[0][1])
        ),
        "The last loss is compared with the one before it: a slow rise is missed, and a fall back is.": (
            _step_but(overfits=lambda run, t: len(run) > 1 and run[-1][1] > t * run[-2][1])
        ),
        "The highest loss is compared, not the last: a loss that came down again is no overfitting.": (
            _step_but(overfits=lambda run, t: max(loss for _, loss in run) > t * _lowest(run))
        ),
        "A rise between two evaluations counts: what the run ends with is asked for.": (
            _step_but(overfits=lambda run, t: any(b[1] > t * a[1] for a, b in zip(run, run[1:], strict=False)))
        ),
        "That is the opposite: True where the loss has risen again.": (
            _step_but(overfits=lambda run, t: not choose_step(run, t)[1])
        ),
        "It never overfits in yours.": _step_but(overfits=lambda run, t: False),
        "It always overfits in yours.": _step_but(overfits=lambda run, t: True),
        "Of equal losses the first is the best: it needed fewer steps.": (
            _step_but(lambda run: max(step for step, loss in run if loss == _lowest(run)))
        ),
        "`tolerance` is not used: another one gives the same verdict.": (
            _step_but(overfits=lambda run, t: choose_step(run)[1])
        ),
        "The last loss is compared with `tolerance` itself: it is a factor of the lowest loss.": (
            _step_but(overfits=lambda run, t: run[-1][1] > t)
        ),
        "The tolerance is added to the lowest loss: it is a factor.": (
            _step_but(overfits=lambda run, t: run[-1][1] > _lowest(run) + t - 1)
        ),
        "A last loss of exactly `tolerance` times the lowest counts: it must be more than that.": (
            _step_but(overfits=lambda run, t: len(run) > 1 and run[-1][1] >= t * _lowest(run))
        ),
        "One thing is returned: return the step and whether it overfits.": lambda run, t=1.03: choose_step(run, t)[0],
    },
    rules=(_step_rules,),
    parts=("step", "overfits"),
)
