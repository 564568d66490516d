"""Who may import whom: the table of folders in docs/architecture.md, held against the imports of every module.

Imports inside functions, for type checkers, and of names that a package imports when they are asked for count like all
others. The same page describes walks through the code; the functions that they name must exist (test_walks.py takes
the walks). The tests have the same folders, and no two tests have one name.
"""

import ast
import graphlib
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

from blip2_lab.training.recipes import RECIPES, settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "blip2_lab"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
NAMES = {name.removesuffix(".__init__") for name in MODULES.values()}
FORBIDDEN = ("torchvision", "timm")


def levels() -> dict[str, int]:
    """Folder (or module of the package itself) -> its level, as the page's table says."""
    rows = re.findall(r"^\| (\d+) \| `([\w.]+)/?` \|", PAGE, re.MULTILINE)
    return {name: int(level) for level, name in rows}


LEVELS = levels()


def unit(module: str) -> str:
    """ "blip2_lab.models.masks" -> "models"; the package's own functions are "blip2_lab"."""
    parts = module.removesuffix(".__init__").split(".")
    return parts[1] if len(parts) > 1 else "blip2_lab"


def _is_lazy(target: ast.expr) -> bool:
    """Is it the table of what a package imports when it is asked for?"""
    return isinstance(target, ast.Name) and target.id == "_MODULE_OF"


def imports(source: str, package: str = "") -> set[str]:
    """The modules of blip2_lab that a source text imports, wherever it does. `package`: of relative imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name in NAMES} | ({base} if not inner <= NAMES else set())
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and _is_lazy(node.targets[0]):
            found |= {f"{package}.{module.value}" for module in node.value.values}
    return {name for name in found if name.split(".")[0] == "blip2_lab"}


@cache
def imports_of(path: Path) -> set[str]:
    package = MODULES[path] if path.name == "__init__.py" else MODULES[path].rpartition(".")[0]
    return imports(path.read_text(encoding="utf-8"), package.removesuffix(".__init__"))


def test_the_reader_of_imports_sees_what_it_should():
    source = (
        "import blip2_lab.models.masks\nfrom blip2_lab.models import qformer\nfrom blip2_lab.models import QFormer\n"
        "def f():\n    from blip2_lab.cli import main\nif TYPE_CHECKING:\n    from .scene import Scene\n"
        "_MODULE_OF = {'draw_scene': 'draw'}\n"
    )
    expected = {"models.masks", "models.qformer", "models", "cli", "picturebook.scene", "picturebook.draw"}
    assert imports(source, "blip2_lab.picturebook") == {f"blip2_lab.{name}" for name in expected}


def test_the_package_is_found():
    """Over no module, every test that goes through them would pass."""
    assert len(MODULES) > 60 and "blip2_lab.models.qformer" in NAMES


def test_the_table_names_every_folder():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert LEVELS.keys() == folders | modules | {"blip2_lab", "__main__"}


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_below_it(path):
    own = unit(MODULES[path])
    for name in imports_of(path):
        assert unit(name) == own or LEVELS[unit(name)] < LEVELS[own], f"{MODULES[path]} imports {name}"
        if not name.startswith("blip2_lab.teaching.classroom"):
            ours = own == "teaching" or unit(name) != "teaching"
            assert ours, f"{MODULES[path]} imports {name}: teaching is for readers"


def test_nothing_is_imported_by_a_computed_name():
    """Such an import is not in the source as an import: only the tables `_MODULE_OF` may do it."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = (
                getattr(node, "id", getattr(node, "attr", None)) if isinstance(node, ast.Name | ast.Attribute) else ""
            )
            if name in ("import_module", "__import__", "exec_module"):
                found.add((path.relative_to(PACKAGE).as_posix(), "_MODULE_OF" in path.read_text(encoding="utf-8")))
    assert found == {(f"{package}/__init__.py", True) for package in ("chat", "checkpoints", "training")}


def test_there_is_no_circle():
    """Between modules, those of one folder too. What a package re-exports must not import the package."""
    graph = {MODULES[path].removesuffix(".__init__"): imports_of(path) for path in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", sorted(name for name in LEVELS if (PACKAGE / name).is_dir()))
def test_a_package_offers_what_it_lists(folder):
    package = importlib.import_module(f"blip2_lab.{folder}")
    assert package.__doc__.splitlines()[0].endswith(".")
    assert len(getattr(package, "__all__", ())) <= 15, "more than a notebook needs"
    for name in getattr(package, "__all__", ()):
        assert getattr(package, name) is not None and not inspect.ismodule(getattr(package, name))
    for path in (PACKAGE / folder).glob("*.py"):
        assert path.stem == "__init__" or re.search(rf"\b{path.stem}\b", package.__doc__), (
            f"{path.stem} is not described"
        )


def test_no_forbidden_library_and_no_star_import():
    for path in [*MODULES, ROOT / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not [name for name in names if name.split(".")[0] in FORBIDDEN], path
            assert not isinstance(node, ast.ImportFrom) or node.names[0].name != "*", f"{path} has a star import"


# --- What is mentioned exists ---------------------------------------------------------------------------------------

STEMS: dict[str, list[str]] = {}
for dotted in NAMES:
    STEMS.setdefault(dotted.rpartition(".")[2], []).append(dotted)


#: In `model.generate` an object is meant, no module.
OBJECTS = {"model", "qformer", "check"}
#: `shards.json` and `captions.csv` are files.
FILES = {"py", "json", "jsonl", "csv", "tsv"}
#: `optim.lr` is a recipe's setting, and no name in training/optim.py.
SETTINGS = {key for recipe in RECIPES.values() for key in settings(recipe)}


def docstrings(path: Path) -> str:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    return "\n".join(filter(None, map(ast.get_docstring, nodes)))


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_docstring_mentions_exists(path):
    """`module.name` in backticks, where there is a module of that name, and every `some/file.py`."""
    text = docstrings(path)
    for stem, name in re.findall(r"`(?:[\w.]+\.)?(\w+)\.(\w+)[^`]*`", text):
        homes = [importlib.import_module(dotted) for dotted in STEMS.get(stem, [])]
        if homes and name not in FILES and stem not in OBJECTS and f"{stem}.{name}" not in SETTINGS:
            assert any(hasattr(home, name) for home in homes), f"{path.name} mentions {stem}.{name}"
    for file in re.findall(r"(?<![\w/<>-])([\w/]+\.py)\b", text):
        places = [path.parent, PACKAGE, ROOT, *(folder for folder in PACKAGE.rglob("*") if folder.is_dir())]
        assert any((place / file).is_file() for place in places), f"{path.name} mentions {file}"


def walk_steps() -> list[tuple[str, str]]:
    """(file, function) of every step of the page's walks."""
    return re.findall(r"^\d+\. `([\w/]+\.py)`: `([\w.]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "function"), walk_steps(), ids=lambda value: value)
def test_a_step_of_a_walk_exists(file, function):
    place = importlib.import_module(f"blip2_lab.{file.removesuffix('.py').replace('/', '.')}")
    for part in function.split("."):
        place = getattr(place, part)


def test_the_papers_sections_are_where_the_page_says():
    rows = re.findall(r"^\| (\d(?:\.\d)?|Appendix)[ :].*? \| (`.*?) \| .*? \|$", PAGE, re.MULTILINE)
    assert [section for section, _ in rows] == "3.1 3.2 3.3 3.4 4.1 4.2 4.3 4.4 5 6 Appendix".split()
    for section, files in rows:
        for file in re.findall(r"`([\w/.]+)`", files):
            assert (PACKAGE / file).exists(), f"section {section}: {file}"


def test_one_module_reads_the_learning_rate():
    """`optim.lr`: declared in the schema of recipes, read by the optimizer. (The exercises' checks compute it, too.)"""
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "lr"
    }
    assert readers == {"training/optim.py", "teaching/checks/training.py"}


def test_no_walk_comes_back_to_a_file():
    walks = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    counts = {}
    for walk in walks:
        files = re.findall(r"^\d+\. `([\w/]+\.py)`", walk, re.MULTILINE)
        assert len(files) == len(set(files)), walk.splitlines()[0]
        if files:
            counts[walk.splitlines()[0]] = len(files)
    assert list(counts.values()) == [12, 2, 5], counts


# --- The tests have the same folders --------------------------------------------------------------------------------

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
#: Tests of no single module or folder, by their path without `test_`: of the project, or of several modules at once.
OF_SEVERAL = {
    *("architecture", "benchmarks", "docs", "import", "notebook_text", "notebooks", "packaging", "walks"),
    *("chat/web/bridges", "chat/web/browser", "compare/smallest", "data/fuzz", "doctor/bridges", "interpret/bridges"),
    *("models/bridges/parts", "picturebook/search_phrase", "training/lora_full_width", "training/two_processes"),
    *("training/planning/full_width", "training/planning/full_width_sharded", "training/tasks/stages"),
    *("teaching/checks/answers_of_an_examiner", "teaching/checks/answers_of_students"),
    *("teaching/checks/styles_of_students", "teaching/checks/narrow_cases", "teaching/checks/two_mistakes"),
}


def test_tests_mirror_the_folders():
    """`models/test_qformer.py` tests `models/qformer.py`; `chat/test_x.py` may also test a folder `chat/x`, and
    `classroom/test_classroom.py` its own folder."""
    assert TESTS
    without = set()
    for path in TESTS:
        folder, name = path.parent.relative_to(ROOT / "tests"), path.stem.removeprefix("test_")
        place = PACKAGE / folder
        if not ((place / f"{name}.py").is_file() or (place / name).is_dir() or place.name == name):
            without.add((folder / name).as_posix())
    assert without == OF_SEVERAL


def test_no_name_of_a_test_is_there_twice():
    homes: dict[str, list[str]] = {}
    for path in TESTS:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                homes.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert len(homes) > 2000
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
