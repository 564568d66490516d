"""Questions about the place and the time of day."""

from __future__ import annotations

from random import Random

from ..noun_phrases import a, plural_of
from ..scene import PLACES, TIMES, Scene, pick, shuffled
from ..wordings import SCENERY, wording
from ..words import PLACE_PHRASES, with_article
from .base import Asked, another, yes_no

OTHER_PLACES = {
    "meadow": ("meadow", "field", "green meadow"),
    "beach": ("beach", "seaside"),
    "snow": ("snow", "snowy place", "winter landscape"),
    "street": ("street", "road", "city street"),
    "mountains": ("mountains", "mountain", "mountain landscape"),
}


def place(scene: Scene, rng: Random) -> Asked:
    """Where is this?"""
    return wording(rng, "place"), scene.place


def _a_place(rng: Random, place: str) -> str:
    name = pick(rng, OTHER_PLACES[place])
    return name if name in ("snow", "mountains") else with_article(name)


def place_check(scene: Scene, rng: Random) -> Asked:
    """Is this a beach?"""
    true = rng.random() < 0.5
    place = scene.place if true else another(rng, PLACES, scene.place)
    return wording(rng, "place check", place=PLACE_PHRASES[place], a_place=_a_place(rng, place)), yes_no(true)


def place_choice(scene: Scene, rng: Random) -> Asked:
    """Is this a beach or a street?"""
    first, second = shuffled(rng, (scene.place, another(rng, PLACES, scene.place)))
    slots = dict(place=PLACE_PHRASES[first], other_place=PLACE_PHRASES[second])
    slots |= dict(a_place=_a_place(rng, first), another_place=_a_place(rng, second))
    return wording(rng, "place choice", **slots), scene.place


def time(scene: Scene, rng: Random) -> Asked:
    """Is it day or night?"""
    return wording(rng, "time"), scene.time


def time_check(scene: Scene, rng: Random) -> Asked:
    """Is it night?"""
    time = pick(rng, TIMES)
    return wording(rng, f"{time} check"), yes_no(time == scene.time)


def scenery(scene: Scene, rng: Random) -> Asked:
    """Is there water, is there the sun?"""
    yes = rng.random() < 0.5
    words = [noun for key, nouns in SCENERY.items() if (key in (scene.place, scene.time)) == yes for noun in nouns]
    noun = pick(rng, words)
    said = f"a {noun}" if noun in ("sea", "sun", "moon") and rng.random() < 0.4 else a(noun)
    return wording(rng, "existence", a=said, singular=noun, plural=plural_of(noun)), yes_no(yes)
