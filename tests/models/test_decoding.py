"""Valid and invalid settings of decoding. How tokens are chosen is tested in test_language_model.py."""

from __future__ import annotations

import math

import pytest
import torch

from blip2_lab.models.decoding import MIN_TEMPERATURE, SEED_RANGE, Decoding, check_seed, choose_token, nucleus


@pytest.mark.parametrize("name", ["temperature", "top_p", "length_penalty", "repetition_penalty"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_settings_must_be_finite(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a finite number"):
        Decoding(**{name: value})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_length": 20}, "no option 'max_length': use max_new_tokens"),
        ({"min_length": 3}, "use min_new_tokens"),
        ({"num_return_sequences": 3}, "pass the picture several times"),
        ({"num_captions": 3}, "pass the picture several times"),
        ({"use_nucleus_sampling": True}, "use do_sample"),
        ({"top_k": 5}, "top_p alone"),
        ({"num_beam": 3}, "did you mean 'num_beams'"),
        ({"no_repeat_ngram_size": 2}, "use repetition_penalty"),
        ({"output_scores": True}, "model.stream gives each token with its probability"),
        ({"penalty_alpha": 0.6}, "greedy"),
        ({"pixel_values": 1}, "the picture comes first: generate"),
        ({"input_ids": 1}, "the prompt is a text, behind the picture"),
        ({"prompt_lookup_num_tokens": 3}, "repetition_penalty.$"),  # nothing is near
        ({"num_beams": 3.0}, "num_beams is 3.0; it must be a whole number"),
        ({"num_beams": True}, "whole number"),
        ({"max_new_tokens": "20"}, "max_new_tokens is '20'; it must be a whole number"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; it must be True or False"),
        ({"temperature": None}, "temperature is None; it must be a number"),
    ],
)
def test_an_option_of_another_library_names_the_one_that_is_meant(options, says):
    with pytest.raises(ValueError, match=says):
        Decoding.from_options(options)
    assert Decoding.from_options({"num_beams": 2, "top_p": 1}) == Decoding(num_beams=2, top_p=1)


def test_a_temperature_too_small_to_divide_by_is_refused_and_the_smallest_one_works():
    logits = torch.tensor([-100.0, 99.0, 100.0, -torch.inf])
    assert nucleus(logits, 1e-45).isnan().any(), "or there is nothing to refuse"
    for cold in (1e-45, MIN_TEMPERATURE / 2, 0.0, -1.0):
        with pytest.raises(ValueError, match=f"temperature is {cold}"):
            Decoding(temperature=cold)
    assert choose_token(logits, [], None, Decoding(do_sample=True, temperature=MIN_TEMPERATURE)) == 2


def test_seeds_outside_torchs_range_raise():
    for seed in SEED_RANGE:
        assert check_seed(seed) == seed
        torch.Generator().manual_seed(seed)
    for seed in (SEED_RANGE[0] - 1, SEED_RANGE[1] + 1, 1.5, None):
        with pytest.raises(ValueError, match=f"The seed is {seed}; it must be"):
            check_seed(seed)


def test_a_forbidden_token_is_not_chosen_though_it_is_the_likeliest():
    logits, greedy = torch.tensor([0.0, 3.0, 2.0]), Decoding(num_beams=1, repetition_penalty=1.0)
    assert choose_token(logits.clone(), [], None, greedy, None) == 1
    assert choose_token(logits.clone(), [], 1, greedy, None) == 2
    generator, sampled = torch.Generator().manual_seed(0), Decoding(do_sample=True, num_beams=1, top_p=1.0)
    assert {choose_token(logits.clone(), [], 1, sampled, generator) for _ in range(50)} == {0, 2}
