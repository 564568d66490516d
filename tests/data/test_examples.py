"""Data sets and batches; and `open_image` on valid, damaged and foreign files."""

import io
import json
import struct
import zlib
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_lab.common import images
from blip2_lab.common.images import WEB_FORMATS, BrokenSample, open_image
from blip2_lab.data.examples import AskedQuestion, Batch, batch_indices, image_ids
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.scenes import PictureBook
from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture
def halves() -> Image.Image:
    """Left half red, right half blue: 40 wide, 20 high."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    return image


# ----------------------------------------------------------------------------------------------------------- open_image


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_known_formats_from_path_bytes_and_pil(tmp_path, halves, format):
    content = encoded(halves, format)
    path = tmp_path / "picture"  # the content decides, not the name
    path.write_bytes(content)
    for source in (path, str(path), content, bytearray(content), Image.open(io.BytesIO(content))):
        image = open_image(source)
        assert image.mode == "RGB" and image.size == (40, 20)
        red, green, blue = image.getpixel((5, 10))
        assert red > 230 and green < 25 and blue < 25


def test_rotation_follows_the_exif_tag(halves):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image = open_image(encoded(halves, "JPEG", exif=exif, quality=95))
    assert image.size == (20, 40)
    assert image.getpixel((10, 5))[0] > 200 and image.getpixel((10, 35))[2] > 200  # red on top, blue below
    upright = Image.open(io.BytesIO(encoded(halves, "JPEG", exif=exif)))
    assert open_image(upright).size == (20, 40)


def test_transparency_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    assert open_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(half)).getpixel((0, 0))[0] == pytest.approx(127, abs=1)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert open_image(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(palette)).getpixel((0, 0)) == (10, 20, 30)


def test_other_modes_become_rgb():
    sixteen = Image.fromarray(np.full((4, 4), 128 * 257, dtype=np.uint16))
    assert open_image(encoded(sixteen)).getpixel((0, 0)) == (128, 128, 128)
    assert open_image(encoded(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(Image.new("CMYK", (4, 4)), "JPEG")).mode == "RGB"
    assert open_image(encoded(Image.new("L", (4, 4), 7))).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("format", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert open_image(content).getpixel((4, 4))[0] > 200
    moved = Image.open(io.BytesIO(content))
    moved.seek(2)
    assert open_image(moved).getpixel((4, 4))[0] > 200


def refused(source) -> str:
    with pytest.raises(ValueError) as error:
        open_image(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_refused_and_why(tmp_path, halves):
    assert "no file" in refused(tmp_path / "nothing.png")
    assert "folder" in refused(tmp_path)
    assert "is empty, so it is not a PNG, JPEG, WebP or GIF picture, and no BMP or TIFF" in refused(b"")
    assert "not a PNG, JPEG, WebP or GIF picture, and no BMP or TIFF" in refused(
        b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    )
    assert "not a PNG, JPEG, WebP or GIF picture, and no BMP or TIFF" in refused(encoded(halves, "PPM"))
    for format in ("BMP", "TIFF"):  # the app opens these no more than before
        with pytest.raises(BrokenSample, match="is not a PNG, JPEG, WebP or GIF picture: convert it"):
            open_image(encoded(halves, format), WEB_FORMATS)
    with pytest.raises(BrokenSample, match="GIF picture: it is a HEIC picture, convert it"):
        open_image(b"\0\0\0\x18ftypheic", WEB_FORMATS)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "GIF"):
        content = encoded(noise, format)
        assert "damaged or cut off" in refused(content[: len(content) // 2]), format
    for kind, body in ((b"IHDR", bytes(8)), (b"acTL", bytes(2)), (b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))):
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        whole = encoded(noise, "PNG")
        start = 8 if kind == b"IHDR" else 33  # before the header, or after it
        path = tmp_path / "odd.png"
        path.write_bytes(whole[:start] + chunk + whole[start:])
        message = refused(path)
        assert "odd.png" in message and "damaged or cut off" in message, kind
    renamed = tmp_path / "holiday.jpg"
    renamed.write_text("not a picture")
    assert "holiday.jpg" in refused(renamed)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    bomb = encoded(Image.new("1", (9000, 9000)))
    assert len(bomb) < 20_000
    monkeypatch.setattr(images, "_to_rgb", lambda image: pytest.fail("decoded"))
    assert "9000 x 9000 = 81 million pixels" in refused(bomb)
    assert "million" in refused(Image.new("1", (9000, 9000)))
    assert "far too many pixels" in refused(encoded(Image.new("1", (15000, 15000))))


# -------------------------------------------------------------------------------------------------------------- sources


def test_the_picture_book_is_the_same_every_time():
    book, again = PictureBook(seed=3), PictureBook(seed=3)
    a, b = book[5], again[5]
    assert a.image.tobytes() == b.image.tobytes() == draw(sample_scene(3, 5), 96).tobytes()
    assert a.captions == b.captions and a.questions == b.questions and a.id == "train-3-5"
    assert book.one_caption(5, turn=1) == again.one_caption(5, turn=1)
    assert len({book.one_caption(5, turn) for turn in range(20)}) > 5


def test_boxes_of_an_example_are_those_of_its_things():
    book = PictureBook(seed=1)
    for index in range(30):
        scene, example = book.scene(index), book[index]
        boxes = dict(example.boxes)
        assert set(boxes.values()) <= {thing.box for thing in scene.things}
        kinds = Counter(thing.kind for thing in scene.things)
        for thing in scene.things:
            if kinds[thing.kind] == 1:
                assert boxes[thing.kind] == thing.box


def test_unknown_options_of_the_picture_book_raise():
    full = PictureBook(seed=0, caption="full")
    scene = full.scene(0)
    assert all(thing.color in full.one_caption(0, turn) for thing in scene.things for turn in range(5))
    ordered = PictureBook(seed=0, caption="ordered")
    for index in range(20):
        rng = Random(f"caption 0 {index} 0")
        assert ordered.one_caption(index) == words.full_caption(ordered.scene(index), rng, ordered=True)
    with pytest.raises(ValueError, match="choose one of caption, full"):
        PictureBook(caption="long")
    with pytest.raises(ValueError, match="unknown split"):
        PictureBook(split="test").scene(0)


def test_every_third_caption_counts_where_that_is_asked_for():
    book = PictureBook(3, caption="ordered and count")
    assert [book.kind(turn) for turn in range(6)] == ["ordered", "count", "ordered"] * 2
    for index in range(30):
        things = book.scene(index).things
        assert book.one_caption(index, turn=4).startswith(words.NUMBERS[len(things)] + " thing")
        told = book.one_caption(index, turn=3)
        assert all(f"{thing.size}" in told and thing.position in told for thing in things)


@pytest.fixture
def folder(tmp_path, halves):
    halves.save(tmp_path / "a.png")
    halves.save(tmp_path / "b.jpg")
    (tmp_path / "broken.png").write_bytes(encoded(halves)[:60])
    return tmp_path


CSV = """file,caption,question,answer
a.png,"a red, and a blue half",what is left?,red
a.png,two halves,,
b.jpg,a flag,,
broken.png,never seen,,
gone.png,nothing,,
b.jpg,  ,,
,an orphan,,
../secret.png,outside,,
"""


def test_a_folder_with_a_csv(folder):
    (folder / "captions.csv").write_text(CSV)
    source = ImageFolder(folder)
    examples = list(source)
    assert [e.id for e in examples] == ["a.png", "b.jpg"]  # the broken one is not replaced
    assert examples[0].captions == ("a red, and a blue half", "two halves") and examples[1].captions == ("a flag",)
    assert examples[0].questions[0].answer == "red"
    causes = {"damaged picture": 1, "missing file": 1, "empty caption": 1}
    assert source.skipped == causes | {"row without a file": 1, "file outside the folder": 1}
    assert "skipped 5" in source.report() and "1 missing file" in source.report()
    with pytest.raises(ValueError, match="broken.png"):
        source[2]


def test_a_folder_with_jsonl_and_a_byte_order_mark(folder):
    lines = [{"file": "a.png", "caption": "ein Würfel"}, {"file": "b.jpg", "caption": None}]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8-sig")
    source = ImageFolder(folder)
    assert [e.captions for e in source] == [("ein Würfel",)]
    assert source.skipped == {"empty caption": 1}
    (folder / "captions.jsonl").write_text(json.dumps(lines[0]))
    assert ImageFolder(folder).report() == "1 picture; not listed 2: 2 picture without a row"


@pytest.mark.parametrize(
    "name,content,says",
    [
        ("captions.csv", b"picture,words\na.png,hi\n", "no column caption and no column file: .*'picture', 'words'"),
        ("captions.csv", b"file_name,words\na.png,hi\n", "no column caption: its columns are 'file_name', 'words'"),
        ("captions.csv", b"file,caption\na.png,\xff\xfe\n", "not UTF-8"),
        ("captions.jsonl", b'{"file": "a.png", "caption": "x"}\nnonsense', "line 2 is not JSON"),
        ("captions.jsonl", b"[1, 2]", "line 1 is not an object"),
        ("readme.txt", b"", "has no captions.csv or captions.jsonl"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        ImageFolder(tmp_path)


def test_a_folder_with_a_text_file_beside_each_picture(folder):
    (folder / "a.txt").write_text("first caption\n\n second caption \n", encoding="utf-8-sig")
    (folder / "deeper").mkdir()
    (folder / "b.jpg").rename(folder / "deeper" / "B.JPG")
    (folder / "deeper" / "B.txt").write_text("a flag")
    (folder / "notes.txt").write_text("of no picture")
    source = ImageFolder(folder)
    assert [(e.id, e.captions) for e in source] == [
        ("a.png", ("first caption", "second caption")),
        ("deeper/B.JPG", ("a flag",)),
    ]
    assert source.skipped == {"empty caption": 1}  # broken.png


def test_a_table_of_hugging_face(folder):
    (folder / "metadata.csv").write_text("file_name,text\na.png,a flag\n")
    assert [(e.id, e.captions) for e in ImageFolder(folder)] == [("a.png", ("a flag",))]


def test_an_image_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        ImageFolder(tmp_path / "none")


def test_a_broken_sample_has_a_cause(folder):
    for source, cause in (
        (folder / "none.png", "missing file"),
        (folder, "not a picture"),
        (b"x", "not a picture"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "damaged picture"),
        (Image.new("1", (9000, 9000)), "too many pixels"),
    ):
        with pytest.raises(BrokenSample) as broken:
            open_image(source)
        assert broken.value.cause == cause


def test_the_most_frequent_answer_is_the_answer():
    assert AskedQuestion("?", ("b", "a", "a", "b", "c")).answer == "b"  # the earlier one of equals
    assert AskedQuestion("?").answer == ""


# -------------------------------------------------------------------------------------------------------------- batches


def test_an_epoch_has_every_example_once_and_the_next_another_order():
    epochs = [[i for batch in range(start, start + 5) for i in batch_indices(batch, 4, 20, seed=7)] for start in (0, 5)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1] != list(range(20))
    assert batch_indices(3, 4, 20, seed=7) == epochs[0][12:16]  # a pure function of its arguments
    assert batch_indices(3, 4, 20, seed=8) != epochs[0][12:16]


def test_no_example_twice_in_a_batch():
    for batch in range(40):
        indices = batch_indices(batch, 8, 19)
        assert len(set(indices)) == 8 and max(indices) < 19
    with pytest.raises(ValueError, match="at least as many"):
        batch_indices(0, 8, 7)


def test_a_batch_moves_its_tensors_only():
    batch = Batch(captions=["a boat"], image_features=torch.zeros(1, 2, 3), ids=["x"])
    moved = batch.to("meta")
    assert moved.image_features.device.type == "meta" and moved.pixels is None and moved.captions == ["a boat"]


@pytest.mark.parametrize("names", ["abc", [1, 2], [None], [b"a"]])
def test_names_of_pictures_are_a_list_of_texts(names):
    with pytest.raises(ValueError, match="Names of pictures are a list of texts"):
        image_ids(names)
