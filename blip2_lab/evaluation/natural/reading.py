"""Reads an answer about a drawn scene: which things, numbers, colors, sizes, positions, places and times it states.

Notes:

* The reader knows English word order, not the templates of the corpus: "the boat is red", "a red one" and "red, at the
  top left" are read as well as "a red boat".
* It keeps what is denied apart from what is stated: "no, it is not red, it is blue".
* It lists the words that it could not read (`Statement.unknown`), so that a judge can refuse to guess.

Used by judge.py. Notebook: 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from blip2_lab.evaluation.natural.words import (
    COLOR_WORDS,
    CONTRACTIONS,
    COPULAS,
    DETERMINERS,
    NO,
    NOTHING,
    NOUN_WORDS,
    NUMBER_WORDS,
    PICTURES,
    PLACE_WORDS,
    POSITION_WORDS,
    RELATION_WORDS,
    SEEING,
    SEVERAL,
    SIZE_WORDS,
    SKIPPED,
    SKY,
    TIME_WORDS,
    YES,
)
from blip2_lab.picturebook.scene import Scene, Thing


@dataclass
class Mention:
    """A noun phrase. `number`: None if it was not said; `weak`: "a boat", which is also true of two boats."""

    noun: str
    number: int | None = None
    weak: bool = False
    several: bool = False
    definite: bool = False
    colors: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    position: set[str] = field(default_factory=set)
    relation: tuple[str, Mention] | None = None

    @property
    def denied(self) -> bool:
        return self.number == 0


@dataclass
class Claims:
    """Attributes that were named without a noun: "it is red, at the top"."""

    colors: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    position: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    times: set[str] = field(default_factory=set)


@dataclass
class Statement:
    """All that an answer says. `references` are nouns behind "to the left of" and the like."""

    mentions: list[Mention] = field(default_factory=list)
    references: list[Mention] = field(default_factory=list)
    relations: list[tuple[str, Mention]] = field(default_factory=list)  #: of "it", when nothing else was named
    stated: Claims = field(default_factory=Claims)
    denied: Claims = field(default_factory=Claims)
    numbers: list[int] = field(default_factory=list)
    says: set[str] = field(default_factory=set)  #: "yes", "no"
    unknown: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


def tokenize(answer: str) -> list[str]:
    """Lower-case words and numbers, and "." for every mark that ends a clause, "," for a comma."""
    text = answer.lower().replace("’", "'")
    for pattern, words in CONTRACTIONS:
        text = re.sub(pattern, words, text)
    return [re.sub(r"[.;:!?\n]", ".", token) for token in re.findall(r"[a-z]+|\d+|[.,;:!?\n]", text)]


def read(answer: str, synonyms: dict[str, str] | None = None) -> Statement:
    """What an answer states. `synonyms`: more words, each with one that the reader knows."""
    synonyms = synonyms or {}
    return _Reader([synonyms.get(token, token) for token in tokenize(answer)]).statement


class _Reader:
    """Walks over the tokens once. `pending` is the noun phrase whose noun has not come yet."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.statement = tokens, Statement(tokens=tokens)
        self.pending: Mention | None = None
        self.headless: list[Mention] = []  # "a red and a blue" before "boat"
        self.last: Mention | None = None  # the noun phrase of this clause that attributes may still join
        self.ahead: set[str] = set()  # "on the left" in front of "is a boat"
        self.relation: str | None = None
        self.copula = self.negated = False
        self.i = 0
        while self.i < len(tokens):
            self._step(tokens[self.i])
            self.i += 1
        self._end_clause()
        self._merge_repeated()

    def _next(self, steps: int = 1) -> str:
        return self.tokens[self.i + steps] if self.i + steps < len(self.tokens) else "."

    def _step(self, token: str) -> None:
        following = self._next()
        if token in ".,":
            noun_to_come = self.pending and (self.pending.weak or not self.copula)
            goes_on = token == "," and noun_to_come and _describes(following)
            if not goes_on:
                self._end_clause()
        elif token == "but":
            self._end_clause()
        elif token in YES:
            self.statement.says.add("yes")
        elif token in NO:
            self.statement.says.add("no")
        elif token == "no":
            if _describes(following):
                self._open(number=0)
            else:
                self.statement.says.add("no")
                self._end_clause()
        elif token in ("not", "without"):
            self._deny(following)
        elif token in NOTHING:
            self._open(number=0)
        elif token in COPULAS:
            self._copula(following)
        elif token == "there":
            self._settle()
            self.last = None
        elif token in ("do", "can") and self._before() == "i" and following in ".,":
            self.statement.says.add("yes")
        elif token in PICTURES:
            self._forget_article()
        elif self._is_relation(token, following):
            pass
        elif token in POSITION_WORDS:
            self._position(POSITION_WORDS[token])
        elif token in ("one", "ones") and self._stands_for_a_noun():
            self._close(self._noun_before(), token == "ones")
        elif token in NUMBER_WORDS:
            self._open(number=NUMBER_WORDS[token])
        elif token in SEVERAL:
            self._open(several=True)
        elif token in DETERMINERS:
            if following not in COPULAS:  # "that is a boat"
                one = token in ("a", "an", "another")
                self._open(number=1 if one else None, weak=one, definite=not one)
        elif token in COLOR_WORDS:
            self._attribute("colors", COLOR_WORDS[token])
        elif token in SIZE_WORDS:
            self._attribute("sizes", SIZE_WORDS[token])
        elif token in NOUN_WORDS:
            self._close(*NOUN_WORDS[token])
        elif token in PLACE_WORDS:
            self._setting("places", PLACE_WORDS[token])
        elif token in TIME_WORDS:
            self._setting("times", TIME_WORDS[token])
        elif token in ("and", "or"):
            self._and()
        elif token not in SKIPPED | SEEING and token not in ("am", "dark", "light"):
            self.statement.unknown.append(token)

    # ---- noun phrases

    def _open(self, number: int | None = None, weak: bool = False, several: bool = False, definite: bool = False):
        """A determiner or a number: a noun phrase begins, or goes on ("the two boats")."""
        if self.pending and not _attributes(self.pending) and self.pending.number is None:
            self.pending.number, self.pending.weak = number, weak
            self.pending.several |= several
            return
        predicate = self.copula and self.pending is None
        self._settle()
        self.copula = predicate
        self.pending = Mention("", number, weak, several, definite)

    def _attribute(self, name: str, value: str) -> None:
        if self.negated:
            getattr(self.statement.denied, name).add(value)
            return
        if self.pending is None:
            self.pending = Mention("")
        getattr(self.pending, name).add(value)

    def _close(self, noun: str, several: bool) -> None:
        """A noun: the phrase is whole, and every "a red and …" in front of it gets the same noun."""
        mention = self.pending or Mention("", 0 if self.negated else None)
        self.pending = None
        for earlier in self.headless:
            earlier.noun, earlier.several = noun, several and earlier.number is None
            self._add(earlier)
        self.headless = []
        mention.noun = noun
        mention.several |= several and mention.number is None
        if not mention.position and self.ahead and self.relation is None:
            mention.position, self.ahead = self.ahead, set()
        if self.relation is not None:
            subject, relation = self.last, self.relation
            self.relation = None
            if subject is None:
                self.statement.relations.append((relation, mention))
            else:
                subject.relation = (relation, mention)
            self.statement.references.append(mention)
            return
        if self.copula and self.last is not None and not mention.denied and not self.last.denied:
            self._join(self.last, mention)  # "the thing at the top is a boat"
            self.copula = False
            return
        self._add(mention)

    def _add(self, mention: Mention) -> None:
        self.statement.mentions.append(mention)
        self.last, self.copula = mention, False

    def _merge_repeated(self) -> None:
        """ "A boat and a car. The boat is red": the second "boat" is the first, unless they differ."""
        kept: list[Mention] = []
        for mention in self.statement.mentions:
            same = [earlier for earlier in kept if earlier.noun == mention.noun and not earlier.denied]
            if mention.definite and mention.number is None and len(same) == 1 and not _differ(same[0], mention):
                self._join(same[0], mention)
                same[0].relation = same[0].relation or mention.relation
            else:
                kept.append(mention)
        self.statement.mentions = kept

    def _join(self, mention: Mention, more: Mention) -> None:
        """Give a noun phrase what was said of it later."""
        if mention.noun in ("thing", "") and more.noun:
            mention.noun = more.noun
        elif more.noun not in ("", "thing", mention.noun):
            mention.noun = f"{mention.noun} and {more.noun}"  # "the boat is a car" fits nothing
        mention.colors |= more.colors
        mention.sizes |= more.sizes
        mention.position |= more.position
        if mention.number is None and more.number is not None and not more.weak:
            mention.number = more.number

    def _stands_for_a_noun(self) -> bool:
        """ "a red one", "another one", "the one at the top"; but "one red boat" and "there is one" are numbers."""
        return self.pending is not None and (
            bool(_attributes(self.pending)) or self.pending.definite or self._before() in ("another", "a")
        )

    def _noun_before(self) -> str:
        return self.statement.mentions[-1].noun if self.statement.mentions else "thing"

    def _before(self) -> str:
        return self.tokens[self.i - 1] if self.i else "."

    # ---- attributes behind the noun, settings, positions

    def _settle(self) -> None:
        """A pending phrase will get no noun: its attributes belong to the last noun, or stand alone."""
        pending, self.pending = self.pending, None
        if pending is not None:
            if _attributes(pending) and self.copula and self.last is not None:
                self._join(self.last, pending)
            elif _attributes(pending) and not self.copula and (pending.number is not None or pending.definite):
                self.headless.append(pending)
            else:
                self._stand_alone(pending)
        self.copula = False

    def _stand_alone(self, mention: Mention) -> None:
        stated = self.statement.stated
        stated.colors |= mention.colors
        stated.sizes |= mention.sizes
        stated.position |= mention.position
        if mention.number is not None and not mention.weak:
            self.statement.numbers.append(mention.number)

    def _end_clause(self) -> None:
        self._settle()
        for mention in self.headless:
            self._stand_alone(mention)
        self.statement.stated.position |= self.ahead
        self.headless, self.last, self.ahead, self.relation = [], None, set(), None
        self.copula = self.negated = False

    def _and(self) -> None:
        if self.pending and _attributes(self.pending) and not self.copula and self._next() not in NOUN_WORDS:
            self.headless.append(self.pending)
            self.pending = None

    def _forget_article(self) -> None:
        if self.pending and not _attributes(self.pending):
            self.pending = None

    def _setting(self, name: str, value: str) -> None:
        getattr(self.statement.denied if self.negated else self.statement.stated, name).add(value)
        if self.pending and _attributes(self.pending):
            self._settle()
        self.pending = None

    def _position(self, value: str) -> None:
        if self.negated:
            self.statement.denied.position.add(value)
        elif self.pending and (_attributes(self.pending) or self._noun_follows()):
            if self.copula and self.last is None:
                self.statement.stated.position.add(value)
            else:
                self.pending.position.add(value)
        else:
            self._forget_article()
            if self.last is not None:
                self.last.position.add(value)
            else:
                self.ahead.add(value)

    def _noun_follows(self) -> bool:
        """ "the top left boat": position words, then perhaps attributes, then a noun."""
        for token in self.tokens[self.i + 1 :]:
            if token in NOUN_WORDS:
                return True
            if token not in POSITION_WORDS | COLOR_WORDS | SIZE_WORDS:
                return False
        return False

    def _is_relation(self, token: str, following: str) -> bool:
        """Read "left of the car", "above the car", "next to …"; not "left of the picture"."""
        if token in ("left", "right") and following == "of" and not (set(self._after_of()) & PICTURES):
            self.relation = f"to the {token} of"
        elif token in RELATION_WORDS and following not in ".,":
            self.relation = RELATION_WORDS[token]
        elif token == "next" and following == "to":
            self.relation = "near"
        else:
            return False
        if self.pending and _attributes(self.pending):
            self._settle()
        self.pending = None
        return True

    def _after_of(self) -> list[str]:
        return self.tokens[self.i + 2 : self.i + 4]

    # ---- yes, no, not

    def _copula(self, following: str) -> None:
        before = self._before()
        if following in ".," and before in ("there", "it", "they", "he", "she"):
            self.statement.says.add("yes")
        self._settle_position_subject()
        self.copula = before != "there"

    def _settle_position_subject(self) -> None:
        if self.pending and not _attributes(self.pending):
            if self.pending.number is not None and not self.pending.weak:
                self.statement.numbers.append(self.pending.number)  # "two are red"
            self.pending = None

    def _deny(self, following: str) -> None:
        """ "it is not", "not one", "not red"; and "not a boat", "I do not see any boats", "without a boat"."""
        if following in ".," or following in ("there", "here", "in"):
            self.statement.says.add("no")
        elif following == "one":
            self.statement.numbers.append(0)
            self.i += 1
        elif following in SEEING | DETERMINERS | SEVERAL or self.tokens[self.i] == "without":
            while self._next() in SEEING | DETERMINERS | SEVERAL:
                self.i += 1
            self._settle()
            self.pending = Mention("", 0)
        else:
            self.negated = True


def _differ(one: Mention, other: Mention) -> bool:
    """Does each name another value of the same attribute?"""
    pairs = ((one.colors, other.colors), (one.sizes, other.sizes), (one.position, other.position))
    return any(a and b and a != b for a, b in pairs)


def _attributes(mention: Mention) -> set[str]:
    return mention.colors | mention.sizes | mention.position


def _describes(token: str) -> bool:
    """Can the token follow "no" in "no small red boats"?"""
    return token in NOUN_WORDS or token in COLOR_WORDS or token in SIZE_WORDS or token == "such"


# --------------------------------------------------------------------------------------------------- what is true of it


def cell(thing: Thing) -> set[str]:
    """ "top left" -> {"T", "L"}; "left" -> {"L"}; "middle" -> {"M"}."""
    return {POSITION_WORDS[word] for word in thing.position.split()}


def position_holds(position: set[str], thing: Thing) -> bool:
    """Is every word of a position true of the thing? "left" is true of the whole left column, "middle" of one cell."""
    here = {"TMB"[thing.row], "LMR"[thing.column]}
    return position <= here and (position != {"M"} or here == {"M"})


def fits(mention: Mention, thing: Thing) -> bool:
    """Is what the phrase says true of the thing (its relation to others apart)?"""
    return (
        mention.noun in ("thing", "", thing.kind, thing.category)
        and mention.colors <= {thing.color}
        and mention.sizes <= {thing.size}
        and position_holds(mention.position, thing)
    )


def count(mention: Mention, scene: Scene) -> int:
    """How many things of the scene the phrase fits."""
    if mention.noun in SKY:
        return int(SKY[mention.noun] == scene.time)
    if mention.noun in ("star", "cloud"):
        return 2 if scene.time == {"star": "night", "cloud": "day"}[mention.noun] else 0
    return sum(fits(mention, thing) for thing in scene.things)
