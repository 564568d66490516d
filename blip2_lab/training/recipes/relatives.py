"""Recipes of four described relatives of BLIP-2 at full size, 4 to 81 billion parameters: to plan, not to train.

`RELATIVES` lists the recipes; `DESCRIPTIONS` has, by recipe, what its text claims beside its settings: sizes, cards,
days.

    blip2-lab plan flant5-xl-stage2     BLIP-2-FlanT5-XL, 64 A100, batches of 131,072
    blip2-lab plan adapter-xl           BLIP2-Adapter-XL: a wide Q-Former, ViT-G/14 at high resolution, 35 B
    blip2-lab plan gated-65b            gated cross-attention into a decoder of 65 B; then gated-65b-instruct
    blip2-lab plan dual-70b             two encoders, fused by cross-attention, one vocabulary, 70 B

Notes:

* A setting that its text gives is written as it is. A setting that it does not give has a comment that says so.
* Where a text cannot be as written, the recipe has the nearest thing that can be built, and the plan says why
  (training/planning/claims.py).
* None of them was trained.

Paper: section 3.4; arXiv 2204.14198 (Flamingo), 2112.04482 (FLAVA). Notebook: 17.
"""

from __future__ import annotations

from dataclasses import dataclass

from blip2_lab.checkpoints.catalog import BERT, IMAGE_ENCODERS, LANGUAGE_MODELS
from blip2_lab.training.recipes.schema import (
    SEE_PLAN,
    BridgeParts,
    ImageTextData,
    OptimConfig,
    Recipe,
    Stage1Parts,
    Stage2Parts,
)


@dataclass(frozen=True)
class Description:
    """What a text claims. None: it says nothing.

    title       how the text calls its model
    parameters  in total, with frozen ones unless `without_frozen`
    gpus        how many trained together; `plan_gpus` is what a plan assumes where the text gives no number
    gpu         their name; `days` that the training took
    runs        independent ones that its results are the mean of
    """

    title: str
    gpu: str
    parameters: float | None = None
    without_frozen: bool = False
    image_encoder_parameters: float | None = None
    language_model_parameters: float | None = None
    gpus: int | None = None
    plan_gpus: int = 1
    batch_of_a_gpu: int | None = None
    days: float | None = None
    image_size: int | None = None
    vocab_size: int | None = None
    runs: int = 1


def warmup_share(steps: int, share: float) -> int:
    """Warm-up steps that are this share of all steps."""
    return round(steps * share)


# ------------------------------------------------------------------------------------------------- BLIP-2-FlanT5-XL

FLANT5_PAIRS = ImageTextData(
    "129M pairs: subsets of COCO, Visual Genome, SBU and LAION-400M", image_size=224, flip=True, pairs=129_000_000
)
FLANT5_OPTIM = OptimConfig(
    lr=1e-4,  # not in the text; BLIP-2's
    warmup_steps=10_000,
    steps=20_000,  # not in the text; as many after the warm-up as in it
    batch_size=131_072,
    min_lr=1e-6,
    weight_decay=0.05,  # not in the text; BLIP-2's, as are the betas
    grad_clip=None,
    precision="bf16",
)
FLANT5_TOKENS = 77
FLANT5 = (
    Recipe(
        "flant5-xl-stage1",
        "BLIP-2-FlanT5-XL as described: stage 1, 64 A100, batches of 131,072",
        SEE_PLAN,
        "stage1",
        FLANT5_OPTIM,
        Stage1Parts(IMAGE_ENCODERS["vit-g"].hub, BERT.hub, max_text_tokens=FLANT5_TOKENS),
        FLANT5_PAIRS,
        save_every=500,
        eval_every=1000,
    ),
    Recipe(
        "flant5-xl-stage2",
        "BLIP-2-FlanT5-XL as described: stage 2, 64 A100, batches of 131,072",
        SEE_PLAN,
        "stage2",
        FLANT5_OPTIM,
        Stage2Parts("flant5-xl-stage1", LANGUAGE_MODELS["flan-t5-xl"].hub, max_text_tokens=FLANT5_TOKENS),
        FLANT5_PAIRS,
        save_every=500,
        eval_every=1000,
    ),
)

# ------------------------------------------------------------------------------------------------- BLIP2-Adapter-XL

ADAPTER_PAIRS = ImageTextData(
    "1.5B pairs: LAION-5B, Conceptual Captions, COCO, medical images with reports",
    image_size=518,  # the text: 512, which is no multiple of 14
    flip=False,  # not in the text: crops, resizing, color jitter
    color_jitter=0.4,  # not in the text: how much
    pairs=1_500_000_000,
)
ADAPTER_STEPS = ADAPTER_PAIRS.pairs // 2048  # not in the text; one epoch
ADAPTER = (
    Recipe(
        "adapter-xl",
        "BLIP2-Adapter-XL as described: Q-Former of width 2,048, ViT-G/14 at 518 pixels, LLaMA-33B, FSDP on 128 A100",
        SEE_PLAN,
        "stage2",
        OptimConfig(
            lr=1e-4,  # not in the text; BLIP-2's
            warmup_steps=warmup_share(ADAPTER_STEPS, 0.1),
            steps=ADAPTER_STEPS,
            batch_size=2048,
            accumulate=4,
            weight_decay=0.05,  # not in the text
            grad_clip=None,
            precision="bf16",  # not in the text
            checkpoint_layers=True,  # not in the text
            shard=True,
        ),
        BridgeParts(
            "wide_qformer",
            image_encoder="vit-bigg-14",
            language_model="llama-33b",  # not in the text; the open decoder whose size fits
            image_size=518,
            width=2048,  # not in the text: "expanded"
        ),
        ADAPTER_PAIRS,
        save_every=1000,
        eval_every=5000,
    ),
)

# ------------------------------------------------------------------------- gated cross-attention into 65 billion

GATED_PAIRS = ImageTextData(
    "CC3M, CC12M, LAION-400M and 100M annotated pairs of one's own",
    image_size=224,
    flip=False,  # not in the text
    pairs=3_000_000 + 12_000_000 + 400_000_000 + 100_000_000,
)
#: The training splits of VQAv2 and GQA (balanced), and 150 k conversations, as LLaVA's; the text gives no numbers.
INSTRUCTIONS = ImageTextData(
    "conversations, VQAv2 and GQA", image_size=224, flip=False, pairs=443_757 + 943_000 + 150_000, text="questions"
)
GATED_ADAMW = dict(
    lr=2e-5,
    warmup_steps=2000,
    min_lr=1e-6,
    betas=(0.9, 0.95),
    weight_decay=0.1,
    grad_clip=1.0,
    batch_size=2048,
    accumulate=16,
    precision="bf16",
    checkpoint_layers=True,  # not in the text
    shard=True,  # not in the text; 65 B do not fit one card
)
GATED_PARTS = dict(
    bridge="gated_cross_attention",
    image_encoder="vit-bigg-14",
    language_model="llama-65b",
    every=4,  # not in the text; IDEFICS-80B's
    ffn_width=4 * 8192,  # not in the text; Flamingo's four times the width
)
GATED = (
    Recipe(
        "gated-65b",
        "gated cross-attention from ViT-G/14 into a frozen decoder of 65 B: the bridge alone",
        SEE_PLAN,
        "stage2",
        OptimConfig(steps=GATED_PAIRS.pairs // 2048, **GATED_ADAMW),  # steps not in the text; one epoch
        BridgeParts(**GATED_PARTS),
        GATED_PAIRS,
        save_every=1000,
        eval_every=5000,
    ),
    Recipe(
        "gated-65b-instruct",
        "the same, instruction tuning: bridge, decoder and the last 8 layers of the ViT",
        SEE_PLAN,
        "stage2",
        # steps not in the text; five epochs, as the paper's fine-tuning
        OptimConfig(steps=5 * (INSTRUCTIONS.pairs // 2048), **GATED_ADAMW),
        # "partially unfrozen": the text does not say how much
        BridgeParts(**GATED_PARTS, start="gated-65b", train_language_model=True, train_vision_layers=8),
        INSTRUCTIONS,
        save_every=200,
        eval_every=500,
    ),
)

# ------------------------------------------------------------------------------------- a dual encoder of 70 billion

DUAL_PAIRS = ImageTextData(
    "4.5B pairs: LAION-5B, CC3M, SBU and web documents, filtered, deduplicated, re-captioned",
    image_size=224,
    flip=False,  # not in the text
    pairs=4_500_000_000,
)
DUAL = (
    Recipe(
        "dual-70b",
        "a dual encoder as described: MAE ViT-H/14, a text encoder of 65 B, 22 fusion blocks, a vocabulary of 65,536",
        SEE_PLAN,
        "stage1",
        OptimConfig(
            lr=1e-4,  # not in the text
            warmup_steps=10_000,
            steps=DUAL_PAIRS.pairs // 2048,  # not in the text; one epoch
            batch_size=2048,
            min_lr=1e-6,
            weight_decay=0.05,  # not in the text
            precision="bf16",
            checkpoint_layers=True,  # not in the text
            shard=True,  # not in the text; 70 B do not fit one card
        ),
        BridgeParts(
            "dual_encoder",
            image_encoder="mae-vit-h-14",  # not in the text: "a masked autoencoder variant"
            language_model="llama-65b-65k",
            num_blocks=22,  # not in the text; what is left of 70 B
            num_codes=8192,  # not in the text; Chameleon's, of the same vocabulary size
            train_language_model=True,
            train_vision_layers=32,
        ),
        DUAL_PAIRS,
        save_every=1000,
        eval_every=5000,
    ),
)

RELATIVES = (*FLANT5, *ADAPTER, *GATED, *DUAL)

_FLANT5 = Description(
    "BLIP-2-FlanT5-XL", "A100", 11e9, without_frozen=True, gpus=64, plan_gpus=64, batch_of_a_gpu=2048, image_size=224
)
_GATED = dict(
    title="ViT-G/14 and a decoder of 65 B",
    gpu="H100",
    image_encoder_parameters=1.4e9,
    language_model_parameters=65e9,
    plan_gpus=128,
    image_size=224,
    vocab_size=32_000,
    runs=5,
)
DESCRIPTIONS: dict[str, Description] = {
    "flant5-xl-stage1": _FLANT5,
    "flant5-xl-stage2": _FLANT5,
    "adapter-xl": Description(
        "BLIP2-Adapter-XL", "A100", 35e9, gpus=128, plan_gpus=128, days=49, image_size=512, vocab_size=50_000
    ),
    "gated-65b": Description(**_GATED),
    "gated-65b-instruct": Description(**_GATED),
    "dual-70b": Description(
        "the dual encoder of 70 B", "A100", 70e9, plan_gpus=1024, days=60, image_size=224, vocab_size=65_536
    ),
}
