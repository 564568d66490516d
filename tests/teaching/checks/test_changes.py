"""Changes of an answer or an argument: named where they explain every case, and only then."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.verdicts import FAILED


def weigh(values, mask, power):
    """values [B, N], mask bool[B, N], power -> [B, N]"""
    return (values.softmax(dim=1) * mask) ** power


def cases():
    made = []
    for rows, columns, power in ((1, 2, 1.0), (2, 3, 2.0), (3, 4, 3.0)):
        generator = torch.Generator().manual_seed(rows)
        values = torch.randn(rows, columns, generator=generator)
        mask = (torch.arange(rows)[:, None] + torch.arange(columns)) % 3 != 1
        made.append(Case(f"[{rows}, {columns}]", (values, mask, power)))
    return made


check = Check("weigh", weigh, cases, "Weighed.")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda v, m, p: weigh(v, m, p).flip(1), "the right answer in reverse order along dimension 1"),
        (lambda v, m, p: weigh(v, m, p).mean(1), "the mean of the right answer along dimension 1"),
        (lambda v, m, p: weigh(v, m, p)[:, 1:], "along dimension 1 1 is missing, at the front"),
        (lambda v, m, p: weigh(v, m, p).round(decimals=1), "the right answer, rounded to one place"),
        (lambda v, m, p: weigh(v, ~m, p), "`mask` with True and False exchanged"),
        (lambda v, m, p: weigh(v, m[:1].expand_as(m), p), "the first of `mask` along dimension 0, the same for all"),
        (lambda v, m, p: weigh(v.softmax(1), m, p), "the softmax of `values` along dimension 1"),
        (lambda v, m, p: weigh(v, m, p + 1), "1 more than `power`"),
        (lambda v, m, p: weigh(v, m, 1), "1 in place of `power`"),
    ],
)
def test_a_change_that_explains_every_case_is_named(answer, said):
    verdict = check(answer)
    assert verdict.status == FAILED and said in verdict.message, verdict


def test_a_change_that_explains_only_some_cases_is_not_named():
    def answer(values, mask, power):
        return weigh(values, mask, power).flip(1) if len(values) < 3 else weigh(values, mask, power) ** 1.5

    assert "right answer in reverse order" not in check(answer).message


def test_arguments_of_one_kind_can_be_exchanged():
    power = Check("power", lambda base, exponent: base**exponent, lambda: [Case("", (2, 3)), Case("", (3, 5))], "x")
    assert "`base` and `exponent` exchanged" in power(lambda base, exponent: exponent**base).message


def test_the_changed_part_of_an_answer_is_named():
    both = Check(
        "both",
        lambda x: (x, x.sum()),
        lambda: [Case("", (torch.arange(n),)) for n in (3, 4)],
        "x",
        parts=("all", "sum"),
    )
    assert both(lambda x: (x.flip(0), x.sum())).message.startswith(
        "`all` differs. Yours is the right answer in reverse"
    )


def test_a_changed_input_is_told_beside_what_else_is_wrong():
    def overwrites(values, mask, power):
        mask ^= True
        return weigh(values, mask, power)

    message = check(overwrites).message
    assert "in place" in message and "True and False exchanged" in message
