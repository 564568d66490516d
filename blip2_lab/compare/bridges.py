"""The comparison of bridges: every row trained with several seeds, at equal samples and at equal minutes, and measured.

`compare` is where to begin. `Options` are those of the command:

    blip2-lab compare bridges                                  all rows, three seeds: days on two cores
    blip2-lab compare bridges --bridges linear qformer-stage1 --seeds 2 --steps 500
    blip2-lab compare bridges --smallest                       proves the command: says nothing about bridges
    blip2-lab compare bridges --page-only                      the page of what is measured so far

Notes:

* It goes on where it was killed: a run resumes from its checkpoint, and each finished model is one line of
  `results.jsonl`, which is not measured again.
* Equal minutes: seconds of a step (cost.py) times steps, those of stage 1 included. Without `minutes` they are what
  BLIP-2's two stages need for `steps`, or, without that row, the slowest row. Features are computed before, and are
  not counted.
* The frozen models are those in the folder of runs; missing ones are trained first, or taken out of a whole model
  (`frozen`).
* Results belong to the frozen models and to the questions that they were measured with; others need another folder.

Paper: Figure 5, section 4.1. Notebook: 16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType

import torch

from blip2_lab.checkpoints.files import weight_files
from blip2_lab.checkpoints.load import load
from blip2_lab.common.files import write_atomically
from blip2_lab.compare.cost import training_cost
from blip2_lab.compare.rows import BRIDGES, LANGUAGE_MODELS, REFERENCE, ROWS, check_rows, default_steps, recipes_of
from blip2_lab.evaluation.bridges import Exam, measure, text_perplexity
from blip2_lab.models.stage2 import Stage2Model
from blip2_lab.training import pipeline
from blip2_lab.training.loading import hf_logging_off, load_language_model
from blip2_lab.training.recipes.registry import RECIPES, get, needs
from blip2_lab.training.recipes.schema import Recipe, override, settings
from blip2_lab.training.run_folder import read_log

RESULTS = "results.jsonl"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is compared, and how.

    bridges         rows, names of `rows.ROWS`; those of `rows.BRIDGES` if none are named
    seeds           how many: each row is trained with the seeds 0, 1, …, which draw weights and batches
    steps           of every row at equal samples; None: those of the recipes of BLIP-2's two stages together
    minutes         of training of every row at equal minutes; None: those that BLIP-2 needs for `steps`
    changes         settings of the recipes, as `optim.batch_size=16`
    language_model  of every row that answers: one of `rows.LANGUAGE_MODELS`
    frozen          a whole model whose image encoder and language model are taken, as "micro"; "": those of the runs
    part_steps      of frozen models that are missing; None: as their recipes say
    """

    bridges: Sequence[str] = BRIDGES
    seeds: int = 3
    steps: int | None = None
    minutes: float | None = None
    changes: Sequence[str] = ()
    language_model: str = LANGUAGE_MODELS[0]
    frozen: str = ""
    part_steps: int | None = None
    exam: Exam = Exam()

    def __post_init__(self) -> None:
        object.__setattr__(self, "bridges", check_rows(self.bridges))
        object.__setattr__(self, "steps", default_steps() if self.steps is None else self.steps)
        if not self.bridges or self.seeds < 1:
            raise ValueError("a comparison needs at least one bridge and one seed")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"the minutes are {self.minutes:g}; they must be above 0")
        if self.language_model not in LANGUAGE_MODELS:
            known = ", ".join(LANGUAGE_MODELS)
            raise ValueError(f"{self.language_model!r} is no language model of a comparison; known are {known}")
        for row in self.bridges:  # settings and steps that do not fit are said before anything is trained
            recipes = recipes_of(row, self.steps, 0)
            for change in self.changes:
                key = change.partition("=")[0].strip()
                if key == "optim.steps":
                    raise ValueError("the steps of a comparison are those of all phases together: --steps")
                for recipe in [one for one in recipes if key in settings(one)] or recipes[-1:]:
                    override(recipe, change)  # raises for an unknown setting, and for a wrong value


#: The smallest comparison: a few steps of a row of each kind, with the frozen models of the shipped model. It proves
#: that the command works, and says nothing about bridges.
SMALLEST = dict(
    bridges=("linear-pooled", "qformer-stage1", "gated", "dual-encoder"),
    seeds=2,
    steps=4,
    changes=("optim.batch_size=16", "data.scenes=64", "data.held_out=2"),
    frozen="micro",
    part_steps=2,
)
SMALLEST_EXAM = dict(scenes=2, ranked=2, costed=1, texts=4)


# ------------------------------------------------------------------------------------------------------------ results


class Results:
    """The lines of `results.jsonl`: records that a key of some of their fields identifies."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.records: list[dict] = []
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                self.records.append(json.loads(line))
            except json.JSONDecodeError:
                raise ValueError(
                    f"{file}, line {number}, is no JSON: remove the line, and it is measured again"
                ) from None

    def find(self, **key: object) -> dict | None:
        return next((one for one in self.records if key.items() <= one.items()), None)

    def add(self, record: dict) -> dict:
        """Store a record; the file has all of its lines or those before."""
        self.records.append(record)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in self.records)
        write_atomically(self.file, text)
        return json.loads(json.dumps(record))


# ---------------------------------------------------------------------------------------------------- the comparison


def stored(options: Options, out: Path) -> tuple[Options, Results]:
    """What is measured so far, for a page: the options without rows that have no result yet, and the results.

    Raises ValueError if there is no result, or if they were measured under other conditions.
    """
    results = Results(out / RESULTS)
    measured = [row for row in options.bridges if results.find(kind="model", row=row, steps=options.steps)]
    if not measured:
        raise ValueError(
            f"{results.file} has no result of {options.steps:,} steps of the bridges asked for: without --page-only "
            "the command trains them"
        )
    check_conditions(options, results)
    return replace(options, bridges=measured), results


def compare(options: Options, runs_dir: Path, out: Path, say: Say = print, progress: bool = True) -> Results:
    """Train and measure what is not in `out/results.jsonl` yet. Returns all results.

    Raises ValueError if the results there were measured with other frozen models or other questions.
    """
    results = Results(out / RESULTS)
    _frozen_models(options, runs_dir, results, say, progress)
    for seed in range(options.seeds):
        for row in options.bridges:
            _cell(options, row, options.steps, seed, runs_dir, results, say, progress)
    minutes = equal_minutes(options, results)
    for seed in range(options.seeds):
        for row in options.bridges:
            steps = steps_in(minutes, options, row, results)
            _cell(options, row, steps, seed, runs_dir, results, say, progress)
    return results


def equal_minutes(options: Options, results: Results) -> float:
    """The minutes of training that every row gets."""
    if options.minutes is not None:
        return options.minutes
    rows = [REFERENCE] if REFERENCE in options.bridges else options.bridges
    return max(_minutes_of(options, row, results) for row in rows)


def _minutes_of(options: Options, row: str, results: Results) -> float:
    """Minutes of training at equal samples."""
    phases = results.find(kind="cost", row=row)["phases"]
    recipes = recipes_of(row, options.steps, 0)
    return sum(recipe.optim.steps * phase["seconds"] for recipe, phase in zip(recipes, phases, strict=True)) / 60


def steps_in(minutes: float, options: Options, row: str, results: Results) -> int:
    """Steps of a row, all phases together, in so many minutes; at least one a phase."""
    rate = _minutes_of(options, row, results) / options.steps
    return max(len(ROWS[row].phases), round(minutes / rate))


def _cell(
    options: Options, row: str, steps: int, seed: int, runs_dir: Path, results: Results, say: Say, progress: bool
) -> None:
    """One row with one number of steps and one seed: trained and measured, unless its result is there."""
    if results.find(kind="model", row=row, steps=steps, seed=seed):
        return
    recipes = recipes_of(row, steps, seed, options.changes, options.language_model)
    say(f"{ROWS[row].title}, seed {seed}: {steps} steps")
    pipeline.run(recipes, runs_dir, jobs=1, progress=progress)  # one at a time: minutes are compared
    if results.find(kind="cost", row=row) is None:
        say(f"{ROWS[row].title}: what a step costs")
        phases = [training_cost(recipe, runs_dir) for recipe in recipes]
        results.add({"kind": "cost", "row": row, "threads": torch.get_num_threads(), "phases": phases})
    with hf_logging_off():
        model = load(runs_dir / recipes[-1].name / "model")
    found = measure(model, options.exam, say=lambda what: say(f"  {what}"))
    training = [_trained(recipe, runs_dir) for recipe in recipes]
    results.add({"kind": "model", "row": row, "steps": steps, "seed": seed, "training": training, **found})


def _trained(recipe: Recipe, runs_dir: Path) -> dict:
    """What a phase was: its recipe's name, steps, pictures read, and seconds on the wall."""
    optim = recipe.optim
    log = [record for record in read_log(runs_dir / recipe.name) if "seconds" in record]
    samples = optim.steps * optim.batch_size
    return {"run": recipe.name, "steps": optim.steps, "samples": samples, "seconds": log[-1]["seconds"]}


# ------------------------------------------------------------------------------------------------- the frozen models


def _frozen_models(options: Options, runs_dir: Path, results: Results, say: Say, progress: bool) -> None:
    """The frozen models of all rows in `runs_dir`: taken out of a whole model, or trained, where they are missing.
    Stores what they are, or raises ValueError if the results were measured with others, or on other questions."""
    recipes = [
        recipe
        for row in options.bridges
        for recipe in recipes_of(row, options.steps, 0, language_model=options.language_model)
    ]
    names = dict.fromkeys(name for recipe in recipes for name in needs(recipe))
    if options.frozen:
        _take_out(options.frozen, [name for name in names if not (runs_dir / name / "model").is_dir()], runs_dir)
    missing = _missing(names, runs_dir)
    if missing:
        say(f"frozen models that are missing in {runs_dir}: {', '.join(recipe.name for recipe in missing)}")
        pipeline.run([_shortened(recipe, options) for recipe in missing], runs_dir, progress=progress)
    parts = {name: _about(name, options.exam, runs_dir) for name in names}
    weights = {name: part["weights"] for name, part in parts.items()}
    known = results.find(kind="comparison")
    if known is None:
        results.add({"kind": "comparison", **_conditions(options), "parts": weights, "about": parts})
        return
    check_conditions(options, results, weights)
    known["parts"] |= weights
    known["about"] |= parts
    results.add(results.records.pop(results.records.index(known)))


def _conditions(options: Options) -> dict:
    """What must be the same for results that are compared."""
    exam = {f.name: getattr(options.exam, f.name) for f in fields(Exam) if f.name != "asker"}
    return {"exam": exam, "changes": list(options.changes), "language_model": options.language_model}


def check_conditions(options: Options, results: Results, weights: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raises ValueError if the results were measured under other conditions; `weights`: hashes of frozen models."""
    stored, wanted = results.find(kind="comparison"), _conditions(options)
    what = {"exam": "other questions", "changes": "other settings", "language_model": "another language model"}
    causes = [text for key, text in what.items() if stored[key] != wanted[key]]
    if any(stored["parts"].get(name, own) != own for name, own in weights.items()):
        causes.append("other frozen models")
    if causes:
        raise ValueError(
            f"{results.file} was measured with {' and '.join(causes)}: give another --out, or remove the file"
        )


def _missing(names: Iterable[str], runs_dir: Path) -> list[Recipe]:
    """The recipes of the models that are not in `runs_dir`, each after what it starts from."""
    found: dict[str, Recipe] = {}
    for name in names:
        if not (runs_dir / name / "model").is_dir():
            before = _missing(needs(get(name)), runs_dir)
            found |= {recipe.name: recipe for recipe in before} | {name: get(name)}
    return list(found.values())


def _shortened(recipe: Recipe, options: Options) -> Recipe:
    if options.part_steps is None:
        return recipe
    optim = replace(recipe.optim, steps=options.part_steps, warmup_steps=1, batch_size=16)
    return replace(recipe, optim=optim, eval_every=0)


def _take_out(model: str, names: Sequence[str], runs_dir: Path) -> None:
    """Write image encoder and language model of a whole model where its recipes' runs would have them."""
    wanted = [name for name in names if name == "micro-vit" or name in LANGUAGE_MODELS]
    if not wanted:
        return
    with hf_logging_off():
        whole = load(model)
    if not isinstance(whole, Stage2Model):
        raise ValueError(f"{model} has no language model, so no frozen models can be taken out of it")
    decoder_alone = not whole.language_model.model.config.is_encoder_decoder
    with hf_logging_off():
        if "micro-vit" in wanted:
            whole.image_encoder.model.save_pretrained(runs_dir / "micro-vit" / "model")
        for language in (name for name in wanted if name != "micro-vit" and (name == "micro-opt") == decoder_alone):
            folder = runs_dir / language / "model"
            whole.language_model.model.save_pretrained(folder)
            whole.language_model.tokenizer.save_pretrained(folder)


def _about(name: str, exam: Exam, runs_dir: Path) -> dict:
    """What a frozen model is: a hash of its weights, the steps of its run if there is one, and, of a language model,
    the perplexity of plain texts."""
    log = [record for record in read_log(runs_dir / name) if "total" in record]
    digest = hashlib.sha256()
    for file in weight_files(runs_dir / name / "model"):
        digest.update(file.read_bytes())
    about: dict = {"weights": digest.hexdigest()[:16], "steps": log[-1]["step"] if log else None}
    if RECIPES[name].task in ("t5", "opt"):
        about["perplexity"] = text_perplexity(load_language_model(name, runs_dir), exam)
    return about
