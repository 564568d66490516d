"""The entries of an annotation file, collected by image: what all formats share.

A format reads its file (`read_json`), goes through the entries (`Collector.entries`) and adds images and their texts to
the `Collector`, whose `image_text_list` is the data set.

Notes:

* All texts of an image are one record, also where they come from several entries or files (VQA v2: questions and
  answers; Visual Genome: regions and image data).
* Numbers of images and questions may be written as numbers or as text: 42 and "42" are the same one.
* An entry that cannot be used (an empty caption, a missing key, a caption of an unlisted image) is named and counted; a
  file in which no entry has the keys of its format is an error.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_lab.common.characters import printable
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import AskedQuestion, ImageTextList, LeftOut, Record
from blip2_lab.data.picture_files import PictureFinder
from blip2_lab.data.text_files import captions_in, is_number, lines_of, parse_json, read_text, texts_in

File = str | os.PathLike


# ------------------------------------------------------------------------------------------------------------ reading


def read_json(path: File, what: str) -> Any:
    """The value of a JSON file; of JSON lines (.jsonl) the list of their values. `what`: what the file should be, for
    the message about a missing one."""
    text = read_text(path, what)
    if Path(path).suffix.lower() != ".jsonl":
        return parse_json(text, str(path))
    lines = enumerate(lines_of(text), 1)
    return [parse_json(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def list_in(content: Any, key: str, keys: Iterable[str], path: File, what: str) -> list:
    """The list under `key` ("": the content itself). Raises ValueError unless one of its entries has `keys`."""
    found = content.get(key) if key and isinstance(content, dict) else content
    place = f"list {key!r}" if key and isinstance(content, dict) else "list"
    if not isinstance(found, list) or (key and found == [] and not isinstance(content, dict)):
        raise ValueError(f"{path} is not {what}: it has no {place}" if key else f"{path} is not {what}: it is no list")
    if found and not any(isinstance(entry, dict) and entry.keys() >= set(keys) for entry in found):
        missing = [name for name in keys if not isinstance(found[0], dict) or name not in found[0]]
        names = " and no ".join(map(repr, missing or keys))
        raise ValueError(f"{path} is not {what}: the entries of its {place} have no {names}{format_of(found)}")
    return found


def format_of(found: list) -> str:
    """The end of an error: the format that these entries have, if it is known."""
    keys = next((entry.keys() for entry in found if isinstance(entry, dict)), set())
    for format, wanted in (
        ("llava", {"conversations"}),
        ("blip", {"image", "caption"}),
        ("blip", {"image", "question"}),
    ):
        if wanted <= keys:
            return f'; format = "{format}" reads such a file'
    return ""


def number_of(value: Any) -> str | None:
    """The number of an image or a question as text: 42, 42.0 and "42" are one. None for what is no number or text."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value).strip() or None


# --------------------------------------------------------------------------------------------------------- collecting


class Collector:
    """Collects the texts of each image, in the order in which the images are added."""

    def __init__(self, images: File, name: str) -> None:
        self.folder, self.name = Path(images), name
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder of pictures {self.folder}")
        self.finder = PictureFinder(self.folder)
        self.records: dict[Any, dict] = {}
        self.by_name: dict[str, dict] = {}
        self.left_out: list[LeftOut] = []

    def leave_out(self, place: str, cause: str, message: str) -> None:
        """Name something that is not used. `place`: in which file and entry it is."""
        self.left_out.append(LeftOut(printable(place), cause, printable(f"{place}: {message}")))

    def unfit(self, place: str, name: str, value: Any, wanted: str = "a text") -> None:
        """Name an entry whose `name` is of another kind than is wanted."""
        self.leave_out(place, "incomplete entry", f"its {name} is {value!r:.40}, and {wanted} is wanted")

    def entries(self, content: Any, key: str, keys: Iterable[str], path: File, what: str) -> Iterator[tuple[str, dict]]:
        """(place, entry) of each entry of `list_in` that has `keys`; the others are named."""
        return self.complete(list_in(content, key, keys, path, what), keys, path, key)

    def complete(self, found: list, keys: Iterable[str], path: File, key: str = "") -> Iterator[tuple[str, dict]]:
        """(place, entry) of each entry that has `keys`; the others are named."""
        for number, entry in enumerate(found, 1):
            place = f"{path}, entry {number}{key and f' of {key!r}'}"
            missing = [name for name in keys if name not in entry] if isinstance(entry, dict) else list(keys)
            if missing or not isinstance(entry, dict):
                self.leave_out(place, "incomplete entry", f"it has no {' and no '.join(map(repr, missing))}")
            else:
                yield place, entry

    def key_of(self, value: Any, place: str, name: str) -> str | None:
        """`number_of` of an entry's `name`; None, and named, where it is none."""
        found = number_of(value)
        if found is None:
            self.unfit(place, repr(name), value, "a number or a text")
        return found

    def of_split(
        self, entries: Iterable[tuple[str, dict]], wanted: tuple[str, ...], split: str, path: File
    ) -> list[tuple[str, dict]]:
        """The entries of a split; those whose split is no text are named. Raises ValueError that lists the splits, if
        there are none."""
        whole = []
        for place, entry in entries:
            if isinstance(entry["split"], str):
                whole.append((place, entry))
            else:
                self.unfit(place, "'split'", entry["split"])
        if not (chosen := [(place, entry) for place, entry in whole if entry["split"] in wanted]):
            known = ", ".join(sorted({entry["split"] for _, entry in whole}))
            raise ValueError(f"{path} has no split {split!r}: it has {known or 'none'}")
        return chosen

    def add_image(self, key: Any, files: Any, place: str, domain: Any = "") -> bool:
        """Add image `key`. `files`: its name relative to the folder of images, or several of which one is there. A name
        that leads out of the folder is left out, and so is a second file of one image; a file that is missing is found
        to be so when it is opened. Returns whether the image has this file."""
        known = self.records.get(key)
        if known is not None and known["given"] == files:
            return True
        missing = why = ""
        for file in files if isinstance(files, tuple) else (files,):
            if not isinstance(file, str) or not file.strip():
                self.unfit(place, "file name", file)
                return False
            try:
                name, path, _ = self.finder.find(file)
                why = ""
                break
            except BrokenSample as broken:
                if broken.cause != "missing file":
                    if known is None:  # later entries about the same image say nothing new
                        self.leave_out(place, broken.cause, str(broken))
                    return False
                missing, why = missing or file, why or f"{place}: {broken}"
        else:
            name = PurePosixPath(os.path.normpath(missing.replace("\\", "/"))).as_posix()
            path = self.folder / missing
        if known is not None and known["name"] != name:
            message = f"image {key} is listed with two files, {known['name']!r} and {name!r}; the first one is used"
            self.leave_out(place, "picture listed twice", message)
            return False
        if known is None:
            fresh = {"file": path, "name": name, "captions": [], "questions": [], "boxes": [], "id": str(key)}
            fresh |= {"given": files, "missing": why, "domain": domain if isinstance(domain, str) else ""}
            self.records[key] = self.by_name.setdefault(name, fresh)
        return True

    def add_captions(self, key: Any, value: Any, place: str, box: tuple[float, ...] | None = None) -> None:
        """Add the captions of image `key`: a text, or a list of them. `box`: what they are about, as fractions."""
        record = self._record(key, place)
        if record is None:
            return
        captions, problems = captions_in(value)
        for problem in problems:
            cause = "empty caption" if problem == "is empty" else "caption is no text"
            self.leave_out(place, cause, f"the caption {problem}")
        for caption in captions:
            phrase = " ".join(caption.split())
            record["captions"].append(phrase)
            record["boxes"] += [(phrase, box)] if box else []

    def add_question(
        self, key: Any, text: Any, place: str, answers: Iterable[Any], kind: Any = "", id: str = ""
    ) -> None:
        """Add a question about image `key` with its answers."""
        record = self._record(key, place)
        if record is None:
            return
        if not isinstance(text, str) or texts_in(text)[1]:
            empty = text is None or (isinstance(text, str) and not text.strip())
            cause = "empty question" if empty else "no text"
            self.leave_out(place, cause, "the question is empty" if empty else "the question is no text")
            return
        known = []
        for answer in answers:
            if is_number(answer):
                answer = str(answer)
            good, problems = texts_in(answer) if not isinstance(answer, list) else ([], ["is a list in a list"])
            known += good
            for problem in problems:
                self.leave_out(place, "answer is no text", f"an answer {problem}")
        kind = kind if isinstance(kind, str) else ""
        record["questions"].append(AskedQuestion(text, tuple(known), kind, id))

    def _record(self, key: Any, place: str) -> dict | None:
        record = self.records.get(key)
        if record is None:
            self.leave_out(place, "text about an unlisted picture", f"no picture {key!r} is listed")
        return record

    def image_text_list(self) -> ImageTextList:
        """All images that have a text; the others are named."""
        records = []
        for found in self.by_name.values():
            if found["captions"] or found["questions"]:
                texts = {name: tuple(found[name]) for name in ("captions", "questions", "boxes")}
                more = {"id": printable(found["id"]), "domain": found["domain"], "missing": printable(found["missing"])}
                records.append(Record(found["file"], **texts, **more))
            else:
                message = f"picture {found['id']} of {self.name} has no text that can be used"
                self.left_out.append(LeftOut(printable(found["name"]), "picture without a text", printable(message)))
        return ImageTextList(records, self.left_out, self.name)
