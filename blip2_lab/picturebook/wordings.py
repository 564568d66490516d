"""The many ways in which people ask the same thing: a template (templates/) in one wording, as somebody types it.

`expand` chooses one alternative of every bracket of a template and fills the slots. The text corpus (corpus.py) asks in
these words, so that the language model meets a visitor's language before it meets a picture.

Notes:

* The held-out natural questions (evaluation) have wordings of their own; a test compares the two sets.
* `SYNONYMS` are words for kinds, sizes and colors that people use and captions do not.

Paper: section 3.4 (instruction-trained language models), 4.1 (instructed generation). Notebook: 12.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from .scene import pick
from .templates import FILLERS, WORDINGS

#: Other words for what the drawn world knows by one name, singular and plural.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "boat": ("ship", "sailboat", "vessel"),
    "car": ("automobile", "auto"),
    "train": ("locomotive", "railway"),
    "plane": ("airplane", "aeroplane", "aircraft", "jet"),
    "fish": ("goldfish",),
    "bird": ("birdie", "sparrow"),
    "cat": ("kitten", "kitty", "pussycat"),
    "turtle": ("tortoise",),
    "flower": ("blossom", "daisy"),
    "cake": ("birthday cake", "pie"),
    "umbrella": ("parasol",),
    "cup": ("mug", "teacup"),
    "lamp": ("lantern", "light"),
    "ball": ("beachball",),
    "house": ("cottage", "cabin", "hut"),
    "castle": ("fortress", "palace"),
    "tent": ("teepee",),
    "large": ("big", "huge", "giant", "enormous"),
    "small": ("little", "tiny", "mini"),
    "purple": ("violet",),
    "gray": ("silver",),
    "vehicle": ("means of transport",),
    "animal": ("creature", "living creature", "pet"),
    "food": ("thing to eat", "eatable thing", "snack"),
    "plant": ("growing thing",),
    "tool": ("instrument", "useful thing"),
    "toy": ("plaything", "thing to play with"),
    "building": ("place to live", "construction"),
}

#: What is part of a background, by place and by time: true there and false elsewhere. "sky" is true everywhere.
SCENERY: dict[str, tuple[str, ...]] = {
    "meadow": ("grass", "lawn"),
    "beach": ("sea", "water", "sand", "waves", "shore", "coast"),
    "snow": ("ice", "winter"),
    "street": ("road", "pavement", "asphalt", "sidewalk"),
    "mountains": ("rocks", "peaks", "cliffs"),
    "day": ("sun", "sunshine", "sunlight", "daylight", "clouds"),
    "night": ("moon", "stars", "moonlight", "darkness"),
}

#: Things that people ask for and that no scene shows.
ABSENT: tuple[str, ...] = tuple(
    """dog puppy horse cow pig sheep goat lion tiger elephant bear monkey rabbit mouse snake frog duck chicken spider
    butterfly bee whale shark dolphin penguin dinosaur dragon person man woman boy girl child baby human king queen
    princess robot clown soldier doctor teacher face hand foot eye hat shirt shoe dress coat glove ring watch bag
    backpack box bottle glass plate bowl spoon fork knife table chair bed sofa desk door window wall mirror clock
    phone telephone computer laptop screen television radio camera book newspaper letter pen pencil paper map flag
    bicycle bike motorcycle bus truck helicopter rocket spaceship submarine ladder rope wheel bridge tower church
    school hospital shop bank fence garden fountain statue bench mailbox candle guitar piano violin trumpet
    doll puzzle balloon dice banana orange lemon pear grape strawberry tomato potato onion bread cheese egg pizza
    burger sandwich cookie chocolate salad soup bush leaf mushroom rose palm volcano rainbow lightning
    snowman""".split()
)

#: What people put before and after a question. It changes nothing in the answer.
BEFORE = (
    "please,", "hey,", "hello,", "hi,", "ok,", "okay,", "so", "so,", "and", "now", "well,", "tell me:", "tell me,",
    "excuse me,", "question:", "one more question:", "quick question:", "next,", "look at the {picture}.",
    "look at this {picture}:", "in the {picture},", "in this {picture},", "from the {picture},", "for me,", "model,",
    "i wonder,", "i wonder:", "just tell me,", "be honest,", "hmm,", "oh,", "then", "also,", "and now,", "first,",
    "can you answer this:", "answer this:", "think and answer:", "my question is:", "i have a question:", "but",
    "looking at the {picture},", "given the {picture},", "according to the {picture},", "actually,", "by the way,",
)  # fmt: skip
AFTER = (
    "please", "[in|on] the {picture}", "in this {picture}", "here", "exactly", "right now", "do you think", "for me",
    "if you can see it", "in your opinion", "in one word", "in short", "i wonder", "my friend", "thanks", "thank you",
    "in the {picture}, please", "that you can see", "really", "overall", "actually", "now", "would you say",
)  # fmt: skip

#: Words that a question may have in it anywhere and that change nothing in its answer.
ANYWHERE = tuple(
    """actually really perhaps maybe possibly currently basically clearly simply just also again still honestly roughly
    probably certainly surely definitely sir dear buddy mate friend folks guys quickly kindly precisely
    specifically generally usually lovely nice cute funny pretty beautiful great wonderful strange whole entire
    main given following mentioned very quite rather too much will shall should must may might be been being got
    get let us our your my his her their because since while although though always sometimes often soon later
    today tomorrow yesterday sure correct answer reply respond question word words sentence english model
    machine test try check help need want like love hope think guess believe suppose imagine remember understand
    know wonder mean means feel ask asked asking wanted thanks cheers cool awesome amazing super fine good bad
    better best new old young some close far away""".split()
)

#: Words that people use and no template has: known, so that a question with one of them is not refused.
KNOWN = tuple(
    """not no never only above between beside near next inside outside front behind together first second third
    last middle side edge half quarter upper lower leftmost rightmost topmost uppermost lowest highest bigger
    smaller larger taller any other another else every each same both either neither alone why when who whose
    whom yes wrong right end start begin around across along through""".split()
)

UNKNOWN = "wug"  #: stands for any word that the vocabulary lacks

#: Small words that people leave out when they type in a hurry.
DROPPED = frozenset("the a an is are do you does can there of in me".split())

_GROUP = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(rng: Random, template: str, **slots: str) -> str:
    """One wording of a template: every slot filled, one alternative of every bracket chosen."""

    def fill(match: re.Match) -> str:
        name = match[1]
        return slots[name] if name in slots else FILLERS[name]

    while _SLOT.search(template):
        template = _SLOT.sub(fill, template)
    while group := _GROUP.search(template):
        template = template[: group.start()] + pick(rng, group[1].split("|")) + template[group.end() :]
    return " ".join(template.replace("'s", " is").split())  # "the boat's color", as the tokenizers read it


def wording(rng: Random, intention: str, **slots: str) -> str:
    """The intention in one of its wordings, without a question mark."""
    return expand(rng, pick(rng, WORDINGS[intention]), **slots)


def as_typed(rng: Random, text: str) -> str:
    """The question as somebody types it: something before or after it, a small word left out, its mark or none."""
    if rng.random() < 0.25:
        text = f"{expand(rng, pick(rng, BEFORE))} {text}"
    elif rng.random() < 0.2:
        text = f"{text} {expand(rng, pick(rng, AFTER))}"
    if rng.random() < 0.15:
        words = text.split()
        for _ in range(1 if rng.random() < 0.7 else 2):
            draw = rng.random()
            word = UNKNOWN if draw < 0.4 else pick(rng, ANYWHERE if draw < 0.9 else KNOWN)
            words.insert(int(rng.random() * (len(words) + 1)), word)
        text = " ".join(words)
    if rng.random() < 0.08:
        words = text.split()
        small = [i for i, word in enumerate(words) if word in DROPPED]
        if small:
            del words[pick(rng, small)]
            text = " ".join(words)
    return text + ("?" if rng.random() < 0.75 else "")


@cache
def words_of_wordings() -> frozenset[str]:
    """Every word of every template and table above, without slots and punctuation."""
    texts = [text for texts in WORDINGS.values() for text in texts] + [*FILLERS.values(), *BEFORE, *AFTER]
    texts += [*ABSENT, *ANYWHERE, *KNOWN]
    texts += [text for texts in (*SYNONYMS.values(), *SCENERY.values()) for text in texts] + ["sky"]
    found = re.sub(r"\{\w+\}('s)?|[\[\]|.,:?!]", " ", " ".join(texts)).split()
    return frozenset(found)
