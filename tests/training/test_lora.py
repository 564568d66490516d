"""LoRA: the same function at the start and after merging, no other parameter changes, a plain model on disk."""

from __future__ import annotations

import copy
import importlib.util
import json

import pytest
import torch
from torch import nn

import blip2_lab
from blip2_lab.common.distributed import enable_gradient_checkpointing
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model, with_text
from blip2_lab.training import lora, run_folder
from blip2_lab.training import run as run_module
from blip2_lab.training.builders import build_task, check_recipe
from blip2_lab.training.lora import add_lora, lora_parameters, lora_targets, merge_lora, target_matrices
from blip2_lab.training.optim import train_mode
from blip2_lab.training.recipes.registry import RECIPES, get, with_settings
from blip2_lab.training.recipes.schema import LORA_LAYERS, LORA_TASKS, LoraConfig, override
from blip2_lab.training.trainer import train
from tests.tiny import build_tiny_model, loud
from tests.training.test_run import monday, own_pictures, recipe, start  # noqa: F401  fixtures

PROMPTS, CAPTIONS = ["Question: is it day? Short answer:", "what is it?"], ["yes, it is.", "a red boat."]


def features(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 17, 64, generator=torch.Generator().manual_seed(3))


def answer_loss(model: Stage2Model) -> torch.Tensor:
    return model.loss(image_features=features(), captions=CAPTIONS, prompts=PROMPTS)


def stage1_loss(model: Stage1Model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return model.losses(image_features=features(), captions=CAPTIONS, generator=generator).total


def new_model(kind: str) -> nn.Module:
    """A loud tiny model: t5, opt, the t5 whose Q-Former reads questions, or a stage 1."""
    model = build_tiny_model("opt" if kind == "opt" else "t5")
    loud(model, model.stage1)
    return {"questions": with_text, "stage1": lambda model, stage1: stage1}.get(kind, lambda model, _: model)(
        model, model.stage1
    )


KINDS = ("t5", "opt", "questions", "stage1")


@pytest.mark.parametrize("layers", LORA_LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_lora_starts_as_the_model_trains_everywhere_and_merges_into_the_same_function(kind, layers):
    model, loss = new_model(kind), stage1_loss if kind == "stage1" else answer_loss
    names, before, config = set(model.state_dict()), loss(model).item(), LoraConfig(rank=4, layers=layers)
    added = sum(lora_parameters(target, config) for target in lora_targets(model, config).values())
    add_lora(model, config)
    assert loss(model).item() == pytest.approx(before, rel=1e-5)
    trained = {name: p for name, p in model.named_parameters() if "lora" in name}
    assert sum(p.numel() for p in trained.values()) == added > 0 and all(p.requires_grad for p in trained.values())
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    loss(model).backward()
    idle = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    last = "qformer.layers.1.text_ffn"  # nothing reads its output when queries alone go to the language model
    assert all(kind == "questions" and name.startswith(last) for name in idle), idle
    changed = loss(model).item()
    assert abs(changed - before) > 1e-3
    merge_lora(model)
    assert loss(model).item() == pytest.approx(changed, rel=1e-4) and set(model.state_dict()) == names
    assert not any(p.requires_grad for target in lora_targets(model, config).values() for p in target.parameters())
    merge_lora(model)  # nothing is left to merge
    assert loss(model).item() == pytest.approx(changed, rel=1e-4)


def test_merged_logits_are_those_before_merging():
    model = new_model("t5")
    add_lora(model, LoraConfig(rank=4, layers="linear"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora" in name:
                p.add_(0.05)
    language = model.language_model
    texts = language.training_texts(PROMPTS, CAPTIONS)
    with torch.no_grad():
        unmerged = language.answer_logits(model.visual_prompt(features()), *texts)
        merge_lora(model)
        merged = language.answer_logits(model.visual_prompt(features()), *texts)
    assert torch.allclose(merged, unmerged, rtol=1e-3, atol=5e-3) and unmerged.std() > 0.1  # sums in another order


def test_low_rank_matrices_have_32_bits_beside_frozen_ones_of_16():
    model = new_model("t5")
    model.language_model.model.to(torch.bfloat16)
    add_lora(model, LoraConfig(rank=2))
    assert {p.dtype for name, p in model.named_parameters() if "lora" in name} == {torch.float32}
    assert torch.isfinite(answer_loss(model))
    merge_lora(model)
    assert model.language_model.model.dtype == torch.bfloat16


def test_targets_stay_in_eval_mode_but_for_the_dropout_of_lora():
    model = new_model("t5")
    add_lora(model, LoraConfig(rank=2, dropout=0.5))
    train_mode(model)
    training = {name for name, module in model.named_modules() if module.training}
    dropouts = {name for name in training if "lora_dropout" in name}
    assert dropouts and not any(name.startswith(("qformer.", "language_model.")) for name in training - dropouts)
    first, second = answer_loss(model), answer_loss(model)
    assert first == second  # B is zero: nothing that is dropped counts yet
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora" in name:
                p.add_(0.1)
    assert answer_loss(model) != answer_loss(model)
    model.eval()
    assert not any(module.training for module in model.modules()) and answer_loss(model) == answer_loss(model)


def gradients(model: nn.Module, loss) -> tuple[dict[str, torch.Tensor], int]:
    """The gradients by name, and the bytes that autograd keeps between forward and backward."""
    kept: dict[int, int] = {}
    own = {p.data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        value = loss(model)
    alive = sum(kept.values())
    value.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, alive


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_keeps_the_gradients_of_lora_and_less_memory(kind):
    """Through frozen layers, in eval mode, with the low-rank matrices inside the layers that are computed again."""
    loss, found = stage1_loss if kind == "stage1" else answer_loss, []
    for checkpointed in (False, True):
        model = new_model(kind)
        add_lora(model, LoraConfig(rank=4, layers="linear"))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora" in name:
                    p.add_(0.05)
        if checkpointed:
            enable_gradient_checkpointing(model)
        train_mode(model)
        found.append(gradients(model, loss))
    (plain, kept), (again, kept_less) = found
    assert plain.keys() == again.keys() and any("lora_A" in name for name in plain)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, again[name], rtol=1e-4, atol=1e-6), name
    assert kept_less < 0.7 * kept


# ----------------------------------------------------------------------------------------------------------- in a run


def lora_recipe(start, place, *changes, name="mine"):  # noqa: F811
    return recipe(start, place, "lora.rank=2", "optim.lr=1e-2", *changes, name=name)


def frozen_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of everything that is not trained, by the names of the plain model."""
    return {
        name.replace(".base_layer", ""): p.detach().clone()
        for name, p in model.named_parameters()
        if not p.requires_grad
    }


def test_a_run_changes_lora_and_the_projection_alone(tmp_path, start, monday):  # noqa: F811
    chosen = lora_recipe(start, monday)
    task = build_task(chosen, tmp_path)
    frozen, trained = frozen_tensors(task.model), run_folder.trained_tensors(task.model)
    assert {name for name in trained if "lora" not in name} == {
        "language_projection.weight",
        "language_projection.bias",
    } and any(name.startswith("language_model") for name in trained)
    begun = {name: tensor.clone() for name, tensor in trained.items()}
    saved, task.save = task.save, lambda folder: None  # look before the matrices are merged
    train(task, chosen.optim, run_dir=tmp_path / "run", eval_every=2, save_every=2, progress=False)
    after = frozen_tensors(task.model)
    assert after.keys() == frozen.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())
    now = run_folder.trained_tensors(task.model)
    assert not any(torch.equal(begun[name], now[name]) for name in begun if "lora_B" in name or "projection" in name)
    saved(tmp_path / "plain")
    merged = blip2_lab.load(tmp_path / "plain").state_dict()
    plain = blip2_lab.load(start).state_dict()
    assert merged.keys() == plain.keys()
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    queries_and_values = {
        f"{part}.{name}.weight"
        for part, target in lora_targets(blip2_lab.load(start), chosen.lora).items()
        for name in target_matrices(target, chosen.lora)
    }
    assert changed == queries_and_values | {"language_projection.weight", "language_projection.bias"}


def test_an_interrupted_run_with_lora_resumes_exactly_and_its_checkpoints_are_small(tmp_path, start, monday):  # noqa: F811
    runs = tmp_path / "runs"
    final = run_module.run(lora_recipe(start, monday, "lora.dropout=0.3", name="whole"), runs, progress=False)
    run_module.run(lora_recipe(start, monday, "lora.dropout=0.3", "optim.steps=4", name="cut"), runs, progress=False)
    import shutil

    shutil.rmtree(runs / "cut" / "checkpoints" / "step-4")
    shutil.rmtree(runs / "cut" / "model")
    again = run_module.run(lora_recipe(start, monday, "lora.dropout=0.3", name="cut"), runs, progress=False)
    timing = ("seconds", "samples_per_second")
    assert {k: v for k, v in again.items() if k not in timing} == {k: v for k, v in final.items() if k not in timing}
    whole, cut = (blip2_lab.load(runs / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    sizes = [(runs / "whole" / place / "model.safetensors").stat().st_size for place in ("checkpoints/step-4", "model")]
    assert sizes[0] < 0.1 * sizes[1]
    assert json.loads((runs / "whole" / "recipe.json").read_text())["lora"]["rank"] == 2
    with pytest.raises(ValueError, match="mine|whole was started with lora.rank=2, not 4"):
        run_module.run(override(lora_recipe(start, monday, name="whole"), "lora.rank=4"), runs, progress=False)


def test_retrieval_gives_lora_to_the_qformer_and_trains_the_heads(tmp_path, start, monday):  # noqa: F811
    stage1 = copy.deepcopy(blip2_lab.load(start).stage1)
    blip2_lab.save(stage1, tmp_path / "stage1")
    chosen = get("micro-retrieval")
    on = recipe(start, monday).data
    from dataclasses import replace

    chosen = replace(chosen, name="mine", data=on, eval_every=2, save_every=2)
    for change in (f"model.start={tmp_path / 'stage1'}", "lora.rank=2", "optim.steps=2", "optim.batch_size=4"):
        chosen = override(chosen, change)
    task = build_task(chosen, tmp_path)
    trained = run_folder.trained_tensors(task.model)
    assert any("lora" in name for name in trained) and "itm_head.weight" in trained and "temperature" in trained
    assert not any(name.startswith("qformer") and "lora" not in name for name in trained)
    run_module.run(chosen, tmp_path, progress=False)
    found = blip2_lab.load(tmp_path / "mine")
    before = blip2_lab.load(tmp_path / "stage1")
    assert found.state_dict().keys() == before.state_dict().keys()
    assert not torch.equal(
        found.qformer.layers[0].self_attention.query.weight, before.qformer.layers[0].self_attention.query.weight
    )
    assert torch.equal(
        found.qformer.layers[0].self_attention.key.weight, before.qformer.layers[0].self_attention.key.weight
    )


# ------------------------------------------------------------------------------------------------------------ settings


def test_lora_is_a_setting_of_the_tasks_that_start_from_a_trained_model():
    for name, chosen in RECIPES.items():
        assert (chosen.lora is not None) == (chosen.task in LORA_TASKS), name
    with pytest.raises(ValueError, match="recipe micro-stage1 has no setting 'lora.rank'"):
        override(get("micro-stage1"), "lora.rank=8")
    with pytest.raises(ValueError, match="no setting 'lora.rnk'; did you mean 'lora.rank'?"):
        override(get("micro-captions"), "lora.rnk=8")
    parts = {part.name: part for part in with_settings(get("micro-all"), ["lora.rank=8"])}
    assert parts["micro-stage2"].lora.rank == 8 and parts["micro-stage1"].lora is None
    for wrong in ("lora.rank=-1", "lora.alpha=0", "lora.dropout=1", "lora.targets=opt", "lora.layers=all"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0].split(".")[1]):
            override(get("micro-captions"), wrong)


@pytest.mark.parametrize(
    "name,changes,says",
    [
        ("micro-retrieval", ["lora.targets=language_model"], "has no language model: lora.targets=qformer"),
        ("micro-stage2", ["model.pretrained=false"], "has untrained cross-attention"),
        ("micro-linear", [], "a new bridge has learned nothing"),
        ("micro-stage2", ["optim.shard=true"], "saves no memory"),
    ],
)
def test_lora_that_makes_no_sense_is_refused_before_anything_is_loaded(name, changes, says):
    chosen = get(name)
    for change in ("lora.rank=8", *changes):
        chosen = override(chosen, change)
    with pytest.raises(ValueError, match=says):
        check_recipe(chosen)
    check_recipe(override(chosen, "lora.rank=0"))


def test_without_peft_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(
        lora.importlib.util, "find_spec", lambda name: None if name == "peft" else importlib.util.find_spec(name)
    )
    with pytest.raises(
        ValueError, match=r"lora.rank needs peft, which is not installed: pip install 'blip2-lab\[lora\]'"
    ):
        check_recipe(override(get("micro-stage2"), "lora.rank=8"))
    check_recipe(get("micro-stage2"))
    add_lora(build_tiny_model(), LoraConfig())  # rank 0: nothing is imported, nothing changes


def test_a_target_that_a_model_lacks_is_named():
    with pytest.raises(ValueError, match="there is no language_model to give LoRA: choose lora.targets=qformer"):
        add_lora(build_tiny_model().stage1, LoraConfig(rank=2, targets="language_model"))
