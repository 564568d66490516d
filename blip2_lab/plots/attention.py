"""Figures of attention and attribution: tensors and strings in, a figure (or a picture) out.

What is unusual about it:

* Maps of one figure share one scale unless the title says otherwise: side by side, a faint map looks faint.
* `overlay` makes a picture without matplotlib, in milliseconds: the app shows it after every click.
* Explorers (`explore_layers`, `explore_words`) are menus over these very functions. Where widgets do not run, the
  figure stays.

Paper: Figure 2 (the queries). Notebook: 09.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip2_lab.plots.figures import COLORS, attention_on_image, bars, new_figure
from blip2_lab.plots.widgets import explorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]  #: left, top, right, bottom, as fractions of the sides


def overlay(
    picture: Image.Image, heat: Tensor, *, size: int = 384, color: tuple[int, int, int] = (255, 176, 0)
) -> Image.Image:
    """The picture in gray, colored where the map [h, w] is hot (positive part, relative to its maximum)."""
    positive = heat.detach().float().clamp(min=0).cpu()
    share = positive / positive.max() if positive.max() > 0 else positive
    mask = Image.fromarray((share * 200).numpy().astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    gray = picture.convert("L").convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return Image.composite(Image.new("RGB", (size, size), color), gray, mask)


def queries_on_image(
    picture: Image.Image, maps: Tensor, *, notes: Sequence[str] = (), columns: int = 8, shared: bool = False
) -> Figure:
    """Where each query looks: maps [Q, h, w], one small picture each, with a note under its number.

    shared  one scale for all; otherwise each has its own, so that a flat look shows its pattern (and looks like noise)
    """
    titles = [f"{i}" + (f"\n{notes[i]}" if notes else "") for i in range(len(maps))]
    limits = (float(maps.min()), float(maps.max())) if shared else None
    return attention_on_image(picture, maps, titles, columns=columns, limits=limits)


def words_on_image(
    picture: Image.Image, words: Sequence[str], maps: Tensor, probabilities: Sequence[float], *, columns: int = 6
) -> Figure:
    """Where each word of an answer came from: maps [W, h, w], the word and its probability above."""
    titles = [f"{word}\n{probability:.0%}" for word, probability in zip(words, probabilities, strict=True)]
    return attention_on_image(picture, maps.clamp(min=0), titles, columns=columns)


def methods_side_by_side(
    picture: Image.Image, maps: Mapping[str, Tensor], *, box: Box | None = None, notes: Mapping[str, str] | None = None
) -> Figure:
    """Method -> map [h, w] of the same score, each on its own scale (their units differ), positive parts.

    box  of the thing that was meant, dashed on each
    """
    titles = [f"{name}\n{(notes or {}).get(name, '')}".rstrip() for name in maps]
    stacked = torch.stack([heat.detach().float().cpu().clamp(min=0) for heat in maps.values()])
    return attention_on_image(picture, stacked, titles, columns=5, marks=[box] if box else [])


def layers_and_heads(picture: Image.Image, maps: Tensor, layers: Sequence[int], *, query: int | None = None) -> Figure:
    """maps [layers, H, Q, h, w] -> a grid, a row for each layer and a column for each head; the mean of all queries,
    or one `query`."""
    chosen = maps.mean(dim=2) if query is None else maps[:, :, query]
    titles = [f"layer {layer}, head {head}" for layer in layers for head in range(maps.shape[1])]
    return attention_on_image(picture, chosen.flatten(0, 1), titles, columns=maps.shape[1])


def queries_and_caption(cosines: Tensor, verdicts: Tensor, caption: str) -> tuple[Figure, Figure]:
    """What each query says of a caption: ITC's cosines [Q], of which the largest wins, and ITM's verdicts [Q] (logit of
    match minus no match), which are averaged -> two figures."""
    names = [str(i) for i in range(len(cosines))]
    won = int(cosines.argmax())
    itc = bars(
        {"cosine": cosines},
        names,
        y="cosine with the caption",
        title=f"ITC takes the best: query {won} ({cosines[won]:.2f}) — {caption}",
        levels={"best": float(cosines.max())},
    )
    itm = bars(
        {"logit": verdicts},
        names,
        y="match minus no match",
        title=f"ITM takes the mean: {verdicts.mean():.2f} — {caption}",
        levels={"mean": float(verdicts.mean())},
        digits=1,
    )
    return itc, itm


def intervals(
    rows: Mapping[str, Sequence[float]], *, x: str, title: str = "", levels: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """name -> (mean, low, high) as dots with whiskers, one below the other; levels: named bands behind them."""
    figure, (axis,) = new_figure(8, 1.2 + 0.42 * len(rows))
    for i, (name, (_, low, high)) in enumerate((levels or {}).items()):
        axis.axvspan(low, max(high, low + 1e-3), color=COLORS[(i + 1) % 7], alpha=0.25, label=name)
    for place, (mean, low, high) in enumerate(rows.values()):
        axis.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=COLORS[0], capsize=4, ms=7)
        axis.text(high, place, f"  {mean:.2f}", va="center", fontsize=10)
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlabel=x, ylim=(len(rows) - 0.5, -0.5))
    axis.margins(x=0.12)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if levels:
        axis.legend(frameon=False, fontsize=10)
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    return figure


# --- Explorers ------------------------------------------------------------------------------------------------------


def explore_layers(picture: Image.Image, maps: Tensor, layers: Sequence[int]):
    """Choose layer, head and query of maps [layers, H, Q, h, w]; -1 is the mean. Without ipywidgets: all heads."""

    def view(layer: int, head: int, query: int) -> Figure:
        chosen = maps[list(layers).index(layer)]
        chosen = chosen.mean(dim=0) if head < 0 else chosen[head]
        heat = chosen.mean(dim=0) if query < 0 else chosen[query]
        what = f"layer {layer}, {'all heads' if head < 0 else f'head {head}'}"
        title = f"{what}\n{'all queries' if query < 0 else f'query {query}'}"
        return attention_on_image(picture, heat[None], [title])

    try:
        import ipywidgets
    except ImportError:
        return layers_and_heads(picture, maps, layers)
    return explorer(
        view,
        layer=ipywidgets.SelectionSlider(options=list(layers)),
        head=ipywidgets.IntSlider(value=-1, min=-1, max=maps.shape[1] - 1),
        query=ipywidgets.IntSlider(value=-1, min=-1, max=maps.shape[2] - 1),
    )


def explore_words(picture: Image.Image, words: Sequence[str], maps: Mapping[str, Tensor]):
    """Choose a word; every method's map of it stands beside the others: method -> maps [W, h, w]. Without ipywidgets:
    the last word."""

    def view(word: int) -> Figure:
        return methods_side_by_side(picture, {f"{words[word]}: {method}": rows[word] for method, rows in maps.items()})

    try:
        import ipywidgets
    except ImportError:
        return view(len(words) - 1)
    return explorer(view, word=ipywidgets.Dropdown(options=[(word, i) for i, word in enumerate(words)]))
