"""The exercises' checks: `checks.unimodal_mask(my_mask)` says what was verified, or names the likely mistake.

Nothing in the library imports the checks. They import the library, whose function is the solution.

    check                     what they share: Check, Case, Verdict, prediction, show_source
    encoders                  01      how many vectors, which layer, what frozen means
    attention                 02      who looks where; one head across to the image; several heads
    qformer                   03      what goes in, where the image comes in, one layer
    masks                     04      the three masks
    contrastive_and_matching  05, 06  contrast; hard negatives; matching
    captioning                07      what is read and what is written; its loss, its mask, its cache
    training                  08, 11  the learning rate of a step; what a measured share is worth
    grounding                 09      rollout, gradient weighting; a map scored; is it the weights?
    soft_prompt               10      from query outputs to what a language model reads
    answer_losses             10      which logits predict an answer, which tokens are learned
    decoding                  12      how the next token is chosen
    int8                      12      a matrix in 8 bits

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

from blip2_lab.teaching.checks.answer_losses import answer_loss, decoder_answer_logits, encoder_decoder_answer_logits
from blip2_lab.teaching.checks.attention import attention_weights, cross_attention_head, split_heads
from blip2_lab.teaching.checks.captioning import cached_step, itg_inputs, next_word_loss, text_rows
from blip2_lab.teaching.checks.check import Case, Check, Verdict, prediction, show_source
from blip2_lab.teaching.checks.contrastive_and_matching import (
    contrastive_loss,
    itc_similarity,
    itm_logits,
    itm_pairs,
    negative_weights,
    sample_negatives,
)
from blip2_lab.teaching.checks.decoding import best_continuations, final_score, nucleus, penalize_repetition
from blip2_lab.teaching.checks.encoders import freeze, num_features, second_to_last
from blip2_lab.teaching.checks.grounding import (
    gradient_weighting,
    mass_inside,
    pointing_game,
    rank_correlation,
    rollout,
)
from blip2_lab.teaching.checks.int8 import absmax_quantize, int8_linear, mixed_linear
from blip2_lab.teaching.checks.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.teaching.checks.qformer import cross_attention_layers, embed, qformer_layer
from blip2_lab.teaching.checks.soft_prompt import pad, prepend, split_caption, visual_prompt
from blip2_lab.teaching.checks.training import confidence_interval, exact_match, learning_rate

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
