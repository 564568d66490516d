"""The house rules that no module can check for itself: one list of dependencies, files that travel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.test_architecture import MODULES, ROOT, imports, imports_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: import name -> name on the package index, where they differ
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", r).group().lower().replace("_", "-") for r in requirements}


def third_party_imports(path: Path) -> set[str]:
    """Top-level names imported anywhere in the file, less the standard library and ourselves."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"blip2_lab", "tests", "app"}


def test_every_import_is_a_declared_dependency():
    declared = names(PROJECT["dependencies"]).union(*map(names, PROJECT["optional-dependencies"].values()))
    for path in [ROOT / "app.py", *(ROOT / "blip2_lab").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        imported = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in third_party_imports(path)}
        # gradio_client is gradio's own other half, pinned by it; benchmarks/ is ours
        undeclared = imported - declared - {"gradio-client", "benchmarks"}
        assert not undeclared, f"{path.relative_to(ROOT)} imports {undeclared}, which pyproject.toml does not list"


def our_imports(path: Path) -> set[Path]:
    """Files of blip2_lab that the file imports anywhere, with the packages that they are in."""
    found = imports_of(path) if path in MODULES else imports(path.read_text())
    parents = {".".join(name.split(".")[:length]) for name in found for length in range(1, name.count(".") + 1)}
    files = [ROOT / f"{name.replace('.', '/')}{end}" for name in found | parents for end in (".py", "/__init__.py")]
    return {file for file in files if file.is_file()}


def test_the_app_needs_no_extra():
    reached, new = set(), {ROOT / "app.py"}
    while new:
        reached |= new
        new = set().union(*map(our_imports, new)) - reached
    assert ROOT / "blip2_lab" / "interpret" / "attribution.py" in reached  # several steps away, in its panel
    imported = {DISTRIBUTIONS.get(n, n).replace("_", "-") for n in set().union(*map(third_party_imports, reached))}
    # plots draw for the notebooks; the app takes only `overlay`, which needs no figure
    assert imported - names(PROJECT["dependencies"]) <= {"matplotlib", "ipywidgets", "IPython"}


def test_torch_and_transformers_are_ranges_and_torchvision_is_absent():
    everything = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    assert "torch>=2.11" in everything and "transformers>=5.17,<6" in everything and "gradio>=6.16,<7" in everything
    assert not [r for r in everything if "==" in r or "torchvision" in r or "timm" in r]


def test_constraints_pin_every_direct_dependency_and_name_no_index():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "only name==version lines"
    direct = names(PROJECT["dependencies"]).union(*map(names, PROJECT["optional-dependencies"].values()))
    assert direct - {"blip2-lab"} <= names(lines)


def test_constraints_run_on_the_oldest_python():
    """One that does not sends pip through every older version of everything, without end."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    installed = {d.name.lower().replace("_", "-"): d for d in metadata.distributions()}
    needs = {n: installed[n].metadata["Requires-Python"] or "" for n in names(pinned) & installed.keys()}
    SpecifierSet = pytest.importorskip("packaging.specifiers").SpecifierSet  # pytest brings it
    assert len(needs) > 20
    assert {n: need for n, need in needs.items() if not SpecifierSet(need).contains(oldest)} == {}


def test_environment_yml_lists_nothing_of_its_own():
    yaml = pytest.importorskip("yaml")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [re.match(r"[\w]+", line).group() for line in conda] == ["python", "pip"]
    assert f"python{PROJECT['requires-python']}" in conda[0]
    (line,) = pip["pip"]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", line).group(1).split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_the_wheel_carries_the_assets():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "assets/**/*" in setuptools["package-data"]["blip2_lab"]


def test_every_module_opens_with_what_it_does():
    """Its first line is a statement, no question; what it quotes may be one."""
    assert MODULES
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path.name} has no opening docstring"
        opening = re.sub(r'"[^"]*"|`[^`]*`', "", docstring.splitlines()[0])
        assert "?" not in opening, f"{path.name} opens with a question: {opening}"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
def test_make_says_what_it_can_do():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("make demo", "make test", "make lab"):
        assert target in said
