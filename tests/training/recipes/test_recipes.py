"""Recipes: the paper's numbers, typed overrides, errors that suggest the nearest name."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.training.optim import parameter_groups, vit_lr_scales
from blip2_lab.training.recipes.bridges import MICRO_BRIDGES
from blip2_lab.training.recipes.micro import LAPTOP, MAE, MICRO, SHIPPED
from blip2_lab.training.recipes.own import OWN_WORLD
from blip2_lab.training.recipes.paper import A100, FINE_TUNING, LAVIS, PAPER, PAPER_PAIRS
from blip2_lab.training.recipes.registry import RECIPES, get, needs, recipes_table, with_settings
from blip2_lab.training.recipes.relatives import RELATIVES
from blip2_lab.training.recipes.schedules import MICRO_SCHEDULES
from blip2_lab.training.recipes.schema import override, settings


def test_names_are_unique():
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    groups = (MICRO, (MAE,), SHIPPED, OWN_WORLD, MICRO_BRIDGES, MICRO_SCHEDULES, LAPTOP)
    groups += (A100, PAPER, FINE_TUNING, LAVIS, RELATIVES)
    assert len(RECIPES) == 2 + sum(map(len, groups))  # and those for your pictures


@pytest.mark.parametrize("encoder,batch_size", [("vit-l", 2320), ("vit-g", 1680)])
def test_stage1_of_the_paper(encoder, batch_size):
    optim = get(f"paper-stage1-{encoder}").optim
    assert (optim.steps, optim.batch_size, optim.lr, optim.warmup_steps) == (250_000, batch_size, 1e-4, 2000)
    assert optim.betas == (0.9, 0.98) and optim.weight_decay == 0.05
    assert get(f"paper-stage1-{encoder}").model.num_query_tokens == 32


@pytest.mark.parametrize("encoder,language", PAPER_PAIRS)
def test_stage2_of_the_paper(encoder, language):
    recipe = get(f"paper-stage2-{encoder}-{language}")
    is_t5 = "t5" in language
    assert recipe.optim.batch_size == (1520 if is_t5 else 1920)
    assert recipe.optim.precision == ("bf16" if is_t5 else "fp16")
    assert (recipe.optim.steps, recipe.optim.min_lr, recipe.optim.lr) == (80_000, 5e-5, 1e-4)
    assert needs(recipe) == (f"paper-stage1-{encoder}",)


TABLES_7_AND_8 = [  # task, language model, batch size, resolution, layer-wise decay, as printed in the appendix
    ("caption", "flant5-xl", 256, 364, 1),
    ("caption", "opt-2.7b", 256, 364, 1),
    ("caption", "opt-6.7b", 256, 364, 0.95),
    ("vqa", "flant5-xl", 128, 490, 0.95),
    ("vqa", "opt-2.7b", 128, 490, 0.95),
    ("vqa", "opt-6.7b", 128, 490, 0.9),
]


@pytest.mark.parametrize("task,language,batch_size,resolution,decay", TABLES_7_AND_8)
def test_fine_tuning_of_tables_7_and_8(task, language, batch_size, resolution, decay):
    recipe = get(f"finetune-{task}-{language}")
    optim, parts = recipe.optim, recipe.model
    assert (optim.batch_size, recipe.data.image_size, parts.layer_decay) == (batch_size, resolution, decay)
    assert (optim.lr, optim.warmup_steps, optim.betas, optim.weight_decay) == (1e-5, 1000, (0.9, 0.999), 0.05)
    assert optim.steps == 5 * (recipe.data.pairs // batch_size)  # five epochs
    assert parts.prompt == {"caption": "a photo of", "vqa": "Question: {} Answer:"}[task]
    assert parts.question_in_qformer == (task == "vqa") and parts.train_image_encoder
    assert needs(recipe) == (f"paper-stage2-vit-g-{language}",)
    assert not recipe.data.flip or task == "caption"


@pytest.mark.parametrize(
    "encoder,lr,betas,decay", [("vit-l", 5e-6, (0.9, 0.98), 1), ("vit-g", 1e-5, (0.9, 0.999), 0.95)]
)
def test_fine_tuning_of_table_9(encoder, lr, betas, decay):
    recipe = get(f"finetune-retrieval-{encoder}")
    assert (recipe.optim.lr, recipe.optim.betas, recipe.model.layer_decay) == (lr, betas, decay)
    assert (recipe.optim.batch_size, recipe.optim.warmup_steps, recipe.data.image_size) == (224, 1000, 364)
    assert needs(recipe) == (f"paper-stage1-{encoder}",)


def test_differences_between_lavis_and_the_paper():
    paper, lavis = get("paper-stage1-vit-g"), get("lavis-stage1")
    assert (lavis.optim.batch_size, lavis.optim.warmup_steps, lavis.optim.min_lr) == (1600, 5000, 1e-5)
    assert lavis.optim.betas == (0.9, 0.999) != paper.optim.betas
    assert not lavis.model.gather_with_grad and paper.model.gather_with_grad
    assert lavis.optim.steps == 10 * (1_388_000 // 1600) < paper.optim.steps / 25
    stage2 = get("lavis-stage2-opt-2.7b").optim
    assert (stage2.batch_size, stage2.warmup_steps, stage2.min_lr) == (1024, 2000, 1e-5)
    assert get("lavis-retrieval").model.layer_decay == 1.0  # 0.95 in the yaml, not applied
    assert get("lavis-retrieval").optim == get("finetune-retrieval-vit-g").optim


# --------------------------------------------------------------------------------------------- layer-wise decay, acting


def test_vit_lr_scales_by_hand():
    scales = vit_lr_scales(3, 0.5)
    assert [scales[f"image_encoder.model.encoder.layers.{k}."] for k in range(3)] == [0.125, 0.25, 0.5]
    assert scales["image_encoder.model.embeddings."] == 0.0625
    assert vit_lr_scales(39, 1.0) == {}


@pytest.mark.parametrize("kind", ["eva", "clip"])
def test_layer_wise_decay_changes_the_updates(kind):
    """Adam's first step moves every weight by its learning rate: each layer by twice as much as the one below it."""
    from transformers import Blip2VisionConfig, CLIPVisionConfig, CLIPVisionModel

    sizes = dict(hidden_size=32, num_hidden_layers=12, num_attention_heads=2, intermediate_size=32)
    if kind == "eva":
        encoder = ImageEncoder.from_config(Blip2VisionConfig(**sizes, image_size=24, patch_size=12))
    else:
        encoder = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=24, patch_size=12)))
    model = nn.ModuleDict(
        {"image_encoder": encoder, "qformer": nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])})}
    )
    groups = parameter_groups(model, 1e-3, 0.0, lr_scales=vit_lr_scales(12, 0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(groups).step()
    moved = {name: (p - before[name]).abs().mean().item() for name, p in model.named_parameters()}
    layer = "image_encoder.model.encoder.layers.{}.mlp.fc1.bias"
    for k in range(12):  # layers 1 and 11 are told apart
        assert moved[layer.format(k)] == pytest.approx(1e-3 * 0.5 ** (12 - k), rel=0.02), k
    assert moved["qformer.layers.0.weight"] == pytest.approx(1e-3, rel=0.02)  # a layer 0 too, and none of the ViT's
    embeddings = [distance for name, distance in moved.items() if ".embeddings." in name or "pre_layrnorm" in name]
    assert embeddings == pytest.approx([1e-3 * 0.5**13] * len(embeddings), rel=0.05) and len(embeddings) >= 3


# ----------------------------------------------------------------------------------------------------------- sequences


@pytest.mark.parametrize("sequence", ["micro-all", "laptop"])
def test_a_sequence_comes_in_an_order_that_can_be_trained(sequence):
    done: list[str] = []
    for name in get(sequence).sequence:
        assert set(needs(get(name))) <= set(done), name
        done.append(name)


def test_needs_are_in_order():
    assert needs(get("micro-stage2")) == ("micro-vit", "micro-bert", "micro-stage1", "micro-flan-t5")
    assert needs(get("micro-stage1")) == ("micro-vit", "micro-bert")
    alone = override(get("micro-stage2"), "model.pretrained=false")
    assert "micro-stage1" not in needs(alone) and "micro-bert" in needs(alone)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'micro-stage1'"):
        get("micro-stag1")
    with pytest.raises(ValueError) as error:
        get("zzz")
    assert "did you mean" not in str(error.value)


def test_override_converts_to_the_type_of_the_field():
    recipe = get("micro-stage1")
    assert override(recipe, "optim.lr=5e-5").optim.lr == 5e-5
    assert override(recipe, "optim.steps=10").optim.steps == 10
    assert override(recipe, " optim.betas = 0.9, 0.95").optim.betas == (0.9, 0.95)
    assert override(recipe, "optim.grad_clip=none").optim.grad_clip is None
    assert override(recipe, "optim.grad_clip=2").optim.grad_clip == 2.0
    assert override(recipe, "data.caption=full").data.caption == "full"
    assert override(recipe, "seed=3").seed == 3
    assert override(get("micro-stage2"), "model.pretrained=False").model.pretrained is False
    assert recipe == get("micro-stage1")  # the table is untouched


def test_every_setting_can_be_overridden_with_itself():
    for recipe in RECIPES.values():
        for key, value in settings(recipe).items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert override(recipe, f"{key}={text}") == recipe, key


@pytest.mark.parametrize(
    "change,says",
    [
        ("optim.lrr=1", "did you mean 'optim.lr'"),
        ("lr=1", "no setting 'lr'; did you mean 'optim.lr'"),
        ("optim.lr=fast", "optim.lr wants a number, not 'fast'"),
        ("OPTIM.LR=1", "did you mean 'optim.lr'"),
        ("optim.warmup_steps=200%", "it must be at most 100% of the steps"),
        ("optim.steps=1.5", "optim.steps wants a whole number"),
        ("optim.betas=0.9", "wants 2 values"),
        ("optim.precision=fp8", "choose auto, bf16, fp16 or fp32"),
        ("optim.lr", "not of the form key=value"),
        ("optim=1", "no setting 'optim'"),
        ("name=x", "no setting 'name'"),
    ],
)
def test_a_wrong_override_is_explained(change, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        override(get("micro-stage1"), change)


def test_a_wrong_boolean():
    with pytest.raises(ValueError, match="true or false"):
        override(get("micro-stage2"), "model.pretrained=maybe")


def test_settings_of_one_recipe_of_a_sequence():
    parts = with_settings(get("micro-all"), ["micro-vit/optim.steps=7", "micro-t5/seed=2"])
    assert [p.name for p in parts] == list(get("micro-all").sequence)
    changed = {part.name: part for part in parts if part != get(part.name)}
    assert changed.keys() == {"micro-vit", "micro-t5"}
    assert changed["micro-vit"].optim.steps == 7 and changed["micro-t5"].seed == 2
    assert {part.optim.steps for part in with_settings(get("micro-all"), ["optim.steps=7"])} == {7}
    with pytest.raises(ValueError, match="has no part 'micro-vitt': it is made of micro-vit, micro-bert"):
        with_settings(get("micro-all"), ["micro-vitt/optim.steps=7"])
    parts = {part.name: part for part in with_settings(get("micro-all"), ["model.bert=some/bert"])}
    assert parts["micro-stage1"].model.bert == "some/bert" and "micro-bert" not in parts  # where there is the setting
    assert parts.keys() == set(get("micro-all").sequence) - {"micro-bert"}
    with pytest.raises(ValueError, match="has no setting 'model.berd'"):
        with_settings(get("micro-all"), ["model.berd=some/bert"])
    (one,) = with_settings(get("micro-vit"), ["optim.steps=7", "optim.lr=1"])
    assert (one.optim.steps, one.optim.lr) == (7, 1.0)


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        get("micro-vit").optim.lr = 1.0


def test_the_table_lists_all_with_their_cost():
    lines = recipes_table().splitlines()
    assert len(lines) == len(RECIPES) + 1
    assert all(recipe.cost and recipe.summary for recipe in RECIPES.values())
    assert any(line.startswith("micro-vit ") and RECIPES["micro-vit"].cost in line for line in lines)


def test_a_warm_up_may_be_a_share_of_the_steps():
    recipe = override(get("micro-stage1"), "optim.steps=730")
    assert override(recipe, "optim.warmup_steps=10%").optim.warmup_steps == 73
    assert override(recipe, "optim.warmup_steps = 2.5%").optim.warmup_steps == 18
    for order in (1, -1):  # a share of the steps that are trained, whatever is said first
        changes = ("optim.warmup_steps=10%", "optim.steps=400")[::order]
        assert with_settings(get("micro-stage1"), changes)[0].optim.warmup_steps == 40
    for wrong in ("optim.warmup_steps=ten%", "optim.steps=10%"):
        with pytest.raises(ValueError, match="wants a whole number"):
            override(recipe, wrong)


def test_a_value_that_is_set_twice_is_an_error():
    with pytest.raises(ValueError, match="optim.lr is set 2 times, to .* and .*: give one value"):
        with_settings(get("micro-captions"), ["optim.lr=1e-4", "optim.lr=2e-4"])


@pytest.mark.parametrize("value", ["nan", "5", "-1"])
def test_a_jitter_is_a_share(value):
    with pytest.raises(ValueError, match="color_jitter is .*; it must be at least 0 and at most 1"):
        with_settings(get("micro-captions"), [f"data.color_jitter={value}"])
