"""Figures of decoding: the probabilities of one step, and a beam search as a tree.

Notes:

* As in plots/figures.py, functions take strings and probabilities, not a model.
* A token outside the nucleus is labeled in words, a discarded beam is gray and dashed: no information is in color
  alone.

Paper: sections 4.1 and 4.2 (beam search). Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from blip2_lab.plots.figures import COLORS, described, float_tensor, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: One beam of one step: the token's text, the number of its parent beam in the step before, and its score.
Beam = tuple[str, int, float]


def next_token(names: Sequence[str], settings: Mapping[str, Tensor], *, top: int = 10, title: str = "") -> Figure:
    """The probability of each token under each setting: title -> probabilities [V], 0 = cannot be drawn.

    One panel for each setting, with the `top` likeliest tokens of the first setting in its order.
    """
    panels = {name: float_tensor(values) for name, values in settings.items()}
    first = next(iter(panels.values()))
    if len(names) != len(first):
        raise ValueError(f"There are {len(names)} names and {len(first)} probabilities; give one name for each.")
    order = first.argsort(descending=True)[:top].tolist()
    figure, axes = new_figure(min(3.1 * len(panels) + 1, 13), 0.34 * len(order) + 1.4, 1, len(panels), sharey=True)
    for i, (axis, (name, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        shares = values[order].tolist()
        inside = [share > 0 for share in shares]
        axis.barh(range(len(order)), shares, color=COLORS[i % 7], hatch=("", "//", "..", "xx")[i % 4], ec="white")
        for row, (share, drawn) in enumerate(zip(shares, inside, strict=True)):
            text = f" {share:.2f}" if drawn else " cannot be drawn"
            axis.text(share, row, text, va="center", fontsize=9, color="black" if drawn else "#777")
        axis.set(xlim=(0, 1.28), xticks=(0, 0.5, 1))
        axis.set_title(name, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(order)), [names[token] for token in order], fontsize=11)
    axes[0].invert_yaxis()
    figure.supxlabel("probability of being drawn", fontsize=11)
    if title:
        figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    told = [
        f"{name}: " + ", ".join(f"{names[t]} {float(values[t]):.2f}" for t in order if values[t] > 0)
        for name, values in panels.items()
    ]
    return described(figure, "Probabilities of the next token", title, told)


def beam_tree(steps: Sequence[Sequence[Beam]], *, best: Sequence[int] = (), title: str = "") -> Figure:
    """A beam search as a tree: steps from left to right, each row a beam, the best on top.

    best: the beam of each step that belongs to the final answer (drawn dark). A beam without children is dashed.
    """
    if best and len(best) != len(steps):
        raise ValueError(f"There are {len(steps)} steps, and `best` names beams of {len(best)}.")
    width = max(len(step) for step in steps)
    figure, (axis,) = new_figure(min(1.35 * len(steps) + 1, 15), 0.75 * width + 1.1)
    for column, step in enumerate(steps):
        parents = {parent for _, parent, _ in steps[column + 1]} if column + 1 < len(steps) else set(range(len(step)))
        for row, (text, parent, score) in enumerate(step):
            chosen = bool(best) and best[column] == row
            alive = row in parents
            if column:
                from_chosen = chosen and best[column - 1] == parent
                line = dict(color="black", lw=2.4) if from_chosen else dict(color="#999", lw=1.1)
                axis.plot([column - 0.76, column - 0.24], [parent, row], zorder=1, **line)
            edge, style = (COLORS[0], "-") if chosen else ("#555", "-") if alive else ("#aaa", "--")
            box = dict(boxstyle="round,pad=0.3", fc=COLORS[0] if chosen else "white", ec=edge, ls=style, lw=1.4)
            color = "white" if chosen else "black" if alive else "#888"
            axis.text(column, row, f"{text}\n{score:.2f}", ha="center", va="center", fontsize=9, bbox=box, color=color)
    axis.set(xlim=(-0.6, len(steps) - 0.4), ylim=(width - 0.45, -0.55))
    axis.set_xticks(range(len(steps)), [str(i + 1) for i in range(len(steps))])
    axis.set_yticks(range(width), [f"beam {i + 1}" for i in range(width)])
    axis.tick_params(length=0, labelsize=10)
    axis.set_xlabel("token (below it: log-probability of the sequence so far)", fontsize=11)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    told = [f"Token {i + 1}: " + "; ".join(f"{t} {s:.2f}" for t, _, s in step) for i, step in enumerate(steps)]
    if best:
        told.append("Best path: " + " ".join(step[row][0] for step, row in zip(steps, best, strict=True)))
    return described(figure, "Beam search as a tree, the best beam of each step first", title, told)
