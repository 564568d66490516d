"""Random weights large enough that a model's answers depend on what it reads, instead of repeating one word."""

import torch
from torch import nn


@torch.no_grad()
def loud(*modules: nn.Module, seed: int = 5) -> nn.Module:
    """Add noise to every parameter of the modules; returns the first."""
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.ndim > 1 else 0.05))
    return modules[0]
