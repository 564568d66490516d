"""Training: recipes, the tasks they train, the loop, and what a run leaves on disk.

    recipes      what is trained, as data: the miniature's, the paper's; no torch
    pipeline     several recipes side by side, each as soon as what it needs is there
    run          one recipe in its run folder
    builders     from a recipe to its task: parts found, loaded, built
    batches      where batches come from: drawn scenes, your own pictures, cached features
    tasks        what is trained, its losses and its evaluation
    trainer      the loop: accelerate, passes, evaluation, exact resume
    optim        AdamW, its schedule, its parameter groups
    prefetch     batches made ahead, in another thread
    divergence   is the loss still going down?
    run_folder   settings, log and checkpoints on disk
    planning     parameters, memory, FLOPs and hours of a recipe, before it starts

Paper: section 3.4. Notebooks: 08, 11.
"""

from importlib import import_module
from typing import Any

#: name -> module. Imported when asked for: `recipes` is read by commands that load no torch.
_MODULE_OF = {
    "Diverged": "divergence",
    "OptimConfig": "recipes",
    "RunFolder": "run_folder",
    "Task": "trainer",
    "build_task": "builders",
    "get": "recipes",
    "learning_rate": "optim",
    "parameter_groups": "optim",
    "read_log": "run_folder",
    "train": "trainer",
    "train_mode": "optim",
}
__all__ = [*_MODULE_OF]  # noqa: PLE0604  the keys are strings


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
