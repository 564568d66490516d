"""The miniature's recipes for each bridge: a handful of steps, saved, loaded, and asked."""

import pytest
import torch

import blip2_lab
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.training import builders, run
from blip2_lab.training.recipes.bridges import MICRO_BRIDGES, STAGE2
from blip2_lab.training.recipes.registry import get, needs
from blip2_lab.training.recipes.schema import BridgeParts
from blip2_lab.training.run_folder import read_log
from tests.training.tasks.test_stages import parts, recipe  # noqa: F401  `parts` is a fixture

BRIDGES = [r.name for r in MICRO_BRIDGES if isinstance(r.model, BridgeParts)]
#: The tiny image encoder of the fixture has 9 patches.
SIZES = {
    "micro-linear-pooled": ("model.num_visual_tokens=3",),
    "micro-wide-qformer": ("model.width=64", "model.num_layers=1", "model.image_size=96", "model.num_visual_tokens=3"),
    "micro-gated": ("model.ffn_width=64",),
    "micro-gated-resampler": ("model.ffn_width=64", "model.num_visual_tokens=3"),
}


def test_they_differ_from_stage_2_in_nothing_but_the_bridge():
    for each in MICRO_BRIDGES:
        assert (each.optim, each.data, each.seed) == (STAGE2.optim, STAGE2.data, STAGE2.seed)
        assert each.model.language_model == STAGE2.model.language_model
        assert each.model.max_text_tokens == STAGE2.model.max_text_tokens and each.model.match_embeddings
    assert needs(get("micro-linear")) == ("micro-vit", "micro-flan-t5")


@pytest.mark.parametrize("name", BRIDGES)
def test_a_handful_of_steps(parts, name):  # noqa: F811
    for language in ("micro-t5", "micro-opt"):
        chosen = recipe(name, f"model.language_model={language}", *SIZES.get(name, ()))
        run.run(chosen, parts, resume=False, progress=False)
        log = read_log(parts / name)
        assert log[-1]["step"] == 3 and {"accuracy", "shuffled"} <= log[-1]["evaluation"].keys()
        model = blip2_lab.load(parts / name / "model")
        assert isinstance(model, Stage2Model)
        fresh = builders.build_task(chosen, parts).model
        assert model.image_encoder.image_size == (96 if "wide" in name else 48)
        weights, before = model.bridge.state_dict(), fresh.bridge.state_dict()
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
        assert any(not torch.equal(tensor, before[key]) for key, tensor in weights.items())
        frozen = fresh.language_model.state_dict()
        assert all(torch.equal(tensor, frozen[key]) for key, tensor in model.language_model.state_dict().items())


def test_a_bridge_that_does_not_exist_is_said(parts):  # noqa: F811
    with pytest.raises(ValueError, match="no bridge 'linaer'; did you mean 'linear'"):
        builders.build_task(recipe("micro-linear", "model.bridge=linaer"), parts)
    with pytest.raises(ValueError, match="both models frozen"):
        builders.build_task(recipe("micro-linear", "model.train_language_model=true"), parts)
    with pytest.raises(ValueError, match="50 pixels are no whole number of patches of 16: take 48 or 64"):
        builders.build_task(recipe("micro-linear", "model.image_size=50"), parts)
