"""Checks of notebook 07: image-grounded text generation, its labels, its loss, its cache.

Paper: section 3.2 (ITG). Notebook: 07.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models import masks
from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.losses import itg_loss
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.qformer import KeysValues
from blip2_lab.teaching.checks.check import Case, Check

# --- Inputs and labels ----------------------------------------------------------------------------------------------

PAD, CLS, SEP, DEC = 0, 2, 3, 9


def inputs_and_labels(input_ids: Tensor, text_mask: Tensor, decode_token_id: int) -> tuple[Tensor, Tensor]:
    """[CLS] a boat [SEP] -> input: [DEC] a boat, and labels: a boat [SEP].

    input_ids long[B, T], text_mask bool[B, T] -> decoder_ids and labels, long[B, T - 1]; padding is IGNORE_INDEX.
    """
    decoder_ids = input_ids[:, :-1].clone()
    decoder_ids[:, 0] = decode_token_id
    return decoder_ids, input_ids[:, 1:].masked_fill(~text_mask[:, 1:], IGNORE_INDEX)


def _text_cases() -> list[Case]:
    short = torch.tensor([[CLS, 5, SEP]])
    padded = torch.tensor([[CLS, 5, 6, SEP], [CLS, 7, SEP, PAD]])
    return [
        Case("[CLS] 5 [SEP], with [CLS] = 2, [SEP] = 3, [DEC] = 9", (short, short != PAD, DEC)),
        Case("[CLS] 5 6 [SEP] and [CLS] 7 [SEP] [PAD]", (padded, padded != PAD, DEC)),
    ]


def _itg(*, start: str = "dec", shift: int = 1, padding: bool = True, last: bool = True) -> Callable:
    """`inputs_and_labels` with one thing done differently."""

    def wrong(input_ids: Tensor, text_mask: Tensor, decode_token_id: int) -> tuple[Tensor, Tensor]:
        dec = torch.full_like(input_ids[:, :1], decode_token_id)
        read = {"dec": torch.cat([dec, input_ids[:, 1:]], 1), "cls": input_ids, "both": torch.cat([dec, input_ids], 1)}
        labels = input_ids.masked_fill(~text_mask, IGNORE_INDEX) if padding else input_ids
        if not last:
            labels = labels.masked_fill(labels == SEP, IGNORE_INDEX)
        labels = F.pad(labels, (0, 2), value=IGNORE_INDEX)
        length = input_ids.shape[1] - 1
        return read[start][:, :length], labels[:, shift : shift + length]

    return wrong


itg_inputs = Check(
    "itg_inputs",
    inputs_and_labels,
    _text_cases,
    "[DEC] in [CLS]'s place, every place is to write the next token, [SEP] is written, padding is not counted.",
    {
        "[CLS] still stands in front. [DEC] takes its place and says: write.": _itg(start="cls"),
        "[DEC] is put in front of [CLS]; it takes its place.": _itg(start="both"),
        "The labels are not shifted: each place would only have to copy what it reads.": _itg(shift=0),
        "Shifted once too often: the place that reads word t is to write word t + 1, not t + 2.": _itg(shift=2),
        "Padding is counted: it would be learned as a word. Its label is IGNORE_INDEX.": _itg(padding=False),
        "[SEP] is never written: then a caption would never end.": _itg(last=False),
    },
)


def next_word_loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """logits [B, T, V], labels long[B, T] already shifted, IGNORE_INDEX not counted -> the mean over real targets."""
    return itg_loss(logits, labels, label_smoothing=0.0)


def _loss_cases() -> list[Case]:
    logits = 2 * torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    return [
        Case("1 caption of 2 words, 5 words known", (logits[:1, :2], torch.tensor([[1, 4]]))),
        Case(
            "captions of 3 words and of 1 word",
            (logits, torch.tensor([[1, 4, 3], [2, IGNORE_INDEX, IGNORE_INDEX]])),
        ),
    ]


def _each(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss at every position, [B, T], 0 where the label is ignored."""
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")


next_word_loss = Check(
    "next_word_loss",
    next_word_loss_of,
    _loss_cases,
    "Cross-entropy, averaged over the words that are really there, all captions together.",
    {
        "Divided by all places, padding included: a batch with more padding would seem easier.": (
            lambda logits, labels: _each(logits, labels).mean()
        ),
        "The sum, not the mean: the loss would grow with the caption.": lambda logits, labels: _each(
            logits, labels
        ).sum(),
        "Averaged within each caption first: then a word of a short caption counts for more.": (
            lambda logits, labels: (_each(logits, labels).sum(1) / (labels != IGNORE_INDEX).sum(1)).mean()
        ),
        "Padding is counted as word 0.": lambda logits, labels: _each(logits, labels.clamp_min(0)).mean(),
        "Shifted again: these labels are shifted already.": (
            lambda logits, labels: itg_loss(logits[:, :-1], labels[:, 1:], label_smoothing=0.0)
        ),
        "The mean of minus the probabilities: take their logarithm.": (
            lambda logits, labels: (
                -logits.softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0][labels != IGNORE_INDEX].mean()
            )
        ),
    },
)

# --- The mask of a text pass whose queries are cached ---------------------------------------------------------------


def rows_after_queries(num_query_tokens: int, text_mask: Tensor) -> Tensor:
    """text_mask bool[B, T] -> bool[B, 1, T, Q + T]: the mask of the text rows, with the queries' columns first."""
    return masks.multimodal_causal_mask(num_query_tokens, text_mask)[:, :, num_query_tokens:]


def _text_rows_show(case: Case, got: Tensor, expected: Tensor) -> str:
    names = ["q"] * case.args[0] + ["t"] * case.args[1].shape[1]
    if not isinstance(got, Tensor) or got.ndim != 4 or got.shape[1] != 1:
        return f"input: {case.description}"
    first = 0 if got.shape != expected.shape else int((got != expected).flatten(1).any(1).nonzero()[0])

    def drawn(mask: Tensor) -> str:
        return "\n".join("  " + " ".join(str(int(x)) for x in row) for row in mask[first, 0])

    header = "  " + " ".join(names)
    return f"input: {case.description}\nyours:\n{header}\n{drawn(got)}\nthe library's:\n{header}\n{drawn(expected)}"


text_rows = Check(
    "text_rows",
    rows_after_queries,
    lambda: [
        Case("2 queries, 2 tokens", (2, torch.tensor([[True, True]]))),
        Case("2 queries, 3 tokens, the last is padding", (2, torch.tensor([[True, True, False]]))),
    ],
    "T rows and Q + T columns: all cached queries, then the tokens up to oneself, no padding.",
    {
        "The queries' rows are still there. They were computed in the pass before: keep the text's rows.": (
            masks.multimodal_causal_mask
        ),
        "The queries' columns are gone. Their keys stand in front of the text's, and the text may read them.": (
            lambda q, text: masks.multimodal_causal_mask(0, text)
        ),
        "Those are the first rows; the text's rows are the last.": (
            lambda q, text: masks.multimodal_causal_mask(q, text)[:, :, : text.shape[1]]
        ),
        "The text does not read the queries: then it writes without an image.": (
            lambda q, text: rows_after_queries(q, text) & masks.unimodal_mask(q, text)[:, :, q:]
        ),
        "Later tokens can be read: the word to be written is known already.": (
            lambda q, text: masks.bidirectional_mask(q, text)[:, :, q:]
        ),
    },
    show=_text_rows_show,
)

# --- One step with a cache ------------------------------------------------------------------------------------------


def one_cached_step(attention: MultiHeadAttention, x: Tensor, past: KeysValues) -> tuple[Tensor, KeysValues]:
    """x [B, 1, D], the new token; past: keys and values [B, H, P, D/H] of all before it.

    -> what the token has read [B, 1, D], and keys and values [B, H, P + 1, D/H] for the next step.
    """
    keys, values = attention.keys_values(x)
    keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
    return attention(x, keys, values), (keys, values)


def _cache_cases() -> list[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = MultiHeadAttention(4, 2).eval()
        memory = torch.randn(1, 4, 4)
    made = []
    for length in (1, 3):
        past = tuple(part.detach() for part in attention.keys_values(memory[:, :length]))
        made.append(Case(f"{length} token(s) cached, one is new", (attention, memory[:, length : length + 1], past)))
    return made


def _cached(*, order: int = 1, keep: str = "all", dim: int = 2, read: str = "all") -> Callable:
    """`one_cached_step` with one thing done differently."""

    def wrong(attention: MultiHeadAttention, x: Tensor, past: KeysValues) -> tuple[Tensor, KeysValues]:
        new = attention.keys_values(x)
        both = tuple(torch.cat([old, own][::order], dim=dim) for old, own in zip(past, new, strict=True))
        output = attention(x, *{"all": both, "past": past, "new": new}[read])
        return output, {"all": both, "past": past, "new": new}[keep]

    return wrong


cached_step = Check(
    "cached_step",
    one_cached_step,
    _cache_cases,
    "One new token reads everything before it and itself, and its keys and values are kept for the next.",
    {
        "The token does not read itself: append its own keys and values before attending.": _cached(read="past"),
        "The token reads only itself: the cache is not used.": _cached(read="new"),
        "What is returned is the old cache: the next token will not find this one.": _cached(keep="past"),
        "What is returned is only the new token's keys and values: the others are lost.": _cached(keep="new"),
        "The new token is put in front of the others. Without a mask the output is the same, but the next causal mask "
        "will hide the wrong ones: append at the end.": _cached(order=-1),
        "Joined along the wrong dimension: keys are [B, H, P, D/H], tokens are dimension 2.": _cached(dim=1),
    },
)
