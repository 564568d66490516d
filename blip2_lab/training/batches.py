"""Batches for training: scenes of the picture book, or image-text data, as pixels or from the feature cache.

`train_and_held_out` is where to begin: it opens the data of a recipe. `SceneBatches` and `ImageTextBatches` have one
method in common, `batch(index)`.

Notes:

* `batch(index)` is a pure function of its index: caption, crop and flip of each example are drawn from the seed, the
  batch's index and the position in the batch. Decoding in several threads does not change the result.
* The cache holds several views of each image, each cropped and flipped once. A view is not flipped if any text of its
  image names a side. The features of a broken image are NaN; its examples are skipped.
* `schema.ImageTextData` has the settings; `data/mixture.py` finds and mixes the sources.

Paper: section 3.4 (random resized crop, flip; one of several captions each time). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.augmentation import Augmentation, names_colors
from blip2_lab.data.examples import AskedQuestion, Batch, ImageTextList, Record, batch_indices
from blip2_lab.data.feature_cache import Encode, Features, cached_features
from blip2_lab.data.mixture import (
    Mixture,
    Pick,
    SkipLog,
    Source,
    Stream,
    Subset,
    is_stream,
    open_sources,
    source_fingerprint,
    split_held_out,
)
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.vision_encoder import ImageEncoder, preprocess
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, VALIDATION_BOOK, Scene
from blip2_lab.training.optim import bf16_is_fast
from blip2_lab.training.recipes.schema import ImageTextData, Recipe, SceneData

SKIPPED = "skipped.jsonl"  #: the list of unusable examples, in a run's folder
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


class SceneBatches:
    """Scenes of the picture book: cached features with freshly drawn captions.

    From batch `hard_batches_from` on, every second batch shows groups of `GROUP_SIZE` similar scenes. These batches
    have full captions (`PictureBook.one_caption`), because a partial caption is often true of a whole group. ITC and
    the hard negatives of ITM teach what distinguishes the examples of a batch. Among 64 random scenes, place, time and
    number of things distinguish most pairs, so kinds, colors and positions are learned late without hard batches.
    """

    def __init__(
        self, book: PictureBook, features: Features, batch_size: int, seed: int, hard_batches_from: int | None = None
    ) -> None:
        self.book, self.features = book, features
        self.batch_size, self.seed = batch_size, seed
        self.hard_batches_from = math.inf if hard_batches_from is None else hard_batches_from
        count = len(features) if hard_batches_from is not None else 0
        # numpy: this runs in the prefetch thread, where torch's own threads would slow down the training step
        self.fact_counts = np.array([fact_counts(book.scene(number)) for number in range(count)], dtype=np.int8)

    def numbers(self, index: int) -> list[int]:
        """The numbers of the scenes of batch `index`."""
        shuffled = batch_indices(index, self.batch_size, len(self.features), self.seed)
        if index < self.hard_batches_from or index % 2 == 1:
            return shuffled
        chosen: dict[int, None] = {}
        for anchor in shuffled:  # a scene that is in a group already would bring nearly the same group
            if anchor not in chosen:
                chosen |= dict.fromkeys(self.similar_scenes(anchor))
            if len(chosen) >= self.batch_size:
                break
        return list(chosen)[: self.batch_size]

    def similar_scenes(self, number: int) -> list[int]:
        """A scene, followed by those that differ from it in the fewest facts; scenes with equal facts are left out."""
        differences = np.abs(self.fact_counts - self.fact_counts[number]).sum(axis=1)
        nearest = differences.argsort(kind="stable")[: 2 * GROUP_SIZE].tolist()
        own = caption_facts(self.book.scene(number))
        return [number, *(n for n in nearest if caption_facts(self.book.scene(n)) != own)][:GROUP_SIZE]

    def batch(self, index: int) -> Batch:
        numbers = self.numbers(index)
        captions = [self.book.one_caption(number, turn=index) for number in numbers]
        matches = self.book.matches(numbers, turn=index)
        return Batch(captions=captions, image_features=self.features[numbers], matches=matches)


class Row(NamedTuple):
    """One row of a batch: an image, augmented or as its features [N,Dv], and its text."""

    image: Image.Image | Tensor
    caption: str
    question: str | None
    id: str


class ImageTextBatches:
    """Image-text data of `mixture` as batches of pixels [B,3,S,S], or of image_features [B,N,Dv] after `cache`."""

    def __init__(
        self, mixture: Mixture, data: ImageTextData, *, batch_size: int, seed: int, broken_file: Path | None = None
    ) -> None:
        sources = [_with_text(source, data.text) for source in mixture.sources]
        self.held_out: list[Source] = []
        self.skips = SkipLog(mixture.of(sources), data.max_broken, broken_file)
        if data.held_out and not any(map(is_stream, sources)):
            share = [data.held_out * len(source) // sum(map(len, sources)) for source in sources]
            sources, self.held_out = zip(*map(split_held_out, sources, share), strict=True)
        self.mixture = mixture.of(sources)
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.augmentation = Augmentation(data.image_size, data.crop_scale, data.flip, data.color_jitter)
        if data.color_jitter and not any(map(is_stream, sources)):
            texts = self.texts()
            named = sum(names_colors([text]) for text in texts)
            if named:
                print(
                    f"note: {named} of {len(texts)} texts name a color; color jitter leaves their pictures as they are",
                    flush=True,
                )
        self.pool = ThreadPoolExecutor(max(1, data.threads))
        self.features: list[Features] = []
        if 0 < len(self.mixture) < batch_size and len(self.mixture.sources) == 1:
            self.batch_size = len(self.mixture)  # an image occurs once in an epoch, so at most once in a batch
            print(
                f"note: batches of {self.batch_size} instead of {batch_size}: there are no more pictures",
                flush=True,
            )

    @property
    def identity(self) -> str:
        """A hash of the list of examples; a run resumes only on the same one."""
        return "-".join(source_fingerprint(source) for source in self.mixture.sources)

    def batch(self, index: int) -> Batch:
        """Batch number `index`. Raises ValueError if all its examples are broken, or more than `max_broken` of all."""
        picks = self.mixture.picks(index, self.batch_size, self.seed)
        self.skips.seen = max(self.skips.seen, (index + 1) * self.batch_size)
        records = [self._read_record(pick) for pick in picks]  # in order: a stream can only be read forward
        generators = [Random(f"{self.seed} {index} {position}") for position in range(len(picks))]
        rows = list(self.pool.map(self._row, picks, records, generators))
        good = [row for row in rows if row is not None]
        if not good:
            raise ValueError(f"no picture of batch {index} can be used: {self.skips.report()}")
        rows = [row or good[position % len(good)] for position, row in enumerate(rows)]
        questions = [row.question for row in rows] if self.data.text == "questions" else None
        texts = dict(captions=[row.caption for row in rows], ids=[row.id for row in rows], questions=questions)
        if self.features:
            return Batch(image_features=torch.stack([row.image for row in rows]), **texts)
        return Batch(pixels=preprocess([row.image for row in rows], self.data.image_size), **texts)

    def _read_record(self, pick: Pick) -> Record | None:
        try:
            return self.mixture.record(pick, self.seed)
        except BrokenSample as broken:
            self._skip(pick, None, broken)
            return None

    def _row(self, pick: Pick, record: Record | None, rng: Random) -> Row | None:
        """One row of a batch, or None if the example is broken."""
        if record is None:
            return None
        try:
            question, caption = choose_text(record, self.data.text, rng)
            if self.features:
                image = self._view(pick, record, rng)
            else:
                image = self.augmentation(record.open().image, [caption, question or ""], rng)
        except BrokenSample as broken:
            self._skip(pick, record, broken)
            return None
        return Row(image, caption, question, f"{pick.source}/{record.id or pick.number}")

    def _skip(self, pick: Pick, record: Record | None, broken: BrokenSample) -> None:
        name = record.id if record is not None and record.id else pick.number
        self.skips.add(f"{self.mixture.sources[pick.source].name}: {name}", broken)

    # -- the cache ---------------------------------------------------------------------------------------------------

    def cache(self, encode: Encode, folder: Path, encoder: str, say: Callable[[str], None] = print) -> None:
        """Encode `data.cached_views` views of each image into `folder`, or reuse what is there; `encoder` is the
        fingerprint of the encoder. Raises ValueError for a stream, whose number of images is not known."""
        views = self.data.cached_views
        for number, source in enumerate(self.mixture.sources):
            if is_stream(source):
                raise ValueError(f"{source.name} is a stream, which cannot be cached: --set data.cached_views=0")
            name = f"{encoder}-{_cache_key(source, self.data, self.seed)}"
            features = cached_features(
                _nan_if_broken(encode, self.data.image_size),
                self._image_of(number, source, views),
                len(source) * views,
                path=folder / name,
                fingerprint=name,
                threads=self.data.threads,
                verify=self.data.verify_cache,
                say=say,
            )
            self.features.append(features)

    def _image_of(self, number: int, source: Source, views: int) -> Callable[[int], Image.Image | None]:
        def image(row: int) -> Image.Image | None:
            pick, record = Pick(number, row // views), None
            try:
                record = source.record(pick.number)
                texts = [*record.captions, *(text for q in record.questions for text in (q.text, q.answer))]
                return self.augmentation(record.open().image, texts, Random(f"{self.seed} view {number} {row}"))
            except BrokenSample as broken:
                self._skip(pick, record, broken)
                return None

        return image

    def _view(self, pick: Pick, record: Record, rng: Random) -> Tensor:
        views = self.data.cached_views
        features = self.features[pick.source][pick.number * views + rng.randrange(views)]
        if features[0, 0].isnan():
            record.open()  # raises BrokenSample with the reason
            raise BrokenSample("broken when it was cached", f"{record.id} could not be read then")
        return features

    # -- held out ----------------------------------------------------------------------------------------------------

    def validation(self) -> Batch | None:
        """The held-out images, resized to a square (as at inference), with their first text; None if there are none."""
        rows = []
        for number, source in enumerate(self.held_out):
            for index in range(len(source)):
                record = None
                try:
                    record = source.record(index)
                    question, caption = choose_text(record, self.data.text, None)
                    rows.append(Row(record.open().image, caption, question, f"{number}/{record.id or index}"))
                except BrokenSample as broken:
                    self._skip(Pick(number, source.numbers[index]), record, broken)
        if len(rows) < 2:  # shuffled pairs need a second image
            return None
        return Batch(
            captions=[row.caption for row in rows],
            pixels=preprocess([row.image for row in rows], self.data.image_size),
            ids=[row.id for row in rows],
            questions=[row.question for row in rows] if self.data.text == "questions" else None,
        )

    def texts(self) -> list[str]:
        """All texts of the sources on disk, read without opening an image: to compare their words with a vocabulary."""
        lists = [source for source in self.mixture.sources if isinstance(source, Subset | ImageTextList)]
        records = (source.record(index) for source in lists for index in range(len(source)))
        if self.data.text == "captions":
            return [caption for record in records for caption in record.captions]
        return [text for record in records for q in record.questions for text in (q.text, q.answer)]


def choose_text(record: Record, text: str, rng: Random | None) -> tuple[str | None, str]:
    """(None, a caption) or (a question, one of its answers), drawn by `rng`; without one the first, and the best
    answer. Raises BrokenSample when there is none."""
    if text == "captions":
        if not record.captions:
            raise BrokenSample("no caption", f"{record.id} has no caption")
        return None, rng.choice(record.captions) if rng else record.captions[0]
    answered = [question for question in record.questions if question.answer]
    if not answered:
        raise BrokenSample("no answered question", f"{record.id} has no question with an answer")
    question = rng.choice(answered) if rng else answered[0]
    # each of VQA v2's ten answers is equally likely; LAVIS weights the loss of an answer by its frequency
    drawn = isinstance(question, AskedQuestion) and rng is not None
    return question.text, rng.choice(question.answers) if drawn else question.answer


def _with_text(source: Source | Stream, text: str) -> Source | Stream:
    """The images of a list that have such a text. Raises ValueError if there are none."""
    if text not in ("captions", "questions"):
        raise ValueError(f"data.text={text} is unknown: choose captions or questions")
    if not isinstance(source, ImageTextList):
        return source
    numbers = [i for i, record in enumerate(source.records) if getattr(record, text)]
    if not numbers:
        other = "questions" if text == "captions" else "captions"
        raise ValueError(f"{source.name} has no {text}; to train on its {other}: --set data.text={other}")
    return source if len(numbers) == len(source) else Subset(source, numbers)


def _nan_if_broken(encode: Encode, image_size: int) -> Encode:
    """The same encoder, with NaN features for an image that is None."""

    def encode_known(images: Sequence[Image.Image | None]) -> Tensor:
        blank = Image.new("RGB", (image_size, image_size))
        features = encode([image or blank for image in images])
        features[torch.tensor([image is None for image in images])] = torch.nan
        return features

    return encode_known


def _cache_key(source: Source, data: ImageTextData, seed: int) -> str:
    """A hash of these images (path, size, modification time) and of the settings of their augmentation."""
    digest = hashlib.sha256(f"{source_fingerprint(source)} {seed} {data.image_size} {data.crop_scale}".encode())
    digest.update(f"{data.flip} {data.cached_views}".encode())
    if data.color_jitter:  # a cache without it keeps the name that it had
        digest.update(f" {data.color_jitter}".encode())
    while isinstance(source, Subset):
        source = source.source
    files = [record.file for record in source.records] if isinstance(source, ImageTextList) else []
    for file in files or getattr(source, "paths", []):
        status = os.stat(file) if os.path.exists(file) else None
        digest.update(f"{file} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- the frozen encoder


def fingerprint(module: nn.Module) -> str:
    """A hash of the module's weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_frozen(image_encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """pixels [B,3,S,S] -> image_features bf16 [B,N,Dv], without gradient, in the precision of the feature
    cache, so that training with and without the cache gives the same losses. Computed in bf16 if the device supports
    it in hardware, else in the encoder's own precision."""
    half = bf16_is_fast(pixels.device.type) or image_encoder.model.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        return image_encoder.to(pixels.device)(pixels).to(torch.bfloat16)


def encode_function(image_encoder: ImageEncoder):
    """The encoder as a function from images to image_features bf16 [B,N,Dv], on the GPU if there is one."""
    image_encoder.to("cuda" if torch.cuda.is_available() else "cpu")

    def encode(images: Sequence[Image.Image]) -> Tensor:
        return encode_frozen(image_encoder, image_encoder.preprocess(images)).cpu()

    return encode


# ------------------------------------------------------------------------------------------------- from a recipe


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


def require_data_path(recipe: Recipe) -> None:
    """Raises ValueError if the recipe has no `data.path`. Called before any download."""
    data = recipe.data
    if isinstance(data, ImageTextData) and not data.path:
        raise ValueError(f"{recipe.name} trains on {data.source}: say where they are, --on FOLDER or --on sources.toml")


def image_text_batches(recipe: Recipe, image_encoder: ImageEncoder, runs_dir: Path) -> ImageTextBatches:
    """The recipe's image-text data; with `data.cached_views`, their features are computed here, once."""
    data = recipe.data
    batches = ImageTextBatches(
        open_sources(data.path),
        data,
        batch_size=recipe.optim.pass_size,
        seed=recipe.seed,
        broken_file=runs_dir / recipe.name / SKIPPED,
    )
    if data.cached_views:
        batches.cache(encode_function(image_encoder), runs_dir / "features", fingerprint(image_encoder))
    return batches


def train_and_held_out(
    recipe: Recipe, image_encoder: ImageEncoder, runs_dir: Path
) -> tuple[SceneBatches | ImageTextBatches, Batch | None]:
    """Batches to train on, and a held-out batch to evaluate on, or None."""
    if isinstance(recipe.data, ImageTextData):
        batches = image_text_batches(recipe, image_encoder, runs_dir)
        return batches, batches.validation()
    book, features = scene_features(image_encoder, recipe.data, runs_dir)
    gallery = PictureBook(VALIDATION_BOOK, "in", image_encoder.image_size, caption="full")
    numbers = range(recipe.data.held_out)
    held_out_features = encode_function(image_encoder)([gallery.image(i) for i in numbers])
    held_out = Batch(captions=[gallery.one_caption(i) for i in numbers], image_features=held_out_features)
    return SceneBatches(book, features, recipe.optim.pass_size, recipe.seed, recipe.data.hard_batches_from), held_out
