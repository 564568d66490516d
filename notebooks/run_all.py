"""Run notebooks from top to bottom and keep their outputs: `python notebooks/run_all.py [NAME ...]` (`make notebooks`).

Notes:

* A notebook is its own source. This script changes nothing but outputs: it executes in a fresh kernel and stores what
  came out, without execution times, widget state or paths of this machine.
* While it runs, what a prediction's cell prints, and the figure behind it, are shown without a guess.
* `solved` fills in every exercise with the library's own answer, by a convention the notebooks keep: an exercise is
  a cell with nbgrader metadata; the next cell calls `checks.NAME(my_answer)` or `checks.prediction(my_guess, truth)`.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
CHECK = re.compile(r"^( *).*?\bchecks\.(\w+)\(\s*(my_\w+)(?:,\s*([^,\n]+?)\s*(?:,|\)))?", re.MULTILINE)


def execute(notebook: nbformat.NotebookNode, timeout: int = 900) -> nbformat.NotebookNode:
    """The notebook, run in a fresh kernel; an error in a cell is an error here."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    place = {"metadata": {"path": str(HERE)}}
    client = nbclient.NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources=place, store_widget_state=False, record_timing=False
    )
    return client.execute()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what does not travel: widget views (their text or figure stays), execution counts, kernel details."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = number + 1 if cell.get("outputs") is not None else None
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.outputs:
            data = output.get("data", {})
            if data.pop(WIDGET, None) is not None:
                continue
            if "execution_count" in output:
                output.execution_count = cell.execution_count
            kept.append(output)
        cell.outputs = kept
    return notebook


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy in which every exercise is answered with the library's version, every prediction with the truth."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.source = CHECK.sub(_answered, cell.source)
    return notebook


def _answered(call: re.Match) -> str:
    """The call of a check, with a line before it that gives the answer."""
    indent, check, mine, truth = call.groups()
    return f"{indent}{mine} = {truth if check == 'prediction' else f'checks.{check}.solution'}\n{call[0]}"


def main(names: list[str]) -> None:
    paths = sorted(HERE.glob("*.ipynb"))
    if names:
        paths = [path for path in paths if any(path.stem.startswith(name) for name in names)]
    if not paths:
        sys.exit(f"No notebook begins with {' or '.join(names)}.")
    os.environ["BLIP2_LAB_READ_THROUGH"] = "1"  # `READING` in blip2_lab.teaching.checks.predictions
    for path in paths:
        start = time.perf_counter()
        notebook = clean(execute(nbformat.read(path, as_version=4)))
        nbformat.write(notebook, path)
        print(f"{path.name:50s} {time.perf_counter() - start:5.0f} s  {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
