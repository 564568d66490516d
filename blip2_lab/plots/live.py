"""What a notebook shows while a long cell runs: curves that grow while a model trains, and a count of what is done.

`LiveCurves` displays a figure once and updates it; `LiveCurves.watch(name)` is a function for the trainer's `on_log`.
`counted` goes through a list and says how far it is.

Notes:

* A redraw takes some tenths of a second, so there is one every two seconds at most, and one at each line's end.
* The last figure stays in the notebook, with the time that the training took.

Paper: none. Notebooks: 08, 09, 11, 16, 17.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from blip2_lab.plots.figures import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
BETWEEN = 2.0  #: seconds between two redraws


class LiveCurves:
    """One line for each name, over steps 1 to `steps`. levels: name -> a horizontal line, such as chance."""

    def __init__(
        self,
        steps: int,
        names: Sequence[str],
        *,
        y: str = "loss",
        levels: Mapping[str, float] | None = None,
        title: str,
    ) -> None:
        from IPython.display import display

        self.steps, self.y, self.levels, self.title = steps, y, dict(levels or {}), title
        self.lines: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
        self._started: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._drawn = 0.0
        self._shown = display(self.figure(), display_id=True)

    def watch(self, name: str, key: str = "total") -> Callable[[Mapping[str, Any]], None]:
        """A function that takes records of a training log and adds their `key` to the line. The clock starts here."""
        if name not in self.lines:
            raise ValueError(f"{name!r} is no line of this figure; its lines are {', '.join(self.lines)}.")
        self._started[name] = time.perf_counter()

        def add(record: Mapping[str, Any]) -> None:
            if key in record:
                self.add(name, record["step"], record[key])

        return add

    def add(self, name: str, step: int, value: float) -> None:
        """One more point; redraws if the last redraw is two seconds ago, and always at the line's end."""
        points, values = self.lines[name]
        points.append(float(step))
        values.append(float(value))
        now = time.perf_counter()
        self._seconds[name] = now - self._started.setdefault(name, now)
        if step >= self.steps or now - self._drawn >= BETWEEN:
            self._drawn = now
            if self._shown is not None:
                self._shown.update(self.figure())

    def figure(self) -> Figure:
        """The figure as it is now."""
        figure = curves(self.lines, y=self.y, levels=self.levels, title=self.title)
        figure.axes[0].set_xlim(0, self.steps)
        figure.axes[0].set_xlabel("; ".join(self._progress(name) for name in self.lines))
        return figure

    def _progress(self, name: str) -> str:
        """How far a line is, and how long the rest will take."""
        points, _ = self.lines[name]
        if not points:
            return f"{name}: waiting"
        done, seconds = int(points[-1]), self._seconds.get(name, 0.0)
        if done >= self.steps:
            return f"{name}: {done} steps in {seconds:.0f} s"
        return f"{name}: step {done} of {self.steps}, about {seconds * (self.steps - done) / done:.0f} s to go"


def counted(items: Sequence[T], what: str) -> Iterator[T]:
    """The items one by one, with a line that says how many are done and how long the rest will take."""
    from IPython.display import Pretty, display

    start, drawn = time.perf_counter(), 0.0
    shown = display(Pretty(f"0 of {len(items)} {what}"), display_id=True)
    for done, item in enumerate(items, start=1):
        yield item
        now = time.perf_counter()
        if shown is not None and (done == len(items) or now - drawn >= BETWEEN):
            drawn, left = now, (now - start) * (len(items) - done) / done
            rest = f", about {left:.0f} s to go" if done < len(items) else f" in {now - start:.0f} s"
            shown.update(Pretty(f"{done} of {len(items)} {what}{rest}"))
