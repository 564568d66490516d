"""Regions of Visual Genome and references of RefCOCO: boxes, splits, pickles."""

import json
import pickle
from collections import Counter
from pathlib import Path

import pytest

from blip2_lab.data.annotations import refcoco, visual_genome
from tests.data.annotations.conftest import COCO_IMAGES, COCO_INFO, causes, picture, write


def test_visual_genome_regions_are_captions_with_boxes(tmp_path):
    image_data = [
        {"width": 800, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "height": 600, "image_id": 1},
        {"width": 400, "url": "https://cs.stanford.edu/people/rak248/VG_100K/2.jpg", "height": 300, "image_id": 2},
    ]
    image_data = [entry | {"coco_id": None, "flickr_id": None} for entry in image_data]
    clock = dict(region_id=1382, width=80, height=120, image_id=1, phrase="the clock is green", y=60, x=400)
    regions = [
        {"id": 1, "regions": [clock, clock | {"region_id": 1383, "phrase": "a sidewalk", "x": -8, "width": 900}]},
        {"id": 2, "regions": [clock | {"image_id": 2, "phrase": ""}]},
    ]
    paths = write(tmp_path / "region_descriptions.json", regions), write(tmp_path / "image_data.json", image_data)
    picture(tmp_path / "VG_100K_2" / "1.jpg")
    source = visual_genome(*paths, tmp_path)
    (example,) = source
    assert example.captions == ("the clock is green", "a sidewalk")
    assert example.boxes[0] == ("the clock is green", (0.5, 0.1, 0.6, 0.3))
    assert example.boxes[1][1] == (0.0, 0.1, 1.0, 0.3)  # cut at the edges
    assert source.skipped == {"empty caption": 1, "picture without a text": 1}
    with pytest.raises(ValueError, match="image data"):
        visual_genome(paths[0], paths[0], tmp_path)


def test_boxes_that_are_none(tmp_path, two_pictures):
    image_data = [{"image_id": 1, "url": "x/images/a.png", "width": 0, "height": 3}]
    regions = [{"id": 1, "regions": [{"phrase": "x", "x": 1, "y": 1, "width": 2, "height": float("nan")}]}, {"id": 2}]
    paths = write(tmp_path / "r.json", regions), write(tmp_path / "i.json", image_data)
    source = visual_genome(*paths, tmp_path)
    assert source.records[0].captions == ("x",) and source.records[0].boxes == ()
    assert sorted(causes(source)) == ["incomplete entry", "region without a box"]


@pytest.mark.parametrize("changed", [{"width": -2}, {"height": 0}, {"x": 50}, {"x": -9}, {"x": "1"}, {"x": 10**400}])
def test_a_box_of_which_nothing_is_in_the_picture_is_named(tmp_path, changed):
    picture(tmp_path / "VG_100K" / "1.jpg")
    image_data = [{"image_id": 1, "url": "https://x/VG_100K/1.jpg", "width": 40, "height": 20}]
    region = {"phrase": "a boat", "image_id": 1, "x": 1, "y": 1, "width": 2, "height": 2} | changed
    regions = write(tmp_path / "r.json", [{"id": 1, "regions": [region]}])
    source = visual_genome(regions, write(tmp_path / "i.json", image_data), tmp_path)
    assert source.records[0].captions == ("a boat",) and source.records[0].boxes == ()
    assert source.skipped == {"region without a box": 1}


def test_a_box_has_the_words_of_its_caption(tmp_path):
    picture(tmp_path / "VG_100K" / "1.jpg")
    image_data = write(tmp_path / "i.json", [{"image_id": 1, "url": "x/VG_100K/1.jpg", "width": 40, "height": 20}])
    place = {"x": 0, "y": 0, "width": 20, "height": 20}
    phrases = [{"phrase": phrase} | place for phrase in (" a  boat ", ["a ship", "a sail"])]
    source = visual_genome(write(tmp_path / "r.json", [{"id": 1, "regions": phrases}]), image_data, tmp_path)
    assert source.records[0].captions == ("a boat", "a ship", "a sail")
    assert source.records[0].boxes == tuple((text, (0, 0, 0.5, 1)) for text in source.records[0].captions)


def references(split: str = "train", **changes) -> list[dict]:
    sentences = [
        {"tokens": ["the", "man"], "raw": "The man in yellow coat", "sent_id": 8, "sent": "the man in yellow coat"},
        {"tokens": ["skier"], "raw": "Skier.", "sent_id": 9, "sent": "skier"},
    ]
    entry = {
        "image_id": 57870,
        "split": split,
        "sentences": sentences,
        "file_name": "COCO_train2014_000000057870_491042.jpg",
        "category_id": 1,
        "ann_id": 491042,
        "sent_ids": [8, 9],
        "ref_id": 0,
    }
    return [entry | changes]


@pytest.fixture
def instances(tmp_path) -> Path:
    thing = {"segmentation": [[1, 2, 3, 4]], "area": 9, "iscrowd": 0, "image_id": 57870, "bbox": [10, 5, 20, 10]}
    content = {"info": COCO_INFO, "images": COCO_IMAGES, "licenses": [], "categories": [{"id": 1, "name": "person"}]}
    return write(tmp_path / "instances.json", content | {"annotations": [thing | {"id": 491042, "category_id": 1}]})


@pytest.mark.parametrize("protocol", [0, 2])  # what Python 2 writes
def test_refcocog(tmp_path, coco_pictures, instances, protocol):
    path = tmp_path / "refs(umd).p"
    path.write_bytes(pickle.dumps(references() + references(ann_id=5) + references("val"), protocol=protocol))
    source = refcoco(path, instances, coco_pictures)
    (example,) = source
    assert example.captions == ("The man in yellow coat", "Skier.")
    assert example.boxes[0] == ("The man in yellow coat", (0.25, 0.25, 0.75, 0.75))
    assert source.skipped == {"reference without a box": 1}
    with pytest.raises(ValueError, match="no split 'test': it has train, val"):
        refcoco(path, instances, coco_pictures, "test")


def test_strings_pickled_by_python_2(tmp_path, coco_pictures, instances):
    path = tmp_path / "refs(umd).p"
    text = pickle.dumps(references(), protocol=0)
    # Python 2's str: opcode S and a quoted literal, where Python 3 writes V and unicode
    old = b"\n".join(b"S'" + line[1:] + b"'" if line.startswith(b"V") else line for line in text.split(b"\n"))
    assert b"S'train'" in old
    path.write_bytes(old)
    assert len(refcoco(path, instances, coco_pictures)) == 1


class Evil:
    def __reduce__(self):
        return Path.touch, (Path(Evil.target),)


def test_a_pickle_with_code_is_refused(tmp_path, coco_pictures, instances):
    Evil.target = str(tmp_path / "ran")
    path = tmp_path / "refs(umd).p"
    path.write_bytes(pickle.dumps([references()[0] | {"sentences": Evil()}]))
    with pytest.raises(ValueError, match="references are plain data"):
        refcoco(path, instances, coco_pictures)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the same file would have run it
    assert (tmp_path / "ran").exists()
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a pickle of RefCOCO"):
        refcoco(path, instances, coco_pictures)


def test_references_of_other_forms(tmp_path):
    """Sentences as texts; a box of another picture is none of this one."""
    picture(tmp_path / "1.jpg")
    about = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 20}],
        "annotations": [{"id": n, "image_id": image, "bbox": [0, 0, 20, 20]} for n, image in ((3, 1), (4, 2))],
    }
    refs = [{"image_id": 1, "ann_id": n, "split": "train", "sentences": ["the left one", {"x": 1}]} for n in (3, 4)]
    (tmp_path / "r.p").write_bytes(pickle.dumps(refs))
    source = refcoco(tmp_path / "r.p", write(tmp_path / "i.json", about), tmp_path)
    assert source.records[0].boxes == (("the left one", (0, 0, 0.5, 1)),)
    assert [one.cause for one in source.left_out] == ["caption is no text", "reference without a box"]


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b'[{"image_id": 1}]', "it looks like JSON, write its value with pickle.dump"),
        (b"", "download it again"),
        (b"<!DOCTYPE html>", "download it again"),
        (pickle.dumps(references())[:-9], "write it again .* or copy it again"),
        (pickle.dumps([references()[0] | {"sentences": [b"a net"]}], protocol=2), "write it again with texts"),
    ],
)
def test_what_is_no_pickle_of_references_has_a_remedy(tmp_path, coco_pictures, instances, content, remedy):
    (tmp_path / "r.p").write_bytes(content)
    with pytest.raises(ValueError, match=f"r.p is not a pickle of RefCOCO's references: .*: {remedy}"):
        refcoco(tmp_path / "r.p", instances, coco_pictures)


def test_what_is_listed_twice_with_something_else_is_named_and_the_first_one_counts(tmp_path, coco_pictures, instances):
    content = json.loads(instances.read_text())
    box, image = content["annotations"][0], content["images"][0]
    content["annotations"] += [box, box | {"bbox": [0, 0, 1, 1]}]
    content["images"].append(image | {"width": 10 * image["width"]})
    once, twice = instances, tmp_path / "twice.json"
    twice.write_text(json.dumps(content))
    (tmp_path / "r.p").write_bytes(pickle.dumps(references()))
    first, second = (refcoco(tmp_path / "r.p", file, coco_pictures) for file in (once, twice))
    assert second.records[0].boxes == first.records[0].boxes
    assert Counter(second.skipped) == Counter(first.skipped) + Counter({"listed twice": 2})
