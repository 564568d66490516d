import math
from random import Random

import pytest
import torch

from blip2_lab.picturebook import corpus
from blip2_lab.picturebook.scene import KINDS, sample_scene
from blip2_lab.picturebook.tokenizer import build_tokenizer
from blip2_lab.training.tasks.word_sums import NOISE, SPREAD, add_up, word_sums_of


def tokens(*texts):
    return build_tokenizer("t5")([text.replace("+", " ") for text in texts], padding=True, return_tensors="pt")


def test_a_word_sum_is_one_place_and_everything_else_is_as_it_was():
    texts = ("red+boat snow. + what?", "a boat")
    sums = word_sums_of(texts, tokens(*texts).attention_mask)
    # red boat snow .  what ?  </s>; the lonely "+" is a place without a token
    assert sums.place.tolist() == [[0, 0, 1, 2, 4, 5, 6], [0, 1, 2, 7, 7, 7, 7]]
    assert sums.mask.tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    assert sums.summed.nonzero().tolist() == [[0, 0], [0, 3]]


def test_words_of_a_sum_are_added_and_the_others_left_alone():
    texts = ("red+boat snow", "a boat")
    attention_mask = tokens(*texts).attention_mask
    words = torch.eye(4).repeat(2, 1, 1)[:, : attention_mask.shape[1]]  # token i is the i-th unit vector
    sums = word_sums_of(texts, attention_mask)
    read = add_up(words, sums, torch.Generator().manual_seed(0))
    assert read.shape == (2, 3, 4)
    assert torch.equal(read[1], torch.eye(4)[:3]) and torch.equal(read[0, 1:], torch.eye(4)[2:])
    many = torch.stack([add_up(words, sums, torch.Generator().manual_seed(i))[0, 0] for i in range(4000)])
    sum_of_two = torch.tensor([1, 1, 0, 0]) / 2**0.5  # as long as one word
    longer = math.exp(SPREAD**2 / 2)  # the mean of a log-normal stretch
    torch.testing.assert_close(many.mean(0), sum_of_two * longer, atol=0.06, rtol=0)


def test_an_empty_sum_is_noise():
    """Its length is within the bounds for noise, and not always the same."""
    lengths = []
    for seed in range(300):
        read = add_up(
            torch.ones(1, 2, 64), word_sums_of(["+ boat"], torch.ones(1, 2)), torch.Generator().manual_seed(seed)
        )
        assert torch.equal(read[0, 1:], torch.ones(2, 64))
        lengths.append(read[0, 0].norm().item() / 8)  # in words
    least, most = NOISE
    assert least * 0.4 < min(lengths) < 2 * least and most / 2 < max(lengths) < most * 2.5


def test_word_sums_are_as_noisy_as_they_are_to_be():
    """Scale 0 is the least noise; scale 0.5 goes half as far up, in logarithms."""
    sums, (least, most) = word_sums_of(["+ boat"] * 400, torch.ones(400, 2)), NOISE

    def lengths(noise_scale: float) -> torch.Tensor:
        read = add_up(torch.ones(400, 2, 1024), sums, torch.Generator().manual_seed(0), noise_scale)
        return read[:, 0].norm(dim=-1).log() - math.log(32)  # in words, with the stretch on them

    assert lengths(0.0).mean() == pytest.approx(math.log(least), abs=0.05)
    assert lengths(0.0).std() == pytest.approx(SPREAD, abs=0.04)
    assert lengths(0.5).mean() == pytest.approx(math.log(least) + math.log(most / least) / 4, abs=0.08)
    assert lengths(1.0).mean() == pytest.approx(math.log(least) + math.log(most / least) / 2, abs=0.12)


def test_places_can_be_rounded_up():
    exact, rounded = (word_sums_of(["red+boat snow."], torch.ones(1, 5), n) for n in (1, 8))
    assert exact.mask.tolist() == [[1, 1, 1, 1]] and rounded.mask.tolist() == [[1] * 4 + [0] * 4]
    assert exact.place.tolist() == rounded.place.tolist() == [[0, 0, 1, 2, 3]]


def test_gradients_reach_the_words():
    words = torch.ones(1, 3, 8, requires_grad=True)
    add_up(words, word_sums_of(["red+boat"], torch.ones(1, 3)), torch.Generator().manual_seed(0)).sum().backward()
    assert (words.grad != 0).all()


def test_a_text_whose_tokens_are_not_its_words_is_refused():
    with pytest.raises(ValueError, match="'boat' has 5 tokens"):
        word_sums_of(["boat"], torch.ones(1, 5, dtype=torch.long))


def test_word_sums_say_what_the_scene_is():
    """Of each thing every word once, each with its position; the setting; nothing else; at most 16 sums."""
    for index in range(300):
        scene = sample_scene(3, index, "train")
        told = corpus.word_sums(scene, Random(f"piles {index}")).split(" ")
        assert len(told) <= corpus.MAX_WORD_SUMS
        said = [word for word_sum in told for word in word_sum.split("+") if word]
        assert said.count(scene.place) == 1 and said.count(scene.time) == 1
        for thing in scene.things:
            here = [set(word_sum.split("+")) for word_sum in told]
            where = set(thing.position.split())
            about = [
                word_sum
                for word_sum in here
                if word_sum & {*KINDS, "red", thing.color, thing.size} and where == _where(word_sum)
            ]
            assert {thing.kind, thing.color, thing.size} <= set().union(*about)
        expected = 2 + sum(3 for _ in scene.things)
        assert sum(word not in _WHERE for word in said) == expected


def test_word_sums_repeat_things_and_nothing_else():
    """Where repeats are asked for: the same sums, most of them in more places, still at most 16 and often 16; some of
    the repeats tell a thing in part, always with its position."""
    more = full = in_part = 0
    for index in range(300):
        scene = sample_scene(3, index, "train")
        once, told = (
            corpus.word_sums(scene, Random(f"piles {index}"), repeats).split(" ") for repeats in (False, True)
        )
        said, parts = set(once) - {"+"}, {f"{scene.place}+", f"{scene.time}+"}
        kinds = {word_sum for word_sum in told if word_sum not in parts} - {"+"}
        assert len(told) <= corpus.MAX_WORD_SUMS and said <= kinds, "the same scene"
        for part in kinds - said:
            of = [thing for thing in scene.things if part.endswith("+" + "+".join(thing.position.split()))]
            assert any(set(part.split("+")) < {t.size, t.color, t.kind, *t.position.split()} for t in of), part
        in_part += bool(kinds - said)
        more += len([word_sum for word_sum in told if word_sum != "+"]) > len(said)
        full += len(told) == corpus.MAX_WORD_SUMS
    assert 0.6 < more / 300 < 0.8 and full / 300 > 0.35 and 0.2 < in_part / 300 < 0.7


def test_long_word_sums_are_as_long_as_they_may_be_and_words_stay_as_they_are():
    sums = word_sums_of(["red+boat snow."] * 64, torch.ones(64, 5))
    words = torch.randn(64, 5, 128, generator=torch.Generator().manual_seed(1))
    usual, long = (
        add_up(words, sums, torch.Generator().manual_seed(0), noise_scale=0, longest=longest) for longest in (1.0, 3.0)
    )
    assert torch.equal(usual[:, 1:], long[:, 1:])
    longer = long[:, 0].norm(dim=1) / usual[:, 0].norm(dim=1)
    assert 1 <= longer.min() < 1.2 and 2.7 < longer.max() <= 3.001


_WHERE = {"top", "bottom", "left", "right", "middle"}


def _where(word_sum):
    return word_sum & _WHERE
