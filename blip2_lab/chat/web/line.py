"""The queue: in which order the page's events reach the model.

`next_events` is where to begin. It takes the place of the method with which gradio (6.31) takes events from its queue.

Notes:

* Questions of several visitors are answered together (chat/batching.py). Everything else that needs the model (a
  picture that is looked at, a search, the match meter) happens one at a time.
* What one visitor does happens in its order, each thing after the end of the one before: so no word of an answer comes
  after another picture has been chosen. Gradio's `concurrency_limit` knows no visitors: with a limit of 1 all would
  wait for each other, and with more a visitor's own clicks could overtake each other.
* It imports no gradio: it reads the queue of a page.

Notebook: 12.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

MODEL = "model"  #: the line of everything that needs the model
AT_ONCE = 32  #: visitors who are answered; the next ones wait
WAITING = 32  #: visitors who wait; the next ones are told that the page is busy
TOGETHER = ("ask", "again", "api_ask", "ask_both", "api_both")  #: names of the handlers that ask a question


def next_events(queue: Any) -> tuple[list[Any], bool, str] | None:
    """The next event of gradio's queue, taken out of it, as `gradio.queueing.Queue.get_events` gives it; None: nothing
    can start now."""
    names = list(queue.event_queue_per_concurrency_id)
    random.shuffle(names)  # so that no line waits for another
    for name in names:
        line = queue.event_queue_per_concurrency_id[name]
        if line.concurrency_limit is not None and line.current_concurrency >= line.concurrency_limit:
            continue
        if name == MODEL:
            running = (event for job in queue.active_jobs if job for event in job)
            event = first_ready(line.queue, (event for event in running if event.concurrency_id == MODEL))
        else:
            event = next(iter(line.queue), None)
        if event is not None:
            line.queue.remove(event)
            return [event], False, name
    return None


def first_ready(waiting: Iterable[Any], running: Iterable[Any]) -> Any | None:
    """The first waiting event whose visitor has nothing running or waiting before it; one that asks no question also
    waits for its like."""
    running = list(running)
    busy = {event.session_hash for event in running}
    is_taken = any(event.fn.name not in TOGETHER for event in running)
    for event in waiting:
        if event.session_hash not in busy and (event.fn.name in TOGETHER or not is_taken):
            return event
        busy.add(event.session_hash)
    return None
