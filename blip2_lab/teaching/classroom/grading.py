"""Grade all submissions of a course, several at a time: `grade`.

Notes:

* Each submission is graded in a child process with limits on time and memory, in a copy of the gradebook (nbgrader
  alone grades one after the other, and its gradebook is a file that only one may write). Its marks are then merged.
* A submission that fails as a whole (no notebook, its process was ended) gets 0 points and a note; the others go on.
* What was graded and has not changed since is not graded again, unless `again` is set.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import psutil
from nbgrader.api import Gradebook
from sqlalchemy.exc import SAWarning

from blip2_lab.teaching.classroom import course


@dataclass(frozen=True)
class Limits:
    """What one submission may use: memory in bytes, and seconds in all (its cells have limits of their own)."""

    memory: int = 6 * 2**30
    seconds: float = 3 * 3600.0


@dataclass(frozen=True)
class Graded:
    """The result of one submission: points of at most `max_score`, and what a teacher should know."""

    assignment: str
    student: str
    score: float
    max_score: float
    notes: tuple[str, ...]


def submissions(folder: Path, names: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """(assignment, student) of everything in `submitted/STUDENT/ASSIGNMENT/`."""
    for assignment in course.assignments(folder, names, "release"):
        for place in sorted((folder / "submitted").glob(f"*/{assignment}")):
            if place.is_dir():
                yield assignment, place.parent.name


def grade(
    folder: Path, names: Sequence[str] = (), *, jobs: int = 1, limits: Limits | None = None, again: bool = False,
    say: Callable[[str], None] = print,
) -> list[Graded]:  # fmt: skip
    """Grade what was handed in and is new, `jobs` at a time. Returns what was graded."""
    folder, limits = course.check_course(folder), limits or Limits()
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be 1 or more.")
    asked = list(submissions(folder, names))
    if not asked:
        raise ValueError(
            f"Nothing was handed in: put notebooks into {folder}/submitted/STUDENT/NOTEBOOK/NOTEBOOK.ipynb."
        )
    waiting = [one for one in asked if again or _is_new(folder, *one)]
    say(f"{len(waiting)} of {len(asked)} notebooks are new or have changed{'' if waiting else ': nothing to grade'}.")
    done = []
    with ThreadPoolExecutor(jobs) as pool, tempfile.TemporaryDirectory() as scratch:
        running = [pool.submit(_grade_one, folder, *one, limits, Path(scratch)) for one in waiting]
        for finished in as_completed(running):
            assignment, student, db, found = finished.result()
            result = merge(folder, assignment, student, db, found)  # one at a time: a gradebook has one writer
            done.append(result)
            noted = "".join(f"\n    {note}" for note in result.notes)
            progress = f"{len(done)} of {len(waiting)}"
            say(f"{progress}  {student} {assignment}: {result.score:g} of {result.max_score:g}{noted}")
    return done


def notes_file(folder: Path, assignment: str, student: str) -> Path:
    return folder / "grading" / assignment / f"{student}.json"


def _is_new(folder: Path, assignment: str, student: str) -> bool:
    graded = notes_file(folder, assignment, student)
    if not graded.is_file():
        return True
    files = (folder / "submitted" / student / assignment).rglob("*")
    return any(path.stat().st_mtime > graded.stat().st_mtime for path in files)


def _grade_one(
    folder: Path, assignment: str, student: str, limits: Limits, scratch: Path
) -> tuple[str, str, Path | None, list[str]]:
    """Grade one submission in a child process -> its gradebook (None: it failed as a whole) and notes."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    db, report = place / "gradebook.db", place / "report.json"
    shutil.copy(folder / "gradebook.db", db)
    module = "blip2_lab.teaching.classroom.submission"
    command = [sys.executable, "-m", module, folder, db, report, assignment, student, limits.memory]
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}  # for its kernel, in another folder
    with (place / "log").open("wb") as log:
        process = psutil.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            process.wait(timeout=limits.seconds)
        except psutil.TimeoutExpired:
            _end(process)
            return assignment, student, None, [f"stopped, it took longer than {limits.seconds:g} seconds"]
    if report.is_file():
        return assignment, student, db, json.loads(report.read_text(encoding="utf-8"))
    said = [line.strip() for line in (place / "log").read_text(errors="replace").splitlines() if line.strip()]
    return assignment, student, None, [f"not graded: {said[-1] if said else 'its process ended'}"]


def _end(process: psutil.Popen) -> None:
    """End a process and all that it started: a kernel has a session of its own and would stay."""
    family = [*process.children(recursive=True), process]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def merge(folder: Path, assignment: str, student: str, db: Path | None, found: list[str]) -> Graded:
    """Take a submission's marks over into the course's gradebook; 0 points where it has none.

    A mark that was given by hand stays, and is to be looked at again.
    """
    with warnings.catch_warnings(), Gradebook(course.gradebook_url(folder)) as ours:
        warnings.simplefilter("ignore", SAWarning)  # nbgrader looks at its new entries before it adds them
        ours.update_or_create_student(student)
        if db is None:
            mine = ours.update_or_create_submission(assignment, student)
            for notebook in mine.notebooks:
                for mark in notebook.grades:
                    mark.auto_score = 0.0
                    mark.needs_manual_grade = mark.manual_score is not None
        else:
            with Gradebook(course.gradebook_url(db)) as theirs:
                submission = theirs.find_submission(assignment, student)
                mine = ours.update_or_create_submission(assignment, student, timestamp=submission.timestamp)
                for notebook in submission.notebooks:
                    place = notebook.name, assignment, student
                    ours.find_submission_notebook(*place).late_submission_penalty = notebook.late_submission_penalty
                    for mark in notebook.grades:
                        target = ours.find_grade(mark.name, *place)
                        target.auto_score = 0.0 if mark.auto_score is None else mark.auto_score
                        target.needs_manual_grade = target.manual_score is not None
                    for comment in notebook.comments:
                        ours.find_comment(comment.name, *place).auto_comment = comment.auto_comment
        ours.db.commit()
        result = Graded(assignment, student, mine.score, mine.max_score, tuple(found))
    kept = notes_file(folder, assignment, student)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), encoding="utf-8")
    return result
