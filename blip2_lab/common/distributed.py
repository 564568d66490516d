"""Many processes that train as one: rows gathered from all ranks with their gradients, parameters shared out.

What is unusual about it:

* A gather is part of the graph. Each rank's loss is a mean over its own rows against everybody's candidates; backward
  brings home what the other ranks' losses have to say about this rank's rows. The average over ranks is then exactly
  the loss, and the gradient, of one process with the whole batch. (LAVIS gathers without gradient.)
* Without a process group a gather is the identity, so the same code runs in one process.
* Sharding (FSDP2) and gradient checkpointing change where numbers are kept, and no number.

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
    """All ranks' rows; backward gives each rank the gradients that all ranks' losses have for its rows."""

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
    """x [B, ...] -> [W*B, ...], rank after rank; x itself when there is one process. Every rank needs the same B."""
    x = x if with_grad else x.detach()
    return x if rank_and_world()[1] == 1 else _Gather.apply(x)


def number_of_processes() -> int:
    """How many were started (torchrun, accelerate launch), also before they have found each other."""
    return max(rank_and_world()[1], int(os.environ.get("WORLD_SIZE", "1")))


def sum_across_ranks(x: Tensor) -> Tensor:
    """The same on every rank; no gradient."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(x)
    return x


# --- Models too large for one device ----------------------------------------------------------------------------------


def shard(module: nn.Module, device: torch.device) -> nn.Module:
    """FSDP2: every rank keeps its share of each parameter, and of its gradient and its optimizer state.

    The blocks of frozen stacks (the language model's, the image encoder's) are fetched one at a time, when it is their
    turn. What trains is one group, fetched for a whole step: it is small, and the Q-Former reads its layers' key and
    value matrices before the layers run.
    """
    # differs from accelerate: it shards on accelerators only, and we want to test what we ship
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (rank_and_world()[1],))
    module.to(device)
    for blocks in layer_stacks(module):
        if not any(parameter.requires_grad for parameter in blocks.parameters()):
            for block in blocks:
                fully_shard(block, mesh=mesh)
    return fully_shard(module, mesh=mesh, ignored_params=set(scalar_parameters(module)))


def scalar_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Single numbers (the temperature) cannot be shared out: every rank keeps them."""
    return [parameter for parameter in module.parameters() if parameter.ndim == 0 and parameter.requires_grad]


def average_scalar_gradients(module: nn.Module) -> None:
    """The mean over ranks of their gradients, which `shard` takes of all others."""
    for parameter in scalar_parameters(module):
        if parameter.grad is not None:
            sum_across_ranks(parameter.grad).div_(rank_and_world()[1])


@contextmanager
def full_parameters(module: nn.Module) -> Iterator[None]:
    """Inside the block the parameters outside frozen stacks are whole, so that parts of `module` can be called."""
    from torch.distributed.fsdp import FSDPModule

    sharded = isinstance(module, FSDPModule)
    if sharded:
        module.unshard()
    yield
    if sharded:
        module.reshard()


def full_tensor(x: object) -> object:
    """A sharded tensor in one piece (every rank must ask); everything else as it is."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def shard_like(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `full_tensor`: x shared out as `like` is."""
    if not hasattr(like, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(like.device), like.device_mesh, like.placements)


def unshard_to_cpu(module: nn.Module) -> None:
    """Put every sharded parameter back in one piece, on the CPU: to save the model, not to go on with it."""
    for owner in module.modules():
        for name, parameter in list(owner._parameters.items()):
            if hasattr(parameter, "full_tensor"):
                owner._parameters[name] = nn.Parameter(full_tensor(parameter).cpu(), parameter.requires_grad)


def layer_stacks(module: nn.Module) -> list[nn.ModuleList]:
    """The transformers in a model: lists of layers of one class."""
    lists = [found for found in module.modules() if isinstance(found, nn.ModuleList) and len(found) > 1]
    return [found for found in lists if len({type(layer) for layer in found}) == 1]


def enable_gradient_checkpointing(module: nn.Module) -> None:
    """Gradient checkpointing: every transformer layer keeps its input only, and computes itself again for its gradient.

    Frozen layers too, where a gradient passes through them. (transformers' own checkpointing needs training mode, and
    our language models are in eval mode, always.)
    """
    for layers in layer_stacks(module):
        for layer in layers:
            if not isinstance(layer.forward, partial):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
