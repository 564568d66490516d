"""Referring expressions: find the thing that an expression means, by ranking candidate boxes. Acc@IoU, as in RefCOCOg.

`evaluate_referring` is where to begin; `score_boxes` scores the boxes of one image.

    blip2-lab evaluate referring --scenes 1000

Notes:

* BLIP-2 has no output for boxes. Each candidate box becomes an image, and ITC and ITM compare it with the expression
  (`WAYS`): *crop* is the box alone, enlarged (as in arXiv 2204.05991, ReCLIP); *isolated* is the whole image with
  everything outside the box covered; *erased* is the whole image with the box covered, and counts by how much the
  score falls.
* A crop has lost the position of the box. An isolated box keeps it, but the thing that a relation starts from is
  covered. An erased box keeps both.
* Candidates are the true boxes of all things, or windows over the whole image, which know nothing of the scene.
* Baselines: chance, which is a candidate drawn at random, and the largest true box. For windows, the share of
  expressions for which some window is right is the most that ranking can reach.

Paper: arXiv 1511.02283 (RefCOCOg); section 4.4 (ITC and ITM as scores). Notebook: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import torch
from PIL import Image, ImageStat
from torch import Tensor

from blip2_lab.evaluation.metrics import Corners, accuracy, accuracy_at_iou, box_iou, confidence_interval
from blip2_lab.models import retrieval
from blip2_lab.models.bridges import DualEncoder
from blip2_lab.models.losses import itc_similarity
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.vision_encoder import ImageEncoder
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.referring import GROUPS, expressions
from blip2_lab.picturebook.scene import HELD_OUT_BOOK, sample_scene

CONTEXT = 1.0  #: the side of a crop, in sides of its box
WINDOWS = (0.2, 0.3, 0.45)  #: sides of the windows, as fractions of the image's side; a window moves by half its side
WINDOW_SCENES = 100  #: scenes with windows as candidates: about 400 images each
THRESHOLD = 0.5  #: the least IoU of a right box

Scorer = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
"""image_features [I,N,Dv] and T texts -> scores [I,T] by their names; higher is better."""
Say = Callable[[str], None]

# -------------------------------------------------------------------------------------------- candidates as images


def crop(image: Image.Image, box: Corners) -> Image.Image:
    """The box alone, with `CONTEXT`; what lies outside the image is filled with its mean color."""
    middle, side = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), CONTEXT * max(box[2] - box[0], box[3] - box[1])
    corners = _pixels(image, (*(m - side / 2 for m in middle), *(m + side / 2 for m in middle)))
    canvas = Image.new("RGB", (corners[2] - corners[0], corners[3] - corners[1]), _mean_color(image))
    canvas.paste(image, (-corners[0], -corners[1]))
    return canvas


def isolated(image: Image.Image, box: Corners) -> Image.Image:
    """The image with its mean color everywhere outside the box."""
    corners = _pixels(image, box)
    covered = Image.new("RGB", image.size, _mean_color(image))
    covered.paste(image.crop(corners), corners[:2])
    return covered


def erased(image: Image.Image, box: Corners) -> Image.Image:
    """The image with its mean color inside the box."""
    covered = image.copy()
    covered.paste(_mean_color(image), _pixels(image, box))
    return covered


WAYS: dict[str, Callable[[Image.Image, Corners], Image.Image]] = {
    "crop": crop,
    "isolated": isolated,
    "erased": erased,
}


def _pixels(image: Image.Image, box: Corners) -> tuple[int, int, int, int]:
    """A box in fractions as pixels, at least one wide and high."""
    left, top = round(box[0] * image.width), round(box[1] * image.height)
    return left, top, max(left + 1, round(box[2] * image.width)), max(top + 1, round(box[3] * image.height))


def _mean_color(image: Image.Image) -> tuple[int, ...]:
    return tuple(round(value) for value in ImageStat.Stat(image).mean)


def windows(sides: Sequence[float] = WINDOWS) -> list[Corners]:
    """Square boxes of these sides over the whole image, half a side apart (the last ones end at its border)."""
    found = []
    for side in sides:
        count = -int(-(1 - side) // (side / 2)) + 1
        starts = [min(number * side / 2, 1 - side) for number in range(count)]
        found += [(left, top, left + side, top + side) for top in starts for left in starts]
    return found


# ------------------------------------------------------------------------------------------------------ their scores


def scorer_of(model: Stage1Model | DualEncoder) -> Scorer:
    """How a model compares images with texts: by ITC, by ITM, and stage 1 also by both (`retrieval.pair_scores`)."""
    return _dual_encoder_scorer(model) if isinstance(model, DualEncoder) else _stage1_scorer(model)


def _stage1_scorer(model: Stage1Model) -> Scorer:
    @torch.no_grad()
    def score(image_features: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        gallery = retrieval.read_gallery(model, image_features.split(256))
        ids, mask = model.tokenize(list(texts))
        itc = itc_similarity(gallery.image_embeds, retrieval.embed_texts(model, ids, mask))
        pairs = torch.ones_like(itc, dtype=torch.bool).nonzero()
        logits = retrieval.match_pairs(model, gallery, pairs, ids, mask)
        ranked = {
            name: retrieval.pair_scores(logits, itc.flatten(), model.temperature, name).view_as(itc)
            for name in ("itm", "both")
        }
        return {"itc": itc, **ranked}

    return score


def _dual_encoder_scorer(model: DualEncoder) -> Scorer:
    @torch.no_grad()
    def score(image_features: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        tokens, (states, mask) = model.image_tokens(image_features), model.text_states(texts)
        itc = model.embed_images(image_features) @ model.embed_texts(states).T
        logits = [model.match_logits(tokens, *_repeated(i, len(tokens), states, mask)) for i in range(len(states))]
        return {"itc": itc, "itm": torch.stack([each[:, 1] - each[:, 0] for each in logits], dim=1)}

    return score


def _repeated(number: int, times: int, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return states[number].expand(times, -1, -1), mask[number].expand(times, -1)


@torch.no_grad()
def score_boxes(
    score: Scorer, encoder: ImageEncoder, image: Image.Image, boxes: Sequence[Corners], texts: Sequence[str]
) -> dict[tuple[str, str], Tensor]:
    """Scores [boxes, texts] by (way, name of the score): the best box of a text has the highest one.

    boxes  in fractions of the image's sides. Raises ValueError for no box, no text, or a box without area.
    """
    if not boxes or not texts:
        raise ValueError("Give at least one candidate box and one expression.")
    if wrong := [box for box in boxes if not (box[0] < box[2] and box[1] < box[3])]:
        raise ValueError(f"A box is (left, top, right, bottom) in fractions of the sides, not {wrong[0]}.")
    image = image.convert("RGB")
    found = {}
    for way, changed in WAYS.items():
        pixels = encoder.preprocess([changed(image, box) for box in boxes])
        for name, scores in score(torch.cat([encoder(part) for part in pixels.split(256)]), texts).items():
            found[way, name] = -scores if way == "erased" else scores  # less without the box: more because of it
    return found


# ------------------------------------------------------------------------------------------------------- the report


def evaluate_referring(
    model: Stage1Model | DualEncoder,
    *,
    scenes: int = 1000,
    window_scenes: int = WINDOW_SCENES,
    split: str = "in",
    seed: int = HELD_OUT_BOOK,
    say: Say = lambda _: None,
) -> dict:
    """Acc@IoU of every way and score, with baselines, as a dictionary ready for JSON (see `referring_table`).

    Scenes have at least two things. Raises ValueError for no scene.
    """
    if scenes < 1:
        raise ValueError(f"scenes is {scenes}; at least 1 is needed.")
    score, encoder = scorer_of(model), model.image_encoder
    cases: dict[str, list[dict]] = {"true boxes": [], "windows": []}
    number, done = -1, 0
    while done < scenes:
        number += 1
        scene = sample_scene(seed, number, split)
        if len(scene.things) < 2:
            continue
        if done % 100 == 0:
            say(f"scene {done + 1} of {scenes}")
        asked = expressions(scene, Random(f"referring {seed} {number}"))
        image, true = draw(scene, encoder.image_size), [thing.box for thing in scene.things]
        for kind in ("true boxes", "windows") if done < window_scenes else ("true boxes",):
            boxes = true if kind == "true boxes" else windows()
            found = score_boxes(score, encoder, image, boxes, [expression.text for expression, _ in asked])
            chosen = {" ".join(key): scores.argmax(dim=0).tolist() for key, scores in found.items()}
            for i, (expression, thing) in enumerate(asked):
                picked = {key: boxes[numbers[i]] for key, numbers in chosen.items()}
                cases[kind].append({"group": expression.group, "true": true[thing], "picked": picked, "boxes": boxes})
        done += 1
    report = {"scenes": scenes, "window_scenes": min(scenes, window_scenes), "split": split, "seed": seed}
    return report | {kind: _shares(found) for kind, found in cases.items() if found}


def _shares(cases: Sequence[dict]) -> dict[str, dict[str, float | int]]:
    """Row -> group ("all" first) -> share of right boxes; "count" -> number of expressions."""
    groups = {"all": list(cases)} | {name: [case for case in cases if case["group"] == name] for name in GROUPS}
    groups = {name: found for name, found in groups.items() if found}
    rows: dict[str, dict[str, float | int]] = {"count": {name: len(found) for name, found in groups.items()}}
    for row in cases[0]["picked"]:
        rows[row] = {
            name: accuracy_at_iou([case["picked"][row] for case in found], [case["true"] for case in found], THRESHOLD)
            for name, found in groups.items()
        }
    right = {name: [_right(case) for case in found] for name, found in groups.items()}
    rows["chance"] = {name: sum(accuracy(hits) for hits in found) / len(found) for name, found in right.items()}
    rows["the most that ranking can reach"] = {name: accuracy([any(hits) for hits in right[name]]) for name in right}
    largest = {name: [max(case["boxes"], key=_area) for case in found] for name, found in groups.items()}
    rows["the largest"] = {
        name: accuracy_at_iou(largest[name], [case["true"] for case in found], THRESHOLD)
        for name, found in groups.items()
    }
    return rows


def _right(case: dict) -> list[bool]:
    return [box_iou(box, case["true"]) >= THRESHOLD for box in case["boxes"]]


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def referring_table(report: dict) -> str:
    """A report of `evaluate_referring` as Markdown, with 95 % intervals."""
    tables = []
    for kind in ("true boxes", "windows"):
        if kind not in report:
            continue
        rows = dict(report[kind])
        counts = rows.pop("count")
        scenes = report["scenes" if kind == "true boxes" else "window_scenes"]
        heads = [f"{name}, {count}" for name, count in counts.items()]
        lines = [
            f"| Acc@{THRESHOLD:g}, {kind} of {scenes} scenes | {' | '.join(heads)} |",
            "|---" * (len(heads) + 1) + "|",
        ]
        for row, shares in rows.items():
            cells = []
            for name, share in shares.items():
                low, high = confidence_interval(share, counts[name])
                cells.append(f"{share:.3f}" if row in BASELINES else f"{share:.3f} ({low:.3f}–{high:.3f})")
            lines.append(f"| {f'*{row}*' if row in BASELINES else row} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


BASELINES = ("chance", "the most that ranking can reach", "the largest")
