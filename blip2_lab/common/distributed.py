"""Distributed training: gather across ranks with gradients, FSDP2 sharding, gradient checkpointing.

`gather_across_ranks` is where to begin: stage 1 calls it for its in-batch negatives. `shard` is for models that do not
fit one device.

Notes:

* The gather is differentiable. Each rank's loss is a mean over its own rows against the candidates of all ranks. The
  backward pass all-reduces gradients, so the average over ranks equals the loss and the gradient of one process with
  the whole batch. (LAVIS gathers without gradient.)
* Without a process group the gather is the identity, so the same code runs in one process.
* Sharding and gradient checkpointing change where tensors are stored, not their values.

Paper: section 3.2 (in-batch negatives). Notebook: 05.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def rank_and_world() -> tuple[int, int]:
    """(0, 1) when no process group exists."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


class _Gather(torch.autograd.Function):
    """All-gather of rows; the backward pass all-reduces gradients and returns those of the rank's own rows."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather_across_ranks(x: Tensor, with_grad: bool = True) -> Tensor:
    """x [B, ...] -> [W*B, ...], in the order of the ranks; x itself in one process. All ranks need the same B."""
    x = x if with_grad else x.detach()
    return x if rank_and_world()[1] == 1 else _Gather.apply(x)


def number_of_processes() -> int:
    """The number of processes started (torchrun, accelerate launch), also before the process group exists."""
    return max(rank_and_world()[1], int(os.environ.get("WORLD_SIZE", "1")))


def is_first_process() -> bool:
    """Whether this process writes the files of a run, also before the process group exists."""
    return os.environ.get("RANK", "0") == "0"


def sum_across_ranks(x: Tensor) -> Tensor:
    """The sum of x over all ranks, in place; no gradient."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(x)
    return x


# --- Models too large for one device ----------------------------------------------------------------------------------


def shard(module: nn.Module, device: torch.device) -> nn.Module:
    """FSDP2: every rank keeps a shard of each parameter, of its gradient and of its optimizer state.

    The layers of frozen stacks (language model, image encoder) are gathered one at a time, when they run. So are the
    matrices of modules with `gathered_by_matrix` (gated blocks, which can be 14 billion parameters). All other
    trainable parameters are one group, gathered for a whole step: they are few, and the Q-Former uses the key and value
    matrices of its layers before the layers run, without calling them as modules.
    """
    # differs from accelerate: it shards on accelerators only; this is tested on CPUs, too
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (rank_and_world()[1],))
    module.to(device)
    for blocks in layer_stacks(module):
        if not any(parameter.requires_grad for parameter in blocks.parameters()):
            for block in blocks:
                fully_shard(block, mesh=mesh)
    for block in module.modules():
        if getattr(block, "gathered_by_matrix", False):
            for matrix in [part for part in block.modules() if isinstance(part, nn.Linear)]:
                fully_shard(matrix, mesh=mesh)
    return fully_shard(module, mesh=mesh, ignored_params=set(scalar_parameters(module)))


def scalar_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Trainable scalars (the temperature). FSDP2 cannot shard them, so every rank keeps them."""
    return [parameter for parameter in module.parameters() if parameter.ndim == 0 and parameter.requires_grad]


def average_scalar_gradients(module: nn.Module) -> None:
    """Average the gradients of `scalar_parameters` over ranks; FSDP2 averages those of the sharded parameters."""
    for parameter in scalar_parameters(module):
        if parameter.grad is not None:
            sum_across_ranks(parameter.grad).div_(rank_and_world()[1])


@contextmanager
def full_parameters(module: nn.Module) -> Iterator[None]:
    """Inside the block the parameters outside frozen stacks are gathered, so that submodules can be called."""
    from torch.distributed.fsdp import FSDPModule

    sharded = isinstance(module, FSDPModule)
    if sharded:
        module.unshard()
    yield
    if sharded:
        module.reshard()


def full_tensor(x: object) -> object:
    """The full tensor of a sharded one (a collective: every rank must call it); any other object unchanged."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def shard_like(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `full_tensor`: x sharded like `like`."""
    if not hasattr(like, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements)


def unshard_to_cpu(module: nn.Module) -> None:
    """Replace every sharded parameter by its full tensor on the CPU, to save the model. Do not train it afterwards."""
    for owner in module.modules():
        for name, parameter in list(owner._parameters.items()):
            if hasattr(parameter, "full_tensor"):
                owner._parameters[name] = nn.Parameter(full_tensor(parameter).cpu(), parameter.requires_grad)


def layer_stacks(module: nn.Module) -> list[nn.ModuleList]:
    """The stacks of transformer layers in a model: lists of at least two layers of one class."""
    lists = [found for found in module.modules() if isinstance(found, nn.ModuleList) and len(found) > 1]
    return [found for found in lists if len({type(layer) for layer in found}) == 1]


def enable_gradient_checkpointing(module: nn.Module) -> None:
    """Gradient checkpointing: every transformer layer keeps its input only and is recomputed in the backward pass.

    Frozen layers too, where a gradient flows through them. (transformers' gradient checkpointing needs training mode,
    and the language models here are always in eval mode.)
    """
    for layers in layer_stacks(module):
        for layer in layers:
            if not isinstance(layer.forward, partial):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
