"""The planner: published parameter counts, formulas against torch's counters, totals of a plan."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blip2_lab.models.language_model import Text, language_model
from blip2_lab.models.micro import new_opt, new_t5
from blip2_lab.models.qformer import QFormerConfig
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.planning import flops as workload
from blip2_lab.training.planning import plan as planner
from blip2_lab.training.planning.flops import CaptionLengths, Work
from blip2_lab.training.planning.parameters import (
    blueprint,
    build_image_encoder,
    build_language_model,
    count_parameters,
)
from blip2_lab.training.recipes.own import EPOCHS
from blip2_lab.training.recipes.registry import RECIPES, get
from blip2_lab.training.recipes.schema import override

MICRO_PARTS = ("micro-vit", "micro-t5", "micro-opt", "micro-bert")

# ---------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "name,trained,total",
    [  # Table 2: trainable and all parameters, in units of its last digit; Table 5: all parameters
        ("paper-stage2-vit-l-opt-2.7b", 104e6, 3.1e9),
        ("paper-stage2-vit-g-opt-2.7b", 107e6, 3.8e9),
        ("paper-stage2-vit-g-opt-6.7b", 108e6, 7.8e9),
        ("paper-stage2-vit-l-flant5-xl", 103e6, 3.4e9),
        ("paper-stage2-vit-g-flant5-xl", 107e6, 4.1e9),
        ("paper-stage2-vit-g-flant5-xxl", 108e6, 12.1e9),
        ("paper-stage1-vit-l", None, 474e6),
        ("paper-stage1-vit-g", None, 1.2e9),
    ],
)
def test_parameters_match_the_paper(name, trained, total):
    model = blueprint(get(name))
    counts = model.parameters()
    assert sum(counts.values()) == pytest.approx(total, rel=0.05)
    if trained:
        assert sum(counts[part] for part in model.trained) == pytest.approx(trained, rel=0.02)


def test_parameters_counted_elsewhere():
    """Numbers known from running the reference, and from the hub's own files."""
    counts = blueprint(get("paper-stage1-vit-g")).parameters()
    assert counts["Q-Former"] + counts["heads"] == 186_705_470
    sizes = {"facebook/opt-2.7b": 2_651_596_800, "google/flan-t5-xl": 2_849_757_184}
    for name, number in sizes.items():
        assert count_parameters(build_language_model(name)) == number
    assert all(p.is_meta for p in build_language_model("google/flan-t5-xxl").parameters())


def test_a_part_counted_twice_is_an_error():
    model = blueprint(get("micro-stage2"))
    with pytest.raises(AssertionError, match="cover the model's parameters once"):
        replace(model, parts={**model.parts, "again": model.qformer}).parameters()


def test_fine_tuning_trains_the_image_encoder():
    caption, vqa = (blueprint(get(f"finetune-{task}-opt-2.7b")) for task in ("caption", "vqa"))
    trained = sum(caption.parameters()[part] for part in caption.trained)
    assert trained == pytest.approx(1.1e9, rel=0.02)  # Table 3
    assert "image encoder" in vqa.trained and vqa.qformer.config.has_text and not caption.qformer.config.has_text
    assert sum(vqa.parameters()[part] for part in vqa.trained) == pytest.approx(1.2e9, rel=0.03)  # Table 4
    assert vqa.image_encoder.num_features == (490 // 14) ** 2 + 1


def test_unknown_sizes_are_an_error():
    for build in (build_image_encoder, build_language_model):
        with pytest.raises(ValueError, match="the sizes of 'somebody/model' are not known without a download"):
            build("somebody/model")


# -------------------------------------------------------------------------------------------------- work of an example


def small_encoder() -> ImageEncoder:
    from transformers import Blip2VisionConfig

    sizes = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=160)
    return ImageEncoder.from_config(Blip2VisionConfig(**sizes, image_size=60, patch_size=12))


@pytest.mark.parametrize("trained", [False, True])
def test_encoder_flops_match_torchs_counter(trained):
    encoder = small_encoder().requires_grad_(trained)
    encoder.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        features = encoder(torch.randn(2, 3, 60, 60))
        if trained:
            features.sum().backward()
    assert counter.get_total_flops() / 2 == pytest.approx(workload.encoder_work(encoder, trained).flops, rel=0.02)


def small_language_model(kind: str):
    from transformers import OPTConfig, T5Config

    torch.manual_seed(0)
    if kind == "t5":
        sizes = dict(d_model=128, d_kv=64, d_ff=320, num_layers=3, num_decoder_layers=2, num_heads=3)
        ids = dict(decoder_start_token_id=0, tie_word_embeddings=False)
        return new_t5(T5Config(vocab_size=500, feed_forward_proj="gated-gelu", **sizes, **ids))
    sizes = dict(hidden_size=128, ffn_dim=512, num_hidden_layers=3, num_attention_heads=2, word_embed_proj_dim=128)
    return new_opt(OPTConfig(vocab_size=500, **sizes))


@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_language_flops_and_activations_match_torchs_counter(kind):
    """Forward, and back to the visual prompt, through a frozen model in 16 bits."""
    model = language_model(small_language_model(kind).to(torch.bfloat16))
    queries, prompt, answer, examples = 16, 12, 10, 3
    visual_prompt = torch.randn(examples, queries, model.width, dtype=torch.bfloat16, requires_grad=True)
    texts = [Text(torch.full((examples, n), 7), torch.ones(examples, n, dtype=torch.bool)) for n in (prompt, answer)]
    work = workload.language_work(model.model, queries, prompt, answer)
    _, kept = workload.count_work(lambda: model.answer_loss(visual_prompt, *texts), model)
    assert kept / examples == pytest.approx(work.activation_bytes, rel=0.1)
    model.model.set_attn_implementation("eager")  # torch does not count the fused attention of a CPU
    flops, _ = workload.count_work(lambda: model.answer_loss(visual_prompt, *texts), model)
    assert flops / examples == pytest.approx(work.flops, rel=0.04)


@pytest.mark.parametrize("name", ["paper-stage1-vit-g", "paper-stage2-vit-g-opt-2.7b", "finetune-vqa-opt-2.7b"])
def test_the_extrapolated_qformer_matches_the_counted_one(name):
    """From 2 and 4 of 8 heads to 8, from 2 and 4 layers to 6."""
    model = blueprint(get(name))
    config = QFormerConfig(
        vocab_size=1500,
        width=256,
        num_heads=8,
        ffn_width=512,
        num_layers=6,
        image_width=160,
        num_query_tokens=8,
        has_text=model.qformer.config.has_text,
    )
    model.qformer.config = config
    model = replace(model, image_encoder=small_encoder())
    texts = CaptionLengths(mean=6, longest=9)
    direct = workload._count_qformer(model, config, texts)
    guess = workload.qformer_work(model, texts)
    assert guess.flops == pytest.approx(direct.flops, rel=0.01)
    assert guess.activation_bytes == pytest.approx(direct.activation_bytes, rel=0.1)


def test_a_large_vocabulary_is_added_by_formula(monkeypatch):
    model = blueprint(get("micro-stage1"))
    config = replace(model.qformer.config, vocab_size=2500)
    guess = workload._count_qformer(model, config, CaptionLengths(5, 5))
    monkeypatch.setattr(workload, "COUNTED_VOCABULARY", 10_000)
    direct = workload._count_qformer(model, config, CaptionLengths(5, 5))
    assert guess.flops == pytest.approx(direct.flops, rel=1e-6) and guess.activation_bytes == pytest.approx(
        direct.activation_bytes, rel=0.02
    )


# --------------------------------------------------------------------------------------------------------------- plans


@pytest.fixture
def quick(monkeypatch):
    """Plans without counting the Q-Former."""
    monkeypatch.setattr(workload, "qformer_work", lambda plan, texts: Work(120e9, 120e6))


@pytest.mark.parametrize("name", ["a100-stage1", "a100-stage2"])
@pytest.mark.slow
def test_one_a100_finishes_in_less_than_a_day(name):
    plan = planner.plan(get(name))
    assert plan.machine == planner.A100 and plan.gpus == 1
    assert 12 < plan.hours < 24
    assert sum(plan.memory.values()) < plan.memory_limit == 80 * 2**30
    assert plan.measured is None and "measured: never" in planner.plan_table(plan)
    assert plan.flops_per_example["image encoder"] / 1e12 == pytest.approx(0.52, abs=0.01)
    if name == "a100-stage1":  # a step of 16 is 3.85 TFLOP in the reference; half of it suffices
        assert 1.5 < 16 * plan.flops_per_example["Q-Former"] / 1e12 < 2.05


def test_totals_of_a_plan(quick, tmp_path):
    plan = planner.plan(get("paper-stage2-vit-g-flant5-xl"), gpus=16, memory=40, utilization=0.5, runs_dir=tmp_path)
    assert plan.examples_per_pass == 1520 / 16
    work = plan.flops_per_step / (16 * 312e12 * 0.5)
    assert plan.step_seconds == pytest.approx(work) and plan.hours == pytest.approx(work * 80_000 / 3600)
    trained = sum(plan.parameters[name] for name in plan.trained)
    frozen = sum(plan.parameters.values()) - trained
    assert plan.memory["optimizer"] == 8 * trained and plan.memory["gradients"] == 4 * trained
    assert plan.memory["frozen weights"] == 2 * frozen
    assert 0.02 < plan.trained_share < 0.03
    assert plan.download.keys() == {"eva-clip-vit-g-14", "google/flan-t5-xl"}
    assert plan.download["google/flan-t5-xl"] == 4 * plan.parameters["language model"]
    twice = planner.plan(get("paper-stage2-vit-g-flant5-xl"), gpus=32, utilization=0.5, runs_dir=tmp_path)
    assert twice.hours == pytest.approx(plan.hours / 2)


def test_fits_is_the_largest_pass_that_fits(quick, tmp_path):
    recipe = get("paper-stage1-vit-g")
    plan = planner.plan(recipe, memory=24, runs_dir=tmp_path)
    fixed = sum(size for name, size in plan.memory.items() if name != "activations")
    each = plan.memory["activations"] / plan.examples_per_pass
    for card, most in plan.fits.items():
        assert fixed + most * each <= card * 2**30 < fixed + (most + 1) * each
    assert list(plan.fits) == [16, 24, 40, 80] and "does not fit in 24 GiB" in planner.plan_table(plan)
    large = planner.plan(get("paper-stage2-vit-g-flant5-xxl"), runs_dir=tmp_path)
    assert large.fits[16] == 0 and "16 GiB card           too small" in planner.plan_table(large)


def test_gradient_checkpointing_needs_less_memory_and_more_time(quick, tmp_path):
    plain = planner.plan(get("finetune-caption-opt-2.7b"), runs_dir=tmp_path)
    again = planner.plan(override(get("finetune-caption-opt-2.7b"), "optim.checkpoint_layers=true"), runs_dir=tmp_path)
    assert again.memory["activations"] < 0.2 * plain.memory["activations"] and again.hours > 1.1 * plain.hours


def test_prediction_and_measurement(quick, tmp_path):
    """A planted log of 100 steps of 32 in 50 seconds: 64 examples a second."""
    folder = tmp_path / "micro-stage1"
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"optim": {"batch_size": 32}}))
    lines = [{"step": 50, "seconds": 30.0}, {"step": 100, "seconds": 50.0}, {"step": 100, "evaluation": {}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = planner.plan(get("micro-stage1"), utilization=0.2, runs_dir=tmp_path)
    measured = plan.measured
    predicted = plan.batch_size / plan.step_seconds
    assert measured.samples_per_second == pytest.approx(64) and measured.ratio == pytest.approx(predicted / 64)
    assert measured.utilization == pytest.approx(0.2 / measured.ratio)
    assert "the run took" in planner.plan_table(plan)

    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 150, "sec')  # cut by a kill
    assert planner.plan(get("micro-stage1"), utilization=0.2, runs_dir=tmp_path).measured == measured
    for wrong in ("[", "[]", "{}", '{"optim": 5}', '{"optim": {"batch_size": "32"}}'):
        (folder / "recipe.json").write_text(wrong)
        with pytest.raises(ValueError, match="micro-stage1/recipe.json is damaged, or of another version"):
            planner.plan(get("micro-stage1"), utilization=0.2, runs_dir=tmp_path)


@pytest.mark.slow
def test_the_shipped_runs_are_within_a_factor_of_three(tmp_path):
    """One assumed utilization for very different models: the ratio says how wrong it is."""
    for name in ("micro-stage1", "micro-stage2", "micro-bert"):
        plan = planner.plan(get(name), runs_dir=tmp_path)
        assert plan.measured.log.startswith("shipped: ")
        assert 1 / 3 < plan.measured.ratio < 3, (name, plan.measured)


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - EPOCHS.keys()))
@pytest.mark.slow
def test_every_recipe_has_a_plan(name, quick, tmp_path, monkeypatch):
    if name in (*MICRO_PARTS, "laptop-vit", "laptop-t5", "laptop-bert"):
        monkeypatch.setattr(planner, "pretraining_work", lambda recipe: ({recipe.task: 1000}, Work(1e6, 1e3)))
    if RECIPES[name].sequence:
        with pytest.raises(ValueError, match="is made of other recipes: plan "):
            planner.plan(get(name), runs_dir=tmp_path)
        return
    plan = planner.plan(get(name), runs_dir=tmp_path)
    assert plan.hours > 0 and 0 < plan.trained_share <= 1
    assert json.loads(json.dumps(planner.to_json(plan)))["recipe"] == name


@pytest.mark.slow
def test_a_model_pretrained_here_is_counted_on_real_batches(tmp_path):
    plan = planner.plan(override(get("micro-bert"), "optim.steps=8"), runs_dir=tmp_path)
    tokens = plan.flops_per_example["bert"] / (6 * plan.parameters["bert"])  # 6 FLOPs a parameter and token
    assert 5 < tokens < 100 and plan.trained_share == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpus": 0},
        {"memory": 0},
        {"utilization": 1.5},
        {"peak": -1.0},
        {"memory": math.nan},
        {"utilization": 0.0},
        {"peak": 0.0},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match="a plan needs"):
        planner.plan(get("micro-stage1"), **wrong)


def test_the_command_prints_a_plan(capsys, quick, tmp_path):
    from blip2_lab.cli import main

    assert main(["plan", "paper-stage1-vit-l", "--gpus", "16", "--json", "--runs", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["examples_per_pass"] == 145
    options = ["--set", "optim.batch_size=64", "--peak", "989", "--runs", str(tmp_path)]
    assert main(["plan", "paper-stage1-vit-l", *options]) == 0
    out = capsys.readouterr().out
    assert "989 TFLOP/s" in out and "64 examples a pass" in out and "said to cost: under 6 days" in out
    assert main(["plan", "a100-stage1", "--runs", str(tmp_path)]) == 0
    assert "said to cost" not in capsys.readouterr().out  # its cost is this plan
    assert main(["plan", "paper-stage1-vit-x"]) == 2 and "did you mean" in capsys.readouterr().err
