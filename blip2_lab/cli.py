"""The command line: `blip2-lab COMMAND …`, the same as `python -m blip2_lab COMMAND …`.

`parser` declares the commands; each is run by a function below it.

Notes:

* Imports are inside the command that needs them, so that `blip2-lab --help` answers at once.
* An error is one sentence on stderr with exit code 2; Ctrl-C is one sentence with 130. `--traceback` shows the rest.
* With `--json`, results are printed to stdout as JSON for programs.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
        commands.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
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


# ------------------------------------------------------------------------------------------------------------ parsers


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    root = console.Parser(prog="blip2-lab", description="A laboratory for BLIP-2: talk to it, train it, look inside.")
    root.add_argument("--traceback", action="store_true", help="show Python's traceback with an error")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, help: str, interrupted: str = "stopped", **options) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", **options)
        sub.set_defaults(run=run, interrupted=interrupted)
        return sub

    ask = command("ask", _ask, "ask a question about a picture")
    ask.add_argument("picture", metavar="PICTURE", help="PNG, JPEG, WebP, GIF, BMP or TIFF")
    ask.add_argument("prompt", metavar="PROMPT", help='for example "Question: what color is the boat? Short answer:"')
    _model_options(ask)
    ask.add_argument("--beams", type=int, default=5, metavar="N", help="width of the search; 1: greedy (default 5)")
    ask.add_argument("--max-tokens", type=int, default=30, metavar="N", help="longest answer (default 30)")
    ask.add_argument("--length-penalty", type=float, default=-1.0, metavar="X", help="below 0: short (default -1)")
    ask.add_argument("--sample", action="store_true", help="draw from the nucleus instead of searching")
    ask.add_argument("--top-p", type=float, default=0.9, metavar="P", help="with --sample: the nucleus (default 0.9)")
    ask.add_argument("--temperature", type=float, default=1.0, metavar="X", help="with --sample (default 1)")
    ask.add_argument("--seed", type=int, default=0, help="with --sample (default 0)")
    ask.add_argument("--json", action="store_true", help="print answer, warnings, each token's probability as JSON")

    draw = command("draw", _draw, "draw a scene of the picture book")
    draw.add_argument("--seed", type=int, default=0, help="which book (default 0)")
    draw.add_argument("--index", type=int, default=0, help="which page (default 0)")
    draw.add_argument("--split", default="train", help="train, in, near or out (default train)")
    draw.add_argument("--size", type=int, default=384, metavar="PIXELS", help="side of the picture (default 384)")
    draw.add_argument("--out", type=Path, metavar="FILE", help="where to write the picture (default scene.png)")
    draw.add_argument("--json", action="store_true", help="print the scene's truth as JSON; draw only with --out")

    index = command("index", _index, "read a folder of pictures once, so that it can be searched")
    index.add_argument("folder", type=Path, metavar="FOLDER", help="pictures in it and below it")
    index.add_argument("--no-rerank", action="store_true", help="a smaller index and a rougher search: ITC alone")
    _model_options(index)

    search = command("search", _search, "find pictures by a sentence or by a picture, in a folder that was indexed")
    search.add_argument("query", metavar="QUERY", help='a sentence ("a red boat") or the path of a picture')
    search.add_argument("--folder", type=Path, default=Path(), metavar="FOLDER", help="where to search (default here)")
    search.add_argument("--top", type=int, default=10, metavar="N", help="how many to show (default 10)")
    search.add_argument("--json", action="store_true", help="print the pictures and their scores as JSON")
    _model_options(search)

    command("models", _models, "list the released models: their sizes, licenses, and the memory each needs")
    recipes = command("recipes", _recipes, "list what can be trained, and what it costs; or show one recipe whole")
    recipes.add_argument("recipe", metavar="RECIPE", nargs="?", help="its settings, expected losses and command")

    plan = command("plan", _plan, "show what a recipe needs, without a download: parameters, memory, FLOPs, hours")
    plan.add_argument("recipe", metavar="RECIPE", help="a name from `blip2-lab recipes`, for example a100-stage1")
    plan.add_argument("--gpus", type=int, metavar="N", help="how many train together (default 1, or what a text says)")
    plan.add_argument("--memory", type=float, default=80, metavar="GIB", help="of one GPU (default 80)")
    plan.add_argument("--utilization", type=float, metavar="X", help="share of its peak that training reaches, 0 to 1")
    plan.add_argument("--peak", type=float, metavar="TFLOPS", help="16-bit TFLOP/s of one GPU (default: an A100's)")
    plan.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET_HELP)
    plan.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of measured runs (default runs)"
    )
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")

    doctor = command("doctor", _doctor, "check a model before you trust it, or a training run before you wait for it")
    doctor.add_argument(
        "what", metavar="MODEL|RUN", help='"micro", hub name, folder, file; or a run: runs/micro-stage1'
    )
    _precision_options(doctor)
    doctor.add_argument("--remember", action="store_true", help="store a model's numbers as its float32 reference")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")

    resumes = "stopped; the same command resumes from the last checkpoint"
    train = command("train", _train, "train a recipe; an interrupted run is resumed", resumes, add_help=False)
    train.add_argument("recipe", metavar="RECIPE", nargs="?", help="from `blip2-lab recipes`, for example micro-all")
    train.add_argument("--on", metavar="PLACE", help=_ON_HELP)
    most = "train own: --on is a folder of cut-outs; train on N scenes made from them (see `data composites`)"
    train.add_argument("--composites", type=int, metavar="N", help=most)
    train.add_argument("--name", help="of the run's folder (default the recipe's, with --on also the place's)")
    train.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (default runs)"
    )
    train.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET_HELP)
    train.add_argument("--jobs", type=int, metavar="N", help="recipes of micro-all at a time (on a CPU 2, else 1)")
    train.register("action", "help", _HelpOfTrain)
    train.add_argument("-h", "--help", action="help", help="show this help and every setting, or those of RECIPE")
    start = train.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="resume from the last checkpoint (the default)")
    start.add_argument("--restart", action="store_true", help="remove the checkpoints and the log, begin at step 0")
    train.add_argument("--quiet", action="store_true", help="no progress lines; log.jsonl is still written")

    push = command("push", _push, "publish a finished run on the Hugging Face hub: its model and a model card, no data")
    push.add_argument(
        "run_folder", type=Path, metavar="RUN", help="a run's folder, for example runs/micro-captions-zoo"
    )
    push.add_argument("--repo", required=True, metavar="NAME", help="the repository, for example my-name/zoo")
    push.add_argument("--license", metavar="ID", help="as the hub writes it: mit, other (default that of the start)")
    push.add_argument("--public", action="store_true", help="everyone can see it (default: a new one is private)")
    told = "a report of `blip2-lab evaluate --on PLACE --out FILE`, whose tables go into the card"
    push.add_argument("--evaluation", type=Path, metavar="FILE", help=told)
    push.add_argument("--dry-run", action="store_true", help="print the card and the list of files, upload nothing")

    data = command("data", None, "look at pictures with captions, pack them into shards, or make scenes of cut-outs")
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=console.Parser)
    check = actions.add_parser("check", help="open every picture and report what is wrong, and how often")
    check.set_defaults(run=_data_check)
    shards = actions.add_parser("shards", help="pack a folder into WebDataset shards with checksums")
    shards.set_defaults(run=_data_shards)
    for action, verb in ((check, "check"), (shards, "pack")):
        action.add_argument("place", metavar="PLACE", help=f"what to {verb}, in any form that train --on takes")
        named = "also write everything that is left out there, with its cause, as lines of JSON"
        action.add_argument("--out" if action is check else "--left-out", type=Path, metavar="FILE", help=named)
    shards.add_argument("out", type=Path, metavar="OUT", help="a new folder for shard-000000.tar … and shards.json")
    shards.add_argument("--per-shard", type=int, default=1000, metavar="N", help="pictures in a shard (default 1000)")
    composites = actions.add_parser("composites", help="place cut-out pictures onto backgrounds, with captions")
    composites.set_defaults(run=_data_composites)
    cut = "pictures with a transparent ground, or with masks (duck.mask.png for duck.png), each with a sentence"
    composites.add_argument("folder", metavar="FOLDER", help=cut)
    composites.add_argument("out", type=Path, metavar="OUT", help="a new folder for scenes with captions.csv")
    composites.add_argument("--scenes", type=int, default=500, metavar="N", help="how many (default 500)")
    composites.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default 0)")
    composites.add_argument("--size", type=int, default=192, metavar="PIXELS", help="side of a picture (default 192)")
    own = "pictures to place the cut-outs onto (default: the places of the picture book)"
    composites.add_argument("--backgrounds", metavar="FOLDER", help=own)

    resumes = "stopped; with --out, the same `evaluate grounding` resumes after the last scene"
    evaluate = command("evaluate", _evaluate, "measure a model on held-out scenes", resumes)
    what = "scenes: answers, captions, retrieval (default); grounding: are its attention and attribution maps right? "
    what += "referring: does it find the box of the thing that is meant?"
    benchmarks = ("scenes", "grounding", "referring")
    evaluate.add_argument("benchmark", nargs="?", default="scenes", choices=benchmarks, help=what)
    _model_options(evaluate)
    evaluate.add_argument("--on", metavar="PLACE", help="measure on your own pictures, in any form of train --on")
    most = "with --on: at most so many, drawn at random (default 1000)"
    evaluate.add_argument("--pictures", type=int, default=1000, metavar="N", help=most)
    evaluate.add_argument("--scenes", type=int, metavar="N", help="how many (default 1000; grounding, referring 300)")
    evaluate.add_argument("--split", default="in", help="in, near or out of the training's domain (default in)")
    evaluate.add_argument("--book", type=int, default=1, metavar="SEED", help="which scenes (default 1, the card's)")
    evaluate.add_argument("--beams", type=int, default=1, metavar="N", help="width of an answer's search (default 1)")
    evaluate.add_argument("--method", default="all", metavar="M", help="grounding: all, or names with commas between")
    out = "also write the numbers there as JSON; grounding: a folder for numbers and figures, with a page beside it"
    evaluate.add_argument("--out", type=Path, metavar="FILE", help=out)

    compare = command("compare", None, "train models and measure them on equal terms, as one page with figures")
    actions = compare.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=console.Parser)
    told = "what may stand in the Q-Former's place, and the Q-Former: docs/bridges.md"
    bridges = actions.add_parser("bridges", help=told, description=f"Compare {told}.")
    bridges.set_defaults(run=_compare_bridges, interrupted="stopped; the same command goes on where it was")
    bridges.add_argument("--bridges", nargs="+", metavar="NAME", help="which, for example linear qformer (default all)")
    bridges.add_argument("--seeds", type=int, metavar="N", help="how many times each is trained (default 3)")
    bridges.add_argument("--steps", type=int, metavar="N", help="of each at equal samples (default BLIP-2's, 2700)")
    bridges.add_argument("--minutes", type=float, metavar="N", help="at equal minutes (default: what BLIP-2 needs)")
    bridges.add_argument("--scenes", type=int, metavar="N", help="held-out scenes to measure on (default 200)")
    frozen = "the frozen one: micro-flan-t5 (default), micro-t5, micro-opt"
    bridges.add_argument("--language-model", metavar="NAME", help=frozen)
    frozen = "take image encoder and language model out of this model, for example micro (default: of the runs)"
    bridges.add_argument("--frozen", metavar="MODEL", help=frozen)
    bridges.add_argument(
        "--set", dest="changes", action="append", metavar="KEY=VALUE", help="in every recipe that has it"
    )
    bridges.add_argument("--runs", type=Path, metavar="DIR", help="folder of all runs (default runs)")
    bridges.add_argument("--out", type=Path, metavar="DIR", help="for figures and numbers; the page stands beside it")
    smallest = "prove in minutes that the command works: a few steps, which say nothing about bridges"
    bridges.add_argument("--smallest", action="store_true", help=smallest)
    bridges.add_argument("--spice", action="store_true", help="also compute SPICE of captions, by a Java program")
    bridges.add_argument("--quiet", action="store_true", help="no progress lines of the trainings")

    school = command("class", None, "hand the notebooks out to a class and grade them, with nbgrader")
    actions = school.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=console.Parser)
    for name, run, told in (
        ("create", _class_create, "make a course: a folder with the notebooks and nbgrader's settings"),
        ("release", _class_release, "write what students get, COURSE/release/NOTEBOOK/"),
        ("grade", _class_grade, "grade COURSE/submitted/STUDENT/NOTEBOOK/NOTEBOOK.ipynb, what is new of it"),
        ("feedback", _class_feedback, "write a page for each graded notebook, COURSE/feedback/STUDENT/NOTEBOOK/"),
        ("marks", _class_marks, "write the table of marks"),
    ):
        action = actions.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        action.set_defaults(run=run)
        action.add_argument("course", type=Path, metavar="COURSE", help="the course's folder")
        if name != "marks":
            which = "their numbers, for example 01 04 (default: all)"
            action.add_argument("--notebooks", nargs="+", default=[], metavar="NN", help=which)
        if name == "create":
            action.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="where the notebooks are")
        elif name == "release":
            action.add_argument(
                "--due", metavar="DATE", help='until when, in UTC: "2026-12-01 18:00" (default: no date)'
            )
        elif name == "grade":
            action.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at a time (default 1)")
            action.add_argument("--memory", type=float, default=6, metavar="GIB", help="of one notebook (default 6)")
            action.add_argument("--minutes", type=float, default=180, metavar="N", help="of one notebook (default 180)")
            action.add_argument("--again", action="store_true", help="grade also what has not changed since")
        elif name == "marks":
            action.add_argument("--out", type=Path, required=True, metavar="FILE", help="for example marks.csv")

    # passes all options on, --help included, to chat/web/start.py
    command("app", _app, "open the chat about a picture in the browser (see `blip2-lab app --help`)", add_help=False)
    return root


_ON_HELP = (
    "your own pictures: a folder with captions.csv (columns file and caption) or with boat.txt beside boat.jpg, "
    "a folder of shards, an address, hf:owner/name, or a sources.toml; without RECIPE: micro-captions"
)
_SET_HELP = (
    "change a value: optim.lr=5e-5; in every recipe of micro-all, or in one: micro-vit/optim.steps=9; repeatable"
)


class _HelpOfTrain(argparse.Action):
    """The help of `train`, followed by every setting of all recipes, or of the recipe that is named."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs="?", metavar="RECIPE", help=help)

    def __call__(self, train, namespace, value, option_string=None) -> None:
        from blip2_lab.training.recipes import registry
        from blip2_lab.training.recipes.describe import settings_lines
        from blip2_lab.training.recipes.schema import settings_help

        name = value or namespace.recipe
        if name is None:
            intro = "settings, for --set (a recipe may have other values; `blip2-lab train RECIPE --help` has its own)"
            print(f"{train.format_help()}\n{intro}:\n\n{settings_help()}")
        else:
            try:
                recipe = registry.get(name)
            except ValueError as error:
                train.error(str(error))
            print(f"{train.format_help()}\nsettings of {name}, for --set, with its values:\n")
            for part in [registry.get(part) for part in recipe.sequence] or [recipe]:
                print("\n".join([f"{part.name}:" if recipe.sequence else "", *settings_lines(part)]).strip("\n"))
        train.exit()


def _model_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model", default="micro", help='"micro" (shipped), a folder, a run or a hub name (default micro)'
    )
    _precision_options(sub)


def _precision_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps, … (default cpu)")
    sub.add_argument("--quantize", choices=_QUANTIZE, help="8 or 4 bits; see `blip2-lab models` (default none)")
    sub.add_argument("--dtype", choices=_DTYPES, help="of the frozen parts (default: the device's, see `models`)")


_QUANTIZE = ("none", "int8", "int8-all", "nf4")
_DTYPES = ("float32", "bfloat16", "float16")


# ----------------------------------------------------------------------------------------------------------- commands


def _load(args: argparse.Namespace, *, answers: bool = True):
    """Load the model of the options; with `answers`, raise ValueError if it has no language model."""
    import blip2_lab

    model = blip2_lab.load(args.model, **_options(args))
    if not answers and getattr(model, "image_encoder", ...) is None:
        from blip2_lab.checkpoints.names import model_path
        from blip2_lab.training.builders import load_stage1

        model = load_stage1(str(model_path(args.model)), Path("runs")).to(args.device)
    if answers and not hasattr(model, "stream"):
        raise ValueError(f"{args.model} has no language model (it is made for retrieval), so it cannot answer")
    return model


def _options(args: argparse.Namespace) -> dict[str, str | None]:
    """The options device, quantize and dtype, as the loaders take them."""
    return dict(device=args.device, quantize=args.quantize, dtype=args.dtype)


def _ask(args: argparse.Namespace) -> None:
    from blip2_lab.common.images import open_image

    if not args.prompt.strip():
        raise ValueError('the prompt is empty: ask something, for example "Question: what is this? Short answer:"')
    image = open_image(args.picture)  # before the model: errors in the options are reported at once
    import torch

    from blip2_lab.chat.vocabulary import read
    from blip2_lab.models.decoding import Decoding, check_seed

    decoding = dict(num_beams=args.beams, max_new_tokens=args.max_tokens, length_penalty=args.length_penalty)
    if args.sample:
        decoding |= dict(num_beams=1, do_sample=True, top_p=args.top_p, temperature=args.temperature)
    Decoding(**decoding)
    check_seed(args.seed)
    model = _load(args)
    reading = read(model.language_model.tokenizer, args.prompt)
    notes = [note for note in (_outside(args, model, image), reading.note) if note]
    for note in notes:
        console.print_progress(f"note: {note}")
    torch.manual_seed(args.seed)
    tokens = list(model.stream(image, reading.text, **decoding))
    answer = "".join(token.text for token in tokens).strip()
    if args.json:
        token_list = [{"text": token.text, "probability": round(token.probability, 4)} for token in tokens]
        asked = {"model": args.model, "prompt": args.prompt}
        console.print_json({**asked, "answer": answer, "tokens": token_list, "warnings": notes})
    else:
        print(answer)


def _outside(args: argparse.Namespace, model, image) -> str | None:
    """What the app says about a picture that is like none the model has seen."""
    from blip2_lab.chat import out_of_distribution

    if (familiar := out_of_distribution.load(args.model)) is None:
        return None
    distance = out_of_distribution.distances_of(familiar, model.image_encoder, [image]).item()
    return out_of_distribution.outside_sentence(distance, familiar.limit) if distance > familiar.limit else None


def _draw(args: argparse.Namespace) -> None:
    from blip2_lab.data.scenes import PictureBook

    book = PictureBook(args.seed, args.split, args.size)
    example = book[args.index]
    out = args.out or (None if args.json else Path("scene.png"))
    if out is not None:
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".gif"):
            raise ValueError(f"{out} does not end in .png, .jpg, .webp or .gif")
        example.image.save(out)
    if args.json:
        scene = {"seed": args.seed, "index": args.index, "split": args.split, **book.scene(args.index).to_dict()}
        questions = [{"type": q.type, "question": q.text, "answer": q.answer} for q in example.questions]
        console.print_json({**scene, "captions": example.captions, "questions": questions})
    else:
        print(f"{out}: {example.captions[0]}")


def _index(args: argparse.Namespace) -> None:
    from blip2_lab.chat import image_search

    image_search.pictures(args.folder)  # before the model: a wrong folder is reported at once
    file = args.folder / image_search.FILE
    console.check_writable(file)
    model = _load(args, answers=False)
    previous = image_search.load(file) if file.is_file() else None
    index = image_search.build(
        model, args.folder, previous=previous, rerank=not args.no_rerank, say=console.print_progress
    )
    image_search.save(index, file)
    print(f"{file}: {len(index)} pictures")


def _search(args: argparse.Namespace) -> None:
    from blip2_lab.chat import image_search

    if args.top < 1:
        raise ValueError(f"--top is {args.top}; it must be 1 or more")
    index = image_search.load(args.folder / image_search.FILE)
    model = _load(args, answers=False)
    find = image_search.search_like if os.path.isfile(args.query) else image_search.search
    hits = find(model, index, args.query, top=args.top)
    if args.json:
        console.print_json({"query": args.query, "hits": [{"file": h.file, "itc": h.itc, "itm": h.itm} for h in hits]})
    else:
        print("\n".join(image_search.lines(hits)))


def _models(args: argparse.Namespace) -> None:
    from blip2_lab.checkpoints import catalog

    print(catalog.models_table())


def _recipes(args: argparse.Namespace) -> None:
    from blip2_lab.training.recipes import registry

    if args.recipe:
        from blip2_lab.training.recipes.describe import describe

        print(describe(registry.get(args.recipe)))
    else:
        print(registry.recipes_table())


def _plan(args: argparse.Namespace) -> None:
    from blip2_lab.training.recipes import registry

    chosen = registry.with_settings(registry.get(args.recipe), args.settings)
    from blip2_lab.training.planning import plan as planner

    options = dict(gpus=args.gpus, memory=args.memory, utilization=args.utilization, runs_dir=args.runs)
    plans = [planner.plan(recipe, peak=args.peak and args.peak * 1e12, **options) for recipe in chosen]
    if args.json:
        console.print_json(planner.to_json(plans[0]) if len(plans) == 1 else [planner.to_json(plan) for plan in plans])
    else:
        print("\n\n".join(map(planner.plan_table, plans)))
    if len(plans) > 1 and not args.json:
        print(f"\n{args.recipe} in all: {planner.duration(sum(plan.hours for plan in plans))}")


def _doctor(args: argparse.Namespace) -> None:
    from blip2_lab.checkpoints.names import RUNS
    from blip2_lab.doctor.run import diagnose_run, run_report

    for run in (Path(args.what), RUNS / args.what):
        if (run / "log.jsonl").is_file() or (run / "checkpoints").is_dir():
            return _print_findings(diagnose_run(run), run_report, args.json)
        if run.exists():
            break
    _doctor_model(args)


def _doctor_model(args: argparse.Namespace) -> None:
    from blip2_lab.doctor.model import diagnose_model, model_report, open_model, save_reference

    model, path = open_model(args.what, **_options(args))
    if args.remember:
        print(save_reference(model, path))
        return
    findings = diagnose_model(model, path)
    _print_findings(findings, model_report, args.json)
    if failed := sum(finding.state == "bad" for finding in findings):
        raise ValueError(f"{failed} of {len(findings)} checks of {args.what} are red")


def _print_findings(findings: list, as_text: Callable[[list], str], as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        print(as_text(findings))


def _train(args: argparse.Namespace) -> None:
    from blip2_lab.training.recipes import micro, registry

    if not args.recipe and not args.on:
        raise ValueError("say what to train: a RECIPE from `blip2-lab recipes`, or --on FOLDER for your own pictures")
    recipe = registry.get(args.recipe or micro.OWN.name)
    if recipe.name == "own":
        return _train_own(args)
    if args.composites is not None:
        raise ValueError("--composites belongs to a world of your own: blip2-lab train own --on FOLDER --composites N")
    if args.on or args.name:
        recipe = _on_pictures(recipe, args.on, args.name)
    chosen = registry.with_settings(recipe, args.settings)
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; it must be 1 or more")
    from blip2_lab.export import export  # after the settings: a misspelled one is reported at once
    from blip2_lab.training import pipeline

    pipeline.run(chosen, args.runs, jobs=args.jobs, resume=not args.restart, progress=not args.quiet)
    if args.on:
        _say_what_was_learned(chosen[0], args.runs / chosen[0].name, args.on)
    if len(chosen) > 1:
        finished = next(recipe.name for recipe in chosen if recipe.task == "stage2")
        folder = export(args.runs, stage2=finished)
        print(f"the finished model is in {folder}: blip2-lab ask PICTURE PROMPT --model {folder}")


def _train_own(args: argparse.Namespace) -> None:
    """A world of your own: its parts, their export, and a report."""
    import shlex

    if not args.on:
        raise ValueError("a world of your own is made from pictures: blip2-lab train own --on FOLDER")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}; it must be 1 or more")
    from blip2_lab import own_world
    from blip2_lab.export import export
    from blip2_lab.training import pipeline
    from blip2_lab.training.recipes.own import CAPTION_PROMPT

    place, suffix = args.on, "" if args.composites is None else "-composites"
    runs = args.runs / (args.name or f"own-{_place_name(place)}{suffix}")
    if suffix:
        place = str(_write_composites(place, args.composites, runs / "composites"))
    chosen = own_world.recipes_for(place, args.settings, args.runs)
    pipeline.run(chosen, runs, jobs=args.jobs, resume=not args.restart, progress=not args.quiet)
    folder = export(runs, runs / "model", stage2="own-stage2", scenes=0)
    say = (lambda _: None) if args.quiet else console.print_progress
    report = own_world.report(chosen, runs, folder, say=say)
    print(report.text)
    model = shlex.quote(str(folder))
    if report.good == frozenset():
        print(f"the model is in {model}, but it does not look at the pictures: do not trust what it says about one")
        return
    print(f"the finished model is in {model}: python app.py --model {model}")
    if report.good is None or report.good & {"captions", "questions"}:
        print(f"or: blip2-lab ask PICTURE {shlex.quote(CAPTION_PROMPT)} --model {model}")
    if Path(place).is_dir() and (report.good is None or "retrieval" in report.good):
        place = shlex.quote(place)
        search = f"blip2-lab search SENTENCE --folder {place} --model {model}"
        print(f"or: blip2-lab index {place} --model {model}, then {search}")


def _say_what_was_learned(recipe, folder: Path, place: str) -> None:
    """What the evaluation on held-out pictures found, and what the model can be used for, if it learned anything."""
    import shlex

    from blip2_lab.doctor.own_images import outcome

    found, model = outcome(folder), shlex.quote(str(folder / "model"))
    print(f"what it learned: {found.says}")
    if found.learned is False:
        print(
            f"the model is in {model}, but it did not learn from the pictures: blip2-lab doctor {folder} names causes"
        )
    elif recipe.task in ("vit", "mae", "bert", "t5", "opt"):
        print(f"the finished part is in {model}")
    elif getattr(recipe.model, "bridge", "") == "dual_encoder":
        loaded = f"blip2_lab.load({str(folder / 'model')!r})"
        print(f"the finished model is in {model}: in Python, {loaded} matches, retrieves and ranks")
    elif recipe.task in ("stage1", "retrieval"):  # no language model
        pictures = shlex.quote(place) if Path(place).is_dir() else "FOLDER"
        search = f"blip2-lab search SENTENCE --folder {pictures} --model {model}"
        print(f"the finished model is in {model}: blip2-lab index {pictures} --model {model}, then {search}")
    else:
        print(f"the finished model is in {model}: blip2-lab ask PICTURE PROMPT --model {model}")


def _on_pictures(recipe, place: str | None, name: str | None):
    """The recipe, trained on `place`, with its own run folder."""
    from dataclasses import replace

    from blip2_lab.training.recipes.schema import ImageTextData

    if recipe.sequence and name:
        raise ValueError(
            f"{recipe.name} is made of several runs, each in its own folder: give --runs instead of --name"
        )
    if place is None:
        return replace(recipe, name=name, curve=recipe.name)
    on_pictures = recipe.task in ("stage1", "stage2", "caption", "vqa", "retrieval")
    if not on_pictures and not isinstance(recipe.data, ImageTextData):
        raise ValueError(
            f"{recipe.name} does not train on pictures with captions, so it cannot be trained --on {place}; `blip2-lab "
            f"train own --on {place}` makes every part from them"
        )
    data = (
        recipe.data
        if isinstance(recipe.data, ImageTextData)
        else ImageTextData("your own pictures", image_size=96, held_out=40)
    )
    return replace(recipe, name=name or f"{recipe.name}-{_place_name(place)}", data=replace(data, path=place))


def _place_name(place: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in Path(place).stem or Path(place).resolve().name).strip("-")


def _data_check(args: argparse.Namespace) -> None:
    from contextlib import nullcontext

    from blip2_lab.data.left_out import check_sources
    from blip2_lab.data.mixture import find_sources

    console.check_writable(args.out)
    sources, _ = find_sources(args.place)
    with args.out.open("w", encoding="utf-8") if args.out else nullcontext() as out:
        for line in check_sources(sources, out):
            print(line)


def _data_composites(args: argparse.Namespace) -> None:
    made = _write_composites(args.folder, args.scenes, args.out, args.seed, args.size, args.backgrounds)
    print(f"{made}: {args.scenes} pictures with captions and questions; scenes.jsonl has what is where")


def _write_composites(cutouts: str, scenes: int, out: Path, *options) -> Path:
    """Write scenes of cut-outs, and say which cut-outs are left out. `options`: further ones of `Composites`."""
    from blip2_lab.data.composites import Composites, write
    from blip2_lab.data.left_out import SHOWN

    composites = Composites(cutouts, *options)
    for one in composites.left_out[:SHOWN]:
        console.print_progress(f"{one.cause}: {one.message}")
    if len(composites.left_out) > SHOWN:
        console.print_progress(f"{len(composites.left_out) - SHOWN} more cut-outs are not used")
    return write(composites, scenes, out, say=console.print_progress)


def _data_shards(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from blip2_lab.data.left_out import SHOWN
    from blip2_lab.data.mixture import find_sources, is_stream
    from blip2_lab.data.shards import pack

    console.check_writable(args.left_out)
    sources, _ = find_sources(args.place)
    if len(sources) > 1 or is_stream(sources[0]):
        raise ValueError(f"{args.place} is not one folder of pictures: pack each folder by itself")
    left_out = []
    try:
        report = pack(sources[0], args.out, args.per_shard, left_out.append)
    finally:
        for one in left_out[:SHOWN]:
            console.print_progress(f"{one.cause}: {one.message}")
        if left_out[SHOWN:] and not args.left_out:
            console.print_progress(f"{len(left_out) - SHOWN} more; --left-out FILE writes all of them")
        if args.left_out:
            lines = [json.dumps({"source": sources[0].name, **asdict(one)}) + "\n" for one in left_out]
            args.left_out.write_text("".join(lines), encoding="utf-8")
    print(report)


def _class_create(args: argparse.Namespace) -> None:
    from blip2_lab.teaching.classroom import course

    made = course.create(args.course, args.notebooks, args.source or course.NOTEBOOKS)
    print(f"{args.course}: {', '.join(made)}\nNext: blip2-lab class release {args.course}")


def _class_release(args: argparse.Namespace) -> None:
    from blip2_lab.teaching.classroom import course

    for notebook in course.release(args.course, args.notebooks, args.due):
        print(notebook)


def _class_grade(args: argparse.Namespace) -> None:
    from blip2_lab.teaching.classroom import grading

    limits = grading.Limits(memory=int(args.memory * 2**30), seconds=60 * args.minutes)
    done = grading.grade(
        args.course, args.notebooks, jobs=args.jobs, limits=limits, again=args.again, say=console.print_progress
    )
    noted = sum(bool(result.notes) for result in done)
    print(f"{len(done)} graded, {noted} with a note. Next: blip2-lab class marks {args.course} --out marks.csv")


def _class_feedback(args: argparse.Namespace) -> None:
    from blip2_lab.teaching.classroom import marks

    print(f"{len(marks.feedback(args.course, args.notebooks))} pages in {args.course / 'feedback'}")


def _class_marks(args: argparse.Namespace) -> None:
    from blip2_lab.teaching.classroom import marks

    console.check_writable(args.out)
    print(f"{len(marks.write(args.course, args.out))} marks in {args.out}")


def _push(args: argparse.Namespace) -> None:
    from blip2_lab import publish

    evaluation = None
    if args.evaluation is not None:
        try:
            evaluation = json.loads(args.evaluation.read_text(encoding="utf-8"))
        except ValueError:
            evaluation = None
        if not isinstance(evaluation, dict) or not {"place", "read", "notes"} <= evaluation.keys():
            raise ValueError(f"{args.evaluation} is no report of `blip2-lab evaluate --on PLACE --out FILE`")
    options = dict(license=args.license, evaluation=evaluation)
    if args.dry_run:
        print(publish.preview(args.run_folder, args.repo, **options))
    else:
        print(publish.push(args.run_folder, args.repo, public=args.public, say=console.print_progress, **options))


def _evaluate(args: argparse.Namespace) -> None:
    if args.on is not None:
        return _evaluate_on(args)
    if args.benchmark == "grounding":
        return _grounding(args)
    if args.benchmark == "referring":
        return _referring(args)
    from blip2_lab.chat import conversation
    from blip2_lab.evaluation import calibration
    from blip2_lab.evaluation.natural import Asker
    from blip2_lab.evaluation.scenes import evaluate, scores_table

    console.check_writable(args.out)
    asker = Asker(conversation.first_prompt, conversation.ANSWERING)  # the prompts and decoding of the app
    scenes = 1000 if args.scenes is None else args.scenes
    options = dict(scenes=scenes, split=args.split, seed=args.book, num_beams=args.beams)
    options |= dict(calibration=calibration.load(args.model))
    numbers = evaluate(_load(args), **options, asker=asker, say=console.print_progress)
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(scores_table(numbers))


def _evaluate_on(args: argparse.Namespace) -> None:
    if args.benchmark != "scenes":
        needs = f"{args.benchmark} needs scenes whose truth is known"
        raise ValueError(f"{needs}, so it cannot be measured --on other pictures")
    from blip2_lab.evaluation.own_pictures import draw_pictures, evaluate_on, own_table

    console.check_writable(args.out)
    drawn = draw_pictures(args.on, args.pictures)  # before the model: a wrong place is reported at once
    report = evaluate_on(_load(args, answers=False), drawn, num_beams=args.beams, say=console.print_progress)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(own_table(report))


def _grounding(args: argparse.Namespace) -> None:
    from blip2_lab.interpret import grounding, query_probes
    from blip2_lab.interpret.report import write
    from blip2_lab.models.bridges import QFormerBridge

    methods = None if args.method == "all" else args.method.split(",")
    rows = args.out and args.out / "scenes.jsonl"
    scenes = 300 if args.scenes is None else args.scenes
    model = _load(args)
    options = dict(split=args.split, seed=args.book, say=console.print_progress)
    report = grounding.evaluate_grounding(model, methods=methods, scenes=scenes, rows=rows, **options)
    print(grounding.grounding_table(report))
    if args.out:
        has_queries = isinstance(model.bridge, QFormerBridge)
        queries = query_probes.evaluate_queries(model, **options) if has_queries else None
        report |= {"name": args.model, "queries": queries}
        print(f"written: {write(args.out, report, model)}")


def _referring(args: argparse.Namespace) -> None:
    from blip2_lab.evaluation.referring import evaluate_referring, referring_table
    from blip2_lab.models.retrieval import require_stage1

    console.check_writable(args.out)
    options = dict(scenes=300 if args.scenes is None else args.scenes, split=args.split, seed=args.book)
    report = evaluate_referring(require_stage1(_load(args, answers=False)), **options, say=console.print_progress)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(referring_table(report))


def _compare_bridges(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from blip2_lab.chat import conversation
    from blip2_lab.compare import bridges
    from blip2_lab.compare.page import write
    from blip2_lab.evaluation.bridges import Exam
    from blip2_lab.evaluation.captioning import missing_for
    from blip2_lab.evaluation.natural import Asker

    if args.spice and (sentence := missing_for("SPICE")):
        raise ValueError(sentence)
    names = ("bridges", "seeds", "steps", "minutes", "language_model", "frozen", "changes")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    asked = {"scenes": args.scenes} if args.scenes is not None else {}
    if args.smallest:
        given = bridges.SMALLEST | given
        given["changes"] = (*bridges.SMALLEST["changes"], *(args.changes or ()))
        asked = bridges.SMALLEST_EXAM | asked
    runs = args.runs or Path("runs/smallest" if args.smallest else "runs")
    out = args.out or runs / "compare-bridges"
    asker = Asker(conversation.first_prompt, conversation.ANSWERING)
    options = bridges.Options(**given, exam=replace(Exam(**asked), asker=asker))
    results = bridges.compare(options, runs, out, say=console.print_progress, progress=not args.quiet)
    print(f"written: {write(out, options, results, spice=args.spice)}")


def _app(args: argparse.Namespace) -> None:
    from blip2_lab.chat.web import start

    start.main(args.rest)


if __name__ == "__main__":
    sys.exit(main())
