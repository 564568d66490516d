"""Every attention map of any pass, caught while it is computed.

What is unusual about it:

* Nobody passes a flag. A hook on the `softmax` of our own attention makes it leave its fused kernel; transformers'
  attentions (image encoder, language model, its own Q-Former) are switched to "eager" and give their weights back.
* When the block ends, also by an error, everything is as it was: no hook is left, each part has its kernel again. The
  outputs inside the block are those outside it, up to rounding (tested).
* A map knows where it comes from: part, kind, layer, and the number of the call. Call 0 may be ITC's query pass and
  call 1 ITM's; in generation every token is a call.
* It sees the passes of its own thread: a chat that goes on beside it is not recorded. A second recording waits.
* With `gradients=True` maps stay in the graph; `maps.differentiate(score)` tells how a score hangs on each weight.

    with record_attention(model) as maps:
        model.generate("boat.png", "Question: what color is the boat? Short answer:")
    maps.stack("qformer", "cross")                  # [layers, B, H, Q, N]: where the queries look
    maps.steps("language_decoder", "cross")         # [layers, B, H, answer tokens, Q + P]: what each word reads

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

PARTS = ("image_encoder", "qformer", "stage1", "language_encoder", "language_decoder")
KINDS = ("self", "cross")

#: transformers' attention classes and the part they belong to; the weights are the last thing each of them returns.
TRANSFORMERS = {
    "Blip2Attention": "image_encoder",
    "CLIPAttention": "image_encoder",
    "Blip2QFormerMultiHeadAttention": "qformer",
    "T5Attention": "language_encoder",  # or decoder: it knows itself
    "OPTAttention": "language_decoder",
}

#: Two recordings at once, in two threads, would give each other's kernels back too early.
_ONE_AT_A_TIME = threading.RLock()


@dataclass
class AttentionMap:
    """One attention of one call: `weights` [B, H, L, M], row i reads column j. `gradient`: of the score, same shape."""

    part: str  #: one of `PARTS`; "stage1" is the Q-Former of a Stage2Model's guest
    kind: str  #: "self" or "cross"
    layer: int
    call: int  #: 0 for the first time this layer ran, then 1, …
    weights: Tensor
    gradient: Tensor | None = None


class AttentionMaps(Sequence[AttentionMap]):
    """What was recorded, in the order in which it happened."""

    def __init__(self) -> None:
        self._maps: list[AttentionMap] = []

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index):
        return self._maps[index]

    def select(
        self, part: str | None = None, kind: str | None = None, *, layer: int | None = None, call: int | None = None
    ) -> list[AttentionMap]:
        """The maps that fit, all for None. `call=-1` is each layer's last call."""
        for value, known in ((part, PARTS), (kind, KINDS)):
            if value is not None and value not in known:
                raise ValueError(f"{value!r} is unknown; choose one of {', '.join(known)}.")
        chosen = [m for m in self if part in (None, m.part) and kind in (None, m.kind) and layer in (None, m.layer)]
        if call is not None and call < 0:
            calls = {(m.part, m.kind, m.layer): m.call + 1 for m in chosen}
            return [m for m in chosen if m.call == calls[m.part, m.kind, m.layer] + call]
        return [m for m in chosen if call in (None, m.call)]

    def stack(self, part: str, kind: str, *, call: int = -1) -> Tensor:
        """The maps of one call, layer upon layer: [layers, B, H, L, M]."""
        return torch.stack([m.weights for m in self._some(part, kind, call)])

    def steps(self, part: str, kind: str) -> Tensor:
        """The rows of all calls one below the other, as in generation: [layers, B, H, rows of all calls, M].

        Keys that a call did not have yet (a later token's) are zeros.
        """
        layers: dict[int, list[Tensor]] = {}
        for found in self._some(part, kind, None):
            layers.setdefault(found.layer, []).append(found.weights)
        width = max(weights.shape[-1] for calls in layers.values() for weights in calls)
        rows = [[F.pad(weights, (0, width - weights.shape[-1])) for weights in calls] for calls in layers.values()]
        return torch.stack([torch.cat(calls, dim=-2) for calls in rows])

    def differentiate(self, score: Tensor) -> None:
        """Fill `gradient` of every map with d score / d weights; zeros where the score does not depend on a map.

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

    model      a Stage2Model (with its guest `stage1`, if it has one), a Stage1Model, a part of one, or transformers'
               own Blip2 model
    parts      what to watch; the rest keeps its fused kernels
    gradients  keep the maps in the graph, for `maps.differentiate(score)`
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"There is no part {part!r}; choose from {', '.join(PARTS)}.")
    watched = [(module, *where) for module, *where in attentions(model) if where[0] in parts]
    if not watched:
        raise ValueError(
            f"A {type(model).__name__} has no attention in {', '.join(parts)}: there is nothing to record."
        )
    maps = AttentionMaps()
    with _ONE_AT_A_TIME, ExitStack() as undo:
        for configuration in _configurations(module for module, *_ in watched):
            undo.callback(_set_kernel, configuration, configuration._attn_implementation)
            _set_kernel(configuration, "eager")
        for module, part, kind, layer in watched:
            recorder = _Recorder(maps, part, kind, layer, gradients)
            ours = isinstance(module, MultiHeadAttention)
            undo.callback((module.softmax if ours else module).register_forward_hook(recorder).remove)
            if gradients and not ours:
                undo.callback(module.register_forward_pre_hook(_begin_graph, with_kwargs=True).remove)
        yield maps


def attentions(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, int]]:
    """Every attention of a model -> (module, part, kind, layer), each module once."""
    seen: set[int] = set()
    guest = getattr(model, "stage1", None)
    guests = {id(module) for module in guest.modules()} if guest is not None else set()
    for name, module in [*model.named_modules(), *(guest.named_modules() if guest is not None else ())]:
        if id(module) in seen:
            continue
        seen.add(id(module))
        numbers = re.findall(r"\.(\d+)\.", f".{name}.")
        layer = int(numbers[0]) if numbers else 0
        if isinstance(module, MultiHeadAttention):
            kind = "cross" if name.endswith("cross_attention") else "self"
            yield module, "stage1" if id(module) in guests else "qformer", kind, layer
        elif type(module).__name__ in TRANSFORMERS:
            part = TRANSFORMERS[type(module).__name__]
            if part == "language_encoder" and module.is_decoder:
                part = "language_decoder"
            cross = "EncDecAttention" in name or "crossattention" in name
            yield module, part, "cross" if cross else "self", layer


class _Recorder:
    """The hook on one attention."""

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
            replaced = weights = weights.detach().requires_grad_()  # nothing before it learns: the graph begins here
        self.maps._maps.append(AttentionMap(*self.where, self.calls, weights))
        self.calls += 1
        return replaced


def _begin_graph(module: nn.Module, args: tuple, kwargs: dict) -> None:
    """A frozen encoder fed with pixels has no graph; let one begin where its first attention reads."""
    hidden = args[0] if args else kwargs["hidden_states"]
    if torch.is_grad_enabled() and not hidden.requires_grad:
        hidden.requires_grad_()


def _configurations(modules: Iterator[nn.Module]) -> list:
    """The configurations that say which kernel transformers' attentions use, each once."""
    return list({id(m.config): m.config for m in modules if not isinstance(m, MultiHeadAttention)}.values())


def _set_kernel(configuration, name: str | None) -> None:
    # transformers' own setter goes on to all sub-configurations, also those that are not watched
    configuration._attn_implementation_internal = name
