"""The dataclasses of a recipe, and `override`, which changes one value: `optim.lr=5e-5`.

`Recipe` is where to begin; it holds one of the `...Parts` (what is built), one of the `...Data` (what it is trained on)
and an `OptimConfig` (how it is trained).

Notes:

* A value out of its range raises ValueError when the dataclass is made (`require`), before anything is computed.
* `override` converts text to the annotated type of the field, without evaluating code. An unknown name is an error that
  suggests the nearest one.
* This module does not import torch: `blip2-lab recipes` answers at once.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from blip2_lab.common.console import did_you_mean

SEE_PLAN = "see blip2-lab plan"  #: the cost of a recipe without a measurement
LARGEST = 2**53  #: of any number; above it a float cannot tell two whole numbers apart


def require(
    config: Any, *names: str, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Raises ValueError for a field (or a member of a tuple) out of its range; None is allowed where it is a value."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is None:
                continue
            finite = -LARGEST <= number <= LARGEST  # false for NaN; a whole number may have any number of digits
            right = finite and (least is None or number >= least)
            if not (right and (above is None or number > above) and (most is None or number <= most)):
                limits = [f"at least {least:g}"] if least is not None else []
                limits += [f"above {above:g}"] if above is not None else []
                most = LARGEST if most is None and not finite else most
                limits += [f"at most {most:g}"] if most is not None else []
                raise ValueError(f"{name} is {number!r:.40}; it must be {' and '.join(limits)}")


@dataclass(frozen=True)
class MicroPart:
    """A frozen model of the miniature.

    size   a key of the tables in models/micro.py: XS, S or M
    start  a trained T5 to go on from: the name of a recipe or run, or a folder; empty: from nothing
    """

    size: str = "S"
    start: str = ""


@dataclass(frozen=True)
class OwnPart(MicroPart):
    """A frozen model that is made from your own pictures or texts.

    vocabulary  a tokenizer of so many different words at most has whole words; with more, WordPiece splits them
    tokenizer   words; or bpe: byte-pair encoding of so many tokens as `vocabulary` (such as 50000)
    """

    vocabulary: int = 4000
    tokenizer: str = "words"

    def __post_init__(self) -> None:
        if self.tokenizer not in ("words", "bpe"):
            raise ValueError(f"model.tokenizer={self.tokenizer} is unknown: choose words or bpe")
        # byte-pair encoding has 256 bytes and the special tokens already
        require(self, "vocabulary", least=400 if self.tokenizer == "bpe" else 100)


@dataclass(frozen=True)
class MaePart(MicroPart):
    """An image encoder that is pre-trained as a masked autoencoder (arXiv 2111.06377).

    mask_ratio        the share of patches that the encoder does not read
    decoder_width     of the decoder that predicts the pixels; a multiple of 64
    decoder_layers    of the decoder
    normalize_pixels  predict each patch with its own mean 0 and deviation 1, which leaves out its mean color
    """

    mask_ratio: float = 0.75
    decoder_width: int = 128
    decoder_layers: int = 2
    normalize_pixels: bool = False

    def __post_init__(self) -> None:
        require(self, "mask_ratio", above=0, most=0.98)
        require(self, "decoder_width", "decoder_layers", least=1)


@dataclass(frozen=True)
class Stage1Parts:
    """The parts of stage 1. The Q-Former has the width, layers and vocabulary of the BERT it starts from.

    image_encoder              of which stage 1 reads the features: the name of a recipe or run, a folder, or a hub name
    bert                       from which the Q-Former starts, and whose tokenizer it has: the same kinds of names
    num_query_tokens           queries of the Q-Former
    cross_attention_frequency  every so many layers of the Q-Former have cross-attention
    embed_width                width of the embeddings that ITC compares
    dropout                    of the Q-Former
    max_text_tokens            longer captions are cut
    gather_with_grad           many processes train as one large batch; false: as LAVIS does (`stage1.Stage1Config`)
    """

    image_encoder: str = "micro-vit"
    bert: str = "micro-bert"
    num_query_tokens: int = 32
    cross_attention_frequency: int = 2
    embed_width: int = 256
    dropout: float = 0.1
    max_text_tokens: int = 32
    gather_with_grad: bool = True

    def __post_init__(self) -> None:
        require(self, "num_query_tokens", "cross_attention_frequency", "embed_width", least=1)
        require(self, "max_text_tokens", least=3)  # [CLS], a word, [SEP]
        require(self, "dropout", least=0, most=0.9)


@dataclass(frozen=True)
class Stage2Parts:
    """The parts of stage 2; the image encoder is that of stage 1.

    stage1            whose Q-Former it starts from: the name of a recipe or run, a folder, a LAVIS file, or a hub name
    language_model    that stays frozen: the same kinds of names
    pretrained        false: skip stage 1 and start from BERT alone (Figure 5's comparison)
    max_text_tokens   longer captions are cut
    match_embeddings  scale the visual prompts of a new projection to the norm of word embeddings
    start             a model of stage 2 whose Q-Former and projection are trained on; none: the Q-Former of `stage1`
                      and a new projection
    """

    stage1: str = "micro-stage1"
    language_model: str = "micro-flan-t5"
    pretrained: bool = True
    max_text_tokens: int = 32
    match_embeddings: bool = False
    start: str | None = None

    def __post_init__(self) -> None:
        require(self, "max_text_tokens", least=3)


@dataclass(frozen=True)
class BridgeParts:
    """The parts of a model whose bridge (models/bridges/) is trained without a stage 1. Names as in `Stage1Parts`.

    start                 a model of these parts whose training goes on, in a second phase; none: a new bridge
    bridge                linear, wide_qformer, gated_cross_attention or dual_encoder
    image_encoder         of which the bridge reads the features: the same kinds of names as in stage 1
    language_model        the frozen language model: the same kinds of names
    image_size            resolution, by interpolated position embeddings; none: that of the image encoder's training
    num_visual_tokens     of a pooled projector, a Q-Former or a resampler; none: all features (a Q-Former: 32)
    width                 of a wide Q-Former
    num_layers            of a wide Q-Former
    every                 gated blocks stand before every so many layers of the language model
    ffn_width             width of the gated blocks' feed-forward networks; none: they have none
    num_blocks            fusion blocks of a dual encoder
    num_codes             patch ids of a dual encoder; none: continuous features
    max_text_tokens       longer captions are cut
    match_embeddings      scale the projection so that visual tokens are as long as word embeddings
    train_language_model  the language model is trained, too
    train_vision_layers   so many of the image encoder's last layers are trained, too; their features are not cached
    """

    bridge: str = "linear"
    image_encoder: str = "micro-vit"
    language_model: str = "micro-flan-t5"
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
    start: str | None = None

    def __post_init__(self) -> None:
        require(self, "train_vision_layers", least=0)
        require(self, "image_size", "num_visual_tokens", "width", "num_layers", "every", "ffn_width", least=1)
        require(self, "num_blocks", "num_codes", least=1)
        require(self, "max_text_tokens", least=3)


@dataclass(frozen=True)
class FineTuneParts:
    """What fine-tuning starts from, and how its text is asked for (sections 4.2 to 4.4).

    start                what it starts from: the name of a recipe or run, micro (shipped), a folder, or a hub name
    layer_decay          layer k of the image encoder, from the top, learns layer_decay ** k times as fast
    prompt               text before each caption, which the model reads and does not learn to write
    question_in_qformer  the Q-Former reads the question, too (section 4.3, Figure 7)
    text_from            the stage 1 that gives the Q-Former its text side: a name as in `start`; none: the one that was
                         saved with `start`
    max_text_tokens      longer texts are cut
    train_image_encoder  train the image encoder with the Q-Former; false: it stays frozen
    """

    start: str
    layer_decay: float = 1.0
    prompt: str = ""
    question_in_qformer: bool = False
    text_from: str = ""
    max_text_tokens: int = 32
    train_image_encoder: bool = True

    def __post_init__(self) -> None:
        require(self, "max_text_tokens", least=3)
        require(self, "layer_decay", above=0, most=1)


@dataclass(frozen=True)
class SyntheticTextData:
    """Unlimited numbered examples from the picture book, to pre-train the frozen models.

    seed            which examples
    lessons_until   until this batch the T5 learns from lessons in few forms (`pretraining.T5Task`)
    review_from     from this batch on, a part of its examples are lessons again; none: never
    sentences_from  from this batch on, the T5 reads sentences, too (`pretraining.T5Task`)
    questions_from  from this batch on, most of its examples are questions in a visitor's words; none: never
    hard_from       from this batch on, half of these have the intentions that are learned last; none: never
    choices_from    from this batch on, these are joined by choices and comparisons (`asking.CHOICES`); none: never
    repeats_from    from this batch on, word sums repeat things, as visual prompts do; none: never
    often_share     the share of the visitors' questions that have every kind as often, and weak kinds more often
    """

    seed: int = 0
    lessons_until: int = 0
    review_from: int | None = None
    sentences_from: int = 0
    questions_from: int | None = None
    hard_from: int | None = None
    choices_from: int | None = None
    repeats_from: int | None = None
    often_share: float = 0.5

    def __post_init__(self) -> None:
        require(self, *(field.name for field in fields(self)), least=0)
        require(self, "often_share", most=1)


@dataclass(frozen=True)
class SceneData:
    """Scenes of the picture book; features are computed once, captions are drawn at each step.

    seed               which book
    scenes             number of scenes in an epoch
    caption            kind of captions (`scenes.CAPTION_KINDS`, `scenes.ALTERNATING`)
    held_out           number of scenes of another book for the evaluations during training
    hard_batches_from  from this batch on, every second one shows similar scenes (`SceneBatches`); none: never
    alike_from         from this batch on, every second one shows scenes with things alike (`SceneBatches`); none: never
    """

    seed: int = 0
    scenes: int = 20_000
    caption: str = "caption"
    held_out: int = 200
    hard_batches_from: int | None = None
    alike_from: int | None = None

    def __post_init__(self) -> None:
        require(self, "seed", "hard_batches_from", "alike_from", least=0)
        require(self, "scenes", least=1)
        require(self, "held_out", least=2)  # an evaluation compares scenes


@dataclass(frozen=True)
class DialogueData:
    """Dialogues about scenes of the picture book, drawn at each step; the last answer is learned, given the rest.

    seed      which book
    scenes    number of scenes in an epoch
    turns     a dialogue has at most so many questions
    held_out  number of scenes of another book for the evaluations during training
    """

    seed: int = 0
    scenes: int = 20_000
    turns: int = 3
    held_out: int = 40

    def __post_init__(self) -> None:
        require(self, "seed", least=0)
        require(self, "scenes", "turns", least=1)
        require(self, "held_out", least=2)


@dataclass(frozen=True)
class ImageTextData:
    """Images with their texts.

    source         a description, for messages
    image_size     side of the images in pixels
    pairs          number of pairs in an epoch, for `blip2-lab plan`
    path          a folder, shards, an address or a sources.toml, see `mixture.open_sources`
    text          what to train on: "captions", or "questions" with their answers
    crop_scale    smallest and largest area of an image that a random crop keeps (LAVIS: blip2_image_train)
    flip          flip half of the images, except those whose text names a side
    color_jitter  change brightness, contrast and saturation by up to this share, except where the text names a color
    held_out      number of images for the evaluations during training; not trained on (at most a fifth)
    max_broken    the share of unusable examples at which the run stops
    cached_views  0: encode images at each step; else cache the features of this many views of each image
    verify_cache  compare the cached features with their checksums at each start
    unknown_words  the largest share of running words that a tokenizer may not know; 1 trains on any text
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
    unknown_words: float = 0.1
    threads: int = 4
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.text not in ("captions", "questions"):
            raise ValueError(f"data.text={self.text} is unknown: choose captions or questions")
        require(self, "image_size", "threads", least=1)
        require(self, "held_out", "cached_views", least=0)
        require(self, "max_broken", "unknown_words", "color_jitter", least=0, most=1)
        require(self, "crop_scale", above=0, most=1)
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale is {self.crop_scale}; the smaller share of the area comes first")


@dataclass(frozen=True)
class OwnTextData(ImageTextData):
    """The captions of your own pictures, and other text, to train a text encoder or a language model on.

    text_file  a UTF-8 file with more text, which is read as often as the captions; its lines are paragraphs
    """

    text_file: str = ""


@dataclass(frozen=True)
class OptimConfig:
    """How to optimize: AdamW, linear warm-up, then a cosine for every step (paper, section 3.4).

    lr                 the largest learning rate, at the end of the warm-up
    warmup_steps       steps in which the learning rate rises
    steps              number of updates
    min_lr             the learning rate at the end
    betas              of AdamW
    weight_decay       of AdamW, for matrices
    grad_clip          the largest norm of a gradient; none: not clipped
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
        require(self, "steps", "batch_size", "accumulate", least=1)
        require(self, "warmup_steps", "min_lr", "weight_decay", least=0)
        require(self, "lr", "grad_clip", above=0)
        require(self, "betas", least=0, most=0.9999)
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into accumulate={self.accumulate} passes")

    @property
    def parts(self) -> int:
        """Passes of one update, over all processes."""
        from blip2_lab.common.distributed import number_of_processes  # imports torch

        return self.accumulate * number_of_processes()

    @property
    def pass_size(self) -> int:
        """Examples of one forward and backward pass of one process: what `task.batch` returns."""
        return self.batch_size // self.parts


LORA_TASKS = ("stage2", "caption", "vqa", "retrieval")
LORA_TARGETS = ("all", "language_model", "qformer")
LORA_LAYERS = ("query_value", "attention", "linear")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation (LoRA) in stage 2 and in fine-tuning: matrices that are added to frozen ones, and merged into
    them in the saved model. What the recipe trains beside the targets (a new projection, heads) is trained as without.

    rank     of the added matrices; 0: no LoRA
    alpha    the added product is multiplied by alpha / rank
    dropout  of the inputs of the added matrices, in training
    targets  language_model, qformer, or all: those of the two that the recipe has
    layers   query_value: these matrices of each attention; attention: its four; linear: the feed-forward ones, too
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "all"
    layers: str = "query_value"

    def __post_init__(self) -> None:
        require(self, "rank", least=0)
        require(self, "alpha", above=0)
        require(self, "dropout", least=0, most=0.9)
        for name, known in (("targets", LORA_TARGETS), ("layers", LORA_LAYERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"lora.{name}={getattr(self, name)} is unknown: choose {', '.join(known)}")


TRACKERS = ("auto", "tensorboard", "wandb", "none")


@dataclass(frozen=True)
class Recipe:
    """One training run. `task`: vit, mae, t5, opt, bert (tasks/pretraining.py), stage1, stage2, caption, vqa, retrieval
    (fine-tuning), or sequence.

    `sequence`: the recipes of which this one is made, in order. (For what a recipe needs, see `registry.needs`.)

    seed        of weights, batches and dropout
    save_every  steps between two checkpoints
    eval_every  steps between two evaluations on held-out images; 0: none
    log_with    where the numbers of log.jsonl go, too: tensorboard, wandb, none; auto: TensorBoard if it is installed

    `curve`: the recipe whose shipped log its losses are compared with, if its own name is another. `lora`: None in
    tasks that start from no trained language model or Q-Former.
    """

    name: str
    summary: str
    cost: str
    task: str
    optim: OptimConfig | None = None
    model: MicroPart | Stage1Parts | Stage2Parts | BridgeParts | FineTuneParts | None = None
    data: SyntheticTextData | SceneData | DialogueData | ImageTextData | None = None
    seed: int = 0
    save_every: int = 200
    eval_every: int = 500
    sequence: tuple[str, ...] = ()
    curve: str = ""
    lora: LoraConfig | None = None
    log_with: str = "auto"

    def __post_init__(self) -> None:
        if self.lora is None and self.task in LORA_TASKS:
            object.__setattr__(self, "lora", LoraConfig())  # the settings of the other tasks have none
        if self.log_with not in TRACKERS:
            raise ValueError(f"log_with={self.log_with} is unknown: choose {', '.join(TRACKERS)}")
        require(self, "save_every", least=1)
        require(self, "eval_every", least=0)
        require(self, "seed", least=0, most=2**32 - 1)  # numpy's limit


# --------------------------------------------------------------------------------------------------- changing one value

Config = TypeVar("Config")


def meanings(kind: type) -> dict[str, str]:
    """The meaning of each setting of a dataclass, from the tables in its docstring and in those of its bases: lines of
    `name  meaning`."""
    found: dict[str, str] = {}
    names, current = {f.name for f in fields(kind)}, ""
    tables = [base.__doc__ or "" for base in reversed(kind.__mro__) if is_dataclass(base)]
    for line in "\n".join(tables).splitlines():
        name, _, meaning = line.strip().partition("  ")
        if name in names and meaning:
            current = name
            found[name] = meaning.strip()
        elif current and line.startswith(" " * 10):  # the second line of a meaning
            found[current] += f" {line.strip()}"
        else:
            current = ""
    return found


def settings_help() -> str:
    """Every setting of every kind of recipe with its meaning and its default, for `blip2-lab train --help`."""
    groups = (
        ("optim", OptimConfig, ""),
        ("lora", LoraConfig, "stage 2 and fine-tuning"),
        ("model", Stage1Parts, "stage 1"),
        ("model", Stage2Parts, "stage 2"),
        ("model", BridgeParts, "stage 2 with another bridge than a Q-Former"),
        ("model", FineTuneParts, "fine-tuning"),
        ("model", MicroPart, "the frozen models of the miniature"),
        ("model", OwnPart, "the frozen models of a world of your own"),
        ("model", MaePart, "an image encoder from masked patches"),
        ("data", ImageTextData, "your own images, --on"),
        ("data", OwnTextData, "the language models of a world of your own"),
        ("data", SceneData, "drawn scenes"),
        ("data", DialogueData, "dialogues about drawn scenes"),
        ("data", SyntheticTextData, "the frozen models of the miniature"),
        ("", Recipe, ""),
    )
    lines = []
    for prefix, kind, what in groups:
        lines.append(f"{prefix or 'the run'}{f' ({what})' if what else ''}:")
        for f in fields(kind):
            if f.name not in inspect.get_annotations(kind) or (meaning := meanings(kind).get(f.name)) is None:
                continue  # without a meaning, or listed with its base
            default = "given by the recipe" if f.default is MISSING else f"default {as_typed(f.default)}"
            name = f"{prefix}.{f.name}" if prefix else f.name
            lines += textwrap.wrap(
                f"{name}  {meaning} ({default})", 110, initial_indent="  ", subsequent_indent="      "
            )
    return "\n".join(lines)


def as_typed(value: Any) -> str:
    """A value as it is typed after `--set key=`."""
    if isinstance(value, tuple):
        return ",".join(map(as_typed, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in ("", None) else str(value)


def settings(config: Any) -> dict[str, Any]:
    """All values that `override` can change, by dotted name: the recipe's own with a meaning, and its dataclasses'
    fields."""
    found, own = {}, meanings(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            found |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in fields(value)}
        elif f.name in own:
            found[f.name] = value
    return found


def override(config: Config, setting: str) -> Config:
    """A copy of the recipe with one value changed: `"optim.lr=5e-5"`, `"data.scenes=1000"`, `"seed=1"`.

    A warm-up may be a share of the recipe's steps: `"optim.warmup_steps=10%"` (of several changes,
    `registry.with_settings` makes this one last, so that it is a share of the steps that are trained). The
    text is converted to the type of the field. Raises ValueError for an unknown key or a value of another type.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} is not of the form key=value, for example optim.lr=5e-5")
    known = settings(config)
    key = key.strip()
    if key not in known:
        raise ValueError(f"recipe {config.name} has no setting {key!r}{did_you_mean(key.lower(), known)}")
    text = text.strip()
    if key == "optim.warmup_steps" and re.fullmatch(r"\d+(\.\d+)?%", text):
        if float(text[:-1]) > 100:
            raise ValueError(f"{key} is {text}; it must be at most 100% of the steps")
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
