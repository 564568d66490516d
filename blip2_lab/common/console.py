"""Talk to whoever typed a command: errors in one sentence, "did you mean", progress on stderr, JSON on stdout.

`explain` is where to begin: it decides what is a user's mistake (one sentence) and what is a bug (a traceback).

Notes:

* Nothing heavy is imported here, because `blip2-lab --help` answers at once.

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


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def explain(error: Exception) -> str | None:
    """One line about an error that a user can do something about; None for a bug of ours."""
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "").startswith("blip2_lab"):
            return None
        install = f"pip install {error.name}, or run `make` in the repository"
        return f"this command needs {error.name}, which is not installed: {install}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, a RuntimeError; torch is not imported to name its class
        return "the GPU's memory is full: take a smaller model or batch, or --quantize; see `blip2-lab models`"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError | FloatingPointError):  # FloatingPointError: divergence.Diverged
        return " ".join(str(error).split()) or type(error).__name__
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean 'optim.lr'?", or nothing where no name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_writable(file: Path | None) -> None:
    """Raises OSError for a file that cannot be written: now, and not after minutes of work. Changes nothing."""
    if file is None:
        return
    is_new = not file.exists()
    file.open("a").close()
    if is_new:
        file.unlink()


def print_progress(what: str) -> None:
    """To whoever waits: what goes on, on stderr."""
    print(what, file=sys.stderr, flush=True)


def print_json(value: dict | list) -> None:
    """To a program that reads on."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
