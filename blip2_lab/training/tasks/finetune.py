"""Fine-tuning as tasks: captioning or question answering with a complete BLIP-2, retrieval with a stage-1 model.

`CaptionTask` is also stage 2 on your own images.

Paper: sections 4.2 to 4.4. Notebook: 08.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.tasks.stage1 import Stage1Task

EVALUATION_BATCH = 64


class CaptionTask(ImageTask):
    """Stage 2 on your own images, and fine-tuning of a complete BLIP-2 (sections 3.3, 4.2).

    `prompt`: None for the objective of stage 2; else the text before each caption, which has no loss. If a batch has
    questions, they are the prompts, in the language model's question format. `held_out`: a batch to evaluate on.
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
        loss, tokens = self.model.loss_and_count(**self.image_inputs([batch]), **texts)
        return {"total": loss, "weight": tokens}

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss on held-out images, and with shuffled images: it is higher there if the model uses the image."""
        return {"held_out": self._mean_loss(0), "shuffled": self._mean_loss(1)}

    def _mean_loss(self, shift: int) -> float:
        """The mean loss over the held-out texts, with the images rolled by `shift`."""
        batch, total = self.held_out.to(next(self.model.bridge.parameters()).device), 0.0
        pixels = batch.pixels.roll(shift, dims=0)
        for start in range(0, len(pixels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            questions = batch.questions and batch.questions[rows]
            chunk = Batch(captions=batch.captions[rows], pixels=pixels[rows], questions=questions)
            generator = torch.Generator().manual_seed(start)
            total += float(self.compute_losses(chunk, generator)["total"]) * len(chunk.captions)
        return total / len(pixels)


class RetrievalTask(Stage1Task):
    """Fine-tuning of stage 1 for retrieval (section 4.4), with the image encoder trained or frozen."""
