"""The parts a stage is built from, found by name and loaded; a new Q-Former that starts from BERT.

What is unusual about it:

* A part is found by name: a recipe's name means its run folder, everything else a folder or the hub. EVA-CLIP's ViT-g
  is on no hub: LAVIS's file is fetched, or read from where LAVIS itself would have put it.
* Frozen parts that come from elsewhere take 16 bits on a GPU (section 3.4), as the planner counts them.
* A frozen part has a fingerprint, made from its weights: features of one encoder can never be taken for another's.

Paper: section 3.1 (the Q-Former starts from BERT) and 3.4 (frozen image encoders and language models). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from blip2_lab import lavis_files, model_zoo, pretrained, recipes, weights
from blip2_lab.language import DecoderLanguageModel, EncoderDecoderLanguageModel, LanguageModel
from blip2_lab.optim import bf16_is_fast
from blip2_lab.paper import IMAGE_ENCODERS
from blip2_lab.qformer import QFormerConfig
from blip2_lab.settings import Stage1Parts
from blip2_lab.stage1 import Stage1Config, Stage1Model
from blip2_lab.vision import ImageEncoder, freeze


def resolve(name: str, runs_dir: Path) -> str:
    """Where a part is: a recipe's finished model, or the name itself (a folder or the hub's)."""
    return str(runs_dir / name / "model") if name in recipes.RECIPES else name


def folder_of(name: str, runs_dir: Path) -> Path:
    """The same as a folder; what is not here yet is fetched from the hub. Raises ValueError."""
    return pretrained.find(resolve(name, runs_dir))


def frozen_dtype(name: str, is_encoder_decoder: bool) -> torch.dtype:
    """Of a frozen part: the paper's 16 bits on a GPU; float32 for what a recipe trained (it is small) and on a CPU."""
    device = "cuda" if torch.cuda.is_available() and name not in recipes.RECIPES else "cpu"
    return model_zoo.default_dtype(is_encoder_decoder, device, None)


def stage1_parts_of(name: str, runs_dir: Path) -> Stage1Parts:
    """What a stage-1 run was really built from (it may have been started with other settings than its recipe's)."""
    written = runs_dir / name / "recipe.json"
    return Stage1Parts(**json.loads(written.read_text())["model"]) if written.exists() else recipes.get(name).model


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
    if name == IMAGE_ENCODERS["vit-g"][0] or Path(name).suffix == ".pth":
        file = Path(name) if Path(name).suffix == ".pth" else eva_file()
        if not file.is_file():
            raise ValueError(f"there is no image encoder in {file}")
        weights.check_whole([file])
        state = lavis_files.kept_of_eva(dict(weights.read_tensors([file])))
        return freeze(lavis_files.eva_encoder(state, dtype, "cpu"))
    folder = folder_of(name, runs_dir)
    with quietly():
        if "clip-vit" in name:
            return freeze(ImageEncoder.from_clip(folder).to(dtype))
        return freeze(ImageEncoder(Blip2VisionModel.from_pretrained(folder, dtype=dtype)))


def eva_file() -> Path:
    """LAVIS's `eva_vit_g.pth` where LAVIS keeps it, in torch's cache; fetched if it is not there. Raises ValueError."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / lavis_files.EVA_FILE
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(lavis_files.EVA_URL, str(file))  # moved there when it is whole
    except OSError as error:
        raise ValueError(
            f"EVA-CLIP's ViT-g could not be fetched ({error}): get it (2 GB) with `curl -C - -o {file} "
            f"{lavis_files.EVA_URL}`, or say where it is, --set model.image_encoder=FOLDER/{lavis_files.EVA_FILE}"
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


# --------------------------------------------------------------------------------------------------- the frozen encoder


def fingerprint(module: nn.Module) -> str:
    """A name for these very weights: sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_frozen(image_encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """pixels [B,3,S,S] -> image_features bf16 [B,N,Dv], without gradient: what the feature cache keeps, so that
    training from it gives the same losses. Computed in bf16 where that is fast, else in the encoder's own precision."""
    half = bf16_is_fast(pixels.device.type) or image_encoder.model.dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=half):
        return image_encoder.to(pixels.device)(pixels).to(torch.bfloat16)


def encoder_of(image_encoder: ImageEncoder):
    """The encoder as a function of pictures -> image_features bf16 [B,N,Dv], on the fastest device there is."""
    image_encoder.to("cuda" if torch.cuda.is_available() else "cpu")

    def encode(images: Sequence[Image.Image]) -> Tensor:
        return encode_frozen(image_encoder, image_encoder.preprocess(images)).cpu()

    return encode
