"""Thousands of damaged inputs for each reader: an error is one sentence, no caption is changed, and the counts add up.

The inputs are made from a seed, so a failure repeats; its message has the round's number. A marker at the beginning and
at the end of every caption (`c17 … e17`) shows whether a caption was cut, joined with another, or converted.
"""

import copy
import csv
import io
import json
import pickle
import re
import tarfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample, open_image
from blip2_lab.data import annotations
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.left_out import SkipLog
from blip2_lab.data.mixture import Mixture, find_sources
from blip2_lab.data.picture_files import PictureFinder
from blip2_lab.data.samples import record_of
from blip2_lab.data.shards import ShardFolder

WORDS = (
    "red",
    "boat",
    "café",
    "ein Würfel",
    "赤い船",
    "a\u2028line",
    "a\u0085next",
    "5'5",
    "<b>",
    "1,000",
    "x;y",
    "sea",
)
ODD = (
    None,
    True,
    5,
    -1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\ud800",
    "nan",
    [],
    {},
    [[]],
    {"a": 1},
    ["", None],
    "../x",
)
ROUNDS = [pytest.param(120, id="120"), pytest.param(8000, id="8000", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Nine pictures; their folder is written anew by nobody."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(9):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(folder / f"p{number}.png")
    return folder


def caption(number: int, rng: Random, words: tuple[str, ...] = WORDS) -> str:
    return " ".join([f"c{number}", *rng.choices(words, k=rng.randint(1, 4)), f"e{number}"])


def is_intact(text: str) -> bool:
    """Whether a text is one caption as a whole, with whatever was inserted into it."""
    first, last = re.match(r"c(\d+)\b", text), re.search(r"\be(\d+)$", text)
    markers = re.findall(r"\b[ce](\d+)\b", text)
    return bool(first and last) and set(markers) == {first[1]} and len(markers) == 2


def attempt(read: Callable, about: object) -> object | None:
    """What `read` returns, or None after an error of one sentence. Every other error fails the test."""
    try:
        return read()
    except ValueError as error:
        assert str(error).strip() and not isinstance(error, UnicodeError | json.JSONDecodeError), f"{about}: {error!r}"
        return None
    except Exception as error:
        raise AssertionError(f"{about}: {type(error).__name__}: {error}") from error


def strings_in(value: object) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings_in(one)


def damaged(content: bytes, rng: Random) -> bytes:
    """The content with a few bytes changed, removed, added or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 1:
            changed[place:place] = rng.choice((b'"', b",", b"\n", b"\r", b"\xff", b"\0", b"{", b"]", b"\\", bytes(512)))
        elif kind == 2:
            del changed[place : place + rng.randint(1, 20)]
        elif kind == 3:
            changed[place:place] = changed[: rng.randint(0, 40)]
        else:
            del changed[place:]
    return bytes(changed)


def altered(value: object, rng: Random, depth: int = 0) -> object:
    """A copy of a JSON value with one place in it changed: of another type, removed, twice, a number as text."""
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.9):
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            del value[key]
        else:
            value[key] = altered(value[key], rng, depth + 1)
        return value
    if isinstance(value, list) and value and (depth == 0 or rng.random() < 0.9):
        place = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.1:
            value.insert(place, value[place])
        elif kind < 0.2:
            value.insert(place, rng.choice(ODD))
        else:
            value[place] = altered(value[place], rng, depth + 1)
        return value
    if isinstance(value, int) and rng.random() < 0.5:
        return str(value)
    return rng.choice(ODD)


# --------------------------------------------------------------------------------------------------------------- tables


def table_text(rng: Random, mark: str) -> tuple[str, int]:
    """A table, and the number of its rows. Some cells are quoted, as csv does it, and some are not although they should
    be."""
    rows = rng.randint(1, 7)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator="\n")
    header = rng.choice(
        (["file", "caption"], ["image", "text"], ["file_name", "score", "Caption"], [" File ", "CAPTION "])
    )
    writer.writerow(header)
    for number in range(rows):
        cells = [f"p{number}.png", *(["0.5"] if len(header) == 3 else []), caption(number, rng)]
        if rng.random() < 0.3:  # not quoted
            out.write(mark.join(cells) + "\n")
        else:
            writer.writerow(cells)
    return out.getvalue(), rows


@pytest.mark.parametrize("rounds", ROUNDS)
def test_tables(pictures, tmp_path, rounds):
    link(pictures, tmp_path)
    for round in range(rounds):
        rng = Random(f"table {round}")
        mark = rng.choice(",;\t|")
        text, rows = table_text(rng, mark)
        whole = rng.random() < 0.3
        header = text.index("\n") + 1
        for number in range(0 if whole else rng.randint(1, 2)):
            place = rng.randrange(header, len(text) - 1)  # not behind the last row
            insert = rng.choice((mark, mark + " ", mark * 3, "'", " "))
            if number == 0 and rng.random() < 0.5:  # one quote: two of them in a row rightly make another cell
                insert = rng.choice(('"', '"', '""', '"' + mark))
                if rng.random() < 0.6:  # it opens a cell, and may swallow the rows below
                    place = text.index(mark, rng.randrange(header, text.rindex(mark) + 1)) + 1
            text = text[:place] + insert + text[place:]
        (tmp_path / "captions.csv").write_text(text, encoding="utf-8", newline=rng.choice(("\n", "\r\n")))
        source = attempt(lambda: ImageFolder(tmp_path), f"round {round}: {text!r}")
        if source is None:
            continue
        captions = [one for record in source.records for one in record.captions]
        left = [one for one in source.left_out if "line" in one.sample]
        assert len(captions) + len(left) == rows, f"round {round}: {text!r} -> {captions}, {left}"
        odd = [one for one in captions if not is_intact(one)]
        assert not odd or not whole, f"round {round}: {text!r} -> {odd}"
        for one in odd:  # only what was inserted may differ: no piece of a caption is lost, or joined with another
            markers = re.fullmatch(r"c(\d)[^\n]*e(\d)", re.sub(f"[\"' {mark}]", "", one))
            assert markers and markers[1] == markers[2], f"round {round}: {text!r} -> {odd}"
        for one in captions:
            assert one in text or one.replace('"', '""') in text, f"round {round}: {text!r} -> {one!r}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_tables_of_damaged_bytes(pictures, tmp_path, rounds):
    link(pictures, tmp_path)
    for round in range(rounds):
        rng = Random(f"bytes {round}")
        text, _ = table_text(rng, ",")
        (tmp_path / "captions.csv").write_bytes(damaged(text.encode(rng.choice(("utf-8", "utf-16", "utf-8-sig"))), rng))
        source = attempt(lambda: ImageFolder(tmp_path), f"round {round}")
        for record in source.records if source else ():
            assert all(one and "\0" not in one and "\ufffd" not in one for one in record.captions), round


@pytest.mark.parametrize("rounds", ROUNDS)
def test_json_lines(pictures, tmp_path, rounds):
    link(pictures, tmp_path)
    for round in range(rounds):
        rng = Random(f"jsonl {round}")
        rows: list = []
        for number in range(rng.randint(1, 6)):
            texts = [caption(10 * number + k, rng) for k in range(rng.randint(1, 3))]
            row = {"file": f"p{number}.png", "caption": texts[0] if len(texts) == 1 else texts}
            rows.append(row | ({"question": f"q{number}?", "answer": "yes"} if rng.random() < 0.3 else {}))
        place = rng.randrange(len(rows))
        rows[place] = altered(rows[place], rng, 1) if rng.random() < 0.8 else rows[place]
        content = "\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows).encode("utf-8", "ignore")
        byte = rng.random() < 0.2
        (tmp_path / "captions.jsonl").write_bytes(damaged(content, rng) if byte else content)
        source = attempt(lambda: ImageFolder(tmp_path), f"round {round}: {content!r}")
        if source is None or byte:
            continue
        known = {text.strip() for text in strings_in([json.loads(line) for line in content.decode().split("\n")])}
        captions = [one for record in source.records for one in record.captions]
        assert set(captions) <= known, f"round {round}: {content!r} -> {captions}"
        read = {record.id for record in source.records}
        named = {one.sample for one in source.left_out}
        for number, row in enumerate(rows, 1):
            used = isinstance(row, dict) and isinstance(row.get("file"), str) and row["file"] in read
            assert used or any(name.endswith(f"line {number}") for name in named), f"round {round}: {row} is lost"


def link(pictures: Path, folder: Path) -> None:
    """The same pictures in another folder, as links: they lie outside of it."""
    for picture in pictures.iterdir():
        (folder / picture.name).symlink_to(picture)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_text_files(pictures, tmp_path, rounds):
    link(pictures, tmp_path)
    for round in range(rounds):
        rng = Random(f"text {round}")
        expected, unreadable = [], 0
        for number in range(3):
            lines = [caption(10 * number + k, rng) for k in range(rng.randint(0, 3))]
            encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "shift-jis"))
            content = rng.choice(("\n", "\r\n", "\r")).join(lines).encode(encoding, "ignore")
            (tmp_path / f"p{number}.txt").write_bytes(content)
            try:
                text = content.decode("utf-8-sig")
            except UnicodeDecodeError:
                unreadable += 1
                continue
            if "\0" in text:
                unreadable += 1
            elif text.strip():
                expected.append(tuple(one.strip() for one in re.split("\r\n|\r|\n", text) if one.strip()))
        source = attempt(lambda: ImageFolder(tmp_path), f"round {round}")
        assert [record.captions for record in source.records] == expected, round
        assert source.skipped["unreadable text"] == unreadable, round
        assert len(source) + source.skipped.total() == 9, round


# ---------------------------------------------------------------------------------------------------- annotation files


def coco(rng: Random) -> dict[str, object]:
    images = [{"id": n, "file_name": f"p{n}.png", "domain": "in-domain"} for n in range(4)]
    return {"images": images, "annotations": [{"image_id": n % 4, "caption": caption(n, rng)} for n in range(6)]}


def blip(rng: Random) -> list:
    entries = [{"image": f"p{n % 3}.png", "caption": caption(n, rng), "image_id": f"coco_{n}"} for n in range(4)]
    entries.append({"image": "p5.png", "caption": [caption(8, rng), caption(9, rng)]})
    return [*entries, {"image": "p6.png", "question": "c20 what? e20", "answer": ["red", "blue"], "question_id": 7}]


def karpathy(rng: Random) -> dict[str, object]:
    def entry(n: int) -> dict:
        return {"filename": f"p{n}.png", "split": "train", "imgid": n, "sentences": [{"raw": caption(n, rng)}]}

    return {"images": [entry(n) for n in range(5)], "dataset": "coco"}


def questions(rng: Random) -> dict[str, object]:
    asked = [{"image_id": n, "question": f"c{n} what? e{n}", "question_id": 10 * n} for n in range(4)]
    return {"data_subtype": "train2014", "questions": asked}


def answers(rng: Random) -> dict[str, object]:
    given = [{"question_id": 10 * n, "answers": [{"answer": "red"}, {"answer": "blue"}]} for n in range(4)]
    return {"annotations": given}


def gqa(rng: Random) -> dict[str, object]:
    return {
        str(n): {"question": f"c{n} what? e{n}", "imageId": f"p{n}", "answer": "yes", "types": {}} for n in range(4)
    }


def regions(rng: Random) -> list:
    place = {"x": 1, "y": 1, "width": 2, "height": 2}
    return [{"id": n, "regions": [{"phrase": caption(n, rng), "image_id": n, **place}]} for n in range(4)]


def image_data(rng: Random) -> list:
    return [{"image_id": n, "url": f"https://x/VG_100K/{n}.jpg", "width": 4, "height": 3} for n in range(4)]


def references(rng: Random) -> list:
    sentences = [{"raw": "c1 the man e1", "sent": "the man"}]
    return [{"image_id": n, "ann_id": n, "split": "train", "sentences": sentences} for n in range(4)]


def instances(rng: Random) -> dict[str, object]:
    images = [{"id": n, "file_name": f"p{n}.png", "width": 4, "height": 3} for n in range(4)]
    return {"images": images, "annotations": [{"id": n, "image_id": n, "bbox": [0, 0, 2, 2]} for n in range(4)]}


READERS: dict[str, tuple[Callable, list[Callable]]] = {
    "coco": (annotations.coco_captions, [coco]),
    "nocaps": (lambda file, images: annotations.nocaps(file, images, "in-domain"), [coco]),
    "blip": (annotations.blip, [blip]),
    "karpathy": (annotations.karpathy, [karpathy]),
    "vqa": (lambda asked, given, images: annotations.vqa(asked, images, given), [questions, answers]),
    "gqa": (annotations.gqa, [gqa]),
    "visual-genome": (annotations.visual_genome, [regions, image_data]),
    "refcoco": (annotations.refcoco, [references, instances]),
}


def texts_expected(name: str, content: dict | list) -> int:
    """The number of entries with a text in the first file of a format, of those that its reader was asked for."""
    if name in ("coco", "vqa"):
        return len(content["annotations" if name == "coco" else "questions"])
    if name in ("karpathy", "refcoco"):
        listed = content["images"] if name == "karpathy" else content
        return sum(isinstance(entry, dict) and entry.get("split") == "train" for entry in listed)
    return 0 if name == "nocaps" else len(content)  # nocaps: another domain is not left out, it was not asked for


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("name", READERS)
def test_annotation_files(pictures, tmp_path, name, rounds):
    read, makers = READERS[name]
    for round in range(rounds // 2):
        rng = Random(f"{name} {round}")
        contents = [make(rng) for make in makers]
        changed = rng.randrange(len(contents))
        for _ in range(rng.randint(1, 3)):
            contents[changed] = altered(contents[changed], rng)
        data = [json.dumps(content).encode() for content in contents]
        if name == "refcoco":
            data[0] = pickle.dumps(contents[0])
        byte = rng.random() < 0.15
        if byte:
            data[changed] = damaged(data[changed], rng)
        files = [tmp_path / f"{number}.json" for number in range(len(data))]
        for file, content in zip(files, data, strict=True):
            file.write_bytes(content)
        source = attempt(lambda files=files: read(*files, pictures), f"{name}, round {round}: {contents}")
        if source is None or byte:
            continue
        known = {" ".join(text.split()) for text in strings_in(contents)}
        for record in source.records:
            assert set(record.captions) <= known, f"{name}, round {round}: {record}"
            assert {" ".join(q.text.split()) for q in record.questions} <= known, f"{name}, round {round}: {record}"
            assert all(0 <= x <= 1 for _, box in record.boxes for x in box)
            record.id.encode()
        texts = sum(len(record.captions) + len(record.questions) for record in source.records)
        expected = texts_expected(name, contents[0])
        assert texts + len(source.left_out) >= expected, f"{name}, round {round}: {contents}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_flickr30k_tokens(pictures, tmp_path, rounds):
    for round in range(rounds):
        rng = Random(f"token {round}")
        lines = [f"p{n % 4}.png#{n}\t{caption(n, rng)}" for n in range(5)]
        text = "\n".join(lines)
        content = text.encode()
        whole = rng.random() < 0.5
        (tmp_path / "x.token").write_bytes(content if whole else damaged(content, rng))
        source = attempt(lambda: annotations.flickr30k(tmp_path / "x.token", pictures), f"round {round}")
        if whole:
            captions = [one for record in source.records for one in record.captions]
            assert sorted(captions) == sorted(" ".join(line.split("\t")[1].split()) for line in lines), round


# ------------------------------------------------------------------------------------------------------------- shards


def shard(rng: Random, count: int = 3) -> bytes:
    """A shard as img2dataset writes it."""
    picture, out = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(picture, "JPEG")
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            about = json.dumps({"caption": "x", "key": str(number), "status": "success", "width": 4}).encode()
            for ending, content in (
                ("jpg", picture.getvalue()),
                ("json", about),
                ("txt", f"c{number} e{number}".encode()),
            ):
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("step", [pytest.param(97, id="97"), pytest.param(1, id="1", marks=pytest.mark.slow)])
def test_a_shard_cut_at_any_byte_is_refused(tmp_path, step):
    content = shard(Random(0))
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512  # of the last member's content
    for cut in sorted({*range(0, len(content), step), *range(0, end + 1025, 512), *range(511, end + 1025, 512)}):
        (tmp_path / "0.tar").write_bytes(content[:cut])
        source = attempt(lambda: ShardFolder([tmp_path / "0.tar"]), f"cut at {cut}")
        assert (source is None) == (cut < end + 1024), f"cut at {cut} of {len(content)}, whose samples end at {end}"
        if source is not None:
            assert [source.record(n).captions for n in range(len(source))] == [(f"c{n} e{n}",) for n in range(3)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_shards_with_damaged_headers(tmp_path, rounds):
    content = shard(Random(0))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        headers = [member.offset for member in tar]
    for round in range(rounds):
        rng = Random(f"header {round}")
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            changed[rng.choice(headers) + rng.randrange(512)] = rng.randrange(256)
        (tmp_path / "0.tar").write_bytes(changed)
        source = attempt(lambda: ShardFolder([tmp_path / "0.tar"]), f"round {round}")
        if source is not None:  # what was written is not part of the header's checksum, or is what was there
            captions = [source.record(n).captions for n in range(len(source))]
            assert captions == [(f"c{n} e{n}",) for n in range(3)], f"round {round}: {captions}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_the_json_of_a_shard(rounds):
    about = {"caption": "c1 e1", "captions": ["c2 e2", "c3 e3"], "id": "x", "domain": ""}
    about["questions"] = [
        {"text": "c4 e4", "answers": ["yes"], "type": "", "id": "5"},
        {"question": "c5 e5", "answer": 2},
    ]
    about["boxes"] = [["c6 e6", [0, 0, 1, 1]]]
    for round in range(3 * rounds):
        rng = Random(f"json {round}")
        own = {key: about[key] for key in rng.sample(list(about), rng.randint(1, len(about)))}
        for _ in range(rng.randint(0, 3)):
            own = altered(own, rng, rng.choice((0, 0, 0, 1)))
        content = json.dumps(own).encode()
        byte = rng.random() < 0.2
        content = damaged(content, rng) if byte else content
        files = {"png": b"x", "json": content} | ({"txt": b"c7 e7"} if rng.random() < 0.5 else {})
        record = attempt(lambda files=files: record_of("0", files, "shard"), f"round {round}: {content!r}")
        if record is not None:
            assert byte or set(record.captions) <= {*strings_in(own), "c7 e7"}, f"round {round}: {content!r}"
            record.id.encode()


# ------------------------------------------------------------------------------------------------- sources.toml, images


TOML = """[[source]]
format = "coco"
annotations = "0.json"
images = "."
weight = 2

[[source]]
format = "picture-book"
pages = 5
weight = 1.5
"""


@pytest.mark.parametrize("rounds", ROUNDS)
def test_sources_toml(tmp_path, rounds):
    (tmp_path / "0.json").write_text(json.dumps(coco(Random(0))))
    values = ("5", "-1", "true", "nan", "inf", '"x"', "[1]", '["a", 2]', "{}", '""', "1979-05-27", '"coco"')
    for round in range(rounds):
        rng = Random(f"toml {round}")
        if rng.random() < 0.6:
            lines = TOML.splitlines()
            place = rng.choice([n for n, line in enumerate(lines) if "=" in line])
            lines[place] = f"{lines[place].split(' = ')[0]} = {rng.choice(values)}"
            content = "\n".join(lines).encode()
        else:
            content = damaged(TOML.encode(), rng)
        (tmp_path / "s.toml").write_bytes(content)
        attempt(lambda: Mixture(*find_sources(tmp_path / "s.toml")), f"round {round}: {content!r}")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_log_of_skipped_examples_that_a_kill_has_cut(pictures, tmp_path, rounds):
    mixture, file = Mixture([ImageFolder(_labelled(pictures, tmp_path))]), tmp_path / "skipped.jsonl"
    for round in range(rounds // 5):
        rng = Random(f"log {round}")
        file.unlink(missing_ok=True)
        log = SkipLog(mixture, 1.0, file)
        for number in range(3):
            log.add(f"p{number}", BrokenSample("missing file", "it is gone"))
        file.write_bytes(file.read_bytes()[: rng.randrange(len(file.read_bytes()) + 1)])
        again = SkipLog(mixture, 1.0, file)
        for number in range(3):
            again.add(f"p{number}", BrokenSample("missing file", "it is gone"))
        assert again.report() == log.report(), round
        assert SkipLog(mixture, 1.0, file).report() == log.report(), round


def _labelled(pictures: Path, folder: Path) -> Path:
    (folder / "own").mkdir()
    link(pictures, folder / "own")
    for picture in pictures.iterdir():
        (folder / "own" / picture.with_suffix(".txt").name).write_text("a boat")
    return folder / "own"


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images(format, rounds):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 9, 3), dtype=np.uint8))
    out = io.BytesIO()
    noise.save(out, format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        for round in range(rounds // 2):
            content = damaged(out.getvalue(), Random(f"{format} {round}"))
            image = attempt(lambda content=content: open_image(content), f"{format}, round {round}")
            assert image is None or (image.mode == "RGB" and image.width * image.height > 0)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_odd_arrays_are_opened_or_refused_in_a_sentence(rounds):
    for round in range(3 * rounds):
        rng = Random(f"array {round}")
        shape = [rng.choice((0, 1, 2, 3, 4, 5)) for _ in range(rng.randint(0, 4))]
        kind = rng.choice((np.uint8, np.uint8, np.int64, np.float32, bool, object, "U3", np.complex64))
        array = np.zeros(shape, kind)
        image = attempt(lambda array=array: open_image(array), f"round {round}: {kind} {shape}")
        if image is not None:
            assert array.dtype == np.uint8 and image.size == (shape[1], shape[0]), f"round {round}: {shape}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_names_of_files(tmp_path, rounds):
    """A name is found in the folder, or refused. Nothing outside of it is ever found by a name."""
    root = tmp_path / "root"
    for place in ("root/a", "root/b c", "outside"):
        (tmp_path / place).mkdir(parents=True)
    inside = ["x.png", "a/Y.JPG", unicodedata.normalize("NFD", "b c/café.png"), "a/z.jpeg"]
    for name in (*(f"root/{name}" for name in inside), "outside/secret.png", "secret.png"):
        (tmp_path / name).write_bytes(b"x")
    parts = [
        "x.png",
        "a",
        "Y.jpg",
        "b c",
        "café.png",
        "..",
        ".",
        "",
        "secret.png",
        "outside",
        "root",
        "\0",
        "\ud800",
        "~",
    ]
    parts += [str(root), str(tmp_path), "C:", "é" * 200, "z.JPEG", "nul", "*"]
    found = set()
    for round in range(8 * rounds):
        rng = Random(f"name {round}")
        name = rng.choice("/\\").join(rng.choices(parts, k=rng.randint(1, 4)))
        one = attempt(lambda name=name: PictureFinder(root).find(name), f"round {round}: {name!r}")
        if one is not None:
            assert one.name in inside and one.path.resolve().is_relative_to(root.resolve()), f"round {round}: {name!r}"
            found.add(one.name)
    assert len(found) >= 2
