"""Data sets packed into shards, and read back by this package and by the webdataset library."""

import io
import tarfile

import pytest
from PIL import Image

from blip2_lab.data.examples import AskedQuestion, ImageTextList, Record
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.packing import pack
from blip2_lab.data.shards import ShardFolder
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


def test_the_webdataset_library_reads_our_shards(packed):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png", "txt", "json"))
    assert [text for _, text, _ in samples] == [f"picture {number}" for number in range(10)]
    assert samples[7][0].getpixel((0, 0)) == (7, 0, 0) and samples[7][2]["captions"] == ["picture 7", "number 7"]


def test_packing_mistakes(ten_pictures, packed, tmp_path):
    with pytest.raises(ValueError, match=r"is not empty \(it has shard-000000.tar\): give a new folder"):
        pack(ImageFolder(ten_pictures), packed)
    with pytest.raises(ValueError, match="is not empty"):  # with shards in it, it could not be read any more
        pack(ImageFolder(ten_pictures), ten_pictures)
    with pytest.raises(ValueError, match="at least 1"):
        pack(ImageFolder(ten_pictures), tmp_path / "new", per_shard=0)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack(ImageTextList([Record(tmp_path / "none.png", ("x",))]), tmp_path / "new")
    with pytest.raises(ValueError, match="holds no samples"):
        ShardFolder(ten_pictures)


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
