import pytest
import torch

from blip2_lab.models.quantize import NF4_BYTES
from blip2_lab.teaching import nf4_by_hand

LEVELS = nf4_by_hand.normal_levels()


def test_the_levels_are_those_of_the_paper():
    paper = [  # QLoRA, appendix E
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip
    assert LEVELS.tolist() == pytest.approx(paper, abs=1e-6)


def test_it_rounds_as_bitsandbytes_does():
    functional = pytest.importorskip("bitsandbytes").functional
    x = torch.randn(640, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, 640)
    theirs = functional.dequantize_4bit(*functional.quantize_4bit(x, blocksize=64, quant_type="nf4"))
    codes, scale = nf4_by_hand.quantize_blocks(x, LEVELS)
    torch.testing.assert_close(
        nf4_by_hand.dequantize_blocks(codes, scale, LEVELS), theirs.flatten(), rtol=1e-5, atol=1e-6
    )


def test_blocks_by_hand():
    levels = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    codes, scale = nf4_by_hand.quantize_blocks(torch.tensor([4.0, 1.9, -4.0, 0.0, 0.0, 0.0]), levels, block=3)
    assert codes.tolist() == [3, 2, 0, 1, 1, 1] and scale.tolist() == [4.0, 1.0]
    assert nf4_by_hand.dequantize_blocks(codes, scale, levels).tolist() == [4.0, 2.0, -4.0, 0.0, 0.0, 0.0]


def test_the_largest_number_of_a_block_is_exact_and_zero_is():
    x = torch.randn(320, generator=torch.Generator().manual_seed(1))
    x[::7] = 0.0
    codes, scale = nf4_by_hand.quantize_blocks(x, LEVELS)
    back = nf4_by_hand.dequantize_blocks(codes, scale, LEVELS)
    positive = x.reshape(-1, 64).max(dim=1).values > -x.reshape(-1, 64).min(dim=1).values
    largest = torch.where(positive, x.reshape(-1, 64).amax(1), x.reshape(-1, 64).amin(1))
    assert all(value in back for value in largest) and not back[::7].any()


def test_bits_of_a_weight_with_its_scales():
    assert nf4_by_hand.bits_per_weight(4, 64) == 4.5
    assert nf4_by_hand.bits_per_weight(8, 32, 16) == 8.5
    assert nf4_by_hand.bits_per_weight(4, 64, 8, 256) == 8 * NF4_BYTES
