"""Atomic writing: a process killed at any time leaves the old content of a file or the new content. Free disk space.

`write_atomically` is where to begin; `flush` is for folders and for files written by other means. `read_object` reads
JSON back. `require_space` is called before something large is written, `is_disk_full` when writing has failed.

Notes:

* Libraries that write through a private temporary file (safetensors does) leave it readable for its owner alone.
  `make_readable` gives it the mode of any other new file in that folder.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of a file completely or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        os.replace(temporary, path)
    except OSError:  # a full disk: its part of the text would take the room
        temporary.unlink(missing_ok=True)
        raise


def read_object(
    file: Path,
    *keys: str,
    fits: Callable[[dict], bool] = lambda _: True,
    remedy: str = "remove this file, or restart the run",
) -> dict[str, Any]:
    """The JSON object that this package wrote to a file. Raises ValueError for a damaged one, for one without `keys`,
    and for one that does not have the form that `fits` wants."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        content = None
    if not isinstance(content, dict) or not content.keys() >= set(keys) or not fits(content):
        raise ValueError(f"{file} is damaged, or of another version: {remedy}")
    return content


def flush(path: Path) -> None:
    """fsync: write a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_readable(*paths: Path) -> None:
    """Give files the mode that new files have here: 0644 under the usual umask of 022."""
    for path in paths:
        probe = Path(mkdtemp(prefix=".mode-", dir=path.parent))
        try:  # the mode of a new file is the only way to learn the umask without changing it for all threads
            (probe / "new").touch()
            mode = (probe / "new").stat().st_mode & 0o777
        finally:
            (probe / "new").unlink(missing_ok=True)
            probe.rmdir()
        path.chmod(mode)


def replace_folder(finished: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, which is removed. Both are on one disk.

    A kill in between leaves the old folder, or none; never one that is half old and half new.
    """
    for path in (finished, *finished.rglob("*")):
        flush(path)
    make_readable(*(path for path in finished.rglob("*") if path.is_file()))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(finished, folder)
    flush(folder.parent)


def require_space(folder: Path, size: int, what: str, help: str = "make room") -> None:
    """Raises ValueError, in one sentence, where `size` more bytes do not fit on the disk of `folder`."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise ValueError(
            f"not enough space for {what}: {size_text(size)} in {folder}, and {size_text(free)} are free on its disk; "
            f"{help}"
        )


def is_disk_full(error: BaseException, folder: Path, size: int) -> bool:
    """Whether writing `size` bytes to `folder` failed for lack of space, or at a limit of `ulimit -f`. Ask before what
    was written is removed."""
    number = _error_number(error)
    if number is not None:
        return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, Exception) and shutil.disk_usage(folder).free < size


def is_write_error(error: BaseException) -> bool:
    """Whether the system has refused to write; torch says so in a RuntimeError of its archive's writer."""
    return isinstance(error, OSError) or _error_number(error) is not None or "inline_container" in str(error)


def _error_number(error: BaseException) -> int | None:
    """The system's number of an error. Libraries often hide it: safetensors writes it in its text, "(os error 28)"."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def size_text(size: int) -> str:
    """ "292 MB" """
    unit, name = next(((unit, name) for unit, name in ((10**9, "GB"), (10**6, "MB")) if size >= unit), (1000, "kB"))
    number = size / unit
    return f"{number:.1f} {name}" if number < 10 else f"{number:,.0f} {name}"
