"""Pre-training of the frozen models: a ViT on images alone, a T5, an OPT and a BERT on text alone.

`build_task` is where to begin.

Notes:

* BLIP-2 takes its frozen models from others. Here they are trained, in minutes, on one modality each: none of them is
  trained on a picture together with a word. So questions about pictures are zero-shot later.
* The ViT learns what each patch shows (kind, color, size) and where it is, and from [CLS] the setting. It is trained
  with one layer more than it ships, since BLIP-2 uses the second-to-last layer; the labels are read from both.
* To bind red to boat in "a red boat" a T5 needs two circuits: one attends to the previous word (its only positions are
  relative biases, which Adam moves by one learning rate a step), one finds the boat of the question among the words of
  the description. From a random start that takes thousands of steps, so a few heads start that way
  (`init_copy_heads`), and the biases learn 30 times faster than the rest.
* It reads word sums first, one vector a thing, where binding is easy, and then sentences (`T5Task`).

Paper: section 3.4 (pre-trained image encoder and LLM), 3.1 (BERT initialization). Notebooks: 01, 10.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_lab.checkpoints.huggingface import as_loaded
from blip2_lab.models.masked_autoencoder import new_mae
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.micro import (
    micro_bert_config,
    micro_opt_config,
    micro_t5_config,
    micro_vit_config,
    new_opt,
    new_t5,
)
from blip2_lab.models.stage1 import clean_captions
from blip2_lab.models.vision_encoder import ImageEncoder, drop_last_layer, preprocess
from blip2_lab.picturebook import asking, corpus, words
from blip2_lab.picturebook.draw import draw, masks
from blip2_lab.picturebook.scene import COLORS, KINDS, PLACES, SIZES, TIMES, VALIDATION_BOOK, Scene, sample_scene
from blip2_lab.picturebook.tokenizer import build_tokenizer
from blip2_lab.training.tasks.masked_images import MaeTask, held_out_scenes, scene_pixels
from blip2_lab.training.tasks.word_sums import WordSums, add_up, word_sums_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ViTMAEForPreTraining

    from blip2_lab.training.recipes.schema import MaePart, Recipe
    from blip2_lab.training.trainer import Task

MASKED_SHARE = 0.15  # of the words, as in BERT
#: Adam moves every weight by about one learning rate a step. T5 has no 1/sqrt(64) in its attention; instead the weights
#: of its queries are 8 times smaller, so they must learn 8 times slower.
T5_LR_SCALES = {"relative_attention_bias": 30.0, ".q.": 1 / 8}
PARTS, LONG_ANSWER = 4, 6  # see T5Task.batch


def build_task(recipe: Recipe, runs_dir: Path) -> Task:
    """The task of a recipe whose part is made from nothing. `runs_dir` is not read."""
    size, batch_size, seed = recipe.model.size, recipe.optim.pass_size, recipe.data.seed
    if recipe.task == "vit":
        return VitTask(new_encoder(size), batch_size, seed)
    if recipe.task == "mae":
        mae = new_mae_of(recipe.model)
        size = mae.config.image_size
        return MaeTask(mae, scene_pixels(batch_size, seed, size), held_out_scenes(size), seed)
    if recipe.task not in ("t5", "opt", "bert"):
        raise ValueError(f"recipe {recipe.name} has the task {recipe.task!r}, which makes no frozen part")
    tokenizer = build_tokenizer(recipe.task)
    model = new_text_model(recipe.task, len(tokenizer), size)
    if recipe.task == "t5":
        return T5Task(model, tokenizer, batch_size, **asdict(recipe.data))
    return (OptTask if recipe.task == "opt" else BertTask)(model, tokenizer, batch_size, seed)


def new_encoder(size: str) -> ImageEncoder:
    """A new image encoder, with one layer more than it is saved with."""
    config = micro_vit_config(size)
    config.num_hidden_layers += 1  # dropped when it is saved
    encoder = ImageEncoder.from_config(config)
    # on CPU the fused attention's backward takes a third of the step; written out it takes a tenth
    encoder.model.set_attn_implementation("eager")
    return encoder


def new_mae_of(parts: MaePart) -> ViTMAEForPreTraining:
    """A new masked autoencoder in the shape of `new_encoder`."""
    config = micro_vit_config(parts.size)
    config.num_hidden_layers += 1  # dropped when it is saved
    decoder = dict(decoder_width=parts.decoder_width, decoder_layers=parts.decoder_layers)
    mae = new_mae(config, mask_ratio=parts.mask_ratio, normalize_pixels=parts.normalize_pixels, **decoder)
    mae.set_attn_implementation("eager")  # see `new_encoder`
    return mae


def new_text_model(family: str, vocab_size: int, size: str) -> nn.Module:
    """A new language model ("t5", "opt") or text encoder ("bert"), as its training starts."""
    if family == "t5":
        model = new_t5(micro_t5_config(vocab_size, size))
        with torch.no_grad():
            # T5's own start has embeddings of size 1, which Adam needs 1,000 steps to move, and first logits of +-16
            model.lm_head.weight.mul_(0.05)
            model.shared.weight.mul_(0.05)
        init_copy_heads(model)
    elif family == "opt":
        model = new_opt(micro_opt_config(vocab_size, size))
    else:
        from transformers import BertForMaskedLM

        model = BertForMaskedLM(micro_bert_config(vocab_size, size))
    model.set_attn_implementation("eager")
    return model


@torch.no_grad()
def init_copy_heads(model: nn.Module) -> None:
    """Let a new T5's first head attend to the previous word and, in the encoder, the second to the next one and two
    more to the same word elsewhere.

    differs from T5, whose biases and queries start at random: see the module's docstring. Measured on
    questions about two things: with the neighbors alone the loss is 0.54 after 350 steps, with the same word too it is
    below 0.01 after 100.
    """
    previous, here, following = 1, 0, 17  # buckets of the distances -1, 0 and +1, of T5's 32
    for stack, heads in ((model.encoder, {0: previous, 1: following}), (model.decoder, {0: previous})):
        bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # [buckets, heads]
        bias.zero_()
        for head, bucket in heads.items():
            bias[bucket, head] = 5.0
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        width = attention.key_value_proj_dim
        same = slice(2 * width, 4 * width)  # heads 2 and 3: a query that is its own key fits the same word best
        attention.q.weight[same] = attention.k.weight[same] / width**0.5
    model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight[here, 2:4] = -5.0


class TextTask:
    """What T5, OPT and BERT have in common: a tokenizer, numbered examples, and a model that gives its own loss."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch_size: int, seed: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.seed = seed

    def numbers(self, index: int) -> range:
        """The numbers of the examples of batch `index`."""
        return range(index * self.batch_size, (index + 1) * self.batch_size)

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Texts -> input_ids, attention_mask, each long[B,T], padded on the right to the longest."""
        # A multiple of 8, for few different lengths: on a CPU each new shape of a product is prepared first, which was
        # a fifth of a step.
        tokens = self.tokenizer(texts, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        return tokens.input_ids, tokens.attention_mask

    def compute_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"total": self.model(**batch).loss}

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        as_loaded(self.tokenizer).save_pretrained(folder)


REVIEW = 0.35  # the share of lessons in the full mixture, once they are repeated
SENTENCES = 0.35  # the share of descriptions in sentences, once these begin
QUESTIONS, LESSONS = 0.6, 0.15  # the shares of visitors' questions and of lessons, from `questions_from` on
SHORT_SENTENCES = 600  # batches in which sentences tell of two things at most
SCALE_IN_LESSONS = 0.3  # how far up the noise on word sums goes in lessons (`add_up`)
NOISE_GROWS = 1000  # batches after the lessons until it goes all the way
LONGEST = 3.0  # lengths of word sums as in a visual prompt, in lengths of a word embedding


class T5Task(TextTask):
    """The instruction-trained encoder-decoder: our FlanT5. It reads descriptions as `corpus.word_sums` and as
    sentences.

    lessons_until   until this batch it reads `corpus.lesson`: few forms of questions, so that binding (which color
                    belongs to the boat?) is learned in hundreds of batches. The full mixture, with its thousands of
                    wordings, had not taught it after 1,000.
    review_from     from this batch on a part of the examples are lessons again: without them lists, which are rare in
                    the mixture, fell from 0.56 to 0.28 in 500 batches.
    sentences_from  until this batch every description is a list of word sums, one vector a thing.
                    Sentences follow, first short ones. Left to sentences alone from the start, a T5 of this size stays
                    for thousands of steps where "what color is the boat?" is answered with any color of the scene.
    questions_from  from this batch on most examples are questions in a visitor's words about word sums. Before, these
                    were a fifth, for 34 intentions, and after 2,000 batches 0.61 of them were answered rightly.
    hard_from       from this batch on half of these have one of the intentions of `asking.HARD`.
    choices_from    from this batch on also one of `asking.CHOICES`.
    repeats_from    from this batch on word sums are as visual prompts were found to be: a thing is told by several of
                    them, and they are up to `LONGEST` words long. Without it counts and lists were 0.92 and 0.90 right
                    from word sums, 0.71 and 0.58 from pictures.
    often_share     the share of the visitors' questions whose intentions have equal shares (`often`); the others come
                    as often as `asking.INTENTIONS` says.

    # differs from FlanT5, which has read sentences alone and is large enough to make sense of soft prompts
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        seed: int,
        lessons_until: int = 0,
        review_from: int | None = None,
        sentences_from: int = 0,
        questions_from: int | None = None,
        hard_from: int | None = None,
        choices_from: int | None = None,
        repeats_from: int | None = None,
        often_share: float = 0.5,
    ) -> None:
        super().__init__(model, tokenizer, batch_size, seed)
        self.lessons_until = lessons_until
        self.review_from = review_from
        self.sentences_from = sentences_from
        self.questions_from = questions_from
        self.hard_from = hard_from
        self.choices_from = choices_from
        self.repeats_from = repeats_from
        self.often_share = often_share

    def example(self, number: int, index: int) -> tuple[str, str]:
        """Example `number`, made for batch `index`."""
        questions, lessons = self.shares(index)
        draw = Random(f"review {self.seed} {number}").random()
        if draw < questions:
            often, repeats = self.often(index), self.repeats(index)
            return corpus.visitors_question(self.seed, number, often, repeats, self.often_share)
        if draw < questions + lessons:
            return corpus.lesson(self.seed, number, self.repeats(index))
        since = index - self.sentences_from
        summed = since < 0 or Random(f"piled {self.seed} {number}").random() >= SENTENCES
        most = 4 if summed or since >= SHORT_SENTENCES else 2
        return corpus.instruction(self.seed, number, summed=summed, most=most, repeats=self.repeats(index))

    def repeats(self, index: int) -> bool:
        return self.repeats_from is not None and index >= self.repeats_from

    def often(self, index: int) -> tuple[str, ...]:
        """The intentions that `often_share` of the visitors' questions of batch `index` have, with equal shares."""
        hard = self.hard_from is not None and index >= self.hard_from
        often = asking.HARD if hard else tuple(asking.INTENTIONS)
        if self.choices_from is not None and index >= self.choices_from:
            weak = (name for times, names in asking.LEARNED_LAST.items() for name in names * (2 * times))
            return (*often, *asking.CHOICES, *weak)
        return often

    def shares(self, index: int) -> tuple[float, float]:
        """The shares of visitors' questions and of lessons in batch `index`; the rest is the full mixture."""
        if index < self.lessons_until:
            return 0.0, 1.0
        if self.questions_from is not None and index >= self.questions_from:
            return QUESTIONS, LESSONS
        return 0.0, REVIEW if self.review_from is not None and index >= self.review_from else 0.0

    def batch(self, index: int) -> list[dict[str, Tensor]]:
        """The batch in parts of examples alike in length: a third of the work would be padding otherwise."""
        examples = [self.example(number, index) for number in self.numbers(index)]
        # a word sum takes one place
        examples.sort(key=lambda pair: (len(pair[1].split()) > LONG_ANSWER, len(pair[0].split()), pair))
        size = -(-len(examples) // PARTS)
        starts = range(0, len(examples), size)
        grown = max(0, index - self.lessons_until) / NOISE_GROWS
        noise_scale = min(1.0, SCALE_IN_LESSONS + (1 - SCALE_IN_LESSONS) * grown)
        scales = dict(noise_scale=noise_scale, longest=LONGEST if self.repeats(index) else 1.0)
        return [
            self.part(examples[start : start + size], seed=index * PARTS + n) | scales for n, start in enumerate(starts)
        ]

    def part(self, examples: list[tuple[str, str]], seed: int) -> dict[str, Tensor]:
        sources, targets = zip(*examples, strict=True)
        input_ids, attention_mask = self.tokens([source.replace("+", " ") for source in sources])
        summed = any("+" in source for source in sources)
        sums = word_sums_of(sources, attention_mask, pad_to_multiple_of=8) if summed else None  # see `tokens`
        target_ids, target_mask = self.tokens(list(targets))
        labels = target_ids.masked_fill(target_mask == 0, IGNORE_INDEX)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "sums": sums,
            "seed": seed,
        }

    def compute_losses(self, batch: list[dict]) -> dict[str, Tensor]:
        """The mean over the target tokens of all parts. A token of an answer of n tokens has the weight
        1/sqrt(n): unweighted, the captions' many tokens leave little to the answers of one word."""
        sums, weights = zip(*(self.loss(**part) for part in batch), strict=True)
        return {"total": sum(sums) / sum(weights)}

    def loss(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        sums: WordSums | None,
        seed: int,
        noise_scale: float,
        longest: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the cross-entropies of one part's target tokens, and the sum of the weights."""
        if sums is None:
            read = dict(input_ids=input_ids, attention_mask=attention_mask)
        else:
            words = self.model.get_input_embeddings()(input_ids)
            embeddings = add_up(words, sums, torch.Generator().manual_seed(seed), noise_scale, longest=longest)
            read = dict(inputs_embeds=embeddings, attention_mask=sums.mask)
        logits = self.model(**read, labels=labels).logits.float()
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
        target = labels != IGNORE_INDEX
        weight = target / target.sum(dim=1, keepdim=True).sqrt()
        return (each.view_as(weight) * weight).sum(), weight.sum()

    no_decay = ("relative_attention_bias",)

    def lr_scales(self) -> dict[str, float]:
        return T5_LR_SCALES

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy from sentences, from word sums, and from word sums for questions in a visitor's words."""
        found = {
            "": text_questions(25),
            "summed ": text_questions(25, summed=True),
            "asked ": visitors_questions(25),
        }
        return {
            f"{label}{name}": share
            for label, asked in found.items()
            for name, share in text_question_accuracy(self.model, self.tokenizer, asked).items()
        }


Told = tuple[words.Question, str]  #: a question, and the prompt: a description with the question


def text_questions(scenes: int, seed: int = VALIDATION_BOOK, summed: bool = False) -> list[Told]:
    """Held-out questions in the forms of words.py, each with a true description of its scene."""
    describe = corpus.word_sums if summed else words.full_caption
    asked = []
    for index in range(scenes):
        scene, rng = sample_scene(seed, index, "in"), Random(f"text questions {seed} {index}")
        for question in [*words.questions(scene, rng), corpus.inventory(scene)]:
            prompt = corpus.QUESTION_PROMPTS[0].format(question.text)
            asked.append((question, f"{describe(scene, rng)} {prompt}"))
    return asked


def visitors_questions(scenes: int, seed: int = VALIDATION_BOOK) -> list[Told]:
    """Held-out questions in the wordings of wordings.py, one of every intention, each with `word_sums` of its scene."""
    asked = []
    for index in range(scenes):
        scene, rng = sample_scene(seed, index, "in"), Random(f"visitors {seed} {index}")
        for intention in (*asking.INTENTIONS, *asking.CHOICES):
            if question := asking.ask(scene, rng, intention):
                asked.append((question, f"{corpus.word_sums(scene, rng)} {corpus.prompt(question.text, rng)}"))
    return asked


@torch.no_grad()
def text_question_accuracy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Told],
    noise: float = 0.0,
    batch_size: int = 128,
) -> dict[str, float]:
    """Exact-match accuracy of a text-to-text model, in total and by type.

    noise  on descriptions as word sums, in lengths of a word embedding
    """
    right: dict[str, list[bool]] = {}
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        prompts = [prompt for _, prompt in part]
        tokens = tokenizer([prompt.replace("+", " ") for prompt in prompts], padding=True, return_tensors="pt")
        if any("+" in prompt for prompt in prompts):
            sums = word_sums_of(prompts, tokens.attention_mask)
            embeddings = model.get_input_embeddings()(tokens.input_ids)
            embeddings = add_up(embeddings, sums, torch.Generator().manual_seed(start), noise=noise)
            tokens = dict(inputs_embeds=embeddings, attention_mask=sums.mask)
        ids = model.generate(**tokens, max_new_tokens=40, do_sample=False)
        for (question, _), answer in zip(part, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            right.setdefault(question.type, []).append(answer.strip() == question.answer)
    total = [hit for hits in right.values() for hit in hits]
    return {"accuracy": sum(total) / len(total)} | {name: sum(hits) / len(hits) for name, hits in right.items()}


class OptTask(TextTask):
    """The decoder trained on plain text, next word after next word: our OPT."""

    def text(self, number: int) -> str:
        return corpus.plain_text(self.seed, number)

    def batch(self, index: int) -> dict[str, Tensor]:
        return self.with_labels([self.text(number) for number in self.numbers(index)])

    def with_labels(self, texts: list[str]) -> dict[str, Tensor]:
        """The texts, each with its end, as inputs and labels."""
        texts = [text + self.tokenizer.eos_token for text in texts]
        input_ids, attention_mask = self.tokens(texts)
        labels = input_ids.masked_fill(attention_mask == 0, IGNORE_INDEX)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


class BertTask(TextTask):
    """The bidirectional text encoder from which the Q-Former starts: masked words, in captions."""

    def text(self, number: int) -> str:
        rng = Random(f"captions {self.seed} {number}")
        return words.caption(corpus.corpus_scene(rng), rng)

    def batch(self, index: int) -> dict[str, Tensor]:
        seed = hash((self.seed, index))  # hash of integers: the same everywhere
        return self.masked([self.text(number) for number in self.numbers(index)], seed)

    def masked(self, texts: list[str], seed: int) -> dict[str, Tensor]:
        """The texts with some words masked, and labels for these."""
        input_ids, attention_mask = self.tokens(clean_captions(texts))
        generator = torch.Generator().manual_seed(seed)
        ordinary = input_ids >= len(self.tokenizer.all_special_tokens) - 1  # all but [DEC] come first
        draws = torch.rand(input_ids.shape, generator=generator).masked_fill(~ordinary, 1.0)
        masked = draws < MASKED_SHARE
        if not masked.any():  # in a batch of few words; a mean over no word is NaN
            masked = (draws == draws.min()) & ordinary
        # differs from BERT: a masked word is always [MASK], never kept or replaced by a random word
        return {
            "input_ids": input_ids.masked_fill(masked, self.tokenizer.mask_token_id),
            "attention_mask": attention_mask,
            "labels": input_ids.masked_fill(~masked, IGNORE_INDEX),
        }


# ---------------------------------------------------------------------------------------------------- the image side

PATCH_ATTRIBUTES = {"kind": KINDS, "color": COLORS, "size": SIZES}
SETTING_ATTRIBUTES = {"place": PLACES, "time": TIMES}
#: A ViT that need not tell where a patch is forgets it: a linear probe then reads the column's third in 0.51 of cases.
COORDINATES = ("row", "column")
COVERED = 0.2  # a patch shows a thing if the thing covers this share of it


class LabelHeads(nn.Module):
    """Linear readers: for every patch what it shows (0: no thing) and where it is, for [CLS] the setting."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        classes = {name: len(values) + 1 for name, values in PATCH_ATTRIBUTES.items()} | dict.fromkeys(
            COORDINATES, grid
        )
        self.patch = nn.ModuleDict({name: nn.Linear(width, number) for name, number in classes.items()})
        self.setting = nn.ModuleDict({k: nn.Linear(width, len(v)) for k, v in SETTING_ATTRIBUTES.items()})

    def forward(self, image_features: Tensor) -> dict[str, Tensor]:
        """image_features [B,N,Dv] -> logits [B,N-1,classes] of every patch, [B,classes] for the setting."""
        x = self.layer_norm(image_features)
        patch = {name: head(x[:, 1:]) for name, head in self.patch.items()}
        return patch | {name: head(x[:, 0]) for name, head in self.setting.items()}


def patch_labels(scene: Scene, grid: int) -> dict[str, Tensor]:
    """What each of `grid` x `grid` patches shows: long[grid*grid] for each of `PATCH_ATTRIBUTES`, 0 for no thing."""
    cells = 6  # a mask of 6 x 6 points a patch tells well enough how much is covered
    covered = masks(scene, grid * cells).reshape(len(scene.things), grid, cells, grid, cells).mean(axis=(2, 4))
    top = covered.argmax(axis=0)
    shown = covered.max(axis=0) > COVERED
    labels = {}
    for name, values in PATCH_ATTRIBUTES.items():
        numbers = np.array([values.index(getattr(thing, name)) + 1 for thing in scene.things])
        labels[name] = torch.from_numpy(np.where(shown, numbers[top], 0).reshape(-1).astype(np.int64))
    return labels


class VitTask:
    """The image encoder: pictures and labels, no words. One layer more than it ships with."""

    def __init__(self, encoder: nn.Module, batch_size: int, seed: int) -> None:
        self.encoder = encoder
        self.grid = encoder.image_size // encoder.model.config.patch_size
        self.model = nn.ModuleDict({"encoder": encoder, "heads": LabelHeads(encoder.width, self.grid)})
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, index: int, split: str = "train", seed: int | None = None) -> dict[str, Tensor]:
        seed = self.seed if seed is None else seed
        size = self.encoder.image_size
        numbers = range(index * self.batch_size, (index + 1) * self.batch_size)
        scenes = [sample_scene(seed, number, split) for number in numbers]
        labels = [patch_labels(scene, self.grid) for scene in scenes]
        setting = {
            name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
            for name, values in SETTING_ATTRIBUTES.items()
        }
        stacked = {name: torch.stack([label[name] for label in labels]) for name in PATCH_ATTRIBUTES}
        return {"pixels": preprocess([draw(scene, size) for scene in scenes], size)} | stacked | setting

    def logits(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        """What the heads read from the last layer and from the one before, which is the last that ships."""
        states = self.encoder.model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [self.model["heads"](state) for state in (states[-1], states[-2])]

    def compute_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropies, the mean of two layers; the many patches without a thing count for as much as the others."""
        both = [self.layer_losses(logits, batch) for logits in self.logits(batch["pixels"])]
        parts = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        return parts | {"total": sum(parts.values())}

    def layer_losses(self, logits: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = {}
        for name in PATCH_ATTRIBUTES:
            loss = F.cross_entropy(logits[name].flatten(0, 1).float(), batch[name].flatten(), reduction="none")
            empty = batch[name].flatten() == 0
            parts[name] = (loss[empty].mean() + 3 * loss[~empty].mean()) / 4
        patches = torch.arange(self.grid**2, device=batch["pixels"].device).expand(len(batch["pixels"]), -1)
        for name, place in zip(COORDINATES, (patches // self.grid, patches % self.grid), strict=True):
            parts[name] = 0.2 * F.cross_entropy(logits[name].flatten(0, 1).float(), place.flatten())
        for name in SETTING_ATTRIBUTES:
            parts[name] = 0.2 * F.cross_entropy(logits[name].float(), batch[name])
        return parts

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy of the layer that ships, on 256 held-out pictures: patches that show a thing, and the setting."""
        hits: dict[str, list[Tensor]] = {}
        for index in range(max(1, 256 // self.batch_size)):
            batch = self.batch(index, "in", VALIDATION_BOOK)
            for name, logits in self.logits(batch["pixels"])[1].items():
                if name in COORDINATES:
                    continue
                shown = batch[name] > 0 if name in PATCH_ATTRIBUTES else torch.ones_like(batch[name], dtype=torch.bool)
                hits.setdefault(name, []).append((logits.argmax(-1) == batch[name])[shown])
        return {name: torch.cat(parts).float().mean().item() for name, parts in hits.items()}

    def save(self, folder: Path) -> None:
        save_without_last_layer(self.encoder, folder)


def save_without_last_layer(encoder: ImageEncoder, folder: Path) -> None:
    """Write the encoder in transformers' layout. BLIP-2 reads the second-to-last layer."""
    drop_last_layer(copy.deepcopy(encoder.model)).save_pretrained(folder)
