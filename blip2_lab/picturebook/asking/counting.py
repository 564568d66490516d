"""Questions about how many there are, and whether there is one at all."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..noun_phrases import a, noun_phrase, other_word, plural_of, somewhere
from ..scene import CATEGORIES, COLORS, KINDS, SIZES, Scene, pick, shuffled
from ..wordings import ABSENT, SCENERY, UNKNOWN, wording
from ..words import NUMBERS
from .base import VALUES, Asked, another, repeated, yes_no
from .positions import CORNERS, at_place, sides

#: What a group of things is told by.
GROUPS = ("all", "kind", "kind", "kind", "color", "both", "category", "category", "size", "absent")


def counted(scene: Scene, rng: Random, by: str = "") -> tuple[str, str, int]:
    """A group of things in the singular and the plural, and how many of them there are; `by`: one of `GROUPS`."""
    by = by or pick(rng, GROUPS)
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
        value = tuple(pick(rng, VALUES[name]) for name in names)
    count, thing = counts.get(value, 0), pick(rng, ("thing", "thing", "object", "item"))
    noun = other_word(rng, value[-1]) if by in ("kind", "both", "category") else thing
    said = [other_word(rng, word) for word in (value if by in ("color", "size") else value[:-1])]
    return " ".join([*said, noun]), " ".join([*said, plural_of(noun)]), count


def count(scene: Scene, rng: Random) -> Asked:
    """How many red boats are there? Also none."""
    if rng.random() < 0.05:
        return wording(rng, "color count"), NUMBERS[len({t.color for t in scene.things})]
    if rng.random() < 0.1:
        name = pick(rng, ("color", "size"))
        value = getattr(pick(rng, scene.things), name) if rng.random() < 0.8 else pick(rng, COLORS)
        number = NUMBERS[sum(value in (t.color, t.size) for t in scene.things)]
        return wording(rng, "count attribute", attribute=other_word(rng, value), unknown=UNKNOWN), number
    if rng.random() < 0.04:
        return wording(rng, "count all", unknown=UNKNOWN), NUMBERS[len(scene.things)]
    singular, several, count = counted(scene, rng)
    return wording(rng, "count", plural=several, a=a(singular), singular=singular), NUMBERS[count]


def count_check(scene: Scene, rng: Random) -> Asked:
    """Are there two boats, is there more than one?"""
    singular, several, count = counted(scene, rng)
    if rng.random() < 0.4:
        return wording(rng, "more than one", plural=several, singular=singular), yes_no(count > 1)
    number = count if rng.random() < 0.5 else pick(rng, [n for n in (1, 2, 3, 4) if n != count])
    if number < 2:
        return f"is there {pick(rng, ('only one', 'exactly one', 'just one'))} {singular}", yes_no(count == 1)
    return wording(rng, "count check", plural=several, number=NUMBERS[number]), yes_no(count == number)


def existence(scene: Scene, rng: Random) -> Asked:
    """Is there a boat? Of what is not there some is nearly there: the boat in another color."""
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


def something(scene: Scene, rng: Random) -> Asked:
    """Is there something red, or something on the left?"""
    thing, yes = pick(rng, scene.things), rng.random() < 0.5
    if rng.random() < 0.25:
        taken = sides(scene.things) | {place: bool(at_place(scene.things, place)) for place in CORNERS}
        where = [place for place, is_taken in taken.items() if is_taken == yes]
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


def two_there(scene: Scene, rng: Random) -> Asked:
    """Is there a cat and a dog, or one of them?"""
    joint = pick(rng, ("and", "or"))
    wanted = pick(rng, ((True, True), (True, False), (False, True), (False, False)))
    present = sorted({t.kind for t in scene.things})
    absent = [kind for kind in KINDS if kind not in present] + list(ABSENT[:40])
    kinds = [pick(rng, present if there else absent) for there in wanted]
    if kinds[0] == kinds[1]:
        return None
    first, second = (a(other_word(rng, kind)) for kind in kinds)
    true = all(wanted) if joint == "and" else any(wanted)
    return wording(rng, "two there", first=first, second=second, joint=joint), yes_no(true)


def count_among(scene: Scene, rng: Random) -> Asked:
    """How many of several boats are red, large, or not red?"""
    several = repeated([t.kind for t in scene.things])
    if not several:
        return None
    kind, name = pick(rng, several), pick(rng, ("color", "color", "size"))
    things = [t for t in scene.things if t.kind == kind]
    value = getattr(pick(rng, things), name)
    number = sum(getattr(t, name) == value for t in things)
    noun, said = other_word(rng, kind), other_word(rng, value)
    draw = rng.random()
    if draw < 0.5:
        singular, plural = f"{said} {noun}", f"{said} {plural_of(noun)}"
        return wording(rng, "count", plural=plural, a=a(singular), singular=singular), NUMBERS[number]
    if draw < 0.8:
        return wording(rng, "count among", plural=plural_of(noun), attribute=said), NUMBERS[number]
    return wording(rng, "count among", plural=plural_of(noun), attribute=f"not {said}"), NUMBERS[len(things) - number]


def number_choice(scene: Scene, rng: Random) -> Asked:
    """Are there two boats or three?"""
    singular, several, count = counted(scene, rng, pick(rng, ("all", "kind", "kind", "category", "color", "both")))
    numbers = shuffled(rng, (count, pick(rng, [n for n in range(1, len(NUMBERS)) if n != count])))
    if not count:
        return None
    first, second = (NUMBERS[number] for number in numbers)
    return wording(rng, "number choice", plural=several, number=first, other=second), NUMBERS[count]


def more_of(scene: Scene, rng: Random) -> Asked:
    """Are there more boats than cats, or which are more?"""
    name = pick(rng, ("kind", "kind", "kind", "category", "color"))
    values = [getattr(t, name) for t in scene.things]
    present = sorted(set(values))
    if len(present) < 2:
        return None
    pairs = [(one, other) for one in present for other in present if values.count(one) > values.count(other)]
    yes, draw = rng.random() < 0.6, rng.random()
    if not pairs and draw < 0.9:  # most scenes have as many of each: they would make "no" the usual answer
        return None
    if pairs and draw < 0.85:
        more, fewer = pick(rng, pairs)
        first, second = (more, fewer) if yes else (fewer, more)
    else:
        more, (first, second) = "", shuffled(rng, present)[:2]
        yes = values.count(first) > values.count(second)
    if not more and rng.random() < 0.5:  # more boats than there are of what is not there
        absent = [value for value in VALUES[name] if value not in present]
        first, second = shuffled(rng, (first, pick(rng, absent)))
        yes = values.count(first) > values.count(second)
    one, other = _plurals(rng, name, (first, second))
    if more and rng.random() < 0.4:
        answer = more if name == "color" else plural_of(more)
        return wording(rng, "more of which", first=one, second=other), answer
    return wording(rng, "more than others", first=one, second=other), yes_no(yes)


def as_many(scene: Scene, rng: Random) -> Asked:
    """Are there as many boats as cats? Of two that are not there, there are as many."""
    name, yes = pick(rng, ("kind", "kind", "category", "color")), rng.random() < 0.7  # seldom as many
    numbers = {value: 0 for value in shuffled(rng, VALUES[name])[:1]}
    for thing in scene.things:
        value = getattr(thing, name)
        numbers[value] = numbers.get(value, 0) + 1
    pairs = [(one, other) for one in numbers for other in numbers if one != other]
    fitting = [(one, other) for one, other in pairs if (numbers[one] == numbers[other]) == yes]
    if yes and rng.random() < 0.1:
        absent = [value for value in VALUES[name] if value not in numbers]
        fitting = [tuple(shuffled(rng, absent)[:2])]
    if not fitting:
        return None
    first, second = _plurals(rng, name, pick(rng, fitting))
    return wording(rng, "as many as", first=first, second=second), yes_no(yes)


def _plurals(rng: Random, name: str, values: Sequence[str]) -> list[str]:
    """`["boats", "cats"]`, `["red things", "blue things"]`: all things with these values of an attribute."""
    noun = pick(rng, ("things", "things", "objects", "items"))
    return [f"{value} {noun}" if name == "color" else plural_of(other_word(rng, value)) for value in values]


def one_not_alike(scene: Scene, rng: Random) -> Asked:
    """Is there a boat that is not red?"""
    name, yes = pick(rng, ("color", "color", "size")), rng.random() < 0.5
    denied = sorted(
        (kind, value)
        for kind in {t.kind for t in scene.things}
        for value in {getattr(t, name) for t in scene.things if t.kind == kind}
        if any(t.kind == kind and getattr(t, name) != value for t in scene.things) == yes
    )
    others = shuffled(rng, COLORS if name == "color" else SIZES)
    if not denied and yes:  # a boat that is not of another thing's color
        thing = pick(rng, scene.things)
        denied = [(thing.kind, value) for value in others if value != getattr(thing, name)][:1]
    if not denied:
        return None
    kind, value = pick(rng, denied)
    noun = other_word(rng, kind)
    slots = dict(a=a(noun), singular=noun, plural=plural_of(noun), attribute=other_word(rng, value))
    return wording(rng, "one not alike", **slots), yes_no(yes)
