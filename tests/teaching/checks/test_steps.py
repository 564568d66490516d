"""The steps of a calculation: recorded values, how far two functions have the same ones, a step that is added."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.steps import last_agreement, same_numbers, step_too_much, steps_of

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def shares(x):
    scores = x @ x.T / 2
    return scores.softmax(dim=-1)


def squared_shares(x):
    rows = []
    for row in x:
        scores = torch.stack([(row * other).sum() for other in x]) / 2
        rows.append(scores.square() / scores.square().sum())
    return torch.stack(rows)


def shares_of_whole(x):
    return torch.einsum("ij,kj->ik", x, x).softmax(dim=-1)


def agreement(answer):
    return last_agreement(answer, shares, [[X[:2]], [X]], [lambda function: function(X[:2]), run])


def run(function):
    return function(X)


def test_steps_have_their_values_in_the_order_in_which_they_are_computed():
    steps = list(steps_of(shares, run).values())
    assert [step.text for step in steps] == ["x @ x.T", "x @ x.T / 2", "scores.softmax(dim=-1)"]
    assert torch.equal(steps[-1].values[0], shares(X)) and not any(step.helper for step in steps)
    assert [len(step.values) for step in steps_of(squared_shares, run).values()][:2] == [9, 9]
    assert steps_of(torch.abs, run) == {}


def test_a_changed_step_changes_what_depends_on_it():
    first, *others = steps_of(shares, run)
    changed = steps_of(shares, run, {first: torch.zeros_like})
    assert not changed[others[0]].values[0].any() and torch.allclose(changed[others[1]].values[0], torch.tensor(1 / 3))


def test_steps_of_helpers_have_their_name():
    from blip2_lab.teaching import int8_by_hand

    def answer(x):
        values, scale = int8_by_hand.absmax_quantize(x)
        return values * scale

    steps = steps_of(answer, run).values()
    assert [s.text for s in steps if not s.helper] == ["int8_by_hand.absmax_quantize(x)", "values * scale"]
    assert "`x.abs()` (in `absmax_quantize`)" in [step.told for step in steps]


def test_numbers_are_the_same_in_another_order_and_however_a_mask_hides():
    assert same_numbers(X, X.T.reshape(2, 6)) and not same_numbers(X, X + 1)
    assert same_numbers(torch.tensor([1.0, -torch.inf]), torch.tensor([-10_002.0, 1.0]))
    mask = torch.tensor([True, False, False])
    assert same_numbers(mask, ~mask) and not same_numbers(mask, mask.flip(0))


def test_the_last_step_that_both_have_is_told():
    assert agreement(squared_shares).startswith("As far as `x @ x.T / 2` your numbers are the library's")
    assert agreement(squared_shares).endswith("The library goes on with `scores.softmax(dim=-1)`.")
    assert "as far as `x @ x.t`" in agreement(shares_of_whole).lower()


def test_nothing_is_told_where_nothing_is_common():
    assert agreement(lambda x: x.exp()) == agreement(lambda x: x) == ""


def test_a_step_that_is_left_out_on_a_way_to_the_right_one_is_not_told():
    def by_another_way(x):
        half = x * 0.5**0.5
        return (half @ half.T).abs()

    assert "x @ x.T / 2" in agreement(by_another_way) and "with `scores.softmax" in agreement(by_another_way)


@pytest.mark.parametrize(
    ("change", "words"), [(lambda y, s: y + s, "plus"), (lambda y, s: y - s, "minus"), (lambda y, s: y * s, "times")]
)
def test_a_step_too_much_is_told(change, words):
    cases = [X[:, :2], X]
    expected = [shares(x) for x in cases]
    got = [change(right, x @ x.T) for right, x in zip(expected, cases, strict=True)]
    steps = [steps_of(shares, lambda function, x=x: function(x)) for x in cases]
    assert step_too_much(got, expected, steps, torch.allclose) == f"Yours is the right answer {words} `x @ x.T`."


def base_two(queries, keys, mask=None):
    scores = torch.einsum("id,jd->ij", queries, keys) * queries.size(1) ** -0.5
    if mask is not None:
        scores = scores.where(mask, torch.tensor(-1e9))
    powers = 2 ** (scores - scores.max(1, keepdim=True).values)
    return powers / powers.sum(1, keepdim=True)


def above_the_median(logits, temperature=1.0, top_p=1.0):
    p = torch.exp(logits / temperature)
    p = p / p.sum()
    kept = torch.where(p >= (1 - top_p) * p.median(), p, torch.zeros_like(p))
    return kept / kept.sum()


@pytest.mark.parametrize(
    ("name", "answer", "agreed", "following"),
    [
        ("attention_weights", base_two, "queries @ keys.T / math.sqrt", "scores.softmax(dim=-1)"),
        ("nucleus", above_the_median, "(logits / temperature).softmax(dim=-1)", "ordered.cumsum(dim=-1)"),
    ],
)
def test_a_check_tells_how_far_the_numbers_are_right(name, answer, agreed, following):
    message = getattr(checks, name)(answer).message
    assert message.startswith(f"As far as `{agreed}") and f"The library goes on with `{following}`" in message


@pytest.mark.parametrize(
    ("logits", "targets", "options"),
    [
        (X, torch.tensor([3, -100, 0]), {}),
        (X, torch.tensor([3, 1, 0]), {"ignore_index": 1}),
        (X, X.softmax(dim=1), {"label_smoothing": 0.0}),
        (X[0], torch.tensor(2), {}),
        (X[None].mT, torch.tensor([[3, -100, 0]]), {"reduction": "mean"}),
        (200 * X, torch.tensor([3, 1, 0]), {}),
    ],
)
def test_cross_entropy_in_single_steps_has_the_value_of_torchs_own(logits, targets, options):
    def loss(x):
        return F.cross_entropy(x, targets, **options)

    values = []
    steps = steps_of(loss, lambda function: values.append(function(logits)))
    torch.testing.assert_close(values[0].float(), loss(logits))
    assert {step.helper for step in steps.values()} == {"cross_entropy"}


def test_each_call_of_a_loss_has_steps_of_its_own():
    def both_ways(x):
        own = torch.arange(3)
        return F.cross_entropy(x[:, :3], own) + F.cross_entropy(x[:, :3].T, own)

    steps = steps_of(both_ways, run).values()
    softmaxes = [step for step in steps if step.text == "logits.softmax(dim=-1)"]
    assert [step.helper for step in softmaxes] == ["cross_entropy", "cross_entropy, call 2"]
    assert torch.allclose(softmaxes[1].values[0].float(), X[:, :3].T.softmax(dim=1))


def test_a_loss_with_other_options_is_one_step():
    steps = steps_of(lambda x: F.cross_entropy(x, torch.arange(3), reduction="sum"), run).values()
    assert not any(step.helper for step in steps)
    assert torch.allclose(list(steps)[-1].values[0], F.cross_entropy(X, torch.arange(3), reduction="sum"))


def hinge(image_embeds, text_embeds, temperature):
    scores = torch.stack([(queries @ text_embeds.T).amax(0) for queries in image_embeds]) / temperature
    right = scores.diagonal()
    return torch.relu(1 + scores - right[:, None]).mean() + torch.relu(1 + scores - right).mean()


def squares_of_what_is_missing(image_embeds, text_embeds, temperature):
    scores = torch.einsum("bqe,me->bmq", image_embeds, text_embeds).amax(-1) / temperature
    missing = 1 - scores.softmax(0).diagonal(), 1 - scores.softmax(1).diagonal()
    return (missing[0].square().mean() + missing[1].square().mean()) / 2


@pytest.mark.parametrize(
    ("answer", "last", "following"),
    [
        (hinge, "losses.itc_similarity(image_embeds, text_embeds) / temperature", "logits.softmax(dim=-1)"),
        (squares_of_what_is_missing, "logits.softmax(dim=-1)", "probabilities.log()"),
    ],
)
def test_of_a_loss_it_is_told_how_far_it_is_right(answer, last, following):
    message = checks.contrastive_loss(answer).message
    assert message.startswith(f"As far as `{last}`") and f"The library goes on with `{following}`" in message


def test_the_steps_of_a_comprehension_are_recorded():
    steps = steps_of(lambda x: [i for i in range(len(x)) if i % 2 == 0], run).values()
    assert [step.values for step in steps if step.text == "i % 2"] == [[0, 1, 0]]
