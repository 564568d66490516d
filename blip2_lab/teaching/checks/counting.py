"""Check of notebook 16: how many parameters a gated bridge trains.

Paper: Flamingo (arXiv 2204.14198), section 3.2. Notebook: 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of


def count_gated_parameters(image_width: int, language_width: int, ffn_width: int, num_layers: int, every: int) -> int:
    """Trained parameters: a LayerNorm on the image features, and a block before layers 0, `every`, 2 `every`, …

    A block has, with biases: a LayerNorm, queries and outputs [Dl, Dl], keys and values [Dv, Dl], a gate; a LayerNorm,
    two matrices of a feed-forward network [Dl, F] and [F, Dl], a gate.
    """
    d, v, f = language_width, image_width, ffn_width
    attention = 2 * d + 2 * (d * d + d) + 2 * (v * d + d) + 1
    network = 2 * d + (d * f + f) + (f * d + d) + 1
    return 2 * v + math.ceil(num_layers / every) * (attention + network)


def _count_cases() -> list[Case]:
    sizes = ((211, 2003, 20_011, 1, 1), (3, 4, 5, 2, 1), (6, 4, 8, 4, 2), (6, 4, 8, 5, 2), (1664, 8192, 32_768, 80, 4))
    return [Case(f"Dv = {v}, Dl = {d}, F = {f}; {n} layers, every {k}", (v, d, f, n, k)) for v, d, f, n, k in sizes]


@variants_of
def _counted(
    *,
    biases: bool = True,
    norms: int = 2,
    gates: int = 2,
    keys_from: str = "image",
    squares: int = 2,
    reads: int = 2,
    networks: int = 2,
    image_norm: str = "once",
    blocks: Callable[[int, int], int] = lambda n, k: math.ceil(n / k),
) -> Callable[[int, int, int, int, int], int]:
    """`count_gated_parameters` with one thing counted differently."""

    def wrong(image_width: int, language_width: int, ffn_width: int, num_layers: int, every: int) -> int:
        v, d, f, b = image_width, language_width, ffn_width, int(biases)
        source = v if keys_from == "image" else d
        block = norms * 2 * d + squares * (d * d + b * d) + reads * (source * d + b * d) + gates
        block += d * f + b * f + (f * d + b * d if networks == 2 else 0)
        norm = {"once": 2 * v, "never": 0, "each": 0}[image_norm]
        return norm + blocks(num_layers, every) * (block + (2 * v if image_norm == "each" else 0))

    return wrong


def _counted_more(
    each: Callable[[int, int, int], int], once: Callable[[int, int, int], int] = lambda v, d, f: 0
) -> Callable[[int, int, int, int, int], int]:
    """So many parameters more in each block, and once; given Dv, Dl, F."""

    def wrong(image_width: int, language_width: int, ffn_width: int, num_layers: int, every: int) -> int:
        widths = image_width, language_width, ffn_width
        right = count_gated_parameters(*widths, num_layers, every)
        return right + math.ceil(num_layers / every) * each(*widths) + once(*widths)

    return wrong


def _terms_of(difference: int, v: int, d: int, f: int) -> list[str]:
    """A difference as few products of widths, in words. None where it takes more than four of one kind.

    The widths of the first case lie so far apart that there is one way to do so.
    """
    told = []
    sizes = {"Dl * F": d * f, "Dl * Dl": d * d, "Dv * Dl": v * d, "F": f, "Dl": d, "Dv": v, "1": 1}
    for name, size in sizes.items():
        count = round(difference / size)
        difference -= count * size
        if abs(count) > 4:
            return []
        if count:
            times = name if abs(count) == 1 else f"{abs(count)} * {name}" if name != "1" else str(abs(count))
            told.append(f"{times} too {'much' if count > 0 else 'little'}")
    return told


def _count_rules(case: Case, got: Any, expected: int) -> str | None:
    if isinstance(got, float) and got == expected:
        return "Return a whole number: parameters are counted."
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    v, d, f, n, k = case.args
    number = math.ceil(n / k)
    if n == 1 and (terms := _terms_of(int(got) - expected, v, d, f)):
        return f"Beside the right number, one block counts {' and '.join(terms)}."
    blocks, left = divmod(int(got) - 2 * v, (expected - 2 * v) // number)
    if not left and blocks != number:
        return f"Yours counts {blocks} block{'s' * (blocks != 1)}, and there are {number}: before 0, {k}, {2 * k}, …"
    attention, network = 2 * d + 2 * (d * d + d) + 2 * (v * d + d) + 1, 2 * d + (d * f + f) + (f * d + d) + 1
    return (
        f"It is {got:,} and should be {expected:,}: {2 * v:,} of the image's LayerNorm, and {number:,} "
        f"block{'s' * (number > 1)} with {attention:,} (attention, its LayerNorm, its gate) and {network:,} "
        "(network, its LayerNorm, its gate)."
    )


gated_parameters = Check(
    "gated_parameters",
    count_gated_parameters,
    _count_cases,
    "Every matrix with its bias, two LayerNorms and two gates a block, and blocks counted from layer 0.",
    {
        "The biases are forgotten: every matrix here has one.": _counted(biases=False),
        "4 Dl numbers a block are missing: two LayerNorms with a weight and a bias each, or the attention's four "
        "biases.": _counted(norms=0),
        "A block has two LayerNorms, one in front of the attention and one of the network, each with a weight and a "
        "bias.": _counted(norms=1),
        "The gates are forgotten: two numbers a block.": _counted(gates=0),
        "A block has two gates: the attention's and the network's.": _counted(gates=1),
        "Keys and values are made of image features, so their matrices are [Dv, Dl], not [Dl, Dl].": (
            _counted(keys_from="text")
        ),
        "The matrix behind the attention is forgotten: queries *and* outputs are [Dl, Dl].": _counted(squares=1),
        "Keys *and* values have a matrix each: yours counts one.": _counted(reads=1),
        "The second matrix of the network is forgotten: it leads back from F to Dl.": _counted(networks=1),
        "A LayerNorm has a weight and a bias, 2 numbers for each of its width: yours counts one.": (
            _counted_more(lambda v, d, f: -2 * d, once=lambda v, d, f: -v)
        ),
        "Queries are made of the text, so their matrix is [Dl, Dl], not [Dv, Dl].": (
            _counted_more(lambda v, d, f: v * d - d * d)
        ),
        "Queries and outputs belong to the text, so their matrices are [Dl, Dl].": (
            _counted_more(lambda v, d, f: 2 * (v * d - d * d))
        ),
        "A bias is as long as what the matrix makes, not as what it reads.": (
            _counted_more(lambda v, d, f: 2 * (v - d))
        ),
        "The bias behind `expand`, F numbers, is forgotten.": _counted_more(lambda v, d, f: -f),
        "The bias behind `contract`, Dl numbers, is forgotten.": _counted_more(lambda v, d, f: -d),
        "The biases of the network are forgotten: F and Dl numbers.": _counted_more(lambda v, d, f: -f - d),
        "A gate is one number, not one for each of the width.": _counted_more(lambda v, d, f: 2 * d - 2),
        "The LayerNorm on the image features is as wide as they are, Dv.": (
            _counted_more(lambda v, d, f: 0, once=lambda v, d, f: 2 * (d - v))
        ),
        "The two matrices of the network are [Dl, F] and [F, Dl]: yours has a matrix of another size.": (
            _counted_more(lambda v, d, f: f * f - d * f)
        ),
        "The LayerNorm on the image features is forgotten.": _counted(image_norm="never"),
        "The LayerNorm on the image features is counted in each block: there is one for all.": (
            _counted(image_norm="each")
        ),
        "Blocks stand before layers 0, every, 2 every, …: of 5 layers with every = 2 that is 3, so round up.": (
            _counted(blocks=lambda n, k: n // k)
        ),
        "A block is counted before every layer: they stand before every k-th only.": _counted(blocks=lambda n, k: n),
        "A single block is counted: there is one before every k-th layer.": _counted(blocks=lambda n, k: 1),
        "One block too many: with every = 2 and 4 layers, blocks stand before 0 and 2.": (
            _counted(blocks=lambda n, k: n // k + 1)
        ),
    },
    rules=(_count_rules,),
)
