"""Trackers: the numbers of log.jsonl reach TensorBoard or W&B, a missing package is one sentence."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from blip2_lab.training import trackers
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import override
from blip2_lab.training.run_folder import RunFolder


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package: what a run in it was started with, and what it was given."""
    seen = SimpleNamespace(started=[], logged=[], finished=0, error=None)

    class Run:
        def log(self, values, step):
            seen.logged.append((values, step))

        def finish(self):
            seen.finished += 1

    def init(**options):
        if seen.error:
            raise seen.error
        seen.started.append(options)
        return Run()

    fake = ModuleType("wandb")
    fake.init = init
    fake.__spec__ = SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return seen


def test_wandb_gets_the_numbers_and_goes_on_with_the_same_run(tmp_path, wandb):
    run = RunFolder(tmp_path / "mine", log_with="wandb")
    run.open({"seed": 3, "lr": 0.1})
    for step in (20, 40):
        run.start_trackers(step)
        run.log({"step": step, "total": 1.5, "evaluation": {"held_out": 2.0, "step": 7}})
        run.finish_trackers()
    assert wandb.logged == [({"total": 1.5, "evaluation/held_out": 2.0}, step) for step in (20, 40)]
    first, second = wandb.started
    assert first == second and first["resume"] == "allow" and first["name"] == "mine" and wandb.finished == 2
    assert first["project"] == "blip2-lab" and first["config"] == {"seed": 3, "lr": 0.1}
    assert first["settings"] == trackers.NUMBERS_ONLY
    run.clear()  # a run that begins anew is another one
    run.open({"seed": 3, "lr": 0.1})
    run.start_trackers(1)
    assert wandb.started[-1]["id"] != first["id"]


def test_a_tracker_that_does_not_start_is_one_sentence(tmp_path, wandb):
    wandb.error = RuntimeError("api_key not configured (no-tty).\nCall wandb.login")
    run = RunFolder(tmp_path / "mine", log_with="wandb")
    run.open({})
    with pytest.raises(ValueError, match=r"does not start \(api_key not configured .*WANDB_MODE=offline"):
        run.start_trackers(1)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_sentence_before_anything_is_loaded(tmp_path, monkeypatch, name):
    from blip2_lab.training import run as run_module

    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    chosen = override(get("micro-bert"), f"log_with={name}")
    with pytest.raises(ValueError, match=f"log_with={name} needs {name}, which is not installed: pip install {name}"):
        run_module.run(chosen, tmp_path)
    assert not (tmp_path / "micro-bert").exists()
    assert trackers.open_trackers("auto", tmp_path, 1) == trackers.open_trackers("none", tmp_path, 1) == []


def test_log_with_is_a_setting_of_every_recipe_and_its_values_are_known():
    assert override(get("micro-bert"), "log_with=none").log_with == "none"
    with pytest.raises(ValueError, match="log_with=wandbb is unknown: choose auto, tensorboard, wandb, none"):
        override(get("micro-bert"), "log_with=wandbb")


def test_only_the_first_process_tracks(tmp_path, wandb):
    run = RunFolder(tmp_path / "mine", writes=False, log_with="wandb")
    run.start_trackers(1)
    run.log({"step": 1, "total": 1.0})
    assert wandb.started == [] and not (tmp_path / "mine").exists()


def test_nested_records_become_names():
    record = {"step": 1, "total": 2.0, "matched": {"total": 3.0, "itc": 4.0}, "reference": {"step": 5, "total": 6.0}}
    flat = {"total": 2.0, "matched/total": 3.0, "matched/itc": 4.0, "reference/total": 6.0}
    assert trackers.scalars(record) == flat and json.dumps(flat)
