"""What the tests of exercises ask of a check's verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.check import FAILED


def assert_passes(name: str, answer: Callable) -> None:
    verdict = getattr(checks, name)(answer)
    assert verdict.passed, verdict


def assert_fails(name: str, answer: Callable, word: str) -> None:
    """The answer is refused, and the message has this word."""
    verdict = getattr(checks, name)(answer)
    assert verdict.status == FAILED, verdict
    assert word in verdict.message, verdict


def assert_enough(names: Sequence[str], right: Sequence[tuple], wrong: Sequence[tuple]) -> None:
    """At least six right and eight wrong variants of each exercise."""
    for name in names:
        assert sum(row[0] == name for row in right) >= 6 and sum(row[0] == name for row in wrong) >= 8, name
