"""Checks: of a model before you trust its answers, of a training run before you wait for it to end.

    finding  what a check returns: a state, a sentence, likely causes
    run      a run's log against chance levels, the shipped curves, and shuffled pictures
    model    weights, kernels, padding, numbers against a stored reference
    layers   a loaded model against its own files, layer by layer

Paper: sections 3.2 to 3.4. Notebooks: 08, 12.
"""

from blip2_lab.doctor.finding import Finding
from blip2_lab.doctor.model import diagnose_model, open_model
from blip2_lab.doctor.run import diagnose_run, run_report

__all__ = ["Finding", "diagnose_model", "diagnose_run", "open_model", "run_report"]
