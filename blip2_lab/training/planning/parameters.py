"""A recipe's model without its weights: the real classes on the meta device, to count parameters.

`blueprint(recipe)` is where to begin.

Notes:

* Nothing is allocated or downloaded: FlanT5-XXL takes a second. The sizes of the hub's models are in
  checkpoints/catalog.py.
* The model's parts are counted one by one and asserted to sum to the whole.

Paper: section 3.4, Tables 2 and 5. Notebooks: 08, 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from blip2_lab.checkpoints.catalog import BERT, IMAGE_ENCODERS, LANGUAGE_MODELS, language_config
from blip2_lab.checkpoints.names import model_path
from blip2_lab.common.files import read_object
from blip2_lab.models.language_model import language_model
from blip2_lab.models.micro import (
    micro_bert_config,
    micro_opt_config,
    micro_t5_config,
    micro_vit_config,
    new_opt,
    new_t5,
)
from blip2_lab.models.qformer import QFormer, QFormerConfig
from blip2_lab.models.stage1 import Stage1Config, Stage1Model
from blip2_lab.models.vision_encoder import ImageEncoder, at_resolution, drop_last_layer, eva_vit_g_config, freeze
from blip2_lab.training.planning.large_models import LARGE_VITS, LLAMAS, large_vit, llama
from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.schema import FineTuneParts, ImageTextData, MicroPart, Recipe, Stage1Parts, Stage2Parts

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# ------------------------------------------------------------------------------------------ models from their sizes


def build_image_encoder(name: str, image_size: int | None = None) -> ImageEncoder:
    """The encoder of that name on the meta device. Raises ValueError if its sizes are not known."""
    with torch.device("meta"):
        if name == IMAGE_ENCODERS["vit-l"].hub:
            from transformers import CLIPVisionConfig, CLIPVisionModel

            config = CLIPVisionConfig(**IMAGE_ENCODERS["vit-l"].sizes, patch_size=14, image_size=image_size or 224)
            return ImageEncoder(drop_last_layer(CLIPVisionModel(config)))
        if name == IMAGE_ENCODERS["vit-g"].hub:
            return ImageEncoder.from_config(eva_vit_g_config(image_size or 224))
        if name in LARGE_VITS:
            return large_vit(name, image_size or 224)
        stored = _stored(name, "vision_config", "blip_2_vision_model")
        encoder = ImageEncoder.from_config(stored or micro_vit_config(_micro_size(name, "vit", "mae")))
        return at_resolution(encoder, image_size) if image_size else encoder


def build_language_model(name: str) -> nn.Module:
    """transformers' language model of that name on the meta device."""
    with torch.device("meta"):
        known = next((key for key, row in LANGUAGE_MODELS.items() if row.hub == name), None)
        if known is not None:
            new = new_opt if LANGUAGE_MODELS[known].family == "opt" else new_t5
            return new(language_config(known))
        if name in LLAMAS:
            return llama(name)
        if config := _stored(name, "text_config", "t5", "opt"):
            return new_t5(config) if config.model_type == "t5" else new_opt(config)
        recipe = registry.RECIPES.get(name)
        kind = recipe.task if recipe and recipe.task in ("t5", "opt") else "t5"
        size, vocab_size = _micro_size(name, kind), vocab_size_of(kind)
        return (
            new_t5(micro_t5_config(vocab_size, size)) if kind == "t5" else new_opt(micro_opt_config(vocab_size, size))
        )


def qformer_config(parts: Stage1Parts, image_width: int) -> QFormerConfig:
    """The Q-Former that starts from this BERT (`builders.new_stage1` does the same with its weights)."""
    shared = dict(
        image_width=image_width,
        num_query_tokens=parts.num_query_tokens,
        cross_attention_frequency=parts.cross_attention_frequency,
        dropout=parts.dropout,
    )
    if parts.bert == BERT.hub:
        return QFormerConfig(**shared)
    bert = _stored(parts.bert, "", "bert")
    bert = bert or micro_bert_config(vocab_size_of("bert"), _micro_size(parts.bert, "bert"))
    return QFormerConfig(
        vocab_size=bert.vocab_size,
        width=bert.hidden_size,
        num_layers=bert.num_hidden_layers,
        num_heads=bert.num_attention_heads,
        ffn_width=bert.intermediate_size,
        max_positions=bert.max_position_embeddings,
        **shared,
    )


def _stored(name: str, part: str, *kinds: str) -> PretrainedConfig | None:
    """The configuration of a model that is here (its folder, its run, or the run's name), of one of these kinds, or of
    that `part` of a whole BLIP-2; else None."""
    file = model_path(name) / "config.json"
    if not file.is_file():
        return None
    stored = read_object(file, remedy="copy it again")
    if stored.get("model_type") == "blip-2":
        stored = stored.get(part, {})
    if stored.get("model_type") not in kinds:
        return None
    from transformers import Blip2VisionConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = stored["model_type"]
    return (Blip2VisionConfig if kind == "blip_2_vision_model" else CONFIG_MAPPING[kind]).from_dict(stored)


def _micro_size(name: str, *tasks: str) -> str:
    recipe = registry.RECIPES.get(name)
    if recipe is None or recipe.task not in tasks or not isinstance(recipe.model, MicroPart):
        known = [row.hub for row in (*IMAGE_ENCODERS.values(), *LANGUAGE_MODELS.values(), BERT)] + [
            *LARGE_VITS,
            *LLAMAS,
        ]
        raise ValueError(f"the sizes of {name!r} are not known without a download; known are {', '.join(known)}")
    return recipe.model.size


@cache
def vocab_size_of(kind: str) -> int:
    from blip2_lab.picturebook.tokenizer import build_tokenizer

    return len(build_tokenizer(kind))


# ---------------------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Blueprint:
    """A recipe's model on the meta device. `parts`: name -> module; `trained`: names of the trained ones."""

    model: nn.Module
    parts: Mapping[str, nn.Module]
    trained: tuple[str, ...]
    image_encoder: ImageEncoder
    qformer: QFormer | None  # None: another bridge
    language: nn.Module | None  # transformers' model
    stage1: Stage1Parts | None

    def parameters(self) -> dict[str, int]:
        """Number of parameters by part; the parts are asserted to sum to the model."""
        counts = {name: count_parameters(part) for name, part in self.parts.items()}
        assert sum(counts.values()) == count_parameters(self.model), "the parts must cover the model's parameters once"
        return counts


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def blueprint(recipe: Recipe) -> Blueprint:
    """The recipe's model, with the names of its trained and its frozen parts."""
    start = registry.pretraining_recipe(recipe)  # fine-tuning starts from a pre-trained model
    stage1 = registry.get(start.model.stage1).model if isinstance(start.model, Stage2Parts) else start.model
    fine_tuned = isinstance(recipe.model, FineTuneParts)
    other_size = recipe.data.image_size if fine_tuned and isinstance(recipe.data, ImageTextData) else None
    encoder = build_image_encoder(stage1.image_encoder, other_size)
    encoder_trains = fine_tuned and recipe.model.train_image_encoder
    encoder = encoder if encoder_trains else freeze(encoder)
    config = qformer_config(stage1, encoder.width)
    trained = ("image encoder",) if encoder_trains else ()
    if isinstance(start.model, Stage1Parts):
        with torch.device("meta"):
            model = Stage1Model(config, Stage1Config(embed_width=stage1.embed_width))
        model.image_encoder = encoder  # assigned directly: stays frozen or trained as it is
        own = (model.vision_projection, model.text_projection, model.itm_head, model.lm_head)
        heads = nn.ModuleList(own)
        heads.temperature = model.temperature
        parts = {"image encoder": encoder, "Q-Former": model.qformer, "heads": heads}
        return Blueprint(model, parts, (*trained, "Q-Former", "heads"), encoder, model.qformer, None, stage1)
    has_text = fine_tuned and recipe.model.question_in_qformer
    language = language_model(build_language_model(start.model.language_model))
    with torch.device("meta"):
        qformer = QFormer(replace(config, has_text=has_text))
        projection = nn.Linear(config.width, language.width)
    parts = {
        "image encoder": encoder,
        "Q-Former": qformer,
        "language projection": projection,
        "language model": language,
    }
    trained = (*trained, "Q-Former", "language projection")
    return Blueprint(nn.ModuleList(parts.values()), parts, trained, encoder, qformer, language.model, stage1)
