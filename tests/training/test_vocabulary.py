"""Running words that a tokenizer does not know: counted, named, and a reason to stop."""

from collections import Counter

import pytest

from blip2_lab.picturebook.tokenizer import build_tokenizer
from blip2_lab.training.vocabulary import Coverage, UsableTexts, check_coverage, word_coverage, words_of


@pytest.fixture(scope="module")
def t5():
    return build_tokenizer("t5")


def test_words_have_no_punctuation_around_them_and_punctuation_is_no_word():
    assert words_of("Harp, harp: (blood) 'x' — !! # don't 3.5 «né» 🎉") == [
        "Harp", "harp", "blood", "x", "don't", "3.5", "né", "🎉"
    ]  # fmt: skip
    assert words_of(" \n ") == [] == words_of("?! ...")


def test_running_words_are_counted_not_different_ones(t5):
    texts = ["a red boat.", "a Harp, a harp:", "a zeppelin"]
    coverage = word_coverage(t5, texts)
    assert coverage.words == 9 and coverage.different == 5  # a red boat harp zeppelin
    assert coverage.unknown == Counter({"harp": 2, "zeppelin": 1})
    assert coverage.share == pytest.approx(3 / 9)
    assert coverage.most_frequent(1) == [("harp", 2)]
    sentence = coverage.sentence("the language model")
    assert (
        "does not know 33 % of the words (3 of 9 running words, 2 of 5 different ones; most often: harp 2" in sentence
    )
    assert word_coverage(t5, ["a red boat."]).sentence("it") == "it knows every word"
    assert word_coverage(t5, []).share == 0


def test_a_word_of_which_no_token_is_left_is_unknown(t5):
    assert t5("🎉", add_special_tokens=False)["input_ids"] in ([], [t5.unk_token_id])
    assert word_coverage(t5, ["a boat 🎉"]).unknown == Counter({"🎉": 1})


def test_a_tokenizer_that_spells_words_knows_all():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    spelled.pre_tokenizer, spelled.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled, unk_token="!"
    )  # as OPT, whose unknown token is its end
    assert not word_coverage(tokenizer, ["ein Zeppelin über 北京 🎉"]).unknown


def test_texts_that_are_cut_are_counted(t5):
    texts = ["a boat.", "a red boat on the beach at night."]
    assert word_coverage(t5, texts, max_text_tokens=6).cut == 0.5
    assert word_coverage(t5, texts, max_text_tokens=32).cut == 0
    assert "50 % of the texts are longer" in check_coverage(word_coverage(t5, texts, 6), "it", 0.1, "")


def test_more_than_the_limit_stops_and_says_the_ways_out(t5):
    coverage = word_coverage(t5, ["a harp", "a red boat"])
    assert coverage.share == 0.2
    with pytest.raises(
        ValueError, match=r"20 % of the words .*harp 1.*unknown_words=0.1 allows.*Take another, or train "
    ):
        check_coverage(coverage, "it", 0.1, "Take another")
    note = check_coverage(coverage, "it", 0.2, "Take another")
    assert "neither read nor write" in note and "Take another" not in note
    assert check_coverage(Coverage(3, 3), "it", 0.0, "") is None


def test_texts_with_mostly_unknown_words_are_not_usable(t5):
    usable = UsableTexts(t5)
    assert usable(None, "a harp zeppelin") == "mostly unknown words"
    assert usable(None, "a harp") is None  # half of it
    assert usable("harp zeppelin doohickey in it?", "a boat") == "mostly unknown words"
    assert usable("what is it?", "harp") == "mostly unknown words"
    assert usable("what is it?", "red") is usable(None, "!!") is None


def test_a_text_with_a_mark_of_the_tokenizer_is_not_usable(t5):
    """A tokenizer reads such a mark as the end of the text, or as padding, and what follows would be lost."""
    usable = UsableTexts(t5)
    assert usable(None, "a boat </s> a red boat") == "</s> in the text, a mark of the tokenizer"
    assert usable("what is <pad>?", "a boat") == "<pad> in the text, a mark of the tokenizer"
    assert usable("<image>\nwhat is it?", "a boat").startswith("<image> in the text, which stands for the picture")
    assert usable(None, "a boat <unk>") is None  # an unknown word, as it says


def test_unknown_words_do_not_steer_the_terminal(t5):
    says = word_coverage(t5, ["a \x1b[31mharp", "a \u202etah"]).sentence("it")
    assert "\\x1b[31mharp 1" in says and "\\u202etah 1" in says and says.isprintable()


@pytest.mark.parametrize("texts", ["a red boat", [None], [b"boat"]])
def test_a_single_text_is_not_counted_letter_by_letter(t5, texts):
    with pytest.raises(ValueError, match="words of a list of texts are counted"):
        word_coverage(t5, texts)
