"""What is wrong with an answer, in words: the likely mistake, or else all that is known of it.

`Diagnosis.message` is where to begin, and has the order in which things are looked for.

Notes:

* Known mistakes come first: one, two at once (variants.py), one in a part of the answer. Then the error of a function
  that stops with one, then the exercise's rules if only promises are compared, as of a function that draws at random.
* Any other answer is explained by the first of these that holds: a difference that occurs in every subject
  (comparison.py), a change of the answer, of an argument (changes.py) or of an expression of the library's function
  (mutants.py), what the modules among the arguments are given (calls.py), an expression that should have the value of
  a step of the library's (patching.py), a known mistake beside another change (explanations.py), a change that few
  make, how far the calculation is right (steps.py), what the answer depends on (dependence.py).
* Beside the explanation are told the arguments that are not used, the change of the student's function that makes it
  right (explanations.py), and what the rules say.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from blip2_lab.teaching.checks.calls import Recording, compare_calls, modules_among, recorded
from blip2_lab.teaching.checks.changes import as_scaled_by
from blip2_lab.teaching.checks.comparison import (
    common_to_all,
    diagnose,
    equal,
    has_nan,
    ignores_input,
    is_promises,
    of_one_form,
    parts_of,
    too_much_or_too_little,
)
from blip2_lab.teaching.checks.dependence import NOT_USED, broken_symmetry, unused_arguments, wrong_places
from blip2_lab.teaching.checks.errors import STRANGE, error_message, or_empty
from blip2_lab.teaching.checks.exercise import Case, Exercise
from blip2_lab.teaching.checks.explanations import BUDGET, OVERHEAD, attempts_on, quietly, repair_of
from blip2_lab.teaching.checks.in_words import describe_difference
from blip2_lab.teaching.checks.mutants import numbers_in
from blip2_lab.teaching.checks.patching import patched_step, without_results
from blip2_lab.teaching.checks.steps import Key, Step, last_agreement, step_too_much, steps_of
from blip2_lab.teaching.checks.values import Unsupported
from blip2_lab.teaching.checks.wrong_functions import WrongFunctions

#: Changes of the value of a student's expression that make it right by chance more often than they are what is wrong.
UNLIKELY = (
    "1 divided by", "logarithm of", "exp of", "tanh of", "sigmoid of", "GELU of", "root of", "in order of size",
    "without its mean", "rounded",
)  # fmt: skip
IN_TWO_PLACES = ", and `"  #: of a repair: what stands between its two changes
MOST_WORK = 1_000  #: of a case, in calls, if changes of the student's function are tried although a rule explains it


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with one answer. Each method tells one thing in words, or "" where it finds nothing.

    answer    the student's function
    got       what it gives, for each case: a value, or the error that it raised
    expected  what the library's function gives, for each case
    first     the number of the first wrong case
    asked     this case, after the student's function was called with it
    """

    exercise: Exercise
    answer: Callable
    got: Sequence[Any]
    expected: Sequence[Any]
    first: int
    asked: Case

    def message(self) -> str:
        """The known mistake that gives the same answers, or else all that is known of what is wrong, or ""."""
        if self._wrong is None:
            return _returns_nothing(self.got)
        wrong = self._wrong_functions
        mistake = wrong.known_mistake() or self._two_mistakes() or wrong.mistake_in_a_part()
        if mistake:
            return mistake
        if isinstance(self._wrong, BaseException):
            return self._error()
        rule = self._rule()
        if isinstance(self._wrong, Unsupported):
            return rule
        if is_promises(self._right) and (rule or wrong.closest):
            return _joined(self._repair, rule or wrong.closest)
        return self._explanation(rule)

    def _explanation(self, rule: str) -> str:
        """The first explanation that holds, the likely ones first, and what is told beside it."""
        unused = self._unused
        unread = NOT_USED in unused
        explained = self._general or self._likely_change() or or_empty(self._calls) or self._nearly
        repair = self._repair
        if not (explained or unread) and (not repair or _is_unlikely(repair)):
            explained = self._patch()
            repair = "" if explained else repair  # an unlikely one may make it right by chance
        explained = explained or self._mistake_and_change
        change = "" if explained else self._unlikely_change()
        explained = explained or ("" if _is_unlikely(change) else change)
        if not (explained or unread) and (not repair or _is_unlikely(repair)):
            explained = or_empty(self._too_much) or self._common() or or_empty(self._agreement)
            repair = "" if explained else repair
        explained = explained or self._common() or change or self._wrong_place()
        if self._nearly and explained == self._nearly:
            rule = ""  # the known mistake says it
        seen = "" if explained or repair or rule else self._seen()
        if not (explained or rule):
            explained = self._kind()
        if says_the_same(explained, repair):
            explained = ""  # the repair says it in the student's own code
        if self._general and IN_TWO_PLACES in repair:
            repair = ""  # any factor can be put right in two places
        return _joined(unused, explained, repair, rule, seen)

    # --- The answer -------------------------------------------------------------------------------------------------

    @property
    def _wrong(self) -> Any:
        """The first wrong value."""
        return self.got[self.first]

    @property
    def _right(self) -> Any:
        """What it should be."""
        return self.expected[self.first]

    @cached_property
    def _wrong_functions(self) -> WrongFunctions:
        return WrongFunctions(self.exercise, self.got, self.expected, self.first)

    def _same(self, got: Any, expected: Any) -> bool:
        return self.exercise.same(got, expected)

    def _runs(self, numbers: Iterable[int]) -> list[Callable[[Callable], Any]]:
        """For each of these cases, what gives the value of a function."""
        attempt = attempts_on(self.exercise.cases, self.exercise.attempt)
        return [lambda function, number=number: attempt(function, number) for number in numbers]

    # --- Wrong functions that give the same values, and rules -------------------------------------------------------

    @property
    def _nearly(self) -> str:
        """The known mistake that explains nearly all cases."""
        closest = self._wrong_functions.closest
        return f"Something like this: {closest}" if closest else ""

    def _two_mistakes(self) -> str:
        nothing_simpler = not (self._wrong_functions.fails or self._general)
        return or_empty(self._wrong_functions.two_mistakes) if nothing_simpler else ""

    def _likely_change(self) -> str:
        """A change of the right answer or of the library's function."""
        return self._unless_by_chance(or_empty(self._wrong_functions.likely_change))

    def _unlikely_change(self) -> str:
        """A change that few make."""
        return "" if self._repair else self._unless_by_chance(or_empty(self._wrong_functions.unlikely_change))

    def _unless_by_chance(self, change: str) -> str:
        """The change, or "" where the answer lacks an argument that the change does not name: it fits by chance."""
        return "" if self._unused and not _names_one_of(self._unused, change) else change

    def _rule(self) -> str:
        """What the first of the exercise's rules that applies says."""
        case = self.exercise.cases()[self.first]
        messages = (or_empty(rule, case, self._wrong, self._right) for rule in self.exercise.rules)
        return next(filter(None, messages), "")

    # --- Errors -----------------------------------------------------------------------------------------------------

    def _error(self) -> str:
        """The error of the first wrong case, and what makes the function right or is wrong in other cases."""
        error = self._nearly or error_message(self._wrong, self.answer)
        more = self._repair or or_empty(self._elsewhere)
        return f"{error if error.endswith('?') else error.removesuffix('.') + '.'} {more}" if more else error

    def _elsewhere(self) -> str:
        """What is wrong in the cases in which the student's function does not stop with an error."""
        works = [number for number, value in enumerate(self.got) if not isinstance(value, BaseException)]
        wrong = [n for n, number in enumerate(works) if not self._same(self.got[number], self.expected[number])]
        if not wrong or len(works) < 2:
            return ""
        there = replace(self.exercise, cases=lambda: [self.exercise.cases()[number] for number in works])
        got, expected = ([values[number] for number in works] for values in (self.got, self.expected))
        told = Diagnosis(there, self.answer, got, expected, wrong[0], self.asked).message()
        return f"Where it does not stop: {told}" if told else ""

    # --- Differences from the right answer --------------------------------------------------------------------------

    @cached_property
    def _general(self) -> str:
        """A difference that can occur in every subject."""
        if self._wrong_functions.fails or is_promises(self._right):
            return ""
        exercise, got, expected = self.exercise, self.got, self.expected
        calls = exercise.calls_and_work[0]
        message = or_empty(as_scaled_by, got, expected, exercise.solution, calls) if len(calls) == len(got) > 1 else ""
        message = message or diagnose(got, expected, exercise.tolerance)
        message = message or or_empty(too_much_or_too_little, got, expected, exercise.tolerance)
        if message:
            return message
        again = [exercise.attempt(self.answer, case, seed=1) for case in exercise.cases()]
        if not all(map(self._same, again, got)):
            return "Your function gives another answer each time it is called with the same input."
        if ignores_input(got, expected):
            return "Your function gives the same answer to every input."
        pairs = zip(got, exercise.cases(), strict=True)
        unchanged = [[equal(value, arg) for arg in case.args] for value, case in pairs]
        if unchanged and any(all(column) for column in zip(*unchanged, strict=False)):
            return "Your function returns one of its arguments as it is."
        return ""

    def _kind(self) -> str:
        """What is of another kind, shape or dtype, where only a repair or an argument that is not used was found."""
        if not (self._repair or (self._unused and not of_one_form(self._wrong, self._right))):
            return ""
        kind = self._difference().replace("The numbers differ.", "").strip()
        return "" if kind.endswith(":") else kind

    def _difference(self) -> str:
        exercise = self.exercise
        told = or_empty(describe_difference, self._wrong, self._right, exercise.tolerance, exercise.parts)
        return told.replace("; the smallest case where they do:", ".")

    # --- The student's function -------------------------------------------------------------------------------------

    @property
    def _repair(self) -> str:
        """The change of the student's function that makes it right."""
        words, mistake = self._repaired
        return f"Your function is right with {words}." if words and not mistake else ""

    @property
    def _mistake_and_change(self) -> str:
        """The known mistake that the student's function makes beside another one: without the other it makes this."""
        words, mistake = self._repaired
        return f"There are two mistakes. {mistake} And: your function needs {words}." if mistake else ""

    @cached_property
    def _repaired(self) -> tuple[str, str]:
        """See `repair_of`."""
        if is_promises(self._right) and self.exercise.calls_and_work[1] > MOST_WORK:
            return "", ""  # a draw many times over
        order, numbers = self._wrong_functions.order, numbers_in(self.exercise.solution)
        attempt = attempts_on(self.exercise.cases, self.exercise.attempt)
        try:
            mistakes = {message: partial(self._is_mistake, message) for message in self._wrong_functions.telling}
            return repair_of(self.answer, order, attempt, self._is_right, numbers, mistakes) or ("", "")
        except STRANGE:
            return "", ""

    def _is_mistake(self, message: str, case: int, value: Any) -> bool:
        return self._same(value, self.exercise.wrong_value(message, case))

    def _is_right(self, case: int, value: Any) -> bool:
        return self._same(value, self.expected[case])

    @cached_property
    def _unused(self) -> str:
        """The arguments that the student's function does not use."""
        return "" if self._general else or_empty(self._unused_arguments)

    def _unused_arguments(self) -> str:
        calls, work = self.exercise.calls_and_work
        if not calls or self._wrong_functions.fails or any(value is None or has_nan(value) for value in self.got):
            return ""
        several = work * len(self.got) * len(calls[-1][0]) < BUDGET
        numbers = range(len(self.got)) if several else sorted({self.first, len(self.got) - 1})
        with quietly():
            return unused_arguments(self.answer, self.exercise.solution, calls, self._runs(numbers))

    def _calls(self) -> str:
        """What the student's function gives to the modules among its arguments, where it should be something else."""
        if self.exercise.seen is not None:
            return ""  # it tells more
        ours, theirs = (
            [self._recorded(function, case) for case in self.exercise.cases()]
            for function in (self.answer, self.exercise.solution)
        )
        return compare_calls(ours, theirs)

    def _recorded(self, function: Callable, case: Case) -> Recording | None:
        arguments = dict(zip(inspect.signature(self.exercise.solution).parameters, case.args, strict=False))
        with quietly():
            return recorded(lambda: self.exercise.attempt(function, case), modules_among(arguments), arguments)

    def _seen(self) -> str:
        """What the student's function gave to a part of the case, where it is something else than it should be."""
        if self.exercise.seen is None:
            return ""
        case = self.exercise.cases()[self.first]
        self.exercise.result_of(self.exercise.solution, case)
        return or_empty(self.exercise.seen, self.asked, case)

    def _patch(self) -> str:
        """The expression of the student's function that should have another value; before it, what is of another
        kind."""
        told = "" if is_promises(self._right) else or_empty(self._patched)
        return f"{self._difference()} {told}" if told and not of_one_form(self._wrong, self._right) else told

    def _patched(self) -> str:
        """The patch that makes the student's function right, or at least the first wrong part of its answer."""
        attempt = attempts_on(self.exercise.cases, self.exercise.attempt)
        at_most = 2 * BUDGET // (OVERHEAD + self.exercise.calls_and_work[1])
        with quietly():
            steps = {case: self._steps(self.exercise.solution, case) for case in self._wrong_functions.order}
            search = partial(patched_step, self.answer, attempt=attempt, at_most=at_most)
            if patch := search(without_results(steps, self.expected), right=self._is_right):
                return f"{patch.told} your function is right."
            if not isinstance(self._right, tuple):
                return ""
            results = [value[self._place] for value in self.expected]
            patch = search(without_results(steps, results), right=self._has_right_part)
        name = f"`{self.exercise.parts[self._place]}`" if self.exercise.parts else "a part of your answer"
        return f"{patch.told} {name} is right." if patch else ""

    def _steps(self, function: Callable, case: int) -> dict[Key, Step]:
        (run,) = self._runs([case])
        return steps_of(function, run)

    def _has_right_part(self, case: int, value: Any) -> bool:
        """Whether the first part of the answer that was wrong is right."""
        parts, expected = parts_of(value), self.expected[case]
        return bool(parts) and len(parts) == len(expected) and self._same(parts[self._place], expected[self._place])

    @cached_property
    def _place(self) -> int:
        """The number of the first part of the answer that is wrong."""
        return self._first_wrong_part(self.first)

    def _first_wrong_part(self, number: int) -> int:
        pairs = zip(parts_of(self.got[number]), self.expected[number], strict=True)
        return next(n for n, (ours, theirs) in enumerate(pairs) if not self._same(ours, theirs))

    def _too_much(self) -> str:
        """The step that the right answers are added to, or multiplied with."""
        right = self._right
        if not (isinstance(right, float) or (isinstance(right, Tensor) and right.is_floating_point())):
            return ""  # True times True is true by chance
        with quietly():
            for function in (self.exercise.solution, self.answer):
                steps = [self._steps(function, case) for case in range(len(self.got))]
                if told := step_too_much(self.got, self.expected, steps, self._same):
                    return told
        return ""

    def _common(self) -> str:
        """What all wrong numbers have in common."""
        return or_empty(common_to_all, self.got, self.expected, self.exercise.tolerance)

    def _agreement(self) -> str:
        """How far the calculation is right, in all wrong cases."""
        if is_promises(self._right):
            return ""
        wrong = [n for n in range(len(self.got)) if not self._same(self.got[n], self.expected[n])]
        cases, runs = self.exercise.cases(), self._runs(wrong)
        with quietly():
            return last_agreement(self.answer, self.exercise.solution, [cases[n].args for n in wrong], runs)

    def _wrong_place(self) -> str:
        return "" if self._repair or self._unused else or_empty(self._dependence)

    def _dependence(self) -> str:
        """A place of an argument that a place of the answer should not depend on, or should; what the right answer does
        when an argument is changed, and the student's does not."""
        calls, work = self.exercise.calls_and_work
        if len(calls) != len(self.got) or not all(map(of_one_form, self.got, self.expected)):
            return ""
        at_most = min(60, BUDGET // (8 * work + 1))
        last = len(self.got) - 1
        wrong = [n for n in dict.fromkeys((last, self.first)) if not self._same(self.got[n], self.expected[n])]
        asked = {
            n: (self.answer, self.exercise.solution, calls[n : n + 1], self._first_wrong(n, run))
            for n, run in zip(wrong, self._runs(wrong), strict=True)
        }
        with quietly():
            # In a small case places are alike by chance (two rows, two columns, zeros); what is not read is told of the
            # case that is shown.
            places = (wrong_places(*asked[n], at_most, mixed=n == last, unread=n == self.first) for n in asked)
            kept = (broken_symmetry(*asked[n], self.exercise.tolerance) for n in asked)
            return next(filter(None, itertools.chain(places, kept)), "")

    def _first_wrong(self, number: int, run: Callable) -> Callable:
        """What gives the first wrong part of a function's value for a case, where it has parts."""
        expected = self.expected[number]
        if not isinstance(expected, tuple):
            return run
        place = self._first_wrong_part(number)

        def part(function: Callable) -> Any:
            parts = parts_of(run(function))
            return parts[place] if parts and len(parts) == len(expected) else None

        return part


def _returns_nothing(got: Sequence[Any]) -> str:
    if all(value is None for value in got):
        return "Your function returns nothing: is there a `return`?"
    return (
        "Your function returns nothing in this case: it ends before a `return`. Does each stand in a loop or an `if`?"
    )


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def says_the_same(change: str, repair: str) -> bool:
    """Whether a change of the right answer, "`a` in place of `b`", is what "`c` in place of `d`" repairs: the same
    operators and calls are exchanged for one another, whatever the names of what they are applied to."""
    one, other = (re.search(r" with `([^`]+)` in place of `([^`]+)`", told) for told in (change, repair))
    if not (one and other):
        return False
    return [_signs(text) for text in one.groups()] == [_signs(text) for text in other.groups()[::-1]]


def _signs(code: str) -> Counter:
    """The names and numbers of a piece of code that are called, and its signs, whatever their order."""
    return Counter(re.findall(r"\w+(?=\()|[-+*/<>=@%&|^~]+", code)) or Counter([code])


def _is_unlikely(repair: str) -> bool:
    return any(word in repair for word in UNLIKELY)


def _names_one_of(unused: str, change: str) -> bool:
    """Whether a sentence names one of the arguments of another one."""
    return any(name.rstrip(",") in change for name in unused.split() if name.startswith("`"))
