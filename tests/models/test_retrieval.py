import pytest
import torch

from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.retrieval import (
    NOT_RERANKED,
    match_pairs,
    pair_scores,
    read_gallery,
    retrieve,
    score_pairs,
    search,
)
from tests.lavis_golden import assert_close, model, tensors


@pytest.fixture(scope="module")
def lavis():
    return model()


@pytest.fixture(scope="module")
def gallery(lavis):
    return read_gallery(lavis, tensors()["in.image_features"].split(4))


@pytest.fixture(scope="module")
def texts():
    return tensors()["ret.in.input_ids"], tensors()["ret.in.attention_mask"]


@pytest.mark.parametrize("batch_size", [5, 256])
def test_scores_equal_lavis(lavis, gallery, texts, batch_size):
    scores = retrieve(lavis, gallery, *texts, shortlist=4, rank_by="lavis", batch_size=batch_size)
    assert_close(scores.image_to_text.clamp(min=-100), tensors()["ret.score_i2t"])
    assert_close(scores.text_to_image.clamp(min=-100), tensors()["ret.score_t2i"])
    found = search(lavis, gallery, *texts, shortlist=4, rank_by="lavis")
    assert_close(found.clamp(min=-100), tensors()["ret.score_t2i"])


def test_pairs_are_ranked_by_one_of_three_scores():
    logits, itc = torch.tensor([[1.0, 3.0], [-2.0, 2.5]]), torch.tensor([0.9, 0.1])
    assert_close(pair_scores(logits, itc, 0.1), torch.tensor([2.0, 4.5]))
    assert_close(pair_scores(logits, itc, 0.1, "lavis"), torch.tensor([3.9, 2.6]))
    assert_close(pair_scores(logits, itc, torch.tensor(0.1), "both"), torch.tensor([11.0, 5.5]))
    with pytest.raises(ValueError, match="choose one of itm, lavis, both"):
        pair_scores(logits, itc, 0.1, "ITM")


def test_itc_is_added_to_reranked_pairs_only(lavis, gallery, texts):
    alone, both = (retrieve(lavis, gallery, *texts, shortlist=4, rank_by=by) for by in ("itm", "both"))
    listed = alone.image_to_text != NOT_RERANKED
    assert not listed.all() and ((both.image_to_text != NOT_RERANKED) == listed).all()
    assert_close((both.image_to_text - alone.image_to_text)[listed], (both.itc / lavis.temperature)[listed])


def test_an_unknown_ranking_is_refused_before_anything_is_matched(lavis, gallery, texts, monkeypatch):
    monkeypatch.setattr(lavis, "itm_logits", None)
    with pytest.raises(ValueError, match="choose one of itm, lavis, both"):
        retrieve(lavis, gallery, *texts, rank_by="ITM")


def test_a_perfect_itm_and_a_perfect_itc_add_up():
    """ITM's optimal log-odds against negatives sampled by ITC, plus ITC's logit, are the true log-odds."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.rand(4, 6, generator=generator, dtype=torch.float64) + 0.05
    joint /= joint.sum()
    ratio = joint / joint.sum(dim=1, keepdim=True) / joint.sum(dim=0)  # p(image, text) / p(image) p(text)
    itc, temperature = torch.rand(4, 6, generator=generator, dtype=torch.float64), 0.3
    drawn = joint.sum(dim=0) * (itc / temperature).exp()  # in proportion to p(text) and to e^(ITC's logit)
    negatives = joint.sum(dim=1, keepdim=True) * drawn / drawn.sum(dim=1, keepdim=True)
    log_odds = (joint / negatives).log()
    for image in range(4):
        logits = torch.stack([torch.zeros(6, dtype=torch.float64), log_odds[image]], dim=1)
        both = pair_scores(logits, itc[image], temperature, "both")
        assert both.argsort().tolist() == ratio[image].argsort().tolist()
        difference = both - ratio[image].log()
        torch.testing.assert_close(difference, difference.mean().expand(6))
    assert any(log_odds[i].argmax() != ratio[i].argmax() for i in range(4)), "alone it would rank otherwise"


def test_the_shortlist_is_itcs_best(lavis, gallery, texts):
    scores = retrieve(lavis, gallery, *texts, shortlist=2)
    for row, itc in zip(scores.image_to_text, scores.itc, strict=True):
        assert set((row != NOT_RERANKED).nonzero().flatten().tolist()) == set(itc.topk(2).indices.tolist())
    for row, itc in zip(scores.text_to_image, scores.itc.T, strict=True):
        assert set((row != NOT_RERANKED).nonzero().flatten().tolist()) == set(itc.topk(2).indices.tolist())


def test_a_shortlist_longer_than_the_gallery_is_the_gallery(lavis, gallery, texts):
    scores = retrieve(lavis, gallery, *texts)
    assert (scores.image_to_text != NOT_RERANKED).all()
    assert_close(scores.image_to_text, scores.text_to_image.T)


def test_each_image_is_encoded_once(lavis, texts, monkeypatch):
    read, keys_values = [], MultiHeadAttention.keys_values
    cross = lavis.qformer.layers[0].cross_attention

    def counting(self, memory, *folded):
        if self is cross:
            read.append(len(memory))
        return keys_values(self, memory, *folded)

    monkeypatch.setattr(MultiHeadAttention, "keys_values", counting)
    gallery = read_gallery(lavis, tensors()["in.image_features"].split(2))
    retrieve(lavis, gallery, *texts, shortlist=4)
    search(lavis, gallery, *texts, shortlist=4)
    assert read == [2, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_pairs_keep_their_order(lavis, gallery, texts, batch_size):
    pairs = torch.tensor([[5, 8], [0, 1], [3, 2], [0, 0], [5, 1], [0, 4], [2, 2], [0, 8]])  # 4, 2, 1 and 1 of an image
    together = match_pairs(lavis, gallery, pairs, *texts, batch_size=batch_size)
    single = torch.cat([match_pairs(lavis, gallery, pair[None], *texts) for pair in pairs])
    assert_close(together, single)


def test_score_pairs(lavis, gallery, texts):
    ids, mask = texts[0][:6], texts[1][:6]
    itc, itm = score_pairs(lavis, tensors()["in.image_features"], ids, mask)
    scores = retrieve(lavis, gallery, ids, mask)
    assert_close(itc, scores.itc.diagonal())
    assert itm.min() >= 0 and itm.max() <= 1
    assert itm.argsort().tolist() != scores.itc.diagonal().argsort().tolist()  # two opinions


def test_nothing_to_search_in(lavis):
    with pytest.raises(ValueError, match="no picture"):
        read_gallery(lavis, [])
