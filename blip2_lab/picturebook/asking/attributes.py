"""Questions about one thing: its color, kind, size and category, and which thing is red."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..noun_phrases import a, fits_one, other_word, plural_of, refer
from ..scene import CATEGORIES, COLORS, KINDS, SIZES, Scene, pick, shuffled
from ..wordings import wording
from .base import Asked, another, yes_no


def attribute_of(attribute: str, intention: str) -> Callable[[Scene, Random], Asked]:
    """A function that asks for this attribute of one thing, in the wordings of the intention."""

    def ask_it(scene: Scene, rng: Random) -> Asked:
        found = refer(scene, rng, attribute)
        if found is None:
            return None
        slots = dict(large=other_word(rng, "large", 0.4), small=other_word(rng, "small", 0.4))
        return wording(rng, intention, ref=found[0], **slots), getattr(found[1], attribute)

    return ask_it


def color_choice(scene: Scene, rng: Random) -> Asked:
    """Is it red or blue?"""
    found = refer(scene, rng, "color")
    if found is None:
        return None
    first, second = shuffled(rng, (found[1].color, another(rng, COLORS, found[1].color)))
    return wording(rng, "color choice", ref=found[0], color=first, other=second), found[1].color


def color_check(scene: Scene, rng: Random) -> Asked:
    """Is it red? A wrong color is often that of another thing."""
    found = refer(scene, rng, "color")
    if found is None:
        return None
    true = rng.random() < 0.5
    others = sorted({t.color for t in scene.things} - {found[1].color})
    wrong = pick(rng, others) if others and rng.random() < 0.6 else another(rng, COLORS, found[1].color)
    color = found[1].color if true else wrong
    return wording(rng, "color check", ref=found[0], color=other_word(rng, color)), yes_no(true)


def kind_check(scene: Scene, rng: Random) -> Asked:
    """Is the red thing a boat?"""
    found = refer(scene, rng, "kind")
    if found is None:
        return None
    true = rng.random() < 0.5
    others = sorted({t.kind for t in scene.things} - {found[1].kind})
    wrong = pick(rng, others) if others and rng.random() < 0.6 else another(rng, KINDS, found[1].kind)
    kind = a(other_word(rng, found[1].kind if true else wrong))
    return wording(rng, "kind check", ref=found[0], a=kind), yes_no(true)


def size_check(scene: Scene, rng: Random) -> Asked:
    """Is it large?"""
    found = refer(scene, rng, "size")
    if found is None:
        return None
    true = rng.random() < 0.5
    size = found[1].size if true else another(rng, SIZES, found[1].size)
    return wording(rng, "size check", ref=found[0], size=other_word(rng, size, 0.5)), yes_no(true)


def what_by_attribute(scene: Scene, rng: Random) -> Asked:
    """Which thing is red, where one thing is."""
    for thing in shuffled(rng, scene.things):
        for name in shuffled(rng, ("color", "size")):
            if fits_one(scene, thing, (name,)):
                attribute = other_word(rng, getattr(thing, name), 0.35)
                return wording(rng, "what by attribute", attribute=attribute), thing.kind
    return None


def category_choice(scene: Scene, rng: Random) -> Asked:
    """Is it a toy or a tool?"""
    found = refer(scene, rng, "kind")
    if found is None:
        return None
    true = found[1].category
    first, second = shuffled(rng, (true, another(rng, tuple(CATEGORIES), true)))
    one, other = (category if category == "food" else a(category) for category in (first, second))
    slots = dict(first=one, second=other, firsts=plural_of(first), seconds=plural_of(second))
    return wording(rng, "category choice", ref=found[0], **slots), true
