"""The evaluation measures what it says: oracles score 1, the ignorant score what they should."""

from random import Random
from types import SimpleNamespace

import pytest
import torch

from blip2_lab import evaluate
from blip2_lab.decoding import Decoding
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import Scene, Thing, sample_scene

BOOK = [sample_scene(3, index, "in") for index in range(12)]


class Reader:
    """A language model that reads its visual prompt: the number of a scene. `knows` answers from scene and prompt."""

    question_prompt = "Question: {} Short answer:"

    def __init__(self, knows):
        self.knows = knows

    def generate(self, visual_prompt, prompts, decoding):
        numbers = [int(row.flatten()[0]) if row.numel() else None for row in visual_prompt]
        return [self.knows(number, prompt) for number, prompt in zip(numbers, prompts, strict=True)]


class Model:
    def __init__(self, knows):
        self.language_model = Reader(knows)


NUMBERED = torch.arange(len(BOOK)).float()[:, None, None]


def answers():
    asked = evaluate.questions(BOOK, seed=3)
    return {(number, Reader.question_prompt.format(q.text)): q.answer for number, q, _ in asked}, asked


def test_an_oracle_answers_everything_and_a_shuffled_one_little():
    truth, asked = answers()
    model = Model(lambda number, prompt: truth.get((number, prompt), "") + ".")
    scores = evaluate.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=7)
    assert scores["total"] == scores["knowledge"] == 1.0
    assert scores["total_count"] + scores["knowledge_count"] == len(asked)
    shuffled = evaluate.question_accuracy(model, NUMBERED.roll(1, 0), asked, Decoding(num_beams=1), batch_size=7)
    assert shuffled["total"] < 0.5


def test_totals_are_over_questions_and_knowledge_is_apart():
    truth, asked = answers()
    colors = {Reader.question_prompt.format(q.text) for _, q, _ in asked if q.type == "color"}
    model = Model(lambda number, prompt: truth[number, prompt] if prompt in colors else "no idea")
    scores = evaluate.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=50)
    visual = [q for _, q, _ in asked if q.type in words.VISUAL_QUESTIONS]
    assert scores["color"] == 1.0 and scores["knowledge"] == 0.0
    assert scores["total"] == pytest.approx(sum(q.type == "color" for q in visual) / len(visual))


def test_captions_are_read_for_kinds_colors_places_and_times():
    scene = Scene((Thing("boat", "red", "small", 0.5, 0.5), Thing("fish", "blue", "large", 0.2, 0.2)), "beach", "night")
    true = evaluate.truly_there(scene)
    caption = "two red boats and a fish, on the beach at night."
    assert evaluate.named(caption, evaluate.KIND_WORDS) == true["kinds"] == {"boat", "fish"}
    assert evaluate.named(caption, evaluate.NAMED["colors"]) == {"red"}
    assert evaluate.named(caption, evaluate.NAMED["places"]) == true["places"] == {"beach"}
    assert evaluate.named(caption, evaluate.NAMED["times"]) == true["times"] == {"night"}
    assert evaluate.named("a boatman dreams of redwood", evaluate.KIND_WORDS) == set()


def test_true_full_captions_score_one_and_an_empty_caption_scores_zero():
    full = Model(lambda number, _: words.full_caption(BOOK[number], Random(0)))
    scores = evaluate.caption_scores(full, NUMBERED, BOOK, batch_size=5)
    assert scores == {"kinds_f1": 1.0, "colors_f1": 1.0, "places_f1": 1.0, "times_f1": 1.0}
    silent = Model(lambda *_: "")
    assert set(evaluate.caption_scores(silent, NUMBERED, BOOK, batch_size=5).values()) == {0.0}


def test_one_scene_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2"):
        evaluate.evaluate(Model(lambda *_: ""), scenes=1)


# retrieval and matching


def test_mined_negatives_are_wrong_alike_and_the_same_again():
    similarity = torch.full((4, 4), -50.0)
    similarity[0, 2] = similarity[1, 3] = similarity[2, 0] = similarity[3, 1] = 0.0  # one tempting text each
    similarity += 100.0 * torch.eye(4)  # the true pairs fit best, and are never chosen
    numbers = torch.tensor([40, 41, 42, 43])
    wrong_text, wrong_image = evaluate.mine(similarity, numbers, seed=0)
    assert wrong_text.tolist() == [42, 43, 40, 41] == wrong_image.tolist()
    flat = torch.zeros(64, 64)
    text, image = evaluate.mine(flat, torch.arange(64), seed=3)
    assert (
        not (text == torch.arange(64)).any() and not (image == torch.arange(64)).any() and len(set(text.tolist())) > 20
    )
    assert torch.equal(text, evaluate.mine(flat, torch.arange(64), seed=3)[0])


@pytest.mark.parametrize("count", [2, 63, 65, 97, 1000])
def test_no_batch_to_mine_in_is_left_with_a_single_pair(count):
    batches = evaluate._batches(torch.arange(count))
    assert torch.equal(torch.cat(batches), torch.arange(count))
    assert all(min(count, 32) <= len(batch) <= 96 for batch in batches)


class Judge:
    """Says "match" for the pairs (image, text) in `yes`, of a gallery whose images and texts are their own numbers."""

    temperature = 1.0

    def __init__(self, yes: set[tuple[int, int]]) -> None:
        self.yes = yes

    def itm_logits(self, memory: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        said = [(i, t) in self.yes for i, t in zip(memory.tolist(), input_ids.tolist(), strict=True)]
        return torch.tensor([[0.0, 1.0] if yes else [1.0, 0.0] for yes in said])


def test_itm_is_asked_about_the_very_pairs():
    gallery = SimpleNamespace(memory=SimpleNamespace(select=lambda index: index + 10))
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])
    ids = torch.tensor([5, 6, 7])
    matched = evaluate.itm_says_match(Judge({(10, 5), (12, 7), (11, 6)}), gallery, pairs, ids, ids, batch_size=3)
    assert matched.tolist() == [True, False, False, True]
