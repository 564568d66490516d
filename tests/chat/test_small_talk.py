"""What the model is not asked: greetings, thanks, doubt, and the bare name of a thing."""

import pytest

from blip2_lab.chat.conversation import INSTRUCTIONS
from blip2_lab.chat.small_talk import reply


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hi", "Hello!"),
        ("Hello there!", "Hello!"),
        ("good morning", "Hello!"),
        ("Thank you very much.", "You are welcome."),
        ("How are you?", "Hello!"),
        ("hi there, how are you today?", "Hello!"),
        ("thanks, you're great!", "You are welcome."),
        ("thx for your help", "You are welcome."),
        ("r u a robot?", "a small model"),
        ("what can you do?", "a small model"),
        ("So what can I ask you", "a small model"),
        ("help", "a small model"),
        ("Are you an AI", "a small model"),
        ("ok", "Ask me more"),
        ("Are you sure?", "cannot explain or check its own answer"),
        ("why?", "cannot explain or check its own answer"),
        ("No!", "cannot explain or check its own answer"),
        ("that is wrong", "may be wrong"),
        ("are you really sure about that?", "may be wrong"),
        ("Really? Count again", "may be wrong"),
        ("I don't think so", "may be wrong"),
        ("thx!! u r so smart", "Thank you"),
        ("lol you are funny", "Thank you"),
        ("You're great", "Thank you"),
        ("That's pretty cool!", "Thank you"),
        ("Thanks, that's all. You're pretty clever!", "Thank you"),
        ("ok thanks, that’s all for now", "You are welcome"),
        ("haha", "Thank you"),
        ("haha, nice", "Thank you"),
        ("good job!", "Thank you"),
        ("Good night", "You are welcome"),
        ("hola!", "Hello!"),
        ("Hi! Are you a robot?", "a small model"),
        ("say it in French", "English only"),
        ("can you speak spanish?", "English only"),
        ("make the castle blue", "cannot change the picture"),
        ("pls remove the planes", "cannot change the picture"),
        ("can you draw a dog", "cannot change the picture"),
        ("who are you?", "a small model that answers questions about pictures"),
        ("drum", "about the drum? Ask for example “where is the drum?” or “what color is the drum?”."),
        ("a large red Boat.", "about the large red boat? Ask for example “where is the large red boat?”"),
    ],
)
def test_it_is_answered_without_the_model(text, said):
    assert said in reply(text)


@pytest.mark.parametrize(
    "text",
    [
        *INSTRUCTIONS["micro"],
        *(
            "",
            "?",
            "red",
            "there",
            "a",
            "good",
            "how are you sure",
            "are you sure it is a boat?",
            "no, it is blue",
            "why do people use a cup?",
            "where is the drum?",
            "is there a cat",
            "is it evening?",
            "hi, is it day or night?",
            "thanks, and the boat?",
            "are you at the beach?",
            "a cat and a drum",
            "is it funny?",
            "is that a nice boat?",
            "did they draw a boat?",
            "make up a story",
            "make a caption",
            "is the boat in the right place?",
            "thanks. where is the boat?",
            "are you sure? is it a boat?",
            "nice",
        ),
        "a photo of a drum",
    ],
)
def test_everything_else_is_for_the_model(text):
    assert reply(text) is None
