"""A folder of your own images as a data set: captions in a table, or in a text file beside each image.

`ImageFolder(folder)` is where to begin; its docstring describes the table.

Notes:

* The table is read when the folder is opened, an image when its index is read. Rows that cannot be used are counted by
  cause (`report`).
* A path in the table that leads out of the folder is skipped.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

from blip2_lab.common.images import SUFFIXES
from blip2_lab.data.examples import ImageTextList, Record
from blip2_lab.picturebook.words import Question


class ImageFolder(ImageTextList):
    """A folder of images with `captions.csv` or `captions.jsonl`, or with a text file beside each image.

    The table has the columns `file` and `caption`; a file with several rows has several captions; `question` and
    `answer` are optional. (Hugging Face's `metadata.csv` with `file_name` and `text` is read as well.) Without a table,
    the captions of `boat.jpg` are the lines of `boat.txt`, in this folder and those below it.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        skipped: Counter[str] = Counter()
        captions: dict[str, list[str]] = {}
        questions: dict[str, list[Question]] = {}
        for row in _read_table(self.folder) or _read_text_files(self.folder):
            file = str(row.get("file") or row.get("file_name") or "").strip()
            caption = str(row.get("caption") or row.get("text") or "").strip()
            if not file or not caption:
                skipped["row without a file" if not file else "empty caption"] += 1
            elif not (self.folder / file).resolve().is_relative_to(self.folder.resolve()):
                skipped["file outside the folder"] += 1
            elif not (self.folder / file).is_file():
                skipped["missing file"] += 1
            else:
                captions.setdefault(file, []).append(caption)
                if row.get("question") and row.get("answer"):
                    asked = Question("own", str(row["question"]).strip(), str(row["answer"]).strip())
                    questions.setdefault(file, []).append(asked)
        self.files = list(captions)
        records = [
            Record(self.folder / file, tuple(captions[file]), tuple(questions.get(file, ())), id=file)
            for file in self.files
        ]
        super().__init__(records, skipped, str(folder))


def _read_text_files(folder: Path) -> list[dict]:
    """The same rows from text files: the captions of `boat.jpg` are the lines of `boat.txt`."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8-sig", errors="replace").splitlines() if text.is_file() else []
        file = path.relative_to(folder).as_posix()
        rows += [{"file": file, "caption": line} for line in lines if line.strip()] or [{"file": file, "caption": ""}]
    if not any(row["caption"] for row in rows):
        raise ValueError(
            f"{folder} has no captions.csv or captions.jsonl with the columns file and caption, "
            "and no text file beside a picture (boat.txt for boat.jpg): write one of these"
        )
    return rows


def _read_table(folder: Path) -> list[dict]:
    """The rows of `captions.jsonl` or `captions.csv`, or none. Raises ValueError with the line that cannot be read."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = [f"{stem}.{ending}" for stem in ("captions", "metadata") for ending in ("jsonl", "csv")]
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    rows = []
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error.msg}") from None
            if not isinstance(rows[-1], dict):
                raise ValueError(f"{path}, line {number} is not an object with the keys file and caption")
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
    keys = {key for row in rows for key in row}
    missing = [own for own, theirs in (("caption", "text"), ("file", "file_name")) if not keys & {own, theirs}]
    if missing:
        raise ValueError(f"{path} has no column {' and no column '.join(missing)}")
    return rows
