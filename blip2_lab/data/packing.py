"""Pack images with their texts into WebDataset shards.

`pack` is where to begin; shards.py reads what it writes.

Notes:

* `pack` stores the bytes of the image files unchanged, and `shards.json` with counts and checksums. The same images
  give the same bytes. The webdataset library can read the result.

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from blip2_lab.common.console import count_of
from blip2_lab.common.files import flush, write_atomically
from blip2_lab.common.images import BrokenSample, open_image
from blip2_lab.data.examples import (
    AskedQuestion,
    ImageTextList,
    LeftOut,
    Record,
    count_causes,
    left_out_report,
    skip_report,
)
from blip2_lab.data.shards import INDEX_FILE, checksum


def pack(
    source: ImageTextList,
    folder: str | os.PathLike,
    per_shard: int = 1000,
    say: Callable[[LeftOut], None] = lambda _: None,
) -> str:
    """Write `shard-000000.tar` … and `shards.json` into a new or empty folder; returns a report in one sentence.

    What cannot be used is left out; `say` is called with each, and the report counts them. Raises ValueError when the
    folder has anything in it: beside pictures, shards would be taken for them.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a new folder for the shards")
    if per_shard < 1:
        raise ValueError(f"per_shard is {per_shard}; it must be at least 1 picture")
    folder.mkdir(parents=True, exist_ok=True)
    if there := [one.name for one in folder.iterdir() if not one.name.startswith(".")]:
        raise ValueError(f"{folder} is not empty (it has {min(there)}): give a new folder for the shards")
    left_out, shards, samples = list(source.left_out), [], []

    def close() -> None:
        name = f"shard-{len(shards):06d}.tar"
        shards.append({"file": name, "examples": len(samples), **_write_tar(folder / name, samples)})
        samples.clear()

    for number in range(len(source)):
        record = None
        try:
            record = source.record(number)
            samples.append(_files_of(f"{number:08d}", record))
        except BrokenSample as broken:
            left_out.append(LeftOut((record and record.id) or str(number), broken.cause, str(broken)))
        else:
            left_out += [LeftOut(record.id, "unread part", sentence) for sentence in record.unread]
        if len(samples) == per_shard:
            close()
    if samples:
        close()
    for one in left_out:
        say(one)
    if not shards:
        raise ValueError(f"there is nothing to pack: {skip_report(0, count_causes(left_out))}")
    index = {"shards": shards, "skipped": dict(count_causes(left_out))}
    write_atomically(folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
    count = sum(shard["examples"] for shard in shards)
    return f"{left_out_report(count, left_out)}; {count_of(len(shards), 'shard', 'shards')} in {folder}"


def _files_of(key: str, record: Record) -> dict[str, bytes]:
    """The files of one sample, by name. Raises BrokenSample when its image cannot be read."""
    content = _content_of(record.file, record.missing)
    open_image(content if isinstance(record.file, bytes | Image.Image) else record.file)  # the error names the file
    # the content determines the ending: a .jpg may be a PNG. MPO is a JPEG with several images, as phones write it
    format = Image.open(io.BytesIO(content)).format
    ending = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}.get(format, format.lower())
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


def _content_of(file: Path | bytes | Image.Image, missing: str = "") -> bytes:
    if isinstance(file, bytes):
        return file
    if isinstance(file, Image.Image):  # drawn, or decoded by another library
        stream = io.BytesIO()
        open_image(file).save(stream, "PNG")
        return stream.getvalue()
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise BrokenSample("missing file", missing or f"there is no file {str(file)!r}") from None
    except OSError as error:
        raise BrokenSample("unreadable file", f"{str(file)!r} cannot be read ({error.strerror or error})") from None


def _write_tar(path: Path, samples: Sequence[dict[str, bytes]]) -> dict[str, Any]:
    """Write a tar file of all samples, atomically. Returns its size and checksum."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted((name, content) for files in samples for name, content in files.items()):
                member = tarfile.TarInfo(name)  # time and owner stay 0: the same images give the same bytes
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
        flush(temporary)
        digest = checksum(temporary)
        os.replace(temporary, path)
    except OSError as error:  # a full disk: its error names no file
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return {"bytes": path.stat().st_size, "sha256": digest}
