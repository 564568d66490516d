"""The search of the app: its tab, and the page of a model that only finds."""

from __future__ import annotations

import pytest

gr = pytest.importorskip("gradio")

from blip2_lab.chat.web import line  # noqa: E402
from blip2_lab.chat.web.components import GALLERY  # noqa: E402
from blip2_lab.chat.web.search_tab import Search, build_search  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402


def test_the_drawn_pages_are_read_when_first_searched(tiny_model):
    search = Search(tiny_model)
    assert search.index is None
    found = search.find("a red boat")
    assert len(found) == 8 and len(search.index) == len(GALLERY)
    image, line = found[0]
    assert max(image.size) == 256 and line.startswith("ITM") and line.endswith("%")
    same = search.find(search.drawn["page 3"])
    assert len(same) == 8 and "ITC 1.0" in same[0][1]


def test_a_folder_is_searched_and_its_index_kept(tiny_model, tmp_path):
    draw(sample_scene(7, 3), 200).save(tmp_path / "scene.png")
    search = Search(tiny_model, tmp_path)
    assert (tmp_path / "blip2-index.safetensors").is_file()
    [(found, _)] = search.find("a red boat")
    assert max(found.size) == 256


@pytest.mark.parametrize(
    ("wanted", "sentence"), [("", "no sentence yet"), ("a quorx", "quorx"), (None, "no picture yet")]
)
def test_what_cannot_be_searched_for_is_a_warning(tiny_model, monkeypatch, wanted, sentence):
    warnings: list[str] = []
    monkeypatch.setattr(gr, "Warning", warnings.append)
    assert Search(tiny_model).find(wanted) == []
    assert len(warnings) == 1 and sentence in warnings[0]


def test_a_retrieval_model_gets_a_page_of_its_own(tiny_model):
    page = build_search(Search(tiny_model.stage1), name="itm")
    assert any(getattr(block, "elem_id", None) == "found" for block in page.blocks.values())
    assert page.analytics_enabled is False and page._queue.max_size == 32
    found = [fn for fn in page.fns.values() if fn.api_name == "search"]
    assert [(fn.concurrency_id, fn.concurrency_limit) for fn in found] == [(line.MODEL, line.AT_ONCE)]
    assert "search" not in line.TOGETHER, "so that it runs alone"
