"""Metrics against answers known by hand."""

import random

import pytest
import torch

from blip2_lab.evaluation import metrics


def test_exact_match_ignores_case_and_a_full_stop_only():
    assert metrics.exact_match(" Red. ", "red")
    assert not metrics.exact_match("dark red", "red")
    assert not metrics.exact_match("", "red")


def test_accuracy_is_the_share_of_hits_and_refuses_an_empty_sequence():
    assert metrics.accuracy([True, True, False, False]) == 0.5
    with pytest.raises(ValueError, match="no question was asked"):
        metrics.accuracy([])


def test_confidence_interval_is_wilsons():
    low, high = metrics.confidence_interval(0.5, 100)  # tables: 0.4038 to 0.5962
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert metrics.confidence_interval(1.0, 20)[1] == 1.0
    narrow, wide = (metrics.confidence_interval(0.9, n) for n in (10_000, 100))
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1]


def test_f1_counts_over_all_scenes():
    predicted = [{"boat", "tree"}, {"fish"}]
    true = [{"boat"}, {"fish", "key"}]
    scores = metrics.set_scores(predicted, true)
    assert scores.f1 == pytest.approx(2 * 2 / (3 + 3))  # 2 right, 3 named, 3 there
    assert (scores.precision, scores.recall) == pytest.approx((2 / 3, 2 / 3))
    short = metrics.set_scores([{"boat"}], [{"boat", "tree", "key"}])
    assert (short.precision, short.recall, short.f1) == pytest.approx((1, 1 / 3, 1 / 2))
    assert metrics.set_scores([set()], [{"boat"}]).f1 == 0
    assert metrics.set_scores([set()], [set()]).f1 == 0


def test_the_interval_of_f1_matches_the_bootstrap():
    rng = random.Random(0)
    words = "abcdef"
    true = [set(rng.sample(words, rng.randint(1, 4))) for _ in range(300)]
    predicted = [{word for word in there if rng.random() < 0.8} | set(rng.sample(words, 1)) for there in true]
    scores = metrics.set_scores(predicted, true)
    again = []
    for _ in range(1000):
        numbers = rng.choices(range(300), k=300)
        again.append(metrics.set_scores([predicted[i] for i in numbers], [true[i] for i in numbers]).f1)
    again.sort()
    assert (scores.low, scores.high) == pytest.approx((again[25], again[975]), abs=0.003)
    assert scores.low < scores.f1 < scores.high


def test_recall_counts_ties_as_misses():
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
    assert metrics.recall_at(scores, 1) == pytest.approx(1 / 3)  # row 0 hits, row 1 is second, row 2 is a tie
    assert metrics.recall_at(scores, 2) == pytest.approx(2 / 3)
    assert metrics.recall_at(scores, 3) == 1.0
    assert metrics.recall_at(torch.zeros(4, 4), 1) == 0.0


def test_hits_with_several_right_columns_and_ties():
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.5, 0.5, 0.2], [0.1, 0.2, 0.3]])
    right = torch.tensor([[False, True, False], [True, False, False], [True, False, True]])
    assert metrics.hits_at(scores, right, 1).tolist() == [False, False, True]  # the tie in row 1 is a miss
    assert metrics.hits_at(scores, right, 2).tolist() == [True, True, True]
    lost = torch.full((1, 3), -torch.inf)
    assert not metrics.hits_at(lost, right[:1], 2).item()


def test_chance_recall_by_hand():
    assert metrics.chance_recall(10, 1, 1) == pytest.approx(0.1)
    assert metrics.chance_recall(4, 2, 2) == pytest.approx(1 - 1 / 6)  # 1 of 6 pairs has none of the two
    assert metrics.chance_recall(5, 1, 10) == 1 and metrics.chance_recall(5, 0, 10) == 0


def test_boxes_by_hand():
    """Two squares of 2 x 2, moved by 1 in one direction: 2 in common, 6 in all."""
    assert metrics.box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert metrics.box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert metrics.box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == metrics.box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    boxes = [(0, 0, 2, 2), (0, 0, 2, 2)]
    assert metrics.accuracy_at_iou(boxes, [(0, 0, 2, 1), (1, 0, 3, 2)]) == 0.5  # exactly one half counts
    assert metrics.accuracy_at_iou(boxes, [(0, 0, 2, 1), (1, 0, 3, 2)], threshold=0.3) == 1


def test_the_paired_bootstrap_draws_scenes_for_both_models():
    scenes, drawn = torch.tensor([0, 1, 1, 1]), torch.tensor([[0, 0], [0, 1], [1, 1]])
    one, other = torch.tensor([True, True, False, True]), torch.tensor([False, True, False, False])
    # scene 0: 1 of 1 more; scene 1: 1 of 3 more -> 1, 2/4, 1/3
    low, high = metrics.paired_bootstrap(one, other, scenes, drawn)
    assert (low, high) == pytest.approx((1 / 3 + 0.05 * (1 / 2 - 1 / 3), 1 - 0.05 / 2))
    assert metrics.paired_bootstrap(one, one, scenes, drawn) == (0.0, 0.0)
    hits = torch.rand(300, generator=torch.Generator().manual_seed(0)) < 0.5
    many = torch.randint(60, (2000, 60), generator=torch.Generator().manual_seed(1))
    of_five, better = torch.arange(300) // 5, hits.clone()
    better[torch.nonzero(~hits)[:20, 0]] = True  # never worse: the difference is sure, though single intervals overlap
    assert metrics.paired_bootstrap(better, hits, of_five, many)[0] > 0
    (_, high), (low, _) = (metrics.confidence_interval(h.double().mean().item(), 300) for h in (hits, better))
    assert high > low


def test_bootstrap_agrees_with_wilson_and_draws_pictures():
    hits = [1.0] * 60 + [0.0] * 40
    low, high = metrics.bootstrap_interval(hits)
    assert (low, high) == pytest.approx(metrics.confidence_interval(0.6, 100), abs=0.02)
    # ten texts of each picture that are all right or all wrong tell no more than one
    assert metrics.bootstrap_interval([10 * hit for hit in hits], [10] * 100) == pytest.approx((low, high))
    assert metrics.bootstrap_interval([0.5] * 9) == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="no picture"):
        metrics.bootstrap_interval([])
