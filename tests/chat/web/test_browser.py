"""The app in a real browser: Debian's chromium, headless. Skipped with a message where there is none."""

from __future__ import annotations

import io
import re
import shutil
import time
from contextlib import contextmanager

import pytest
import torch
from PIL import Image, ImageChops

gr = pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

from blip2_lab.chat import word_origin  # noqa: E402  after the skips
from blip2_lab.chat.out_of_distribution import DrawnWorld  # noqa: E402
from blip2_lab.chat.web import app as chat_app  # noqa: E402  after the skips
from blip2_lab.chat.web.search_tab import Search, build_search  # noqa: E402
from blip2_lab.models.decoding import Decoding  # noqa: E402
from blip2_lab.picturebook.draw import draw  # noqa: E402
from blip2_lab.picturebook.scene import sample_scene  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium"),
]
PATIENCE = 60_000  #: milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def address(tiny_model):
    page = chat_app.build(tiny_model)
    yield chat_app.serve(page, block=False)[1]
    page.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, address, width=1280, height=900, waits_for="#picture img", **options):
    """A page in the browser; "#picture img" is the first scene of the gallery, which is there from the start."""
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    page.set_default_timeout(PATIENCE)
    playwright.expect.set_options(timeout=PATIENCE)
    try:
        page.goto(address)
        page.wait_for_selector(waits_for)
        yield page
    finally:
        page.close()


@contextmanager
def served(blocks, **options):
    """The address of a page that is served for one test."""
    try:
        yield chat_app.serve(blocks, block=False, **options)[1]
    finally:
        blocks.close()


@pytest.fixture
def tab(browser, address):
    """The app, opened; nothing may be asked of any other machine."""
    strangers: list[str] = []
    with opened(browser, address) as page:
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else strangers.append(r.url))
        page.reload()
        page.wait_for_selector("#picture img")
        yield page
    assert strangers == []


@pytest.fixture(params=[(320, 568), (390, 844), (768, 1024), (1280, 900)], ids=lambda size: f"{size[0]}px")
def screen(browser, address, request):
    """The app on screens of several sizes; the narrow ones are touched and have no mouse."""
    width, height = request.param
    phone = width < 700
    with opened(browser, address, width, height, has_touch=phone, is_mobile=phone) as page:
        yield page


def overflow(page) -> int:
    """By how many pixels the page is wider than the screen."""
    return page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth")


def box_of(page, selector: str) -> dict:
    return page.locator(selector).first.bounding_box()


def is_on_screen(page, selector: str) -> bool:
    """Is the whole of it on the screen, without scrolling?"""
    box, size = box_of(page, selector), page.viewport_size
    inside = box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    return inside and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


def open_tab(page, name: str) -> None:
    """A tab of the page; on a narrow screen it may be in the menu of those that have no room."""
    if not page.get_by_role("tab", name=name).is_visible():
        page.locator("#book-group .overflow-menu > button").click()
        page.locator("#book-group .overflow-dropdown").get_by_text(name).click()
    else:
        page.get_by_role("tab", name=name).click()


def test_the_page_fits_the_screen_and_opens_with_the_picture_and_the_question(screen):
    width = screen.viewport_size["width"]
    screen.wait_for_timeout(500)  # whoever scrolls or takes the focus has done so
    assert overflow(screen) == 0 and screen.evaluate("scrollY") == 0
    assert is_on_screen(screen, "#picture img") and is_on_screen(screen, "#box textarea")
    is_focused = screen.evaluate("document.activeElement.closest('#box') !== null")
    assert is_focused == (width > 700), "one can type at once, but on a phone no keyboard covers the picture"
    ask(screen, "what is in the picture?")
    screen.locator("#word label").first.click()
    playwright.expect(screen.locator("#origin img").first).to_be_visible()
    assert overflow(screen) == 0
    stop = box_of(screen, "#stop")
    assert stop["width"] >= 44 and stop["height"] >= 32 and 0 <= stop["x"] <= width - stop["width"]
    for name in ("Draw a scene", "Match meter", "Search"):
        open_tab(screen, name)
        assert overflow(screen) == 0, name


def test_the_newest_answer_is_in_sight_after_many_questions(screen):
    for number in range(1, 8):
        ask(screen, "quorx blicket?")  # its answer is long, and the same on every screen
        playwright.expect(screen.locator("#chat .bot.message")).to_have_count(number)
    newest, end = screen.locator("#chat .bot.message").last, "#chat .message-wrap"
    screen.wait_for_timeout(500)  # it scrolls smoothly
    assert box_of(screen, end)["height"] > box_of(screen, "#chat")["height"], "else nothing has to scroll"
    chat, message = box_of(screen, "#chat"), newest.bounding_box()
    assert message["y"] + message["height"] <= chat["y"] + chat["height"]


def test_the_menus_of_a_scene_stand_two_by_two_on_a_phone(screen):
    open_tab(screen, "Draw a scene")
    menus = screen.locator(".menus input")
    playwright.expect(menus.nth(2)).to_be_visible()
    tops = [menus.nth(i).bounding_box()["y"] for i in range(2, 6)]  # those of the first thing
    rows = len({round(top) for top in tops})
    assert rows == (2 if screen.viewport_size["width"] <= 480 else 1)


# ------------------------------------------------------------------------------------------------------ accessibility


def serious(page) -> list[str]:
    """What axe-core calls serious or critical on the page as it is now: rule, place, why."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    return [
        f"{found['id']}: {node['html'][:120]}: {node['failureSummary']}"
        for found in axe.Axe().run(page).response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_nothing_on_the_page_is_a_serious_barrier(browser, address, mode):
    with opened(browser, address, color_scheme=mode) as page:
        page.wait_for_timeout(500)
        assert page.evaluate("document.body.classList.contains('dark')") == (mode == "dark")
        assert serious(page) == []
        ask(page, "what is in the picture?")
        page.locator("#word label").first.click()
        playwright.expect(page.locator("#origin img").first).to_be_visible()
        page.get_by_text("How the answer is chosen").click()
        page.wait_for_timeout(500)
        assert serious(page) == []
        for name in ("Draw a scene", "Match meter", "Search"):
            open_tab(page, name)
            if name == "Match meter":
                page.fill("#sentence textarea", "a red boat.")
                page.get_by_role("button", name="Measure").click()
                playwright.expect(page.locator("#meter .bar").first).to_be_visible()
            if name == "Search":
                page.fill("#wanted textarea", "a red boat")
                page.get_by_role("button", name="Search", exact=True).click()
                playwright.expect(page.locator("#found img").first).to_be_visible()
            page.wait_for_timeout(300)
            assert serious(page) == [], name


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_what_the_keyboard_is_on_can_be_seen(browser, address, mode):
    with opened(browser, address, color_scheme=mode) as page:
        page.wait_for_timeout(500)
        page.focus("#box textarea")
        for _ in range(35):
            where = page.evaluate("document.activeElement.outerHTML.slice(0, 80)")
            around = page.evaluate("""() => {
                const box = document.activeElement.getBoundingClientRect();
                return { x: box.x - 8, y: box.y - 8, width: Math.min(box.width + 16, 400), height: box.height + 16 };
            }""")
            focused = page.screenshot(clip=around)
            page.evaluate("window.last = document.activeElement; last.blur()")
            pictures = (Image.open(io.BytesIO(shot)).convert("L") for shot in (focused, page.screenshot(clip=around)))
            changed = ImageChops.difference(*pictures).point(lambda value: value > 40 and 255).histogram()[255]
            assert changed > around["width"], f"{where}: {changed} pixels tell where the keyboard is"
            page.evaluate("last.focus({ preventScroll: true })")
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_note_about_a_strange_picture_can_be_read(browser, tiny_model, tmp_path, mode):
    width = 2 * tiny_model.image_encoder.width
    blocks = chat_app.build(tiny_model, familiar=DrawnWorld(torch.zeros(width), torch.eye(width), limit=0.0))
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "photo.png")
    with served(blocks) as address, opened(browser, address, 390, 844, color_scheme=mode) as page:
        page.set_input_files("#picture-group > input[type=file]", str(tmp_path / "photo.png"))
        playwright.expect(page.locator("#note .note")).to_be_visible()
        page.wait_for_timeout(500)
        assert serious(page) == []


def test_nor_on_the_page_that_only_searches(browser, tiny_model):
    blocks = build_search(Search(tiny_model.stage1), name="itm")
    with served(blocks) as address, opened(browser, address, 390, 844, waits_for="#wanted") as page:
        page.fill("#wanted textarea", "a red boat")
        page.wait_for_timeout(500)
        assert serious(page) == [] and overflow(page) == 0
        page.get_by_role("button", name="Search", exact=True).click()
        playwright.expect(page.locator("#found img")).to_have_count(8)
        assert serious(page) == [] and overflow(page) == 0


def test_a_screen_reader_hears_what_things_are(tab):
    names = tab.locator("#gallery .thumbnail-item").evaluate_all("all => all.map(b => b.ariaLabel)")
    assert len(names) == 12 and all("Thumbnail" not in name and len(name) > 15 for name in names), names
    playwright.expect(tab.get_by_role("textbox", name="Your question")).to_be_visible()
    assert tab.locator("#picture img").get_attribute("alt") == "The picture you ask about"
    ask(tab, "what is in the picture?")
    playwright.expect(tab.get_by_role("radiogroup", name="Words of the answer")).to_be_visible()
    tab.locator("#word label").first.click()
    assert "came from" in tab.locator("#origin img.map").get_attribute("alt")
    open_tab(tab, "Match meter")
    playwright.expect(tab.get_by_role("textbox", name="Sentence")).to_be_visible()
    open_tab(tab, "Search")
    playwright.expect(tab.get_by_role("textbox", name="What you look for")).to_be_visible()
    levels = tab.locator("h1, h2, h3, h4").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert levels[0] == 1 and all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def upload(tab, path) -> None:
    remove = tab.locator("#picture button[aria-label='Remove Image']")
    if remove.count():
        remove.click()
        playwright.expect(tab.locator("#picture img")).to_have_count(0)
    tab.set_input_files("#picture input[type=file]", str(path))


def ask(tab, question: str) -> None:
    tab.fill("#box textarea", question)
    tab.click("#ask")


def test_upload_a_picture_ask_and_read_the_answer(tab, tmp_path):
    path = tmp_path / "scene.png"
    draw(sample_scene(7, 3), 256).save(path)
    upload(tab, path)
    playwright.expect(tab.locator("#picture img")).to_be_visible()
    ask(tab, "what is in the picture?")
    answer = tab.locator("#chat .bot.message").last
    playwright.expect(answer).to_contain_text(" ")
    playwright.expect(tab.locator("#confidence span").first).to_be_visible()
    assert tab.locator("#box textarea").input_value() == ""


def test_a_late_message_that_a_picture_was_removed_does_not_take_away_the_next(
    browser, tiny_model, tmp_path, monkeypatch
):
    gone = chat_app.App.gone

    def late(self, picture, there: bool):
        time.sleep(0 if there else 3)
        return gone(self, picture, there)

    monkeypatch.setattr(chat_app.App, "gone", late)
    blocks = chat_app.build(tiny_model)
    draw(sample_scene(7, 3), 256).save(tmp_path / "scene.png")
    with served(blocks) as address, opened(browser, address) as page:
        upload(page, tmp_path / "scene.png")
        page.wait_for_timeout(4_000)
        ask(page, "what is in the picture?")
        playwright.expect(page.locator("#chat .bot.message")).to_be_visible()
        assert page.locator("#box textarea").input_value() == ""


def test_a_file_that_is_too_large_leaves_no_picture_to_ask_about(tab, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(bytes(41 * 2**20))
    with tab.expect_response(lambda answer: "[null,false]" in (answer.request.post_data or "")):  # "it is gone"
        tab.set_input_files("#picture input[type=file]", str(path))  # over the picture that is shown
    playwright.expect(tab.locator("#picture img")).to_have_count(0)
    playwright.expect(tab.get_by_text("maximum allowed size")).to_be_visible()
    ask(tab, "what is in the picture?")
    playwright.expect(tab.get_by_text("There is no picture yet")).to_be_visible()
    assert tab.locator("#box textarea").input_value() == "what is in the picture?"


@pytest.mark.parametrize("way", ["button", "paste", "drop"])
def test_another_picture_replaces_the_one_before_only_when_it_has_come(tab, tmp_path, way):
    shown, before = tab.locator("#picture img"), tab.locator("#picture img").get_attribute("src")

    def give(path) -> None:
        if way == "button":
            with tab.expect_file_chooser() as chooser:
                tab.click("#upload")
            assert shown.get_attribute("src") == before, "to choose takes nothing away"
            chooser.value.set_files(str(path))
        else:
            send = """([bytes, way]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "p.png", { type: "image/png" }));
                document.body.dispatchEvent(way === "paste"
                    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
                    : new DragEvent("drop", { dataTransfer: data, bubbles: true }));
            }"""
            tab.evaluate(send, [list(path.read_bytes()), way])

    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(b"this is no picture")
    give(bad)
    playwright.expect(tab.get_by_text("not a PNG, JPEG, WebP or GIF picture")).to_be_visible()
    assert shown.get_attribute("src") == before
    draw(sample_scene(7, 3), 256).save(good)
    give(good)
    tab.wait_for_function("old => document.querySelector('#picture img')?.src !== old", arg=before)


def test_who_logged_in_can_log_out(browser, tiny_model):
    blocks = chat_app.build(tiny_model)
    with served(blocks, auth="ada:secret") as address, opened(browser, address, waits_for="input") as page:
        page.get_by_label("username").fill("ada")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.locator("#logout").click(timeout=PATIENCE)
        playwright.expect(page.get_by_label("password")).to_be_visible(timeout=PATIENCE)


def test_one_click_asks_and_clear_clears(tab):
    tab.get_by_role("button", name="is it day or night?").click()
    playwright.expect(tab.locator("#chat .bot.message").last).to_contain_text(" ")
    tab.get_by_role("button", name="Clear the chat").click()
    playwright.expect(tab.locator("#chat .bot.message")).to_have_count(0)


def test_there_is_no_log_out_where_nobody_logs_in(tab):
    playwright.expect(tab.locator("#logout")).to_have_count(0)


def test_the_gallery_and_the_menus_change_the_picture(tab):
    def source() -> str:
        return tab.locator("#picture img").get_attribute("src")

    first = source()
    tab.locator("#gallery .thumbnail-item").nth(3).click()
    tab.wait_for_function("old => document.querySelector('#picture img')?.src !== old", arg=first)
    second = source()
    tab.get_by_role("tab", name="Draw a scene").click()
    tab.get_by_role("button", name="Draw it").click()
    tab.wait_for_function("old => document.querySelector('#picture img')?.src !== old", arg=second)


def test_a_word_of_the_answer_shows_where_it_came_from(tab):
    ask(tab, "what is in the picture?")
    tab.locator("#word label").first.click()
    playwright.expect(tab.locator("#origin img.map")).to_be_visible()
    playwright.expect(tab.locator("#origin .queries img")).to_have_count(8)
    playwright.expect(tab.locator("#origin p")).to_contain_text("%")
    assert re.fullmatch(r"q \d+: \d+%", tab.locator("#origin figcaption").first.inner_text())


def test_a_panel_takes_its_room_at_once_and_keeps_it(tab, monkeypatch):
    empty = box_of(tab, "#origin")["height"]
    assert empty < 80, "nothing to show takes no room"
    assert not tab.locator("#meter").is_visible() and not tab.locator("#found").is_visible()
    ask(tab, "what is in the picture?")
    word = tab.locator("#word label").first
    playwright.expect(word).to_be_visible()
    find = word_origin.origin

    def slow(*arguments):
        time.sleep(2)
        return find(*arguments)

    monkeypatch.setattr(word_origin, "origin", slow)
    word.click()
    playwright.expect(tab.locator("#origin .origin[aria-busy]")).to_be_visible()
    before, place = box_of(tab, "#origin"), word.bounding_box()
    playwright.expect(tab.locator("#origin img.map")).to_be_visible()
    assert box_of(tab, "#origin") == pytest.approx(before, abs=1) and before["height"] > 300
    assert word.bounding_box() == pytest.approx(place, abs=1)


def test_pictures_are_found_by_words(tab):
    tab.get_by_role("tab", name="Search").click()
    tab.fill("#wanted textarea", "a red boat")
    tab.get_by_role("button", name="Search").click()
    playwright.expect(tab.locator("#found img")).to_have_count(8)


def test_a_bad_file_gets_one_sentence_and_the_app_lives_on(tab, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"this is no picture")
    upload(tab, bad)
    playwright.expect(tab.get_by_text("not a PNG, JPEG, WebP or GIF picture")).to_be_visible()
    playwright.expect(tab.locator("#picture button[aria-label='Remove Image']")).to_have_count(0)  # it was put away
    good = tmp_path / "good.jpg"
    Image.new("RGB", (300, 200), "teal").save(good)
    upload(tab, good)
    playwright.expect(tab.locator("#picture img")).to_be_visible()
    ask(tab, "quorx blicket?")
    playwright.expect(tab.get_by_text("I do not know the word")).to_be_visible()
    tab.get_by_role("button", name="is it day or night?").click()
    playwright.expect(tab.locator("#chat .bot.message").last).to_contain_text(" ")


def test_a_bug_gets_a_message_and_the_chat_stays_in_sight(tab, monkeypatch):
    ask(tab, "what is in the picture?")
    answer = tab.locator("#chat .bot.message").last
    playwright.expect(tab.locator("#word label").first).to_be_visible()  # the answer has ended

    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(chat_app.ImageCache, "encode", broken)
    ask(tab, "what place is this?")
    playwright.expect(tab.get_by_text("a bug")).to_be_visible()
    playwright.expect(tab.locator("#chat .error")).to_have_count(1)  # gradio's own, over the whole chat
    playwright.expect(tab.locator("#chat .error")).to_be_hidden()
    playwright.expect(answer).to_be_visible()


@pytest.fixture
def steps(tiny_model, monkeypatch):
    """Answers of 400 slow words: -> one entry per step of the model."""
    kind = type(tiny_model.language_model)
    step, steps = kind.next_logits, []

    def slow(*arguments):
        steps.append(1)
        time.sleep(0.2)
        return step(*arguments)

    endless = Decoding(num_beams=1, max_new_tokens=400, min_new_tokens=400)
    monkeypatch.setattr(kind, "next_logits", slow)
    monkeypatch.setattr(chat_app, "decoding_from_controls", lambda *controls: endless)
    return steps


def until_quiet(steps: list) -> int:
    """How many steps had been made when none was made for a second."""
    before = -1
    for _ in range(20):
        if len(steps) == before:
            break
        before = len(steps)
        time.sleep(1)
    assert len(steps) == before < 100, "the model went on"
    return before


def test_stop_stops_the_model(tab, steps):
    ask(tab, "Tell a story.")
    answer = tab.locator("#chat .bot.message").last
    playwright.expect(answer).to_contain_text(" ")
    tab.click("#stop")
    playwright.expect(answer).to_contain_text("(stopped)")
    assert 0 < len(answer.inner_text().replace("(stopped)", "").split()) <= until_quiet(steps) + 1


def test_another_picture_ends_the_answer_about_the_one_before(tab, steps):
    ask(tab, "Tell a story.")
    playwright.expect(tab.locator("#chat .bot.message").last).to_contain_text(" ")
    tab.locator("#gallery .thumbnail-item").nth(3).click()
    playwright.expect(tab.locator("#chat .bot.message")).to_have_count(0)
    until_quiet(steps)


def test_another_question_ends_the_answer_before_and_leaves_what_it_said(tab, steps):
    ask(tab, "Tell a story.")
    playwright.expect(tab.locator("#chat .bot.message").last).to_contain_text(" ")
    tab.get_by_role("button", name="is it day or night?").click()
    playwright.expect(tab.locator("#chat .user.message")).to_have_text(["Tell a story.", "is it day or night?"])
    first, second = (tab.locator("#chat .bot.message").nth(i) for i in (0, 1))
    playwright.expect(second).to_contain_text(" ")
    tab.click("#stop")
    until_quiet(steps)
    assert first.inner_text().strip() and second.inner_text().strip()


def test_a_question_asked_while_a_picture_is_being_looked_at_is_answered(tab, tiny_model, monkeypatch, tmp_path):
    ask(tab, "what place is this?")  # a chat that the new picture clears
    playwright.expect(tab.locator("#word label").first).to_be_visible()  # the answer has ended
    encode = chat_app.ImageCache.encode

    def slow(image_cache, image):
        time.sleep(2)
        return encode(image_cache, image)

    monkeypatch.setattr(chat_app.ImageCache, "encode", slow)
    path = tmp_path / "scene.png"
    draw(sample_scene(7, 4), 256).save(path)
    upload(tab, path)
    playwright.expect(tab.locator("#picture img")).to_be_visible()
    ask(tab, "what is in the picture?")
    playwright.expect(tab.locator("#confidence span").first).to_be_visible()
    playwright.expect(tab.locator("#chat .user.message")).to_have_text(["what is in the picture?"])
    playwright.expect(tab.locator("#chat .bot.message").last).to_contain_text(" ")
