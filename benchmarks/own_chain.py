"""Where questions are lost in a world of your own: the same held-out questions after every link.

    python -m benchmarks.own_chain runs/own-my-cutouts-composites

The first columns ask the T5 alone, which reads the captions of a held-out picture: word by word, then as sums of word
embeddings, one vector a phrase, without noise and with noise of half a word's length, one and two. The last two ask the
finished model about the picture, and about another picture. They are left out while stage 2 is not trained.
`benchmarks/chain.py` does the same for the shipped model.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from random import Random

import torch

import blip2_lab
from benchmarks.chain import NOISES, table
from blip2_lab.data.examples import Record
from blip2_lab.evaluation.natural import Shown, prompts_for
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import EncoderDecoderLanguageModel
from blip2_lab.own_world import recipes_for
from blip2_lab.picturebook.words import Question
from blip2_lab.training.batches import open_batches
from blip2_lab.training.loading import load_language_model
from blip2_lab.training.tasks.own_parts import PHRASES, OwnT5Task, Reading, read_texts
from blip2_lab.training.tasks.word_sums import add_up

AT_ONCE = 64
FEWEST = 5  #: questions that begin alike, for a row of their own


def scores(asked: list[Question], answers: list[str]) -> dict[str, float]:
    """The share of equal answers, in total and by the first two words of a question."""
    hits: dict[str, list[bool]] = {"all questions": []}
    for question, answer in zip(asked, answers, strict=True):
        right = answer.strip(" .") == question.answer
        for name in ("all questions", " ".join(question.text.split()[:2])):
            hits.setdefault(name, []).append(right)
    return {f"{name} ({len(found)})": sum(found) / len(found) for name, found in hits.items() if len(found) >= FEWEST}


@torch.no_grad()
def from_captions(task: OwnT5Task, readings: list[Reading], noise: float) -> list[str]:
    answers: list[str] = []
    for start in range(0, len(readings), AT_ONCE):
        read = task.read(readings[start : start + AT_ONCE], start, 0.0)
        words = task.model.get_input_embeddings()(read["input_ids"])
        embeddings = add_up(words, read["sums"], torch.Generator().manual_seed(start), noise=noise)
        options = dict(max_new_tokens=12, do_sample=False)
        ids = task.model.generate(inputs_embeds=embeddings, attention_mask=read["sums"].mask, **options)
        answers += task.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return answers


def readings_of(record: Record, question: Question, summed: bool) -> Reading:
    """The question after all captions of its picture, the phrases in an order drawn from the question."""
    told = [phrase for caption in record.captions for phrase in PHRASES.split(caption) if phrase.strip()]
    if not summed:
        told = " ".join(record.captions).split()
    else:
        Random(question.text).shuffle(told)
    return Reading(told, summed, EncoderDecoderLanguageModel.question_prompt.format(question.text), question.answer)


@torch.no_grad()
def from_pictures(model, shown: Shown, rows: list[int], asked: list[Question]) -> list[str]:
    answers: list[str] = []
    for start in range(0, len(asked), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        texts = [model.language_model.question_prompt.format(question.text) for question in asked[part]]
        visual = prompts_for(model, shown, rows[part], texts)
        answers += model.language_model.generate(visual, texts, Decoding(num_beams=1, max_new_tokens=12))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path, help="the folder of a world: runs/own-NAME")
    world = parser.parse_args().world
    place = json.loads((world / "own-t5" / "recipe.json").read_text(encoding="utf-8"))["data"]["path"]
    recipe = next(recipe for recipe in recipes_for(place, []) if recipe.name == "own-t5")
    texts = read_texts(open_batches(recipe, world))
    t5 = load_language_model("own-t5", world)
    task = OwnT5Task(t5.model, t5.tokenizer, 1, 0, texts)
    asked = [(row, question) for row, record in enumerate(texts.held_out) for question in record.questions]
    rows, questions = [row for row, _ in asked], [question for _, question in asked]
    usual = Counter(question.answer for question in questions).most_common(1)[0][0]
    columns = {"most frequent": scores(questions, [usual] * len(questions))}
    for summed, noises in ((False, (0.0,)), (True, NOISES)):
        readings = [readings_of(texts.held_out[row], question, summed) for row, question in asked]
        for noise in noises:
            name = f"sums, noise {noise}" if summed else "captions"
            columns[name] = scores(questions, from_captions(task, readings, noise))
    if (world / "model").is_dir():
        model = blip2_lab.load(world / "model")
        pixels = model.image_encoder.preprocess([record.open().image for record in texts.held_out])
        shown = Shown.of(model, model.image_encoder(pixels), AT_ONCE)
        columns["picture"] = scores(questions, from_pictures(model, shown, rows, questions))
        columns["another picture"] = scores(questions, from_pictures(model, shown.shuffled(), rows, questions))
    print(table(columns))


if __name__ == "__main__":
    main()
