"""Checkpoints: the released models, their memory, their files, and the key names of LAVIS and transformers.

    catalog      the released models, one table
    names        could there be a model of this name?
    local        does a file or a folder here hold a model? as far as names tell
    hub          does the hub answer? what is said when it does not
    memory       what a model takes in memory, and whether there is room
    files        weight files: found, fetched, checked, read
    key_maps     literal two-column tables: LAVIS's and transformers' names beside ours
    meta_model   a model of a given shape without weights, filled tensor by tensor
    lavis        LAVIS's checkpoints
    huggingface  transformers' layout, read and written
    bridged      models whose bridge is no Q-Former, read and written
    load         `blip2_lab.load` and `blip2_lab.save`

Paper: section 3.4. Notebooks: 07, 13.
"""

from importlib import import_module
from typing import Any

#: name -> module. Imported on first access: `catalog` is used by commands that import no torch.
_MODULE_OF = {
    "LANGUAGE_MODELS": "catalog",
    "MODELS": "catalog",
    "Released": "catalog",
    "blip2_config": "catalog",
    "released": "catalog",
    "check_memory": "memory",
    "weight_bytes": "memory",
    "from_lavis": "key_maps",
    "to_lavis": "key_maps",
    "empty_model": "meta_model",
    "from_transformers": "huggingface",
    "to_transformers": "huggingface",
    "read_stage1": "load",
    "save_stage1": "load",
}
__all__ = [*_MODULE_OF]  # noqa: PLE0604  the keys are strings


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
