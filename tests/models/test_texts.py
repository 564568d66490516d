"""What a model is given as texts."""

import pytest

from blip2_lab.models.texts import check_captions, check_texts


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
