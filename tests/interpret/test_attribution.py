"""Every attribution method on cases solved by hand, and the axioms that it claims."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.interpret import attribution
from blip2_lab.interpret.attention_maps import AttentionMap, AttentionMaps, record_attention
from blip2_lab.interpret.attribution import METHODS
from blip2_lab.interpret.targets import ItcScore, ItmScore, Score, WordScore, answer_ids, answer_words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene

PROMPT = "Question: what color is the boat? Short answer:"


class Encoder(torch.nn.Module):
    """Four patches of 2 x 2 pixels: a feature is its patch's sum of pixels; [CLS] first."""

    class model:
        class config:
            patch_size = 2

    def forward(self, pixels):
        patches = pixels.unfold(2, 2, 2).unfold(3, 2, 2).sum(dim=(1, 4, 5)).flatten(1)  # [B, 4]
        return torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)[..., None]


class Linear(Score):
    """Weights times patch sums: every complete method must find weight times (sum minus blank's sum)."""

    def __init__(self, weights):
        self.model = type("Model", (), {"image_encoder": Encoder()})()
        self.weights = torch.tensor([0.0, *weights])

    def of_features(self, image_features):
        return image_features[..., 0] @ self.weights


class Both(Linear):
    """The product of the first two patches: neither is worth anything alone."""

    def of_features(self, image_features):
        return image_features[:, 1, 0] * image_features[:, 2, 0]


PIXELS = torch.arange(48.0).view(1, 3, 4, 4) / 10


@pytest.mark.parametrize(
    "method",
    [
        attribution.explain_integrated_gradients,
        attribution.explain_layer,
        attribution.explain_occlusion,
        lambda score, pixels: attribution.explain_shapley(score, pixels, block=1),
    ],
)
def test_perturbation_and_gradients_find_a_linear_score_exactly(method):
    score = Linear([1.0, -2.0, 0.0, 3.0])
    sums = Encoder()(PIXELS - attribution.blank(PIXELS))[0, 1:, 0]
    expected = (sums * score.weights[1:]).view(1, 2, 2)
    explanation = method(score, PIXELS)
    torch.testing.assert_close(explanation.map, expected, atol=1e-3, rtol=1e-4)
    assert abs(explanation.delta) < 1e-3


def test_shapley_divides_an_interaction_of_two_patches_and_occlusion_does_not():
    score, pixels = Both([0.0] * 4), torch.zeros(1, 3, 4, 4)
    pixels[:, :, :2] = 1.0  # the upper two patches: sum 12 each, blank: 6 each
    shapley = attribution.explain_shapley(score, pixels, block=1, samples=40)
    assert abs(shapley.delta) < 1e-4
    assert shapley.map[0, 1].abs().max() < 1e-6
    assert shapley.total.sum() == pytest.approx(144 - 36)
    torch.testing.assert_close(shapley.map[0, 0, 0], torch.tensor(54.0), rtol=0.35, atol=0)
    occlusion = attribution.explain_occlusion(score, pixels)
    torch.testing.assert_close(occlusion.map[0, 0], torch.tensor([72.0, 72.0]))
    assert occlusion.delta == pytest.approx(144 - 108)


def test_the_value_of_a_block_is_spread_evenly():
    explanation = attribution.explain_shapley(Linear([1.0, 1.0, 1.0, 1.0]), PIXELS, block=2)
    assert explanation.map.shape == (1, 2, 2) and explanation.map.std() < 1e-5


def test_the_grid_leaves_cls_out_and_refuses_other_shapes():
    rows = torch.arange(10.0).view(1, 10)
    assert attribution.to_grid(rows).tolist() == [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]
    with pytest.raises(ValueError, match="square"):
        attribution.to_grid(torch.zeros(1, 8))


# --- Attention, by hand ---------------------------------------------------------------------------------------------


def recorded(*found: tuple) -> AttentionMaps:
    """Maps from (part, kind, layer, weights [L][M], gradient or None), one picture and one head."""
    maps = AttentionMaps()
    for part, kind, layer, weights, gradient in found:
        tensors = [None if x is None else torch.tensor(x)[None, None] for x in (weights, gradient)]
        maps._maps.append(AttentionMap(part, kind, layer, 0, *tensors))
    return maps


EYE2 = [[1.0, 0.0], [0.0, 1.0]]
SWAP = [[0.0, 1.0], [1.0, 0.0]]
#: two queries over [CLS] and four patches: one reads patch 1, the other patch 4
CROSS = [[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]


def test_raw_attention_is_the_mean_over_layers():
    other = [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    maps = recorded(("qformer", "cross", 0, CROSS, None), ("qformer", "cross", 2, other, None))
    assert attribution.raw_attention(maps).tolist() == [[[0.5, 0], [0, 0]], [[0, 0], [0, 1]]]


def test_rollout_follows_a_swap_of_the_queries():
    """Layer 0 reads, layer 1 swaps: half of what a query holds at the end is the other's patch."""
    maps = recorded(
        ("qformer", "self", 0, EYE2, None), ("qformer", "cross", 0, CROSS, None), ("qformer", "self", 1, SWAP, None)
    )
    assert attribution.rollout(maps).tolist() == [[[0.25, 0], [0, 0.25]], [[0.25, 0], [0, 0.25]]]


def test_rollout_goes_back_through_the_image_encoder():
    """The encoder's only layer moved patch 1 to where patch 2 is read: half stays on the residual."""
    mover = torch.eye(5)
    mover[1], mover[2] = torch.eye(5)[2], torch.eye(5)[1]
    maps = recorded(
        ("image_encoder", "self", 0, mover.tolist(), None),
        ("qformer", "self", 0, EYE2, None),
        ("qformer", "cross", 0, CROSS, None),
    )
    assert attribution.rollout(maps)[0].tolist() == [[0.25, 0.25], [0, 0]]


def test_rollout_returns_query_rows_only():
    """Text rows take part in self-attention; the last layer may have fewer rows than columns."""
    full = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    last = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]  # query 0 reads the text row, which has read query 0
    maps = recorded(
        ("qformer", "self", 0, full, None),
        ("qformer", "cross", 0, CROSS, None),
        ("qformer", "self", 1, full, None),
        ("qformer", "self", 2, last, None),
    )
    rolled = attribution.rollout(maps)
    assert rolled.shape == (2, 2, 2)
    # held after layer 0: query 0: 1/2. Layer 1: text: 1/4, query 0: 1/2. Layer 2: query 0: (1/4 + 1/2) / 2
    assert rolled[0, 0, 0] == 0.375


def test_gradient_attention_takes_positive_parts_only():
    gradient = [[0.0, 2.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, -3.0]]
    maps = recorded(("qformer", "cross", 0, CROSS, gradient), ("qformer", "cross", 2, CROSS, gradient))
    assert attribution.gradient_attention(maps).tolist() == [[[4, 0], [0, 0]], [[0, 0], [0, 0]]]
    with pytest.raises(ValueError, match="differentiate"):
        attribution.gradient_attention(recorded(("qformer", "cross", 0, CROSS, None)))


def test_relevance_of_one_layer_is_gradient_attention_and_mixing_adds():
    gradient = [[0.0, 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 4.0]]
    none = [[0.0, 0.0], [0.0, 0.0]]
    one = recorded(("qformer", "self", 0, none, none), ("qformer", "cross", 0, CROSS, gradient))
    torch.testing.assert_close(attribution.relevance(one), attribution.gradient_attention(one))
    mixed = recorded(*[(m.part, m.kind, m.layer, m.weights[0, 0].tolist(), m.gradient[0, 0].tolist()) for m in one])
    swap = AttentionMap("qformer", "self", 1, 0, torch.tensor(SWAP)[None, None], torch.ones(1, 1, 2, 2))
    mixed._maps.append(swap)
    assert attribution.relevance(mixed).tolist() == [[[2, 0], [0, 4]], [[2, 0], [0, 4]]]


# --- Scores ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture():
    return draw(sample_scene(7, 2, "in"), 48)


def all_scores(model):
    return {
        "itm": ItmScore(model.stage1, "a red boat"),
        "itc": ItcScore(model.stage1, "a red boat"),
        "word": WordScore(model, PROMPT, "red"),
    }


def test_scores_match_the_model(tiny_model, picture):
    pixels = tiny_model.image_encoder.preprocess([picture])
    features = tiny_model.image_encoder(pixels)
    stage1, scores = tiny_model.stage1, all_scores(tiny_model)
    texts = stage1.tokenize(["a red boat"])
    with torch.no_grad():
        logits = stage1.itm_logits(stage1.qformer.read_image(features), *texts)[0]
        torch.testing.assert_close(scores["itm"](pixels)[0], logits[1] - logits[0])
        torch.testing.assert_close(scores["itm"].probability(scores["itm"](pixels)[0]), logits.softmax(0)[1])
        cosines = stage1.embed_image(features)[0] @ stage1.embed_text(*texts)[0]
        torch.testing.assert_close(scores["itc"](pixels)[0], cosines.max())
        assert scores["itc"].by_query(features).shape == scores["itm"].by_query(features).shape == (1, 8)
        lm = tiny_model.language_model
        ids = answer_ids(lm, PROMPT, "red")
        (probability,) = lm.probabilities(tiny_model.visual_prompt(features), lm.prompt_texts([PROMPT]), ids)
        assert scores["word"].probability(scores["word"](pixels)).item() == pytest.approx(probability, rel=1e-4)


@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_the_words_of_an_answer_and_their_probabilities(kind, tiny_model, tiny_decoder_model, picture):
    model = tiny_model if kind == "t5" else tiny_decoder_model
    lm, answer = model.language_model, "a red boat"
    found = answer_words(lm, PROMPT, answer)
    assert [word for word, _ in found] == ["a", "red", "boat"] and [p for _, p in found] == [[0], [1], [2]]
    assert lm.decode(answer_ids(lm, PROMPT, answer)) == answer
    pixels = model.image_encoder.preprocess([picture])
    with torch.no_grad():
        prompt = model.visual_prompt(model.image_encoder(pixels))
        expected = lm.probabilities(prompt, lm.prompt_texts([PROMPT]), answer_ids(lm, PROMPT, answer))
        got = [WordScore(model, PROMPT, answer, word)(pixels).exp().item() for word in range(3)]
    assert got == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="3 words; there is no word number 3"):
        WordScore(model, PROMPT, answer, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["itm", "itc", "word"])
def test_every_method_explains_every_score(tiny_model, picture, method, target):
    pixels = tiny_model.image_encoder.preprocess([picture])
    explanation = METHODS[method](all_scores(tiny_model)[target], pixels)
    rows, height, width = explanation.map.shape
    assert rows in (1, 8) and height == width == 4 and explanation.map.isfinite().all()
    assert not explanation.map.requires_grad and explanation.map.abs().sum() > 0
    torch.testing.assert_close(explanation.total, explanation.map.sum(0))


def test_a_decoder_language_model_is_explained_too(tiny_decoder_model, picture):
    pixels = tiny_decoder_model.image_encoder.preprocess([picture])
    score = WordScore(tiny_decoder_model, PROMPT, "a red boat", 2)
    for method in ("raw", "rollout", "gradient", "relevance"):
        assert METHODS[method](score, pixels).map.shape == (8, 4, 4)


def test_query_weights_sum_to_one_and_itc_has_one_query(tiny_model, picture):
    pixels = tiny_model.image_encoder.preprocess([picture])
    for target, score in all_scores(tiny_model).items():
        maps, features = attribution.record_score(score, pixels)
        weights = score.query_weights(features, maps)
        assert weights.shape == (8,) and weights.sum().item() == pytest.approx(1, abs=1e-5)
        if target == "itc":
            assert weights.max() == 1 and weights.argmax() == score.by_query(features).argmax()


def test_only_the_best_query_has_a_gradient_in_itc(tiny_model, picture):
    """In the first layer all queries still help the winner; in the last cross-attention only its own row counts."""
    score = ItcScore(tiny_model.stage1, "a red boat")
    pixels = tiny_model.image_encoder.preprocess([picture])
    with record_attention(tiny_model.stage1, parts=["qformer"], gradients=True) as maps:
        features = tiny_model.image_encoder(pixels)
        maps.differentiate(score.of_features(features).sum())
    rows = maps.select("qformer", "self", layer=1)[0].gradient[0].abs().sum(dim=(0, 2))
    assert (rows > 0).nonzero().flatten().tolist() == [score.by_query(features).argmax().item()]


def test_shapley_of_the_queries_is_complete_and_finds_the_one_that_matters(tiny_model, picture):
    score = WordScore(tiny_model, PROMPT, "red")
    prompt = tiny_model.encode_image(picture)
    values, delta = attribution.query_shapley(score, prompt, samples=3)
    assert values.shape == (8,) and abs(delta) < 1e-4
    baseline = prompt.clone()
    baseline[:, 3] = -prompt[:, 3]  # all other queries are as they are: only this one can carry anything
    values, delta = attribution.query_shapley(score, prompt, baseline, samples=2)
    assert values.abs().argmax() == 3 and values[[0, 1, 2, 4, 5, 6, 7]].abs().max() < 1e-5


def test_maps_are_for_one_image_at_a_time(tiny_model, picture):
    pixels = tiny_model.image_encoder.preprocess([picture, picture])
    with pytest.raises(ValueError, match="one picture at a time"):
        METHODS["raw"](ItcScore(tiny_model.stage1, "a boat"), pixels)


def test_without_an_image_encoder_there_is_an_error(tiny_model):
    import copy

    alone = copy.copy(tiny_model.stage1)
    alone._modules = {**tiny_model.stage1._modules, "image_encoder": None}
    with pytest.raises(ValueError, match="no image encoder"):
        ItmScore(alone, "a boat")
