"""The language models' texts: every answer follows from the description in front of it, every fact is right.

An example does not carry its scene, but its description tells everything; so the reader of `test_words.py` rebuilds
the scene from the text and checks the rest against it.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from blip2_lab.picturebook import corpus, words
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, HELD_OUT, KINDS, POSITIONS, Scene, Thing
from tests.picturebook.test_words import (
    ABOUT_IT,
    WITH_AN,
    check_text,
    described,
    described_or_none,
    named_thing,
    one_of,
    read,
)
from tests.picturebook.test_words import PLACE as PLACE_PHRASES
from tests.picturebook.test_words import right_answers as right_answers_in

QUESTION = re.compile(r"Question: ([^?]+\?) (?:Short answer|Answer):")
CATEGORY = {kind: category for category, kinds in CATEGORIES.items() for kind in kinds}
A_KIND = f"(?P<article>an?) (?P<kind>{one_of(KINDS)})"


def an(word: str) -> str:
    return "an" if word in WITH_AN | {"animal"} else "a"


def fact_of(sentence: str) -> str:
    """The kind that a true sentence of knowledge is about. Raises AssertionError for anything else."""
    for form in (
        rf"{A_KIND} can (?P<can>[a-z ]+)\.",
        rf"you use {A_KIND} to (?P<use>[a-z ]+)\.",
        rf"the (?P<home>[a-z]+) is where {A_KIND} belongs\.",
        rf"{A_KIND} has this part: (?P<part>[a-z]+)\.",
        rf"{A_KIND} is (?P<its>an?) (?P<category>[a-z]+)\.",
    ):
        if match := re.fullmatch(form, sentence):
            said, facts = match.groupdict(), FACTS[match["kind"]]
            assert said.pop("article") == an(match["kind"]), f"wrong article: {sentence}"
            truth = {"can" if facts.agent else "use": facts.use, "home": facts.home, "part": facts.part}
            truth |= {"kind": match["kind"], "category": CATEGORY[match["kind"]], "its": an(CATEGORY[match["kind"]])}
            assert said.items() <= truth.items(), f"not true: {sentence}"
            return match["kind"]
    raise AssertionError(f"no fact: {sentence!r}")


def facts_of(text: str) -> list[str]:
    assert text.endswith(".")
    return [fact_of(f"{sentence}.") for sentence in text[:-1].split(". ")]


def answers_without_a_scene(question: str) -> list[str]:
    for form, answer in {
        rf"what can {A_KIND} do\?": lambda f, m: f.use if f.agent else None,
        rf"what is {A_KIND} used for\?": lambda f, m: None if f.agent else f.use,
        rf"where does {A_KIND} belong\?": lambda f, m: f.home,
        rf"what part does {A_KIND} have\?": lambda f, m: f.part,
        rf"is {A_KIND} an? (?P<category>[a-z]+)\?": lambda f, m: (
            "yes" if CATEGORY[m["kind"]] == m["category"] else "no"
        ),
    }.items():
        if match := re.fullmatch(form, question):
            assert match["article"] == an(match["kind"]), f"wrong article: {question}"
            return [answer(FACTS[match["kind"]], match)]
    raise AssertionError(f"cannot be asked without a scene: {question}")


def check_answer(question: str, answer: str, scene: Scene | None) -> None:
    """Raises AssertionError unless `answer` is the one right answer."""
    if scene is None:
        assert answers_without_a_scene(question) == [answer]
    elif question == "what is in the picture?":
        check_text(f"{answer}.", scene)
        assert all(noun.color for sentence in read(f"{answer}.") for noun in sentence.nouns)
    else:
        assert right_answers_in(question, scene)[1] == [answer]


def check_conversation(prompt: str, target: str, scene: Scene | None) -> int:
    """Questions and answers, the last answer being the target. Returns how many questions there are."""
    _, *rest = re.split(QUESTION, f"{prompt} {target}.")
    questions, answers = rest[0::2], [text.strip().removesuffix(".") for text in rest[1::2]]
    assert answers[-1] == target
    thing = named_thing(questions[0], scene) if len(questions) > 1 else None
    for question, answer in zip(questions, answers, strict=True):
        if thing and question in ABOUT_IT:
            assert ABOUT_IT[question](thing) == answer, f"{question} about {thing}"
        else:
            check_answer(question, answer, scene)
    return len(questions)


def check_story(story: str, scene: Scene) -> None:
    """`once upon a time, in the snow at night, a red boat wanted to sail.`"""
    _, where, event = story.removesuffix(".").split(", ")
    assert story.startswith("once upon a time, ") and story.endswith(".")
    (setting,) = read(f"a boat {where}.")
    assert (setting.place, setting.time) == (scene.place, scene.time)
    who = rf"(?P<article>an?) (?P<color>{one_of(COLORS)}) (?P<kind>{one_of(KINDS)})"
    match = re.fullmatch(rf"{who} wanted to (?P<can>.+)|somebody used .+", event)
    match = match if match and match["can"] else re.fullmatch(rf"somebody used {who} to (?P<use>.+)", event)
    assert match, f"no story: {story}"
    assert any((t.kind, t.color) == (match["kind"], match["color"]) for t in scene.things), f"not there: {story}"
    assert match["article"] == an(match["color"])
    facts = FACTS[match["kind"]]
    assert match.groupdict().get("can" if facts.agent else "use") == facts.use, f"not true: {story}"


def context_of(prompt: str) -> tuple[str, str]:
    """The description with which a prompt begins, and the rest: as many sentences as can be read."""
    for end in reversed([match.end() for match in re.finditer(r"\.(?= |$)", prompt)]):
        try:
            read(prompt[:end])
        except AssertionError:
            continue
        return prompt[:end], prompt[end:].strip()
    return "", prompt


def fixed_form(question: str, scene: Scene) -> str | None:
    """The type of a question in a form of words.py; None for all others, whose answers test_asking.py checks."""
    try:
        return right_answers_in(question, scene)[0]
    except AssertionError as error:  # another form, or about a thing that is not there
        assert "0 readings" in str(error) or "0 things fit" in str(error)
        return None


def check_instruction(prompt: str, target: str) -> str:
    """Raises AssertionError unless the target is a right answer to the prompt. Returns what sort of task it is."""
    assert prompt == prompt.strip() and target == target.strip() and target, "badly set"
    context, asked = context_of(prompt)
    scene = described_or_none(context) if context else None
    if scene is None:
        return "ask without a scene" if check_without_a_scene(prompt, target) else "go on"
    check_text(context, scene)
    if asked.count("Question:") > 1:
        questions = re.findall(QUESTION, asked)
        if len(questions) == asked.count("Question:") and all(fixed_form(q, scene) or q in ABOUT_IT for q in questions):
            check_conversation(asked, target, scene)
        return "dialogue"
    question = re.sub("^Question: | (Short answer|Answer):$", "", asked)
    if target.startswith("once upon a time"):
        check_story(target, scene)
        return "story"
    if target.startswith("greetings"):
        where, fact = target.removeprefix("greetings ").split("! ")
        assert PLACE_PHRASES[where] == scene.place and fact_of(fact) in {thing.kind for thing in scene.things}
        return "message"
    if fixed_form(question, scene) or question == "what is in the picture?":
        check_answer(question, target, scene)
        return "ask"
    if not target.endswith("."):
        return "ask in other words"
    try:
        kinds = facts_of(target)
    except AssertionError as error:
        assert "no fact" in str(error)
    else:
        assert len({*kinds}) == 1 and kinds[0] in {thing.kind for thing in scene.things}
        assert len(kinds) == len({*target.removesuffix(".").split(". ")}) == 2
        return "facts"
    whole = f"{asked} {target}".strip()
    if re.fullmatch("[a-z,.: ]*", asked) and readable(whole):
        check_text(whole, scene)
        return "go on after a description"
    check_text(target, scene)
    return "describe"


def readable(text: str) -> bool:
    try:
        return bool(read(text))
    except AssertionError:
        return False


def check_without_a_scene(prompt: str, target: str) -> bool:
    """A question about a kind of thing (True), or a fact or a caption cut in two (False)."""
    if asked := QUESTION.fullmatch(prompt):
        check_answer(asked[1], target, None)
        return True
    whole = f"{prompt} {target}".strip()
    try:
        fact_of(whole)
    except AssertionError as error:
        assert "no fact" in str(error)
        read(whole)
    return False


SHARES = {  # of the instructions
    "ask": (0.15, 0.30),
    "ask in other words": (0.35, 0.50),
    "dialogue": (0.03, 0.07),
    "go on after a description": (0.13, 0.20),
    "go on": (0.01, 0.035),
    "describe": (0.01, 0.035),
    "story": (0.005, 0.03),
    "message": (0.005, 0.03),
    "facts": (0.01, 0.03),
    "ask without a scene": (0.01, 0.035),
}

DESCRIPTION = "a picture of a large red boat at the top and a small blue key on the left, at night on the beach."


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        (f"{DESCRIPTION} Question: what color is the key? Short answer:", "red"),
        (f"{DESCRIPTION} Question: what is in the picture? Answer:", "a red boat and a red key"),
        (f"{DESCRIPTION} Question: what is the red thing? Short answer: boat. Question: where is it? Answer:", "left"),
        (f"{DESCRIPTION} Question: what is the red thing? Short answer: key. Question: where is it? Answer:", "top"),
        (f"{DESCRIPTION} two boats and", "a key."),
        (f"{DESCRIPTION} a boat", "by day."),
        (f"{DESCRIPTION} Question: describe this. Answer:", "a large red boat at the top, at night on the beach."),
        (f"{DESCRIPTION} Question: caption this Short answer:", "a red boat."),
        (
            f"{DESCRIPTION} Question: tell a story Answer:",
            "once upon a time, at night on the beach, a red boat wanted to sing.",
        ),
        (
            f"{DESCRIPTION} Question: tell a story Answer:",
            "once upon a time, at night on the beach, a blue boat wanted to sail.",
        ),
        (
            f"{DESCRIPTION} Question: tell a story Answer:",
            "once upon a time, by day on the beach, a red boat wanted to sail.",
        ),
        (f"{DESCRIPTION} write a message", "greetings on the beach! a fish can swim."),
        (f"{DESCRIPTION} write a message", "greetings in the snow! a boat can sail."),
        (f"{DESCRIPTION} Question: what do you know about the fish? Answer:", "a fish can swim. a fish is an animal."),
        (f"{DESCRIPTION} Question: what do you know about the key? Answer:", "a boat can sail. a boat can sail."),
        ("Question: what is an umbrella used for? Answer:", "sing"),
        ("Question: what can an umbrella do? Answer:", "keep dry"),
        ("Question: is a boat a toy? Answer:", "yes"),
        ("a boat is", "a toy."),
        ("a boat is", ""),
        ("", "an boat can sail."),
    ],
)
def test_the_reader_of_instructions_finds_the_mistake(prompt, target):
    with pytest.raises(AssertionError):
        check_instruction(prompt, target)


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    return [corpus.instruction(31, i) for i in range(5000)]


def test_every_instruction_has_the_right_target(instructions):
    sorts = Counter(check_instruction(prompt, target) for prompt, target in instructions)
    assert set(sorts) == set(SHARES)
    for sort, (least, most) in SHARES.items():
        assert least < sorts[sort] / len(instructions) < most, f"{sort}: {sorts[sort]} of {len(instructions)}"


def test_both_question_prompts_and_every_answer_type(instructions):
    asked = [prompt for prompt, _ in instructions if "Question:" in prompt]
    short = sum(prompt.endswith("Short answer:") for prompt in asked)
    assert 0.6 < short / len(asked) < 0.9 and all(prompt.endswith("nswer:") for prompt in asked)
    targets = {target for _, target in instructions}
    assert targets >= {"yes", "no", "none", "four", "top left", *KINDS, *COLORS, *(f.use for f in FACTS.values())}


def things_told(sums: list[str]) -> Scene:
    """The scene that `corpus.word_sums` tells."""
    things, setting = [], None
    for word_sum in sums:
        words = [word for word in word_sum.split("+") if word]
        if len(words) == 2:
            assert setting is None, "the setting is told once"
            setting = words
        elif words:
            size, color, kind, *where = words
            row, column = divmod(POSITIONS.index(" ".join(where)), 3)
            things.append(Thing(kind, color, size, (column + 0.5) / 3, (row + 0.5) / 3))
    return Scene(tuple(things), *setting)


def test_a_lesson_asks_in_one_form_what_its_piles_tell():
    types = Counter()
    for i in range(3000):
        prompt, target = corpus.lesson(31, i)
        told = [word for word in prompt.split("Question:")[0].split() if "+" in word]
        scene = things_told(told)
        if asked := QUESTION.search(prompt):
            check_answer(asked[1], target, scene)
            types[fixed_form(asked[1], scene) or "inventory"] += 1
        else:
            assert described(target) == scene.__class__(tuple(reading(scene)), scene.place, scene.time)
            types["retell"] += 1
        assert len(told) <= corpus.MAX_WORD_SUMS
    assert set(types) == set(corpus.LESSON)
    for kind in ("count", "existence", "retell"):
        share = corpus.LESSON.count(kind) / len(corpus.LESSON)
        assert 0.7 * share < types[kind] / 3000 < 1.2 * share


def reading(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: (thing.y, thing.x))


def test_counts_of_every_number_are_asked():
    asked = [corpus.lesson(31, i) for i in range(3000)]
    counts = Counter(target for prompt, target in asked if "how many" in prompt)
    assert set(counts) == set(words.NUMBERS) and min(counts.values()) > 0.06 * counts.total()


def test_plain_text_is_true():
    sorts = Counter()
    for i in range(2500):
        text = corpus.plain_text(31, i)
        assert text.endswith(".") and text == text.strip()
        if "Question:" in text:
            context, rest = text[: text.index(" Question:")], text[text.index("Question:") :]
            scene = described(context)
            check_text(context, scene)
            _, *rest = re.split(QUESTION, rest)
            for question, answer in zip(rest[0::2], rest[1::2], strict=True):
                check_answer(question, answer.strip().removesuffix("."), scene)
            sorts["questions"] += 1
        elif re.search(" can | use | belongs", text):
            (kind,) = set(facts_of(text))
            assert len(facts_of(text)) == 4 and kind in KINDS
            sorts["facts"] += 1
        else:
            read(text)
            sorts["captions"] += 1
    assert sorts["questions"] > 0.4 * 2500 and sorts["facts"] > 0.1 * 2500 and sorts["captions"] > 0.25 * 2500


def test_fact_sentences_by_hand():
    assert corpus.fact_sentences("boat") == [
        "a boat can sail.",
        "a boat is a vehicle.",
        "the harbor is where a boat belongs.",
        "a boat has this part: sail.",
    ]
    assert corpus.fact_sentences("umbrella")[0] == "you use an umbrella to keep dry."
    assert corpus.fact_sentences("cat")[1] == "a cat is an animal."
    assert [set(facts_of(" ".join(corpus.fact_sentences(kind)))) for kind in KINDS] == [{kind} for kind in KINDS]


def test_a_suffix_is_never_empty_and_a_prefix_sometimes_is():
    rng = Random("split")
    text = "a red boat at night."
    parts = Counter(corpus.split_text(text, rng) for _ in range(2000))
    assert {" ".join(pair).strip() for pair in parts} == {text}
    assert {len(prefix.split()) for prefix, _ in parts} == {0, 1, 2, 3, 4} and all(suffix for _, suffix in parts)
    assert max(parts.values()) < 500, "every boundary must be about as likely"
    assert corpus.split_text("boat", rng) == ("", "boat")


def test_text_speaks_of_pairs_that_pictures_hold_back():
    scenes = [corpus.corpus_scene(Random(f"{i}")) for i in range(1500)]
    things = [(t.kind, t.color) for scene in scenes for t in scene.things]
    assert {(kind, color) for kind in KINDS for color in COLORS} == set(things)
    assert 0.1 < sum(pair in HELD_OUT for pair in things) / len(things) < 0.4
    assert {len(corpus.corpus_scene(Random(f"{i}"), most=3).things) for i in range(200)} == {1, 2, 3}


def test_examples_differ_by_number_and_by_seed():
    for make in (corpus.instruction, corpus.lesson, corpus.plain_text):
        examples = [make(seed, i) for seed in (0, 1) for i in range(200)]
        assert examples == [make(seed, i) for seed in (0, 1) for i in range(200)]
        assert len(set(examples)) > 0.9 * len(examples)


def test_the_same_texts_on_every_machine():
    assert corpus.instruction(7, 1) == (
        "at night in the meadow, there is a small orange drum at the top, a small gray house on the left and a small "
        "gray tree at the bottom. Question: what place is this? Answer:",
        "meadow",
    )
    assert corpus.instruction(7, 3) == (
        "during the day in the mountains, there is a small pink plane at the top. a small pink plane at",
        "the top, in the mountains during the day.",
    )
    assert corpus.lesson(7, 1) == (
        "beach+day + small+green+turtle+right small+red+turtle+bottom+right small+green+turtle+bottom+left + "
        "small+green+apple+bottom + Question: is there a red plane? Short answer:",
        "no",
    )
    assert corpus.plain_text(7, 2) == (
        "a ball is a toy. a ball has this part: rubber. you use a ball to play a game. the playground is where a ball "
        "belongs."
    )
