"""The judge of answers to natural questions: lenient in form and strict in content.

Notes:

* An answer is checked against the scene, not against one string: "yes, there are two" is as right as "yes" if there
  are two, and wrong if there are three.
* Whatever else the answer says must be true too. A list with a thing too many, too few or twice is wrong.
* An answer that says it does not know a word is wrong, and is counted as refused.

Notebook: 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import permutations

from blip2_lab.evaluation.natural.reading import (
    Claims,
    Mention,
    Statement,
    cell,
    count,
    fits,
    position_holds,
    read,
    tokenize,
)
from blip2_lab.evaluation.natural.words import (
    COLOR_WORDS,
    EITHER_NUMBER,
    NOUN_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    TIME_WORDS,
)
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import CATEGORIES, KINDS, Scene, Thing
from blip2_lab.picturebook.words import holds

#: More words for the places and times, where the question asks for just that.
PLACE_SYNONYMS = {"seaside": "beach", "shore": "beach", "coast": "beach", "grass": "meadow", "field": "meadow"}
PLACE_SYNONYMS |= {"grassland": "meadow", "road": "street", "town": "street", "city": "street", "snowy": "snow"}
TIME_SYNONYMS = {"dark": "night", "light": "day", "sunny": "day"}


@dataclass(frozen=True)
class About:
    """What a question is about, in words: a `noun` (kind, category, "thing", or a thing that no scene shows)."""

    noun: str = "thing"
    color: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class NaturalQuestion:
    """A question as a visitor types it, with what a judge needs.

    scene     number of the scene in the book
    group     what sort of question it is, one of questions.GROUPS
    judge     how an answer is judged, see `is_right`
    truth     a right answer in plain words
    wording   the words of the question with its blanks: "what color is {the}"
    thing     number of the thing in the scene that is asked about, if it is one thing
    about     what is counted or looked for, if that is asked
    asked     the value a yes-or-no question asks about: "red" in "is the boat red?"
    """

    scene: int
    group: str
    text: str
    judge: str
    truth: str
    wording: str
    thing: int | None = None
    about: About | None = None
    asked: str = ""


def refuses(answer: str) -> bool:
    """Does the answer say that the model does not know a word?"""
    return bool(re.search(r"\b(do not|don't|do n't) (know|understand) (the|this|that|these) words?\b", answer.lower()))


def is_right(question: NaturalQuestion, answer: str, scene: Scene) -> bool:
    """Is the answer true of the scene, and an answer to the question?"""
    if refuses(answer) or not tokenize(answer):
        return False
    thing = None if question.thing is None else scene.things[question.thing]
    said = read(answer)
    match question.judge:
        case "list":
            return _lists_the_things(said, scene)
        case "number":
            return _gives_the_number(said, question.about, scene)
        case "existence":
            return _says_whether_it_exists(said, question, scene)
        case "yes or no":
            return _says_yes_or_no(said, question, thing, scene)
        case "color":
            return _names(said, "colors", question.truth, thing, scene)
        case "size":
            return _names(said, "sizes", question.truth, thing, scene)
        case "kind":
            return _names_the_noun(said, question.truth, KINDS, thing, scene)
        case "category":
            return _names_the_noun(said, question.truth, tuple(CATEGORIES), thing, scene)
        case "position" | "where" | "side":
            return _locates(said, question, thing, scene)
        case "place":
            return _names_the_setting(read(answer, PLACE_SYNONYMS), "places", question.truth, scene)
        case "time":
            return _names_the_setting(read(answer, TIME_SYNONYMS), "times", question.truth, scene)
        case "use" | "home" | "part":
            return _knows_the_fact(answer, question.judge, question.truth, thing)
        case "absence":
            return _denies(said, question.about, scene)
    raise ValueError(f"there is no judge {question.judge!r}")


# ------------------------------------------------------------------------------------------- true of a thing or a scene


def setting_holds(said: Statement, scene: Scene) -> bool:
    """Are the places and times that were stated the scene's, and those that were denied not?"""
    place, time = {scene.place}, {scene.time}
    stated, denied = said.stated, said.denied
    return stated.places <= place and stated.times <= time and not (denied.places & place or denied.times & time)


def relation_holds(relation: str, thing: Thing, reference: Mention, scene: Scene) -> bool:
    """Is the thing left of, right of, above or below something that the reference fits? "near" is never sure."""
    others = [other for other in scene.things if other != thing and fits(reference, other)]
    return relation != "near" and any(holds(relation, thing, other) for other in others)


def claims_hold(said: Statement, thing: Thing, scene: Scene) -> bool:
    """Is all that was said true, when "it" is the thing?"""
    stated, denied = said.stated, said.denied
    loose = Mention("", colors=stated.colors, sizes=stated.sizes, position=stated.position)
    wrongly_denied = thing.color in denied.colors or thing.size in denied.sizes
    wrongly_denied |= bool(denied.position) and position_holds(denied.position, thing)
    return (
        fits(loose, thing)
        and not wrongly_denied
        and all(_said_of(mention, thing, scene) for mention in said.mentions)
        and all(relation_holds(relation, thing, reference, scene) for relation, reference in said.relations)
        and set(said.numbers) <= {1}
        and setting_holds(said, scene)
    )


def _said_of(mention: Mention, thing: Thing, scene: Scene) -> bool:
    """Is a noun phrase true, when it speaks of the one thing?"""
    if mention.denied:
        return not fits(mention, thing)
    one = mention.number in (None, 1) and (not mention.several or mention.noun in EITHER_NUMBER)
    related = mention.relation is None or relation_holds(mention.relation[0], thing, mention.relation[1], scene)
    return one and related and fits(mention, thing)


def is_true(mention: Mention, scene: Scene) -> bool:
    """Is the noun phrase true of the scene? "a boat" is true of two boats; "one boat" is not, nor "boats" of one."""
    there = count(mention, scene)
    if mention.relation is not None:
        relation, reference = mention.relation
        fitting = [thing for thing in scene.things if fits(mention, thing)]
        there = sum(relation_holds(relation, thing, reference, scene) for thing in fitting)
    if mention.number is not None and not mention.weak:
        return there == mention.number
    return there >= (2 if mention.several and mention.noun not in EITHER_NUMBER else 1)


def narrower(mention: Mention, about: About) -> bool:
    """Does the phrase speak of what the question is about: "boat" of "animal" not, "cat" and "thing" yes?"""
    nouns = {about.noun, "thing", ""} | set(CATEGORIES.get(about.noun, ()))
    same = mention.noun in nouns or about.noun == "thing"
    color = about.color is None or mention.colors <= {about.color}
    return same and color and (about.size is None or mention.sizes <= {about.size})


def _filled(mention: Mention, about: About) -> Mention:
    """The phrase with what it leaves to the question: "two" after "how many red boats" is two red boats."""
    return replace(
        mention,
        noun=about.noun if mention.noun in ("thing", "") else mention.noun,
        colors=mention.colors or ({about.color} if about.color else set()),
        sizes=mention.sizes or ({about.size} if about.size else set()),
    )


def asked_for(about: About) -> Mention:
    """What a question is about, as a noun phrase."""
    return _filled(Mention(""), about)


# --------------------------------------------------------------------------------------------------------- the judges


def _lists_the_things(said: Statement, scene: Scene) -> bool:
    """Every thing once with its color, and nothing that is not there."""
    listed = [m for m in said.mentions if not m.denied and m.noun not in ("thing", *CATEGORIES, "sun", "moon")]
    listed = [m for m in listed if m.noun not in ("star", "cloud")]
    others = [m for m in said.mentions if not any(m is other for other in listed)]
    listed += [m for m in said.references if not m.definite]
    stated = said.stated
    if said.unknown or stated.colors or stated.sizes or said.relations or "no" in said.says:
        return False
    if set(said.numbers) - {len(scene.things)} or not all(is_true(m, scene) for m in others):
        return False
    if not setting_holds(said, scene) or not all(mention.colors for mention in listed):
        return False
    return any(covers(listed, list(order), scene) for order in permutations(scene.things))


def covers(listed: list[Mention], things: list[Thing], scene: Scene) -> bool:
    """Do the phrases take the things in this order, none left over?"""
    for mention in listed:
        number = mention.number
        if number is None:
            several = mention.several and mention.noun not in EITHER_NUMBER
            least = 2 if several and len(mention.colors) == 1 and not _shares_a_noun(mention, listed) else 1
            number = max(least, sum(fits(mention, thing) for thing in things)) if mention.several else 1
        taken, things = things[:number], things[number:]
        if len(taken) < number or not all(_fits_in(mention, thing, scene) for thing in taken):
            return False
    return not things


def _shares_a_noun(mention: Mention, listed: list[Mention]) -> bool:
    """ "red and blue boats": one noun for two colors, so that either may be one boat."""
    return any(other is not mention and other.noun == mention.noun and other.several for other in listed)


def _fits_in(mention: Mention, thing: Thing, scene: Scene) -> bool:
    related = mention.relation is None or relation_holds(mention.relation[0], thing, mention.relation[1], scene)
    return related and fits(mention, thing)


def _gives_the_number(said: Statement, about: About, scene: Scene) -> bool:
    """One number, or parts that add up to it."""
    truth = count(asked_for(about), scene)
    values = list(said.numbers)
    for mention in said.mentions:
        if not narrower(mention, about):
            return False
        filled = _filled(mention, about)
        if mention.number is not None:
            values.append(mention.number)
            if count(filled, scene) != mention.number:
                return False
        elif not is_true(filled, scene):
            return False
    stated = said.stated
    loose = Mention("", colors=stated.colors, sizes=stated.sizes, position=stated.position)
    if not setting_holds(said, scene) or (not no_claims(stated) and count(_filled(loose, about), scene) != truth):
        return False
    if not values or ("no" in said.says and truth > 0):
        return False
    parts_add_up = truth in (sum(values), values[0]) and sum(values) in (truth, 2 * truth)
    return set(values) == {truth} or parts_add_up


def no_claims(claims: Claims) -> bool:
    return not (claims.colors or claims.sizes or claims.position)


def polarity(said: Statement, implied: set[str]) -> str:
    """ "yes" or "no" as the answer says it or implies it; "" if it says neither, or both."""
    both = said.says | implied
    return both.pop() if len(both) == 1 else ""


def _says_whether_it_exists(said: Statement, question: NaturalQuestion, scene: Scene) -> bool:
    """Yes or no, and nothing false beside it: numbers count what was asked for."""
    about, there = question.about, count(asked_for(question.about), scene)
    implied = set()
    for mention in said.mentions:
        if mention.denied and narrower(mention, about) and not mention.position:
            broader = mention.noun in (about.noun, "", "thing")
            implied |= {"no"} if broader else set()
        elif not mention.denied and narrower(mention, about):
            named_in_full = (about.color is None or mention.colors) and mention.noun not in ("thing", "")
            implied |= {"yes"} if named_in_full else set()
        filled = _filled(mention, about) if narrower(mention, about) else mention
        if not is_true(filled, scene):
            return False
    if any(number != there for number in said.numbers):
        return False
    implied |= {"yes" if number else "no" for number in said.numbers}
    stated = said.stated
    it = Mention(about.noun, colors=stated.colors, sizes=stated.sizes, position=stated.position)
    if not no_claims(stated) and count(it, scene) == 0:
        return False
    return polarity(said, implied) == question.truth and setting_holds(said, scene)


def _says_yes_or_no(said: Statement, question: NaturalQuestion, thing: Thing | None, scene: Scene) -> bool:
    """Yes or no about one thing, or about place or time; a true value instead ("it is blue") answers too."""
    if thing is not None and not claims_hold(said, thing, scene):
        return False
    if thing is None:
        true = all(is_true(mention, scene) for mention in said.mentions)
        if not true or said.numbers or not no_claims(said.stated) or not setting_holds(said, scene):
            return False
    implied = set()
    for words, name in ((COLOR_WORDS, "colors"), (SIZE_WORDS, "sizes"), (PLACE_WORDS, "places"), (TIME_WORDS, "times")):
        if question.asked in words.values() and (values := named(said, name)):
            implied.add("yes" if question.asked in values else "no")
        if question.asked and question.asked in getattr(said.denied, name):
            implied.add("no")
    if question.asked in ("left", "right", "top", "bottom") and (values := named(said, "position")):
        implied.add("yes" if question.asked[0].upper() in values else "no")
    return polarity(said, implied) == question.truth


def named(said: Statement, name: str) -> set[str]:
    """All values of "colors", "sizes", "position", "places" or "times" that were stated."""
    values = set(getattr(said.stated, name))
    for mention in said.mentions:
        values |= getattr(mention, name, set()) if not mention.denied else set()
    return values


def _names(said: Statement, name: str, truth: str, thing: Thing, scene: Scene) -> bool:
    """Exactly one color or size, the thing's."""
    return "no" not in said.says and named(said, name) == {truth} and claims_hold(said, thing, scene)


def _names_the_noun(said: Statement, truth: str, nouns: tuple[str, ...], thing: Thing, scene: Scene) -> bool:
    """Exactly one kind or category, the thing's."""
    found = {mention.noun for mention in said.mentions if not mention.denied and mention.noun in nouns}
    return "no" not in said.says and found == {truth} and claims_hold(said, thing, scene)


def _locates(said: Statement, question: NaturalQuestion, thing: Thing, scene: Scene) -> bool:
    """The thing's cell in full; "side": left or right (top or bottom) is enough. A true relation to another thing
    answers too, and "where is the boat?" alone may be answered with the place."""
    if "no" in said.says or not claims_hold(said, thing, scene):
        return False
    position = named(said, "position")
    if question.judge == "side":
        return question.truth[0].upper() in position
    full = {"TMB"[thing.row], "LMR"[thing.column]}
    if position:
        return position in (cell(thing), full)
    related = bool(said.relations) or any(mention.relation for mention in said.mentions)
    return related or (question.judge == "where" and bool(said.stated.places))


def _names_the_setting(said: Statement, name: str, truth: str, scene: Scene) -> bool:
    """Exactly one place or time, the scene's; things that are named beside it must be there."""
    there = all(is_true(mention, scene) for mention in said.mentions)
    return named(said, name) == {truth} and there and setting_holds(said, scene) and "no" not in said.says


def stem(word: str) -> str:
    """ "hitting", "hits" -> "hit"; "driving", "drive" -> "driv"."""
    word = re.sub(r"(ing|s|e)$", "", word) if len(word) > 4 else re.sub(r"(s|e)$", "", word)
    return re.sub(r"([bdfglmnpst])\1$", r"\1", re.sub(r"e$", "", word))


def stems(text: str) -> frozenset[str]:
    """The words of a fact that carry its meaning."""
    return frozenset(stem(word) for word in tokenize(text) if word not in "a an the to in with of on at . ,".split())


def _knows_the_fact(answer: str, relation: str, truth: str, thing: Thing) -> bool:
    """The thing's fact in any form ("opening doors"), and no other kind's fact."""
    said, right = stems(answer), stems(truth)
    facts = {getattr(fact, relation) for fact in FACTS.values()} - {truth}
    others = [stems(fact) for fact in facts]
    wrong = any(other <= said and not other <= right for other in others)
    kinds = {NOUN_WORDS[token][0] for token in tokenize(answer) if token in NOUN_WORDS} & set(KINDS)
    denied = {"not", "no", "never"} & set(tokenize(answer))
    return right <= said and not wrong and kinds <= {thing.kind} and not denied


def _denies(said: Statement, about: About, scene: Scene) -> bool:
    """Says that what was asked about is not there, and claims nothing of it. A bare "no" says nothing about it."""
    denied = [m for m in said.mentions if m.denied and narrower(m, about)]
    nothing = said.numbers == [0] or ("no" in said.says and "not" in said.tokens)
    if not (denied or nothing) or "yes" in said.says:
        return False
    if any(m.denied and m.noun not in ("", "thing") and not narrower(m, about) for m in said.mentions):
        return False
    true = all(is_true(_filled(m, about) if m.noun in ("", "thing") else m, scene) for m in said.mentions)
    return true and no_claims(said.stated) and set(said.numbers) <= {0} and setting_holds(said, scene)
