"""Checks of notebook 09: attention followed through layers, weighted by its gradient, and scored.

The maps have a few entries, so that every answer can be computed by hand.

Paper: none (Abnar and Zuidema, 2020; Chefer et al., 2021; Zhang et al., 2016; Adebayo et al., 2018). Notebook: 09.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.interpret import attribution, grounding
from blip2_lab.teaching.checks.check import Case, Check

Box = tuple[float, float, float, float]


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


def _roll(weights: Tensor, mix, start: Tensor | None = None) -> Tensor:
    rolled = torch.eye(weights.shape[-1]) if start is None else start
    for layer in weights.mean(dim=1):
        rolled = mix(layer, rolled)
    return rolled


rollout = Check(
    name="rollout",
    solution=attribution.roll_out,
    cases=_rollout_cases,
    verified="Mean over heads, half residual, later layers on the left; rows still sum to 1.",
    mistakes={
        "The residual is missing: half of a layer's output is its input passed by. Mix each map with the identity.": (
            lambda weights: _roll(weights, lambda layer, rolled: layer @ rolled)
        ),
        "Rows no longer sum to 1: divide by 2 after adding the identity.": (
            lambda weights: _roll(weights, lambda layer, rolled: (layer + torch.eye(len(layer))) @ rolled)
        ),
        "The order is turned around: a later layer reads what earlier layers have mixed, so it stands on the left.": (
            lambda weights: _roll(weights, lambda layer, rolled: rolled @ (layer + torch.eye(len(layer))) / 2)
        ),
        "The layers are averaged; they work one after the other, so their matrices are multiplied.": (
            lambda weights: (weights.mean(dim=(0, 1)) + torch.eye(weights.shape[-1])) / 2
        ),
        "The heads are added: each mixes only its own part of the output. Take their mean.": (
            lambda weights: _roll(2 * weights if weights.shape[1] > 1 else weights, _half)
        ),
        "Rows and columns are exchanged: row i says what token i reads.": (
            lambda weights: _roll(weights.transpose(-1, -2), _half)
        ),
    },
)


def _half(layer: Tensor, rolled: Tensor) -> Tensor:
    return (layer + torch.eye(len(layer))) @ rolled / 2


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
    },
)


# --- Pointing game --------------------------------------------------------------------------------------------------


def _spot(row: int, column: int, value: float = 1.0, side: int = 4) -> Tensor:
    heat = torch.zeros(side, side)
    heat[row, column] = value
    return heat


def _pointing_cases() -> list[Case]:
    left_below: Box = (0.0, 0.5, 0.5, 1.0)
    return [
        Case("hot at the lower left, the box is there", (_spot(3, 0), left_below)),
        Case("hot at the upper right, the box is at the lower left", (_spot(0, 3), left_below)),
        Case("hot at the lower left, the box is at the upper right", (_spot(3, 0), (0.5, 0.0, 1.0, 0.5))),
        Case("nearly as hot outside", (_spot(3, 0) + _spot(0, 0, 0.9), left_below)),
        Case("less hot inside than outside", (_spot(3, 0, 0.9) + _spot(0, 0), left_below)),
        Case("strong evidence against outside", (_spot(3, 0) + _spot(0, 0, -5.0), left_below)),
        Case("the patch's corner lies in the box, its center does not", (_spot(3, 2), (0.0, 0.5, 0.6, 1.0))),
        Case("the patch's center lies in the box, its corner does not", (_spot(3, 1), (0.3, 0.8, 0.5, 1.0))),
    ]


def _point(heat: Tensor, box: Box, *, offset: float = 0.5, swap: bool = False) -> float:
    left, top, right, bottom = box
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    y, x = (row + offset) / heat.shape[0], (column + offset) / heat.shape[1]
    x, y = (y, x) if swap else (x, y)
    return float(left <= x <= right and top <= y <= bottom)


pointing_game = Check(
    name="pointing_game",
    solution=grounding.pointing_game,
    cases=_pointing_cases,
    verified="The hottest patch's center, x against left and right, y against top and bottom.",
    mistakes={
        "Rows and columns are exchanged: the row says how far down (y), the column how far right (x).": (
            lambda heat, box: _point(heat, box, swap=True)
        ),
        "You compare the patch's upper left corner: take its center, (column + 0.5) / width.": (
            lambda heat, box: _point(heat, box, offset=0.0)
        ),
        "You look for the largest size of evidence; evidence against the score is no evidence. No abs().": (
            lambda heat, box: _point(heat.abs(), box)
        ),
        "You ask whether anything hot is in the box; only the hottest patch points.": (
            lambda heat, box: float(max(_point((heat > 0) * _spot(r, c), box) for r, c in heat.nonzero().tolist()))
        ),
        "That is the opposite: 1 for a hit, 0 for a miss.": lambda heat, box: 1.0 - _point(heat, box),
    },
)


# --- Mass -----------------------------------------------------------------------------------------------------------


def _mass_cases() -> list[Case]:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :2] = True
    noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    return [
        Case("half of the evidence on the thing", (_spot(0, 0) + _spot(3, 3), mask.clone())),
        Case("evidence for it here, against it there", (_spot(0, 0) + _spot(3, 3, -9.0) + _spot(3, 0), mask.clone())),
        Case("an even map", (torch.ones(4, 4), mask.clone())),
        Case("a noisy map", (noise, mask.clone())),
    ]


def _large(heat: Tensor, size: int) -> Tensor:
    return heat.repeat_interleave(size // len(heat), 0).repeat_interleave(size // len(heat), 1)


mass_inside = Check(
    name="mass_inside",
    solution=grounding.mass_inside,
    cases=_mass_cases,
    verified="The share of the positive evidence on the mask; an even map scores the mask's area.",
    mistakes={
        "Negative evidence is counted: shares then add up to anything. Clamp at 0 first.": (
            lambda heat, mask: (_large(heat, 8)[mask].sum() / heat.sum() / 4).item()
        ),
        "Divide by all of the evidence: yours grows when the map is multiplied by 2.": (
            lambda heat, mask: _large(heat.clamp(min=0), 8)[mask].sum().item()
        ),
        "That is the mean of the evidence on the mask against the mean outside, not the share on it.": (
            lambda heat, mask: (
                _large(heat.clamp(min=0), 8)[mask].mean() / _large(heat.clamp(min=0), 8)[~mask].mean()
            ).item()
        ),
        "That is the share outside of the mask.": lambda heat, mask: 1 - grounding.mass_inside(heat, mask),
        "That counts patches with any evidence, whatever its size.": (
            lambda heat, mask: ((_large(heat, 8) > 0) & mask).sum().item() / (_large(heat, 8) > 0).sum().item()
        ),
    },
)


# --- Sanity ---------------------------------------------------------------------------------------------------------


def _sanity_cases() -> list[Case]:
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    noise = [torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (4, 5)]
    return [
        Case("the same order, other values", (a.clone(), (3 * a).exp())),
        Case("the opposite order", (a.clone(), -a)),
        Case("two pairs exchanged", (a.clone(), torch.tensor([[2.0, 1.0], [4.0, 3.0]]))),
        Case("noise and noise", tuple(noise)),
        Case("one very hot patch in both", (noise[0] + 50 * _spot(0, 0, side=3), noise[1] + 50 * _spot(0, 0, side=3))),
    ]


def _order(x: Tensor) -> Tensor:
    return x.flatten().argsort().argsort().float()


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x.flatten() - x.mean(), y.flatten() - y.mean()
    return (x @ y / (x.norm() * y.norm())).item()


rank_correlation = Check(
    name="rank_correlation",
    solution=grounding.rank_correlation,
    cases=_sanity_cases,
    verified="Spearman's correlation: 1 for the same order, -1 for the opposite, whatever the values.",
    mistakes={
        "That is the correlation of the values: one very hot patch decides it. Rank both maps first.": _correlation,
        "argsort() gives the places in order, not the ranks: take argsort() of argsort().": (
            lambda a, b: _correlation(a.flatten().argsort().float(), b.flatten().argsort().float())
        ),
        "Subtract the mean of the ranks first, or unlike maps look alike.": (
            lambda a, b: torch.nn.functional.cosine_similarity(_order(a), _order(b), dim=0).item()
        ),
        "The opposite order is a relation, too, but not a likeness: keep the sign.": (
            lambda a, b: abs(_correlation(_order(a), _order(b)))
        ),
        "That is a distance between ranks: 0 for the same order. 1 minus it, in the right units, would do.": (
            lambda a, b: (_order(a) - _order(b)).abs().mean().item()
        ),
    },
)
