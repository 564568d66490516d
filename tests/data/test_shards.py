"""Shards on disk, read by index: whole or not, with and without shards.json, and what is beside them."""

import json

import pytest

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.mixture import open_sources
from blip2_lab.data.shards import ShardFolder
from tests.tiny import encoded, write_shard

PICTURE = encoded(1, "JPEG")


def test_without_shards_json_the_tar_files_are_indexed(packed):
    with_note = [ShardFolder(packed).record(number).id for number in range(10)]
    (packed / "shards.json").unlink()
    assert [ShardFolder(packed).record(number).id for number in range(10)] == with_note
    two = ShardFolder(sorted(packed.glob("*.tar"))[1:])
    assert len(two) == 6 and two.record(0).id == "p4.png"


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


def test_a_broken_picture_of_a_shard_is_named_by_its_sample(tmp_path):
    write_shard(tmp_path / "0.tar", ("7.jpg", b""), ("7.txt", b"x"))
    with pytest.raises(BrokenSample, match="the picture of '0/7' is empty"):
        ShardFolder(tmp_path)[0]


def test_a_shard_without_a_sample_is_named(tmp_path):
    write_shard(tmp_path / "0.tar", ("0.jpg", encoded(1, "JPEG")), ("0.txt", b"x"))
    write_shard(tmp_path / "1.tar")
    source = ShardFolder(tmp_path)
    assert len(source) == 1 and source.skipped == {"shard without a sample": 1}
    assert source.left_out[0].message == f"{tmp_path / '1.tar'} has no sample: write it again, or remove it"


def test_a_shard_that_is_not_there_has_a_remedy(tmp_path):
    (tmp_path / "1.tar").symlink_to("gone.tar")
    for shard, remedy in (
        ("1.tar", "it is a link to a file that is not there"),
        ("{0..3}.tar", "a pattern stands for addresses only, so give the folder"),
        ("2.tar", "check the path"),
    ):
        with pytest.raises(ValueError, match=f"there is no shard .*: {remedy}"):
            ShardFolder([tmp_path / shard])
