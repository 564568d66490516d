"""What the text of a described recipe claims, beside what is computed, and what cannot be as written.

`claims_of` is where to begin; the descriptions are in recipes/relatives.py.

Notes:

* Every number of a remark is computed from the recipe and from the model on the meta device, none is written down. A
  ratio of 1 says that the claim is what comes out.
* Hours are FLOPs / (peak * utilization), as everywhere in the plan; `at` is their product.

Paper: section 3.4. Notebooks: 08, 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blip2_lab.checkpoints.catalog import language_config
from blip2_lab.training.planning.flops import LONGEST_CAPTION, Work, encoder_work, language_work
from blip2_lab.training.planning.parameters import Blueprint, build_language_model, count_parameters
from blip2_lab.training.recipes.paper import STAGE1_BATCH
from blip2_lab.training.recipes.relatives import FLANT5_TOKENS, Description
from blip2_lab.training.recipes.schema import Recipe, Stage1Parts

#: Deviations of the three colors: ImageNet's, and those of OpenAI's CLIP, which ViT-bigG/14 was trained with.
IMAGENET_STD = (0.229, 0.224, 0.225)
OPENAI_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PATCH = 14  #: pixels, of all four image encoders
#: Section 3.4: steps of the paper's stage 1.
PAPER_STAGE1_STEPS = 250_000


@dataclass(frozen=True)
class Claim:
    what: str
    claimed: float
    computed: float

    @property
    def ratio(self) -> float:
        return self.computed / self.claimed


def claims_of(
    recipe: Recipe,
    text: Description,
    model: Blueprint,
    works: Mapping[str, Work],
    hours: float,
    gpus: int,
    at: float,
) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    """The claims with what is computed, and sentences on what cannot be as written. `at`: FLOP/s of one GPU."""
    counts = model.parameters()
    total, trained = sum(counts.values()), sum(counts[name] for name in model.trained)
    claims = []
    if text.parameters:
        what = "parameters without frozen ones, billions" if text.without_frozen else "parameters, billions"
        claims.append(Claim(what, text.parameters / 1e9, (trained if text.without_frozen else total) / 1e9))
    if text.image_encoder_parameters:
        vision = count_parameters(model.image_encoder) / 1e9
        claims.append(Claim("parameters of the image encoder, billions", text.image_encoder_parameters / 1e9, vision))
    if text.language_model_parameters:
        language = count_parameters(model.language) / 1e9
        claims.append(Claim("parameters of the decoder, billions", text.language_model_parameters / 1e9, language))
    if text.batch_of_a_gpu and text.gpus:
        claims.append(Claim("examples of a step", recipe.optim.batch_size, text.batch_of_a_gpu * text.gpus))
    if text.days:
        claims.append(Claim(f"days for these steps on {gpus} {text.gpu}", text.days, hours / 24))
    if text.image_size:
        claims.append(Claim("pixels of an image's side", text.image_size, recipe.data.image_size))
    if text.vocab_size:
        claims.append(Claim("vocabulary", text.vocab_size, model.language.config.vocab_size))
    remarks = _REMARKS[recipe.name](recipe, text, model, works, hours, gpus, at)
    return tuple(claims), tuple(remarks)


def _epochs(recipe: Recipe, samples: float) -> float:
    return samples / recipe.data.pairs


def _flant5(recipe, text, model, works, hours, gpus, at) -> list[str]:
    optim, pairs = recipe.optim, recipe.data.pairs
    epoch = pairs / optim.batch_size
    paper = PAPER_STAGE1_STEPS * STAGE1_BATCH["vit-g"]
    xl, xxl = (count_parameters(build_language_model(f"google/flan-t5-{size}")) / 1e9 for size in ("xl", "xxl"))
    trained = sum(model.parameters()[name] for name in model.trained)
    return [
        f"{text.gpus} GPUs with {text.batch_of_a_gpu:,} examples each are {text.gpus * text.batch_of_a_gpu:,} already: "
        "nothing is left to accumulate. Where passes are accumulated, each contrasts its own examples only, so "
        "accumulation adds no negatives to ITC.",
        f"An epoch of {pairs / 1e6:.0f} M pairs is {epoch:,.0f} steps, so a warm-up of {optim.warmup_steps:,} steps "
        f"takes {optim.warmup_steps / epoch:.1f} epochs. The paper's whole stage 1, {paper / 1e6:.0f} M examples, "
        f"would end at step {paper / optim.batch_size:,.0f}, within the warm-up.",
        f"Trained are {trained / 1e6:.0f} M parameters. FlanT5-XL has {xl:.2f} B, XXL {xxl:.2f} B: the number fits a "
        "model with XXL and with its frozen weights.",
        f"{FLANT5_TOKENS} tokens are the length of CLIP's texts; captions have about ten words, and BLIP-2 cuts them "
        f"at {Stage1Parts.max_text_tokens} tokens.",
        "The Q-Former is said to extract what is relevant to a text query. In pre-training, what it hands to the "
        "language model does not depend on the text: only fine-tuning for VQA lets it read the question.",
    ]


def _adapter(recipe, text, model, works, hours, gpus, at) -> list[str]:
    optim, pairs = recipe.optim, recipe.data.pairs
    below = text.image_size // PATCH * PATCH
    tokens = [(size // PATCH) ** 2 + 1 for size in (below, below + PATCH)]
    total = sum(model.parameters().values())
    opt = language_config("opt-6.7b").vocab_size
    llama = model.language.config.vocab_size
    days = hours / 24
    utilization = at * days / text.days
    language, bridge = (model.parameters()[part] / total for part in ("language model", "Q-Former"))
    return [
        f"{text.image_size} / {PATCH} = {text.image_size / PATCH:.2f} is no whole number of patches: {below} pixels "
        f"are {tokens[0]:,} tokens, {below + PATCH} are {tokens[1]:,}. Here: {recipe.data.image_size}.",
        f"A vocabulary of {text.vocab_size:,} is not LLaMA's ({llama:,}); OPT's BPE has {opt:,}. A frozen decoder "
        f"keeps the vocabulary that it was trained with; the total of {total / 1e9:.1f} B is with LLaMA's.",
        f"The parameters are said to be in the language model and in cross-attention: {language:.0%} are in the "
        f"language model, {bridge:.1%} in the whole Q-Former.",
        f"Medical reports are longer than captions: what is behind token {recipe.model.max_text_tokens} is cut here, "
        "and a crop can cut off what a report names.",
        "Color jitter makes captions that name a color false: images with such a caption should not be jittered.",
        f"A step of {optim.batch_size:,} examples in {optim.accumulate} passes on {gpus} GPUs is "
        f"{optim.batch_size // optim.accumulate // gpus} examples a GPU and pass.",
        f"One epoch of {pairs / 1e9:.1f} B pairs takes {days:.1f} days here; {text.days:.0f} days are "
        f"{text.days / days:.1f} epochs, or one epoch at {utilization / 1e12:.0f} TFLOP/s a GPU.",
    ]


def _gated(recipe, text, model, works, hours, gpus, at) -> list[str]:
    optim, counts = recipe.optim, model.parameters()
    language = count_parameters(model.language)
    per_pass = optim.batch_size // optim.accumulate
    trained = sum(counts[name] for name in model.trained)
    tokens = model.image_encoder.num_features
    low, *_, high = sorted(clip / imagenet for clip, imagenet in zip(OPENAI_CLIP_STD, IMAGENET_STD, strict=True))
    return [
        f"A vision tower of ViT-G/14's shape has {count_parameters(model.image_encoder) / 1e9:.2f} B parameters; "
        f"{text.image_encoder_parameters / 1e9:.1f} B is about the size of ViT-g/14 together with its text tower.",
        f"The images are called high-resolution, and resized to {text.image_size} pixels: {tokens} tokens, as many as "
        "in BLIP-2.",
        f"Pixels normalized with ImageNet's statistics vary {low:.2f} to {high:.2f} times as much as with those that "
        "OpenCLIP's ViT-G/14 was trained with. A frozen encoder needs its own.",
        f"{optim.accumulate} passes of {per_pass} examples are {optim.accumulate * per_pass:,}; the text gives no "
        f"number of cards, and the plan assumes {gpus}, {per_pass / gpus:g} example each. More than {per_pass} have "
        "nothing to do in a pass.",
        f"With its bridge the whole has {sum(counts.values()) / 1e9:.1f} B parameters, of which "
        f"{trained / 1e9:.1f} B are trained.",
        f"One card cannot hold the decoder: {2 * language / 1e9:.0f} GB in 16 bits, and where it is trained "
        f"{16 * language / 1e9:.0f} GB with gradients and optimizer.",
        f"These {optim.steps:,} steps are {_epochs(recipe, optim.steps * optim.batch_size):.1f} epochs and "
        f"{hours * gpus:,.0f} {text.gpu} hours. The text's {text.runs} runs are {text.runs * hours * gpus:,.0f} hours "
        "if each is a training; if they are evaluations of one model, they differ only where its answers are sampled.",
    ]


def _dual(recipe, text, model, works, hours, gpus, at) -> list[str]:
    pairs, each = recipe.data.pairs, sum(work.flops for work in works.values())
    card_hours = pairs * each / at / 3600
    patches = model.image_encoder.num_features
    words = LONGEST_CAPTION
    text_alone, unified = (language_work(model.language, n, words, 0, trained=True).flops for n in (0, patches))
    # layers that are recomputed cost a third more
    unified = (unified - text_alone) * (4 / 3 if recipe.optim.checkpoint_layers else 1)
    unified_hours = pairs * (each + unified) / at / 3600
    cards = [value / (24 * text.days) for value in (card_hours, unified_hours)]
    frozen = encoder_work(model.image_encoder, trained=False).flops
    return [
        "A dual encoder has no decoder after its fusion, so it writes no caption, and Flickr30k CIDEr cannot be "
        "measured. It can retrieve, match, and rank given answers.",
        "RefCOCOg asks for a box, and the model has no output for one: it can rank given boxes.",
        f"The patches of a masked autoencoder are continuous. Unified tokens need a codebook: "
        f"{recipe.model.num_codes:,} of the {text.vocab_size:,} ids are patches here.",
        "In a text encoder made from a decoder, a token reads only what precedes it. So the vector of a text is that "
        "of its last token.",
        f"One epoch of {pairs / 1e9:.1f} B pairs is {card_hours:,.0f} {text.gpu} hours where the text encoder reads "
        f"{words} tokens of text: {cards[0]:,.0f} cards for {text.days:.0f} days. Where it reads the {patches} patch "
        f"ids, too, {unified_hours:,.0f} hours: {cards[1]:,.0f} cards.",
        f"Trained patches cost {works['image encoder'].flops / frozen:.1f} times a frozen image encoder, at each step.",
        "Filtering, deduplication and re-captioning come before the training: their work is not in these hours.",
    ]


_REMARKS = {
    "flant5-xl-stage1": _flant5,
    "flant5-xl-stage2": _flant5,
    "adapter-xl": _adapter,
    "gated-65b": _gated,
    "gated-65b-instruct": _gated,
    "dual-70b": _dual,
}
