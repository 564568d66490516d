"""Data sets over the network: shards at addresses and the Hugging Face hub."""

import functools
import http.server
import tarfile
import threading
from random import Random

import pytest

from blip2_lab.common.images import BrokenSample
from blip2_lab.data import streams
from blip2_lab.data.examples import Record
from blip2_lab.data.streams import HubStream, ShardStream, _why_not_fetched
from tests.tiny import encoded


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


def test_why_a_shard_was_not_fetched_is_told_in_words(address):
    (broken,) = list(ShardStream(f"{address.rpartition('/')[0]}/nothing.tar").records(0, 0))
    assert str(broken).endswith("nothing.tar: the server refuses it, or has no such file")
    (broken,) = list(ShardStream("http://127.0.0.1:9/x.tar").records(0, 0))
    assert str(broken).endswith("x.tar: the server cannot be reached")
    assert _why_not_fetched(OSError("(['gsutil', 'cat'],): exit 22 (read) {}")).endswith("ended with code 22")
    assert _why_not_fetched(ValueError("empty file")) == "empty file"


def test_an_address_is_text():
    for wrong in (5, [5], None):
        with pytest.raises(ValueError, match="an address of shards is a text"):
            ShardStream(wrong)


@pytest.mark.parametrize("url", ["pipe:touch /tmp/x", "file:///etc/passwd", "shard.tar"])
def test_only_addresses_are_fetched(url):
    pytest.importorskip("webdataset")
    with pytest.raises(ValueError, match="not an address"):
        ShardStream(url)


def test_shuffling_in_a_window():
    items = list(range(100))
    mixed = list(streams._shuffled(iter(items), Random(0), 10))
    assert sorted(mixed) == items != mixed
    assert all(item <= place + 9 for place, item in enumerate(mixed))  # nothing comes before it was read
    assert list(streams._shuffled(iter(items), Random(0), 1)) == items


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


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("csv", "image,caption\n{folder}/a.png,x\n{folder}/a.png,\n", "row 1 of csv: the caption is empty"),
        ("json", '{{"image": "http://x/y.png", "caption": "x"}}\n', "an address, which is not fetched: download"),
        ("json", '{{"image": 5, "caption": "x"}}\n', "json could not be read to its end: "),
    ],
)
def test_rows_of_other_forms_are_named(tmp_path, parquet, kind, content, says):
    (tmp_path / "a.png").write_bytes(encoded(1))
    (tmp_path / "data").write_text(content.format(folder=tmp_path))
    rows = list(HubStream(kind, data_files=str(tmp_path / "data"), window=1).records(0, 0))
    assert isinstance(rows[-1], BrokenSample) and says in str(rows[-1])
    assert all(row.captions == ("x",) for row in rows[:-1])


def test_a_data_set_without_rows_is_told(tmp_path, parquet):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="cannot be opened: it has no rows"):
        HubStream("json", data_files=str(tmp_path / "empty.jsonl"))


def test_a_cut_shard_of_a_stream_is_counted(packed, address):
    pytest.importorskip("webdataset")
    shard = packed / "shard-000001.tar"
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-3].offset
    shard.write_bytes(shard.read_bytes()[:last])  # between two samples: tarfile takes it for the end
    found = ids(ShardStream(address, window=1).records(0, 0))
    # the sample before the cut is not used either: who knows whether its last file is there
    assert len(found) == 9 and found[-1] == "unreachable shard" and not {"p6.png", "p7.png"} & set(found)
