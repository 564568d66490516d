"""Opening images from anything that holds one, and listing a folder. Formats and damage: data/test_examples.py."""

import io
import os
import struct
import zlib
from collections import UserDict

import numpy as np
import pytest
from PIL import Image

from blip2_lab.common.images import (
    BrokenSample,
    frame_count,
    image_files,
    image_list,
    is_one_image,
    open_image,
    walk_files,
)

FRAME = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_an_array_is_opened_as_it_is():
    assert np.array_equal(np.asarray(open_image(FRAME)), FRAME)
    assert np.array_equal(np.asarray(open_image(FRAME[:, ::-1])), FRAME[:, ::-1])  # a view
    gray = open_image(FRAME[:, :, 0])
    assert np.array_equal(np.asarray(gray)[:, :, 2], FRAME[:, :, 0])
    assert np.array_equal(np.asarray(open_image(FRAME[:, :, :1])), np.asarray(gray))
    clear = np.concatenate([FRAME, np.zeros((5, 7, 1), np.uint8)], axis=2)
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (FRAME / 255, "this array is float64 \\[5, 7, 3\\], and a picture as an array is uint8"),
        (FRAME / 255, "from 0 to 1: \\(array \\* 255\\).round"),
        (FRAME.astype(np.uint16) * 257, "uint16 .* of 16 bits: \\(array // 257\\).astype\\('uint8'\\)"),
        (FRAME.astype(np.int64), "int64 .* from 0 to 255: array.round\\(\\).astype\\('uint8'\\)"),
        (FRAME.astype(np.float32), "from 0 to 255: array.round"),
        (FRAME.astype(np.float32) / 100 - 1.2, "normalized already are passed as a tensor"),
        (FRAME > 100, "bool .* array.astype\\('uint8'\\) \\* 255"),
        (FRAME.transpose(2, 0, 1), "colors first: array.transpose\\(1, 2, 0\\)$"),
        (FRAME.transpose(2, 0, 1) / 100 - 1.2, "colors first: .* normalized, a tensor: torch.from_numpy"),
        (FRAME[None], "several pictures"),
        (FRAME[:, :, :2], "\\[5, 7, 2\\]"),
        (FRAME[:0], "has no pixels"),
        (np.broadcast_to(np.uint8(0), (60_000, 60_000, 3)), "3600 million pixels"),  # of a copy of 11 GB
        (np.array(["a.png"]), "this array is <U5"),
        (np.ma.masked_array(FRAME, mask=FRAME > 100), "masked pixels: array.filled"),
    ],
)
def test_arrays_of_another_form_are_refused(array, says):
    with pytest.raises(BrokenSample, match=says):
        open_image(array)


@pytest.mark.parametrize(
    ("holder", "says"),
    [
        ({"image": FRAME, "prompt": "a"}, "of type dict: pass the picture in it, its value of 'image'"),  # LAVIS
        (UserDict(pixel_values=FRAME), "of type UserDict: .* 'pixel_values'"),  # transformers' BatchFeature is one
        ({"bytes": b"", "path": None}, "'bytes'"),  # a row of datasets
        ({"background": FRAME, "composite": FRAME}, "'composite'"),  # gradio's ImageEditor
        ({"a": 1}, "of type dict$"),
        ([FRAME, FRAME], "a prompt is about one picture"),
    ],
)
def test_what_holds_a_picture_is_told_where_the_picture_is(holder, says):
    with pytest.raises(BrokenSample, match=says):
        open_image(holder)
    with pytest.raises(BrokenSample, match=says):
        open_image(image_list([holder] if isinstance(holder, list) else holder)[0])


def test_open_files_can_be_read_twice(tmp_path):
    picture = Image.fromarray(FRAME)
    picture.save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert open_image(file).tobytes() == open_image(file).tobytes() == picture.tobytes()
    with pytest.raises(BrokenSample, match="a.png' cannot be read .*closed"):
        open_image(file)
    for encoding in ("latin-1", "utf-8"):  # a PNG is no UTF-8
        with (tmp_path / "a.png").open(encoding=encoding) as file, pytest.raises(BrokenSample, match="opened as text"):
            open_image(file)
    with (tmp_path / "b").open("wb") as file, pytest.raises(BrokenSample, match="opened for writing: .*mode 'rb'"):
        open_image(file)
    assert open_image(memoryview(png(picture))).size == (7, 5)


def test_anything_with_read_is_an_open_file():
    class Reader:
        def read(self):
            return png(Image.fromarray(FRAME))

    class Lost:
        def read(self):
            raise RuntimeError("the connection is gone")

    assert open_image(Reader()).size == (7, 5)
    with pytest.raises(BrokenSample, match="cannot be read .the connection is gone"):
        open_image(Lost())


def test_paths_as_bytes_and_of_the_home_folder(tmp_path, monkeypatch):
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    class Bytes(os.PathLike):
        def __fspath__(self):
            return os.fsencode(tmp_path / "a.png")

    assert open_image("~/a.png").size == open_image(Bytes()).size == (7, 5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file:///a.png", "without file://"),
        ("FILE:///a.png", "without file://"),
        ("data:image/png;base64,iVBO", "in base64, decode it, and give the bytes"),
        ("x" * 400, r"^there is no file 'x{60}' … \(400 characters\): if it is a picture in base64|too long"),
        ("x" * 5000, r"^'x{60}' … \(5,000 characters\) cannot be read .*base64, decode it"),
    ],
)
def test_texts_that_are_no_paths_are_told_with_what_to_do(text, says):
    with pytest.raises(BrokenSample, match=says):
        open_image(text)


def test_a_closed_picture_is_to_be_opened_again(tmp_path):
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pass
    with pytest.raises(BrokenSample, match="open its file again, and do not close it before"):
        open_image(picture)


def test_premultiplied_transparency_is_white():
    for mode in ("LA", "RGBA"):
        clear = Image.new(mode, (2, 2)).convert({"LA": "La", "RGBA": "RGBa"}[mode])
        assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("nothing", [None, 5, {"path": "a.png"}, ["a.png"], object()])
def test_what_is_no_picture(nothing):
    with pytest.raises(BrokenSample, match="a picture is a path, bytes, an open file, a PIL image or an array"):
        open_image(nothing)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.png", "\ud800.png", "https://example.org/a.png"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(BrokenSample, match="there is no file|cannot be read"):
        open_image(name)


def test_pixels_of_an_unknown_range_are_refused():
    for mode, values in (("F", [[0.5]]), ("I", [[200]]), ("I", [[70_000]]), ("I", [[-1]])):
        image = Image.fromarray(np.array(values, np.float32 if mode == "F" else np.int32))
        assert image.mode == mode
        with pytest.raises(BrokenSample, match="floating point|32 bits"):
            open_image(image)
    assert open_image(Image.fromarray(np.array([[128 * 257]], np.int32))).getpixel((0, 0)) == (128, 128, 128)


def test_jpegs_of_phones_with_two_pictures():
    """MPO: a JPEG with a second picture behind it."""
    out = io.BytesIO()
    first = Image.new("RGB", (8, 8), "red")
    first.save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    red, _, blue = open_image(out.getvalue()).getpixel((4, 4))
    assert red > 200 and blue < 50


def test_one_image_or_several():
    for one in ("a.png", b"x", FRAME, FRAME[:, :, 0], Image.fromarray(FRAME), io.BytesIO()):
        assert is_one_image(one) and len(image_list(one)) == 1
    assert image_list(["a.png", "b.png"]) == ["a.png", "b.png"] and len(image_list(np.stack([FRAME] * 3))) == 3
    assert image_list(name for name in ("a.png",)) == ["a.png"]
    with pytest.raises(ValueError, match="list of images is empty"):
        image_list([])
    for nothing in (None, {"image": "a.png"}, 5):
        with pytest.raises(BrokenSample, match="of type"):
            image_list(nothing)


def test_the_images_of_a_folder_and_of_linked_ones(tmp_path):
    for name in (
        "own/._a.PNG",
        "own/.trash/x.png",
        "own/a.PNG",
        "own/b.jfif",
        "own/c.tif",
        "own/d.bmp",
        "own/notes.md",
        "own/deep/e.jpeg",
        "far/f.webp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "own" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "own")  # a circle
    (tmp_path / "own" / "g.png").symlink_to("nothing.png")
    (tmp_path / "own" / "h.heic").write_bytes(b"x")
    left_out = []
    found = [path.relative_to(tmp_path / "own").as_posix() for path in image_files(tmp_path / "own", left_out.append)]
    assert found == ["a.PNG", "b.jfif", "c.tif", "d.bmp", "deep/e.jpeg", "far/f.webp"]
    assert [sentence[:8] for sentence in left_out] == ["'g.png' ", "'h.heic'"]
    assert "a link to a file that is not there" in left_out[0] and "format HEIC" in left_out[1]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    told = []
    assert list(walk_files(tmp_path, told.append)) == [] and told[0].filename == str(tmp_path)
    with pytest.raises(PermissionError):
        list(walk_files(tmp_path))


@pytest.mark.parametrize("highest", [1, 255, 4095])
def test_pixels_of_16_bits_that_would_be_black_are_refused(highest):
    gray = np.linspace(0, highest, 12).reshape(3, 4).astype(np.uint16)
    with pytest.raises(BrokenSample, match="pixels of 16 bits from 0 to .*save them with 8 bits"):
        open_image(png(Image.fromarray(gray)))
    assert open_image(png(Image.fromarray(np.zeros((3, 4), np.uint16)))).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html>404", "a web page, download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing, convert"),
        (b"\0\0\0\x18ftypheic", "a HEIC picture, convert"),
        (b"\0\0\0\x18ftypmp42", "a video, save one of its pictures"),
        (bytes(600), "zeros only, copy it again"),
        (b"/9j/4AAQSkZJRgABAQ", "a picture in base64, decode it"),
        (b'{"error": "not found"}', "a text of a program, .* download the picture again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a text of a program"),
        (b"%PDF-1.4", "a PDF file, save its picture"),
        (b"PK\x03\x04rest", "a zip archive, unpack it"),
        (b"\x93NUMPY\x01\x00", "load it with numpy.load"),
        (b"II*\0\xff\xff\xff\0", "begins as a TIFF and is cut off"),
        (b"P6 1 1 255 abc", "convert it to JPEG or PNG"),
    ],
)
def test_what_is_no_picture_is_told_with_what_to_do(content, says):
    with pytest.raises(BrokenSample, match=f"'x.png' is not a PNG.*{says}"):
        open_image(content, name="'x.png'")


def png_of_16_bits(values: np.ndarray) -> bytes:
    """values [H,W,3] or [H,W,4] -> a PNG, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    pixels = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*one) for one in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    )


@pytest.mark.parametrize("channels", [3, 4])
def test_colors_of_12_bits_in_16_that_would_be_black_are_refused(channels):
    values = np.full((2, 3, channels), 4095, np.uint16)
    values[..., 3:] = 65535
    with pytest.raises(BrokenSample, match="16 bits that are all below 4096, .*save them with 8 bits"):
        open_image(png_of_16_bits(values))
    values[0, 0, 0] = 32896
    assert open_image(png_of_16_bits(values)).getpixel((0, 0)) == (128, 15, 15)
    assert open_image(png_of_16_bits(np.zeros((2, 3, 3), np.uint16))).getpixel((0, 0)) == (0, 0, 0)
    dark = png(Image.new("RGB", (2, 2), (9, 9, 9)))  # 8 bits
    assert open_image(dark).getpixel((0, 0)) == (9, 9, 9)


def test_transparency_of_16_bits_is_white():
    gray = Image.fromarray(np.array([[0, 65535], [32896, 0]], np.uint16))
    out = io.BytesIO()
    gray.save(out, "PNG", transparency=0)
    pixels = np.asarray(open_image(out.getvalue()))[:, :, 0]
    assert pixels.tolist() == [[255, 255], [128, 255]]


def test_the_frames_of_an_animation():
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        out = io.BytesIO()
        frames[0].save(out, format, save_all=True, append_images=frames[1:])
        assert frame_count(out.getvalue()) == 2, format
    assert frame_count(png(frames[0])) == frame_count(frames[0]) == 1
