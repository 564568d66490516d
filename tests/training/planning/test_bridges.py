"""Plans of recipes with other bridges, and of the described relatives: sizes, work, FSDP memory, claims."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2_lab.models.bridges import GatedCrossAttention, GatedCrossAttentionConfig, LinearBridge, LinearConfig
from blip2_lab.models.language_model import Text, language_model
from blip2_lab.training.planning import flops as workload
from blip2_lab.training.planning import plan as planner
from blip2_lab.training.planning.bridges import bridge_blueprint, bridge_work
from blip2_lab.training.planning.flops import Work
from blip2_lab.training.planning.large_models import LARGE_VITS, LLAMAS, large_vit, llama
from blip2_lab.training.planning.parameters import count_parameters
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.relatives import DESCRIPTIONS, RELATIVES, warmup_share
from blip2_lab.training.recipes.schema import override

BRIDGED = [recipe.name for recipe in RELATIVES if recipe.name not in ("flant5-xl-stage1", "flant5-xl-stage2")]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The plan of a described recipe, computed once."""
    made, runs = {}, tmp_path_factory.mktemp("runs")

    def plan(name: str):
        if name not in made:
            made[name] = planner.plan(get(name), runs_dir=runs)
        return made[name]

    return plan


# ---------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "name,count", [("vit-bigg-14", 1.84e9), ("mae-vit-h-14", 0.63e9), ("llama-33b", 32.53e9), ("llama-65b", 65.29e9)]
)
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = large_vit(name) if name in LARGE_VITS else llama(name)
    assert count_parameters(model) == pytest.approx(count, rel=0.005)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    "name,total,trained",
    [
        ("adapter-xl", 35.07e9, 0.71e9),
        ("gated-65b", 81.1e9, 13.97e9),
        ("gated-65b-instruct", 81.1e9, 79.6e9),
        ("dual-70b", 70.0e9, 70.0e9),
    ],
)
def test_the_described_models_have_these_sizes(name, total, trained):
    model = bridge_blueprint(get(name))
    counts = model.parameters()  # asserts that the parts sum to the whole
    assert sum(counts.values()) == pytest.approx(total, rel=0.003)
    assert sum(counts[part] for part in model.trained) == pytest.approx(trained, rel=0.01)
    with pytest.raises(AssertionError, match="cover the model's parameters once"):
        replace(model, parts={**model.parts, "again": next(iter(model.parts.values()))}).parameters()


# ---------------------------------------------------------------------------------------------------------------- work


def small_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=128, intermediate_size=352, num_hidden_layers=3, num_attention_heads=2, vocab_size=500)
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0))


@pytest.mark.parametrize(("kind", "trained"), [("llama", False), ("llama", True), ("opt", True)])
def test_a_decoders_flops_and_activations_match_torchs_counter(kind, trained):
    from tests.training.planning.test_plan import small_language_model

    made = small_llama() if kind == "llama" else small_language_model("opt")
    model = language_model(made.to(torch.bfloat16))
    if trained:
        model.model.requires_grad_(True)
    queries, prompt, answer, examples = 16, 12, 10, 3
    visual_prompt = torch.randn(examples, queries, model.width, dtype=torch.bfloat16, requires_grad=True)
    texts = [Text(torch.full((examples, n), 7), torch.ones(examples, n, dtype=torch.bool)) for n in (prompt, answer)]
    work = workload.language_work(model.model, queries, prompt, answer, trained=trained)
    _, kept = workload.count_work(lambda: model.answer_loss(visual_prompt, *texts), model)
    model.model.set_attn_implementation("eager")  # torch does not count the fused attention of a CPU
    flops, _ = workload.count_work(lambda: model.answer_loss(visual_prompt, *texts), model)
    assert flops / examples == pytest.approx(work.flops, rel=0.04)
    assert kept / examples == pytest.approx(work.activation_bytes, rel=0.25)


def test_only_a_decoder_is_planned_as_trained():
    from tests.training.planning.test_plan import small_language_model

    with pytest.raises(ValueError, match="training a t5 language model is not planned"):
        workload.language_work(small_language_model("t5"), 1, 1, 1, trained=True)


def test_the_work_of_a_projector_by_hand():
    """65 features of 192 to 256: a forward and the gradient of the matrix; features and LayerNorm have none to pay."""
    with torch.device("meta"):
        bridge = LinearBridge(LinearConfig(192, 256))
    # LayerNorm trains, so the gradient of its output is computed, too: three products
    assert bridge_work(bridge, 65, 10).flops == 3 * 2 * 65 * 192 * 256


def test_the_work_of_gated_blocks_by_hand():
    width, image, ffn, features, tokens, blocks = 64, 32, 128, 9, 5, 2
    config = GatedCrossAttentionConfig(image, width, num_layers=4, num_heads=2, every=2, ffn_width=ffn)
    with torch.device("meta"):
        bridge = GatedCrossAttention(config)
    per_token = 2 * width**2 + 2 * width * ffn
    products = tokens * per_token + 2 * features * width * image + 2 * tokens * features * width
    assert bridge_work(bridge, features, tokens).flops == pytest.approx(3 * 2 * blocks * products, rel=1e-6)


def test_a_frozen_part_costs_less_than_a_trained_one(plans):
    bridge, instruct = plans("gated-65b"), plans("gated-65b-instruct")
    assert instruct.flops_per_example["language model"] / bridge.flops_per_example["language model"] == pytest.approx(
        1.5, rel=0.01
    )
    layers = instruct.flops_per_example["image encoder"] / bridge.flops_per_example["image encoder"]
    assert layers == pytest.approx(4 / 3 * (1 + 2 * 8 / 48), rel=0.01)  # 8 of 48 layers trained, all recomputed


# -------------------------------------------------------------------------------------------------------------- memory


def test_sharded_memory_by_hand():
    counts = {"frozen": 1000, "trained": 80}
    memory = planner.sharded_memory(counts, ("trained",), gpus=8, layer=25)
    assert memory == {
        "frozen weights": 2 * 1000 / 8,
        "trained weights": 4 * 80 / 8,
        "gathered layers": 2 * 2 * 25,
        "gradients": 4 * 80 / 8,
        "optimizer": 8 * 80 / 8,
        "reserve": planner.RESERVE,
    }


def test_a_sharded_plan_needs_less_on_more_gpus(plans, tmp_path, monkeypatch):
    plan = plans("gated-65b-instruct")
    assert plan.gpus == 128 and plan.memory["optimizer"] == 8 * sum(plan.parameters[p] for p in plan.trained) / 128
    layer = 4 * 8192**2 + 3 * 8192 * 22016 + 2 * 8192
    assert plan.memory["gathered layers"] == 4 * layer
    import blip2_lab.training.planning.bridges as bridges

    monkeypatch.setattr(bridges, "bridge_work", lambda *_: Work(1e12, 1e9))
    few = planner.plan(get("gated-65b-instruct"), gpus=8, runs_dir=tmp_path)
    assert sum(few.memory.values()) > few.memory_limit > sum(plan.memory.values())
    whole = planner.plan(override(get("gated-65b"), "optim.shard=false"), gpus=8, runs_dir=tmp_path)
    assert whole.memory["frozen weights"] > whole.memory_limit


# -------------------------------------------------------------------------------------------------------------- claims


def test_settings_that_the_texts_give():
    flant5, adapter, gated, dual = (get(n).optim for n in ("flant5-xl-stage1", "adapter-xl", "gated-65b", "dual-70b"))
    assert flant5.batch_size == 64 * 2048 and (flant5.warmup_steps, flant5.min_lr) == (10_000, 1e-6)
    assert flant5.precision == "bf16" and get("flant5-xl-stage2").model.max_text_tokens == 77
    assert (adapter.batch_size, adapter.accumulate, adapter.shard) == (2048, 4, True)
    assert adapter.warmup_steps == warmup_share(adapter.steps, 0.1) == round(adapter.steps / 10)
    assert (gated.lr, gated.warmup_steps, gated.min_lr, gated.betas) == (2e-5, 2000, 1e-6, (0.9, 0.95))
    assert (gated.weight_decay, gated.grad_clip, gated.batch_size, gated.accumulate) == (0.1, 1.0, 2048, 16)
    assert (dual.warmup_steps, dual.min_lr, dual.batch_size) == (10_000, 1e-6, 2048)
    pairs = [get(name).data.pairs for name in ("flant5-xl-stage1", "adapter-xl", "gated-65b", "dual-70b")]
    assert pairs == [129e6, 1.5e9, 515e6, 4.5e9]
    assert LLAMAS["llama-65b-65k"]["vocab_size"] == 65_536 and DESCRIPTIONS.keys() == {r.name for r in RELATIVES}


REMARKS = {
    "adapter-xl": (
        *("512 / 14 = 36.57", "504 pixels are 1,297 tokens, 518 are 1,370", "4 examples a GPU", "50,272"),
        *("93% are in the language model, 2.0% in the whole Q-Former", "behind token 32 is cut"),
    ),
    "gated-65b": (
        *("1.84 B", "257 tokens", "16 passes of 128 examples are 2,048", "81.1 B", "131 GB in 16 bits"),
        *("vary 1.17 to 1.23 times as much", "The text's 5 runs are"),
    ),
    "dual-70b": (
        *("writes no caption", "no output for one", "8,192 of the 65,536", "last token", "cards for 60 days"),
        "re-captioning come before the training",
    ),
}


@pytest.mark.parametrize("name", REMARKS)
def test_what_cannot_be_as_written_is_said_with_its_arithmetic(name, plans):
    plan = plans(name)
    table = planner.plan_table(plan)
    assert all(words in " ".join(plan.remarks) and words in table for words in REMARKS[name])
    ratios = {claim.what: claim.ratio for claim in plan.claims}
    for what, ratio in ratios.items():
        if what == "parameters, billions":
            assert ratio == pytest.approx(1, rel=0.01)
    assert "claimed" in table and f"{plan.claims[0].claimed:,.5g}" in table


def test_the_claims_of_flant5_xl(monkeypatch, tmp_path):
    monkeypatch.setattr(workload, "qformer_work", lambda plan, texts: Work(120e9, 120e6))
    plan = planner.plan(get("flant5-xl-stage2"), runs_dir=tmp_path)
    remarks = " ".join(plan.remarks)
    for words in (
        "64 GPUs with 2,048 examples each are 131,072 already",
        "129 M pairs is 984 steps",
        "takes 10.2 epochs",
        "420 M examples, would end at step 3,204, within the warm-up",
        "FlanT5-XL has 2.85 B, XXL 11.14 B",
        "77 tokens are the length of CLIP's texts",
        "hands to the language model does not depend on the text",
    ):
        assert words in remarks, words
    ratios = {claim.what: claim.ratio for claim in plan.claims}
    assert ratios["examples of a step"] == 1
    assert ratios["parameters without frozen ones, billions"] < 0.02
    assert plan.gpus == 64 and plan.examples_per_pass == 2048


def test_five_trainings_cost_five_times_as_much(plans):
    plan = plans("gated-65b")
    assert f"5 runs are {5 * plan.hours * plan.gpus:,.0f} hours if each is a training" in " ".join(plan.remarks)


def test_the_hours_of_the_dual_encoder(plans):
    """The claim of two months is 128 A100 where patches are not read by the text encoder, and 1,060 where they are."""
    plan = plans("dual-70b")
    each = sum(plan.flops_per_example.values())
    hours = 4.5e9 * each / (0.4 * 312e12) / 3600
    assert any(f"{hours:,.0f} A100 hours" in remark for remark in plan.remarks)
    assert plan.hours * plan.gpus == pytest.approx(hours, rel=1e-4)
    with_patches = 6 * 65.3e9 * 257 * 4 / 3 * 4.5e9 / (0.4 * 312e12) / 3600  # 6 FLOPs a weight and token, recomputed
    found = next(remark for remark in plan.remarks if "patch ids, too" in remark)
    said = float(found.split("patch ids, too, ")[1].split(" hours")[0].replace(",", ""))
    assert said - hours == pytest.approx(with_patches, rel=0.03)


@pytest.mark.parametrize("name", BRIDGED)
def test_the_page_has_the_numbers_of_the_plan(name, plans):
    page = (Path(__file__).parents[3] / "docs" / "bridges.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    plan = plans(name)
    trained = sum(plan.parameters[part] for part in plan.trained)
    numbers = (
        f"{sum(plan.parameters.values()) / 1e9:.1f} B | {trained / 1e9:.1f} B",
        f"{plan.gpus:,} {DESCRIPTIONS[name].gpu}",
        f"{sum(plan.memory.values()) / planner.GIB:.1f} GiB | {plan.steps:,} | {planner.duration(plan.hours)}",
    )
    assert all(number in row for number in numbers), (row, numbers)
