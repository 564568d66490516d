"""The page follows the numbers: its sentences change with them."""

from __future__ import annotations

import copy
import json

import pytest

pytest.importorskip("matplotlib", reason="figures need matplotlib")

from blip2_lab.interpret import grounding, query_probes
from blip2_lab.interpret import report as findings

FAST = ["raw", "gradient"]


@pytest.fixture(scope="module")
def report(tiny_model):
    found = grounding.evaluate_grounding(tiny_model, methods=FAST, scenes=2)
    return found | {"name": "micro", "queries": query_probes.evaluate_queries(tiny_model, scenes=12, asked_scenes=2)}


def test_numbers_figures_and_page_are_written_together(tiny_model, report, tmp_path):
    path = findings.write(tmp_path / "see", report, tiny_model)
    text = path.read_text()
    assert path == tmp_path / "see.md"
    figures = {file.name for file in (tmp_path / "see").glob("*.png")}
    assert {part.split(")")[0] for part in text.split("](see/")[1:]} == figures
    stored = json.loads((tmp_path / "see" / "numbers.json").read_text())
    assert findings.page(stored, "see") == text, "the page can be made again from the stored numbers"
    assert "--method raw,gradient --scenes 2 --out docs/see" in text


def test_the_sentences_change_with_the_numbers(report):
    changed = copy.deepcopy(report)
    changed["targets"] = {"word": changed["targets"]["word"]}
    found = changed["targets"]["word"]
    found["center"]["pointing"], found["things"]["pointing"] = [0.2, 0.15, 0.25], [0.4, 0.35, 0.45]
    found["raw"]["pointing"], found["gradient"]["pointing"] = [0.2, 0.12, 0.3], [0.9, 0.85, 0.95]
    found["gradient"]["sanity"], found["raw"]["sanity"] = [0.1, 0.0, 0.2], [0.9, 0.8, 1.0]
    text = findings.page(changed, "see")
    assert "raw cross-attention is no better than the center" in text and "gradient 90% (85%–95%)" in text
    found["raw"]["pointing"] = [0.5, 0.46, 0.6]
    assert "raw cross-attention is better than the center" in findings.page(changed, "see")
    found["raw"]["pointing"] = [0.05, 0.0, 0.1]
    assert "raw cross-attention is worse than the center" in findings.page(changed, "see")
    found["gradient"]["sanity"] = [0.9, 0.8, 1.0]
    assert "do not believe any map of this score" in findings.page(changed, "see")


def test_the_recommended_method_is_the_best_of_the_quick_ones(report):
    changed = copy.deepcopy(report)
    found = changed["targets"]["word"]
    found["things"]["pointing"] = [0.4, 0.35, 0.45]
    for name, pointing, seconds in (("raw", 0.9, 0.1), ("gradient", 0.95, 5.0)):
        found[name] |= {"pointing": [pointing, pointing - 0.02, 1.0], "sanity": [0, 0, 0.1], "seconds": [seconds] * 3}
    assert findings.recommended(changed) == "raw"
    found["gradient"]["seconds"] = [0.2] * 3
    assert findings.recommended(changed) == "gradient"
    for name, seconds in (("raw", 7.0), ("gradient", 5.0)):
        found[name]["seconds"] = [seconds] * 3
    assert findings.recommended(changed) == "gradient", "where none is quick, the fastest"


def test_the_command_line_writes_it_all(tiny_model, tmp_path, monkeypatch, capsys):
    from blip2_lab import cli
    from blip2_lab.cli import measuring

    monkeypatch.setattr(measuring, "load", lambda args: tiny_model)
    small = query_probes.evaluate_queries
    fast = lambda model, **options: small(model, **options, scenes=12, asked_scenes=1)  # noqa: E731
    monkeypatch.setattr(query_probes, "evaluate_queries", fast)
    command = ["evaluate", "grounding", "--method", "raw", "--scenes", "1", "--out", str(tmp_path / "see")]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "| *center* |" in said.out and "see.md" in said.out and "scene 1 of 1" in said.err
    assert (tmp_path / "see.md").exists() and len((tmp_path / "see" / "scenes.jsonl").read_text().splitlines()) == 2
    assert cli.main(["evaluate", "grounding", "--method", "roll"]) == 2
    assert "no method roll; choose from raw" in capsys.readouterr().err
