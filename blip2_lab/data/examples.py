"""Examples and batches: a picture with its texts, lists of them, and the numbers of a batch's examples.

`Example` and `Batch` are where to begin. A data set is anything that gives an Example by index; `PictureList` is one
that reads files, and scenes.py, image_folder.py, data/annotations.py and data/shards.py make such data sets.

Notes:

* A data set is asked by index, and a batch's indices are a pure function of its number (`batch_indices`): there is no
  sampler whose state would have to be saved, so resuming is exact.
* What is written about a picture (`Record`) is known before the picture is opened.
* A bad example is skipped, counted by its cause and reported (`BrokenSample`).
* Texts are raw strings, not token ids: each model owns its tokenizer. This folder imports no model.

Paper: section 3.4 (pre-training data; one of several captions is drawn at each step). Notebook: 08.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.common.images import BrokenSample, open_image
from blip2_lab.picturebook.words import Question

#: A phrase and the box it is about: (left, top, right, bottom), fractions of the picture's sides.
Box = tuple[str, tuple[float, float, float, float]]


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

    Where `questions` are given, `captions` are their answers. Rows of equal id show the same picture. `matches`
    bool[B,B]: is caption m true of picture b? None: of its own picture alone.
    """

    captions: list[str]
    pixels: Tensor | None = None
    image_features: Tensor | None = None
    ids: list[str] = field(default_factory=list)
    questions: list[str] | None = None
    matches: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        features = None if self.image_features is None else self.image_features.to(device)
        matches = None if self.matches is None else self.matches.to(device)
        return replace(self, pixels=pixels, image_features=features, matches=matches)


def image_ids(ids: Iterable[str]) -> Tensor:
    """Names of pictures as numbers, long[B]: equal names, equal numbers, on every rank."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


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
