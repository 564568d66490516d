"""The check of an exercise: passed, failed with the likely mistake in words, or not attempted.

`Check` is where to begin: calling it with a student's function returns a `Verdict`.

Notes:

* A check has the library's function, a few small cases, and typical mistakes, each written as a wrong function. An
  answer that behaves like one of them, or like two at once (variants.py), gets its message; any other wrong answer is
  named by the differences that occur in every subject (comparison.py), by the change of the answer, of an argument
  (changes.py) or of an expression of the library's function (mutants.py) that explains it, by what the modules among
  its arguments are given (calls.py), by the change of the student's function that makes it right (explanations.py), by
  the first step that the library does not take (steps.py), by what it depends on (dependence.py), by the check's rules,
  or is shown by the smallest case on which it differs.
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
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from blip2_lab.teaching.checks.calls import Recording, compare_calls, modules_among, recorded
from blip2_lab.teaching.checks.changes import as_changed_answer, as_scaled_by
from blip2_lab.teaching.checks.comparison import (
    common_to_all,
    describe,
    describe_difference,
    diagnose,
    equal,
    format_value,
    has_its_parts,
    ignores_input,
    is_promises,
    of_one_form,
    on_one_line,
    parts_of,
    too_much_or_too_little,
)
from blip2_lab.teaching.checks.dependence import broken_symmetry, unused_arguments, wrong_places
from blip2_lab.teaching.checks.errors import STRANGE, AnswerError, error_message, guarded, is_stub
from blip2_lab.teaching.checks.exercise import Case, Exercise, Result
from blip2_lab.teaching.checks.explanations import (
    BUDGET,
    Candidates,
    attempts_on,
    quietly,
    repair_of,
)
from blip2_lab.teaching.checks.gradients import compare_gradients
from blip2_lab.teaching.checks.mutants import numbers_in
from blip2_lab.teaching.checks.steps import first_difference, steps_of
from blip2_lab.teaching.checks.verdicts import BROKEN, FAILED, NOT_ATTEMPTED, PASSED, Verdict, graded

#: Changes of an argument that few students make: the change of an expression is told rather than these.
FAR_FETCHED = ("softmax", "logarithm", "exp of", "sigmoid", "tanh", "GELU")
#: Changes of the value of a student's expression that make it right by chance more often than they are what is wrong.
UNLIKELY = ("logarithm of", "exp of", "in order of size", "without its mean", "rounded")
MOST_WORK = 1_000  #: of a case, in calls, if changes of the student's function are tried although a rule explains it

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
        for case in asked:
            try:
                got.append(self.result_of(students, case))
            except AnswerError as wrapped:
                if not got and is_stub(wrapped.error, answer):
                    return Verdict(NOT_ATTEMPTED, self.name, f"Going on with {qualified_name(self.solution)}.")
                got.append(Result(wrapped.error))
        ours = [result.value for result in got]
        expected, theirs, same = self._nearest_reading(ours)
        changed = next((b for b, a in zip(before, asked, strict=True) if not equal(a.args, b.args, 0.0)), None)
        if all(same):
            return self._promises(got, expected, asked, changed)
        first = same.index(False)
        case = before[first]
        message = self._diagnose(answer, ours, theirs, first, asked[first])
        if changed is not None:  # what is wrong may only be what it did to the input of a later case
            why = "" if message is None or isinstance(ours[first], BaseException) else f" And: {message}"
            message = f"Your function changes its input in place ({changed.description}). Work on a copy.{why}"
        if isinstance(ours[first], BaseException):
            message = message or error_message(ours[first], answer)
            return Verdict(FAILED, self.name, message, f"input: {case.description}")
        if message is None:
            told = _or_none(describe_difference, ours[first], theirs[first], self.tolerance, self.parts)
            message = told or f"Your answer is of another kind: {describe(ours[first])}."
            if first and len(before) > 1:
                message += f" (Right for: {before[0].description}.)"
        shown = _or_none(self.show or _side_by_side, case, ours[first], theirs[first])
        return Verdict(FAILED, self.name, message, shown or f"input: {case.description}")

    def _nearest_reading(self, got: list) -> tuple[list[Result], list, list[bool]]:
        """The reading of the text that these answers agree with, else the library's: results, values, equal or not."""
        found = []
        for results in self.readings:
            values = [result.value for result in results]
            same = [equal(a, b, self.tolerance) for a, b in zip(got, values, strict=True)]
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

    def _diagnose(self, answer: Callable, got: list, expected: list, first: int, asked: Case) -> str | None:
        """The message of the mistake that gives the same answers, or of the first rule that applies, or None."""
        if got[first] is None:
            return "Your function returns nothing: is there a `return`?"
        allowed = max(1, len(got) // 7) if len(got) > 2 else 0
        closest, nearly = None, allowed + 1
        for message in self.mistakes:
            if not self.same(got[first], self.wrong_value(message, first)):
                continue
            theirs = self.wrong_values(message)
            same = [equal(a, b, self.tolerance) for a, b in zip(got, theirs, strict=True)]
            if all(same):
                return message
            if same.count(False) < nearly:
                closest, nearly = message, same.count(False)
        if closest and self._fails_where_it_differs(got, closest):
            return closest  # the same mistake, in code that also fails on a case of another form
        failed = any(isinstance(value, BaseException) for value in got)
        general = "" if failed or is_promises(expected[first]) else self._general(answer, got, expected) or ""
        if not (failed or general) and (two := _or_none(self._two_mistakes, got, first)):
            return two
        for message in self.mistakes if isinstance(expected[first], tuple) else ():
            if has_its_parts(got, self.wrong_values(message), expected, self.tolerance):
                return message  # the same mistake in a part of the answer, and another one in another part
        nearly_explained = f"Something like this: {closest}" if closest else ""
        if isinstance(got[first], BaseException):
            error = nearly_explained or error_message(got[first], answer)
            stops = isinstance(got[first], SystemExit)
            repair = None if stops else _or_none(self._repair, answer, expected, first)
            repair = repair or _or_none(self._elsewhere, answer, got, expected, asked)
            return f"{error if error.endswith('?') else error.removesuffix('.') + '.'} {repair}" if repair else error
        case = self.cases()[first]
        messages = (_or_none(rule, case, got[first], expected[first]) for rule in self.rules)
        rule = next((message for message in messages if message), "")
        if is_promises(expected[first]) and (rule := rule or closest or ""):
            return " ".join(filter(None, (_or_none(self._repair, answer, expected, first), rule)))
        unused = "" if general else _or_none(self._unused, answer, got, expected, first) or ""
        change = "" if general else _or_none(self._change, got, expected, first) or ""
        if unused and not _names_one_of(unused, change):
            change = ""  # it fits by chance: the answer lacks an argument
        general = general or change
        general = general or _or_none(self._calls, answer, got) or ""
        repair = _or_none(self._repair, answer, expected, first) or ""
        general = general or nearly_explained
        if not (general or repair):
            change = _or_none(self._far_change, got, expected, first) or ""
            general = change if not unused or _names_one_of(unused, change) else ""
        if not (general or unused) and (not repair or any(word in repair for word in UNLIKELY)):
            general = _or_none(self._steps, answer, got, expected) or ""
            repair = "" if general else repair
            if general and not of_one_form(got[first], expected[first]):
                told = _or_none(describe_difference, got[first], expected[first], self.tolerance, self.parts) or ""
                general = f"{told} {general}"
        general = general or _or_none(common_to_all, got, expected, self.tolerance) or ""
        if not (general or repair or unused):
            general = _or_none(self._wrong_places, answer, got, first) or ""
        if nearly_explained and general == nearly_explained:
            rule = ""
        seen = "" if general or repair or rule else self._seen(asked, first)
        if (repair or (unused and not of_one_form(got[first], expected[first]))) and not (general or rule):
            kind = _or_none(describe_difference, got[first], expected[first], self.tolerance, self.parts) or ""
            kind = kind.replace("; the smallest case where they do:", ".").replace("The numbers differ.", "").strip()
            general = "" if kind.endswith(":") else kind
        return " ".join(part for part in (unused, general, repair, rule, seen) if part) or None

    def _elsewhere(self, answer: Callable, got: list, expected: list, asked: Case) -> str | None:
        """What is wrong in the cases in which the student's function does not stop with an error."""
        works = [number for number, value in enumerate(got) if not isinstance(value, BaseException)]
        wrong = [n for n, number in enumerate(works) if not self.same(got[number], expected[number])]
        if not wrong or len(works) < 2:
            return None
        there = replace(self, cases=lambda: [self.cases()[number] for number in works])
        ours, theirs = ([values[number] for number in works] for values in (got, expected))
        told = there._diagnose(answer, ours, theirs, wrong[0], asked)
        return f"Where it does not stop: {told}" if told else None

    def _two_mistakes(self, got: list, first: int) -> str | None:
        """Two known mistakes that give these answers together, where their functions can be combined."""
        order = [first, *(i for i in range(len(got)) if i != first)]
        for words, _ in self.pairs.explaining(order, lambda case, value: self.same(got[case], value)):
            return f"There are two mistakes. {words}"
        return None

    def _unused(self, answer: Callable, got: list, expected: list, first: int) -> str:
        """The arguments that the student's function does not use."""
        calls, work = self.calls_and_work
        if not calls or any(value is None or isinstance(value, BaseException) or _has_nan(value) for value in got):
            return ""
        attempt = attempts_on(self.cases, lambda function, case: self.attempt(guarded(function), case))
        several = work * len(got) * len(calls[-1][0]) < BUDGET
        numbers = range(len(got)) if several else sorted({first, len(got) - 1})
        runs = [lambda function, number=number: attempt(function, number) for number in numbers]
        with quietly():
            return unused_arguments(answer, self.solution, calls, runs)

    def _wrong_places(self, answer: Callable, got: list, first: int) -> str | None:
        """A place of an argument that a place of the answer should not depend on, or should; what the right answer does
        when an argument is changed, and the student's does not."""
        calls, work = self.calls_and_work
        expected = [result.value for result in self.readings[0]]
        if len(calls) != len(got) or not all(map(of_one_form, got, expected)):
            return None
        attempt = attempts_on(self.cases, lambda function, case: self.attempt(guarded(function), case))
        at_most = min(60, BUDGET // (8 * work + 1))
        last = len(got) - 1
        asked = {
            number: (
                answer,
                self.solution,
                calls[number : number + 1],
                self._first_wrong(got[number], expected[number], partial(_at_case, attempt, number)),
            )
            for number in dict.fromkeys((last, first))
            if not self.same(got[number], expected[number])
        }
        with quietly():
            # In a small case places are alike by chance (two rows, two columns, zeros); what is not read is told of the
            # case that is shown.
            places = (wrong_places(*asked[n], at_most, mixed=n == last, unread=n == first) for n in asked)
            kept = (broken_symmetry(*asked[n], self.tolerance) for n in asked)
            return next(filter(None, itertools.chain(places, kept)), None)

    def _steps(self, answer: Callable, got: list, expected: list) -> str:
        """The first step of the student's function that the library's does not take, in the last wrong case."""
        if not isinstance(expected[0], Tensor | float | tuple):
            return ""
        case = max(n for n in range(len(got)) if not self.same(got[n], expected[n]))
        attempt = attempts_on(self.cases, lambda function, case: self.attempt(guarded(function), case))
        with quietly():
            ours, theirs = (
                steps_of(function, partial(_at_case, attempt, case)) for function in (answer, self.solution)
            )
        numbers = not isinstance(expected[0], Tensor)
        return first_difference(ours, theirs, self.cases()[case].args, numbers=numbers)

    def _first_wrong(self, got: Any, expected: Any, run: Callable) -> Callable:
        """What gives the first wrong part of a function's value, where it has parts."""
        if not isinstance(expected, tuple):
            return run
        number = next(n for n, (a, b) in enumerate(zip(parts_of(got), expected, strict=True)) if not self.same(a, b))

        def part(function: Callable) -> Any:
            parts = parts_of(run(function))
            return parts[number] if parts and len(parts) == len(expected) else None

        return part

    def _calls(self, answer: Callable, got: list) -> str:
        """What the student's function gives to the modules among its arguments, where it should be something else."""
        if self.seen is not None:
            return ""  # it tells more
        ours, theirs = (
            [self._recorded(function, case) for case in self.cases()] for function in (answer, self.solution)
        )
        return compare_calls(ours, theirs)

    def _recorded(self, function: Callable, case: Case) -> Recording | None:
        arguments = dict(zip(inspect.signature(self.solution).parameters, case.args, strict=False))
        with quietly():
            return recorded(lambda: self.attempt(guarded(function), case), modules_among(arguments), arguments)

    def _seen(self, asked: Case, first: int) -> str | None:
        """What the student's function gave to a part of the case, where it is something else than it should be."""
        if self.seen is None:
            return None
        case = self.cases()[first]
        self.result_of(self.solution, case)
        return _or_none(self.seen, asked, case)

    def _fails_where_it_differs(self, got: list, message: str) -> bool:
        """Whether the answers differ from a known mistake's only where the student's function stops with an error."""
        pairs = zip(got, self.wrong_values(message), strict=True)
        return all(isinstance(a, BaseException) for a, b in pairs if not self.same(a, b))

    def _general(self, answer: Callable, got: list, expected: list) -> str | None:
        """A difference that can occur in every subject, or None."""
        calls = self.calls_and_work[0]
        message = _or_none(as_scaled_by, got, expected, self.solution, calls) if len(calls) == len(got) > 1 else None
        message = message or diagnose(got, expected, self.tolerance)
        message = message or _or_none(too_much_or_too_little, got, expected, self.tolerance)
        if message or any(isinstance(value, BaseException) for value in got):
            return message
        again = [self.attempt(answer, case, seed=1) for case in self.cases()]
        if not all(equal(a, b, self.tolerance) for a, b in zip(again, got, strict=True)):
            return "Your function gives another answer each time it is called with the same input."
        if ignores_input(got, expected):
            return "Your function gives the same answer to every input."
        unchanged = [[equal(value, arg) for arg in case.args] for value, case in zip(got, self.cases(), strict=True)]
        if unchanged and any(all(column) for column in zip(*unchanged, strict=False)):
            return "Your function returns one of its arguments as it is."
        return None

    def _change(self, got: list, expected: list, first: int) -> str | None:
        """The change of the right answer, of a part of it, or of the library's function that explains all answers."""
        if len(got) < 2 or any(isinstance(value, BaseException) for value in got):
            return None  # one case can be explained by chance
        arguments, expressions, helpers, *_ = self.candidates
        named = as_changed_answer(got, expected, self.same) or self._changed_part(got, expected, first)
        argument = None if named else self._changed_function(arguments, got, expected, first)
        if argument and any(word in argument for word in FAR_FETCHED):
            named = self._changed_function(expressions, got, expected, first)
        named = named or argument
        named = named or self._more_of_a_mistake(got, expected)
        later = (self._changed_function(candidates, got, expected, first) for candidates in (expressions, helpers))
        return named or next(filter(None, later), None)

    def _far_change(self, got: list, expected: list, first: int) -> str | None:
        """A change of the library's function that only a few make: of two expressions, of a known mistake."""
        if len(got) < 2 or not all(map(of_one_form, got, expected)):
            return None
        found = (self._changed_function(candidates, got, expected, first) for candidates in self.candidates[3:])
        return self._changed_mistake(got, expected, first) or next(filter(None, found), None)

    def _changed_mistake(self, got: list, expected: list, first: int) -> str | None:
        """The known mistake that gives these answers if a number, or a mask, among its arguments is changed, too, or if
        what it returns is."""
        for message in self.mistakes:
            wrong = self.wrong_values(message)
            if any(isinstance(value, BaseException) for value in wrong) or ignores_input(wrong, expected):
                continue
            if diagnose(wrong, expected, self.tolerance):
                continue  # a factor, say: with another one it explains every other factor
            change = as_changed_answer(got, wrong, self.same) or diagnose(got, wrong, self.tolerance)
            if change and not change.startswith("Yours is zeros"):
                second = change.replace("the right answer", "the answer so far")
                return f"{message} And there is a second mistake. {second}"
        for message, candidates in self.changed_mistakes:
            second = self._changed_function(candidates, got, expected, first)
            if second:
                return f"{message} And there is a second mistake. {second.replace('the right', 'the')}"
        return None

    def _changed_function(self, candidates: Candidates, got: list, expected: list, first: int) -> str | None:
        """The change of the library's function that gives these answers, or the first wrong part of them."""
        order = [first, *(i for i in range(len(got)) if i != first)]

        def fits(case: int, value: Any) -> bool:
            return not isinstance(value, BaseException) and self._partly_same(got[case], value)

        for words, wrong in candidates.explaining(order, fits):
            if all(map(self.same, got, wrong)) or has_its_parts(got, wrong, expected, self.tolerance):
                return f"{self._first_wrong_part(got, expected)}Yours is the right answer {words}."
        return None

    def _repair(self, answer: Callable, expected: list, first: int) -> str | None:
        """The change of the student's function that makes it right, or None."""
        if is_promises(expected[first]) and self.calls_and_work[1] > MOST_WORK:
            return None  # a draw many times over
        order = [first, *(i for i in range(len(expected)) if i != first)]
        attempt = attempts_on(self.cases, self.attempt)
        right = partial(self._is_right, expected)
        return repair_of(answer, order, attempt, right, numbers_in(self.solution))

    def _is_right(self, expected: list, case: int, value: Any) -> bool:
        return self.same(value, expected[case])

    def _first_wrong_part(self, got: list, expected: list) -> str:
        """ "`low` differs. ", where the parts of an answer have names."""
        for number, name in enumerate(self.parts if isinstance(expected[0], tuple) else ()):
            if not all(self.same(parts_of(a)[number], b[number]) for a, b in zip(got, expected, strict=True)):
                return f"`{name}` differs. "
        return ""

    def _partly_same(self, got: Any, wrong: Any) -> bool:
        """Equal, or of equal parts in some place."""
        ours, theirs = parts_of(got), parts_of(wrong)
        if not isinstance(wrong, tuple) or ours is None or theirs is None:
            return self.same(got, wrong)
        return any(self.same(a, b) for a, b in zip(ours, theirs, strict=False))

    def _more_of_a_mistake(self, got: list, expected: list) -> str | None:
        """The known mistake that was made to another degree: all answers lie on the line from the right one to it."""
        for message in self.mistakes:
            wrong = self.wrong_values(message)
            if not ignores_input(wrong, expected) and on_one_line(expected, wrong, got, self.tolerance):
                return f"Something like this: {message}"
        return None

    def _changed_part(self, got: list, expected: list, first: int) -> str | None:
        ours, theirs = [parts_of(value) for value in got], [parts_of(value) for value in expected]
        if not isinstance(expected[first], tuple) or any(part is None for part in ours):
            return None
        if len({len(parts) for parts in (*ours, *theirs)}) > 1:
            return None
        for number in range(len(theirs[first])):
            if not self.same(ours[first][number], theirs[first][number]):
                a, b = ([parts[number] for parts in values] for values in (ours, theirs))
                message = diagnose(a, b, self.tolerance) or as_changed_answer(a, b, self.same)
                message = message or too_much_or_too_little(a, b, self.tolerance) or self._of_pairs(a, b)
                name = f"`{self.parts[number]}`" if self.parts else f"Part {number + 1} of your answer"
                return f"{name} differs. {message}" if message else None
        return None

    def _of_pairs(self, got: list, expected: list) -> str | None:
        """What is too much or too little in all tensors of a part that holds several."""
        rows = [[parts_of(value) for value in values] for values in (got, expected)]
        if not isinstance(expected[0], tuple) or any(
            not parts or len(parts) != len(expected[0]) for parts in sum(rows, [])
        ):
            return None
        ours, theirs = ([part for parts in values for part in parts] for values in rows)
        return too_much_or_too_little(ours, theirs, self.tolerance)


# --- In words -------------------------------------------------------------------------------------------------------


def _or_none(describing: Callable[..., str | None], *args: Any) -> str | None:
    """What a description says, or None where the answer is too strange for it: that is no fault of the check's."""
    try:
        return describing(*args)
    except STRANGE:
        return None


def _names_one_of(unused: str, change: str) -> bool:
    """Whether a sentence names one of the arguments of another one."""
    return any(name.rstrip(",") in change for name in unused.split() if name.startswith("`"))


def _has_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and bool(value.isnan().any())


def _at_case(attempt: Callable, number: int, function: Callable) -> Any:
    return attempt(function, number)


def _side_by_side(case: Case, got: Any, expected: Any) -> str:
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
