"""Checks of notebook 05: image-text contrastive learning (ITC).

The solution of `itc_similarity` is the function of models/losses.py; that of `contrastive_loss` is here, without label
smoothing.

Paper: section 3.2. Notebook: 05.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models import losses
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of


def unit_vectors(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _cosines(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """[B, Q, M]"""
    return image_embeds @ text_embeds.T


def _similarity_cases() -> list[Case]:
    one = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0.6, 0.8]])
    two = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return [
        _embeds_case("1 image of 2 queries, 1 text", *one),
        _embeds_case("2 images of 2 queries, 2 texts", *two),
        _embeds_case("2 images of 3 queries, 4 texts", unit_vectors(2, 3, 5), unit_vectors(4, 5, seed=1)),
        _embeds_case(
            "every cosine is below 0", torch.tensor([[[-0.6, -0.8], [-1.0, 0.0]]]), torch.tensor([[1.0, 0.0]])
        ),
    ]


def _embeds_case(description: str, image: Tensor, text: Tensor, *more: float) -> Case:
    """Embeddings normalized from tensors that learn, so that normalizing them once more changes no gradient."""
    raw = {"the image embeddings": image.clone().requires_grad_(), "the text embeddings": text.clone().requires_grad_()}
    return Case(description, (*(F.normalize(leaf, dim=-1) for leaf in raw.values()), *more), raw)


itc_similarity = Check(
    "itc_similarity",
    losses.itc_similarity,
    _similarity_cases,
    "Each picture is as similar to a text as the best of its queries; [B, M], images in rows.",
    {
        "The mean over the queries instead of the max. One query that finds the text is enough; the others may look "
        "elsewhere.": lambda image, text: _cosines(image, text).mean(1),
        "The sum over the queries instead of the max.": lambda image, text: _cosines(image, text).sum(1),
        "The largest number of each place is taken over the queries: compare each query, then take the best cosine.": (
            lambda image, text: image.amax(1) @ text.T
        ),
        "Texts are in rows, images in columns: turn it.": lambda image, text: _cosines(image, text).amax(1).T,
        "One query is chosen for all texts: each text takes its own best query.": (
            lambda i, t: (i @ t.T)[torch.arange(len(i)), (i @ t.T).amax(2).argmax(1)]
        ),
        "Only the first query is used.": lambda image, text: _cosines(image, text)[:, 0],
        "The smallest instead of the largest.": lambda image, text: _cosines(image, text).amin(1),
        "The max runs over the texts. It runs over the queries.": lambda image, text: _cosines(image, text).amax(2),
        "Averaging the queries before comparing is not the best query's similarity.": (
            lambda image, text: F.normalize(image.mean(1), dim=-1) @ text.T
        ),
        "The largest *absolute* cosine: an opposite vector is not similar. No abs().": (
            lambda image, text: _cosines(image, text).abs().amax(1)
        ),
        "The squares of the cosines: an opposite vector is not similar.": (
            lambda image, text: _cosines(image, text).square().amax(1)
        ),
        "Only the last query is used.": lambda image, text: _cosines(image, text)[:, -1],
        "The best query's *number* is returned; its cosine is asked for: .max(dim=1).values.": (
            lambda image, text: _cosines(image, text).argmax(1)
        ),
        "`max(dim=1)` returns values and indices: take .values.": lambda image, text: _cosines(image, text).max(1),
        "The largest of all: take the max over the queries only, dim=1.": lambda image, text: _cosines(
            image, text
        ).max(),
        "The queries are not reduced yet: take the max over them, [B, M].": _cosines,
        "Each image is compared with its own text only: every image meets every text, [B, M].": (
            lambda image, text: torch.einsum("bqe,be->bq", image, text[: len(image)]).amax(1)
        ),
        "A soft maximum (logsumexp) is not the maximum.": lambda image, text: _cosines(image, text).logsumexp(1),
        "A mean weighted by a softmax is not the best query's cosine.": (
            lambda image, text: (_cosines(image, text).softmax(1) * _cosines(image, text)).sum(1)
        ),
        "That is a distance; the cosine is asked for.": lambda image, text: torch.cdist(image, text[None]).amin(1),
        "That is 1 minus the cosine.": lambda image, text: 1 - _cosines(image, text).amax(1),
        "One query is chosen for all texts of an image: take the max for each text.": (
            lambda image, text: torch.stack([c[c.sum(1).argmax()] for c in _cosines(image, text)])
        ),
        "Cosines below 0 are cut off.": lambda image, text: _cosines(image, text).amax(1).clamp(min=0),
    },
)


def contrastive_loss_of(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
    """image_embeds [B, Q, E], text_embeds [B, E], pair b with b -> ITC's loss, without label smoothing."""
    similarity = losses.itc_similarity(image_embeds, text_embeds) / temperature
    positives = torch.eye(len(similarity), dtype=torch.bool)
    return losses.itc_loss(similarity, similarity.T, positives, label_smoothing=0.0)


@variants_of
def _contrast(
    *, scale: Callable = lambda s, t: s / t, ways: tuple[int, ...] = (0, 1), share: float = 0.5,
    reduction: str = "mean", pool: Callable = lambda cosines: cosines.amax(1), smoothing: float = 0.0,
    shift: int = 0, unscaled: int | None = None, negatives_only: bool = False,
    targets: Callable[[Tensor], Tensor] = lambda own: own,
    before: Callable[[Tensor], Tensor] = lambda way: way,
) -> Callable:  # fmt: skip
    """`contrastive_loss_of` with one thing done differently."""

    def wrong(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
        similarity = scale(pool(_cosines(image_embeds, text_embeds)), temperature)
        own = targets((torch.arange(len(similarity)) + shift) % len(similarity))
        both = [similarity, similarity.T]
        if unscaled is not None:
            both[unscaled] = pool(_cosines(image_embeds, text_embeds)).mT if unscaled else both[0] * temperature
        both = [before(way) for way in both]
        if negatives_only:
            diagonal = torch.eye(len(similarity), dtype=torch.bool)
            both = [(way.diagonal() - way.masked_fill(diagonal, -torch.inf).logsumexp(1)) for way in both]
            return -sum(way.mean() for way in both) / 2
        options = {"reduction": reduction, "label_smoothing": smoothing}
        return sum(F.cross_entropy(both[way], own, **options) for way in ways) * share

    return wrong


def _losses_of_queries(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
    return torch.stack([
        contrastive_loss_of(image_embeds[:, q : q + 1], text_embeds, temperature) for q in range(image_embeds.shape[1])
    ])  # fmt: skip


def _best_share(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
    shares = (_cosines(image_embeds, text_embeds) / temperature).softmax(-1).amax(1)
    similarity = losses.itc_similarity(image_embeds, text_embeds) / temperature
    return -(shares.diagonal().log().mean() + similarity.T.log_softmax(-1).diagonal().mean()) / 2


def _probabilities(image_embeds: Tensor, text_embeds: Tensor, temperature: float) -> Tensor:
    return (losses.itc_similarity(image_embeds, text_embeds) / temperature).softmax(dim=1)


contrastive_loss = Check(
    "contrastive_loss",
    contrastive_loss_of,
    lambda: [
        _embeds_case(
            f"{n} pairs, 3 queries, temperature {t}", unit_vectors(n, 3, 4, seed=n), unit_vectors(n, 4, seed=9), t
        )
        for n, t in ((2, 0.5), (4, 0.07), (5, 1.0))
    ],
    "Cross-entropy over cosines / temperature, image to text and text to image, averaged.",
    {
        "The temperature is forgotten in one direction, image to text: divide both by it.": _contrast(unscaled=0),
        "The temperature is forgotten in one direction, text to image: divide both by it.": _contrast(unscaled=1),
        "Each query has a loss of its own, and these are averaged: take the best query's cosine, then one loss.": (
            lambda image, text, t: _losses_of_queries(image, text, t).mean()
        ),
        "Each query has a loss of its own, and the smallest is taken: each pair has a best query of its own, so take "
        "its cosine, then one loss.": lambda image, text, t: _losses_of_queries(image, text, t).min(),
        "The max over the queries comes after the softmax: first the best cosine, then the softmax over the texts.": (
            _best_share
        ),
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
        "The softmax runs over the whole matrix: each image chooses among the texts, and each text among the images.": (
            lambda image, text, t: (
                -(losses.itc_similarity(image, text) / t)
                .flatten()
                .log_softmax(0)
                .unflatten(0, (len(image), -1))
                .diagonal()
                .mean()
            )
        ),
        "Summed over the batch: average, so that the loss does not grow with the batch.": _contrast(reduction="sum"),
        "The mean over the queries instead of the max.": _contrast(pool=lambda cosines: cosines.mean(1)),
        "The other sign: cross-entropy is minus the logarithm of the right one's probability.": _contrast(share=-0.5),
        "There is a softmax before cross_entropy, which takes one itself: give it the similarities / temperature.": (
            _contrast(before=lambda way: way.softmax(1))
        ),
        "The temperature divides the loss; it belongs inside, under the similarities.": (
            lambda image, text, t: _contrast(scale=lambda s, t: s)(image, text, t) / t
        ),
        "The temperature multiplies the loss; it belongs inside, under the similarities.": (
            lambda image, text, t: contrastive_loss_of(image, text, t) * t
        ),
        "Labels are smoothed here; this exercise asks for none.": _contrast(smoothing=0.1),
        "Similarities are divided by the temperature twice.": _contrast(scale=lambda s, t: s / t**2),
        "Similarities are divided by the root of the temperature.": _contrast(scale=lambda s, t: s / t**0.5),
        "exp(temperature) is CLIP's logit_scale; here the temperature itself divides.": (
            _contrast(scale=lambda s, t: s * math.exp(t))
        ),
        "Divided by exp(temperature): divide by the temperature itself.": _contrast(scale=lambda s, t: s / math.exp(t)),
        "Summed over the batch and over the directions: take the mean of both.": _contrast(reduction="sum", share=1.0),
        "One loss for each pair: average over the batch to a scalar.": _contrast(reduction="none"),
        "The targets are shifted: row b belongs with column b.": _contrast(shift=1),
        "The target of every row is 0: row b belongs with column b.": _contrast(targets=torch.zeros_like),
        "The targets stand in the reverse order: row b belongs with column b.": _contrast(
            targets=lambda own: own.flip(0)
        ),
        "Two losses are returned, one for each direction: average them.": (
            lambda image, text, t: torch.stack([_contrast(ways=(way,), share=1.0)(image, text, t) for way in (0, 1)])
        ),
        "There is a softmax over the other direction before cross_entropy, which takes one itself.": _contrast(
            before=lambda way: way.log_softmax(0)
        ),
        "That is a squared error between similarities and 0 or 1; ITC is a cross-entropy.": (
            lambda image, text, t: F.mse_loss(losses.itc_similarity(image, text) / t, torch.eye(len(image)))
        ),
        "The right one is missing under the fraction: a softmax sums over all candidates, the right one included.": (
            _contrast(negatives_only=True)
        ),
        "The first query is used instead of the best one.": _contrast(pool=lambda cosines: cosines[:, 0]),
        "The probabilities are averaged, without a logarithm.": (
            lambda image, text, t: 1 - _probabilities(image, text, t).diagonal().mean()
        ),
        "The logarithm of the mean probability: take the mean of the pairs' logarithms.": (
            lambda image, text, t: (
                -sum(
                    (losses.itc_similarity(image, text) / t).softmax(dim).diagonal().mean().log() / 2 for dim in (0, 1)
                )
            )
        ),
        "Only the similarity of the right pairs: without the others there is no contrast.": (
            lambda image, text, t: -(losses.itc_similarity(image, text) / t).diagonal().mean()
        ),
        "That is a yes-or-no loss for each pair (sigmoid); ITC chooses one of the batch (softmax).": (
            lambda image, text, t: F.binary_cross_entropy_with_logits(
                losses.itc_similarity(image, text) / t, torch.eye(len(image))
            )
        ),
        "The logarithm is taken to base 2; cross-entropy takes the natural one.": (
            lambda image, text, t: contrastive_loss_of(image, text, t) / math.log(2)
        ),
        "Divided by the batch once more: cross_entropy has averaged already.": (
            lambda image, text, t: contrastive_loss_of(image, text, t) / len(image)
        ),
    },
)
