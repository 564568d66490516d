"""Questions that are answered by a list: everything, the animals, what is not red, the colors of the cats."""

from __future__ import annotations

from random import Random

from ..noun_phrases import a, other_word, plural_of, refer
from ..scene import CATEGORIES, Scene, pick
from ..wordings import UNKNOWN, wording
from ..words import join, reading_order
from .base import VALUES, Asked, listed, listed_others, repeated, yes_no


def category(scene: Scene, rng: Random) -> Asked:
    """The one kind of a category; several as a list, and that there is none is said."""
    category = pick(rng, scene.things).category if rng.random() < 0.85 else pick(rng, tuple(CATEGORIES))
    found = [t for t in reading_order(scene) if t.category == category]
    kinds = {t.kind for t in found}
    answer = f"there is no {category}" if not found else found[0].kind if len(kinds) == 1 else listed(found)
    return wording(rng, "category", category=other_word(rng, category, 0.15)), answer


#: What a category or a kind is for, or is, as people ask for something of it.
PURPOSES = {
    "food": ("to eat", "to eat", "that i can eat"),
    "toy": ("to play with",),
    "building": ("to live in",),
    "vehicle": ("to drive", "to go places with", "to go somewhere with"),
    "tool": ("to do a job with", "for a job"),
    "animal": ("living",),
    "plant": ("growing",),
    "cup": ("to drink from", "to drink from", "to drink tea from", "to drink with"),
}


def for_a_purpose(scene: Scene, rng: Random) -> Asked:
    """Is there something to eat, and what is it?"""
    present = sorted({name for t in scene.things for name in (t.category, t.kind)} & set(PURPOSES))
    name = pick(rng, present) if present and rng.random() < 0.6 else pick(rng, tuple(PURPOSES))
    found = [t for t in reading_order(scene) if name in (t.category, t.kind)]
    purpose = pick(rng, PURPOSES[name])
    if rng.random() < 0.5:
        return wording(rng, "something for", purpose=purpose), yes_no(bool(found))
    return wording(rng, "what for", purpose=purpose), listed(found)


def some_listed(scene: Scene, rng: Random) -> Asked:
    """The things of one category, kind, color or size."""
    name = pick(rng, ("category", "category", "kind", "color", "color", "size"))
    value = getattr(pick(rng, scene.things), name) if rng.random() < 0.85 else pick(rng, VALUES[name])
    found = [t for t in reading_order(scene) if getattr(t, name) == value]
    if name in ("category", "kind"):
        several = plural_of(other_word(rng, value, 0.15))
    else:
        several = f"{other_word(rng, value)} {pick(rng, ('things', 'things', 'objects', 'items'))}"
    return wording(rng, "some listed", plural=several), listed(found)


def inventory(scene: Scene, rng: Random) -> Asked:
    """Everything, in reading order."""
    return wording(rng, "inventory"), listed(reading_order(scene))


def colors(scene: Scene, rng: Random) -> Asked:
    """The colors of all things."""
    return wording(rng, "colors"), join(list(dict.fromkeys(t.color for t in reading_order(scene))))


def other_things(scene: Scene, rng: Random) -> Asked:
    """Everything but one thing."""
    found = refer(scene, rng)
    if found is None:
        return None
    ref, thing = found
    rest = [t for t in reading_order(scene) if t != thing]
    besides = pick(
        rng, (f" beside {ref}", f" next to {ref}", f" with {ref}", f" {UNKNOWN} from {ref}", f" {UNKNOWN} {ref}")
    )
    first = pick(rng, ("beside", f"{UNKNOWN} from", UNKNOWN, "together with")) + f" {ref}"
    said = wording(rng, "other things", ref=ref, besides=besides, besides_first=first, unknown=UNKNOWN)
    return said, listed_others(rest)


def not_alike(scene: Scene, rng: Random) -> Asked:
    """The things that do not have a color, a size or a category."""
    name = pick(rng, ("color", "color", "size", "category", "kind"))
    value = getattr(pick(rng, scene.things), name) if rng.random() < 0.85 else pick(rng, VALUES[name])
    found = [t for t in reading_order(scene) if getattr(t, name) != value]
    attribute = other_word(rng, value)
    if name in ("category", "kind"):
        if rng.random() < 0.3:
            return wording(rng, "not of them", plural=plural_of(attribute)), listed(found)
        attribute = plural_of(attribute) if rng.random() < 0.6 else a(attribute)
    if rng.random() < 0.2:
        return wording(rng, "something not alike", attribute=attribute), yes_no(bool(found))
    return wording(rng, "not alike", attribute=attribute), listed(found)


def group(scene: Scene, rng: Random) -> Asked:
    """The colors or the places of all things of a kind or category that the scene has several of."""
    name = pick(rng, ("kind", "kind", "category"))
    several = repeated([getattr(t, name) for t in scene.things])
    if not several:
        return None
    value, asked = pick(rng, several), pick(rng, ("color", "position"))
    found = [getattr(t, asked) for t in reading_order(scene) if getattr(t, name) == value]
    noun = other_word(rng, value)
    said = wording(rng, f"group {asked}", plural=plural_of(noun), singular=noun)
    return said, join(list(dict.fromkeys(found)))
