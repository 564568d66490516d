"""The check of an exercise: passed, failed with the likely mistake in words, or not attempted.

`Check` is where to begin: calling it with a student's function returns a `Verdict`.

Notes:

* A check has the library's function, a few small cases, and typical mistakes, each written as a wrong function. An
  answer that behaves like one of them gets its message; any other wrong answer gets the smallest case on which it
  differs.
* Cases are made anew for every run, so a function that changes its input in place is detected and does no harm.
* `check.solution` is the library's function, and `show_source(check.solution)` shows its source, folded: the solution
  is always the current code.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import html
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
_SIGNS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "…"}
_COLORS = {PASSED: "#0072B2", FAILED: "#D55E00", NOT_ATTEMPTED: "#999999"}  # distinguishable with color blindness


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


@dataclass(frozen=True)
class Case:
    """One small input: its description in words, and the arguments."""

    description: str
    args: tuple


@dataclass(frozen=True)
class Check:
    """Called with a student's function, returns a Verdict.

    solution   the library's function
    cases      returns the inputs, smallest first, the same at every call
    verified   what a passed check has verified, one sentence
    mistakes   message -> a function that makes this mistake
    rules      further diagnoses: (case, got, expected) -> message or None
    show       (case, got, expected) -> the counterexample in a few lines
    run        (function, args) -> the value that is compared; by default the return value
    tolerance  absolute and relative tolerance of numbers
    """

    name: str
    solution: Callable
    cases: Callable[[], Sequence[Case]]
    verified: str
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    rules: Sequence[Callable[[Case, Any, Any], str | None]] = ()
    show: Callable[[Case, Any, Any], str] | None = None
    run: Callable[[Callable, tuple], Any] = lambda function, args: function(*args)
    tolerance: float = 1e-4

    def __call__(self, answer: Callable) -> Verdict:
        cases, asked = self.cases(), self.cases()
        expected = [self._run(self.solution, case.args) for case in self.cases()]
        got = []
        for case in asked:
            try:
                got.append(self._run(answer, case.args))
            except NotImplementedError:
                return Verdict(NOT_ATTEMPTED, self.name, f"Going on with {qualified_name(self.solution)}.")
            except Exception as error:  # any error of the student's code becomes a sentence
                got.append(error)
        same = [equal(ours, theirs, self.tolerance) for ours, theirs in zip(got, expected, strict=True)]
        if all(same):
            for before, after in zip(cases, asked, strict=True):
                if not equal(after.args, before.args, 0.0):
                    message = "The answer is right, but your function changes its input in place. Work on a copy."
                    return Verdict(FAILED, self.name, message, f"input: {before.description}")
            return Verdict(PASSED, self.name, self.verified)
        first = same.index(False)
        message = self._diagnose(got, expected, cases, first)
        if isinstance(got[first], Exception):
            message = message or _error_message(got[first], answer)
            return Verdict(FAILED, self.name, message, f"input: {cases[first].description}")
        message = message or _describe_difference(got[first], expected[first], self.tolerance)
        show = self.show or _side_by_side
        return Verdict(FAILED, self.name, message, show(cases[first], got[first], expected[first]))

    def _run(self, function: Callable, args: tuple) -> Any:
        torch.manual_seed(0)
        with torch.enable_grad():
            return self.run(function, args)

    def _diagnose(self, got: list, expected: list, cases: Sequence[Case], first: int) -> str | None:
        """The message of the mistake that gives the same answers, or of the first rule that applies, or None."""
        if got[first] is None:
            return "Your function returns nothing: is there a `return`?"
        for message, wrong in self.mistakes.items():
            theirs = [self._attempt(wrong, case.args) for case in self.cases()]
            if all(equal(a, b, self.tolerance) for a, b in zip(got, theirs, strict=True)):
                return message
        if isinstance(got[first], Exception):
            return None
        messages = (rule(cases[first], got[first], expected[first]) for rule in self.rules)
        return next((message for message in messages if message), None)

    def _attempt(self, wrong: Callable, args: tuple) -> Any:
        """A mistake may raise an error on a case, as the student's function then does."""
        try:
            return self._run(wrong, args)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            return error


def prediction(guess: Any, truth: Any, because: str = "", tempting: Mapping[Any, str] | None = None) -> Verdict:
    """Compare a prediction, made before running, with the result.

    guess     None: not attempted
    because   the reason for the result, one sentence
    tempting  wrong answer -> the reasoning that leads to it
    """
    name, shown = "prediction", f"{truth:.4g}" if isinstance(truth, float) else f"{truth}"
    if guess is None:
        return Verdict(NOT_ATTEMPTED, name, f"It is {shown}. {because}".strip())
    if isinstance(truth, float) and isinstance(guess, int | float):
        right = abs(guess - truth) <= 0.1 * abs(truth)
    else:
        right = guess == truth
    if right:
        return Verdict(PASSED, name, f"It is {shown}. {because}".strip())
    thought = (tempting or {}).get(guess, "")
    return Verdict(FAILED, name, " ".join(part for part in (f"It is {shown}, not {guess}.", thought, because) if part))


# --- Comparing ------------------------------------------------------------------------------------------------------


def equal(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Equal shapes and kinds (bool or number) and close values; tuples, lists and dicts element by element."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
            return False
        return torch.allclose(a.detach().double(), b.detach().double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(equal(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key], tolerance) for key in a)
    if isinstance(a, Exception) and isinstance(b, Exception):
        return type(a) is type(b)
    if isinstance(a, torch.Generator | torch.nn.Module):
        return True  # the state of a generator changes with use; modules are compared by their outputs
    if isinstance(a, int | float) and isinstance(b, int | float) and isinstance(a, bool) == isinstance(b, bool):
        return abs(a - b) <= tolerance * max(1.0, abs(b))
    return type(a) is type(b) and a == b


def _describe_difference(got: Any, expected: Any, tolerance: float) -> str:
    """The difference in words, for an answer that makes none of the known mistakes."""
    if isinstance(expected, tuple) and not (isinstance(got, tuple | list) and len(got) == len(expected)):
        return f"Return {len(expected)} things, in this order; yours returns {_describe(got)}."
    if isinstance(expected, tuple | list) and isinstance(got, tuple | list):
        for i, (ours, theirs) in enumerate(zip(got, expected, strict=False)):
            if not equal(ours, theirs, tolerance):
                return f"Part {i + 1} of your answer differs. {_describe_difference(ours, theirs, tolerance)}"
        return f"Your answer has {len(got)} parts, the library's {len(expected)}."
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor):
            return f"Return a tensor; yours returns {_describe(got)}."
        if got.shape != expected.shape:
            turned = " It looks transposed." if sorted(got.shape) == sorted(expected.shape) else ""
            return f"The shape is {list(got.shape)} and should be {list(expected.shape)}.{turned}"
        if (got.dtype == torch.bool) != (expected.dtype == torch.bool):
            return f"The dtype is {got.dtype} and should be {expected.dtype}."
        if got.isnan().any() and not expected.isnan().any():
            return "There are NaNs in your answer: a division by zero, or a softmax over nothing but -inf."
    return "The numbers differ; the smallest case where they do:"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} things"
    return f"{value!r}"


def _side_by_side(case: Case, got: Any, expected: Any) -> str:
    return f"input: {case.description}\nyours:\n{format_value(got)}\nthe library's:\n{format_value(expected)}"


def format_value(value: Any, indent: str = "  ") -> str:
    """A value in a few lines: small tensors in full, large ones by shape and first numbers."""
    if isinstance(value, Tensor):
        value = value.detach()
        if value.numel() > 64:
            head = ", ".join(f"{number:.3f}" for number in value.flatten()[:4].double().tolist())
            return f"{indent}shape {list(value.shape)}: {head}, ..."
        if value.ndim == 2:
            return "\n".join(indent + " ".join(_number(x) for x in row) for row in value.tolist())
        return indent + str(_rounded(value.tolist()))
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return "\n".join(format_value(part, indent) for part in value)
    if isinstance(value, dict):
        return "\n".join(f"{indent}{key}: {part}" for key, part in value.items())
    return f"{indent}{value}"


def _number(x: float | int | bool) -> str:
    return f"{x:7.3f}" if isinstance(x, float) else f"{int(x):2d}"


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 3) if isinstance(value, float) else value


# --- Sources --------------------------------------------------------------------------------------------------------


def qualified_name(thing: Callable) -> str:
    """`masks.unimodal_mask`: the module without the package, and the name."""
    module = thing.__module__.removeprefix("blip2_lab.")
    return f"{module}.{thing.__qualname__}"


def _error_message(error: Exception, answer: Callable) -> str:
    """An exception as a sentence, with the line of the student's function that raised it."""
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
