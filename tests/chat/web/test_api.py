"""The app for programs, over HTTP with gradio's own client: names, plain values, and errors with their sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

gr = pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

from blip2_lab.chat.web import api  # noqa: E402  after the skips
from blip2_lab.chat.web import app as chat_app  # noqa: E402
from blip2_lab.models.decoding import Token  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.fixture(scope="module")
def address(tiny_model):
    page = chat_app.build(tiny_model)
    address = chat_app.serve(page, block=False)[1]
    page.app.middleware_stack.unread_time = 300  # on a busy machine a client may begin to listen late
    yield address
    page.close()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "boat.png"
    draw(sample_scene(7, 3), 200).save(path)
    return str(path)


@pytest.fixture
def client(address):
    return gradio_client.Client(address, verbose=False, httpx_kwargs={"timeout": 120})


def refusal(client, **call) -> str:
    with pytest.raises(gradio_client.exceptions.AppError) as refused:
        client.predict(**call)
    return str(refused.value)


def test_the_example_of_the_documentation_runs(address, picture):
    text = PAGE.read_text(encoding="utf-8")
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    script = script.replace("http://127.0.0.1:7860", address.rstrip("/"))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=Path(picture).parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"\| least sure of \{'word': .*'probability': .*\nITC -?\d\.\d\d, ITM \d+%\npage \d+ ", done.stdout
    )


def test_every_parameter_has_a_name_and_is_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/look", "/draw", "/ask", "/match", "/search"}
    text = PAGE.read_text(encoding="utf-8")
    for name, endpoint in endpoints.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        for parameter in endpoint["parameters"]:
            assert f"`{parameter['parameter_name']}`" in row, f"{name}: {parameter['parameter_name']}"


def test_the_model_is_shown_what_was_uploaded(client, picture, monkeypatch):
    encoded, encode = [], chat_app.ImageCache.encode
    monkeypatch.setattr(
        chat_app.ImageCache, "encode", lambda image_cache, image: (encoded.append(image), encode(image_cache, image))[1]
    )
    assert client.predict(picture=gradio_client.handle_file(picture), api_name="/look") == ""
    answer, words, note = client.predict(question="what is it?", max_tokens=4, api_name="/ask")
    assert note == ""
    assert isinstance(answer, str) and " ".join(word["word"] for word in words) == answer
    assert all(0 <= word["probability"] <= 1 for word in words)
    itc, itm = client.predict(sentence="a red boat.", api_name="/match")
    assert -1 <= itc <= 1 and 0 <= itm <= 1
    uploaded = Image.open(picture)
    assert len(encoded) == 2 and all(image.tobytes() == uploaded.tobytes() for image in encoded)


def test_an_answer_says_which_words_were_read_otherwise_or_not_at_all(client, picture):
    client.predict(picture=gradio_client.handle_file(picture), api_name="/look")
    asked = dict(max_tokens=4, api_name="/ask")
    answer, words, note = client.predict(question="waht is the quorx there?", **asked)
    assert isinstance(answer, str) and words and note == 'I read "waht" as "what". I do not know the word "quorx".'
    assert client.predict(question="what is it?", **asked)[2] == "", "not the note of the question before"


def test_a_scene_is_drawn_and_found(client):
    things = [["boat", "red", "large", "left"], ["cat", "blue", "small", "top right"]]
    drawn = client.predict(things=things, place="beach", api_name="/draw")
    assert Image.open(drawn).size == (384, 384)
    assert client.predict(question="what is it?", max_tokens=4, api_name="/ask")[0]
    found = client.predict(sentence="a red boat", api_name="/search")
    assert len(found) == 8 and found[0]["name"].startswith("page ") and 0 <= found[0]["itm"] <= 1


def test_a_refusal_is_an_error_with_its_sentence(client, picture, tmp_path):
    (tmp_path / "none.png").write_bytes(b"this is no picture")
    file = gradio_client.handle_file
    assert refusal(client, question="what is it?", api_name="/ask") == api.NO_PICTURE
    assert refusal(client, sentence="a red boat.", api_name="/match") == api.NO_PICTURE
    bad = refusal(client, picture=file(str(tmp_path / "none.png")), api_name="/look")
    assert "PNG, JPEG, WebP or GIF" in bad and str(tmp_path) not in bad
    assert "no picture" in refusal(client, picture=None, api_name="/look")
    for none in ("", picture, 5, []):
        assert refusal(client, picture=none, api_name="/look") == "A picture is a file: send it with handle_file(…)."
    client.predict(picture=file(picture), api_name="/look")
    assert refusal(client, question=None, api_name="/ask") == "A question is text, and this is none."
    assert refusal(client, question=file(picture), api_name="/ask") == "A question is text, and this is none."
    assert refusal(client, sentence=None, api_name="/match") == "A sentence is text, and this is none."
    assert '"quorx"' in refusal(client, question="quorx blicket?", api_name="/ask")
    assert "no question yet" in refusal(client, question="", api_name="/ask")
    assert "no sentence yet" in refusal(client, sentence=" ", api_name="/search")
    for bare in ("drum", "the red drum?"):  # the page asks back, which is no answer of the model
        assert "drum? Ask for example" in refusal(client, question=bare, api_name="/ask")
    assert "Ask me about the picture" in refusal(client, question="hello", api_name="/ask")
    assert "one to four things" in refusal(client, things=[], api_name="/draw")
    for name, label in (("beams", "Beams"), ("max_tokens", "Longest answer"), ("seed", "Seed")):
        for none in ("ten", [1], {"a": 1}):
            said = refusal(client, question="what is it?", api_name="/ask", **{name: none})
            assert said == f"“{label}” is a number, and this is none."
    assert client.predict(question="what is it?", max_tokens=4, seed=None, api_name="/ask")[0], "no seed is the first"
    assert "less than minimum" in refusal(client, question="what is it?", max_tokens=0, api_name="/ask")


@pytest.mark.parametrize(
    ("things", "sentence"),
    [
        (None, "one to four things"),
        ([["boat", "red", "large"]], "A thing is"),
        ([["boat", "red", "large", 3]], "A thing is"),
        ([["dog", "red", "large", "left"]], "'dog' is none of boat"),
        ([["boat", "red", "large", "left"], ["cat", "red", "large", "left"]], "Two things"),
    ],
)
def test_requests_that_cannot_be_drawn(things, sentence):
    with pytest.raises(ValueError, match=sentence):
        api.scene_of("beach", "day", things)
    with pytest.raises(ValueError, match="A place is one of"):
        api.scene_of("moon", "day", [["boat", "red", "large", "left"]])


def test_words_and_probabilities_are_plain():
    found = api.words_and_probabilities((Token("a", 0.123456), Token(" ", 1.0), Token(" boat", 1.0)))
    assert found == [{"word": "a", "probability": 0.1235}, {"word": "boat", "probability": 1.0}]
