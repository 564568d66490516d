"""The Perceiver resampler: learned latents attend to the image features, so that any number of patches becomes M.

`Resampler` is where to begin.

Notes:

* It shares with the Q-Former that learned vectors cross-attend to the patches. Unlike the Q-Former it has
  pre-LayerNorm, attends in one step to [patches ; latents] instead of alternating self- and cross-attention, works in
  the image's width, reads no text, and has no training of its own.
* The computation is Flamingo's, and that of transformers' `IdeficsPerceiverResampler` (tested: same weights, same
  output). It is written out here because transformers' takes its sizes from a whole Idefics configuration, and its
  weights cannot be recorded.
* differs from Flamingo: the projections have biases, as everywhere in this package.

Paper: arXiv 2204.14198 (Flamingo), section 2.1 and appendix A.1.1. Notebooks: 10, 16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.attention import MultiHeadAttention


class ResamplerLayer(nn.Module):
    """latents [B,M,D], features [B,N,D] -> latents [B,M,D]: attention to both, then a feed-forward network."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.feature_layer_norm = nn.LayerNorm(width)
        self.latent_layer_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, num_heads)
        self.ffn_layer_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        x = self.latent_layer_norm(latents)
        memory = torch.cat([self.feature_layer_norm(features), x], dim=1)
        latents = latents + self.cross_attention(x, *self.cross_attention.keys_values(memory))
        return latents + self.contract(F.relu(self.expand(self.ffn_layer_norm(latents))))


class Resampler(nn.Module):
    """image features [B,N,D] -> [B,M,D] for `num_latents` M, any N."""

    def __init__(self, width: int, num_heads: int, num_latents: int, num_layers: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, width) * 0.02)
        self.layers = nn.ModuleList(ResamplerLayer(width, num_heads) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(latents, features)
        return self.layer_norm(latents)
