"""The steps of a calculation: the values of a function's expressions, and how far two functions have the same ones.

`steps_of` records them. `last_agreement` tells up to which step a student's calculation is the library's, and
`step_too_much` the step that is added to the right answer, or multiplied with it.

Notes:

* Values are compared, so names and style do not matter: a value may be transposed, or come row by row in a loop. What
  a mask hides counts as hidden, by -10000 or by -inf.
* A step that the student's function lacks is told only if nothing that depends on it is there, either: many right
  answers do without a step of the library's.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import itertools
import operator
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from blip2_lab.models.attention import MASKED
from blip2_lab.teaching.checks.function_code import Code, code_of, compiled, function_of
from blip2_lab.teaching.checks.mutants import LONGEST
from blip2_lab.teaching.checks.plain_losses import classes_last, in_steps

_MOST = 2_000  #: values that are kept, of a loop say
_PACKAGE = "blip2_lab"

Run = Callable[[Callable], Any]  #: a function -> its value for a case, or its error
Key = tuple[str, int]  #: the helper in which an expression stands, and its number there

# --- The steps of a function ----------------------------------------------------------------------------------------


@dataclass
class Step:
    """An expression, and the values that it has had, in their order.

    helper  the function of this package in which it stands, "" for the function itself
    """

    text: str
    helper: str
    values: list[Any] = field(default_factory=list)

    @property
    def told(self) -> str:
        return f"`{shortened(self.text)}`" + (f" (in `{self.helper}`)" if self.helper else "")


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


class _Recorder(ast.NodeTransformer):
    """Wraps each expression that computes something: `_step(7, "a + b", a + b)`, 7 being its number.

    inside  calls whose own steps are recorded, up to their end: what they return says nothing more
    """

    def __init__(self, inside: Collection[ast.Call] = ()) -> None:
        self.count, self.inside = 0, inside

    def visit(self, node: ast.AST) -> ast.AST:
        computes = isinstance(node, ast.Call | ast.BinOp | ast.UnaryOp | ast.Subscript | ast.Compare)
        computes = computes or (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call))  # `.values`, say
        number = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
        text = ast.unparse(node) if computes and not number else ""
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                node.func.value = self.visit(node.func.value)
            node.args = [self.visit(argument) for argument in node.args]
            for keyword in node.keywords:
                keyword.value = self.visit(keyword.value)
        elif isinstance(node, ast.Subscript):
            node.value = self.visit(node.value)
        elif isinstance(node, ast.expr | ast.stmt | ast.comprehension) and not isinstance(
            node, ast.JoinedStr | ast.Lambda
        ):
            self.generic_visit(node)
        if not text or node in self.inside or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return node
        self.count += 1
        call = ast.Call(ast.Name("_step", ast.Load()), [ast.Constant(self.count), ast.Constant(text), node], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


def steps_of(
    function: Callable, run: Run, changes: Mapping[Key, Callable[[Any], Any]] = MappingProxyType({})
) -> dict[Key, Step]:
    """The steps of a function, in the order in which they are computed first. Those of this package's functions that it
    calls are among them. Empty where there is no source.

    run      gives the value of a function for a case
    changes  of the values of some steps
    """
    steps: dict[Key, Step] = {}
    kept = itertools.count()

    def step(helper: str, number: int, text: str, value: Any) -> Any:
        if next(kept) < _MOST:
            found = steps.setdefault((helper, number), Step(text, helper))
            found.values.append(value.detach().clone() if isinstance(value, Tensor) else value)
        return changes[helper, number](value) if (helper, number) in changes else value

    recording = _recording(function, step, "")
    if recording is not None:
        run(recording)
    return steps


def _recording(function: Callable, step: Callable, helper: str) -> Callable | None:
    """The function, which tells `step` its values. helper: its name, if another one calls it."""
    prepared = _prepared(function)
    if prepared is None:
        return None
    names: dict[str, Any] = {"_step": partial(step, helper)}
    for name, called in prepared.calls.items():
        if in_steps(called, {}):
            names[name] = _each_in_steps(called, step)
        else:
            names[name] = (None if helper else _recording(called, step, called.__name__)) or called
    return function_of(prepared.code, prepared.tree, **names)


@dataclass(frozen=True)
class _Prepared:
    """The code of a function that tells `_step` its values. calls: what it calls by a name made for it."""

    code: Code
    tree: types.CodeType
    calls: Mapping[str, Callable]


@lru_cache(maxsize=100)
def _prepared(function: Callable) -> _Prepared | None:
    code = code_of(function)
    if code is None:
        return None
    calls = [node for node in ast.walk(code.body) if isinstance(node, ast.Call)]
    inside = [call for call in calls if in_steps(_called(call.func, code.space), _constants(call))]
    recorder, names = _Recorder(inside), {}
    code.body.body = [recorder.visit(statement) for statement in code.body.body]
    for call in calls:
        called = _called(call.func, code.space)
        own = isinstance(called, types.FunctionType) and called.__module__.split(".")[0] == _PACKAGE
        if own or call in inside:
            names[f"_{called.__name__}"] = called
            call.func = ast.copy_location(ast.Name(f"_{called.__name__}", ast.Load()), call.func)
    ast.fix_missing_locations(code.body)
    return _Prepared(code, compiled(code), names)


def _called(called: ast.AST, space: dict[str, Any]) -> Any:
    """What is called by its name, or by its module's and its own."""
    if isinstance(called, ast.Name):
        return space.get(called.id)
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        module = space.get(called.value.id)
        return getattr(module, called.attr, None) if isinstance(module, types.ModuleType) else None
    return None


def _constants(call: ast.Call) -> dict[str, Any]:
    """The options of a call that are written as constants."""
    return {part.arg: part.value.value for part in call.keywords if part.arg and isinstance(part.value, ast.Constant)}


def _each_in_steps(function: Callable, step: Callable) -> Callable:
    """A function of torch's in single steps, those of each call apart: two directions of a loss, say."""
    numbers = itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:
        plain = in_steps(function, options)
        if plain is None:
            return function(*args, **options)
        number = next(numbers)
        recording = _recording(plain, step, plain.__name__ if number == 1 else f"{plain.__name__}, call {number}")
        *prepared, options = classes_last(*args, **options)
        return recording(*prepared, **options).mean()

    return call


# --- Numbers --------------------------------------------------------------------------------------------------------


def numbers_of(values: Sequence[Any]) -> Tensor | None:
    """The values one below the other, [n, ...], or None where they are no numbers of one shape."""
    try:
        parts = [torch.as_tensor(value).detach() for value in values]
        usable = bool(parts) and all(part.numel() and not part.is_complex() for part in parts)
        return torch.stack(parts) if usable else None
    except (TypeError, ValueError, RuntimeError):
        return None


def is_constant(value: Tensor) -> bool:
    """Whether all its numbers are one: zeros, a mask that hides nothing."""
    return value.numel() > 1 and bool((value == value.flatten()[0]).all())


def close(one: Tensor, other: Tensor) -> bool:
    a, b = one.double(), other.double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two values have the same numbers, in some order. Whole numbers, True and False only in the same order,
    for they occur more than once; True and False also all turned round."""
    if one.numel() != other.numel() or (one.dtype == torch.bool) != (other.dtype == torch.bool):
        return False
    a, b = (value.flatten().double().clamp(min=MASKED / 2) for value in (one, other))
    if one.is_floating_point() or other.is_floating_point():
        return close(a.sort().values, b.sort().values)
    return torch.equal(a, b) or (one.dtype == torch.bool and torch.equal(a, 1 - b))


# --- How far two calculations are the same --------------------------------------------------------------------------


def last_agreement(
    answer: Callable, solution: Callable, arguments: Sequence[Sequence[Any]], runs: Sequence[Run]
) -> str:
    """Up to which step of the library's the student's function has the same numbers in every case, and with which one
    the library goes on, in words, or "".

    arguments  what both are given in each case: no step
    runs       give the value of a function, for each case
    """
    found = [_agreement(answer, solution, given, run) for given, run in zip(arguments, runs, strict=True)]
    differing = set().union(*(steps.keys() - common for steps, common, _ in found))
    for run, (steps, common, telling) in zip(runs, found, strict=True):
        depending = _Depending(steps, solution, run)
        texts = steps_of(solution, run)
        result = numbers_of([run(solution)])
        in_order = sorted(
            steps.keys() - common,
            key=lambda key: (_is(result, steps[key]), texts[key].helper != "", [*steps].index(key)),
        )
        for key in in_order:
            before = [earlier for earlier in steps if earlier in telling - differing and key in depending[earlier]]
            if before and not common & depending[key]:
                return _told(texts[before[-1]], texts[key])
    return ""


def _agreement(
    answer: Callable, solution: Callable, arguments: Sequence[Any], run: Run
) -> tuple[dict[Key, Tensor], set[Key], set[Key]]:
    """The numbers of the library's steps in a case, those that the student's function has, too, and which of these do
    not agree by chance."""
    theirs = _numbers(steps_of(solution, run))
    given = [value for value in map(numbers_of, [[argument] for argument in arguments]) if value is not None]
    ours = [*_numbers(steps_of(answer, run)).values(), *given]
    common = {key for key, value in theirs.items() if any(same_numbers(value, other) for other in ours)}
    telling = {key for key in common if _tells(theirs[key]) and not any(same_numbers(theirs[key], x) for x in given)}
    return theirs, common, telling


def _is(result: Tensor | None, value: Tensor) -> bool:
    """Whether a step is the answer: it is told last, for it says nothing of the way there."""
    return result is not None and close(result, value)


def _told(last: Step, following: Step) -> str:
    if len(following.text) > LONGEST:
        following = replace(following, text=following.text.replace(last.text, "…"))
    return (
        f"As far as {last.told} your numbers are the library's: look at what yours computes of them. The library goes "
        f"on with {following.told}."
    )


def _tells(value: Tensor) -> bool:
    """Whether it has a number that is no whole one: places and counts agree by chance."""
    return value.is_floating_point() and bool((value % 1 != 0).any())


def _numbers(steps: Mapping[Key, Step]) -> dict[Key, Tensor]:
    """What can be compared: the same for all says nothing."""
    found = {key: numbers_of(step.values) for key, step in steps.items()}
    return {key: value for key, value in found.items() if value is not None and not is_constant(value)}


class _Depending(dict):
    """For each step of a function those that change if it does, computed when they are asked for."""

    def __init__(self, before: Mapping[Key, Tensor], function: Callable, run: Run) -> None:
        self.before, self.function, self.run = before, function, run

    def __missing__(self, key: Key) -> set[Key]:
        after = _numbers(steps_of(self.function, self.run, {key: _disturbed}))
        changed = [other for other, value in self.before.items() if not (other in after and close(value, after[other]))]
        self[key] = set(changed) - {key}
        return self[key]


def _disturbed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, Tensor):
        return ~value if value.dtype == torch.bool else value + 1 + torch.arange(value.numel()).view_as(value) % 3
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else value


def step_too_much(
    got: Sequence[Any], expected: Sequence[Any], steps: Sequence[Mapping[Key, Step]], same: Callable[[Any, Any], bool]
) -> str:
    """The step that the right answers are added to, or multiplied with, in words, or "".

    steps  for each case
    same   whether two answers are equal
    """
    for key, step in steps[0].items():
        for words, change in _JOINED.items():
            joined = [_or_none(change, right, there, key) for right, there in zip(expected, steps, strict=True)]
            if all(map(same, got, joined)):
                return f"Yours is the right answer {words} {step.told}."
    return ""


_JOINED = {"plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": operator.truediv}


def _or_none(change: Callable, right: Any, steps: Mapping[Key, Step], key: Key) -> Any:
    """None also for True and False: times True, 1 stays 1 by chance."""
    numbers = numbers_of(steps[key].values) if key in steps else None
    if numbers is None or len(numbers) != 1 or numbers.dtype == torch.bool:
        return None
    try:
        return change(right, steps[key].values[0])
    except (RuntimeError, TypeError, ArithmeticError):
        return None
