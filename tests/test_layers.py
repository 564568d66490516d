"""Layers compiled: the same losses and gradients, the same names, and a compiler that fails says so in one sentence."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from test_compiled import Counting
from test_parallel import OPTIM, TinyStage1Task, losses, quietly
from torch import nn

from blip2_lab import layers
from blip2_lab.run_folder import read_log


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class TwoBlocks:
    """Batches of different sizes, and an evaluation that comes with another one still."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"blocks": nn.ModuleList(Block() for _ in range(2))})

    def batch(self, index):
        return torch.randn(4 + index, 6, generator=torch.Generator().manual_seed(index))

    def losses(self, batch):
        for block in self.model["blocks"]:
            batch = block(batch)
        return {"total": batch.pow(2).mean()}

    def evaluate(self, step):
        return {"loss": self.losses(self.batch(30))["total"].item()}


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch.compiler.reset()


@pytest.fixture
def backend(monkeypatch):
    """What the engine compiles with, instead of the real compiler."""
    counting, compile_layers = Counting(), layers.compile_layers
    monkeypatch.setattr(layers, "compile_layers", lambda model: compile_layers(model, counting))
    return counting


def totals(run):
    return [record["total"] for record in read_log(run) if "total" in record]


def evaluations(run):
    return [record["evaluation"]["loss"] for record in read_log(run) if "evaluation" in record]


def test_compiled_layers_keep_their_names_and_can_be_copied():
    task, backend = TwoBlocks(), Counting()
    batch, names = task.batch(0), list(task.model.state_dict())
    expected = task.losses(batch)["total"]
    layers.compile_layers(task.model, backend)
    torch.testing.assert_close(task.losses(batch)["total"], expected)
    assert backend.runs == 2 and list(task.model.state_dict()) == names
    task.model = copy.deepcopy(task.model)  # as is done to save one
    with layers.as_written():
        torch.testing.assert_close(task.losses(batch)["total"], expected)
    assert backend.runs == 2


def test_the_engine_compiles_training_and_nothing_else(tmp_path, backend):
    quietly(TwoBlocks(), OPTIM, tmp_path / "written", eval_every=1)
    assert backend.runs == 0
    quietly(TwoBlocks(), replace(OPTIM, compile_layers=True), tmp_path / "compiled", eval_every=1)
    assert backend.runs == 2 * OPTIM.steps
    assert totals(tmp_path / "compiled") == pytest.approx(totals(tmp_path / "written"))
    assert evaluations(tmp_path / "compiled") == pytest.approx(evaluations(tmp_path / "written"))


def test_a_failing_compiler_is_one_sentence(tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    compile_layers = layers.compile_layers
    monkeypatch.setattr(layers, "compile_layers", lambda model: compile_layers(model, broken))
    with pytest.raises(ValueError, match=r"layers cannot be compiled here \(.*no compiler here.*without compiling"):
        quietly(TwoBlocks(), replace(OPTIM, compile_layers=True), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile takes a C++ compiler")
@pytest.mark.parametrize("changes", [{}, {"checkpoint_layers": True}])
def test_the_real_compiler_trains_a_qformer_alike(tmp_path, changes):
    optim = replace(OPTIM, steps=3, **changes)
    for name, compiled in (("written", False), ("compiled", True)):
        quietly(TinyStage1Task(optim), replace(optim, compile_layers=compiled), tmp_path / name)
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "written"), rtol=1e-3, atol=1e-4)
