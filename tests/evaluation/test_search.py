"""Search by phrases, with a stand-in for stage 1 whose verdicts are known."""

import torch

from blip2_lab.evaluation import search
from blip2_lab.models import retrieval
from blip2_lab.picturebook.scene import sample_scene

BOOK = [sample_scene(5, index, "in") for index in range(400)]


class Stage1:
    device = torch.device("cpu")

    def tokenize(self, texts):
        self.texts = texts
        return torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.long)


def scores_with(monkeypatch, judge):
    """`search_scores` where `judge(scene, text)` is both the ranking and the verdict."""
    stage1, several = Stage1(), [scene for scene in BOOK if len(scene.things) > 1]

    def table():
        return torch.tensor([[float(judge(scene, text)) for scene in several] for text in stage1.texts])

    def match_pairs(model, gallery, pairs, *texts):
        yes = table()[pairs[:, 1], pairs[:, 0]]
        return torch.stack([1 - yes, yes], dim=1)

    monkeypatch.setattr(retrieval, "read_gallery", lambda *_: None)
    monkeypatch.setattr(retrieval, "search", lambda *_, **__: table())
    monkeypatch.setattr(retrieval, "match_pairs", match_pairs)
    return search.search_scores(stage1, torch.zeros(len(BOOK), 1, 1), BOOK, seed=0)


def shows(scene, text, together=True):
    _, color, kind = text.rstrip(".").split()
    if together:
        return any((thing.color, thing.kind) == (color, kind) for thing in scene.things)
    return any(t.color == color for t in scene.things) and any(t.kind == kind for t in scene.things)


def test_a_perfect_judge_scores_one(monkeypatch):
    found = scores_with(monkeypatch, shows)
    assert found["phrases"] > 20 and found["gallery"] == sum(len(scene.things) > 1 for scene in BOOK)
    assert found["precision_at_5_itm"] == found["itm_true"] == found["itm_false"] == found["itm_false_hard"] == 1
    assert found["precision_at_5_random"] < 0.1


def test_a_judge_that_does_not_bind_color_and_kind_fails_the_hard_pairs(monkeypatch):
    found = scores_with(monkeypatch, lambda scene, text: shows(scene, text, together=False))
    assert found["itm_true"] == 1 and found["itm_false_hard"] == 0 and found["precision_at_5_itm"] < 0.9


def test_a_judge_that_always_says_no_finds_no_true_pair(monkeypatch):
    found = scores_with(monkeypatch, lambda scene, text: False)
    assert found["itm_true"] == 0 and found["itm_false"] == found["itm_false_hard"] == 1
