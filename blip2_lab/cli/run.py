"""Read the command, run it, and print an error as one sentence.

`main` is where to begin; `parser` collects the commands, which the other modules of this folder declare and run.

Notes:

* An error is one sentence on stderr with exit code 2; Ctrl-C is one sentence with 130. `--traceback` shows the rest.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from blip2_lab import __version__
from blip2_lab.cli import classroom, data, measuring, options, pictures, training
from blip2_lab.common import console, threads


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    threads.wait_passively()
    if hasattr(sys.stdout, "reconfigure"):  # a file's name may not be UTF-8, and a terminal may know ASCII only
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(argv)
    except BrokenPipeError:  # `blip2-lab recipes | head` closes the pipe early
        sys.stderr.close()
        return 0


def _run(argv: Sequence[str] | None) -> int:
    commands = parser()
    args, rest = commands.parse_known_args(argv)
    if rest and args.command != "app":
        commands.error(f"unrecognized arguments: {' '.join(rest)}{_instead(rest[0], args)}")
    args.rest = rest
    try:
        options.check_model(args)
        args.run(args)
    except KeyboardInterrupt:
        print(f"\nblip2-lab: {args.interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        sentence = console.explain(error)
        if args.traceback or sentence is None:
            raise
        console.print_progress(f"blip2-lab: {sentence}")
        return 2
    return 0


def _instead(option: str, args: argparse.Namespace) -> str:
    """The end of the error about an option that a command has not, or about a word too many."""
    if not option.startswith("--"):
        folder = next((one for one in (option, getattr(args, "query", "")) if os.path.isdir(one)), None)
        if folder is not None and "--folder" in args.own_options():
            return f"; the folder is given as --folder {folder}"
        return "; put a text of several words in quotes" if hasattr(args, "prompt") or hasattr(args, "query") else ""
    if near := console.did_you_mean(option, args.own_options(), cutoff=0.65):
        return near
    return "; settings of training are given as --set KEY=VALUE" if args.command == "train" else ""


def parser() -> argparse.ArgumentParser:
    """All commands with their options, in the order of the help."""
    root = console.Parser(prog="blip2-lab", description="A laboratory for BLIP-2: talk to it, train it, look inside.")
    root.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    root.add_argument("--traceback", action="store_true", help="show Python's traceback with an error")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, help: str, interrupted: str = "stopped", **options) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", **options)
        known = dict(own_options=lambda: sub._option_string_actions, default_of=sub.get_default)
        sub.set_defaults(run=run, interrupted=interrupted, **known)
        return sub

    for declare in (
        pictures.declare_ask,
        pictures.declare_draw,
        pictures.declare_index,
        pictures.declare_search,
        training.declare_models,
        training.declare_recipes,
        training.declare_plan,
        measuring.declare_doctor,
        training.declare_train,
        training.declare_push,
        data.declare_data,
        measuring.declare_evaluate,
        measuring.declare_compare,
        classroom.declare_class,
        pictures.declare_app,
    ):
        declare(command)
    return root
