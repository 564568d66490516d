"""Everything behind one iterator: any sources, mixed by weights, as batches that are a function of their number.

What is unusual about it:

* `open_sources` takes what you have: a folder, shards, an address, `hf:owner/name`, or a `sources.toml` that lists
  several with their weights (`FORMATS` names the kinds, each key is an argument of that function).
* Which example stands where is computed, not drawn along the way: every thousand places hold each source in exactly its
  share, and each source goes through its own shuffled epochs. Place 10,000,000 costs as much as place 0. Streams alone
  have to be read from their beginning.
* A broken sample is counted by its cause and written to `skipped.jsonl`. Its place in the batch is filled by the next
  good one of the same batch, under that one's id, so the batch keeps its size and nothing depends on what came before.
  Past the limit the run stops and says what was wrong.

Paper: section 3.4 (six sources, 129 M pairs). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from threading import Lock

from blip2_lab.common.console import did_you_mean
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.annotations import coco_captions, flickr30k, gqa, karpathy, nocaps, refcoco, visual_genome, vqa
from blip2_lab.data.examples import ImageTextList, Record, batch_indices, epoch_order, skip_report
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.scenes import PictureBook
from blip2_lab.data.shards import HubStream, ShardFolder, ShardStream

BLOCK = 1000  #: places in which each source has exactly its share
MIN_SEEN = 1000  #: of a stream, whose length nobody knows, before a share of it means something


class PictureBookPages:
    """The first `pages` of a picture book as a source like any other; each page is drawn when it is opened."""

    def __init__(self, pages: int, seed: int = 0, split: str = "train", image_size: int = 224) -> None:
        self.book, self.pages = PictureBook(seed, split, image_size), pages
        self.name = f"picture book {seed} {split}"
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return self.pages

    def record(self, index: int) -> Record:
        example = self.book[index]
        return Record(example.image, example.captions, example.questions, example.boxes, example.id)


class Subset:
    """Some of a source's examples as a source of their own."""

    def __init__(self, source: ImageTextList | ShardFolder | PictureBookPages | Subset, numbers: Sequence[int]) -> None:
        self.source, self.numbers = source, numbers
        self.name, self.skipped = source.name, source.skipped

    def __len__(self) -> int:
        return len(self.numbers)

    def record(self, index: int) -> Record:
        return self.source.record(self.numbers[index])


Source = ImageTextList | ShardFolder | PictureBookPages | Subset  #: by index
Stream = ShardStream | HubStream  #: in its own order

#: What a `[[source]]` of a sources.toml may be; its other keys are the arguments.
FORMATS: dict[str, Callable[..., Source | Stream]] = {
    "folder": ImageFolder,
    "shards": ShardFolder,
    "stream": ShardStream,
    "huggingface": HubStream,
    "picture-book": PictureBookPages,
    "coco": coco_captions,
    "karpathy": karpathy,
    "flickr30k": flickr30k,
    "visual-genome": visual_genome,
    "nocaps": nocaps,
    "vqa": vqa,
    "gqa": gqa,
    "refcoco": refcoco,
}
#: Arguments that are paths, relative to the file that names them.
PATHS = ("folder", "annotations", "images", "questions", "regions", "image_data", "refs", "instances", "data_files")


# ------------------------------------------------------------------------------------------------------------ opening


def open_sources(place: str | os.PathLike) -> Mixture:
    """What is at `place`, see the module's docstring. Raises ValueError that says what it may be."""
    text, path = os.fspath(place), Path(place)
    if path.suffix == ".toml":
        return _from_toml(path)
    if text.startswith("hf:") and "://" not in text:
        return Mixture([HubStream(text.removeprefix("hf:"))])
    if "://" in text:
        return Mixture([ShardStream(text)])
    if path.suffix == ".tar" and ("*" in path.name or path.is_file()):
        files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
        if not files:
            raise ValueError(f"no file is called {text}")
        return Mixture([ShardFolder(files)])
    if not path.is_dir():
        raise ValueError(
            f"{text} is nothing to train on: give a folder of pictures with captions.csv, a folder of .tar shards, "
            "an address of shards, hf:owner/name, or a sources.toml"
        )
    if list(path.glob("*.tar")):
        return Mixture([ShardFolder(path)])
    return Mixture([ImageFolder(path)])


def _from_toml(path: Path) -> Mixture:
    try:
        listed = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    entries = listed.get("source")
    if not isinstance(entries, list) or set(listed) != {"source"}:
        raise ValueError(
            f"{path} must list its sources, each under a line [[source]] with format = … and its arguments"
        )
    weights = [entry.pop("weight", None) for entry in entries]
    sources = [_open_entry(entry, f"{path}, source {number}", path.parent) for number, entry in enumerate(entries, 1)]
    if None in weights and weights != [None] * len(weights):
        raise ValueError(f"{path}: give each source a weight, or none")
    return Mixture(sources, None if None in weights else weights)


def _open_entry(entry: dict, where: str, folder: Path) -> Source | Stream:
    kind, arguments = entry.get("format"), {key: value for key, value in entry.items() if key != "format"}
    if kind not in FORMATS:
        raise ValueError(f"{where}: format {kind!r} is none of {', '.join(FORMATS)}{did_you_mean(str(kind), FORMATS)}")
    known = inspect.signature(FORMATS[kind]).parameters
    for key in arguments:
        if key not in known:
            raise ValueError(f"{where}: {kind} has no {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in arguments:
            raise ValueError(f"{where}: {kind} needs {key} = …")
    for key in set(PATHS) & arguments.keys():
        if isinstance(arguments[key], str) and "://" not in arguments[key]:
            arguments[key] = str(folder / arguments[key])
    return FORMATS[kind](**arguments)


# ------------------------------------------------------------------------------------------------------------- mixing


@dataclass(frozen=True)
class Pick:
    """Which example stands in a place: number `number` of source `source`; of a stream, its `number`-th draw."""

    source: int
    number: int


class Mixture:
    """Sources and their shares. Without weights each has its share of all examples, as if they were one list."""

    def __init__(self, sources: Sequence[Source | Stream], weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise ValueError("there is no source: give at least one")
        self.sources = list(sources)
        streams = [source for source in sources if is_stream(source)]
        for source in sources:
            if not is_stream(source) and len(source) == 0:
                raise ValueError(f"{source.name} has no picture to train on: {skip_report(0, source.skipped)}")
        if weights is None:
            if streams and len(sources) > 1:
                raise ValueError(f"{streams[0].name} is a stream of unknown length: give each source a weight")
            weights = [1.0] if streams else [len(source) for source in sources]
        if not all(isinstance(weight, int | float) and weight > 0 for weight in weights):
            raise ValueError(f"weights must be above 0, and these are {', '.join(map(str, weights))}")
        self.shares = _shares(weights)
        self._cursors: dict[tuple[int, int], _Cursor] = {}

    def of(self, sources: Sequence[Source | Stream]) -> Mixture:
        """The same shares of other sources: parts of these."""
        return Mixture(sources, self.shares)

    def __len__(self) -> int:
        """Pictures in all; 0 where a stream is among the sources."""
        return 0 if any(map(is_stream, self.sources)) else sum(len(source) for source in self.sources)

    def picks(self, batch: int, batch_size: int, seed: int) -> list[Pick]:
        """The examples of batch number `batch`: a pure function of its arguments."""
        if len(self.sources) == 1 and not is_stream(self.sources[0]):
            return [Pick(0, number) for number in batch_indices(batch, batch_size, len(self.sources[0]), seed)]
        return [self._pick(place, seed) for place in range(batch * batch_size, (batch + 1) * batch_size)]

    def _pick(self, place: int, seed: int) -> Pick:
        block, row = divmod(place, BLOCK)
        order = _block_order(self.shares, seed, block)
        source = order[row]
        draw = block * self.shares[source] + order[:row].count(source)
        if is_stream(self.sources[source]):
            return Pick(source, draw)
        count = len(self.sources[source])
        epoch, row = divmod(draw, count)
        return Pick(source, int(epoch_order(seed + 7919 * source, epoch, count)[row]))

    def record(self, pick: Pick, seed: int) -> Record:
        """What is written about a pick. Raises BrokenSample. Of a stream, picks must come one after another: an
        earlier one than the last begins the stream again, a later one reads up to it."""
        source = self.sources[pick.source]
        if not is_stream(source):
            return source.record(pick.number)
        cursor = self._cursors.setdefault((pick.source, seed), _Cursor(source, seed))
        return cursor.at(pick.number)


def is_stream(source: Source | Stream) -> bool:
    """Can it only be read in its own order?"""
    return isinstance(source, ShardStream | HubStream)


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights -> whole places of `BLOCK`, at least one each, by largest remainder."""
    if len(weights) > BLOCK:
        raise ValueError(f"at most {BLOCK} sources can be mixed")
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    shares = [max(1, int(share)) for share in exact]
    while sum(shares) < BLOCK:
        shares[max(range(len(exact)), key=lambda i: exact[i] - shares[i])] += 1
    while sum(shares) > BLOCK:  # tiny sources were lifted to one place
        shares[max(range(len(exact)), key=lambda i: shares[i] - exact[i] if shares[i] > 1 else -BLOCK)] -= 1
    return tuple(shares)


@lru_cache(maxsize=8)
def _block_order(shares: tuple[int, ...], seed: int, block: int) -> tuple[int, ...]:
    order = [source for source, share in enumerate(shares) for _ in range(share)]
    Random(f"{seed} {block}").shuffle(order)
    return tuple(order)


class _Cursor:
    """A place in a stream: draw number `next` comes next, over all epochs."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream, self.seed = stream, seed
        self.next, self.records = 0, self._endless()

    def _endless(self) -> Iterator[Record | BrokenSample]:
        epoch = 0
        while True:
            good = 0
            for record in self.stream.records(self.seed, epoch):
                good += isinstance(record, Record)
                yield record
            if good == 0:
                raise ValueError(f"{self.stream.name} gives no usable sample: check the address and the network")
            epoch += 1

    def at(self, number: int) -> Record:
        if number < self.next:
            self.next, self.records = 0, self._endless()
        while self.next <= number:
            record = next(self.records)
            self.next += 1
        if isinstance(record, BrokenSample):
            raise record
        return record


def split_held_out(source: Source, count: int) -> tuple[Subset, Subset]:
    """(the source without `count` examples, those examples): the same ones every time, at most a fifth of it."""
    order = epoch_order(0, 0, len(source)).tolist()
    count = min(count, len(source) // 5)
    return Subset(source, sorted(order[count:])), Subset(source, sorted(order[:count]))


def source_fingerprint(source: Source | Stream) -> str:
    """A name for the list of examples: sixteen hexadecimal digits. Another list would be trained in another order."""
    if isinstance(source, Subset):
        parts = [source_fingerprint(source.source), *map(str, source.numbers)]
    elif is_stream(source):
        parts = [source.name]
    elif isinstance(source, ImageTextList):
        parts = [record.id for record in source.records]
    else:
        names = [source.name] if isinstance(source, PictureBookPages) else [path.name for path in source.paths]
        parts = [*names, str(len(source))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------ skipped


class SkipLog:
    """What could not be used, by cause. `limit`: the largest share of all examples; past it, `add` raises ValueError.

    `mixture` says how many examples there are, and what their sources have left out already.

    `file`: every broken sample is written there once, as a line of JSON; what it holds already is counted.
    """

    def __init__(self, mixture: Mixture, limit: float, file: Path | None = None) -> None:
        self.limit, self.file, self.known = limit, file, len(mixture)
        self.causes: Counter[str] = Counter()
        for source in mixture.sources:
            self.causes.update(getattr(source, "skipped", {}))
        self.known += self.causes.total()
        self.names: set[str] = set()
        self.seen = 0
        self._lock = Lock()
        for line in file.read_text(encoding="utf-8").splitlines() if file and file.exists() else ():
            entry = json.loads(line)
            self.names.add(entry["sample"])
            self.causes[entry["cause"]] += 1
        self._check()

    def add(self, name: str, broken: BrokenSample) -> None:
        """Count a broken sample, once."""
        with self._lock:
            if name in self.names:
                return
            self.names.add(name)
            self.causes[broken.cause] += 1
            if self.file:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"sample": name, "cause": broken.cause, "message": str(broken)}) + "\n")
            self._check()

    def _check(self) -> None:
        total = self.known or max(self.seen, MIN_SEEN)
        if self.causes.total() > self.limit * total:
            raise ValueError(
                f"{self.causes.total()} of {total} examples cannot be used ({self._list()}), more than data.max_broken="
                f"{self.limit:g} allows{f'; {self.file} names them' if self.names and self.file else ''}"
            )

    def _list(self) -> str:
        return ", ".join(f"{number} {cause}" for cause, number in self.causes.most_common())

    def report(self) -> str:
        """One sentence for the end of a run."""
        if not self.causes:
            return "nothing was skipped"
        return f"skipped {self.causes.total()} of {self.known or self.seen} examples: {self._list()}"


def check_sources(mixture: Mixture) -> Iterator[str]:
    """Open every picture of every source: one line for each that cannot be used, then a report for each source."""
    for source in mixture.sources:
        if is_stream(source):
            raise ValueError(f"{source.name} is a stream: its pictures are checked as they come by")
        if isinstance(source, ShardFolder):
            source.check()
        skipped, good = Counter(source.skipped), 0
        for number in range(len(source)):
            try:
                source.record(number).open()
                good += 1
            except BrokenSample as broken:
                skipped[broken.cause] += 1
                yield f"{broken.cause}: {broken}"
        yield f"{source.name}: {skip_report(good, skipped)}"
