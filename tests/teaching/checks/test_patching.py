"""The value of a step of the library's in the place of an expression of a student's: what is tried, what is told."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.patching import patched_step, without_results
from blip2_lab.teaching.checks.steps import steps_of

CASES = [torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows)) for rows in (2, 4)]


def scaled(x):
    largest = x.abs().amax(dim=1)
    return x / largest[:, None]


def by_the_spread(x):
    rows = []
    for row in x:
        spread = row.std()
        rows.append(row * (1 / spread))
    return torch.stack(rows)


def attempt(function, case):
    return function(CASES[case].clone())


def right(case, value):
    return value is not None and torch.allclose(value, scaled(CASES[case]))


def patch_for(answer, at_most=1_000):
    steps = {case: steps_of(scaled, lambda function, case=case: attempt(function, case)) for case in (0, 1)}
    return patched_step(answer, without_results(steps, [scaled(x) for x in CASES]), attempt, right, at_most)


def test_the_first_expression_that_makes_the_answer_right_is_told():
    patch = patch_for(by_the_spread)
    told = "`row.std()` should be, part by part, what the library computes by `x.abs().amax(dim=1)`; then"
    assert patch.told == told and all(right(case, patch.value(case, attempt)) for case in (0, 1))


def test_a_value_is_transposed_where_it_has_to_be():
    patch = patch_for(lambda x: (x.T / x.std(dim=1)).T)
    assert patch.told.startswith("`x.std(dim=1)` should be what the library computes by `x.abs().amax(dim=1)`")


def test_the_answer_itself_is_no_step():
    assert patch_for(lambda x: x.exp() / 2) is None


def test_a_multiple_of_a_number_that_is_the_answer_is_no_step():
    def mean_of_both(x):
        total = x.sum() + x.abs().sum()
        return total / 2

    steps = {case: steps_of(mean_of_both, lambda function, case=case: attempt(function, case)) for case in (0, 1)}
    texts = {step.text for step in without_results(steps, [mean_of_both(x) for x in CASES])[0].values()}
    assert "x.abs().sum()" in texts and not texts & {"x.sum() + x.abs().sum()", "total / 2"}


def test_a_step_that_is_the_answer_is_none_whatever_its_kind():
    runs = {case: lambda function, case=case: attempt(function, case) for case in (0, 1)}
    steps = {case: steps_of(lambda x: len(x) > 3, run) for case, run in runs.items()}
    texts = {step.text for step in without_results(steps, [len(x) > 3 for x in CASES])[0].values()}
    assert texts == {"len(x)"}


def margin(logits, labels):
    real = labels != -100
    scores, words = logits[real], labels[real]
    return (scores.amax(dim=1) - scores[torch.arange(len(words)), words]).mean()


def test_a_patch_reaches_into_cross_entropy():
    message = checks.next_word_loss(margin).message
    assert message.startswith("`scores.amax(dim=1) - scores[torch.arange(len(words)), words]` should be")
    assert "`-log_probabilities[real].gather(" in message and "then your function is right" in message


def test_no_more_patches_are_tried_than_are_allowed():
    assert patch_for(by_the_spread, at_most=1) is None


def by_the_square(x):
    scale = (sum(column * column for column in x.T) / x.shape[1]).sqrt()[:, None] / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.clip(torch.round(x / scale), -127, 127).to(torch.int8), scale


def chosen_by_its_own_text(image_embeds, text_embeds, temperature):
    rows = []
    for number, queries in enumerate(image_embeds):
        best = queries[(queries @ text_embeds[number]).argmax()]
        rows.append(text_embeds @ best / temperature)
    scores, own = torch.stack(rows), torch.arange(len(rows))
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def hidden_from_one_is_hidden_from_all(queries, keys, mask=None):
    rows = []
    for query in queries:
        scores = torch.stack([query.dot(key) for key in keys]) / math.sqrt(len(query))
        if mask is not None:
            scores[~mask.all(0)] = -1e4
        rows.append(scores.exp() / scores.exp().sum())
    return torch.stack(rows)


def mixes_instead_of_adding(block, x, keys, values):
    read = block.cross_attention(block.attention_layer_norm(x), keys, values)
    x = torch.lerp(x, read, block.attention_gate.tanh())
    if block.has_ffn:
        x = x + block.contract(F.gelu(block.expand(block.ffn_layer_norm(x)))) * block.ffn_gate.tanh()
    return x


@pytest.mark.parametrize(
    ("name", "answer", "expression", "step"),
    [
        ("absmax_quantize", by_the_square, "(sum((column * column for column", "x.abs().amax(dim=dim, keepdim=True)"),
        ("attention_weights", hidden_from_one_is_hidden_from_all, "~mask.all(0)", "~mask"),
        ("contrastive_loss", chosen_by_its_own_text, "text_embeds @ best", "losses.itc_similarity"),
        ("gated_block", mixes_instead_of_adding, "torch.lerp(x, read", "x + torch.tanh(self.attention_gate) * read"),
    ],
)
def test_a_check_tells_what_an_expression_should_be(name, answer, expression, step):
    message = getattr(checks, name)(answer).message
    assert message.startswith(f"`{expression}") and f"what the library computes by `{step}" in message
    assert "then your function is right" in message


def wrong_image_twice(image_index, text_index):
    own = list(range(len(image_index)))
    images, texts = own + image_index.tolist() + text_index.tolist(), own + own + own
    return torch.tensor(images), torch.tensor(texts), torch.tensor([1] * len(own) + [0] * 2 * len(own))


def test_a_part_of_an_answer_is_told_where_another_one_is_wrong_as_well():
    message = checks.itm_pairs(wrong_image_twice).message
    assert "should be what the library computes by `torch.arange(len(image_index))`; then `images` is right" in message
