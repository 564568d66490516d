"""What a comparison measures of one model: toys whose numbers are known by hand, and tiny models."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch

from blip2_lab.evaluation import bridges
from blip2_lab.evaluation.bridges import CANDIDATES, CONDITIONS, Exam, TensorBytes, bits, peak_bytes, retrieval_bits
from blip2_lab.models.bridges import DualEncoder, DualEncoderConfig
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import sample_scene
from tests.tiny import BRIDGES, build_bridged_model, build_tiny_model

EXAM = Exam(scenes=2, ranked=2, costed=1, texts=2)


def test_every_answer_is_among_the_candidates_of_its_type():
    assert CANDIDATES.keys() == words.VISUAL_QUESTIONS.keys()
    for index in range(300):
        for question in words.questions(sample_scene(5, index, "in"), Random(index)):
            if question.type in CANDIDATES:
                assert question.answer in CANDIDATES[question.type], question


def test_ranking_counts_the_best_candidate_and_no_tie():
    truth = {(number, question.text): question.answer for number, question, _ in EXAM.asked}

    def knows(scenes, asked, candidates):
        rows = zip(scenes, asked, candidates, strict=True)
        return torch.tensor([float(truth[scene, text] == answer) for scene, text, answer in rows])

    assert all(bridges._ranked(EXAM, knows)) and len(bridges._ranked(EXAM, knows)) == len(EXAM.asked)
    assert not any(bridges._ranked(EXAM, lambda *rows: -knows(*rows)))
    assert not any(bridges._ranked(EXAM, lambda scenes, *_: torch.zeros(len(scenes))))
    one = replace(EXAM, scenes=3)  # questions about the third scene are not ranked
    assert len(bridges._ranked(one, knows)) == len(EXAM.asked) < len(one.asked)


def test_retrieval_before_and_after_itm_by_hand():
    """Image 0 finds text 1 by ITC, and its own after ITM."""
    itc = torch.tensor([[0.2, 0.9, 0.1], [0.1, 0.95, 0.3], [0.0, 0.1, 0.8]])

    def match(pairs):
        own = (pairs[:, 0] == pairs[:, 1]).float()
        return torch.stack([1 - own, 20 * own], dim=1)

    found = retrieval_bits(itc, match, torch.tensor(0.1))
    assert found["itc_image_to_text"] == "011" and found["itc_text_to_image"] == "111"
    assert found["itm_image_to_text"] == found["itm_text_to_image"] == "111"
    assert found["matched_true"] == found["matched_wrong"] == "111"
    wrong = retrieval_bits(itc, lambda pairs: match(pairs).flip(1), torch.tensor(0.1))
    assert wrong["matched_true"] == wrong["matched_wrong"] == wrong["itm_image_to_text"] == "000"
    same = retrieval_bits(torch.ones(3, 3), lambda pairs: torch.zeros(len(pairs), 2), torch.tensor(0.1))
    assert {same[name] for name in same if "_to_" in name} == {"000"}  # a constant score finds nothing


def test_retrieval_ranks_only_the_shortlist(monkeypatch):
    """ITM cannot bring back what ITC has not listed."""
    monkeypatch.setattr(bridges, "SHORTLIST", 1)
    itc = torch.tensor([[0.2, 0.9], [0.1, 0.95]])
    found = retrieval_bits(itc, lambda pairs: torch.eye(2)[(pairs[:, 0] == pairs[:, 1]).long()], torch.tensor(1.0))
    assert found["itm_image_to_text"] == "01" and found["itc_image_to_text"] == "01"


def test_peak_bytes_by_hand():
    model = torch.nn.Linear(100, 1000, bias=False).requires_grad_(False)
    weights, x = model.weight.nbytes, torch.randn(10, 100)

    def one_after_the_other():
        model(x)
        y = model(x)
        return y + 1  # two of 40,000 bytes at a time

    assert peak_bytes(one_after_the_other, model) == weights + 80_000
    model.requires_grad_(True)

    def train():
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        model(x).sum().backward()
        optimizer.step()

    assert 4 * weights <= peak_bytes(train, model) < 4.2 * weights  # weights, gradients, two moments
    with TensorBytes() as counted:
        view = torch.zeros(10)[2:].view(2, 4)
    assert counted.peak == 40 and view.shape == (2, 4)  # a view has no storage of its own


def test_perplexity_of_a_model_that_guesses_is_its_vocabulary():
    for kind in ("t5", "opt"):
        language_model = build_tiny_model(kind).language_model
        torch.nn.init.zeros_(language_model.model.get_output_embeddings().weight)
        size = language_model.model.get_output_embeddings().weight.shape[0]
        assert bridges.text_perplexity(language_model, EXAM) == pytest.approx(size, rel=1e-4)
    firsts, seconds = zip(*EXAM.plain_texts, strict=True)
    assert all(firsts) and all(seconds)


def test_right_and_wrong_as_a_row_of_bits():
    assert bits([True, False, True]) == "101" and bits(torch.tensor([False, True])) == "01"


def test_an_exam_that_is_too_small_is_said():
    with pytest.raises(ValueError, match="scenes is 1; a comparison needs at least 2"):
        Exam(scenes=1)


def test_a_model_with_both_stages_has_every_result():
    found = bridges.measure(build_tiny_model(), EXAM)
    assert found["questions"].keys() == found["ranked"].keys() == set(CONDITIONS) and found["natural"] == {}
    assert {len(one) for one in found["questions"].values()} == {len(EXAM.asked)}
    assert len(found["captions"]) == 2 and found["tokens"] == 8 and len(found["retrieval"]["matched_true"]) == 2
    assert found["answer"].keys() == {"flops", "milliseconds", "bytes"} and min(found["answer"].values()) > 0
    assert math.isfinite(found["perplexity"])


@pytest.mark.parametrize("name", BRIDGES)
def test_every_bridge_that_answers_is_measured(name, tiny_model):
    model = build_bridged_model(name, tiny_model)
    found = bridges.measure(model, EXAM)
    assert len(found["captions"]) == 2 and found["retrieval"] is None and min(found["answer"].values()) > 0
    assert any(parameter.requires_grad for parameter in model.bridge.parameters()), "as before"


def test_a_dual_encoder_ranks_and_retrieves_and_says_that_it_writes_no_text():
    parts = build_tiny_model("opt")
    model = DualEncoder(DualEncoderConfig(64, 64, 2, embed_width=16), parts.image_encoder, parts.language_model).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for block in model.blocks:
            block.attention_gate.fill_(2.0)
            block.cross_attention.value.weight.mul_(30)
        torch.nn.init.normal_(model.itm_head.weight)
    found = bridges.measure(model, replace(EXAM, scenes=3))
    assert found["captions"] is None and found["questions"] == {} and "generates no text" in found["no_captions"]
    ranked = found["ranked"]
    assert {len(one) for one in ranked.values()} == {len(EXAM.asked)} and len(found["retrieval"]["matched_true"]) == 3
    features = bridges.image_features(model, EXAM.book, 2)
    tokens, texts = model.image_tokens(features), model.text_states(["a boat.", "a red cat."])
    with torch.no_grad():
        seen, blind = model.match_logits(tokens, *texts), model.match_logits(tokens[:, :0], *texts)
        alone = model.itm_head(model.itm_layer_norm(texts[0])) * texts[1][:, :, None]
    torch.testing.assert_close(blind, alone.sum(dim=1) / texts[1].sum(dim=1, keepdim=True))  # the text encoder alone
    assert not torch.allclose(seen, blind, atol=1e-3)
