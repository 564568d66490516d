"""Scenes composed of cut-out pictures on backgrounds, with true captions, questions and boxes.

`Composites(folder)` is where to begin: scene `index` is a function of the cut-outs, the seed and the index. `write`
makes a folder of such scenes with a table, which everything in the package reads.

Notes:

* A cut-out is a picture with a transparent ground, or one with a mask beside it: `duck.mask.png` for `duck.png`, white
  where the duck is. Its sentences are read as those of every folder (image_folder.py); the first one names the thing:
  `"A great blue heron."`. `noun_of` has the rule. A cut-out that it cannot name is left out, and named.
* One to four things stand in the cells of the picture book's grid, so positions and relations are never close calls.
  A thing alone is drawn large, and its own sentences are among the captions.
* Kinds are told apart by their nouns. A scene never has two kinds that share a noun's last word (a cat and a black
  cat). Synonyms are not known (a hen, a chicken): give both the same sentence.
* The words around the nouns are English.

Paper: section 3.4 (several captions of each image). Notebook: none.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageOps

from blip2_lab.common.files import read_object
from blip2_lab.common.images import BrokenSample, image_files, open_cutout, open_image
from blip2_lab.data.examples import Example, LeftOut
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.picturebook.draw import LAYOUTS, background
from blip2_lab.picturebook.noun_phrases import plural_of
from blip2_lab.picturebook.scene import PLACES, TIMES, Scene, Thing, pick, shuffled
from blip2_lab.picturebook.words import (
    NUMBERS,
    PLACE_PHRASES,
    RELATIONS,
    Question,
    at,
    holds,
    join,
    question,
    reading_order,
    setting,
    with_article,
)

TABLE, TRUTH, ABOUT = "captions.csv", "scenes.jsonl", "composites.json"  #: the files of a written folder
MASK = ".mask"  #: before the ending of a mask's name
MOST_WORDS = 4  #: of a noun
CELL = 0.31  #: side of a thing's box in company, as a fraction of the picture's side
ALONE = (0.5, 0.9)  #: smallest and largest side of the box of a thing alone
REPEATED = 0.3  #: the share of further things that are of the first one's kind

_VERBS = frozenset("is are was were has have means should lets carries stands serves goes makes".split())
_AFTER_HEAD = r" (?:of|to|with|in|on|at|for|from|by|inside|and|under|over|[a-z]+ing|called|covered|used|made) "


@dataclass(frozen=True)
class Cutout:
    """A picture of one thing. `noun`: what it is, without an article; `unique`: "the" moon, of which there is one."""

    file: Path
    mask: Path | None
    sentences: tuple[str, ...]
    noun: str
    unique: bool = False


@dataclass(frozen=True)
class Placed(Thing):
    """A cut-out in a scene: its number, and the side of its square box as a fraction of the picture's side."""

    cutout: int = 0
    extent: float = CELL
    unique: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        half = self.extent / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


class Composites:
    """Scenes of the cut-outs in a folder, endless; the same on every machine.

    backgrounds  a folder of pictures, each cut to a square; without one, the places of the picture book
    image_size   side of a picture in pixels

    `left_out`: the cut-outs and backgrounds that are not used, by name. Raises ValueError if fewer than two cut-outs
    can be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        seed: int = 0,
        image_size: int = 192,
        backgrounds: str | os.PathLike | None = None,
    ) -> None:
        if not 32 <= image_size <= 2048:
            raise ValueError(f"image_size is {image_size}; scenes have 32 to 2048 pixels")
        self.seed, self.image_size, self.name = seed, image_size, f"composites of {os.fspath(folder)}"
        self.cutouts, self.left_out = read_cutouts(folder)
        if len(self.cutouts) < 2:
            first = f"; {self.left_out[0].message}" if self.left_out else ""
            raise ValueError(f"{folder} has {len(self.cutouts)} cut-outs that can be placed, and 2 are needed{first}")
        self.nouns = {cutout.noun: cutout.unique for cutout in self.cutouts}
        self.backgrounds = None if backgrounds is None else _openable(Path(backgrounds), self.left_out)

    def scene(self, index: int) -> Scene:
        """What there is: one to four things in a place (an empty name on a background of one's own)."""
        rng = Random(f"composites {self.seed} {index}")
        cells = shuffled(rng, range(9))[: pick(rng, (1, 1, 2, 2, 2, 3, 3, 3, 4, 4))]
        things: list[Placed] = []
        for cell in cells:
            number = self._choose(rng, things)
            if number is not None:
                things.append(self._placed(rng, number, cell, alone=len(cells) == 1))
        place, time = pick(rng, PLACES), pick(rng, TIMES)
        return Scene(tuple(things), *(("", "") if self.backgrounds else (place, time)), "cut-outs")

    def _choose(self, rng: Random, earlier: Sequence[Placed]) -> int | None:
        """The number of a cut-out; None where no other kind may stand beside the earlier ones."""
        if earlier and not earlier[0].unique and rng.random() < REPEATED:
            return pick(rng, [i for i, cutout in enumerate(self.cutouts) if cutout.noun == earlier[0].kind])
        taken = {_last_word(thing.kind) for thing in earlier}
        for _ in range(20):
            number = int(rng.random() * len(self.cutouts))
            if _last_word(self.cutouts[number].noun) not in taken:
                return number
        return None

    def _placed(self, rng: Random, number: int, cell: int, alone: bool) -> Placed:
        row, column = divmod(cell, 3)
        extent = ALONE[0] + (ALONE[1] - ALONE[0]) * rng.random() if alone else CELL
        x, y = (0.5, 0.5) if alone else ((column + 0.5) / 3, (row + 0.5) / 3)
        room = (1 - extent) / 2 if alone else (1 / 3 - extent) / 2
        x, y = x + (2 * rng.random() - 1) * room, y + (2 * rng.random() - 1) * room
        cutout = self.cutouts[number]
        return Placed(cutout.noun, "", "large", round(x, 4), round(y, 4), number, round(extent, 4), cutout.unique)

    def image(self, index: int) -> Image.Image:
        """The picture, RGB, `image_size` wide and high."""
        scene, size = self.scene(index), self.image_size
        rng = Random(f"background {self.seed} {index}")
        if self.backgrounds:
            picture = ImageOps.fit(open_image(pick(rng, self.backgrounds)), (size, size))
        else:
            picture = background(scene.place, scene.time, size, int(rng.random() * LAYOUTS))
        for thing in scene.things:
            cutout = self.cutouts[thing.cutout]
            sprite = _sprite(cutout.file, cutout.mask, max(1, round(thing.extent * size)))
            corner = round(thing.x * size - sprite.width / 2), round(thing.y * size - sprite.height / 2)
            picture.paste(sprite, corner, sprite)
        return picture

    def __getitem__(self, index: int) -> Example:
        scene, rng = self.scene(index), Random(f"words {self.seed} {index}")
        alone = scene.things[0] if len(scene.things) == 1 else None
        own = self.cutouts[alone.cutout].sentences if alone else ()
        return Example(
            image=self.image(index),
            captions=tuple(dict.fromkeys([*own, *captions(scene, rng), *captions(scene, rng)])),
            questions=tuple(dict.fromkeys(questions(scene, rng, self.nouns) + questions(scene, rng, self.nouns))),
            boxes=tuple((f"the {t.kind}", t.box) for t in scene.things if _is_alone_of_its_kind(scene, t)),
            id=f"composite-{self.seed}-{index}",
        )

    def about(self, scenes: int) -> dict:
        """What so many written scenes are made of, to tell them from others."""
        digest = hashlib.sha256()
        for cutout in self.cutouts:
            parts = [json.dumps(cutout.sentences).encode(), cutout.file.read_bytes()]
            for part in parts + ([cutout.mask.read_bytes()] if cutout.mask else []):
                digest.update(hashlib.sha256(part).digest())
        for file in self.backgrounds or ():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        settings = {"scenes": scenes, "seed": self.seed, "image_size": self.image_size}
        return settings | {"cutouts": len(self.cutouts), "digest": digest.hexdigest()[:16]}


def write(composites: Composites, scenes: int, folder: str | os.PathLike, say: Callable[[str], None] = print) -> Path:
    """The first `scenes` scenes as a folder: pictures, TABLE with captions and questions, and TRUTH, a line of JSON for
    each scene with kinds, positions and boxes. What is there already from the same cut-outs is left as it is.

    Raises ValueError for a folder that has anything else.
    """
    folder = Path(folder)
    if scenes < 1:
        raise ValueError(f"{scenes} scenes cannot be written: write at least 1")
    about = composites.about(scenes)
    if (folder / ABOUT).is_file():
        if read_object(folder / ABOUT, remedy=f"remove {folder}, or write elsewhere") == about:
            return folder
        raise ValueError(f"{folder} has scenes of other cut-outs or of another number: remove it, or write elsewhere")
    if folder.exists() and any(folder.iterdir()) and not (folder / TRUTH).is_file():  # else: stopped while writing
        raise ValueError(f"{folder} is not empty: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"placing {len(composites.cutouts)} cut-outs in {scenes} scenes")
    digits = len(str(scenes - 1))
    with (
        (folder / TRUTH).open("w", encoding="utf-8") as truth,
        (folder / TABLE).open("w", encoding="utf-8", newline="") as table,
    ):
        rows = csv.writer(table)
        rows.writerow(["file", "caption", "question", "answer"])
        for index in range(scenes):
            example, name = composites[index], f"{index:0{digits}d}.png"
            example.image.save(folder / name)
            rows.writerows([name, caption, "", ""] for caption in example.captions)
            rows.writerows([name, "", asked.text, asked.answer] for asked in example.questions)
            truth.write(json.dumps({"file": name} | composites.scene(index).to_dict()) + "\n")
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------------- the cut-outs


def read_cutouts(folder: str | os.PathLike) -> tuple[list[Cutout], list[LeftOut]]:
    """The cut-outs of a folder in the order of their names, and everything that is not used, by name."""
    source = ImageFolder(folder)
    left_out = [one for one in source.left_out if MASK not in Path(one.sample).suffixes]
    found = []
    for record in sorted(source.records, key=lambda record: record.id):
        if Path(record.id).stem.endswith(MASK):
            continue
        file = Path(record.file)
        mask = next((path for path in file.parent.glob(f"{_literal(file.stem)}{MASK}.*") if path.is_file()), None)
        try:
            if not record.captions:
                raise BrokenSample("no caption", "it has no sentence that names it")
            noun, unique = noun_of(record.captions[0])
            open_cutout(file, mask)
        except BrokenSample as broken:
            left_out.append(LeftOut(record.id, broken.cause, f"{record.id}: {broken}"))
        else:
            found.append(Cutout(file, mask, record.captions, noun, unique))
    return found, left_out


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def noun_of(sentence: str) -> tuple[str, bool]:
    """What a sentence names, in lower case, and whether there is only one: "A duck." -> ("duck", False).

    It begins with a, an or the, has `MOST_WORDS` words at most up to the first mark, and no verb of a sentence. Raises
    BrokenSample for any other.
    """
    phrase = re.split(r"[(.;:!?\u2014\u2013]", sentence.lower().strip())[0]
    article, *words = re.sub(r"[,\"“”„]", " ", phrase).split() or [""]
    if article not in ("a", "an", "the") or not 0 < len(words) <= MOST_WORDS or _VERBS.intersection(words):
        wanted = f'name one thing in at most {MOST_WORDS} words after a, an or the, as "A small red duck." does'
        raise BrokenSample("sentence without a thing", f"the sentence {sentence[:60]!r} does not {wanted}")
    return " ".join(words), article == "the"


def _head(noun: str) -> tuple[str, str]:
    """("glass", " of water"), ("black cat", "")."""
    found = re.search(_AFTER_HEAD, f"{noun} ")
    return (noun[: found.start()], noun[found.start() :]) if found and found.start() else (noun, "")


def _last_word(noun: str) -> str:
    """Of the noun's head: kinds that share it do not stand in one scene."""
    return _head(noun)[0].split()[-1]


def _several(noun: str) -> str:
    """The plural: "glasses of water"."""
    head, rest = _head(noun)
    return plural_of(head) + rest


def _openable(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """The pictures of a folder, each opened once; those that are not read are added to `left_out`. Raises ValueError if
    there are none, or if one is damaged."""

    def leave_out(sentence: str) -> None:
        left_out.append(LeftOut(str(folder), "background that is not read", f"{folder}: {sentence}"))

    files = image_files(folder, leave_out) if folder.is_dir() else []
    for file in files:
        open_image(file)  # raises BrokenSample, which names it
    if not files:
        raise ValueError(f"{folder} has no pictures that could be backgrounds")
    return files


@lru_cache(maxsize=512)
def _sprite(file: Path, mask: Path | None, pixels: int) -> Image.Image:
    """The cut-out with its longer side of so many pixels, RGBA."""
    return ImageOps.contain(open_cutout(file, mask), (pixels, pixels), Image.Resampling.LANCZOS)


# -------------------------------------------------------------------------------------------------------------- words


def _a(noun: str, unique: bool) -> str:
    return f"the {noun}" if unique else with_article(noun)


def _counted(things: Sequence[Placed]) -> list[str]:
    """Noun phrases with things of a kind counted: `["two foxes", "a duck"]`."""
    alike: dict[str, list[Placed]] = {}
    for thing in things:
        alike.setdefault(thing.kind, []).append(thing)
    return [
        _a(kind, group[0].unique) if len(group) == 1 else f"{NUMBERS[len(group)]} {_several(kind)}"
        for kind, group in alike.items()
    ]


def _is_alone_of_its_kind(scene: Scene, thing: Thing) -> bool:
    return sum(other.kind == thing.kind for other in scene.things) == 1


def _where(scene: Scene, rng: Random) -> str:
    """Place and time, the place alone, or nothing."""
    if not scene.place:
        return ""
    return pick(rng, ("", f" {PLACE_PHRASES[scene.place]}", f" {setting(scene, rng)}"))


def captions(scene: Scene, rng: Random) -> list[str]:
    """What there is and how many; of several things also where each of them is, and how two of them stand."""
    things = reading_order(scene)
    lead = pick(rng, ("", "there is ", "a picture of ")) if len(things) == 1 else pick(rng, ("", "a picture of "))
    where = f" {setting(scene, rng)}" if scene.place else ""
    said = [f"{lead}{join(_counted(things))}{where}."]
    if len(things) == 1:
        return said
    placed = join([f"{_a(thing.kind, thing.unique)} {at(thing.position)}" for thing in things])
    said.append(f"{pick(rng, ('', 'a picture of '))}{placed}{_where(scene, rng)}.")
    pairs = [(r, a, b) for a in things for b in things for r in RELATIONS if a.kind != b.kind and holds(r, a, b)]
    if pairs:
        relation, first, second = pick(rng, pairs)
        said.append(f"{_a(first.kind, first.unique)} is {relation} {_a(second.kind, second.unique)}.")
    return said


def questions(scene: Scene, rng: Random, nouns: Mapping[str, bool]) -> list[Question]:
    """One question of each kind that the scene allows. `nouns`: of all cut-outs, and which are unique."""
    things = shuffled(rng, scene.things)
    asked = [_count(scene, rng), _existence(scene, rng, nouns)]
    if len(things) == 1:
        asked.append(Question("what", "what is this?", things[0].kind))
    else:
        asked.append(Question("what", f"what is {at(things[0].position)}?", things[0].kind))
        asked += [_position(scene, things), _relation(scene, rng)]
    if scene.place:
        asked += [question(scene, rng, "place"), question(scene, rng, "time")]
    return [one for one in asked if one is not None]


def _count(scene: Scene, rng: Random) -> Question:
    kinds = [thing.kind for thing in scene.things if not thing.unique]
    if not kinds or rng.random() < 0.3:
        return Question("count", "how many things are there?", NUMBERS[len(scene.things)])
    kind = pick(rng, kinds)
    return Question("count", f"how many {_several(kind)} are there?", NUMBERS[kinds.count(kind)])


def _existence(scene: Scene, rng: Random, nouns: Mapping[str, bool]) -> Question | None:
    """Yes and no are equally frequent. What is not there shares no last word with what is."""
    there = {_last_word(thing.kind) for thing in scene.things}
    absent = [noun for noun in nouns if _last_word(noun) not in there]
    if not absent:  # a question with one possible answer
        return None
    yes = rng.random() < 0.5
    noun = pick(rng, scene.things).kind if yes else pick(rng, absent)
    return Question("existence", f"is there {_a(noun, nouns[noun])}?", "yes" if yes else "no")


def _position(scene: Scene, things: Sequence[Thing]) -> Question | None:
    one = next((thing for thing in things if _is_alone_of_its_kind(scene, thing)), None)
    return one and Question("position", f"where is the {one.kind}?", one.position)


def _relation(scene: Scene, rng: Random) -> Question | None:
    """What is above, below or beside a thing, where that is one thing."""
    options = []
    for anchor in scene.things:
        for relation in RELATIONS if _is_alone_of_its_kind(scene, anchor) else ():
            found = [thing for thing in scene.things if holds(relation, thing, anchor)]
            if len(found) == 1:
                options.append((relation, anchor, found[0]))
    if not options:
        return None
    relation, anchor, found = pick(rng, options)
    return Question("relation", f"what is {relation} the {anchor.kind}?", found.kind)
