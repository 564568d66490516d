"""Text and JSON that others wrote: encodings, lines, captions in a JSON value."""

import bz2
import gzip
import json
import lzma
import os

import pytest

from blip2_lab.data.text_files import (
    captions_in,
    decode_text,
    is_blank,
    is_number,
    lines_of,
    parse_json,
    read_text,
    texts_in,
    turns_in,
    unseen,
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a red boat\r\n".encode("utf-16"), "UTF-16"),  # Windows PowerShell: echo a red boat > a.txt
        ("a red boat".encode("utf-16-le"), "line 1 has a zero byte"),
        ("one\nun café".encode("latin-1"), "line 2 has the byte 0xe9"),
        ("赤い船".encode("shift-jis"), "line 1 has the byte"),
        (b"it\x92s", "0x92"),
        (b"one\rcaf\x8e\r", "line 2 has the byte 0x8e"),  # Mac OS Roman: lines end in CR
    ],
)
def test_what_is_not_utf_8_is_refused_with_its_line(content, says):
    with pytest.raises(ValueError, match=says) as error:
        decode_text(content, "a.txt")
    assert str(error.value).startswith("a.txt is not UTF-8") and "save it as UTF-8" in str(error.value)


def test_a_byte_order_mark_is_no_character():
    assert decode_text("\ufeffa café".encode(), "a.txt") == "a café"


def test_lines():
    assert lines_of("a\r\nb\rc\nd\u2028e\u0085f\x0bg\n\n") == ["a", "b", "c", "d\u2028e\u0085f\x0bg", ""]
    assert lines_of("") == [] and lines_of("a") == ["a"] and lines_of("\n") == [""]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "captions.csv")
    with pytest.raises(ValueError, match="captions.csv is a pipe or a device, not a file"):
        read_text(tmp_path / "captions.csv")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_text("a\0b")
    for place, says in ((tmp_path, "is a folder"), (tmp_path / "none", "there is no file .*COCO's captions")):
        with pytest.raises(ValueError, match=says):
            read_text(place, "COCO's captions")
    with pytest.raises(ValueError, match="x.json is not JSON: .*line 2, column 1"):
        parse_json('{"a":\n', "x.json")
    for name, remedy in (
        ("x.json", "it has a value on each line, give it the ending .jsonl"),
        ("its json", "several values"),
    ):
        with pytest.raises(ValueError, match=remedy):
            parse_json('{"a": 1}\n{"a": 2}\n', name)


@pytest.mark.parametrize(
    ("value", "captions", "problems"),
    [
        (" a boat ", ["a boat"], 0),
        (["a boat", "a ship"], ["a boat", "a ship"], 0),
        ([{"raw": "a boat", "sentid": 1}, {"raw": "a ship"}], ["a boat", "a ship"], 0),
        ({"caption": "a boat"}, ["a boat"], 0),
        ({"en": "a boat", "de": "ein Boot"}, [], 1),
        ({"raw": "a boat", "text": "a ship"}, [], 1),  # which?
        (["a boat", 5, None, ["x"]], ["a boat"], 3),
        *[
            (value, [], 1)
            for value in (
                None,
                "",
                " ",
                float("nan"),
                5,
                True,
                {},
                [],
                "\ud800",
                "nan",
                "None",
                "N/A",
                "NA",
                "undefined",
            )
        ],
    ],
)
def test_captions_in_a_value(value, captions, problems):
    found, wrong = captions_in(value)
    assert found == captions and len(wrong) == problems


def test_an_answer_may_be_none():
    assert texts_in("none") == (["none"], [])


def test_what_cannot_be_seen():
    assert unseen("a\u200bboat \x07\u200b\u200f") == "\u200b\x07\u200f"
    assert unseen("a \ue000 boat") == "\ue000"
    assert unseen("a\tboat\n \u0645\u06cc\u200c\u062e") == ""  # Persian joins letters so


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,caption\na.png,one\n".encode("utf-32"), "not UTF-8 text but UTF-32 text: save it as UTF-8"),
        ("file,caption\n".encode("utf-16"), "not UTF-8 text but UTF-16 text .*: save it as UTF-8"),
        (gzip.compress(b"file,caption\n", mtime=0), "but a gzip archive: unpack it with gunzip"),
        (bz2.compress(b"file,caption\n"), "but a bzip2 archive"),
        (lzma.compress(b"file,caption\n"), "but an xz archive"),
        (b"PK\x03\x04xlsx", "but a zip archive or an Excel file: .* save the table as CSV"),
        (b"PAR1\x15\x04", "but a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS: run `git lfs pull`"),
        (b"<!DOCTYPE html><html>", "a web page: download the file again"),
        (b"{\\rtf1\\ansi a boat}", "an RTF document"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    ],
)
def test_a_file_that_is_no_text_is_told_for_what_it_is(content, says):
    with pytest.raises(ValueError, match=says):
        decode_text(content, "captions.csv")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u2060", "\x1a", "\u200e\u00ad", ""])
def test_a_text_of_which_nothing_can_be_seen_is_empty(text):
    assert texts_in(text) == ([], ["is empty"])
    assert not is_blank(f"{text}.") and texts_in(f"a{text}")[1] == []


def test_a_zero_byte_that_jsons_escapes_wrote_is_named():
    assert texts_in(json.loads('"a\\u0000b"')) == ([], ["has a zero byte"])


def test_numbers_of_any_size():
    assert [is_number(one) for one in (1, 2.5, True, None, "1", float("nan"), float("inf"), 10**400)] == [
        True,
        True,
        *[False] * 6,
    ]


def test_the_turns_of_a_conversation():
    turns = [
        {"from": "human", "value": "<image>\nwhat is it?"},
        {"from": "gpt", "value": "a boat <image>"},
        {"role": "user", "content": "its color?"},
        {"role": "assistant", "content": "red"},
        {"from": "gpt", "value": "more"},
        {"from": "system", "value": "be brief"},
        {"from": "human", "value": "<image>"},
        {"from": "human", "value": "and?"},
    ]
    pairs, problems = turns_in(turns)
    assert pairs == [("what is it?", "a boat <image>"), ("its color?", "red")]
    assert [problem.split(" of ")[0] for problem in problems] == [
        "has in turn 5 an answer without a question",
        "has in turn 6 no text",
        "has in turn 7 no text",
        "ends with a question without an answer",
    ]
    assert turns_in("x") == ([], ["is no list of turns"])


def test_a_wrong_byte_behind_a_byte_order_mark_is_named():
    with pytest.raises(ValueError, match=r"captions.txt is not UTF-8 text: line 1 has the byte 0xe2; save it as UTF-8"):
        decode_text(b"\xef\xbb\xbf\xc3\xa9\xe2\x80", "captions.txt")


@pytest.mark.parametrize("value", ["NaT", r"\N", "#REF!", "#NAME?", "#DIV/0!", "#SPILL!", "#WERT!", "Err:508", "n.a."])
def test_what_databases_and_spreadsheets_write_for_nothing_is_no_caption(value):
    captions, (problem,) = captions_in(value)
    assert not captions and "for a missing value" in problem


def test_a_number_of_thousands_of_digits_has_a_remedy():
    with pytest.raises(ValueError, match="x is not JSON: a number has thousands of digits, write it as a text"):
        parse_json("9" * 5000, "x")


def test_a_link_to_nothing_is_told(tmp_path):
    (tmp_path / "a.txt").symlink_to("nothing.txt")
    with pytest.raises(ValueError, match="there is no file .*a.txt: it is a link to nothing"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "text",
    [
        "=A1&B1",
        "=$B$2",
        "= concat(A1, B1)",
        '=HYPERLINK("https://x.org/a.jpg";"a boat")',
        "'=SUM(A1:A9)",
        "{=SUM(A1:A9*B1:B9)}",
        "=-A1",
        "=Sheet1!A1",
        "='My boats'!A1",
        "=Boats[caption]",
        '="a boat"',
        "=1+2",
        "=TRUE",
        "=cmd|' /C calc'!A0",
        "@SUM(A1)",
        "+A1+B1",
        "-AB12",
    ],
)
def test_a_formula_of_a_spreadsheet_is_no_caption(text):
    captions, (problem,) = captions_in([text, "a boat"])
    assert captions == ["a boat"] and f"is {text[:40]!r}, a formula of a spreadsheet" in problem


@pytest.mark.parametrize(
    "text",
    ["= a boat", "=) a happy cat", "== boats ==", "2+2=4", "-5 degrees", "+1", "@home in bed", "-A4 paper", "=D"],
)
def test_a_text_that_begins_as_a_formula_is_a_caption(text):
    assert captions_in(text) == ([text], [])
