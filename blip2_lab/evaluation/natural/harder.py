"""Harder questions about a scene, as a visitor types them: sides, superlatives, what is not red, what else there is.

`harder_questions` is where to begin. harder_phrases.py has the wordings, harder_judge.py judges the answers.

Notes:

* They stand beside the natural questions (questions.py), in groups and wordings of their own, and are counted apart.
* What people could disagree about is not asked, as there: facts that some would say of another kind of the scene, too
  (a turtle swims as well as a fish), and what the background may show by itself.
* "Nothing" is a right answer to some: nothing stands on the left, no thing is left over, no animal is there. At the
  top this is not asked, because sun, moon and clouds are there.

    questions = harder_questions(book, seed)
    natural_scores(ask_all(model, book, questions, asker), questions, book, GROUPS, is_right)

Paper: section 4.1. Notebook: 11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from blip2_lab.evaluation.natural import harder_phrases, phrases
from blip2_lab.evaluation.natural.harder_judge import HarderQuestion
from blip2_lab.evaluation.natural.judge import About, asked_for
from blip2_lab.evaluation.natural.questions import (
    IN_BACKGROUND,
    OPPOSITE,
    Draft,
    debatable,
    drawn_questions,
    in_words,
)
from blip2_lab.evaluation.natural.reading import count, position_holds
from blip2_lab.evaluation.natural.words import OUTSIDE, POSITION_WORDS
from blip2_lab.picturebook.scene import CATEGORIES, CATEGORY_OF, COLORS, KINDS, SIZES, Scene, Thing, pick, shuffled
from blip2_lab.picturebook.words import NUMBERS, at, holds, join, with_article

MOSTLY_YES = 0.65  #: how often "yes" is tried where many scenes allow only "no", so that in the end both are as likely
SIDE_OF = {"to the left of": "left", "to the right of": "right", "above": "top", "below": "bottom"}


@dataclass(frozen=True)
class HarderDraft(Draft):
    """A draft with what the judge needs besides: see `HarderQuestion`."""

    things: tuple[Thing, ...] = ()
    where: frozenset[str] = frozenset()
    nouns: tuple[str, ...] = ()


def harder_questions(book: Sequence[Scene], seed: int) -> list[HarderQuestion]:
    """About six questions for each scene, of as many groups, drawn anew for each scene from `seed`."""
    return drawn_questions(book, f"harder {seed}", GROUPS, _question)


def _question(number: int, scene: Scene, group: str, draft: HarderDraft, rng: Random) -> HarderQuestion:
    thing = pick(rng, phrases.THING_NOUNS)
    blanks = {"pic": phrases.picture_noun(rng), "colour": pick(rng, ("color", "color", "colour"))}
    blanks |= {"thing": thing, "things": thing + "s", "a_thing": with_article(thing)}
    text = phrases.typed(draft.wording.format(**blanks | draft.blanks), rng)
    return HarderQuestion(
        number, group, text, draft.judge, draft.truth, draft.wording,
        about=draft.about, asked=draft.asked, where=draft.where, nouns=draft.nouns,
        things=tuple(scene.things.index(thing) for thing in draft.things),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- what to ask


def _named(things: Sequence[Thing], nothing: str = "nothing") -> str:
    """The truth in plain words: "a red boat and two blue cars"."""
    return in_words(Scene(tuple(things))) if things else nothing


def _the(scene: Scene, thing: Thing, rng: Random, *without: str) -> str | None:
    phrase = phrases.describe(scene, thing, rng, frozenset(without))
    return None if phrase is None else f"the {phrase}"


def _several(scene: Scene) -> list[list[Thing]]:
    """The things of each kind of which there are several, in the scene's order."""
    kinds = dict.fromkeys(thing.kind for thing in scene.things)
    alike = [[thing for thing in scene.things if thing.kind == kind] for kind in kinds]
    return [things for things in alike if len(things) > 1]


def _side(scene: Scene, rng: Random) -> HarderDraft | None:
    """A side, a corner or the middle. One in four times nothing is there."""
    empty, places = rng.random() < 0.25, []
    for place in harder_phrases.WHERE_PHRASES:
        where = frozenset(POSITION_WORDS[word] for word in place.split())
        there = tuple(thing for thing in scene.things if position_holds(set(where), thing))
        if empty != bool(there) and not (empty and _shows_by_itself(place, scene)):
            places.append((place, where, there))
    if not places:
        return None
    place, where, there = pick(rng, places)
    blanks = {"where": pick(rng, harder_phrases.WHERE_PHRASES[place])}
    return HarderDraft(
        pick(rng, harder_phrases.SIDE), blanks, "things", _named(there), things=there, where=where, about=About()
    )


def _shows_by_itself(place: str, scene: Scene) -> bool:
    """Could the background be an answer to what is there: the sun at the top, blossoms, houses?"""
    return "top" in place or scene.place == "meadow" or (scene.place == "street" and "bottom" not in place)


def _superlative(scene: Scene, rng: Random) -> HarderDraft | None:
    """The largest where exactly one is large, the leftmost where exactly one is."""
    if len(scene.things) < 2:
        return None
    rows, columns = [thing.row for thing in scene.things], [thing.column for thing in scene.things]
    found = {size: [thing for thing in scene.things if thing.size == size] for size in SIZES}
    found["left"] = [thing for thing in scene.things if thing.column == min(columns)]
    found["right"] = [thing for thing in scene.things if thing.column == max(columns)]
    found["top"] = [thing for thing in scene.things if thing.row == min(rows)]
    found["bottom"] = [thing for thing in scene.things if thing.row == max(rows)]
    possible = [name for name, things in found.items() if len(things) == 1]
    if not possible:
        return None
    name = pick(rng, possible)
    most = harder_phrases.MOST[name]
    blanks, things = {"most": pick(rng, most)}, tuple(found[name])
    wording = pick(rng, harder_phrases.SUPERLATIVE)
    return HarderDraft(wording, blanks, "which", _named(things), things=things, asked=" ".join(most))


def _categories(scene: Scene) -> list[str]:
    """The categories that nobody would count otherwise here. A drawn cherry has two berries."""
    return [c for c in CATEGORIES if not debatable(About(c), scene)]


def _category_count(scene: Scene, rng: Random) -> HarderDraft:
    """Every number is as likely, as far as the scene allows."""
    cherries = any(thing.kind == "cherry" for thing in scene.things)
    by_number: dict[int, list[str]] = {}
    for category in _categories(scene):
        if category != "food" or not cherries:
            by_number.setdefault(count(asked_for(About(category)), scene), []).append(category)
    number = pick(rng, sorted(by_number))
    about = About(pick(rng, by_number[number]))
    blanks = {"cats": phrases.noun(about.noun, rng)[1]}
    return HarderDraft(pick(rng, harder_phrases.CATEGORY_COUNT), blanks, "number", NUMBERS[number], about=about)


def _category_which(scene: Scene, rng: Random) -> HarderDraft:
    """Which of a category: one time in three there is none."""
    empty = rng.random() < 1 / 3
    of = {c: tuple(thing for thing in scene.things if thing.category == c) for c in _categories(scene)}
    possible = [c for c, things in of.items() if empty != bool(things)] or list(of)
    category = pick(rng, possible)
    blanks = dict(zip(("cat", "cats"), phrases.noun(category, rng), strict=True))
    none = "there is no food" if category == "food" else f"there are no {category}s"
    truth = _named(of[category], none)
    wording = pick(rng, harder_phrases.CATEGORY_WHICH)
    return HarderDraft(wording, blanks, "kinds", truth, things=of[category], about=About(category))


def _of_all_people(facts: dict[str, tuple[harder_phrases.Kinds, harder_phrases.Kinds]], scene: Scene) -> list[str]:
    """The facts that are said of at most one kind of the scene, and about which nobody would disagree."""
    kinds, background = {thing.kind for thing in scene.things}, IN_BACKGROUND.get(scene.place, ())
    return [
        fact
        for fact, (sure, doubtful) in facts.items()
        if not kinds & set(doubtful) and len(kinds & set(sure)) <= 1 and not set(background) & set(sure)
    ]


def _fact(scene: Scene, rng: Random) -> HarderDraft | None:
    """Which thing can swim, is there something to drink tea with: by what it does, is used for, or has."""
    forms = (
        ("do", harder_phrases.ABLE, harder_phrases.CAN, harder_phrases.CAN_ANY),
        ("do", harder_phrases.USED, harder_phrases.USE, harder_phrases.USE_ANY),
        ("part", harder_phrases.PARTS, harder_phrases.HAS, harder_phrases.HAS_ANY),
    )
    chance = rng.random()  # a third asks which thing, a third is answered with yes, a third with no
    possible = []
    for blank, facts, which, whether in forms:
        for fact in _of_all_people(facts, scene):
            things = tuple(thing for thing in scene.things if thing.kind in facts[fact][0])
            if bool(things) == (chance < 2 / 3):
                possible.append((blank, fact, which, whether, things))
    if not possible:
        return None
    blank, fact, which, whether, things = pick(rng, possible)
    if chance < 1 / 3:
        return HarderDraft(pick(rng, which), {blank: fact}, "kinds", _named(things), things=things, asked=fact)
    truth = "yes" if things else "no"
    return HarderDraft(pick(rng, whether), {blank: fact}, "any", truth, things=things, asked=fact)


def _purpose(scene: Scene, rng: Random) -> HarderDraft | None:
    """Is there something to eat, and what is there to eat?"""
    kinds, background = {thing.kind for thing in scene.things}, IN_BACKGROUND.get(scene.place, ())
    yes, possible = rng.random() < MOSTLY_YES, []
    for purpose, (sure, doubtful) in harder_phrases.PURPOSES.items():
        if bool(kinds & set(sure)) == yes and not kinds & set(doubtful) and not set(background) & set(sure):
            possible.append(purpose)
    if not possible:
        return None
    purpose = pick(rng, possible)
    sure = harder_phrases.PURPOSES[purpose][0]
    things = tuple(thing for thing in scene.things if thing.kind in sure)
    about = About(CATEGORY_OF[sure[0]] if len(sure) > 1 else "thing")  # "there is no food" denies, too
    if rng.random() < 0.6:
        wording, truth = pick(rng, harder_phrases.PURPOSE_ANY), "yes" if yes else "no"
        return HarderDraft(wording, {"do": purpose}, "any", truth, things=things, asked=purpose, about=about)
    wording, truth = pick(rng, harder_phrases.PURPOSE_WHICH), _named(things)
    return HarderDraft(wording, {"do": purpose}, "kinds", truth, things=things, asked=purpose, about=about)


def _other(scene: Scene, rng: Random) -> HarderDraft | None:
    """All things but one. Where there is but one, this is asked less often."""
    if len(scene.things) == 1 and rng.random() < 0.6:
        return None
    for thing in shuffled(rng, scene.things):
        if the := _the(scene, thing, rng):
            rest = tuple(other for other in scene.things if other != thing)
            wordings = harder_phrases.OTHER if rest else harder_phrases.OTHER[: harder_phrases.FOR_THINGS]
            return HarderDraft(pick(rng, wordings), {"the": the}, "things", _named(rest), things=rest, about=About())
    return None


def _negation(scene: Scene, rng: Random) -> HarderDraft | None:
    """Which things are not red, not small, not an animal? Something of the scene is."""
    if len(scene.things) < 2:
        return None
    what, thing = pick(rng, ("color", "color", "size", "kind", "category")), pick(rng, scene.things)
    value = getattr(thing, what)
    if value in ("yellow", "food") or (what == "category" and debatable(About(value), scene)):
        return None  # the sun and the moon are yellowish
    rest = tuple(other for other in scene.things if getattr(other, what) != value)
    if not rest and rng.random() < 0.5:
        return None
    if what == "color":
        blank = phrases.color_adjective(value, rng)
    elif what == "size":
        blank = phrases.size_adjective(value, rng)
    else:
        blank = with_article(phrases.noun(value, rng)[0])
    wordings = harder_phrases.NEGATION if rest else harder_phrases.NEGATION[: harder_phrases.FOR_THINGS]
    wording, blanks = pick(rng, wordings), {"value": blank}
    return HarderDraft(wording, blanks, "things", _named(rest), things=rest, asked=value, about=About())


def _two(scene: Scene, rng: Random) -> HarderDraft:
    """A cat and a dog, a cat or a dog. Yes and no are as likely."""
    there = shuffled(rng, list(dict.fromkeys(thing.kind for thing in scene.things)))
    absent = shuffled(rng, [noun for noun in (*KINDS, *OUTSIDE) if noun not in there])
    absent = [noun for noun in absent if not debatable(About(noun), scene)]
    yes, chance = rng.random() < 0.5, rng.random()
    either = chance < 0.5 or (yes and len(there) == 1)
    if yes:
        two = [there[0], absent[0]] if either and (len(there) == 1 or chance < 0.4) else there[:2]
    else:
        two = absent[:2] if either or chance > 0.9 else [there[0], absent[0]]
    nouns = shuffled(rng, two)
    blanks = dict(zip(("a", "b"), (with_article(phrases.noun(noun, rng)[0]) for noun in nouns), strict=True))
    wordings = harder_phrases.EITHER if either else harder_phrases.BOTH
    judge, truth = "either" if either else "both", "yes" if yes else "no"
    return HarderDraft(pick(rng, wordings), blanks, judge, truth, nouns=tuple(nouns))


def _all(scene: Scene, rng: Random) -> HarderDraft | None:
    """Are all things red, are both cats small, do two things have the same color?"""
    if len(scene.things) < 2:
        return None
    if rng.random() < 0.4:
        return _same(scene, rng)
    yes, possible = rng.random() < MOSTLY_YES, []
    for things in (list(scene.things), *_several(scene)):
        for what, all_values in (("color", COLORS), ("size", SIZES)):
            values = list(dict.fromkeys(getattr(thing, what) for thing in things))
            other = [value for value in all_values if value not in values]
            if not yes or len(values) == 1:
                possible.append((things, what, values if yes or len(values) > 1 else other))
    if not possible:
        return None
    things, what, values = pick(rng, possible)
    value = pick(rng, values)
    everything = len(things) == len(scene.things)
    one, several = phrases.noun("thing" if everything else things[0].kind, rng)
    adjective = phrases.color_adjective(value, rng) if what == "color" else phrases.size_adjective(value, rng)
    wordings = harder_phrases.BOTH_ARE if len(things) == 2 and rng.random() < 0.5 else harder_phrases.ALL
    blanks, truth = {"one": one, "several": several, "value": adjective}, "yes" if yes else "no"
    return HarderDraft(pick(rng, wordings), blanks, "all", truth, things=tuple(things), asked=value)


def _same(scene: Scene, rng: Random) -> HarderDraft | None:
    """Do the cat and the dog have the same color?"""
    yes = rng.random() < MOSTLY_YES
    for pair in shuffled(rng, list(combinations(scene.things, 2))):
        phrase = [_the(scene, thing, rng, "color") for thing in pair]
        if (pair[0].color == pair[1].color) == yes and None not in phrase:
            first, second = shuffled(rng, phrase)
            blanks, truth = {"the": first, "other": second}, "yes" if yes else "no"
            return HarderDraft(pick(rng, harder_phrases.SAME), blanks, "same", truth, things=pair)
    return None


def _group(scene: Scene, rng: Random) -> HarderDraft | None:
    """The colors or the positions of several things of a kind."""
    if not (groups := _several(scene)):
        return None
    things = tuple(pick(rng, groups))
    blanks = {"several": phrases.noun(things[0].kind, rng)[1]}
    if rng.random() < 0.5:
        truth = join(list(dict.fromkeys(thing.color for thing in things)))
        return HarderDraft(pick(rng, harder_phrases.GROUP_COLOR), blanks, "colors", truth, things=things)
    truth = join([f"one {at(thing.position)}" for thing in things])
    wordings = harder_phrases.GROUP_WHERE + harder_phrases.GROUP_POSITION
    wording = pick(rng, wordings)
    asked = "where" if wording in harder_phrases.GROUP_WHERE else ""
    return HarderDraft(wording, blanks, "positions", truth, things=things, asked=asked)


def _next_to(scene: Scene, rng: Random) -> HarderDraft | None:
    """Of exactly two things: what is next to the cat, which one is above the other?"""
    if len(scene.things) != 2:
        return None
    thing, other = shuffled(rng, scene.things)
    first, second = shuffled(rng, (_neighbor, _which_of_two))
    return first(scene, thing, other, rng) or second(scene, thing, other, rng)


def _neighbor(scene: Scene, thing: Thing, other: Thing, rng: Random) -> HarderDraft | None:
    """Only of things in cells that touch: nobody would call the others neighbors."""
    near = abs(thing.row - other.row) <= 1 and abs(thing.column - other.column) <= 1
    the = _the(scene, other, rng)
    if not near or the is None:
        return None
    wording = pick(rng, harder_phrases.NEXT_TO)
    return HarderDraft(wording, {"the": the}, "which", _named([thing]), things=(thing,), about=About())


def _which_of_two(scene: Scene, thing: Thing, other: Thing, rng: Random) -> HarderDraft | None:
    """Only of different kinds: "the cat" would not say which of two cats."""
    true = [relation for relation in OPPOSITE if holds(relation, thing, other)]
    if not true or thing.kind == other.kind:
        return None
    relation = pick(rng, true)
    blanks = {"rel": pick(rng, phrases.RELATION_PHRASES[relation]), "more": phrases.MORE[relation]}
    wording, most = pick(rng, harder_phrases.WHICH_OF_TWO), " ".join(harder_phrases.MOST[SIDE_OF[relation]])
    return HarderDraft(wording, blanks, "which", _named([thing]), things=(thing,), asked=most)


def _sentence(scene: Scene, rng: Random) -> HarderDraft:
    return HarderDraft(pick(rng, harder_phrases.SENTENCE), {}, "sentence", _named(scene.things))


GROUPS: dict[str, Callable[[Scene, Random], HarderDraft | None]] = {
    "side": _side,
    "superlative": _superlative,
    "category count": _category_count,
    "category which": _category_which,
    "by use": _fact,
    "purpose": _purpose,
    "other things": _other,
    "negation": _negation,
    "two things": _two,
    "of all": _all,
    "group": _group,
    "next to": _next_to,
    "one sentence": _sentence,
}
