"""The recipes of a sequence in parallel processes: the order in which they start, and what stops them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from blip2_lab.training import pipeline
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import override
from blip2_lab.training.run_folder import read_log


def parts(*names):
    return [get(f"micro-{name}") for name in names]


def bert(name, steps):
    return replace(override(get("micro-bert"), f"optim.steps={steps}"), name=name)


# ------------------------------------------------------------------------------------------------------- who may begin


def test_recipes_without_needs_are_ready():
    waiting = [get(name) for name in get("micro-all").sequence]
    assert pipeline.ready(waiting, []) == parts("vit", "bert", "t5", "opt")


def test_a_recipe_waits_for_running_recipes_that_it_needs():
    assert pipeline.ready(parts("stage1", "stage2"), parts("vit", "flan-t5")) == []
    assert pipeline.ready(parts("stage1", "stage2"), parts("flan-t5")) == parts("stage1")
    assert pipeline.ready(parts("stage2", "retrieval"), parts("flan-t5")) == parts("retrieval")


def test_needs_outside_the_sequence_are_not_waited_for():
    assert pipeline.ready(parts("stage2"), []) == parts("stage2")  # run.run says what is missing


@pytest.mark.parametrize(
    "processes,gpu,threads,jobs", [(1, False, 2, 2), (2, False, 2, 1), (1, True, 8, 1), (1, False, 1, 1)]
)
def test_default_number_of_jobs(monkeypatch, processes, gpu, threads, jobs):
    monkeypatch.setattr(pipeline, "number_of_processes", lambda: processes)
    monkeypatch.setattr(pipeline.torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setattr(pipeline.torch, "get_num_threads", lambda: threads)
    assert pipeline._default_jobs() == jobs


# --------------------------------------------------------------------------------------------------- in processes


@pytest.mark.slow
def test_two_recipes_are_trained_and_lines_have_their_names(tmp_path, capfd):
    pipeline.run([bert("one", 1), bert("two", 1)], tmp_path, jobs=2)
    for name in ("one", "two"):
        assert read_log(tmp_path / name)[-1]["step"] == 1 and (tmp_path / name / "model").is_dir()
    lines = capfd.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in lines} == {"one", "two"}
    assert any(line.startswith("one: step 1/1") for line in lines)


@pytest.mark.slow
def test_a_recipe_that_fails_stops_the_others_and_its_error_is_raised(tmp_path):
    orphan = replace(get("micro-stage2"), name="orphan")
    with pytest.raises(ValueError, match="orphan needs micro-vit") as error:
        pipeline.run([bert("long", 100_000), orphan], tmp_path, jobs=2, progress=False)
    assert "in the process of orphan" in error.value.__notes__[0] and "run.py" in error.value.__notes__[0]
    assert not multiprocessing.active_children()  # the long one


def test_recipes_that_need_one_another_are_an_error(tmp_path):
    circle = override(get("micro-stage1"), "model.bert=micro-stage1")
    with pytest.raises(ValueError, match="micro-stage1 and micro-stage2 need one another"):
        pipeline.run([circle, get("micro-stage2")], tmp_path, jobs=2, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("blow", ["Ctrl-C", "parent killed", "part killed"])
def test_all_processes_end_when_one_is_killed(tmp_path, blow):
    command = [sys.executable, "-m", "blip2_lab", "train", "micro-all", "--jobs", "2", "--runs", str(tmp_path)]
    command += ["--set", "optim.batch_size=8"]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # "make test &" has Ctrl-C ignored
    process = subprocess.Popen(command, **streams)
    signal.signal(signal.SIGINT, before)
    for line in process.stdout:
        if "step" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    train = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
    assert len(train) == 2
    if blow == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    else:
        (process if blow == "parent killed" else train[0]).send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    code, said = {
        "Ctrl-C": (130, "blip2-lab: stopped; the same command resumes from the last checkpoint"),
        "parent killed": (-9, ""),
        "part killed": (2, "ended from outside (exit code -9)"),
    }[blow]
    assert process.returncode == code and said in err and bool(err) == bool(said) and "Traceback" not in err
    deadline = time.monotonic() + 30
    while any(child.is_running() for child in train) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(child.is_running() for child in train)
