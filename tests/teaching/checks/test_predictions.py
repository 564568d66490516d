"""Predictions: what they forgive, and what they do not give away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.predictions import READING, distance
from blip2_lab.teaching.checks.verdicts import FAILED, NOT_ATTEMPTED

TRUTHS = (257, 2.302585, True, "with stage 1", "bcdefg", "CLS")


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("guess", [None, "", "  ", []])
def test_without_a_guess_nothing_is_given_away(guess, truth):
    verdict = checks.prediction(guess, truth, "The reason.", {3: "tempting"})
    assert verdict.status == NOT_ATTEMPTED
    assert str(truth) not in verdict.message and "reason" not in verdict.message and "guess" in verdict.message


@pytest.mark.parametrize(
    ("guess", "truth"),
    [
        ("many", 257),
        (object(), 257),
        (True, 257),
        ("so-so", True),
        (object(), "itc"),
        ([1, 2], 5),
        ("5 or 6", 5),
        ("worse or better", "worse"),
        ("yes and no", True),
        ("maybe", True),
        ("all", 65),
        ("k", 1000),
    ],
)
def test_a_guess_that_cannot_be_read_gives_nothing_away(guess, truth):
    verdict = checks.prediction(guess, truth, "The reason.")
    assert verdict.status == FAILED and verdict.message.startswith("Write ")
    told = verdict.message.replace(str(guess), "").replace("True or False", "")  # the guess itself may be quoted
    assert str(truth) not in told and "reason" not in told


RIGHT = [
    (257, 257), ("257", 257), (257.0, 257), ("257.", 257), ([257], 257), (np.int64(257), 257), ("about 257", 257),
    (torch.tensor(257), 257), ("two", 2), ("1,024", 1024), ("65 of 65", 65),
    (2.303, 2.302585), ("2.3", 2.302585), ("2,3", 2.302585), (" 2.303 ", 2.302585), ("~2.3 nats", 2.302585),
    ((2.3,), 2.302585), (np.float32(2.3), 2.302585),
    ("1/3", 0.3333), ("33 %", 0.3333), ("3.3e-1", 0.3333), ("-1.5", -1.5),
    ("true", True), ("Yes", True), (1, True), (np.True_, True), ("FALSE", False), ("no", False), (0, False),
    ("itc", "ITC"), ("'itc'", "itc"), ("cls", "CLS"), ("[CLS]", "CLS"),
    ("q-former", "Q-Former"), ("qformer", "Q-Former"),
    ("Q-Fromer", "Q-Former"), ("the language model", "language model"), ("langauge model", "language model"),
    ("With Stage 1.", "with stage 1"), ("with stage1", "with stage 1"), ("can not tell", "cannot tell"),
    ("query ffn", "query_ffn"), ("text-ffn", "text_ffn"), (["same"], "same"), ("wors", "worse"),
    ("b,c,d", "bcd"), ("BCD", "bcd"), ("d c b", "bcd"), (["b", "c", "d"], "bcd"), ("b, c and d", "bcd"),
    ({"b", "c"}, "bc"), ("b-d", "bcd"), ("b to d", "bcd"), ("b \u2013 d", "bcd"), ("a) the first", "a"), ("(a)", "a"),
    ("the q former", "Q-Former"), ("it stays the same", "same"), ("worse, I think", "worse"), ("the CLS token", "CLS"),
    ("1 024", 1024), ("1.024", 1024), ("1_024", 1024), ("1'024", 1024), ("2^10", 1024), ("1k", 1000), ("1.5k", 1500),
    ("one thousand", 1000), ("2 million", 2_000_000), ("a hundred", 100), ("twenty", 20), ("sixty-five", 65),
    ("one thousand and twenty-four", 1024), ("two hundred fifty-six", 256), ("half a million", 500_000),
    ("two point five", 2.5), ("3 and a half", 3.5), ("minus twenty one", -21),
    ("one million two hundred thousand", 1_200_000),
    ("none", 0), ("nothing", 0), ("ten times", 10), ("tenfold", 10), ("8-bit", 8),
    ("50%", 0.5), ("0,5", 0.5), ("a half", 0.5), ("half", 0.5), ("\u00bd", 0.5), ("50 percent", 0.5),
    ("two thirds", 0.6667), ("a quarter", 0.25), ("minus 0.5", -0.5), ("1:2", 0.5),
    ("log 10", 2.302585), ("ln(10)", 2.302585), ("math.log(10)", 2.302585), ("-log(1/32)", 3.4657), ("log2(8)", 3.0),
    ("yep", True), ("Yes, it does", True), ("No, it does not", False), ("no, it doesn't", False),
    ("1.0", True),
    ("only the gates", "the gates"), ("the one with stage 1", "with stage 1"), ("none of them", "none"),
    ("answer a", "a"), ("Option A.", "a"), ("only b, c and d", "bcd"), ("letters b to d", "bcd"), ("four fifths", 0.8),
]  # fmt: skip
WRONG = [
    (256, 257), ("2570", 257), (25.7, 257), (2, 2.302585), ("0.23", 2.302585), ("23", 2.302585), ("2.8", 2.302585),
    ("false", True), (0, True), ("yes", False), ("itc", "itm"), ("itm", "itg"), ("better", "no better"),
    ("no better", "better"), ("with stage 1", "without stage 1"), ("without stage 1", "with stage 1"),
    ("easier", "harder"), ("some", "same"), ("none", "some"), ("cross_attention", "self_attention"),
    ("query_ffn", "text_ffn"), ("image encoder", "language model"), ("bcde", "bce"), ("be", "bce"), ("all", "bce"),
    ("a patch of the ground", "a patch of a thing"), (["b", "d"], "bcd"), ("c-d", "bcd"), ("b) the second", "a"),
    ("50", 0.5), ("0.5 %", 0.5), ("half", 2), ("1/32", 3.4657), ("log 32", 2.302585), ("a million", 1000), ("65 %", 65),
    ("not the same", "same"), ("not worse", "worse"), ("all", "none"),
    ("answer b", "a"), ("only b and c", "bcd"), ("the one without stage 1", "with stage 1"), ("only one", 5),
]  # fmt: skip


@pytest.mark.parametrize(("guess", "truth"), RIGHT)
def test_spelling_case_and_number_formats_are_forgiven(guess, truth):
    assert checks.prediction(guess, truth).passed


@pytest.mark.parametrize(("guess", "truth"), WRONG)
def test_a_wrong_guess_fails_and_is_told_the_truth(guess, truth):
    verdict = checks.prediction(guess, truth, "The reason.")
    assert verdict.status == FAILED and "The reason." in verdict.message and "It is " in verdict.message


def test_a_cell_prints_what_it_measures_only_after_a_guess(capsys):
    checks.print_after(guess=None)("63 of 64")
    checks.print_after(guess=" ")("63 of 64")
    assert capsys.readouterr().out == ""
    checks.print_after(guess=0)("63", "of 64")
    assert capsys.readouterr().out == "63 of 64\n"


def test_a_figure_is_shown_only_after_a_guess():
    before = checks.show_after("figure", guess=None)
    assert before.status == NOT_ATTEMPTED and "figure" not in before.message and "guess" in before.message
    assert checks.show_after("figure", guess=False) == checks.show_after("figure", guess="x") == "figure"


def test_the_copies_with_outputs_show_what_is_held_back(monkeypatch, capsys):
    monkeypatch.setenv(READING, "1")
    checks.print_after(guess=None)("63 of 64")
    assert capsys.readouterr().out == "63 of 64\n" and checks.show_after("figure", guess=None) == "figure"
    assert checks.prediction(None, 257, "The reason.").status == NOT_ATTEMPTED


def test_a_tempting_answer_gets_its_reasoning():
    tempting = {32: "That counts queries.", 1 / 32: "That is the probability."}
    assert "That counts queries." in checks.prediction("32", 257, "16 x 16 + 1.", tempting).message
    assert "That is the probability." in checks.prediction("1/32", 3.47, tempting=tempting).message
    assert "That" not in checks.prediction(31, 257, tempting=tempting).message
    assert checks.prediction([31, 4], "b", tempting={"c": "x"}).status == FAILED, "a list does not stop it"


@pytest.mark.parametrize("truth", [2, 2.5, True, "masked"])
@pytest.mark.parametrize(
    "guess",
    [10**400, -(10**5000), torch.ones(2, device="meta"), lambda: 2, (x for x in "ab"), int, object(), {2: 3}],
    ids=["huge", "too long to print", "meta", "function", "generator", "class", "object", "dict"],
)
def test_a_guess_of_any_kind_is_told_in_a_sentence(guess, truth):
    verdict = checks.prediction(guess, truth)
    assert verdict.status == FAILED and len(str(verdict)) < 300


def test_an_object_that_equals_everything_is_no_guess():
    class Everything:
        def __eq__(self, other):
            return True

        __hash__ = None

    assert not checks.prediction(Everything(), 257).passed and not checks.prediction(Everything(), "itc").passed


@pytest.mark.parametrize(("a", "b", "far"), [("", "", 0), ("ab", "ba", 1), ("abc", "ac", 1), ("kitten", "sitting", 3)])
def test_distance_counts_slips(a, b, far):
    assert distance(a, b) == distance(b, a) == far


def test_numbers_are_shown_short():
    assert "It is 0.637." in checks.prediction(0.65, 0.63700001).message
    assert "not 31" in checks.prediction(31, 257).message
