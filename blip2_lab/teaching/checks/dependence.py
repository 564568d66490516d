"""Find out on what an answer depends though it should not, and on what it should depend and does not.

`unused_arguments` names the arguments that a function does not use, `wrong_places` the place of an argument that a
place of the answer depends on, and should not, or should and does not, `broken_symmetry` what the right answer keeps
when an argument is doubled, shifted or turned round. All change an argument and compare what the student's function and
the library's function then give.

Notes:

* What is said was observed, so it is true whatever the student wrote: a mean over the batch, a softmax over the wrong
  dimension, a number in the place of an argument.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching.checks.changes import Path, named_arguments, with_changed_argument
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.function_code import code_of

Run = Callable[[Callable], Any]  #: a function -> its value for a case, or its error

NOT_USED = "not used"  #: what is told of an argument that is not read
_LARGEST = 12  #: places along a dimension that are changed one by one


def unused_arguments(
    answer: Callable, solution: Callable, calls: Sequence[tuple[tuple, dict]], runs: Sequence[Run]
) -> str:
    """The arguments that the library's function uses and the student's does not, in a sentence, or "". Of those that
    are read all the same it says that they make no difference.

    calls  how `solution` is called, in each case
    runs   what gives the value of a function for a case, for each case
    """
    before = [(run(answer), run(solution)) for run in runs]
    no_tensors = not any(isinstance(value, Tensor) for _, _, value in named_arguments(solution, calls))
    only_numbers = no_tensors and all(isinstance(theirs, int | float) for _, theirs in before)
    unused, read = [], False
    for name, path, value in _given_to(answer, named_arguments(solution, calls)):
        matters = False
        for change, (run, (ours, theirs)) in itertools.product(
            _other_values(value, only_numbers), zip(runs, before, strict=True)
        ):
            right = run(with_changed_argument(solution, path, change))
            if isinstance(right, BaseException) or equal(right, theirs, 1e-6):
                continue
            matters = True
            if not equal(run(with_changed_argument(answer, path, change)), ours, 1e-9):
                break  # it is used
        else:
            if matters:
                unused.append(name)
                read = read or _is_read(answer, path)
    if not unused:
        return ""
    listed = unused[0] if len(unused) == 1 else f"{', '.join(unused[:-1])} and {unused[-1]}"
    one = len(unused) == 1
    told = f"{'is' if one else 'are'} {NOT_USED}" if not read else f"{'makes' if one else 'make'} no difference"
    return f"{listed} {told}: with another value your answer stays the same."


def _is_read(answer: Callable, path: Path) -> bool:
    """Whether the name of an argument, or of a field of it, stands in the code of the student's function."""
    code = code_of(answer)
    nodes = list(ast.walk(code.body)) if code else []
    if len(path) > 1:
        return any(isinstance(node, ast.Attribute) and node.attr == path[1] for node in nodes)
    name = [*inspect.signature(answer).parameters][path[0]] if isinstance(path[0], int) else path[0]
    return any(isinstance(node, ast.Name) and node.id == name for node in nodes)


def _other_values(value: Any, only_numbers: bool) -> Iterator[Callable[[Any], Any]]:
    """Changes of an argument of this kind, each of which some cases may not allow. A number is also made so large, or
    so small, that no rounding hides it; large only where it cannot be the size of a tensor or a list."""
    if isinstance(value, bool):
        yield lambda x: not x
    elif isinstance(value, int):
        yield from (
            lambda x: x + 1,
            lambda x: 2 * x,
            lambda x: x - 1,
            lambda x: 1,
            lambda x: (10**6 if only_numbers else 20) * x + 7,
        )
    elif isinstance(value, float):
        yield from (lambda x: 1.5 * x + 0.01, lambda x: x / 2, lambda x: 10**6 * x + 7)
    elif isinstance(value, Tensor) and value.numel():
        yield from _other_tensors(value)


def _other_tensors(value: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    if value.dtype == torch.bool:
        yield torch.logical_not
    elif value.is_floating_point():
        yield from (_disturbed, lambda x: _disturbed(x, 1))
    else:
        yield _exchanged


def _disturbed(x: Tensor, seed: int = 0) -> Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)


def _exchanged(x: Tensor) -> Tensor:
    """Every number is another one, of those between the smallest and the largest."""
    low, high = x.min(), x.max()
    return (x - low + 1) % (high - low + 1) + low if high > low else x + 1


def wrong_places(
    answer: Callable,
    solution: Callable,
    calls: Sequence[tuple[tuple, dict]],
    run: Run,
    at_most: int,
    *,
    mixed: bool = True,
    unread: bool = True,
) -> str:
    """The first place of an argument on which the answer depends and should not, or the other way round, or "".

    calls    how `solution` is called, in this case
    run      what gives the value of a function for this case
    at_most  as many places are tried
    mixed    tell which places read others than they should
    unread   tell which places are not read, in this case
    """
    ours, theirs = run(answer), run(solution)
    not_read = ""
    for name, path, value in _given_to(answer, named_arguments(solution, calls)):
        for dim, size in enumerate(value.shape if isinstance(value, Tensor) and value.numel() else ()):
            if not 1 < size <= _LARGEST:
                continue
            if (at_most := at_most - size) < 0:
                return not_read
            read, right = (
                [_changed_places(function, path, dim, place, run, before) for place in range(size)]
                for function, before in ((answer, ours), (solution, theirs))
            )
            if any(places is None for places in (*read, *right)):
                continue
            if mixed and (told := _mixed(read, right, dim, name)):
                return told
            missing = [n for n in range(size) if any(map(_any, right[n])) and not any(map(_any, read[n]))]
            if unread and missing and not not_read and isinstance(theirs, Tensor | float) and not _is_whole(theirs):
                places = "place" if len(missing) == 1 else "places"
                along = f" along dimension {dim}" if value.ndim > 1 else ""
                listed = ", ".join(map(str, missing[:5])) + ", …" * (len(missing) > 5)
                not_read = f"Here your answer does not depend on {places} {listed}{along} of {name}, and it should."
    return not_read


def _is_whole(value: Tensor | float) -> bool:
    """Whether it is made of choices: then a small change of an argument may change nothing by chance."""
    return bool((torch.as_tensor(value).detach().double() % 1 == 0).all())


def _any(changed: Tensor) -> bool:
    return bool(changed.any())


def _given_to(answer: Callable, named: Sequence[tuple[str, Path, Any]]) -> list:
    """The arguments that the student's function has, too."""
    try:
        parameters = inspect.signature(answer).parameters.values()
    except Exception:  # of an object of the student's that is called
        return []
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = {p.name for p in parameters}
    return [
        (name, path, value)
        for name, path, value in named
        if (path[0] < len(by_place) if isinstance(path[0], int) else path[0] in by_name)
    ]


def _changed_places(function: Callable, path: Path, dim: int, place: int, run: Run, before: Any) -> list[Tensor] | None:
    """Which places of the value change along each of its dimensions, if this place of an argument does. None where the
    value is no number or tensor, or has another shape then."""
    if not isinstance(before, Tensor | int | float) or (isinstance(before, Tensor) and before.is_complex()):
        return None
    before = torch.as_tensor(before).detach().double()
    changed = torch.zeros(before.shape, dtype=torch.bool)
    for change in (_disturbed, lambda x: _disturbed(x, 1), lambda x: x + 10, lambda x: x - 10):
        value = run(with_changed_argument(function, path, _at_place(dim, place, change)))
        if not isinstance(value, Tensor | int | float) or torch.as_tensor(value).shape != before.shape:
            return None
        off = (torch.as_tensor(value).detach().double() - before).abs()
        changed |= ~(off <= 1e-6 * (1 + before.abs()))
    if not before.ndim:
        return [changed.reshape(1)]
    others = [[e for e in range(before.ndim) if e != d] for d in range(before.ndim)]
    return [changed.any(dim=other) if other else changed for other in others]


def _at_place(dim: int, place: int, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        new = ~x if x.dtype == torch.bool else change(x) if x.is_floating_point() else _exchanged(x)
        mixed = x.clone()
        mixed.select(dim, place).copy_(new.select(dim, place))
        return mixed

    return changed


def _mixed(read: Sequence[list[Tensor]], right: Sequence[list[Tensor]], dim: int, name: str) -> str:
    """Where each place of the argument belongs to one of the answer: one that reads others as well."""
    for out in range(len(right[0])):
        own, got = (torch.stack([places[out] for places in all_places]) for all_places in (right, read))
        if (
            own.shape != got.shape
            or own.shape[0] != own.shape[1]
            or not own.any()
            or not torch.equal(own, torch.eye(len(own)).bool())
        ):
            continue
        if (strange := (got & ~torch.eye(len(got)).bool()).nonzero()).numel():
            place, other = strange[0].tolist()
            return (
                f"Place {other} along dimension {out} of your answer depends on place {place} along dimension {dim} of "
                f"{name}, and should not: along this dimension each place is computed by itself. Is there a sum, a "
                "mean, a softmax, a largest or a reshape over the wrong dimension, or are all given the numbers of one?"
            )
    return ""


def broken_symmetry(
    answer: Callable, solution: Callable, calls: Sequence[tuple[tuple, dict]], run: Run, tolerance: float
) -> str:
    """What the right answer does when an argument is changed in a simple way, and the student's does not, or "".

    calls  how `solution` is called, in this case
    run    what gives the value of a function for this case
    """
    ours, theirs = run(answer), run(solution)
    if not all(isinstance(value, Tensor | float) for value in (ours, theirs)):
        return ""
    for name, path, value in _given_to(answer, named_arguments(solution, calls)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        for told, change, effects in _symmetries(value):
            got, right = (run(with_changed_argument(function, path, change)) for function in (answer, solution))
            for effect, result in effects.items():
                wanted, given = _or_none(result, theirs), _or_none(result, ours)
                others = [other for other in effects.values() if other is not result]
                if equal(right, wanted, tolerance) and not equal(got, given, 10 * tolerance):
                    if any(equal(_or_none(other, theirs), wanted, tolerance) for other in others):
                        continue  # 0 stays the same and is doubled
                    return f"If {told.format(name)}, the right answer {effect}, and yours does not."
                if equal(got, given, tolerance) and not equal(right, wanted, 10 * tolerance):
                    if any(equal(_or_none(other, ours), given, tolerance) for other in others):
                        continue
                    return f"If {told.format(name)}, your answer {effect}, and the right one does not."
    return ""


def _symmetries(value: Tensor) -> Iterator[tuple[str, Callable, dict[str, Callable]]]:
    """Changes of an argument in words, and what they may do to an answer."""
    same = {"stays the same": lambda y: y}
    yield "{} is doubled", lambda x: 2 * x, {**same, "is doubled, too": lambda y: 2 * y}
    yield "1 is added to {}", lambda x: x + 1, same
    yield "{} changes its sign", lambda x: -x, {**same, "changes its sign, too": lambda y: -y}
    for dim in range(value.ndim):
        turned = {
            f"has the reverse order along dimension {out}": lambda y, out=out: y.flip(out) for out in range(value.ndim)
        }
        yield f"the order of {{}} along dimension {dim} is reversed", lambda x, dim=dim: x.flip(dim), {**same, **turned}


def _or_none(result: Callable, value: Any) -> Any:
    try:
        return result(value)
    except (RuntimeError, IndexError, AttributeError):
        return None
