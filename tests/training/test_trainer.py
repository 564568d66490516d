"""The trainer: exact resume, logs, schedules and parameter groups. Run as a script, this file starts the
processes that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from blip2_lab.training.divergence import Diverged
from blip2_lab.training.optim import learning_rate
from blip2_lab.training.prefetch import prefetch
from blip2_lab.training.recipes.schema import OptimConfig
from blip2_lab.training.run_folder import checkpoints, read_log
from blip2_lab.training.trainer import train

OPTIM = OptimConfig(lr=1e-2, warmup_steps=3, steps=12, batch_size=8, precision="fp32")


class SmallTask:
    """Linear regression through dropout and a frozen layer; `killed_at`: dies in the middle of that step."""

    def __init__(self, optim: OptimConfig = OPTIM, killed_at: int | None = None, dropout: float = 0.3) -> None:
        torch.manual_seed(0)
        frozen = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).requires_grad_(False)
        self.model = nn.ModuleDict({"frozen": frozen, "body": nn.Linear(6, 5), "head": nn.Linear(5, 1)})
        self.dropout = nn.Dropout(dropout)
        self.model["dropout"] = self.dropout
        self.pass_size, self.killed_at = optim.pass_size, killed_at
        self.seen: list[int] = []
        self.workers = ThreadPoolExecutor(2)

    def batch(self, index):
        x = torch.stack(list(self.workers.map(partial(self.example, index), range(self.pass_size))))
        return {"index": index, "x": x, "y": x.sum(dim=1, keepdim=True)}

    @staticmethod
    def example(index, place):
        return torch.randn(6, generator=torch.Generator().manual_seed(1000 * index + place))

    def compute_losses(self, batch):
        if batch["index"] == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(batch["index"])
        hidden = self.dropout(self.model["body"](self.model["frozen"](batch["x"])).relu())
        error = (self.model["head"](hidden) - batch["y"]).pow(2).mean()
        return {"total": error, "twice": 2 * error}


@dataclass
class Victim:
    """A run that dies, and the checkpoints it leaves."""

    killed_at: int | None = None
    killed_saving: int | None = None
    accumulate: int = 1
    kept: list[str] = field(default_factory=list)

    @property
    def optim(self) -> OptimConfig:
        return replace(OPTIM, accumulate=self.accumulate)


def weights(task) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def quietly(task, optim=OPTIM, **options):
    return train(task, optim, progress=False, **options)


# ------------------------------------------------------------------------------------------------------ batches, ahead


def test_prefetch_keeps_the_order_and_stays_two_ahead():
    made = []

    def make(index):
        made.append(index)
        return index

    batches = prefetch(make, range(3, 30))
    assert next(batches) == 3
    time.sleep(0.3)
    assert made == [3, 4, 5, 6]  # one taken, two waiting, one in hand
    assert list(batches) == list(range(4, 30))


def test_prefetch_computes_on_one_core_and_keeps_the_threads_of_others():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def make(index):
            torch.randn(300, 300) @ torch.randn(300, 300)  # large enough to be shared out
            return torch.get_num_threads()

        assert list(prefetch(make, range(3))) == [1, 1, 1]
        assert torch.get_num_threads() == 2
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)


def test_prefetch_raises_errors_and_ends_its_thread():
    def make(index):
        if index == 2:
            raise ValueError("page 2 is torn")
        return index

    batches = prefetch(make, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="page 2"):
        next(batches)
    batches = prefetch(lambda index: index, range(1000))
    next(batches)
    batches.close()
    assert not any(thread.name == "prefetch" and thread.is_alive() for thread in threading.enumerate())


# ------------------------------------------------------------------------------------------------------------- the loop


def test_it_learns_and_logs_window_means(tmp_path):
    optim = replace(OPTIM, steps=240, lr=3e-2)
    task = SmallTask(optim, dropout=0.0)
    final = quietly(task, optim, run_dir=tmp_path, log_every=80)
    log = read_log(tmp_path)
    assert [record["step"] for record in log] == [80, 160, 240]
    assert log[-1]["total"] < 0.5 * log[0]["total"]
    assert log[0]["twice"] == pytest.approx(2 * log[0]["total"])
    assert log[0]["lr"] == learning_rate(optim, 79) and log[0]["samples_per_second"] > 0
    assert final["total"] == log[-1]["total"]
    assert task.seen == list(range(240))


def test_on_log_gets_every_record_that_is_logged(tmp_path):
    told = []
    task = SmallTask()
    task.evaluate = lambda step: {"accuracy": step / 12}
    train(task, OPTIM, run_dir=tmp_path, log_every=4, eval_every=6, progress=False, on_log=told.append)
    assert told == read_log(tmp_path) and [record["step"] for record in told] == [4, 6, 8, 12, 12]


def test_window_mean_is_the_mean_of_its_steps(tmp_path):
    one, four = SmallTask(), SmallTask()
    quietly(one, run_dir=tmp_path / "one", log_every=1)
    quietly(four, run_dir=tmp_path / "four", log_every=4)
    single = [record["total"] for record in read_log(tmp_path / "one")]
    assert read_log(tmp_path / "four")[1]["total"] == pytest.approx(sum(single[4:8]) / 4)


def test_frozen_weights_do_not_change_and_stay_in_eval_mode(tmp_path):
    task = SmallTask()
    before, modes = weights(task), []
    losses = task.compute_losses
    task.compute_losses = lambda batch: (
        modes.append((task.model["frozen"][1].training, task.dropout.training)) or losses(batch)
    )
    task.evaluate = lambda step: {"in eval": float(not task.dropout.training)}
    final = quietly(task, run_dir=tmp_path, eval_every=4)
    after = weights(task)
    assert modes == [(False, True)] * 12
    assert final["in eval"] == 1.0
    assert torch.equal(before["frozen.0.weight"], after["frozen.0.weight"])
    assert not torch.equal(before["body.weight"], after["body.weight"])
    assert all(parameter.grad is None for parameter in task.model["frozen"].parameters())


def test_lr_scale_changes_the_update(tmp_path):
    """Adam's first step moves every weight by its learning rate: 30 times farther in the fast group."""
    task = SmallTask()
    task.lr_scales = lambda: {"head.bias": 30.0}
    before = weights(task)
    quietly(task, OptimConfig(lr=1e-4, warmup_steps=1, steps=1, batch_size=8, precision="fp32"), run_dir=tmp_path)
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in weights(task).items()}
    assert moved["body.bias"] == pytest.approx(1e-4, rel=1e-2)
    assert moved["head.bias"] == pytest.approx(3e-3, rel=1e-2)


def test_accumulation_equals_the_large_batch(tmp_path):
    large, small = SmallTask(OPTIM, dropout=0.0), SmallTask(replace(OPTIM, accumulate=4), dropout=0.0)
    batch, whole = small.batch, large.batch

    def quarter(index):  # pass i of the small task is quarter i % 4 of the large task's batch i // 4
        parts = whole(index // 4)
        rows = slice(2 * (index % 4), 2 * (index % 4) + 2)
        return {"index": index, "x": parts["x"][rows], "y": parts["y"][rows]}

    small.batch = quarter
    assert batch(0)["x"].shape == (2, 6)
    quietly(large, run_dir=tmp_path / "large")
    quietly(small, replace(OPTIM, accumulate=4), run_dir=tmp_path / "small")
    for name, tensor in weights(large).items():
        torch.testing.assert_close(weights(small)[name], tensor, atol=2e-6, rtol=1e-5)
    logs = [read_log(tmp_path / name)[-1]["total"] for name in ("large", "small")]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_clipping_limits_the_gradient(tmp_path):
    task, norms = SmallTask(), []
    task.compute_losses = lambda batch: {
        "total": 1e4 * task.model["head"](task.model["body"](batch["x"])).pow(2).mean()
    }
    task.model["head"].weight.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm().item()))
    quietly(task, replace(OPTIM, steps=1), run_dir=tmp_path)
    assert read_log(tmp_path)[0]["grad_norm"] > 100  # logged before clipping
    assert norms[0] > 1


def test_bf16_then_fp32_in_one_process(tmp_path):
    kinds = {}
    for precision in ("bf16", "fp32"):
        kinds[precision] = precision_of_a_run(precision, tmp_path / precision)
    assert kinds == {"bf16": torch.bfloat16, "fp32": torch.float32}


def precision_of_a_run(precision, folder):
    """The precision in which a training computes."""
    task, kinds = SmallTask(), set()
    task.model["body"].register_forward_hook(lambda _, inputs, out: kinds.add(out.dtype))
    quietly(task, replace(OPTIM, steps=2, precision=precision), run_dir=folder)
    (kind,) = kinds
    return kind


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True}, torch.float32),
    ],
)
def test_auto_is_bf16_only_where_the_cpu_multiplies_in_it(tmp_path, monkeypatch, capabilities, expected):
    # as a build for CUDA answers on a machine without a GPU
    cuda = torch.device("cuda")
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: None if check_available else cuda
    )
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision_of_a_run("auto", tmp_path) == expected


# --------------------------------------------------------------------------------------------------------------- resume


VICTIMS = {
    "in a step": Victim(killed_at=7, kept=["step-4", "step-6"]),
    "between passes": Victim(killed_at=17, accumulate=2, kept=["step-6", "step-8"]),  # in the second pass of step 8
    "while saving": Victim(killed_saving=8, kept=["step-4", "step-6"]),  # half of the file is written
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder for each of the victims, with what kill -9 left of its run."""
    runs = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    died = subprocess.run([sys.executable, __file__, str(runs)], env=environment, capture_output=True, text=True)
    assert died.stdout.endswith(f"{[-signal.SIGKILL] * len(VICTIMS)}\n"), died.stderr
    return runs


@pytest.mark.parametrize("name", VICTIMS)
def test_kill_and_resume_is_bit_identical(killed, tmp_path, name):
    """kill -9, mid-epoch, while a thread prepares batches with threads of its own; dropout's state must come back."""
    victim, run = VICTIMS[name], killed / name
    whole = SmallTask(victim.optim)
    quietly(whole, victim.optim, run_dir=tmp_path / "whole", save_every=2, log_every=3)
    assert [p.name for p in checkpoints(run)] == victim.kept

    resumed = SmallTask(victim.optim)
    quietly(resumed, victim.optim, run_dir=run, save_every=2, log_every=3)
    start = int(victim.kept[-1].removeprefix("step-")) * victim.accumulate
    assert resumed.seen == list(range(start, 12 * victim.accumulate))
    assert same(weights(whole), weights(resumed))
    losses = [[(r["step"], r["total"], r["grad_norm"]) for r in read_log(path)] for path in (tmp_path / "whole", run)]
    assert losses[0] == losses[1]


def interrupt_at(task, index):
    batch = task.batch

    def broken(i):
        if i == index:
            raise OSError("the disk went away")
        return batch(i)

    task.batch = broken
    return task


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_inside_a_log_window_and_with_accumulation(tmp_path, precision):
    optim = replace(OPTIM, accumulate=2, precision=precision)
    whole = SmallTask(optim)
    quietly(whole, optim, run_dir=tmp_path / "whole", log_every=5, save_every=3)
    with pytest.raises(OSError):
        quietly(interrupt_at(SmallTask(optim), 15), optim, run_dir=tmp_path / "cut", log_every=5, save_every=3)
    assert [p.name for p in checkpoints(tmp_path / "cut")] == ["step-3", "step-6"]
    resumed = SmallTask(optim)
    quietly(resumed, optim, run_dir=tmp_path / "cut", log_every=5, save_every=3)
    assert same(weights(whole), weights(resumed))
    totals = [[(r["step"], r["total"]) for r in read_log(tmp_path / name)] for name in ("whole", "cut")]
    assert totals[0] == totals[1] and [step for step, _ in totals[0]] == [5, 10, 12]


def test_log_lines_after_the_checkpoint_are_removed(tmp_path):
    with pytest.raises(OSError):
        quietly(interrupt_at(SmallTask(), 9), run_dir=tmp_path, log_every=1, save_every=4)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 10, "tot')  # cut by a kill
    quietly(SmallTask(), run_dir=tmp_path, log_every=1, save_every=4)
    assert [record["step"] for record in read_log(tmp_path)] == list(range(1, 13))


def test_evaluation_does_not_change_training(tmp_path):
    plain, measured = SmallTask(), SmallTask()
    measured.evaluate = lambda step: {"luck": torch.rand(()).item() + random.random() + np.random.rand()}
    quietly(plain, run_dir=tmp_path / "plain")
    quietly(measured, run_dir=tmp_path / "measured", eval_every=1)
    assert same(weights(plain), weights(measured))
    assert len([r for r in read_log(tmp_path / "measured") if "evaluation" in r]) == 12


def test_a_finished_run_is_not_changed(tmp_path):
    task = SmallTask()
    task.evaluate = lambda step: {"accuracy": 0.5}
    final = quietly(task, run_dir=tmp_path, eval_every=6)
    again = SmallTask()
    again.evaluate = task.evaluate
    assert quietly(again, run_dir=tmp_path, eval_every=6) == final
    assert final["accuracy"] == 0.5 and again.seen == [] and same(weights(task), weights(again))


def test_restart_starts_over(tmp_path):
    quietly(SmallTask(), run_dir=tmp_path)
    task = SmallTask()
    quietly(task, run_dir=tmp_path, resume=False)
    assert task.seen == list(range(12)) and [r["step"] for r in read_log(tmp_path)] == [12]


@pytest.mark.parametrize("seed,batch_size,key", [(1, 8, "seed"), (0, 4, "batch_size")])
def test_another_run_cannot_be_resumed(tmp_path, seed, batch_size, key):
    quietly(SmallTask(), run_dir=tmp_path)
    with pytest.raises(ValueError, match=f"started with {key}="):
        quietly(SmallTask(), replace(OPTIM, batch_size=batch_size), run_dir=tmp_path, seed=seed)


def test_another_learning_rate_is_noted(tmp_path, capsys):
    quietly(SmallTask(), run_dir=tmp_path)
    train(SmallTask(), replace(OPTIM, lr=5e-3, steps=14), run_dir=tmp_path)
    shown = capsys.readouterr().out
    assert "note: lr was 0.01" in shown and "resuming" in shown and "step 14/14" in shown


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_hold_trained_weights_and_are_pruned(tmp_path):
    task = SmallTask()
    quietly(task, run_dir=tmp_path, save_every=3)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-9", "step-12"]
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "checkpoints" / "step-12" / "model.safetensors")
    assert stored.keys() == {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert json.loads((tmp_path / "run.json").read_text())["batch_size"] == 8


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_stops_before_the_update(tmp_path, what):
    task = SmallTask()
    losses = task.compute_losses

    def poisoned(batch):
        parts = losses(batch)
        if batch["index"] == 7:
            bad = float("nan") if what == "loss" else (parts["total"] * 0).sqrt()  # sqrt at 0: infinite slope
            parts["total"] = parts["total"] + bad
        return parts

    task.compute_losses = poisoned
    with pytest.raises(Diverged) as error:
        quietly(task, run_dir=tmp_path, save_every=3)
    message = str(error.value)
    assert message.startswith(f"the {what} became nan at step 8") and "step-6" in message and "learning rate" in message
    assert "\n" not in message
    assert all(tensor.isfinite().all() for tensor in weights(task).values())


def test_nothing_to_train(tmp_path):
    task = SmallTask()
    task.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        quietly(task, run_dir=tmp_path)


def test_the_finished_model_is_saved_in_eval_mode(tmp_path):
    task = SmallTask()
    task.save = lambda folder: (folder.mkdir(), (folder / "mode").write_text(str(task.model.training)))
    quietly(task, run_dir=tmp_path)
    assert (tmp_path / "model" / "mode").read_text() == "False"


def test_a_rising_loss_stops_the_run_and_the_good_checkpoint_is_kept(tmp_path):
    """Learned, then spoiled: the loss comes back to where it began, and no NaN is in sight."""
    optim = replace(OPTIM, steps=400, lr=3e-2)
    task = SmallTask(optim, dropout=0.0)
    losses = task.compute_losses

    def spoiled(batch):
        parts = losses(batch)
        return parts if batch["index"] < 150 else {"total": parts["total"] * 0 + 7.0}

    task.compute_losses = spoiled
    with pytest.raises(Diverged) as error:
        quietly(task, optim, run_dir=tmp_path, save_every=20)
    message = str(error.value)
    assert "the loss climbed to" in message and "step-140 (remove the later ones" in message
    assert 150 < int(message.split("at step ")[1].split(";")[0]) < 260
    kept = [p.name for p in checkpoints(tmp_path)]
    assert kept[0] == "step-140" and len(kept) == 3


def train_until_killed(victim: Victim, run: Path) -> None:
    if victim.killed_saving:
        save = torch.save

        def die(state, path):
            save(state, path)
            if state["step"] == victim.killed_saving:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = die
    quietly(SmallTask(victim.optim, victim.killed_at), victim.optim, run_dir=run, save_every=2, log_every=3)


if __name__ == "__main__":
    ended = []
    for name, victim in VICTIMS.items():
        if os.fork() == 0:  # a process of its own for each, after one import of torch
            train_until_killed(victim, Path(sys.argv[1]) / name)
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.wait()[1]))
    print(ended)
