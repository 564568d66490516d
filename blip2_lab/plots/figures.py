"""Figures: tensors and strings in, a matplotlib figure out.

`blip2_map` draws the architecture; `mask_grids`, `matrix`, `curves`, `bars` and `image_grid` are for any values.

Notes:

* Every figure has a description in words, `figure.alt`, made from the values that are drawn. A notebook stores it as
  the image's alternative text.
* No function takes a model: the caller computes the values, and each figure is tested on a pattern known by hand.
* No information is in color alone: cells have numbers or hatches, lines have dashes and names. The colors are those of
  Okabe and Ito and the color map `cividis`, which remain distinct in gray and for color-blind readers.
* Sizes are for a projector. Figures are not registered with pyplot: a notebook shows the value of a cell once.

Paper: Figures 1 and 2. Notebooks: all.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colors in the order of the lines, with a dash pattern for each.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
HEAT = "cividis"

#: part -> (text, left, bottom, width, height) on the map; x from 0 to 100, y from 0 to 46
MAP = {
    "picture": ("picture", 0, 14, 9, 12),
    "image_encoder": ("image encoder\n(frozen)", 13, 12, 14, 16),
    "queries": ("learned\nqueries", 34, 0, 10, 6),
    "caption": ("caption", 51, 0, 10, 6),
    "self_attention": ("self-attention, three masks", 33, 12, 29, 4.5),
    "cross_attention": ("cross-attention", 33, 18.5, 13, 4.5),
    "ffn": ("feed-forward: queries | text", 33, 25.5, 29, 4.5),
    "itc": ("ITC", 33, 38, 8.5, 6),
    "itm": ("ITM", 43.2, 38, 8.5, 6),
    "itg": ("ITG", 53.5, 38, 8.5, 6),
    "projection": ("language\nprojection", 67, 22, 10, 10),
    "language_model": ("language model\n(frozen)", 81, 18, 14, 16),
    "answer": ("words", 84, 38, 8.5, 6),
}
ARROWS = (
    ("picture", "image_encoder"), ("image_encoder", "cross_attention"), ("queries", "self_attention"),
    ("caption", "self_attention"), ("self_attention", "cross_attention"), ("cross_attention", "ffn"),
    ("self_attention", "ffn"), ("ffn", "itc"), ("ffn", "itm"), ("ffn", "itg"), ("ffn", "projection"),
    ("projection", "language_model"), ("language_model", "answer"),
)  # fmt: skip
QFORMER_FRAME = (31, 9, 33, 22.5)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """A figure outside pyplot's global state, and its axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.alt = ""
    figure._repr_mimebundle_ = lambda **_: _mime_bundle(figure)  # shown by a notebook even if pyplot is not imported
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [axis for row in axes for axis in row]


def _mime_bundle(figure: Figure) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What a notebook stores: the image, the description where images are not shown, and as alternative text."""
    data = {"image/png": b64encode(png(figure)).decode(), "text/plain": figure.alt or repr(figure)}
    return data, {"image/png": {"alt": figure.alt}} if figure.alt else {}


def described(figure: Figure, kind: str, title: str, details: Iterable[str]) -> Figure:
    """The figure with its description: what kind of figure it is, its title, and what is drawn in it."""
    head = f"{kind}: {title}" if title else kind
    figure.alt = " ".join(
        [" ".join(head.split()).rstrip(".:") + "."] + [" ".join(f"{text}.".split()) for text in details]
    )
    return figure


def tint(color: str, strength: float = 0.22) -> tuple[float, float, float]:
    """A light shade of a color "#rrggbb": black text on it is readable."""
    return tuple(1 - strength * (1 - int(color[i : i + 2], 16) / 255) for i in (1, 3, 5))


def draw_box(
    axis: Axes, text: str, place: tuple[float, float, float, float], *, size: float = 11, weight: str = "normal",
    color: str = "black", pad: float = 0.3, **style,
) -> None:  # fmt: skip
    """A rounded box (left, bottom, width, height) with its text in the middle."""
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = place
    style = dict(fc="white", ec="#888", lw=1.2, zorder=2) | style
    axis.add_patch(FancyBboxPatch((x, y), width, height, f"round,pad={pad}", **style))
    middle = dict(ha="center", va="center", zorder=style["zorder"] + 1)
    axis.text(x + width / 2, y + height / 2, text, fontsize=size, color=color, weight=weight, **middle)


def draw_arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], **style) -> None:
    """An arrow from point to point."""
    from matplotlib.patches import FancyArrowPatch

    usual = dict(arrowstyle="-|>", mutation_scale=13, lw=1.3, color="#555", shrinkA=2, shrinkB=2, zorder=1)
    axis.add_patch(FancyArrowPatch(start, end, **usual | style))


def float_tensor(values: Tensor | Sequence) -> Tensor:
    """Numbers -> a float tensor on the CPU, without gradient."""
    return torch.as_tensor(values).detach().float().cpu()


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


# --- The map --------------------------------------------------------------------------------------------------------


def blip2_map(highlighted: Collection[str] = (), title: str = "") -> Figure:
    """The architecture of BLIP-2, with the parts in `highlighted` (keys of MAP) dark.

    Raises ValueError for a part that is not on the map.
    """
    from matplotlib.patches import FancyBboxPatch

    unknown = set(highlighted) - MAP.keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not on the map. Its parts are {', '.join(MAP)}.")
    figure, (axis,) = new_figure(11, 4.6)
    axis.set(xlim=(-1, 97), ylim=(-1, 47))
    axis.axis("off")
    left, bottom, width, height = QFORMER_FRAME
    axis.add_patch(
        FancyBboxPatch((left, bottom), width, height, "round,pad=0.6", fill=False, lw=1.5, ls="--", ec="#555")
    )
    axis.text(left + width - 0.5, 20.7, "Q-Former (trained)", ha="right", va="center", fontsize=11, color="#333")
    axis.text(31, 41, "stage 1", ha="right", va="center", fontsize=11, color="#333")
    axis.text(72, 35, "stage 2", ha="center", va="center", fontsize=11, color="#333")
    for source, target in ARROWS:
        draw_arrow(axis, *_edges(MAP[source][1:], MAP[target][1:]))
    for name, (text, *place) in MAP.items():
        on = name in highlighted
        look = dict(fc=COLORS[0], ec="black", lw=2.5, color="white", weight="bold") if on else dict(color="#333")
        draw_box(axis, text, tuple(place), **look)
    if title:
        axis.set_title(title, fontsize=14, loc="left")
    chosen = ", ".join(part.replace("_", " ") for part in MAP if part in highlighted)
    way = (
        "From left to right: picture, frozen image encoder, Q-Former with learned queries and caption below it and the "
        "objectives of stage 1 above it, ITC, ITM and ITG; in stage 2 a projection, a frozen language model, words"
    )
    return described(figure, "Map of BLIP-2", title, [way] + ([f"Dark: {chosen}"] if chosen else []))


def _edges(a: tuple, b: tuple) -> tuple[tuple[float, float], tuple[float, float]]:
    """Start and end of an arrow from box a to box b: side to side, or bottom to top if they are stacked."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    if ax + aw < bx:
        overlap = max(ay, by), min(ay + ah, by + bh)
        y = sum(overlap) / 2
        return (ax + aw, y), (bx, y)
    x = (max(ax, bx) + min(ax + aw, bx + bw)) / 2
    return (x, ay + ah), (x, by)


# --- Matrices -------------------------------------------------------------------------------------------------------


def _grid(axis: Axes, rows: Sequence[str], columns: Sequence[str], size: float = 11) -> None:
    """Tick labels: rows on the left, columns on top."""
    axis.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns), default=0) > 3 else 0)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0, labelsize=size, top=True, labeltop=True, bottom=False, labelbottom=False)


def _draw_mask(axis: Axes, mask: Tensor, names: Sequence[str], num_queries: int, title: str) -> None:
    from matplotlib.patches import Rectangle

    for i in range(len(mask)):
        for j in range(len(mask[i])):
            face, hatch = (COLORS[0], None) if mask[i, j] else ("#f2f2f2", "////")
            axis.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, fc=face, ec="white" if mask[i, j] else "#ccc", hatch=hatch)
            )
    rows, columns = mask.shape
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    if 0 < num_queries < columns:
        axis.axvline(num_queries - 0.5, color="black", lw=2)
    if 0 < num_queries < rows == columns:  # a text pass has no query rows
        axis.axhline(num_queries - 0.5, color="black", lw=2)
    _grid(axis, names[-rows:], names[:columns], 10)
    axis.set_xlabel("may be read" if columns else "", fontsize=11)
    axis.set_ylabel("who reads", fontsize=11)
    axis.set_title(title, fontsize=13, pad=8)


def mask_grids(masks: Mapping[str, Tensor], names: Sequence[str], num_queries: int, example: int = 0) -> Figure:
    """Masks bool[B, 1, L, L] (or [L, L]) side by side: title -> mask. Dark: may attend; hatched: may not.

    names: of the L rows, queries first. A mask with fewer rows than columns is a text pass after cached queries.
    """
    grids = {
        title: (mask[example, 0] if mask.ndim == 4 else mask).detach().bool().cpu() for title, mask in masks.items()
    }
    for title, grid in grids.items():
        if grid.shape[1] != len(names):
            raise ValueError(f"The mask {title!r} has {grid.shape[1]} columns and there are {len(names)} names.")
    side = max(3.2, 0.36 * len(names) + 1.2)
    figure, axes = new_figure(side * len(grids), side + 0.5, 1, len(grids))
    for axis, (title, grid) in zip(axes, grids.items(), strict=True):
        _draw_mask(axis, grid, names, num_queries, title)
    return described(figure, "Attention masks", "", [_mask_in_words(t, grid, names) for t, grid in grids.items()])


def _mask_in_words(title: str, grid: Tensor, names: Sequence[str]) -> str:
    """Which rows read which columns, rows that read the same together."""
    readers: dict[tuple[str, ...], list[str]] = {}
    for name, row in zip(names[-len(grid) :], grid.tolist(), strict=True):
        readers.setdefault(tuple(n for n, may in zip(names, row, strict=True) if may), []).append(name)
    rows = (f"{', '.join(who)} may read {', '.join(whom) or 'nothing'}" for whom, who in readers.items())
    return f"{title}: {'; '.join(rows)}"


def matrix(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    label: str = "",
    digits: int = 2,
    limits: tuple[float, float] | None = None,
    mark: Tensor | None = None,
) -> Figure:
    """A matrix [rows, columns] as a heat map, its numbers in the cells (up to 16 x 16).

    mark: bool, cells with a thick frame (the true pairs). limits: of the colors; by default those of the values.
    """
    values = float_tensor(values)
    if list(values.shape) != [len(rows), len(columns)]:
        raise ValueError(
            f"The matrix is {list(values.shape)}; there are {len(rows)} row and {len(columns)} column names."
        )
    width = 2.4 + max(0.6 * len(columns), 2.0) + 0.09 * max(map(len, rows))
    labels = [fill(name, 24) for name in columns]  # room for long names, which stand upright
    longest = max((len(line) for label in labels for line in label.splitlines()), default=0)
    height = 1.1 + max(0.45 * len(rows), 1.2) + (0.1 * longest if longest > 3 else 0.3)
    figure, (axis,) = new_figure(min(width, 13), height)
    image = _heat(axis, values, digits if values.numel() <= 256 else None, limits, mark)
    _grid(axis, rows, labels)
    figure.colorbar(image, ax=axis, shrink=0.8, label=label)
    if title:
        axis.set_title(title, fontsize=13)
    return described(figure, "Matrix", title, matrix_in_words(values, rows, columns, label, digits))


def matrix_in_words(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], label: str = "", digits: int = 2
) -> list[str]:
    """A small matrix number by number, of a larger one the largest of each row (up to 20 rows)."""
    if values.numel() <= 36:
        cells = [[f"{name} {x:.{digits}f}" for name, x in zip(columns, row, strict=True)] for row in values.tolist()]
        return [f"{name}: {', '.join(row)}" for name, row in zip(rows, cells, strict=True)]
    low, high = float(values.min()), float(values.max())
    size = f"{len(rows)} rows, {len(columns)} columns, {label or 'values'} from {low:.{digits}f} to {high:.{digits}f}"
    best = [(row, columns[int(x.argmax())], float(x.max())) for row, x in zip(rows, values, strict=True)][:20]
    return [size, "The largest of each row: " + "; ".join(f"{r}: {c} ({x:.{digits}f})" for r, c, x in best)]


def temperature_matrices(
    similarity: Tensor, temperatures: Mapping[str, float], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """similarity [B, B], true pairs on the diagonal -> the shares in each row (softmax) at each named temperature."""
    similarity = float_tensor(similarity)
    true = torch.eye(len(similarity), dtype=torch.bool)
    figure, axes = new_figure(min(4.6 * len(temperatures), 15), 1.8 + 0.42 * len(rows), 1, len(temperatures))
    told = []
    for i, (axis, (name, temperature)) in enumerate(zip(axes, temperatures.items(), strict=True)):
        shares = (similarity / temperature).softmax(dim=1)
        _heat(axis, shares, 2, (0.0, 1.0), true)
        _grid(axis, rows if i == 0 else [""] * len(rows), columns, 10)
        mean = float(shares.diagonal().mean())
        axis.set_title(f"{name}: {temperature:.3g}", fontsize=12)
        axis.set_xlabel(f"mean share of the true pair: {mean:.2f}", fontsize=11)
        told.append(
            f"{name}, {temperature:.3g}: the true pair gets {mean:.2f} on average, at least "
            f"{float(shares.diagonal().min()):.2f}"
        )
    kind = "Shares of each picture's captions, a softmax over the cosines"
    return described(figure, kind, "", told)


def _heat(axis: Axes, values: Tensor, digits: int | None, limits: tuple | None, mark: Tensor | None = None):
    from matplotlib.patches import Rectangle

    low, high = limits or (float(values.min()), float(values.max()))
    image = axis.imshow(values.numpy(), cmap=HEAT, vmin=low, vmax=high, aspect="auto")
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if digits is not None:
                dark = float(values[i, j]) < (low + high) / 2
                text = f"{values[i, j]:.{digits}f}"
                axis.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
            if mark is not None and mark[i, j]:
                frame = Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="white", lw=4)
                axis.add_patch(frame)
                axis.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="black", lw=2))
    return image


# --- Images ---------------------------------------------------------------------------------------------------------


def attention_on_image(
    image: Image.Image,
    maps: Tensor,
    titles: Sequence[str],
    *,
    columns: int = 6,
    boxes: Sequence[tuple] = (),
    limits: tuple[float, float] | None = None,
) -> Figure:
    """One panel for each map [M, n, n] (n*n patches, without [CLS]): the image in gray, the map over it.

    boxes: (left, top, right, bottom) as fractions of the sides, drawn on each.
    """
    from matplotlib.patches import Rectangle

    maps = float_tensor(maps)
    if maps.ndim != 3 or len(maps) != len(titles):
        raise ValueError(f"There are {len(titles)} titles; give as many maps, [M, n, n]. These are {list(maps.shape)}.")
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = new_figure(2.1 * columns, 2.3 * rows, rows, columns)
    for axis in axes:
        axis.axis("off")
    for axis, values, title in zip(axes, maps, titles, strict=False):
        axis.imshow(image.convert("L"), cmap="gray", extent=(0, 1, 1, 0))
        low, high = limits or (float(values.min()), float(values.max()))
        share = ((values - low) / max(high - low, 1e-12)).clamp(
            0, 1
        )  # where there is little, the picture shows through
        look = dict(cmap=HEAT, vmin=low, vmax=high, alpha=(0.25 + 0.6 * share).numpy())
        axis.imshow(values.numpy(), extent=(0, 1, 1, 0), interpolation="nearest", **look)
        for left, top, right, bottom in boxes:
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=2, ls="--"))
        axis.set_title(title, fontsize=11)
    places = [f"{title}: {_hottest(values)}" for title, values in zip(titles, maps, strict=True)]
    return described(figure, f"Heat maps over a picture, {len(places)} in all; the hottest place of each", "", places)


def _hottest(values: Tensor) -> str:
    """The place of the largest value of a map [h, w], in words."""
    if float(values.max() - values.min()) < 1e-9:
        return "the same everywhere"
    row, column = divmod(int(values.argmax()), values.shape[1])
    vertical = ("top", "middle", "bottom")[3 * row // values.shape[0]]
    horizontal = ("left", "middle", "right")[3 * column // values.shape[1]]
    return "middle" if vertical == horizontal == "middle" else f"{vertical} {horizontal}"


def image_grid(images: Sequence[Image.Image], titles: Sequence[str], columns: int = 4, size: float = 2.6) -> Figure:
    """Images with their titles, in rows."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    titles = [fill(title, int(12 * size)) for title in titles]
    lines = max(title.count("\n") + 1 for title in titles)
    figure, axes = new_figure(size * columns, (size + 0.1 + 0.2 * lines) * rows, rows, columns)
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=10)
    return described(figure, "Picture" if len(images) == 1 else "Pictures", "", titles)


def reconstructions(masked: Tensor, rebuilt: Tensor, images: Tensor, size: float = 1.8) -> Figure:
    """The figure of MAE's paper: for each image, what the encoder reads, what is predicted, and the image.

    Each [B,3,S,S], from 0 to 1 (`masked_autoencoder.Reconstruction`).
    """
    if not masked.shape == rebuilt.shape == images.shape or images.ndim != 4 or images.shape[1] != 3:
        shapes = ", ".join(str(tuple(each.shape)) for each in (masked, rebuilt, images))
        raise ValueError(f"Three tensors of images [B,3,S,S] of one shape are needed, not {shapes}.")
    rows = [each for triple in zip(masked, rebuilt, images, strict=True) for each in triple]
    pictures = [Image.fromarray((x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()) for x in rows]
    titles = ["masked", "predicted", "image", *[""] * (len(rows) - 3)]
    return image_grid(pictures, titles, columns=3, size=size)


# --- Lines and bars -------------------------------------------------------------------------------------------------


def curves(
    lines: Mapping[str, Sequence[float] | Tensor | tuple[Sequence[float], Sequence[float]]],
    *,
    x: str = "step",
    y: str = "loss",
    levels: Mapping[str, float] | None = None,
    title: str = "",
    log: bool = False,
    log_x: bool = False,
) -> Figure:
    """Lines by name: values, or (x values, values). levels: name -> a horizontal line, such as chance. log, log_x: a
    logarithmic axis."""
    figure, (axis,) = new_figure(8, 4.2)
    for i, (name, line) in enumerate(lines.items()):
        pair = line if isinstance(line, tuple) else (range(len(line)), line)
        points, values = (float_tensor(list(numbers)).numpy() for numbers in pair)
        axis.plot(points, values, label=name, color=COLORS[i % 7], ls=DASHES[i % 7], lw=2.2)
    for name, level in (levels or {}).items():
        axis.axhline(level, color="#666", lw=1.2, ls=":")
        axis.text(1.0, level, f" {name}", transform=axis.get_yaxis_transform(), va="center", fontsize=10, color="#333")
    scales = {True: "log", False: "linear"}
    axis.set(xlabel=x, ylabel=y, yscale=scales[log], xscale=scales[log_x])
    axis.grid(alpha=0.3)
    axis.legend(fontsize=11, frameon=False)
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    return described(figure, f"Line chart of {y} by {x}", title, _lines_in_words(axis, list(lines), levels or {}))


def _lines_in_words(axis: Axes, names: Sequence[str], levels: Mapping[str, float]) -> list[str]:
    told = []
    for name, line in zip(names, axis.lines, strict=False):
        points, values = line.get_data()
        if len(values) == 0:
            told.append(f"{name}: no value yet")
            continue
        lowest, highest = min(values), max(values)
        told.append(
            f"{name}: {values[0]:.3g} at {points[0]:g}, {values[-1]:.3g} at {points[-1]:g}, "
            f"between {lowest:.3g} and {highest:.3g}"
        )
    return told + [f"Dotted level, {name}: {level:.3g}" for name, level in levels.items()]


def bars(
    groups: Mapping[str, Sequence[float] | Tensor],
    names: Sequence[str],
    *,
    y: str = "",
    title: str = "",
    levels: Mapping[str, float] | None = None,
    digits: int = 2,
) -> Figure:
    """Bars, one group of equal hatch for each name in `groups`, a number on every bar if there are few."""
    figure, (axis,) = new_figure(min(3 + 0.7 * len(names) * max(1, len(groups) * 0.6), 13), 4)
    width = 0.8 / len(groups)
    for i, (name, values) in enumerate(groups.items()):
        positions = [k + (i - (len(groups) - 1) / 2) * width for k in range(len(names))]
        hatch = ("", "//", "..", "xx")[i % 4]
        drawn = axis.bar(
            positions,
            float_tensor(values).numpy(),
            width * 0.94,
            label=name,
            color=COLORS[i % 7],
            hatch=hatch,
            ec="white",
        )
        if len(names) * len(groups) <= 24:
            axis.bar_label(drawn, fmt=f"%.{digits}f", fontsize=9)
    for name, level in (levels or {}).items():
        axis.axhline(level, color="#666", lw=1.2, ls=":")
        axis.text(1.0, level, f" {name}", transform=axis.get_yaxis_transform(), va="center", fontsize=10, color="#333")
    long = max(map(len, names), default=0) > 8
    axis.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        figure.legend(loc="outside upper right", ncols=len(groups), frameon=False)  # outside, so that it covers no bar
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    told = [
        f"{group}: "
        + ", ".join(f"{name} {x:.{digits}f}" for name, x in zip(names, float_tensor(v).tolist(), strict=True))
        for group, v in groups.items()
    ]
    told += [f"Dotted level, {name}: {level:.{digits}f}" for name, level in (levels or {}).items()]
    return described(figure, f"Bar chart of {y}" if y else "Bar chart", title, told)
