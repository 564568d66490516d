"""Questions as a visitor asks them, in words that the training texts were not made from, and how many are answered.

What is unusual about it:

* `evaluate.questions` asks with the templates that the language model learned. Here the wordings are others: hundreds
  of them, with synonyms, contractions, British spelling, capitals, greetings and slips of the finger.
* Some questions assume what is not so ("what color is the cat?" where no cat is). The right answer says so.
* They are asked as the app asks: through `chat.Conversation`, which refuses words that the model does not know. A
  refusal is no answer, so it counts as wrong, and its share is reported.

    questions = natural_questions(book, seed)
    natural_scores(ask_all(model, book, questions), questions, book)

Paper: section 4.1. Notebook: 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_lab import metrics
from blip2_lab.chat import ANSWERING, Conversation, Eyes, Seen
from blip2_lab.natural_judge import NaturalQuestion, is_right, refuses
from blip2_lab.natural_questions import GROUPS, natural_questions
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import Scene
from blip2_lab.stage2 import Stage2Model

__all__ = [
    "GROUPS",
    "Answer",
    "NaturalQuestion",
    "ask_all",
    "is_right",
    "natural_questions",
    "natural_scores",
    "see_all",
]


@dataclass(frozen=True)
class Answer:
    """What the visitor reads. `refused`: the question was not asked, and `text` says why."""

    text: str
    refused: bool = False


@torch.no_grad()
def ask_all(
    model: Stage2Model,
    book: Sequence[Scene],
    questions: Sequence[NaturalQuestion],
    *,
    visual_prompts: Tensor | None = None,
    batch_size: int = 128,
) -> list[Answer]:
    """Every question, as the first of a conversation about its scene's picture, with the chat's own decoding.

    visual_prompts  what the model sees instead of the book's pictures, a row for each scene [M,Q,Dl]: no queries at all
                    to ask without a picture, the rows in another order to show another scene's picture
    """
    if visual_prompts is None:
        visual_prompts = see_all(model, book)
    answers: list[Answer | None] = [None] * len(questions)
    prompts: dict[int, str] = {}
    for i, question in enumerate(questions):
        talk = Conversation(model, Seen(visual_prompts[:0], visual_prompts[question.scene : question.scene + 1]))
        try:
            talk.ask(question.text)  # refuses at once; an answer would begin when its first word is asked for
            prompts[i] = talk.prompt(question.text)
        except ValueError as refusal:
            answers[i] = Answer(str(refusal), refused=True)
    by_length = sorted(prompts, key=lambda i: len(prompts[i]))  # hardly any padding
    for start in range(0, len(by_length), batch_size):
        part = by_length[start : start + batch_size]
        visual = visual_prompts[[questions[i].scene for i in part]]
        texts = model.language_model.generate(visual, [prompts[i] for i in part], ANSWERING)
        for i, text in zip(part, texts, strict=True):
            answers[i] = Answer(text, refused=refuses(text))
    return answers


def see_all(model: Stage2Model, book: Sequence[Scene]) -> Tensor:
    """The visual prompts of the book's pictures, read one by one as the app reads them: [M,Q,Dl]."""
    eyes = Eyes(model, capacity=1)
    return torch.cat([eyes.see(draw(scene, model.image_encoder.image_size)).visual_prompt for scene in book])


def natural_scores(
    answers: Sequence[Answer], questions: Sequence[NaturalQuestion], book: Sequence[Scene]
) -> dict[str, float | int | dict]:
    """The share that is right with its 95 % interval, the share refused, and both by group.

    `of_answered` is the share that is right of those that were not refused.
    """
    right: dict[str, list[bool]] = {}
    refused: dict[str, list[bool]] = {}
    for answer, question in zip(answers, questions, strict=True):
        hit = not answer.refused and is_right(question, answer.text, book[question.scene])
        right.setdefault(question.group, []).append(hit)
        refused.setdefault(question.group, []).append(answer.refused)
    groups = {
        group: {
            "right": metrics.accuracy(right[group]),
            "refused": metrics.accuracy(refused[group]),
            "count": len(right[group]),
        }
        for group in GROUPS
        if group in right
    }
    hits, refusals = sum(right.values(), []), sum(refused.values(), [])
    share = metrics.accuracy(hits)
    low, high = metrics.confidence_interval(share, len(hits))
    counts = {"count": len(hits), "refused": metrics.accuracy(refusals)}
    of_answered = sum(hits) / max(1, len(hits) - sum(refusals))
    return {"total": share, "low": low, "high": high, **counts, "of_answered": of_answered, "groups": groups}
