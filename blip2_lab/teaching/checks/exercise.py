"""An exercise: the library's function, small cases, and typical mistakes, each written as a wrong function.

`Exercise` is where to begin. check.py asks it whether an answer is right, diagnosis.py what is wrong with one.

Notes:

* Cases are made anew for every run.
* A case names the tensors that learn (`Case.learns`). The gradient of an answer must reach them.
* What does not depend on the student's answer is computed once: what the library's function gives, what the mistakes
  give, and the library's function with a change.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from blip2_lab.teaching.checks.changes import changed_arguments, with_defaults
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.errors import STRANGE, AnswerError, guarded
from blip2_lab.teaching.checks.explanations import BUDGET, Candidates, attempts_on, candidates_for, work_of
from blip2_lab.teaching.checks.gradients import gradients_of
from blip2_lab.teaching.checks.variants import pairs_of

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


# --- Exercise -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a function gave for a case: its value (or the error it raised), and the gradients that reach what learns."""

    value: Any
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    backward_error: str = ""


@dataclass(frozen=True)
class Exercise:
    """What is asked, and what is known about wrong answers.

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
    seen         (case after the student's function, case after the library's) -> what was given to a part of the case
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
    seen: Callable[[Case, Case], str | None] | None = None

    def result_of(self, function: Callable, case: Case, seed: int = 0) -> Result:
        """What a function gives for a case. Its error is raised."""
        torch.default_generator.manual_seed(seed)  # as torch.manual_seed, without asking for GPUs
        with torch.enable_grad():
            value = self.run(function, case.args)
            gradients, error = gradients_of(value, case.learns) if case.learns else ({}, "")
        return Result(value, gradients, error)

    def attempt(self, wrong: Callable, case: Case, seed: int = 0) -> Any:
        """The value, or the error that is raised: by the student's function, or by a mistake on some case."""
        try:
            return self.result_of(guarded(wrong), Case(case.description, case.args), seed).value
        except AnswerError as wrapped:
            return wrapped.error
        except STRANGE as error:
            return error

    def same(self, got: Any, expected: Any) -> bool:
        return equal(got, expected, self.tolerance)

    # --- What is computed once --------------------------------------------------------------------------------------

    @cached_property
    def readings(self) -> list[list[Result]]:
        """What the library's function gives, and what the other right readings give."""
        return [[self.result_of(right, case) for case in self.cases()] for right in (self.solution, *self.also_right)]

    def wrong_values(self, message: str) -> list:
        """What a known mistake gives, for each case."""
        return [self.wrong_value(message, number) for number in range(len(self.readings[0]))]

    def wrong_value(self, message: str, number: int) -> Any:
        if (message, number) not in self._known:
            self._known[message, number] = self.attempt(self.mistakes[message], self.cases()[number])
        return self._known[message, number]

    @cached_property
    def _known(self) -> dict[tuple[str, int], Any]:
        """Values of mistakes for a case, computed before: they do not depend on the student's answer."""
        return {}

    @cached_property
    def calls_and_work(self) -> tuple[list[tuple[tuple, dict]], int]:
        """How the cases call the library's function, and the work of the largest case."""
        calls: list[tuple[tuple, dict]] = []
        work = 0
        for case in self.cases():  # the library's function does not change its input
            before = len(calls)

            def recorded(*args: Any, _before: int = before, **options: Any) -> Any:
                if len(calls) == _before:
                    calls.append(with_defaults(self.solution, args, options))
                return self.solution(*args, **options)

            work = max(work, work_of(lambda case=case, recorded=recorded: self.attempt(recorded, case)))
        return calls, work

    @cached_property
    def candidates(self) -> list[Candidates]:
        """The library's function with a change, from the simple ones to the far-fetched ones."""
        return candidates_for(self.solution, *self.calls_and_work, attempts_on(self.cases, self.attempt))

    @cached_property
    def pairs(self) -> Candidates:
        """Two known mistakes at once."""
        return Candidates(pairs_of(self.mistakes), attempts_on(self.cases, self.attempt), BUDGET)

    @cached_property
    def changed_mistakes(self) -> list[tuple[str, Candidates]]:
        """The known mistakes, each with a number or a mask among the arguments changed."""
        calls = self.calls_and_work[0]
        if not (calls and self.mistakes):
            return []
        attempt = attempts_on(self.cases, self.attempt)
        most = self.candidates[-1].at_most // len(self.mistakes)
        return [
            (message, Candidates(changed_arguments(mistake, calls, simple=True), attempt, min(most, 40)))
            for message, mistake in self.mistakes.items()
        ]
