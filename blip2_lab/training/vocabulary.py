"""Word coverage: how many of a text's words a tokenizer knows, counted before training.

`word_coverage` is where to begin: it counts running words and names the most frequent unknown ones. `check_coverage`
stops a run whose texts are mostly unknown. `UsableTexts` decides for one caption or answer.

    coverage = word_coverage(model.language_model.tokenizer, captions)
    print(coverage.sentence("the language model"))

Notes:

* Running words are counted, not different ones: a vocabulary without "a" loses more than one without "zeppelin".
* A word is unknown if one of its tokens is the tokenizer's unknown token, or if no token is left of it. Tokenizers of
  bytes or of byte pairs (OPT's, FlanT5's for most scripts) spell any word out and lack none.
* A language model can neither read nor write an unknown word, and what a caption says with it is lost.

Paper: section 3.4 (captions). Notebook: 08.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from blip2_lab.common.characters import printable
from blip2_lab.models.texts import IMAGE_MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 8  #: unknown words in a sentence
MOSTLY = 0.5  #: a text with a larger share of unknown words is left out
MOST_LENGTHS = 20_000  #: texts whose length in tokens is measured

#: (question or None, caption or answer) -> why it cannot be trained on, or None
Usable = Callable[[str | None, str], str | None]


def words_of(text: str) -> list[str]:
    """The words of a text, without the punctuation around them; what has no letter, digit or picture is no word."""
    words = (_strip(word) for word in text.split())
    return [word for word in words if any(_is_content(character) for character in word)]


def _strip(word: str) -> str:
    start, end = 0, len(word)
    while start < end and unicodedata.category(word[start]).startswith("P"):
        start += 1
    while end > start and unicodedata.category(word[end - 1]).startswith("P"):
        end -= 1
    return word[start:end]


def _is_content(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) == "So"  # So: emoji


class Vocabulary:
    """Which words a tokenizer knows. Each different word is tokenized once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, bool] = {}

    def learn(self, words: Iterable[str]) -> None:
        """Tokenize these words together, which is faster than one at a time."""
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if not new:
            return
        unknown = self.tokenizer.unk_token_id
        rows = self.tokenizer(new, add_special_tokens=False)["input_ids"]
        self._known |= {word: bool(row) and unknown not in row for word, row in zip(new, rows, strict=True)}

    def unknown(self, text: str) -> list[str]:
        """The unknown words of a text, in their order."""
        words = words_of(text)
        self.learn(words)
        return [word for word in words if not self._known[word]]


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer knows of some texts: running `words`, `different` ones, and the `unknown` ones, counted.

    `cut`: the share of the texts that are longer than the model reads.
    """

    words: int = 0
    different: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    cut: float = 0.0

    @property
    def share(self) -> float:
        """The share of running words that are unknown."""
        return self.unknown.total() / self.words if self.words else 0.0

    def most_frequent(self, count: int = SHOWN) -> list[tuple[str, int]]:
        """The most frequent unknown words and how often they occur."""
        return sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))[:count]

    def sentence(self, part: str) -> str:
        """ "the language model does not know 31 % of the words (412 of 1,330 running words, 57 of 120 …)" """
        if not self.unknown:
            return f"{part} knows every word"
        listed = ", ".join(f"{printable(word)} {count}" for word, count in self.most_frequent())
        more = " …" if len(self.unknown) > SHOWN else ""
        return (
            f"{part} does not know {_percent(self.share)} of the words ({self.unknown.total():,} of {self.words:,} "
            f"running words, {len(self.unknown):,} of {self.different:,} different ones; most often: {listed}{more})"
        )

    def to_dict(self) -> dict:
        """For `run_folder.WORDS_FILE`."""
        return {
            "words": self.words,
            "different": self.different,
            "unknown": self.unknown.total(),
            "share": round(self.share, 4),
            "most_frequent": self.most_frequent(50),
            "cut": round(self.cut, 4),
        }


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 else "less than 1 %"


def word_coverage(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_text_tokens: int | None = None
) -> Coverage:
    """Count what `tokenizer` knows of these texts. `max_text_tokens`: the model's limit, to count texts that are cut.

    Capital and small letters count as one word, the tokenizer decides whether it knows each. Raises ValueError for a
    single text, which would be read letter by letter, and for what is no text.
    """
    if isinstance(texts, str | bytes) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"The words of a list of texts are counted, and this is {texts!r:.60}.")
    running = Counter(word for text in texts for word in words_of(text))
    vocabulary = Vocabulary(tokenizer)
    vocabulary.learn(running)
    unknown: Counter[str] = Counter()
    for word, count in running.items():
        if not vocabulary._known[word]:
            unknown[word.lower()] += count
    cut = 0.0
    if max_text_tokens and texts:
        measured = list(texts[:: -(-len(texts) // MOST_LENGTHS)])
        rows = tokenizer(measured, truncation=False, verbose=False)["input_ids"]  # counted only: no model reads them
        cut = sum(len(row) > max_text_tokens for row in rows) / len(rows)
    return Coverage(running.total(), len({word.lower() for word in running}), unknown, cut)


def check_coverage(coverage: Coverage, part: str, limit: float, ways_out: str) -> str | None:
    """A note about unknown words and cut texts, or None if there are none.

    Raises ValueError if the share of unknown running words is above `limit`; `ways_out` ends its sentence.
    """
    if coverage.share > limit:
        raise ValueError(
            f"{coverage.sentence(part)}; more than data.unknown_words={limit:g} allows, because it can neither read "
            f"nor write them. {ways_out}, or train all the same with --set data.unknown_words=1"
        )
    notes = [f"{coverage.sentence(part)}; it can neither read nor write them"] if coverage.unknown else []
    if coverage.cut:
        notes.append(f"{_percent(coverage.cut)} of the texts are longer than model.max_text_tokens: their ends are cut")
    return "; ".join(notes) or None


class UsableTexts:
    """Decides whether a caption, or a question with its answer, can be trained on: `usable(question, text)`.

    Not usable: texts with more than half of their words unknown, and those with one of the tokenizer's own marks, such
    as "</s>": a tokenizer reads it as the end of the text, or as padding, and not as what is written. Nor those with
    `<image>`, which stands for the picture in other programs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.vocabulary = Vocabulary(tokenizer)
        ends = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)  # OPT's unknown token is its end
        self.marks = [mark for mark in tokenizer.all_special_tokens if mark != tokenizer.unk_token or mark in ends]
        self._decide = lru_cache(maxsize=100_000)(self._reason)

    def __call__(self, question: str | None, text: str) -> str | None:
        """Why this text cannot be used, or None."""
        return self._decide(question, text)

    def _reason(self, question: str | None, text: str) -> str | None:
        for each in filter(None, (question, text)):
            if mark := next((mark for mark in self.marks if mark in each), None):
                return f"{mark} in the text, a mark of the tokenizer"
            if mark := IMAGE_MARK.search(each):
                return f"{mark[0]} in the text, which stands for the picture in other programs"
            words, unknown = words_of(each), self.vocabulary.unknown(each)
            if len(unknown) > MOSTLY * len(words):
                return "mostly unknown words"
        return None
