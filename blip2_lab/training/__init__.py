"""Training: recipes, the tasks they train, the training loop, and the run folder on disk.

    recipes      what is trained, as data: the miniature's recipes and the paper's; no torch
    pipeline     several recipes in parallel processes, each started when its inputs are trained
    run          one recipe in its run folder
    bridge_parts from the sizes in a recipe to a new bridge
    lora         low-rank adaptation, by peft: added to frozen models, merged into them
    builders     from a recipe to its task: frozen models loaded, new ones built
    loading      the models that a recipe names: found and loaded
    identity     what a run was trained on, by content
    own_tokenizer a tokenizer from texts of your own
    vocabulary   how many of the words a tokenizer knows, before training
    batches      batches of image-text data, as pixels or as cached features
    scene_batches batches of drawn scenes
    frozen_features image features of the frozen image encoder
    tasks        what is trained, its losses and its evaluation
    trainer      the training loop: accelerate, gradient accumulation, evaluation, exact resume
    optim        AdamW, its schedule, its parameter groups
    prefetch     batches prepared in a background thread
    divergence   detects a loss that diverges
    trackers     the log's numbers for TensorBoard or Weights & Biases
    run_folder   settings, log and checkpoints on disk
    planning     parameters, memory, FLOPs and hours of a recipe, before it starts

Begin with `run.run`, which trains one recipe.

Paper: section 3.4. Notebooks: 08, 11.
"""

from importlib import import_module
from typing import Any

#: name -> module. Imported on first access: commands that only read `recipes` load no torch.
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
    "word_coverage": "vocabulary",
}
__all__ = [*_MODULE_OF]  # noqa: PLE0604  the keys are strings


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
