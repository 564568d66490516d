"""The code of a function, as a tree that may be changed, and the function that a changed tree is.

`code_of` is where to begin; `function_of` makes a function of the tree again. mutants.py changes it, steps.py records
what its expressions give, dependence.py reads it.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """A function as a tree that may be changed, and the names that it finds outside of itself."""

    body: ast.FunctionDef
    space: dict[str, Any]


def code_of(function: Callable) -> Code | None:
    """The code of a function or a lambda, without decorators, annotations and docstring. None where there is no source
    to change, or where a change could make it run without an end, or leave a module as it should not be."""
    if not isinstance(function, types.FunctionType):
        return None
    try:
        body = _tree_of(function)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        space = {**function.__globals__, **{name: cell.cell_contents for name, cell in cells}}
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    endless = ast.While | ast.Yield | ast.YieldFrom | ast.Await | ast.Nonlocal | ast.Global
    if body is None or any(isinstance(node, endless) or _changes_a_module(node, space) for node in ast.walk(body)):
        return None
    body.decorator_list, body.returns = [], None
    for argument in (*body.args.posonlyargs, *body.args.args, *body.args.kwonlyargs):
        argument.annotation = None
    if len(body.body) > 1 and isinstance(body.body[0], ast.Expr) and isinstance(body.body[0].value, ast.Constant):
        del body.body[0]
    return Code(body, space)


def _changes_a_module(node: ast.AST, space: dict[str, Any]) -> bool:
    """Whether it gives another value to a name in a module or a class: without the line that undoes it, all would be
    changed that is called later."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        node = node.args[0] if node.args else node
    elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        node = node.value
    else:
        return False
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and isinstance(space.get(node.id), types.ModuleType | type)


def _tree_of(function: types.FunctionType) -> ast.FunctionDef | None:
    if function.__name__ != "<lambda>":
        body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        return body if isinstance(body, ast.FunctionDef) else None
    lines, _ = inspect.findsource(function)
    wanted = (function.__code__.co_code, function.__code__.co_names, function.__code__.co_varnames)
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Lambda) and node.lineno == function.__code__.co_firstlineno:
            alike = [c for c in _codes(compile(ast.Expression(node), "<lambda>", "eval")) if c.co_name == "<lambda>"]
            if any((code.co_code, code.co_names, code.co_varnames) == wanted for code in alike) or len(alike) == 1:
                body = ast.Return(node.body)
                made = ast.FunctionDef("answer", node.args, [body], [], None, None)
                return ast.fix_missing_locations(ast.copy_location(made, node))
    return None


def _codes(code: types.CodeType) -> list[types.CodeType]:
    return [code, *(inner for part in code.co_consts if isinstance(part, types.CodeType) for inner in _codes(part))]


def compiled(code: Code) -> types.CodeType:
    """The tree as it is now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a call of a number, say
        return compile(ast.Module(body=[code.body], type_ignores=[]), "<mutant>", "exec")


def function_of(code: Code, tree: types.CodeType | None = None, **names: Any) -> Callable:
    """The function that the tree is now, or was when it was compiled. Any error of it is a ValueError: it is then no
    explanation. names: further ones that it uses."""
    tree = tree or compiled(code)
    made: dict[str, Callable] = {}

    def run(*args: Any, **options: Any) -> Any:
        try:
            if not made:
                exec(tree, {**code.space, **names}, made)
            return made[code.body.name](*args, **options)
        except (Exception, SystemExit) as error:
            raise ValueError("no answer") from error

    return run
