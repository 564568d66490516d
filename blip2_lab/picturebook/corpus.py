"""The text that the frozen language models are trained on, before any picture: `instruction`, `plain_text`, captions.

Notes:

* `instruction` is for the FlanT5 (tasks with their answers), `plain_text` for the OPT (sentences about scenes and
  facts, some questions), plain captions are for the BERT.
* An instruction begins with a description of a scene, in sentences (`full_caption`) or as `word_sums`. In stage 2 the
  Q-Former's soft prompt takes the description's place.
* Questions come in a visitor's many words (asking/) and in the few forms of words.py.
* Example `index` of a corpus is a function of `(seed, index)`, like a scene.

Paper: section 3.4 (OPT: unsupervised, FlanT5: instruction-trained), Figure 4. Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from random import Random

from .asking import INTENTIONS, any_intention, ask, ask_anything
from .asking.base import listed
from .asking.comparing import COMPARATIVES, SIZE_RELATIONS, SUPERLATIVES
from .asking.follow_ups import follow_up, short_follow_up
from .asking.knowledge import NOTHING_OF_THE_KIND
from .asking.positions import OTHER_RELATIONS
from .asking.refusing import NOT_SHOWN
from .asking.setting import OTHER_PLACES
from .facts import FACTS
from .noun_phrases import plural_of
from .scene import (
    CATEGORIES,
    CATEGORY_OF,
    COLORS,
    KINDS,
    PLACES,
    SIZES,
    TIMES,
    Scene,
    Thing,
    pick,
    sample_scene,
    shuffled,
)
from .wordings import ABSENT, SCENERY, SYNONYMS, UNKNOWN, as_typed, wording, words_of_wordings
from .words import (
    KNOWLEDGE_QUESTIONS,
    NUMBERS,
    PLACE_PHRASES,
    VISUAL_QUESTIONS,
    Question,
    caption,
    dialogue,
    full_caption,
    phrase,
    question,
    reading_order,
    reference,
    setting,
    short_caption,
    with_article,
)

QUESTION_PROMPTS = ("Question: {} Short answer:", "Question: {} Answer:")


def fact_sentences(kind: str) -> list[str]:
    facts, a_kind = FACTS[kind], with_article(kind)
    use = f"{a_kind} can {facts.use}." if facts.agent else f"you use {a_kind} to {facts.use}."
    category = CATEGORY_OF[kind]
    return [
        use,
        f"{a_kind} is {with_article(category)}.",
        f"the {facts.home} is where {a_kind} belongs.",
        f"{a_kind} has this part: {facts.part}.",
    ]


def fact_question(rng: Random) -> Question:
    """A question about a kind of thing, without any scene."""
    kind = pick(rng, KINDS)
    facts, a_kind = FACTS[kind], with_article(kind)
    category = CATEGORY_OF[kind] if rng.random() < 0.5 else pick(rng, tuple(CATEGORIES))
    use = f"what can {a_kind} do?" if facts.agent else f"what is {a_kind} used for?"
    return pick(
        rng,
        (
            Question("use", use, facts.use),
            Question("home", f"where does {a_kind} belong?", facts.home),
            Question("part", f"what part does {a_kind} have?", facts.part),
            Question(
                "category", f"is {a_kind} {with_article(category)}?", "yes" if category == CATEGORY_OF[kind] else "no"
            ),
        ),
    )


def _story(scene: Scene, rng: Random) -> str:
    thing = pick(rng, scene.things)
    facts, noun = FACTS[thing.kind], with_article(phrase(thing, "color"))
    wish = f"{noun} wanted to {facts.use}" if facts.agent else f"somebody used {noun} to {facts.use}"
    return f"once upon a time, {setting(scene, rng)}, {wish}."


#: Instructions besides questions: Figure 4 of the paper in miniature. A name in `WORDINGS` -> the answer's function.
INSTRUCTIONS = {
    "description": partial(full_caption, ordered=True),
    "caption": short_caption,
    "story": _story,
    "message": lambda scene, rng: (
        f"greetings {PLACE_PHRASES[scene.place]}! {pick(rng, fact_sentences(pick(rng, scene.things).kind))}"
    ),
}


def inventory(scene: Scene) -> Question:
    """`what is in the picture?`, answered in reading order."""
    return Question("inventory", "what is in the picture?", listed(reading_order(scene)))


MAX_WORD_SUMS = 16  #: at most, as many as a micro Q-Former has queries
REPEATING = 0.7  #: the share of lists with repeats, where these are asked for


def _in_part(told: str, rng: Random) -> str:
    """The word sum of a thing told again: whole, or without some of its size, color and kind, never its position."""
    looks, where = told.split("+")[:3], told.split("+")[3:]
    if not where or rng.random() < 0.7:
        return told
    return "+".join([*sorted(rng.sample(looks, pick(rng, (1, 2))), key=looks.index), *where])


def word_sums(scene: Scene, rng: Random, repeats: bool = False) -> str:
    """The same as `full_caption` without grammar: the words of a thing joined by "+", in any order.

    `"snow+night large+red+boat+top+left + small+blue+fish+middle +"`: `training.tasks.word_sums`
    adds the embeddings of joined words up. Each sum says everything about one thing, or the setting, or nothing.

    repeats  most of the lists tell something several times, as the queries of a visual prompt do: what stands at the
             same position is the same thing
    """
    told = ["+".join([thing.size, thing.color, thing.kind, *thing.position.split()]) for thing in scene.things]
    told.append(f"{scene.place}+{scene.time}")
    full = 0.15
    if repeats and rng.random() < REPEATING:
        once = [*told, f"{scene.place}+", f"{scene.time}+"]
        told += [_in_part(pick(rng, once), rng) for _ in range(1 + int(rng.random() * 7))]
        full = 0.6
    room = MAX_WORD_SUMS - len(told)
    empty = room if rng.random() < full else int(rng.random() * min(room, 5))
    return " ".join(shuffled(rng, told + ["+"] * empty))


def description(scene: Scene, rng: Random, summed: bool = False, repeats: bool = False) -> str:
    """A text that tells everything, sometimes with a second caption before or after it; or `word_sums`."""
    if summed:
        return word_sums(scene, rng, repeats)
    parts = [full_caption(scene, rng)]
    if rng.random() < 0.1:
        parts = shuffled(rng, [*parts, caption(scene, rng)])
    return " ".join(parts)


def split_text(text: str, rng: Random) -> tuple[str, str]:
    """Prefix and suffix at a random word boundary; the prefix may be empty, the suffix never is (paper, 3.3)."""
    words = text.split()
    cut = int(rng.random() * len(words))
    return " ".join(words[:cut]), " ".join(words[cut:])


def corpus_scene(rng: Random, most: int = 4) -> Scene:
    """A scene to write about. Text may speak of any color of any kind; only pictures hold some pairs back."""
    scene = sample_scene(int(rng.random() * 2**40), 0, pick(rng, ("train", "near")))
    return Scene(scene.things[:most], scene.place, scene.time)


def crowded_scene(rng: Random, most: int = 4) -> Scene:
    """A scene whose things are much alike, so that all numbers up to four are there to be counted."""
    kinds = shuffled(rng, KINDS)[: pick(rng, (1, 2, 2))]
    colors = shuffled(rng, COLORS)[: pick(rng, (1, 2, 2))]
    count = min(most, pick(rng, (1, 2, 3, 3, 4, 4)))
    things = []
    for cell in shuffled(rng, range(9))[:count]:
        row, column = divmod(cell, 3)
        kind = pick(rng, kinds) if rng.random() < 0.9 else pick(rng, KINDS)
        color = pick(rng, colors) if rng.random() < 0.8 else pick(rng, COLORS)
        things.append(Thing(kind, color, pick(rng, SIZES), (column + 0.5) / 3, (row + 0.5) / 3))
    return Scene(tuple(things), pick(rng, PLACES), pick(rng, TIMES))


def prompt(question: str, rng: Random) -> str:
    """The question in one of the paper's two forms, or as it is."""
    form = rng.random()
    if form < 0.25:
        return question
    return (QUESTION_PROMPTS[0] if form < 0.85 else QUESTION_PROMPTS[1]).format(question)


EARLIER_TURNS = 0.1  #: the share of a visitor's questions before which another one was asked and answered


SCENES_TRIED = 8  #: until one allows a question of the intention that was drawn


def visitors_question(
    seed: int,
    index: int,
    often: Sequence[str] = tuple(INTENTIONS),
    repeats: bool = False,
    often_share: float = 0.5,
) -> tuple[str, str]:
    """`(input, target)`: `word_sums` of a scene and a question in a visitor's words; a share of them of an intention of
    `often`, drawn with equal shares."""
    rng = Random(f"visitors question {seed} {index}")
    intention = pick(rng, often) if rng.random() < often_share else any_intention(rng)
    for _ in range(SCENES_TRIED):  # whether all cats are red can be asked of few scenes, and would be asked too seldom
        scene = (crowded_scene if rng.random() < 0.4 else corpus_scene)(rng, 4)
        if asked := ask(scene, rng, intention):
            break
    else:
        asked = inventory(scene)
    told = word_sums(scene, rng, repeats)
    if rng.random() < EARLIER_TURNS:
        before, asked = (short_follow_up(scene, rng) if rng.random() < 0.5 else None) or (
            ask_anything(scene, rng),
            asked,
        )
        told = f"{told} {QUESTION_PROMPTS[0].format(before.text)} {before.answer}."
    return f"{told} {prompt(asked.text, rng)}", asked.answer


def any_question(scene: Scene, rng: Random) -> Question:
    """A question in a visitor's words, or (a third) in one of the fixed forms of words.py."""
    if rng.random() < 0.67:
        return ask_anything(scene, rng)
    types = VISUAL_QUESTIONS if rng.random() < 0.85 else KNOWLEDGE_QUESTIONS
    return question(scene, rng, pick(rng, tuple(types))) or inventory(scene)


#: What a lesson asks about, as often as it stands here; "retell" is a full caption, things in order.
LESSON = (
    *("color", "what", "position", "relation", "retell"),
    *("existence",) * 2,
    *("inventory",) * 3,
    *("count",) * 3,
)


def lesson(seed: int, index: int, repeats: bool = False) -> tuple[str, str]:
    """`(input, target)`: `word_sums` of a scene and a question in one fixed form, each kind of question that needs the
    words of a thing bound together."""
    rng = Random(f"lesson {seed} {index}")
    scene = (crowded_scene if rng.random() < 0.5 else corpus_scene)(rng)
    told, kind = word_sums(scene, rng, repeats), pick(rng, LESSON)
    if kind == "retell":
        return told, full_caption(scene, rng, ordered=True)
    asked = (None if kind == "inventory" else question(scene, rng, kind)) or inventory(scene)
    return f"{told} {QUESTION_PROMPTS[0].format(asked.text)}", asked.answer


def instruction(seed: int, index: int, summed: bool = False, most: int = 4, repeats: bool = False) -> tuple[str, str]:
    """`(input, target)`: one task for the instruction-trained model, text to text, about a scene of at most `most`
    things; `summed`: the scene is described as `word_sums`, perhaps with `repeats`."""
    rng = Random(f"instruction {seed} {index}")
    scene = (crowded_scene if rng.random() < 0.4 else corpus_scene)(rng, most)
    told = description(scene, rng, summed, repeats)
    task = rng.random()
    if task < 0.66:
        asked = any_question(scene, rng)
        return f"{told} {prompt(asked.text, rng)}", asked.answer
    if task < 0.71:
        turns = follow_up(scene, rng) if rng.random() < 0.6 else None
        *before, last = turns or dialogue(scene, rng, turns=pick(rng, (2, 2, 3)))
        history = [f"{QUESTION_PROMPTS[0].format(q.text)} {q.answer}." for q in before]
        return " ".join([told, *history, QUESTION_PROMPTS[0].format(last.text)]), last.answer
    if task < 0.81:
        prefix, suffix = split_text(caption(scene, rng), rng)
        return f"{told} {prefix}".strip(), suffix
    if task < 0.89:
        retold = full_caption(scene, rng, ordered=True)
        prefix, suffix = split_text(retold, rng) if rng.random() < 0.5 else ("", retold)
        return f"{told} {prefix}".strip(), suffix
    if task < 0.94:
        named = pick(rng, tuple(INSTRUCTIONS))
        return f"{told} {prompt(as_typed(rng, wording(rng, named)), rng)}", INSTRUCTIONS[named](scene, rng)
    if task < 0.96:
        about = reference(scene, rng)
        facts = " ".join(shuffled(rng, fact_sentences(about.thing.kind))[:2])
        return f"{told} {prompt(as_typed(rng, wording(rng, 'facts', ref=about.text)), rng)}", facts
    if task < 0.98:
        asked = fact_question(rng)
        return pick(rng, QUESTION_PROMPTS).format(asked.text), asked.answer
    return split_text(pick(rng, (caption(scene, rng), *fact_sentences(pick(rng, KINDS)))), rng)


def plain_text(seed: int, index: int) -> str:
    """A short document, as a crawl would find it: descriptions, facts and now and then a question with its answer."""
    rng = Random(f"plain text {seed} {index}")
    scene = corpus_scene(rng)
    kind = rng.random()
    if kind < 0.15:
        return " ".join(shuffled(rng, fact_sentences(pick(rng, KINDS))))
    if kind < 0.5:
        return " ".join(caption(scene, rng) for _ in range(1 + int(rng.random() * 2)))
    asked = [question(scene, rng, pick(rng, tuple(VISUAL_QUESTIONS | KNOWLEDGE_QUESTIONS))) for _ in range(2)]
    answered = [f"{QUESTION_PROMPTS[1].format(q.text)} {q.answer}." for q in asked if q]
    return " ".join([full_caption(scene, rng), *answered])


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of every text, sorted: of all tables and templates, and of generated texts that cover the rest."""
    texts = [" ".join(instruction(0, i)) for i in range(3000)] + [plain_text(0, i) for i in range(2000)]
    texts += [s for kind in KINDS for s in fact_sentences(kind)] + list(NUMBERS)
    names = [name for table in (SYNONYMS, SCENERY) for others in table.values() for name in others]
    texts += [plural_of(noun) for noun in (*KINDS, *CATEGORIES, *ABSENT, *names)] + list(words_of_wordings())
    tables = (SUPERLATIVES, COMPARATIVES, OTHER_RELATIONS, SIZE_RELATIONS, OTHER_PLACES)
    texts += [NOTHING_OF_THE_KIND, NOT_SHOWN, *(text for table in tables for said in table.values() for text in said)]
    separated = " ".join(texts).lower()
    for mark in ".,:?!":
        separated = separated.replace(mark, " ")
    return tuple(sorted(set(separated.split()) - {UNKNOWN, plural_of(UNKNOWN)}))
