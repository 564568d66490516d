"""Atomic writing: a process killed at any time leaves the old content of a file or the new content.

`write_atomically` is where to begin; `flush` is for folders and for files written by other means.

Notes:

* Libraries that write through a private temporary file (safetensors does) leave it readable for its owner alone.
  `make_readable` gives it the mode of any other new file in that folder.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkdtemp


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of a file completely or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    flush(temporary)
    os.replace(temporary, path)


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
