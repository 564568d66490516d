"""The check of an exercise: passed, failed with the likely mistake in words, or not attempted.

`Check` is where to begin: calling it with a student's function returns a `Verdict`.

Notes:

* An answer is right if it agrees with the library's function in every case. What is wrong with any other one is said by
  diagnosis.py, or shown by the smallest case on which it differs.
* Cases are made anew for every run, and compared afterwards with what they were: a function that changes its input in
  place is told so.
* An answer of the right value whose gradient does not reach what learns fails, as does one whose gradient reaches it
  where none should.
* An error in the student's function is the student's; any other error is the check's own, and its verdict says so.
* `check.solution` is the library's function, and `show_source(check.solution)` shows its source, folded: the solution
  is always the current code.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blip2_lab.teaching.checks.comparison import equal, is_promises
from blip2_lab.teaching.checks.diagnosis import Diagnosis
from blip2_lab.teaching.checks.errors import STRANGE, AnswerError, guarded, is_stub, or_empty
from blip2_lab.teaching.checks.exercise import Case, Exercise, Result
from blip2_lab.teaching.checks.gradients import compare_gradients
from blip2_lab.teaching.checks.in_words import describe, describe_difference, format_value
from blip2_lab.teaching.checks.verdicts import BROKEN, FAILED, NOT_ATTEMPTED, PASSED, Verdict, graded

# --- Check ----------------------------------------------------------------------------------------------------------


class Check(Exercise):
    """An exercise that is called with a student's function, and returns a Verdict. Its fields are those of Exercise."""

    def __call__(self, answer: Callable) -> Verdict:
        try:
            verdict = self._verdict(answer)
        except Exception as error:  # the student's errors were caught before: this one is ours
            message = (
                f"This check stopped with {type(error).__name__}: {error}. That is a fault of the check, not of your "
                "answer. Please report it together with your answer; the teacher has to look at it."
            )
            verdict = Verdict(BROKEN, self.name, message)
        return graded(verdict)

    def _verdict(self, answer: Callable) -> Verdict:
        if not callable(answer):
            message = f"Pass the function itself, without calling it; this is {describe(answer)}."
            return Verdict(FAILED, self.name, message)
        students = guarded(answer)
        before, asked = self.cases(), self.cases()
        got = []
        for case, untouched in zip(asked, before, strict=True):
            try:
                got.append(self.result_of(students, case))
            except AnswerError as wrapped:
                if not got and is_stub(wrapped.error, answer):
                    return Verdict(NOT_ATTEMPTED, self.name, f"Going on with {qualified_name(self.solution)}.")
                got.append(Result(wrapped.error))
            except STRANGE as error:
                if not _is_changed(case, untouched):
                    raise
                got.append(Result(error))  # the answer left a case that nothing can be done with
        ours = [result.value for result in got]
        expected, theirs, same = self._nearest_reading(ours)
        changed = next((b for b, a in zip(before, asked, strict=True) if _is_changed(a, b)), None)
        if all(same):
            return self._promises(got, expected, asked, changed)
        first = same.index(False)
        case = before[first]
        message = Diagnosis(self, answer, ours, theirs, first, asked[first]).message()
        if changed is not None:  # what is wrong may only be what it did to the input of a later case
            why = "" if not message or isinstance(ours[first], BaseException) else f" And: {message}"
            message = f"Your function changes its input in place ({changed.description}). Work on a copy.{why}"
        if isinstance(ours[first], BaseException):
            return Verdict(FAILED, self.name, message, f"input: {case.description}")
        if not message:
            told = or_empty(describe_difference, ours[first], theirs[first], self.tolerance, self.parts)
            message = told or f"Your answer is of another kind: {describe(ours[first])}."
            if first and len(before) > 1:
                message += f" (Right for: {before[0].description}.)"
        shown = or_empty(self.show or _side_by_side, case, ours[first], theirs[first])
        return Verdict(FAILED, self.name, message, shown or f"input: {case.description}")

    def _nearest_reading(self, got: list) -> tuple[list[Result], list, list[bool]]:
        """The reading of the text that these answers agree with, else the library's: results, values, equal or not."""
        found = []
        for results in self.readings:
            values = [result.value for result in results]
            same = [self.same(a, b) for a, b in zip(got, values, strict=True)]
            found.append((results, values, same))
        return next((reading for reading in found if all(reading[2])), found[0])

    def _promises(
        self, got: Sequence[Result], expected: Sequence[Result], cases: Sequence[Case], changed: Case | None
    ) -> Verdict:
        """The verdict on an answer whose values are right: is its input as before, and where does its gradient go?"""
        if changed is not None:
            message = "The answer is right, but your function changes its input in place. Work on a copy."
            return Verdict(FAILED, self.name, message, f"input: {changed.description}")
        for case, ours, theirs in zip(cases, got, expected, strict=True):
            message = compare_gradients(ours.gradients, theirs.gradients, ours.backward_error, self.no_gradient)
            if message:
                return Verdict(FAILED, self.name, message, f"input: {case.description}")
        return Verdict(PASSED, self.name, self.verified)


def _is_changed(case: Case, before: Case) -> bool:
    """Whether a function changed its input in place."""
    try:
        return not equal(case.args, before.args, 0.0)
    except STRANGE:
        return True  # it lacks what belongs to it


def _side_by_side(case: Case, got: Any, expected: Any) -> str:
    """The input and both answers; of observations only those that differ."""
    if is_promises(expected) and isinstance(got, dict) and got.keys() == expected.keys():
        differing = [name for name in expected if not equal(got[name], expected[name])]
        got, expected = ({name: value[name] for name in differing} for value in (got, expected))
    return f"input: {case.description}\nyours:\n{format_value(got)}\nthe library's:\n{format_value(expected)}"


# --- Sources --------------------------------------------------------------------------------------------------------


def qualified_name(thing: Callable) -> str:
    """`masks.unimodal_mask`: the module without the package, and the name."""
    module = thing.__module__.removeprefix("blip2_lab.")
    return f"{module}.{thing.__qualname__}"


@dataclass(frozen=True)
class Source:
    """Source code: folded in a notebook, printed in full by `print`."""

    title: str
    code: str

    def __str__(self) -> str:
        return self.code

    def __repr__(self) -> str:
        return f"(the source of {self.title}: print it to read it)"

    def _repr_html_(self) -> str:
        return (
            f"<details><summary>show <code>{html.escape(self.title)}</code></summary>"
            f"<pre style='margin:6px 0 0 12px'>{html.escape(self.code)}</pre></details>"
        )


def show_source(thing: Callable) -> Source:
    """The source of a function, method or class of the library, folded in a notebook."""
    if isinstance(thing, Check):
        thing = thing.solution
    return Source(qualified_name(thing), inspect.cleandoc("\n" + inspect.getsource(thing)))
