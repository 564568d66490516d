"""The frozen image encoder runs once: its features in bf16, in shards on the disk, mapped into memory.

What is unusual about it:

* A ViT-g's forward pass (0.52 TFLOP a picture) costs more than the Q-Former's whole training step, and a frozen one
  gives the same answer every time. So it is asked once for each picture, or for each of several views of it.
* A kill at any time loses one chunk. The note beside the shards is written after the rows it speaks of are on the disk.
* Every finished shard has its SHA-256 in the note. A shard that is damaged, cut short or gone is computed again alone.
* A cache knows whose it is: another encoder, other pictures or another number of them, and it is made anew.

    features/NAME/cache.json  00000.bf16  00001.bf16  …

Paper: section 3.4 (the frozen image encoders). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from blip2_lab.common.files import flush, write_atomically

SHARD_BYTES = 2**30
STATE_FILE = "cache.json"

Encode = Callable[[Sequence[Image.Image]], Tensor]
Images = Callable[[range], list[Image.Image]]
Say = Callable[[str], None]


def cache_bytes(pictures: int, num_features: int, width: int, views: int = 1) -> int:
    """How large a cache becomes: two bytes for each of `pictures * views * N * Dv` numbers."""
    return 2 * pictures * views * num_features * width


class Features:
    """image_features bf16 [count,N,Dv] in one or several parts of equal length (the last may be shorter)."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, numbers: int | Sequence[int]) -> Tensor:
        """One picture's features [N,Dv], or several pictures' [B,N,Dv]."""
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
    say: Say = print,
) -> Features:
    """image_features bf16 [count,N,Dv] of pictures `image(0) .. image(count - 1)`, each encoded once.

    `encode`: pictures -> image_features [B,N,Dv], by a frozen encoder. `path`: the folder to keep them in; without one
    they stay in memory. `fingerprint` names encoder and pictures; a folder made for another one is made anew.
    `verify=False` trusts the finished shards instead of reading them all (a terabyte takes a while).
    `threads` open pictures at the same time; `image` must not mind.
    Several processes may ask for the same folder: one computes, the others wait for it.
    """
    if count == 0:
        raise ValueError("there is no picture to compute features of")
    with torch.no_grad():
        shape = tuple(encode([image(0)]).shape[1:])  # (N, Dv)
    if path is None:
        features = torch.empty((count, *shape), dtype=torch.bfloat16)
        say(f"computing the features of {count} pictures, once")
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, count, chunk):
                pictures = list(pool.map(image, range(start, min(start + chunk, count))))
                features[start : start + chunk] = _encode(encode, pictures)
        return Features([features])
    rows = max(1, shard_bytes // cache_bytes(1, *shape))
    folder = Path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)  # the lock lies there; the folder itself is made under it
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        shards = _Shards(folder, {"shape": [count, *shape], "rows_per_shard": rows, "fingerprint": fingerprint})
        with ThreadPoolExecutor(threads) as pool:
            return Features(shards.fill(encode, lambda numbers: list(pool.map(image, numbers)), chunk, verify, say))


def _encode(encode: Encode, pictures: Sequence[Image.Image]) -> Tensor:
    with torch.no_grad():
        return encode(pictures).to(torch.bfloat16)


class _Shards:
    """The files of one cache. `note["sha256"]`: of each finished shard; `note["rows"]`: done in the unfinished ones."""

    def __init__(self, folder: Path, about: dict) -> None:
        self.folder = folder
        self.count, *self.shape = about["shape"]
        self.rows_per_shard = about["rows_per_shard"]
        note = folder / STATE_FILE
        found = json.loads(note.read_text()) if note.exists() else {}
        if {key: found.get(key) for key in about} != about:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            found = {**about, "sha256": {}, "rows": {}}
        self.note = found

    def fill(self, encode: Encode, images: Images, chunk: int, verify: bool, say: Say) -> list[Tensor]:
        """Compute what is missing and return the shards as tensors [rows,N,Dv], mapped into memory."""
        number_of_shards = math.ceil(self.count / self.rows_per_shard)
        first_row = {shard: self._rows_done(shard, verify, say) for shard in range(number_of_shards)}
        missing = sum(self._length(shard) - done for shard, done in first_row.items())
        if missing:
            say(f"computing the features of {missing} pictures, once")
        return [self._fill_shard(shard, done, encode, images, chunk) for shard, done in first_row.items()]

    def _rows_done(self, shard: int, verify: bool, say: Say) -> int:
        """How many rows of this shard need not be computed."""
        path, digest = self._path(shard), self.note["sha256"].get(str(shard))
        size = path.stat().st_size if path.exists() else 0
        whole = size == cache_bytes(self._length(shard), *self.shape)
        if digest is None:
            return self.note["rows"].get(str(shard), 0) if whole else 0
        if whole and (not verify or _sha256(path) == digest):
            return self._length(shard)
        say(f"{path} is damaged: computing it again")
        del self.note["sha256"][str(shard)]
        return 0

    def _fill_shard(self, shard: int, done: int, encode: Encode, images: Images, chunk: int) -> Tensor:
        path, length = self._path(shard), self._length(shard)
        if done == 0:
            path.unlink(missing_ok=True)
        # from_file makes the file as large as needed, and leaves one that is large enough as it is
        size = math.prod((length, *self.shape))
        features = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).view(length, *self.shape)
        before = shard * self.rows_per_shard
        for start in range(done, length, chunk):
            end = min(start + chunk, length)
            features[start:end] = _encode(encode, images(range(before + start, before + end)))
            flush(path)  # before the note says that they are done
            self.note["rows"][str(shard)] = end
            if end == length:
                del self.note["rows"][str(shard)]
                self.note["sha256"][str(shard)] = _sha256(path)
            write_atomically(self.folder / STATE_FILE, json.dumps(self.note))
        return features

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.bf16"

    def _length(self, shard: int) -> int:
        return min(self.rows_per_shard, self.count - shard * self.rows_per_shard)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
