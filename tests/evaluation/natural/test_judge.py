"""The judge of answers is lenient in form and strict in content."""

import pytest

from blip2_lab.evaluation.natural import is_right, judge
from blip2_lab.evaluation.natural.judge import About, NaturalQuestion
from blip2_lab.evaluation.natural.questions import in_words
from blip2_lab.picturebook.scene import Scene, Thing

#: Top row: a large red boat on the left. Middle row: a small red car on the left. Bottom row: a small blue boat.
HARBOR = Scene(
    (
        Thing("boat", "red", "large", 0.17, 0.17),
        Thing("car", "red", "small", 0.17, 0.5),
        Thing("boat", "blue", "small", 0.83, 0.83),
    ),
    "beach",
    "night",
)
CATS = Scene((Thing("cat", "gray", "large", 0.5, 0.5), Thing("cat", "gray", "small", 0.83, 0.17)), "meadow", "day")


def question(judge, truth="", thing=None, about=None, asked=""):
    return NaturalQuestion(0, "by hand", "", judge, truth, "", thing, about, asked)


LIST = question("list", in_words(HARBOR))
TWO_CATS = question("list", in_words(CATS))
BOATS = question("number", "two", about=About("boat"))
BLUE_BOATS = question("number", "one", about=About("boat", "blue"))
PLANES = question("number", "none", about=About("plane"))
THINGS = question("number", "three", about=About())
ANY_BOAT = question("existence", "yes", about=About("boat"))
ANY_CAT = question("existence", "no", about=About("cat"))
BLUE_CAR = question("existence", "no", about=About("car", "blue"))
ANIMAL = question("existence", "no", about=About("animal"))
VEHICLE = question("existence", "yes", about=About("vehicle"))
DOG = question("existence", "no", about=About("dog"))
MOON = question("existence", "yes", about=About("moon"))
CAR_COLOR = question("color", "red", 1)
CAR_SIZE = question("size", "small", 1)
WHAT = question("kind", "car", 1)
CAR_IS_RED = question("yes or no", "yes", 1, asked="red")
CAR_IS_BLUE = question("yes or no", "no", 1, asked="blue")
IS_IT_DAY = question("yes or no", "no", asked="day")
BOAT_LEFT = question("yes or no", "yes", 0, asked="left")
BOAT_IS = question("position", "top left", 0)
CAR_IS = question("position", "left", 1)
WHERE = question("where", "top left", 0)
SIDE = question("side", "left", 0)
HEIGHT = question("side", "top", 0)
PLACE = question("place", "beach")
TIME = question("time", "night")
CATEGORY = question("category", "vehicle", 1)
USE = question("use", "drive", 1)
NO_CAT = question("absence", "there is no cat", about=About("cat"))
NO_GREEN_BOAT = question("absence", "there is no green boat", about=About("boat", "green"))

#: (question, right answers, wrong answers), about HARBOR
JUDGED = [
    (
        LIST,
        """a red boat, a red car and a blue boat | a blue boat, a red boat and a red car. | A large red boat at the
        top left, a small red car on the left and a small blue boat at the bottom right. | there is a red boat, a
        red car and a blue boat on the beach at night | three things: a red car, a blue boat, a red boat | I see
        a blue ship, a red car and a big red ship | red boat, blue boat, red car | one red car, one blue boat and
        one red boat | a red and a blue boat and a red car | the boat at the top left is red, the car is red and
        the boat at the bottom right is blue | a red boat above a red car, and a blue boat | red and blue boats
        and a red car""",
        """a red boat and a blue boat | a red boat, a red car, a blue boat and a blue boat | a red boat, a red car,
        a red boat | a red boat, a red car and a blue plane | two red boats and a red car | a boat, a car and a
        boat | a red boat, a red car, a blue boat and a dog | a red boat, a red car and a blue boat in the snow |
        a red boat, a red car and a blue boat by day | a small red boat, a red car and a blue boat | a red boat
        below a red car, and a blue boat | a red boat at the bottom, a red car and a blue boat | two things: a
        red boat, a red car and a blue boat | yes | boat | a red boat, a red car, a blue boat and a zebra | two
        red things and a blue boat | red and blue""",
    ),
    (
        BOATS,
        """two | 2 | two. | there are two | two boats | Two boats. | there are two boats in the picture | one red
        boat and one blue boat | I can see two boats | two boats: a red boat and a blue boat | a red one and a
        blue one | both""",
        """one | three | two cars | none | two red boats | boats | yes | a boat | one or two | two boats and a car |
        no boats | two boats in the snow | a red boat | two planes""",
    ),
    (
        BLUE_BOATS,
        "one | 1 | one blue boat | a blue boat | there is one | just one",
        "two | none | two boats | a red boat",
    ),
    (
        PLANES,
        """none | no planes | zero | 0 | there are no planes | no airplanes | there aren't any planes | there are
        none""",
        "one | no boats | two | no | yes | a plane | there are two planes",
    ),
    (THINGS, "three | 3 things | three things | there are three objects", "two | two boats | four | red"),
    (
        ANY_BOAT,
        """yes | Yes. | yes, there is | yes there are two | yeah | there are two boats | yes, two boats | yes, a red
        boat | a boat | there is | I do | yes, a red boat and a blue boat | yes, on the left | two""",
        """no | yes, three | yes, a green boat | there is no boat | no, there isn't | yes and no | car | red | one |
        there is one boat | yes, in the snow | none""",
    ),
    (
        ANY_CAT,
        """no | nope | no, there isn't | there is no cat | no cats | none | no, there are none | there isn't a cat |
        no, there is no cat | I do not see a cat | no, only boats and a car | no kitty | I see no cat""",
        """yes | yes, there is | a cat | no, a cat | there is a cat | there is no dog | no, there is a plane | two |
        yes, there is no cat""",
    ),
    (
        BLUE_CAR,
        "no | no, it is red | no, a red car | no, the car is red | there is no blue car",
        "yes | no, it is green",
    ),
    (ANIMAL, "no | no animals | none | there are no animals", "yes | yes, a cat | one | no, a cat"),
    (
        VEHICLE,
        "yes | yes, three | yes, a car | there are three vehicles | boats",
        "no | yes, a plane | yes, two | none",
    ),
    (DOG, "no | there is no dog | no dogs", "yes | a dog | there is no cat"),
    (MOON, "yes | yes, the moon is out | there is a moon", "no | there is no moon | yes, and the sun | by day"),
    (
        CAR_COLOR,
        """red | Red. | it is red | it's red | the car is red | a red car | it is a small red car on the left | red,
        at night | the red car""",
        """blue | red and blue | it is not red | the boat is red | a big red car | no | car | yes | it is red or
        blue | two red cars | red, in the snow | a red car at the top right | none""",
    ),
    (
        CAR_SIZE,
        "small | it is small | little | a small car | tiny",
        "large | big | red | medium | small and large | no",
    ),
    (
        WHAT,
        """car | a car | it is a red car | that is a car | an automobile | a small car on the left | the red thing
        is a car""",
        """boat | a blue car | a car and a boat | cars | no car | a car or a train | red | a big car | yes | vehicle""",
    ),
    (
        CAR_IS_RED,
        "yes | yes, it is | it is | yes, it is red | red | it is red",
        "no | blue | yes, it is blue | car | it isn't",
    ),
    (
        CAR_IS_BLUE,
        "no | no, it is red | red | it is not blue | no, it's not | it is red | no, it isn't | not blue",
        "yes | blue | no, it is green | yes, it is red | no, it is blue | it is not red",
    ),
    (
        IS_IT_DAY,
        "no | night | no, it is night | it isn't | it is night",
        "yes | day | no, it is day | yes, it is night",
    ),
    (
        BOAT_LEFT,
        "yes | it is | yes, at the top left | left | top left",
        "no | right | yes, on the right | yes, at the bottom",
    ),
    (
        BOAT_IS,
        """top left | at the top left | upper left | it is in the top left corner | the boat is at the top left |
        above the car""",
        "left | top | bottom left | top right | at the top left and at the bottom right | right | no | on the beach | "
        "below the car | the car is at the top left | next to the car",
    ),
    (
        CAR_IS,
        "left | on the left | middle left | in the left | on the left side of the picture | below the red boat",
        "top left | right | middle | left and right | above the red boat | bottom left",
    ),
    (
        WHERE,
        "top left | on the beach | above the car | at the top left on the beach",
        "left | in the snow | below the car",
    ),
    (SIDE, "left | top left | on the left | to the left | left side", "right | top | bottom left | left or right | no"),
    (HEIGHT, "top | top left | at the top", "bottom | left | yes"),
    (
        PLACE,
        "beach | on the beach | the beach | seaside | at the beach at night",
        "snow | beach and street | by day | night",
    ),
    (
        TIME,
        "night | at night | it is night | dark | it's nighttime",
        "day | day and night | beach | night, in the snow",
    ),
    (
        CATEGORY,
        "vehicle | a vehicle | it is a vehicle | a red vehicle",
        "animal | toy | a vehicle and a toy | car | no",
    ),
    (
        USE,
        "drive | it can drive | driving | to drive",
        "sail | drive and sail | it can not drive | fly | the boat can drive",
    ),
    (
        NO_CAT,
        """there is no cat | none | no cat | I see no cat | there isn't a cat | there is not a cat | no cats | it
        isn't there | there is no cat in the picture | there is no cat, only a red car | there isn't one | I
        can't see any cat | nothing""",
        """red | no | the cat is red | there is no dog | there is no boat | there is a cat | gray | there is no cat,
        it is gray | yes | at the top left | there is no cat, only a plane""",
    ),
    (
        NO_GREEN_BOAT,
        """there is no green boat | no green boat | none | there isn't a green boat | there is no green boat, only a
        blue boat""",
        "there is no boat | green | there is no red boat | there is a green boat | large",
    ),
]


def mistakes() -> list[str]:
    """What the judge gets wrong of `JUDGED`."""
    found = []
    for asked, right, wrong in JUDGED:
        for answers, truth in ((right, True), (wrong, False)):
            for answer in " ".join(answers.split()).split(" | "):
                if is_right(asked, answer, HARBOR) != truth:
                    found.append(f"{asked.judge} ({asked.truth}): {answer!r} is {truth}")
    return found


def test_the_judge_agrees_with_a_hand_made_table():
    assert not mistakes()


def test_the_judge_counts_alike_things():
    for answer in ("two gray cats", "a gray cat and a gray cat", "gray cats", "two grey kitties in the meadow by day"):
        assert is_right(TWO_CATS, answer, CATS), answer
    for answer in ("a gray cat", "three gray cats", "a gray cat, a gray cat and a gray cat", "two cats"):
        assert not is_right(TWO_CATS, answer, CATS), answer


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("claims_hold", lambda *_: True),
        ("is_true", lambda *_: True),
        ("relation_holds", lambda *_: True),
        ("setting_holds", lambda *_: True),
        ("count", lambda mention, scene: 1),
        ("narrower", lambda *_: True),
        ("polarity", lambda said, implied: "yes" if "yes" in said.says | implied else "no"),
        ("covers", lambda listed, things, scene: len(listed) == len(things)),
        ("named", lambda said, name: getattr(said.stated, name)),
    ],
)
def test_the_table_notices_a_careless_judge(monkeypatch, name, mutant):
    monkeypatch.setattr(judge, name, mutant)
    assert mistakes()


def test_an_unknown_word_is_no_answer():
    sentence = "I do not know the word 'dog'; did you mean 'no'?"
    assert not is_right(DOG, sentence, HARBOR) and not is_right(NO_CAT, sentence, HARBOR)
    assert judge.refuses(sentence) and not judge.refuses("no, there is no dog")
    assert not is_right(DOG, "", HARBOR) and not is_right(DOG, " . ", HARBOR)


def test_an_unknown_judge_is_an_error():
    with pytest.raises(ValueError, match="there is no judge 'taste'"):
        is_right(question("taste"), "sweet", HARBOR)
