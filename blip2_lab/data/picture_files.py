"""Find the image files that a table or an annotation file names, in a folder of images.

`PictureFinder.find` is where to begin.

Notes:

* A name may be written with `\\`, in another Unicode form (macOS writes accents apart: NFD), or with its ending in
  another case. It may be absolute, or begin with `./`.
* The safety rule: a *name* may not lead out of the folder, by `..` or as an absolute path elsewhere. A *link* inside
  the folder may point anywhere, because the owner of the folder made the link; on clusters folders of links are common.
* One file under several names is one image (`identity`): `a.png`, `./a.png`, its absolute path, a link to it.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from urllib.parse import unquote

from blip2_lab.common.images import LONGEST_NAME, BrokenSample, walk_files

LINK_TO_NOTHING = "is a link to a file that is not there: copy the file again, or remove the link"


class Found(NamedTuple):
    """A file that was found: its name relative to the folder, its path, and what identifies it under any name."""

    name: str
    path: Path
    identity: tuple


def identity(path: str | os.PathLike) -> tuple | None:
    """What two names of one file have in common: device and inode, links followed. None where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a zero byte, or half a character, in the name
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else (os.path.realpath(path),)


class PictureFinder:
    """The files of one folder by the names that others gave them. A folder is listed once."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self._root = os.path.abspath(self.folder)
        self._listings: dict[str, dict[str, list[str]]] = {}
        self._stems: dict[str, dict[str, str]] = {}
        self._below: dict[str, list[str]] | None = None

    def find(self, name: str) -> Found:
        """The file of this name. Raises BrokenSample: "address instead of a file", "file outside the folder", or
        "missing file"."""
        if "://" in name:
            remedy = "download the picture, and name its file"
            if name.casefold().startswith("file:"):
                remedy = "give the path alone, without file://"
            message = f"{name!r} is an address, which is not fetched: {remedy}"
            raise BrokenSample("address instead of a file", message)
        candidates = list(dict.fromkeys((name, name.replace("\\", "/"), name.strip())))
        inside = [relative for one in candidates if (relative := self._inside(one)) is not None]
        for relative in inside:
            for known in (relative, self._as_written_here(relative)):
                if known is not None and (found := identity(path := self.folder / known)) is not None:
                    return Found(known, path, found)
        if len(name) > LONGEST_NAME:
            remedy = "if it is a picture in base64, decode it, and write it to a file"
            message = f"{name[:60]!r} … ({len(name):,} characters) is no file of {self.folder}: {remedy}"
            raise BrokenSample("missing file", message)
        if len(inside) < len(candidates):
            raise BrokenSample(
                "file outside the folder",
                f"{name!r} leads out of {self.folder}: name files relative to the folder (a link in it may point "
                "anywhere)",
            )
        if os.path.isdir(folder := self.folder / inside[-1]):
            raise BrokenSample("missing file", f"there is no file {str(folder)!r}: it is a folder, name a file in it")
        path = self.folder / inside[-1]
        if os.path.islink(path):
            raise BrokenSample("missing file", f"{str(path)!r} {LINK_TO_NOTHING}")
        raise BrokenSample("missing file", f"there is no file {str(path)!r}{self._hint(inside[-1])}")

    def _inside(self, name: str) -> str | None:
        """The name relative to the folder, with `/`; None if it leads out. Links are not followed."""
        if os.name != "nt" and PureWindowsPath(name).is_absolute():  # of another machine
            return None
        place = os.path.normpath(os.path.join(self._root, name))
        if place == self._root or not place.startswith(self._root.rstrip(os.sep) + os.sep):
            return None
        return os.path.relpath(place, self._root).replace(os.sep, "/")

    def _as_written_here(self, relative: str) -> str | None:
        """The name in the Unicode form and the case of the ending that the folder has; None unless one file fits."""
        found = ""
        *folders, last = relative.split("/")
        for part in folders:
            names = self._listing(found).get(_folded(part), [])
            same = [one for one in names if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", part)]
            if len(same) != 1:
                return None
            found = f"{found}{same[0]}/"
        same = [one for one in self._listing(found).get(_folded(last), []) if _same_but_ending(one, last)]
        return found + same[0] if len(same) == 1 else None

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """folded name -> the names of a sub-folder."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = os.listdir(self.folder / folder)
            except (OSError, ValueError):
                names = []
            for name in names:
                listing.setdefault(_folded(name), []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]

    def _hint(self, relative: str) -> str:
        """The end of a sentence about a missing file, where a file of nearly this name is there."""
        folder, _, last = relative.rpartition("/")
        near = self._listing(folder and f"{folder}/").get(_folded(last), [])
        if not near and folder:
            near = self._listing("").get(_folded(last), [])
        if not near:
            if folder not in self._stems:  # a table may name thousands of missing files
                names = [name for names in self._listing(folder and f"{folder}/").values() for name in names]
                self._stems[folder] = {_folded(name.rpartition(".")[0]): name for name in reversed(names)}
            near = [found] if (found := self._stems[folder].get(_folded(last.rpartition(".")[0] or last))) else []
        if not near:
            near = self._elsewhere(relative)
        return f"; did you mean {near[0]!r}?" if near else ""

    def _elsewhere(self, relative: str) -> list[str]:
        """The file of this name in a folder below, or of this name in another spelling: with `%20` for a space, with
        quotes around it, or without the zeros that a spreadsheet takes from a number. Empty unless one file fits."""
        if self._below is None:
            self._below = {}
            for file in walk_files(self.folder, lambda _: None):
                path = file.relative_to(self.folder).as_posix()
                for key in {_folded(file.name), _without_zeros(file.name)}:
                    self._below.setdefault(key, []).append(path)
        last = relative.rpartition("/")[2]
        for key in (_folded(last), _folded(unquote(last)), _folded(_bare(last)), _without_zeros(last)):
            if len(found := self._below.get(key, [])) == 1:
                return found
        return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _bare(name: str) -> str:
    """A name without quotes around it, and without characters that cannot be seen."""
    return "".join(one for one in name if unicodedata.category(one) not in ("Cc", "Cf")).strip(" '\"`´“”„‘’‚«»")


def _without_zeros(name: str) -> str:
    """A name whose numbers begin with no zero: 0001.png and 1.png have the same one."""
    return re.sub(r"\d+", lambda number: number[0].lstrip("0") or "0", _folded(name))


def _same_but_ending(one: str, other: str) -> bool:
    """Whether two names differ at most in their Unicode form and in the case of the ending."""
    stems = [unicodedata.normalize("NFC", name).rpartition(".") for name in (one, other)]
    return stems[0][0] == stems[1][0] and stems[0][2].casefold() == stems[1][2].casefold()
