"""Who is next: many questions at once, and each visitor's own order."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from blip2_lab.chat.web import line


@dataclass(eq=False)
class Event:
    session_hash: str
    name: str
    concurrency_id: str = line.MODEL

    @property
    def fn(self):
        return SimpleNamespace(name=self.name)


def first(waiting: str, running: str = ""):
    """Events as words: "a:ask" is visitor a's question -> the first that may start."""
    lists = [[Event(*word.split(":")) for word in words.split()] for words in (waiting, running)]
    found = line.first_ready(*lists)
    return None if found is None else f"{found.session_hash}:{found.name}"


@pytest.mark.parametrize(
    ("waiting", "running", "next_one"),
    [
        ("a:ask", "", "a:ask"),
        ("a:ask b:ask", "a:ask", "b:ask"),  # b does not wait for a
        ("a:ask", "a:pick", None),  # a question waits for its own picture
        ("a:pick a:ask b:ask", "c:pick", "b:ask"),  # one picture at a time, and a's question does not overtake a's
        ("a:pick", "b:ask", "a:pick"),  # a picture does not wait for others' answers
        ("a:pick", "a:ask", None),  # but for the end of its own visitor's
        ("a:find b:pick", "c:match", None),
        ("", "a:ask", None),
    ],
)
def test_the_next_event(waiting, running, next_one):
    assert first(waiting, running) == next_one


@dataclass
class Line:
    queue: list
    concurrency_limit: int | None
    current_concurrency: int = 0


@dataclass
class Queue:
    """What `next_events` reads of gradio's queue."""

    event_queue_per_concurrency_id: dict
    active_jobs: list = field(default_factory=lambda: [None] * 4)


def test_an_event_is_taken_out_and_limits_hold():
    asked, inside = Event("a", "ask"), Event("a", "origin", "inside")
    queue = Queue({line.MODEL: Line([asked], 2), "inside": Line([inside], 1, current_concurrency=1)})
    assert line.next_events(queue) == ([asked], False, line.MODEL)
    assert queue.event_queue_per_concurrency_id[line.MODEL].queue == []
    assert line.next_events(queue) is None, "the other line is full"
    queue.event_queue_per_concurrency_id["inside"].current_concurrency = 0
    queue.active_jobs[0] = [asked]
    assert line.next_events(queue) == ([inside], False, "inside"), "the panel does not wait for the chat"
    queue.event_queue_per_concurrency_id[line.MODEL] = Line([Event("b", "ask")], 2, current_concurrency=2)
    assert line.next_events(queue) is None


def test_gradio_still_has_what_is_replaced():
    queueing = pytest.importorskip("gradio.queueing")
    assert "self.get_events()" in inspect.getsource(queueing.Queue.start_processing)
    assert inspect.signature(queueing.Queue.get_events).return_annotation == "tuple[list[Event], bool, str] | None"
    made = inspect.getsource(queueing.Event.__init__)
    assert "self.concurrency_id = " in made and "self.session_hash: str = session_hash or" in made
