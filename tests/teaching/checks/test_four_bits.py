"""The checks of notebook 13 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import math

import numpy as np
import torch

from blip2_lab.teaching import int8_by_hand, nf4_by_hand
from tests.teaching.checks.verdicts import variant_tests

absmax, product, mixed = int8_by_hand.absmax_quantize, int8_by_hand.int8_linear, int8_by_hand.mixed_linear
blocks, bits = nf4_by_hand.quantize_blocks, nf4_by_hand.bits_per_weight


def absmax_by_rows(x):
    scales, values = [], []
    for row in x:
        largest = max(abs(float(n)) for n in row) or 127.0
        scales.append([largest / 127])
        values.append([round(float(n) * 127 / largest) for n in row])
    return torch.tensor(values, dtype=torch.int8), torch.tensor(scales)


def absmax_by_numpy(x):
    array = x.numpy()
    scale = np.abs(array).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return torch.from_numpy(np.rint(array / scale).astype(np.int8)), torch.from_numpy(scale)


def absmax_in_place_of_a_copy(x):
    x = x.clone()
    scale = x.abs().max(dim=1).values.unsqueeze(1).div(127)
    scale = scale.where(scale != 0, torch.tensor(0.5))
    x /= scale
    return x.round_().to(torch.int8), scale


def product_by_loops(x, weight):
    a, a_scale = absmax(x)
    b, b_scale = absmax(weight)
    rows = [[sum(int(p) * int(q) for p, q in zip(r, s, strict=True)) for s in b] for r in a]
    return torch.tensor(rows).float() * a_scale * b_scale[:, 0]


def mixed_by_loops(x, weight):
    apart = [d for d in range(x.shape[1]) if any(abs(float(n)) >= 6 for n in x[:, d])]
    others = [d for d in range(x.shape[1]) if d not in apart]
    return product(x[:, others], weight[:, others]) + torch.einsum("md,od->mo", x[:, apart], weight[:, apart])


def mixed_by_zeros(x, weight):
    apart = (x.abs() >= 6).any(0)
    calm_x, calm_weight = x * ~apart, weight * ~apart
    return (x * apart) @ (weight * apart).T + product(calm_x, calm_weight)


def blocks_by_loops(x, levels, block):
    codes, scales = [], []
    for start in range(0, len(x), block):
        part = x[start : start + block].tolist()
        scale = max(map(abs, part)) or 1.0
        scales.append(scale)
        codes += [min(range(len(levels)), key=lambda i: abs(float(levels[i]) - n / scale)) for n in part]  # noqa: B023
    return codes and torch.tensor(codes), torch.tensor(scales)


def blocks_by_midpoints(x, levels, block):
    scale = x.view(-1, block).norm(p=torch.inf, dim=1)
    inside = x / scale.clamp(min=1e-12).repeat_interleave(block)
    return torch.bucketize(inside, (levels[1:] + levels[:-1]) / 2), scale


def blocks_by_cdist(x, levels, block):
    parts = x.chunk(len(x) // block)
    scale = torch.stack([part.abs().max() if part.any() else torch.tensor(1.0) for part in parts])
    inside = torch.cat([part / s for part, s in zip(parts, scale, strict=True)])
    return torch.cdist(inside[:, None], levels[:, None]).min(1).indices.int(), scale


RIGHT = [
    *(("absmax_quantize", f) for f in (absmax_by_rows, absmax_by_numpy, absmax_in_place_of_a_copy)),
    ("absmax_quantize", lambda x: (lambda s: [torch.clamp(torch.round(x / s), -127, 127).type(torch.int8), s])(
        x.abs().amax(1, True).div(127).clamp(min=1e-30))),
    ("absmax_quantize", lambda x: (lambda s: ((x.double() / s).round().char(), s.float()))(
        torch.maximum(x.double().abs().max(-1, True)[0], torch.tensor(1e-9)) / 127)),
    ("absmax_quantize", lambda x: absmax(x.clone().detach())),
    ("int8_linear", product_by_loops),
    ("int8_linear", lambda x, w: (lambda a, b: a[0].long() @ b[0].long().T * (a[1] @ b[1].T))(absmax(x), absmax(w))),
    ("int8_linear", lambda x, w: (lambda a, b: torch.einsum(
        "md,od->mo", a[0].double(), b[0].double()) * a[1] * b[1].T)(absmax(x), absmax(w))),
    ("int8_linear", lambda x, w: int8_by_hand.dequantize(*absmax(x)) @ int8_by_hand.dequantize(*absmax(w)).T),
    ("int8_linear", lambda x, w: torch.nn.functional.linear(*(int8_by_hand.dequantize(*absmax(m)) for m in (x, w)))),
    ("int8_linear", lambda x, w: torch.stack([product(row[None], w)[0] for row in x])),
    ("mixed_linear", mixed_by_loops), ("mixed_linear", mixed_by_zeros),
    ("mixed_linear", lambda x, w: torch.cat([mixed(x, row[None]) for row in w], 1)),
    ("mixed_linear", lambda x, w: (lambda o: x[:, o] @ w[:, o].T + product(x[:, ~o], w[:, ~o]))(
        x.abs().max(0).values >= 6.0)),
    ("mixed_linear", lambda x, w: (lambda o: x.index_select(1, o) @ w.index_select(1, o).mT + product(
        *(m[:, [d for d in range(x.shape[1]) if d not in o.tolist()]] for m in (x, w))))(
        int8_by_hand.outlier_columns(x).nonzero()[:, 0])),
    ("mixed_linear", lambda x, w: mixed(x.double(), w.double())),
    *(("quantize_blocks", f) for f in (blocks_by_loops, blocks_by_midpoints, blocks_by_cdist)),
    ("quantize_blocks", lambda x, levels, block: (lambda s: (torch.argmin(
        torch.abs(x.unflatten(0, (-1, block)).unsqueeze(2) / s[:, None, None] - levels), 2).reshape(-1), s))(
        x.unflatten(0, (-1, block)).abs().max(1).values.clamp_min(1e-20))),
    ("quantize_blocks", lambda x, levels, block: (lambda s: [(levels[None] * s.repeat_interleave(block)[:, None]
        - x[:, None]).square().argmin(1), s])(
        torch.stack([b.abs().max() + (0 if b.any() else 1) for b in x.split(block)]))),
    ("quantize_blocks", lambda x, levels, block: tuple(torch.cat(t) for t in zip(
        *(blocks(b, levels, block) for b in x.split(block)), strict=True))),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: b + (s + (c / g if g else 0)) / n),
    ("bits_per_weight", lambda bits, block, scale_bits=32, scales_per_group=None, group_bits=32: (
        (bits * block + scale_bits) / block + (group_bits / block / scales_per_group if scales_per_group else 0))),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: np.float64(b + s / n) + (0 if g is None else c / n / g)),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: (
        (b * n * (g or 1) + s * (g or 1) + (c if g else 0)) / (n * (g or 1)))),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: torch.tensor(b + s / n + (c / (n * g) if g else 0.0))),
    ("bits_per_weight", lambda *a: sum([a[0], (a[2] if len(a) > 2 else 32) / a[1],
                                        ((a[4] if len(a) > 4 else 32) / a[1] / a[3]) if len(a) > 3 else 0])),
]  # fmt: skip

#: name of the check, answer, and a word that its message must have
WRONG = [
    ("absmax_quantize", lambda x: (absmax(x)[0], absmax(x)[1] * 2), "scale"),
    ("absmax_quantize", lambda x: (absmax(x)[0].short(), absmax(x)[1]), "not int8"),
    ("absmax_quantize", lambda x: (absmax(x)[0].T, absmax(x)[1]), "shape"),
    ("absmax_quantize", lambda x: absmax(x, dim=None), "shape"),
    ("absmax_quantize", lambda x: x.mul_(1.5) is not None and absmax(x / 1.5), "in place"),
    ("absmax_quantize", lambda x: absmax(x)[::-1], "wrong order"),
    ("absmax_quantize", lambda x: (torch.zeros_like(x).char(), absmax(x)[1]), "values are not"),
    ("absmax_quantize", lambda x: (absmax(x)[0] - 1, absmax(x)[1]), "values are not"),
    ("int8_linear", lambda x, w: product(x, w).round(), "rounded"),
    ("int8_linear", lambda x, w: product(w, x), "transposed"),
    ("int8_linear", lambda x, w: product(x, w) * 127, "times the right one"),
    ("int8_linear", lambda x, w: -product(x, w), "sign"),
    ("int8_linear", lambda x, w: (absmax(x)[0] @ absmax(w)[0].T) * absmax(x)[1] * absmax(w)[1].T, "int8"),
    ("int8_linear", lambda x, w: product(x, w)[0], "first of the right answer"),
    ("int8_linear", lambda x, w: product(x.abs(), w), "size of `x`"),
    ("int8_linear", lambda x, w: x * w[:1], "shape"),
    ("mixed_linear", lambda x, w: mixed(x, w) * 2, "2 times"),
    ("mixed_linear", lambda x, w: mixed(x.clamp(-10, 10), w), "`x` in place of `x.clamp(-10, 10)`"),
    ("mixed_linear", lambda x, w: product(x.masked_fill(x.abs() >= 6, 0.0), w),
     "`x` in place of `x.masked_fill(x.abs() >= 6, 0.0)`"),
    ("mixed_linear", lambda x, w: (lambda o: product(x[:, o], w[:, o]) + x[:, ~o] @ w[:, ~o].T)(
        int8_by_hand.outlier_columns(x)), "wrong way round"),
    ("mixed_linear", lambda x, w: mixed(w, x), "exchanged"),
    ("mixed_linear", lambda x, w: mixed(x, w).sum(), "shape"),
    ("mixed_linear", lambda x, w: (lambda o: x[:, o] @ w[:, o].T + product(x[:, ~o], w[:, ~o]))(
        (x >= 6).any(0)), "Only positive"),
    ("mixed_linear", lambda x, w: x @ w.mT, "full precision"),
    ("quantize_blocks", lambda x, levels, block: blocks(x, levels, len(x)), "scales"),
    ("quantize_blocks", lambda x, levels, block: (lambda c, s: (torch.bucketize(
        x / s.repeat_interleave(block), levels), s))(*blocks(x, levels, block)), "above"),
    ("quantize_blocks", lambda x, levels, block: (lambda c, s: (
        c.clamp(max=len(levels) - 2), s))(*blocks(x, levels, block)), "codes are not"),
    ("quantize_blocks", lambda x, levels, block: (lambda c, s: (c.float(), s))(*blocks(x, levels, block)), "whole"),
    ("quantize_blocks", lambda x, levels, block: blocks(x, levels.flip(0), block), "codes"),
    ("quantize_blocks", lambda x, levels, block: (lambda c, s: (c.view(-1, block), s))(
        *blocks(x, levels, block)), "shape"),
    ("quantize_blocks", lambda x, levels, block: (lambda c, s: (c, s[:, None]))(*blocks(x, levels, block)), "shape"),
    ("quantize_blocks", lambda x, levels, block: blocks(x, levels, block)[::-1], "codes"),
    ("quantize_blocks", lambda x, levels, block: absmax(x.view(-1, block)), "shape"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: b + s / n + (c / n if g else 0), "group"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: b + s // n, "are not used"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: (b + s / n) / b, "should be"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: b + n / s, "should be"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: str(b + s / n), "in place of `str("),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: bits(b, n, s, g, c) + 1, "should be"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: math.ceil(bits(b, n, s, g, c)), "should be"),
    ("bits_per_weight", lambda b, n, s=32, g=None, c=32: b + s / n + (g or 0) / n, "group"),
]  # fmt: skip


test_a_right_answer_passes_in_any_style, test_a_wrong_answer_fails_and_is_told_why, test_there_are_enough_of_both = (
    variant_tests(
        ("absmax_quantize", "int8_linear", "mixed_linear", "quantize_blocks", "bits_per_weight"), RIGHT, WRONG
    )
)
