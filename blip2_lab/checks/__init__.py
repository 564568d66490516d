"""The exercises' checks: `checks.unimodal_mask(my_mask)` says what was verified, or names the likely mistake.

What is unusual about it:

* A room for each notebook; `report` is what they share (`Check`, `Case`, `Verdict`, `prediction`, `show_source`).
* Nothing in the library imports the checks. They import the library, whose function is the solution.

    encoders   01    how many vectors, which layer, what frozen means
    attention  02    who looks where; one head across to the image; several heads
    qformer    03    what goes in, where the image comes in, one layer
    masks      04    the three masks
    losses     05, 06    contrast; hard negatives; matching
    writing    07    what is read and what is written; its loss, its mask, its cache
    training   08, 11    the learning rate of a step; what a measured share is worth
    grounding  09    rollout, gradient weighting; a map scored; is it the weights?
    bridge     10    from query outputs to what a language model reads
    answers    10    which logits predict an answer, which tokens are learned
    decoding   12    how the next token is chosen
    numbers    12    a matrix in 8 bits

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

from blip2_lab.checks.answers import answer_loss, decoder_answer_logits, encoder_decoder_answer_logits
from blip2_lab.checks.attention import attention_weights, cross_attention_head, split_heads
from blip2_lab.checks.bridge import pad, prepend, split_caption, visual_prompt
from blip2_lab.checks.decoding import best_continuations, final_score, nucleus, penalize_repetition
from blip2_lab.checks.encoders import freeze, num_features, second_to_last
from blip2_lab.checks.grounding import gradient_weighting, mass_inside, pointing_game, rank_correlation, rollout
from blip2_lab.checks.losses import (
    contrastive_loss,
    itc_similarity,
    itm_logits,
    itm_pairs,
    negative_weights,
    sample_negatives,
)
from blip2_lab.checks.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.checks.numbers import absmax_quantize, int8_linear, mixed_linear
from blip2_lab.checks.qformer import cross_attention_layers, embed, qformer_layer
from blip2_lab.checks.report import Case, Check, Verdict, prediction, show_source
from blip2_lab.checks.training import confidence_interval, exact_match, learning_rate
from blip2_lab.checks.writing import cached_step, itg_inputs, next_word_loss, text_rows

__all__ = [
    "Case",
    "Check",
    "Verdict",
    "absmax_quantize",
    "answer_loss",
    "attention_weights",
    "best_continuations",
    "bidirectional_mask",
    "cached_step",
    "confidence_interval",
    "contrastive_loss",
    "cross_attention_head",
    "cross_attention_layers",
    "decoder_answer_logits",
    "embed",
    "encoder_decoder_answer_logits",
    "exact_match",
    "final_score",
    "freeze",
    "gradient_weighting",
    "int8_linear",
    "itc_similarity",
    "itg_inputs",
    "itm_logits",
    "itm_pairs",
    "learning_rate",
    "mass_inside",
    "mixed_linear",
    "multimodal_causal_mask",
    "negative_weights",
    "next_word_loss",
    "nucleus",
    "num_features",
    "pad",
    "penalize_repetition",
    "pointing_game",
    "prediction",
    "prepend",
    "qformer_layer",
    "rank_correlation",
    "rollout",
    "sample_negatives",
    "second_to_last",
    "show_source",
    "split_caption",
    "split_heads",
    "text_rows",
    "unimodal_mask",
    "visual_prompt",
]
