"""Mutants of a function: each changes one expression, and only one that explains every case is told."""

from __future__ import annotations

import math

import pytest
import torch

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.function_code import code_of
from blip2_lab.teaching.checks.mutants import edits_of, mutants_of
from tests.teaching.checks.verdicts import variant_tests


def spread(values, scale=2.0):
    """values [N] -> how far they lie from their mean, in units of `scale`"""
    centered = values - values.mean(dim=0)
    return torch.where(centered > 0, centered.sqrt() / scale, centered * scale + 1)


def cases():
    return [Case(f"{n} numbers", (torch.linspace(-1, n, n),)) for n in (3, 4, 5)]


check = Check("spread", spread, cases, "Spread.")


def spread_but(center=torch.mean, above=lambda c: c.sqrt() / 2, below=lambda c: c * 2 + 1):
    def answer(values):
        centered = values - center(values)
        return torch.where(centered > 0, above(centered), below(centered))

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (spread_but(torch.sum), "`values.sum(dim=0)` in place of `values.mean(dim=0)`"),
        (spread_but(above=lambda c: c.sqrt() * 2), "`centered.sqrt() * scale` in place of"),
        (spread_but(above=lambda c: c / 2), "`centered` in place of `centered.sqrt()`"),
        (spread_but(below=lambda c: c * 2 - 1), "`centered * scale - 1` in place of"),
        (spread_but(below=lambda c: c / 2 + 1), "`centered / scale` in place of"),
    ],
)
def test_the_expression_that_explains_every_case_is_told(answer, said):
    assert said in check(answer).message


def test_an_expression_that_explains_only_some_cases_is_not_told():
    def answer(values):
        return spread_but(torch.sum if len(values) < 5 else torch.amax)(values)

    assert "in place of `" not in check(answer).message


def test_a_mutant_never_raises_anything_but_a_value_error():
    ran = 0
    for _, mutant in mutants_of(spread):
        try:
            mutant(torch.arange(3.0))
        except ValueError:
            ran += 1
    assert 0 < ran < len(list(mutants_of(spread)))


def test_an_expression_that_stands_twice_is_also_changed_in_both_places():
    def twice(a, b):
        return (a + b) / (1 + a * b), math.sqrt(a) / (1 + a * b)

    both = [mutant(3.0, 2.0) for words, mutant in mutants_of(twice) if words.startswith("`1 - a * b`")]
    assert (5 / -5, math.sqrt(3) / -5) in both and (5 / -5, math.sqrt(3) / 7) in both


def edits_in(function):
    return [edit.words for edit in edits_of(code_of(function).body, more=True)]


def test_no_list_is_read_where_it_grows():
    """A loop over it would not end, and torch stops the whole program for a list that contains itself."""

    def rows(values, names):
        found = [values[0]]
        for value in values:
            found.append(value)
        return torch.stack(found[1:])

    edits = edits_in(rows)
    assert not any(
        loop in words for words in edits for loop in ("append(found)", "values.append", "`found` in place of `v")
    )
    assert "`names` in place of `values`, wherever it is read" in edits
    assert "`values[1:]` in place of `found[1:]`" in edits, "it is returned once"
    assert "`value in names` in place of `value not in names`" in edits_in(lambda value, names: value not in names)


def test_steps_in_another_order_a_method_everywhere_and_a_transposed_name_are_tried():
    edits = edits_in(lambda x, y: x.mean(0).log() + y.softmax(0) @ x.softmax(1))
    assert "`x.log().mean(0)` in place of `x.mean(0).log()`" in edits
    assert "`log_softmax` in place of `softmax`, wherever it is called" in edits
    assert any("y.T.softmax(0)" in words for words in edits)


def test_what_is_overwritten_in_a_loop_is_added_up():
    def totals(rows):
        first = second = 0
        for row in rows:
            first = row[0]
            second = row[1]
        return first, second

    assert "`first += row[0]` in place of `first = row[0]`" in edits_in(totals)
    assert "`+=` in place of `=` in the loop" in edits_in(totals)


def test_a_function_without_a_source_has_no_mutants():
    assert not list(mutants_of(max)) and not list(mutants_of(eval("lambda x: x + 1")))


def test_a_lambda_and_a_closure_have_mutants():
    inner = 3
    assert 5 - 3 in [mutant(5) for _, mutant in mutants_of(lambda x: x + inner)]


def test_every_solution_of_an_exercise_has_mutants():
    solutions = [check.solution for check in vars(checks).values() if isinstance(check, Check)]
    assert len(solutions) > 60 and all(next(mutants_of(solution), None) for solution in solutions)


def wilson(center=1.0, down=1.0, root=lambda p, n, z: p * (1 - p) / n + z * z / (4 * n * n)):
    def interval(share, count, z=1.96):
        below = 1 + down * z * z / count
        middle, half = (share + center * z * z / (2 * count)) / below, z * math.sqrt(root(share, count, z)) / below
        return max(0.0, middle - half), min(1.0, middle + half)

    return interval


RIGHT = [("confidence_interval", wilson()) for _ in range(6)]
WRONG = [
    ("confidence_interval", wilson(center=-1.0), "`share - z * z"),
    ("confidence_interval", wilson(center=2.0), "it is z*z/(2n)"),
    ("confidence_interval", lambda p, n, z=1.96: wilson()(p, n, 2 * z), "2 times `z`"),
    ("confidence_interval", lambda p, n, z=1.96: wilson()(p, n - 1, z), "1 less than `count`"),
    ("confidence_interval", wilson(root=lambda p, n, z: p * (1 + p) / n + z * z / (4 * n * n)), "`1 + share`"),
    (
        "confidence_interval",
        wilson(root=lambda p, n, z: p * (1 - p) / n + z * z / (4 * n + n)),
        "4 * count + count",
    ),
    ("confidence_interval", lambda p, n, z=1.96: wilson()(p, n, z + 1), "1 more than `z`"),
    ("confidence_interval", wilson(down=0.0), "Neither the center nor the half width"),
]
test_a_right_formula_passes, test_a_wrong_formula_is_told_by_its_expression, _ = variant_tests(
    ("confidence_interval",), RIGHT[:1], WRONG
)


def test_no_huge_number_becomes_the_size_of_a_tensor():
    def gigabytes(numbers):
        return torch.zeros(2) + numbers / 1_000_000_000

    words = [edit.words for edit in edits_of(code_of(gigabytes).body, more=True, numbers=[7, 2**30])]
    assert any("1073741824` in place of" in text for text in words)
    assert any("zeros(7)" in text for text in words) and not any("zeros(1073741824)" in text for text in words)


def test_two_changes_are_found_without_known_mistakes():
    def solution(a, b):
        total = a + b
        rest = a - b
        return total * rest.exp()

    def numbers():
        return [Case(f"{a}, 3", (torch.tensor([a, 2.0]), torch.tensor([0.5, 3.0]))) for a in (1.0, 2.0)]

    without_source = eval("lambda a, b: a * b * (a + b).exp()")
    check = Check("product", solution, numbers, "A product.")
    message = check(without_source).message
    assert "`a * b` in place of `a + b`, and `a + b` in place of `a - b`" in message


def test_a_cut_is_tried_along_other_dimensions():
    words = [edit.words for edit in edits_of(code_of(lambda numbers: numbers[:, 2:]).body, more=True)]
    for other in ("numbers[2:]", "numbers[:, :, 2:]", "numbers[..., 2:]"):
        assert f"`{other}` in place of `numbers[:, 2:]`" in words
    one_place = [edit.words for edit in edits_of(code_of(lambda numbers: numbers[:, 2]).body, more=True)]
    assert not any("..." in told for told in one_place)  # it takes a dimension away: another thing


def test_a_part_of_a_long_expression_is_left_out_in_few_words():
    def prepends(language_model, visual_prompt, text):
        words = language_model.model.get_input_embeddings()(text.ids) * visual_prompt.shape[-1] ** 0.5
        mask = torch.nn.functional.pad(text.mask.long(), (visual_prompt.shape[1], 0), value=1)
        return torch.cat([visual_prompt, words], dim=1), mask

    told = checks.prepend(prepends).message
    assert "right with `* visual_prompt.shape[-1] ** 0.5` left out" in told, told
