"""What serves a CPU: a linear layer of FlanT5 in float32, bfloat16, our int8 and bitsandbytes' int8.

    python -m benchmarks.int8_on_cpu

One row is a word of one answer; four and sixteen, words of as many answers or beams; forty, a picture and its question
on their way in. Also the error of each against float32, for inputs and weights drawn at random with a few outliers.
"""

from __future__ import annotations

import argparse
import logging

import torch
from torch import nn

from benchmarks.measure import heading, spread, take_turns
from blip2_lab.models.quantize import Int8Linear, quantize_weight

SHAPES = {"flan-t5-xl": (2048, 5120), "flan-t5-xxl": (4096, 10240)}


@torch.no_grad()
def layers(width: int, ffn_width: int) -> dict[str, nn.Module]:
    """The same wide matrix, four times."""
    from bitsandbytes.nn import Linear8bitLt

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    exact = nn.Linear(width, ffn_width, bias=False)
    half = nn.Linear(width, ffn_width, bias=False, dtype=torch.bfloat16)
    half.weight.copy_(exact.weight)
    ours = Int8Linear(width, ffn_width, bias=False)
    theirs = Linear8bitLt(width, ffn_width, bias=False, has_fp16_weights=False, threshold=6.0)
    quantize_weight(ours, exact.weight, "cpu")
    quantize_weight(theirs, exact.weight, "cpu")
    return {"float32": exact, "bfloat16": half, "int8 (ours)": ours, "int8 (bitsandbytes)": theirs}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="flan-t5-xl")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.manual_seed(0)
    width, ffn_width = SHAPES[args.shape]
    made = layers(width, ffn_width)
    with heading(f"{args.shape}, a layer of {width} x {ffn_width}, milliseconds, {torch.get_num_threads()} threads"):
        print(f"  {'rows':>6}" + "".join(f"{name:>26}" for name in made))
        for rows in (1, 4, 16, 40):
            x = torch.randn(rows, width)
            x[:, :4] *= 20  # outliers, as language models have them
            given = {name: x.to(torch.float32 if name == "float32" else torch.bfloat16) for name in made}
            steps = {name: (lambda layer=layer, x=given[name]: layer(x)) for name, layer in made.items()}
            seconds = take_turns(steps, args.rounds, lambda: None)
            print(f"  {rows:6}" + "".join(f"{spread([1000 * one for one in took]):>26}" for took in seconds.values()))
        exact = made["float32"](x)
        errors = {n: ((layer(given[n]).float() - exact).norm() / exact.norm()).item() for n, layer in made.items()}
        print(f"  {'error':>6}" + "".join(f"{value:26.1e}" for value in errors.values()))


if __name__ == "__main__":
    main()
