"""Questions that the miniature was not taught: what is asked instead, and what a visitor is told."""

from __future__ import annotations

import pytest

from blip2_lab.chat import conversation
from blip2_lab.chat.conversation import Conversation, first_prompt
from blip2_lab.chat.untaught import Untaught, asked_instead, told_instead
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
        ("are we inside or outside?", "what place is this?"),
        ("Which season is it?", "what place is this?"),
        ("what is the red cat standing on?", "what place is this?"),
        ("is the red cat black?", "what color is the red cat?"),
        ("are all the boats white?", "what color are the boats?"),
        ("do you see a brown dog?", "what color is the dog?"),
        ("is anything black?", "what colors are there?"),
        ("is it black or white?", "what color is it?"),
        ("is it a cat or a dog?", "what is it?"),
        ("Is the cat alone?", "how many things are there?"),
        ("is this the only red cat?", "how many red cats are there?"),
        ("is there only a cat?", "what is in the picture?"),
        ("who is in the picture?", "what is in the picture?"),
        ("what is not in the picture?", "what is in the picture?"),
        ("what do you see in the sky?", "what is at the top?"),
        ("what is the cat doing here?", "where is the cat?"),
        ("what's the man doing?", "where is the man?"),
        ("does it show fewer than two cats?", "how many cats are there?"),
        ("what differs between the two cats", "what is in the picture?"),
        ("what is the difference between the cat and the dog?", "what is in the picture?"),
        ("is there anything in the sky", "is there anything at the top?"),
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
        "is it day or night?",
        "is it big or small?",
        "the thing on the left, is it a tool or a vehicle?",
        "is it on the left or on the right?",
        "is this a boat?",
        "is the cat red or blue?",
        "is there only one cat?",
        "who is driving the car?",
        "what is the cat for?",
        "what color is the train?",
        "how many boats does the picture have?",
        "how many things are there?",
        "is it a house?",
        "is the cat in the garden?",
        "which thing is on the left?",
        "what color is the fruit?",
        "at least " * 200,
    ],
)
def test_what_was_taught_is_asked_as_it_is(text):
    assert asked_instead(text) is None and told_instead(text) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("how many legs does the bird have?", "how many parts a thing has"),
        ("how many wheels can I see on the car?", "how many parts a thing has"),
        ("how many eyes has a cat", "how many parts a thing has"),
        ("how many clouds can you see?", "to count what belongs to the background"),
        ("What colour is the sky?", "the colors of the background"),
        ("is the grass green?", "the colors of the background"),
        ("what is the cat's name?", "what things are called"),
        ("what is the red cup made of?", "what things are made of"),
        ("which way is the bird looking?", "which way things face"),
        ("what shape is it?", "shapes"),
        ("is this a photo or a painting?", "whether a picture is a drawing or a photo"),
        ("is it real?", "whether a picture is a drawing or a photo"),
    ],
)
def test_a_visitor_is_told_what_was_not_taught(tiny_model, text, what):
    assert f"not {what}." in told_instead(text)
    with pytest.raises(Untaught, match="The miniature was taught"):
        first_prompt(tiny_model, text)


def test_the_visitor_is_told_what_was_asked(tiny_model):
    talk = Conversation.about(tiny_model, draw(sample_scene(7, 3)))
    *_, reply = talk.ask("Are there at least three things?", SHORT)
    assert reply.note == 'I read "Are there at least three things" as "how many things are there?".'
    assert reply.prompt == "Question: how many things are there? Short answer:"


def test_real_weights_are_asked_every_question_as_it_is(tiny_model, monkeypatch):
    monkeypatch.setattr(conversation, "knows_whole_words_only", lambda tokenizer: False)
    text = "are there at least three things?"
    assert first_prompt(tiny_model, text) == f"Question: {text} Short answer:"


def test_a_miniature_of_another_world_is_asked_every_question_as_it_is(tiny_model, monkeypatch):
    monkeypatch.setattr(conversation, "KINDS", ("quorx",))
    for text in ("are there at least three things?", "what shape is it?"):
        assert first_prompt(tiny_model, text) == f"Question: {text} Short answer:"
