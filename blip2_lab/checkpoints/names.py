"""Could there be a model of this name? What can be said at once, before torch is imported.

Notebook: 07.
"""

from __future__ import annotations

from pathlib import Path


def check_name(name_or_path: str | Path) -> None:
    """Raises ValueError for what is neither here nor a name of the hub ("owner/model"). Asks no network."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name == "micro" or path.is_file() or path.is_dir():
        return
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or path.suffix in (".pth", ".safetensors"):
        raise ValueError(f'There is no folder {name}; give "micro", a folder, or a hub name such as "owner/model".')
