"""The texts that a model is given: what is no list of texts is refused in a sentence.

`check_texts` is for prompts and candidates, `check_captions` for what is learned, which may not be empty. `check_marks`
refuses marks that would be read as something else than they look like. `warn_of_cut` says that texts lose their ends,
`warn_of_unknown` that they have words which the tokenizer does not know.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What stands for the picture in prompts of transformers, LLaVA, MiniGPT-4 and others.
IMAGE_MARK = re.compile(r"<\|?im(age|g)\w*\|?>", re.IGNORECASE)
#: The tokens of a tokenizer that are no text. (Its other special tokens may be wanted: T5's <extra_id_0>.)
SHOWN = 4  #: unknown words in a warning
MARKS = ("bos_token", "eos_token", "pad_token", "sep_token", "cls_token", "mask_token")


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


def is_cut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], most: int) -> bool:
    """Whether one of the texts has more than `most` tokens, the tokenizer's marks included."""
    return any(len(row) > most for row in tokenizer(list(texts), verbose=False)["input_ids"])


def warn_of_cut(what: str, setting: str = "") -> None:
    """Warn that texts are cut. `what`: which ones; `setting`: what to raise. Python shows equal warnings once, so a
    loop of thousands of batches says it once."""
    raised = f", or raise {setting}" if setting else ""
    warnings.warn(f"{what} are cut, and their ends are lost: shorten them{raised}", stacklevel=2)


def unknown_words(tokenizer: PreTrainedTokenizerBase | None, texts: Sequence[str]) -> list[str]:
    """The words of the texts of which a token is the tokenizer's unknown token, each once."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or not texts:
        return []

    def lacks(pieces: list[str]) -> list[str]:
        rows = tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        return [piece for piece, row in zip(pieces, rows, strict=True) if unknown in row]

    words = dict.fromkeys(word for text in lacks(list(texts)) for word in text.split())
    return lacks(list(words)) if words else []


def warn_of_unknown(what: str, words: Sequence[str] | None = None) -> None:
    """Warn that texts have words that the tokenizer does not know. `words`: which ones; without them, the sentence is
    always the same, and Python shows it once in a loop."""
    named = f": {', '.join(map(repr, words[:SHOWN]))}{', …' if len(words) > SHOWN else ''}" if words else ""
    count = "" if words else "; blip2_lab.training.word_coverage counts and names them"
    warnings.warn(
        f"{what} have words that the tokenizer does not know, so the model can neither read nor write them"
        f"{named}{count}",
        stacklevel=3,
    )


def check_marks(texts: Sequence[str], what: str, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raises ValueError for a text with a mark of the tokenizer, such as "</s>", or one that stands for the picture in
    other programs: nothing in an answer would show that they were read as something else. `what`: what they are."""
    named = (getattr(tokenizer, name, None) for name in MARKS)
    marks = {mark for mark in named if mark and mark[0] in "<["}  # some pad with "!", which people write
    for text in texts:
        if found := IMAGE_MARK.search(text):
            raise ValueError(
                f"A {what} has {found[0]!r}, which stands for the picture in other programs: leave it out, the picture "
                "is put in front of the text by itself."
            )
        if mark := next((mark for mark in marks if mark in text), None):
            raise ValueError(
                f"A {what} has {mark!r}, a mark of the tokenizer, which is read as a beginning, an end or padding: "
                "leave it out."
            )
