"""What importing costs: the package itself nothing heavy, a heavy library only where it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "blip2_lab"

HEAVY = tuple(
    "torch torchvision transformers accelerate gradio captum bitsandbytes matplotlib numpy PIL safetensors".split()
)


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
@pytest.mark.slow
def test_loading_leaves_the_garbage_collector_as_it_was(was_on):
    code = (
        f"import gc, blip2_lab; ({was_on} or gc.disable()); meanwhile = []\n"
        "class Import:\n"
        "    def find_spec(self, name, *rest):\n"
        "        meanwhile.append(gc.isenabled()) if name == 'transformers.modeling_utils' else None\n"
        "__import__('sys').meta_path.insert(0, Import())\n"
        "try:\n"
        "    blip2_lab.load('/')\n"
        "except ValueError:\n"
        "    print(meanwhile, gc.isenabled())"
    )
    assert run_python(code) == f"[False] {was_on}"


def test_each_heavy_library_stays_where_it_is_needed():
    """The whole model is importable without transformers' models, gradio, captum, bitsandbytes or matplotlib."""
    code = (
        "import sys; import blip2_lab.checkpoints.load;"
        "print([name for name in ('gradio', 'captum', 'bitsandbytes', 'matplotlib', 'torchvision', 'transformers')"
        " if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_only_the_apps_page_imports_gradio():
    """Wherever in the file, and in whichever form, it is imported."""
    found = re.compile(r"^\s*(import|from) gradio\b", re.MULTILINE)
    importers = {path for path in PACKAGE.rglob("*.py") if found.search(path.read_text())}
    names = ("api", "app", "beside", "components", "search_tab")
    assert importers == {PACKAGE / "chat" / "web" / f"{name}.py" for name in names}


def test_version_is_the_packages():
    import tomllib

    import blip2_lab

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == blip2_lab.__version__


def test_unknown_names_are_errors():
    import blip2_lab

    with pytest.raises(AttributeError):
        blip2_lab.lode  # noqa: B018
