"""AdamW and its schedule: learning rate, parameter groups, and which modules are in training mode.

`build_optimizer` and `learning_rate` are where to begin; the trainer calls both, and no other module reads `optim.lr`.

Notes:

* The learning rate is a pure function of the step; each parameter group multiplies it by its own `lr_scale`.
* differs from LAVIS, which computes the `lr_scale` of layer-wise decay and does not use it; `vit_lr_scales` is applied.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from blip2_lab.training.recipes.schema import OptimConfig


def build_optimizer(
    model: nn.Module,
    optim: OptimConfig,
    device: torch.device,
    *,
    lr_scales: dict[str, float] | None = None,
    no_decay: tuple[str, ...] = (),
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`; for the last two options see `parameter_groups`."""
    groups = parameter_groups(model, optim.lr, optim.weight_decay, lr_scales=lr_scales, no_decay=no_decay)
    if not groups:
        raise ValueError("nothing to train: no parameter of the model requires a gradient")
    return torch.optim.AdamW(
        groups,
        lr=optim.lr,
        betas=tuple(optim.betas),
        weight_decay=optim.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def present_device() -> torch.device:
    """The accelerator of this machine, or its CPU. A build of PyTorch for CUDA may stand on a machine without a GPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


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

    Weight decay excludes biases, tensors of fewer than two dimensions, and names that contain an entry of `no_decay`.
    A parameter whose name contains a key of `lr_scales` learns that many times faster:
    `{"relative_attention_bias": 30}`.
    """
    # differs from LAVIS: the 0-dimensional temperature has no weight decay; LAVIS tests for `len(shape) == 1` only
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, parameter in trainable:
        scale = next((s for key, s in (lr_scales or {}).items() if key in name), 1.0)
        excluded = parameter.ndim < 2 or name.endswith(".bias") or any(key in name for key in no_decay)
        groups.setdefault((scale, 0.0 if excluded else weight_decay), []).append(parameter)
    result = [
        {"params": parameters, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    assert sum(len(g["params"]) for g in result) == len(trainable), "groups must cover every trainable parameter once"
    return result


def vit_lr_scales(num_layers: int, decay: float, prefix: str = "image_encoder.model.") -> dict[str, float]:
    """Layer-wise decay of the learning rate, as `lr_scales` of `parameter_groups`: parameter name -> scale.

    The last layer learns `decay` times as fast as the Q-Former, the one below it `decay ** 2`, and so on; embeddings
    count as the layer below the first. With decay 1: {}.
    """
    # differs from LAVIS: LAVIS computes the same scales, and its optimizer does not read them
    if decay == 1:
        return {}
    layers = {f"{prefix}encoder.layers.{k}.": decay ** (num_layers - k) for k in range(num_layers)}
    return layers | dict.fromkeys((f"{prefix}embeddings.", f"{prefix}pre_layrnorm."), decay ** (num_layers + 1))


def train_mode(model: nn.Module) -> None:
    """Training mode, except for frozen sub-modules, whose dropout stays off (LAVIS leaves the language model's on)."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def divergence_advice(optim: OptimConfig) -> str:
    """What to change after a divergence, as the end of a sentence."""
    return (
        f"try a lower learning rate than {optim.lr:g}, a longer warm-up than {optim.warmup_steps} steps, "
        "grad_clip=1.0, or precision=fp32"
    )
