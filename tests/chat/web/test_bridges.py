"""The app over HTTP with each bridge that answers: what has no meaning for it is absent, or said in one sentence."""

from __future__ import annotations

import re
import sys

import pytest

gr = pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

import blip2_lab  # noqa: E402  after the skips
from blip2_lab.chat.web import app as chat_app  # noqa: E402
from blip2_lab.chat.web import guard, start  # noqa: E402
from blip2_lab.chat.web.components import WHAT_ROWS_ARE  # noqa: E402
from blip2_lab.interpret.targets import reader_of  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402
from tests.tiny import BRIDGES, build_bridged_model  # noqa: E402

CONTROLS = ("greedy", 5, 0.9, 1.0, 4, -1.0, 1.0)
THINGS = [["boat", "red", "large", "left"]]


@pytest.mark.parametrize("bridge", BRIDGES)
def test_the_page_of_each_bridge(tiny_model, tiny_decoder_model, bridge):
    model = build_bridged_model(bridge, tiny_decoder_model if bridge in ("gated", "linear") else tiny_model)
    page = chat_app.build(model, name=f"runs/{bridge}")
    tabs = {block.label for block in page.blocks.values() if isinstance(block, gr.Tab)}
    assert not tabs & {"Match meter", "Search"}
    assert [b.value for b in page.blocks.values() if b.elem_id == "no-stage1"] == [
        f"<p class='quiet'>{chat_app.NO_STAGE1}</p>"
    ]
    app, picture = chat_app.App(model), draw(sample_scene(7, 3), 200)
    *_, (_, _, turns, confidence) = app.ask("what is it?", picture, [], 0, *CONTROLS)
    assert "probability" in confidence
    menu, _ = app.offer(picture, turns)
    found = app.origin(menu.choices[0][1], picture, turns)
    reader = reader_of(model.bridge)
    assert WHAT_ROWS_ARE[reader] in found and found.count("class='map'") == 1
    assert ("<figure>" in found) == (reader is not None)
    captions = re.findall(r"<figcaption>(.*?): \d+%", found)
    if reader == "bridge":
        assert set(captions) >= {choice for choice, _ in menu.choices[:1]}, "a row for each word"
    else:
        assert all(re.fullmatch(r"(q|latent) \d", caption) for caption in captions)


@pytest.mark.parametrize("bridge", ["linear-pooled", "gated-resampler"])
def test_the_command_serves_a_saved_bridge(tiny_model, bridge, tmp_path, monkeypatch, capsys):
    blip2_lab.save(build_bridged_model(bridge, tiny_model), tmp_path / "model")
    pages: list[gr.Blocks] = []
    monkeypatch.setattr(guard, "UNREAD_TIME", 300)  # on a busy machine a client may begin to listen late
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: pages.append(page))  # does not wait for Ctrl+C
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", str(tmp_path / "model")])
    start.main()
    try:
        address = re.search(r"Open (\S+) in", capsys.readouterr().out)[1]
        client = gradio_client.Client(address, verbose=False, httpx_kwargs={"timeout": 120})
        assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/look", "/draw", "/ask"}
        client.predict(things=THINGS, place="beach", api_name="/draw")
        answer, words, _ = client.predict(question="what is in the picture?", max_tokens=5, api_name="/ask")
        assert answer == " ".join(word["word"] for word in words) and words
        beams, *_ = client.predict(question="what is it?", method="beam search", max_tokens=4, api_name="/ask")
        assert isinstance(beams, str)
    finally:
        pages[0].close()
