"""VQA accuracy by both official rules, and the file that a VQA server takes.

`vqa_accuracy` is where to begin: an answer, the ten annotators' answers, and the rule's name.

Notes:

* An answer is compared with each nine of the ten answers: 1 if three of them are equal to it, else a third for each.
  The accuracy is the mean over the ten ways to leave one out.
* "gt-vision-lab" is the rule of the official script since March 2021: answer and truths are both normalized in full,
  but only if the ten truths disagree. Ten times "yes" and the answer "Yes" score 0.
* "lavis" is the older rule, which LAVIS has: the answer is always normalized; the truths are never lower-cased, and
  lose their punctuation only if they disagree.
* Two slips of both scripts are kept, because scores contain them: `(?!<=d)` for digits d was meant to look behind and
  does nothing; a flag stands where the number of replacements belongs, so that only the first 32 full stops go.

Sources: https://github.com/GT-Vision-Lab/VQA, its evaluation tools; LAVIS, its VQA tools.
Paper: section 4.1, Tables 2 and 4. Notebook: none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2_lab.common.files import write_atomically

RULES = ("gt-vision-lab", "lavis")

_NUMBERS = dict(
    zip(
        "none zero one two three four five six seven eight nine ten".split(),
        "0 0 1 2 3 4 5 6 7 8 9 10".split(),
        strict=True,
    )
)
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_STOPS = 32  #: re.UNICODE, passed as the number of replacements

#: An answer that lacks one apostrophe of these gets it back.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _spellings() -> dict[str, str]:
    places = ((word, place) for word in _CONTRACTIONS for place, letter in enumerate(word) if letter == "'")
    found = {word[:place] + word[place + 1 :]: word for word, place in places}
    return found | {"somebody'd": "somebodyd"}  # the wrong way round in both scripts


_SPELLINGS = _spellings()


def vqa_accuracy(answer: str, truths: Sequence[str], rule: str = "gt-vision-lab") -> float:
    """The accuracy of one answer against its annotators' answers (VQA v2: ten), 0 to 1.

    Raises ValueError for an unknown rule, or fewer than two truths, of which none can be left out.
    """
    if rule not in RULES:
        raise ValueError(f"{rule!r} is no rule of VQA accuracy; choose one of {', '.join(RULES)}.")
    if isinstance(truths, str) or not all(isinstance(truth, str) for truth in truths):
        raise ValueError(
            f"The annotators' answers are a list of texts, and this is {truths!r:.60}: of VQA v2's entries take "
            "[each['answer'] for each in answers]."
        )
    if len(truths) < 2:
        raise ValueError(
            f"VQA accuracy leaves one of several answers out, and there are {len(truths)}: compare exactly."
        )
    answer, truths = _one_line(answer), list(truths)
    if rule == "gt-vision-lab":
        truths = [_one_line(truth) for truth in truths]
    disagree = len(set(truths)) > 1
    if rule == "lavis":
        answer = normalize(answer)
        truths = [without_punctuation(truth) for truth in truths] if disagree else truths
    elif disagree:
        answer, truths = normalize(answer), [normalize(truth) for truth in truths]
    equal = [truth == answer for truth in truths]
    shares = [min(1.0, (sum(equal) - own) / 3) for own in equal]
    return sum(shares) / len(shares)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalize(text: str) -> str:
    """Punctuation left out, lower case, numbers up to ten as digits, no articles, apostrophes put back."""
    words = (_NUMBERS.get(word, word) for word in without_punctuation(text).lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(text: str) -> str:
    """Leave out punctuation next to a space, all of it where a comma is between digits; otherwise a space is put in its
    place. Then full stops go, unless a digit follows."""
    result = text
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        result = result.replace(sign, "" if beside_space or _DIGITS_WITH_COMMA.search(text) else " ")
    return _STOP.sub("", result, count=_STOPS)


def write_results(folder: Path, answers: Mapping[int, str], split: str, name: str) -> Path:
    """Write question number -> answer as the server takes them, lower-cased; returns the file.

    A list of {"question_id": int, "answer": str} in v2_OpenEnded_mscoco_SPLIT_NAME_results.json. The server wants every
    question of the split. Lower case, because the present rule does not lower-case where all annotators agree.
    """
    if "_" in name or "/" in name:
        raise ValueError(f"{name!r} has a '_' or '/', which separate the parts of the file's name: leave it out.")
    path = folder / f"v2_OpenEnded_mscoco_{split}_{name}_results.json"
    entries = [{"question_id": int(number), "answer": answer.lower()} for number, answer in answers.items()]
    write_atomically(path, json.dumps(entries, ensure_ascii=False) + "\n")
    return path
