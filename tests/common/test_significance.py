"""The randomization test: exact for few pairs, and right in the long run."""

import itertools

import pytest
import torch

from blip2_lab.common.significance import EXACT_PAIRS, FEWEST_PAIRS, randomization_p, shows_a_gain


def test_randomization_test_by_hand():
    assert randomization_p([]) == randomization_p([0.0, 0.0]) == 1
    assert randomization_p([3.0]) == 1  # as it is, and exchanged: both are as far from 0
    assert randomization_p([1.0, 1.0]) == 0.5
    assert randomization_p([1.0, 2.0, 0.0, 4.0]) == randomization_p([-1.0, -2.0, -4.0]) == 0.25
    assert randomization_p([1.0, -1.0]) == 1
    # of 8 sums +-1 +-1 +-3, 5 is reached by two, 3 by four more
    assert randomization_p([1.0, -1.0, 3.0]) == pytest.approx(6 / 8)


def test_of_fewer_pairs_none_is_significant():
    assert randomization_p([1.0] * FEWEST_PAIRS) < 0.05 < randomization_p([1.0] * (FEWEST_PAIRS - 1))
    assert shows_a_gain(1, 0.03, FEWEST_PAIRS) and shows_a_gain(1, 0.0, FEWEST_PAIRS - 1) is None
    assert not shows_a_gain(-1, 0.03, 40) and not shows_a_gain(1, 0.06, 40)


@pytest.mark.parametrize("count", [8, EXACT_PAIRS, EXACT_PAIRS + 1])
def test_it_counts_all_ways_of_exchanging(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)) + 0.3
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=count)))
    share = ((signs * values).sum(dim=1).abs() >= values.sum().abs() - 1e-6).float().mean().item()
    assert 0.001 < share < 0.9
    assert randomization_p(values.tolist()) == pytest.approx(share, abs=1e-9 if count <= EXACT_PAIRS else 0.02)


def test_chance_is_taken_for_a_gain_in_one_of_twenty():
    generator = torch.Generator().manual_seed(0)
    found = [randomization_p(torch.randn(9, generator=generator).tolist()) < 0.05 for _ in range(400)]
    assert 0.02 < sum(found) / len(found) < 0.08
