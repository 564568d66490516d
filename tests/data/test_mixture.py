"""Mixtures: sources opened, mixed by weights, and batches as a function of their number."""

import json
import time
from collections import Counter

import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import ImageTextList, Record
from blip2_lab.data.mixture import (
    BLOCK,
    Mixture,
    Pick,
    PictureBookPages,
    Subset,
    find_sources,
    open_sources,
    source_fingerprint,
    split_held_out,
)
from blip2_lab.data.packing import pack
from blip2_lab.data.shards import ShardFolder
from blip2_lab.data.streams import ShardStream
from tests.tiny import listed_pictures


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


def test_the_kind_of_source_is_detected(six_pictures, tmp_path):
    (source,) = open_sources(six_pictures).sources
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


def test_a_list_of_sources_with_weights(six_pictures, tmp_path):
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
        ("[[source]]\nformat = 'folder'\nfolder = '.'\nWeight = 1", "folder has no 'Weight'; did you mean 'weight'"),
        ("[[source]]\nformat = 'folder'\nfoldr = '.'", "folder has no 'foldr'; did you mean 'folder'"),
        ("[[source]\n", "is not TOML"),
        ('[[source]]\nformat = "coco"\nformat = "folder"\n', "is not TOML: .*remove one of the two"),
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
    mixture = Mixture([listed_pictures(7), listed_pictures(5), listed_pictures(400)], [2, 1, 1])
    picks = [pick for batch in range(200) for pick in mixture.picks(batch, 20, seed=3)]  # four blocks
    assert Counter(pick.source for pick in picks) == {0: 2000, 1: 1000, 2: 1000}
    assert Counter(pick.source for pick in picks[:BLOCK]) == {0: 500, 1: 250, 2: 250}
    for source, count in ((0, 7), (1, 5), (2, 400)):
        numbers = [pick.number for pick in picks if pick.source == source]
        epochs = [numbers[start : start + count] for start in range(0, len(numbers) - count, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_a_batch_is_a_function_of_its_number():
    mixture, again = (Mixture([listed_pictures(7), listed_pictures(50)], [1, 3]) for _ in range(2))
    late = again.picks(123_456_789, 16, seed=1)  # asked first, and at once
    assert mixture.picks(0, 16, seed=1) == again.picks(0, 16, seed=1) != again.picks(0, 16, seed=2)
    assert mixture.picks(123_456_789, 16, seed=1) == late
    parts = mixture.picks(10, 8, seed=1) + mixture.picks(11, 8, seed=1)
    assert parts == mixture.picks(5, 16, seed=1)  # the sequence does not depend on the batch's size


def test_a_distant_batch_costs_as_much_as_the_first():
    mixture = Mixture([listed_pictures(100), listed_pictures(100)])
    start = time.perf_counter()
    mixture.picks(10**9, 100, seed=0)
    assert time.perf_counter() - start < 0.5


def test_one_source_never_comes_twice_in_a_batch():
    mixture = Mixture([listed_pictures(10)])
    for batch in range(30):
        assert len({pick.number for pick in mixture.picks(batch, 4, seed=0)}) == 4


def test_without_weights_all_examples_are_equally_frequent():
    assert Mixture([listed_pictures(300), listed_pictures(100)]).shares == (750, 250)
    assert Mixture([listed_pictures(1), PictureBookPages(10**9)]).shares == (1, 999)  # a tiny source keeps a place
    assert sum(Mixture([listed_pictures(n) for n in (1, 1, 1, 5000, 7000)]).shares) == BLOCK


def test_impossible_mixtures_raise():
    with pytest.raises(ValueError, match="no source"):
        Mixture([])
    with pytest.raises(ValueError, match="has no picture"):
        Mixture([listed_pictures(3), listed_pictures(0)])
    with pytest.raises(ValueError, match="stream of unknown length"):
        Mixture([listed_pictures(3), FakeStream()])
    with pytest.raises(ValueError, match="above 0"):
        Mixture([listed_pictures(3), listed_pictures(3)], [1, -1])


def test_a_stream_continues_over_epochs_and_restarts():
    mixture = Mixture([FakeStream(), listed_pictures(5)], [1, 1])
    picks = [pick for batch in range(5) for pick in mixture.picks(batch, 10, seed=0) if pick.source == 0]
    assert [pick.number for pick in picks] == list(range(len(picks)))

    def name(pick):
        try:
            return mixture.record(pick, seed=0).id
        except BrokenSample as broken:
            return broken.cause

    names = [name(pick) for pick in picks]
    assert names[:4] == ["0 0 0", "0 0 1", "0 0 2", "empty caption"] and names[10] == "0 1 0"
    resumed = Mixture([FakeStream(), listed_pictures(5)], [1, 1])
    assert resumed.record(Pick(0, 12), seed=0).id == names[12] == "0 1 2"  # after a kill: reads up to there
    assert resumed.sources[0].read == 13
    assert name(picks[1]) == names[1]  # an earlier one begins the stream again


def test_a_stream_without_a_usable_sample_stops():
    mixture = Mixture([FakeStream(0)])
    with pytest.raises(ValueError, match="gives no usable sample"):
        mixture.record(Pick(0, 0), seed=0)


def test_held_out_examples_are_disjoint_from_the_rest():
    rest, out = split_held_out(listed_pictures(50), 8)
    assert len(rest) == 42 and len(out) == 8 and not set(rest.numbers) & set(out.numbers)
    assert sorted([*rest.numbers, *out.numbers]) == list(range(50))
    again = split_held_out(listed_pictures(50), 8)
    assert rest.numbers == again[0].numbers
    assert len(split_held_out(listed_pictures(50), 40)[1]) == 10  # at most a fifth
    assert rest.record(3).id == f"x{rest.numbers[3]}"


def test_another_list_has_another_fingerprint():
    names = [
        source_fingerprint(listed_pictures(5)),
        source_fingerprint(listed_pictures(6)),
        source_fingerprint(listed_pictures(5, "y")),
        source_fingerprint(Subset(listed_pictures(5), [1])),
    ]
    names += [source_fingerprint(PictureBookPages(5)), source_fingerprint(PictureBookPages(5, seed=1))]
    assert len(set(names)) == len(names) and source_fingerprint(listed_pictures(5)) == names[0]


# -------------------------------------------------------------------------------------------------------------- skipped


# ---------------------------------------------------------------------------------------------- nothing is left unnamed


def test_a_negative_number_of_held_out_pictures_is_refused():
    with pytest.raises(ValueError, match="data.held_out is -1; it must be 0"):
        split_held_out(listed_pictures(50), -1)


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


def lists(tmp_path, text: str):
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 3)).save(tmp_path / name / "a.png")
        (tmp_path / name / "a.txt").write_text("a boat")
    (tmp_path / "s.toml").write_text(text)
    return find_sources(tmp_path / "s.toml")


FOLDER = "[[source]]\nformat = 'folder'\nfolder = {}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FOLDER.format("'p'") + FOLDER.format("'./p/'"), "source 2 is the same as source 1"),
        (FOLDER.format("''"), "source 1: folder is empty: give a path"),
        (FOLDER.format('"C:\\pics"'), "is not TOML: .*single quotes"),
        (
            FOLDER.format("'p'") + "weight = '2'",
            "source 1: weights must be above 0, and this is '2': write a number such as 2",
        ),
        (
            FOLDER.format("'p'") + "weight = true",
            "source 1: weights must be above 0, and this is True: write a number such as 2",
        ),
        (FOLDER.format("'p'") + f"weight = {10**400}", "source 1: weights must be above 0"),
        ("[[source]]\nfolder = 'p'", "source 1 has no format"),
        ("seed = 3\n" + FOLDER.format("'p'"), "it has 'seed'"),
        ("[[sources]]\nformat = 'folder'", "it has 'sources'"),
        ("[[source]]\nformat = 'picture-book'\npages = 2\nsplit = 'x'", "source 1: unknown split"),
        ("[[source]]\nformat = 'picture-book'\npages = 2\nimage_size = 5", "source 1: a picture can be"),
    ],
)
def test_a_list_of_sources_is_checked_when_it_is_opened(tmp_path, text, says):
    with pytest.raises(ValueError, match=f"s.toml.*{says}"):
        lists(tmp_path, text)


def test_paths_of_windows_and_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sources, _ = lists(tmp_path, FOLDER.format("'.\\p'") + FOLDER.format("'~/q'"))
    assert [source.records[0].file.parent.name for source in sources] == ["p", "q"]


def test_two_sources_of_one_name_are_told_apart(tmp_path):
    """What is left out is counted by the source's name: two pictures of one name would be counted as one."""
    entries = {"images": [{"id": 1, "file_name": "gone.png"}], "annotations": [{"image_id": 1, "caption": "x"}]}
    (tmp_path / "x.json").write_text(json.dumps(entries))
    entry = "[[source]]\nformat = 'coco'\nannotations = 'x.json'\nimages = '{}'\n"
    sources, _ = lists(tmp_path, entry.format("p") + entry.format("q"))
    assert all(source.name.endswith(f"x.json (source {number})") for number, source in enumerate(sources, 1))


@pytest.mark.parametrize(("place", "says"), [("", "is empty: give a folder"), ("hf: ", "write hf:owner/name")])
def test_a_place_without_a_name(place, says):
    with pytest.raises(ValueError, match=says):
        find_sources(place)


def test_a_place_that_is_not_there_is_told(six_pictures):
    with pytest.raises(ValueError, match="There is nothing of this name; did you mean 'own'"):
        open_sources(six_pictures.parent / "owns")
    with pytest.raises(ValueError, match="nothing of this name; a data set of the hub is hf:owner/flickr30k"):
        open_sources("owner/flickr30k")
    with pytest.raises(ValueError, match="nothing of this name$"):
        open_sources("~/flickr30k")
    (table := six_pictures.parent / "x.parquet").touch()
    with pytest.raises(ValueError, match='name = "parquet", data_files = ".*x.parquet"'):
        open_sources(table)
    with pytest.raises(ValueError, match="Braces stand for addresses only"):
        open_sources(six_pictures / "x-{000..099}.tar")
