"""What things are for and where they belong, in a visitor's words."""

from __future__ import annotations

import pytest

from blip2_lab.chat.uses import SAID, USE_OF, put_by_use
from blip2_lab.picturebook.facts import FACTS


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("What is a drum for?", "what do you use the drum for?"),
        ("what are drums used for", "what do you use the drum for?"),
        ("what can you do with a key?", "what do you use the key for?"),
        ("why would i need an umbrella?", "what do you use the umbrella for?"),
        ("what does the cat do?", "what do you use the cat for?"),
        ("Where do you usually find a fish?", "where does a fish belong?"),
        ("where do apples grow?", "where does an apple belong?"),
        ("what has a handle?", "which thing has a handle?"),
        ("which one makes music?", "what can you use to make music?"),
        ("what gives light in the dark?", "what can you use to read in the dark?"),
        ("what gives light?", "what can you use to read in the dark?"),
        ("who catches mice?", None),
        ("what do you need when it rains?", "what can you use to keep dry?"),
        ("what can I drink from?", "what can you use to drink tea?"),
        ("which thing keeps me dry?", "what can you use to keep dry?"),
        ("what do i need to open a door?", "what can you use to open a door?"),
        ("what can catch mice?", "which thing can catch mice?"),
        ("can i hit a nail with something here?", "is there something to hit nails?"),
        ("is there anything that can swim?", "is there anything that can swim?"),
        ("where can i see fish normally?", "where does a fish belong?"),
        ("tell me where fish live", "where does a fish belong?"),
        ("Habitat of a cat pls", "where does a cat belong?"),
        ("what's the home of a kitty?", "where does a cat belong?"),
        ("what place do apples grow in?", "where does an apple belong?"),
        ("where can carrots be found in nature", "where does a carrot belong?"),
        ("Tell me what umbrellas are for", "what do you use the umbrella for?"),
        ("where should I go to see a bird?", "where does a bird belong?"),
        ("what do people do in a castle?", "what do you use the castle for?"),
        ("what color is used for the boat", None),
        ("where should I look in the picture?", None),
        ("A key is for what??", "what do you use the key for?"),
        ("For what is a drum used?", "what do you use the drum for?"),
        ("Why would I need this house?", "what do you use the house for?"),
        ("usual location of a cactus", "where does a cactus belong?"),
        ("In what place do you usually see an apple?", "where does an apple belong?"),
        ("where are keys most of the time in real life", "where does a key belong?"),
        ("use of a key", "what do you use the key for?"),
        ("what are houses good for, please?", "what do you use the house for?"),
        ("which part of a car do you know", "what part does the car have?"),
        ("what is a drum made up of?", "what part does the drum have?"),
        ("please name something that every train has", "what part does the train have?"),
        ("can you name one part of the red drum?", "what part does the drum have?"),
        ("in which part of the picture is the boat?", None),
        ("does the cat have a tail?", None),
        ("is the cat good for catching mice?", None),
        ("who might live in a castle?", None),
        ("where are the kites found?", None),
        ("what is the thing above the house for?", None),
        ("what are the cat and the drum for?", None),
        ("where do you see a fish in the picture?", None),
        ("where can you find a fish?", None),
        ("where is the fish?", None),
        ("where do you see the fish?", None),
        ("what do you see?", None),
        ("what can you see here?", None),
        ("which thing is red?", None),
    ],
)
def test_a_use_is_asked_in_the_form_that_is_read_best(text, plain):
    assert put_by_use(text) == plain


def test_every_use_that_has_other_words_is_one_that_the_model_knows():
    uses = {facts.use for facts in FACTS.values()}
    assert SAID.keys() <= uses and set(USE_OF.values()) == uses
    said = [words for others in SAID.values() for words in others]
    assert len(said) == len(set(said)), "of two uses at most one"
