"""The command line: `blip2-lab COMMAND …`, the same as `python -m blip2_lab COMMAND …`.

What is unusual about it:

* Imports happen inside the command that needs them, so `blip2-lab --help` answers at once.
* An error is one sentence on stderr and exit code 2; Ctrl-C is one sentence and 130. `--traceback` shows the rest.
* What a program may want to read goes to stdout as JSON with `--json`; everything else is for people.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    commands = parser()
    args, rest = commands.parse_known_args(argv)
    if rest and args.command != "app":
        commands.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        args.run(args)
    except KeyboardInterrupt:
        print(f"\nblip2-lab: {args.interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `blip2-lab recipes | head`: the reader has seen enough
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        if args.traceback or (error.name or "").startswith("blip2_lab"):
            raise
        print(f"blip2-lab: {_needs(error.name)}", file=sys.stderr)
        return 2
    except (ValueError, OSError, FloatingPointError) as error:  # FloatingPointError: train.Diverged
        if args.traceback:
            raise
        print(f"blip2-lab: {_sentence(error)}", file=sys.stderr)
        return 2
    return 0


def _sentence(error: Exception) -> str:
    """One line of an error's message; the file's name if the system gave one."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _needs(module: str | None) -> str:
    return f"this command needs {module}, which is not installed: pip install {module}, or run `make` in the repository"


# ------------------------------------------------------------------------------------------------------------ parsers


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    root = _Parser(prog="blip2-lab", description="A laboratory for BLIP-2: talk to it, train it, look inside.")
    root.add_argument("--traceback", action="store_true", help="show Python's traceback with an error")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, help: str, interrupted: str = "stopped") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run, interrupted=interrupted)
        return sub

    ask = command("ask", _ask, "ask a question about a picture")
    ask.add_argument("picture", metavar="PICTURE", help="PNG, JPEG, WebP or GIF")
    ask.add_argument("prompt", metavar="PROMPT", help='for example "Question: what color is the boat? Short answer:"')
    _model_options(ask)
    ask.add_argument("--beams", type=int, default=5, metavar="N", help="width of the search; 1: greedy (default 5)")
    ask.add_argument("--max-tokens", type=int, default=30, metavar="N", help="longest answer (default 30)")
    ask.add_argument("--length-penalty", type=float, default=-1.0, metavar="X", help="below 0: short (default -1)")
    ask.add_argument("--sample", action="store_true", help="draw from the nucleus instead of searching")
    ask.add_argument("--top-p", type=float, default=0.9, metavar="P", help="with --sample: the nucleus (default 0.9)")
    ask.add_argument("--temperature", type=float, default=1.0, metavar="X", help="with --sample (default 1)")
    ask.add_argument("--seed", type=int, default=0, help="with --sample (default 0)")
    ask.add_argument("--json", action="store_true", help="print the answer with each token's probability as JSON")

    draw = command("draw", _draw, "draw a scene of the picture book")
    draw.add_argument("--seed", type=int, default=0, help="which book (default 0)")
    draw.add_argument("--index", type=int, default=0, help="which page (default 0)")
    draw.add_argument("--split", default="train", help="train, in, near or out (default train)")
    draw.add_argument("--size", type=int, default=384, metavar="PIXELS", help="side of the picture (default 384)")
    draw.add_argument("--out", type=Path, metavar="FILE", help="where to write the picture (default scene.png)")
    draw.add_argument("--json", action="store_true", help="print the scene's truth as JSON; draw only with --out")

    command("recipes", _recipes, "list what can be trained, and what it costs")

    resumes = "stopped; the same command goes on from the last checkpoint"
    train = command("train", _train, "train a recipe; goes on where an interrupted run stopped", resumes)
    train.add_argument("recipe", metavar="RECIPE", help="a name from `blip2-lab recipes`, for example micro-all")
    train.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs live (default runs)")
    train.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET_HELP)
    start = train.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the last checkpoint (the default)")
    start.add_argument("--restart", action="store_true", help="remove the checkpoints and the log, begin at step 0")
    train.add_argument("--quiet", action="store_true", help="no progress lines; log.jsonl is written all the same")

    evaluate = command("evaluate", _evaluate, "measure a model on held-out scenes")
    _model_options(evaluate)
    evaluate.add_argument("--scenes", type=int, default=1000, metavar="N", help="how many (default 1000)")
    evaluate.add_argument("--split", default="in", help="in, near or out of the training's domain (default in)")
    evaluate.add_argument("--beams", type=int, default=1, metavar="N", help="width of the search (default 1, greedy)")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers there as JSON")

    command(
        "app", _app, "open the chat about a picture in the browser; takes the options of app.py (--model, --port, …)"
    )
    return root


_SET_HELP = "change one value: optim.lr=5e-5, or micro-vit/optim.steps=100 for a part of micro-all; repeatable"


def _model_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="micro", help='"micro" (shipped), a folder or a hub name (default micro)')
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps, … (default cpu)")
    sub.add_argument("--quantize", choices=("int8", "nf4"), help="load the language model in 8 or 4 bits")


# ----------------------------------------------------------------------------------------------------------- commands


def _load(args: argparse.Namespace):
    import blip2_lab

    model = blip2_lab.load(args.model, device=args.device, quantize=args.quantize)
    if not hasattr(model, "stream"):
        raise ValueError(f"{args.model} has no language model (it is made for retrieval), so it cannot answer")
    return model


def _ask(args: argparse.Namespace) -> None:
    from blip2_lab.data import open_image

    if not args.prompt.strip():
        raise ValueError('the prompt is empty: ask something, for example "Question: what is this? Short answer:"')
    image = open_image(args.picture)  # before the model: a wrong path is told at once
    import torch

    model = _load(args)
    torch.manual_seed(args.seed)
    decoding = dict(num_beams=args.beams, max_new_tokens=args.max_tokens, length_penalty=args.length_penalty)
    if args.sample:
        decoding |= dict(num_beams=1, do_sample=True, top_p=args.top_p, temperature=args.temperature)
    tokens = list(model.stream(image, args.prompt, **decoding))
    answer = "".join(token.text for token in tokens).strip()
    if args.json:
        words = [{"text": token.text, "probability": round(token.probability, 4)} for token in tokens]
        _print_json({"model": args.model, "prompt": args.prompt, "answer": answer, "tokens": words})
    else:
        print(answer)


def _draw(args: argparse.Namespace) -> None:
    from blip2_lab.data import PictureBook

    book = PictureBook(args.seed, args.split, args.size)
    example = book[args.index]
    out = args.out or (None if args.json else Path("scene.png"))
    if out is not None:
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".gif"):
            raise ValueError(f"{out} does not end in .png, .jpg, .webp or .gif")
        example.image.save(out)
    if args.json:
        page = {"seed": args.seed, "index": args.index, "split": args.split, **book.scene(args.index).to_dict()}
        questions = [{"type": q.type, "question": q.text, "answer": q.answer} for q in example.questions]
        _print_json({**page, "captions": example.captions, "questions": questions})
    else:
        print(f"{out}: {example.captions[0]}")


def _recipes(args: argparse.Namespace) -> None:
    from blip2_lab import recipes

    print(recipes.table())


def _train(args: argparse.Namespace) -> None:
    from blip2_lab import recipes

    chosen = recipes.with_settings(recipes.get(args.recipe), args.settings)
    from blip2_lab import tasks  # after the settings: a misspelled one is told at once

    for recipe in chosen:
        if not args.quiet:
            print(f"{recipe.name}: {recipe.summary} ({recipe.cost})", flush=True)
        tasks.run(recipe, args.runs, resume=not args.restart, progress=not args.quiet)
    if len(chosen) > 1:
        folder = tasks.export(args.runs)
        print(f"the finished model is in {folder}: blip2-lab ask PICTURE PROMPT --model {folder}")


def _evaluate(args: argparse.Namespace) -> None:
    from blip2_lab import evaluate

    def say(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    numbers = evaluate.evaluate(_load(args), scenes=args.scenes, split=args.split, num_beams=args.beams, say=say)
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(evaluate.table(numbers))


def _app(args: argparse.Namespace) -> None:
    import runpy

    script = Path(__file__).resolve().parents[1] / "app.py"
    if not script.exists():
        raise ValueError(f"the chat is app.py in the repository, and there is none at {script}: clone the repository")
    sys.argv = [str(script), *args.rest]
    runpy.run_path(str(script), run_name="__main__")


def _print_json(value: dict) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
