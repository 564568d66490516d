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
from difflib import get_close_matches

MAX_CHARACTERS = 2000  #: of one question
SMALL_VOCABULARY = 5000  #: below it a tokenizer knows whole words only, and can say which it lacks


def check(text: str) -> str:
    """The text without the spaces around it. Raises ValueError when it is empty or too long."""
    text = " ".join(text.split())
    if not text.strip(" .?!"):
        raise ValueError('There is no question yet: type one, for example "what is in the picture?"')
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"That is {len(text):,} characters, and a question may have {MAX_CHARACTERS:,}: ask in fewer.")
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


def unknown_words_sentence(tokenizer, unknown: Sequence[str]) -> str:
    """ "I do not know the word 'colour'; did you mean 'color'?" """
    known = [piece.lstrip("▁") for piece in tokenizer.get_vocab() if piece.startswith("▁")]
    names = ", ".join(f"'{word[:30]}'" for word in unknown[:4]) + (", …" if len(unknown) > 4 else "")
    close = [match for word in unknown[:4] for match in get_close_matches(word.lower()[:30], known, n=1, cutoff=0.75)]
    if close:
        help = f"did you mean {' and '.join(repr(word) for word in close)}?"
    else:
        help = f"I know {len(known)} words: things such as boat, cat and house, their colors, places and uses."
    return f"I do not know the word{'s' if len(unknown) > 1 else ''} {names}; {help}"
