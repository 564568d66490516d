"""The evaluation against oracles: a perfect model scores 1, a model without the image scores chance."""

import json
from collections import Counter
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import torch

from blip2_lab.chat import conversation
from blip2_lab.checkpoints.load import MICRO
from blip2_lab.evaluation import natural, scenes
from blip2_lab.evaluation.natural import Asker
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import EncoderDecoderLanguageModel
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import Scene, Thing, sample_scene
from tests.picturebook.test_words import described, tidy

BOOK = [sample_scene(3, index, "in") for index in range(12)]


class Reader:
    """A language model that reads its visual prompt: the number of a scene. `knows` answers from scene and prompt."""

    question_prompt = "Question: {} Short answer:"
    tokenizer = None

    def __init__(self, knows):
        self.knows = knows

    def generate(self, visual_prompt, prompts, decoding):
        numbers = [int(row.flatten()[0]) if row.numel() else None for row in visual_prompt]
        return [self.knows(number, prompt) for number, prompt in zip(numbers, prompts, strict=True)]

    def generate_with_probability(self, visual_prompt, prompts, decoding):
        return [(text, 0.9) for text in self.generate(visual_prompt, prompts, decoding)]


class Model:
    reads_questions = False

    def __init__(self, knows):
        self.language_model = Reader(knows)


NUMBERED = torch.arange(len(BOOK)).float()[:, None, None]


def answers():
    asked = scenes.questions(BOOK, seed=3)
    return {(number, Reader.question_prompt.format(q.text)): q.answer for number, q, _ in asked}, asked


def test_an_oracle_scores_one_and_a_shuffled_one_little():
    truth, asked = answers()
    model = Model(lambda number, prompt: truth.get((number, prompt), "") + ".")
    scores = scenes.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=7)
    assert scores["total"] == scores["knowledge"] == 1.0
    assert scores["total_count"] + scores["knowledge_count"] == len(asked)
    shuffled = scenes.question_accuracy(model, NUMBERED.roll(1, 0), asked, Decoding(num_beams=1), batch_size=7)
    assert shuffled["total"] < 0.5


def test_totals_are_over_visual_questions_and_knowledge_is_separate():
    truth, asked = answers()
    colors = {Reader.question_prompt.format(q.text) for _, q, _ in asked if q.type == "color"}
    model = Model(lambda number, prompt: truth[number, prompt] if prompt in colors else "no idea")
    scores = scenes.question_accuracy(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=50)
    hits = scenes.question_hits(model, NUMBERED, asked, Decoding(num_beams=1), batch_size=7)
    assert hits == [Reader.question_prompt.format(q.text) in colors for _, q, _ in asked], "in the order asked"
    visual = [q for _, q, _ in asked if q.type in words.VISUAL_QUESTIONS]
    assert scores["color"] == 1.0 and scores["knowledge"] == 0.0
    assert scores["total"] == pytest.approx(sum(q.type == "color" for q in visual) / len(visual))


def test_values_named_in_captions():
    scene = Scene((Thing("boat", "red", "small", 0.5, 0.5), Thing("fish", "blue", "large", 0.2, 0.2)), "beach", "night")
    true = scenes.scene_values(scene)
    caption = "two red boats and a fish, on the beach at night."
    assert scenes.named_values(caption, scenes.KIND_WORDS) == true["kinds"] == {"boat", "fish"}
    assert scenes.named_values(caption, scenes.NAMED["colors"]) == {"red"}
    assert scenes.named_values(caption, scenes.NAMED["places"]) == true["places"] == {"beach"}
    assert scenes.named_values(caption, scenes.NAMED["times"]) == true["times"] == {"night"}
    assert scenes.named_values("a boatman dreams of redwood", scenes.KIND_WORDS) == set()


def test_true_full_captions_score_one_and_an_empty_caption_scores_zero():
    full = Model(lambda number, _: words.full_caption(BOOK[number], Random(0)))
    scores = scenes.caption_scores(full, NUMBERED, BOOK, batch_size=5)
    assert scores.pop("repeated") == 0.0
    assert len(scores) == 4 * 5 and set(scores.values()) == {1.0}
    silent = Model(lambda *_: "")
    assert set(scenes.caption_scores(silent, NUMBERED, BOOK, batch_size=5).values()) == {0.0}


def test_a_thing_told_twice_is_counted_and_two_things_alike_are_not():
    thing = Thing("boat", "red", "large", 0.2, 0.2)
    two = Scene((thing, replace(thing, x=0.8), replace(thing, kind="cat", y=0.8)), "beach", "day")
    for true in (
        "two red boats and a cat.",
        "a red boat at the top, a red boat and a large cat",
        "a boat",
        "a boat, a dog, a tree",
    ):
        assert not scenes.tells_twice(true, two), true
    for twice in (
        "two boats and a red boat",
        "a cat, a boat and a cat.",
        "a boat, a boat, a boat",
        "two large red cats",
    ):
        assert scenes.tells_twice(twice, two), twice
    assert not scenes.tells_twice("two trees, a tree", two), "it tells what is not there, which precision counts"


def test_one_scene_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least 2"):
        scenes.evaluate(Model(lambda *_: ""), scenes=1)


class Numbering:
    """An image encoder that sees the number of a picture, counted from 0."""

    image_size, seen = 16, 0

    def preprocess(self, pictures):
        self.seen += len(pictures)
        return torch.arange(self.seen - len(pictures), self.seen).float()[:, None, None]

    def __call__(self, pixels):
        return pixels


class Describer(Reader, EncoderDecoderLanguageModel):
    """A Reader of the kind that is asked about descriptions, too."""

    def __init__(self, knows):
        torch.nn.Module.__init__(self)
        Reader.__init__(self, knows)


@pytest.mark.parametrize("kind", [Reader, Describer])
def test_every_condition_uses_its_visual_prompts(kind):
    """An oracle that reads the number of the scene, and nothing else but a description in front of the question."""
    truth = {(number, Reader.question_prompt.format(q.text)): q.answer for number, q, _ in scenes.questions(BOOK, 3)}
    seen = Counter()

    def knows(number, prompt):
        seen["captions" if prompt == scenes.CAPTION_PROMPT else "questions", number] += 1
        if number is None and "Question" in prompt:
            description, _, question = prompt.partition("Question")
            told = [i for i, scene in enumerate(BOOK) if description and described(description.strip()) == tidy(scene)]
            return truth.get((*told, f"Question{question}"), "")
        if number is None:
            return ""
        return truth.get((number, prompt), words.full_caption(BOOK[number], Random(0)))

    model = Model(knows)
    model.language_model = kind(knows)
    model.image_encoder, model.visual_prompt, model.stage1 = Numbering(), lambda features: features, None
    asker = Asker(conversation.first_prompt, conversation.ANSWERING)
    report = scenes.evaluate(model, scenes=len(BOOK), seed=3, batch_size=5, asker=asker)
    asked, captions = report["questions"], report["captions"]
    assert asked["picture"]["total"] == asked["picture"]["knowledge"] == captions["picture"]["kinds_f1"] == 1.0
    assert asked["no_picture"]["total"] == captions["no_picture"]["kinds_f1"] == 0.0
    assert asked["shuffled_picture"]["total"] < 0.5 and captions["shuffled_picture"]["kinds_f1"] < 0.7
    assert [seen["captions", number] for number in range(len(BOOK))] == [2] * len(BOOK), (
        "each picture, and once in another's place"
    )
    assert seen["captions", None] == len(BOOK)
    if kind is Describer:
        assert asked["description"]["total"] == asked["description"]["knowledge"] == 1.0
    assert ("description" in asked) == (kind is Describer) and "retrieval" not in report
    natural = report["natural"]
    assert list(natural) == ["picture", "no_picture", "shuffled_picture"]
    assert natural["picture"]["groups"]["list"]["right"] == 1.0, "a full caption is a list"
    assert natural["shuffled_picture"]["groups"]["list"]["right"] < 0.5 and natural["no_picture"]["total"] == 0.0
    harder = report["harder"]
    assert list(harder) == ["picture", "no_picture", "shuffled_picture"]
    assert harder["picture"]["groups"]["one sentence"]["right"] == 1.0, "a full caption is a caption of one sentence"
    assert harder["shuffled_picture"]["groups"]["one sentence"]["right"] < 0.5 and harder["no_picture"]["total"] == 0.0
    assert not {"one sentence", "negation"} & natural["picture"]["groups"].keys(), "they are counted apart"
    table = scenes.scores_table(report)
    assert "| kinds | 1.000 (1.000–1.000) | 0.000 (0.000–0.000) |" in table


def test_the_table_has_the_harder_questions_of_reports_that_have_them():
    report = json.loads((MICRO / "evaluation.json").read_text())
    older = {name: part for name, part in report.items() if name != "harder"}
    scores = {"total": 0.5, "count": 20, "refused": 0.1, "of_answered": 0.6}
    scores["groups"] = {"negation": {"right": 0.25, "refused": 0.1, "count": 20}}
    newer = older | {"harder": {"picture": scores, "shuffled_picture": scores | {"total": 0.1}}}
    without, table = scenes.scores_table(older).splitlines(), scenes.scores_table(newer).splitlines()
    assert not any("harder" in line for line in without)
    added = [line for line in table if line not in without]
    assert added[0] == "| harder questions, 20 | picture | shuffled picture | refused, unknown words |"
    assert "| negation | 0.250 (0.112–0.469) | 0.250 (0.112–0.469) | 0.100 |" in added
    assert set(without) <= set(table), "the older rows are as they were"


# retrieval and matching


def test_mined_negatives_are_wrong_similar_and_reproducible():
    similarity = torch.full((4, 4), -50.0)
    similarity[0, 2] = similarity[1, 3] = similarity[2, 0] = similarity[3, 1] = 0.0  # one tempting text each
    similarity += 100.0 * torch.eye(4)  # the true pairs fit best, and are never chosen
    numbers = torch.tensor([40, 41, 42, 43])
    wrong_text, wrong_image = scenes.mine_negatives(similarity, numbers, seed=0)
    assert wrong_text.tolist() == [42, 43, 40, 41] == wrong_image.tolist()
    flat = torch.zeros(64, 64)
    text, image = scenes.mine_negatives(flat, torch.arange(64), seed=3)
    assert (
        not (text == torch.arange(64)).any() and not (image == torch.arange(64)).any() and len(set(text.tolist())) > 20
    )
    assert torch.equal(text, scenes.mine_negatives(flat, torch.arange(64), seed=3)[0])


@pytest.mark.parametrize("count", [2, 63, 65, 97, 1000])
def test_no_mining_batch_has_a_single_pair(count):
    batches = scenes._batches(torch.arange(count))
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


def test_itm_matches_scores_the_given_pairs():
    gallery = SimpleNamespace(memory=SimpleNamespace(select=lambda index: index + 10))
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])
    ids = torch.tensor([5, 6, 7])
    matched = scenes.itm_matches(Judge({(10, 5), (12, 7), (11, 6)}), gallery, pairs, ids, ids, batch_size=3)
    assert matched.tolist() == [True, False, False, True]


def test_a_model_that_reads_the_question_is_given_it_with_the_right_picture(asking_model):
    book = BOOK[:3]
    features = scenes.image_features(asking_model, book, 2)
    shown = natural.Shown.of(asking_model, features, 2)
    text = asking_model.language_model.question_prompt.format("what color is the boat?")
    for condition, rolled in ((shown, features), (shown.shuffled(), features.roll(1, dims=0))):
        seen = natural.prompts_for(asking_model, condition, [2, 0], [text, text])
        assert torch.allclose(seen, asking_model.visual_prompt(rolled[[2, 0]], [text, text]))
        assert not torch.allclose(seen, asking_model.visual_prompt(rolled[[2, 0]]), atol=1e-2)
    assert natural.prompts_for(asking_model, shown.nothing(), [0], [text]).shape[1] == 0
    report = scenes.evaluate(asking_model, scenes=3)
    assert report["questions"]["picture"]["total_count"] > 0 and "ITM says" in scenes.scores_table(report)
    assert report["search"] == {}, "three scenes show no phrase five times"
