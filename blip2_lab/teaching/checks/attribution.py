"""Checks of notebook 09, first half: attention followed through layers, and weighted by its gradient.

The maps have a few entries, so that every answer can be computed by hand.

Paper: none (Abnar and Zuidema, 2020; Chefer et al., 2021). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.interpret import attribution
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import strangest_sum
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of


def _rows(*shape: int, seed: int = 0) -> Tensor:
    """Rows that sum to 1."""
    return (2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).softmax(dim=-1)


# --- Rollout --------------------------------------------------------------------------------------------------------


def _rollout_cases() -> list[Case]:
    turn = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])[None, None]
    return [
        Case("one layer, one head: every token reads the next", (turn,)),
        Case("two layers, one head", (torch.cat([turn, _rows(1, 1, 3, 3)]),)),
        Case("three layers of two heads", (_rows(3, 2, 4, 4, seed=1),)),
    ]


def _rollout_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Whether rows still sum to 1."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    if not torch.allclose(got.sum(1), torch.ones(len(got)), atol=1e-3):
        return f"Rows do not sum to 1 ({strangest_sum(got)}): each layer is (A + I) / 2."
    if case.args[0].shape[:2] == (1, 1):
        own = float(got.diagonal().mean())  # this layer's own diagonal is 0
        return f"The residual has the share {own:.2f} and the attention {1 - own:.2f}: each layer is (A + I) / 2."
    return "Rows sum to 1, but the shares are others: check the order of the layers and how heads are put together."


def _roll(weights: Tensor, mix, start: Tensor | None = None) -> Tensor:
    rolled = torch.eye(weights.shape[-1]) if start is None else start
    for layer in weights.mean(dim=1):
        rolled = mix(layer, rolled)
    return rolled


def _half(layer: Tensor, rolled: Tensor) -> Tensor:
    return (layer + torch.eye(len(layer))) @ rolled / 2


@variants_of
def _rolled(
    *, maps: Callable[[Tensor], Tensor] = lambda weights: weights, mix: Callable[[Tensor, Tensor], Tensor] = _half
) -> Callable[[Tensor], Tensor]:
    """`roll_out` of other maps, or with another product."""
    return lambda weights: _roll(maps(weights), mix)


rollout = Check(
    name="rollout",
    solution=attribution.roll_out,
    cases=_rollout_cases,
    verified="Mean over heads, half residual, later layers on the left; rows still sum to 1.",
    mistakes={
        "The residual is missing: half of a layer's output is its input passed by. Mix each map with the identity.": (
            _rolled(mix=lambda layer, rolled: layer @ rolled)
        ),
        "The largest of the heads is taken, and made to sum to 1: take their mean.": (
            lambda weights: attribution.roll_out(F.normalize(weights.amax(dim=1, keepdim=True), p=1, dim=-1))
        ),
        "Rows no longer sum to 1: divide by 2 after adding the identity.": (
            _rolled(mix=lambda layer, rolled: (layer + torch.eye(len(layer))) @ rolled)
        ),
        "The order is turned around: a later layer reads what earlier layers have mixed, so it stands on the left.": (
            _rolled(mix=lambda layer, rolled: rolled @ (layer + torch.eye(len(layer))) / 2)
        ),
        "The layers are averaged; they work one after the other, so their matrices are multiplied.": (
            lambda weights: (weights.mean(dim=(0, 1)) + torch.eye(weights.shape[-1])) / 2
        ),
        "The heads are added: each mixes only its own part of the output. Take their mean.": (
            lambda weights: _roll(2 * weights if weights.shape[1] > 1 else weights, _half)
        ),
        "Rows and columns are exchanged: row i says what token i reads.": (
            _rolled(maps=lambda weights: weights.transpose(-1, -2))
        ),
        "The layers are added; they work one after the other, so their matrices are multiplied.": (
            lambda weights: sum((layer + torch.eye(len(layer))) / 2 for layer in weights.mean(dim=1))
        ),
        "Each head is rolled out by itself, and the results are averaged: take the mean over heads in each layer.": (
            lambda weights: torch.stack([_roll(weights[:, h : h + 1], _half) for h in range(weights.shape[1])]).mean(0)
        ),
        "The largest of the heads instead of their mean; that rows are made to sum to 1 again does not repair it.": (
            lambda weights: _roll(
                weights.amax(dim=1, keepdim=True),
                lambda layer, rolled: F.normalize(layer + torch.eye(len(layer)), p=1, dim=1) @ rolled,
            )
        ),
        "The columns are made to sum to 1: each layer is (A + I) / 2, and its rows sum to 1 by themselves.": (
            _rolled(mix=lambda layer, rolled: F.normalize(layer + torch.eye(len(layer)), p=1, dim=0) @ rolled)
        ),
        "The residual is the identity, not ones everywhere.": (
            _rolled(mix=lambda layer, rolled: (layer + 1) / 2 @ rolled)
        ),
        "Only the last layer is there: multiply all of them.": _rolled(maps=lambda weights: weights[-1:]),
        "Only the first layer is there: multiply all of them.": _rolled(maps=lambda weights: weights[:1]),
        "The last layer is left out.": _rolled(maps=lambda weights: weights[:-1]),
        "The first layer has no residual: each layer is (A + I) / 2.": (
            lambda weights: _roll(weights[1:], _half, weights[0].mean(0))
        ),
        "The identity is added to the product: it is mixed with each layer's map, (A + I) / 2, before the product.": (
            _rolled(mix=lambda layer, rolled: (layer @ rolled + torch.eye(len(layer))) / 2)
        ),
        "The identity is mixed with what was rolled so far, not with each layer's map: (A + I) / 2.": (
            _rolled(mix=lambda layer, rolled: layer @ (rolled + torch.eye(len(layer))) / 2)
        ),
        "The smallest of the heads instead of their mean.": (
            _rolled(maps=lambda weights: weights.amin(dim=1, keepdim=True))
        ),
        "The first layer is left out.": _rolled(maps=lambda weights: weights[1:]),
        "Only the first head is used: take the mean over heads.": _rolled(maps=lambda weights: weights[:, :1]),
        "The largest of the heads instead of their mean.": (
            _rolled(maps=lambda weights: weights.amax(dim=1, keepdim=True))
        ),
        "The residual is added once, at the end; it belongs to every layer.": (
            lambda weights: (_roll(weights, lambda layer, rolled: layer @ rolled) + torch.eye(weights.shape[-1])) / 2
        ),
        "The residual counts for all and the map for half: mix both with one half.": (
            _rolled(mix=lambda layer, rolled: (0.5 * layer + torch.eye(len(layer))) @ rolled / 1.5)
        ),
        "The matrices are multiplied element by element: use @.": (
            lambda weights: _roll(
                weights,
                lambda layer, rolled: (layer + torch.eye(len(layer))) / 2 * rolled,
                torch.ones(weights.shape[-1], weights.shape[-1]),
            )
        ),
        "The heads are multiplied as well: take their mean.": (
            lambda weights: _roll(weights.flatten(0, 1)[:, None], _half)
        ),
        "A map of each layer is returned; multiply them to one matrix.": (
            lambda weights: (weights.mean(1) + torch.eye(weights.shape[-1])) / 2
        ),
        "The rows are made to sum to 1 over columns (dim 0): rows are dim 1.": (
            lambda weights: _roll(weights, _half) / _roll(weights, _half).sum(0, keepdim=True)
        ),
    },
    rules=(_rollout_rules,),
)


# --- Gradient weighting ---------------------------------------------------------------------------------------------


def _gradient_cases() -> list[Case]:
    def gradient(*shape: int, seed: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    one = torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[2.0, -4.0, 8.0]]])
    two = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), torch.tensor([[[3.0, 1.0]], [[-3.0, 1.0]]])
    return [
        Case("one head, one query, three patches", one),
        Case("two heads: one speaks for the patch, one against it", two),
        Case("three heads, four queries, five patches", (_rows(3, 4, 5), gradient(3, 4, 5, seed=2))),
    ]


def _negative_weighting(case: Case, got: object, expected: Tensor) -> str | None:
    if isinstance(got, Tensor) and got.shape == expected.shape and bool((got < 0).any()):
        return "There are negative numbers: what speaks against the score must not count. clamp(min=0) each head."
    return None


gradient_weighting = Check(
    name="gradient_weighting",
    solution=attribution.gradient_weighted,
    cases=_gradient_cases,
    verified="Product, then positive part, then the mean over heads.",
    mistakes={
        "That is attention without its gradient: it does not know which score is to be explained.": (
            lambda weights, gradient: weights.mean(dim=0)
        ),
        "That is the gradient alone: a patch that is not read at all can have one. Multiply by the attention.": (
            lambda weights, gradient: gradient.clamp(min=0).mean(dim=0)
        ),
        "The mean over heads comes too early: heads that speak for and against cancel. First the positive part.": (
            lambda weights, gradient: (weights * gradient).mean(dim=0).clamp(min=0)
        ),
        "Negative parts are left in: evidence against the score would count as less evidence for it.": (
            lambda weights, gradient: (weights * gradient).mean(dim=0)
        ),
        "The size of the gradient is not enough, its sign matters: clamp at 0 instead of taking abs().": (
            lambda weights, gradient: (weights * gradient).abs().mean(dim=0)
        ),
        "The heads are added instead of averaged: with more heads every map would grow.": (
            lambda weights, gradient: (weights * gradient).clamp(min=0).sum(dim=0)
        ),
        "The positive part is taken of the gradient alone and heads are averaged one by one: average the products.": (
            lambda weights, gradient: weights.mean(0) * gradient.clamp(min=0).mean(0)
        ),
        "Averages are multiplied: multiply first, head by head.": (
            lambda weights, gradient: (weights.mean(0) * gradient.mean(0)).clamp(min=0)
        ),
        "The gradient is averaged over the patches first (as Grad-CAM does); weigh each patch with its own.": (
            lambda weights, gradient: (weights * gradient.mean(-1, keepdim=True)).clamp(min=0).mean(0)
        ),
        "Only what speaks *against* the score is left: clamp at min=0.": (
            lambda weights, gradient: (weights * gradient).clamp(max=0).mean(dim=0)
        ),
        "What speaks against is counted as what speaks for: the sign is turned.": (
            lambda weights, gradient: (-weights * gradient).clamp(min=0).mean(dim=0)
        ),
        "Attention and gradient are added: multiply them.": (
            lambda weights, gradient: (weights + gradient).clamp(min=0).mean(dim=0)
        ),
        "The largest head instead of the mean over heads.": (
            lambda weights, gradient: (weights * gradient).clamp(min=0).amax(dim=0)
        ),
        "The mean runs over the queries; it runs over heads, dim 0.": (
            lambda weights, gradient: (weights * gradient).clamp(min=0).mean(dim=1)
        ),
        "The mean runs over the patches; it runs over heads, dim 0.": (
            lambda weights, gradient: (weights * gradient).clamp(min=0).mean(dim=-1)
        ),
        "The heads are not averaged yet.": lambda weights, gradient: (weights * gradient).clamp(min=0),
        "Rows are made to sum to 1: the map is asked for as it is.": (
            lambda weights, gradient: torch.nn.functional.normalize(
                (weights * gradient).clamp(min=0).mean(dim=0), p=1, dim=-1
            )
        ),
        "Only the first head is used.": lambda weights, gradient: (weights * gradient).clamp(min=0)[0],
        "Only the sign of the gradient is used: multiply by its size, too.": (
            lambda weights, gradient: (weights * gradient.sign().clamp(min=0)).mean(0)
        ),
        "A softmax of the gradient is no part of it: multiply by the gradient, and keep the positive part.": (
            lambda weights, gradient: (weights * gradient.softmax(-1)).mean(0)
        ),
        "Only the heads that speak for a patch are averaged: divide by the number of all heads.": (
            lambda weights, gradient: (
                (weights * gradient).clamp(min=0).sum(0) / (weights * gradient > 0).sum(0).clamp(min=1)
            )
        ),
        "The gradient is squared.": lambda weights, gradient: (weights * gradient.square()).mean(0),
        "A softmax over the patches is no part of it.": (
            lambda weights, gradient: (weights * gradient).clamp(min=0).mean(dim=0).softmax(-1)
        ),
    },
    rules=(_negative_weighting,),
)
