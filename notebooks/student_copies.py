"""Write the students' copies: `python notebooks/student_copies.py` (`make student-notebooks`).

`notebooks/student/` holds every notebook without its outputs, so that no prediction is answered below its question and
no solution stands below its exercise. The code that checks a prediction holds the reason, so it is folded.
A test compares the copies with the notebooks.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
COPIES = HERE / "student"


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without outputs, its predictions' checks folded, its links as they are from `notebooks/student/`."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "checks.prediction(" in cell.source:
                cell.metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
        else:
            cell.source = re.sub(r"\]\(\.\./", "](../../", cell.source)
            cell.source = re.sub(r"(/notebooks/)(\d\d_\w+\.ipynb)", r"\1student/\2", cell.source)
    return notebook


def main() -> None:
    COPIES.mkdir(exist_ok=True)
    paths = sorted(HERE.glob("*.ipynb"))
    for old in COPIES.glob("*.ipynb"):
        if old.name not in {path.name for path in paths}:
            old.unlink()
    for path in paths:
        nbformat.write(student_copy(nbformat.read(path, as_version=4)), COPIES / path.name)
    print(f"{len(paths)} notebooks in {COPIES.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
