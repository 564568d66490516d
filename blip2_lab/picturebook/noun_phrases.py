"""Noun phrases in a visitor's words: plurals, articles, other names, and words that point at one thing of a scene.

`refer` is where to begin: "the small red boat", "the thing at the top left", whatever fits one thing alone. The fixed
forms of captions and questions are in words.py, those of RefCOCOg in referring.py.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from .scene import KINDS, Scene, Thing, pick, shuffled
from .wordings import SYNONYMS
from .words import at, plural, with_article

IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "foot": "feet", "mouse": "mice",
    "sheep": "sheep", "aircraft": "aircraft", "goldfish": "goldfish", "grass": "grass", "sky": "sky", "food": "food",
    "means of transport": "means of transport", "winter": "winter", "lightning": "lightning", "knife": "knives",
    "shelf": "shelves", "leaf": "leaves", "goose": "geese", "tooth": "teeth", "wolf": "wolves", "deer": "deer",
    "moose": "moose", "bison": "bison", "loaf": "loaves", "scarf": "scarves", "snowman": "snowmen", "dice": "dice",
    "tomato": "tomatoes", "potato": "potatoes", "volcano": "volcanoes",
}  # fmt: skip
MASS = frozenset(  # said without an article
    """grass water sand waves ice winter asphalt rocks peaks cliffs sunshine sunlight daylight clouds stars moonlight
    darkness bread cheese salad soup lightning""".split()
)
THE = frozenset("sea shore coast sun moon sky".split())  # said with "the"


def plural_of(noun: str) -> str:
    """The plural of any noun of the tables: `"kitty"` -> `"kitties"`, `"thing to eat"` -> `"things to eat"`."""
    if noun in KINDS:
        return plural(noun)
    if noun in IRREGULAR or noun in MASS:
        return IRREGULAR.get(noun, noun)
    for joint in (" to ", " of "):
        if joint in noun:
            head, tail = noun.split(joint, 1)
            return f"{plural_of(head)}{joint}{tail}"
    if " " in noun:
        before, last = noun.rsplit(" ", 1)
        return f"{before} {plural_of(last)}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def a(noun: str) -> str:
    """`"a boat"`, `"an apple"`, `"water"`, `"the sun"`."""
    if noun in MASS:
        return noun
    return f"the {noun}" if noun in THE else with_article(noun)


def other_word(rng: Random, word: str, share: float = 0.25) -> str:
    """The word, or one of its synonyms in a `share` of cases."""
    return pick(rng, SYNONYMS[word]) if word in SYNONYMS and rng.random() < share else word


def noun_phrase(rng: Random, kind: str, **attributes: str) -> str:
    """`"little red ship"`: size and color, where given, before the kind, each perhaps by another word."""
    given = [attributes[name] for name in ("size", "color") if attributes.get(name)]
    return " ".join([*(other_word(rng, word) for word in given), other_word(rng, kind)])


#: What is said of a thing to point at it.
FORMS = (
    ("kind",), ("kind",), ("kind",), ("color", "kind"), ("color", "kind"), ("size", "kind"), ("color",), ("size",),
    ("size", "color"), ("size", "color", "kind"), ("position",), ("kind", "position"), ("color", "position"),
)  # fmt: skip


def refer(scene: Scene, rng: Random, avoid: str = "") -> tuple[str, Thing] | None:
    """A thing of the scene and words that fit it alone and do not say its attribute `avoid`; None if there are none."""
    for thing in shuffled(rng, scene.things):
        fitting = [form for form in FORMS if avoid not in form and fits_one(scene, thing, form)]
        if fitting:
            return "the " + words_for(scene, rng, thing, pick(rng, fitting)), thing
    return None


def fits_one(scene: Scene, thing: Thing, form: Sequence[str]) -> bool:
    """Do the words of this form, of `FORMS`, fit this thing and no other?"""
    return sum(all(getattr(t, name) == getattr(thing, name) for name in form) for t in scene.things) == 1


def words_for(scene: Scene, rng: Random, thing: Thing, form: Sequence[str]) -> str:
    """The thing in words of this form, without an article."""
    noun = other_word(rng, thing.kind) if "kind" in form else pick(rng, ("thing", "thing", "object", "one", "item"))
    said = [other_word(rng, getattr(thing, name)) for name in ("size", "color") if name in form]
    where = [somewhere(rng, pick(rng, positions(scene, thing)))] if "position" in form else []
    return " ".join([*said, noun, *where])


def positions(scene: Scene, thing: Thing) -> list[str]:
    """Where the thing is, and no other: its cell, and its side of the picture where it is alone there."""
    found = [thing.position]
    if thing.column != 1 and sum(t.column == thing.column for t in scene.things) == 1:
        found.append(("left", "", "right")[thing.column])
    if thing.row != 1 and sum(t.row == thing.row for t in scene.things) == 1:
        found.append(("top", "", "bottom")[thing.row])
    return found


def somewhere(rng: Random, position: str) -> str:
    """`"at the top left"`, `"in the upper left corner"`."""
    forms = [at(position), at(position)]
    if position in ("left", "right"):
        forms += [f"on the {position} side", f"on the {position} hand side", f"to the {position}"]
    elif position == "middle":
        forms += ["in the center", "in the centre"]
    elif position in ("top", "bottom"):
        up, upper = {"top": ("up", "upper"), "bottom": ("down", "lower")}[position]
        forms += [f"{up} at the {position}", f"in the {upper} {pick(rng, ('half', 'part'))}"]
    else:
        row, column = position.split()
        upper = {"top": "upper", "bottom": "lower"}[row]
        forms += [
            f"in the {row} {column} corner",
            f"in the {upper} {column}",
            f"in the {upper} {column} corner",
            position,
        ]
    return pick(rng, forms)
