"""The folder of a course: `create` makes it, `release` writes what students get, `converter` runs a part of nbgrader.

Notes:

* Each notebook is one assignment, named as its file, so that each week can have its own date.
* nbgrader would replace an exercise's cell by "YOUR CODE HERE". Here the stub is the exercise, with its signature,
  docstring and permitted answers, so nothing is cleared but outputs.
* The file `CONFIG` in the course holds all settings, so that the command `nbgrader` and its pages in JupyterLab
  work on the same course.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nbgrader.apps.api import capture_log
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import BaseConverter
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc
from traitlets.config.loader import Config, PyFileConfigLoader

CONFIG = "nbgrader_config.py"
NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks" / "student"

SETTINGS = '''"""nbgrader's settings for this course, for `blip2-lab class` and `nbgrader`. Change them as you like."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = {course!r}
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback"]
# exercises are stubs: signature, docstring and permitted answers stay in what students get
c.ClearSolutions.enabled = False
# of a late submission nothing is taken off; "zero" gives no points for it
c.LateSubmissionPlugin.penalty_method = "none"
# a deleted cell is put back where it stood; cells run with limits on time and output
c.Autograde.sanitize_preprocessors = [
    "nbgrader.preprocessors.ClearOutput",
    "blip2_lab.teaching.classroom.execution.RestoreCells",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.Autograde.autograde_preprocessors = [
    "blip2_lab.teaching.classroom.execution.RunCells",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.ClearMetadataPreprocessor.preserve_cell_metadata_mask = {{("nbgrader",), ("deletable",), ("editable",)}}
# what a cell may use: processor seconds (training cells take four minutes), seconds of the clock, characters it prints
c.RunCells.processor_seconds = 600
c.RunCells.timeout = 1800
c.RunCells.max_characters = 100_000
# seconds within which a kernel must start, generous for a busy machine
c.RunCells.startup_timeout = 300
# seconds of the clock after which no further cell of a notebook is begun
c.RunCells.notebook_seconds = 7200
'''


def create(folder: Path, names: Sequence[str] = (), source: Path = NOTEBOOKS) -> list[str]:
    """Make a course with the notebooks whose names begin with `names` (all with exercises, if none is given).

    Returns the assignments. Raises ValueError for a folder that is not empty, or a name that fits no notebook.
    """
    notebooks = _notebooks(source, names)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty. Give a new folder for the course.")
    for notebook in notebooks:
        place = folder / "source" / notebook.stem
        place.mkdir(parents=True)
        shutil.copy(notebook, place / notebook.name)
    (folder / "submitted").mkdir()
    (folder / CONFIG).write_text(SETTINGS.format(course=folder.resolve().name), encoding="utf-8")
    return [notebook.stem for notebook in notebooks]


def _notebooks(source: Path, names: Sequence[str]) -> list[Path]:
    found = sorted(source.glob("[0-9]*.ipynb"))
    if not found:
        raise ValueError(f"There are no notebooks in {source}. Name the repository's notebooks with --from FOLDER.")
    chosen = [path for path in found if not names or any(path.stem.startswith(name) for name in names)]
    unknown = [name for name in names if not any(path.stem.startswith(name) for path in found)]
    if unknown:
        known = ", ".join(path.stem for path in found)
        raise ValueError(f"No notebook begins with {' or '.join(unknown)}. There are: {known}.")
    return chosen


def check_course(folder: Path) -> Path:
    """The folder, absolute. Raises ValueError if it holds no course."""
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder} is no course: {CONFIG} is missing. Make one with `blip2-lab class create {folder}`."
        )
    return folder.resolve()


def assignments(folder: Path, names: Sequence[str] = (), where: str = "source") -> list[str]:
    """The course's assignments that begin with one of `names` (all, if none is given)."""
    found = sorted(path.name for path in (folder / where).glob("*") if path.is_dir())
    unknown = [name for name in names if not any(one.startswith(name) for one in found)]
    if unknown:
        listed = ", ".join(found) or "none"
        raise ValueError(f"No assignment begins with {' or '.join(unknown)}. There are: {listed}.")
    return [one for one in found if not names or any(one.startswith(name) for name in names)]


def converter(kind: type[BaseConverter], folder: Path, db: Path | None = None, **course: str) -> BaseConverter:
    """A part of nbgrader (release, autograde, feedback) with the course's settings.

    db       another gradebook than the course's
    course   traits of nbgrader's CourseDirectory: assignment_id, student_id
    """
    _find_alembic()
    config: Config = PyFileConfigLoader(CONFIG, path=str(folder)).load_config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = gradebook_url(folder if db is None else db)
    directory = CourseDirectory(config=config)
    for name, value in course.items():
        setattr(directory, name, value)
    return kind(coursedir=directory, config=config)


def gradebook_url(place: Path) -> str:
    """The address of a gradebook: of a course's, or of a file."""
    _find_alembic()
    return f"sqlite:///{place / 'gradebook.db' if place.is_dir() else place}"


def _find_alembic() -> None:
    """nbgrader starts the command `alembic`, which an environment that is not activated hides."""
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])


def run(part: BaseConverter, what: str) -> str:
    """Run a part of nbgrader and return its log. Raises ValueError with the log's last lines, where it fails."""
    result: dict[str, Any] = capture_log(part)
    if not result["success"]:
        raise ValueError(f"nbgrader could not {what}: {_reason(result)}")
    return str(result.get("log", ""))


def _reason(result: dict[str, Any]) -> str:
    """The last error that nbgrader's log names; the log holds the tracebacks of what went wrong inside."""
    lines = [line.strip() for key in ("log", "error") for line in str(result.get(key) or "").splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b.*:", line)]
    inner = [line for line in errors if "see the the above" not in line]
    return (inner or errors or [line for line in lines if line] or ["it says nothing about the reason."])[-1]


def release(folder: Path, names: Iterable[str] = (), due: str | None = None) -> list[Path]:
    """Write what students get, `release/NAME/NAME.ipynb`, and enter the exercises into the gradebook.

    due   date and time in UTC until which a submission is in time, for example "2026-12-01 18:00"
    """
    from nbgrader.api import Gradebook

    folder = check_course(folder)
    date = _date(due)
    made = []
    for name in assignments(folder, list(names)):
        part = converter(GenerateAssignment, folder, assignment_id=name)
        part.force = True
        run(part, f"release {name}")
        if date is not None:
            with Gradebook(gradebook_url(folder)) as gradebook:
                gradebook.update_or_create_assignment(name, duedate=date)
        made.append(folder / "release" / name / f"{name}.ipynb")
    return made


def _date(due: str | None) -> Any:
    try:
        return None if due is None else parse_utc(due)
    except (ValueError, OverflowError):
        raise ValueError(f'"{due}" is no date and time. Write it like "2026-12-01 18:00" (UTC).') from None
