"""One question in several forms: the share answered rightly as it is typed, and as the chat asks it.

    python -m benchmarks.forms --scenes 60 --book 82

A form is bad where the T5 was not taught it. The tables of chat/plain_forms.py, chat/uses.py and chat/untaught.py begin
with such forms. An answer is right if it has the true word in it, or begins with the true "yes" or "no"; "three" or
"red" is right to a question for yes or no that the chat asks as another one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import blip2_lab
from blip2_lab.chat import conversation
from blip2_lab.chat.questions import questions_in
from blip2_lab.evaluation.natural.ask import Asker, ask_all, see_all
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.noun_phrases import a, plural_of
from blip2_lab.picturebook.scene import KINDS, Scene, Thing, pick, sample_scene
from blip2_lab.picturebook.words import NUMBERS

#: One of these is in a right answer: a word, or all words of a tuple; "yes" or "no" is its beginning.
Right = tuple[str | tuple[str, ...], ...]


@dataclass(frozen=True)
class Asked:
    """A question about a scene of the book, and what a right answer may have."""

    text: str
    scene: int
    right: Right


Form = Callable[[Scene, Random], tuple[str, Right] | None]  #: None where a scene does not allow the question


def of_one_thing(text: str, right: Callable[[Thing, Scene], Right]) -> Form:
    """About a thing that is the only one of its kind. In `text` {k} is its kind, {ak} the same with its article, {ks}
    its plural, {c} its color, {aw} a kind that is not there, {p} a part of the thing, {place} where it is."""

    def form(scene: Scene, rng: Random) -> tuple[str, Right] | None:
        kinds = [thing.kind for thing in scene.things]
        things = [thing for thing in scene.things if kinds.count(thing.kind) == 1]
        if not things:
            return None
        thing, other = pick(rng, things), pick(rng, [kind for kind in KINDS if kind not in kinds])
        slots = dict(
            k=thing.kind,
            ak=a(thing.kind),
            ks=plural_of(thing.kind),
            c=thing.color,
            aw=a(other),
            p=FACTS[thing.kind].part,
        )
        slots["place"] = scene.place
        return text.format(**slots), right(thing, scene)

    return form


def of_the_only_color(text: str) -> Form:
    """Which thing has a color that nothing else has; {c} is the color."""

    def form(scene: Scene, rng: Random) -> tuple[str, Right] | None:
        colors = [thing.color for thing in scene.things]
        things = [thing for thing in scene.things if colors.count(thing.color) == 1]
        return (text.format(c=(thing := pick(rng, things)).color), (thing.kind,)) if things else None

    return form


def of_a_color_of_several(text: str) -> Form:
    """Which things have a color that two or more have; right is an answer with each of their kinds."""

    def form(scene: Scene, rng: Random) -> tuple[str, Right] | None:
        colors = [thing.color for thing in scene.things]
        several = [color for color in dict.fromkeys(colors) if colors.count(color) > 1]
        if not several:
            return None
        color = pick(rng, several)
        groups = Counter(thing.kind for thing in scene.things if thing.color == color)
        return text.format(c=color), (tuple(k if n == 1 else plural_of(k) for k, n in groups.items()),)

    return form


def of_all(text: str, right: Callable[[Scene], Right]) -> Form:
    return lambda scene, rng: (text, right(scene))


def _number(scene: Scene, size: str = "") -> str:
    return NUMBERS[sum(not size or thing.size == size for thing in scene.things)]


def _use(thing: Thing, scene: Scene) -> Right:
    return (FACTS[thing.kind].use,)


def _part(thing: Thing, scene: Scene) -> Right:
    return (FACTS[thing.kind].part,)


def _home(thing: Thing, scene: Scene) -> Right:
    return (FACTS[thing.kind].home,)


FORMS: dict[str, Form] = {
    "what is a drum for?": of_one_thing("what is {ak} for?", _use),
    "what do you use the drum for?": of_one_thing("what do you use the {k} for?", _use),
    "why would i need a drum?": of_one_thing("why would i need {ak}?", _use),
    "where do you find a fish?": of_one_thing("where do you find {ak}?", _home),
    "where does a fish belong?": of_one_thing("where does {ak} belong?", _home),
    "habitat of a fish?": of_one_thing("habitat of {ak}?", _home),
    "tell me what drums are for": of_one_thing("tell me what {ks} are for", _use),
    "what is a drum made up of?": of_one_thing("what is {ak} made up of?", _part),
    "what part does the drum have?": of_one_thing("what part does the {k} have?", _part),
    "what has a handle?": of_one_thing("what has a {p}?", lambda thing, scene: (thing.kind,)),
    "find something red": of_the_only_color("find something {c}"),
    "name something red": of_the_only_color("name something {c}"),
    "which thing is red?": of_the_only_color("which thing is {c}?"),
    "which thing is red? (two are)": of_a_color_of_several("which thing is {c}?"),
    "which things are red? (two are)": of_a_color_of_several("which things are {c}?"),
    "which red things are there? (two)": of_a_color_of_several("which {c} things are there?"),
    "how many big things are there?": of_all("how many big things are there?", lambda s: (_number(s, "large"),)),
    "how many large things are there?": of_all("how many large things are there?", lambda s: (_number(s, "large"),)),
    "are there at least three things?": of_all(
        "are there at least three things?", lambda s: ("yes" if len(s.things) > 2 else "no", _number(s))
    ),
    "are there more than two things?": of_all(
        "are there more than two things?", lambda s: ("yes" if len(s.things) > 2 else "no", _number(s))
    ),
    "is the cat black?": of_one_thing("is the {k} black?", lambda thing, scene: ("no", thing.color)),
    "is it a cat or a boat?": of_one_thing("is it {ak} or {aw}?", lambda thing, scene: (thing.kind,)),
    "do you see a boat on the beach? (there is none)": of_one_thing(
        "do you see {aw} in the {place}?", lambda thing, scene: ("no",)
    ),
    "is the cat alone?": of_one_thing(
        "is the {k} alone?", lambda thing, scene: ("yes" if len(scene.things) == 1 else "no", _number(scene))
    ),
    "is it outside?": of_all("is it outside?", lambda scene: ("yes", scene.place)),
    "what kind of thing is the cat?": of_one_thing(
        "what kind of thing is the {k}?", lambda thing, scene: (thing.category,)
    ),
    "what is the cat standing on?": of_one_thing("what is the {k} standing on?", lambda thing, scene: (scene.place,)),
    "is there cat?": of_one_thing("is there {k}?", lambda thing, scene: ("yes",)),
    "are there cats?": of_one_thing("are there {ks}?", lambda thing, scene: ("yes",)),
    "are there any cats?": of_one_thing("are there any {ks}?", lambda thing, scene: ("yes",)),
    "tell me whether there are cats": of_one_thing("tell me whether there are {ks}", lambda thing, scene: ("yes",)),
    "is the cat a big one or a little one?": of_one_thing(
        "is the {k} a big one or a little one?", lambda thing, scene: (thing.size,)
    ),
    "is it a beach, a street or what?": of_all("is it a beach, a street or what?", lambda scene: (scene.place,)),
    "how many cats?": of_one_thing("how many {ks}?", lambda thing, scene: ("one",)),
    "what color is the cat?": of_one_thing("what color is the {k}?", lambda thing, scene: (thing.color,)),
    "where is the cat?": of_one_thing("where is the {k}?", lambda thing, scene: (thing.position,)),
}


def shares(model: Stage2Model, book: Sequence[Scene], prompt: Callable[[Stage2Model, str], str]) -> dict[str, float]:
    """Form -> the share of its questions that is answered rightly; a refusal is not right."""
    shown, found = see_all(model, book), {}
    for name, form in FORMS.items():
        asked = [
            Asked(made[0], number, made[1])
            for number, scene in enumerate(book)
            if (made := form(scene, Random(f"{name} {number}")))
        ]
        answers = ask_all(model, book, asked, Asker(prompt, conversation.ANSWERING), visual_prompts=shown)
        right = [not one.refused and is_right(one.text, q.right) for one, q in zip(answers, asked, strict=True)]
        found[name] = sum(right) / len(right)
    return found


def is_right(answer: str, right: Right) -> bool:
    return any(_has(answer, one) for one in right)


def _has(answer: str, one: str | tuple[str, ...]) -> bool:
    if isinstance(one, tuple):
        return all(_has(answer, word) for word in one)
    return answer.startswith(one) if one in ("yes", "no") else one in answer


def as_typed(model: Stage2Model, text: str) -> str:
    return model.language_model.question_prompt.format(text)


def by_the_chat(model: Stage2Model, text: str) -> str:
    """Of a question that the chat asks in parts, the first."""
    return conversation.first_prompt(model, questions_in(text)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--book", type=int, default=82)
    parser.add_argument("--model", default="micro")
    args = parser.parse_args()
    model = blip2_lab.load(args.model)
    book = [sample_scene(args.book, number, "in") for number in range(args.scenes)]
    typed, chat = shares(model, book, as_typed), shares(model, book, by_the_chat)
    print(f"{'form':50s} {'as typed':>9s} {'by the chat':>12s}")
    for name in FORMS:
        print(f"{name:50s} {typed[name]:9.2f} {chat[name]:12.2f}")


if __name__ == "__main__":
    main()
