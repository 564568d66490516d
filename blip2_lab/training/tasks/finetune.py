"""Fine-tuning as tasks: captioning or question answering with a complete BLIP-2, retrieval with a stage-1 model.

`CaptionTask` is also stage 2 on your own images.

Paper: sections 4.2 to 4.4. Notebook: 14.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blip2_lab.common.significance import randomization_p
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

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        loss, tokens = self.model.loss_and_count(**self.image_inputs([batch]), **self._texts(batch))
        return {"total": loss, "weight": tokens}

    def _texts(self, batch: Batch) -> dict[str, list[str] | None]:
        """The captions of a batch, and the prompts before them."""
        if batch.questions is not None:
            prompts = [self.model.language_model.question_prompt.format(question) for question in batch.questions]
        else:
            prompts = None if self.prompt is None else [self.prompt] * len(batch.captions)
        captions = batch.captions
        is_split = prompts is None and isinstance(self.model.language_model, EncoderDecoderLanguageModel)
        if is_split and isinstance(batch, PlacedBatch):  # drawn by place: the same however a step is split
            prompts, captions = self._split(batch)
        return dict(captions=captions, prompts=prompts)

    def _split(self, batch: PlacedBatch) -> tuple[list[str], list[str]]:
        """Each caption as a prefix and a suffix, which the encoder reads and the decoder writes."""
        pairs = []
        for row, caption in enumerate(batch.captions):
            generator = torch.Generator().manual_seed(hash((self.seed, batch.place + row)) % 2**63)
            pairs.append(split_caption(caption, generator))
        return [prefix for prefix, _ in pairs], [suffix for _, suffix in pairs]

    def evaluate(self, step: int) -> dict[str, float]:
        """The loss on held-out images, and with shuffled images: it is higher there if the model uses the image. `p` is
        that of `significance.randomization_p` for the differences of the `compared` images."""
        (loss, tokens), (other, _) = self._losses_of_each(0), self._losses_of_each(1)
        differences = [(b - a) / n for a, b, n in zip(loss, other, tokens, strict=True) if n]
        total = max(1, sum(tokens))
        return {
            "held_out": sum(loss) / total,
            "shuffled": sum(other) / total,
            "compared": float(len(differences)),
            "p": randomization_p(differences),
        }

    def _losses_of_each(self, shift: int) -> tuple[list[float], list[int]]:
        """The summed loss and the tokens of each held-out text, with the images rolled by `shift`."""
        batch = self.held_out.to(next(self.model.bridge.parameters()).device)
        losses, tokens, pixels = [], [], batch.pixels.roll(shift, dims=0)
        for start in range(0, len(pixels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            questions = batch.questions and batch.questions[rows]
            chunk = Batch(captions=batch.captions[rows], pixels=pixels[rows], questions=questions)
            generator = torch.Generator().manual_seed(start)  # of the same splits, whatever the shift is
            found = self.model.losses_of_each(**self.image_inputs([chunk]), **self._texts(chunk), generator=generator)
            losses += found[0].tolist()
            tokens += found[1].tolist()
        return losses, tokens


class RetrievalTask(Stage1Task):
    """Fine-tuning of stage 1 for retrieval (section 4.4), with the image encoder trained or frozen."""
