"""VQA accuracy by both rules, by hand."""

import json

import pytest

from blip2_lab.evaluation.vqa import RULES, normalize, vqa_accuracy, without_punctuation, write_results

TEN = ["red"] * 3 + ["dark red"] * 7


@pytest.mark.parametrize("rule", RULES)
def test_leave_one_out_by_hand(rule):
    """red, said by 3 of 10: leaving out one of the three, 2 are left: 2/3, three times; else 3: 1, seven times."""
    assert vqa_accuracy("red", TEN, rule) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert vqa_accuracy("dark red", TEN, rule) == 1
    assert vqa_accuracy("blue", TEN, rule) == 0
    # said by 1 of 10: left out once, 1/3 nine times
    assert vqa_accuracy("blue", ["blue"] + ["red"] * 9, rule) == pytest.approx(9 / 3 / 10)
    # said by 4 or more: always 1
    assert vqa_accuracy("blue", ["blue"] * 4 + ["red"] * 6, rule) == 1


def test_unanimous_truths_are_compared_as_they_are_by_the_present_rule():
    yes = ["yes"] * 10
    assert vqa_accuracy("Yes", yes, "lavis") == 1
    assert vqa_accuracy("Yes", yes, "gt-vision-lab") == 0
    assert vqa_accuracy(" yes\n", yes, "gt-vision-lab") == 1
    assert vqa_accuracy("two", ["two"] * 10, "gt-vision-lab") == 1
    assert vqa_accuracy("two", ["two"] * 10, "lavis") == 0  # the answer becomes 2, and the truths stay


def test_truths_that_disagree_are_normalized_in_full_by_the_present_rule_only():
    truths = ["Two dogs."] * 5 + ["the cat"] * 5
    assert vqa_accuracy("2 dogs", truths, "gt-vision-lab") == 1
    assert vqa_accuracy("2 dogs", truths, "lavis") == 0  # there they are Two dogs
    assert vqa_accuracy("a cat", truths, "gt-vision-lab") == 1
    assert vqa_accuracy("a cat", truths, "lavis") == 0
    assert vqa_accuracy("x y", ["x/y"] * 5 + ["z"] * 5, "lavis") == 1  # punctuation goes in both


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog", "dog"),
        ("an apple and a pear", "apple and pear"),
        ("Ten", "10"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # two are missing
        ("somebody'd", "somebodyd"),  # the wrong way round in both scripts
        ("Im", "im"),  # the table has Im, and the word is lower-cased before
        ("red-blue", "red blue"),
        ("red - blue", "red blue"),
        ("1,000 re-use", "1000 reuse"),  # a comma between digits: everything is left out
        ("a, b", "b"),
        ("3.5", "3.5"),
        ("3.", "3"),  # the look-behind that should keep this point does nothing
        (".5", ".5"),
        ("u.s.", "us"),
        ("what's that?", "what's that"),
        ("", ""),
    ],
)
def test_normalizing(text, expected):
    assert normalize(text) == expected


def test_only_the_first_32_full_stops_go():
    """re.UNICODE is 32, and stands where `re.sub` takes the number of replacements."""
    assert without_punctuation("." * 40) == "." * 8


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="gt-vision-lab, lavis"):
        vqa_accuracy("a", ["a", "b"], "vqa")
    for truths in ("yes", [{"answer": "yes"}] * 10):  # one text would be compared letter by letter
        with pytest.raises(ValueError, match="a list of texts, and this is"):
            vqa_accuracy("yes", truths)
    with pytest.raises(ValueError, match="compare exactly"):
        vqa_accuracy("a", ["a"])


def test_the_vqa_results_are_as_the_server_takes_them(tmp_path):
    path = write_results(tmp_path, {5: "Yes", 2: "two dogs"}, "test-dev2015", "micro")
    assert path.name == "v2_OpenEnded_mscoco_test-dev2015_micro_results.json"
    assert json.loads(path.read_text()) == [
        {"question_id": 5, "answer": "yes"},
        {"question_id": 2, "answer": "two dogs"},
    ]
    with pytest.raises(ValueError, match="separate the parts"):
        write_results(tmp_path, {}, "val2014", "my_model")
