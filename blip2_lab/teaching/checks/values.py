"""What a student's function returns, made safe to compare.

`supported` is where to begin: numbers, text, dense tensors, and tuples, lists and dicts of these stay as they are. In
the place of anything else it puts an `Unsupported`, its kind in words: an object may do anything when it is compared or
printed, also raise an error.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PACKAGE = "blip2_lab"
_DEEPEST = 20  #: lists in lists
_LONGEST = 1_000_000  #: places of a range, which become a list
_PLAIN = bool, int, float, complex, str, bytes, type(None), type(...), torch.dtype, torch.Generator


@dataclass(frozen=True)
class Unsupported:
    """A value that is no possible answer. words: what it is"""

    words: str

    def __str__(self) -> str:
        return self.words


def supported(value: Any, around: tuple[int, ...] = ()) -> Any:
    """The value, with Unsupported in place of what the checks cannot compare. May raise whatever the value raises.

    around  the ids of what it is a part of: a list that contains itself, in several places, would have no end
    """
    kind = type(value)
    if kind in _PLAIN or isinstance(value, nn.Module):
        return value
    if id(value) in around or len(around) > _DEEPEST:
        return Unsupported("something that contains itself")
    around = (*around, id(value))
    if isinstance(value, Tensor):
        return _supported_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        return value if value.dtype != object else supported(value.tolist(), around)
    if isinstance(value, list):
        return _of_parts(value, list.__iter__(value), list, around)
    if isinstance(value, tuple):
        return _of_parts(value, tuple.__iter__(value), tuple, around)
    if isinstance(value, set | frozenset):
        return _of_parts(value, value, set, around)
    if isinstance(value, Mapping):
        pairs = supported([(key, value[key]) for key in value], around)
        hashable = all(isinstance(key, str | int | float) for key, _ in pairs)
        return dict(pairs) if hashable else Unsupported("a dict whose keys are no names")
    for plain in (int, float, str):  # a class of its own, made of one of these
        if isinstance(value, plain):
            return plain.__add__(value, plain())
    if kind is range and len(value) <= _LONGEST:
        return value
    if is_dataclass(value) and kind.__module__.split(".")[0] == _PACKAGE:
        parts = [supported(getattr(value, part.name), around) for part in fields(value)]
        return next((part for part in parts if isinstance(part, Unsupported)), value)
    return Unsupported(_words(value))


def _supported_tensor(value: Tensor) -> Tensor | Unsupported:
    if type(value) not in (Tensor, nn.Parameter):
        with torch._C.DisableTorchFunctionSubclass():
            value = value.as_subclass(Tensor)
    if value.is_nested or value.is_quantized or value.layout != torch.strided:
        return Unsupported("a tensor that is not dense (sparse, nested or quantized)")
    return Unsupported("a tensor without numbers, on the device meta") if value.is_meta else value


def _of_parts(value: Any, parts: Iterable, kind: type, around: tuple[int, ...]) -> Any:
    """The value itself where all of its parts are supported as they are."""
    before = list(parts)
    after = [supported(part, around) for part in before]
    return value if all(a is b for a, b in zip(before, after, strict=True)) else kind(after)


def _words(value: Any) -> str:
    if inspect.iscoroutine(value):
        value.close()  # else Python warns that nobody waited for it
        return "a coroutine (write `def` in place of `async def`)"
    if isinstance(value, types.GeneratorType):
        return "a generator (is there a `yield` in place of a `return`?)"
    if isinstance(value, Iterator):
        return f"an iterator ({type(value).__name__}; make a list or a tensor of it)"
    if isinstance(value, type):
        return f"the class {value.__name__} itself, not an object of it"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return "a function (is it to be called?)"
    if isinstance(value, BaseException):
        return f"an error ({type(value).__name__}), as a value"
    return f"something of the type {type(value).__name__}"
