"""Which wrong function gives a student's wrong answers: a search among many, each with its words.

`Candidates` is where to begin: the changes of the library's function, and what they give for a check's cases.
`repair_of` searches the other way round: the change of the student's function that makes it right, or at least what a
known mistake makes of it.

Notes:

* An explanation is told only if it holds in every case, so what is said is true, whatever the student wrote.
* The values of changed functions do not depend on the student's answer. They are computed once.
* How many candidates are tried depends on the work of one case (`work_of`), counted in calls, not in seconds: so a
  verdict is the same on a slow machine.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from blip2_lab.teaching.checks import errors, values
from blip2_lab.teaching.checks.changes import changed_arguments, simple_changes_of
from blip2_lab.teaching.checks.function_code import Code, code_of, function_of
from blip2_lab.teaching.checks.mutants import (
    LONGEST,
    Edit,
    applied,
    double_mutants_of,
    edits_of,
    expressions_of,
    mutants_of,
    mutants_of_helpers,
)

BUDGET = 25_000  #: calls, for each search
WAITS = 0.05  #: seconds; a function that takes longer waits for something, and its calls do not tell how long
LEAST = 300  #: arguments changed, whatever the work of a case is
_GUARDS = errors.__name__, values.__name__  #: around a student's function; their calls are no work of it
OVERHEAD = 40  #: the work of a case without any call, in calls: making a function, comparing

Attempt = Callable[[Callable, int], Any]  #: a function and the number of a case -> its value, or its error
Fits = Callable[[int, Any], bool]  #: the number of a case, a value


def work_of(function: Callable[[], Any]) -> int:
    """The calls that a function makes, those of its parts included."""
    function()  # what is imported only now is no work of the function
    calls, before = 0, sys.getprofile()

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call") and frame.f_globals.get("__name__") not in _GUARDS

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


def attempts_on(make_cases: Callable[[], Sequence[Any]], attempt: Callable[[Callable, Any], Any]) -> Attempt:
    """The value of a function for a case, given by its number. A case that a function has changed is made anew."""
    cases: list[Any] = []
    marks: list[Any] = []

    def run(function: Callable, number: int) -> Any:
        if not cases:
            cases.extend(make_cases())
            marks[:] = [_mark(case.args) for case in cases]
        value = attempt(function, cases[number])
        if _mark(cases[number].args) != marks[number]:
            cases.clear()
        return value

    return run


def _mark(value: Any) -> Any:
    """What changes when a value is changed in place: of a tensor the count that torch keeps."""
    if isinstance(value, Tensor):
        return value._version
    if isinstance(value, nn.Module):
        return [_mark(parameter) for parameter in value.parameters()]
    if isinstance(value, list | tuple):
        return [_mark(part) for part in value]
    if isinstance(value, dict):
        return [_mark(part) for part in value.items()]
    if is_dataclass(value):
        return [_mark(getattr(value, part.name)) for part in fields(value)]
    return value if isinstance(value, bool | int | float | str) else None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what tried functions print and warn of."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- Changes of the library's function ------------------------------------------------------------------------------


@dataclass
class Candidates:
    """Wrong functions in a fixed order, each in words, and their values for the cases, computed when they are needed.

    made     gives the functions
    attempt  their value for a case
    """

    made: Iterator[tuple[str, Callable]]
    attempt: Attempt
    at_most: int
    _functions: list[tuple[str, Callable]] = field(default_factory=list)
    _values: dict[tuple[int, int], Any] = field(default_factory=dict)

    def explaining(self, order: Sequence[int], fits: Fits) -> Iterator[tuple[str, list]]:
        """The words, and the values in the order of the cases, of the functions whose values fit in every case."""
        for number in range(self.at_most):
            if number == len(self._functions):
                following = next(self.made, None)
                if following is None:
                    return
                self._functions.append(following)
            words, function = self._functions[number]
            if all(fits(case, self._value(number, function, case)) for case in order):
                yield words, [self._value(number, function, case) for case in sorted(order)]

    def _value(self, number: int, function: Callable, case: int) -> Any:
        if (number, case) not in self._values:
            with quietly():
                self._values[number, case] = self.attempt(function, case)
        return self._values[number, case]


def candidates_for(
    solution: Callable, calls: Sequence[tuple[tuple, dict]], work: int, attempt: Attempt
) -> list[Candidates]:
    """The changes of the library's function, from the simple ones to the far-fetched ones.

    calls  how `solution` is called, in each case
    work   of one case, see `work_of`
    """
    most = BUDGET // (OVERHEAD + work)
    made: list[Iterator[tuple[str, Callable]]] = [
        changed_arguments(solution, calls) if calls else iter(()),
        _with(mutants_of(solution)),
        _with(mutants_of_helpers(solution)),
        _with(_changed_values(solution, attempt)),
        _with(double_mutants_of(solution)),
    ]
    limits = [max(2 * most, LEAST), *[most] * (len(made) - 1)]
    return [Candidates(functions, attempt, limit) for functions, limit in zip(made, limits, strict=True)]


def _with(mutants: Iterator[tuple[str, Callable]]) -> Iterator[tuple[str, Callable]]:
    return ((f"with {words}", function) for words, function in mutants)


def _changed_values(function: Callable, attempt: Attempt, case: int = -1) -> Iterator[tuple[str, Callable]]:
    """The function with the value of one of its expressions changed."""
    for expression in expressions_of(function):
        if len(expression.text) > LONGEST or expression.place.field == "slice":
            continue
        seen: list[Any] = []

        def record(value: Any, seen: list = seen) -> Any:
            seen.append(value)
            return value

        attempt(expression.function_with(record), case)
        if seen and isinstance(seen[0], Tensor | int | float | list | tuple):
            for words, change in simple_changes_of(seen[0]):
                told = words.format(f"`{expression.text}`")
                yield told if " in place of " in told else f"{told} in its place", expression.function_with(change)


# --- Changes of the student's function ------------------------------------------------------------------------------


def repair_of(
    answer: Callable,
    order: Sequence[int],
    attempt: Attempt,
    right: Fits,
    numbers: Sequence[int | float] = (),
    mistakes: Mapping[str, Fits] = MappingProxyType({}),
) -> tuple[str, str] | None:
    """The change of the student's function that makes it right in every case, in words, and "". Or one after which it
    makes a known mistake, and that mistake: it makes two. None where there is neither.

    order     the numbers of the cases, one with a wrong answer first
    attempt   the value of a function for a case
    right     whether a value is right for a case
    numbers   of the library's function, see `numbers_in`
    mistakes  in words -> whether a value is what this mistake gives for a case
    """
    code = code_of(answer)
    if code is None:
        return None
    edits = list(edits_of(code.body, more=True, numbers=numbers))
    small = itertools.combinations([edit for edit in edits if edit.small], 2)
    pairs = (pair for pair in small if pair[0].apart_from(pair[1]))
    second = None
    with quietly():
        work = OVERHEAD + work_of(lambda: attempt(answer, order[0]))
        began = time.perf_counter()
        attempt(answer, order[0])
        if (seconds := time.perf_counter() - began) > WAITS:
            work = max(work, round(BUDGET * seconds))
        single = sorted(itertools.islice(edits, 3 * BUDGET // work), key=lambda edit: not edit.small)
        made = itertools.chain(
            _edited(code, ((edit,) for edit in single)),
            itertools.islice(_changed_values(answer, attempt, order[0]), BUDGET // work),
            itertools.islice(_edited(code, pairs), BUDGET // work),
        )
        for number, (words, function) in enumerate(made):
            given = _Values(function, attempt)
            if all(right(case, given[case]) for case in order):
                return words, ""
            if second is None and number < len(single):
                fitting = (told for told, fits in mistakes.items() if all(fits(case, given[case]) for case in order))
                second = next(((words, told) for told in fitting), None)
    return second


class _Values(dict):
    """What a function gives for a case, computed when it is asked for."""

    def __init__(self, function: Callable, attempt: Attempt) -> None:
        self.function, self.attempt = function, attempt

    def __missing__(self, case: int) -> Any:
        self[case] = self.attempt(self.function, case)
        return self[case]


def _edited(code: Code, changes: Iterable[Sequence[Edit]]) -> Iterator[tuple[str, Callable]]:
    for edits in changes:
        with applied(*edits):
            function = function_of(code)
        yield ", and ".join(edit.words for edit in edits), function
