"""Checks of notebook 13, first half: a matrix in 8 bits.

No value is halfway between two integers, so rounding half up and rounding half to even agree.

Paper: LLM.int8() (Dettmers et al. 2022). Notebook: 13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blip2_lab.teaching import int8_by_hand
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.variants import variants_of

# --- One matrix -----------------------------------------------------------------------------------------------------


def _quantize_cases() -> list[Case]:
    made = []
    for rows in (
        ((1.0, -2.0, 0.5),),
        ((-0.3, 0.11, 0.2), (5.0, -10.0, 2.6)),
        ((0.0, 0.0), (3.0, 1.2)),
        ((100.0, 1.0), (-1.0, 0.3)),
    ):
        made.append(Case(f"x = {[list(row) for row in rows]}", (torch.tensor(rows),)))
    return made


def _scaled(function: Callable, args: tuple) -> Any:
    """Values as numbers, their dtype, and the scale."""
    found = function(*args)
    if not isinstance(found, tuple | list) or len(found) != 2:
        return found
    values, scale = found
    whole = isinstance(values, Tensor) and values.dtype == torch.int8
    if isinstance(scale, Tensor) and scale.shape == (len(args[0]), 1) and scale.is_floating_point():
        any_scale = (args[0] == 0).all(dim=1, keepdim=True) & (scale > 0) & scale.isfinite()
        scale = scale.masked_fill(any_scale, 1.0)  # a row of zeros may have any scale
    return values.double() if isinstance(values, Tensor) else values, "int8" if whole else "not int8", scale


def _scaled_rules(case: Case, got: Any, expected: Any) -> str | None:
    """Which of the three differs, and how."""
    if not isinstance(got, tuple | list) or len(got) != 3:
        return None
    values, dtype, scale = got
    for name, ours, theirs in (("values", values, expected[0]), ("scale", scale, expected[2])):
        if not isinstance(ours, Tensor):
            return f"`{name}` is to be a tensor; yours is {describe(ours)}."
        if ours.shape != theirs.shape:
            return f"`{name}` has the shape {list(ours.shape)} and should have {list(theirs.shape)}."
    if dtype != "int8":
        return "The values are not int8: whole numbers in another dtype save nothing."
    if not torch.allclose(scale.double(), expected[2].double(), rtol=1e-3):
        return "The scale is another one: a row's largest absolute value, divided by 127."
    return "The scale is right; the values are not: x / scale, rounded to the nearest whole number."


@variants_of
def _quantize_but(
    largest: Callable[[Tensor], Tensor] = lambda x: x.abs().amax(dim=-1, keepdim=True),
    to_integer: Callable[[Tensor], Tensor] = lambda x: x.round().to(torch.int8),
    levels: int = int8_by_hand.LARGEST,
) -> Callable:
    """absmax with one step done in another way."""

    def wrong(x: Tensor) -> tuple[Tensor, Tensor]:
        top = largest(x)
        scale = torch.where(top > 0, top / levels, torch.ones_like(top))
        return to_integer(x / scale), scale

    return wrong


def _zeros_divide(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.abs().amax(dim=-1, keepdim=True) / int8_by_hand.LARGEST
    return (x / scale).nan_to_num(nan=0.0).round().to(torch.int8), scale


def _inverse(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scale = int8_by_hand.absmax_quantize(x)
    return values, 1 / scale


absmax_quantize = Check(
    "absmax_quantize",
    int8_by_hand.absmax_quantize,
    _quantize_cases,
    "Each row's largest number becomes 127, the others are rounded to int8, and values * scale gives the row back.",
    {
        "One scale for the whole matrix: a single large number then spoils every row. Take dim=-1, keepdim=True.": (
            _quantize_but(lambda x: x.abs().max().expand(len(x), 1))
        ),
        "The scale is taken down the columns; here every row has its own.": (
            _quantize_but(lambda x: x.abs().amax(dim=0, keepdim=True))
        ),
        "The largest number, not the largest absolute value: -2 needs room as well.": (
            _quantize_but(lambda x: x.amax(dim=-1, keepdim=True), lambda x: x.round().clamp(-127, 127).to(torch.int8))
        ),
        "Cut off, not rounded: `.to(torch.int8)` alone goes towards zero, twice the error. `.round()` first.": (
            _quantize_but(to_integer=lambda x: x.to(torch.int8))
        ),
        "127 must be the largest value: 128 does not exist in int8 and turns into -128.": _quantize_but(levels=128),
        "Scaled to 255: int8 has a sign and ends at 127.": _quantize_but(levels=255),
        "The values are not int8: whole numbers in another dtype save nothing.": _quantize_but(
            to_integer=lambda x: x.round()
        ),
        "The scale is upside down: it must give x back as values * scale.": _inverse,
        "Rounded down (floor): to the nearest whole number, with round().": (
            _quantize_but(to_integer=lambda x: x.floor().to(torch.int8))
        ),
        "Rounded up (ceil): to the nearest whole number, with round().": (
            _quantize_but(to_integer=lambda x: x.ceil().to(torch.int8))
        ),
        "The scale has lost a dimension: [M, 1] (keepdim=True).": (
            lambda x: (int8_by_hand.absmax_quantize(x)[0], int8_by_hand.absmax_quantize(x)[1][:, 0])
        ),
        "Scale and values are returned in the wrong order: values first.": (
            lambda x: int8_by_hand.absmax_quantize(x)[::-1]
        ),
        "The mean of the absolute values is no absmax: then large numbers do not fit.": (
            _quantize_but(lambda x: x.abs().mean(-1, keepdim=True), lambda x: x.round().clamp(-127, 127).to(torch.int8))
        ),
        "The standard deviation is used: absmax takes the largest absolute value.": (
            _quantize_but(lambda x: x.std(-1, keepdim=True))
        ),
        "The range (largest minus smallest) is used: absmax takes the largest absolute value.": (
            _quantize_but(lambda x: x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True))
        ),
        "The values are what comes back (values * scale): return the whole numbers.": (
            lambda x: (int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x)), int8_by_hand.absmax_quantize(x)[1])
        ),
        "The signs are lost.": (
            lambda x: (int8_by_hand.absmax_quantize(x)[0].abs(), int8_by_hand.absmax_quantize(x)[1])
        ),
        "Seven values are enough in yours (4 bits): int8 goes up to 127.": _quantize_but(levels=7),
        "The scale is not divided by 127: x / scale lies between -1 and 1.": _quantize_but(levels=1),
        "Only the values are returned: without the scale they cannot be decoded.": (
            lambda x: int8_by_hand.absmax_quantize(x)[0]
        ),
        "A row of zeros: its scale is 0, and x / 0 is not a number. Give such a row the scale 1.": _zeros_divide,
    },
    rules=(_scaled_rules,),
    run=_scaled,
)

# --- A product ------------------------------------------------------------------------------------------------------


def _product_cases(outliers: bool) -> list[Case]:
    made = []
    for m, width, out, seed in ((1, 4, 2, 0), (3, 8, 5, 1)):
        generator = torch.Generator().manual_seed(seed)
        x, weight = torch.randn(m, width, generator=generator), torch.randn(out, width, generator=generator)
        description = f"x {[m, width]}, weight {[out, width]}, standard normal"
        if outliers:
            x[:, 1] = x[:, 1] * 2 - 30
            x[0, 2] = 7.5
            description += "; column 1 of x is near -30, and one number of column 2 is 7.5"
        made.append(Case(description, (x, weight)))
    if outliers:
        x, weight = (torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows)) for rows in (4, 3))
        x[2, 3] = 12.0
        made.append(Case("x [4, 6], weight [3, 6]; row 2 of x alone has an outlier, 12 in column 3", (x, weight)))
    if not outliers:
        near_one = [1 - 0.3 * torch.rand(rows, 8, generator=torch.Generator().manual_seed(rows)) for rows in (2, 3)]
        made.append(Case("x [2, 8], weight [3, 8], all numbers between 0.7 and 1", tuple(near_one)))
    return made


def _one_byte_sum(x: Tensor, weight: Tensor) -> Tensor:
    (a, a_scale), (b, b_scale) = int8_by_hand.absmax_quantize(x), int8_by_hand.absmax_quantize(weight)
    return ((a.int() @ b.int().T).to(torch.int8)) * a_scale * b_scale.T


def _scales_but(combine: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """The sums in 32 bits, put together with the two scales in a wrong way."""

    def wrong(x: Tensor, weight: Tensor) -> Tensor:
        (a, a_scale), (b, b_scale) = int8_by_hand.absmax_quantize(x), int8_by_hand.absmax_quantize(weight)
        return combine(a.int() @ b.int().T, a_scale, b_scale)

    return wrong


def _one_scale(x: Tensor, weight: Tensor) -> Tensor:
    (a, a_scale), (b, b_scale) = (
        int8_by_hand.absmax_quantize(x, dim=None),
        int8_by_hand.absmax_quantize(weight, dim=None),
    )
    return (a.int() @ b.int().T) * a_scale * b_scale


@variants_of
def _quantized_by(
    of_x: Callable[[Tensor], Tensor], of_weight: Callable[[Tensor], Tensor] | None = None, top: int = 127
) -> Callable:
    """Both matrices row by row, brought to whole numbers up to `top` in another way."""

    def quantize(matrix: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        scale = matrix.abs().amax(dim=-1, keepdim=True) / top
        return rounded(matrix / scale) * scale

    return lambda x, weight: quantize(x, of_x) @ quantize(weight, of_weight or of_x).T


int8_linear = Check(
    "int8_linear",
    int8_by_hand.int8_linear,
    lambda: _product_cases(outliers=False),
    "Both matrices row by row in int8, the sums in 32 bits, and both scales put back.",
    {
        "The sums are kept in int8: 127 * 127 alone is 16,129. Multiply as .int(), sum in 32 bits.": _one_byte_sum,
        "The weight's scale is forgotten.": _scales_but(lambda sums, a, b: sums * a),
        "The input's scale is forgotten.": _scales_but(lambda sums, a, b: sums * b.T),
        "Divided by the scales: values * scale gives a number back, so multiply.": (
            _scales_but(lambda sums, a, b: sums / a / b.T)
        ),
        "One scale for each whole matrix: right in kind, but coarser than row by row.": _one_scale,
        "Not quantized at all: this is the product in full precision.": lambda x, weight: x @ weight.T,
        "Both scales are forgotten: these are the sums of whole numbers.": _scales_but(lambda sums, a, b: sums.float()),
        "Only the input is quantized: quantize the weight, too.": (
            lambda x, weight: int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x)) @ weight.T
        ),
        "Only the weight is quantized: quantize x, too.": (
            lambda x, weight: x @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight)).T
        ),
        "The weight is quantized down its columns: row by row, so that a scale can be taken out of the sum.": (
            lambda x, weight: (
                int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x))
                @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight, dim=0)).T
            )
        ),
        "x is quantized down its columns: row by row.": (
            lambda x, weight: (
                int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x, dim=0))
                @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight)).T
            )
        ),
        "One scale for the whole weight: row by row.": (
            lambda x, weight: (
                int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x))
                @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight, dim=None)).T
            )
        ),
        "The product is transposed: [M, O].": lambda x, weight: int8_by_hand.int8_linear(x, weight).T,
        "The scales are added: multiply by both.": _scales_but(lambda sums, a, b: sums * (a + b.T)),
        "The weight's scales are averaged: each output has its own row's.": (
            _scales_but(lambda sums, a, b: sums * a * b.mean())
        ),
        "The largest scales are taken for all: each row has its own.": (
            _scales_but(lambda sums, a, b: sums * a.max() * b.max())
        ),
        "The result is quantized once more: only the factors are.": (
            lambda x, weight: int8_by_hand.dequantize(
                *int8_by_hand.absmax_quantize(int8_by_hand.int8_linear(x, weight))
            )
        ),
        "Cut off, not rounded, in x and in the weight: `.round()` before `.to(torch.int8)`.": _quantized_by(
            torch.trunc
        ),
        "Cut off, not rounded, in x: `.round()` before `.to(torch.int8)`.": _quantized_by(torch.trunc, torch.round),
        "Cut off, not rounded, in the weight: `.round()` before `.to(torch.int8)`.": (
            _quantized_by(torch.round, torch.trunc)
        ),
        "Scaled to 63, which leaves a bit unused: the largest absolute value becomes 127.": (
            _quantized_by(torch.round, top=63)
        ),
        "Scaled to 128, which int8 does not hold: the largest absolute value becomes 127.": (
            _quantized_by(lambda x: x.round().clamp(-128, 127), top=128)
        ),
        "The product is taken in half precision (float16): multiply whole numbers, as int32.": (
            lambda x, weight: (
                int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x)).half()
                @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight)).half().T
            ).float()
        ),
        "Rounded without a scale: quantize by absmax.": lambda x, weight: x.round() @ weight.round().T,
        "The result is rounded: only the factors are.": lambda x, weight: int8_by_hand.int8_linear(x, weight).round(),
        "The sums are taken in 16 bits and overflow: sum in 32.": (
            _scales_but(lambda sums, a, b: sums.to(torch.int16) * a * b.T)
        ),
        "The scales are squared.": _scales_but(lambda sums, a, b: sums * a**2 * b.T**2),
        "Multiplied element by element and summed over the wrong dimension: x @ weight.T.": (
            lambda x, weight: int8_by_hand.int8_linear(x, weight).sum(1)
        ),
    },
    tolerance=1e-5,
)


def _mixed_but(columns: Callable[[Tensor], Tensor]) -> Callable:
    """Outliers found in another way."""

    def wrong(x: Tensor, weight: Tensor) -> Tensor:
        apart = columns(x)
        return x[:, apart] @ weight[:, apart].T + int8_by_hand.int8_linear(x[:, ~apart], weight[:, ~apart])

    return wrong


def _twice(x: Tensor, weight: Tensor) -> Tensor:
    apart = int8_by_hand.outlier_columns(x)
    return x[:, apart] @ weight[:, apart].T + int8_by_hand.int8_linear(x, weight)


def _apart_too_late(x: Tensor, weight: Tensor) -> Tensor:
    apart = int8_by_hand.outlier_columns(x)
    coarse = [int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(matrix))[:, ~apart] for matrix in (x, weight)]
    return x[:, apart] @ weight[:, apart].T + coarse[0] @ coarse[1].T


def _dropped(x: Tensor, weight: Tensor) -> Tensor:
    apart = int8_by_hand.outlier_columns(x)
    return int8_by_hand.int8_linear(x[:, ~apart], weight[:, ~apart])


def _ordinary_by(product: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """The outliers in full precision, the other columns by another product."""

    def wrong(x: Tensor, weight: Tensor) -> Tensor:
        apart = int8_by_hand.outlier_columns(x)
        return x[:, apart] @ weight[:, apart].T + product(x[:, ~apart], weight[:, ~apart])

    return wrong


mixed_linear = Check(
    "mixed_linear",
    int8_by_hand.mixed_linear,
    lambda: _product_cases(outliers=True),
    "Columns with an outlier in any row go in full precision, all others in 8 bits, and the two products are added.",
    {
        "The outliers are multiplied twice: take their columns out of the 8-bit product, in x and in the weight.": (
            _twice
        ),
        "The outliers are lost: their columns still have to be multiplied, in full precision.": _dropped,
        "Only positive outliers are found: -30 is one, too. Compare |x|.": (
            _mixed_but(lambda x: (x >= int8_by_hand.THRESHOLD).any(dim=0))
        ),
        "A column counts only where every row is large. One large number is enough to spoil its row.": (
            _mixed_but(lambda x: (x.abs() >= int8_by_hand.THRESHOLD).all(dim=0))
        ),
        "No outlier is taken apart, or those of another matrix than x: this is the plain 8-bit product.": (
            int8_by_hand.int8_linear
        ),
        "Everything is in full precision: 8 bits are used for nothing.": lambda x, weight: x @ weight.T,
        "The columns of x go apart, but the weight's do not: the same columns of both.": (
            lambda x, weight: (
                x[:, int8_by_hand.outlier_columns(x)] @ weight[:, int8_by_hand.outlier_columns(x)].T
                + int8_by_hand.int8_linear(x.masked_fill(int8_by_hand.outlier_columns(x), 0.0), weight)
            )
        ),
        "The ordinary columns are lost: they still have to be multiplied, in 8 bits.": (
            lambda x, weight: x[:, int8_by_hand.outlier_columns(x)] @ weight[:, int8_by_hand.outlier_columns(x)].T
        ),
        "The outlier columns are quantized apart: they go in full precision.": (
            lambda x, weight: (
                int8_by_hand.int8_linear(
                    x[:, int8_by_hand.outlier_columns(x)], weight[:, int8_by_hand.outlier_columns(x)]
                )
                + int8_by_hand.int8_linear(
                    x[:, ~int8_by_hand.outlier_columns(x)], weight[:, ~int8_by_hand.outlier_columns(x)]
                )
            )
        ),
        "Of the ordinary columns only x is quantized: quantize the weight's, too.": (
            _ordinary_by(lambda x, weight: int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(x)) @ weight.T)
        ),
        "Of the ordinary columns only the weight's are quantized: quantize x, too.": (
            _ordinary_by(lambda x, weight: x @ int8_by_hand.dequantize(*int8_by_hand.absmax_quantize(weight)).T)
        ),
        "The outliers are multiplied in 16 bits: they go in full precision.": (
            lambda x, weight: (
                _dropped(x, weight)
                + (
                    x[:, int8_by_hand.outlier_columns(x)].bfloat16()
                    @ weight[:, int8_by_hand.outlier_columns(x)].bfloat16().T
                ).float()
            )
        ),
        "Rows with an outlier are multiplied in full precision: it is columns that go apart.": (
            lambda x, weight: torch.where(
                (x.abs() >= int8_by_hand.THRESHOLD).any(1, keepdim=True),
                x @ weight.T,
                int8_by_hand.int8_linear(x, weight),
            )
        ),
        "Outliers are cut to 6: they keep their size, in full precision.": (
            lambda x, weight: int8_by_hand.int8_linear(x.clamp(-6, 6), weight)
        ),
        "Outliers of the weight are looked for; it is x that has them.": (
            _mixed_but(lambda x: torch.zeros(x.shape[1], dtype=torch.bool).index_fill(0, torch.tensor([0]), True))
        ),
        "The two products are put side by side: add them.": (
            lambda x, weight: torch.cat(
                [
                    x[:, int8_by_hand.outlier_columns(x)] @ weight[:, int8_by_hand.outlier_columns(x)].T,
                    int8_by_hand.int8_linear(
                        x[:, ~int8_by_hand.outlier_columns(x)], weight[:, ~int8_by_hand.outlier_columns(x)]
                    ),
                ],
                dim=1,
            )
        ),
        "One product is subtracted from the other: add them.": (
            lambda x, weight: (
                2 * x[:, int8_by_hand.outlier_columns(x)] @ weight[:, int8_by_hand.outlier_columns(x)].T
                - int8_by_hand.mixed_linear(x, weight)
            )
        ),
        "The columns are taken apart after quantizing: the outliers have made the scales coarse already.": (
            _apart_too_late
        ),
        "Large numbers are taken out one by one, not by columns: the weight's columns must go with them.": (
            lambda x, weight: (
                (x * (x.abs() >= int8_by_hand.THRESHOLD)) @ weight.T
                + int8_by_hand.int8_linear(x * (x.abs() < int8_by_hand.THRESHOLD), weight)
            )
        ),
        "The two products are averaged: add them.": lambda x, weight: int8_by_hand.mixed_linear(x, weight) / 2,
        "The threshold is another one: outliers begin at 6.": (_mixed_but(lambda x: (x.abs() >= 20).any(dim=0))),
        "The product is transposed: [M, O].": lambda x, weight: int8_by_hand.mixed_linear(x, weight).T,
        "The ordinary columns are in full precision and the outliers in 8 bits: the wrong way round.": (
            _mixed_but(lambda x: ~int8_by_hand.outlier_columns(x))
        ),
    },
    tolerance=1e-5,
)
