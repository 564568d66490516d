"""The texts that a model is given: what is no list of texts is refused in a sentence.

`check_texts` is for prompts and candidates, `check_captions` for what is learned, which may not be empty.

Paper: none. Notebook: none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def check_texts(texts: Sequence[str], what: str) -> list[str]:
    """The texts as a list. Raises ValueError for a single string, which would be read letter by letter, and for what is
    no text. `what`: what they are, for the message."""
    if isinstance(texts, str | bytes):
        raise ValueError(f"A list of {what}s is wanted, and this is a single text: put it in a list, [{texts[:40]!r}].")
    if isinstance(texts, dict | set) or not isinstance(texts, Iterable):  # a set has no order, a dict would lose values
        raise ValueError(f"A {what} is text, and this is {texts!r:.60}.")
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"A {what} is text, and this is {text!r:.60}.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"A {what} has half a character (a lone surrogate): {text!r:.60}.")
    return texts


def check_captions(captions: Sequence[str]) -> list[str]:
    """The captions to learn, as a list. Raises ValueError for what is no text, and for an empty one."""
    captions = check_texts(captions, "caption")
    if empty := [number for number, caption in enumerate(captions) if not caption.strip()]:
        raise ValueError(f"Caption {empty[0]} is empty, and there is nothing to learn from it: leave its picture out.")
    return captions
