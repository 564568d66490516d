"""Questions that the miniature was not taught: what is asked instead, or what the visitor is told.

`asked_instead` and `told_instead` are where to begin. The visitor is told what was asked (`vocabulary.Reading.note`).

Notes:

* To a question in no form that it has learned the T5 answers anything: that there are no three cats "at least", that a
  purple cat is black, that it is not outside. Where another question holds the answer, that one is asked: only the
  question is put otherwise, and the answer is the model's ("two", not "no").
* Where no other question does, the visitor is told what the model was not taught.
* Found by asking one form about many scenes, `python -m benchmarks.forms`: "is the cat black?" is answered rightly in
  0.06, "is it a cat or a boat?" never.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat.decisive_words import PICTURES, THINGS
from blip2_lab.chat.plain_forms import LEAD
from blip2_lab.common.characters import any_of
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES
from blip2_lab.picturebook.wordings import ABSENT, SCENERY, SYNONYMS
from blip2_lab.picturebook.words import NUMBERS

NUMBER = any_of(*NUMBERS[1:], "five", "six", "seven", "eight", "nine", "ten", r"\d+")
OTHER_COLORS = any_of("black", "white", "brown", "beige", "transparent", "colorless", "multicolored")
#: What is in no caption, and no place of this world.
OTHER_PLACES = any_of(
    *"desert forest jungle wood woods farm park garden village town city downtown countryside lake river pond".split(),
    *"ocean island harbor airport zoo kitchen valley cave".split(),
)
BACKGROUND = any_of(
    *(form for nouns in SCENERY.values() for noun in nouns for form in (noun, plural_of(noun))),
    *PLACES,
    *"sky background ground floor hill hills mountain".split(),
)
NOUNS = [*ABSENT, *(noun for name in (*KINDS, *CATEGORIES) for noun in (name, *SYNONYMS.get(name, ())))]
NOUN = any_of(*THINGS)
MADE = r"(?:an? )?(?:real )?(?:drawing|painting|cartoon|photo|photograph)"
PICTURE = rf"(?:(?:the|this|that) )?{any_of(*PICTURES)}"
EVERY_THING = r"(?:thing|object|item)s?"
SOME = r"(?P<things>\w+(?: \w+){0,2}?)"
ONE = rf"(?P<one>(?:\w+ ){{0,2}}?{any_of(*NOUNS)})"
SEVERAL = rf"(?P<several>(?:\w+ ){{0,2}}?{any_of(*map(plural_of, NOUNS))})"
SEEN = r"(?:(?:is|are) there|(?:do|can|could) (?:you|i|we) (?:see|count|find|spot))"
ASKED_KIND = r"(?:what|which)(?: \w+)?"
HERE = r"(?:,? (?:in all|in total|altogether|here|there|visible|shown|now|please|(?:in|on) (?:the|this) \w+))?"

#: The question that is asked -> forms of questions that it answers; the first that fits is taken.
INSTEAD: dict[str, tuple[str, ...]] = {
    "how many {things} are there?": (
        # "at least one", "at least two", "two or more" and "more than one" are taught
        rf"(?:.*\b)?(?:at least (?!(?:one|two|1|2)\b)|more than (?!(?:one|1)\b)|"
        rf"(?:at most|less than|fewer than|not? (?:more|less|fewer) than) ){NUMBER} {SOME}",
        rf"(?:.*\b)?(?:{NUMBER} or (?:less|fewer)|(?!(?:two|2)\b){NUMBER} or more) {SOME}",
    ),
    "how many {plural} are there?": (rf"is (?:it|this|that) the only {ONE}",),
    "how many things are there?": (r"is (?:it|this|that|(?:the|this|that) [\w ]+?) (?:all )?alone",),
    "how many things are there other than {one}?": (
        r"(?:if|when|after|suppose) (?:you|i|we) (?:take away|took away|removed?|leave out|hide|cover|ignore) "
        r"(?P<one>[\w ]+?),? (?:then )?how many(?: things)? (?:remain|stay|are left|are there|would be left)",
    ),
    "what is in the picture?": (
        rf"how many (?:different )?(?:kinds|sorts|types) of {EVERY_THING}(?: (?:are|do|can)\b[\w ]*)?",
        rf"{ASKED_KIND} is the odd (?:one|thing)(?: out)?",
        rf"{ASKED_KIND} (?:does ?n[o'’]?t|does not) (?:belong|fit)(?: in)?",
        rf"what(?: is|['’]?s) not (?:(?:shown )?in {PICTURE}|here|there|shown)",
        r"what(?: is|['’]?s| do you see| can you see)(?: there)? in the foreground",
        rf"who(?: is|['’]?s| are| do you see)(?: (?:here|there|in {PICTURE}))",
        r"what(?: is|['’]?s)?(?: the)? (?:differs|different|difference)(?: is there)? (?:between|in) .+",
        rf"is there only (?:an?|the) {ONE}",
        rf"(?:is|are) (?:the|this|that) [\w ]+ the only {EVERY_THING}",
    ),
    "which {things} are there?": (
        rf"how many (?:different )?(?:kinds|sorts|types) of {SOME}(?: (?:are|do|can)\b[\w ]*)?",
    ),
    "which food is there?": (
        rf"(?:{SEEN}|what|which)(?: (?:any|some|a|kind of))? fruits?(?: (?:is|are|do|can)\b[\w ]*)?",
    ),
    "what colors are there?": (
        r"(?:what|which) colou?rs? (?:is|are|do you) (?:not|missing)(?: see)?",
        rf"(?:is|are) (?:anything|something|everything|any of (?:them|the {EVERY_THING})) {OTHER_COLORS}",
        rf"(?:what|which|which (?:one|{EVERY_THING})) (?:is|are) {OTHER_COLORS}",
        rf"{SEEN} (?:anything|something|an? {EVERY_THING} that is) {OTHER_COLORS}",
        rf"{SEEN} (?:an?|any|some) {OTHER_COLORS} {EVERY_THING}",
        rf"{SEEN} (?:any|some) {OTHER_COLORS}",
    ),
    "what color is the {one}?": (
        rf"(?:is|was) (?:the|this|that) {ONE} {OTHER_COLORS}(?: (?:or|and) \w+)?",
        rf"{SEEN} (?:an?|any) {OTHER_COLORS} {ONE}",
    ),
    "what color are the {several}?": (
        rf"(?:are|were) (?:the|these|those|all the|all) {SEVERAL} {OTHER_COLORS}(?: (?:or|and) \w+)?",
        rf"{SEEN} (?:any |some )?{OTHER_COLORS} {SEVERAL}",
    ),
    "what color is it?": (rf"is it {OTHER_COLORS}(?: or \w+)?",),
    "what is it?": (
        rf"is (?:it|this|that) an? (?:{NOUN} or an? \w+|\w+ or an? {NOUN})",
        rf"is (?:it|this|that) (?:{NOUN} or \w+|\w+ or {NOUN})",
    ),
    "what place is this?": (
        rf"(?:are we|is (?:it|this|that|(?:the|this) place|{PICTURE})|was (?:it|this)|am i)"
        r"(?: (?:in|at|on|near|by|inside|like|a (?:photo|picture|drawing) of))? (?:(?:an?|the) )?"
        rf"(?:\w+ or (?:(?:in|at|on) )?(?:an? |the )?)?{OTHER_PLACES}",
        rf"(?:are we|is (?:it|this|that|everything|{PICTURE})) "
        r"(?:(?:in|out)doors?|(?:in|out)side)(?:,? or (?:(?:in|out)doors?|(?:in|out)side))?",
        r"is (?:it|this) (?:in )?(?:the )?(?:summer|winter|spring|autumn|fall)(?: or \w+)?",
        r"(?:what|which) season (?:is|do|does)\b[\w ]*",
        rf"what is (?:the|this|that) {ONE} (?:standing|sitting|lying|resting|sleeping|swimming|parked) (?:on|in)",
        rf"what(?: is|['’]?s) behind (?:the|this|that) {ONE}",
    ),
    "where is the {one}?": (rf"what(?: is|['’]?s) (?:the|this|that) {ONE} doing",),
    "where are the {several}?": (rf"what are (?:the|these|those) {SEVERAL} doing",),
    "what is at the top?": (r"what(?: is|['’]?s| do you see| can you see)(?: there)? (?:up )?in the sky",),
    "is there anything at the top?": (rf"(?:{SEEN}|is) (?:anything|something|any {EVERY_THING}) (?:up )?in the sky",),
}

CAN_BE_ASKED = (
    "The miniature was taught what things are, their color, size, number and place, and what they are for; not {}. "
    "Ask for example “what is in the picture?”."
)
#: What was not taught -> forms of questions about it.
TOLD: dict[str, tuple[str, ...]] = {
    "how many parts a thing has": (
        rf"how many (?!{NOUN}\b)(?!{EVERY_THING}\b)\w+ (?:does|do|has|have|are on|(?:can|do) (?:i|you|we) see on) "
        rf"(?:an?|the|one|this|that|each|every) {ONE}(?: have| has| got)*",
    ),
    "to count what belongs to the background": (rf"how many {BACKGROUND}(?: (?:are|is|do|can)\b[\w ]*)?",),
    "the colors of the background": (
        rf"what colou?r (?:is|are|has|have|does) (?:the|this) {BACKGROUND}(?: have)?",
        rf"(?:is|are) the {BACKGROUND} {any_of(*COLORS, 'black', 'white', 'brown')}",
    ),
    "what things are called": (
        r"what (?:is|are) (?:the|this|that) \w+['’]?s name",
        r"what is the name of (?:the|this) .+",
    ),
    "what things are made of": (r"what (?:is|are) (?:the|this|that) [\w ]+? made (?:of|from)",),
    "which way things face": (r"(?:which|what) (?:way|direction) (?:is|are|does|do) (?:the|this|that) [\w ]+",),
    "shapes": (r"what shape (?:is|are|has|have|does)\b[\w ]*",),
    "whether a picture is a drawing or a photo": (rf"is (?:it|this|that|{PICTURE}) (?:{MADE}(?: or {MADE})?|real)",),
}


def _compiled(table: dict[str, tuple[str, ...]]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(rf"\W*{LEAD}(?P<asked>{pattern}{HERE})\W*", re.IGNORECASE), result)
        for result, patterns in table.items()
        for pattern in patterns
    ]


_INSTEAD, _TOLD = _compiled(INSTEAD), _compiled(TOLD)


class Untaught(ValueError):
    """The model was not taught what a text asks; the message says what it was."""


def asked_instead(text: str) -> tuple[str, str] | None:
    """What is asked, as it stands in the text, and the question that holds its answer; None for any other text."""
    for pattern, question in _INSTEAD:
        if found := pattern.fullmatch(text):
            named = {name: words for name, words in found.groupdict().items() if words}
            return found["asked"], question.format(**named, plural=plural_of(named.get("one", "thing")))
    return None


def told_instead(text: str) -> str | None:
    """What a visitor is told of a question that no other holds the answer of; None for any other text."""
    for pattern, what in _TOLD:
        if pattern.fullmatch(text):
            return CAN_BE_ASKED.format(what)
    return None
