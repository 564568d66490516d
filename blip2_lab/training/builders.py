"""From a recipe to its task: load the frozen models (loading.py), build a Q-Former, open the data.

`build_task` is where to begin; below it is one builder for each kind of recipe.

Notes:

* Before anything is encoded, the words of your own texts are compared with the tokenizer that has to read or write them
  (training/vocabulary.py).

Paper: section 3.1 (the Q-Former starts from BERT). Notebook: 08.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch

from blip2_lab.checkpoints.huggingface import MissingHead, check_layout
from blip2_lab.checkpoints.load import load
from blip2_lab.common.distributed import is_first_process, number_of_processes
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.bridges import DualEncoder, QFormerBridge
from blip2_lab.models.language_model import (
    EncoderDecoderLanguageModel,
    LanguageModel,
    decoder_layers,
)
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model, with_text
from blip2_lab.models.vision_encoder import ImageEncoder, at_resolution, freeze, unfreeze
from blip2_lab.picturebook import words as words_of_scenes
from blip2_lab.picturebook.scene import VALIDATION_BOOK
from blip2_lab.training.batches import LEFT_OUT, ImageTextBatches, cache_features, open_batches
from blip2_lab.training.bridge_parts import bridge_of, dual_encoder_config
from blip2_lab.training.frozen_features import encode_function
from blip2_lab.training.loading import (
    folder_of,
    hf_logging_off,
    kind_of,
    load_image_encoder,
    load_language_model,
    load_stage1,
    other_kind,
    resolve,
    stage1_parts_of,
)
from blip2_lab.training.lora import add_lora, require_peft, without_unused_text
from blip2_lab.training.recipes.schema import (
    BridgeParts,
    DialogueData,
    FineTuneParts,
    ImageTextData,
    MicroPart,
    Recipe,
    SceneData,
    Stage1Parts,
    Stage2Parts,
)
from blip2_lab.training.scene_batches import DialogueBatches, held_out_scenes, scene_batches
from blip2_lab.training.tasks import own_parts, pretraining
from blip2_lab.training.tasks.dual_encoder import DualEncoderTask
from blip2_lab.training.tasks.finetune import CaptionTask, RetrievalTask
from blip2_lab.training.tasks.instruction import InstructionTask
from blip2_lab.training.tasks.stage1 import Stage1Task
from blip2_lab.training.tasks.stage2 import Stage2Task
from blip2_lab.training.trainer import Task
from blip2_lab.training.vocabulary import Coverage, UsableTexts, check_coverage, word_coverage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODEBOOK_IMAGES = 500  #: whose features the codes of a dual encoder are fitted to
TEXT_ENCODER, LANGUAGE_MODEL = "the text encoder", "the language model"  #: parts, as messages name them


def new_stage1(parts: Stage1Parts, image_width: int, runs_dir: Path) -> Stage1Model:
    """A stage-1 model initialized from BERT (section 3.1), with BERT's sizes. [DEC] is added if it is missing."""
    from transformers import AutoTokenizer, BertForMaskedLM

    path = folder_of(parts.bert, runs_dir)
    if (kind := kind_of(path)) != "bert":
        raise ValueError(other_kind(parts.bert, kind, "a text encoder", "a BERT, from which the Q-Former starts"))
    with hf_logging_off():
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
        # differs from LAVIS: transformers' value, so that models trained here give the same numbers there
        image_layer_norm_eps=1e-6,
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


def _start(task: Task, recipe: Recipe, runs_dir: Path) -> Task:
    """The task of a frozen part, with the weights of `model.start`, if there is one."""
    if not recipe.model.start:
        return task
    if recipe.task != "t5":
        raise ValueError(f"model.start is for a T5, and {recipe.name} trains a part of another kind: leave it out")
    start = load_language_model(recipe.model.start, runs_dir)
    trained, new = start.model.state_dict(), task.model.state_dict()
    shapes, start_shapes = ({name: tensor.shape for name, tensor in state.items()} for state in (new, trained))
    # "<image>" is added at the end when a language model becomes a part of a BLIP-2
    same_words = task.tokenizer.get_vocab().items() <= start.tokenizer.get_vocab().items()
    if shapes != start_shapes or not same_words:
        raise ValueError(f"{recipe.model.start} has another size or vocabulary than {recipe.name}")
    task.model.load_state_dict(trained)
    return task


def build_task(recipe: Recipe, runs_dir: str | Path, batches: ImageTextBatches | None = None) -> Task:
    """The task of this recipe; its frozen models are read from `runs_dir`. `batches`: of `open_batches`, where the
    recipe's own images are open already."""
    torch.manual_seed(recipe.seed)  # reproducible initialization; a resumed run overwrites it
    runs_dir = Path(runs_dir)
    if isinstance(recipe.model, MicroPart) and isinstance(recipe.data, ImageTextData):
        check_recipe(recipe)
        return _start(own_parts.build_task(recipe, batches or open_batches(recipe, runs_dir)), recipe, runs_dir)
    if recipe.task not in ("stage1", "stage2", "caption", "vqa", "retrieval"):
        return _start(pretraining.build_task(recipe, runs_dir), recipe, runs_dir)
    check_recipe(recipe)
    if isinstance(recipe.data, ImageTextData) and batches is None:
        batches = open_batches(recipe, runs_dir)
    if recipe.task == "stage1":
        build = build_dual_encoder if isinstance(recipe.model, BridgeParts) else build_stage1
        return build(recipe, runs_dir, batches)
    if recipe.task == "stage2":
        build = build_bridge if isinstance(recipe.model, BridgeParts) else build_stage2
        return build(recipe, runs_dir, batches)
    return (build_retrieval if recipe.task == "retrieval" else build_captioning)(recipe, runs_dir, batches)


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError for a recipe that cannot be trained as it is. Called before any download."""
    parts, data = recipe.model, recipe.data
    if isinstance(parts, BridgeParts):
        _check_bridge(recipe)
    if isinstance(parts, FineTuneParts) and parts.question_in_qformer and recipe.task != "vqa":
        raise ValueError(
            f"{recipe.name} learns no answers, so the Q-Former has no question to read: leave out "
            "model.question_in_qformer, or train micro-vqa"
        )
    if recipe.lora is not None and recipe.lora.rank:
        require_peft()
        _check_lora(recipe)
    if isinstance(data, ImageTextData) and not data.path:
        raise ValueError(f"{recipe.name} trains on {data.source}: say where they are, --on FOLDER or --on sources.toml")
    cached = not isinstance(data, ImageTextData) or data.cached_views
    if isinstance(parts, FineTuneParts) and parts.train_image_encoder and cached:
        raise ValueError(
            "the features of an image encoder that trains cannot be cached: --set data.cached_views=0, or "
            "model.train_image_encoder=false"
        )


def _check_lora(recipe: Recipe) -> None:
    parts, targets = recipe.model, recipe.lora.targets
    if recipe.optim.shard:
        raise ValueError(
            "optim.shard=true gathers all layers of a model with LoRA at once, and so saves no memory: "
            "leave it out, or use optim.checkpoint_layers=true"
        )
    if recipe.task == "retrieval" and targets == "language_model":
        raise ValueError(f"{recipe.name} has no language model: lora.targets=qformer")
    if isinstance(parts, Stage2Parts) and not parts.pretrained and targets != "language_model":
        raise ValueError(
            "a Q-Former that starts from BERT has untrained cross-attention, which LoRA would freeze: "
            "lora.targets=language_model, or model.pretrained=true"
        )
    if isinstance(parts, BridgeParts) and parts.train_language_model:
        raise ValueError("model.train_language_model=true trains the whole model, LoRA a part of it: leave one out")
    if isinstance(parts, BridgeParts) and targets != "language_model":
        raise ValueError("a new bridge has learned nothing that LoRA could keep: lora.targets=language_model")


def _check_bridge(recipe: Recipe) -> None:
    parts, data = recipe.model, recipe.data
    is_dual = parts.bridge == "dual_encoder"
    if is_dual != (recipe.task == "stage1"):
        wrong = "is trained by ITC and ITM" if is_dual else "is trained by generating text"
        raise ValueError(f"{parts.bridge} {wrong}: start from {'micro-dual-encoder' if is_dual else 'micro-linear'}")
    if is_dual and (parts.train_language_model or parts.train_vision_layers or parts.start):
        what = f"{recipe.name} can be planned (blip2-lab plan {recipe.name})"
        raise ValueError(f"{what}; a dual encoder is trained here from new heads, with both encoders frozen")
    if is_dual and number_of_processes() > 1:
        raise ValueError("a dual encoder is trained by one process: ITC compares the pairs of a whole batch")
    if parts.train_vision_layers and (isinstance(data, SceneData) or getattr(data, "cached_views", 0)):
        raise ValueError(
            "the features of an image encoder that trains cannot be cached: train on pixels (data.cached_views=0, or "
            "dialogues, as micro-gated-instruct does), or --set model.train_vision_layers=0"
        )


def check_words(
    batches: ImageTextBatches,
    tokenizer: PreTrainedTokenizerBase,
    part: str,
    max_text_tokens: int,
    ways_out: str,
    file: Path,
) -> dict[str, Coverage]:
    """What the tokenizer of `part` knows of the texts, by the part's name. Texts that it mostly does not know
    are left out and named in `file`.

    Raises ValueError if too many words are unknown; `ways_out` says what to do about it.
    """
    coverage = _coverage(batches, tokenizer, part, max_text_tokens, ways_out)
    batches.keep_usable(UsableTexts(tokenizer), file if is_first_process() else None)
    return {part: coverage}


def _coverage(
    batches: ImageTextBatches, tokenizer: PreTrainedTokenizerBase, part: str, max_text_tokens: int, ways_out: str
) -> Coverage:
    """`word_coverage` of the texts; prints its note, raises its ValueError."""
    if tokenizer is None:
        raise ValueError(f"{part} that training starts from has no tokenizer, so it cannot read texts")
    coverage = word_coverage(tokenizer, batches.texts(), max_text_tokens)
    place = batches.data.path
    if place and os.path.exists(place):  # not an address
        ways_out += f", or make every part from your words (blip2-lab train own --on {shlex.quote(place)})"
    note = check_coverage(coverage, part, batches.data.unknown_words, ways_out)
    if note and is_first_process():
        print(f"note: {note}", flush=True)
    return coverage


def build_stage1(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches | None) -> Stage1Task:
    image_encoder = load_image_encoder(recipe.model.image_encoder, runs_dir)
    model = new_stage1(recipe.model, image_encoder.width, runs_dir)
    if batches is None:
        scenes = scene_batches(recipe, image_encoder, runs_dir, recipe.data.hard_batches_from)
        return Stage1Task(model, scenes, image_encoder, held_out=held_out_scenes(image_encoder, recipe.data.held_out))
    words = _check_stage1_words(recipe, model, batches, runs_dir, "--set model.bert=FOLDER|NAME")
    cache_features(batches, image_encoder, runs_dir)
    return Stage1Task(model, batches, image_encoder, held_out=batches.validation(), words=words)


def _check_stage1_words(
    recipe: Recipe, model: Stage1Model, batches: ImageTextBatches, runs_dir: Path, way: str
) -> dict[str, Coverage]:
    ways_out = f"Start from a text encoder that knows your words ({way})"
    file = runs_dir / recipe.name / LEFT_OUT
    return check_words(batches, model.tokenizer, TEXT_ENCODER, recipe.model.max_text_tokens, ways_out, file)


def build_stage2(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches | None) -> Stage2Task | CaptionTask:
    build = _new_stage2 if recipe.model.start is None else _stage2_to_train_on
    model = build(recipe.model, runs_dir)
    add_lora(model, recipe.lora)
    return _stage2_task(recipe, model, runs_dir, batches)


def _stage2_to_train_on(parts: Stage2Parts, runs_dir: Path) -> Stage2Model:
    """The model of `start` with this language model in place of its own. Raises ValueError if it does not fit."""
    model = _model_to_train_on(parts.start, runs_dir)
    if not isinstance(model.bridge, QFormerBridge):
        raise ValueError(f"the bridge of {parts.start} is no Q-Former, so stage 2 cannot go on from it")
    model.language_model = _language_model_to_train_through(parts, runs_dir)
    if model.bridge.language_width != model.language_model.width:
        raise ValueError(f"{parts.start} prompts a language model of another width than {parts.language_model}")
    model.bridge.float().requires_grad_(True)
    return model


def _new_stage2(parts: Stage2Parts, runs_dir: Path) -> Stage2Model:
    if parts.pretrained:
        stage1 = load_stage1(parts.stage1, runs_dir)
        image_encoder = stage1.image_encoder
    else:
        stage1_parts = stage1_parts_of(parts.stage1, runs_dir)
        image_encoder = load_image_encoder(stage1_parts.image_encoder, runs_dir)
        stage1 = new_stage1(stage1_parts, image_encoder.width, runs_dir)
    check_layout(image_encoder)  # before training, not when the model is saved
    language_model = _language_model_to_train_through(parts, runs_dir)
    model = Stage2Model.from_stage1(stage1, image_encoder, language_model)
    if parts.pretrained:
        model.attach_stage1(stage1)  # saved with the model, for matching and retrieval
    return model


def build_bridge(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches | None) -> Stage2Task | CaptionTask:
    """Stage 2 with another bridge than a Q-Former from stage 1."""
    parts: BridgeParts = recipe.model
    if parts.start is not None:
        model = _second_phase(parts, runs_dir)
    else:
        image_encoder = _image_encoder_at(parts, runs_dir)
        language_model = _language_model_to_train_through(parts, runs_dir)
        layers = len(decoder_layers(language_model.model))
        bridge = bridge_of(parts, image_encoder.width, language_model.width, layers)
        model = Stage2Model(image_encoder, bridge, language_model)
    if parts.train_language_model:
        model.language_model.model.float().requires_grad_(True)
    if parts.train_vision_layers:
        layers = model.image_encoder.model.encoder.layers
        if parts.train_vision_layers > len(layers):
            raise ValueError(
                f"model.train_vision_layers is {parts.train_vision_layers}; this image encoder has {len(layers)} layers"
            )
        layers[-parts.train_vision_layers :].float().requires_grad_(True)
    add_lora(model, recipe.lora)
    if isinstance(recipe.data, DialogueData):
        return _instruction_task(recipe, model)
    return _stage2_task(recipe, model, runs_dir, batches)


def _image_encoder_at(parts: BridgeParts, runs_dir: Path) -> ImageEncoder:
    """The frozen image encoder of these parts, at their resolution."""
    image_encoder = load_image_encoder(parts.image_encoder, runs_dir)
    check_layout(image_encoder)
    return image_encoder if parts.image_size is None else at_resolution(image_encoder, parts.image_size)


def _model_to_train_on(name: str, runs_dir: Path) -> Stage2Model:
    with hf_logging_off():
        model = load(resolve(name, runs_dir), device="cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(model, Stage2Model):
        raise ValueError(f"{name} has no language model that answers, so its training cannot go on here")
    return model


def _second_phase(parts: BridgeParts, runs_dir: Path) -> Stage2Model:
    """The model of the first phase, its bridge trained. Raises ValueError if its bridge has other sizes."""
    model = _model_to_train_on(parts.start, runs_dir)
    layers = len(decoder_layers(model.language_model.model))
    with torch.device("meta"):
        wanted = bridge_of(parts, model.image_encoder.width, model.language_model.width, layers)
    if wanted.config != model.bridge.config:
        raise ValueError(
            f"the bridge of {parts.start} is {model.bridge.config}, and this recipe's is {wanted.config}: go on with "
            "the same bridge"
        )
    model.language_model.max_text_tokens = parts.max_text_tokens
    model.bridge.float().requires_grad_(True)
    if not torch.cuda.is_available():  # see `_language_model_to_train_through`
        model.language_model.model.set_attn_implementation("eager")
    return model


def _instruction_task(recipe: Recipe, model: Stage2Model) -> InstructionTask:
    encoder, data, optim = model.image_encoder, recipe.data, recipe.optim
    book = PictureBook(data.seed, image_size=encoder.image_size)
    batches = DialogueBatches(book, data, optim.pass_size, recipe.seed, parts=optim.parts)
    gallery, questions = _held_out_questions(encoder, data.held_out)
    pixels = encoder.preprocess([gallery.image(number) for number in range(data.held_out)])
    return InstructionTask(model, batches, encoder, pixels=pixels, questions=questions)


def _held_out_questions(
    encoder: ImageEncoder, count: int
) -> tuple[PictureBook, list[tuple[int, words_of_scenes.Question]]]:
    """Scenes of another book than the one that is trained on, and (number of the scene, question) about them."""
    gallery = PictureBook(VALIDATION_BOOK, "in", encoder.image_size)
    asked = [
        (number, question)
        for number in range(count)
        for question in words_of_scenes.questions(gallery.scene(number), Random(f"validation {number}"))
    ]
    return gallery, asked


def build_dual_encoder(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches | None) -> DualEncoderTask:
    """Two frozen encoders, the text encoder made from a decoder, and new heads and fusion blocks."""
    parts: BridgeParts = recipe.model
    image_encoder = _image_encoder_at(parts, runs_dir)
    language_model = _language_model_to_train_through(parts, runs_dir)
    config = dual_encoder_config(parts, image_encoder.width, language_model.width)
    model = DualEncoder(config, image_encoder, language_model)
    if batches is None:
        scenes = scene_batches(recipe, image_encoder, runs_dir, recipe.data.hard_batches_from)
        held_out, words = held_out_scenes(image_encoder, recipe.data.held_out), None
        first = scenes.features[range(min(CODEBOOK_IMAGES, len(scenes.features)))]
    else:
        way = "--set model.language_model=FOLDER|NAME"
        words = _check_language_model_words(recipe, language_model, batches, runs_dir, way)
        cache_features(batches, image_encoder, runs_dir)
        scenes, held_out = batches, batches.validation()
        first = None
        if parts.num_codes is not None:
            first = DualEncoderTask(model, batches, image_encoder, held_out=None).features(batches.batch(0))
    if parts.num_codes is not None:  # before training, and the same when a run is resumed
        model.fit_codebook(first)
    return DualEncoderTask(model, scenes, image_encoder, held_out=held_out, words=words)


def _language_model_to_train_through(parts: Stage2Parts | BridgeParts, runs_dir: Path) -> LanguageModel:
    language_model = load_language_model(parts.language_model, runs_dir, parts.max_text_tokens)
    if not torch.cuda.is_available():  # on a CPU, the backward of fused attention makes a step a third slower
        language_model.model.set_attn_implementation("eager")
    return language_model


def _stage2_task(
    recipe: Recipe, model: Stage2Model, runs_dir: Path, batches: ImageTextBatches | None
) -> Stage2Task | CaptionTask:
    image_encoder, parts = model.image_encoder, recipe.model
    is_new = parts.start is None  # else it has learned its length
    scale = model.match_embeddings() if parts.match_embeddings and is_new else 1.0
    if batches is not None:
        way = "--set model.language_model=FOLDER|NAME"
        words = _check_language_model_words(recipe, model.language_model, batches, runs_dir, way)
        cache_features(batches, image_encoder, runs_dir)
        options = dict(held_out=batches.validation(), words=words, seed=recipe.seed, projection_lr_scale=scale)
        return CaptionTask(model, batches, image_encoder, prompt=None, **options)
    scenes = scene_batches(recipe, image_encoder, runs_dir)
    gallery, questions = _held_out_questions(image_encoder, recipe.data.held_out)
    image_features = encode_function(image_encoder)([gallery.image(i) for i in range(recipe.data.held_out)])
    return Stage2Task(
        model, scenes, image_encoder, image_features=image_features, questions=questions, projection_lr_scale=scale
    )


def _check_language_model_words(
    recipe: Recipe, language_model: LanguageModel, batches: ImageTextBatches, runs_dir: Path, way: str
) -> dict[str, Coverage]:
    limit = recipe.model.max_text_tokens
    if batches.data.text == "questions" and isinstance(language_model, EncoderDecoderLanguageModel):
        _say_cut_prompts(language_model, batches, limit)
    ways_out = f"Start from a language model that knows your words ({way})"
    file = runs_dir / recipe.name / LEFT_OUT
    return check_words(batches, language_model.tokenizer, LANGUAGE_MODEL, limit, ways_out, file)


def _say_cut_prompts(language_model: EncoderDecoderLanguageModel, batches: ImageTextBatches, limit: int) -> None:
    """Print how many questions lose the end of their prompt. (A decoder reads prompts whole.)"""
    prompts = [language_model.question_prompt.format(question) for question in batches.questions()]
    if language_model.tokenizer is None or not prompts:
        return
    count, longest = language_model.count_cut(prompts, limit)
    if count and is_first_process():
        print(
            f"note: {count} of {len(prompts)} questions with their form ({language_model.question_prompt!r}) have more "
            f"than {limit} tokens, and their ends are cut: --set model.max_text_tokens={longest} keeps them whole",
            flush=True,
        )


def build_retrieval(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches | None) -> RetrievalTask:
    parts: FineTuneParts = recipe.model
    model = load_stage1(parts.start, runs_dir)
    if isinstance(model.lm_head, MissingHead):
        raise ValueError(f"{parts.start} has no language modeling head, which ITG trains: start from LAVIS's file")
    check_layout(model.image_encoder)
    model.config.max_text_tokens = parts.max_text_tokens
    model.float().requires_grad_(True)
    encoder = (unfreeze if parts.train_image_encoder else freeze)(model.image_encoder)
    add_lora(model, recipe.lora)
    words = None
    if batches is None:
        batches = scene_batches(recipe, encoder, runs_dir, recipe.data.hard_batches_from)
        held_out = held_out_scenes(encoder, recipe.data.held_out)
    else:
        way = "LAVIS's blip2_pretrained.pth: --set model.start=FILE"
        words = _check_stage1_words(recipe, model, batches, runs_dir, way)
        cache_features(batches, encoder, runs_dir)
        held_out = batches.validation()
    return RetrievalTask(model, batches, encoder, held_out=held_out, layer_decay=parts.layer_decay, words=words)


def build_captioning(recipe: Recipe, runs_dir: Path, batches: ImageTextBatches) -> CaptionTask:
    parts: FineTuneParts = recipe.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with hf_logging_off():
        model = load(resolve(parts.start, runs_dir), device=device)
    if not isinstance(model, Stage2Model):
        raise ValueError(f"{parts.start} has no language model, so it cannot learn to write captions")
    if parts.question_in_qformer:
        model = _with_questions(model, parts, runs_dir)
    if model.reads_questions:
        model.max_question_tokens = min(parts.max_text_tokens, model.qformer.config.max_positions)
    model.language_model.max_text_tokens = parts.max_text_tokens
    if device == "cpu":
        model.language_model.model.set_attn_implementation("eager")  # see build_stage2
    trained = [model.bridge]
    if parts.train_image_encoder:
        trained.append(unfreeze(model.image_encoder))
    for module in trained:  # small AdamW updates are rounded away in 16 bits; autocast still computes in 16 bits
        module.float().requires_grad_(True)
    add_lora(model, recipe.lora)
    way = "--set model.start=Salesforce/blip2-opt-2.7b"
    words = {}
    if model.reads_questions:
        without_unused_text(model.qformer)
        way_of_text = "Take the text side of another stage 1 (--set model.text_from=FOLDER|NAME)"
        text = (model.question_tokenizer, TEXT_ENCODER, parts.max_text_tokens, way_of_text)
        words[TEXT_ENCODER] = _coverage(batches, *text)
    words |= _check_language_model_words(recipe, model.language_model, batches, runs_dir, way)
    cache_features(batches, model.image_encoder, runs_dir)
    return CaptionTask(
        model,
        batches,
        model.image_encoder,
        prompt=parts.prompt,
        held_out=batches.validation(),
        layer_decay=parts.layer_decay,
        words=words,
        seed=recipe.seed,
    )


def _with_questions(model: Stage2Model, parts: FineTuneParts, runs_dir: Path) -> Stage2Model:
    """The model with a Q-Former that reads questions: as it is, or with the text side of a stage 1 (Figure 7)."""
    if model.reads_questions and not parts.text_from:
        return model
    stage1 = load_stage1(parts.text_from, runs_dir) if parts.text_from else model.stage1
    if stage1 is None:
        raise ValueError(
            f"{parts.start} has no stage 1 beside it, from which its Q-Former gets a text side: name one, --set "
            "model.text_from=Salesforce/blip2-itm-vit-g, or LAVIS's blip2_pretrained.pth"
        )
    return with_text(model, stage1)
