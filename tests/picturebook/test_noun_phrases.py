"""Plurals, and words that point at one thing of a scene."""

import re
from random import Random

import pytest

from blip2_lab.picturebook.noun_phrases import plural_of, positions, refer
from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES, Scene, Thing, sample_scene
from blip2_lab.picturebook.wordings import SYNONYMS


def test_a_referring_phrase_fits_one_thing():
    for index in range(500):
        scene, rng = sample_scene(12, index), Random(index)
        found = refer(scene, rng)
        if not found:
            continue
        text, meant = found
        words = set(text.split())
        names = {other: name for name, others in SYNONYMS.items() for other in others}
        read = words | {names[w] for w in words if w in names}
        said = [(name, read & set(values)) for name, values in (("kind", KINDS), ("color", COLORS), ("size", SIZES))]
        fits = [t for t in scene.things if all(values <= {getattr(t, name)} for name, values in said)]
        assert meant in fits
        if not re.search(r"\b(left|right|top|bottom|upper|lower|middle|center|centre)\b", text):
            assert fits == [meant], (text, scene)


def test_side_words_are_used_only_where_one_thing_is_on_that_side():
    cells = ((0, 0), (0, 2), (1, 1), (2, 1))
    things = tuple(Thing("boat", "red", "large", (column + 0.5) / 3, (row + 0.5) / 3) for row, column in cells)
    scene = Scene(things, "beach", "night")
    assert positions(scene, scene.things[3]) == ["bottom", "bottom"]
    assert positions(scene, scene.things[0]) == ["top left", "left"]  # two are at the top


@pytest.mark.parametrize(
    ("noun", "several"),
    [("boat", "boats"), ("fish", "fish"), ("kitty", "kitties"), ("thing to eat", "things to eat"), ("bus", "buses"),
     ("box", "boxes"), ("person", "people"), ("toy", "toys"),
     ("means of transport", "means of transport"), ("green aircraft", "green aircraft")],
)  # fmt: skip
def test_plurals(noun, several):
    assert plural_of(noun) == several
