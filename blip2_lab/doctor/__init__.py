"""Checks of a model, before its answers are trusted, and of a training run, before it has ended.

    finding  the result of a check: a state, a sentence, likely causes
    run      a run's log against chance levels, the shipped logs, and shuffled images
    own_images  what a run on your own images has learned: words, overfitting, held-out images
    model    weights, kernels, padding, outputs against a stored reference
    layers   a loaded model against its own files, layer by layer

Begin with `diagnose_model` or `diagnose_run`; `blip2-lab doctor` calls them.

Paper: sections 3.2 to 3.4. Notebooks: 08, 12.
"""

from blip2_lab.doctor.finding import Finding
from blip2_lab.doctor.model import diagnose_model, open_model
from blip2_lab.doctor.run import diagnose_run, run_report

__all__ = ["Finding", "diagnose_model", "diagnose_run", "open_model", "run_report"]
