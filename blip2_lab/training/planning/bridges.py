"""A recipe's bridge on the meta device: parameters by part, and the work of one example.

`bridge_blueprint` is where to begin; `bridge_work` counts what the bridge itself computes.

Notes:

* The bridge's own code runs on the meta device at full size, forward and backward, under torch's FLOP counter: no
  memory is needed, and the plan follows the code. The frozen models' FLOPs are the formulas of flops.py.

Paper: section 3.3. Notebooks: 08, 17.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2_lab.models.bridges import DualEncoder, GatedCrossAttention
from blip2_lab.models.bridges.qformer import QFormerBridge
from blip2_lab.models.language_model import decoder_layers, language_model
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.vision_encoder import ImageEncoder, freeze
from blip2_lab.training.bridge_parts import bridge_of, dual_encoder_config
from blip2_lab.training.planning.flops import CaptionLengths, Work, count_work, encoder_work, language_work
from blip2_lab.training.planning.parameters import Blueprint, build_image_encoder, build_language_model
from blip2_lab.training.recipes.schema import BridgeParts, Recipe, SceneData

EXAMPLES = 2  #: of a counted pass


def bridge_blueprint(recipe: Recipe) -> Blueprint:
    """The model of a recipe with `BridgeParts`, and which of its parts are trained."""
    parts: BridgeParts = recipe.model
    encoder = freeze(build_image_encoder(parts.image_encoder, parts.image_size))
    language = language_model(build_language_model(parts.language_model))
    with torch.device("meta"):
        if parts.bridge == "dual_encoder":
            return _dual_blueprint(parts, encoder, language)
        bridge = bridge_of(parts, encoder.width, language.width, len(decoder_layers(language.model)))
        if isinstance(bridge, QFormer):
            bridge = QFormerBridge(bridge, language.width)
    own = {"bridge": bridge}
    if isinstance(bridge, QFormerBridge):
        own = {"Q-Former": bridge.qformer, "language projection": bridge.language_projection}
    vision, trained_vision = _split(encoder, parts.train_vision_layers)
    named = {**vision, **own, "language model": language}
    trained = (*trained_vision, *own, *(("language model",) if parts.train_language_model else ()))
    whole = nn.ModuleList([encoder, bridge, language])
    return Blueprint(whole, named, trained, encoder, None, language.model, None)


def _dual_blueprint(parts: BridgeParts, encoder: ImageEncoder, language: nn.Module) -> Blueprint:
    model = DualEncoder(dual_encoder_config(parts, encoder.width, language.width), encoder, language)
    heads = nn.ModuleList(
        [model.image_layer_norm, model.image_projection, model.text_layer_norm, model.text_projection]
        + [model.itm_layer_norm, model.itm_head]
    )
    heads.temperature = model.temperature
    vision, trained_vision = _split(encoder, parts.train_vision_layers)
    named = {**vision, "text encoder": language, "fusion blocks": model.blocks, "heads": heads}
    if model.codebook is not None:
        named["codebook"] = nn.ParameterList([model.codebook])
    trained = (*trained_vision, *(("text encoder",) if parts.train_language_model else ()), "fusion blocks", "heads")
    return Blueprint(model, named, trained, encoder, None, language.model, None)


def _split(encoder: ImageEncoder, train_layers: int) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """-> the image encoder as one part or as two, and the names of those that are trained."""
    layers = encoder.model.encoder.layers
    if train_layers >= len(layers):
        return {"image encoder": encoder}, ("image encoder",)
    if not train_layers:
        return {"image encoder": encoder}, ()
    name = f"its last {train_layers} layers"
    rest = nn.ModuleList([encoder.model.embeddings, encoder.model.post_layernorm, *layers[:-train_layers]])
    return {"image encoder": rest, name: nn.ModuleList(layers[-train_layers:])}, (name,)


def bridge_works(recipe: Recipe, model: Blueprint, texts: CaptionLengths) -> dict[str, Work]:
    """Work of an example by model, as `flops.work_by_part`."""
    parts: BridgeParts = recipe.model
    works = {}
    if not isinstance(recipe.data, SceneData):
        works["image encoder"] = _vision_work(model.image_encoder, parts.train_vision_layers)
    if parts.bridge == "dual_encoder":
        # the text encoder has no language modeling head here: no logits, hence no answer tokens
        works["text encoder"] = language_work(model.language, 0, texts.longest, 0, trained=parts.train_language_model)
        works["fusion blocks"] = _fusion_work(model, texts.longest)
        return works
    bridge = model.model[1]
    tokens = texts.longest
    works["bridge"] = bridge_work(bridge, model.image_encoder.num_features, tokens, bool(parts.train_vision_layers))
    prefix = 0 if bridge.deep_fusion else bridge.num_visual_tokens(model.image_encoder.num_features)
    prompt = tokens if model.language.config.is_encoder_decoder else 0
    works["language model"] = language_work(model.language, prefix, prompt, tokens, trained=parts.train_language_model)
    return works


def _vision_work(encoder: ImageEncoder, train_layers: int) -> Work:
    """One image: a forward through all layers, and the backward of the trained ones."""
    frozen, trained = encoder_work(encoder, False), encoder_work(encoder, True)
    share = min(1.0, train_layers / len(encoder.model.encoder.layers))
    return Work(frozen.flops + share * (trained.flops - frozen.flops), share * trained.activation_bytes)


def bridge_work(bridge: nn.Module, num_features: int, tokens: int, train_vision: bool = False) -> Work:
    """What the bridge computes for an image of so many features and a text of so many tokens, forward and backward."""
    bridge = bridge.to(torch.bfloat16)  # on the meta device: only the type of what is saved
    features = torch.empty(EXAMPLES, num_features, bridge.image_width, dtype=torch.bfloat16, device="meta")
    features.requires_grad_(train_vision)

    def loss() -> Tensor:
        prompt = bridge(features)
        if not isinstance(bridge, GatedCrossAttention):
            return prompt.sum()
        text = torch.empty(EXAMPLES, tokens, bridge.language_width, dtype=torch.bfloat16, device="meta")
        return _through(bridge.blocks, text.requires_grad_(), prompt)

    flops, kept = count_work(loss, bridge)
    return Work(flops / EXAMPLES, kept / EXAMPLES)


def _fusion_work(model: Blueprint, tokens: int) -> Work:
    """ITM of one example: its pair and two wrong ones through the fusion blocks."""
    dual: DualEncoder = model.model
    blocks, config = dual.blocks.to(torch.bfloat16), dual.config
    shape = (3 * EXAMPLES, model.image_encoder.num_features, config.image_width)
    image = torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=True)
    text = torch.empty(3 * EXAMPLES, tokens, config.language_width, dtype=torch.bfloat16, device="meta")
    flops, kept = count_work(lambda: _through(blocks, text.requires_grad_(), image), blocks)
    return Work(flops / EXAMPLES, kept / EXAMPLES)


def _through(blocks: nn.ModuleList, text: Tensor, image: Tensor) -> Tensor:
    for block in blocks:
        text = block(text, *block.cross_attention.keys_values(image))
    return text.sum()
