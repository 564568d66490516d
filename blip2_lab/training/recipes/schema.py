"""The dataclasses of a recipe, and `override`, which changes one value: `optim.lr=5e-5`.

`Recipe` is where to begin; it holds one of the `...Parts` (what is built), one of the `...Data` (what it is trained on)
and an `OptimConfig` (how it is trained).

Notes:

* `override` converts text to the annotated type of the field, without evaluating code. An unknown name is an error that
  suggests the nearest one.
* This module does not import torch: `blip2-lab recipes` answers at once.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from blip2_lab.common.console import did_you_mean

SEE_PLAN = "see blip2-lab plan"  #: the cost of a recipe without a measurement


@dataclass(frozen=True)
class MicroPart:
    """A frozen model of the miniature: `size` is a key of the tables in models/micro.py."""

    size: str = "S"


@dataclass(frozen=True)
class Stage1Parts:
    """The parts of stage 1. The Q-Former has the width, layers and vocabulary of the BERT it starts from.

    `image_encoder` and `bert` are a recipe's name (its run folder), a folder, or a hub name.
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
    """The parts of stage 2; the image encoder is that of stage 1.

    `pretrained=False` skips stage 1 and starts from BERT alone (Figure 5's comparison).
    `max_text_tokens`: longer captions are cut. `match_embeddings`: scale the initial visual prompts to the norm of word
    embeddings.
    """

    stage1: str = "micro-stage1"
    language_model: str = "micro-t5"
    pretrained: bool = True
    max_text_tokens: int = 32
    match_embeddings: bool = False


@dataclass(frozen=True)
class BridgeParts:
    """The parts of a model whose bridge (models/bridges/) is trained without a stage 1. Names as in `Stage1Parts`.

    bridge                linear, wide_qformer, gated_cross_attention or dual_encoder
    image_size            resolution, by interpolated position embeddings; None: what the image encoder was trained with
    num_visual_tokens     of a pooled projector, a Q-Former, or a resampler; None: all features (Q-Former: 32)
    width, num_layers     of a wide Q-Former
    every, ffn_width      gated blocks before every k-th layer; the width of their feed-forward networks (None: none)
    num_blocks, num_codes fusion blocks of a dual encoder; its patch ids (None: continuous features)
    train_language_model  the language model is trained, too
    train_vision_layers   so many of the image encoder's last layers are trained, too
    """

    bridge: str = "linear"
    image_encoder: str = "micro-vit"
    language_model: str = "micro-t5"
    image_size: int | None = None
    num_visual_tokens: int | None = None
    width: int = 768
    num_layers: int = 12
    every: int = 1
    ffn_width: int | None = None
    num_blocks: int = 2
    num_codes: int | None = None
    max_text_tokens: int = 32
    match_embeddings: bool = False
    train_language_model: bool = False
    train_vision_layers: int = 0


@dataclass(frozen=True)
class FineTuneParts:
    """What fine-tuning starts from: a recipe's name (its run folder), "micro", a folder, or a hub name.

    The image encoder is trained with the Q-Former (sections 4.2 to 4.4), or stays frozen (`train_image_encoder=False`).

    `layer_decay`: layer k of the image encoder, counted from the top, learns `layer_decay ** k` times as fast
    (`optim.vit_lr_scales`). `question_in_qformer`: the Q-Former reads the question, too (section 4.3, Figure 7).
    """

    start: str
    layer_decay: float = 1.0
    prompt: str = ""
    question_in_qformer: bool = False
    max_text_tokens: int = 32
    train_image_encoder: bool = True


@dataclass(frozen=True)
class SyntheticTextData:
    """Unlimited numbered examples from the picture book, to pre-train the frozen models. For `lessons` and
    `piles_from`, see `pretraining.T5Task`."""

    seed: int = 0
    lessons: tuple[int, int, int, int] = (0, 0, 0, 0)
    piles_from: int | None = None


@dataclass(frozen=True)
class SceneData:
    """`scenes` scenes of the picture book; features are computed once, captions are drawn at each step.

    `held_out`: number of scenes of another book for the evaluations during training.
    `hard_batches_from`: from this batch on, every second one shows similar scenes (batches.SceneBatches).
    """

    seed: int = 0
    scenes: int = 20_000
    caption: str = "caption"
    held_out: int = 200
    hard_batches_from: int | None = None


@dataclass(frozen=True)
class ImageTextData:
    """Images with their texts. `source`: a description; `pairs`: the number of pairs in an epoch, if it is known.

    path          a folder, shards, an address or a sources.toml, see `mixture.open_sources`
    text          what to train on: "captions", or "questions" with their answers
    crop_scale    smallest and largest area of an image that a random crop keeps (LAVIS: blip2_image_train)
    flip          flip half of the images, except those whose text names a side
    color_jitter  change brightness, contrast and saturation by up to this share, except where the text names a color
    held_out      number of images for the evaluations during training; not trained on (at most a fifth)
    max_broken    the share of unusable examples at which the run stops
    cached_views  0: encode images at each step; else cache the features of this many views of each image
    verify_cache  compare the cached features with their checksums at each start
    threads       number of threads that open images
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
    color_jitter: float = 0.0


@dataclass(frozen=True)
class OptimConfig:
    """How to optimize: AdamW, linear warm-up, then a cosine for every step (paper, section 3.4).

    batch_size         examples of one update, over all processes
    accumulate         number of passes into which a process splits its share of a batch (`pass_size` examples each)
    precision          bf16 and fp16 are autocast: weights, gradients and optimizer stay float32; auto is bf16 if the
                       device has it in hardware (`training.optim.bf16_is_fast`), else fp32
    checkpoint_layers  gradient checkpointing: each transformer layer saves only its input and is recomputed in the
                       backward; saves most of the activation memory, for a third more work
    shard              FSDP2 instead of DDP: each process holds a share of the weights, for models too large for one
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
        from blip2_lab.common.distributed import number_of_processes  # imports torch

        return self.batch_size // (self.accumulate * number_of_processes())


@dataclass(frozen=True)
class Recipe:
    """One training run. `task`: vit, t5, opt, bert (tasks/pretraining.py), stage1, stage2, caption, vqa, retrieval
    (fine-tuning), or sequence. Fine-tuning with the question in the Q-Former can be planned, not yet trained.

    `sequence`: the recipes of which this one is made, in order. (For what a recipe needs, see `registry.needs`.)
    `curve`: the recipe whose shipped log its losses are compared with, if its own name is another.
    """

    name: str
    summary: str
    cost: str
    task: str
    optim: OptimConfig | None = None
    model: MicroPart | Stage1Parts | Stage2Parts | BridgeParts | FineTuneParts | None = None
    data: SyntheticTextData | SceneData | ImageTextData | None = None
    seed: int = 0
    save_every: int = 200
    eval_every: int = 500
    sequence: tuple[str, ...] = ()
    curve: str = ""


# --------------------------------------------------------------------------------------------------- changing one value

Config = TypeVar("Config")


def settings(config: Any) -> dict[str, Any]:
    """All values that `override` can change, by dotted name: the recipe's integers and its dataclasses' fields."""
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

    A warm-up may be a share of the recipe's steps: `"optim.warmup_steps=10%"`, after a change of `optim.steps`. The
    text is converted to the type of the field. Raises ValueError for an unknown key or a value of another type.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} is not of the form key=value, for example optim.lr=5e-5")
    known = settings(config)
    key = key.strip()
    if key not in known:
        raise ValueError(f"recipe {config.name} has no setting {key!r}{did_you_mean(key, known)}")
    text = text.strip()
    if key == "optim.warmup_steps" and re.fullmatch(r"\d+(\.\d+)?%", text):
        text = str(round(config.optim.steps * float(text[:-1]) / 100))
    return _replace(config, key.split("."), text, key)


def _replace(node: Any, path: list[str], text: str, key: str) -> Any:
    first, *rest = path
    value = getattr(node, first)
    new = _replace(value, rest, text, key) if rest else _convert(text, get_type_hints(type(node))[first], key)
    return replace(node, **{first: new})


def _convert(text: str, wanted: Any, key: str) -> Any:
    """Text -> a value of the annotated type: str, int, float, bool, a tuple of these, or None if it is allowed."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _convert(text, next(a for a in arguments if a is not type(None)), key)
    if origin is tuple:
        items = text.strip("()[]").split(",")
        if len(items) != len(arguments):
            raise ValueError(f"{key} wants {len(arguments)} values with commas between them, not {text!r}")
        return tuple(_convert(item.strip(), kind, key) for item, kind in zip(items, arguments, strict=True))
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
