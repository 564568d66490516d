"""Tables of images and texts: separators, names of columns, quotes, rows with too many cells."""

import json

import pytest

from blip2_lab.data.tables import read_table
from blip2_lab.data.text_files import texts_in


def read(tmp_path, text: str, name: str = "captions.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_table(tmp_path / name)


def pairs(table) -> list[tuple]:
    return [(row.file, *row.captions) for row in table.rows]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_ends_of_lines(tmp_path, mark, end):
    text = end.join([f"file{mark}caption", f'a.png{mark}"one{mark}two"', "", f"b.png{mark}a red cat"]) + end
    table = read(tmp_path, text)
    assert pairs(table) == [("a.png", f"one{mark}two"), ("b.png", "a red cat")]
    assert [row.place.rpartition(", ")[2] for row in table.rows] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    "header",
    [
        "file,caption",
        "image,text",
        "filename,description",
        "file_name,text",
        "File,Caption",
        "file, caption",
        "path,sentence",
        "filepath,title",
    ],
)
def test_other_names_of_the_columns(tmp_path, header):
    assert pairs(read(tmp_path, f"{header}\na.png, a boat\n")) == [("a.png", "a boat")]


def test_what_excel_and_others_write(tmp_path):
    assert pairs(read(tmp_path, "\ufeffsep=;\r\nfile;caption\r\na.png;a boat;;\r\n;;;\r\n")) == [("a.png", "a boat")]
    kaggle = "image_name| comment_number| comment\n1.jpg| 0| Two men , outside .\n"  # Flickr30k's results.csv
    assert pairs(read(tmp_path, kaggle)) == [("1.jpg", "Two men , outside .")]


def test_a_row_that_ends_before_its_text(tmp_path):
    """Flickr30k's results.csv has such a row: a bar is missing, and the caption is in the column before."""
    table = read(
        tmp_path, "image_name| number| comment\n1.jpg| 0| A dog .\n1.jpg| 4   A dog runs .\n2.jpg\n3.jpg| 0|\n"
    )
    assert pairs(table) == [("1.jpg", "A dog ."), ("3.jpg", None)]
    missing = "and the table has 3 columns: its text is missing, or a separator before it"
    assert [one.message.partition(" has ")[2] for one in table.left_out] == [
        f"2 cells, {missing}",
        f"1 cell, {missing}",
    ]


def test_commas_of_prose_are_a_part_of_the_caption(tmp_path):
    """Flickr8k's captions.txt is such a file. What is not clearly prose is left out and named."""
    table = read(
        tmp_path,
        "image,caption\n"
        "a.png,a red boat, on the beach, at night\n"
        "b.png,1,000 boats\n"  # 1 and 000, or one number?
        'c.png,"a boat", red\n'
        "d.png,a boat,5\n",
    )
    assert pairs(table) == [("a.png", "a red boat, on the beach, at night")]
    assert [one.sample.rpartition(", ")[2] for one in table.left_out] == ["line 3", "line 4", "line 5"]
    assert {one.cause for one in table.left_out} == {"row with too many cells"}
    assert "in quotes" in table.left_out[0].message
    three = read(tmp_path, "file,score,caption\na.png,5,a boat, red\nb.png,a cat, white,5\n")
    assert pairs(three) == [("a.png", "a boat, red")] and len(three.left_out) == 1


def test_several_captions(tmp_path):
    assert pairs(read(tmp_path, "file,caption,caption\na.png,one,two\nb.png,,two\n")) == [
        ("a.png", "one", "two"),
        ("b.png", "two"),
    ]
    table = read(tmp_path, "file,caption\na.png,\"['one thing', 'two things']\"\nb.png,[a cat]\n")
    assert table.rows[0].captions == (["one thing", "two things"],) and table.rows[1].captions == ("[a cat]",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('file,caption\na.png,"a boat\nb.png,a cat\n', "line 2 has a quote that is never closed"),
        ('file,caption\na.png,"a boat\nb.png,a cat"\nc.png,x\n', "line 2 has a quote that spans other rows"),
        ('file,n,caption\na.png,"0.5,a\nb.png",0.5,b\n', "line 2 has a quote that spans other rows"),
        ('caption,file\n"a boat,a.png\na cat",b.png\n', "line 2 has a quote that spans other rows"),
        ('file,caption\na.png,a boat\nb.png,"a "red" cat"\n', "line 3 has a quote in the middle of a quoted cell"),
        (f"file,caption\na.png,a boat\nb.png,{'x' * 140_000}\n", "line 3 has a cell of more than 131,072 characters"),
        ("file,file,caption\na.png,b.png,x\n", "2 columns 'file'"),
        ("picture;words\na.png;x\n", "no column caption and no column file: its columns are 'picture', 'words'"),
        ("a.png,a boat\nb.png,a cat\n", "its columns are 'a.png', 'a boat'"),
        ("file,caption\n", "has no rows"),
        ("\n \n", "is empty"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, text, says):
    with pytest.raises(ValueError, match=says) as error:
        read(tmp_path, text)
    assert "captions.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_caption_of_several_lines_is_read(tmp_path):
    assert pairs(read(tmp_path, 'file,caption\na.png,"one\ntwo, three"\nb.png,x\n')) == [
        ("a.png", "one\ntwo, three"),
        ("b.png", "x"),
    ]


def test_columns_that_are_not_read_are_noted(tmp_path):
    (note,) = read(tmp_path, ",file,caption,score,text\n0,a.png,x,5,other\n").notes
    assert note.endswith("columns that are not read: one without a name, score, text")


def test_json_lines_keep_every_character(tmp_path):
    """U+2028 and U+0085 end a line for `str.splitlines`, and not in JSON."""
    rows = [{"file": "a.png", "caption": "a\u2028b\u0085c"}, {"image": "b.png", "text": ["x", "y"], "score": 1}]
    table = read(tmp_path, "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "captions.jsonl")
    assert pairs(table) == [("a.png", "a\u2028b\u0085c"), ("b.png", ["x", "y"])]
    assert table.notes[0].endswith("score")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"file": "a.png", "caption": "x"}\n[1]\n', "line 2 is not an object"),
        (
            '{"file": "a.png", "caption": "x", "caption": "y"}\n',
            "line 1 is not JSON: an object has the key 'caption' twice",
        ),
        ('{"file": "a.png", "caption": "x", "Caption": "y"}\n', "line 1 has a key twice"),
        ('{"file": "a.png", "words": "x"}\n', "no column caption: its columns are 'file', 'words'"),
        ("[" * 100_000 + "\n", "line 1 is not JSON: its brackets are nested too deeply"),
        ('{"file": ' + "1" * 5000 + "}\n", "line 1 is not JSON"),
        ("\n\n", "has no rows"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text, "captions.jsonl")


def test_lists_that_other_programs_wrote_in_a_cell(tmp_path):
    """JSON's null, and numpy's form without commas, which Python would join to one text."""
    rows = ['a.png,"[""one"", null]"', "b.png,\"['one' 'two']\"", "c.png,\"['a boat', nan]\"", "d.png,('a boat')"]
    table = read(tmp_path, "\n".join(["file,caption", *rows, "e.png,(1)", 'f.png,"[""caf\\u00e9""]"']))
    assert table.rows[0].captions == (["one", None],) and table.rows[5].captions == (["café"],)
    for row in table.rows[1:3]:
        captions, (problem,) = texts_in(row.captions[0])
        assert not captions and 'no list that can be read: write it as ["one", "two"]' in problem
    assert [row.captions for row in table.rows[3:5]] == [("('a boat')",), ("(1)",)]
    (row,) = read(tmp_path, "file,question,answer\na.png,what?,\"['x', 'y']\"\n").rows
    assert row.answer == ["x", "y"]


@pytest.mark.parametrize("names", [("a.heic", "b.heic"), ("a", "b")])
def test_a_quote_that_spans_rows_about_pictures_of_any_name(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="line 2 has a quote that spans other rows"):
        read(tmp_path, f'file,caption\n{names[0]},"x\n{names[1]},y"\n')


def test_a_second_caption_under_another_name_is_noted_where_other_rows_use_that_name(tmp_path):
    rows = [{"file": "a.png", "text": "one"}, {"file": "b.png", "caption": "two", "text": "three"}]
    table = read(tmp_path, "\n".join(map(json.dumps, rows)), "captions.jsonl")
    assert pairs(table) == [("a.png", "one"), ("b.png", "two")] and table.notes[0].endswith("not read: text")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"file": "a.png", "caption": "x"},\n{"file": "b.png", "caption": "y"}]', "line 1 is not one whole object"),
        ('{\n"file": "a.png"}', "line 1 is not one whole object: write one object on each line"),
        ('{"file": "a.png", "caption": "x"},\n', "line 1 is not JSON: .*, column 34: remove the comma after it"),
        ('{"file": "a.png", "caption": "x",}\n', "remove the comma before }"),
        ("{'file': 'a.png'}\n", "write keys and texts in double quotes"),
        ('{"file": "a.png", "caption": "x\n', "it ends too early"),
        ('{"image": "a.png", "conversations": []}\n', 'sources.toml, with format = "llava"'),
    ],
)
def test_json_lines_of_another_form_say_what_to_do(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text, "captions.jsonl")


@pytest.mark.parametrize("header", ["file,caption,source", "file,caption,"])
def test_a_caption_that_seems_to_go_on_in_the_next_column_is_left_out(tmp_path, header):
    rows = ["a.png,a red, round boat", "b.png,a boat,flickr", 'c.png,"a red, round boat", flickr', "d.png, x, flickr"]
    table = read(tmp_path, "\n".join([header, *rows]))
    assert pairs(table) == [("b.png", "a boat"), ("c.png", "a red, round boat"), ("d.png", "x")]
    (left_out,) = table.left_out
    assert left_out.message.endswith("put the caption in quotes if it goes on there, or remove the space")
    assert "line 2" in left_out.sample
    spaced = read(tmp_path, "file, caption, source\na.png,a boat, flickr\n")  # this table has a space everywhere
    assert pairs(spaced) == [("a.png", "a boat")]


def test_files_that_were_joined_have_byte_order_marks_inside(tmp_path):
    joined = "\ufeff\ufefffile,\u200bcaption\na.png,one\n\ufeffb.png,two\n"
    assert pairs(read(tmp_path, joined)) == [("a.png", "one"), ("b.png", "two")]
    lines = '{"file": "a.png", "caption": "one"}\n\ufeff{"file": "b.png", "caption": "two"}\n'
    assert pairs(read(tmp_path, lines, "captions.jsonl")) == [("a.png", "one"), ("b.png", "two")]


def test_a_first_line_with_a_quote_that_no_separator_can_read(tmp_path):
    with pytest.raises(ValueError, match="captions.csv, line 1 has a quote that is not closed, or something behind it"):
        read(tmp_path, '"file" , "caption"\na.png,x\n')


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('{"file": "a.png"}{"file": "b.png"}', "write each on a line of its own"),
        ("// the boats", "remove the comment"),
    ],
)
def test_json_lines_of_two_values_or_none(tmp_path, line, remedy):
    with pytest.raises(ValueError, match=remedy):
        read(tmp_path, line, "captions.jsonl")


def test_the_first_line_of_a_joined_table_is_no_row(tmp_path):
    (tmp_path / "captions.csv").write_text("file,caption\na.png,one\n file , caption\nb.png,two\n")
    table = read_table(tmp_path / "captions.csv")
    assert [row.file for row in table.rows] == ["a.png", "b.png"]
    (one,) = table.left_out
    assert one.cause == "names of columns again" and "captions.csv, line 3 names the columns again" in one.message


@pytest.mark.parametrize("orient", ["dict", "list"])
def test_json_of_whole_columns_says_how_to_write_lines(tmp_path, orient):
    columns = {"file": ["a.png", "b.png"], "caption": ["one", "two"]}
    if orient == "dict":  # as pandas writes without orient="records"
        columns = {name: dict(enumerate(values)) for name, values in columns.items()}
    with pytest.raises(ValueError, match=r"line 1 has whole columns, .* write one object on each line"):
        read(tmp_path, json.dumps(columns), "captions.jsonl")
