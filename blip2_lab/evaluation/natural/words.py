"""Words of the natural questions and of their answers: what people call the things of the picture book.

Notes:

* Every list here was written from the world alone (scene.py and the drawings), not from the corpus's templates.
* Questions are typed with these words (phrases.py), and answers are read with them (reading.py).

Notebook: 11.
"""

from __future__ import annotations

from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES, TIMES
from blip2_lab.picturebook.words import NUMBERS, plural

#: Other words for the kinds, as (one, several).
KIND_SYNONYMS: dict[str, tuple[tuple[str, str], ...]] = {
    "boat": (("ship", "ships"), ("sailboat", "sailboats")),
    "car": (("automobile", "automobiles"), ("auto", "autos")),
    "train": (("locomotive", "locomotives"),),
    "plane": (("airplane", "airplanes"), ("aeroplane", "aeroplanes"), ("aircraft", "aircraft"), ("jet", "jets")),
    "bird": (("birdie", "birdies"),),
    "cat": (("kitty", "kitties"), ("kitten", "kittens")),
    "turtle": (("tortoise", "tortoises"),),
    "flower": (("blossom", "blossoms"),),
    "cactus": (("cactus", "cacti"),),
    "umbrella": (("brolly", "brollies"),),
    "cup": (("mug", "mugs"),),
}
#: Things that no scene shows and that visitors ask for all the same.
OUTSIDE = (
    "dog", "horse", "cow", "person", "man", "woman", "child", "truck", "bike", "bus", "elephant", "robot", "chair",
    "banana", "pizza", "dinosaur", "spider", "computer",
)  # fmt: skip
OUTSIDE_PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "bus": "buses"}
SKY = {"sun": "day", "moon": "night"}  #: what the sky shows at each time; visible if nothing stands in the top row

COLOR_WORDS = {color: color for color in COLORS} | {"grey": "gray", "violet": "purple"}
SIZE_WORDS = {"large": "large", "big": "large", "huge": "large", "small": "small", "little": "small", "tiny": "small"}
SIZE_WORDS |= {"medium": "medium"}
PLACE_WORDS = {place: place for place in PLACES} | {"mountain": "mountains", "meadows": "meadow", "streets": "street"}
TIME_WORDS = {time: time for time in TIMES} | {"daytime": "day", "nighttime": "night"}
NUMBER_WORDS = {word: number for number, word in enumerate(NUMBERS)}
NUMBER_WORDS |= {str(n): n for n in range(10)} | {"zero": 0, "single": 1, "both": 2, "pair": 2, "couple": 2}
NUMBER_WORDS |= {"five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
POSITION_WORDS = {"top": "T", "upper": "T", "bottom": "B", "lower": "B", "left": "L", "right": "R"}
POSITION_WORDS |= {word: "M" for word in ("middle", "center", "centre", "central", "mid")}
RELATION_WORDS = {"above": "above", "over": "above", "below": "below", "under": "below", "beneath": "below"}
RELATION_WORDS |= {"underneath": "below", "beside": "near", "near": "near", "behind": "near", "between": "near"}

YES = frozenset("yes yeah yep yup sure indeed correct".split())
NO = frozenset("nope nah".split())
NOTHING = frozenset("none nothing nowhere neither nobody".split())
SEEING = frozenset("see have find spot show contain notice".split())
PICTURES = frozenset("picture pic image photo scene drawing".split())
DETERMINERS = frozenset("a an another the this that these those my your".split())
SEVERAL = frozenset("some several many few any".split())
COPULAS = frozenset("is are was were looks seems".split())
SKIPPED = frozenset(
    "it they he she i we you there here in on at by of to with during and or as so just only also still very quite "
    "right which who its their his her do does did can could would will be been being has had side corner part area "
    "color colour size one ones other others say think called out outside standing sitting of located visible well "
    "from up down towards toward near end edge kind sort type all total altogether shown seen them both next then "
    "please thanks what where but sky against front background".split()
)  #: words that add nothing to check
CONTRACTIONS = (
    (r"\b(is|are|was|does|do|did|has|have|could|would)n'?t\b", r"\1 not"),
    (r"\b(can't|cannot|cant)\b", "can not"),
    (r"\b(there|it|that|he|she|what|where)'s\b", r"\1 is"),
    (r"\b(they|we|you)'re\b", r"\1 are"),
    (r"\bi'm\b", "i am"),
    (r"\bi've\b", "i have"),
)


def _noun_words() -> dict[str, tuple[str, bool]]:
    """Every noun -> (what it means, is it a plural?)."""
    pairs = [(kind, kind, plural(kind)) for kind in KINDS]
    pairs += [(kind, one, several) for kind, others in KIND_SYNONYMS.items() for one, several in others]
    pairs += [(category, category, category + "s") for category in CATEGORIES]
    pairs += [("thing", one, one + "s") for one in ("thing", "object", "item")]
    pairs += [(noun, noun, OUTSIDE_PLURALS.get(noun, noun + "s")) for noun in OUTSIDE]
    pairs += [(noun, noun, noun + "s") for noun in ("sun", "moon", "star", "cloud")]
    return {several: (meaning, True) for meaning, _, several in pairs} | {
        one: (meaning, False) for meaning, one, _ in pairs
    }


NOUN_WORDS = _noun_words()
EITHER_NUMBER = ("fish", "cherry", "food")  #: "cherries" may be one drawn pair; "fish" is its own plural
