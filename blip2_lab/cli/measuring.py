"""The commands that measure: doctor, evaluate, compare.

Notebook: 00.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from blip2_lab.cli.data import print_left_out
from blip2_lab.cli.options import Command, load, model_options, precision_of, precision_options, refuse_unused
from blip2_lab.common import console


def declare_doctor(command: Command) -> None:
    doctor = command("doctor", _doctor, "check a model before you trust it, or a training run before you wait for it")
    doctor.add_argument(
        "what", metavar="MODEL|RUN", help='"micro", hub name, folder, file; or a run: runs/micro-stage1'
    )
    precision_options(doctor)
    doctor.add_argument("--remember", action="store_true", help="store a model's numbers as its float32 reference")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(args: argparse.Namespace) -> None:
    from blip2_lab.checkpoints.names import RUNS

    for run in (Path(args.what), RUNS / args.what):
        if (run / "log.jsonl").is_file() or (run / "checkpoints").is_dir():
            from blip2_lab.doctor.run import diagnose_run, run_report

            return _print_findings(diagnose_run(run), run_report, args.json)
        if run.exists():
            break
    _doctor_model(args)


def _doctor_model(args: argparse.Namespace) -> None:
    from blip2_lab.checkpoints.hub import check_available

    check_available(args.what)  # before torch is imported
    from blip2_lab.doctor.model import diagnose_model, model_report, open_model, save_reference

    model, path = open_model(args.what, **precision_of(args))
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


def declare_evaluate(command: Command) -> None:
    resumes = "stopped; with --out, the same `evaluate grounding` resumes after the last scene"
    evaluate = command("evaluate", _evaluate, "measure a model on held-out scenes", resumes)
    what = "scenes: answers, captions, retrieval (default); grounding: are its attention and attribution maps right? "
    what += "referring: does it find the box of the thing that is meant?"
    benchmarks = ("scenes", "grounding", "referring")
    evaluate.add_argument("benchmark", nargs="?", default="scenes", choices=benchmarks, help=what)
    model_options(evaluate)
    evaluate.add_argument("--on", metavar="PLACE", help="measure on your own pictures, in any form of train --on")
    most = "with --on: at most so many, drawn at random (default 1000)"
    evaluate.add_argument("--pictures", type=int, default=1000, metavar="N", help=most)
    evaluate.add_argument("--scenes", type=int, metavar="N", help="how many (default 1000; grounding, referring 300)")
    evaluate.add_argument("--split", default="in", help="in, near or out of the training's domain (default in)")
    evaluate.add_argument(
        "--book", type=int, default=1, metavar="SEED", help="which scenes (default 1; the card names its own)"
    )
    evaluate.add_argument("--beams", type=int, default=1, metavar="N", help="width of an answer's search (default 1)")
    evaluate.add_argument("--method", default="all", metavar="M", help="grounding: all, or names with commas between")
    out = "also write the numbers there as JSON; grounding: a folder for numbers and figures, with a page beside it"
    evaluate.add_argument("--out", type=Path, metavar="FILE", help=out)


#: What is measured -> the options of `evaluate` that it does not use.
UNUSED = {
    "--on": ("scenes", "split", "book", "method"),
    "scenes": ("pictures", "method"),
    "grounding": ("pictures", "beams"),
    "referring": ("pictures", "beams", "method"),
}


def _evaluate(args: argparse.Namespace) -> None:
    what = args.benchmark if args.on is None else "--on"
    instead = "; --pictures is their number" if args.on is not None and args.scenes is not None else ""
    refuse_unused(args, UNUSED[what], f"does not belong to `evaluate {what}`: leave it out{instead}")
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
    numbers = evaluate(load(args), **options, asker=asker, say=console.print_progress)
    if args.out:
        args.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(scores_table(numbers))


#: A note about a model that is measured on what it has learned.
TRAINED_ON = (
    "the model was trained on these very pictures, all but the few that were held out, so the numbers say little about "
    "others: keep some in a folder of their own"
)


def _evaluate_on(args: argparse.Namespace) -> None:
    if args.benchmark != "scenes":
        needs = f"{args.benchmark} needs scenes whose truth is known"
        raise ValueError(f"{needs}, so it cannot be measured --on other pictures")
    from blip2_lab.checkpoints.names import model_path
    from blip2_lab.data.examples import LeftOut
    from blip2_lab.evaluation.own_pictures import draw_pictures, evaluate_on, own_table
    from blip2_lab.training.run import was_trained_on

    console.check_writable(args.out)
    drawn = draw_pictures(args.on, args.pictures)  # before the model: a wrong place is reported at once
    trained_on_these = was_trained_on(model_path(args.model), drawn.sources)
    report = evaluate_on(load(args, answers=False), drawn, num_beams=args.beams, say=console.print_progress)
    if trained_on_these:
        report["notes"] = [TRAINED_ON, *report["notes"]]
    left_out = [LeftOut(**one) for one in report["left_out"]]
    print_left_out(left_out, " are in the file" if args.out else "; --out FILE has all of them")
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
    model = load(args)
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
    report = evaluate_referring(require_stage1(load(args, answers=False)), **options, say=console.print_progress)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(referring_table(report))


def declare_compare(command: Command) -> None:
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
    page_only = "train nothing: write the page of the results that are there"
    bridges.add_argument("--page-only", action="store_true", help=page_only)
    bridges.add_argument("--spice", action="store_true", help="also compute SPICE of captions, by a Java program")
    bridges.add_argument("--quiet", action="store_true", help="no progress lines of the trainings")


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
    if args.page_only:
        options, results = bridges.stored(options, out)
    else:
        results = bridges.compare(options, runs, out, say=console.print_progress, progress=not args.quiet)
    print(f"written: {write(out, options, results, spice=args.spice)}")
