"""Where questions are lost on the way from a scene to an answer: the same held-out questions after every link.

    python -m benchmarks.chain                         the shipped model
    python -m benchmarks.chain --model runs/micro --scenes 200

Each column asks the frozen T5 the same questions about the same scenes, told in another way: in sentences; as sums of
word embeddings, one vector a thing, without noise and with noise of half a word's length, one and two; and by the
picture. The first column says what the language model reads from sentences, the next ones what from word sums, which
are nearest to soft prompts; the last is what is left after image encoder, Q-Former and projection.
"""

from __future__ import annotations

import argparse
from random import Random

import torch

import blip2_lab
from blip2_lab.evaluation import scenes as evaluation
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook import asking, corpus, words
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.training.tasks.pretraining import text_question_accuracy

NOISES = (0.0, 0.5, 1.0, 2.0)
BOOK = 3  #: that no training and no choice looked at


def questions_about(scene, index: int) -> list[words.Question]:
    """One question of every type in the forms of words.py, the list of things, and one of every visitor's intention."""
    rng = Random(f"chain {index}")
    fixed = [*words.questions(scene, rng), corpus.inventory(scene)]
    asked = [asking.ask(scene, rng, intention) for intention in asking.INTENTIONS]
    return fixed + [words.Question(f"asked: {q.type}", q.text, q.answer) for q in asked if q]


@torch.no_grad()
def from_pictures(model, book, asked) -> dict[str, float]:
    features = evaluation.image_features(model, book, 128)
    visual_prompts = torch.cat([model.visual_prompt(part) for part in features.split(128)])
    right: dict[str, list[bool]] = {}
    flat = [(number, question) for number, questions in enumerate(asked) for question in questions]
    for start in range(0, len(flat), 128):
        part = flat[start : start + 128]
        prompts = [model.language_model.question_prompt.format(question.text) for _, question in part]
        visual = visual_prompts[[number for number, _ in part]]
        answers = model.language_model.generate(visual, prompts, Decoding(num_beams=1, max_new_tokens=40))
        for (_, question), answer in zip(part, answers, strict=True):
            right.setdefault(question.type, []).append(answer.strip() == question.answer)
    total = [hit for hits in right.values() for hit in hits]
    return {"accuracy": sum(total) / len(total)} | {name: sum(hits) / len(hits) for name, hits in right.items()}


def table(columns: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [f"{column[name]:.3f}" if name in column else "–" for column in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="micro")
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args()
    model = blip2_lab.load(options.model)
    book = [sample_scene(BOOK, index, "in") for index in range(options.scenes)]
    asked = [questions_about(scene, index) for index, scene in enumerate(book)]

    def told(describe) -> list[tuple[words.Question, str]]:
        return [
            (question, f"{describe(scene, Random(f'told {index}'))} {corpus.QUESTION_PROMPTS[0].format(question.text)}")
            for index, (scene, questions) in enumerate(zip(book, asked, strict=True))
            for question in questions
        ]

    t5, tokenizer = model.language_model.model, model.language_model.tokenizer
    columns = {"sentences": text_question_accuracy(t5, tokenizer, told(words.full_caption))}
    for noise in NOISES:
        columns[f"sums, noise {noise}"] = text_question_accuracy(t5, tokenizer, told(corpus.word_sums), noise=noise)
    columns["picture"] = from_pictures(model, book, asked)
    print(table(columns))


if __name__ == "__main__":
    main()
