"""The numbers of a run's log for TensorBoard or Weights & Biases, by accelerate's trackers.

`open_trackers` is where to begin; `run_folder.RunFolder` gives each record of log.jsonl to what it returns.

Notes:

* `log_with=auto` writes TensorBoard's files where TensorBoard is installed, and nothing elsewhere.
* A resumed run goes on in the same place: TensorBoard hides what was written after the last checkpoint, W&B continues
  the run whose id is in the run folder.
* W&B gets the numbers of the log and the optimizer's settings (run.json): no texts, no pictures, no paths.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import importlib.util
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2_lab.common.files import read_object, write_atomically

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "blip2-lab"  #: in Weights & Biases
WANDB_FILE = "wandb.json"  #: the id of the run there, in its folder
TENSORBOARD = "tensorboard"  #: the folder of its files, in the run folder
#: Of W&B, which otherwise takes the printed lines, the command, paths, the git repository and the machine, too.
NUMBERS_ONLY = dict(
    console="off",
    disable_git=True,
    save_code=False,
    x_disable_machine_info=True,
    x_disable_meta=True,
    x_disable_stats=True,
    x_save_requirements=False,
)


def require_tracker(log_with: str) -> None:
    """Raises ValueError, in one sentence, if the package of this tracker is not installed."""
    if log_with in (TENSORBOARD, "wandb") and importlib.util.find_spec(log_with) is None:
        raise ValueError(
            f"log_with={log_with} needs {log_with}, which is not installed: pip install {log_with}, or leave it out"
        )


def open_trackers(log_with: str, folder: Path, step: int) -> list[GeneralTracker]:
    """The trackers of a run in `folder` that begins, or goes on, with the record of this step. Raises ValueError."""
    require_tracker(log_with)
    if log_with == "none" or (log_with == "auto" and importlib.util.find_spec(TENSORBOARD) is None):
        return []
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # accelerate's trackers ask it which process writes
    if log_with == "wandb":
        options = dict(name=folder.name, dir=folder, id=_wandb_id(folder), resume="allow", config=_settings(folder))
        tracker = WandBTracker(PROJECT, **options, settings=NUMBERS_ONLY)
    else:  # hides what an interrupted run wrote after its last checkpoint
        tracker = TensorBoardTracker(TENSORBOARD, folder, purge_step=step)
    try:
        tracker.start()
    except Exception as error:  # wandb's own classes: no key, no network
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"log_with={log_with} does not start ({reason}): log in (wandb login), set WANDB_MODE=offline, or leave "
            "log_with out"
        ) from None
    return [tracker]


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """A record of log.jsonl as numbers by name: {"step": 20, "evaluation": {"held_out": 3.1}} ->
    {"evaluation/held_out": 3.1}."""
    found: dict[str, float] = {}
    for name, value in record.items():
        inner = value if isinstance(value, dict) else {"": value}
        for key, scalar in inner.items():
            if name != "step" and key != "step":
                found[f"{name}/{key}" if key else name] = scalar
    return found


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    return read_object(file) if file.is_file() else {}


def _wandb_id(folder: Path) -> str:
    """The id of this run in W&B, made once and kept in its folder."""
    file = folder / WANDB_FILE
    if not file.is_file():
        write_atomically(file, json.dumps({"id": uuid.uuid4().hex[:16]}) + "\n")
    return read_object(file, "id")["id"]
