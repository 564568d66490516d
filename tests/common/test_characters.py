"""Texts that say nothing, and texts that cannot be printed as they are."""

from blip2_lab.common.characters import has_no_word, is_numbers_alone, printable


def test_punctuation_alone_says_nothing():
    assert has_no_word("!? ...") and not any(map(has_no_word, ("a", "1", "北", "🎉")))


def test_numbers_alone():
    assert all(map(is_numbers_alone, ("7", "3.14", "0 0.5 0.5", "½")))
    assert not any(map(is_numbers_alone, ("-", "7 boats", "1e5", "7 🎉", "")))


def test_a_name_cannot_steer_a_terminal():
    assert printable("a\x1b[31m\n\u202egnp.b") == "a\\x1b[31m\\n\\u202egnp.b"
    assert printable("👩\u200d🚀 \u0645\u06cc\u200c\u062e") == "👩\u200d🚀 \u0645\u06cc\u200c\u062e"


def test_a_name_that_is_not_utf_8_can_be_printed():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert printable(name).encode() == b"caf\\udce9.png" and printable("café") == "café"
