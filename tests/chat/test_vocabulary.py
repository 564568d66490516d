"""What a small vocabulary makes of a text: slips of the keyboard, unknown words, other names of things."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace
from transformers import PreTrainedTokenizerFast

from blip2_lab.chat import near_words, vocabulary
from blip2_lab.chat.near_words import near_word
from blip2_lab.chat.vocabulary import Reading, UnknownWords, canonical, check, for_stage1, nearest_word, read
from blip2_lab.picturebook.tokenizer import build_tokenizer
from tests.chat import typed_words

KNOWN = {"what", "boat", "boats", "picture", "umbrella", "the", "many", "hat", "is"}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("t5")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("waht", "what"),  # swapped
        ("boaat", "boat"),  # one too many
        ("baot", "boat"),
        ("umbrela", "umbrella"),  # one missing
        ("pitcure", "picture"),
        ("boay", "boat"),  # the key beside the right one
        ("boayt", "boat"),  # both keys
        ("boaz", None),  # no slip: t and z are far from each other
        ("umbrlela", "umbrella"),
        ("umbrlla", "umbrella"),
        ("unbrela", "umbrella"),  # two slips, in a long word
        ("umbralla", "umbrella"),  # another vowel, in a long word
        ("teh", "the"),
        ("hwat", "what"),
        ("goat", None),  # the first letter is seldom wrong: another word, no slip
        ("chat", None),
        ("bxyt", None),
        ("th", None),  # a short word is near to too many others
        ("hax", None),
        ("wht", "what"),  # no word has three letters and no vowel
        ("mny", "many"),
        ("bts", None),
        ("ist", None),  # a swap away from "sit"
        ("haus", None),  # a letter more than "has", but none that a finger slips to
        ("zebra", None),
    ],
)
def test_a_slip_of_the_keyboard_is_forgiven(typed, meant):
    assert nearest_word(typed, KNOWN) == meant


def test_what_was_read_is_told(tokenizer):
    reading = read(tokenizer, "waht is teh BAOT, a quorx?")
    assert reading.text == "what is the boat, a quorx?"
    assert reading.corrected == (("waht", "what"), ("teh", "the"), ("BAOT", "boat")) and reading.unknown == ("quorx",)
    assert reading.note == 'I read "waht" as "what", "teh" as "the", "BAOT" as "boat". I do not know the word "quorx".'
    assert read(tokenizer, "what is this?") == Reading("what is this?") and Reading("boat").note == ""


@pytest.mark.parametrize("typed", ["can they fly?", "is it alive?", "Is it cold there?", "whose quorx is this"])
def test_a_question_is_refused_where_its_only_word_that_says_something_is_unknown(tokenizer, typed):
    with pytest.raises(UnknownWords, match="I do not know the word"):
        read(tokenizer, typed)


def test_a_short_form_is_read_as_its_word(tokenizer):
    assert read(tokenizer, "how many boats r there?").text == "how many boats are there?"


@pytest.mark.parametrize(
    "typed", ["um, is there a boat", "sorry is there a boat", "Bonjour! is there a boat", "lol haha is there a boat"]
)
def test_what_is_said_before_a_question_is_passed_over(tokenizer, typed):
    assert read(tokenizer, typed) == Reading("is there a boat")


@pytest.mark.parametrize("typed", ["where is mummy", "who is quorx", "what is happiness?", "wheres quorx", "the quorx"])
def test_a_question_for_an_unknown_name_alone_is_refused(tokenizer, typed):
    with pytest.raises(UnknownWords, match="I do not know the word"):
        read(tokenizer, typed)


@pytest.mark.parametrize("typed", ["where is the quorx", "what is a quorx?", "how quorx is it", "what color is quorx"])
def test_an_unknown_thing_is_asked_about_because_the_model_can_say_that_there_is_none(tokenizer, typed):
    assert read(tokenizer, typed).unknown == ("quorx",)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("what coour is the boat", "what colour is the boat"),
        ("list the coluors", "list the colours"),
        ("the GERY boat", "the grey boat"),
        ("whtas in it", "whats in it"),
        ("how many cacti?", "how many cactuses?"),
    ],
)
def test_a_slip_in_a_spelling_that_the_tokenizer_rewrites_is_forgiven(tokenizer, typed, text):
    reading = read(tokenizer, typed)
    assert reading.text == text and not reading.unknown


@pytest.mark.parametrize(("typed", "meant"), [("ledt", "left"), ("sall", "small"), ("tets", "tents"), ("lrft", "left")])
def test_of_several_near_words_the_one_that_tells_of_things_is_meant(known, typed, meant):
    assert nearest_word(typed, known) == meant


def test_a_plural_by_rule_is_read_as_the_irregular_one(tokenizer):
    assert read(tokenizer, "how many fishes?").text == "how many fish?"
    assert nearest_word("fishes", KNOWN) is None, "another vocabulary"


def test_a_word_inside_another_is_left_alone(tokenizer):
    assert read(tokenizer, "is the baot among the baots there?").text == "is the boat among the boats there?"


@pytest.mark.parametrize("typed", ["What's this?", "whats this", "ISN'T there a boat", "where’s the cat", "2 boats?"])
def test_contractions_and_digits_are_known(tokenizer, typed):
    assert read(tokenizer, typed).note == ""


@pytest.fixture(scope="module")
def known(tokenizer):
    return {piece.lstrip("▁") for piece in tokenizer.get_vocab()}


@pytest.mark.parametrize("words", [typed_words.FOREIGN, typed_words.OTHER_SUBJECTS])
def test_a_word_that_people_write_is_no_slip(known, words):
    unknown = [word for word in words if word not in known]
    corrected = {w: found for w in unknown if not near_word(w) and (found := nearest_word(w, known))}
    assert len(unknown) > 0.9 * len(words) and len(corrected) <= 2, corrected


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("is there something edible?", "is there something to eat?"),
        ("do you observe any crimson yachts?", "do you see any red boats?"),
        ("what depicts the img", "what shows the picture"),
        ("wat is dis", "what is this"),
        ("what is closest to the cat?", "what is next to the cat?"),
        ("besides the cat, what is there?", "other than the cat, what is there?"),
        ("what is there apart from animals?", "what is there other than animals?"),
        ("Aside from the boat, what do you see?", "other than the boat, what do you see?"),
        ("the bottommost thing", "the lowest thing"),
        ("which thing has petals?", "which thing has petal?"),
        ("what is the closest to the bottom edge?", "what is the lowest?"),
        ("what is closest to the boat?", "what is next to the boat?"),
        ("leave out the cat, what remains?", "other than the cat, what is there?"),
        ("what is closest to the ground?", "what is the lowest?"),
        ("which thing is the furthest from the bottom?", "which thing is the highest?"),
        ("what is farthest away from the right side?", "what is the leftmost?"),
        ("the cat furthest to the right", "the cat the rightmost"),
        ("which boat is nearer to the bottom?", "which boat is lower?"),
        ("which boat is nearer to the left side?", "which boat is more to the left?"),
        ("what could I eat for lunch?", "what could I eat?"),
        ("which one would keep me dry in the rain?", "which one would keep me dry?"),
        ("how many bits and pieces are there?", "how many things are there?"),
        ("is there a pair of boats?", "is there two boats?"),
        ("what is directly under the boat?", "what is under the boat?"),
        ("which vegetable is it?", "which carrot is it?"),
        ("is there anything to travel with?", "is there anything to go places with?"),
        ("is any color there twice?", "is any color there more than once?"),
    ],
)
def test_a_word_of_near_meaning_is_read_as_the_known_one(tokenizer, typed, text):
    reading = read(tokenizer, typed)
    assert reading.text == text and not reading.unknown
    assert all(f'"{word}" as' in reading.note for word, _ in reading.corrected) and reading.corrected


def test_near_words_are_unknown_and_mean_known_ones(known):
    near = near_words.all_near_words()
    assert not near.keys() & known
    unknown = {word for meant in near.values() for word in meant.split()} - known
    assert unknown <= {"beaches", "kinds", "meadows", "pictures", "streets"}, "plurals that nobody asks for"


@pytest.mark.parametrize("kind", ["SWAPPED", "DROPPED", "DOUBLED", "NEIGHBOUR"])
def test_slips_are_corrected(known, kind):
    pairs = [pair.split("-") for pair in getattr(typed_words, kind)]
    missed = [typed for typed, meant in pairs if nearest_word(typed, known) != meant]
    assert len(pairs) >= 20 and len(missed) <= 2, missed


@pytest.mark.parametrize(
    "typed",
    [
        "quorx",
        "quorx blicket?",
        "wie viele autos siehst du",
        "Was ist das?",
        "wat is er op de foto?",
        "De quelle couleur est le bateau?",
        "¿Dónde está el gato?",
        "haus",
        "北京?",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_language_and_what_can_be_asked(tokenizer, typed):
    with pytest.raises(UnknownWords, match="^I do not know the words? .* I read English: ask about the things in the"):
        read(tokenizer, typed)


def test_a_real_word_among_known_ones_is_not_known(tokenizer):
    for word in ("bold", "thee", "back", "berries"):
        reading = read(tokenizer, f"what color is the {word}?")
        assert reading.unknown == (word,) and not reading.corrected


def test_a_text_of_endless_words_is_read_at_once(monkeypatch):
    tried, slips = [], vocabulary._slips
    monkeypatch.setattr(vocabulary, "_slips", lambda word: (tried.append(word) or once for once in slips(word)))
    assert nearest_word("a" * 2000, KNOWN) is None and nearest_word("umbrella" * 250, KNOWN) is None
    assert not tried, "who tries two slips of 2,000 letters tries ten thousand million words"
    assert nearest_word("umbrellxq", KNOWN) is None and len(tried) < 10_000


@pytest.mark.parametrize("typed", ["", " ?!", "🙂", "***", "-> !"])
def test_a_text_without_a_word_is_no_question(typed):
    with pytest.raises(ValueError, match="There is no question yet"):
        check(typed)
    assert check(" 北京? ") == "北京?" and check("2 🙂") == "2 🙂"


def test_captions_call_each_thing_by_one_name():
    typed = "Two little ships and a big violet mug beside a steamship"
    assert canonical(typed) == "Two small boats and a large purple cup beside a steamship"


def own_tokenizer():
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<unk>": 0, "▁a": 1, "▁mug": 2, "▁cup": 3}, unk_token="<unk>")),
        unk_token="<unk>",
    )
    own.backend_tokenizer.pre_tokenizer = Metaspace()
    return own


def test_in_another_world_every_name_stays():
    assert for_stage1(own_tokenizer(), "a mug") == "a mug"
    with pytest.raises(UnknownWords, match='"boat". I know only the words of the captions that I have read'):
        for_stage1(own_tokenizer(), "a boat")


def test_a_model_of_other_texts_does_not_say_that_it_reads_english():
    with pytest.raises(UnknownWords, match="I know only the words of the texts that I have read"):
        read(own_tokenizer(), "zwei boote")


def test_stage_1_refuses_a_word_that_it_does_not_know():
    bert = build_tokenizer("bert")
    assert for_stage1(bert, "a tiny ship and a pruple kite.") == "a small boat and a purple kite."
    with pytest.raises(UnknownWords, match='do not know the word "quorx".*a red boat'):
        for_stage1(bert, "a red boat and a quorx.")
    with pytest.raises(UnknownWords, match="captions, which name"):  # not what can be asked
        for_stage1(bert, "zwölf boote")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("where are these boats?", "where are the boats?"),
        ("what surroundings are these?", "what surroundings are this?"),
    ],
)
def test_these_is_the_before_a_noun_and_this_at_the_end(tokenizer, typed, expected):
    assert vocabulary.read(tokenizer, typed).text == expected


def test_emoji_and_marks_of_the_tokenizer_are_unknown_words(tokenizer):
    """A tokenizer may keep no token of an emoji, and read "</s>" as the end of the prompt: the answer was "yes"."""
    assert vocabulary.unknown_words(tokenizer, "is there a 🎉 </s> - on the boat?") == ["🎉", "</s>"]
    with pytest.raises(ValueError, match="do not know the word"):
        read(tokenizer, "🎉?")
