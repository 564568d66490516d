"""Scenes of cut-outs: what is said of them is true, pixel by pixel, and what cannot be placed is named.

The cut-outs are plain squares of known colors, so a picture can be compared with its truth.
"""

import csv
import json
from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pytest
from PIL import Image

from blip2_lab.common.images import BrokenSample, open_cutout
from blip2_lab.data.composites import Composites, Placed, captions, noun_of, questions, write
from blip2_lab.data.mixture import open_sources
from blip2_lab.picturebook.scene import POSITIONS, Scene
from blip2_lab.picturebook.words import NUMBERS, RELATIONS, holds
from tests.test_cli import complaint, run

THINGS = {"red": ("A zorp.", (255, 0, 0)), "blue": ("An ulp.", (0, 0, 255)), "green": ("The one moon.", (0, 255, 0))}


def cut_out(color: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> Image.Image:
    """A colored rectangle with a transparent margin of 10 pixels."""
    image = Image.new("RGBA", (size[0] + 20, size[1] + 20))
    image.paste((*color, 255), (10, 10, 10 + size[0], 10 + size[1]))
    return image


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "things"
    place.mkdir()
    for name, (sentence, color) in THINGS.items():
        cut_out(color).save(place / f"{name}.png")
        (place / f"{name}.txt").write_text(sentence + "\n")
    return place


@pytest.fixture
def black(tmp_path):
    """A folder with a black background."""
    place = tmp_path / "black"
    place.mkdir()
    Image.new("RGB", (300, 200)).save(place / "black.png")
    return place


def test_a_picture_shows_each_thing_in_its_box_and_nothing_else(folder, black):
    composites = Composites(folder, backgrounds=black, image_size=96)
    colors = {noun_of(sentence)[0]: np.array(color) for sentence, color in THINGS.values()}
    seen = Counter()
    for index in range(40):
        scene, pixels = composites.scene(index), np.asarray(composites.image(index)).astype(int)
        covered = np.zeros((96, 96), dtype=bool)
        for thing in scene.things:
            left, top, right, bottom = (round(96 * edge) for edge in thing.box)
            inside = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
            assert (inside == colors[thing.kind]).all(), (index, thing)
            covered[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
            seen[len(scene.things)] += 1
        assert (pixels[~covered] == 0).all()
        assert all(0 <= edge <= 1 for thing in scene.things for edge in thing.box)
    assert set(seen) == {1, 2, 3, 4}


def test_a_scene_is_a_function_of_its_index_and_its_seed(folder):
    first, again, other = Composites(folder), Composites(folder), Composites(folder, seed=1)
    for index in (7, 0, 3):
        one, same = first[index], again[index]
        assert np.array_equal(np.asarray(one.image), np.asarray(same.image))
        assert (one.captions, one.questions, one.boxes) == (same.captions, same.questions, same.boxes)
    assert [first.scene(i) for i in range(20)] != [other.scene(i) for i in range(20)]


def test_what_is_there_only_once_is_never_repeated_and_likes_are_never_together(folder):
    (folder / "black.txt").write_text("A black zorp.")
    cut_out((9, 9, 9)).save(folder / "black.png")
    composites = Composites(folder)
    counts = Counter()
    for index in range(300):
        kinds = [thing.kind for thing in composites.scene(index).things]
        assert kinds.count("one moon") <= 1
        assert not {"zorp", "black zorp"} <= set(kinds)
        counts[max(Counter(kinds).values())] += 1
    assert counts[2] > 20 and counts[3] > 1


def scene_of(*things: tuple[str, int], place: str = "beach", time: str = "day") -> Scene:
    """(noun, cell) -> a scene."""
    placed = [
        Placed(noun, "", "large", (cell % 3 + 0.5) / 3, (cell // 3 + 0.5) / 3, unique=noun == "moon")
        for noun, cell in things
    ]
    return Scene(tuple(placed), place, time)


def test_the_words_of_a_scene_known_by_hand():
    scene = scene_of(("fox", 0), ("fox", 8), ("glass of water", 4), ("moon", 2))
    nouns = {"fox": False, "glass of water": False, "moon": True, "owl": False}
    said = {caption for seed in range(60) for caption in captions(scene, Random(seed))}
    assert "two foxes, the moon and a glass of water on the beach by day." in said
    assert any(
        "a fox at the top left, the moon at the top right, a glass of water in the middle" in one for one in said
    )
    assert "the moon is above a glass of water." in said and "a glass of water is above the moon." not in said
    asked = {(q.text, q.answer) for seed in range(400) for q in questions(scene, Random(seed), nouns)}
    right = {
        ("how many foxes are there?", "two"),
        ("how many glasses of water are there?", "one"),
        ("how many things are there?", "four"),
        ("is there an owl?", "no"),
        ("is there the moon?", "yes"),
        ("where is the moon?", "top right"),
        ("what is in the middle?", "glass of water"),
        ("what is to the right of the glass of water?", "moon"),
        ("what place is this?", "beach"),
    }
    assert ("where is the fox?", "top left") not in asked and ("how many moons are there?", "one") not in asked
    assert right - asked in ({("what is to the right of the glass of water?", "moon")}, set())
    alone = {(q.text, q.answer) for seed in range(50) for q in questions(scene_of(("owl", 4)), Random(seed), nouns)}
    assert ("what is this?", "owl") in alone and not any("where is the owl" in text for text, _ in alone)


def test_every_answer_and_every_relation_is_true_of_the_scene(folder):
    """Each question is answered again from the truth, in another way than it was made."""
    composites, types = Composites(folder), Counter()
    for index in range(300):
        scene, example = composites.scene(index), composites[index]
        kinds = Counter(thing.kind for thing in scene.things)
        cells = {thing.position: thing.kind for thing in scene.things}
        for asked in example.questions:
            types[asked.type] += 1
            words = asked.text.rstrip("?").split()
            if asked.type == "count":
                wanted = len(scene.things) if words[2] == "things" else kinds[words[2].removesuffix("s")]
                assert asked.answer == NUMBERS[wanted]
            elif asked.type == "existence":
                noun = asked.text.removeprefix("is there ").rstrip("?").split(" ", 1)[1]
                assert asked.answer == ("yes" if kinds[noun] else "no")
            elif asked.type == "position":
                noun = asked.text.removeprefix("where is the ").rstrip("?")
                assert kinds[noun] == 1 and cells[asked.answer] == noun
            elif asked.type == "what" and len(scene.things) > 1:
                position = next(p for p in sorted(POSITIONS, key=len, reverse=True) if asked.text.endswith(f"the {p}?"))
                assert cells[position] == asked.answer
            elif asked.type == "relation":
                relation = next(r for r in RELATIONS if f" {r} " in asked.text)
                anchor = next(t for t in scene.things if asked.text.endswith(f"the {t.kind}?"))
                assert [t.kind for t in scene.things if holds(relation, t, anchor)] == [asked.answer]
        for first, second in combinations(scene.things, 2):
            assert first.position != second.position
    assert set(types) == {"count", "existence", "position", "what", "relation", "place", "time"}


@pytest.mark.parametrize(
    ("sentence", "noun"),
    [
        ("A duck.", ("duck", False)),
        ("An albino peahen (a female peafowl, or peacock).", ("albino peahen", False)),
        ("A ripe, red tomato!", ("ripe red tomato", False)),
        ("The Sun.", ("sun", True)),
        ("A “Fuji” apple.", ("fuji apple", False)),
        ("  a glass of water", ("glass of water", False)),
    ],
)
def test_a_noun_is_read_from_a_sentence(sentence, noun):
    assert noun_of(sentence) == noun


@pytest.mark.parametrize(
    "sentence",
    ["", "A", "a.", "Penguins are winning!", "A boat is red.", "A stone that lies at the sea", "...", "(a duck)"],
)
def test_a_sentence_without_a_thing_is_refused(sentence):
    with pytest.raises(BrokenSample, match="does not name one thing"):
        noun_of(sentence)


def test_masks_and_every_form_of_transparency_are_read(folder):
    solid = Image.new("RGB", (60, 60), "white")
    solid.paste((255, 0, 0), (10, 10, 50, 50))
    mask = Image.new("L", (60, 60))
    mask.paste(255, (10, 10, 50, 50))
    solid.save(folder / "red.png")
    mask.save(folder / "red.mask.png")
    gray = cut_out((0, 0, 255)).convert("LA")
    gray.save(folder / "blue.png")
    cut_out((0, 255, 0)).quantize().save(folder / "green.png")
    composites = Composites(folder)
    assert len(composites.cutouts) == 3 and not composites.left_out
    for name, file_mask in (("red", folder / "red.mask.png"), ("blue", None), ("green", None)):
        image = open_cutout(folder / f"{name}.png", file_mask)
        assert image.mode == "RGBA" and image.size == (40, 40) and image.getchannel("A").getextrema() == (255, 255)


def test_a_cut_out_that_cannot_be_placed_is_named_with_its_cause(folder):
    def add(name: str, image: Image.Image, sentence: str = "A thing.") -> None:
        image.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(sentence)

    add("solid", Image.new("RGB", (9, 9)))
    add("empty", Image.new("RGBA", (9, 9)))
    add("verse", cut_out((1, 2, 3)), "Eat your broccoli!")
    add("masked", Image.new("RGB", (9, 9)))
    Image.new("L", (8, 9)).save(folder / "masked.mask.png")
    (folder / "torn.png").write_bytes((folder / "red.png").read_bytes()[:60])
    (folder / "torn.txt").write_text("A torn one.")
    cut_out((4, 5, 6)).save(folder / "mute.png")
    composites = Composites(folder)
    causes = {one.sample: one.cause for one in composites.left_out}
    assert causes == {
        "solid.png": "not cut out",
        "empty.png": "not cut out",
        "verse.png": "sentence without a thing",
        "masked.png": "mask of another size",
        "torn.png": "damaged picture",
        "mute.png": "empty caption",
    }
    assert all(one.sample in one.message for one in composites.left_out)
    assert len(composites.cutouts) == 3


def test_too_few_cut_outs_and_wrong_numbers_are_one_sentence(folder, tmp_path, capsys):
    for name in ("red", "blue"):
        (folder / f"{name}.png").unlink()
        (folder / f"{name}.txt").unlink()
    assert "has 1 cut-outs that can be placed, and 2 are needed" in complaint(
        capsys, "data", "composites", str(folder), str(tmp_path / "out")
    )
    cut_out((255, 0, 0)).save(folder / "red.png")
    (folder / "red.txt").write_text("A zorp.")
    for wrong, says in (
        (("--size", "8"), "scenes have 32 to 2048 pixels"),
        (("--scenes", "0"), "write at least 1"),
        (("--backgrounds", str(tmp_path / "nowhere")), "has no pictures that could be backgrounds"),
    ):
        assert says in complaint(capsys, "data", "composites", str(folder), str(tmp_path / "out"), *wrong)
    assert not (tmp_path / "out").exists()
    assert "--composites belongs to a world of your own" in complaint(
        capsys, "train", "--on", str(folder), "--composites", "5"
    )


def test_the_written_folder_is_what_was_sampled_and_is_written_once(folder, tmp_path, capsys):
    out = tmp_path / "scenes"
    assert run(capsys, "data", "composites", str(folder), str(out), "--scenes", "12", "--seed", "3")[0] == 0
    composites = Composites(folder, seed=3)
    source = open_sources(out).sources[0]
    assert len(source) == 12 and not source.left_out
    truth = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    for index in range(12):
        example, read = composites[index], source[index]
        assert np.array_equal(np.asarray(read.image), np.asarray(example.image))
        assert read.captions == example.captions
        assert [(q.text, q.answer) for q in read.questions] == [(q.text, q.answer) for q in example.questions]
        things = composites.scene(index).things
        assert [thing["kind"] for thing in truth[index]["things"]] == [thing.kind for thing in things]
        assert [thing["position"] for thing in truth[index]["things"]] == [thing.position for thing in things]
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    write(composites, 12, out, say=lambda _: pytest.fail("it was written already"))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written
    (out / "composites.json").unlink()  # as after a kill: it is written anew
    write(composites, 12, out)
    with pytest.raises(ValueError, match="other cut-outs or of another number"):
        write(composites, 13, out)
    (folder / "red.txt").write_text("A zorp.\nA red zorp.")
    with pytest.raises(ValueError, match="other cut-outs"):
        write(Composites(folder, seed=3), 12, out)
    with pytest.raises(ValueError, match="is not empty"):
        write(composites, 12, folder)
    with (out / "captions.csv").open(newline="") as table:
        assert {row["file"] for row in csv.DictReader(table)} == {f"{index:02d}.png" for index in range(12)}


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "duck.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"duck\.png is a file: give the folder of the pictures"):
        Composites(tmp_path / "duck.png")
    with pytest.raises(ValueError, match="there is no folder"):
        Composites(tmp_path / "goose")
