"""The two stages as tasks for the engine: built from frozen parts, fed with cached features and fresh captions.

What is unusual about it:

* A part is found by name: a recipe's name means its run folder, everything else a folder or the hub.
* The frozen image encoder runs once over the pictures; its features (bf16) wait in a memory-mapped file, under a name
  made from the encoder's weights, so another encoder can never be mistaken for it. Both stages read the same file.
* A picture's caption is drawn anew each time it comes up (the paper draws one of two).
* While stage 2 learns captions, `evaluate` asks questions it never learns: the zero-shot accuracy, as it grows.

Paper: sections 3.2 to 3.4. Notebook: 00.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor, nn

from blip2_lab import novelty, pretrained, recipes
from blip2_lab.data import Batch, PictureBook, batch_indices, cached_features
from blip2_lab.decoding import Decoding
from blip2_lab.language import DecoderLanguageModel, EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.picturebook import words
from blip2_lab.qformer import QFormerConfig
from blip2_lab.recipes import Recipe, SceneData, Stage1Parts, Stage2Parts
from blip2_lab.run_folder import write_atomically
from blip2_lab.stage1 import Stage1Config, Stage1Model, itc_similarity
from blip2_lab.stage2 import Stage2Model
from blip2_lab.train import Task, train
from blip2_lab.vision import ImageEncoder, freeze

VALIDATION_SEED = 1


# -------------------------------------------------------------------------------------------------------------- running


def run(recipe: Recipe, runs_dir: str | Path, *, resume: bool = True, progress: bool = True) -> dict[str, float]:
    """Train one recipe in `runs_dir/NAME` and return the last logged numbers."""
    runs_dir = Path(runs_dir)
    missing = [name for name in recipe.needs if not (runs_dir / name / "model").is_dir()]
    if missing:
        raise ValueError(f"{recipe.name} needs {' and '.join(missing)} in {runs_dir}: blip2-lab train {missing[0]}")
    task = build_task(recipe, runs_dir)
    folder = runs_dir / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    return train(
        task,
        recipe.optim,
        run_dir=folder,
        seed=recipe.seed,
        save_every=recipe.save_every,
        eval_every=recipe.eval_every,
        resume=resume,
        progress=progress,
    )


def build_task(recipe: Recipe, runs_dir: str | Path) -> Task:
    """What the engine trains for this recipe, its frozen parts taken from `runs_dir`."""
    torch.manual_seed(recipe.seed)  # new weights are the same each time: a resumed run replaces them all anyway
    if recipe.task == "stage1":
        return build_stage1(recipe, Path(runs_dir))
    if recipe.task == "stage2":
        return build_stage2(recipe, Path(runs_dir))
    from blip2_lab import pretraining

    return pretraining.build_task(recipe, Path(runs_dir))


def export(
    runs_dir: str | Path, folder: str | Path | None = None, stage2: str = "micro-stage2", scenes: int = 2000
) -> Path:
    """The finished BLIP-2 of a stage-2 run as it is shipped, in `folder` (default `runs_dir/micro`): float16 weights,
    its stage 1, the recipe and log of every part (`curves/`), and what drawn pictures look like to it, learned from
    that many `scenes` (novelty.py)."""
    runs_dir = Path(runs_dir)
    finished = runs_dir / stage2 / "model"
    if not finished.is_dir():
        raise ValueError(f"there is no finished model in {finished}: blip2-lab train {stage2}")
    folder = Path(folder) if folder else runs_dir / "micro"
    with _quietly():
        model = pretrained.load(finished)
    model.save_pretrained(folder, dtype=torch.float16)
    novelty.fit(model.image_encoder, scenes=scenes).save(folder)
    curves = folder / "curves"
    curves.mkdir(exist_ok=True)
    for name in (*recipes.get(stage2).needs, stage2):
        for source, ending in (("log.jsonl", "jsonl"), ("recipe.json", "json")):
            if (runs_dir / name / source).exists():
                shutil.copyfile(runs_dir / name / source, curves / f"{name}.{ending}")
    return folder


# ---------------------------------------------------------------------------------------------------------------- parts


def resolve(name: str, runs_dir: Path) -> str:
    """Where a part is: a recipe's finished model, or the name itself (a folder or the hub's)."""
    return str(runs_dir / name / "model") if name in recipes.RECIPES else name


def stage1_parts_of(name: str, runs_dir: Path) -> Stage1Parts:
    """What a stage-1 run was really built from (it may have been started with other settings than its recipe's)."""
    written = runs_dir / name / "recipe.json"
    return Stage1Parts(**json.loads(written.read_text())["model"]) if written.exists() else recipes.get(name).model


@contextmanager
def _quietly():
    """transformers reports every weight that a part does not use; ours are left out on purpose."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def load_image_encoder(name: str, runs_dir: Path) -> ImageEncoder:
    """A frozen image encoder: a Blip2VisionModel's folder (ours, or exported EVA-CLIP) or CLIP by its name."""
    from transformers import Blip2VisionModel

    with _quietly():
        if "clip-vit" in name:
            return freeze(ImageEncoder.from_clip(name))
        return freeze(ImageEncoder(Blip2VisionModel.from_pretrained(resolve(name, runs_dir))))


def load_language_model(name: str, runs_dir: Path, max_text_tokens: int = 32) -> LanguageModel:
    """A frozen language model with its tokenizer. OPT ends a caption with a line break, if its tokenizer knows one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    path = resolve(name, runs_dir)
    with _quietly():
        tokenizer = AutoTokenizer.from_pretrained(path)
        if AutoConfig.from_pretrained(path).is_encoder_decoder:
            model = AutoModelForSeq2SeqLM.from_pretrained(path)
            return EncoderDecoderLanguageModel(model, tokenizer, max_text_tokens=max_text_tokens)
        model = AutoModelForCausalLM.from_pretrained(path)
    line_break = tokenizer("\n", add_special_tokens=False).input_ids
    end = line_break[0] if len(line_break) == 1 and line_break[0] != tokenizer.unk_token_id else None
    return DecoderLanguageModel(model, tokenizer, end_token_id=end, max_text_tokens=max_text_tokens)


def new_stage1(parts: Stage1Parts, image_width: int, runs_dir: Path) -> Stage1Model:
    """A stage-1 model that starts from BERT (section 3.1) and takes its sizes from it. [DEC] is added if it is new."""
    from transformers import AutoTokenizer, BertForMaskedLM

    path = resolve(parts.bert, runs_dir)
    with _quietly():
        bert, tokenizer = BertForMaskedLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    if tokenizer.bos_token_id is None:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    config = QFormerConfig(
        vocab_size=max(len(tokenizer), bert.config.vocab_size),
        width=bert.config.hidden_size,
        num_layers=bert.config.num_hidden_layers,
        num_heads=bert.config.num_attention_heads,
        ffn_width=bert.config.intermediate_size,
        cross_attention_frequency=parts.cross_attention_frequency,
        image_width=image_width,
        num_query_tokens=parts.num_query_tokens,
        max_positions=bert.config.max_position_embeddings,
        dropout=parts.dropout,
        layer_norm_eps=bert.config.layer_norm_eps,
        image_layer_norm_eps=1e-6,  # differs from LAVIS: as in transformers, where what is trained here must be equal
        pad_token_id=tokenizer.pad_token_id,
    )
    stage1 = Stage1Config(
        embed_width=parts.embed_width,
        max_text_tokens=parts.max_text_tokens,
        sep_token_id=tokenizer.sep_token_id,
        decode_token_id=tokenizer.bos_token_id,
    )
    model = Stage1Model(config, stage1, tokenizer=tokenizer)
    model.init_from_bert(bert.state_dict())
    return model


# ------------------------------------------------------------------------------------------------------------- features


def fingerprint(module: nn.Module) -> str:
    """A name for these very weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encoder_of(image_encoder: ImageEncoder):
    """The encoder as a function of pictures -> image_features [B,N,Dv], in bf16, on the fastest device there is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_encoder.to(device)

    def encode(images: Sequence[Image.Image]) -> Tensor:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            return image_encoder(image_encoder.preprocess(images)).cpu()

    return encode


def scene_features(image_encoder: ImageEncoder, data: SceneData, runs_dir: Path) -> tuple[PictureBook, Tensor]:
    """The recipe's scenes and their image_features bf16 [scenes,N,Dv], kept in `runs_dir/features`."""
    if not isinstance(data, SceneData):
        raise ValueError(f"this version trains on the picture book only, not on {data.source}")
    book = PictureBook(data.seed, image_size=image_encoder.image_size, caption=data.caption)
    name = f"{fingerprint(image_encoder)}-{data.seed}-{data.scenes}"
    features = cached_features(
        encoder_of(image_encoder),
        book.image,
        data.scenes,
        path=runs_dir / "features" / f"{name}.bf16",
        fingerprint=name,
    )
    return book, features


class SceneTask:
    """What the stages have in common: batches of cached features with freshly drawn captions."""

    def __init__(self, model: nn.Module, book: PictureBook, features: Tensor, batch_size: int, seed: int) -> None:
        self.model = model
        self.book = book
        self.features = features
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, index: int) -> Batch:
        numbers = batch_indices(index, self.batch_size, len(self.features), self.seed)
        captions = [self.book.one_caption(number, turn=index) for number in numbers]
        return Batch(captions=captions, image_features=self.features[numbers])


# ------------------------------------------------------------------------------------------------------------- stage 1


class Stage1Task(SceneTask):
    """Representation learning (section 3.2). `held_out`: image_features [M,N,Dv] and their full captions."""

    def __init__(self, *arguments, held_out: tuple[Tensor, list[str]]) -> None:
        super().__init__(*arguments)
        self.held_out = held_out

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = self.model.losses(image_features=batch.image_features, captions=batch.captions)
        return {"total": losses.total, "itc": losses.itc, "itm": losses.itm, "itg": losses.itg}

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

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


def build_stage1(recipe: Recipe, runs_dir: Path) -> Stage1Task:
    image_encoder = load_image_encoder(recipe.model.image_encoder, runs_dir)
    book, features = scene_features(image_encoder, recipe.data, runs_dir)
    model = new_stage1(recipe.model, image_encoder.width, runs_dir)
    gallery = PictureBook(VALIDATION_SEED, "in", image_encoder.image_size, caption="full")
    encode = encoder_of(image_encoder)
    pictures = encode([gallery.image(i) for i in range(recipe.data.held_out)])
    captions = [gallery.one_caption(i) for i in range(recipe.data.held_out)]
    seed, batch_size = recipe.seed, recipe.optim.pass_size
    return Stage1Task(model, book, features, batch_size, seed, held_out=(pictures, captions))


# ------------------------------------------------------------------------------------------------------------- stage 2


class Stage2Task(SceneTask):
    """Generative learning from captions (section 3.3). `questions`: (number of the picture, question) to ask of
    `pictures`, image_features [M,N,Dv]; nothing is learned from them."""

    def __init__(self, *arguments, pictures: Tensor, questions: list[tuple[int, words.Question]]) -> None:
        super().__init__(*arguments)
        self.pictures = pictures
        self.questions = questions

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"total": self.model.loss(image_features=batch.image_features, captions=batch.captions)}

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

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


def build_stage2(recipe: Recipe, runs_dir: Path) -> Stage2Task:
    parts: Stage2Parts = recipe.model
    stage1_parts = stage1_parts_of(parts.stage1, runs_dir)
    image_encoder = load_image_encoder(stage1_parts.image_encoder, runs_dir)
    book, features = scene_features(image_encoder, recipe.data, runs_dir)
    encode = encoder_of(image_encoder)
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
    gallery = PictureBook(VALIDATION_SEED, "in", image_encoder.image_size)
    questions = [
        (number, question)
        for number in range(recipe.data.held_out)
        for question in words.questions(gallery.scene(number), Random(f"validation {number}"))
    ]
    pictures = encode([gallery.image(i) for i in range(recipe.data.held_out)])
    seed, batch_size = recipe.seed, recipe.optim.pass_size
    return Stage2Task(model, book, features, batch_size, seed, pictures=pictures, questions=questions)
