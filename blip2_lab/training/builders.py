"""From a recipe to what is trained: frozen parts found by name and loaded, a new Q-Former, the task with its batches.

`build_task` is where to begin; below it stands one builder for each kind of recipe.

Notes:

* A part is found by name: a recipe's name means its run folder, everything else a folder or the hub. EVA-CLIP's ViT-g
  is on no hub: LAVIS's file is fetched, or read from where LAVIS itself would have put it.
* Frozen parts that come from elsewhere take 16 bits on a GPU (section 3.4), as the planner counts them.

Paper: section 3.1 (the Q-Former starts from BERT) and 3.4 (frozen image encoders and language models). Notebook: 08.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from random import Random

import torch

from blip2_lab.checkpoints.catalog import EVA_FILE, EVA_URL, IMAGE_ENCODERS
from blip2_lab.checkpoints.files import check_complete, read_tensors
from blip2_lab.checkpoints.huggingface import MissingHead, check_layout
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys, eva_encoder
from blip2_lab.checkpoints.load import find_model, load, read_stage1
from blip2_lab.checkpoints.memory import default_dtype
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.retrieval import require_stage1
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder, freeze, unfreeze
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import VALIDATION_BOOK
from blip2_lab.training.batches import (
    PictureFeed,
    SceneFeed,
    check_place,
    encoder_of,
    pairs,
    picture_feed,
    scene_features,
)
from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.schema import FineTuneParts, Recipe, Stage1Parts, Stage2Parts, WebData
from blip2_lab.training.tasks import pretraining
from blip2_lab.training.tasks.finetune import CaptionTask, RetrievalTask
from blip2_lab.training.tasks.stage1 import Stage1Task
from blip2_lab.training.tasks.stage2 import Stage2Task
from blip2_lab.training.trainer import Task


def resolve(name: str, runs_dir: Path) -> str:
    """Where a part is: a recipe's finished model, or the name itself (a folder or the hub's)."""
    return str(runs_dir / name / "model") if name in registry.RECIPES else name


def folder_of(name: str, runs_dir: Path) -> Path:
    """The same as a folder; what is not here yet is fetched from the hub. Raises ValueError."""
    return find_model(resolve(name, runs_dir))


def frozen_dtype(name: str, is_encoder_decoder: bool) -> torch.dtype:
    """Of a frozen part: the paper's 16 bits on a GPU; float32 for what a recipe trained (it is small) and on a CPU."""
    device = "cuda" if torch.cuda.is_available() and name not in registry.RECIPES else "cpu"
    return default_dtype(is_encoder_decoder, device, None)


def stage1_parts_of(name: str, runs_dir: Path) -> Stage1Parts:
    """What a stage-1 run was really built from (it may have been started with other settings than its recipe's)."""
    written = runs_dir / name / "recipe.json"
    return Stage1Parts(**json.loads(written.read_text())["model"]) if written.exists() else registry.get(name).model


@contextmanager
def quietly():
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
    """A frozen image encoder: a Blip2VisionModel's folder, CLIP by its name, or EVA-CLIP by its name or its `.pth`."""
    from transformers import Blip2VisionModel

    dtype = frozen_dtype(name, is_encoder_decoder=True)  # bfloat16: `encode_frozen` computes in it
    if name == IMAGE_ENCODERS["vit-g"].hub or Path(name).suffix == ".pth":
        file = Path(name) if Path(name).suffix == ".pth" else eva_file()
        if not file.is_file():
            raise ValueError(f"there is no image encoder in {file}")
        check_complete([file])
        state = drop_unused_eva_keys(dict(read_tensors([file])))
        return freeze(eva_encoder(state, dtype, "cpu"))
    folder = folder_of(name, runs_dir)
    with quietly():
        if "clip-vit" in name:
            return freeze(ImageEncoder.from_clip(folder).to(dtype))
        return freeze(ImageEncoder(Blip2VisionModel.from_pretrained(folder, dtype=dtype)))


def eva_file() -> Path:
    """LAVIS's `eva_vit_g.pth` where LAVIS keeps it, in torch's cache; fetched if it is not there. Raises ValueError."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / EVA_FILE
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(EVA_URL, str(file))  # moved there when it is whole
    except OSError as error:
        raise ValueError(
            f"EVA-CLIP's ViT-g could not be fetched ({error}): get it (2 GB) with `curl -C - -o {file} "
            f"{EVA_URL}`, or say where it is, --set model.image_encoder=FOLDER/{EVA_FILE}"
        ) from None
    return file


def load_language_model(name: str, runs_dir: Path, max_text_tokens: int = 32) -> LanguageModel:
    """A frozen language model with its tokenizer. OPT ends a caption with a line break, if its tokenizer knows one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    path = folder_of(name, runs_dir)
    with quietly():
        tokenizer = AutoTokenizer.from_pretrained(path)
        is_encoder_decoder = AutoConfig.from_pretrained(path).is_encoder_decoder
        dtype = frozen_dtype(name, is_encoder_decoder)
        if is_encoder_decoder:
            model = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=dtype)
            return EncoderDecoderLanguageModel(model, tokenizer, max_text_tokens=max_text_tokens)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    line_break = tokenizer("\n", add_special_tokens=False).input_ids
    end = line_break[0] if len(line_break) == 1 and line_break[0] != tokenizer.unk_token_id else None
    return DecoderLanguageModel(model, tokenizer, end_token_id=end, max_text_tokens=max_text_tokens)


def new_stage1(parts: Stage1Parts, image_width: int, runs_dir: Path) -> Stage1Model:
    """A stage-1 model that starts from BERT (section 3.1) and takes its sizes from it. [DEC] is added if it is new."""
    from transformers import AutoTokenizer, BertForMaskedLM

    path = folder_of(parts.bert, runs_dir)
    with quietly():
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
        gather_with_grad=parts.gather_with_grad,
        sep_token_id=tokenizer.sep_token_id,
        decode_token_id=tokenizer.bos_token_id,
    )
    model = Stage1Model(config, stage1, tokenizer=tokenizer)
    model.init_from_bert(bert.state_dict())
    return model


# ----------------------------------------------------------------------------------- from a recipe to a task


def build_task(recipe: Recipe, runs_dir: str | Path) -> Task:
    """What the trainer trains for this recipe, its frozen parts taken from `runs_dir`."""
    torch.manual_seed(recipe.seed)  # new weights are the same each time: a resumed run replaces them all anyway
    if recipe.task == "stage1":
        return build_stage1(recipe, Path(runs_dir))
    if recipe.task == "stage2":
        return build_stage2(recipe, Path(runs_dir))
    if recipe.task in ("caption", "vqa", "retrieval"):
        return build_fine_tuning(recipe, Path(runs_dir))
    return pretraining.build_task(recipe, Path(runs_dir))


def build_stage1(recipe: Recipe, runs_dir: Path) -> Stage1Task:
    check_place(recipe)
    image_encoder = load_image_encoder(recipe.model.image_encoder, runs_dir)
    feed, held_out = pairs(recipe, image_encoder, runs_dir)
    model = new_stage1(recipe.model, image_encoder.width, runs_dir)
    return Stage1Task(model, feed, image_encoder, held_out=held_out)


def build_stage2(recipe: Recipe, runs_dir: Path) -> Stage2Task | CaptionTask:
    check_place(recipe)
    parts: Stage2Parts = recipe.model
    stage1_parts = stage1_parts_of(parts.stage1, runs_dir)
    image_encoder = load_image_encoder(stage1_parts.image_encoder, runs_dir)
    check_layout(image_encoder)  # now, not when it is trained
    if parts.pretrained:
        stage1 = read_stage1(resolve(parts.stage1, runs_dir))
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
    if isinstance(model.lm_head, MissingHead):
        raise ValueError(f"{parts.start} has no language modeling head, which ITG trains: start from LAVIS's file")
    check_layout(model.image_encoder)
    model.config.max_text_tokens = parts.max_text_tokens
    model.float().requires_grad_(True)
    encoder = (unfreeze if parts.train_image_encoder else freeze)(model.image_encoder)
    feed, held_out = pairs(recipe, encoder, runs_dir)
    if isinstance(feed, PictureFeed):
        _know_the_words(model.tokenizer, feed.texts(), "Salesforce/blip2-itm-vit-g")
    return RetrievalTask(model, feed, encoder, held_out=held_out, layer_decay=parts.layer_decay)


def _matcher(start: str, runs_dir: Path) -> Stage1Model:
    """The stage-1 model that retrieval starts from, with its image encoder: of a stage-1 run, or of a whole model."""
    if isinstance(registry.RECIPES[start].model if start in registry.RECIPES else None, Stage1Parts):
        encoder = load_image_encoder(stage1_parts_of(start, runs_dir).image_encoder, runs_dir)
        return read_stage1(resolve(start, runs_dir), image_encoder=encoder)
    with quietly():
        return require_stage1(load(resolve(start, runs_dir)))


def build_captioning(recipe: Recipe, runs_dir: Path) -> CaptionTask:
    parts: FineTuneParts = recipe.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quietly():
        model = load(resolve(parts.start, runs_dir), device=device)
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
