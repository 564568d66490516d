"""Fixtures of the tests of figures."""

import pytest


@pytest.fixture
def screen(monkeypatch):
    """What is displayed, in order, first shown and then updated."""
    display = pytest.importorskip("IPython.display", reason="no IPython: pip install 'blip2-lab[teach]'")
    shown = []

    class Handle:
        def update(self, thing):
            shown.append(thing)

    def show(thing, display_id=False):
        shown.append(thing)
        return Handle()

    monkeypatch.setattr(display, "display", show)
    return shown
