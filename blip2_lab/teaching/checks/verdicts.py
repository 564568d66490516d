"""The verdict of a check: passed, failed with the likely mistake in words, or not attempted.

`Verdict` is what a check returns, `graded` what becomes of it while nbgrader executes a notebook.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import html
import os
from dataclasses import dataclass

PASSED, FAILED, NOT_ATTEMPTED, BROKEN = "passed", "failed", "not attempted", "the check itself failed"
_SIGNS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "…", BROKEN: "!"}
_COLORS = {  # distinguishable with color blindness
    PASSED: "#0072B2", FAILED: "#D55E00", NOT_ATTEMPTED: "#999999", BROKEN: "#CC79A7",
}  # fmt: skip
#: Set by nbgrader in the kernel: "autograde" or "validate".
GRADING = "NBGRADER_EXECUTION"


@dataclass(frozen=True)
class Verdict:
    """The result of a check. `example` is a small matrix or a few lines, shown in a monospaced font."""

    status: str
    name: str
    message: str
    example: str = ""

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    def __repr__(self) -> str:
        lines = [f"{_SIGNS[self.status]} {self.name}: {self.status}", self.message, self.example]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        color = _COLORS[self.status]
        example = f"<pre style='margin:6px 0 0 0'>{html.escape(self.example)}</pre>" if self.example else ""
        return (
            f"<div style='border-left:5px solid {color};padding:4px 12px;margin:4px 0'>"
            f"<b>{_SIGNS[self.status]} {html.escape(self.name)}: {self.status}</b><br>"
            f"{html.escape(self.message)}{example}</div>"
        )


class NotPassed(AssertionError):
    """Raised with a verdict's text while nbgrader executes a notebook: the cell then earns no points."""


def graded(verdict: Verdict) -> Verdict:
    """The verdict. While nbgrader executes the notebook, one that is not "passed" raises NotPassed instead."""
    if os.environ.get(GRADING) and not verdict.passed:
        raise NotPassed(str(verdict))
    return verdict
