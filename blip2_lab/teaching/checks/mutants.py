"""Mutants of a function: what it gives with one or two expressions written differently.

`mutants_of` is where to begin. A wrong answer that equals a mutant of the library's function in every case has made
this mistake, or one that gives the same numbers, so the two expressions are told. `explanations.repair_of` uses the
same changes on the student's own function, and looks for one that makes it right.

Notes:

* One change each: an operator, a comparison, a number, an order, a method (mean, sum, largest), a call, a keyword or a
  statement that is left out, a branch, or one name or attribute in another's place.
* `double_mutants_of` makes two such changes at places apart from each other, `mutants_of_helpers` one in a function of
  this package that the function calls. `expressions_of` changes the value of an expression, not its code.
* A mutant runs only on the small cases of a check. Functions with a `while` have none, for a mutant might not end.
* A list that grows takes no other name's place, nor another name its: a loop over it would not end, and a list that
  contains itself ends the program when a tensor is made of it.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import copy
import itertools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from blip2_lab.teaching.checks.function_code import Code, code_of, compiled, function_of

#: Operators and methods that are taken for one another.
_OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add), ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_METHODS = (
    ("mean", "sum", "amax", "amin", "prod"), ("max", "min"), ("argmax", "argmin"), ("any", "all"),
    ("floor", "ceil", "round", "trunc"), ("cos", "sin"), ("softmax", "log_softmax"), ("exp", "log"),
    ("log", "log10", "log2"), ("tanh", "sigmoid"), ("gelu", "relu", "silu", "tanh"),
    ("adaptive_avg_pool2d", "adaptive_max_pool2d"),
)  # fmt: skip
#: Comparisons that differ where both sides are equal.
_BOUNDARIES = {ast.Lt: (ast.LtE,), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE,), ast.GtE: (ast.Gt,)}
#: Expressions that have a value of their own.
_COMPUTES = ast.Name | ast.Attribute | ast.Call | ast.BinOp | ast.UnaryOp | ast.Subscript | ast.Compare
_SHORTEST, LONGEST = 8, 80  #: letters of an expression that is shown
HUGE = 10**6  #: a number
_PACKAGE = "blip2_lab"

Mutant = tuple[str, Callable]  #: the two expressions in words, and the function

# --- Places and changes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A node of a tree: where it stands in its parent, and the numbers of the first node in it and behind it."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    start: int
    end: int

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class Edit:
    """New nodes for places of a tree, and the change in words.

    small  a part is left out, a number is another one, or a comparison includes its limit or not
    """

    words: str
    puts: tuple[tuple[Place, ast.AST], ...]
    small: bool = False

    def apart_from(self, other: Edit) -> bool:
        """Whether no place of one lies in a place of the other."""
        pairs = itertools.product(self.puts, other.puts)
        return all(a.end <= b.start or b.end <= a.start for (a, _), (b, _) in pairs)


@contextmanager
def applied(*edits: Edit) -> Iterator[None]:
    """The tree with these edits, until the block ends."""
    for edit in edits:
        for place, new in edit.puts:
            place.put(new)
    try:
        yield
    finally:
        for edit in edits:
            for place, _ in edit.puts:
                place.put(place.node)


def places_of(body: ast.FunctionDef) -> list[Place]:
    """All nodes below the function's own, in the order of the code."""
    found: list[Place] = []

    def walk(parent: ast.AST) -> None:
        for field, value in ast.iter_fields(parent):
            parts = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, node in parts:
                if isinstance(node, ast.AST):
                    start = len(found)
                    found.append(Place(node, parent, field, index, start, start))
                    walk(node)
                    found[start] = Place(node, parent, field, index, start, len(found))

    walk(body)
    return found


def edits_of(body: ast.FunctionDef, *, more: bool = False, numbers: Sequence[int | float] = ()) -> Iterator[Edit]:
    """All single changes, always in the same order.

    more     also those that a student's code may need: other names and numbers, a statement or a keyword left out
    numbers  that may stand in the place of another one
    """
    places = places_of(body)
    above = {place.node: place for place in places}
    names = _names_in(body) if more else [argument.arg for argument in (*body.args.args, *body.args.kwonlyargs)]
    growing = _growing_in(body)
    harmless = {node for part in ast.walk(body) if isinstance(part, ast.Return) for node in ast.walk(part)}

    def may_end(place: Place, new: ast.AST) -> bool:
        names = {node.id for node in (place.node, new) if isinstance(node, ast.Name)}
        return place.node in harmless or not names & growing

    alike: dict[str, list[Place]] = {}
    for place in places:
        if isinstance(place.node, ast.expr):
            alike.setdefault(ast.dump(place.node), []).append(place)
    for old, new in itertools.permutations(names if more else (), 2):
        read = [place for place in places if _is_read(place.node, old)]
        there = tuple((place, ast.copy_location(ast.Name(new, ast.Load()), place.node)) for place in read)
        if len(read) > 1 and all(may_end(*put) for put in there):
            yield Edit(f"`{new}` in place of `{old}`, wherever it is read", there)
    yield from (*_methods_everywhere(places), *_added_up(places)) if more else ()
    for place in places:
        if (more or isinstance(place.node, ast.keyword)) and (left_out := _left_out(place, above)):
            yield left_out
        others = [ast.Constant(number) for number in numbers if _may_replace(number, place.node)]
        for new in [*_replacements(place.node, body, names, more), *others]:
            if isinstance(new, ast.Starred) or not may_end(place, new):
                continue  # the first stands only among arguments
            yield from _edits_at(place, new, above, alike)


def _growing_in(body: ast.FunctionDef) -> set[str]:
    """The names of what a function puts something into, most of them lists."""
    found, lists = set(), set()
    for node in ast.walk(body):
        if isinstance(node, ast.Attribute) and node.attr in ("append", "extend", "insert", "add", "update"):
            found.add(getattr(node.value, "id", ""))
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(getattr(node.value, "id", ""))
        elif isinstance(node, ast.Assign) and any(isinstance(n, ast.List | ast.ListComp) for n in ast.walk(node.value)):
            lists |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    added = (node.target for node in ast.walk(body) if isinstance(node, ast.AugAssign))
    return found | lists & {target.id for target in added if isinstance(target, ast.Name)}


def _methods_everywhere(places: Sequence[Place]) -> Iterator[Edit]:
    """A method in the place of another one, in all places where this is called."""
    for group in _METHODS:
        for old, new in itertools.permutations(group, 2):
            called = [place for place in places if isinstance(place.node, ast.Attribute) and place.node.attr == old]
            others = [ast.copy_location(ast.Attribute(p.node.value, new, ast.Load()), p.node) for p in called]
            if len(called) > 1:
                yield Edit(
                    f"`{new}` in place of `{old}`, wherever it is called", tuple(zip(called, others, strict=True))
                )


def _added_up(places: Sequence[Place]) -> Iterator[Edit]:
    """In a loop, `+=` in place of `=`: what is given a value there is added up, all of it or one alone."""
    inside = {node for place in places if isinstance(place.node, ast.For) for node in ast.walk(place.node)}
    given = [p for p in places if p.node in inside and isinstance(p.node, ast.Assign) and len(p.node.targets) == 1]
    puts = [(place, ast.AugAssign(place.node.targets[0], ast.Add(), place.node.value)) for place in given]
    puts = [(place, ast.copy_location(new, place.node)) for place, new in puts if not isinstance(new.target, ast.Tuple)]
    for place, new in puts:
        yield Edit(f"`{ast.unparse(new)}` in place of `{ast.unparse(place.node)}`"[: 2 * LONGEST], ((place, new),))
    if len(puts) > 1:
        yield Edit("`+=` in place of `=` in the loop", tuple(puts))


def _may_replace(number: int | float, node: ast.AST) -> bool:
    """Whether it may stand in the place of this node. A huge one only in that of a large one: as a size of a tensor it
    may ask for more memory than there is."""
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        return False
    return abs(number) < HUGE or abs(number) < 10_000 * abs(node.value)


def numbers_in(function: Callable) -> list[int | float]:
    """The unusual numbers of a function: in its code, its defaults and the names of numbers that it reads."""
    if not isinstance(function, types.FunctionType):
        return []
    code = function.__code__
    read = [function.__globals__.get(name) for name in code.co_names]
    found = [n for n in (*code.co_consts, *(function.__defaults__ or ()), *read) if type(n) in (int, float)]
    return [number for number in dict.fromkeys(found) if abs(number) > 2]


def _is_read(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _edits_at(place: Place, new: ast.AST, above: dict, alike: dict[str, list[Place]]) -> Iterator[Edit]:
    """The change at this place, then of the expression around it wherever it stands. Where the expressions are too long
    to be read, only a part left out."""
    ast.fix_missing_locations(ast.copy_location(new, place.node) if hasattr(place.node, "lineno") else new)
    shown = place
    while isinstance(shown.parent, ast.expr | ast.keyword | ast.Slice) and (
        isinstance(shown.node, ast.Slice)
        or shown.field == "slice"
        or len(ast.unparse(shown.node)) < _SHORTEST
        or getattr(shown.parent, "func", None) is shown.node
    ):
        shown = above[shown.parent]
    before, everywhere = ast.unparse(shown.node), ast.dump(shown.node)
    edit = Edit("", ((place, new),))
    with applied(edit):
        changed = new if shown is place else shown.node
        after = ast.unparse(changed)
        equal = alike.get(everywhere, [])
        copies = [copy.deepcopy(changed) for _ in equal] if len(equal) > 1 else []
    if before == after:
        return
    if max(len(before), len(after)) > LONGEST:
        if without := _without(place.node, new):
            yield Edit(without, edit.puts, small=True)
        return
    words = f"`{after}` in place of `{before}`"
    boundary = (
        isinstance(new, ast.Compare)
        and isinstance(place.node, ast.Compare)
        and type(new.ops[0]) in _BOUNDARIES.get(type(place.node.ops[0]), ())
    )
    left_out = any(new is part for part in ast.walk(place.node) if part is not place.node)
    small = isinstance(new, ast.Constant) or boundary or left_out
    yield Edit(words, edit.puts, small)
    if copies:
        yield Edit(words, tuple(zip(equal, copies, strict=True)), small)


def _without(node: ast.AST, new: ast.AST) -> str:
    """ "`* y` left out" for `x` in place of `x * y`: the whole may be too long to be read. "" for another change."""
    if not isinstance(node, ast.BinOp) or new is not node.left:
        return ""
    whole, kept = ast.unparse(node), ast.unparse(new)
    rest = whole.removeprefix(kept).strip()
    return f"`{rest}` left out" if whole.startswith(kept) and len(rest) <= LONGEST else ""


def _left_out(place: Place, above: dict[ast.AST, Place]) -> Edit | None:
    """The code without this statement or keyword."""
    node = place.node
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.If) and not getattr(node, "orelse", []):
        nothing: ast.AST = ast.Pass()
    elif isinstance(node, ast.keyword) and isinstance(place.parent, ast.Call):
        others = [keyword for keyword in place.parent.keywords if keyword is not node]
        call = ast.Call(place.parent.func, place.parent.args, others)
        text = f"{node.arg}={ast.unparse(node.value)}"
        if len(text) > LONGEST:
            return None
        return Edit(f"`{text}` left out", ((above[place.parent], ast.copy_location(call, place.parent)),), True)
    else:
        return None
    text = ast.unparse(node)
    if len(text) > LONGEST:
        return None
    return Edit(f"the line `{text}` left out", ((place, ast.copy_location(nothing, node)),), True)


# --- Mutants --------------------------------------------------------------------------------------------------------


def mutants_of(function: Callable) -> Iterator[Mutant]:
    """The function with one expression changed, in words and as a function. None where it has no source to change."""
    code = code_of(function)
    for edit in edits_of(code.body) if code else ():
        yield edit.words, _edited(code, edit)


def double_mutants_of(function: Callable) -> Iterator[Mutant]:
    """The function with two expressions changed; then with one, and one of a function of this package that it calls."""
    code = code_of(function)
    edits = list(edits_of(code.body)) if code else []
    for one, other in itertools.combinations(edits, 2):
        if one.apart_from(other):
            yield f"{one.words}, and {other.words}", _edited(code, one, other)
    for helper, calls in _helpers_of(code) if code else ():
        inner = list(mutants_of(helper))
        for edit in [edit for edit in edits if edit.apart_from(calls)]:
            with applied(edit, calls):
                tree = compiled(code)
            for words, mutant in inner:
                yield f"{edit.words}, and {words} in `{helper.__name__}`", function_of(code, tree, _helper=mutant)
        with applied(calls):
            tree = compiled(code)
        for words, mutant in double_mutants_of(helper):
            yield f"{words}, in `{helper.__name__}`", function_of(code, tree, _helper=mutant)


def mutants_of_helpers(function: Callable) -> Iterator[Mutant]:
    """The function with one expression changed in a function of this package that it calls by name."""
    code = code_of(function)
    for helper, calls in _helpers_of(code) if code else ():
        with applied(calls):
            tree = compiled(code)
        for words, mutant in mutants_of(helper):
            yield f"{words}, in `{helper.__name__}`", function_of(code, tree, _helper=mutant)


def _helpers_of(code: Code) -> Iterator[tuple[Callable, Edit]]:
    """Each function of this package that is called by name, and the change that calls `_helper` in its place."""
    found: dict[Callable, list[Place]] = {}
    for place in places_of(code.body):
        helper = _called(place, code.space)
        if helper is not None:
            found.setdefault(helper, []).append(place)
    for helper, places in found.items():
        names = [ast.copy_location(ast.Name("_helper", ast.Load()), place.node) for place in places]
        yield helper, Edit("", tuple(zip(places, names, strict=True)))


def _called(place: Place, space: dict[str, Any]) -> Callable | None:
    """The package's function whose name stands here as what is called."""
    if place.field != "func" or not isinstance(place.node, ast.Name | ast.Attribute):
        return None
    found: Any = None
    if isinstance(place.node, ast.Name):
        found = space.get(place.node.id)
    elif isinstance(place.node.value, ast.Name):
        found = getattr(space.get(place.node.value.id), place.node.attr, None)
    own = isinstance(found, types.FunctionType) and found.__module__.split(".")[0] == _PACKAGE
    return found if own else None


def _edited(code: Code, *edits: Edit) -> Callable:
    with applied(*edits):
        return function_of(code)


# --- Values of expressions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expression:
    """An expression of a function, and what makes the function with its value changed: change -> function.

    around  the expression in which it stands, or the statement
    """

    place: Place
    around: ast.AST
    function_with: Callable[[Callable], Callable]

    @property
    def text(self) -> str:
        return ast.unparse(self.place.node)


def expressions_of(function: Callable) -> Iterator[Expression]:
    """The expressions of a function, in the order of the code."""
    code = code_of(function)
    places = places_of(code.body) if code else []
    above = {place.node: place for place in places}
    for place in places:
        node = place.node
        if not isinstance(node, _COMPUTES) or isinstance(getattr(node, "operand", None), ast.Constant):
            continue
        if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load) or place.field == "func":
            continue
        around = place.parent
        while isinstance(around, ast.Attribute | ast.keyword | ast.Starred):
            around = above[around].parent
        call = ast.Call(ast.Name("_changed", ast.Load()), [node], [])
        ast.fix_missing_locations(ast.copy_location(call, node))
        with applied(Edit("", ((place, call),))):
            made = compiled(code)
        yield Expression(place, around, lambda change, made=made: function_of(code, made, _changed=change))


# --- What may stand in the place of a node --------------------------------------------------------------------------


def _replacements(node: ast.AST, body: ast.FunctionDef, names: Sequence[str], more: bool) -> list[ast.AST]:
    """The nodes that may stand in this one's place, always in the same order."""
    if isinstance(node, ast.BinOp):
        others = [ast.BinOp(node.left, other(), node.right) for other in _OPERATORS.get(type(node.op), ())]
        return [node.left, node.right, *others, ast.BinOp(node.right, node.op, node.left)]
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
            *([ast.Slice(node.lower, node.upper, None)] if node.step else []),
        ]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and more:
        return [node.value, *_along_other_dimensions(node)]
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
        return [type(node)(elements, ast.Load()) for elements in _exchanged(node.elts)]
    if isinstance(node, ast.Constant):
        return [ast.Constant(value) for value in _other_numbers(node.value, more)]
    if isinstance(node, ast.Call):
        left_out = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        turned = [ast.Call(node.func, arguments, node.keywords) for arguments in _exchanged(node.args)]
        return [*left_out, *node.args[:1], *turned, *(_in_another_order(node) if more else ())]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        others = [name for group in _METHODS if node.attr in group for name in group] + _attributes(node.value, body)
        plain = [node.value] if more and node.attr in ("T", "mT", "values", "indices", "data") else []
        return plain + [
            ast.Attribute(node.value, name, ast.Load()) for name in dict.fromkeys(others) if name != node.attr
        ]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        transposed = [ast.Attribute(node, "T", ast.Load())] if more else []
        return [*(ast.Name(n, ast.Load()) for n in names if n != node.id), *transposed] if node.id in names else []
    return []


def _along_other_dimensions(node: ast.Subscript) -> Iterator[ast.Subscript]:
    """`x[:, 2:]`, `x[:, :, 2:]` and `x[..., 2:]` for `x[2:]`."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    cuts = [part for part in parts if isinstance(part, ast.Slice) and (part.lower or part.upper or part.step)]
    others = [part for part in parts if part not in cuts]
    if len(cuts) != 1 or not all(isinstance(part, ast.Slice) or _is_ellipsis(part) for part in others):
        return
    for front in ([], [ast.Slice()], [ast.Slice(), ast.Slice()], [ast.Constant(...)]):
        yield ast.Subscript(node.value, ast.Tuple([*front, *cuts], ast.Load()) if front else cuts[0], ast.Load())


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _in_another_order(call: ast.Call) -> Iterator[ast.Call]:
    """`x.log().mean()` for `x.mean().log()`."""
    inner = getattr(call.func, "value", None)
    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
        first = ast.Call(ast.Attribute(inner.func.value, call.func.attr, ast.Load()), call.args, call.keywords)
        yield ast.Call(ast.Attribute(first, inner.func.attr, ast.Load()), inner.args, inner.keywords)


def _names_in(body: ast.FunctionDef) -> list[str]:
    """The arguments of a function and the names that it gives."""
    given = [node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return list(dict.fromkeys([*(argument.arg for argument in (*body.args.args, *body.args.kwonlyargs)), *given]))


def _exchanged(parts: list[ast.expr]) -> Iterator[list[ast.expr]]:
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            order = list(parts)
            order[i], order[j] = order[j], order[i]
            yield order


def _other_numbers(value: Any, more: bool) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        usual = (0, 1, 2, 4, 8) if more else ()
        return [n for n in dict.fromkeys((value + 1, value - 1, 2 * value, *usual)) if n != value]
    return [2 * value, value / 2, 1.0, *([0.0, -value] if more else [])] if isinstance(value, float) else []


def _attributes(base: ast.expr, body: ast.FunctionDef) -> list[str]:
    """All attributes of this name that the function uses."""
    if not isinstance(base, ast.Name):
        return []
    used = (node for node in ast.walk(body) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return list(dict.fromkeys(node.attr for node in used if node.value.id == base.id))
