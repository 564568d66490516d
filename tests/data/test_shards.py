"""Shards: packed and read back, by this package and by the webdataset library, from disk and over the network."""

import functools
import http.server
import io
import json
import tarfile
import threading
from random import Random

import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data import shards
from blip2_lab.data.examples import AskedQuestion, ImageTextList, Record
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import open_sources
from blip2_lab.data.shards import HubStream, ShardFolder, ShardStream, pack, record_of


def encoded(number: int, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (number, 0, 0)).save(stream, format)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Ten pictures with two captions each; two more are broken."""
    (tmp_path / "own").mkdir()
    for number in range(10):
        (tmp_path / "own" / f"p{number}.png").write_bytes(encoded(number))
        (tmp_path / "own" / f"p{number}.txt").write_text(f"picture {number}\nnumber {number}\n")
    (tmp_path / "own" / "q.png").write_bytes(encoded(1)[:40])
    (tmp_path / "own" / "q.txt").write_text("cut off")
    (tmp_path / "own" / "r.png").write_bytes(encoded(1))
    return tmp_path / "own"


@pytest.fixture
def packed(folder, tmp_path):
    pack(ImageFolder(folder), tmp_path / "shards", per_shard=4)
    return tmp_path / "shards"


def test_packed_examples_are_read_back(folder, tmp_path):
    report = pack(ImageFolder(folder), tmp_path / "shards", per_shard=4)
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


def test_the_same_images_give_the_same_bytes(folder, tmp_path):
    for name in "ab":
        pack(ImageFolder(folder), tmp_path / name, per_shard=4)
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


def test_packing_mistakes(folder, packed, tmp_path):
    with pytest.raises(ValueError, match="holds shards already"):
        pack(ImageFolder(folder), packed)
    with pytest.raises(ValueError, match="at least 1"):
        pack(ImageFolder(folder), tmp_path / "new", per_shard=0)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack(ImageTextList([Record(tmp_path / "none.png", ("x",))]), tmp_path / "new")
    with pytest.raises(ValueError, match="holds no samples"):
        ShardFolder(folder)


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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(packed):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(packed)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/shard-{{000000..000002}}.tar"
    server.shutdown()


def ids(records) -> list[str]:
    return [record.id if isinstance(record, Record) else record.cause for record in records]


def test_a_stream_has_one_order_for_each_epoch(address):
    pytest.importorskip("webdataset")
    stream = ShardStream(address, window=4)
    first, again, other = (ids(stream.records(0, epoch)) for epoch in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other) == [f"p{number}.png" for number in range(10)]
    record = next(stream.records(0, 0))
    assert record.open().image.size == (3, 2) and len(record.captions) == 2


def test_a_shard_that_cannot_be_fetched_is_counted(address):
    pytest.importorskip("webdataset")
    stream = ShardStream(address.replace("000002}", "000003}"))
    found = ids(stream.records(0, 0))
    assert len(found) == 11 and found[-1] == "unreachable shard"


@pytest.mark.parametrize("url", ["pipe:touch /tmp/x", "file:///etc/passwd", "shard.tar"])
def test_only_addresses_are_fetched(url):
    pytest.importorskip("webdataset")
    with pytest.raises(ValueError, match="not an address"):
        ShardStream(url)


def test_shuffling_in_a_window():
    items = list(range(100))
    mixed = list(shards._shuffled(iter(items), Random(0), 10))
    assert sorted(mixed) == items != mixed
    assert all(item <= place + 9 for place, item in enumerate(mixed))  # nothing comes before it was read
    assert list(shards._shuffled(iter(items), Random(0), 1)) == items


@pytest.fixture
def parquet(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # at each stream's end
    rows = {
        "image": [{"bytes": encoded(number), "path": None} for number in range(5)] + [None],
        "caption": [["one", "uno"], ["two"], [" "], ["four"], ["five"], ["no picture"]],
        "other": list(range(6)),
    }
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    data.to_parquet(tmp_path / "data.parquet")
    return str(tmp_path / "data.parquet")


def test_a_hugging_face_data_set_as_a_stream(parquet):
    stream = HubStream("parquet", data_files=parquet, window=3)
    first, again, other = (list(stream.records(7, epoch)) for epoch in (0, 0, 1))
    causes = [item.cause for item in first if isinstance(item, BrokenSample)]
    assert sorted(causes) == ["empty caption", "sample without a picture"]
    good = [[item for item in epoch if isinstance(item, Record)] for epoch in (first, again, other)]
    assert good[0] == good[1] != good[2]
    by_caption = {record.captions: record for record in good[0]}
    assert by_caption.keys() == {("one", "uno"), ("two",), ("four",), ("five",)}
    assert by_caption["two",].open().image.getpixel((0, 0)) == (1, 0, 0)


def test_a_data_set_that_is_not_there_or_has_other_columns(parquet, monkeypatch):
    with pytest.raises(ValueError, match="no column text: "):
        HubStream("parquet", data_files=parquet, caption="text")
    with pytest.raises(ValueError, match="cannot be opened"):
        HubStream("parquet", data_files=parquet + "x")


def test_images_of_a_hugging_face_data_set_are_opened_by_open_image(tmp_path, parquet):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": b"no picture", "path": None}], "caption": ["x"]}
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(tmp_path / "bad.parquet")
    (record,) = HubStream("parquet", data_files=str(tmp_path / "bad.parquet")).records(0, 0)
    with pytest.raises(BrokenSample, match="not a PNG"):
        record.open()


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
        ({"questions": None, "caption": "x"}, ("a boat",), 0),
        ([1], ("a boat",), 1),
        (b"", ("a boat",), 0),
        (b"{half", ("a boat",), 1),
        ({"captions": ["one", 5, "two"]}, ("one", "two"), 1),
        ({"captions": "one"}, ("one",), 0),  # not o, n, e
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
        (content + content, "several tar files in one"),
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
    with pytest.raises(ValueError, match="more.tar.gz: shards are read uncompressed"):
        ShardFolder(packed)
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


def test_a_cut_shard_of_a_stream_is_counted(packed, address):
    pytest.importorskip("webdataset")
    shard = packed / "shard-000001.tar"
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-3].offset
    shard.write_bytes(shard.read_bytes()[:last])  # between two samples: tarfile takes it for the end
    found = ids(ShardStream(address, window=1).records(0, 0))
    # the sample before the cut is not used either: who knows whether its last file is there
    assert len(found) == 9 and found[-1] == "unreachable shard" and not {"p6.png", "p7.png"} & set(found)
