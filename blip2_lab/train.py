"""The training engine: one loop for every part of the laboratory.

What is unusual about it:

* A batch is a pure function of its index (`task.batch(index)`), so there is no sampler to save: resuming is exact to
  the sample. With the optimizer's state and the random states restored, it is exact to the bit.
* The learning rate is a pure function of the step, too, and every parameter group multiplies it by its own
  `lr_scale`. (LAVIS computes `lr_scale` for layer-wise decay and never reads it.)
* One background thread prepares batches (drawing pictures costs time) in the order of their indices.
* A kill at any time loses nothing but the steps since the last checkpoint (`run_folder.py`).
* A loss or gradient that is not finite stops the run *before* the update, so the last checkpoint is always good.

Paper: sections 3.2 to 3.4. Notebook: 00.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from blip2_lab.run_folder import RunFolder, load_trained, random_states, read_log, set_random_states

if TYPE_CHECKING:
    from accelerate import Accelerator

PREFETCHED_BATCHES = 2


class Diverged(FloatingPointError):
    """A loss or a gradient became infinite or not a number; the message says at which step and what to try."""


@dataclass(frozen=True)
class OptimConfig:
    """How to optimize: AdamW, linear warm-up, then a cosine for every step (paper, section 3.4).

    `batch_size` is what one update sees; `accumulate` splits it into that many passes (`pass_size` examples each).
    """

    lr: float
    warmup_steps: int
    steps: int
    batch_size: int
    min_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    grad_clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "bf16"

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is unknown: choose bf16, fp16 or fp32")
        if self.steps < 1 or self.batch_size < 1 or self.accumulate < 1:
            raise ValueError("steps, batch_size and accumulate must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into accumulate={self.accumulate} passes")

    @property
    def pass_size(self) -> int:
        """Examples of one forward and backward pass: what `task.batch` returns."""
        return self.batch_size // self.accumulate


class Task(Protocol):
    """What the engine trains: anything with these three. Parameters of `model` that require a gradient are trained.

    It may also have:
      `parameter_groups(lr, weight_decay) -> list[dict]`; default: the function of that name below
      `evaluate(step) -> dict[str, float]`, called every `eval_every` steps, in eval mode and without gradient
      `save(folder: Path)`, called once at the end with `run_dir/model`
    """

    model: nn.Module

    def batch(self, index: int) -> Any:
        """Batch number `index`, a pure function of the task's own seed; it runs in another thread, so it must not
        draw from the global random generators."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name; "total" is minimized, the others are logged."""
        ...


class _TaskModule(nn.Module):
    """The losses as a module's forward: what accelerate wraps (autocast; DDP with several processes)."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.losses = task.losses

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.losses(batch)


# ---------------------------------------------------------------------------------------------------- optimization


def learning_rate(optim: OptimConfig, step: int) -> float:
    """The rate of update number `step` (from 0): linear up to `lr`, then half a cosine down to `min_lr`."""
    # differs from LAVIS: the cosine moves with every step, not once per epoch, and starts where the warm-up ends
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    lr_scales: dict[str, float] | None = None,
    no_decay: tuple[str, ...] = (),
) -> list[dict]:
    """AdamW's groups over the trainable parameters.

    Biases and tensors of fewer than two dimensions do not decay, nor do names that contain a part of `no_decay`.
    A name that contains a key of `lr_scales` learns that many times faster, e.g. `{"relative_attention_bias": 30}`.
    """
    # differs from LAVIS: the 0-dimensional temperature does not decay either; there it does by accident (len 0 != 1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, parameter in trainable:
        scale = next((s for part, s in (lr_scales or {}).items() if part in name), 1.0)
        free = parameter.ndim < 2 or name.endswith(".bias") or any(part in name for part in no_decay)
        groups.setdefault((scale, 0.0 if free else weight_decay), []).append(parameter)
    result = [
        {"params": parameters, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    assert sum(len(g["params"]) for g in result) == len(trainable), "groups must cover every trainable parameter once"
    return result


def _optimizer(task: Task, optim: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    build = getattr(task, "parameter_groups", None)
    arguments = (optim.lr, optim.weight_decay)
    groups = build(*arguments) if build else parameter_groups(task.model, *arguments)
    if not any(group["params"] for group in groups):
        raise ValueError("nothing to train: no parameter of the model requires a gradient")
    for group in groups:
        group.setdefault("lr_scale", 1.0)
    return torch.optim.AdamW(
        groups,
        lr=optim.lr,
        betas=tuple(optim.betas),
        weight_decay=optim.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def train_mode(model: nn.Module) -> None:
    """Training mode, except for frozen sub-modules: their dropout stays off (LAVIS leaves the language model's on)."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


# --------------------------------------------------------------------------------------------------- batches, ahead


def prefetch(make: Callable[[int], Any], indices: range, depth: int = PREFETCHED_BATCHES) -> Iterator[Any]:
    """`make(index)` for each index, in order, prepared by one thread at most `depth` ahead.

    An exception in `make` is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(item: tuple[Any, Exception | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        for index in indices:
            try:
                item = (make(index), None)
            except Exception as error:  # handed over: it belongs to the thread that asked
                put((None, error))
                return
            if not put(item):
                return

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in indices:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join(timeout=10)


# --------------------------------------------------------------------------------------------------------- the loop


def train(
    task: Task,
    optim: OptimConfig,
    *,
    run_dir: str | Path,
    seed: int = 0,
    log_every: int = 20,
    save_every: int = 200,
    eval_every: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> dict[str, float]:
    """Train `task.model` in place and return the last logged numbers.

    `run_dir` receives `run.json` (the settings), `log.jsonl`, `checkpoints/step-N` and, if the task can save, `model`.
    `resume=True` goes on from the last checkpoint of `run_dir`, if any; `resume=False` removes it and starts over.
    Raises `Diverged` when the loss is not finite, ValueError when `run_dir` belongs to a run with other settings.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import set_seed

    AcceleratorState._reset_state()  # else a process that has trained in bf16 could never train in fp32
    accelerator = Accelerator(
        mixed_precision="no" if optim.precision == "fp32" else optim.precision,
        gradient_accumulation_steps=optim.accumulate,
    )
    if accelerator.num_processes > 1:
        raise ValueError("this version trains in one process: start it without torchrun or accelerate launch")
    optimizer = _optimizer(task, optim, accelerator.device)
    module, optimizer = accelerator.prepare(_TaskModule(task), optimizer)
    set_seed(seed)

    say = print if progress else (lambda *_, **__: None)
    run, start, meter = RunFolder(run_dir), 0, Meter()
    if not resume:
        run.clear()
    for note in run.open({"seed": seed, "torch": torch.__version__, **asdict(optim)}):
        say(f"note: {note}")
    if run.latest:
        start, meter = _restore(run.latest, task.model, optimizer, accelerator.scaler)
        say(f"resuming {run_dir} at step {start} of {optim.steps}", flush=True)
    run.forget_after(start)

    batches = prefetch(task.batch, range(start * optim.accumulate, optim.steps * optim.accumulate))
    train_mode(module)
    try:
        for step in range(start, optim.steps):
            began = time.perf_counter()
            try:
                parts = _update(accelerator, module, optimizer, batches, optim, step)
            except Diverged as error:
                raise Diverged(f"{error} at step {step + 1}; {_advice(run, optim)}") from None
            meter.add(parts, time.perf_counter() - began)
            done, last = step + 1, step + 1 == optim.steps
            if done % log_every == 0 or last:
                record = {"step": done, "lr": learning_rate(optim, step), **meter.read(optim.batch_size)}
                run.log(record)
                say(_line(record, optim.steps, meter), flush=True)
                meter.clear()
            if eval_every and (done % eval_every == 0 or last) and hasattr(task, "evaluate"):
                with accelerator.autocast():
                    metrics = _evaluate(task, done)
                run.log({"step": done, "evaluation": metrics})
                say(f"step {done}  evaluation: " + _numbers(metrics), flush=True)
                train_mode(module)
            if done % save_every == 0 or last:
                run.save(done, task.model, _state(done, meter, optimizer, accelerator.scaler))
    finally:
        batches.close()
    task.model.eval()
    if hasattr(task, "save"):
        task.save(run.path / "model")
    final: dict[str, float] = {}
    for record in read_log(run_dir)[-2:]:
        final |= record.get("evaluation", record)
    return final


def _update(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    optim: OptimConfig,
    step: int,
) -> dict[str, float]:
    """One optimizer step over `accumulate` passes. Returns the loss parts, averaged, and the gradient's norm."""
    from accelerate.utils import send_to_device

    lr = learning_rate(optim, step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    parts: dict[str, float] = {}
    for _ in range(optim.accumulate):
        with accelerator.accumulate(module):
            losses = module(send_to_device(next(batches), accelerator.device))
            for name, value in losses.items():
                parts[name] = parts.get(name, 0.0) + float(value.detach()) / optim.accumulate
            if not math.isfinite(parts["total"]):
                raise Diverged(f"the loss became {parts['total']}")
            accelerator.backward(losses["total"])
    # no clipping is clipping at infinity: the norm is wanted in any case
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(accelerator.clip_grad_norm_(parameters, optim.grad_clip or math.inf))
    if not math.isfinite(norm) and accelerator.scaler is None:  # the fp16 scaler skips such a step by itself
        raise Diverged(f"the gradient became {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return {**parts, "grad_norm": norm}


def _state(step: int, meter: Meter, optimizer: torch.optim.Optimizer, scaler: Any) -> dict[str, Any]:
    """What a checkpoint holds besides the weights."""
    return {
        "step": step,
        "meter": asdict(meter),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler and scaler.state_dict(),
        "random": random_states(),
    }


def _restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any) -> tuple[int, Meter]:
    """Put a checkpoint back, random states last. Returns its step and meter."""
    load_trained(checkpoint, model)
    state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    set_random_states(state["random"])
    return state["step"], Meter(**state["meter"])


@dataclass
class Meter:
    """Sums since the last log line, and the seconds of the whole run; part of a checkpoint, so that a resumed run
    logs the same numbers."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    window_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, parts: dict[str, float], seconds: float) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.window_seconds += seconds
        self.seconds += seconds

    def read(self, batch_size: int) -> dict[str, float]:
        """Means over the window, seconds of training so far, samples per second."""
        speed = batch_size * self.steps / self.window_seconds
        means = {name: value / self.steps for name, value in self.sums.items()}
        return means | {"seconds": round(self.seconds, 2), "samples_per_second": round(speed, 1)}

    def clear(self) -> None:
        self.sums, self.steps, self.window_seconds = {}, 0, 0.0


def _line(record: dict[str, float], steps: int, meter: Meter) -> str:
    """A log record for the eye, with the time that is left at the window's speed."""
    shown = {k: v for k, v in record.items() if k not in ("step", "seconds", "samples_per_second")}
    left = (steps - record["step"]) * meter.window_seconds / meter.steps
    time_left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    return f"step {record['step']}/{steps}  {_numbers(shown)}  {record['samples_per_second']:.0f}/s  {time_left} left"


def _numbers(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _evaluate(task: Task, step: int) -> dict[str, float]:
    """`task.evaluate` in eval mode; training goes on as if it had not happened, random numbers included."""
    states = random_states()
    task.model.eval()
    with torch.no_grad():
        metrics = {name: float(value) for name, value in task.evaluate(step).items()}
    set_random_states(states)
    return metrics


def _advice(run: RunFolder, optim: OptimConfig) -> str:
    """After a divergence: where to go on from, and what to try."""
    good = f"the last good checkpoint is {run.latest}" if run.latest else "no checkpoint had been written"
    return (
        f"{good}; try a lower learning rate than {optim.lr:g}, a longer warm-up than {optim.warmup_steps} steps, "
        "grad_clip=1.0, or precision=fp32"
    )
