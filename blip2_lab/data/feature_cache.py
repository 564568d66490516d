"""A cache of the frozen image encoder's features: bfloat16, in shards on disk, memory-mapped.

`cached_features` is where to begin: it computes what is missing and returns `Features`.

Notes:

* The forward pass of a ViT-g (0.52 TFLOP an image) costs more than a training step of the Q-Former, and a frozen
  encoder always returns the same features. They are computed once for each image, or for each of several views of it.
* A process killed at any time loses at most one chunk: `cache.json` is written after the rows it lists are on disk.
* The size is compared with the free space of the disk before anything is computed. Rows are written to an ordinary
  file and mapped into memory when their shard is finished: on a full disk, a write to mapped memory ends the process.
* `cache.json` has the SHA-256 of every finished shard. A shard that is damaged, truncated or missing is recomputed; the
  others are kept.
* The cache stores the fingerprint of encoder and images, and their number. If one of them differs, it is recomputed.

    features/NAME/cache.json  00000.bf16  00001.bf16  …

Paper: section 3.4 (the frozen image encoders). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from blip2_lab.common.console import print_progress
from blip2_lab.common.files import is_disk_full, require_space, size_text, write_atomically

SHARD_BYTES = 2**30
SAY_EVERY = 20  #: seconds between two lines of progress
STATE_FILE = "cache.json"

Encode = Callable[[Sequence[Image.Image]], Tensor]
Images = Callable[[range], list[Image.Image]]
Say = Callable[[str], None]


def cache_bytes(images: int, num_features: int, width: int, views: int = 1) -> int:
    """The size of a cache: two bytes for each of `images * views * N * Dv` numbers."""
    return 2 * images * views * num_features * width


class Features:
    """image_features bf16 [count,N,Dv] in one or several parts of equal length (the last may be shorter)."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, numbers: int | Sequence[int]) -> Tensor:
        """The features of one image [N,Dv], or of several [B,N,Dv]."""
        if isinstance(numbers, int):
            part, row = divmod(numbers, len(self.parts[0]))
            return self.parts[part][row]
        return torch.stack([self[int(number)] for number in numbers])


def cached_features(
    encode: Encode,
    image: Callable[[int], Image.Image],
    count: int,
    *,
    path: str | os.PathLike | None = None,
    fingerprint: str = "",
    chunk: int = 128,
    shard_bytes: int = SHARD_BYTES,
    verify: bool = True,
    threads: int = 1,
    what: str = "pictures",
    say: Say = print_progress,
) -> Features:
    """image_features bf16 [count,N,Dv] of the images `image(0) .. image(count - 1)`, each encoded once.

    `encode`: images -> image_features [B,N,Dv], by a frozen encoder. `path`: the folder of the cache; None keeps the
    features in memory. `fingerprint` identifies encoder and images; a folder with another fingerprint is recomputed.
    `verify=False` skips the checksums of finished shards, which needs reading them all.
    `threads` images are opened at the same time; `image` must be thread-safe. `what`: what the images are called in
    the lines of progress.
    Several processes may use the same folder: one computes, the others wait for it.
    Raises ValueError, in one sentence, if the features do not fit on the disk; what was computed is kept.
    """
    if count == 0:
        raise ValueError("there is no picture to compute features of: the data set is empty")
    with torch.no_grad():
        shape = tuple(encode([image(0)]).shape[1:])  # (N, Dv)
    if path is None:
        features = torch.empty((count, *shape), dtype=torch.bfloat16)
        say(f"computing the features of {count} {what}, once ({size_text(cache_bytes(count, *shape))} of memory)")
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, count, chunk):
                images = list(pool.map(image, range(start, min(start + chunk, count))))
                features[start : start + chunk] = _encode(encode, images)
        return Features([features])
    rows = max(1, shard_bytes // cache_bytes(1, *shape))
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)  # for the lock file, which is beside the cache's folder
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        about = {"shape": [count, *shape], "rows_per_shard": rows, "fingerprint": fingerprint}
        shards = _Shards(folder, about, what, say)
        with ThreadPoolExecutor(threads) as pool:
            return Features(shards.fill(encode, lambda numbers: list(pool.map(image, numbers)), chunk, verify))


def _encode(encode: Encode, images: Sequence[Image.Image]) -> Tensor:
    with torch.no_grad():
        return encode(images).to(torch.bfloat16)


class _Shards:
    """The files of one cache. `state["sha256"]`: of each finished shard; `state["rows"]`: rows of unfinished shards."""

    def __init__(self, folder: Path, about: dict, what: str, say: Say) -> None:
        self.folder, self.what, self.say = folder, what, say
        self.count, *self.shape = about["shape"]
        self.rows_per_shard = about["rows_per_shard"]
        file = folder / STATE_FILE
        found = json.loads(file.read_text()) if file.exists() else {}
        if {key: found.get(key) for key in about} != about:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            found = {**about, "sha256": {}, "rows": {}}
        self.state = found

    def fill(self, encode: Encode, images: Images, chunk: int, verify: bool) -> list[Tensor]:
        """Compute what is missing and return the shards as tensors [rows,N,Dv], mapped into memory."""
        number_of_shards = math.ceil(self.count / self.rows_per_shard)
        first_row = {shard: self._rows_done(shard, verify) for shard in range(number_of_shards)}
        missing = sum(self._length(shard) - done for shard, done in first_row.items())
        if missing:
            size = cache_bytes(missing, *self.shape)
            require_space(self.folder, size, f"the features of {missing} {self.what}")
            self.say(f"computing the features of {missing} {self.what}, once ({size_text(size)} in {self.folder})")
        said = time.monotonic()
        for shard, done in first_row.items():
            for end in self._fill_shard(shard, done, encode, images, chunk):
                if time.monotonic() - said > SAY_EVERY:
                    said, finished = time.monotonic(), shard * self.rows_per_shard + end
                    self.say(f"features: {finished} of {self.count} {self.what}")
        return [self._map(shard) for shard in first_row]

    def _rows_done(self, shard: int, verify: bool) -> int:
        """The number of rows of this shard that are computed already."""
        path, digest = self._path(shard), self.state["sha256"].get(str(shard))
        size = path.stat().st_size if path.exists() else 0
        whole = size == cache_bytes(self._length(shard), *self.shape)
        if digest is None:
            rows = self.state["rows"].get(str(shard), 0)
            return rows if size >= cache_bytes(rows, *self.shape) else 0
        if whole and (not verify or _sha256(path) == digest):
            return self._length(shard)
        self.say(f"{path} is damaged: computing it again")
        del self.state["sha256"][str(shard)]
        return 0

    def _fill_shard(self, shard: int, done: int, encode: Encode, images: Images, chunk: int) -> Iterator[int]:
        """Append the rows that are missing; yields the number of rows after each chunk."""
        path, length, before = self._path(shard), self._length(shard), shard * self.rows_per_shard
        if done == length:
            return
        if done == 0:
            path.unlink(missing_ok=True)  # not overwritten: another process may have mapped it
        with path.open("r+b" if done else "wb", buffering=0) as file:
            file.truncate(cache_bytes(done, *self.shape))  # an interrupted chunk
            file.seek(0, os.SEEK_END)
            for start in range(done, length, chunk):
                end = min(start + chunk, length)
                rows = _encode(encode, images(range(before + start, before + end)))
                try:
                    content = memoryview(rows.contiguous().view(torch.uint8).numpy().tobytes())
                    while content:
                        content = content[file.write(content) :]
                    os.fsync(file.fileno())  # before cache.json lists these rows
                    self._list(shard, end)
                except OSError as error:
                    if not is_disk_full(error, self.folder, cache_bytes(len(rows), *self.shape)):
                        raise
                    raise ValueError(
                        f"the disk of {self.folder} is full after the features of {before + start} of {self.count} "
                        f"{self.what}: make room; the same command goes on from there"
                    ) from None
                yield end

    def _list(self, shard: int, rows: int) -> None:
        """Record in `cache.json` that so many rows of a shard are on the disk."""
        self.state["rows"][str(shard)] = rows
        if rows == self._length(shard):
            del self.state["rows"][str(shard)]
            self.state["sha256"][str(shard)] = _sha256(self._path(shard))
        write_atomically(self.folder / STATE_FILE, json.dumps(self.state))

    def _map(self, shard: int) -> Tensor:
        shape = (self._length(shard), *self.shape)
        whole = torch.from_file(str(self._path(shard)), shared=True, size=math.prod(shape), dtype=torch.bfloat16)
        return whole.view(shape)

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.bf16"

    def _length(self, shard: int) -> int:
        return min(self.rows_per_shard, self.count - shard * self.rows_per_shard)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
