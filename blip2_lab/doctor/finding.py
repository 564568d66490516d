"""One thing that a check has found: what it is about, how bad it is, a sentence, and its likely causes.

Checks of a run (run.py) and of a model (model.py, layers.py) return lists of `Finding`.

Paper: none. Notebooks: 08, 12.
"""

from __future__ import annotations

from dataclasses import dataclass

STATES = ("bad", "wait", "good")  #: worst first


@dataclass(frozen=True)
class Finding:
    """What a check says. `state`: "good", "wait" (too early to say) or "bad"; `causes`: what to check."""

    about: str
    state: str
    says: str
    causes: tuple[str, ...] = ()
