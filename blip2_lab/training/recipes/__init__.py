"""Recipes: everything a training run needs to know, as data. No torch.

    schema    what a recipe is made of, and how one value is changed: `optim.lr=5e-5`
    micro     the miniature, for a laptop
    paper     the paper's, the released code's, and a form for one GPU
    registry  all of them by name

Paper: section 3.4, Tables 1, 2 and 7 to 9. Notebook: 08.
"""

from blip2_lab.training.recipes.registry import RECIPES, get, needs, pretraining_recipe, recipes_table, with_settings
from blip2_lab.training.recipes.schema import (
    FineTuneParts,
    ImageTextData,
    MicroPart,
    OptimConfig,
    Recipe,
    SceneData,
    Stage1Parts,
    Stage2Parts,
    SyntheticTextData,
    override,
    settings,
)

__all__ = [
    "RECIPES",
    "FineTuneParts",
    "MicroPart",
    "OptimConfig",
    "Recipe",
    "SceneData",
    "SyntheticTextData",
    "Stage1Parts",
    "Stage2Parts",
    "ImageTextData",
    "get",
    "needs",
    "pretraining_recipe",
    "override",
    "settings",
    "recipes_table",
    "with_settings",
]
