"""LAVIS's checkpoints: a `.pth` (or `.safetensors`) file with the trained parameters, and the frozen models beside it.

`load_lavis` is where to begin. It takes a file, or the folder of one.

Notes:

* A LAVIS checkpoint has no configuration and no frozen parameters. Sizes are inferred from the tensors. The image
  encoder is read from the file, or from `eva_vit_g.pth` in the same folder; the language model and BERT's tokenizer
  from folders there (`flan-t5-xxl`, `bert-base-uncased`), or from the hub.
* `DROPPED` and `EVA_BLOCKS` list the tensors of EVA-CLIP that BLIP-2 does not use: the last block, final norm and head.
* As in LAVIS, FlanT5 runs with exact gelu, and a newline ends OPT's answers.

Paper: section 3.4. Notebook: 07.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from blip2_lab.checkpoints import catalog, memory
from blip2_lab.checkpoints.catalog import EVA_FILE, EVA_URL
from blip2_lab.checkpoints.files import (
    Hub,
    bytes_to_fetch,
    cached_folder,
    check_complete,
    fetch,
    read_tensors,
    weight_files,
)
from blip2_lab.checkpoints.key_maps import from_eva, from_lavis, from_lavis_stage2
from blip2_lab.checkpoints.local import check_is_checkpoint, lavis_checkpoints
from blip2_lab.checkpoints.meta_model import empty_language_model, load_tensors, model_bytes
from blip2_lab.models.language_model import LanguageModel, language_model
from blip2_lab.models.quantize import quantize_empty_model
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder

DROPPED = ("norm.", "fc_norm.", "head.")
EVA_BLOCKS = 39  #: of 40: the paper takes the features of the second-to-last layer
HEAD_WIDTH = 64  #: of all attention heads but ViT-g's (88); it cannot be inferred from the tensors
NEW_LINE = 50118  #: OPT's newline token, which ends a caption in LAVIS


#: What to do where the weights are no LAVIS checkpoint.
OTHER_LAYOUT = "If it is a model in transformers' layout, copy its config.json and the tokenizer's files beside it."


def load_lavis(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    quantize: str | None = None,
    dtype: torch.dtype | None = None,
) -> Stage2Model | Stage1Model:
    """A LAVIS checkpoint, or the folder of one: `Blip2Qformer` as Stage1Model, `Blip2OPT` and `Blip2T5` as Stage2Model.

    quantize, dtype  as in `load.load`
    """
    path = Path(path)
    file = lavis_checkpoints(path)[0] if path.is_dir() else path
    state = _read_checkpoint(file)
    heads = _qformer_width(state, file) // HEAD_WIDTH
    if "vision_proj.weight" in state:
        encoder = _image_encoder(state, file.parent, dtype or torch.float32, device)
        model = from_lavis(_without_vision(state), num_attention_heads=heads, image_encoder=encoder)
        model.tokenizer = bert_tokenizer(file.parent, len(model.qformer.word_embeddings.weight))
        model.config.sep_token_id = model.tokenizer.sep_token_id
        return model.to(device)
    key = next((name for name in ("t5_proj.weight", "opt_proj.weight") if name in state), None)
    if key is None:
        raise ValueError(
            f"{file} is not a BLIP-2 of LAVIS: it has none of vision_proj, t5_proj and opt_proj. {OTHER_LAYOUT}"
        )
    dtype = dtype or memory.default_dtype(key.startswith("t5"), device, quantize)
    for name in _language_models_of_width(key, len(state[key])):  # before anything is fetched
        if (whole := catalog.released(f"Salesforce/blip2-{name}")) is not None:
            memory.check_memory(catalog.blip2_config(whole), str(file), device, quantize, dtype)
    language = _language_model(state, file, key, device, quantize, dtype)
    encoder = _image_encoder(state, file.parent, dtype, device, quantize)
    own = {name: t for name, t in _without_vision(state).items() if not name.startswith(("t5_model.", "opt_model."))}
    return from_lavis_stage2(own, image_encoder=encoder, language_model=language, num_attention_heads=heads).to(device)


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    check_is_checkpoint(file)
    check_complete([file])
    return dict(read_tensors([file]))


def _qformer_width(state: dict[str, Tensor], file: Path) -> int:
    if "qformer.query_tokens" in state:
        raise ValueError(
            f"{file} has the tensors of a model of this package, without its shape and its tokenizer: load the model "
            "that it was trained from, and call its `load_state_dict`; blip2_lab.save writes a whole folder."
        )
    if "query_tokens" not in state:
        raise ValueError(f"{file} is not a BLIP-2 of LAVIS: it has no query_tokens. {OTHER_LAYOUT}")
    return state["query_tokens"].shape[-1]


def _without_vision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("visual_encoder.")}


def _with_prefix(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name.removeprefix(p): t for p in prefixes for name, t in state.items() if name.startswith(p)}


# --- The image encoder ----------------------------------------------------------------------------------------------


def _image_encoder(
    state: dict[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    quantize: str | None = None,
) -> ImageEncoder:
    """The image encoder: from the checkpoint where it was fine-tuned, else from `eva_vit_g.pth` beside it."""
    eva = _with_prefix(state, "visual_encoder.")
    if not eva:
        file = next((folder / name for name in (EVA_FILE, "eva_vit_g.safetensors") if (folder / name).is_file()), None)
        if file is None:
            raise ValueError(
                f"The image encoder is missing: LAVIS keeps it in another file. Fetch it (2 GB) with `curl -C - -o "
                f"{folder / EVA_FILE} {EVA_URL}`, or load the whole model from the hub: `blip2-lab models` lists them."
            )
        eva = drop_unused_eva_keys(_read_checkpoint(file))
    return eva_encoder(eva, dtype, device, quantize)


def drop_unused_eva_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EVA-CLIP's ViT-g without the tensors that BLIP-2 does not use."""

    def kept(name: str) -> bool:
        block = re.match(r"blocks\.(\d+)\.", name)
        return not name.startswith(DROPPED) and not (block and int(block[1]) >= EVA_BLOCKS)

    return {name: tensor for name, tensor in state.items() if kept(name)}


def eva_encoder(
    eva: dict[str, Tensor], dtype: torch.dtype, device: torch.device | str, quantize: str | None = None
) -> ImageEncoder:
    """LAVIS's `visual_encoder` as an ImageEncoder. Sizes are inferred from the tensors."""
    from transformers import Blip2VisionConfig

    try:
        width, _, patch, _ = eva["patch_embed.proj.weight"].shape
        side = round((eva["pos_embed"].shape[1] - 1) ** 0.5)
        ffn_width = len(eva["blocks.0.mlp.fc1.weight"])
    except KeyError as missing:
        raise ValueError(
            f"The image encoder has no {missing.args[0]}: it is not an EVA-CLIP ViT as LAVIS saves it."
        ) from None
    layers = 1 + max(int(match[1]) for name in eva if (match := re.match(r"blocks\.(\d+)\.", name)))
    config = Blip2VisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // (88 if width == 1408 else HEAD_WIDTH),
        intermediate_size=ffn_width,
        image_size=side * patch,
        patch_size=patch,
    )
    with torch.device("meta"):
        encoder = ImageEncoder.from_config(config)
    named = ((f"image_encoder.{name}", tensor) for name, tensor in from_eva(eva).items())
    holder = torch.nn.ModuleDict(
        {"image_encoder": encoder.model}
    )  # the prefix gives its tensors `dtype` (see dtype_of)
    quantize_empty_model(holder, quantize, device, dtype)
    load_tensors(holder, named, device=device, dtype=dtype, layout="The image encoder's weights")
    return encoder


# --- The language model and the tokenizer ---------------------------------------------------------------------------


def _language_model(
    state: dict[str, Tensor],
    file: Path,
    key: str,
    device: torch.device | str,
    quantize: str | None,
    dtype: torch.dtype,
) -> LanguageModel:
    """The language model, from a folder beside the checkpoint or from the hub. The width of the projection tells which
    one."""
    width = len(state[key])
    folder = _language_folder(file.parent, key, width)
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type == "t5":
        config.dense_act_fn = "gelu"  # as in LAVIS
    model = empty_language_model(config)
    if model.get_input_embeddings().embedding_dim != width:
        raise ValueError(
            f"{file} was trained with a language model of width {width}, and the one in {folder} has another: "
            "put the right folder beside the file."
        )
    holder = torch.nn.ModuleDict({"language_model": model})
    memory.check_room(model_bytes(holder, quantize, dtype), str(folder), device, "Try --quantize int8 or nf4.")
    quantize_empty_model(holder, quantize, device, dtype)
    own = _with_prefix(state, "t5_model.", "opt_model.")
    files = weight_files(folder)
    check_complete(files)
    tensors: Iterable[tuple[str, Tensor]] = own.items() if own else read_tensors(files)
    load_language_model_tensors(model, tensors, device, dtype, f"The weights in {folder}")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return language_model(model.eval(), tokenizer, end_token_id=NEW_LINE if config.model_type == "opt" else None)


def load_language_model_tensors(
    model: torch.nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    device: torch.device | str,
    dtype: torch.dtype,
    layout: str,
) -> None:
    """Load the tensors of a language model that is not part of a whole model."""
    holder = torch.nn.ModuleDict({"language_model": torch.nn.ModuleDict({"model": model})})
    named = ((f"language_model.model.{language_model_key(name, model)}", tensor) for name, tensor in tensors)
    load_tensors(holder, named, device=device, dtype=dtype, layout=layout)


def language_model_key(name: str, model: torch.nn.Module) -> str:
    """The key in transformers' model: OPT's released files lack the leading `model.` that transformers saves."""
    return f"model.{name}" if name.startswith("decoder.") and hasattr(model, "model") else name


def _language_models_of_width(key: str, width: int) -> list[str]:
    """Names of the language models (none or one) that a projection with this key and width fits."""
    family = key.partition("_")[0]
    return [name for name, row in catalog.LANGUAGE_MODELS.items() if (row.family, row.width) == (family, width)]


def _language_folder(folder: Path, key: str, width: int) -> Path:
    names = _language_models_of_width(key, width)
    for path in sorted(folder.iterdir()):
        if (path / "config.json").is_file() and (path.name in names or not names):
            return path
    if not names:
        raise ValueError(
            f"The checkpoint's language model ({key.partition('_')[0]}, width {width}) is none of LAVIS's: "
            "put its folder beside it."
        )
    hub_name = catalog.LANGUAGE_MODELS[names[0]].hub
    if (fetched := cached_folder(hub_name)) is not None:
        return fetched
    shape = empty_language_model(catalog.language_config(names[0]))
    size = bytes_to_fetch(hub_name) or 4 * sum(parameter.numel() for parameter in shape.parameters())
    memory.check_disk(hub_name, size, Hub().folder)
    return fetch(hub_name)


def bert_tokenizer(folder: Path, vocab_size: int):
    """BERT's tokenizer with [DEC], from a folder beside the checkpoint or from the hub."""
    from transformers import AutoTokenizer

    hub_name = catalog.BERT.hub
    local = folder / hub_name.rpartition("/")[2]
    source = local if local.is_dir() else cached_folder(hub_name) or fetch(hub_name)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    if len(tokenizer) == vocab_size - 1:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if len(tokenizer) != vocab_size:
        raise ValueError(f"The tokenizer in {source} has {len(tokenizer)} words and this checkpoint {vocab_size}.")
    return tokenizer
