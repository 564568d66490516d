"""Checks of notebooks 05 and 06: image-text contrastive learning, and image-text matching with hard negatives.

The solutions are the functions of models/losses.py where these have the form of the exercise; the others are here.

Paper: section 3.2. Notebooks: 05, 06.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models import losses
from blip2_lab.teaching.checks.check import Case, Check


def _unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# --- ITC ------------------------------------------------------------------------------------------------------------


def _cosines(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """[B, Q, M]"""
    return image_embeds @ text_embeds.T


def _similarity_cases() -> list[Case]:
    one = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0.6, 0.8]])
    two = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return [
        Case("1 image of 2 queries, 1 text", one),
        Case("2 images of 2 queries, 2 texts", two),
        Case("2 images of 3 queries, 4 texts", (_unit(2, 3, 5), _unit(4, 5, seed=1))),
    ]


itc_similarity = Check(
    "itc_similarity",
    losses.itc_similarity,
    _similarity_cases,
    "Each picture is as similar to a text as the best of its queries; [B, M], images in rows.",
    {
        "The mean over the queries instead of the max. One query that finds the text is enough; the others may look "
        "elsewhere.": lambda image, text: _cosines(image, text).mean(1),
        "The sum over the queries instead of the max.": lambda image, text: _cosines(image, text).sum(1),
        "Texts are in rows, images in columns: turn it.": lambda image, text: _cosines(image, text).amax(1).T,
        "Only the first query is used.": lambda image, text: _cosines(image, text)[:, 0],
        "The smallest instead of the largest.": lambda image, text: _cosines(image, text).amin(1),
        "The max runs over the texts. It runs over the queries.": lambda image, text: _cosines(image, text).amax(2),
        "Averaging the queries before comparing is not the best query's similarity.": (
            lambda image, text: F.normalize(image.mean(1), dim=-1) @ text.T
        ),
    },
)


def contrastive_loss_of(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
    """image_embeds [B, Q, E], text_embeds [B, E], pair b with b -> ITC's loss, without label smoothing."""
    similarity = losses.itc_similarity(image_embeds, text_embeds) / temperature
    positives = torch.eye(len(similarity), dtype=torch.bool)
    return losses.itc_loss(similarity, similarity.T, positives, label_smoothing=0.0)


def _contrast(
    *, scale: Callable = lambda s, t: s / t, ways: tuple[int, ...] = (0, 1), share: float = 0.5,
    reduction: str = "mean", pool: Callable = lambda cosines: cosines.amax(1),
) -> Callable:  # fmt: skip
    """`contrastive_loss_of` with one thing done differently."""

    def wrong(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
        similarity = scale(pool(_cosines(image_embeds, text_embeds)), temperature)
        targets = torch.arange(len(similarity))
        both = similarity, similarity.T
        return sum(F.cross_entropy(both[way], targets, reduction=reduction) for way in ways) * share

    return wrong


contrastive_loss = Check(
    "contrastive_loss",
    contrastive_loss_of,
    lambda: [
        Case(f"{n} pairs, 3 queries, temperature {t}", (_unit(n, 3, 4, seed=n), _unit(n, 4, seed=9), t))
        for n, t in ((2, 0.5), (4, 0.07))
    ],
    "Cross-entropy over cosines / temperature, image to text and text to image, averaged.",
    {
        "The temperature is multiplied instead of divided by: all similarities become almost equal.": _contrast(
            scale=lambda s, t: s * t
        ),
        "The temperature is missing: cosines between -1 and 1 make a softmax that can never be sure.": _contrast(
            scale=lambda s, t: s
        ),
        "Only image to text. The texts choose among the images, too; average the two.": _contrast(ways=(0,), share=1.0),
        "Only text to image. The images choose among the texts, too; average the two.": _contrast(ways=(1,), share=1.0),
        "The two directions are added. The paper's ITC averages them, so that it weighs as much as ITM and ITG.": (
            _contrast(share=1.0)
        ),
        "Summed over the batch: average, so that the loss does not grow with the batch.": _contrast(reduction="sum"),
        "The mean over the queries instead of the max.": _contrast(pool=lambda cosines: cosines.mean(1)),
        "The other sign: cross-entropy is minus the logarithm of the right one's probability.": _contrast(share=-0.5),
    },
)

# --- Hard negatives -------------------------------------------------------------------------------------------------


def _negative_cases() -> list[Case]:
    three = torch.tensor([[9.0, 2.0, 1.0], [0.0, 9.0, 0.0], [3.0, 1.0, 9.0]])
    four = 3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    same_image = torch.tensor([0, 1, 0, 2])
    return [
        Case("3 pairs, similarity [[9, 2, 1], [0, 9, 0], [3, 1, 9]]", (three, torch.eye(3, dtype=torch.bool))),
        Case("4 pairs of which the first and third show the same image", (four, same_image[:, None] == same_image)),
    ]


def _weights_and_gradient(function: Callable, args: tuple) -> tuple[Tensor, bool]:
    similarity, positives = args
    weights = function(similarity.clone().requires_grad_(), positives)
    return (weights.detach(), weights.requires_grad) if isinstance(weights, Tensor) else weights


def _softmax(similarity: Tensor, positives: Tensor, sign: float = 1.0, dim: int = 1) -> Tensor:
    return (sign * similarity.detach()).masked_fill(positives, -10000.0).softmax(dim=dim)


negative_weights = Check(
    "negative_weights",
    losses.negative_weights,
    _negative_cases,
    "Similar wrong pairs are likely, true pairs (all of the same image) impossible, rows sum to 1, no gradient.",
    {
        "Positives are among the negatives: a true pair would be learned as a wrong one.": (
            lambda similarity, positives: similarity.detach().softmax(1)
        ),
        "Only the diagonal is excluded. Another caption of the same image is no negative either: use `positives`.": (
            lambda similarity, positives: _softmax(similarity, torch.eye(len(similarity), dtype=torch.bool))
        ),
        "The positives are taken out after the softmax: rows no longer sum to 1.": (
            lambda similarity, positives: similarity.detach().softmax(1).masked_fill(positives, 0.0)
        ),
        "All negatives are alike here. The more similar a wrong pair looks, the likelier it should be.": (
            lambda similarity, positives: F.normalize((~positives).float(), p=1, dim=1)
        ),
        "The easiest negatives are the likeliest: the sign is wrong.": (
            lambda similarity, positives: _softmax(similarity, positives, sign=-1.0)
        ),
        "Columns sum to 1 here; each row draws its own negative.": (
            lambda similarity, positives: _softmax(similarity, positives, dim=0)
        ),
        "A gradient flows through the weights. Drawing is no part of the loss: detach the similarity.": (
            lambda similarity, positives: similarity.masked_fill(positives, -10000.0).softmax(1)
        ),
    },
    run=_weights_and_gradient,
)

DRAWS = 400


def _frequencies(function: Callable, args: tuple) -> Tensor | object:
    """How often each row draws each candidate, [B, M]; or the return value, if it is not a long[B]."""
    similarity, positives = args
    generator = torch.Generator().manual_seed(1)
    draws = [function(similarity.clone(), positives.clone(), generator) for _ in range(DRAWS)]
    first = draws[0]
    if not isinstance(first, Tensor) or first.shape != similarity.shape[:1] or first.is_floating_point():
        return {"returned": first}
    return F.one_hot(torch.stack(draws), similarity.shape[1]).float().mean(0)


def _one_index_each(case: Case, got: object, expected: object) -> str | None:
    if isinstance(got, dict):
        return "Return long[B]: one index of a candidate for each row."
    return None


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)


sample_negatives = Check(
    "sample_negatives",
    losses.sample_negatives,
    _negative_cases,
    f"In {DRAWS} draws each candidate came up about as often as its weight says, a positive never.",
    {
        "Always the hardest negative. Draw instead: the hardest is often a true pair that nobody labeled.": (
            lambda s, p, g=None: s.masked_fill(p, -10000.0).argmax(1)
        ),
        "Drawn evenly. Draw with `negative_weights`: hard ones more often.": (
            lambda s, p, g=None: _draw((~p).float(), g)
        ),
        "Positives are drawn, too: a true pair would be learned as a wrong one.": (
            lambda s, p, g=None: _draw(s.softmax(1), g)
        ),
        "The shape is [B, 1]; make it [B], one number for each row.": (
            lambda s, p, g=None: torch.multinomial(losses.negative_weights(s, p), 1, generator=g)
        ),
        "The easiest negatives are drawn most: the sign is wrong.": lambda s, p, g=None: _draw(_softmax(s, p, -1.0), g),
        "Those are weights. Draw an index with them (torch.multinomial).": (
            lambda s, p, g=None: losses.negative_weights(s, p)
        ),
    },
    rules=(_one_index_each,),
    run=_frequencies,
    tolerance=0.09,
)

# --- ITM ------------------------------------------------------------------------------------------------------------


def pairs_for_matching(image_index: Tensor, text_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 3B pairs [true; wrong image; wrong text] as numbers of images, numbers of texts and labels, long[3B] each.

    image_index  long[B]: the wrong image drawn for text b
    text_index   long[B]: the wrong text drawn for image b
    """
    own = torch.arange(len(image_index))
    images, texts = torch.cat([own, image_index, own]), torch.cat([own, own, text_index])
    return images, texts, torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])


def _pairs(images: str, texts: str, labels: str) -> Callable:
    """Pairs put together from blocks: o own, i the wrong image, t the wrong text."""

    def wrong(image_index: Tensor, text_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        blocks = {"o": torch.arange(len(image_index)), "i": image_index, "t": text_index}
        ones = torch.ones_like(image_index)
        chosen = [torch.cat([blocks[name] for name in names]) for names in (images, texts)]
        return chosen[0], chosen[1], torch.cat([ones * int(label) for label in labels])

    return wrong


itm_pairs = Check(
    "itm_pairs",
    pairs_for_matching,
    lambda: [
        Case("2 pairs", (torch.tensor([1, 0]), torch.tensor([1, 0]))),
        Case("3 pairs", (torch.tensor([2, 2, 0]), torch.tensor([1, 0, 1]))),
    ],
    "3B pairs: all true ones, each text with a wrong image, each image with a wrong text; class 1 is a match.",
    {
        "The labels are upside down: class 1 is a match.": _pairs("oio", "oot", "011"),
        "The wrong image and the wrong text are put together in one pair; each goes with a right partner.": (
            _pairs("oi", "ot", "10")
        ),
        "The drawn numbers are swapped: image_index[b] is the wrong *image* for text b.": _pairs("oto", "ooi", "100"),
        "The true pairs are missing: the head would learn to say no.": _pairs("io", "ot", "00"),
        "Everything is called a match.": _pairs("oio", "oot", "111"),
        "The wrong texts are missing: two thirds of the pairs are wrong ones, half of them by the text.": (
            _pairs("oi", "oo", "10")
        ),
    },
)


def logits_over_queries(itm_head: nn.Module, query_output: Tensor) -> Tensor:
    """query_output [B, Q, D] -> [B, 2]: the logits of each query, averaged over the queries."""
    return itm_head(query_output).mean(dim=1)


def _itm_cases() -> list[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(4, 2)
    return [Case(f"{b} pairs, {q} queries", (head, _unit(b, q, 4, seed=q))) for b, q in ((1, 2), (2, 3))]


itm_logits = Check(
    "itm_logits",
    logits_over_queries,
    _itm_cases,
    "One two-way verdict for each pair, the mean over its queries (as `Stage1Model.itm_logits`).",
    {
        "The max over the queries. That is ITC; ITM averages: every query has seen the text and has a say.": (
            lambda head, z: head(z).amax(1)
        ),
        "Only the first query is asked.": lambda head, z: head(z)[:, 0],
        "The sum over the queries: with 32 of them the softmax is always sure.": lambda head, z: head(z).sum(1),
        "Those are probabilities. Cross-entropy wants logits: no softmax here.": lambda head, z: (
            head(z).mean(1).softmax(1)
        ),
        "The verdicts of the queries are not averaged yet.": lambda head, z: head(z),
    },
)
