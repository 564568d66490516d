"""Natural questions: they are many and fair, the judge is lenient in form and strict in content, the app is asked."""

import re
from collections import Counter
from random import Random

import pytest
import torch

from blip2_lab import natural, natural_judge, natural_phrases
from blip2_lab.chat import Conversation
from blip2_lab.natural import GROUPS, Answer, is_right, natural_questions, natural_scores
from blip2_lab.natural_judge import About, NaturalQuestion, asked_for
from blip2_lab.natural_questions import PER_SCENE, in_words
from blip2_lab.natural_reading import count, read
from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import KINDS, Scene, Thing, sample_scene, shuffled

BOOK = [sample_scene(77, index, "in") for index in range(300)]
QUESTIONS = natural_questions(BOOK, seed=5)

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
        ("_polarity", lambda said, implied: "yes" if "yes" in said.says | implied else "no"),
        ("_covers", lambda listed, things, scene: len(listed) == len(things)),
        ("named", lambda said, name: getattr(said.stated, name)),
    ],
)
def test_the_table_notices_a_careless_judge(monkeypatch, name, mutant):
    monkeypatch.setattr(natural_judge, name, mutant)
    assert mistakes()


def test_an_unknown_word_is_no_answer():
    sentence = "I do not know the word 'dog'; did you mean 'no'?"
    assert not is_right(DOG, sentence, HARBOR) and not is_right(NO_CAT, sentence, HARBOR)
    assert natural_judge.refuses(sentence) and not natural_judge.refuses("no, there is no dog")
    assert not is_right(DOG, "", HARBOR) and not is_right(DOG, " . ", HARBOR)


def test_a_judge_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="nobody judges 'taste'"):
        is_right(question("taste"), "sweet", HARBOR)


def test_the_reader_says_what_it_could_not_read():
    said = read("a red zebra near the boat")
    assert said.unknown == ["zebra"] and read("it is a small, red boat").mentions[0].sizes == {"small"}


# ------------------------------------------------------------------------------------------------------- the questions


def test_the_same_seed_asks_the_same():
    assert natural_questions(BOOK, seed=5) == QUESTIONS
    assert natural_questions(BOOK[:7], seed=5) == [q for q in QUESTIONS if q.scene < 7], "scene by scene"
    assert {q.text for q in natural_questions(BOOK, seed=6)} - {q.text for q in QUESTIONS}


def test_every_scene_is_asked_six_questions_of_different_groups():
    by_scene = Counter(q.scene for q in QUESTIONS)
    assert set(by_scene) == set(range(len(BOOK))) and set(by_scene.values()) == {PER_SCENE}
    assert len({(q.scene, q.group) for q in QUESTIONS}) == len(QUESTIONS)
    assert set(GROUPS) == {q.group for q in QUESTIONS}


def test_there_are_hundreds_of_wordings_and_many_in_each_group():
    many = natural_questions([sample_scene(78, index, "in") for index in range(2000)], seed=1)
    assert len({q.wording for q in many}) >= 250
    for group in GROUPS:
        assert len({q.wording for q in many if q.group == group}) >= 10, group
        assert len({q.text for q in many if q.group == group}) >= 60, group


def test_hardly_any_question_is_one_of_the_corpus_word_for_word():
    def plain(text):
        return " ".join(re.findall(r"[a-z']+", text.lower()))

    known = {
        plain(q.text) for i, scene in enumerate(BOOK) for r in range(4) for q in words.questions(scene, Random(i + r))
    }
    assert sum(plain(q.text) in known for q in QUESTIONS) < 0.05 * len(QUESTIONS)


def test_answers_are_balanced():
    for group in ("existence", "existence with color", "yes or no"):
        truths = Counter(q.truth for q in QUESTIONS if q.group == group)
        assert 0.38 < truths["yes"] / sum(truths.values()) < 0.62, (group, truths)
    numbers = Counter(q.truth for q in QUESTIONS if q.group == "count")
    assert set(numbers) == set(words.NUMBERS) and max(numbers.values()) < 0.5 * sum(numbers.values())
    for group, values in {"color": 8, "position": 9, "place": 5, "time": 2, "size": 2}.items():
        assert len({q.truth for q in QUESTIONS if q.group == group}) == values, group
    assert len({q.truth for q in QUESTIONS if q.group in ("what", "what is this", "relation")} & set(KINDS)) >= 24


def test_every_truth_is_right_and_says_so_to_its_own_judge():
    for q in QUESTIONS:
        assert is_right(q, q.truth, BOOK[q.scene]), q
        assert is_right(q, q.truth.upper() + ".", BOOK[q.scene]), q


def test_what_is_asked_about_is_there_or_not_as_the_truth_says():
    for q in QUESTIONS:
        if q.judge in ("existence", "absence", "number"):
            there = count(asked_for(q.about), BOOK[q.scene])
            assert {"yes": there > 0, "no": there == 0}.get(q.truth, q.truth in (words.NUMBERS[there], q.truth))
            assert q.judge != "absence" or there == 0
        elif q.thing is not None:
            thing = BOOK[q.scene].things[q.thing]
            facts = {"color": thing.color, "size": thing.size, "kind": thing.kind, "category": thing.category}
            assert q.truth == facts.get(q.judge, q.truth)


def test_the_truth_of_another_scene_is_wrong():
    """Other truths of the same judge, a dozen for each question; none says the same of this scene."""
    rng = Random(9)
    for judge in {q.judge for q in QUESTIONS} - {"absence", "list"}:
        asked = [q for q in QUESTIONS if q.judge == judge]
        for q in asked:
            others = {other.truth for other in asked} - {q.truth}
            wrong = [truth for truth in shuffled(rng, sorted(others))[:12] if is_right(q, truth, BOOK[q.scene])]
            if judge == "side":
                thing = BOOK[q.scene].things[q.thing]
                wrong = [truth for truth in wrong if truth not in thing.position]
            assert not wrong, (q, wrong)


def test_the_list_of_another_scene_is_wrong():
    lists = [in_words(scene) for scene in BOOK]
    for q in (q for q in QUESTIONS if q.judge == "list"):
        things = Counter((t.color, t.kind) for t in BOOK[q.scene].things)
        for number in (q.scene, *range(q.scene % 3, len(BOOK), 3)):
            said, same = lists[number], Counter((t.color, t.kind) for t in BOOK[number].things) == things
            assert is_right(q, said, BOOK[q.scene]) == same, (q.truth, said)


def test_another_absence_does_not_answer():
    asked = [q for q in QUESTIONS if q.judge == "absence"]
    for q in asked:
        for other in asked[:40]:
            if other.about.noun != q.about.noun:
                assert not is_right(q, other.truth, BOOK[q.scene]), (q, other.truth)
        assert not is_right(q, f"there is a {q.about.noun}", BOOK[q.scene])


def test_phrases_fit_one_thing_alone():
    rng = Random(3)
    for scene in BOOK[:100]:
        for thing in scene.things:
            phrase = natural_phrases.describe(scene, thing, rng)
            if phrase is not None:
                mention = read(f"the {phrase}").mentions[0]
                assert count(mention, scene) == 1 and natural_judge.fits(mention, thing), (phrase, scene)


def test_typing_has_the_habits_of_visitors():
    texts = [q.text for q in QUESTIONS]
    assert 0.02 < sum(text.isupper() for text in texts) / len(texts) < 0.08
    assert 0.1 < sum(not text.endswith("?") for text in texts) / len(texts) < 0.4
    assert any("colour" in text for text in texts) and any("grey" in text for text in texts)
    clean = "the purple hammer in the corner"
    slips = [natural_phrases.slip(clean, Random(i)) for i in range(50)]
    assert len(set(slips)) > 15 and all(len(clean) - 1 <= len(text) <= len(clean) for text in slips)


# ------------------------------------------------------------------------------------------------------ asking, scoring


def test_scores_count_refusals_as_wrong():
    asked = QUESTIONS[:40]
    answers = [Answer(q.truth) for q in asked]
    assert natural_scores(answers, asked, BOOK)["total"] == 1.0
    answers[:10] = [Answer(q.truth, refused=True) for q in asked[:10]]
    answers[10:20] = [Answer("gibberish")] * 10
    scores = natural_scores(answers, asked, BOOK)
    assert scores["total"] == 0.5 and scores["refused"] == 0.25 and scores["count"] == 40
    assert scores["low"] < 0.5 < scores["high"] and scores["of_answered"] == pytest.approx(2 / 3)
    assert sum(group["count"] for group in scores["groups"].values()) == 40


def test_answers_are_those_of_the_chat(tiny_model):
    """Batched, with the same refusals and the same texts as one conversation after the other."""
    book = BOOK[:5]
    asked = natural_questions(book, seed=1)
    prompts = natural.see_all(tiny_model, book)
    answers = natural.ask_all(tiny_model, book, asked, batch_size=5)
    assert len(answers) == len(asked) and {answer.refused for answer in answers} == {True, False}
    same = 0
    for q, answer in zip(asked, answers, strict=True):
        talk = Conversation.about(tiny_model, draw(book[q.scene], tiny_model.image_encoder.image_size))
        try:
            said = [reply.text for reply in talk.ask(q.text)][-1]
        except ValueError as refusal:
            assert answer == Answer(str(refusal), refused=True)
            continue
        assert not answer.refused
        same += said == answer.text
    assert same == sum(not answer.refused for answer in answers)
    blind = natural.ask_all(tiny_model, book, asked, visual_prompts=prompts[:, :0])
    assert [answer.refused for answer in blind] == [answer.refused for answer in answers]
    assert torch.equal(prompts, natural.see_all(tiny_model, book))
