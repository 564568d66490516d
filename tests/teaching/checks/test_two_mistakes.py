"""Two known mistakes at once: makers of wrong functions, their pairs, and what a student is told."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.variants import Variant, pairs_of, variants_of
from blip2_lab.teaching.checks.verdicts import FAILED


@variants_of
def product(*, shift=0, **factors):
    return lambda x: (x + shift) * factors.get("factor", 1)


def test_a_maker_gives_functions_that_know_their_options():
    variant = product(shift=2, factor=3)
    assert isinstance(variant, Variant) and variant.options == {"shift": 2, "factor": 3}
    assert variant(1) == 9 and list(inspect.signature(variant).parameters) == ["x"]


def test_pairs_are_made_of_one_maker_and_of_different_options():
    @variants_of
    def other(shift=0):
        return lambda x: x - shift

    mistakes = {
        "A.": product(shift=1), "B.": product(factor=2), "C.": product(shift=5), "D.": other(1), "E.": lambda x: x,
    }  # fmt: skip
    made = {words: function(1) for words, function in pairs_of(mistakes)}
    assert made == {"A. And: B.": 4, "B. And: C.": 12}


def no_root_and_masked_after(queries, keys, mask=None):
    weights = (queries @ keys.T).softmax(-1)
    return weights if mask is None else weights * mask


def no_root_and_swapped(x, image, to_query, to_key, to_value):
    return ((x @ to_query) @ (image @ to_value).T).softmax(-1) @ (image @ to_key)


def sigmoid_and_relu(block, x, keys, values):
    read = block.cross_attention(block.attention_layer_norm(x), keys, values)
    x = x + torch.sigmoid(block.attention_gate) * read
    return x + torch.sigmoid(block.ffn_gate) * block.contract(F.relu(block.expand(block.ffn_layer_norm(x))))


def norms_before_both(layer, x, num_queries, image, mask):
    inside = layer.self_attention_layer_norm(x)
    x = x + layer.self_attention(inside, *layer.self_attention.keys_values(inside), mask)
    queries = x[:, :num_queries]
    if layer.cross_attention is not None:
        queries = queries + layer.cross_attention(layer.cross_attention_layer_norm(queries), *image)
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(x[:, num_queries:])], 1)


def added_and_smoothed(image, text, temperature):
    similarity = torch.einsum("bqe,me->bqm", image, text).amax(1) / temperature
    own = torch.arange(len(similarity))
    return sum(F.cross_entropy(way, own, label_smoothing=0.1) for way in (similarity, similarity.T))


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("attention_weights", no_root_and_masked_after, ("not divided by the root", "after the softmax")),
        ("cross_attention_head", no_root_and_swapped, ("not divided by the root", "Keys and values are swapped")),
        ("gated_block", sigmoid_and_relu, ("sigmoid is half open", "not a ReLU")),
        ("qformer_layer", norms_before_both, ("before self-attention", "before cross-attention")),
        ("contrastive_loss", added_and_smoothed, ("directions are added", "Labels are smoothed")),
        (
            "batch_schedule",
            lambda b, g, each, pairs, w: (-(-b // each), pairs // (b * g), w * b * g / pairs),
            ("number of GPUs is forgotten", "batch of all GPUs already"),
        ),
        (
            "gated_parameters",
            lambda v, d, f, n, k: -(-n // k) * (2 * v + 4 * d + 2 * (d * d + d) + 2 * (v * d + d) + 2 * d * f + f + d),
            ("gates are forgotten", "counted in each block"),
        ),
    ],
)
def test_both_mistakes_are_told(name, answer, words):
    verdict = getattr(checks, name)(answer)
    assert verdict.status == FAILED and verdict.message.startswith("There are two mistakes."), verdict
    assert all(word in verdict.message for word in words), verdict


def best_of_sizes(image_embeds, text_embeds):
    return (image_embeds @ text_embeds.T).abs().mean(1)


def shifted_and_summed(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def places_and_cosine(a, b):
    a, b = (x.flatten().argsort().float() for x in (a, b))
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize(
    ("name", "answer", "one", "other"),
    [
        ("itc_similarity", best_of_sizes, "No abs()", ".amax(1)` in place of"),
        ("next_word_loss", shifted_and_summed, "Shifted again", "`reduction='sum'` left out"),
        ("rank_correlation", places_and_cosine, "argsort() of argsort()", "Subtract the mean of the ranks"),
    ],
)
def test_a_known_mistake_is_told_with_a_change_of_the_students_function(name, answer, one, other):
    message = getattr(checks, name)(answer).message
    assert message.startswith("There are two mistakes.") and one in message and other in message, message


def test_a_mistake_is_not_told_that_only_the_change_would_make():
    def cosine_from_the_start(optim, step):
        up = min(1, (step + 1) / optim.warmup_steps) if optim.warmup_steps else 1
        falls = (1 + math.cos(math.pi * step / optim.steps)) / 2
        return up * (optim.min_lr + (optim.lr - optim.min_lr) * falls)

    message = checks.learning_rate(cosine_from_the_start).message
    assert "There is no warm-up" not in message and "the cosine is missing" not in message


def test_choices_that_agree_by_chance_are_no_known_mistake():
    def last_of_all(right, links):
        wrong = [
            [link for link, hit in zip(links[::-1], row[::-1], strict=True) if not hit] for row in right.T.tolist()
        ]
        return [found[0] if found else None for found in wrong]

    assert "two mistakes" not in checks.first_broken_link(last_of_all).message
