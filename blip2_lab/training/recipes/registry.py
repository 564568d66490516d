"""All recipes by name: look one up, change its settings, list what it needs, print the table.

`get(name)` is where to begin. `blip2-lab recipes` prints `recipes_table()`.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from blip2_lab.common.console import did_you_mean
from blip2_lab.training.recipes.bridges import MICRO_BRIDGES
from blip2_lab.training.recipes.micro import LAPTOP, MAE, MICRO, OWN, OWN_VQA, SHIPPED
from blip2_lab.training.recipes.own import OWN_WORLD
from blip2_lab.training.recipes.paper import A100, FINE_TUNING, LAVIS, PAPER
from blip2_lab.training.recipes.relatives import RELATIVES
from blip2_lab.training.recipes.schedules import MICRO_SCHEDULES
from blip2_lab.training.recipes.schema import (
    BridgeParts,
    FineTuneParts,
    MicroPart,
    Recipe,
    Stage1Parts,
    Stage2Parts,
    override,
    settings,
)

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        *(*MICRO, MAE, *SHIPPED, OWN, OWN_VQA, *OWN_WORLD, *MICRO_BRIDGES, *MICRO_SCHEDULES, *LAPTOP),
        *(*A100, *PAPER, *FINE_TUNING, *LAVIS, *RELATIVES),
    )
}


def get(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError that suggests the nearest name."""
    if name not in RECIPES:
        raise ValueError(
            f"there is no recipe {name!r}{did_you_mean(name, RECIPES)}; `blip2-lab recipes` lists them all"
        )
    return RECIPES[name]


def needs(recipe: Recipe, recipes: Mapping[str, Recipe] = RECIPES) -> tuple[str, ...]:
    """Names of the recipes whose run folders this one reads, in the order in which to train them.

    `recipes`: the others with their settings, which say what a stage 1 is made of.
    """
    if isinstance(recipe.model, Stage1Parts):
        return tuple(name for name in (recipe.model.image_encoder, recipe.model.bert) if name in RECIPES)
    if isinstance(recipe.model, BridgeParts):
        parts = recipe.model
        names = (parts.start,) if parts.start else (parts.image_encoder, parts.language_model)
        return tuple(name for name in names if name in RECIPES)
    if isinstance(recipe.model, Stage2Parts):
        if recipe.model.start is not None:
            return tuple(name for name in (recipe.model.start, recipe.model.language_model) if name in RECIPES)
        stage1 = recipes.get(recipe.model.stage1)  # else a run's folder or a model, which has all of its parts
        names = (*(needs(stage1) if stage1 else ()), *([recipe.model.stage1] if recipe.model.pretrained else ()))
        names += (recipe.model.language_model,)
        return tuple(name for name in names if name in RECIPES)
    if isinstance(recipe.model, MicroPart):
        return tuple(name for name in (recipe.model.start,) if name in RECIPES)
    if isinstance(recipe.model, FineTuneParts):
        return tuple(name for name in (recipe.model.start, recipe.model.text_from) if name in RECIPES)
    return ()


def continued(name: str, sequence: Sequence[str]) -> str:
    """The recipe of the sequence in which the training of `name` ends: another of its task may start from it."""
    for other in map(get, sequence):
        if other.task == get(name).task and getattr(other.model, "start", None) == name:
            return continued(other.name, sequence)
    return name


def pretraining_recipe(recipe: Recipe) -> Recipe:
    """The pre-training that a fine-tuning recipe starts from; the shipped model contains both stages of the
    miniature."""
    shipped = "micro-stage1" if recipe.task == "retrieval" else "micro-stage2"
    while isinstance(recipe.model, FineTuneParts):
        recipe = get(shipped if recipe.model.start == "micro" else recipe.model.start)
    return recipe


def with_settings(
    recipe: Recipe, changes: Sequence[str], prepare: Callable[[Recipe], Recipe] = lambda part: part
) -> list[Recipe]:
    """The recipe, or the recipes of a sequence in their order, with settings changed: `"optim.lr=5e-5"`.

    In a sequence, a change applies to every recipe that has the setting, or to the one it names:
    `"micro-vit/optim.steps=100"`. A frozen model that no other recipe of the sequence starts from is left out.
    `prepare` changes each recipe of a sequence before its settings. A warm-up in percent is a share of the steps that
    the other changes leave.
    """
    keys = [change.partition("=")[0].strip() for change in changes]
    if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        values = " and ".join(c.partition("=")[2] for c in changes if c.partition("=")[0].strip() == twice[0])
        raise ValueError(f"{twice[0]} is set {keys.count(twice[0])} times, to {values}: give one value")
    recipes = {name: prepare(get(name)) for name in recipe.sequence} or {recipe.name: recipe}
    for change in sorted(changes, key=_is_share):
        name, slash, _ = change.partition("=")[0].rpartition("/")
        if slash and name not in recipes:
            raise ValueError(f"{recipe.name} has no part {name!r}: it is made of {', '.join(recipes)}")
        key = change.partition("=")[0].strip()
        having = [part for part in recipes if key in settings(recipes[part])] or list(recipes)
        for each in [name] if slash else having:
            recipes[each] = override(recipes[each], change.removeprefix(f"{name}/"))
    started_from = {name for part in recipes.values() for name in needs(part, recipes)}
    return [
        part
        for name, part in recipes.items()
        if not recipe.sequence or name in started_from or not isinstance(part.model, MicroPart)
    ]


def _is_share(change: str) -> bool:
    return "warmup_steps" in change and change.rstrip().endswith("%")


def recipes_table() -> str:
    """All recipes as a table for the terminal."""
    rows = [("recipe", "cost", "what"), *((r.name, r.cost, r.summary) for r in RECIPES.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {cost:<{widths[1]}}  {what}" for name, cost, what in rows)
