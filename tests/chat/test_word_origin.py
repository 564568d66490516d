"""What the app's panel shows: the words of the last answer, where one came from, who matched; beside the chat."""

from __future__ import annotations

import json
import threading

import pytest

from blip2_lab.chat import word_origin
from blip2_lab.chat.conversation import Conversation, ImageCache, Turn
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene


@pytest.fixture(scope="module")
def image():
    return draw(sample_scene(7, 2, "in"), 96)


@pytest.fixture(scope="module")
def encoded(tiny_model, image):
    return ImageCache(tiny_model).encode(image)


def test_the_words_are_those_of_the_last_answer(tiny_model, encoded):
    turns = [Turn("what is it?", "boat"), Turn("what color is it?", "red and blue")]
    assert word_origin.words_of(tiny_model, encoded, turns) == ["red", "and", "blue"]
    assert (
        word_origin.words_of(tiny_model, encoded, [])
        == word_origin.words_of(tiny_model, encoded, [Turn("what is it?", " ")])
        == []
    )
    prompt = word_origin.last_prompt(tiny_model, encoded, turns)
    assert prompt == Conversation(tiny_model, encoded, turns[:1]).prompt("what color is it?")


@pytest.mark.parametrize("method", ["gradient", "layer"])
def test_a_word_has_a_place_queries_and_the_probability_the_chat_showed(tiny_model, encoded, image, method):
    talk = Conversation(tiny_model, encoded)
    *_, reply = talk.ask("what is in the picture?", Decoding(num_beams=1, max_new_tokens=4, min_new_tokens=4))
    words = word_origin.words_of(tiny_model, encoded, talk.turns)
    if len(words) != len(reply.words):
        pytest.skip("random weights wrote a word that reads back as several")
    found = word_origin.origin(tiny_model, encoded, image, talk.turns, 1, method)
    assert found.word == words[1] and found.picture.size == (word_origin.SIZE, word_origin.SIZE)
    assert found.probability == pytest.approx(reply.words[1].probability, rel=1e-3)
    assert len(found.rows) == 8
    shares = [float(note.split(": ")[1].rstrip("%")) for _, note in found.rows]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=5)


def test_the_probability_is_that_of_the_model_that_read_the_question(asking_model, image):
    encoded = ImageCache(asking_model).encode(image)
    talk = Conversation(asking_model, encoded)
    *_, reply = talk.ask("what is in the picture?", Decoding(num_beams=1, max_new_tokens=1, min_new_tokens=1))
    found = word_origin.origin(asking_model, encoded, image, talk.turns, 0)
    assert found.probability == pytest.approx(reply.words[0].probability, rel=1e-3)


def test_mistakes_get_a_sentence(tiny_model, encoded, image):
    with pytest.raises(ValueError, match="no answer yet"):
        word_origin.origin(tiny_model, encoded, image, [], 0)
    with pytest.raises(ValueError, match="has 1 words; there is no word number 5"):
        word_origin.origin(tiny_model, encoded, image, [Turn("what is it?", "boat")], 5)


def test_matches_are_those_of_the_meter(tiny_model, encoded):
    cosines, verdicts = word_origin.matches(tiny_model, encoded, "a red boat.")
    match = Conversation(tiny_model, encoded).match("a red boat.")
    assert cosines.shape == verdicts.shape == (8,)
    assert cosines.max().item() == pytest.approx(match.itc, abs=1e-5)
    assert verdicts.mean().sigmoid().item() == pytest.approx(match.itm, abs=1e-5)


def test_the_method_is_the_measured_one(tiny_model, tmp_path):
    assert word_origin.method_of(tiny_model, str(tmp_path)) == word_origin.QUICK
    for said, used in (("layer", "layer"), ("no such method", word_origin.QUICK)):
        (tmp_path / "grounding.json").write_text(json.dumps({"recommended": said}))
        assert word_origin.method_of(tiny_model, str(tmp_path)) == used


def test_the_chat_goes_on_while_somebody_looks_inside(tiny_model, encoded, image):
    """An answer streams in one thread while words are explained in another: both come out as alone."""
    decoding = Decoding(num_beams=1, max_new_tokens=12, min_new_tokens=12)
    *_, alone = Conversation(tiny_model, encoded).ask("what is in the picture?", decoding)
    turns = [Turn("what is it?", "a red boat")]
    expected = word_origin.origin(tiny_model, encoded, image, turns, 1).rows
    answers, maps = [], []

    def chat():
        for _ in range(3):
            *_, reply = Conversation(tiny_model, encoded).ask("what is in the picture?", decoding)
            answers.append(reply)

    def look():
        maps.extend(word_origin.origin(tiny_model, encoded, image, turns, 1).rows for _ in range(3))

    threads = [threading.Thread(target=task) for task in (chat, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(maps) == 3
    assert all(reply.text == alone.text for reply in answers)
    assert all([note for _, note in found] == [note for _, note in expected] for found in maps)
