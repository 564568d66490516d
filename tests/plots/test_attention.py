"""Figures of attention on known patterns: panels, scales, explorers."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib", reason="figures need matplotlib")

from blip2_lab.plots import attention

PICTURE = Image.new("RGB", (96, 96), (200, 60, 40))


def drawn(figure) -> list:
    """The panels that show a map, as arrays."""
    return [axis.images[1].get_array() for axis in figure.axes if len(axis.images) > 1]


def test_an_overlay_colors_the_hot_patch_and_nothing_else():
    heat = torch.zeros(4, 4)
    heat[3, 0] = 5.0
    heat[0, 3] = -9.0
    shown = attention.overlay(PICTURE, heat, size=64)
    assert shown.size == (64, 64)
    red, _, blue = shown.getpixel((8, 56))
    assert red > blue + 60, "lower left is hot"
    red, green, blue = shown.getpixel((56, 8))
    assert red == green == blue, "evidence against is not evidence"
    assert attention.overlay(PICTURE, torch.zeros(4, 4), size=32).size == (32, 32)


def test_every_query_gets_a_panel_and_one_scale_if_asked():
    maps = torch.rand(16, 8, 8)
    figure = attention.queries_on_image(PICTURE, maps, notes=[f"{i}%" for i in range(16)])
    assert len(drawn(figure)) == 16 and figure.axes[3].get_title() == "3\n3%"
    figure = attention.queries_on_image(PICTURE, maps, shared=True)
    assert len({tuple(axis.images[1].get_clim()) for axis in figure.axes}) == 1


def test_words_methods_layers_and_heads():
    figure = attention.words_on_image(PICTURE, ["a", "boat"], torch.rand(2, 4, 4) - 0.5, [0.5, 0.25])
    assert [axis.get_title() for axis in figure.axes] == ["a\n50%", "boat\n25%"]
    assert all(array.min() >= 0 for array in drawn(figure))
    maps = {"raw": torch.eye(4), "shapley": -torch.eye(4)}
    figure = attention.methods_side_by_side(PICTURE, maps, box=(0, 0, 0.5, 0.5), notes={"raw": "hit"})
    assert figure.axes[0].get_title() == "raw\nhit" and len(figure.axes[1].patches) == 1
    maps = torch.zeros(2, 3, 5, 4, 4)
    maps[1, 2, 4] = 1.0
    figure = attention.layers_and_heads(PICTURE, maps, [0, 2], query=4)
    assert [a.max() for a in drawn(figure)] == [0, 0, 0, 0, 0, 1]
    assert figure.axes[5].get_title() == "layer 2, head 2"


def test_intervals_are_described():
    figure = attention.intervals({"raw": (0.5, 0.25, 0.75)}, x="hits", levels={"chance": (0.15, 0.1, 0.2)})
    assert "raw: 0.50, from 0.25 to 0.75" in figure.alt and "Band, chance: 0.10 to 0.20" in figure.alt


def test_itc_shows_its_maximum_and_itm_its_mean():
    itc, itm = attention.queries_and_caption(torch.tensor([0.1, 0.7, 0.2]), torch.tensor([1.0, 2.0, 3.0]), "a boat")
    assert "query 1 (0.70)" in itc.axes[0].get_title(loc="left")
    assert "mean: 2.00" in itm.axes[0].get_title(loc="left")


def test_intervals_are_where_they_should_be():
    rows = {"raw": (0.2, 0.1, 0.3), "gradient": (0.8, 0.7, 0.95)}
    figure = attention.intervals(rows, x="share", levels={"things": (0.4, 0.35, 0.45)})
    (axis,) = figure.axes
    assert [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1][:1] == [0.2]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["raw", "gradient"]


def test_explorers_draw_what_is_chosen(monkeypatch):
    pytest.importorskip("ipywidgets")
    given = {}
    monkeypatch.setattr(attention, "explorer", lambda view, **controls: given.update(view=view, **controls))
    maps = torch.rand(2, 3, 5, 4, 4)
    attention.explore_layers(PICTURE, maps, [0, 2])
    assert given["layer"].options == (0, 2) and (given["head"].max, given["query"].max) == (2, 4)
    (array,) = drawn(given["view"](layer=2, head=1, query=3))
    assert torch.allclose(torch.tensor(array), maps[1, 1, 3])
    (array,) = drawn(given["view"](layer=0, head=-1, query=-1))
    assert torch.allclose(torch.tensor(array), maps[0].mean(dim=(0, 1)))
    rows = {"raw": torch.rand(2, 4, 4), "layer": torch.rand(2, 4, 4)}
    attention.explore_words(PICTURE, ["a", "boat"], rows)
    arrays = drawn(given["view"](word=1))
    assert all(torch.allclose(torch.tensor(a), rows[m][1]) for a, m in zip(arrays, rows, strict=True))
