"""Questions about what everybody knows and no picture shows (facts.py): uses, homes and parts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..facts import FACTS
from ..noun_phrases import refer
from ..scene import CATEGORY_OF, KINDS, Scene, pick
from ..wordings import wording
from ..words import with_article
from .base import Asked, yes_no


def use(scene: Scene, rng: Random) -> Asked:
    """What one does with a thing, or what it can do."""
    found = refer(scene, rng, "kind" if rng.random() < 0.5 else "")
    if found is None:
        return None
    facts = FACTS[found[1].kind]
    return wording(rng, "can do" if facts.agent else "use", ref=found[0]), facts.use


def fact_of(name: str) -> Callable[[Scene, Random], Asked]:
    """A function that asks for this fact about one thing."""

    def ask_it(scene: Scene, rng: Random) -> Asked:
        found = refer(scene, rng, "kind" if rng.random() < 0.5 else "")
        return found and (wording(rng, name, ref=found[0]), getattr(FACTS[found[1].kind], name))

    return ask_it


#: True of some other kind, too, as people see it: never denied.
DEBATED_FACTS = frozenset(
    ("wing", "head", "skin", "tail", "root", "stone", "handle", "teeth", "string", "cloth", "rubber", "core")
    + ("keep dry", "give shade", "hide", "celebrate a birthday", "play a game")
)


def fact_check(scene: Scene, rng: Random) -> Asked:
    """Can it do this, has it this part? What is denied belongs to a thing of another category."""
    found = refer(scene, rng, "kind" if rng.random() < 0.5 else "")
    if found is None:
        return None
    kind, name, yes = found[1].kind, pick(rng, ("use", "part")), rng.random() < 0.5
    agent = FACTS[kind].agent
    others = [
        fact
        for other in KINDS
        if CATEGORY_OF[other] != CATEGORY_OF[kind]
        and (name == "part" or FACTS[other].agent == agent)
        and (fact := getattr(FACTS[other], name)) not in DEBATED_FACTS
    ]
    fact = getattr(FACTS[kind], name) if yes else pick(rng, others)
    intention = "part check" if name == "part" else "can do check" if agent else "use check"
    return wording(rng, intention, ref=found[0], fact=fact, a_fact=with_article(fact)), yes_no(yes)


def by_fact(scene: Scene, rng: Random) -> Asked:
    """Which thing can do it, is used for it, has it or belongs there? Or: is there such a thing?"""
    present, yes = sorted({t.kind for t in scene.things}), rng.random() < 0.7
    kind = pick(rng, present if yes else [k for k in KINDS if k not in present])
    name = pick(rng, ("use", "use", "part", "home"))
    fact = getattr(FACTS[kind], name)
    if not yes and fact in DEBATED_FACTS:
        return None
    slots = dict(fact=fact, a_fact=with_article(fact) if rng.random() < 0.6 else f"the {fact}")
    if name != "home" and rng.random() < 0.4:
        able = "something able" if FACTS[kind].agent else "something used"
        return wording(rng, able if name == "use" else "something with", **slots), yes_no(yes)
    agent = "agent by fact" if FACTS[kind].agent else "tool by fact"
    intention = {"use": agent, "part": "owner of part", "home": "owner of home"}[name]
    return wording(rng, intention, **slots), kind if yes else NOTHING_OF_THE_KIND


NOTHING_OF_THE_KIND = "there is no such thing"
