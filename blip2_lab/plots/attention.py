"""Figures of attention and attribution: tensors and strings in, a figure or an image out.

`overlay` is what the app shows; the other functions are for notebooks.

Notes:

* The maps of one figure share one scale unless stated otherwise, so that a weak map looks weak.
* `overlay` makes an image without matplotlib, in milliseconds: the app calls it after every click.
* The explorers (`explore_layers`, `explore_words`) are menus over these functions. Without widgets, the figure stays.

Paper: Figure 2 (the queries). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip2_lab.plots.figures import COLORS, attention_on_image, bars, described, new_figure
from blip2_lab.plots.widgets import explorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]  #: left, top, right, bottom, as fractions of the sides


def overlay(
    image: Image.Image, heat: Tensor, *, size: int = 384, color: tuple[int, int, int] = (255, 176, 0)
) -> Image.Image:
    """The image in gray, colored by the map [h, w] (positive part, relative to its maximum)."""
    positive = heat.detach().float().clamp(min=0).cpu()
    share = positive / positive.max() if positive.max() > 0 else positive
    mask = Image.fromarray((share * 200).numpy().astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    gray = image.convert("L").convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return Image.composite(Image.new("RGB", (size, size), color), gray, mask)


def queries_on_image(
    image: Image.Image, maps: Tensor, *, notes: Sequence[str] = (), columns: int = 8, shared: bool = False
) -> Figure:
    """Attention maps of the queries [Q, h, w], one panel each, with a note under its number.

    shared  one scale for all; else each map has its own, so that an almost uniform map shows its pattern (and noise)
    """
    titles = [f"{i}" + (f"\n{notes[i]}" if notes else "") for i in range(len(maps))]
    limits = (float(maps.min()), float(maps.max())) if shared else None
    return attention_on_image(image, maps, titles, columns=columns, limits=limits)


def words_on_image(
    image: Image.Image, words: Sequence[str], maps: Tensor, probabilities: Sequence[float], *, columns: int = 6
) -> Figure:
    """Attribution maps of the words of an answer [W, h, w], each under the word and its probability."""
    titles = [f"{word}\n{probability:.0%}" for word, probability in zip(words, probabilities, strict=True)]
    return attention_on_image(image, maps.clamp(min=0), titles, columns=columns)


def methods_side_by_side(
    image: Image.Image, maps: Mapping[str, Tensor], *, box: Box | None = None, notes: Mapping[str, str] | None = None
) -> Figure:
    """Method -> map [h, w] of the same score, positive parts, each on its own scale (their units differ).

    box  of the thing in question, dashed on each panel
    """
    titles = [f"{name}\n{(notes or {}).get(name, '')}".rstrip() for name in maps]
    stacked = torch.stack([heat.detach().float().cpu().clamp(min=0) for heat in maps.values()])
    return attention_on_image(image, stacked, titles, columns=5, boxes=[box] if box else [])


def layers_and_heads(image: Image.Image, maps: Tensor, layers: Sequence[int], *, query: int | None = None) -> Figure:
    """maps [layers, H, Q, h, w] -> a grid with a row for each layer and a column for each head; the mean over queries,
    or one `query`."""
    chosen = maps.mean(dim=2) if query is None else maps[:, :, query]
    titles = [f"layer {layer}, head {head}" for layer in layers for head in range(maps.shape[1])]
    return attention_on_image(image, chosen.flatten(0, 1), titles, columns=maps.shape[1])


def queries_and_caption(cosines: Tensor, logits: Tensor, caption: str) -> tuple[Figure, Figure]:
    """The scores of each query for a caption: ITC's cosines [Q], of which ITC takes the maximum, and ITM's logits [Q]
    (match minus no match), of which ITM takes the mean -> two figures."""
    names = [str(i) for i in range(len(cosines))]
    best = int(cosines.argmax())
    itc = bars(
        {"cosine": cosines},
        names,
        y="cosine with the caption",
        title=f"ITC takes the best: query {best} ({cosines[best]:.2f}) — {caption}",
        levels={"best": float(cosines.max())},
    )
    itm = bars(
        {"logit": logits},
        names,
        y="match minus no match",
        title=f"ITM takes the mean: {logits.mean():.2f} — {caption}",
        levels={"mean": float(logits.mean())},
        digits=1,
    )
    return itc, itm


def intervals(
    rows: Mapping[str, Sequence[float]], *, x: str, title: str = "", levels: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """name -> (mean, low, high) as dots with error bars, one below the other; levels: named bands behind them."""
    figure, (axis,) = new_figure(8, 1.2 + 0.42 * len(rows))
    for i, (name, (_, low, high)) in enumerate((levels or {}).items()):
        axis.axvspan(low, max(high, low + 1e-3), color=COLORS[(i + 1) % 7], alpha=0.25, label=name)
    for row, (mean, low, high) in enumerate(rows.values()):
        axis.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color=COLORS[0], capsize=4, ms=7)
        axis.text(high, row, f"  {mean:.2f}", va="center", fontsize=10)
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlabel=x, ylim=(len(rows) - 0.5, -0.5))
    axis.margins(x=0.12)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if levels:
        axis.legend(frameon=False, fontsize=10)
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    told = [f"{name}: {mean:.2f}, from {low:.2f} to {high:.2f}" for name, (mean, low, high) in rows.items()]
    told += [f"Band, {name}: {low:.2f} to {high:.2f}" for name, (_, low, high) in (levels or {}).items()]
    return described(figure, f"Intervals of {x}", title, told)


# --- Explorers ------------------------------------------------------------------------------------------------------


def explore_layers(image: Image.Image, maps: Tensor, layers: Sequence[int]):
    """Menus for layer, head and query of maps [layers, H, Q, h, w]; -1 is the mean. Without ipywidgets: all heads."""

    def view(layer: int, head: int, query: int) -> Figure:
        chosen = maps[list(layers).index(layer)]
        chosen = chosen.mean(dim=0) if head < 0 else chosen[head]
        heat = chosen.mean(dim=0) if query < 0 else chosen[query]
        what = f"layer {layer}, {'all heads' if head < 0 else f'head {head}'}"
        title = f"{what}\n{'all queries' if query < 0 else f'query {query}'}"
        return attention_on_image(image, heat[None], [title])

    try:
        import ipywidgets
    except ImportError:
        return layers_and_heads(image, maps, layers)
    return explorer(
        view,
        layer=ipywidgets.SelectionSlider(options=list(layers)),
        head=ipywidgets.IntSlider(value=-1, min=-1, max=maps.shape[1] - 1),
        query=ipywidgets.IntSlider(value=-1, min=-1, max=maps.shape[2] - 1),
    )


def explore_words(image: Image.Image, words: Sequence[str], maps: Mapping[str, Tensor]):
    """A menu for the word; shows the map of each method: method -> maps [W, h, w]. Without ipywidgets: the last."""

    def view(word: int) -> Figure:
        return methods_side_by_side(image, {f"{words[word]}: {method}": rows[word] for method, rows in maps.items()})

    try:
        import ipywidgets
    except ImportError:
        return view(len(words) - 1)
    return explorer(view, word=ipywidgets.Dropdown(options=[(word, i) for i, word in enumerate(words)]))
