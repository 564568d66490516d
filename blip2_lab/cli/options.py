"""What several commands share: which model, in which precision; and how a command is added.

Notebook: 00.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

QUANTIZE = ("none", "int8", "int8-all", "nf4")
DTYPES = ("float32", "bfloat16", "float16")


class Command(Protocol):
    """Adds a command to the command line and returns its parser, to which options are added."""

    def __call__(
        self, name: str, run: Callable | None, help: str, interrupted: str = "stopped", **options
    ) -> argparse.ArgumentParser: ...


def model_options(sub: argparse.ArgumentParser) -> None:
    """Add --model, and the precision options."""
    sub.add_argument(
        "--model", default="micro", help='"micro" (shipped), a folder, a run or a hub name (default micro)'
    )
    precision_options(sub)


def precision_options(sub: argparse.ArgumentParser) -> None:
    """Add --device, --quantize and --dtype."""
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps, … (default cpu)")
    sub.add_argument("--quantize", choices=QUANTIZE, help="8 or 4 bits; see `blip2-lab models` (default none)")
    sub.add_argument("--dtype", choices=DTYPES, help="of the frozen parts (default: the device's, see `models`)")


def refuse_unused(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises ValueError for one of these options that is given: it would change nothing."""
    for name in names:
        if getattr(args, name) != args.default_of(name):
            raise ValueError(f"--{name.replace('_', '-')} {why}")


def check_model(args: argparse.Namespace) -> None:
    """Raises ValueError where --model cannot be had, before torch is imported, which takes seconds."""
    if hasattr(args, "model") and args.model != "micro":
        from blip2_lab.checkpoints.hub import check_available
        from blip2_lab.checkpoints.local import check_holds_model

        check_holds_model(args.model)
        check_available(args.model)


def load(args: argparse.Namespace, *, answers: bool = True):
    """Load the model of the options; with `answers`, raise ValueError if it has no language model."""
    import blip2_lab

    model = blip2_lab.load(args.model, **precision_of(args))
    if not answers and getattr(model, "image_encoder", ...) is None:
        from blip2_lab.checkpoints.names import model_path
        from blip2_lab.training.loading import load_stage1

        model = load_stage1(str(model_path(args.model)), Path("runs")).to(args.device)
    if answers and not hasattr(model, "stream"):
        raise ValueError(f"{args.model} has no language model (it is made for retrieval), so it cannot answer")
    return model


def precision_of(args: argparse.Namespace) -> dict[str, str | None]:
    """The options device, quantize and dtype, as the loaders take them."""
    return dict(device=args.device, quantize=args.quantize, dtype=args.dtype)
