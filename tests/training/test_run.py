"""A run in its folder: whose data and settings it has, what it says when it is finished, who may work in it."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

import blip2_lab
from blip2_lab.checkpoints.load import save
from blip2_lab.data.mixture import open_sources
from blip2_lab.data.scenes import PictureBook
from blip2_lab.training import run as run_module
from blip2_lab.training import run_folder
from blip2_lab.training.batches import LEFT_OUT
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import Stage2Parts, override
from blip2_lab.training.run_folder import FINISHED_FILE, checkpoints, only_process, read_log
from tests.tiny import build_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A tiny BLIP-2 to fine-tune."""
    folder = tmp_path_factory.mktemp("start")
    save(build_tiny_model(), folder)
    return folder


def own_pictures(folder: Path, seed: int, count: int = 10) -> Path:
    folder.mkdir(parents=True)
    book = PictureBook(seed, "in", 48)
    for number in range(count):
        book[number].image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(book[number].captions[0])
    return folder


def recipe(start: Path, place: Path, *changes: str, name: str = "mine"):
    chosen = get("micro-captions")
    chosen = replace(chosen, name=name, save_every=2, eval_every=2, data=replace(chosen.data, path=str(place)))
    small = ("optim.steps=4", "optim.warmup_steps=1", "optim.batch_size=4", "data.held_out=2", "data.image_size=48")
    for change in (*small, "data.cached_views=0", "data.threads=1", f"model.start={start}", *changes):
        chosen = override(chosen, change)
    return chosen


@pytest.fixture
def monday(tmp_path) -> Path:
    return own_pictures(tmp_path / "monday" / "pictures", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, start) -> Path:
    """A folder of runs in which "mine" is finished, on Monday's pictures."""
    place = tmp_path_factory.mktemp("trained")
    run_module.run(recipe(start, own_pictures(place / "monday", 1)), place / "runs", progress=False)
    return place / "runs"


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "runs")


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_finished_run_is_left_as_it_is_and_says_so(tmp_path, start, monday, capsys):
    runs = tmp_path / "runs"
    first = run_module.run(recipe(start, monday), runs)
    before = weights(runs / "mine"), (runs / "mine" / "log.jsonl").read_bytes()
    capsys.readouterr()
    assert run_module.run(recipe(start, monday), runs) == first
    assert "mine finished at step 4: nothing was trained" in capsys.readouterr().out
    (tmp_path / "new").touch()
    new = (tmp_path / "new").stat().st_mode
    assert {path.stat().st_mode for path in (runs / "mine").rglob("*") if path.is_file() and path.name != ".lock"} == {
        new
    }
    assert (weights(runs / "mine"), (runs / "mine" / "log.jsonl").read_bytes()) == before
    with pytest.raises(ValueError, match=r"is at step 4, and optim.steps is 3: give more steps"):
        run_module.run(recipe(start, monday, "optim.steps=3"), runs, progress=False)


def test_another_folder_of_the_same_name_is_other_data(tmp_path, start, finished):
    runs, tuesday = finished, own_pictures(tmp_path / "tuesday" / "pictures", 2)
    first = weights(runs / "mine")
    with pytest.raises(ValueError, match="was started on other data .*now there are other captions.*other pictures"):
        run_module.run(recipe(start, tuesday), runs, progress=False)
    assert weights(runs / "mine") == first
    run_module.run(recipe(start, tuesday), runs, resume=False, progress=False)
    assert weights(runs / "mine") != first


def test_a_model_is_known_to_be_trained_on_these_pictures(tmp_path, start, monday, finished):
    model = tmp_path / "runs" / "mine" / "model"
    assert model.is_dir()
    copy = shutil.copytree(monday, tmp_path / "copy")
    other = own_pictures(tmp_path / "other", 9)
    for place, expected in ((monday, True), (copy, True), (other, False)):
        assert run_module.was_trained_on(model, open_sources(place).sources) is expected
    assert not run_module.was_trained_on(start, open_sources(monday).sources)


def test_a_run_of_an_older_version_resumes_if_its_examples_have_the_same_names(start, monday, finished, capsys):
    runs, chosen = finished, recipe(start, monday)
    folder = runs / "mine"
    batches = run_module.open_batches(chosen, runs)
    (folder / "examples.json").write_text(json.dumps({"path": str(monday), "identity": batches.listed}))
    shutil.rmtree(folder / "checkpoints" / "step-4")
    (folder / FINISHED_FILE).unlink()
    run_module.run(chosen, runs)
    assert "started by an older version, which knew the data by the names" in capsys.readouterr().out
    assert "texts" in json.loads((folder / "examples.json").read_text())
    (folder / "examples.json").write_text(json.dumps({"path": "elsewhere", "identity": "another"}))
    with pytest.raises(ValueError, match="was started on other data .elsewhere; now there are other examples"):
        run_module.run(chosen, runs, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        "model.prompt=a drawing of",
        "data.flip=false",
        "data.held_out=1",
        "model.max_text_tokens=20",
        "seed=3",
        "optim.batch_size=2",
    ],
)
def test_a_run_does_not_resume_with_another_setting_of_model_or_data(start, monday, finished, change):
    before = (finished / "mine" / "recipe.json").read_bytes()
    setting = change.partition("=")[0]
    with pytest.raises(ValueError, match=f"mine was started with {setting}=.*--restart to start over"):
        run_module.run(recipe(start, monday, change, "optim.steps=6"), finished, progress=False)
    assert (finished / "mine" / "recipe.json").read_bytes() == before


def test_another_setting_of_the_optimizer_is_said_and_written_down(start, monday, finished, capsys):
    runs = finished
    run_module.run(replace(recipe(start, monday, "optim.steps=6", "optim.lr=1e-5"), save_every=3), runs)
    out = capsys.readouterr().out
    assert "lr was 0.0001 when" in out and "steps was 4 when" in out and "save_every was 2 when" in out
    changed = json.loads((runs / "mine" / "recipe.json").read_text())["changed"]
    assert {"step": 4, "setting": "optim.lr", "was": 0.0001, "now": 1e-05} in changed and len(changed) == 3
    assert read_log(runs / "mine")[-1]["step"] == 6


HOLD = """
import sys, time
from blip2_lab.training.run_folder import only_process
with only_process(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_in_one_folder_are_refused_and_a_killed_one_leaves_no_lock(tmp_path, start, monday):
    folder = tmp_path / "runs" / "mine"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], env=environment, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    try:
        with pytest.raises(ValueError, match="another process is training in .*mine: wait until it has ended, or give"):
            run_module.run(recipe(start, monday), tmp_path / "runs", progress=False)
    finally:
        other.kill()
        other.wait()
    run_module.run(recipe(start, monday), tmp_path / "runs", progress=False)
    with only_process(folder), only_process(folder):  # one process may take it twice
        pass


def test_the_best_weights_on_held_out_pictures_are_the_model(tmp_path, start, monday, capsys, monkeypatch):
    from blip2_lab.training.tasks.finetune import CaptionTask

    losses = {2: 1.0, 4: 0.5, 6: 0.7, 8: math_nan}
    monkeypatch.setattr(CaptionTask, "evaluate", lambda self, step: {"held_out": losses[step], "shuffled": 2.0})
    run_module.run(replace(recipe(start, monday, "optim.steps=8", "optim.lr=1e-2"), save_every=1), tmp_path / "runs")
    folder = tmp_path / "runs" / "mine"
    assert json.loads((folder / "checkpoints" / "best" / "best.json").read_text()) == {"step": 4, "held_out": 0.5}
    assert "the model is that of step 4, which has the lowest loss on held-out pictures, 0.5" in capsys.readouterr().out
    best, last = (
        load_file(folder / "checkpoints" / name / "model.safetensors")["qformer.query_tokens"]
        for name in ("best", "step-8")
    )
    model = blip2_lab.load(str(folder))
    assert torch.equal(model.qformer.query_tokens, best) and not torch.equal(best, last)
    assert [path.name for path in checkpoints(folder)] == ["step-7", "step-8"]
    shutil.rmtree(folder / "model")  # killed before it was written
    run_module.run(replace(recipe(start, monday, "optim.steps=8", "optim.lr=1e-2"), save_every=1), tmp_path / "runs")
    assert torch.equal(blip2_lab.load(str(folder)).qformer.query_tokens, best)


math_nan = float("nan")


def test_an_interrupted_run_leaves_the_same_files(start, monday, finished):
    """tokenizer.json had the truncation of the last call before it was saved."""
    runs, files = finished, []
    shutil.copytree(runs / "mine", runs / "cut")
    shutil.rmtree(runs / "cut" / "checkpoints" / "step-4")
    shutil.rmtree(runs / "cut" / "model")
    run_module.run(recipe(start, monday, name="cut"), runs, progress=False)
    for name in ("mine", "cut"):
        found = sorted((runs / name / "model").rglob("*"))
        files.append({path.relative_to(runs / name): path.read_bytes() for path in found if path.is_file()})
    assert files[0].keys() == files[1].keys() and len(files[0]) > 8
    assert [str(name) for name in files[0] if files[0][name] != files[1][name]] == []
    tokenizer = json.loads(next(content for name, content in files[0].items() if name.name == "tokenizer.json"))
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    assert all(path.stat().st_mode & 0o044 for path in (runs / "mine" / "model").rglob("*") if path.is_file())


def test_a_model_is_written_whole_or_not_at_all(start, monday, finished, monkeypatch):
    runs = finished
    before = weights(runs / "mine")

    def stopped(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    from blip2_lab.training.tasks.base import ImageTask

    with monkeypatch.context() as patch:
        patch.setattr(ImageTask, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_module.run(recipe(start, monday, "optim.steps=5"), runs, progress=False)
    assert weights(runs / "mine") == before and (runs / "mine" / "model" / "config.json").read_text() != "{"
    run_module.run(recipe(start, monday, "optim.steps=5"), runs, progress=False)
    assert weights(runs / "mine") != before and not (runs / "mine" / ".model.tmp").exists()


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_is_whole(tmp_path, start, monday, finished, monkeypatch):
    runs, usage = finished, shutil.disk_usage(tmp_path)
    more = recipe(start, monday, "optim.steps=8")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
        with pytest.raises(ValueError, match=r"not enough space for .*the last checkpoint is .*step-4; make room"):
            run_module.run(more, runs, progress=False)

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")  # what torch.save says

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.torch, "save", full)
        patch.setattr(run_folder, "require_space", lambda *_: None)
        with pytest.raises(ValueError, match=r"a checkpoint .* cannot be written to .*enforce fail.*step-4"):
            run_module.run(more, runs, progress=False)  # refused for another reason
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
        with pytest.raises(ValueError, match=r"the disk of .*mine is full \(a checkpoint: .*the last checkpoint is"):
            run_module.run(more, runs, progress=False)

    def hidden(*_):
        raise OSError("the model cannot be written (Error while serializing: No space left on device (os error 28))")

    with monkeypatch.context() as patch:  # what safetensors says; another process may have made room since
        patch.setattr(run_folder.torch, "save", hidden)
        with pytest.raises(ValueError, match=r"the disk of .*mine is full .*make room"):
            run_module.run(more, runs, progress=False)
        patch.setattr(run_folder.torch, "save", lambda *_: {}["a fault of the code"])
        with pytest.raises(KeyError):  # stays what it is
            run_module.run(more, runs, progress=False)
    assert [path.name for path in checkpoints(runs / "mine")] == ["step-2", "step-4"]
    assert not list((runs / "mine" / "checkpoints").glob(".*"))
    run_module.run(more, runs, progress=False)
    assert read_log(runs / "mine")[-1]["step"] == 8


def test_unknown_words_stop_a_run_before_anything_is_encoded(tmp_path, start, monday, capsys, monkeypatch):
    from blip2_lab.training import batches

    for number in range(10):
        (monday / f"{number}.txt").write_text(f"a red boat with a harp\nzeppelin harp {number}\n")
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(batches, "encode_function", lambda _: pytest.fail("it was encoded"))
        with pytest.raises(ValueError) as error:
            run_module.run(recipe(start, monday, "data.cached_views=1"), runs, progress=False)
    for part in (
        "the language model does not know",
        "harp 20",
        "--set model.start=",
        "--set data.unknown_words=1",
        f"own --on {monday}",
    ):
        assert part in str(error.value)
    run_module.run(recipe(start, monday, "data.unknown_words=1"), runs)
    out = capsys.readouterr().out
    assert "left out 10 texts, and 0 pictures with no other: 10 mostly unknown words" in out
    named = [json.loads(line) for line in (runs / "mine" / LEFT_OUT).read_text().splitlines()]
    assert {line["text"] for line in named} == {f"zeppelin harp {n}" for n in range(10)}
    assert named[0]["sample"].endswith("pictures: 0.png") and named[0]["cause"] == "mostly unknown words"
    words = json.loads((runs / "mine" / "words.json").read_text())["the language model"]
    assert words["unknown"] >= 30 and words["most_frequent"][0] == ["harp", 20]
    assert json.loads((runs / "mine" / "model" / "training.json").read_text())["words"]


def test_pictures_without_any_known_word_are_an_error(tmp_path, start, monday):
    for path in monday.glob("*.txt"):
        path.write_text("zeppelin harp\n")
    with pytest.raises(ValueError, match="no text of .*pictures can be trained on: 10 mostly unknown words"):
        run_module.run(recipe(start, monday, "data.unknown_words=1"), tmp_path / "runs", progress=False)


def test_a_prompt_that_is_longer_than_the_limit_leaves_its_answers_whole(tmp_path, monday):
    """Prompt and answer were cut together: no token of the answer was left, and the loss was NaN."""
    save(build_tiny_model("opt"), tmp_path / "opt")
    long = "a picture of " + "a red boat and " * 8
    options = (f"model.prompt={long}", "model.max_text_tokens=20")
    run_module.run(recipe(tmp_path / "opt", monday, *options), tmp_path / "runs", progress=False)
    log = [json.loads(line) for line in (tmp_path / "runs" / "mine" / "log.jsonl").read_text().splitlines()]
    losses = [record["total"] for record in log if "total" in record]
    assert losses and all(map(math.isfinite, losses))


# ------------------------------------------------------------------------------------------------ splits of one step


def split_recipe(start: str, place: str, name: str, **optim):
    """Stage 2, which also draws where a caption is split: eight steps over ten pictures, more than an epoch."""
    chosen = recipe(Path(start), Path(place), "optim.steps=8", "data.held_out=0", "optim.precision=fp32", name=name)
    parts = Stage2Parts(start, f"{start}-language", max_text_tokens=64)
    optim = replace(chosen.optim, **optim)
    return replace(chosen, eval_every=0, save_every=8, optim=optim, task="stage2", model=parts)


def run_rank(rank: int, port: int, start: str, place: str, runs: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    run_module.run(split_recipe(start, place, "two"), runs, progress=False)
    torch.distributed.destroy_process_group()


def without_dropout(start: Path, copy: Path) -> Path:
    shutil.copytree(start, copy)
    for file, part in ((copy / "config.json", "qformer_config"), (copy / "stage1" / "config.json", "qformer")):
        config = json.loads(file.read_text())
        config[part] |= {name: 0.0 for name in config[part] if "dropout" in name}
        file.write_text(json.dumps(config))
    return copy


@pytest.mark.slow
def test_splits_of_a_step_give_the_same_losses(tmp_path, start, monday, monkeypatch):
    """One process, two passes, two processes: the same pictures, crops, captions and splits of captions."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = without_dropout(start, tmp_path / "start")  # it is drawn by each process and each pass
    language = blip2_lab.load(str(start)).language_model
    language.model.save_pretrained(f"{start}-language")
    language.tokenizer.save_pretrained(f"{start}-language")
    mp.spawn(run_rank, args=(port, str(start), str(monday), str(tmp_path)), nprocs=2)
    run_module.run(split_recipe(str(start), str(monday), "one"), tmp_path, progress=False)
    run_module.run(split_recipe(str(start), str(monday), "passes", accumulate=2), tmp_path, progress=False)
    (one,) = read_log(tmp_path / "one")
    trained = load_file(tmp_path / "one" / "checkpoints" / "step-8" / "model.safetensors")
    for split in ("passes", "two"):
        (other,) = read_log(tmp_path / split)
        assert other["total"] == pytest.approx(one["total"], rel=1e-5), split  # the mean over all steps
        ours = load_file(tmp_path / split / "checkpoints" / "step-8" / "model.safetensors")
        for name in ("language_projection.weight", "qformer.query_tokens"):
            torch.testing.assert_close(ours[name], trained[name], atol=2e-5, rtol=0)


def test_a_finished_run_says_so_without_progress_lines_too(start, monday, finished, capsys):
    run_module.run(recipe(start, monday), finished, progress=False)
    assert "mine finished at step 4: nothing was trained" in capsys.readouterr().out
