"""Known mistakes that can be made together: wrong functions that one maker makes of options.

`variants_of` is where to begin. A maker of wrong functions, each option of which is one thing done differently, then
gives `Variant`s, and `pairs_of` makes the functions with two mistakes of a check's table.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any


@dataclass(frozen=True)
class Variant:
    """The function that `make` makes of these options: what differs from the library's function."""

    make: Callable[..., Callable]
    options: Mapping[str, Any]

    @cached_property
    def function(self) -> Callable:
        return self.make(**self.options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)


def variants_of(make: Callable[..., Callable]) -> Callable[..., Variant]:
    """`make`, whose functions can be combined: it then gives the Variant of its arguments."""
    signature = inspect.signature(make)

    @wraps(make)
    def variant(*args: Any, **options: Any) -> Variant:
        given = dict(signature.bind(*args, **options).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        return Variant(make, given)

    return variant


def pairs_of(mistakes: Mapping[str, Callable]) -> Iterator[tuple[str, Variant]]:
    """Both messages, and the function that makes both mistakes, of all mistakes that set different options."""
    variants = [(message, wrong) for message, wrong in mistakes.items() if isinstance(wrong, Variant)]
    for (first, one), (second, other) in itertools.combinations(variants, 2):
        if one.make is other.make and not one.options.keys() & other.options.keys():
            yield f"{first} And: {second}", Variant(one.make, {**one.options, **other.options})
