"""Fine-tuning as tasks: captioning or question answering with a complete BLIP-2, retrieval with a stage-1 model.

`CaptionTask` is also stage 2 on your own images.

Paper: sections 4.2 to 4.4. Notebook: 14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.models.language_model import EncoderDecoderLanguageModel
from blip2_lab.models.stage2 import split_caption
from blip2_lab.training.batches import PlacedBatch
from blip2_lab.training.tasks.base import ImageTask
from blip2_lab.training.tasks.stage1 import Stage1Task
from blip2_lab.training.vocabulary import Coverage

EVALUATION_BATCH = 64


class CaptionTask(ImageTask):
    """Stage 2 on your own images, and fine-tuning of a complete BLIP-2 (sections 3.3, 4.2).

    `prompt`: None for the objective of stage 2; else the text before each caption, which has no loss. If a batch has
    questions, they are the prompts, in the language model's question format. `held_out`: a batch to evaluate on.
    `seed`: of the words before which stage 2 splits captions for an encoder-decoder. `projection_lr_scale`: how many
    times faster the projection learns (`Stage2Model.match_embeddings`).
    """

    def __init__(
        self,
        *arguments,
        prompt: str | None,
        held_out: Batch | None,
        layer_decay: float = 1.0,
        words: dict[str, Coverage] | None = None,
        seed: int = 0,
        projection_lr_scale: float = 1.0,
    ) -> None:
        super().__init__(*arguments, layer_decay, words)
        self.prompt, self.held_out, self.seed = prompt, held_out, seed
        self.projection_lr_scale = projection_lr_scale

    def lr_scales(self) -> dict[str, float]:
        return super().lr_scales() | {"language_projection": self.projection_lr_scale}

    def compute_losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if batch.questions is not None:
            prompts = [self.model.language_model.question_prompt.format(question) for question in batch.questions]
        else:
            prompts = None if self.prompt is None else [self.prompt] * len(batch.captions)
        captions = batch.captions
        is_split = prompts is None and isinstance(self.model.language_model, EncoderDecoderLanguageModel)
        if is_split and isinstance(batch, PlacedBatch):  # drawn by place: the same however a step is split
            prompts, captions = self._split(batch)
        texts = dict(captions=captions, prompts=prompts, generator=generator)
        loss, tokens = self.model.loss_and_count(**self.image_inputs([batch]), **texts)
        return {"total": loss, "weight": tokens}

    def _split(self, batch: PlacedBatch) -> tuple[list[str], list[str]]:
        """Each caption as a prefix and a suffix, which the encoder reads and the decoder writes."""
        pairs = []
        for row, caption in enumerate(batch.captions):
            generator = torch.Generator().manual_seed(hash((self.seed, batch.place + row)) % 2**63)
            pairs.append(split_caption(caption, generator))
        return [prefix for prefix, _ in pairs], [suffix for _, suffix in pairs]

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
