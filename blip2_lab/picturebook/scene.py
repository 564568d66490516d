"""The picture-book world: what a scene is.

Notes:

* A scene is a function of `(seed, index)`: no files, no end, the same on every machine. Only `Random.random()` is
  used, the one method whose stream Python promises never to change.
* Things stand in the cells of a 3 x 3 grid, with jitter that never leaves the cell. So "left of", "at the top" and
  "to the right of the boat" are always true or false.
* Some kinds never have some colors in training (`HELD_OUT`). With them the splits are those of NoCaps: *in* domain,
  *near* (pairs never seen together) and *out* (unseen pairs in a drawing style never seen).

Paper: section 4.2 (NoCaps splits). Notebook: 00.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")

CATEGORIES: dict[str, tuple[str, ...]] = {
    "vehicle": ("boat", "car", "train", "plane"),
    "animal": ("fish", "bird", "cat", "turtle"),
    "plant": ("tree", "flower", "cactus"),
    "food": ("apple", "carrot", "cake", "cherry"),
    "tool": ("key", "umbrella", "hammer", "cup", "lamp"),
    "toy": ("kite", "ball", "drum"),
    "building": ("house", "castle", "tent"),
}
KINDS: tuple[str, ...] = tuple(kind for kinds in CATEGORIES.values() for kind in kinds)
CATEGORY_OF: dict[str, str] = {kind: category for category, kinds in CATEGORIES.items() for kind in kinds}
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "gray")
SIZES = ("large", "small")
PLACES = ("meadow", "beach", "snow", "street", "mountains")
TIMES = ("day", "night")
STYLES = ("flat", "chalk")  # "chalk" is never seen in training
HELD_OUT_BOOK = 1  #: the seed of the scenes that a finished model is measured on; training reads book 0
VALIDATION_BOOK = 2  #: what trainings look at on their way, and recipes are chosen by

#: Side of a thing's square box, as a fraction of the picture's side. A cell is 1/3 wide, so things never overlap.
EXTENT = {"large": 0.31, "small": 0.19}

#: Names of the nine cells, row by row.
POSITIONS = (
    "top left", "top", "top right",
    "left", "middle", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip

#: Pairs (kind, color) that no training picture shows: one color for each kind.
HELD_OUT = frozenset((kind, COLORS[(3 * i + 1) % len(COLORS)]) for i, kind in enumerate(KINDS))

SPLITS = ("train", "in", "near", "out")


@dataclass(frozen=True)
class Thing:
    """One drawn thing. `x`, `y`: its centre as fractions of the picture's side, y pointing down."""

    kind: str
    color: str
    size: str
    x: float
    y: float

    @property
    def column(self) -> int:
        return min(int(self.x * 3), 2)

    @property
    def row(self) -> int:
        return min(int(self.y * 3), 2)

    @property
    def position(self) -> str:
        return POSITIONS[3 * self.row + self.column]

    @property
    def category(self) -> str:
        return CATEGORY_OF[self.kind]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """`(left, top, right, bottom)` as fractions of the picture's side."""
        half = EXTENT[self.size] / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Scene:
    """One to four things in a place at a time of day, drawn in a style."""

    things: tuple[Thing, ...]
    place: str = "meadow"
    time: str = "day"
    style: str = "flat"

    def to_dict(self) -> dict:
        """The scene's truth, ready for JSON: every thing with its box."""
        things = [asdict(t) | {"position": t.position, "box": t.box} for t in self.things]
        return {"place": self.place, "time": self.time, "style": self.style, "things": things}


def pick(rng: Random, choices: Sequence[T]) -> T:
    """One of the choices, from one `rng.random()`: the same on every Python."""
    return choices[int(rng.random() * len(choices))]


def shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    """The items in a random order, from one `rng.random()` each."""
    return [item for _, item in sorted(((rng.random(), i), item) for i, item in enumerate(items))]


def _thing(rng: Random, cell: int, earlier: list[Thing], held_out: bool) -> Thing:
    """A thing in `cell`; sometimes of the kind (and color) of an earlier one, so that there is something to count."""
    kind, color, size = pick(rng, KINDS), pick(rng, COLORS), pick(rng, SIZES)
    repeat, same_color = rng.random() < 0.4, rng.random() < 0.5
    if earlier and repeat:
        kind = earlier[0].kind
        color = earlier[0].color if same_color else color
    if held_out:
        color = next(c for c in COLORS if (kind, c) in HELD_OUT)
    elif (kind, color) in HELD_OUT:
        color = COLORS[(COLORS.index(color) + 1 + int(rng.random() * (len(COLORS) - 1))) % len(COLORS)]
    row, column = divmod(cell, 3)
    room = (1 / 3 - EXTENT[size]) / 2
    x = (column + 0.5) / 3 + (2 * rng.random() - 1) * room
    y = (row + 0.5) / 3 + (2 * rng.random() - 1) * room
    return Thing(kind, color, size, round(x, 4), round(y, 4))


def sample_scene(seed: int, index: int, split: str = "train") -> Scene:
    """The scene number `index` of the endless book `seed`.

    `split`: "train" and "in" never show a `HELD_OUT` pair; in "near" one thing at least is a held-out pair; in "out"
    every thing is one, drawn in the style never seen in training.
    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    rng = Random(f"picturebook {split} {seed} {index}")
    count = pick(rng, (1, 1, 2, 2, 2, 3, 3, 3, 4, 4))
    cells = shuffled(rng, range(9))[:count]
    things: list[Thing] = []
    for i, cell in enumerate(cells):
        things.append(_thing(rng, cell, things, split == "out" or (split == "near" and i == 0)))
    return Scene(tuple(things), pick(rng, PLACES), pick(rng, TIMES), "chalk" if split == "out" else "flat")
