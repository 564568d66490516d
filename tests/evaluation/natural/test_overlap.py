"""Wordings that the corpus has, too: by hand, and that what it generates is found."""

from random import Random

import pytest

from blip2_lab.evaluation.natural import natural_questions, natural_scores
from blip2_lab.evaluation.natural.ask import Answer
from blip2_lab.evaluation.natural.overlap import corpus_wordings, in_corpus, plain
from blip2_lab.picturebook.scene import sample_scene
from blip2_lab.picturebook.templates import WORDINGS
from blip2_lab.picturebook.wordings import expand


@pytest.mark.parametrize("wording", ["what {colour} is {the}", "What's {the}".lower(), "how many {several} do you see"])
def test_a_wording_of_the_corpus_is_found_whatever_fills_its_blanks(wording):
    assert in_corpus(wording)


@pytest.mark.parametrize("wording", ["{the} wears what {colour}", "how many {several} sing", "whither {the}"])
def test_a_new_wording_is_new(wording):
    assert not in_corpus(wording)


def test_whatever_the_corpus_generates_is_among_its_wordings():
    slots = dict.fromkeys(["ref", "plural", "singular", "a", "category", "number", "color", "where"], "zorp")
    for intention in ("color", "count", "inventory", "existence", "what"):
        for seed in range(40):
            template = Random(seed).choice(WORDINGS[intention])
            said = plain(expand(Random(seed), template, **slots)).replace("zorp", "_")
            assert said in corpus_wordings(), said


def test_scores_count_new_wordings_by_themselves():
    book = [sample_scene(4, index) for index in range(20)]
    asked = natural_questions(book, 4)
    known = [in_corpus(question.wording) for question in asked]
    assert 0 < sum(known) < len(known)
    scores = natural_scores([Answer("nonsense")] * len(asked), asked, book)
    assert scores["new_wordings_count"] == len(known) - sum(known) and scores["new_wordings"] == 0.0
