"""What every kind of question is made with: the answer's forms and draws without the right one."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..scene import CATEGORIES, COLORS, KINDS, SIZES, Thing, pick
from ..words import groups, join

#: A question and its answer; None where the scene allows no unambiguous question.
Asked = tuple[str, str] | None

#: What things can be told apart or put together by -> all that it can be.
VALUES: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "category": tuple(CATEGORIES),
    "color": tuple(COLORS),
    "size": tuple(SIZES),
}


def listed(things: Sequence[Thing]) -> str:
    """`"two red boats and a blue fish"`, in the order given; `"none"` for no thing."""
    return join(groups(list(things), "color")) if things else "none"


def listed_others(things: Sequence[Thing]) -> str:
    """The same of the things besides one; of none of them it is said."""
    return listed(things) if things else "there is no other thing"


def repeated(values: Sequence[str]) -> list[str]:
    """The values that are there more than once, sorted."""
    return sorted({value for value in values if values.count(value) > 1})


def yes_no(true: bool) -> str:
    """The answer to a question for yes or no."""
    return "yes" if true else "no"


def another(rng: Random, values: Sequence[str], than: str) -> str:
    """One of the values, and not this one."""
    return pick(rng, [value for value in values if value != than])
