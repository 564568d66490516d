"""What a run was trained on, by content: captions, questions and pictures, not the names of files and folders.

`data_identity` is where to begin. A run stores it and resumes only on the same data; the feature cache uses
`pictures_digest` in its name.

Notes:

* Two folders of one name are two data sets, and a folder that is moved, copied or renamed stays one.
* A picture is known by its bytes. Lists of more than `MOST_READ` pictures, and shards without `shards.json`, would take
  long to read: there a file is known by its size and the time of its last change. A copy of such a set counts as
  another one.
* The order of the examples counts, because it decides which of them a step sees.
* A stream is known by its address alone.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from blip2_lab.data.examples import ImageTextList, Record
from blip2_lab.data.mixture import Mixture, Source, Stream, Subset, is_stream
from blip2_lab.data.shards import INDEX_FILE, ShardFolder, read_index

MOST_READ = 20_000  #: pictures of a list that are read as a whole
THREADS = 8


@dataclass(frozen=True)
class Identity:
    """Hashes of all texts and of all pictures, the number of examples, and the shares of the sources.

    `unordered`: a hash of the examples of lists, whatever their order; "" in runs of older versions.
    """

    texts: str
    pictures: str
    examples: int
    shares: tuple[int, ...]
    unordered: str = ""

    def differences(self, before: Identity) -> list[str]:
        """What is different from the data `before`, in words."""
        if self.examples != before.examples:
            return [f"{self.examples} examples instead of {before.examples}"]
        if self.unordered and self.unordered == before.unordered and self != before and self.shares == before.shares:
            return ["the same examples in another order"]
        changed = [("captions or questions", "texts"), ("pictures", "pictures"), ("weights of the sources", "shares")]
        return [f"other {what}" for what, name in changed if getattr(self, name) != getattr(before, name)]

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict) -> Identity:
        hashes = stored["texts"], stored["pictures"], stored["examples"]
        return cls(*hashes, tuple(stored["shares"]), stored.get("unordered", ""))


def data_identity(mixture: Mixture) -> Identity:
    """The identity of the data that `open_sources` found."""
    texts = [_texts_of_each(source) for source in mixture.sources]
    pictures = [_pictures_of_each(source) for source in mixture.sources]
    pairs = [
        [str(pair) for pair in zip(*each, strict=True)] if each[0] else each[1]
        for each in zip(texts, pictures, strict=True)
    ]
    return Identity(
        _digest(_digest(each) if each else "" for each in texts),
        _digest(map(_digest, pictures)),
        sum(0 if is_stream(source) else len(source) for source in mixture.sources),
        tuple(mixture.shares),
        _digest(_digest(sorted(each)) for each in pairs),
    )


def _texts_of_each(source: Source | Stream) -> list[str]:
    """The captions and questions of each picture of a list, in their order; none for shards, whose texts are part of
    `_pictures_of_each`."""
    whole, numbers = _whole(source)
    return [_texts(whole.record(n)) for n in _all(whole, numbers)] if isinstance(whole, ImageTextList) else []


def _texts(record: Record) -> str:
    questions = [(q.text, *getattr(q, "answers", (q.answer,))) for q in record.questions]
    return json.dumps([record.captions, questions])


def pictures_digest(source: Source | Stream) -> str:
    """A hash of the pictures of a source, in their order."""
    return _digest(_pictures_of_each(source))


def _pictures_of_each(source: Source | Stream) -> list[str]:
    """What each picture of a list is known by; of other sources, what the source is known by."""
    whole, numbers = _whole(source)
    if is_stream(whole):
        return [whole.name]
    if isinstance(whole, ShardFolder):
        return [*map(_shard, whole.paths), str(numbers)]
    if not isinstance(whole, ImageTextList):  # the picture book: a function of its name
        return [whole.name, str(len(whole)), str(numbers)]
    files = [whole.record(number).file for number in _all(whole, numbers)]
    read = len(files) <= MOST_READ
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda file: _picture(file, read), files))


def _whole(source: Source | Stream) -> tuple[Source | Stream, list[int] | None]:
    """A subset's source, and the numbers of its examples there; None where it is all of them."""
    numbers: list[int] | None = None
    while isinstance(source, Subset):
        numbers = list(source.numbers) if numbers is None else [source.numbers[number] for number in numbers]
        source = source.source
    return source, numbers


def _all(source: Source, numbers: Sequence[int] | None) -> Sequence[int]:
    return range(len(source)) if numbers is None else numbers


def _picture(file: Path | bytes | Image.Image, read: bool) -> str:
    if isinstance(file, Image.Image):
        return hashlib.sha256(f"{file.mode} {file.size}".encode() + file.tobytes()).hexdigest()
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if read else _stamp(file)
    except OSError as error:  # reading the example reports it
        return f"unreadable: {type(error).__name__}"


def _shard(path: Path) -> str:
    """The SHA-256 that `shards.json` has of a shard, or the shard's size and time."""
    index = path.parent / INDEX_FILE
    if index.is_file():
        if digest := next((shard["sha256"] for shard in read_index(index) if shard["file"] == path.name), None):
            return digest
    return _stamp(path)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())  # of one length each
    return digest.hexdigest()[:16]
