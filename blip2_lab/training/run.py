"""Train one recipe in its run folder: build its task, check its examples, call the trainer.

`run` is what `blip2-lab train RECIPE` calls (through pipeline.py).

Notes:

* A run stores a hash of its list of examples and refuses to resume on another.

Paper: sections 3.2 to 3.4, 4.2. Notebooks: 08, 11.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from blip2_lab.common.files import write_atomically
from blip2_lab.training.batches import SKIPPED
from blip2_lab.training.builders import build_task, hf_logging_off
from blip2_lab.training.recipes.registry import needs
from blip2_lab.training.recipes.schema import ImageTextData, Recipe
from blip2_lab.training.run_folder import checkpoints, reference_log
from blip2_lab.training.trainer import train

EXAMPLES_FILE = "examples.json"  #: the hash of a run's examples, in its folder


def run(recipe: Recipe, runs_dir: str | Path, *, resume: bool = True, progress: bool = True) -> dict[str, float]:
    """Train one recipe in `runs_dir/NAME` and return the last logged numbers."""
    runs_dir = Path(runs_dir)
    missing = [name for name in needs(recipe) if not (runs_dir / name / "model").is_dir()]
    if missing:
        raise ValueError(f"{recipe.name} needs {' and '.join(missing)} in {runs_dir}: blip2-lab train {missing[0]}")
    folder = runs_dir / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (SKIPPED, EXAMPLES_FILE):
            (folder / name).unlink(missing_ok=True)
    task = build_task(recipe, runs_dir)
    batches = task.batches if isinstance(recipe.data, ImageTextData) else None
    if batches:
        _check_examples(folder, recipe.data.path, batches.identity)
    write_atomically(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    with hf_logging_off():
        final = train(
            task,
            recipe.optim,
            run_dir=folder,
            seed=recipe.seed,
            save_every=recipe.save_every,
            eval_every=recipe.eval_every if getattr(task, "held_out", True) is not None else 0,
            resume=resume,
            progress=progress,
            reference=reference_log(recipe.curve or recipe.name),
        )
    if batches and progress:
        print(batches.skips.report(), flush=True)
    return final


def _check_examples(folder: Path, path: str, identity: str) -> None:
    """Store the hash of a run's examples. Raises ValueError if the run was started on other ones."""
    file, found = folder / EXAMPLES_FILE, {"path": path, "identity": identity}
    if checkpoints(folder) and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["identity"] != identity:
            raise ValueError(
                f"{folder} was started on other examples ({before['path']}): use --restart to start over, or "
                "give the run another --name"
            )
    write_atomically(file, json.dumps(found) + "\n")
