"""Questions about a scene in a visitor's many words, each with its one right answer.

`ask(scene, rng, intention)` gives a `Question` of one of the `INTENTIONS`, in one of the wordings of wordings.py, or
None where the scene allows no unambiguous question of that kind. `words.question` asks the same in the few fixed forms
that the zero-shot table is measured with.

Notes:

* An answer is short, as the paper's "Short answer:" asks: a word, a number, a list of the things in reading order.
* A question about a thing that is not there is answered by saying so.
* `UNKNOWN` stands for any word that the vocabulary lacks; what it names is not in the scene.

Paper: sections 3.4 and 4.1. Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from random import Random

from ..scene import Scene
from ..wordings import as_typed
from ..words import Question
from . import attributes, comparing, counting, knowledge, listing, positions, refusing, setting
from .base import Asked

#: Every kind of question, and how often the corpus asks it.
INTENTIONS: dict[str, tuple[Callable[[Scene, Random], Asked], float]] = {
    "color": (attributes.attribute_of("color", "color"), 6),
    "color choice": (attributes.color_choice, 1),
    "color check": (attributes.color_check, 3),
    "kind check": (attributes.kind_check, 2),
    "what": (attributes.attribute_of("kind", "what"), 4),
    "what by attribute": (attributes.what_by_attribute, 3),
    "what by position": (positions.what_by_position, 3),
    "superlative": (comparing.superlative, 2),
    "size": (attributes.attribute_of("size", "size"), 4),
    "size check": (attributes.size_check, 2),
    "position": (attributes.attribute_of("position", "position"), 6),
    "side": (positions.side, 2),
    "position check": (positions.position_check, 2),
    "count": (counting.count, 28),
    "count check": (counting.count_check, 4),
    "existence": (counting.existence, 10),
    "something": (counting.something, 2),
    "relation": (positions.relation, 6),
    "relation check": (comparing.relation_check, 2),
    "place": (setting.place, 3),
    "place check": (setting.place_check, 2),
    "place choice": (setting.place_choice, 1),
    "time": (setting.time, 2),
    "time check": (setting.time_check, 2),
    "category": (listing.category, 2),
    "some listed": (listing.some_listed, 8),
    "inventory": (listing.inventory, 12),
    "colors": (listing.colors, 1),
    "use": (knowledge.use, 2),
    "home": (knowledge.fact_of("home"), 2),
    "part": (knowledge.fact_of("part"), 2),
    "fact check": (knowledge.fact_check, 2),
    "all check": (comparing.all_check, 2),
    "nothing there": (refusing.nothing_there, 3),
}

#: The intentions that a T5 learns last: two sizes, lists, and every question that is answered by yes or no.
HARD = (
    "size",
    "inventory",
    "some listed",
    "colors",
    "count",
    "nothing there",
    *(name for name in INTENTIONS if name.endswith(" check")),
)

#: Kinds of questions that `T5Task` asks late: two things or two words are compared, or the answer is not in the scene.
CHOICES: dict[str, Callable[[Scene, Random], Asked]] = {
    "category choice": attributes.category_choice,
    "comparison": comparing.comparison,
    "wrong color": refusing.wrong_color,
    "not shown": refusing.not_shown,
    "superlative check": comparing.superlative_check,
    "two alike": comparing.two_alike,
    "group check": comparing.group_check,
    "nearest": positions.nearest,
    "other things": listing.other_things,
    "not alike": listing.not_alike,
    "two there": counting.two_there,
    "group": listing.group,
    "by fact": knowledge.by_fact,
    "for a purpose": listing.for_a_purpose,
    "count among": counting.count_among,
    "number choice": counting.number_choice,
    "more of": counting.more_of,
    "one not alike": counting.one_not_alike,
    "scenery": setting.scenery,
    "all of them": comparing.all_of_them,
    "between": positions.between,
    "which of them": positions.which_of_them,
    "number there": positions.number_there,
    "one there": positions.one_there,
    "something related": positions.something_related,
    "as many": counting.as_many,
    "relation choice": positions.relation_choice,
    "one related": positions.one_related,
    "in order": positions.in_order,
    "one of them": comparing.one_of_them,
    "any alike": comparing.any_alike,
    "alike to": comparing.alike_to,
    "group alike": comparing.group_alike,
}

#: What a T5 of this size learns last: how many times more often `T5Task` asks it than other kinds.
LEARNED_LAST: dict[int, tuple[str, ...]] = {
    10: ("nothing there",),
    6: ("group alike", "as many"),
    5: ("scenery", "relation check", "two alike", "comparison", "part", "nearest"),
    4: ("any alike", "alike to", "group check", "one not alike", "inventory", "between", "superlative", "what"),
    3: (
        "all check",
        "not alike",
        "not shown",
        "what by position",
        "other things",
        "by fact",
        "for a purpose",
        "count among",
        "more of",
        "which of them",
        "wrong color",
        "colors",
    ),
    2: ("relation choice", "one related", "in order", "one of them", "superlative check", "kind check", "color check"),
    1: ("side", "group", "some listed", "fact check", "something", "relation", "all of them", "two there"),
}


def ask(scene: Scene, rng: Random, intention: str) -> Question | None:
    """A question of this intention in one of its wordings, or None if the scene allows none."""
    made = CHOICES.get(intention) or INTENTIONS[intention][0]
    asked = made(scene, rng)
    return asked and Question(intention, as_typed(rng, asked[0]), asked[1])


def any_intention(rng: Random) -> str:
    """One of `INTENTIONS`, each as often as it says."""
    draw = rng.random() * sum(weight for _, weight in INTENTIONS.values())
    totals = accumulate(weight for _, weight in INTENTIONS.values())
    return next(name for name, total in zip(INTENTIONS, totals, strict=True) if draw < total)


def ask_anything(scene: Scene, rng: Random) -> Question:
    """A question of any intention, each as often as `INTENTIONS` says."""
    return ask(scene, rng, any_intention(rng)) or ask(scene, rng, "inventory")
