"""Is a text fit to be asked? Its length, and the words that a small tokenizer does not know.

`check` and `unknown_words` are where to begin; chat and image search call both before a model is asked.

Notes:

* The miniature's tokenizers know whole words only, so an unknown word is lost entirely: the error names it and the
  nearest word that is known. Tokenizers of real models spell any word out and lack none.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_CHARACTERS = 2000  #: of one question
SMALL_VOCABULARY = 5000  #: below it a tokenizer knows whole words only, and can say which it lacks


class UnknownWords(ValueError):
    """The model does not know a word of what it is asked; the message names it."""


def check(text: str | None, kind: str = "question", example: str = "what is in the picture?") -> str:
    """The text without the spaces around it. Raises ValueError when it is none, empty or too long.

    kind, example  what it should have been, for the message
    """
    if not isinstance(text, str):
        raise ValueError(f"A {kind} is text, and this is none.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"This {kind} has half a character (a lone surrogate): type it again.")
    text = " ".join(text.split())
    if not text.strip(" .?!"):
        raise ValueError(f'There is no {kind} yet: type one, for example "{example}"')
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"That is {len(text):,} characters, and a {kind} may have {MAX_CHARACTERS:,}: ask in fewer.")
    return text


def knows_whole_words_only(tokenizer) -> bool:
    """Is this a miniature's tokenizer: a closed list of words, where an unknown one is lost entirely?"""
    return tokenizer is not None and len(tokenizer) < SMALL_VOCABULARY and tokenizer.unk_token_id is not None


def unknown_words(tokenizer, text: str) -> list[str]:
    """The words of the text that a whole-word tokenizer does not know, once each."""
    if not knows_whole_words_only(tokenizer):
        return []
    pieces = dict.fromkeys(re.findall(r"[^\s.,:?!]+", text))
    return [word for word in pieces if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]]


def is_typo(word: str, meant: str) -> bool:
    """Is it the same word with one letter too many, too few or wrong, or with two neighbours exchanged?

    Short words are too near to each other: "next" does not mean "nest", nor "dog" "do".
    """
    if word[:1] != meant[:1] or min(len(word), len(meant)) < 4 or abs(len(word) - len(meant)) > 1:
        return False
    if len(word) == len(meant):
        wrong = [i for i, (a, b) in enumerate(zip(word, meant, strict=True)) if a != b]
        exchanged = len(wrong) == 2 and word[wrong[0] : wrong[1] + 1] == meant[wrong[0] : wrong[1] + 1][::-1]
        return exchanged or (len(wrong) == 1 and len(word) > 4)
    longer, shorter = sorted((word, meant), key=len, reverse=True)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def unknown_words_sentence(tokenizer, unknown: Sequence[str]) -> str:
    """ "I do not know the word 'colour'; did you mean 'color'?" """
    known = [piece.lstrip("▁") for piece in tokenizer.get_vocab() if piece.startswith("▁")]
    names = ", ".join(f"'{word[:30]}'" for word in unknown[:4]) + (", …" if len(unknown) > 4 else "")
    close = [right for word in unknown[:4] if (right := next((k for k in known if is_typo(word.lower(), k)), None))]
    if close:
        help = f"did you mean {' and '.join(repr(word) for word in close)}?"
    else:
        drawn = {"boat", "cat", "house"} <= set(known)
        help = f"I know {len(known)} words"
        help += ": things such as boat, cat and house, their colors, places and uses." if drawn else "."
    return f"I do not know the word{'s' if len(unknown) > 1 else ''} {names}; {help}"
