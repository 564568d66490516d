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

from dataclasses import dataclass
from pathlib import Path
from random import Random

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
    T5_LR_SCALES,
    BertTask,
    OptTask,
    TextTask,
    new_encoder,
    new_mae_of,
    new_text_model,
    save_without_last_layer,
)
from blip2_lab.training.trainer import Task

PASSAGES_SHARE = 0.5  #: of the examples, where there is a text file
QUESTIONS_SHARE = 0.4  #: of the examples, where there are questions
PASSAGE_WORDS = 48  #: longer paragraphs are split
MAX_TOKENS = 96  #: of one example; the text encoder has 128 positions
HELD_OUT_TEXTS = 64
MASKED_PATCHES = 0.6


@dataclass(frozen=True)
class OwnTexts:
    """`captions` and (caption, question, answer) of the pictures to train on, the captions that are `held_out`, and
    `passages` of other text."""

    captions: list[str]
    questions: list[tuple[str, str, str]]
    held_out: list[str]
    passages: list[str]

    def all(self) -> list[str]:
        return [*self.captions, *(text for row in self.questions for text in row), *self.held_out, *self.passages]


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
    return kind(model, tokenizer, recipe.optim.pass_size, recipe.seed, texts)


def read_texts(batches: ImageTextBatches) -> OwnTexts:
    """The texts of the pictures, and the paragraphs of `data.text_file`."""
    records = [record for source in batches.mixture.sources for record in _records(source)]
    held_out = [record for source in batches.held_out for record in _records(source)]
    questions = [
        (caption, question.text, question.answer)
        for record in records
        for question in record.questions
        if question.answer
        for caption in record.captions
    ]
    captions = [caption for record in records for caption in record.captions]
    file = batches.data.text_file
    passages = _passages(read_text(file, "data.text_file")) if file else []
    if file and not passages:
        raise ValueError(f"{file} (data.text_file) has no words: give a file with text, or leave it out")
    held_out_captions = [caption for record in held_out for caption in record.captions]
    asked = [(record.captions[0], q.text, q.answer) for record in held_out for q in record.questions if q.answer]
    words = [*held_out_captions, *(text for _, *pair in asked for text in pair)]
    return OwnTexts(captions, questions, words, passages)


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
        self.held_out = texts.held_out[:HELD_OUT_TEXTS] or None

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

    def held_out_batch(self) -> dict[str, Tensor]:
        """The held-out texts as a batch, always the same."""
        raise NotImplementedError

    def evaluate(self, step: int) -> dict[str, float]:
        device = next(self.model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in self.held_out_batch().items()}
        return {"held_out": float(self.compute_losses(batch)["total"])}


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


class OwnT5Task(OwnTextTask):
    """The encoder-decoder. It reads a few words of a text in any order and writes the text, which is what a visual
    prompt asks of it; it reads the beginning and writes the rest; and it reads a caption with a question and writes the
    answer."""

    no_decay = ("relative_attention_bias",)

    def lr_scales(self) -> dict[str, float]:
        return T5_LR_SCALES

    def pair(self, number: int) -> tuple[str, str]:
        """What is read, and what is written."""
        rng = Random(f"own {self.seed} {number}")
        if self.texts.questions and rng.random() < QUESTIONS_SHARE:
            caption, question, answer = rng.choice(self.texts.questions)
            return f"{caption} {EncoderDecoderLanguageModel.question_prompt.format(question)}", answer
        return self._few_words(rng.choice(self._pool(rng)), rng)

    def _few_words(self, text: str, rng: Random) -> tuple[str, str]:
        words = text.split()
        if len(words) > 1 and rng.random() < 1 / 3:
            cut = rng.randrange(1, len(words))
            return " ".join(words[:cut]), " ".join(words[cut:])
        share = rng.uniform(0.3, 1.0)
        kept = [word for word in words if rng.random() < share] or [rng.choice(words)]
        if rng.random() < 0.5:
            rng.shuffle(kept)
        return " ".join([*kept, CAPTION_PROMPT] if rng.random() < 0.5 else kept), text

    def batch(self, index: int) -> dict[str, Tensor]:
        return self._tokenized([self.pair(number) for number in self.numbers(index)])

    def held_out_batch(self) -> dict[str, Tensor]:
        return self._tokenized([self._few_words(text, Random(text)) for text in self.held_out])

    def _tokenized(self, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
        sources, targets = zip(*pairs, strict=True)
        input_ids, attention_mask = self.tokens(list(sources))
        target_ids, target_mask = self.tokens(list(targets))
        labels = target_ids.masked_fill(target_mask == 0, IGNORE_INDEX)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


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
