"""Console output of the commands: errors in one sentence, "did you mean", numbers with their nouns, progress, JSON.

`explain` is where to begin: it separates errors that a user can fix (one sentence) from bugs (a traceback).

Notes:

* This module imports the standard library and characters.py only, so that `blip2-lab --help` is fast.

Paper: none. Notebook: 00.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from blip2_lab.common.characters import printable


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def explain(error: Exception) -> str | None:
    """One line about an error that the user can fix; None for a bug in this package."""
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "").startswith("blip2_lab"):
            return None
        install = f"pip install {error.name}, or run `make` in the repository"
        return f"this command needs {error.name}, which is not installed: {install}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, a RuntimeError; torch is not imported to name its class
        return "the GPU's memory is full: use a smaller model or batch, or --quantize; see `blip2-lab models`"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return printable(f"{error.filename}: {error.strerror}")
    if isinstance(error, ValueError | OSError | FloatingPointError):  # FloatingPointError: divergence.Diverged
        return printable(" ".join(str(error).split())) or type(error).__name__
    return None


#: What other libraries call a setting of training -> the last part of its name here.
OTHER_SETTINGS = {
    **dict.fromkeys(("learning_rate", "init_lr", "base_lr"), "lr"),
    **dict.fromkeys(("epochs", "epoch", "max_epoch", "num_train_epochs", "max_steps", "max_iters", "iters"), "steps"),
    **dict.fromkeys(("batch_size_train", "per_device_train_batch_size", "bs"), "batch_size"),
    **dict.fromkeys(("gradient_accumulation_steps", "accum_grad_iters", "grad_accum"), "accumulate"),
    **dict.fromkeys(("gradient_checkpointing", "use_grad_checkpoint", "grad_checkpoint"), "checkpoint_layers"),
    **dict.fromkeys(("fp16", "bf16", "amp", "mixed_precision", "vit_precision", "torch_dtype"), "precision"),
    **dict.fromkeys(("warmup", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("num_workers", "workers", "dataloader_num_workers"), "threads"),
    **dict.fromkeys(("max_length", "max_txt_len", "max_len", "max_seq_length"), "max_text_tokens"),
    **dict.fromkeys(("img_size", "resolution"), "image_size"),
    **dict.fromkeys(("freeze_vit", "unfreeze_vit", "train_vit"), "train_image_encoder"),
    **dict.fromkeys(("r", "lora_r", "lora_rank"), "rank"),
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "layers",
    "save_steps": "save_every",
    "eval_steps": "eval_every",
    "report_to": "log_with",
}


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The end of an error message: "; did you mean 'optim.lr'?", or "" where no known name is close. A setting may
    have the name of another library."""
    known, (section, _, last) = list(known), name.rpartition(".")
    same = [one for one in known if one.rpartition(".")[2] == OTHER_SETTINGS.get(last)]
    if same:
        return f"; did you mean {min(same, key=lambda one: not one.startswith(f'{section}.'))!r}?"
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def count_of(number: int, one: str, several: str) -> str:
    """ "1 picture has", "2 pictures have": a number with the words that fit it."""
    return f"{number} {one if number == 1 else several}"


def check_writable(file: Path | None) -> None:
    """Raises OSError for a file that cannot be written, before minutes of computation. Changes nothing."""
    if file is None:
        return
    is_new = not file.exists()
    file.open("a").close()
    if is_new:
        file.unlink()


def print_progress(what: str) -> None:
    """Print a line of progress on stderr."""
    print(what, file=sys.stderr, flush=True)


def print_json(value: dict | list) -> None:
    """Print JSON on stdout, for another program."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
