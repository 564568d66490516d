"""Harder questions are many, fair and balanced; the truth of each is right, that of another scene mostly wrong."""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from random import Random

import pytest

from blip2_lab.evaluation.natural import Answer, natural_scores
from blip2_lab.evaluation.natural.harder import GROUPS, harder_questions
from blip2_lab.evaluation.natural.harder_judge import HarderQuestion, is_right
from blip2_lab.evaluation.natural.harder_phrases import ABLE, MOST, PARTS, PURPOSES, USED
from blip2_lab.evaluation.natural.questions import PER_SCENE
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import COLORS, KINDS, POSITIONS, pick, sample_scene, shuffled
from blip2_lab.picturebook.words import NUMBERS, at, join, with_article

BOOK = [sample_scene(77, index, "in") for index in range(200)]
QUESTIONS = harder_questions(BOOK, seed=5)


@pytest.mark.slow
def test_another_process_asks_the_same_harder_questions():
    """The order of a set differs from process to process."""
    script = (
        "from blip2_lab.evaluation.natural import harder_questions as ask\n"
        "from blip2_lab.picturebook.scene import sample_scene as scene\n"
        "print([q.text for q in ask([scene(77, index, 'in') for index in range(200)], seed=5)])"
    )
    for seed in ("1", "2"):
        command, environment = [sys.executable, "-c", script], os.environ | {"PYTHONHASHSEED": seed}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == str([q.text for q in QUESTIONS])


def test_the_same_seed_asks_the_same_harder_questions():
    assert harder_questions(BOOK, seed=5) == QUESTIONS
    assert harder_questions(BOOK[:7], seed=5) == [q for q in QUESTIONS if q.scene < 7], "scene by scene"
    assert {q.text for q in harder_questions(BOOK, seed=6)} - {q.text for q in QUESTIONS}


def test_every_scene_is_asked_questions_of_different_groups():
    by_scene = Counter(q.scene for q in QUESTIONS)
    assert set(by_scene) == set(range(len(BOOK))) and set(by_scene.values()) <= {PER_SCENE - 1, PER_SCENE}
    assert len({(q.scene, q.group) for q in QUESTIONS}) == len(QUESTIONS)
    assert set(GROUPS) == {q.group for q in QUESTIONS}


def test_each_group_has_many_wordings_and_texts():
    many = harder_questions([sample_scene(78, index, "in") for index in range(1500)], seed=1)
    for group in GROUPS:
        assert len({q.wording for q in many if q.group == group}) >= 10, group
        assert len({q.text for q in many if q.group == group}) >= 50, group


def test_answers_to_harder_questions_are_balanced():
    for group in ("by use", "purpose", "two things", "of all"):
        truths = Counter(q.truth for q in QUESTIONS if q.group == group and q.truth in ("yes", "no"))
        assert 0.3 < truths["yes"] / sum(truths.values()) < 0.7, (group, truths)
    numbers = Counter(q.truth for q in QUESTIONS if q.group == "category count")
    assert {"none", "one", "two"} <= set(numbers) and max(numbers.values()) < 0.6 * sum(numbers.values())
    for group in ("side", "category which", "purpose", "other things", "negation"):
        asked = [q for q in QUESTIONS if q.group == group and q.truth not in ("yes", "no")]
        empty = sum(not q.things for q in asked) / len(asked)
        assert 0.05 < empty < 0.55, (group, empty)
        assert any(len(q.things) > 1 for q in asked), group


def test_every_truth_of_a_harder_question_is_right():
    for q in QUESTIONS:
        assert is_right(q, q.truth, BOOK[q.scene]), q
        assert is_right(q, q.truth.upper() + ".", BOOK[q.scene]), q


def test_every_caption_of_a_scene_is_a_sentence_about_it_and_hardly_any_of_another():
    asked, elsewhere = HarderQuestion(0, "one sentence", "", "sentence", "", ""), []
    for i, scene in enumerate(BOOK):
        for say in (words.full_caption, words.short_caption, words.relation_caption, words.count_caption):
            if caption := say(scene, Random(i)):
                assert is_right(asked, caption, scene), caption
                elsewhere.append(is_right(asked, caption, BOOK[i - 1]))
    assert sum(elsewhere) <= 0.02 * len(elsewhere)


def said_of(things):
    """Many ways to say which things there are."""
    yield join([with_article(words.phrase(thing, "size", "color")) for thing in things])
    yield "there is " + join([f"{with_article(words.phrase(t, 'color'))} {at(t.position)}" for t in things]) + "."
    yield join([f"{at(thing.position)} {with_article(words.phrase(thing, 'size', 'color'))}" for thing in things])
    yield "it shows " + ", ".join(with_article(words.phrase(thing, "color")) for thing in things)
    yield ", ".join(words.phrase(thing, "color") for thing in things)


def test_the_things_are_right_in_many_forms_and_others_in_none():
    """One with another color or of another kind, one more, one less, one twice, or one that was not asked about."""
    asked = [q for q in QUESTIONS if q.judge in ("things", "which", "kinds") and q.things]
    assert len(asked) > 300
    for i, q in enumerate(asked[::2]):
        scene, rng = BOOK[q.scene], Random(i)
        things = [scene.things[number] for number in q.things]
        for answer in said_of(things):
            assert is_right(q, answer, scene), (q, answer)
        thing, rest = things[0], things[1:]
        color = pick(rng, [c for c in COLORS if not any((t.kind, t.color) == (thing.kind, c) for t in scene.things)])
        kind = pick(rng, [kind for kind in KINDS if kind not in {t.kind for t in scene.things}])
        wrong = [[replace(thing, color=color), *rest], [replace(thing, kind=kind), *rest]]
        wrong += [
            [*things, replace(thing, kind=kind)],
            *([*things, other] for other in scene.things if other not in things),
        ]
        if q.judge == "things":
            wrong += [[*things, thing], *([rest] if rest else [])]
        for those in wrong:
            for answer in said_of(those):
                assert not is_right(q, answer, scene), (q, answer)


def test_colors_and_positions_of_a_group_are_right_in_many_forms():
    asked = [q for q in QUESTIONS if q.group == "group"]
    assert len(asked) > 30
    for q in asked:
        scene = BOOK[q.scene]
        things = [scene.things[number] for number in q.things]
        phrases = [f"{with_article(words.phrase(thing, 'color'))} {at(thing.position)}" for thing in things]
        assert is_right(q, join(phrases), scene) and is_right(q, ", ".join(phrases), scene), (q, phrases)
        if q.judge == "positions":
            at_each = [at(thing.position) for thing in things]
            free = [cell for cell in POSITIONS if not any(set(cell.split()) <= set(t.position.split()) for t in things)]
            right = [join(at_each), ", ".join(at_each), join([f"one is {where}" for where in at_each])]
            wrong = [join([*at_each[1:], at(free[-1])]), join([*at_each, at(free[-1])]), f"{NUMBERS[len(things)]}"]
        else:
            other = next(color for color in COLORS if color not in {thing.color for thing in things})
            colors = [thing.color for thing in things]
            right = [join(colors), f"they are {join(colors)}", join([f"one is {color}" for color in colors])]
            wrong = [join([*colors, other]), join([other, *colors[1:]]), f"no {colors[0]}"]
        for answer in right:
            assert is_right(q, answer, scene), (q, answer)
        for answer in wrong:
            assert not is_right(q, answer, scene), (q, answer)


@pytest.mark.parametrize("group", GROUPS)
def test_the_truth_of_another_scene_is_mostly_wrong(group):
    """It can be true here, too: "a red boat" is a caption of two scenes."""
    rng = Random(9)
    asked = [q for q in QUESTIONS if q.group == group]
    polar = {True: ["yes", "no"], False: sorted({q.truth for q in asked} - {"yes", "no"})}
    verdicts = [
        is_right(q, truth, BOOK[q.scene])
        for q in asked
        for truth in shuffled(rng, polar[q.truth in ("yes", "no")])[:12]
        if truth != q.truth
    ]
    assert verdicts and sum(verdicts) <= 0.05 * len(verdicts)


def test_an_empty_or_foreign_answer_is_wrong_everywhere():
    for answer in (
        "",
        "the picture does not show it",
        "a red zebra",
        "a dinosaur",
        "red and green and pink",
        "perhaps",
    ):
        assert not any(is_right(q, answer, BOOK[q.scene]) for q in QUESTIONS), answer


def test_what_is_asked_about_is_what_the_truth_names():
    for q in QUESTIONS:
        scene = BOOK[q.scene]
        things = [scene.things[i] for i in q.things]
        rest = [thing for thing in scene.things if thing not in things]
        if q.group == "side":
            names = {"T": "top", "B": "bottom", "L": "left", "R": "right"}
            fits = {
                thing: thing.position == "middle"
                if q.where == {"M"}
                else all(names[letter] in thing.position for letter in q.where)
                for thing in scene.things
            }
            assert things == [thing for thing in scene.things if fits[thing]], q
        elif q.group == "negation":
            values = [{thing.color, thing.size, thing.kind, thing.category} for thing in things]
            assert not any(q.asked in value for value in values), q
            assert rest and all(q.asked in {t.color, t.size, t.kind, t.category} for t in rest), q
        elif q.group == "superlative":
            first, better = things[0], Counter()
            better["large"] = first.size == "large" and all(thing.size == "small" for thing in rest)
            better["small"] = first.size == "small" and all(thing.size == "large" for thing in rest)
            better["left"] = all(first.column < thing.column for thing in rest)
            better["right"] = all(first.column > thing.column for thing in rest)
            better["top"] = all(first.row < thing.row for thing in rest)
            better["bottom"] = all(first.row > thing.row for thing in rest)
            name = next(name for name, most in MOST.items() if q.asked == " ".join(most))
            assert rest and better[name], q
        elif q.group == "next to":
            apart = max(abs(things[0].row - rest[0].row), abs(things[0].column - rest[0].column))
            assert len(rest) == 1, q
            assert apart == 1 if "{the}" in q.wording else rest[0].kind != things[0].kind, q
        elif q.group == "category which":
            assert things == [thing for thing in scene.things if thing.category == q.about.noun], q
        elif q.group == "two things":
            kinds = {thing.kind for thing in scene.things}
            there = [noun in kinds for noun in q.nouns]
            assert (q.truth == "yes") == (all(there) if q.judge == "both" else any(there)), q
        elif q.group == "other things":
            assert len(rest) == 1, q
        elif q.judge == "all":
            assert (q.truth == "yes") == all(q.asked in (thing.color, thing.size) for thing in things), q
        elif q.judge == "same":
            assert (q.truth == "yes") == (things[0].color == things[1].color) and len(things) == 2, q


def test_what_people_could_disagree_about_is_not_asked():
    facts = ABLE | USED | PARTS | PURPOSES
    asked = [q for q in QUESTIONS if q.group in ("by use", "purpose")]
    assert len(asked) > 100
    for q in asked:
        kinds, (sure, doubtful) = {thing.kind for thing in BOOK[q.scene].things}, facts[q.asked]
        assert not kinds & set(doubtful), q
        assert {BOOK[q.scene].things[i].kind for i in q.things} == kinds & set(sure), q
        assert q.group == "purpose" or len(kinds & set(sure)) <= 1, q
    for q in QUESTIONS:
        if q.group == "side" and not q.things:
            assert "T" not in q.where and BOOK[q.scene].place != "meadow", "there may be a sun or blossoms"
            assert BOOK[q.scene].place != "street" or "B" in q.where, "there are houses behind the street"


def test_scores_are_by_these_groups_and_this_judge():
    right = natural_scores([Answer(q.truth) for q in QUESTIONS], QUESTIONS, BOOK, GROUPS, is_right)
    assert right["total"] == 1.0 and list(right["groups"]) == list(GROUPS) and right["count"] == len(QUESTIONS)
    assert right["low"] < 1.0 == pytest.approx(right["high"]) and right["new_wordings_count"] > 0
    wrong = natural_scores([Answer("perhaps")] * len(QUESTIONS), QUESTIONS, BOOK, GROUPS, is_right)
    counts: dict[str, int] = defaultdict(int)
    for q in QUESTIONS:
        counts[q.group] += 1
    assert wrong["total"] == 0.0 and counts == {name: group["count"] for name, group in wrong["groups"].items()}
