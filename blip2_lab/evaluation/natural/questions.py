"""What to ask about a scene, as a visitor would: six questions for each, of eighteen groups, with their truth.

Notes:

* Only what has exactly one right answer is asked: a phrase fits one thing alone, and what people could disagree about
  (is a tent a building? are the houses behind the street "houses"?) is left out.
* Yes and no are as likely, and every number from none to four is asked for.
* Uses, homes and parts are asked about things that are named by their looks alone, so that the picture is needed.

Paper: section 4.1. Notebook: 11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from blip2_lab.evaluation.natural import phrases
from blip2_lab.evaluation.natural.judge import About, NaturalQuestion, asked_for
from blip2_lab.evaluation.natural.reading import count
from blip2_lab.evaluation.natural.words import OUTSIDE, SKY
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES, SIZES, TIMES, Scene, Thing, pick, shuffled
from blip2_lab.picturebook.words import NUMBERS, holds, join, plural, with_article

PER_SCENE = 6  #: questions

#: What people may count among a category or not. No question is asked whose answer depends on it.
DEBATABLE = {
    "plant": ("apple", "carrot", "cherry"),
    "food": ("fish",),
    "building": ("tent",),
    "toy": ("drum",),
    "tool": ("key", "umbrella", "cup", "lamp"),
}
#: What the background of a place shows by itself: houses on the street, grass and blossoms in the meadow.
IN_BACKGROUND = {"street": ("house", "castle", "building"), "meadow": ("flower", "plant")}


@dataclass(frozen=True)
class Draft:
    """A question before it is typed: a wording, what fills its blanks, and what the judge needs."""

    wording: str
    blanks: dict[str, str]
    judge: str
    truth: str
    thing: Thing | None = None
    about: About | None = None
    asked: str = ""


def natural_questions(book: Sequence[Scene], seed: int) -> list[NaturalQuestion]:
    """About six questions for each scene, of as many groups, drawn anew for each scene from `seed`."""
    return drawn_questions(book, f"natural {seed}", GROUPS, _question)


def drawn_questions(
    book: Sequence[Scene],
    name: str,
    groups: dict[str, Callable[[Scene, Random], Draft | None]],
    question: Callable[[int, Scene, str, Draft, Random], NaturalQuestion],
) -> list:
    """`PER_SCENE` questions for each scene, of as many of the groups that the scene allows.

    name      of the set and its seed: what is drawn depends on it
    question  (number of the scene, scene, group, draft, rng) -> a question in words
    """
    asked = []
    for number, scene in enumerate(book):
        rng = Random(f"{name} {number}")
        drafts = ((group, ask(scene, rng)) for group, ask in shuffled(rng, list(groups.items())))
        possible = ((group, draft) for group, draft in drafts if draft is not None)
        for (group, draft), _ in zip(possible, range(PER_SCENE), strict=False):
            asked.append(question(number, scene, group, draft, rng))
    return asked


def _question(number: int, scene: Scene, group: str, draft: Draft, rng: Random) -> NaturalQuestion:
    blanks = {"pic": phrases.picture_noun(rng), "colour": pick(rng, ("color", "color", "colour"))}
    text = phrases.typed(draft.wording.format(**blanks | draft.blanks), rng)
    thing = None if draft.thing is None else scene.things.index(draft.thing)
    return NaturalQuestion(
        number, group, text, draft.judge, draft.truth, draft.wording, thing, draft.about, draft.asked
    )


# -------------------------------------------------------------------------------------------------------- what to ask


def _the(scene: Scene, thing: Thing, rng: Random, *without: str) -> str | None:
    phrase = phrases.describe(scene, thing, rng, frozenset(without))
    return None if phrase is None else f"the {phrase}"


def _about_one(
    scene: Scene, rng: Random, wordings: Sequence[str], judge: str, truth: Callable[[Thing], str], *without: str
) -> Draft | None:
    """A question about one thing, named by a phrase that gives away none of `without`."""
    for thing in shuffled(rng, scene.things):
        if the := _the(scene, thing, rng, *without):
            return Draft(pick(rng, wordings), {"the": the}, judge, truth(thing), thing)
    return None


def in_words(scene: Scene) -> str:
    """All things with their colors: "a red boat and two blue cars"."""
    pairs = [(thing.color, thing.kind) for thing in scene.things]
    parts = []
    for color, kind in dict.fromkeys(pairs):
        number = pairs.count((color, kind))
        one = with_article(f"{color} {kind}")
        parts.append(one if number == 1 else f"{NUMBERS[number]} {color} {plural(kind)}")
    return join(parts)


def _list(scene: Scene, rng: Random) -> Draft:
    return Draft(pick(rng, phrases.LIST), {}, "list", in_words(scene))


def debatable(about: About, scene: Scene) -> bool:
    """Could people disagree how many there are? A drawn cherry has two berries; a tent may be a building or not."""
    if about.noun in IN_BACKGROUND.get(scene.place, ()):
        return True
    doubtful = DEBATABLE.get(about.noun, ())
    return any(thing.kind in doubtful for thing in scene.things)


def _countable(scene: Scene, rng: Random) -> list[About]:
    """What can be counted here, with and without success."""
    kinds = {thing.kind for thing in scene.things}
    absent = [kind for kind in KINDS if kind not in kinds]
    colored = {(thing.kind, thing.color) for thing in scene.things}
    found = [About()] + [About(kind) for kind in (*sorted(kinds), pick(rng, absent), pick(rng, absent))]
    found += [About(color=color) for color in COLORS if color != "yellow"]  # the sun and the moon are yellowish
    found += [About(category) for category in CATEGORIES]
    found += [About(kind, color) for kind, color in sorted(colored)] + [
        About(kind, pick(rng, COLORS)) for kind in sorted(kinds)
    ]
    doubtful = ("cherry", "food") if "cherry" in kinds else ("food",)  # two berries; "how many food"
    return [about for about in found if about.noun not in doubtful and not debatable(about, scene)]


def _count(scene: Scene, rng: Random) -> Draft:
    """First the number is chosen, so that large ones are not rare; then what there are so many of."""
    by_number: dict[int, list[About]] = {}
    for about in _countable(scene, rng):
        by_number.setdefault(count(asked_for(about), scene), []).append(about)
    numbers = sorted(by_number)
    number = pick(rng, [n for n in numbers for _ in range(max(1, n))])
    about = pick(rng, by_number[number])
    several = phrases.noun(about.noun, rng)[1]
    if about.color:
        several = f"{phrases.color_adjective(about.color, rng)} {several}"
    everything = about == About()
    wordings = phrases.COUNT + phrases.COUNT_ALL if everything else phrases.COUNT
    return Draft(pick(rng, wordings), {"several": several}, "number", NUMBERS[number], about=about)


def _existence_with_color(scene: Scene, rng: Random) -> Draft | None:
    """A kind and a color. Half of the noes are of a kind that is there in another color."""
    there = sorted({(thing.kind, thing.color) for thing in scene.things})
    yes = rng.random() < 0.5
    kind, color = pick(rng, there)
    if not yes:
        kind = kind if rng.random() < 0.5 else pick(rng, KINDS)
        color = pick(rng, [c for c in COLORS if (kind, c) not in there])
    about = About(kind, color)
    if not yes and debatable(about, scene):
        return None
    one, several = phrases.noun(kind, rng)
    value = phrases.color_adjective(color, rng)
    blanks = {"a": with_article(f"{value} {one}"), "several": f"{value} {several}", "kind": one, "value": value}
    truth = "yes" if yes else "no"
    return Draft(pick(rng, phrases.EXISTENCE_WITH_COLOR), blanks, "existence", truth, about=about)


def _existence(scene: Scene, rng: Random) -> Draft | None:
    """Kinds, things outside this world, and sun and moon (asked for where nothing can stand in front of them)."""
    yes = rng.random() < 0.5
    truth = "yes" if yes else "no"
    if rng.random() < 0.15 and all(thing.row > 0 for thing in scene.things):
        sky = next(sky for sky, time in SKY.items() if (time == scene.time) == yes)
        return Draft(pick(rng, phrases.EXISTENCE_SKY), {"sky": sky}, "existence", truth, about=About(sky))
    kinds = [thing.kind for thing in scene.things]
    if yes:
        noun = pick(rng, kinds)
    elif rng.random() < 0.25:
        noun = pick(rng, OUTSIDE)
    else:
        noun = pick(rng, [kind for kind in KINDS if kind not in kinds])
    if not yes and debatable(About(noun), scene):
        return None
    one, several = phrases.noun(noun, rng)
    blanks = {"a": with_article(one), "several": several}
    return Draft(pick(rng, phrases.EXISTENCE), blanks, "existence", truth, about=About(noun))


def _color(scene: Scene, rng: Random) -> Draft | None:
    return _about_one(scene, rng, phrases.COLOR, "color", lambda thing: thing.color, "color")


def _what(scene: Scene, rng: Random) -> Draft | None:
    return _about_one(scene, rng, phrases.WHAT, "kind", lambda thing: thing.kind, "kind")


def _size(scene: Scene, rng: Random) -> Draft | None:
    return _about_one(scene, rng, phrases.SIZE, "size", lambda thing: thing.size, "size")


def _position(scene: Scene, rng: Random) -> Draft | None:
    """Where it is: openly, by the parts of the picture, or as a choice of two sides."""
    draft = _about_one(scene, rng, phrases.WHERE, "where", lambda thing: thing.position, "position")
    if draft is None or rng.random() < 0.3:
        return draft
    thing, chance = draft.thing, rng.random()
    if chance < 0.25 and thing.column != 1:
        side = "left" if thing.column == 0 else "right"
        return Draft(pick(rng, phrases.LEFT_OR_RIGHT), draft.blanks, "side", side, thing)
    if 0.25 <= chance < 0.5 and thing.row != 1:
        side = "top" if thing.row == 0 else "bottom"
        return Draft(pick(rng, phrases.TOP_OR_BOTTOM), draft.blanks, "side", side, thing)
    return Draft(pick(rng, phrases.POSITION), draft.blanks, "position", thing.position, thing)


OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}


def _relation(scene: Scene, rng: Random) -> Draft | None:
    """Two things: which is where, is it so, or which of the two. Nothing is asked about things in one row or column."""
    if len(scene.things) < 2:
        return None
    thing, other = shuffled(rng, scene.things)[:2]
    true = [relation for relation in OPPOSITE if holds(relation, thing, other)]
    if not true:
        return None
    relation, kind_of_question = pick(rng, true), rng.random()
    the_other = _the(scene, other, rng)
    if the_other is None:
        return None
    alone = [t for t in scene.things if t != other and holds(relation, t, other)] == [thing]
    rel = pick(rng, phrases.RELATION_PHRASES[relation])
    if kind_of_question < 0.4 and alone:
        blanks = {"the": the_other, "rel": rel, "thing": pick(rng, phrases.THING_NOUNS)}
        return Draft(pick(rng, phrases.RELATION_WHAT), blanks, "kind", thing.kind, thing)
    the = _the(scene, thing, rng, "position")
    the_other = _the(scene, other, rng, "position")
    if the is None or the_other is None:
        return None
    if kind_of_question < 0.65 and thing.kind != other.kind:
        pair = shuffled(rng, [the, the_other])
        blanks = {"the": pair[0], "other": pair[1], "more": phrases.MORE[relation]}
        return Draft(pick(rng, phrases.RELATION_WHICH), blanks, "kind", thing.kind, thing)
    yes = rng.random() < 0.5
    rel = pick(rng, phrases.RELATION_PHRASES[relation if yes else OPPOSITE[relation]])
    blanks = {"the": the, "other": the_other, "rel": rel}
    return Draft(pick(rng, phrases.RELATION_YES_NO), blanks, "yes or no", "yes" if yes else "no", thing)


def _place(scene: Scene, rng: Random) -> Draft:
    two = shuffled(rng, [scene.place, pick(rng, [place for place in PLACES if place != scene.place])])
    blanks = {"at_place": phrases.AT_PLACE[two[0]], "at_other": phrases.AT_PLACE[two[1]]}
    blanks |= {"in_place": phrases.IN_PLACE[two[0]], "in_other": phrases.IN_PLACE[two[1]]}
    return Draft(pick(rng, phrases.PLACE), blanks, "place", scene.place)


def _time(scene: Scene, rng: Random) -> Draft:
    return Draft(pick(rng, phrases.TIME), {}, "time", scene.time)


def _yes_or_no(scene: Scene, rng: Random) -> Draft | None:
    """Is it red, big, on the left; is it night, are we at the beach? Yes and no are as likely."""
    what, yes = pick(rng, ("color", "color", "size", "position", "place", "time")), rng.random() < 0.5
    truth = "yes" if yes else "no"
    if what == "time":
        time = pick(rng, [time for time in TIMES if (time == scene.time) == yes])
        return Draft(pick(rng, phrases.YES_NO_TIME[time]), {}, "yes or no", truth, asked=time)
    if what == "place":
        place = pick(rng, [place for place in PLACES if (place == scene.place) == yes])
        blanks = {"at_place": phrases.AT_PLACE[place], "in_place": phrases.IN_PLACE[place]}
        return Draft(pick(rng, phrases.YES_NO_PLACE), blanks, "yes or no", truth, asked=place)
    draft = _about_one(scene, rng, phrases.YES_NO_THING, "yes or no", lambda _: truth, what)
    if draft is None:
        return None
    thing = draft.thing
    if what == "color":
        asked = thing.color if yes else pick(rng, [color for color in COLORS if color != thing.color])
        value = phrases.color_adjective(asked, rng)
    elif what == "size":
        asked = thing.size if yes else next(size for size in SIZES if size != thing.size)
        value = phrases.size_adjective(asked, rng)
    elif thing.column == 1 or "look" in draft.wording:
        return None
    else:
        asked = {0: "left", 2: "right"}[thing.column if yes else 2 - thing.column]
        value = pick(rng, (f"on the {asked}", f"on the {asked} side"))
    return Draft(draft.wording, draft.blanks | {"value": value}, "yes or no", truth, thing, asked=asked)


def _category(scene: Scene, rng: Random) -> Draft | None:
    """Any of a category, which one, or which of two categories something belongs to."""
    chance = rng.random()
    if chance < 0.3:
        thing = pick(rng, scene.things)
        others = [c for c in CATEGORIES if c != thing.category and thing.kind not in DEBATABLE.get(c, ())]
        the = _the(scene, thing, rng, "kind")
        if the is None or thing.kind in DEBATABLE.get(thing.category, ()):
            return None
        two = [with_article(c) if c != "food" else c for c in shuffled(rng, [thing.category, pick(rng, others)])]
        blanks = {"the": the, "a_cat": two[0], "a_other": two[1]}
        return Draft(pick(rng, phrases.CATEGORY_OR), blanks, "category", thing.category, thing)
    yes = rng.random() < 0.5
    there = [category for category in CATEGORIES if count(asked_for(About(category)), scene)]
    category = pick(rng, [c for c in CATEGORIES if (c in there) == (yes or chance < 0.55)])
    if debatable(About(category), scene):
        return None
    blanks = dict(zip(("cat", "cats"), phrases.noun(category, rng), strict=True))
    if chance >= 0.55:
        truth = "yes" if yes else "no"
        return Draft(pick(rng, phrases.CATEGORY_ANY), blanks, "existence", truth, about=About(category))
    members = [thing for thing in scene.things if thing.category == category]
    if len(members) != 1:
        return None
    return Draft(pick(rng, phrases.CATEGORY_WHICH), blanks, "kind", members[0].kind, members[0])


def _use(scene: Scene, rng: Random) -> Draft | None:
    """The thing is named by its looks alone, so that the picture must say what it is."""
    draft = _about_one(scene, rng, phrases.USE_OF_TOOLS, "use", lambda thing: FACTS[thing.kind].use, "kind")
    if draft is None or not FACTS[draft.thing.kind].agent:
        return draft
    return Draft(pick(rng, phrases.USE_OF_AGENTS), draft.blanks, "use", draft.truth, draft.thing)


def _home(scene: Scene, rng: Random) -> Draft | None:
    return _about_one(scene, rng, phrases.HOME, "home", lambda thing: FACTS[thing.kind].home, "kind")


def _part(scene: Scene, rng: Random) -> Draft | None:
    return _about_one(scene, rng, phrases.PART, "part", lambda thing: FACTS[thing.kind].part, "kind")


def _what_is_this(scene: Scene, rng: Random) -> Draft | None:
    """Only where one thing is drawn."""
    if len(scene.things) > 1:
        return None
    blanks = {"thing": pick(rng, phrases.THING_NOUNS)}
    return Draft(pick(rng, phrases.WHAT_IS_THIS), blanks, "kind", scene.things[0].kind, scene.things[0])


def _not_there(scene: Scene, rng: Random) -> Draft | None:
    """A question about a thing that is not there: of an absent kind, of another color, or outside this world."""
    kinds, chance = [thing.kind for thing in scene.things], rng.random()
    if chance < 0.15:
        about = About(pick(rng, OUTSIDE))
    elif chance < 0.35:
        kind = pick(rng, kinds)
        worn = [thing.color for thing in scene.things if thing.kind == kind]
        about = About(kind, pick(rng, [color for color in COLORS if color not in worn]))
    else:
        about = About(pick(rng, [kind for kind in KINDS if kind not in kinds]))
    if debatable(about, scene):
        return None
    name = phrases.noun(about.noun, rng)[0]
    name = name if about.color is None else f"{phrases.color_adjective(about.color, rng)} {name}"
    asks_color = about.color is None and rng.random() < 0.5
    wordings = phrases.NOT_THERE_COLOR if asks_color else phrases.NOT_THERE_OTHER
    truth = f"there is no {about.noun}" if about.color is None else f"there is no {about.color} {about.noun}"
    return Draft(pick(rng, wordings), {"the": f"the {name}"}, "absence", truth, about=about)


GROUPS: dict[str, Callable[[Scene, Random], Draft | None]] = {
    "list": _list,
    "count": _count,
    "existence": _existence,
    "existence with color": _existence_with_color,
    "color": _color,
    "what": _what,
    "what is this": _what_is_this,
    "size": _size,
    "position": _position,
    "relation": _relation,
    "place": _place,
    "time": _time,
    "yes or no": _yes_or_no,
    "category": _category,
    "use": _use,
    "home": _home,
    "part": _part,
    "not there": _not_there,
}
