"""Scores of maps by hand; the evaluation is repeatable and resumes after an interruption."""

from __future__ import annotations

import json
import math

import pytest
import torch

from blip2_lab.interpret import grounding
from blip2_lab.interpret.attribution import METHODS, Explanation
from blip2_lab.picturebook.draw import masks
from blip2_lab.picturebook.scene import Scene, Thing

FAST = ("raw", "gradient")


# --- Scores of one map ----------------------------------------------------------------------------------------------


def spot(*places: tuple[int, int], side: int = 4) -> torch.Tensor:
    heat = torch.zeros(side, side)
    for row, column in places:
        heat[row, column] = 1.0
    return heat


def test_the_pointing_game_looks_at_the_center_of_the_hottest_patch():
    box = (0.0, 0.5, 0.5, 1.0)  # lower left quarter
    assert grounding.pointing_game(spot((3, 0)), box) == 1 and grounding.pointing_game(spot((0, 0)), box) == 0
    assert grounding.pointing_game(spot((0, 3)), box) == 0, "x and y are not the same"
    assert grounding.pointing_game(spot((3, 0), (0, 0)), box) == 0.5
    assert grounding.pointing_game(-spot((3, 0)), box) == 0.25, "no positive evidence: every patch is as hot"
    assert grounding.pointing_game(5 * spot((3, 0)) + spot((0, 0)), box) == 1


def test_mass_counts_positive_evidence_only_and_a_uniform_map_scores_the_area():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = True
    assert grounding.mass_inside(spot((0, 0), (3, 3)), mask) == 0.5
    assert grounding.mass_inside(spot((0, 0)) - 9 * spot((3, 3)), mask) == 1.0
    assert grounding.mass_inside(torch.ones(4, 4), mask) == 0.25
    assert grounding.mass_inside(torch.full((4, 4), -1.0), mask) == 0.25


def test_iou_at_half_of_the_maximum():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :2] = True  # two patches of four pixels
    assert grounding.iou(spot((0, 0), (1, 0)), mask) == 1.0
    assert grounding.iou(spot((0, 0)), mask) == 0.5
    assert grounding.iou(spot((0, 0), (1, 0)) + 0.4, mask) == 1.0
    assert grounding.iou(spot((0, 0), (1, 0)) + 2.0, mask) == 8 / 64
    assert grounding.iou(spot((3, 3)), mask) == 0.0


def test_enlarging_keeps_rows_and_columns_apart_and_boxes_become_pixels():
    heat = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert grounding.enlarged(heat, 4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    box = grounding.box_mask((0.5, 0.0, 1.0, 0.5), 4)
    assert box.nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


class Counter:
    """A score that knows nothing but the first pixels' patch: 1 if it is there, 0 if it is blank."""

    def __call__(self, pixels):
        return (pixels[:, 0, 0, 0] == 8.0).float()

    def probability(self, values):
        return values


def test_insertion_and_deletion_by_hand():
    pixels = torch.ones(1, 3, 4, 4)
    pixels[:, :, :2, :2] = 8.0
    first, last = spot((0, 0), side=2), -spot((0, 0), side=2)
    insertion, deletion = grounding.insertion_deletion_curves(Counter(), pixels, first, steps=4)
    assert insertion.tolist() == [0, 1, 1, 1, 1] and deletion.tolist() == [1, 0, 0, 0, 0]
    insertion, deletion = grounding.insertion_deletion_curves(Counter(), pixels, last, steps=4)
    assert insertion.tolist() == [0, 0, 0, 0, 1] and deletion.tolist() == [1, 1, 1, 1, 0]
    assert grounding.area(torch.tensor([0.0, 1, 1, 1, 1])) == 0.875
    even = [
        grounding.insertion_deletion_curves(Counter(), pixels, torch.zeros(2, 2), steps=4, seed=s)[0].sum().item()
        for s in range(20)
    ]
    assert len(set(even)) > 1, "equal patches come in a random order, not always from the upper left"


def test_rank_correlation():
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert grounding.rank_correlation(a, a.exp()) == pytest.approx(1)
    assert grounding.rank_correlation(a, -a) == pytest.approx(-1)
    assert grounding.rank_correlation(a, torch.tensor([[2.0, 1.0], [4.0, 3.0]])) == pytest.approx(0.6)
    assert grounding.rank_correlation(a, torch.zeros(2, 2)) == 0.0


def test_bootstrap_intervals_are_those_of_the_normal_distribution():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 3
    mean, low, high = grounding.bootstrap(values.tolist())
    half = 1.96 * values.std().item() / math.sqrt(400)
    assert mean == pytest.approx(values.mean().item(), abs=1e-6)
    assert (low, high) == (pytest.approx(mean - half, abs=0.02), pytest.approx(mean + half, abs=0.02))
    assert grounding.bootstrap([1.0] * 9) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="no scene"):
        grounding.bootstrap([])


def test_the_baselines():
    scene = Scene((Thing("boat", "red", "large", 1 / 6, 1 / 6), Thing("cat", "blue", "large", 5 / 6, 5 / 6)))
    mask = torch.from_numpy(masks(scene, 96)[0])
    box = scene.things[0].box
    maps = {name: grounding.baseline(name, scene, 0, 8, seed=0) for name in grounding.BASELINES}
    assert all(heat.shape == (8, 8) for heat in maps.values())
    assert grounding.pointing_game(maps["truth"], box) == 1
    assert grounding.mass_inside(maps["truth"], grounding.box_mask(box, 96)) > 0.75
    assert grounding.iou(maps["truth"], mask) > 0.5
    assert 0.3 < grounding.mass_inside(maps["things"], grounding.box_mask(box, 96)) < 0.5
    assert grounding.pointing_game(maps["center"], box) == 0
    torch.testing.assert_close(maps["center"], maps["center"].T)
    assert not torch.equal(maps["random"], grounding.baseline("random", scene, 0, 8, seed=1))
    with pytest.raises(ValueError, match="no baseline 'middle'"):
        grounding.baseline("middle", scene, 0, 8, seed=0)


# --- What is asked --------------------------------------------------------------------------------------------------


def test_phrase_and_question_refer_to_one_thing():
    asked = grounding.cases(seed=5)
    for case in (next(asked) for _ in range(60)):
        thing, others = case.scene.things[case.thing], [t for t in case.scene.things]
        assert len(others) >= 2
        others.remove(thing)
        assert case.phrase.split(" ", 1)[1] == f"{thing.color} {thing.kind}"
        assert not any((t.color, t.kind) == (thing.color, thing.kind) for t in others)
        assert case.answer == (thing.color if "color" in case.question else thing.kind)
        assert case.answer not in case.question.split(), "the answer must not be in the question"
    again = grounding.cases(seed=5)
    once_more = grounding.cases(seed=5)
    assert [next(again) for _ in range(5)] == [next(once_more) for _ in range(5)]


def test_shuffled_weights_keep_their_values_and_share_frozen_models(tiny_model):
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    twin = grounding.shuffle_trained(tiny_model, seed=1)
    assert twin.image_encoder is tiny_model.image_encoder and twin.language_model is tiny_model.language_model
    for name, parameter in tiny_model.named_parameters():
        assert torch.equal(parameter, before[name])
    own = dict(twin.named_parameters())
    weight = own["qformer.layers.0.cross_attention.key.weight"]
    original = before["qformer.layers.0.cross_attention.key.weight"]
    assert not torch.equal(weight, original)
    assert torch.equal(weight.flatten().sort().values, original.flatten().sort().values)
    stage1 = grounding.shuffle_trained(tiny_model.stage1)
    assert stage1.image_encoder is tiny_model.image_encoder and stage1.tokenizer is tiny_model.stage1.tokenizer
    assert grounding.trained_fingerprint(twin) != grounding.trained_fingerprint(tiny_model)


# --- The driver -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tiny_model):
    return grounding.evaluate_grounding(tiny_model, methods=FAST, scenes=3)


def test_the_report_has_every_target_method_and_score(report):
    assert set(report["targets"]) == {"itm", "itc", "word"}
    for found in report["targets"].values():
        assert list(found) == [*grounding.BASELINES, *FAST]
        for name, scores in found.items():
            for what in ("pointing", "mass", "iou", "insertion", "deletion"):
                mean, low, high = scores[what]
                assert 0 <= low <= mean <= high <= 1
            assert ("sanity" in scores) == (name in FAST)
        assert found["truth"]["mass"][0] > found["things"]["mass"][0] > 0
        assert found["truth"]["iou"][0] > found["things"]["iou"][0] > 0
    json.dumps(report)


def test_the_table_names_everything_once(report):
    shown = grounding.grounding_table(report)
    assert shown.count("| *center* |") == 3 and shown.count("gradient") == 3 and "(" in shown
    for line in shown.split("\n\n")[0].splitlines():
        assert line.count("|") == 10


def test_an_interrupted_evaluation_resumes(tiny_model, report, tmp_path, monkeypatch):
    rows = tmp_path / "out" / "rows.jsonl"
    measured = []
    measure = grounding._measure
    monkeypatch.setattr(grounding, "_measure", lambda *a: measured.append(a[2].number) or measure(*a))
    grounding.evaluate_grounding(tiny_model, methods=FAST, scenes=2, rows=rows)
    with rows.open("a") as file:
        file.write('{"scene": 99, "ri')  # stopped in the middle of a line
    whole = grounding.evaluate_grounding(tiny_model, methods=FAST, scenes=3, rows=rows)
    assert len(measured) == 3
    assert len(rows.read_text().splitlines()) == 4
    for target, found in report["targets"].items():
        for name, scores in found.items():
            for what in grounding.SCORES:
                assert whole["targets"][target][name].get(what) == scores.get(what)
    monkeypatch.setattr(grounding, "trained_fingerprint", lambda _: "other weights")
    grounding.evaluate_grounding(tiny_model, methods=FAST, scenes=1, rows=rows)
    assert len(measured) == 4, "other weights: nothing is reused"


def test_wrong_arguments(tiny_model):
    with pytest.raises(ValueError, match="no method rowlout; choose from raw"):
        grounding.evaluate_grounding(tiny_model, methods=["rowlout"])
    with pytest.raises(ValueError, match="at least 1"):
        grounding.evaluate_grounding(tiny_model, scenes=0)


def test_a_planted_oracle_is_trusted_and_one_that_shows_everything_is_not(tiny_model, monkeypatch):
    """A method that knows the truth must win; one that lights up all things, or ignores the weights, must not."""
    asked = {c.phrase: c for c, _ in zip(grounding.cases(), range(8), strict=False)}

    def truth(score, pixels, name="truth"):
        if not hasattr(score, "text"):
            return Explanation(torch.zeros(1, 4, 4))
        case = asked[score.text]
        original = score.model is tiny_model.stage1
        heat = grounding.baseline(name if original else "random", case.scene, case.thing, 8, case.number)
        return Explanation(heat[None])

    monkeypatch.setitem(METHODS, "oracle", truth)
    monkeypatch.setitem(METHODS, "everything", lambda score, pixels: truth(score, pixels, "things"))
    monkeypatch.setitem(METHODS, "constant", lambda score, pixels: Explanation(torch.arange(16.0).view(1, 4, 4)))
    report = grounding.evaluate_grounding(tiny_model, methods=["oracle", "everything", "constant"], scenes=8)
    found = report["targets"]["itm"]
    assert grounding.trusted(report, "itm") == ["oracle"] and grounding.best(report, "itm") == "oracle"
    assert found["oracle"]["pointing"][0] == 1.0 and found["constant"]["sanity"][0] == pytest.approx(1)
    assert "**oracle**" in grounding.grounding_table(report) and "**everything**" not in grounding.grounding_table(
        report
    )
