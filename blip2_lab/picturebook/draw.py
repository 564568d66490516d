"""The picture-book world: what a scene looks like.

Notes:

* A thing is drawn once for each (kind, color, pixels, style, time) and kept; afterwards a picture is a copied
  background with a few pasted sprites. So training draws tens of thousands of pictures a second.
* Nothing depends on the other things of the scene: a thing beside others has the same pixels as alone.
* Every place is one small function, listed in `DRAW_PLACE`.

Paper: section 4.2 (the held-out style). Notebook: 00.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from blip2_lab.picturebook.kinds import DRAW_KIND
from blip2_lab.picturebook.pen import BOARD, LAND_LIGHT, LIGHT, RGB, Pen, dilated, inks, lit, mix
from blip2_lab.picturebook.scene import COLORS, EXTENT, KINDS, PLACES, STYLES, TIMES, Scene, Thing, pick

SKY: dict[str, RGB] = {"day": (208, 233, 245), "night": (27, 34, 70)}
RIM: dict[str, RGB] = {"day": (52, 44, 58), "night": (222, 228, 246)}  # the fine outline around every thing
RIM_WIDTH = 0.025  # of the thing's box
LAYOUTS = 8  # arrangements of each background

# --- places ---------------------------------------------------------------------------------------------------------

#: `paint(r, g, b, glow=0.0)`: a color by daylight -> the ink for it now; `glow` is the share of it that stays at night.
Paint = Callable[..., RGB]


def _land(p: Pen, ink: RGB, *heights: float) -> None:
    """Land that rises to these heights from the left edge to the right."""
    step = 1.4 / (len(heights) - 1)
    ridge = [v for i, height in enumerate(heights) for v in (i * step - 0.2, height)]
    p.blob(ink, -0.4, 1.4, *ridge, 1.4, 1.4)


def meadow(p: Pen, paint: Paint, rng: Random) -> None:
    lift = 0.08 * rng.random()
    _land(p, paint(190, 222, 150), 0.50 + lift, 0.44, 0.54 - lift, 0.46)
    _land(p, paint(168, 208, 126), 0.76 - lift, 0.70 + lift, 0.66, 0.74)
    for _ in range(14):
        x, y = rng.random(), 0.56 + 0.42 * rng.random()
        p.line(paint(134, 182, 98), 0.007, x - 0.012, y - 0.025, x, y, x + 0.012, y - 0.025)
    for _ in range(8):
        p.disk(paint(248, 246, 226), rng.random(), 0.6 + 0.38 * rng.random(), 0.008)


def beach(p: Pen, paint: Paint, rng: Random) -> None:
    p.box(paint(142, 200, 216), -0.1, 0.40, 1.1, 0.70)
    for _ in range(7):
        x, y = rng.random(), 0.43 + 0.12 * rng.random()
        p.line(paint(190, 226, 232), 0.008, x - 0.05, y, x + 0.05, y)
    tide = 0.04 * rng.random()
    _land(p, paint(244, 248, 244, glow=0.3), 0.60, 0.60 + tide, 0.55 + tide, 0.60)
    _land(p, paint(240, 220, 174, glow=0.12), 0.62, 0.625 + tide, 0.575 + tide, 0.62)
    for _ in range(18):
        p.disk(paint(216, 192, 142), rng.random(), 0.68 + 0.3 * rng.random(), 0.006)


def snow(p: Pen, paint: Paint, rng: Random) -> None:
    lift = 0.08 * rng.random()
    _land(p, paint(222, 234, 244, glow=0.10), 0.44 + lift, 0.50, 0.42 + lift, 0.50)
    _land(p, paint(246, 250, 253, glow=0.16), 0.66, 0.58 + lift, 0.68, 0.60)
    for _ in range(5):
        x, y = rng.random(), 0.70 + 0.26 * rng.random()
        p.line(paint(220, 232, 242, glow=0.16), 0.010, x - 0.06, y, x, y + 0.010, x + 0.06, y)
    for _ in range(30):
        p.disk(paint(255, 255, 255, glow=0.8), rng.random(), 0.6 * rng.random(), 0.006 + 0.006 * rng.random())


def street(p: Pen, paint: Paint, rng: Random) -> None:
    x = -0.10 * rng.random()
    while x < 1.0:
        width, top = 0.15 + 0.10 * rng.random(), 0.14 + 0.24 * rng.random()
        p.box(pick(rng, (paint(226, 214, 204), paint(214, 206, 212), paint(232, 220, 198))), x, top, x + width, 0.7)
        for row in range(3):
            for column in range(2):
                left, up = x + width * (0.2 + 0.4 * column), top + 0.05 + 0.10 * row
                p.box(paint(252, 240, 214, glow=pick(rng, (0.0, 0.5, 0.5))), left, up, left + 0.2 * width, up + 0.05)
        x += width + 0.01
    p.box(paint(222, 216, 208), -0.1, 0.62, 1.1, 1.1)
    p.box(paint(186, 182, 184), -0.1, 0.72, 1.1, 1.1)
    for i in range(-1, 5):
        p.box(paint(244, 240, 228), 0.26 * i + 0.2 * x - 0.1, 0.845, 0.26 * i + 0.2 * x + 0.04, 0.865)


def mountains(p: Pen, paint: Paint, rng: Random) -> None:
    for x in (0.08, 0.84, 0.44):
        x, top = x + 0.12 * (rng.random() - 0.5), 0.16 + 0.14 * rng.random()
        p.polygon(paint(186, 184, 206), x, top, x + 0.44, 0.80, x - 0.44, 0.80)
        p.polygon(paint(170, 168, 194), x, top, x + 0.44, 0.80, x + 0.06, 0.80)
        cap = (x, top, x + 0.10, top + 0.15, x + 0.03, top + 0.11, x - 0.03, top + 0.16, x - 0.10, top + 0.14)
        p.polygon(paint(248, 249, 252, glow=0.15), *cap)
    _land(p, paint(204, 202, 180), 0.68, 0.74, 0.68, 0.74)
    for _ in range(10):
        p.disk(paint(180, 178, 160), rng.random(), 0.78 + 0.2 * rng.random(), 0.012, 0.007)


DRAW_PLACE: dict[str, Callable[[Pen, Paint, Random], None]] = {
    "meadow": meadow, "beach": beach, "snow": snow, "street": street, "mountains": mountains,
}  # fmt: skip


def _sky(p: Pen, time: str, rng: Random) -> None:
    """Sun and clouds, or moon and stars."""
    x = 0.08 + 0.84 * rng.random()
    if time == "night":
        for _ in range(26):
            p.disk((236, 238, 252), rng.random(), 0.5 * rng.random(), 0.004 + 0.004 * rng.random())
        p.disk((244, 240, 214), x, 0.09, 0.06)
        p.disk(SKY["night"] if p.board is None else p.board, x + 0.03, 0.075, 0.05)
        return
    p.disk((255, 247, 214), x, 0.03, 0.11)
    for _ in range(2):
        x, y = rng.random(), 0.10 + 0.18 * rng.random()
        for dx, r in ((-0.06, 0.030), (0.0, 0.048), (0.07, 0.034)):
            p.disk((244, 250, 253), x + dx, y, 1.3 * r, r)


@lru_cache(maxsize=128)
def _background(place: str, time: str, style: str, size: int, layout: int) -> Image.Image:
    """The place without things, RGB."""
    factor = 4 if size <= 256 else 2
    board = BOARD[time] if style == "chalk" else None
    pen = Pen(size * factor, board=board, faint=True)
    pen.image.paste(board or SKY[time], (0, 0, *pen.image.size))
    rng = Random(f"{place} {layout}")
    _sky(pen, time, rng)
    light = LAND_LIGHT[time] if board is None else LIGHT[time]
    DRAW_PLACE[place](pen, lambda *color, glow=0.0: mix(lit(color, light), color, glow), rng)
    return pen.rubbed().convert("RGB").reduce(factor)


def background(place: str, time: str, size: int, layout: int) -> Image.Image:
    """A place without things, as RGB of `size` x `size` pixels, in one of `LAYOUTS` arrangements.

    Raises ValueError for an unknown place or time, or a `size` outside 16 to 2048.
    """
    _check(Scene((), place, time), size)
    return _background(place, time, "flat", size, layout % LAYOUTS).copy()


# --- pictures -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)
def _sprite(kind: str, color: str, pixels: int, style: str, time: str) -> Image.Image:
    """One thing with its rim on a transparent ground, RGBA, `pixels` wide and high."""
    factor = 8 if pixels <= 64 else 4
    margin = max(1, round(RIM_WIDTH * pixels * factor))
    board = BOARD[time] if style == "chalk" else None
    pen = Pen(pixels * factor, margin=margin, board=board)
    DRAW_KIND[kind](pen, inks(color, style, time))
    thing = pen.rubbed()
    sprite = Image.new("RGBA", thing.size, board or RIM[time])
    sprite.putalpha(dilated(thing.getchannel("A"), margin))
    sprite.alpha_composite(thing)
    return sprite.reduce(factor)


def _placed(thing: Thing, scene: Scene, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The thing's sprite and the pixel of its upper left corner."""
    pixels = round(EXTENT[thing.size] * size)
    left, top, _, _ = thing.box
    return _sprite(thing.kind, thing.color, pixels, scene.style, scene.time), (round(left * size), round(top * size))


def _check(scene: Scene, size: int) -> None:
    """Raises ValueError if the scene has something that cannot be drawn."""
    if not 16 <= size <= 2048:
        raise ValueError(f"a picture can be 16 to 2048 pixels wide, not {size}")
    wanted = [("place", scene.place, PLACES), ("time", scene.time, TIMES), ("style", scene.style, STYLES)]
    for thing in scene.things:
        wanted += [("kind", thing.kind, KINDS), ("color", thing.color, COLORS), ("size", thing.size, tuple(EXTENT))]
    for what, value, known in wanted:
        if value not in known:
            raise ValueError(f"cannot draw the {what} {value!r}: choose one of {', '.join(known)}")


def draw(scene: Scene, size: int = 96) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels; later things cover earlier ones.

    Raises ValueError for an unknown kind, color, size, place, time or style, or a `size` outside 16 to 2048.
    """
    _check(scene, size)
    # The layout hangs on the first thing alone, so that adding things never changes the background.
    where = (scene.things[0].x, scene.things[0].y) if scene.things else (0, 0)
    layout = int(Random(f"{where}").random() * LAYOUTS)
    picture = _background(scene.place, scene.time, scene.style, size, layout).copy()
    for thing in scene.things:
        sprite, corner = _placed(thing, scene, size)
        picture.paste(sprite, corner, sprite)
    return picture


def masks(scene: Scene, size: int = 96) -> np.ndarray:
    """The visible pixels of each thing, `bool[things, size, size]`: what a later thing covers is not visible."""
    _check(scene, size)
    visible = np.zeros((len(scene.things), size, size), dtype=bool)
    for i, thing in enumerate(scene.things):
        sprite, corner = _placed(thing, scene, size)
        layer = Image.new("L", (size, size))
        layer.paste(sprite.getchannel("A"), corner)
        visible[i] = np.asarray(layer) >= 128
        visible[:i] &= ~visible[i]
    return visible
