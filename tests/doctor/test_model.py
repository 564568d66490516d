"""The doctor finds no fault in a healthy model, and names each of five planted faults."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from blip2_lab import cli
from blip2_lab.checkpoints import load
from blip2_lab.checkpoints.load import save
from blip2_lab.doctor import layers
from blip2_lab.doctor import model as model_doctor
from blip2_lab.doctor.model import diagnose_model, model_report, save_reference
from blip2_lab.models.language_model import pad
from tests.tiny import build_tiny_model, loud


@pytest.fixture(scope="module", params=["t5", "opt", "micro"])
def healthy(request, tmp_path_factory):
    """A model, and the folder it was saved in with its float32 reference: two with random weights, and the shipped."""
    folder = tmp_path_factory.mktemp("healthy") / request.param
    if request.param != "micro":
        model = build_tiny_model(request.param)
        loud(model, model.stage1)
        save(model, folder)
    elif (load.MICRO / "config.json").is_file():
        shutil.copytree(load.MICRO, folder)
    else:
        pytest.skip("this checkout has no micro model")
    model = load.load(folder)
    save_reference(model, folder)
    return model, folder


def ill(healthy):
    """A copy to plant a fault in."""
    model, folder = healthy
    sick = copy.deepcopy(model)
    sick.attach_stage1(copy.deepcopy(model.stage1))
    sick.stage1.image_encoder = sick.image_encoder
    return sick, folder


def red(model, folder) -> dict[str, str]:
    findings = diagnose_model(model, folder)
    assert all(finding.says.count("\n") == 0 for finding in findings)
    return {finding.about: finding.says for finding in findings if finding.state == "bad"}


def test_a_healthy_model_is_all_green(healthy):
    findings = diagnose_model(*healthy)
    assert [finding for finding in findings if finding.state == "bad"] == []
    assert (
        len(findings) == 14
        and model_report(findings).endswith("All green.")
        and "\033[32m green" in model_report(findings)
    )


def test_without_a_stored_reference_every_layer_is_run_again(healthy, tmp_path):
    model, folder = ill(healthy)
    stored = (folder / model_doctor.REFERENCE).rename(tmp_path / "aside")
    try:
        findings = {f.about: f for f in diagnose_model(model, folder)}
        assert findings["float32, layer by layer"].state == "good"
        layer = next(iter(model.qformer.layers))
        layer.query_ffn.contract.weight.data *= 1.5
        says = red(model, folder)["float32, layer by layer"]
        assert "qformer.layers.0 does not compute what its weights say" in says
        assert findings["stage 1, layer by layer"].state == "good"
        model.stage1.qformer.layers[1].text_ffn.layer_norm = nn.Identity()
        says = red(model, folder)["stage 1, layer by layer"]
        assert "qformer.layers.1 does not compute what its weights say" in says
        model.stage1.qformer.layers[0].text_ffn = None
        assert "the model does not run" in red(model, folder)["stage 1, layer by layer"]
    finally:
        stored.rename(folder / model_doctor.REFERENCE)


# --- the five faults ------------------------------------------------------------------------------------------------


def test_fp16_overflow_in_wo(healthy):
    model, folder = ill(healthy)
    if not model.language_model.model.config.is_encoder_decoder:
        pytest.skip("OPT has no wo")
    block = model.language_model.model.encoder.block[1].layer[1].DenseReluDense
    block.wo.weight.data *= 1e6
    model.language_model.half()
    found = red(model, folder)
    assert "wo of FlanT5 are float16" in found["precision"]
    assert "encoder.block.1.layer.1.DenseReluDense.wo gives NaN or infinity in float16" in found["activations"]
    assert "--dtype bfloat16" in found["activations"]


def test_zeroed_queries(healthy):
    model, folder = ill(healthy)
    model.qformer.query_tokens.data.zero_()
    found = red(model, folder)
    assert "all are equal" in found["query tokens"]
    assert "qformer.query_tokens is not what the files have" in found["weights as in the files"]
    assert "visual prompt are" in found["float32 reference"]


def test_swapped_ffn_towers(healthy):
    model, folder = ill(healthy)
    for layer in model.stage1.qformer.layers:
        layer.query_ffn, layer.text_ffn = layer.text_ffn, layer.query_ffn
    found = red(model, folder)
    assert "_ffn.contract.bias is not what the files have" in found["weights as in the files"]
    assert "but what they have as stage1.qformer.layers.0." in found["weights as in the files"]
    assert "image embeds are" in found["float32 reference"], "stage 2 is right, stage 1 is not"


def test_wrong_padding_side(healthy, monkeypatch):
    model, folder = ill(healthy)
    language = model.language_model
    wrong_side = language.model.config.is_encoder_decoder

    def prompt_texts(prompts):
        rows = language._encode(prompts)
        return pad(rows, language.pad_token_id, left=wrong_side)

    monkeypatch.setattr(language, "prompt_texts", prompt_texts)
    found = red(model, folder)
    assert "this one does not: batches go wrong" in found["padding"]
    assert "outputs depend on the rest of the batch" in found["batch = single"]


def test_missing_layer_norm(healthy):
    model, folder = ill(healthy)
    model.qformer.layers[1].query_ffn.layer_norm = nn.Identity()
    found = red(model, folder)
    assert "qformer.layers.1.query_ffn.layer_norm is missing" in found["LayerNorms"]
    assert "visual prompt are" in found["float32 reference"]


# --- others ---------------------------------------------------------------------------------------------------------


def test_nan_and_broken_files(healthy, tmp_path):
    model, folder = ill(healthy)
    model.language_projection.bias.data[3] = float("nan")
    found = red(model, folder)
    assert "language_projection.bias" in found["weights"] and "NaN or infinity" in found["activations"]
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    findings = {finding.about: finding for finding in diagnose_model(model, tmp_path)}
    assert "damaged" in findings["files"].says and findings["files"].state == "bad"
    assert findings["weights as in the files"].state == "wait", "not checked, and that is said"


def test_a_reference_is_made_in_float32(healthy, tmp_path):
    model, _ = ill(healthy)
    model.language_model.bfloat16()
    with pytest.raises(ValueError, match="made in float32"):
        save_reference(model, tmp_path)


def test_the_command_diagnoses_a_model(healthy, capsys):
    _, folder = healthy
    assert cli.main(["doctor", str(folder)]) == 0
    assert "All green." in capsys.readouterr().out
    reference = folder / model_doctor.REFERENCE
    stored = reference.read_bytes()
    try:
        tensors = model_doctor.reference_numbers(load.load(folder))
        from safetensors.torch import save_file

        save_file(tensors | {"first_logits": torch.zeros_like(tensors["first_logits"])}, reference)
        assert cli.main(["doctor", str(folder)]) == 2
        captured = capsys.readouterr()
        assert "first logits are" in captured.out and "1 of 14 checks" in captured.err
    finally:
        reference.write_bytes(stored)


def test_it_says_which_attention_kernel_ran(healthy):
    says = {finding.about: finding.says for finding in diagnose_model(*healthy)}["attention"]
    parts = [part.split(": ")[0] for part in says.split("; ")]
    assert parts == ["image encoder", "bridge", "language model"]
    assert "PyTorch's flash attention for CPUs (" in says


# --- Nothing looked at, and NaN, are no good findings ---------------------------------------------------------------


def test_queries_that_are_not_a_number_are_red():
    queries = torch.randn(4, 8)
    assert model_doctor.different_vectors("query tokens", queries).state == "good"
    queries[2, 3] = torch.nan
    found = model_doctor.different_vectors("query tokens", queries)
    assert found.state == "bad" and "NaN" in found.says


def test_gates_that_are_not_a_number_are_red():
    blocks = [SimpleNamespace(attention_gate=torch.tensor(value)) for value in (0.5, 0.0)]
    assert model_doctor.gates(SimpleNamespace(blocks=blocks)).state == "good"
    blocks[1].attention_gate = torch.tensor(torch.nan)
    found = model_doctor.gates(SimpleNamespace(blocks=blocks))
    assert found.state == "bad" and "not a number" in found.says


def test_a_model_without_layer_norms_is_red(monkeypatch):
    monkeypatch.setattr(model_doctor, "models_by_prefix", lambda model: {"": model})
    assert model_doctor.layer_norms(nn.ModuleDict({"layer_norm": nn.LayerNorm(2)})).state == "good"
    found = model_doctor.layer_norms(nn.ModuleDict({"linear": nn.Linear(2, 2)}))
    assert found.state == "bad" and "none is found" in found.says


def test_layers_that_were_not_run_and_files_without_weights_are_red(tiny_model):
    assert "nothing was compared" in layers.layer_by_layer("layers", tiny_model, {}, run=lambda: None).says
    found = layers.loaded_as_written(tiny_model, {})
    assert found.state == "bad" and "nothing was compared" in found.says
