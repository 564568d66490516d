"""The picture book as a data set: an endless list of drawn scenes with captions, questions and boxes.

`PictureBook` is where to begin: `PictureBook(seed)[index]` is an Example, the same on every machine.

Notes:

* Nothing is stored: a scene is a function of seed, split and index, and drawing one takes about 0.15 ms.
* `one_caption(index, turn)` samples a caption; another turn gives another caption of the same scene.

Paper: section 3.4 (one of several captions is drawn at each step). Notebooks: 00, 08.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.data.examples import Example
from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import Scene, sample_scene

#: The kinds of captions of a scene; "caption" mixes "full" and "partial".
CAPTION_KINDS: dict[str, Callable[[Scene, Random], str]] = {
    "caption": words.caption,
    "full": words.full_caption,
    "ordered": partial(words.full_caption, ordered=True),
    "partial": words.partial_caption,
    "short": words.short_caption,
    "count": words.count_caption,
    "search": lambda scene, rng: words.search_phrase(scene, rng).text,
}
#: Kinds that take turns: full captions, and others. Captions of one turn are alike in length, so that a batch of them
#: is hardly padded.
ALTERNATING = {
    "caption": ("full", "partial"),
    "full and search": ("full", "search"),
    "full and more search": ("full", "search", "search"),
    "ordered and count": ("ordered", "count", "ordered"),
}


@dataclass(frozen=True)
class PictureBook:
    """Drawn scenes as a source: endless, without files; example `index` is the same on every machine."""

    seed: int = 0
    split: str = "train"
    image_size: int = 96
    caption: str = "caption"

    def __post_init__(self) -> None:
        known = CAPTION_KINDS | ALTERNATING
        if self.caption not in known:
            raise ValueError(f"caption {self.caption!r} is unknown: choose one of {', '.join(known)}")

    def scene(self, index: int) -> Scene:
        return sample_scene(self.seed, index, self.split)

    def image(self, index: int) -> Image.Image:
        return draw(self.scene(index), self.image_size)

    def one_caption(self, index: int, turn: int = 0) -> str:
        """A caption of scene `index`; another `turn`, another caption (see `ALTERNATING`)."""
        return CAPTION_KINDS[self.kind(turn)](self.scene(index), self._rng(index, turn))

    def kind(self, turn: int) -> str:
        """The kind of a turn's captions, a key of `CAPTION_KINDS`."""
        kinds = ALTERNATING.get(self.caption, (self.caption,))
        return kinds[turn % len(kinds)]

    def matches(self, numbers: Sequence[int], turn: int) -> Tensor | None:
        """bool[B,B]: is caption m of this turn true of scene b? None where a caption belongs to its own scene alone."""
        if self.kind(turn) != "search":
            return None
        scenes = [self.scene(number) for number in numbers]
        phrases = [words.search_phrase(s, self._rng(n, turn)) for s, n in zip(scenes, numbers, strict=True)]
        return torch.tensor([[phrase.is_true_of(scene) for phrase in phrases] for scene in scenes])

    def _rng(self, index: int, turn: int) -> Random:
        return Random(f"caption {self.seed} {index} {turn}")

    def __getitem__(self, index: int) -> Example:
        scene, rng = self.scene(index), Random(f"example {self.seed} {index}")
        boxes = {text: thing.box for thing in scene.things for text in words.references(scene, thing)}
        return Example(
            image=draw(scene, self.image_size),
            captions=tuple(CAPTION_KINDS[self.kind(turn)](scene, rng) for turn in (0, 1, 2)),
            questions=tuple(words.questions(scene, rng)),
            boxes=tuple(boxes.items()),
            id=f"{self.split}-{self.seed}-{index}",
        )
