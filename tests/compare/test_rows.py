"""The rows of a comparison: how steps are divided, and what each recipe of a row is."""

import pytest

from blip2_lab.compare.rows import REFERENCE, ROWS, check_rows, default_steps, recipes_of, run_name, split_steps
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import BridgeParts, Stage2Parts


@pytest.mark.parametrize(
    ("steps", "shares", "split"),
    [
        (2700, [1700, 1000], [1700, 1000]),
        (27, [1700, 1000], [17, 10]),
        (4, [1700, 1000], [3, 1]),
        (2, [1700, 1000], [1, 1]),
        (3, [1, 1000], [1, 2]),
        (7, [1], [7]),
        (10, [1, 1, 1], [4, 3, 3]),
    ],
)
def test_steps_are_divided_in_proportion_and_none_is_lost(steps, shares, split):
    assert split_steps(steps, shares) == split and sum(split) == steps


def test_too_few_steps_are_said():
    with pytest.raises(ValueError, match="2 phases need at least a step each, and there are 1"):
        split_steps(1, [1700, 1000])


def test_with_the_default_steps_blip2_is_its_recipes():
    stage1, stage2 = recipes_of(REFERENCE, default_steps(), 0)
    for made, name in ((stage1, "micro-stage1"), (stage2, "micro-stage2")):
        recipe = get(name)
        assert made.optim == recipe.optim and made.data == recipe.data and made.eval_every == 0
    assert stage1.model == get("micro-stage1").model
    assert stage2.model.stage1 == stage1.name == run_name(REFERENCE, default_steps(), 0, 0, 2)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("steps", [2, 50, 2701])
def test_every_row_has_the_same_number_of_samples(row, steps):
    made = recipes_of(row, steps, 7)
    assert sum(recipe.optim.steps for recipe in made) == steps
    assert {recipe.optim.batch_size for recipe in made} == {64} and {recipe.seed for recipe in made} == {7}
    assert all(recipe.optim.warmup_steps < recipe.optim.steps for recipe in made)
    names = [recipe.name for recipe in made]
    assert len(set(names)) == len(names) and names[-1] == f"compare-{row}-{steps}-seed7"
    for before, recipe in zip(made, made[1:], strict=False):  # the second phase starts from the first
        start = recipe.model.stage1 if isinstance(recipe.model, Stage2Parts) else recipe.model.start
        assert start == before.name


def test_rows_that_answer_have_one_language_model_and_a_dual_encoder_its_own():
    for row in ROWS:
        last = recipes_of(row, 10, 0, language_model="micro-t5")[-1].model
        own = isinstance(last, BridgeParts) and last.bridge == "dual_encoder"
        assert last.language_model == ("micro-opt" if own else "micro-t5")
        assert recipes_of(row, 10, 0, language_model="micro-opt")[-1].model.language_model == "micro-opt"


def test_shares_of_the_steps_stay_shares():
    stage1, _ = recipes_of(REFERENCE, 270, 0)
    assert (stage1.optim.warmup_steps, stage1.data.hard_batches_from) == (15, 40)


def test_changes_reach_every_recipe_that_has_the_setting():
    made = recipes_of("gated-two-phase", 10, 0, ["optim.batch_size=32", "data.scenes=70", "data.caption=short"])
    assert {recipe.optim.batch_size for recipe in made} == {32} and {recipe.data.scenes for recipe in made} == {70}
    assert made[0].data.caption == "short"  # dialogues have no captions


def test_rows_are_checked_and_ordered():
    assert check_rows(["qformer", "linear", "qformer"]) == ["linear", "qformer"]
    with pytest.raises(ValueError, match="no row 'linaer'; did you mean 'linear'"):
        check_rows(["linaer"])
