"""The results of grounding.py and query_probes.py as a page with figures: `docs/what-queries-see.md`.

`write` is where to begin.

    blip2-lab evaluate grounding --method all --scenes 300 --out docs/what-queries-see

Notes:

* All numbers and verdicts come from the report. Sentences that compare are chosen by the 95 % intervals, so they follow
  the numbers.
* The page, its figures and the numbers are written together, so they agree.

Paper: none. Notebook: 09.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blip2_lab.interpret import grounding, query_probes
from blip2_lab.interpret.attribution import METHODS, defined_methods
from blip2_lab.interpret.grounding import BASELINES, TITLES
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.picturebook.draw import draw
from blip2_lab.plots.attention import intervals, methods_side_by_side
from blip2_lab.plots.figures import curves, matrix, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCES = {
    "raw": "cross-attention, mean over layers and heads",
    "rollout": "attention rollout through Q-Former and image encoder (Abnar and Zuidema, 2020)",
    "gradient": "cross-attention times its gradient (Grad-CAM, as in ALBEF)",
    "relevance": "gradient-weighted attention through all layers (Chefer et al., 2021)",
    "integrated-gradients": "integrated gradients on the pixels (captum)",
    "layer": "integrated gradients on the image features (captum)",
    "occlusion": "one patch blanked at a time (captum)",
    "shapley": "Shapley values of blocks of patches, sampled (captum)",
}


def write(folder: Path, report: Mapping, model: Stage2Model) -> Path:
    """Write numbers and figures to `folder`, and the page next to it as `folder`.md -> the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {**report, "recommended": recommended(report)}
    (folder / "numbers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, figure in figures(report, model).items():
        (folder / f"{name}.png").write_bytes(png(figure, dpi=90))
    page_path = folder.with_name(f"{folder.name}.md")
    page_path.write_text(page(report, folder.name), encoding="utf-8")
    return page_path


# --- Figures --------------------------------------------------------------------------------------------------------


def figures(report: Mapping, model: Stage2Model) -> dict[str, Figure]:
    """File name -> figure. The example is the first scene; its maps are computed again."""
    found = {f"pointing-{target}": pointing_figure(report, target) for target in report["targets"]}
    found["example"] = example_figure(report, model)
    if (about := report["queries"]) is None:
        return found
    names = [str(i) for i in range(len(about["probe"]))]
    read = torch.tensor(about["probe"])
    found["probe"] = matrix(
        read, names, list(query_probes.NAMES), title="What can be read off each query", label="area under the ROC curve"
    )
    found["alike"] = matrix(
        torch.tensor(about["alike"]), names, names, title="How alike the queries respond", label="cosine", digits=1
    )
    found["without"] = without_figure(about, names)
    kept = {int(count): values for count, values in about["fewer"].items()}
    means = [sum(values) / len(values) for values in kept.values()]
    found["fewer"] = curves(
        {"mean of the draws": (list(kept), means)},
        x="queries kept (drawn at random, nothing retrained)",
        y="visual questions right",
        levels={"no picture": means[0]},
    )
    return found


def pointing_figure(report: Mapping, target: str) -> Figure:
    found = report["targets"][target]
    rows = {name: scores["pointing"] for name, scores in found.items()}
    title = f"{TITLES[target]}: does the hottest patch lie in its box?"
    return intervals(rows, x="share of scenes", title=title, levels={"everything drawn": found["things"]["pointing"]})


def example_figure(report: Mapping, model: Stage2Model) -> Figure:
    case = next(grounding.cases(report["seed"], report["split"]))
    scores = grounding.scores_of(model, model.stage1, case)
    target = "itm" if "itm" in scores else "word"
    picture = draw(case.scene, model.image_encoder.image_size)
    pixels = model.image_encoder.preprocess([picture])
    maps = {name: METHODS[name](scores[target], pixels).total for name in report["methods"]}
    return methods_side_by_side(draw(case.scene, 384), maps, box=case.scene.things[case.thing].box)


def without_figure(about: Mapping, names: Sequence[str]) -> Figure:
    types = [name for name in about["with_all"] if not name.endswith("_count") and name not in ("total", "knowledge")]
    lost = torch.tensor([[about["with_all"][t] - one[t] for t in types] for one in about["without"]])
    return matrix(lost, names, types, title="Accuracy lost without each query", label="accuracy lost", digits=2)


# --- The page -------------------------------------------------------------------------------------------------------


def page(report: Mapping, folder: str) -> str:
    """The report as Markdown, with links to the figures in `folder`."""
    paragraphs = [
        "# What the queries see",
        f"Written by one command, numbers, sentences and figures: `{_command(report, folder)}`. The model is the one "
        f"named there (trained weights `{report['model']}`), the scenes are {report['scenes']} that training never "
        f'saw (book {report["seed"]}, split "{report["split"]}"), each with two to four things. Brackets are 95 % '
        "intervals from resampled scenes.",
        "People have asked for years for attention maps of the Q-Former that make sense. In a drawn world the place of "
        "everything is known, so a map need not look right: it can *be* right or wrong. Each map below answers one "
        'question: where is "a red boat", by ITM or by ITC, or the thing an answer is about.',
        *([f"{query_probes.NO_QUERIES} The maps below are of its answers."] if report["queries"] is None else []),
        *_trust(report, folder),
        *(_noise(report) if report["queries"] is not None else []),
        *_model_itself(report),
        *(_each_query(report, folder) if report["queries"] is not None else []),
        f"The app shows where a word came from with *{recommended(report)}*: "
        + (
            "the best pointing among the methods that are trusted and"
            if _is_recommendation_trusted(report)
            else "none that is trusted is"
        )
        + (
            " take less than a second"
            if _is_recommendation_trusted(report)
            else " quick enough; it points best among the quick ones"
        )
        + " (`numbers.json`, copied beside the weights as `grounding.json`).",
        "## What this does not show",
        "One model of a few million parameters in one drawn world, pictures of 64 patches: on photographs, and behind "
        "a deeper image encoder, the ranking may be another one, though the same command runs on any "
        "model with a language model. The box says where the thing is, not what the model uses: a model may well "
        "read a boat off the water around it. A blanked patch is a picture the encoder has never seen. And dropping "
        "queries without retraining is not training with fewer.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _command(report: Mapping, folder: str) -> str:
    everything = (defined_methods("qformer"), defined_methods(None))
    methods = "all" if list(report["methods"]) in everything else ",".join(report["methods"])
    model = "" if report["name"] == "micro" else f" --model {report['name']}"
    split = "" if report["split"] == "in" else f" --split {report['split']}"
    scenes = f"--scenes {report['scenes']}"
    return f"blip2-lab evaluate grounding --method {methods} {scenes}{model}{split} --out docs/{folder}"


def _trust(report: Mapping, folder: str) -> list[str]:
    paragraphs = ["## Which maps can be trusted"]
    for target, found in report["targets"].items():
        things, center = found["things"]["pointing"], found["center"]["pointing"]
        lines = []
        if "raw" in found:
            lines.append(
                f"**{_sentence_target(target)}: raw cross-attention is {_compared(found['raw']['pointing'], center)} "
                f"the center of the picture**: its hottest patch lies in the box in {_share(found['raw']['pointing'])} "
                f"of the scenes, the center's in {_share(center)}, a random one in "
                f"{_share(found['random']['pointing'])}."
            )
        lines.append(f"Pointing at anything that is drawn, whatever was asked, gets {_share(things)}.")
        good = grounding.trusted(report, target)
        if good:
            listed = ", ".join(f"{name} {_share(found[name]['pointing'])}" for name in good)
            lines.append(f"Better than that, and gone when the trained weights are shuffled: {listed}.")
        else:
            lines.append("**No method is better than that here: do not believe any map of this score.**")
        paragraphs += [" ".join(lines), f"![pointing game, {target}]({folder}/pointing-{target}.png)"]
    paragraphs += [
        "*pointing*: the hottest patch's center lies in the thing's box. *mass in box*: share of the positive evidence "
        "there. *IoU*: with the thing's mask, at half of the maximum. *insertion*, *deletion*: mean probability while "
        "patches come or go, hottest first. *same when shuffled*: rank correlation with the map of shuffled weights, "
        f"{min(grounding.SANITY_SCENES, report['scenes'])} scenes. *missing*: what the map lacks of the score's change "
        "from a blank picture, at the median scene. Bold: trusted; slanted: maps that have seen no model.",
        grounding.grounding_table(report),
        "The methods: "
        + "; ".join(f"*{name}*, {SOURCES[name]}" for name in report["methods"] if name in SOURCES)
        + ".",
        f"![every method on the first scene]({folder}/example.png)",
    ]
    return paragraphs


def _noise(report: Mapping) -> list[str]:
    habit = report["queries"]["attention"]
    grid = len(report["queries"]["attention_mean"][0]) - 1
    return [
        "## Why raw attention looks like noise",
        f"Over {report['queries']['scenes']} pictures, a query of stage 2 gives {habit['cls']:.0%} of its attention "
        f"to [CLS], which has no place (an even look at {grid} patches and [CLS] would give {1 / (grid + 1):.1%}). "
        f"What is left has {habit['even']:.0%} of the entropy of an even look. Two different pictures get looks that "
        f"correlate with {habit['fixed']:.2f} from the same query, and one picture gets looks that correlate with "
        f"{habit['same']:.2f} from two different queries. "
        + (
            "So more of the pattern belongs to the query than to the picture. "
            if habit["fixed"] > 0.5
            else "So little of the pattern is the query's habit. "
        )
        + "But after the image encoder a patch's token is not only about its patch, and nothing in the map knows which "
        "of the values read mattered. Gradients add that.",
    ]


def _model_itself(report: Mapping) -> list[str]:
    lines = ["## Is it what the model used?"]
    for target, found in report["targets"].items():
        ranked = sorted(
            (name for name in report["methods"]),
            key=lambda name: found[name]["deletion"][0] - found[name]["insertion"][0],
        )
        first, chance = found[ranked[0]], found["random"]
        lines.append(
            f"{_sentence_target(target)}: inserting and deleting patches in the order of *{ranked[0]}* keeps the mean "
            f"probability at {_plain(first['insertion'])} and {_plain(first['deletion'])}; in random order it is "
            f"{_plain(chance['insertion'])} and {_plain(chance['deletion'])}, in the order of the thing's true place "
            f"{_plain(found['truth']['insertion'])} and {_plain(found['truth']['deletion'])}."
        )
    right = report["right"]
    lines.append(
        f"The model's own answer to the question is right in {_share(right)} of these scenes; the maps explain the "
        "true answer's probability in all of them."
    )
    return lines


def _each_query(report: Mapping, folder: str) -> list[str]:
    about = report["queries"]
    read = torch.tensor(about["probe"])
    best = {name: (int(values.argmax()), values) for name, values in query_probes.group_means(read).items()}
    said = "; ".join(
        f"{name} {values.max():.2f} (query {query}; mean of all {values.mean():.2f})"
        for name, (query, values) in best.items()
    )
    lost = torch.tensor([about["with_all"]["total"] - one["total"] for one in about["without"]])
    same = torch.tensor(about["alike"])
    between = (same.sum() - same.diagonal().sum()) / (same.numel() - len(same))
    count = about["with_all"]["total_count"]
    kept = {int(number): sum(values) / len(values) for number, values in about["fewer"].items()}
    whole = kept[max(kept)]
    enough = min(number for number, share in kept.items() if share >= kept[0] + 0.9 * (whole - kept[0]))
    worst = int(lost.argmax())
    return [
        "## What each query does",
        "A linear probe reads off each query what the scene shows. Area under the ROC curve on held-out scenes (0.5 is "
        f"a guess), best query by group: {said}.",
        f"![what can be read off each query]({folder}/probe.png)",
        f"The responses of two queries to the same pictures have a cosine of {between:.2f} on average (1: copies of "
        f"one another). Without the one query that is missed most (query {worst}), {lost[worst]:.1%} of {count} visual "
        f"questions are lost; without the median query {lost.median():.1%}. With all {len(same)} queries {whole:.1%} "
        f"are right, without any {kept[0]:.1%}; nine tenths of the difference need {enough} queries drawn at random.",
        f"![accuracy lost without each query]({folder}/without.png)",
        f"![how alike the queries respond]({folder}/alike.png) ![how many queries are needed]({folder}/fewer.png)",
    ]


def _sentence_target(target: str) -> str:
    return {"itm": "A phrase, by ITM", "itc": "A phrase, by ITC", "word": "The answer to a question"}[target]


def _compared(a: Sequence[float], b: Sequence[float]) -> str:
    """Compare two (mean, low, high) by their intervals."""
    if a[1] > b[2]:
        return "better than"
    return "worse than" if a[2] < b[1] else "no better than"


def _share(values: Sequence[float]) -> str:
    mean, low, high = values
    return f"{mean:.0%} ({low:.0%}–{high:.0%})"


def _plain(values: Sequence[float]) -> str:
    return f"{values[0]:.2f}"


def recommended(report: Mapping, target: str = "word", seconds: float = 1.0) -> str:
    """The method for a page that must answer within `seconds`: the best pointing among the trusted methods of that
    speed, or among all of that speed, or the fastest."""
    found = report["targets"][target]
    quick = [name for name in report["methods"] if found[name]["seconds"][0] <= seconds and name not in BASELINES]
    good = [name for name in grounding.trusted(report, target) if name in quick]
    fastest = min(report["methods"], key=lambda name: found[name]["seconds"][0])  # a large model may be slow in all
    return max(good or quick or [fastest], key=lambda name: found[name]["pointing"][0])


def _is_recommendation_trusted(report: Mapping) -> bool:
    """Whether the recommended method is a trusted one."""
    return recommended(report) in grounding.trusted(report, "word")
