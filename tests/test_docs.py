"""The programs in the documentation run as they are printed."""

import re
from pathlib import Path

import pytest
import torch

import blip2_lab
from blip2_lab.data.scenes import PictureBook

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found, page
    return found


def test_the_loops_of_the_page_on_training_run_and_leave_frozen_parts_frozen(tmp_path, monkeypatch, capsys):
    folder, book = tmp_path / "my_pictures", PictureBook(3, "in", 96)
    folder.mkdir()
    for number in range(8):
        book[number].image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(book[number].captions[0])
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    data, stage2, stage1, scores = blocks("training_in_python.md")
    assert max(len(block.strip().splitlines()) for block in (data, stage2, stage1, scores)) <= 30
    exec(data, names)
    model = names["model"]
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    queries = model.qformer.query_tokens.clone()
    exec(stage2, names)
    model.train()
    assert not any(m.training for part in (model.image_encoder, model.language_model) for m in part.modules())
    assert model.qformer.training and not torch.equal(model.qformer.query_tokens, queries)
    before = model.stage1.qformer.query_tokens.clone()
    exec(stage1, names)
    assert not torch.equal(model.stage1.qformer.query_tokens, before)
    assert not model.image_encoder.training and all(p.grad is None for p in model.image_encoder.parameters())
    exec(scores, names)
    assert names["image_embeds"].shape[:2] == (2, 16) and len(names["text_embeds"]) == len(names["itc"]) == 2
    still = dict(model.named_parameters())
    parts = ("image_encoder.", "language_model.")
    assert [name for name in frozen if name.startswith(parts)] and all(
        torch.equal(still[name], value) for name, value in frozen.items() if name.startswith(parts)
    )
    assert blip2_lab.load("my_stage1").generate(pixels=torch.zeros(1, 3, 96, 96))
    out = capsys.readouterr().out
    assert "8 pictures, nothing skipped" in out and "the language model knows every word" in out and "itc " in out


def test_the_program_of_the_page_on_own_pictures_makes_a_folder_of_cut_outs(tmp_path, monkeypatch):
    from PIL import Image

    from blip2_lab.data.composites import Composites

    (tmp_path / "stamps" / "fruit").mkdir(parents=True)
    for name, text in (("a", "A zorp.\nca=Un zorp."), ("b", "An ulp.\nca=Un ulp."), ("c", "")):
        image = Image.new("RGBA", (20, 20))
        image.paste("red", (2, 2, 18, 18))
        image.save(tmp_path / "stamps" / "fruit" / f"{name}.png")
        if text:
            (tmp_path / "stamps" / "fruit" / f"{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("own_pictures.md")
    exec(re.sub(r'Path\("/usr[^"]*"\)', 'Path("stamps")', program), {})
    composites = Composites("food")
    assert [cutout.noun for cutout in composites.cutouts] == ["zorp", "ulp"] and not composites.left_out
    assert composites[0].captions


@pytest.mark.parametrize("page", ["training_in_python.md"])
def test_a_page_is_linked(page):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"docs/{page}" in readme
