"""Referring expressions: "the boat to the left of the red fish" means exactly one thing of a scene, as in RefCOCOg.

`expressions` is where to begin.

Notes:

* Three groups: *attributes* ("the small red boat"), *position* ("the boat on the left"), *relation* ("the boat above
  the fish"). A position or a relation is said only where the noun before it fits several things, so it is needed.
* An expression knows what it says (`Expression.meant`), apart from its text. It counts as clear only if it also fits
  one thing for a reader who is less strict: "on the left" fits a thing at the top left, too, and of two things in one
  column the one further left is "to the left".
* A relation holds by columns and rows (`words.holds`), so it is never a close call; the thing it starts from is clear,
  too.

Paper: arXiv 1511.02283 (Google RefExp, the expressions of RefCOCOg). Notebook: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .scene import Scene, Thing, pick
from .words import RELATIONS, at, holds

GROUPS = ("attributes", "position", "relation")
Attributes = frozenset[tuple[str, str]]  #: (name, value) of a `Thing`

#: What a noun phrase can say; none of them: "thing".
NOUNS = ((), ("kind",), ("color",), ("size",), ("color", "kind"), ("size", "kind"), ("size", "color", "kind"))


@dataclass(frozen=True)
class Expression:
    """`text`, and what it says: attributes of the thing that is meant, its position, its relation to an anchor."""

    text: str
    group: str
    noun: Attributes
    position: str = ""
    relation: str = ""
    anchor: Attributes = frozenset()

    def meant(self, scene: Scene) -> list[int]:
        """The numbers of the things that a reader could take it to mean."""
        return [number for number, thing in enumerate(scene.things) if self._fits(scene, thing)]

    def _fits(self, scene: Scene, thing: Thing) -> bool:
        if not _has(thing, self.noun) or not set(self.position.split()) <= set(thing.position.split()):
            return False
        others = [other for other in scene.things if other is not thing and _has(other, self.anchor)]
        return not self.relation or any(_loosely(self.relation, thing, other) for other in others)


def expressions(scene: Scene, rng: Random) -> list[tuple[Expression, int]]:
    """One expression of every group that the scene allows, each with the number of the thing it means."""
    found = all_expressions(scene)
    return [pick(rng, found[group]) for group in GROUPS if found[group]]


def all_expressions(scene: Scene) -> dict[str, list[tuple[Expression, int]]]:
    """All clear expressions of a scene by group, each with the number of the thing it means."""
    found: dict[str, list[tuple[Expression, int]]] = {group: [] for group in GROUPS}
    clear = [(_expression(thing, form), number) for number, thing in enumerate(scene.things) for form in _nouns(thing)]
    found["attributes"] = [(noun, number) for noun, number in clear if noun.meant(scene) == [number]]
    for noun, number in clear:
        if (noun, number) in found["attributes"]:
            continue
        thing = scene.things[number]
        longer = [Expression(f"{noun.text} {at(thing.position)}", "position", noun.noun, thing.position)]
        longer += [
            Expression(f"{noun.text} {relation} {anchor.text}", "relation", noun.noun, "", relation, anchor.noun)
            for anchor, other in found["attributes"]
            for relation in RELATIONS
            if holds(relation, thing, scene.things[other])
        ]
        for expression in longer:
            if expression.meant(scene) == [number]:
                found[expression.group].append((expression, number))
    return found


def _nouns(thing: Thing) -> list[tuple[str, ...]]:
    """The forms of `NOUNS` for a thing. "the yellow thing" could be the sun, or the moon."""
    return [form for form in NOUNS if form != ("color",) or thing.color != "yellow"]


def _expression(thing: Thing, form: tuple[str, ...]) -> Expression:
    words = [getattr(thing, name) for name in form] + ([] if "kind" in form else ["thing"])
    return Expression(" ".join(["the", *words]), "attributes", frozenset((name, getattr(thing, name)) for name in form))


def _has(thing: Thing, attributes: Attributes) -> bool:
    return all(getattr(thing, name) == value for name, value in attributes)


def _loosely(relation: str, a: Thing, b: Thing) -> bool:
    """Is the center of `a` {relation} that of `b`?"""
    return {
        "to the left of": a.x < b.x,
        "to the right of": a.x > b.x,
        "above": a.y < b.y,
        "below": a.y > b.y,
    }[relation]
