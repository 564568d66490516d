"""Recipes: the paper's numbers, typed overrides, errors that name the nearest."""

from dataclasses import FrozenInstanceError

import pytest

from blip2_lab.recipes import PAPER_PAIRS, RECIPES, get, override, settings, table, with_settings


def test_names_are_unique_and_their_own():
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert len(RECIPES) == 8 + 2 + 6


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
    assert recipe.needs == (f"paper-stage1-{encoder}",)


def test_a_sequence_comes_in_an_order_that_can_be_trained():
    done: list[str] = []
    for name in get("micro-all").sequence:
        assert set(get(name).needs) <= set(done), name
        done.append(name)
    assert get("micro-stage2").needs == ("micro-vit", "micro-bert", "micro-stage1", "micro-t5")
    assert get("micro-stage1").needs == ("micro-vit", "micro-bert")
    alone = override(get("micro-stage2"), "model.pretrained=false")
    assert "micro-stage1" not in alone.needs and "micro-bert" in alone.needs


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
        ("optim.steps=1.5", "optim.steps wants a whole number"),
        ("optim.betas=0.9", "wants 2 values"),
        ("optim.precision=fp8", "choose bf16, fp16 or fp32"),
        ("optim.lr", "not of the form key=value"),
        ("optim=1", "no setting 'optim'"),
        ("name=x", "no setting 'name'"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(change, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        override(get("micro-stage1"), change)


def test_a_wrong_boolean():
    with pytest.raises(ValueError, match="true or false"):
        override(get("micro-stage2"), "model.pretrained=maybe")


def test_settings_of_a_sequence_name_their_part():
    parts = with_settings(get("micro-all"), ["micro-vit/optim.steps=7", "micro-t5/seed=2"])
    assert [p.name for p in parts] == list(get("micro-all").sequence)
    assert parts[0].optim.steps == 7 and parts[1].seed == 2 and parts[2] == get("micro-opt")
    with pytest.raises(ValueError, match="say which one"):
        with_settings(get("micro-all"), ["optim.steps=7"])
    (one,) = with_settings(get("micro-vit"), ["optim.steps=7", "optim.lr=1"])
    assert (one.optim.steps, one.optim.lr) == (7, 1.0)


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        get("micro-vit").optim.lr = 1.0


def test_the_table_lists_all_with_their_cost():
    lines = table().splitlines()
    assert len(lines) == len(RECIPES) + 1
    assert all(recipe.cost and recipe.summary for recipe in RECIPES.values())
    assert any(line.startswith("micro-vit ") and RECIPES["micro-vit"].cost in line for line in lines)
