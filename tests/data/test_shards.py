"""Shards: packed and read back, by this package and by the webdataset library, from disk and over the network."""

import gzip
import io
import json
import tarfile

import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data import shards
from blip2_lab.data.examples import AskedQuestion, ImageTextList, Record
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import open_sources
from blip2_lab.data.shards import ShardFolder, pack, record_of
from tests.tiny import encoded


def test_packed_examples_are_read_back(ten_pictures, tmp_path):
    report = pack(ImageFolder(ten_pictures), tmp_path / "shards", per_shard=4)
    assert report.startswith("10 pictures; skipped 2:") and "1 not a picture" in report and "1 empty caption" in report
    source = ShardFolder(tmp_path / "shards")
    assert len(source) == 10 and len(source.paths) == 3
    for number in (9, 0, 4):  # in any order
        record, example = source.record(number), source[number]
        assert record.captions == (f"picture {number}", f"number {number}") and record.id == f"p{number}.png"
        assert record.file == encoded(number) and example.image.getpixel((0, 0)) == (number, 0, 0)
    source.check()


def test_all_texts_are_packed(tmp_path):
    asked = AskedQuestion("what?", ("a net", "a net", "mesh"), "other", "17")
    record = Record(encoded(3), ("ein Würfel",), (asked,), (("a cube", (0.0, 0.25, 0.5, 1.0)),), "x/1", "near-domain")
    pack(ImageTextList([record]), tmp_path / "out")
    assert ShardFolder(tmp_path / "out").record(0) == record


def test_the_same_images_give_the_same_bytes(ten_pictures, tmp_path):
    for name in "ab":
        pack(ImageFolder(ten_pictures), tmp_path / name, per_shard=4)
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1] == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "shards.json"]
    for name in files[0]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_shards_json_the_tar_files_are_indexed(packed):
    with_note = [ShardFolder(packed).record(number).id for number in range(10)]
    (packed / "shards.json").unlink()
    assert [ShardFolder(packed).record(number).id for number in range(10)] == with_note
    two = ShardFolder(sorted(packed.glob("*.tar"))[1:])
    assert len(two) == 6 and two.record(0).id == "p4.png"


def test_the_webdataset_library_reads_our_shards(packed):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png", "txt", "json"))
    assert [text for _, text, _ in samples] == [f"picture {number}" for number in range(10)]
    assert samples[7][0].getpixel((0, 0)) == (7, 0, 0) and samples[7][2]["captions"] == ["picture 7", "number 7"]


def test_shards_of_the_webdataset_library_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "00000.tar")) as writer:  # as img2dataset writes them
        for number in range(3):
            about = {"url": "http://x", "width": 3, "height": 2, "status": "success"}
            sample = {"__key__": f"0000{number}", "jpg": encoded(number, "JPEG"), "txt": f"a caption {number}"}
            writer.write(sample | {"json": about})
    source = ShardFolder(tmp_path)
    assert [source.record(number).captions for number in range(3)] == [(f"a caption {n}",) for n in range(3)]
    assert source[2].image.size == (3, 2)


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


def test_a_shard_that_is_missing_or_cut_is_named(packed):
    shard = packed / "shard-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1000])
    with pytest.raises(ValueError, match="shard-000001.tar has .* bytes instead of .*: copy it again"):
        ShardFolder(packed)
    (packed / "shards.json").unlink()
    shard.write_bytes(content[:700])
    with pytest.raises(ValueError, match="shard-000001.tar is not a whole"):
        ShardFolder(packed)
    shard.unlink()
    with pytest.raises(ValueError, match="there is no shard"):
        ShardFolder([packed / "shard-000000.tar", shard])


def test_a_changed_byte_is_found_by_its_checksum(packed):
    shard = packed / "shard-000002.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="shard-000002.tar is not what was packed"):
        ShardFolder(packed).check()


def test_packing_mistakes(ten_pictures, packed, tmp_path):
    with pytest.raises(ValueError, match="holds shards already"):
        pack(ImageFolder(ten_pictures), packed)
    with pytest.raises(ValueError, match="at least 1"):
        pack(ImageFolder(ten_pictures), tmp_path / "new", per_shard=0)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack(ImageTextList([Record(tmp_path / "none.png", ("x",))]), tmp_path / "new")
    with pytest.raises(ValueError, match="holds no samples"):
        ShardFolder(ten_pictures)


def test_names_are_split_as_webdataset_does():
    assert shards._split_name("a/b/0001.seg.PNG") == ("a/b/0001", "seg.png")
    assert shards._split_name(".hidden") == ("", "hidden")


def test_a_folder_inside_the_tar_keeps_samples_apart(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (("a/1.png", encoded(1)), ("a/1.txt", b"one"), ("b/1.png", encoded(2)), ("b/1.txt", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    source = ShardFolder(tmp_path)
    assert [source.record(number).captions for number in range(2)] == [("one",), ("2",)]


# -------------------------------------------------------------------------------------------------------------- streams


def test_json_of_a_shard_may_be_anything(packed):
    assert record_of("1", {"png": encoded(1), "json": json.dumps({"caption": "as LAION says"}).encode()}).captions == (
        "as LAION says",
    )
    assert record_of("1", {"png": encoded(1), "txt": b"t", "json": b"[1]"}).captions == ("t",)


# ---------------------------------------------------------------------------------------------- shards of other tools


def write_shard(path, *files) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


PICTURE = encoded(1, "JPEG")


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


def test_two_shards_that_begin_at_key_0_have_different_ids(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", ("0.jpg", PICTURE), ("0.txt", b"x"), ("0.jpg", PICTURE), ("0.txt", b"y"))
    source = ShardFolder(tmp_path)
    assert [source.record(n).id for n in range(len(source))] == ["a/0", "b/0"]
    assert [one.cause for one in source.left_out] == ["file twice in a sample"] * 4
    for name in ("a", "b"):
        files = [("0.jpg", PICTURE), ("0.txt", b"x"), ("1.jpg", PICTURE), ("1.txt", b"y")]
        write_shard(tmp_path / f"{name}.tar", *files, *files[:2])
    source = ShardFolder(tmp_path)
    assert len({source.record(n).id for n in range(len(source))}) == 6


def test_names_with_dots(tmp_path):
    files = [(f"22.{n:02d}.{ending}", content) for n in (5, 6) for ending, content in (("jpg", PICTURE), ("txt", b"x"))]
    write_shard(tmp_path / "0.tar", *files, ("9.input.jpg", PICTURE), ("9.output.txt", b"y"))
    source = ShardFolder(tmp_path)
    assert [source.record(n).id for n in (0, 1)] == ["0/22.05", "0/22.06"] and len(source) == 3
    with pytest.raises(BrokenSample, match="no picture .*input.jpg, output.txt"):
        source.record(2)


def test_links_in_a_shard_are_named(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("0.jpg", "0.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(PICTURE if name == "0.jpg" else b"x")
            tar.addfile(member, io.BytesIO(PICTURE if name == "0.jpg" else b"x"))
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = tarfile.LNKTYPE, "0.jpg"
        tar.addfile(member)
    source = ShardFolder(tmp_path)
    assert len(source) == 1 and source.skipped == {"link in a shard": 1} and "1.jpg" in source.left_out[0].message


def test_shards_that_are_not_whole_are_refused(packed):
    """A cut or damaged header is the end for tarfile. test_fuzz.py cuts at any byte."""
    shard = packed / "shard-000001.tar"
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        second = tar.getmembers()[3].offset
    (packed / "shards.json").unlink()
    damage = bytearray(content)
    damage[second + 5] ^= 1
    for wrong, says in (
        (content[:second], "cut off"),
        (content[: second + 100], "cut off"),
        (bytes(damage), "damaged"),
        (content + content, "data behind its end: keep several tar files apart"),
        (b"", "empty file"),
    ):
        shard.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"shard-000001.tar is not a whole.*{says}"):
            ShardFolder(packed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"0.tar": 1}', "not an index"),
        (b'{"shards": [{"file": "../x.tar", "examples": 1, "bytes": 5, "sha256": "x"}]}', "not an index"),
        (b'{"shards": [{"file": "x.tar", "examples": true, "bytes": 5, "sha256": "x"}]}', "not an index"),
        (b'{"shards": [', "is not JSON"),
        (b"\xff\xfe", "UTF-16"),
        (b"[]", "not an index"),
    ],
)
def test_a_damaged_or_foreign_index_is_named(packed, content, says):
    (packed / "shards.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"shards.json.*{says}"):
        ShardFolder(packed)


def test_what_would_be_read_in_part_is_refused(packed, tmp_path):
    (packed / "more.tar").write_bytes((packed / "shard-000000.tar").read_bytes())
    with pytest.raises(ValueError, match="more.tar is not listed"):
        ShardFolder(packed)
    (packed / "more.tar").rename(packed / "more.tar.gz")
    for name in ("more.tar.gz", "MORE.TGZ", "more.Tar.Zst"):
        (packed / "more.tar.gz").rename(packed / name)
        with pytest.raises(ValueError, match=f"{name}: shards are read uncompressed"):
            ShardFolder(packed)
        (packed / name).rename(packed / "more.tar.gz")
    (packed / "more.tar.gz").unlink()
    index = json.loads((packed / "shards.json").read_text())
    index["shards"][0]["examples"] = 5
    (packed / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has 4 samples instead of 5"):
        ShardFolder(packed).record(0)
    (packed / "captions.csv").write_text("file,caption\n")
    with pytest.raises(ValueError, match="has shards .* and captions.csv"):
        open_sources(packed)


def test_every_kind_of_picture_is_packed_and_what_is_left_out_is_named(tmp_path):
    mpo = io.BytesIO()
    Image.new("RGB", (8, 8)).save(mpo, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    kinds = [encoded(1, format) for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    records = [Record(content, ("x",), id=str(n)) for n, content in enumerate([*kinds, mpo.getvalue()])]
    records += [
        Record(Image.new("RGB", (3, 2), "red"), ("drawn",), id="drawn"),
        Record(tmp_path / "no.png", ("y",), id="no"),
    ]
    left_out = []
    assert pack(ImageTextList(records), tmp_path / "out", say=left_out.append).startswith("8 pictures; skipped 1")
    assert [(one.sample, one.cause) for one in left_out] == [("no", "missing file")] and "no.png" in left_out[0].message
    source = ShardFolder(tmp_path / "out")
    assert [source[n].image.size for n in range(8)] == [(3, 2)] * 6 + [(8, 8), (3, 2)]
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        endings = [name.rpartition(".")[2] for name in tar.getnames() if name[-4:] not in (".txt", "json")]
    assert endings == ["png", "jpg", "webp", "gif", "bmp", "tif", "jpg", "png"]


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


def test_every_file_beside_the_shards_is_read_or_named(tmp_path):
    for number, name in enumerate(("a.tar", "B.TAR", "more/c.tar")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / name, (f"{number}.jpg", encoded(number)), (f"{number}.txt", b"x"))
    (tmp_path / "again.tar").symlink_to("a.tar")
    for name in ("._a.tar", "a.parquet", "a_stats.json", "more/x.jpg", "left_out.jsonl", "a.md", "b.zip"):
        (tmp_path / name).write_bytes(b"x")
    (mixture,) = open_sources(tmp_path).sources
    assert [mixture.record(n).id for n in range(len(mixture))] == ["B/1", "a/0"]
    named = {one.sample.removeprefix(f"{tmp_path}/"): one.cause for one in mixture.left_out}
    unread = dict.fromkeys(("a.parquet", "a_stats.json", "b.zip", "more/c.tar", "more/x.jpg"), "file that is not read")
    assert named == unread | {"again.tar": "shard twice"}
    assert mixture.skipped == {"shard twice": 1}


def test_a_shard_that_is_listed_twice_is_read_once(packed):
    shard = packed / "shard-000000.tar"
    source = ShardFolder([shard, shard])
    assert len(source) == 4 and source.skipped == {"shard twice": 1}
    index = json.loads((packed / "shards.json").read_text())
    (packed / "shards.json").write_text(json.dumps({"shards": index["shards"] * 2}))
    with pytest.raises(ValueError, match="shards.json is not an index"):
        ShardFolder(packed)


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


def test_archives_of_another_kind_and_unfinished_copies_are_named(tmp_path):
    (tmp_path / "0.tar").write_bytes(gzip.compress(b"x"))
    with pytest.raises(ValueError, match="0.tar is not a whole.*gzip archive, unpack it"):
        ShardFolder(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS, run `git lfs pull`"):
        ShardFolder(tmp_path)
    (tmp_path / "0.tar").unlink()
    (tmp_path / "0.tar").mkdir()
    with pytest.raises(ValueError, match="it is a folder, a pipe or a device, move it away"):
        ShardFolder(tmp_path)
    (tmp_path / "1.tar.part").touch()
    with pytest.raises(ValueError, match="1.tar.part, which is no shard: finish copying it"):
        ShardFolder(tmp_path)


def test_a_broken_picture_of_a_shard_is_named_by_its_sample(tmp_path):
    write_shard(tmp_path / "0.tar", ("7.jpg", b""), ("7.txt", b"x"))
    with pytest.raises(BrokenSample, match="the picture of '0/7' is empty"):
        ShardFolder(tmp_path)[0]
