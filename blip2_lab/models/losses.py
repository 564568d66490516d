"""The three losses of stage 1 as functions of tensors: image-text contrast (ITC), image-text matching (ITM) and
image-grounded text generation (ITG).

`itc_loss`, `itm_loss` and `itg_loss` are where to begin; `Stage1Model.losses` (stage1.py) calls them on the outputs of
the Q-Former.

Notes:

* ITC takes the maximum over the queries; ITM averages its two logits over the queries, in models/stage1.py.
* Negatives for ITM are sampled by ITC similarity: the more similar a wrong pair is, the likelier it is drawn.
* `chance_levels` gives the loss of a model that guesses.

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
        """The sum with equal weights, as in the paper."""
        return self.itc + self.itm + self.itg


def itc_similarity(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """image_embeds [B, Q, E], text_embeds [M, E], both of norm 1 -> the largest cosine over the queries, [B, M]."""
    # differs from LAVIS, which computes it under autocast: 1/0.07 would magnify the rounding of half precision
    with torch.autocast(image_embeds.device.type, enabled=False):
        return torch.einsum("bqe,me->bqm", image_embeds.float(), text_embeds.float()).max(dim=1).values


def itc_loss(image_to_text: Tensor, text_to_image: Tensor, positives: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross-entropy in both directions, averaged.

    Similarities [B, M], divided by the temperature; M counts the candidates of all ranks. positives bool[B, M]: the
    same image; where an image has several captions among the candidates, they share the target evenly.
    """
    targets = positives.float() / positives.sum(dim=1, keepdim=True)
    losses = [F.cross_entropy(sim, targets, label_smoothing=label_smoothing) for sim in (image_to_text, text_to_image)]
    return sum(losses) / 2


def negative_weights(similarity: Tensor, positives: Tensor) -> Tensor:
    """Probability that each candidate is sampled as a row's negative: softmax of ITC without the positives, [B, M]."""
    return similarity.detach().masked_fill(positives, -10000.0).softmax(dim=1)


def sample_negatives(similarity: Tensor, positives: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One hard negative for each row: long[B], an index into the M candidates.

    The same numbers as torch.multinomial. Each rank draws the noise for the rows of all ranks and uses its own rows.
    """
    weights = negative_weights(similarity, positives)
    rank, world_size = rank_and_world()
    device = weights.device if generator is None else generator.device
    # differs from LAVIS, whose ranks draw independently: here negatives do not depend on the number of ranks
    noise = torch.empty(world_size, *weights.shape, device=device).exponential_(generator=generator)
    return (weights / noise[rank].to(weights.device)).argmax(dim=1)


def itm_loss(logits: Tensor, has_negative: Tensor) -> Tensor:
    """Cross-entropy of match or no match, for the 3B pairs [true; wrong image; wrong text]. Class 1 is a match.

    logits [3B, 2]. has_negative bool[B]: False where all candidates show that row's own image (a batch of one).
    """
    wrong = torch.where(has_negative, 0, IGNORE_INDEX)  # differs from LAVIS: it labels such a row's own pair as wrong
    labels = torch.cat([torch.ones_like(wrong), wrong, wrong])
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX)


def itg_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.1, reduction: str = "mean") -> Tensor:
    """Next-token cross-entropy. logits [..., V] and labels long[...], already shifted; IGNORE_INDEX is ignored."""
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    return F.cross_entropy(
        logits, labels, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing, reduction=reduction
    )


def chance_levels(batch_size: int, vocab_size: int) -> dict[str, float]:
    """The losses of a model that guesses: uniform over B candidates, 1 of 3 pairs true, uniform over V tokens."""
    return {"itc": math.log(batch_size), "itm": ITM_CHANCE, "itg": math.log(vocab_size)}
