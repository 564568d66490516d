"""What the frozen language models read before they ever meet a picture: text, and nothing but text.

What is unusual about it:

* Three libraries in miniature: `plain_text` (for the OPT: sentences about scenes and facts, some questions),
  `instruction` (for the FlanT5: tasks with their answers) and plain captions (for the BERT).
* An instruction's context is a *description* of a scene. Later the Q-Former's soft prompts stand in its place, and
  nobody will have told the language model how to read them: that is stage 2.
* Example `index` of a corpus is a function of `(seed, index)`, like a scene.

Paper: section 3.4 (OPT: unsupervised, FlanT5: instruction-trained), Figure 4. Notebook: 12.
"""

from __future__ import annotations

from functools import cache
from random import Random

from .facts import FACTS
from .scene import CATEGORIES, CATEGORY_OF, COLORS, KINDS, Scene, Thing, pick, sample_scene, shuffled
from .words import (
    KNOWLEDGE_QUESTIONS,
    NUMBERS,
    PLACE_PHRASES,
    VISUAL_QUESTIONS,
    Question,
    at,
    caption,
    dialogue,
    full_caption,
    groups,
    join,
    phrase,
    question,
    reading_order,
    reference,
    setting,
    short_caption,
    with_article,
)

QUESTION_PROMPTS = ("Question: {} Short answer:", "Question: {} Answer:")
#: What lessons ask about; what is hard comes twice.
LESSON_TYPES = (*VISUAL_QUESTIONS, *KNOWLEDGE_QUESTIONS, "color", "what", "count", "existence", "relation")


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


#: Instructions besides questions: Figure 4 of the paper in miniature. Each maps (scene, rng) to its answer.
INSTRUCTIONS = {
    "Describe the picture.": full_caption,
    "Write a caption.": short_caption,
    "Tell a story.": _story,
    "Write a message that goes with this picture.": lambda scene, rng: (
        f"greetings {PLACE_PHRASES[scene.place]}! {pick(rng, fact_sentences(pick(rng, scene.things).kind))}"
    ),
}


def inventory(scene: Scene) -> Question:
    """`what is in the picture?`, answered in reading order."""
    return Question("inventory", "what is in the picture?", join(groups(reading_order(scene), "color")))


PILES = 16  #: in every `piles`, as many as a micro Q-Former has queries


def piles(scene: Scene, rng: Random) -> str:
    """The same as `full_caption` without grammar: words that belong together joined by "+", in any order.

    `"night red+boat+top+left + large+top+left snow + ..."`: a reader who adds the words of a pile up gets one
    embedding for each. A pile says a thing, or some of it with its position, or the setting, or nothing.
    """
    told = [scene.place, scene.time] if rng.random() < 0.5 else [f"{scene.place}+{scene.time}"]
    for thing in scene.things:
        words, where = shuffled(rng, (thing.size, thing.color, thing.kind)), thing.position.split()
        cuts = pick(rng, ((0,), (0,), (0, 1), (0, 2), (0, 1, 2)))
        told += ["+".join(words[start:end] + where) for start, end in zip(cuts, (*cuts[1:], 3), strict=True)]
    return " ".join(shuffled(rng, told + ["+"] * (PILES - len(told))))


def _context(scene: Scene, rng: Random, piled: bool = False) -> str:
    """A description that tells everything, sometimes with a second caption before or after it; or `piles`."""
    if piled:
        return piles(scene, rng)
    parts = [full_caption(scene, rng)]
    if rng.random() < 0.25:
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


def first_question(seed: int, index: int) -> tuple[str, str]:
    """The shortest question that needs binding: two things, color asked by kind or kind by color."""
    rng = Random(f"first question {seed} {index}")
    kinds, colors = shuffled(rng, KINDS)[:2], shuffled(rng, COLORS)[:2]
    text = join([with_article(f"{color} {kind}") for kind, color in zip(kinds, colors, strict=True)])
    chosen = int(rng.random() * 2)
    if rng.random() < 0.5:
        asked, answer = f"what color is the {kinds[chosen]}?", colors[chosen]
    else:
        asked, answer = f"what is the {colors[chosen]} thing?", kinds[chosen]
    return f"{text}. {QUESTION_PROMPTS[0].format(asked)}", answer


def lesson(
    seed: int,
    index: int,
    most: int,
    types: tuple[str, ...] = LESSON_TYPES,
    described: float = 0.4,
    piled: bool = False,
) -> tuple[str, str]:
    """A short task about a description of at most that many things: one of them to be told in full (a share of
    `described`; color, size, kind and position must be bound, four lessons in one), or a question of one of the types.
    Unlike retelling everything, where the decoder copies the description's phrases, it makes the *encoder* bind."""
    rng = Random(f"lesson {seed} {index} {most}")
    scene = corpus_scene(rng, most)
    context = piles if piled else full_caption
    if rng.random() < described:
        about = reference(scene, rng)
        return f"{context(scene, rng)} Describe {about.text}.", describe(about.thing)
    asked = [question(scene, rng, type) for type in shuffled(rng, types)]
    asked = next(filter(None, asked), inventory(scene))
    return f"{context(scene, rng)} {QUESTION_PROMPTS[0].format(asked.text)}", asked.answer


def retelling(seed: int, index: int, piled: bool = False) -> tuple[str, str]:
    """All that a description tells, told once more in a full caption; of half of them the beginning is given.

    From `piles` nothing can be copied, and who tells everything must know what has been told: all that lies before the
    last thing told, since they are told in reading order.
    """
    rng = Random(f"retelling {seed} {index}")
    scene = corpus_scene(rng)
    told, retold = _context(scene, rng, piled), full_caption(scene, rng, ordered=True)
    prefix, suffix = split_text(retold, rng) if rng.random() < 0.5 else ("", retold)
    return f"{told} {prefix}".strip(), suffix


def describe(thing: Thing) -> str:
    """`"a large red boat at the top left."`"""
    return f"{with_article(phrase(thing, 'size', 'color'))} {at(thing.position)}."


def instruction(seed: int, index: int, piled: bool = False) -> tuple[str, str]:
    """`(input, target)`: one task for the instruction-trained model, text to text; `piled`: about `piles`."""
    rng = Random(f"instruction {seed} {index}")
    scene = corpus_scene(rng)
    task = rng.random()
    if task < 0.50:
        types = VISUAL_QUESTIONS if rng.random() < 0.75 else KNOWLEDGE_QUESTIONS
        asked = question(scene, rng, pick(rng, tuple(types))) or inventory(scene)
        return f"{_context(scene, rng, piled)} {pick(rng, QUESTION_PROMPTS).format(asked.text)}", asked.answer
    if task < 0.62:
        *before, last = dialogue(scene, rng, turns=pick(rng, (2, 2, 3)))
        prompt = QUESTION_PROMPTS[0]
        history = [f"{prompt.format(q.text)} {q.answer}." for q in before]
        return " ".join([_context(scene, rng, piled), *history, prompt.format(last.text)]), last.answer
    if task < 0.80:
        prefix, suffix = split_text(caption(scene, rng), rng)
        return f"{_context(scene, rng, piled)} {prefix}".strip(), suffix
    if task < 0.84:
        prefix, suffix = split_text(caption(scene, rng), rng)
        return prefix, suffix
    if task < 0.90:
        named = pick(rng, tuple(INSTRUCTIONS))
        return f"{_context(scene, rng, piled)} {named}", INSTRUCTIONS[named](scene, rng)
    if task < 0.93:
        asked = inventory(scene)
        return f"{_context(scene, rng, piled)} {pick(rng, QUESTION_PROMPTS).format(asked.text)}", asked.answer
    if task < 0.96:
        about = reference(scene, rng)
        facts = " ".join(shuffled(rng, fact_sentences(about.thing.kind))[:2])
        return f"{_context(scene, rng, piled)} Write down the facts that you know about {about.text}.", facts
    if task < 0.98:
        asked = fact_question(rng)
        return pick(rng, QUESTION_PROMPTS).format(asked.text), asked.answer
    return split_text(pick(rng, fact_sentences(pick(rng, KINDS))), rng)


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
    """Every word of every text, sorted. Generated text that covers all templates many times over, and the tables."""
    texts = [" ".join(instruction(0, i)) for i in range(6000)] + [plain_text(0, i) for i in range(2000)]
    texts += [s for kind in KINDS for s in fact_sentences(kind)] + list(NUMBERS)
    separated = " ".join(texts).lower()
    for mark in ".,:?!":
        separated = separated.replace(mark, " ")
    return tuple(sorted(set(separated.split())))
