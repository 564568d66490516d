"""What cannot be used of the sources, by name and cause: while training (`SkipLog`) and before it (`check_sources`).

Notes:

* A broken sample is counted by cause and written to `skipped.jsonl`, where the rows are, too, that were left out when
  the source was opened. It is replaced by the next good example of the same batch, with that example's id, so the batch
  keeps its size and does not depend on earlier batches. Above a limit of broken samples the run stops with a message.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import TextIO

from PIL import Image

from blip2_lab.common.characters import has_no_word
from blip2_lab.common.console import count_of
from blip2_lab.common.distributed import rank_and_world
from blip2_lab.common.images import BrokenSample, frame_count
from blip2_lab.data.examples import UNLISTED, LeftOut, Record, count_causes, left_out_report, list_causes
from blip2_lab.data.mixture import Mixture, Source, Stream, is_stream
from blip2_lab.data.odd_texts import ODD, Odd
from blip2_lab.data.shards import ShardFolder
from blip2_lab.data.text_files import lines_of, unseen

MIN_SEEN = 1000  #: examples of a stream (of unknown length) before the share of broken ones is compared to the limit

# ------------------------------------------------------------------------------------------------------------ training


class SkipLog:
    """Counts skipped examples by cause. `limit`: the largest share of all examples; above it `add` raises ValueError.

    `mixture` gives the number of examples and those that its sources have left out already.

    `file`: every skipped example is written there once, as a line of JSON; its existing lines are counted.
    """

    def __init__(self, mixture: Mixture, limit: float, file: Path | None = None) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"data.max_broken is {limit}; it is a share, from 0 to 1")
        self.limit, self.file, self.known = limit, file, len(mixture)
        self.causes: Counter[str] = Counter()
        self.names: set[str] = set()
        self.seen = 0
        self._lock = Lock()
        left_out = [
            (f"{source.name}: {one.sample}", one)
            for source in mixture.sources
            for one in _left_out(source)
            if one.cause not in UNLISTED
        ]
        self.known += len(left_out)
        self.causes.update(count_causes(one for _, one in left_out))
        written = self._read()
        if rank_and_world()[0] == 0:
            self._write([(name, one) for name, one in left_out if (name, one.cause) not in written], opened=True)
        self._check()

    def _read(self) -> set[tuple[str, str]]:
        """Count the lines of the file, and return (sample, cause) of those that were written when sources were opened:
        what is left out now, the sources say. A line that a kill has cut is passed over; its sample is found again."""
        opened: set[tuple[str, str]] = set()
        if self.file is None or not self.file.exists():
            return opened
        for line in lines_of(self.file.read_text(encoding="utf-8", errors="replace")):
            try:
                entry = json.loads(line)
                name, cause = entry["sample"], entry["cause"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            if entry.get("opened"):
                opened.add((name, cause))
            elif name not in self.names:
                self.causes[cause] += 1
                self.names.add(name)
        return opened

    def _write(self, entries: Sequence[tuple[str, LeftOut]], opened: bool = False) -> None:
        if self.file is None or not entries:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a kill has cut
                    file.write(b"\n")
            for name, one in entries:
                line = asdict(one) | {"sample": name} | ({"opened": True} if opened else {})
                file.write((json.dumps(line) + "\n").encode())

    def add(self, name: str, broken: BrokenSample) -> None:
        """Count a broken sample, once."""
        with self._lock:
            if name in self.names:
                return
            self.names.add(name)
            self.causes[broken.cause] += 1
            self._write([(name, LeftOut(name, broken.cause, str(broken)))])
            self._check()

    def _check(self) -> None:
        total = self.known or max(self.seen, MIN_SEEN)
        if self.causes.total() > self.limit * total:
            ways = [f"{self.file} names them"] if self.file else []
            ways += ["`blip2-lab data check` finds all"] if self.known else []  # a stream cannot be checked
            ending = f": {', and '.join(ways)}" if ways else ""
            raise ValueError(
                f"{self.causes.total()} of {total} examples cannot be used ({list_causes(self.causes)}), more than "
                f"data.max_broken={self.limit:g} allows, and there may be more{ending}"
            )

    def report(self) -> str:
        """The counts in one sentence, for the end of a run."""
        if not self.causes:
            return "nothing was skipped"
        return f"skipped {self.causes.total()} of {self.known or self.seen} examples: {list_causes(self.causes)}"


# ------------------------------------------------------------------------------------------------------------- checking

SHOWN = 100  #: lines of one cause that a check prints; its file has all


def _left_out(source: Source | Stream) -> list[LeftOut]:
    return getattr(source, "left_out", [])


def check_sources(sources: Mixture | Sequence[Source | Stream], out: TextIO | None = None) -> Iterator[str]:
    """Open every image of every source: one line for each thing that cannot be used, then a report for each source.

    At most `SHOWN` lines of a cause; `out` is given every one, as a line of JSON: source, sample, cause, message; and
    every odd text, which is used, with a cause that begins with `NOTED`.
    Raises ValueError for a source of which nothing can be used.
    """
    useless = []
    for source in sources.sources if isinstance(sources, Mixture) else sources:
        if is_stream(source) and not source.is_local:
            raise ValueError(f"{source.name} is a stream, which cannot be checked before training; download it first")
        if isinstance(source, ShardFolder):
            source.check()
        good, shown, left_out, seen = 0, Counter(), [], _Seen()
        for one in _what_is_left_out(source, seen):
            if one is None:
                good += 1
                continue
            left_out.append(one)
            shown[one.cause] += 1
            if out is not None:
                out.write(json.dumps({"source": source.name, **asdict(one)}) + "\n")
            if shown[one.cause] <= SHOWN:
                yield f"{one.cause}: {one.message}"
        for cause, number in shown.items():
            if number > SHOWN:
                yield f"{cause}: {number - SHOWN} more{'' if out is not None else '; --out FILE writes all of them'}"
        if out is not None:
            for one in seen.odd_texts():
                out.write(json.dumps({"source": source.name, **asdict(one)}) + "\n")
        yield from (f"note: {note}" for note in [*getattr(source, "notes", []), *seen.notes()])
        yield f"{source.name}: {left_out_report(good, left_out)}"
        useless += [] if good else [source.name]
    if useless:
        raise ValueError(f"{' and '.join(useless)}: there is no picture with a text that can be used")


def _what_is_left_out(source: Source, seen: _Seen) -> Iterator[LeftOut | None]:
    """Everything of a source that is left out, and None for each picture that is used, which `seen` is given."""
    given = 0
    for number, record in enumerate(_records(source)):
        yield from _left_out(source)[given:]  # a shard's are known when its first sample is read
        given = len(_left_out(source))
        broken = record if isinstance(record, BrokenSample) else None
        try:
            image = None if broken else record.open().image
        except BrokenSample as error:
            broken = error
        if broken is not None:
            yield LeftOut(getattr(record, "id", "") or str(number), broken.cause, str(broken))
            continue
        yield from (LeftOut(record.id, "unread part", sentence) for sentence in record.unread)
        seen.add(record, image)
        yield None
    yield from _left_out(source)[given:]


def _records(source: Source | Stream) -> Iterator[Record | BrokenSample]:
    """Every record of a source, or the error in its place."""
    if is_stream(source):
        yield from source.records(0, 0)
        return
    for number in range(len(source)):
        try:
            record = source.record(number)
        except BrokenSample as broken:
            record = broken
        yield record


LONG_CAPTION = 32  #: words; a text of training is cut after model.max_text_tokens, which is 32 as in LAVIS
SAME = 5  #: pictures with one caption that may be more than chance
NOTED = "noted: "  #: begins the cause of what is used as it is
LOST = "\N{REPLACEMENT CHARACTER}"  #: what programs write for a character that they cannot decode


def same_caption(caption: str) -> str:
    """A note about pictures that all have one caption."""
    return f"every picture has the same caption ({caption[:60]!r}): nothing can be learned about a picture from it"


def pixels_digest(image: Image.Image) -> bytes:
    """A hash of the pixels of an image: equal for copies, whatever their files are."""
    return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()


def _having(names: Sequence[str], what: str) -> str:
    return f"{count_of(len(names), 'picture has', 'pictures have')} {what}"


class _Seen:
    """What a check has seen of the pictures that are used: what is no fault, and good to know before training.

    `same`: the hash of the pixels -> the names of the pictures that have them. The lists have names of pictures.
    """

    def __init__(self) -> None:
        self.same: dict[bytes, list[str]] = {}
        self.animated: list[str] = []
        self.unanswered: list[str] = []
        self.long: list[str] = []
        self.captions: Counter[str] = Counter()  # caption -> number of pictures that have it
        self.captioned = 0
        self.lost: list[str] = []
        self.wordless: list[str] = []
        self.unseen: list[str] = []
        self.marks: set[str] = set()
        self.one_color: list[str] = []
        self.odd: dict[Odd, list[tuple[str, str]]] = {}

    def add(self, record: Record, image: Image.Image) -> None:
        self.same.setdefault(pixels_digest(image), []).append(record.id)
        self.captioned += bool(record.captions)
        self.captions.update(set(record.captions))
        answers = [answer for q in record.questions for answer in getattr(q, "answers", (q.answer,))]
        texts = [*record.captions, *(question.text for question in record.questions), *answers]
        for names, found in (
            (self.animated, frame_count(record.file) > 1),
            (self.unanswered, any(not question.answer for question in record.questions)),
            (self.long, any(len(caption.split()) > LONG_CAPTION for caption in record.captions)),
            (self.lost, any(LOST in text for text in texts)),
            (self.wordless, any(map(has_no_word, record.captions))),
            (self.unseen, bool(marks := "".join(map(unseen, texts)))),
            (self.one_color, all(low == high for low, high in image.getextrema())),
        ):
            names += [record.id] if found else []
        for odd in ODD:
            found = next(filter(None, map(odd.find, record.captions if odd.captions_only else texts)), "")
            if found:
                self.odd.setdefault(odd, []).append((record.id, found))
        self.marks |= set(marks)

    def odd_texts(self) -> Iterator[LeftOut]:
        """Each picture with an odd text, which is used all the same."""
        for odd, found in self.odd.items():
            yield from (LeftOut(name, f"{NOTED}{odd.having}", f"{name}: {what}: {odd.remedy}") for name, what in found)

    def notes(self) -> Iterator[str]:
        """One sentence for each thing that was seen."""
        if self.animated:
            having = _having(self.animated, "several frames or pages")
            yield f"{having} ({self.animated[0]}): the first one is read"
        copies = [names for names in self.same.values() if len(names) > 1]
        caption, often = max(self.captions.items(), key=lambda item: item[1], default=("", 0))
        if len(self.captions) == 1 and self.captioned > 1:
            yield same_caption(caption)
        elif often >= SAME and often > self.captioned / 2:
            yield (
                f"{often} of {self.captioned} pictures have the same caption ({caption[:60]!r}): it is learned more "
                "than anything else, whatever is to be seen"
            )
        if copies:
            number = sum(map(len, copies)) - len(copies)
            of_others = count_of(number, "picture is a copy of another", "pictures are copies of others")
            yield (
                f"{of_others} ({copies[0][1]} of {copies[0][0]}): training takes them for different ones, and one may "
                "be held out while its copy is trained on"
            )
        if self.unanswered:
            yield (
                f"{_having(self.unanswered, 'a question without an answer')} ({self.unanswered[0]}), as in a "
                "test set: training passes over it"
            )
        if self.long:
            yield (
                f"{_having(self.long, f'a caption of more than {LONG_CAPTION} words')} ({self.long[0]}): "
                "training cuts a text after model.max_text_tokens tokens, and stage 1 after 50 words"
            )
        if self.lost:
            yield (
                f"{_having(self.lost, f'a text with {LOST}')} ({self.lost[0]}): another program lost characters "
                "there, write the text again"
            )
        for odd, found in self.odd.items():
            (name, what), names = found[0], [name for name, _ in found]
            yield f"{_having(names, odd.having)} ({name}: {what}): {odd.remedy}"
        if self.one_color:
            yield (
                f"{_having(self.one_color, 'one color everywhere')} ({self.one_color[0]}): nothing can be seen on it, "
                "is it a placeholder, or transparent?"
            )
        if self.wordless:
            yield (
                f"{_having(self.wordless, 'a caption without a word')} ({self.wordless[0]}): it says nothing "
                "about the picture, and stage 1 removes most punctuation"
            )
        if self.unseen:
            marks = ", ".join(f"U+{ord(mark):04X}" for mark in sorted(self.marks)[:5])
            yield (
                f"{_having(self.unseen, 'a text with characters that cannot be seen')} ({self.unseen[0]}: "
                f"{marks}): a word with one is another word, remove them"
            )
