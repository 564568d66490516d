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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from blip2_lab.common.damage import why_cut, why_damaged

#: The formats of a web browser. The app opens only these: the decoder of TIFF is large, and visitors are strangers.
WEB_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
FORMATS = (*WEB_FORMATS, "BMP", "TIFF")
#: Of the files in a folder that are read as images. `.jfif` and `.jpe` are JPEG files.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: Endings of images that are not read: such a file is named, never passed over.
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".xcf", ".ico", ".icns"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".dds", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # of cameras
)
MAX_PIXELS = 50_000_000
LONGEST_NAME = 300  #: characters of a name in a message
#: How the files of a HEIC picture begin, behind `ftyp`. What else begins so is a video.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

#: First bytes of files that are no pictures -> what they are, and what to do.
NO_PICTURES = (
    (b"%PDF", "a PDF file, save its picture as JPEG or PNG"),
    (b"PK\x03\x04", "a zip archive, unpack it"),
    (b"\x1f\x8b", "a gzip archive, unpack it"),
    (b"\x93NUMPY", "an array of numpy, load it with numpy.load and give the array"),
)
TIFF_STARTS = (b"II*\0", b"MM\0*")  #: whose list of contents is often at the end of the file

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
    data = b""
    if isinstance(source, Image.Image):
        name, image = given or "the picture", source
    elif isinstance(source, np.ndarray):
        name = given or "the array"
        image = _from_array(source, name)
    else:
        name, data = _read(source)
        if not isinstance(source, str | os.PathLike):
            name = given or name
        image = _open(data, name, formats)
    _check_size(*image.size, name)
    if data and (why := why_damaged(data, image.format)):
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({why}): copy it again")
    try:
        decoded = decode(image, name)
    except BrokenSample:
        raise
    except Exception as error:  # on damaged data Pillow raises many kinds of exceptions
        if image is source:
            message = f"{name} cannot be decoded ({error}): open its file again, and do not close it before"
        else:
            message = f"{name} is damaged or cut off ({error}): copy it again"
        raise BrokenSample("damaged picture", message) from None
    if data and (why := why_cut(data, image)):
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({why}): copy it again")
    return decoded


def _check_size(width: int, height: int, name: str) -> None:
    """Raises BrokenSample for a picture with too many pixels, or with none."""
    if width * height > MAX_PIXELS:
        millions = f"{width} x {height} = {width * height / 1e6:.0f} million pixels"
        limit = f"at most {MAX_PIXELS // 10**6} million are read, make it smaller"
        raise BrokenSample("too many pixels", f"{name} has {millions}: {limit}")
    if not width * height:
        raise BrokenSample("not a picture", f"{name} has no pixels: it is {width} x {height}")


def _read(source: Any) -> tuple[str, bytes]:
    """The name of a source in messages, and its bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "the picture", bytes(source)
    if isinstance(source, str | os.PathLike):
        return _read_file(os.fsdecode(source))
    if callable(getattr(source, "read", None)):
        return _read_stream(source)
    raise BrokenSample(
        "not a picture",
        f"a picture is a path, bytes, an open file, a PIL image or an array (uint8, [height, width, 3]), and this is "
        f"of type {type(source).__name__}{_inside(source)}",
    )


#: Where the picture is in the values of other libraries: of LAVIS, transformers, datasets, gradio.
KEYS_OF_PICTURES = ("image", "images", "pixel_values", "bytes", "path", "composite")


def _inside(source: Any) -> str:
    """The end of a sentence about what holds a picture and is none."""
    if isinstance(source, Mapping):
        keys = [key for key in KEYS_OF_PICTURES if source.get(key) is not None]
        return f": pass the picture in it, its value of {keys[0]!r}" if keys else ""
    if isinstance(source, list | tuple):
        return ": a prompt is about one picture, so pass a list of pictures, not a list of lists"
    return ""


def _read_file(path: str) -> tuple[str, bytes]:
    name = _name_of(path)
    if not path:
        raise BrokenSample("missing file", "the path of the picture is empty: give the name of its file")
    try:
        if "\0" in path:
            raise FileNotFoundError
        if not os.path.exists(path):
            path = os.path.expanduser(path)  # as `load` does with the path of a model
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            remedy = "is a pipe or a device, not a file: save the picture as a file"
            raise BrokenSample("unreadable file", f"{name} {remedy}")
        return name, Path(path).read_bytes()
    except (FileNotFoundError, UnicodeEncodeError):
        raise BrokenSample("missing file", f"there is no file {name}{_no_path(path)}") from None
    except IsADirectoryError:
        raise BrokenSample("not a picture", f"{name} is a folder, not a picture: name a file in it") from None
    except OSError as error:
        message = f"{name} cannot be read ({error.strerror or error}){_no_path(path)}"
        raise BrokenSample("unreadable file", message) from None


def _name_of(path: str) -> str:
    """A path in a message. What is far longer than a path, such as a picture in base64, is shortened."""
    return repr(path) if len(path) <= LONGEST_NAME else f"{path[:60]!r} … ({len(path):,} characters)"


def _no_path(text: str) -> str:
    """The end of a sentence about a text that is no path of a file here."""
    if text.startswith("data:") or len(text) > LONGEST_NAME:
        return ": if it is a picture in base64, decode it, and give the bytes"
    if text.lower().startswith("file:"):
        return ": give the path alone, without file://"
    return ": an address is not fetched, download it first" if "://" in text else ""


def _read_stream(source: IO[bytes]) -> tuple[str, bytes]:
    name = repr(source.name) if isinstance(getattr(source, "name", None), str) else "the open file"
    remedy = "open it with mode 'rb'"
    try:
        readable = source.readable() if hasattr(source, "readable") else True
        if readable and hasattr(source, "seekable") and source.seekable():  # as Pillow: a file can be opened twice
            source.seek(0)
        data = source.read() if readable and not isinstance(source, io.TextIOBase) else None
    except Exception as error:  # closed, cut off, or of a library that reads from a network
        raise BrokenSample("unreadable file", f"{name} cannot be read ({error}): {remedy}") from None
    if not readable:
        raise BrokenSample("unreadable file", f"{name} was opened for writing: {remedy}")
    if not isinstance(data, bytes | bytearray):
        raise BrokenSample("unreadable file", f"{name} was opened as text: {remedy}")
    return name, bytes(data)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """An array uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4] -> an image."""
    wanted = "a picture as an array is uint8, values 0 to 255, of shape [height, width, 3]"
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        wanted += "; this one has the colors first: array.transpose(1, 2, 0)"
        if not np.issubdtype(array.dtype, np.integer):
            wanted += ", or, if its pixels are normalized, a tensor: torch.from_numpy(array)"
    elif array.ndim == 4:
        wanted += "; these are several pictures: pass them one by one, or as a list"
    if np.ma.is_masked(array):
        raise BrokenSample("not a picture", "this array has masked pixels: array.filled(255) makes them white")
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits:
        remedy = _to_uint8(array) if fits else ""
        raise BrokenSample("not a picture", f"this array is {array.dtype} {list(array.shape)}, and {wanted}{remedy}")
    _check_size(array.shape[1], array.shape[0], name)  # before it is copied
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def _to_uint8(array: np.ndarray) -> str:
    """The end of a sentence about an array of another type: how its values become integers from 0 to 255."""
    if array.dtype == bool:
        return "; of true and false: array.astype('uint8') * 255"
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array) or not array.size:
        return ""
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return "; of values from 0 to 1: (array * 255).round().astype('uint8')"
    if low < 0 and high < 8:
        return "; pixels that are normalized already are passed as a tensor [3, height, width]"
    if array.dtype == np.uint16:
        return "; of 16 bits: (array // 257).astype('uint8')"
    return "; of values from 0 to 255: array.round().astype('uint8')" if low >= 0 and high <= 255 else ""


def _open(data: bytes, name: str, formats: Sequence[str]) -> Image.Image:
    """Read the header only; pixels are decoded after the size has been checked."""
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        what = "is empty, so it is" if not data else "is"
        more = ", and no BMP or TIFF" if tuple(formats) == FORMATS else ""
        message = f"{name} {what} not a PNG, JPEG, WebP or GIF picture{more}{_instead(data, formats)}"
        raise BrokenSample("not a picture", message) from None
    except Image.DecompressionBombError:
        limit = f"at most {MAX_PIXELS // 10**6} million are read, make it smaller"
        raise BrokenSample("too many pixels", f"{name} has far too many pixels: {limit}") from None
    except Exception as error:  # a damaged header: see open_image
        raise BrokenSample("damaged picture", f"{name} is damaged or cut off ({error}): copy it again") from None


def _instead(data: bytes, formats: Sequence[str]) -> str:
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
    if start.startswith((b"/9j/", b"ivborw0kggo", b"r0lgod", b"uklgr", b"data:image/")):
        return ": it is a picture in base64, decode it"
    if start.startswith((b"{", b"[", b"<?xml")):
        return ": it is a text of a program, such as a server's error, download the picture again"
    for mark, what in NO_PICTURES:
        if data.startswith(mark):
            return f": it is {what}"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"avif", b"avis"):
            return ": it is an AVIF picture, convert it to JPEG or PNG"
        if data[8:12] in HEIC_BRANDS:
            return ": it is a HEIC picture, convert it to JPEG or PNG"
        return ": it is a video, save one of its pictures as JPEG or PNG"
    if data.startswith(TIFF_STARTS) and "TIFF" in formats:
        return ": it begins as a TIFF and is cut off or of a rare kind, copy it again or convert it to PNG"
    if not any(data[:512]):
        return ": it has zeros only, copy it again"
    return ": convert it to JPEG or PNG, or copy it again"


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image  # in memory, without rotation or transparency: batches of these are frequent
    image = _upright(image, name)
    if image.mode == "La":  # Pillow converts it to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _brightest(image: Image.Image) -> int:
    """The largest value of any color, from 0 to 255."""
    return max(high for _, high in image.convert("RGB").getextrema())


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The first frame with 8 bits a channel, rotated by its EXIF tag."""
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    sixteen_bits = ";16" in str(getattr(image, "tile", ""))  # of which Pillow keeps the upper 8 of each color
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the image itself is intact
        image = image.copy()
    if image.mode == "F":
        raise BrokenSample("not a picture", f"{name} has floating point pixels, whose range is unknown: use 8 bits")
    if sixteen_bits and not image.mode.startswith("I") and 0 < _brightest(image) < 16:
        bits = "16 bits that are all below 4096, which would be black"
        raise BrokenSample("not a picture", f"{name} has pixels of {bits}: save them with 8 bits, from 0 to 255")
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535 or 0 < values.max() < 4096:  # the last would be black: 12 bits
            bits = f"{32 if image.mode == 'I' else 16} bits from {values.min()} to {values.max()}"
            raise BrokenSample("not a picture", f"{name} has pixels of {bits}: save them with 8 bits, from 0 to 255")
        clear = image.info.get("transparency")
        image = Image.fromarray((values.astype(np.int64) // 257).astype(np.uint8))
        if isinstance(clear, int):  # the one value that is transparent
            image.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
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
    if images is None or isinstance(images, Mapping | set) or not isinstance(images, Iterable):
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


def image_files(folder: Path, leave_out: Callable[[str], None]) -> list[Path]:
    """Every file in a folder and below it whose ending is in SUFFIXES, in order.

    `leave_out` is given one sentence for each image that is not read, and for each folder that cannot be read.
    """
    found = []
    for path in walk_files(folder, lambda error: leave_out(f"{error.filename}: {error.strerror}")):
        if path.suffix.lower() not in (*SUFFIXES, *UNREAD_SUFFIXES):
            continue
        if (why := why_unread(path)) is None:
            found.append(path)
        else:
            leave_out(f"{path.relative_to(folder).as_posix()!r} {why}")
    return sorted(found)


def why_unread(path: Path) -> str | None:
    """Why a file with the ending of an image is not opened, as the rest of a sentence; None for one that may be."""
    if path.suffix.lower() in UNREAD_SUFFIXES:
        return f"has the format {path.suffix[1:].upper()}, which is not read: convert it to JPEG or PNG"
    if not os.path.isfile(path):
        return "is a link to a file that is not there, or is no regular file: remove it, or copy the file again"
    return None


def pictures_in(folder: Path, leave_out: Callable[[str], None] = lambda _: None) -> list[Path]:
    """`image_files` of a folder to search in. Raises ValueError when there is none."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder} to search in.")
    left_out: list[str] = []
    found = image_files(folder, left_out.append)
    if not found:
        first = left_out[0] if left_out else f"nothing in it ends in {', '.join(SUFFIXES)}"
        raise ValueError(f"{folder} holds no picture that can be read: {first}.")
    for sentence in left_out:
        leave_out(sentence)
    return found
