"""Finding the files that a table names: other spellings, links, and names that lead out of the folder."""

import os
import unicodedata

import pytest

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.picture_files import PictureFinder, identity


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "own"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("own/a.png", "own/B.JPG", "own/deep/c.jpeg", "elsewhere/d.png"):
        (tmp_path / name).write_bytes(b"x")
    (root / unicodedata.normalize("NFD", "café.png")).write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "elsewhere" / "d.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a2.png").symlink_to("a.png")
    (root / "broken.png").symlink_to("nothing.png")
    (tmp_path / "elsewhere" / "d e").mkdir()
    for name in ("own/f f.png", "own/0007.png", "own/08.png", "own/0008.png", "elsewhere/d e/e.png"):
        (tmp_path / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("deep/../a.png", "a.png"),
        ("../own/a.png", "a.png"),
        (r"deep\c.jpeg", "deep/c.jpeg"),
        ("a.PNG", "a.png"),
        ("B.jpg", "B.JPG"),
        ("deep/c.JPEG", "deep/c.jpeg"),
        (unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.png")),
        ("link.png", "link.png"),
        ("linked/d.png", "linked/d.png"),
        (" a.png ", "a.png"),
    ],
)
def test_other_spellings_of_a_name(folder, name, file):
    found = PictureFinder(folder).find(name)
    assert found.name == file and found.path == folder / file


def test_one_file_under_several_names_has_one_identity(folder):
    finder = PictureFinder(folder)
    names = ["a.png", "./a.png", "a2.png", str(folder / "a.png"), "a.PNG", r".\a.png"]
    assert len({finder.find(name).identity for name in names}) == 1
    assert finder.find("link.png").identity == identity(folder.parent / "elsewhere" / "d.png")


@pytest.mark.parametrize(
    "name", ["../elsewhere/d.png", "/etc/passwd", r"..\x.png", r"C:\x.png", "..", ".", "deep/../.."]
)
def test_a_name_does_not_lead_out_of_the_folder(folder, name):
    with pytest.raises(BrokenSample, match="leads out of") as broken:
        PictureFinder(folder).find(name)
    assert broken.value.cause == "file outside the folder"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("A.png", "did you mean 'a.png'"),
        ("c.jpg", "there is no file"),
        ("deep/c.jpg", "did you mean 'c.jpeg'"),
        ("train2014/a.png", "did you mean 'a.png'"),
        ("broken.png", "broken.png' is a link to a file that is not there: copy the file again"),
        ("e.png", "did you mean 'linked/d e/e.png'"),
        ("x/e.png", "did you mean 'linked/d e/e.png'"),
        ("f%20f.png", "did you mean 'f f.png'"),
        ("“a.png”", "did you mean 'a.png'"),
        ("'deep/c.jpeg'", "did you mean 'deep/c.jpeg'"),
        ("\u200ba.png", "did you mean 'a.png'"),
        ("7.png", "did you mean '0007.png'"),
        ("8.png", "there is no file [^;]*$"),  # 08.png and 0008.png
        ("deep", "there is no file"),
        ("x\0.png", "there is no file"),
        ("\ud800.png", "there is no file"),
        ("y" * 300, "there is no file"),
    ],
)
def test_a_missing_file_and_what_is_near(folder, name, hint):
    with pytest.raises(BrokenSample, match=hint) as broken:
        PictureFinder(folder).find(name)
    assert broken.value.cause == "missing file"


def test_an_address_is_no_name_of_a_file(folder):
    with pytest.raises(BrokenSample, match="'https://example.org/a.png' is an address, which is not fetched: download"):
        PictureFinder(folder).find("https://example.org/a.png")


def test_a_path_in_the_form_of_an_address_is_told_to_be_one(folder):
    with pytest.raises(BrokenSample, match="give the path alone, without file://"):
        PictureFinder(folder).find(f"file://{folder}/a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_file(folder):
    os.mkfifo(folder / "pipe.png")  # reading it would wait for ever
    assert identity(folder / "pipe.png") is None


@pytest.mark.parametrize("start", ["/9j/4AAQSkZJRg", "iVBORw0KGgo"])
def test_a_picture_in_base64_is_told_to_be_none_of_a_file(folder, start):
    with pytest.raises(BrokenSample, match=r"… \(4,0\d\d characters\) is no file of .*base64, decode it") as broken:
        PictureFinder(folder).find(start + "A" * 4000)
    assert len(str(broken.value)) < 400
