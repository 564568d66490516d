"""The samples of a WebDataset shard: which of its files belong together, and what their texts are.

`samples_of` groups the files of a shard, `record_of` makes a record of one sample. shards.py and streams.py read with
them.

Notes:

* Consecutive files with the same stem are one sample (`0007.jpg`, `0007.txt`, `0007.json`).
* Shards of other tools may have any `json`. What of it is of another form is not used, and named (`Record.unread`).

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from blip2_lab.common.characters import printable
from blip2_lab.common.images import SUFFIXES, BrokenSample
from blip2_lab.data.examples import AskedQuestion, Box, Record
from blip2_lab.data.text_files import captions_in, decode_text, is_number, listed, parse_json, texts_in, turns_in

IMAGE_ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)
TEXT_ENDINGS = ("txt", "text", "caption")
READ_ENDINGS = frozenset((*IMAGE_ENDINGS, *TEXT_ENDINGS, "json"))


# ---------------------------------------------------------------------------------------------------- files of a sample


def _split_name(name: str) -> tuple[str, str]:
    """`folder/0007.seg.png` -> (`folder/0007`, `seg.png`): webdataset's rule, up to the first dot of the file name."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", ending.lower()


def samples_of(
    members: Iterable[tuple[str, Any]], leave_out: Callable[[str, str, str], None]
) -> Iterator[tuple[str, dict]]:
    """(name, content) of a shard's files -> (key, ending -> content) of each sample: consecutive files of one stem.

    A key that occurs again is told apart by `#2`. `leave_out` is called for a file that a sample has twice.
    """
    seen: dict[str, int] = {}

    def unique(key: str, files: dict) -> Iterator[tuple[str, dict]]:
        for one, own in _split_dotted(key, files):
            seen[one] = seen.get(one, 0) + 1
            yield (one if seen[one] == 1 else f"{one}#{seen[one]}"), own

    current, files = "", {}
    for name, content in members:
        key, ending = _split_name(name)
        if not key:  # a hidden file, such as macOS's ._0001.jpg
            continue
        if key != current:
            if files:
                yield from unique(current, files)
            current, files = key, {}
        if ending in files:
            leave_out(name, "file twice in a sample", f"{name!r} is in the shard twice in a row; the first one is used")
            continue
        files[ending] = content
    if files:
        yield from unique(current, files)


def _split_dotted(key: str, files: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Samples whose names have a dot of their own (`22.05.jpg`, `22.05.txt`, `22.06.jpg`, …): by the last dot, if every
    part then has an image and a text; else one sample, by webdataset's rule."""
    if any(ending in files for ending in IMAGE_ENDINGS):
        return [(key, files)]
    parts: dict[str, dict[str, Any]] = {}
    for ending, content in files.items():
        before, _, last = ending.rpartition(".")
        parts.setdefault(before, {})[last] = content
    whole = all(
        before and any(e in own for e in IMAGE_ENDINGS) and any(e in own for e in (*TEXT_ENDINGS, "json"))
        for before, own in parts.items()
    )
    return [(f"{key}.{before}", own) for before, own in parts.items()] if whole else [(key, files)]


# ---------------------------------------------------------------------------------------------------- texts of a sample


def record_of(key: str, files: dict[str, bytes], shard: str = "") -> Record:
    """The files of one sample, by ending -> a record. Raises BrokenSample when there is no image or no text.

    `json` may have captions, questions, boxes, id and domain as `pack` writes them, or one caption; without captions
    there, `txt` is the caption (img2dataset's layout). `shard` is put before the key of a sample without an id of ours:
    two shards may both begin at key 0.
    """
    pictures = [ending for ending in IMAGE_ENDINGS if ending in files]
    name = printable(f"{shard}/{key}" if shard else key)
    if not pictures:
        listed = ", ".join(sorted(files)[:8]) or "none"
        message = (
            f"sample {name!r} has no picture ({', '.join(IMAGE_ENDINGS[:3])}, …): the endings of its files are {listed}"
        )
        raise BrokenSample("sample without a picture", message)
    unread = [f"{ending} is not used, because there is a {pictures[0]}" for ending in pictures[1:]]
    about = _json_of(files, unread)
    captions = _captions_of(files, about, unread)
    questions, boxes = _questions_of(about, unread), _boxes_in(about.get("boxes"), unread)
    if not captions and not questions:
        cause = "unreadable text" if unread[len(pictures) - 1 :] else "empty caption"
        keys = f" (the keys of its json are {', '.join(map(repr, list(about)[:8]))})" if about else ""
        why = "; ".join(unread) or f"put a txt or a json with one directly behind its picture{keys}"
        raise BrokenSample(cause, printable(f"sample {name!r} has no caption: {why}"))
    packed_here = isinstance(about.get("id"), str) and isinstance(about.get("domain"), str)
    return Record(
        files[pictures[0]],
        tuple(captions),
        questions,
        boxes,
        printable(about["id"]) if packed_here else name,
        printable(about["domain"]) if packed_here else "",
        tuple(printable(f"sample {name!r}: {one}") for one in unread),
    )


def _json_of(files: dict[str, bytes], unread: list[str]) -> dict:
    if not files.get("json", b"").strip():
        return {}
    try:
        about = parse_json(decode_text(files["json"], "its json"), "its json")
    except ValueError as error:
        unread.append(str(error))
        return {}
    if not isinstance(about, dict):
        unread.append('its json is no object, such as {"caption": "a boat"}')
        return {}
    return about


def _captions_of(files: dict[str, bytes], about: dict, unread: list[str]) -> list[str]:
    """The captions of the first place that has any: `captions` of the json, a text, `caption` or `text` of the json
    (LAION: `TEXT`). What another place has is named, unless it says the same."""
    keys = {wanted: [key for key in about if key.casefold() == wanted] for wanted in ("captions", "caption", "text")}
    places: list[tuple[str, Any]] = [(key, about[key]) for key in keys["captions"]]
    for ending in TEXT_ENDINGS:
        try:
            places.append((ending, decode_text(files[ending], f"its {ending}") if ending in files else None))
        except ValueError as error:
            unread.append(str(error))
    places += [(key, about[key]) for key in (*keys["caption"], *keys["text"])]
    captions: list[str] = []
    for place, value in places:
        found, problems = captions_in(value)
        unread += [f"a caption {problem}" for problem in problems if found or problem != "is empty"]
        if not captions:
            captions = found
        elif other := [one for one in found if one not in captions]:
            unread.append(f"its {place} is not used, because there is another caption: {other[0][:60]!r}")
    return captions


def _questions_of(about: dict, unread: list[str]) -> tuple[AskedQuestion, ...]:
    """The questions of a json: `questions`, or one `question` with its `answer`, or LLaVA's `conversations`."""
    questions = _questions_in(about.get("questions"), unread)
    if about.get("question") is not None:
        questions += _questions_in({key: about.get(key) for key in ("question", "answer", "answers")}, unread)
    if "conversations" in about:
        pairs, problems = turns_in(about["conversations"])
        unread += [f"its conversation {problem}" for problem in problems]
        questions += tuple(AskedQuestion(question, (answer,)) for question, answer in pairs)
    return questions


def _questions_in(value: Any, unread: list[str]) -> tuple[AskedQuestion, ...]:
    """Questions as `pack` writes them, with `question` and `answer`, or as texts without answers."""
    found = []
    for one in listed(value):
        asked = {"text": one} if isinstance(one, str) else one if isinstance(one, dict) else {}
        text, given = asked.get("text", asked.get("question")), asked.get("answers") or asked.get("answer")
        answers = [str(one) if is_number(one) else one for one in listed(given)]
        good, bad = texts_in(answers) if answers else ([], [])
        if not isinstance(text, str) or texts_in(text)[1] or bad:
            unread.append(f"a question has another form: {json.dumps(one)[:60]}")
            continue
        kind, number = (asked.get(name, "") for name in ("type", "id"))
        found.append(AskedQuestion(text, tuple(good), kind if isinstance(kind, str) else "", str(number)))
    return tuple(found)


def _boxes_in(value: Any, unread: list[str]) -> tuple[Box, ...]:
    """Boxes as `pack` writes them: a phrase, and four fractions."""
    found = []
    for one in listed(value):
        phrase, place = one if isinstance(one, list) and len(one) == 2 else (None, None)
        numbers = place if isinstance(place, list) and len(place) == 4 else [None]
        fractions = all(is_number(number) and 0 <= number <= 1 for number in numbers)
        if isinstance(phrase, str) and fractions and numbers[0] <= numbers[2] and numbers[1] <= numbers[3]:
            found.append((phrase, tuple(numbers)))
        else:
            unread.append(f"a box has another form: {json.dumps(one)[:60]}")
    return tuple(found)
