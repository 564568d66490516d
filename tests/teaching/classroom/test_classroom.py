"""A class from the first command to the table of marks, with made students (students.py)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader", reason="a class is not tested: pip install 'blip2-lab[class]'")

from blip2_lab.teaching.classroom import course, execution, grading, marks, submission  # noqa: E402
from tests.teaching.classroom import students  # noqa: E402

DUE = "2026-12-01 18:00"


def small_notebook() -> nbformat.NotebookNode:
    """Three exercises of notebook 01 without its text, its model and its pictures."""
    whole = nbformat.read(course.NOTEBOOKS / "01_frozen_encoders.ipynb", as_version=4)
    kept = [
        cell for cell in whole.cells if "nbgrader" in cell.metadata and "patch" not in cell.metadata.nbgrader.grade_id
    ]
    start = nbformat.v4.new_code_cell("from blip2_lab.teaching import checks\nfrom torch import Tensor, nn")
    return nbformat.v4.new_notebook(cells=[start, *kept], metadata=whole.metadata)


@pytest.fixture
def small_course(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    nbformat.write(small_notebook(), tmp_path / "notebooks" / "01_small.ipynb")
    folder = tmp_path / "course"
    assert course.create(folder, ["01"], tmp_path / "notebooks") == ["01_small"]
    settings = folder / course.CONFIG
    settings.write_text(settings.read_text().replace("processor_seconds = 600", "processor_seconds = 15"))
    return folder


# --- Without a kernel -------------------------------------------------------------------------------------------------


def test_a_course_has_the_notebooks_asked_for(tmp_path):
    made = course.create(tmp_path / "new", ["01", "04"])
    assert made == ["01_frozen_encoders", "04_three_masks"]
    assert course.assignments(tmp_path / "new") == made and course.assignments(tmp_path / "new", ["04"]) == made[1:]
    assert len(course.create(tmp_path / "whole")) >= 13


def test_what_cannot_be_a_course_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="No notebook begins with 77. There are: 00_map"):
        course.create(tmp_path / "new", ["77"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ValueError, match="is not empty"):
        course.create(tmp_path / "full")
    with pytest.raises(ValueError, match="is no course"):
        course.release(tmp_path / "full")
    with pytest.raises(ValueError, match="no notebooks in .*--from"):
        course.create(tmp_path / "new", source=tmp_path)
    course.create(tmp_path / "new", ["04"])
    with pytest.raises(ValueError, match="No assignment begins with 05"):
        course.release(tmp_path / "new", ["05"])
    with pytest.raises(ValueError, match="no date"):
        course.release(tmp_path / "new", due="soon")
    with pytest.raises(ValueError, match="Nothing was handed in"):
        grading.grade(tmp_path / "new")


def test_the_release_keeps_stubs_and_drops_outputs(small_course):
    (released,) = course.release(small_course, due=DUE)
    ours, theirs = small_notebook(), nbformat.read(released, as_version=4)
    assert [cell.source for cell in theirs.cells] == [cell.source for cell in ours.cells]
    assert all(not cell.outputs for cell in theirs.cells if cell.cell_type == "code")
    locked = [cell.metadata.nbgrader.locked for cell in theirs.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert locked == [True] * 3


def test_deleted_cells_are_put_back_where_they_stood():
    released = small_notebook()
    for number, cell in enumerate(released.cells):
        cell["id"] = f"cell-{number}"
    for gone in ([0], [1], [6], [0, 1, 2], [2, 4, 6], list(range(7))):
        submitted = nbformat.from_dict(released.copy())
        own = nbformat.v4.new_code_cell("my = 1")
        submitted.cells = [cell for i, cell in enumerate(released.cells) if i not in gone] + [own]
        restored = execution.restore(submitted, released)
        assert [cell.source for cell in restored.cells] == [cell.source for cell in (*released.cells, own)]


def test_cells_with_other_ids_and_without_metadata_are_recognized():
    released, submitted = small_notebook(), small_notebook()
    for number, cell in enumerate(submitted.cells):
        cell["id"] = f"other-{number}"
    submitted.cells[1].source = "def my_num_features(*a): return 1"
    assert len(execution.restore(submitted, released).cells) == len(released.cells)
    submitted = small_notebook()
    for one, other in zip(submitted.cells, released.cells, strict=True):
        one["id"] = other["id"] = "x" + str(id(other))
        one.metadata.pop("nbgrader", None)
    restored = execution.restore(submitted, released)
    assert [c.metadata.get("nbgrader") for c in restored.cells] == [c.metadata.get("nbgrader") for c in released.cells]


@pytest.mark.parametrize(
    "text", ["", "no notebook", "[]", "{}", "3", '{"cells": 3}', '{"cells": [], "metadata": {}, "nbformat": 4}', "\0\1"]
)
def test_a_file_that_is_no_notebook_is_told_in_a_sentence(tmp_path, text):
    file = tmp_path / "01_small.ipynb"
    file.write_text(text)
    with pytest.raises(ValueError, match="01_small.ipynb is no notebook, or a damaged one: ask the student"):
        submission.check_notebook(file)
    nbformat.write(small_notebook(), file)
    submission.check_notebook(file)
    file.write_text(file.read_text()[:-200])
    with pytest.raises(ValueError, match="a damaged one"):
        submission.check_notebook(file)


# --- With kernels -----------------------------------------------------------------------------------------------------


def graded(folder: Path, kinds: dict[str, list[str]], jobs: int = 2, **options) -> list[dict]:
    """Hand in, grade, write marks -> the rows of the table, each with `must`, the score it must have."""
    must = {
        (student, assignment): students.hand_in(folder, assignment, student, kind)
        for student, (kind, *chosen) in kinds.items()
        for assignment in chosen or course.assignments(folder, where="release")
    }
    grading.grade(folder, jobs=jobs, limits=grading.Limits(**options), say=lambda line: print(line, file=sys.stderr))
    out = folder / "marks.csv"
    marks.write(folder, out)
    with out.open(newline="") as file:
        return [row | {"must": must.get((row["student"], row["assignment"]), 0.0)} for row in csv.DictReader(file)]


def assert_as_they_must_be(rows: list[dict]) -> None:
    wrong = [row for row in rows if float(row["score"]) != row["must"]]
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_students_get_their_marks_and_a_page_each(small_course):
    course.release(small_course, due=DUE)
    rows = graded(small_course, {"ann": ["late"], "bob": ["untouched"]})
    assert_as_they_must_be(rows)
    assert rows[0]["notes"] == "late" and rows[0]["max_score"] == "4.0" and rows[1]["notes"] == ""
    pages = marks.feedback(small_course)
    assert len(pages) == 2 and "not attempted" in pages[1].read_text()
    assert grading.grade(small_course, say=print) == [], "what has not changed is not graded again"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_kind_of_student_gets_what_the_answers_are_worth(small_course):
    course.release(small_course, due=DUE)
    rows = graded(small_course, {kind: [kind] for kind in students.KINDS})
    assert_as_they_must_be(rows)
    noted = {row["student"]: row["notes"] for row in rows}
    assert "ran too long" in noted["loops"] and "could not be stopped" in noted["holds_on"]
    assert "ended the kernel" in noted["crash"] and "memory" in noted["memory"] and "not graded" in noted["no_notebook"]
    assert noted["right"] == noted["own_style"] == noted["prints"] == ""
    biggest = max(path.stat().st_size for path in (small_course / "autograded").rglob("*.ipynb"))
    assert biggest < 1_000_000


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_thirty_students_hand_in_three_notebooks(tmp_path):
    folder = tmp_path / "course"
    course.create(folder, ["01", "02", "04"])
    settings = folder / course.CONFIG
    settings.write_text(settings.read_text().replace("processor_seconds = 600", "processor_seconds = 60"))
    course.release(folder, due=DUE)
    assert_as_they_must_be(graded(folder, {f"{kind}_{i}": [kind] for kind in students.KINDS for i in (1, 2)}))
