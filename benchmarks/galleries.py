"""Is ITM's re-ranking above ITC, or was it this one gallery? R@1 of the shipped model on several galleries of 1,000.

    python -m benchmarks.galleries [FIRST_BOOK LAST_BOOK]        (1 to 6; two minutes each on two cores)

Book 1 is the model card's; the evaluations along the way of training looked at 200 of its scenes. Books 1 to 6 were
looked at when the ways of ranking were written; 7 to 10 afterwards, once. Two thousand comparisons a gallery: a
difference of 0.002 is two pictures.

Below it a search as people type it, "a red boat.": how many of the first five pictures show one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from random import Random

import torch
from torch import Tensor

import blip2_lab
from blip2_lab.evaluation import scenes
from blip2_lab.models import retrieval
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.picturebook.scene import COLORS, KINDS, Scene, sample_scene

ROWS = {
    "ITC": "itc",
    "ITM re-ranks 16, alone": "itm",
    "ITM re-ranks 16, with ITC's logit": "both",
}
WAYS = (("picture to text", "image_to_text_r1"), ("text to picture", "text_to_image_r1"))


def r_at_1(stage1: Stage1Model, features: Tensor, gallery: Sequence[Scene], book: int) -> dict[str, float]:
    """R@1 by each way of ranking, both ways."""
    scores = scenes.retrieval_scores(stage1, features, gallery, book, 64)
    return {f"{direction}, {label}": scores[f"{row}_{way}"] for label, row in ROWS.items() for direction, way in WAYS}


def few_words(
    stage1: Stage1Model, features: Tensor, gallery: Sequence[Scene], book: int, asked: int = 60
) -> dict[str, float]:
    """By each way of ranking, the share of the first five pictures that show the thing asked for ("a red boat.")."""
    shown = {(kind, color): [] for kind, color in product(KINDS, COLORS)}
    for number, scene in enumerate(gallery):
        for pair in {(thing.kind, thing.color) for thing in scene.things}:
            shown[pair].append(number)
    things = Random(book).sample([pair for pair, found in shown.items() if len(found) >= 5], asked)
    texts = stage1.tokenize([f"a {color} {kind}." for kind, color in things])
    read = retrieval.read_gallery(stage1, features.split(64))
    ways = {"a few words, ITC": retrieval.itc_similarity(read.image_embeds, retrieval.embed_texts(stage1, *texts)).T}
    for label, rank_by in (("alone", "itm"), ("with ITC's logit", "both")):
        scores = retrieval.search(stage1, read, *texts, shortlist=64, rank_by=rank_by, batch_size=64)
        ways[f"a few words, ITM re-ranks 64, {label}"] = scores
    right = torch.zeros(asked, len(gallery))
    for row, pair in enumerate(things):
        right[row, shown[pair]] = 1
    return {label: right.gather(1, scores.topk(5).indices).mean().item() for label, scores in ways.items()}


def main() -> None:
    first, last = map(int, sys.argv[1:3] or (1, 6))
    model = blip2_lab.load("micro")
    found = {}
    for book in range(first, last + 1):
        gallery = [sample_scene(book, index, "in") for index in range(1000)]
        features = scenes.image_features(model, gallery, 64)
        given = model.stage1, features, gallery, book
        found[book] = r_at_1(*given) | few_words(*given)
    print("R@1, 1,000 scenes of book".ljust(52) + "".join(f"{book:>8}" for book in found) + "    mean")
    for label in found[first]:
        values = [shares[label] for shares in found.values()]
        print(label.ljust(52) + "".join(f"{value:8.3f}" for value in values) + f"{sum(values) / len(values):8.4f}")


if __name__ == "__main__":
    main()
