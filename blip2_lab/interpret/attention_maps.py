"""Record the attention maps of any forward pass.

`record_attention` is where to begin.

    with record_attention(model) as maps:
        model.generate("boat.png", "Question: what color is the boat? Short answer:")
    maps.stack("qformer", "cross")                  # [layers, B, H, Q, N]: what the queries read
    maps.steps("language_decoder", "cross")         # [layers, B, H, answer tokens, Q + P]: what each token reads

Notes:

* The models need no flag. A forward hook on the `softmax` module of this package's attention selects the eager path;
  transformers' attentions (image encoder, language model, its own Q-Former) are switched to "eager", which returns the
  weights.
* At the end of the block, also after an error, hooks are removed and kernels restored. The outputs inside the block are
  equal to those outside, up to rounding (tested).
* A map stores its part, kind, layer and the number of the call. For example, call 0 is ITC's query pass and call 1
  ITM's; in generation, each token is a call.
* Only passes of the same thread are recorded, so a chat in another thread is not. A second recording waits.
* With `gradients=True` the maps stay in the graph; `maps.differentiate(score)` computes the gradient of a score with
  respect to each weight.

Paper: section 3.1, Figure 2. Notebook: 09.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.attention import MultiHeadAttention

PARTS = ("image_encoder", "qformer", "stage1", "bridge", "resampler", "language_encoder", "language_decoder")
KINDS = ("self", "cross")

#: transformers' attention classes -> their part; the weights are the last output of each of them.
TRANSFORMERS = {
    "Blip2Attention": "image_encoder",
    "CLIPAttention": "image_encoder",
    "Blip2QFormerMultiHeadAttention": "qformer",
    "T5Attention": "language_encoder",  # or decoder, see `attentions`
    "OPTAttention": "language_decoder",
    "LlamaAttention": "language_decoder",
}

#: Of two simultaneous recordings, the first to end would restore the kernels of the other.
_RECORDING_LOCK = threading.RLock()


@dataclass
class AttentionMap:
    """The attention of one layer in one call: `weights` [B, H, L, M], row i reads column j. `gradient` of a score: same
    shape."""

    #: one of `PARTS`; "stage1" is the Q-Former of the stage-1 model attached to a Stage2Model, "bridge" gated
    #: cross-attention, with the language model's tokens as rows, and "resampler" its latents
    part: str
    kind: str  #: "self" or "cross"
    layer: int
    call: int  #: 0 for the first time this layer ran, then 1, …
    weights: Tensor
    gradient: Tensor | None = None


class AttentionMaps(Sequence[AttentionMap]):
    """The recorded maps, in the order of computation."""

    def __init__(self) -> None:
        self._maps: list[AttentionMap] = []

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index):
        return self._maps[index]

    def select(
        self, part: str | None = None, kind: str | None = None, *, layer: int | None = None, call: int | None = None
    ) -> list[AttentionMap]:
        """The maps with these properties; None means any. `call=-1` is the last call of each layer."""
        for value, known in ((part, PARTS), (kind, KINDS)):
            if value is not None and value not in known:
                raise ValueError(f"{value!r} is unknown; choose one of {', '.join(known)}.")
        chosen = [m for m in self if part in (None, m.part) and kind in (None, m.kind) and layer in (None, m.layer)]
        if call is not None and call < 0:
            calls = {(m.part, m.kind, m.layer): m.call + 1 for m in chosen}
            return [m for m in chosen if m.call == calls[m.part, m.kind, m.layer] + call]
        return [m for m in chosen if call in (None, m.call)]

    def stack(self, part: str, kind: str, *, call: int = -1) -> Tensor:
        """The maps of one call, stacked over layers: [layers, B, H, L, M]."""
        return torch.stack([m.weights for m in self._some(part, kind, call)])

    def steps(self, part: str, kind: str) -> Tensor:
        """The rows of all calls concatenated, as in generation: [layers, B, H, rows of all calls, M].

        Columns of keys that a call does not have yet (later tokens) are zeros.
        """
        layers: dict[int, list[Tensor]] = {}
        for found in self._some(part, kind, None):
            layers.setdefault(found.layer, []).append(found.weights)
        width = max(weights.shape[-1] for calls in layers.values() for weights in calls)
        rows = [[F.pad(weights, (0, width - weights.shape[-1])) for weights in calls] for calls in layers.values()]
        return torch.stack([torch.cat(calls, dim=-2) for calls in rows])

    def differentiate(self, score: Tensor) -> None:
        """Set `gradient` of every map to d score / d weights; zeros if the score does not depend on a map.

        score  a single number, computed inside the block of `record_attention(…, gradients=True)`
        """
        weights = [m.weights for m in self]
        if not score.requires_grad or not all(w.requires_grad for w in weights):
            raise ValueError(
                "There is no gradient to take: record with gradients=True, and not under torch.no_grad() "
                "(generate, stream and encode_image are; use the model's visual_prompt and losses)."
            )
        gradients = torch.autograd.grad(score, weights, allow_unused=True)
        for found, gradient in zip(self, gradients, strict=True):
            found.gradient = torch.zeros_like(found.weights) if gradient is None else gradient

    def _some(self, part: str, kind: str, call: int | None) -> list[AttentionMap]:
        found = self.select(part, kind, call=call)
        if not found:
            seen = sorted({f"{m.part} {m.kind}" for m in self}) or ["nothing"]
            raise ValueError(f"No {kind}-attention of {part} was recorded; there is {', '.join(seen)}.")
        return found


@contextmanager
def record_attention(
    model: nn.Module, *, parts: Sequence[str] = PARTS, gradients: bool = False
) -> Iterator[AttentionMaps]:
    """Record every attention map of every pass inside the block.

    model      a Stage2Model (with its attached `stage1`, if any), a Stage1Model, a module of one, or transformers'
               Blip2 model
    parts      what to record; all others keep their fused kernels
    gradients  keep the maps in the graph, for `maps.differentiate(score)`
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"There is no part {part!r}; choose from {', '.join(PARTS)}.")
    recorded = [(module, *where) for module, *where in attentions(model) if where[0] in parts]
    if not recorded:
        raise ValueError(
            f"A {type(model).__name__} has no attention in {', '.join(parts)}: there is nothing to record."
        )
    maps = AttentionMaps()
    with _RECORDING_LOCK, ExitStack() as undo:
        for configuration in _configurations(module for module, *_ in recorded):
            undo.callback(_set_kernel, configuration, configuration._attn_implementation)
            _set_kernel(configuration, "eager")
        for module, part, kind, layer in recorded:
            recorder = _Recorder(maps, part, kind, layer, gradients)
            ours = isinstance(module, MultiHeadAttention)
            undo.callback((module.softmax if ours else module).register_forward_hook(recorder).remove)
            if gradients and not ours:
                undo.callback(module.register_forward_pre_hook(_start_graph, with_kwargs=True).remove)
        yield maps


def attentions(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, int]]:
    """Every attention module of a model, once -> (module, part, kind, layer)."""
    seen: set[int] = set()
    stage1 = getattr(model, "stage1", None)
    of_stage1 = {id(module) for module in stage1.modules()} if stage1 is not None else set()
    for name, module in [*model.named_modules(), *(stage1.named_modules() if stage1 is not None else ())]:
        if id(module) in seen:
            continue
        seen.add(id(module))
        numbers = re.findall(r"\.(\d+)\.", f".{name}.")
        layer = int(numbers[0]) if numbers else 0
        if isinstance(module, MultiHeadAttention):
            kind = "cross" if name.endswith("cross_attention") else "self"
            yield module, "stage1" if id(module) in of_stage1 else _part_of(name), kind, layer
        elif type(module).__name__ in TRANSFORMERS:
            part = TRANSFORMERS[type(module).__name__]
            if part == "language_encoder" and module.is_decoder:
                part = "language_decoder"
            cross = "EncDecAttention" in name or "crossattention" in name
            yield module, part, "cross" if cross else "self", layer


def _part_of(name: str) -> str:
    """The part of an attention of this package, by its module's name."""
    if "resampler." in name:
        return "resampler"
    return "bridge" if re.search(r"(^|\.)blocks\.\d+\.", name) else "qformer"


class _Recorder:
    """The forward hook of one attention."""

    def __init__(self, maps: AttentionMaps, part: str, kind: str, layer: int, gradients: bool) -> None:
        self.maps, self.where, self.gradients, self.calls = maps, (part, kind, layer), gradients, 0
        self.thread = threading.get_ident()

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | None:
        if threading.get_ident() != self.thread:
            return None
        ours = isinstance(output, Tensor)
        weights = output if ours else output[-1]
        replaced = None
        if not self.gradients:
            weights = weights.detach()
        elif ours and torch.is_grad_enabled() and not weights.requires_grad:
            replaced = weights = (
                weights.detach().requires_grad_()
            )  # no trainable tensor before it: the graph starts here
        self.maps._maps.append(AttentionMap(*self.where, self.calls, weights))
        self.calls += 1
        return replaced


def _start_graph(module: nn.Module, args: tuple, kwargs: dict | None = None) -> None:
    """Start a graph at the input of the first attention: a frozen encoder has none, and pixels have no gradient."""
    if not torch.is_grad_enabled():  # a chat in another thread too; torch (2.11) may call it without `kwargs` there
        return
    hidden = args[0] if args else kwargs["hidden_states"]
    if not hidden.requires_grad:
        hidden.requires_grad_()


def _configurations(modules: Iterator[nn.Module]) -> list:
    """The configurations that select the kernel of transformers' attentions, each once."""
    return list({id(m.config): m.config for m in modules if not isinstance(m, MultiHeadAttention)}.values())


def _set_kernel(configuration, name: str | None) -> None:
    # transformers' own setter also changes sub-configurations, including those of parts that are not recorded
    configuration._attn_implementation_internal = name
