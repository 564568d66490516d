"""What the tests of every room of checks share."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from blip2_lab.checks.report import FAILED, NOT_ATTEMPTED, Check


def checks_of(*rooms: ModuleType) -> dict[str, Check]:
    """The checks that these rooms define, by name."""
    return {name: thing for room in rooms for name, thing in vars(room).items() if isinstance(thing, Check)}


def mistakes_of(checks: dict[str, Check]) -> list[tuple[str, str]]:
    """Every (name, message) of the checks' own tables."""
    return [(name, message) for name, check in checks.items() for message in check.mistakes]


def assert_sound(check: Check) -> None:
    """The library's answer passes, an empty one is not attempted, and at least four mistakes are known."""
    assert len(check.mistakes) >= 4
    verdict = check(check.solution)
    assert verdict.passed, verdict

    def empty(*_, **__):
        raise NotImplementedError

    assert check(empty).status == NOT_ATTEMPTED


def assert_named(check: Check, wrong: Callable, words: str) -> None:
    """A wrong answer fails with a message that begins with `words`, and with an example."""
    verdict = check(wrong)
    assert verdict.status == FAILED
    assert verdict.message.startswith(words), verdict
    assert verdict.example
