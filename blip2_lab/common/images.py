"""Open images from users and data sets, with limits on format and size; list the images of a folder.

`open_image` is where to begin: a path, bytes, an open file, an array or a PIL image becomes an upright RGB image, or it
raises BrokenSample, whose message is one sentence. `open_cutout` keeps the transparency. `image_list` accepts one image
or several, `image_files` lists a folder.

Notes:

* Only the formats in FORMATS are read, and at most MAX_PIXELS pixels. The size is checked before pixels are decoded.
* Images are rotated by their EXIF tag, animations give their first frame, transparency is composited over white.
* An array has the colors red, green, blue, as integers from 0 to 255. Another scale is refused: an answer would not
  show that the colors were wrong.
* The messages say *picture*: visitors of the app read them.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

#: The formats of a web browser. The app opens only these: the decoder of TIFF is large, and visitors are strangers.
WEB_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
FORMATS = (*WEB_FORMATS, "BMP", "TIFF")
#: Of the files in a folder that are read as images. `.jfif` and `.jpe` are JPEG files.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: Endings of images that are not read: such a file is named, never passed over.
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw")
MAX_PIXELS = 50_000_000

#: What `open_image` accepts. An array is uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4].
ImageSource = str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray | IO[bytes]


class BrokenSample(ValueError):
    """An example that cannot be used. `cause` names the kind of failure, for counting; the message names the file."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


# ------------------------------------------------------------------------------------------------------------ one image


def open_image(source: ImageSource, formats: Sequence[str] = FORMATS, name: str = "") -> Image.Image:
    """An image from any `ImageSource` -> RGB, upright, first frame, transparency over white.

    name  of a source without a path of its own, for messages: "the picture of '0/17'"

    Raises BrokenSample, a ValueError of one sentence, when it is missing, too large, damaged, of another format, or no
    image at all.
    """
    return _decoded(source, formats, _to_rgb, name)


def open_cutout(source: ImageSource, mask: ImageSource | None = None) -> Image.Image:
    """A thing on a transparent ground -> RGBA, upright, cut to what is visible of it.

    mask  a gray image of the same size, white where the thing is; without one, the image's own transparency

    Raises BrokenSample as `open_image` does, also for an image without transparency and for one without a thing.
    """
    image = _decoded(source, FORMATS, lambda image, name: _upright(image, name).convert("RGBA"))
    name = repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else "the picture"
    if mask is not None:
        ground = open_image(mask).convert("L")
        if ground.size != image.size:
            sizes = f"{ground.width} x {ground.height} pixels and the picture {image.width} x {image.height}"
            raise BrokenSample("mask of another size", f"the mask of {name} has {sizes}: make them equal")
        image.putalpha(ground)
    lowest, highest = image.getchannel("A").getextrema()
    if lowest == 255:
        ways = "cut the thing out, or put a mask beside it, white where the thing is"
        raise BrokenSample("not cut out", f"{name} has no transparent ground: {ways}")
    if highest < 128:
        raise BrokenSample("not cut out", f"{name} is transparent everywhere: nothing of it can be seen")
    return image.crop(image.getchannel("A").point(lambda value: 255 * (value >= 128)).getbbox())


def frame_count(source: ImageSource) -> int:
    """The number of images in one that `open_image` has opened: those of an animation, the pages of a TIFF. The second
    image of a JPEG, as phones write it, is no frame of its own."""
    if not isinstance(source, str | os.PathLike | bytes):
        return 1
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        return 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)


def _decoded(
    source: ImageSource, formats: Sequence[str], decode: Callable[[Image.Image, str], Image.Image], given: str = ""
) -> Image.Image:
    """Open a source, check its size, and decode its pixels. `given`: its name, if it has none. Raises BrokenSample."""
    if isinstance(source, Image.Image):
        name, image = given or "the picture", source
    elif isinstance(source, np.ndarray):
        name, image = given or "the array", _from_array(source)
    else:
        name, data = _read(source)
        if not isinstance(source, str | os.PathLike):
            name = given or name
        image = _open(data, name, formats)
        if image.format == "PNG":
            _check_png(data, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        millions = f"{width} x {height} = {width * height / 1e6:.0f} million pixels"
        limit = f"at most {MAX_PIXELS // 10**6} million are read, make it smaller"
        raise BrokenSample("too many pixels", f"{name} has {millions}: {limit}")
    if not width * height:
        raise BrokenSample("not a picture", f"{name} has no pixels: it is {width} x {height}")
    try:
        return decode(image, name)
    except BrokenSample:
        raise
    except Exception as error:  # on damaged data Pillow raises many kinds of exceptions
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error}): copy it again") from None


def _read(source: Any) -> tuple[str, bytes]:
    """The name of a source in messages, and its bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "the picture", bytes(source)
    if isinstance(source, str | os.PathLike):
        name = repr(os.fspath(source))
        try:
            if "\0" in os.fspath(source):
                raise FileNotFoundError
            if os.path.exists(source) and not os.path.isfile(source) and not os.path.isdir(source):
                remedy = "is a pipe or a device, not a file: save the picture as a file"
                raise BrokenSample("unreadable file", f"{name} {remedy}")
            return name, Path(source).read_bytes()
        except (FileNotFoundError, UnicodeEncodeError):
            remedy = ": an address is not fetched, download it first" if "://" in name else ""
            raise BrokenSample("missing file", f"there is no file {name}{remedy}") from None
        except IsADirectoryError:
            raise BrokenSample("not a picture", f"{name} is a folder, not a picture") from None
        except OSError as error:
            raise BrokenSample("unreadable file", f"{name} cannot be read ({error.strerror or error})") from None
    if hasattr(source, "read"):
        return _read_stream(source)
    raise BrokenSample(
        "not a picture",
        f"a picture is a path, bytes, an open file, a PIL image or an array (uint8, [height, width, 3]), and this is "
        f"of type {type(source).__name__}",
    )


def _read_stream(source: IO[bytes]) -> tuple[str, bytes]:
    name = repr(source.name) if isinstance(getattr(source, "name", None), str) else "the open file"
    try:
        if source.seekable():  # as Pillow does: the same file can be opened twice
            source.seek(0)
        data = source.read()
    except (OSError, ValueError, AttributeError) as error:  # ValueError: closed
        raise BrokenSample("unreadable file", f"{name} cannot be read ({error})") from None
    if not isinstance(data, bytes | bytearray):
        raise BrokenSample("unreadable file", f"{name} was opened as text: open it with mode 'rb'")
    return name, bytes(data)


def _from_array(array: np.ndarray) -> Image.Image:
    """An array uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4] -> an image."""
    wanted = "a picture as an array is uint8, values 0 to 255, of shape [height, width, 3]"
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        wanted += "; this one has the colors first: array.transpose(1, 2, 0)"
    elif array.ndim == 4:
        wanted += "; these are several pictures: pass them one by one, or as a list"
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits:
        raise BrokenSample("not a picture", f"this array is {array.dtype} {list(array.shape)}, and {wanted}")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def _open(data: bytes, name: str, formats: Sequence[str]) -> Image.Image:
    """Read the header only; pixels are decoded after the size has been checked."""
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        what = "is empty, so it is" if not data else "is"
        more = f", and no BMP or TIFF{_instead(data)}" if tuple(formats) == FORMATS else ""
        message = f"{name} {what} not a PNG, JPEG, WebP or GIF picture{more}"
        raise BrokenSample("not a picture", message) from None
    except Image.DecompressionBombError:
        limit = f"at most {MAX_PIXELS // 10**6} million are read"
        raise BrokenSample("too many pixels", f"{name} has far too many pixels: {limit}") from None
    except Exception as error:  # a damaged header: see open_image
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error}): copy it again") from None


def _instead(data: bytes) -> str:
    """The end of a sentence about data that are no picture: what they are instead, and what to do."""
    start = data[:512].lstrip().lower()
    if not data:
        return ": copy it again"
    if start.startswith((b"<!doctype html", b"<html")):
        return ": it is a web page, download the picture again"
    if start.startswith(b"version https://git-lfs"):
        return ": it is a pointer of Git LFS, run `git lfs pull`"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return ": it is an SVG drawing, convert it to PNG"
    if data[4:8] == b"ftyp":
        return f": it is {'an AVIF' if data[8:12] == b'avif' else 'a HEIC'} picture, convert it to JPEG or PNG"
    if not any(data[:512]):
        return ": it has zeros only, copy it again"
    return ": convert it to JPEG or PNG, or copy it again"


def _check_png(data: bytes, name: str) -> None:
    """Raises BrokenSample for a PNG whose pixels do not have the checksum that is written in it: Pillow compares those
    of other chunks only, and decodes what an interrupted copy has left of the pixels."""
    place = 8
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + size
        if kind == b"IDAT" and zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BrokenSample(
                "damaged picture", f"{name} is damaged or cut off (its checksum is another one): copy it again"
            )
        if kind == b"IEND":
            return
        place = end + 4


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image  # in memory, without rotation or transparency: batches of these are frequent
    image = _upright(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The first frame with 8 bits a channel, rotated by its EXIF tag."""
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the image itself is intact
        image = image.copy()
    if image.mode == "F":
        raise BrokenSample("not a picture", f"{name} has floating point pixels, whose range is unknown: use 8 bits")
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535 or 0 < values.max() < 256:  # the last would be black
            bits = f"{32 if image.mode == 'I' else 16} bits from {values.min()} to {values.max()}"
            raise BrokenSample("not a picture", f"{name} has pixels of {bits}: save them with 8 bits, from 0 to 255")
        image = Image.fromarray((values.astype(np.int64) // 257).astype(np.uint8))
    return image


# ------------------------------------------------------------------------------------------------------- several images


def is_one_image(source: Any) -> bool:
    """Whether this is a single image, rather than several: a path, bytes, an open file, an array [H,W] or [H,W,C]."""
    if isinstance(source, np.ndarray):
        return source.ndim <= 3
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or hasattr(
        source, "read"
    )


def image_list(images: Any) -> list:
    """One image, or several (a list, an array [B,H,W,C]) -> a list of them. A string is one path, not its letters.

    Raises ValueError for what is neither, and for none.
    """
    if is_one_image(images):
        return [images]
    if images is None or isinstance(images, dict | set) or not isinstance(images, Iterable):
        _read(images)  # raises BrokenSample, which lists what a picture may be
    images = list(images)
    if not images:
        raise ValueError("The list of images is empty; pass at least one.")
    return images


# -------------------------------------------------------------------------------------------------------------- folders


def walk_files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Every file in a folder and below it, in order; linked folders included, each folder once.

    Hidden files and folders (`.git`, macOS's `._boat.jpg`) are not looked at.

    `on_error` is called for a folder that cannot be read; without it, the error is raised.
    """

    def failed(error: OSError) -> None:
        if on_error is None:
            raise error
        on_error(error)

    seen = set()
    for place, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it, or two links to one folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Every file in a folder and below it whose ending is in SUFFIXES, in order."""
    return sorted(path for path in walk_files(folder) if path.suffix.lower() in SUFFIXES and os.path.isfile(path))


def pictures_in(folder: Path) -> list[Path]:
    """Every picture in a folder and below it, in order. Raises ValueError when there is none."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder} to search in.")
    found = image_files(folder)
    if not found:
        raise ValueError(f"{folder} holds no picture: nothing in it ends in {', '.join(SUFFIXES)}.")
    return found
