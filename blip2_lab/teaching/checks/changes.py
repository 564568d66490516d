"""What mistakes do to a value, in words: a sign is lost, an order turned round, a dimension averaged.

`changes_of` gives the changes of a value. `as_changed_answer` finds the one that makes a wrong answer of the right one;
`changed_arguments` gives the library's function with one argument changed.

Notes:

* A change is named only if it explains the answer to every case, so what is said is true, whatever the student wrote.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Change = tuple[str, Callable[[Any], Any]]  #: words with {} for the value, and the changed value
Path = tuple[int | str, ...]  #: an argument by its place or name, and a part of it

# --- Changes of a value ---------------------------------------------------------------------------------------------


def changes_of(value: Any) -> list[Change]:
    """The changes that apply to a value of this kind."""
    if isinstance(value, bool):
        return [("the opposite of {}", lambda x: not x), ("True for {}", lambda x: True), ("False for {}", _false)]
    if isinstance(value, int | float):
        return _NUMBER
    if isinstance(value, Tensor):
        return _tensor_changes(value)
    if isinstance(value, tuple | list) and value:
        whole = [
            ("{} in reverse order", lambda x: x[::-1]), ("{} without its first", lambda x: x[1:]),
            ("{} without its last", lambda x: x[:-1]), ("the first of {} alone", lambda x: x[:1]),
        ]  # fmt: skip
        if all(isinstance(part, Tensor) for part in value):
            return whole + [(words, _of_each(change)) for words, change in _tensor_changes(value[0])]
        return whole
    return []


def simple_changes_of(value: Any) -> list[Change]:
    """The changes that one step of a calculation may lack or have too much: of a tensor those that keep its size."""
    found = changes_of(value)
    if not isinstance(value, Tensor):
        return found
    if value.ndim >= 2 and value.is_floating_point():
        found = [
            *found,
            ("{} with -inf above the diagonal", lambda x: x.masked_fill(~torch.ones_like(x).tril().bool(), -torch.inf)),
            ("{} with 0 above the diagonal", torch.tril),
        ]
    kept = []
    for words, change in found:
        changed = _or_nothing(change, value)
        whole = "the same for all" not in words and isinstance(changed, Tensor) and changed.numel() == value.numel()
        if whole and not torch.equal(changed, value):
            kept.append((words, change))
    return kept


def _false(x: Any) -> bool:
    return False


def _of_each(change: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    return lambda parts: tuple(change(part) for part in parts)


_NUMBER: list[Change] = [
    ("minus {}", lambda x: -x), ("1 minus {}", lambda x: 1 - x), ("1 divided by {}", lambda x: 1 / x),
    ("1 more than {}", lambda x: x + 1), ("1 less than {}", lambda x: x - 1),
    ("0 in place of {}", lambda x: type(x)(0)), ("1 in place of {}", lambda x: type(x)(1)),
    ("2 times {}", lambda x: 2 * x), ("half of {}", lambda x: x / 2),
    ("the square of {}", lambda x: x * x), ("the root of {}", lambda x: x**0.5),
    ("the size of {}, without its sign", abs), ("{} rounded down", lambda x: x // 1),
    ("{} rounded up", lambda x: -(-x // 1)), ("{}, rounded", lambda x: type(x)(round(x))),
    ("{}, rounded to one place", lambda x: round(x, 1)), ("{}, rounded to two places", lambda x: round(x, 2)),
    ("exp of {}", math.exp), ("the logarithm of {}", math.log),
]  # fmt: skip

_EVERY_NUMBER: list[Change] = [
    ("minus {}", lambda x: -x), ("the size of {}, without its sign", torch.abs),
    ("{} with negative numbers cut off", torch.relu), ("1 minus {}", lambda x: 1 - x),
    ("1 divided by {}", lambda x: 1 / x), ("the square of {}", torch.square), ("the root of {}", torch.sqrt),
    ("exp of {}", torch.exp), ("the logarithm of {}", torch.log), ("the sigmoid of {}", torch.sigmoid),
    ("the tanh of {}", torch.tanh), ("GELU of {}", F.gelu), ("2 times {}", lambda x: 2 * x),
    ("half of {}", lambda x: x / 2), ("{} without its mean", lambda x: x - x.mean(-1, keepdim=True)),
    ("{}, rounded", torch.round), ("{}, rounded to one place", lambda x: x.round(decimals=1)),
    ("{}, rounded to two places", lambda x: x.round(decimals=2)), ("zeros in place of {}", torch.zeros_like),
]  # fmt: skip


def _tensor_changes(value: Tensor) -> list[Change]:
    if value.is_complex() or value.device.type == "meta" or value.layout != torch.strided:
        return []
    if value.dtype == torch.bool:
        kind: list[Change] = [
            ("{} with True and False exchanged", torch.logical_not), ("{} with True everywhere", torch.ones_like),
            ("{} with False everywhere", torch.zeros_like), ("the diagonal in place of {}", _diagonal),
            ("{} with True on its diagonal, too", lambda x: x | _diagonal(x)),
            ("{} with False on its diagonal", lambda x: x & ~_diagonal(x)),
        ]  # fmt: skip
    elif value.is_floating_point():
        kind = list(_EVERY_NUMBER)
    else:
        kind = [
            ("1 more than {}", lambda x: x + 1), ("1 less than {}", lambda x: x - 1),
            ("zeros in place of {}", torch.zeros_like),
        ]  # fmt: skip
    for dim in range(value.ndim):
        kind += _along(dim, value)
    for i, j in itertools.combinations(range(value.ndim), 2):
        kind.append((f"{{}} with dimensions {i} and {j} exchanged", lambda x, i=i, j=j: x.transpose(i, j)))
    return kind


def _diagonal(x: Tensor) -> Tensor:
    return torch.eye(*x.shape[-2:], dtype=torch.bool).expand_as(x)


def _along(dim: int, value: Tensor) -> list[Change]:
    """Changes along one dimension. Where it is lost, it is also kept with its size: everybody gets the same."""
    where = f"along dimension {dim}"
    found, one = _rearranged(dim), _one_of(dim)
    found.insert(1, (f"{{}} in order of size {where}", lambda x: x.sort(dim).values))
    if value.is_floating_point():
        found += [
            (f"the softmax of {{}} {where}", lambda x: x.softmax(dim)),
            (f"the log_softmax of {{}} {where}", lambda x: x.log_softmax(dim)),
            (f"{{}} brought to the length 1 {where}", lambda x: F.normalize(x, dim=dim)),
            (f"{{}} divided by its sum {where}", lambda x: x / x.sum(dim, keepdim=True)),
            (f"{{}} divided by its largest {where}", lambda x: x / x.amax(dim, keepdim=True)),
        ]
        one += [
            (f"the mean of {{}} {where}", lambda x: x.mean(dim, keepdim=True)),
            (f"the sum of {{}} {where}", lambda x: x.sum(dim, keepdim=True)),
            (f"the largest of {{}} {where}", lambda x: x.amax(dim, keepdim=True)),
            (f"the smallest of {{}} {where}", lambda x: x.amin(dim, keepdim=True)),
        ]
    for words, change in one:
        found += [
            (f"{words}, the same for all", _for_all(change)),
            (words, change), (words, lambda x, change=change: change(x).squeeze(dim)),
        ]  # fmt: skip
    return found


def _rearranged(dim: int) -> list[Change]:
    """Changes of any tensor along one dimension, without arithmetic."""
    where = f"along dimension {dim}"
    return [
        (f"{{}} in reverse order {where}", lambda x: x.flip(dim)),
        (f"{{}} moved on by one {where}", lambda x: x.roll(1, dim)),
        (f"{{}} moved back by one {where}", lambda x: x.roll(-1, dim)),
        (f"{{}} without its first {where}", lambda x: x.narrow(dim, 1, x.shape[dim] - 1)),
        (f"{{}} without its last {where}", lambda x: x.narrow(dim, 0, x.shape[dim] - 1)),
        (f"{{}} twice {where}", lambda x: torch.cat([x, x], dim)),
    ]


def _one_of(dim: int) -> list[Change]:
    where = f"along dimension {dim}"
    return [
        (f"the first of {{}} {where}", lambda x: x.narrow(dim, 0, 1)),
        (f"the last of {{}} {where}", lambda x: x.narrow(dim, x.shape[dim] - 1, 1)),
    ]


def _structural(dim: int) -> list[Change]:
    """Changes along one dimension that apply to several tensors at once."""
    same = [(f"{words}, the same for all", _for_all(change)) for words, change in _one_of(dim)]
    return _rearranged(dim) + same


def _for_all(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: change(x).expand_as(x).clone()


# --- Which change explains an answer --------------------------------------------------------------------------------


def as_changed_answer(got: Sequence[Any], expected: Sequence[Any], same: Callable[[Any, Any], bool]) -> str | None:
    """The change of the right answers that gives these, in words, or None. One value for each case."""
    if not got or not isinstance(expected[-1], Tensor | int | float):
        return None
    for words, change in changes_of(expected[-1]):
        if all(same(ours, _or_nothing(change, right)) for ours, right in zip(got, expected, strict=True)):
            return f"Yours is {words.format('the right answer')}."
    return None


def as_scaled_by(
    got: Sequence[Any], expected: Sequence[Any], solution: Callable, calls: Sequence[tuple[tuple, dict]]
) -> str | None:
    """The argument, or the size of one, that the right answers are multiplied with or divided by, in words, or None."""
    factors = [_factor_of(ours, right) for ours, right in zip(got, expected, strict=True)]
    known = [factor for factor in factors if factor is not None]
    if len(known) < 2 or max(known) - min(known) < 1e-3 * max(map(abs, known)):
        return None  # another one than the same in every case
    sizes: dict[str, list[float | None]] = {}
    for number, call in enumerate(calls):
        for name, _, value in named_arguments(solution, [call]):
            usual = isinstance(value, int | float) and not isinstance(value, bool)
            given = {name: float(value)} if usual else {}
            if isinstance(value, Tensor):
                given = {f"the size of {name} along dimension {dim}": float(n) for dim, n in enumerate(value.shape)}
            for told, size in given.items():
                sizes.setdefault(told, [None] * len(calls))[number] = size
    for told, values in sizes.items():
        for words, power in (("multiplied with", 1), ("divided by", -1), ("multiplied with the root of", 0.5),
                             ("divided by the root of", -0.5), ("multiplied with the square of", 2)):  # fmt: skip
            fits = all(
                factor is None or (size is not None and size > 0 and math.isclose(factor, size**power, rel_tol=1e-3))
                for factor, size in zip(factors, values, strict=True)
            )
            if fits:
                return f"Yours is the right answer {words} {told}."
    return None


def _factor_of(got: Any, expected: Any) -> float | None:
    """What all numbers of the right answer are multiplied with. None where all are 0. Raises ValueError."""
    if not all(isinstance(value, Tensor | int | float) for value in (got, expected)):
        raise ValueError("no numbers")
    a, b = (torch.as_tensor(value).detach().double().flatten() for value in (got, expected))
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("no factor")
    if not b.any():
        if a.any():
            raise ValueError("no factor")
        return None
    factor = float((a @ b) / (b @ b))
    if not torch.allclose(a, factor * b, rtol=1e-3, atol=1e-6 * float(b.abs().max())):
        raise ValueError("no factor")
    return factor


def changed_arguments(
    solution: Callable, calls: Sequence[tuple[tuple, dict]], *, simple: bool = False
) -> Iterator[tuple[str, Callable]]:
    """The function with one argument changed, in words and as a function.

    calls   how `solution` is called, in one case or several: arguments by place and by name
    simple  change only numbers and masks
    """
    arguments, options = max(calls, key=lambda call: len(call[0]) + len(call[1]))
    names = _names(solution, len(arguments))
    for path, value in _paths(arguments, options):
        if simple and not isinstance(value, bool | int | float) and getattr(value, "dtype", None) != torch.bool:
            continue
        for words, change in changes_of(value):
            yield f"for {words.format(_told(path, names))}", with_changed_argument(solution, path, change)
    tensors = [(path, value) for path, value in _paths(arguments, options) if isinstance(value, Tensor)]
    for (one, value), (other, second) in itertools.combinations(tensors, 2):
        if value.ndim and value.shape == second.shape:  # ids and their mask, say
            for words, change in (pair for dim in range(value.ndim) for pair in _structural(dim)):
                told = f"{_told(one, names)} and {_told(other, names)}"
                if not simple:
                    yield (
                        f"for {words.format(told)}",
                        with_changed_argument(with_changed_argument(solution, one, change), other, change),
                    )
    for path, value in _paths(arguments, options):
        if isinstance(value, bool | int | float | str):
            for one in dict.fromkeys(_values_at(path, calls)):  # the student's function has one case's value in it
                words = f"for {one!r} in place of {_told(path, names)}, whatever is given"
                yield words, with_changed_argument(solution, path, lambda x, one=one: one)
    for i, j in itertools.combinations(range(len(arguments)), 2):
        if type(arguments[i]) is type(arguments[j]):
            yield f"with `{names[i]}` and `{names[j]}` exchanged", _with_exchanged(solution, i, j)


def with_defaults(function: Callable, args: tuple, options: dict) -> tuple[tuple, dict]:
    """How a function is called, with the arguments that are not given: numbers that an answer may have changed."""
    bound = inspect.signature(function).bind(*args, **options)
    bound.apply_defaults()
    return bound.args, bound.kwargs


def named_arguments(solution: Callable, calls: Sequence[tuple[tuple, dict]]) -> list[tuple[str, Path, Any]]:
    """The arguments of a call, and the fields of those that are dataclasses: name, path, a value of some case."""
    if not calls:
        return []
    arguments, options = max(calls, key=lambda call: len(call[0]) + len(call[1]))
    names = _names(solution, len(arguments))
    given = {path: [v for v in _values_at(path, calls) if v is not None] for path, _ in _paths(arguments, options)}
    return [(_told(path, names), path, values[-1] if values else None) for path, values in given.items()]


def _or_nothing(change: Callable[[Any], Any], value: Any) -> Any:
    """The changed value, or None where the change does not apply."""
    try:
        return change(value)
    except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError):
        return None


def _names(solution: Callable, count: int) -> list[str]:
    return [*inspect.signature(solution).parameters][:count]


def _told(path: Path, names: Sequence[str]) -> str:
    first = names[path[0]] if isinstance(path[0], int) and path[0] < len(names) else str(path[0])
    return "`" + ".".join([first, *(str(part) for part in path[1:])]) + "`"


def _paths(arguments: tuple, options: dict) -> Iterator[tuple[Path, Any]]:
    for key, value in (*enumerate(arguments), *options.items()):
        if is_dataclass(value) and not isinstance(value, type):
            yield from (((key, field.name), getattr(value, field.name)) for field in fields(value) if field.init)
        else:
            yield (key,), value


def _values_at(path: Path, calls: Sequence[tuple[tuple, dict]]) -> Iterator[Any]:
    for arguments, options in calls:
        yield from (value for other, value in _paths(arguments, options) if other == path)


def with_changed_argument(solution: Callable, path: Path, change: Callable[[Any], Any]) -> Callable:
    """The function, whose argument at this path is changed before it gets it."""

    def called(*arguments: Any, **options: Any) -> Any:
        arguments, options = with_defaults(solution, arguments, options)
        found: dict[int | str, Any] = {**dict(enumerate(arguments)), **options}
        key = path[0]
        if key in found:
            value = found[key]
            if len(path) == 1:
                found[key] = change(value)
            else:
                found[key] = replace(value, **{path[1]: change(getattr(value, path[1]))})
        return solution(*(found[i] for i in range(len(arguments))), **{name: found[name] for name in options})

    return called


def _with_exchanged(solution: Callable, i: int, j: int) -> Callable:
    def called(*arguments: Any, **options: Any) -> Any:
        order = list(arguments)
        order[i], order[j] = order[j], order[i]
        return solution(*order, **options)

    return called
