"""Measuring on one's own pictures: an oracle beats its baselines, a model without eyes does not, a guest is named."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import blip2_lab
from blip2_lab.data.examples import AskedQuestion
from blip2_lab.evaluation import own_pictures
from blip2_lab.evaluation.own_pictures import (
    answer_accuracy,
    draw_pictures,
    evaluate_on,
    own_table,
    read_pictures,
    text_notes,
)
from blip2_lab.models import retrieval
from blip2_lab.models.bridges import DualEncoder, DualEncoderConfig
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import build_tiny_model, loud

COLORS = ["red", "blue", "green", "red", "white", "black"]
CAPTIONS = [
    f"{color} thing number {name}" for color, name in zip(COLORS, "one two three four five six".split(), strict=True)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures with two captions and a question each, one damaged picture, one that is missing."""
    folder = tmp_path_factory.mktemp("own")
    rows = []
    for number, (color, caption) in enumerate(zip(COLORS, CAPTIONS, strict=True)):
        draw(sample_scene(4, number), 48).save(folder / f"{number}.png")
        rows.append([f"{number}.png", caption, "what color is it?", color])
        rows.append([f"{number}.png", f"this is {caption}", "", ""])
    (folder / "damaged.png").write_bytes(b"no picture")
    rows += [["damaged.png", "a cat", "", ""], ["missing.png", "a dog", "", ""]]
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "caption", "question", "answer"], *rows])
    return folder


@pytest.fixture(scope="module")
def model():
    model = build_tiny_model().eval()
    loud(model)
    return model


def answers_by(monkeypatch, model, folder, knows):
    """Let the language model answer with `knows(number of the picture or None, prompt)`."""
    drawn = draw_pictures(folder)
    own = own_pictures.read_pictures(model, drawn, batch_size=4)
    with torch.no_grad():
        prompts = model.visual_prompt(own.features)

    def generate(visual_prompt, texts, decoding):
        numbers = [
            None if row.numel() == 0 else int((prompts - row).flatten(1).norm(dim=1).argmin()) for row in visual_prompt
        ]
        return [knows(number, text) for number, text in zip(numbers, texts, strict=True)]

    monkeypatch.setattr(model.language_model, "generate", generate)
    return drawn


def test_an_oracle_beats_every_baseline(monkeypatch, model, folder):
    def oracle(number, prompt):
        known = COLORS if "color" in prompt else CAPTIONS
        return "" if number is None else known[number]

    report = evaluate_on(model, answers_by(monkeypatch, model, folder, oracle), batch_size=4)
    assert report["pictures"] == 6 and "1 missing file" in report["read"] and "skipped 2" in report["read"]
    left_out = {one["cause"]: one["message"] for one in report["left_out"]}
    assert "missing.png" in left_out["missing file"] and "damaged.png" in left_out["not a picture"]
    captions, questions = report["captions"], report["questions"]
    assert captions["picture"]["BLEU-4"] == pytest.approx(1)
    for baseline in ("no_picture", "shuffled_picture"):
        assert captions["picture"]["CIDEr"] > captions[baseline]["CIDEr"] + 1
        assert captions["picture"]["ROUGE-L"] > captions[baseline]["ROUGE-L"]
    assert questions["picture"]["accuracy"] == 1 and questions["no_picture"]["accuracy"] == 0
    assert questions["shuffled_picture"]["accuracy"] == 0  # no neighbours have the same color
    assert questions["majority"]["answer"] == "red" and questions["majority"]["accuracy"] == pytest.approx(2 / 6)
    assert questions["gain"]["accuracy"] == {"value": 1, "low": 1, "high": 1, "p": 2 / 2**6}
    assert [(one["part"], one["uses_pictures"]) for one in report["conclusions"]][:2] == [
        ("captions", True),
        ("questions", True),
    ]
    assert questions["beginnings"] == {
        "what color": {
            "questions": 6,
            "picture": 1,
            "no_picture": 0,
            "shuffled_picture": 0,
            "majority": pytest.approx(2 / 6),
        }
    }
    table = own_table(report)
    assert "majority: red" in table and "6 by equal answer" in table and "| CIDEr |" in table


def test_what_cannot_be_measured_is_one_sentence(model, folder):
    for wrong, says in (("micro", "text, 'micro'"), (None, "NoneType")):
        with pytest.raises(ValueError, match=f"needs a model that answers, .* got a {says}"):
            evaluate_on(wrong, draw_pictures(folder))
    for drawn, batch_size in ((str(folder), 4), (draw_pictures(folder), 0)):
        with pytest.raises(ValueError, match="as draw_pictures"):
            evaluate_on(model, drawn, batch_size=batch_size)
    with pytest.raises(ValueError, match="--pictures is 2.5"):
        draw_pictures(folder, 2.5)


def test_a_model_without_eyes_is_told(monkeypatch, model, folder):
    constant = answers_by(monkeypatch, model, folder, lambda _, prompt: "red" if "color" in prompt else "red thing")
    report = evaluate_on(model, constant, batch_size=4)
    assert report["questions"]["picture"]["accuracy"] == report["questions"]["majority"]["accuracy"]
    assert report["captions"]["gain"]["CIDEr"]["value"] == 0
    blind = [one for one in report["conclusions"] if one["part"] != "retrieval"]
    assert [one["part"] for one in blind] == ["captions", "questions"] and not any(
        one["uses_pictures"] for one in blind
    )
    for one in blind:
        assert "nothing shows that it looks at the pictures" in one["says"] and one["says"] in own_table(report)


def test_a_measure_of_real_answers_runs_whole(model, folder):
    """The untrained model itself: whatever it says, every number is a share, and every row is printed."""
    report = evaluate_on(model, draw_pictures(folder), batch_size=4)
    assert set(report["retrieval"]["picture"]) == {
        f"{way}_{direction}" for way in ("itc", "itm") for direction in ("image_to_text", "text_to_image")
    }
    table = own_table(report)
    assert "retrieval among 6 pictures and 12 captions" in table and "nan" not in table
    assert report["retrieval"]["chance"]["text_to_image"]["R@1"] == pytest.approx(1 / 6)
    assert report["retrieval"]["chance"]["image_to_text"]["R@1"] == pytest.approx(2 / 12)


def test_retrieval_of_own_pictures_by_hand(monkeypatch):
    """Two pictures, captions 0 and 1 of the first, 2 of the second; only the first picture finds its own."""
    itc = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.3, 0.7]])
    found = retrieval.RetrievalScores(itc, itc, itc.T)
    monkeypatch.setattr(retrieval, "read_gallery", lambda *_: None)
    monkeypatch.setattr(retrieval, "retrieve", lambda *_, **__: found)
    stage1 = SimpleNamespace(tokenize=lambda texts: (torch.zeros(len(texts), 1), torch.ones(len(texts), 1)))
    own = own_pictures.OwnPictures(torch.zeros(2, 1, 1), [("a", "b"), ("c",)], [(), ()], "")
    report = own_pictures.retrieval_scores(stage1, own, batch_size=2)
    assert report["picture"]["itc_image_to_text"]["R@1"] == 0.5
    # caption 0 is nearer to the second picture, 1 to the first, 2 to the second
    assert report["picture"]["itc_text_to_image"]["R@1"] == pytest.approx(2 / 3)
    # with the pictures exchanged, the first one has caption 2, and the second one captions 0 and 1
    assert report["shuffled_picture"]["itc_image_to_text"]["R@1"] == 0.5
    assert report["shuffled_picture"]["itc_text_to_image"]["R@1"] == pytest.approx(1 / 3)


def test_a_guest_stage1_is_not_reported(monkeypatch, folder, tmp_path):
    model = build_tiny_model().eval()
    blip2_lab.save(model, tmp_path)
    monkeypatch.setattr(own_pictures, "MICRO", tmp_path)
    assert not own_pictures.has_guest_stage1(model)  # the shipped model itself
    with torch.no_grad():
        model.language_projection.weight.add_(0.1)  # fine-tuned on captions
    assert own_pictures.has_guest_stage1(model)
    for part, measure in (("_captions", "CIDEr"), ("_questions", "accuracy")):
        scores = {name: {measure: 1.0} for name in ("picture", "shuffled_picture", "majority")}
        monkeypatch.setattr(
            own_pictures,
            part,
            lambda *_, s=scores, m=measure: s | {"pictures": 6, "gain": {m: {"value": 1, "p": 0.01}}},
        )
    report = evaluate_on(model, draw_pictures(folder), batch_size=4)
    assert "retrieval" not in report and report["notes"] == [own_pictures.GUEST]
    with torch.no_grad():
        model.stage1.itm_head.weight.add_(0.1)  # its own stage 1
    assert not own_pictures.has_guest_stage1(model)
    model.attach_stage1(None)
    report = evaluate_on(model, draw_pictures(folder), batch_size=4)
    assert "no stage 1" in report["notes"][0]


def test_an_answer_is_compared_by_the_rule_that_fits():
    assert answer_accuracy("Red.", AskedQuestion("?", ("red",))) == 1
    assert answer_accuracy("two", AskedQuestion("?", ("2",))) == 0
    assert answer_accuracy("two", AskedQuestion("?", ("2",) * 5 + ("3",) * 5)) == 1
    assert answer_accuracy("Yes", AskedQuestion("?", ("yes",) * 10)) == 1
    assert answer_accuracy("two", AskedQuestion("?", ("2",) * 2 + tuple("13456789"))) == pytest.approx(0.6)


@pytest.mark.parametrize("answers", [("boat", "ship"), ("boat", "boat", "ship"), ("boat", "ship", "yacht", "vessel")])
def test_each_of_a_few_right_answers_is_right(answers):
    """VQA accuracy would give them 1/6, 4/9 and 1/4: it asks whether annotators agree."""
    assert [answer_accuracy(answer, AskedQuestion("?", answers)) for answer in ("Boat.", "ship", "car")] == [1, 1, 0]


def test_what_cannot_be_measured_is_said(model, folder, tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        draw_pictures(folder, 1)
    numbers = [[number for _, number in draw_pictures(folder, 3).rows] for _ in range(2)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 3  # always the same pictures
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(ValueError, match="at least 2 pictures"):
        evaluate_on(model, draw_pictures(tmp_path))


def test_conclusions_by_hand():
    """The test and the lower end of the interval decide, not the value; few pictures decide nothing."""

    def of(p: float, recall_low: float, value: float = 0.2, pictures: int = 10) -> list[bool | None]:
        questions = {name: {"accuracy": 0.5} for name in ("picture", "shuffled_picture", "majority")}
        questions |= {"pictures": pictures, "gain": {"accuracy": {"value": value, "low": 0.1, "high": 0.4, "p": p}}}
        scores = {"R@1": 0.3, "R@1_low": recall_low}
        chance = {"text_to_image": {"R@1": 0.1}}
        found = {"pictures": pictures, "picture": {"itm_text_to_image": scores}, "chance": chance}
        return [one.uses_pictures for one in own_pictures.conclusions({"questions": questions, "retrieval": found})]

    assert of(0.01, 0.11) == [True, True]
    assert of(0.05, 0.1) == [False, False]
    assert of(0.01, 0.11, value=-0.2)[0] is False
    assert of(0.01, 0.11, pictures=9) == [True, None]
    assert of(0.01, 0.11, pictures=5) == [None, None]


def test_two_pictures_show_nothing(monkeypatch, model, folder):
    """The bootstrap of two pictures that differ in one direction never contains 0, so that "it looks at the pictures
    (CIDEr 0.000, with another picture 0.000)" was said."""
    rows = answers_by(monkeypatch, model, folder, lambda number, _: "" if number is None else CAPTIONS[number])
    drawn = replace(rows, rows=[row for row in rows.rows if row[0].record(row[1]).captions][:2])
    report = evaluate_on(model, drawn, batch_size=4)
    for one in report["conclusions"]:
        assert one["uses_pictures"] is None and "too few pictures" in one["says"], one


def test_texts_and_pictures_that_cannot_tell_models_apart_are_named(model, tmp_path):
    rows = ["file,caption,question,answer"]
    for number in range(3):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,...,what is it?,boat")
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    copies, same, wordless, answer = text_notes(read_pictures(model, draw_pictures(tmp_path), batch_size=4))
    assert "2 of the 3 pictures are copies" in copies and "every picture has the same caption ('...')" in same
    assert "3 captions have no word ('...')" in wordless and "every question has the same answer ('boat')" in answer


def test_questions_that_begin_alike_are_measured_by_themselves():
    asked = [AskedQuestion(f"How many {n}?", (answer,)) for n, answer in enumerate(["two", "two", "two", "one", "one"])]
    asked += [AskedQuestion("is there a cat?", ("yes",))] * 4
    marks = {"picture": [1, 1, 0, 0, 0, 1, 1, 1, 1], "no_picture": [0] * 9, "shuffled_picture": [1] * 9}
    found = own_pictures._by_beginning(asked, {**marks, "majority": [0] * 9})
    assert found == {
        "how many": {"questions": 5, "picture": 0.4, "no_picture": 0, "shuffled_picture": 1, "majority": 0.6}
    }


def test_an_evaluation_refuses_a_dual_encoder_in_a_sentence(folder):
    frozen = build_tiny_model("opt")
    dual = DualEncoder(DualEncoderConfig(64, 64, 2, embed_width=16), frozen.image_encoder, frozen.language_model)
    with pytest.raises(ValueError, match="`compare bridges` measures it on drawn scenes"):
        evaluate_on(dual, draw_pictures(folder))
