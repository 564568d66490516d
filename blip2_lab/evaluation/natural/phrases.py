"""How visitors phrase their questions: wordings by group, ways to name a thing, and habits of typing.

Notes:

* These wordings were written without a look at the templates of the corpus. overlap.py counts those that
  the corpus has nevertheless. Templates for the corpus must not be taken from here: the questions would no longer be
  held out.
* Many words are ones that the corpus may lack (kitty, ship, colour, photo): a visitor does not know its word list.
* Some questions are typed in capitals, without apostrophes or question marks, or with a letter lost or two swapped.

A blank in a wording is filled by questions.py: {the} is a phrase for one thing, {pic} a word for the picture,
{colour} the word "color" as this visitor spells it. Notebook: 11.
"""

from __future__ import annotations

import re
from random import Random

from blip2_lab.evaluation.natural.words import KIND_SYNONYMS, OUTSIDE_PLURALS
from blip2_lab.picturebook.scene import CATEGORIES, Scene, Thing, pick
from blip2_lab.picturebook.words import plural

PICTURE_NOUNS = ("picture", "picture", "pic", "image", "photo", "scene", "drawing")
THING_NOUNS = ("thing", "thing", "object", "item")

LIST = (
    "what's in this {pic}", "what do you see", "what can you see here", "list everything you can see",
    "list all the objects in the {pic}", "tell me what's in the {pic}", "what objects do you see in the {pic}",
    "name everything in the {pic}", "name all the things you can spot", "what does the {pic} show",
    "what is shown here", "which objects appear in this {pic}", "give me a list of the things in the {pic}",
    "what all is in here", "what have we got here", "which items can you make out",
    "can you list the things in the {pic}", "what stuff is in this {pic}",
    "which things are here, and in what {colour}", "whats in it",
    "what things did they draw, and which {colour} is each",
)  # fmt: skip
COUNT = (
    "how many {several} do you see", "how many {several} can you count", "count the {several}", "number of {several}",
    "what's the number of {several} in the {pic}", "how many {several} in this {pic}", "how many {several}",
    "can you count the {several} for me", "tell me how many {several} there are", "{several}: how many",
    "how many {several} did you spot", "how many {several} have you got there", "what is the count of {several}",
    "how many {several} show up here", "give me the number of {several}", "how many {several} does the {pic} have",
    "do you know how many {several} are in the {pic}", "and how many {several} are there",
    "i want to know how many {several} you see",
)  # fmt: skip
COUNT_ALL = (
    "how many {several} altogether", "how many {several} in total", "total number of {several}",
    "how many different {several} do you see", "how many {several} are there overall",
)  # fmt: skip
EXISTENCE_WITH_COLOR = (
    "is there {a} in the {pic}", "do you see {a}", "can you see {a}", "can you spot {a} anywhere",
    "have we got {a} in here", "does this {pic} have {a}", "is {a} in the {pic}", "isn't there {a}",
    "there's {a}, right", "i'm looking for {a}, is there one", "could there be {a} in this {pic}",
    "tell me if there's {a}", "do you notice {a}", "did they draw {a}", "any {several}",
    "are there any {several} here", "see any {several}", "does {a} show up", "is there any {kind} that's {value}",
    "is at least one {kind} {value}",
)  # fmt: skip
EXISTENCE = (
    "any {several} in this {pic}", "is there {a}", "is there {a} somewhere", "do you see {a} at all",
    "can you see {a} here", "can you find {a}", "does the {pic} show {a}", "does the {pic} contain {a}",
    "is {a} visible", "isn't there {a} in it", "have you got {a} there", "there is {a}, isn't there",
    "i'd like to find {a}, is there one", "is {a} part of the {pic}", "tell me whether you see {a}",
    "would you say there's {a} in the {pic}", "do we have {a}", "spot {a}", "did you see {a}",
    "is there by any chance {a}",
)  # fmt: skip
EXISTENCE_SKY = (
    "is the {sky} out", "can you see the {sky}", "do you see the {sky}", "is the {sky} in the {pic}",
    "any {sky} up there", "is the {sky} in the sky",
)  # fmt: skip
COLOR = (
    "what {colour} is {the}", "what's the {colour} of {the}", "what is {the}'s {colour}",
    "tell me the {colour} of {the}", "name the {colour} of {the}", "{the}: what {colour}", "which {colour} is {the}",
    "which {colour} does {the} have", "{the} is what {colour}", "can you tell me what {colour} {the} is",
    "could you name the {colour} of {the}", "i want to know the {colour} of {the}",
    "what {colour} did they paint {the}", "in what {colour} is {the} drawn", "what {colour} would you say {the} is",
    "{the}, which {colour} is it", "what {colour} has {the} got", "how would you describe the {colour} of {the}",
    "what shade is {the}", "what {colour} {the} is",
)  # fmt: skip
WHAT = (
    "what's {the}", "what is {the} supposed to be", "what is {the} meant to be", "what do you call {the}",
    "can you name {the}", "identify {the}", "{the}, what is it", "do you know what {the} is", "tell me what {the} is",
    "what would you say {the} is", "what might {the} be", "name {the}", "i can't make out {the}, what is it",
    "what exactly is {the}", "so what is {the} then", "how do you call {the}", "what does {the} look like to you",
    "what could {the} be", "any idea what {the} is", "what's that, {the}",
)  # fmt: skip
SIZE = (
    "how big is {the}", "is {the} big or small", "is {the} large or little", "what size is {the}",
    "what's the size of {the}", "would you call {the} big or small", "big or small: {the}",
    "tell me the size of {the}", "how large is {the}", "is {the} tiny or big", "does {the} look big or small",
    "what size would you say {the} is", "{the}, is it a big one or a little one", "how big does {the} look",
    "how small or large is {the}", "{the}: small or large", "what is {the}'s size",
    "did they draw {the} big or small", "which size does {the} have",
)  # fmt: skip
WHERE = ("where is {the}", "where's {the}", "where can i find {the}", "where do you see {the}", "so where's {the} then")
POSITION = (
    "where in the {pic} is {the}", "whereabouts in the {pic} is {the}", "in which part of the {pic} is {the}",
    "which part of the {pic} is {the} in", "tell me the position of {the}",
    "what's the location of {the} in the {pic}", "locate {the} in this {pic}", "{the}: where in the {pic}",
    "which area of the {pic} is {the} in", "describe where {the} sits in the {pic}",
    "at which spot of the {pic} is {the}", "what position is {the} at",
)  # fmt: skip
LEFT_OR_RIGHT = (
    "is {the} on the left or on the right", "left or right: where is {the}", "is {the} more to the left or the right",
    "does {the} sit left or right", "which side is {the} on, left or right",
)  # fmt: skip
TOP_OR_BOTTOM = (
    "is {the} at the top or the bottom", "top or bottom, where's {the}", "is {the} in the upper or the lower part",
    "is {the} near the top or near the bottom", "which end is {the} at, top or bottom",
)  # fmt: skip
RELATION_WHAT = (
    "what {thing} is {rel} {the}", "which {thing} is {rel} {the}", "what {thing} do you see {rel} {the}",
    "{rel} {the}, what {thing} is there", "name the {thing} that is {rel} {the}",
    "tell me which {thing} sits {rel} {the}", "which {thing} can you find {rel} {the}",
)  # fmt: skip
RELATION_YES_NO = (
    "is {the} {rel} {other}", "would you say {the} is {rel} {other}", "{the} is {rel} {other}, right",
    "is it true that {the} is {rel} {other}", "isn't {the} {rel} {other}", "do you see {the} {rel} {other}",
)  # fmt: skip
RELATION_WHICH = (
    "what is {more}, {the} or {other}", "which one is {more}, {the} or {other}", "{the} or {other}: which is {more}",
    "of {the} and {other}, which is {more}",
)  # fmt: skip
PLACE = (
    "where are we", "what's the setting", "what kind of landscape is this", "where does this {pic} take place",
    "what kind of background is it", "in what kind of place is this", "where are we here", "whereabouts are we",
    "what sort of scenery is it", "name the place", "what location does the {pic} show",
    "what surroundings are these", "tell me where we are", "can you guess where this was drawn",
    "what place do you think this is", "where does this happen", "which place are we looking at",
    "is this {at_place} or {at_other}", "are we {in_place} or {in_other}", "what environment is this",
)  # fmt: skip
TIME = (
    "is it daytime or nighttime", "what time of day is it", "day or night", "is it dark or light outside",
    "when is this, day or night", "does this happen by day or at night", "what time of the day does the {pic} show",
    "was this drawn at night or during the day", "what part of the day is it", "tell me if it's day or night",
    "is that a night scene or a day scene", "would you say it's day or night", "is it night already or still day",
    "is it a day {pic} or a night {pic}", "night or day out there",
)  # fmt: skip
YES_NO_THING = (
    "is {the} {value}", "isn't {the} {value}", "{the} is {value}, isn't it", "would you say {the} is {value}",
    "does {the} look {value}", "is it true that {the} is {value}", "do you think {the} is {value}",
    "so {the} is {value}, right", "am i right that {the} is {value}", "{the}: is it {value}",
    "can you confirm that {the} is {value}",
)  # fmt: skip
YES_NO_PLACE = (
    "is this {at_place}", "are we {in_place}", "does this look like {at_place} to you", "is the {pic} set {in_place}",
    "this is {at_place}, isn't it", "does it take place {in_place}",
)  # fmt: skip
YES_NO_TIME = {
    "night": (
        "is it night", "is it nighttime", "is it dark outside", "is it night in this {pic}", "it's night, isn't it",
        "does this happen at night", "is it dark out there",
    ),
    "day": (
        "is it day", "is it daytime", "is it daylight", "is it day in this {pic}", "it's day, right",
        "does this happen during the day", "is it light outside",
    ),
}  # fmt: skip
CATEGORY_ANY = (
    "any {cats} here", "are there any {cats} in the {pic}", "do you see some {cat} or other",
    "can you spot any {cats}", "is there some kind of {cat}", "are any {cats} visible",
    "does the {pic} have {cats} in it", "do any {cats} show up",
)  # fmt: skip
CATEGORY_WHICH = (
    "which {cat} is in the {pic}", "what {cat} can you see", "what kind of {cat} is there", "which {cat} do you see",
    "name the {cat}", "what sort of {cat} is that", "tell me which {cat} you see",
)  # fmt: skip
CATEGORY_OR = (
    "is {the} {a_cat} or {a_other}", "what would you call {the}: {a_cat} or {a_other}",
    "{the}, is it {a_cat} or {a_other}", "would you say {the} is {a_cat} or {a_other}",
)  # fmt: skip
USE_OF_AGENTS = (
    "what can {the} do", "what does {the} do", "what's {the} able to do", "what is {the} good at",
    "tell me what {the} can do", "what do you think {the} can do", "name something {the} does",
)  # fmt: skip
USE_OF_TOOLS = (
    "what's {the} used for", "what do people use {the} for", "what is {the} good for", "what can i do with {the}",
    "what would you do with {the}", "tell me what {the} is for", "what's {the} for", "why would someone need {the}",
    "what purpose does {the} have", "what do you use {the} for", "how would i use {the}",
)  # fmt: skip
HOME = (
    "where does {the} belong", "where would you normally find {the}", "where is {the} usually found",
    "where do you usually see something like {the}", "where would i find {the} in real life",
    "what's the home of {the}", "where is {the} at home", "what is the usual place for {the}",
    "tell me where {the} belongs", "in real life, where would {the} be", "where do people keep or find {the}",
)  # fmt: skip
PART = (
    "name a part of {the}", "what part does {the} have", "what's a typical part of {the}",
    "what is one part of {the}", "what belongs to {the} as a part", "which part has {the} got",
    "tell me a part of {the}", "what does {the} have on it", "what is {the} made up of, name one part",
    "can you name one part of {the}", "what part would you find on {the}",
)  # fmt: skip
WHAT_IS_THIS = (
    "what is this {thing}", "what's this {thing}", "what is this thing called", "do you know what this {thing} is",
    "what {thing} did they draw here", "tell me what this {thing} is", "can you identify this {thing}",
    "name this {thing}", "what {thing} am i looking at", "what's the {thing} in the {pic}",
    "which {thing} do you see in the {pic}", "what might this {thing} be", "what's the one {thing} in this {pic}",
    "what do you think this {thing} is",
)  # fmt: skip
NOT_THERE_COLOR = (
    "what {colour} is {the}", "what's the {colour} of {the}", "tell me which {colour} {the} has",
    "name {the}'s {colour}", "{the}, what {colour} is it",
)  # fmt: skip
NOT_THERE_OTHER = (
    "where is {the}", "where's {the}", "how big is {the}", "is {the} on the left or the right", "what size is {the}",
    "in which corner is {the}", "where can i see {the}", "what is {the} next to", "what is {the} doing here",
    "which side is {the} on", "show me {the}", "is {the} big or small",
)  # fmt: skip

RELATION_PHRASES = {
    "to the left of": ("to the left of", "left of", "on the left of", "further left than"),
    "to the right of": ("to the right of", "right of", "on the right of", "further right than"),
    "above": ("above", "higher than", "higher up than", "somewhere above"),
    "below": ("below", "lower than", "lower down than", "somewhere below"),
}
MORE = {
    "to the left of": "further left",
    "to the right of": "further right",
    "above": "higher up",
    "below": "lower down",
}
AT_PLACE = {
    "meadow": "a meadow",
    "beach": "a beach",
    "snow": "a snowy place",
    "street": "a street",
    "mountains": "a mountain landscape",
}
IN_PLACE = {
    "meadow": "in a meadow",
    "beach": "at the beach",
    "snow": "out in the snow",
    "street": "on a street",
    "mountains": "up in the mountains",
}
GREETINGS = (
    "hey, ", "hi, ", "hello, ", "please, ", "excuse me, ", "ok, ", "um, ", "hey there, ", "sorry, ", "one question: ",
)  # fmt: skip
THANKS = (" please", ", please", " thanks", ", thank you")


def picture_noun(rng: Random) -> str:
    return pick(rng, PICTURE_NOUNS)


def color_adjective(color: str, rng: Random) -> str:
    """Half of the visitors write "grey"; some say violet for purple."""
    if color == "gray":
        return pick(rng, ("gray", "grey"))
    return pick(rng, ("purple",) * 7 + ("violet",)) if color == "purple" else color


def size_adjective(size: str, rng: Random) -> str:
    return pick(rng, ("big", "big", "large") if size == "large" else ("small", "little", "tiny"))


def noun(kind: str, rng: Random) -> tuple[str, str]:
    """A word for a kind and its plural; one in six visitors says another word than the book's."""
    if kind in KIND_SYNONYMS and rng.random() < 1 / 6:
        return pick(rng, KIND_SYNONYMS[kind])
    if kind == "thing":
        word = pick(rng, THING_NOUNS)
        return word, word + "s"
    if kind in CATEGORIES:
        return kind, "things to eat" if kind == "food" else kind + "s"
    return kind, OUTSIDE_PLURALS.get(kind, plural(kind))


# ------------------------------------------------------------------------------------------- phrases that fit one thing


def _position_phrases(thing: Thing) -> tuple[str, ...]:
    """How a visitor says where a thing is. "on the left" stands for the whole left column."""
    vertical = {0: ("top", "upper"), 2: ("bottom", "lower")}.get(thing.row)
    side = {0: "left", 2: "right"}.get(thing.column)
    if vertical and side:
        return (f"in the {vertical[0]} {side} corner", f"at the {vertical[0]} {side}", f"in the {vertical[1]} {side}")
    if side:
        return (f"on the {side}", f"on the {side} side", f"over on the {side}")
    if vertical:
        return (f"at the {vertical[0]}", f"near the {vertical[0]}")
    return ("in the middle", "in the center", "in the centre")


def _whereabouts(thing: Thing) -> set[str]:
    """The words of its cell. A phrase fits all things whose cells have its words: "left" fits "top left", too."""
    return set(thing.position.split())


def describe(scene: Scene, thing: Thing, rng: Random, without: frozenset[str] = frozenset()) -> str | None:
    """A phrase that fits this thing of the scene alone, such as "big red boat on the left"; None if there is none.

    without  what it must not give away: any of "kind", "color", "size", "position"
    """
    parts = ({"kind"}, {"color"}, {"position"}, {"kind", "color"}, {"kind", "size"}, {"kind", "position"}, {"size"})
    parts += ({"size", "color"}, {"color", "position"})
    fitting = [used for used in parts if not used & without and _fits_one(scene, thing, used)]
    if not fitting:
        return None
    used = pick(rng, fitting)
    words = [size_adjective(thing.size, rng)] if "size" in used else []
    words += [color_adjective(thing.color, rng)] if "color" in used else []
    words.append(noun(thing.kind if "kind" in used else "thing", rng)[0])
    words += [pick(rng, _position_phrases(thing))] if "position" in used else []
    return " ".join(words)


def _fits_one(scene: Scene, thing: Thing, used: set[str]) -> bool:
    """Do these attributes belong to this thing alone? "the yellow thing" could be the sun, or the moon."""
    if "kind" not in used and "color" in used and thing.color == "yellow":
        return False
    same = [
        other
        for other in scene.things
        if all(getattr(other, name) == getattr(thing, name) for name in used - {"position"})
        and ("position" not in used or _whereabouts(thing) <= _whereabouts(other))
    ]
    return len(same) == 1


# ---------------------------------------------------------------------------------------------------- habits of typing

#: What a slip must not make: other words that could be meant.
OTHER_WORDS = frozenset("hose pane plan pace were cold thee from form bat oat bot bush cap tend".split())


def typed(text: str, rng: Random) -> str:
    """The question as somebody types it: with a greeting, in capitals, without its marks, now and then with a slip."""
    if rng.random() < 0.08:
        text = pick(rng, GREETINGS) + text
    elif rng.random() < 0.06:
        text += pick(rng, THANKS)
    if rng.random() < 0.15:
        text = text.replace("'", "")
    if rng.random() < 0.08:
        text = slip(text, rng)
    text += pick(rng, ("?", "?", "?", "?", "?", "", "", "??" if rng.random() < 0.2 else "?"))
    style = rng.random()
    if style < 0.04:
        return text.upper()
    if style < 0.07:
        return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    return text[:1].upper() + text[1:] if style < 0.4 else text


def slip(text: str, rng: Random) -> str:
    """One word with two inner letters swapped or one left out. First and last letter stay, and so does the sense."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if re.fullmatch(r"[a-z]{4,}", word)]
    if not long:
        return text
    i = pick(rng, long)
    word, swap = words[i], rng.random() < 0.5
    at = 1 + int(rng.random() * (len(word) - 3))
    if swap or len(word) == 4:
        wrong = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    else:
        wrong = word[:at] + word[at + 1 :]
    if wrong not in OTHER_WORDS:
        words[i] = wrong
    return " ".join(words)
