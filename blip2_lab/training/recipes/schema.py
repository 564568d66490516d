"""What a recipe is made of: small frozen dataclasses, and `override`, which changes one value: `optim.lr=5e-5`.

`Recipe` is where to begin; it holds one of the `...Parts` (what is built), one of the `...Data` (what it learns from)
and an `OptimConfig` (how it is trained).

Notes:

* `override` converts text to the type that the field is annotated with; nothing is evaluated. An unknown name is an
  error that suggests the nearest one.
* Nothing here loads torch: `blip2-lab recipes` answers at once.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from blip2_lab.common.console import nearest

PLAN_IT = "see blip2-lab plan"  #: the cost of what nobody has measured


@dataclass(frozen=True)
class MicroPart:
    """A part made by us: `size` is a key of the tables in models/vision_encoder.py and models/language_model.py."""

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
    gather_with_grad: bool = True  # see Stage1Config; LAVIS: False


@dataclass(frozen=True)
class Stage2Parts:
    """What stage 2 is built from; the image encoder comes with stage 1.

    `pretrained=False` leaves stage 1's training out and starts from BERT alone (Figure 5's comparison).
    `max_text_tokens`: where a caption is cut. `match_embeddings`: begin with visual prompts as long as word embeddings.
    """

    stage1: str = "micro-stage1"
    language_model: str = "micro-t5"
    pretrained: bool = True
    max_text_tokens: int = 32
    match_embeddings: bool = False


@dataclass(frozen=True)
class FineTuneParts:
    """What fine-tuning starts from: a recipe's name (its run folder), "micro", a folder, or a hub name.

    The image encoder trains with the Q-Former (sections 4.2 to 4.4), or stays frozen (`train_image_encoder=False`).

    `layer_decay`: the image encoder's layer k from the top learns `layer_decay ** k` times as fast
    (`optim.vit_lr_scales`). `question_in_qformer`: the question conditions the queries too (section 4.3, Figure 7).
    """

    start: str
    layer_decay: float = 1.0
    prompt: str = ""
    question_in_qformer: bool = False
    max_text_tokens: int = 32
    train_image_encoder: bool = True


@dataclass(frozen=True)
class SeedData:
    """Endless examples, numbered: the pre-training of the parts. `sentences_from`: see `pretraining.T5Task`."""

    seed: int = 0
    sentences_from: int = 0


@dataclass(frozen=True)
class SceneData:
    """`scenes` pictures of the picture book, their features computed once. A caption is drawn anew at every step.

    `held_out`: how many pictures of another book the evaluations along the way look at.
    `alike_from`: from this batch on every second one shows scenes that are alike (batches.SceneFeed).
    """

    seed: int = 0
    scenes: int = 20_000
    caption: str = "caption"
    held_out: int = 200
    alike_from: int | None = None


@dataclass(frozen=True)
class WebData:
    """Pictures with their texts. `source`: what they are, in words; `pairs`: how many an epoch has, where it is known.

    path          where they are, see `mixture.open_sources`: a folder, shards, an address, a sources.toml
    text          what is learned of them: "captions", or "questions" with their answers
    crop_scale    the smallest and largest part of a picture that a random crop keeps (LAVIS: blip2_image_train)
    flip          half of the pictures, those left alone whose text names a side
    held_out      how many pictures the evaluations along the way look at; they are not trained on (at most a fifth)
    max_broken    the share of examples that may be unusable before the run stops
    cached_views  0: pictures are encoded at each step; else their features are computed once, in so many views of each
    verify_cache  compare the cached features with their checksums at each start
    threads       that open pictures at the same time
    """

    source: str = ""
    image_size: int = 224
    flip: bool = True
    pairs: int | None = None
    path: str = ""
    text: str = "captions"
    crop_scale: tuple[float, float] = (0.5, 1.0)
    held_out: int = 0
    max_broken: float = 0.1
    cached_views: int = 0
    verify_cache: bool = True
    threads: int = 4


@dataclass(frozen=True)
class OptimConfig:
    """How to optimize: AdamW, linear warm-up, then a cosine for every step (paper, section 3.4).

    batch_size         what one update sees, over all processes
    accumulate         into so many passes a process splits its share of a batch (`pass_size` examples each)
    precision          bf16 and fp16 are autocast's: weights, gradients and optimizer stay float32; auto is bf16 where
                       the device multiplies in it (`training.optim.bf16_is_fast`) and fp32 elsewhere
    checkpoint_layers  every transformer layer keeps its input only and is computed again for its gradient: most of the
                       memory of activations, for a third more work
    shard              FSDP2 instead of DDP: each process keeps its share of the weights, for models too large for one
    """

    lr: float
    warmup_steps: int
    steps: int
    batch_size: int
    min_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    grad_clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "auto"
    checkpoint_layers: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is unknown: choose auto, bf16, fp16 or fp32")
        if self.steps < 1 or self.batch_size < 1 or self.accumulate < 1:
            raise ValueError("steps, batch_size and accumulate must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into accumulate={self.accumulate} passes")

    @property
    def pass_size(self) -> int:
        """Examples of one forward and backward pass of one process: what `task.batch` returns."""
        from blip2_lab.common.distributed import number_of_processes  # brings torch, which a recipe does not need

        return self.batch_size // (self.accumulate * number_of_processes())


@dataclass(frozen=True)
class Recipe:
    """`task` says who builds it: vit, t5, opt, bert (tasks/pretraining.py), stage1, stage2, or sequence.
    caption, vqa and retrieval fine-tune; the question in the Q-Former can be planned, not yet trained.

    `sequence`: the recipes of which this one is made, in order. (What it needs: `registry.needs`.)
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


# --------------------------------------------------------------------------------------------------- changing one value

Config = TypeVar("Config")


def settings(config: Any) -> dict[str, Any]:
    """Everything that `override` can change, by dotted name: its whole numbers, and all of the dataclasses in it."""
    found: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            found |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in fields(value)}
        elif isinstance(value, int):
            found[f.name] = value
    return found


def override(config: Config, setting: str) -> Config:
    """A copy of the recipe with one value changed: `"optim.lr=5e-5"`, `"data.scenes=1000"`, `"seed=1"`.

    The text is converted to the type of the field. Raises ValueError for an unknown key or a value of another type.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} is not of the form key=value, for example optim.lr=5e-5")
    known = settings(config)
    key = key.strip()
    if key not in known:
        raise ValueError(f"recipe {config.name} has no setting {key!r}{nearest(key, known)}")
    return _replace(config, key.split("."), text.strip(), key)


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
