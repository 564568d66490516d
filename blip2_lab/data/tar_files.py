"""The files in a tar file, one after the other, and whether the tar file is whole.

`members_of` is where to begin.

Notes:

* A tar file ends in two blocks of zeros. tarfile takes a header that is cut off, or damaged, for the end; so the two
  blocks are looked for, and a tar file without them is refused.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blip2_lab.data.text_files import NO_TEXT


def members_of(
    file: Any, mode: str, leave_out: Callable[[str, str, str], None]
) -> Iterator[tuple[tarfile.TarFile, Any]]:
    """(tar, member) of each regular file of a tar file. Raises tarfile.TarError if the file is not whole."""
    tar, header = _open_tar(file, mode)
    for member in tar:
        if member.isreg() and not member.issparse():
            yield tar, member
        elif not member.isdir():
            message = f"{member.name!r} is a link, or another special file, so it has no content of its own"
            leave_out(member.name, "link in a shard", message)
        tar.members = []  # of a stream of any length
    if len(header.last) < tarfile.BLOCKSIZE or any(header.last):
        raise tarfile.ReadError("it is cut off, or damaged: a header is not whole")
    zeros = 0
    while block := tar.fileobj.read(2**16):
        if any(block):
            raise tarfile.ReadError(
                "there are data behind its end: keep several tar files apart, or remove what is there"
            )
        zeros += len(block)
    if zeros < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off: the two blocks of zeros at its end are not there")


def _open_tar(file: Any, mode: str) -> tuple[tarfile.TarFile, type[tarfile.TarInfo]]:
    """An open tar file, and its class of headers, whose `last` is the last block that was read as a header."""

    class Header(tarfile.TarInfo):
        last = b""

        @classmethod
        def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
            Header.last = buf
            return super().frombuf(buf, encoding, errors)

    return tarfile.open(fileobj=file, mode=mode, tarinfo=Header), Header


def remedy_for(path: Path) -> str:
    """What to do about a file that is no tar file: it may be an archive of another kind, with the ending .tar."""
    if not path.is_file():
        return "it is a folder, a pipe or a device, move it away"
    with path.open("rb") as file:
        start = file.read(64)
    found, remedy = next(((found, remedy) for mark, found, remedy in NO_TEXT if start.startswith(mark)), ("", ""))
    if "archive" in found:
        return f"it is {found}, unpack it to a .tar file"
    return f"it is {found}, {remedy}" if found else "copy it again"
