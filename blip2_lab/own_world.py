"""A world of your own: a whole miniature from a folder of pictures with captions, and what it can do.

`recipes_for` and `report` are where to begin; between them `training/pipeline.py` trains and `export.py` exports, as
`blip2-lab train own --on FOLDER` does.

Notes:

* The report measures the exported model on the pictures that no part was trained on, beside chance and shuffled
  pictures (evaluation/own_pictures.py). Each part keeps the weights that are best on these same pictures, so the
  numbers may be better than on others.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from blip2_lab.checkpoints.load import load
from blip2_lab.data.composites import ABOUT as COMPOSITES
from blip2_lab.data.mixture import is_stream, open_sources
from blip2_lab.evaluation.own_pictures import Drawn, evaluate_on, own_table
from blip2_lab.training.batches import open_batches
from blip2_lab.training.recipes.own import scaled
from blip2_lab.training.recipes.registry import get, with_settings
from blip2_lab.training.recipes.schema import OwnTextData, Recipe
from blip2_lab.training.tasks.own_parts import read_texts

NAMED_PARTS = ("image_encoder", "bert", "language_model", "stage1", "start")  #: settings that name a trained part
REPORT, NUMBERS = "report.md", "report.json"  #: in the folder of the world


def recipes_for(place: str, changes: Sequence[str], others: Path = Path("runs")) -> list[Recipe]:
    """The recipes of the world of `place`, with steps for its number of pictures, and with settings changed.

    A part that is named as a run in `others`, the folder beside which the world has its own, is that run.

    Raises ValueError for a stream, and for fewer than ten pictures, of which two are held out.
    """
    sources = open_sources(place).sources
    for source in sources:
        if is_stream(source):
            raise ValueError(f"{source.name} is a stream, whose words are not known beforehand: download it first")
    count = sum(map(len, sources))
    if count < 10:
        raise ValueError(f"{place} has {count} pictures; a world needs at least 10, of which a fifth is held out")
    # a crop or a flip makes false what is said of positions; of cut-outs there are as many scenes as one asks for
    whole = dict(crop_scale=(1.0, 1.0), flip=False, cached_views=1) if (Path(place) / COMPOSITES).is_file() else {}

    def prepare(part: Recipe) -> Recipe:
        changed = whole if part.task not in ("vit", "mae") else {}
        return replace(scaled(part, count), data=replace(part.data, path=place, **changed))

    recipes = with_settings(get("own"), changes, prepare=prepare)
    own = {recipe.name for recipe in recipes}

    def found(name: object) -> object:
        is_run = isinstance(name, str) and name not in own and name != "micro" and (others / name / "model").is_dir()
        return str(others / name) if is_run else name

    return [
        replace(recipe, model=replace(recipe.model, **{f.name: found(getattr(recipe.model, f.name)) for f in parts}))
        for recipe in recipes
        for parts in [[f for f in fields(recipe.model) if f.name in NAMED_PARTS]]
    ]


@dataclass(frozen=True)
class Report:
    """The text of a report, and the parts of the model that use the pictures: captions, questions, retrieval; None
    where nothing or too little was held out to find that."""

    text: str
    good: frozenset[str] | None


def report(recipes: Sequence[Recipe], runs_dir: Path, model: Path, say: Callable[[str], None] = print) -> Report:
    """Measure the exported model on the held-out pictures; writes NUMBERS and REPORT."""
    of_texts = next((recipe for recipe in recipes if isinstance(recipe.data, OwnTextData)), None)
    of_pictures = next(recipe for recipe in recipes if recipe.task == "stage2")
    batches = open_batches(of_pictures, runs_dir)
    rows = [(source, number) for source in batches.held_out for number in range(len(source))]
    texts = [f"made from {of_pictures.data.path}: {len(batches.mixture)} pictures, {len(rows)} others held out"]
    numbers: dict = {"pictures": len(batches.mixture), "held_out": len(rows)}
    if of_texts is not None:
        texts.append(_what_was_read(of_texts, of_pictures, runs_dir))
    if len(rows) < 2:
        texts.append("nothing is known of what it can do: no pictures were held out (data.held_out)")
    else:
        numbers |= evaluate_on(load(model), Drawn("held-out pictures", rows, len(rows)), say=say)
        texts.append(own_table(numbers))
    text = "\n\n".join(texts) + "\n"
    (runs_dir / NUMBERS).write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (runs_dir / REPORT).write_text(text, encoding="utf-8")
    return Report(text, parts_that_use_pictures(numbers.get("conclusions", [])))


def parts_that_use_pictures(conclusions: Sequence[dict]) -> frozenset[str] | None:
    """The parts of which `conclusions` says so; None where nothing could be concluded of any part."""
    good = frozenset(one["part"] for one in conclusions if one["uses_pictures"])
    return None if all(one["uses_pictures"] is None for one in conclusions) else good


def _what_was_read(of_texts: Recipe, of_pictures: Recipe, runs_dir: Path) -> str:
    """What the language model has read, and what it can therefore answer."""
    if of_pictures.model.language_model not in ("own-t5", "own-opt"):
        return f"the language model is {of_pictures.model.language_model}: its own card says what it can answer"
    read = read_texts(open_batches(of_texts, runs_dir))
    parts = [f"{len(read.captions)} captions"]
    parts += [f"{len(read.questions)} questions with their answers and captions"] if read.questions else []
    parts += [f"{len(read.passages)} passages of {of_texts.data.text_file}"] if read.passages else []
    says = f"the language model has read {', '.join(parts)}, and nothing else"
    if read.questions:
        return f"{says}; it has learned to answer questions of these kinds from a caption in place of the picture"
    return f"{says}; it can write captions, but it has never read a question, so it cannot be expected to answer one"
