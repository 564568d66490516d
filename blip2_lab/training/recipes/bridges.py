"""Recipes of the miniature with other bridges than the Q-Former: same features, same frozen language model, same
captions.

`MICRO_BRIDGES` lists them. Each is trained as `micro-stage2` is, from random weights, with the frozen T5; for the OPT:

    blip2-lab train micro-linear --set model.language_model=micro-opt

Notes:

* Optimizer, steps, batch and captions are those of `micro-stage2`, so that the bridges differ in nothing else. None was
  tuned for its bridge.
* `micro-qformer` is the Q-Former on the same terms: from BERT, without stage 1. With stage 1 it is `micro-stage2`.
* `micro-wide-qformer` reads pictures of 192 pixels, twice the image encoder's own, by interpolated position embeddings.

Paper: section 3.3, and the papers that models/bridges/ names. Notebook: 08.
"""

from __future__ import annotations

from dataclasses import replace

from blip2_lab.training.recipes.micro import MICRO
from blip2_lab.training.recipes.schema import BridgeParts, Recipe

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
