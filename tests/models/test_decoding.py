"""Valid and invalid settings of decoding. How tokens are chosen is tested in test_language_model.py."""

from __future__ import annotations

import math

import pytest
import torch

from blip2_lab.models.decoding import MIN_TEMPERATURE, SEED_RANGE, Decoding, check_seed, choose_token, nucleus


@pytest.mark.parametrize("name", ["temperature", "top_p", "length_penalty", "repetition_penalty"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_settings_must_be_finite(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a finite number"):
        Decoding(**{name: value})


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
    for seed in (SEED_RANGE[0] - 1, SEED_RANGE[1] + 1):
        with pytest.raises(ValueError, match=f"The seed is {seed}; it must be"):
            check_seed(seed)
