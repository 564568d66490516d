"""Checks of notebook 09, second half: the pointing game, the mass inside of a thing, the correlation of two maps.

The maps have a few entries, so that every answer can be computed by hand.

Paper: none (Zhang et al., 2016; Adebayo et al., 2018). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from blip2_lab.interpret import grounding
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of

Box = tuple[float, float, float, float]


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
    told = f"For the {order} order it must be {expected:.0f}; yours is {got:.4g}."
    return told if abs(got) <= 1 else f"{told} Divide the sum of products by both lengths."


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
