"""Live curves: what is displayed while records come in."""

from __future__ import annotations

import pytest

from blip2_lab.plots import live

pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'blip2-lab[teach]'")
display = pytest.importorskip("IPython.display", reason="no IPython: pip install 'blip2-lab[teach]'")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it."""
    now = [100.0]
    monkeypatch.setattr(live.time, "perf_counter", lambda: now[0])
    return now


def drawn(figure, line: int) -> tuple[list[float], list[float]]:
    x, y = figure.axes[0].lines[line].get_data()
    return list(x), list(y)


def test_a_line_grows_with_the_records_and_ends_with_its_time(screen, clock):
    curves = live.LiveCurves(30, ["with", "without"], y="loss", levels={"chance": 4.5}, title="Training")
    assert len(screen) == 1 and "with: waiting; without: waiting" == screen[0].axes[0].get_xlabel()
    add = curves.watch("with")
    for step, loss in ((10, 4.0), (20, 3.0), (30, 2.0)):
        clock[0] += 5.0
        add({"step": step, "total": loss, "lr": 1.0})
        add({"step": step, "evaluation": {"accuracy": 0.5}})  # has no total: not a point
    assert len(screen) == 4
    assert drawn(screen[1], 0) == ([10.0], [4.0]) and drawn(screen[3], 0) == ([10.0, 20.0, 30.0], [4.0, 3.0, 2.0])
    assert screen[1].axes[0].get_xlabel() == "with: step 10 of 30, about 10 s to go; without: waiting"
    assert screen[3].axes[0].get_xlabel() == "with: 30 steps in 15 s; without: waiting"
    assert all(figure.axes[0].get_xlim() == (0, 30) for figure in screen), "the axis does not move"
    assert "with: 4 at 10, 2 at 30" in screen[3].alt and "chance: 4.5" in screen[3].alt


def test_it_redraws_every_two_seconds_and_at_the_end(screen, clock):
    curves = live.LiveCurves(100, ["a"], title="")
    add = curves.watch("a")
    for step in range(1, 101):
        clock[0] += 0.1
        add({"step": step, "total": 1.0})
    assert 5 <= len(screen) - 1 <= 7
    assert drawn(screen[-1], 0)[0] == [float(step) for step in range(1, 101)]


def test_an_unknown_line_is_refused(screen):
    with pytest.raises(ValueError, match="'c' is no line of this figure; its lines are a, b"):
        live.LiveCurves(10, ["a", "b"], title="").watch("c")


def test_counting_goes_through_all_items_and_says_how_far_it_is(screen, clock):
    seen = []
    for item in live.counted("abcd", "letters"):
        seen.append(item)
        clock[0] += 3.0
    assert seen == list("abcd")
    assert [line.data for line in screen] == [
        "0 of 4 letters",
        "1 of 4 letters, about 9 s to go",
        "2 of 4 letters, about 6 s to go",
        "3 of 4 letters, about 3 s to go",
        "4 of 4 letters in 12 s",
    ]
