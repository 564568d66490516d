"""The identity of data is its content."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import Mixture, PictureBookPages, Subset, open_sources
from blip2_lab.data.packing import pack
from blip2_lab.training import identity as identity_module
from blip2_lab.training.identity import Identity, data_identity, pictures_digest


def folder_of(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    rows = "".join(f"{n}.png,picture {n},what is it?,number {n}\n" for n in range(count))
    (folder / "captions.csv").write_text("file,caption,question,answer\n" + rows)
    return folder


def of(folder: Path) -> Identity:
    return data_identity(open_sources(folder))


def test_a_copy_elsewhere_is_the_same_data(tmp_path):
    folder = folder_of(tmp_path / "a" / "pictures")
    copy = shutil.copytree(folder, tmp_path / "b" / "other name")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    assert of(copy) == of(folder)
    assert Identity.from_dict(of(folder).to_dict()) == of(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: Image.new("RGB", (8, 8), (99, 0, 0)).save(f / "3.png"), ["other pictures"]),
        (lambda f: (f / "3.png").unlink(), ["5 examples instead of 6"]),
        (lambda f: edit(f, "picture 3", "picture 4"), ["other captions or questions"]),
        (lambda f: edit(f, "number 3", "number 4"), ["other captions or questions"]),
        (lambda f: edit(f, "what is it?,number 3", "what was it?,number 3"), ["other captions or questions"]),
        (lambda f: edit(f, "picture 3,", "picture 3 ,"), []),  # spaces around a caption are none of it
    ],
)
def test_what_has_changed_is_said(tmp_path, change, what):
    before = of(folder_of(tmp_path / "pictures"))
    change(tmp_path / "pictures")
    assert of(tmp_path / "pictures").differences(before) == what


def edit(folder: Path, old: str, new: str) -> None:
    table = folder / "captions.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def test_the_same_names_with_other_bytes_of_the_same_size_and_time(tmp_path):
    before, file = of(folder_of(tmp_path / "pictures")), tmp_path / "pictures" / "3.png"
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert of(tmp_path / "pictures").differences(before) == ["other pictures"]


def test_exchanged_captions_and_another_order_are_other_data(tmp_path):
    before = of(folder_of(tmp_path / "pictures"))
    table = tmp_path / "pictures" / "captions.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert of(tmp_path / "pictures").differences(before) == ["the same examples in another order"]
    exchanged = [rows[1].replace("1.png", "0.png"), rows[0].replace("0.png", "1.png"), *rows[2:]]
    table.write_text("\n".join([head, *exchanged]) + "\n")
    assert of(tmp_path / "pictures").differences(before) == ["other captions or questions"]
    old = Identity.from_dict({name: value for name, value in before.to_dict().items() if name != "unordered"})
    assert before.differences(old) == []  # an older version did not know it


def test_long_lists_are_known_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(identity_module, "MOST_READ", 3)
    before = of(folder_of(tmp_path / "pictures"))
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: pytest.fail(f"{path}") if path.suffix == ".png" else read(path)
    )
    assert of(tmp_path / "pictures") == before
    os.utime(tmp_path / "pictures" / "3.png", (1, 1))
    assert of(tmp_path / "pictures").differences(before) == ["other pictures"]


def test_a_subset_is_its_examples(tmp_path):
    source = ImageFolder(folder_of(tmp_path / "pictures"))
    inner = Subset(Subset(source, [1, 3, 5]), [0, 2])
    assert pictures_digest(inner) == pictures_digest(Subset(source, [1, 5])) != pictures_digest(Subset(source, [1, 3]))


def test_shards_are_known_by_their_checksums(tmp_path):
    source = ImageFolder(folder_of(tmp_path / "pictures"))
    for name in ("one", "two"):
        pack(source, tmp_path / name, per_shard=4)
    assert of(tmp_path / "one") == of(tmp_path / "two")
    edit(tmp_path / "pictures", "picture 3", "picture 4")
    pack(ImageFolder(tmp_path / "pictures"), tmp_path / "three", per_shard=4)
    assert of(tmp_path / "three") != of(tmp_path / "one")
    (tmp_path / "one" / "shards.json").unlink()  # then by size and time
    assert of(tmp_path / "one") == of(tmp_path / "one")
    os.utime(tmp_path / "one" / "shard-000000.tar", (1, 1))
    assert of(tmp_path / "one") != of(tmp_path / "two")


def test_sources_and_their_shares_count():
    books = [PictureBookPages(20, seed) for seed in (1, 2)]
    one, other = data_identity(Mixture(books, [1, 1])), data_identity(Mixture(books, [1, 2]))
    assert other.differences(one) == ["other weights of the sources"]
    assert data_identity(Mixture(books[::-1], [1, 1])).differences(one) == ["other pictures"]
