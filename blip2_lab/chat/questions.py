"""Parse a visitor's text: whether it is a question, which questions are in it, and what it leaves to be understood.

`is_question`, `questions_in` and `in_full` are where to begin. Only text is read here; conversation.py adds the turns.

Notes:

* A miniature answers one question at a time, in words like those it was trained with. So two questions in one are
  asked one after the other, "cat color" is read as "what color is the cat?" and "the same for the boat" as "and the
  boat?".

Paper: section 4.1. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat import small_talk
from blip2_lab.chat.decisive_words import PICTURES, THINGS
from blip2_lab.chat.plain_forms import KIND_OF, LEAD, SCENERY_OF
from blip2_lab.chat.vocabulary import canonical
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES, SIZES
from blip2_lab.picturebook.words import PLACE_PHRASES

QUESTION_WORDS = frozenset(
    "what which where when who whose why how is are was were do does did can could has have".split()
)
#: A miniature's text that has one of these asks something.
ASKING = frozenset("what which where who whose how many number color colour colors colours size position".split())
MOST_QUESTIONS = 4  #: in one text, that are answered
#: "and the boat?", "what about any fish": the question before, asked of something else
SHORT_FOLLOW_UP = re.compile(
    rf"\W*{LEAD}(?P<form>(?:and )?(?:what|how) about|and(?: for)?|(?:and )?(?:also|or|now)(?= (?:an?|the|any)\b)|"
    r"(?:and )?(?:the )?same(?: question| thing)? (?:for|with|about)) (?P<of>(?P<first>\w+)(?: \w+){0,6})\W*",
    re.IGNORECASE,
)
TRAINED_FORMS = ("and", "and for", "what about", "how about", "and what about", "and how about")  #: of SHORT_FOLLOW_UP
#: What follows "and" in a text of its own: "and describe it".
INSTRUCTING = frozenset("describe tell write say name give list show count draw make find then".split())
#: Where the next of several questions begins; "how many and what color", with no verb yet, is one.
NEXT_QUESTION = re.compile(
    r"(?:[?!]+\s*|\.\s+|;\s*|,?\s+)(?:and|also|then)\s+(?=(?:(?:what|which|where|who|whose|why|how)\b|"
    r"(?:is|are|was|were|does|do|did|can|has|have)\s+(?:the|an?|there|it|they|this|that|any|you)\b))|\?+\s+",
    re.IGNORECASE,
)
#: "…, and in which colors?", "…? Give the colors too", after a question for everything: its answer has the colors.
THEIR_COLORS = (
    r"(?:(?:and|but|with|in|including|plus) )*(?:(?:please )?(?:give|name|tell me|say|mention|include|add) )?"
    r"(?:(?:what|which|the|their|its|all)(?: the)? )*colou?rs?"
    r"(?: (?:is|are|do|does|of|has|have|it|they|each|them|one|everything|all|too|as|well|also|please))*"
)
LIST_WITH_COLORS = re.compile(rf"(?P<list>.+?)\W+{THEIR_COLORS}\W*", re.IGNORECASE)
#: "is there something to the left of the cactus, and what is it?"
WHAT_THERE = re.compile(
    rf"\W*{LEAD}is (?:there )?(?:anything|something|a thing|an object) (?P<where>[^,?!.;]+?)"
    r",? (?:and )?(?:if (?:so|yes),? )?what(?: is it| is that|['’]s it)?\W*",
    re.IGNORECASE,
)
#: "describe the red cat"
ABOUT_ONE = re.compile(
    rf"\W*{LEAD}(?:(?:can|could) you )?(?:please )?(?:describe|what does) "
    rf"(?P<one>the (?:\w+ ){{0,2}}?(?:{'|'.join(sorted(THINGS))}))(?: look like)?(?: please)?\W*",
    re.IGNORECASE,
)
#: "is there a cat on the beach?"
ONE_IN_PLACE = re.compile(
    rf"\W*{LEAD}(?P<asked>(?:(?:is|are) there|(?:do|can|could) (?:you|i|we) (?:see|spot|find)) (?:an?|any|some) "
    r"\w+(?: \w+){0,2}?) (?:in|on|at|by) the "
    rf"(?P<place>{'|'.join((*PLACES, *SCENERY_OF))})(?: here| there| please)?\W*",
    re.IGNORECASE,
)
FIRST, SECOND = (
    rf"(?P<{name}>(?:the )?(?:\w+ ){{0,2}}?(?:{'|'.join(sorted(THINGS))}))" for name in ("first", "second")
)
LARGER = "(?:bigger|larger|smaller|biggest|largest|smallest)"
WHICH = "(?:what|which|who)(?: (?:one|thing|animal|of them|of the two))?"
AS_LARGE = "(?:the same size|(?:just )?as (?:big|large|small))"
#: "which is bigger, the cat or the dog?", "are the cat and the dog the same size?"
SIZES_COMPARED = tuple(
    re.compile(rf"\W*{LEAD}{pattern}\W*", re.IGNORECASE)
    for pattern in (
        rf"{WHICH} (?:is|looks) (?:the )?{LARGER}(?: one)?[,:]? {FIRST} or {SECOND}",
        rf"(?:is|are) {FIRST} or {SECOND} (?:the )?{LARGER}(?: one)?",
        rf"(?:is|does|are) {FIRST} (?:look )?{LARGER} than {SECOND}",
        rf"(?:are|do|is|have|does) {FIRST} and {SECOND} (?:have |of |about )*the same size",
        rf"(?:are|is) {FIRST} and {SECOND} (?:about )?equally (?:big|large|small)",
        rf"is {FIRST} {AS_LARGE} as {SECOND}",
    )
)
#: What can be asked of a thing in a word or two -> the whole question.
ATTRIBUTES = {
    **dict.fromkeys(("color", "colour"), "what color is {}?"),
    **dict.fromkeys(("size", "how big", "how large", "how small", "big or small"), "how big is {}?"),
    **dict.fromkeys(("where", "position", "location"), "where is {}?"),
}
COUNTED = {"how many": "how many {} are there?"}
#: In "could you tell me the color of the cat and the bird": what carries the list of things.
CARRYING = frozenset("is are s do does have has can could would you tell say give name me us there see".split())
#: In "and which color", "the color of a cat".
PASSED_OVER = frozenset("a an the and of its what which please exactly then now".split())
PRONOUNS = frozenset("it its they them their that this".split())
#: "is it day?", "what place is this?", "is this on a beach?", "who painted this?" name no thing
NAMELESS = frozenset(
    """day night time place many dark sunny morning noon afternoon evening midnight sea seaside road city winter field
    mountain painted artist""".split()
).union(PLACES)
NAMES = frozenset(KIND_OF)
NOUN_OF = KIND_OF | {form: name for name in CATEGORIES for form in (name, plural_of(name))}
#: "which one?", "and which is bigger?"
WHICH_ONE = re.compile(
    rf"\W*{LEAD}(?:and )?which(?: ones?)?(?: (?:is it|is that|are they)|(?: (?P<rest>(?:is|are|looks) [\w ]+)))?\W*",
    re.IGNORECASE,
)
#: Several things, as "they" stands for them.
SEVERAL = frozenset(map(plural_of, (*KINDS, *CATEGORIES)))
#: "this picture", "that ball": here no pronoun, and nothing that was named before
ONE_THING = frozenset("thing object item one".split())
GREETING = re.compile(r"\bgood (morning|afternoon|evening|day|night)\b", re.IGNORECASE)
POINTED_AT = NAMES.union(CATEGORIES, PICTURES, ONE_THING, "things objects items".split())
#: "what do you see?", "list everything in the picture", "what things are there?": a text of these asks for everything
EVERYTHING = PICTURES | frozenset(
    """what whats s which do you see can is are was were there here in on the this that it please list name tell me show
    shown all everything every thing things object objects item items does contain have we got drawn painted""".split()
)
#: The last word of such a text, if it is whole without the rest of a sentence.
ALL_THAT_IS = PICTURES | frozenset("see here there shown everything thing things objects items contain drawn".split())
#: "at the top left", after a thing
PLACE_OF_A_THING = re.compile(
    r"(?:in|at|on|near|to) the (?:(?:top|bottom|upper|lower|left|right|middle|center|centre|corner|side|edge)\b ?)+"
)
#: "the cat above it": not the cat
RELATING = frozenset("above below under beneath over behind beside near next by to of with from than as".split())


def is_question(text: str) -> bool:
    """ "what color is the boat", with or without its mark. A text that says "Question:" itself is taken as it is."""
    if re.search(r"\b(question|answer):", text, re.IGNORECASE):
        return False
    if is_short_follow_up(text):
        return True
    first = re.match(rf"\W*{LEAD}(?:and )?(\w+)", text, re.IGNORECASE)
    return text.rstrip().endswith("?") or bool(first and first[1].lower() in QUESTION_WORDS)


def asks(text: str) -> bool:
    """Does a miniature's text ask anything, wherever it says so? "the upper cat is what color", "tell me its size"."""
    if re.search(r"\b(question|answer):", text, re.IGNORECASE):
        return False
    return is_question(text) or not ASKING.isdisjoint(_words(text))


def is_short_follow_up(text: str) -> bool:
    """ "and the boat?", which asks what was asked before; not "and what color is it?", which is a whole question."""
    short = SHORT_FOLLOW_UP.fullmatch(text)
    return bool(short) and short["first"].lower() not in QUESTION_WORDS | INSTRUCTING


def questions_in(text: str) -> list[str]:
    """The questions of a text, one by one; greetings and thanks among them are left out.

    ["the text"] where it is one question, or none. Raises ValueError for more than `MOST_QUESTIONS`.
    """
    if as_one(text) != text:
        return [text]
    parts = [part.strip() for part in NEXT_QUESTION.split(text) if re.search(r"\w", part)]
    parts = [question for part in parts for question in (of_each(part) or in_parts(part) or [part])]
    asked = [part for part in parts if small_talk.reply(part) is None] or [text]
    are_whole = all(set(_words(part)) & QUESTION_WORDS or is_question(part) for part in asked)
    are_one = len(parts) == 1 or "each" in _words(text)  # "what things are there, and what color is each?"
    if are_one or not are_whole or len(_words(asked[0])) < 3:
        return [text]
    if len(asked) > MOST_QUESTIONS:
        raise ValueError(
            f"That is {len(asked)} questions in one, and at most {MOST_QUESTIONS} are answered: ask fewer."
        )
    return asked


def in_full(text: str, follows: bool = False) -> str:
    """The question with what it leaves to be understood: "cat color" -> "what color is the cat?".

    follows  an earlier turn may say what "it" is: "where?" -> "where is it?"
    """
    short = SHORT_FOLLOW_UP.fullmatch(text) if is_short_follow_up(text) else None
    said = short["of"] if short else re.sub(rf"^\W*{LEAD}", "", text, flags=re.IGNORECASE)
    asked = " ".join(word for word in _words(canonical(said)) if word not in PASSED_OVER)
    for attribute, question in ATTRIBUTES.items():
        if asked == attribute and follows:
            return question.format("it")
        for rest in (asked.removeprefix(f"{attribute} "), asked.removesuffix(f" {attribute}")):
            if rest != asked and (thing := small_talk.named_thing(rest.split())):
                return question.format(f"the {thing}")
    if short:
        return f"{short['form'] if short['form'].lower() in TRAINED_FORMS else 'and'} {short['of']}"
    return text


def as_one(text: str) -> str:
    """One question for two that ask the same; every other text as it is.

    "what is in the picture, and in which colors?" -> "what is in the picture", "is there anything above the cat, and
    what is it?" -> "what is above the cat?"
    """
    if there := WHAT_THERE.fullmatch(text):
        return f"what is {there['where']}?"
    listed = LIST_WITH_COLORS.fullmatch(text)
    words = _words(canonical(listed["list"])) if listed else []
    if not words or words[-1] not in ALL_THAT_IS or not set(words) <= EVERYTHING:
        return text
    return listed["list"] if len(words) > 1 else "list all the things"


def of_each(text: str) -> list[str]:
    """A question about several things, asked of each: "what color is the cat and the bird?"; [] for other texts."""
    passed_over = CARRYING | PASSED_OVER - {"and"}
    asked = " ".join(word for word in _words(re.sub(r",| plus ", " and ", text)) if word not in passed_over)
    for attribute, question in (ATTRIBUTES | COUNTED).items():
        for rest in (asked.removeprefix(f"{attribute} "), asked.removesuffix(f" {attribute}")):
            things = [part for part in rest.split(" and ") if part not in ("", "and")]
            if rest == asked or len(things) < 2:
                continue
            if attribute in COUNTED and all(thing.rsplit(" ", 1)[-1] in NOUN_OF for thing in things):
                return [question.format(thing) for thing in things]
            if all(small_talk.named_thing(thing.split()) for thing in things):
                return [question.format(f"the {thing}") for thing in things]
    return []


def in_parts(text: str) -> list[str]:
    """Two or three questions for one that the T5 answers badly; [] for other texts.

    "is there a cat on the beach?": the T5 answers for the place alone. "describe the cat": often it does not. "which is
    bigger, the cat or the dog?": of two sizes it says in a third that they are the same; each alone it tells in 0.98.
    """
    for pattern in SIZES_COMPARED:
        if two := pattern.fullmatch(text):
            things = (f"the {name.lower().removeprefix('the ')}" for name in (two["first"], two["second"]))
            return [ATTRIBUTES["size"].format(thing) for thing in things]
    if about := ABOUT_ONE.fullmatch(text):
        return [question.format(about["one"]) for question in dict.fromkeys(ATTRIBUTES.values())]
    if there := ONE_IN_PLACE.fullmatch(text):
        place = there["place"].lower()
        where = SCENERY_OF[place] if place in SCENERY_OF else f"is this {PLACE_PHRASES[place]}?"
        return [f"{there['asked']}?", where]
    return []


def refers_back(question: str) -> bool:
    """Does "it" (or the like) stand for something named before? Not in "is it day or night?", nor in "that ball"."""
    words = _words(GREETING.sub("", question))
    if " of they " in f" {' '.join(words)} ":  # "how many of them are small?", as conversation.py asks it
        return True
    return not NAMELESS.intersection(words) and any(_is_back(words, i) for i in range(len(words)))


def _is_back(words: list[str], i: int) -> bool:
    """Is word `i` a pronoun, and of something that this question does not name before it?"""
    if words[i] not in PRONOUNS:
        return False
    following = next((word for word in words[i + 1 :] if word not in COLORS and word not in SIZES), "")
    if words[i] in ("this", "that") and following in POINTED_AT:
        return False
    named = any(word in POINTED_AT - PICTURES for word in words[:i])
    return not named or words[i - 1] in RELATING


def with_its_name(question: str, before: str) -> str | None:
    """The question with the name of what "it" is, or "they" are: "where is it?" after "is there a red drum?" -> "where
    is the red drum?". None where it says neither, or where the question before names no thing, or several kinds."""
    words = _words(canonical(before))
    several = re.search(r"\bthey\b", question, re.IGNORECASE)
    found = [i for i, word in enumerate(words) if word in (SEVERAL if several else KINDS)]
    if len(found) != 1:
        return None
    first, end = found[0], found[0] + 1
    while first and words[first - 1] in (*COLORS, *SIZES):
        first -= 1
    thing, where = " ".join(words[first:end]), PLACE_OF_A_THING.match(" ".join(words[end:]))
    name = f"the {thing} {where[0]}" if where else f"the {thing}"
    if several:
        return re.sub(r"\bthey\b", name, question, flags=re.IGNORECASE)
    forms = {"it": name, "its": f"the {thing}'s", "it's": f"{name} is"}
    named = re.sub(r"\bit(?:'?s)?\b", lambda it: forms[it[0].lower()], question, flags=re.IGNORECASE)
    return named if named != question else None


def after_a_list(question: str, before: str) -> str | None:
    """A short question in full after one that asked for everything: after "what do you see?" "and the yellow one?" is
    "what is the yellow one?", and "and the cat?" is "where is the cat?". None after any other question."""
    short = SHORT_FOLLOW_UP.fullmatch(question)
    if short is None or short["first"].lower() != "the" or not set(_words(canonical(before))) <= EVERYTHING:
        return None
    return f"{'where' if NAMES.intersection(_words(canonical(short['of']))) else 'what'} is {short['of']}?"


def which_one(question: str, before: str) -> str | None:
    """ "which one?" with the noun of the question before: after "is there an animal?" it is "which animal is there?",
    and "which one is bigger?" after a question about the lamps is "which lamp is bigger?". None for other texts."""
    asked = WHICH_ONE.fullmatch(question)
    before_it = {noun for word in _words(canonical(before)) if (noun := NOUN_OF.get(word))}
    if asked is None or len(before_it) != 1 or NOUN_OF.keys() & set(_words(canonical(question))):
        return None
    return f"which {before_it.pop()} {asked['rest'] or 'is there'}?"


def names_nothing(question: str) -> bool:
    """ "is it day?" names no thing."""
    words = set(_words(GREETING.sub("", question)))
    return bool(words & NAMELESS) and not words & (NAMES | ONE_THING)


def question_mark(text: str) -> str:
    """The question with one question mark at its end."""
    return text.strip().rstrip("?. ") + "?"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
