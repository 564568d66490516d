"""Batches of image-text data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import AskedQuestion, Batch, ImageTextList, Record
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import Mixture, open_sources
from blip2_lab.data.packing import pack
from blip2_lab.training.batches import ImageTextBatches, choose_text
from blip2_lab.training.recipes.schema import ImageTextData


def folder_of(tmp_path: Path, count: int = 12) -> Path:
    """Pictures whose red is their number and whose left half is brighter; two captions each."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(count):
        image = Image.new("RGB", (24, 24), (10 * number, 0, 200))
        image.paste((10 * number, 0, 0), (12, 0, 24, 24))
        image.save(folder / f"p{number:02d}.png")
        (folder / f"p{number:02d}.txt").write_text(f"number {number}\nthe picture {number}")
    return folder


def feed_of(
    folder: Path, *, batch_size: int = 4, seed: int = 0, broken_file: Path | None = None, **data
) -> ImageTextBatches:
    settings = ImageTextData(**{"image_size": 8, "threads": 3} | data)
    return ImageTextBatches(open_sources(folder), settings, batch_size=batch_size, seed=seed, broken_file=broken_file)


def same(one: Batch, other: Batch) -> bool:
    tensors = [(one.pixels, other.pixels), (one.image_features, other.image_features)]
    alike = all((a is None and b is None) or torch.equal(a, b) for a, b in tensors)
    return alike and (one.captions, one.ids, one.questions) == (other.captions, other.ids, other.questions)


def mean_color(images) -> torch.Tensor:
    """An encoder [B,2,3]: left and right half."""
    halves = [np.asarray(image, dtype=np.float32).reshape(8, 2, 4, 3).mean((0, 2)) for image in images]
    return torch.tensor(np.array(halves))


def test_a_batch_of_images_is_a_function_of_its_index(tmp_path):
    folder = folder_of(tmp_path)
    examples, again = feed_of(folder), feed_of(folder, threads=1)
    late = again.batch(31)  # in another order, by another number of threads
    for index in (0, 1, 2):
        assert same(examples.batch(index), again.batch(index))
    assert same(examples.batch(31), late) and not same(examples.batch(0), examples.batch(1))
    assert not same(examples.batch(0), feed_of(folder, seed=1).batch(0))
    batch = examples.batch(0)
    assert batch.pixels.shape == (4, 3, 8, 8) and len(set(batch.ids)) == 4
    for name, caption in zip(batch.ids, batch.captions, strict=True):
        number = int(name.removeprefix("0/p").removesuffix(".png"))
        assert caption in (f"number {number}", f"the picture {number}")


def joined(batches: list[Batch]) -> Batch:
    return Batch(
        captions=[caption for batch in batches for caption in batch.captions],
        ids=[name for batch in batches for name in batch.ids],
        pixels=torch.cat([batch.pixels for batch in batches]),
    )


@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_a_step_are_its_batch(tmp_path, parts):
    """Over several epochs, whose remainders are dropped: 13 pictures make two steps of six."""
    folder = folder_of(tmp_path, 13)
    whole = feed_of(folder, batch_size=6)
    split = ImageTextBatches(open_sources(folder), whole.data, batch_size=6 // parts, seed=0, parts=parts)
    for step in range(5):
        pieces = [split.batch(step * parts + part) for part in range(parts)]
        assert [piece.place for piece in pieces] == [step * 6 + part * 6 // parts for part in range(parts)]
        assert same(joined(pieces), whole.batch(step))


def test_few_images_are_split_into_equal_parts(tmp_path):
    batches = ImageTextBatches(
        open_sources(folder_of(tmp_path, 7)), ImageTextData(image_size=8), batch_size=8, seed=0, parts=2
    )
    assert len(batches.batch(0).ids) == len(batches.batch(1).ids) == 3
    assert not set(batches.batch(0).ids) & set(batches.batch(1).ids)
    with pytest.raises(ValueError, match="7 pictures cannot be split into 8 passes"):
        ImageTextBatches(batches.opened, batches.data, batch_size=1, seed=0, parts=8)


def test_texts_that_are_not_usable_are_left_out_and_named(tmp_path):
    folder, file = folder_of(tmp_path), tmp_path / "left_out.jsonl"
    (folder / "p03.txt").write_text("bad\nbad too")
    (folder / "p04.txt").write_text("bad\nnumber 4")
    batches = feed_of(folder, batch_size=11)
    batches.keep_usable(lambda question, text: "strange" if "bad" in text else None, file)
    assert batches.left_out == {"strange": 3} and len(batches.mixture) == 11
    named = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["text"] for line in named] == ["bad", "bad too", "bad"]
    assert named[0]["sample"].endswith("own: p03.png") and named[2]["sample"].endswith("own: p04.png")
    seen = [caption for index in range(6) for caption in batches.batch(index).captions]
    assert not any("bad" in caption for caption in seen) and "number 4" in seen
    with pytest.raises(ValueError, match="no text of .*own can be trained on: 24 strange"):
        feed_of(folder).keep_usable(lambda question, text: "strange")
    batches.keep_usable(lambda question, text: None, file)
    assert not file.exists()  # of an earlier start


def test_answers_that_are_not_usable_are_left_out():
    asked = AskedQuestion("what is it?", ("zzz",) * 7 + ("mesh",) * 3)
    lost = AskedQuestion("what else?", ("zzz",))
    record = Record(Image.new("RGB", (8, 8)), (), (asked, lost), id="x")
    batches = ImageTextBatches(
        Mixture([ImageTextList([record] * 4)]), ImageTextData(image_size=8, text="questions"), batch_size=4, seed=0
    )
    batches.keep_usable(lambda question, text: "strange" if text == "zzz" else None)
    drawn = [batches.batch(index) for index in range(9)]
    seen = {pair for batch in drawn for pair in zip(batch.questions, batch.captions, strict=True)}
    assert seen == {("what is it?", "mesh")} and batches.left_out == {"strange": 8}


def test_texts_of_shards_are_judged_when_they_are_read(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "p03.txt").write_text("bad")
    pack(ImageFolder(folder), tmp_path / "shards", per_shard=5)
    batches = feed_of(tmp_path / "shards", batch_size=12, max_broken=0.5)
    assert len(batches.texts()) == 23
    batches.keep_usable(lambda question, text: "strange" if text == "bad" else None)
    assert "bad" not in batches.batch(0).captions
    assert batches.skips.causes == {"no caption": 1}


def test_caption_crop_and_flip_are_drawn_each_time(tmp_path):
    examples = feed_of(folder_of(tmp_path), batch_size=12)
    batches = [examples.batch(index) for index in range(20)]
    captions = {caption for batch in batches for caption in batch.captions}
    assert len(captions) == 24
    flips = [float(pixels[2, :, :3].mean() < pixels[2, :, 5:].mean()) for batch in batches for pixels in batch.pixels]
    assert 0.4 < sum(flips) / len(flips) < 0.6


def test_no_flip_if_the_text_names_a_side(tmp_path):
    folder = folder_of(tmp_path)
    for path in folder.glob("*.txt"):
        path.write_text("bright on the left")
    examples = feed_of(folder, batch_size=12)
    assert all(
        pixels[2, :, :3].mean() > pixels[2, :, 5:].mean()
        for index in range(10)
        for pixels in examples.batch(index).pixels
    )


def test_a_broken_image_is_skipped_counted_and_replaced(tmp_path):
    folder, file = folder_of(tmp_path), tmp_path / "skipped.jsonl"
    (folder / "p03.png").write_bytes((folder / "p03.png").read_bytes()[:60])
    (folder / "p05.png").unlink()
    examples = feed_of(folder, batch_size=11, max_broken=0.5, broken_file=file)
    for index in range(3):
        batch = examples.batch(index)
        assert len(batch.captions) == len(batch.pixels) == len(batch.ids) == 11
        assert len(set(batch.ids)) == 10 and "0/p03.png" not in batch.ids
        repeated = next(name for name in batch.ids if batch.ids.count(name) == 2)
        first, second = (place for place, name in enumerate(batch.ids) if name == repeated)
        assert batch.captions[first] == batch.captions[second]
        assert same(batch, feed_of(folder, batch_size=11, max_broken=0.5).batch(index))
    assert "skipped 1 of 11 examples" in examples.skips.report()
    assert json.loads(file.read_text())["sample"].endswith("own: p03.png")


def test_too_many_broken_images_are_an_error(tmp_path):
    folder = folder_of(tmp_path)
    for number in range(4):
        (folder / f"p{number:02d}.png").write_bytes(b"x")
    examples = feed_of(folder, batch_size=12)
    with pytest.raises(ValueError, match="[234] of 12 examples cannot be used .[234] not a picture"):
        examples.batch(0)


def test_held_out_images_are_not_trained_on(tmp_path):
    examples = feed_of(folder_of(tmp_path), batch_size=5, held_out=2)
    out = examples.validation()
    seen = {name for index in range(10) for name in examples.batch(index).ids}
    assert len(out.captions) == 2 and len(seen) == 10
    numbers = {name.removeprefix("0/") for name in out.ids}
    assert not numbers & {name.removeprefix("0/") for name in seen}
    assert feed_of(tmp_path / "own").validation() is None


def test_few_pictures_are_all_trained_on_and_the_note_says_what_is_held_out(tmp_path, capsys):
    examples = feed_of(folder_of(tmp_path, count=9), batch_size=3, held_out=40)
    assert "no picture is held out, because 9 are too few" in capsys.readouterr().out
    assert examples.validation() is None and len(examples.mixture) == 9
    (tmp_path / "more").mkdir()
    examples = feed_of(folder_of(tmp_path / "more"), batch_size=3, held_out=40)
    assert "note: 2 pictures are held out, to measure on: a fifth at most" in capsys.readouterr().out
    assert len(examples.validation().captions) == 2 and len(examples.mixture) == 10
    feed_of(tmp_path / "more" / "own", batch_size=3, held_out=2)
    assert "held out" not in capsys.readouterr().out  # as many as were asked for


def test_one_caption_for_all_pictures_is_told_before_training(tmp_path, capsys):
    folder = folder_of(tmp_path)
    feed_of(folder)
    assert "the same caption" not in capsys.readouterr().out
    for text in folder.glob("*.txt"):
        text.write_text("a red boat")
    feed_of(folder)
    assert "note: every picture has the same caption ('a red boat')" in capsys.readouterr().out


def test_a_small_folder_makes_small_batches_with_a_note(tmp_path, capsys):
    examples = feed_of(folder_of(tmp_path), batch_size=64)
    assert "batches of 12 instead of 64" in capsys.readouterr().out
    assert len(set(examples.batch(5).ids)) == 12


# ------------------------------------------------------------------------------------------------------------ the cache


def test_cached_views_are_crops_of_the_image_and_reused(tmp_path):
    folder, said = folder_of(tmp_path), []
    examples, again = (feed_of(folder, cached_views=3) for _ in range(2))
    for one in (examples, again):
        one.cache(mean_color, tmp_path / "features", "encoder", said.append)
    (line,) = said
    assert line.startswith("computing the features of 36 views of 12 pictures, once (0.4 kB in ")
    batches = [examples.batch(index) for index in range(9)]
    assert all(same(batch, again.batch(index)) for index, batch in enumerate(batches))
    views: dict[str, set] = {}
    for batch in batches:
        assert batch.pixels is None and batch.image_features.shape == (4, 2, 3)
        for name, features in zip(batch.ids, batch.image_features, strict=True):
            number = int(name.removeprefix("0/p").removesuffix(".png"))
            assert features[0, 0] == features[1, 0] == 10 * number  # that picture's red
            views.setdefault(name, set()).add(tuple(features.flatten().tolist()))
    assert 1 < max(map(len, views.values())) <= 3


def test_changed_images_get_another_cache(tmp_path):
    folder, said = folder_of(tmp_path), []
    feed_of(folder, cached_views=1).cache(mean_color, tmp_path / "features", "encoder", said.append)
    feed_of(folder, cached_views=1, flip=False).cache(mean_color, tmp_path / "features", "encoder", said.append)
    feed_of(folder, cached_views=1).cache(mean_color, tmp_path / "features", "another", said.append)
    Image.new("RGB", (30, 30)).save(folder / "p00.png")
    feed_of(folder, cached_views=1).cache(mean_color, tmp_path / "features", "encoder", said.append)
    assert len(said) == 4


def test_no_cached_view_is_flipped_if_any_caption_names_a_side(tmp_path):
    folder = folder_of(tmp_path)
    for path in folder.glob("*.txt"):
        path.write_text("a picture\nbright on the left")  # the caption drawn later may be the second
    examples = feed_of(folder, batch_size=12, cached_views=4)
    examples.cache(mean_color, tmp_path / "features", "encoder", lambda _: None)
    for index in range(6):
        assert all(features[0, 2] > features[1, 2] for features in examples.batch(index).image_features)


def test_a_broken_image_is_broken_in_the_cache(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "p00.png").write_bytes(b"x")  # the first one tells the features' shape, too
    for _ in range(2):  # the second time from the cache, without opening the picture
        examples = feed_of(folder, batch_size=12, cached_views=2)
        examples.cache(mean_color, tmp_path / "features", "encoder", lambda _: None)
        batch = examples.batch(0)
        assert not batch.image_features.isnan().any() and "0/p00.png" not in batch.ids
        assert examples.skips.causes.total() == 1


def test_a_stream_cannot_be_cached(tmp_path):
    pytest.importorskip("webdataset")
    settings = ImageTextData(image_size=8, cached_views=1)
    examples = ImageTextBatches(open_sources("http://localhost/x.tar"), settings, batch_size=4, seed=0)
    with pytest.raises(ValueError, match="cannot be cached: --set data.cached_views=0"):
        examples.cache(mean_color, tmp_path, "encoder")


# ------------------------------------------------------------------------------------------------------------ questions


def test_questions_come_with_one_of_their_answers():
    asked = AskedQuestion("what is it?", ("net",) * 7 + ("mesh",) * 3, id="1")
    unanswered = AskedQuestion("and this?")
    record = Record(Image.new("RGB", (8, 8)), ("a net",), (unanswered, asked), id="x")
    examples = ImageTextBatches(
        Mixture([ImageTextList([record] * 4)]), ImageTextData(image_size=8, text="questions"), batch_size=4, seed=0
    )
    batches = [examples.batch(index) for index in range(50)]
    assert {question for batch in batches for question in batch.questions} == {"what is it?"}
    answers = [answer for batch in batches for answer in batch.captions]
    assert 0.6 < answers.count("net") / len(answers) < 0.8  # as often as people gave it
    assert choose_text(record, "questions", None) == ("what is it?", "net")
    assert choose_text(record, "captions", None) == (None, "a net")
    with pytest.raises(BrokenSample):
        choose_text(Record(b"", questions=(unanswered,)), "questions", None)


def test_a_source_without_the_wanted_texts_is_an_error(tmp_path):
    folder = folder_of(tmp_path)
    with pytest.raises(ValueError, match="has no questions; to train on its captions: --set data.text=captions"):
        feed_of(folder, text="questions")
    with pytest.raises(ValueError, match="choose captions or questions"):
        feed_of(folder, text="words")


def test_mixed_sources_have_distinct_ids(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "s.toml").write_text(
        '[[source]]\nformat = "folder"\nfolder = "own"\nweight = 1\n'
        '[[source]]\nformat = "picture-book"\npages = 50\nimage_size = 32\nweight = 1\n'
    )
    examples = feed_of(tmp_path / "s.toml", batch_size=16)
    batch = examples.batch(0)
    assert {name[0] for name in batch.ids} == {"0", "1"} and batch.pixels.shape == (16, 3, 8, 8)
    assert set(examples.texts()) == {text for n in range(12) for text in (f"number {n}", f"the picture {n}")}


def test_changed_captions_keep_the_cache_unless_they_name_a_side(tmp_path):
    folder, said = folder_of(tmp_path), []
    for text in ("number 3", "another caption", "at the left"):
        (folder / "p03.txt").write_text(text)
        feed_of(folder, cached_views=1).cache(mean_color, tmp_path / "features", "encoder", said.append)
    assert len(said) == 2
