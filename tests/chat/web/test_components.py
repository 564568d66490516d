"""What the app's pages are made of: text that cannot become markup, uploads, and a server that lets nobody else in."""

from __future__ import annotations

import pytest
from PIL import Image

gr = pytest.importorskip("gradio")

from blip2_lab.chat.web import components  # noqa: E402
from blip2_lab.models.decoding import Token  # noqa: E402


@pytest.fixture
def warnings(monkeypatch):
    """What the user was warned of."""
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


def test_what_the_model_says_cannot_become_markup():
    words = (Token("<script>alert(1)</script>", 0.5), Token(" boat", 0.25))
    shown = components.confidence_html(words)
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "“boat” (25%)" in shown and "probability 0.250" in shown
    assert components.as_text("<img src=x> & co") == "&lt;img src=x&gt; &amp; co"
    assert "hsl(0 " in components.confidence_html((Token("a", 0.0),))
    assert "hsl(120 " in components.confidence_html((Token("a", 1.0),))
    small = Image.new("RGB", (4, 4))
    shown = components.origin_html("<b'>", 0.25, "gradient", small, [(small, "q 4: <20%")])
    assert "“&lt;b&#x27;&gt;” (25%)" in shown and "<b" not in shown and "q 4: &lt;20%" in shown


def test_the_frame_of_an_origin_has_the_parts_of_the_origin():
    small = Image.new("RGB", (4, 4))
    frame, shown = components.origin_frame_html(3), components.origin_html("a", 0.5, "m", small, [(small, "q 1")] * 3)
    for part in ("<figure>", "<figcaption>", "class='map'", "<p class='quiet'>"):
        assert frame.count(part) == shown.count(part) > 0


def test_a_warning_is_a_sentence_without_markup(warnings):
    components.warn("no <b>zebra</b>")
    components.warn('Two things stand at "top".')
    assert warnings == ["No &lt;b&gt;zebra&lt;/b&gt;.", 'Two things stand at "top".']


def test_the_match_meter_shows_every_query():
    shown = components.queries_html([0.1, 0.9, -0.2], [1.0, 2.0, -3.0])
    assert "1 is best" in shown and shown.count("<i ") == 6 and "query 2: -3.00" in shown


def test_an_upload_is_opened_and_kept_small_enough(warnings, tmp_path):
    for name, size, kept in [("as-it-is.png", (640, 200), (640, 200)), ("wide.png", (5000, 2500), (1024, 512))]:
        Image.new("RGB", size, "teal").save(tmp_path / name)
        assert components.opened(str(tmp_path / name)).size == kept
    assert components.opened(None) is None and warnings == []
    (tmp_path / "bad.png").write_bytes(b"none")
    assert components.opened(str(tmp_path / "bad.png")) is None
    assert "this file" in warnings[0].lower() and str(tmp_path) not in warnings[0]


def test_a_page_starts_with_its_first_picture_unless_the_visitor_was_faster():
    first, other = Image.new("RGB", (2, 2)), Image.new("RGB", (3, 3))
    assert components.started(components.LOST, first) is first and components.started(components.LOST) is None
    assert components.started(other, first) is other
    assert components.started(None, first) is None, "it was taken away"


def test_what_is_not_chosen_is_said():
    image = Image.new("RGB", (2, 2))
    assert components.chosen(image) is image
    for state, sentence in ((None, "other"), (components.LOST, components.LOST_PICTURE)):
        with pytest.raises(ValueError) as refused:
            components.chosen(state, "other")
        assert str(refused.value) == sentence


def test_a_picture_of_the_kept_size_is_not_touched():
    image = Image.effect_noise((300, 200), 50)
    assert components.scaled(image, 300).tobytes() == image.tobytes()
    assert components.scaled(image, 600).size == (600, 400) and components.scaled(Image.new("L", (1, 900)), 9).size == (
        1,
        9,
    )


def test_a_port_that_is_taken_is_not_offered():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", components.free_port("127.0.0.1")))
        assert components.free_port("127.0.0.1") not in (taken.getsockname()[1], 0)
