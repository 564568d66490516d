"""The commands of training: models, recipes, plan, train, push.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from blip2_lab.cli.data import write_composites
from blip2_lab.cli.options import Command
from blip2_lab.common import console

ON_HELP = (
    "your own pictures: a folder with captions.csv (columns file and caption) or with boat.txt beside boat.jpg, "
    "a folder of shards, an address, hf:owner/name, or a sources.toml; without RECIPE: micro-captions"
)
SET_HELP = "change a value: optim.lr=5e-5; in every recipe of micro-all, or in one: micro-vit/optim.steps=9; repeatable"


def declare_models(command: Command) -> None:
    command("models", _models, "list the released models: their sizes, licenses, and the memory each needs")


def _models(args: argparse.Namespace) -> None:
    from blip2_lab.checkpoints import catalog

    print(catalog.models_table())


def declare_recipes(command: Command) -> None:
    recipes = command("recipes", _recipes, "list what can be trained, and what it costs; or show one recipe whole")
    recipes.add_argument("recipe", metavar="RECIPE", nargs="?", help="its settings, expected losses and command")


def _recipes(args: argparse.Namespace) -> None:
    from blip2_lab.training.recipes import registry

    if args.recipe:
        from blip2_lab.training.recipes.describe import describe

        print(describe(registry.get(args.recipe)))
    else:
        print(registry.recipes_table())


def declare_plan(command: Command) -> None:
    plan = command("plan", _plan, "show what a recipe needs, without a download: parameters, memory, FLOPs, hours")
    plan.add_argument("recipe", metavar="RECIPE", help="a name from `blip2-lab recipes`, for example a100-stage1")
    plan.add_argument("--gpus", type=int, metavar="N", help="how many train together (default 1, or what a text says)")
    plan.add_argument("--memory", type=float, default=80, metavar="GIB", help="of one GPU (default 80)")
    plan.add_argument("--utilization", type=float, metavar="X", help="share of its peak that training reaches, 0 to 1")
    plan.add_argument("--peak", type=float, metavar="TFLOPS", help="16-bit TFLOP/s of one GPU (default: an A100's)")
    plan.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    plan.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of measured runs (default runs)"
    )
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")


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


def declare_train(command: Command) -> None:
    resumes = "stopped; the same command resumes from the last checkpoint"
    train = command("train", _train, "train a recipe; an interrupted run is resumed", resumes, add_help=False)
    train.add_argument("recipe", metavar="RECIPE", nargs="?", help="from `blip2-lab recipes`, for example micro-all")
    train.add_argument("--on", metavar="PLACE", help=ON_HELP)
    most = "train own: --on is a folder of cut-outs; train on N scenes made from them (see `data composites`)"
    train.add_argument("--composites", type=int, metavar="N", help=most)
    train.add_argument("--name", help="of the run's folder (default the recipe's, with --on also the place's)")
    train.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (default runs)"
    )
    train.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    train.add_argument("--jobs", type=int, metavar="N", help="recipes of micro-all at a time (on a CPU 2, else 1)")
    train.register("action", "help", _HelpOfTrain)
    train.add_argument("-h", "--help", action="help", help="show this help and every setting, or those of RECIPE")
    start = train.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="resume from the last checkpoint (the default)")
    start.add_argument("--restart", action="store_true", help="remove the checkpoints and the log, begin at step 0")
    train.add_argument("--quiet", action="store_true", help="no progress lines; log.jsonl is still written")


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


def _train(args: argparse.Namespace) -> None:
    from blip2_lab.training.recipes import micro, registry

    if not args.recipe and not args.on:
        raise ValueError("say what to train: a RECIPE from `blip2-lab recipes`, or --on FOLDER for your own pictures")
    if args.name is not None:
        _check_run_name(args.name)
    if args.recipe not in registry.RECIPES and os.path.isdir(args.recipe or ""):
        raise ValueError(f"{args.recipe} is a folder and no recipe: to train on the pictures in it, --on {args.recipe}")
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
        place = str(write_composites(place, args.composites, runs / "composites"))
    chosen = own_world.recipes_for(place, args.settings, args.runs)
    pipeline.run(chosen, runs, jobs=args.jobs, resume=not args.restart, progress=not args.quiet)
    folder = export(runs, runs / "model", stage2="own-stage2", scenes=0)
    say = (lambda _: None) if args.quiet else console.print_progress
    report = own_world.report(chosen, runs, folder, say=say)
    print(report.text)
    model = shlex.quote(str(folder))
    if report.good == frozenset():
        print(
            f"the model is in {model}, but nothing shows that it looks at the pictures: do not trust what it says "
            "about one"
        )
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


def _check_run_name(name: str) -> None:
    """Raises ValueError for a name whose folder would not be below that of all runs."""
    path = Path(name)
    if not name.strip() or not path.parts or path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"--name {name!r} is no name of a run's folder in --runs: give a name such as zoo")


def _place_name(place: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in Path(place).stem or Path(place).resolve().name).strip("-")


def declare_push(command: Command) -> None:
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
