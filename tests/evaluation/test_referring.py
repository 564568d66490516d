"""Referring by ranking boxes: boxes as images and Acc@IoU by hand, and a scorer that knows colors finds the thing."""

import json
from dataclasses import astuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_lab.evaluation import referring
from blip2_lab.evaluation.metrics import box_iou
from blip2_lab.evaluation.referring import WAYS, crop, erased, isolated, score_boxes, scorer_of, windows
from blip2_lab.models.bridges.dual_encoder import DualEncoder, DualEncoderConfig
from blip2_lab.picturebook.pen import inks
from blip2_lab.picturebook.scene import COLORS
from tests.tiny import build_tiny_model, loud


class Pixels:
    """An image encoder whose features are the pixels."""

    image_size = 48

    def preprocess(self, images):
        arrays = np.stack([np.asarray(image.resize((48, 48))) for image in images])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float()

    def __call__(self, pixels):
        return pixels


def quarters() -> Image.Image:
    """Red, green, blue and white, from the top left to the bottom right."""
    image = Image.new("RGB", (40, 40), "white")
    for color, corner in (((200, 0, 0), (0, 0)), ((0, 200, 0), (20, 0)), ((0, 0, 200), (0, 20))):
        image.paste(color, (*corner, corner[0] + 20, corner[1] + 20))
    return image


BOXES = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0)]
MEAN = (114, 114, 114)  # (200 + 0 + 0 + 255) / 4, rounded


def by_color(features, texts):
    """How red, green or blue an image is, against its other colors."""
    share = features.mean(dim=(2, 3)) / features.mean(dim=(1, 2, 3))[:, None]
    return {"itm": share[:, [("red", "green", "blue").index(text) for text in texts]]}


def test_boxes_as_images_by_hand():
    image = quarters()
    assert crop(image, BOXES[0]).getcolors() == [(400, (200, 0, 0))]
    assert sorted(isolated(image, BOXES[1]).getcolors()) == [(400, (0, 200, 0)), (1200, MEAN)]
    without = erased(image, BOXES[2])
    assert without.getpixel((5, 30)) == MEAN and without.getpixel((5, 5)) == (200, 0, 0)
    assert image.getpixel((5, 30)) == (0, 0, 200), "the image itself does not change"
    assert crop(image, (0.0, 0.0, 0.001, 0.001)).size == (1, 1)


def test_the_right_box_wins_every_way():
    found = score_boxes(by_color, Pixels(), quarters(), BOXES, ["red", "green", "blue"])
    assert {way for way, _ in found} == set(WAYS)
    for scores in found.values():
        assert scores.shape == (3, 3) and scores.argmax(dim=0).tolist() == [0, 1, 2]


def test_nothing_to_rank():
    for boxes, texts in (([], ["red"]), (BOXES, [])):
        with pytest.raises(ValueError, match="at least one candidate box and one expression"):
            score_boxes(by_color, Pixels(), quarters(), boxes, texts)
    with pytest.raises(ValueError, match="A box is .* not"):
        score_boxes(by_color, Pixels(), quarters(), [(0.5, 0.5, 0.5, 0.9)], ["red"])
    with pytest.raises(ValueError, match="at least 1 is needed"):
        referring.evaluate_referring(SimpleNamespace(), scenes=0)


def test_windows_cover_the_image():
    assert windows([0.5]) == [(x, y, x + 0.5, y + 0.5) for y in (0, 0.25, 0.5) for x in (0, 0.25, 0.5)]
    found = windows()
    assert all(min(box) >= 0 and max(box) <= 1 + 1e-9 for box in found) and len(set(found)) == len(found)
    for side in referring.WINDOWS:
        assert max(box[2] for box in found if box[2] - box[0] == pytest.approx(side)) == pytest.approx(1)
    for size in (0.19, 0.31):  # wherever a thing stands, a window fits it
        for x in (0.0, 0.13, 0.4, 0.69):
            assert max(box_iou((x, 0.3, x + size, 0.3 + size), box) for box in found) >= 0.4


@pytest.fixture(scope="module")
def report():
    """The report on a scorer that reads colors from pixels: whose word stands in the text, and how much of it."""

    def paint(color):
        return torch.tensor(astuple(inks(color, "flat", "day"))[0]).float()

    def score(features, texts):
        near = {
            color: ((features - paint(color).view(1, 3, 1, 1)).abs().amax(dim=1) < 30).float().mean(dim=(1, 2))
            for color in COLORS
        }
        zeros = torch.zeros(len(features))
        words = [next((color for color in COLORS if color in text.split()), None) for text in texts]
        return {"color": torch.stack([near.get(word, zeros) for word in words], dim=1)}

    patch = pytest.MonkeyPatch()
    patch.setattr(referring, "scorer_of", lambda model: score)
    yield referring.evaluate_referring(SimpleNamespace(image_encoder=Pixels()), scenes=30, window_scenes=2)
    patch.undo()


def test_a_report(report):
    true, boxes = report["true boxes"], report["windows"]
    assert json.loads(json.dumps(report)) == report
    counts = true["count"]
    assert counts["all"] == sum(counts[group] for group in ("attributes", "position", "relation")) > 60
    assert true["the most that ranking can reach"]["all"] == 1
    assert 0.3 < true["chance"]["all"] < 0.45 and boxes["chance"]["all"] < 0.05
    assert true["crop color"]["attributes"] > true["chance"]["attributes"] + 0.1
    assert 0 < boxes["the most that ranking can reach"]["all"] <= 1
    table = referring.referring_table(report)
    assert f"attributes, {counts['attributes']}" in table and "*chance*" in table and "crop color" in table


def test_shares_by_hand():
    box, other = (0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 0.9, 0.9)
    half = (0.0, 0.0, 0.2, 0.1)  # an IoU of exactly 0.5 counts
    cases = [
        {"group": "attributes", "true": box, "picked": {"crop itm": half}, "boxes": [box, other]},
        {"group": "relation", "true": box, "picked": {"crop itm": other}, "boxes": [other, other, half, other]},
    ]
    rows = referring._shares(cases)
    assert rows["count"] == {"all": 2, "attributes": 1, "relation": 1}
    assert rows["crop itm"] == {"all": 0.5, "attributes": 1.0, "relation": 0.0}
    assert rows["chance"] == {"all": 0.375, "attributes": 0.5, "relation": 0.25}
    assert rows["the largest"]["all"] == 0.0 and rows["the most that ranking can reach"]["all"] == 1.0


def test_a_stage1_and_a_dual_encoder_score_as_they_match():
    model = build_tiny_model("opt")
    features, texts = torch.randn(3, 17, 64, generator=torch.Generator().manual_seed(0)), ["the red boat", "a fish ."]
    stage1 = loud(model.stage1)
    scores = scorer_of(stage1)(features, texts)
    assert set(scores) == {"itc", "itm", "both"}
    memory = stage1.qformer.read_image(features)
    for i, text in enumerate(texts):
        ids, mask = (each.expand(3, -1) for each in stage1.tokenize([text]))
        logits = stage1.itm_logits(memory, ids, mask)
        torch.testing.assert_close(scores["itm"][:, i], logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        scores["both"], scores["itm"] + scores["itc"] / stage1.temperature.detach(), rtol=1e-4, atol=1e-4
    )
    dual = DualEncoder(DualEncoderConfig(64, 64, 2, embed_width=16), model.image_encoder, model.language_model)
    loud(dual.blocks, dual.itm_head)
    scores = scorer_of(dual)(features, texts)
    for i, text in enumerate(texts):
        torch.testing.assert_close(
            scores["itm"][:, i].sigmoid(), dual.match(features, [text] * 3), rtol=1e-4, atol=1e-4
        )
