"""Prompts, conversations, streaming and stopping, with a model of random weights: what it says does not matter here."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from blip2_lab.chat import conversation
from blip2_lab.chat.conversation import Conversation, ImageCache, Turn, is_question, question_mark, stream
from blip2_lab.chat.vocabulary import UnknownWords, unknown_words
from blip2_lab.evaluation.calibration import Calibration
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

SHORT = Decoding(num_beams=1, max_new_tokens=4, min_new_tokens=4)


@pytest.fixture
def image():
    return draw(sample_scene(7, 3))


@pytest.fixture
def talk(tiny_model, image):
    return Conversation.about(tiny_model, image)


# ----------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("model", ["micro", None])
def test_what_is_no_model_is_told(model, image):
    with pytest.raises(ValueError, match="needs a model that answers, as blip2_lab.load gives one"):
        Conversation.about(model, image)


def test_settings_of_another_type_are_told(tiny_model, image):
    with pytest.raises(ValueError, match="it must be a Decoding, such as"):
        list(Conversation.about(tiny_model, image).ask("what is it?", {"num_beams": 1}))


def test_a_question_takes_the_form_of_its_language_model(tiny_model, tiny_decoder_model, image):
    question = "what color is the boat?"
    assert Conversation.about(tiny_model, image).prompt(question) == f"Question: {question} Short answer:"
    assert Conversation.about(tiny_decoder_model, image).prompt(question) == f"Question: {question} Answer:"


@pytest.mark.parametrize("text", ["what color is it", "Is this a cat?", "  how many", "a boat?", "'what' is it"])
def test_questions_are_known_with_and_without_their_mark(text):
    assert is_question(text)


@pytest.mark.parametrize("text", ["Describe the picture.", "a picture of", "Question: what is it? Short answer:", "!"])
def test_instructions_and_ready_made_prompts_go_as_they_are(talk, text):
    assert not is_question(text)
    talk.turns.append(Turn("what is it?", "boat"))
    if text != "!":
        assert talk.prompt(text) == text


def test_one_question_mark_is_enough():
    for text in ("what is it", "what is it??", "what is it . "):
        assert question_mark(text) == "what is it?"


def test_it_means_the_thing_named_last(talk, monkeypatch):
    monkeypatch.setattr(conversation, "MICRO_HISTORY", "named")
    talk.turns += [Turn("what is the red thing", "a boat."), Turn("Tell a story.", "once upon a time")]
    talk.turns += [Turn("is it large?", "yes"), Turn("how many things are there?", "two"), Turn("what is it?", "")]
    talk.turns += [Turn("is it night?", "no"), Turn("was the picture made at night?", "no")]  # name no thing
    expected = "Question: what is the red thing? Short answer: a boat. Question: what is it used for? Short answer:"
    assert talk.prompt("what is it used for?") == expected
    for alone in ("what color is the cat?", "is it dark?", "what place is this?", "is this on a beach?"):
        assert talk.prompt(alone) == f"Question: {alone} Short answer:"
    talk.turns += [Turn("is there a boat on the beach?", "yes")]  # names a place, and a thing
    assert talk.prompt("is it red?") == "Question: is the boat red? Short answer:"
    talk.turns += [Turn("is the boat beside the cat?", "yes")]  # two things
    assert talk.prompt("is it red?").startswith("Question: is the boat beside the cat? Short answer: yes.")


def test_a_short_question_asks_what_was_asked_before(talk, monkeypatch):
    monkeypatch.setattr(conversation, "MICRO_HISTORY", "named")
    before = "Question: what color is the boat? Short answer: red."
    talk.turns += [Turn("what color is the boat?", "red")]
    for short in ("and the cat?", "And what about the cat", "what about the large cat on the left?", "and any cats?"):
        assert is_question(short)
        assert talk.prompt(short) == f"{before} Question: {question_mark(short)} Short answer:"
    talk.turns += [Turn("and the cat?", "gray"), Turn("is it large?", "yes")]
    assert talk.prompt("and the bird?").startswith(f"{before} Question: and the bird?")
    assert "boat" not in talk.prompt("and is there a bird?"), "this is a whole question"
    assert not is_question("and describe everything that you can see in the picture with all of its colors")


@pytest.mark.parametrize("kind", ["real", "micro"])
def test_the_whole_conversation_capped(talk, monkeypatch, kind):
    """Real weights get it, and a miniature that was taught unrelated follow-up questions."""
    if kind == "real":
        monkeypatch.setattr(conversation, "knows_whole_words_only", lambda tokenizer: False)
    else:
        monkeypatch.setattr(conversation, "MICRO_HISTORY", "all")
    talk.history_turns = 2
    talk.turns += [Turn(f"where is the {kind}?", "left.") for kind in ("boat", "cat", "house")]
    prompt = talk.prompt("why?")
    assert prompt == (
        "Question: where is the cat? Short answer: left. Question: where is the house? Short answer: left. "
        "Question: why? Short answer:"
    )
    talk.turns[-2] = Turn("where is the cat?", "left " * conversation.HISTORY_TOKENS)
    assert "cat" not in talk.prompt("why?") and "house" in talk.prompt("why?")
    talk.history_turns = 0
    assert talk.prompt("why?") == "Question: why? Short answer:"


@pytest.mark.parametrize("text", ["", "   ", "\n", "?", " . "])
def test_an_empty_question_is_refused_in_one_sentence(talk, text):
    with pytest.raises(ValueError, match="no question yet"):
        talk.ask(text)
    assert talk.turns == []


def test_a_very_long_question_is_refused_in_one_sentence(talk):
    with pytest.raises(ValueError, match="12,000 characters.*2,000"):
        talk.ask("boat cat " * 1333 + "cat")


def test_a_misspelled_word_is_read_as_the_nearest_and_the_visitor_is_told(talk):
    replies = list(talk.ask("is there a hoouse?", SHORT))
    assert replies[-1].prompt == "Question: is there a house? Short answer:"
    assert {reply.note for reply in replies} == {'I read "hoouse" as "house".'}
    assert talk.turns[-1].question == "is there a hoouse?" and talk.turns[-1].note == replies[-1].note
    assert talk.prompt("what color is it?") == "Question: what color is the house? Short answer:", "and in what follows"


def test_an_unknown_word_is_named_and_the_rest_is_asked(talk, tiny_model):
    assert unknown_words(tiny_model.language_model.tokenizer, "is there a Red BOAT, or a blicket?") == ["blicket"]
    assert list(talk.ask("is there a red boat or a blicket?", SHORT))[-1].note == 'I do not know the word "blicket".'


def test_a_text_of_unknown_words_is_refused_with_what_can_be_asked(talk):
    with pytest.raises(UnknownWords, match='do not know the words "quorx", "blicket".*what is in the picture'):
        talk.ask("quorx is blicket?")
    assert talk.turns == [], "a refused question is no turn"


def test_a_greeting_is_answered_without_the_model(talk):
    (only,) = talk.ask("Hi!")
    assert only.text.startswith("Hello! Ask me about the picture") and only.words == () and only.done
    assert talk.turns == [Turn("Hi!", only.text, by_model=False)]


def test_two_questions_in_one_are_two_turns_and_the_replies_tell_both_answers(talk):
    one, two = (
        list(Conversation(talk.model, talk.encoded).ask(text, SHORT))[-1] for text in ("is it day?", "is it dark?")
    )
    replies = list(talk.ask("is it day? and is it dark?", SHORT))
    assert [turn.question for turn in talk.turns] == ["is it day", "is it dark?"]
    assert [turn.answer for turn in talk.turns] == [one.text, two.text]
    assert (
        replies[-1].text == f"{one.text}; {two.text}"
        and " ".join(w.text.strip() for w in replies[-1].words) == replies[-1].text
    )
    assert [w.probability for w in replies[-1].words] == [w.probability for w in one.words + two.words]
    assert [reply.done for reply in replies] == [False] * (len(replies) - 1) + [True]


def test_the_parts_of_a_question_are_told(talk):
    *_, reply = talk.ask("is there a cat on the street?", SHORT)
    assert reply.note == "I asked: “is there a cat?”, “is this on the street?”."
    assert [turn.question for turn in talk.turns] == ["is there a cat?", "is this on the street?"]


def test_none_of_two_questions_is_answered_where_one_cannot_be_read(talk):
    with pytest.raises(UnknownWords):
        talk.ask("is it day? and where is quorx", SHORT)
    assert talk.turns == []


def test_a_short_question_stands_in_full_in_what_the_model_reads(talk):
    list(talk.ask("boat color", SHORT))
    assert talk.prompt("where?") == "Question: where is the boat? Short answer:"
    assert talk.turns[0].question == "boat color", "what was typed is shown"


def test_an_answer_that_is_mostly_wrong_at_its_confidence_is_unsure(tiny_model, image):
    for offset, unsure in ((-50.0, True), (50.0, False)):
        talk = Conversation.about(tiny_model, image, Calibration(0.0, offset))
        *growing, last = talk.ask("what color is the boat?", SHORT)
        assert last.unsure is unsure and talk.turns[-1].unsure is unsure
        assert not any(reply.unsure for reply in growing), "it is known at the end"
        assert not list(talk.ask("Describe the picture.", SHORT))[-1].unsure, "the calibration is one of questions"
    assert not list(Conversation.about(tiny_model, image).ask("what is it?", SHORT))[-1].unsure, "never measured"


def test_what_the_lab_said_is_no_history(talk):
    talk.turns = [Turn("what is a zebra?", "I do not know the word", by_model=False)]
    assert talk.prompt("what color is it?") == "Question: what color is it? Short answer:"


def test_an_answer_is_stopped_until_it_has_ended(talk):
    replies = talk.ask("what color is the boat?", SHORT)
    next(replies)
    assert talk.turns[-1].stopped
    list(replies)
    assert not talk.turns[-1].stopped


def test_every_one_click_instruction_of_the_micro_model_is_in_its_vocabulary(tiny_model):
    for text in conversation.INSTRUCTIONS["micro"]:
        assert unknown_words(tiny_model.language_model.tokenizer, text) == [], text


# --------------------------------------------------------------------------------------------------------- streaming


def test_the_streamed_answer_is_the_generated_one(talk, tiny_model, image):
    replies = list(talk.ask("what color is the boat?", SHORT))
    texts = [reply.text for reply in replies]
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert [reply.done for reply in replies] == [False] * 4 + [True]
    prompt = "Question: what color is the boat? Short answer:"
    settings = dict(num_beams=1, max_new_tokens=4, min_new_tokens=4)
    assert texts[-1] == tiny_model.generate(image, prompt, **settings)
    assert talk.turns == [Turn("what color is the boat?", texts[-1])]


def test_beam_search_streams_heartbeats_and_then_the_same_words(tiny_model, talk, image):
    settings = dict(num_beams=3, max_new_tokens=5, min_new_tokens=2, length_penalty=-1.0)
    *_, last = talk.ask("is there a cat?", Decoding(**settings))
    assert last.text == tiny_model.generate(image, "Question: is there a cat? Short answer:", **settings)
    assert last.searched == 0
    assert len(last.words) == len(last.text.split())


def test_each_word_has_the_models_own_probability(talk, tiny_model):
    *_, last = talk.ask("what is it?", SHORT)
    model = tiny_model.language_model
    ids = model.tokenizer(last.text, add_special_tokens=False)["input_ids"]
    expected = model.probabilities(talk.encoded.visual_prompt, model.prompt_texts([last.prompt]), ids)
    torch.testing.assert_close([w.probability for w in last.words], expected, rtol=1e-4, atol=1e-6)


def test_the_seed_repeats_a_sampled_answer(talk):
    sampled = Decoding(do_sample=True, num_beams=1, top_p=1.0, max_new_tokens=6, min_new_tokens=6)

    def answer(seed: int) -> str:
        talk.turns.clear()
        return list(talk.ask("what is it?", sampled, seed=seed))[-1].text

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_closing_the_stream_stops_the_model_within_a_token(tiny_model, talk, monkeypatch):
    calls = []
    step = type(tiny_model.language_model).next_logits
    monkeypatch.setattr(
        type(tiny_model.language_model), "next_logits", lambda *a, **k: (calls.append(1), step(*a, **k))[1]
    )
    replies = talk.ask("what is it?", Decoding(num_beams=1, max_new_tokens=200, min_new_tokens=200))
    next(replies), next(replies)
    replies.close()
    assert len(calls) <= 3
    assert talk.turns[-1].answer, "what was said before the stop stays"


def test_closing_the_stream_stops_beam_search(tiny_model, talk):
    before = threading.active_count()
    long = Decoding(num_beams=4, max_new_tokens=400, min_new_tokens=400)
    steps = []
    original = tiny_model.language_model.generate_ids

    def counted(*arguments, stop, **options):
        def asked() -> bool:
            steps.append(1)
            return stop()

        return original(*arguments, stop=asked, **options)

    tiny_model.language_model.generate_ids = counted
    try:
        tokens = stream(tiny_model.language_model, talk.encoded.visual_prompt, "Tell a story.", long, heartbeat=0.01)
        assert isinstance(next(tokens), int)
        tokens.close()
    finally:
        del tiny_model.language_model.generate_ids
    assert len(steps) < 400, "the search went on to its end"
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_an_error_in_the_background_reaches_the_listener(talk):
    too_long = Decoding(num_beams=2, max_new_tokens=600)
    with pytest.raises(ValueError, match="shorten the prompt"):
        list(talk.ask("what is it?", too_long))


# -------------------------------------------------------------------------------------------------- pictures, matches


def test_a_picture_is_encoded_once(tiny_model, image, monkeypatch):
    reads = []
    forward = tiny_model.image_encoder.forward
    monkeypatch.setattr(tiny_model.image_encoder, "forward", lambda pixels: (reads.append(1), forward(pixels))[1])
    image_cache = ImageCache(tiny_model, capacity=2)
    first = image_cache.encode(image)
    assert image_cache.encode(image.copy()) is first and len(reads) == 1
    for index in (4, 5):
        image_cache.encode(draw(sample_scene(7, index)))
    assert len(reads) == 3
    image_cache.encode(image)
    assert len(reads) == 4, "the oldest picture was forgotten"


def test_the_match_meter_agrees_with_stage_1(talk, tiny_model):
    match = talk.match("a red boat.")
    stage1 = tiny_model.stage1
    ids, mask = stage1.tokenize(["a red boat."])
    with torch.no_grad():
        image_embeds = stage1.embed_image(talk.encoded.image_features)
        itc = (image_embeds @ stage1.embed_text(ids, mask)[0]).max().item()
        logits = stage1.itm_logits(stage1.qformer.read_image(talk.encoded.image_features), ids, mask)
    assert match.itc == pytest.approx(itc, abs=1e-5)
    assert match.itm == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)
    assert -1 <= match.itc <= 1 and 0 <= match.itm <= 1


def test_the_match_meter_needs_stage_1_and_known_words(talk, tiny_model):
    with pytest.raises(ValueError, match='"quorx"'):
        talk.match("a quorx.")
    stage1 = tiny_model.stage1
    tiny_model.attach_stage1(None)
    try:
        with pytest.raises(ValueError, match="without stage 1"):
            talk.match("a red boat.")
    finally:
        tiny_model.attach_stage1(stage1)
