"""The exercises' checks: `checks.unimodal_mask(my_mask)` reports what was verified, or names the likely mistake.

The library does not import the checks. They import the library, whose function is the solution.

    check            shared: Check, which is called with an answer; show_source
    exercise         shared: Exercise, what a check knows: the library's function, its cases, typical mistakes
    diagnosis        shared: what is wrong with an answer, in words
    wrong_functions  shared: the known mistake, or the changed function, that gives a wrong answer's values
    verdicts         shared: Verdict, and what becomes of it while a notebook is graded
    errors           shared: errors of the student's function, told apart from the check's own
    values           shared: what a student's function returns, made safe to compare
    comparison       shared: which values are equal; differences that occur in every subject
    in_words         shared: a value, and any other difference, in words
    changes          shared: the change of an answer or an argument that explains a wrong answer, in words
    function_code    shared: the code of a function as a tree
    mutants          shared: functions with one or two expressions changed
    variants         shared: two known mistakes at once
    dependence       shared: an argument that is not used, a place that reads a wrong one
    calls            shared: what modules are given
    steps            shared: the steps of a calculation, and how far they are the library's
    plain_losses     shared: cross-entropy in single steps
    patching         shared: the expression that should have the value of a step of the library's
    explanations     shared: the changed function that explains a wrong answer, the change that makes it right
    gradients        shared: where the gradient of an answer goes
    stand_ins        shared: models of a few lines
    seeds            shared: was a global seed set?
    predictions      a guess, and what came out
    encoders         01      the number of features, their layer, frozen modules
    attention        02      attention weights; a cross-attention head; several heads
    qformer          03      input embeddings, layers with cross-attention, one layer
    masks            04      the three masks
    contrastive      05      ITC: similarity, loss
    matching         06      hard negatives; ITM: pairs, logits
    captioning       07      ITG: inputs and labels, loss, mask, cache
    training         08      the learning rate of a step
    attribution      09      rollout, gradient weighting
    grounding        09      scores of a map; the sanity check
    accuracies       11      is an answer right; how sure an accuracy and a difference are
    soft_prompt      10      from query outputs to the input of a language model
    answer_losses    10      the logits that predict an answer, the tokens with a loss
    decoding         12      how the next token is chosen
    int8             13      a matrix in 8 bits
    four_bits        13      a weight in 4 bits, and what it costs with its scales
    held_out         14      pictures held out, the best step
    fine_tuning      14      the question in the Q-Former, several captions
    in_context       15      several pictures in one prompt, copied answers
    failures         15      word sums, the first broken link
    bridges          16      pooled patches, a projector, a gated block
    counting         16      what a gated bridge trains
    scaling          17      memory, FLOPs and days of a training; a batch and its schedule

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

from blip2_lab.teaching.checks.accuracies import confidence_interval, exact_match, paired_bootstrap
from blip2_lab.teaching.checks.answer_losses import answer_loss, decoder_answer_logits, encoder_decoder_answer_logits
from blip2_lab.teaching.checks.attention import attention_weights, cross_attention_head, split_heads
from blip2_lab.teaching.checks.attribution import gradient_weighting, rollout
from blip2_lab.teaching.checks.bridges import gated_block, pool_patches, project_features
from blip2_lab.teaching.checks.captioning import cached_step, itg_inputs, next_word_loss, text_rows
from blip2_lab.teaching.checks.check import Check, show_source
from blip2_lab.teaching.checks.contrastive import contrastive_loss, itc_similarity
from blip2_lab.teaching.checks.counting import gated_parameters
from blip2_lab.teaching.checks.decoding import best_continuations, final_score, nucleus, penalize_repetition
from blip2_lab.teaching.checks.encoders import freeze, num_features, second_to_last
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.failures import first_broken_link, word_sums
from blip2_lab.teaching.checks.fine_tuning import condition_on_question, recall_hits
from blip2_lab.teaching.checks.four_bits import bits_per_weight, quantize_blocks
from blip2_lab.teaching.checks.grounding import mass_inside, pointing_game, rank_correlation
from blip2_lab.teaching.checks.held_out import best_step, hold_out_pictures
from blip2_lab.teaching.checks.in_context import copied_answers, interleave_pictures
from blip2_lab.teaching.checks.int8 import absmax_quantize, int8_linear, mixed_linear
from blip2_lab.teaching.checks.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.teaching.checks.matching import itm_logits, itm_pairs, negative_weights, sample_negatives
from blip2_lab.teaching.checks.predictions import prediction, print_after, show_after
from blip2_lab.teaching.checks.qformer import cross_attention_layers, embed, qformer_layer
from blip2_lab.teaching.checks.scaling import batch_schedule, training_days, training_flops, training_memory
from blip2_lab.teaching.checks.soft_prompt import pad, prepend, split_caption, visual_prompt
from blip2_lab.teaching.checks.training import learning_rate
from blip2_lab.teaching.checks.verdicts import Verdict

__all__ = [
    "Case",
    "Check",
    "Verdict",
    "absmax_quantize",
    "answer_loss",
    "attention_weights",
    "batch_schedule",
    "best_continuations",
    "best_step",
    "bidirectional_mask",
    "bits_per_weight",
    "cached_step",
    "condition_on_question",
    "confidence_interval",
    "contrastive_loss",
    "copied_answers",
    "cross_attention_head",
    "cross_attention_layers",
    "decoder_answer_logits",
    "embed",
    "encoder_decoder_answer_logits",
    "exact_match",
    "final_score",
    "first_broken_link",
    "freeze",
    "gated_block",
    "gated_parameters",
    "gradient_weighting",
    "hold_out_pictures",
    "int8_linear",
    "interleave_pictures",
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
    "paired_bootstrap",
    "penalize_repetition",
    "pointing_game",
    "pool_patches",
    "prediction",
    "prepend",
    "print_after",
    "project_features",
    "qformer_layer",
    "quantize_blocks",
    "rank_correlation",
    "recall_hits",
    "rollout",
    "sample_negatives",
    "second_to_last",
    "show_after",
    "show_source",
    "split_caption",
    "split_heads",
    "text_rows",
    "training_days",
    "training_flops",
    "training_memory",
    "unimodal_mask",
    "visual_prompt",
    "word_sums",
]
