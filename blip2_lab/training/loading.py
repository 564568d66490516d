"""Find and load the models that a recipe names: image encoder, language model, stage 1.

`folder_of` is where to begin; below it is one loader for each kind of model.

Notes:

* A model is found by name: that of a recipe or of a run means its run folder; a path is a run's or a model's folder;
  any other name is a model of the Hugging Face hub. EVA-CLIP's ViT-g is not on the hub: LAVIS's file is downloaded, or
  read from where LAVIS stores it.
* Frozen models from elsewhere are loaded in 16 bits on a GPU (section 3.4); the planner counts them the same way.

Paper: section 3.4 (frozen image encoders and language models). Notebook: 08.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch

from blip2_lab.checkpoints.catalog import EVA_FILE, EVA_URL, IMAGE_ENCODERS
from blip2_lab.checkpoints.files import check_complete, read_tensors
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys, eva_encoder
from blip2_lab.checkpoints.load import find_model, is_stage1_folder, load, read_stage1
from blip2_lab.checkpoints.memory import default_dtype
from blip2_lab.common.console import did_you_mean
from blip2_lab.common.files import read_object
from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.models.retrieval import require_stage1
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.vision_encoder import ImageEncoder, freeze
from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.schema import Stage1Parts

BLIP2, STAGE1 = "blip-2", "stage 1"  #: kinds of a model that are not transformers' types


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
    kind = kind_of(folder)
    if kind == STAGE1:  # its image encoder, which its run's recipe names
        return freeze(load_stage1(name, runs_dir).image_encoder.to(dtype))
    with hf_logging_off():
        if kind == BLIP2:  # a whole model: its image encoder
            return freeze(load(folder).image_encoder.to(dtype))
        if kind.startswith("clip"):
            return freeze(ImageEncoder.from_clip(folder).to(dtype))
        if kind != "blip_2_vision_model":
            raise ValueError(other_kind(name, kind, "an image encoder", "CLIP, a run of own-vit, or a BLIP-2"))
        return freeze(ImageEncoder(Blip2VisionModel.from_pretrained(folder, dtype=dtype)))


def kind_of(folder: Path) -> str:
    """What a folder holds: transformers' model type, or `STAGE1` for a stage-1 model of this package."""
    if not folder.is_dir():
        return "LAVIS file"
    if is_stage1_folder(folder):
        return STAGE1
    return str(read_object(folder / "config.json", remedy="copy it again").get("model_type"))


def other_kind(name: str, kind: str, wanted: str, known: str) -> str:
    """What is said of a model that is not of the wanted kind."""
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
    kind = kind_of(path)
    if kind == BLIP2:  # a whole model: its language model
        with hf_logging_off():
            language_model = getattr(load(path), "language_model", None)
        if language_model is None:
            raise ValueError(f"{name} has no language model: give a BLIP-2 that generates, or a language model")
        language_model.max_text_tokens = max_text_tokens
        return language_model
    if kind in (STAGE1, "bert", "blip_2_vision_model") or kind.startswith("clip"):
        raise ValueError(other_kind(name, kind, "a language model", "a T5, an OPT, or a BLIP-2"))
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
