"""Which attention kernel ran: on a CPU its own fused one, plain products where that cannot serve, none where written
out."""

import torch
import torch.nn.functional as F

from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.attention_kernels import KERNELS, PLAIN, kernels_text, recorded_kernels

CPU = KERNELS["flash_attention_for_cpu"]


def test_the_kernel_of_a_cpu_is_counted():
    x = torch.randn(2, 4, 8, 16)
    with recorded_kernels() as found:
        F.scaled_dot_product_attention(x, x, x)
        F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(2, 1, 8, 8))
        with torch.inference_mode():
            F.scaled_dot_product_attention(x, x, x)
    assert found == {CPU: 3}
    F.scaled_dot_product_attention(x, x, x)
    assert found == {CPU: 3}, "nothing is counted after the block"


def test_a_call_that_no_fused_kernel_serves():
    x, mask = torch.randn(2, 4, 8, 16), torch.zeros(2, 1, 8, 8, requires_grad=True)
    with recorded_kernels() as found:
        F.scaled_dot_product_attention(x, x, x, attn_mask=mask)  # a mask with a gradient
        F.scaled_dot_product_attention(x, x, x)
    assert found == {PLAIN: 1, CPU: 1}
    assert set(kernels_text(found).split(", ")) == {f"{PLAIN} (1 call)", f"{CPU} (1 call)"}


def test_backward_is_not_counted():
    x = torch.randn(1, 2, 8, 16, requires_grad=True)
    with recorded_kernels() as found:
        F.scaled_dot_product_attention(x, x, x).sum().backward()
    assert found == {CPU: 1} and x.grad is not None


def test_our_attention_is_fused_without_gradients_and_written_out_with_them():
    attention, x = MultiHeadAttention(32, 2), torch.randn(1, 5, 32)
    with recorded_kernels() as found, torch.no_grad():
        attention(x, *attention.keys_values(x))
    assert found == {CPU: 1}
    with recorded_kernels() as found:
        attention(x, *attention.keys_values(x))
    assert not found and kernels_text(found) == "written out as matrix products"


def test_names_of_operators_of_other_devices():
    names = {
        "aten._scaled_dot_product_flash_attention.default": "FlashAttention",
        "aten._scaled_dot_product_flash_attention_for_cpu.default": CPU,
        "aten._scaled_dot_product_efficient_attention.default": "memory-efficient attention",
        "aten._scaled_dot_product_cudnn_attention.default": "cuDNN's attention",
    }
    for name, kernel in names.items():
        assert hasattr(torch.ops.aten, name.split(".")[1]), f"this torch has no {name}"
        assert next(text for part, text in KERNELS.items() if part in name) == kernel
