"""The micro tokenizers: the ids of the models they stand for, no unknown word, and text that comes back unchanged."""

from __future__ import annotations

import hashlib
import re
from random import Random

import pytest

from blip2_lab.picturebook import corpus, words
from blip2_lab.picturebook.facts import FACTS
from blip2_lab.picturebook.scene import CATEGORIES, COLORS, KINDS, PLACES, SIZES, SPLITS, TIMES, sample_scene
from blip2_lab.picturebook.tokenizer import build_tokenizer
from blip2_lab.picturebook.wordings import UNKNOWN

FAMILIES = ("bert", "t5", "opt")


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    return list(corpus.vocabulary())


@pytest.fixture(scope="module")
def tokenizers() -> dict:
    return {family: build_tokenizer(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """5,000 examples that the vocabulary was not made from, from every source of text, unseen splits too."""
    found = [" ".join(corpus.instruction(5, i)).strip() for i in range(2000)]
    found = [text for text in found if not re.search(rf"\b{UNKNOWN}s?\b", text)]
    found += [corpus.plain_text(5, i) for i in range(1000)]
    found += [" ".join(" ".join(corpus.lesson(5, i)).replace("+", " ").split()) for i in range(500)]
    for i in range(1500):
        scene, rng = sample_scene(5, i, SPLITS[i % 4]), Random(f"{i}")
        asked = words.question(scene, rng, tuple(words.QUESTION_TYPES)[i % 13])
        found.append(f"{asked.text} {asked.answer}" if asked else words.caption(scene, rng))
    return found


def test_the_vocabulary_is_the_same_on_every_machine(vocabulary):
    # ids are positions in this list: one word more and every shipped model reads nonsense
    assert len(vocabulary) == len(set(vocabulary)) == 1168 and vocabulary == sorted(vocabulary)
    assert hashlib.sha256(" ".join(vocabulary).encode()).hexdigest()[:16] == "ef912db4427b760c"
    assert (vocabulary[0], vocabulary[100], vocabulary[200], vocabulary[-1]) == ("a", "benches", "church", "zone")
    assert all(word.isalpha() and word == word.lower() for word in vocabulary)


def test_the_vocabulary_knows_every_word_of_the_tables(vocabulary):
    names = [*KINDS, *CATEGORIES, *COLORS, *SIZES, *PLACES, *TIMES, *words.NUMBERS, *(words.plural(k) for k in KINDS)]
    names += [word for f in FACTS.values() for text in (f.use, f.home, f.part) for word in text.split()]
    assert set(names) <= set(vocabulary)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_word_of_other_examples_is_unknown(tokenizers, texts, family):
    t = tokenizers[family]
    for text, ids in zip(texts, t(texts).input_ids, strict=True):
        assert t.unk_token_id not in ids, f"unknown: {t.convert_ids_to_tokens(ids)} in {text!r}"


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_gives_the_text_back_in_lower_case(tokenizers, texts, family):
    t = tokenizers[family]
    assert t.batch_decode(t(texts).input_ids, skip_special_tokens=True) == [text.lower() for text in texts]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", {"pad": 0, "eos": 1, "unk": 2}),
        ("opt", {"unk": 0, "pad": 1, "bos": 2, "eos": 2}),
        ("bert", {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "bos": 1178}),
    ],
)
def test_special_ids_are_those_of_the_model_it_stands_for(tokenizers, family, expected):
    t = tokenizers[family]
    assert {name: getattr(t, f"{name}_token_id") for name in expected} == expected
    assert len(t) == 1168 + 5 + {"t5": 3, "opt": 3, "bert": 6}[family]


def test_dec_comes_last_as_in_blip2(tokenizers):
    t = tokenizers["bert"]
    assert t.bos_token == "[DEC]" and t.bos_token_id == len(t) - 1
    assert t.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", ["▁a", "▁red", "▁boat", ",", "▁at", "▁night", ".", "</s>"]),
        ("opt", ["</s>", "▁a", "▁red", "▁boat", ",", "▁at", "▁night", "."]),
        ("bert", ["[CLS]", "▁a", "▁red", "▁boat", ",", "▁at", "▁night", ".", "[SEP]"]),
    ],
)
def test_one_word_one_token_in_the_models_frame(tokenizers, family, expected):
    t = tokenizers[family]
    assert t.convert_ids_to_tokens(t("A red  boat, at NIGHT. ").input_ids) == expected
    assert t.tokenize("a red boat, at night.") == [token for token in expected if token not in t.all_special_tokens]


def test_the_three_know_the_same_words(tokenizers, vocabulary):
    ordinary = [set(t.get_vocab()) - set(t.all_special_tokens) for t in tokenizers.values()]
    assert ordinary[0] == ordinary[1] == ordinary[2] == {f"▁{word}" for word in vocabulary} | set(".,:?!")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("what color is the boat ?", "what color is the boat?"),
        ("What’s the grey boat's colour??", "what is the gray boat is color?"),
        ("a boat,a car .a cat", "a boat, a car. a cat"),
        ('"a red-house" (at night)!', "a red house at night!"),
        ("Question:what is it?Short answer:", "question: what is it? short answer:"),
    ],
)
def test_what_people_type_is_read_as_they_mean_it(tokenizers, family, typed, meant):
    t = tokenizers[family]
    ids = t(typed).input_ids
    assert t.unk_token_id not in ids and t.decode(ids, skip_special_tokens=True) == meant


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_from_outside_is_one_unknown_token(tokenizers, family):
    t = tokenizers[family]
    plain, strange = t("what is the boat?").input_ids, t("what is the quorx?").input_ids
    assert strange.count(t.unk_token_id) == 1 and len(strange) == len(plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_on_the_right_and_masked(tokenizers, family):
    t = tokenizers[family]
    batch = t(["a boat", "a large red boat"], padding=True, return_tensors="pt")
    assert batch.input_ids[0, -2:].tolist() == [t.pad_token_id] * 2
    assert batch.attention_mask.sum(1).tolist() == [batch.input_ids.shape[1] - 2, batch.input_ids.shape[1]]


def test_a_saved_tokenizer_is_the_same(tokenizers, texts, tmp_path):
    from transformers import AutoTokenizer

    for family, t in tokenizers.items():
        t.save_pretrained(tmp_path / family)
        again = AutoTokenizer.from_pretrained(tmp_path / family)
        assert again(texts[:50]).input_ids == t(texts[:50]).input_ids
        assert (again.pad_token_id, again.eos_token_id, again.bos_token_id) == (
            t.pad_token_id, t.eos_token_id, t.bos_token_id,
        )  # fmt: skip
