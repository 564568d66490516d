"""What a model is given as texts."""

import pytest

from blip2_lab.models.texts import check_captions, check_marks, check_texts, unknown_words
from blip2_lab.picturebook.tokenizer import build_tokenizer


@pytest.mark.parametrize(
    "texts", ["a boat", b"a boat", [5], None, {"a": 1}, {"a", "b"}, ["a", float("nan")], ["\ud800"]]
)
def test_texts_are_a_list_of_texts(texts):
    with pytest.raises(ValueError, match="caption"):
        check_texts(texts, "caption")
    assert check_texts(("a", "b"), "caption") == ["a", "b"]


def test_an_empty_caption_is_named_by_its_number():
    with pytest.raises(ValueError, match="Caption 1 is empty"):
        check_captions(["a", " "])


@pytest.mark.parametrize("text", ["<image>what?", "a <ImageHere> b", "<|image_pad|>", "<Img>x</Img>", "<IMAGE_1> a"])
def test_marks_of_the_picture_in_other_programs_are_refused(text):
    with pytest.raises(ValueError, match="A prompt has '<.*, which stands for the picture"):
        check_marks(["what?", text], "prompt", None)


@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_marks_of_the_tokenizer_are_refused(kind):
    tokenizer = build_tokenizer(kind)
    for mark in (tokenizer.eos_token, tokenizer.pad_token):
        with pytest.raises(ValueError, match=f"A caption has '{mark}', a mark of the tokenizer"):
            check_marks([f"a {mark} boat"], "caption", tokenizer)
    check_marks(["a boat <unk>", "1 < 2 > 0", "an image", "<b>"], "caption", tokenizer)
    tokenizer.pad_token = "!"  # CLIP's, which people do write
    check_marks(["a boat!"], "caption", tokenizer)


def test_unknown_words_are_named_once():
    tokenizer = build_tokenizer("t5")
    assert unknown_words(tokenizer, ["a red boat", "ein rotes boat", "ein"]) == ["ein", "rotes"]
    assert (
        unknown_words(tokenizer, ["a red boat"]) == unknown_words(tokenizer, []) == unknown_words(None, ["ein"]) == []
    )
