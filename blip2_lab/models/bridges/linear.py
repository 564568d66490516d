"""A linear projector: every patch becomes one token of the soft prompt, by one matrix.

`LinearBridge` is where to begin.

Notes:

* With one matrix it is LLaVA's first projector (arXiv 2304.08485, section 4.1); with `hidden_width` it is the two-layer
  one of LLaVA-1.5 (arXiv 2310.03744), transformers' `LlavaMultiModalProjector` (tested: same weights, same output).
  transformers' class has no linear form and no pooling, so the ten lines stand here.
* `num_visual_tokens` pools the grid of patches to that many tokens by averages, so that a projector and a Q-Former can
  be compared at the same length of the soft prompt. [CLS] is left out then.
* What it shares with the Q-Former: the LayerNorm on the image features, the projection to the language model's width,
  and early fusion. What it lacks: queries, attention, and stage 1. Each of its tokens depends on one place of the
  image.
* differs from LLaVA: it has no LayerNorm on the features. BLIP-2 has one in front of the Q-Former; all bridges here
  have.

Paper: arXiv 2304.08485, section 4.1; BLIP-2, section 3.3. Notebooks: 10, 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.bridges.bridge import Bridge


@dataclass
class LinearConfig:
    """`num_visual_tokens` None: one token for each feature, [CLS] included. `hidden_width` None: one matrix."""

    image_width: int
    language_width: int
    num_visual_tokens: int | None = None
    hidden_width: int | None = None
    image_layer_norm_eps: float = 1e-6


class LinearBridge(Bridge):
    """image_features [B,N,Dv] -> soft prompt [B,M,Dl]: LayerNorm and one matrix, M = N or `num_visual_tokens`."""

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.image_width, self.language_width = config.image_width, config.language_width
        self.image_layer_norm = nn.LayerNorm(config.image_width, eps=config.image_layer_norm_eps)
        hidden = config.hidden_width
        self.hidden_projection = None if hidden is None else nn.Linear(config.image_width, hidden)
        self.language_projection = nn.Linear(hidden or config.image_width, config.language_width)

    def forward(self, image_features: Tensor) -> Tensor:
        if self.config.num_visual_tokens is not None:
            image_features = pool_patches(image_features, self.config.num_visual_tokens)
        x = self.image_layer_norm(image_features.to(self.image_layer_norm.weight.dtype))
        if self.hidden_projection is not None:
            x = F.gelu(self.hidden_projection(x))
        return self.language_projection(x)

    def num_visual_tokens(self, num_features: int) -> int:
        return self.config.num_visual_tokens or num_features

    @torch.no_grad()
    def match_norm(self, norm: float) -> float:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(1, 1 + 32 * 32, self.image_width, generator=generator)
        self.language_projection.bias.zero_()
        factor = norm / self(features.to(self.language_projection.weight.device)).norm(dim=-1).mean().item()
        self.language_projection.weight.mul_(factor)
        return factor


def pool_patches(image_features: Tensor, count: int) -> Tensor:
    """image_features [B,1+G*G,Dv], [CLS] first -> averages over `count` regions of the grid [B,count,Dv], without
    [CLS].

    The regions form the grid of rows x columns = count that is nearest to a square: 16 are 4 x 4, 32 are 4 x 8.
    """
    patches = image_features[:, 1:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} patches are no square grid, so they cannot be pooled.")
    rows = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    columns = count // rows
    if columns > side:
        raise ValueError(f"A grid of {side} x {side} patches cannot be pooled to {count} = {rows} x {columns} tokens.")
    grid = patches.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(grid, (rows, columns)).flatten(2).transpose(1, 2)
