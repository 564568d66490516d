"""Mixtures: sources opened, mixed by weights, and batches as a function of their number."""

import io
import json
import tarfile
import time
from collections import Counter

import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import ImageTextList, LeftOut, Record
from blip2_lab.data.mixture import (
    BLOCK,
    Mixture,
    Pick,
    PictureBookPages,
    SkipLog,
    Subset,
    check_sources,
    find_sources,
    open_sources,
    source_fingerprint,
    split_held_out,
)
from blip2_lab.data.shards import ShardFolder, ShardStream, pack


def pictures(count: int, name: str = "x") -> ImageTextList:
    return ImageTextList([Record(b"", (f"{name} {i}",), id=f"{name}{i}") for i in range(count)], name=name)


class FakeStream(ShardStream):
    """Counts its epochs; every fourth sample is broken. `read`: how many samples were handed out."""

    def __init__(self, count: int = 10) -> None:
        self.count, self.name, self.read = count, "fake", 0

    def records(self, seed, epoch):
        for number in range(self.count):
            self.read += 1
            broken = BrokenSample("empty caption", f"number {number}")
            yield broken if number % 4 == 3 else Record(b"", ("x",), id=f"{seed} {epoch} {number}")


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "own" / f"{number}.png")
        (tmp_path / "own" / f"{number}.txt").write_text(f"picture {number}")
    return tmp_path / "own"


def test_the_kind_of_source_is_detected(folder, tmp_path):
    (source,) = open_sources(folder).sources
    assert isinstance(source, ImageTextList) and len(source) == 6
    pack(source, tmp_path / "shards", per_shard=4)
    for place in (tmp_path / "shards", str(tmp_path / "shards" / "*.tar")):
        (packed,) = open_sources(place).sources
        assert isinstance(packed, ShardFolder) and len(packed) == 6
    (one,) = open_sources(tmp_path / "shards" / "shard-000001.tar").sources
    assert len(one) == 2
    pytest.importorskip("webdataset")
    (stream,) = open_sources("https://example.org/{00..03}.tar").sources
    assert isinstance(stream, ShardStream) and stream.urls[3] == "https://example.org/03.tar"


def test_a_list_of_sources_with_weights(folder, tmp_path):
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": "zero"}]})
    )
    (tmp_path / "sources.toml").write_text(
        """
        [[source]]
        format = "folder"
        folder = "own"
        weight = 3

        [[source]]
        format = "coco"
        annotations = "captions.json"
        images = "own"
        weight = 1

        [[source]]
        format = "picture-book"
        pages = 100
        image_size = 64
        weight = 1
        """
    )
    mixture = open_sources(tmp_path / "sources.toml")
    assert mixture.shares == (600, 200, 200) and [len(source) for source in mixture.sources] == [6, 1, 100]
    assert mixture.sources[1][0].captions == ("zero",)
    page = mixture.sources[2].record(5).open()
    assert page.image.size == (64, 64) and len(page.captions) == 3


@pytest.mark.parametrize(
    "text,says",
    [
        ("x = 1", "must list its sources"),
        ("[[source]]\nformat = 'coko'", "did you mean 'coco'"),
        ("[[source]]\nformat = 'coco'\nimages = '.'", "coco needs annotations"),
        ("[[source]]\nformat = 'folder'\nfoldr = '.'", "folder has no 'foldr'; did you mean 'folder'"),
        ("[[source]\n", "is not TOML"),
        ("[[source]]\nformat='picture-book'\npages=3\nweight=0", "weights must be above 0"),
        (
            "[[source]]\nformat='picture-book'\npages=3\nweight=1\n[[source]]\nformat='picture-book'\npages=3",
            "each source a weight, or none",
        ),
    ],
)
def test_mistakes_in_sources_toml_are_named(tmp_path, text, says):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ValueError, match=says):
        open_sources(tmp_path / "s.toml")


def test_a_place_without_a_source_raises(tmp_path):
    for place in (tmp_path / "none", tmp_path / "none.toml", str(tmp_path / "*.tar")):
        with pytest.raises(ValueError, match="nothing to train on|no file"):
            open_sources(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="write one of these"):
        open_sources(tmp_path / "empty")


# --------------------------------------------------------------------------------------------------------------- mixing


def test_each_source_has_its_share_and_its_epochs():
    mixture = Mixture([pictures(7), pictures(5), pictures(400)], [2, 1, 1])
    picks = [pick for batch in range(200) for pick in mixture.picks(batch, 20, seed=3)]  # four blocks
    assert Counter(pick.source for pick in picks) == {0: 2000, 1: 1000, 2: 1000}
    assert Counter(pick.source for pick in picks[:BLOCK]) == {0: 500, 1: 250, 2: 250}
    for source, count in ((0, 7), (1, 5), (2, 400)):
        numbers = [pick.number for pick in picks if pick.source == source]
        epochs = [numbers[start : start + count] for start in range(0, len(numbers) - count, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_a_batch_is_a_function_of_its_number():
    mixture, again = (Mixture([pictures(7), pictures(50)], [1, 3]) for _ in range(2))
    late = again.picks(123_456_789, 16, seed=1)  # asked first, and at once
    assert mixture.picks(0, 16, seed=1) == again.picks(0, 16, seed=1) != again.picks(0, 16, seed=2)
    assert mixture.picks(123_456_789, 16, seed=1) == late
    parts = mixture.picks(10, 8, seed=1) + mixture.picks(11, 8, seed=1)
    assert parts == mixture.picks(5, 16, seed=1)  # the sequence does not depend on the batch's size


def test_a_distant_batch_costs_as_much_as_the_first():
    mixture = Mixture([pictures(100), pictures(100)])
    start = time.perf_counter()
    mixture.picks(10**9, 100, seed=0)
    assert time.perf_counter() - start < 0.5


def test_one_source_never_comes_twice_in_a_batch():
    mixture = Mixture([pictures(10)])
    for batch in range(30):
        assert len({pick.number for pick in mixture.picks(batch, 4, seed=0)}) == 4


def test_without_weights_all_examples_are_equally_frequent():
    assert Mixture([pictures(300), pictures(100)]).shares == (750, 250)
    assert Mixture([pictures(1), PictureBookPages(10**9)]).shares == (1, 999)  # a tiny source keeps a place
    assert sum(Mixture([pictures(n) for n in (1, 1, 1, 5000, 7000)]).shares) == BLOCK


def test_impossible_mixtures_raise():
    with pytest.raises(ValueError, match="no source"):
        Mixture([])
    with pytest.raises(ValueError, match="has no picture"):
        Mixture([pictures(3), pictures(0)])
    with pytest.raises(ValueError, match="stream of unknown length"):
        Mixture([pictures(3), FakeStream()])
    with pytest.raises(ValueError, match="above 0"):
        Mixture([pictures(3), pictures(3)], [1, -1])


def test_a_stream_continues_over_epochs_and_restarts():
    mixture = Mixture([FakeStream(), pictures(5)], [1, 1])
    picks = [pick for batch in range(5) for pick in mixture.picks(batch, 10, seed=0) if pick.source == 0]
    assert [pick.number for pick in picks] == list(range(len(picks)))

    def name(pick):
        try:
            return mixture.record(pick, seed=0).id
        except BrokenSample as broken:
            return broken.cause

    names = [name(pick) for pick in picks]
    assert names[:4] == ["0 0 0", "0 0 1", "0 0 2", "empty caption"] and names[10] == "0 1 0"
    resumed = Mixture([FakeStream(), pictures(5)], [1, 1])
    assert resumed.record(Pick(0, 12), seed=0).id == names[12] == "0 1 2"  # after a kill: reads up to there
    assert resumed.sources[0].read == 13
    assert name(picks[1]) == names[1]  # an earlier one begins the stream again


def test_a_stream_without_a_usable_sample_stops():
    mixture = Mixture([FakeStream(0)])
    with pytest.raises(ValueError, match="gives no usable sample"):
        mixture.record(Pick(0, 0), seed=0)


def test_held_out_examples_are_disjoint_from_the_rest():
    rest, out = split_held_out(pictures(50), 8)
    assert len(rest) == 42 and len(out) == 8 and not set(rest.numbers) & set(out.numbers)
    assert sorted([*rest.numbers, *out.numbers]) == list(range(50))
    again = split_held_out(pictures(50), 8)
    assert rest.numbers == again[0].numbers
    assert len(split_held_out(pictures(50), 40)[1]) == 10  # at most a fifth
    assert rest.record(3).id == f"x{rest.numbers[3]}"


def test_another_list_has_another_fingerprint():
    names = [
        source_fingerprint(pictures(5)),
        source_fingerprint(pictures(6)),
        source_fingerprint(pictures(5, "y")),
        source_fingerprint(Subset(pictures(5), [1])),
    ]
    names += [source_fingerprint(PictureBookPages(5)), source_fingerprint(PictureBookPages(5, seed=1))]
    assert len(set(names)) == len(names) and source_fingerprint(pictures(5)) == names[0]


# -------------------------------------------------------------------------------------------------------------- skipped


def broken(cause: str = "missing file") -> BrokenSample:
    return BrokenSample(cause, "it is gone")


def test_a_broken_sample_is_counted_and_written_once(tmp_path):
    file = tmp_path / "skipped.jsonl"
    skips = SkipLog(Mixture([pictures(100)]), 0.1, file)
    assert skips.report() == "nothing was skipped"
    for name in ("a", "b", "a"):
        skips.add(name, broken())
    skips.add("c", broken("damaged picture"))
    assert skips.report() == "skipped 3 of 100 examples: 2 missing file, 1 damaged picture"
    assert [json.loads(line)["sample"] for line in file.read_text().splitlines()] == ["a", "b", "c"]
    resumed = SkipLog(Mixture([pictures(100)]), 0.1, file)
    resumed.add("a", broken())
    assert resumed.report() == skips.report()


def test_above_the_limit_the_run_stops_with_the_causes(tmp_path):
    skips = SkipLog(Mixture([pictures(20)]), 0.1, tmp_path / "s.jsonl")
    skips.add("a", broken())
    skips.add("b", broken())
    with pytest.raises(ValueError, match=r"3 of 20 .*3 missing file.*max_broken=0.1 allows; .*s.jsonl names them"):
        skips.add("c", broken())
    source = pictures(8)
    source.left_out = [LeftOut(f"row {n}", "empty caption", "it is empty") for n in range(2)]
    source.left_out.append(LeftOut("z.png", "picture without a row", "no row"))  # nobody asked for it
    with pytest.raises(ValueError, match="2 of 10 examples cannot be used"):  # rows that were no records count as well
        SkipLog(Mixture([source]), 0.1)


def test_the_limit_of_a_stream_is_a_share_of_the_examples_seen():
    skips = SkipLog(Mixture([FakeStream()]), 0.1)
    for number in range(100):
        skips.add(str(number), broken())
    with pytest.raises(ValueError, match="101 of 1000"):
        skips.add("one more", broken())
    skips.seen = 5000
    skips.add("and another", broken())


def test_check_sources_opens_every_image(folder, tmp_path):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:50])
    (folder / "4.txt").unlink()
    *lines, report = check_sources(open_sources(folder))
    assert len(lines) == 2 and "4.png" in lines[0] and "3.png" in lines[1]
    assert report.startswith(f"{folder}: 4 pictures; skipped 2:") and "1 empty caption" in report


# ---------------------------------------------------------------------------------------------- nothing is left unnamed


def test_a_check_names_everything_and_its_file_has_all(folder, monkeypatch):
    rows = [f"gone{n}.png,x" for n in range(30)] + ["0.png,a boat", "1.png,"]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    monkeypatch.setattr("blip2_lab.data.mixture.SHOWN", 10)
    out = io.StringIO()
    sources, _ = find_sources(folder)
    lines = list(check_sources(sources, out))
    assert sum(line.startswith("missing file: ") for line in lines) == 11 and "missing file: 20 more" in lines
    assert "--out FILE writes all" in "".join(check_sources(sources))
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["sample"].rpartition(" ")[2] for one in found if one["cause"] == "missing file"] == [
        str(n) for n in range(2, 32)
    ]
    assert Counter(one["cause"] for one in found) == {
        "missing file": 30,
        "empty caption": 1,
        "picture without a row": 4,
        "text file beside a table": 6,
    }
    assert all(one["source"] == str(folder) and one["message"] for one in found)
    assert lines[-1].startswith(f"{folder}: 1 pictures; skipped 31: 30 missing file, 1 empty caption; not listed 10: ")


def test_a_check_of_a_source_without_a_usable_picture_names_all_and_fails(folder):
    (folder / "captions.csv").write_text("file,caption\nx.png,a\ny.png,b\n")
    sources, _ = find_sources(folder)
    lines = []
    with pytest.raises(ValueError, match="there is no picture with a text that can be used"):
        lines.extend(check_sources(sources))
    lines = []
    with pytest.raises(ValueError):
        for line in check_sources(sources):
            lines.append(line)
    assert sum("there is no file" in line for line in lines) == 2


def test_a_check_notes_copies_and_long_captions(folder):
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "2.txt").write_text("word " * 40)
    *notes, _ = check_sources(open_sources(folder))
    assert len(notes) == 2 and "1 pictures are copies of others (1.png of 0.png)" in notes[0]
    assert "1 pictures have a caption of more than 32 words (2.png)" in notes[1]


def test_parts_of_a_shard_that_are_not_read_are_named_by_a_check(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (3, 2)).save(stream, "PNG")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in (("0.png", stream.getvalue()), ("0.txt", b"x"), ("0.json", b'{"boxes": [[0, 0, 1, 1]]}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    named, report = check_sources(open_sources(tmp_path))
    assert named.startswith("unread part: sample '0/0': a box has another form") and "1 pictures; skipped 1" in report


def test_a_negative_number_of_held_out_pictures_is_refused():
    with pytest.raises(ValueError, match="data.held_out is -1; it must be 0"):
        split_held_out(pictures(50), -1)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("format = 'folder'\nfolder = 5", "source 1: folder = 5 is no text"),
        ("format = 5", "format 5 is none of"),
        ("format = ['coco']", "is none of"),
        ("format = 'picture-book'\npages = '5'", "pages = '5' is no whole number"),
        ("format = 'picture-book'\npages = true", "is no whole number"),
        ("format = 'picture-book'\npages = -5", "source 1: pages is -5"),
        ("format = 'shards'\nfolder = []", "is no text or list of texts"),
        ("format = 'picture-book'\npages = 5\nweight = inf", "weights must be above 0"),
        ("format = 'picture-book'\npages = 5\nweight = '2'", "weights must be above 0"),
        ("format = 'blip'\nannotations = 'no.json'\nimages = '.'", "source 1: there is no file .*no.json"),
    ],
)
def test_values_of_another_kind_in_sources_toml_are_named(tmp_path, lines, says):
    (tmp_path / "s.toml").write_text(f"[[source]]\n{lines}\n")
    with pytest.raises(ValueError, match=says):
        open_sources(tmp_path / "s.toml")


def test_a_list_of_sources_with_a_byte_order_mark(tmp_path):
    (tmp_path / "s.toml").write_text("[[source]]\nformat='picture-book'\npages=3\n", encoding="utf-8-sig")
    assert len(open_sources(tmp_path / "s.toml")) == 3
    (tmp_path / "s.toml").write_text("source = [1]")
    with pytest.raises(ValueError, match="must list its sources"):
        open_sources(tmp_path / "s.toml")


def test_rows_that_were_left_out_are_in_the_log_once(tmp_path):
    source = pictures(20)
    source.left_out = [LeftOut("captions.csv, line 3", "missing file", "there is no file")]
    for _ in range(2):  # and when the run goes on
        skips = SkipLog(Mixture([source]), 0.1, tmp_path / "skipped.jsonl")
        assert skips.report() == "skipped 1 of 21 examples: 1 missing file"
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    entry = {"sample": "x: captions.csv, line 3", "cause": "missing file", "message": "there is no file"}
    assert json.loads(line) == entry | {"opened": True}
    source.left_out = []  # the table was mended: what the file says of an earlier one does not count
    assert SkipLog(Mixture([source]), 0.1, tmp_path / "skipped.jsonl").report() == "nothing was skipped"
