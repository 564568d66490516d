"""What everybody knows about the kinds of things, and no picture shows.

Notes:

* These facts enter the *text* corpus alone (`corpus.py`). No caption ever states one, so when the chat answers
  "what is the red thing used for?" about a picture, it has combined what it has read with what the picture shows:
  the paper's "visual knowledge reasoning" (section 4.1, Figure 4) in miniature.
* Each answer belongs to one kind alone, so guessing pays little.

Notebook: 12.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """`use`: a verb phrase, "a boat can …" or "you use a key to …"; `home`: where it belongs; `part`: what it has."""

    use: str
    home: str
    part: str
    agent: bool  # True: it acts by itself ("what can it do?"); False: one uses it ("what is it used for?")


FACTS: dict[str, Facts] = {
    "boat": Facts("sail", "harbor", "sail", True),
    "car": Facts("drive", "garage", "engine", True),
    "train": Facts("pull wagons", "station", "whistle", True),
    "plane": Facts("cross the ocean", "airport", "wing", True),
    "fish": Facts("swim", "river", "fin", True),
    "bird": Facts("sing", "nest", "beak", True),
    "cat": Facts("catch mice", "sofa", "tail", True),
    "turtle": Facts("hide", "pond", "shell", True),
    "tree": Facts("give shade", "forest", "trunk", False),
    "flower": Facts("feed bees", "garden", "petal", False),
    "cactus": Facts("store water", "desert", "needle", False),
    "apple": Facts("bake a pie", "orchard", "core", False),
    "carrot": Facts("feed rabbits", "field", "root", False),
    "cake": Facts("celebrate a birthday", "bakery", "candle", False),
    "cherry": Facts("make jam", "bowl", "stone", False),
    "key": Facts("open a door", "pocket", "teeth", False),
    "umbrella": Facts("keep dry", "hallway", "cloth", False),
    "hammer": Facts("hit nails", "workshop", "head", False),
    "cup": Facts("drink tea", "kitchen", "handle", False),
    "lamp": Facts("read in the dark", "desk", "bulb", False),
    "kite": Facts("play with the wind", "sky", "string", False),
    "ball": Facts("play a game", "playground", "rubber", False),
    "drum": Facts("make music", "stage", "skin", False),
    "house": Facts("live in", "village", "chimney", False),
    "castle": Facts("keep a king safe", "hill", "tower", False),
    "tent": Facts("go camping", "campsite", "zipper", False),
}
