"""Probes and dropped queries on constructed outputs, attention statistics on known patterns."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.interpret import query_probes
from blip2_lab.picturebook.scene import Scene, Thing


def test_labels_are_different_words_and_true_of_the_scene():
    assert len(set(query_probes.NAMES)) == len(query_probes.NAMES)
    scene = Scene((Thing("boat", "red", "small", 0.5, 0.5), Thing("cat", "blue", "large", 0.1, 0.1)), "beach", "night")
    shown = {name for name, there in zip(query_probes.NAMES, query_probes.scene_labels(scene), strict=True) if there}
    assert shown == {"boat", "red", "middle", "cat", "blue", "top left", "beach", "night"}


def test_roc_auc_by_hand():
    labels = torch.tensor([True, True, False, False])
    assert query_probes.roc_auc(torch.tensor([4.0, 3.0, 2.0, 1.0]), labels) == 1
    assert query_probes.roc_auc(torch.tensor([1.0, 2.0, 3.0, 4.0]), labels) == 0
    assert query_probes.roc_auc(torch.tensor([4.0, 1.0, 2.0, 3.0]), labels) == 0.5
    assert query_probes.roc_auc(torch.ones(4), labels) == 0.5
    assert query_probes.roc_auc(torch.ones(2), torch.tensor([True, True])) == 0.5


def test_a_probe_finds_the_query_that_encodes_a_label():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(200, 2, generator=generator) > 0.5
    outputs = torch.randn(200, 3, 8, generator=generator)
    outputs[:, 1, 4] += 6.0 * labels[:, 0]
    read = query_probes.probe(outputs, labels)
    assert read.shape == (3, 2) and read[1, 0] > 0.97
    others = torch.cat([read[[0, 2]].flatten(), read[1:2, 1]])
    assert (others < 0.75).all(), "what is not there cannot be read, on scenes the probe has not seen"
    with pytest.raises(ValueError, match="cannot be split"):
        query_probes.probe(outputs[:1], labels[:1])


def test_response_similarity_ignores_constant_parts():
    varies = torch.randn(50, 1, 6, generator=torch.Generator().manual_seed(1))
    outputs = torch.cat([varies + 100.0, varies - 100.0, -varies], dim=1)
    expected = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]])
    torch.testing.assert_close(query_probes.response_similarity(outputs), expected, atol=1e-4, rtol=0)


def test_attention_statistics_of_known_maps():
    even = torch.full((4, 3, 5), 0.2)
    assert query_probes.attention_statistics(even)["cls"] == pytest.approx(0.2) and query_probes.attention_statistics(
        even
    )["even"] == pytest.approx(1)
    one_place = torch.zeros(4, 3, 5)
    one_place[:, 0, 1] = one_place[:, 1, 2] = one_place[:, 2, 3] = 1.0  # each query its own patch, in every picture
    habit = query_probes.attention_statistics(one_place)
    assert habit["cls"] == 0 and habit["even"] == pytest.approx(0, abs=1e-6) and habit["fixed"] == pytest.approx(1)
    assert habit["same"] == pytest.approx(-1 / 3)
    follows = torch.zeros(4, 3, 5)
    for picture in range(4):
        follows[picture, :, 1 + picture] = 1.0  # all queries look at the picture's own place
    assert query_probes.attention_statistics(follows)["fixed"] == pytest.approx(-1 / 3)
    assert query_probes.attention_statistics(follows)["same"] == pytest.approx(1)


def test_dropping_finds_the_query_that_is_needed():
    """Only query 2's number is an answer: without it nothing is right."""
    prompts = torch.arange(4.0)[None, :, None].expand(5, -1, -1)

    def ask(kept):
        return {"total": float((kept[:, :, 0] == 2).any(dim=1).float().mean()) if kept.shape[1] else 0.0}

    lost = [1.0 - one["total"] for one in query_probes.accuracy_without_each(prompts, ask, lambda _: None)]
    assert lost == [0, 0, 1, 0]
    kept = query_probes.accuracy_with_fewer(prompts, ask, lambda _: None, draws=8)
    assert kept[0] == [0.0] and kept[4] == [1.0] and list(kept) == [0, 1, 2, 3, 4]
    assert 0 < sum(kept[1]) < 8 and sum(kept[3]) >= sum(kept[1])


def test_evaluate_queries_on_a_tiny_model(tiny_model):
    report = query_probes.evaluate_queries(tiny_model, scenes=12, asked_scenes=2)
    assert torch.tensor(report["probe"]).shape == (8, len(query_probes.NAMES))
    assert torch.tensor(report["attention_mean"]).shape == (8, 17)
    assert len(report["without"]) == 8 and set(report["fewer"]) == {0, 1, 2, 4, 6, 8}
    assert report["fewer"][8] == [report["with_all"]["total"]]
    means = query_probes.group_means(report["probe"])
    assert list(means) == list(query_probes.LABELS) and all(values.shape == (8,) for values in means.values())
    with pytest.raises(ValueError, match="at least 10"):
        query_probes.evaluate_queries(tiny_model, scenes=3)
