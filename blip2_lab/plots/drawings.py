"""Drawings of how something works, computed from the tensors and tokens handed in.

    attention_by_hand       one query's attention, number by number
    qformer_layers          what happens in a Q-Former layer, with and without cross-attention
    matching_pairs          the 3B pairs of ITM, with thumbnails
    decoder_sequence        picture, prompt and answer in a decoder: rows, padding, shift, loss
    encoder_decoder_sequence  the same for an encoder-decoder
    cache_steps             what a KV cache computes, keeps and saves, token by token

Notes:

* One look for all: queries and picture blue, text orange, image features green, padding and what is hidden hatched.
  Each color also has a name, a sign or a hatch.
* As in plots/figures.py, no function takes a model, and every figure has a description, `figure.alt`.

Paper: Figures 2 and 3, sections 3.1 to 3.3. Notebooks: 02, 03, 06, 07, 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from blip2_lab.plots.figures import COLORS, described, draw_arrow, draw_box, float_tensor, new_figure, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUERY, TEXT, IMAGE = COLORS[0], COLORS[5], COLORS[2]
MASKED = -10000.0  #: what a hidden score becomes before the softmax (models/attention.py)


def _canvas(width: float, height: float, x: float, y: float, title: str = "") -> tuple[Figure, Axes]:
    """A figure without ticks; coordinates from 0 to x and, downwards, from 0 to y."""
    figure, (axis,) = new_figure(width, height)
    axis.set(xlim=(0, x), ylim=(y, 0))
    axis.axis("off")
    if title:
        axis.set_title(title, fontsize=13, loc="left")
    return figure, axis


def _cell(axis: Axes, x: float, y: float, text: str, *, width: float = 1.0, size: float = 10, **style) -> None:
    """A cell of height 1 whose left upper corner is (x, y); hatch="////" for what is hidden or padding."""
    from matplotlib.patches import Rectangle

    color, weight = style.pop("color", "black"), style.pop("weight", "normal")
    axis.add_patch(Rectangle((x + 0.04, y + 0.06), width - 0.08, 0.88, **dict(fc="white", ec="#888", lw=1.1) | style))
    axis.text(x + width / 2, y + 0.52, text, ha="center", va="center", fontsize=size, color=color, weight=weight)


def _number(value: float) -> str:
    """Up to two decimals, without zeros at the end."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0", 1) if abs(value) < 0.005 else f"{value:.3g}"


def _vector(values: Sequence[float]) -> str:
    return "(" + ", ".join(_number(v) for v in values) + ")" if len(values) > 1 else _number(values[0])


# --- Attention --------------------------------------------------------------------------------------------------------


def attention_by_hand(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, *, title: str = "Attention by hand"
) -> Figure:
    """One query [D], keys [M, D], values [M, Dv] -> each step of its attention, a row for each key.

    mask: bool [M], True = may be read. A hidden key gets a score of -10000, so its share is 0.
    """
    query, keys, values = (float_tensor(x) for x in (query, keys, values))
    if keys.shape[1:] != query.shape or len(values) != len(keys):
        raise ValueError(
            f"Give a query [D], keys [M, D] and values [M, Dv]; these are {list(query.shape)}, {list(keys.shape)} and "
            f"{list(values.shape)}."
        )
    seen = [True] * len(keys) if mask is None else [bool(x) for x in mask]
    fits, root = keys @ query, len(query) ** 0.5
    scores = (fits / root).masked_fill(~float_tensor(seen).bool(), MASKED)
    grown, shares = scores.exp(), scores.softmax(dim=0)
    parts = shares[:, None] * values
    output = parts.sum(dim=0)

    rows = len(keys)
    width = 17.6
    figure, axis = _canvas(12, 0.62 * rows + 2.7, width, rows + 4.1, title)
    heads = ("key", "key · query", f"÷ √{len(query)}", "exp", "share", "value", "share × value")
    left = (0.2, 2.8, 5.1, 7.2, 9.4, 12.4, 14.9)
    wide = (2.2, 1.8, 1.6, 1.6, 2.4, 1.8, 2.5)
    axis.text(left[0], 0.55, "query", fontsize=11, va="center")
    _cell(axis, left[0] + 1.3, 0.05, _vector(query.tolist()), width=2.2, fc=tint(QUERY), size=11)
    for x, w, head in zip(left, wide, heads, strict=True):
        axis.text(x + w / 2, 1.75, head, ha="center", va="center", fontsize=11)
    for i in range(rows):
        y, hidden = 2.1 + i, not seen[i]
        look = dict(hatch="////", fc="#f2f2f2", ec="#bbb") if hidden else {}
        texts = (
            _vector(keys[i].tolist()), _number(fits[i]), "hidden" if hidden else _number(scores[i]), _number(grown[i]),
            "", _vector(values[i].tolist()), _vector(parts[i].tolist()),
        )  # fmt: skip
        faces = (tint(TEXT), "white", "white", "white", "white", tint(IMAGE), "white")
        for j, (x, w, text) in enumerate(zip(left, wide, texts, strict=True)):
            style = dict(fc=faces[j]) | (look if j in (2, 3, 4) else {})
            _cell(axis, x, y, text, width=w, size=11, **style, **(dict(weight="bold") if hidden and j == 2 else {}))
            if j + 1 < len(left) and j != 4:
                draw_arrow(axis, (x + w - 0.02, y + 0.5), (left[j + 1] + 0.02, y + 0.5))
        _bar(axis, left[4], y, wide[4], float(shares[i]))
        axis.text((left[4] + wide[4] + left[5]) / 2, y + 0.5, "×", ha="center", va="center", fontsize=13)
    y = 2.1 + rows + 0.25
    sums = {3: f"sum {_number(grown.sum())}", 4: f"sum {_number(shares.sum())}", 6: f"sum {_vector(output.tolist())}"}
    for j, text in sums.items():
        look = dict(fc=QUERY, color="white", weight="bold") if j == 6 else {}
        _cell(axis, left[j], y, text, width=wide[j], size=11, **look)
    axis.text(left[6] - 0.25, y + 0.52, "the output:", ha="right", va="center", fontsize=11)
    told = [
        f"Key {_vector(keys[i].tolist())}: product {_number(fits[i])}, "
        + ("hidden by the mask, " if not seen[i] else f"divided {_number(scores[i])}, exp {_number(grown[i])}, ")
        + f"share {float(shares[i]):.3f}, value {_vector(values[i].tolist())}"
        for i in range(rows)
    ]
    head = f"Query {_vector(query.tolist())}"
    return described(figure, "Worked numbers", title, [head, *told, f"Output {_vector(output.tolist())}"])


def _bar(axis: Axes, x: float, y: float, width: float, share: float) -> None:
    """A share between 0 and 1 as a bar inside its cell, with its number."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((x + 0.1, y + 0.14), (width - 1.2) * share, 0.72, fc=tint(QUERY, 0.55), ec=QUERY, lw=1))
    axis.text(x + width - 0.2, y + 0.52, f"{share:.3f}", ha="right", va="center", fontsize=11, weight="bold")


# --- The Q-Former -----------------------------------------------------------------------------------------------------


def qformer_layers(cross_attention: Sequence[bool], title: str = "Inside the Q-Former's layers") -> Figure:
    """One panel for each layer, from bottom to top as in the paper: does it have cross-attention or not?"""
    if not cross_attention:
        raise ValueError("Name at least one layer: True where it has cross-attention.")
    figure, axes = new_figure(6.4 * len(cross_attention), 6.6, 1, len(cross_attention))
    for number, (axis, has_cross) in enumerate(zip(axes, cross_attention, strict=True)):
        _draw_layer(axis, number, has_cross)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    told = [
        f"Layer {number}: queries and text go together through one self-attention under a mask; then the queries "
        + ("cross-attend to the image features" if has_cross else "do not read the picture")
        + "; then queries and text each go through a feed-forward network of their own; each step adds its input (the "
        "residual connection) and is normalized"
        for number, has_cross in enumerate(cross_attention)
    ]
    return described(figure, "Drawing", title, told)


def _draw_layer(axis: Axes, number: int, has_cross: bool) -> None:
    axis.set(xlim=(-4.2, 13.4), ylim=(-1.4, 15.4))
    axis.axis("off")
    axis.set_title(f"layer {number}: {'reads' if has_cross else 'does not read'} the picture", fontsize=12)
    queries, text, both = dict(fc=tint(QUERY), ec=QUERY), dict(fc=tint(TEXT), ec=TEXT), dict(fc="#f0f0f0", ec="black")
    draw_box(axis, "queries  [B, Q, D]", (0, 0, 5.4, 1.2), **queries)
    draw_box(axis, "text  [B, T, D]", (6.8, 0, 5.4, 1.2), **text)
    draw_box(axis, "self-attention\nshared by queries and text, under a mask", (0, 3, 12.2, 1.9), **both, lw=1.6)
    if has_cross:
        draw_box(axis, "cross-attention", (0, 7.2, 5.4, 1.5), **queries, lw=1.6)
        draw_box(axis, "image\nfeatures", (-3.8, 7.2, 2, 1.5), fc=tint(IMAGE), ec=IMAGE, size=10)
        draw_arrow(axis, (-1.5, 7.95), (-0.25, 7.95), color=IMAGE, lw=2)
        _residual(axis, 2.7, 6.0, 6.15, 9.6)
    else:
        axis.text(2.4, 7.95, "no cross-attention here", ha="right", va="center", fontsize=10, color="#666")
    draw_box(axis, "query_ffn", (0, 11, 5.4, 1.4), **queries, lw=1.6)
    draw_box(axis, "text_ffn", (6.8, 11, 5.4, 1.4), **text, lw=1.6)
    steps = [(1.5, 2.7), (5.2, 6.9 if has_cross else 10.7)] + ([(9, 10.7)] if has_cross else []) + [(12.7, 14.6)]
    for low, high in steps:
        draw_arrow(axis, (2.7, low), (2.7, high), color=QUERY, lw=2)
    for low, high in ((1.5, 2.7), (5.2, 10.7), (12.7, 14.6)):
        draw_arrow(axis, (9.5, low), (9.5, high), color=TEXT, lw=2)
    for middle, side in ((2.7, -0.6), (9.5, 12.8)):
        _residual(axis, middle, side, 2.0, 5.6)
        _residual(axis, middle, side, 10.15, 13.4)
    axis.text(2.7, 15, "queries, to the next layer", ha="center", va="center", fontsize=10)
    axis.text(9.5, 15, "text, to the next layer", ha="center", va="center", fontsize=10)
    axis.text(
        6.1, -0.9, "dashed: the residual connection; ⊕: add, then LayerNorm", ha="center", fontsize=10, color="#333"
    )


def _residual(axis: Axes, middle: float, side: float, low: float, high: float) -> None:
    """The way around a step at x = side, from the stream (x = middle) at `low` to the sum at `high`."""
    axis.plot([middle, side, side, middle], [low, low, high, high], color="#555", lw=1.3, ls="--", zorder=1)
    axis.text(
        middle, high, "⊕", ha="center", va="center", fontsize=17, zorder=4, bbox=dict(fc="white", ec="none", pad=0)
    )


# --- ITM --------------------------------------------------------------------------------------------------------------


def matching_pairs(
    images: Sequence[Image.Image], captions: Sequence[str], image_numbers: Tensor, text_numbers: Tensor, labels: Tensor
) -> Figure:
    """The 3B pairs of ITM as cards, B in a row: long[3B] each, as `checks.itm_pairs` gives them; label 1 is a match."""
    numbers = [[int(x) for x in row] for row in (image_numbers, text_numbers, labels)]
    count = len(numbers[0])
    if count % 3 or any(len(row) != count for row in numbers):
        raise ValueError(f"Give 3B images, texts and labels; these are {', '.join(str(len(row)) for row in numbers)}.")
    columns = count // 3
    figure, axes = new_figure(2.9 * columns, 9.6, 3, columns)
    heads = ("true pairs", "text with a wrong image", "image with a wrong text")
    told = []
    for place, (axis, image, text, label) in enumerate(zip(axes, *numbers, strict=True)):
        word, color = ("match, label 1", IMAGE) if label else ("no match, label 0", COLORS[1])
        axis.imshow(images[image])
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color=color, linewidth=4, linestyle="-" if label else "--")
        axis.set_title(f"image {image}, text {text}", fontsize=11, loc="left")
        axis.set_xlabel(f"“{fill(captions[text], 30)}”\n{'✓' if label else '✗'} {word}", fontsize=10)
        if place % columns == 0:
            axis.set_ylabel(heads[place // columns], fontsize=11)
        told.append(f"Image {image} with text {text}, “{captions[text]}”: {word}")
    return described(figure, f"The {count} pairs of {columns} images and texts", "", told)


# --- Picture, prompt, answer ------------------------------------------------------------------------------------------

#: what a stepper shows one after the other
DECODER_STEPS = ("rows", "padding", "shift", "loss")
ENCODER_DECODER_STEPS = ("encoder", "decoder input", "predictions", "loss")
_LOOKS = {
    "picture": dict(fc=tint(QUERY, 0.3), ec=QUERY),
    "prompt": dict(fc="#ededed", ec="#555"),
    "answer": dict(fc=tint(TEXT, 0.35), ec=TEXT),
    "pad": dict(fc="white", ec="#bbb", hatch="////", color="#666"),
    "start": dict(fc=tint(COLORS[3], 0.3), ec=COLORS[3]),
    "none": dict(fc="white", ec="#ccc", color="#555"),
}


def _pad(rows: Sequence[Sequence[str]], kind: str, left: bool) -> list[list[tuple[str, str]]]:
    """Rows of tokens -> rows of (token, kind), padded to one length."""
    length = max(map(len, rows), default=0)
    padded = []
    for row in rows:
        cells, gap = [(token, kind) for token in row], [("pad", "pad")] * (length - len(row))
        padded.append(gap + cells if left else cells + gap)
    return padded


def _check_step(step: str, steps: Sequence[str]) -> None:
    if step not in ("all", *steps):
        raise ValueError(f"{step!r} is no step; choose all, {', '.join(steps)}.")


def _draw_cells(axis: Axes, cells: Sequence[tuple[str, str]], x: float, y: float, width: float) -> None:
    for i, (text, kind) in enumerate(cells):
        _cell(axis, x + i * width, y, text, width=width, **_LOOKS[kind])


def decoder_sequence(
    prompts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], num_queries: int = 3, step: str = "all"
) -> Figure:
    """`[picture][prompt][answer]` in a decoder such as OPT, in four steps (`DECODER_STEPS`); "all" shows them below one
    another. Prompts are padded on the left, answers on the right, as in `DecoderLanguageModel.pair_texts`.
    """
    _check_step(step, DECODER_STEPS)
    picture = [(f"v{i}", "picture") for i in range(num_queries)]
    rows = [
        picture + prompt + answer
        for prompt, answer in zip(_pad(prompts, "prompt", True), _pad(answers, "answer", False), strict=True)
    ]
    bare = [
        picture + [(t, "prompt") for t in prompt] + [(t, "answer") for t in answer]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    first = num_queries + max(map(len, prompts), default=0)  # the answers' first position
    # position i predicts token i + 1, if that is a token of the answer
    targets = [
        [row[i + 1] if i + 1 < len(row) and row[i + 1][1] == "answer" else ("·", "none") for i in range(len(row))]
        for row in rows
    ]
    shown = DECODER_STEPS if step == "all" else (step,)
    panels = {
        "rows": ("1. Rows of different lengths: picture, prompt, answer", [(None, row) for row in bare]),
        "padding": (
            "2. Padding: prompts on the left, answers on the right, so that they meet. Mask: 1 may be read",
            [part for row in rows for part in ((None, row), ("mask", _mask_row(row)))],
        ),
        "shift": (
            f"3. The shift: position i predicts token i + 1, the answer from position {first - 1} on (counted from 0)",
            [part for row, goal in zip(rows, targets, strict=True) for part in (("reads", row), ("predicts", goal))],
        ),
        "loss": (
            "4. The loss: labels of the answer's tokens; everything else is IGNORE_INDEX (here: –)",
            [("labels", [(t, k) if k == "answer" else ("–", "none") for t, k in row]) for row in rows],
        ),
    }
    return _sequence_figure([panels[name] for name in shown], "Picture, prompt and answer in a decoder")


def encoder_decoder_sequence(
    prompts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], num_queries: int = 3, step: str = "all"
) -> Figure:
    """The same for an encoder-decoder such as FlanT5 (`ENCODER_DECODER_STEPS`): the encoder reads [picture][prompt] in
    both directions; the decoder reads the answer one token late. All padding is on the right."""
    _check_step(step, ENCODER_DECODER_STEPS)
    picture = [(f"v{i}", "picture") for i in range(num_queries)]
    encoded = [picture + prompt for prompt in _pad(prompts, "prompt", False)]
    padded = _pad(answers, "answer", False)
    late = [[("start", "start"), *row[:-1]] for row in padded]
    shown = ENCODER_DECODER_STEPS if step == "all" else (step,)
    panels = {
        "encoder": (
            "1. The encoder reads picture and prompt in both directions. Mask: 1 may be read",
            [part for row in encoded for part in ((None, row), ("mask", _mask_row(row)))],
        ),
        "decoder input": (
            "2. The decoder reads the answer one token late, behind a start token",
            [("reads", row) for row in late],
        ),
        "predictions": (
            "3. So each position predicts the token that it has not read",
            [
                part
                for row, goal in zip(late, padded, strict=True)
                for part in (
                    ("reads", row),
                    ("predicts", [(t, k) if k == "answer" else ("·", "none") for t, k in goal]),
                )
            ],
        ),
        "loss": (
            "4. The loss: labels of the answer's tokens; padding is IGNORE_INDEX (here: –)",
            [("labels", [(t, k) if k == "answer" else ("–", "none") for t, k in row]) for row in padded],
        ),
    }
    return _sequence_figure([panels[name] for name in shown], "Picture, prompt and answer in an encoder-decoder")


def _mask_row(cells: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("0", "pad") if kind == "pad" else ("1", "none") for _, kind in cells]


def _sequence_figure(panels: Sequence[tuple[str, list]], title: str) -> Figure:
    """Panels below one another: (title, rows), each row a (name or None, cells)."""
    longest = max(len(cells) for _, rows in panels for _, cells in rows)
    width = max(1.25, 0.32 + 0.125 * max(len(text) for _, rows in panels for _, cells in rows for text, _ in cells))
    height = sum(len(rows) + 1.5 for _, rows in panels)
    figure, axis = _canvas(min(13, 1.6 + 0.82 * width * longest), 0.42 * height + 0.4, 2.0 + width * longest, height)
    told, y = [], 0.1
    for head, rows in panels:
        axis.text(0.1, y + 0.6, head, va="center", fontsize=12, weight="bold")
        y += 1.1
        told.append(head)
        for i, (name, cells) in enumerate(rows):
            if name != "predicts" and name != "mask" and i:
                y += 0.1
            if name:
                axis.text(1.8, y + 0.5, name, ha="right", va="center", fontsize=10, color="#333")
            _draw_cells(axis, cells, 2.0, y, width)
            if name == "predicts":
                for j, (_, kind) in enumerate(cells):
                    if kind == "answer":
                        draw_arrow(
                            axis, (2.0 + (j + 0.5) * width, y - 0.18), (2.0 + (j + 0.5) * width, y + 0.22), lw=1.6
                        )
            told.append(f"{name or 'row'}: {' '.join(text for text, _ in cells)}")
            y += 1
        y += 0.2
    return described(figure, "Drawing", title, told)


# --- The cache --------------------------------------------------------------------------------------------------------


def cache_steps(tokens: Sequence[str], num_queries: int = 4, step: int | None = None) -> Figure:
    """Writing `tokens` one by one, with a KV cache (left) and without (right): a row for each step, a column for each
    position whose keys and values it needs.

    step: the last step that is drawn, from 1; None: all. The queries are computed once in both.
    """
    if not tokens:
        raise ValueError("Give at least one token to be read.")
    last = len(tokens) if step is None else step
    if not 1 <= last <= len(tokens):
        raise ValueError(f"Step {last} does not exist: there are {len(tokens)}.")
    names = [f"q{i}" for i in range(num_queries)] + list(tokens)
    figure, axes = new_figure(2 * (0.62 * len(names) + 1.5), 0.52 * len(tokens) + 2.2, 1, 2)
    totals = []
    for axis, cached in zip(axes, (True, False), strict=True):
        axis.set(xlim=(-0.1, len(names) + 2.4), ylim=(len(tokens) + 2.3, -0.1))
        axis.axis("off")
        axis.set_title("with a KV cache" if cached else "without: every token again", fontsize=12, loc="left")
        for j, name in enumerate(names):
            axis.text(j + 0.5, 0.5, name, ha="center", va="center", fontsize=10)
        axis.text(len(names) + 1.3, 0.5, "rows computed", ha="center", va="center", fontsize=10)
        total = 0
        for i in range(last):
            new = range(num_queries + i, num_queries + i + 1) if cached else range(num_queries, num_queries + i + 1)
            for j in range(num_queries + i + 1):
                if j in new:
                    _cell(axis, j, 1 + i, "new", fc=TEXT, ec="black", weight="bold", size=9)
                else:
                    _cell(axis, j, 1 + i, "kept", fc=tint(QUERY if j < num_queries else TEXT, 0.25), ec="#888", size=9)
            total += len(new)
            axis.text(len(names) + 1.3, 1.5 + i, f"{len(new)}", ha="center", va="center", fontsize=11)
        axis.text(len(names) + 1.3, 1.6 + last, f"sum {total}", ha="center", va="center", fontsize=11, weight="bold")
        totals.append(total)
    head = f"Writing {' '.join(tokens[:last])} step by step"
    told = [
        f"With a KV cache each step computes one row of keys and values, the new token's, and keeps the others: "
        f"{totals[0]} rows in {last} steps",
        f"Without one, each step computes all tokens so far again: {totals[1]} rows",
        f"The {num_queries} queries' keys and values are kept in both",
    ]
    return described(figure, "Drawing", head, told)
