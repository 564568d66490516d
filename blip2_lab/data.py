"""Pictures with their texts: the picture book, a folder of your own, and features computed once.

What is unusual about it:

* A source is asked by index, and a batch's indices are a pure function of its number (`batch_indices`): nothing to
  shuffle beforehand, no sampler to save, exact resume for free.
* No picture is flipped: a flip makes "left of" false. (The reference flips under every caption.)
* A bad example is skipped, counted by its cause and reported; another one never silently takes its place.
* Every picture that comes from outside passes `open_image`: known formats only, a limit on pixels, rotation as the
  camera meant it.
* Raw strings, no token ids: each model owns its tokenizer. This module knows no model.

Paper: section 3.4 (pre-training data; one of several captions is drawn at each step). Notebook: 00.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
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
from blip2_lab.run_folder import flush, write_atomically

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 50_000_000

#: What the picture book can say about a scene; "caption" mixes the others.
CAPTION_KINDS: dict[str, Callable[[Scene, Random], str]] = {
    "caption": words.caption,
    "full": words.full_caption,
    "partial": words.partial_caption,
    "short": words.short_caption,
}


@dataclass(frozen=True)
class Example:
    """A picture and what is said about it. `boxes`: phrase -> (left, top, right, bottom), fractions of the sides."""

    image: Image.Image
    captions: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Batch:
    """What a training step sees: pictures as `pixels` [B,3,S,S] or as `image_features` [B,N,Dv], and raw strings."""

    captions: list[str]
    pixels: Tensor | None = None
    image_features: Tensor | None = None
    ids: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        features = None if self.image_features is None else self.image_features.to(device)
        return replace(self, pixels=pixels, image_features=features)


# ---------------------------------------------------------------------------------------------- pictures from outside


def open_image(source: str | os.PathLike | bytes | Image.Image) -> Image.Image:
    """A picture from a path, from bytes or from PIL -> RGB, upright, first frame, transparency over white.

    Raises ValueError with one sentence when it is missing, too large, damaged or not PNG, JPEG, WebP or GIF.
    """
    name = "the picture" if isinstance(source, Image.Image | bytes | bytearray) else repr(os.fspath(source))
    image = source if isinstance(source, Image.Image) else _open(source, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        millions = f"{width} x {height} = {width * height / 1e6:.0f} million pixels"
        raise ValueError(f"{name} has {millions}: at most {MAX_PIXELS // 10**6} million are read, make it smaller")
    try:
        return _to_rgb(image)
    except Exception as error:  # on damaged data Pillow's readers raise nearly anything
        raise ValueError(f"{name} is damaged or cut off ({error})") from None


def _open(source: str | os.PathLike | bytes, name: str) -> Image.Image:
    """Read the header only: the pixels come later, after the size is known."""
    try:
        data = bytes(source) if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except FileNotFoundError:
        raise ValueError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, not a picture") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a PNG, JPEG, WebP or GIF picture") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name} has far too many pixels: at most {MAX_PIXELS // 10**6} million are read") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error})") from None


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


class ImageFolder:
    """A folder of pictures with `captions.csv` or `captions.jsonl`: columns `file` and `caption`.

    A file with several rows has several captions; columns `question` and `answer` are optional. Rows without a file
    or caption, and pictures that cannot be read, are skipped and counted in `skipped` (cause -> how many).
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.skipped: Counter[str] = Counter()
        captions: dict[str, list[str]] = {}
        questions: dict[str, list[Question]] = {}
        for row in _read_table(self.folder):
            file, caption = (str(row.get(key) or "").strip() for key in ("file", "caption"))
            if not file or not caption:
                self.skipped["row without a file" if not file else "empty caption"] += 1
            elif not (self.folder / file).resolve().is_relative_to(self.folder.resolve()):
                self.skipped["file outside the folder"] += 1
            elif not (self.folder / file).is_file():
                self.skipped["missing file"] += 1
            else:
                captions.setdefault(file, []).append(caption)
                if row.get("question") and row.get("answer"):
                    asked = Question("own", str(row["question"]).strip(), str(row["answer"]).strip())
                    questions.setdefault(file, []).append(asked)
        self.files = list(captions)
        self._captions, self._questions = captions, questions

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Example `index`. Raises ValueError when its picture cannot be read."""
        file = self.files[index]
        image = open_image(self.folder / file)
        return Example(image, tuple(self._captions[file]), tuple(self._questions.get(file, ())), id=file)

    def __iter__(self) -> Iterator[Example]:
        """Every example whose picture can be read; the others are counted."""
        for index in range(len(self)):
            try:
                example = self[index]
            except ValueError:
                self.skipped["unreadable picture"] += 1
                continue
            yield example

    def report(self) -> str:
        """What was skipped and why, in one sentence."""
        if not self.skipped:
            return f"{len(self)} pictures, nothing skipped"
        causes = ", ".join(f"{count} {cause}" for cause, count in self.skipped.most_common())
        return f"{len(self)} pictures; skipped {self.skipped.total()}: {causes}"


def _read_table(folder: Path) -> list[dict]:
    """The rows of `captions.jsonl` or `captions.csv`; a ValueError names the line that cannot be read."""
    lines, table = folder / "captions.jsonl", folder / "captions.csv"
    if not lines.exists() and not table.exists():
        raise ValueError(f"{folder} has no captions.csv or captions.jsonl: write one with the columns file and caption")
    path = lines if lines.exists() else table
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    rows = []
    if path == lines:
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
    if missing := {"file", "caption"} - {key for row in rows for key in row}:
        raise ValueError(f"{path} has no column {' and no column '.join(sorted(missing))}")
    return rows


# ------------------------------------------------------------------------------------------------------------ batches


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
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
    return _epoch_order(seed, epoch, count)[place * batch_size : (place + 1) * batch_size].tolist()


# ------------------------------------------------------------------------------------------ features, computed once


def cached_features(
    encode: Callable[[Sequence[Image.Image]], Tensor],
    image: Callable[[int], Image.Image],
    count: int,
    *,
    path: str | os.PathLike | None = None,
    fingerprint: str = "",
    chunk: int = 128,
    say: Callable[[str], None] = print,
) -> Tensor:
    """image_features bf16 [count,N,Dv] of pictures `image(0) .. image(count - 1)`, each encoded once.

    `encode`: pictures -> image_features [B,N,Dv], by a frozen encoder. With `path` the features live in that file,
    mapped into memory, and `path.json` tells how many are done: an interrupted call goes on where it stopped.
    `fingerprint` names encoder and pictures; a file made for another one is made anew.
    """
    with torch.no_grad():
        shape = (count, *encode([image(0)]).shape[1:])
    about = {"shape": list(shape), "fingerprint": fingerprint}
    done = 0
    if path is None:
        features = torch.empty(shape, dtype=torch.bfloat16)
    else:
        path, note = Path(path), Path(f"{path}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(note.read_text()) if note.exists() and path.exists() else {}
        if found == {**about, "done": found.get("done")}:
            done = found["done"]
        else:
            note.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        # from_file makes the file as large as needed, and leaves one that is large enough as it is
        features = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.bfloat16).view(shape)
    if done < count:
        say(f"computing the features of {count - done} pictures, once")
    for start in range(done, count, chunk):
        end = min(start + chunk, count)
        with torch.no_grad():
            features[start:end] = encode([image(i) for i in range(start, end)]).to(torch.bfloat16)
        if path is not None:
            flush(path)  # before the note says that they are done
            write_atomically(note, json.dumps({**about, "done": end}))
    return features
