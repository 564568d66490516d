"""Checks of notebook 01: the features of a frozen image encoder, and what frozen means.

The functions here are slow and obvious forms of those in models/vision_encoder.py: `ImageEncoder.num_features`,
`drop_last_layer`, `freeze`.

Paper: section 3.4. Notebook: 01.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from blip2_lab.models import vision_encoder
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.errors import guarded
from blip2_lab.teaching.checks.exercise import Case

# --- The number of features -----------------------------------------------------------------------------------------


def count_features(image_size: int, patch_size: int) -> int:
    """N: one feature vector for each patch of a square image, and [CLS]. (`ImageEncoder.num_features`)"""
    return (image_size // patch_size) ** 2 + 1


num_features = Check(
    "num_features",
    count_features,
    lambda: [
        Case(f"a picture of {size} pixels in patches of {patch}", (size, patch))
        for size, patch in ((24, 12), (96, 12), (224, 14), (364, 14))
    ],
    "Right for the micro ViT (96/12), for ViT-g at 224 pixels and for the 364 pixels of fine-tuning.",
    {
        "[CLS] is forgotten: the encoder puts one vector in front of the patches.": lambda s, p: (s // p) ** 2,
        "That is one row of patches. The picture has as many rows as columns.": lambda s, p: s // p + 1,
        "One [CLS] in all, not one for each row.": lambda s, p: (s // p) * (s // p + 1),
        "Patches, not pixels: each patch of pixels becomes a single vector.": lambda s, p: s * s + 1,
        "A division with `/` makes a float; patches are counted with `//`.": lambda s, p: (s / p) ** 2 + 1,
        "Two vectors too many: only one, [CLS], is put in front.": lambda s, p: (s // p) ** 2 + 2,
        "That is the number of pixels in a patch, not the number of patches.": lambda s, p: p * p + 1,
        "Rows and columns of patches are multiplied, not added.": lambda s, p: 2 * (s // p) + 1,
        "Color channels do not count: a patch holds all three.": lambda s, p: 3 * (s // p) ** 2 + 1,
        "[CLS] is subtracted: it is one vector more.": lambda s, p: (s // p) ** 2 - 1,
        "Patches do not overlap: there are s // p in a row, not one for each place.": lambda s, p: (s - p + 1) ** 2 + 1,
        "Both sides are cut into patches: divide the side by p before it is squared.": lambda s, p: s * s // p + 1,
        "One [CLS] in all, not one for each row of a patch's pixels.": lambda s, p: (s // p) ** 2 + p,
        "Upside down: the side is divided by the patch's size.": lambda s, p: (p // s) ** 2 + 1,
        "[CLS] is one vector beside the square of patches, not one patch more in each row.": (
            lambda s, p: (s // p + 1) ** 2
        ),
    },
)


# --- Which layer ----------------------------------------------------------------------------------------------------


def pick_second_to_last(hidden_states: tuple[Tensor, ...]) -> Tensor:
    """(embeddings, after layer 1, ..., after layer n), each [B, N, Dv] -> the output of the second-to-last layer.

    `vision_encoder.drop_last_layer` never computes the last one.
    """
    return hidden_states[-2]


def _layers(count: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    return tuple(torch.randn(2, 5, 3, generator=generator) for _ in range(count + 1))


second_to_last = Check(
    "second_to_last",
    pick_second_to_last,
    lambda: [Case(f"the embeddings and {n} layers", (_layers(n),)) for n in (3, 4, 7)],
    "The output of the layer before the last, all tokens, [CLS] first.",
    {
        "That is the last layer. It was bent to its own pre-training task; one step before, the features say more.": (
            lambda h: h[-1]
        ),
        "One too far: `hidden_states` begins with the embeddings, but its end is the last layer.": lambda h: h[-3],
        "Second from the front. Count from the other end: [-2].": lambda h: h[1],
        "[CLS] is thrown away. BLIP-2 keeps it: N = patches + 1.": lambda h: h[-2][:, 1:],
        "Only [CLS] is left: the Q-Former wants all N vectors.": lambda h: h[-2][:, 0],
        "An average of the last two layers is not the second-to-last one.": lambda h: (h[-1] + h[-2]) / 2,
        "Those are the embeddings, before any layer.": lambda h: h[0],
        "An average of all layers is not the second-to-last one.": lambda h: sum(h) / len(h),
        "Counted from the front: the number of layers differs, so count from the end, [-2].": lambda h: h[2],
        "The second picture is thrown away: keep the whole batch.": lambda h: h[-2][0],
        "The batch has lost a dimension: keep [B, N, Dv].": lambda h: h[-2][:1],
        "An average over the tokens is one vector; the Q-Former wants all N.": lambda h: h[-2].mean(dim=1),
        "The tuple without its last entry is returned: pick one tensor of it.": lambda h: h[:-1],
        "A slice is a tuple; pick the tensor: [-2], not [-2:-1].": lambda h: h[-2:-1],
        "The layer in the middle is not the second-to-last one.": lambda h: h[len(h) // 2],
        "The numbers are changed: no normalization, the features as they are.": (
            lambda h: nn.functional.normalize(h[-2], dim=-1)
        ),
        "The numbers are changed: no LayerNorm here, the features as they are.": (
            lambda h: nn.functional.layer_norm(h[-2], h[-2].shape[-1:])
        ),
        "That is the *number* of a layer; return its output.": lambda h: len(h) - 2,
    },
)

# --- What frozen means ----------------------------------------------------------------------------------------------


def _observe(student: Callable[[nn.Module], object], args: tuple) -> dict[str, bool]:
    """Freeze a module and report what it does in training."""
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    before = part[0].weight.detach().clone()
    returned = student(part)
    return guarded(_trained)(part, before, returned)  # the student may have replaced parts or methods of the module


def _trained(part: nn.Sequential, before: Tensor, returned: object) -> dict[str, bool]:
    """Train a model with the module between two layers for one step, and report what changed."""
    as_before = torch.equal(before, part[0].weight)
    model = nn.Sequential(nn.Linear(3, 3), part, nn.Linear(3, 1))
    in_eval = not (part.training or part[1].training)
    model.train()
    loss = model(torch.ones(2, 3)).sum()
    if loss.requires_grad:
        loss.backward()
        with torch.no_grad():  # a step of gradient descent; torch.optim takes seconds to import
            for weight in model.parameters():
                weight -= 0.1 * (torch.zeros_like(weight) if weight.grad is None else weight.grad)
    gradient = model[0].weight.grad
    return {
        "weights as before your function": as_before,
        "returns the module": returned is part,
        "asks for gradients": any(p.requires_grad for p in part.parameters()),
        "in eval mode": in_eval,
        "still in eval mode after model.train()": not (part.training or part[1].training),
        "gradient passes through to what is below": gradient is not None,
        "weights as before a training step": torch.equal(before, part[0].weight),
    }


def _without_grad(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def _eval_only(module: nn.Module) -> nn.Module:
    return module.eval()


def _eval_once(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False).eval()


def _no_grad(module: nn.Module) -> nn.Module:
    frozen = vision_encoder.freeze(module)
    frozen.forward = torch.no_grad()(frozen.forward)
    return frozen


def _train_without_mode(module: nn.Module) -> nn.Module:
    module.requires_grad_(False).eval().train = lambda: module
    return module


def _frozen_eval_only(module: nn.Module) -> nn.Module:
    module.eval()
    module.train = partial(lambda part, mode=True: part, module)
    return module


def _returns_nothing(module: nn.Module) -> None:
    vision_encoder.freeze(module)


def _what_is_missing(case: Case, got: dict[str, bool], expected: dict[str, bool]) -> str | None:
    """The first promise of a frozen module that is not kept."""
    missing = {
        "weights as before your function": "Your function changes the weights themselves: frozen means as they are.",
        "asks for gradients": "Some of its weights still ask for gradients: requires_grad_(False) for all of them.",
        "in eval mode": "It is not in eval mode after your function: call eval().",
        "gradient passes through to what is below": (
            "No gradient passes *through* it. Frozen weights do not learn, but what stands below them must."
        ),
        "still in eval mode after model.train()": "model.train() switches its dropout on again: eval mode must stay.",
        "weights as before a training step": "Its weights change in a training step.",
        "returns the module": "Return the module itself.",
    }
    return next((message for name, message in missing.items() if got.get(name) != expected[name]), None)


freeze = Check(
    "freeze",
    vision_encoder.freeze,
    lambda: [Case("a linear layer with dropout, inside a model that trains", ())],
    "No gradients, eval mode that stays, the same weights after a training step, and the gradient passes through.",
    {
        "Dropout goes on working: requires_grad_(False) stops gradients, not dropout. Call eval(), too, and before you "
        "put another `train` in its place: eval() calls train(False).": _without_grad,
        "eval() is undone by the next model.train(): it must stay. (LAVIS replaces the module's `train`; the rest of "
        "its language model keeps dropping out.)": _eval_once,
        "eval() stops dropout, not learning: the weights still ask for gradients.": _eval_only,
        "eval() stays, but the weights still ask for gradients and change: requires_grad_(False) for all of "
        "module.parameters(), those of the layers in it, too.": _frozen_eval_only,
        "No gradient passes *through* it. Frozen weights do not learn, but what stands below them must: in stage 2 the "
        "language model teaches the Q-Former.": _no_grad,
        "model.train() calls train(True) of every part: a `train` that you put in its place takes this argument.": (
            _train_without_mode
        ),
        "The module is not changed, only returned.": lambda module: module,
        "That is a copy: the module itself must be frozen and returned.": (
            lambda module: vision_encoder.freeze(copy.deepcopy(module))
        ),
        "It works, but returns nothing. Return the module, so that one can write `encoder = freeze(encoder)`.": (
            _returns_nothing
        ),
    },
    rules=(_what_is_missing,),
    run=_observe,
)
