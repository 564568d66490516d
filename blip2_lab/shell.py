"""What every command of the shell needs: mistakes told in one line, and told before the long work begins.

What is unusual about it:

* `explain` decides what is a user's mistake (a sentence) and what is a bug of ours (a traceback).
* It imports nothing heavy at its top, because `blip2-lab --help` answers at once.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
import sys
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
    if isinstance(error, ValueError | OSError | FloatingPointError):  # FloatingPointError: train.Diverged
        return " ".join(str(error).split()) or type(error).__name__
    return None


def check_out(file: Path | None) -> None:
    """Raises OSError for a file that cannot be written: now, and not after minutes of work. Changes nothing."""
    if file is None:
        return
    is_new = not file.exists()
    file.open("a").close()
    if is_new:
        file.unlink()


def say(what: str) -> None:
    """To whoever waits: what goes on, on stderr."""
    print(what, file=sys.stderr, flush=True)


def print_json(value: dict | list) -> None:
    """To a program that reads on."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
