"""Questions about a scene in a visitor's many words, each with its one right answer.

`ask(scene, rng, intention)` gives a `Question` of one of the `INTENTIONS`, in one of the wordings of wordings.py, or
None where the scene allows no unambiguous question of that kind. `words.question` asks the same in the few fixed forms
that the zero-shot table is measured with.

Notes:

* An answer is short, as the paper's "Short answer:" asks: a word, a number, a list of the things in reading order.
* A question about a thing that is not there is answered by saying so.
* `UNKNOWN` stands for any word that the vocabulary lacks; what it names is not in the scene.

Paper: sections 3.4 and 4.1. Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from .facts import FACTS
from .noun_phrases import FORMS, a, fits_one, noun_phrase, other_word, plural_of, positions, refer, somewhere, words_for
from .scene import CATEGORIES, CATEGORY_OF, COLORS, KINDS, PLACES, SIZES, TIMES, Scene, Thing, pick, shuffled
from .wordings import ABSENT, SCENERY, UNKNOWN, as_typed, wording
from .words import (
    NUMBERS,
    PLACE_PHRASES,
    RELATIONS,
    Question,
    at,
    groups,
    holds,
    join,
    reading_order,
    with_article,
)

OTHER_RELATIONS = {
    "to the left of": ("to the left of", "left of", "on the left of", "on the left side of", "more left than"),
    "to the right of": ("to the right of", "right of", "on the right of", "on the right side of", "more right than"),
    "above": ("above", "over", "higher than", "on top of", "higher up than"),
    "below": ("below", "under", "beneath", "lower than", "underneath", "lower down than"),
}
COMPARATIVES = {
    "to the left of": ("more to the left", "more left"),
    "to the right of": ("more to the right", "more right"),
    "above": ("higher", "higher up"),
    "below": ("lower", "lower down"),
    "larger than": ("bigger", "larger", "taller"),
    "smaller than": ("smaller",),
}
SIZE_RELATIONS = {
    "larger than": ("bigger than", "larger than", "taller than"),
    "smaller than": ("smaller than",),
    "as large as": ("as big as", "as large as", "the same size as", "of the same size as"),
}
OTHER_PLACES = {
    "meadow": ("meadow", "field", "green meadow"),
    "beach": ("beach", "seaside"),
    "snow": ("snow", "snowy place", "winter landscape"),
    "street": ("street", "road", "city street"),
    "mountains": ("mountains", "mountain", "mountain landscape"),
}
Asked = tuple[str, str] | None


def listed(things: Sequence[Thing]) -> str:
    """`"two red boats and a blue fish"`, in the order given; `"nothing"` for no thing."""
    return join(groups(list(things), "color")) if things else "none"


def yes_no(true: bool) -> str:
    return "yes" if true else "no"


def another(rng: Random, values: Sequence[str], than: str) -> str:
    return pick(rng, [value for value in values if value != than])


# --------------------------------------------------------------------------------------------------------- one by one


def _attribute(attribute: str, intention: str) -> Callable[[Scene, Random], Asked]:
    def ask_it(scene: Scene, rng: Random) -> Asked:
        found = refer(scene, rng, attribute)
        if found is None:
            return None
        slots = dict(large=other_word(rng, "large", 0.4), small=other_word(rng, "small", 0.4))
        return wording(rng, intention, ref=found[0], **slots), getattr(found[1], attribute)

    return ask_it


def _color_choice(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "color")
    if found is None:
        return None
    first, second = shuffled(rng, (found[1].color, another(rng, COLORS, found[1].color)))
    return wording(rng, "color choice", ref=found[0], color=first, other=second), found[1].color


def _color_check(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "color")
    if found is None:
        return None
    true = rng.random() < 0.5
    others = sorted({t.color for t in scene.things} - {found[1].color})
    wrong = pick(rng, others) if others and rng.random() < 0.6 else another(rng, COLORS, found[1].color)
    color = found[1].color if true else wrong
    return wording(rng, "color check", ref=found[0], color=other_word(rng, color)), yes_no(true)


def _kind_check(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "kind")
    if found is None:
        return None
    true = rng.random() < 0.5
    others = sorted({t.kind for t in scene.things} - {found[1].kind})
    wrong = pick(rng, others) if others and rng.random() < 0.6 else another(rng, KINDS, found[1].kind)
    kind = a(other_word(rng, found[1].kind if true else wrong))
    return wording(rng, "kind check", ref=found[0], a=kind), yes_no(true)


def _size_check(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "size")
    if found is None:
        return None
    true = rng.random() < 0.5
    size = found[1].size if true else another(rng, SIZES, found[1].size)
    return wording(rng, "size check", ref=found[0], size=other_word(rng, size, 0.5)), yes_no(true)


def _what_by_attribute(scene: Scene, rng: Random) -> Asked:
    for thing in shuffled(rng, scene.things):
        for name in shuffled(rng, ("color", "size")):
            if fits_one(scene, thing, (name,)):
                attribute = other_word(rng, getattr(thing, name), 0.35)
                return wording(rng, "what by attribute", attribute=attribute), thing.kind
    return None


def _what_by_position(scene: Scene, rng: Random) -> Asked:
    thing = pick(rng, scene.things)
    where = somewhere(rng, pick(rng, positions(scene, thing)))
    return wording(rng, "what by position", where=where), thing.kind


SUPERLATIVES = {
    "large": ("largest", "biggest"),
    "small": ("smallest", "tiniest"),
    "to the left of": ("leftmost",),
    "to the right of": ("rightmost",),
    "above": ("topmost", "uppermost", "highest"),
    "below": ("lowest",),
}
COMPARATIVE_OF = {"large": COMPARATIVES["larger than"], "small": COMPARATIVES["smaller than"]}


def _most(scene: Scene, name: str) -> list[Thing]:
    """The things of a size, or those that stand in this relation to every other thing."""
    if name in SIZES:
        return [t for t in scene.things if t.size == name]
    return [t for t in scene.things if all(holds(name, t, other) for other in scene.things if other != t)]


def _superlative(scene: Scene, rng: Random) -> Asked:
    names = SIZES if rng.random() < 0.6 else RELATIONS
    for name in shuffled(rng, names):
        alone = _most(scene, name)
        if len(alone) == 1 and len(scene.things) > 1:
            ref = f"the {pick(rng, SUPERLATIVES[name])} {pick(rng, ('thing', 'object', 'item', 'one'))}"
            draw = rng.random()
            if draw < 0.3:
                attribute = pick(rng, (*(f"the {word}" for word in SUPERLATIVES[name]), *COMPARATIVE_OF.get(name, ())))
                return wording(rng, "what by attribute", attribute=attribute), alone[0].kind
            if draw < 0.8:
                return wording(rng, "what", ref=ref), alone[0].kind
            return wording(rng, "color", ref=ref), alone[0].color
    return None


def _side(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "position")
    if found is None:
        return None
    column, row = found[1].column, found[1].row
    if column != 1 and (row == 1 or rng.random() < 0.5):
        return wording(rng, "side", ref=found[0]), ("left", "", "right")[column]
    if row != 1:
        return wording(rng, "height", ref=found[0]), ("top", "", "bottom")[row]
    return None


def _sides(things: Sequence[Thing]) -> dict[str, bool]:
    """Does one of the things stand on this side of the picture, or in its middle?"""
    return {
        "left": any(t.column == 0 for t in things),
        "right": any(t.column == 2 for t in things),
        "top": any(t.row == 0 for t in things),
        "bottom": any(t.row == 2 for t in things),
        "middle": any(t.position == "middle" for t in things),
    }


def _position_check(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "position")
    if found is None:
        return None
    thing, true = found[1], rng.random() < 0.5
    where = pick(rng, [name for name, holds_there in _sides([thing]).items() if holds_there == true])
    return wording(rng, "position check", ref=found[0], where=somewhere(rng, where)), yes_no(true)


def _counted(scene: Scene, rng: Random) -> tuple[str, str, int]:
    """A group of things in the singular and the plural, and how many of them there are."""
    by = pick(rng, ("all", "kind", "kind", "kind", "color", "both", "category", "size", "absent"))
    if by == "all":
        noun = pick(rng, ("thing", "thing", "object", "item"))
        return noun, plural_of(noun), len(scene.things)
    if by == "absent":
        noun = pick(rng, ABSENT) if rng.random() < 0.9 else UNKNOWN
        return noun, plural_of(noun), 0
    names = {"both": ("color", "kind"), "kind": ("kind",)}.get(by, (by,))
    counts: dict[tuple[str, ...], int] = {}
    for thing in scene.things:
        value = tuple(getattr(thing, name) for name in names)
        counts[value] = counts.get(value, 0) + 1
    repeated = sorted((count, value) for value, count in counts.items() if count > 1)
    draw = rng.random()
    if repeated and draw < 0.55:
        _, value = repeated[-1] if draw < 0.35 else pick(rng, repeated)
    elif draw < 0.8:
        value = pick(rng, sorted(counts))
    else:
        values = {"kind": KINDS, "color": COLORS, "category": tuple(CATEGORIES), "size": SIZES}
        value = tuple(pick(rng, values[name]) for name in names)
    count, thing = counts.get(value, 0), pick(rng, ("thing", "thing", "object", "item"))
    noun = other_word(rng, value[-1]) if by in ("kind", "both", "category") else thing
    said = [other_word(rng, word) for word in (value if by in ("color", "size") else value[:-1])]
    return " ".join([*said, noun]), " ".join([*said, plural_of(noun)]), count


def _count(scene: Scene, rng: Random) -> Asked:
    if rng.random() < 0.05:
        return wording(rng, "color count"), NUMBERS[len({t.color for t in scene.things})]
    singular, several, count = _counted(scene, rng)
    return wording(rng, "count", plural=several, a=a(singular), singular=singular), NUMBERS[count]


def _count_check(scene: Scene, rng: Random) -> Asked:
    singular, several, count = _counted(scene, rng)
    if rng.random() < 0.4:
        return wording(rng, "more than one", plural=several, singular=singular), yes_no(count > 1)
    number = count if rng.random() < 0.5 else pick(rng, [n for n in (1, 2, 3, 4) if n != count])
    if number < 2:
        return f"is there {pick(rng, ('only one', 'exactly one', 'just one'))} {singular}", yes_no(count == 1)
    return wording(rng, "count check", plural=several, number=NUMBERS[number]), yes_no(count == number)


def _existence(scene: Scene, rng: Random) -> Asked:
    thing, yes, by = pick(rng, scene.things), rng.random() < 0.5, rng.random()
    if by < 0.32:  # the kind alone
        kind = thing.kind if yes else another(rng, KINDS, thing.kind)
        noun, true = other_word(rng, kind), any(t.kind == kind for t in scene.things)
    elif by < 0.55:  # with its color
        kind, color = thing.kind, thing.color
        if not yes:  # a near miss: the color of another thing, another color, another kind
            near = [(kind, t.color) for t in scene.things] + [(t.kind, color) for t in scene.things]
            far = [(kind, another(rng, COLORS, color)), (another(rng, KINDS, kind), color)]
            kind, color = pick(rng, near if rng.random() < 0.5 else far)
        noun = noun_phrase(rng, kind, color=color)
        true = any((t.kind, t.color) == (kind, color) for t in scene.things)
    elif by < 0.63:  # with its size
        size = thing.size if yes else another(rng, SIZES, thing.size)
        noun = noun_phrase(rng, thing.kind, size=size)
        true = any((t.kind, t.size) == (thing.kind, size) for t in scene.things)
    elif by < 0.81:
        category = thing.category if yes else pick(rng, tuple(CATEGORIES))
        noun, true = other_word(rng, category), any(t.category == category for t in scene.things)
    elif by < 0.91:
        noun, true = (pick(rng, ABSENT) if rng.random() < 0.9 else UNKNOWN), False
    else:
        if yes:
            noun, true = pick(rng, (*SCENERY[scene.place], *SCENERY[scene.time], "sky")), True
        else:
            noun = pick(rng, [n for key, ns in SCENERY.items() if key not in (scene.place, scene.time) for n in ns])
            true = False
    return wording(rng, "existence", a=a(noun), singular=noun, plural=plural_of(noun)), yes_no(true)


def _something(scene: Scene, rng: Random) -> Asked:
    thing, yes = pick(rng, scene.things), rng.random() < 0.5
    if rng.random() < 0.25:
        where = [side for side, taken in _sides(scene.things).items() if taken == yes]
        if not where:
            return None
        return wording(rng, "something there", where=somewhere(rng, pick(rng, where))), yes_no(yes)
    sizes = {t.size for t in scene.things}
    if rng.random() < 0.3 and (yes or len(sizes) == 1):
        value = thing.size if yes else another(rng, SIZES, thing.size)
    else:
        absent = [color for color in COLORS if all(t.color != color for t in scene.things)]
        value = thing.color if yes else pick(rng, absent)
    return wording(rng, "something", attribute=other_word(rng, value)), yes_no(yes)


def _relation(scene: Scene, rng: Random) -> Asked:
    for anchor in shuffled(rng, scene.things):
        for relation in shuffled(rng, RELATIONS):
            found = [t for t in scene.things if holds(relation, t, anchor)]
            forms = [form for form in FORMS if "position" not in form and fits_one(scene, anchor, form)]
            if len(found) == 1 and forms:
                ref = "the " + words_for(scene, rng, anchor, pick(rng, forms))
                return wording(rng, "relation", relation=pick(rng, OTHER_RELATIONS[relation]), ref=ref), found[0].kind
    return None


def holds_or_compares(relation: str, thing: Thing, other: Thing) -> bool:
    """Is the thing in this relation to the other, one of `RELATIONS` or of `SIZE_RELATIONS`?"""
    if relation in RELATIONS:
        return holds(relation, thing, other)
    sizes = {"larger than": ("large", "small"), "smaller than": ("small", "large")}
    return (thing.size, other.size) == sizes[relation] if relation in sizes else thing.size == other.size


def _relation_check(scene: Scene, rng: Random) -> Asked:
    forms = FORMS[:10]
    things = [t for t in scene.things if any(fits_one(scene, t, form) for form in forms)]
    if len(things) < 2:
        return None
    one, two = shuffled(rng, things)[:2]
    forms_of = OTHER_RELATIONS if rng.random() < 0.65 else SIZE_RELATIONS
    true = [relation for relation in forms_of if holds_or_compares(relation, one, two)]
    relation = pick(rng, true) if rng.random() < 0.5 else pick(rng, [r for r in forms_of if r not in true])
    one_form, two_form = (pick(rng, [f for f in forms if fits_one(scene, t, f)]) for t in (one, two))
    first, ref = (f"the {words_for(scene, rng, t, f)}" for t, f in ((one, one_form), (two, two_form)))
    said = wording(rng, "relation check", first=first, relation=pick(rng, forms_of[relation]), ref=ref)
    return said, yes_no(relation in true)


def _place(scene: Scene, rng: Random) -> Asked:
    return wording(rng, "place"), scene.place


def _a_place(rng: Random, place: str) -> str:
    name = pick(rng, OTHER_PLACES[place])
    return name if name in ("snow", "mountains") else with_article(name)


def _place_check(scene: Scene, rng: Random) -> Asked:
    true = rng.random() < 0.5
    place = scene.place if true else another(rng, PLACES, scene.place)
    return wording(rng, "place check", place=PLACE_PHRASES[place], a_place=_a_place(rng, place)), yes_no(true)


def _place_choice(scene: Scene, rng: Random) -> Asked:
    first, second = shuffled(rng, (scene.place, another(rng, PLACES, scene.place)))
    slots = dict(place=PLACE_PHRASES[first], other_place=PLACE_PHRASES[second])
    slots |= dict(a_place=_a_place(rng, first), another_place=_a_place(rng, second))
    return wording(rng, "place choice", **slots), scene.place


def _time(scene: Scene, rng: Random) -> Asked:
    return wording(rng, "time"), scene.time


def _time_check(scene: Scene, rng: Random) -> Asked:
    time = pick(rng, TIMES)
    return wording(rng, f"{time} check"), yes_no(time == scene.time)


def _category(scene: Scene, rng: Random) -> Asked:
    alone = [c for c in CATEGORIES if len({t.kind for t in scene.things if t.category == c}) == 1]
    if not alone:
        return None
    category = pick(rng, alone)
    kind = next(t.kind for t in scene.things if t.category == category)
    return wording(rng, "category", category=other_word(rng, category, 0.15)), kind


def _some_listed(scene: Scene, rng: Random) -> Asked:
    """The things of one category, kind, color or size."""
    name = pick(rng, ("category", "category", "kind", "color", "color", "size"))
    values = {"category": tuple(CATEGORIES), "kind": KINDS, "color": COLORS, "size": SIZES}[name]
    value = getattr(pick(rng, scene.things), name) if rng.random() < 0.85 else pick(rng, values)
    found = [t for t in reading_order(scene) if getattr(t, name) == value]
    if name in ("category", "kind"):
        several = plural_of(other_word(rng, value, 0.15))
    else:
        several = f"{other_word(rng, value)} {pick(rng, ('things', 'things', 'objects', 'items'))}"
    return wording(rng, "some listed", plural=several), listed(found)


def _inventory(scene: Scene, rng: Random) -> Asked:
    return wording(rng, "inventory"), listed(reading_order(scene))


def _colors(scene: Scene, rng: Random) -> Asked:
    return wording(rng, "colors"), join(list(dict.fromkeys(t.color for t in reading_order(scene))))


def _use(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "kind" if rng.random() < 0.5 else "")
    if found is None:
        return None
    facts = FACTS[found[1].kind]
    return wording(rng, "can do" if facts.agent else "use", ref=found[0]), facts.use


def _fact(name: str) -> Callable[[Scene, Random], Asked]:
    def ask_it(scene: Scene, rng: Random) -> Asked:
        found = refer(scene, rng, "kind" if rng.random() < 0.5 else "")
        return found and (wording(rng, name, ref=found[0]), getattr(FACTS[found[1].kind], name))

    return ask_it


#: True of some other kind, too, as people see it: never denied.
DEBATED_FACTS = frozenset(
    ("wing", "head", "skin", "tail", "root", "stone", "handle", "teeth", "string", "cloth", "rubber", "core")
    + ("keep dry", "give shade", "hide", "celebrate a birthday", "play a game")
)


def _fact_check(scene: Scene, rng: Random) -> Asked:
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


def _all_check(scene: Scene, rng: Random) -> Asked:
    """Are all things of one color, size or kind?"""
    if len(scene.things) < 2:
        return None
    name, yes = pick(rng, ("color", "color", "size", "kind")), rng.random() < 0.75
    values = {getattr(thing, name) for thing in scene.things}
    if (len(values) == 1) != yes:  # things are seldom all alike: "yes" is tried for more often
        return None
    if name == "kind" or rng.random() < 0.4:
        return wording(rng, "same check", quality=name), yes_no(yes)
    return wording(rng, "all check", attribute=other_word(rng, pick(rng, sorted(values)))), yes_no(yes)


NOTHING_OF_THE_KIND = "there is no such thing"


def _nothing_there(scene: Scene, rng: Random) -> Asked:
    """A question about a thing that the scene does not have: the answer says so."""
    missing = [kind for kind in KINDS if all(t.kind != kind for t in scene.things)]
    draw = rng.random()
    kind = pick(rng, missing) if draw < 0.75 else pick(rng, ABSENT) if draw < 0.97 else UNKNOWN
    intention = pick(rng, ("color", "size", "position", "color check", "position check", "relation"))
    slots = dict(large="large", small="small", color=pick(rng, COLORS), where=at("left"), relation=pick(rng, RELATIONS))
    said = wording(rng, intention, ref=f"the {other_word(rng, kind) if kind in KINDS else kind}", **slots)
    return said, f"there is no {kind}" if kind != UNKNOWN else NOTHING_OF_THE_KIND


def _category_choice(scene: Scene, rng: Random) -> Asked:
    found = refer(scene, rng, "kind")
    if found is None:
        return None
    true = found[1].category
    first, second = shuffled(rng, (true, another(rng, tuple(CATEGORIES), true)))
    one, other = (category if category == "food" else a(category) for category in (first, second))
    slots = dict(first=one, second=other, firsts=plural_of(first), seconds=plural_of(second))
    return wording(rng, "category choice", ref=found[0], **slots), true


def _comparison(scene: Scene, rng: Random) -> Asked:
    """Which of two things is more to a side, or larger; of one kind they are told apart by color."""
    names = RELATIONS if rng.random() < 0.5 else ("larger than", "smaller than")
    things = [t for t in scene.things if any(fits_one(scene, t, form) for form in FORMS[:10])]
    pairs = [
        (name, more, less)
        for name in names
        for more in things
        for less in things
        if (more.kind, more.color) != (less.kind, less.color)
        and (holds_or_compares(name, more, less) or (name not in RELATIONS and more.size == less.size))
    ]
    if not pairs:
        return None
    name, more, less = pick(rng, pairs)
    answer = more.kind if more.kind != less.kind else f"{more.color} {more.kind}"
    if not holds_or_compares(name, more, less):
        answer = f"both are {more.size}"
    said = []
    for thing in shuffled(rng, (more, less)):
        form = pick(rng, [form for form in FORMS[:10] if fits_one(scene, thing, form)])
        said.append("the " + words_for(scene, rng, thing, form))
    return wording(rng, "comparison", more=pick(rng, COMPARATIVES[name]), first=said[0], second=said[1]), answer


NOT_SHOWN = "the picture does not show it"


def _not_shown(scene: Scene, rng: Random) -> Asked:
    """A question that no picture answers: names of people, reasons, what was and what will be."""
    found = refer(scene, rng)
    return found and (wording(rng, "not shown", ref=found[0], unknown=UNKNOWN), NOT_SHOWN)


def _wrong_color(scene: Scene, rng: Random) -> Asked:
    """A question about a thing that the scene has in other colors only: the answer says so."""
    kind = pick(rng, scene.things).kind
    color = pick(rng, [c for c in COLORS if all((t.kind, t.color) != (kind, c) for t in scene.things)])
    slots = dict(large="large", small="small", where=at("left"), relation=pick(rng, RELATIONS))
    intention = pick(rng, ("size", "position", "side", "relation", "position check"))
    said = wording(rng, intention, ref=f"the {noun_phrase(rng, kind, color=color)}", **slots)
    return said, f"there is no {color} {kind}"


#: Every kind of question, and how often the corpus asks it.
INTENTIONS: dict[str, tuple[Callable[[Scene, Random], Asked], float]] = {
    "color": (_attribute("color", "color"), 6),
    "color choice": (_color_choice, 1),
    "color check": (_color_check, 3),
    "kind check": (_kind_check, 2),
    "what": (_attribute("kind", "what"), 4),
    "what by attribute": (_what_by_attribute, 3),
    "what by position": (_what_by_position, 3),
    "superlative": (_superlative, 2),
    "size": (_attribute("size", "size"), 4),
    "size check": (_size_check, 2),
    "position": (_attribute("position", "position"), 6),
    "side": (_side, 2),
    "position check": (_position_check, 2),
    "count": (_count, 28),
    "count check": (_count_check, 4),
    "existence": (_existence, 10),
    "something": (_something, 2),
    "relation": (_relation, 6),
    "relation check": (_relation_check, 2),
    "place": (_place, 3),
    "place check": (_place_check, 2),
    "place choice": (_place_choice, 1),
    "time": (_time, 2),
    "time check": (_time_check, 2),
    "category": (_category, 2),
    "some listed": (_some_listed, 8),
    "inventory": (_inventory, 12),
    "colors": (_colors, 1),
    "use": (_use, 2),
    "home": (_fact("home"), 2),
    "part": (_fact("part"), 2),
    "fact check": (_fact_check, 2),
    "all check": (_all_check, 2),
    "nothing there": (_nothing_there, 3),
}

#: The intentions that a T5 learns last: two sizes, lists, and every question that is answered by yes or no.
HARD = (
    "size",
    "inventory",
    "some listed",
    "colors",
    "count",
    "nothing there",
    *(name for name in INTENTIONS if name.endswith(" check")),
)

#: Kinds of questions that `T5Task` asks late: two things or two words are compared, or the answer is not in the scene.
CHOICES: dict[str, Callable[[Scene, Random], Asked]] = {
    "category choice": _category_choice,
    "comparison": _comparison,
    "wrong color": _wrong_color,
    "not shown": _not_shown,
}


def ask(scene: Scene, rng: Random, intention: str) -> Question | None:
    """A question of this intention in one of its wordings, or None if the scene allows none."""
    made = CHOICES.get(intention) or INTENTIONS[intention][0]
    asked = made(scene, rng)
    return asked and Question(intention, as_typed(rng, asked[0]), asked[1])


def ask_anything(scene: Scene, rng: Random, among: Sequence[str] = tuple(INTENTIONS)) -> Question:
    """A question of any intention, each as often as `INTENTIONS` says."""
    weights = [1 if name in CHOICES else INTENTIONS[name][1] for name in among]
    draw = rng.random() * sum(weights)
    chosen = next(name for name, total in zip(among, accumulate(weights), strict=True) if draw < total)
    return ask(scene, rng, chosen) or ask(scene, rng, "inventory")


def follow_up(scene: Scene, rng: Random) -> list[Question] | None:
    """A question that names a thing, and one that says "it"; None where no words fit one thing alone."""
    found = refer(scene, rng, "kind") if rng.random() < 0.5 else refer(scene, rng)
    if found is None:
        return None
    ref, thing = found
    facts = FACTS[thing.kind]
    if thing.kind not in ref.split() and rng.random() < 0.7:
        first = wording(rng, "what", ref=ref), thing.kind
    else:
        noun = ref.removeprefix("the ")
        asked = wording(rng, "existence", a=with_article(noun), singular=noun, plural=noun)
        first = pick(rng, ((asked, "yes"), (wording(rng, "position", ref=ref), thing.position)))
    wrong, size = another(rng, COLORS, thing.color), pick(rng, SIZES)
    shown = thing.color if rng.random() < 0.5 else wrong
    second = pick(
        rng,
        (
            (wording(rng, "color", ref="it"), thing.color),
            (wording(rng, "color check", ref="it", color=shown), yes_no(shown == thing.color)),
            (wording(rng, "size", ref="it", large=pick(rng, ("large", "big")), small="small"), thing.size),
            (wording(rng, "size check", ref="it", size=other_word(rng, size)), yes_no(size == thing.size)),
            (wording(rng, "position", ref="it"), thing.position),
            (wording(rng, "can do" if facts.agent else "use", ref="it"), facts.use),
            (wording(rng, "home", ref="it"), facts.home),
            (wording(rng, "part", ref="it"), facts.part),
            (pick(rng, ("who made it", "whose is it", "how old is it", "why is it there", "what is in it")), NOT_SHOWN),
        ),
    )
    return [Question("follow-up", as_typed(rng, text), answer) for text, answer in (first, second)]


def short_follow_up(scene: Scene, rng: Random) -> list[Question] | None:
    """A question, and the same in short about something else: "and the boat?"; None where the scene allows none."""
    by = pick(rng, ("attribute", "attribute", "existence", "count", "position"))
    if by in ("existence", "count"):
        (singular, several, count), (other, others, number) = _counted(scene, rng), _counted(scene, rng)
        before = wording(rng, by, a=a(singular), singular=singular, plural=several)
        answers = (NUMBERS[count], NUMBERS[number]) if by == "count" else (yes_no(count > 0), yes_no(number > 0))
        asked = others if by == "count" else pick(rng, (a(other), f"any {others}"))
    elif len(scene.things) < 2:
        return None
    elif by == "position":
        first, second = shuffled(rng, scene.things)[:2]
        where, asked = (somewhere(rng, pick(rng, positions(scene, thing))) for thing in (first, second))
        before, answers = wording(rng, "what by position", where=where), (first.kind, second.kind)
    else:
        name = pick(rng, ("color", "size", "position", "kind"))
        found = [refer(scene, rng, name) for _ in range(4)]
        if None in found or all(thing == found[0][1] for _, thing in found):
            return None
        asked, other = next((ref, thing) for ref, thing in found if thing != found[0][1])
        before = wording(rng, "what" if name == "kind" else name, ref=found[0][0], large="large", small="small")
        answers = getattr(found[0][1], name), getattr(other, name)
    texts = before, wording(rng, "short follow-up", asked=asked)
    return [
        Question("short follow-up", as_typed(rng, text), answer) for text, answer in zip(texts, answers, strict=True)
    ]
