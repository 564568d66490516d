"""A recipe as one page: every setting with its meaning, the losses of a finished run, the command."""

import json
from dataclasses import fields

import pytest

from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.describe import LOGS, SECTIONS, describe, expected_losses
from blip2_lab.training.recipes.schema import as_typed, override, settings


@pytest.mark.parametrize("name", registry.RECIPES)
def test_every_recipe_has_a_page_with_its_command_and_all_its_settings(name):
    recipe = registry.get(name)
    page = describe(recipe)
    assert page.startswith(f"{name}\n  what     {recipe.summary}") and f"blip2-lab train {name}" in page
    for group in ("optim", "lora", "model", "data"):
        if part := getattr(recipe, group):
            for field in fields(part):
                assert f"  {group}.{field.name} = {as_typed(getattr(part, field.name))}" in page


@pytest.mark.parametrize("name", ["micro-vqa", "paper-stage1-vit-g", "micro-bert", "gated-65b"])
def test_every_value_is_shown_as_it_is_typed(name):
    """`--set NAME=VALUE` with what the page shows changes nothing."""
    recipe = registry.get(name)
    for setting, value in settings(recipe).items():
        if value == "":  # an empty text is shown as none
            continue
        assert override(recipe, f"{setting}={as_typed(value)}") == recipe, setting


def test_a_page_says_where_the_paper_has_what_is_trained():
    for name, section in {
        "a100-stage1": "section 3.2",
        "micro-stage2": "section 3.3",
        "micro-bert": "section 3.4",
        "micro-vqa": "section 4.3, Table 8",
        "micro-linear": "docs/bridges.md",
        "micro-all": "section 3.2, section 3.3, section 4.4, Table 9",
    }.items():
        (line,) = [line for line in describe(registry.get(name)).splitlines() if line.startswith("  paper ")]
        assert section in line, line
    assert {recipe.task for recipe in registry.RECIPES.values() if recipe.task in SECTIONS} == SECTIONS.keys()


def test_expected_losses_are_those_of_the_log(tmp_path):
    recipe = registry.get("micro-stage1")
    records = [{"step": 20 * i, "lr": 0.1, "total": 100.0 - i, "itc": 1.0 * i, "seconds": 3.0} for i in range(1, 42)]
    records.insert(5, {"step": 100, "evaluation": {"r1": 0.25}})
    records.append({"step": 820, "evaluation": {"r1": 0.75}})
    (tmp_path / "micro-stage1.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert expected_losses(recipe, [tmp_path / "none", tmp_path]) == [
        "step     20  total 99  itc 1",
        "step    100  total 95  itc 5",
        "step    220  total 89  itc 11",
        "step    420  total 79  itc 21",
        "step    820  total 59  itc 41",
        "held out, step 820: r1 0.75",
    ]
    assert expected_losses(recipe, [tmp_path / "none"]) == []


def test_the_logs_are_those_of_the_recipes():
    recipe = registry.get("micro-stage1")
    assert all(folder.is_dir() for folder in LOGS)
    assert f"step {recipe.optim.steps:>6}  total" in "\n".join(expected_losses(recipe))
