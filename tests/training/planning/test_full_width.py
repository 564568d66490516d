"""Two layers of each described model at full width really run on a CPU: forward, backward, one step of AdamW.

Layers, widths and numbers of tokens are those of the plan, in 32 bits. To need less memory, the vocabulary is small (a
lookup table and one matrix), the two layers of a frozen LLaMA share their weights, and each parameter is updated when
its gradient is there. The text encoder of the dual encoder is frozen here.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from blip2_lab.checkpoints.memory import free_memory
from blip2_lab.models.bridges import DualEncoder, DualEncoderConfig
from blip2_lab.models.language_model import LanguageModel, Text, decoder_layers, language_model
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.models.vision_encoder import ImageEncoder, eva_vit_g_config
from blip2_lab.training.bridge_parts import bridge_of, num_heads
from blip2_lab.training.planning.bridges import bridge_blueprint
from blip2_lab.training.planning.large_models import large_vit, llama
from blip2_lab.training.planning.parameters import blueprint, build_language_model, count_parameters
from blip2_lab.training.recipes.registry import get

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LAYERS, VOCABULARY, EXAMPLES, TOKENS = 2, 1000, 2, 6


def ids(rows: int = EXAMPLES, count: int = TOKENS) -> Text:
    drawn = torch.randint(3, VOCABULARY, (rows, count), generator=torch.Generator().manual_seed(0))
    return Text(drawn, torch.ones(rows, count, dtype=torch.bool))


def images(model: nn.Module) -> torch.Tensor:
    size = model.image_encoder.image_size
    return torch.randn(EXAMPLES, 3, size, size, generator=torch.Generator().manual_seed(1))


def flant5_xl() -> Stage2Model:
    from transformers import T5Config

    from blip2_lab.models.micro import new_t5

    planned = build_language_model("google/flan-t5-xl").config
    vision = eva_vit_g_config()
    vision.num_hidden_layers = LAYERS
    encoder = ImageEncoder.from_config(vision)
    shape = planned.to_dict() | dict(num_layers=LAYERS, num_decoder_layers=LAYERS, vocab_size=VOCABULARY)
    language = language_model(new_t5(T5Config(**shape)))
    config = replace(blueprint(get("flant5-xl-stage2")).qformer.config, num_layers=LAYERS)
    return Stage2Model(encoder, QFormer(config), language)


def two_layers_of_llama(name: str) -> LanguageModel:
    """A frozen LLaMA whose second layer has the weights of the first."""
    model = llama(name, 1, VOCABULARY)
    with torch.device("meta"):
        second = llama(name, LAYERS, VOCABULARY).model.layers[1]
    for key, parameter in model.model.layers[0].named_parameters():
        owner, _, leaf = key.rpartition(".")
        setattr(second.get_submodule(owner), leaf, parameter)
    model.model.layers.append(second)
    model.config.num_hidden_layers = LAYERS
    return language_model(model)


def decoder_with_bridge(name: str) -> Stage2Model:
    parts = get(name).model
    encoder = large_vit(parts.image_encoder, parts.image_size or 224, layers=LAYERS)
    language = two_layers_of_llama(parts.language_model)
    bridge = bridge_of(replace(parts, num_layers=LAYERS), encoder.width, language.width, LAYERS)
    model = Stage2Model(encoder, bridge, language)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("_gate"):
                parameter.fill_(0.5)  # at 0 nothing behind a gate has a gradient
    return model


def answer_loss(model: Stage2Model) -> torch.Tensor:
    model.train()
    with torch.no_grad():
        features = model.image_encoder(images(model))
    prompt = model.visual_prompt(features)
    assert prompt.shape == (EXAMPLES, model.num_visual_tokens, prompt.shape[-1])
    return model.language_model.answer_loss(prompt, ids(count=3), ids())


def step(model: nn.Module, loss: torch.Tensor) -> None:
    """Backward and one step of AdamW: every trained parameter has a finite gradient and moves, no frozen one does."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = [(p, p.flatten()[:8].clone()) for p in model.parameters() if not p.requires_grad]
    before = {name: p.detach().flatten()[:64].clone() for name, p in trained.items()}
    updated = []

    def update(parameter: nn.Parameter) -> None:
        updated.append(bool(torch.isfinite(parameter.grad).all()))
        torch.optim.AdamW([parameter], lr=1e-2).step()
        parameter.grad = None

    for parameter in trained.values():
        parameter.register_post_accumulate_grad_hook(update)
    assert torch.isfinite(loss)
    loss.backward()
    assert len(updated) == len(trained) and all(updated)
    assert all(torch.isfinite(p).all() for p in trained.values())
    still = [name for name, p in trained.items() if torch.equal(p.detach().flatten()[:64], before[name])]
    assert all(name.endswith("key.bias") for name in still), still  # softmax does not depend on it
    assert all(torch.equal(p.flatten()[:8], value) for p, value in frozen)


def need(gigabytes: float) -> None:
    if free_memory("cpu") < (gigabytes + 2) * 1e9:
        pytest.skip(f"two layers at full width need {gigabytes} GB of free memory")


def same_layers(small: nn.Module, planned: nn.Module) -> None:
    assert count_parameters(small[0]) == count_parameters(planned[0])


def test_flant5_xl():
    need(4)
    model, planned = flant5_xl(), blueprint(get("flant5-xl-stage2"))
    same_layers(model.image_encoder.model.encoder.layers, planned.image_encoder.model.encoder.layers)
    same_layers(model.qformer.layers, planned.qformer.layers)
    same_layers(decoder_layers(model.language_model.model)[1:], decoder_layers(planned.language)[1:])
    assert (model.num_visual_tokens, model.language_model.width) == (32, 2048)
    step(model, answer_loss(model))


def test_adapter_xl():
    need(6)
    model, planned = decoder_with_bridge("adapter-xl"), bridge_blueprint(get("adapter-xl"))
    same_layers(model.image_encoder.model.encoder.layers, planned.image_encoder.model.encoder.layers)
    same_layers(model.qformer.layers, planned.parts["Q-Former"].layers)
    same_layers(decoder_layers(model.language_model.model), decoder_layers(planned.language))
    assert (model.image_encoder.num_features, model.num_visual_tokens, model.qformer.config.width) == (1370, 32, 2048)
    step(model, answer_loss(model))


def test_gated_65b():
    need(13)
    model, planned = decoder_with_bridge("gated-65b"), bridge_blueprint(get("gated-65b"))
    same_layers(model.image_encoder.model.encoder.layers, planned.image_encoder.model.encoder.layers)
    same_layers(model.bridge.blocks, planned.parts["bridge"].blocks)
    same_layers(decoder_layers(model.language_model.model), decoder_layers(planned.language))
    assert len(planned.parts["bridge"].blocks) == 20 and len(model.bridge.blocks) == 1
    assert (model.image_encoder.num_features, model.language_model.width) == (257, 8192)
    step(model, answer_loss(model))


def test_dual_70b():
    need(9)
    parts, planned = get("dual-70b").model, bridge_blueprint(get("dual-70b"))
    encoder = large_vit(parts.image_encoder, layers=LAYERS)
    language = two_layers_of_llama(parts.language_model)
    config = DualEncoderConfig(encoder.width, language.width, num_heads(language.width), num_blocks=LAYERS)
    model = DualEncoder(config, encoder, language)
    with torch.no_grad():
        for block in model.blocks:
            block.attention_gate.fill_(0.5)
    same_layers(model.image_encoder.model.encoder.layers, planned.image_encoder.model.encoder.layers)
    same_layers(model.blocks, planned.parts["fusion blocks"])
    same_layers(decoder_layers(model.language_model.model), decoder_layers(planned.language))
    features = model.image_encoder(images(model))
    assert features.shape == (EXAMPLES, 257, 1280) and len(planned.parts["fusion blocks"]) == 22
    step(model, model.losses(features, ids(), torch.Generator().manual_seed(0)).total)
