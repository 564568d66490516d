"""Is ITM's re-ranking above ITC, or was it this one gallery? R@1 of the shipped model on several galleries of 1,000.

    python -m benchmarks.galleries [FIRST_BOOK LAST_BOOK]        (1 to 6; two minutes each on one core)

Book 1 is the model card's; the evaluations along the way of training looked at 200 of its scenes. Nobody has looked at
the others. Two thousand comparisons a gallery: a difference of 0.002 is two pictures.
"""

from __future__ import annotations

import sys

import blip2_lab
from blip2_lab import evaluate
from blip2_lab.picturebook.scene import sample_scene

ROWS = {
    "ITC": "itc",
    "ITM re-ranks 16": "itm",
    "both, logits added": "both",
}
WAYS = ("image_to_text_r1", "text_to_image_r1")


def r_at_1(model, book: int, scenes: int = 1000) -> dict[str, float]:
    """R@1 by each way of ranking, both ways, on `scenes` scenes of a book."""
    gallery = [sample_scene(book, index, "in") for index in range(scenes)]
    features = evaluate.image_features(model, gallery, 64)
    scores = evaluate.retrieval_scores(model.stage1, features, gallery, book, 64)
    return {name: scores[name] for name in (f"{row}_{way}" for row in ROWS.values() for way in WAYS)}


def main() -> None:
    first, last = map(int, sys.argv[1:3] or (1, 6))
    model = blip2_lab.load("micro")
    found = {}
    for book in range(first, last + 1):
        found[book] = r_at_1(model, book)
    books = "".join(f"{book:>8}" for book in found)
    print("R@1, 1,000 scenes of book".ljust(38) + f"{books}    mean")
    for label, row in ROWS.items():
        for way in WAYS:
            values = [numbers[f"{row}_{way}"] for numbers in found.values()]
            shown = "".join(f"{value:8.3f}" for value in values)
            direction = "picture to text" if way == WAYS[0] else "text to picture"
            print(f"{direction}, {label}".ljust(38) + f"{shown}{sum(values) / len(values):8.4f}")


if __name__ == "__main__":
    main()
