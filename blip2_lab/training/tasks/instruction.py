"""Instruction tuning on dialogues as a task: the loss of an answer, given the image and the turns before it.

Notes:

* Earlier turns stand in front of the question in the same form, as the chat writes them.
* The image encoder may be trained, so held-out images are encoded at each evaluation.

Paper: none; LLaVA (arXiv 2304.08485), section 4.2, stage 2. Notebook: 08.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.models.language_model import LanguageModel
from blip2_lab.picturebook.words import Question
from blip2_lab.training.scene_batches import Dialogues
from blip2_lab.training.tasks.stage2 import Stage2Task


class InstructionTask(Stage2Task):
    """Answers in dialogues about `batches` (`DialogueBatches`). `pixels` [M,3,S,S] of the held-out images that
    `questions` are about."""

    def __init__(self, *arguments, pixels: Tensor, questions: list[tuple[int, Question]]) -> None:
        super().__init__(*arguments, image_features=torch.empty(0), questions=questions)
        self.pixels = pixels

    def compute_losses(self, batch: Dialogues) -> dict[str, Tensor]:
        prompts = [dialogue_prompt(self.model.language_model, turns) for turns in batch.turns]
        loss, tokens = self.model.loss_and_count(**self.image_inputs([batch]), captions=batch.captions, prompts=prompts)
        return {"total": loss, "weight": tokens}

    def evaluate(self, step: int) -> dict[str, float]:
        chunks = self.pixels.split(64)
        self.image_features = torch.cat([self.features(Batch(captions=[], pixels=chunk)) for chunk in chunks])
        return super().evaluate(step)


def dialogue_prompt(language_model: LanguageModel, turns: list[Question]) -> str:
    """Earlier turns with their answers, then the last question: "Question: … Short answer: a boat. Question: …"."""
    form = language_model.question_prompt
    *before, last = turns
    past = [f"{form.format(turn.text)} {turn.answer}." for turn in before]
    return " ".join([*past, form.format(last.text)])
