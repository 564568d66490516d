"""Annotation files in the published formats, with a few entries each."""

import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from blip2_lab.data.annotations import (
    blip,
    coco_captions,
    flickr30k,
    gqa,
    karpathy,
    llava,
    nocaps,
    refcoco,
    visual_genome,
    vqa,
)
from blip2_lab.data.examples import AskedQuestion


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


def vqa_files(folder: Path, split: str, numbers: list[int], ok_vqa: bool = False) -> tuple[Path, Path]:
    head = {"info": {}, "license": {}, "data_subtype": split, "data_type": "mscoco"}
    questions = [{"image_id": n, "question": f"What is in {n}?", "question_id": 10 * n} for n in numbers]
    given = ["net"] * 5 + ["netting"] * 3 + ["mesh", "net"]
    entries = [
        {
            "question_type": "one" if ok_vqa else "what is",
            "multiple_choice_answer": "net",
            "answers": [
                {"answer": word, "answer_confidence": "yes", "answer_id": k} | ({"raw_answer": word} if ok_vqa else {})
                for k, word in enumerate(given, 1)
            ],
            "image_id": n,
            "answer_type": "other",
            "question_id": 10 * n,
        }
        for n in numbers
    ]
    task = {"task_type": "Open-Ended"}
    return (
        write(folder / "questions.json", head | task | {"questions": questions}),
        write(folder / "annotations.json", head | {"annotations": entries}),
    )


@pytest.mark.parametrize("ok_vqa", [False, True])
def test_vqa_v2_and_ok_vqa(tmp_path, coco_pictures, ok_vqa):
    questions, answers = vqa_files(tmp_path, "train2014", [57870, 384029], ok_vqa)
    source = vqa(questions, coco_pictures, answers)
    (question,) = source[0].questions
    assert question.text == "What is in 57870?" and question.id == "578700" and question.type == "other"
    assert len(question.answers) == 10 and question.answers.count("netting") == 3 and question.answer == "net"
    assert source[0].captions == () and not source.skipped


def test_vqa_without_answers_and_with_another_splits(tmp_path):
    questions, _ = vqa_files(tmp_path / "test", "test-dev2015", [1])
    picture(tmp_path / "COCO_test2015_000000000001.jpg")
    (example,) = vqa(questions, tmp_path)
    assert example.questions[0].answers == () and example.questions[0].answer == ""
    _, answers = vqa_files(tmp_path / "val", "val2014", [2])
    with pytest.raises(ValueError, match="belong to different splits"):
        vqa(questions, tmp_path, answers)
    both, _ = vqa_files(tmp_path / "both", "val2014", [1, 2])
    assert vqa(both, tmp_path, answers).skipped == {"question without an answer": 1}
    with pytest.raises(ValueError, match="it has no list 'questions'"):
        vqa(answers, tmp_path)


def test_gqa(tmp_path):
    entry = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }
    test = {"question": "What is on the wall?", "imageId": "2354786", "isBalanced": True}
    path = write(tmp_path / "q" / "train_0.json", {"02930152": entry})
    write(tmp_path / "q" / "train_1.json", {"07333408": test})
    picture(tmp_path / "images" / "2354786.jpg")
    (example,) = gqa(path, tmp_path / "images")
    (question,) = example.questions
    assert (question.text, question.answer, question.type, question.id) == (
        "Is the sky dark?",
        "yes",
        "verify",
        "02930152",
    )
    (example,) = gqa(tmp_path / "q", tmp_path / "images")  # train_all_questions is a folder of such files
    assert [q.answer for q in example.questions] == ["yes", ""]
    with pytest.raises(ValueError, match="not a dictionary of GQA questions"):
        gqa(write(tmp_path / "no.json", [entry]), tmp_path / "images")


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


# ------------------------------------------------------------------------------- entries that cannot be used are named


@pytest.fixture
def two_pictures(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def causes(source) -> list[str]:
    return [one.cause for one in source.left_out]


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


def test_a_list_of_ones_own_questions(tmp_path, two_pictures):
    """`image_id` may be a file name: then no split of COCO is needed, and the questions may be a plain list."""
    asked = [
        {"image_id": "a.png", "question": "what?", "question_id": 1},
        {"image_id": "b.png", "question": " ", "question_id": 2},
        {"image_id": None, "question": "what?", "question_id": 3},
        {"image_id": "b.png", "question": "none?", "question_id": 4},
    ]
    answers = [
        {"question_id": "1", "answers": ["red", {"answer": "none"}, 5, None]},
        {"question_id": 1, "answers": ["blue"]},
        {"question_id": 2, "answers": "red"},
        {"question_id": 9, "answers": ["red"]},
    ]
    source = vqa(write(tmp_path / "q.json", asked), two_pictures, write(tmp_path / "a.json", answers))
    assert [record.questions[0].answers for record in source.records] == [("red", "none", "5")]
    assert sorted(causes(source)) == [
        "answer is no text",
        "answer without a question",
        "answered twice",
        "empty question",
        "incomplete entry",
        "picture without a text",
        "question without an answer",
    ]
    with pytest.raises(ValueError, match="which of COCO's splits"):
        vqa(write(tmp_path / "q.json", [{"image_id": 5, "question": "what?", "question_id": 1}]), two_pictures)


def test_names_of_coco_2017(tmp_path, two_pictures):
    picture(two_pictures / "000000000042.jpg")
    questions, answers = vqa_files(tmp_path / "q", "train2017", [42])
    assert len(list(vqa(questions, two_pictures, answers))) == 1


def test_flickr30k_lines_end_at_line_feeds_only(tmp_path, two_pictures):
    (tmp_path / "x.token").write_text("a.png#0\tone\u2028line\na#b.png#1\tx\n", encoding="utf-8")
    picture(two_pictures / "a#b.png")
    source = flickr30k(tmp_path / "x.token", two_pictures)
    assert [record.id for record in source.records] == ["a.png", "a#b.png"]
    assert source.records[0].captions == ("one line",)


def test_boxes_that_are_none(tmp_path, two_pictures):
    image_data = [{"image_id": 1, "url": "x/images/a.png", "width": 0, "height": 3}]
    regions = [{"id": 1, "regions": [{"phrase": "x", "x": 1, "y": 1, "width": 2, "height": float("nan")}]}, {"id": 2}]
    paths = write(tmp_path / "r.json", regions), write(tmp_path / "i.json", image_data)
    source = visual_genome(*paths, tmp_path)
    assert source.records[0].captions == ("x",) and source.records[0].boxes == ()
    assert sorted(causes(source)) == ["incomplete entry", "region without a box"]


def test_llava_conversations_are_questions_with_answers(tmp_path):
    picture(tmp_path / "a.png")
    turns = [{"from": "human", "value": "what?\n<image>"}, {"from": "gpt", "value": "a boat"}]
    entries = [
        {"id": "7", "image": "a.png", "conversations": [*turns, *turns[1:]]},
        {"id": "8", "conversations": turns},
        {"id": "9", "image": ["a.png"], "conversations": turns},
    ]
    lines = tmp_path / "x.jsonl"
    lines.write_text("\n".join(map(json.dumps, entries)))
    for file in (write(tmp_path / "x.json", entries), lines):
        source = llava(file, tmp_path)
        assert source.records[0].questions == (AskedQuestion("what?", ("a boat",), "", "7"),)
        assert source.skipped == {"turn that is not read": 1, "incomplete entry": 2}
    with pytest.raises(ValueError, match="no 'caption' and no 'question'; format = \"llava\" reads such a file"):
        blip(tmp_path / "x.json", tmp_path)
    with pytest.raises(ValueError, match='entries of its list have no .*; format = "blip" reads such a file'):
        coco_captions(write(tmp_path / "y.json", [{"image": "a.png", "caption": "x"}]), tmp_path)


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


def test_answers_of_blips_files_under_either_name(tmp_path, two_pictures):
    asked = [{"image": "a.png", "question": "q?", name: ["x", "x"]} for name in ("answer", "answers")]
    source = blip(write(tmp_path / "b.json", asked), two_pictures)
    assert [question.answers for question in source.records[0].questions] == [("x", "x")] * 2


def test_a_question_that_is_listed_twice_is_named(tmp_path):
    picture(tmp_path / "a.png")
    asked = [{"image_id": "a.png", "question": text, "question_id": 1} for text in ("one?", "two?")]
    given = write(tmp_path / "a.json", {"annotations": [{"question_id": 1, "answers": ["x"]}]})
    source = vqa(write(tmp_path / "q.json", {"questions": asked}), tmp_path, given)
    assert [question.text for question in source.records[0].questions] == ["one?"]
    assert source.skipped == {"question listed twice": 1}


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
