"""The house: what importing costs, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "blip2_lab"

#: Floors from the ground up. A module imports only from floors below its own.
FLOORS = (
    ("parallel", "watch", "prefetch", "shell"),
    (
        "attention",
        "micro",
        "piles",
        "masks",
        "beam_search",
        "decoding",
        "vision",
        "metrics",
        "run_folder",
        "optim",
        "picturebook",
        "settings",
        "viz",
        "int8",
        "quantize",
        "weights",
    ),
    (
        "qformer",
        "language",
        "data",
        "features",
        "train",
        "augment",
        "observe",
        "paper",
        "viz_decoding",
        "natural_words",
    ),
    ("stage1", "recipes", "annotations", "shards", "widgets", "page", "compiled", "natural_reading", "natural_phrases"),
    ("stage2", "viz_attention", "retrieval", "pretraining", "sources", "natural_judge"),
    ("blueprint", "doctor", "checkpoints", "assemble", "natural_questions"),
    (
        "workload",
        "model_zoo",
    ),
    (
        "planner",
        "lavis_files",
    ),
    ("pretrained", "scores", "doctor_files"),
    ("chat", "novelty", "attribution", "model_doctor", "parts"),
    ("natural",),
    ("evaluate",),
    ("feeding", "picture_index", "grounding", "queries", "inside"),
    ("tasks", "findings", "search_page"),
    ("sequence",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {name: height for height, floor in enumerate(FLOORS) for name in floor}

#: Those that reach up, and only inside a function: the face of the house, and models that save themselves.
REACHING_UP = {("__init__", name) for name in ("pretrained", "compiled", "stage2")}
REACHING_UP |= {(name, "pretrained") for name in ("stage1", "stage2")}

#: Rooms of the picture book, in the same way.
PICTUREBOOK_FLOORS = (("scene", "pen", "facts"), ("kinds", "words"), ("draw", "corpus"), ("tokenizer",))

HEAVY = ("torch", "transformers", "gradio", "captum", "bitsandbytes", "matplotlib", "numpy", "PIL", "safetensors")
FORBIDDEN_EVERYWHERE = ("torchvision", "timm")


def imports(path: Path, package: str) -> dict[str, bool]:
    """Modules of `package` that a file imports -> is the import inside a function (or only for type checkers)?"""
    tree = ast.parse(path.read_text())
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            names = [node.module.removeprefix(f"{package}.")]
        elif isinstance(node, ast.Import):
            names = [a.name.removeprefix(f"{package}.") for a in node.names if a.name.startswith(f"{package}.")]
        for name in names:
            first = name.split(".")[0]
            found[first] = found.get(first, True) and id(node) in deferred
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_a_floor_imports_only_floors_below_it(path):
    name = path.stem
    if name != "__init__":
        assert name in FLOOR_OF, f"give {name}.py a place in FLOORS"
    for imported, deferred in imports(path, "blip2_lab").items():
        if (name, imported) in REACHING_UP:
            assert deferred, f"{name} may import {imported} only inside a function"
        else:
            assert FLOOR_OF[imported] < FLOOR_OF[name], f"{name} imports {imported}, which is not on a floor below it"


def test_the_picture_book_has_floors_too():
    floor_of = {name: height for height, floor in enumerate(PICTUREBOOK_FLOORS) for name in floor}
    for path in (PACKAGE / "picturebook").glob("*.py"):
        if path.stem == "__init__":
            continue
        assert path.stem in floor_of, f"give picturebook/{path.name} a place in PICTUREBOOK_FLOORS"
        rooms = imports(path, "blip2_lab.picturebook")
        for imported in rooms:
            assert floor_of[imported] < floor_of[path.stem], f"picturebook/{path.stem} imports {imported}"
        outside = imports(path, "blip2_lab").keys() - rooms.keys() - {"picturebook"}
        assert not outside, f"picturebook/{path.stem} imports {outside}: the picture book knows nothing but itself"


def test_import_checker_sees_what_it_should(tmp_path):
    file = tmp_path / "room.py"
    file.write_text(
        "import blip2_lab.masks\nfrom . import qformer\nfrom blip2_lab import stage1\n"
        "from blip2_lab.picturebook.draw import draw\ndef f():\n    from blip2_lab.cli import main\n"
    )
    expected = {"masks": False, "qformer": False, "stage1": False, "picturebook": False, "cli": True}
    assert imports(file, "blip2_lab") == expected


def test_nobody_imports_the_exercises_checks_or_a_forbidden_library():
    for path in [*PACKAGE.rglob("*.py"), PACKAGE.parent / "app.py"]:
        if not path.exists():
            continue
        assert "checks" not in imports(path, "blip2_lab") or path.parent.name == "checks"
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not [n for n in names if n.split(".")[0] in FORBIDDEN_EVERYWHERE], path
            assert not isinstance(node, ast.ImportFrom) or node.names[0].name != "*", f"{path} has a star import"


def test_no_module_is_much_longer_than_450_lines():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 470, path.name


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_quick_and_brings_nothing_heavy():
    code = (
        "import time, sys; start = time.process_time(); import blip2_lab; took = time.process_time() - start;"
        f"print(took, [name for name in {HEAVY} if name in sys.modules], blip2_lab.__version__)"
    )
    took, rest = run_python(code).split(" ", 1)
    assert float(took) < 0.5
    assert rest == "[] 0.1.0"


@pytest.mark.parametrize("was_on", [True, False])
def test_loading_leaves_the_garbage_collector_as_it_was(was_on):
    code = (
        f"import gc, blip2_lab; ({was_on} or gc.disable()); meanwhile = []\n"
        "class Import:\n"
        "    def find_spec(self, name, *rest):\n"
        "        meanwhile.append(gc.isenabled()) if name == 'transformers.modeling_utils' else None\n"
        "__import__('sys').meta_path.insert(0, Import())\n"
        "try:\n"
        "    blip2_lab.load('no/such/place')\n"
        "except ValueError:\n"
        "    print(meanwhile, gc.isenabled())"
    )
    assert run_python(code) == f"[False] {was_on}"


def test_each_heavy_library_stays_in_its_room():
    """The whole model is importable without transformers' models, gradio, captum, bitsandbytes or matplotlib."""
    code = (
        "import sys; import blip2_lab.pretrained;"
        "print([name for name in ('gradio', 'captum', 'bitsandbytes', 'matplotlib', 'torchvision', 'transformers')"
        " if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_only_the_apps_rooms_import_gradio():
    importers = {path.stem for path in PACKAGE.rglob("*.py") if "\nimport gradio" in path.read_text()}
    assert importers == {"page", "search_page"}


def test_reading_order_names_every_module():
    import blip2_lab

    text = blip2_lab.__doc__
    for path in PACKAGE.glob("*.py"):
        if not path.stem.startswith("__"):
            assert path.stem in text, f"{path.stem} is missing from the reading order in blip2_lab's docstring"


def test_version_is_the_packages():
    import tomllib

    import blip2_lab

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == blip2_lab.__version__


def test_unknown_names_are_errors():
    import blip2_lab

    with pytest.raises(AttributeError):
        blip2_lab.lode  # noqa: B018
