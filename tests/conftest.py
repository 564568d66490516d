"""Fixtures of all tests: a whole BLIP-2 with random weights, once a session."""

from __future__ import annotations

import pytest

from blip2_lab.models.stage2 import with_text
from tests.tiny import build_tiny_model, loud


@pytest.fixture(scope="session")
def tiny_model():
    """A whole BLIP-2 with random weights (encoder-decoder language model), stage 1 included."""
    return build_tiny_model("t5")


@pytest.fixture(scope="session")
def tiny_decoder_model():
    """The same with a decoder language model."""
    return build_tiny_model("opt")


@pytest.fixture(scope="session")
def asking_model():
    """A whole BLIP-2 whose Q-Former reads the question (Figure 7), with weights that let the answer depend on it."""
    plain = build_tiny_model("t5")
    loud(plain, plain.stage1)
    return with_text(plain, plain.stage1)
