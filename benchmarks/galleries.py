"""Is ITM's re-ranking above ITC, or was it this one gallery? R@1 of the shipped model on several galleries of 1,000.

    python -m benchmarks.galleries [FIRST_BOOK LAST_BOOK]        (1 to 6; two minutes each on two cores)

Book 1 is the model card's; the evaluations along the way of training looked at 200 of its scenes. Nobody has looked at
the others. Two thousand comparisons a gallery: a difference of 0.002 is two pictures.

Below it a search as people type it, "a red boat.": how many of the first five pictures show one.
"""

from __future__ import annotations

import sys
from itertools import product
from random import Random

import torch

import blip2_lab
from blip2_lab import evaluate, retrieval
from blip2_lab.picturebook.scene import COLORS, KINDS, sample_scene

ROWS = {
    "ITC": "itc",
    "ITM re-ranks 16, alone": "itm",
    "ITM re-ranks 16, with ITC's logit": "both",
}
WAYS = ("image_to_text_r1", "text_to_image_r1")


def r_at_1(model, book: int, scenes: int = 1000) -> dict[str, float]:
    """R@1 by each way of ranking, both ways, on `scenes` scenes of a book."""
    gallery = [sample_scene(book, index, "in") for index in range(scenes)]
    features = evaluate.image_features(model, gallery, 64)
    scores = evaluate.retrieval_scores(model.stage1, features, gallery, book, 64)
    return {name: scores[name] for name in (f"{row}_{way}" for row in ROWS.values() for way in WAYS)}


def few_words(model, book: int, scenes: int = 1000, asked: int = 60) -> dict[str, float]:
    """By each way of ranking, the share of the first five pictures that show the thing asked for ("a red boat.")."""
    gallery = [sample_scene(book, index, "in") for index in range(scenes)]
    shown = {(kind, color): [] for kind, color in product(KINDS, COLORS)}
    for number, scene in enumerate(gallery):
        for pair in {(thing.kind, thing.color) for thing in scene.things}:
            shown[pair].append(number)
    things = Random(book).sample([pair for pair, found in shown.items() if len(found) >= 5], asked)
    texts = model.stage1.tokenize([f"a {color} {kind}." for kind, color in things])
    read = retrieval.read_gallery(model.stage1, evaluate.image_features(model, gallery, 64).split(64))
    ways = {"ITC": retrieval.itc_similarity(read.image_embeds, retrieval.embed_texts(model.stage1, *texts)).T}
    for label, rank_by in (("ITM re-ranks 64, alone", "itm"), ("ITM re-ranks 64, with ITC's logit", "both")):
        ways[label] = retrieval.search(model.stage1, read, *texts, shortlist=64, rank_by=rank_by, batch_size=64)
    right = torch.zeros(asked, scenes)
    for row, pair in enumerate(things):
        right[row, shown[pair]] = 1
    return {label: right.gather(1, scores.topk(5).indices).mean().item() for label, scores in ways.items()}


def main() -> None:
    first, last = map(int, sys.argv[1:3] or (1, 6))
    model = blip2_lab.load("micro")
    found, words = {}, {}
    for book in range(first, last + 1):
        found[book], words[book] = r_at_1(model, book), few_words(model, book)
    books = "".join(f"{book:>8}" for book in found)
    print("R@1, 1,000 scenes of book".ljust(52) + f"{books}    mean")
    for label, row in ROWS.items():
        for way in WAYS:
            values = [numbers[f"{row}_{way}"] for numbers in found.values()]
            shown = "".join(f"{value:8.3f}" for value in values)
            direction = "picture to text" if way == WAYS[0] else "text to picture"
            print(f"{direction}, {label}".ljust(52) + f"{shown}{sum(values) / len(values):8.4f}")

    for label in words[first]:
        values = [shares[label] for shares in words.values()]
        shown = "".join(f"{value:8.3f}" for value in values)
        print(f"a few words, {label}".ljust(52) + f"{shown}{sum(values) / len(values):8.4f}")


if __name__ == "__main__":
    main()
