"""All questions are asked in batches as the chat asks them, and refusals count as wrong."""

import math
from dataclasses import replace

import pytest
import torch

from blip2_lab.chat.conversation import ANSWERING, Conversation, first_prompt
from blip2_lab.evaluation import natural
from blip2_lab.evaluation.natural import Answer, Asker, natural_questions, natural_scores
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

BOOK = [sample_scene(77, index, "in") for index in range(40)]
QUESTIONS = natural_questions(BOOK, seed=5)
ASKER = Asker(first_prompt, ANSWERING)


def test_scores_count_refusals_as_wrong():
    asked = QUESTIONS[:40]
    answers = [Answer(q.truth) for q in asked]
    assert natural_scores(answers, asked, BOOK)["total"] == 1.0
    answers[:10] = [Answer(q.truth, refused=True) for q in asked[:10]]
    answers[10:20] = [Answer("gibberish")] * 10
    scores = natural_scores(answers, asked, BOOK)
    assert scores["total"] == 0.5 and scores["refused"] == 0.25 and scores["count"] == 40
    assert scores["low"] < 0.5 < scores["high"] and scores["of_answered"] == pytest.approx(2 / 3)
    assert sum(group["count"] for group in scores["groups"].values()) == 40


def test_answers_are_those_of_the_chat(tiny_model):
    """Batched, with the same refusals and the same texts as one conversation after the other."""
    book = BOOK[:3]
    asked = natural_questions(book, seed=1)
    asked += [replace(asked[0], text="quorx blicket?")]
    prompts = natural.see_all(tiny_model, book)
    answers = natural.ask_all(tiny_model, book, asked, ASKER, batch_size=5)
    assert len(answers) == len(asked) and {answer.refused for answer in answers} == {True, False}
    same = 0
    for q, answer in zip(asked, answers, strict=True):
        talk = Conversation.about(tiny_model, draw(book[q.scene], tiny_model.image_encoder.image_size))
        try:
            *_, reply = talk.ask(q.text)
            said = reply.text
            assert math.prod(word.probability for word in reply.words) == pytest.approx(answer.confidence, rel=1e-3)
        except ValueError as refusal:
            assert answer == Answer(str(refusal), refused=True)
            continue
        assert not answer.refused and 0 <= answer.confidence <= 1
        same += said == answer.text
    assert same == sum(not answer.refused for answer in answers)
    blind = natural.ask_all(tiny_model, book, asked, ASKER, visual_prompts=prompts.nothing())
    assert [answer.refused for answer in blind] == [answer.refused for answer in answers]
    assert torch.equal(prompts.visual_prompts, natural.see_all(tiny_model, book).visual_prompts)


def test_a_model_that_reads_the_question_is_given_it(asking_model):
    book, shown = BOOK[:2], natural.see_all(asking_model, BOOK[:2])
    asker = Asker(first_prompt, replace(ANSWERING, max_new_tokens=2))
    asked = [question for question in natural_questions(book, seed=1) if _is_asked(asking_model, question.text)][:8]
    answers = natural.ask_all(asking_model, book, asked, asker)
    assert len(asked) == 8
    for question, answer in zip(asked, answers, strict=True):
        talk = Conversation.about(asking_model, draw(book[question.scene], asking_model.image_encoder.image_size))
        *_, reply = talk.ask(question.text, asker.decoding)
        confidence = math.prod(word.probability for word in reply.words)
        assert confidence == pytest.approx(answer.confidence, rel=1e-3, abs=0)
    unasked = natural.ask_all(asking_model, book, asked, asker, visual_prompts=shown.visual_prompts)
    assert any(abs(a.confidence - b.confidence) > 0.1 * b.confidence for a, b in zip(unasked, answers, strict=True))
    again = natural.ask_all(asking_model, book, asked, asker, visual_prompts=shown.shuffled().shuffled())
    assert [answer.text for answer in again] == [answer.text for answer in answers]


def _is_asked(model, text: str) -> bool:
    try:
        first_prompt(model, text)
    except ValueError:
        return False
    return True
