"""The checks of notebook 16 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blip2_lab.models.bridges import GatedCrossAttention, GatedCrossAttentionConfig
from blip2_lab.models.bridges.gated_cross_attention import GatedBlock
from blip2_lab.models.bridges.linear import LinearBridge, pool_patches
from blip2_lab.teaching.checks.counting import count_gated_parameters as count
from blip2_lab.training.planning import count_parameters
from tests.teaching.checks.verdicts import variant_tests

project, block = LinearBridge.forward, GatedBlock.forward


def shape_of(number):
    rows = max(n for n in range(1, number + 1) if number % n == 0 and n * n <= number)
    return rows, number // rows


def pool_by_loops(x, number):
    side, (rows, columns) = math.isqrt(x.shape[1] - 1), shape_of(number)
    tall, wide = side // rows, side // columns
    tokens = []
    for r in range(rows):
        for c in range(columns):
            inside = [
                1 + i * side + j for i in range(r * tall, (r + 1) * tall) for j in range(c * wide, (c + 1) * wide)
            ]
            tokens.append(sum(x[:, n] for n in inside) / len(inside))
    return torch.stack(tokens, dim=1)


def pool_by_view(x, number):
    images, _, width = x.shape
    side, (rows, columns) = int((x.shape[1] - 1) ** 0.5), shape_of(number)
    grid = x[:, 1:].reshape(images, rows, side // rows, columns, side // columns, width)
    return grid.mean(dim=(2, 4)).reshape(images, number, width)


def pool_by_kernel(x, number):
    side, (rows, columns) = math.isqrt(x.shape[1] - 1), shape_of(number)
    grid = x[:, 1:].permute(0, 2, 1).reshape(len(x), -1, side, side)
    return F.avg_pool2d(grid, (side // rows, side // columns)).reshape(len(x), -1, number).permute(0, 2, 1)


def pool_by_matrix(x, number):
    side, (rows, columns) = math.isqrt(x.shape[1] - 1), shape_of(number)
    place = torch.arange(side * side)
    region = (place // side) * rows // side * columns + (place % side) * columns // side
    weights = F.one_hot(region, number).T.to(x.dtype)
    return (weights / weights.sum(1, keepdim=True)) @ x[:, 1:]


def project_by_hand(bridge, x):
    if bridge.config.num_visual_tokens:
        x = pool_by_view(x, bridge.config.num_visual_tokens)
    norm, matrix = bridge.image_layer_norm, bridge.language_projection
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    return (x * norm.weight + norm.bias) @ matrix.weight.mT + matrix.bias


def project_token_by_token(bridge, x):
    if (number := bridge.config.num_visual_tokens) is not None:
        x = pool_patches(x, number)
    return torch.stack([bridge.language_projection(bridge.image_layer_norm(token)) for token in x.unbind(1)], dim=1)


def block_in_two_lines(self, x, keys, values):
    x = x + self.attention_gate.tanh() * self.cross_attention(self.attention_layer_norm(x), keys, values)
    return x + self.ffn_gate.tanh() * self.contract(F.gelu(self.expand(self.ffn_layer_norm(x))))


def block_by_parts(block, x, keys, values):
    normed = block.attention_layer_norm(x)
    read = block.cross_attention(normed, keys, values)
    seen = torch.add(x, read.mul(torch.tanh(block.attention_gate)))
    network = nn.Sequential(block.ffn_layer_norm, block.expand, nn.GELU(), block.contract)
    return torch.addcmul(seen, torch.tanh(block.ffn_gate), network(seen))


def block_by_exponentials(block, x, keys, values):
    openness = [1 - 2 / (torch.exp(2 * gate) + 1) for gate in (block.attention_gate, block.ffn_gate)]
    x = openness[0] * block.cross_attention(block.attention_layer_norm(x), keys, values) + x
    hidden = block.expand(block.ffn_layer_norm(x))
    return openness[1] * block.contract(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))) + x


def block_with_attention_by_hand(block, x, keys, values):
    attention = block.cross_attention
    queries = attention.split(attention.query(block.attention_layer_norm(x)))
    weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)
    read = attention.output((weights @ values).transpose(1, 2).flatten(2))
    return block_in_two_lines_after(block, x + torch.tanh(block.attention_gate) * read)


def block_in_two_lines_after(block, x):
    return x + torch.tanh(block.ffn_gate) * block.contract(F.gelu(block.expand(block.ffn_layer_norm(x))))


def block_row_by_row(block, x, keys, values):
    rows = range(len(x))
    return torch.cat([block_in_two_lines(block, x[i : i + 1], keys[i : i + 1], values[i : i + 1]) for i in rows])


def count_on_the_model(v, d, f, n, k):
    if d > 100:
        return count(v, d, f, n, k)  # not in the memory of a test
    return sum(p.numel() for p in GatedCrossAttention(GatedCrossAttentionConfig(v, d, n, 1, k, f)).parameters())


def count_in_a_loop(v, d, f, n, k):
    total = 2 * v
    for layer in range(n):
        if layer % k == 0:
            total += sum(
                (2 * d, d * (d + 1), d * (v + 1), d * (v + 1), d * (d + 1), 1, 2 * d, f * (d + 1), d * (f + 1), 1)
            )
    return total


RIGHT = [
    *(("pool_patches", f) for f in (pool_by_loops, pool_by_view, pool_by_kernel, pool_by_matrix)),
    ("pool_patches", lambda x, n: torch.stack([pool_by_view(one[None], n)[0] for one in x])),
    ("pool_patches", lambda x, n: pool_by_view(x.double(), n).float()),
    *(("project_features", f) for f in (project_by_hand, project_token_by_token)),
    ("project_features", lambda b, x: F.linear(
        b.image_layer_norm(x if b.config.num_visual_tokens is None else pool_patches(x, b.config.num_visual_tokens)),
        b.language_projection.weight, b.language_projection.bias)),
    ("project_features", lambda b, x: torch.cat([project(b, one) for one in x.split(1)])),
    ("project_features", lambda b, x: torch.einsum("bnd,ld->bnl", b.image_layer_norm(
        pool_by_kernel(x, b.config.num_visual_tokens) if b.config.num_visual_tokens else x),
        b.language_projection.weight) + b.language_projection.bias),
    ("project_features", lambda b, x: nn.Sequential(b.image_layer_norm, b.language_projection)(
        x if not b.config.num_visual_tokens else pool_by_loops(x, b.config.num_visual_tokens))),
    *(("gated_block", f) for f in (block_in_two_lines, block_by_parts, block_by_exponentials,
                                   block_with_attention_by_hand, block_row_by_row)),
    ("gated_block", lambda b, x, k, v: (lambda y: y + b.ffn_gate.tanh() * b.contract(F.gelu(b.expand(
        b.ffn_layer_norm(y)))))(x.clone().add_(b.attention_gate.tanh() * b.cross_attention(
            b.attention_layer_norm(x), keys=k, values=v)))),
    *(("gated_parameters", f) for f in (count_on_the_model, count_in_a_loop)),
    ("gated_parameters", lambda v, d, f, n, k: 2 * v - (-n // k) * (2 * d * (d + v + f) + 9 * d + f + 2)),
    ("gated_parameters", lambda v, d, f, n, k: np.int64(count(v, d, f, n, k))),
    ("gated_parameters", lambda v, d, f, n, k: len(range(0, n, k)) * (count(v, d, f, 1, 1) - 2 * v) + 2 * v),
    ("gated_parameters", lambda v, d, f, n, k: torch.tensor(count(v, d, f, n, k))),
]  # fmt: skip

#: name of the check, answer, and a word that its message must have
WRONG = [
    ("pool_patches", lambda x, n: x[:, 1:].mean(1, keepdim=True), "tokens"),
    ("pool_patches", lambda x, n: pool_by_view(x, n).mT, "exchanged"),
    ("pool_patches", lambda x, n: -pool_by_view(x, n), "sign"),
    ("pool_patches", lambda x, n: pool_by_view(x, n).flip(1), "wrong patches"),
    ("pool_patches", lambda x, n: torch.cat([c.mean(1, keepdim=True) for c in x[:, 1:].chunk(n, 1)], 1), "sequence"),
    ("pool_patches", lambda x, n: pool_by_view(x.detach(), n), "gradient"),
    ("pool_patches", lambda x, n: pool_by_loops(x[:, [0, *range(x.shape[1] - 1)]], n), "CLS"),
    ("pool_patches", lambda x, n: x.mul_(2)[:, 1 : 1 + n], "in place"),
    ("pool_patches", lambda x, n: pool_by_view(x, n) * 2, "2 times"),
    ("project_features", lambda b, x: b.language_projection(x), "LayerNorm"),
    ("project_features", lambda b, x: F.linear(b.image_layer_norm(
        x if b.config.num_visual_tokens is None else pool_patches(x, b.config.num_visual_tokens)),
        b.language_projection.weight, b.language_projection.bias.detach()), "no gradient"),
    ("project_features", lambda b, x: project_by_hand(b, x) + 1, "too large"),
    ("project_features", lambda b, x: project(b, x).mT, "exchanged"),
    ("project_features", lambda b, x: project(b, x)[:, :1], "tokens"),
    ("project_features", lambda b, x: b.language_projection(b.image_layer_norm(x[:, 1:])), "CLS"),
    ("project_features", lambda b, x: b.image_layer_norm(x), "never called"),
    ("project_features", lambda b, x: project(b, x).detach(), "gradient"),
    ("project_features", lambda b, x: project(b, x).softmax(-1), "softmax"),
    ("project_features", lambda b, x: torch.tanh(project(b, x)), "tanh of the right answer"),
    ("gated_block", lambda b, x, k, v: x, "one of its arguments"),
    ("gated_block", lambda b, x, k, v: b.cross_attention(x, k, v), "must return x"),
    ("gated_block", lambda b, x, k, v: block(b, x, k, v).detach(), "gradient"),
    ("gated_block", lambda b, x, k, v: x + b.attention_gate.tanh() * b.cross_attention(
        b.attention_layer_norm(x), k, v), "feed-forward network is missing"),
    ("gated_block", lambda b, x, k, v: block_in_two_lines(b, x, v, k), "exchanged"),
    ("gated_block", lambda b, x, k, v: block(b, block(b, x, k, v), k, v), "step of the attention"),
    ("gated_block", lambda b, x, k, v: 2 * block(b, x, k, v), "must return x"),
    ("gated_block", lambda b, x, k, v: x + torch.sigmoid(b.attention_gate) * b.cross_attention(
        b.attention_layer_norm(x), k, v), "There are two mistakes. A sigmoid"),
    ("gated_block", lambda b, x, k, v: x + b.attention_gate.tanh().item() * (block(b, x, k, v) - x),
     "step of the attention"),
    ("gated_parameters", lambda v, d, f, n, k: 4 * d * d + 2 * d * f, "should be"),
    ("gated_parameters", lambda v, d, f, n, k: count(v, d, f, n, k) / 1e6, "should be"),
    ("gated_parameters", lambda v, d, f, n, k: float(count(v, d, f, n, k)), "whole"),
    ("gated_parameters", lambda v, d, f, n, k: count(v, d, f, n, k) - 2 * v, "LayerNorm on the image"),
    ("gated_parameters", lambda v, d, f, n, k: count(v, d, f, n, 1), "every k-th"),
    ("gated_parameters", lambda v, d, f, n, k: count(d, v, f, n, k), "should be"),
    ("gated_parameters", lambda v, d, f, n, k: count(v, d, f, 1, 1) * math.ceil(n / k), "counted in each block"),
    ("gated_parameters", lambda v, d, f, n, k: count(v, d, 0, n, k), "0 in place of `ffn_width`"),
    ("gated_parameters", lambda v, d, f, n, k: str(count(v, d, f, n, k)), "whole number"),
]  # fmt: skip


test_a_right_answer_passes_in_any_style, test_a_wrong_answer_fails_and_is_told_why, test_there_are_enough_of_both = (
    variant_tests(("pool_patches", "project_features", "gated_block", "gated_parameters"), RIGHT, WRONG)
)


@pytest.mark.parametrize("sizes", [(6, 4, 8, 5, 2), (3, 8, 5, 4, 4), (5, 2, 3, 7, 1)])
def test_the_formula_counts_what_the_bridge_has(sizes):
    v, d, f, n, k = sizes
    bridge = GatedCrossAttention(GatedCrossAttentionConfig(v, d, n, num_heads=1, every=k, ffn_width=f))
    assert count(*sizes) == count_parameters(bridge)
