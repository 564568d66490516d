"""Mutants of the library's function: what it gives with one expression written differently.

`mutants_of` is where to begin. A wrong answer that equals a mutant's in every case has made this mistake, or one that
gives the same numbers, so the two expressions are told.

Notes:

* One change each: an operator, a comparison, a number, an order, a method (mean, sum, largest), a call that is left
  out, a branch, or one argument or attribute in another's place.
* A mutant runs only on the small cases of a check. Functions with a `while` or a closure have none.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

#: Operators and methods that are taken for one another.
_OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add), ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_METHODS = (
    ("mean", "sum", "amax", "amin", "prod"), ("max", "min"), ("argmax", "argmin"), ("any", "all"),
    ("floor", "ceil", "round", "trunc"), ("cos", "sin"), ("softmax", "log_softmax"), ("exp", "log"),
    ("tanh", "sigmoid"), ("gelu", "relu", "silu", "tanh"), ("adaptive_avg_pool2d", "adaptive_max_pool2d"),
)  # fmt: skip
_SHORTEST, _LONGEST = 8, 80  #: letters of an expression that is shown

Mutant = tuple[str, Callable]  #: the two expressions in words, and the function


def mutants_of(function: Callable) -> Iterator[Mutant]:
    """The function with one expression changed, in words and as a function. None where it has no source to change."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    body = tree.body[0]
    if not isinstance(body, ast.FunctionDef) or function.__closure__:
        return
    if any(isinstance(node, ast.While) for node in ast.walk(body)):
        return
    _keep_code_only(body)
    for place, node in enumerate(ast.walk(body)):
        for number in range(len(_replacements(node, body))):
            yield from _changed(body, place, number, function)


def _keep_code_only(body: ast.FunctionDef) -> None:
    """Without decorators, annotations and docstring."""
    body.decorator_list, body.returns = [], None
    for argument in (*body.args.posonlyargs, *body.args.args, *body.args.kwonlyargs):
        argument.annotation = None
    if len(body.body) > 1 and isinstance(body.body[0], ast.Expr) and isinstance(body.body[0].value, ast.Constant):
        del body.body[0]


def _changed(body: ast.FunctionDef, place: int, number: int, function: Callable) -> Iterator[Mutant]:
    """The body with the node at this place replaced, then with the expression around it replaced wherever it stands.
    None where the expressions are too long to be read."""
    changed = copy.deepcopy(body)
    nodes = list(ast.walk(changed))
    parents = {child: parent for parent in nodes for child in ast.iter_child_nodes(parent)}
    old = nodes[place]
    new = _replacements(old, changed)[number]
    shown = old
    while isinstance(parents[shown], ast.expr | ast.keyword) and (
        len(ast.unparse(shown)) < _SHORTEST or getattr(parents[shown], "func", None) is shown
    ):
        shown = parents[shown]
    before, everywhere = ast.unparse(shown), ast.dump(shown)
    _put(new, old, parents[old])
    shown = new if shown is old else shown
    after = ast.unparse(shown)
    if before == after or max(len(before), len(after)) > _LONGEST:
        return
    words = f"`{after}` in place of `{before}`"
    yield words, _compiled(changed, function)
    again = copy.deepcopy(body)
    equal = [
        (node, parent)
        for parent in ast.walk(again)
        for node in ast.iter_child_nodes(parent)
        if ast.dump(node) == everywhere
    ]
    if len(equal) > 1:
        for node, parent in equal:
            _put(copy.deepcopy(shown), node, parent)
        yield words, _compiled(again, function)


def _put(new: ast.AST, old: ast.AST, parent: ast.AST) -> None:
    for field, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, field, new)
        elif isinstance(value, list):
            value[:] = [new if part is old else part for part in value]


def _compiled(body: ast.FunctionDef, function: Callable) -> Callable:
    """Any error of a mutant is a ValueError: it is then no explanation."""
    module = ast.fix_missing_locations(ast.Module(body=[body], type_ignores=[]))
    space: dict[str, Any] = {}
    exec(compile(module, "<mutant>", "exec"), {**function.__globals__}, space)
    mutant = space[body.name]

    def run(*args: Any, **options: Any) -> Any:
        try:
            return mutant(*args, **options)
        except Exception as error:
            raise ValueError("no answer") from error

    return run


# --- What may stand in the place of a node --------------------------------------------------------------------------


def _replacements(node: ast.AST, body: ast.FunctionDef) -> list[ast.AST]:
    """The nodes that may stand in this one's place, always in the same order."""
    if isinstance(node, ast.BinOp):
        others = [ast.BinOp(node.left, other(), node.right) for other in _OPERATORS.get(type(node.op), ())]
        return [*others, node.left, node.right, ast.BinOp(node.right, node.op, node.left)]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        others = [
            ast.Compare(node.left, [other()], node.comparators) for other in _OPERATORS.get(type(node.ops[0]), ())
        ]
        return others
    if isinstance(node, ast.BoolOp):
        return [*(ast.BoolOp(other(), node.values) for other in _OPERATORS[type(node.op)]), *node.values]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.Slice):
        return [
            *([ast.Slice(None, node.upper, node.step)] if node.lower else []),
            *([ast.Slice(node.lower, None, node.step)] if node.upper else []),
        ]
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
        return [type(node)(elements, ast.Load()) for elements in _exchanged(node.elts)]
    if isinstance(node, ast.Constant):
        return [ast.Constant(value) for value in _other_numbers(node.value)]
    if isinstance(node, ast.Call):
        left_out = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        turned = [ast.Call(node.func, arguments, node.keywords) for arguments in _exchanged(node.args)]
        return [*left_out, *node.args[:1], *turned]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        names = [name for group in _METHODS if node.attr in group for name in group] + _attributes(node.value, body)
        return [ast.Attribute(node.value, name, ast.Load()) for name in dict.fromkeys(names) if name != node.attr]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        names = [argument.arg for argument in (*body.args.args, *body.args.kwonlyargs)]
        return [ast.Name(name, ast.Load()) for name in names if name != node.id] if node.id in names else []
    return []


def _exchanged(parts: list[ast.expr]) -> Iterator[list[ast.expr]]:
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            order = list(parts)
            order[i], order[j] = order[j], order[i]
            yield order


def _other_numbers(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [n for n in dict.fromkeys((value + 1, value - 1, 2 * value)) if n != value]
    return [2 * value, value / 2, 1.0] if isinstance(value, float) else []


def _attributes(base: ast.expr, body: ast.FunctionDef) -> list[str]:
    """All attributes of this name that the function uses."""
    if not isinstance(base, ast.Name):
        return []
    used = (node for node in ast.walk(body) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return list(dict.fromkeys(node.attr for node in used if node.value.id == base.id))
