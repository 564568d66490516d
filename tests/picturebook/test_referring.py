"""Referring expressions: a reader of the text alone finds exactly one thing, and the words are needed."""

import re
from random import Random

import pytest

from blip2_lab.picturebook.referring import GROUPS, all_expressions, expressions
from blip2_lab.picturebook.scene import COLORS, KINDS, SIZES, Scene, Thing, sample_scene
from blip2_lab.picturebook.tokenizer import build_tokenizer

NOUN = rf"the (?:({'|'.join(SIZES)}) )?(?:({'|'.join(COLORS)}) )?({'|'.join(KINDS)}|thing)"
PLACE = r"(?: (?:at|on|in) the (top left|top right|bottom left|bottom right|top|bottom|left|right|middle))?"
RELATION = rf"(?: (to the left of|to the right of|above|below) {NOUN})?"
READ = re.compile(NOUN + PLACE + RELATION)


def named(things, size, color, noun):
    wanted = {"size": size, "color": color, "kind": None if noun == "thing" else noun}
    return [t for t in things if all(value in (None, getattr(t, name)) for name, value in wanted.items())]


def readings(text: str, scene: Scene, strict: bool) -> list[Thing]:
    """The things that the text fits, read from its words: positions and relations by cells, or loosely by centers."""
    match = READ.fullmatch(text)
    assert match, text
    *noun, place, relation = match.groups()[:5]
    found = named(scene.things, *noun)
    if place and strict:
        found = [t for t in found if t.position == place]
    elif place:
        found = [t for t in found if all(word in t.position.split() for word in place.split())]
    if relation:
        (anchor,) = named(scene.things, *match.groups()[5:])  # it is clear, too
        axis = ("column", "row") if strict else ("x", "y")
        name = axis[0] if "left" in relation or "right" in relation else axis[1]
        sign = 1 if relation in ("to the left of", "above") else -1
        found = [t for t in found if t is not anchor and sign * (getattr(anchor, name) - getattr(t, name)) > 0]
    return found


@pytest.mark.parametrize("strict", [True, False])
def test_every_expression_means_one_thing(strict):
    count = dict.fromkeys(GROUPS, 0)
    for index in range(80):
        scene = sample_scene(31, index)
        for group, found in all_expressions(scene).items():
            for expression, number in found:
                assert readings(expression.text, scene, strict) == [scene.things[number]], (expression.text, scene)
                assert expression.meant(scene) == [number] and expression.group == group
                count[group] += 1
    assert min(count.values()) > 100


def boat(x, y, color="red", kind="boat", size="small"):
    return Thing(kind, color, size, x, y)


def test_referring_expressions_by_hand():
    scene = Scene((boat(0.1, 0.5), boat(0.9, 0.5), boat(0.5, 0.1, "blue", "fish")))
    texts = {group: {e.text: number for e, number in found} for group, found in all_expressions(scene).items()}
    assert texts["attributes"] == {
        "the fish": 2,
        "the blue thing": 2,
        "the blue fish": 2,
        "the small fish": 2,
        "the small blue fish": 2,
    }
    assert texts["position"]["the boat on the left"] == 0 and texts["position"]["the boat on the right"] == 1
    assert texts["position"]["the thing at the top"] == 2
    assert not any("fish" in text for text in texts["position"]), "the fish is clear without its position"
    assert texts["relation"]["the boat to the left of the fish"] == 0
    assert texts["relation"]["the red thing to the right of the blue thing"] == 1
    assert "the boat below the fish" not in texts["relation"], "both boats are below it"


def test_a_reader_who_is_less_strict_is_not_misled():
    left_and_corner = Scene((boat(0.1, 0.5), boat(0.1, 0.1)))
    found = {e.text for e, _ in all_expressions(left_and_corner)["position"]}
    assert "the boat at the top left" in found and "the boat on the left" not in found
    one_column = Scene((boat(0.1, 0.5), boat(0.45, 0.9), boat(0.55, 0.1, "blue", "fish")))
    found = {e.text for e, _ in all_expressions(one_column)["relation"]}
    assert "the boat to the left of the fish" not in found, "the second boat is a little further left, too"
    sun = Scene((boat(0.1, 0.5, "yellow"), boat(0.9, 0.5, "blue")))
    assert "the yellow thing" not in {e.text for e, _ in all_expressions(sun)["attributes"]}


def test_they_are_drawn_by_the_seed_and_known_to_the_miniature():
    tokenizer = build_tokenizer("bert")
    for index in range(40):
        scene = sample_scene(32, index)
        drawn = expressions(scene, Random(index))
        assert drawn == expressions(scene, Random(index))
        assert [e.group for e, _ in drawn] == [g for g in GROUPS if all_expressions(scene)[g]]
        for expression, _ in drawn:
            assert tokenizer.unk_token_id not in tokenizer(expression.text).input_ids
    assert expressions(Scene((boat(0.1, 0.5),)), Random(0))[0][0].group == "attributes"
