"""Check a text before it is asked: its length, and the words that a small tokenizer does not know.

`check` and `read` are where to begin; chat and image search call both before a model is asked.

Notes:

* The miniature's tokenizers know whole words only. A slip of the keyboard is read as the word that was meant, and a
  word of near meaning (near_words.py) as the known one, and the visitor is told; any other word becomes the unknown
  token. Tokenizers of real models spell any word out.
* Stage 1 of the miniature has read captions of the picture book, which call each thing by one name: `canonical`
  replaces the other names.

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from blip2_lab.chat.decisive_words import TURNING_WORDS, unknown_decides
from blip2_lab.chat.near_words import near_phrases, near_word
from blip2_lab.chat.real_words import REAL_WORDS
from blip2_lab.common.characters import has_no_word, printable
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES
from blip2_lab.picturebook.wordings import SYNONYMS

MAX_CHARACTERS = 2000  #: of one question
SMALL_VOCABULARY = 5000  #: below it a tokenizer knows whole words only, and can say which it lacks
SHORTEST_CORRECTED = 4  #: letters; of shorter words only swapped letters ("teh") and missing vowels ("wht")
SHOWN = 60  #: characters of a word, or of a phrase, in a note
LONG_WORD = 7  #: letters from which on two slips of the keyboard are forgiven
EXAMPLE = "what is in the picture?"
HELP = (
    "I read English: ask about the things in the picture, their number, colors, sizes and places, for example "
    f'"{EXAMPLE}" or "how many things are there?"'
)
OWN_HELP = "I know only the words of the texts that I have read: ask in these."  #: a miniature of other pictures
TURNED_HELP = 'It turns the question round: ask what there is, for example "is there anything on the left?"'
OWN_CAPTION_HELP = "I know only the words of the captions that I have read: write in these."
CAPTION_HELP = 'I read English captions, which name the things of the picture, for example "a red boat."'
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  #: of a keyboard; a row stands a third of a key right of the one above


def _keys_beside(letter: str) -> str:
    row, column = next((r, keys.index(letter)) for r, keys in enumerate(ROWS) if letter in keys)
    places = ((row, -1), (row, 1), (row - 1, 0), (row - 1, 1), (row + 1, -1), (row + 1, 0))
    return "".join(ROWS[r][column + c] for r, c in places if 0 <= r < 3 and 0 <= column + c < len(ROWS[r]))


BESIDE = {letter: _keys_beside(letter) for letter in LETTERS}  #: letter -> the keys around it
SHORT_FORMS = {  #: as typed
    **{"r": "are", "u": "you", "ur": "your", "whats": "what is", "thx": "thanks", "ty": "thanks"},
    **{"pls": "please", "plz": "please"},
    **{"wats": "what is", "whts": "what is", "im": "i am", "ive": "i have"},
    **{"ther": "there", "tel": "tell", "se": "see", "foto": "photo", "coler": "color", "culor": "color", "ore": "or"},
    **{"these": "the", "those": "the", "them": "the things"},
}
#: What people say before a question; it changes nothing in the answer. Left out where a vocabulary lacks it.
INTERJECTIONS = frozenset(
    """sorry um umm uh uhh uhm erm ehm err ah aha huh ooh wow yay lol haha hahaha hehe omg btw bro dude madam mister mr
    hola bonjour ciao salut hallo namaste""".split()
)
#: Spellings that a miniature's tokenizer rewrites before it looks for words: not in its list, and yet mistyped.
SPELLINGS = frozenset(
    """colour colours coloured grey whats wheres whos hows thats theres isnt arent wasnt dont doesnt didnt cant hasnt
    cannot pics""".split()
)
#: What is corrected of three letters, where many words of other languages are near ("ist", "est").
SHORT_WORDS = frozenset("the and are how who what any you can see for not one two is it of".split())


#: Of several words a slip away, one that tells of things is meant before a small word: "ledt" is "left", not "let".
TELLING = frozenset(
    (*KINDS, *map(plural_of, KINDS), *COLORS, *SIZES, "left", "right", "top", "bottom", "color", "size")
)
#: What things have, in the singular, as the texts name it.
PARTS = frozenset(facts.part for facts in FACTS.values())


class UnknownWords(ValueError):
    """The model does not know the words of a text; the message names them and says what can be asked."""


@dataclass(frozen=True)
class Reading:
    """A text as a small tokenizer can read it, the words that were corrected (typed, read), and the unknown ones."""

    text: str
    corrected: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """`I read "waht" as "what". I do not know the word "zebra".`, or nothing where all words are known."""
        notes = []
        if self.corrected:
            read_as = ", ".join(f'"{_short(typed)}" as "{word}"' for typed, word in self.corrected)
            notes.append(f"I read {read_as}.")
        if self.unknown:
            notes.append(f"I do not know the word{'s' if len(self.unknown) > 1 else ''} {_listed(self.unknown)}.")
        return " ".join(notes)


def check(text: str | None, kind: str = "question", example: str = "what is in the picture?") -> str:
    """The text without the spaces around it. Raises ValueError when it is none, empty or too long.

    kind, example  what it should have been, for the message
    """
    if not isinstance(text, str):
        raise ValueError(f"A {kind} is text, and this is {'none' if text is None else repr(text)[:60]}.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"This {kind} has half a character (a lone surrogate): type it again.")
    text = " ".join(text.split())
    if not re.search(r"\w", text):  # "?", or an emoji: no word that a model could answer
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
    found = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in re.findall(r"[^\s.,:?!]+", text)}

    def is_known(word: str, ids: list[int]) -> bool:  # of an emoji no token may be left; "</s>" is a mark, no word
        is_mark = any(mark in word for mark in tokenizer.all_special_tokens)
        return tokenizer.unk_token_id not in ids and not is_mark and bool(ids or has_no_word(word))

    return [word for word, ids in found.items() if not is_known(word, ids)]


def read(tokenizer, text: str, help: str | None = None) -> Reading:
    """The text with misspelled words corrected.

    Raises UnknownWords, which ends with `help` (by default what can be asked), for a text without a known word; where
    the question would be another one without the unknown word ("can they fly?", see decisive_words.py); and where words
    are unknown and most others were near to known ones: that is another language, and no slips.
    """
    unknown = unknown_words(tokenizer, text)
    if not unknown:
        return Reading(text)
    if said_before := [word for word in unknown if word.lower() in INTERJECTIONS]:
        rest = re.sub(rf"(?<!\w)({'|'.join(said_before)})(?!\w)[\s.,:!]*", "", text)
        if re.search(r"\w", rest):
            return read(tokenizer, rest, help)
    phrases = {typed: word for typed, word in near_phrases(text) if not unknown_words(tokenizer, word)}
    if phrases:
        for typed, word in phrases.items():
            text = text.replace(typed, word)
        reading = read(tokenizer, text, help)
        return replace(reading, corrected=(*phrases.items(), *reading.corrected))
    known = {piece.lstrip("▁") for piece in tokenizer.get_vocab() if piece.startswith("▁")}
    known |= SPELLINGS.difference(unknown_words(tokenizer, " ".join(SPELLINGS)))
    nearest = {word: found for word in unknown if (found := nearest_word(word.lower(), known))}
    if (last := re.search(r"\b(these|those)\W*$", text, re.IGNORECASE)) and last[1] in nearest:
        nearest[last[1]] = "this"  # "what surroundings are these?": no noun follows
    left = tuple(word for word in unknown if word not in nearest)
    num_words = len(re.findall(r"[^\s.,:?!]+", text))
    for typed, word in nearest.items():
        text = re.sub(rf"(?<!\w){re.escape(typed)}(?!\w)", word, text)
    another_language = len(left) > 1 and 2 * len(unknown) >= num_words
    if len(left) == num_words or another_language or (left and unknown_decides(text, left)):
        known_example = not unknown_words(tokenizer, EXAMPLE)
        turned = any(word.lower() in TURNING_WORDS for word in left)
        help = help or (OWN_HELP if not known_example else TURNED_HELP if turned else HELP)
        raise UnknownWords(f"I do not know the word{'s' if len(unknown) > 1 else ''} {_listed(unknown)}. {help}")
    return Reading(text, tuple(nearest.items()), left)


def for_stage1(tokenizer, text: str) -> str:
    """The text as the tokenizer of stage 1 can read it.

    Raises UnknownWords where a word is unknown to it: a match of the rest would be that of another text.
    """
    drawn = knows_whole_words_only(tokenizer) and not unknown_words(tokenizer, " ".join(KINDS))
    help = CAPTION_HELP if drawn else OWN_CAPTION_HELP
    reading = read(tokenizer, canonical(text) if drawn else text, help)
    if reading.unknown:
        raise UnknownWords(f"{reading.note} {help}")
    return reading.text


def nearest_word(word: str, known: Collection[str]) -> str | None:
    """The known word, or words, nearest in meaning (near_words.py); else the one that was meant by a slip of the
    keyboard, one slip away (in a long word: two); or None.

    A slip is two letters in each other's place, a letter missing or typed twice, the key beside the right one (also
    typed with it), or in a long word another vowel. A word that people do write (`REAL_WORDS`) is no slip.
    """
    near = SHORT_FORMS.get(word) or near_word(word)
    if near and all(part in known for part in near.split()):
        return near
    singular = word.removesuffix("s")
    if singular != word and singular in known and (singular in PARTS or word not in REAL_WORDS):
        return singular  # "petals": what a flower has is known in the singular
    if word in REAL_WORDS:
        return None
    if several := next((plural_of(kind) for kind in KINDS if word in (kind + "s", kind + "es")), None):  # "fishes"
        return several if several in known else None
    if len(word) < SHORTEST_CORRECTED:
        return next((w for w in _swaps(word) if w in SHORT_WORDS and w in known), _vowel_missing(word, known))
    near = {other for other in known if len(other) > 2 and other[0] in word[:3] and _letters_differ(word, other, 2)}
    if not near:  # all that is typed comes here: what is no word at all, and long, must cost nothing
        return None
    slips = [once for once in _slips(word) if once in near]
    found = next((once for once in slips if once in TELLING), slips[0] if slips else None)
    if found is None and len(word) >= LONG_WORD:
        halfway = (once for once in _slips(word) if any(_letters_differ(once, other, 1) for other in near))
        found = next((twice for once in halfway for twice in _slips(once) if twice in near), None)
    return found


def _vowel_missing(word: str, known: Collection[str]) -> str | None:
    """ "pnk": the only known word that three letters without a vowel become by one vowel."""
    if len(word) != 3 or set(word) & set(VOWELS):
        return None
    whole = {word[:i] + vowel + word[i:] for i in (1, 2, 3) for vowel in VOWELS}.intersection(known)
    return whole.pop() if len(whole) == 1 else None


def _letters_differ(word: str, other: str, most: int) -> bool:
    """Whether at most so many letters of one are not in the other, wherever they stand: cheaper than to try slips."""
    if abs(len(word) - len(other)) > most:
        return False
    ours, theirs = Counter(word), Counter(other)
    return (ours - theirs).total() <= most and (theirs - ours).total() <= most


def _slips(word: str) -> Iterator[str]:
    """All words one slip away, the likeliest slips first.

    Only a swap changes the first letter: people seldom mistype it, and "rain" is no slip of "train".
    """
    later = range(1, len(word))
    yield from _swaps(word)
    yield from (word[:i] + word[i + 1 :] for i in later if word[i] == word[i - 1])
    yield from (word[:i] + letter + word[i:] for i in range(1, len(word) + 1) for letter in LETTERS)
    yield from (word[:i] + word[i + 1 :] for i in later if word[i] in _around(word, i))
    yield from (word[:i] + key + word[i + 1 :] for i in later for key in BESIDE.get(word[i], ""))
    if len(word) >= LONG_WORD - 1:
        yield from (word[:i] + v + word[i + 1 :] for i in later if word[i] in VOWELS for v in VOWELS)


def _around(word: str, i: int) -> str:
    """The keys beside the letters before and after letter `i`: a finger that hits two keys types one of them, too."""
    return "".join(BESIDE.get(letter, "") for letter in word[i - 1 : i] + word[i + 1 : i + 2])


def _swaps(word: str) -> Iterator[str]:
    return (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1))


def canonical(text: str) -> str:
    """The text in the words of the picture book's captions: "a little ship" -> "a small boat"."""
    for word, others in SYNONYMS.items():
        for other in others:
            for form in (plural_of, str):
                text = re.sub(rf"\b{form(other)}\b", form(word), text, flags=re.IGNORECASE)
    return text


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{_short(word)}"' for word in words[:4]) + (", …" if len(words) > 4 else "")


def _short(word: str) -> str:
    """Short enough for a note."""
    text = printable(word)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
