"""What the package's modules and classes hold when a kernel starts, put back before each check.

A check compares an answer with the library's function, by torch's functions. A student who has put the answer in the
place of the first would be compared with himself, and `torch.equal` can be replaced, too. `remember` is where to begin;
it imports nothing of nbgrader, because it runs in the kernel.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

#: Modules of others whose functions the checks compare with.
COMPARE = ("torch", "torch.nn.functional")
Kept = list[tuple[Any, dict[str, Any]]]  #: modules and classes, each with its functions, classes and constants by name


def remember(package: str = "blip2_lab") -> Kept:
    """What all modules of the package that are imported, and their classes, hold now; and torch's functions."""
    theirs = [(module, _functions(module)) for name in COMPARE if (module := sys.modules.get(name))]
    return [*theirs, *((holder, dict(vars(holder))) for holder in _holders(package))]


def _functions(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if inspect.isroutine(value)}


def _holders(package: str) -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if module is None or not f"{name}.".startswith(f"{package}."):
            continue
        yield module
        yield from (value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == name)


def put_back(kept: Kept) -> None:
    """Undo what was put in the place of something that `remember` found."""
    for holder, names in kept:
        now = vars(holder)
        for name, value in names.items():
            if now.get(name) is not value and (name in now or not name.startswith("__")):
                setattr(holder, name, value)
