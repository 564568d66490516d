"""A folder of one's own pictures: everything that is left out is named. What is read: test_examples.py, too."""

import json
import unicodedata

import pytest
from PIL import Image

from blip2_lab.data.examples import AskedQuestion, Record
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import open_sources
from blip2_lab.picturebook.words import Question


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def table(folder, *rows, name="captions.jsonl"):
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return ImageFolder(folder)


def causes(source) -> list[tuple[str, str]]:
    return [(one.sample.rpartition("/")[2], one.cause) for one in source.left_out]


def test_values_that_are_no_captions_are_named_with_their_line(folder):
    source = table(
        folder,
        {"file": "a.png", "caption": ["a red boat", "a boat on the sea"]},
        {"file": "b.png", "caption": {"en": "a cat", "de": "eine Katze"}},
        {"file": "c.png", "caption": float("nan")},
        {"file": "c.png", "caption": True},
        {"file": "c.png", "caption": ["a dog", 5]},
        {"file": 5, "caption": "x"},
    )
    assert [record.captions for record in source.records] == [("a red boat", "a boat on the sea"), ("a dog",)]
    assert causes(source) == [
        ("captions.jsonl, line 2", "caption is no text"),
        ("captions.jsonl, line 3", "empty caption"),
        ("captions.jsonl, line 4", "caption is no text"),
        ("captions.jsonl, line 5", "caption is no text"),
        ("captions.jsonl, line 6", "row without a file"),
    ]


def test_questions_need_no_caption(folder):
    (folder / "captions.csv").write_text("file,question,answer\na.png,what is it?,thing\nb.png,what?,\nc.png,,yes\n")
    source = ImageFolder(folder)
    (record,) = source.records
    assert record.questions == (Question("own", "what is it?", "thing"),) and record.captions == ()
    assert causes(source) == [
        ("captions.csv, line 3", "question without an answer"),
        ("captions.csv, line 4", "answer without a question"),
    ]
    (folder / "captions.csv").unlink()
    source = table(folder, {"file": "a.png", "question": "how many?", "answer": [2, "two", "none"]})
    assert causes(source)[0][1] == "answer is no text"  # in a list a number is not converted; alone it is
    source = table(folder, {"file": "a.png", "question": "how many?", "answers": ["two", "none"]})
    assert source.records[0].questions == (AskedQuestion("how many?", ("two", "none"), "own"),)
    assert table(folder, {"file": "a.png", "question": "how many?", "answer": 2}).records[0].questions[0].answer == "2"


def test_several_names_of_a_file_are_one_picture(folder):
    (folder / "link.png").symlink_to("a.png")
    names = ["a.png", "./a.png", str(folder / "a.png"), "link.png", "a.PNG"]
    source = table(folder, *({"file": name, "caption": f"from {number}"} for number, name in enumerate(names)))
    (record,) = source.records
    assert record.id == "a.png" and record.captions == tuple(f"from {number}" for number in range(5))


def test_pictures_without_a_row_are_named_and_no_fault(folder):
    (folder / "b.txt").write_text("not read")
    (folder / "captions.txt").write_text("file,caption\nb.png,as Flickr8k has it")
    (folder / "photo.heic").write_bytes(b"x")
    source = table(folder, {"file": "a.png", "caption": "a boat"}, {"file": "gone.png", "caption": "a ship"})
    assert source.skipped == {"missing file": 1}
    assert [one.sample for one in source.left_out if one.cause == "picture without a row"] == [
        "b.png",
        "c.png",
        "photo.heic",
    ]
    assert [one.sample for one in source.left_out if one.cause == "text file beside a table"] == [
        "b.txt",
        "captions.txt",
    ]
    assert source.report().startswith("1 picture; skipped 1: 1 missing file; not listed 5: 3 picture without a row")


def test_a_picture_whose_row_is_left_out_has_a_row(folder):
    rows = ["file,caption,score", "a.png,a boat,5,6", "b.png", "c.png,a red, round boat"]
    (folder / "captions.csv").write_text("\n".join(rows))
    source = ImageFolder(folder)
    expected = ["row with too many cells", "row with too few cells", "caption that may go on"]
    assert [one.cause for one in source.left_out] == expected


@pytest.mark.parametrize(("file", "of"), [("recipe.json", "a training run"), ("config.json", "a model")])
def test_a_run_or_a_model_in_the_place_of_pictures_is_told(tmp_path, file, of):
    (tmp_path / file).write_text("{}")
    (tmp_path / "log.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=f"is the folder of {of}, as its {file} says: give a folder of pictures"):
        ImageFolder(tmp_path)


def test_two_tables_are_ambiguous(folder):
    table(folder, {"file": "a.png", "caption": "a boat"})
    (folder / "captions.csv").write_text("file,caption\na.png,a ship\n")
    with pytest.raises(ValueError, match="has captions.csv and captions.jsonl: which one is meant"):
        ImageFolder(folder)


def test_text_files_and_pictures_that_have_none_of_each_other(folder):
    for name, text in (("a", b"a boat"), ("b", "ein Schiff".encode("utf-16")), ("typo", b"lost?"), ("c", b" \n")):
        (folder / f"{name}.txt").write_bytes(text)
    (folder / "x.heic").write_bytes(b"x")
    (folder / "x.txt").write_text("of a format that is not read")
    (folder / "dead.png").symlink_to("nowhere.png")
    source = ImageFolder(folder)
    assert [record.captions for record in source.records] == [("a boat",)]
    assert sorted(causes(source)) == [
        ("b.txt", "unreadable text"),
        ("c.txt", "empty caption"),
        ("dead.png", "missing file"),
        ("typo.txt", "text file without a picture"),
        ("x.heic", "not a picture"),
    ]


def test_folders_of_links_are_read(folder, tmp_path_factory):
    """A common layout on clusters: the pictures lie elsewhere, and a folder of links names them."""
    links = tmp_path_factory.mktemp("links")
    for name in ("a.png", "b.png"):
        (links / name).symlink_to(folder / name)
        (links / name).with_suffix(".txt").write_text(name)
    (folder / "c.txt").write_text("c.png")
    (links / "below").symlink_to(folder)  # a linked folder, too; and one that leads back
    (folder / "back").symlink_to(links)
    source = ImageFolder(links)
    assert [record.captions for record in source.records] == [("a.png",), ("b.png",), ("c.png",)]
    assert [example.id for example in source] == ["a.png", "b.png", "below/c.png"]


def test_a_name_that_is_not_utf_8(folder):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    Image.new("RGB", (4, 3)).save(folder / "x.png")
    (folder / "x.png").rename(folder / name)
    (folder / name).with_suffix(".txt").write_text("a café")
    (record,) = ImageFolder(folder).records
    assert record.captions == ("a café",) and record.id.encode() and record.open().image.size == (4, 3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("labels.csv", "rename it to captions.csv"),
        ("captions.txt", "rename it to captions.csv"),
        ("annotations.json", "list an annotation file in a sources.toml"),
        ("train/metadata.csv", "give the folder .*train"),
        ("captions.xlsx", "captions.xlsx: if it is the table, save it as captions.csv, in UTF-8"),
        ("captions.csv.gz", "captions.csv.gz: if it is the table, unpack it"),
        ("captions.json", "captions.json: if it is the table, save it as captions.jsonl, with one object on each line"),
        ("b.json", "b.json beside a picture: write the caption that it has to b.txt"),
        ("captions.csv.txt", "save it as captions.csv"),
        ("a.png.txt", "the text file of a picture has its name with .txt in place of its ending"),
        ("captions.ndjson", "rename it to captions.jsonl"),
        ("labels.txt", "labels.txt: if it is the table, save it as captions.csv, with a first line file,caption"),
        ("a.caption", "the text file of a picture has its name with .txt"),
    ],
)
def test_what_is_there_instead_of_a_table_is_named(folder, name, hint):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("file,caption\na.png,a boat\n")
    with pytest.raises(ValueError, match=hint):
        ImageFolder(folder)


@pytest.mark.parametrize(("name", "hint"), [("captions.csv", "pass its folder"), ("coco.json", "sources.toml")])
def test_a_file_is_no_place_and_the_error_says_which_one_is(folder, name, hint):
    (folder / name).write_text("x")
    with pytest.raises(ValueError, match=hint):
        open_sources(folder / name)


def test_where_nothing_can_be_used_the_first_cause_is_told(folder):
    (folder / "captions.csv").write_text("file,caption\nx.png,a boat\ny.png,a ship\n")
    with pytest.raises(ValueError, match="2 missing file.*line 2: there is no file.*data check` names all"):
        open_sources(folder)


@pytest.mark.parametrize("place", [None, 5, b"pictures", ["pictures"]])
def test_a_place_is_text(place):
    with pytest.raises(ValueError, match="a path or an address, and this is .*: give a text"):
        open_sources(place)


def test_one_caption_given_for_a_tuple_is_not_read_letter_by_letter(folder):
    with pytest.raises(ValueError, match="a tuple of texts is wanted"):
        Record(folder / "a.png", "a boat")


def test_a_table_that_is_a_link_to_nothing_is_not_passed_over(folder):
    (folder / "a.txt").write_text("a boat")
    (folder / "captions.csv").symlink_to("nowhere.csv")
    with pytest.raises(ValueError, match="there is no file .*captions.csv"):
        ImageFolder(folder)


def test_text_files_have_the_rules_of_a_table(folder):
    for name, text in (("a", "nan"), ("b", "None\na ship\n"), ("c", "\u200b\n\ufeff")):
        (folder / f"{name}.txt").write_text(text)
    source = ImageFolder(folder)
    assert [record.captions for record in source.records] == [("a ship",)]
    assert sorted(causes(source)) == [
        ("a.txt", "caption is no text"),
        ("b.txt", "caption is no text"),
        ("c.txt", "empty caption"),
    ]


def test_of_two_text_files_of_one_picture_the_second_is_named(folder):
    for name in ("a.TXT", "a.txt"):
        (folder / name).write_text(name)
    if len(list(folder.glob("a.[tT]*"))) < 2:
        pytest.skip("this disk takes both names for one file")
    source = ImageFolder(folder)
    assert source.records[0].captions == ("a.txt",)
    assert ("a.TXT", "second text file") in causes(source)


def test_pictures_that_share_a_text_file_are_named(folder):
    Image.new("RGB", (4, 3), "lime").save(folder / "a.jpg")
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"caption {name}")
    source = ImageFolder(folder)
    assert [record.captions for record in source.records][:2] == [("caption a",)] * 2
    (note,) = source.notes
    assert note.endswith("pictures that have one text file and its captions: a.jpg and a.png")


def test_tables_that_are_not_read_are_named_and_no_fault(folder):
    (folder / "sub").mkdir()
    for name in ("labels.csv", "captions.json", "a.caption", "sub/metadata.csv", "left_out.jsonl"):
        (folder / name).write_text("{}")
    (folder / "a.txt").write_text("a boat")
    unread = ["a.caption", "captions.json", "labels.csv", "sub/metadata.csv"]
    source = ImageFolder(folder)
    assert [one.sample for one in source.left_out if one.cause == "file that is not read"] == unread
    assert source.skipped["file that is not read"] == 0
    source = table(folder, {"file": "a.png", "caption": "x"})
    assert [one.sample for one in source.left_out if one.cause == "file that is not read"] == unread


def test_answers_and_questions_that_are_no_texts(folder):
    source = table(
        folder,
        {"file": "a.png", "question": "nan", "answer": "x"},
        {"file": "b.png", "question": "q?", "answer": float("inf")},
        {"file": "c.png", "question": "q?", "answer": 10**400},
        {"file": "c.png", "question": "q?", "answer": 5},
    )
    assert [record.questions for record in source.records] == [(Question("own", "q?", "5"),)]
    assert [cause for _, cause in causes(source)[:3]] == ["question is no text", *["answer is no text"] * 2]


def test_what_is_empty_in_a_list_is_named(folder):
    source = table(
        folder,
        {"file": "a.png", "question": "q?", "answer": ["x", None]},
        {"file": "b.png", "caption": ["a boat", ""], "question": "q?", "answer": "x"},
        {"file": "c.png", "caption": "", "question": "q?", "answer": "x"},
    )
    assert [len(record.questions) for record in source.records] == [1, 1, 1]
    assert [cause for _, cause in causes(source)] == ["answer is no text", "empty caption"]


@pytest.mark.parametrize(("name", "hint"), [("sub/0.tar", "give the folder .*sub"), ("0.tar.gz", "read uncompressed")])
def test_shards_that_are_deeper_or_compressed_are_named(folder, name, hint):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=hint):
        ImageFolder(folder)
    if name.endswith(".gz"):
        with pytest.raises(ValueError, match="Unpack it"):
            open_sources(folder / name)


def test_a_row_about_a_link_to_nothing_is_named_once(folder):
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "captions.csv").write_text("file,caption\n./gone.png,x\n")
    source = ImageFolder(folder)
    assert [one.sample for one in source.left_out if "gone" in one.message] == [f"{folder / 'captions.csv'}, line 2"]


def test_a_text_file_with_the_ending_of_its_picture_is_told_its_name(folder):
    (folder / "b.txt").write_text("x")
    (folder / "c.png.txt").write_text("y")
    (message,) = [one.message for one in ImageFolder(folder).left_out if one.sample == "c.png.txt"]
    assert message.endswith("rename it to 'c.txt'")


def test_a_file_that_is_no_text_is_told_what_it_should_be(folder):
    (folder / "captions.jsonl").write_text('{"file": 1, "caption": "x"}\n{"file": {"path": "a.png"}, "caption": "x"}')
    messages = [one.message for one in ImageFolder(folder).left_out if one.cause == "row without a file"]
    assert len(messages) == 2 and all("which is a text in quotes, with its ending" in message for message in messages)


def test_of_several_tables_below_the_one_to_train_on_is_named(folder):
    (folder / "captions.csv").unlink(missing_ok=True)
    for name in ("test", "train"):
        (folder / name).mkdir()
        (folder / name / "metadata.csv").write_text("file_name,text\na.png,x\n")
    with pytest.raises(
        ValueError, match="give the folder .*/train; 1 other table is there, too: list each as a source"
    ):
        ImageFolder(folder)


def test_a_slice_is_told_how_a_part_is_made(folder):
    (folder / "captions.csv").write_text("file,caption\na.png,x\n")
    with pytest.raises(TypeError, match="torch.utils.data.Subset"):
        ImageFolder(folder)[0:1]


@pytest.mark.parametrize(
    ("picture", "text"),
    [("BOAT.JPG", "boat.txt"), ("images/boat.jpg", "captions/boat.txt"), ("a/boat.png", "boat.txt")],
)
def test_a_text_file_that_is_not_beside_its_picture_is_named_with_its_place(tmp_path, picture, text):
    for name in (picture, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 3)).save(tmp_path / picture)
    (tmp_path / text).write_text("a red boat", encoding="utf-8")
    with pytest.raises(ValueError) as error:
        ImageFolder(tmp_path)
    assert f"There is {tmp_path / text}: if it is the text of {tmp_path / picture}, its place" in str(error.value)
    assert str(error.value).endswith(str((tmp_path / picture).with_suffix(".txt")))


@pytest.mark.parametrize(("picture", "text"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_text_file_may_have_the_other_unicode_form_of_its_pictures_name(tmp_path, picture, text):
    Image.new("RGB", (4, 3)).save(tmp_path / unicodedata.normalize(picture, "café.png"))
    (tmp_path / unicodedata.normalize(text, "café.txt")).write_text("a red boat", encoding="utf-8")
    (record,) = ImageFolder(tmp_path).records
    assert record.captions == ("a red boat",)


@pytest.mark.parametrize("name", ["{}_caption.txt", "{} .txt", "{}.md"])
def test_text_files_with_names_of_their_own_are_told_the_right_one(folder, name):
    for stem in "abc":
        (folder / name.format(stem)).write_text("a red boat")
    with pytest.raises(ValueError, match=f"{name.format('a')}: the text file of a.png is a.txt$"):
        ImageFolder(folder)


def test_a_table_in_a_folder_without_pictures_needs_them_there(tmp_path):
    """To give its folder, as the sentence said alone, would leave out every row."""
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "a.png")
    (tmp_path / "annotations" / "captions.csv").write_text("file,caption\na.png,a boat\n")
    with pytest.raises(ValueError, match="annotations; no picture is below it, so move its pictures there first$"):
        ImageFolder(tmp_path)
