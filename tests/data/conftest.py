"""Fixtures of the readers' tests."""

import pytest
from PIL import Image

from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.packing import pack
from tests.tiny import encoded


@pytest.fixture
def six_pictures(tmp_path):
    """A folder of six pictures with a caption each."""
    (tmp_path / "own").mkdir()
    for number in range(6):
        picture = Image.new("RGB", (8, 8), (number, 0, 0))
        picture.putpixel((0, 0), (255, 255, 255))  # one color everywhere is said in a note
        picture.save(tmp_path / "own" / f"{number}.png")
        (tmp_path / "own" / f"{number}.txt").write_text(f"picture {number}")
    return tmp_path / "own"


@pytest.fixture
def ten_pictures(tmp_path):
    """A folder of ten pictures with two captions each; two more are broken."""
    folder = tmp_path / "ten"
    folder.mkdir()
    for number in range(10):
        (folder / f"p{number}.png").write_bytes(encoded(number))
        (folder / f"p{number}.txt").write_text(f"picture {number}\nnumber {number}\n")
    (folder / "q.png").write_bytes(encoded(1)[:40])
    (folder / "q.txt").write_text("cut off")
    (folder / "r.png").write_bytes(encoded(1))
    return folder


@pytest.fixture
def packed(ten_pictures, tmp_path):
    """Its shards, four pictures each."""
    pack(ImageFolder(ten_pictures), tmp_path / "shards", per_shard=4)
    return tmp_path / "shards"
