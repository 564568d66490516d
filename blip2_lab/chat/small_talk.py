"""What a visitor types that is no question about the picture: a greeting, thanks, doubt, or the bare name of a thing.

`reply` is where to begin. The miniature is asked none of these: it would answer with half a caption, and "are you
sure?" with a "yes" or "no" that means nothing.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.chat.vocabulary import INTERJECTIONS, SHORT_FORMS
from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES

GREETINGS = frozenset(
    """hi hello hey hallo hola bonjour ciao salut namaste good morning afternoon evening there you how are and to all
    everyone everybody today doing nice meet see my friend again""".split()
)
#: One of these has to be among them.
GREETED_BY = frozenset("hi hello hey hallo hola bonjour ciao salut namaste morning afternoon evening".split())
THANKS = frozenset(
    """thanks thank you very much bye goodbye ok okay so a lot for your the help answer answers that was is this are re
    s all now great good nice cool helpful kind smart clever funny well done see later have day and""".split()
)
THANKED_BY = frozenset("thanks thank bye goodbye".split())
AGREED = frozenset(("ok", "okay", "yes"))
SHORTENED_FORMS = {"you re": "you are", "that s": "that is", "it s": "it is", "i m": "i am"}  #: without apostrophes
SHORTENED = re.compile(rf"\b({'|'.join(SHORTENED_FORMS)})\b")
DOUBTED = re.compile(
    r"((but|and|no|hmm|really) )*("
    r"why|why not|how do you know|really|no|wrong|not true|(look|count|check|think|try)( it)? again|"
    r"(are )?you (really |very |quite |so )?sure( about (that|this|it))?|is (that|this|it) (right|correct|true)|"
    r"(i think )?(you are|it is|that is|this is) (wrong|not (true|right|correct))|"
    r"i (do not|don t|dont) (think so|believe (you|it|that)))"
)
PRAISED = (
    "(good|great|nice|cool|smart|clever|funny|amazing|awesome|perfect|right|correct|wonderful|fantastic|brilliant)"
)
PRAISE = re.compile(
    rf"well done|(you are|that is|this is|it is) ((so|very|really|too|quite|pretty) )*{PRAISED}|"
    rf"((so|very|really) )*{PRAISED} (job|one|work|answer|boy|girl|robot|bot)"
)
LAUGHTER = frozenset("lol haha hahaha hehe wow yay".split())
#: What the page cannot do, asked for.
CHANGES = re.compile(
    r"((please|now|can you|could you|i want you to) )*"
    r"((draw|paint|add|remove|delete|erase|move|rotate|change|replace)|make (the|it|this|that)) \w.*"
)
LANGUAGES = (
    "english|french|spanish|german|italian|chinese|japanese|arabic|hindi|portuguese|russian|turkish|dutch|polish"
)
OTHER_LANGUAGE = re.compile(
    rf"(.* )?(in|to|into) ({LANGUAGES})( please)?|(do|can) you (speak|understand) ({LANGUAGES})"
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
    sentences = [sentence for sentence in re.split(r"[.?!;]+", text) if re.search(r"\w", sentence)]
    replies = [_reply(sentence) for sentence in sentences]
    return replies[-1] if replies and None not in replies else _reply(text)


def _reply(text: str) -> str | None:
    words = [SHORT_FORMS.get(word, word) for word in re.findall(r"[^\W\d_]+", text.lower())]
    sentence = SHORTENED.sub(lambda found: SHORTENED_FORMS[found[0]], " ".join(words)).replace("good night", "goodbye")
    said = set(sentence.split())
    plain = " ".join(word for word in sentence.split() if word not in INTERJECTIONS) or sentence
    if sentence == "how are you" or (said & GREETED_BY and said <= GREETINGS):
        return "Hello! Ask me about the picture, for example “what is in the picture?”."
    if said & THANKED_BY and said <= THANKS:
        return "You are welcome. Ask me more about this picture, or choose another one."
    if sentence in AGREED:
        return "Ask me more about this picture, or choose another one."
    laughs = bool(said & LAUGHTER)
    if PRAISE.fullmatch(plain) or (laughs and (said <= LAUGHTER or re.fullmatch(PRAISED, plain))):
        return "Thank you. Ask me more about this picture, or choose another one."
    if DOUBTED.fullmatch(plain):
        return (
            "The model cannot explain or check its own answer, and the answer may be wrong. Ask about the picture in "
            "other words, for example “is there a boat?” or “what is in the picture?”."
        )
    if OTHER_LANGUAGE.fullmatch(plain):
        return "I read and answer English only. Ask for example “what is in the picture?”."
    if CHANGES.fullmatch(plain):
        return "I cannot change the picture: I answer questions about it. Ask for example “what is in the picture?”."
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
