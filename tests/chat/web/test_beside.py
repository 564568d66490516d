"""Two models side by side: one question, two answers, each as its model gives it alone."""

from __future__ import annotations

import re
import shutil

import pytest

gr = pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

from blip2_lab.chat.conversation import Conversation, ImageCache  # noqa: E402  after the skips
from blip2_lab.chat.web import app as chat_app  # noqa: E402
from blip2_lab.chat.web import beside as beside_page  # noqa: E402
from blip2_lab.chat.web import start  # noqa: E402
from blip2_lab.chat.web.beside import Beside, Talk, build_beside  # noqa: E402
from blip2_lab.models.decoding import Decoding  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402
from tests.tiny import build_bridged_model  # noqa: E402

PICTURE = draw(sample_scene(7, 3), 200)
CONTROLS = ("greedy", 5, 0.9, 1.0, 4, -1.0, 1.0)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def models(tiny_model, tiny_decoder_model):
    return {
        "runs/a <b>": build_bridged_model("linear", tiny_model),
        "runs/gated": build_bridged_model("gated", tiny_decoder_model),
    }


@pytest.fixture(scope="module")
def address(models):
    page = build_beside(models)
    address = chat_app.serve(page, block=False)[1]
    page.app.middleware_stack.unread_time = 300  # on a busy machine a client may begin to listen late
    yield address
    page.close()


def alone(model, question):
    *_, reply = Conversation(model, ImageCache(model).encode(PICTURE)).ask(
        question, Decoding(num_beams=1, max_new_tokens=4)
    )
    return reply


@pytest.fixture
def warnings(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


def test_each_answers_as_alone_and_goes_on_with_its_own_turns(models, warnings):
    page = Beside(models)
    expected = [alone(model, "what is it?") for model in models.values()]
    assert expected[0].text != expected[1].text, "else nothing can be crossed"
    *_, (box, table, talk) = page.ask_both("what is it?", PICTURE, Talk(), 0, *CONTROLS)
    assert box == "" and warnings == []
    assert [answer.reply.text for answer in talk.exchanges[0].answers] == [reply.text for reply in expected]
    assert [turns[0].answer for turns in talk.turns] == [reply.text for reply in expected]
    assert "runs/a &lt;b&gt;" in table and table.count("<td>") == 2 and table.count("Least sure of") == 2
    cells = re.findall(r"<td>(.*?)</td>", table)
    for cell, reply in zip(cells, expected, strict=True):
        shown = re.findall(r'title="probability ([\d.]+)">', cell)
        assert [float(p) for p in shown] == pytest.approx(
            [w.probability for w in reply.words if w.text.strip()], abs=1e-3
        )
    *_, (_, table, talk) = page.ask_both("what place is this?", PICTURE, talk, 0, *CONTROLS)
    assert len(talk.exchanges) == 2 and table.index("what place") < table.index("what is it"), "the newest first"


def test_what_one_refuses_stands_in_its_column(models, warnings, monkeypatch):
    page, ask = Beside(models), Conversation.ask
    second = page.models[1]

    def refusing(talk, *arguments, **options):
        if talk.model is second:
            raise ValueError("this is too long")
        return ask(talk, *arguments, **options)

    monkeypatch.setattr(Conversation, "ask", refusing)
    *_, (box, table, talk) = page.ask_both("what is it?", PICTURE, Talk(), 0, *CONTROLS)
    first, other = talk.exchanges[0].answers
    assert first.reply.done and other.refused == "This is too long." and other.refused in table and warnings == []
    assert box == "" and talk.turns[1] == ()


@pytest.mark.parametrize(
    ("text", "picture", "said"), [("", PICTURE, "no question yet"), ("what?", None, "no picture yet")]
)
def test_what_cannot_be_asked_is_one_warning(models, warnings, text, picture, said):
    ((box, table, talk),) = Beside(models).ask_both(text, picture, Talk(), 0, *CONTROLS)
    assert box == text and talk == Talk() and said in warnings[0] and len(warnings) == 1
    assert table == beside_page.NOTHING_ASKED


def test_two_that_can_answer_are_needed(models, tiny_model, capsys):
    with pytest.raises(ValueError, match="stage1 has no language model"):
        Beside({"micro": tiny_model, "runs/stage1": tiny_model.stage1})
    with pytest.raises(ValueError, match="Two different models"):
        Beside({"micro": tiny_model})
    for wrong in (["--beside", "micro"], ["--beside", "runs/x", "--gallery", "."]):
        with pytest.raises(SystemExit):
            start.parse(wrong)
        assert "--beside" in capsys.readouterr().err


def test_programs_get_both_answers_over_http(address, models):
    client = gradio_client.Client(address, verbose=False, httpx_kwargs={"timeout": 120})
    with pytest.raises(gradio_client.exceptions.AppError, match="no picture|not here any more"):
        client.predict(question="what is it?", api_name="/ask")
    client.predict(things=[["boat", "red", "large", "left"]], place="beach", api_name="/draw")
    found = client.predict(question="what is it?", max_tokens=4, api_name="/ask")
    assert [one["model"] for one in found] == list(models)
    assert all(one["answer"] == " ".join(word["word"] for word in one["words"]) for one in found)
    assert [one["note"] for one in found] == ["", ""]
    found = client.predict(question="waht is it?", max_tokens=4, api_name="/ask")
    assert [one["note"] for one in found] == ['I read "waht" as "what".'] * 2
    with pytest.raises(gradio_client.exceptions.AppError, match="no question yet"):
        client.predict(question=" ", api_name="/ask")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium")
@pytest.mark.parametrize(("width", "height", "mode"), [(390, 844, "dark"), (1280, 900, "light")])
@pytest.mark.slow
def test_both_answers_stand_beside_each_other_on_every_screen(address, width, height, mode):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=mode)
        tab.set_default_timeout(90_000)
        tab.goto(address, timeout=90_000)
        tab.wait_for_selector("#picture img")
        tab.fill("#box textarea", "what is in the picture?")
        tab.click("#ask")
        playwright.expect(tab.locator("#answers td .words").nth(1)).to_be_visible(timeout=90_000)
        left, right = (tab.locator("#answers td").nth(i).bounding_box() for i in (0, 1))
        assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 2
        assert right["x"] + right["width"] <= width
        told = tab.get_by_role("status").filter(
            has_text="runs/a <b>: "
        )  # a screen reader is told both, once they stand
        playwright.expect(told).to_contain_text("runs/gated: ", timeout=90_000)
        assert tab.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth") == 0
        browser.close()
