"""Quantization of the frozen models to 8 or 4 bits: which layers, in what form, and their size in bytes.

`quantize_empty_model` replaces linear layers of a model without weights; `quantize_weight` then fills them one by one.

Notes:

* Only linear layers of frozen models are quantized: to 8 bits those of language model and image encoder, to 4 bits
  those of the language model. Embeddings, norms and the Q-Former (1 % of XXL's weights) stay in bfloat16, or the
  Q-Former in float32 where the others are in float16, whose range is too small for it. To train the Q-Former through
  quantized layers, call `model.qformer.float()`.
* On a CUDA device int8 is LLM.int8() by bitsandbytes: outlier columns of the input stay in float16. Elsewhere it is
  `Int8Linear`: int8 weights with a scale for each row, bfloat16 inputs. On a CPU, bitsandbytes' int8 takes many times
  as long as float32. `Int8Linear` is at least as fast as bfloat16 when one token is generated, where the time is that
  of reading the weights (`python -m benchmarks.int8_on_cpu`). For many rows, bfloat16 is faster on a CPU with bfloat16
  matrix instructions, and float32 on one without.
* `int8` does not quantize FlanT5's `wo`: its input has outliers beyond the range of float16, in which LLM.int8()
  computes. transformers keeps `wo` in float32 for the same reason; bfloat16 has float32's range in half the bytes.
  `int8-all` quantizes `wo` and `lm_head` too and saves 2 GiB (XXL). NF4 computes in bfloat16 and quantizes `wo`.

Paper: section 3.4 (frozen models in half precision); LLM.int8() is arXiv 2208.07339, NF4 is 2305.14314. Notebook: 13.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: name -> description, for `--help` and the table of models
METHODS = {
    "int8": "image encoder and language model in 8 bits, but for FlanT5's wo and lm_head",
    "int8-all": "those two as well",
    "nf4": "the language model in 4 bits",
}
OUTLIER_THRESHOLD = 6.0  #: LLM.int8(): input columns with a larger value are multiplied in float16
ROWS_AT_ONCE = 512  #: rows of a weight that are quantized at a time
KERNEL_WIDTH = 16  #: torch's int8 kernel needs widths that are multiples of this; others crash it or give NaN
MAX_INT8_ROWS = 16  #: up to this many rows `Int8Linear` multiplies int8 directly; above, converting weights is faster
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  #: for a weight: 4 bits, the 8-bit scale of its block, the scale of scales


def check_method(method: str | None) -> str | None:
    """None for None and "none"; a known name unchanged. Raises ValueError for any other."""
    if method is None or method == "none":
        return None
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"quantize={method!r} is unknown; choose {', '.join(map(repr, METHODS))} or None.")
    return method


def layers_to_quantize(model: nn.Module, method: str | None) -> dict[str, nn.Linear]:
    """The linear layers that this method quantizes: name in the whole model -> layer."""
    if method is None:
        return {}
    parts = ("language_model.",) if method == "nf4" else ("language_model.", "image_encoder.")
    kept = {"int8": ("wo", "lm_head"), "int8-all": (), "nf4": ("lm_head",)}[method]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(parts)
        and name.rpartition(".")[2] not in kept
        and id(module.weight) not in embeddings  # OPT's tied lm_head: an 8-bit copy would need more memory
    }


class Int8Linear(nn.Module):
    """x [..., K] -> [..., N] with int8 weights [N,K] and one scale for each row (absmax / 127), for CPUs.

    Only the weights are rounded; LLM.int8() rounds the inputs too. Gradients flow to x, not to the weights.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, device: torch.device | str | None = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.empty(out_features, dtype=torch.bfloat16, device=device))
        self.bias = nn.Parameter(torch.empty(out_features, device=device), requires_grad=False) if bias else None

    @torch.no_grad()
    def quantize_weight(self, weight: Tensor) -> None:
        """Quantize weight [N,K]. It is divided by the bfloat16 scale, so rounding the scale adds no error."""
        self.scale = (weight.norm(p=torch.inf, dim=1).float() / 127).clamp(min=1e-12).to(torch.bfloat16)
        self.weight = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        pieces = zip(
            weight.split(ROWS_AT_ONCE), self.scale.split(ROWS_AT_ONCE), self.weight.split(ROWS_AT_ONCE), strict=True
        )
        for float_rows, scale, rows in pieces:  # in pieces: no second float copy of the whole weight
            rows.copy_((float_rows.float() / scale.float()[:, None]).round_().clamp_(-127, 127))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        """`half()`, `float()` and `to(dtype)` leave the scale in bfloat16, which the kernel takes."""
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != scale.dtype:
            self.scale = scale.to(self.scale.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
        needs_gradient = x.requires_grad and torch.is_grad_enabled()
        packed = x.device.type == "cpu" and len(rows) <= MAX_INT8_ROWS and self.in_features % KERNEL_WIDTH == 0
        if packed and not needs_gradient:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(torch.bfloat16)) * self.scale
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class NF4Linear(nn.Module):
    """Wraps the 4-bit layer of T5's `wo`, without a `weight`: T5 would cast the input to its dtype, which is uint8."""

    weight = None

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def quantize_empty_model(model: nn.Module, method: str | None, device: torch.device | str, dtype: torch.dtype) -> None:
    """Replace linear layers of a model on the meta device by quantized ones. `quantize_weight` fills them later."""
    for name, module in layers_to_quantize(model, method).items():
        owner, _, last = name.rpartition(".")
        setattr(
            model.get_submodule(owner),
            last,
            _quantized_layer(module, method, torch.device(device), dtype, last == "wo"),
        )


def _quantized_layer(
    linear: nn.Linear, method: str, device: torch.device, dtype: torch.dtype, is_wo: bool
) -> nn.Module:
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    if method != "nf4" and device.type != "cuda":
        return Int8Linear(*shape, device="meta")
    import bitsandbytes

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it logs one line for each layer and call
    if method != "nf4":
        return bitsandbytes.nn.Linear8bitLt(*shape, has_fp16_weights=False, threshold=OUTLIER_THRESHOLD, device="meta")
    if linear.in_features % 64:
        raise ValueError(
            f"NF4 needs widths that are multiples of 64, and a layer has width {linear.in_features}: take int8."
        )
    options = dict(compute_dtype=dtype, compress_statistics=True, quant_type="nf4", device="meta")
    layer = bitsandbytes.nn.Linear4bit(*shape, **options)
    return NF4Linear(layer) if is_wo else layer


def is_quantized_layer(module: nn.Module) -> bool:
    """Is it one of the three quantized layers? (`NF4Linear` is not; its `inner` layer is.)"""
    return isinstance(module, Int8Linear) or type(module).__name__ in ("Linear8bitLt", "Linear4bit")


def is_quantized(model: nn.Module) -> bool:
    return any(is_quantized_layer(module) for module in model.modules())


def quantize_weight(layer: nn.Module, weight: Tensor, device: torch.device | str) -> None:
    """Quantize a weight [N,K] (any float type) into its layer, on `device`."""
    weight = weight.to(device)
    if isinstance(layer, Int8Linear):
        layer.quantize_weight(weight)
        return
    import bitsandbytes

    if type(layer).__name__ == "Linear8bitLt":
        half = weight.to("cpu", torch.float16).contiguous()  # bitsandbytes quantizes on transfer to the device
        layer.weight = bitsandbytes.nn.Int8Params(half, requires_grad=False, has_fp16_weights=False).to(device)
        return
    half = weight.to("cpu", layer.compute_dtype).contiguous()
    options = dict(requires_grad=False, compress_statistics=True, quant_type="nf4", module=layer)
    layer.weight = bitsandbytes.nn.Params4bit(half, **options).to(device)


def linear_bytes(linear: nn.Linear, method: str) -> int:
    """Bytes of a quantized layer's weights and scales (bitsandbytes' int8 scales are float32, ours bfloat16)."""
    elements = linear.weight.numel()
    return round(elements * NF4_BYTES) if method == "nf4" else elements + 4 * linear.out_features
