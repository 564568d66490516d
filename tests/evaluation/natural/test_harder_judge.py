"""The judge of harder questions is lenient in form and strict in content."""

from dataclasses import replace

import pytest

from blip2_lab.evaluation.natural import harder_judge
from blip2_lab.evaluation.natural.harder_judge import HarderQuestion, is_right
from blip2_lab.evaluation.natural.judge import About
from blip2_lab.picturebook.scene import Scene, Thing

#: At the top left a large red boat, on the left a small red car, at the bottom right a small blue boat.
HARBOR = Scene(
    (
        Thing("boat", "red", "large", 0.17, 0.17),
        Thing("car", "red", "small", 0.17, 0.5),
        Thing("boat", "blue", "small", 0.83, 0.83),
    ),
    "beach",
    "night",
)
#: In the middle a large gray cat, on the right a small red fish.
PETS = Scene((Thing("cat", "gray", "large", 0.5, 0.5), Thing("fish", "red", "small", 0.83, 0.5)), "snow", "day")
#: At the top left and at the bottom left a small pink apple each, at the top right a large green house.
GARDEN = Scene(
    (
        Thing("apple", "pink", "small", 0.17, 0.17),
        Thing("apple", "pink", "small", 0.17, 0.83),
        Thing("house", "green", "large", 0.83, 0.17),
    ),
    "mountains",
    "day",
)


def question(group, judge, things=(), truth="", about=None, asked="", where="", nouns=(), wording=""):
    return HarderQuestion(
        0, group, "", judge, truth, wording, None, about, asked, things=things, where=frozenset(where), nouns=nouns
    )


LEFT = question("side", "things", (0, 1), where="L", about=About())
CORNER = question("side", "things", (2,), where="BR", about=About())
MIDDLE = question("side", "things", where="M", about=About())
BOTTOM_LEFT = question("side", "things", where="BL", about=About())
LARGEST = question("superlative", "which", (0,), asked="largest biggest")
LEFTMOST = question("superlative", "which", (0,), asked="leftmost")
RIGHTMOST = question("superlative", "which", (2,), asked="rightmost")
VEHICLES = question("category count", "number", truth="three", about=About("vehicle"))
ANIMALS = question("category count", "number", truth="none", about=About("animal"))
WHICH_VEHICLES = question("category which", "kinds", (0, 1, 2), about=About("vehicle"))
WHICH_ANIMALS = question("category which", "kinds", about=About("animal"))
CAN_SAIL = question("by use", "kinds", (0, 2), asked="sail", wording="which {thing} can {do}")
ANY_SAIL = question("by use", "any", (0, 2), "yes", asked="sail")
ANY_SWIM = question("by use", "any", (), "no", asked="swim")
TRAVEL = question("purpose", "kinds", (0, 1, 2), asked="travel with")
EAT = question("purpose", "kinds", (), about=About("food"), asked="eat")
ANY_EAT = question("purpose", "any", (), "no", about=About("food"), asked="eat")
ANY_RIDE = question("purpose", "any", (0, 1, 2), "yes", asked="travel with")
OTHER = question("other things", "things", (0, 2), about=About(), wording="what else is there besides {the}")
NOT_RED = question("negation", "things", (2,), asked="red", about=About())
NOT_BOAT = question("negation", "things", (1,), asked="boat", about=About())
NOT_VEHICLE = question("negation", "things", (), asked="vehicle", about=About())
BOAT_AND_CAR = question("two things", "both", truth="yes", nouns=("boat", "car"))
CAR_AND_DOG = question("two things", "both", truth="no", nouns=("car", "dog"))
CAR_OR_DOG = question("two things", "either", truth="yes", nouns=("car", "dog"))
CAT_OR_DOG = question("two things", "either", truth="no", nouns=("cat", "dog"))
ALL_RED = question("of all", "all", (0, 1, 2), "no", asked="red")
ALL_SMALL = question("of all", "all", (0, 1, 2), "no", asked="small")
CAR_AND_BOAT = question("of all", "same", (0, 1), "yes", wording="do {the} and {other} have the same {colour}")
TWO_BOATS = question("of all", "same", (0, 2), "no", wording="do {the} and {other} have the same {colour}")
BOATS_COLOR = question("group", "colors", (0, 2))
BOATS_WHERE = question("group", "positions", (0, 2), asked="where")
BOATS_POSITIONS = question("group", "positions", (0, 2))
CAPTION = question("one sentence", "sentence")

#: (question, right answers, wrong answers), about HARBOR
OF_HARBOR = [
    (
        LEFT,
        """a red boat and a red car | a boat and a car | a car, a boat | on the left there is a boat and a small car
        | the red boat and the car are on the left | two things: a boat and a car | a large boat at the top left
        and a car | a boat above a car | two red things: a boat and a car | a ship and an auto""",
        """a boat | a red car | a boat, a car and a blue boat | two boats | nothing | a boat and a plane | a blue
        boat and a car | a red boat and a red car on the right | two things | red | yes | a boat, a boat and a
        car | a boat and a zebra | three things: a boat and a car | no boat and no car | a boat below a car""",
    ),
    (
        CORNER,
        """a blue boat | boat | a small boat | it is a blue boat at the bottom right | there is a boat | there's a
        ship""",
        """a red boat | nothing | a car | boats | a blue boat and a car | blue | no | a boat in the snow | no boat""",
    ),
    (
        MIDDLE,
        """nothing | none | there is no thing there | there is nothing in the middle | nothing at all | no things |
        there isn't anything | no thing | there are no things there | nothing is there | it is empty | nothing,
        only a boat on the left""",
        """a boat | a red car | yes | no | nothing on the left | there is no cat | nothing red | nothing, only a
        plane | there is nothing, there is a cat | there is a thing | middle | beach""",
    ),
    (
        BOTTOM_LEFT,
        "nothing | nothing in the bottom left corner | none | nothing at the bottom left",
        "nothing at the bottom | a car | a blue boat | nothing on the left",
    ),
    (
        LARGEST,
        """the boat | a red boat | the large one | the red boat at the top left | the largest is the red boat | the
        boat is the biggest thing | the thing at the top left | boat""",
        """the car | the blue boat | the red one | a boat and a car | the smallest is the red boat | none | large |
        two boats | yes""",
    ),
    (
        LEFTMOST,
        "the boat | the red boat is leftmost | the boat is furthest left | the large boat",
        "the car | the boat is furthest right | the boat is rightmost | left | the blue boat",
    ),
    (
        RIGHTMOST,
        "the blue boat | the blue one | the small boat | the boat is furthest to the right",
        "the red boat | the car | the small one | nothing",
    ),
    (
        VEHICLES,
        "three | 3 | three vehicles | there are three | two boats and a car | three of them",
        "two | none | three animals | four | vehicles | two boats | yes",
    ),
    (ANIMALS, "none | zero | no animals | there are no animals", "one | three | no | a cat | no vehicles"),
    (
        WHICH_VEHICLES,
        """a red boat, a red car and a blue boat | boats and a car | two boats and a car | a car and a boat | three
        vehicles: two boats and a car""",
        """a boat | a car | boats, a car and a plane | none | three vehicles | a green boat and a car | three boats
        and a car | there are no vehicles | a boat and a blue car""",
    ),
    (
        WHICH_ANIMALS,
        """none | there are no animals | no animals | nothing | there is no animal | I see no animals | no animals,
        only boats""",
        """a cat | boats | there are no vehicles | yes | there is no cat | no animals, only planes | a boat and a
        car""",
    ),
    (
        CAN_SAIL,
        """a boat | the boats | the red boat | two boats | the boats can sail | the ships | the blue boat can sail""",
        """the car | a boat and a car | sail | none | a green boat | three boats | the boats can swim | the boat can
        not sail""",
    ),
    (
        ANY_SAIL,
        "yes | yes, a boat | the boats | a red boat | yes, two | yes, the boats can sail | there is a boat",
        "no | yes, a car | the car | yes, a green boat | nothing | yes, three | no, there is nothing",
    ),
    (
        ANY_SWIM,
        """no | nothing | no, nothing can swim | none | no, only boats | there is nothing that can swim | there is
        no such thing""",
        "yes | a fish | yes, a fish | no, only planes | the boat | yes, the boats",
    ),
    (
        TRAVEL,
        """boats and a car | a boat and a car | a red boat, a blue boat and a red car | two boats and a red car""",
        "a boat | a car and a plane | none | a boat, a car and a cat",
    ),
    (
        EAT,
        "nothing | there is nothing to eat | nothing to eat | none | there isn't anything to eat",
        "a boat | an apple | yes | no | there is no boat",
    ),
    (
        ANY_EAT,
        "no | no, there is nothing to eat | nothing | no, there isn't",
        "yes | an apple | yes, an apple | a boat",
    ),
    (ANY_RIDE, "yes | yes, a car | a red boat | yes, three", "no | yes, a plane | nothing | yes, a blue car"),
    (
        OTHER,
        """two boats | a red boat and a blue boat | boats | besides the car there are two boats | two boats in
        addition to the car | a red and a blue boat""",
        """a boat | two boats and a car | nothing | a car | a red boat | three boats | besides the cat there are two
        boats | besides the car there is a red boat | two boats and a plane""",
    ),
    (
        NOT_RED,
        """a blue boat | the blue boat | the blue boat is not red | the boat at the bottom right | a small blue boat""",
        """a red boat | a car | a blue boat and a red car | nothing | two boats | red | the car is not red | blue |
        the boat is not blue""",
    ),
    (
        NOT_BOAT,
        "the car | a red car | the car is not a boat | a small car on the left",
        "a boat | a car and a boat | a blue boat | nothing | a blue car | a plane",
    ),
    (
        NOT_VEHICLE,
        "nothing | none | no things | there is nothing",
        "a boat | a car | yes | a cat | no | all things are red",
    ),
    (
        BOAT_AND_CAR,
        """yes | yes, both | a boat and a car | yes, two boats and a car | there are two boats and a car | both are
        there""",
        """no | only a boat | yes, a boat and a plane | neither | a boat | no boat | yes, three boats | there is no
        car""",
    ),
    (
        CAR_AND_DOG,
        """no | no, only a car | there is a car but no dog | there is no dog | no dog | no, there is just a red car
        | no, there isn't a dog""",
        """yes | both | a car and a dog | a car | neither | there is a dog but no car | no, there is no car | no,
        only a plane""",
    ),
    (
        CAR_OR_DOG,
        "yes | a car | yes, a car | there is a car but no dog | yes, a red car",
        "no | a dog | neither | yes, a dog | there is no dog | no, there is no dog",
    ),
    (
        CAT_OR_DOG,
        "no | neither | none | no cat and no dog | there is no cat and no dog | no, neither",
        "yes | a cat | a dog | both | there is no cat | there is no boat | yes, both",
    ),
    (
        ALL_RED,
        """no | no, the boat at the bottom right is blue | not all | no, one is blue | only two | red and blue | no,
        only two are red | no, there is a blue boat | not all of them | not all are red""",
        """yes | they are red | all are red | no, none of them is red | no, the car is blue | no, one is green |
        yes, all three | red | no, only one is red""",
    ),
    (
        ALL_SMALL,
        "no | no, the red boat is large | no, one is large | only two | no, two are small | not all",
        """yes | small | no, the car is large | no, two are large and the boat is medium | no, none | all are small""",
    ),
    (
        CAR_AND_BOAT,
        "yes | yes, both are red | they are red | red | yes, they have the same color | both are red",
        "no | yes, blue | no, the car is blue | no, they are different | blue | red and blue",
    ),
    (
        TWO_BOATS,
        """no | no, one is red and one is blue | red and blue | no, they are different | no, not the same | no, the
        large boat is red and the small boat is blue""",
        "yes | yes, red | both are red | no, one is red and one is green | the same | no, red",
    ),
    (
        BOATS_COLOR,
        """red and blue | one is red and one is blue | one is red and the other is blue | a red boat and a blue boat
        | blue, red | the boats are red and blue | the large boat is red and the small boat is blue | one red and
        one blue""",
        """red | blue | red, blue and green | two are red | both are red | red and green | none | a red car and a
        blue boat | the large boat is blue and the small boat is red | not blue | boats""",
    ),
    (
        BOATS_WHERE,
        """one at the top left and one at the bottom right | at the top left and at the bottom right | top left and
        bottom right | on the left and on the right | on the beach | the red boat is at the top left, the blue
        boat at the bottom right | a boat at the top and a boat at the bottom | in the top left and bottom right
        corners | one is above the car and one is below it, at the bottom right""",
        """top left | at the bottom right | both on the left | on the left | at the top left and at the top right |
        in the snow | the red boat is at the bottom right, the blue boat at the top left | one at the top left |
        two boats | yes | top left, bottom right and middle | one on the left, one on the right and one at the
        top | no | both above the car""",
    ),
    (
        BOATS_POSITIONS,
        """top left and bottom right | one at the top left, one at the bottom right | the red one at the top, the
        other at the bottom""",
        "on the beach | top left | both at the top | the car at the top left and a boat at the bottom right",
    ),
    (
        CAPTION,
        """a red boat, a red car and a blue boat on the beach at night. | a picture of two boats and a car | a boat
        | the beach at night | boats | it shows three vehicles | a red boat above a red car | a large red boat at
        the top left | three things on the beach: two boats and a car | night""",
        """a red boat in the snow | a green boat | three boats | yes | red | a boat by day | two red boats and a car
        | a red boat, a red boat and a car | a cat | a red boat and a zebra | a red boat below a red car | small
        | three""",
    ),
]
#: The same questions, answered in whole sentences
IN_SENTENCES = [
    (
        CAT_OR_DOG,
        """there is neither a cat nor a dog | no cat or dog | no, there are no cats or dogs | no, there isn't a cat
        or a dog""",
        "yes, there are cats and dogs | there is no car | neither a car nor a dog | neither a cat nor a boat",
    ),
    (
        CAR_AND_DOG,
        "no, there is only a car. | no, there is a car, but there is no dog. | no, I see no dog",
        "yes, there is a car | only a dog",
    ),
    (
        ALL_RED,
        """no, one of them is blue | no, the boat is blue and the car is red | no, they have different colors | no,
        some are blue | two are red and one is blue | no, not every thing is red""",
        """yes, all of them are red | they are all red | all three are red | everything is red | no, all are blue""",
    ),
    (
        CAR_AND_BOAT,
        """yes, both of them are red | they are both red | yes, the same color | yes, the car is red and the boat is
        red""",
        "no, they have different colors | yes, both blue",
    ),
    (
        TWO_BOATS,
        """no, they have different colors | no, one is red, the other is blue | no, they do not have the same color
        | they differ | no, the first is red and the second is blue""",
        "yes, the same color | they have the same color",
    ),
    (
        ANY_SWIM,
        """no, nothing here can swim. | no, there is nothing that can swim | nothing can swim here | no, there is no
        fish | no thing can swim""",
        "yes, the boats can swim | the boat can swim | something can swim | no animals",
    ),
    (
        EAT,
        "there is nothing to eat here. | there is no food | I see nothing to eat | nothing, sorry",
        "food | there is food | the picture does not show it | apples | there are no animals",
    ),
    (
        LARGEST,
        """the largest thing is the red boat. | the red boat is the largest thing | a large red boat | it is a red
        boat""",
        "the largest thing is the car | it is the car | it is small | the thing at the bottom",
    ),
    (
        BOATS_COLOR,
        """the boats are red and blue | one boat is red and one boat is blue | one boat is red and the other one is
        blue | the one at the top left is red and the one at the bottom right is blue""",
        "the boats are red | both boats are blue | red and blue and pink | one is red and two are blue",
    ),
    (
        BOATS_WHERE,
        """the boats are at the top left and at the bottom right | one boat is at the top left and one boat is at
        the bottom right. | they are on the beach | the first is at the top left and the second at the bottom
        right""",
        """the boats are on the left | they are at the top left | one at the top left and one at the bottom left""",
    ),
    (
        CAPTION,
        """a beach at night with two boats and a car | a picture of the beach | a night scene with boats | two
        boats, a car and the moon at night. | at the top left a large red boat and at the bottom right a small
        blue boat, on the beach""",
        """a picture | a scene | a thing | two boats, a car and the sun | a drawing of a dog | there are two things""",
    ),
    (
        MIDDLE,
        """the middle is empty | there is nothing in the middle. | nothing stands there | I see nothing in the
        middle""",
        "something | a thing in the middle | sand | there is nothing, only a fish",
    ),
    (
        WHICH_ANIMALS,
        """there are no animals here. | there isn't any animal | no animals at all | none of them | there aren't any""",
        "no | there are animals | two animals | a fish and a bird | there are no things",
    ),
    (
        LEFT,
        """on the left there are a boat and a car | a red boat is at the top left and a red car is on the left | the
        left side has a boat and a car | I see a red boat and a red car on the left""",
        "on the left there is a boat | a car and a blue boat on the left | a cat and a car",
    ),
]
NEXT_TO_CAT = question("next to", "which", (1,), about=About())
LEFT_OF = question("next to", "which", (0,), asked="leftmost")
BOTH_GRAY = question("of all", "all", (0, 1), "no", asked="gray")
NOT_SMALL = question("negation", "things", (0,), asked="small", about=About())
#: About PETS
OF_PETS = [
    (
        NEXT_TO_CAT,
        """a fish | the red fish | a small red fish | next to the cat is a fish | fish | there is a fish next to the
        cat | the red one | the fish is to the right of the cat""",
        """a cat | a cat and a fish | nothing | a boat | no | a blue fish | next to the dog is a fish | the fish is
        left of the cat | the gray one""",
    ),
    (
        LEFT_OF,
        "the cat | the gray one | the cat is further left | the large cat | the cat is left of the fish",
        "the fish | the red one | the cat is further right | left | both | the cat is right of the fish",
    ),
    (BOTH_GRAY, "no | no, only the cat | no, the fish is red | only one", "yes | both | gray | no, the cat is red"),
    (NOT_SMALL, "the cat | a gray cat | a large cat", "a fish | a cat and a fish | nothing | a small cat"),
]
TOP = question("side", "things", (0, 2), where="T", about=About())
APPLES_COLOR = question("group", "colors", (0, 1))
APPLES_WHERE = question("group", "positions", (0, 1), asked="where")
BOTH_PINK = question("of all", "all", (0, 1), "yes", asked="pink")
NOT_PINK = question("negation", "things", (2,), asked="pink", about=About())
FOOD = question("purpose", "kinds", (0, 1), asked="eat", about=About())
#: About GARDEN
OF_GARDEN = [
    (
        TOP,
        "an apple and a house | a house and an apple | the sun, an apple and a house",
        "an apple | two apples and a house",
    ),
    (
        APPLES_COLOR,
        "pink | both are pink | they are pink | two pink apples | all of them are pink",
        "green | pink and green | red | three pink apples | no",
    ),
    (
        APPLES_WHERE,
        """on the left | both on the left | one at the top left and one at the bottom left | top left and bottom
        left | in the mountains""",
        "top left | on the right | top left and top right | one on the left | both at the top",
    ),
    (
        BOTH_PINK,
        "yes | yes, both | pink | both are pink | yes, they are pink | yes, all of them",
        "no | only one | yes, green | no, one is green | not all",
    ),
    (NOT_PINK, "a house | the green house", "an apple | a house and an apple | nothing | two houses"),
    (
        FOOD,
        "apples | two apples | an apple | two pink apples to eat",
        "a house | an apple and a house | nothing | cakes",
    ),
]
TABLES = ((HARBOR, OF_HARBOR), (HARBOR, IN_SENTENCES), (PETS, OF_PETS), (GARDEN, OF_GARDEN))


def mistakes() -> list[str]:
    """What the judge gets wrong of the tables."""
    found = []
    for scene, table in TABLES:
        for asked, right, wrong in table:
            for answers, truth in ((right, True), (wrong, False)):
                for answer in " ".join(answers.split()).split(" | "):
                    if is_right(asked, answer, scene) != truth:
                        found.append(f"{asked.group}, {asked.judge}, {asked.things}: {answer!r} is {truth}")
    return found


def test_the_harder_judge_agrees_with_a_hand_made_table():
    assert not mistakes()


def test_each_group_has_four_right_and_four_wrong_answers():
    for group in {asked.group for _, table in TABLES for asked, _, _ in table}:
        rows = [row for _, table in TABLES for row in table if row[0].group == group]
        assert all(sum(row[side].count("|") + 1 for row in rows) >= 4 for side in (1, 2)), group


def test_no_thing_is_left_is_said_by_all_are_red_too():
    red = replace(HARBOR, things=HARBOR.things[:2])
    asked = replace(NOT_RED, things=())
    for answer in ("nothing", "none", "all are red", "both are red", "all things are red"):
        assert is_right(asked, answer, red), answer
    for answer in ("all are blue", "a red boat", "red", "no, all are red", "yes"):
        assert not is_right(asked, answer, red), answer


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("covers", lambda listed, things, scene: len(listed) == len(things)),
        ("is_true", lambda *_: True),
        ("relation_holds", lambda *_: True),
        ("setting_holds", lambda *_: True),
        ("polarity", lambda said, implied: "yes" if "yes" in said.says | implied else "no"),
        ("named", lambda said, name: getattr(said.stated, name)),
        ("reworded", lambda answer: answer),
        ("without_repeated", lambda answer: (answer, [])),
        ("_sums_up", lambda mention, things: True),
        ("_denied_of", lambda said, thing: False),
        ("_number_of", lambda part: 0),
        ("_counts_less", lambda said, number: False),
        ("_is_one_called_several", lambda mention, listed, things: False),
        ("_is_true_of", lambda *_: True),
        ("_true_numbers", lambda said, value, things: set(range(9))),
        ("_of_each", lambda said: False),
        ("_spoken_of", lambda said, things, scene: things),
    ],
)
def test_the_table_notices_a_careless_harder_judge(monkeypatch, name, mutant):
    monkeypatch.setattr(harder_judge, name, mutant)
    assert mistakes()


def test_a_refusal_and_silence_are_no_answers():
    for answer in ("I do not know the word 'swim'; did you mean 'no'?", "", " . "):
        assert not any(is_right(asked, answer, scene) for scene, table in TABLES for asked, _, _ in table)


def test_an_unknown_harder_judge_is_an_error():
    with pytest.raises(ValueError, match="there is no judge 'taste'"):
        is_right(question("side", "taste"), "red", HARBOR)
