"""Schedule, parameter groups, training mode, settings."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from blip2_lab.training.optim import learning_rate, parameter_groups, train_mode
from blip2_lab.training.recipes.schema import OptimConfig

OPTIM = OptimConfig(lr=1e-2, warmup_steps=3, steps=12, batch_size=8, precision="fp32")


def test_learning_rate_by_hand():
    optim = OptimConfig(lr=1.0, min_lr=0.2, warmup_steps=4, steps=14, batch_size=1)
    assert [learning_rate(optim, step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(optim, 4) == 1.0
    assert learning_rate(optim, 9) == pytest.approx(0.6)  # half way down the cosine
    assert learning_rate(optim, 14) == pytest.approx(0.2)
    assert learning_rate(optim, 99) == pytest.approx(0.2)
    assert learning_rate(replace(optim, warmup_steps=0), 0) == 1.0


def test_parameter_groups_cover_everything_once():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "fast": nn.Embedding(4, 3)})
    model.register_parameter("temperature", nn.Parameter(torch.tensor(0.07)))
    model["a"].bias.requires_grad_(False)
    groups = parameter_groups(model, 1e-3, 0.05, lr_scales={"fast": 30.0}, no_decay=("fast",))
    decays = {id(p): (g["weight_decay"], g["lr"], g["lr_scale"]) for g in groups for p in g["params"]}
    assert decays[id(model["a"].weight)] == (0.05, 1e-3, 1.0)
    assert decays[id(model["norm"].weight)] == decays[id(model.temperature)] == (0.0, 1e-3, 1.0)
    assert decays[id(model["fast"].weight)] == (0.0, pytest.approx(0.03), 30.0)
    assert id(model["a"].bias) not in decays and len(decays) == 5


@pytest.mark.parametrize("wrong", [{"precision": "fp8"}, {"steps": 0}, {"accumulate": 3}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        replace(OPTIM, **wrong)
    with pytest.raises(TypeError):
        OptimConfig(**{"lr": 1e-3, "warmup_steps": 1, "steps": 1, "batch_size": 1, "lr_decay": 0.1})


def test_a_pass_is_the_share_of_a_process(monkeypatch):
    assert replace(OPTIM, accumulate=2).pass_size == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert replace(OPTIM, accumulate=2).pass_size == 2


def test_train_mode_keeps_frozen_modules_in_eval_mode():
    frozen = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).requires_grad_(False)
    model = nn.ModuleDict({"frozen": frozen, "body": nn.Linear(2, 2), "dropout": nn.Dropout(0.5)}).eval()
    train_mode(model)
    assert model["body"].training and model["dropout"].training
    assert not frozen.training and not frozen[1].training
