"""Text that others wrote: UTF-8 files, their lines, JSON, and the captions in a JSON value.

`read_text` is where to begin. Nothing is guessed: what is not UTF-8 is refused with its line, and a value that is no
text is named (`texts_in`) instead of being converted to one.

Notes:

* Lines end at LF, CR or CRLF. `str.splitlines` also ends them at U+2028 and U+0085, which JSON allows within a string.
* A byte order mark at the beginning of a line is no character of it: files that were joined have such marks inside.
* A key that occurs twice in a JSON object is an error, because one of its two values would be lost.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2_lab.common.characters import printable

#: The keys under which an object in a list of captions has its text: those of Karpathy, BLIP and the hub's data sets.
TEXT_KEYS = ("raw", "caption", "text", "sentence")
#: What programs write for a missing value. An answer may be "none".
MISSING = frozenset(
    {"nan", "nat", "null", "nil", "none", "na", "n/a", "<na>", "undefined", "\\n"}  # \N: of databases
    | {"n.a.", "n. a.", "#n/a"}
)
#: What spreadsheets write for an error, in any language: #REF!, #NAME?, #DIV/0!, #SPILL!, #WERT!, Err:508.
ERROR = re.compile(r"#[^\W\d_][\w/]*[!?]|err:\d{3}", re.IGNORECASE)
#: What spreadsheets write for a formula in place of its value: `=A1&B1`, `=HYPERLINK("…")`, `'=SUM(A1:A9)`, `@SUM(A1)`.
_CELL = r"\$?[a-z]{1,3}\$?\d{1,7}(?!\w)"
FORMULA = re.compile(
    rf"""'?\{{?=\s*[-+(]*(?:[a-z_][\w.]*[(!\[|]|{_CELL}|"|'[^']+'!|\{{|\d[\d.,]*\s*[-+*/^&<>]|(?:true|false)$)"""
    rf"""|'?@[a-z.]+\(|'?[-+]{_CELL}(?=$|[-+*/^&:)])""",
    re.IGNORECASE,
)
#: First bytes of files that are no UTF-8 text -> what they are, and what to do. UTF-32's begin with UTF-16's.
NO_TEXT = (
    *((mark, "UTF-32 text", "save it as UTF-8") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *(
        (mark, "UTF-16 text (Windows calls it Unicode)", "save it as UTF-8")
        for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack it with gunzip"),
    (b"BZh", "a bzip2 archive", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "an xz archive", "unpack it with unxz"),
    (b"PK\x03\x04", "a zip archive or an Excel file", "unpack it, or save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel file", "save the table as CSV"),
    (b"PAR1", "a Parquet file", "save the table as CSV or JSON lines"),
    (b"SQLite format 3", "an SQLite database", "save the table as CSV"),
    (b"%PDF", "a PDF file", "save its text as UTF-8"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it with unzstd"),
    (b"\x04\x22\x4d\x18", "an lz4 archive", "unpack it with unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "a rar archive", "unpack it"),
    (b"{\\rtf", "an RTF document", "save it as plain text in UTF-8"),
    (b"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull`"),
    *((start, "a web page", "download the file again") for start in (b"<!DOCTYPE html", b"<!doctype html", b"<html")),
)


# ----------------------------------------------------------------------------------------------------------------- text


def read_text(path: str | os.PathLike, what: str = "") -> str:
    """The text of a UTF-8 file, without its byte order mark. Raises ValueError that names file, line and remedy.

    `what`: what the file should be, for the message about a missing one.
    """
    if not _may_be_read(path):
        raise ValueError(f"{path} is a pipe or a device, not a file{what and f' ({what})'}: save it as a file")
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, ValueError):  # ValueError: a zero byte, or half a character, in the name
        why = ": it is a link to nothing, copy the file again" if os.path.islink(path) else ""
        raise ValueError(f"there is no file {printable(str(path))}{what and f' ({what})'}{why}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder{what and f', not a file ({what})'}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
    return decode_text(content, str(path))


def _may_be_read(path: str | os.PathLike) -> bool:
    """Whether reading it comes to an end: false for a pipe, which may have no writer, and for a device."""
    return os.path.isfile(path) or os.path.isdir(path) or not os.path.exists(path)


def decode_text(content: bytes, name: str) -> str:
    """The bytes of a UTF-8 text, without the byte order mark. Raises ValueError that names `name`, line and remedy."""
    for start, found, remedy in NO_TEXT:
        if content.startswith(start):
            raise ValueError(f"{name} is not UTF-8 text but {found}: {remedy}")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line_at(content[: error.start].decode("utf-8"))
        byte = content[error.start]
        raise ValueError(
            f"{name} is not UTF-8 text: line {line} has the byte 0x{byte:02x}; save it as UTF-8, for example with "
            "`iconv -f latin1 -t utf-8` if it is Latin-1"
        ) from None
    if "\0" in text:
        line = _line_at(text[: text.index("\0")])
        raise ValueError(f"{name} is not UTF-8 text: line {line} has a zero byte, as UTF-16 has; save it as UTF-8")
    return text


def lines_of(text: str) -> list[str]:
    """The lines of a text, without LF, CR or CRLF; other characters, such as U+2028, end no line."""
    lines = [line.lstrip("\ufeff") for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _line_at(before: str) -> int:
    """The number of the line that a text ends in, counted from 1."""
    return len(lines_of(f"{before}."))


# ----------------------------------------------------------------------------------------------------------------- JSON


def parse_json(text: str, name: str) -> Any:
    """The value of a JSON text. Raises ValueError that names `name`, the place in it and what to do, also for a key
    that an object has twice."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise ValueError(f"{name} is not JSON: {error.msg}, {place}: {_json_remedy(text, error, name)}") from None
    except RecursionError:
        raise ValueError(f"{name} is not JSON: its brackets are nested too deeply") from None
    except ValueError as error:  # a key twice, or a number of thousands of digits
        digits = "set_int_max_str_digits" in str(error)
        why = "a number has thousands of digits, write it as a text" if digits else error
        raise ValueError(f"{name} is not JSON: {why}") from None


def _json_remedy(text: str, error: json.JSONDecodeError, name: str) -> str:
    """What to do about a text that is not JSON, from what is there and from the name of its file."""
    before, here = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if not text.strip():
        return "it is empty, write it again"
    if not here or error.msg.startswith("Unterminated"):
        return "it ends too early, copy it again"
    if before.endswith(",") and here[:1] in "]}":
        return f"remove the comma before {here[0]}"
    if error.msg == "Extra data" and here[:1] == ",":
        return "remove the comma after it"
    if error.msg == "Extra data" and here[:1] in "{[" and text[: error.pos].endswith("\n") and name.endswith(".json"):
        return "it has a value on each line, give it the ending .jsonl"
    if error.msg == "Extra data" and here[:1] in "{[":
        return "it holds several values: write each on a line of its own, in a .jsonl file"
    if here[:2] == "//" or here[:1] == "#":
        return "remove the comment, JSON has none"
    if here[:1] == "'":
        return "write keys and texts in double quotes"
    return "correct it there"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice, so one of the two values would be lost")
    return found


# ------------------------------------------------------------------------------------------------------------- captions


def captions_in(value: Any) -> tuple[list[str], list[str]]:
    """`texts_in`, where a text such as "nan" or "None" is no caption but a missing value (`MISSING`), and one such as
    "=A1&B1" a formula that another program computes."""
    captions, problems = texts_in(value)
    kept = []
    for caption in captions:
        if caption.casefold() in MISSING or ERROR.fullmatch(caption):
            problems.append(f"is {caption!r}, which programs write for a missing value")
        elif FORMULA.match(caption):
            problems.append(f"is {caption[:40]!r}, a formula of a spreadsheet: save the table with its values")
        else:
            kept.append(caption)
    return kept, problems


@dataclass(frozen=True)
class UnreadableList:
    """The cell of a table that begins as a list of texts and cannot be read as one."""

    cell: str


def texts_in(value: Any) -> tuple[list[str], list[str]]:
    """A JSON value -> (its texts, without the spaces around them; what in it is no text, in words).

    A text is one, a list several; in a list or alone, an object with one of `TEXT_KEYS` has the text there.
    """
    if isinstance(value, str):
        text = value.strip()
        if is_blank(text):
            return [], ["is empty"]
        if "\0" in text:
            return [], ["has a zero byte"]
        if not is_text(text):
            return [], ["has half a character (a lone surrogate)"]
        return [text], []
    if isinstance(value, dict):
        texts = [value[key] for key in TEXT_KEYS if isinstance(value.get(key), str)]
        if len(texts) == 1:
            return texts_in(texts[0])
        keys = ", ".join(repr(key)[:20] for key in list(value)[:5]) or "none"
        return [], [f"is an object with the keys {keys}, and a text is wanted"]
    if isinstance(value, UnreadableList):
        return [], [f'is {value.cell[:40]!r}, which is no list that can be read: write it as ["one", "two"]']
    if isinstance(value, list | tuple):
        if not value:
            return [], ["is empty"]
        found: list[str] = []
        problems: list[str] = []
        for one in value:
            good, bad = ([], ["is a list in a list"]) if isinstance(one, list | tuple) else texts_in(one)
            found += good
            problems += bad
        return found, problems
    if value is None or value != value:  # NaN
        return [], ["is empty"]
    return [], [f"is {json.dumps(value, default=str)[:40]}, which is no text"]


def listed(value: Any) -> list:
    """A list of JSON as it is, another value as a list of one, null as an empty one."""
    return value if isinstance(value, list) else [] if value is None else [value]


#: Who speaks in a conversation of LLaVA's files, and in those of chat models.
ASKS, ANSWERS = ("human", "user"), ("gpt", "assistant")


def turns_in(value: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """LLaVA's `conversations` -> (question and answer of each pair of turns; what cannot be used, in words).

    The mark `<image>`, where the picture stands in a question, is no part of it.
    """
    if not isinstance(value, list):
        return [], ["is no list of turns"]
    pairs: list[tuple[str, str]] = []
    problems: list[str] = []
    question = None
    for number, turn in enumerate(value, 1):
        turn = turn if isinstance(turn, dict) else {}
        who, said = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        text = said.strip() if isinstance(said, str) else ""
        if who in ASKS:
            text = text.replace("<image>", "").strip()
        if who not in (*ASKS, *ANSWERS) or is_blank(text) or not is_text(text):
            problems.append(f"has in turn {number} no text of one of {', '.join((*ASKS, *ANSWERS))}")
            question = None if who in ASKS else question
        elif who in ASKS:
            problems += [f"has no answer to its question in turn {number - 1}"] if question is not None else []
            question = text
        elif question is None:
            problems.append(f"has in turn {number} an answer without a question")
        else:
            pairs.append((question, text))
            question = None
    return pairs, problems + (["ends with a question without an answer"] if question is not None else [])


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, control characters, marks of zero width (U+200B, U+FEFF)."""
    return all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text)


#: Between letters these decide how they are joined (Persian, Hindi, families of emoji), so they are part of a word.
JOINERS = "\u200c\u200d"


def unseen(text: str) -> str:
    """The characters of a text that nobody sees: controls, marks of zero width or of direction, and those for private
    use, which every font shows in its own way; each once. With one of them in it, a word is another word to a
    tokenizer. Tabs and line breaks are spaces."""
    found = (one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Co") and not one.isspace())
    return "".join(dict.fromkeys(one for one in found if one not in JOINERS))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number that a float can hold. True and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's whole numbers have any number of digits
        return False


def is_text(text: str) -> bool:
    """Whether it can be encoded as UTF-8; JSON's escapes can write half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
