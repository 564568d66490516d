"""Every layer of every transformer in a model: computed again for its gradient, or compiled.

What is unusual about it:

* Layers are found, not named: lists of modules of one class. So it does for our Q-Former and for transformers' models.
* A layer is compiled once for all batches and lengths; all layers of a kind share what came of it.
* The compiler's failure is one sentence.

Paper: section 3.4 (what a step costs). Notebook: 08.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def stacks(module: nn.Module) -> list[nn.ModuleList]:
    """The transformers in a model: lists of layers of one class."""
    lists = [found for found in module.modules() if isinstance(found, nn.ModuleList) and len(found) > 1]
    return [found for found in lists if len({type(layer) for layer in found}) == 1]


def recompute_layers(module: nn.Module) -> None:
    """Gradient checkpointing: every transformer layer keeps its input only, and computes itself again for its gradient.

    Frozen layers too, where a gradient passes through them. (transformers' own checkpointing needs training mode, and
    our language models are in eval mode, always.)
    """
    for layers in stacks(module):
        for layer in layers:
            if not isinstance(layer.forward, partial):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(model: nn.Module, backend: str | Callable = "inductor") -> None:
    """Let every transformer layer in `model` run compiled, for any batch and length. It is compiled at its first use:
    call the model in `compiling`."""
    for layers in stacks(model):
        for layer in layers:
            layer.compile(dynamic=True, backend=backend)


def as_written() -> torch.compiler.set_stance:
    """A context in which nothing runs compiled, and nothing is compiled: for what is done only now and then."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """Where something compiled is called: a failure of the compiler is one sentence, a ValueError."""
    # the Q-Former's layer is a dozen programs (queries, text or both; from a cache; the last one's rows), not eight
    with torch._dynamo.config.patch(recompile_limit=64):
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            raise ValueError(
                f"{what} cannot be compiled here ({reason}). On a CPU that takes a C++ compiler, g++ or clang++; "
                "without compiling everything works as well."
            ) from None
