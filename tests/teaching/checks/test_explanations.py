"""Searches for an explanation: the student's function repaired, two mistakes at once, what is too much, the work."""

from __future__ import annotations

import math

import pytest
import torch

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import diagnose
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.explanations import attempts_on, repair_of, work_of
from blip2_lab.teaching.checks.verdicts import FAILED


def scaled(values, mask):
    """values [B, N], mask bool[B, N] -> the mean of what is not hidden, [B]"""
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def cases():
    made = []
    for rows, columns in ((2, 3), (3, 4), (4, 5)):
        values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        made.append(Case(f"[{rows}, {columns}]", (values, (torch.arange(columns) > 0).expand(rows, -1))))
    return made


def upside_down(values, mask):
    return scaled(values, ~mask)


check = Check("scaled", scaled, cases, "Scaled.", {"The mask is upside down.": upside_down})


def squares_first(values, mask):
    squared = values**2
    kept = squared * mask
    return kept.sum(dim=1) / mask.sum(dim=1)


def reads_the_wrong_name(values, mask):
    kept = values * mask
    return values.sum(dim=1) / mask.sum(dim=1) + 0 * kept.sum(dim=1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (squares_first, "right with `values` in place of `values ** 2`"),
        (reads_the_wrong_name, "right with `kept.sum(dim=1)` in place of `values.sum(dim=1)`"),
        (
            lambda values, mask: scaled(values, mask) + values[:, 0] ** 3,
            "right with `scaled(values, mask)` in place of",
        ),
        (lambda values, mask: scaled(values, ~mask).exp(), "There are two mistakes. The mask is upside down. And"),
        (lambda values, mask: scaled(values, mask)[:-1], "along dimension 0 1 is missing, at the end"),
        (
            lambda values, mask: scaled(values, mask) * len(values),
            "multiplied with the size of `values` along dimension 0",
        ),
    ],
)
def test_what_is_wrong_is_told(answer, said):
    verdict = check(answer)
    assert verdict.status == FAILED and said in verdict.message, verdict


def test_an_error_is_told_with_its_repair():
    message = check(lambda values, mask: scaled(values.T, mask)).message
    assert "stops with RuntimeError" in message and "`values` in place of `values.T`" in message


def test_no_repair_is_told_that_is_wrong_in_one_case():
    attempt = attempts_on(cases, check.attempt)
    words, mistake = repair_of(squares_first, [0, 1, 2], attempt, lambda number, value: True)
    assert words and not mistake
    assert repair_of(squares_first, [0, 1, 2], attempt, lambda number, value: number != 1) is None


def test_a_function_that_might_not_end_is_not_changed():
    def counts(values, mask):
        n = 0
        while n < 3:
            n += 1
        return scaled(values, mask) + n

    attempt = attempts_on(cases, lambda function, case: function(*case.args))
    assert repair_of(counts, [0, 1], attempt, lambda number, value: True) is None


def test_a_case_that_was_changed_in_place_is_made_anew():
    attempt = attempts_on(cases, lambda function, case: function(*case.args))
    before = attempt(scaled, 0)
    attempt(lambda values, mask: values.zero_(), 0)
    assert torch.equal(attempt(scaled, 0), before)


def test_work_is_counted_and_is_the_same_each_time():
    def thrice():
        return [math.sqrt(n) for n in range(3)]

    assert work_of(thrice) == work_of(thrice) >= 4


def test_what_a_tried_function_prints_is_not_shown(capsys):
    def prints(values, mask):
        print("tried")
        return scaled(values, mask) ** 2

    check(prints)
    assert capsys.readouterr().out.count("tried") <= 2 * len(cases())


def test_the_rows_of_an_embedding_say_what_stands_there():
    def by_id(qformer, ids):
        text = qformer.word_embeddings(ids) + qformer.position_embeddings.weight[ids]
        both = torch.cat([qformer.query_tokens.expand(len(ids), -1, -1), text], dim=1)
        return qformer.embedding_layer_norm(both)

    assert "Row 3 is the word 4 with position 4" in checks.embed(by_id).message


def test_what_the_model_is_given_is_told():
    def ends_with_the_start(model, visual_prompt, prompt, answer):
        embeddings, mask = model.prepend(visual_prompt, prompt)
        start = torch.full_like(answer.ids[:, :1], model.model.config.decoder_start_token_id)
        ids = torch.cat([answer.ids[:, 1:], start], dim=1)
        return model.model(inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=ids).logits

    message = checks.encoder_decoder_answer_logits(ends_with_the_start).message
    assert "`decoder_input_ids` is [[5, 1]] when you call the model, and should be [[1, 4]]" in message


def test_parameters_too_many_are_told_by_their_widths():
    def ffn_biases(v, d, f, n, every):
        right = checks.gated_parameters.solution(v, d, f, n, every)
        return right + math.ceil(n / every) * (f - d)

    assert "F too much and Dl too little" in checks.gated_parameters(ffn_biases).message


def test_a_known_mistake_that_divides_0_by_0_besides_is_told():
    def shared_out(similarity, positives):
        shares = similarity.detach().clamp(min=0) * ~positives
        return shares / shares.sum(dim=1, keepdim=True)

    assert checks.negative_weights(shared_out).message.startswith("Similarities are shared out as they are")


def test_a_sum_for_a_mean_is_not_told_of_any_large_numbers():
    mean = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)]
    assert diagnose([5 * mean[0], 9 * mean[1], 7 * mean[2]], mean).startswith("Yours is 5, 9, 7 times")
    assert diagnose([38.3 * mean[0], 15.1 * mean[1], 52.4 * mean[2]], mean) is None
