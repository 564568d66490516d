"""Questions that the scene has no answer to: about what is not there, and about what no picture shows."""

from __future__ import annotations

from random import Random

from ..noun_phrases import a, noun_phrase, other_word, plural_of, refer
from ..scene import COLORS, KINDS, Scene, pick
from ..wordings import ABSENT, UNKNOWN, wording
from ..words import RELATIONS, at
from .base import Asked
from .knowledge import NOTHING_OF_THE_KIND


def nothing_there(scene: Scene, rng: Random) -> Asked:
    """A question about a thing that the scene does not have: the answer says so."""
    missing = [kind for kind in KINDS if all(t.kind != kind for t in scene.things)]
    draw = rng.random()
    kind = pick(rng, missing) if draw < 0.75 else pick(rng, ABSENT) if draw < 0.97 else UNKNOWN
    intention = pick(rng, ("color", "size", "position", "color check", "position check", "relation"))
    slots = dict(large="large", small="small", color=pick(rng, COLORS), where=at("left"), relation=pick(rng, RELATIONS))
    said = wording(rng, intention, ref=f"the {other_word(rng, kind) if kind in KINDS else kind}", **slots)
    return said, f"there is no {kind}" if kind != UNKNOWN else NOTHING_OF_THE_KIND


NOT_SHOWN = "the picture does not show it"


def not_shown(scene: Scene, rng: Random) -> Asked:
    """A question that no picture answers: names of people, reasons, what was and what will be."""
    found, noun = refer(scene, rng), pick(rng, ABSENT)
    if found is None:
        return None
    slots = dict(a=a(noun), singular=noun, plural=plural_of(noun), unknown=UNKNOWN)
    return wording(rng, "not shown", ref=found[0], **slots), NOT_SHOWN


def wrong_color(scene: Scene, rng: Random) -> Asked:
    """A question about a thing that the scene has in other colors only: the answer says so."""
    kind = pick(rng, scene.things).kind
    color = pick(rng, [c for c in COLORS if all((t.kind, t.color) != (kind, c) for t in scene.things)])
    slots = dict(large="large", small="small", where=at("left"), relation=pick(rng, RELATIONS))
    intention = pick(rng, ("size", "position", "side", "relation", "position check"))
    said = wording(rng, intention, ref=f"the {noun_phrase(rng, kind, color=color)}", **slots)
    return said, f"there is no {color} {kind}"
