"""What the tests of the annotation files share: a JSON file, a picture, the pictures of COCO."""

import json
from pathlib import Path

import pytest
from PIL import Image


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def picture(path: Path, size=(40, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


COCO_INFO = {"description": "COCO 2014 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2014}


COCO_IMAGES = [
    {
        "license": 5,
        "file_name": f"COCO_train2014_{number:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2014/COCO_train2014_{number:012d}.jpg",
        "height": 20,
        "width": 40,
        "date_captured": "2013-11-14 16:28:13",
        "flickr_url": "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg",
        "id": number,
    }
    for number in (57870, 384029, 222016)
]


@pytest.fixture
def coco_pictures(tmp_path) -> Path:
    for entry in COCO_IMAGES[:2]:
        picture(tmp_path / "train2014" / entry["file_name"])
    return tmp_path / "train2014"


@pytest.fixture
def two_pictures(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def causes(source) -> list[str]:
    return [one.cause for one in source.left_out]
