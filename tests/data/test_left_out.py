"""What cannot be used is counted, named and limited."""

import io
import json
import tarfile
from collections import Counter

import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import AskedQuestion, ImageTextList, LeftOut, Record
from blip2_lab.data.left_out import SkipLog, check_sources
from blip2_lab.data.mixture import (
    Mixture,
    find_sources,
    open_sources,
)
from tests.data.test_mixture import FakeStream
from tests.tiny import encoded, listed_pictures


def broken(cause: str = "missing file") -> BrokenSample:
    return BrokenSample(cause, "it is gone")


def test_one_caption_for_all_pictures_is_a_note(six_pictures):
    assert not any("same caption" in line for line in check_sources(open_sources(six_pictures)))
    for text in six_pictures.glob("*.txt"):
        text.write_text("a boat")
    said = list(check_sources(open_sources(six_pictures)))
    assert any("every picture has the same caption ('a boat')" in line for line in said)


def test_a_broken_sample_is_counted_and_written_once(tmp_path):
    file = tmp_path / "skipped.jsonl"
    skips = SkipLog(Mixture([listed_pictures(100)]), 0.1, file)
    assert skips.report() == "nothing was skipped"
    for name in ("a", "b", "a"):
        skips.add(name, broken())
    skips.add("c", broken("damaged picture"))
    assert skips.report() == "skipped 3 of 100 examples: 2 missing file, 1 damaged picture"
    assert [json.loads(line)["sample"] for line in file.read_text().splitlines()] == ["a", "b", "c"]
    resumed = SkipLog(Mixture([listed_pictures(100)]), 0.1, file)
    resumed.add("a", broken())
    assert resumed.report() == skips.report()


def test_above_the_limit_the_run_stops_with_the_causes(tmp_path):
    skips = SkipLog(Mixture([listed_pictures(20)]), 0.1, tmp_path / "s.jsonl")
    skips.add("a", broken())
    skips.add("b", broken())
    with pytest.raises(ValueError, match=r"3 of 20 .*3 missing file.*allows, .*s.jsonl names them, .*data check"):
        skips.add("c", broken())
    source = listed_pictures(8)
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


def test_check_sources_opens_every_image(six_pictures, tmp_path):
    (six_pictures / "3.png").write_bytes((six_pictures / "3.png").read_bytes()[:50])
    (six_pictures / "4.txt").unlink()
    *lines, report = check_sources(open_sources(six_pictures))
    assert len(lines) == 2 and "4.png" in lines[0] and "3.png" in lines[1]
    assert report.startswith(f"{six_pictures}: 4 pictures; skipped 2:") and "1 empty caption" in report


def test_a_check_names_everything_and_its_file_has_all(six_pictures, monkeypatch):
    rows = [f"gone{n}.png,x" for n in range(30)] + ["0.png,a boat", "1.png,"]
    (six_pictures / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    monkeypatch.setattr("blip2_lab.data.left_out.SHOWN", 10)
    out = io.StringIO()
    sources, _ = find_sources(six_pictures)
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
    assert all(one["source"] == str(six_pictures) and one["message"] for one in found)
    assert lines[-1].startswith(
        f"{six_pictures}: 1 picture; skipped 31: 30 missing file, 1 empty caption; not listed 10: "
    )


def test_a_check_of_a_source_without_a_usable_picture_names_all_and_fails(six_pictures):
    (six_pictures / "captions.csv").write_text("file,caption\nx.png,a\ny.png,b\n")
    sources, _ = find_sources(six_pictures)
    lines = []
    with pytest.raises(ValueError, match="there is no picture with a text that can be used"):
        lines.extend(check_sources(sources))
    lines = []
    with pytest.raises(ValueError):
        for line in check_sources(sources):
            lines.append(line)
    assert sum("there is no file" in line for line in lines) == 2


def test_a_check_notes_copies_and_long_captions(six_pictures):
    (six_pictures / "1.png").write_bytes((six_pictures / "0.png").read_bytes())
    (six_pictures / "2.txt").write_text("word " * 40)
    (six_pictures / "3.txt").write_text("caf\N{REPLACEMENT CHARACTER}", encoding="utf-8")
    *notes, _ = check_sources(open_sources(six_pictures))
    assert "1 picture has a text with \N{REPLACEMENT CHARACTER} (3.png)" in notes.pop()
    assert len(notes) == 2 and "1 picture is a copy of another (1.png of 0.png)" in notes[0]
    assert "1 picture has a caption of more than 32 words (2.png)" in notes[1]


def test_a_check_notes_captions_that_say_nothing_and_marks_that_nobody_sees(six_pictures):
    (six_pictures / "1.txt").write_text("?!")
    (six_pictures / "2.txt").write_text("a\u200bboat")
    *notes, _ = check_sources(open_sources(six_pictures))
    assert any("1 picture has a caption without a word (1.png)" in note for note in notes)
    assert any("characters that cannot be seen (2.png: U+200B)" in note for note in notes)


def test_parts_of_a_shard_that_are_not_read_are_named_by_a_check(tmp_path):
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "PNG")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in (("0.png", stream.getvalue()), ("0.txt", b"x"), ("0.json", b'{"boxes": [[0, 0, 1, 1]]}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    named, report = check_sources(open_sources(tmp_path))
    assert named.startswith("unread part: sample '0/0': a box has another form") and "1 picture; skipped 1" in report


def test_rows_that_were_left_out_are_in_the_log_once(tmp_path):
    source = listed_pictures(20)
    source.left_out = [LeftOut("captions.csv, line 3", "missing file", "there is no file")]
    for _ in range(2):  # and when the run goes on
        skips = SkipLog(Mixture([source]), 0.1, tmp_path / "skipped.jsonl")
        assert skips.report() == "skipped 1 of 21 examples: 1 missing file"
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    entry = {"sample": "x: captions.csv, line 3", "cause": "missing file", "message": "there is no file"}
    assert json.loads(line) == entry | {"opened": True}
    source.left_out = []  # the table was mended: what the file says of an earlier one does not count
    assert SkipLog(Mixture([source]), 0.1, tmp_path / "skipped.jsonl").report() == "nothing was skipped"


def test_animations_and_unanswered_questions_are_noted(tmp_path):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    source = ImageTextList([Record(tmp_path / "a.gif", (), (AskedQuestion("q?"),), id="a")], name="own")
    lines = list(check_sources([source]))
    assert lines[0] == "note: 1 picture has several frames or pages (a): the first one is read"
    assert lines[1].startswith("note: 1 picture has a question without an answer (a)")


def test_captions_of_another_encoding_or_of_a_web_page_are_a_note(six_pictures):
    assert not any(line.startswith("note") for line in check_sources(open_sources(six_pictures)))
    (six_pictures / "1.txt").write_text("a cafÃ© table", encoding="utf-8")
    (six_pictures / "2.txt").write_text("salt &amp; pepper<br>")
    notes = [line for line in check_sources(open_sources(six_pictures)) if line.startswith("note")]
    assert "1 picture has a text whose UTF-8 was read as Latin-1" in notes[0] and "1.png: 'a café table'" in notes[0]
    assert "1 picture has a text with marks of a web page (2.png: '&amp;')" in notes[1]


def test_escapes_of_other_programs_are_a_note(six_pictures):
    (six_pictures / "1.txt").write_text("a big\\, red dog\na caf\\u00e9")
    (six_pictures / "2.txt").write_text("a back\\slash")
    (note,) = [line for line in check_sources(open_sources(six_pictures)) if line.startswith("note")]
    assert "1 picture has a text with an escape of another program (1.png: \\,)" in note


def test_every_odd_text_is_in_the_file_of_a_check_and_is_used(six_pictures):
    (six_pictures / "1.txt").write_text("a_red_boat")
    (six_pictures / "2.txt").write_text("a photo of a {}\na_green_boat")
    out = io.StringIO()
    *notes, report = check_sources(open_sources(six_pictures), out)
    assert report.endswith("6 pictures, nothing skipped") and len(notes) == 2
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {(line["sample"], line["cause"].removeprefix("noted: ")) for line in lines} == {
        ("1.png", "a text with words that are joined to one"),
        ("2.png", "a text with words that are joined to one"),
        ("2.png", "a text in which something was to be filled in"),
    }


def test_a_caption_that_most_pictures_have_is_a_note(tmp_path):
    for number in range(9):
        Image.linear_gradient("L").rotate(number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a boat" if number < 6 else f"{number} cats")
    (note,) = [line for line in check_sources(open_sources(tmp_path)) if line.startswith("note")]
    assert "6 of 9 pictures have the same caption ('a boat')" in note


def test_a_formula_in_place_of_a_text_is_named(tmp_path):
    for number in range(3):
        Image.linear_gradient("L").rotate(90 * number).save(tmp_path / f"{number}.png")
    rows = ['0.png,"=HYPERLINK(""x"")",,', "1.png,a boat,,", "2.png,,what is it?,=B2"]
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption,question,answer", *rows]))
    skipped, note, report = check_sources(open_sources(tmp_path))
    assert "captions.csv, line 2: the caption is '=HYPERLINK" in skipped and "save the table with its values" in skipped
    assert "1 picture has a formula of a spreadsheet in place of an answer (2.png: '=B2')" in note
    assert "2 pictures" in report and "1 caption is no text" in report


def test_pictures_on_which_nothing_can_be_seen_are_a_note(six_pictures):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(six_pictures / "1.png")  # white, once it is read
    Image.new("L", (1, 1)).save(six_pictures / "2.png")
    (note,) = [line for line in check_sources(open_sources(six_pictures)) if line.startswith("note")]
    assert "2 pictures have one color everywhere (1.png)" in note


@pytest.mark.parametrize(
    "cell",
    [
        "0 0.5 0.5 0.2 0.2",
        "IMG_0001.JPG",
        "https://x.org/a",
        "1.png,a boat",
        '{"a": "b"}',
        "b'a boat'",
        "array(['a boat'])",
        "TRUE",
        "1.2346E+11",
        "-inf",
        "2024-01-05T10:30:00Z",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_captions_that_are_cells_of_other_columns_are_a_note(six_pictures, cell):
    (six_pictures / "1.txt").write_text(cell)  # numbers: as detectors write boxes
    (six_pictures / "2.txt").write_text("7 boats")
    (six_pictures / "3.txt").write_text("a boat, from https://x.org/a.jpg")
    (note,) = [line for line in check_sources(open_sources(six_pictures)) if line.startswith("note")]
    assert f"1 picture has a caption that seems to be no text (1.png: {cell!r})" in note


def test_one_picture_with_a_caption_is_not_every_picture(tmp_path):
    for number in range(2):
        Image.linear_gradient("L").rotate(90 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "captions.csv").write_text("file,caption,question,answer\n0.png,x,,\n1.png,,what?,a boat\n")
    assert not any(line.startswith("note") for line in check_sources(open_sources(tmp_path)))


def test_a_parquet_file_on_this_disk_is_checked(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    contents = [encoded(1), None, b"junk", encoded(2)]
    images = [{"bytes": content, "path": None} for content in contents]
    pandas.DataFrame({"image": images, "caption": ["one", "two", "three", None]}).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "sources.toml").write_text(
        '[[source]]\nformat = "huggingface"\nname = "parquet"\ndata_files = "x.parquet"\n'
    )
    *said, report = check_sources(find_sources(tmp_path / "sources.toml")[0])
    assert report.startswith("parquet: 1 picture; skipped 3:")
    causes = {line.partition(":")[0] for line in said} - {"note"}
    assert causes == {"sample without a picture", "not a picture", "empty caption"}
