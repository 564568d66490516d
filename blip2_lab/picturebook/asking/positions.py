"""Questions about where things are: positions, sides, what is left of the boat, what is next to it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..noun_phrases import FORMS, fits_one, positions, refer, somewhere, words_for
from ..scene import Scene, Thing, pick, shuffled
from ..wordings import UNKNOWN, wording
from ..words import RELATIONS, holds, in_reading_order, reading_order
from .base import Asked, listed, yes_no

OTHER_RELATIONS = {
    "to the left of": ("to the left of", "left of", "on the left of", "on the left side of", "more left than"),
    "to the right of": ("to the right of", "right of", "on the right of", "on the right side of", "more right than"),
    "above": ("above", "over", "higher than", "on top of", "higher up than"),
    "below": ("below", "under", "beneath", "lower than", "underneath", "lower down than"),
}

NOTHING_THERE = "there is no thing there"

CORNERS = ("top left", "top right", "bottom left", "bottom right")


def at_place(things: Sequence[Thing], place: str) -> list[Thing]:
    """The things that stand at a cell ("top left", "middle") or on a side ("left", "top") of the picture."""
    column, row = {"left": 0, "right": 2}.get(place), {"top": 0, "bottom": 2}.get(place)
    if column is not None:
        return [t for t in things if t.column == column]
    return [t for t in things if t.row == row] if row is not None else [t for t in things if t.position == place]


def what_by_position(scene: Scene, rng: Random) -> Asked:
    """One thing by its kind, several as a list; that nothing is there is said, too."""
    place = pick(rng, positions(scene, pick(rng, scene.things)))
    if rng.random() < 0.4:
        place = pick(rng, ("left", "right", "top", "bottom", "middle", *CORNERS))
    found = at_place(reading_order(scene), place)
    answer = NOTHING_THERE if not found else found[0].kind if len(found) == 1 else listed(found)
    return wording(rng, "what by position", where=somewhere(rng, place)), answer


def side(scene: Scene, rng: Random) -> Asked:
    """Is it on the left or on the right, at the top or at the bottom?"""
    found = refer(scene, rng, "position")
    if found is None:
        return None
    column, row = found[1].column, found[1].row
    if column != 1 and (row == 1 or rng.random() < 0.5):
        return wording(rng, "side", ref=found[0]), ("left", "", "right")[column]
    if row != 1:
        return wording(rng, "height", ref=found[0]), ("top", "", "bottom")[row]
    return None


def sides(things: Sequence[Thing]) -> dict[str, bool]:
    """Does one of the things stand on this side of the picture, or in its middle?"""
    return {
        "left": any(t.column == 0 for t in things),
        "right": any(t.column == 2 for t in things),
        "top": any(t.row == 0 for t in things),
        "bottom": any(t.row == 2 for t in things),
        "middle": any(t.position == "middle" for t in things),
    }


def position_check(scene: Scene, rng: Random) -> Asked:
    """Is it on the left?"""
    found = refer(scene, rng, "position")
    if found is None:
        return None
    thing, true = found[1], rng.random() < 0.5
    where = pick(rng, [name for name, holds_there in sides([thing]).items() if holds_there == true])
    return wording(rng, "position check", ref=found[0], where=somewhere(rng, where)), yes_no(true)


def relation(scene: Scene, rng: Random) -> Asked:
    """What is left of the boat, where one thing is."""
    for anchor in shuffled(rng, scene.things):
        for relation in shuffled(rng, RELATIONS):
            found = [t for t in scene.things if holds(relation, t, anchor)]
            forms = [form for form in FORMS if "position" not in form and fits_one(scene, anchor, form)]
            if len(found) == 1 and forms:
                ref = "the " + words_for(scene, rng, anchor, pick(rng, forms))
                return wording(rng, "relation", relation=pick(rng, OTHER_RELATIONS[relation]), ref=ref), found[0].kind
    return None


def nearest(scene: Scene, rng: Random) -> Asked:
    """What stands next to a thing: the nearest of the others, several that are as near as a list."""
    found = refer(scene, rng) if len(scene.things) > 1 else None
    if found is None:
        return None
    ref, thing = found
    distance = {t: (t.column - thing.column) ** 2 + (t.row - thing.row) ** 2 for t in scene.things if t != thing}
    near = in_reading_order([t for t in distance if distance[t] == min(distance.values())])
    answer = near[0].kind if len(near) == 1 else listed(near)
    return wording(rng, "nearest", ref=ref, unknown=UNKNOWN), answer
