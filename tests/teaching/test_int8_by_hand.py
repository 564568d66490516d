import pytest
import torch

from blip2_lab.teaching import int8_by_hand


def test_absmax_by_hand():
    values, scale = int8_by_hand.absmax_quantize(torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]))
    assert values.dtype == torch.int8
    assert values.tolist() == [[64, -127, 0], [0, 0, 0]]  # 1 / 2 * 127 = 63.5, to even
    assert scale.flatten().tolist() == pytest.approx([2 / 127, 1.0])


def test_the_error_is_at_most_half_a_scale():
    x = torch.randn(20, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 20)[:, None]
    for dim in (-1, 0, None):
        values, scale = int8_by_hand.absmax_quantize(x, dim)
        assert values.abs().max() == 127
        assert ((int8_by_hand.dequantize(values, scale) - x).abs() <= scale / 2 * 1.001).all()


def test_rows_are_quantized_independently():
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    alone = int8_by_hand.absmax_quantize(x[:1])[0]
    assert torch.equal(int8_by_hand.absmax_quantize(x * torch.tensor([[1.0], [1e4]]))[0][:1], alone)


def test_a_product_is_exact_where_the_numbers_are_whole():
    x, weight = torch.tensor([[127.0, -3.0, 5.0]]), torch.tensor([[1.0, 127.0, 0.0], [-127.0, 2.0, 9.0]])
    torch.testing.assert_close(int8_by_hand.int8_linear(x, weight), x @ weight.T)


def test_sums_do_not_overflow():
    x = torch.ones(1, 4096)
    torch.testing.assert_close(int8_by_hand.int8_linear(x, x), torch.tensor([[4096.0]]))


def test_outliers_cost_a_plain_product_its_precision_and_the_mixed_one_nothing():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 256, generator=generator), torch.randn(32, 256, generator=generator)
    x[:, 7] = 60.0
    assert int8_by_hand.outlier_columns(x).nonzero().flatten().tolist() == [7]
    true = x @ weight.T
    plain, mixed = (
        (function(x, weight) - true).abs().mean().item()
        for function in (int8_by_hand.int8_linear, int8_by_hand.mixed_linear)
    )
    assert mixed < plain / 5


def test_without_outliers_the_two_products_are_the_same():
    x, weight = torch.randn(4, 32).clamp(-5, 5), torch.randn(3, 32)
    assert torch.equal(int8_by_hand.mixed_linear(x, weight), int8_by_hand.int8_linear(x, weight))


def test_nothing_but_outliers_is_the_full_product():
    x, weight = torch.full((2, 8), 7.0), torch.randn(3, 8)
    torch.testing.assert_close(int8_by_hand.mixed_linear(x, weight), x @ weight.T)
