"""Named recipes: everything a training run needs to know, as data.

What is unusual about it:

* A recipe is a frozen dataclass of frozen dataclasses; a table (`RECIPES`) holds them all. Nothing is registered.
* Every number of the paper's recipes names its section or table; the micro recipes say what they cost here.
* `override(recipe, "optim.lr=5e-5")` changes one value, converted to the field's own type. An unknown name is an error
  that suggests the nearest one.

    blip2-lab recipes                                    the table
    blip2-lab train micro-stage1 --set optim.lr=5e-4     one of them, one value changed

Paper: section 3.4, Tables 1 and 7 to 9. Notebook: 00.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

from blip2_lab.train import OptimConfig


@dataclass(frozen=True)
class MicroPart:
    """A part made by us: `size` is a key of the tables in vision.py and language.py."""

    size: str = "S"


@dataclass(frozen=True)
class Stage1Parts:
    """What stage 1 is built from. The Q-Former takes width, layers and vocabulary from the BERT it starts from.

    Each part is a recipe's name (its run folder), a folder, or a hub name.
    """

    image_encoder: str = "micro-vit"
    bert: str = "micro-bert"
    num_query_tokens: int = 32
    cross_attention_frequency: int = 2
    embed_width: int = 256
    dropout: float = 0.1
    max_text_tokens: int = 32


@dataclass(frozen=True)
class Stage2Parts:
    """What stage 2 is built from; the image encoder comes with stage 1.

    `pretrained=False` leaves stage 1's training out and starts from BERT alone (Figure 5's comparison).
    `max_text_tokens`: where a caption is cut.
    """

    stage1: str = "micro-stage1"
    language_model: str = "micro-t5"
    pretrained: bool = True
    max_text_tokens: int = 32


@dataclass(frozen=True)
class SeedData:
    """Endless examples, numbered: the pre-training of the parts. `lessons`: see `pretraining.T5Task`."""

    seed: int = 0
    lessons: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class SceneData:
    """`scenes` pictures of the picture book, their features computed once. A caption is drawn anew at every step.

    `held_out`: how many pictures of another book the evaluations along the way look at.
    """

    seed: int = 0
    scenes: int = 20_000
    caption: str = "caption"
    held_out: int = 200


@dataclass(frozen=True)
class WebData:
    """Image-text pairs from the web, by annotation file or shard."""

    source: str = ""
    image_size: int = 224
    flip: bool = True


@dataclass(frozen=True)
class Recipe:
    """`task` says who builds it: vit, t5, opt, bert (pretraining.py), stage1, stage2 (tasks.py), or sequence.

    `sequence`: the recipes of which this one is made, in order. `needs`: recipes whose results this one reads.
    """

    name: str
    summary: str
    cost: str
    task: str
    optim: OptimConfig | None = None
    model: MicroPart | Stage1Parts | Stage2Parts | None = None
    data: SeedData | SceneData | WebData | None = None
    seed: int = 0
    save_every: int = 200
    eval_every: int = 500
    sequence: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the recipes whose run folders this one reads, in the order in which to train them."""
        if isinstance(self.model, Stage1Parts):
            return tuple(name for name in (self.model.image_encoder, self.model.bert) if name in RECIPES)
        if isinstance(self.model, Stage2Parts):
            stage1 = get(self.model.stage1)
            names = (*stage1.needs, *([stage1.name] if self.model.pretrained else ()), self.model.language_model)
            return tuple(name for name in names if name in RECIPES)
        return ()


# -------------------------------------------------------------------------------------------------------- micro models
# Costs were read off the logs of the shipped model's runs, on a busy machine of 2 cores with bf16 matrix units; without
# such units matrix products are about 8 times slower.

MICRO = (
    Recipe(
        "micro-vit",
        "image encoder from pictures alone: what each patch shows",
        "24 min on one core",
        "vit",
        OptimConfig(lr=1e-3, warmup_steps=150, steps=2000, batch_size=64),
        MicroPart("S"),
        SeedData(),
    ),
    Recipe(
        "micro-t5",
        "encoder-decoder language model from text alone, instruction-trained: the FlanT5",
        "48 min on one core",
        "t5",
        OptimConfig(lr=1e-3, warmup_steps=100, steps=3000, batch_size=64, weight_decay=0.01),
        MicroPart("S"),
        SeedData(lessons=(800, 1050, 1600)),
    ),
    Recipe(
        "micro-opt",
        "decoder language model from plain text alone: the OPT",
        "not measured",
        "opt",
        OptimConfig(lr=1e-3, warmup_steps=200, steps=2500, batch_size=96, weight_decay=0.01),
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
        "micro-stage1",
        "Q-Former, representation learning: ITC + ITM + ITG (section 3.2)",
        "49 min on one core",
        "stage1",
        OptimConfig(lr=5e-4, warmup_steps=100, steps=1750, batch_size=64),
        Stage1Parts(num_query_tokens=16, embed_width=128, dropout=0.0, max_text_tokens=64),
        SceneData(),
        eval_every=250,
    ),
    Recipe(
        "micro-stage2",
        "Q-Former, generative learning with the frozen micro T5 (section 3.3)",
        "19 min on two cores",
        "stage2",
        OptimConfig(lr=5e-4, min_lr=5e-5, warmup_steps=100, steps=1500, batch_size=64),
        Stage2Parts(max_text_tokens=64),
        SceneData(held_out=40),
        eval_every=250,
    ),
    Recipe(
        "micro-stage2-opt",
        "Q-Former, generative learning with the frozen micro OPT (section 3.3)",
        "not measured",
        "stage2",
        OptimConfig(lr=5e-4, min_lr=5e-5, warmup_steps=100, steps=1500, batch_size=64),
        Stage2Parts(language_model="micro-opt", max_text_tokens=64),
        SceneData(held_out=40),
        eval_every=250,
    ),
    Recipe(
        "micro-all",
        "everything above, from nothing, and the finished model exported",
        "about 2.5 h of one core, and what is not measured",
        "sequence",
        sequence=(
            "micro-vit",
            "micro-t5",
            "micro-opt",
            "micro-bert",
            "micro-stage1",
            "micro-stage2",
            "micro-stage2-opt",
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- the paper

#: Section 3.4: "The same set of pre-training hyper-parameters are used for all models."
PAPER_ADAMW = dict(
    lr=1e-4,  # section 3.4: peak learning rate
    warmup_steps=2000,  # section 3.4: linear warm-up of 2k steps
    betas=(0.9, 0.98),  # section 3.4 (LAVIS's release: 0.9, 0.999)
    weight_decay=0.05,  # section 3.4
    grad_clip=None,  # the paper names none, and LAVIS has none
    precision="fp16",  # LAVIS's autocast; section 3.4 speaks of the frozen parts only
)
#: Section 3.4: COCO, Visual Genome, CC3M, CC12M, SBU and 115 M of LAION400M; two captions each, chosen by CapFilt.
PAPER_DATA = WebData(source="129M pairs, section 3.4", image_size=224, flip=True)
BERT_BASE = "google-bert/bert-base-uncased"  # section 3.1

#: Section 3.4: name, image encoder, batch size of stage 1.
IMAGE_ENCODERS = {
    "vit-l": ("openai/clip-vit-large-patch14", 2320),  # CLIP ViT-L/14
    "vit-g": ("eva-clip-vit-g-14", 1680),  # EVA-CLIP ViT-g/14
}
#: Section 3.4: language model, batch size of stage 2 (OPT 1920, FlanT5 1520), precision (FlanT5 in bfloat16).
LANGUAGE_MODELS = {
    "opt-2.7b": ("facebook/opt-2.7b", 1920, "fp16"),
    "opt-6.7b": ("facebook/opt-6.7b", 1920, "fp16"),
    "flant5-xl": ("google/flan-t5-xl", 1520, "bf16"),
    "flant5-xxl": ("google/flan-t5-xxl", 1520, "bf16"),
}
#: Table 2: the pairs that were trained.
PAPER_PAIRS = (
    ("vit-l", "opt-2.7b"),
    ("vit-g", "opt-2.7b"),
    ("vit-g", "opt-6.7b"),
    ("vit-l", "flant5-xl"),
    ("vit-g", "flant5-xl"),
    ("vit-g", "flant5-xxl"),
)
#: Section 3.4: "a single 16-A100(40G) machine, our largest model … less than 6 days for the first stage and less than 3
#: days for the second".
STAGE1_COST, STAGE2_COST = "under 6 days on 16 A100 (40 GB)", "under 3 days on 16 A100 (40 GB)"


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

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*MICRO, *PAPER)}


# ------------------------------------------------------------------------------------------------------------- look-up


def get(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError that suggests the nearest name."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}{_nearest(name, RECIPES)}; `blip2-lab recipes` lists them all")
    return RECIPES[name]


def override(recipe: Recipe, setting: str) -> Recipe:
    """A copy of the recipe with one value changed: `"optim.lr=5e-5"`, `"data.scenes=1000"`, `"seed=1"`.

    The text is converted to the type of the field. Raises ValueError for an unknown key or a value of another type.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} is not of the form key=value, for example optim.lr=5e-5")
    known = settings(recipe)
    key = key.strip()
    if key not in known:
        raise ValueError(f"recipe {recipe.name} has no setting {key!r}{_nearest(key, known)}")
    return _replace(recipe, key.split("."), text.strip(), key)


def with_settings(recipe: Recipe, changes: Sequence[str]) -> list[Recipe]:
    """The recipe, or the parts of a sequence in their order, with the changes made: `"optim.lr=5e-5"`.

    For a sequence a change names its part first: `"micro-vit/optim.steps=100"`.
    """
    if not recipe.sequence:
        for change in changes:
            recipe = override(recipe, change)
        return [recipe]
    parts = {name: get(name) for name in recipe.sequence}
    for change in changes:
        name, slash, rest = change.partition("/")
        if not slash or name not in parts:
            example = f"{recipe.sequence[0]}/optim.steps=100"
            raise ValueError(f"{recipe.name} is made of {', '.join(parts)}: say which one to change, as in {example}")
        parts[name] = override(parts[name], rest)
    return list(parts.values())


def settings(recipe: Recipe) -> dict[str, Any]:
    """Everything that `override` can change, by dotted name."""
    found: dict[str, Any] = {}
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        if is_dataclass(value):
            found |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in fields(value)}
        elif f.name in ("seed", "save_every", "eval_every"):
            found[f.name] = value
    return found


def table() -> str:
    """All recipes as a table for the terminal."""
    rows = [("recipe", "cost", "what"), *((r.name, r.cost, r.summary) for r in RECIPES.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {cost:<{widths[1]}}  {what}" for name, cost, what in rows)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def _replace(node: Any, path: list[str], text: str, key: str) -> Any:
    first, *rest = path
    value = getattr(node, first)
    new = _replace(value, rest, text, key) if rest else _convert(text, get_type_hints(type(node))[first], key)
    return replace(node, **{first: new})


def _convert(text: str, wanted: Any, key: str) -> Any:
    """Text -> a value of the annotated type: str, int, float, bool, a tuple of these, or None where it is allowed."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _convert(text, next(a for a in arguments if a is not type(None)), key)
    if origin is tuple:
        parts = text.strip("()[]").split(",")
        if len(parts) != len(arguments):
            raise ValueError(f"{key} wants {len(arguments)} values with commas between them, not {text!r}")
        return tuple(_convert(part.strip(), kind, key) for part, kind in zip(parts, arguments, strict=True))
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{key} wants true or false, not {text!r}")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError:
        pass
    number = {int: "a whole number", float: "a number"}.get(wanted, f"a {wanted.__name__}")
    raise ValueError(f"{key} wants {number}, not {text!r}")
