"""Models with another bridge than the Q-Former: saved, loaded, quantized, and refused where they are damaged."""

import json
import shutil

import pytest
import torch

import blip2_lab
from blip2_lab.models.bridges import (
    GatedCrossAttention,
    GatedCrossAttentionConfig,
    LinearBridge,
    LinearConfig,
    wide_qformer_config,
)
from blip2_lab.models.qformer import QFormer
from blip2_lab.models.stage2 import Stage2Model
from tests.tiny import build_tiny_model, loud

GATED = GatedCrossAttentionConfig(64, 64, num_layers=2, num_heads=2, ffn_width=96, num_latents=4, resampler_layers=1)
QUESTION = "what is in the picture?"


def bridged(kind: str, bridge) -> Stage2Model:
    tiny = build_tiny_model(kind)
    loud(tiny)
    model = Stage2Model(tiny.image_encoder, bridge, tiny.language_model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_gate"):
                parameter.fill_(0.5)
    return model


def logits(model: Stage2Model) -> torch.Tensor:
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    prompt, answer = model.language_model.training_texts([QUESTION] * 2, ["a boat", "a blue fish"])
    with torch.no_grad():
        return model.language_model.answer_logits(model.visual_prompt(model.image_encoder(pixels)), prompt, answer)


@pytest.mark.parametrize("kind", ["t5", "opt"])
@pytest.mark.parametrize("name", ["linear", "gated", "wide"])
def test_a_saved_model_keeps_its_bridge(tmp_path, kind, name):
    torch.manual_seed(0)
    bridge = {
        "linear": lambda: LinearBridge(LinearConfig(64, 64, num_visual_tokens=4)),
        "gated": lambda: GatedCrossAttention(GATED),
        "wide": lambda: QFormer(wide_qformer_config(64, 128, num_layers=2, num_query_tokens=4)),
    }[name]()
    model = bridged(kind, bridge)
    blip2_lab.save(model, tmp_path)
    again = blip2_lab.load(tmp_path)
    assert type(again.bridge) is type(model.bridge) and again.bridge.config == model.bridge.config
    assert torch.equal(logits(again), logits(model))
    pixels = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(0))
    options = dict(num_beams=2, max_new_tokens=4)
    assert again.generate(pixels, QUESTION, **options) == model.generate(pixels, QUESTION, **options)
    assert not any(p.requires_grad for p in again.language_model.parameters())
    stored = json.loads((tmp_path / "config.json").read_text())
    assert ("bridge" in stored) == (name != "wide")
    assert "/tmp" not in json.dumps(stored)


def test_transformers_refuses_it_instead_of_inventing_a_qformer(tmp_path):
    from transformers import AutoModel

    blip2_lab.save(bridged("opt", LinearBridge(LinearConfig(64, 64))), tmp_path)
    with pytest.raises((ValueError, KeyError), match="blip2-lab-bridge"):
        AutoModel.from_pretrained(tmp_path)


def test_a_damaged_folder_is_refused_in_a_sentence(tmp_path):
    blip2_lab.save(bridged("opt", LinearBridge(LinearConfig(64, 64))), tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    bad = {
        "no bridge 'magic'; known are linear, gated": {"bridge": {"name": "magic"}},
        "does not describe a model with a bridge": {"bridge": {"name": "linear", "colour": 3}},
        "do not fit their config.json": {"bridge": config["bridge"] | {"hidden_width": 32}},
        "made for a language model of width 32": {"bridge": config["bridge"] | {"language_width": 32}},
    }
    for i, (message, change) in enumerate(bad.items()):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            blip2_lab.load(folder)
    (tmp_path / "whole" / "model.safetensors").unlink()
    with pytest.raises(ValueError):
        blip2_lab.load(tmp_path / "whole")


def test_a_gated_model_answers_in_8_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    model = bridged("opt", GatedCrossAttention(GATED))
    blip2_lab.save(model, tmp_path)
    small = blip2_lab.load(tmp_path, quantize="int8")
    assert (logits(small).float() - logits(model)).abs().max() < 1
    with pytest.raises(ValueError, match="quantized language model cannot be saved"):
        blip2_lab.save(small, tmp_path / "again")
