"""The golden numbers of LAVIS's Blip2Qformer, for the tests that compare with it (what each is: golden/README.md)."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from blip2_lab.checkpoints.key_maps import LAVIS_STAGE1, from_lavis, rename_keys, reverse
from blip2_lab.models.stage1 import Stage1Model

GOLDEN = Path(__file__).parent / "golden"
ATOL = 2e-5  # hidden states, logits, losses
RTOL_GRADIENT = 1e-4  # norms of gradients


@cache
def numbers() -> dict:
    return json.loads((GOLDEN / "lavis_tiny.json").read_text())


@cache
def two_ranks() -> dict:
    return json.loads((GOLDEN / "lavis_tiny_2rank.json").read_text())


@cache
def tensors() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "lavis_tiny_io.safetensors")


@cache
def weights() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "lavis_tiny_weights.safetensors")


def model(**config) -> Stage1Model:
    """LAVIS's weights in our model; `config` changes fields of its Stage1Config."""
    stage1 = from_lavis(weights(), num_attention_heads=4, sep_token_id=7)
    for name, value in config.items():
        assert hasattr(stage1.config, name)
        setattr(stage1.config, name, value)
    return stage1


def batch(rows: slice = slice(None)) -> dict:
    """What `Stage1Model.losses` takes, with the negatives that LAVIS drew."""
    io = tensors()
    return {
        "image_features": io["in.image_features"][rows],
        "input_ids": io["in.input_ids"][rows],
        "attention_mask": io["in.attention_mask"][rows],
        "negatives": (io["in.neg_image_index"][rows], io["in.neg_text_index"][rows]),
    }


def gradients(stage1: Stage1Model) -> dict[str, torch.Tensor]:
    """The parameters' gradients under LAVIS's names; zeros where there is none."""
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in stage1.named_parameters()}
    return rename_keys(grads, reverse(LAVIS_STAGE1))


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


def assert_norms(grads: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    """Norms as the reference's, for every parameter it names; key biases have an exact gradient of 0, ours noise."""
    assert expected and grads.keys() >= expected.keys()
    wrong = {
        name: (norm, expected[name])
        for name in expected
        if not abs((norm := grads[name].double().norm().item()) - expected[name])  # NaN is wrong, too
        <= RTOL_GRADIENT * expected[name] + 1e-6
    }
    assert not wrong, f"norms of gradients that differ (ours, LAVIS's): {wrong}"
