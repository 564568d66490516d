"""Questions as a visitor asks them, in words that the training texts were not made from, and how many are answered.

Notes:

* `scenes.questions` asks with the templates that the language model learned. Here the wordings are others: hundreds
  of them, with synonyms, contractions, British spelling, capitals, greetings and slips of the finger.
* Some questions assume what is not so ("what color is the cat?" where no cat is). The right answer says so.
* How a question is put is handed in, as an `Asker`: `blip2-lab evaluate` hands in the chat's way, so the questions are
  asked as the app asks them. It refuses words that the model does not know. A refusal is no answer, so it counts as
  wrong, and its share is reported.

    questions = natural_questions(book, seed)
    natural_scores(ask_all(model, book, questions, asker), questions, book)

`harder_questions` are asked in the same way, with groups and judge of their own.

Paper: section 4.1. Notebook: 11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_lab.evaluation import metrics
from blip2_lab.evaluation.natural.judge import NaturalQuestion, is_right, refuses
from blip2_lab.evaluation.natural.overlap import in_corpus
from blip2_lab.evaluation.natural.questions import GROUPS
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import Scene

Judge = Callable[[NaturalQuestion, str, Scene], bool]  #: (question, answer, its scene) -> is it right?


@dataclass(frozen=True)
class Asker:
    """How a visitor's question reaches a model.

    prompt    (model, what was typed) -> what the language model reads. Raises ValueError, with what the visitor is
              told, for a text that is not asked.
    decoding  how the answer is chosen
    """

    prompt: Callable[[Stage2Model, str], str]
    decoding: Decoding


@dataclass(frozen=True)
class Answer:
    """What the visitor reads.

    refused     the question was not asked, and `text` says why
    confidence  the product of the probabilities of its tokens
    """

    text: str
    refused: bool = False
    confidence: float = 0.0


@dataclass(frozen=True)
class Shown:
    """What a model is shown of M pictures: visual_prompts [M,Q,Dl], and image_features [M,N,Dv] where its Q-Former
    reads the question, on which the visual prompt then depends (else None)."""

    visual_prompts: Tensor
    image_features: Tensor | None = None

    @classmethod
    def of(cls, model: Stage2Model, image_features: Tensor, batch_size: int) -> Shown:
        """The pictures themselves. image_features [M,N,Dv]"""
        prompts = torch.cat([model.visual_prompt(chunk) for chunk in image_features.split(batch_size)])
        return cls(prompts, image_features if model.reads_questions else None)

    def nothing(self) -> Shown:
        """No query at all: the language model is asked without a picture."""
        return Shown(self.visual_prompts[:, :0])

    def shuffled(self) -> Shown:
        """Each row has the picture of the previous one."""
        features = self.image_features
        return Shown(self.visual_prompts.roll(1, dims=0), None if features is None else features.roll(1, dims=0))


def prompts_for(model: Stage2Model, shown: Tensor | Shown, rows: Sequence[int], texts: Sequence[str]) -> Tensor:
    """The visual prompts of the pictures `rows`, for what each is asked: [len(rows),Q,Dl]. `shown`: visual prompts
    alone for a model that does not read the question."""
    if isinstance(shown, Tensor):
        shown = Shown(shown)
    if shown.image_features is None:
        return shown.visual_prompts[list(rows)]
    return model.visual_prompt(shown.image_features[list(rows)], texts)


@torch.no_grad()
def ask_all(
    model: Stage2Model,
    book: Sequence[Scene],
    questions: Sequence[NaturalQuestion],
    asker: Asker,
    *,
    visual_prompts: Tensor | Shown | None = None,
    batch_size: int = 128,
) -> list[Answer]:
    """Every question, about its scene's picture, with no other question before it.

    visual_prompts  what the model sees instead of the book's pictures, a row for each scene [M,Q,Dl] (`Shown`): no
                    queries at all to ask without a picture, the rows in another order to show another scene's picture
    """
    if visual_prompts is None:
        visual_prompts = see_all(model, book)
    answers: list[Answer | None] = [None] * len(questions)
    prompts: dict[int, str] = {}
    for i, question in enumerate(questions):
        try:
            prompts[i] = asker.prompt(model, question.text)
        except ValueError as refusal:
            answers[i] = Answer(str(refusal), refused=True)
    by_length = sorted(prompts, key=lambda i: len(prompts[i]))  # hardly any padding
    for start in range(0, len(by_length), batch_size):
        part = by_length[start : start + batch_size]
        texts = [prompts[i] for i in part]
        visual = prompts_for(model, visual_prompts, [questions[i].scene for i in part], texts)
        given = model.language_model.generate_with_probability(visual, texts, asker.decoding)
        for i, (text, probability) in zip(part, given, strict=True):
            answers[i] = Answer(text, refuses(text), probability)
    return answers


@torch.no_grad()
def see_all(model: Stage2Model, book: Sequence[Scene]) -> Shown:
    """The book's pictures, read one by one as the app reads them."""
    encoder = model.image_encoder
    pictures = (encoder.preprocess([draw(scene, encoder.image_size)]) for scene in book)
    return Shown.of(model, torch.cat([encoder(picture) for picture in pictures]), 1)


def verdicts(
    answers: Sequence[Answer], questions: Sequence[NaturalQuestion], book: Sequence[Scene], judge: Judge = is_right
) -> list[bool]:
    """Which answers are right. A refusal is no answer, so it is wrong."""
    return [
        not answer.refused and judge(question, answer.text, book[question.scene])
        for answer, question in zip(answers, questions, strict=True)
    ]


def natural_scores(
    answers: Sequence[Answer],
    questions: Sequence[NaturalQuestion],
    book: Sequence[Scene],
    groups: Iterable[str] = GROUPS,
    judge: Judge = is_right,
) -> dict[str, float | int | dict]:
    """The share that is right with its 95 % interval, the share refused, and both by group, in the order of `groups`.

    `of_answered` is the share that is right of those that were not refused, `new_wordings` of those whose wording the
    training texts do not have (overlap.py). Harder questions come with the `groups` and the `judge` of theirs.
    """
    right: dict[str, list[bool]] = {}
    refused: dict[str, list[bool]] = {}
    new: list[bool] = []
    for answer, question, hit in zip(answers, questions, verdicts(answers, questions, book, judge), strict=True):
        right.setdefault(question.group, []).append(hit)
        new += [] if in_corpus(question.wording) else [hit]
        refused.setdefault(question.group, []).append(answer.refused)
    by_group = {
        group: {
            "right": metrics.accuracy(right[group]),
            "refused": metrics.accuracy(refused[group]),
            "count": len(right[group]),
        }
        for group in groups
        if group in right
    }
    hits, refusals = sum(right.values(), []), sum(refused.values(), [])
    share = metrics.accuracy(hits)
    low, high = metrics.confidence_interval(share, len(hits))
    counts = {"count": len(hits), "refused": metrics.accuracy(refusals)}
    of_answered = sum(hits) / max(1, len(hits) - sum(refusals))
    in_new_words = {"new_wordings": metrics.accuracy(new), "new_wordings_count": len(new)} if new else {}
    return {
        "total": share,
        "low": low,
        "high": high,
        **counts,
        "of_answered": of_answered,
        **in_new_words,
        "groups": by_group,
    }
