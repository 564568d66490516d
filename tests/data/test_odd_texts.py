"""Texts that are probably not meant are found by kind, and prose is not."""

import pytest

from blip2_lab.data.odd_texts import ODD, WEB_MARK, misread
from blip2_lab.data.scenes import PictureBook


@pytest.mark.parametrize(
    ("text", "was"),
    [
        ("a cafÃ© table", "a café table"),
        ("itâ€™s â€œredâ€\x9d", "it’s “red”"),
        ("Ð´Ð¾Ð¼", "дом"),
        ("a café table", ""),
        ("it’s “red”", ""),
        ("дом 日本", ""),
        ("a boat", ""),
    ],
)
def test_utf_8_that_was_read_as_another_encoding(text, was):
    assert misread(text) == was


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("salt &amp; pepper", "&amp;"),
        ("one<br/>two", "<br/>"),
        ('<a href="x">a</a>', '<a href="x">'),
        ("it&#39;s", "&#39;"),
        ("<image>", "<image>"),
        ("salt & pepper; I <3 it", None),
        ("R&D 2 < 3 > 1", None),
    ],
)
def test_marks_of_a_web_page(text, mark):
    found = WEB_MARK.search(text)
    assert (found and found[0]) == mark


def kinds(text: str, captions_only: bool = True) -> list[str]:
    return [odd.having for odd in ODD if odd.find(text) and (captions_only or not odd.captions_only)]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            "marks of a web page",
            ["<!-- boat -->", "[b]a boat[/b]", '<img alt="a boat"', "<|assistant|> a boat", "[INST] a"],
        ),
        ("letters of two alphabets", ["\u0430 r\u0435d boat", "\u03bfcean"]),
        ("an escape", ["'a boat", ":boat: on the sea", "a%20red%20boat", "caf=C3=A9 table", "a big\\, red dog"]),
        (
            "marks of Markdown",
            ["# Boat", "* a boat", "- a boat", "1. a boat", "(2) a boat", "a **red** boat", "caption: a boat"]
            + [
                "a boat [here](https://x.org)",
                "![a boat](boat.png)",
                "en: a boat",
                "(red boat:1.2), sea",
                "a boat <lora:x:1>",
                "((red)) boat",
                "a boat Negative prompt: blurry",
                "A: a boat",
            ],
        ),
        (
            "to be filled in",
            ["a photo of a {}", "a ${color} boat", "a {{color}} boat", "a %s boat", "a [class] at sea"],
        ),
        (
            "several in one",
            ["a boat|a ship", "a boat || a ship", "a boat;; a ship", '["a boat", "a ship"', "['a boat']"],
        ),
        ("joined to one", ["a_red_boat", "red_boat, blue sea", "a-red-boat-at-sea", "a+red+boat", "RedBoatSea"]),
        (
            "the message of a program",
            ["I'm sorry, but I can't help with that.", "As an AI language model, I see nothing.", "Error: timeout"]
            + [
                "Traceback (most recent call last):",
                "404 Not Found",
                "Connection refused",
                "Here is a caption: a boat",
                "openai.RateLimitError: slow down",
            ],
        ),
        (
            "hold a place",
            ["TODO", "xxx", "no caption", "No description available.", "[removed]", "image", "a photo", "(untitled)"]
            + [
                "Add a caption",
                "lorem ipsum dolor sit",
                "caption goes here",
                "see above",
                "ditto",
                "OLYMPUS DIGITAL CAMERA",
            ],
        ),
        (
            "seems to be no text",
            [
                "IMG_2031",
                "DSC00012",
                "Screenshot 2024-01-05 at 10.30.00",
                "PXL_20240105_103000123",
                "image (3)",
                "false",
            ]
            + [
                "me@x.org",
                "C:\\pics\\boat",
                "/home/me/boat",
                "../a/boat",
                "n02123045",
                "boat: 0.97",
                "boat 97.3%",
                "1/2/24 10:30 AM",
            ]
            + [
                '{"caption": "a boat"',
                "WAHR",
                "YSByZWQgYm9hdCBvbiB0aGUgYmVhY2g=",
                "1.2e+11",
                "-Infinity",
                "2024-01-05T10:30:00.5+01:00",
            ],
        ),
    ],
)
def test_an_odd_text_is_found_by_its_kind(kind, texts):
    for text in texts:
        assert any(kind in one for one in kinds(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "a red boat",
        "A boat - red, with 2 sails (and a flag) - at sea.",
        "a merry-go-round in the e-mail age",
        "a photo of a boat",
        "image of 3 boats, 5% of them red",
        "I can see a boat",
        "a dog's error: it barks",
        "no boats",
        "the number 7",
        "a sign that says \u201cNo text\u201d",
        "a photo 2 metres wide",
        "picture 3",
        "an IBM PC and a McDonald's",
        "iPhone on a desk",
        "a U.S. mail truck",
        "yes, a boat",
        "a t-shirt that reads C++",
        "salt & pepper; 50% off",
        "a test of strength",
        "una foto de un barco",
        "a close-up of 1/2 apple = 0.5",
        "sorry dog on a sofa",
        "2 boats. 3 cats.",
        "a boat: red",
        "ein Boot (rot), 3,5 m",
        "\u043a\u0440\u0430\u0441\u043d\u0430\u044f \u043b\u043e\u0434\u043a\u0430 at sea",
        "caf\u00e9 na\u00efve \u03b1 boat",
        "a 9:30:15 clock",
        "a boat/ship",
        "a number of boats: 12",
        "see the boat above",
        "'tis a boat",
        "'a boat' on a sign",
        "a boat, 50% full",
        '"a boat"',
    ],
)
def test_prose_is_not_odd(text):
    assert kinds(text) == []


def test_no_text_of_the_picture_book_is_odd():
    book = PictureBook(3, "in", 32)
    for number in range(60):
        scene = book[number]
        for caption in scene.captions:
            assert kinds(caption) == [], caption
        for question in scene.questions:
            assert kinds(question.text, False) == kinds(question.answer, False) == [], question


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "A",
        "Aa",
        "(",
        "((",
        "<a",
        "a|",
        "'",
        '"',
        "{",
        "a+",
        "a_",
        "a.",
        ":a",
        "*",
        "a ",
        "1 ",
        "%2",
        "-a",
        "[",
        "/a",
    ],
)
def test_a_long_text_takes_no_time_that_grows_with_its_square(part):
    """A search that begins anew at every letter of these would take minutes."""
    kinds(part * 60_000)
