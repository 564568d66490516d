"""The evaluation measures what it says: oracles score 1, the ignorant score what they should."""

from random import Random

import pytest
import torch

from blip2_lab import evaluate
from blip2_lab.decoding import Decoding
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import Scene, Thing, sample_scene

BOOK = [sample_scene(3, index, "in") for index in range(12)]


class Reader:
    """A language model that reads its visual prompt: the number of a scene. `knows` answers from scene and prompt."""

    question_prompt = "Question: {} Short answer:"

    def __init__(self, knows):
        self.knows = knows

    def generate(self, visual_prompt, prompts, decoding):
        numbers = [int(row.flatten()[0]) if row.numel() else None for row in visual_prompt]
        return [self.knows(number, prompt) for number, prompt in zip(numbers, prompts, strict=True)]


class Model:
    def __init__(self, knows):
        self.language_model = Reader(knows)


NUMBERED = torch.arange(len(BOOK)).float()[:, None, None]


def answers():
    asked = evaluate.questions(BOOK, seed=3)
    return {(number, Reader.question_prompt.format(q.text)): q.answer for number, q, _ in asked}, asked


def test_an_oracle_answers_everything_and_a_shuffled_one_little():
    truth, asked = answers()
    model = Model(lambda number, prompt: truth.get((number, prompt), "") + ".")
    scores = evaluate.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=7)
    assert scores["total"] == scores["knowledge"] == 1.0
    assert scores["total_count"] + scores["knowledge_count"] == len(asked)
    shuffled = evaluate.question_accuracy(model, NUMBERED.roll(1, 0), asked, Decoding(num_beams=1), batch_size=7)
    assert shuffled["total"] < 0.5


def test_totals_are_over_questions_and_knowledge_is_apart():
    truth, asked = answers()
    colors = {Reader.question_prompt.format(q.text) for _, q, _ in asked if q.type == "color"}
    model = Model(lambda number, prompt: truth[number, prompt] if prompt in colors else "no idea")
    scores = evaluate.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=50)
    visual = [q for _, q, _ in asked if q.type in words.VISUAL_QUESTIONS]
    assert scores["color"] == 1.0 and scores["knowledge"] == 0.0
    assert scores["total"] == pytest.approx(sum(q.type == "color" for q in visual) / len(visual))


def test_captions_are_read_for_kinds_colors_places_and_times():
    scene = Scene((Thing("boat", "red", "small", 0.5, 0.5), Thing("fish", "blue", "large", 0.2, 0.2)), "beach", "night")
    true = evaluate.truly_there(scene)
    caption = "two red boats and a fish, on the beach at night."
    assert evaluate.named(caption, evaluate.KIND_WORDS) == true["kinds"] == {"boat", "fish"}
    assert evaluate.named(caption, evaluate.NAMED["colors"]) == {"red"}
    assert evaluate.named(caption, evaluate.NAMED["places"]) == true["places"] == {"beach"}
    assert evaluate.named(caption, evaluate.NAMED["times"]) == true["times"] == {"night"}
    assert evaluate.named("a boatman dreams of redwood", evaluate.KIND_WORDS) == set()


def test_true_full_captions_score_one_and_an_empty_caption_scores_zero():
    full = Model(lambda number, _: words.full_caption(BOOK[number], Random(0)))
    scores = evaluate.caption_scores(full, NUMBERED, BOOK, Decoding(num_beams=1), batch_size=5)
    assert scores == {"kinds_f1": 1.0, "colors_f1": 1.0, "places_f1": 1.0, "times_f1": 1.0}
    silent = Model(lambda *_: "")
    assert set(evaluate.caption_scores(silent, NUMBERED, BOOK, Decoding(num_beams=1), batch_size=5).values()) == {0.0}


def test_one_scene_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2"):
        evaluate.evaluate(Model(lambda *_: ""), scenes=1)
