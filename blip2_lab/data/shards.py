"""WebDataset shards and Hugging Face data sets: many images in few files, on disk or over the network.

`pack` writes shards, `ShardFolder` reads them from disk by index, `ShardStream` and `HubStream` read from the network.

Notes:

* A shard is an uncompressed tar file; consecutive files with the same stem are one sample (`0007.jpg`, `0007.txt`,
  `0007.json`). On disk its index is read once and every image is read at its offset. Shards are therefore sources by
  index, and a batch is a function of its number.
* `pack` stores the bytes of the image files unchanged, and `shards.json` with counts and checksums. The same images
  give the same bytes. The webdataset library can read the result.
* Over the network a shard can be read only from its beginning. The order of a `ShardStream` is fixed by seed and epoch;
  resuming reads the stream again up to the position, without decoding images.

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from PIL import Image

from blip2_lab.common.files import flush, write_atomically
from blip2_lab.common.images import SUFFIXES, BrokenSample, open_image
from blip2_lab.data.examples import AskedQuestion, Example, ImageTextList, Record, skip_report

INDEX_FILE = "shards.json"
#: Allowed schemes. Not "pipe:", which would execute any command in a list of addresses.
SCHEMES = ("http", "https", "gs", "hf")
IMAGE_ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)


# -------------------------------------------------------------------------------------------------------- one sample


def record_of(key: str, files: dict[str, bytes]) -> Record:
    """The files of one sample, by ending -> a record. Raises BrokenSample when there is no image or no text.

    `json` may have captions, questions, boxes, id and domain as `pack` writes them, or one caption; without a caption
    there, `txt` is the caption (img2dataset's layout).
    """
    picture = next((files[ending] for ending in IMAGE_ENDINGS if ending in files), None)
    if picture is None:
        raise BrokenSample("sample without a picture", f"sample {key!r} of a shard has no picture")
    try:
        about = json.loads(files.get("json", b"{}"))
        text = files.get("txt", b"").decode("utf-8").strip()
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise BrokenSample("unreadable text", f"sample {key!r} of a shard has a text that cannot be read") from error
    about = about if isinstance(about, dict) else {}
    captions = about.get("captions") or [text or about.get("caption") or ""]
    captions = tuple(caption.strip() for caption in captions if isinstance(caption, str) and caption.strip())
    questions = tuple(
        AskedQuestion(q["text"], tuple(q.get("answers", ())), q.get("type", ""), q.get("id", ""))
        for q in about.get("questions", ())
    )
    if not captions and not questions:
        raise BrokenSample("empty caption", f"sample {key!r} of a shard has no caption")
    boxes = tuple((phrase, tuple(box)) for phrase, box in about.get("boxes", ()))
    return Record(picture, captions, questions, boxes, str(about.get("id", key)), str(about.get("domain", "")))


def _split_name(name: str) -> tuple[str, str]:
    """`folder/0007.seg.png` -> (`folder/0007`, `seg.png`): webdataset's rule, up to the first dot of the file name."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", ending.lower()


# ------------------------------------------------------------------------------------------------------------ packing


def pack(source: ImageTextList, folder: str | os.PathLike, per_shard: int = 1000) -> str:
    """Write `shard-000000.tar` … and `shards.json` into a new or empty folder; returns a report in one sentence.

    Images that cannot be read are left out and counted. Raises ValueError when the folder has shards already.
    """
    folder = Path(folder)
    if (folder / INDEX_FILE).exists() or list(folder.glob("*.tar")):
        raise ValueError(f"{folder} holds shards already: choose another folder, or remove them")
    if per_shard < 1:
        raise ValueError(f"per_shard is {per_shard}; it must be at least 1 picture")
    folder.mkdir(parents=True, exist_ok=True)
    skipped, shards, samples = Counter(source.skipped), [], []

    def close() -> None:
        name = f"shard-{len(shards):06d}.tar"
        shards.append({"file": name, "examples": len(samples), **_write_tar(folder / name, samples)})
        samples.clear()

    for number in range(len(source)):
        try:
            samples.append(_files_of(f"{number:08d}", source.record(number)))
        except BrokenSample as broken:
            skipped[broken.cause] += 1
        if len(samples) == per_shard:
            close()
    if samples:
        close()
    if not shards:
        raise ValueError(f"there is nothing to pack: {skip_report(0, skipped)}")
    write_atomically(folder / INDEX_FILE, json.dumps({"shards": shards, "skipped": dict(skipped)}, indent=1) + "\n")
    count = sum(shard["examples"] for shard in shards)
    return f"{skip_report(count, skipped)}; {len(shards)} shards in {folder}"


def _files_of(key: str, record: Record) -> dict[str, bytes]:
    """The files of one sample, by name. Raises BrokenSample when its image cannot be read."""
    content = record.file if isinstance(record.file, bytes) else _read_bytes(record.file)
    open_image(content)
    # the content determines the ending: a .jpg may be a PNG
    ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}[Image.open(io.BytesIO(content)).format]
    questions = [{"text": q.text, "answers": [q.answer], "type": q.type} for q in record.questions]
    for asked, question in zip(questions, record.questions, strict=True):
        if isinstance(question, AskedQuestion):
            asked |= asdict(question)
    about = {"captions": record.captions, "questions": questions, "boxes": record.boxes}
    about = {name: value for name, value in about.items() if value} | {"id": record.id, "domain": record.domain}
    files = {f"{key}.{ending}": content, f"{key}.json": json.dumps(about, ensure_ascii=False).encode()}
    if record.captions:
        files[f"{key}.txt"] = record.captions[0].encode()
    return files


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BrokenSample("missing file", f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise BrokenSample("unreadable file", f"{str(path)!r} cannot be read ({error.strerror or error})") from None


def _write_tar(path: Path, samples: Sequence[dict[str, bytes]]) -> dict[str, Any]:
    """Write a tar file of all samples, atomically. Returns its size and checksum."""
    temporary = path.with_name(f".{path.name}.tmp")
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted((name, content) for files in samples for name, content in files.items()):
            member = tarfile.TarInfo(name)  # time and owner stay 0: the same images give the same bytes
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    flush(temporary)
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(temporary, path)
    return {"bytes": path.stat().st_size, "sha256": digest}


# -------------------------------------------------------------------------------------------------- shards on the disk


class ShardFolder:
    """Shards on disk as a source by index: a folder of .tar files, or a list of them.

    With `shards.json` beside them a shard is opened when its first sample is read; without it the indices of all shards
    are read first. Raises ValueError when a shard is missing, or truncated by an interrupted copy.
    """

    def __init__(self, folder: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        listed = [folder] if isinstance(folder, str | os.PathLike) else list(folder)
        self.name = str(listed[0])
        self.skipped: Counter[str] = Counter()
        self._indices: dict[int, list[tuple[str, dict[str, tuple[int, int]]]]] = {}
        index_file = Path(listed[0]) / INDEX_FILE
        if len(listed) == 1 and index_file.is_file():
            shards = json.loads(index_file.read_text(encoding="utf-8"))["shards"]
            self.paths, counts = (
                [index_file.parent / shard["file"] for shard in shards],
                [s["examples"] for s in shards],
            )
            for path, shard in zip(self.paths, shards, strict=True):
                size = path.stat().st_size if path.is_file() else None
                if size != shard["bytes"]:
                    what = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                    raise ValueError(f"{path} {what}: copy it again")
        else:
            whole = len(listed) == 1 and Path(listed[0]).is_dir()
            self.paths = sorted(Path(listed[0]).glob("*.tar")) if whole else [Path(path) for path in listed]
            counts = [len(self._index_of(shard)) for shard in range(len(self.paths))]
        if not sum(counts):
            raise ValueError(f"{self.name} holds no samples: there is no .tar file with pictures in it")
        self._places = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]

    def _index_of(self, shard: int) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """(key, ending -> (offset, size)) of each sample of a shard, in the order of the shard."""
        if shard in self._indices:
            return self._indices[shard]
        path, table = self.paths[shard], []
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    key, ending = _split_name(member.name)
                    if not member.isfile() or not key:
                        continue
                    if not table or table[-1][0] != key:
                        table.append((key, {}))
                    table[-1][1][ending] = member.offset_data, member.size
        except FileNotFoundError:
            raise ValueError(f"there is no shard {path}") from None
        except (tarfile.TarError, OSError) as error:
            raise ValueError(f"{path} is not a whole, uncompressed tar file ({error}): copy it again") from None
        self._indices[shard] = table
        return table

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        """Sample `index`: its files are read, its image is not decoded yet. Raises BrokenSample."""
        shard, row = self._places[index]
        key, places = self._index_of(shard)[row]
        with self.paths[shard].open("rb") as file:
            files = {}
            for ending, (offset, size) in places.items():
                file.seek(offset)
                files[ending] = file.read(size)
        return record_of(key, files)

    def __getitem__(self, index: int) -> Example:
        return self.record(index).open()

    def check(self) -> None:
        """Compare every shard with its checksum in `shards.json`, if there is one. Raises ValueError if one differs."""
        index_file = self.paths[0].parent / INDEX_FILE
        if not index_file.is_file():
            return
        for shard in json.loads(index_file.read_text(encoding="utf-8"))["shards"]:
            with (index_file.parent / shard["file"]).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    raise ValueError(f"{index_file.parent / shard['file']} is not what was packed: copy it again")


# ------------------------------------------------------------------------------------------------------------ streams


class ShardStream:
    """Shards at addresses, in an order fixed by seed and epoch: shuffled shards, then samples shuffled in a window.

    `urls`: one address or several; `{000..099}` stands for a hundred. A shard that cannot be fetched is counted.
    """

    def __init__(self, urls: str | Sequence[str], window: int = 1000) -> None:
        from webdataset.shardlists import expand_urls

        listed = [urls] if isinstance(urls, str) else list(urls)
        self.urls = [url for pattern in listed for url in expand_urls(pattern)]
        self.name, self.window = listed[0], window
        for url in self.urls:
            if url.partition(":")[0] not in SCHEMES:
                raise ValueError(f"{url} is not an address that begins with {', '.join(SCHEMES)}")

    def records(self, seed: int, epoch: int) -> Iterator[Record | BrokenSample]:
        """One pass over all shards; a broken sample is yielded as its error."""
        import webdataset

        rng, failed = Random(f"{seed} {epoch}"), []
        urls = rng.sample(self.urls, len(self.urls))

        def keep_error(error: Exception) -> bool:
            failed.append(error)
            return True

        samples = webdataset.WebDataset(
            urls, shardshuffle=False, handler=keep_error, nodesplitter=None, workersplitter=None, empty_check=False
        )
        for sample in _shuffled(samples, rng, self.window):
            files = {ending: content for ending, content in sample.items() if not ending.startswith("__")}
            try:
                yield record_of(sample["__key__"], files)
            except BrokenSample as broken:
                yield broken
        for error in failed:
            yield BrokenSample("unreachable shard", f"a shard of {self.name} could not be read: {error}")


class HubStream:
    """A Hugging Face data set, read as a stream: `name` on the hub, or "parquet", "json" … with `data_files`.

    `image` and `caption` are its columns; a column of lists has several captions for each image.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        image: str = "image",
        caption: str = "caption",
        data_files: str | Sequence[str] | None = None,
        window: int = 1000,
    ) -> None:
        import datasets

        self.name, self.image, self.caption, self.window = name, image, caption, window
        try:
            stream = datasets.load_dataset(name, split=split, data_files=data_files, streaming=True)
        except Exception as error:  # no network, name or split: the library raises many kinds of exceptions
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the data set {name!r} cannot be opened: {reason}") from None
        columns = set(stream.features or {image, caption})
        if missing := {image, caption} - columns:
            raise ValueError(f"{name} has no column {' and no column '.join(sorted(missing))}: {', '.join(columns)}")
        # undecoded bytes: `open_image` limits formats and sizes
        self.stream = stream.cast_column(image, datasets.Image(decode=False)).select_columns([image, caption])

    def records(self, seed: int, epoch: int) -> Iterator[Record | BrokenSample]:
        """One pass over the data, shuffled in a window; a broken row is yielded as its error."""
        stream = self.stream.shuffle(seed=seed, buffer_size=self.window)
        stream.set_epoch(epoch)
        for number, row in enumerate(stream):
            found = row[self.caption]
            captions = [found] if isinstance(found, str) or found is None else found
            captions = tuple(str(text).strip() for text in captions if text and str(text).strip())
            picture = row[self.image] or {}
            content = picture.get("bytes") or (Path(picture["path"]) if picture.get("path") else None)
            if content is None or not captions:
                cause = "empty caption" if content is not None else "sample without a picture"
                yield BrokenSample(cause, f"row {number} of {self.name}: {cause}")
            else:
                yield Record(content, captions, id=f"{epoch}-{number}")


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
