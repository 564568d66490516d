"""From a recipe to its task: a T5 that starts from a trained one."""

import pytest
import torch

from blip2_lab.training import builders
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import override


def test_a_t5_goes_on_from_a_trained_one(tmp_path):
    recipe = get("micro-flan-t5")
    started = builders.build_task(override(recipe, "model.start="), tmp_path)
    with torch.no_grad():
        started.model.shared.weight.mul_(2)
    started.save(tmp_path / "micro-t5" / "model")
    task = builders.build_task(recipe, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(task.model.parameters(), started.model.parameters(), strict=True))
    with pytest.raises(ValueError, match="another size or vocabulary"):
        builders.build_task(override(recipe, "model.size=M"), tmp_path)
    with pytest.raises(ValueError, match="is for a T5"):
        builders.build_task(override(get("micro-bert"), "model.start=micro-t5"), tmp_path)


def test_a_t5_of_as_many_other_words_is_refused(tmp_path):
    started = builders.build_task(override(get("micro-flan-t5"), "model.start="), tmp_path)
    started.save(tmp_path / "micro-t5" / "model")
    file = tmp_path / "micro-t5" / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace("▁under", "▁wonderful").replace("▁wonderful", "▁under", 1))
    with pytest.raises(ValueError, match="another size or vocabulary"):
        builders.build_task(get("micro-flan-t5"), tmp_path)
