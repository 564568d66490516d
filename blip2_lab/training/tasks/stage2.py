"""Stage 2 as a task: the loss on captions, and the zero-shot accuracy on held-out questions.

Paper: section 3.3. Notebook: 11.
"""

from __future__ import annotations

from torch import Tensor

from blip2_lab.data.examples import Batch
from blip2_lab.models.decoding import PAPER_DECODING, Decoding
from blip2_lab.models.language_model import DecoderLanguageModel
from blip2_lab.picturebook import words
from blip2_lab.training.tasks.base import ImageTask


class Stage2Task(ImageTask):
    """Generative learning from captions (section 3.3). `questions` (number of the image, question) about
    `image_features` [M,N,Dv] are for the evaluation only."""

    def __init__(
        self,
        *arguments,
        image_features: Tensor,
        questions: list[tuple[int, words.Question]],
        projection_lr_scale: float = 1,
    ) -> None:
        super().__init__(*arguments)
        self.image_features = image_features
        self.questions = questions
        self.projection_lr_scale = projection_lr_scale

    def lr_scales(self) -> dict[str, float]:
        return {"language_projection": self.projection_lr_scale}

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        loss, tokens = self.model.loss_and_count(image_features=self.features(batch), captions=batch.captions)
        return {"total": loss, "weight": tokens}

    def evaluate(self, step: int) -> dict[str, float]:
        """Zero-shot accuracy on held-out scenes, in total and by type of question, and in total with shuffled images
        (how much can be guessed)."""
        device = next(self.model.bridge.parameters()).device
        prompts = self.model.visual_prompt(self.image_features.to(device))  # [M,Q,Dl]
        right = self._answers(prompts)
        by_type: dict[str, list[bool]] = {}
        for (_, question), hit in zip(self.questions, right, strict=True):
            by_type.setdefault(question.type, []).append(hit)
        shuffled = self._answers(prompts.roll(1, dims=0))
        totals = {"accuracy": sum(right) / len(right), "shuffled": sum(shuffled) / len(shuffled)}
        return totals | {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())}

    def _answers(self, visual_prompts: Tensor, at_once: int = 128) -> list[bool]:
        """Whether each answer is an exact match."""
        # A decoder continues after its answer ("snow. Question: what …"); the paper's beams and length penalty stop it.
        is_decoder = isinstance(self.model.language_model, DecoderLanguageModel)
        decoding, right = PAPER_DECODING if is_decoder else Decoding(num_beams=1), []
        for start in range(0, len(self.questions), at_once):
            chunk = self.questions[start : start + at_once]
            prompts = visual_prompts[[number for number, _ in chunk]]
            questions = [self.model.language_model.question_prompt.format(question.text) for _, question in chunk]
            answers = self.model.language_model.generate(prompts, questions, decoding)
            right += [answer.strip(" .") == q.answer for answer, (_, q) in zip(answers, chunk, strict=True)]
        return right
