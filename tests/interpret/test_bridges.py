"""Attention maps, attribution and grounding with every bridge that can answer; what is not defined is one sentence."""

from __future__ import annotations

import copy

import pytest
import torch

from blip2_lab.interpret import attribution, grounding, query_probes, report
from blip2_lab.interpret.attention_maps import AttentionMap, AttentionMaps, record_attention
from blip2_lab.interpret.attribution import METHODS, OF_ATTENTION, defined_methods
from blip2_lab.interpret.targets import WordScore, reader_of
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import BRIDGES, build_bridged_model, build_tiny_model, loud

PROMPT, ANSWER = "Question: what color is the boat? Short answer:", "red boat"
FAST = {"shapley": dict(samples=1), "integrated-gradients": dict(steps=2), "layer": dict(steps=2)}
READER = {"wide_qformer": "qformer", "gated": "bridge", "gated-resampler": "resampler"}


@pytest.fixture(scope="module", params=["t5", "opt"])
def frozen(request):
    model = build_tiny_model(request.param)
    loud(model)
    return model


@pytest.fixture(scope="module", params=BRIDGES)
def named(request, frozen):
    return request.param, build_bridged_model(request.param, frozen)


def pixels_of(model):
    return model.image_encoder.preprocess([draw(sample_scene(0, 1), 48)])


def test_every_defined_method_gives_a_map_and_the_others_one_sentence(named):
    name, model = named
    score = WordScore(model, PROMPT, ANSWER, 1)
    pixels = pixels_of(model)
    assert score.reader == reader_of(model.bridge) == READER.get(name)
    for method, explain in METHODS.items():
        if method in defined_methods(score.reader):
            found = explain(score, pixels, **FAST.get(method, {}))
            assert found.map.shape[1:] == (4, 4) and torch.isfinite(found.map).all() and found.map.abs().sum() > 0
            if method in OF_ATTENTION:
                assert len(found.map) == len(score.row_names())
        else:
            with pytest.raises(ValueError, match="no attention to the patches") as refused:
                explain(score, pixels)
            assert str(refused.value).count("\n") == 0
    assert (set(METHODS) - set(defined_methods(score.reader)) == set(OF_ATTENTION)) == (score.reader is None)


def test_the_rows_have_weights_and_names(named):
    _, model = named
    score = WordScore(model, PROMPT, ANSWER, 1)
    if score.reader is None:
        pytest.skip("this bridge attends to nothing")
    maps, features = attribution.record_score(score, pixels_of(model))
    weights = score.query_weights(features, maps)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5) and weights.min() >= 0
    assert len(weights) == len(score.row_names()) == len(attribution.raw_attention(maps, score.reader))
    if score.reader == "bridge":  # the step that predicts the word has all the weight
        assert score.row_names()[int(weights.argmax())] == "boat"


def test_the_map_of_gated_attention_is_the_row_before_the_word(frozen):
    """By hand: the softmax of the last step, mean over blocks and heads, without [CLS]."""
    model = build_bridged_model("gated", frozen)
    score, pixels = WordScore(model, PROMPT, ANSWER, 1), pixels_of(model)
    with record_attention(model, parts=["bridge"]) as maps, torch.no_grad():
        score(pixels)
    step = -1 if score.model.language_model.model.config.is_encoder_decoder else -2  # its last row predicts the next
    expected = torch.stack([found.weights[0].mean(dim=0)[step, 1:] for found in maps]).mean(dim=0).view(4, 4)
    torch.testing.assert_close(METHODS["raw"](score, pixels).total, expected)


def test_rollout_and_relevance_through_gated_blocks_by_hand():
    """Two tokens: the block reads, then the layer's self-attention swaps the tokens."""
    maps = AttentionMaps()
    read = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 0, 0, 1]])[None, None]
    swap = torch.tensor([[0.0, 1], [1, 0]])[None, None]
    for part, kind, weights in (("bridge", "cross", read), ("language_decoder", "self", swap)):
        maps._maps.append(AttentionMap(part, kind, 0, 0, weights, torch.ones_like(weights)))
    rolled = attribution.rollout(maps, "bridge").flatten(1)
    assert rolled.tolist() == [[0.25, 0, 0, 0.25], [0.25, 0, 0, 0.25]]
    assert attribution.relevance(maps, "bridge").flatten(1).tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]
    early = AttentionMaps()
    early._maps = maps._maps[::-1]  # the layer first: the tokens have read nothing that could be swapped
    assert attribution.rollout(early, "bridge").flatten(1).tolist() == [[0.5, 0, 0, 0], [0, 0, 0, 0.5]]


def test_rollout_and_relevance_through_a_resampler_by_hand():
    """One step of two latents over [CLS], four patches and the latents: the second latent reads the first one's."""
    maps = AttentionMaps()
    first = torch.tensor([[0.0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]])[None, None]
    second = torch.tensor([[0.0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]])[None, None]
    for layer, weights in enumerate((first, second)):
        maps._maps.append(AttentionMap("resampler", "cross", layer, 0, weights, torch.ones_like(weights)))
    assert attribution.raw_attention(maps, "resampler").flatten(1).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0.5]]
    assert attribution.rollout(maps, "resampler").flatten(1).tolist() == [[0.75, 0, 0, 0], [0.25, 0, 0, 0.25]]
    assert attribution.relevance(maps, "resampler").flatten(1).tolist() == [[2, 0, 0, 0], [1, 0, 0, 1]]


def test_grounding_runs_and_its_page_says_what_there_is_not(frozen, tmp_path):
    for name in ("linear", "gated"):
        model = build_bridged_model(name, frozen)
        methods = ["layer"] if name == "linear" else ["raw", "layer"]
        found = grounding.evaluate_grounding(model, methods=methods, scenes=1)
        assert set(found["targets"]) == {"word"}
        with pytest.raises(ValueError, match="is no Q-Former, so it has no queries"):
            query_probes.evaluate_queries(model, scenes=12, asked_scenes=1)
        text = report.page(found | {"name": "runs/x", "queries": None}, "see")
        assert query_probes.NO_QUERIES in text and "What each query does" not in text
    with pytest.raises(ValueError, match="so raw, rollout cannot be computed: choose from integrated-gradients"):
        grounding.evaluate_grounding(build_bridged_model("mlp", frozen), methods=["raw", "layer", "rollout"], scenes=1)


def test_shuffled_blocks_are_those_that_answer(frozen):
    """A copy that shares the frozen language model must not read by the trained model's blocks."""
    model = build_bridged_model("gated", frozen)
    twin = grounding.shuffle_trained(model)
    assert twin.language_model.deep_fusion is twin.bridge and model.language_model.deep_fusion is model.bridge
    assert twin.language_model.model is model.language_model.model
    pixels = pixels_of(model)
    ours, theirs = (WordScore(m, PROMPT, ANSWER)(pixels).item() for m in (model, twin))
    assert ours != pytest.approx(theirs, abs=1e-4)
    assert grounding.trained_fingerprint(twin) != grounding.trained_fingerprint(model)
    assert grounding.trained_fingerprint(copy.deepcopy(model)) == grounding.trained_fingerprint(model)
