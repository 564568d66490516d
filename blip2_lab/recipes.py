"""Named recipes: everything a training run needs to know, as data.

What is unusual about it:

* A recipe is a frozen dataclass of frozen dataclasses; a table (`RECIPES`) holds them all. Nothing is registered.
* Every number of the paper's recipes names its section or table; the micro recipes say what they cost here, and what
  nobody has measured says so. `planner.py` computes what a recipe needs before anything is downloaded.
* `override(recipe, "optim.lr=5e-5")` changes one value, converted to the field's own type. An unknown name is an error
  that suggests the nearest one.

    blip2-lab recipes                                    the table
    blip2-lab train micro-stage1 --set optim.lr=5e-4     one of them, one value changed

Paper: section 3.4, Tables 1 and 7 to 9. Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blip2_lab.paper import (
    A100_DATA,
    BERT_BASE,
    COCO,
    FINE_TUNE_ADAMW,
    FINE_TUNE_EPOCHS,
    IMAGE_ENCODERS,
    LANGUAGE_MODELS,
    LAVIS_ADAMW,
    LAVIS_DATA,
    LAVIS_EPOCHS,
    LAVIS_GPUS,
    PAPER_ADAMW,
    PAPER_DATA,
    PAPER_PAIRS,
    STAGE1_COST,
    STAGE2_COST,
    VQA,
    steps_of,
)
from blip2_lab.settings import (
    FineTuneParts,
    MicroPart,
    SceneData,
    SeedData,
    Stage1Parts,
    Stage2Parts,
    WebData,
    nearest,
    override,
    settings,
)
from blip2_lab.train import OptimConfig

__all__ = ["RECIPES", "Recipe", "get", "override", "settings", "table", "with_settings"]


@dataclass(frozen=True)
class Recipe:
    """`task` says who builds it: vit, t5, opt, bert (pretraining.py), stage1, stage2 (tasks.py), or sequence.
    caption, vqa and retrieval fine-tune (tasks.py); the question in the Q-Former can be planned, not yet trained.

    `sequence`: the recipes of which this one is made, in order. `needs`: recipes whose results this one reads.
    `curve`: the recipe whose shipped log its losses are compared with, where it goes by another name itself.
    """

    name: str
    summary: str
    cost: str
    task: str
    optim: OptimConfig | None = None
    model: MicroPart | Stage1Parts | Stage2Parts | FineTuneParts | None = None
    data: SeedData | SceneData | WebData | None = None
    seed: int = 0
    save_every: int = 200
    eval_every: int = 500
    sequence: tuple[str, ...] = ()
    curve: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the recipes whose run folders this one reads, in the order in which to train them."""
        if isinstance(self.model, Stage1Parts):
            return tuple(name for name in (self.model.image_encoder, self.model.bert) if name in RECIPES)
        if isinstance(self.model, Stage2Parts):
            stage1 = get(self.model.stage1)
            names = (*stage1.needs, *([stage1.name] if self.model.pretrained else ()), self.model.language_model)
            return tuple(name for name in names if name in RECIPES)
        if isinstance(self.model, FineTuneParts):
            return tuple(name for name in (self.model.start,) if name in RECIPES)
        return ()


# -------------------------------------------------------------------------------------------------------- micro models
# Costs were read off the logs in assets/micro-all: one core each with bf16 matrix units, another part on the other.
# Without such units matrix products are about 8 times slower.

MICRO = (
    Recipe(
        "micro-vit",
        "image encoder from pictures alone: what each patch shows",
        "15 min on one core",
        "vit",
        OptimConfig(lr=1e-3, warmup_steps=150, steps=1600, batch_size=64),
        MicroPart("S"),
        SeedData(),
    ),
    Recipe(
        "micro-bert",
        "masked words in captions: what the Q-Former starts from",
        "5 min on one core",
        "bert",
        OptimConfig(lr=1e-3, warmup_steps=100, steps=800, batch_size=64, weight_decay=0.01),
        MicroPart("S"),
        SeedData(),
    ),
    Recipe(
        "micro-t5",
        "encoder-decoder language model from text alone, instruction-trained: the FlanT5",
        "55 min on one core",
        "t5",
        OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=100, steps=4000, batch_size=64, weight_decay=0.01),
        MicroPart("S"),
        SeedData(sentences_from=800),
        eval_every=500,
    ),
    Recipe(
        "micro-stage1",
        "Q-Former, representation learning: ITC + ITM + ITG (section 3.2)",
        "47 min on one core",
        "stage1",
        OptimConfig(lr=5e-4, warmup_steps=150, steps=1700, batch_size=64),
        Stage1Parts(num_query_tokens=16, embed_width=128, dropout=0.0, max_text_tokens=64),
        SceneData(alike_from=400),
        eval_every=250,
    ),
    Recipe(
        "micro-stage2",
        "Q-Former, generative learning with the frozen micro T5 (section 3.3)",
        "15 min on one core",
        "stage2",
        OptimConfig(lr=1e-3, min_lr=5e-5, warmup_steps=100, steps=1000, batch_size=64),
        Stage2Parts(max_text_tokens=64, match_embeddings=True),
        SceneData(caption="ordered", held_out=40),
        eval_every=250,
    ),
    Recipe(
        "micro-retrieval",
        "stage 1's Q-Former, fine-tuned for retrieval by the same losses (section 4.4), the image encoder frozen",
        "17 min on one core",
        "retrieval",
        OptimConfig(lr=3e-4, warmup_steps=50, steps=600, batch_size=64),
        FineTuneParts("micro-stage1", max_text_tokens=64, train_image_encoder=False),
        SceneData(alike_from=0),
        eval_every=250,
    ),
    Recipe(
        "micro-opt",
        "decoder language model from plain text alone: the OPT",
        "10 min on one core",
        "opt",
        OptimConfig(lr=1e-3, warmup_steps=100, steps=900, batch_size=96, weight_decay=0.01),
        MicroPart("S"),
        SeedData(),
    ),
    Recipe(
        "micro-stage2-opt",
        "Q-Former, generative learning with the frozen micro OPT (section 3.3)",
        "5 min on one core",
        "stage2",
        OptimConfig(lr=5e-4, min_lr=5e-5, warmup_steps=100, steps=500, batch_size=64),
        Stage2Parts(language_model="micro-opt", max_text_tokens=64, match_embeddings=True),
        SceneData(held_out=40),
        eval_every=250,
    ),
)


def _sequence(name: str, summary: str, cost: str, parts: tuple[Recipe, ...]) -> Recipe:
    return Recipe(name, summary, cost, "sequence", sequence=tuple(recipe.name for recipe in parts))


MICRO_MODEL = "everything above, from nothing, and the finished model exported"
MICRO += (_sequence("micro-all", MICRO_MODEL, "89 min on two cores", MICRO),)

#: Longer runs of the same parts: the weights in the package are what `blip2-lab train shipped` makes.
SHIPPED_STEPS = {
    "micro-vit": 2500,
    "micro-bert": 1000,
    "micro-t5": 4000,
}


def _shipped(recipe: Recipe) -> Recipe:
    name = recipe.name.replace("micro", "shipped")
    return replace(recipe, name=name, optim=replace(recipe.optim, steps=SHIPPED_STEPS[recipe.name]))


SHIPPED = tuple(_shipped(recipe) for recipe in MICRO if recipe.name in SHIPPED_STEPS)

#: What `blip2-lab train --on FOLDER` trains.
OWN = Recipe(
    "micro-captions",
    "the shipped miniature, fine-tuned on the captions of your own pictures: train --on FOLDER",
    "not measured",
    "caption",
    OptimConfig(lr=1e-4, warmup_steps=20, steps=300, batch_size=32, weight_decay=0.05),
    # not "a photo of": the miniature's vocabulary has no photos
    FineTuneParts("micro", prompt="a picture of", max_text_tokens=64, train_image_encoder=False),
    WebData("your own pictures", image_size=96, held_out=40, cached_views=8),
    save_every=100,
    eval_every=100,
)

PLAN_IT = "see blip2-lab plan"  #: the cost of what nobody has measured

#: The same one size up ("M"), for a night on a laptop: as many steps, with wider and deeper parts.
LARGER = {
    "micro-vit": {"size": "M"},
    "micro-t5": {"size": "M"},
    "micro-bert": {"size": "M"},
    "micro-stage1": {"image_encoder": "laptop-vit", "bert": "laptop-bert"},
    "micro-stage2": {"stage1": "laptop-stage1", "language_model": "laptop-t5"},
    "micro-retrieval": {"start": "laptop-stage1"},
}


def _larger(recipe: Recipe) -> Recipe:
    name = recipe.name.replace("micro", "laptop")
    model = replace(recipe.model, **LARGER[recipe.name])
    return replace(recipe, name=name, summary=f"{recipe.name} with larger parts", cost=PLAN_IT, model=model)


LAPTOP = tuple(_larger(recipe) for recipe in MICRO if recipe.name in LARGER)
LARGER_MODEL = "a larger miniature, from nothing, and the finished model exported"
LAPTOP += (_sequence("laptop", LARGER_MODEL, PLAN_IT, LAPTOP),)

# ----------------------------------------------------------------------------------------------------------- the paper


def _paper_stage1(encoder: str) -> Recipe:
    image_encoder, batch_size = IMAGE_ENCODERS[encoder]
    return Recipe(
        f"paper-stage1-{encoder}",
        f"the paper's stage 1 with {encoder}: 250k steps of {batch_size}",
        STAGE1_COST,
        "stage1",
        OptimConfig(
            steps=250_000,  # section 3.4
            batch_size=batch_size,
            min_lr=0.0,  # section 3.4 names a minimum for stage 2 only (LAVIS's release: 1e-5)
            **PAPER_ADAMW,
        ),
        Stage1Parts(image_encoder, BERT_BASE, num_query_tokens=32),  # section 3.1: 32 queries of 768
        PAPER_DATA,
        save_every=1000,
        eval_every=5000,
    )


def _paper_stage2(encoder: str, language: str) -> Recipe:
    language_model, batch_size, precision = LANGUAGE_MODELS[language]
    return Recipe(
        f"paper-stage2-{encoder}-{language}",
        f"the paper's stage 2 with {encoder} and {language}: 80k steps of {batch_size}",
        STAGE2_COST,
        "stage2",
        OptimConfig(
            steps=80_000,  # section 3.4
            batch_size=batch_size,
            min_lr=5e-5,  # section 3.4 (LAVIS's release: 1e-5)
            **{**PAPER_ADAMW, "precision": precision},
        ),
        Stage2Parts(f"paper-stage1-{encoder}", language_model),
        PAPER_DATA,
        save_every=1000,
        eval_every=5000,
    )


PAPER = (
    *(_paper_stage1(encoder) for encoder in IMAGE_ENCODERS),
    *(_paper_stage2(encoder, language) for encoder, language in PAPER_PAIRS),
)

# --------------------------------------------------------------------------------------------------------- fine-tuning


def vit_lr_scales(num_layers: int, decay: float, prefix: str = "image_encoder.model.") -> dict[str, float]:
    """Layer-wise decay of the learning rate as `train.parameter_groups` wants it: parameter name -> scale.

    The last layer learns `decay` times as fast as the Q-Former, the one below `decay ** 2`, and so on; the embeddings
    are below the first. With decay 1 there is nothing to scale: {}.
    """
    # differs from LAVIS: there the same scales are computed and no optimizer reads them
    if decay == 1:
        return {}
    layers = {f"{prefix}encoder.layers.{k}.": decay ** (num_layers - k) for k in range(num_layers)}
    return layers | dict.fromkeys((f"{prefix}embeddings.", f"{prefix}pre_layrnorm."), decay ** (num_layers + 1))


def _fine_tune(name: str, table: str, task: str, data: WebData, batch_size: int, parts: FineTuneParts, **optim):
    optim = dict(batch_size=batch_size, steps=steps_of(FINE_TUNE_EPOCHS, data, batch_size), **FINE_TUNE_ADAMW) | optim
    return Recipe(
        f"finetune-{task}-{name}",
        f"{table}: {task} with {name}, {FINE_TUNE_EPOCHS} epochs of {data.source}",
        PLAN_IT,
        task,
        OptimConfig(**optim),
        parts,
        data,
        save_every=1000,
        eval_every=5000,
    )


def _fine_tune_language(task: str, language: str, layer_decay: float) -> Recipe:
    """Tables 7 (captioning) and 8 (VQA), both with ViT-g."""
    start, precision = f"paper-stage2-vit-g-{language}", LANGUAGE_MODELS[language][2]
    optim = dict(lr=1e-5, betas=(0.9, 0.999), precision=precision)  # Tables 7, 8; precision: section 3.4
    if task == "caption":
        parts = FineTuneParts(start, layer_decay, prompt="a photo of")  # Table 7
        return _fine_tune(language, "Table 7", task, COCO, 256, parts, **optim)  # Table 7: batch 256
    parts = FineTuneParts(start, layer_decay, prompt="Question: {} Answer:", question_in_qformer=True)  # Table 8
    return _fine_tune(language, "Table 8", task, VQA, 128, parts, **optim)  # Table 8: batch 128


def _fine_tune_retrieval(encoder: str, lr: float, betas: tuple[float, float], layer_decay: float) -> Recipe:
    parts = FineTuneParts(f"paper-stage1-{encoder}", layer_decay)
    optim = dict(lr=lr, betas=betas, precision="fp16")
    return _fine_tune(encoder, "Table 9", "retrieval", COCO, 224, parts, **optim)  # Table 9: batch 224


FINE_TUNING = (
    _fine_tune_language("caption", "flant5-xl", 1.0),  # Table 7: layer-wise decay for ViT, 1, 1, 0.95
    _fine_tune_language("caption", "opt-2.7b", 1.0),
    _fine_tune_language("caption", "opt-6.7b", 0.95),
    _fine_tune_language("vqa", "flant5-xl", 0.95),  # Table 8: 0.95, 0.95, 0.9
    _fine_tune_language("vqa", "opt-2.7b", 0.95),
    _fine_tune_language("vqa", "opt-6.7b", 0.9),
    _fine_tune_retrieval("vit-l", 5e-6, (0.9, 0.98), 1.0),  # Table 9
    _fine_tune_retrieval("vit-g", 1e-5, (0.9, 0.999), 0.95),  # Table 9
)

# --------------------------------------------------------------------------------------- what was released, and one GPU


def _lavis(name: str, summary: str, based_on: str, **changes) -> Recipe:
    """A released yaml as its differences from the paper's recipe. Its cosine moves once an epoch, ours at each step."""
    recipe = next(recipe for recipe in (*PAPER, *FINE_TUNING) if recipe.name == based_on)
    return replace(recipe, name=f"lavis-{name}", summary=f"LAVIS's {summary}", cost=PLAN_IT, **changes)


def _lavis_pretraining(batch_size: int, warmup_steps: int) -> OptimConfig:
    steps = steps_of(LAVIS_EPOCHS, LAVIS_DATA, batch_size)
    return OptimConfig(steps=steps, batch_size=batch_size, warmup_steps=warmup_steps, **LAVIS_ADAMW)


LAVIS = (
    _lavis(
        "stage1",
        "pretrain_stage1.yaml: ViT-g, 10 epochs of COCO and Visual Genome",
        "paper-stage1-vit-g",
        optim=_lavis_pretraining(100 * LAVIS_GPUS, warmup_steps=5000),
        model=Stage1Parts(IMAGE_ENCODERS["vit-g"][0], BERT_BASE, gather_with_grad=False),
        data=LAVIS_DATA,
    ),
    _lavis(
        "stage2-opt-2.7b",
        "pretrain_stage2.yaml: ViT-g and OPT-2.7B, 10 epochs of COCO and Visual Genome",
        "paper-stage2-vit-g-opt-2.7b",
        optim=_lavis_pretraining(64 * LAVIS_GPUS, warmup_steps=2000),
        data=LAVIS_DATA,
    ),
    _lavis("caption-opt-2.7b", "caption_coco_ft.yaml: as Table 7", "finetune-caption-opt-2.7b"),
    _lavis(
        "retrieval",
        "retrieval_coco_ft.yaml: as Table 9, but its layer-wise decay of 0.95 was read by nobody",
        "finetune-retrieval-vit-g",
        model=FineTuneParts("paper-stage1-vit-g", layer_decay=1.0),
    ),
)

#: Scaled to one A100 of 80 GB: the paper's settings in bf16, with a batch that fits and as many steps as take less than
#: a day by `blip2-lab plan`. Nobody has run them: what loss to expect at which step is not known, except that each loss
#: starts at its chance level (`blip2-lab doctor RUN` compares).
A100 = (
    Recipe(
        "a100-stage1",
        "stage 1 with ViT-g on one A100 (80 GB): 14.3 M pairs",
        PLAN_IT,
        "stage1",
        OptimConfig(steps=28_000, batch_size=512, **PAPER_ADAMW | {"precision": "bf16"}),
        Stage1Parts(IMAGE_ENCODERS["vit-g"][0], BERT_BASE),
        A100_DATA,
        save_every=500,
        eval_every=1000,
    ),
    Recipe(
        "a100-stage2",
        "stage 2 with ViT-g and FlanT5-XL on one A100 (80 GB): 7.7 M pairs",
        PLAN_IT,
        "stage2",
        OptimConfig(steps=30_000, batch_size=256, accumulate=2, min_lr=5e-5, **PAPER_ADAMW | {"precision": "bf16"}),
        Stage2Parts("a100-stage1", LANGUAGE_MODELS["flant5-xl"][0]),
        A100_DATA,
        save_every=500,
        eval_every=1000,
    ),
)

RECIPES: dict[str, Recipe] = {r.name: r for r in (*MICRO, *SHIPPED, OWN, *LAPTOP, *A100, *PAPER, *FINE_TUNING, *LAVIS)}


# ------------------------------------------------------------------------------------------------------------- look-up


def get(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError that suggests the nearest name."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}{nearest(name, RECIPES)}; `blip2-lab recipes` lists them all")
    return RECIPES[name]


def origin(recipe: Recipe) -> Recipe:
    """The pre-training that a fine-tuning recipe starts from. The shipped model holds both stages of the miniature."""
    shipped = "micro-stage1" if recipe.task == "retrieval" else "micro-stage2"
    while isinstance(recipe.model, FineTuneParts):
        recipe = get(shipped if recipe.model.start == "micro" else recipe.model.start)
    return recipe


def with_settings(recipe: Recipe, changes: Sequence[str]) -> list[Recipe]:
    """The recipe, or the parts of a sequence in their order, with the changes made: `"optim.lr=5e-5"`.

    In a sequence a change is one of every part, or of the part it names first: `"micro-vit/optim.steps=100"`.
    """
    parts = {name: get(name) for name in recipe.sequence} or {recipe.name: recipe}
    for change in changes:
        name, slash, _ = change.partition("=")[0].rpartition("/")
        if slash and name not in parts:
            raise ValueError(f"{recipe.name} has no part {name!r}: it is made of {', '.join(parts)}")
        for part in [name] if slash else list(parts):
            parts[part] = override(parts[part], change.removeprefix(f"{name}/"))
    return list(parts.values())


def table() -> str:
    """All recipes as a table for the terminal."""
    rows = [("recipe", "cost", "what"), *((r.name, r.cost, r.summary) for r in RECIPES.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {cost:<{widths[1]}}  {what}" for name, cost, what in rows)
