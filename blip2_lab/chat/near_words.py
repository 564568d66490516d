"""Words that the miniature does not know, and the known word nearest in meaning: `"crimson"` is read as "red".

`near_word` is where to begin. The visitor is told what was read (`vocabulary.Reading.note`). Only other names of the
same thing are here: whether a bird is a pigeon, the drawn pictures do not show.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re
from functools import cache

from blip2_lab.picturebook.noun_phrases import plural_of

#: Known word -> nouns that are read as it, in the singular; their plurals are read as its plural.
NOUNS: dict[str, str] = {
    "boat": "yacht dinghy sailship motorboat rowboat",
    "car": "taxi cab sedan hatchback",
    "train": "tram",
    "plane": "airliner",
    "bird": "songbird chick",
    "dog": "doggy doggie hound",
    "rabbit": "bunny hare",
    "pig": "piggy",
    "duck": "ducky",
    "cat": "feline tomcat",
    "turtle": "terrapin",
    "flower": "tulip bloom",
    "cactus": "succulent",
    "carrot": "vegetable veggie",
    "cake": "gateau torte",
    "umbrella": "brolly sunshade",
    "hammer": "mallet sledgehammer",
    "lamp": "lightbulb chandelier",
    "house": "bungalow villa mansion dwelling residence",
    "castle": "fort citadel stronghold",
    "tent": "tipi wigwam marquee pavilion",
    "vehicle": "conveyance transportation",
    "animal": "beast critter mammal",
    "plant": "vegetation shrub herb",
    "tool": "utensil implement gadget device appliance",
    "building": "edifice structure",
    "meadow": "prairie pasture grassland",
    "beach": "seashore waterfront strand",
    "street": "avenue alley highway lane boulevard roadway",
    "mountain": "alp",
    "picture": "screenshot img sketch portrait cartoon",
    "thing": "entity article gizmo thingy",
    "color": "colouration pigment",
    "kind": "variety category class species",
    "place": "locale venue",
}
#: Known words -> other words that are read as them.
OTHERS: dict[str, str] = {
    "red": "crimson scarlet reddish burgundy maroon vermilion",
    "blue": "navy azure cyan turquoise bluish aqua cobalt teal",
    "green": "emerald greenish",
    "yellow": "golden gold yellowish",
    "orange": "orangey",
    "purple": "lilac lavender mauve magenta purplish indigo",
    "pink": "pinkish fuchsia",
    "gray": "grayish greyish ashen charcoal metallic",
    "large": "massive gigantic colossal immense vast oversized bulky sizable humongous",
    "small": "minuscule teeny wee petite miniature tinier littlest undersized teensy",
    "largest": "hugest greatest",
    "lowest": "bottommost lowermost",
    "highest": "upmost",
    "cactuses": "cacti",
    "to eat": "edible",
    "see": "observe perceive behold glimpse witness discern",
    "shows": "depicts portrays displays illustrates represents features",
    "show": "portray illustrate represent reveal",
    "drawn": "drawed",
    "shown": "portrayed displayed illustrated represented pictured featured",
    "count": "tally enumerated reckon",
    "many": "numerous",
    "beside": "adjacent alongside",
    "other than": "besides except excluding barring",
    "next": "closest nearest",
    "above": "atop overhead",
    "below": "underside downward",
    "left": "lefthand leftward leftwards",
    "right": "righthand rightward rightwards",
    "middle": "midpoint central centred centered",
    "evening": "dusk sunset twilight nightfall",
    "morning": "dawn sunrise daybreak",
    "noon": "midday",
    "night": "nite",
    "day": "daylit",
    "dark": "gloomy dim",
    "bright": "sunlit",
    "snowy": "wintry snowbound icy snowing",
    "eatable": "yummy tasty delicious",
    "ground": "floor soil",
    "people": "persons individuals folk",
    "children": "kids",
    "person": "individual someone anyone anybody",
    "anything": "whatsoever",
    "what": "wat wut wot whut",
    "the": "da teh",
    "that": "dat",
    "this": "dis",
    "things": "belongings goods",
    "used": "utilized utilised employed",
    "use": "utilize utilise employ",
    "purpose": "aim",
    "live": "reside dwell inhabit",
    "colored": "tinted hued shaded",
    "the same": "alike identical equal",
    "not": "nope",
    "yes": "yep yeah yup",
    "hello": "howdy yo",
    "tell me": "gimme lemme",
    "going to": "gonna",
    "want to": "wanna",
    "because": "cuz coz",
}

#: The end of each direction, as it stands after "closest to the".
ENDS = {
    "lowest": ("ground", "floor", "bottom", "bottom edge", "lower edge"),
    "highest": ("sky", "ceiling", "top", "top edge", "upper edge"),
    "leftmost": ("left", "left edge", "left side", "left border"),
    "rightmost": ("right", "right edge", "right side", "right border"),
}
OPPOSITES = {"lowest": "highest", "highest": "lowest", "leftmost": "rightmost", "rightmost": "leftmost"}
TOWARDS = {
    "lowest": ("down",),
    "highest": ("up",),
    "leftmost": ("left", "to the left"),
    "rightmost": ("right", "to the right"),
}


COMPARATIVES = {
    "lowest": "lower",
    "highest": "higher",
    "leftmost": "more to the left",
    "rightmost": "more to the right",
}


def _towards_the_end(superlative: str) -> tuple[str, ...]:
    """The phrases that mean its comparative: "nearer to the top", "further up"."""
    near = [f"{close} to the {end}" for close in ("closer", "nearer") for end in ENDS[superlative]]
    far = [f"{distant} {way}" for distant in ("further", "farther") for way in TOWARDS[superlative]]
    return (*near, *far)


def _at_the_end(superlative: str) -> tuple[str, ...]:
    """The phrases that mean it: "closest to the ground", "furthest from the sky", "furthest down"."""
    near = [f"{close} to the {end}" for close in ("closest", "nearest") for end in ENDS[superlative]]
    opposite = ENDS[OPPOSITES[superlative]]
    far = [
        phrase
        for distant in ("furthest", "farthest")
        for phrase in (
            *(f"{distant} {away}from the {end}" for away in ("", "away ") for end in opposite),
            *(f"{distant} {way}" for way in TOWARDS[superlative]),
        )
    ]
    return tuple(f"{the}{phrase}" for phrase in (*near, *far) for the in ("the ", ""))


WHERE = ("above", "below", "under", "over", "beside", "next to", "left of", "right of")
#: Known words -> phrases, with a word that is unknown, that are read as them.
PHRASES: dict[str, tuple[str, ...]] = {
    "other than": (
        "apart from",
        "aside from",
        "except for",
        "not counting",
        "not including",
        "leaving out",
        "in addition to",
        "with the exception of",
        "leave out",
        "take away",
        "ignoring",
        "disregarding",
        "forget about",
        "forget",
        "ignore",
    ),
    "other than the": ("without the",),
    "things": ("bits and pieces", "bits and bobs", "odds and ends", "bits"),
    "anything living": ("anything alive",),
    "something living": ("something alive",),
    "please": ("by any chance",),
    "the place": ("the plase",),
    "what place": ("what plase",),
    "which place": ("which plase",),
    "tell me": ("any idea", "any clue", "no idea", "no clue"),
    "name": ("pick out", "single out"),
    "the other things": ("the rest",),
    **{f"the {superlative}": _at_the_end(superlative) for superlative in ENDS},
    **{comparative: _towards_the_end(superlative) for superlative, comparative in COMPARATIVES.items()},
    "to go places with": ("to travel with", "to travel in", "to ride in", "to ride on", "to get around with"),
    "to do a job with": ("to repair things with", "to fix things with", "to mend things with", "to repair", "to fix"),
    "the same number": ("an equal number", "an equal amount", "the same amount"),
    "more than once": ("twice", "repeatedly"),
    "two": ("a pair of", "a couple of"),
    "eat": tuple(f"eat for {meal}" for meal in ("breakfast", "lunch", "dinner", "supper", "dessert")),
    "dry": ("dry in the rain", "dry when it rains", "dry if it rains"),
    "drink tea": tuple(f"drink {drink}" for drink in ("coffee", "milk", "juice", "cocoa")),
    **{where: tuple(f"{just} {where}" for just in ("directly", "immediately")) for where in WHERE},
    "are there": ("remain",),
    "is there": ("remains", "is left over"),
}


@cache
def all_near_words() -> dict[str, str]:
    """Every word of both tables, nouns in the plural, too -> the word, or words, that it is read as."""
    near = {other: word for word, others in OTHERS.items() for other in others.split()}
    for word, others in NOUNS.items():
        for other in others.split():
            near |= {plural_of(other): plural_of(word), other: word}
    return near


def near_word(word: str) -> str | None:
    """The known word, or words, that are nearest in meaning to an unknown one; None where the table has none."""
    return all_near_words().get(word)


def near_phrases(text: str) -> list[tuple[str, str]]:
    """The phrases of `PHRASES` in a text, as they are typed, and the known words that each is read as. Of phrases that
    overlap, the longest."""
    known_as, pattern = _phrases()
    return [(typed, known_as[typed.lower()]) for typed in dict.fromkeys(pattern.findall(text))]


@cache
def _phrases() -> tuple[dict[str, str], re.Pattern[str]]:
    """Every phrase of `PHRASES` -> the known words, and what finds the phrases, the longest first."""
    known_as = {phrase: known for known, phrases in PHRASES.items() for phrase in phrases}
    longest_first = "|".join(sorted(known_as, key=len, reverse=True))
    return known_as, re.compile(rf"\b(?:{longest_first})\b", re.IGNORECASE)
