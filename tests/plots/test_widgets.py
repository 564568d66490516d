"""Explorers: the view is displayed without widgets, and a control updates it."""

from __future__ import annotations

import re
import sys

import pytest

from blip2_lab.models import masks
from blip2_lab.plots import widgets

display = pytest.importorskip("IPython.display", reason="no IPython: pip install 'blip2-lab[teach]'")
ipywidgets = pytest.importorskip("ipywidgets", reason="no ipywidgets: pip install 'blip2-lab[teach]'")


@pytest.mark.parametrize("objective", widgets.OBJECTIVES)
def test_the_table_is_the_mask(objective):
    import torch

    table = widgets.mask_table(objective, "red boat", num_queries=2, padding=1)
    cells = [cell == "1" for cell in re.findall(r"<td [^>]*>(.)</td>", table)]
    text_mask = torch.tensor([[True] * 4 + [False]])
    assert cells == widgets.OBJECTIVES[objective][0](2, text_mask).flatten().tolist()


def test_the_sentence_of_a_cell():
    table = widgets.mask_table("ITM", "red boat", num_queries=4, padding=1)
    assert "query 3 may read word 1 (boat) (ITM: image-text matching)" in table
    assert "query 3 may not read [PAD]" in table
    assert "query 3 may not read word 1 (boat)" in widgets.mask_table("ITG", "red boat")


def test_a_caption_is_text_not_html():
    table = widgets.mask_table("ITC", "<script>alert(1)</script> 'quoted'")
    assert "<script>" not in table and "&lt;script&gt;" in table
    with pytest.raises(ValueError, match="choose one of ITC, ITG, ITM"):
        widgets.mask_table("XYZ", "boat")


def test_the_explorer_shows_a_view_and_updates_it(screen):
    controls = widgets.mask_explorer("a boat", num_queries=2)
    assert len(screen) == 1 and "ITG" in screen[0].data
    objective = next(child for child in controls.children if child.description == "objective")
    objective.value = "ITM"
    assert len(screen) == 2 and "image-text matching" in screen[1].data


def test_any_view_works_and_plain_values_are_no_controls(screen):
    assert widgets.explorer(lambda layer: f"layer {layer}", layer=3) is None
    slider = ipywidgets.IntSlider(value=1, min=0, max=5)
    controls = widgets.explorer(lambda layer, head: f"layer {layer}, head {head}", layer=slider, head=0)
    slider.value = 4
    assert screen == ["layer 3", "layer 1, head 0", "layer 4, head 0"]
    assert list(controls.children) == [slider]


def test_a_query_is_chosen_with_a_slider(screen, monkeypatch):
    import torch
    from PIL import Image

    picture, maps = Image.new("RGB", (32, 32)), torch.rand(2, 3, 4, 4)
    controls = widgets.query_explorer(picture, maps)
    controls.children[0].value = 2
    first, second = screen
    assert [axis.get_title() for axis in second.axes] == ["query 2, look 1 of 2", "query 2, look 2 of 2"]
    assert torch.allclose(torch.tensor(first.axes[1].images[1].get_array()), maps[1, 0])
    assert controls.children[0].max == 2
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert widgets.query_explorer(picture, maps) is None and len(screen) == 3


def test_without_ipywidgets_all_three_tables_are_shown(screen, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    html = widgets.mask_explorer("a boat").data
    assert all(f"<th>{name}</th>" in html for name in widgets.OBJECTIVES)
    assert masks.__name__  # the tables come from the masks, not from here


def test_the_decoding_explorer_shows_a_step_and_updates_it(screen):
    import torch

    logits = torch.tensor([1.0, 3.0, 2.0])
    controls = widgets.decoding_explorer(logits, ["a", "b", "c"])
    assert [child.description for child in controls.children] == ["temperature", "top p"]
    controls.children[1].value = 0.05
    narrow = screen[-1].axes[1]
    assert len(screen) == 2 and narrow.get_title() == "temperature 1, top_p 0.05"
    assert [bar.get_width() for bar in narrow.patches] == [1.0, 0.0, 0.0]


def test_the_sequence_stepper_begins_with_all_steps(screen, monkeypatch):
    prompts, answers = [["what", "?"], ["where"]], [["a", "boat"], ["there"]]
    controls = widgets.sequence_explorer(prompts, answers)
    slider = controls.children[0]
    assert list(slider.options) == ["all", "rows", "padding", "shift", "loss"]
    slider.value = "shift"
    first, second = ([text.get_text() for text in figure.axes[0].texts] for figure in screen)
    assert any(text.startswith("4. The loss") for text in first)
    assert not any(text.startswith(("1.", "2.", "4.")) for text in second) and "predicts" in second
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    alone = widgets.sequence_explorer(prompts, answers, decoder=False)
    assert "encoder-decoder" in alone.alt and "4. The loss" in alone.alt


def test_the_cache_stepper_begins_with_the_last_step(screen, monkeypatch):
    controls = widgets.cache_explorer(["[DEC]", "a", "boat"], num_queries=2)
    controls.children[0].value = 1
    last, first = screen
    assert "3 rows in 3 steps" in last.alt and "1 rows in 1 steps" in first.alt
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert widgets.cache_explorer(["[DEC]", "a"]).alt.count("2 rows in 2 steps") == 1


def test_the_temperature_slider_moves_the_third_matrix_only(screen, monkeypatch):
    import torch

    cosines = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    controls = widgets.temperature_explorer(cosines, ["p0", "p1"], ["c0", "c1"], learned=0.1)
    controls.children[0].value = 2.0
    before, after = screen
    panels = [[torch.tensor(axis.images[0].get_array()) for axis in figure.axes] for figure in screen]
    assert torch.allclose(panels[0][2], (cosines / 0.1).softmax(1)) and torch.allclose(panels[0][0], cosines.softmax(1))
    assert torch.equal(panels[0][0], panels[1][0]) and torch.equal(panels[0][1], panels[1][1])
    assert torch.allclose(panels[1][2], (cosines / 2.0).softmax(1), atol=1e-3)
    assert before.axes[2].get_title() == "learned: 0.1" and after.axes[2].get_title() == "yours: 2"
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert len(widgets.temperature_explorer(cosines, ["p0", "p1"], ["c0", "c1"], learned=0.1).axes) == 3


def test_the_name_of_a_control_is_not_cut(screen):
    controls = widgets.mask_explorer("a boat")
    assert all(child.style.description_width == "initial" for child in controls.children)


def test_without_ipywidgets_there_are_four_settings_or_one_search(monkeypatch):
    import torch

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    figure = widgets.decoding_explorer(torch.tensor([1.0, 3.0]), ["a", "b"])
    assert len(figure.axes) == 4
    assert widgets.beam_explorer(lambda num_beams, length_penalty: (num_beams, length_penalty)) == (3, 1.0)


def test_the_beam_explorer_passes_its_settings(screen):
    controls = widgets.beam_explorer(lambda num_beams, length_penalty: (num_beams, length_penalty), 2, 0.0)
    controls.children[0].value = 5
    assert screen == [(2, 0.0), (5, 0.0)]
