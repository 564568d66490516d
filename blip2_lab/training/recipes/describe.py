"""One recipe as one page: what it is, what it needs and costs, which losses to expect, the command, all its settings.

`describe` is where to begin; `blip2-lab recipes NAME` prints it.

Paper: section 3.4. Notebook: 08.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from blip2_lab.training.recipes import registry
from blip2_lab.training.recipes.schema import BridgeParts, ImageTextData, Recipe, as_typed, meanings

#: Logs of finished runs, RECIPE.jsonl: of the recipes as they are, then of the weights in the package.
LOGS = tuple(Path(__file__).parents[2] / "assets" / folder for folder in ("micro-all", "micro/curves"))
#: Where the paper has what a recipe trains, by its task. The settings of the paper's own recipes name their tables in
#: paper.py.
SECTIONS = {
    "stage1": "section 3.2 (what is trained), section 3.4 (settings)",
    "stage2": "section 3.3 (what is trained), section 3.4 (settings)",
    "caption": "section 4.2, Table 7",
    "vqa": "section 4.3, Table 8",
    "retrieval": "section 4.4, Table 9",
}
FROZEN_PART = "section 3.4 takes such a part as it was released; a miniature has to train it"
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)  #: of a log, whose losses are shown
NOT_LOSSES = frozenset(("step", "lr", "grad_norm", "seconds", "samples_per_second", "seen"))


def describe(recipe: Recipe, logs: Sequence[Path] = LOGS) -> str:
    """The page of one recipe, as text. `logs`: folders of logs of finished runs."""
    needs = ", ".join(registry.needs(recipe)) or "nothing"
    parts = [registry.get(name) for name in recipe.sequence] or [recipe]
    on_pictures = any(isinstance(part.data, ImageTextData) and not part.data.path for part in parts)
    place = " --on FOLDER" if on_pictures else ""
    facts = [
        ("what", recipe.summary),
        ("paper", section_of(recipe)),
        ("needs", ", ".join(recipe.sequence) if recipe.sequence else needs),
        ("costs", recipe.cost),
        ("command", f"blip2-lab train {recipe.name}{place}"),
        ("plan", f"blip2-lab plan {recipe.name}"),
    ]
    lines = [recipe.name, *(f"  {name:<8} {text}" for name, text in facts)]
    if expected := expected_losses(recipe, logs):
        lines += ["", "expected losses (log of a finished run)", *(f"  {line}" for line in expected)]
    if settings := settings_lines(recipe):
        lines += ["", "settings (change one: --set NAME=VALUE)", *(f"  {line}" for line in settings)]
    return "\n".join(lines)


def section_of(recipe: Recipe) -> str:
    """Where to read in the paper: of a sequence, what its parts name."""
    parts = [registry.get(name) for name in recipe.sequence] or [recipe]
    sections = dict.fromkeys(SECTIONS[part.task].partition(" (")[0] for part in parts if part.task in SECTIONS)
    if recipe.sequence:
        return ", ".join(sections)
    if isinstance(recipe.model, BridgeParts):
        return "no section: another bridge in the Q-Former's place (docs/bridges.md)"
    return SECTIONS.get(recipe.task, FROZEN_PART)


def expected_losses(recipe: Recipe, logs: Sequence[Path] = LOGS) -> list[str]:
    """Losses of a finished run of this recipe at some of its steps, and its last evaluation. Empty without a log."""
    paths = [folder / f"{recipe.curve or recipe.name}.jsonl" for folder in logs]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    logged = [record for record in records if "total" in record]
    chosen = dict.fromkeys(round(share * (len(logged) - 1)) for share in SHARES)
    lines = [f"step {logged[i]['step']:>6}  {_numbers(logged[i])}" for i in chosen]
    evaluations = [record for record in records if record.get("evaluation")]
    if evaluations:
        last = evaluations[-1]
        lines.append(f"held out, step {last['step']}: {_numbers(last['evaluation'])}")
    return lines


def _numbers(record: dict) -> str:
    shown = {name: value for name, value in record.items() if name not in NOT_LOSSES and isinstance(value, float | int)}
    return "  ".join(f"{name} {value:.3g}" for name, value in shown.items())


def settings_lines(recipe: Recipe) -> list[str]:
    """Every setting with its value and its meaning, in the order of the schema; none for a sequence of recipes."""
    if recipe.sequence:
        return []
    groups = [
        (f"{name}.", part) for name in ("optim", "lora", "model", "data") if is_dataclass(part := getattr(recipe, name))
    ]
    rows = []
    for prefix, part in [*groups, ("", recipe)]:
        known = meanings(type(part))
        names = [f.name for f in fields(part) if prefix or f.name in known]
        rows += [(f"{prefix}{name}", getattr(part, name), known.get(name, "")) for name in names]
    shown = [(f"{name} = {as_typed(value)}", meaning) for name, value, meaning in rows]
    width = min(44, max((len(setting) for setting, _ in shown), default=0))
    return [f"{setting:<{width}}  {meaning}".rstrip() for setting, meaning in shown]
