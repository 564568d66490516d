"""What a drawing must be: deterministic, in its box, visible, readable in kind and color, independent of its company.

No pixel is compared with a stored one, since Pillow may round a curve differently from one release to the next; means
over parts of a picture are. Every threshold below is a property that a reader of the picture needs.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from blip2_lab.picturebook import draw as drawing
from blip2_lab.picturebook.draw import DRAW_PLACE, draw, masks
from blip2_lab.picturebook.kinds import DRAW_KIND
from blip2_lab.picturebook.pen import PALETTE, Pen, inks
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, SIZES, SPLITS, STYLES, TIMES, Scene, Thing, sample_scene


def pixels(scene: Scene, size: int = 96) -> np.ndarray:
    """`float[size, size, 3]`."""
    return np.asarray(draw(scene, size), dtype=float)


def alone(kind: str, color: str = "red", size: str = "small", **rest: str) -> Scene:
    return Scene((Thing(kind, color, size, 0.5, 0.5),), **rest)


def inner(mask: np.ndarray) -> np.ndarray:
    """The mask without its outermost pixels, where the rim is."""
    padded = np.pad(mask, 1)
    return mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]


def silhouettes() -> dict[str, np.ndarray]:
    return {kind: masks(alone(kind))[0] for kind in KINDS}


def test_the_tables_know_every_name():
    assert (set(DRAW_KIND), set(DRAW_PLACE), set(PALETTE)) == (set(KINDS), set(PLACES), set(COLORS))


#: Mean color of each of 4 x 4 parts of scene 0 of book 5, row by row, in hexadecimal.
LOOKS = {
    "train": "d8e7edd0e9f5dceaede1e8e4beb8b1bfaabfc1c8d5b7becfd0c9c3c7bfbcb9a8bba1a8bdbdb9babdb9bab6b3b5a19fa3",
    "in": "1e254821284a2c32521e254924304a212b481e2548202848384f4e475a4f54624d364e4b324b434b5c4c59654c324b43",
    "near": "232a4d44538444527f282f5074686749567c525e7d5c63796e6060565a6c595f6a5a637d394363394363394363394363",
    "out": "3d4e47394a443546415a6447495d52384a423648423a4c45426b4b425d494256484256493f5446405446405446405546",
}


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_picture_on_every_machine(split):
    parts = pixels(sample_scene(5, 0, split)).reshape(4, 24, 4, 24, 3).mean(axis=(1, 3))
    stored = np.frombuffer(bytes.fromhex(LOOKS[split]), dtype=np.uint8).reshape(4, 4, 3)
    assert np.abs(parts - stored).max() < 2, "a thing of another color, or elsewhere, changes the mean by more"


@pytest.mark.parametrize("split", SPLITS)
def test_same_bytes_twice_even_with_cold_caches(split):
    scenes = [sample_scene(5, i, split) for i in range(4)]
    before = [(draw(s, 64).tobytes(), masks(s, 64).tobytes()) for s in scenes]
    drawing._sprite.cache_clear()
    drawing._background.cache_clear()
    assert before == [(draw(s, 64).tobytes(), masks(s, 64).tobytes()) for s in scenes]


def test_a_picture_is_the_callers_own():
    scene = sample_scene(0, 0)
    untouched = draw(scene).tobytes()
    draw(scene).paste("white", (0, 0, 96, 96))
    assert draw(scene).tobytes() == untouched, "drawing on a returned picture must not reach the cached background"


@pytest.mark.parametrize("size", [32, 96, 224, 1024])
def test_any_resolution(size):
    scene = sample_scene(1, 1)
    picture, seen = draw(scene, size), masks(scene, size)
    assert (picture.size, picture.mode) == ((size, size), "RGB")
    assert (seen.shape, seen.dtype) == ((len(scene.things), size, size), np.dtype(bool))


@pytest.mark.parametrize("style", STYLES)
def test_a_larger_picture_is_the_same_picture(style):
    for i in range(3):
        scene = sample_scene(2, i)
        scene = Scene(scene.things, scene.place, scene.time, style)
        small, large = draw(scene, 96), draw(scene, 384).resize((96, 96), Image.Resampling.BOX)
        assert np.abs(np.asarray(small, float) - np.asarray(large, float)).mean() < 6
        areas = masks(scene, 96).mean((1, 2)), masks(scene, 384).mean((1, 2))
        np.testing.assert_allclose(*areas, rtol=0.12)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_masks_lie_in_their_boxes_and_fill_them(size):
    for i in range(40):
        scene = sample_scene(3, i, "out" if i % 4 == 0 else "train")
        seen = masks(scene, size)
        assert seen.sum(0).max() <= 1, "two things claim the same pixel"
        for thing, mask in zip(scene.things, seen, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top, right, bottom = (v * size for v in thing.box)
            assert columns[0] >= left - 1 and columns[-1] < right + 1 and rows[0] >= top - 1 and rows[-1] < bottom + 1
            side = right - left
            assert mask.sum() > 0.3 * side**2, f"{thing} covers too little of its box"
            assert min(np.ptp(rows), np.ptp(columns)) > 0.7 * side - 1, f"{thing} does not reach across its box"


def test_a_later_thing_covers_an_earlier_one():
    first, second = Thing("ball", "red", "large", 0.5, 0.5), Thing("house", "blue", "large", 0.5, 0.5)
    both, lone = masks(Scene((first, second))), masks(Scene((first,)))
    assert (both[1] == masks(Scene((second,)))[0]).all()
    assert (both[0] == (lone[0] & ~both[1])).all()


def test_a_thing_half_outside_is_cut_not_refused():
    scene = Scene((Thing("ball", "red", "large", 0.0, 1.0),))
    assert 0 < masks(scene)[0].sum() < 0.3 * masks(alone("ball", size="large"))[0].sum()
    assert draw(scene).size == (96, 96)


@pytest.mark.parametrize("style", STYLES)
def test_company_changes_no_pixel_of_a_thing(style):
    for i in range(12):
        scene = sample_scene(4, i)
        scene = Scene(scene.things, scene.place, scene.time, style)
        lone = Scene(scene.things[:1], scene.place, scene.time, style)
        others = masks(scene)[1:].any(0)
        changed = (pixels(scene) != pixels(lone)).any(-1)
        assert (masks(scene)[0] == masks(lone)[0]).all() and not (changed & masks(lone)[0]).any()
        grown = np.pad(others, 1)
        near = grown[2:, 1:-1] | grown[:-2, 1:-1] | grown[1:-1, 2:] | grown[1:-1, :-2] | others
        assert (changed & ~near).mean() < 0.002, "adding a thing changed the background elsewhere"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("light", TIMES)
def test_the_mean_color_names_the_color(light, size):
    named = np.array([inks(color, "flat", light).color for color in COLORS], dtype=float)
    for kind in KINDS:
        for i, color in enumerate(COLORS):
            scene = alone(kind, color, size, place=PLACES[i % len(PLACES)], time=light)
            mean = pixels(scene)[inner(masks(scene)[0])].mean(0)
            nearest = COLORS[np.linalg.norm(named - mean, axis=1).argmin()]
            assert nearest == color, f"a {size} {color} {kind} by {light} looks {nearest}: less white and dark in it?"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("light", TIMES)
def test_most_pixels_have_the_things_own_color(light, style):
    named = np.array([inks(color, style, light).color for color in COLORS], dtype=float)
    if style == "chalk":  # the board shows through
        named = 0.55 * named + 0.45 * np.array(drawing.BOARD[light])
    for kind in KINDS:
        for i, color in enumerate(COLORS):
            scene = alone(kind, color, style=style, time=light)
            distance = np.linalg.norm(pixels(scene)[masks(scene)[0]][:, None] - named, axis=-1)
            votes = np.bincount(distance.argmin(1), minlength=len(COLORS))
            assert votes.argmax() == i, f"a {color} {kind} in {style} by {light} looks {COLORS[votes.argmax()]}"


@pytest.mark.parametrize("light", TIMES)
def test_colors_stay_apart(light):
    named = np.array([inks(color, "flat", light).color for color in COLORS], dtype=float)
    for a, b in combinations(range(len(COLORS)), 2):
        assert np.linalg.norm(named[a] - named[b]) > 60, f"{COLORS[a]} and {COLORS[b]} by {light}"


def test_every_pair_of_kinds_differs_in_silhouette_at_18_pixels():
    outline = silhouettes()
    for a, b in combinations(KINDS, 2):
        overlap = (outline[a] & outline[b]).sum() / (outline[a] | outline[b]).sum()
        assert overlap < 0.88, f"{a} and {b} share {overlap:.2f} of their outline"


@pytest.mark.parametrize("style", STYLES)
def test_every_pair_of_kinds_differs_in_its_pixels(style):
    pictures = {kind: pixels(alone(kind, "blue", style=style)) for kind in KINDS}
    box = masks(alone("castle"))[0].any(0).sum() ** 2
    for a, b in combinations(KINDS, 2):
        assert np.abs(pictures[a] - pictures[b]).mean(-1).sum() / box > 8, f"{a} and {b} look alike in {style}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("light", TIMES)
def test_every_color_stands_out_from_every_place(place, light):
    empty = pixels(Scene((), place, light))
    for color in COLORS:
        for x, y in ((0.17, 0.17), (0.5, 0.5), (0.83, 0.83)):
            scene = Scene((Thing("tent", color, "small", x, y),), place, light)
            mask = masks(scene)[0]
            rim = mask & ~inner(mask)
            step = np.linalg.norm(pixels(scene) - empty, axis=-1)
            assert max(step[inner(mask)].mean(), step[rim].mean()) > 40, f"{color} in the {place} by {light}"


def test_chalk_is_clearly_another_style_on_a_darker_ground():
    for i in range(6):
        scene = sample_scene(6, i)
        flat = pixels(Scene(scene.things, scene.place, "day", "flat"))
        chalk = pixels(Scene(scene.things, scene.place, "day", "chalk"))
        assert np.abs(flat - chalk).mean() > 40 and chalk.mean() < flat.mean() - 60


@pytest.mark.parametrize("style", STYLES)
def test_places_and_times_differ(style):
    views = [pixels(alone("key", place=place, time=light, style=style)) for place in PLACES for light in TIMES]
    for a, b in combinations(views, 2):
        assert np.abs(a - b).mean() > 1.5
    day, night = np.mean(views[0::2]), np.mean(views[1::2])
    assert night < 0.75 * day


def test_a_shape_at_the_border_leaves_no_specks_on_the_other_side():
    pen = Pen(64)
    pen.disk((255, 0, 0), 0.0, 0.5, 0.1)
    grown = np.asarray(drawing.dilated(pen.image.getchannel("A"), 4))
    assert grown[:, :14].any() and not grown[:, 14:].any()


@pytest.mark.parametrize(
    ("scene", "size", "sentence"),
    [
        (alone("dragon"), 96, "cannot draw the kind 'dragon': choose one of boat"),
        (alone("boat", "teal"), 96, "cannot draw the color 'teal'"),
        (alone("boat", size="huge"), 96, "cannot draw the size 'huge'"),
        (alone("boat", place="moon"), 96, "cannot draw the place 'moon'"),
        (alone("boat", time="noon"), 96, "cannot draw the time 'noon'"),
        (alone("boat", style="oil"), 96, "cannot draw the style 'oil'"),
        (alone("boat"), 4, "16 to 2048 pixels wide, not 4"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(scene, size, sentence):
    for function in (draw, masks):
        with pytest.raises(ValueError, match=sentence):
            function(scene, size)


def test_a_scene_drawn_again_computes_nothing_anew():
    """What makes drawing fast enough to train on."""
    scenes = [sample_scene(7, i) for i in range(20)]
    for scene in scenes:
        draw(scene)
    before = drawing._sprite.cache_info().misses, drawing._background.cache_info().misses
    for scene in scenes:
        draw(scene)
    assert (drawing._sprite.cache_info().misses, drawing._background.cache_info().misses) == before
