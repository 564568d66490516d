"""Which attention kernel ran: FlashAttention, cuDNN's, the memory-efficient one, or plain matrix products.

`recorded_kernels` counts the kernels behind `F.scaled_dot_product_attention`; `kernels_text` says them in a sentence.
`blip2-lab doctor MODEL` and the first step of a training run show them.

Notes:

* PyTorch chooses the kernel at each call, by device, precision, shapes and mask. FlashAttention needs a GPU, 16 bits
  and no mask; on a CPU there is a kernel of its own. So the choice is recorded while it happens, not derived.
* Attention that is written out as matrix products (the eager path, for training on a CPU and for recorded maps) makes
  no such call. It is not counted.

Paper: arXiv 2205.14135 (FlashAttention), 2307.08691 (FlashAttention-2). Notebook: none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

PLAIN = "plain matrix products"
#: A part of the name of PyTorch's operator -> the kernel, the more special name first.
KERNELS = {
    "flash_attention_for_cpu": "PyTorch's flash attention for CPUs",
    "flash_attention": "FlashAttention",
    "cudnn_attention": "cuDNN's attention",
    "efficient_attention": "memory-efficient attention",
    "fused_attention": "fused attention of another device",
}


class _Operators(TorchDispatchMode):
    """Counts the forward operators of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.scaled_dot_product_attention.default:  # in inference mode: choose the kernel here
            with self:
                return operator.decompose(*args, **(kwargs or {}))
        name = str(operator)
        if "scaled_dot_product" in name and "backward" not in name:
            self.found[next((kernel for part, kernel in KERNELS.items() if part in name), PLAIN)] += 1
        return operator(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Counts calls of `F.scaled_dot_product_attention`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function is F.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


@contextmanager
def recorded_kernels() -> Iterator[Counter[str]]:
    """After the block, the counter has how many calls each attention kernel served. Backward passes are not counted."""
    operators, calls = _Operators(), _Calls()
    with calls, operators:
        yield operators.found
    several = calls.count - operators.found.total()  # calls that became several simple operators
    if several > 0:
        operators.found[PLAIN] += several


def kernels_text(found: Mapping[str, int]) -> str:
    """`{"FlashAttention": 39}` -> "FlashAttention (39 calls)", the most frequent kernel first."""
    if not found:
        return "written out as matrix products"
    ordered = sorted(found.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{kernel} ({count} call{'s' if count > 1 else ''})" for kernel, count in ordered)
