"""The tokenizer against Java's: a table of its output, and Java itself where it and pycocoevalcap's jar are."""

import importlib.util
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from blip2_lab.evaluation import ptb_tokenizer
from blip2_lab.evaluation.ptb_tokenizer import tokenize, tokens
from tests.evaluation import captions_to_split

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ptb_tokens.json").read_text(encoding="utf-8"))
VARIABLE = "PYCOCOEVALCAP"  #: the folder of pycocoevalcap, where it is not installed beside the package
#: pycocoevalcap's list. The brackets of the first kind never occur, since tokens are lower-cased by then.
LEFT_OUT = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}


def test_the_table_of_java():
    """The whole table at once, because a caption is read with the one that follows it."""
    assert len(GOLDEN) > 400
    for (caption, expected), found in zip(GOLDEN, tokenize([caption for caption, _ in GOLDEN]), strict=True):
        assert found == expected, caption


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog (left) and [a] {cat}.", "a dog -lrb- left -rrb- and -lsb- a -rsb- -lcb- cat -rcb-"),  # brackets stay
        ("€5 and £6, 50¢ or ¥7", "$ 5 and # 6 50 cents or ¥ 7"),  # currencies of the Wall Street Journal
        ("He says \"hi\" and 'bye' and “so”", "he says hi and bye and so"),  # quotes are left out
        ("“so”“so”", "so ''`` so"),  # but not a pair of them
        ("cannot gonna wanna gimme 'tis", "can not gon na wan na gim me 't is"),
        ("'Twas ’twas &apos;tis &APOS;tis", "'t was twas tis &apos; tis"),  # a curly one is a quote here
        ("doesn't it's we've James' y'all o'clock", "does n't it 's we 've james y' all o'clock"),
        ("a well-known, half-eaten 3-year-old", "a well-known half-eaten 3-year-old"),  # hyphens stay whole
        ("wow! what?! no!!", "wow what ?! no !!"),
        ("a dog -- no --- yes ----- end.... and ......", "a dog no yes ----- end and"),
        ("5 1/2 and 1½", "5\xa01/2 and 1 1/2"),
        ("4x4 AT&T R&B a&b 'n' U.S. $.25", "4x4 at&t r&b a & b 'n' u.s. $ .25"),
        ("Mr. Smith vs. no. 5, No. And p.m.", "mr. smith vs. no. 5 no and p.m."),
        ("www.x.com/ab, me@you.org, #dogs @joe img.jpg", "www.x.com/ab me@you.org, #dogs @joe img.jpg"),
        ("see http://x.org/y?z=1. :) <b>now</b>", "see http://x.org/y?z=1 :-rrb- <b> now </b>"),
        ("ΝΑΌΣ and ΝΑΌΣ-X ΝΑΌΣ?H", "ναός and ναόσ-x ναός?h"),  # Java's end of a word
        ("naïve café, Zürich, собака 犬", "naïve café zürich собака 犬"),
        ("a 🐶dog🐶 ★", "a dog ★"),  # outside the Basic Multilingual Plane
        ("http://😀 http://a 😀.com", "http://😀 http / / a 😀.com"),  # two characters in Java; an address needs two
        ("http://\U00010400 x", "http://\U00010428 x"),  # Deseret's long I in lower case
        ("a\xadb.JPG 1\xad2.png.", "a\xadb.jpg 1\xad2.png"),
        ("caf&eacute;.jpg x", "caf&eacute;.jpg x"),
        ("a\xad.C x \xad.jpg x \xad.Cat", "a\xad.c x \xad.jpg x .cat"),  # a soft hyphen stays in a file's name only
        ("", ""),
        (" \t.", ""),
    ],
)
def test_quirks(caption, expected):
    assert tokenize([caption]) == [expected]


def test_a_caption_is_read_with_the_next_one():
    assert tokenize(["plan B.", "A dog"]) == ["plan b", "a dog"]
    assert tokenize(["plan B.", "a dog"]) == ["plan b.", "a dog"]
    assert tokenize(["plan B."]) == ["plan b."]
    assert tokenize(["Figs.", "5 figs."]) == ["figs.", "5 figs"]


def test_a_caption_is_read_across_blank_ones_with_the_next_that_is_not():
    """Java's tokenizer looks over spaces and line breaks."""
    assert tokenize(["plan B.", "\n", "", "A dog"]) == ["plan b", "", "", "a dog"]
    assert tokenize(["plan B.", "  ", "A dog"]) == ["plan b", "", "a dog"]
    assert tokenize(["plan B.", "  ", "a dog"]) == ["plan b.", "", "a dog"]


def test_the_last_caption_ends_without_a_line_break():
    """As pycocoevalcap's file does: what a rule wants after a token is then missing, as after a face."""
    assert tokenize(["no :)", "no :)"]) == ["no :-rrb-", "no -rrb-"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\u2028", "\u2029"])
def test_a_line_separator_inside_a_caption_cuts_nothing(separator):
    assert tokenize([f"a red{separator}boat", "a cat"]) == ["a red boat", "a cat"]


def test_tokens_keep_punctuation_and_the_drop_list_removes_only_it():
    assert tokens('A "dog", no?') == ["a", "``", "dog", "''", ",", "no", "?"]
    assert {token for token in LEFT_OUT if token == token.lower()} == ptb_tokenizer.PUNCTUATION


def test_the_fast_path_changes_nothing(monkeypatch):
    """Plain words and spaces are recognized without trying every rule."""
    captions = captions_to_split.captions(300, seed=5)
    fast = tokenize(captions)
    monkeypatch.setattr(ptb_tokenizer, "_PLAIN_WORD", ptb_tokenizer.re.compile("(?!)"))
    monkeypatch.setattr(ptb_tokenizer, "_BLANK", ptb_tokenizer.re.compile("(?!)"))
    assert tokenize(captions) == fast


def test_any_text_is_split_without_an_error_and_no_token_has_a_space():
    rng = random.Random(3)
    for _ in range(500):
        text = "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x10FFFF)))) for _ in range(30))
        text = text.encode("utf-8", "ignore").decode()
        assert not any(" " in token or "\n" in token or not token for token in tokens(text))


# ---------------------------------------------------------------------------------------------------------------- Java


def _jar() -> Path:
    """pycocoevalcap's tokenizer; skips the test with the reason where it or Java is not."""
    found = importlib.util.find_spec("pycocoevalcap")
    folder = os.environ.get(VARIABLE) or (found and found.submodule_search_locations[0])
    if not folder:
        pytest.skip(f"pycocoevalcap is not installed, and {VARIABLE} does not name its folder")
    if shutil.which("java") is None:
        pytest.skip("there is no java on the path")
    return Path(folder) / "tokenizer" / "stanford-corenlp-3.4.1.jar"


def _java(captions: list[str], folder: Path) -> list[str]:
    file = folder / "captions.txt"
    file.write_text("\n".join(captions), encoding="utf-8", newline="")  # the last line as pycocoevalcap writes it
    command = ["java", "-cp", str(_jar()), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    output = subprocess.run([*command, str(file)], capture_output=True, check=True).stdout.decode()
    lines = output.split("\n")[: len(captions)]
    return [" ".join(word for word in line.rstrip().split(" ") if word not in LEFT_OUT) for line in lines]


def test_equal_to_java_on_the_table(tmp_path):
    captions = [caption for caption, _ in GOLDEN]
    assert _java(captions, tmp_path) == [expected for _, expected in GOLDEN]


@pytest.mark.slow
def test_equal_to_java_on_9999_of_10000_captions(tmp_path):
    _jar()
    captions = captions_to_split.captions(20_000, seed=1)
    pairs = zip(captions, _java(captions, tmp_path), tokenize(captions), strict=True)
    different = [(caption, java, ours) for caption, java, ours in pairs if java != ours]
    assert len(different) <= len(captions) // 10_000, different
