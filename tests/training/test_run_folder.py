"""The run folder: atomic checkpoints, strict loading, random states, a log that survives a kill."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from blip2_lab.training.run_folder import (
    RunFolder,
    checkpoints,
    load_state,
    load_trained,
    only_process,
    random_states,
    read_log,
    set_random_states,
    trained_tensors,
)


def test_a_kill_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.open({"seed": 0})
    model = nn.BatchNorm1d(3)
    run.save(1, model, {"step": 1})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.save(2, model, {"step": 2})
    assert [p.name for p in checkpoints(tmp_path)] == ["step-1"]
    run.open({"seed": 0})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-1"]  # the half one is gone
    fresh = nn.BatchNorm1d(3)
    fresh.running_mean.fill_(7.0)
    load_trained(run.latest, fresh)
    assert fresh.running_mean.abs().max() == 0  # buffers of trained modules are part of it


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = RunFolder(tmp_path)
    run.open({})
    run.save(1, nn.Linear(2, 2), {})
    with pytest.raises(ValueError, match="weight"):
        load_trained(run.latest, nn.Linear(3, 2))
    with pytest.raises(ValueError, match="bias"):
        load_trained(run.latest, nn.Linear(2, 2, bias=False))


def test_random_states_are_restored(tmp_path):
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()

    random.gauss(0, 1)  # leaves a half of a pair behind
    np.random.randn()
    torch.save(random_states(), tmp_path / "state.pt")
    first = draw()
    assert draw() != first
    set_random_states(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first


def test_only_trained_tensors_are_stored():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    model[2].requires_grad_(False)
    names = {"0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert trained_tensors(model).keys() == names


def test_tensors_that_share_memory_are_stored_and_restored(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
            self.head.weight = self.words.weight

    run, model, fresh = RunFolder(tmp_path), Tied(), Tied()
    run.open({})
    load_trained(run.save(1, model, {}), fresh)
    assert torch.equal(fresh.head.weight, model.words.weight) and fresh.head.weight is fresh.words.weight


def test_checkpoints_are_sorted_by_number_not_by_name(tmp_path):
    for step in (9, 10, 100):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-new").mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["step-9", "step-10", "step-100"]
    assert RunFolder(tmp_path).latest.name == "step-100"


def test_an_incomplete_last_line_is_ignored(tmp_path):
    run = RunFolder(tmp_path)
    run.open({})
    for step in (1, 2, 3):
        run.log({"step": step})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'5\n{"total": 1.0}\n{"step": 4, "caf\xe9')
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3]
    run.truncate_log(2)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"steps": 3}', b'{"step": 3', b"caf\xe9"])
def test_a_damaged_file_of_a_run_folder_is_named(tmp_path, content):
    run = RunFolder(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    for name in ("finished.json", "checkpoints/best/best.json"):
        (tmp_path / name).write_bytes(content)
    for name in ("finished_step", "best"):
        with pytest.raises(ValueError, match="json is damaged, or of another version: remove this file, or restart"):
            getattr(run, name)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    model = nn.Linear(1, 1)
    checkpoint = RunFolder(tmp_path).save(1, model, {"step": 1})
    assert load_state(checkpoint) == {"step": 1}
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="step-1 is damaged .*remove it, and the run goes on from the one before"):
        load_trained(checkpoint, model)
        load_state(checkpoint)


def test_clear_keeps_other_files(tmp_path):
    run = RunFolder(tmp_path)
    run.open({"seed": 0})
    run.save(1, nn.Linear(1, 1), {})
    (tmp_path / "notes.txt").write_text("mine")
    run.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_settings_are_compared_only_if_there_is_a_checkpoint(tmp_path):
    run = RunFolder(tmp_path)
    assert run.open({"seed": 0, "lr": 1.0}) == []
    assert run.open({"seed": 1, "lr": 1.0}) == []  # no checkpoint yet: nothing to be faithful to
    run.save(1, nn.Linear(1, 1), {})
    (note,) = run.open({"seed": 1, "lr": 2.0})
    assert "lr was 1.0" in note
    with pytest.raises(ValueError, match="seed=1, not 2"):
        run.open({"seed": 2, "lr": 2.0})
    assert json.loads((tmp_path / "run.json").read_text()) == {"seed": 1, "lr": 2.0}


def test_work_that_fails_before_it_writes_leaves_no_empty_folder(tmp_path):
    run = tmp_path / "runs" / "mine"
    with pytest.raises(ValueError), only_process(run):
        raise ValueError
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError), only_process(run):
        (run / "skipped.jsonl").write_text("")
        raise ValueError
    assert (run / "skipped.jsonl").exists()
    with pytest.raises(ValueError), only_process(run.with_name("other")):
        raise ValueError
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["mine"]
    with only_process(run.with_name("third")):
        pass
    assert run.with_name("third").exists()
