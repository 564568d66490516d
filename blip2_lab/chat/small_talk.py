"""What a visitor types that is no question about the picture: a greeting, thanks, doubt, or the bare name of a thing.

`reply` is where to begin. The miniature is asked none of these: it would answer with half a caption, and "are you
sure?" with a "yes" or "no" that means nothing.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat.vocabulary import SHORT_FORMS
from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES

GREETINGS = frozenset(
    """hi hello hey hallo good morning afternoon evening there you how are and to all everyone everybody today doing
    nice meet see my friend again""".split()
)
GREETED_BY = frozenset("hi hello hey hallo morning afternoon evening".split())  #: one of these has to be among them
THANKS = frozenset(
    """thanks thank you very much bye goodbye ok okay so a lot for your the help answer answers that was is this are re
    s great good nice cool helpful kind well done see later have day and""".split()
)
THANKED_BY = frozenset("thanks thank bye goodbye".split())
AGREED = frozenset(("ok", "okay", "yes"))
DOUBTED = frozenset(
    ("why", "why not", "how do you know", "really", "are you sure", "no", "wrong", "not true")
    + tuple(f"{that} {said}" for that in ("you are", "it is", "that is", "this is") for said in ("wrong", "not true"))
)
MACHINES = "robot|bot|machine|computer|program|model|ai|human|person|real person"
ASKED_WHO = re.compile(
    rf"(who|what) are you|are you (a |an )?({MACHINES})|what is your name|who made you|help|help me|"
    r"(so )?(what|how) (can|could|do|should|may) (you|i) (do|know|answer|ask|say|start|begin)( you| here| now)?|"
    r"what (are you able to do|are you for|questions can i ask)|how does this work"
)
ARTICLES = frozenset("a an the".split())


def reply(text: str) -> str | None:
    """What the page says in the model's place; None for everything that the model should be asked."""
    words = [SHORT_FORMS.get(word, word) for word in re.findall(r"[^\W\d_]+", text.lower())]
    said = set(words)
    sentence = " ".join(words)
    if sentence == "how are you" or (said & GREETED_BY and said <= GREETINGS):
        return "Hello! Ask me about the picture, for example “what is in the picture?”."
    if said & THANKED_BY and said <= THANKS:
        return "You are welcome. Ask me more about this picture, or choose another one."
    if sentence in AGREED:
        return "Ask me more about this picture, or choose another one."
    if sentence in DOUBTED:
        return (
            "The model cannot explain or check its own answer, and the answer may be wrong. Ask about the picture in "
            "other words, for example “is there a boat?” or “what is in the picture?”."
        )
    if ASKED_WHO.fullmatch(sentence):
        return "I am a small model that answers questions about pictures. Ask for example “what is in the picture?”."
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
