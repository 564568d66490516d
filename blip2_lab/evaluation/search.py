"""Search by a few words ("a red boat"): how often it finds images that show one, and what ITM says of them.

`search_scores` is where to begin.

Notes:

* The gallery holds images of several things, so that no phrase describes a whole image.
* A phrase counts only if at least `TOP` images of the gallery fit it; otherwise precision at `TOP` could not reach 1.
* The hard false pair of a phrase is an image with the kind in another color and the color on another kind.

Paper: section 4.4 (retrieval), with phrases instead of captions. Notebook: 06.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from blip2_lab.evaluation import metrics
from blip2_lab.models import retrieval
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.picturebook import words
from blip2_lab.picturebook.scene import COLORS, KINDS, Scene, pick

TOP = 5
SHORTLIST = 128  #: candidates that ITM re-ranks, as in the app's search and in the paper
Phrase = tuple[str, str]  #: (color, kind)


@torch.no_grad()
def search_scores(
    stage1: Stage1Model, features: Tensor, book: Sequence[Scene], seed: int, phrases: int = 100
) -> dict[str, float | int]:
    """Precision at `TOP` of phrases "a red boat." among images of several things, and ITM's share of right verdicts.

    Nothing for so few scenes that no phrase is shown `TOP` times.

    features [M,N,Dv] of the book's M scenes. `itm_true`: pairs that fit; `itm_false`: random images that do not fit;
    `itm_false_hard`: those that show the color and the kind, but not together.
    """
    several = [i for i, scene in enumerate(book) if len(scene.things) > 1]
    scenes = [book[i] for i in several]
    truth = {phrase: [_shows(scene, phrase) for scene in scenes] for phrase in _pairs()}
    asked = [phrase for phrase, shown in truth.items() if sum(shown) >= TOP]
    rng = Random(f"search {seed}")
    if not asked:
        return {}
    asked = sorted(asked, key=lambda _: rng.random())[:phrases]
    gallery = retrieval.read_gallery(stage1, features[several].split(128))
    ids, mask = stage1.tokenize([text_of(phrase) for phrase in asked])
    result: dict[str, float | int] = {"gallery": len(scenes), "phrases": len(asked)}
    for name in ("itm", "both"):
        scores = retrieval.search(stage1, gallery, ids, mask, shortlist=SHORTLIST, rank_by=name)
        hits = [[truth[p][i] for i in row] for p, row in zip(asked, scores.topk(TOP).indices.tolist(), strict=True)]
        result[f"precision_at_{TOP}_{name}"] = metrics.accuracy([hit for row in hits for hit in row])
    result[f"precision_at_{TOP}_random"] = metrics.accuracy([shown for p in asked for shown in truth[p]])
    for name, pairs in _verdict_pairs(asked, truth, scenes, rng).items():
        logits = retrieval.match_pairs(stage1, gallery, pairs, ids, mask)
        fits = logits[:, 1] > logits[:, 0]
        result[name] = (fits if name == "itm_true" else ~fits).float().mean().item()
        result[f"{name}_count"] = len(pairs)
    return result


def text_of(phrase: Phrase) -> str:
    return f"{words.with_article(' '.join(phrase))}."


def _pairs() -> list[Phrase]:
    return [(color, kind) for kind in KINDS for color in COLORS]


def _shows(scene: Scene, phrase: Phrase) -> bool:
    return any((thing.color, thing.kind) == phrase for thing in scene.things)


def _verdict_pairs(
    asked: Sequence[Phrase], truth: dict[Phrase, list[bool]], scenes: Sequence[Scene], rng: Random, each: int = 5
) -> dict[str, Tensor]:
    """For every phrase `each` images that fit, that do not, and that almost do: long[P,2] of (image, text)."""
    pairs: dict[str, list[tuple[int, int]]] = {"itm_true": [], "itm_false": [], "itm_false_hard": []}
    for text, (color, kind) in enumerate(asked):
        shown = truth[color, kind]
        right = [i for i, there in enumerate(shown) if there]
        wrong = [i for i, there in enumerate(shown) if not there]
        hard = [
            i
            for i in wrong
            if any(t.color == color for t in scenes[i].things) and any(t.kind == kind for t in scenes[i].things)
        ]
        for name, images in (("itm_true", right), ("itm_false", wrong), ("itm_false_hard", hard)):
            pairs[name] += [(pick(rng, images), text) for _ in range(each) if images]
    return {name: torch.tensor(found) for name, found in pairs.items() if found}
