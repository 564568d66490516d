"""Tables of images and texts: CSV with any of four separators, and JSON lines.

`read_table` is where to begin. It returns `Row`s, whose values are as they were written: image_folder.py finds the
files and reads the captions.

Notes:

* The columns may have any of the names in `COLUMNS`, in any case; others are not read, and `Table.notes` lists them.
* The separator is the one of `,` `;` tab `|` with which the first line has the wanted columns.
* A quote that is not closed would swallow rows, so it is an error with its line. A row with more cells than columns is
  read if its last column is the caption and every extra separator is followed by a space, as in prose ("a red boat, on
  the beach"); otherwise it is left out and named. So is a row whose caption seems to go on in the next column.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blip2_lab.common.console import count_of
from blip2_lab.common.images import SUFFIXES, UNREAD_SUFFIXES
from blip2_lab.data.examples import LeftOut
from blip2_lab.data.text_files import UnreadableList, is_blank, lines_of, parse_json, read_text

#: What a column holds -> the names it may have; the first one that a table has counts.
COLUMNS = {
    "file": (
        "file",
        "file_name",
        "filename",
        "image",
        "image_file",
        "image_name",
        "image_path",
        "file_path",
        "filepath",
        "path",
        "img",
    ),
    "caption": ("caption", "captions", "text", "description", "sentence", "comment", "title"),
    "question": ("question",),
    "answer": ("answer", "answers"),
}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ENDINGS = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One row of a table, `place` its file and line. `captions` are values as written, one for each caption column."""

    place: str
    file: Any = None
    captions: tuple[Any, ...] = ()
    question: Any = None
    answer: Any = None


@dataclass
class Table:
    """The rows of a table, what of it is not read (`left_out`), and what a reader should know about it (`notes`).
    `named`: the files of rows that are left out, which are no pictures without a row."""

    rows: list[Row] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(path: Path) -> Table:
    """The rows of a .csv, .tsv or .jsonl file. Raises ValueError with the line that cannot be read, or the columns that
    were found instead of a file and a caption (or question)."""
    text = read_text(path)
    table = _json_lines(text, path) if path.suffix.lower() == ".jsonl" else _Csv(text, path).table()
    if not table.rows and not table.left_out:
        raise ValueError(f"{path} has no rows: write one for each caption, with the file and the caption")
    return table


def _columns(found: Sequence[str]) -> dict[str, str]:
    """What a column holds -> the name it has here, of the folded names in `found`."""
    return {
        kind: next(name for name in names if name in found)
        for kind, names in COLUMNS.items()
        if any(name in found for name in names)
    }


def _is_usable(columns: dict[str, str]) -> bool:
    return "file" in columns and ("caption" in columns or "question" in columns)


def _no_columns(path: Path, found: Sequence[str]) -> ValueError:
    """The error for a table without a file, or without a caption and a question."""
    columns = _columns([_folded(name) for name in found])
    missing = [kind for kind in ("caption", "file") if kind not in columns]
    listed = ", ".join(repr(name) for name in list(found)[:12]) or "none"
    where = "Each line" if path.suffix.lower() == ".jsonl" else "The first line"
    if "conversations" in [_folded(name) for name in found]:
        return ValueError(f'{path} has conversations: list it in a sources.toml, with format = "llava"')
    return ValueError(
        f"{path} has no column {' and no column '.join(missing)}: its columns are {listed}. {where} names them: "
        "file and caption, or file, question and answer"
    )


def _folded(name: object) -> str:
    """A column's name in small letters, without what cannot be seen at its ends."""
    characters = str(name).casefold()
    seen = [place for place, one in enumerate(characters) if not is_blank(one)]
    return characters[seen[0] : seen[-1] + 1] if seen else ""


def _ignored(path: Path, names: Iterable[str]) -> list[str]:
    rest = [str(name).strip() or "one without a name" for name in dict.fromkeys(names)]
    return [f"{path}: columns that are not read: {', '.join(rest[:20])}"] if rest else []


# ----------------------------------------------------------------------------------------------------------- JSON lines


def _json_lines(text: str, path: Path) -> Table:
    table, keys, ignored = Table(), {}, {}
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        if line.strip() in ("[", "{") or (line.lstrip()[0] == "[" and line.rstrip()[-1] in ",}"):
            raise ValueError(
                f"{place} is not one whole object: write one object on each line, without commas between them"
            )
        row = parse_json(line, place)
        if not isinstance(row, dict):
            raise ValueError(f"{place} is not an object with the keys file and caption: write one object on each line")
        if len(folded := {_folded(key): value for key, value in row.items()}) < len(row):
            raise ValueError(f"{place} has a key twice that differs in case or spaces only: remove one")
        keys |= dict.fromkeys(row)
        columns = _columns(list(folded))
        # of each row: where one has two captions under different names, its second one is not read
        ignored |= dict.fromkeys(key for key in row if _folded(key) not in columns.values())
        value = {kind: folded[name] for kind, name in columns.items()}
        captions = (value["caption"],) if "caption" in value else ()
        table.rows.append(Row(place, value.get("file"), captions, value.get("question"), value.get("answer")))
    columns = _columns([_folded(key) for key in keys])
    if len(table.rows) == 1 and isinstance(table.rows[0].file, dict | list):
        raise ValueError(
            f"{table.rows[0].place} has whole columns, and a line is one picture: write one object on each line "
            '(pandas: to_json(path, orient="records", lines=True))'
        )
    if table.rows and not _is_usable(columns):
        raise _no_columns(path, list(keys))
    table.notes = _ignored(path, ignored)
    return table


# ------------------------------------------------------------------------------------------------------------------ CSV


class _Csv:
    """A table of cells. `header`: its columns' names, `columns`: what they hold -> their positions."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.lines = lines_of(text)
        self.first = next((number for number, line in enumerate(self.lines) if line.strip()), None)
        if self.first is None:
            raise ValueError(f"{path} is empty: its first line names the columns, file and caption")
        hint = re.fullmatch("sep=(.)", self.lines[self.first].strip(), re.IGNORECASE)  # Excel writes it
        if hint and self.first + 1 < len(self.lines):
            self.first += 1
        headers = {mark: self._header(mark) for mark in ([hint[1]] if hint else SEPARATORS)}
        if not any(headers.values()):
            wrong = "has a quote that is not closed, or something behind it: put nothing but the separator there"
            raise ValueError(f"{path}, line {self.first + 1} {wrong}")
        usable = [mark for mark, names in headers.items() if _is_usable(_columns([_folded(name) for name in names]))]
        self.mark = max(usable or headers, key=lambda mark: len(headers[mark]))
        self.header = headers[self.mark]
        if not usable:
            raise _no_columns(path, self.header)
        self.names = _columns([_folded(name) for name in self.header])
        self.columns = {
            kind: [place for place, one in enumerate(self.header) if _folded(one) == name]
            for kind, name in self.names.items()
        }
        for kind, places in self.columns.items():
            if kind != "caption" and len(places) > 1:  # several captions of a picture are usual
                raise ValueError(f"{path} has {len(places)} columns {self.names[kind]!r}: remove or rename one")

    def _header(self, mark: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(self._reader(self.first, mark))]
        except csv.Error:
            return []

    def _reader(self, first: int, mark: str):
        lines = (line + "\n" for line in self.lines[first:])
        return csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True)

    def table(self) -> Table:
        used = set(self.names.values())
        table = Table(notes=_ignored(self.path, [name for name in self.header if _folded(name) not in used]))

        def leave_out(place: str, cause: str, what: str, cells: Sequence[str] = ()) -> None:
            table.left_out.append(LeftOut(place, cause, f"{place} {what}"))
            table.named += cells[(file := self.columns["file"][0]) : file + 1]

        for first, last, cells in self._cells():
            place = f"{self.path}, line {first + 1}"
            if not any(cell.strip() for cell in cells):
                continue
            if [cell.strip() for cell in cells] == self.header:
                again = "names the columns again: remove it, where two tables were joined"
                leave_out(place, "names of columns again", again)
                continue
            while len(cells) > len(self.header) and not cells[-1].strip():
                cells = cells[:-1]
            if len(cells) > len(self.header):
                joined = self._prose(self.lines[first]) if first == last else None
                if joined is None:
                    more = f"{len(cells)} cells, and the table has {len(self.header)} columns"
                    remedy = (
                        f'put a text with {SEPARATORS.get(self.mark, repr(self.mark))} in quotes: "a red, round boat"'
                    )
                    leave_out(place, "row with too many cells", f"has {more}: {remedy}", cells)
                    continue
                cells = joined
            elif self._lacks_text(len(cells)):
                has = f"{count_of(len(cells), 'cell', 'cells')}, and the table has {len(self.header)} columns"
                missing = "its text is missing, or a separator before it"
                leave_out(place, "row with too few cells", f"has {has}: {missing}", cells)
                continue
            elif first == last and self._goes_on(self.lines[first]):
                remedy = "put the caption in quotes if it goes on there, or remove the space"
                space = "has a space after the separator behind its caption, as in prose"
                leave_out(place, "caption that may go on", f"{space}: {remedy}", cells)
                continue
            table.rows.append(self._row(place, cells))
        return table

    def _cells(self) -> Iterator[tuple[int, int, list[str]]]:
        """(first line, last line, cells) of each row after the header. Raises ValueError for a stray quote."""
        reader = self._reader(self.first + 1, self.mark)
        while True:
            first = self.first + 1 + reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{self.path}, line {first + 1} {_what_is_wrong(str(error), self.mark)}") from None
            last = self.first + reader.line_num
            if last > first:
                self._check_no_row_inside(first, cells)
            yield first, last, cells

    def _check_no_row_inside(self, first: int, cells: list[str]) -> None:
        """A quoted cell may have several lines. If one of them names a picture in a cell, two stray quotes made it."""
        for cell in cells:
            first_line, *others = cell.split("\n")
            for line in [*others, *([first_line] if others and self.mark in first_line else [])]:
                parts = [part.strip().strip('"') for part in line.split(self.mark)]
                if any(self._is_picture(part) for part in parts):
                    raise ValueError(
                        f"{self.path}, line {first + 1} has a quote that spans other rows ({line.strip()[:60]!r}): "
                        'close it, or write "" for a quote within a quoted cell'
                    )

    def _is_picture(self, cell: str) -> bool:
        """Whether a cell has the name of a picture; one without an ending is looked for."""
        if cell.lower().endswith((*SUFFIXES, *UNREAD_SUFFIXES)):
            return True
        return bool(cell) and os.path.isfile(self.path.parent / cell)

    def _prose(self, line: str) -> list[str] | None:
        """The cells of a row whose caption, the last column, has separators of prose; None where that is not clear."""
        last = len(self.header) - 1
        if self.mark not in ",;" or '"' in line or self.columns.get("caption") != [last]:
            return None
        *before, caption = line.split(self.mark, last)
        prose = all(part[:1].isspace() for part in caption.split(self.mark)[1:])
        clear = last == 1 or not any(part[:1].isspace() for part in [*before[1:], caption])
        return [*before, caption] if prose and clear else None

    def _lacks_text(self, cells: int) -> bool:
        """Whether a row of so few cells ends before every column of captions or questions."""
        places = [place for kind in ("caption", "question") for place in self.columns.get(kind, [])]
        return cells <= min(places)

    def _goes_on(self, line: str) -> bool:
        """Whether a row without quotes has prose behind its caption: "a.png,a red, round boat" in a table of three
        columns. A space follows the separator behind the caption, and neither one before nor that of the header."""
        places = self.columns.get("caption", [])
        if self.mark not in ",;" or '"' in line or len(places) != 1:
            return False
        place = places[0]
        cells, names = line.split(self.mark), self.lines[self.first].split(self.mark)
        if not cells[place + 1 : place + 2] or not cells[place + 1].strip():
            return False
        spaced = [cell[:1].isspace() for cell in (*cells[1 : place + 1], *names[1:])]
        return cells[place + 1][:1].isspace() and not any(spaced)

    def _row(self, place: str, cells: list[str]) -> Row:
        def cell(kind: str) -> str | None:
            places = self.columns.get(kind, [])
            return cells[places[0]].strip() if places and places[0] < len(cells) else None

        texts = [cells[column].strip() for column in self.columns.get("caption", []) if column < len(cells)]
        captions = tuple(_value(text) for text in texts if text) or (None,) * bool(self.columns.get("caption"))
        question, answer = (_value(text) if (text := cell(kind)) else text for kind in ("question", "answer"))
        return Row(place, cell("file"), captions, question, answer)


def _value(cell: str) -> Any:
    """A cell's text, or the list or object that another program wrote there: "['a boat', 'a ship']"; `UnreadableList`
    where it begins as a list of texts and cannot be read as one. Text in brackets is text."""
    if cell[0] + cell[-1] not in ("[]", "()", "{}"):
        return cell
    for read in (json.loads, _literal):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, list | tuple | dict | set) else cell
    return UnreadableList(cell) if re.match(r"\[\s*['\"]", cell) else cell


def _literal(cell: str) -> Any:
    """The value of a literal of Python. Raises ValueError for texts without a comma between them, as numpy writes them:
    Python would join them to one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unknown escape
        tree = ast.parse(cell, mode="eval")
        texts = sum(isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) for node in ast.walk(tree))
        tokens = tokenize.generate_tokens(io.StringIO(cell).readline)
        if sum(token.type == tokenize.STRING for token in tokens) != texts:
            raise ValueError("there is no comma between two texts")
        return ast.literal_eval(tree)


def _what_is_wrong(error: str, mark: str) -> str:
    """csv's error in words that say what to do."""
    if "unexpected end" in error:
        return 'has a quote that is never closed: close it, or write "" for a quote within a quoted cell'
    if "expected after" in error:
        return (
            f'has a quote in the middle of a quoted cell: write it as "", and put nothing but '
            f"{SEPARATORS.get(mark, mark)} after the closing quote"
        )
    if "larger than field limit" in error:
        return f"has a cell of more than {csv.field_size_limit():,} characters: is a quote not closed?"
    return f"is not CSV ({error})"
