"""What happens inside: attention maps, which part of a picture an answer rests on, and whether such a map is right.

    attention_maps  record the attention of every layer during a pass
    targets         the number that is explained: a word's probability, ITC, ITM
    attribution     rollout, gradients, occlusion, Shapley values, integrated gradients
    grounding       maps scored against the true places of things
    query_probes    what each query carries, and what is lost without it
    report          the numbers of the last two as a page with figures

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
