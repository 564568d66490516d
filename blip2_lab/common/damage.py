"""Find damage in the bytes of a picture that its decoder does not report.

`why_damaged` is where to begin: bytes of a PNG or JPEG -> what is wrong with them, or None. `why_cut` finds what only
the decoded picture shows.

Notes:

* Decoders show as much of a damaged file as they can; the rest is gray, or noise. Training would use such pictures with
  captions of the whole ones.
* PNG has checksums, and Pillow compares those of some chunks only.
* JPEG has none. What can be known is found: compressed pixels that never end, that are interrupted by what is no
  marker, whose restart markers are out of order, or that contain zeros where no encoder writes any. An interrupted
  download often leaves zeros, because its whole length was reserved before.
* A JPEG that was cut, and closed by an end marker, is decoded with a gray rest. Whether a gray corner is such a rest
  shows when bytes are put before the end marker: a decoder reads them only where pixels are missing.
* A progressive JPEG has the picture several times, finer each time. It is whole when every value has its last digit.
* Other damage within the compressed pixels of a JPEG, and of WebP, BMP and TIFF, cannot be known from the file.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops

ZEROS = bytes(64)  #: more zeros than compressed pixels have anywhere
_SOI, _EOI, _SOS, _DHT = 0xD8, 0xD9, 0xDA, 0xC4
_ALONE = (0x01, *range(0xD0, 0xD9))  #: markers without a length
#: What may follow compressed pixels: tables, another scan, a comment, an application's segment.
_AFTER_SCAN = (_DHT, _SOS, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0))
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)


def why_damaged(data: bytes, image_format: str | None) -> str | None:
    """What is wrong with the file of a picture, in a few words; None where nothing is known to be wrong."""
    checks = {"PNG": _png, "JPEG": _jpeg, "MPO": _jpeg}
    return checks[image_format](data) if image_format in checks else None


def why_cut(data: bytes, image: Image.Image) -> str | None:
    """Whether the pixels of a JPEG end too early, although it has an end; None where nothing is known to be wrong.

    `image`: what Pillow made of `data`, decoded. Nothing but its last pixel is looked at, unless that is gray.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    last = image.getpixel((image.width - 1, image.height - 1))
    if any(abs(value - 128) > 2 for value in (last if isinstance(last, tuple) else (last,))):
        return None
    walk = _Walk()
    if _jpeg(data, walk) or walk.frame not in _HUFFMAN_FRAMES or not all(walk.size):
        return None
    try:
        more = Image.open(io.BytesIO(data[: walk.end] + _MORE + data[walk.end :]), formats=["JPEG"])
        box = ImageChops.difference(image, more).getbbox() if more.size == image.size else None
    except Exception:  # of damaged data Pillow raises many kinds
        return None
    # the last bits of the last block may be missing: some encoders do not write them
    left, top = ((size - 1) // unit * unit for size, unit in zip(image.size, walk.size, strict=True))
    within_last = box is None or (box[0] >= left - 2 and box[1] >= top - 2)
    return None if within_last else "its pixels end too early"


def _png(data: bytes) -> str | None:
    place = 8
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + size
        if kind == b"IDAT" and zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return "its checksum is another one"
        if kind == b"IEND":
            return None
        place = end + 4
    return None  # a missing end is an error of the decoder


# ----------------------------------------------------------------------------------------------------------------- JPEG

#: Bytes that stand for no end of a picture, whichever code reads them.
_MORE = bytes(range(1, 255))


@dataclass
class _Walk:
    """What a walk through the segments of a JPEG has met.

    `frame`: its kind of frame, `size`: width and height of its units in pixels, `end`: where its last scan ends.
    `digits`: (component, coefficient) of a progressive JPEG -> the lowest binary digit that was sent of it.
    """

    frame: int = 0
    size: tuple[int, int] = (0, 0)
    end: int = 0
    digits: dict[tuple[int, int], int] = field(default_factory=dict)

    def read_frame(self, kind: int, body: bytes) -> None:
        sampling = body[7 : 6 + 3 * body[5] : 3] if len(body) > 5 else b""
        self.frame = kind
        if sampling:  # the units of a single component are its blocks
            wide, high = (max(one >> 4 for one in sampling), max(one & 0x0F for one in sampling))
            self.size = (8 * wide, 8 * high) if sampling[1:] else (8, 8)

    def read_scan(self, header: bytes) -> None:
        count = header[0] if header else 0
        first, last, bits = header[1 + 2 * count : 4 + 2 * count].ljust(3, b"\0")
        for component in header[1 : 1 + 2 * count : 2]:
            self.digits |= {(component, number): bits & 0x0F for number in range(first, min(last, 63) + 1)}

    def lacks_scans(self) -> bool:
        """Whether a progressive JPEG ends before the last digit of a value, or before its first component is whole."""
        if self.frame != 0xC2 or not self.digits:
            return False
        first = next(iter(self.digits))[0]
        return any(self.digits.values()) or any((first, number) not in self.digits for number in range(64))


def _jpeg(data: bytes, walk: _Walk | None = None) -> str | None:
    """Walk through the segments of the first picture, from its SOI to its EOI. `walk` is told what was met."""
    markers, walk = _markers(data), walk or _Walk()
    first_codes, place, scans = {}, 2, 0
    while True:
        start = data.find(b"\xff", place)
        if scans and start != place:
            return "its pixels are interrupted"
        while 0 <= start < len(data) and data[start] == 0xFF:  # any number of fill bytes
            start += 1
        if not 0 < start < len(data):
            return None if not scans else "its end is missing"  # without pixels, the decoder reports it
        kind = data[start]
        if kind == _EOI:
            return "some of its scans are missing" if walk.lacks_scans() else None
        place = start + 1
        if kind in _ALONE or kind == 0:
            continue
        size = int.from_bytes(data[place : place + 2], "big")
        body = data[place + 2 : place + size]
        if kind == _DHT:
            first_codes |= dict(_first_codes(body))
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC8, 0xCC):
            walk.read_frame(kind, body)
        place += max(2, size)
        if kind != _SOS:
            continue
        scans += 1
        walk.read_scan(body)
        inside = markers[np.searchsorted(markers[:, 0], place) :]
        restarts = _restarts(inside[:, 1])
        end, found = inside[restarts].tolist() if restarts < len(inside) else (len(data), None)
        if found not in (*_AFTER_SCAN, _EOI, None):
            return "its pixels are interrupted"
        if not np.array_equal(inside[:restarts, 1] & 7, np.arange(restarts) % 8):
            return "a part of its pixels is missing"
        zeros = data.find(ZEROS, place, end)
        if zeros >= 0 and not _may_be_zeros(walk.frame, body, first_codes) and not _is_padding(data, zeros, end):
            return "a part of its pixels is overwritten with zeros"
        if found is None:
            return None if zeros >= 0 and _is_padding(data, zeros, end) else "its end is missing"
        place = walk.end = end


def _markers(data: bytes) -> np.ndarray:
    """int[M,2]: place and code of everything that would be a marker within compressed pixels: 0xFF and what is neither
    0 (a stuffed 0xFF) nor 0xFF (a fill byte)."""
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(values[:-1] == 0xFF)
    codes = values[places + 1]
    real = (codes != 0) & (codes != 0xFF)
    return np.stack([places[real], codes[real].astype(places.dtype)], axis=1)


def _restarts(codes: np.ndarray) -> int:
    """How many of these markers are restart markers before the first that is another one."""
    others = np.flatnonzero((codes & 0xF8) != 0xD0)
    return int(others[0]) if len(others) else len(codes)


def _first_codes(tables: bytes) -> Iterator[tuple[int, int]]:
    """The body of a DHT segment -> (class and number of each table, the symbol whose code is all zeros)."""
    place = 0
    while place + 17 < len(tables):
        yield tables[place], tables[place + 17]
        place += 17 + sum(tables[place + 1 : place + 17])


def _may_be_zeros(frame: int, scan: bytes, first_codes: dict[int, int]) -> bool:
    """Whether an encoder may write many zeros in this scan, of which `scan` is the header.

    Where the code of zeros ends a block, they are a plain area. Where it does not, each block would have a value for
    its finest detail, and all of its values would be equal: no picture is like that.
    """
    if frame not in _HUFFMAN_FRAMES or len(scan) < 4:
        return True
    components = scan[0]
    first, _, bits = scan[1 + 2 * components : 4 + 2 * components].ljust(3, b"\0")
    if frame == 0xC2 and (first == 0 or bits >> 4):  # the constant parts of a progressive JPEG, and refinements
        return True
    symbols = [first_codes.get(0x10 | scan[2 + 2 * i] & 0x0F) for i in range(components) if 2 + 2 * i < len(scan)]
    ends_block = [symbol is None or (symbol & 0x0F == 0 and symbol != 0xF0) for symbol in symbols]
    return all(ends_block)


def _is_padding(data: bytes, zeros: int, end: int) -> bool:
    """Whether the zeros reach to the end of the last scan, and the picture is the same without them."""
    if data[zeros:end].strip(b"\0\xff") or data[end + 1 : end + 2] not in (b"", bytes([_EOI])):
        return False
    try:
        whole, short = (Image.open(io.BytesIO(each + b"\xff\xd9")) for each in (data[:end], data[:zeros]))
        return whole.tobytes() == short.tobytes()
    except Exception:  # of damaged data Pillow raises many kinds
        return False
