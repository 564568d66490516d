"""Batches of image-text data for training, as pixels or from the feature cache.

`open_batches` is where to begin: it opens the data of a recipe. `ImageTextBatches` and the batches of drawn scenes
(scene_batches.py) have one method in common, `batch(index)`.

Notes:

* `batch(index)` is a pure function of its index: caption, crop and flip of each example are drawn from the seed and its
  place in the whole run. Decoding in several threads does not change the result, and neither does splitting a step
  into `parts` (passes and processes): the parts are slices of the step's one batch. Only a broken example is replaced
  from its own part.
* `identity` (training/identity.py) is the content of the data: captions, questions and pictures, not file names.
* Texts that a tokenizer mostly does not know are left out and named (`keep_usable`, training/vocabulary.py).
* The cache holds several views of each image, each cropped and flipped once. A view is not flipped if any text of its
  image names a side. The features of a broken image are NaN; its examples are skipped.
* `schema.ImageTextData` has the settings; `data/mixture.py` finds and mixes the sources.

Paper: section 3.4 (random resized crop, flip; one of several captions each time). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from blip2_lab.common.console import count_of, print_progress
from blip2_lab.common.distributed import is_first_process
from blip2_lab.common.files import write_atomically
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.augmentation import Augmentation, names_colors, names_sides
from blip2_lab.data.examples import AskedQuestion, Batch, ImageTextList, Record
from blip2_lab.data.feature_cache import Encode, Features, cached_features
from blip2_lab.data.left_out import SkipLog, same_caption
from blip2_lab.data.mixture import (
    Mixture,
    Pick,
    Source,
    Stream,
    Subset,
    is_stream,
    open_sources,
    source_fingerprint,
    split_held_out,
)
from blip2_lab.data.shards import ShardFolder
from blip2_lab.data.text_files import read_text
from blip2_lab.models.vision_encoder import ImageEncoder, preprocess
from blip2_lab.training.frozen_features import encode_function, fingerprint
from blip2_lab.training.identity import Identity, data_identity, pictures_digest
from blip2_lab.training.recipes.schema import ImageTextData, OwnTextData, Recipe
from blip2_lab.training.vocabulary import Usable

SKIPPED = "skipped.jsonl"  #: the list of unusable examples, in a run's folder
LEFT_OUT = "left_out.jsonl"  #: the list of texts that are not trained on, in a run's folder
SHARD_SAMPLE = 2000  #: examples of shards whose words are counted


@dataclass(frozen=True)
class PlacedBatch(Batch):
    """A batch that knows the place of its first example in the run: random draws for an example can be its own."""

    place: int = 0


class Row(NamedTuple):
    """One row of a batch: an image, augmented or as its features [N,Dv], and its text."""

    image: Image.Image | Tensor
    caption: str
    question: str | None
    id: str


class ImageTextBatches:
    """Image-text data of `mixture` as batches of pixels [B,3,S,S], or of image_features [B,N,Dv] after `cache`.

    `batch_size` examples are one of the `parts` of a step.
    """

    def __init__(
        self,
        mixture: Mixture,
        data: ImageTextData,
        *,
        batch_size: int,
        seed: int,
        broken_file: Path | None = None,
        parts: int = 1,
    ) -> None:
        self.opened = mixture
        sources = [_with_text(source, data.text) for source in mixture.sources]
        self.held_out: list[Source] = []
        self.skips = SkipLog(mixture.of(sources), data.max_broken, broken_file)
        if data.held_out and not any(map(is_stream, sources)):
            share = [data.held_out * len(source) // sum(map(len, sources)) for source in sources]
            kept, held_out = zip(*map(split_held_out, sources, share), strict=True)
            count = sum(map(len, held_out))
            if count >= 2:  # shuffled pairs need a second image
                sources, self.held_out = kept, held_out
            if count < data.held_out and not isinstance(data, OwnTextData) and is_first_process():
                print(f"note: {_held_out_note(count, sum(map(len, sources)))}", flush=True)
        self.mixture = mixture.of(sources)
        self.data, self.batch_size, self.seed, self.parts = data, batch_size, seed, parts
        self.augmentation = Augmentation(data.image_size, data.crop_scale, data.flip, data.color_jitter)
        if not any(map(is_stream, sources)) and is_first_process():
            texts = self.texts()
            same = data.text == "captions" and len(texts) > 1 and len(set(texts)) == 1
            for note in [*self.augmentation.notes(texts), *([same_caption(texts[0])] if same else [])]:
                print(f"note: {note}", flush=True)
        self.pool = ThreadPoolExecutor(max(1, data.threads))
        self.features: list[Features] = []
        self.usable: Usable = lambda question, text: None
        self.left_out: Counter[str] = Counter()
        self._fit_batch_size()

    def _fit_batch_size(self) -> None:
        """An image occurs once in an epoch, so at most once in a step: few images make small batches."""
        wanted, count = self.batch_size * self.parts, len(self.mixture)
        if len(self.mixture.sources) > 1 or not 0 < count < wanted:
            return
        if count < self.parts:
            raise ValueError(f"{count} pictures cannot be split into {self.parts} passes: use fewer, or one process")
        self.batch_size = count // self.parts
        fitted = self.batch_size * self.parts
        print(f"note: batches of {fitted} instead of {wanted}: there are no more pictures", flush=True)

    @property
    def identity(self) -> Identity:
        """The content of the data; a run resumes only on the same."""
        identity = data_identity(self.opened)
        if isinstance(self.data, OwnTextData) and self.data.text_file:
            more = read_text(self.data.text_file)
            both = (hashlib.sha256((one + more).encode()).hexdigest() for one in (identity.texts, identity.unordered))
            return replace(identity, **dict(zip(("texts", "unordered"), both, strict=True)))
        return identity

    @property
    def listed(self) -> str:
        """A hash of the list of examples: the identity that runs of older versions have stored."""
        return "-".join(source_fingerprint(source) for source in self.mixture.sources)

    def keep_usable(self, usable: Usable, file: Path | None = None) -> None:
        """Leave out the texts for which `usable(question, text)` names a reason, and the images without any other.

        They are counted in `left_out`, and each is written to `file`. Raises ValueError if nothing is left. The texts
        of shards and streams are judged when they are read.
        """
        self.usable, lines = usable, []

        def keep(source: Source | Stream) -> Source | Stream:
            if not isinstance(source, Subset | ImageTextList):
                return source
            kept = []
            for number in range(len(source)):
                record = source.record(number)
                for question, text in _texts_of(record, self.data.text):
                    if cause := usable(question, text):
                        self.left_out[cause] += 1
                        asked = {"question": question} if question is not None else {}
                        name = f"{source.name}: {record.id or number}"
                        lines.append(json.dumps({"sample": name, **asked, "text": text, "cause": cause}) + "\n")
                if _texts_of(self._usable_part(record), self.data.text):
                    kept.append(number)
            return source if len(kept) == len(source) else Subset(source, kept)

        before = len(self.mixture)
        sources = list(map(keep, self.mixture.sources))
        self.held_out = [held for held in map(keep, self.held_out) if len(held)]
        if empty := [source.name for source in sources if not is_stream(source) and not len(source)]:
            causes = ", ".join(f"{count} {cause}" for cause, count in self.left_out.most_common())
            raise ValueError(f"no text of {empty[0]} can be trained on: {causes}")
        self.mixture = self.mixture.of(sources)
        self._fit_batch_size()
        if file is not None:
            file.unlink(missing_ok=True)
            if lines:
                write_atomically(file, "".join(lines))
        if self.left_out:
            causes = ", ".join(f"{count} {cause}" for cause, count in self.left_out.most_common())
            texts = count_of(self.left_out.total(), "text", "texts")
            gone = count_of(before - len(self.mixture), "picture", "pictures")
            named = f"; {file} names them" if file is not None else ""
            print(f"note: left out {texts}, and {gone} with no other: {causes}{named}")

    def _usable_part(self, record: Record) -> Record:
        """The record without the texts that are not `usable`."""
        if self.data.text == "captions":
            kept = tuple(caption for caption in record.captions if not self.usable(None, caption))
            return record if kept == record.captions else replace(record, captions=kept)
        questions = []
        for question in record.questions:
            answers = getattr(question, "answers", (question.answer,))
            kept = tuple(answer for answer in answers if not self.usable(question.text, answer))
            if kept == answers:
                questions.append(question)
            elif kept:
                questions.append(replace(question, answers=kept))
        return replace(record, questions=tuple(questions))

    def batch(self, index: int) -> Batch:
        """Batch number `index`. Raises ValueError if all its examples are broken, or more than `max_broken` of all."""
        step, part = divmod(index, self.parts)
        place = index * self.batch_size
        picks = self.mixture.picks(step, self.batch_size * self.parts, self.seed)
        picks = picks[part * self.batch_size : (part + 1) * self.batch_size]
        self.skips.seen = max(self.skips.seen, place + self.batch_size)
        records = [self._read_record(pick) for pick in picks]  # in order: a stream can only be read forward
        generators = [Random(f"{self.seed} {place + position}") for position in range(len(picks))]
        rows = list(self.pool.map(self._row, picks, records, generators))
        good = [row for row in rows if row is not None]
        if not good:
            raise ValueError(f"no picture of batch {index} can be used: {self.skips.report()}")
        rows = [row or good[position % len(good)] for position, row in enumerate(rows)]
        questions = [row.question for row in rows] if self.data.text == "questions" else None
        texts = dict(captions=[row.caption for row in rows], ids=[row.id for row in rows], questions=questions)
        if self.features:
            return PlacedBatch(image_features=torch.stack([row.image for row in rows]), place=place, **texts)
        return PlacedBatch(pixels=preprocess([row.image for row in rows], self.data.image_size), place=place, **texts)

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
            question, caption = choose_text(self._usable_part(record), self.data.text, rng)
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

    def cache(self, encode: Encode, folder: Path, encoder: str, say: Callable[[str], None] = print_progress) -> None:
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
                what=f"views of {len(source)} pictures",
                say=say,
            )
            self.features.append(features)

    def _image_of(self, number: int, source: Source, views: int) -> Callable[[int], Image.Image | None]:
        def image(row: int) -> Image.Image | None:
            pick, record = Pick(number, row // views), None
            try:
                record = source.record(pick.number)
                rng = Random(f"{self.seed} view {number} {row}")
                return self.augmentation(record.open().image, _all_texts(record), rng)
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
                    question, caption = choose_text(self._usable_part(record), self.data.text, None)
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
        """The texts of the sources on disk, read without decoding an image: to compare their words with a vocabulary.

        Of shards at most `SHARD_SAMPLE` examples, evenly spaced. A stream has none: its texts are judged as they come.
        """
        texts: list[str] = []
        for record in self._records():
            pairs = _texts_of(record, self.data.text)
            texts += dict.fromkeys(text for pair in pairs for text in pair if text is not None)
        return texts

    def questions(self) -> list[str]:
        """The questions among `texts`, without repetition."""
        asked = (question for record in self._records() for question, _ in _texts_of(record, self.data.text))
        return list(dict.fromkeys(question for question in asked if question is not None))

    def _records(self) -> Iterator[Record]:
        """The records whose texts are `texts`."""
        for source in (*self.mixture.sources, *self.held_out):
            whole = source
            while isinstance(whole, Subset):
                whole = whole.source
            if not isinstance(whole, ImageTextList | ShardFolder):
                continue
            spacing = 1 if isinstance(whole, ImageTextList) else max(1, len(source) // SHARD_SAMPLE)
            for number in range(0, len(source), spacing):
                try:
                    yield source.record(number)
                except BrokenSample:  # counted when it is trained on
                    continue


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


def _held_out_note(count: int, pictures: int) -> str:
    """Why fewer images are held out than `data.held_out` asks for."""
    if count < 2:
        return f"no picture is held out, because {pictures} are too few: what it does with new ones stays unknown"
    return f"{count} pictures are held out, to measure on: a fifth at most"


def _nan_if_broken(encode: Encode, image_size: int) -> Encode:
    """The same encoder, with NaN features for an image that is None."""

    def encode_known(images: Sequence[Image.Image | None]) -> Tensor:
        blank = Image.new("RGB", (image_size, image_size))
        features = encode([image or blank for image in images])
        features[torch.tensor([image is None for image in images])] = torch.nan
        return features

    return encode_known


def _texts_of(record: Record, text: str) -> list[tuple[str | None, str]]:
    """(None, caption) for each caption, or (question, answer) for each different answer."""
    if text == "captions":
        return [(None, caption) for caption in record.captions]
    pairs = [(q.text, answer) for q in record.questions for answer in getattr(q, "answers", (q.answer,)) if answer]
    return list(dict.fromkeys(pairs))


def _cache_key(source: Source, data: ImageTextData, seed: int) -> str:
    """A hash of these images, of which may be flipped or jittered, and of the settings of their augmentation."""
    settings = f"{pictures_digest(source)} {seed} {data.image_size} {data.crop_scale} {data.flip} {data.cached_views}"
    whole = source
    while isinstance(whole, Subset):
        whole = whole.source
    lists = isinstance(whole, ImageTextList)
    texts = [_all_texts(source.record(number)) for number in range(len(source))] if lists else []
    settings += f" {[names_sides(each) for each in texts]}"
    if data.color_jitter:  # a cache without it keeps the name that it had
        settings += f" {data.color_jitter} {[names_colors(each) for each in texts]}"
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _all_texts(record: Record) -> list[str]:
    return [*record.captions, *(text for q in record.questions for text in (q.text, q.answer))]


# ------------------------------------------------------------------------------------------------- from a recipe


def open_batches(recipe: Recipe, runs_dir: Path) -> ImageTextBatches:
    """The recipe's image-text data. Nothing is encoded yet: its identity and its words can be checked first."""
    return ImageTextBatches(
        open_sources(recipe.data.path),
        recipe.data,
        batch_size=1 if isinstance(recipe.data, OwnTextData) else recipe.optim.pass_size,  # texts are drawn one by one
        parts=1 if isinstance(recipe.data, OwnTextData) else recipe.optim.parts,
        seed=recipe.seed,
        broken_file=runs_dir / recipe.name / SKIPPED,
    )


def cache_features(batches: ImageTextBatches, image_encoder: ImageEncoder, runs_dir: Path) -> None:
    """With `data.cached_views`, compute the features of the images, once."""
    if batches.data.cached_views:
        batches.cache(encode_function(image_encoder), runs_dir / "features", fingerprint(image_encoder))
