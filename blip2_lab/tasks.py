"""The two stages, and fine-tuning, as tasks for the engine: built from frozen parts, fed with scenes or pictures.

What is unusual about it:

* A task does not know where its batches come from (feeding.py): cached features of drawn scenes, your own pictures
  encoded on the way, or their cached features. Both stages read the same cache.
* A picture's caption is drawn anew each time it comes up (the paper draws one of two).
* While stage 2 learns captions, `evaluate` asks questions it never learns: the zero-shot accuracy, as it grows.
  On your own pictures it compares held-out captions with those of shuffled pictures: does it look at the picture?
* A run remembers which examples it was started on, and does not go on with others.

Paper: sections 3.2 to 3.4, 4.2. Notebooks: 08, 11.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from blip2_lab import model_doctor, novelty, recipes
from blip2_lab.checkpoints import huggingface, load
from blip2_lab.common.files import write_atomically
from blip2_lab.data.examples import Batch, image_ids
from blip2_lab.data.scenes import PictureBook
from blip2_lab.feeding import SKIPPED, PictureFeed, SceneFeed, check_place, pairs, picture_feed, scene_features
from blip2_lab.models.decoding import PAPER, Decoding
from blip2_lab.models.language_model import DecoderLanguageModel
from blip2_lab.models.losses import chance_levels, itc_similarity
from blip2_lab.models.retrieval import matcher
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder, freeze, unfreeze
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
from blip2_lab.picturebook.scene import VALIDATION_BOOK
from blip2_lab.recipes import Recipe, vit_lr_scales
from blip2_lab.train import Task, parameter_groups, train
from blip2_lab.training.recipes.schema import FineTuneParts, Stage1Parts, Stage2Parts, WebData
from blip2_lab.training.run_folder import checkpoints, reference_log

EVALUATED_AT_ONCE = 64
EXAMPLES = "examples.json"  #: in a run's folder


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
        for name in (SKIPPED, EXAMPLES):
            (folder / name).unlink(missing_ok=True)
    task = build_task(recipe, runs_dir)
    feed = task.feed if isinstance(recipe.data, WebData) else None
    if feed:
        _same_examples(folder, recipe.data.path, feed.identity)
    write_atomically(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    with quietly():
        final = train(
            task,
            recipe.optim,
            run_dir=folder,
            seed=recipe.seed,
            save_every=recipe.save_every,
            eval_every=recipe.eval_every if getattr(task, "held_out", True) is not None else 0,
            resume=resume,
            progress=progress,
            reference=reference_log(recipe.curve or recipe.name),
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
    its stage 1 (fine-tuned for retrieval where that recipe was run), its float32 reference (model_doctor.py), what
    drawn pictures look like to it, learned from that many `scenes` (novelty.py), and the recipe and log of every part
    that was trained beside it (`curves/`)."""
    runs_dir, family = Path(runs_dir), stage2.partition("-")[0]
    finished = runs_dir / stage2 / "model"
    if not finished.is_dir():
        raise ValueError(f"there is no finished model in {finished}: blip2-lab train {stage2}")
    folder = Path(folder) if folder else runs_dir / family
    retrieval = f"{family}-retrieval"
    with quietly():
        model = load.load(finished)
        if (runs_dir / retrieval / "model").is_dir():
            stage1 = load.load(runs_dir / retrieval / "model")
            if fingerprint(stage1.image_encoder) != fingerprint(model.image_encoder):
                raise ValueError(f"{retrieval} and {stage2} look at pictures through different image encoders")
            stage1.attach_image_encoder(model.image_encoder)
            model.attach_stage1(stage1)
    load.save(model, folder, dtype=torch.float16)
    novelty.fit(model.image_encoder, scenes=scenes).save(folder)
    model_doctor.remember(load.load(folder), folder)  # of the weights as they are shipped, in 16 bits
    curves = folder / "curves"
    curves.mkdir(exist_ok=True)
    for name in next(recipe.sequence for recipe in recipes.RECIPES.values() if stage2 in recipe.sequence):
        for source, ending in (("log.jsonl", "jsonl"), ("recipe.json", "json")):
            if (runs_dir / name / source).exists():
                shutil.copyfile(runs_dir / name / source, curves / f"{name}.{ending}")
    return folder


class PicturesTask:
    """What the stages and fine-tuning have in common: a feed, and the image encoder for batches that come as pixels.

    Where the image encoder trains, it is the model's own, its layers each at their own rate (Tables 7 to 9).
    """

    def __init__(
        self, model: nn.Module, feed: SceneFeed | PictureFeed, image_encoder: ImageEncoder, layer_decay: float = 1.0
    ) -> None:
        self.model, self.feed, self.image_encoder, self.layer_decay = model, feed, image_encoder, layer_decay

    def batch(self, index: int) -> Batch:
        return self.feed.batch(index)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        scales = vit_lr_scales(self.image_encoder.model.config.num_hidden_layers, self.layer_decay)
        return parameter_groups(self.model, lr, weight_decay, lr_scales=scales)

    def features(self, batch: Batch) -> Tensor:
        """image_features [B,N,Dv] of a batch, without gradient."""
        if batch.image_features is not None:
            return batch.image_features
        return encode_frozen(self.image_encoder, batch.pixels)

    def seen(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """What a model looks at to learn from these batches: pixels where the image encoder learns, too."""
        if any(parameter.requires_grad for parameter in self.image_encoder.parameters()):
            return {"pixels": torch.cat([batch.pixels for batch in batches])}
        return {"image_features": torch.cat([self.features(batch) for batch in batches])}

    def shuffled(self, batch: Batch) -> Batch:
        """The same texts, each with the next one's picture: what the losses are when the picture is no help."""
        pixels, features = (None if x is None else x.roll(1, dims=0) for x in (batch.pixels, batch.image_features))
        return replace(batch, pixels=pixels, image_features=features, ids=batch.ids[-1:] + batch.ids[:-1])

    def save(self, folder: Path) -> None:
        load.save(self.model, folder)


# ------------------------------------------------------------------------------------------------------------- stage 1


class Stage1Task(PicturesTask):
    """Representation learning (section 3.2), and fine-tuning for retrieval by the same losses (section 4.4).
    `held_out`: pictures and captions to evaluate on, if any."""

    def __init__(self, *arguments, held_out: Batch | None, layer_decay: float = 1.0) -> None:
        super().__init__(*arguments, layer_decay)
        self.held_out = held_out
        self.generator = torch.Generator()  # of the negatives; the engine seeds it, alike in all processes

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.joint_losses([batch])

    def joint_losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Those of all passes of a step as one batch, computed piece by piece: ITC compares them all."""
        ids = [name for batch in batches for name in batch.ids]
        losses = self.model.losses(
            **self.seen(batches),
            captions=[caption for batch in batches for caption in batch.captions],
            image_id=image_ids(ids).to(self.model.device) if ids else None,
            generator=self.generator,
            passes=len(batches),
        )
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

    def chance(self) -> dict[str, float]:
        return chance_levels(self.feed.batch_size, self.model.qformer.config.vocab_size)

    def evaluate(self, step: int) -> dict[str, float]:
        """On a held-out gallery: R@1 by ITC both ways, and ITM's accuracy on true pairs and the hardest wrong ones."""
        features = self.features(self.held_out.to(self.model.device))
        input_ids, attention_mask = self.model.tokenize(self.held_out.captions)
        image_embeds = self.model.embed_image(features)
        text_embeds = self.model.embed_text(input_ids, attention_mask)
        similarity = itc_similarity(image_embeds, text_embeds)  # [M, M]
        own = torch.arange(len(similarity), device=similarity.device)
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


class RetrievalTask(Stage1Task):
    """Fine-tuning a stage 1 for retrieval (section 4.4), its image encoder with it or frozen."""


def build_stage1(recipe: Recipe, runs_dir: Path) -> Stage1Task:
    check_place(recipe)
    image_encoder = load_image_encoder(recipe.model.image_encoder, runs_dir)
    feed, held_out = pairs(recipe, image_encoder, runs_dir)
    model = new_stage1(recipe.model, image_encoder.width, runs_dir)
    return Stage1Task(model, feed, image_encoder, held_out=held_out)


# ------------------------------------------------------------------------------------------------------------- stage 2


class Stage2Task(PicturesTask):
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
        """Is each question answered word for word?"""
        # A decoder goes on after its answer ("snow. Question: what …"); the paper's beams and length penalty end it.
        decodes = isinstance(self.model.language_model, DecoderLanguageModel)
        decoding, right = PAPER if decodes else Decoding(num_beams=1), []
        for start in range(0, len(self.questions), at_once):
            part = self.questions[start : start + at_once]
            prompts = visual_prompts[[number for number, _ in part]]
            asked = [self.model.language_model.question_prompt.format(question.text) for _, question in part]
            answers = self.model.language_model.generate(prompts, asked, decoding)
            right += [answer.strip(" .") == q.answer for answer, (_, q) in zip(answers, part, strict=True)]
        return right


class CaptionTask(PicturesTask):
    """Stage 2 on pictures of your own, and fine-tuning of a whole BLIP-2 (sections 3.3, 4.2).

    `prompt`: None for stage 2's own objective; else the text before each caption, which is given and not learned.
    A batch's questions take its place, in the form this language model is asked. `held_out`: a batch to evaluate on.
    """

    def __init__(self, *arguments, prompt: str | None, held_out: Batch | None, layer_decay: float = 1.0) -> None:
        super().__init__(*arguments, layer_decay)
        self.prompt, self.held_out = prompt, held_out

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if batch.questions is not None:
            prompts = [self.model.language_model.question_prompt.format(question) for question in batch.questions]
        else:
            prompts = None if self.prompt is None else [self.prompt] * len(batch.captions)
        texts = dict(captions=batch.captions, prompts=prompts, generator=generator)
        loss, tokens = self.model.loss_and_count(**self.seen([batch]), **texts)
        return {"total": loss, "weight": tokens}

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
    huggingface.check_layout(image_encoder)  # now, not when it is trained
    if parts.pretrained:
        stage1 = load.read_stage1(resolve(parts.stage1, runs_dir))
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
    gallery = PictureBook(VALIDATION_BOOK, "in", image_encoder.image_size)
    questions = [
        (number, question)
        for number in range(recipe.data.held_out)
        for question in words.questions(gallery.scene(number), Random(f"validation {number}"))
    ]
    pictures = encoder_of(image_encoder)([gallery.image(i) for i in range(recipe.data.held_out)])
    scale = model.match_embeddings() if recipe.model.match_embeddings else 1.0
    return Stage2Task(model, feed, image_encoder, pictures=pictures, questions=questions, projection_lr_scale=scale)


# --------------------------------------------------------------------------------------------------------- fine-tuning


def build_fine_tuning(recipe: Recipe, runs_dir: Path) -> CaptionTask | RetrievalTask:
    parts: FineTuneParts = recipe.model
    if parts.question_in_qformer:
        what = f"{recipe.name} can be planned (blip2-lab plan {recipe.name})"
        raise ValueError(f"{what}; the question in the Q-Former is not yet trained here")
    check_place(recipe)
    if parts.train_image_encoder and not (isinstance(recipe.data, WebData) and not recipe.data.cached_views):
        raise ValueError(
            "the features of an image encoder that trains cannot be cached: --set data.cached_views=0, or "
            "model.train_image_encoder=false"
        )
    return build_retrieval(recipe, runs_dir) if recipe.task == "retrieval" else build_captioning(recipe, runs_dir)


def build_retrieval(recipe: Recipe, runs_dir: Path) -> RetrievalTask:
    parts: FineTuneParts = recipe.model
    model = _matcher(parts.start, runs_dir)
    if isinstance(model.lm_head, huggingface.MissingHead):
        raise ValueError(f"{parts.start} has no language modeling head, which ITG trains: start from LAVIS's file")
    huggingface.check_layout(model.image_encoder)
    model.config.max_text_tokens = parts.max_text_tokens
    model.float().requires_grad_(True)
    encoder = (unfreeze if parts.train_image_encoder else freeze)(model.image_encoder)
    feed, held_out = pairs(recipe, encoder, runs_dir)
    if isinstance(feed, PictureFeed):
        _know_the_words(model.tokenizer, feed.texts(), "Salesforce/blip2-itm-vit-g")
    return RetrievalTask(model, feed, encoder, held_out=held_out, layer_decay=parts.layer_decay)


def _matcher(start: str, runs_dir: Path) -> Stage1Model:
    """The stage-1 model that retrieval starts from, with its image encoder: of a stage-1 run, or of a whole model."""
    if isinstance(recipes.RECIPES[start].model if start in recipes.RECIPES else None, Stage1Parts):
        encoder = load_image_encoder(stage1_parts_of(start, runs_dir).image_encoder, runs_dir)
        return load.read_stage1(resolve(start, runs_dir), image_encoder=encoder)
    with quietly():
        return matcher(load.load(resolve(start, runs_dir)))


def build_captioning(recipe: Recipe, runs_dir: Path) -> CaptionTask:
    parts: FineTuneParts = recipe.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quietly():
        model = load.load(resolve(parts.start, runs_dir), device=device)
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
    _know_the_words(model.language_model.tokenizer, feed.texts(), "Salesforce/blip2-opt-2.7b")
    held_out = feed.validation()
    return CaptionTask(
        model, feed, model.image_encoder, prompt=parts.prompt, held_out=held_out, layer_decay=parts.layer_decay
    )


def _know_the_words(tokenizer, texts: list[str], larger: str) -> None:
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
