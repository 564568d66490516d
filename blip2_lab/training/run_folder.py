"""The run folder of a training run: settings, log and checkpoints.

`RunFolder` writes it; `read_log` and `load_trained` read it.

    run.json  log.jsonl  checkpoints/{step-200/{model.safetensors, state.pt}, best/}  model/ (the finished model)

Notes:

* A checkpoint is written to a temporary folder, flushed to disk and renamed, so it is complete or absent. A kill at any
  time loses only the steps since the last checkpoint. The last two checkpoints are kept, and the last good one.
* A checkpoint holds the trained weights (safetensors), the optimizer's state and all random states; frozen weights are
  not copied. Its content does not depend on the number of processes that share the weights; rank 0 writes it.
* `checkpoints/best` has the weights with the lowest loss on held-out images, where a task measures it. They are the
  finished model; the last ones stay in the last checkpoint.
* One process at a time works in a run folder (`only_process`). The system releases the lock of a killed process.
* A disk that is full is one sentence, and the last checkpoint stays as it was.
* The log has one JSON object per line. Resuming removes the lines after the checkpoint, so no step is logged twice.

Notebook: 08.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from blip2_lab.common.distributed import full_tensor, shard_like
from blip2_lab.common.files import (
    is_disk_full,
    is_write_error,
    read_object,
    replace_folder,
    require_space,
    size_text,
    write_atomically,
)
from blip2_lab.training import trackers

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

SHIPPED_RUNS = (
    Path(__file__).parents[1] / "assets" / "micro-all"
)  #: recipe and log of each run behind the shipped model
KEPT_CHECKPOINTS = 2
WORDS_FILE = "words.json"  #: what tokenizers know of a run's texts (vocabulary.Coverage), in its folder
FINISHED_FILE = "finished.json"  #: at which step `model` was written
TRAINING_FILE = "training.json"  #: in a finished model's folder: evaluations and unknown words of its training
#: Settings that determine which samples a step sees; a resumed run must have the same.
SAMPLE_SETTINGS = ("seed", "batch_size", "accumulate", "processes")


# ------------------------------------------------------------------------------------------------------------ state


def random_states() -> dict[str, Any]:
    """States of every global generator, of types that `torch.load(weights_only=True)` accepts."""
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [algorithm, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the states that `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, *rest = states["numpy"]
    np.random.set_state((algorithm, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters that require a gradient, and the persistent buffers of their modules."""
    tensors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    persistent = model.state_dict().keys()
    for prefix, module in model.named_modules():
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            name = f"{prefix}.{name}" if prefix else name
            if name in persistent:
                tensors[name] = buffer
    return tensors


def load_trained(checkpoint: str | Path, model: nn.Module) -> None:
    """Copy a checkpoint's weights into `model`, in place. Raises ValueError if a name or a shape does not match, or if
    the checkpoint is damaged."""
    try:
        stored = load_file(Path(checkpoint) / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(checkpoint, error)) from None
    wanted = trained_tensors(model)
    wrong = sorted(stored.keys() ^ wanted.keys())
    wrong += sorted(name for name in stored.keys() & wanted.keys() if stored[name].shape != wanted[name].shape)
    if wrong:
        names = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"{checkpoint} belongs to another model ({names} do not match): restart the run")
    with torch.no_grad():
        for name, tensor in stored.items():
            wanted[name].copy_(shard_like(tensor, wanted[name]))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint has beside the weights. Raises ValueError if it is damaged."""
    try:
        return torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged data torch raises many kinds
        raise ValueError(_damaged(checkpoint, error)) from None


def _damaged(checkpoint: str | Path, error: Exception) -> str:
    why = " ".join(str(error).split())[:100] or type(error).__name__
    return f"the checkpoint {checkpoint} is damaged ({why}): remove it, and the run goes on from the one before"


# ----------------------------------------------------------------------------------------------------------- folder


def read_log(run_dir: str | Path) -> list[dict]:
    """The records of a run's `log.jsonl`. A line that a kill or a full disk has cut is passed over."""
    path = Path(run_dir) / "log.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def is_evaluation(record: Any) -> bool:
    """Whether a record of the log has numbers from held-out images, and those that belong to them."""
    found = record.get("evaluation") if isinstance(record, dict) else None
    if not isinstance(found, dict) or not isinstance(record.get("step"), int):
        return False
    ranks = ("text_to_image_r1", "image_to_text_r1") if "pictures" in found else ()
    shuffled = ("shuffled",) if "shuffled" in found else ()
    return all(isinstance(found.get(name), int | float) for name in ("held_out", *shuffled, *ranks))


def _is_words(words: Any) -> bool:
    """Whether it has the form of `WORDS_FILE`: by part of the model, the share and the most frequent unknown words."""
    return isinstance(words, dict) and all(
        isinstance(known, dict)
        and isinstance(known.get("share"), int | float)
        and isinstance(known.get("most_frequent"), list)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in known["most_frequent"])
        for known in words.values()
    )


def read_training(file: Path) -> dict[str, Any]:
    """The content of a `TRAINING_FILE`, as `RunFolder.about_training` returns it. Raises ValueError for another."""

    def fits(about: dict) -> bool:
        evaluations = about["evaluations"]
        listed = isinstance(evaluations, list) and all(map(is_evaluation, evaluations))
        return listed and _is_words(about["words"]) and isinstance(about["best"], dict)

    return read_object(file, "words", "best", "evaluations", fits=fits)


def reference_log(recipe: str) -> list[dict]:
    """The shipped log of a run of this recipe; empty if there is none."""
    path = SHIPPED_RUNS / f"{recipe}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def checkpoints(run_dir: str | Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    found = [p for p in (Path(run_dir) / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
    return sorted(found, key=lambda p: int(p.name[5:]))


@contextmanager
def only_process(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a run folder. Raises ValueError, in one sentence, if another process works in it.

    A folder that did not exist is removed again if an error ends the work before anything is written to it.
    """
    folder = Path(folder)
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)  # the same process may take it again
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another process is training in {folder}: wait until it has ended, or give this run another --name"
        ) from None
    try:
        yield
    except BaseException:
        with suppress(OSError):  # another run is beside it
            if new and [file.name for file in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                for one in new:
                    one.rmdir()
        raise
    finally:
        lock.release()


class RunFolder:
    """The folder of one run, new or resumed. `writes` is True in one process only."""

    def __init__(self, path: str | Path, *, writes: bool = True, log_with: str = "none") -> None:
        self.path = Path(path)
        self.writes = writes
        self.log_with = log_with
        self._trackers: list[GeneralTracker] = []

    @property
    def latest(self) -> Path | None:
        """The last checkpoint."""
        return next(reversed(checkpoints(self.path)), None)

    @property
    def best(self) -> dict[str, Any]:
        """The step and the held-out loss of `checkpoints/best`; empty if there is none."""
        file = self.path / "checkpoints" / "best" / "best.json"
        return read_object(file, "step", "held_out") if file.is_file() else {}

    @property
    def finished_step(self) -> int | None:
        """The step at which the finished model was written; None if there is none, or if an older version wrote it."""
        file = self.path / FINISHED_FILE
        written = file.is_file() and (self.path / "model").is_dir()
        return read_object(file, "step")["step"] if written else None

    def remove_best(self) -> None:
        if self.writes:
            shutil.rmtree(self.path / "checkpoints" / "best", ignore_errors=True)

    def clear(self) -> None:
        """Remove the files of an earlier run; other files stay."""
        if not self.writes:
            return
        for name in ("checkpoints", "model", "tensorboard"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("log.jsonl", "run.json", FINISHED_FILE, trackers.WANDB_FILE):
            (self.path / name).unlink(missing_ok=True)

    def open(self, settings: dict[str, Any]) -> list[str]:
        """Create the folder and write `run.json`. Returns a note for each setting that changed since the start.

        Raises ValueError if one of `SAMPLE_SETTINGS` changed: the run would see other samples.
        """
        if not self.writes:
            return []
        self.path.mkdir(parents=True, exist_ok=True)
        for unfinished in (self.path / "checkpoints").glob(".*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        file, notes = self.path / "run.json", []
        settings = json.loads(json.dumps(settings))  # as JSON stores them: tuples become lists
        if self.latest and file.exists():
            for key, old in read_object(file).items():
                new = settings.get(key)
                if new != old and key in SAMPLE_SETTINGS:
                    message = f"{self.path} was started with {key}={old}, not {new}"
                    raise ValueError(f"{message}: resume with the same value, or restart the run")
                if new != old:
                    notes.append(f"{key} was {old} when {self.path} was started, now it is {new}")
        write_atomically(file, json.dumps(settings, indent=1) + "\n")
        return notes

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`, and give its numbers to the trackers that were started."""
        if not self.writes:
            return
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for tracker in self._trackers:
            tracker.log(trackers.scalars(record), step=record["step"])

    def start_trackers(self, step: int) -> None:
        """Open the trackers of `log_with` for records from this step on. Raises ValueError."""
        if self.writes:
            self._trackers = trackers.open_trackers(self.log_with, self.path, step)

    def finish_trackers(self) -> None:
        while self._trackers:
            self._trackers.pop().finish()

    def truncate_log(self, step: int) -> None:
        """Remove the log's lines after `step`; these steps will be repeated."""
        if not self.writes:
            return
        kept = [json.dumps(record) + "\n" for record in read_log(self.path) if record["step"] <= step]
        write_atomically(self.path / "log.jsonl", "".join(kept))

    def save(self, step: int, model: nn.Module, state: dict[str, Any], good_step: int = 0) -> Path:
        """Write `checkpoints/step-N` atomically, then remove the oldest checkpoints, except that of `good_step`.

        All processes must call it: sharded tensors are gathered here.
        """
        folder = self.path / "checkpoints" / f"step-{step}"
        # cloned: safetensors refuses tensors that share memory
        weights = {
            name: full_tensor(tensor).clone().contiguous().cpu() for name, tensor in trained_tensors(model).items()
        }
        if not self.writes:
            return folder
        size = sum(x.nbytes for x in (*weights.values(), *_tensors(state)))

        def write(temporary: Path) -> None:
            temporary.mkdir()
            save_file(weights, temporary / "model.safetensors")
            torch.save(state, temporary / "state.pt")

        self._write(folder, write, size, "a checkpoint")
        for old in checkpoints(self.path)[:-KEPT_CHECKPOINTS]:
            if old.name != f"step-{good_step}":
                shutil.rmtree(old, ignore_errors=True)
        return folder

    def save_best(self, step: int, model: nn.Module, held_out: float) -> None:
        """Replace `checkpoints/best` by the weights of this step. All processes must call it, as for `save`."""
        weights = {name: full_tensor(x).clone().contiguous().cpu() for name, x in trained_tensors(model).items()}
        if not self.writes:
            return

        def write(temporary: Path) -> None:
            temporary.mkdir()
            save_file(weights, temporary / "model.safetensors")
            (temporary / "best.json").write_text(json.dumps({"step": step, "held_out": held_out}) + "\n")

        size = sum(x.nbytes for x in weights.values())
        self._write(self.path / "checkpoints" / "best", write, size, "the best weights")

    def save_model(self, save: Callable[[Path], None], model: nn.Module, step: int) -> None:
        """Write `model/` of this step by `save(folder)`, complete or not at all. `model`: whose size it has, about."""
        size = sum(x.nbytes for x in model.parameters())

        def write(temporary: Path) -> None:
            save(temporary)
            temporary.mkdir(exist_ok=True)  # a task may have nothing to write
            if about := self.about_training():
                (temporary / TRAINING_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

        self._write(self.path / "model", write, size, "the finished model")
        write_atomically(self.path / FINISHED_FILE, json.dumps({"step": step}) + "\n")

    def about_training(self) -> dict[str, Any]:
        """What `doctor` says about a finished model: the evaluations on held-out images, and its unknown words.
        Empty for a run without held-out images of your own."""
        evaluations = list(filter(is_evaluation, read_log(self.path)))
        words = self.path / WORDS_FILE
        known = read_object(words, fits=_is_words) if words.is_file() else {}
        return {"words": known, "best": self.best, "evaluations": evaluations} if evaluations or known else {}

    def _write(self, folder: Path, write: Callable[[Path], None], size: int, what: str) -> None:
        """Write a folder completely or not at all. Raises ValueError if the disk is full."""
        temporary = folder.with_name(f".{folder.name}.tmp")
        last = f"the last checkpoint is {self.latest}" if self.latest else "no checkpoint had been written"
        help = f"{last}; make room, and the same command goes on from there"
        shutil.rmtree(temporary, ignore_errors=True)
        require_space(self.path, size, what, help)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            replace_folder(temporary, folder)
        except Exception as error:
            full = is_disk_full(error, self.path, size)
            shutil.rmtree(temporary, ignore_errors=True)
            if full:
                raise ValueError(f"the disk of {self.path} is full ({what}: {size_text(size)}): {help}") from None
            if is_write_error(error):  # torch's own sentence has many lines
                why = " ".join(str(error).split())[:100]
                raise ValueError(f"{what} ({size_text(size)}) cannot be written to {folder} ({why}): {last}") from None
            raise


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested dicts and lists."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
