"""Quantization to 8 and 4 bits: which layers, their error, their bytes; and loading one tensor at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from blip2_lab.checkpoints import files, huggingface, key_maps, load
from blip2_lab.checkpoints.load import save
from blip2_lab.checkpoints.meta_model import empty_model, empty_quantized_model, load_tensors, model_bytes
from blip2_lab.models.quantize import (
    MAX_INT8_ROWS,
    Int8Linear,
    NF4Linear,
    is_quantized_layer,
    layers_to_quantize,
)
from tests.tiny import build_tiny_model


def dequantized(layer: Int8Linear) -> torch.Tensor:
    return layer.weight.float() * layer.scale[:, None].float()


def small_linear() -> tuple[nn.Linear, Int8Linear]:
    torch.manual_seed(0)
    linear = nn.Linear(128, 64).requires_grad_(False)
    linear.weight *= torch.logspace(-3, 2, 64)[:, None]  # rows of very different size
    ours = Int8Linear(128, 64, bias=True)
    ours.quantize_weight(linear.weight)
    ours.bias = linear.bias
    return linear, ours


def test_int8_product_by_hand():
    layer = Int8Linear(2, 2, bias=False)
    layer.quantize_weight(torch.tensor([[127.0, -64.0], [0.0, 0.0]]))
    assert layer.weight.tolist() == [[127, -64], [0, 0]] and layer.scale[0] == 1
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[63.0, 0.0]]


@pytest.mark.parametrize("rows", [1, MAX_INT8_ROWS, MAX_INT8_ROWS + 1, 40])
def test_each_row_has_its_own_scale(rows):
    linear, ours = small_linear()
    x = torch.randn(rows, 128)
    exact, rounded = F.linear(x, linear.weight), ours(x) - linear.bias
    # of each output by itself: small ones count as much
    error = (exact - rounded).norm(dim=0) / (x.norm() * linear.weight.norm(dim=1))
    assert 0 < error.max() < 0.02
    assert (dequantized(ours) - linear.weight).abs().max(dim=1).values.le(linear.weight.abs().amax(dim=1) / 127).all()
    assert ours(x.view(rows, 1, 128)).shape == (rows, 1, 64) and ours(x).dtype == x.dtype


@pytest.mark.parametrize("width", [2, 16, 48, 100])
def test_any_width(width):
    """torch's int8 kernel crashes or gives NaN where the width is not a multiple of 16."""
    layer, weight = Int8Linear(width, 5, bias=False), torch.randn(5, width)
    layer.quantize_weight(weight)
    x = torch.randn(3, width)
    torch.testing.assert_close(layer(x), x @ weight.T, rtol=0.1, atol=0.1)


def test_few_and_many_rows_agree_and_gradients_pass():
    _, ours = small_linear()
    x = torch.randn(MAX_INT8_ROWS + 1, 128)
    few, many = ours(x[:MAX_INT8_ROWS]), ours(x)[:MAX_INT8_ROWS]
    torch.testing.assert_close(few, many, rtol=0.02, atol=0.02 * few.abs().max().item())
    x = x[:2].requires_grad_()
    ours(x).sum().backward()
    torch.testing.assert_close(x.grad[0], dequantized(ours).sum(dim=0), rtol=0.02, atol=0.5)


# --- a whole model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["t5", "opt"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save(build_tiny_model(request.param), folder)
    return huggingface.read_config(folder), folder


def test_which_layers(saved):
    config, _ = saved
    is_t5 = config.text_config.model_type == "t5"
    model = empty_model(config)
    names = {method: set(layers_to_quantize(model, method)) for method in ("int8", "int8-all", "nf4")}
    assert layers_to_quantize(model, None) == {}
    assert not any(name.startswith(("qformer", "language_projection")) for n in names.values() for name in n)
    lasts = {name.rpartition(".")[2] for name in names["int8-all"] - names["int8"]}
    assert lasts == ({"wo", "lm_head"} if is_t5 else set()), "OPT's lm_head is its word embeddings"
    assert {name for name in names["int8-all"] if name.startswith("image_encoder.")} == names["int8-all"] - {
        name for name in names["int8-all"] if name.startswith("language_model.")
    }
    assert all(name.startswith("language_model.") and "lm_head" not in name for name in names["nf4"])


@pytest.mark.parametrize("method", [None, "int8", "int8-all", "nf4"])
def test_bytes_are_what_the_planner_says(saved, method):
    config, folder = saved
    dtype = torch.float32 if method is None else torch.bfloat16
    model = load.load(folder, quantize=method)
    held = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        state = getattr(tensor, "quant_state", None)
        held += tensor.numel() * tensor.element_size() + (state.absmax.numel() * 5 // 4 if state else 0)
    assert held == pytest.approx(
        model_bytes(empty_model(config), method, dtype), rel=0.02
    )  # the planner counts a little more for scales
    assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])


def test_float16_keeps_wo_in_float32(saved):
    config, folder = saved
    model = load.load(folder, dtype="float16")
    kinds = {(n.rpartition(".wo.")[1] or "rest", p.dtype) for n, p in model.language_model.named_parameters()}
    wo = {(".wo.", torch.float32)} if config.text_config.model_type == "t5" else set()
    assert kinds == {("rest", torch.float16)} | wo
    assert {p.dtype for p in model.qformer.parameters()} == {torch.float32}


def test_nf4_wo_has_no_weight_that_t5_could_cast_to(saved):
    config, folder = saved
    model = load.load(folder, quantize="nf4")
    wrapped = [m for m in model.modules() if isinstance(m, NF4Linear)]
    assert bool(wrapped) == (config.text_config.model_type == "t5")
    assert all(m.weight is None and is_quantized_layer(m.inner) for m in wrapped)


def test_loading_keeps_no_tensor_it_was_given(saved):
    """Each tensor is quantized, cast or copied, and no reference to it is kept."""
    import gc
    import weakref

    config, folder = saved
    alive: list = []

    def handed_out():
        for name, tensor in files.read_tensors(files.weight_files(folder)):
            copy = tensor.clone()
            alive.append(weakref.ref(copy))
            yield name, copy
            del copy, tensor
            assert sum(ref() is not None for ref in alive) <= 2

    to_ours, _ = huggingface.transformers_names(key_maps.TRANSFORMERS_STAGE2)
    model = empty_quantized_model(config, "int8", "cpu", torch.bfloat16)
    load_tensors(model, handed_out(), device="cpu", dtype=torch.bfloat16, to_ours=to_ours)
    gc.collect()
    assert alive and not any(ref() is not None for ref in alive)


def test_a_layer_of_another_shape_is_named(saved):
    config, folder = saved
    to_ours, to_theirs = huggingface.transformers_names(key_maps.TRANSFORMERS_STAGE2)

    def cut():
        for name, tensor in files.read_tensors(files.weight_files(folder)):
            yield name, tensor[:-1] if name == "language_projection.weight" else tensor

    with pytest.raises(
        ValueError, match=r"of another shape: language_projection.weight \[63, 64\] instead of \[64, 64\]"
    ):
        model = empty_quantized_model(config, "int8", "cpu", torch.bfloat16)
        load_tensors(model, cut(), device="cpu", dtype=torch.bfloat16, to_ours=to_ours, to_theirs=to_theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dtype="int3"), "dtype='int3' is unknown"),
        (dict(device="gpu0"), "device='gpu0' is unknown"),
        (dict(quantize="8bit"), "quantize='8bit' is unknown"),
    ],
)
def test_wrong_options_are_one_sentence(saved, options, message):
    with pytest.raises(ValueError, match=message):
        load.load(saved[1], **options)


@pytest.mark.parametrize("device", ["cuda:99", "xpu:99", "meta"])
def test_an_unavailable_device_raises(saved, device):
    with pytest.raises(ValueError, match=f"no device {device} here .*; take --device cpu") as caught:
        load.load(saved[1], device=device)
    assert "\n" not in str(caught.value)


def test_none_means_none(saved):
    model = load.load(saved[1], quantize="none")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_another_dtype_of_the_model_leaves_the_scale_as_it_is():
    """`half()` and `float()` of a whole model: torch's kernel takes bfloat16 alone."""
    _, layer = small_linear()
    x, whole = torch.randn(2, layer.in_features), dequantized(layer)
    before = layer(x)
    for cast in (layer.half, layer.float, lambda: layer.to(torch.float64)):
        cast()
        assert layer.scale.dtype == torch.bfloat16
        assert torch.equal(dequantized(layer), whole)
        torch.testing.assert_close(layer(x), before, atol=1e-3, rtol=1e-3)
