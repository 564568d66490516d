"""Captions in the published formats: COCO, NoCaps, Karpathy, Flickr30k, BLIP."""

import json

import pytest

from blip2_lab.data.annotations import blip, coco_captions, flickr30k, karpathy, nocaps
from blip2_lab.data.examples import AskedQuestion
from tests.data.annotations.conftest import COCO_IMAGES, COCO_INFO, causes, picture, write


def test_coco_captions(tmp_path, coco_pictures):
    captions = [
        {"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables and chairs."},
        {"image_id": 384029, "id": 129, "caption": "A man preparing desserts\nin a kitchen. "},
        {"image_id": 57870, "id": 787981, "caption": "A long restaurant table with rattan rounded back chairs."},
        {"image_id": 384029, "id": 130, "caption": " "},
        {"image_id": 1, "id": 131, "caption": "nobody knows this picture"},
    ]
    content = {"info": COCO_INFO, "images": COCO_IMAGES, "licenses": [], "annotations": captions}
    source = coco_captions(write(tmp_path / "captions_train2014.json", content), coco_pictures)
    assert [record.id for record in source.records] == ["57870", "384029"]
    assert source[0].captions == (captions[0]["caption"], captions[2]["caption"]) and source[0].image.size == (40, 20)
    assert source[1].captions == ("A man preparing desserts in a kitchen.",)
    assert source.skipped == {"empty caption": 1, "text about an unlisted picture": 1, "picture without a text": 1}


def karpathy_entry(number: int, split: str, **more) -> dict:
    raw = [f"A sentence about {number}.", f"Another one, number {number}!"]
    sentences = [
        {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": 5 * number + k}
        for k, text in enumerate(raw)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    return {"sentids": ids, "imgid": number, "sentences": sentences, "split": split, **more}


def test_karpathys_coco_trains_on_restval_too(tmp_path):
    splits = {0: ("test", "val2014"), 1: ("restval", "val2014"), 2: ("train", "train2014"), 3: ("val", "val2014")}
    entries = [
        karpathy_entry(n, split, filepath=folder, filename=f"COCO_{folder}_{n:012d}.jpg", cocoid=391895 + n)
        for n, (split, folder) in splits.items()
    ]
    for entry in entries:
        picture(tmp_path / entry["filepath"] / entry["filename"])
    path = write(tmp_path / "dataset_coco.json", {"images": entries, "dataset": "coco"})
    train = karpathy(path, tmp_path)
    assert [record.id for record in train.records] == ["391896", "391897"]
    assert train[0].captions == ("A sentence about 1.", "Another one, number 1!")
    assert [record.id for record in karpathy(path, tmp_path, "test").records] == ["391895"]
    assert len(karpathy(path, tmp_path, "restval")) == 1
    with pytest.raises(ValueError, match="no split 'valid': it has restval, test, train, val"):
        karpathy(path, tmp_path, "valid")


def test_karpathys_flickr30k_has_no_filepath(tmp_path):
    path = write(tmp_path / "d.json", {"images": [karpathy_entry(7, "test", filename="1007129816.jpg")], "dataset": ""})
    picture(tmp_path / "flickr30k-images" / "1007129816.jpg")
    (example,) = karpathy(path, tmp_path / "flickr30k-images", "test")
    assert example.id == "7" and len(example.captions) == 2


def test_flickr30k_token_file(tmp_path):
    lines = [
        "1000092795.jpg#0\tTwo young guys with shaggy hair look at their hands .",
        "1000092795.jpg#1\tTwo young , White males are outside near many bushes .",
        "10002456.jpg#0\tSeveral men in hard hats are operating a giant pulley system .",
        "10002456.jpg#1\t",
    ]
    path = tmp_path / "results_20130124.token"
    path.write_text("\n".join(lines) + "\n")
    picture(tmp_path / "1000092795.jpg")
    source = flickr30k(path, tmp_path)
    assert [len(record.captions) for record in source.records] == [2, 1]
    assert [example.id for example in source] == ["1000092795.jpg"]  # the other picture is not there
    assert source.skipped == {"empty caption": 1, "missing file": 1}
    path.write_text("1000092795.jpg A caption without a number")
    with pytest.raises(ValueError, match="line 1 is not of the form"):
        flickr30k(path, tmp_path)


def test_flickr30k_lines_end_at_line_feeds_only(tmp_path, two_pictures):
    (tmp_path / "x.token").write_text("a.png#0\tone\u2028line\na#b.png#1\tx\n", encoding="utf-8")
    picture(two_pictures / "a#b.png")
    source = flickr30k(tmp_path / "x.token", two_pictures)
    assert [record.id for record in source.records] == ["a.png", "a#b.png"]
    assert source.records[0].captions == ("one line",)


def test_nocaps_keeps_its_domains(tmp_path):
    images = [
        {
            "id": number,
            "open_images_id": f"0013ea208702090{number}",
            "height": 20,
            "width": 40,
            "coco_url": f"https://s3.amazonaws.com/nocaps/val/0013ea208702090{number}.jpg",
            "file_name": f"0013ea208702090{number}.jpg",
            "license": 0,
            "date_captured": "2018-11-06 11:04:33",
            "domain": domain,
        }
        for number, domain in enumerate(("in-domain", "near-domain", "out-domain", "out-domain"))
    ]
    texts = [{"image_id": n, "id": 10 * n + k, "caption": f"Caption {k} of {n}."} for n in range(4) for k in range(10)]
    content = {"licenses": [], "info": {"description": "nocaps"}, "images": images, "annotations": texts}
    path = write(tmp_path / "nocaps_val_4500_captions.json", content)
    source = nocaps(path, tmp_path)
    assert [record.domain for record in source.records] == [entry["domain"] for entry in images]
    assert all(len(record.captions) == 10 for record in source.records) and not source.skipped
    out = nocaps(path, tmp_path, "out-domain")
    assert [record.id for record in out.records] == ["2", "3"] and not out.skipped
    with pytest.raises(ValueError, match="no domain 'out': in-domain, near-domain, out-domain"):
        nocaps(path, tmp_path, "out")


def test_blips_own_files(tmp_path, two_pictures):
    """coco_karpathy_train.json has a caption an entry, coco_karpathy_val.json a list, vqa_train.json a question."""
    content = [
        {"caption": "A boat", "image": "a.png", "image_id": "coco_1"},
        {"caption": "A red boat", "image": "./a.png", "image_id": "coco_1"},
        {"image": "b.png", "caption": ["A cat.", "A dog."]},
        {"image": "b.png", "question": "what?", "answer": ["cat", "cat", "dog"], "question_id": 9, "dataset": "vqa"},
        {"image": "../c.png", "caption": "x"},
        {"image": "a.png"},
        {"caption": "of nothing"},
    ]
    source = blip(write(tmp_path / "x.json", content), two_pictures)
    assert [record.captions for record in source.records] == [("A boat", "A red boat"), ("A cat.", "A dog.")]
    assert source.records[1].questions == (AskedQuestion("what?", ("cat", "cat", "dog"), "", "9"),)
    assert causes(source) == ["file outside the folder", "incomplete entry", "incomplete entry"]
    assert "entry 6" in source.left_out[1].message and source[1].image.size == (40, 20)
    with pytest.raises(ValueError, match="no 'caption' and no 'question'"):
        blip(write(tmp_path / "x.json", [{"image": "a.png"}]), two_pictures)
    with pytest.raises(ValueError, match="not BLIP's annotations"):
        blip(write(tmp_path / "x.json", {"images": []}), two_pictures)


def test_answers_of_blips_files_under_either_name(tmp_path, two_pictures):
    asked = [{"image": "a.png", "question": "q?", name: ["x", "x"]} for name in ("answer", "answers")]
    source = blip(write(tmp_path / "b.json", asked), two_pictures)
    assert [question.answers for question in source.records[0].questions] == [("x", "x")] * 2


def test_json_lines_are_read_as_a_list(tmp_path, two_pictures):
    entries = [{"image": "a.png", "caption": "x"}, {"image": "b.png", "caption": ["y", "z"]}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    assert [record.captions for record in blip(tmp_path / "x.jsonl", two_pictures).records] == [("x",), ("y", "z")]
    (tmp_path / "x.jsonl").write_text(json.dumps(entries[0]) + "\n{half\n")
    with pytest.raises(ValueError, match="x.jsonl, line 2 is not JSON"):
        blip(tmp_path / "x.jsonl", two_pictures)


def test_a_table_in_the_place_of_flickr30ks_captions_is_told_where_to_go(tmp_path):
    (tmp_path / "results.csv").write_text("image_name| comment_number| comment\n1.jpg| 0| a man\n")
    with pytest.raises(ValueError, match="line 1 .*: save a table with named columns as captions.csv"):
        flickr30k(tmp_path / "results.csv", tmp_path)


def test_a_second_file_of_one_picture_is_named_and_its_captions_are_not_those_of_the_first(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    entries = [
        {"filename": f"{name}.png", "split": "train", "cocoid": 1, "sentences": [{"raw": f"about {name}"}]}
        for name in "ab"
    ]
    source = karpathy(write(tmp_path / "k.json", {"images": entries}), tmp_path)
    assert [record.captions for record in source.records] == [("about a",)]
    assert causes(source) == ["picture listed twice"]
