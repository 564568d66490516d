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
        ("hey, there isn't a kite here, is there?", "is there a kite here?"),
        ("there's no boat, is there?", "is there any boat?"),
        ("the cat isn't red, is it?", "is the cat red?"),
        ("could you tell me whether there are plants", "are there any plants?"),
        ("Please tell me if the bird is lower down than the train", "is the bird lower down than the train?"),
        ("is the turtle orange or not?", "is the turtle orange?"),
        ("Please tell me if there's a blue turtle.", "is there a blue turtle?"),
        ("I think the drum is left of the cactus. Am I right?", "is the drum left of the cactus?"),
    ],
)
def test_a_question_for_yes_or_no_is_put_plainly(text, plain):
    assert put_plainly(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Find something red", "which red things are there?"),
        ("can you show me a thing that is blue?", "which blue things are there?"),
        ("which item has the colour green", "which green things are there?"),
        ("what's yellow here?", "which yellow things are there?"),
        ("list everything that's pink", "which pink things are there?"),
        ("name all the red objects", "which red things are there?"),
        ("What did they paint yellow?", "which yellow things are there?"),
        ("is anything yellow, and what?", "which yellow things are there?"),
        ("is that bird a big one or a little one?", "how big is that bird?"),
        ("are there one, two or no cherries?", "how many cherries are there?"),
        ("is it a beach, a street or what?", "what place is this?"),
        ("is it in a grassy field?", "is this in a meadow?"),
        ("is it on a road?", "is this on the street?"),
        ("What building is there", "which buildings are there?"),
        ("are there cats?", "are there any cats?"),
        ("Yellow object = ?", "which yellow things are there?"),
        ("Lamp present?", "is there a lamp?"),
        ("trees count", "how many trees are there?"),
        ("above the yellow cake: ?", "what is above the yellow cake?"),
        ("At what place of the picture stays the castle?", "where is the castle?"),
        ("Does the cat look little to you ?", "is the cat little?"),
        ("is the fish red or blue or what color?", "what color is the fish?"),
        ("I can't see the color of the boat, what is it?", "what color is the boat?"),
        ("Is it a daytime scene", "is it day?"),
        ("What color is used for the boat", "what color is the boat?"),
        ("do u see a cat?", "do you see a cat?"),
        ("were is the cat?", "where is the cat?"),
        ("are there small red cats in the picture?", "are there any small red cats?"),
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
        "which one is red?",
        "which red thing is large?",
        "is it a beach or a street?",
        "tell me if the thing that is red is a boat",
        "is the cat above the boat or the red one?",
        "where is the red one?",
        "the fish, is it a big one or a little one?",
        "the is " * 400,
        "isn't " * 400,
    ],
)
def test_every_other_text_is_left_as_it_is(text):
    assert put_plainly(text) == text
