"""Samples of shards: which files belong together, and the texts in their json and txt."""

import json

import pytest

from blip2_lab.common.images import BrokenSample
from blip2_lab.data import samples
from blip2_lab.data.samples import record_of
from blip2_lab.data.shards import ShardFolder
from tests.tiny import encoded, write_shard

PICTURE = encoded(1, "JPEG")


@pytest.mark.parametrize(
    "files,cause",
    [
        ({"txt": b"words only"}, "sample without a picture"),
        ({"png": encoded(1)}, "empty caption"),
        ({"png": encoded(1), "txt": b"  \n"}, "empty caption"),
        ({"png": encoded(1), "json": b"{}"}, "empty caption"),
        ({"png": encoded(1), "json": b"{half"}, "unreadable text"),
        ({"png": encoded(1), "txt": b"\xff\xfe"}, "unreadable text"),
    ],
)
def test_broken_samples_have_a_cause(files, cause):
    with pytest.raises(BrokenSample) as broken:
        record_of("0001", files)
    assert broken.value.cause == cause


def test_names_are_split_as_webdataset_does():
    assert samples._split_name("a/b/0001.seg.PNG") == ("a/b/0001", "seg.png")
    assert samples._split_name(".hidden") == ("", "hidden")


def test_a_folder_inside_the_tar_keeps_samples_apart(tmp_path):
    files = (("a/1.png", encoded(1)), ("a/1.txt", b"one"), ("b/1.png", encoded(2)), ("b/1.txt", b"2"))
    write_shard(tmp_path / "x.tar", *files)
    source = ShardFolder(tmp_path)
    assert [source.record(number).captions for number in range(2)] == [("one",), ("2",)]


def test_names_with_dots(tmp_path):
    files = [(f"22.{n:02d}.{ending}", content) for n in (5, 6) for ending, content in (("jpg", PICTURE), ("txt", b"x"))]
    write_shard(tmp_path / "0.tar", *files, ("9.input.jpg", PICTURE), ("9.output.txt", b"y"))
    source = ShardFolder(tmp_path)
    assert [source.record(n).id for n in (0, 1)] == ["0/22.05", "0/22.06"] and len(source) == 3
    with pytest.raises(BrokenSample, match="no picture .*input.jpg, output.txt"):
        source.record(2)


def test_json_of_a_shard_may_be_anything(packed):
    assert record_of("1", {"png": encoded(1), "json": json.dumps({"caption": "as LAION says"}).encode()}).captions == (
        "as LAION says",
    )
    assert record_of("1", {"png": encoded(1), "txt": b"t", "json": b"[1]"}).captions == ("t",)


@pytest.mark.parametrize(
    ("about", "texts", "unread"),
    [
        ({"boxes": [[0, 0, 1, 1]]}, ("a boat",), 1),
        ({"boxes": {"a": 1}, "questions": "what?"}, ("a boat",), 1),
        ({"questions": None, "caption": "x"}, ("a boat",), 1),  # the json's other caption is named
        ([1], ("a boat",), 1),
        (b"", ("a boat",), 0),
        (b"{half", ("a boat",), 1),
        ({"captions": ["one", 5, "two"]}, ("one", "two"), 2),  # 5, and the txt
        ({"captions": "one"}, ("one",), 1),  # not o, n, e
        ({"captions": ["one", "a boat"], "caption": "one"}, ("one", "a boat"), 0),
    ],
)
def test_any_json_beside_a_caption(tmp_path, about, texts, unread):
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.json", about), ("0.txt", b"a boat"))
    record = ShardFolder(tmp_path).record(0)
    assert record.captions == texts and len(record.unread) == unread


def test_captions_and_questions_of_other_forms(tmp_path):
    questions = [
        "what?",
        {"question": "color?", "answer": "red"},
        {"text": "how many?", "answers": [2, "two"]},
        {"a": 1},
    ]
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.json", {"caption": ["a", "b"], "questions": questions}))
    record = ShardFolder(tmp_path).record(0)
    assert record.captions == ("a", "b") and len(record.unread) == 1 and "another form" in record.unread[0]
    assert [(q.text, q.answers) for q in record.questions] == [
        ("what?", ()),
        ("color?", ("red",)),
        ("how many?", ("2", "two")),
    ]


def test_every_text_of_a_sample_is_a_caption_or_named(tmp_path):
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.txt", b"one"), ("0.caption", b"two"), ("0.cls", b"3"))
    source = ShardFolder(tmp_path)
    record = source.record(0)
    assert record.captions == ("one",)
    assert record.unread == ("sample '0/0': its caption is not used, because there is another caption: 'two'",)
    assert source.notes[0].endswith("files of samples that are not read: 1 cls")


@pytest.mark.parametrize(
    ("text", "cause"), [(b"nan", "unreadable text"), ("\u200b".encode(), "empty caption"), (b" \n", "empty caption")]
)
def test_a_txt_has_the_rules_of_a_table(tmp_path, text, cause):
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.txt", text))
    with pytest.raises(BrokenSample) as broken:
        ShardFolder(tmp_path).record(0)
    assert broken.value.cause == cause


def test_the_capital_key_of_laion_is_a_caption(tmp_path):
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.json", {"TEXT": "a boat", "URL": "x"}))
    write_shard(tmp_path / "1.tar", ("1.jpg", PICTURE), ("1.json", {"Title": "a boat", "URL": "x"}))
    source = ShardFolder(tmp_path)
    assert source.record(0).captions == ("a boat",)
    with pytest.raises(BrokenSample, match="the keys of its json are 'Title', 'URL'"):
        source.record(1)


def test_a_question_of_its_own_and_a_conversation_are_read(tmp_path):
    turns = [{"from": "human", "value": "<image>\ncolor?"}, {"from": "gpt", "value": "red"}]
    about = {"question": "what?", "answer": "a boat", "conversations": turns}
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.json", about))
    record = ShardFolder(tmp_path).record(0)
    assert [(question.text, question.answer) for question in record.questions] == [
        ("what?", "a boat"),
        ("color?", "red"),
    ]


def test_boxes_are_fractions_of_the_picture(tmp_path):
    boxes = [["a", [0, 0, 1, 0.5]], ["b", [0, 0, 10**400, 1]], ["c", [0.9, 0, 0.1, 1]], ["d", [0, 0, 50, 60]]]
    write_shard(tmp_path / "0.tar", ("0.jpg", PICTURE), ("0.json", {"caption": "x", "boxes": boxes}))
    record = ShardFolder(tmp_path).record(0)
    assert record.boxes == (("a", (0, 0, 1, 0.5)),) and len(record.unread) == 3


def test_what_is_empty_in_a_list_of_captions_is_named():
    record = record_of("0001", {"jpg": PICTURE, "json": b'{"captions": ["a boat", null, ""], "caption": null}'})
    assert record.captions == ("a boat",) and len(record.unread) == 2 and "a caption is empty" in record.unread[0]
