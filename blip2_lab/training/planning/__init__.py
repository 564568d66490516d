"""What a recipe needs, before anything is downloaded or rented: parameters, FLOPs, memory, hours.

    parameters  the recipe's model without weights, counted part by part
    flops       the work of one example, forward and backward
    plan        all of it as one plan; `blip2-lab plan RECIPE` prints it

Paper: section 3.4, Tables 2 and 5. Notebook: 08.
"""

from blip2_lab.training.planning.parameters import Blueprint, blueprint, count_parameters
from blip2_lab.training.planning.plan import Machine, Plan

__all__ = ["Blueprint", "Machine", "Plan", "blueprint", "count_parameters"]
