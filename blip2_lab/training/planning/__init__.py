"""What a recipe needs, computed before any download: parameters, FLOPs, memory, hours.

    parameters    the recipe's model without weights, counted module by module
    large_models  shapes of large frozen models: ViT-bigG, LLaMA
    flops         FLOPs and activation memory of one example, forward and backward
    bridges       the same for a recipe with another bridge than a Q-Former
    claims        what a described recipe claims, beside what is computed
    plan          all of it in one plan; `blip2-lab plan RECIPE` prints it

Begin with `plan.plan`.

Paper: section 3.4, Tables 2 and 5. Notebooks: 08, 17.
"""

from blip2_lab.training.planning.parameters import Blueprint, blueprint, count_parameters
from blip2_lab.training.planning.plan import Machine, Plan

__all__ = ["Blueprint", "Machine", "Plan", "blueprint", "count_parameters"]
