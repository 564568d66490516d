"""One submission, graded in a child process: `main`, started by grading.py.

The process limits its memory and the size of the files it writes, so that the notebook's kernel inherits the limits,
and grades into a gradebook of its own.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import nbformat
from nbgrader.converters import Autograde

from blip2_lab.teaching.classroom import course, execution

LARGEST_FILE = 2**30  #: bytes


def limit(memory: int) -> None:
    """Limit the memory (bytes) of this process and of those it starts. Windows has no such limits."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    # RLIMIT_DATA and not RLIMIT_AS: torch reserves addresses it never uses
    for name, size in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, LARGEST_FILE)):
        _, hard = resource.getrlimit(name)
        size = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(name, (size, size))


def check_notebook(file: Path) -> None:
    """Raises ValueError for a file that no program can read as a notebook."""
    try:
        if not [cell.source for cell in nbformat.read(file, as_version=4).cells]:  # small faults of the format pass
            raise ValueError("it has no cells")
    except (ValueError, TypeError, KeyError, AttributeError, nbformat.ValidationError):
        raise ValueError(f"{file.name} is no notebook, or a damaged one: ask the student for it again") from None


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("folder", "db", "report"):
        parser.add_argument(name, type=Path)
    parser.add_argument("assignment")
    parser.add_argument("student")
    parser.add_argument("memory", type=int)
    args = parser.parse_args()
    limit(args.memory)
    part = course.converter(Autograde, args.folder, args.db, assignment_id=args.assignment, student_id=args.student)
    part.force = True
    handed_in = args.folder / "submitted" / args.student / args.assignment / f"{args.assignment}.ipynb"
    try:
        if handed_in.is_file():  # nbgrader says what is missing
            check_notebook(handed_in)
        course.run(part, f"grade {args.assignment} of {args.student}")
    except ValueError as error:
        sys.exit(str(error))  # the last line of the log is what the teacher reads
    done = args.folder / "autograded" / args.student / args.assignment / f"{args.assignment}.ipynb"
    found = execution.notes(nbformat.read(done, as_version=4)) if done.is_file() else ["the notebook is missing"]
    args.report.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
