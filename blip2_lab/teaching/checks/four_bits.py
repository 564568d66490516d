"""Checks of notebook 13, second half: a weight in 4 bits, and what it costs with its scales.

No number is halfway between two levels, so it does not matter how ties are broken.

Paper: QLoRA (Dettmers et al. 2023), section 3. Notebook: 13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching import nf4_by_hand
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.variants import variants_of

# --- Blocks ---------------------------------------------------------------------------------------------------------

LEVELS = torch.tensor([-1.0, -0.4, 0.0, 0.2, 0.7, 1.0])


def _block_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, generator=generator) * torch.tensor([0.02, 3.0]).repeat_interleave(32)
    return [
        Case("one block: x = 2, -1, 0.3, -0.1", (torch.tensor([2.0, -1.0, 0.3, -0.1]), LEVELS, 4)),
        Case(
            "two blocks: x = 1, 0.4, -0.1 and 10, -9, 3",
            (torch.tensor([1.0, 0.4, -0.1, 10.0, -9.0, 3.0]), LEVELS, 3),
        ),
        Case("the largest is negative: x = -5, 1, 2, 4", (torch.tensor([-5.0, 1.0, 2.0, 4.0]), LEVELS, 4)),
        Case("a block of zeros: x = 0, 0, 1, -0.5", (torch.tensor([0.0, 0.0, 1.0, -0.5]), LEVELS, 2)),
        Case("64 normal numbers, NF4's levels, blocks of 32", (normal, nf4_by_hand.normal_levels(), 32)),
    ]


def _codes_and_scale(function: Callable, args: tuple) -> Any:
    """Codes as whole numbers of any dtype, and the scales, where a block of zeros may have any."""
    found = function(*args)
    if not isinstance(found, tuple | list) or len(found) != 2:
        return found
    codes, scale = found
    x, _, block = args
    if isinstance(scale, Tensor) and scale.shape == (len(x) // block,) and scale.is_floating_point():
        any_scale = (x.reshape(-1, block) == 0).all(dim=1) & scale.isfinite()
        scale = scale.masked_fill(any_scale, 1.0)
    whole = isinstance(codes, Tensor) and not codes.is_floating_point() and not codes.is_complex()
    return codes.long() if whole and codes.dtype != torch.bool and codes.device.type != "meta" else codes, scale


def _block_rules(case: Case, got: Any, expected: Any) -> str | None:
    """Which of the two differs, and how."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        return None
    codes, scale = got
    for name, ours, theirs in (("codes", codes, expected[0]), ("scales", scale, expected[1])):
        if not isinstance(ours, Tensor):
            return f"The {name} are to be a tensor; yours are {describe(ours)}."
        if ours.shape != theirs.shape:
            return f"The {name} have the shape {list(ours.shape)} and should have {list(theirs.shape)}."
    if codes.is_floating_point():
        return "The codes are no whole numbers: return the number of the nearest level, from 0."
    if not torch.allclose(scale.double(), expected[1].double(), rtol=1e-3):
        return "The scales are others: of each block the largest absolute value."
    wrong = int((codes != expected[0]).sum())
    return f"The scales are right; {wrong} of {len(codes)} codes are not the number of the nearest level."


@variants_of
def _blocks_but(
    largest: Callable[[Tensor], Tensor] = lambda blocks: blocks.abs().amax(dim=1),
    distance: Callable[[Tensor, Tensor], Tensor] = lambda x, levels: (x[:, :, None] - levels).abs(),
    divide: bool = True,
) -> Callable:
    """Rounding in blocks with one step done in another way."""

    def wrong(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
        blocks = x.reshape(-1, block)
        scale = largest(blocks)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        inside = blocks / scale[:, None] if divide else blocks
        return distance(inside, levels).argmin(dim=2).flatten(), scale

    return wrong


def _below(x: Tensor, levels: Tensor) -> Tensor:
    away = x[:, :, None] - levels
    return torch.where(away >= -1e-6, away, torch.inf)


def _above(x: Tensor, levels: Tensor) -> Tensor:
    away = levels - x[:, :, None]
    return torch.where(away >= -1e-6, away, torch.inf)


def _strided(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    codes, scale = nf4_by_hand.quantize_blocks(x.reshape(block, -1).T.flatten(), levels, block)
    return codes.reshape(-1, block).T.flatten(), scale


def _zeros_divide(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    blocks = x.reshape(-1, block)
    scale = blocks.abs().amax(dim=1)
    return (blocks[:, :, None] / scale[:, None, None] - levels).abs().argmin(dim=2).flatten(), scale


def _evenly(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    even = torch.linspace(-1, 1, len(levels))
    return nf4_by_hand.quantize_blocks(x, even, block)


def _levels_returned(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    codes, scale = nf4_by_hand.quantize_blocks(x, levels, block)
    return levels[codes.long()], scale


def _decoded(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    codes, scale = nf4_by_hand.quantize_blocks(x, levels, block)
    return nf4_by_hand.dequantize_blocks(codes, scale, levels), scale


quantize_blocks = Check(
    "quantize_blocks",
    nf4_by_hand.quantize_blocks,
    _block_cases,
    "Each block has its own scale, and each number the nearest of the levels, wherever these lie.",
    {
        "One scale for all blocks: one large number then spoils every block. Take the largest of each block.": (
            _blocks_but(lambda blocks: blocks.abs().max().expand(len(blocks)))
        ),
        "The largest number, not the largest absolute value: -5 needs room as well.": (
            _blocks_but(lambda blocks: blocks.amax(dim=1))
        ),
        "Not divided by the scale: levels lie between -1 and 1, and so must the numbers.": _blocks_but(divide=False),
        "A block is made of numbers that lie far apart: it is `block` numbers that follow one another.": _strided,
        "The next level below is taken, not the nearest.": _blocks_but(distance=_below),
        "The blocks are not of numbers that follow one another: x.reshape(-1, block) has one block a row.": (
            lambda x, levels, block: nf4_by_hand.quantize_blocks(x.reshape(block, -1).T.flatten(), levels, block)
        ),
        "The next level above is taken, not the nearest.": _blocks_but(distance=_above),
        "The signs are lost: the nearest level of |x| is looked for.": (
            _blocks_but(distance=lambda x, levels: (x.abs()[:, :, None] - levels).abs())
        ),
        "Evenly spaced levels are used: use those that are given.": _evenly,
        "The levels themselves are returned: return their numbers, the codes. They are what is stored.": (
            _levels_returned
        ),
        "The decoded numbers are returned: return the codes. They are what is stored.": _decoded,
        "A block of zeros: its scale is 0, and 0 / 0 is not a number. Give such a block the scale 1.": _zeros_divide,
        "The scale is upside down: it must give x back as level * scale.": (
            lambda x, levels, block: (lambda found: (found[0], 1 / found[1]))(
                nf4_by_hand.quantize_blocks(x, levels, block)
            )
        ),
        "The scale is the mean size of a block: then the largest numbers are cut off.": (
            _blocks_but(lambda blocks: blocks.abs().mean(dim=1))
        ),
        "The scale is the block's standard deviation: then the largest numbers are cut off.": (
            _blocks_but(lambda blocks: blocks.std(dim=1))
        ),
        "The scale is the whole range, from the smallest to the largest number: half of the levels stay unused.": (
            _blocks_but(lambda blocks: blocks.amax(dim=1) - blocks.amin(dim=1))
        ),
        "The farthest level is taken: argmin, not argmax.": (
            _blocks_but(distance=lambda x, levels: -(x[:, :, None] - levels).abs())
        ),
        "Codes are counted from 1: the first level has the number 0.": (
            lambda x, levels, block: (lambda found: (found[0].long() + 1, found[1]))(
                nf4_by_hand.quantize_blocks(x, levels, block)
            )
        ),
        "Only the codes are returned: without the scales they cannot be decoded.": (
            lambda x, levels, block: nf4_by_hand.quantize_blocks(x, levels, block)[0]
        ),
    },
    rules=(_block_rules,),
    run=_codes_and_scale,
)

# --- Memory ---------------------------------------------------------------------------------------------------------


def _bits_cases() -> list[Case]:
    asked = ((4, 64), (8, 32, 16), (4, 24), (4, 64, 8, 256), (3, 16, 8, 4, 16), (4, 32, 16, 8), (8, 4096, 32))
    return [
        Case(
            f"{given[0]} bits, blocks of {given[1]}"
            + (f", scales of {given[2]} bits" if given[2:] else "")
            + (f", {given[3]} scales in a group" if given[3:] else "")
            + (f" with a scale of {given[4]} bits" if given[4:] else ""),
            given,
        )
        for given in asked
    ]


def _bits_but(count: Callable[[int, int, int, int | None, int], float]) -> Callable:
    def wrong(
        bits: int, block: int, scale_bits: int = 32, scales_per_group: int | None = None, group_bits: int = 32
    ) -> float:
        return float(count(bits, block, scale_bits, scales_per_group, group_bits))

    return wrong


def _bits_rules(case: Case, got: Any, expected: float) -> str | None:
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    bits, block = case.args[:2]
    if len(case.args) > 3:
        return (
            f"It is {got:.4g} and should be {expected:.4g}: a group of {case.args[3]} scales stands for "
            f"{case.args[3]} * {block} weights."
        )
    return f"It is {got:.4g} and should be {expected:.4g}: {bits}, and one scale for {block} weights."


bits_per_weight = Check(
    "bits_per_weight",
    nf4_by_hand.bits_per_weight,
    _bits_cases,
    "A weight pays for its own bits and for its share of every scale above it.",
    {
        "The scales are forgotten: without them the codes cannot be decoded.": _bits_but(lambda b, n, s, g, c: b),
        "Each weight pays for a whole scale: a block shares it.": (
            _bits_but(lambda b, n, s, g, c: b + s + (c / g if g else 0))
        ),
        "The scales of the scales are forgotten.": _bits_but(lambda b, n, s, g, c: b + s / n),
        "Each scale pays for a whole scale of scales: a group shares it.": (
            _bits_but(lambda b, n, s, g, c: b + s / n + (c / n if g else 0))
        ),
        "A group's scale is shared by its scales, and each of those by a block: divide by both.": (
            _bits_but(lambda b, n, s, g, c: b + s / n + (c / g if g else 0))
        ),
        "A scale of 32 bits is counted whatever `scale_bits` says.": (
            _bits_but(lambda b, n, s, g, c: b + 32 / n + (c / (n * g) if g else 0))
        ),
        "A group's scale has 32 bits in yours whatever `group_bits` says.": (
            _bits_but(lambda b, n, s, g, c: b + s / n + (32 / (n * g) if g else 0))
        ),
        "Bytes are returned: 8 bits are a byte, and bits are asked for.": (
            _bits_but(lambda b, n, s, g, c: nf4_by_hand.bits_per_weight(b, n, s, g, c) / 8)
        ),
        "The bits of a whole block are returned: divide by its weights.": (
            _bits_but(lambda b, n, s, g, c: nf4_by_hand.bits_per_weight(b, n, s, g, c) * n)
        ),
        "With double quantization the scales cost their own bits as well: yours counts the group's scale alone.": (
            _bits_but(lambda b, n, s, g, c: b + (c / (n * g) if g else s / n))
        ),
        "Each weight pays for a whole scale of its block: divide the scale's bits by the block.": (
            _bits_but(lambda b, n, s, g, c: b + s + (c / (n * g) if g else 0))
        ),
        "The scale's share is divided by the bits of a weight as well: only the block shares a scale.": (
            _bits_but(lambda b, n, s, g, c: b + s / (n * b) + (c / (n * g) if g else 0))
        ),
        "The scale's share is rounded down (//): it is a fraction of a bit.": (
            _bits_but(lambda b, n, s, g, c: b + s // n + (c / (n * g) if g else 0))
        ),
        "A block of 64 is counted whatever `block` says.": (
            _bits_but(lambda b, n, s, g, c: b + s / 64 + (c / (64 * g) if g else 0))
        ),
        "The scale's share counts for a block of 64 whatever `block` says.": (
            _bits_but(lambda b, n, s, g, c: b + s / 64 + (c / (n * g) if g else 0))
        ),
        "A block has one scale: yours counts two.": (
            _bits_but(lambda b, n, s, g, c: b + 2 * s / n + (c / (n * g) if g else 0))
        ),
        "The group's share is multiplied by `scale_bits`: a group's scale has `group_bits`, shared by its weights.": (
            _bits_but(lambda b, n, s, g, c: b + s / n + (c * s / (n * g) if g else 0))
        ),
        "Rounded: an average may be a fraction of a bit.": (
            _bits_but(lambda b, n, s, g, c: round(nf4_by_hand.bits_per_weight(b, n, s, g, c)))
        ),
        "Multiplied, not added: a scale is stored beside the codes.": (
            _bits_but(lambda b, n, s, g, c: b * (1 + s / n + (c / (n * g) if g else 0)))
        ),
        "The scale's share is subtracted: it is stored as well, so it is added.": (
            _bits_but(lambda b, n, s, g, c: b - s / n - (c / (n * g) if g else 0))
        ),
    },
    rules=(_bits_rules,),
    tolerance=1e-6,
)
