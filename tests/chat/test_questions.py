"""What a text asks: several questions in one, short forms of a question, and what "it" is."""

import pytest

from blip2_lab.chat.conversation import INSTRUCTIONS
from blip2_lab.chat.questions import (
    MOST_QUESTIONS,
    after_a_list,
    as_one,
    asks,
    in_full,
    is_question,
    names_nothing,
    questions_in,
    refers_back,
    which_one,
    with_its_name,
)


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("how many cats and how many trees", ["how many cats", "how many trees"]),
        ("How many tents, and what colours are they?", ["How many tents", "what colours are they?"]),
        ("is it sunny ? and how many things", ["is it sunny", "how many things"]),
        ("What is it? Where is it?", ["What is it", "Where is it?"]),
        ("thank you. and how many cars?", ["how many cars?"]),
        ("is there a cat? why?", ["is there a cat"]),
        (
            "tell me what the cat is called and what color it has",
            ["tell me what the cat is called", "what color it has"],
        ),
        ("what color is the drum and the cake?", ["what color is the drum?", "what color is the cake?"]),
        (
            "whats the colours of a drum, a small cake and the tent",
            ["whats the colours of a drum, a small cake and the tent"],
        ),
        (
            "could you tell me the color of the red cat and the drum please",
            ["what color is the red cat?", "what color is the drum?"],
        ),
        ("Where are the cat, the drum and the tent", ["where is the cat?", "where is the drum?", "where is the tent?"]),
        ("how many red cats and drums are there?", ["how many red cats are there?", "how many drums are there?"]),
        ("how many trees plus kites are there", ["how many trees are there?", "how many kites are there?"]),
        ("how many animals and plants do you see?", ["how many animals are there?", "how many plants are there?"]),
        *(
            (text, ["how big is the red cat?", "how big is the boat?"])
            for text in (
                "which one is bigger the red cat or the boat",
                "Is the red cat bigger than the boat?",
                "is the red cat or the boat larger?",
                "are the red cat and boat the same size?",
                "is the red cat as big as the boat?",
            )
        ),
        ("is there a cat, and what color is it?", ["is there a cat", "what color is it?"]),
        ("what is in the picture? what color is the cat?", ["what is in the picture", "what color is the cat?"]),
        ("what are the colors?", ["what are the colors?"]),
        ("what things have which colors?", ["what things have which colors?"]),
        ("do you see a car on the street?", ["do you see a car?", "is this on the street?"]),
        ("is there any dog on the beach?", ["is there any dog?", "is this on the beach?"]),
        ("Is there a red cat in the grass?", ["Is there a red cat?", "is this in the meadow?"]),
        ("describe the red cat", ["what color is the red cat?", "how big is the red cat?", "where is the red cat?"]),
        (
            "What does the boat look like?",
            ["what color is the boat?", "how big is the boat?", "where is the boat?"],
        ),
    ],
)
def test_several_questions_in_one_are_asked_one_by_one(text, questions):
    assert questions_in(text) == questions


@pytest.mark.parametrize(
    ("text", "one"),
    [
        *(
            (f"{everything}{with_colors}", everything)
            for everything in ("what is in the picture", "Which objects are here", "list all the things")
            for with_colors in (
                ", and in which colors?",
                "? give the colors too",
                " and what color are they",
                " with their colours",
            )
        ),
        ("Is there something to the left of the cactus, and what is it?", "what is to the left of the cactus?"),
        ("what things are there, and which color is each?", "what things are there"),
        ("objects, with color", "list all the things"),
        ("whats in the pic, and what colours", "whats in the pic"),
    ],
)
def test_two_questions_with_one_answer_are_one_and_stay_as_they_were_typed(text, one):
    assert as_one(text) == one and questions_in(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        *INSTRUCTIONS["micro"],
        "what is between the bird and the cat?",
        "are the cat and the bird the same color?",
        "which is bigger, the bird and the cat or the drum",
        "is it a cat or is it a dog?",
        "I see a boat and what looks like a cat",
        "how many and what color are the cats",
        "hello, what is this?",
        "Question: is it a cat? And what is this? Answer:",
        "a red boat. a blue cat.",
        "is there a cat and a dog?",
        "is the cat bigger than the red one?",
        "which is bigger?",
        "are the two cats the same size?",
        "is the cat above the boat?",
        "",
    ],
)
def test_one_question_stays_one(text):
    assert questions_in(text) == [text]


def test_too_many_questions_in_one_are_refused_in_a_sentence():
    text = "? ".join(["what is it"] * MOST_QUESTIONS)
    assert len(questions_in(text)) == MOST_QUESTIONS
    with pytest.raises(ValueError, match=f"{MOST_QUESTIONS + 1} questions in one, and at most {MOST_QUESTIONS}"):
        questions_in(f"{text}? and where is it?")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("cat color", "what color is the cat?"),
        ("LAMP COLOUR???", "what color is the lamp?"),
        ("color of the small red cat please", "what color is the small red cat?"),
        ("what color cat", "what color is the cat?"),
        ("ball where", "where is the ball?"),
        ("umbrella size", "how big is the umbrella?"),
        ("the same for the lamp", "and the lamp"),
        ("Same question for the lamp?", "and the lamp"),
        ("ok and the tree", "and the tree"),
        ("thanks, and what about a cat", "and what about a cat"),
        ("now the tree", "and the tree"),
        ("or a tree?", "and a tree"),
    ],
)
def test_a_short_question_is_read_in_full(typed, read):
    assert in_full(typed) == read


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("where?", "where is it?"),
        ("and which color", "what color is it?"),
        ("ok, how big exactly", "how big is it?"),
        ("its position?", "where is it?"),
        ("what about its size", "how big is it?"),
    ],
)
def test_a_question_without_a_thing_is_of_the_thing_before(typed, read):
    assert in_full(typed, follows=True) == read
    assert in_full("where?") == "where?", "before there was one"


@pytest.mark.parametrize(
    "text",
    [
        *INSTRUCTIONS["micro"],
        "what color is the cat?",
        "where is the cat and the drum",
        "and what color is it?",
        "and describe it",
        "now describe the picture",
        "or tell a story",
        "which cat is colored",
        "the position of nothing",
    ],
)
def test_every_other_text_is_read_as_it_is(text):
    assert in_full(text, follows=True) == text


@pytest.mark.parametrize(
    "text", ["ok thanks and what about a cat", "hey what is this", "sorry, how many", "and is it red"]
)
def test_a_question_may_have_a_word_before_it(text):
    assert is_question(text)


def test_a_miniature_is_asked_where_a_text_asks_somewhere():
    for text in ("the upper cat is what color", "tell me the color of the cat", "number of cats"):
        assert asks(text) and not is_question(text)
    for text in ("Describe the picture.", "Tell a story.", "a photo of a cat", "Question: what is it? Answer:"):
        assert not asks(text)


@pytest.mark.parametrize(
    ("question", "refers"),
    [
        ("what color is it?", True),
        ("is that a cat?", True),
        ("is this red?", True),
        ("where can I find that ball", False),
        ("what is this large red thing", False),
        ("what color is the cat in this picture?", False),
        ("the lamp it is on or off?", False),
        ("is the cat large and where is it", False),
        ("the big red thing what is it", False),
        ("is the cat above it?", True),
        ("is the cat larger than that?", True),
        ("in this picture, what is it?", True),
        ("who painted this?", False),
        ("is it day?", False),
        ("good morning, what color is it?", True),
    ],
)
def test_it_refers_back_unless_the_question_itself_names_it(question, refers):
    assert refers_back(question) is refers


@pytest.mark.parametrize(
    ("before", "question", "full"),
    [
        ("is there an animal?", "Which one?", "which animal is there?"),
        ("are the two lamps of the same size?", "and which one is bigger?", "which lamp is bigger?"),
        ("do you see a red ship", "which is it", "which boat is there?"),
        ("is there a boat and a car?", "which one is red?", None),
        ("what is in the picture?", "which one is red?", None),
        ("are there lamps?", "which is bigger, the cat or the dog?", None),
        ("are there lamps?", "what is red?", None),
    ],
)
def test_which_one_is_of_the_noun_before(before, question, full):
    assert which_one(question, before) == full


def test_a_question_may_name_nothing():
    for question in ("is it day?", "how many things are there?", "what place is this?"):
        assert names_nothing(question)
    for question in ("good morning, what is the small thing", "is there a boat on the beach?", "what is red?"):
        assert not names_nothing(question)


@pytest.mark.parametrize(
    ("before", "question", "named"),
    [
        ("is there a drum?", "where is it?", "where is the drum?"),
        ("do you see a Large red ship", "And how big is IT?", "And how big is the large red boat?"),
        ("what colour is the kitten at the top left?", "its size", "the cat's size"),
        ("what colour is the kitten at the top left?", "what is it?", "what is the cat at the top left?"),
        ("is the small cake there", "i think it's big, no?", "i think the small cake is big, no?"),
        ("how many keys are there?", "Where are they?", "Where are the keys?"),
        ("do you see any little red ships", "what color are they", "what color are the small red boats"),
        ("how many animals?", "are they large?", "are the animals large?"),
        ("how many things are there?", "where are they?", None),
        ("is there a drum?", "where are they?", None),
        ("is there a drum?", "and the cat?", None),
        ("what is at the top?", "what color is it?", None),
        ("is the cat left of the drum?", "what color is it?", None),
        ("are there cats?", "is it an item with bits?", None),  # "cats" are several
    ],
)
def test_it_is_called_by_its_name(before, question, named):
    assert with_its_name(question, before) == named


@pytest.mark.parametrize(
    ("before", "question", "full"),
    [
        ("what do you see?", "and the yellow one?", "what is the yellow one?"),
        ("List everything in this picture.", "what about the thing on the left", "what is the thing on the left?"),
        ("what is in the image?", "and the kitten?", "where is the kitten?"),
        ("what color is the cat?", "and the yellow one?", None),
        ("what is on the left?", "and the yellow one?", None),
        ("what do you see?", "and a cat?", None),
        ("what do you see?", "where is the cat?", None),
    ],
)
def test_a_short_question_after_a_list_is_read_in_full(before, question, full):
    assert after_a_list(question, before) == full
