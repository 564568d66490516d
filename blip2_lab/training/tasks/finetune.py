"""Fine-tuning as tasks: captions or answers with a whole BLIP-2, retrieval with a stage-1 model.

`CaptionTask` is also stage 2 on pictures of your own.

Paper: sections 4.2 to 4.4. Notebook: 08.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.tasks.stage1 import Stage1Task

EVALUATED_AT_ONCE = 64


class CaptionTask(ImageTask):
    """Stage 2 on pictures of your own, and fine-tuning of a whole BLIP-2 (sections 3.3, 4.2).

    `prompt`: None for stage 2's own objective; else the text before each caption, which is given and not learned.
    A batch's questions take its place, in the form this language model is asked. `held_out`: a batch to evaluate on.
    """

    def __init__(self, *arguments, prompt: str | None, held_out: Batch | None, layer_decay: float = 1.0) -> None:
        super().__init__(*arguments, layer_decay)
        self.prompt, self.held_out = prompt, held_out

    def compute_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if batch.questions is not None:
            prompts = [self.model.language_model.question_prompt.format(question) for question in batch.questions]
        else:
            prompts = None if self.prompt is None else [self.prompt] * len(batch.captions)
        texts = dict(captions=batch.captions, prompts=prompts, generator=generator)
        loss, tokens = self.model.loss_and_count(**self.seen([batch]), **texts)
        return {"total": loss, "weight": tokens}

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss on held-out pictures, and with each other's pictures: a model that looks is worse off then."""
        return {"held_out": self._mean_loss(0), "shuffled": self._mean_loss(1)}

    def _mean_loss(self, shift: int) -> float:
        """The mean over the held-out texts, each with the picture `shift` places further on."""
        batch, total = self.held_out.to(next(self.model.language_projection.parameters()).device), 0.0
        pixels = batch.pixels.roll(shift, dims=0)
        for start in range(0, len(pixels), EVALUATED_AT_ONCE):
            place = slice(start, start + EVALUATED_AT_ONCE)
            asked = batch.questions and batch.questions[place]
            part = Batch(captions=batch.captions[place], pixels=pixels[place], questions=asked)
            generator = torch.Generator().manual_seed(start)
            total += float(self.compute_losses(part, generator)["total"]) * len(part.captions)
        return total / len(pixels)


class RetrievalTask(Stage1Task):
    """Fine-tuning a stage 1 for retrieval (section 4.4), its image encoder with it or frozen."""
