"""Damage that a decoder passes over is refused, and no picture that an encoder has written."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from blip2_lab.common.damage import why_damaged
from blip2_lab.common.images import BrokenSample, open_image

NOISE = Image.fromarray(
    np.kron(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
)


def encoded(image: Image.Image, image_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def with_zeros(data: bytes, start: float, count: int | None = None) -> bytes:
    """A file of which bytes were not copied, from a place between 0 (begin) and 1 (end) on."""
    first = int(start * len(data))
    last = len(data) if count is None else first + count
    return data[:first] + bytes(last - first) + data[last:]


def test_a_png_whose_pixels_were_lost_in_a_copy_is_refused():
    """Pillow decodes what an interrupted download has left of the pixels, and compares no checksum."""
    with pytest.raises(BrokenSample, match="damaged or cut off .*checksum.*copy it again"):
        open_image(with_zeros(encoded(NOISE, "PNG"), 0.5))


@pytest.mark.parametrize("start", [0.5, 0.7, 0.95])
def test_a_jpeg_that_ends_in_zeros_is_refused(start):
    for progressive in (False, True):
        damaged = with_zeros(encoded(NOISE, "JPEG", progressive=progressive), start)
        with pytest.raises(BrokenSample, match="damaged or cut off .(its end is missing|.*interrupted|.*with zeros)"):
            open_image(damaged)


def test_a_jpeg_with_zeros_within_is_refused():
    whole = encoded(NOISE, "JPEG", quality=95)
    assert Image.open(io.BytesIO(with_zeros(whole, 0.5, 100))).load()  # Pillow reads it
    assert why_damaged(with_zeros(whole, 0.5, 100), "JPEG") == "a part of its pixels is overwritten with zeros"


def test_a_jpeg_with_something_else_within_is_refused():
    whole = encoded(NOISE, "JPEG", quality=95)
    half = len(whole) // 2
    other = np.random.default_rng(1).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    assert why_damaged(whole[:half] + other + whole[half:], "JPEG") == "its pixels are interrupted"


def test_a_jpeg_without_one_of_its_parts_is_refused():
    whole = encoded(NOISE, "JPEG", restart_marker_rows=1)
    second, third = (whole.index(mark) for mark in (b"\xff\xd1", b"\xff\xd2"))
    assert why_damaged(whole, "JPEG") is None
    assert why_damaged(whole[:second] + whole[third:], "JPEG") == "a part of its pixels is missing"


def test_no_whole_jpeg_is_refused():
    """Plain areas and patterns are zeros, where an encoder makes its own code."""
    rows = np.indices((512, 512))
    pictures = [
        NOISE,
        Image.new("RGB", (1024, 1024), "white"),
        Image.fromarray((rows.sum(0) // 8 % 2 * 255).astype(np.uint8)),
        Image.fromarray((rows[0] // 2).astype(np.uint8)).convert("CMYK"),
    ]
    zeros = 0
    for picture, quality, progressive, rows in itertools.product(pictures, (5, 75, 100), (False, True), (0, 1)):
        options = dict(quality=quality, optimize=True, progressive=progressive, restart_marker_rows=rows)
        data = encoded(picture, "JPEG", **options)
        assert why_damaged(data, "JPEG") is None, options
        zeros += bytes(64) in data
    assert zeros > 5


def test_what_follows_the_end_of_a_jpeg_is_not_its_damage():
    whole = encoded(NOISE, "JPEG")
    for behind in (bytes(5000), b"a note", whole):
        assert why_damaged(whole + behind, "JPEG") is None


def test_zeros_that_fill_up_the_pixels_of_a_whole_jpeg_are_no_damage():
    """Some cameras write them before its end, and some write no end."""
    whole = encoded(NOISE, "JPEG")
    assert why_damaged(whole[:-2] + bytes(500) + whole[-2:], "JPEG") is None
    assert why_damaged(whole[:-2] + bytes(500), "JPEG") is None


def cut_and_closed(data: bytes, share: float) -> bytes:
    """A JPEG without the last part of its pixels, and with an end marker: what a careless repair makes."""
    first = data.index(b"\xff\xda")
    data = data[: first + int(share * (len(data) - 2 - first))]
    return data.rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_was_cut_and_closed_is_refused(share, mode):
    """Pillow decodes it without a word, with a gray rest."""
    for options in (dict(quality=90), dict(quality=90, subsampling=2), dict(restart_marker_rows=1)):
        damaged = cut_and_closed(encoded(NOISE.convert(mode), "JPEG", **options), share)
        assert Image.open(io.BytesIO(damaged)).load()
        with pytest.raises(BrokenSample, match="damaged or cut off .its pixels end too early.: copy it again"):
            open_image(damaged)


def test_a_progressive_jpeg_without_its_last_scans_is_refused():
    whole = encoded(NOISE, "JPEG", progressive=True)
    scans = [place for place in range(len(whole) - 1) if whole[place : place + 2] == b"\xff\xda"]
    tables = [whole.rindex(b"\xff\xc4", 0, place) for place in scans]
    assert len(scans) > 4
    for end in tables[1:]:
        assert why_damaged(whole[:end] + b"\xff\xd9", "JPEG") == "some of its scans are missing"


def test_a_gray_corner_of_a_whole_jpeg_is_no_damage():
    gray = NOISE.copy()
    gray.paste((128, 128, 128), (40, 30, *NOISE.size))
    for picture, odd, options in itertools.product(
        (gray, gray.convert("L"), gray.convert("CMYK"), Image.new("RGB", NOISE.size, (128, 128, 128))),
        (0, 5),
        (dict(quality=30), dict(quality=95, subsampling=0), dict(restart_marker_rows=1), dict(progressive=True)),
    ):
        size = picture.width - odd, picture.height - odd
        assert open_image(encoded(picture.crop((0, 0, *size)), "JPEG", **options)).size == size
