"""Questions in which things are compared: the largest, the higher of two, whether all are of one color."""

from __future__ import annotations

from random import Random

from ..noun_phrases import FORMS, fits_one, other_word, plural_of, refer, words_for
from ..scene import COLORS, SIZES, Scene, Thing, pick, shuffled
from ..wordings import UNKNOWN, wording
from ..words import RELATIONS, holds, in_reading_order, reading_order
from .base import Asked, another, listed, listed_others, repeated, yes_no
from .positions import OTHER_RELATIONS

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


def superlative(scene: Scene, rng: Random) -> Asked:
    """The largest thing, the leftmost thing; of one size all are named."""
    if len(scene.things) < 2:
        return None
    for name in shuffled(rng, SIZES if rng.random() < 0.6 else RELATIONS):
        most = _most(scene, name)
        draw = rng.random()
        if name in SIZES and not most and draw < 0.5:  # the smallest of large things
            attribute = f"the {pick(rng, SUPERLATIVES[name])}"
            said = wording(rng, "superlative", attribute=attribute, unknown=UNKNOWN)
            return said, f"all are {another(rng, SIZES, name)}"
        if len(most) > 1 and draw < 0.4:
            attribute = f"the {pick(rng, SUPERLATIVES[name])}"
            answer = f"all are {name}" if len(most) == len(scene.things) else listed(in_reading_order(most))
            return wording(rng, "superlative", attribute=attribute, unknown=UNKNOWN), answer
        if len(most) == 1:
            ref = f"the {pick(rng, SUPERLATIVES[name])} {pick(rng, ('thing', 'object', 'item', 'one'))}"
            if draw < 0.5:
                attribute = pick(rng, (*(f"the {word}" for word in SUPERLATIVES[name]), *COMPARATIVE_OF.get(name, ())))
                asked = pick(rng, ("superlative", "superlative", "what by attribute"))
                return wording(rng, asked, attribute=attribute, unknown=UNKNOWN), most[0].kind
            if draw < 0.8:
                return wording(rng, "what", ref=ref), most[0].kind
            return wording(rng, "color", ref=ref), most[0].color
    return None


def superlative_check(scene: Scene, rng: Random) -> Asked:
    """Is it the largest, the leftmost of the things?"""
    found = refer(scene, rng, "size") if len(scene.things) > 1 else None
    if found is None:
        return None
    yes = rng.random() < 0.5
    holding = {name: _most(scene, name) == [found[1]] for name in (*SIZES, *RELATIONS)}
    denied = {name: found[1] not in _most(scene, name) and bool(_most(scene, name)) for name in holding}
    names = [name for name, true in (holding if yes else denied).items() if true]
    if not names:
        return None
    attribute = f"the {pick(rng, SUPERLATIVES[pick(rng, names)])}"
    return wording(rng, "superlative check", ref=found[0], attribute=attribute, unknown=UNKNOWN), yes_no(yes)


def holds_or_compares(relation: str, thing: Thing, other: Thing) -> bool:
    """Is the thing in this relation to the other, one of `RELATIONS` or of `SIZE_RELATIONS`?"""
    if relation in RELATIONS:
        return holds(relation, thing, other)
    sizes = {"larger than": ("large", "small"), "smaller than": ("small", "large")}
    return (thing.size, other.size) == sizes[relation] if relation in sizes else thing.size == other.size


def relation_check(scene: Scene, rng: Random) -> Asked:
    """Is the cat left of the boat, is it larger than the boat?"""
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


def comparison(scene: Scene, rng: Random) -> Asked:
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


def two_alike(scene: Scene, rng: Random) -> Asked:
    """Have two things the same color, size or kind?"""
    yes = rng.random() < 0.5
    pairs = [
        (name, form_of, form_of_other, one, other)
        for name in ("color", "size", "kind")
        for one in scene.things
        for other in scene.things
        if one != other and (getattr(one, name) == getattr(other, name)) == yes
        for form_of in FORMS[2:10]
        for form_of_other in FORMS[2:10]
        if name not in form_of + form_of_other
        and fits_one(scene, one, form_of)
        and fits_one(scene, other, form_of_other)
    ]
    if not pairs:
        return None
    name, form_of, form_of_other, one, other = pick(rng, pairs)
    first, second = ("the " + words_for(scene, rng, t, f) for t, f in ((one, form_of), (other, form_of_other)))
    if rng.random() < 0.25:
        return wording(rng, "two different", first=first, second=second, quality=name), yes_no(not yes)
    return wording(rng, "two alike", first=first, second=second, quality=name), yes_no(yes)


def one_of_them(scene: Scene, rng: Random) -> Asked:
    """Which of several boats is higher, or the largest: the red one."""
    kinds = repeated([t.kind for t in scene.things])
    if not kinds:
        return None
    kind = pick(rng, kinds)
    alike = [t for t in scene.things if t.kind == kind]
    names = (*RELATIONS, "larger than", "smaller than")
    most = [
        (name, thing)
        for name in names
        for thing in alike
        if all(holds_or_compares(name, thing, other) for other in alike if other is not thing)
        and sum(other.color == thing.color for other in alike) == 1
    ]
    if not most:
        return None
    name, thing = pick(rng, most)
    superlatives = SUPERLATIVES[{"larger than": "large", "smaller than": "small"}.get(name, name)]
    more = pick(rng, COMPARATIVES[name]) if rng.random() < 0.5 else f"the {pick(rng, superlatives)}"
    noun = other_word(rng, thing.kind)
    said = wording(rng, "which of them compared", singular=noun, plural=plural_of(noun), more=more)
    return said, thing.color if said.startswith("what color") else f"the {thing.color} one"


def any_alike(scene: Scene, rng: Random) -> Asked:
    """Are any two things of one color, kind or size?"""
    if len(scene.things) < 2:
        return None
    name, yes = pick(rng, ("color", "color", "kind", "kind", "size")), rng.random() < 0.33  # most scenes have two
    if bool(repeated([getattr(t, name) for t in scene.things])) != yes:
        return None
    return wording(rng, "any alike", quality=_quality(rng, name)), yes_no(yes)


def alike_to(scene: Scene, rng: Random) -> Asked:
    """What has the same color as the boat, what else is red?"""
    name = pick(rng, ("color", "color", "color", "size", "kind"))
    found = refer(scene, rng, name if rng.random() < 0.7 else "") if len(scene.things) > 1 else None
    if found is None:
        return None
    ref, thing = found
    value = getattr(thing, name)
    others = [t for t in reading_order(scene) if t is not thing and getattr(t, name) == value]
    if rng.random() < 0.3:
        return wording(rng, "something alike to", quality=_quality(rng, name), ref=ref), yes_no(bool(others))
    if name != "kind" and rng.random() < 0.4:
        return wording(rng, "what else", attribute=other_word(rng, value), ref=ref), listed_others(others)
    return wording(rng, "alike to", quality=_quality(rng, name), ref=ref), listed_others(others)


def _quality(rng: Random, name: str) -> str:
    """The name of an attribute, as people say it."""
    return pick(rng, ("kind", "kind", "sort", "type")) if name == "kind" else name


def group_check(scene: Scene, rng: Random) -> Asked:
    """Are all the cats red?"""
    # things of a kind are seldom of one color: "yes" is tried for more often
    return _of_a_group(scene, rng, same=False, name=pick(rng, ("color", "color", "size")), yes=rng.random() < 0.8)


def group_alike(scene: Scene, rng: Random) -> Asked:
    """Have all the cats the same color, the same size?"""
    name = pick(rng, ("color", "size"))
    return _of_a_group(scene, rng, same=True, name=name, yes=rng.random() < (0.75 if name == "color" else 0.58))


def _of_a_group(scene: Scene, rng: Random, same: bool, name: str, yes: bool) -> Asked:
    several: dict[str, list[Thing]] = {}
    for thing in scene.things:
        several.setdefault(thing.kind, []).append(thing)
        several.setdefault(thing.category, []).append(thing)
    alike = sorted(
        noun
        for noun, things in several.items()
        if len(things) > 1 and (len({getattr(t, name) for t in things}) == 1) == yes
    )
    if not alike:
        return None
    noun = pick(rng, alike)
    values = sorted({getattr(t, name) for t in several[noun]})
    said = other_word(rng, noun)
    if same:
        return wording(rng, "group same check", plural=plural_of(said), quality=name), yes_no(yes)
    value = pick(rng, values)
    if yes and rng.random() < 0.3:
        value, yes = another(rng, COLORS if name == "color" else SIZES, value), False
    all_of_them = "both" if len(several[noun]) == 2 and rng.random() < 0.5 else "all"
    slots = dict(plural=plural_of(said), singular=said, all=all_of_them, attribute=other_word(rng, value))
    return wording(rng, "group check", **slots), yes_no(yes)


def all_check(scene: Scene, rng: Random) -> Asked:
    """Are all things of one color, size or kind?"""
    if len(scene.things) < 2:
        return None
    name, yes = pick(rng, ("color", "color", "size", "kind")), rng.random() < 0.75
    values = {getattr(thing, name) for thing in scene.things}
    if (len(values) == 1) != yes:  # things are seldom all alike: "yes" is tried for more often
        return None
    if len(scene.things) == 2 and name != "kind" and rng.random() < 0.5:
        attribute = other_word(rng, pick(rng, sorted(values)))
        return wording(rng, "both check", attribute=attribute, unknown=UNKNOWN), yes_no(yes)
    if name == "kind" or rng.random() < 0.4:
        return wording(rng, "same check", quality=name), yes_no(yes)
    return wording(rng, "all check", attribute=other_word(rng, pick(rng, sorted(values)))), yes_no(yes)


def all_of_them(scene: Scene, rng: Random) -> Asked:
    """Are all things toys, are those all boats?"""
    name, yes = pick(rng, ("category", "category", "kind")), rng.random() < 0.7
    values = sorted({getattr(t, name) for t in scene.things})
    if (len(values) == 1) != yes or len(scene.things) < 2:
        return None
    several = plural_of(other_word(rng, pick(rng, values)))
    return wording(rng, "all of them", plural=several, unknown=UNKNOWN), yes_no(yes)
