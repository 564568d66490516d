"""The characters of a text: whether they say anything, whether a terminal can print them; patterns of words.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import unicodedata

#: Unicode's classes of marks that turn the direction of what follows.
TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def has_no_word(text: str) -> bool:
    """Whether a text has no letter, digit or picture (emoji): punctuation alone."""
    return not any(character.isalnum() or unicodedata.category(character) == "So" for character in text)


def is_numbers_alone(text: str) -> bool:
    """Whether a text has digits, and no letter or picture (emoji)."""
    return not has_no_word(text) and all(one.isnumeric() or has_no_word(one) for one in text)


def printable(name: str) -> str:
    """A text of others as one line for a terminal and for JSON. Escapes stand for what cannot be encoded (names that
    are not UTF-8), for control characters, which may hide the rest of a line, and for marks that turn its direction.
    """
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(one if _is_plain(one) else one.encode("unicode_escape").decode() for one in name)


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) != "Cc" and unicodedata.bidirectional(character) not in TURNS


def any_of(*words: str) -> str:
    """A pattern of one of the words, the longest first."""
    return rf"(?:{'|'.join(sorted(words, key=len, reverse=True))})"
