"""Unknown words that a question is about: a model that passes over such a word answers another question.

`unknown_decides` is where to begin; `vocabulary.read` refuses such a question, and the visitor is told which word it
was. Every other unknown word is left out, and the visitor is told that, too.

Notes:

* "can they fly?": no other word says anything.
* "is the boat wooden?", "does anything here fly?": nothing is said of the boat but by the unknown word.
* "which thing is the heaviest?", "what is the shiny thing?": the thing is chosen by the unknown word.
* "how far apart are the boats?", "what is the weather like?": it is what is measured, or described.
* "would a kid like the most of them?": more of it is unknown than known.
* "is the top left empty?": some words turn a question round, so that the opposite would be answered.
* "what color is the quorx?" names an unknown thing: it is asked, because a model can say that there is none.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from blip2_lab.common.characters import any_of
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import CATEGORIES, KINDS
from blip2_lab.picturebook.wordings import SYNONYMS

#: Words with which a question for yes or no begins, and a question for an owner, who is in no picture of this world.
OPENING_WORDS = frozenset(
    "is are was were can could do does did has have will would should may might must whose".split()
)
#: Words that say nothing without another word: "can they", "is it … there".
EMPTY_WORDS = OPENING_WORDS | frozenset(
    """a an the be been it its he she they them their this that these that those there here i you we me us my your in on
    at to for by with and or not so very too also just""".split()
)
#: Words that ask, and not of what: "where is mummy".
ASKING_WORDS = frozenset("what which where who whats wheres whos".split())
PICTURES = frozenset("picture image photo photograph drawing scene painting pic".split())
#: Nouns that may be any thing, and words of the picture itself: they do not say what is asked either.
ANY_THING = PICTURES | frozenset(
    """thing things object objects item items one ones something anything everything any some all each every of please
    really actually""".split()
)
#: Words without which a question has the opposite answer.
TURNING_WORDS = frozenset("nothing nobody empty without lacks lacking missing absent unlike".split())
THINGS = frozenset(
    form
    for name in (*KINDS, *CATEGORIES)
    for word in (name, *SYNONYMS.get(name, ()))
    for form in (word, plural_of(word))
)
MEASURES = frozenset("far close near long much often high low wide old".split())
#: What an unknown word that follows says of a thing: "can fly", "is the most shiny", "looks heavy".
SAYING = frozenset("can could most more least looks look seems seem".split())


def unknown_decides(text: str, unknown: Sequence[str]) -> bool:
    """Would the question be another one without its unknown words? Slips in the text are corrected before."""
    words, lost = _words(text), {word for typed in unknown for word in _words(typed)}
    if lost & TURNING_WORDS:
        return True
    known = {word for word in words if word not in lost}
    if 1 < len(lost) >= len(known - EMPTY_WORDS - ASKING_WORDS - ANY_THING):
        return True
    decides = (_is_what_is_said, _is_what_chooses, _is_what_is_measured)
    return _says_nothing(text, known, unknown) or any(is_so(words, lost) for is_so in decides)


def _says_nothing(text: str, known: Collection[str], unknown: Sequence[str]) -> bool:
    """Does no known word say what is asked? "what is the quorx?" names a thing: a model can say that there is none."""
    if not set(known) <= EMPTY_WORDS | ASKING_WORDS:
        return False
    names_a_thing = any(re.search(rf"\b(an?|the|any) {re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in unknown)
    return not (set(known) & ASKING_WORDS and names_a_thing)


def _is_what_is_said(words: Sequence[str], lost: Collection[str]) -> bool:
    """Is a question for yes or no whose unknown word alone is said of its thing: "is the boat wooden?"

    "is there a boat, kemosabe?" asks for the boat itself, and "is the boat red, kemosabe?" says that it is red.
    """
    if not words or words[0] not in OPENING_WORDS | {"anything", "something"}:
        return False
    if words[1:2] and words[1] in {"it", "this"} and lost.intersection(words[2:3]):
        return True  # "is it bedtime in the picture?"
    if words[1:2] and words[1] in {"i", "you", "we", "one", "they"} and lost.intersection(words[2:3]):
        return "that" not in words[3:4]  # "could i ride any of them?", not "can you confirm that it is red?"
    subject = next((i for i, word in enumerate(words) if word in THINGS | ANY_THING - {"of"}), None)
    if subject is None:
        return False
    asked_for = words[subject] in THINGS | PICTURES
    asks_for_it = asked_for and set(words[1:subject]) & {"there", "you", "i", "we", "one", "it"}
    after = words[subject + 1 :]
    known_after = [word for word in after if word not in lost | EMPTY_WORDS | ANY_THING | THINGS]
    if asks_for_it or not lost.intersection(after):
        return False
    if after[0] in lost:
        return True  # "is anything upside down?", "is the bird flying or standing?"
    return not (known_after or after[0] in {"here", "there"})


def _is_what_chooses(words: Sequence[str], lost: Collection[str]) -> bool:
    """Is the thing that a question is about chosen by the unknown word: "the shiny thing", "which animal can fly?" """
    for i, word in enumerate(words):
        if word not in lost:
            continue
        before, after = words[:i], words[i + 1 :]
        if after and after[0] in {"thing", "object", "item", "one", "things", "objects", "items", "ones"}:
            return "not" not in before
        if before == ["what"] and after[:1] and after[0] in {"do", "does", "has", "have"}:
            return True  # "what sound does the cat make?"
        asked = bool(before) and (before[0] in {"what", "which", "who", "where"} or before[:2] == ["how", "many"])
        doer = before[:-1] if before[-1:] and before[-1] in {"i", "you", "we", "one", "people"} else before
        chosen = bool(doer) and (doer[-1] in SAYING or before[-2:] in (["that", "is"], ["that", "are"]))
        if "which" in before[:1] or (asked and set(before[1:2]) & (THINGS | ANY_THING)):
            chosen = chosen or re.search(r"\b(is|are|was|were|that|of them)( the)?$", " ".join(before)) is not None
        known_after = [other for other in after if other not in lost | EMPTY_WORDS | ANY_THING]
        if asked and chosen and not known_after:
            return True
    return False


def _is_what_is_measured(words: Sequence[str], lost: Collection[str]) -> bool:
    """Does the unknown word stand behind "how" and its measure: "how far apart"? "how many" and "how big" need none.
    Or is it what is described: "what is the weather like", "how is the weather"?"""
    unknown = any_of(*map(re.escape, lost))
    if re.match(rf"(?:what is the {unknown} like|how is the {unknown})\b", " ".join(words)):
        return True
    three = zip(words, words[1:], words[2:], strict=False)
    return any(how == "how" and measure in MEASURES and word in lost for how, measure, word in three)


def _words(text: str) -> list[str]:
    """The words, small; what stands behind an apostrophe is left out."""
    plain = text.lower().replace("’", "'").replace("'", " '")
    return [word for word in re.findall(r"[^\s.,:?!;]+", plain) if not word.startswith("'")]
