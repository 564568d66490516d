"""Find damage in the bytes of a picture that its decoder does not report.

`why_damaged` is where to begin: bytes of a PNG or JPEG -> what is wrong with them, or None.

Notes:

* Decoders show as much of a damaged file as they can; the rest is gray, or noise. Training would use such pictures with
  captions of the whole ones.
* PNG has checksums, and Pillow compares those of some chunks only.
* JPEG has none. What can be known is found: compressed pixels that never end, that are interrupted by what is no
  marker, whose restart markers are out of order, or that contain zeros where no encoder writes any. An interrupted
  download often leaves zeros, because its whole length was reserved before.
* Other damage within the compressed pixels of a JPEG, and of WebP, BMP and TIFF, cannot be known from the file.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

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


def _jpeg(data: bytes) -> str | None:
    """Walk through the segments of the first picture, from its SOI to its EOI."""
    markers = _markers(data)
    frame, first_codes, place, scans = 0, {}, 2, 0
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
            return None
        place = start + 1
        if kind in _ALONE or kind == 0:
            continue
        size = int.from_bytes(data[place : place + 2], "big")
        body = data[place + 2 : place + size]
        if kind == _DHT:
            first_codes |= dict(_first_codes(body))
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC8, 0xCC):
            frame = kind
        place += max(2, size)
        if kind != _SOS:
            continue
        scans += 1
        inside = markers[np.searchsorted(markers[:, 0], place) :]
        restarts = _restarts(inside[:, 1])
        end, found = inside[restarts].tolist() if restarts < len(inside) else (len(data), None)
        if found not in (*_AFTER_SCAN, _EOI, None):
            return "its pixels are interrupted"
        if not np.array_equal(inside[:restarts, 1] & 7, np.arange(restarts) % 8):
            return "a part of its pixels is missing"
        zeros = data.find(ZEROS, place, end)
        if zeros >= 0 and not _may_be_zeros(frame, body, first_codes) and not _is_padding(data, zeros, end):
            return "a part of its pixels is overwritten with zeros"
        if found is None:
            return None if zeros >= 0 and _is_padding(data, zeros, end) else "its end is missing"
        place = end


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
