"""What a misspelt name, or a name of another library, is told."""

import pytest

from blip2_lab.common.console import did_you_mean, explain
from blip2_lab.training.recipes.registry import RECIPES
from blip2_lab.training.recipes.schema import settings


@pytest.mark.parametrize(
    ("other", "meant"),
    [
        ("optim.learning_rate", "optim.lr"),
        ("optim.epochs", "optim.steps"),
        ("optim.fp16", "optim.precision"),
        ("optim.gradient_checkpointing", "optim.checkpoint_layers"),
        ("optim.gradient_accumulation_steps", "optim.accumulate"),
        ("data.num_workers", "data.threads"),
        ("data.img_size", "data.image_size"),
        ("model.max_txt_len", "model.max_text_tokens"),
        ("lora.r", "lora.rank"),
        ("lora_alpha", "lora.alpha"),
        ("optim.stepss", "optim.steps"),
    ],
)
def test_a_setting_by_its_name_in_another_library(other, meant):
    assert did_you_mean(other, settings(RECIPES["micro-captions"])) == f"; did you mean {meant!r}?"


def test_an_error_changes_nothing_on_a_terminal():
    """torch writes colors into its messages, and a name may have any character."""
    assert explain(ValueError("it \x1b[1mis\nwrong")) == "it \\x1b[1mis wrong"
    assert explain(OSError(2, "No such file", "a\x1b[2J.png")) == "a\\x1b[2J.png: No such file"


def test_nothing_is_near():
    assert not did_you_mean("zzzz", ["optim.lr"])
    assert did_you_mean("epochs", ["epoch"]) == "; did you mean 'epoch'?", "no setting of this list is called steps"
