"""Where a stage's batches come from: drawn scenes, or pictures of your own, live or from the feature cache.

What is unusual about it:

* A feed has one method, `batch(index)`, a pure function of its index: caption, crop and flip of every place are drawn
  from the seed, the batch's number and the place. Threads decode the pictures, and cannot change a single one.
* From the cache a picture comes in one of several views, each cropped and flipped once. A view is not flipped when any
  text of its picture names a side. A broken picture's row is all NaN: it is skipped each time.
* `schema.WebData` says what is done with the pictures; `data/mixture.py` knows where they are.

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
from blip2_lab.data.augmentation import Augmentation
from blip2_lab.data.examples import AskedQuestion, Batch, PictureList, Record, batch_indices
from blip2_lab.data.feature_cache import Encode, Features, cached_features
from blip2_lab.data.mixture import (
    Mixture,
    Part,
    Pick,
    Skips,
    Source,
    Stream,
    hold_out,
    identity,
    is_stream,
    open_sources,
)
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.vision_encoder import ImageEncoder, preprocess
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, POSITIONS, SIZES, TIMES, VALIDATION_BOOK, Scene
from blip2_lab.training.optim import bf16_is_fast
from blip2_lab.training.recipes.schema import Recipe, SceneData, WebData

SKIPPED = "skipped.jsonl"  #: in a run's folder
FAMILY = 16  #: scenes that a batch shows together because they are alike

#: What a full caption tells: of the whole scene, and of each thing.
TOLD = (*PLACES, *TIMES, *range(1, 5), *KINDS, *COLORS, *SIZES, *POSITIONS)


def told(scene: Scene) -> tuple:
    """All that a full caption tells. Of two scenes that agree in it every caption is true."""
    things = sorted((t.kind, t.color, t.size, t.position) for t in scene.things)
    return scene.place, scene.time, *things


def facts(scene: Scene) -> list[int]:
    """How often each of `TOLD` is true; which thing has which color it does not say."""
    place, time, *things = told(scene)
    true = Counter([place, time, len(things), *(value for thing in things for value in thing)])
    return [true[value] for value in TOLD]


class SceneFeed:
    """Scenes of the picture book: cached features with freshly drawn captions.

    From batch `alike_from` on every second batch, those with captions that tell everything (`PictureBook.one_caption`),
    shows families of `FAMILY` scenes that are told almost alike. The contrastive loss and the hard negatives of ITM
    teach what tells the examples of a batch apart; among 64 random scenes place, time and number do for most, and
    kinds, colors and positions are learned late. A caption that tells a part would often be true of a whole family.
    """

    def __init__(
        self, book: PictureBook, features: Features, batch_size: int, seed: int, alike_from: int | None = None
    ) -> None:
        self.book, self.features = book, features
        self.batch_size, self.seed = batch_size, seed
        self.alike_from = math.inf if alike_from is None else alike_from
        count = len(features) if alike_from is not None else 0
        # numpy: this runs in the thread that prepares batches, where torch's own threads would slow the training's
        self.facts = np.array([facts(book.scene(number)) for number in range(count)], dtype=np.int8)

    def numbers(self, index: int) -> list[int]:
        """The scenes of batch `index`."""
        plain = batch_indices(index, self.batch_size, len(self.features), self.seed)
        if index < self.alike_from or index % 2 == 1:
            return plain
        chosen: dict[int, None] = {}
        for anchor in plain:  # the family of a scene that is in one already would be much the same
            if anchor not in chosen:
                chosen |= dict.fromkeys(self.family(anchor))
            if len(chosen) >= self.batch_size:
                break
        return list(chosen)[: self.batch_size]

    def family(self, number: int) -> list[int]:
        """A scene and those that differ from it in the fewest facts, none in nothing at all."""
        differences = np.abs(self.facts - self.facts[number]).sum(axis=1)
        nearest = differences.argsort(kind="stable")[: 2 * FAMILY].tolist()
        own = told(self.book.scene(number))
        return [number, *(n for n in nearest if told(self.book.scene(n)) != own)][:FAMILY]

    def batch(self, index: int) -> Batch:
        numbers = self.numbers(index)
        captions = [self.book.one_caption(number, turn=index) for number in numbers]
        matches = self.book.matches(numbers, turn=index)
        return Batch(captions=captions, image_features=self.features[numbers], matches=matches)


class Row(NamedTuple):
    """One row of a batch: a picture as a view or as its features [N,Dv], and its text."""

    picture: Image.Image | Tensor
    caption: str
    question: str | None
    id: str


class PictureFeed:
    """Pictures of `mixture` as batches of pixels [B,3,S,S], or of image_features [B,N,Dv] once `cache` was called."""

    def __init__(
        self, mixture: Mixture, data: WebData, *, batch_size: int, seed: int, broken_file: Path | None = None
    ) -> None:
        sources = [_with_text(source, data.text) for source in mixture.sources]
        self.held_out: list[Source] = []
        self.skips = Skips(mixture.of(sources), data.max_broken, broken_file)
        if data.held_out and not any(map(is_stream, sources)):
            share = [data.held_out * len(source) // sum(map(len, sources)) for source in sources]
            sources, self.held_out = zip(*map(hold_out, sources, share), strict=True)
        self.mixture = mixture.of(sources)
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.augmentation = Augmentation(data.image_size, data.crop_scale, data.flip)
        self.pool = ThreadPoolExecutor(max(1, data.threads))
        self.features: list[Features] = []
        if 0 < len(self.mixture) < batch_size and len(self.mixture.sources) == 1:
            self.batch_size = len(self.mixture)  # a picture comes once in an epoch, so at most once in a batch
            print(f"note: batches of {self.batch_size} instead of {batch_size}: there are no more pictures", flush=True)

    @property
    def identity(self) -> str:
        """A name for the list of examples; a resumed run must find the same."""
        return "-".join(identity(source) for source in self.mixture.sources)

    def batch(self, index: int) -> Batch:
        """Batch number `index`. Raises ValueError when all of it is broken, or too much of everything."""
        picks = self.mixture.picks(index, self.batch_size, self.seed)
        self.skips.seen = max(self.skips.seen, (index + 1) * self.batch_size)
        records = [self._record(pick) for pick in picks]  # in order: a stream has no other way
        places = [Random(f"{self.seed} {index} {place}") for place in range(len(picks))]
        rows = list(self.pool.map(self._row, picks, records, places))
        good = [row for row in rows if row is not None]
        if not good:
            raise ValueError(f"no picture of batch {index} can be used: {self.skips.report()}")
        rows = [row or good[place % len(good)] for place, row in enumerate(rows)]
        questions = [row.question for row in rows] if self.data.text == "questions" else None
        shown = dict(captions=[row.caption for row in rows], ids=[row.id for row in rows], questions=questions)
        if self.features:
            return Batch(image_features=torch.stack([row.picture for row in rows]), **shown)
        return Batch(pixels=preprocess([row.picture for row in rows], self.data.image_size), **shown)

    def _record(self, pick: Pick) -> Record | None:
        try:
            return self.mixture.record(pick, self.seed)
        except BrokenSample as broken:
            self._skip(pick, None, broken)
            return None

    def _row(self, pick: Pick, record: Record | None, rng: Random) -> Row | None:
        """One place of a batch, or None where the sample is broken."""
        if record is None:
            return None
        try:
            question, caption = choose_text(record, self.data.text, rng)
            if self.features:
                picture = self._view(pick, record, rng)
            else:
                picture = self.augmentation(record.open().image, [caption, question or ""], rng)
        except BrokenSample as broken:
            self._skip(pick, record, broken)
            return None
        return Row(picture, caption, question, f"{pick.source}/{record.id or pick.number}")

    def _skip(self, pick: Pick, record: Record | None, broken: BrokenSample) -> None:
        name = record.id if record is not None and record.id else pick.number
        self.skips.add(f"{self.mixture.sources[pick.source].name}: {name}", broken)

    # -- the cache ---------------------------------------------------------------------------------------------------

    def cache(self, encode: Encode, folder: Path, encoder: str, say: Callable[[str], None] = print) -> None:
        """Encode `data.cached_views` views of each picture into `folder`, or find them there; `encoder` names whose
        features they are. Raises ValueError for a stream: nobody knows how many pictures it has."""
        views = self.data.cached_views
        for number, source in enumerate(self.mixture.sources):
            if is_stream(source):
                raise ValueError(f"{source.name} is a stream, which cannot be cached: --set data.cached_views=0")
            name = f"{encoder}-{_contents(source, self.data, self.seed)}"
            features = cached_features(
                _or_nan(encode, self.data.image_size),
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
                said = [*record.captions, *(text for q in record.questions for text in (q.text, q.answer))]
                return self.augmentation(record.open().image, said, Random(f"{self.seed} view {number} {row}"))
            except BrokenSample as broken:
                self._skip(pick, record, broken)
                return None

        return image

    def _view(self, pick: Pick, record: Record, rng: Random) -> Tensor:
        views = self.data.cached_views
        features = self.features[pick.source][pick.number * views + rng.randrange(views)]
        if features[0, 0].isnan():
            record.open()  # says what is wrong with it
            raise BrokenSample("broken when it was cached", f"{record.id} could not be read then")
        return features

    # -- held out ----------------------------------------------------------------------------------------------------

    def validation(self) -> Batch | None:
        """The held-out pictures, squashed to a square (as at inference) and with their first text; None without any."""
        rows = []
        for number, part in enumerate(self.held_out):
            for index in range(len(part)):
                record = None
                try:
                    record = part.record(index)
                    question, caption = choose_text(record, self.data.text, None)
                    rows.append(Row(record.open().image, caption, question, f"{number}/{record.id or index}"))
                except BrokenSample as broken:
                    self._skip(Pick(number, part.numbers[index]), record, broken)
        if len(rows) < 2:  # with one picture there is no other to shuffle in
            return None
        return Batch(
            captions=[row.caption for row in rows],
            pixels=preprocess([row.picture for row in rows], self.data.image_size),
            ids=[row.id for row in rows],
            questions=[row.question for row in rows] if self.data.text == "questions" else None,
        )

    def texts(self) -> list[str]:
        """All that the sources on disk say, without opening a picture: to see whether a vocabulary knows the words."""
        lists = [source for source in self.mixture.sources if isinstance(source, Part | PictureList)]
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
    # each of VQA v2's ten answers as likely: LAVIS weighs each answer's loss by how often it was given
    drawn = isinstance(question, AskedQuestion) and rng is not None
    return question.text, rng.choice(question.answers) if drawn else question.answer


def _with_text(source: Source | Stream, text: str) -> Source | Stream:
    """The pictures of a list about which there is such a text. Raises ValueError when there is none."""
    if text not in ("captions", "questions"):
        raise ValueError(f"data.text={text} is unknown: choose captions or questions")
    if not isinstance(source, PictureList):
        return source
    numbers = [i for i, record in enumerate(source.records) if getattr(record, text)]
    if not numbers:
        other = "questions" if text == "captions" else "captions"
        raise ValueError(f"{source.name} has no {text}; to train on its {other}: --set data.text={other}")
    return source if len(numbers) == len(source) else Part(source, numbers)


def _or_nan(encode: Encode, image_size: int) -> Encode:
    """The same encoder, which answers NaN to a picture that is None."""

    def encode_known(images: Sequence[Image.Image | None]) -> Tensor:
        blank = Image.new("RGB", (image_size, image_size))
        features = encode([image or blank for image in images])
        features[torch.tensor([image is None for image in images])] = torch.nan
        return features

    return encode_known


def _contents(source: Source, data: WebData, seed: int) -> str:
    """A name for these pictures (by path, size and time of change) and for what is done with them."""
    digest = hashlib.sha256(f"{identity(source)} {seed} {data.image_size} {data.crop_scale}".encode())
    digest.update(f"{data.flip} {data.cached_views}".encode())
    while isinstance(source, Part):
        source = source.source
    files = [record.file for record in source.records] if isinstance(source, PictureList) else []
    for file in files or getattr(source, "paths", []):
        status = os.stat(file) if os.path.exists(file) else None
        digest.update(f"{file} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- the frozen encoder


def fingerprint(module: nn.Module) -> str:
    """A name for these very weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_frozen(image_encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """pixels [B,3,S,S] -> image_features bf16 [B,N,Dv], without gradient: what the feature cache keeps, so that
    training from it gives the same losses. Computed in bf16 where that is fast, else in the encoder's own precision."""
    half = bf16_is_fast(pixels.device.type) or image_encoder.model.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        return image_encoder.to(pixels.device)(pixels).to(torch.bfloat16)


def encoder_of(image_encoder: ImageEncoder):
    """The encoder as a function of pictures -> image_features bf16 [B,N,Dv], on the fastest device there is."""
    image_encoder.to("cuda" if torch.cuda.is_available() else "cpu")

    def encode(images: Sequence[Image.Image]) -> Tensor:
        return encode_frozen(image_encoder, image_encoder.preprocess(images)).cpu()

    return encode


# ------------------------------------------------------------------------------------------------ a recipe's own feed


def scene_features(image_encoder: ImageEncoder, data: SceneData, runs_dir: Path) -> tuple[PictureBook, Features]:
    """The recipe's scenes and their image_features bf16 [scenes,N,Dv], kept in `runs_dir/features`."""
    book = PictureBook(data.seed, image_size=image_encoder.image_size, caption=data.caption)
    name = f"{fingerprint(image_encoder)}-{data.seed}-{data.scenes}"
    features = cached_features(
        encoder_of(image_encoder),
        book.image,
        data.scenes,
        path=runs_dir / "features" / name,
        fingerprint=name,
    )
    return book, features


def check_place(recipe: Recipe) -> None:
    """Raises ValueError when nobody has said where the pictures are; asked before gigabytes are fetched."""
    data = recipe.data
    if isinstance(data, WebData) and not data.path:
        raise ValueError(f"{recipe.name} trains on {data.source}: say where they are, --on FOLDER or --on sources.toml")


def picture_feed(recipe: Recipe, image_encoder: ImageEncoder, runs_dir: Path) -> PictureFeed:
    """The recipe's pictures; with `data.cached_views` their features are computed now, once."""
    data = recipe.data
    feed = PictureFeed(
        open_sources(data.path),
        data,
        batch_size=recipe.optim.pass_size,
        seed=recipe.seed,
        broken_file=runs_dir / recipe.name / SKIPPED,
    )
    if data.cached_views:
        feed.cache(encoder_of(image_encoder), runs_dir / "features", fingerprint(image_encoder))
    return feed


def pairs(recipe: Recipe, image_encoder: ImageEncoder, runs_dir: Path) -> tuple[SceneFeed | PictureFeed, Batch | None]:
    """Pictures with captions to learn from, and others to evaluate on, if any."""
    if isinstance(recipe.data, WebData):
        feed = picture_feed(recipe, image_encoder, runs_dir)
        return feed, feed.validation()
    book, features = scene_features(image_encoder, recipe.data, runs_dir)
    gallery = PictureBook(VALIDATION_BOOK, "in", image_encoder.image_size, caption="full")
    numbers = range(recipe.data.held_out)
    pictures = encoder_of(image_encoder)([gallery.image(i) for i in numbers])
    held_out = Batch(captions=[gallery.one_caption(i) for i in numbers], image_features=pictures)
    return SceneFeed(book, features, recipe.optim.pass_size, recipe.seed, recipe.data.alike_from), held_out
