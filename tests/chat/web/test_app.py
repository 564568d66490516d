"""The app: its small functions, its handlers, and the whole thing over its API. No browser (see test_browser.py)."""

from __future__ import annotations

import io
import random
import re
import socket
import sys

import pytest
import torch
from PIL import Image, PngImagePlugin

gr = pytest.importorskip("gradio")

from blip2_lab.chat import out_of_distribution  # noqa: E402
from blip2_lab.chat.conversation import INSTRUCTIONS, Turn  # noqa: E402
from blip2_lab.chat.out_of_distribution import DrawnWorld  # noqa: E402
from blip2_lab.chat.web import app as chat_app  # noqa: E402  after the skip
from blip2_lab.chat.web import line, start  # noqa: E402
from blip2_lab.chat.web.components import KEPT, REAL_WEIGHTS  # noqa: E402
from blip2_lab.checkpoints.names import check_name  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402

CONTROLS = ("greedy", 5, 0.9, 1.0, 4, -1.0, 1.0)


@pytest.fixture
def warnings(monkeypatch):
    """What the user was warned of."""
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    return said


@pytest.fixture
def handlers(tiny_model):
    return chat_app.App(tiny_model)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "scene.png"
    draw(sample_scene(7, 3), 200).save(path)
    return str(path)


# ---------------------------------------------------------------------------------------------------- small functions


def test_a_scene_from_the_menus():
    nothing = (chat_app.NOTHING, "red", "small", "top")
    menus = ("boat", "red", "large", "left", "cat", "blue", "small", "top right", *nothing, *nothing)
    scene = chat_app.scene_from_menus("beach", "night", *menus)
    assert [(t.kind, t.color, t.size, t.position) for t in scene.things] == [
        ("boat", "red", "large", "left"),
        ("cat", "blue", "small", "top right"),
    ]
    assert (scene.place, scene.time) == ("beach", "night")


def test_menus_that_cannot_be_drawn():
    nothing = (chat_app.NOTHING, "red", "small", "top")
    with pytest.raises(ValueError, match="nothing to draw"):
        chat_app.scene_from_menus("beach", "day", *nothing)
    with pytest.raises(ValueError, match='Two things stand at "top"'):
        chat_app.scene_from_menus("beach", "day", "boat", "red", "small", "top", "cat", "red", "small", "top")


def test_other_hosts_need_a_password(capsys):
    assert start.parse([]).host == "127.0.0.1"
    for arguments in (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--auth", "nobody"], ["--auth", ":secret"]):
        with pytest.raises(SystemExit):
            start.parse(arguments)
        assert "--auth" in capsys.readouterr().err
    assert start.parse(["--host", "0.0.0.0", "--auth", "ada:secret"]).auth == "ada:secret"


def test_the_decoding_controls_mean_what_they_say():
    decoding = chat_app.decoding_from_controls("beam search", 3, 0.8, 0.5, 20, -1, 1.2)
    assert (decoding.num_beams, decoding.do_sample, decoding.max_new_tokens) == (3, False, 20)
    assert (decoding.length_penalty, decoding.repetition_penalty) == (-1, 1.2)
    decoding = chat_app.decoding_from_controls("nucleus sampling", 3, 0.8, 0.5, 20, -1, 1.2)
    assert (decoding.num_beams, decoding.do_sample, decoding.top_p, decoding.temperature) == (1, True, 0.8, 0.5)
    assert chat_app.decoding_from_controls("greedy", 3, 0.8, 0.5, 20, -1, 1.2).num_beams == 1


def test_beam_search_says_how_far_it_is():
    reply = chat_app.Reply("", (), "prompt")
    assert chat_app.waiting(reply) == "…"
    assert chat_app.waiting(chat_app.Reply("", (), "prompt", searched=7)) == "… beam search: 7 tokens tried"
    assert chat_app.waiting(chat_app.Reply("", (), "prompt", done=True)) == ""


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (640, 480)])
def test_any_mode_and_size_can_be_shown(handlers, warnings, tmp_path, mode, size):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.new(mode, size).save(path)
    shown, note, image, turns, chat, _ = handlers.look(str(path))
    assert warnings == [] and image.mode == "RGB" and image.size == size
    assert max(shown.size) == chat_app.SHOWN and turns == chat == []


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_formats(handlers, warnings, tmp_path, format):
    path = tmp_path / f"picture.{format.lower()}"
    draw(sample_scene(7, 3)).save(path, format)
    assert handlers.look(str(path))[2].size == (96, 96) and warnings == []


def bad_files(folder) -> dict[str, bytes]:
    """Name -> content of files that are no pictures, or only look like some."""
    png = io.BytesIO()
    draw(sample_scene(7, 3)).save(png, "PNG")
    huge = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(huge, "PNG")
    tiff = io.BytesIO()
    draw(sample_scene(7, 3)).save(tiff, "TIFF")
    return {
        "empty.png": b"",
        "text.png": b"hello, I am a picture, believe me",
        "noise.jpg": random.Random(0).randbytes(4000),
        "cut.png": png.getvalue()[:400],
        "huge.png": huge.getvalue(),
        "other.tiff": tiff.getvalue(),
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    }


def test_bad_files_get_one_sentence_and_the_app_lives_on(handlers, warnings, tmp_path, picture):
    for count, (name, content) in enumerate(bad_files(tmp_path).items(), 1):
        path = tmp_path / name
        path.write_bytes(content)
        shown, note, image, *_ = handlers.look(str(path))
        assert shown is None and image is None and len(warnings) == count, name
        sentence = warnings[-1]
        assert sentence[0].isupper() and sentence.endswith(".") and len(sentence) < 200, sentence
        assert str(tmp_path) not in sentence, "no path of the server is told"
    assert handlers.look(picture)[2].size == (200, 200)


def test_a_large_picture_is_kept_and_shown_small(handlers, tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (5000, 2500), "teal").save(path)
    shown, _, image, *_ = handlers.look(str(path))
    assert shown.size == (chat_app.SHOWN, chat_app.SHOWN // 2) and image.size == (KEPT, KEPT // 2)


def test_a_text_chunk_in_a_picture_does_no_harm(handlers, warnings, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "<script>alert(1)</script>")
    path = tmp_path / "with-text.png"
    draw(sample_scene(7, 3)).save(path, pnginfo=info)
    assert handlers.look(str(path))[2].info == {} or warnings == []


def test_taking_the_picture_away(handlers):
    assert handlers.look(None)[:5] == (None, "", None, [], [])


def test_a_picture_that_left_the_page_is_asked_about_no_more(handlers):
    assert handlers.gone(None, False) == handlers.look(None)[1:]
    assert handlers.gone(None, True) == tuple(gr.skip() for _ in range(5))


def test_the_gallery_and_the_menus_give_pictures(handlers, warnings):
    event = type("Event", (), {"index": 2})()
    assert handlers.pick(event)[2].size == (384, 384)
    menus = [value for row in chat_app.MENUS for value in row]
    assert handlers.draw("beach", "day", *menus)[2].size == (384, 384)
    handlers.draw("beach", "day", *[chat_app.NOTHING, "red", "large", "top"] * 4)
    assert warnings == ["There is nothing to draw: choose at least one thing."]


def test_a_strange_picture_is_called_strange_with_the_way_out(tiny_model, picture):
    width = 2 * tiny_model.image_encoder.width
    world = DrawnWorld(torch.zeros(width), torch.eye(width), limit=0.0)  # to this one everything is strange
    note = chat_app.App(tiny_model, world).look(picture)[1]
    assert "outside my drawn world" in note and REAL_WEIGHTS in note
    world = DrawnWorld(torch.zeros(width), torch.eye(width), limit=1e9)
    assert chat_app.App(tiny_model, world).look(picture)[1] == ""


# ------------------------------------------------------------------------------------------------------------- asking


def test_an_answer_grows_and_is_remembered(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    steps = list(handlers.ask("what is it?", image, [], 0, *CONTROLS))
    box, chat, turns, confidence = steps[-1]
    assert box == "" and [m["role"] for m in chat] == ["user", "assistant"]
    assert turns == [Turn("what is it?", chat[1]["content"])] and "<span" in confidence and warnings == []
    *_, (_, chat, turns, _) = handlers.ask("what color is it?", image, turns, 0, *CONTROLS)
    assert len(turns) == 2 and len(chat) == 4


@pytest.mark.parametrize("text", ["", "  ", "boat " * 1000])
def test_bad_questions_get_one_sentence_and_stay_in_the_box(handlers, warnings, picture, text):
    image = handlers.look(picture)[2]
    ((box, chat, turns, _),) = handlers.ask(text, image, [], 0, *CONTROLS)
    assert box == text and chat == turns == [] and len(warnings) == 1 and len(warnings[0]) < 200


@pytest.mark.parametrize(
    ("text", "kept", "said"),
    [
        ("quorx blicket?", "quorx blicket?", 'I do not know the words "quorx", "blicket". '),
        ("drum", "", "What would you like to know about the drum? Ask for example “where is the drum?”"),
        ("hi!", "", "Hello! Ask me about the picture"),
    ],
)
def test_what_the_model_is_not_asked_is_answered_in_the_chat(handlers, warnings, picture, text, kept, said):
    image = handlers.look(picture)[2]
    ((box, chat, turns, confidence),) = handlers.ask(text, image, [], 0, *CONTROLS)
    assert box == kept and [message["role"] for message in chat] == ["user", "assistant"] and warnings == []
    assert chat[1]["content"].startswith(said) and not turns[0].by_model
    assert confidence == gr.skip(), "the confidence of the last answer stays"
    assert handlers.offer(image, turns)[0].visible is False, "there are no words of the model to be clicked"


def test_a_misspelled_question_is_answered_and_the_visitor_is_told(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    *_, (box, chat, turns, _) = handlers.ask("waht is it?", image, [], 0, *CONTROLS)
    assert box == "" and warnings == [] and turns[0].by_model and turns[0].note == 'I read "waht" as "what".'
    assert chat[1]["content"] == f'{turns[0].answer}\n(I read "waht" as "what".)'


def test_an_unsure_answer_says_so():
    turns = [Turn("what is it?", "a boat", unsure=True), Turn("and?", "a", stopped=True, unsure=True)]
    assert [m["content"] for m in chat_app.bubbles(turns)[1::2]] == ["a boat\n(I am not sure.)", "a (stopped)"]


def test_a_stopped_answer_says_so(handlers, picture):
    image = handlers.look(picture)[2]
    steps = handlers.ask("what is it?", image, [], 0, "beam search", 2, 0.9, 1.0, 100, -1.0, 1.0)
    _, chat, turns, _ = next(steps)
    steps.close()
    assert "beam search" in chat[1]["content"] and handlers.stopped(turns)[1]["content"] == "(stopped)"
    *_, (_, chat, turns, _) = handlers.ask("what is it?", image, [], 0, *CONTROLS)
    assert handlers.stopped(turns) == chat, "what has ended is not stopped"


def test_a_bad_file_leaves_the_picture_that_another_was_to_replace(handlers, warnings, picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"none")
    assert handlers.replace(str(tmp_path / "bad.png")) == tuple(gr.skip() for _ in range(6)) and len(warnings) == 1
    assert handlers.replace(picture)[2].size == (200, 200)


def test_a_question_without_a_picture(handlers, warnings):
    ((box, chat, *_),) = handlers.ask("what is it?", None, [], 0, *CONTROLS)
    assert box == "what is it?" and chat == [] and "no picture yet" in warnings[0]


def test_the_bubbles_of_the_chat_are_its_turns_as_text():
    turns = [Turn("what is it?", "a boat"), Turn("is 1 < 2?", "")]
    assert [(m["role"], m["content"]) for m in chat_app.bubbles(turns)] == [
        ("user", "what is it?"),
        ("assistant", "a boat"),
        ("user", "is 1 &lt; 2?"),
        ("assistant", ""),
    ]


def test_what_was_said_before_a_stop_stays(handlers, picture):
    image = handlers.look(picture)[2]
    steps = handlers.ask("what is it?", image, [], 0, "greedy", 5, 0.9, 1.0, 100, -1.0, 1.0)
    _, chat, turns, _ = next(steps)
    steps.close()
    assert turns[0].answer and chat[1]["content"] == turns[0].answer


def test_another_answer_replaces_the_last_and_is_sampled(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    *_, (_, chat, turns, _) = handlers.ask("what is it?", image, [], 0, *CONTROLS)
    *_, (_, chat, turns, _, seed) = handlers.again(image, turns, 0, *CONTROLS)
    assert len(turns) == 1 and len(chat) == 2 and seed == 1 and warnings == []
    ((_, chat, turns, _, seed),) = handlers.again(image, [], 0, *CONTROLS)
    assert chat == [] and seed == 0 and "no question" in warnings[0]


@pytest.mark.parametrize("wrong", ["picture", "decoding", "word", "seed"])
def test_a_refused_other_answer_leaves_the_one_before(handlers, warnings, picture, wrong):
    image = handlers.look(picture)[2]
    *_, (_, chat, turns, _) = handlers.ask("what is it?", image, [], 0, *CONTROLS)
    controls = (*CONTROLS[:2], 0.0, *CONTROLS[3:]) if wrong == "decoding" else CONTROLS  # top p 0
    before = [Turn("quorx blicket?", "no")] if wrong == "word" else turns
    shown = None if wrong == "picture" else image
    seed = 2**64 - 1 if wrong == "seed" else 5  # the next one is none
    ((_, chat_after, turns_after, _, seed_after),) = handlers.again(shown, before, seed, *controls)
    assert turns_after == before and chat_after == chat_app.bubbles(before) and len(chat) == 2 and seed_after == seed
    assert len(warnings) == (wrong != "word") and "Overflow" not in "".join(warnings)


def test_the_match_meter(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    assert "ITC" in handlers.match("a red boat.", image) and warnings == []
    assert handlers.match("a quorx.", image) == "" and handlers.match("a boat.", None) == ""
    assert "quorx" in warnings[0] and "no picture" in warnings[1]


# ----------------------------------------------------------------------------------------------------- looking inside


def test_the_words_of_an_answer_are_offered_and_one_shows_where_it_came_from(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    *_, (_, _, turns, _) = handlers.ask("what is it?", image, [], 0, *CONTROLS)
    menu, below = handlers.offer(image, turns)
    assert menu.visible and below == chat_app.ORIGIN_NOTE
    found = handlers.origin(menu.choices[0][1], image, turns)
    assert "method" in found and found.count("<img") == 1 + 8 and "alt='The part" in found and warnings == []


def test_without_an_answer_nothing_is_offered_and_a_stale_click_is_harmless(handlers, warnings, picture):
    image = handlers.look(picture)[2]
    assert handlers.offer(image, [])[0].visible is False and handlers.offer(None, [])[0].visible is False
    assert handlers.origin(None, image, []) == handlers.origin(0, None, []) == chat_app.NO_WORDS and warnings == []
    assert handlers.origin(99, image, [Turn("what is it?", "boat")]) == chat_app.NO_WORDS
    assert "no word number 99" in warnings[0]


# ----------------------------------------------------------------------------------------------------------- the page


def shown_on(page) -> tuple[str, object, list[str]]:
    """The page's title, its first picture, and the names of its buttons."""
    blocks = list(page.blocks.values())
    title, picture = (next(b for b in blocks if b.elem_id == name) for name in ("title", "picture"))
    return title.value, picture.value, [b.value for b in blocks if isinstance(b, gr.Button)]


def test_a_miniature_is_known_by_its_words_and_not_by_its_name(tiny_model, monkeypatch):
    width = 2 * tiny_model.image_encoder.width
    drawn = DrawnWorld(torch.zeros(width), torch.eye(width), limit=1.0)
    title, picture, buttons = shown_on(chat_app.build(tiny_model, name="runs/micro", familiar=drawn))
    assert (
        "one drawn world" in title
        and "can be wrong" in title
        and picture is not None
        and set(INSTRUCTIONS["micro"]) <= set(buttons)
    )
    title, picture, buttons = shown_on(chat_app.build(tiny_model, name="runs/mine"))  # of somebody's own pictures
    assert "runs/mine" in title and "miniature" in title and "drawn world" not in title
    assert picture is not None and set(INSTRUCTIONS["micro"]) <= set(buttons)
    monkeypatch.setattr(chat_app, "knows_whole_words_only", lambda tokenizer: False)
    title, picture, buttons = shown_on(chat_app.build(tiny_model, name="micro"))
    assert "miniature" not in title and picture is None and set(INSTRUCTIONS["real"]) <= set(buttons)


# ----------------------------------------------------------------------------------------------------- from the shell


class FakePage:
    """What `main` built, how it was served, and whether anybody waits at it."""

    def block_thread(self) -> None:
        self.waits = True


@pytest.fixture
def started(monkeypatch, tiny_model, capsys):
    """Run `app.py` with arguments, without a page: -> exit code, stdout, stderr, and what the page was built from."""
    given = {"page": FakePage()}
    monkeypatch.setattr(start, "check_available", check_name)  # any hub name is available, without a network
    monkeypatch.setattr(chat_app.blip2_lab, "load", lambda name, **options: tiny_model)
    monkeypatch.setattr(chat_app, "build", lambda model, **options: (given.update(options), given["page"])[1])
    monkeypatch.setattr(chat_app, "serve", lambda page, **options: given.update(options))

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["app.py", *arguments])
        try:
            code = start.main() or 0
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr(), given

    return run


def test_main_serves_the_page_says_where_and_waits(started):
    code, out, err, given = started("--model", "runs/micro")
    assert code == 0 and err == "" and out.splitlines()[-1].startswith(f"Open http://127.0.0.1:{given['port']} in")
    assert given["page"].waits and given["block"] is False and given["name"] == "runs/micro"


def test_a_model_that_writes_no_answers_is_refused_in_one_sentence(started, monkeypatch):
    monkeypatch.setattr(chat_app.blip2_lab, "load", lambda name, **options: torch.nn.Module())
    code, _, err, given = started("--model", "runs/micro-dual-encoder")
    assert code == 2 and "is a dual encoder, which writes no answers" in err and "Traceback" not in err
    assert set(given) == {"page"}, "nothing was built or served"


def test_main_tells_the_page_what_its_model_has_seen(started, monkeypatch):
    worlds = {"micro": object(), "runs/micro": object()}
    monkeypatch.setattr(out_of_distribution, "load", worlds.get)
    for name in ("micro", "runs/micro", "Salesforce/blip2-flan-t5-xl"):
        *_, given = started("--model", name)
        assert given["familiar"] is worlds.get(name)


@pytest.mark.parametrize("port", ["70000", "-1", "busy"])
def test_a_port_that_cannot_be_opened_is_one_sentence_before_the_model_is_loaded(started, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1]) if port == "busy" else port
        code, out, err, _ = started("--port", port)
    assert code == 2 and out == "" and err.startswith("app.py: ") and err.count("\n") == 1
    assert port in err and "--port" in err


def test_a_page_that_did_not_start_has_no_address(started, monkeypatch):
    def taken(page, **options):
        raise OSError("Cannot find empty port")

    monkeypatch.setattr(chat_app, "serve", taken)  # somebody was faster while the model was loaded
    code, out, err, _ = started()
    assert code == 2 and "http://" not in out and err == "app.py: Cannot find empty port\n"


# ------------------------------------------------------------------------------------------------------- over the API


@pytest.fixture(scope="module")
def server(tiny_model):
    """The whole app with the tiny model, at a free port."""
    page = chat_app.build(tiny_model)
    _, address, _ = chat_app.serve(page, block=False)
    yield page, address
    page.close()


def test_the_shipped_model_warns_of_a_photograph_on_its_page(monkeypatch, capsys, picture, tmp_path):
    from gradio_client import Client, handle_file

    from blip2_lab.checkpoints.load import MICRO

    photographs = [parts[0] for parts in out_of_distribution.photographs(crops=1).values()]
    if not (MICRO / out_of_distribution.FILE).is_file() or not photographs:
        pytest.skip("this needs the shipped model and a sample photograph (matplotlib or scikit-image has some)")
    photographs[0].save(tmp_path / "photograph.png")
    pages: list[gr.Blocks] = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: pages.append(page))  # nobody waits for Ctrl+C
    monkeypatch.setattr(sys, "argv", ["app.py"])
    start.main()
    try:
        client = Client(re.search(r"Open (\S+) in your browser", capsys.readouterr().out)[1], verbose=False)
        note = client.predict(picture=handle_file(str(tmp_path / "photograph.png")), api_name="/look")
        assert "outside the drawn world" in note
        assert client.predict(picture=handle_file(picture), api_name="/look") == ""
    finally:
        pages[0].close()


def test_the_server_keeps_its_doors_closed(server):
    page, address = server
    assert address.startswith("http://127.0.0.1:") and page.share is False
    assert page.analytics_enabled is False and page.ssr_mode is False
    by_name = {fn.api_name: fn for fn in page.fns.values()}
    for name in ("look", "draw", "ask", "match"):
        assert by_name[name].concurrency_id == line.MODEL and by_name[name].concurrency_limit == line.AT_ONCE
    asking = {fn.name for fn in page.fns.values() if fn.concurrency_id == line.MODEL} & set(line.TOGETHER)
    assert asking == {"ask", "again", "api_ask"}, "the names by which the line knows a question"
    beside = [fn for fn in page.fns.values() if fn.name in ("offer", "origin")]
    assert len(beside) > 2 and all(fn.concurrency_id == "inside" for fn in beside), "the chat never waits for the panel"
    assert page._queue.max_size == line.WAITING and page._queue.get_events.func is line.next_events
