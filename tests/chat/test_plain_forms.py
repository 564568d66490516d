"""A question in the form that the miniature reads best."""

from __future__ import annotations

import pytest

from blip2_lab.chat.plain_forms import put_plainly


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Isn't the cup red?", "Is the cup red?"),
        ("isnt it day", "is it day"),
        ("can't you see a cat?", "can you see a cat?"),
        ("so aren’t there two boats?", "so are there two boats?"),
        ("it's day, right", "is it day?"),
        ("is the yellow house below the purple one?", "is the yellow house below the purple house?"),
        ("there's a cat, isn't there?", "is there a cat?"),
        ("The cats are red, aren't they?", "are the cats red?"),
        ("So the thing at the bottom right is red, right?", "is the thing at the bottom right red?"),
        ("are there fewer red cats than dogs here?", "are there more dogs than red cats here?"),
        ("do you see less boats than cars", "do you see more cars than boats"),
        ("Hi, is there any water in the picture?", "is this on the beach?"),
        ("can you see the sea", "is this on the beach?"),
        ("isn't there grass?", "is this in the meadow?"),
        ("are there rocks here?", "is this in the mountains?"),
        ("does this picture show clouds?", "is it day?"),
        ("are there any people in the picture?", "is there a person in the picture?"),
        ("do you see people?", "do you see a person?"),
    ],
)
def test_a_question_for_yes_or_no_is_put_plainly(text, plain):
    assert put_plainly(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Find something red", "which thing is red?"),
        ("can you show me a thing that is blue?", "which thing is blue?"),
        ("where is something red?", "where is the red thing?"),
        ("How many big things do you see?", "how many large things are there?"),
        ("how many of the objects are tiny?", "how many small things are there?"),
        (
            "what kind of thing is the red cat?",
            "is the red cat a vehicle, an animal, a plant, a food, a tool, a toy or a building?",
        ),
        ("is there cat?", "is there a cat?"),
        ("do you see orange cat in the picture?", "is there an orange cat?"),
        ("is there another cat here?", "are there several cats?"),
        ("what is an apple?", "tell me about the apple"),
        ("what's at the very top?", "what is the highest?"),
        ("Could any of these things be eaten?", "is there something to eat?"),
        ("If I go from left to right, what comes last?", "what is the rightmost thing?"),
        ("from top to bottom, which one is first", "what is the highest thing?"),
        ("are the two cats equally big?", "are the two cats the same size?"),
        ("is everything a cat?", "are all things cats?"),
    ],
)
def test_a_question_takes_the_form_that_is_read_best(text, plain):
    assert put_plainly(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "what isn't red?",
        "find the red cat",
        "how many big cats are there?",
        "what kind of animal is it?",
        "what kind of picture is this?",
        "what is on top of the cat?",
        "is everything red?",
        "are the cat and the dog the same color?",
        "why isn't it day?",
        "the cat is on the right",
        "the thing that is red is a boat, right?",
        "what is on the left, right?",
        "is it day or night?",
        "is it less bright than dark?",
        "is the water blue?",
        "is there water or grass?",
        "what color is the sea?",
        "is there a boat on the water?",
        "is it morning or night?",
        "which boat is on the left?",
        "which thing is on the left?",
        "which animal is at the top?",
        "which boat is red?",
        "is the cat above the boat or the red one?",
        "where is the red one?",
        "the fish, is it a big one or a little one?",
        "the is " * 400,
        "isn't " * 400,
    ],
)
def test_every_other_text_is_left_as_it_is(text):
    assert put_plainly(text) == text
