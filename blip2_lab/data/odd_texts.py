"""Texts that can be read and are probably not meant: marks of other programs, their messages, values of other columns.

`ODD` is where to begin: each of its kinds finds what is odd in a text. Such a text is used as it is written, because it
may be meant; left_out.py counts and names the pictures that have one.

Notes:

* A pattern here must not fit prose. What is certainly no text is left out by text_files.py.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from blip2_lab.common.characters import is_numbers_alone
from blip2_lab.common.images import SUFFIXES
from blip2_lab.data.text_files import FORMULA

SHOWN = 60  #: characters of a text in a note


@dataclass(frozen=True)
class Odd:
    """A kind of odd text. `find`: a text -> what is odd in it, as a note shows it, or "". `having` and `remedy` are the
    note: "1 picture has HAVING (boat.png: FOUND): REMEDY". `captions_only`: not of questions and answers."""

    having: str
    remedy: str
    find: Callable[[str], str]
    captions_only: bool = False


#: Marks of a web page or of a chat: `&amp;`, `<br>`, `<a href="…">`, `<!-- … -->`, `[b]`, `alt="`, `<|assistant|>`.
WEB_MARK = re.compile(
    r"&#?\w+;|</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|<!--|<\|[^<>|]*\|>|\[/?(?:b|i|u|s|url|img|quote|code|inst|sys)\]|"
    r"\b(?:alt|title|src|href)=[\"']",
    re.IGNORECASE,
)

#: What programs write for a quote, a separator, a line break or another character: `\"`, `\,`, `\n`, `\u00e9`, `%20` in
#: addresses, `=C3=A9` in mails, `:boat:` for an emoji, `'` in front of a spreadsheet's text.
ESCAPE = re.compile(
    r"\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[nrt'\",;])|%(?:2[0-9a-f]|3[a-f]|[5-7][b-f]|c3%)|(?:=[0-9a-f]{2}){2}|"
    r"(?<![\w:]):[a-z][a-z0-9_+-]*[a-z0-9]:(?![\w:])|^'(?!(?:tis|twas|til|em|n|cause|round)\b)(?=[^']*$)",
    re.IGNORECASE,
)

#: Marks of Markdown, of lists and fields, and of prompts for programs that draw: `# Boat`, `* a boat`, `1. a boat`,
#: `**red**`, `caption: a boat`, `(red:1.2)`, `<lora:x:1>`.
MARKUP = re.compile(
    r"^(?:#{1,6}|[-*•·>]|\(?\d{1,2}[.)])\s+\w|\*\*[^*]+\*\*|\]\([^()\s]+\)|```|<\w+:[^<>]*>|\([^()]*:\d*\.\d+\)|"
    r"\(\([^()]+\)\)|\bnegative prompt\s*:|"
    r"^(?:caption|description|title|text|prompt|alt(?: text)?|label|question|answer|q|a|image|photo|"
    r"en|de|fr|es|it|pt|ru|zh|ja)\d?\s?:\s",
    re.IGNORECASE,
)

#: What a program would have filled in: `{}`, `{name}`, `${name}`, `%s`, `[caption]`.
TEMPLATE = re.compile(
    r"\{\w*\}|\{\{[^{}]*\}\}|%\(\w+\)[sd]|(?<![\w%])%[sd]\b|\[(?:name|caption|class|object|label|text|insert[^\]]*)\]",
    re.IGNORECASE,
)

#: What separates texts that were joined to one: `a boat|a ship`, `["a boat", "a ship"]`.
SEVERAL = re.compile(r"\w\W?\s?(?:\|+|¦|;;|\[sep\]|<sep>)\s?\w|^\[\s*['\"]|^\".*\",$", re.IGNORECASE)

#: Words that are joined to one: red_boat, a-boat-on-the-sea, a+red+boat, aRedBoat.
JOINED = re.compile(
    r"[^\W\d_]_[^\W\d_]|^\w+(?:[-+.][^\W\d_]\w*){3,}$|(?<!\w)\w+(?:\+[^\W\d_]\w*){2,}|"
    r"\b(?:[A-Z][a-z]+){3,}\b|\b[a-z]+(?:[A-Z][a-z]+){2,}\b"
)

#: What a program says when it has no caption: a language model that refuses, an error.
MESSAGE = re.compile(
    r"(?:i['’]?m|i am) (?:sorry|unable|not able)|sorry, |as an? (?:ai|language model)|i (?:cannot|can['’]t|can not)\b|"
    r"(?:[\w.]*\s)?[\w.]*(?:error|exception)\s?[:(]|traceback \(|http(?: error)? \d{3}|[45]\d\d (?:not found|forbidden|"
    r"unauthorized|too many|internal|bad|service|gateway)|rate limit|(?:access|permission) denied|an error occurred|"
    r"unable to \w+|(?:request|connection) (?:timed out|failed|refused|reset)|undefined is not|failed to \w+|"
    r"internal server error|bad gateway|(?:sure[,!.]+ )?here(?:['’]s| is) (?:an?|the|your) (?:\w+ )?"
    r"(?:caption|description)",
    re.IGNORECASE,
)

#: What stands where a caption should be.
PLACEHOLDER = re.compile(
    r"\W*(?:todo|tbd|fixme|x{3,}|lorem ipsum.*|untitled|unknown|unlabell?ed|placeholder|dummy|test|string|"
    r"object object|caption|description|text|alt text|an? (?:image|picture|photo)|image|picture|photo|img|pic|"
    r"file|removed|deleted|redacted|blank|(?:no|without|missing|empty|add|insert|your|write)(?: an?| the| your)? "
    r"(?:caption|description|text|title|alt text|label)(?:s|\(s\))?(?: available| here| yet| found)?|"
    r"(?:caption|description|text|title|label) (?:missing|unavailable|not (?:available|found)|(?:goes )?here)|"
    r"(?:see|as|same as) (?:above|below|before|previous|next)(?: \w+)?|ditt?o|ibid|"
    r"(?:olympus|kodak|minolta|konica minolta|samsung|canon) (?:digital )?(?:still )?camera(?: pictures)?)\W*",
    re.IGNORECASE,
)

#: Names that cameras and programs give to files, without the ending.
FILE_NAME = re.compile(
    r"(?:(?:img|imag|dscn?|dscf|pxl|mvimg|pano|gopr|dji|vid|wp|p|untitled|screen ?shot|whatsapp image|fb_img)"
    r"[-_ ]?[-_ (]*|(?:scan|photo|picture|pic|image|file|frame)(?:[-_]+|\s?\()?)"
    r"\d(?:[\d._:()\s-]|at|am|pm|wa|t(?=\d)|z$)*",
    re.IGNORECASE,
)

#: How Python writes values that are no texts: b'a boat', array(['a boat']), <PIL.Image.Image image at 0x7f>.
PYTHON_VALUE = re.compile(r"b'.*'|b\".*\"|(?:array|tensor)\(.*\)|<[\w.]+ .*\bat 0x\w+>", re.DOTALL)

#: What a column of truth values, numbers, times, hashes, paths or labels has.
OTHER_VALUE = re.compile(
    r"true|false|yes|no|wahr|falsch|vrai|faux|verdadero|falso|vero|"
    r"[-+]?(?:inf|infinity|\d[\d.,]*e[-+]?\d+|0x[0-9a-f]+)|"
    r"\d{4}-\d\d-\d\dt[\d:.]+(?:z|[-+][\d:]+)?|"
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=\S*\d)[0-9a-f]{32,128}|"
    r"[\w.+-]+@[\w-]+\.[\w.]+|"
    r"(?:[a-z]:[\\/]|\\\\|~?/|\.{1,2}[\\/])[^\s\\/]\S*|[\w.-]+(?:[\\/][\w.-]+){2,}|"  # paths
    r"[a-z_-]{0,5}\d{5,}|\w+:? (?:[01]?\.\d+|\d+(?:\.\d+)?\s?%)|"  # numbers of things; a label and how sure it is
    r"\d+[-/.]\d+[-/.]\d+,?\s+\d+:[\d:]+\s?(?:am|pm)?",
    re.IGNORECASE,
)

#: Bytes that are written as letters.
BASE64 = re.compile(r"(?=\S*[A-Z])(?=\S*[a-z])(?=\S*[\d=])[A-Za-z0-9+/_-]{20,}={0,2}")


def misread(text: str) -> str:
    """What a text was before its UTF-8 was read as Windows-1252 or Latin-1 ("cafÃ©": "café"); "" where it was not."""
    if text.isascii():
        return ""
    try:
        was = b"".join(map(_byte_of, text)).decode("utf-8")
    except UnicodeError:
        return ""
    return was


def _byte_of(character: str) -> bytes:
    """The byte that Windows-1252 shows as this character; Latin-1 has the five that it does not."""
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def mixed_word(text: str) -> str:
    """A word that has letters of two alphabets that look alike (Latin, Greek, Cyrillic); "" if there is none."""
    if text.isascii():
        return ""
    words = re.findall(r"[^\W\d_]+", text)
    return next((word for word in words if len(set(filter(None, map(_alphabet, word)))) > 1), "")


def _alphabet(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0]
    return name if name in ("LATIN", "GREEK", "CYRILLIC") else ""


def is_other_cell(text: str) -> bool:
    """Whether a text is numbers, a truth value, a time, a hash, JSON or a value of Python's, or has the name of a
    picture's file or an address between separators: what other columns have, and whole rows or files of other tools."""
    cells = [cell.strip().lower() for cell in re.split(r"[,;\t|]", text)]
    names = [cell for cell in cells if len(cell.split()) == 1 and ("://" in cell or cell.endswith(SUFFIXES))]
    values = (PYTHON_VALUE, OTHER_VALUE, FILE_NAME, BASE64)
    is_value = (
        text[:1] + text[-1:] == "{}" or re.match(r"\{\s*['\"]", text) or any(one.fullmatch(text) for one in values)
    )
    return bool(names) or bool(is_value) or is_numbers_alone(text)


def _shown(text: str) -> str:
    return repr(text[:SHOWN]) if text else ""


def _part(pattern: re.Pattern) -> Callable[[str], str]:
    """The part of a text that a pattern fits."""
    return lambda text: _shown(found[0]) if (found := pattern.search(text)) else ""


def _whole(fits: Callable[[str], object]) -> Callable[[str], str]:
    """A text that fits, whole."""
    return lambda text: _shown(text) if fits(text) else ""


ODD = (
    Odd(
        "a text whose UTF-8 was read as Latin-1 or Windows-1252",
        "that is what it was, write the text again",
        lambda text: _shown(misread(text)),
    ),
    Odd("a text with marks of a web page", "they would be learned as words, remove them", _part(WEB_MARK)),
    Odd(
        "a text with an escape of another program",
        "it would be learned as it is, write the character that it stands for",
        lambda text: (found[0] or text[:1]) if (found := ESCAPE.search(text)) else "",
    ),
    Odd(
        "a text with marks of Markdown, of a list, or of a prompt",
        "they would be learned as words, remove them",
        _part(MARKUP),
    ),
    Odd("a text in which something was to be filled in", "write what belongs there", _part(TEMPLATE)),
    Odd(
        "a text that seems to be several in one",
        'write a list, ["one", "two"], in JSON or in the cell of a table, or a line for each',
        _whole(SEVERAL.search),
    ),
    Odd(
        "a text with words that are joined to one",
        "a tokenizer reads them as one word that is rare or unknown, put spaces between them",
        _part(JOINED),
    ),
    Odd(
        "a word with letters of two alphabets",
        "a tokenizer reads another word than it seems to be, type it again",
        lambda text: _shown(mixed_word(text)),
    ),
    Odd(
        "a formula of a spreadsheet in place of an answer",
        "save the table again as CSV with its values",
        _whole(FORMULA.match),
    ),
    Odd(
        "a caption that seems to be the message of a program",
        "caption the picture again, or remove it",
        _whole(MESSAGE.match),
        captions_only=True,
    ),
    Odd(
        "a caption that seems to hold a place for one",
        "it says nothing about the picture, write what is to be seen, or remove it",
        _whole(PLACEHOLDER.fullmatch),
        captions_only=True,
    ),
    Odd(
        "a caption that seems to be no text",
        "is it a label of another tool, or a cell of another column?",
        _whole(is_other_cell),
        captions_only=True,
    ),
)
