"""Tar files that are cut off, damaged, of another kind, or hold links."""

import gzip
import io
import tarfile

import pytest

from blip2_lab.data.shards import ShardFolder
from tests.tiny import encoded

PICTURE = encoded(1, "JPEG")


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
