"""Which wrong function gives these wrong values: a known mistake, two of them, or the library's function with a change.

`WrongFunctions` is where to begin. It looks at the values alone; diagnosis.py also calls the student's function.

Notes:

* An answer of several parts is explained by its first wrong part: another one may be wrong for another reason.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.changes import as_changed_answer
from blip2_lab.teaching.checks.comparison import (
    diagnose,
    has_its_parts,
    has_nan,
    ignores_input,
    of_one_form,
    on_one_line,
    parts_of,
    too_much_or_too_little,
)
from blip2_lab.teaching.checks.exercise import Exercise
from blip2_lab.teaching.checks.explanations import Candidates

#: Changes of an argument that few students make: the change of an expression is told rather than these.
FAR_FETCHED = ("softmax", "logarithm", "exp of", "sigmoid", "tanh", "GELU")


@dataclass(frozen=True)
class WrongFunctions:
    """The wrong functions that give the values of an answer. Each method tells one in words, or "" where there is none.

    got       the student's values (or errors), for each case
    expected  the library's, for each case
    first     the number of the first case in which they differ
    """

    exercise: Exercise
    got: Sequence[Any]
    expected: Sequence[Any]
    first: int

    @property
    def order(self) -> list[int]:
        """The numbers of the cases, the first wrong one first."""
        return [self.first, *(number for number in range(len(self.got)) if number != self.first)]

    @cached_property
    def fails(self) -> bool:
        """Whether the student's function stops with an error in some case."""
        return any(isinstance(value, BaseException) for value in self.got)

    # --- Known mistakes ---------------------------------------------------------------------------------------------

    @cached_property
    def closest(self) -> str:
        """The known mistake that gives the same values, or all but few of them: that of the first case and half of the
        wrong ones are among those that it gives, and all of them if it gives more others than these."""
        pairs = zip(self.got, self.expected, strict=True)
        wrong = {number for number, (ours, right) in enumerate(pairs) if not self._same(ours, right)}
        allowed = max(1, len(self.got) // 7) if len(self.got) > 2 else 0
        closest, fewest = "", allowed + 1
        for message in self.exercise.mistakes:
            if self._is_mistake(message, self.first):
                differing = self._differing(message)
                explained = wrong.difference(differing)
                likely = 2 * len(explained) >= len(wrong) and len(explained) >= min(len(wrong), len(differing))
                if likely and len(differing) < fewest:
                    closest, fewest = message, len(differing)
                if not differing:
                    break
        return closest

    def _differing(self, message: str) -> list[int]:
        """The cases in which the values are not a known mistake's."""
        return [number for number in range(len(self.got)) if not self._is_mistake(message, number)]

    def _is_mistake(self, message: str, number: int) -> bool:
        """Whether a known mistake gives this value, or 0 where the student's function divides 0 by 0."""
        ours, wrong = self.got[number], self.exercise.wrong_value(message, number)
        return (
            self._same(ours, wrong)
            or (has_nan(ours) and self._same(ours.nan_to_num(nan=0.0), wrong))
            or (self._is_float_for_int and type(wrong) is int and ours == wrong)
        )

    @cached_property
    def _is_float_for_int(self) -> bool:
        """Whether the student's function gives floats where whole numbers are right, and a wrong number, too."""
        first = self.got[self.first]
        kinds = {type(value) for value in self.expected}, {type(value) for value in self.got}
        return kinds == ({int}, {float}) and first != self.expected[self.first]

    @property
    def telling(self) -> list[str]:
        """The known mistakes that may be made beside another one: what is right in spite of both is right with this one
        alone, and this one alone is not farther from the right answer. Else it is the other change that makes it. None
        where the answers are choices, which agree by chance."""
        if self.fails or not any(map(_has_fractions, self.expected)):
            return []
        right = [number for number in range(len(self.got)) if self._same(self.got[number], self.expected[number])]
        kept = {message: self.exercise.wrong_values(message) for message in self.exercise.mistakes}
        return [
            message
            for message, wrong in kept.items()
            if not any(isinstance(value, BaseException) for value in wrong)
            and not ignores_input(wrong, self.expected)
            and all(self._same(wrong[number], self.expected[number]) for number in right)
            and _distance(wrong, self.expected) <= _distance(self.got, self.expected)
        ]

    def known_mistake(self) -> str:
        """The closest one, if the values differ from its own only where the student's function stops with an error: it
        is then the same mistake, in code that also fails on a case of another form."""
        if not self.closest:
            return ""
        stops = all(isinstance(self.got[number], BaseException) for number in self._differing(self.closest))
        return self.closest if stops else ""

    def two_mistakes(self) -> str:
        """Two known mistakes that give these values together, where their functions can be combined."""
        found = self.exercise.pairs.explaining(self.order, lambda case, value: self._same(self.got[case], value))
        return next((f"There are two mistakes. {words}" for words, _ in found), "")

    def mistake_in_a_part(self) -> str:
        """The known mistake in a part of the answer, beside another one in another part."""
        for message in self.exercise.mistakes if isinstance(self.expected[self.first], tuple) else ():
            if self._has_its_parts(self.exercise.wrong_values(message)):
                return message
        return ""

    # --- A change of the right answer, or of the library's function -------------------------------------------------

    def likely_change(self) -> str:
        """The change of the right answer, of a part of it, or of the library's function that explains all answers."""
        if len(self.got) < 2 or self.fails:
            return ""  # one case can be explained by chance
        arguments, expressions, helpers, *_ = self.exercise.candidates
        change = as_changed_answer(self.got, self.expected, self._same) or self._changed_part()
        if change:
            return change
        argument = self._changed_function(arguments)
        if any(word in argument for word in FAR_FETCHED):
            return self._changed_function(expressions) or argument
        return (
            argument
            or self._more_of_a_mistake()
            or self._changed_function(expressions)
            or self._changed_function(helpers)
        )

    def unlikely_change(self) -> str:
        """A change of the library's function that only a few make: of two expressions, of a known mistake."""
        if len(self.got) < 2 or not all(map(of_one_form, self.got, self.expected)):
            return ""
        mistake = self._changed_mistake() or self._mistake_of_changed_arguments()
        return mistake or next(filter(None, map(self._changed_function, self.exercise.candidates[3:])), "")

    def _changed_mistake(self) -> str:
        """The known mistake that gives these answers if what it returns is changed, too."""
        tolerance = self.exercise.tolerance
        for message in self.exercise.mistakes:
            wrong = self.exercise.wrong_values(message)
            if any(isinstance(value, BaseException) for value in wrong) or ignores_input(wrong, self.expected):
                continue
            if diagnose(wrong, self.expected, tolerance):
                continue  # a factor, say: with another one it explains every other factor
            change = as_changed_answer(self.got, wrong, self._same) or diagnose(self.got, wrong, tolerance)
            if change and not change.startswith("Yours is zeros"):
                second = change.replace("the right answer", "the answer so far")
                return f"{message} And there is a second mistake. {second}"
        return ""

    def _mistake_of_changed_arguments(self) -> str:
        """The known mistake that gives these answers if a number, or a mask, among its arguments is changed, too."""
        for message, candidates in self.exercise.changed_mistakes:
            second = self._changed_function(candidates)
            if second:
                return f"{message} And there is a second mistake. {second.replace('the right', 'the')}"
        return ""

    def _more_of_a_mistake(self) -> str:
        """The known mistake that was made to another degree: all answers lie on the line from the right one to it."""
        for message in self.exercise.mistakes:
            wrong = self.exercise.wrong_values(message)
            on_line = not ignores_input(wrong, self.expected)
            if on_line and on_one_line(self.expected, wrong, self.got, self.exercise.tolerance):
                return f"Something like this: {message}"
        return ""

    def _changed_function(self, candidates: Candidates) -> str:
        """The change of the library's function that gives these answers, or the first wrong part of them."""

        def fits(case: int, value: Any) -> bool:
            return not isinstance(value, BaseException) and self._partly_same(self.got[case], value)

        for words, wrong in candidates.explaining(self.order, fits):
            if all(map(self._same, self.got, wrong)) or self._has_its_parts(wrong):
                return f"{self._first_wrong_part()}Yours is the right answer {words}."
        return ""

    # --- Values, and answers of several parts -----------------------------------------------------------------------

    def _same(self, got: Any, expected: Any) -> bool:
        return self.exercise.same(got, expected)

    def _has_its_parts(self, wrong: list) -> bool:
        return has_its_parts(self.got, wrong, self.expected, self.exercise.tolerance)

    def _first_wrong_part(self) -> str:
        """ "`low` differs. ", where the parts of an answer have names."""
        for number, name in enumerate(self.exercise.parts if isinstance(self.expected[0], tuple) else ()):
            pairs = zip(self.got, self.expected, strict=True)
            if not all(self._same(parts_of(ours)[number], theirs[number]) for ours, theirs in pairs):
                return f"`{name}` differs. "
        return ""

    def _partly_same(self, got: Any, wrong: Any) -> bool:
        """Equal, or of equal parts in some place."""
        ours, theirs = parts_of(got), parts_of(wrong)
        if not isinstance(wrong, tuple) or ours is None or theirs is None:
            return self._same(got, wrong)
        return any(self._same(a, b) for a, b in zip(ours, theirs, strict=False))

    def _changed_part(self) -> str:
        """The change of the first wrong part."""
        ours, theirs = ([parts_of(value) for value in values] for values in (self.got, self.expected))
        if not isinstance(self.expected[self.first], tuple) or any(part is None for part in ours):
            return ""
        if len({len(parts) for parts in (*ours, *theirs)}) > 1:
            return ""
        for number, (wrong, right) in enumerate(zip(ours[self.first], theirs[self.first], strict=True)):
            if not self._same(wrong, right):
                a, b = ([parts[number] for parts in values] for values in (ours, theirs))
                message = diagnose(a, b, self.exercise.tolerance) or as_changed_answer(a, b, self._same)
                message = message or too_much_or_too_little(a, b, self.exercise.tolerance) or self._of_pairs(a, b)
                parts = self.exercise.parts
                name = f"`{parts[number]}`" if parts else f"Part {number + 1} of your answer"
                return f"{name} differs. {message}" if message else ""
        return ""

    def _of_pairs(self, got: list, expected: list) -> str | None:
        """What is too much or too little in all tensors of a part that holds several."""
        rows = [[parts_of(value) for value in values] for values in (got, expected)]
        if not isinstance(expected[0], tuple) or any(
            not parts or len(parts) != len(expected[0]) for parts in sum(rows, [])
        ):
            return None
        ours, theirs = ([part for parts in values for part in parts] for values in rows)
        return too_much_or_too_little(ours, theirs, self.exercise.tolerance)


def _distance(one: Any, other: Any) -> float:
    """The sum of all differences of numbers, infinite where something has another form."""
    a, b = ([value] if isinstance(value, Tensor) else parts_of(value) for value in (one, other))
    if a is None or b is None:
        usable = all(isinstance(value, int | float) for value in (one, other))
        return abs(one - other) if usable else math.inf
    if len(a) != len(b):
        return math.inf
    if not isinstance(other, Tensor):
        return sum(map(_distance, a, b))
    if not isinstance(one, Tensor) or one.shape != other.shape:
        return math.inf
    return float((one.detach().double() - other.detach().double()).abs().sum().nan_to_num(nan=math.inf))


def _has_fractions(value: Any) -> bool:
    """Whether there is a number in it that is no whole one."""
    parts = parts_of(value)
    if isinstance(value, Tensor) or parts is None:
        return isinstance(value, Tensor | float) and bool((torch.as_tensor(value).detach().double() % 1 != 0).any())
    return any(map(_has_fractions, parts))
