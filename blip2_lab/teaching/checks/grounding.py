"""Checks of notebook 09: attention followed through layers, weighted by its gradient, and scored.

The maps have a few entries, so that every answer can be computed by hand.

Paper: none (Abnar and Zuidema, 2020; Chefer et al., 2021; Zhang et al., 2016; Adebayo et al., 2018). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.interpret import attribution, grounding
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import strangest_sum
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of

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
        Case("2 rows of 4 patches, hot at the lower right", (_spot(3, 3)[2:], (0.5, 0.5, 1.0, 1.0))),
        Case("2 rows of 4 patches, hot in the lower row, second column", (_spot(3, 1)[2:], (0.3, 0.6, 0.45, 1.0))),
        Case("a box in the middle, hot to the right of it", (_spot(1, 2), (0.25, 0.25, 0.5, 0.5))),
        Case(
            "hottest in the box, much heat elsewhere", (_spot(3, 0) + _spot(0, 3, 0.9) + _spot(0, 2, 0.9), left_below)
        ),
        Case("the patch's center lies just inside, at 0.375", (_spot(1, 1), (0.35, 0.35, 0.4, 0.4))),
        Case("hot in the upper left corner, the box is there", (_spot(0, 0), (0.0, 0.0, 0.5, 0.5))),
        Case("a small box beside the patch's center", (_spot(2, 2), (0.5, 0.5, 0.6, 0.6))),
        Case("the box is the whole picture, hot in a corner", (_spot(3, 3), (0.0, 0.0, 1.0, 1.0))),
        Case("the hottest patch is above the box", (_spot(0, 1), left_below)),
        Case("the hottest patch is below the box", (_spot(3, 1), (0.0, 0.0, 0.5, 0.5))),
        Case("the hottest patch is left of the box", (_spot(1, 0), (0.5, 0.0, 1.0, 0.5))),
        Case("the hottest patch is right of the box", (_spot(1, 3), (0.0, 0.0, 0.5, 0.5))),
    ]


def _point(heat: Tensor, box: Box, *, offset: float = 0.5, swap: bool = False) -> float:
    left, top, right, bottom = box
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    y, x = (row + offset) / heat.shape[0], (column + offset) / heat.shape[1]
    x, y = (y, x) if swap else (x, y)
    return float(left <= x <= right and top <= y <= bottom)


def _center_of_mass(heat: Tensor, box: Box) -> float:
    heat = heat.clamp(min=0) / heat.clamp(min=0).sum()
    y = float((heat.sum(1) * (torch.arange(heat.shape[0]) + 0.5)).sum() / heat.shape[0])
    x = float((heat.sum(0) * (torch.arange(heat.shape[1]) + 0.5)).sum() / heat.shape[1])
    return float(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _hit_or_miss(case: Case, got: object) -> str | None:
    if isinstance(got, bool | int | float) and got in (0, 1):
        return f"You call a {'hit' if got else 'miss'} what is a {'miss' if got else 'hit'}: {case.description}."
    return None


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
        "A box is (left, top, right, bottom); yours takes (left, right, top, bottom).": (
            lambda heat, box: _point(heat, (box[0], box[2], box[1], box[3]))
        ),
        "A box is (left, top, right, bottom); yours takes (left, top, width, height).": (
            lambda heat, box: _point(heat, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        ),
        "The coldest patch is taken: argmax, not argmin.": lambda heat, box: _point(-heat, box),
        "y is counted from below: row 0 is the top.": lambda heat, box: _point(heat.flip(0), box),
        "Row and column are numbers of patches: divide by the map's sides to compare with fractions.": (
            lambda heat, box: float(
                box[0] <= int(heat.argmax()) % heat.shape[1] <= box[2]
                and box[1] <= int(heat.argmax()) // heat.shape[1] <= box[3]
            )
        ),
        "The width and the height of the map are exchanged: columns are divided by w, rows by h.": (
            lambda heat, box: float(
                box[0] <= (int(heat.argmax()) % heat.shape[1] + 0.5) / heat.shape[0] <= box[2]
                and box[1] <= (int(heat.argmax()) // heat.shape[1] + 0.5) / heat.shape[1] <= box[3]
            )
        ),
        "Only left and right are looked at: top and bottom count, too.": (
            lambda heat, box: _point(heat, (box[0], 0.0, box[2], 1.0))
        ),
        "Only top and bottom are looked at: left and right count, too.": (
            lambda heat, box: _point(heat, (0.0, box[1], 1.0, box[3]))
        ),
        "One of the two is enough in yours: x *and* y must lie inside.": (
            lambda heat, box: max(_point(heat, (box[0], 0.0, box[2], 1.0)), _point(heat, (0.0, box[1], 1.0, box[3])))
        ),
        "Only left and top are looked at.": lambda heat, box: _point(heat, (box[0], box[1], 1.0, 1.0)),
        "Only right and bottom are looked at.": lambda heat, box: _point(heat, (0.0, 0.0, box[2], box[3])),
        "You compare the patch's lower right corner: take its center.": lambda heat, box: _point(heat, box, offset=1.0),
        "The map's center of mass is compared, not its hottest patch.": _center_of_mass,
        "Everything is a hit.": lambda heat, box: 1.0,
        "Nothing is a hit.": lambda heat, box: 0.0,
        "That is the share of the heat in the box; only the hottest patch points.": (
            lambda heat, box: grounding.mass_inside(heat, grounding.box_mask(box, 40))
        ),
    },
    rules=(lambda case, got, expected: _hit_or_miss(case, got),),
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
        Case("a mask that covers parts of patches", (noise.abs(), _parts_of_patches())),
    ]


def _parts_of_patches() -> Tensor:
    """bool[8, 8] that covers one, three or four of the four pixels of a patch."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[1:4, 1:6] = True
    mask[4, 4] = True
    return mask


def _large(heat: Tensor, size: int) -> Tensor:
    return heat.repeat_interleave(size // len(heat), 0).repeat_interleave(size // len(heat), 1)


def _of_patches(heat: Tensor, mask: Tensor, counts: Callable[[Tensor], Tensor]) -> float:
    """The share of whole patches, by how much of each the mask covers."""
    size = len(mask) // len(heat)
    cover = mask.float().unflatten(1, (-1, size)).unflatten(0, (-1, size)).mean((1, 3))
    evidence = heat.clamp(min=0)
    return float((evidence * counts(cover)).sum() / evidence.sum())


mass_inside = Check(
    name="mass_inside",
    solution=grounding.mass_inside,
    cases=_mass_cases,
    verified="The share of the positive evidence on the mask; an even map scores the mask's area.",
    mistakes={
        "A patch counts as a whole where the mask covers most of it: count the pixels that it covers.": (
            lambda heat, mask: _of_patches(heat, mask, lambda cover: cover > 0.5)
        ),
        "A patch counts as a whole where the mask touches it: count the pixels that it covers.": (
            lambda heat, mask: _of_patches(heat, mask, lambda cover: cover > 0)
        ),
        "The mask is made as small as the map, by one pixel of each patch: make the map as large as the mask.": (
            lambda heat, mask: (heat.clamp(min=0)[mask[::2, ::2]].sum() / heat.clamp(min=0).sum()).item()
        ),
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
        "Divided by the evidence outside of the mask: a share is divided by all of the evidence.": (
            lambda heat, mask: (
                _large(heat.clamp(min=0), 8)[mask].sum() / _large(heat.clamp(min=0), 8)[~mask].sum()
            ).item()
        ),
        "Means are divided, not sums: then an even map scores 1, whatever the mask.": (
            lambda heat, mask: (_large(heat.clamp(min=0), 8)[mask].mean() / _large(heat.clamp(min=0), 8).mean()).item()
        ),
        "The hottest patch on the mask, divided by the hottest of all: sums are asked for.": (
            lambda heat, mask: (_large(heat.clamp(min=0), 8)[mask].max() / heat.max()).item()
        ),
        "The evidence is squared: take it as it is.": (
            lambda heat, mask: grounding.mass_inside(heat.clamp(min=0).square(), mask)
        ),
        "That is the share outside of the mask.": lambda heat, mask: 1 - grounding.mass_inside(heat, mask),
        "That counts patches with any evidence, whatever its size.": (
            lambda heat, mask: ((_large(heat, 8) > 0) & mask).sum().item() / (_large(heat, 8) > 0).sum().item()
        ),
        "Negative evidence counts as positive here: clamp at 0 instead of abs().": (
            lambda heat, mask: grounding.mass_inside(heat.abs(), mask)
        ),
        "Negative evidence is left in the sum you divide by.": (
            lambda heat, mask: (_large(heat.clamp(min=0), 8)[mask].sum() / _large(heat, 8).sum()).item()
        ),
        "Negative evidence on the thing is left in.": (
            lambda heat, mask: (_large(heat, 8)[mask].sum() / _large(heat.clamp(min=0), 8).sum()).item()
        ),
        "Divide by the sum of the *enlarged* map: a patch is several pixels.": (
            lambda heat, mask: (_large(heat.clamp(min=0), 8)[mask].sum() / heat.clamp(min=0).sum()).item()
        ),
        "Divided by the mask's size: that is a mean, not a share of the evidence.": (
            lambda heat, mask: (_large(heat.clamp(min=0), 8)[mask].sum() / mask.sum()).item()
        ),
        "The mask's own area: the map is not used.": lambda heat, mask: mask.float().mean().item(),
        "That is the share of the mask that is hot, not the share of the evidence on the mask.": (
            lambda heat, mask: ((_large(heat, 8) > 0) & mask).sum().item() / mask.sum().item()
        ),
        "The map is repeated as a whole (tile): each patch must become a block (repeat_interleave).": (
            lambda heat, mask: (
                heat.clamp(min=0).repeat(2, 2)[mask].sum() / heat.clamp(min=0).repeat(2, 2).sum()
            ).item()
        ),
        "The map is turned over (rows and columns exchanged).": lambda heat, mask: grounding.mass_inside(heat.T, mask),
        "Evidence is shared out by a softmax: take the positive part as it is.": (
            lambda heat, mask: _large(heat.flatten().softmax(0).view(heat.shape), 8)[mask].sum().item() / 4
        ),
        "The smallest value is subtracted first: evidence against the score is no evidence, clamp at 0.": (
            lambda heat, mask: grounding.mass_inside(heat - heat.min(), mask)
        ),
        "Only the hottest patch is looked at: all of the evidence counts.": (
            lambda heat, mask: grounding.mass_inside((heat == heat.max()).float(), mask)
        ),
        "Percent are returned: a share is between 0 and 1.": (
            lambda heat, mask: 100 * grounding.mass_inside(heat, mask)
        ),
        "The map is made large by blurring (bilinear): each pixel has its patch's value.": (
            lambda heat, mask: (lambda big: (big[mask].sum() / big.sum()).item())(
                torch.nn.functional.interpolate(heat.clamp(min=0)[None, None], size=mask.shape, mode="bilinear")[0, 0]
            )
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


@variants_of
def _correlating(
    rank: Callable[[Tensor], Tensor] = _order,
    centered: bool = True,
    over: Callable[[Tensor, Tensor], float | Tensor] = lambda x, y: x.norm() * y.norm(),
) -> Callable:
    """The correlation of other ranks, without subtracted means, or divided by something else than both lengths."""

    def wrong(a: Tensor, b: Tensor) -> float:
        x, y = (rank(v).flatten() for v in (a, b))
        if centered:
            x, y = x - x.mean(), y - y.mean()
        return float(x @ y / over(x, y))

    return wrong


def _kendall(a: Tensor, b: Tensor) -> float:
    x, y = ((v.flatten()[:, None] - v.flatten()).sign() for v in (a, b))
    return float((x * y).sum() / (a.numel() * (a.numel() - 1)))


def _scale_of_correlation(case: Case, got: object, expected: float) -> str | None:
    """The two cases whose answer is known without counting."""
    if isinstance(got, bool) or not isinstance(got, int | float) or abs(expected) < 0.999:
        return None
    order = "same" if expected > 0 else "opposite"
    return (
        f"For the {order} order it must be {expected:.0f}; yours is {got:.4g}. Subtract the mean of the ranks, and "
        "divide the sum of products by both lengths."
    )


rank_correlation = Check(
    name="rank_correlation",
    solution=grounding.rank_correlation,
    cases=_sanity_cases,
    verified="Spearman's correlation: 1 for the same order, -1 for the opposite, whatever the values.",
    mistakes={
        "That is the correlation of the values: one very hot patch decides it. Rank both maps first.": _correlating(
            rank=lambda x: x
        ),
        "argsort() gives the places in order, not the ranks: take argsort() of argsort().": (
            _correlating(rank=lambda x: x.flatten().argsort().float())
        ),
        "Subtract the mean of the ranks first, or unlike maps look alike.": (_correlating(centered=False)),
        "The opposite order is a relation, too, but not a likeness: keep the sign.": (
            lambda a, b: abs(_correlation(_order(a), _order(b)))
        ),
        "That is a distance between ranks: 0 for the same order. 1 minus it, in the right units, would do.": (
            lambda a, b: (_order(a) - _order(b)).abs().mean().item()
        ),
        "The order is turned round in one of the maps: the sign is turned.": lambda a, b: (
            -_correlation(_order(a), _order(b))
        ),
        "The ranks are multiplied without being divided by both lengths.": (_correlating(over=lambda x, y: 1.0)),
        "Divided by the number of patches instead of by both lengths.": (_correlating(over=lambda x, y: float(len(x)))),
        "Divided by one length only: divide by the lengths of both.": (_correlating(over=lambda x, y: x.norm())),
        "The cosine of the values: rank both maps first, and subtract the mean.": (
            _correlating(rank=lambda x: x, centered=False)
        ),
        "Squared: keep the sign.": lambda a, b: _correlation(_order(a), _order(b)) ** 2,
        "Ranks are taken in each row: rank all patches of the map.": (
            _correlating(rank=lambda x: x.argsort(-1).argsort(-1).float())
        ),
        "One map is ranked, the other not.": lambda a, b: _correlation(_order(a), b),
        "The share of patches with the same rank: patches that moved a little count as lost.": (
            lambda a, b: (_order(a) == _order(b)).float().mean().item()
        ),
        "Kendall's correlation counts pairs; Spearman's is the correlation of the ranks.": _kendall,
        "The formula with squared differences: 6 * sum / (n * (n*n - 1)), and 1 minus that.": (
            lambda a, b: 6 * (_order(a) - _order(b)).square().sum().item() / (a.numel() * (a.numel() ** 2 - 1))
        ),
        "Always 1: compare the two maps with each other.": lambda a, b: 1.0,
        "1 minus a mean distance of ranks is no correlation: for the opposite order it must be -1.": (
            lambda a, b: 1 - (_order(a) - _order(b)).abs().mean().item()
        ),
        "The formula with squared differences divides by n * (n*n - 1).": (
            lambda a, b: 1 - 6 * (_order(a) - _order(b)).square().sum().item() / (a.numel() * (a.numel() - 1))
        ),
        "Mean of the products, divided by spreads of n - 1: divide both by n, or both by n - 1.": (
            lambda a, b: _correlation(_order(a), _order(b)) * (1 - 1 / a.numel())
        ),
    },
    rules=(_scale_of_correlation,),
)
