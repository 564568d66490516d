"""A tokenizer from texts of your own: whole words, or WordPiece where there are too many different ones.

`train_tokenizer` is where to begin.

Notes:

* No word of the texts it is trained on is unknown: whole words are all in the vocabulary, and WordPiece has every
  character.
* With whole words, a word that no text has is unknown and named. With WordPiece it is spelled out.
* Texts are lower-cased, as the miniature's are.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel
from blip2_lab.models.stage1 import clean_caption
from blip2_lab.picturebook.tokenizer import FAMILIES, as_transformers, split_words, unknown_token
from blip2_lab.training.recipes.own import CAPTION_PROMPT
from blip2_lab.training.vocabulary import words_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: What people and prompts write around words of any world.
COMMON = (
    CAPTION_PROMPT,
    EncoderDecoderLanguageModel.question_prompt.replace("{}", ""),
    DecoderLanguageModel.question_prompt.replace("{}", ""),
    *".,:;?!()'\"-",
    *(f"a{mark}" for mark in ".,:;?!()'\"-"),
)
LONGEST_WORD = 1000  #: characters; a longer one is unknown to WordPiece


def train_tokenizer(family: str, texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the family "bert", "t5" or "opt" that knows every word of `texts`.

    vocabulary  so many different words and marks are kept whole; with more of them, WordPiece makes as many pieces
    """
    from tokenizers import Tokenizer, models, trainers

    special, unknown = list(FAMILIES[family][0]), unknown_token(family)
    texts = list(texts)
    words = _new(Tokenizer(models.WordLevel(unk_token=unknown)))
    words.train_from_iterator(_spellings(texts), trainers.WordLevelTrainer(vocab_size=2**31, special_tokens=special))
    if words.get_vocab_size() <= vocabulary + len(special):
        return as_transformers(words, family)
    pieces = models.WordPiece(unk_token=unknown, continuing_subword_prefix="", max_input_chars_per_word=LONGEST_WORD)
    split = _new(Tokenizer(pieces))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary + len(special),
        special_tokens=special,
        continuing_subword_prefix="",
        show_progress=False,
    )
    split.train_from_iterator(_spellings(texts), trainer)
    return as_transformers(split, family)


def _new(tokenizer):
    from tokenizers import normalizers

    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    split_words(tokenizer)
    return tokenizer


def _spellings(texts: list[str]) -> Iterator[str]:
    """Every form in which a word of the texts is read: as it stands, without the punctuation around it, between marks
    as a question is checked (chat/vocabulary.py), and as the text encoder reads captions."""
    yield from COMMON
    for text in texts:
        yield text
        yield clean_caption(text, max_words=len(text))
        yield from words_of(text)
        yield from re.split(r"[\s.,:?!]+", text)
        yield from words_of(clean_caption(text, max_words=len(text)))
