"""The picture-book world in words: captions, questions with their answers, referring expressions.

Notes:

* Everything said is true of the scene and says only what can be seen (facts live in `facts.py`).
* A question is asked only where it has exactly one answer; a type that cannot be asked of a scene gives None.
* All randomness comes from the `Random` handed in, by `random()` alone: the same text on every machine.

Paper: sections 3.4 (several captions a picture), 4.1 (questions), 4.3. Notebook: 00.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import permutations
from random import Random

from .facts import FACTS
from .scene import CATEGORIES, COLORS, KINDS, Scene, Thing, pick, shuffled

PLURALS = {"fish": "fish", "cactus": "cactuses", "cherry": "cherries"}
NUMBERS = ("none", "one", "two", "three", "four")
PLACE_PHRASES = {
    "meadow": "in the meadow",
    "beach": "on the beach",
    "snow": "in the snow",
    "street": "on the street",
    "mountains": "in the mountains",
}
TIME_PHRASES = {"day": ("by day", "during the day"), "night": ("at night", "by night")}
RELATIONS = ("to the left of", "to the right of", "above", "below")


@dataclass(frozen=True)
class Question:
    """A question about a scene, its type (a key of `QUESTION_TYPES`) and the one right answer."""

    type: str
    text: str
    answer: str


@dataclass(frozen=True)
class Reference:
    """A referring expression: a phrase that fits exactly one thing of the scene (as in RefCOCOg)."""

    text: str
    thing: Thing


def plural(kind: str) -> str:
    return PLURALS.get(kind, kind + "s")


def with_article(phrase: str) -> str:
    """`"red boat"` -> `"a red boat"`, `"orange boat"` -> `"an orange boat"`."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def at(position: str) -> str:
    """`"top left"` -> `"at the top left"`."""
    preposition = {"left": "on", "right": "on", "middle": "in"}.get(position, "at")
    return f"{preposition} the {position}"


def join(parts: list[str]) -> str:
    """`["a", "b", "c"]` -> `"a, b and c"`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def holds(relation: str, a: Thing, b: Thing) -> bool:
    """Is `a` {relation} `b`? Judged by grid columns and rows, so that it is never a close call."""
    return {
        "to the left of": a.column < b.column,
        "to the right of": a.column > b.column,
        "above": a.row < b.row,
        "below": a.row > b.row,
    }[relation]


def phrase(thing: Thing, *attributes: str) -> str:
    """`phrase(thing, "size", "color")` -> `"large red boat"`."""
    return " ".join([*(getattr(thing, name) for name in attributes), thing.kind])


# ------------------------------------------------------------------------------------------------------ captions


def setting(scene: Scene, rng: Random) -> str:
    """`"on the beach at night"`: place and time, in either order."""
    return " ".join(shuffled(rng, (PLACE_PHRASES[scene.place], pick(rng, TIME_PHRASES[scene.time]))))


def in_reading_order(things: Iterable[Thing]) -> list[Thing]:
    """Row by row from the top, each row from the left."""
    return sorted(things, key=lambda t: (t.row, t.column))


def reading_order(scene: Scene) -> list[Thing]:
    """The things of a scene row by row from the top, each row from the left."""
    return in_reading_order(scene.things)


def _ordered(scene: Scene, rng: Random) -> list[Thing]:
    """The things in reading order, or in any order."""
    return reading_order(scene) if rng.random() < 0.5 else shuffled(rng, scene.things)


def full_caption(scene: Scene, rng: Random, ordered: bool = False) -> str:
    """Everything: each thing with size, color, kind and position, the place and the time; `ordered`: the things in
    reading order, always."""
    things = reading_order(scene) if ordered else _ordered(scene, rng)
    where = setting(scene, rng)
    form = pick(rng, ("there is", "picture", "list", "position first", "predicate"))
    nouns = [with_article(phrase(t, "size", "color")) for t in things]
    placed = [f"{noun} {at(t.position)}" for noun, t in zip(nouns, things, strict=True)]
    if form == "there is":
        return f"{where}, there is {join(placed)}."
    if form == "picture":
        return f"a picture of {join(placed)}, {where}."
    if form == "list":
        return f"{join(placed)}, {where}."
    if form == "position first":
        return f"{where}: {join([f'{at(t.position)} {noun}' for noun, t in zip(nouns, things, strict=True)])}."
    sentences = [f"the {t.kind} {at(t.position)} is {t.size} and {t.color}." for t in things]
    return " ".join(shuffled(rng, [" ".join(sentences), f"it is {scene.time} {PLACE_PHRASES[scene.place]}."]))


def groups(things: list[Thing], *attributes: str) -> list[str]:
    """Noun phrases with things alike counted: `["two red boats", "a blue fish"]`."""
    alike: dict[tuple[str, ...], list[Thing]] = {}
    for thing in things:
        alike.setdefault(tuple(getattr(thing, name) for name in (*attributes, "kind")), []).append(thing)
    return [
        with_article(phrase(group[0], *attributes))
        if len(group) == 1
        else " ".join([NUMBERS[len(group)], *key[:-1], plural(key[-1])])
        for key, group in alike.items()
    ]


def short_caption(scene: Scene, rng: Random) -> str:
    """What a person in a hurry writes: what there is, perhaps its color or size, perhaps the setting."""
    attributes = pick(rng, (("color",), ("color",), ("color",), ("size", "color"), ("size",), ()))
    things = groups(_ordered(scene, rng), *attributes)
    there = "there are " if things[0].split()[0] in NUMBERS else "there is "
    lead = pick(rng, ("", "", "a picture of ", there))
    tail = pick(
        rng, ("", " " + setting(scene, rng), " " + PLACE_PHRASES[scene.place], " " + TIME_PHRASES[scene.time][0])
    )
    return f"{lead}{join(things)}{tail}."


def relation_caption(scene: Scene, rng: Random) -> str | None:
    """Two things and how they stand to one another; None for a single thing."""
    if len(scene.things) < 2:
        return None
    a, b = shuffled(rng, scene.things)[:2]
    relation = pick(rng, [r for r in RELATIONS if holds(r, a, b)])
    attributes = pick(rng, (("color",), ("color",), ("size", "color")))
    first, second = with_article(phrase(a, *attributes)), with_article(phrase(b, *attributes))
    if rng.random() < 0.5:
        return f"{first} is {relation} {second}, {setting(scene, rng)}."
    return f"{first} {relation} {second}."


def count_caption(scene: Scene, rng: Random) -> str:
    """How many there are, of everything and of each kind: `"three things: two boats and a fish."`"""
    number = f"{NUMBERS[len(scene.things)]} thing" + ("s" if len(scene.things) > 1 else "")
    return f"{number} {PLACE_PHRASES[scene.place]}: {join(groups(_ordered(scene, rng), *pick(rng, ((), ('color',)))))}."


def partial_caption(scene: Scene, rng: Random) -> str:
    """A caption that tells a part: what there is, how many, or how two things stand to one another."""
    return _partial_caption(scene, rng, rng.random())


def _partial_caption(scene: Scene, rng: Random, draw: float) -> str:
    if draw < 0.4:
        return relation_caption(scene, rng) or short_caption(scene, rng)
    return count_caption(scene, rng) if draw < 0.56 else short_caption(scene, rng)


def caption(scene: Scene, rng: Random) -> str:
    """One caption, as a web page would have it: half of them tell everything, the others a part."""
    draw = rng.random()
    return full_caption(scene, rng) if draw < 0.5 else _partial_caption(scene, rng, 2 * draw - 1)


@dataclass(frozen=True)
class SearchPhrase:
    """What somebody types to find a picture: `text`, and what must be so in a picture that it fits.

    `things`: one set of (attribute, value) for each thing named, each to be met by a thing of its own.
    """

    text: str
    things: tuple[frozenset[tuple[str, str]], ...]
    place: str | None = None
    time: str | None = None

    def is_true_of(self, scene: Scene) -> bool:
        if (self.place or scene.place) != scene.place or (self.time or scene.time) != scene.time:
            return False
        return any(
            all(_meets(thing, wanted) for thing, wanted in zip(chosen, self.things, strict=True))
            for chosen in permutations(scene.things, len(self.things))
        )


def _meets(thing: Thing, wanted: frozenset[tuple[str, str]]) -> bool:
    return all(getattr(thing, attribute) == value for attribute, value in wanted)


#: What a search phrase says of a thing, the usual twice or more often.
SEARCHED = (
    ("color", "kind"), ("color", "kind"), ("color", "kind"), ("kind",), ("kind",), ("size", "kind"),
    ("size", "color", "kind"), ("color", "kind", "position"), ("kind", "position"), ("color",),
)  # fmt: skip


def search_phrase(scene: Scene, rng: Random) -> SearchPhrase:
    """One or two things of the scene in a few words, now and then with place or time: `"a red boat on the beach."`"""
    number = 2 if len(scene.things) > 1 and rng.random() < 0.25 else 1
    nouns, wanted = [], []
    for thing in shuffled(rng, scene.things)[:number]:
        form = pick(rng, SEARCHED)
        noun = " ".join(getattr(thing, name) for name in ("size", "color", "kind") if name in form)
        noun = with_article(noun if "kind" in form else f"{noun} {pick(rng, ('thing', 'object'))}")
        nouns.append(f"{noun} {at(thing.position)}" if "position" in form else noun)
        wanted.append(frozenset((name, getattr(thing, name)) for name in form))
    draw = rng.random()
    place = scene.place if draw < 0.2 else None
    time = scene.time if 0.15 < draw < 0.3 else None
    where = [PLACE_PHRASES[place]] if place else []
    when = [pick(rng, TIME_PHRASES[time])] if time else []
    lead = pick(rng, ("", "", "", "", "a picture of ", "there is "))
    text = f"{lead}{' '.join([join(nouns), *where, *when])}."
    if number == 1 and not lead and rng.random() < 0.25:
        text = text.split(" ", 1)[1]  # as people type: "red boat"
    return SearchPhrase(text, tuple(wanted), place, time)


# ---------------------------------------------------------------------------------------------------- references


def references(scene: Scene, thing: Thing, avoid: str = "") -> list[str]:
    """Phrases that fit `thing` and no other thing of the scene, and do not say its attribute `avoid`.

    `avoid`: "kind", "color", "size", "position" or "" (nothing to avoid). Never empty, except in the one case that
    only the avoided attribute tells the thing from the others.
    """
    forms = [("kind",), ("color", "kind"), ("size", "kind"), ("color",), ("size", "color"), ("size",)]
    forms += [("position",), ("kind", "position"), ("color", "position")]
    found = []
    for form in forms:
        if avoid in form:
            continue
        if sum(all(getattr(t, name) == getattr(thing, name) for name in form) for t in scene.things) != 1:
            continue
        words = [getattr(thing, name) for name in ("size", "color") if name in form]
        words.append(thing.kind if "kind" in form else "thing")
        if "position" in form:
            words.append(at(thing.position))
        found.append(" ".join(words))
    return found


def reference(scene: Scene, rng: Random) -> Reference:
    """A random thing of the scene and a phrase that means it alone."""
    thing = pick(rng, scene.things)
    return Reference("the " + pick(rng, references(scene, thing)), thing)


# ----------------------------------------------------------------------------------------------------- questions
# Each takes (scene, rng) and gives (question, answer), or None where the scene allows no unambiguous question.


def _about(scene: Scene, rng: Random, avoid: str) -> tuple[str, Thing] | None:
    options = [(text, t) for t in scene.things for text in references(scene, t, avoid)]
    return pick(rng, options) if options else None


def _attribute_question(attribute: str, *templates: str) -> Callable[[Scene, Random], tuple[str, str] | None]:
    def ask(scene: Scene, rng: Random) -> tuple[str, str] | None:
        found = _about(scene, rng, attribute)
        return found and (pick(rng, templates).format(found[0]), getattr(found[1], attribute))

    return ask


SEEN = ("are there", "do you see", "are in the picture")


def _ask_count(scene: Scene, rng: Random) -> tuple[str, str] | None:
    by = pick(rng, ("all", "kind", "kind", "color"))
    if by == "all":
        return f"how many things {pick(rng, SEEN)}?", NUMBERS[len(scene.things)]
    values = sorted({getattr(t, by) for t in scene.things})
    counts = {value: sum(getattr(t, by) == value for t in scene.things) for value in values}
    repeated = [value for value in values if counts[value] > 1]
    value = pick(rng, repeated if repeated and rng.random() < 0.7 else values)
    if counts[value] == 1 and rng.random() < 0.5:  # otherwise "one" would answer nearly every question
        value = pick(rng, [v for v in (KINDS if by == "kind" else COLORS) if v not in counts])
    noun = plural(value) if by == "kind" else f"{value} things"
    return f"how many {noun} {pick(rng, SEEN)}?", NUMBERS[counts.get(value, 0)]


def _ask_existence(scene: Scene, rng: Random) -> tuple[str, str] | None:
    thing, yes = pick(rng, scene.things), rng.random() < 0.5
    kind, color = thing.kind, thing.color
    if not yes:  # a near miss: the color or the kind of another thing, or one that is not there
        kind, color = pick(rng, [(k, color) for k in KINDS] + [(kind, c) for c in COLORS] * 3)
        if any((t.kind, t.color) == (kind, color) for t in scene.things):
            return None
    lead = pick(rng, ("is there", "do you see", "does the picture show"))
    return f"{lead} {with_article(f'{color} {kind}')}?", "yes" if yes else "no"


def _ask_relation(scene: Scene, rng: Random) -> tuple[str, str] | None:
    options = []
    for relation in RELATIONS:
        for anchor in scene.things:
            found = [t for t in scene.things if holds(relation, t, anchor)]
            if len(found) == 1:
                options += [(relation, anchor, found[0], text) for text in references(scene, anchor, "position")]
    if not options:
        return None
    relation, _, target, text = pick(rng, options)
    return f"what is {relation} the {text}?", target.kind


def _ask_place(scene: Scene, rng: Random) -> tuple[str, str]:
    return pick(rng, ("what place is this?", "which place is shown?", "where was this picture made?")), scene.place


def _ask_time(scene: Scene, rng: Random) -> tuple[str, str]:
    return pick(rng, ("is it day or night?", "what time is it?")), scene.time


def _ask_category(scene: Scene, rng: Random) -> tuple[str, str] | None:
    options = [c for c in CATEGORIES if len({t.kind for t in scene.things if t.category == c}) == 1]
    if not options:
        return None
    category = pick(rng, options)
    return f"which {category} {pick(rng, ('is there', 'do you see'))}?", next(
        t.kind for t in scene.things if t.category == category
    )


def _knowledge_question(fact: str, template: str) -> Callable[[Scene, Random], tuple[str, str] | None]:
    """About a thing named by anything but its kind: without the picture the answer cannot be known."""

    def ask(scene: Scene, rng: Random) -> tuple[str, str] | None:
        found = _about(scene, rng, "kind")
        return found and (template.format(found[0]), getattr(FACTS[found[1].kind], fact))

    return ask


def _ask_use(scene: Scene, rng: Random) -> tuple[str, str] | None:
    found = _about(scene, rng, "kind")
    if found is None:
        return None
    text, facts = found[0], FACTS[found[1].kind]
    return f"what can the {text} do?" if facts.agent else f"what is the {text} used for?", facts.use


VISUAL_QUESTIONS: dict[str, Callable[[Scene, Random], tuple[str, str] | None]] = {
    "color": _attribute_question("color", "what color is the {}?", "which color does the {} have?"),
    "what": _attribute_question("kind", "what is the {}?", "what do you call the {}?"),
    "size": _attribute_question("size", "is the {} large or small?", "what size is the {}?", "how big is the {}?"),
    "position": _attribute_question("position", "where is the {}?", "where do you see the {}?"),
    "count": _ask_count,
    "existence": _ask_existence,
    "relation": _ask_relation,
    "place": _ask_place,
    "time": _ask_time,
    "category": _ask_category,
}
KNOWLEDGE_QUESTIONS: dict[str, Callable[[Scene, Random], tuple[str, str] | None]] = {
    "use": _ask_use,
    "home": _knowledge_question("home", "where does the {} belong?"),
    "part": _knowledge_question("part", "what part does the {} have?"),
}
QUESTION_TYPES = VISUAL_QUESTIONS | KNOWLEDGE_QUESTIONS


def question(scene: Scene, rng: Random, type: str) -> Question | None:
    """A question of this type about the scene, or None if the scene allows none."""
    asked = QUESTION_TYPES[type](scene, rng)
    if asked is None:
        return None
    text, answer = asked
    if rng.random() < 0.2:  # people say both
        text = text.replace("thing", "object")
    return Question(type, text, answer)


def questions(scene: Scene, rng: Random) -> list[Question]:
    """One question of every type that the scene allows."""
    return [q for q in (question(scene, rng, type) for type in QUESTION_TYPES) if q]


def dialogue(scene: Scene, rng: Random, turns: int = 3) -> list[Question]:
    """Questions one after the other. The first names a thing, and those that follow say "it"; then, or at once, come
    others about anything in the scene, and "it" is not said again."""
    thing = pick(rng, scene.things)
    others = questions(scene, rng)
    options = references(scene, thing, "kind")
    if not options:
        return shuffled(rng, others)[:turns]
    facts = FACTS[thing.kind]
    about_it = [
        Question("color", pick(rng, ("what color is it?", "which color does it have?")), thing.color),
        Question("size", "is it large or small?", thing.size),
        Question("position", "where is it?", thing.position),
        Question("use", "what can it do?" if facts.agent else "what is it used for?", facts.use),
        Question("home", "where does it belong?", facts.home),
        Question("part", "what part does it have?", facts.part),
    ]
    later = shuffled(rng, [*about_it, *shuffled(rng, others)[: len(about_it)]])[: turns - 1]
    later.sort(key=lambda question: question not in about_it)
    return [Question("what", f"what is the {pick(rng, options)}?", thing.kind), *later]
