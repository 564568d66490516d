"""Interpretation: attention maps, attribution of an answer to image regions, and tests of such maps.

    attention_maps  record the attention of every layer during a forward pass
    targets         the score that is explained: a word's log-probability, ITC, ITM
    attribution     rollout, gradients, occlusion, Shapley values, integrated gradients
    grounding       maps scored against the true regions of things
    query_probes    what each query encodes, and what is lost without it
    report          the results of the last two as a page with figures

Begin with `record_attention`.

Paper: section 3.1. Notebook: 09.
"""

from blip2_lab.interpret.attention_maps import AttentionMap, AttentionMaps, record_attention
from blip2_lab.interpret.attribution import METHODS, Explanation
from blip2_lab.interpret.grounding import iou, mass_inside, pointing_game, rank_correlation
from blip2_lab.interpret.targets import ItcScore, ItmScore, WordScore

__all__ = [
    "METHODS",
    "AttentionMap",
    "AttentionMaps",
    "Explanation",
    "ItcScore",
    "ItmScore",
    "WordScore",
    "iou",
    "mass_inside",
    "pointing_game",
    "rank_correlation",
    "record_attention",
]
