"""Questions that the miniature was not taught, and the question that is asked instead because its answer answers them.

`asked_instead` is where to begin. The visitor is told what was asked (`vocabulary.Reading.note`).

Notes:

* The T5 has learned "are there three cats?" and "how many cats are there?", and no other comparison of numbers: of "are
  there at least three cats?" it says no, whatever there is.
* Of a place that no picture shows, and of what does not belong, it says anything; what is there it tells.
* Only the question is put otherwise. The answer is the model's: "two", not "no".

Paper: none. Notebook: 12.
"""

from __future__ import annotations

import re

from blip2_lab.picturebook.words import NUMBERS

NUMBER = "|".join((*NUMBERS[1:], "five", "six", "seven", "eight", "nine", "ten", r"\d+"))
THINGS = r"(?P<things>\w+(?: \w+){0,2}?)"
THERE = r"(?:(?:is|are) there |(?:do|can|could) (?:you|i|we) (?:see|count|find|spot) )?"
HERE = r"(?:,? (?:in all|in total|altogether|here|there|visible|shown|(?:in|on) (?:the|this) \w+))?"
#: What is in no caption, and no place of this world.
OTHER_PLACES = (
    "desert forest jungle wood woods farm park garden village town city downtown countryside lake river pond ocean "
    "island harbor airport zoo kitchen valley cave".split()
)
#: What is asked -> the question that holds its answer; the first that fits is taken.
INSTEAD: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b{pattern}{HERE}\W*$", re.IGNORECASE), question)
    for pattern, question in (
        # "are there at least three cats?"; "at least one", "at least two" and "more than one" are taught
        (
            rf"{THERE}(?:at least (?!(?:one|two|1|2)\b)|more than (?!(?:one|1)\b)|"
            rf"(?:at most|less than|fewer than|not? (?:more|less|fewer) than) )(?:{NUMBER}) {THINGS}",
            "how many {things} are there?",
        ),
        # "are there three or more cats?"; "two or more" is taught
        (
            rf"{THERE}(?:(?:{NUMBER}) or (?:less|fewer)|(?!(?:two|2)\b)(?:{NUMBER}) or more) {THINGS}",
            "how many {things} are there?",
        ),
        # "if I take away the red cat, how many are left?"
        (
            r"(?:if|when|after|suppose) (?:you|i|we) (?:take away|took away|removed?|leave out|hide|cover|ignore) "
            r"(?P<one>[\w ]+?),? (?:then )?how many(?: things)? (?:remain|stay|are left|are there|would be left)",
            "how many things are there other than {one}?",
        ),
        # "how many kinds of animals do you see?"
        (
            r"how many (?:different )?(?:kinds|sorts|types) of (?:things|objects|items)(?: (?:are|do|can)\b[\w ]*)?",
            "what is in the picture?",
        ),
        (
            rf"how many (?:different )?(?:kinds|sorts|types) of {THINGS}(?: (?:are|do|can)\b[\w ]*)?",
            "which {things} are there?",
        ),
        # "which is the odd one out?"
        (r"(?:what|which)(?: \w+)? is the odd (?:one|thing)(?: out)?", "what is in the picture?"),
        (r"(?:what|which)(?: \w+)? (?:does ?n[o'’]?t|does not) (?:belong|fit)(?: in)?", "what is in the picture?"),
        # "which color is not in the picture?"
        (r"(?:what|which) colou?rs? (?:is|are|do you) (?:not|missing)(?: see)?", "what colors are there?"),
        # "is there any fruit?"
        (
            r"(?:(?:is|are) there|(?:do|can) you see|what|which)(?: (?:any|some|a|kind of))? fruits?"
            r"(?: (?:is|are|do|can)\b[\w ]*)?",
            "which food is there?",
        ),
        # "is this in a town or in a forest?"
        (
            rf"(?:are we|is (?:it|this|that|the (?:place|picture))|was (?:it|this)|am i)"
            r"(?: (?:in|at|on|near|by|inside|like|a (?:photo|picture|drawing) of))? (?:an?|the) "
            rf"(?:\w+ or (?:(?:in|at|on) )?(?:an? |the )?)?(?:{'|'.join(OTHER_PLACES)})",
            "what place is this?",
        ),
    )
)


def asked_instead(text: str) -> tuple[str, str] | None:
    """What is asked, as it stands in the text, and the question that holds its answer; None for any other text."""
    for pattern, question in INSTEAD:
        if found := pattern.search(text):
            return found[0].rstrip("?!. "), question.format(**found.groupdict())
    return None
