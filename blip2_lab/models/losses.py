"""The three losses of stage 1 as functions of tensors: contrast (ITC), matching (ITM), caption writing (ITG).

`itc_loss`, `itm_loss` and `itg_loss` are where to begin; `Stage1Model.losses` (stage1.py) calls them on the outputs of
the Q-Former.

Notes:

* ITC compares the best of the queries with the text; ITM averages its two logits over the queries, in models/stage1.py.
* Negatives for ITM are sampled by ITC similarity: the more similar a wrong pair is, the likelier it is drawn.
* `chance_levels` says what each loss is worth before anything is learned.

Paper: section 3.2, Figure 2. Notebooks: 05 to 07.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.common.distributed import rank_and_world
from blip2_lab.models.masks import IGNORE_INDEX

#: One of three pairs is true: the entropy of (1/3, 2/3).
ITM_CHANCE = math.log(3) - 2 / 3 * math.log(2)


@dataclass
class Stage1Losses:
    itc: Tensor
    itm: Tensor
    itg: Tensor

    @property
    def total(self) -> Tensor:
        """The paper weighs the three alike."""
        return self.itc + self.itm + self.itg


def itc_similarity(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """image_embeds [B, Q, E], text_embeds [M, E], both of norm 1 -> cosines of the best query, [B, M]."""
    # differs from LAVIS, which computes it under autocast: half precision would blur what 1/0.07 magnifies
    with torch.autocast(image_embeds.device.type, enabled=False):
        return torch.einsum("bqe,me->bqm", image_embeds.float(), text_embeds.float()).max(dim=1).values


def itc_loss(
    image_to_text: Tensor,
    text_to_image: Tensor,
    positives: Tensor,
    label_smoothing: float = 0.1,
    text_positives: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in both directions, averaged.

    Similarities [B, M], divided by the temperature; M counts the candidates of all ranks. positives bool[B, M]: the
    candidates that match a row; they share the target evenly. text_positives bool[B, M]: those of the second direction,
    where they are others (a text that is true of several images).
    """
    losses = []
    for similarity, true in ((image_to_text, positives), (text_to_image, text_positives)):
        true = positives if true is None else true
        targets = true.float() / true.sum(dim=1, keepdim=True)
        losses.append(F.cross_entropy(similarity, targets, label_smoothing=label_smoothing))
    return sum(losses) / 2


def negative_weights(similarity: Tensor, positives: Tensor) -> Tensor:
    """With what weight each candidate is drawn as a row's negative: softmax of ITC without the positives, [B, M]."""
    return similarity.detach().masked_fill(positives, -10000.0).softmax(dim=1)


def sample_negatives(similarity: Tensor, positives: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One hard negative for each row: long[B], an index into the M candidates.

    torch.multinomial's draw, number for number. The noise is that of all ranks' rows, of which each rank takes its own.
    """
    weights = negative_weights(similarity, positives)
    rank, world_size = rank_and_world()
    device = weights.device if generator is None else generator.device
    # differs from LAVIS, whose ranks draw apart: with one generator everywhere, negatives do not depend on their number
    noise = torch.empty(world_size, *weights.shape, device=device).exponential_(generator=generator)
    return (weights / noise[rank].to(weights.device)).argmax(dim=1)


def itm_loss(logits: Tensor, has_negative: Tensor, has_wrong_image: Tensor | None = None) -> Tensor:
    """Matched or not, for the 3B pairs [true; wrong image; wrong text]. Class 1 is a match.

    logits [3B, 2]. has_negative bool[B]: False where the batch holds nothing but matches of that row (a batch of one).
    has_wrong_image bool[B]: the same for the rows' texts, where it differs.
    """
    # differs from LAVIS: it calls such a row's own pair wrong
    wrong_text = torch.where(has_negative, 0, IGNORE_INDEX)
    wrong_image = wrong_text if has_wrong_image is None else torch.where(has_wrong_image, 0, IGNORE_INDEX)
    labels = torch.cat([torch.ones_like(wrong_text), wrong_image, wrong_text])
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX)


def itg_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.1, reduction: str = "mean") -> Tensor:
    """Next-token cross-entropy. logits [..., V] and labels long[...], already shifted; IGNORE_INDEX is not counted."""
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    return F.cross_entropy(
        logits, labels, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing, reduction=reduction
    )


def chance_levels(batch_size: int, vocab_size: int) -> dict[str, float]:
    """What stage 1's losses are worth before anything is learned: B candidates, 1 of 3 pairs, V words."""
    return {"itc": math.log(batch_size), "itm": ITM_CHANCE, "itg": math.log(vocab_size)}
