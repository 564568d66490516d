"""Gated cross-attention between the layers of a frozen language model: deep fusion, as in Flamingo.

`GatedCrossAttention` is where to begin; `GatedBlock` is one block.

Notes:

* Before every k-th layer of the language model a block adds tanh(gate) times what its tokens read from the image, then
  tanh(gate) times a feed-forward network. Gates start at 0: the model then *is* the text model, logit for logit
  (tested).
* What it shares with the Q-Former: cross-attention to the same frozen features, under the same LayerNorm. What differs:
  the text's tokens are the queries, so no soft prompt takes up room in the context; and the new weights stand inside
  the language model, at its width, a hundred times as many for a large one.
* The language model itself is not changed: `attending` puts hooks before its layers for the time of one call, in the
  thread that calls, and removes them. So one frozen model may serve several bridges, and is stored under its own names.
* Keys and values of an image are computed once for all tokens of an answer (`keys_values`). With beams, the rows of one
  image share them.
* In an encoder-decoder the blocks are in the decoder, which exists for every prompt, the empty one too.
* transformers' `IdeficsGatedCrossAttentionLayer` computes the same with RMSNorm and SwiGLU (tested: with its norms and
  its network replaced by ours, same weights, same output). It applies no cache of the image, and cannot be recorded.
* differs from Flamingo: biases, exact GELU instead of squared ReLU, and LayerNorm on the features without a resampler.

Paper: arXiv 2204.14198 (Flamingo), section 2.2 and appendix A.1.2. Notebooks: 10, 16.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.bridges.bridge import Bridge
from blip2_lab.models.bridges.resampler import Resampler

KeysValues = tuple[Tensor, Tensor]  # each [B, H, M, D/H]


@dataclass
class GatedCrossAttentionConfig:
    """`num_layers`: of the language model's decoder; a block stands before layer 0, `every`, 2 `every`, ….

    ffn_width         None: blocks without a feed-forward network
    num_latents       None: the tokens attend to all features; else a resampler of so many latents comes first
    resampler_layers  of that resampler (Flamingo: 6)
    """

    image_width: int
    language_width: int
    num_layers: int
    num_heads: int
    every: int = 1
    ffn_width: int | None = None
    num_latents: int | None = None
    resampler_layers: int = 6
    image_layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.every < 1 or self.num_layers < 1:
            raise ValueError("Gated blocks stand before every k-th layer: `every` and `num_layers` are at least 1.")


class GatedBlock(nn.Module):
    """x [B,T,Dl] -> x + tanh(g1) attention(x, image) -> x + tanh(g2) ffn(x). Both gates start at 0."""

    gathered_by_matrix = True  #: its matrices are called as modules, so FSDP can gather one at a time

    def __init__(self, width: int, num_heads: int, memory_width: int, ffn_width: int | None) -> None:
        super().__init__()
        self.attention_layer_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, num_heads, memory_width=memory_width)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.has_ffn = ffn_width is not None
        if ffn_width is not None:
            self.ffn_layer_norm = nn.LayerNorm(width)
            self.expand = nn.Linear(width, ffn_width)
            self.contract = nn.Linear(ffn_width, width)
            self.ffn_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        read = self.cross_attention(self.attention_layer_norm(x), keys, values)
        x = x + torch.tanh(self.attention_gate) * read
        if not self.has_ffn:
            return x
        return x + torch.tanh(self.ffn_gate) * self.contract(F.gelu(self.expand(self.ffn_layer_norm(x))))


class GatedCrossAttention(Bridge):
    """image_features [B,N,Dv] -> the memory [B,M,Dv] that the blocks attend to, M = N or `num_latents`."""

    deep_fusion = True

    def __init__(self, config: GatedCrossAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.image_width, self.language_width = config.image_width, config.language_width
        self.image_layer_norm = nn.LayerNorm(config.image_width, eps=config.image_layer_norm_eps)
        self.resampler = None
        if config.num_latents is not None:
            most = max(1, config.image_width // 64)
            heads = next(n for n in range(most, 0, -1) if config.image_width % n == 0)
            self.resampler = Resampler(config.image_width, heads, config.num_latents, config.resampler_layers)
        sizes = (config.language_width, config.num_heads, config.image_width, config.ffn_width)
        self.blocks = nn.ModuleList(GatedBlock(*sizes) for _ in range(0, config.num_layers, config.every))

    def forward(self, image_features: Tensor) -> Tensor:
        x = self.image_layer_norm(image_features.to(self.image_layer_norm.weight.dtype))
        return x if self.resampler is None else self.resampler(x)

    def num_visual_tokens(self, num_features: int) -> int:
        return self.config.num_latents or num_features

    def keys_values(self, visual_prompt: Tensor) -> tuple[KeysValues, ...] | None:
        """visual_prompt [B,M,Dv] -> keys and values for each block; None for no image (M = 0)."""
        if visual_prompt.shape[1] == 0:
            return None
        return tuple(block.cross_attention.keys_values(visual_prompt) for block in self.blocks)

    def check_layers(self, layers: Sequence[nn.Module]) -> None:
        """Raises ValueError for a language model with another number of layers."""
        if len(layers) != self.config.num_layers:
            raise ValueError(
                f"The gated blocks were made for {self.config.num_layers} layers, and this language model has "
                f"{len(layers)}."
            )

    @contextmanager
    def attending(self, layers: Sequence[nn.Module], image: tuple[KeysValues, ...] | None) -> Iterator[None]:
        """Inside the block, these layers of a language model are preceded by the gated blocks.

        image  the output of `keys_values`; None leaves the language model as it is. A pass of several rows for each
               image (beams) reads the image of its row: rows of one image follow one another
        """
        self.check_layers(layers)
        with ExitStack() as hooks:
            if image is not None:
                for block, keys_values, layer in zip(self.blocks, image, layers[:: self.config.every], strict=True):
                    hook = partial(_run_block, block, keys_values, threading.get_ident())
                    hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield


def _run_block(
    block: GatedBlock, image: KeysValues, thread: int, layer: nn.Module, args: tuple, kwargs: dict | None = None
) -> tuple[tuple, dict] | None:
    """The hook before a layer: its hidden states [B',T,Dl] go through the block first."""
    if threading.get_ident() != thread:
        # Another thread uses the same language model. torch (2.11) calls its hook without `kwargs`, if the hook is
        # removed between the look at the hooks and at those with keywords.
        return None
    x = args[0] if args else kwargs["hidden_states"]
    repeats, rest = divmod(len(x), len(image[0]))
    if rest:
        raise ValueError(f"{len(x)} rows of text cannot share {len(image[0])} images: give the same number to each.")
    keys, values = (each if repeats == 1 else each.repeat_interleave(repeats, dim=0) for each in image)
    # gates and LayerNorms are kept in 32 bits; the frozen language model may have 16
    fused = block(x.to(block.attention_gate.dtype), keys, values).to(x.dtype)
    return ((fused, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": fused})
