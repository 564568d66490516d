"""Feedback pages for students (`feedback`), and the table of marks of a course (`write`).

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateFeedback

from blip2_lab.teaching.classroom import course, grading

COLUMNS = ("student", "assignment", "score", "max_score", "penalty", "handed_in", "seconds_late", "notes")


def feedback(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Write `feedback/STUDENT/ASSIGNMENT/ASSIGNMENT.html` for every graded submission. Returns the pages."""
    folder = course.check_course(folder)
    pages = []
    for assignment, student in grading.submissions(folder, names):
        if not (folder / "autograded" / student / assignment).is_dir():
            continue
        part = course.converter(GenerateFeedback, folder, assignment_id=assignment, student_id=student)
        part.force = True
        course.run(part, f"write feedback on {assignment} for {student}")
        pages += sorted((folder / "feedback" / student / assignment).glob("*.html"))
    if not pages:
        raise ValueError(f"Nothing was graded yet in {folder}: run `blip2-lab class grade {folder}` first.")
    return pages


def table(folder: Path) -> list[dict[str, object]]:
    """One row for every student and released assignment; what was not handed in has 0 points."""
    folder = course.check_course(folder)
    rows = []
    handed_in = set(grading.submissions(folder))
    with Gradebook(course.gradebook_url(folder)) as gradebook:
        students = sorted({student.id for student in gradebook.students} | {student for _, student in handed_in})
        for student in students:
            for assignment in course.assignments(folder, where="release"):
                rows.append(_row(folder, gradebook, student, assignment, (assignment, student) in handed_in))
    return rows


def _row(folder: Path, gradebook: Gradebook, student: str, assignment: str, is_there: bool) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"student": student, "assignment": assignment, "score": 0.0, "penalty": 0.0}
    row["max_score"] = gradebook.find_assignment(assignment).max_score
    notes = grading.notes_file(folder, assignment, student)
    try:
        submission = gradebook.find_submission(assignment, student)
    except MissingEntry:
        return row | {"notes": "not graded yet" if is_there else "not handed in"}
    penalty = submission.late_submission_penalty or 0.0
    found = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else []
    late = submission.total_seconds_late
    return row | {
        "score": max(0.0, submission.score - penalty),
        "penalty": penalty,
        "handed_in": submission.timestamp or "",
        "seconds_late": late or "",
        "notes": "; ".join([*(["late"] if late else []), *found]),
    }


def write(folder: Path, out: Path) -> list[dict[str, object]]:
    """Write the table of marks as CSV. Returns its rows."""
    rows = table(folder)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return rows
