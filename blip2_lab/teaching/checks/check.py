"""The check of an exercise: passed, failed with the likely mistake in words, or not attempted.

`Check` is where to begin: calling it with a student's function returns a `Verdict`.

Notes:

* A check has the library's function, a few small cases, and typical mistakes, each written as a wrong function. An
  answer that behaves like one of them gets its message; any other wrong answer is named by the differences that occur
  in every subject (comparison.py), by the change of the answer, of an argument (changes.py) or of an expression of the
  library's function (mutants.py) that explains it, by the check's rules, or is shown by the smallest case on which it
  differs.
* Cases are made anew for every run, and compared afterwards with what they were: a function that changes its input in
  place is told so.
* A case names the tensors that learn (`Case.learns`). An answer of the right value whose gradient does not reach them
  fails, as does one whose gradient reaches them where none should.
* An error in the student's function is the student's; any other error is the check's own, and its verdict says so.
* While nbgrader executes a notebook, a verdict other than "passed" is raised as an error, so that it costs its points.
* `check.solution` is the library's function, and `show_source(check.solution)` shows its source, folded: the solution
  is always the current code.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import html
import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from blip2_lab.teaching.checks.changes import as_changed_answer, as_changed_argument, with_defaults
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
    on_one_line,
    parts_of,
)
from blip2_lab.teaching.checks.mutants import mutants_of

PASSED, FAILED, NOT_ATTEMPTED, BROKEN = "passed", "failed", "not attempted", "the check itself failed"
_SIGNS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "…", BROKEN: "!"}
_COLORS = {  # distinguishable with color blindness
    PASSED: "#0072B2", FAILED: "#D55E00", NOT_ATTEMPTED: "#999999", BROKEN: "#CC79A7",
}  # fmt: skip
#: Set by nbgrader in the kernel: "autograde" or "validate".
GRADING = "NBGRADER_EXECUTION"
#: What a function may raise that is given, or has given, something strange.
_STRANGE = RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError
NO_GRADIENT = 1e-6  #: rounding: a key's bias, say, has no gradient, because a softmax does not depend on it


@dataclass(frozen=True)
class Verdict:
    """The result of a check. `example` is a small matrix or a few lines, shown in a monospaced font."""

    status: str
    name: str
    message: str
    example: str = ""

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    def __repr__(self) -> str:
        lines = [f"{_SIGNS[self.status]} {self.name}: {self.status}", self.message, self.example]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        color = _COLORS[self.status]
        example = f"<pre style='margin:6px 0 0 0'>{html.escape(self.example)}</pre>" if self.example else ""
        return (
            f"<div style='border-left:5px solid {color};padding:4px 12px;margin:4px 0'>"
            f"<b>{_SIGNS[self.status]} {html.escape(self.name)}: {self.status}</b><br>"
            f"{html.escape(self.message)}{example}</div>"
        )


class NotPassed(AssertionError):
    """Raised with a verdict's text while nbgrader executes a notebook: the cell then earns no points."""


def graded(verdict: Verdict) -> Verdict:
    """The verdict. While nbgrader executes the notebook, one that is not "passed" raises NotPassed instead."""
    if os.environ.get(GRADING) and not verdict.passed:
        raise NotPassed(str(verdict))
    return verdict


# --- Cases ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One small input: its description in words, and the arguments.

    learns  name in words -> a leaf tensor that the arguments are made of, or a parameter of one of them. The gradient
            of the answer must reach it just as the library's does.
    """

    description: str
    args: tuple
    learns: Mapping[str, Tensor] = field(default_factory=dict)


def learning(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf that asks for a gradient, and a tensor of the same numbers made of it, for a case's arguments.

    The argument is no leaf, so that a change in place is possible and can be told.
    """
    leaf = tensor.detach().clone().requires_grad_()
    return leaf, leaf * 1


def parameters_of(module: nn.Module, name: str) -> dict[str, Tensor]:
    """All parameters of a module, for `Case.learns`: name in words -> parameter."""
    return {f"{name}'s {key}": parameter for key, parameter in module.named_parameters()}


class AnswerError(Exception):
    """An error raised by the student's code, apart from errors of the check itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class _Result:
    """What a function gave for a case: its value (or the error it raised), and the gradients that reach what learns."""

    value: Any
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    backward_error: str = ""


# --- Check ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """Called with a student's function, returns a Verdict.

    solution     the library's function
    also_right   other readings of the exercise's text: an answer that agrees with one of them in every case passes
    cases        returns the inputs, smallest first, the same at every call
    verified     what a passed check has verified, one sentence
    mistakes     message -> a function that makes this mistake
    rules        further diagnoses: (case, got, expected) -> message or None
    show         (case, got, expected) -> the counterexample in a few lines
    run          (function, args) -> the value that is compared; by default the return value
    tolerance    absolute and relative tolerance of numbers
    parts        names of the parts of an answer of several
    no_gradient  the message for an answer whose gradient reaches a tensor that the library's does not reach
    """

    name: str
    solution: Callable
    cases: Callable[[], Sequence[Case]]
    verified: str
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    also_right: Sequence[Callable] = ()
    rules: Sequence[Callable[[Case, Any, Any], str | None]] = ()
    show: Callable[[Case, Any, Any], str] | None = None
    run: Callable[[Callable, tuple], Any] = lambda function, args: function(*args)
    tolerance: float = 1e-4
    parts: Sequence[str] = ()
    no_gradient: str = ""

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
        guarded = _guarded(answer)
        before, asked = self.cases(), self.cases()
        got = []
        for case in asked:
            try:
                got.append(self._run(guarded, case))
            except AnswerError as wrapped:
                if not got and _is_stub(wrapped.error, answer):
                    return Verdict(NOT_ATTEMPTED, self.name, f"Going on with {qualified_name(self.solution)}.")
                got.append(_Result(wrapped.error))
        ours = [result.value for result in got]
        expected, theirs, same = self._nearest_reading(ours)
        changed = next((b for b, a in zip(before, asked, strict=True) if not equal(a.args, b.args, 0.0)), None)
        if all(same):
            return self._promises(got, expected, asked, changed)
        first = same.index(False)
        case = before[first]
        message = self._diagnose(guarded, ours, theirs, first)
        if changed is not None:  # what is wrong may only be what it did to the input of a later case
            why = "" if message is None or isinstance(ours[first], BaseException) else f" And: {message}"
            message = f"Your function changes its input in place ({changed.description}). Work on a copy.{why}"
        if isinstance(ours[first], BaseException):
            message = message or _error_message(ours[first], answer)
            return Verdict(FAILED, self.name, message, f"input: {case.description}")
        if message is None:
            told = _or_none(describe_difference, ours[first], theirs[first], self.tolerance, self.parts)
            message = told or f"Your answer is of another kind: {describe(ours[first])}."
            if first and len(before) > 1:
                message += f" (Right for: {before[0].description}.)"
        shown = _or_none(self.show or _side_by_side, case, ours[first], theirs[first])
        return Verdict(FAILED, self.name, message, shown or f"input: {case.description}")

    def _nearest_reading(self, got: list) -> tuple[list[_Result], list, list[bool]]:
        """The reading of the text that these answers agree with, else the library's: results, values, equal or not."""
        found = []
        for results in self._expected:
            values = [result.value for result in results]
            same = [equal(a, b, self.tolerance) for a, b in zip(got, values, strict=True)]
            found.append((results, values, same))
        return next((reading for reading in found if all(reading[2])), found[0])

    def _promises(
        self, got: Sequence[_Result], expected: Sequence[_Result], cases: Sequence[Case], changed: Case | None
    ) -> Verdict:
        """The verdict on an answer whose values are right: is its input as before, and where does its gradient go?"""
        if changed is not None:
            message = "The answer is right, but your function changes its input in place. Work on a copy."
            return Verdict(FAILED, self.name, message, f"input: {changed.description}")
        for case, ours, theirs in zip(cases, got, expected, strict=True):
            message = _compare_gradients(ours, theirs, self.no_gradient)
            if message:
                return Verdict(FAILED, self.name, message, f"input: {case.description}")
        return Verdict(PASSED, self.name, self.verified)

    def _run(self, function: Callable, case: Case, seed: int = 0) -> _Result:
        torch.manual_seed(seed)
        with torch.enable_grad():
            value = self.run(function, case.args)
            gradients, error = _gradients(value, case.learns) if case.learns else ({}, "")
        return _Result(value, gradients, error)

    def _diagnose(self, answer: Callable, got: list, expected: list, first: int) -> str | None:
        """The message of the mistake that gives the same answers, or of the first rule that applies, or None."""
        if got[first] is None:
            return "Your function returns nothing: is there a `return`?"
        allowed = max(1, len(got) // 7) if len(got) > 2 else 0
        closest, nearly = None, allowed + 1
        for message in self.mistakes:
            theirs = self._wrong_values(message)
            same = [equal(a, b, self.tolerance) for a, b in zip(got, theirs, strict=True)]
            if all(same):
                return message
            if same[first] and same.count(False) < nearly:
                closest, nearly = message, same.count(False)
        if closest and (is_promises(expected[first]) or self._fails_where_it_differs(got, closest)):
            return closest  # the same mistake, in code that also fails on a case of another form
        for message in self.mistakes:
            if has_its_parts(got, self._wrong_values(message), expected, self.tolerance):
                return message  # the same mistake in a part of the answer, and another one in another part
        nearly_explained = f"Something like this: {closest}" if closest else ""
        if isinstance(got[first], BaseException):
            return nearly_explained or None
        case = self.cases()[first]
        messages = (_or_none(rule, case, got[first], expected[first]) for rule in self.rules)
        rule = next((message for message in messages if message), "")
        general = self._general(answer, got, expected) or _or_none(self._change, got, expected, first) or ""
        if is_promises(expected[first]):
            return rule or general or None
        if nearly_explained and not general:
            return nearly_explained
        general = general or _or_none(common_to_all, got, expected, self.tolerance) or ""
        return " ".join((general, rule)).strip() or None

    def _fails_where_it_differs(self, got: list, message: str) -> bool:
        """Whether the answers differ from a known mistake's only where the student's function stops with an error."""
        pairs = zip(got, self._wrong_values(message), strict=True)
        return all(isinstance(a, BaseException) for a, b in pairs if not self._same(a, b))

    def _general(self, answer: Callable, got: list, expected: list) -> str | None:
        """A difference that can occur in every subject, or None."""
        message = diagnose(got, expected, self.tolerance)
        if message or any(isinstance(value, BaseException) for value in got):
            return message
        again = [self._attempt(answer, case, seed=1) for case in self.cases()]
        if not all(equal(a, b, self.tolerance) for a, b in zip(again, got, strict=True)):
            return "Your function gives another answer each time it is called with the same input."
        if ignores_input(got, expected):
            return "Your function gives the same answer to every input."
        unchanged = [[equal(value, arg) for arg in case.args] for value, case in zip(got, self.cases(), strict=True)]
        if unchanged and any(all(column) for column in zip(*unchanged, strict=False)):
            return "Your function returns one of its arguments as it is."
        return None

    def _change(self, got: list, expected: list, first: int) -> str | None:
        """The change of the right answer, of a part of it, or of an argument that explains all answers, or None."""
        if len(got) < 2 or any(isinstance(value, BaseException) for value in got):
            return None  # one case can be explained by chance
        named = as_changed_answer(got, expected, self._same) or self._changed_part(got, expected, first)
        named = named or self._changed_argument(got, first) or self._more_of_a_mistake(got, expected)
        return named or self._changed_expression(got, expected, first)

    def _changed_expression(self, got: list, expected: list, first: int) -> str | None:
        """The expression of the library's function whose change gives these answers, or this part of them."""
        cases = self.cases()
        order = [first, *(i for i in range(len(got)) if i != first)]
        for words, mutant in self._mutants:
            values = dict.fromkeys(order)
            for i in order:
                values[i] = self._attempt(mutant, cases[i])
                if isinstance(values[i], BaseException) or not self._partly_same(got[i], values[i]):
                    break
            else:
                wrong = [values[i] for i in range(len(got))]
                if all(map(self._same, got, wrong)) or has_its_parts(got, wrong, expected, self.tolerance):
                    return f"{self._first_wrong_part(got, expected)}Yours is the right answer with {words}."
        return None

    def _first_wrong_part(self, got: list, expected: list) -> str:
        """ "`low` differs. ", where the parts of an answer have names."""
        for number, name in enumerate(self.parts if isinstance(expected[0], tuple) else ()):
            if not all(self._same(parts_of(a)[number], b[number]) for a, b in zip(got, expected, strict=True)):
                return f"`{name}` differs. "
        return ""

    def _partly_same(self, got: Any, wrong: Any) -> bool:
        """Equal, or of equal parts in some place."""
        ours, theirs = parts_of(got), parts_of(wrong)
        if not isinstance(wrong, tuple) or ours is None or theirs is None:
            return self._same(got, wrong)
        return any(self._same(a, b) for a, b in zip(ours, theirs, strict=False))

    def _more_of_a_mistake(self, got: list, expected: list) -> str | None:
        """The known mistake that was made to another degree: all answers lie on the line from the right one to it."""
        for message in self.mistakes:
            wrong = self._wrong_values(message)
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
            if not self._same(ours[first][number], theirs[first][number]):
                a, b = ([parts[number] for parts in values] for values in (ours, theirs))
                message = diagnose(a, b, self.tolerance) or as_changed_answer(a, b, self._same)
                name = f"`{self.parts[number]}`" if self.parts else f"Part {number + 1} of your answer"
                return f"{name} differs. {message}" if message else None
        return None

    def _changed_argument(self, got: list, first: int) -> str | None:
        calls: list[tuple[tuple, dict]] = []
        cases = self.cases()  # made once: the library's function does not change its input
        for case in cases:
            before = len(calls)

            def recorded(*args: Any, _before: int = before, **options: Any) -> Any:
                if len(calls) == _before:
                    calls.append(with_defaults(self.solution, args, options))
                return self.solution(*args, **options)

            self._attempt(recorded, case)
        order = [first, *(i for i in range(len(got)) if i != first)]

        def gives(function: Callable) -> bool:
            return all(self._same(got[i], self._attempt(function, cases[i])) for i in order)

        if not calls:
            return None
        return as_changed_argument(self.solution, calls, gives)

    def _same(self, got: Any, expected: Any) -> bool:
        return equal(got, expected, self.tolerance)

    @cached_property
    def _expected(self) -> list[list[_Result]]:
        """What the library's function gives, and what the other right readings give."""
        return [[self._run(right, case) for case in self.cases()] for right in (self.solution, *self.also_right)]

    @cached_property
    def _known(self) -> dict[str, list]:
        """Values of mistakes that were computed before: they do not depend on the student's answer."""
        return {}

    @cached_property
    def _mutants(self) -> list[tuple[str, Callable]]:
        """The library's function with one expression changed."""
        return list(mutants_of(self.solution))

    def _wrong_values(self, message: str) -> list:
        if message not in self._known:
            self._known[message] = [self._attempt(self.mistakes[message], case) for case in self.cases()]
        return self._known[message]

    def _attempt(self, wrong: Callable, case: Case, seed: int = 0) -> Any:
        """The value; a mistake may raise an error on a case, as the student's function then does."""
        try:
            return self._run(wrong, Case(case.description, case.args), seed).value
        except AnswerError as wrapped:
            return wrapped.error
        except _STRANGE as error:
            return error


@contextmanager
def students_code() -> Iterator[None]:
    """Errors in here, `exit()` included, are the student's: they are raised as AnswerError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise AnswerError(error) from error


def _guarded(answer: Callable) -> Callable:
    def call(*args: Any, **options: Any) -> Any:
        with students_code():
            return answer(*args, **options)

    return call


def _is_stub(error: BaseException, answer: Callable) -> bool:
    """Whether it is the exercise's own `raise NotImplementedError`, not one from inside a library."""
    if not isinstance(error, NotImplementedError):
        return False
    code = getattr(answer, "__code__", None)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return code is None or last.name == code.co_name


# --- Gradients ------------------------------------------------------------------------------------------------------


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _gradients(value: Any, learns: Mapping[str, Tensor]) -> tuple[dict[str, Tensor | None], str]:
    """The gradient of a fixed weighted sum of the value on each tensor, None where there is none; and an error."""
    total = 0.0
    for i, tensor in enumerate(_tensors(value)):
        if tensor.requires_grad:
            weights = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            total = total + (tensor.double() * weights).sum()
    asking = {name: leaf for name, leaf in learns.items() if leaf.requires_grad}
    found: dict[str, Tensor | None] = dict.fromkeys(learns)
    if isinstance(total, Tensor) and asking:
        try:
            gradients = torch.autograd.grad(total, list(asking.values()), allow_unused=True)
        except RuntimeError as error:
            return found, str(error)
        found.update(zip(asking, gradients, strict=True))
    return found, ""


def _compare_gradients(ours: _Result, theirs: _Result, no_gradient: str) -> str | None:
    """What is wrong with the gradients of an answer of the right value, or None."""
    if ours.backward_error:
        return f"The value is right, but its gradient cannot be computed: {ours.backward_error}"
    for name, expected in theirs.gradients.items():
        got = ours.gradients[name]
        has = got is not None and bool(got.any())
        should = expected is not None and bool((expected.abs() > NO_GRADIENT).any())
        if has and not should and no_gradient:
            return no_gradient
        if should and not has:
            return (
                f"The value is right, but no gradient reaches {name}, so nothing is learned there: look for detach, "
                "no_grad, float(), .item(), .data, numpy or torch.tensor in your function."
            )
        if should and not equal(got, expected, 1e-3):
            return (
                f"The value is right, but only a part of the gradient reaches {name}: some step is cut off by detach, "
                "no_grad, float(), .item(), .data, numpy or torch.tensor."
            )
    return None


# --- In words -------------------------------------------------------------------------------------------------------


def _or_none(describing: Callable[..., str | None], *args: Any) -> str | None:
    """What a description says, or None where the answer is too strange for it: that is no fault of the check's."""
    try:
        return describing(*args)
    except _STRANGE:
        return None


def _side_by_side(case: Case, got: Any, expected: Any) -> str:
    return f"input: {case.description}\nyours:\n{format_value(got)}\nthe library's:\n{format_value(expected)}"


# --- Sources --------------------------------------------------------------------------------------------------------


def qualified_name(thing: Callable) -> str:
    """`masks.unimodal_mask`: the module without the package, and the name."""
    module = thing.__module__.removeprefix("blip2_lab.")
    return f"{module}.{thing.__qualname__}"


def _error_message(error: BaseException, answer: Callable) -> str:
    """An exception as a sentence, with the line of the student's function that raised it."""
    if isinstance(error, SystemExit):
        return "Your function ends the whole program (exit or quit): return an answer instead."
    code = getattr(answer, "__code__", None)
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.name == code.co_name]
    line = f" in the line `{here[-1].line}`" if here and here[-1].line else ""
    return f"Your function stops with {type(error).__name__}{line}: {str(error).strip() or 'no message'}"


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
