"""A visitor's questions: each answer is recomputed here from the scene, by other means than the code's."""

import re
from collections import Counter
from random import Random

import pytest

from blip2_lab.picturebook import asking
from blip2_lab.picturebook.asking import CHOICES, INTENTIONS, ask, ask_anything
from blip2_lab.picturebook.asking.follow_ups import follow_up, short_follow_up
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import COLORS, Scene, Thing, sample_scene
from blip2_lab.picturebook.wordings import ABSENT, SCENERY, UNKNOWN
from blip2_lab.picturebook.words import NUMBERS


def thing(kind, color, size="large", row=0, column=0):
    return Thing(kind, color, size, (column + 0.5) / 3, (row + 0.5) / 3)


#: One thing of each of two kinds, and three boats of which two are red.
SCENE = Scene(
    (
        thing("boat", "red", "large", 0, 0),
        thing("boat", "red", "small", 0, 2),
        thing("boat", "blue", "small", 1, 1),
        thing("cat", "gray", "large", 2, 1),
    ),
    "beach",
    "night",
)


def asked(intention, scenes=range(300)):
    for index in scenes:
        scene = sample_scene(11, index)
        question = ask(scene, Random(f"test {index}"), intention)
        if question:
            yield scene, question


@pytest.mark.parametrize("intention", [*INTENTIONS, *CHOICES])
def test_every_intention_is_asked_and_answered(intention):
    questions = list(asked(intention))
    assert len(questions) > 20 and all(q.type == intention and q.answer for _, q in questions)
    assert len({q.text for _, q in questions}) > len(questions) / 2, "in many wordings"
    assert not any(re.search(r"[{}\[\]|]", q.text) for _, q in questions)


@pytest.mark.parametrize("intention", [n for n in INTENTIONS if n.endswith("check") or n in ("existence", "something")])
def test_yes_and_no_are_about_as_frequent(intention):
    answers = Counter(q.answer for _, q in asked(intention, range(1500)))
    assert set(answers) == {"yes", "no"} and 0.35 < answers["yes"] / answers.total() < 0.65


def answers_to(intention, tries=400, scene=SCENE):
    found = {}
    for seed in range(tries):
        question = ask(scene, Random(seed), intention)
        if question:
            found[question.text] = question.answer
    return found


def test_numbers_by_hand():
    expected = {"boats": "three", "red boats": "two", "cats": "one", "trees": "none", "animals": "one"}
    met = set()
    for text, answer in answers_to("count", 4000).items():
        for noun, number in expected.items():
            if re.search(rf"\b(how many|number of) {noun}\b", text):
                assert answer == number, text
                met.add(noun)
    assert met == expected.keys()
    assert set(answers_to("count", 4000).values()) == set(NUMBERS)


def test_the_list_is_in_reading_order_with_things_alike_counted():
    assert set(answers_to("inventory").values()) == {"two red boats, a blue boat and a gray cat"}
    assert set(answers_to("colors").values()) == {"red, blue and gray"}
    some = answers_to("some listed", 2000)
    assert {"a gray cat", "two red boats and a blue boat", "two red boats", "none"} <= set(some.values())


def test_choices_by_hand():
    categories = answers_to("category choice", 2000)
    assert set(categories.values()) == {"vehicle", "animal"}
    assert all(re.search(rf"\b({answer}|{plural_of(answer)})\b", text) for text, answer in categories.items())
    assert all(
        answer == "animal" for text, answer in categories.items() if re.search("gray (thing|object|one|item)", text)
    )
    absent = set(answers_to("wrong color", 2000).values())
    assert {"there is no gray boat", "there is no blue cat"} <= absent
    assert not absent & {"there is no red boat", "there is no blue boat", "there is no gray cat"}


CAT, BLUE = r"gray|silver|\b(cat|kitten|kitty|pussycat)\b", "blue"
LARGE_RED, SMALL_RED = r"\b(large|big|huge|giant|enormous) red", r"\b(small|little|tiny|mini) red"


def answers_about(answers, *patterns):
    """The answers to those questions that every pattern is found in."""
    return {answer for text, answer in answers.items() if all(re.search(pattern, text) for pattern in patterns)}


@pytest.fixture
def as_written(monkeypatch):
    """Questions without what people type around them: a stray "higher" would make another question."""
    monkeypatch.setattr(asking, "as_typed", lambda rng, text: text)


def test_two_things_are_compared_by_hand(as_written):
    compared = answers_to("comparison", 3000)  # the cat is below every boat, right of one and left of another
    assert answers_about(compared, "higher", CAT) == {"boat"}
    assert answers_about(compared, r"\blower", CAT) == {"cat"}
    assert answers_about(compared, "more (to the )?right", CAT, LARGE_RED) == {"cat"}
    assert answers_about(compared, "more (to the )?left", CAT, SMALL_RED) == {"cat"}
    assert answers_about(compared, "bigger|larger|taller", CAT, LARGE_RED) == {"both are large"}
    assert answers_about(compared, "bigger|larger|taller", CAT, BLUE) == {"cat"}
    assert answers_about(compared, "smaller", CAT, BLUE) == {"boat"}
    assert answers_about(compared, "smaller", LARGE_RED, BLUE) == {"blue boat"}, "of one kind: the color tells which"
    assert answers_about(compared, "smaller", SMALL_RED, BLUE) == {"both are small"}


def test_superlatives_by_hand(as_written):
    most = answers_to("superlative", 1500)
    assert answers_about(most, "lowest") == {"cat", "gray"}
    assert answers_about(most, "leftmost") == {"boat", "red"}
    assert not answers_about(most, "topmost|uppermost|highest"), "two boats stand there"
    assert answers_about(most, "largest|biggest") == {"a red boat and a gray cat"}
    assert answers_about(most, "smallest|tiniest") == {"a red boat and a blue boat"}
    large = Scene(tuple(t for t in SCENE.things if t.size == "large"), "snow", "day")
    assert "all are large" in answers_about(answers_to("superlative", 400, large), "smallest|tiniest")


def test_a_superlative_is_checked_by_hand(as_written):
    checked = answers_to("superlative check", 3000)
    assert answers_about(checked, f"({CAT}).*lowest") == {"yes"}
    assert answers_about(checked, f"{BLUE}.*(lowest|leftmost|biggest|largest)") == {"no"}


def test_sizes_are_checked_by_hand(as_written):
    checked = answers_to("relation check", 3000)
    assert answers_about(checked, f"({CAT}).*(bigger|larger|taller) than.*{BLUE}") == {"yes"}
    assert answers_about(checked, f"({CAT}).*(smaller than|same size as|as (big|large) as).*{BLUE}") == {"no"}
    assert answers_about(checked, f"({CAT}).*(same size as|as (big|large) as).*({LARGE_RED})") == {"yes"}


def test_facts_are_checked_by_hand(as_written):
    checked = answers_to("fact check", 3000)
    assert answers_about(checked, f"{BLUE}.*sail$") == {"yes"} and answers_about(
        checked, f"{BLUE}.*(sing|engine)$"
    ) <= {"no"}
    assert answers_about(checked, f"({CAT}).*(tail|catch mice)$") == {"yes"}
    assert not answers_about(checked, f"({CAT}).*\bhead$"), "a cat has a head, though it is the hammer's part"


def test_all_things_are_alike_or_not_by_hand(as_written):
    alike = Scene(tuple(thing("boat", "red", size, 0, n) for n, size in enumerate(("large", "small"))), "snow", "day")
    asked = [ask(alike, Random(seed), "all check") for seed in range(300)]
    answers = {question.text: question.answer for question in asked if question}
    assert answers_about(answers, "same (color|kind)") == answers_about(answers, r"\bred") == {"yes"}
    assert answers_about(answers, "same size") == answers_about(answers, "large|small") == {"no"}


def test_what_stands_at_a_side_is_one_thing_or_a_list_or_nothing(as_written):
    there = answers_to("what by position", 3000)
    assert answers_about(there, r"\btop( part.*)?$") == {"two red boats"}
    assert answers_about(there, "(upper|top) left") == {"boat"}
    assert answers_about(there, "(lower|bottom) (left|right)") == {"there is no thing there"}
    assert answers_about(there, "bottom( part.*)?$") == {"cat"}


def test_the_other_things_are_all_but_the_one_that_is_named(as_written):
    others = answers_to("other things", 2000)
    assert answers_about(others, CAT) == {"two red boats and a blue boat"}
    assert answers_about(others, BLUE) == {"two red boats and a gray cat"}
    assert answers_about(others, LARGE_RED) == {"a red boat, a blue boat and a gray cat"}
    alone = Scene(SCENE.things[:1], "snow", "day")
    assert set(answers_to("other things", 50, alone).values()) == {"there is no other thing"}


def test_what_is_not_so_is_the_rest(as_written):
    said = answers_to("not alike", 3000)
    rest = {text: answer for text, answer in said.items() if answer not in ("yes", "no")}
    assert answers_about(rest, r"\bred\b") == {"a blue boat and a gray cat"}
    assert answers_about(rest, "animal|creature|pet") == {"two red boats and a blue boat"}
    assert answers_about(rest, r"\b(green|yellow)\b") <= {"two red boats, a blue boat and a gray cat"}
    assert answers_about(rest, "other than (boats|ships)") == {"a gray cat"}
    assert answers_about(said, "is (something|anything) not") == {"yes"}
    alone = answers_to("not alike", 1000, Scene(SCENE.things[:1], "snow", "day"))
    assert answers_about(alone, r"is (something|anything) not (red|large|big)\b") == {"no"}


def test_two_things_are_there_or_one_of_them(as_written):
    both = answers_to("two there", 4000)
    boat, cat, absent = "boat|ship|vessel", CAT, "dog|puppy|horse|cow|lion"
    assert answers_about(both, f"({boat}).* (and|or) .*({cat})") == {"yes"}
    assert answers_about(both, f"({cat}).* or .*({absent})") == {"yes"}
    assert answers_about(both, f"({cat}).* and .*({absent})") == {"no"}


def test_what_stands_next_to_a_thing_is_the_nearest_of_the_others(as_written):
    near = answers_to("nearest", 2000)
    assert answers_about(near, CAT) == {"boat"}, "the blue one, above it"
    assert answers_about(near, LARGE_RED) == {"boat"}, "the blue one, one row and one column away"
    middle = answers_about(near, BLUE)
    assert middle == {"cat"}
    alone = Scene(SCENE.things[:1], "snow", "day")
    assert not answers_to("nearest", 50, alone)


def test_the_colors_and_places_of_several_things_are_listed(as_written):
    of_all = answers_to("group", 1000)
    assert answers_about(of_all, "color") == {"red and blue"}
    assert answers_about(of_all, "where|find|locate|parts|places") >= {"top left, top right and middle"}


def test_a_thing_is_found_by_its_use_part_and_home(as_written):
    by_fact = answers_to("by fact", 6000)
    assert answers_about(by_fact, r"(what|which|who).*\bsail\b") == {"boat"}
    assert answers_about(by_fact, r"tail\b") <= {"cat", "yes"}
    assert answers_about(by_fact, r"which.*\b(chimney|petal)\b") == {"there is no such thing"}
    for_something = answers_to("for a purpose", 1000)
    assert answers_about(for_something, "^(what|which|name|list).*living") == {"a gray cat"}
    assert answers_about(for_something, r"^(is|can|could|do|does).*to eat$") == {"no"}


def test_two_things_are_alike_or_not(as_written):
    alike = answers_to("two alike", 3000)
    same, different = "same|one (size|kind)", "different|another|other than"
    assert answers_about(alike, CAT, BLUE, "size", same) == {"no"}
    assert answers_about(alike, CAT, BLUE, "size", different) == {"yes"}
    assert answers_about(alike, LARGE_RED, BLUE, "kind", same) == {"yes"}
    assert answers_about(alike, LARGE_RED, BLUE, "kind", different) == {"no"}
    assert answers_about(alike, LARGE_RED, SMALL_RED, "color") == set(), "the color would be given away"


def test_the_things_of_a_group_are_alike_or_not(as_written):
    boats = answers_to("group check", 3000) | answers_to("group alike", 1500)
    assert answers_about(boats, "boat|ship|vessel", r"\b(red|small|little|tiny)\b") == {"no"}
    pair = Scene((*SCENE.things[:2], SCENE.things[3]), "beach", "night")
    both = answers_to("group check", 3000, pair) | answers_to("group alike", 1500, pair)
    assert answers_about(both, r"\bboats are both red\b|both.* boats.* red") == {"yes"}
    assert answers_about(both, "(boats|ships) have the same color") == {"yes"}
    assert answers_about(both, "(boats|ships) have the same size") == {"no"}


BOATS = r"\b(boats?|ships?|sailboats?|vessels?)\b"


def test_some_of_several_are_counted(as_written):
    among = answers_to("count among", 3000)
    assert answers_about(among, BOATS, r"(?<!not )\bred\b") == {"two"}
    assert answers_about(among, BOATS, r"\bnot red\b") == {"one"}
    assert answers_about(among, BOATS, r"(?<!not )\b(large|big)\b") == {"one"}
    assert not answers_about(among, r"\bcats?\b"), "there is one cat"
    either = answers_to("number choice", 3000)
    assert answers_about(either, r"^(two or three|three or two) boats$") == {"three"}
    assert answers_about(either, r"\bcats?\b") == {"one"}


def test_groups_are_compared_by_their_numbers(as_written):
    more = answers_to("more of", 8000)
    assert answers_about(more, "more boats than cats") == {"yes"}
    assert answers_about(more, "more cats than boats") == {"no"}
    assert answers_about(more, "more boats or (more )?cats$") == {"boats"}
    assert answers_about(more, "more animals or (more )?vehicles$") == {"vehicles"}
    assert answers_about(more, r"more (red|blue) \w+ or (more )?(red|blue) \w+$") == {"red"}
    one_each = Scene(SCENE.things[2:], "snow", "day")
    fewer = answers_to("more of", 2000, one_each)
    assert answers_about(fewer, "than (boats|cats)$") == {"no"}, "there are as many of each"
    assert answers_about(fewer, "^(are there )?more boats than (keys|trees|fish|cakes)$") == {"yes"}, "there is none"


def test_as_many_are_there_or_not(as_written):
    many = answers_to("as many", 12000)
    assert answers_about(many, "as many boats as cats$") == {"no"}
    assert answers_about(many, r"as many red \w+ as (blue|gray) \w+$") == {"no"}
    assert answers_about(many, r"as many blue \w+ as gray \w+$") == {"yes"}
    assert answers_about(many, r"as many (pink|green) \w+ as (orange|yellow) \w+$") == {"yes"}, "none of either"
    assert answers_about(many, "as many cats as (trees|keys|cakes|planes)$") == {"no"}


def test_a_thing_is_above_or_below_left_or_right_of_another(as_written):
    beside = answers_to("relation choice", 3000)
    cat = r"the (large |big |gray )?cat\b.* (blue|silver blue) boat$"
    assert answers_about(beside, "(above or below|below or above)", r"is " + cat) == {"below"}
    assert answers_about(beside, "left or right of", r"is the blue boat .*cat$") == set(), "they share a column"
    assert set(beside.values()) == {"above", "below", "left", "right"}


def test_one_of_a_kind_stands_in_a_relation_or_not(as_written):
    related = answers_to("one related", 3000)
    assert answers_about(related, r"\b(boats?|vehicles?)\b (above|over) the (large |gray )?cat$") == {"yes"}
    assert answers_about(related, r"\b(boats?|vehicles?)\b (below|under|beneath) the (large |gray )?cat$") == {"no"}


def test_things_and_colors_are_listed_in_order(as_written):
    rows = answers_to("in order", 1500)
    two = Scene((thing("key", "pink", "large", 0, 2), thing("cat", "gray", "large", 2, 0)), "snow", "day")
    assert answers_about(rows, "colors", "from top to bottom") == {"red, blue and gray"}
    ordered = answers_to("in order", 1500, two)
    assert answers_about(ordered, "from left to right") == {"a gray cat and a pink key", "gray and pink"}
    assert answers_about(ordered, "from right to left") == {"a pink key and a gray cat", "pink and gray"}
    assert answers_about(ordered, "from (the )?top to (the )?bottom") == {"a pink key and a gray cat", "pink and gray"}


def test_one_of_several_is_higher_or_larger_than_the_others(as_written):
    most = answers_to("one of them", 2000)
    assert answers_about(most, r"^(tell me )?which .* (lower|lower down|the lowest)$") == {"the blue one"}
    assert answers_about(most, "^what color", "(lower|lower down|the lowest)$") == {"blue"}
    assert set(most.values()) == {"the blue one", "blue"}, "two boats are red"


def test_any_two_things_are_alike_or_not(as_written):
    alike = answers_to("any alike", 1500)
    assert set(alike.values()) == {"yes"} and answers_about(alike, "color") and answers_about(alike, "kind")
    two = Scene((thing("key", "pink", "large", 0, 2), thing("cat", "gray", "small", 2, 0)), "snow", "day")
    assert set(answers_to("any alike", 1500, two).values()) == {"no"}


def test_what_is_like_a_thing_is_all_but_itself(as_written):
    like = answers_to("alike to", 6000)
    assert answers_about(like, "same size as the (gray |silver )?(cat|kitten|kitty)$") <= {"a red boat", "yes"}
    assert answers_about(like, "same color as the (large |big )?(cat|kitten|kitty)$") <= {
        "there is no other thing",
        "no",
    }
    assert answers_about(like, "same kind as the (blue )(boat|ship)$") <= {"two red boats", "yes"}
    assert {"two red boats", "a red boat", "there is no other thing", "yes", "no"} <= set(like.values())


def test_one_of_a_kind_is_not_alike(as_written):
    unlike = answers_to("one not alike", 3000)
    assert answers_about(unlike, BOATS, "not (red|blue|large|small)") == {"yes"}
    assert answers_about(unlike, r"\bcats?\b", "not (gray|silver|large|big)") == {"no"}


def test_scenery_is_that_of_the_place_and_the_time(as_written):
    there = answers_to("scenery", 4000)
    assert answers_about(there, r"\b(sea|water|waves|sand|moon|stars)\b") == {"yes"}
    assert answers_about(there, r"\b(grass|ice|road|rocks|sun|clouds)\b") == {"no"}


def test_all_things_are_of_one_kind_or_not(as_written):
    assert set(answers_to("all of them", 500).values()) == {"no"}
    boats = answers_to("all of them", 500, Scene(SCENE.things[:3], "snow", "day"))
    assert set(boats.values()) == {"yes"} and answers_about(boats, "vehicles") and answers_about(boats, "boats")


def test_what_stands_halfway_is_between(as_written):
    assert set(answers_to("between", 500).values()) == {"there is no thing there"}
    diagonal = Scene((SCENE.things[0], SCENE.things[2], thing("key", "pink", "large", 2, 2)), "snow", "day")
    between = answers_to("between", 500, diagonal)
    assert answers_about(between, r"\b(red|large red)\b", r"\b(pink|key)\b") == {"boat"}


def test_one_of_several_is_told_by_its_color(as_written):
    which = answers_to("which of them", 2000)
    assert answers_about(which, BOATS, "in the (middle|center|centre)") == {"the blue one"}
    assert "the red one" not in which.values(), "two boats are red"
    assert answers_about(which, BOATS, r"\b(bottom|lower)\b") <= {"there is no boat there"}
    assert answers_about(which, r"\b(cat|kitten|kitty|pussycat)\b", r"\bleft\b") <= {"there is no cat there"}
    pair = answers_to("which of them", 1000, Scene(SCENE.things[1:3], "snow", "day"))
    assert answers_about(pair, r"\bright\b") == {"the red one"}


def test_things_of_a_side_are_counted_and_found(as_written):
    number = answers_to("number there", 3000)
    assert answers_about(number, r"\b(things|objects|items)\b", r"\b(top|upper)\b") == {"two"}
    assert answers_about(number, BOATS, r"\bleft\b") == {"one"}
    there = answers_to("one there", 4000)
    assert answers_about(there, BOATS, "on the (left|right)|at the top|in the middle") == {"yes"}
    assert answers_about(there, BOATS, r"\b(bottom|lower)\b") == {"no"}
    assert answers_about(there, r"\bred (thing|object)", "on the (left|right)") == {"yes"}
    related = answers_to("something related", 4000)
    assert answers_about(related, "(above|over) the (cat|kitten|kitty|pussycat)") == {"yes"}
    assert answers_about(related, "(below|under|beneath) the (cat|kitten|kitty|pussycat)") == {"no"}


def test_a_corner_is_taken_or_not(as_written):
    there = answers_to("something", 4000)
    assert answers_about(there, "(top|upper) left") == {"yes"}
    assert answers_about(there, "(bottom|lower) (left|right)") == {"no"}


def test_a_short_question_asks_what_the_one_before_asked():
    found = [pair for seed in range(400) if (pair := short_follow_up(SCENE, Random(seed)))]
    assert len(found) > 100
    for before, after in found:
        if "many" in after.text:
            continue
        numbers = set(NUMBERS)
        assert (before.answer in numbers) == (after.answer in numbers), (before, after)
        assert (before.answer in ("yes", "no")) == (after.answer in ("yes", "no")), (before, after)
    assert any(after.answer != before.answer for before, after in found)


def test_what_no_picture_answers_is_said_to_be_not_shown():
    assert set(answers_to("not shown").values()) == {"the picture does not show it"}


def test_place_and_time_by_hand():
    for intention, answer in (("place", "beach"), ("time", "night"), ("place choice", "beach")):
        assert set(answers_to(intention).values()) == {answer}
    for text, answer in answers_to("time check").items():
        day = re.search(r"\b(day(time|light)?|sun(ny|shine|light)?|light|bright|noon|morning|afternoon|blue)\b", text)
        night = re.search(r"\b(night|nighttime|dark|moon|stars|midnight|evening|late|black|moonlight)\b", text)
        assert bool(day) != bool(night), text
        assert answer == ("yes" if night else "no"), text


def test_scenery_is_there_where_it_belongs_and_absent_things_never_are():
    absent, elsewhere = set(), set()
    for scene, question in asked("existence", range(3000)):
        words = set(re.findall(r"\w+", question.text))
        for noun in ABSENT:
            if words & {noun, plural_of(noun)} and noun not in COLORS:
                assert question.answer == "no", question
                absent.add(noun)
        for where, nouns in SCENERY.items():
            if words & set(nouns) and where not in (scene.place, scene.time):
                assert question.answer == "no", question
                elsewhere.add(where)
    assert absent and elsewhere == SCENERY.keys()


def test_a_question_about_what_is_not_there_is_answered_by_saying_so():
    questions = list(asked("nothing there"))
    assert questions
    for scene, question in questions:
        noun = question.answer.removeprefix("there is no ")
        assert noun == "such thing" or all(t.kind != noun for t in scene.things)
        assert UNKNOWN in question.text or noun != "such thing"


def test_an_unknown_word_is_a_thing_that_is_not_there_or_changes_nothing():
    answers = Counter(q.answer for _, q in asked("color", range(6000)) if UNKNOWN in q.text)
    assert answers.total() > 30 and set(answers) <= set(COLORS)
    named = re.compile(rf"(the|an?|any|some) ({UNKNOWN}|{plural_of(UNKNOWN)})\b(?! \w)")  # not before a noun
    there = [q for _, q in asked("existence", range(6000)) if named.search(q.text)]
    # a stray one may stand at the end of "is there a boat in the wug"
    assert len(there) > 15 and sum(q.answer == "no" for q in there) > 0.8 * len(there)


def test_how_many_asks_for_those_of_the_question_before():
    turns = [short_follow_up(SCENE, Random(seed)) for seed in range(800)]
    pairs = [
        pair
        for pair in turns
        if pair and re.match("[^?]*how many( are there| of them| do you see)?[?]?$", pair[1].text)
    ]
    boats = {last.answer for first, last in pairs if re.search(r"\b(a|any|some) boats?\b", first.text)}
    assert len(pairs) > 30 and boats <= {"three", "two", "one", "none"} and "three" in boats


def test_it_is_the_thing_of_the_first_question():
    for index in range(400):
        scene = sample_scene(13, index)
        turns = follow_up(scene, Random(index))
        if turns:
            first, second = turns
            assert re.search(r"\b(it|else)\b", second.text) and first.answer
            if second.answer in COLORS and not re.search(r"\b(it)\b", first.text):
                named = [t for t in scene.things if t.color == second.answer]
                assert named, (first, second)


def test_anything_is_asked_as_often_as_the_table_says():
    counts = Counter(ask_anything(sample_scene(14, i), Random(i)).type for i in range(4000))
    assert counts["count"] > counts["color"] > counts["superlative"] > 0
