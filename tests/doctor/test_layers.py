"""The doctor in the other layouts: transformers' retrieval models, and LAVIS's files of both stages."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from blip2_lab import cli
from blip2_lab.checkpoints import lavis, load
from blip2_lab.checkpoints.catalog import EVA_FILE
from blip2_lab.checkpoints.key_maps import LAVIS_STAGE2, rename_keys, reverse, to_lavis
from blip2_lab.checkpoints.lavis import drop_unused_eva_keys
from blip2_lab.doctor import layers
from blip2_lab.doctor import model as model_doctor
from blip2_lab.doctor.layers import tensors_of
from blip2_lab.doctor.model import diagnose_model, fixed_pixels, model_report, save_reference, stage1_outputs
from blip2_lab.models.stage1 import Stage1Model
from tests.checkpoints.test_huggingface import golden_folder
from tests.checkpoints.test_lavis import eva
from tests.tiny import build_tiny_model, loud

KINDS = ("retrieval", "golden", "lavis-stage1", "lavis-t5", "lavis-opt")
ALL = ("versions", "precision", "files", "weights", "LayerNorms", "query tokens", "activations")
ALL += ("weights as in the files", "float32, layer by layer", "padding", "batch = single", "attention")
ALL += ("fused = written out", "repeats")


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", params=KINDS)
def healthy(request, tmp_path_factory, patch):
    """A model with random weights, and the folder or file that it was loaded from."""
    folder = tmp_path_factory.mktemp(request.param)
    path = write(request.param, folder, patch)
    return load.load(path), path


def write(kind: str, folder, patch):
    if kind == "golden":  # transformers' own weights, without a tokenizer
        return golden_folder("itm", folder)
    model = build_tiny_model("opt" if kind == "lavis-opt" else "t5")
    loud(model, model.stage1)
    if kind == "retrieval":
        load.save(model.stage1, folder)
        return folder
    if kind == "lavis-stage1":
        vision = {f"visual_encoder.{name}": tensor for name, tensor in drop_unused_eva_keys(eva(model)).items()}
        state = {name: tensor.clone().contiguous() for name, tensor in (to_lavis(model.stage1) | vision).items()}
        save_file(state, folder / "blip2.safetensors")
        model.stage1.tokenizer.save_pretrained(folder / "bert-base-uncased")
        return folder / "blip2.safetensors"
    table = tuple(row for row in LAVIS_STAGE2 if row[0] == f"{kind[6:]}_proj" or row[1] != "language_projection")
    state = rename_keys(model.state_dict(), reverse(table), ignore=("image_encoder.", "language_model."))
    torch.save({"model": state}, folder / "blip2.pth")
    torch.save(eva(model), folder / EVA_FILE)
    model.language_model.model.save_pretrained(folder / "language-model")
    model.language_model.tokenizer.save_pretrained(folder / "language-model")
    patch.setattr(lavis, "NEW_LINE", model.language_model.end_token_id)  # a small vocabulary has none
    return folder


def ill(healthy):
    """A copy to plant a fault in."""
    model, path = healthy
    return copy.deepcopy(model), path


def red(model, path) -> dict[str, str]:
    findings = diagnose_model(model, path)
    assert all(finding.says.count("\n") == 0 for finding in findings)
    return {finding.about: finding.says for finding in findings if finding.state == "bad"}


def only_retrieves(model) -> None:
    if not isinstance(model, Stage1Model):
        pytest.skip("a stage 2 reads no text with its Q-Former")


def test_a_healthy_model_is_green(healthy):
    model, path = healthy
    findings = diagnose_model(model, path)
    assert [finding for finding in findings if finding.state == "bad"] == []
    waiting = [finding.about for finding in findings if finding.state == "wait"]
    nameless = isinstance(model, Stage1Model) and model.tokenizer is None
    assert waiting == (["tokenizer"] if nameless else [])
    assert [finding.about for finding in findings if finding.state == "good"] == list(ALL)
    assert model_report(findings).endswith("No red. 1 could not be checked." if nameless else "All green.")


def test_every_tensor_of_the_files_is_compared(healthy):
    model, path = healthy
    named, own = tensors_of(model, path), dict(model.named_parameters(remove_duplicate=False))
    assert named.keys() <= own.keys()
    filed = {id(own[name]) for name in named}
    without_file = [name for name, parameter in own.items() if id(parameter) not in filed]
    cannot_write = isinstance(model, Stage1Model) and "lm_head.bias" not in own  # transformers' layout
    assert without_file == (["temperature"] if cannot_write else [])
    says = next(f.says for f in diagnose_model(model, path) if f.about == "weights as in the files")
    assert says == f"{len(named)} compared" + ("; not in them: temperature" if without_file else "")


# --- the faults -----------------------------------------------------------------------------------------------------


def test_zeroed_queries_of_a_retrieval_model(healthy):
    model, path = ill(healthy)
    model.qformer.query_tokens.data.zero_()
    found = red(model, path)
    assert "all are equal" in found["query tokens"]
    assert "qformer.query_tokens is not what the files have" in found["weights as in the files"]


def test_swapped_ffn_towers_of_a_layer_are_named(healthy):
    model, path = ill(healthy)
    only_retrieves(model)
    last = model.qformer.layers[-1]  # of which the text alone, not the pairs, uses the text's tower
    last.query_ffn, last.text_ffn = last.text_ffn, last.query_ffn
    found, i = red(model, path), len(model.qformer.layers) - 1
    assert f"qformer.layers.{i}." in found["weights as in the files"]
    assert f"but what they have as qformer.layers.{i}." in found["weights as in the files"]
    assert f"qformer.layers.{i} does not compute what its weights say" in found["float32, layer by layer"]


def test_layers_that_changed_places(healthy):
    model, path = ill(healthy)
    first, second = model.qformer.layers[:2]
    first.query_ffn, second.query_ffn = second.query_ffn, first.query_ffn
    found = red(model, path)
    assert "but what they have as qformer.layers." in found["weights as in the files"]
    assert "does not compute what its weights say" in found["float32, layer by layer"]


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("qformer.layers.1.query_ffn.layer_norm", "qformer.layers.1"),
        ("qformer.embedding_layer_norm", "qformer.embedding_layer_norm"),
        ("image_encoder.model.encoder.layers.0.layer_norm1", "image_encoder.model.encoder.layers.0"),
    ],
)
def test_each_missing_layer_norm_is_named(healthy, place, part):
    model, path = ill(healthy)
    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, nn.Identity())
    found = red(model, path)
    assert f"{place} is missing" in found["LayerNorms"]
    says = found["weights as in the files"]
    assert says.startswith(f"{place}.") and "is in the files, and the model has no place for it (1 more)" in says
    assert f"{part} does not compute what its weights say" in found["float32, layer by layer"]


def test_a_changed_weight(healthy):
    """The smallest change of one number in each part, by its name; a large one changes what the part computes."""
    model, path = healthy
    for name in ("qformer.layers.0.cross_attention.key.weight", "image_encoder.model.encoder.layers.1.mlp.fc1.bias"):
        sick = copy.deepcopy(model)
        sick.get_parameter(name).data.view(-1)[3] *= 1.001
        found = red(sick, path)
        assert found.keys() == {"weights as in the files"}
        assert found["weights as in the files"].startswith(f"{name} is not what the files have under its name:")
    for part in ("itm_head", "text_projection") if isinstance(model, Stage1Model) else ("language_projection",):
        sick = copy.deepcopy(model)
        sick.get_submodule(part).weight.data *= 2
        found = red(sick, path)
        assert f"{part}.weight is not" in found["weights as in the files"]
        assert f"{part} does not compute what its weights say" in found["float32, layer by layer"]


def test_a_changed_rule(healthy):
    """All weights are right, and a layer computes something else with them."""
    model, path = ill(healthy)
    model.qformer.layers[1].self_attention.num_heads *= 2
    found = red(model, path)
    assert "qformer.layers.1 does not compute what its weights say" in found["float32, layer by layer"]
    assert "weights as in the files" not in found


def test_nan(healthy):
    model, path = ill(healthy)
    model.qformer.layers[1].query_ffn.contract.bias.data[0] = float("nan")
    found = red(model, path)
    assert "qformer.layers.1.query_ffn.contract.bias" in found["weights"]
    assert "qformer.layers.1.query_ffn.contract gives NaN or infinity in float32" in found["activations"]


def test_a_model_that_does_not_run(healthy):
    model, path = ill(healthy)
    model.qformer.layers[0].query_ffn = None
    findings = {finding.about: finding for finding in diagnose_model(model, path)}
    assert "the model does not run (TypeError" in findings["activations"].says
    waiting = [about for about, finding in findings.items() if finding.state == "wait"]
    assert waiting == ["float32, layer by layer", *model_doctor.FORWARD_CHECKS]
    assert model_report(list(findings.values())).endswith(f"{len(waiting)} could not be checked.")


def test_padding_that_is_attended_to(healthy, monkeypatch):
    model, path = ill(healthy)
    only_retrieves(model)
    embed_text = model.embed_text
    monkeypatch.setattr(model, "embed_text", lambda ids, mask: embed_text(ids, torch.ones_like(mask)))
    assert red(model, path).keys() == {"padding"}


def test_padding_on_the_wrong_side(healthy):
    model, path = ill(healthy)
    only_retrieves(model)
    if model.tokenizer is None:
        pytest.skip("no tokenizer, no padding")
    model.tokenizer.padding_side = "left"
    assert "belongs behind it" in red(model, path)["padding"]


def test_outputs_that_depend_on_the_batch(healthy):
    model, path = ill(healthy)
    model.image_encoder.register_forward_hook(lambda _, __, features: features + 5 * features.mean(0))
    assert "depend" in red(model, path)["batch = single"]


def test_dropout_left_on(healthy):
    model, path = ill(healthy)
    only_retrieves(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1  # the golden model has none
    assert "dropout is on" in red(model.train(), path)["repeats"]


def test_a_kernel_that_is_wrong(healthy, monkeypatch):
    model, path = healthy
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention",
        lambda q, *rest, **options: attention(2 * q, *rest, **options),
    )
    assert "take another torch" in red(model, path)["fused = written out"]


def test_quantized_weights_are_checked_layer_by_layer(healthy):
    model, path = healthy
    if isinstance(model, Stage1Model):
        pytest.skip("a retrieval model is small, and stays as it is")
    model = load.load(path, quantize="int8", dtype="float32")
    findings = {finding.about: finding for finding in diagnose_model(model, path)}
    assert [finding for finding in findings.values() if finding.state != "good"] == []
    assert "quantized, for the next check" in findings["weights as in the files"].says
    language = model.language_model.model
    block = language.encoder.block[0] if language.config.is_encoder_decoder else language.model.decoder.layers[0]
    layer = next(m for n, m in block.named_modules() if n.endswith(("wi_1", "fc2")))
    layer.scale *= 3
    found = red(model, path)
    assert "0 does not compute what its weights say" in found["float32, layer by layer"]
    assert "weights as in the files" not in found


# --- files ----------------------------------------------------------------------------------------------------------


def test_missing_or_truncated_files(healthy):
    model, path = healthy
    folder = path if path.is_dir() else path.parent
    file = next(name for name in ("model.safetensors", EVA_FILE, "blip2.safetensors") if (folder / name).is_file())
    whole = (folder / file).read_bytes()
    try:
        (folder / file).write_bytes(whole[: len(whole) // 2])
        findings = {finding.about: finding for finding in diagnose_model(model, path)}
        assert findings["files"].state == "bad" and f"{file} is cut off" in findings["files"].says
        assert findings["weights as in the files"].state == "wait"
        assert file in findings["float32, layer by layer"].says
        if file == EVA_FILE:
            (folder / file).unlink()
            assert (
                f"{file}, from which the image encoder was loaded, does not exist any more" in red(model, path)["files"]
            )
    finally:
        (folder / file).write_bytes(whole)


def test_a_model_whose_files_are_missing(healthy, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.pth"):
        findings = {finding.about: finding for finding in diagnose_model(healthy[0], path)}
        assert "does not exist any more" in findings["files"].says and findings["files"].state == "bad"
        assert "does not exist any more" in findings["weights as in the files"].says


def test_without_files_nothing_is_compared(healthy):
    findings = {finding.about: finding for finding in diagnose_model(healthy[0])}
    assert "files were not given" in findings["weights as in the files"].says
    assert "files" not in findings and not any(finding.state == "bad" for finding in findings.values())


# --- the command, and the reference ---------------------------------------------------------------------------------


def test_the_command_compares_layer_by_layer(healthy, capsys):
    model, path = healthy
    assert cli.main(["doctor", str(path)]) == 0
    assert "float32, layer by layer" in capsys.readouterr().out
    assert cli.main(["doctor", str(path), "--json"]) == 0
    assert {finding["state"] for finding in json.loads(capsys.readouterr().out)} <= {"good", "wait"}


def test_a_reference(healthy, capsys):
    model, path = ill(healthy)
    if not (path / "config.json").is_file():
        assert cli.main(["doctor", str(path), "--remember"]) == 2
        assert "it would be taken for weights" in capsys.readouterr().err
        return
    stored = save_reference(model, path)
    try:
        assert load_file(stored).keys() == {"image_features", "image_embeds", "text_embeds", "itm_logits"}
        assert red(model, path) == {}
        model.qformer.layers[0].text_ffn.contract.weight.data *= 2
        assert "text embeds are" in red(model, path)["float32 reference"]
    finally:
        stored.unlink()


def test_the_outputs_are_the_golden_ones(tmp_path):
    """What the doctor compares is what transformers gives."""
    from tests.checkpoints.test_huggingface import GOLDEN

    model = load.load(golden_folder("itm", tmp_path))
    io = load_file(GOLDEN / "hf_itm_tiny_io.safetensors")
    features = model.image_features(io["in.pixel_values"])
    with torch.no_grad():
        numbers = stage1_outputs(model, features, io["in.input_ids"], io["in.attention_mask"])
    for ours, theirs in (("image_embeds", "itc."), ("text_embeds", "itc."), ("itm_logits", "itm.logits_per_image")):
        expected = io[theirs if theirs[-1] != "." else theirs + ours]
        torch.testing.assert_close(numbers[ours], expected, atol=2e-5, rtol=1e-4)
    assert model_doctor.run(model, fixed_pixels(model)).keys() == numbers.keys()


def test_a_distance_of_what_is_not_a_number_is_infinite_and_red():
    """Beside NaN every comparison is false: `distance > tolerance` would find nothing."""
    numbers = torch.tensor([1.0, 2.0])
    assert layers.relative_distance(numbers, numbers) == 0
    for wrong in (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.inf])):
        for pair in ((wrong, numbers), (numbers, wrong), (wrong, wrong)):
            distance = layers.relative_distance(*pair)
            assert distance == torch.inf and layers.judge_distance("layers", distance, 1e-3, "wrong").state == "bad"
