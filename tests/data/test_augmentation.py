"""Crops and flips: inside the image, of the requested size, and never against the text."""

from random import Random

import pytest
from PIL import Image

from blip2_lab.data.augmentation import Augmentation, color_jitter, names_colors, names_sides, random_crop_box


@pytest.mark.parametrize("size", [(640, 480), (30, 300), (7, 7), (1, 50), (2000, 3)])
def test_a_crop_lies_inside_and_has_an_allowed_area_and_aspect(size):
    width, height = size
    for seed in range(200):
        left, top, right, bottom = random_crop_box(width, height, Random(seed), (0.5, 1.0))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        if size == (640, 480):
            area, aspect = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
            assert 0.495 <= area <= 1.0 and 0.74 <= aspect <= 1.345


def test_crops_of_a_narrow_image_fall_back_to_its_center():
    # no part of half the area has an aspect of at least 3:4: torchvision takes the largest allowed one in the middle
    assert random_crop_box(30, 300, Random(0), (0.5, 1.0)) == (0, 130, 30, 170)
    assert random_crop_box(300, 30, Random(0), (0.5, 1.0)) == (130, 0, 170, 30)


def test_areas_fill_the_whole_range():
    boxes = [random_crop_box(1000, 1000, Random(seed), (0.5, 1.0)) for seed in range(2000)]
    areas = sorted((right - left) * (bottom - top) / 1e6 for left, top, right, bottom in boxes)
    # large parts fit with a nearly square aspect only, so they are drawn less often than small ones
    assert areas[20] < 0.52 and 0.65 < areas[1000] < 0.72 and areas[-20] > 0.94


@pytest.mark.parametrize(
    "text,named",
    [
        ("a boat to the left of a tree", True),
        ("the Right-hand house", True),
        ("the rightmost man", True),
        ("turn clockwise", True),
        ("a counter-clockwise road", True),
        ("a bright boat, brightly lit", False),
        ("what is left? nothing", True),
        ("the copyright sign", False),
        ("a lefty pitcher", True),
    ],
)
def test_words_that_a_flip_would_make_false(text, named):
    assert names_sides(["a boat", text]) is named


@pytest.fixture
def halves() -> Image.Image:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    return image


def flipped(image: Image.Image) -> bool:
    """Is blue, the right half, on the left?"""
    return image.getpixel((0, 8))[2] > image.getpixel((15, 8))[2]


def test_half_of_the_images_are_flipped_but_none_whose_text_names_a_side(halves):
    augmentation = Augmentation(16, crop_scale=(0.9, 1.0))
    views = [augmentation(halves, ["two halves"], Random(seed)) for seed in range(200)]
    assert all(view.size == (16, 16) for view in views)
    assert 70 < sum(map(flipped, views)) < 130
    assert not any(flipped(augmentation(halves, ["red on the left"], Random(seed))) for seed in range(50))
    off = Augmentation(16, crop_scale=(0.9, 1.0), flip=False)
    assert not any(flipped(off(halves, ["two halves"], Random(seed))) for seed in range(50))


def test_the_same_seed_gives_the_same_view_for_any_text(halves):
    augmentation, after = Augmentation(16), []
    for text in ("two halves", "red on the left"):
        rng = Random(5)
        augmentation(halves, [text], rng)
        after.append(rng.random())
    assert after[0] == after[1]  # what is drawn later does not depend on the words
    one, again = (augmentation(halves, ["x"], Random(5)).tobytes() for _ in range(2))
    assert one == again != augmentation(halves, ["x"], Random(6)).tobytes()


@pytest.mark.parametrize(
    "text,named",
    [
        ("a red boat", True),
        ("GREY clouds", True),
        ("a colourful kite", True),
        ("a blonde woman", True),
        ("a dark street at night", True),
        ("a blueprint of a house", False),
        ("whitewater near Greenland", False),
        ("a boat on the beach", False),
    ],
)
def test_words_that_color_jitter_would_make_false(text, named):
    assert names_colors(["a boat", text]) is named


def test_color_jitter_spares_images_whose_text_names_a_color(halves):
    plain, jittered = Augmentation(16, flip=False), Augmentation(16, flip=False, color_jitter=0.5)
    for seed in range(5):
        views = [each(halves, ["a boat"], Random(seed)) for each in (plain, jittered, jittered)]
        assert views[0] != views[1] == views[2] and views[1].size == (16, 16)
        named = jittered(halves, ["a boat", "a red sky"], Random(seed))
        assert named == views[0]
    with pytest.raises(ValueError, match="color_jitter 1 is not possible: choose 0"):
        Augmentation(16, color_jitter=1.0)


def test_color_jitter_by_hand():
    """On a gray image only brightness acts: contrast keeps the mean, and there is no saturation."""
    gray = Image.new("RGB", (4, 4), (100, 100, 100))
    values = {color_jitter(gray, 0.3, Random(seed)).getpixel((0, 0)) for seed in range(200)}
    assert all(r == g == b and 69 <= r <= 130 for r, g, b in values)
    assert min(values)[0] < 75 and max(values)[0] > 125
    assert color_jitter(gray, 0.0, Random(0)).getpixel((0, 0)) == (100, 100, 100)


def test_notes_count_the_texts_that_a_crop_or_a_color_jitter_can_make_false():
    texts = ["a red boat on the left.", "a boat.", "a blue car."]
    assert Augmentation(16, crop_scale=(1.0, 1.0)).notes(texts) == []
    (crop,) = Augmentation(16).notes(texts)
    assert crop.startswith("1 of 3 texts name a side; a random crop can move")
    both = Augmentation(16, color_jitter=0.4).notes(texts)
    assert [note.split(";")[0] for note in both] == ["2 of 3 texts name a color", "1 of 3 texts name a side"]
    assert Augmentation(16, color_jitter=0.4).notes(["a boat."]) == [] and Augmentation(16).notes([]) == []
