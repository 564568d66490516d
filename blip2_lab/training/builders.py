"""From a recipe to its task: load the frozen models, build a Q-Former, open the data.

`build_task` is where to begin; below it is one builder for each kind of recipe.

Notes:

* A model is found by name: that of a recipe or of a run means its run folder; a path is a run's or a model's folder;
  any other name is a model of the Hugging Face hub. EVA-CLIP's ViT-g is not on the hub: LAVIS's file is downloaded, or
  read from where LAVIS stores it.
* Before anything is encoded, the words of your own texts are compared with the tokenizer that has to read or write them
  (training/vocabulary.py).
* Frozen models from elsewhere are loaded in 16 bits on a GPU (section 3.4); the planner counts them the same way.

Paper: section 3.1 (the Q-Former starts from BERT) and 3.4 (frozen image encoders and language models). Notebook: 08.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch

from blip2_lab.checkpoints.catalog import EVA_FILE, EVA_URL, IMAGE_ENCODERS
from blip2_lab.checkpoints.files import check_complete, read_tensors
from blip2_lab.checkpoints.huggingface import MissingHead, check_layout
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys, eva_encoder
from blip2_lab.checkpoints.load import find_model, is_stage1_folder, load, read_stage1
from blip2_lab.checkpoints.memory import default_dtype
from blip2_lab.common.console import did_you_mean
from blip2_lab.common.distributed import is_first_process, number_of_processes
from blip2_lab.common.files import read_object
from blip2_lab.data.scenes import PictureBook
from blip2_lab.models.bridges import DualEncoder, QFormerBridge
from blip2_lab.models.language_model import (
    DecoderLanguageModel,
    EncoderDecoderLanguageModel,
    LanguageModel,
    decoder_layers,
)
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.retrieval import require_stage1
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.stage2 import Stage2Model, with_text
from blip2_lab.models.vision_encoder import ImageEncoder, at_resolution, freeze, unfreeze
from blip2_lab.picturebook import words as words_of_scenes
from blip2_lab.picturebook.scene import VALIDATION_BOOK
from blip2_lab.training.batches import (
    LEFT_OUT,
    DialogueBatches,
    ImageTextBatches,
    cache_features,
    encode_function,
    held_out_scenes,
    open_batches,
    scene_batches,
)
from blip2_lab.training.bridge_parts import bridge_of, dual_encoder_config
from blip2_lab.training.lora import add_lora, require_peft, without_unused_text
from blip2_lab.training.recipes import registry
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


def resolve(name: str, runs_dir: Path) -> str:
    """The location of a model: the finished model of a recipe or of a run (its name in `runs_dir`, or its path), or
    the name itself (a model's folder or a name of the hub). Raises ValueError for a run without a finished model."""
    if name in registry.RECIPES:
        return str(runs_dir / name / "model")
    for run in (runs_dir / name, Path(name).expanduser()):
        if (run / "model" / "config.json").is_file() and not (run / "config.json").is_file():
            return str(run / "model")
        if (run / "run.json").is_file():
            raise ValueError(f"{run} is a run without a finished model: train it to its end first")
    if "/" not in name and not Path(name).exists() and (near := did_you_mean(name, registry.RECIPES, cutoff=0.8)):
        raise ValueError(f"there is no recipe, run or model {name!r}{near}")
    return name


def folder_of(name: str, runs_dir: Path) -> Path:
    """The same as a folder, downloaded from the hub if needed. Raises ValueError."""
    return find_model(resolve(name, runs_dir))


def frozen_dtype(name: str, is_encoder_decoder: bool) -> torch.dtype:
    """The dtype of a frozen model: the paper's 16 bits on a GPU; float32 on a CPU or for a recipe's own model."""
    device = "cuda" if torch.cuda.is_available() and name not in registry.RECIPES else "cpu"
    return default_dtype(is_encoder_decoder, device, None)


def stage1_parts_of(name: str, runs_dir: Path) -> Stage1Parts:
    """The `Stage1Parts` of a stage-1 run, read from its folder: its settings may differ from the recipe's.

    Raises ValueError for a model that no run's folder describes.
    """
    written = Path(resolve(name, runs_dir)).parent / "recipe.json"
    if written.is_file() and isinstance(model := read_object(written).get("model"), dict):
        known = {field.name for field in fields(Stage1Parts)}
        if {"image_encoder", "bert"} <= model.keys() <= known:
            return Stage1Parts(**model)
    if isinstance(registry.RECIPES[name].model if name in registry.RECIPES else None, Stage1Parts):
        return registry.get(name).model
    raise ValueError(f"{name} is no run of stage 1: {written} does not say from which image encoder and BERT it starts")


def load_stage1(name: str, runs_dir: Path) -> Stage1Model:
    """A trained stage 1 with its image encoder: of a run, or of a complete model (a folder, LAVIS's file, the hub)."""
    path = folder_of(name, runs_dir)
    if path.is_dir() and is_stage1_folder(path):  # without its frozen image encoder, which its run's recipe names
        parts = stage1_parts_of(name if name in registry.RECIPES else str(path.parent), runs_dir)
        runs_of_it = runs_dir if name in registry.RECIPES else path.parent.parent
        return read_stage1(path, image_encoder=load_image_encoder(parts.image_encoder, runs_of_it))
    with hf_logging_off():
        return require_stage1(load(path))


@contextmanager
def hf_logging_off():
    """Silence transformers' logging: it reports unused weights, which are left out here on purpose."""
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
    kind = _kind(folder)
    if kind == STAGE1:  # its image encoder, which its run's recipe names
        return freeze(load_stage1(name, runs_dir).image_encoder.to(dtype))
    with hf_logging_off():
        if kind == BLIP2:  # a whole model: its image encoder
            return freeze(load(folder).image_encoder.to(dtype))
        if kind.startswith("clip"):
            return freeze(ImageEncoder.from_clip(folder).to(dtype))
        if kind != "blip_2_vision_model":
            raise ValueError(_other_kind(name, kind, "an image encoder", "CLIP, a run of own-vit, or a BLIP-2"))
        return freeze(ImageEncoder(Blip2VisionModel.from_pretrained(folder, dtype=dtype)))


BLIP2, STAGE1 = "blip-2", "stage 1"


def _kind(folder: Path) -> str:
    """What a folder holds: transformers' model type, or `STAGE1` for a stage-1 model of this package."""
    if not folder.is_dir():
        return "LAVIS file"
    if is_stage1_folder(folder):
        return STAGE1
    return str(read_object(folder / "config.json", remedy="copy it again").get("model_type"))


def _other_kind(name: str, kind: str, wanted: str, known: str) -> str:
    return f"{name} is no {wanted.partition(' ')[2]}: its type is {kind!r}, and {wanted} is wanted ({known})"


def eva_file() -> Path:
    """LAVIS's `eva_vit_g.pth` in torch's cache, where LAVIS stores it; downloaded if missing. Raises ValueError."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / EVA_FILE
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(EVA_URL, str(file))  # moved into place after a complete download
    except OSError as error:
        raise ValueError(
            f"EVA-CLIP's ViT-g could not be fetched ({error}): get it (2 GB) with `curl -C - -o {file} "
            f"{EVA_URL}`, or give its place with --set model.image_encoder=FOLDER/{EVA_FILE}"
        ) from None
    return file


def load_language_model(name: str, runs_dir: Path, max_text_tokens: int = 32) -> LanguageModel:
    """A frozen language model with its tokenizer. OPT ends a caption with a line break, if its tokenizer has one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    path = folder_of(name, runs_dir)
    kind = _kind(path)
    if kind == BLIP2:  # a whole model: its language model
        with hf_logging_off():
            language_model = getattr(load(path), "language_model", None)
        if language_model is None:
            raise ValueError(f"{name} has no language model: give a BLIP-2 that generates, or a language model")
        language_model.max_text_tokens = max_text_tokens
        return language_model
    if kind in (STAGE1, "bert", "blip_2_vision_model") or kind.startswith("clip"):
        raise ValueError(_other_kind(name, kind, "a language model", "a T5, an OPT, or a BLIP-2"))
    with hf_logging_off():
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
    """A stage-1 model initialized from BERT (section 3.1), with BERT's sizes. [DEC] is added if it is missing."""
    from transformers import AutoTokenizer, BertForMaskedLM

    path = folder_of(parts.bert, runs_dir)
    if (kind := _kind(path)) != "bert":
        raise ValueError(_other_kind(parts.bert, kind, "a text encoder", "a BERT, from which the Q-Former starts"))
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
    count, longest = language_model.cut_prompts(prompts, limit)
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
