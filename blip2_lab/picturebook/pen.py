"""The picture-book world: colors, light and the pen that draws them.

Notes:

* The pen works in unit coordinates, on a canvas several times too large that is scaled down at the end: that is all
  the anti-aliasing there is, and a drawing is the same at any resolution.
* A style is a way to stamp a shape. "flat" fills it; "chalk" outlines and hatches it on a blackboard. So a kind is
  drawn by one function in every style, and a style is added here alone.

Paper: section 4.2 (the held-out style). Notebook: 00.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw

RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (218, 41, 46),
    "orange": (246, 136, 28),
    "yellow": (252, 214, 52),
    "green": (46, 164, 62),
    "blue": (42, 104, 214),
    "purple": (132, 62, 176),
    "pink": (252, 122, 184),
    "gray": (143, 147, 152),
}
#: How much of each channel (red, green, blue) the light leaves, on things and on the land behind them.
LIGHT = {"day": (1.0, 1.0, 1.0), "night": (0.80, 0.82, 0.94)}
LAND_LIGHT = {"day": (1.0, 1.0, 1.0), "night": (0.30, 0.36, 0.53)}
BOARD: dict[str, RGB] = {"day": (52, 70, 64), "night": (24, 25, 38)}  # the blackboard of the chalk style

Points = Sequence[float]  # x, y, x, y, ...


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The color `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def lit(color: RGB, light: tuple[float, float, float]) -> RGB:
    """The color under a light."""
    return tuple(round(c * f) for c, f in zip(color, light, strict=True))


@dataclass(frozen=True)
class Inks:
    """What a kind may be painted with: its own color in three tones, and a few quiet secondary colors."""

    color: RGB
    shade: RGB
    tint: RGB
    white: RGB
    dark: RGB
    tan: RGB
    leaf: RGB
    window: RGB


def inks(color: str, style: str, time: str) -> Inks:
    """The inks of a thing of this color. Chalk has no dark: it draws dark parts in pale gray."""
    own, black, white = PALETTE[color], (0, 0, 0), (255, 255, 255)
    if style == "chalk":
        own = mix(own, white, 0.12)
        quiet = ((246, 246, 240), (196, 200, 196), (214, 180, 132), (150, 186, 150), (232, 226, 180))
    else:
        quiet = ((252, 250, 244), (58, 50, 62), (199, 154, 104), (70, 108, 76), (222, 240, 248))
    tones = (own, mix(own, black, 0.16), mix(own, white, 0.25))
    window = (255, 226, 140) if time == "night" else quiet[4]  # somebody is at home
    return Inks(*(lit(c, LIGHT[time]) for c in (*tones, *quiet[:4])), window)


class Pen:
    """Draws shapes on a square canvas; `(0, 0)` is the upper left and `(1, 1)` the lower right corner.

    `pixels`: side of the canvas; `margin`: pixels left free around the unit square; `board`: None fills shapes flat,
    a color draws them in chalk on a board of that color; `faint`: chalk for what lies behind, weaker and not hatched.
    """

    def __init__(self, pixels: int, *, margin: int = 0, board: RGB | None = None, faint: bool = False):
        self.image = Image.new("RGBA", (pixels, pixels))
        self.margin, self.unit, self.board, self.faint = margin, pixels - 2 * margin, board, faint
        self.stroke = max(1, round((0.008 if faint else 0.035) * self.unit))

    def polygon(self, ink: RGB, *xy: float) -> None:
        """A polygon through `x, y, x, y, ...`."""
        self._stamp(ink, xy, lambda draw, points: draw.polygon(points, fill=255))

    def blob(self, ink: RGB, *xy: float) -> None:
        """A smooth closed curve (Catmull-Rom) through `x, y, x, y, ...`."""
        corners, smooth = list(zip(xy[::2], xy[1::2], strict=True)), []
        for i in range(len(corners)):
            p0, p1, p2, p3 = (corners[(i + k) % len(corners)] for k in (-1, 0, 1, 2))
            for t in (j / 12 for j in range(12)):
                for a, b, c, d in zip(p0, p1, p2, p3, strict=True):
                    bend = (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3
                    smooth.append(b + bend / 2)
        self.polygon(ink, *smooth)

    def box(self, ink: RGB, left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> None:
        """A rectangle; `corner` is the radius of its corners."""
        radius = corner * self.unit
        self._stamp(ink, (left, top, right, bottom), lambda draw, area: draw.rounded_rectangle(area, radius, fill=255))

    def disk(self, ink: RGB, x: float, y: float, rx: float, ry: float | None = None) -> None:
        """An ellipse around `(x, y)`; a circle if only one radius is given."""
        self._stamp(ink, _around(x, y, rx, ry), lambda draw, area: draw.ellipse(area, fill=255))

    def dome(self, ink: RGB, x: float, y: float, rx: float, ry: float, start: float = 180, end: float = 360) -> None:
        """A slice of an ellipse around `(x, y)`, by default its upper half; angles clockwise from the right."""
        self._stamp(ink, _around(x, y, rx, ry), lambda draw, area: draw.pieslice(area, start, end, fill=255))

    def arc(self, ink: RGB, x: float, y: float, r: float, width: float, start: float = 0, end: float = 360) -> None:
        """Part of a ring of outer radius `r` around `(x, y)`; angles in degrees, clockwise from the right."""
        thick = max(1, round(width * self.unit))
        self._stamp(ink, _around(x, y, r), lambda draw, area: draw.arc(area, start, end, fill=255, width=thick))

    def line(self, ink: RGB, width: float, *xy: float) -> None:
        """A line with round ends through `x, y, x, y, ...`."""
        thick = max(1, round(width * self.unit))

        def trace(draw: ImageDraw.ImageDraw, points: Points) -> None:
            draw.line(points, fill=255, width=thick)
            for x, y in zip(points[::2], points[1::2], strict=True):
                draw.ellipse(_around(x, y, thick / 2), fill=255)

        self._stamp(ink, xy, trace, thick)

    def rubbed(self) -> Image.Image:
        """The canvas; chalk is rubbed off in grains, down to the board."""
        if self.board is None:
            return self.image
        board = Image.new("RGBA", self.image.size, self.board)
        board.putalpha(self.image.getchannel("A"))
        return Image.composite(board, self.image, _grain(self.image.width))

    def _stamp(
        self, ink: RGB, xy: Points, shape: Callable[[ImageDraw.ImageDraw, Points], None], reach: int = 0
    ) -> None:
        """Paints what `shape` draws at the points `xy`, on a mask just large enough (`reach`: pixels beyond them)."""
        points = [self.margin + v * self.unit for v in xy]
        reach += 2
        left, top = (max(0, math.floor(min(points[k::2])) - reach) for k in (0, 1))
        right, bottom = (min(self.image.width, math.ceil(max(points[k::2])) + reach) for k in (0, 1))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        shape(ImageDraw.Draw(mask), [v - (top if k % 2 else left) for k, v in enumerate(points)])
        if self.board is None:
            self.image.paste(ink, (left, top), mask)
            return
        inside = ImageChops.invert(dilated(ImageChops.invert(mask), self.stroke))
        layers = [(0.30, mask), (1.0, ImageChops.subtract(mask, inside))]
        if not self.faint:
            hatch = _hatch(self.image.width, self.stroke).crop((left, top, right, bottom))
            layers.insert(1, (0.72, ImageChops.multiply(inside, hatch)))
        for share, part in layers:
            self.image.paste(mix(self.board, ink, share * (0.38 if self.faint else 1.0)), (left, top), part)


def _around(x: float, y: float, rx: float, ry: float | None = None) -> Points:
    ry = rx if ry is None else ry
    return (x - rx, y - ry, x + rx, y + ry)


def dilated(mask: Image.Image, radius: int) -> Image.Image:
    """The mask grown by `radius` pixels in every direction."""
    grown, (width, height) = mask, mask.size
    for i in range(16):
        dx, dy = (round(radius * f(math.pi * i / 8)) for f in (math.cos, math.sin))
        grown = ImageChops.lighter(grown, mask.crop((dx, dy, dx + width, dy + height)))
    return grown


@lru_cache(maxsize=16)
def _hatch(pixels: int, stroke: int) -> Image.Image:
    """Slanted chalk strokes, L."""
    hatch = Image.new("L", (pixels, pixels))
    draw = ImageDraw.Draw(hatch)
    for start in range(0, 2 * pixels, 3 * stroke):
        draw.line((start, 0, start - pixels, pixels), fill=255, width=max(1, round(1.4 * stroke)))
    return hatch


@lru_cache(maxsize=16)
def _grain(pixels: int) -> Image.Image:
    """Where and how much the board shows through the chalk, L."""
    rng = Random("chalk")
    grains = bytes(int(150 * rng.random() ** 3) for _ in range(96 * 96))
    return Image.frombytes("L", (96, 96), grains).resize((pixels, pixels), Image.Resampling.BILINEAR)
