"""Export a trained miniature in the form in which it is shipped: the model, its stage 1, its training logs, its
reference.

`export` is what `blip2-lab train micro-all` calls at its end.

Paper: none. Notebook: 08.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from blip2_lab.chat import conversation, out_of_distribution
from blip2_lab.checkpoints.load import load, save
from blip2_lab.doctor.model import save_reference
from blip2_lab.evaluation.calibration import Calibration, fit
from blip2_lab.evaluation.natural import Asker, ask_all, natural_questions, verdicts
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.training.frozen_features import fingerprint
from blip2_lab.training.loading import hf_logging_off
from blip2_lab.training.recipes.registry import RECIPES, continued

CALIBRATION_BOOK = 9_004  #: scenes that no training and no table reads


def export(
    runs_dir: str | Path, folder: str | Path | None = None, stage2: str = "micro-stage2", scenes: int = 2000
) -> Path:
    """Write the BLIP-2 of a stage-2 run, or of the run that continues it, to `folder` (default `runs_dir/micro`).

    That is: float16 weights, its stage 1 (the one fine-tuned for retrieval, if that recipe was run), its float32
    reference (doctor/model.py), the distribution of the features of `scenes` drawn scenes (out_of_distribution.py) and
    the calibration of its answers (neither where `scenes` is 0, for a model of another world), and recipe and log of
    every run of the sequence (`curves/`).
    """
    runs_dir, family = Path(runs_dir), stage2.partition("-")[0]
    sequence = next(recipe.sequence for recipe in RECIPES.values() if stage2 in recipe.sequence)
    stage2, retrieval = continued(stage2, sequence), continued(f"{family}-retrieval", sequence)
    finished = runs_dir / stage2 / "model"
    if not finished.is_dir():
        raise ValueError(f"there is no finished model in {finished}: blip2-lab train {stage2}")
    folder = Path(folder) if folder else runs_dir / family
    with hf_logging_off():
        model = load(finished)
        if (runs_dir / retrieval / "model").is_dir():
            stage1 = load(runs_dir / retrieval / "model")
            if fingerprint(stage1.image_encoder) != fingerprint(model.image_encoder):
                raise ValueError(
                    f"{retrieval} and {stage2} have different image encoders: train both from the same one"
                )
            stage1.attach_image_encoder(model.image_encoder)
            model.attach_stage1(stage1)
    save(model, folder, dtype=torch.float16)
    shipped = load(folder)  # rounded to 16 bits
    save_reference(shipped, folder)
    if scenes:
        out_of_distribution.fit(model.image_encoder, scenes=scenes).save(folder)
        calibrate(shipped, max(2, scenes // 4)).save(folder)
    curves = folder / "curves"
    curves.mkdir(exist_ok=True)
    for name in sequence:
        for source, ending in (("log.jsonl", "jsonl"), ("recipe.json", "json")):
            if (runs_dir / name / source).exists():
                shutil.copyfile(runs_dir / name / source, curves / f"{name}.{ending}")
    return folder


def calibrate(model: Stage2Model, scenes: int = 500) -> Calibration:
    """How often answers of a confidence are right: natural questions about scenes that nothing else looks at."""
    book = [sample_scene(CALIBRATION_BOOK, index, "in") for index in range(scenes)]
    asked = natural_questions(book, CALIBRATION_BOOK)
    answers = ask_all(model, book, asked, Asker(conversation.first_prompt, conversation.ANSWERING))
    answered = [i for i, answer in enumerate(answers) if not answer.refused]
    right = verdicts(answers, asked, book)
    return fit([answers[i].confidence for i in answered], [right[i] for i in answered])
