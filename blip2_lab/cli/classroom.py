"""The command of a class: hand the notebooks out and grade them.

Notebook: 00.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from blip2_lab.cli.options import Command
from blip2_lab.common import console


def declare_class(command: Command) -> None:
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
