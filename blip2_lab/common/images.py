"""Open pictures that come from outside, with limits on format, size and damage.

`open_image` is where to begin: whatever a user hands over (a path, bytes, a PIL picture) becomes an upright RGB
picture, or a BrokenSample, whose message is one sentence.

Notes:

* Only the formats in FORMATS are read, and at most MAX_PIXELS pixels: the size is checked before pixels are decoded.
* Rotation follows the EXIF tag, animations give their first frame, transparency is put over white.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")  #: of the files in a folder that are taken for pictures
MAX_PIXELS = 50_000_000


class BrokenSample(ValueError):
    """An example that cannot be used. `cause` is the same for all that fail alike; the message names this one."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def open_image(source: str | os.PathLike | bytes | Image.Image) -> Image.Image:
    """A picture from a path, from bytes or from PIL -> RGB, upright, first frame, transparency over white.

    Raises BrokenSample, a ValueError of one sentence, when it is missing, too large, damaged or of another format.
    """
    name = "the picture" if isinstance(source, Image.Image | bytes | bytearray) else repr(os.fspath(source))
    image = source if isinstance(source, Image.Image) else _open(source, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        millions = f"{width} x {height} = {width * height / 1e6:.0f} million pixels"
        limit = f"at most {MAX_PIXELS // 10**6} million are read, make it smaller"
        raise BrokenSample("too many pixels", f"{name} has {millions}: {limit}")
    try:
        return _to_rgb(image)
    except Exception as error:  # on damaged data Pillow's readers raise nearly anything
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error})") from None


def _open(source: str | os.PathLike | bytes, name: str) -> Image.Image:
    """Read the header only: the pixels come later, after the size is known."""
    try:
        data = bytes(source) if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except FileNotFoundError:
        raise BrokenSample("missing file", f"there is no file {name}") from None
    except IsADirectoryError:
        raise BrokenSample("not a picture", f"{name} is a folder, not a picture") from None
    except UnidentifiedImageError:
        raise BrokenSample("not a picture", f"{name} is not a PNG, JPEG, WebP or GIF picture") from None
    except Image.DecompressionBombError:
        limit = f"at most {MAX_PIXELS // 10**6} million are read"
        raise BrokenSample("too many pixels", f"{name} has far too many pixels: {limit}") from None
    except OSError as error:
        raise BrokenSample("unreadable file", f"{name} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header: see open_image
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the picture itself is fine
        image = image.copy()
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
