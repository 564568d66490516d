"""Templates, wordings, and what people type around them."""

import re
from random import Random

import pytest

from blip2_lab.picturebook.scene import KINDS, PLACES, TIMES
from blip2_lab.picturebook.templates import WORDINGS
from blip2_lab.picturebook.wordings import SCENERY, UNKNOWN, as_typed, expand, wording, words_of_wordings
from blip2_lab.picturebook.words import plural


def test_expand_chooses_one_of_every_bracket():
    said = {expand(Random(i), "[is|are] {what}[ here|]", what="a [big|small] boat") for i in range(200)}
    ends = ("a big boat", "a big boat here", "a small boat", "a small boat here")
    assert said == {f"{verb} {end}" for verb in ("is", "are") for end in ends}
    with pytest.raises(KeyError):
        expand(Random(0), "{nonsense}")


def test_what_is_typed_keeps_the_question():
    for index in range(300):
        typed = as_typed(Random(index), "what color is the boat")
        kept = [word for word in ("what", "color", "boat") if word in typed]
        assert kept == ["what", "color", "boat"]


def test_wordings_have_no_bracket_left_open_and_no_unknown_slot():
    slots = dict.fromkeys(
        "ref a plural singular color other attribute where relation first place a_place another_place other_place "
        "category number large small size first second firsts seconds more unknown asked fact a_fact quality "
        "besides besides_first joint purpose all order".split(),
        "x",
    )
    for intention, templates in WORDINGS.items():
        assert len(set(templates)) == len(templates), intention
        for index in range(60):
            assert not re.search(r"[\[\]{}|]", wording(Random(f"{intention} {index}"), intention, **slots))
    known = words_of_wordings()
    assert {"whereabouts", "please", "dog", "ship"} <= known and not any(re.search(r"[^a-z-]", word) for word in known)
    assert {plural(kind) for kind in KINDS}.isdisjoint({UNKNOWN}) and UNKNOWN not in known
    assert set(PLACES) | set(TIMES) == set(SCENERY)
