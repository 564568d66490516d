"""The language models' texts: every answer follows from the description in front of it, every fact is right.

An example does not carry its scene, but its description tells everything; so the reader of `test_words.py` rebuilds
the scene from the text and checks the rest against it.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from random import Random

import pytest

from blip2_lab.picturebook import corpus
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, HELD_OUT, KINDS, POSITIONS, Scene, Thing
from tests.picturebook.test_words import (
    ABOUT_IT,
    REFERENCE,
    WITH_AN,
    check_text,
    described,
    meant,
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


def check_continuation(prefix: str, suffix: str) -> str:
    """A fact or a caption cut in two, perhaps after a description: whole, it must be true."""
    whole = f"{prefix} {suffix}".strip()
    if "." in prefix:
        check_text(whole, described(whole))
        return "go on after a description"
    try:
        fact_of(whole)
        return "go on with a fact"
    except AssertionError as error:
        assert "no fact" in str(error)
        read(whole)
        return "go on"


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


def check_instruction(prompt: str, target: str) -> str:
    """Raises AssertionError unless the target is a right answer to the prompt. Returns what sort of task it is."""
    assert prompt == prompt.strip() and target == target.strip() and target, "badly set"
    task = re.search(r"[A-Z]", prompt)
    if not task:
        return check_continuation(prompt, target)
    context, asked = prompt[: task.start()].strip(), prompt[task.start() :]
    scene = described(context) if context else None
    if scene:
        check_text(context, scene)
    if asked.startswith("Question:"):
        count = check_conversation(asked, target, scene)
        return "ask without a scene" if scene is None else "dialogue" if count > 1 else "ask"
    assert scene, f"nothing to speak about: {prompt}"
    if asked == "Describe the picture.":
        assert described(target) == scene
    elif asked == "Write a caption.":
        check_text(target, scene)
    elif asked == "Tell a story.":
        check_story(target, scene)
    elif asked == "Write a message that goes with this picture.":
        where, fact = target.removeprefix("greetings ").split("! ")
        assert PLACE_PHRASES[where] == scene.place and fact_of(fact) in {thing.kind for thing in scene.things}
    else:
        about = re.fullmatch(rf"Write down the facts that you know about the {REFERENCE}\.", asked)
        assert about, f"unknown instruction: {asked}"
        assert facts_of(target) == [meant(about, scene).kind] * 2 and len(set(target.split(". "))) == 2
        return "write down the facts"
    return asked


SHARES = {  # of the instructions
    "ask": (0.45, 0.60),
    "dialogue": (0.09, 0.15),
    "go on after a description": (0.15, 0.22),
    "go on": (0.02, 0.06),
    "Describe the picture.": (0.005, 0.03),
    "Write a caption.": (0.005, 0.03),
    "Tell a story.": (0.005, 0.03),
    "Write a message that goes with this picture.": (0.005, 0.03),
    "write down the facts": (0.015, 0.05),
    "ask without a scene": (0.01, 0.035),
    "go on with a fact": (0.01, 0.035),
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
        (f"{DESCRIPTION} Describe the picture.", "a large red boat at the top, at night on the beach."),
        (f"{DESCRIPTION} Write a caption.", "a red boat."),
        (f"{DESCRIPTION} Tell a story.", "once upon a time, at night on the beach, a red boat wanted to sing."),
        (f"{DESCRIPTION} Tell a story.", "once upon a time, at night on the beach, a blue boat wanted to sail."),
        (f"{DESCRIPTION} Tell a story.", "once upon a time, by day on the beach, a red boat wanted to sail."),
        (f"{DESCRIPTION} Write a message that goes with this picture.", "greetings on the beach! a fish can swim."),
        (f"{DESCRIPTION} Write a message that goes with this picture.", "greetings in the snow! a boat can sail."),
        (f"{DESCRIPTION} Write down the facts that you know about the key.", "a boat can sail. a boat is a vehicle."),
        (f"{DESCRIPTION} Write down the facts that you know about the thing.", "a boat can sail. a boat is a vehicle."),
        ("Question: what is an umbrella used for? Answer:", "sing"),
        ("Question: what can an umbrella do? Answer:", "keep dry"),
        ("Question: is a boat a toy? Answer:", "yes"),
        ("a boat is", "a toy."),
        ("a boat is", ""),
        ("", "an boat can sail."),
    ],
)
def test_the_reader_finds_the_mistake(prompt, target):
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
    assert 0.4 < short / len(asked) < 0.8 and all(prompt.endswith("nswer:") for prompt in asked)
    targets = {target for _, target in instructions}
    assert targets >= {"yes", "no", "none", "four", "top left", *KINDS, *COLORS, *(f.use for f in FACTS.values())}


def check_lesson(prompt: str, target: str, most: int) -> str:
    """A task about few things. Returns "describe" or the type of the question."""
    task = re.search(" [A-Z]", prompt).start()
    scene = described(prompt[:task])
    assert len(scene.things) <= most, f"too much for a lesson: {prompt}"
    if asked := QUESTION.search(prompt):
        assert check_instruction(prompt, target) == "ask"
        return right_answers_in(asked[1], scene)[0]
    about = re.fullmatch(f" Describe the {REFERENCE}\\.", prompt[task:])
    (sentence,) = read(target)
    (noun,) = sentence.nouns
    thing = meant(about, scene)
    assert (noun.kind, noun.color, noun.size) == (thing.kind, thing.color, thing.size), f"{prompt} {target}"
    check_text(target, Scene((thing,), scene.place, scene.time))  # that it stands where it is said to stand
    return "describe"


def check_first_lesson(prompt: str, target: str) -> str:
    """`a red boat and a blue key. Question: what color is the key? Short answer:`"""
    told, question = re.fullmatch(r"(.*\.) Question: (.*\?) Short answer:", prompt).groups()
    (sentence,) = read(told)
    scene = Scene(tuple(Thing(noun.kind, noun.color, "", 0.5, 0.5) for noun in sentence.nouns))
    check_text(told, scene)
    assert len({t.kind for t in scene.things}) == len({t.color for t in scene.things}) == 2, f"nothing to bind: {told}"
    type, answers = right_answers_in(question, scene)
    assert answers == [target], f"{prompt} {target}"
    return type


def test_lessons_are_short_and_true_and_of_every_type():
    types = {most: Counter(check_lesson(*corpus.lesson(31, i, most), most) for i in range(1500)) for most in (2, 3, 4)}
    for most, found in types.items():
        assert 0.35 < found.pop("describe") / 1500 < 0.45
        assert set(found) == set(corpus.LESSON_TYPES) and min(found.values()) > 0.02 * 1500, (most, found)
    assert types[3]["existence"] > 1.5 * types[3]["place"], "what is hard comes twice"
    some = Counter(check_lesson(*corpus.lesson(31, i, 3, ("color", "count"), 0.0), 3) for i in range(300))
    assert set(some) == {"color", "count"}, "only what is asked for"


def test_first_questions_need_binding_and_are_fair():
    examples = [corpus.first_question(31, i) for i in range(1500)]
    types = Counter(check_first_lesson(*example) for example in examples)
    assert set(types) == {"color", "what"} and min(types.values()) > 0.4 * 1500
    named_first = sum(prompt.index(f" {answer}") < prompt.index(" and ") for prompt, answer in examples)
    assert 0.4 < named_first / 1500 < 0.6, "the place in the sentence gives the answer away"


def test_piles_are_told_again_in_full_and_truly():
    begun = 0
    for i in range(600):
        prompt, target = corpus.retelling(31, i, piled=True)
        piles, beginning = prompt.split()[: corpus.PILES], prompt.split()[corpus.PILES :]
        scene = described(" ".join([*beginning, target]))
        words = {
            word for thing in scene.things for word in (thing.size, thing.color, thing.kind, *thing.position.split())
        }
        assert {word for pile in piles for word in pile.split("+") if word} == {*words, scene.place, scene.time}
        told = re.findall(one_of(POSITIONS), " ".join([*beginning, target]))
        assert told == sorted(told, key=POSITIONS.index), "in reading order"
        begun += bool(beginning)
    assert 0.4 < begun / 600 < 0.55, "of half of them"
    for i in range(200):
        assert check_continuation(*corpus.retelling(31, i)) == "go on after a description", "sentences can be told, too"


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
    lessons = (partial(corpus.lesson, most=most) for most in (2, 3))
    makers = (corpus.instruction, corpus.first_question, corpus.retelling, *lessons)
    for make in (*makers, corpus.plain_text):
        examples = [make(seed, i) for seed in (0, 1) for i in range(200)]
        assert examples == [make(seed, i) for seed in (0, 1) for i in range(200)]
        assert len(set(examples)) > 0.9 * len(examples)


def test_the_same_texts_on_every_machine():
    assert corpus.instruction(7, 1) == (
        "in the snow by night, there is a large green cat at the top left. Question: what color is the object at the "
        "top left? Answer:",
        "green",
    )
    assert corpus.instruction(7, 3) == (
        "a large",
        "orange tree is to the right of a large red train, by night on the street.",
    )
    assert corpus.plain_text(7, 2) == (
        "a ball is a toy. a ball has this part: rubber. you use a ball to play a game. the playground is where a ball "
        "belongs."
    )
