"""Try the values of the library's calculation in the place of each expression of a student's function.

`patched_step` is where to begin. It gives an expression of the student's function the value that a step of the
library's has, in every case, and looks whether the answers are right then.

Notes:

* An expression that only looks strange is never named: in many right answers the intermediate values are others than
  the library's. What is named was tried, so what is said is true, whatever the student wrote.
* The expression that is computed first is named. What is computed of a wrong value is wrong, too.
* In interpretability, activation patching is the same: a value of one run in the place of another run's.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.mutants import HUGE, Expression, expressions_of
from blip2_lab.teaching.checks.steps import Key, Step, close, is_constant, numbers_of, same_numbers, shortened

Attempt = Callable[[Callable, int], Any]  #: a function and the number of a case -> its value, or its error
Fits = Callable[[int, Any], bool]  #: the number of a case, a value
Way = str | tuple[int, int]  #: how numbers are arranged: as they are, for all alike, with one dimension moved

_SHORT = 10  #: letters of an expression that is shown with the one around it


@dataclass(frozen=True)
class Patch:
    """The value of a step of the library's in the place of an expression of the student's function.

    several  whether the expression has several values, in a loop say
    steps    the library's, for each case
    """

    expression: Expression
    key: Key
    way: Way
    several: bool
    steps: Mapping[int, Mapping[Key, Step]]

    def value(self, case: int, attempt: Attempt) -> Any:
        """What the student's function gives then, or None where the value does not fit in."""
        ours = values_of(self.expression, case, attempt)
        if not ours:
            return attempt(self.expression.function_with(_as_it_is), case)
        form = numbers_of(ours)
        theirs = numbers_of(self.steps[case][self.key].values) if self.key in self.steps[case] else None
        arranged = None if form is None or theirs is None else _arranged(theirs, form.shape, self.way)
        if arranged is None:
            return None
        following = iter(arranged)
        return attempt(self.expression.function_with(lambda value: _of_kind(next(following), value)), case)

    @property
    def told(self) -> str:
        """In words, as far as "then"."""
        text, around = self.expression.text, self.expression.around
        is_part = isinstance(around, ast.expr) and len(text) < _SHORT
        inside = f" in `{shortened(ast.unparse(around))}`" if is_part else ""
        step = next(steps[self.key] for steps in self.steps.values() if self.key in steps)
        parts = ", part by part," if self.several and self.way != "alike" else ""
        return f"`{shortened(text)}`{inside} should be{parts} what the library computes by {step.told}; then"


def patched_step(
    answer: Callable, steps: Mapping[int, Mapping[Key, Step]], attempt: Attempt, right: Fits, at_most: int
) -> Patch | None:
    """The first patch that makes all answers right, or None.

    steps    the library's, for each case, one with a wrong answer first
    attempt  the value of a function for a case
    right    whether a value is right for a case
    at_most  as many patches are tried
    """
    for patch in itertools.islice(_patches(answer, steps, attempt, at_most), at_most):
        if all(right(case, patch.value(case, attempt)) for case in steps):
            return patch
    return None


def without_results(steps: Mapping[int, Mapping[Key, Step]], results: Sequence[Any]) -> dict[int, dict[Key, Step]]:
    """Without the steps that are the answer, become it when they are divided by their sum, or are a multiple of it, in
    every case: put where an answer is returned, they make any function right."""
    keys = dict.fromkeys(key for there in steps.values() for key in there)
    kept = [
        key
        for key in keys
        if not _are_results([(there[key], results[case]) for case, there in steps.items() if key in there])
    ]
    return {case: {key: there[key] for key in kept if key in there} for case, there in steps.items()}


def _are_results(steps_and_results: Sequence[tuple[Step, Any]]) -> bool:
    pairs = [(numbers_of(step.values), numbers_of([result])) for step, result in steps_and_results]
    if any(ours is None or theirs is None for ours, theirs in pairs):
        return False
    return all(_is_result(ours, theirs) for ours, theirs in pairs) or _is_multiple(pairs)


def _is_multiple(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether single numbers are the others times one factor, in more cases than one."""
    if len(pairs) == 1 or any(ours.numel() > 1 or theirs.numel() > 1 or not theirs.any() for ours, theirs in pairs):
        return False
    factors = torch.cat([ours.double().flatten() / theirs.double().flatten() for ours, theirs in pairs])
    return bool(factors[0]) and close(factors, factors[:1].expand_as(factors))


def _is_result(ours: Tensor, theirs: Tensor) -> bool:
    whole = [numbers.double() / numbers.double().abs().max() for numbers in (ours, theirs)]
    return same_numbers(ours, theirs) or (ours.numel() > 1 and same_numbers(*whole))


def _patches(
    answer: Callable, steps: Mapping[int, Mapping[Key, Step]], attempt: Attempt, at_most: int
) -> Iterator[Patch]:
    """Those that change something in the first case, but for right parts of right expressions.

    at_most  as many expressions are looked at
    """
    first, there = next(iter(steps.items()))
    own_first = sorted(there, key=lambda key: there[key].helper != "")
    theirs = {key: value for key in own_first if (value := numbers_of(there[key].values)) is not None}
    theirs = {key: value for key, value in theirs.items() if not _is_constant_in_all(key, steps)}
    in_order = sorted(expressions_of(answer), key=lambda found: (found.place.end, -found.place.start))[:at_most]
    values = {found.place.node: numbers_of(values_of(found, first, attempt)) for found in in_order}
    right = {node for node, ours in values.items() if ours is not None and _is_among(ours, theirs.values())}
    for expression in in_order:
        ours = values[expression.place.node]
        if ours is None or (expression.place.node in right and expression.around in right):
            continue
        tried = [ours]
        for key, value in theirs.items():
            for way in ("as it is", "alike", *itertools.permutations(range(value.ndim), 2)):
                changed = _arranged(value, ours.shape, way) if _may_replace(value, ours) else None
                if changed is not None and not any(close(changed, other) for other in tried):
                    tried.append(changed)
                    yield Patch(expression, key, way, len(ours) > 1, steps)


def _is_constant_in_all(key: Key, steps: Mapping[int, Mapping[Key, Step]]) -> bool:
    numbers = [numbers_of(there[key].values) for there in steps.values() if key in there]
    return all(value is not None and is_constant(value) for value in numbers)


def _is_among(ours: Tensor, theirs: Iterable[Tensor]) -> bool:
    return any(same_numbers(ours, value) for value in theirs)


def _may_replace(theirs: Tensor, ours: Tensor) -> bool:
    """Whether it is of the same kind, and a number that may be a size or a count is not too large."""
    if (ours.dtype == torch.bool) != (theirs.dtype == torch.bool):
        return False
    return ours.is_floating_point() or float(theirs.double().abs().max()) < HUGE


def values_of(expression: Expression, case: int, attempt: Attempt) -> list[Any]:
    """The values that an expression has, in their order."""
    seen: list[Any] = []

    def record(value: Any) -> Any:
        seen.append(value.detach().clone() if isinstance(value, Tensor) else value)
        return value

    attempt(expression.function_with(record), case)
    return seen


def _arranged(numbers: Tensor, shape: torch.Size, way: Way) -> Tensor | None:
    """Numbers in another shape, or None where they do not fit."""
    if way == "alike":
        return numbers.expand(shape) if len(numbers) == 1 and numbers.shape[1:] == shape[1:] else None
    if numbers.numel() != shape.numel():
        return None
    return (numbers if way == "as it is" else numbers.movedim(*way)).reshape(shape)


def _of_kind(numbers: Tensor, other: Any) -> Any:
    """A tensor, a list or a number, as another value is."""
    if isinstance(other, Tensor):
        return numbers.to(other.dtype) if numbers.is_floating_point() and other.is_floating_point() else numbers
    return numbers.tolist()


def _as_it_is(value: Any) -> Any:
    return value
