"""Questions that the miniature was not taught, and what is asked instead."""

from __future__ import annotations

import pytest

from blip2_lab.chat import conversation
from blip2_lab.chat.asked_instead import asked_instead
from blip2_lab.chat.conversation import Conversation, first_prompt
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

SHORT = Decoding(num_beams=1, max_new_tokens=2)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("at least three objects?", "how many objects are there?"),
        ("Hello, are there more than two red boats here?", "how many red boats are there?"),
        ("can you see fewer than 3 cats in the picture?", "how many cats are there?"),
        ("are there no more than two things in total", "how many things are there?"),
        ("do you see three or more cats?", "how many cats are there?"),
        ("how many sorts of things are there?", "what is in the picture?"),
        ("how many different kinds of animals do you see here?", "which animals are there?"),
        ("what colour is not in the picture?", "what colors are there?"),
        ("If I take away the red cactus, how many remain?", "how many things are there other than the red cactus?"),
        ("what is the odd one out?", "what is in the picture?"),
        ("Which thing doesn't belong?", "what is in the picture?"),
        ("is there any fruit here?", "which food is there?"),
        ("Is this in a town or in a forest?", "what place is this?"),
        ("are we in the city", "what place is this?"),
        ("is it a picture of a desert?", "what place is this?"),
    ],
)
def test_another_question_is_asked(text, question):
    assert asked_instead(text)[1] == question


@pytest.mark.parametrize(
    "text",
    [
        "are there at least two cats?",
        "is there more than one cat?",
        "two or more cats?",
        "are there more cats than dogs?",
        "are there three cats?",
        "how many cats are there?",
        "what kind of animal is this?",
        "is it less bright than the other picture?",
        "what color is the cat?",
        "what is not red?",
        "is it on the beach?",
        "is it a house?",
        "is the cat in the garden?",
        "which thing is on the left?",
        "what color is the fruit?",
        "at least " * 200,
    ],
)
def test_what_was_taught_is_asked_as_it_is(text):
    assert asked_instead(text) is None


def test_the_visitor_is_told_what_was_asked(tiny_model):
    talk = Conversation.about(tiny_model, draw(sample_scene(7, 3)))
    *_, reply = talk.ask("Are there at least three things?", SHORT)
    assert reply.note == 'I read "Are there at least three things" as "how many things are there?".'
    assert reply.prompt == "Question: how many things are there? Short answer:"


def test_real_weights_are_asked_every_question_as_it_is(tiny_model, monkeypatch):
    monkeypatch.setattr(conversation, "knows_whole_words_only", lambda tokenizer: False)
    text = "are there at least three things?"
    assert first_prompt(tiny_model, text) == f"Question: {text} Short answer:"
