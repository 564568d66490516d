"""A tokenizer from texts of your own: whole words, WordPiece where there are too many different ones, or BPE.

`train_tokenizer` is where to begin.

Notes:

* No word of the texts it is trained on is unknown: whole words are all in the vocabulary, and WordPiece has every
  character.
* With whole words, a word that no text has is unknown and named. With WordPiece it is spelled out.
* Byte-pair encoding (BPE, Sennrich et al. 2016) knows every text: a character that no training text has is written as
  its bytes, as in LLaMA's tokenizer.
* Texts are lower-cased, as the miniature's are.

Paper: arXiv 1508.07909 (BPE). Notebook: none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel
from blip2_lab.models.stage1 import clean_caption
from blip2_lab.picturebook.tokenizer import FAMILIES, as_transformers, split_words, unknown_token
from blip2_lab.training.recipes.own import CAPTION_PROMPT
from blip2_lab.training.vocabulary import words_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

#: What people and prompts write around words of any world.
COMMON = (
    CAPTION_PROMPT,
    EncoderDecoderLanguageModel.question_prompt.replace("{}", ""),
    DecoderLanguageModel.question_prompt.replace("{}", ""),
    *".,:;?!()'\"-",
    *(f"a{mark}" for mark in ".,:;?!()'\"-"),
)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  #: tokens for what BPE has no piece for
LONGEST_WORD = 1000  #: characters; a longer one is unknown to WordPiece


def train_tokenizer(family: str, texts: Iterable[str], vocabulary: int, kind: str = "words") -> PreTrainedTokenizerFast:
    """A tokenizer of the family "bert", "t5" or "opt" that knows every word of `texts`.

    kind        "words": so many different words and marks as `vocabulary` are kept whole; with more of them, WordPiece
                makes as many pieces
                "bpe": byte-pair encoding. `vocabulary` counts all tokens, also the special ones and 256 bytes; short
                texts give fewer
    """
    from tokenizers import Tokenizer, models, trainers

    special, unknown = list(FAMILIES[family][0]), unknown_token(family)
    texts = list(texts)
    if kind == "bpe":
        return as_transformers(_train_bpe(texts, vocabulary, special, unknown), family)
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


def _train_bpe(texts: list[str], vocabulary: int, special: list[str], unknown: str) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, trainers

    trained = _new(Tokenizer(models.BPE(unk_token=unknown)))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(BYTES),
        special_tokens=special,
        limit_alphabet=(vocabulary - len(BYTES)) // 2,  # rarer characters are written as bytes
        show_progress=False,
    )
    trained.train_from_iterator(_spellings(texts), trainer)
    model = json.loads(trained.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)[len(special) :]
    ids = {token: number for number, token in enumerate([*special, *BYTES, *learned])}
    merges = [tuple(merge) for merge in model["merges"]]
    found = _new(Tokenizer(models.BPE(ids, merges, unk_token=unknown, byte_fallback=True)))
    found.decoder = decoders.Sequence([decoders.ByteFallback(), found.decoder])
    return found


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
