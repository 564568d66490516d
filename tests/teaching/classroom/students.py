"""Made students: each function gives the source of a solution cell, or changes the notebook as a whole.

`hand_in` writes what a student of a kind hands in for a released notebook.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CHECK = re.compile(r"checks\.(\w+)\(\s*(my_\w+)")
#: True answers of the predictions of notebooks 01, 02 and 04, by the id of their cell.
TRUTHS = {
    "01-predict-patch": 65, "02-predict-mixture": 20, "02-predict-shuffle": 0,
    "04-predict-query-reads-text": 1, "04-predict-floor": 2.303,
}  # fmt: skip
#: Right answers in another style than the library's.
OWN_STYLE = {
    "my_num_features": """
def my_num_features(image_size, patch_size):
    return len([(i, j) for i in range(0, image_size, patch_size) for j in range(0, image_size, patch_size)]) + 1
""",
    "my_second_to_last": "my_second_to_last = lambda states: list(reversed(list(states)))[1]",
    "my_freeze": """
def my_freeze(module):
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False
    module.train = lambda mode=True: module
    return module
""",
    "my_attention_weights": """
import torch, warnings
def my_attention_weights(queries, keys, mask=None):
    warnings.warn("a warning is no mistake")
    scores = torch.einsum("ld,md->lm", queries, keys) * queries.size(1) ** -0.5
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(float("-inf")))
    powers = (scores - scores.max(1, keepdim=True).values).exp()
    return powers / powers.sum(1)[:, None]
""",
    "my_cross_attention_head": """
def my_cross_attention_head(x, image_features, to_query, to_key, to_value):
    rows = []
    for row in x:
        fits = (image_features @ to_key) @ (row @ to_query) / to_key.shape[1] ** 0.5
        rows.append(fits.softmax(0) @ (image_features @ to_value))
    return torch.stack(rows)
""",
    "my_split_heads": """
def my_split_heads(x, num_heads):
    return torch.stack(x.split(x.shape[-1] // num_heads, dim=-1), dim=1)
""",
    "my_unimodal_mask": """
import torch
def my_unimodal_mask(num_query_tokens, text_mask):
    B, T = text_mask.shape
    out = torch.zeros(B, 1, num_query_tokens + T, num_query_tokens + T, dtype=torch.bool)
    out[:, :, :num_query_tokens, :num_query_tokens] = True
    out[:, :, num_query_tokens:, num_query_tokens:] = text_mask[:, None, None]
    return out
""",
    "my_multimodal_causal_mask": """
def my_multimodal_causal_mask(num_query_tokens, text_mask):
    B, T = text_mask.shape
    out = torch.zeros(B, 1, num_query_tokens + T, num_query_tokens + T, dtype=torch.bool)
    out[..., :num_query_tokens] = True
    out[:, :, num_query_tokens:, num_query_tokens:] = torch.tril(torch.ones(T, T)).bool() & text_mask[:, None, None]
    return out
""",
    "my_bidirectional_mask": """
def my_bidirectional_mask(num_query_tokens, text_mask):
    real = torch.cat([torch.ones(len(text_mask), num_query_tokens).bool(), text_mask], 1)
    return real[:, None, None].repeat(1, 1, real.shape[1], 1)
""",
}


def solutions(notebook: NotebookNode) -> list[tuple[NotebookNode, str, str]]:
    """(solution cell, name of what it defines, name of its check), in order."""
    found = []
    cells = notebook.cells
    for i, cell in enumerate(cells):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            check = next(CHECK.search(later.source) for later in cells[i + 1 :] if CHECK.search(later.source))
            found.append((cell, check[2], check[1]))
    return found


def _library(cell: NotebookNode, name: str, check: str) -> str:
    if check == "prediction":
        return f"{name} = {TRUTHS[cell.metadata.nbgrader.grade_id]!r}"
    return f"from blip2_lab.teaching import checks\n{name} = checks.{check}.solution"


def right(notebook: NotebookNode) -> None:
    for cell, name, check in solutions(notebook):
        cell.source = _library(cell, name, check)


def right_in_own_style(notebook: NotebookNode) -> None:
    for cell, name, check in solutions(notebook):
        if check == "prediction":
            truth = str(TRUTHS[cell.metadata.nbgrader.grade_id]).replace(".", ",")
            cell.source = f"{name} = ' {truth} '"
        else:
            cell.source = OWN_STYLE[name]


def wrong(notebook: NotebookNode) -> None:
    for number, (cell, name, check) in enumerate(solutions(notebook)):
        body = ("42", "1 / 0", "None", "args[0]")[number % 4]
        cell.source = f"{name} = -7" if check == "prediction" else f"def {name}(*args):\n    return {body}"


def untouched(notebook: NotebookNode) -> None:
    pass


def empty(notebook: NotebookNode) -> None:
    notebook.cells = []


def _first_function(notebook: NotebookNode) -> tuple[NotebookNode, str]:
    return next((cell, name) for cell, name, check in solutions(notebook) if check != "prediction")


def _spoiled(body: str) -> Callable[[NotebookNode], None]:
    """All answers right but the first function, which does something else."""

    def change(notebook: NotebookNode) -> None:
        right(notebook)
        cell, name = _first_function(notebook)
        cell.source = f"def {name}(*args):\n" + "\n".join(f"    {line}" for line in body.splitlines())

    return change


loops = _spoiled("while True:\n    pass")
loops_and_holds_on = _spoiled("""while True:
    try:
        while True:
            pass
    except BaseException:
        pass""")
takes_memory = _spoiled("import torch\nkept = []\nwhile True:\n    kept.append(torch.ones(2**26))")
ends_the_kernel = _spoiled("import os\nos._exit(3)")
exits = _spoiled("raise SystemExit(0)")


def prints_megabytes(notebook: NotebookNode) -> None:
    """Every answer is right; a cell of the student's own prints 30 MB, in lines and in one line."""
    right(notebook)
    cell, _ = _first_function(notebook)
    cell.source += "\nprint('x' * 15_000_000)\nfor _ in range(150_000):\n    print('y' * 99)"


def deletes_cells(notebook: NotebookNode) -> None:
    """Every answer is right; all checks, the cell that imports them, and the last exercise are gone."""
    right(notebook)
    last = solutions(notebook)[-1][0]
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not cell.metadata.get("nbgrader", {}).get("grade")
        and cell is not last
        and ("nbgrader" in cell.metadata or "import checks" not in cell.source)
    ]


#: Puts an answer in the place of the library's function that its check compares it with.
IN_THE_LIBRARYS_PLACE = """

import sys
from blip2_lab.teaching import checks as _checks
_solution = _checks.{check}.solution
_owner = sys.modules[_solution.__module__]
for _part in _solution.__qualname__.split(".")[:-1]:
    _owner = getattr(_owner, _part)
setattr(_owner, _solution.__name__, {name})
"""


def overwrites_checks(notebook: NotebookNode) -> None:
    """Every answer is wrong; `checks`, its classes, nbgrader's variable and the checks' cells are replaced, the
    library's functions by the wrong answers, and those of torch that compare."""
    wrong(notebook)
    for cell, name, check in solutions(notebook):
        if check != "prediction":
            cell.source += IN_THE_LIBRARYS_PLACE.format(name=name, check=check)
    forged = """
import os
from blip2_lab.teaching.checks import check as _check
_check.Check.__call__ = lambda self, answer: "passed"
_check.graded = lambda verdict: verdict
_check.Verdict.passed = property(lambda self: True)
import torch
torch.equal = torch.allclose = lambda *args, **options: True
os.environ.pop("NBGRADER_EXECUTION", None)
class checks:
    def __getattr__(self, name):
        return lambda *a, **k: "passed"
checks = checks()
"""
    cell, _ = _first_function(notebook)
    cell.source += forged
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "print('passed')"


#: kind -> (what it does to the notebook, which exercises it loses: "none", "all", "first" function, "last" exercise)
KINDS: dict[str, tuple[Callable[[NotebookNode], None], str]] = {
    "right": (right, "none"),
    "own_style": (right_in_own_style, "none"),
    "late": (right, "none"),
    "prints": (prints_megabytes, "none"),
    "deletes": (deletes_cells, "last"),
    "loops": (loops, "first"),
    "holds_on": (loops_and_holds_on, "first"),
    "memory": (takes_memory, "first"),
    "crash": (ends_the_kernel, "first"),
    "exits": (exits, "first"),
    "wrong": (wrong, "all"),
    "untouched": (untouched, "all"),
    "empty": (empty, "all"),
    "forges": (overwrites_checks, "all"),
    "no_notebook": (untouched, "all"),
}


def points(notebook: NotebookNode, loses: str) -> float:
    """The points that a student who loses these exercises must have."""
    graded = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    worth = [(CHECK.search(cell.source)[1], cell.metadata.nbgrader.points) for cell in graded]
    if loses == "all":
        return 0.0
    lost = {
        "none": 0,
        "last": worth[-1][1],
        "first": next(value for check, value in worth if check != "prediction"),
    }[loses]
    return float(sum(value for _, value in worth) - lost)


def hand_in(course: Path, assignment: str, student: str, kind: str) -> float:
    """Write a student's submission; returns the points it must get."""
    released = nbformat.read(course / "release" / assignment / f"{assignment}.ipynb", as_version=4)
    notebook = copy.deepcopy(released)
    change, loses = KINDS[kind]
    change(notebook)
    place = course / "submitted" / student / assignment
    place.mkdir(parents=True)
    if kind == "no_notebook":
        (place / f"{assignment}.ipynb").write_text("this is no notebook")
    else:
        nbformat.write(notebook, place / f"{assignment}.ipynb")
    day = "2026-12-24" if kind == "late" else "2026-11-30"
    (place / "timestamp.txt").write_text(f"{day} 12:00:00 UTC")
    return points(released, loses)
