"""Answers of several visitors in one batch: each as alone, and one visitor's trouble is no other's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from blip2_lab.chat import batching, conversation
from blip2_lab.chat.batching import Batcher
from blip2_lab.chat.conversation import Conversation, ImageCache
from blip2_lab.models.decoding import Decoding
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_bridged_model, build_tiny_model, loud

GREEDY = dict(num_beams=1, do_sample=False)
#: prompts of very different lengths, answers of different lengths, and every way of decoding
ASKED = [
    ("what is it?", Decoding(**GREEDY, max_new_tokens=9, min_new_tokens=9)),
    ("Question: what is in the picture? Short answer: a boat. Question: and?", Decoding(**GREEDY, max_new_tokens=3)),
    ("a", Decoding(**GREEDY, max_new_tokens=1)),
    ("tell a story about the red boat on the beach at night .", Decoding(do_sample=True, max_new_tokens=7)),
    ("what place is this?", Decoding(**GREEDY, max_new_tokens=6, min_new_tokens=6, repetition_penalty=1.7)),
    ("how many boats?", Decoding(num_beams=3, max_new_tokens=4)),
]


@pytest.fixture(scope="module", params=["t5", "opt", "gated-t5", "gated-resampler-opt", "linear-opt"])
def model(request):
    bridge, _, kind = request.param.rpartition("-")
    model = build_tiny_model(kind)
    loud(model)
    return build_bridged_model(bridge, model) if bridge else model


@pytest.fixture(scope="module")
def prompts(model):
    pictures = [draw(sample_scene(0, i), 48) for i in range(len(ASKED))]
    return [model.encode_image(picture) for picture in pictures]


def alone(model, prompt, asked, seed=3):
    return list(conversation.stream(model.language_model, prompt, *asked, seed=seed))


def words(tokens):
    return [token for token in tokens if not isinstance(token, int)]


def same(found, expected) -> bool:
    """Equal texts, and probabilities equal up to rounding."""
    texts = [[token.text for token in words(tokens)] for tokens in (found, expected)]
    pairs = zip(words(found), words(expected), strict=False)
    return texts[0] == texts[1] and all(a.probability == pytest.approx(b.probability, rel=1e-3) for a, b in pairs)


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_each_answer_is_what_it_is_alone(model, prompts, at_once):
    batcher = Batcher(model.language_model, at_once)
    expected = [alone(model, prompt, asked) for prompt, asked in zip(prompts, ASKED, strict=True)]
    assert len({tuple(token.text for token in words(tokens)) for tokens in expected}) > 3, "else nothing can be crossed"
    with ThreadPoolExecutor(12) as visitors:
        jobs = [
            visitors.submit(lambda i=i: list(batcher.stream(prompts[i], *ASKED[i], 3)))
            for _ in range(2)
            for i in range(len(ASKED))
        ]
        found = [job.result(timeout=120) for job in jobs]
    assert all(same(found[i], expected[i % len(ASKED)]) for i in range(len(found)))
    assert has_ended(batcher) and batcher._line == []


def begun(stream):
    """The stream, after its first token."""
    while isinstance(next(stream), int):
        pass
    return stream


def has_ended(batcher: Batcher) -> bool:
    """Does its thread end when no question waits?"""
    if (worker := batcher._worker) is not None:
        worker.join(timeout=60)
    return batcher._worker is None


def count_passes(monkeypatch, model) -> list[int]:
    """The rows of every pass over the language model, as they come."""
    rows, kind = [], type(model.language_model)
    for name in ("first_logits", "next_logits"):
        original = getattr(kind, name)

        def counted(self, first, *rest, original=original):
            rows.append(len(first))
            return original(self, first, *rest)

        monkeypatch.setattr(kind, name, counted)
    return rows


def together(batcher, prompts, asked, monkeypatch):
    """All questions stand in the line before the first is answered -> the tokens or the exception of each."""
    monkeypatch.setattr(batching, "SHORT_WAIT", 0.3)

    def ask(i):
        try:
            return list(batcher.stream(prompts[i], *asked[i], 3))
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(asked)) as visitors:
        return list(visitors.map(ask, range(len(asked))))


def test_one_pass_serves_all_and_who_has_ended_leaves_the_batch(tiny_model, monkeypatch):
    lengths, picture = (5, 2, 7), tiny_model.encode_image(draw(sample_scene(0, 0), 48))
    asked = [("what is it?", Decoding(**GREEDY, max_new_tokens=n, min_new_tokens=n)) for n in lengths]
    rows = count_passes(monkeypatch, tiny_model)
    found = together(Batcher(tiny_model.language_model), [picture] * 3, asked, monkeypatch)
    assert [len(words(tokens)) for tokens in found] == list(lengths)
    # T5's first pass asks `next_logits` for the start token: it is counted twice
    assert rows[:2] == [3, 3] and rows[2:] == [3, 2, 2, 2, 1, 1]
    rows.clear()
    together(Batcher(tiny_model.language_model, 1), [picture] * 3, asked, monkeypatch)
    assert set(rows) == {1}


def test_an_error_reaches_only_the_question_that_causes_it(model, prompts, monkeypatch):
    """In the first pass, in a later one, and before the line; the others get their whole answers, no token twice."""
    asked = [(prompt, Decoding(**GREEDY, max_new_tokens=6, min_new_tokens=6)) for prompt, _ in ASKED[:4]]
    expected = [alone(model, prompts[i], asked[i]) for i in range(4)]
    kind = type(model.language_model)
    for name, later in (("first_logits", 0), ("next_logits", 3)):
        with monkeypatch.context() as patch:
            original, passes = getattr(kind, name), []

            def failing(self, first, second, original=original, passes=passes, later=later):
                passes.append(len(first))
                if len(first) > 1 and len(passes) > later:
                    raise RuntimeError("out of memory")
                return original(self, first, second)

            patch.setattr(kind, name, failing)
            found = together(Batcher(model.language_model), prompts, asked, patch)
            assert any(size > 1 for size in passes) and all(map(same, found, expected))
    broken = [*prompts[:2], prompts[2][..., :-1], prompts[3]]  # a visual prompt of another width is a batch of its own
    found = together(Batcher(model.language_model), broken, asked, monkeypatch)
    assert isinstance(found[2], RuntimeError) and all(same(found[i], expected[i]) for i in (0, 1, 3))
    long = [("boat " * 900, asked[0][1]), *asked[1:]]
    found = together(Batcher(model.language_model), prompts, long, monkeypatch)
    assert isinstance(found[0], ValueError) and "tokens together" in str(found[0])
    assert all(same(found[i], expected[i]) for i in (1, 2, 3))


def test_who_goes_away_is_dropped_and_the_others_are_not(tiny_model, monkeypatch):
    picture = tiny_model.encode_image(draw(sample_scene(0, 0), 48))
    long = Decoding(**GREEDY, max_new_tokens=120, min_new_tokens=120)
    rows, batcher = count_passes(monkeypatch, tiny_model), Batcher(tiny_model.language_model)
    leaving = begun(batcher.stream(picture, "what is it?", long, None))
    asked = "what is it?", Decoding(**GREEDY, max_new_tokens=60, min_new_tokens=60), None
    staying = begun(batcher.stream(picture, *asked))
    leaving.close()
    assert len(words(staying)) == 59
    assert has_ended(batcher) and len(rows) < 120 + 60 + 4, "an answer is not computed after its visitor has left"


def test_a_short_question_does_not_wait_for_a_long_answer(tiny_model):
    picture = tiny_model.encode_image(draw(sample_scene(0, 0), 48))
    batcher = Batcher(tiny_model.language_model)
    asked = "tell a story", Decoding(**GREEDY, max_new_tokens=150, min_new_tokens=150), None
    long = begun(batcher.stream(picture, *asked))
    list(batcher.stream(picture, "what is it?", Decoding(**GREEDY, max_new_tokens=2), None))
    assert batcher._worker is not None, "the long answer is still computed"
    assert len(words(long)) == 149


def test_who_waits_for_a_turn_can_go_before_it(tiny_model, monkeypatch):
    monkeypatch.setattr(batching, "HEARTBEAT", 0.02)
    picture = tiny_model.encode_image(draw(sample_scene(0, 0), 48))
    batcher, long = Batcher(tiny_model.language_model, 1), Decoding(**GREEDY, max_new_tokens=150, min_new_tokens=150)
    first = begun(batcher.stream(picture, "tell a story", long, None))
    second = batcher.stream(picture, "what is it?", long, None)
    assert next(second) == 0, "it waits, and a caller can stop it"
    second.close()
    assert len(words(first)) == 149 and has_ended(batcher) and batcher._line == []


def test_a_fault_of_the_worker_is_told_and_the_next_question_is_served(tiny_model, monkeypatch):
    picture = tiny_model.encode_image(draw(sample_scene(0, 0), 48))
    batcher, decoding = Batcher(tiny_model.language_model), Decoding(**GREEDY, max_new_tokens=3)
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_take", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(batcher.stream(picture, "what is it?", decoding, None))
    assert list(batcher.stream(picture, "what is it?", decoding, None))


def test_sampling_with_a_seed_repeats_itself_beside_other_visitors(tiny_model):
    encoded = ImageCache(tiny_model).encode(draw(sample_scene(0, 0), 48))
    batcher, decoding = Batcher(tiny_model.language_model), Decoding(do_sample=True, max_new_tokens=12)

    def ask(seed):
        talk = Conversation(tiny_model, encoded, streaming=batcher.stream)
        return list(talk.ask("what is in the picture?", decoding, seed=seed))[-1].text

    expected = [list(Conversation(tiny_model, encoded).ask("what is in the picture?", decoding, seed=s))[-1].text
                for s in range(4)]  # fmt: skip
    with ThreadPoolExecutor(4) as visitors:
        assert list(visitors.map(ask, range(4))) == expected and len(set(expected)) > 1
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    ask(1)
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator is not used"
