"""The frozen models of a world of your own: text encoder and language models from captions and other text, and an image
encoder from pictures alone.

`build_task` is where to begin.

Notes:

* The tokenizer has the words of all captions, so that held-out captions can be read. Only captions of pictures that are
  not held out are trained on.
* A language model of captions alone can write and continue captions. It answers questions only if there were questions
  with answers beside captions: it reads the caption in place of the picture.
* The image encoder learns from masked patches, without any label or word: what a patch shows is predicted from the
  others. `own-vit` reads the masked patches, too, as gray ones, and a linear layer predicts (Xie et al. 2022,
  "SimMIM"); `own-mae` is a masked autoencoder (He et al. 2022), which reads the visible ones only.

Paper: section 3.4 (frozen image encoders and language models). Notebook: none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import Record
from blip2_lab.data.mixture import Source, is_stream
from blip2_lab.data.text_files import read_text
from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.batches import ImageTextBatches
from blip2_lab.training.own_tokenizer import train_tokenizer
from blip2_lab.training.recipes.own import CAPTION_PROMPT
from blip2_lab.training.recipes.schema import MaePart, OwnPart, Recipe
from blip2_lab.training.tasks.masked_images import MaeTask, MaskedImagesTask, Pixels
from blip2_lab.training.tasks.pretraining import (
    SCALE_IN_LESSONS,
    BertTask,
    OptTask,
    T5Task,
    TextTask,
    new_encoder,
    new_mae_of,
    new_text_model,
    save_without_last_layer,
)
from blip2_lab.training.tasks.word_sums import WordSums
from blip2_lab.training.trainer import Task

PASSAGES_SHARE = 0.5  #: of the examples, where there is a text file
QUESTIONS_SHARE = 0.5  #: of the examples, where there are questions
WORDS_SHARE = 0.3  #: of the captions that the T5 reads word by word
PHRASES = re.compile(r"[,;.:!?]+(?:\s+and\b)?|\band\b")  #: between phrases of a caption
PASSAGE_WORDS = 48  #: longer paragraphs are split
MAX_TOKENS = 96  #: of a text; the text encoder has 128 positions
HELD_OUT_TEXTS = 64
MASKED_PATCHES = 0.6


@dataclass(frozen=True)
class OwnTexts:
    """The captions and questions of the `pictures` to train on, and of those that are `held_out`; `passages` of other
    text."""

    pictures: list[Record]
    held_out: list[Record]
    passages: list[str]

    @cached_property
    def captions(self) -> list[str]:
        return [caption for picture in self.pictures for caption in picture.captions]

    @cached_property
    def questions(self) -> list[tuple[str, str, str]]:
        """(caption, question, answer) of the pictures to train on."""
        return [
            (caption, question.text, question.answer)
            for picture in self.pictures
            for question in picture.questions
            if question.answer
            for caption in picture.captions
        ]

    def all(self) -> list[str]:
        pictures = [*self.pictures, *self.held_out]
        asked = [text for picture in pictures for q in picture.questions if q.answer for text in (q.text, q.answer)]
        return [*(caption for picture in pictures for caption in picture.captions), *asked, *self.passages]


def build_task(recipe: Recipe, batches: ImageTextBatches) -> Task:
    """The task of a frozen model from pictures or their texts.

    Raises ValueError for a stream, whose captions cannot be read beforehand.
    """
    parts: OwnPart | MaePart = recipe.model
    for source in batches.mixture.sources:
        if is_stream(source):
            raise ValueError(f"{source.name} is a stream, whose words are not known beforehand: download it first")
    if recipe.task == "vit":
        return MaskedPatchTask(new_encoder(parts.size), batches, recipe.seed)
    if recipe.task == "mae":
        mae = new_mae_of(parts)
        return MaeTask(mae, *_pictures(batches, mae.config.image_size), recipe.seed)
    texts = read_texts(batches)
    tokenizer = train_tokenizer(recipe.task, texts.all(), parts.vocabulary, parts.tokenizer)
    model = new_text_model(recipe.task, len(tokenizer), parts.size)
    kind = {"bert": OwnBertTask, "t5": OwnT5Task, "opt": OwnOptTask}[recipe.task]
    task = kind(model, tokenizer, recipe.optim.pass_size, recipe.seed, texts)
    if isinstance(task, OwnT5Task):
        task.noise_steps = max(1, recipe.optim.steps // 2)
    return task


def read_texts(batches: ImageTextBatches) -> OwnTexts:
    """The texts of the pictures, and the paragraphs of `data.text_file`."""
    pictures = [record for source in batches.mixture.sources for record in _records(source)]
    held_out = [record for source in batches.held_out for record in _records(source)]
    file = batches.data.text_file
    passages = _passages(read_text(file, "data.text_file")) if file else []
    if file and not passages:
        raise ValueError(f"{file} (data.text_file) has no words: give a file with text, or leave it out")
    return OwnTexts(pictures, held_out, passages)


def _records(source: Source) -> list[Record]:
    found = []
    for number in range(len(source)):
        try:
            found.append(source.record(number))
        except BrokenSample:  # counted when its picture is trained on
            continue
    return found


def _passages(text: str) -> list[str]:
    """The paragraphs of a text, long ones in parts."""
    rows = [line.split() for line in text.replace("\r", "\n").split("\n")]
    return [" ".join(row[start : start + PASSAGE_WORDS]) for row in rows for start in range(0, len(row), PASSAGE_WORDS)]


class OwnTextTask(TextTask):
    """What the three text models have in common: examples drawn from `texts`, and a loss on those held out."""

    def __init__(self, model: nn.Module, tokenizer, batch_size: int, seed: int, texts: OwnTexts) -> None:
        super().__init__(model, tokenizer, batch_size, seed)
        self.texts = texts
        captions = [caption for picture in texts.held_out for caption in picture.captions]
        self.held_out = captions[:HELD_OUT_TEXTS] or None

    def text(self, number: int) -> str:
        """A caption, or a passage of the text file."""
        rng = Random(f"own {self.seed} {number}")
        return rng.choice(self._pool(rng))

    def _pool(self, rng: Random) -> list[str]:
        other = self.texts.passages and rng.random() < PASSAGES_SHARE
        return self.texts.passages if other else self.texts.captions

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """As `TextTask.tokens`, cut to MAX_TOKENS."""
        options = dict(padding=True, pad_to_multiple_of=8, truncation=True, max_length=MAX_TOKENS)
        tokens = self.tokenizer(texts, **options, return_tensors="pt")
        return tokens.input_ids, tokens.attention_mask

    def held_out_batch(self) -> Any:
        """The held-out texts as a batch, always the same."""
        raise NotImplementedError

    def evaluate(self, step: int) -> dict[str, float]:
        batch = send_to_device(self.held_out_batch(), next(self.model.parameters()).device)
        return {"held_out": self.compute_losses(batch)["total"].item()}


class OwnBertTask(OwnTextTask, BertTask):
    """Masked words of captions: what the Q-Former starts from."""

    def held_out_batch(self) -> dict[str, Tensor]:
        return self.masked(self.held_out, seed=0)


class OwnOptTask(OwnTextTask, OptTask):
    """The decoder: captions, some of them after the prompt, questions about captions, and passages, word after word."""

    def text(self, number: int) -> str:
        rng = Random(f"own {self.seed} {number}")
        if self.texts.questions and rng.random() < QUESTIONS_SHARE:
            caption, question, answer = rng.choice(self.texts.questions)
            return f"{caption} {DecoderLanguageModel.question_prompt.format(question)} {answer}"
        text = rng.choice(self._pool(rng))
        return f"{CAPTION_PROMPT} {text}" if rng.random() < 0.3 else text

    def held_out_batch(self) -> dict[str, Tensor]:
        return self.with_labels(self.held_out)


@dataclass(frozen=True)
class Reading:
    """An example of the T5. It reads the `told` texts, each as one embedding if `summed`, and `prompt`, and writes
    `answer`."""

    told: list[str]
    summed: bool
    prompt: str
    answer: str


class OwnT5Task(OwnTextTask, T5Task):
    """The encoder-decoder. It reads the captions of a picture with a prompt, as it will read a visual prompt, and
    writes what stage 2 and the chat ask for: one of the captions, the rest of one, or the answer to a question.

    Most captions are read as word sums (word_sums.py): the words of a phrase as one embedding, the phrases in any
    order, with noise that grows over the first half of the training (`noise_steps`). Of the others, and of the text
    file, every word has its own embedding.
    """

    noise_steps = 1  #: in `build_task`

    def told(self, captions: Sequence[str], rng: Random, share: float = 1.0) -> tuple[list[str], bool]:
        """What is read of the captions, each word of them with probability `share`: phrases, or words; and whether they
        are word sums."""
        captions = rng.sample(list(captions), len(captions))
        if rng.random() < WORDS_SHARE:
            words = " ".join(captions).split()
            return [word for word in words if rng.random() < share] or words[:1], False
        phrases = [phrase.split() for caption in captions for phrase in PHRASES.split(caption)]
        kept = [" ".join(word for word in phrase if rng.random() < share) for phrase in phrases]
        rng.shuffle(kept)
        return [phrase for phrase in kept if phrase] or captions[:1], True

    def example(self, number: int) -> Reading:
        rng = Random(f"own {self.seed} {number}")
        if self.texts.passages and rng.random() < PASSAGES_SHARE:
            return Reading([], False, *_split(rng.choice(self.texts.passages), rng))
        return self.about(rng.choice(self.texts.pictures), rng)

    def about(self, picture: Record, rng: Random) -> Reading:
        """An example about a picture."""
        asked = [question for question in picture.questions if question.answer]
        if asked and rng.random() < QUESTIONS_SHARE:
            question = rng.choice(asked)
            prompt = EncoderDecoderLanguageModel.question_prompt.format(question.text)
            return Reading(*self.told(picture.captions, rng), prompt, question.answer)
        caption, told = rng.choice(picture.captions), self.told(picture.captions, rng, rng.uniform(0.5, 1.0))
        if rng.random() < 0.5:
            return Reading(*told, CAPTION_PROMPT, caption)
        return Reading(*told, *_split(caption, rng))

    def batch(self, index: int) -> list[dict]:
        scale = min(1.0, SCALE_IN_LESSONS + (1 - SCALE_IN_LESSONS) * index / self.noise_steps)
        return [self.read([self.example(number) for number in self.numbers(index)], index, scale)]

    def held_out_batch(self) -> list[dict]:
        """An example about each of the first held-out pictures, with half of the noise."""
        pictures = [picture for picture in self.texts.held_out if picture.captions][:HELD_OUT_TEXTS]
        return [self.read([self.about(picture, Random(n)) for n, picture in enumerate(pictures)], 0, 0.5)]

    def read(self, readings: Sequence[Reading], seed: int, noise_scale: float) -> dict:
        """Arguments of `T5Task.loss`."""
        told_ids = iter(self.tokenizer([text for reading in readings for text in reading.told] or [""]).input_ids)
        prompt_ids = self.tokenizer([reading.prompt for reading in readings]).input_ids
        rows = []
        for reading, prompt in zip(readings, prompt_ids, strict=True):
            told = [next(told_ids)[:-1] for _ in reading.told]  # without the end
            groups = [ids for ids in told if ids][:MAX_TOKENS]
            rows.append((groups, [[token] for token in prompt[-MAX_TOKENS:]], reading.summed))
        tokens = max(sum(map(len, told)) + len(prompt) for told, prompt, _ in rows)
        places = max(len(told) + len(prompt) for told, prompt, _ in rows)
        tokens, places = (8 * -(-longest // 8) for longest in (tokens, places))  # few shapes: `TextTask.tokens`
        input_ids = torch.zeros(len(rows), tokens, dtype=torch.long)
        place = torch.full((len(rows), tokens), places)
        mask, summed = (
            torch.zeros(len(rows), places, dtype=torch.long),
            torch.zeros(len(rows), places, dtype=torch.bool),
        )
        for row, (told, prompt, is_sum) in enumerate(rows):
            groups = [*told, *prompt]
            ids = [token for group in groups for token in group]
            input_ids[row, : len(ids)] = torch.tensor(ids)
            place[row, : len(ids)] = torch.tensor([at for at, group in enumerate(groups) for _ in group])
            mask[row, : len(groups)] = 1
            summed[row, : len(told)] = is_sum
        target_ids, target_mask = self.tokens([reading.answer for reading in readings])
        return {
            "input_ids": input_ids,
            "attention_mask": (place < places).long(),
            "labels": target_ids.masked_fill(target_mask == 0, IGNORE_INDEX),
            "sums": WordSums(place, mask, summed),
            "seed": seed,
            "noise_scale": noise_scale,
        }


def _split(text: str, rng: Random) -> tuple[str, str]:
    """Before and after a random word, as stage 2 splits captions."""
    words = text.split()
    cut = rng.randrange(len(words))
    return " ".join(words[:cut]), " ".join(words[cut:])


class MaskedPatchTask(MaskedImagesTask):
    """The image encoder from pictures alone: the pixels of masked patches, from the others.

    A masked patch has the mean color, so its embedding is the learned bias of the patch embedding. The targets are the
    pixels of a patch, normalized by its own mean and deviation, as He et al. do. The losses are read from the last
    layer and from the one before, which is the last that is saved.
    """

    def __init__(self, encoder: ImageEncoder, batches: ImageTextBatches, seed: int) -> None:
        self.encoder, self.patch = encoder, encoder.model.config.patch_size
        self.side = encoder.image_size // self.patch
        self.model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(encoder.width, 3 * self.patch**2)})
        super().__init__(*_pictures(batches, encoder.image_size), seed, self.side**2)

    def targets(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,S,S] -> [B,patches,3*patch*patch], each patch with mean 0 and deviation 1."""
        patches = F.unfold(pixels.float(), self.patch, stride=self.patch).transpose(1, 2)
        return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-4).sqrt()

    def masked(self, noise: Tensor) -> Tensor:
        """noise [B,patches] -> bool[B,patches], as many in each picture."""
        return noise.argsort(dim=1).argsort(dim=1) < round(MASKED_PATCHES * self.patches)

    def compute_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels, masked = batch["pixels"], self.masked(batch["noise"])
        covered = masked.view(-1, 1, self.side, self.side)
        covered = covered.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        states = self.encoder.model(
            pixel_values=pixels.masked_fill(covered, 0), output_hidden_states=True
        ).hidden_states
        target = self.targets(pixels)[masked]
        losses = [F.mse_loss(self.model["head"](state[:, 1:])[masked].float(), target) for state in states[-2:]]
        return {"total": sum(losses) / len(losses)}

    def flat(self, batch: dict[str, Tensor]) -> Tensor:
        return self.targets(batch["pixels"])[self.masked(batch["noise"])].square().mean()

    def save(self, folder: Path) -> None:
        """The encoder without its last layer, in transformers' layout."""
        save_without_last_layer(self.encoder, folder)


def _pictures(batches: ImageTextBatches, image_size: int) -> tuple[Pixels, Tensor | None]:
    """The pixels of the batches, and those held out. Raises ValueError for pictures of another size."""
    if batches.data.image_size != image_size:
        raise ValueError(f"this image encoder reads pictures of {image_size} pixels: data.image_size")
    held_out = batches.validation()
    return lambda index: batches.batch(index).pixels, None if held_out is None else held_out.pixels
