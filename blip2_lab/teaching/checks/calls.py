"""Record what a student's function gives to the modules among its arguments, and in which order it calls them.

`compare_calls` is where to begin. It calls the student's function and the library's with modules that record what they
get, and says which module is not called, or gets something else than it should: "`query_ffn` gets what
`self_attention` returned; it should get what `cross_attention_layer_norm` returned."

Notes:

* What a module gets is named by where it comes from in the same run (an argument, what another module returned, the sum
  of two of these, the first or the last rows of one), not by its numbers: so a second mistake is told beside the first.
* A name must hold in every case. Else two values that are equal by chance would be taken for one another.

Paper: none. Notebooks: 03, 10, 16.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_MOST_SAID = 2  #: differences that are told at once

Key = tuple[str, int, int | str]  #: a module, the number of its call, an argument by place or name


@dataclass
class Recording:
    """The calls of modules in one run, outermost ones only, and the values that have a name."""

    gets: dict[Key, set[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    known: list[tuple[str, Tensor]] = field(default_factory=list)
    depth: int = 0

    def remember(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            self.known.append((name, value.detach().clone()))
        elif isinstance(value, tuple | list):
            for number, part in enumerate(value):
                self.remember(f"{name}[{number}]", part)


def recorded(run: Callable[[], Any], modules: dict[str, nn.Module], arguments: dict[str, Any]) -> Recording | None:
    """The calls of these modules while `run` runs. None where it stops with an error."""
    recording = Recording()
    for name, value in arguments.items():
        recording.remember(f"`{name}`", value)
    hooks = []
    for name, module in modules.items():

        def before(module: nn.Module, args: tuple, options: dict, name: str = name) -> None:
            recording.depth += 1
            if recording.depth == 1:
                count = recording.counts[name] = recording.counts.get(name, 0) + 1
                for place, value in (*enumerate(args), *options.items()):
                    if isinstance(value, Tensor):
                        recording.gets[name, count, place] = set(_sources_of(value, recording.known))

        def after(module: nn.Module, args: tuple, options: dict, value: Any, name: str = name) -> None:
            if recording.depth == 1:
                recording.remember(f"what `{name}` returned", value)
            recording.depth -= 1

        hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        value = run()
    finally:
        for hook in hooks:
            hook.remove()
    return None if isinstance(value, BaseException) else recording


def modules_among(arguments: dict[str, Any]) -> dict[str, nn.Module]:
    """The parts of the modules among the arguments, by their names inside of these."""
    found: dict[str, nn.Module] = {}
    for value in arguments.values():
        if isinstance(value, nn.Module):
            found |= {name: module for name, module in value.named_modules() if name and "softmax" not in name}
    return found


def _sources_of(value: Tensor, known: Sequence[tuple[str, Tensor]]) -> Iterator[str]:
    """All names of a value: a known one, some of its rows, or a sum of two."""
    fitting = [(name, part) for name, tensor in known for name, part in _parts_of(name, tensor, value)]
    for name, part in fitting:
        if _close(part, value):
            yield name
    for (one, a), (other, b) in itertools.combinations(fitting, 2):
        if _close(a + b, value):
            yield f"{one} + {other}"


def _parts_of(name: str, tensor: Tensor, like: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The tensor, or its first and last rows, where they have the shape of another one."""
    if tensor.dtype != like.dtype or tensor.dtype == torch.bool:
        return
    if tensor.shape == like.shape:
        yield name, tensor
    elif tensor.ndim == like.ndim >= 2 and tensor.shape[1] > like.shape[1] > 0:
        rest = (tensor.shape[0], *tensor.shape[2:]) == (like.shape[0], *like.shape[2:])
        if rest:
            yield f"the first rows of {name}", tensor[:, : like.shape[1]]
            yield f"the last rows of {name}", tensor[:, -like.shape[1] :]


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def compare_calls(ours: Sequence[Recording | None], theirs: Sequence[Recording | None]) -> str:
    """What a student's function does with the modules that the library's does not, or ""; one recording a case."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    told = [*_not_called(pairs), *_gets_something_else(pairs)]
    return " ".join(told[:_MOST_SAID])


def _not_called(pairs: Sequence[tuple[Recording, Recording]]) -> Iterator[str]:
    names = dict.fromkeys(name for _, right in pairs for name in right.counts)
    for name in names:
        both = [(got.counts.get(name, 0), right.counts.get(name, 0)) for got, right in pairs]
        if all(got == 0 for got, right in both if right) and not _parent_called(name, pairs):
            yield f"`{name}` is never called."
        elif all(got > right for got, right in both if right):
            got, right = next(counts for counts in both if counts[1])
            yield f"`{name}` is called {got} times; it should be called {'once' if right == 1 else f'{right} times'}."
    for name in dict.fromkeys(name for got, _ in pairs for name in got.counts if name not in names):
        yield f"`{name}` is called, and need not be."


def _parent_called(name: str, pairs: Sequence[tuple[Recording, Recording]]) -> bool:
    """Whether a module that it is a part of is called: then it is called in there."""
    return any(name.startswith(f"{other}.") for got, _ in pairs for other in got.counts)


def _gets_something_else(pairs: Sequence[tuple[Recording, Recording]]) -> Iterator[str]:
    keys = dict.fromkeys(key for _, right in pairs for key in right.gets)
    for key in keys:
        rows = [(got.gets.get(key), right.gets[key]) for got, right in pairs if key in right.gets]
        given = [got for got, _ in rows if got is not None]
        if len(given) < len(rows):
            continue  # it is not called there, or in another way
        got, right = set.intersection(*given), set.intersection(*(right for _, right in rows))
        if not got and any(ours.counts[key[0]] > theirs.counts[key[0]] for ours, theirs in pairs if key in theirs.gets):
            continue  # it may be given a part in each of its calls
        name, count, place = key
        what = f"`{name}`" if count == 1 else f"call {count} of `{name}`"
        what += "" if place == 0 else f" as {f'argument {place + 1}' if isinstance(place, int) else f'`{place}`'}"
        if right and not got & right:
            yours = _shortest(got) or "something else"
            yield f"{what} gets {yours}; it should get {_shortest(right)}.".replace("`call", "call")
        elif got and not any(got & names for _, names in rows):
            yield f"{what} gets {_shortest(got)} as it is: something has to be done with it before."


def _shortest(names: set[str]) -> str:
    return min(names, key=lambda name: (len(name), name), default="")
