"""What a scene must be: a function of (seed, index), tidy in its cells, within its split, and never of one sort only.

The golden scenes are literal: a change of the random stream, of Python or of machine shows here first.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from random import Random

import pytest

from blip2_lab.picturebook import scene as scenes
from blip2_lab.picturebook.scene import (
    CATEGORIES,
    COLORS,
    EXTENT,
    HELD_OUT,
    KINDS,
    PLACES,
    POSITIONS,
    SIZES,
    SPLITS,
    STYLES,
    TIMES,
    Scene,
    Thing,
    pick,
    sample_scene,
    shuffled,
)

MANY = 2500
CELL_NAMES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))


@pytest.fixture(scope="module")
def book() -> dict[str, list[Scene]]:
    return {split: [sample_scene(11, i, split) for i in range(MANY)] for split in SPLITS}


def pairs(scene: Scene) -> list[bool]:
    """For each thing: is it a pair that training never shows?"""
    return [(t.kind, t.color) in HELD_OUT for t in scene.things]


def test_the_world_is_large_enough():
    assert len(KINDS) == len(set(KINDS)) >= 24 and len(CATEGORIES) >= 5
    assert (len(set(COLORS)), len(set(SIZES)), len(set(PLACES)), len(TIMES), len(STYLES)) == (8, 2, 5, 2, 2)
    assert all(len(kinds) >= 3 for kinds in CATEGORIES.values())
    assert len(set(POSITIONS)) == 9


GOLDEN = [
    (7, 0, "train", "snow", "day", [
        ("castle", "red", "small", 0.1573, 0.1122), ("cup", "green", "large", 0.8402, 0.4921),
    ]),
    (7, 12345, "in", "street", "night", [
        ("umbrella", "yellow", "large", 0.8226, 0.1726), ("umbrella", "yellow", "small", 0.2037, 0.4755),
    ]),
    (7, 0, "near", "snow", "night", [
        ("cactus", "gray", "small", 0.523, 0.5146), ("cat", "pink", "small", 0.1046, 0.9046),
        ("flower", "orange", "small", 0.8596, 0.8628),
    ]),
    (7, 0, "out", "beach", "night", [("kite", "purple", "large", 0.5103, 0.5008)]),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "index", "split", "place", "time", "things"), GOLDEN)
def test_golden_scenes_on_every_machine(seed, index, split, place, time, things):
    expected = Scene(tuple(Thing(*t) for t in things), place, time, "chalk" if split == "out" else "flat")
    assert sample_scene(seed, index, split) == expected


def test_the_same_scene_twice_and_another_for_another_number():
    Random(3).random()
    first = [sample_scene(seed, i, split) for split in SPLITS for seed in (0, 1) for i in range(100)]
    assert first == [sample_scene(seed, i, split) for split in SPLITS for seed in (0, 1) for i in range(100)]
    assert len(set(first)) > 0.97 * len(first), "seed, index and split must all matter"


def test_only_random_is_asked(monkeypatch):
    """Python promises the stream of `random()` alone; `choice`, `shuffle` and `randrange` have changed before."""

    class OnlyRandom:
        def __init__(self, seed: str) -> None:
            self.random = Random(seed).random

    expected = [sample_scene(5, i, split) for split in SPLITS for i in range(50)]
    monkeypatch.setattr(scenes, "Random", OnlyRandom)
    assert [sample_scene(5, i, split) for split in SPLITS for i in range(50)] == expected


def test_pick_and_shuffled_are_fair():
    rng = Random("fair")
    picked = Counter(pick(rng, "abcd") for _ in range(4000))
    firsts = Counter(shuffled(rng, "abcd")[0] for _ in range(4000))
    for counts in (picked, firsts):
        assert set(counts) == set("abcd") and max(counts.values()) < 1150
    assert sorted(shuffled(rng, range(9))) == list(range(9))


@pytest.mark.parametrize("split", SPLITS)
def test_things_stay_in_their_cells_and_never_overlap(book, split):
    for scene in book[split]:
        for t in scene.things:
            left, top, right, bottom = t.box
            column, row = sum(t.x > edge for edge in (1 / 3, 2 / 3)), sum(t.y > edge for edge in (1 / 3, 2 / 3))
            # centres are rounded to four digits, so half of 0.0001 may stick out
            assert left > column / 3 - 1e-4 and right < (column + 1) / 3 + 1e-4, f"{t} leaves its column"
            assert top > row / 3 - 1e-4 and bottom < (row + 1) / 3 + 1e-4, f"{t} leaves its row"
            assert min(left, top) >= 0 and max(right, bottom) <= 1, f"{t} leaves the picture"
            assert right - left == pytest.approx(EXTENT[t.size]) and bottom - top == pytest.approx(EXTENT[t.size])
            assert t.position == CELL_NAMES[row][column]
        for a, b in combinations(scene.things, 2):
            apart = max(abs(a.x - b.x), abs(a.y - b.y))
            assert apart >= (EXTENT[a.size] + EXTENT[b.size]) / 2, f"{a} overlaps {b}"


def test_large_is_clearly_larger():
    assert EXTENT["large"] > 1.5 * EXTENT["small"] and EXTENT["large"] < 1 / 3


def test_every_kind_holds_one_color_back_and_every_color_is_held_back():
    assert Counter(kind for kind, _ in HELD_OUT) == {kind: 1 for kind in KINDS}
    assert {color for _, color in HELD_OUT} == set(COLORS)


@pytest.mark.parametrize("split", ["train", "in"])
def test_training_never_shows_a_held_out_pair(book, split):
    assert not any(any(pairs(scene)) for scene in book[split])
    shown = {(t.kind, t.color) for scene in book[split] for t in scene.things}
    assert len(shown) == len(KINDS) * len(COLORS) - len(HELD_OUT), "every other pair is shown"


def test_near_shows_one_at_least_and_out_nothing_else_in_the_unseen_style(book):
    assert all(any(pairs(scene)) for scene in book["near"])
    assert not all(all(pairs(scene)) for scene in book["near"] if len(scene.things) > 1), "near keeps seen pairs too"
    assert all(all(pairs(scene)) for scene in book["out"])
    for split in SPLITS:
        assert {scene.style for scene in book[split]} == {"chalk" if split == "out" else "flat"}
    for split in ("near", "out"):
        assert {(t.kind, t.color) for scene in book[split] for t in scene.things} >= HELD_OUT


def test_the_splits_share_no_scene(book):
    for a, b in combinations(SPLITS, 2):
        shared = set(book[a]) & set(book[b])
        assert not shared, f"{a} and {b} share {len(shared)} scenes"


@pytest.mark.parametrize("split", SPLITS)
def test_everything_occurs_about_as_often(book, split):
    things = [t for scene in book[split] for t in scene.things]
    for name, values in (("kind", KINDS), ("size", SIZES), ("position", POSITIONS)):
        check_even(Counter(getattr(t, name) for t in things), values)
    # held-out pairs alone are 3 or 4 kinds to a color, the others 22 or 23
    check_even(Counter(t.color for t in things), COLORS, tolerance=0.4 if split == "out" else 0.2)
    check_even(Counter(scene.place for scene in book[split]), PLACES)
    check_even(Counter(scene.time for scene in book[split]), TIMES)


def check_even(counts: Counter, values: tuple[str, ...], tolerance: float = 0.3) -> None:
    assert set(counts) == set(values)
    for value in values:
        share = counts[value] * len(values) / counts.total()
        assert abs(share - 1) < tolerance, f"{value} comes {share:.2f} times as often as it should"


def test_one_to_four_things_and_often_something_to_count(book):
    counts = Counter(len(scene.things) for scene in book["train"])
    assert set(counts) == {1, 2, 3, 4} and min(counts.values()) > 0.15 * MANY
    several = [scene for scene in book["train"] if len(scene.things) > 1]
    alike = sum(len({t.kind for t in scene.things}) < len(scene.things) for scene in several)
    assert 0.3 < alike / len(several) < 0.8, "two of a kind must be common, and not the rule"


def test_positions_by_hand():
    centres = (1 / 6, 1 / 2, 5 / 6)
    assert CELL_NAMES == tuple(tuple(Thing("boat", "red", "small", x, y).position for x in centres) for y in centres)
    corner = Thing("key", "blue", "large", 0.5, 0.25)
    assert corner.box == pytest.approx((0.345, 0.095, 0.655, 0.405)) and corner.category == "tool"


def test_the_truth_as_json():
    scene = sample_scene(7, 0)
    told = json.loads(json.dumps(scene.to_dict()))
    assert (told["place"], told["time"], told["style"]) == ("snow", "day", "flat")
    assert [(t["kind"], t["color"], t["size"], t["position"]) for t in told["things"]] == [
        ("castle", "red", "small", "top left"),
        ("cup", "green", "large", "right"),
    ]
    assert told["things"][0]["box"] == pytest.approx([0.0623, 0.0172, 0.2523, 0.2072])


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, in, near, out"):
        sample_scene(0, 0, "test")
