"""The training loop, for every task of the package: stages 1 and 2, fine-tuning, pre-training of the frozen models.

`train` is where to begin; `Task` is what it trains; `_update` is one optimizer step.

accelerate handles devices, mixed precision, the fp16 scaler and DDP. On many GPUs, or many machines:

    torchrun --nproc-per-node 8 -m blip2_lab train RECIPE [--set optim.shard=true]

Notes:

* A batch is a pure function of its index (`task.batch(index)`), so there is no sampler state to save. With the states
  of the optimizer and of the random generators restored, a resumed run is bitwise equal to an uninterrupted one.
* A step gives the same update however its batch is split among processes and passes. Means over different numbers of
  target tokens are weighted; losses that compare examples of different passes get all of them (`compute_joint_losses`).
  Sharding and gradient checkpointing change the memory of a step, not its result.
* One background thread prepares the batches, in the order of their indices (`prefetch.py`).
* A kill at any time loses only the steps since the last checkpoint (`training/run_folder.py`).
* A loss or gradient that is not finite stops the run before the update; so does a loss that rises to its initial value
  (`training/divergence.py`). The error names the last good checkpoint, which is not removed.

Paper: sections 3.2 to 3.4. Notebook: 08.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from blip2_lab.common import distributed
from blip2_lab.models.attention_kernels import kernels_text, recorded_kernels
from blip2_lab.training.divergence import Diverged, LossMonitor
from blip2_lab.training.optim import (
    bf16_is_fast,
    build_optimizer,
    divergence_advice,
    learning_rate,
    present_device,
    train_mode,
)
from blip2_lab.training.prefetch import prefetch
from blip2_lab.training.recipes.schema import OptimConfig
from blip2_lab.training.run_folder import (
    RunFolder,
    checkpoints,
    load_state,
    load_trained,
    only_process,
    random_states,
    read_log,
    set_random_states,
)

if TYPE_CHECKING:
    from accelerate import Accelerator


class Task(Protocol):
    """What the trainer trains: an object with these three members. Parameters of `model` that require a gradient are
    trained.

    Optional members:
      `lr_scales() -> dict[str, float]`: a substring of parameter names -> how many times faster these learn
      `no_decay`: substrings of the names of parameters without weight decay
      `evaluate(step) -> dict[str, float]`: called every `eval_every` steps, in eval mode and without gradient
      `save(folder: Path)`: called once at the end, with `run_dir/model`
      `compute_joint_losses(batches)`: the losses of the batches of several passes as one batch, for losses that compare
      examples of different passes; it should need the memory of one pass (see `Stage1Model.losses`)
      `generator: torch.Generator`: seeded for each step, equally in all processes
      `chance() -> dict[str, float]`: the chance level of each loss; stored in `run.json`
      `shuffled(batch) -> batch`: the same texts with other images; at each evaluation, the losses of the last batch are
      logged both ways for `blip2-lab doctor`: the shuffled ones are higher if the model uses the image
    """

    model: nn.Module

    def batch(self, index: int) -> Any:
        """Batch number `index`, a pure function of the index and the task's seed. Called in another thread, so it must
        not draw from the global random generators."""
        ...

    def compute_losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name; "total" is minimized, the others are logged. "weight", if present, is the number of items
        (such as target tokens) they are means of; passes and processes are weighted by it."""
        ...


class _TaskModule(nn.Module):
    """The task's losses as the forward of a module, which accelerate wraps (autocast; DDP with several processes)."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.compute_losses = task.compute_losses
        self.compute_joint_losses = getattr(task, "compute_joint_losses", None)

    def forward(self, batches: list[Any]) -> dict[str, Tensor]:
        return self.compute_losses(batches[0]) if len(batches) == 1 else self.compute_joint_losses(batches)


# --------------------------------------------------------------------------------------------------------- the loop


def pass_numbers(optim: OptimConfig, steps: range, rank: int = 0) -> list[int]:
    """The indices of one process's batches: within a step, rank 0's passes come first, then rank 1's, and so on."""
    passes, world = optim.accumulate, distributed.number_of_processes()
    return [(step * world + rank) * passes + i for step in steps for i in range(passes)]


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
    reference: Sequence[dict] = (),
    log_with: str = "auto",
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, float]:
    """Train `task.model` in place and return the last logged numbers.

    `run_dir` receives `run.json` (the settings), `log.jsonl`, `checkpoints/step-N` and, if the task can save, `model`.
    `resume=True` continues from the last checkpoint of `run_dir`, if any; `resume=False` removes all and starts over.
    If the evaluation has a loss `held_out`, the weights with the lowest one are kept, and they are the saved model.
    `reference` is the log of another run; at each evaluation its losses at that step are logged, too. `log_with` is a
    tracker of training/trackers.py, which gets the numbers of the log. `on_log` is called with each record that is
    written to the log, for a live curve (`plots/live.py`).
    Raises `Diverged` if the loss diverges, ValueError if `run_dir` belongs to a run with other settings, if another
    process trains in it, or if its disk is full.
    """
    with only_process(run_dir) if distributed.is_first_process() else nullcontext():
        options = dict(log_every=log_every, save_every=save_every, eval_every=eval_every, log_with=log_with)
        return _train(
            task,
            optim,
            Path(run_dir),
            seed,
            resume=resume,
            progress=progress,
            reference=reference,
            on_log=on_log,
            **options,
        )


def _train(
    task: Task,
    optim: OptimConfig,
    run_dir: Path,
    seed: int,
    *,
    log_every: int,
    save_every: int,
    eval_every: int,
    resume: bool,
    progress: bool,
    reference: Sequence[dict],
    log_with: str,
    on_log: Callable[[dict[str, Any]], None] | None,
) -> dict[str, float]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import set_seed

    AcceleratorState._reset_state()  # else the precision of an earlier run in this process stays
    started = distributed.number_of_processes()
    accelerator = Accelerator(
        mixed_precision=_mixed_precision(optim.precision),
        cpu=started > 1 and not torch.accelerator.is_available(),
    )
    if accelerator.num_processes != started:
        raise ValueError(f"{started} processes were started and do not find each other: start them with torchrun")
    module, optimizer = _prepare(accelerator, task, optim)
    set_seed(seed, device_specific=True)  # different dropout in each process

    main = accelerator.is_main_process
    say = print if progress and main else (lambda *_, **__: None)
    tell = on_log if on_log and main else (lambda _: None)
    run, start, meter, watch = RunFolder(run_dir, writes=main, log_with=log_with), 0, Meter(), LossMonitor()
    if not resume:
        run.clear()
    chance = {"chance": task.chance()} if hasattr(task, "chance") else {}
    notes = run.open({"seed": seed, "torch": torch.__version__, "processes": started, **asdict(optim), **chance})
    for note in notes:
        say(f"note: {note}")
    if chance:
        say("without learning: " + _format_numbers(chance["chance"]))
    accelerator.wait_for_everyone()
    if run.latest:
        start, meter, watch = _restore(run.latest, task.model, optimizer, accelerator)
        if start > optim.steps:
            raise ValueError(
                f"{run_dir} is at step {start}, and optim.steps is {optim.steps}: give more steps, or restart the run"
            )
        going = f"resuming {run_dir} at step {start} of {optim.steps}"
        say(going if start < optim.steps else f"{run_dir} finished at step {start}: nothing was trained", flush=True)
    run.truncate_log(start)
    if notes and run.best.get("step", 0) > start:  # of steps that will be other ones
        run.remove_best()

    latest: list[Any] = []
    numbers = pass_numbers(optim, range(start, optim.steps), accelerator.process_index)
    batches = _keep_latest(prefetch(task.batch, numbers), latest)
    passes_at_once = optim.accumulate if hasattr(task, "compute_joint_losses") else 1
    train_mode(module)
    if start < optim.steps:
        run.start_trackers(start + 1)
    try:
        for step in range(start, optim.steps):
            start_time = time.perf_counter()
            if hasattr(task, "generator"):
                task.generator.manual_seed(hash((seed, step)))  # a hash of integers is the same in all processes
            try:
                with recorded_kernels() if step == start else nullcontext() as kernels:
                    losses = _update(accelerator, module, optimizer, batches, optim, step, passes_at_once)
                if kernels is not None:
                    say(f"attention: {kernels_text(kernels)}")
                watch.add(losses["total"])
            except Diverged as error:
                raise Diverged(f"{error} at step {step + 1}; {_divergence_message(run, optim, watch)}") from None
            meter.add(losses, time.perf_counter() - start_time)
            done, last = step + 1, step + 1 == optim.steps
            if done % log_every == 0 or last:
                record = {"step": done, "lr": learning_rate(optim, step), **meter.read(optim.batch_size)}
                run.log(record)
                tell(record)
                say(_progress_line(record, optim.steps, meter), flush=True)
                meter.clear()
            if eval_every and (done % eval_every == 0 or last):
                with accelerator.autocast(), distributed.full_parameters(module):
                    found = _evaluate(task, done, latest[0], accelerator.device)
                if reference and found:
                    found["reference"] = _nearest_record(reference, done)
                if found:
                    run.log({"step": done, **found})
                    tell({"step": done, **found})
                held_out = found.get("evaluation", {}).get("held_out", math.inf)
                if _agreed(accelerator, held_out < run.best.get("held_out", math.inf)):
                    run.save_best(done, task.model, held_out)
                for name, metrics in found.items():
                    say(f"step {done}  {name}: " + _format_numbers(metrics), flush=True)
                train_mode(module)
            if done % save_every == 0 or last:
                watch.mark_checkpoint(done)
                run.save(done, task.model, _state(done, meter, watch, optimizer, accelerator.scaler), watch.good_step)
                accelerator.wait_for_everyone()
    finally:
        batches.close()
        run.finish_trackers()
    task.model.eval()
    if hasattr(task, "save"):
        distributed.unshard_to_cpu(task.model)
        if main:
            _load_best(run, task.model, optim.steps, say)
            if run.finished_step != optim.steps or start < optim.steps:
                run.save_model(task.save, task.model, optim.steps)
        accelerator.wait_for_everyone()
    return final_numbers(run_dir)


def final_numbers(run_dir: str | Path) -> dict[str, float]:
    """The last losses and the last evaluation of a run's log."""
    final: dict[str, float] = {}
    for record in read_log(run_dir)[-2:]:
        final |= record.get("evaluation", record if "total" in record else {})
    return final


def _agreed(accelerator: Accelerator, decision: bool) -> bool:
    """The first process's decision, in all of them: only it has read the run's folder, and rounding may differ."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([decision])[0] if accelerator.num_processes > 1 else decision


def _load_best(run: RunFolder, model: nn.Module, steps: int, say: Callable[..., None]) -> None:
    """Put the weights with the lowest loss on held-out images into `model`, if they are not the last ones."""
    best = run.best
    if not best or best["step"] >= steps:
        return
    load_trained(run.path / "checkpoints" / "best", model)
    say(
        f"the model is that of step {best['step']}, which has the lowest loss on held-out pictures, "
        f"{best['held_out']:.4g}; that of step {steps} is in {run.latest}",
        flush=True,
    )


def _mixed_precision(precision: str) -> str:
    """`OptimConfig.precision` -> accelerate's name of it."""
    if precision == "auto":
        precision = "bf16" if bf16_is_fast(present_device().type) else "fp32"
    return "no" if precision == "fp32" else precision


def _prepare(accelerator: Accelerator, task: Task, optim: OptimConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The task's losses as a module, and the optimizer, on this process's device, wrapped for several processes."""
    world = accelerator.num_processes
    if optim.batch_size % (optim.accumulate * world):
        split = f"{world} processes" + (f" of {optim.accumulate} passes" if optim.accumulate > 1 else "")
        raise ValueError(f"batch_size {optim.batch_size} cannot be split among {split}: choose a multiple")
    if optim.shard and world == 1:
        raise ValueError("optim.shard=true shares a model among processes: start several (torchrun), or leave it out")
    if optim.checkpoint_layers:
        distributed.enable_gradient_checkpointing(task.model)
    module = _TaskModule(task)
    if not optim.shard:
        return accelerator.prepare(module, _optimizer(task, optim, accelerator.device))
    module = distributed.shard(module, accelerator.device)
    module.forward = accelerator.autocast()(module.forward)
    return module, accelerator.prepare(_optimizer(task, optim, accelerator.device))


def _optimizer(task: Task, optim: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    scales = task.lr_scales() if hasattr(task, "lr_scales") else None
    return build_optimizer(task.model, optim, device, lr_scales=scales, no_decay=getattr(task, "no_decay", ()))


def _update(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    optim: OptimConfig,
    step: int,
    passes_at_once: int,
) -> dict[str, float]:
    """One optimizer step over `accumulate` passes, with one backward per `passes_at_once` of them. Returns the losses,
    averaged over passes and processes, and the norm of the gradient."""
    from accelerate.utils import send_to_device

    lr = learning_rate(optim, step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    names, sums = [], 0
    for first in range(0, optim.accumulate, passes_at_once):
        inputs = send_to_device([next(batches) for _ in range(passes_at_once)], accelerator.device)
        last = first + passes_at_once == optim.accumulate
        with nullcontext() if last else accelerator.no_sync(module):  # DDP averages gradients in the last backward
            losses = module(inputs)
            weight = losses.pop("weight", torch.ones_like(losses["total"])) / optim.pass_size
            names = list(losses)
            sums = sums + torch.stack([*(loss.detach() * weight for loss in losses.values()), weight])
            accelerator.backward(losses["total"] * weight)
    *values, weight = distributed.sum_across_ranks(sums).tolist()
    means = {name: value / weight for name, value in zip(names, values, strict=True)}
    if not math.isfinite(means["total"]):
        raise Diverged(f"the loss became {means['total']}")

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if optim.shard:
        distributed.average_scalar_gradients(module)
    for parameter in parameters:  # from a sum over passes and a mean over processes to the mean over all
        if parameter.grad is not None:
            parameter.grad.mul_(accelerator.num_processes / weight)
    # without clipping, clip at infinity: the norm is logged in any case
    norm = float(distributed.full_tensor(accelerator.clip_grad_norm_(parameters, optim.grad_clip or math.inf)))
    if not math.isfinite(norm) and accelerator.scaler is None:  # the fp16 scaler skips such a step
        raise Diverged(f"the gradient became {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return {**means, "grad_norm": norm}


def _state(
    step: int, meter: Meter, watch: LossMonitor, optimizer: torch.optim.Optimizer, scaler: Any
) -> dict[str, Any]:
    """The content of `state.pt`; it does not depend on the number of processes that share the optimizer."""
    from accelerate.utils import gather_object

    return {
        "step": step,
        "meter": asdict(meter),
        "watch": asdict(watch),
        "optimizer": tree_map(distributed.full_tensor, optimizer.state_dict()),
        "scaler": scaler and scaler.state_dict(),
        "random": gather_object([random_states()]),  # one entry per rank
    }


def _restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[int, Meter, LossMonitor]:
    """Restore a checkpoint, the random states last. Returns its step, `Meter` and `LossMonitor`."""
    load_trained(checkpoint, model)
    state = load_state(checkpoint)
    optimizer.load_state_dict(state["optimizer"])
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if value.shape == parameter.shape:
                kept[name] = distributed.shard_like(value, parameter)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    states = state["random"]  # a dict in checkpoints of older versions
    set_random_states(states if isinstance(states, dict) else states[accelerator.process_index])
    return state["step"], Meter(**state["meter"]), LossMonitor(**state.get("watch", {}))


@dataclass
class Meter:
    """Sums since the last log line, and the seconds of the whole run. Saved in each checkpoint, so that a resumed run
    logs the same numbers."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    window_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, losses: dict[str, float], seconds: float) -> None:
        for name, value in losses.items():
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


def _progress_line(record: dict[str, float], steps: int, meter: Meter) -> str:
    """A log record as a progress line, with the remaining time at the current speed."""
    shown = {k: v for k, v in record.items() if k not in ("step", "seconds", "samples_per_second")}
    left = (steps - record["step"]) * meter.window_seconds / meter.steps
    time_left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    speed = f"{record['samples_per_second']:.0f}/s"
    return f"step {record['step']}/{steps}  {_format_numbers(shown)}  {speed}  {time_left} left"


def _format_numbers(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def _evaluate(task: Task, step: int, batch: Any, device: torch.device) -> dict[str, dict[str, float]]:
    """The task's evaluation, and the losses of `batch` with matched and with shuffled images, in eval mode. Restores
    the random states, so that evaluation does not change training; both losses use the same random numbers."""
    from accelerate.utils import send_to_device

    states = random_states()
    found: dict[str, dict[str, Any]] = {}
    task.model.eval()
    with torch.no_grad():
        if hasattr(task, "evaluate"):
            found["evaluation"] = task.evaluate(step)
        if hasattr(task, "shuffled"):
            batch = send_to_device(batch, device)
            for name, inputs in (("matched", batch), ("shuffled", task.shuffled(batch))):
                set_random_states(states)
                if hasattr(task, "generator"):
                    task.generator.manual_seed(step)
                losses = task.compute_losses(inputs)
                found[name] = {key: value for key, value in losses.items() if key != "weight"}
    set_random_states(states)
    return {name: {key: float(value) for key, value in values.items()} for name, values in found.items()}


def _nearest_record(log: Sequence[dict], step: int) -> dict[str, float]:
    """The losses of another run's log at the step nearest to `step`."""
    timed = [record for record in log if "total" in record]
    nearest = min(timed, key=lambda record: abs(record["step"] - step), default={})
    return {k: v for k, v in nearest.items() if k not in ("lr", "grad_norm", "seconds", "samples_per_second")}


def _keep_latest(batches: Iterator[Any], latest: list[Any]) -> Iterator[Any]:
    """Yields the batches; `latest` holds the last one."""
    try:
        for batch in batches:
            latest[:] = [batch]
            yield batch
    finally:
        batches.close()


def _divergence_message(run: RunFolder, optim: OptimConfig, watch: LossMonitor) -> str:
    """After a divergence: which checkpoint to resume from, and what to try."""
    found = {path.name: path for path in checkpoints(run.path)}
    good = found.get(f"step-{watch.good_step}", run.latest)
    where = f"the last good checkpoint is {good}" if good else "no checkpoint had been written"
    if good and good != run.latest:
        where += " (remove the later ones to resume from it)"
    return f"{where}; {divergence_advice(optim)}"
