"""Which unknown words a question cannot do without, so that it is refused, and which are passed over."""

import pytest

from blip2_lab.chat.decisive_words import unknown_decides
from blip2_lab.chat.vocabulary import UnknownWords, read
from blip2_lab.picturebook.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("t5")


@pytest.mark.parametrize(
    "typed",
    [
        "nothing purple in it, right?",
        "Is the lower left corner EMPTY?",
        "list everything without wheels",
        "does anything in here fly?",
        "can the bird fly?",
        "is there anything shiny?",
        "anything dangerous?",
        "is the red boat wooden?",
        "are both boats wooden?",
        "does the cat sleep?",
        "is it raining?",
        "are the boats wooden or red?",
        "is the bird flying or standing?",
        "Which thing can I fly in?",
        "could i ride any of these?",
        "is anything upside down?",
        "what would a kid like the most in here?",
        "is the picture blurry?",
        "what color is the shiny thing?",
        "which thing is the heaviest?",
        "how far apart are the boats?",
        "is it bedtime in the picture?",
        "what sound does the cat make?",
        "where could i sleep in this picture?",
        "how long lasting is the lamp?",
        "which animal is the cutest?",
        "which of the boats is fastest?",
        "what do you see that is shiny?",
        "what can fly?",
        "how many shiny things do you see?",
        "name all shiny objects",
    ],
)
def test_a_question_that_is_about_its_unknown_word_is_refused(tokenizer, typed):
    with pytest.raises(UnknownWords, match="I do not know the word"):
        read(tokenizer, typed)


@pytest.mark.parametrize(
    "typed",
    [
        "is the boat red, kemosabe?",
        "is there a boat, kemosabe?",
        "is there a shiny boat?",
        "is the boat there, kemosabe",
        "is the cat on the left nowish?",
        "what color is the quorx?",
        "where is the quorx?",
        "what is the weather?",
        "what is in the picture, kemosabe?",
        "can you describe the picture, kemosabe?",
        "how many wooden boats are there?",
        "is the boat bigger than the quorx?",
    ],
)
def test_an_unknown_word_beside_what_is_asked_is_named_and_passed_over(tokenizer, typed):
    assert len(read(tokenizer, typed).unknown) == 1


def test_a_word_that_turns_a_question_round_is_answered_with_how_to_ask(tokenizer):
    with pytest.raises(UnknownWords, match="turns the question round: ask what there is"):
        read(tokenizer, "is there NOTHING on the left?")


def test_an_apostrophe_does_not_hide_a_word():
    assert unknown_decides("what’s empty’s color", ["empty’s"])
    assert not unknown_decides("what is the boat's quorx", ["quorx"])
