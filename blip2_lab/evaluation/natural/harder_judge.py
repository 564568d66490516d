"""The judge of answers to harder questions: as lenient in form and as strict in content as judge.py.

`is_right` is where to begin.

Notes:

* What a right answer names is a set of things (`HarderQuestion.things`). All of it must be named, and nothing else.
* Where the set is empty, the answer must deny: "nothing", "there is no animal". A bare "no" answers yes-or-no questions
  alone.
* An answer may repeat the question's words: "the fish can swim", "besides the cat there is a boat".

Notebook: 11.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import permutations

from blip2_lab.evaluation.natural import judge
from blip2_lab.evaluation.natural.judge import (
    NaturalQuestion,
    covers,
    is_true,
    named,
    no_claims,
    polarity,
    refuses,
    relation_holds,
    setting_holds,
    stems,
)
from blip2_lab.evaluation.natural.reading import Mention, Statement, cell, count, fits, position_holds, read, tokenize
from blip2_lab.evaluation.natural.words import (
    COLOR_WORDS,
    EITHER_NUMBER,
    NOUN_WORDS,
    NUMBER_WORDS,
    POSITION_WORDS,
    SIZE_WORDS,
)
from blip2_lab.picturebook.scene import CATEGORIES, KINDS, Scene, Thing

NOUN = rf"(?:(?:{'|'.join({**COLOR_WORDS, **SIZE_WORDS})}) )*(?:{'|'.join(NOUN_WORDS)})\b"
POSITION = rf"(?:on|in|at) the(?: (?:{'|'.join(POSITION_WORDS)}))+(?: corner| side)?"
#: Forms that the reader does not know -> forms with the same meaning that it knows, or that the question may have.
REWORDED = (
    (r"\b(nothing|anything|something|no (one )?thing) (else|more)\b", r"\1"),
    (r"\bno (other|more|such)\b", "no"),
    (r"\banything\b", "thing"),
    (r"\bempty\b", "nothing"),
    (r"\bneither (?:an? )?(\w+) nor (?:an? )?(\w+)", r"no \1, no \2"),
    (r"\bno (\w+) or (?:an? )?(\w+)", r"no \1, no \2"),
    (r"\bnot (an?) (\w+) or (?:an? )?(\w+)", r"not \1 \2, no \3"),
    (r"\bnot (?:every|each|all)(?: of)?(?: the)?(?: (?:one|thing|object|item)s?)?\b", "not all"),
    (r"\b(everything|every|each)\b", "all"),
    (r"\bthe (first|second|third|fourth)( one)?\b", "one"),
    (r"\band (one|two|three|the other) (is|are)\b", r", \1 \2"),
    (rf"\band ({POSITION}(?: there)?(?: is| are)? (?:an?|one|two|three) )", r", \1"),
    (rf"\band ((?:the|an?) {NOUN}(?: {POSITION})? (?:is|are)\b)", r", \1"),
    (r"\b(not|no)( \w+)? (the |one )?same\b", "different"),
    (r"\bdiffer\b", "are different"),
    (r"\bhigher (up )?than\b", "above"),
    (r"\blower (down )?than\b", "below"),
    (r"\bfurther (left|right) than\b", r"\1 of"),
    (r"\bon top of\b", "above"),
    (r"\b(?:furthest|farthest|further) (?:to the )?(left|right)\b", r"\1most"),
    (r"\bhigher( up)?\b", "highest"),
    (r"\blower( down)?\b(?! (left|right|part|corner))", "lowest"),
    (r"\b(large|small)r\b", r"\1st"),
    (r"\bbigger\b", "biggest"),
)
#: "The picture does not show it" leaves open whether there is anything.
EVASIVE = re.compile(r"\b(does not|doesn't) (show|say|tell)( it| that| this)?\W*$")
#: Words that claim nothing.
HARMLESS = stems(
    "else more stand sit lie rest float stay shows together alone remain everything something same different match "
    "ever everyone corner not of color share sorry"
)
#: "besides the cat", "next to the cat at the top": what the question had named.
REPEATED = re.compile(
    r"\b(?:besides|except(?: for)?|apart from|other than|in addition to|next to|beside|near|close to)"
    rf" ((?:the|a|an) {NOUN}(?: {POSITION})?)"
)


@dataclass(frozen=True)
class HarderQuestion(NaturalQuestion):
    """A question whose answer speaks of several things, or of none.

    things  numbers of the things that a right answer names; of a yes-or-no question, those that it is about
    where   the position that is asked about, in the reader's letters: {"T", "L"}
    nouns   the two nouns of "is there a cat and a dog?"
    """

    things: tuple[int, ...] = ()
    where: frozenset[str] = frozenset()
    nouns: tuple[str, ...] = ()


def is_right(question: HarderQuestion, answer: str, scene: Scene) -> bool:
    """Is the answer true of the scene, and an answer to the question?"""
    if refuses(answer) or EVASIVE.search(answer.lower()) or not tokenize(answer):
        return False
    if question.judge in ("number", "existence"):
        return judge.is_right(question, answer, scene)
    things = [scene.things[i] for i in question.things]
    if question.judge == "positions":
        return _says_where_all_are(reworded(answer), question, things, scene)
    answer, others = reworded(answer), [thing for thing in scene.things if thing not in things]
    if question.group in ("other things", "next to"):
        answer, repeated = without_repeated(answer)
        if not all(any(fits(mention, thing) for thing in others) for mention in repeated):
            return False
    said = read(answer)
    known = HARMLESS | stems(question.asked) | stems(question.wording)
    if any(not stems(word) <= known for word in said.unknown) or not setting_holds(said, scene):
        return False
    match question.judge:
        case "things" | "which" | "kinds":
            if not things:
                return _says_there_is_none(said, question, scene)
            return _names_them(said, question, things, scene)
        case "any":
            return _says_whether_any(said, question, things, scene)
        case "both" | "either":
            return _says_whether_two(said, question, scene)
        case "all":
            return _says_whether_all(said, question, things, scene)
        case "same":
            return _says_whether_same(said, question, things, scene)
        case "colors":
            return _names_the_colors(said, things, scene)
        case "sentence":
            return _is_a_caption(said, scene)
    raise ValueError(f"there is no judge {question.judge!r}")


# ------------------------------------------------------------------------------------------------ reading the answer


def reworded(answer: str) -> str:
    """The answer in words that the reader knows."""
    text = " ".join(tokenize(answer))
    for pattern, words in REWORDED:
        text = re.sub(pattern, words, text)
    return text


def without_repeated(answer: str) -> tuple[str, list[Mention]]:
    """The answer without "besides the cat" and the like, and what was named there: it is no part of the answer."""
    return REPEATED.sub("", answer), [mention for named in REPEATED.findall(answer) for mention in read(named).mentions]


def _loose(said: Statement) -> Mention:
    """What was said without a noun: "it is red", "on the left"."""
    stated = said.stated
    return Mention("", colors=stated.colors, sizes=stated.sizes, position=stated.position)


def _is_vague(mention: Mention) -> bool:
    return mention.noun in ("thing", "", *CATEGORIES)


def _in_the_sky(mention: Mention) -> bool:
    return mention.noun in ("sun", "moon", "star", "cloud")


def _denied_of(said: Statement, thing: Thing) -> bool:
    """Was one of the thing's attributes denied: "not red"?"""
    denied = said.denied
    at = bool(denied.position) and position_holds(denied.position, thing)
    return thing.color in denied.colors or thing.size in denied.sizes or at


def _has(thing: Thing, value: str) -> bool:
    return value in (thing.color, thing.size, thing.kind, thing.category)


# ------------------------------------------------------------------------------------------------------ naming things


def _names_them(said: Statement, question: HarderQuestion, things: list[Thing], scene: Scene) -> bool:
    """All of the things and nothing else; "kinds": each kind at least, "which": so that the one is known."""
    positive = [m for m in said.mentions if not m.denied]
    denied = [m for m in said.mentions if m.denied and m.noun != question.asked]  # but "the car is not a boat"
    if "no" in said.says or not all(is_true(m, scene) for m in denied):
        return False
    if "not" in said.tokens and not denied and question.group != "negation":
        return False  # "the boat can not sail"
    if set(said.numbers) - {len(things)} or not all(fits(_loose(said), thing) for thing in things):
        return False
    if any(_denied_of(said, thing) for thing in things):
        return False
    if not all(relation_holds(relation, thing, m, scene) for relation, m in said.relations for thing in things):
        return False
    listed = [m for m in positive if not _is_vague(m) and not _in_the_sky(m)]
    listed += [m for m in said.references if not m.definite]
    vague = [m for m in positive if _is_vague(m)]
    if not all(is_true(m, scene) for m in positive if _in_the_sky(m)):
        return False
    if question.judge == "which" and not listed:
        return len(vague) == 1 and count(vague[0], scene) == 1 and covers(vague, things, scene)
    if not all(_sums_up(m, things) for m in vague):
        return False
    if question.judge == "kinds":
        true = all(_is_true_of(m, things, scene) for m in listed)
        return true and {m.noun for m in listed} == {thing.kind for thing in things}
    if any(_is_one_called_several(m, listed, things) for m in listed):
        return False
    return any(covers(listed, list(order), scene) for order in permutations(things))


def _is_one_called_several(mention: Mention, listed: list[Mention], things: list[Thing]) -> bool:
    """ "boats" of one boat; but "red and blue boats" may be one of each."""
    alone = not any(other is not mention and other.noun == mention.noun for other in listed)
    several = mention.several and mention.number is None and mention.noun not in EITHER_NUMBER
    return several and alone and sum(fits(mention, thing) for thing in things) < 2


def _sums_up(mention: Mention, things: list[Thing]) -> bool:
    """ "two things" or "animals" before or after the things themselves."""
    number = mention.number is None or mention.weak or mention.number == len(things)
    return number and all(fits(mention, thing) for thing in things)


def _is_true_of(mention: Mention, things: list[Thing], scene: Scene) -> bool:
    return is_true(mention, scene) and any(fits(mention, thing) for thing in things)


def _says_there_is_none(said: Statement, question: HarderQuestion, scene: Scene) -> bool:
    """ "nothing", "no animals", "there is no thing there", and nothing false beside it."""
    nouns = {"", question.about.noun if question.about else "thing"}
    nouns |= {"thing"} if question.group != "category which" else set()
    denials = [m for m in said.mentions if m.denied and m.noun in nouns and m.position <= question.where]
    others = [m for m in said.mentions if not any(m is denial for denial in denials)]
    stated, values = said.stated, named(said, "colors") | named(said, "sizes")
    if question.group == "negation" and _of_each(said) and question.asked in values:
        return not denials and values == {question.asked} and "no" not in said.says  # "they are all red"
    claims = stated.colors or stated.sizes or said.relations or said.references
    if "yes" in said.says or claims or set(said.numbers) - {0} or not (denials or said.numbers):
        return False
    there = Mention("", position=stated.position) if stated.position else None
    if there and (not stated.position <= question.where or count(there, scene)):
        return False
    return all(is_true(m, scene) and not (_is_vague(m) and not m.denied) for m in others)


# ---------------------------------------------------------------------------------------------------------- yes or no


def _says_whether_any(said: Statement, question: HarderQuestion, things: list[Thing], scene: Scene) -> bool:
    """Is there something that can swim? To name it is to say yes."""
    implied = set()
    for mention in said.mentions:
        if mention.denied:
            implied |= {"no"} if mention.noun in ("", "thing", question.about and question.about.noun) else set()
            if mention.noun not in ("", "thing") and not is_true(mention, scene):
                return False
        elif _is_vague(mention):
            if things and not any(fits(mention, thing) for thing in things):
                return False
        elif things:
            if not _is_true_of(mention, things, scene):
                return False
            implied.add("yes")
        elif not is_true(mention, scene) or "no" not in said.says:
            return False
    if any(number not in (0, len(things)) for number in said.numbers):
        return False
    implied |= {"yes" if number else "no" for number in said.numbers}
    if not no_claims(said.stated) and not any(fits(_loose(said), thing) for thing in things):
        return False
    return polarity(said, implied) == question.truth


def _says_whether_two(said: Statement, question: HarderQuestion, scene: Scene) -> bool:
    """A cat and a dog, a cat or a dog: yes or no, with what is there and what is not."""
    there = [noun for noun in question.nouns if count(Mention(noun), scene)]
    stated, denied = set(), set()
    for mention in said.mentions:
        if _is_vague(mention) and mention.denied:
            denied |= set(question.nouns)
        elif not is_true(mention, scene):
            return False
        else:
            (denied if mention.denied else stated).add(mention.noun)
    if 0 in said.numbers:
        denied |= set(question.nouns)
    if denied & set(there) or not no_claims(said.stated):
        return False
    total = sum(count(Mention(noun), scene) for noun in question.nouns)
    if set(said.numbers) - {0, total, len(there)}:
        return False
    every, some = (all, any) if question.judge == "both" else (any, all)
    implied = {"yes"} if every(noun in stated for noun in question.nouns) else set()
    implied |= {"no"} if some(noun in denied for noun in question.nouns) else set()
    implied |= {"yes"} if "both" in said.tokens and "not" not in said.tokens else set()
    return polarity(said, implied) == question.truth


def _says_whether_all(said: Statement, question: HarderQuestion, things: list[Thing], scene: Scene) -> bool:
    """Are they all red? "No, the boat is blue", "only one is", "yes, both"."""
    value, fitting = question.asked, sum(_has(thing, question.asked) for thing in things)
    colors, sizes = {thing.color for thing in things}, {thing.size for thing in things}
    if not all(is_true(m, scene) for m in said.mentions if not (m.denied and _is_vague(m))):
        return False
    if set(said.numbers) - _true_numbers(said, question.asked, things):
        return False
    none = 0 in said.numbers or any(m.denied and _is_vague(m) for m in said.mentions)
    stated = said.stated
    if (none and fitting) or not (stated.colors <= colors | {value} and stated.sizes <= sizes | {value}):
        return False
    if _of_each(said) and not all(_has(thing, one) for one in stated.colors | stated.sizes for thing in things):
        return False
    same_sort = "colors" if value in COLOR_WORDS.values() else "sizes"
    values = named(said, same_sort)
    implied = {"no"} if none or value in said.denied.colors | said.denied.sizes else set()
    if not none and (_counts_less(said, len(things)) or "different" in said.tokens):
        implied.add("no")
    elif values - {value}:
        implied.add("no")
    elif value in getattr(stated, same_sort):
        implied.add("yes")
    elif any(value in getattr(m, same_sort) and not m.denied and len(things) == count(m, scene) for m in said.mentions):
        implied.add("yes")
    return polarity(said, implied) == question.truth


def _true_numbers(said: Statement, value: str, things: list[Thing]) -> set[int]:
    """The numbers that can be true: of "one is red" that of the red things, of "only two" that of those asked about."""
    values = said.stated.colors | said.stated.sizes
    fitting = {sum(_has(thing, one) for thing in things) for one in values or {value}}
    return {len(things)} | fitting | ({len(things) - one for one in fitting} if "not" in said.tokens else set())


def _of_each(said: Statement) -> bool:
    """ "All are red", "they are both red"; but not "not all"."""
    return bool(re.search(r"(?<!not )\b(all|both)\b", " ".join(said.tokens)))


def _counts_less(said: Statement, number: int) -> bool:
    """ "only two", "not all": fewer than asked about."""
    text = " ".join(said.tokens)
    fewer = any(0 < said_number < number for said_number in said.numbers)
    return fewer or bool(re.search(r"\b(only|not (all|both))\b", text))


def _says_whether_same(said: Statement, question: HarderQuestion, things: list[Thing], scene: Scene) -> bool:
    """Two things of one color? Colors that are named answer it, too."""
    colors, values = {thing.color for thing in things}, named(said, "colors")
    if not all(is_true(m, scene) for m in said.mentions) or set(said.numbers) - {1, 2}:
        return False
    if not said.stated.colors <= colors or said.denied.colors & colors == colors:
        return False
    if said.stated.colors and said.stated.colors != colors and not said.mentions:
        return False  # "no, red"
    implied = {"yes"} if len(colors) == 1 and said.stated.colors == colors else set()
    implied |= {"no"} if len(values & colors) == 2 else set()
    implied |= {"yes"} if re.search(r"\bthe same\b", " ".join(said.tokens)) and "not" not in said.tokens else set()
    implied |= {"no"} if "different" in said.tokens else set()
    return polarity(said, implied) == question.truth


# ---------------------------------------------------------------------------------------------------- several of a kind


def _names_the_colors(said: Statement, things: list[Thing], scene: Scene) -> bool:
    """Every color of the cats, and none that no cat has."""
    kind, colors = things[0].kind, Counter(thing.color for thing in things)
    mentions = [replace(m, noun=kind) if m.noun in ("", "thing") else m for m in said.mentions]
    if any(m.denied or m.noun not in (kind, things[0].category) for m in mentions):
        return False
    # "the boats are red and blue" is no boat of two colors
    if not all(is_true(m, scene) or (m.several and m.colors == set(colors)) for m in mentions):
        return False
    if "no" in said.says or set(said.denied.colors) & set(colors):
        return False
    if set(said.numbers) - {len(things), 1, *colors.values()} or sum(said.numbers) > len(things):
        return False
    sizes = all(said.stated.sizes <= {thing.size} for thing in things)
    return sizes and named(said, "colors") == set(colors)


def _says_where_all_are(answer: str, question: HarderQuestion, things: list[Thing], scene: Scene) -> bool:
    """ "One at the top left and one on the right": each part is true of some of them, and none of them is left out."""
    covered: set[int] = set()
    told = 0
    for part in re.split(r"\band\b|[.,]", answer):
        said = read(part)
        if any(not stems(word) <= HARMLESS for word in said.unknown) or not setting_holds(said, scene):
            return False
        those = _spoken_of(said, things, scene)
        tells = bool(named(said, "position") or _relations(said)) or (question.asked == "where" and said.stated.places)
        if "no" in said.says or (not those and (tells or said.mentions)):
            return False
        number = _number_of(part)
        told += number if number < len(things) else 0  # "both: one at the top, one on the left"
        if number > len(those) or told > len(things):
            return False
        if tells:
            # "one on the left" is the one in the middle of that side if there is one, and none that was told before
            at = named(said, "position")
            order = sorted(those, key=lambda thing: (scene.things.index(thing) in covered, cell(thing) != at))
            covered |= {scene.things.index(thing) for thing in order[: number or None]}
    return covered == {scene.things.index(thing) for thing in things}


def _relations(said: Statement) -> list[tuple[str, Mention]]:
    return [*said.relations, *(mention.relation for mention in said.mentions if mention.relation)]


def _spoken_of(said: Statement, things: list[Thing], scene: Scene) -> list[Thing]:
    """The things that a part of an answer is true of."""
    return [
        thing
        for thing in things
        if fits(_loose(said), thing)
        and not _denied_of(said, thing)
        and all(fits(mention, thing) and not mention.denied for mention in said.mentions)
        and all(relation_holds(relation, thing, mention, scene) for relation, mention in _relations(said))
    ]


def _number_of(part: str) -> int:
    """The number that a part says: "both on the left" says two, "a cat" one. 0 if it says none."""
    numbers = NUMBER_WORDS | {"a": 1, "an": 1, "another": 1}
    return max((numbers[token] for token in part.split() if token in numbers), default=0)


# ------------------------------------------------------------------------------------------------------------ a caption


def _is_a_caption(said: Statement, scene: Scene) -> bool:
    """True as a whole, no thing told twice, and something is named: a thing, the place or the time."""
    positive = [m for m in said.mentions if not m.denied and not _in_the_sky(m) and m.noun not in ("", "thing")]
    kinds = [m for m in positive if m.noun in KINDS]
    told = bool(positive) or bool(said.stated.places or said.stated.times)
    claims = no_claims(said.stated) or (len(scene.things) == 1 and fits(_loose(said), scene.things[0]))
    if not told or not claims or said.relations or "no" in said.says or set(said.numbers) - {len(scene.things)}:
        return False
    if not all(is_true(m, scene) for m in said.mentions) or any(_denied_of(said, thing) for thing in scene.things):
        return False
    number = range(len(scene.things) + 1)
    return any(covers(kinds, list(order), scene) for n in number for order in permutations(scene.things, n))
