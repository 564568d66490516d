"""What a visitor types that is no question about the picture: a greeting, thanks, or the bare name of a thing.

`reply` is where to begin. The miniature is asked none of these: it would answer with half a caption.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES

GREETINGS = frozenset("hi hello hey hallo good morning afternoon evening there you how are".split())
GREETED_BY = frozenset("hi hello hey hallo morning afternoon evening".split())  #: one of these has to be among them
THANKS = frozenset("thanks thank you very much bye goodbye ok okay".split())
THANKED_BY = frozenset("thanks thank bye goodbye".split())
ARTICLES = frozenset("a an the".split())


def reply(text: str) -> str | None:
    """What the page says in the model's place; None for everything that the model should be asked."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    said = set(words)
    if said & GREETED_BY and said <= GREETINGS:
        return "Hello! Ask me about the picture, for example “what is in the picture?”."
    if said & THANKED_BY and said <= THANKS:
        return "You are welcome. Ask me more about this picture, or choose another one."
    if thing := named_thing(words):
        kind = thing.rsplit(" ", 1)[-1]
        return (
            f"What would you like to know about the {thing}? Ask for example “where is the {thing}?” or “what color is "
            f"the {kind}?”."
        )
    return None


def named_thing(words: list[str]) -> str | None:
    """ "red drum" of ["a", "red", "drum"]; None for words that are more, or less, than the name of one thing."""
    *looks, kind = [word for word in words if word not in ARTICLES] or [""]
    return " ".join([*looks, kind]) if kind in KINDS and set(looks) <= {*COLORS, *SIZES} else None
