"""The result of a check: its subject, its state, a sentence, and likely causes.

Checks of a run (run.py) and of a model (model.py, layers.py) return lists of `Finding`.

Paper: none. Notebooks: 08, 12.
"""

from __future__ import annotations

from dataclasses import dataclass

STATES = ("bad", "wait", "good")  #: worst first


@dataclass(frozen=True)
class Finding:
    """`about`: the subject; `state`: "good", "wait" (cannot be judged yet) or "bad"; `causes`: what to check."""

    about: str
    state: str
    says: str
    causes: tuple[str, ...] = ()
