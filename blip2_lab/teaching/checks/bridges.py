"""Checks of notebook 16: pooled patches, a projector, a gated block, and how many parameters a gated bridge trains.

Paper: LLaVA (arXiv 2304.08485), section 4.1; Flamingo (arXiv 2204.14198), section 2.2. Notebook: 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.bridges import linear
from blip2_lab.models.bridges.gated_cross_attention import GatedBlock
from blip2_lab.models.bridges.linear import LinearBridge, LinearConfig
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case, learning, parameters_of
from blip2_lab.teaching.checks.variants import variants_of

# --- Pooled patches -------------------------------------------------------------------------------------------------


def _pool_cases() -> list[Case]:
    cases = []
    shapes = ((1, 2, 1, 1), (1, 4, 2, 4), (1, 4, 1, 2), (1, 4, 2, 8), (2, 6, 3, 9))
    for images, side, width, count in shapes:
        generator = torch.Generator().manual_seed(side + count)
        leaf, features = learning(torch.randn(images, 1 + side * side, width, generator=generator))
        name = f"{images} image{'s' * (images > 1)}, {side} x {side} patches, Dv = {width}, count = {count}"
        cases.append(Case(name, (features, count), {"the image features": leaf}))
    return cases


def _grid(patches: Tensor) -> Tensor:
    """[B,G*G,Dv] -> [B,Dv,G,G]."""
    side = math.isqrt(patches.shape[1])
    return patches.transpose(1, 2).unflatten(2, (side, side))


def _rows_columns(count: int) -> tuple[int, int]:
    rows = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    return rows, count // rows


@variants_of
def _pooled(
    patches: Callable[[Tensor], Tensor] = lambda x: x[:, 1:],
    pool: Callable[[Tensor, tuple[int, int]], Tensor] = F.adaptive_avg_pool2d,
    turned: bool = False,
) -> Callable[[Tensor, int], Tensor]:
    """`pool_patches` with one thing done differently."""

    def wrong(image_features: Tensor, count: int) -> Tensor:
        rows, columns = _rows_columns(count)
        grid = pool(_grid(patches(image_features)), (columns, rows) if turned else (rows, columns))
        return grid.flatten(2).transpose(1, 2)

    return wrong


def _corners(grid: Tensor, shape: tuple[int, int]) -> Tensor:
    side = grid.shape[-1]
    return grid[:, :, :: side // shape[0], :: side // shape[1]]


def _view(image_features: Tensor) -> Tensor:
    """Patches [B,G*G,Dv] that are called [B,Dv,G,G] without being moved."""
    side = math.isqrt(image_features.shape[1] - 1)
    return image_features[:, 1:].reshape(len(image_features), -1, side, side)


def _medians(grid: Tensor, shape: tuple[int, int]) -> Tensor:
    tall, wide = (grid.shape[-1] // n for n in shape)
    return grid.unfold(2, tall, tall).unfold(3, wide, wide).flatten(4).median(-1).values


def _transposed(got: Any, expected: Tensor) -> str | None:
    if isinstance(got, Tensor) and got.shape == expected.mT.shape != expected.shape:
        return "The last two dimensions are exchanged: one row for each token, [B, tokens, width]."
    return None


def _pool_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    if not isinstance(got, Tensor):
        return None
    if turned := _transposed(got, expected):
        return turned
    count = case.args[1]
    if got.ndim == 3 and got.shape[1] != count:
        return f"Return {count} tokens for each image; yours returns {got.shape[1]}."
    if got.shape == expected.shape and torch.allclose(got.mean(dim=1), expected.mean(dim=1), atol=1e-4):
        return "The mean of your tokens is right; a token averages the wrong patches: those of one region of the grid."
    return None


pool_patches = Check(
    "pool_patches",
    linear.pool_patches,
    _pool_cases,
    "Each token is the mean of one region of the grid, region by region from the top left, without [CLS].",
    {
        "[CLS] is taken for a patch and the last patch is lost: leave out position 0.": _pooled(lambda x: x[:, :-1]),
        "[CLS] stands in front of your tokens: leave it out.": (
            lambda x, count: torch.cat([x[:, :1], linear.pool_patches(x, count)], dim=1)
        ),
        "You pool patches that follow one another in the sequence. Regions of the *grid* belong together.": (
            lambda x, count: x[:, 1:].unflatten(1, (count, -1)).mean(dim=2)
        ),
        "You pool patches that lie far apart: a token is the mean of one region of the grid.": (
            lambda x, count: x[:, 1:].unflatten(1, (-1, count)).mean(dim=1)
        ),
        "That is the largest value of each region: take the mean.": _pooled(pool=F.adaptive_max_pool2d),
        "That is the sum of each region: take the mean.": (
            _pooled(pool=lambda g, s: F.adaptive_avg_pool2d(g, s) * (g.shape[-1] ** 2 / (s[0] * s[1])))
        ),
        "One patch of each region is kept and the others are lost: take the mean of all.": _pooled(pool=_corners),
        "Rows and columns are exchanged: 2 tokens are 1 row of 2, and 8 are 2 rows of 4.": _pooled(turned=True),
        "Your tokens run down the columns: go row by row, as the patches do.": (
            lambda x, count: F.adaptive_avg_pool2d(_grid(x[:, 1:]), _rows_columns(count)).mT.flatten(2).transpose(1, 2)
        ),
        "The grid is made by one view, so numbers of different patches are mixed: exchange patches and width first.": (
            lambda x, count: F.adaptive_avg_pool2d(_view(x), _rows_columns(count)).reshape(len(x), count, -1)
        ),
        "You pool the sequence, with [CLS] in it: leave [CLS] out, and pool regions of the *grid*.": (
            lambda x, count: F.adaptive_avg_pool1d(x.mT, count).mT
        ),
        "[CLS] is mixed into every token: leave it out.": (
            lambda x, count: (linear.pool_patches(x, count) + x[:, :1]) / 2
        ),
        "Every k-th patch of the sequence is kept and the others are lost: take the mean of each region.": (
            lambda x, count: x[:, 1:][:, :: (x.shape[1] - 1) // count]
        ),
        "The patches are read column by column: the sequence runs row by row.": (
            _pooled(lambda x: x[:, 1:].unflatten(1, (math.isqrt(x.shape[1] - 1), -1)).transpose(1, 2).flatten(1, 2))
        ),
        "All tokens lie in one column: the regions form a grid that is as square as possible.": (
            lambda x, count: F.adaptive_avg_pool2d(_grid(x[:, 1:]), (count, 1)).flatten(2).transpose(1, 2)
        ),
        "Up to 8 tokens lie in one row: the regions form a grid that is as square as possible.": (
            lambda x, count: (
                linear.pool_patches(x, count)
                if count > 8
                else F.adaptive_avg_pool2d(_grid(x[:, 1:]), (1, count)).flatten(2).transpose(1, 2)
            )
        ),
        "The mean is taken over the rows of a region only: take it over its columns as well.": (
            _pooled(pool=lambda g, s: F.adaptive_avg_pool2d(g, (s[0], g.shape[-1]))[..., :: g.shape[-1] // s[1]])
        ),
        "The mean is taken over the columns of a region only: take it over its rows as well.": (
            _pooled(pool=lambda g, s: F.adaptive_avg_pool2d(g, (g.shape[-1], s[1]))[:, :, :: g.shape[-1] // s[0]])
        ),
        "The median of each region is not its mean.": _pooled(pool=_medians),
        "All tokens lie in one row: the regions form a grid that is as square as possible.": (
            lambda x, count: F.adaptive_avg_pool2d(_grid(x[:, 1:]), (1, count)).flatten(2).transpose(1, 2)
        ),
        "Those are the first patches alone: the rest of the picture is lost.": lambda x, count: x[:, 1 : 1 + count],
        "Every token is the mean of the whole picture: average each region by itself.": (
            lambda x, count: x[:, 1:].mean(dim=1, keepdim=True).expand(-1, count, -1)
        ),
    },
    rules=(_pool_rules,),
)

# --- A projector ----------------------------------------------------------------------------------------------------


def _linear_bridge(count: int | None) -> LinearBridge:
    """A projector with large random parameters, so that none of them can be forgotten unnoticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        bridge = LinearBridge(LinearConfig(image_width=4, language_width=3, num_visual_tokens=count))
        with torch.no_grad():
            for parameter in bridge.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    return bridge


def _project_cases() -> list[Case]:
    cases = []
    for images, side, count in ((1, 2, None), (2, 2, None), (1, 4, 4), (2, 4, 2)):
        generator = torch.Generator().manual_seed(side)
        leaf, features = learning(2 * torch.randn(images, 1 + side * side, 4, generator=generator) + 0.5)
        bridge = _linear_bridge(count)
        learns = {"the image features": leaf, **parameters_of(bridge, "the projector")}
        name = f"{images} image{'s' * (images > 1)} of {side} x {side} patches, num_visual_tokens = {count}"
        cases.append(Case(name, (bridge, features), learns))
    return cases


@variants_of
def _projected(
    before: Callable[[LinearBridge, Tensor], Tensor] | None = None,
    project: Callable[[nn.Linear, Tensor], Tensor] = lambda matrix, x: matrix(x),
) -> Callable[[LinearBridge, Tensor], Tensor]:
    """`LinearBridge.forward` with another thing in front of the matrix, or in its place."""

    def usual(bridge: LinearBridge, features: Tensor) -> Tensor:
        count = bridge.config.num_visual_tokens
        return bridge.image_layer_norm(features if count is None else linear.pool_patches(features, count))

    def wrong(bridge: LinearBridge, features: Tensor) -> Tensor:
        return project(bridge.language_projection, (before or usual)(bridge, features))

    return wrong


def _pooled_if_asked(bridge: LinearBridge, features: Tensor) -> Tensor:
    count = bridge.config.num_visual_tokens
    return features if count is None else linear.pool_patches(features, count)


def _norm_with(norm: Callable[[nn.LayerNorm, Tensor], Tensor]) -> Callable[[LinearBridge, Tensor], Tensor]:
    return lambda bridge, features: norm(bridge.image_layer_norm, _pooled_if_asked(bridge, features))


def _norm_first(bridge: LinearBridge, features: Tensor) -> Tensor:
    return _pooled_if_asked(bridge, bridge.image_layer_norm(features))


def _first_patches(bridge: LinearBridge, features: Tensor) -> Tensor:
    count = bridge.config.num_visual_tokens
    return features if count is None else features[:, 1 : 1 + count]


def _never_cls(bridge: LinearBridge, features: Tensor) -> Tensor:
    return bridge.image_layer_norm(_pooled_if_asked(bridge, features))[
        :, int(bridge.config.num_visual_tokens is None) :
    ]


def _project_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    if turned := _transposed(got, expected):
        return turned
    if not isinstance(got, Tensor) or got.ndim != 3 or got.shape[1] == expected.shape[1]:
        return None
    lost = case.args[0].config.num_visual_tokens is None and got.shape[1] == expected.shape[1] - 1
    cause = " Is it [CLS] that is missing? Every feature becomes a token." if lost else ""
    return f"Return {expected.shape[1]} tokens for each image; yours returns {got.shape[1]}.{cause}"


project_features = Check(
    "project_features",
    LinearBridge.forward,
    _project_cases,
    "LayerNorm and one matrix for each feature by itself; pooled before, where fewer tokens are asked for.",
    {
        "The LayerNorm is missing: image features come in sizes that the language model does not expect.": (
            _projected(_pooled_if_asked)
        ),
        "That is the matrix alone: the LayerNorm is missing, and pooling where fewer tokens are asked for.": (
            _projected(lambda bridge, features: features)
        ),
        "The LayerNorm comes before pooling in yours. Pool first: the mean of normalized vectors is not normalized.": (
            _projected(_norm_first)
        ),
        "Nothing is pooled: where `num_visual_tokens` is set, so many tokens are asked for.": (
            _projected(lambda bridge, features: bridge.image_layer_norm(features))
        ),
        "The first patches are kept and the others are lost: pool them, so that every patch is in a token.": (
            _projected(lambda bridge, features: bridge.image_layer_norm(_first_patches(bridge, features)))
        ),
        "[CLS] is lost: without pooling, every feature becomes a token.": _projected(_never_cls),
        "The bias of the matrix is missing.": _projected(project=lambda matrix, x: x @ matrix.weight.T),
        "The LayerNorm's own weight and bias are missing: call the module.": (
            _projected(_norm_with(lambda norm, x: F.layer_norm(x, norm.normalized_shape, eps=norm.eps)))
        ),
        "The LayerNorm comes after the matrix: it stands in front of it.": (
            _projected(_pooled_if_asked, lambda matrix, x: F.layer_norm(matrix(x), (matrix.out_features,)))
        ),
        "There is a second LayerNorm, behind the matrix: only the features are normalized.": (
            _projected(project=lambda matrix, x: F.layer_norm(matrix(x), (matrix.out_features,)))
        ),
        "The mean is subtracted, but nothing is divided by the spread: call the LayerNorm.": (
            _projected(_norm_with(lambda norm, x: (x - x.mean(-1, keepdim=True)) * norm.weight + norm.bias))
        ),
        "The LayerNorm runs over all features of a picture: each feature is normalized by itself.": (
            _projected(_norm_with(lambda norm, x: F.layer_norm(x, x.shape[1:]) * norm.weight + norm.bias))
        ),
        "What the LayerNorm gives is doubled: multiply it by the matrix as it is.": (
            _projected(_norm_with(lambda norm, x: 2 * norm(x)))
        ),
        "The LayerNorm is applied twice.": _projected(_norm_with(lambda norm, x: norm(norm(x)))),
        "There is a nonlinearity too many: this projector is one matrix.": (
            _projected(project=lambda matrix, x: F.gelu(matrix(x)))
        ),
        "There is a nonlinearity in front of the matrix: this projector is one matrix.": (
            _projected(project=lambda matrix, x: matrix(F.gelu(x)))
        ),
        "The first tokens are kept instead of pooled ones: average the regions of the grid.": (
            _projected(lambda bridge, features: bridge.image_layer_norm(features[:, : bridge.config.num_visual_tokens]))
        ),
        "There is a ReLU too many: this projector is one matrix.": _projected(
            project=lambda matrix, x: matrix(x).relu()
        ),
        "Your tokens are one mean vector: each feature becomes a token of its own.": (
            _projected(project=lambda matrix, x: matrix(x).mean(dim=1, keepdim=True).expand(-1, x.shape[1], -1))
        ),
        "Each feature is divided by its length: LayerNorm subtracts the mean and divides by the spread.": (
            _projected(_norm_with(lambda norm, x: F.normalize(x, dim=-1)))
        ),
        "[CLS] is not left out in front of the pooled tokens: pooling is for patches.": (
            lambda bridge, features: (
                LinearBridge.forward(bridge, features)
                if bridge.config.num_visual_tokens is None
                else bridge.language_projection(
                    bridge.image_layer_norm(torch.cat([features[:, :1], _pooled_if_asked(bridge, features)], dim=1))
                )
            )
        ),
    },
    rules=(_project_rules,),
)

# --- A gated block --------------------------------------------------------------------------------------------------


def _block(attention_gate: float, ffn_gate: float) -> GatedBlock:
    """A block with large random parameters and these gates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        block = GatedBlock(width=4, num_heads=2, memory_width=3, ffn_width=8)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.6 * torch.randn_like(parameter))
            block.attention_gate.fill_(attention_gate)
            block.ffn_gate.fill_(ffn_gate)
    return block


def _gated_cases() -> list[Case]:
    cases = []
    for seed, gates in enumerate(((0.0, 0.0), (0.8, 0.0), (0.0, 0.8), (1.5, -0.5))):
        generator = torch.Generator().manual_seed(seed)
        block = _block(*gates)
        memory = torch.randn(2, 5, 3, generator=generator)
        keys, values = (part.detach() for part in block.cross_attention.keys_values(memory))
        leaf, x = learning(torch.randn(2, 3, 4, generator=generator))
        learns = {"x": leaf, **parameters_of(block, "the block")}
        cases.append(
            Case(f"gates {gates[0]:g} and {gates[1]:g}; 3 tokens, 5 patches", (block, x, keys, values), learns)
        )
    return cases


@variants_of
def _gated(
    *,
    gate: Callable[[Tensor], Tensor] = torch.tanh,
    gates: str = "own",
    keep: Callable[[Tensor, Tensor], Tensor] = lambda x, g: x,
    attention_norm: str = "own",
    ffn_norm: str = "own",
    attends: bool = True,
    ffn: bool = True,
    parallel: bool = False,
    ffn_first: bool = False,
    nonlinearity: Callable[[Tensor], Tensor] = F.gelu,
    memory: str = "own",
    keep_normed: bool = False,
    gated_sum: bool = False,
    gate_inside: bool = False,
    ffn_gate: bool = True,
    attention_gate: bool = True,
    post_norm: bool = False,
    bias: bool = True,
    keep_x: bool = True,
    keep_new: bool = True,
    old: bool = False,
) -> Callable[[GatedBlock, Tensor, Tensor, Tensor], Tensor]:
    """`GatedBlock.forward` with one thing done differently."""

    def wrong(block: GatedBlock, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        first, second = block.attention_gate, block.ffn_gate
        if gates == "exchanged":
            first, second = second, first
        if gates == "one":
            second = first
        g1 = gate(first) if attention_gate else torch.ones_like(first)
        g2 = gate(second) if ffn_gate else torch.ones_like(second)

        def look(h: Tensor) -> Tensor:
            if not attends:
                return h
            norms = {"own": block.attention_layer_norm, "ffn": block.ffn_layer_norm}
            normed = norms[attention_norm](h) if attention_norm in norms and not post_norm else h
            pairs = {
                "own": (keys, values),
                "exchanged": (values, keys),
                "keys": (keys, keys),
                "values": (values, values),
            }
            read = block.cross_attention(normed, *pairs[memory])
            if post_norm:
                read = block.attention_layer_norm(read)
            new = gate(first * read) if gate_inside else g1 * read
            kept = normed if keep_normed else h
            return (g1 * h if gated_sum else keep(kept, g1) if keep_x else 0) + new

        def think(h: Tensor, source: Tensor) -> Tensor:
            if not ffn:
                return h
            norms = {"own": block.ffn_layer_norm, "attention": block.attention_layer_norm}
            normed = norms[ffn_norm](source) if ffn_norm in norms and not post_norm else source
            out = block.contract(nonlinearity(block.expand(normed))) - (0 if bias else block.contract.bias)
            if post_norm:
                out = block.ffn_layer_norm(out)
            new = gate(second * out) if gate_inside else g2 * out
            kept = x if old else normed if keep_normed else h
            return (keep(kept, g2) if keep_new else 0) + new

        if ffn_first:
            return look(think(x, x))
        seen = look(x)
        return think(seen, x if parallel else seen)

    return wrong


def _reads_the_read(block: GatedBlock, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    read = block.cross_attention(block.attention_layer_norm(x), keys, values)
    x = x + torch.tanh(block.attention_gate) * read
    return x + torch.tanh(block.ffn_gate) * block.contract(F.gelu(block.expand(block.ffn_layer_norm(read))))


def _as_in_bert(block: GatedBlock, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    x = block.attention_layer_norm(x + torch.tanh(block.attention_gate) * block.cross_attention(x, keys, values))
    return block.ffn_layer_norm(x + torch.tanh(block.ffn_gate) * block.contract(F.gelu(block.expand(x))))


def _gated_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    attention, network = case.args[0].attention_gate.any(), case.args[0].ffn_gate.any()
    if not isinstance(got, Tensor) or got.shape != expected.shape or (attention and network):
        return None
    if not attention and not network:
        return "With both gates at 0 the block must return x as it is: the language model is then unchanged."
    return f"The step of the {'attention' if attention else 'network'} is wrong: in this case it stands alone."


gated_block = Check(
    "gated_block",
    GatedBlock.forward,
    _gated_cases,
    "With gates at 0 it returns x; both gates open by tanh, attention first, and each step adds to the text.",
    {
        "The tanh is missing: a gate is a number without limits, and tanh keeps it between -1 and 1.": (
            _gated(gate=lambda g: g)
        ),
        "A sigmoid is half open at 0: the language model would be disturbed from the first step. Take tanh.": (
            _gated(gate=torch.sigmoid)
        ),
        "The residual connections are missing: what is read is added to x.": (
            _gated(keep=lambda x, g: torch.zeros_like(x))
        ),
        "The first residual connection is missing: what is read is added to x.": _gated(keep_x=False),
        "The second residual connection is missing: the network's output is added to the new x.": _gated(
            keep_new=False
        ),
        "The second residual connection adds the old x: add the new one, in which the attention already is.": (
            _gated(old=True)
        ),
        "The LayerNorms go over the sums, as in BERT: they belong in front of attention and network.": _as_in_bert,
        "The gate is 1 + tanh: it is tanh, which is 0 at the start.": _gated(gate=lambda g: 1 + torch.tanh(g)),
        "The text itself is turned down where the gate opens: x is kept whole, and only what is new is gated.": (
            _gated(keep=lambda x, g: (1 - g) * x)
        ),
        "The gate is applied to the text, too: it belongs to what is new.": _gated(keep=lambda x, g: g * x),
        "The LayerNorm in front of the attention is missing.": _gated(attention_norm="none"),
        "The LayerNorm in front of the feed-forward network is missing.": _gated(ffn_norm="none"),
        "Both LayerNorms are missing.": _gated(attention_norm="none", ffn_norm="none"),
        "The feed-forward network has a LayerNorm of its own: ffn_layer_norm.": _gated(ffn_norm="attention"),
        "The LayerNorms come after attention and network here: they belong in front of them.": _gated(post_norm=True),
        "The feed-forward network reads the old x: it comes after the attention.": _gated(parallel=True),
        "The feed-forward network comes first: first look, then think.": _gated(ffn_first=True),
        "The two gates are exchanged.": _gated(gates="exchanged"),
        "One gate is used for both: the feed-forward network has its own.": _gated(gates="one"),
        "The feed-forward network is missing.": _gated(ffn=False),
        "The attention is missing: nothing of the picture is read.": _gated(attends=False),
        "The feed-forward network is not gated: then the block changes the text from the first step.": (
            _gated(ffn_gate=False)
        ),
        "The attention is not gated: then the block changes the text from the first step.": (
            _gated(attention_gate=False)
        ),
        "Nothing is gated: then the block changes the text from the first step.": (
            _gated(ffn_gate=False, attention_gate=False)
        ),
        "The nonlinearity of the feed-forward network is missing (F.gelu).": _gated(nonlinearity=lambda h: h),
        "The nonlinearity is F.gelu, not SiLU.": _gated(nonlinearity=F.silu),
        "The nonlinearity is F.gelu, not tanh.": _gated(nonlinearity=torch.tanh),
        "The nonlinearity is F.gelu, not a sigmoid.": _gated(nonlinearity=torch.sigmoid),
        "The two LayerNorms are exchanged.": _gated(attention_norm="ffn", ffn_norm="attention"),
        "The bias behind the feed-forward network is missing: call contract.": _gated(bias=False),
        "The nonlinearity is F.gelu, not a ReLU.": _gated(nonlinearity=F.relu),
        "The image's keys and values are exchanged.": _gated(memory="exchanged"),
        "The image's keys are given as values, too.": _gated(memory="keys"),
        "The image's values are given as keys, too.": _gated(memory="values"),
        "The attention's gate multiplies x, too: it belongs to what is read.": _gated(gated_sum=True),
        "What is added to is the normalized text: keep x as it is, and give LN(x) to attention and network alone.": (
            _gated(keep_normed=True)
        ),
        "The gate is 2 sigmoid - 1, the tanh of half of it: take tanh.": _gated(
            gate=lambda g: 2 * torch.sigmoid(g) - 1
        ),
        "The feed-forward network reads what the attention has read, not the sum: it reads the new x.": (
            _reads_the_read
        ),
        "The tanh goes over the product with the gate: it goes over the gate alone.": _gated(gate_inside=True),
    },
    rules=(_gated_rules,),
)
