"""Mixtures of sources by weights. The examples of a batch are a pure function of its number.

`open_sources` is where to begin. It opens a folder, shards, an address, `hf:owner/name`, or a `sources.toml` that lists
several sources with their weights (`FORMATS` has the kinds; the other keys of an entry are arguments of that function).
left_out.py names what cannot be used of them.

Notes:

* The example at a position is computed from the position: every BLOCK positions contain each source in exactly its
  share, and each source has its own shuffled epochs. Position 10,000,000 costs as much as position 0. Only streams have
  to be read from their beginning.

Paper: section 3.4 (six sources, 129 M pairs). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Union, get_args, get_origin, get_type_hints

from blip2_lab.common.console import did_you_mean
from blip2_lab.common.images import SUFFIXES, BrokenSample
from blip2_lab.data.annotations import (
    blip,
    coco_captions,
    flickr30k,
    gqa,
    karpathy,
    llava,
    nocaps,
    refcoco,
    visual_genome,
    vqa,
)
from blip2_lab.data.examples import (
    ImageTextList,
    LeftOut,
    Record,
    batch_indices,
    epoch_order,
    left_out_report,
)
from blip2_lab.data.image_folder import TABLES, ImageFolder
from blip2_lab.data.scenes import PictureBook
from blip2_lab.data.shards import ShardFolder, shard_files
from blip2_lab.data.streams import HubStream, ShardStream
from blip2_lab.data.tables import ENDINGS
from blip2_lab.data.text_files import is_number, read_text

BLOCK = 1000  #: positions in which each source has exactly its share


class PictureBookPages:
    """The first `pages` scenes of a picture book as a source; a scene is drawn when its record is read."""

    def __init__(self, pages: int, seed: int = 0, split: str = "train", image_size: int = 224) -> None:
        if pages < 1 or image_size < 1:
            raise ValueError(f"pages is {pages} and image_size {image_size}; both must be at least 1")
        self.book, self.pages = PictureBook(seed, split, image_size), pages
        self.book.image(0)  # raises ValueError for an unknown split or a size that cannot be drawn
        self.name = f"picture book {seed} {split}"
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return self.pages

    def record(self, index: int) -> Record:
        example = self.book[index]
        return Record(example.image, example.captions, example.questions, example.boxes, example.id)


class Subset:
    """A subset of a source's examples, as a source."""

    def __init__(self, source: ImageTextList | ShardFolder | PictureBookPages | Subset, numbers: Sequence[int]) -> None:
        self.source, self.numbers = source, numbers
        self.name, self.left_out = source.name, source.left_out

    def __len__(self) -> int:
        return len(self.numbers)

    def record(self, index: int) -> Record:
        return self.source.record(self.numbers[index])


Source = ImageTextList | ShardFolder | PictureBookPages | Subset  #: by index
Stream = ShardStream | HubStream  #: in its own order

#: The formats of a `[[source]]` in a sources.toml; its other keys are the arguments.
FORMATS: dict[str, Callable[..., Source | Stream]] = {
    "folder": ImageFolder,
    "shards": ShardFolder,
    "stream": ShardStream,
    "huggingface": HubStream,
    "picture-book": PictureBookPages,
    "coco": coco_captions,
    "blip": blip,
    "llava": llava,
    "karpathy": karpathy,
    "flickr30k": flickr30k,
    "visual-genome": visual_genome,
    "nocaps": nocaps,
    "vqa": vqa,
    "gqa": gqa,
    "refcoco": refcoco,
}
#: Arguments that are paths, relative to the sources.toml.
PATHS = ("folder", "annotations", "images", "questions", "regions", "image_data", "refs", "instances", "data_files")


# ------------------------------------------------------------------------------------------------------------ opening


def open_sources(place: str | os.PathLike) -> Mixture:
    """The sources at `place`, see the module's docstring. Raises ValueError that lists what `place` may be."""
    return Mixture(*find_sources(place))


def find_sources(place: str | os.PathLike) -> tuple[list[Source | Stream], list[float] | None]:
    """The sources at `place` and their weights, if it gives any. A source may be without a usable example."""
    if not isinstance(place, str | os.PathLike):
        raise ValueError(f"the place of the pictures is a path or an address, and this is {place!r:.60}: give a text")
    text, path = os.fspath(place), Path(place)
    if not text.strip():
        raise ValueError('the place of the pictures is empty: give a folder, or "." for this one')
    if path.suffix.lower() == ".toml":
        return _from_toml(path)
    if text.startswith("hf:") and "://" not in text:
        return [HubStream(text.removeprefix("hf:"))], None
    if "://" in text:
        return [ShardStream(text)], None
    if path.suffix.lower() == ".tar" and ("*" in path.name or path.is_file()):
        files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
        if not files:
            raise ValueError(f"no file is called {text}: check the path")
        return [ShardFolder(files)], None
    if not os.path.isdir(place):
        raise ValueError(
            f"{text} is nothing to train on: pass a folder of pictures with captions.csv, a folder of .tar shards, "
            f"an address of shards, hf:owner/name, or a sources.toml{_instead_of(path)}"
        )
    names = sorted(os.listdir(path))
    if shard_files(path):
        tables = {f"{stem}{ending}" for stem in TABLES for ending in ENDINGS}
        other = [name for name in names if name.lower() in tables or Path(name).suffix.lower() in SUFFIXES]
        if other:
            raise ValueError(f"{text} has shards (.tar) and {other[0]}: which is meant? Move one of them")
        return [ShardFolder(path)], None
    return [ImageFolder(path)], None


def _instead_of(path: Path) -> str:
    """The end of an error about a place that is not there, or a file that is given instead of its folder, or of a list
    of sources."""
    if path.suffix.lower() == ".tar" and "{" in path.name:
        return ". Braces stand for addresses only: for shards here, give their folder, or a name with *"
    if not os.path.exists(path):
        near = os.listdir(path.parent) if path.parent.is_dir() else []
        near = did_you_mean(path.name, near, cutoff=0.8)
        hub = len(path.parts) == 2 and path.parts[0][0] not in "/~." and not path.parent.exists() and not path.suffix
        of_the_hub = f"; a data set of the hub is hf:{path}" if hub and not near else ""
        return f". There is nothing of this name{near}{of_the_hub}"
    if not os.path.isfile(path):
        return ""
    if path.suffix.lower() in ENDINGS:
        return f". For a table, pass its folder: {path.parent}"
    if path.suffix.lower() in SUFFIXES:
        return f". For pictures, pass their folder: {path.parent}"
    if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst", ".tgz", ".zip", ".7z"):
        return ". Unpack it, and pass the .tar file or the folder"
    if path.suffix.lower() == ".parquet":
        return (
            '. List it in a sources.toml: [[source]] with format = "huggingface", name = "parquet", '
            f'data_files = "{path}", split = "train"'
        )
    if path.suffix.lower() in (".json", ".token", ".p"):
        return (
            f'. List an annotation file in a sources.toml: [[source]] with format = "coco", annotations = "{path}", …'
        )
    return ""


def _from_toml(path: Path) -> tuple[list[Source | Stream], list[float] | None]:
    try:
        listed = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        twice = any(words in str(error) for words in ("overwrite", "twice", "already"))
        remedy = "remove one of the two" if twice else "write a text in quotes, and a path with / or in single quotes"
        raise ValueError(f"{path} is not TOML: {error}: {remedy}") from None
    entries = listed.get("source")
    if not isinstance(entries, list) or set(listed) != {"source"} or not all(isinstance(one, dict) for one in entries):
        found = ", ".join(repr(key) for key in listed if key != "source" or not isinstance(entries, list))
        raise ValueError(
            f"{path} must list its sources, each under a line [[source]] with format = … and its arguments"
            f"{found and f'; it has {found}'}"
        )
    weights = [entry.pop("weight", None) for entry in entries]
    if None in weights and weights != [None] * len(weights):
        raise ValueError(f"{path}: give each source a weight, or none")
    for number, weight in enumerate(weights, 1):
        if weight is not None and not _is_weight(weight):
            none = "" if is_number(weight) else ": write a number such as 2, without quotes"
            raise ValueError(f"{path}, source {number}: weights must be above 0, and this is {weight!r:.40}{none}")
    sources, opened = [], []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, source {number}"
        arguments = _arguments(entry, where, path.parent)
        place = {
            key: os.path.realpath(one) if isinstance(one, str) and key in PATHS else one
            for key, one in arguments.items()
        }
        if place in opened:
            same = f"the same as source {opened.index(place) + 1}"
            raise ValueError(f"{where} is {same}: remove it; how often a source is shown is its weight")
        opened.append(place)
        sources.append(_open_entry(arguments, where))
    names = Counter(source.name for source in sources)
    for number, source in enumerate(sources, 1):
        if names[source.name] > 1:  # what is left out is counted by the source's name
            source.name = f"{source.name} (source {number})"
    return sources, None if None in weights else weights


def _arguments(entry: dict, where: str, folder: Path) -> dict[str, Any]:
    """The arguments of an entry of a sources.toml, with `format`, and with paths as they are seen from here. Raises
    ValueError for what is unknown, missing or of another type."""
    kind, arguments = entry.get("format"), {key: value for key, value in entry.items() if key != "format"}
    if kind is None:
        raise ValueError(f"{where} has no format = …; it is one of {', '.join(FORMATS)}")
    if not isinstance(kind, str) or kind not in FORMATS:
        raise ValueError(f"{where}: format {kind!r} is none of {', '.join(FORMATS)}{did_you_mean(str(kind), FORMATS)}")
    known = inspect.signature(FORMATS[kind]).parameters
    function = FORMATS[kind].__init__ if isinstance(FORMATS[kind], type) else FORMATS[kind]
    wanted = get_type_hints(function)
    for key, value in arguments.items():
        if key not in known:
            options = [*known, "weight"]
            raise ValueError(f"{where}: {kind} has no {key!r}{did_you_mean(key, options)}; it has {', '.join(options)}")
        if not _fits(value, wanted[key]):
            raise ValueError(f"{where}: {key} = {value!r} is no {' or '.join(_kinds(wanted[key]))}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in arguments:
            raise ValueError(f"{where}: {kind} needs {key} = …")
    for key in set(PATHS) & arguments.keys():
        given = arguments[key]
        if not all(one.strip() for one in ([given] if isinstance(given, str) else given)):
            raise ValueError(f'{where}: {key} is empty: give a path, or "." for the folder of the list')
        arguments[key] = _path(given, folder) if isinstance(given, str) else [_path(one, folder) for one in given]
    return {"format": kind, **arguments}


def _path(given: str, folder: Path) -> str:
    """A path of a list in `folder`: `~` is the home folder, and `\\` is read as `/` where that is a file's name."""
    if "://" in given:
        return given
    path, slashed = (str(folder / os.path.expanduser(one)) for one in (given, given.replace("\\", "/")))
    return slashed if os.path.exists(slashed) and not os.path.exists(path) else path


def _open_entry(arguments: dict[str, Any], where: str) -> Source | Stream:
    try:
        return FORMATS[arguments["format"]](**{key: value for key, value in arguments.items() if key != "format"})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _kinds(hint: Any) -> list[str]:
    """The names of the types in an annotation that a TOML file can give: "text", "list of texts", "whole number"."""
    if get_origin(hint) in (Union, types.UnionType):
        return list(dict.fromkeys(kind for one in get_args(hint) for kind in _kinds(one)))
    if get_origin(hint) is not None:
        return ["list of texts"]
    return {str: ["text"], int: ["whole number"]}.get(hint, [])


def _fits(value: Any, hint: Any) -> bool:
    kinds = {
        "text": isinstance(value, str),
        "whole number": isinstance(value, int) and not isinstance(value, bool),
        "list of texts": isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value),
    }
    return any(kinds[kind] for kind in _kinds(hint))


# ------------------------------------------------------------------------------------------------------------- mixing


@dataclass(frozen=True)
class Pick:
    """The example at a position: index `number` of source `source`; of a stream, its `number`-th example."""

    source: int
    number: int


class Mixture:
    """Sources and their shares. Without weights the shares are proportional to the lengths, as in one joint list."""

    def __init__(self, sources: Sequence[Source | Stream], weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise ValueError("there is no source: pass at least one")
        self.sources = list(sources)
        streams = [source for source in sources if is_stream(source)]
        for source in sources:
            if not is_stream(source) and len(source) == 0:
                first = f"; {source.left_out[0].message}" if source.left_out else ""
                report = left_out_report(0, source.left_out)
                raise ValueError(
                    f"{source.name} has no picture that can be used: {report}{first} (`blip2-lab data check` names all)"
                )
        if weights is None:
            if streams and len(sources) > 1:
                raise ValueError(f"{streams[0].name} is a stream of unknown length: give each source a weight")
            weights = [1.0] if streams else [len(source) for source in sources]
        if not all(_is_weight(weight) for weight in weights):
            raise ValueError(f"weights must be above 0, and these are {', '.join(map(str, weights))}")
        self.shares = _shares(weights)
        self._cursors: dict[tuple[int, int], _Cursor] = {}

    def of(self, sources: Sequence[Source | Stream]) -> Mixture:
        """A mixture of other sources (subsets of these) with the same shares."""
        return Mixture(sources, self.shares)

    def __len__(self) -> int:
        """The number of images; 0 where a stream is among the sources."""
        return 0 if any(map(is_stream, self.sources)) else sum(len(source) for source in self.sources)

    def picks(self, batch: int, batch_size: int, seed: int) -> list[Pick]:
        """The examples of batch number `batch`, a pure function of the arguments."""
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
        """The record of a pick. Raises BrokenSample. A stream is read in order: an earlier pick than the last one
        restarts it, a later one reads on up to it."""
        source = self.sources[pick.source]
        if not is_stream(source):
            return source.record(pick.number)
        cursor = self._cursors.setdefault((pick.source, seed), _Cursor(source, seed))
        return cursor.at(pick.number)


def is_stream(source: Source | Stream) -> bool:
    """Whether it can be read only in its own order."""
    return isinstance(source, ShardStream | HubStream)


def _is_weight(weight: Any) -> bool:
    return is_number(weight) and weight > 0


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights -> numbers of positions in a `BLOCK`, at least one each, by largest remainder."""
    if len(weights) > BLOCK:
        raise ValueError(f"at most {BLOCK} sources can be mixed, and these are {len(weights)}")
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    shares = [max(1, int(share)) for share in exact]
    while sum(shares) < BLOCK:
        shares[max(range(len(exact)), key=lambda i: exact[i] - shares[i])] += 1
    while sum(shares) > BLOCK:  # sources with small weights were raised to one position
        shares[max(range(len(exact)), key=lambda i: shares[i] - exact[i] if shares[i] > 1 else -BLOCK)] -= 1
    return tuple(shares)


@lru_cache(maxsize=8)
def _block_order(shares: tuple[int, ...], seed: int, block: int) -> tuple[int, ...]:
    order = [source for source, share in enumerate(shares) for _ in range(share)]
    Random(f"{seed} {block}").shuffle(order)
    return tuple(order)


class _Cursor:
    """A position in a stream: `next` is the number of the next example, counted over all epochs."""

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
    """(the source without `count` held-out examples, those examples). The same ones every time, at most a fifth.

    Raises ValueError for a negative count."""
    if count < 0:
        raise ValueError(f"data.held_out is {count}; it must be 0 (none) or more")
    order = epoch_order(0, 0, len(source)).tolist()
    count = min(count, len(source) // 5)
    return Subset(source, sorted(order[count:])), Subset(source, sorted(order[:count]))


def source_fingerprint(source: Source | Stream) -> str:
    """A hash of the list of examples, sixteen hexadecimal digits. Another list is trained in another order."""
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
