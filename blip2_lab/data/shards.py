"""WebDataset shards on disk as a source: many images in few files, read by index.

`ShardFolder` is where to begin. packing.py writes shards; streams.py reads them over the network.

Notes:

* A shard is an uncompressed tar file of samples (samples.py). On disk its index is read once and every image is read at
  its offset. Shards are therefore sources by index, and a batch is a function of its number.
* A shard that is not whole is refused (tar_files.py), with and without `shards.json`, the index that `pack` writes.

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_lab.common.characters import printable
from blip2_lab.common.images import SUFFIXES, UNREAD_SUFFIXES, walk_files
from blip2_lab.data.examples import Example, LeftOut, Record, count_causes
from blip2_lab.data.image_folder import OWN_FILES, UNREAD_TEXTS
from blip2_lab.data.picture_files import LINK_TO_NOTHING, identity
from blip2_lab.data.samples import READ_ENDINGS, record_of, samples_of
from blip2_lab.data.tar_files import members_of, remedy_for
from blip2_lab.data.text_files import parse_json, read_text

INDEX_FILE = "shards.json"
#: Of files beside shards that may have pictures or captions: they are named.
MAY_HAVE_EXAMPLES = frozenset((*UNREAD_TEXTS, *SUFFIXES, *UNREAD_SUFFIXES, ".txt"))
COMPRESSED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tbz2", ".txz")


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in order: every entry that ends in .tar and is not hidden."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar" and not path.name.startswith("."))


def _other_files(folder: Path) -> list[LeftOut]:
    """The files in a folder of shards, and below it, that may have pictures or captions and are not read."""
    left_out = []

    def leave_out(name: str, cause: str, message: str) -> None:
        left_out.append(LeftOut(printable(name), cause, printable(message)))

    def unreadable(error: OSError) -> None:
        leave_out(str(error.filename), "unreadable folder", f"{error.filename}: {error.strerror}")

    for file in walk_files(folder, unreadable):
        ending, name = file.suffix.lower(), file.relative_to(folder).as_posix()
        if ending == ".tar" and file.parent == folder:
            continue
        if ending == ".tar":
            ways = "give its folder, or list both folders in a sources.toml"
            leave_out(name, "file that is not read", f"{name!r} is in a folder below that of the shards: {ways}")
        elif ending in MAY_HAVE_EXAMPLES and file.name not in (INDEX_FILE, *OWN_FILES):
            because = "the pictures and captions are those of the shards"
            leave_out(name, "file that is not read", f"{name!r} is not read, because {because}")
    return left_out


def _check_names(folder: str | os.PathLike) -> None:
    """Raises ValueError for a file of a folder of shards that is a compressed shard, or an unfinished one."""
    names = sorted(os.listdir(folder))
    if zipped := [name for name in names if name.lower().endswith(COMPRESSED)]:
        raise ValueError(f"{folder} has {zipped[0]}: shards are read uncompressed, unpack it to a .tar file")
    if parts := [name for name in names if ".tar." in name.lower()]:
        raise ValueError(f"{folder} has {parts[0]}, which is no shard: finish copying it, or move it away")


def _indexed(folder: Path, here: list[Path]) -> tuple[list[Path], list[int]]:
    """The shards that `shards.json` lists, and how many samples each has. `here`: the shards in the folder. Raises
    ValueError where the two differ."""
    shards = read_index(folder / INDEX_FILE)
    paths = [folder / shard["file"] for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            what = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
            raise ValueError(f"{path} {what}: copy it again")
    if unlisted := sorted(set(here) - set(paths)):
        index_file = folder / INDEX_FILE
        raise ValueError(
            f"{unlisted[0]} is not listed in {index_file}: move it, or remove {INDEX_FILE} to read all shards"
        )
    return paths, [shard["examples"] for shard in shards]


class ShardFolder:
    """Shards on disk as a source by index: a folder of .tar files, or a list of them.

    With `shards.json` beside them a shard is opened when its first sample is read; without it the indices of all shards
    are read first. Raises ValueError when a shard is missing, damaged, or truncated by an interrupted copy.
    """

    def __init__(self, folder: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        listed = [folder] if isinstance(folder, str | os.PathLike) else list(folder)
        if not listed:
            raise ValueError("the list of shards is empty: give at least one .tar file, or a folder of them")
        self.name = str(listed[0])
        self.left_out: list[LeftOut] = []
        self._endings: Counter[str] = Counter()
        self._indices: dict[int, list[tuple[str, dict[str, tuple[int, int]]]]] = {}
        folder = Path(listed[0])
        whole = len(listed) == 1 and folder.is_dir()
        if whole:
            _check_names(listed[0])
        here = shard_files(folder) if whole else [Path(path) for path in listed]
        if whole and (folder / INDEX_FILE).is_file():
            self.paths, counts = _indexed(folder, here)
        else:
            self.paths = self._without_repeats(here)
            counts = [len(self._index_of(shard)) for shard in range(len(self.paths))]
        if whole:
            self.left_out += _other_files(folder)
        if not sum(counts):
            raise ValueError(f"{self.name} holds no samples: there is no .tar file with pictures in it")
        for path, count in zip(self.paths, counts, strict=True):
            if not count:
                message = f"{path} has no sample: write it again, or remove it"
                self.left_out.append(LeftOut(printable(str(path)), "shard without a sample", printable(message)))
        self._counts = counts
        self._places = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
        stems = [path.stem for path in self.paths]
        self._names = stems if len(set(stems)) == len(stems) else [str(path.with_suffix("")) for path in self.paths]

    @property
    def skipped(self):
        """cause -> number of files left out"""
        return count_causes(self.left_out)

    def _without_repeats(self, paths: Sequence[Path]) -> list[Path]:
        """The shards without those that are another one under a second name; these are named."""
        first: dict[Any, Path] = {}
        for path in paths:
            same = first.setdefault(identity(path) or path, path)
            if same is not path:
                message = f"{path} is the same file as {same}, which is read once"
                self.left_out.append(LeftOut(printable(str(path)), "shard twice", printable(message)))
        return list(first.values())

    def _index_of(self, shard: int) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """(key, ending -> (offset, size)) of each sample of a shard, in the order of the shard."""
        if shard in self._indices:
            return self._indices[shard]
        path, left_out = self.paths[shard], []

        def leave_out(name: str, cause: str, message: str) -> None:
            left_out.append(LeftOut(printable(f"{path}: {name}"), cause, printable(f"{path}: {message}")))

        try:
            if path.exists() and not path.is_file():
                raise tarfile.ReadError("it is no file")
            with path.open("rb") as file:
                members = members_of(file, "r:", leave_out)
                places = ((member.name, (member.offset_data, member.size)) for _, member in members)
                table = list(samples_of(places, leave_out))
        except FileNotFoundError:
            raise ValueError(f"there is no shard {path}{_why_not(path)}") from None
        except (tarfile.TarError, ValueError, EOFError) as error:  # ValueError: a damaged field of a header
            raise ValueError(f"{path} is not a whole, uncompressed tar file ({error}): {remedy_for(path)}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
        self.left_out += left_out
        self._indices[shard] = table
        self._endings.update(ending for _, files in table for ending in files if ending not in READ_ENDINGS)
        return table

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of the shards that were opened, and no fault: files of samples that are not read."""
        if not self._endings:
            return []
        counted = self._endings.most_common(20)
        listed = ", ".join(f"{number} {ending or 'without an ending'}" for ending, number in counted)
        return [f"{self.name}: files of samples that are not read: {listed}"]

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        """Sample `index`: its files are read, its image is not decoded yet. Raises BrokenSample."""
        shard, row = self._places[index]
        table, path = self._index_of(shard), self.paths[shard]
        if len(table) != self._counts[shard]:
            expected = f"{self._counts[shard]}, as {INDEX_FILE} says"
            raise ValueError(f"{path} has {len(table)} samples instead of {expected}: copy both again")
        key, places = table[row]
        with path.open("rb") as file:
            files = {}
            for ending, (offset, size) in places.items():
                file.seek(offset)
                files[ending] = file.read(size)
                if len(files[ending]) != size:
                    raise ValueError(f"{path} has become shorter since it was opened: copy it again")
        return record_of(key, files, self._names[shard])

    def __getitem__(self, index: int) -> Example:
        return self.record(index).open()

    def check(self) -> None:
        """Compare every shard with its checksum in `shards.json`, if there is one. Raises ValueError if one differs."""
        for folder in dict.fromkeys(path.parent for path in self.paths):
            if not (folder / INDEX_FILE).is_file():
                continue
            for shard in read_index(folder / INDEX_FILE):
                path = folder / shard["file"]
                if path in self.paths and checksum(path) != shard["sha256"]:
                    raise ValueError(f"{path} is not what was packed: copy it again")


def _why_not(path: Path) -> str:
    """The end of a sentence about a shard that is not there."""
    if path.is_symlink():
        return f": it {LINK_TO_NOTHING}"
    if set(path.name) & set("*?{["):
        return ": a pattern stands for addresses only, so give the folder of the shards, or a list of their files"
    return ": check the path"


def read_index(file: Path) -> list[dict[str, Any]]:
    """The shards in a `shards.json`. Raises ValueError for a damaged one, or one of another tool."""
    content = parse_json(read_text(file), str(file))
    shards = content.get("shards") if isinstance(content, dict) else None
    kinds = {"file": str, "examples": int, "bytes": int, "sha256": str}
    names: set[str] = set()
    for shard in shards if isinstance(shards, list) else [None]:
        fits = isinstance(shard, dict) and all(type(shard.get(name)) is kind for name, kind in kinds.items())
        fits = fits and PurePosixPath(shard["file"]).name == shard["file"] not in names and shard["examples"] >= 0
        if not fits:
            raise ValueError(
                f"{file} is not an index that `blip2-lab data shards` wrote: if it is another tool's, or damaged, "
                "move it away, and the shards are read without it"
            )
        names.add(shard["file"])
    return shards


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
