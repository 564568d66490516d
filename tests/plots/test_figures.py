"""Figures of patterns known by hand, read back from the figure."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image

from blip2_lab.models import masks
from blip2_lab.plots import figures

pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'blip2-lab[teach]'")


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def grays(figure) -> Image.Image:
    from io import BytesIO

    return Image.open(BytesIO(figures.png(figure, dpi=50))).convert("L")


def test_the_map_highlights_the_given_parts():
    dark = figures.blip2_map({"itc", "self_attention"}, "today")
    axis = dark.axes[0]
    bold = [text.get_text() for text in axis.texts if text.get_weight() == "bold"]
    assert bold == [figures.MAP["self_attention"][0], "ITC"]
    assert axis.get_title(loc="left") == "today"
    assert not [text for text in figures.blip2_map().axes[0].texts if text.get_weight() == "bold"]
    with pytest.raises(ValueError, match="attic: not on the map"):
        figures.blip2_map({"attic"})


def test_every_arrow_of_the_map_joins_two_boxes_and_no_boxes_overlap():
    assert {name for arrow in figures.ARROWS for name in arrow} == figures.MAP.keys()
    boxes = [(x, y, x + w, y + h) for _, x, y, w, h in figures.MAP.values()]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_mask_grids_draw_true_dark_and_false_hatched():
    mask = masks.multimodal_causal_mask(2, torch.tensor([[True, True, False]]))
    figure = figures.mask_grids({"ITG": mask}, ["q0", "q1", "a", "boat", "[PAD]"], 2)
    cells = figure.axes[0].patches
    assert [cell.get_hatch() is None for cell in cells] == mask.flatten().tolist()
    assert len({cell.get_facecolor() for cell in cells}) == 2
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["q0", "q1", "a", "boat", "[PAD]"]
    light = grays(figure)
    assert light.getextrema()[1] - light.getextrema()[0] > 150, "readable in gray"


def test_a_text_pass_after_cached_queries_has_fewer_rows():
    mask = masks.multimodal_causal_mask(2, torch.tensor([[True, True]]))[:, :, 2:]
    axis = figures.mask_grids({"cached": mask}, ["q0", "q1", "a", "boat"], 2).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "boat"]
    long = masks.multimodal_causal_mask(1, torch.tensor([[True, True, True]]))[:, :, 1:]
    assert len(figures.mask_grids({"cached": long}, ["q0", "a", "red", "boat"], 1).axes[0].lines) == 1, "no query rows"
    with pytest.raises(ValueError, match="4 columns and there are 3 names"):
        figures.mask_grids({"cached": mask}, ["q0", "a", "boat"], 1)


def test_a_matrix_carries_its_numbers_and_frames_the_true_pairs():
    figure = figures.matrix(torch.eye(3), ["a", "b", "c"], ["x", "y", "z"], title="identity", mark=torch.eye(3).bool())
    axis = figure.axes[0]
    assert texts(axis) == ["1.00", "0.00", "0.00", "0.00", "1.00", "0.00", "0.00", "0.00", "1.00"]
    assert axis.images[0].get_array().tolist() == torch.eye(3).tolist()
    assert len(axis.patches) == 6, "two lines for each frame"
    white, black = ([t for t in axis.texts if t.get_color() == color] for color in ("white", "black"))
    assert len(white) == 6 and len(black) == 3, "light numbers on dark cells"
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        figures.matrix(torch.zeros(2, 3), ["a"], ["x", "y", "z"])


def test_a_matrix_has_room_for_long_names():
    names = ["a large gray cat and a small pink cat", "b"]
    heights = [figures.matrix(torch.eye(2), ["x", "y"], columns).get_figheight() for columns in (["a", "b"], names)]
    assert heights[1] > heights[0] + 1
    label = figures.matrix(torch.eye(2), ["x", "y"], names).axes[0].get_xticklabels()[0].get_text()
    assert label == "a large gray cat and a\nsmall pink cat"


def test_a_large_matrix_has_no_numbers():
    names = [str(i) for i in range(20)]
    assert texts(figures.matrix(torch.rand(20, 20), names, names).axes[0]) == []


def test_attention_is_drawn_at_its_patches():
    picture = Image.new("RGB", (64, 64), "white")
    maps = torch.zeros(2, 8, 8)
    maps[0, 0, 7] = 1.0
    figure = figures.attention_on_image(picture, maps, ["top right", "nowhere"], boxes=[(0.5, 0, 1, 0.5)])
    drawn = figure.axes[0].images[1].get_array()
    assert drawn.argmax() == 7 and figure.axes[0].get_title() == "top right"
    assert len(figure.axes[0].patches) == 1
    with pytest.raises(ValueError, match="2 titles"):
        figures.attention_on_image(picture, torch.zeros(3, 8, 8), ["a", "b"])


def test_images_have_their_titles():
    figure = figures.image_grid([Image.new("RGB", (8, 8))] * 3, ["a", "b", "c"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", ""]


def test_long_titles_are_broken_so_that_neighbors_do_not_meet():
    figure = figures.image_grid(
        [Image.new("RGB", (8, 8))] * 2, ["a large gray cat at the top right and a small pink cat"] * 2
    )
    assert all(len(line) <= 31 for line in figure.axes[0].get_title().splitlines())


def test_curves_differ_in_dash_as_well_as_in_color():
    figure = figures.curves({"itc": [3.0, 2.0], "itm": ([0, 10], torch.tensor([1.0, 0.5]))}, levels={"chance": 0.637})
    lines = figure.axes[0].lines
    assert lines[0].get_ydata().tolist() == [3.0, 2.0] and lines[1].get_xdata().tolist() == [0, 10]
    assert len({line.get_linestyle() for line in lines[:2]}) == 2 == len({line.get_color() for line in lines[:2]})
    assert " chance" in texts(figure.axes[0])


def test_bars_differ_in_hatch_and_carry_numbers():
    figure = figures.bars({"with": [0.5, 0.25], "without": torch.tensor([0.1, 0.2])}, ["red", "blue"])
    axis = figure.axes[0]
    assert [bar.get_height() for bar in axis.containers[0]] == [0.5, 0.25]
    assert len({bar.get_hatch() for container in axis.containers for bar in container}) == 2
    assert texts(axis) == ["0.50", "0.25", "0.10", "0.20"]


def test_every_figure_is_described_by_what_is_drawn():
    told = figures.curves({"itc": [3.0, 1.5], "itm": ([0, 10], [1.0, 0.5])}, y="loss", levels={"chance": 0.637}).alt
    assert "itc: 3 at 0, 1.5 at 1" in told and "itm: 1 at 0, 0.5 at 10" in told and "chance: 0.637" in told
    told = figures.bars({"with": [0.5, 0.25]}, ["red", "blue"], y="share", title="Colors").alt
    assert told == "Bar chart of share: Colors. with: red 0.50, blue 0.25."
    assert "a: x 1.00, y 0.00. b: x 0.00, y 1.00" in figures.matrix(torch.eye(2), ["a", "b"], ["x", "y"]).alt
    names = [f"n{i}" for i in range(9)]
    assert "n0: n8 (1.00); n1: n7 (1.00)" in figures.matrix(torch.eye(9).flip(1), names, names).alt
    assert "Dark: self attention, itc" in figures.blip2_map({"itc", "self_attention"}).alt
    heat = torch.zeros(2, 6, 6)
    heat[0, 0, 5] = 1.0
    told = figures.attention_on_image(Image.new("RGB", (8, 8)), heat, ["query 0", "query 1"]).alt
    assert "query 0: top right." in told and "query 1: the same everywhere." in told
    assert figures.image_grid([Image.new("RGB", (8, 8))], ["a red boat"]).alt == "Picture. a red boat."
    mask = figures.mask_grids({"causal": torch.tensor([[1, 0], [1, 1]]).bool()}, ["a", "b"], 0).alt
    assert "causal: a may read a; b may read a, b" in mask


def test_a_notebook_stores_the_description_with_the_image():
    formatters = pytest.importorskip("IPython.core.formatters", reason="no IPython: pip install 'blip2-lab[teach]'")
    figure = figures.bars({"with": [0.5]}, ["red"])
    data, metadata = formatters.DisplayFormatter().format(figure)
    assert metadata["image/png"]["alt"] == data["text/plain"] == figure.alt != ""
    assert data["image/png"].startswith("iVBOR")  # base64 of a PNG


def test_where_a_map_has_little_the_picture_shows_through():
    heat = torch.zeros(1, 2, 2)
    heat[0, 1, 1] = 1.0
    alpha = figures.attention_on_image(Image.new("RGB", (8, 8)), heat, ["m"]).axes[0].images[1].get_alpha()
    assert alpha[1, 1] > 0.8 and alpha[0, 0] < 0.3


def test_the_x_axis_may_be_logarithmic():
    axis = figures.curves({"a": ([1, 10, 100], [1, 2, 3])}, log_x=True).axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")


def test_a_low_temperature_gives_the_true_pair_nearly_all():
    cosines = torch.tensor([[0.9, 0.5], [0.1, 0.3]])
    figure = figures.temperature_matrices(cosines, {"high": 1.0, "low": 0.01}, ["p0", "p1"], ["c0", "c1"])
    high, low = (torch.tensor(axis.images[0].get_array()) for axis in figure.axes)
    assert torch.allclose(high, cosines.softmax(dim=1)) and low.diagonal().min() > 0.99
    assert figure.axes[1].get_xlabel() == "mean share of the true pair: 1.00"
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["p0", "p1"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["c0", "c1"]
    assert len(figure.axes[0].patches) == 4, "the true pairs are framed, two lines each"


def test_tensors_with_gradients_are_accepted():
    values = torch.rand(2, 2, requires_grad=True)
    assert figures.png(figures.matrix(values, ["a", "b"], ["c", "d"]))[:4] == b"\x89PNG"


def test_matplotlib_is_imported_only_to_draw_and_no_figure_stays_open():
    code = (
        "import sys; from blip2_lab.plots import figures; print('matplotlib' in sys.modules);"
        "figures.curves({'a': [1, 2]}); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_reconstructions_are_rows_of_masked_predicted_and_true():
    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.2, 0.8)])
    figure = figures.reconstructions(torch.zeros_like(images), images / 2, images)
    assert [axis.get_title() for axis in figure.axes] == ["masked", "predicted", "image", "", "", ""]
    shown = [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes]
    assert shown == [0, 26, 51, 0, 102, 204]
    with pytest.raises(ValueError, match=r"images \[B,3,S,S\] of one shape"):
        figures.reconstructions(images, images, images[:1])
