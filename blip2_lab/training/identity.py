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
    """Hashes of all texts and of all pictures, the number of examples, and the shares of the sources."""

    texts: str
    pictures: str
    examples: int
    shares: tuple[int, ...]

    def differences(self, before: Identity) -> list[str]:
        """What is different from the data `before`, in words."""
        if self.examples != before.examples:
            return [f"{self.examples} examples instead of {before.examples}"]
        changed = [("captions or questions", "texts"), ("pictures", "pictures"), ("weights of the sources", "shares")]
        return [f"other {what}" for what, name in changed if getattr(self, name) != getattr(before, name)]

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict) -> Identity:
        return cls(stored["texts"], stored["pictures"], stored["examples"], tuple(stored["shares"]))


def data_identity(mixture: Mixture) -> Identity:
    """The identity of the data that `open_sources` found."""
    return Identity(
        _digest(texts_digest(source) for source in mixture.sources),
        _digest(pictures_digest(source) for source in mixture.sources),
        sum(0 if is_stream(source) else len(source) for source in mixture.sources),
        tuple(mixture.shares),
    )


def texts_digest(source: Source | Stream) -> str:
    """A hash of the captions and questions of a list, in their order; the texts of shards are in `pictures_digest`."""
    whole, numbers = _whole(source)
    if not isinstance(whole, ImageTextList):
        return ""
    return _digest(_texts(whole.record(number)) for number in _all(whole, numbers))


def _texts(record: Record) -> str:
    questions = [(q.text, *getattr(q, "answers", (q.answer,))) for q in record.questions]
    return json.dumps([record.captions, questions])


def pictures_digest(source: Source | Stream) -> str:
    """A hash of the pictures of a source, in their order."""
    whole, numbers = _whole(source)
    if is_stream(whole):
        return _digest([whole.name])
    if isinstance(whole, ShardFolder):
        return _digest([*map(_shard, whole.paths), str(numbers)])
    if not isinstance(whole, ImageTextList):  # the picture book: a function of its name
        return _digest([whole.name, str(len(whole)), str(numbers)])
    files = [whole.record(number).file for number in _all(whole, numbers)]
    read = len(files) <= MOST_READ
    with ThreadPoolExecutor(THREADS) as pool:
        return _digest(pool.map(lambda file: _picture(file, read), files))


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
