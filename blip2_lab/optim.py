"""How to optimize: learning rate, parameter groups, and what is in training mode.

What is unusual about it:

* The learning rate is a pure function of the step, and every parameter group multiplies it by its own `lr_scale`.
  (LAVIS computes `lr_scale` for layer-wise decay and never reads it.)
* `batch_size` is what an update sees. Into how many processes and passes it is split changes nothing that is learned.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from blip2_lab.parallel import number_of_processes


@dataclass(frozen=True)
class OptimConfig:
    """How to optimize: AdamW, linear warm-up, then a cosine for every step (paper, section 3.4).

    batch_size         what one update sees, over all processes
    accumulate         into so many passes a process splits its share of a batch (`pass_size` examples each)
    precision          bf16 and fp16 are autocast's: weights, gradients and optimizer stay float32; auto is bf16 where
                       the device multiplies in it (`bf16_is_fast`) and fp32 elsewhere
    checkpoint_layers  every transformer layer keeps its input only and is computed again for its gradient: most of the
                       memory of activations, for a third more work
    shard              FSDP2 instead of DDP: each process keeps its share of the weights, for models too large for one
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
    precision: str = "auto"
    checkpoint_layers: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp16", "fp32"):
            raise ValueError(f"precision {self.precision!r} is unknown: choose auto, bf16, fp16 or fp32")
        if self.steps < 1 or self.batch_size < 1 or self.accumulate < 1:
            raise ValueError("steps, batch_size and accumulate must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into accumulate={self.accumulate} passes")

    @property
    def pass_size(self) -> int:
        """Examples of one forward and backward pass of one process: what `task.batch` returns."""
        return self.batch_size // (self.accumulate * number_of_processes())


def bf16_is_fast(device_type: str) -> bool:
    """True if the device multiplies bf16 matrices in hardware.

    A CPU without such instructions (AVX-512 BF16 or AMX, SVE BF16 on ARM) emulates them: torch 2.13 is then 50 times
    slower than in float32 (measured on an AVX2 machine, 1 against 55 GFLOPS on one core).
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


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


def train_mode(model: nn.Module) -> None:
    """Training mode, except for frozen sub-modules: their dropout stays off (LAVIS leaves the language model's on)."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
