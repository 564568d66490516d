"""Two turns of a talk: a question, and one that leaves to be understood what the first one named."""

from __future__ import annotations

from random import Random

from ..facts import FACTS
from ..noun_phrases import a, other_word, positions, refer, somewhere
from ..scene import COLORS, SIZES, Scene, pick, shuffled
from ..wordings import as_typed, wording
from ..words import NUMBERS, Question, reading_order, with_article
from .base import another, listed_others, yes_no
from .counting import counted
from .refusing import NOT_SHOWN


def follow_up(scene: Scene, rng: Random) -> list[Question] | None:
    """A question that names a thing, and one that says "it"; None where no words fit one thing alone."""
    found = refer(scene, rng, "kind") if rng.random() < 0.5 else refer(scene, rng)
    if found is None:
        return None
    ref, thing = found
    facts = FACTS[thing.kind]
    if thing.kind not in ref.split() and rng.random() < 0.7:
        first = wording(rng, "what", ref=ref), thing.kind
    else:
        noun = ref.removeprefix("the ")
        asked = wording(rng, "existence", a=with_article(noun), singular=noun, plural=noun)
        first = pick(rng, ((asked, "yes"), (wording(rng, "position", ref=ref), thing.position)))
    wrong, size = another(rng, COLORS, thing.color), pick(rng, SIZES)
    shown = thing.color if rng.random() < 0.5 else wrong
    others = [t for t in reading_order(scene) if t is not thing and t.color == thing.color]
    second = pick(
        rng,
        (
            (wording(rng, "color", ref="it"), thing.color),
            (wording(rng, "color check", ref="it", color=shown), yes_no(shown == thing.color)),
            (f"what else is {thing.color}", listed_others(others)),
            (wording(rng, "size", ref="it", large=pick(rng, ("large", "big")), small="small"), thing.size),
            (wording(rng, "size check", ref="it", size=other_word(rng, size)), yes_no(size == thing.size)),
            (wording(rng, "position", ref="it"), thing.position),
            (wording(rng, "can do" if facts.agent else "use", ref="it"), facts.use),
            (wording(rng, "home", ref="it"), facts.home),
            (wording(rng, "part", ref="it"), facts.part),
            (pick(rng, ("who made it", "whose is it", "how old is it", "why is it there", "what is in it")), NOT_SHOWN),
        ),
    )
    return [Question("follow-up", as_typed(rng, text), answer) for text, answer in (first, second)]


def short_follow_up(scene: Scene, rng: Random) -> list[Question] | None:
    """A question, and the same in short about something else: "and the boat?"; None where the scene allows none."""
    by = pick(rng, ("attribute", "attribute", "existence", "count", "position", "how many"))
    if by in ("existence", "count"):
        (singular, several, count), (other, others, number) = counted(scene, rng), counted(scene, rng)
        before = wording(rng, by, a=a(singular), singular=singular, plural=several)
        answers = (NUMBERS[count], NUMBERS[number]) if by == "count" else (yes_no(count > 0), yes_no(number > 0))
        asked = others if by == "count" else pick(rng, (a(other), f"any {others}"))
    elif by == "how many":
        singular, several, count = counted(scene, rng)
        asked = pick(rng, ("how many", "how many are there", "how many of them", "how many do you see"))
        before = wording(rng, "existence", a=a(singular), singular=singular, plural=several)
        answers = (yes_no(count > 0), NUMBERS[count])
    elif len(scene.things) < 2:
        return None
    elif by == "position":
        first, second = shuffled(rng, scene.things)[:2]
        where, asked = (somewhere(rng, pick(rng, positions(scene, thing))) for thing in (first, second))
        before, answers = wording(rng, "what by position", where=where), (first.kind, second.kind)
    else:
        name = pick(rng, ("color", "size", "position", "kind"))
        found = [refer(scene, rng, name) for _ in range(4)]
        if None in found or all(thing == found[0][1] for _, thing in found):
            return None
        asked, other = next((ref, thing) for ref, thing in found if thing != found[0][1])
        before = wording(rng, "what" if name == "kind" else name, ref=found[0][0], large="large", small="small")
        answers = getattr(found[0][1], name), getattr(other, name)
    texts = before, asked if by == "how many" else wording(rng, "short follow-up", asked=asked)
    return [
        Question("short follow-up", as_typed(rng, text), answer) for text, answer in zip(texts, answers, strict=True)
    ]
