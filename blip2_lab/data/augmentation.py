"""Augmentation of training images: a random resized crop; a horizontal flip and color jitter where the texts stay true.

`Augmentation` is where to begin: it is called with an image, its texts and a random generator.

Notes:

* A flip makes "left of" false, so an image whose text names a side is not flipped. (LAVIS flips under every caption.)
* Color jitter makes "a red boat" false, so an image whose text names a color keeps its colors.
* A crop can make "on the left" false, too, and is made nevertheless, as in LAVIS: `Augmentation.notes` says so.
* The caller passes a `random.Random`: the same seed gives the same crop on every machine.

Paper: section 3.4 (224 x 224, random resized crop and horizontal flip). Notebook: 08.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageEnhance

#: Words that a flip makes false: left, leftmost, right-hand, to the right … "Right" in the sense of "correct" matches
#: too; the image is then not flipped.
SIDES = re.compile(r"\b(left|right)(most|ward|wards|hand|side|y|ies)?\b|\b(anti|counter)?-?clockwise\b", re.IGNORECASE)


def names_sides(texts: Iterable[str]) -> bool:
    """Whether a text says left or right; its image must then not be flipped."""
    return any(SIDES.search(text) for text in texts)


#: Words that color jitter makes false: basic color terms and what is said of light.
COLORS = re.compile(
    r"\b(black|white|gr[ae]y|red|orange|yellow|green|blue|purple|violet|pink|brown|beige|turquoise|teal|maroon|navy|gold"
    r"|golden|silver|crimson|scarlet|magenta|cyan|ivory|indigo|lavender|blonde?|brunette|dark|bright|pale|colou?r(ed|ful"
    r"|less)?s?|(black|whit|grey|redd|orang|yellow|green|blu|purpl|pink|brown)ish)\b",
    re.IGNORECASE,
)


def names_colors(texts: Iterable[str]) -> bool:
    """Whether a text names a color; the colors of its image must then not be changed."""
    return any(COLORS.search(text) for text in texts)


def color_jitter(image: Image.Image, strength: float, rng: Random) -> Image.Image:
    """Brightness, contrast and saturation, each times a factor of 1 - strength to 1 + strength, in this order."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image


def random_crop_box(
    width: int, height: int, rng: Random, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop with `scale` of the area and an aspect within `ratio`, log-uniform.

    Where ten draws do not fit into the image, the largest center crop of an allowed aspect (torchvision's rule).
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass(frozen=True)
class Augmentation:
    """A random crop, resized to a square of `size` pixels and flipped with probability 1/2.

    `crop_scale`: the smallest and the largest fraction of the area (LAVIS's blip2_image_train: 0.5 to 1).
    `color_jitter`: see the function of that name; 0: none.
    """

    size: int
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.color_jitter < 1:
            raise ValueError(f"color_jitter {self.color_jitter:g} is not possible: choose 0 (none) to below 1, as 0.4")

    def notes(self, texts: Sequence[str]) -> list[str]:
        """What to tell about texts of which this augmentation can make some false."""
        found, count = [], len(texts)
        colors = sum(names_colors([text]) for text in texts) if self.color_jitter else 0
        sides = sum(names_sides([text]) for text in texts) if self.crop_scale[0] < 1 else 0
        if colors:
            found.append(f"{colors} of {count} texts name a color; color jitter leaves their pictures as they are")
        if sides:
            found.append(
                f"{sides} of {count} texts name a side; a random crop can move a thing to another side "
                "(data.crop_scale=1,1 keeps pictures whole)"
            )
        return found

    def __call__(self, image: Image.Image, texts: Iterable[str], rng: Random) -> Image.Image:
        """`texts`: all texts that this view of the image is paired with."""
        box = random_crop_box(*image.size, rng, self.crop_scale)
        flipped = rng.random() < 0.5  # always drawn: the random numbers that follow must not depend on the texts
        # cropped first: resize(box=…) would interpolate with pixels outside the box
        view = image.crop(box).resize((self.size, self.size), Image.Resampling.BICUBIC)
        texts = list(texts)
        if self.flip and flipped and not names_sides(texts):
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.color_jitter and not names_colors(texts):
            view = color_jitter(view.convert("RGB"), self.color_jitter, rng)
        return view
