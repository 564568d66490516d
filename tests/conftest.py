"""Fixtures of all tests: a whole BLIP-2 with random weights, once a session."""

from __future__ import annotations

import pytest

from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model():
    """A whole BLIP-2 with random weights (encoder-decoder language model), stage 1 included."""
    return build_tiny_model("t5")


@pytest.fixture(scope="session")
def tiny_decoder_model():
    """The same with a decoder language model."""
    return build_tiny_model("opt")
