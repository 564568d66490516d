"""Variants of an examiner who had the notebooks' text alone: right ones pass, wrong ones are refused and named.

They are those that were judged or named wrongly before; `test_styles_of_students.py` has more.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blip2_lab.models.language_model import Text
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from tests.teaching.checks.verdicts import assert_fails, assert_passes

S = {name: check.solution for name, check in vars(checks).items() if hasattr(check, "solution")}


def head_of(end=lambda out: out):
    return lambda x, i, q, k, v: end(((x @ q) @ (i @ k).T / q.shape[1] ** 0.5).softmax(1) @ (i @ v))


def loss_of(see=lambda v: v, read=lambda p: p):
    return lambda m, v, p, a: F.cross_entropy(m.answer_logits(see(v), read(p), a)[a.mask], a.ids[a.mask])


def late_by_one(start, mask=lambda m: m, cut=lambda x: x):
    """The encoder-decoder's logits, begun with another token, or with its mask or its output changed."""

    def answer(model, picture, prompt, answer):
        embeddings, attention = model.prepend(picture, prompt)
        return cut(model.model(
            inputs_embeds=embeddings, attention_mask=attention,
            decoder_input_ids=F.pad(answer.ids[:, :-1], (1, 0), value=start(model.model.config)),
            decoder_attention_mask=mask(F.pad(answer.mask[:, :-1].long(), (1, 0), value=1)),
        ).logits)  # fmt: skip

    return answer


def plain(text):
    return text.strip().lower().removesuffix(".").strip()


def schedule(passes=lambda b, g, p: -(-b // (g * p)), warm=lambda w, b, n: w / (n // b)):
    return lambda b, g, p, n, w: (passes(b, g, p), n // b, warm(w, b, n))


def layer_that_always_looks(layer, x, num_queries, image, mask):
    x = layer.self_attention_layer_norm(x + layer.self_attention(x, *layer.self_attention.keys_values(x), mask))
    queries = x[:, :num_queries]
    queries = layer.cross_attention_layer_norm(queries + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(x[:, num_queries:])], dim=1)


def frozen(train):
    def freeze(module):
        module.requires_grad_(False).eval().train = train(module)
        return module

    return freeze


def whole_patches(counts):
    def share(heat, mask):
        cover = F.adaptive_avg_pool2d(mask.float()[None, None], heat.shape)[0, 0]
        evidence = heat.clamp(min=0)
        return float((evidence * counts(cover)).sum() / evidence.sum())

    return share


def in_bits(value, top=127):
    scale = value.abs().amax(1, keepdim=True) / top
    return (value / scale).round() * scale


def gated(keep=lambda x, y: y, end=lambda y: y):
    def block(block, x, keys, values):
        y = x + torch.tanh(block.attention_gate) * block.cross_attention(block.attention_layer_norm(x), keys, values)
        return end(
            keep(x, y) + torch.tanh(block.ffn_gate) * block.contract(F.gelu(block.expand(block.ffn_layer_norm(y))))
        )

    return block


def conditioned(ids=lambda i: i, mask=lambda m: m, whole=lambda m: m):
    return lambda q, x, i, m: (
        q(
            image=q.read_image(x), input_ids=ids(i), mask=whole(bidirectional_mask(q.config.num_query_tokens, mask(m)))
        ).query_output
    )


def counted(more=lambda v, d, f: 0):
    return lambda v, d, f, n, k: S["gated_parameters"](v, d, f, n, k) + -(-n // k) * more(v, d, f)


def bits(scale=lambda b, n, s: s / n):
    return lambda bits, block, scale_bits=32, scales_per_group=None, group_bits=32: (
        bits + scale(bits, block, scale_bits) + (group_bits / block / scales_per_group if scales_per_group else 0)
    )


RIGHT = [
    ("training_flops", lambda n, t, trained, p: 2 * n * t * (3 if trained else 2 if p else 1)),
    ("training_flops", lambda n, t, trained, p: n * t * np.select([trained, p], [6, 4], 2)),
    ("batch_schedule", schedule()), ("batch_schedule", schedule(warm=lambda w, b, n: w * b / n)),
    ("cross_attention_head", head_of()), ("cross_attention_head", head_of(lambda out: 1 * out)),
    ("answer_loss", loss_of()), ("answer_loss", loss_of(lambda v: v + 0, lambda p: Text(p.ids.clone(), p.mask))),
    ("encoder_decoder_answer_logits", late_by_one(lambda c: c.decoder_start_token_id)),
    ("exact_match", lambda p, a: plain(p) == plain(a)),
    ("best_step", lambda run, t=1.03: (min(run, key=lambda r: r[1])[0], run[-1][1] / min(x for _, x in run) > t)),
    ("mass_inside", whole_patches(lambda cover: cover)),
    ("freeze", frozen(lambda m: lambda mode=True: m)), ("gated_block", gated()), ("gated_parameters", counted()),
    ("condition_on_question", conditioned()), ("bits_per_weight", bits()),
]  # fmt: skip

WRONG = [
    ("training_flops", lambda n, t, trained, p: 2 * n * t * (1 + 2 * trained + p), "counted as two"),
    ("batch_schedule", schedule(passes=lambda b, g, p: b // (g * p)), "rounded down"),
    ("batch_schedule", schedule(passes=lambda b, g, p: -(-b // p)), "number of GPUs is forgotten"),
    ("batch_schedule", schedule(passes=lambda b, g, p: -(-b // p), warm=lambda w, b, n: 7.0), "number of GPUs"),
    ("cross_attention_head", head_of(torch.detach), "no gradient reaches x"),
    ("cross_attention_head", lambda x, i, q, k, v: head_of()(x, i, q, k.detach(), v), "no gradient reaches to_key"),
    ("answer_loss", loss_of(lambda v: v.detach()), "no gradient reaches the visual prompt"),
    ("answer_loss", loss_of(lambda v: 0 * v), "picture is left out"),
    ("answer_loss", loss_of(read=lambda p: Text(p.ids[:, :0], p.mask[:, :0])), "prompt is left out"),
    ("encoder_decoder_answer_logits", late_by_one(lambda c: 1), "fixed number"),
    ("encoder_decoder_answer_logits", late_by_one(lambda c: c.pad_token_id), "start token"),
    ("encoder_decoder_answer_logits", late_by_one(lambda c: c.decoder_start_token_id, lambda m: 1 - m), "upside down"),
    ("encoder_decoder_answer_logits",
     late_by_one(lambda c: c.decoder_start_token_id, cut=lambda x: x.roll(1, 1)), "shifted as well"),
    ("exact_match", lambda p, a: plain(p) == a, "Capitals of the answer"),
    ("exact_match", lambda p, a: plain(p).split()[:1] == plain(a).split()[:1], "first words"),
    ("exact_match", lambda p, a: {*plain(p).split()} == {*plain(a).split()}, "any order"),
    ("exact_match", lambda p, a: p.strip().lower()[:-1] == a.lower()[:-1], "last character"),
    ("best_step", lambda run, t=1.03: (
        S["best_step"](run, t)[0], len(run) > 1 and run[-1][1] >= t * min(x for _, x in run)), "exactly"),
    ("mass_inside", whole_patches(lambda cover: cover > 0.5), "most of it"),
    ("mass_inside", whole_patches(lambda cover: cover > 0), "touches it"),
    ("copied_answers", lambda answers, truths, examples: (lambda hits: sum(hits) / len(hits) if hits else 0.0)(
        [any(map(lambda e: S["exact_match"](a, e), x)) for a, t, x in zip(answers, truths, examples, strict=True)
         if a != t]), "Answer and truth are compared as they are"),
    ("qformer_layer", layer_that_always_looks, "without cross-attention"),
    ("freeze", frozen(lambda m: lambda: m), "takes this argument"),
    ("unimodal_mask", lambda q, t: S["unimodal_mask"](q, t).roll((-q, -q), (2, 3)), "stands in front of the queries"),
    ("multimodal_causal_mask", lambda q, t: S["multimodal_causal_mask"](q, t[:1].expand_as(t)), "first one"),
    ("gated_block", gated(keep=lambda x, y: x), "adds the old x"),
    ("gated_block", gated(keep=lambda x, y: 0), "second residual"),
    ("gated_block", lambda b, x, k, v: gated(end=lambda y: y.half().float())(b, x, k, v), "Nearly right"),
    ("gated_parameters", counted(lambda v, d, f: -f), "bias behind `expand`"),
    ("gated_parameters", counted(lambda v, d, f: v * d - d * d), "Queries are made of the text"),
    ("gated_parameters", counted(lambda v, d, f: 2 * d - 2), "A gate is one number"),
    ("condition_on_question", conditioned(whole=torch.logical_not), "turned round as a whole"),
    ("condition_on_question", conditioned(lambda i: i.flip(1), lambda m: m.flip(1)),
     "`question_ids` and `question_mask` in reverse order"),
    ("bits_per_weight", bits(lambda b, n, s: s), "divide the scale's bits by the block"),
    ("bits_per_weight", bits(lambda b, n, s: 2 * s / n), "one scale"),
    ("int8_linear", lambda x, w: in_bits(x, 63) @ in_bits(w, 63).T, "63"),
    ("int8_linear", lambda x, w: (in_bits(x).half() @ in_bits(w).half().T).float(), "half precision"),
    ("word_sums", lambda rows, e, size: torch.stack(
        [e[r].sum(0) / len(r) ** (1 / 3) for r in rows] + [0 * e[0]] * (size - len(rows))), "factor of its own"),
    ("training_memory", lambda p, t: {k: v / 1e9 for k, v in S["training_memory"](p, t).items()}, "1e-09 times"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_a_right_answer_passes(name, answer):
    assert_passes(name, answer)


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_wrong_answer_is_refused_and_named(name, answer, word):
    assert_fails(name, answer, word)


# --- The mechanisms -------------------------------------------------------------------------------------------------


def _cases():
    return [Case(f"{n} x 3", (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)),)) for n in (2, 3)]


def _twice(x):
    return 2 * x + 1


check = Check("twice", _twice, _cases, "Twice.", {"One is forgotten.": lambda x: 2 * x})


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda x: _twice(x) * torch.arange(1, len(x) + 1)[:, None], "Each row"),
        (lambda x: _twice(x) + torch.arange(3), "Each column"),
        (lambda x: _twice(x) * (1 + 0.004 * x), "Nearly right"),
        (lambda x: _twice(x).bfloat16(), "torch.bfloat16"),
        (lambda x: 1e-9 * _twice(x), "1e-09 times"),
        (lambda x: 2 * x + 0.5, "0.5 too small"),
        (lambda x: _twice(x) * torch.tensor([1.0, 1.0, -3.0]), "Each column"),
        (lambda x: _twice(x) + torch.tensor([[0.0, 0.0, 9.0]]) * x**2, "only at 2 along dimension 1"),
    ],
)
def test_what_all_wrong_numbers_have_in_common_is_told(answer, word):
    assert word in check(answer).message, check(answer)


def test_a_step_away_from_a_mistake_is_not_called_something_like_it():
    def cases():
        return [Case(f"{n}", (torch.linspace(1, n, n),)) for n in (4, 5)]

    squares = Check("squares", lambda x: x**2, cases, "x", {"Cubes are returned.": lambda x: x**3})
    assert "Something like this" in squares(lambda x: 0.5 * x**2 + 0.5 * x**3).message
    assert "Something like this" not in squares(lambda x: 1.5 * x**2 - 0.5 * x**3).message


def test_a_mistake_in_the_first_wrong_part_is_named_beside_another_one():
    def both(x):
        return x + 1, x * x

    def cases():
        return [Case(f"{x}", (x,)) for x in (1.5, 2.5, 4.0)]

    parts = Check("both", both, cases, "x", {"One is forgotten.": lambda x: (x, x * x)}, parts=("next", "square"))
    assert parts(lambda x: (x, math.sin(x))).message == "One is forgotten."
    assert parts(lambda x: (math.sin(x), x * x)).message != "One is forgotten."


def test_another_right_reading_passes_only_where_it_agrees_in_every_case():
    def cases():
        return [Case(f"{x}", (x,)) for x in (1, 2, 5)]

    either = Check("either", lambda x: x // 2, cases, "x", also_right=(lambda x: -(-x // 2),))
    assert either(lambda x: x // 2).passed and either(lambda x: (x + 1) // 2).passed
    assert not either(lambda x: x // 2 if x < 5 else 3).passed


def test_numbers_near_zero_are_not_the_same_answer_to_every_input():
    def cases():
        return [Case(f"{x}", (x,)) for x in (1.0, 2.0)]

    message = Check("grows", lambda x: x, cases, "x")(lambda x: 1e-7 * x**3).message
    assert "same answer to every input" not in message


def test_a_change_and_the_repair_that_undoes_it_are_told_once():
    def texts_in_the_wrong_order(image_index, text_index):
        own = torch.arange(len(image_index))
        texts = torch.cat([own, text_index, own])
        return torch.cat([own, image_index, own]), texts, torch.tensor([1] * len(own) + [0] * 2 * len(own))

    message = checks.itm_pairs(texts_in_the_wrong_order).message
    assert "Your function is right with `[own, own, text_index]` in place of `[own, text_index, own]`." in message
    assert message.count("in place of") == 1, message


def test_observations_that_agree_are_not_shown():
    def by_rows(files, count, seed):
        held = random.Random(seed).sample(range(len(files)), count)
        return [row for row in range(len(files)) if row not in held], sorted(held)

    shown = str(checks.hold_out_pictures(by_rows))
    assert "pictures on both sides: True" in shown and "pictures on both sides: False" in shown
    assert "input as before" not in shown and "rows lost" not in shown, shown


@pytest.mark.parametrize(
    ("prediction", "answer", "told"),
    [
        ("bluesky", "blue sky", "they differ by a space inside, which matters"),
        ("35", "3.5", "they differ by a full stop inside, which matters"),
        ("red!", "red", "they differ by another sign than a full stop, which matters"),
        ("reds", "red", "they differ by letters or words"),
        ("", "red", "the prediction is empty"),
        (" Red. ", "red", "they differ by spaces around and a closing full stop and case, which must not matter"),
        ("3.5", "3.5", "they are equal"),
    ],
)
def test_a_wrongly_judged_pair_is_told_with_what_it_differs_by(prediction, answer, told):
    (rule,) = checks.exact_match.rules
    right = S["exact_match"](prediction, answer)
    assert rule(Case("", (prediction, answer)), not right, right).endswith(f": {told}.")


def test_what_two_mistakes_of_spelling_have_in_common_is_named():
    def letters(text):
        return text.lower().replace(" ", "").replace(".", "")

    assert_fails("exact_match", lambda prediction, answer: letters(prediction) == letters(answer), "a space inside")


def test_only_the_own_weights_of_a_module_are_not_all_of_its_weights():
    def freeze(module):
        for weight in module.parameters(recurse=False):
            weight.requires_grad_(False)
        module.eval().train = lambda mode=True: module
        return module

    assert "those of the layers in it, too" in checks.freeze(freeze).message


def repeated_by_hand(held_out, tolerance=1.03):
    best = min(held_out, key=lambda pair: pair[1])
    return best[0], held_out[-1][1] > best[1] + tolerance


def other_order(a, b):
    ranks = [map_.flatten().argsort().argsort().float() for map_ in (a, b.T)]
    x, y = (rank - rank.mean() for rank in ranks)
    return float(x @ y / (x.norm() * y.norm()))


def mean_before_log(image_embeds, text_embeds, temperature):
    scores = (image_embeds @ text_embeds.T).amax(1) / temperature
    return -(scores.softmax(1).diag().mean().log() + scores.softmax(0).diag().mean().log()) / 2


def words_mean_before_log(logits, labels):
    real = labels != -100
    return -logits[real].softmax(-1).gather(1, labels[real][:, None]).mean().log()


def tokens_mean_before_log(language_model, visual_prompt, prompt, answer):
    return words_mean_before_log(
        language_model.answer_logits(visual_prompt, prompt, answer), answer.ids.masked_fill(~answer.mask, -100)
    )


def asks_a_mask(queries, keys, mask=None):
    scores = queries @ keys.T / queries.shape[1] ** 0.5
    return (scores.masked_fill(~mask, -1e4) if mask else scores).softmax(-1)


def in_gibibytes(parameters, trained):
    return {kind: value / 2**30 for kind, value in S["training_memory"](parameters, trained).items()}


@pytest.mark.parametrize(
    ("name", "answer", "told"),
    [
        ("num_features", lambda size, patch: (size / patch) ** 2, "[CLS] is forgotten"),
        ("contrastive_loss", mean_before_log, "logarithm of the mean"),
        ("next_word_loss", words_mean_before_log, "logarithm of the mean"),
        ("answer_loss", tokens_mean_before_log, "logarithm of the mean"),
        ("attention_weights", asks_a_mask, "write `is not None`"),
        ("training_memory", in_gibibytes, "divided by 1,024 to the power of 3"),
        ("pad", lambda rows, pad, left=False: Text(rows, rows), "a list of"),
    ],
)
def test_a_slip_is_named(name, answer, told):
    assert_fails(name, answer, told)


def test_an_operator_that_is_exchanged_is_told_once():
    message = checks.best_step(repeated_by_hand).message
    assert "`best[1] * tolerance` in place of `best[1] + tolerance`" in message
    assert "Yours is the right answer" not in message, message


def test_a_rule_gives_no_advice_that_was_followed():
    assert "Subtract the mean" not in checks.rank_correlation(other_order).message


def test_a_mask_that_does_not_move_with_the_tokens_is_told_where_they_are():
    (words,) = [words for words in checks.pad.mistakes if "the mask does not" in words]
    assert "the tokens move to the right end" in words
    assert words in checks.pad(checks.pad.mistakes[words]).message


def test_a_factor_is_not_put_right_in_two_places():
    def days_of_minutes(flops_per_example, examples, gpus, peak, utilization):
        return flops_per_example * examples / (gpus * peak * utilization) / (60 * 24)

    message = checks.training_days(days_of_minutes).message
    assert "60 times" in message and "in place of" not in message, message


def test_sizes_that_do_not_fit_may_be_those_of_another_tensor():
    message = checks.visual_prompt(lambda model, features: model.language_projection(features)).message
    assert "another tensor" in message, message
