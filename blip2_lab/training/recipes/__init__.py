"""Recipes: all settings of a training run, as data. No torch.

    schema    the dataclasses of a recipe, and `override`, which changes one value: `optim.lr=5e-5`
    micro     the miniature, for a laptop
    own       a world of your own: every part from a folder of pictures with captions
    bridges   the miniature with other bridges than the Q-Former
    schedules two schedules of the learning rate, in miniature
    paper     the paper's recipes, the released code's, and versions for one GPU
    relatives four descriptions of BLIP-2's relatives, from 4 to 81 billion parameters, to plan
    registry  all of them by name

Begin with `get(name)`; `blip2-lab recipes` lists the names.

Paper: section 3.4, Tables 1, 2 and 7 to 9. Notebook: 08.
"""

from blip2_lab.training.recipes.registry import RECIPES, get, recipes_table, with_settings
from blip2_lab.training.recipes.schema import (
    BridgeParts,
    FineTuneParts,
    ImageTextData,
    OptimConfig,
    Recipe,
    SceneData,
    Stage1Parts,
    Stage2Parts,
    override,
    settings,
)

__all__ = [
    "RECIPES",
    "BridgeParts",
    "FineTuneParts",
    "OptimConfig",
    "Recipe",
    "SceneData",
    "Stage1Parts",
    "Stage2Parts",
    "ImageTextData",
    "get",
    "override",
    "settings",
    "recipes_table",
    "with_settings",
]
