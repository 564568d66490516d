"""Grounding: attribution maps scored against the true region of the thing they should show.

`evaluate_grounding` is where to begin; the scores of one map are pure functions (`pointing_game`, `mass_inside`,
`iou`).

    blip2-lab evaluate grounding --method all --scenes 300 --out docs/what-queries-see

Notes:

* In the picture book, the thing that a phrase or a word refers to has a mask, so a map can be scored. Scenes have at
  least two things: a map that highlights everything drawn, independent of the phrase, is not an explanation.
* Four baselines do not use the model: *random*, *center*, *things* (everything drawn: the bar for selecting the right
  thing) and *truth* (the thing itself on the grid of patches, the upper bound of a map of patches).
* The region of the thing and what the model uses are different questions. Pointing game, mass and IoU measure the
  first; insertion and deletion measure the second.
* If a map does not change when the trained weights are shuffled, it explains the architecture, not the model
  ("sanity").
* Each scene's result is written as a line of JSON at once: an interrupted evaluation resumes.

Paper: none (section 3.1 describes the role of the queries). Notebook: 09.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from blip2_lab.evaluation.metrics import exact_match, middle_95_percent
from blip2_lab.interpret.attribution import METHODS, blank, defined_methods
from blip2_lab.interpret.targets import ItcScore, ItmScore, Score, WordScore, reader_of
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook import draw, words
from blip2_lab.picturebook.scene import HELD_OUT_BOOK, Scene, pick, sample_scene

TARGETS = ("itm", "itc", "word")  #: a phrase by ITM, the same phrase by ITC, the answer to a question
BASELINES = ("random", "center", "things", "truth")
SCORES = ("pointing", "mass", "iou", "insertion", "deletion", "sanity")
SANITY_SCENES = 50  #: number of scenes on which shuffled weights are tested
CURVE_STEPS = 5

Say = Callable[[str], None]

# --- Scores of one map: pure functions ------------------------------------------------------------------------------


def evidence(heat: Tensor) -> Tensor:
    """heat [h, w] -> its positive part; a map without positive values becomes uniform."""
    positive = heat.detach().float().clamp(min=0)
    return positive if positive.sum() > 0 else torch.ones_like(positive)


def enlarged(heat: Tensor, size: int) -> Tensor:
    """heat [h, w] -> [size, size]: each pixel has the value of its patch."""
    across = torch.arange(size, device=heat.device) * heat.shape[0] // size
    return heat[across][:, across]


def pointing_game(heat: Tensor, box: tuple[float, float, float, float]) -> float:
    """1 if the center of the hottest patch lies in the box (left, top, right, bottom, fractions of the sides), else 0.

    If several patches are hottest: the share of them in the box. (Zhang et al., 2016, arXiv 1608.00507.)
    """
    heat = evidence(heat)
    y, x = (
        ((indices + 0.5) / side) for indices, side in zip((heat == heat.max()).nonzero().T, heat.shape, strict=True)
    )
    left, top, right, bottom = box
    return ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).float().mean().item()


def mass_inside(heat: Tensor, mask: Tensor) -> float:
    """The share of the positive evidence [h, w] that lies on mask bool[S, S]. A uniform map scores the mask's area."""
    pixels = enlarged(evidence(heat), len(mask))
    return (pixels[mask].sum() / pixels.sum()).item()


def iou(heat: Tensor, mask: Tensor, threshold: float = 0.5) -> float:
    """Intersection over union of mask bool[S, S] and the pixels of at least `threshold` times the maximum."""
    pixels = enlarged(evidence(heat), len(mask))
    hot = pixels >= threshold * pixels.max()
    return ((hot & mask).sum() / (hot | mask).sum()).item()


def box_mask(box: tuple[float, float, float, float], size: int) -> Tensor:
    """bool[size, size]: the pixels whose center lies in the box."""
    center = (torch.arange(size) + 0.5) / size
    left, top, right, bottom = box
    return ((center >= top) & (center <= bottom))[:, None] & ((center >= left) & (center <= right))[None, :]


@torch.no_grad()
def insertion_deletion_curves(
    score: Score, pixels: Tensor, heat: Tensor, *, steps: int = CURVE_STEPS, seed: int = 0
) -> Tensor:
    """The score's probability while patches are inserted, hottest first, and while they are deleted: [2, steps + 1].

    Row 0, insertion, starts from the blank image; row 1, deletion, from the complete one (Petsiuk et al., 2018,
    arXiv 1806.07421). Patches of equal heat are in random order.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = heat.detach().flatten().double().cpu()
    noise = torch.rand(len(flat), generator=generator, dtype=torch.float64)
    order = torch.tensor(sorted(range(len(flat)), key=lambda i: (-flat[i].item(), noise[i].item())))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), steps + 1).round()
    chosen = rank.view(heat.shape)[None] < counts[:, None, None]  # bool[steps + 1, h, w], the hottest patches
    chosen = torch.stack([enlarged(one, pixels.shape[-1]) for one in chosen]).to(pixels.device)[:, None]
    blank_pixels = blank(pixels)
    inserted = torch.where(chosen, pixels, blank_pixels)  # from the blank image to the complete one
    deleted = torch.where(chosen[1:-1], blank_pixels, pixels)
    values = score.probability(score(torch.cat([inserted, deleted]))).float().cpu()
    insertion, between = values[: steps + 1], values[steps + 1 :]
    return torch.stack([insertion, torch.cat([insertion[-1:], between, insertion[:1]])])


def area(curve: Tensor) -> float:
    """The area under a curve over [0, 1]: the mean of its trapezoids."""
    return ((curve[1:] + curve[:-1]) / 2).mean().item()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation. Ties have their mean rank; a uniform map gives 0."""
    ranks = torch.stack([_ranks(x.detach().flatten().double().cpu()) for x in (a, b)])
    ranks -= ranks.mean(dim=1, keepdim=True)
    norms = ranks.norm(dim=1)
    return (ranks[0] @ ranks[1] / norms.prod()).item() if norms.min() > 0 else 0.0


def _ranks(x: Tensor) -> Tensor:
    return (x[:, None] > x[None, :]).double().sum(dim=1) + (x[:, None] == x[None, :]).double().sum(dim=1) / 2


def bootstrap(values: Sequence[float], *, samples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """The mean and its 95 % interval, from resampled scenes. Raises ValueError for no values."""
    if not len(values):
        raise ValueError("There is nothing to take a mean of: no scene was scored.")
    x = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = x[torch.randint(len(x), (samples, len(x)), generator=generator)].mean(dim=1)
    return x.mean().item(), *middle_95_percent(means)


# --- Baselines, without a model -------------------------------------------------------------------------------------


def baseline(name: str, scene: Scene, thing: int, side: int, seed: int) -> Tensor:
    """A map [side, side] by its name in `BASELINES`."""
    if name == "random":
        return torch.rand(side, side, generator=torch.Generator().manual_seed(seed))
    if name == "center":
        distance = ((torch.arange(side) + 0.5) / side - 0.5).square()
        return (-(distance[:, None] + distance[None, :]) / (2 * 0.25**2)).exp()
    if name not in BASELINES:
        raise ValueError(f"There is no baseline {name!r}; choose one of {', '.join(BASELINES)}.")
    masks = torch.from_numpy(draw.masks(scene, 16 * side)).float()
    shown = masks[thing] if name == "truth" else masks.amax(dim=0)
    return shown.view(side, 16, side, 16).mean(dim=(1, 3))


# --- Test cases -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A scene and one of its things: a phrase that fits only this thing, and a question about it with its answer."""

    number: int
    scene: Scene
    thing: int
    phrase: str
    question: str
    answer: str


def cases(seed: int = HELD_OUT_BOOK, split: str = "in") -> Iterator[Case]:
    """An unlimited iterator over scenes of two to four things, one of which its color, kind or both identify."""
    number = -1
    while True:
        number += 1
        scene, rng = sample_scene(seed, number, split), Random(f"grounding {seed} {number}")
        thing = pick(rng, scene.things)
        same = [t for t in scene.things if (t.color, t.kind) == (thing.color, thing.kind)]
        ask, asked, answer = pick(
            rng, (("what color is the {}?", "color", thing.color), ("what is the {}?", "kind", thing.kind))
        )
        names = words.references(scene, thing, asked)
        if len(scene.things) < 2 or len(same) > 1 or not names:
            continue
        phrase = words.with_article(words.phrase(thing, "color"))
        yield Case(number, scene, scene.things.index(thing), phrase, ask.format(pick(rng, names)), answer)


def scores_of(model: Stage2Model, stage1: Stage1Model | None, case: Case) -> dict[str, Score]:
    """The scores of a case that are explained: target -> score. Without stage 1, the word only."""
    prompt = model.language_model.question_prompt.format(case.question)
    found: dict[str, Score] = {"word": WordScore(model, prompt, case.answer)}
    if stage1 is not None:
        found |= {"itm": ItmScore(stage1, case.phrase), "itc": ItcScore(stage1, case.phrase)}
    return {target: found[target] for target in TARGETS if target in found}


def shuffle_trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in which the elements of every trained tensor are shuffled: the same scales without training.

    The frozen parts (image encoder, language model) and the tokenizer are shared with the model, not copied.
    """
    frozen = [getattr(model, name, None) for name in ("image_encoder", "language_model", "tokenizer", "stage1")]
    twin = copy.deepcopy(model, {id(part): part for part in frozen if part is not None})
    if isinstance(model, Stage2Model) and model.bridge.deep_fusion:  # else the shared one reads by the trained blocks
        twin.language_model = model.language_model.with_deep_fusion(twin.bridge)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if not name.startswith(("image_encoder.", "language_model.")):
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return twin


# --- The evaluation -------------------------------------------------------------------------------------------------


def evaluate_grounding(
    model: Stage2Model,
    *,
    methods: Sequence[str] | None = None,
    scenes: int = 300,
    split: str = "in",
    seed: int = HELD_OUT_BOOK,
    rows: Path | None = None,
    say: Say = lambda _: None,
) -> dict:
    """Every method and baseline on `scenes` scenes -> a report ready for JSON (see `grounding_table`).

    methods  names of `METHODS`; None: all that are defined for this model's bridge
    rows     a file with one line for each scene; lines of the same model and settings are reused
    Raises ValueError for an unknown method, one that is not defined for the bridge, or no scene.
    """
    defined = defined_methods(reader_of(model.bridge))
    methods = defined if methods is None else methods
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"There is no method {', '.join(unknown)}; choose from {', '.join(METHODS)} or all.")
    if missing := [name for name in methods if name not in defined]:
        raise ValueError(
            f"This bridge has no attention to the patches, so {', '.join(missing)} cannot be computed: choose from "
            f"{', '.join(defined)}, or all."
        )
    if scenes < 1:
        raise ValueError(f"scenes is {scenes}; at least 1 is needed.")
    about = {"split": split, "seed": seed, "methods": list(methods), "model": trained_fingerprint(model)}
    done = _read_rows(rows, about)
    twins = (shuffle_trained(model), None if model.stage1 is None else shuffle_trained(model.stage1))
    asked = cases(seed, split)
    results, started = [], time.monotonic()
    for count in range(scenes):
        case = next(asked)
        if case.number not in done:
            done[case.number] = _measure(model, twins if count < SANITY_SCENES else None, case, methods)
            if rows is not None:
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[case.number]) + "\n")
            passed = time.monotonic() - started
            say(f"scene {count + 1} of {scenes}, {passed:.0f} s so far")
        results.append(done[case.number])
    return {**about, "scenes": scenes, **summary(results)}


def trained_fingerprint(model: Stage2Model) -> str:
    """A hash of the trained weights."""
    digest = hashlib.sha256()
    for module in (model.bridge, model.stage1):
        for parameter in module.parameters() if module is not None else ():
            if parameter.requires_grad:  # the image encoder inside stage 1 is frozen
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_rows(path: Path | None, about: dict) -> dict[int, dict]:
    """The lines on disk of these settings; a file of other settings is overwritten."""
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines or lines[0] != json.dumps(about):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        return {}
    complete = []
    for line in lines[1:]:
        try:
            complete.append(json.loads(line))
        except json.JSONDecodeError:  # an incomplete last line of an interrupted evaluation
            path.write_text("\n".join([lines[0], *map(json.dumps, complete)]) + "\n", encoding="utf-8")
            break
    return {row["scene"]: row for row in complete}


def _measure(
    model: Stage2Model, twins: tuple[Stage2Model, Stage1Model | None] | None, case: Case, methods: Sequence[str]
) -> dict:
    """One scene's line: target -> method -> scores."""
    encoder = model.image_encoder
    size, side = encoder.image_size, encoder.image_size // encoder.model.config.patch_size
    pixels = encoder.preprocess([draw.draw(case.scene, size)])
    mask = torch.from_numpy(draw.masks(case.scene, size)[case.thing])
    prompt = model.language_model.question_prompt.format(case.question)
    answer = model.generate(pixels, prompt, num_beams=1)[0]
    line: dict = {"scene": case.number, "right": exact_match(answer, case.answer), "targets": {}}
    shuffled_scores = scores_of(*twins, case) if twins else {}
    for target, score in scores_of(model, model.stage1, case).items():
        found: dict[str, dict[str, float]] = {}
        for name in BASELINES:
            heat = baseline(name, case.scene, case.thing, side, case.number)
            found[name] = _score(score, pixels, heat, mask, case)
        change = (score(pixels) - score(blank(pixels))).item()
        for name in methods:
            start = time.perf_counter()
            explanation = METHODS[name](score, pixels)
            seconds = time.perf_counter() - start
            heat = explanation.total.cpu()
            found[name] = {**_score(score, pixels, heat, mask, case), "seconds": seconds}
            if explanation.delta is not None:
                found[name] |= {"delta": explanation.delta, "change": change}
            if shuffled_scores:
                found[name]["sanity"] = rank_correlation(heat, METHODS[name](shuffled_scores[target], pixels).total)
        line["targets"][target] = found
    return line


def _score(score: Score, pixels: Tensor, heat: Tensor, mask: Tensor, case: Case) -> dict[str, float]:
    box = case.scene.things[case.thing].box
    insertion, deletion = insertion_deletion_curves(score, pixels, heat, seed=case.number)
    return {
        "pointing": pointing_game(heat, box),
        "mass": mass_inside(heat, box_mask(box, len(mask))),
        "iou": iou(heat, mask),
        "insertion": area(insertion),
        "deletion": area(deletion),
    }


def summary(results: Sequence[Mapping]) -> dict:
    """Lines of scenes -> target -> method -> score -> [mean, low, high], and the share of correct answers."""
    targets: dict = {}
    for target in results[0]["targets"]:
        targets[target] = {}
        for name, first in results[0]["targets"][target].items():
            lines = [result["targets"][target][name] for result in results]
            found = {
                what: list(bootstrap([line[what] for line in lines if what in line]))
                for what in (*SCORES, "seconds")
                if what in first
            }
            if "delta" in first:  # completeness error relative to the change, median over scenes
                shares = [abs(line["delta"]) / max(abs(line["change"]), 1e-6) for line in lines]
                found["missing"] = torch.tensor(shares, dtype=torch.float64).median().item()
            targets[target][name] = found
    return {"right": list(bootstrap([float(result["right"]) for result in results])), "targets": targets}


# --- The report -----------------------------------------------------------------------------------------------------

TITLES = {
    "itm": 'ITM, "a red boat"',
    "itc": 'ITC, "a red boat"',
    "word": "the answer to a question",
}


def trusted(report: Mapping, target: str) -> list[str]:
    """The methods that find the right thing and depend on the trained weights; best pointing first.

    Their interval of *pointing* is above that of *things* (everything drawn), and their map differs from that of
    shuffled weights (the interval of the rank correlation is below 0.5).
    """
    found = report["targets"][target]
    bar = found["things"]["pointing"][2]
    good = [
        name
        for name in report["methods"]
        if found[name]["pointing"][1] > bar and found[name].get("sanity", (0, 0, 1))[2] < 0.5
    ]
    return sorted(good, key=lambda name: -found[name]["pointing"][0])


def best(report: Mapping, target: str) -> str:
    """The method with the best pointing among the trusted ones, or among all if none is trusted."""
    found = report["targets"][target]
    return max(trusted(report, target) or report["methods"], key=lambda name: found[name]["pointing"][0])


def grounding_table(report: Mapping) -> str:
    """The report as Markdown: for each target, methods x scores with 95 % intervals."""
    tables = []
    for target, found in report["targets"].items():
        heads = [f"{TITLES[target]}, {report['scenes']} scenes", "pointing ↑", "mass in box ↑", "IoU ↑"]
        heads += ["insertion ↑", "deletion ↓", "same when shuffled ↓", "missing", "seconds"]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for name, scores in found.items():
            cells = [_interval(scores.get(what)) for what in SCORES]
            cells.append(f"{scores['missing']:.1%}" if "missing" in scores else "–")
            cells.append(f"{scores['seconds'][0]:.2f}" if "seconds" in scores else "–")
            label = f"*{name}*" if name in BASELINES else f"**{name}**" if name in trusted(report, target) else name
            lines.append(f"| {label} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _interval(values: Sequence[float] | None) -> str:
    """`0.91 (0.88–0.94)`."""
    if values is None:
        return "–"
    mean, low, high = values
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"
