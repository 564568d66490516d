"""Train one recipe in its run folder: check its data and its settings, build its task, call the trainer.

`run` is what `blip2-lab train RECIPE` calls (through pipeline.py).

Notes:

* A run resumes only on the same data, by content (training/identity.py), and with the settings that it was started
  with. Settings of the optimizer may change; this is said, and `recipe.json` lists it under `changed`.
* A run folder of an older version knew its data by the names of the examples. It resumes if these are the same.
* A finished run is not trained again.

Paper: sections 3.2 to 3.4, 4.2. Notebooks: 08, 11.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from blip2_lab.common.distributed import is_first_process
from blip2_lab.common.files import read_object, write_atomically
from blip2_lab.data.mixture import Mixture, Source, Stream
from blip2_lab.training.batches import LEFT_OUT, SKIPPED, open_batches
from blip2_lab.training.builders import build_task, check_recipe
from blip2_lab.training.identity import Identity, data_identity
from blip2_lab.training.loading import hf_logging_off
from blip2_lab.training.recipes.registry import needs
from blip2_lab.training.recipes.schema import ImageTextData, Recipe, Stage2Parts
from blip2_lab.training.run_folder import WORDS_FILE, RunFolder, checkpoints, only_process, reference_log
from blip2_lab.training.trackers import require_tracker
from blip2_lab.training.trainer import final_numbers, train

EXAMPLES_FILE = "examples.json"  #: the identity of a run's data, in its folder
RECIPE_FILE = "recipe.json"
#: Settings that describe a recipe or its speed; a resumed run may have others.
FREE = ("name", "summary", "cost", "sequence", "curve", "save_every", "eval_every", "log_with")
DATA_FREE = ("path", "source", "pairs", "text_file", "threads", "verify_cache", "max_broken", "unknown_words")
FREE += tuple(f"data.{name}" for name in DATA_FREE)
#: Settings of the optimizer that decide which examples a step sees.
FIXED = ("optim.batch_size", "optim.accumulate")


def run(recipe: Recipe, runs_dir: str | Path, *, resume: bool = True, progress: bool = True) -> dict[str, float]:
    """Train one recipe in `runs_dir/NAME` and return the last logged numbers.

    Raises ValueError if the folder belongs to a run with other data or settings, or if another process works in it.
    """
    runs_dir = Path(runs_dir)
    missing = [name for name in _inputs(recipe, runs_dir) if not (runs_dir / name / "model").is_dir()]
    if missing:
        raise ValueError(
            f"{recipe.name} needs {' and '.join(missing)} in {runs_dir}: blip2-lab train {missing[0]}"
            f"{_in_their_place(recipe, missing)}"
        )
    check_recipe(recipe)
    require_tracker(recipe.log_with)
    folder = runs_dir / recipe.name
    with only_process(folder) if is_first_process() else nullcontext():
        try:
            return _run(recipe, runs_dir, folder, resume=resume, progress=progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ValueError(
                f"the disk of {folder} is full: make room, and the same command goes on from the last checkpoint"
            ) from None


def _inputs(recipe: Recipe, runs_dir: Path) -> list[str]:
    """Names of the recipes whose models are read. A finished stage 1 no longer needs the BERT that it started from."""
    parts, names = recipe.model, list(needs(recipe))
    if isinstance(parts, Stage2Parts) and parts.pretrained and (runs_dir / parts.stage1 / "model").is_dir():
        return [name for name in names if name in (parts.stage1, parts.language_model, parts.start)]
    return names


def _in_their_place(recipe: Recipe, missing: list[str]) -> str:
    """The end of a sentence about models that are not trained: the settings that can name others."""
    named = [one.name for one in fields(recipe.model) if getattr(recipe.model, one.name) in missing]
    ways = " ".join(f"--set model.{name}=RUN|FOLDER|NAME" for name in named)
    return ways and f", or name what is trained already: {ways}"


def _run(recipe: Recipe, runs_dir: Path, folder: Path, *, resume: bool, progress: bool) -> dict[str, float]:
    first = is_first_process()
    say = print if progress and first else (lambda *_, **__: None)
    if not resume and first:
        for name in (SKIPPED, LEFT_OUT, EXAMPLES_FILE, RECIPE_FILE, WORDS_FILE):
            (folder / name).unlink(missing_ok=True)
    started = resume and bool(checkpoints(folder))
    changed = _changed_settings(folder, recipe) if started else []
    batches = open_batches(recipe, runs_dir) if isinstance(recipe.data, ImageTextData) else None
    identity = batches.identity if batches else None
    if batches and started and (note := _check_examples(folder, identity, batches.listed)):
        say(f"note: {note}", flush=True)
    if started and RunFolder(folder).finished_step == recipe.optim.steps and not changed:
        if first:  # no progress line: without it, `--quiet` would hand back the old model as if it were a new one
            print(f"{folder} finished at step {recipe.optim.steps}: nothing was trained (--restart begins anew)")
        return final_numbers(folder)
    for change in changed:
        if not change["setting"].startswith("optim."):  # the trainer says those
            setting, was, now = change["setting"], change["was"], change["now"]
            say(f"note: {setting} was {was!r} when {folder} was started, now it is {now!r}")
    task = build_task(recipe, runs_dir, batches)
    if batches and started and batches.left_out and not _stored(folder / EXAMPLES_FILE):
        raise ValueError(
            f"{folder} was started by an older version, which trained on texts that are left out now: use --restart to "
            "start over, or give the run another --name"
        )
    if first:
        _write(folder, recipe, changed, identity, {part: w.to_dict() for part, w in getattr(task, "words", {}).items()})
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
            log_with=recipe.log_with,
        )
    if batches:
        say(batches.skips.report(), flush=True)
    return final


def _write(folder: Path, recipe: Recipe, changed: list[dict], identity: Identity | None, words: dict) -> None:
    """Write what the run is: its recipe, its data, and what tokenizers know of its texts."""
    before = read_object(folder / RECIPE_FILE) if (folder / RECIPE_FILE).exists() else {}
    history = {"changed": [*before.get("changed", []), *changed]} if changed or before.get("changed") else {}
    write_atomically(folder / RECIPE_FILE, json.dumps(asdict(recipe) | history, indent=1) + "\n")
    if identity is not None:
        about = {"path": recipe.data.path, **identity.to_dict()}
        write_atomically(folder / EXAMPLES_FILE, json.dumps(about) + "\n")
        write_atomically(folder / WORDS_FILE, json.dumps(words, indent=1, ensure_ascii=False) + "\n")


def _about_data(file: Path) -> dict[str, Any]:
    """What a run stored of the data that it was started on; empty where there is no such file."""

    def fits(content: dict) -> bool:  # an older version knew `identity` alone
        return "texts" not in content or content.keys() >= {"pictures", "examples", "shares"}

    return read_object(file, "path", fits=fits) if file.exists() else {}


def _stored(file: Path) -> Identity | None:
    """The identity of the data that a run was started on; None if an older version started it."""
    content = _about_data(file)
    return Identity.from_dict(content) if "texts" in content else None


def was_trained_on(model: Path, sources: Sequence[Source | Stream]) -> bool:
    """Whether the folder of a finished model is in a run, or in a world of one's own, that was started on exactly these
    pictures. Other pictures that it may have seen are not known."""
    files = (
        [*model.parent.glob(EXAMPLES_FILE), *model.parent.glob(f"*/{EXAMPLES_FILE}")] if model.name == "model" else []
    )
    stored = [identity.pictures for file in files if (identity := _stored(file))]
    return bool(stored) and data_identity(Mixture(sources)).pictures in stored


def _check_examples(folder: Path, identity: Identity, listed: str) -> str | None:
    """A note, or None. Raises ValueError if the run was started on other data. `listed`: `ImageTextBatches.listed`."""
    file = folder / EXAMPLES_FILE
    content, before = _about_data(file), _stored(file)
    if before is not None:
        different = ", ".join(identity.differences(before))
    else:
        different = "other examples" if content.get("identity", listed) != listed else ""
    if different:
        raise ValueError(
            f"{folder} was started on other data ({content['path']}; now there are {different}): use --restart to "
            "start over, or give the run another --name"
        )
    if before is None:
        return f"{folder} was started by an older version, which knew the data by the names of the examples: they agree"
    return None


def _changed_settings(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The settings that are others than when the run was started, and do not forbid to resume.

    Raises ValueError for the others: settings of the model, of the data and of the task.
    """
    file = folder / RECIPE_FILE
    if not file.exists():
        return []
    before = _flat(read_object(file))
    now, changed = _flat(json.loads(json.dumps(asdict(recipe)))), []
    step = int(checkpoints(folder)[-1].name.removeprefix("step-"))
    for setting, value in now.items():
        if setting not in before or before[setting] == value:  # an older version did not have it, or nothing changed
            continue
        may_change = setting in FREE or (setting.startswith("optim.") and setting not in FIXED)
        if not may_change:
            raise ValueError(
                f"{folder} was started with {setting}={before[setting]}, not {value}: resume with the same value, use "
                "--restart to start over, or give the run another --name"
            )
        if setting == "optim.steps" and value < step:
            raise ValueError(f"{folder} is at step {step}, and optim.steps is {value}: give more steps, or --restart")
        if setting.startswith("optim.") or setting in ("save_every", "eval_every", "data.max_broken"):
            changed.append({"step": step, "setting": setting, "was": before[setting], "now": value})
    return changed


def _flat(node: dict, prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}"""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
