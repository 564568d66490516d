"""The checks of a run: one planted fault for each finding, the shipped logs, and what the trainer logs for them."""

import json
import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from blip2_lab.data.examples import Batch
from blip2_lab.doctor.run import diagnose_run, run_report
from blip2_lab.models.losses import ITM_CHANCE, chance_levels
from blip2_lab.training.recipes.schema import OptimConfig
from blip2_lab.training.run_folder import SHIPPED_RUNS, RunFolder, read_log, reference_log
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.trainer import train

STEPS, EVERY, WARMUP = 1000, 20, 50
CHANCE = chance_levels(64, 300)


def fall(start, end, begins=0, speed=200.0):
    """A loss that stays at `start` until step `begins`, then falls towards `end`."""
    return lambda step: end + (start - end) * math.exp(-max(0, step - begins) / speed)


#: A healthy stage 1: ITC first, ITM after it, ITG from the beginning.
HEALTHY = {
    "itc": fall(CHANCE["itc"], 1.2),
    "itm": fall(CHANCE["itm"], 0.3, 250),
    "itg": fall(CHANCE["itg"], 1.8, speed=60),
}


def stage1(steps=STEPS, **losses):
    """Log lines of stage 1, healthy except for what is given."""
    losses = HEALTHY | losses
    lines = []
    for step in range(EVERY, steps + 1, EVERY):
        values = {name: loss(step) for name, loss in losses.items()}
        total = sum(values[name] for name in ("itc", "itm", "itg"))
        lines.append({"step": step, "lr": 1e-4, "total": total, "grad_norm": 2.0, **values})
    return lines


def stage2(steps=STEPS, total=None):
    loss = total or fall(2.0, 0.7)
    return [
        {"step": step, "lr": 1e-4, "total": loss(step), "grad_norm": 1.0} for step in range(EVERY, steps + 1, EVERY)
    ]


@pytest.fixture
def diagnose(tmp_path):
    def run(lines, reference=(), chance=CHANCE, warmup=WARMUP):
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "run.json").write_text(json.dumps({"warmup_steps": warmup, "chance": chance}))
        return {finding.about: finding for finding in reversed(diagnose_run(tmp_path, reference))}  # the worst of each

    return run


def test_chance_levels_are_those_of_uniform_guesses():
    logits = torch.zeros(6, 8)
    uniform = nn.functional.cross_entropy(logits, torch.arange(6))
    assert chance_levels(8, 300)["itc"] == pytest.approx(uniform.item())
    one_of_three = torch.tensor([2 / 3, 1 / 3]).log().expand(3, 2)  # the best that one can say of [true; wrong; wrong]
    assert nn.functional.cross_entropy(one_of_three, torch.tensor([1, 0, 0])).item() == pytest.approx(ITM_CHANCE)
    assert ITM_CHANCE == pytest.approx(0.637, abs=1e-3)


# ------------------------------------------------------------------------------------------------------ planted faults


def test_a_healthy_run(diagnose):
    found = diagnose(stage1(), reference=stage1())
    assert {finding.state for finding in found.values()} == {"good"} and set(found) == {"itc", "itm", "itg"}
    assert run_report(list(found.values())).endswith("all is well")
    assert "from 4.16 by chance; the shipped run had" in found["itc"].says


@pytest.mark.parametrize(
    "name,cause", [("itc", "captions do not belong"), ("itm", "bidirectional_mask"), ("itg", "shifted")]
)
def test_an_objective_that_does_not_learn(diagnose, name, cause):
    found = diagnose(stage1(**{name: lambda step: CHANCE[name]}), reference=stage1())
    assert found[name].state == "bad" and "it does not learn" in found[name].says
    assert any(cause in text for text in found[name].causes)
    others = {about: finding.state for about, finding in found.items() if about != name}
    assert set(others.values()) == {"good"}
    assert run_report(list(found.values())).endswith("something is wrong")


def test_itm_waits_for_itc(diagnose):
    """No fault of its own: its negatives are not hard before ITC can tell pictures apart."""
    found = diagnose(stage1(itc=lambda step: CHANCE["itc"], itm=lambda step: CHANCE["itm"]))
    assert found["itc"].state == "bad"
    assert found["itm"].state == "wait" and "before ITC does" in found["itm"].says


def test_a_plateau_of_the_shipped_run_is_no_fault(diagnose):
    plateau = {"itm": fall(CHANCE["itm"], 0.3, 800)}
    long, short = stage1(**plateau), stage1(steps=600, **plateau)
    found = diagnose(short, reference=long)
    assert found["itm"].state == "wait" and "so was the shipped run here" in found["itm"].says
    assert diagnose(short)["itm"].state == "bad"  # without one to compare with, it is worth a look


def test_nothing_is_judged_too_early(diagnose):
    flat = {name: (lambda step, name=name: CHANCE[name]) for name in CHANCE}
    assert {f.state for f in diagnose(stage1(steps=100, **flat)).values()} == {"wait"}
    assert {f.state for f in diagnose(stage1(steps=400, **flat), warmup=300).values()} == {"wait"}
    assert diagnose(stage1(steps=400, **flat))["itc"].state == "bad"


def test_a_leak_is_too_good_to_be_true(diagnose):
    leak = stage1(itg=fall(CHANCE["itg"], 0.85, speed=20), itc=lambda step: CHANCE["itc"])
    found = diagnose(leak)
    assert found["itg"].state == "bad" and "multimodal_causal_mask" in found["itg"].causes[0]
    found = diagnose(stage1(steps=400, itc=fall(CHANCE["itc"], 0.2, speed=50)), reference=stage1())
    assert found["itc"].state == "bad" and "too good to be true" in found["itc"].says


def test_slower_than_the_shipped_run(diagnose):
    found = diagnose(stage1(itc=fall(CHANCE["itc"], 1.2, speed=1500)), reference=stage1())
    assert found["itc"].state == "bad" and "learns, but slowly" in found["itc"].says
    assert found["itm"].state == "good"


def test_a_rising_loss(diagnose):
    lines = stage2(total=lambda step: fall(2.0, 0.7)(step) + max(0, step - 700) * 0.005)
    found = diagnose(lines)["total"]
    assert found.state == "bad" and "it rises" in found.says and "learning rate is too high" in found.causes[0]


def test_a_curriculum_is_no_rise(diagnose):
    lines = stage2(total=lambda step: 0.1 if step < 500 else 0.5)
    assert "it rises" in diagnose(lines)["total"].says
    assert "it rises" not in diagnose(lines, reference=lines)["total"].says


@pytest.mark.parametrize(
    ("total", "says"), [(lambda step: 0.1 if step < 500 else 0.5, "rises"), (lambda step: 2.0, "fall")]
)
def test_a_first_loss_of_nan_hides_nothing(diagnose, total, says):
    lines = stage2(total=total)
    lines[0]["total"] = math.nan
    found = diagnose(lines)["total"]
    assert found.state == "bad" and says in found.says, found


def test_a_loss_that_is_not_finite(diagnose):
    lines = stage2()
    lines[-1]["total"] = math.nan
    found = diagnose(lines)["total"]
    assert "not a number at step 1000" in found.says and "fp16 overflows" in found.causes[1]


def test_no_gradient(diagnose):
    lines = [line | {"grad_norm": 1e-9} for line in stage1()]
    found = diagnose(lines)["total"]
    assert "no gradient arrives" in found.says and "what should train is frozen" in found.causes


def test_a_loss_that_never_falls(diagnose):
    found = diagnose(stage2(total=lambda step: 2.0))
    assert found["total"].state == "bad" and "does not fall" in found["total"].says


@pytest.mark.parametrize("kind", ["stage1", "stage2"])
def test_whether_the_model_uses_the_image(diagnose, kind):
    """The same falling losses, with and without the picture's help."""
    lines, name = (stage1(), "itg") if kind == "stage1" else (stage2(), "total")
    now = lines[-1][name]

    def both(shuffled):
        return {"step": STEPS, "evaluation": {}, "matched": {name: now}, "shuffled": {name: shuffled}}

    blind = diagnose([*lines, both(now * 1.005)])["pictures"]
    assert blind.state == "bad" and "nothing shows that it looks at the pictures" in blind.says
    assert any("cross-attention" in cause for cause in blind.causes)
    sees = diagnose([*lines, both(now * 1.3)])["pictures"]
    assert sees.state == "good" and "it looks at the pictures" in sees.says
    early = diagnose([*lines[:5], both(now)])["pictures"]
    assert early.state == "wait"


def test_answers_and_held_out_losses_with_shuffled_pictures(diagnose):
    def about(**evaluation):
        return diagnose([*stage2(), {"step": STEPS, "evaluation": evaluation}])["pictures"]

    assert about(accuracy=0.65, shuffled=0.17).state == "good"
    assert "22% are right, with shuffled pictures 21%" in about(accuracy=0.22, shuffled=0.21).says
    assert about(accuracy=0.22, shuffled=0.21).state == "bad"
    assert about(held_out=1.0, shuffled=1.5).state == "good"
    assert about(held_out=1.0, shuffled=1.001).state == "bad"


# --------------------------------------------------------------------------------------------------------- real curves


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED_RUNS.glob("*.jsonl")))
def test_the_shipped_runs_have_no_fault(name, tmp_path):
    (tmp_path / "log.jsonl").write_bytes((SHIPPED_RUNS / f"{name}.jsonl").read_bytes())
    (tmp_path / "recipe.json").write_bytes((SHIPPED_RUNS / f"{name}.json").read_bytes())
    findings = diagnose_run(tmp_path)
    assert findings and not [finding for finding in findings if finding.state == "bad"], run_report(findings)
    if name.startswith("micro-stage2"):
        assert any("it looks at the pictures" in finding.says for finding in findings)
    if name == "micro-stage1":  # without run.json: chance from the recipe's batch
        assert any("from 4.16 by chance" in finding.says for finding in findings)


def test_a_fault_planted_in_the_shipped_stage1(tmp_path):
    lines = reference_log("micro-stage1")
    for line in lines:
        if "itc" in line:
            line["total"] += CHANCE["itc"] - line["itc"]
            line["itc"] = CHANCE["itc"]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "recipe.json").write_bytes((SHIPPED_RUNS / "micro-stage1.json").read_bytes())
    worst = diagnose_run(tmp_path)[0]
    assert worst.about == "itc" and worst.state == "bad" and "it does not learn; the shipped run had" in worst.says
    renamed = json.loads((SHIPPED_RUNS / "micro-stage1.json").read_text()) | {"name": "mine", "curve": "micro-stage1"}
    (tmp_path / "recipe.json").write_text(json.dumps(renamed))
    assert diagnose_run(tmp_path)[0] == worst


def test_a_folder_without_a_log_is_one_sentence(tmp_path, capsys):
    from blip2_lab.cli import main

    with pytest.raises(ValueError, match="has no log.jsonl with a loss in it"):
        diagnose_run(tmp_path)
    (tmp_path / "log.jsonl").write_text("")  # a run that has not logged yet; without the file it is taken for a model
    assert main(["doctor", str(tmp_path)]) == 2 and "give the folder of a run" in capsys.readouterr().err
    assert reference_log("no-such-recipe") == []


def test_the_command_diagnoses_a_run(tmp_path, capsys):
    from blip2_lab.cli import main

    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in stage2()))
    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("+ the loss falls: ") and out.endswith("all is well\n")
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "good"


# ----------------------------------------------------------------------------------------------- what the engine logs


class Looker(nn.Module):
    """Predicts y from the picture x through dropout, so that random numbers matter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.2)


class LookingTask:
    """`compared=False`: the same without the two hooks."""

    def __init__(self, compared=True):
        torch.manual_seed(0)
        self.model = Looker()
        if compared:
            self.chance = lambda: {"total": 4.0}
            self.shuffled = lambda batch: batch | {"x": batch["x"].roll(1, dims=0)}

    def batch(self, index):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": x.sum(dim=1, keepdim=True)}

    def compute_losses(self, batch):
        noise = torch.rand(())  # a draw from the global generator, as stage 2's cut of a caption
        error = self.model.body(self.model.dropout(batch["x"])) - batch["y"]
        return {"total": error.pow(2).mean() + 0 * noise, "noise": noise}


OPTIM = OptimConfig(lr=5e-2, warmup_steps=5, steps=120, batch_size=16, precision="fp32", weight_decay=0.0)


def test_the_trainer_logs_chance_shuffled_images_and_the_reference(tmp_path, capsys):
    reference = [
        {"step": 40, "total": 3.0, "lr": 1.0},
        {"step": 120, "total": 2.0, "lr": 1.0},
        {"step": 120, "evaluation": {}},
    ]
    final = train(LookingTask(), OPTIM, run_dir=tmp_path, eval_every=60, log_every=20, reference=reference)
    assert json.loads((tmp_path / "run.json").read_text())["chance"] == {"total": 4.0}
    looks = [record for record in read_log(tmp_path) if "matched" in record]
    assert [look["step"] for look in looks] == [60, 120]
    assert looks[-1]["shuffled"]["total"] > 2 * looks[-1]["matched"]["total"]
    assert looks[-1]["shuffled"]["noise"] == looks[-1]["matched"]["noise"]  # both meet the same random numbers
    assert looks[0]["reference"] == {"step": 40, "total": 3.0} and looks[1]["reference"]["total"] == 2.0
    assert final["step"] == 120 and "total" in final and "matched" not in final
    out = capsys.readouterr().out
    assert "without learning: total 4" in out and "step 120  shuffled: total" in out
    assert {f.about: f.state for f in diagnose_run(tmp_path)} == {"total": "wait", "pictures": "good"}


def test_evaluation_changes_no_weight(tmp_path):
    """With the comparison and without, and resumed in between: the same parameters to the bit."""
    weights = []
    for name, compared in (("with", True), ("without", False), ("cut", True)):
        task = LookingTask(compared)
        train(task, OPTIM, run_dir=tmp_path / name, eval_every=30, save_every=40, progress=False)
        weights.append(task.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    import shutil

    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-120")
    task = LookingTask()
    train(task, OPTIM, run_dir=tmp_path / "cut", eval_every=30, save_every=40, progress=False)
    assert all(torch.equal(weights[0][key], task.model.state_dict()[key]) for key in weights[0])
    looks = [[r for r in read_log(tmp_path / name) if "matched" in r] for name in ("with", "cut")]
    assert looks[0] == looks[1] and len(looks[0]) == 4


def test_a_stages_shuffled_batch():
    task = ImageTask(nn.Linear(1, 1), None, None)
    batch = Batch(captions=["a", "b", "c"], image_features=torch.arange(3.0).view(3, 1, 1), ids=["0", "1", "2"])
    shuffled = task.shuffled(batch)
    assert shuffled.captions == ["a", "b", "c"] and shuffled.pixels is None
    assert shuffled.image_features.flatten().tolist() == [2.0, 0.0, 1.0] and shuffled.ids == ["2", "0", "1"]
    assert replace(batch, ids=[]) and task.shuffled(replace(batch, ids=[])).ids == []


def test_tensorboard_receives_what_the_log_does(tmp_path, monkeypatch):
    """A stand-in writer: TensorBoard itself need not be installed for the tests."""
    written, opened = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            opened.append((folder, purge_step))

        def add_scalar(self, name, value, global_step):
            written.append((name, value, global_step))

        def flush(self):
            pass

        def close(self):
            opened.append("closed")

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    finder = "blip2_lab.training.trackers.importlib.util.find_spec"
    monkeypatch.setattr(finder, lambda name: SimpleNamespace() if name == "tensorboard" else None)
    run = RunFolder(tmp_path, log_with="auto")
    run.start_trackers(20)
    run.log({"step": 20, "total": 1.5})
    run.log({"step": 20, "evaluation": {"accuracy": 0.5}})
    assert written == [("total", 1.5, 20), ("evaluation/accuracy", 0.5, 20)]
    run.finish_trackers()
    assert opened == [(str(tmp_path / "tensorboard"), 20), "closed"]
    monkeypatch.setattr(finder, lambda name: None)
    run = RunFolder(tmp_path, log_with="auto")
    run.start_trackers(40)
    run.log({"step": 40, "total": 1.0})
    run.finish_trackers()
    assert len(written) == 2 and [record["step"] for record in read_log(tmp_path)] == [20, 20, 40]
