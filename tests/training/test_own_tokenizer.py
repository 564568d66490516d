"""Tokenizers of one's own words: no word of the texts is unknown, whole words or pieces."""

from random import Random

import pytest

from blip2_lab.chat.vocabulary import unknown_words
from blip2_lab.models.stage1 import clean_caption
from blip2_lab.training.own_tokenizer import train_tokenizer
from blip2_lab.training.vocabulary import word_coverage

CAPTIONS = ["A yorn zorp, left of (two) blicks!", 'the "grue" café don\'t', "嘟嘟 車 – 3.5 кг", "a-b c/d #tag 🦜"]
FAMILIES = ("bert", "t5", "opt")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vocabulary", [4000, 100])
def test_no_word_of_the_texts_is_unknown(family, vocabulary):
    rng = Random(0)
    letters = "abcdeéжß車.,-'!() \t"
    texts = CAPTIONS + ["".join(rng.choice(letters) for _ in range(rng.randint(1, 40))) for _ in range(300)]
    tokenizer = train_tokenizer(family, texts, vocabulary)
    pieces = vocabulary == 100
    assert (len(tokenizer) < 300) == pieces
    for some in (texts, [clean_caption(text) for text in texts]):
        assert not word_coverage(tokenizer, some).unknown
        assert not any(tokenizer.unk_token_id in row for row in tokenizer(some)["input_ids"])
    assert not any(unknown_words(tokenizer, text) for text in texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_of_no_text_is_unknown_where_words_are_whole_and_is_named(family):
    tokenizer = train_tokenizer(family, CAPTIONS, 4000)
    assert unknown_words(tokenizer, "a yorn boat") == ["boat"]
    assert word_coverage(tokenizer, ["a yorn boat"]).unknown == {"boat": 1}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vocabulary", [4000, 100])
def test_decoding_gives_the_text_back(family, vocabulary, tmp_path):
    from transformers import AutoTokenizer

    train_tokenizer(family, [*CAPTIONS, "a long list of words that is split in pieces"], vocabulary).save_pretrained(
        tmp_path
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a yorn zorp, left of two blicks!")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a yorn zorp, left of two blicks!"


def test_ids_and_frames_are_those_of_the_families():
    bert, t5, opt = (train_tokenizer(family, CAPTIONS, 4000) for family in FAMILIES)
    assert (t5.pad_token_id, t5.eos_token_id, t5.unk_token_id) == (0, 1, 2)
    assert (opt.unk_token_id, opt.pad_token_id, opt.bos_token_id, opt.eos_token_id) == (0, 1, 2, 2)
    assert (bert.pad_token_id, bert.cls_token_id, bert.sep_token_id, bert.mask_token_id) == (0, 2, 3, 4)
    assert bert.bos_token == "[DEC]" and bert.bos_token_id == len(bert) - 1
    assert bert("zorp")["input_ids"][0] == 2 and bert("zorp")["input_ids"][-1] == 3
    assert t5("zorp")["input_ids"][-1] == 1 and opt("zorp")["input_ids"][0] == 2


def test_prompts_are_known_in_every_world():
    tokenizer = train_tokenizer("t5", ["zorp"], 4000)
    assert not unknown_words(tokenizer, "a picture of") and not unknown_words(
        tokenizer, "Question: zorp? Short answer:"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_byte_pair_encoding_knows_every_text_and_gives_it_back(family, tmp_path):
    from transformers import AutoTokenizer

    train_tokenizer(family, CAPTIONS, 600, "bpe").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    # characters of other alphabets stand in no training text: they are written as bytes
    for text in ("a yorn zorp, left of two blicks!", "zażółć ωμέγα 🦖 x", "grüe", "日本"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert not unknown_words(tokenizer, "a yorn boat") and not word_coverage(tokenizer, ["ωμέγα 🦖"]).unknown
    assert len(tokenizer("日")["input_ids"]) >= 3 + len(tokenizer("").input_ids), "three bytes of UTF-8"


def test_byte_pair_encoding_merges_what_is_frequent_and_has_as_many_tokens_as_asked():
    rng = Random(3)
    words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randint(2, 9))) for _ in range(800)]
    tokenizer = train_tokenizer("opt", ["the the the zorp"] * 50 + words, 1000, "bpe")
    assert len(tokenizer) == 1000
    assert [tokenizer.convert_ids_to_tokens(i) for i in tokenizer("the")["input_ids"]] == ["</s>", "▁the"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id) == (1, 0, 2)
    few = train_tokenizer("opt", ["zorp"], 50_000, "bpe")
    assert 256 < len(few) < 700, "short texts have fewer pairs to merge"
