"""What the tests of exercises ask of a check's verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.verdicts import FAILED


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


def variant_tests(names: Sequence[str], right: Sequence[tuple], wrong: Sequence[tuple]) -> tuple[Callable, ...]:
    """Three tests for the exercises `names`: right variants (name, answer) pass, wrong ones (name, answer, word) fail
    and are told why, and there are enough of both."""

    @pytest.mark.parametrize(("name", "answer"), right)
    def passes(name, answer):
        assert_passes(name, answer)

    @pytest.mark.parametrize(("name", "answer", "word"), wrong)
    def fails(name, answer, word):
        assert_fails(name, answer, word)

    def enough():
        assert_enough(names, right, wrong)

    return passes, fails, enough
