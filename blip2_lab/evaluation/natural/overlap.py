"""Overlap: which of the visitors' wordings the training texts have, too.

`in_corpus` is where to begin. Two wordings are the same if they differ only in what fills their blanks, in the word for
the picture, in contractions and in marks: "what's the {colour} of {the}?" is "what is the color of {ref}". Greetings
and slips are left out on both sides.

Notebook: 11.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from blip2_lab.evaluation.natural.phrases import PICTURE_NOUNS
from blip2_lab.picturebook.templates import FILLERS, WORDINGS

CHOICE = re.compile(r"\[([^\[\]]*)\]")  #: "[what|which] color"
BLANK = re.compile(r"\{\w+\}")
PICTURES = frozenset(PICTURE_NOUNS) | set(re.findall(r"\w+", FILLERS["picture"]))
SAME = {"{pic}": "picture", "{colour}": "color", "'s": " is", "whats": "what is"}


def in_corpus(wording: str) -> bool:
    """Do the training texts have a wording of the same form?"""
    return plain(wording) in corpus_wordings()


def plain(wording: str) -> str:
    """A wording with its blanks as "_", one word for the picture, and no marks."""
    for found, same in SAME.items():
        wording = wording.replace(found, same)
    wording = re.sub(r"[^\w ]", " ", BLANK.sub("_", wording))
    return " ".join("picture" if word in PICTURES else word for word in wording.split())


@cache
def corpus_wordings() -> frozenset[str]:
    """Every wording of every intention of the corpus, in its `plain` form: about 8,000."""
    return frozenset(plain(one) for templates in WORDINGS.values() for template in templates for one in _each(template))


def _each(template: str) -> Iterator[str]:
    """The template with every alternative of every bracket; what may stand at its end, in every form."""
    for name, filler in FILLERS.items():
        template = template.replace(f"{{{name}}}", "{picture}" if name == "picture" else filler)
    choice = CHOICE.search(template)
    if choice is None:
        yield template.replace("{picture}", "picture")
        return
    for alternative in choice[1].split("|"):
        yield from _each(template[: choice.start()] + alternative + template[choice.end() :])
