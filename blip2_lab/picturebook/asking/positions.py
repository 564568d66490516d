"""Questions about where things are: positions, sides, what is left of the boat, what is next to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ..noun_phrases import FORMS, a, fits_one, other_word, plural_of, positions, refer, somewhere, words_for
from ..scene import Scene, Thing, pick, shuffled
from ..wordings import UNKNOWN, wording
from ..words import NUMBERS, RELATIONS, holds, in_reading_order, join, reading_order
from .base import Asked, listed, yes_no

OTHER_RELATIONS = {
    "to the left of": ("to the left of", "left of", "on the left of", "on the left side of", "more left than"),
    "to the right of": ("to the right of", "right of", "on the right of", "on the right side of", "more right than"),
    "above": ("above", "over", "higher than", "on top of", "higher up than"),
    "below": ("below", "under", "beneath", "lower than", "underneath", "lower down than"),
}

#: What a list can be ordered by.
ORDERS: dict[str, Callable[[Thing], tuple[int, int]]] = {
    "from left to right": lambda t: (t.column, t.row),
    "from right to left": lambda t: (-t.column, t.row),
    "from top to bottom": lambda t: (t.row, t.column),
    "from the left to the right": lambda t: (t.column, t.row),
    "from the top to the bottom": lambda t: (t.row, t.column),
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


def between(scene: Scene, rng: Random) -> Asked:
    """What stands between two things: in the cell halfway from one to the other."""
    pairs: dict[bool, list[tuple[Thing, Thing, list[Thing]]]] = {True: [], False: []}
    for one in scene.things:
        for other in scene.things:
            column, row = one.column + other.column, one.row + other.row
            if one != other and column % 2 == row % 2 == 0:
                there = [t for t in scene.things if (2 * t.column, 2 * t.row) == (column, row)]
                pairs[bool(there)].append((one, other, there))
    seldom = rng.random() < 0.2  # nothing stands between most pairs
    possible = pairs[not seldom]
    if not possible:
        return None
    one, other, there = pick(rng, possible)
    forms = [[f for f in FORMS if "position" not in f and fits_one(scene, t, f)] for t in (one, other)]
    if not all(forms):
        return None
    first, second = ("the " + words_for(scene, rng, t, pick(rng, f)) for t, f in zip((one, other), forms, strict=True))
    return wording(rng, "between", first=first, second=second), there[0].kind if there else NOTHING_THERE


def which_of_them(scene: Scene, rng: Random) -> Asked:
    """Which boat is large, or on the left: the red one. That none of them is there is said."""
    things = [t for t in scene.things if sum((t.kind, t.color) == (o.kind, o.color) for o in scene.things) == 1]
    if not things:
        return None
    thing = pick(rng, things)
    alike = [t for t in scene.things if t.kind == thing.kind]
    noun = other_word(rng, thing.kind)
    slots = dict(singular=noun, plural=plural_of(noun))
    if rng.random() < 0.15:
        taken = sides(alike)
        place = pick(rng, [place for place, is_taken in taken.items() if not is_taken] or ["middle"])
        if not taken[place]:
            said = wording(rng, "which of them", attribute=somewhere(rng, place), **slots)
            return said, f"there is no {thing.kind} there"
    others = sides([t for t in alike if t != thing])
    found = [somewhere(rng, place) for place, true in sides([thing]).items() if true and not others[place]]
    if len(alike) > 1 and sum(t.size == thing.size for t in alike) == 1:
        found.append(other_word(rng, thing.size))
    if not found:
        return None
    return wording(rng, "which of them", attribute=pick(rng, found), **slots), f"the {thing.color} one"


def relation_choice(scene: Scene, rng: Random) -> Asked:
    """Is the boat above or below the cat, left or right of it?"""
    things = [t for t in scene.things if any(fits_one(scene, t, form) for form in FORMS[:10])]
    pairs = [(one, other, r) for one in things for other in things for r in RELATIONS if holds(r, one, other)]
    if not pairs:
        return None
    one, other, relation = pick(rng, pairs)
    first, ref = (
        "the " + words_for(scene, rng, t, pick(rng, [f for f in FORMS[:10] if fits_one(scene, t, f)]))
        for t in (one, other)
    )
    asked = "above or below" if relation in ("above", "below") else "left or right of"
    return wording(rng, asked, first=first, ref=ref), relation.removeprefix("to the ").removesuffix(" of")


def one_related(scene: Scene, rng: Random) -> Asked:
    """Is there a boat to the right of the cat? What is denied often stands elsewhere."""
    found = refer(scene, rng, "position") if len(scene.things) > 1 else None
    if found is None:
        return None
    ref, anchor = found
    yes, name = rng.random() < 0.5, pick(rng, ("kind", "kind", "color", "category"))
    values = sorted({getattr(t, name) for t in scene.things})
    fitting = [
        (relation, value)
        for relation in RELATIONS
        for value in values
        if any(getattr(t, name) == value and holds(relation, t, anchor) for t in scene.things) == yes
    ]
    if not fitting:
        return None
    relation, value = pick(rng, fitting)
    noun = _noun_for(rng, name, value)
    slots = dict(a=a(noun), singular=noun, plural=plural_of(noun))
    return wording(rng, "one related", relation=pick(rng, OTHER_RELATIONS[relation]), ref=ref, **slots), yes_no(yes)


def in_order(scene: Scene, rng: Random) -> Asked:
    """The things, or their colors, from left to right or from top to bottom."""
    order, by = pick(rng, tuple(ORDERS.items()))
    things = sorted(scene.things, key=by)
    if rng.random() < 0.5:
        return wording(rng, "in order", order=order), listed(things)
    return wording(rng, "colors in order", order=order), join(list(dict.fromkeys(t.color for t in things)))


def number_there(scene: Scene, rng: Random) -> Asked:
    """How many things, or boats, stand on the left? None is an answer, too."""
    place = pick(rng, ("left", "right", "top", "bottom"))
    found = at_place(scene.things, place)
    if not found and rng.random() < 0.6:
        return None
    noun, number = pick(rng, ("thing", "thing", "object", "item")), len(found)
    if rng.random() < 0.4:
        kind = pick(rng, found or scene.things).kind
        noun, number = other_word(rng, kind), sum(t.kind == kind for t in found)
    return wording(rng, "number there", plural=plural_of(noun), where=somewhere(rng, place)), NUMBERS[number]


def _noun_for(rng: Random, name: str, value: str) -> str:
    """`"red object"`, `"boat"`, `"toy"`: what a thing is called by one of its attributes."""
    return f"{other_word(rng, value)} {pick(rng, ('thing', 'object'))}" if name == "color" else other_word(rng, value)


def one_there(scene: Scene, rng: Random) -> Asked:
    """Is there a boat on the left, or a red thing at the top?"""
    thing, yes = pick(rng, scene.things), rng.random() < 0.5
    name = pick(rng, ("kind", "kind", "color", "category"))
    value = getattr(thing, name)
    taken = sides([t for t in scene.things if getattr(t, name) == value])
    where = [place for place, is_taken in taken.items() if is_taken == yes]
    if not where:
        return None
    noun = _noun_for(rng, name, value)
    slots = dict(a=a(noun), singular=noun, plural=plural_of(noun), where=somewhere(rng, pick(rng, where)))
    return wording(rng, "one there", **slots), yes_no(yes)


def something_related(scene: Scene, rng: Random) -> Asked:
    """Is there anything left of the boat?"""
    found = refer(scene, rng, "position")
    if found is None:
        return None
    ref, thing = found
    yes = rng.random() < 0.5
    relations = [r for r in RELATIONS if any(holds(r, t, thing) for t in scene.things) == yes]
    if not relations:
        return None
    relation = pick(rng, OTHER_RELATIONS[pick(rng, relations)][:4])
    return wording(rng, "something related", relation=relation, ref=ref), yes_no(yes)
