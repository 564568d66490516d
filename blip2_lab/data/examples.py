"""Examples and batches: an image with its texts, lists of them, and the indices of a batch's examples.

`Example` and `Batch` are where to begin. A data set returns an Example for an index; `ImageTextList` is one that reads
files, and scenes.py, image_folder.py, annotations/ and data/shards.py make such data sets.

Notes:

* The indices of a batch are a pure function of its number (`batch_indices`). There is no sampler state to save, so a
  resumed run sees the same batches.
* The texts of an image (`Record`) are available before the image is opened.
* An example that cannot be read is left out, named and counted by its cause (`LeftOut`, `BrokenSample`).
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

from blip2_lab.common.console import count_of
from blip2_lab.common.images import BrokenSample, open_image
from blip2_lab.picturebook.words import Question

#: A phrase and its box: (left, top, right, bottom), as fractions of the image's width and height.
Box = tuple[str, tuple[float, float, float, float]]


@dataclass(frozen=True)
class AskedQuestion:
    """A question about an image and the annotators' answers, with repetitions (VQA v2: ten)."""

    text: str
    answers: tuple[str, ...] = ()
    type: str = ""
    id: str = ""

    @property
    def answer(self) -> str:
        """The most frequent answer, the first of equally frequent ones; "" where there is none (a test set)."""
        return Counter(self.answers).most_common(1)[0][0] if self.answers else ""


@dataclass(frozen=True)
class Example:
    """An image and its texts. `domain`: the part of a benchmark that it belongs to (NoCaps: "out-domain")."""

    image: Image.Image
    captions: tuple[str, ...]
    questions: tuple[Question | AskedQuestion, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Record:
    """An example before its image is opened. `file`: a path, the bytes of a file, or an image.

    `unread`: what its source says of it that could not be read, one sentence each; the rest of it is used. `missing`:
    what its source says of a file that is not there.
    """

    file: Path | bytes | Image.Image
    captions: tuple[str, ...] = ()
    questions: tuple[Question | AskedQuestion, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    domain: str = ""
    unread: tuple[str, ...] = ()
    missing: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.captions, str | bytes):
            raise ValueError(f"captions is a single text, and a tuple of texts is wanted: ({self.captions[:40]!r},)")

    def open(self) -> Example:
        """Raises BrokenSample when the image cannot be read."""
        name = f"the picture of {self.id!r}" if self.id else ""
        try:
            image = open_image(self.file, name=name)
        except BrokenSample as broken:
            if self.missing and broken.cause == "missing file":
                raise BrokenSample(broken.cause, self.missing) from None
            raise
        return Example(image, self.captions, self.questions, self.boxes, self.id, self.domain)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture, row or text that is not used. `sample`: where it is, with file and line; `cause`: the kind of failure,
    for counting; `message`: what is wrong and what to do, in one sentence."""

    sample: str
    cause: str
    message: str


#: Causes that are no faults: files that no table lists, or that are no table. They are named, but not among what was
#: skipped, and `data.max_broken` is not about them: a table may list a few of a thousand pictures.
UNLISTED = frozenset(
    {"picture without a row", "text file without a picture", "text file beside a table", "file that is not read"}
)


def count_causes(left_out: Iterable[LeftOut], *, unlisted: bool = False) -> Counter[str]:
    """cause -> number of them: of what was skipped, or with `unlisted` of the files that no table lists."""
    return Counter(one.cause for one in left_out if (one.cause in UNLISTED) is unlisted)


@dataclass(frozen=True)
class Batch:
    """The input of a training step: images as `pixels` [B,3,S,S] or `image_features` [B,N,Dv], and raw strings.

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
    """Names of images -> numbers, long[B]: equal names have equal numbers, on every rank. Raises ValueError for what is
    no text, and for a single text, which would be read letter by letter."""
    names = [ids] if isinstance(ids, str | bytes) else list(ids)
    if isinstance(ids, str | bytes) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"Names of pictures are a list of texts, and this is {ids!r:.60}: numbers need no names, pass "
            "torch.tensor(numbers)."
        )
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


class ImageTextList:
    """Images with their texts, by index. `left_out`: everything that is not used so far, with its cause."""

    def __init__(self, records: Sequence[Record], left_out: Iterable[LeftOut] = (), name: str = "") -> None:
        self.records = records
        self.left_out = list(left_out)
        self.name = name

    @property
    def skipped(self) -> Counter[str]:
        """cause -> number of examples left out"""
        return count_causes(self.left_out)

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Record:
        """The texts of image `index`; the image is not opened."""
        return self.records[index]

    def __getitem__(self, index: int) -> Example:
        """Example `index`. Raises BrokenSample when its image cannot be read."""
        if isinstance(index, slice):
            raise TypeError(
                "Examples are opened one by one; a part of them is torch.utils.data.Subset(pictures, range(9))."
            )
        return self.record(index).open()

    def __iter__(self) -> Iterator[Example]:
        """All examples whose image can be read; the others are left out, and named."""
        for index in range(len(self)):
            try:
                example = self[index]
            except BrokenSample as broken:
                one = LeftOut(self.record(index).id or str(index), broken.cause, str(broken))
                if one not in self.left_out:  # in an earlier pass
                    self.left_out.append(one)
                continue
            yield example

    def report(self) -> str:
        """The number of examples left out, by cause, in one sentence."""
        return left_out_report(len(self), self.left_out)


def skip_report(count: int, skipped: Counter[str]) -> str:
    """ "20 pictures; skipped 3: 2 missing file, 1 empty caption" """
    pictures = count_of(count, "picture", "pictures")
    if not skipped:
        return f"{pictures}, nothing skipped"
    return f"{pictures}; skipped {skipped.total()}: {list_causes(skipped)}"


def left_out_report(count: int, left_out: Sequence[LeftOut]) -> str:
    """`skip_report`, and the files that no table lists: "…; not listed 1: 1 picture without a row" """
    skipped, unlisted = count_causes(left_out), count_causes(left_out, unlisted=True)
    if not unlisted:
        return skip_report(count, skipped)
    report = skip_report(count, skipped) if skipped else count_of(count, "picture", "pictures")
    return f"{report}; not listed {unlisted.total()}: {list_causes(unlisted)}"


def list_causes(causes: Counter[str]) -> str:
    """ "2 missing file, 1 empty caption" """
    return ", ".join(f"{number} {cause}" for cause, number in causes.most_common())


# ------------------------------------------------------------------------------------------------------------ batches


@lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """long[count]: a permutation of 0 .. count - 1, the order of this epoch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator)


def batch_indices(batch: int, batch_size: int, count: int, seed: int = 0) -> list[int]:
    """The indices of batch number `batch` in an endless sequence of shuffled epochs over `count` examples.

    No example occurs twice in an epoch, so none twice in a batch. The remainder of an epoch that fills no batch is
    dropped. Raises ValueError when the batch is larger than the data.
    """
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise ValueError(
            f"a batch of {batch_size} needs at least as many examples, and there are {count}: make it smaller"
        )
    epoch, place = divmod(batch, per_epoch)
    return epoch_order(seed, epoch, count)[place * batch_size : (place + 1) * batch_size].tolist()
