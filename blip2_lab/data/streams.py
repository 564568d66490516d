"""Data sets over the network, read from beginning to end: WebDataset shards at addresses, and the Hugging Face hub.

`ShardStream` and `HubStream` yield records; mixture.py mixes them with other sources.

Notes:

* Over the network a shard can be read only from its beginning. The order of a `ShardStream` is fixed by seed and epoch;
  resuming reads the stream again up to the position, without decoding images.
* A row or a shard that cannot be read is yielded as its error, so that the caller can count it.

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from blip2_lab.common.characters import printable
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import Record
from blip2_lab.data.samples import record_of, samples_of
from blip2_lab.data.tables import COLUMNS
from blip2_lab.data.tar_files import members_of
from blip2_lab.data.text_files import captions_in

#: Allowed schemes. Not "pipe:", which would execute any command in a list of addresses.
SCHEMES = ("http", "https", "gs", "hf")


class ShardStream:
    """Shards at addresses, in an order fixed by seed and epoch: shuffled shards, then samples shuffled in a window.

    `urls`: one address or several; `{000..099}` stands for a hundred. A shard that cannot be fetched is counted.
    """

    is_local = False  #: whether its files are on this disk, so that they can be checked before training

    def __init__(self, urls: str | Sequence[str], window: int = 1000) -> None:
        from webdataset.shardlists import expand_urls

        _check_window(window)
        listed = [urls] if isinstance(urls, str) or not isinstance(urls, Iterable) else list(urls)
        if not listed:
            raise ValueError("the list of addresses is empty: give at least one")
        for url in listed:
            if not isinstance(url, str):
                raise ValueError(f"an address of shards is a text, and this is {url!r:.60}")
        self.urls = [url for pattern in listed for url in expand_urls(pattern)]
        self.name, self.window = listed[0], window
        for url in self.urls:
            if url.partition(":")[0] not in SCHEMES:
                remedy = ": for shards on this disk, give their folder" if url.startswith("file:") else ""
                raise ValueError(f"{url} is not an address that begins with {', '.join(SCHEMES)}{remedy}")

    def records(self, seed: int, epoch: int) -> Iterator[Record | BrokenSample]:
        """One pass over all shards; a broken sample is yielded as its error, and so is a shard that cannot be read."""
        rng, failed = Random(f"{seed} {epoch}"), []
        urls = rng.sample(self.urls, len(self.urls))
        for url, key, files in _shuffled(self._fetched(urls, failed), rng, self.window):
            try:
                yield record_of(key, files, PurePosixPath(url.partition("?")[0]).name.partition(".")[0])
            except BrokenSample as broken:
                yield broken
        yield from failed

    def _fetched(self, urls: Sequence[str], failed: list[BrokenSample]) -> Iterator[tuple[str, str, dict[str, bytes]]]:
        """(address, key, ending -> content) of every sample; what goes wrong is appended to `failed`."""
        import webdataset

        def leave_out(name: str, cause: str, message: str) -> None:
            failed.append(BrokenSample(cause, printable(f"{url}: {message}")))

        def contents(stream: Any) -> Iterator[tuple[str, bytes]]:
            for tar, member in members_of(stream, "r|*", leave_out):
                yield member.name, tar.extractfile(member).read()

        for url in urls:
            try:
                with webdataset.gopen(url) as stream:
                    for key, files in samples_of(contents(stream), leave_out):
                        yield url, key, files
            except Exception as error:  # the network's, a program's that fetches, tarfile's
                message = f"a shard of {self.name} could not be read to its end: {url}: {_why_not_fetched(error)}"
                failed.append(BrokenSample("unreachable shard", message))


#: Exit codes of curl, which fetches, in words.
CURL_CODES = {
    "3": "this is no address",
    "6": "there is no such server",
    "7": "the server cannot be reached",
    "18": "the connection broke off",
    "22": "the server refuses it, or has no such file",
    "28": "the server takes too long",
    "35": "the encrypted connection failed",
    "56": "the connection broke off",
    "60": "the server's certificate is not trusted",
}


def _why_not_fetched(error: Exception) -> str:
    """An error of reading a shard in one line. Of a program that fetches, webdataset tells its arguments and code."""
    reason = " ".join(str(error).split()) or type(error).__name__
    code = re.search(r"\bexit (\d+) \(", reason)
    if code is None:
        return reason
    known = CURL_CODES if "'curl'" in reason else {}
    return known.get(code[1], f"the program that fetches it ended with code {code[1]}")


class HubStream:
    """A Hugging Face data set, read as a stream: `name` on the hub, or "parquet", "json" … with `data_files`.

    `image` and `caption` are its columns; without them, "image", and the first of the usual names of a caption
    (tables.py: `COLUMNS`). A column of lists has several captions for each image.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        image: str = "image",
        caption: str = "",
        data_files: str | Sequence[str] | None = None,
        window: int = 1000,
    ) -> None:
        import datasets

        _check_window(window)
        if not name.strip():
            raise ValueError("the data set of the hub has no name: write hf:owner/name")
        self.name, self.image, self.window = name, image, window
        files = [data_files] if isinstance(data_files, str) else data_files or []
        self.is_local = bool(files) and not any("://" in file for file in files)
        try:
            stream = datasets.load_dataset(name, split=split, data_files=data_files, streaming=True)
            columns = list(stream.features or next(iter(stream.take(1)), {}))
        except Exception as error:  # no network, name or split: the library raises many kinds of exceptions
            raise ValueError(f"the data set {name!r} cannot be opened: {_first_line(error)}") from None
        self.caption = caption or next((column for column in COLUMNS["caption"] if column in columns), "caption")
        if missing := [column for column in (image, self.caption) if column not in columns]:
            raise ValueError(
                f"{name} has no column {' and no column '.join(sorted(missing))}: {', '.join(columns)}. Name yours in "
                'a sources.toml: format = "huggingface", image = …, caption = …'
            )
        stream = stream.select_columns([image, self.caption])
        # undecoded bytes: `open_image` limits formats and sizes. Without features nothing is decoded
        self.stream = stream.cast_column(image, datasets.Image(decode=False)) if stream.features else stream

    def records(self, seed: int, epoch: int) -> Iterator[Record | BrokenSample]:
        """One pass over the data, shuffled in a window; a broken row is yielded as its error."""
        stream = self.stream.map(_with_row_number, with_indices=True) if self.stream.features else self.stream
        stream = stream.shuffle(seed=seed, buffer_size=self.window)
        stream.set_epoch(epoch)
        for number, row in enumerate(self._rows(stream)):
            if isinstance(row, BrokenSample):
                yield row
                return
            place = f"row {row.get(_ROW, number)} of {self.name}"
            captions, problems = captions_in(row[self.caption])
            content = _picture_in(row[self.image])
            if isinstance(content, Path) and "://" in str(row[self.image]):
                message = f"{place}: its picture is an address, which is not fetched: download the pictures"
                yield BrokenSample("address instead of a file", message)
            elif content is None:
                yield BrokenSample("sample without a picture", f"{place} has no picture in the column {self.image}")
            elif not captions:
                empty = set(problems) <= {"is empty"}
                cause = "empty caption" if empty else "caption is no text"
                yield BrokenSample(cause, f"{place}: the caption {' and '.join(dict.fromkeys(problems))}")
            else:
                unread = tuple(f"{place}: a caption {problem}" for problem in problems if problem != "is empty")
                yield Record(content, tuple(captions), id=str(row.get(_ROW, f"{epoch}-{number}")), unread=unread)

    def _rows(self, stream: Any) -> Iterator[dict[str, Any] | BrokenSample]:
        """The rows; an error of the library or the network ends them, and is yielded as the last one."""
        try:
            yield from stream
        except Exception as error:  # of values of another type, of a network: the library raises many kinds
            message = f"{self.name} could not be read to its end: {_first_line(error)}"
            yield BrokenSample("unreachable data set", message)


def _first_line(error: Exception) -> str:
    if isinstance(error, StopIteration):
        return "it has no rows"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_ROW = "blip2_lab_row"  #: the column of a row's number, which shuffling would lose


def _with_row_number(row: dict[str, Any], number: int) -> dict[str, Any]:
    return row | {_ROW: number}


def _picture_in(value: Any) -> bytes | Path | None:
    """The bytes or the path of a picture in the hub's form."""
    if isinstance(value, dict):
        return value.get("bytes") or (Path(value["path"]) if value.get("path") else None)
    if isinstance(value, str) and value:
        return Path(value)
    return value if isinstance(value, bytes) and value else None


def _check_window(window: Any) -> None:
    if not isinstance(window, Integral) or window < 1:
        raise ValueError(f"window is {window!r}; it must be at least 1 example")


def _shuffled(items: Iterator[Any], rng: Random, window: int) -> Iterator[Any]:
    """Shuffle in a window: keep `window` items and yield a random one of them. With a window of 1 the order stays."""
    held: list[Any] = []
    for item in items:
        held.append(item)
        if len(held) >= window:
            place = rng.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    rng.shuffle(held)
    yield from held
