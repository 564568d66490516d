"""A folder of your own images as a data set: captions in a table, or in a text file beside each image.

`ImageFolder(folder)` is where to begin; its docstring describes the table.

Notes:

* The table is read when the folder is opened, an image when its index is read. What cannot be used is named and counted
  (`left_out`), and so are images that no row names, and text files without an image.
* Several rows about one file are one record, whatever the names are that they use (picture_files.py has the rules).

Paper: none. Notebook: 14.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from blip2_lab.common.characters import printable
from blip2_lab.common.console import count_of
from blip2_lab.common.images import SUFFIXES, UNREAD_SUFFIXES, BrokenSample, walk_files, why_unread
from blip2_lab.data.examples import AskedQuestion, ImageTextList, LeftOut, Record
from blip2_lab.data.picture_files import Found, PictureFinder, identity
from blip2_lab.data.tables import ENDINGS, Row, read_table
from blip2_lab.data.text_files import captions_in, is_blank, is_number, lines_of, read_text, texts_in
from blip2_lab.picturebook.words import Question

TABLES = ("captions", "metadata")  #: the names of a table, with an ending of `ENDINGS`
#: Endings of files that may have captions or pictures, and of which a folder reads one table at most. The others are
#: named.
UNREAD_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".arrow", ".feather", ".tab", ".psv", ".yaml", ".xml")
JSON_LINES = (".ndjson", ".jsonlines")
UNREAD_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".lz4")
UNREAD_TEXTS = (*ENDINGS, *JSON_LINES, *UNREAD_TABLES, *UNREAD_ARCHIVES, ".json", ".caption", ".text")
PAPERS = ("readme", "license", "licence", "copying", "notes")  #: what text files about a folder are called
#: What composites.py and `blip2-lab data check --out` write beside pictures.
OWN_FILES = ("composites.json", "scenes.jsonl", "left_out.jsonl")


@dataclass
class _Texts:
    """The texts of one file."""

    found: Found
    captions: list[str] = field(default_factory=list)
    questions: list[Question | AskedQuestion] = field(default_factory=list)


class ImageFolder(ImageTextList):
    """A folder of images with `captions.csv`, `.tsv` or `.jsonl`, or with a text file beside each image.

    The table has the columns `file` and `caption`, or `file`, `question` and `answer`, or all four; `COLUMNS` in
    tables.py lists other names of them, such as those of Hugging Face's `metadata.csv` (`file_name`, `text`). A file
    with several rows, caption columns or a list of captions has several captions. Without a table, the captions of
    `boat.jpg` are the lines of `boat.txt`, in this folder and those below it.

    `notes`: what is worth knowing and no fault, such as columns that are not read.
    Raises ValueError that names file, line and remedy for a table that cannot be read.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            is_file = Path(folder).exists()
            raise ValueError(
                f"{folder} is a file: give the folder of the pictures" if is_file else f"there is no folder {folder}"
            )
        super().__init__([], name=str(folder))
        self.notes: list[str] = []
        self._texts: dict[tuple, _Texts] = {}
        table = _table_of(self.folder)
        files = list(walk_files(self.folder, self._folder_unread))
        if table is not None:
            self._read_rows(table, files)
        else:
            self._read_text_files(files)
        self.files = [texts.found.name for texts in self._texts.values()]
        self.records = [
            Record(t.found.path, tuple(t.captions), tuple(t.questions), id=printable(t.found.name))
            for t in self._texts.values()
            if t.captions or t.questions
        ]

    def _leave_out(self, sample: str, cause: str, message: str) -> None:
        self.left_out.append(LeftOut(printable(sample), cause, printable(message)))

    def _folder_unread(self, error: OSError) -> None:
        self._leave_out(str(error.filename), "unreadable folder", f"{error.filename}: {error.strerror}")

    def _texts_of(self, found: Found) -> _Texts:
        return self._texts.setdefault(found.identity, _Texts(found))

    # -- a table -------------------------------------------------------------------------------------------------------

    def _read_rows(self, path: Path, files: list[Path]) -> None:
        table, finder, named, missing = read_table(path), PictureFinder(self.folder), set(), set()
        self.left_out += table.left_out
        self.notes += table.notes
        for name in table.named:
            with suppress(BrokenSample):
                named.add(finder.find(name.strip()).identity)
        for row in table.rows:
            found = self._file_of(row, finder)
            if found is not None:
                named.add(found.identity)
                self._read_row(row, found)
            elif isinstance(row.file, str):
                missing.add(os.path.normpath(row.file.strip()))
        for file in files:
            if file.suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES) and identity(file) not in named:
                name = file.relative_to(self.folder).as_posix()
                if name in missing:  # a link to nothing, which a row has
                    continue
                self._leave_out(name, "picture without a row", f"{name!r} is in no row of {path}")
            elif file.suffix.lower() == ".txt":
                name = file.relative_to(self.folder).as_posix()
                self._leave_out(name, "text file beside a table", f"{name!r} is not read, because there is {path}")

        self._name_unread_files(files, path)

    def _name_unread_files(self, files: list[Path], table: Path | None) -> None:
        """Name the files that may have captions and are not read, such as a second table."""
        for file in files:
            if file != table and file.suffix.lower() in UNREAD_TEXTS and file.name not in OWN_FILES:
                name = file.relative_to(self.folder).as_posix()
                instead = f"there is {table}" if table is not None else "the captions are those of the .txt files"
                self._leave_out(name, "file that is not read", f"{name!r} is not read, because {instead}")

    def _file_of(self, row: Row, finder: PictureFinder) -> Found | None:
        if not isinstance(row.file, str) or not row.file.strip():
            none = row.file is None or isinstance(row.file, str)
            shown = f"{row.file!r:.40}" + ("…" if len(repr(row.file)) > 40 else "")
            given = "" if none else f": {shown} is no file name, which is a text in quotes, with its ending"
            self._leave_out(row.place, "row without a file", f"{row.place} names no file{given}")
            return None
        try:
            return finder.find(row.file.strip())
        except BrokenSample as broken:
            self._leave_out(row.place, broken.cause, f"{row.place}: {broken}")
            return None

    def _read_row(self, row: Row, found: Found) -> None:
        """Add the row's captions and question to its file; name what of it cannot be used."""
        question, unusable = _question_of(row)
        captions, problems = [], []
        asks = question is not None or bool(unusable)  # then it needs no caption
        for value in row.captions:
            good, bad = captions_in(value)
            captions += good
            problems += [] if asks and bad == ["is empty"] and not good else bad
        if not row.captions and not asks:
            problems = ["is empty"]
        for problem in problems:
            cause = "empty caption" if problem == "is empty" else "caption is no text"
            self._leave_out(row.place, cause, f"{row.place}: the caption {problem}")
        for cause, message in unusable:
            self._leave_out(row.place, cause, f"{row.place}: {message}")
        if captions or question is not None:
            texts = self._texts_of(found)
            texts.captions += captions
            texts.questions += [question] if question is not None else []

    # -- text files ----------------------------------------------------------------------------------------------------

    def _read_text_files(self, files: list[Path]) -> None:
        """The captions of `boat.jpg` are the lines of `boat.txt`."""
        texts: dict[str, Path] = {}
        shown: dict[Path, list[str]] = {}  # a text -> the pictures that have it
        for file in sorted(files, key=lambda file: file.suffix != ".txt"):
            if file.suffix.lower() == ".txt" and texts.setdefault(_stem(file), file) != file:
                first, name = (one.relative_to(self.folder).as_posix() for one in (texts[_stem(file)], file))
                message = f"{name!r} is not read, because there is {first!r}: put all captions into one of them"
                self._leave_out(name, "second text file", message)
        for file in files:
            if file.suffix.lower() not in (*SUFFIXES, *UNREAD_SUFFIXES):
                continue
            name, text = file.relative_to(self.folder).as_posix(), texts.get(_stem(file))
            if text is not None:
                shown.setdefault(text, [])
            if (why := why_unread(file)) is not None:
                cause = "not a picture" if file.suffix.lower() in UNREAD_SUFFIXES else "missing file"
                self._leave_out(name, cause, f"{name!r} {why}")
            elif text is None:
                wanted = Path(name).with_suffix(".txt")
                self._leave_out(name, "empty caption", f"{name!r} has no text: there is no {str(wanted)!r} beside it")
            else:
                shown[text].append(name)
                self._read_text_file(text, Found(name, file, identity(file)))
        for text in texts.values():
            if text not in shown:
                name = text.relative_to(self.folder).as_posix()
                whole = text.with_suffix("")  # boat.jpg.txt
                rename = f": rename it to {whole.with_suffix('.txt').name!r}" if _is_picture(whole) else ""
                message = f"{name!r} has the name of no picture beside it{rename}"
                self._leave_out(name, "text file without a picture", message)
        if not shown:
            raise ValueError(_nothing_to_read(self.folder, files))
        if shared := [" and ".join(names) for names in shown.values() if len(names) > 1]:
            listed = "; ".join(shared[:20]) + (" …" if shared[20:] else "")
            self.notes.append(printable(f"{self.name}: pictures that have one text file and its captions: {listed}"))
        self._name_unread_files(files, None)

    def _read_text_file(self, text: Path, found: Found) -> None:
        name = text.relative_to(self.folder).as_posix()
        try:
            lines = [line for line in lines_of(read_text(text)) if not is_blank(line)]
        except ValueError as error:
            self._leave_out(name, "unreadable text", str(error))
            return
        captions, problems = captions_in(lines)
        for problem in problems if lines else []:
            self._leave_out(name, "caption is no text", f"{text}: the caption {problem}")
        if captions:
            self._texts_of(found).captions.extend(captions)
        elif not lines:
            self._leave_out(name, "empty caption", f"{name!r} is empty, so {found.name!r} has no caption")


def _question_of(row: Row) -> tuple[Question | AskedQuestion | None, list[tuple[str, str]]]:
    """The question of a row, and what of its question and answer cannot be used: (cause, message)."""
    asked, not_text = captions_in(row.question)
    given, bad_answers = texts_in(str(row.answer) if is_number(row.answer) else row.answer)
    problems = [("question is no text", f"the question {one}") for one in not_text if one != "is empty"]
    if given or bad_answers != ["is empty"]:
        problems += [("answer is no text", f"the answer {one}") for one in bad_answers]
    if len(asked) > 1:
        problems.append(("question is no text", "the question is a list: write a row for each"))
    elif asked and given:
        several = isinstance(row.answer, list | tuple)
        question = AskedQuestion(asked[0], tuple(given), "own") if several else Question("own", asked[0], given[0])
        return question, problems
    elif asked and not problems:
        problems.append(("question without an answer", f"the question {asked[0][:60]!r} has no answer"))
    elif given and not problems:
        problems.append(("answer without a question", f"the answer {given[0][:60]!r} has no question"))
    return None, problems


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _stem(file: Path) -> str:
    """A path without its ending, in one Unicode form: a picture and its text file have the same one."""
    return unicodedata.normalize("NFC", file.with_suffix("").as_posix())


def _table_of(folder: Path) -> Path | None:
    """The table of a folder, or None. Raises ValueError where there are two: one of them would not be read."""
    wanted = {f"{stem}{ending}" for stem in TABLES for ending in ENDINGS}
    found = sorted(path for path in folder.iterdir() if path.name.lower() in wanted and not path.is_dir())
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{folder} has {names}: which one is meant? Rename or move the others")
    return found[0] if found else None


def _nothing_to_read(folder: Path, files: list[Path]) -> str:
    """The error for a folder without a caption: what is missing, and what is there instead."""
    for file, of in (("recipe.json", "a training run"), ("config.json", "a model")):
        if (folder / file).is_file():
            return f"{folder} is the folder of {of}, as its {file} says: give a folder of pictures with captions"
    message = (
        f"{folder} has no captions.csv or captions.jsonl with the columns file and caption, "
        "and no text file beside a picture (boat.txt for boat.jpg): write one of these"
    )
    return message + "".join(_hints(files))


def _hints(files: list[Path]) -> Iterator[str]:
    """What the folder has instead of a caption."""
    deeper = [file for file in files if file.stem.lower() in TABLES and file.suffix.lower() in ENDINGS]
    other = [file for file in files if file.suffix.lower() in ENDINGS or file.name.lower() == "captions.txt"]
    lines = [file for file in files if file.suffix.lower() in JSON_LINES]
    unread = [
        file
        for file in files
        if file.suffix.lower() in UNREAD_TABLES
        or (file.name.lower().startswith(TABLES) and file.suffix.lower() not in (*ENDINGS, *SUFFIXES, ".txt", ".json"))
        or file.name.lower().endswith(tuple(f"{ending}.txt" for ending in ENDINGS))
    ]
    beside = [
        file
        for file in files
        if file.suffix.lower() in (".caption", ".text")
        or (file.suffix.lower() == ".txt" and file.stem.lower().endswith(SUFFIXES))
    ]
    described = [file for file in files if file.suffix.lower() == ".json"]
    pictures = {file.stem.lower(): file for file in files if _is_picture(file)}
    loose = [file for file in files if file.suffix.lower() in (".txt", ".md") and file.stem.lower() not in PAPERS]
    apart = [file for file in files if file.suffix.lower() == ".txt" and file.stem.lower() in pictures]
    shards = [file for file in files if ".tar" in file.suffixes[-2:] or file.suffix.lower() in (".tar", ".tgz")]
    if shards and shards[0].suffix.lower() == ".tar":
        yield f". There is {shards[0]}: for shards, give the folder {shards[0].parent}"
    elif shards:
        yield f". There is {shards[0]}: shards are read uncompressed, with the ending .tar"
    elif deeper:
        table = min(deeper, key=lambda file: "train" not in file.parent.name.lower())
        others = count_of(len(deeper) - 1, "other table is", "other tables are")
        more = f"; {others} there, too: list each as a source in a sources.toml" if deeper[1:] else ""
        far = pictures and not any(table.parent in picture.parents for picture in pictures.values())
        move = "; no picture is below it, so move its pictures there first" if far else ""
        yield f". There is {table}: give the folder {table.parent}{more}{move}"
    elif beside:
        yield f". There is {beside[0]}: the text file of a picture has its name with .txt in place of its ending"
    elif lines:
        yield f". There is {lines[0]}: if it is the table, rename it to captions.jsonl"
    elif apart:
        picture = pictures[apart[0].stem.lower()]
        beside = picture.with_suffix(".txt")
        yield f". There is {apart[0]}: if it is the text of {picture}, its place and name are {beside}"
    elif unread and unread[0].suffix.lower() in UNREAD_ARCHIVES:
        yield f". There is {unread[0]}: if it is the table, unpack it"
    elif unread:
        yield f". There is {unread[0]}: if it is the table, save it as captions.csv, in UTF-8"
    elif other:
        ending = other[0].suffix.replace(".txt", ".csv")
        yield f". There is {other[0]}: if it is the table, rename it to captions{ending}"
    elif described and described[0].stem.lower() in TABLES:
        yield f". There is {described[0]}: if it is the table, save it as captions.jsonl, with one object on each line"
    elif described and any(_is_picture(described[0].with_suffix(ending)) for ending in SUFFIXES):
        text = described[0].with_suffix(".txt").name
        yield f". There is {described[0]} beside a picture: write the caption that it has to {text}"
    elif described:
        yield f'. There is {described[0]}: list an annotation file in a sources.toml (format = "coco" and others)'
    elif loose and len(pictures) > len(loose) == 1:
        yield f". There is {loose[0]}: if it is the table, save it as captions.csv, with a first line file,caption"
    elif loose and pictures:
        picture = min(pictures.values())
        yield f". There is {loose[0]}: the text file of {picture.name} is {picture.with_suffix('.txt').name}"
