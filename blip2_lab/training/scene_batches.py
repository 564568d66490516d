"""Batches of scenes of the picture book: cached features with fresh captions, or pixels with a dialogue.

`scene_batches` is where to begin. `SceneBatches` and `DialogueBatches` have one method, `batch(index)`, a pure function
of its index (batches.py).

Paper: section 3.2 (the other pairs of a batch are the negatives). Notebook: 08.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from blip2_lab.data.examples import Batch, batch_indices
from blip2_lab.data.feature_cache import Features, cached_features
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.vision_encoder import ImageEncoder, preprocess
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, VALIDATION_BOOK, Scene
from blip2_lab.picturebook.words import Question
from blip2_lab.training.frozen_features import encode_function, fingerprint
from blip2_lab.training.recipes.schema import DialogueData, Recipe, SceneData

GROUP_SIZE = 16  #: similar scenes that a hard batch shows together

#: The values that a full caption can state: of the whole scene, and of each thing.
CAPTION_VALUES = (*PLACES, *TIMES, *range(1, 5), *KINDS, *COLORS, *SIZES, *POSITIONS)


def caption_facts(scene: Scene) -> tuple:
    """Everything that a full caption states. If two scenes agree in it, every caption of one is true of the other."""
    things = sorted((t.kind, t.color, t.size, t.position) for t in scene.things)
    return scene.place, scene.time, *things


def fact_counts(scene: Scene) -> list[int]:
    """How often each of `CAPTION_VALUES` holds in the scene; which thing has which value is not encoded."""
    place, time, *things = caption_facts(scene)
    true = Counter([place, time, len(things), *(value for thing in things for value in thing)])
    return [true[value] for value in CAPTION_VALUES]


def has_alike(scene: Scene) -> bool:
    """Are there more than two things, and two of one kind?"""
    kinds = [thing.kind for thing in scene.things]
    return len(kinds) > 2 and len(set(kinds)) < len(kinds)


class SceneBatches:
    """Scenes of the picture book: cached features with freshly drawn captions.

    From batch `hard_batches_from` on, every second batch shows groups of `GROUP_SIZE` similar scenes. These batches
    have full captions (`PictureBook.one_caption`), because a partial caption is often true of a whole group. ITC and
    the hard negatives of ITM teach what distinguishes the examples of a batch. Among 64 random scenes, place, time and
    number of things distinguish most pairs, so kinds, colors and positions are learned late without hard batches.

    From batch `alike_from` on, every second batch shows scenes in which several things are alike (`has_alike`): to
    count and list them is what a stage 2 learns last.

    `batch_size` examples are one of the `parts` of a step.
    """

    def __init__(
        self,
        book: PictureBook,
        features: Features,
        batch_size: int,
        seed: int,
        hard_batches_from: int | None = None,
        parts: int = 1,
        alike_from: int | None = None,
    ) -> None:
        self.book, self.features = book, features
        self.batch_size, self.seed, self.parts = batch_size, seed, parts
        self.hard_batches_from = math.inf if hard_batches_from is None else hard_batches_from
        count = len(features) if hard_batches_from is not None else 0
        # numpy: this runs in the prefetch thread, where torch's own threads would slow down the training step
        self.fact_counts = np.array([fact_counts(book.scene(number)) for number in range(count)], dtype=np.int8)
        self.alike_from = math.inf if alike_from is None else alike_from
        count = len(features) if alike_from is not None else 0
        self.alike = [number for number in range(count) if has_alike(book.scene(number))]

    def numbers(self, step: int) -> list[int]:
        """The numbers of the scenes of a step."""
        step_size = self.batch_size * self.parts
        if step >= self.alike_from and step % 2 == 0:
            return [self.alike[i] for i in batch_indices(step // 2, step_size, len(self.alike), self.seed)]
        shuffled = batch_indices(step, step_size, len(self.features), self.seed)
        if step < self.hard_batches_from or step % 2 == 1:
            return shuffled
        chosen: dict[int, None] = {}
        for anchor in shuffled:  # a scene that is in a group already would bring nearly the same group
            if anchor not in chosen:
                chosen |= dict.fromkeys(self.similar_scenes(anchor))
            if len(chosen) >= step_size:
                break
        return list(chosen)[:step_size]

    def similar_scenes(self, number: int) -> list[int]:
        """A scene, followed by those that differ from it in the fewest facts; scenes with equal facts are left out."""
        differences = np.abs(self.fact_counts - self.fact_counts[number]).sum(axis=1)
        nearest = differences.argsort(kind="stable")[: 2 * GROUP_SIZE].tolist()
        own = caption_facts(self.book.scene(number))
        return [number, *(n for n in nearest if caption_facts(self.book.scene(n)) != own)][:GROUP_SIZE]

    def batch(self, index: int) -> Batch:
        step, part = divmod(index, self.parts)
        numbers = self.numbers(step)[part * self.batch_size : (part + 1) * self.batch_size]
        captions = [self.book.one_caption(number, turn=step) for number in numbers]
        matches = self.book.matches(numbers, turn=step)
        return Batch(captions=captions, image_features=self.features[numbers], matches=matches)


@dataclass(frozen=True)
class Dialogues(Batch):
    """Images with the questions of a dialogue each; `captions` are the answers to the last questions."""

    turns: list[list[Question]] = field(default_factory=list)


class DialogueBatches:
    """Dialogues about the scenes of a book, with their pixels; a dialogue ends after one to `data.turns` questions.

    `batch_size` examples are one of the `parts` of a step.
    """

    def __init__(self, book: PictureBook, data: DialogueData, batch_size: int, seed: int, parts: int = 1) -> None:
        self.book, self.data, self.batch_size, self.seed, self.parts = book, data, batch_size, seed, parts

    def batch(self, index: int) -> Dialogues:
        step, part = divmod(index, self.parts)
        numbers = batch_indices(step, self.batch_size * self.parts, self.data.scenes, self.seed)
        numbers = numbers[part * self.batch_size : (part + 1) * self.batch_size]
        turns = [self._turns(number, step) for number in numbers]
        pixels = preprocess([self.book.image(number) for number in numbers], self.book.image_size)
        return Dialogues(captions=[questions[-1].answer for questions in turns], pixels=pixels, turns=turns)

    def _turns(self, number: int, step: int) -> list[Question]:
        rng = Random(f"dialogue {self.seed} {number} {step}")
        questions = words.dialogue(self.book.scene(number), rng, self.data.turns)
        return questions[: 1 + rng.randrange(len(questions))]


def scene_features(image_encoder: ImageEncoder, data: SceneData, runs_dir: Path) -> tuple[PictureBook, Features]:
    """The recipe's scenes and their image_features bf16 [scenes,N,Dv], kept in `runs_dir/features`."""
    book = PictureBook(data.seed, image_size=image_encoder.image_size, caption=data.caption)
    name = f"{fingerprint(image_encoder)}-{data.seed}-{data.scenes}"
    features = cached_features(
        encode_function(image_encoder),
        book.image,
        data.scenes,
        path=runs_dir / "features" / name,
        fingerprint=name,
    )
    return book, features


def scene_batches(
    recipe: Recipe, image_encoder: ImageEncoder, runs_dir: Path, hard_batches_from: int | None = None
) -> SceneBatches:
    """Batches of the recipe's scenes."""
    data, optim = recipe.data, recipe.optim
    book, features = scene_features(image_encoder, data, runs_dir)
    options = dict(parts=optim.parts, alike_from=data.alike_from)
    return SceneBatches(book, features, optim.pass_size, recipe.seed, hard_batches_from, **options)


def held_out_scenes(image_encoder: ImageEncoder, count: int) -> Batch:
    """Scenes of another book with full captions, to evaluate retrieval on."""
    gallery, numbers = PictureBook(VALIDATION_BOOK, "in", image_encoder.image_size, caption="full"), range(count)
    features = encode_function(image_encoder)([gallery.image(i) for i in numbers])
    return Batch(captions=[gallery.one_caption(i) for i in numbers], image_features=features)
