"""Where does a student's calculation leave the library's? Both are run, and the values of their expressions compared.

`steps_of` records the values of a function's expressions, `first_difference` names the first one in the student's
function that the library's does not compute, and the first one of the library's that the student's does not.

Notes:

* Expressions are compared by their values, so names and style do not matter.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.mutants import Code, code_of, function_of

_LONGEST = 90  #: letters of an expression that is shown
_MOST = 400  #: values that are kept, of a loop say
_PACKAGE = "blip2_lab"

_FEW = 8  #: numbers that may be a row of another value

Step = tuple[str, Any, bool]  #: an expression, its value, and whether it stands in the function itself


class _Recorder(ast.NodeTransformer):
    """Wraps each expression that computes something: `_step("a + b", a + b)`."""

    def visit(self, node: ast.AST) -> ast.AST:
        computes = isinstance(node, ast.Call | ast.BinOp | ast.UnaryOp | ast.Subscript)
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
        elif isinstance(node, ast.expr | ast.stmt) and not isinstance(node, ast.JoinedStr | ast.Lambda):
            self.generic_visit(node)
        if not text or (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)):
            return node
        call = ast.Call(ast.Name("_step", ast.Load()), [ast.Constant(text), node], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


def steps_of(function: Callable, run: Callable[[Callable], Any]) -> list[Step]:
    """The expressions, their values, and whether they stand in the function itself, in the order in which they are
    computed. Those of this package's functions that it calls are among them. Empty where there is no source.

    run  gives the value of a function for a case
    """
    steps: list[Step] = []

    def step(own: bool, text: str, value: Any) -> Any:
        if len(steps) < _MOST:
            steps.append((text, value.detach().clone() if isinstance(value, Tensor) else value, own))
        return value

    recording = _recording(function, partial(step, True), partial(step, False))
    if recording is not None:
        run(recording)
    return steps


def _recording(function: Callable, step: Callable, step_of_helpers: Callable | None) -> Callable | None:
    code = code_of(function)
    if code is None:
        return None
    names: dict[str, Any] = {"_step": step}
    calls = [node for node in ast.walk(code.body) if isinstance(node, ast.Call)] if step_of_helpers else []
    recorder = _Recorder()
    code.body.body = [recorder.visit(statement) for statement in code.body.body]
    for call in calls:
        helper = _helper_of(call.func, code.space)
        recording = _recording(helper, step_of_helpers, None) if helper else None
        if recording is not None:
            names[f"_{helper.__name__}"] = recording
            call.func = ast.copy_location(ast.Name(f"_{helper.__name__}", ast.Load()), call.func)
    return function_of(Code(ast.fix_missing_locations(code.body), code.space), **names)


def _helper_of(called: ast.AST, space: dict[str, Any]) -> Callable | None:
    """The function of this package that is called by its name, or by its module's and its own."""
    if isinstance(called, ast.Name):
        found = space.get(called.id)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        module = space.get(called.value.id)
        found = getattr(module, called.attr, None) if isinstance(module, types.ModuleType) else None
    else:
        return None
    own = isinstance(found, types.FunctionType) and found.__module__.split(".")[0] == _PACKAGE
    return found if own else None


def first_difference(
    ours: Sequence[Step], theirs: Sequence[Step], arguments: Sequence[Any], *, numbers: bool = False
) -> str:
    """The first expression of each that the other does not compute, in words, or "".

    arguments  what both were given: no step
    numbers    compare also numbers that are no tensors: where the answer is one
    """
    ours, theirs = ([step for step in steps if _counts(step[1], numbers)] for steps in (ours, theirs))
    given = [argument for argument in arguments if _counts(argument, numbers)]
    values, right = [[*given, *(value for _, value, _ in steps)] for steps in (ours, theirs)]
    strange = next(((text, v) for text, v, own in ours if own and not _among(v, right)), None)
    lacking = [(text, value) for text, value, _ in theirs if not _among(value, values)]
    if strange is None or not lacking:
        return ""
    shape = getattr(strange[1], "shape", None)
    alike = next((text for text, value in lacking if getattr(value, "shape", None) == shape), "")
    wanted = alike or lacking[0][0]
    strange, wanted = (text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …" for text in (strange[0], wanted))
    return (
        f"Your function computes `{strange}`, which is no step of the library's; the first step"
        f"{' of this form' if alike else ''} that yours does not take is `{wanted}`."
    )


def _counts(value: Any, numbers: bool) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 0 and not value.is_complex() and value.device.type != "meta"
    return numbers and isinstance(value, float)


def _among(value: Any, others: Sequence[Any]) -> bool:
    return any(_alike(value, other) for other in others)


def _alike(one: Any, other: Any) -> bool:
    """Equal, also if one is transposed, or a few of the other's numbers: of a loop over its rows."""
    a, b = (torch.as_tensor(value).detach().double() for value in (one, other))
    if a.numel() < b.numel() and a.numel() <= _FEW:
        return bool(((a.reshape(-1, 1) - b.reshape(1, -1)).abs() < 1e-5).any(dim=1).all())
    turned = [b, b.mT] if b.ndim >= 2 else [b]
    return any(a.shape == c.shape and torch.allclose(a, c, rtol=1e-4, atol=1e-6, equal_nan=True) for c in turned)
