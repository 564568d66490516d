"""The comparison: what is trained and measured when, what is kept where it is killed, and equal minutes by hand."""

import json
from dataclasses import replace

import pytest

import blip2_lab
from blip2_lab.compare import bridges, page
from blip2_lab.compare.bridges import Options, Results, equal_minutes, steps_in
from blip2_lab.compare.cost import TIMED, training_cost
from blip2_lab.compare.rows import recipes_of
from blip2_lab.evaluation.bridges import Exam
from blip2_lab.training import run
from blip2_lab.training.recipes.registry import get
from tests.training.tasks.test_stages import parts  # noqa: F401  a fixture

EXAM = Exam(scenes=2, ranked=2, costed=1, texts=2)
OPTIONS = Options(bridges=("linear", "gated", "qformer-stage1"), seeds=2, steps=27, exam=EXAM)


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Training, measuring and frozen models are replaced by entries in a list; every kind has its seconds a step."""
    done = []

    def train(recipes, runs_dir, **_):
        done.append(("train", *(recipe.name for recipe in recipes)))

    def cost(recipe, runs_dir):
        bridge = getattr(recipe.model, "bridge", recipe.task)
        seconds = {"linear": 0.5, "gated_cross_attention": 1.0, "stage1": 2.0, "stage2": 1.0}[bridge]
        return {"seconds": seconds, "bytes": 1, "parameters": 1}

    monkeypatch.setattr(bridges.pipeline, "run", train)
    monkeypatch.setattr(bridges, "training_cost", cost)
    monkeypatch.setattr(bridges, "load", lambda folder: folder)
    monkeypatch.setattr(bridges, "measure", lambda model, exam, say: done.append(("measure", model.parent.name)) or {})
    monkeypatch.setattr(bridges, "_trained", lambda recipe, runs_dir: {"steps": recipe.optim.steps})
    monkeypatch.setattr(bridges, "_frozen_models", lambda *_: None)
    return done, tmp_path


def compare(world, options=OPTIONS):
    _, folder = world
    return bridges.compare(options, folder / "runs", folder / "out", say=lambda _: None)


def test_equal_minutes_count_stage_1(world):
    """27 steps of BLIP-2 are 17 of 2 s and 10 of 1 s: 44 s, 88 steps of the linear projector, 44 of the gated one."""
    results = compare(world)
    assert equal_minutes(OPTIONS, results) == pytest.approx(44 / 60)
    steps = {row: steps_in(44 / 60, OPTIONS, row, results) for row in OPTIONS.bridges}
    assert steps == {"linear": 88, "gated": 44, "qformer-stage1": 27}
    measured = [name for what, *names in world[0] if what == "measure" for name in names]
    assert sorted(measured) == sorted(
        f"compare-{row}-{count}-seed{seed}"
        for seed in (0, 1)
        for row, count in [*((row, 27) for row in steps), ("linear", 88), ("gated", 44)]
    )  # BLIP-2 has the same steps at both: it is trained and measured once
    given = replace(OPTIONS, minutes=22 / 60)
    assert steps_in(equal_minutes(given, results), given, "linear", results) == 44
    assert steps_in(0.001, given, "qformer-stage1", results) == 2  # at least one a phase
    without = replace(OPTIONS, bridges=("linear", "gated"))
    assert equal_minutes(without, results) == pytest.approx(27 / 60)  # the slowest


def test_both_phases_are_trained_one_after_the_other(world):
    compare(world)
    assert ("train", "compare-qformer-stage1-27-seed1-phase1", "compare-qformer-stage1-27-seed1") in world[0]


def test_killed_anywhere_it_goes_on_and_measures_nothing_twice(world, monkeypatch):
    done, folder = world
    measure, stops = bridges.measure, [3, 0, 5]

    def kill(model, exam, say):
        if stops and len([one for one in done if one[0] == "measure"]) >= stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return measure(model, exam, say)

    monkeypatch.setattr(bridges, "measure", kill)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            compare(world)
    results = compare(world)
    measured = [one for one in done if one[0] == "measure"]
    assert len(measured) == len(set(measured)) == 10
    stored = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    assert stored == results.records and [one["kind"] for one in stored].count("cost") == 3
    before = len(done)
    compare(world)
    assert len(done) == before  # all is there


def test_more_seeds_add_to_what_is_there(world):
    compare(world)
    before = len(world[0])
    compare(world, replace(OPTIONS, seeds=3))
    assert {name[-1] for _, *names in world[0][before:] for name in names if "phase" not in name} == {"2"}


def test_a_damaged_line_is_named(tmp_path):
    file = tmp_path / "results.jsonl"
    file.write_text('{"kind": "cost"}\n{"kind": "mod')
    with pytest.raises(ValueError, match="results.jsonl, line 2, is no JSON: remove the line"):
        Results(file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(bridges=("linaer",)), "no row 'linaer'; did you mean 'linear'"),
        (dict(bridges=()), "at least one bridge and one seed"),
        (dict(seeds=0), "at least one bridge and one seed"),
        (dict(minutes=0), "the minutes are 0; they must be above 0"),
        (dict(steps=1), "2 phases need at least a step each"),
        (dict(language_model="micro-bert"), "no language model of a comparison"),
        (dict(changes=("optim.setps=3",)), "no setting 'optim.setps'; did you mean"),
        (dict(changes=("optim.steps=3",)), "--steps"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Options(**{"bridges": ("linear", "qformer-stage1"), **change})


# ----------------------------------------------------------------------------------------- real models, very small ones


@pytest.fixture
def small(parts, tmp_path):  # noqa: F811
    """Two rows on the tiny frozen models, which must have been copied: a comparison writes into its runs."""
    import shutil

    runs = tmp_path / "runs"
    for name in ("micro-vit", "micro-flan-t5", "micro-opt"):
        shutil.copytree(parts / name, runs / name)
    changes = ("optim.batch_size=4", "data.scenes=12", "data.held_out=2", "model.ffn_width=64")
    options = Options(bridges=("linear", "dual-encoder"), seeds=1, steps=2, minutes=0.001, changes=changes, exam=EXAM)
    return options, runs, tmp_path / "out" / "bridges"


def test_from_frozen_models_to_a_page(small):
    options, runs, out = small
    results = bridges.compare(options, runs, out, say=lambda _: None, progress=False)
    header = results.find(kind="comparison")
    assert header["about"].keys() == {"micro-vit", "micro-flan-t5", "micro-opt"}
    linear = results.find(kind="model", row="linear", steps=2, seed=0)
    assert linear["perplexity"] == pytest.approx(header["about"]["micro-flan-t5"]["perplexity"], rel=1e-5)  # unharmed
    assert linear["tokens"] == 10 and linear["training"][0]["samples"] == 8 and linear["training"][0]["seconds"] > 0
    written = page.write(out, options, results)
    text = written.read_text()
    assert written == out.with_suffix(".md") and "| dual encoder | 2 × 1 | 8 |" in text and "generates no text" in text
    assert (out / "zero-shot-samples.png").read_bytes()[:4] == b"\x89PNG" and (out / "table.csv").is_file()
    model = blip2_lab.load(runs / "compare-dual-encoder-2-seed0" / "model")
    assert type(model).__name__ == "DualEncoder"

    before = (out / "results.jsonl").read_bytes()
    bridges.compare(options, runs, out, say=lambda _: None, progress=False)
    assert len((out / "results.jsonl").read_bytes()) == len(before)
    with pytest.raises(ValueError, match="was measured with other questions: give another --out"):
        bridges.compare(replace(options, exam=replace(EXAM, scenes=3)), runs, out, say=lambda _: None)
    with pytest.raises(ValueError, match="was measured with other settings and another language model"):
        other = replace(options, changes=("optim.batch_size=6",), language_model="micro-opt")
        bridges.compare(other, runs, out, say=lambda _: None)
    file = runs / "micro-flan-t5" / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(ValueError, match="was measured with other frozen models"):
        bridges.compare(options, runs, out, say=lambda _: None)


def test_the_cost_of_a_step_counts_what_is_trained_and_leaves_runs_alone(small):
    _, runs, _ = small
    changes = ("optim.batch_size=4", "data.scenes=32", "data.held_out=2")
    (recipe,) = recipes_of("linear", 3, 0, changes)
    cost = training_cost(recipe, runs)
    assert cost["parameters"] == 64 * 64 + 64 + 2 * 64  # one matrix, its bias, a LayerNorm
    assert cost["seconds"] > 0 and TIMED == 5 and not (runs / recipe.name).exists()
    weights = sum(p.nbytes for p in bridges.load_language_model("micro-flan-t5", runs).parameters())
    assert weights < cost["bytes"] < 20 * weights


def test_frozen_models_come_out_of_a_whole_model(tmp_path):
    from tests.tiny import build_tiny_model

    whole = build_tiny_model()
    blip2_lab.save(whole, tmp_path / "whole")
    bridges._take_out(str(tmp_path / "whole"), ["micro-vit", "micro-flan-t5", "micro-bert"], tmp_path / "runs")
    made = sorted(folder.name for folder in (tmp_path / "runs").iterdir())
    assert made == ["micro-flan-t5", "micro-vit"]
    (recipe,) = recipes_of("linear", 2, 0, ("optim.batch_size=4", "data.scenes=12", "data.held_out=2"))
    run.run(recipe, tmp_path / "runs", progress=False)
    again = blip2_lab.load(tmp_path / "runs" / recipe.name / "model")
    for one, other in zip(whole.language_model.parameters(), again.language_model.parameters(), strict=True):
        assert one.equal(other)


def test_a_missing_frozen_model_is_trained_after_the_one_that_it_starts_from(tmp_path):
    names = ("micro-vit", "micro-flan-t5", "micro-opt")
    assert [recipe.name for recipe in bridges._missing(names, tmp_path)] == [
        "micro-vit", "micro-t5", "micro-flan-t5", "micro-opt",
    ]  # fmt: skip
    for name in ("micro-vit", "micro-flan-t5"):
        (tmp_path / name / "model").mkdir(parents=True)
    assert [recipe.name for recipe in bridges._missing(names, tmp_path)] == ["micro-opt"]


def test_the_language_model_is_that_of_stage_2():
    assert Options().language_model == get("micro-stage2").model.language_model
