"""The wordings of the harder questions are their own, and what is known about the kinds agrees with the facts."""

from blip2_lab.evaluation.natural import harder_phrases, phrases
from blip2_lab.evaluation.natural.harder_phrases import ABLE, FOR_THINGS, NEGATION, OTHER, PARTS, PURPOSES, USED
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import KINDS


def wordings(module) -> list[str]:
    """Every string of a module's tuples of strings, with "what's" written out."""
    found = []
    for value in vars(module).values():
        values = [value] if isinstance(value, tuple) else list(value.values()) if isinstance(value, dict) else []
        found += [one for many in values if isinstance(many, tuple) for one in many if isinstance(one, str)]
    return [one.replace("'s ", " is ") for one in found if " " in one.strip()]


def test_no_wording_stands_twice_or_among_the_natural_ones():
    own = wordings(harder_phrases)
    assert len(own) > 250
    assert len(set(own)) == len(own), sorted(one for one in set(own) if own.count(one) > 1)
    assert not set(own) & set(wordings(phrases))


def test_where_nothing_may_be_left_the_question_asks_for_things():
    for wording in (*OTHER[:FOR_THINGS], *NEGATION[:FOR_THINGS]):
        assert "{thing" in wording, wording


def test_what_a_kind_is_sure_to_do_is_not_in_doubt():
    for facts in (ABLE, USED, PARTS, PURPOSES):
        for fact, (sure, doubtful) in facts.items():
            assert sure and not set(sure) & set(doubtful) and {*sure, *doubtful} <= set(KINDS), fact


def test_facts_that_the_texts_state_are_said_of_the_same_kind():
    by_use = {fact.use: kind for kind, fact in FACTS.items()}
    told = {use: sure for use, (sure, _) in (ABLE | USED).items() if use in by_use}
    assert len(told) > 15 and all(sure == (by_use[use],) for use, sure in told.items())
    by_part = {fact.part: kind for kind, fact in FACTS.items()}
    parts = {part.split()[-1]: sure for part, (sure, _) in PARTS.items()}
    both = {part: by_part[name] for part in parts for name in (part, part.removesuffix("s")) if name in by_part}
    assert len(both) > 10 and all(kind in parts[part] for part, kind in both.items())
