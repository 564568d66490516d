"""Checks of notebook 07: image-grounded text generation, its labels, its loss, its cache.

Paper: section 3.2 (ITG). Notebook: 07.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models import masks
from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.losses import itg_loss
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.qformer import KeysValues
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.exercise import Case, learning
from blip2_lab.teaching.checks.in_words import format_value
from blip2_lab.teaching.checks.masks import misreadings
from blip2_lab.teaching.checks.variants import variants_of

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
    other = torch.tensor([[4, 6, PAD, 8, 5], [4, 6, 5, 1, 1]])
    lengths = torch.arange(5) < torch.tensor([[5], [3]])
    return [
        Case("[CLS] 5 [SEP], with [CLS] = 2, [SEP] = 3, [DEC] = 9", (short, short != PAD, DEC)),
        Case("[CLS] 5 6 [SEP] and [CLS] 7 [SEP] [PAD]", (padded, padded != PAD, DEC)),
        Case("another tokenizer: [CLS] = 4, [SEP] = 5, [PAD] = 1, a word with id 0, [DEC] = 7", (other, lengths, 7)),
    ]


@variants_of
def _itg(*, start: str = "dec", shift: int = 1, padding: bool = True, last: bool = True) -> Callable:
    """`inputs_and_labels` with one thing done differently; where a label is hidden, `last` tells [SEP]."""

    def wrong(input_ids: Tensor, text_mask: Tensor, decode_token_id: int) -> tuple[Tensor, Tensor]:
        dec = torch.full_like(input_ids[:, :1], decode_token_id)
        read = {"dec": torch.cat([dec, input_ids[:, 1:]], 1), "cls": input_ids, "both": torch.cat([dec, input_ids], 1)}
        labels = input_ids.masked_fill(~text_mask, IGNORE_INDEX) if padding else input_ids
        if not last:
            end = text_mask.sum(dim=1, keepdim=True) - 1
            labels = labels.scatter(1, end, IGNORE_INDEX)
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
        "What is read is shifted: read all but the last column, with [DEC] in the first one's place.": (
            lambda ids, mask, dec: (F.pad(ids[:, 2:], (1, 0), value=dec), inputs_and_labels(ids, mask, dec)[1])
        ),
        "[CLS] still stands in front. [DEC] takes its place and says: write.": _itg(start="cls"),
        "[DEC] is put in front of [CLS]; it takes its place.": _itg(start="both"),
        "[DEC] is put in front of [CLS], which stays, and the labels still have [CLS]: [DEC] takes its place, so there "
        "are T - 1 places.": (
            lambda ids, mask, dec: (F.pad(ids[:, :-1], (1, 0), value=dec), ids.masked_fill(~mask, IGNORE_INDEX))
        ),
        "The labels are not shifted: each place would only have to copy what it reads.": _itg(shift=0),
        "Shifted once too often: the place that reads word t is to write word t + 1, not t + 2.": _itg(shift=2),
        "Padding is counted: it would be learned as a word. Its label is IGNORE_INDEX.": _itg(padding=False),
        "[SEP] is never written: then a caption would never end.": _itg(last=False),
        "Padding is recognized by its id 0. Another tokenizer pads with another id: use text_mask.": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0],
                ids[:, 1:].masked_fill(ids[:, 1:] == 0, IGNORE_INDEX),
            )
        ),
        "The mask is not shifted along with the labels: text_mask[:, 1:].": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0],
                ids[:, 1:].masked_fill(~mask[:, :-1], IGNORE_INDEX),
            )
        ),
        "The mask is upside down: the words are hidden and the padding is learned.": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0],
                ids[:, 1:].masked_fill(mask[:, 1:], IGNORE_INDEX),
            )
        ),
        "Padding is labeled 0, which is a word; its label is IGNORE_INDEX (-100).": (
            lambda ids, mask, dec: (inputs_and_labels(ids, mask, dec)[0], ids[:, 1:].masked_fill(~mask[:, 1:], 0))
        ),
        "Padding is recognized by its id. A word may have a small id, or the padding's: use text_mask.": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0],
                ids[:, 1:].masked_fill(ids[:, 1:] <= 1, IGNORE_INDEX),
            )
        ),
        "What is read is shifted as well, and [DEC] is not in it: read all but the last, with [DEC] in front.": (
            lambda ids, mask, dec: (ids[:, 1:], inputs_and_labels(ids, mask, dec)[1])
        ),
        "Padding is labeled -1; its label is IGNORE_INDEX (-100).": (
            lambda ids, mask, dec: (inputs_and_labels(ids, mask, dec)[0], ids[:, 1:].masked_fill(~mask[:, 1:], -1))
        ),
        "Nothing is left out: both are T long, and should be T - 1 (all but the last, all but the first).": (
            lambda ids, mask, dec: (
                torch.cat([torch.full_like(ids[:, :1], dec), ids[:, 1:]], 1),
                ids.masked_fill(~mask, IGNORE_INDEX),
            )
        ),
        "[DEC] stands in place of every token.": (
            lambda ids, mask, dec: (torch.full_like(ids[:, 1:], dec), inputs_and_labels(ids, mask, dec)[1])
        ),
        "[DEC] replaces the first word; it takes [CLS]'s place.": (
            lambda ids, mask, dec: (
                torch.cat([ids[:, :1], torch.full_like(ids[:, :1], dec), ids[:, 2:]], 1)[:, :-1],
                inputs_and_labels(ids, mask, dec)[1],
            )
        ),
        "Only the first caption begins with [DEC]: all rows do.": (
            lambda ids, mask, dec: (
                torch.cat([inputs_and_labels(ids, mask, dec)[0][:1], ids[1:, :-1]]),
                inputs_and_labels(ids, mask, dec)[1],
            )
        ),
        "[CLS] is dropped and [DEC] put in front, but [SEP] is read as well: read all but the last column.": (
            lambda ids, mask, dec: (
                torch.cat([torch.full_like(ids[:, :1], dec), ids[:, 1:]], 1),
                inputs_and_labels(ids, mask, dec)[1],
            )
        ),
        "The labels begin with [DEC]: they are what is to be written, without [DEC].": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0],
                torch.cat([torch.full_like(ids[:, :1], dec), ids[:, 1:]], 1)[:, :-1].masked_fill(
                    ~mask[:, :-1], IGNORE_INDEX
                ),
            )
        ),
        "IGNORE_INDEX stands in what is read: it is no token; only labels have it.": (
            lambda ids, mask, dec: (
                inputs_and_labels(ids, mask, dec)[0].masked_fill(~mask[:, :-1], IGNORE_INDEX),
                inputs_and_labels(ids, mask, dec)[1],
            )
        ),
    },
    parts=("decoder_ids", "labels"),
)


def next_word_loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """logits [B, T, V], labels long[B, T] already shifted, IGNORE_INDEX not counted -> the mean over real targets."""
    return itg_loss(logits, labels, label_smoothing=0.0)


def _loss_cases() -> list[Case]:
    logits = 2 * torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    made = []
    for description, some, labels in (
        ("1 caption of 2 words, 5 words known", logits[:1, :2], [[1, 4]]),
        ("captions of 3 words and of 1 word", logits, [[1, 4, 3], [2, IGNORE_INDEX, IGNORE_INDEX]]),
        ("captions of 2 words, one with the word 0", logits.flip(0), [[0, 4, IGNORE_INDEX], [2, 1, IGNORE_INDEX]]),
    ):
        leaf, used = learning(some)
        made.append(Case(description, (used, torch.tensor(labels)), {"the logits": leaf}))
    return made


def _each(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss at every position, [B, T], 0 where the label is ignored."""
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")


def _words(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and one-hot labels [W, V] of the words that are there."""
    real = labels != IGNORE_INDEX
    return logits[real], F.one_hot(labels[real], logits.shape[-1]).float()


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
        "Averaged within each place first: then a word in a place that few captions reach counts for more.": (
            lambda logits, labels: (_each(logits, labels).sum(0) / (labels != IGNORE_INDEX).sum(0)).nanmean()
        ),
        "Padding is counted as word 0.": lambda logits, labels: _each(logits, labels.clamp_min(0)).mean(),
        "Labels are smoothed (itg_loss does so by default): this exercise asks for none.": itg_loss,
        "There is a softmax before cross_entropy, which takes one itself.": (
            lambda logits, labels: itg_loss(logits.softmax(-1), labels, label_smoothing=0.0)
        ),
        "Only the last word of each caption counts: all words that are there do.": (
            lambda logits, labels: torch.stack(
                [each[real][-1] for each, real in zip(_each(logits, labels), labels >= 0, strict=True)]
            ).mean()
        ),
        "Divided by the number of captions: take the mean over all words.": (
            lambda logits, labels: _each(logits, labels).sum() / len(labels)
        ),
        "Divided by the longest caption's length: take the mean over all words that are there.": (
            lambda logits, labels: _each(logits, labels).sum() / labels.shape[1]
        ),
        "One loss for each place: take the mean over the words.": _each,
        "One loss for each caption: take the mean over all words of the batch.": (
            lambda logits, labels: _each(logits, labels).sum(1) / (labels != IGNORE_INDEX).sum(1)
        ),
        "The word with id 0 is left out, too: only IGNORE_INDEX is.": (
            lambda logits, labels: (
                _each(logits, labels.masked_fill(labels == 0, IGNORE_INDEX)).sum() / (labels > 0).sum()
            )
        ),
        "The sign is turned: the loss is minus the logarithm of the probability.": (
            lambda logits, labels: -itg_loss(logits, labels, label_smoothing=0.0)
        ),
        "The perplexity (exp of the loss) is returned.": (
            lambda logits, labels: itg_loss(logits, labels, label_smoothing=0.0).exp()
        ),
        "The logarithm is taken to base 2; cross-entropy takes the natural one.": (
            lambda logits, labels: itg_loss(logits, labels, label_smoothing=0.0) / math.log(2)
        ),
        "Only the first word of each caption is counted.": (
            lambda logits, labels: itg_loss(logits[:, :1], labels[:, :1], label_smoothing=0.0)
        ),
        "The last place of each caption is left out: all places that are there count.": (
            lambda logits, labels: itg_loss(logits[:, :-1], labels[:, :-1], label_smoothing=0.0)
        ),
        "The first word of each caption is left out: all words that are there count.": (
            lambda logits, labels: itg_loss(logits[:, 1:], labels[:, 1:], label_smoothing=0.0)
        ),
        "`view` or `reshape` cannot turn [B, T, V] into [B, V, T]: it mixes places and words. Use transpose(1, 2).": (
            lambda logits, labels: F.cross_entropy(
                logits.reshape(len(logits), logits.shape[2], logits.shape[1]), labels, ignore_index=IGNORE_INDEX
            )
        ),
        "The logarithm of the mean probability: take the mean of the words' logarithms.": (
            lambda logits, labels: (
                -logits.softmax(-1)
                .gather(-1, labels.clamp_min(0)[..., None])[..., 0][labels != IGNORE_INDEX]
                .mean()
                .log()
            )
        ),
        "The mean of the probabilities: the loss is the mean of minus their logarithms.": (
            lambda logits, labels: (
                logits.softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0][labels != IGNORE_INDEX].mean()
            )
        ),
        "The share of words that are the likeliest (accuracy) is returned: cross-entropy is asked for.": (
            lambda logits, labels: (logits.argmax(-1) == labels)[labels != IGNORE_INDEX].float().mean()
        ),
        "Only the last place is counted.": (lambda logits, labels: _each(logits, labels)[:, -1].mean()),
        "Logits as they are: cross-entropy takes the logarithm of their softmax.": (
            lambda logits, labels: (
                -logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0][labels != IGNORE_INDEX].mean()
            )
        ),
        "The softmax runs over the places, not over the vocabulary.": (
            lambda logits, labels: (
                -logits.log_softmax(1).gather(-1, labels.clamp_min(0)[..., None])[..., 0][labels != IGNORE_INDEX].mean()
            )
        ),
        "Shifted again: these labels are shifted already.": (
            lambda logits, labels: itg_loss(logits[:, :-1], labels[:, 1:], label_smoothing=0.0)
        ),
        "The largest loss of all words is returned: take their mean.": lambda logits, labels: _each(
            logits, labels
        ).max(),
        "The mean of each caption is added up: take the mean over all words.": (
            lambda logits, labels: (_each(logits, labels).sum(1) / (labels != IGNORE_INDEX).sum(1)).sum()
        ),
        "Shifted the wrong way: these labels are shifted already.": (
            lambda logits, labels: itg_loss(logits[:, 1:], labels[:, :-1], label_smoothing=0.0)
        ),
        "That is a yes-or-no loss for each word (sigmoid); cross-entropy chooses one of the vocabulary (softmax).": (
            lambda logits, labels: F.binary_cross_entropy_with_logits(*_words(logits, labels))
        ),
        "That is a squared error of probabilities: cross-entropy takes their logarithm.": (
            lambda logits, labels: F.mse_loss(_words(logits, labels)[0].softmax(-1), _words(logits, labels)[1])
        ),
        "That is the share of words that are not the likeliest: cross-entropy takes the logarithm of probabilities.": (
            lambda logits, labels: (logits.argmax(-1) != labels)[labels != IGNORE_INDEX].float().mean()
        ),
        "There is a softmax over the places before cross_entropy, which takes one over the vocabulary.": (
            lambda logits, labels: itg_loss(logits.log_softmax(1), labels, label_smoothing=0.0)
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
    if not isinstance(got, Tensor) or got.ndim != 4 or got.shape[1] != 1 or not len(got):
        return f"input: {case.description}\nyours:\n{format_value(got)}"
    differs = (got != expected).flatten(1).any(1) if got.shape == expected.shape else torch.zeros(1)
    first = int(differs.int().argmax())

    def drawn(mask: Tensor) -> str:
        return "\n".join("  " + " ".join(str(int(x)) for x in row) for row in mask[first, 0])

    header = "  " + " ".join(names)
    return f"input: {case.description}\nyours:\n{header}\n{drawn(got)}\nthe library's:\n{header}\n{drawn(expected)}"


def _text_rows_rule(case: Case, got: object, expected: Tensor) -> str | None:
    """Who reads whom, for a mask that makes none of the known mistakes."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != torch.bool:
        return None
    return misreadings(got, expected, *case.args)


text_rows = Check(
    "text_rows",
    rows_after_queries,
    lambda: [
        Case("2 queries, 2 tokens", (2, torch.tensor([[True, True]]))),
        Case("2 queries, 3 tokens, the last is padding", (2, torch.tensor([[True, True, False]]))),
        Case("4 queries, 2 tokens", (4, torch.tensor([[True, True]]))),
        Case("3 queries, 2 captions of 4 and 2 tokens", (3, torch.tensor([[True] * 4, [True, True, False, False]]))),
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
        "Padding is forgotten: columns of padding must be hidden from every row.": (
            lambda q, text: rows_after_queries(q, torch.ones_like(text))
        ),
        "The rows of padding are hidden, too; hide columns only.": (
            lambda q, text: rows_after_queries(q, text) & text[:, None, :, None]
        ),
        "A token does not read itself: up to itself, itself included.": (
            lambda q, text: rows_after_queries(q, text) & ~F.pad(torch.eye(text.shape[1]), (q, 0)).bool()
        ),
        "Only the queries are read: a token reads the tokens before it, too.": (
            lambda q, text: rows_after_queries(q, text) & (torch.arange(q + text.shape[1]) < q)
        ),
        "The queries' columns stand behind the text's; the cache stands in front.": (
            lambda q, text: rows_after_queries(q, text).roll(-q, -1)
        ),
        "Causal from the first query on: the places of the text begin at Q, so row t reads Q + t + 1 columns.": (
            lambda q, text: (
                torch.ones(text.shape[1], q + text.shape[1]).tril().bool()[None, None]
                & F.pad(text, (q, 0), value=True)[:, None, None]
            )
        ),
        "True and False are swapped: True means `may attend`.": lambda q, text: ~rows_after_queries(q, text),
        "Rows and columns are swapped.": lambda q, text: rows_after_queries(q, text).mT,
        "The head dimension is missing: [B, 1, T, Q + T].": lambda q, text: rows_after_queries(q, text)[:, 0],
        "The mask is a number, not a bool.": lambda q, text: rows_after_queries(q, text).float(),
        "The queries' rows are kept and the text's thrown away.": (
            lambda q, text: masks.multimodal_causal_mask(q, text)[:, :, :q]
        ),
        "The queries are hidden like padding: every one of them may be read.": (
            lambda q, text: rows_after_queries(q, text) & (torch.arange(q + text.shape[1]) >= 1)
        ),
    },
    rules=(_text_rows_rule,),
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
        memory = torch.randn(2, 4, 4)
    made = []
    for batch, length in ((1, 1), (2, 3)):
        past = tuple(part.detach().clone() for part in attention.keys_values(memory[:batch, :length]))
        x = memory[:batch, length : length + 1].clone()
        made.append(Case(f"{batch} row(s), {length} token(s) cached, one is new", (attention, x, past)))
    return made


@variants_of
def _cached(
    *, order: int = 1, keep: str = "all", dim: int = 2, read: str = "all", swap: bool = False, residual: int = 0,
    change: Callable[[Tensor], Tensor] = lambda output: output,
) -> Callable:  # fmt: skip
    """`one_cached_step` with one thing done differently."""

    def wrong(attention: MultiHeadAttention, x: Tensor, past: KeysValues) -> tuple[Tensor, KeysValues]:
        new = attention.keys_values(x)
        both = tuple(torch.cat([old, own][::order], dim=dim) for old, own in zip(past, new, strict=True))
        twice = tuple(torch.cat([part, own], dim=2) for part, own in zip(both, new, strict=True))
        source = {"all": both, "past": past, "new": new, "twice": twice}[read]
        output = change(attention(x, *(source[::-1] if swap else source)) + residual * x)
        if keep == "mixed":
            return output, (both[0], past[1])
        return output, {"all": both, "past": past, "new": new}[keep]

    return wrong


def _cache_rules(case: Case, got: object, expected: tuple) -> str | None:
    """Which part differs: what was read, or what is kept."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    if equal(got[1], expected[1]) and isinstance(got[0], Tensor) and got[0].shape == expected[0].shape:
        return "The cache is right; what x has read is not: attention(x, keys, values) over all of them."
    if equal(got[0], expected[0]):
        return "What x has read is right; the keys and values you return for the next step are not."
    return None


def _appended_twice(attention: MultiHeadAttention, x: Tensor, past: KeysValues) -> tuple[Tensor, KeysValues]:
    output, (keys, values) = one_cached_step(attention, x, past)
    again = keys[:, :, -1:], values[:, :, -1:]
    keys, values = torch.cat([keys, again[0]], dim=2), torch.cat([values, again[1]], dim=2)
    return attention(x, keys, values), (keys, values)


def _forgets(kept: slice) -> Callable:
    return lambda attention, x, past: one_cached_step(attention, x, tuple(part[:, :, kept] for part in past))


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
        "Keys and values are exchanged when attending.": _cached(swap=True),
        "The new token is appended twice: its keys and values are in the row already.": _cached(read="twice"),
        "x is added: the residual connection stands outside of this step.": _cached(residual=1),
        "Old keys and values are exchanged with each other.": (
            lambda attention, x, past: one_cached_step(attention, x, past[::-1])
        ),
        "Only the keys are kept for the next step: the values have to be appended, too.": _cached(keep="mixed"),
        "The cache is returned in the wrong order: (keys, values).": (
            lambda attention, x, past: (
                one_cached_step(attention, x, past)[0],
                one_cached_step(attention, x, past)[1][::-1],
            )
        ),
        "The output has lost a dimension: [B, 1, D].": _cached(change=lambda output: output[:, 0]),
        "Return two things: what x has read, and the pair (keys, values).": (
            lambda attention, x, past: (one_cached_step(attention, x, past)[0], *one_cached_step(attention, x, past)[1])
        ),
        "The cache is not returned.": lambda attention, x, past: one_cached_step(attention, x, past)[0],
        "The output is returned last; it comes first.": (
            lambda attention, x, past: one_cached_step(attention, x, past)[::-1]
        ),
        "The new token is appended twice, for this step and for the next one: once.": _appended_twice,
        "The first token of the cache is lost: append to all of it.": _forgets(slice(1, None)),
        "The last token of the cache is overwritten: append behind it.": _forgets(slice(0, -1)),
        "Joined along the wrong dimension: keys are [B, H, P, D/H], tokens are dimension 2.": _cached(dim=1),
    },
    rules=(_cache_rules,),
    parts=("what x has read", "(keys, values)"),
)
