"""Every notebook runs from top to bottom, as its reader gets it and with every exercise solved. Its asserts are the
checks; outputs are not compared."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from blip2_lab.checkpoints.load import MICRO

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SERIES = (
    "00_map", "01_frozen_encoders", "02_attention_and_cross_attention", "03_queries_and_the_qformer",
    "04_three_masks", "05_image_text_contrastive", "06_image_text_matching", "07_image_grounded_text_generation",
    "08_train_stage_1", "09_what_queries_look_at", "10_bridge_to_a_language_model", "11_train_stage_2",
    "12_instructed_chat", "13_eight_bits", "14_fine_tune", "15_in_context_and_failures",
    "16_other_bridges", "17_scaling",
)  # fmt: skip

nbformat = pytest.importorskip("nbformat", reason="the notebooks are not tested: pip install 'blip2-lab[dev]'")
pytest.importorskip("nbclient", reason="the notebooks are not tested: pip install 'blip2-lab[dev]'")
pytest.importorskip("matplotlib", reason="the notebooks are not tested: pip install 'blip2-lab[teach]'")
sys.path.insert(0, str(ROOT / "notebooks"))
run_all = importlib.import_module("run_all")
student_copies = importlib.import_module("student_copies")

needs_micro = pytest.mark.skipif(
    not (MICRO / "config.json").is_file(), reason="the micro model's weights are not in this checkout"
)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def is_exercise(cell) -> bool:
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def test_the_series_is_there():
    assert [path.stem for path in NOTEBOOKS] == list(SERIES)


def test_every_module_names_a_notebook_that_is_there():
    numbers = {path.stem[:2] for path in NOTEBOOKS}
    named = {
        path: set(re.findall(r"\b\d\d\b", line))
        for path in (ROOT / "blip2_lab").rglob("*.py")
        for line in re.findall(r"Notebooks?: ([^.]*)", path.read_text())
    }
    assert len(named) > 60 and set().union(*named.values()) == numbers
    tables = (ROOT / "blip2_lab" / "__init__.py").read_text() + (ROOT / "README.md").read_text()
    columns = re.findall(r"(?<=  |\| )(\d\d(?:(?:, | – | to |-)\d\d)*)(?= {2,}| \|)", tables)
    assert len(columns) > 15 and {number for column in columns for number in re.findall(r"\d\d", column)} <= numbers


@each_notebook
def test_a_notebook_is_short_and_checks_what_it_says(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 60 and all(len(cell.source.splitlines()) <= 25 for cell in code_cells(path))
    assert any("assert " in cell.source for cell in code_cells(path)), "a notebook checks what it says"
    assert path.stat().st_size < 1.5e6


@each_notebook
def test_a_notebook_keeps_its_shape(path):
    """Badge, promise, cost, install, the map with today's part lit; what to remember, questions, where to go on."""
    if path.stem not in SERIES:
        pytest.skip("not one of the series")
    cells = nbformat.read(path, as_version=4).cells
    assert "colab.research.google.com" in cells[0].source and f"{path.name}" in cells[0].source
    assert "*Costs:" in cells[0].source
    assert "pip" in cells[1].source and "find_spec" in cells[1].source
    assert any("blip2_map" in cell.source for cell in cells[:6])
    closing = "\n".join(cell.source for cell in cells[-3:])
    assert "Remember" in closing and "Questions" in closing and "Go on" in closing


@each_notebook
def test_stored_outputs_travel(path):
    """No path of the machine that ran it, no widget state, no error, nothing that needs a network."""
    text = path.read_text()
    assert not re.search(r"/(home|root|tmp|work|Users)/", text), "a path of somebody's machine"
    assert "widget-view+json" not in text and "widget-state+json" not in text
    metadata = json.loads(text)["metadata"]
    assert metadata.keys() <= {"kernelspec", "language_info", "accelerator"}
    for cell in code_cells(path):
        assert not any(output.output_type == "error" for output in cell.outputs)


@each_notebook
def test_every_exercise_is_a_stub_with_a_check_after_it(path):
    notebook = nbformat.read(path, as_version=4)
    ids = [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert len(ids) == len(set(ids))
    code = code_cells(path)
    for cell, after in zip(code, code[1:], strict=False):
        if is_exercise(cell):
            mine = re.findall(r"\bmy_\w+", cell.source)
            assert mine and re.search(rf"checks\.\w+\(\s*{mine[0]}\b", after.source), cell.source
            assert "raise NotImplementedError" in cell.source or re.search(r"my_\w+[^=\n]*= None", cell.source)
            assert after.metadata.get("nbgrader", {}).get("grade"), "the check's cell is graded"


def normalized(function: ast.FunctionDef) -> str:
    """A function's body without its docstring and with its own name taken out."""
    body = [n for n in function.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return "\n".join(ast.unparse(node) for node in body)


def definitions(source: str) -> dict[str, str]:
    tree = ast.parse(source)
    return {n.name: normalized(n) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def copied(source: str, library: set[str]) -> list[str]:
    """Names of functions in `source` whose body of two lines or more stands in the library."""
    return [name for name, body in definitions(source).items() if body in library and body.count("\n") >= 1]


@pytest.fixture(scope="module")
def library() -> set[str]:
    return {
        body for path in (ROOT / "blip2_lab").rglob("*.py") for body in definitions(path.read_text()).values() if body
    }


@each_notebook
def test_no_library_code_is_copied_into_a_notebook(path, library):
    for cell in code_cells(path):
        source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
        assert not copied(source, library), f"{path.name} copies from the library"


def test_the_copy_finder_finds_copies(library):
    source = (ROOT / "blip2_lab" / "models" / "masks.py").read_text()
    renamed = source.replace("def unimodal_mask", "def my_mask")
    assert "my_mask" in copied(renamed, library)
    assert not copied("def my_mask(q, text_mask):\n    row = 1\n    raise NotImplementedError", library)


@each_notebook
def test_the_students_copy_is_in_step(path):
    copied = (student_copies.COPIES / path.name).read_text()
    expected = student_copies.student_copy(nbformat.read(path, as_version=4))
    assert nbformat.reads(copied, as_version=4) == expected, "run `make student-notebooks`"
    assert not any(cell.get("outputs") for cell in expected.cells) and len(copied) < 100_000


def test_there_is_a_students_copy_of_each_notebook_and_no_other():
    assert [path.name for path in NOTEBOOKS] == sorted(path.name for path in student_copies.COPIES.glob("*"))


def test_links_of_a_students_copy_lead_where_they_led():
    source = "[a](../docs/a.md) [b](01_b.ipynb) https://c.example/blob/main/notebooks/04_c.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
    changed = "[a](../../docs/a.md) [b](01_b.ipynb) https://c.example/blob/main/notebooks/student/04_c.ipynb"
    assert student_copies.student_copy(notebook).cells[0].source == changed
    assert notebook.cells[0].source == source


@needs_micro
@pytest.mark.slow
@pytest.mark.timeout(1200)
@each_notebook
def test_a_notebook_runs_from_top_to_bottom(path):
    notebook = run_all.execute(nbformat.read(path, as_version=4))
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@needs_micro
@pytest.mark.slow
@pytest.mark.timeout(1200)
@each_notebook
def test_a_notebook_runs_with_its_exercises_solved(path):
    notebook = nbformat.read(path, as_version=4)
    if not any(is_exercise(cell) for cell in notebook.cells):
        pytest.skip("no exercises")
    notebook = run_all.execute(run_all.solved(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            said = str([output.get("data", {}).get("text/plain") for output in cell.outputs])
            assert ": passed" in said, f"{cell.source}\n{said}"


def test_solving_fills_in_the_librarys_answer_and_the_truth():
    source = "x = 1\nchecks.prediction(\n    my_guess, x, because='a, b')\nchecks.unimodal_mask(my_mask)"
    cell = nbformat.v4.new_code_cell(source)
    notebook = run_all.solved(nbformat.v4.new_notebook(cells=[cell]))
    lines = notebook.cells[0].source.splitlines()
    assert lines[1] == "my_guess = x" and lines[4] == "my_mask = checks.unimodal_mask.solution"
    assert cell.source == source, "the notebook itself stays unsolved"


def test_cleaning_drops_what_does_not_travel():
    cell = nbformat.v4.new_code_cell("1", execution_count=7, metadata={"execution": {"iopub.status.busy": "now"}})
    view = nbformat.v4.new_output("display_data", {run_all.WIDGET: {"model_id": "0"}, "text/plain": "VBox()"})
    cell.outputs = [view, nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=7)]
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"widgets": {}, "kernelspec": {"name": "mine", "display_name": "Mine"}}
    )
    run_all.clean(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert [output.output_type for output in cell.outputs] == ["execute_result"]
    assert cell.execution_count == cell.outputs[0].execution_count == 1 and not cell.metadata
