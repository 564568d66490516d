"""Where a model of a name is, and could there be one? What can be said at once, before torch is imported.

`model_path` and `check_name` are where to begin.

Notebook: 07.
"""

from __future__ import annotations

import re
from pathlib import Path

MICRO = Path(__file__).parents[1] / "assets" / "micro"  #: the shipped model
#: What the hub allows as a name.
HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
RUNS = Path("runs")  #: where training writes its runs, if it is not told otherwise


def model_path(name_or_path: str | Path) -> Path:
    """The folder or file of a model that is here: of "micro", of a path, of a run's folder, or of a run's name in RUNS
    (a run is called as its recipe, or as --name says). For any other name, that name as a path, where nothing is."""
    if str(name_or_path) == "micro":
        return MICRO
    path = Path(name_or_path).expanduser()
    if not path.exists() and (RUNS / path).is_dir():
        path = RUNS / path
    finished = path / "model"
    return finished if (finished / "config.json").is_file() and not (path / "config.json").is_file() else path


def check_name(name_or_path: str | Path) -> None:
    """Raises ValueError for what is neither here nor a name of the hub ("owner/model"). Asks no network."""
    name, path = str(name_or_path), model_path(name_or_path)
    if name == "micro" or path.is_file() or path.is_dir():
        return
    if not HUB_NAME.fullmatch(name) or name.startswith(".") or path.suffix in (".pth", ".safetensors"):
        raise ValueError(
            f'There is no folder {name!r}; give "micro", a folder, a run, or a hub name such as "owner/model".'
        )
