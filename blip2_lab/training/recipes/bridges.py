"""Recipes of the miniature with other bridges than the Q-Former: same features, same frozen language model, same
captions.

`MICRO_BRIDGES` lists them. Each is trained as `micro-stage2` is, from random weights, with the frozen T5; for the OPT:

    blip2-lab train micro-linear --set model.language_model=micro-opt
    blip2-lab compare bridges      trains and measures them all, on equal terms: docs/bridges.md

Notes:

* Optimizer, steps, batch and captions are those of `micro-stage2`, so that the bridges differ in nothing else. None was
  tuned for its bridge.
* `micro-qformer` is the Q-Former on the same terms: from BERT, without stage 1. With stage 1 it is `micro-stage2`.
* `micro-wide-qformer` reads pictures of 192 pixels, twice the image encoder's own, by interpolated position embeddings.
* `micro-dual-encoder` has no stage 2: it is trained as `micro-stage1` is, its text encoder is the frozen OPT.
* `micro-gated-phase1` and `micro-gated-instruct` are the two phases of `gated-65b` (recipes/relatives.py) in miniature:
  the bridge alone on captions, then bridge, language model and the last layers of the ViT on dialogues. Their answers
  are not zero-shot: dialogues are questions about pictures.

Paper: section 3.3, and the papers that models/bridges/ names. Notebooks: 08, 16.
"""

from __future__ import annotations

from dataclasses import replace

from blip2_lab.training.recipes.micro import MICRO
from blip2_lab.training.recipes.schema import BridgeParts, DialogueData, OptimConfig, Recipe

STAGE1 = next(recipe for recipe in MICRO if recipe.name == "micro-stage1")
STAGE2 = next(recipe for recipe in MICRO if recipe.name == "micro-stage2")
NUM_QUERY_TOKENS = 16  #: of `micro-stage1`


def _bridge(name: str, summary: str, **parts) -> Recipe:
    model = BridgeParts(max_text_tokens=64, match_embeddings=True, **parts)
    return replace(STAGE2, name=name, summary=summary, cost="not measured", model=model)


MICRO_BRIDGES = (
    replace(
        STAGE2,
        name="micro-qformer",
        summary="micro-stage2 without stage 1: the Q-Former starts from BERT alone",
        cost="not measured",
        model=replace(STAGE2.model, pretrained=False),
    ),
    _bridge("micro-linear", "a linear projector in the Q-Former's place, one token for each of 65 features"),
    _bridge(
        "micro-linear-pooled",
        f"a linear projector, its patches pooled to the Q-Former's {NUM_QUERY_TOKENS} tokens",
        num_visual_tokens=NUM_QUERY_TOKENS,
    ),
    _bridge(
        "micro-wide-qformer",
        "a Q-Former of twice the width on pictures of 192 pixels",
        bridge="wide_qformer",
        width=512,
        num_layers=4,
        num_visual_tokens=NUM_QUERY_TOKENS,
        image_size=192,
    ),
    _bridge(
        "micro-gated",
        "gated cross-attention before every layer of the language model's decoder",
        bridge="gated_cross_attention",
        ffn_width=1024,
    ),
    _bridge(
        "micro-gated-resampler",
        f"the same, behind a resampler of {NUM_QUERY_TOKENS} latents",
        bridge="gated_cross_attention",
        ffn_width=1024,
        num_visual_tokens=NUM_QUERY_TOKENS,
    ),
)

#: The optimizer of `gated-65b`. Rates, steps and batch are the miniature's; the text's are those of 65 billion
#: parameters (2e-5, batches of 2,048). `min_lr` is the same share of `lr`.
GATED_ADAMW = dict(betas=(0.9, 0.95), weight_decay=0.1, grad_clip=1.0, batch_size=64, accumulate=16)
GATED_PARTS = BridgeParts("gated_cross_attention", language_model="micro-opt", ffn_width=1024, max_text_tokens=64)

MICRO_BRIDGES += (
    replace(
        STAGE1,
        name="micro-dual-encoder",
        summary="two frozen encoders, fused by cross-attention: matches, retrieves, ranks answers; writes no text",
        cost="not measured",
        model=BridgeParts("dual_encoder", language_model="micro-opt", ffn_width=1024, max_text_tokens=64),
    ),
    replace(
        STAGE1,
        name="micro-dual-encoder-codes",
        summary="the same with one vocabulary for words and patches: 256 codes in place of continuous features",
        cost="not measured",
        model=BridgeParts(
            "dual_encoder", language_model="micro-opt", ffn_width=1024, num_codes=256, max_text_tokens=64
        ),
    ),
    replace(
        STAGE2,
        name="micro-gated-phase1",
        summary="the first of two phases, the gated bridge alone on captions, with the optimizer of gated-65b",
        cost="not measured",
        optim=OptimConfig(lr=1e-3, min_lr=5e-5, warmup_steps=100, steps=1000, **GATED_ADAMW),
        model=GATED_PARTS,
    ),
    replace(
        STAGE2,
        name="micro-gated-instruct",
        summary="the second phase, on dialogues: bridge, language model and the last 2 layers of the ViT",
        cost="not measured",
        optim=OptimConfig(lr=1e-4, min_lr=5e-6, warmup_steps=50, steps=300, **GATED_ADAMW),
        model=replace(GATED_PARTS, start="micro-gated-phase1", train_language_model=True, train_vision_layers=2),
        data=DialogueData(),
    ),
)
