"""The two stages, and fine-tuning, as tasks for the engine: built from frozen parts, fed with scenes or pictures.

What is unusual about it:

* A task does not know where its batches come from (feeding.py): cached features of drawn scenes, your own pictures
  encoded on the way, or their cached features. Both stages read the same cache.
* A picture's caption is drawn anew each time it comes up (the paper draws one of two).
* While stage 2 learns captions, `evaluate` asks questions it never learns: the zero-shot accuracy, as it grows.
  On your own pictures it compares held-out captions with those of shuffled pictures: does it look at the picture?
* A run remembers which examples it was started on, and does not go on with others.

Paper: sections 3.2 to 3.4, 4.2. Notebook: 00.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from blip2_lab import doctor, model_doctor, novelty, pretrained, recipes
from blip2_lab.data import Batch, PictureBook
from blip2_lab.decoding import Decoding
from blip2_lab.features import Features, cached_features
from blip2_lab.feeding import PictureFeed, SceneFeed
from blip2_lab.parts import (
    encode_frozen,
    encoder_of,
    fingerprint,
    load_image_encoder,
    load_language_model,
    new_stage1,
    quietly,
    resolve,
    stage1_parts_of,
)
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import HELD_OUT_BOOK
from blip2_lab.recipes import Recipe, vit_lr_scales
from blip2_lab.run_folder import checkpoints, write_atomically
from blip2_lab.settings import FineTuneParts, SceneData, Stage2Parts, WebData
from blip2_lab.sources import open_sources
from blip2_lab.stage1 import Stage1Model, itc_similarity
from blip2_lab.stage2 import Stage2Model
from blip2_lab.train import Task, parameter_groups, train
from blip2_lab.vision import ImageEncoder, unfreeze

EVALUATED_AT_ONCE = 64
BROKEN, EXAMPLES = "skipped.jsonl", "examples.json"  #: in a run's folder


# -------------------------------------------------------------------------------------------------------------- running


def run(recipe: Recipe, runs_dir: str | Path, *, resume: bool = True, progress: bool = True) -> dict[str, float]:
    """Train one recipe in `runs_dir/NAME` and return the last logged numbers."""
    runs_dir = Path(runs_dir)
    missing = [name for name in recipe.needs if not (runs_dir / name / "model").is_dir()]
    if missing:
        raise ValueError(f"{recipe.name} needs {' and '.join(missing)} in {runs_dir}: blip2-lab train {missing[0]}")
    folder = runs_dir / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (BROKEN, EXAMPLES):
            (folder / name).unlink(missing_ok=True)
    task = build_task(recipe, runs_dir)
    feed = task.feed if isinstance(recipe.data, WebData) else None
    if feed:
        _same_examples(folder, recipe.data.path, feed.identity)
    write_atomically(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    final = train(
        task,
        recipe.optim,
        run_dir=folder,
        seed=recipe.seed,
        save_every=recipe.save_every,
        eval_every=recipe.eval_every if getattr(task, "held_out", True) is not None else 0,
        resume=resume,
        progress=progress,
        reference=doctor.reference_log(recipe.curve or recipe.name),
    )
    if feed and progress:
        print(feed.skips.report(), flush=True)
    return final


def _same_examples(folder: Path, path: str, identity: str) -> None:
    """Note which examples a run trains on. Raises ValueError when it has begun with others."""
    note, found = folder / EXAMPLES, {"path": path, "identity": identity}
    if checkpoints(folder) and note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        if before["identity"] != identity:
            raise ValueError(
                f"{folder} was started on other examples ({before['path']}): --restart to begin with these, or give "
                "them another --name"
            )
    write_atomically(note, json.dumps(found) + "\n")


def build_task(recipe: Recipe, runs_dir: str | Path) -> Task:
    """What the engine trains for this recipe, its frozen parts taken from `runs_dir`."""
    torch.manual_seed(recipe.seed)  # new weights are the same each time: a resumed run replaces them all anyway
    if recipe.task == "stage1":
        return build_stage1(recipe, Path(runs_dir))
    if recipe.task == "stage2":
        return build_stage2(recipe, Path(runs_dir))
    if recipe.task in ("caption", "vqa", "retrieval"):
        return build_fine_tuning(recipe, Path(runs_dir))
    from blip2_lab import pretraining

    return pretraining.build_task(recipe, Path(runs_dir))


def export(
    runs_dir: str | Path, folder: str | Path | None = None, stage2: str = "micro-stage2", scenes: int = 2000
) -> Path:
    """The finished BLIP-2 of a stage-2 run as it is shipped, in `folder` (default `runs_dir/micro`): float16 weights,
    its stage 1, the recipe and log of every part (`curves/`), its float32 reference (model_doctor.py), and what drawn
    pictures look like to it, learned from that many `scenes` (novelty.py)."""
    runs_dir = Path(runs_dir)
    finished = runs_dir / stage2 / "model"
    if not finished.is_dir():
        raise ValueError(f"there is no finished model in {finished}: blip2-lab train {stage2}")
    folder = Path(folder) if folder else runs_dir / stage2.partition("-")[0]
    with quietly():
        model = pretrained.load(finished)
    model.save_pretrained(folder, dtype=torch.float16)
    novelty.fit(model.image_encoder, scenes=scenes).save(folder)
    model_doctor.remember(pretrained.load(folder), folder)  # of the weights as they are shipped, in 16 bits
    curves = folder / "curves"
    curves.mkdir(exist_ok=True)
    for name in (*recipes.get(stage2).needs, stage2):
        for source, ending in (("log.jsonl", "jsonl"), ("recipe.json", "json")):
            if (runs_dir / name / source).exists():
                shutil.copyfile(runs_dir / name / source, curves / f"{name}.{ending}")
    return folder


# -------------------------------------------------------------------------------------------------------------- feeds


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
        broken_file=runs_dir / recipe.name / BROKEN,
    )
    if data.cached_views:
        feed.cache(encoder_of(image_encoder), runs_dir / "features", fingerprint(image_encoder))
    return feed


class FrozenEncoderTask:
    """What the stages have in common: a feed, and the image encoder for batches that come as pixels."""

    def __init__(self, model: nn.Module, feed: SceneFeed | PictureFeed, image_encoder: ImageEncoder) -> None:
        self.model, self.feed, self.image_encoder = model, feed, image_encoder

    def batch(self, index: int) -> Batch:
        return self.feed.batch(index)

    def features(self, batch: Batch) -> Tensor:
        """image_features [B,N,Dv] of a batch."""
        if batch.image_features is not None:
            return batch.image_features
        return encode_frozen(self.image_encoder, batch.pixels)

    def shuffled(self, batch: Batch) -> Batch:
        """The same texts, each with the next one's picture: what the losses are when the picture is no help."""
        pixels, features = (None if x is None else x.roll(1, dims=0) for x in (batch.pixels, batch.image_features))
        return replace(batch, pixels=pixels, image_features=features, ids=batch.ids[-1:] + batch.ids[:-1])

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------------------- stage 1


class Stage1Task(FrozenEncoderTask):
    """Representation learning (section 3.2). `held_out`: image_features [M,N,Dv] and their captions, if any."""

    def __init__(self, *arguments, held_out: tuple[Tensor, list[str]] | None) -> None:
        super().__init__(*arguments)
        self.held_out = held_out
        self.generator = torch.Generator()  # of the negatives; the engine seeds it, alike in all processes

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.joint_losses([batch])

    def joint_losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Those of all passes of a step as one batch, computed piece by piece: ITC compares them all."""
        features = torch.cat([self.features(batch) for batch in batches])
        captions = [caption for batch in batches for caption in batch.captions]
        ids = [name for batch in batches for name in batch.ids]
        losses = self.model.losses(
            image_features=features,
            captions=captions,
            image_id=image_ids(ids).to(features.device) if ids else None,
            generator=self.generator,
            passes=len(batches),
        )
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

    def chance(self) -> dict[str, float]:
        return doctor.chance_levels(self.feed.batch_size, self.model.qformer.config.vocab_size)

    def evaluate(self, step: int) -> dict[str, float]:
        """On a held-out gallery: R@1 by ITC both ways, and ITM's accuracy on true pairs and the hardest wrong ones."""
        features, captions = self.held_out
        features = features.to(self.model.device)
        input_ids, attention_mask = self.model.tokenize(captions)
        image_embeds = self.model.embed_image(features)
        text_embeds = self.model.embed_text(input_ids, attention_mask)
        similarity = itc_similarity(image_embeds, text_embeds)  # [M, M]
        own = torch.arange(len(captions), device=similarity.device)
        wrong = similarity.masked_fill(own[:, None] == own, -torch.inf).argmax(dim=1)  # the text most like image m
        memory = self.model.qformer.read_image(features)
        true = self.model.itm_logits(memory, input_ids, attention_mask)
        false = self.model.itm_logits(memory, input_ids[wrong], attention_mask[wrong])
        hits = torch.cat([true.argmax(1) == 1, false.argmax(1) == 0])
        return {
            "image_to_text_r1": (similarity.argmax(dim=1) == own).float().mean().item(),
            "text_to_image_r1": (similarity.argmax(dim=0) == own).float().mean().item(),
            "itm_accuracy": hits.float().mean().item(),
        }


def image_ids(ids: Iterable[str]) -> Tensor:
    """Names of pictures as numbers, long[B]: equal names, equal numbers, on every rank."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def build_stage1(recipe: Recipe, runs_dir: Path) -> Stage1Task:
    check_place(recipe)
    image_encoder = load_image_encoder(recipe.model.image_encoder, runs_dir)
    if isinstance(recipe.data, WebData):
        feed = picture_feed(recipe, image_encoder, runs_dir)
        validation = feed.validation()
        held_out = validation and (encode_frozen(image_encoder, validation.pixels), validation.captions)
    else:
        book, features = scene_features(image_encoder, recipe.data, runs_dir)
        feed = SceneFeed(book, features, recipe.optim.pass_size, recipe.seed, recipe.data.alike_from)
        gallery = PictureBook(HELD_OUT_BOOK, "in", image_encoder.image_size, caption="full")
        numbers = range(recipe.data.held_out)
        pictures = encoder_of(image_encoder)([gallery.image(i) for i in numbers])
        held_out = pictures, [gallery.one_caption(i) for i in numbers]
    model = new_stage1(recipe.model, image_encoder.width, runs_dir)
    return Stage1Task(model, feed, image_encoder, held_out=held_out)


# ------------------------------------------------------------------------------------------------------------- stage 2


class Stage2Task(FrozenEncoderTask):
    """Generative learning from captions (section 3.3). `questions`: (number of the picture, question) to ask of
    `pictures`, image_features [M,N,Dv]; nothing is learned from them."""

    def __init__(
        self, *arguments, pictures: Tensor, questions: list[tuple[int, words.Question]], projection_lr_scale: float = 1
    ) -> None:
        super().__init__(*arguments)
        self.pictures = pictures
        self.questions = questions
        self.projection_lr_scale = projection_lr_scale

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        scales = {"language_projection": self.projection_lr_scale}
        return parameter_groups(self.model, lr, weight_decay, lr_scales=scales)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        loss, tokens = self.model.loss_and_count(image_features=self.features(batch), captions=batch.captions)
        return {"total": loss, "weight": tokens}

    def evaluate(self, step: int) -> dict[str, float]:
        """Zero-shot accuracy on held-out scenes, in total and by type of question; and in total with the pictures
        shuffled, which tells how much can be guessed."""
        device = next(self.model.language_projection.parameters()).device
        prompts = self.model.visual_prompt(self.pictures.to(device))  # [M,Q,Dl]
        right = self._answers(prompts)
        by_type: dict[str, list[bool]] = {}
        for (_, question), hit in zip(self.questions, right, strict=True):
            by_type.setdefault(question.type, []).append(hit)
        shuffled = self._answers(prompts.roll(1, dims=0))
        totals = {"accuracy": sum(right) / len(right), "shuffled": sum(shuffled) / len(shuffled)}
        return totals | {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())}

    def _answers(self, visual_prompts: Tensor, at_once: int = 128) -> list[bool]:
        """Is each question answered word for word? Greedy."""
        greedy, right = Decoding(num_beams=1), []
        for start in range(0, len(self.questions), at_once):
            part = self.questions[start : start + at_once]
            prompts = visual_prompts[[number for number, _ in part]]
            asked = [self.model.language_model.question_prompt.format(question.text) for _, question in part]
            answers = self.model.language_model.generate(prompts, asked, greedy)
            right += [answer.strip(" .") == q.answer for answer, (_, q) in zip(answers, part, strict=True)]
        return right


class CaptionTask(FrozenEncoderTask):
    """Stage 2 on pictures of your own, and fine-tuning of a whole BLIP-2 (sections 3.3, 4.2).

    `prompt`: None for stage 2's own objective; else the text before each caption, which is given and not learned.
    A batch's questions take its place, in the form this language model is asked. `held_out`: a batch to evaluate on.
    """

    def __init__(self, *arguments, prompt: str | None, held_out: Batch | None, layer_decay: float = 1.0) -> None:
        super().__init__(*arguments)
        self.prompt, self.held_out, self.layer_decay = prompt, held_out, layer_decay

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if batch.questions is not None:
            prompts = [self.model.language_model.question_prompt.format(question) for question in batch.questions]
        else:
            prompts = None if self.prompt is None else [self.prompt] * len(batch.captions)
        trained = any(parameter.requires_grad for parameter in self.image_encoder.parameters())
        seen = dict(pixels=batch.pixels) if trained else dict(image_features=self.features(batch))
        texts = dict(captions=batch.captions, prompts=prompts, generator=generator)
        loss, tokens = self.model.loss_and_count(**seen, **texts)
        return {"total": loss, "weight": tokens}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """The image encoder's layers, where they train, each at its own rate (Tables 7 and 8)."""
        scales = vit_lr_scales(self.image_encoder.model.config.num_hidden_layers, self.layer_decay)
        return parameter_groups(self.model, lr, weight_decay, lr_scales=scales)

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss on held-out pictures, and with each other's pictures: a model that looks is worse off then."""
        return {"held_out": self._mean_loss(0), "shuffled": self._mean_loss(1)}

    def _mean_loss(self, shift: int) -> float:
        """The mean over the held-out texts, each with the picture `shift` places further on."""
        batch, total = self.held_out.to(next(self.model.language_projection.parameters()).device), 0.0
        pixels = batch.pixels.roll(shift, dims=0)
        for start in range(0, len(pixels), EVALUATED_AT_ONCE):
            place = slice(start, start + EVALUATED_AT_ONCE)
            asked = batch.questions and batch.questions[place]
            part = Batch(captions=batch.captions[place], pixels=pixels[place], questions=asked)
            generator = torch.Generator().manual_seed(start)
            total += float(self.losses(part, generator)["total"]) * len(part.captions)
        return total / len(pixels)


def build_stage2(recipe: Recipe, runs_dir: Path) -> Stage2Task | CaptionTask:
    check_place(recipe)
    parts: Stage2Parts = recipe.model
    stage1_parts = stage1_parts_of(parts.stage1, runs_dir)
    image_encoder = load_image_encoder(stage1_parts.image_encoder, runs_dir)
    if parts.pretrained:
        stage1 = Stage1Model.from_pretrained(resolve(parts.stage1, runs_dir))
    else:
        stage1 = new_stage1(stage1_parts, image_encoder.width, runs_dir)
    language_model = load_language_model(parts.language_model, runs_dir, parts.max_text_tokens)
    if not torch.cuda.is_available():  # on CPU the fused attention's backward makes the whole step a third slower
        language_model.model.set_attn_implementation("eager")
    model = Stage2Model.from_stage1(stage1, image_encoder, language_model)
    if parts.pretrained:
        model.attach_stage1(stage1)  # saved with the model: matching and retrieval need it
    if isinstance(recipe.data, WebData):
        feed = picture_feed(recipe, image_encoder, runs_dir)
        return CaptionTask(model, feed, image_encoder, prompt=None, held_out=feed.validation())
    feed = SceneFeed(*scene_features(image_encoder, recipe.data, runs_dir), recipe.optim.pass_size, recipe.seed)
    gallery = PictureBook(HELD_OUT_BOOK, "in", image_encoder.image_size)
    questions = [
        (number, question)
        for number in range(recipe.data.held_out)
        for question in words.questions(gallery.scene(number), Random(f"validation {number}"))
    ]
    pictures = encoder_of(image_encoder)([gallery.image(i) for i in range(recipe.data.held_out)])
    scale = model.match_embeddings() if recipe.model.match_embeddings else 1.0
    return Stage2Task(model, feed, image_encoder, pictures=pictures, questions=questions, projection_lr_scale=scale)


# --------------------------------------------------------------------------------------------------------- fine-tuning


def build_fine_tuning(recipe: Recipe, runs_dir: Path) -> CaptionTask:
    parts: FineTuneParts = recipe.model
    if recipe.task == "retrieval" or parts.question_in_qformer:
        what = "retrieval" if recipe.task == "retrieval" else "the question in the Q-Former"
        raise ValueError(f"{recipe.name} can be planned (blip2-lab plan {recipe.name}); {what} is not yet trained here")
    check_place(recipe)
    if parts.train_image_encoder and recipe.data.cached_views:
        raise ValueError("the features of an image encoder that trains cannot be cached: --set data.cached_views=0")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quietly():
        model = pretrained.load(resolve(parts.start, runs_dir), device=device)
    if not isinstance(model, Stage2Model):
        raise ValueError(f"{parts.start} has no language model, so it cannot learn to write captions")
    model.language_model.max_text_tokens = parts.max_text_tokens
    if device == "cpu":
        model.language_model.model.set_attn_implementation("eager")  # see build_stage2
    trained = [model.qformer, model.language_projection]
    if parts.train_image_encoder:
        trained.append(unfreeze(model.image_encoder))
    for module in trained:  # AdamW's small steps vanish in 16 bits; autocast computes in them anyway
        module.float().requires_grad_(True)
    feed = picture_feed(recipe, model.image_encoder, runs_dir)
    _know_the_words(model.language_model.tokenizer, feed.texts())
    held_out = feed.validation()
    return CaptionTask(
        model, feed, model.image_encoder, prompt=parts.prompt, held_out=held_out, layer_decay=parts.layer_decay
    )


def _know_the_words(tokenizer, texts: list[str]) -> None:
    """Tell which words a small vocabulary does not know. Raises ValueError when it knows none of them."""
    every = sorted({word for text in texts for word in text.lower().split()})
    unknown = [word for word in every if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False).input_ids]
    if not unknown:
        return
    few = ", ".join(unknown[:8]) + (" …" if len(unknown) > 8 else "")
    message = f"the language model's vocabulary does not know {len(unknown)} of your {len(every)} words ({few})"
    if len(unknown) == len(every):
        raise ValueError(f"{message}: start from a larger one, --set model.start=Salesforce/blip2-opt-2.7b")
    print(f"note: {message}; it can neither read nor write them", flush=True)
