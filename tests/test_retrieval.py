import pytest
import torch
from lavis_golden import assert_close, model, tensors

from blip2_lab.attention import MultiHeadAttention
from blip2_lab.retrieval import NOT_RERANKED, match_pairs, plus_itc, read_gallery, retrieve, score_pairs, search


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
    scores = retrieve(lavis, gallery, *texts, shortlist=4, itc_weight=1, batch_size=batch_size)
    assert_close(scores.image_to_text, tensors()["ret.score_i2t"])
    assert_close(scores.text_to_image, tensors()["ret.score_t2i"])
    assert_close(search(lavis, gallery, *texts, shortlist=4, itc_weight=1), tensors()["ret.score_t2i"])


def test_the_paper_ranks_by_itm_alone(lavis, gallery, texts):
    with_itc = retrieve(lavis, gallery, *texts, shortlist=4, itc_weight=1)
    without = retrieve(lavis, gallery, *texts, shortlist=4)
    listed = without.image_to_text != NOT_RERANKED
    assert_close((with_itc.image_to_text - without.image_to_text)[listed], with_itc.itc[listed])


def test_itc_is_added_to_what_itm_judged_only():
    itm, itc = torch.tensor([[1.0, NOT_RERANKED], [0.0, 2.0]]), torch.tensor([[0.2, 0.9], [0.1, 0.3]])
    assert_close(plus_itc(itm, itc, 10), torch.tensor([[3.0, NOT_RERANKED], [1.0, 5.0]]))


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


def test_each_picture_is_read_once(lavis, texts, monkeypatch):
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
