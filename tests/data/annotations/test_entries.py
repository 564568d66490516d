"""What all formats share: every entry is checked, and one that cannot be used is named."""

import json

import pytest

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.annotations import coco_captions, karpathy, vqa
from blip2_lab.data.packing import pack
from tests.data.annotations.conftest import COCO_IMAGES, picture, write


def test_files_of_another_format_raise_with_their_name(tmp_path, coco_pictures):
    with pytest.raises(ValueError, match="there is no file .*none.json"):
        coco_captions(tmp_path / "none.json", coco_pictures)
    (tmp_path / "text.json").write_text("{half")
    with pytest.raises(ValueError, match="is not JSON"):
        coco_captions(tmp_path / "text.json", coco_pictures)
    with pytest.raises(ValueError, match="not COCO's captions: it has no list 'images'"):
        coco_captions(write(tmp_path / "a.json", {"annotations": []}), coco_pictures)
    instances = {"images": COCO_IMAGES, "annotations": [{"image_id": 57870, "bbox": [1, 2, 3, 4]}]}
    with pytest.raises(ValueError, match="entries of its list 'annotations' have no 'caption'"):
        coco_captions(write(tmp_path / "instances.json", instances), coco_pictures)
    with pytest.raises(ValueError, match="no folder of pictures"):
        coco_captions(write(tmp_path / "b.json", {"images": [], "annotations": []}), tmp_path / "nowhere")


def test_no_file_name_leads_out_of_the_folder(tmp_path, coco_pictures):
    images = [COCO_IMAGES[0] | {"file_name": "../secret.jpg"}, COCO_IMAGES[1] | {"file_name": "/etc/secret.jpg"}]
    texts = [{"image_id": entry["id"], "id": 1, "caption": "a secret"} for entry in images]
    source = coco_captions(write(tmp_path / "c.json", {"images": images, "annotations": texts}), coco_pictures)
    assert len(source) == 0 and source.skipped["file outside the folder"] == 2


def test_numbers_may_be_written_as_text(tmp_path, two_pictures):
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": "8", "file_name": "b.png"}],
        "annotations": [{"image_id": "7", "caption": "x"}, {"image_id": 8.0, "caption": "y"}],
    }
    source = coco_captions(write(tmp_path / "c.json", content), two_pictures)
    assert [(record.id, record.captions) for record in source.records] == [("7", ("x",)), ("8", ("y",))]


def test_every_entry_is_checked_and_named(tmp_path, two_pictures):
    content = {
        "images": [
            {"id": 1, "file_name": "a.png"},
            {"id": 1, "file_name": "b.png"},
            {"id": 2},
            5,
            {"id": [3], "file_name": "a.png"},
            {"id": 4, "file_name": "A.PNG"},
            {"id": 5, "file_name": "a.PNG"},  # the same picture as 1
        ],
        "annotations": [
            {"image_id": 1, "caption": "x"},
            {"image_id": 5, "caption": "y"},
            {"image_id": 1},
            {"image_id": 1, "caption": 5},
            {"image_id": 9, "caption": "z"},
        ],
    }
    source = coco_captions(write(tmp_path / "c.json", content), two_pictures)
    assert [record.captions for record in source.records] == [("x", "y")]
    assert source.skipped == {
        "incomplete entry": 4,
        "picture listed twice": 1,
        "caption is no text": 1,
        "text about an unlisted picture": 1,
        "picture without a text": 1,
    }
    assert any(
        "c.json, entry 2 of 'images': image 1 is listed with two files" in one.message for one in source.left_out
    )


def test_a_byte_order_mark_and_a_key_twice(tmp_path, two_pictures):
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "x"}]}
    (tmp_path / "c.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert len(coco_captions(tmp_path / "c.json", two_pictures)) == 1
    (tmp_path / "c.json").write_text(json.dumps(content).replace('"caption": "x"', '"caption": "x", "caption": "y"'))
    with pytest.raises(ValueError, match="c.json is not JSON: an object has the key 'caption' twice"):
        coco_captions(tmp_path / "c.json", two_pictures)


def test_answers_that_are_no_numbers_and_entries_without_names_are_left_out(tmp_path):
    picture(tmp_path / "a.png")
    asked = write(tmp_path / "q.json", {"questions": [{"image_id": "a.png", "question": "q?", "question_id": 1}]})
    answers = [{"answer": "x"}, {"answer": float("inf")}, {"answer": 10**400}]
    given = write(tmp_path / "a.json", {"annotations": [{"question_id": 1, "answers": answers}]})
    source = vqa(asked, tmp_path, given)
    assert source.records[0].questions[0].answers == ("x",) and source.skipped == {"answer is no text": 2}
    splits = [{"filename": "a.png", "split": split, "sentences": ["x"]} for split in ("train", ["train"])]
    source = karpathy(write(tmp_path / "k.json", {"images": splits}), tmp_path)
    assert len(source) == 1 and "its 'split' is ['train']" in source.left_out[0].message


def test_a_missing_picture_is_named_with_its_entry_and_what_is_near(tmp_path, two_pictures):
    """`images` is often a folder too high: the pictures are in a folder of the split."""
    picture(two_pictures / "train2017" / "c.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "c.png"}]
    texts = [{"image_id": number, "caption": "x"} for number in (1, 2)]
    source = coco_captions(write(tmp_path / "c.json", {"images": images, "annotations": texts}), two_pictures)
    says = "c.json, entry 2 of 'images': there is no file .*; did you mean 'train2017/c.png'"
    with pytest.raises(BrokenSample, match=says) as broken:
        source[1]
    assert broken.value.cause == "missing file" and source[0].captions == ("x",)
    left_out = []
    pack(source, tmp_path / "shards", say=left_out.append)
    assert "did you mean 'train2017/c.png'" in left_out[0].message
