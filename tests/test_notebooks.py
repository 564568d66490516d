"""Every notebook runs from top to bottom, as its reader gets it. Its own asserts are the checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2_lab.pretrained import MICRO

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat", reason="the notebooks are not tested: pip install 'blip2-lab[dev]'")
nbclient = pytest.importorskip("nbclient", reason="the notebooks are not tested: pip install 'blip2-lab[dev]'")


def test_there_is_a_map():
    assert (ROOT / "notebooks" / "00_map.ipynb") in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_short_and_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 60 and all(len(cell.source.splitlines()) <= 25 for cell in notebook.cells)
    assert not any(cell.outputs or cell.execution_count for cell in code), "clear the outputs before committing"
    assert any("assert " in cell.source for cell in code), "a notebook checks what it says"


@pytest.mark.skipif(not (MICRO / "config.json").is_file(), reason="the micro model's weights are not in this checkout")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", resources=place).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
