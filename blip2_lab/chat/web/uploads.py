"""The pictures that visitors of the app upload: whose they are, how they are opened, when they are deleted.

Begin with `Uploads`.

Notes:

* A file is opened only when it is a regular one, inside the upload folder after all links, and not too large. `stat`
  comes after `open`, on the open file, so nothing can be exchanged in between.
* Whether a refused file exists is not told: there is one sentence for all refusals.
* Each upload has a folder of its own with a random name, so two visitors never share a file.

Notebook: 12.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MB = 2**20
MAX_FILE = 40 * MB  #: one upload
VISITOR_QUOTA = 4 * MAX_FILE  #: all uploads of a visitor; his oldest go first
TOTAL_QUOTA = 2048 * MB  #: all uploads of all visitors; the oldest go first
SMALLEST = MB // 4  #: what any upload counts at least, so that the quotas also limit the number of files
NOT_YOURS = "This is not a picture that you uploaded here: please choose it again."


def files_in(data: Any) -> Iterator[Any]:
    """The paths of everything in a request's data that gradio's components would take for a file."""
    rest = [data]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if value.get("path") is not None or value.get("url") is not None:
                yield value.get("path")
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)


def open_upload(path: str, folder: str) -> BinaryIO:
    """A regular file of at most `MAX_FILE` bytes inside `folder`, wherever links lead; open for reading.

    Raises ValueError, always with the same sentence: whether a refused file exists is not told.
    """
    try:
        real = os.path.realpath(path)
        if not Path(real).is_relative_to(os.path.realpath(folder)):
            raise ValueError(NOT_YOURS)
        # A FIFO without a writer would block for ever; a link put here since `realpath` is not followed.
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(real, os.O_RDONLY | flags), "rb")
    except (OSError, ValueError, TypeError):
        raise ValueError(NOT_YOURS) from None
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_FILE:
        file.close()
        raise ValueError(NOT_YOURS)
    return file


def read_upload(path: str, folder: str) -> bytes:
    """What an uploaded file holds; it is checked by `open_upload`, so it cannot change between check and reading."""
    with open_upload(path, folder) as file:
        return file.read(MAX_FILE)


@dataclass
class Upload:
    """One uploaded file: whose it is, what it counts, and the gradio session that used it first."""

    visitor: str
    size: int
    time: float
    session: str | None = None


class Uploads:
    """The files that visitors uploaded, oldest first. Whatever leaves this list is deleted from the disk."""

    def __init__(self, folder: str, visitor_quota: int = VISITOR_QUOTA, total_quota: int = TOTAL_QUOTA) -> None:
        self.folder, self.visitor_quota, self.total_quota = folder, visitor_quota, total_quota
        self.files: OrderedDict[str, Upload] = OrderedDict()

    def store(self, name: str, content: BinaryIO) -> str:
        """Write a file under a random folder -> its path. It has no owner until it is added."""
        folder = Path(os.path.realpath(self.folder), secrets.token_hex(16))
        folder.mkdir(parents=True, mode=0o700)
        name = re.sub(r"[^\w.\- ]", "", Path(name).name).strip(". ")[-100:] or "picture"
        with open(folder / name, "wb") as file:
            shutil.copyfileobj(content, file, MB)
        return str(folder / name)

    def add(self, visitor: str, path: str) -> None:
        """Let a stored file belong to a visitor; what is over a quota goes, the oldest first."""
        self.files[path] = Upload(visitor, max(os.path.getsize(path), SMALLEST), time.monotonic())
        own = [key for key, upload in self.files.items() if upload.visitor == visitor]
        while sum(self.files[key].size for key in own) > self.visitor_quota:
            self.delete(own.pop(0))
        while sum(upload.size for upload in self.files.values()) > self.total_quota:
            self.delete(next(iter(self.files)))

    def find(self, path: Any) -> Upload | None:
        """The upload at a path, which may be anything that a request can hold."""
        try:
            return self.files.get(os.path.realpath(path))
        except (OSError, ValueError, TypeError):
            return None

    def claim(self, path: Any, visitor: str, session: str | None) -> bool:
        """May this visitor use this file in this session? The first session that uses a file is the only one."""
        upload = self.find(path)
        if upload is None or upload.visitor != visitor or upload.session not in (None, session):
            return False
        try:
            open_upload(path, self.folder).close()
        except ValueError:
            return False
        upload.session = session
        return True

    def is_hidden(self, path: str, visitor: str) -> bool:
        """Is this somebody else's upload?"""
        upload = self.find(path)
        return upload is not None and upload.visitor != visitor

    def delete(self, path: str) -> None:
        """Forget a file and delete it, with its folder."""
        self.files.pop(path)
        with suppress(OSError):
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))

    def forget(self, unwanted: Callable[[Upload], bool]) -> None:
        """Delete all uploads of which this is true."""
        for path in [path for path, upload in self.files.items() if unwanted(upload)]:
            self.delete(path)
