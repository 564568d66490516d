"""Open images from users and data sets, with limits on format and size.

`open_image` is where to begin: a path, bytes or a PIL image becomes an upright RGB image, or it raises BrokenSample,
whose message is one sentence.

Notes:

* Only the formats in FORMATS are read, and at most MAX_PIXELS pixels. The size is checked before pixels are decoded.
* Images are rotated by their EXIF tag, animations give their first frame, transparency is composited over white.
* The messages say *picture*: visitors of the app read them.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")  #: of the files in a folder that are read as images
MAX_PIXELS = 50_000_000


class BrokenSample(ValueError):
    """An example that cannot be used. `cause` names the kind of failure, for counting; the message names the file."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def open_image(source: str | os.PathLike | bytes | Image.Image) -> Image.Image:
    """An image from a path, from bytes or from PIL -> RGB, upright, first frame, transparency over white.

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
    except Exception as error:  # on damaged data Pillow raises many kinds of exceptions
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error})") from None


def _open(source: str | os.PathLike | bytes, name: str) -> Image.Image:
    """Read the header only; pixels are decoded after the size has been checked."""
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
    except Exception:  # a damaged EXIF block; the image itself is intact
        image = image.copy()
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
