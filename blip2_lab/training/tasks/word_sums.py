"""Word sums: descriptions that a language model reads as one embedding a thing, as it will read a visual prompt.

`word_sums_of` and `add_up` are where to begin.

Notes:

* `corpus.word_sums` joins the words of a thing with "+". Here their embeddings become one vector, of about a word's
  length, with noise: a visual prompt has a cosine of about 0.3 to its nearest word embedding, so the language model is
  trained with noise.
* The noise grows during training: what can be read with little noise is learned first.
* differs from the paper, whose language models are never trained so: a language model of a few million parameters that
  has read nothing but sentences makes captions of a visual prompt and answers no question about it.

Paper: section 3.3 (soft visual prompts). Notebook: 10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE = (0.1, 1.0)  #: from least to most length of the noise on word sums, in lengths of a word embedding
SPREAD = 0.3  #: of the logarithm of a word sum's length


@dataclass(frozen=True)
class WordSums:
    """Where the tokens of B texts go: `place` long[B,T] (P for padding), of P places in the longest text.

    `mask` long[B,P] is 1 where there is something to read, `summed` bool[B,P] where it is a word sum.
    """

    place: Tensor
    mask: Tensor
    summed: Tensor

    def to(self, device: torch.device, **options) -> WordSums:
        return WordSums(*(tensor.to(device, **options) for tensor in (self.place, self.mask, self.summed)))


def word_sums_of(texts: Sequence[str], attention_mask: Tensor, pad_to_multiple_of: int = 1) -> WordSums:
    """`["red+boat snow."]` -> places 0 0 1 2 3: a word sum, a word, a mark, the end.

    attention_mask long[B,T] is that of the texts' tokens with " " for "+", one a word and one a mark, the end added.
    """
    rows = []
    for text in texts:
        sizes = []  # of each place: how many tokens, and is it a word sum?
        for chunk in text.split():
            tokens = re.findall(r"\w+|[^\w\s+]", chunk)
            sizes += [(len(tokens), True)] if "+" in chunk else [(1, False)] * len(tokens)
        rows.append([*sizes, (1, False)])
    most = -(-max(len(sizes) for sizes in rows) // pad_to_multiple_of) * pad_to_multiple_of
    place = torch.full(attention_mask.shape, most)
    mask = torch.zeros(len(rows), most, dtype=torch.long)
    summed = torch.zeros(len(rows), most, dtype=torch.bool)
    for row, sizes in enumerate(rows):
        places = [at for at, (count, _) in enumerate(sizes) for _ in range(count)]
        if len(places) != attention_mask[row].sum():
            raise ValueError(f"{texts[row]!r} has {attention_mask[row].sum()} tokens, and its words are {len(places)}.")
        place[row, : len(places)] = torch.tensor(places)
        mask[row, : len(sizes)] = 1
        summed[row, : len(sizes)] = torch.tensor([word_sum for _, word_sum in sizes])
    return WordSums(place, mask, summed)


def add_up(
    words: Tensor,
    sums: WordSums,
    generator: torch.Generator,
    noise_scale: float = 1.0,
    noise: float | None = None,
    longest: float = 1.0,
) -> Tensor:
    """Word embeddings [B,T,D] -> [B,P,D]: joined words summed to the length of one word, with `NOISE` and `SPREAD`.

    noise_scale  how far up `NOISE` goes: 0 for the least always, 1 for all of it
    noise        noise of exactly this length, in lengths of a word embedding, and no `SPREAD`: to measure
    longest      all word sums of an example are made up to so many times as long
    """
    batch, _, width = words.shape
    size = (batch, sums.mask.shape[1] + 1, width)
    summed = words.new_zeros(size).scatter_add(1, sums.place[:, :, None].expand_as(words), words)[:, :-1]
    ones = words.new_ones(sums.place.shape)
    counts = words.new_zeros(size[:2]).scatter_add(1, sums.place, ones)[:, :-1].clamp_min(1)
    summed = summed / counts.sqrt()[:, :, None]
    word = words.detach().norm(dim=-1).mean()
    if noise is None:
        least, most = NOISE
        length = least * (most / least) ** (noise_scale * torch.rand(batch, 1, 1, generator=generator).to(words))
        spread = SPREAD
    else:
        length, spread = noise, 0.0
    added = torch.randn(summed.shape, generator=generator).to(words) * length * word / width**0.5
    stretch = (torch.randn(summed.shape[:2], generator=generator).to(words) * spread).exp()[:, :, None]
    if longest > 1:
        stretch = stretch * longest ** torch.rand(batch, 1, 1, generator=generator).to(words)
    return torch.where(sums.summed[:, :, None], (summed + added) * stretch, summed)
