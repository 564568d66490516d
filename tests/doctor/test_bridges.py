"""The doctor on models with another bridge: green where they are healthy, and red at each planted fault."""

from __future__ import annotations

import copy

import pytest
import torch

import blip2_lab
from blip2_lab import cli
from blip2_lab.doctor import model as model_doctor
from blip2_lab.doctor.model import diagnose_model, save_reference
from blip2_lab.models.bridges import DualEncoder, DualEncoderConfig
from tests.tiny import BRIDGES, build_bridged_model, build_tiny_model, loud


@pytest.fixture(scope="module", params=BRIDGES)
def healthy(request, tmp_path_factory):
    """A model with this bridge, loaded from the folder that it was saved in."""
    folder = tmp_path_factory.mktemp("bridges") / request.param
    frozen = build_tiny_model("opt" if request.param in ("gated", "linear-pooled") else "t5")
    loud(frozen)
    blip2_lab.save(build_bridged_model(request.param, frozen), folder)
    return request.param, blip2_lab.load(folder), folder


def red(model, folder) -> dict[str, str]:
    return {found.about: found.says for found in diagnose_model(model, folder) if found.state == "bad"}


def test_a_healthy_bridge_is_all_green(healthy):
    name, model, folder = healthy
    findings = {found.about: found for found in diagnose_model(model, folder)}
    assert {found.state for found in findings.values()} == {"good"}, findings
    own = {"wide_qformer": {"query tokens"}, "gated": {"gates"}, "gated-resampler": {"latents", "gates"}}
    assert set(findings) & {"query tokens", "latents", "gates"} == own.get(name, set())
    assert "float32, layer by layer" in findings and "fused = written out" in findings


def test_a_reference_can_be_stored_and_compared(healthy):
    _, model, folder = healthy
    stored = save_reference(model, folder)
    try:
        assert {found.about: found.state for found in diagnose_model(model, folder)}["float32 reference"] == "good"
    finally:
        stored.unlink()
    assert not (folder / model_doctor.REFERENCE).exists()


def test_a_changed_weight_of_the_bridge_is_found_in_the_files_and_by_its_layer(healthy):
    name, model, folder = healthy
    sick = copy.deepcopy(model)
    parameter = {
        "linear": "bridge.language_projection.weight",
        "linear-pooled": "bridge.image_layer_norm.weight",
        "mlp": "bridge.hidden_projection.weight",
        "wide_qformer": "language_projection.weight",
        "gated": "bridge.blocks.1.cross_attention.key.weight",
        "gated-resampler": "bridge.resampler.layers.1.expand.weight",
    }[name]
    dict(sick.named_parameters())[parameter].data.mul_(1.5)
    found = red(sick, folder)
    assert parameter in found["weights as in the files"]
    assert parameter.removesuffix(".expand.weight").removesuffix(".weight") in found["float32, layer by layer"]


def test_closed_gates_and_equal_latents_are_red(healthy):
    name, model, folder = healthy
    if not model.bridge.deep_fusion:
        pytest.skip("this bridge has neither gates nor latents")
    sick = copy.deepcopy(model)
    with torch.no_grad():
        for block in sick.bridge.blocks:
            block.attention_gate.zero_()
        if sick.bridge.resampler is not None:
            sick.bridge.resampler.latents.zero_()
    found = red(sick, None)
    assert "no answer depends on the image" in found["gates"]
    assert ("latents" in found) == (name == "gated-resampler")


def test_the_command_ends_well(healthy, capsys):
    _, _, folder = healthy
    assert cli.main(["doctor", str(folder)]) == 0
    assert "Traceback" not in capsys.readouterr().out


def test_the_doctor_refuses_a_dual_encoder_in_a_sentence(tmp_path, capsys):
    frozen = build_tiny_model("opt")
    dual = DualEncoder(DualEncoderConfig(64, 64, 2, embed_width=16), frozen.image_encoder, frozen.language_model)
    blip2_lab.save(dual, tmp_path / "dual")
    assert cli.main(["doctor", str(tmp_path / "dual")]) == 2
    assert "is a dual encoder: the doctor checks the folder of its training run" in capsys.readouterr().err
