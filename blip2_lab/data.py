"""Pictures with their texts: the picture book, lists of pictures on disk, a folder of your own.

What is unusual about it:

* A source is asked by index, and a batch's indices are a pure function of its number (`batch_indices`): nothing to
  shuffle beforehand, no sampler to save, exact resume for free.
* What is written about a picture (`Record`) is known before the picture is opened. Whatever the format on disk, it
  becomes a list of records (annotations.py, shards.py), and everything above sees no difference.
* A bad example is skipped, counted by its cause and reported (`BrokenSample`).
* Every picture that comes from outside passes `open_image`: known formats only, a limit on pixels, rotation as the
  camera meant it.
* Raw strings, no token ids: each model owns its tokenizer. This module knows no model.

Paper: section 3.4 (pre-training data; one of several captions is drawn at each step). Notebook: 08.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import Scene, sample_scene
from blip2_lab.picturebook.words import Question

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")  #: of the files in a folder that are taken for pictures
MAX_PIXELS = 50_000_000
#: A phrase and the box it is about: (left, top, right, bottom), fractions of the picture's sides.
Box = tuple[str, tuple[float, float, float, float]]

#: What the picture book can say about a scene; "caption" mixes "full" and "partial".
CAPTION_KINDS: dict[str, Callable[[Scene, Random], str]] = {
    "caption": words.caption,
    "full": words.full_caption,
    "ordered": partial(words.full_caption, ordered=True),
    "partial": words.partial_caption,
    "short": words.short_caption,
}


@dataclass(frozen=True)
class AskedQuestion:
    """A question about a picture and the answers people gave, as often as they gave them (VQA v2: ten)."""

    text: str
    answers: tuple[str, ...] = ()
    type: str = ""
    id: str = ""

    @property
    def answer(self) -> str:
        """The most frequent answer, the earlier one of equals; "" where there is none (a test set)."""
        return Counter(self.answers).most_common(1)[0][0] if self.answers else ""


@dataclass(frozen=True)
class Example:
    """A picture and what is said about it. `domain`: the part of a benchmark it belongs to (NoCaps: "out-domain")."""

    image: Image.Image
    captions: tuple[str, ...]
    questions: tuple[Question | AskedQuestion, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Record:
    """An example before its picture is opened. `file`: a path, the bytes of a file, or the picture itself."""

    file: Path | bytes | Image.Image
    captions: tuple[str, ...] = ()
    questions: tuple[Question | AskedQuestion, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    domain: str = ""

    def open(self) -> Example:
        """Raises BrokenSample when the picture cannot be read."""
        return Example(open_image(self.file), self.captions, self.questions, self.boxes, self.id, self.domain)


@dataclass(frozen=True)
class Batch:
    """What a training step sees: pictures as `pixels` [B,3,S,S] or as `image_features` [B,N,Dv], and raw strings.

    Where `questions` are given, `captions` are their answers. Rows of equal id show the same picture.
    """

    captions: list[str]
    pixels: Tensor | None = None
    image_features: Tensor | None = None
    ids: list[str] = field(default_factory=list)
    questions: list[str] | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        features = None if self.image_features is None else self.image_features.to(device)
        return replace(self, pixels=pixels, image_features=features)


def image_ids(ids: Iterable[str]) -> Tensor:
    """Names of pictures as numbers, long[B]: equal names, equal numbers, on every rank."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


# ---------------------------------------------------------------------------------------------- pictures from outside


class BrokenSample(ValueError):
    """An example that cannot be used. `cause` is the same for all that fail alike; the message names this one."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def open_image(source: str | os.PathLike | bytes | Image.Image) -> Image.Image:
    """A picture from a path, from bytes or from PIL -> RGB, upright, first frame, transparency over white.

    Raises BrokenSample, a ValueError of one sentence, when it is missing, too large, damaged or of another format.
    """
    name = "the picture" if isinstance(source, Image.Image | bytes | bytearray) else repr(os.fspath(source))
    image = source if isinstance(source, Image.Image) else _open(source, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        millions = f"{width} x {height} = {width * height / 1e6:.0f} million pixels"
        limit = f"at most {MAX_PIXELS // 10**6} million are read, make it smaller"
        raise BrokenSample("too many pixels", f"{name} has {millions}: {limit}")
    try:
        return _to_rgb(image)
    except Exception as error:  # on damaged data Pillow's readers raise nearly anything
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error})") from None


def _open(source: str | os.PathLike | bytes, name: str) -> Image.Image:
    """Read the header only: the pixels come later, after the size is known."""
    try:
        data = bytes(source) if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except FileNotFoundError:
        raise BrokenSample("missing file", f"there is no file {name}") from None
    except IsADirectoryError:
        raise BrokenSample("not a picture", f"{name} is a folder, not a picture") from None
    except UnidentifiedImageError:
        raise BrokenSample("not a picture", f"{name} is not a PNG, JPEG, WebP or GIF picture") from None
    except Image.DecompressionBombError:
        limit = f"at most {MAX_PIXELS // 10**6} million are read"
        raise BrokenSample("too many pixels", f"{name} has far too many pixels: {limit}") from None
    except OSError as error:
        raise BrokenSample("unreadable file", f"{name} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header: see open_image
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the picture itself is fine
        image = image.copy()
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


# ------------------------------------------------------------------------------------------------------------ sources


@dataclass(frozen=True)
class PictureBook:
    """The drawn world as a source: endless, no files; example `index` is the same on every machine."""

    seed: int = 0
    split: str = "train"
    image_size: int = 96
    caption: str = "caption"

    def __post_init__(self) -> None:
        if self.caption not in CAPTION_KINDS:
            raise ValueError(f"caption {self.caption!r} is unknown: choose one of {', '.join(CAPTION_KINDS)}")

    def scene(self, index: int) -> Scene:
        return sample_scene(self.seed, index, self.split)

    def image(self, index: int) -> Image.Image:
        return draw(self.scene(index), self.image_size)

    def one_caption(self, index: int, turn: int = 0) -> str:
        """A caption of scene `index`; another `turn`, another caption.

        Of the kind "caption", even turns tell everything and odd ones a part: captions of one turn are alike in length,
        so a batch of them is hardly padded.
        """
        kind = ("full", "partial")[turn % 2] if self.caption == "caption" else self.caption
        return CAPTION_KINDS[kind](self.scene(index), Random(f"caption {self.seed} {index} {turn}"))

    def __getitem__(self, index: int) -> Example:
        scene, rng = self.scene(index), Random(f"example {self.seed} {index}")
        boxes = {text: thing.box for thing in scene.things for text in words.references(scene, thing)}
        return Example(
            image=draw(scene, self.image_size),
            captions=tuple(CAPTION_KINDS[self.caption](scene, rng) for _ in range(3)),
            questions=tuple(words.questions(scene, rng)),
            boxes=tuple(boxes.items()),
            id=f"{self.split}-{self.seed}-{index}",
        )


class PictureList:
    """Pictures with what is written about each, by index. `skipped`: what was left out already, cause -> how many."""

    def __init__(self, records: Sequence[Record], skipped: Counter[str] | None = None, name: str = "") -> None:
        self.records = records
        self.skipped: Counter[str] = Counter() if skipped is None else skipped
        self.name = name

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Record:
        """What is written about picture `index`; nothing is opened."""
        return self.records[index]

    def __getitem__(self, index: int) -> Example:
        """Example `index`. Raises BrokenSample when its picture cannot be read."""
        return self.record(index).open()

    def __iter__(self) -> Iterator[Example]:
        """Every example whose picture can be read; the others are counted."""
        for index in range(len(self)):
            try:
                example = self[index]
            except BrokenSample as broken:
                self.skipped[broken.cause] += 1
                continue
            yield example

    def report(self) -> str:
        """What was skipped and why, in one sentence."""
        return skip_report(len(self), self.skipped)


def skip_report(count: int, skipped: Counter[str]) -> str:
    """ "20 pictures; skipped 3: 2 missing file, 1 empty caption" """
    if not skipped:
        return f"{count} pictures, nothing skipped"
    causes = ", ".join(f"{number} {cause}" for cause, number in skipped.most_common())
    return f"{count} pictures; skipped {skipped.total()}: {causes}"


class ImageFolder(PictureList):
    """A folder of pictures with `captions.csv` or `captions.jsonl`, or with a text file beside each picture.

    The table has the columns `file` and `caption`; a file with several rows has several captions; `question` and
    `answer` are optional. (Hugging Face's `metadata.csv` with `file_name` and `text` is read as well.) Without a table,
    `boat.jpg` is described by the lines of `boat.txt`, in this folder and those below it.
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
    """The same rows from text files: `boat.jpg` is described by the lines of `boat.txt`."""
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
    """The rows of `captions.jsonl` or `captions.csv`, or none; a ValueError names the line that cannot be read."""
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


# ------------------------------------------------------------------------------------------------------------ batches


@lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """long[count]: the numbers 0 .. count - 1 in the order of this epoch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator)


def batch_indices(batch: int, batch_size: int, count: int, seed: int = 0) -> list[int]:
    """The examples of batch number `batch` of an endless sequence of shuffled epochs over `count` examples.

    No example comes twice in an epoch, so none twice in a batch; the rest that fills no batch waits for another epoch.
    Raises ValueError when the batch is larger than the data.
    """
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise ValueError(f"a batch of {batch_size} needs at least as many examples; there are {count}")
    epoch, place = divmod(batch, per_epoch)
    return epoch_order(seed, epoch, count)[place * batch_size : (place + 1) * batch_size].tolist()
