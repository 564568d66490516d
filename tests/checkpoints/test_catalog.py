"""Every released model on the meta device: its parameters, keys and bytes; and the errors where it does not fit."""

import re

import pytest
import torch
from torch import nn

from blip2_lab.checkpoints import memory
from blip2_lab.checkpoints.catalog import COLUMNS, MODELS, blip2_config, models_table, released
from blip2_lab.checkpoints.key_maps import (
    LAVIS_IGNORED,
    LAVIS_STAGE1,
    LAVIS_STAGE2,
    TRANSFORMERS_STAGE1,
    TRANSFORMERS_STAGE2,
    renamer,
    reverse,
    transformers_names,
)
from blip2_lab.checkpoints.memory import GIB, check_disk, check_memory, default_dtype, weight_bytes
from blip2_lab.checkpoints.meta_model import empty_model, model_bytes
from blip2_lab.models.quantize import METHODS

PRETRAINED = [model for model in MODELS if model.image_size == 224]


@pytest.fixture(scope="module", params=PRETRAINED, ids=lambda model: model.name.split("/")[1])
def built(request):
    return request.param, empty_model(blip2_config(request.param))


def own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Without what transformers' retrieval layout has no place for."""
    absent = ("lm_head.", "temperature")
    return {name: p for name, p in model.named_parameters() if not name.startswith(absent)}


def test_every_parameter_is_counted(built):
    released_model, model = built
    assert sum(p.numel() for p in own_parameters(model).values()) == released_model.parameters


@pytest.mark.parametrize("model", [model for model in MODELS if model.image_size == 364], ids=lambda model: model.name)
def test_every_parameter_of_a_fine_tuned_model_is_counted(model):
    assert sum(p.numel() for p in own_parameters(empty_model(blip2_config(model))).values()) == model.parameters


def test_the_table_has_the_parameters_of_the_released_models():
    """The four that answer, FlanT5's lm_head counted by itself."""
    counts = {model.name.removeprefix("Salesforce/blip2-"): model.parameters for model in MODELS}
    assert counts["flan-t5-xl"] == 3_942_446_592 and counts["flan-t5-xxl"] == 12_229_596_672
    assert counts["opt-2.7b"] == 3_744_679_936 and counts["opt-6.7b"] == 7_752_738_304


@pytest.mark.slow
def test_every_key_of_transformers_layout_is_accounted_for(built):
    """transformers' own class, built on the meta device, has the keys that our names turn into, in the same shapes."""
    from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval
    from transformers.initialization import no_init_weights

    released_model, model = built
    retrieval = released_model.language_model is None
    kind = Blip2ForImageTextRetrieval if retrieval else Blip2ForConditionalGeneration
    with torch.device("meta"), no_init_weights():
        theirs = {n: p.shape for n, p in kind(blip2_config(released_model)).named_parameters(remove_duplicate=False)}
    to_ours, to_theirs = transformers_names(TRANSFORMERS_STAGE1 if retrieval else TRANSFORMERS_STAGE2)
    ours = {n: p.shape for n, p in model.named_parameters(remove_duplicate=False) if n in own_parameters_all(model)}
    assert {to_theirs(name): shape for name, shape in ours.items()} == theirs
    assert {to_ours(name) for name in theirs} == ours.keys()


def own_parameters_all(model: nn.Module) -> set[str]:
    absent = ("lm_head.", "temperature")
    return {name for name, _ in model.named_parameters(remove_duplicate=False) if not name.startswith(absent)}


def test_every_key_of_laviss_layout_is_accounted_for(built):
    released_model, model = built
    models_table = LAVIS_STAGE1 if released_model.language_model is None else LAVIS_STAGE2
    frozen = ("image_encoder.", "language_model.")
    names = {name for name, _ in model.named_parameters() if not name.startswith(frozen)}
    theirs = {name: renamer(reverse(models_table))(name) for name in names}
    assert None not in theirs.values() and len(set(theirs.values())) == len(names)
    assert {renamer(models_table)(key) for key in theirs.values()} == names
    assert all(renamer(models_table)(key) is None for key in LAVIS_IGNORED), "a buffer is no parameter"


@pytest.mark.parametrize("method", [None, *METHODS])
def test_weight_bytes_extrapolates_from_few_layers(built, method):
    released_model, model = built
    dtype = torch.bfloat16
    assert weight_bytes(blip2_config(released_model), method, dtype) == model_bytes(model, method, dtype)


@pytest.mark.parametrize(("method", "most"), [("int8", 13.7), ("int8-all", 11.7), ("nf4", 8.1), (None, 23.1)])
def test_the_largest_model_fits_as_promised(method, most):
    config = blip2_config(released("Salesforce/blip2-flan-t5-xxl"))
    assert most - 0.5 < weight_bytes(config, method, torch.bfloat16) / GIB < most


# --- no room --------------------------------------------------------------------------------------------------------

XXL = "Salesforce/blip2-flan-t5-xxl"


def refusal(monkeypatch, free_gib: float, quantize: str | None = None) -> str:
    monkeypatch.setattr(memory, "free_memory", lambda device: int(free_gib * GIB))
    with pytest.raises(ValueError) as caught:
        check_memory(blip2_config(released(XXL)), XXL, "cpu", quantize, torch.bfloat16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_too_little_memory_names_the_next_smaller_choice(monkeypatch):
    assert f"What fits: {XXL} (13.6 GiB), with --quantize int8." in refusal(monkeypatch, 16)
    assert f"What fits: {XXL} (11.6 GiB), with --quantize int8-all." in refusal(monkeypatch, 14, "int8")
    assert f"What fits: {XXL} (7.8 GiB), with --quantize nf4." in refusal(monkeypatch, 9)
    assert "What fits: Salesforce/blip2-opt-6.7b (7.5 GiB), with --quantize int8" in refusal(monkeypatch, 8.75, "nf4")
    message = refusal(monkeypatch, 2)
    assert "needs 23.0 GiB" in message and "has 2.0 GiB free" in message and '"micro" does' in message


def test_enough_memory_raises_nothing(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 15 * GIB)
    check_memory(blip2_config(released(XXL)), XXL, "cpu", "int8", torch.bfloat16)


def test_a_container_may_allow_less_than_the_machine_has(monkeypatch):
    free = memory.free_memory("cpu")
    assert free > 0
    monkeypatch.setattr(memory, "_container_limits", lambda: iter([123]))
    assert memory.free_memory("cpu") == 123


def test_too_little_disk_names_the_disk_and_a_smaller_model(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_disk", lambda folder: 20_000_000_000)
    with pytest.raises(ValueError, match=r"48.9 GB to fetch, and the disk of .* has 20.0 GB free.*HF_HOME.*xl-coco"):
        check_disk(XXL, 48_900_000_000, tmp_path)
    check_disk(XXL, 19_000_000_000, tmp_path)


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert memory.free_disk(tmp_path / "a" / "b") > 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_catalog_has_the_bytes_of_every_model(model):
    """Bytes in memory are counted again on the meta device: as they are, and by every method of quantization."""
    config = blip2_config(model)
    if model.language_model is None:  # small, and stays as it is
        assert model.weights == {"half": weight_bytes(config, None, torch.float32)}
        return
    half = default_dtype(config.text_config.model_type == "t5", "cuda", None)
    assert model.weights == {what: weight_bytes(config, None if what == "half" else what, half) for what in COLUMNS}


def test_the_columns_are_the_methods():
    assert COLUMNS == ("half", *METHODS)


def test_the_table_has_every_model():
    text = models_table()
    for model in MODELS:
        assert re.search(
            rf"^{model.name} +{model.parameters / 1e9:.2f} B +{4 * model.parameters / 1e9:.1f} GB", text, re.M
        )
    assert "research only" in text and all(len(line) <= 125 for line in text.splitlines())
