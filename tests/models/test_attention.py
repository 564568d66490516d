import pytest
import torch

from blip2_lab.models.attention import MultiHeadAttention


def attend(attention, x, memory, mask=None):
    return attention(x, *attention.keys_values(memory), mask)


def test_equal_scores_average_the_values():
    attention = MultiHeadAttention(2, 1)
    for linear in (attention.query, attention.key, attention.value, attention.output):
        torch.nn.init.zeros_(linear.bias)
        torch.nn.init.eye_(linear.weight)
    torch.nn.init.zeros_(attention.query.weight)
    memory = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [50.0, 50.0]]])
    mask = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    torch.testing.assert_close(attend(attention, torch.rand(1, 1, 2), memory, mask), torch.tensor([[[2.0, 2.0]]]))


def test_a_sharp_score_copies_one_value():
    attention = MultiHeadAttention(2, 1)
    for linear in (attention.query, attention.key, attention.value, attention.output):
        torch.nn.init.zeros_(linear.bias)
        torch.nn.init.eye_(linear.weight)
    memory = torch.tensor([[[100.0, 0.0], [0.0, 100.0]]])
    torch.testing.assert_close(attend(attention, memory[:, 1:], memory), memory[:, 1:])


@pytest.mark.parametrize("masked", [False, True])
def test_fused_hooked_and_training_paths_agree(masked):
    torch.manual_seed(0)
    attention = MultiHeadAttention(24, 3, memory_width=10).eval()
    x, memory = torch.randn(4, 5, 24), torch.randn(4, 7, 10)
    mask = torch.rand(4, 1, 5, 7) > 0.5 if masked else None
    with torch.no_grad():
        fused = attend(attention, x, memory, mask)
        seen = []
        handle = attention.softmax.register_forward_hook(lambda module, inputs, output: seen.append(output))
        watched = attend(attention, x, memory, mask)
        handle.remove()
        attend(attention, x, memory, mask)
    training = attend(attention, x, memory, mask)
    torch.testing.assert_close(watched, fused, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(training, fused, atol=1e-6, rtol=1e-5)
    (weights,) = seen  # once: the fused form came back when the hook was gone
    assert weights.shape == (4, 3, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 3, 5))
    if masked:
        visible = mask.any(-1, keepdim=True).expand_as(mask) & ~mask
        assert weights[visible.expand_as(weights)].max() == 0


def test_a_fully_masked_row_is_not_nan():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    x, mask = torch.randn(1, 2, 8), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.no_grad():
            assert attend(attention.to(dtype), x.to(dtype), x.to(dtype), mask).isfinite().all()
    attend(attention.float(), x, x, mask).sum().backward()
    assert attention.query.weight.grad.isfinite().all()


def test_a_masked_column_has_no_influence():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    x, memory = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    mask = torch.tensor([True, False, True, True]).view(1, 1, 1, 4)
    changed = memory.clone()
    changed[:, 1] += 100
    torch.testing.assert_close(attend(attention, x, memory, mask), attend(attention, x, changed, mask), atol=0, rtol=0)


def test_the_order_of_the_memory_does_not_matter():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    torch.testing.assert_close(attend(attention, x, memory), attend(attention, x, memory.flip(1)))


def test_a_layer_norms_affine_folds_into_keys_and_values():
    torch.manual_seed(0)
    attention, norm = MultiHeadAttention(8, 2, memory_width=6), torch.nn.LayerNorm(6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    memory = torch.randn(3, 5, 6)
    bare = torch.nn.functional.layer_norm(memory, (6,), eps=norm.eps)
    gradients = []
    for keys, values in (attention.keys_values(norm(memory)), attention.keys_values(bare, norm)):
        (keys.sin() + values.cos()).sum().backward()
        gradients.append([p.grad for p in (norm.weight, norm.bias, attention.key.weight, attention.value.weight)])
        attention.zero_grad(), norm.zero_grad()
        result = keys, values
    for folded, plain in zip(result, attention.keys_values(norm(memory)), strict=True):
        torch.testing.assert_close(folded, plain)
    for folded, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(folded, plain, atol=1e-5, rtol=1e-4)


def test_dropout_only_while_training():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, dropout=0.5)
    x = torch.randn(1, 6, 8)
    assert not torch.equal(attend(attention, x, x), attend(attention, x, x))
    attention.eval()
    assert torch.equal(attend(attention, x, x), attend(attention, x, x))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of the number of attention heads"):
        MultiHeadAttention(10, 3)
