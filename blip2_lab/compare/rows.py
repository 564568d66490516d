"""The rows of a comparison of bridges: which recipes make each, and how many steps each recipe gets.

`ROWS` has them all, `recipes_of` is where to begin: one row with a number of steps and a seed -> recipes to train.

Notes:

* All steps of a row are counted, those of stage 1 too: a row of two phases divides its steps as its recipes do. So
  "equal samples" means that every row has read as many pictures with captions.
* Warm-up, and the step from which hard batches come, are the same share of the steps as in the recipe.
* The evaluation during training is left out: it takes time that is not trained.

Paper: none. Notebook: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blip2_lab.common.console import count_of, did_you_mean
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import BridgeParts, Recipe, SceneData, Stage2Parts, override, settings


@dataclass(frozen=True)
class Row:
    """What is compared: `phases` are recipes, each of which starts from the one before.

    title       in tables
    zero_shot   False: it was trained on questions
    by_default  False: only where it is named
    """

    title: str
    phases: tuple[str, ...]
    zero_shot: bool = True
    by_default: bool = True


ROWS = {
    "linear": Row("linear, all features", ("micro-linear",)),
    "linear-pooled": Row("linear, pooled", ("micro-linear-pooled",)),
    "qformer": Row("Q-Former, no stage 1", ("micro-qformer",)),
    "qformer-stage1": Row("Q-Former, both stages", ("micro-stage1", "micro-stage2")),
    "wide-qformer": Row("wide Q-Former, 192 pixels", ("micro-wide-qformer",)),
    "gated": Row("gated cross-attention", ("micro-gated",)),
    "gated-resampler": Row("gated, with a resampler", ("micro-gated-resampler",)),
    "gated-two-phase": Row("gated, then dialogues", ("micro-gated-phase1", "micro-gated-instruct"), zero_shot=False),
    "dual-encoder": Row("dual encoder", ("micro-dual-encoder",)),
    "dual-encoder-codes": Row("dual encoder, 256 codes", ("micro-dual-encoder-codes",)),
    # no bridges of their own: the Q-Former with two schedules of the learning rate in stage 2 (recipes/schedules.py)
    "schedule-paper": Row("the paper's schedule", ("micro-stage1", "micro-schedule-paper"), by_default=False),
    "schedule-flant5": Row("FlanT5-XL's schedule", ("micro-stage1", "micro-schedule-flant5"), by_default=False),
}
BRIDGES = tuple(name for name, row in ROWS.items() if row.by_default)
#: What the others are compared with: BLIP-2.
REFERENCE = "qformer-stage1"
#: The frozen language models that rows can be compared with; the first is that of `micro-stage2`.
LANGUAGE_MODELS = ("micro-flan-t5", "micro-t5", "micro-opt")


def check_rows(names: Sequence[str]) -> list[str]:
    """The names without repetitions, in the order of `ROWS`. Raises ValueError for an unknown one."""
    for name in names:
        if name not in ROWS:
            raise ValueError(f"there is no row {name!r}{did_you_mean(name, ROWS)}; known are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


def default_steps() -> int:
    """The steps of the recipes of BLIP-2's two stages together."""
    return sum(get(name).optim.steps for name in ROWS[REFERENCE].phases)


def split_steps(steps: int, shares: Sequence[int]) -> list[int]:
    """Steps in proportion to `shares`, at least one each; their sum is `steps`. Raises ValueError for too few."""
    if steps < len(shares):
        phases = count_of(len(shares), "phase needs", "phases need")
        raise ValueError(f"{phases} at least a step each, and there are {steps}: give more --steps")
    split = [max(1, round(steps * share / sum(shares))) for share in shares]
    longest = split.index(max(split))
    split[longest] += steps - sum(split)
    return split


def run_name(row: str, steps: int, seed: int, phase: int = 0, phases: int = 1) -> str:
    """The name of a run's folder: "compare-linear-2700-seed0"; of an earlier phase "…-phase1"."""
    return f"compare-{row}-{steps}-seed{seed}" + ("" if phase == phases - 1 else f"-phase{phase + 1}")


def recipes_of(
    row: str, steps: int, seed: int, changes: Sequence[str] = (), language_model: str = LANGUAGE_MODELS[0]
) -> list[Recipe]:
    """The recipes of a row, in the order in which to train them.

    changes         settings of every recipe that has them, as `optim.batch_size=16`
    language_model  of every row that answers; a dual encoder keeps its own
    """
    phases = [get(name) for name in ROWS[row].phases]
    recipes: list[Recipe] = []
    for number, (recipe, own) in enumerate(
        zip(phases, split_steps(steps, [phase.optim.steps for phase in phases]), strict=True)
    ):
        share = own / recipe.optim.steps
        optim = replace(recipe.optim, steps=own, warmup_steps=min(own - 1, round(share * recipe.optim.warmup_steps)))
        data = recipe.data
        if isinstance(data, SceneData) and data.hard_batches_from is not None:
            data = replace(data, hard_batches_from=round(share * data.hard_batches_from))
        model = recipe.model
        if isinstance(model, Stage2Parts) or (isinstance(model, BridgeParts) and recipe.task == "stage2"):
            model = replace(model, language_model=language_model)
        if recipes:  # starts from the phase before
            before = {"stage1" if isinstance(model, Stage2Parts) else "start": recipes[-1].name}
            model = replace(model, **before)
        name = run_name(row, steps, seed, number, len(phases))
        recipe = replace(recipe, name=name, optim=optim, data=data, model=model, seed=seed, eval_every=0)
        for change in changes:
            if change.partition("=")[0].strip() in settings(recipe):
                recipe = override(recipe, change)
        recipes.append(recipe)
    return recipes
