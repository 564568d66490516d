"""The page of a comparison: values, differences and sentences of results that are known by hand."""

import csv
import io
from pathlib import Path

import pytest
import torch

from blip2_lab.compare import page
from blip2_lab.compare.bridges import Options, Results
from blip2_lab.compare.page import BEGIN, END, between_markers, difference, lines_of, measured, table_csv
from blip2_lab.evaluation import metrics
from blip2_lab.evaluation.bridges import CONDITIONS, Exam
from blip2_lab.evaluation.scenes import scene_values

EXAM = Exam(scenes=20, ranked=4)


def hits(right_scenes: int) -> str:
    """All questions about the first scenes are answered right, no other."""
    return "".join("1" if number < right_scenes else "0" for number, _, _ in EXAM.asked)


def model(row: str, steps: int, seed: int, right: int) -> dict:
    """A result whose questions about `right` scenes are right with the picture, about 2 without it."""
    kinds = [" and ".join(sorted(scene_values(scene)["kinds"])) for scene in EXAM.book]
    ranked = "1" * sum(number < EXAM.ranked for number, _, _ in EXAM.asked)
    record = {"kind": "model", "row": row, "steps": steps, "seed": seed, "perplexity": 3.0, "natural": {}}
    phases = {"gated-two-phase": [steps - 3, 3], "qformer-stage1": [steps - 4, 4]}.get(row, [steps])
    record["training"] = [{"steps": count, "samples": 10 * count, "seconds": 1.0} for count in phases]
    record["answer"] = {"flops": 2e9, "milliseconds": 12.0, "bytes": 2**21}
    record["ranked"] = dict.fromkeys(CONDITIONS, ranked)
    if row == "dual-encoder":
        found = dict.fromkeys(("itc_image_to_text", "matched_true"), "1" * 19 + "0")
        return record | {
            "questions": {}, "captions": None, "retrieval": found, "tokens": 0, "no_captions": "It writes no text."
        }  # fmt: skip
    guessed = dict.fromkeys(CONDITIONS[1:], hits(2))
    captions = [f"a {text}" if number < right else "nothing" for number, text in enumerate(kinds)]
    answers = {"questions": {"picture": hits(right), **guessed}, "captions": captions}
    return record | answers | {"retrieval": None, "tokens": 16}


def results_of(tmp_path, right: dict[str, list[int]]) -> tuple[Options, Results]:
    """Results of these rows; `right`: scenes answered right, by seed. A step takes 2 s in the last row, else 1 s."""
    results = Results(tmp_path / "results.jsonl")
    parts = {name: {"weights": "0", "steps": 9, "perplexity": 2.5} for name in ("micro-flan-t5", "micro-opt")}
    results.add({"kind": "comparison", "about": parts})
    for row, seeds in right.items():
        seconds = 2.0 if row == "qformer-stage1" else 1.0
        phases = 2 if row in ("gated-two-phase", "qformer-stage1") else 1
        cost = {"seconds": seconds, "bytes": 2**22, "parameters": 3_400_000}
        results.add({"kind": "cost", "row": row, "threads": 1, "phases": [cost] * phases})
        for seed, count in enumerate(seeds):
            for steps in {10, 20} if row != "qformer-stage1" else {10}:
                results.add(model(row, steps, seed, count))
    options = Options(bridges=tuple(right), seeds=len(next(iter(right.values()))), steps=10, exam=EXAM)
    return options, results


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A linear projector that is better than BLIP-2, and one trained on dialogues, better still."""
    right = {"linear": [16, 18], "gated-two-phase": [19, 19], "qformer-stage1": [8, 10], "dual-encoder": [0, 0]}
    options, results = results_of(tmp_path_factory.mktemp("compared"), right)
    return options, results, {(line.row, line.budget): line for line in lines_of(options, results)}


def share(scenes: float) -> float:
    return sum(number < scenes for number, _, _ in EXAM.asked) / len(EXAM.asked)


def test_values_are_means_over_seeds(compared):
    _, _, lines = compared
    value = lines["linear", "samples"].values["questions picture"]
    assert value.seeds == pytest.approx((share(16), share(18))) and value.mean == pytest.approx(sum(value.seeds) / 2)
    assert value.low < value.mean < value.high
    assert lines["linear", "samples"].values["questions blind"].mean == pytest.approx(share(2))
    assert "questions picture" not in lines["dual-encoder", "samples"].values
    assert lines["dual-encoder", "samples"].values["retrieval matched_true"].mean == pytest.approx(0.95)


def test_questions_by_type(compared):
    """Scenes 0 to 15 and 0 to 17 of the two seeds are right; a scene asks at most one question of each type."""
    options, results, lines = compared
    line, groups = lines["linear", "samples"], {}
    for number, question, _ in EXAM.asked:
        groups.setdefault(question.type, []).append(number)
    assert len(groups) > 5 and any(len(numbers) < EXAM.scenes for numbers in groups.values())
    for kind, numbers in groups.items():
        assert len(set(numbers)) == len(numbers)
        seeds = [sum(number < right for number in numbers) / len(numbers) for right in (16, 18)]
        assert line.values[f"questions about {kind}"].seeds == pytest.approx(seeds)
        assert f"| {kind}, {len(numbers)} |" in page.types_table([line], EXAM)
    dual = page.types_table([lines["dual-encoder", "samples"]], EXAM).splitlines()[-1]
    assert dual == f"| dual encoder | 10 × 2 |{' – |' * len(groups)}"
    assert "by what they ask" in measured(list(lines.values()), options, results, Path("docs/bridges"))


def test_caption_f1_is_the_ratio_of_sums(compared):
    _, _, lines = compared
    kinds = [len(scene_values(scene)["kinds"]) for scene in EXAM.book]
    named = [sum(kinds[:16]), sum(kinds[:18])]
    expected = sum(2 * n for n in named) / sum(n + sum(kinds) for n in named)
    assert lines["linear", "samples"].values["caption f1"].mean == pytest.approx(expected)


def test_minutes_and_samples_by_hand(compared):
    _, _, lines = compared
    same, more = lines["linear", "samples"], lines["linear", "minutes"]
    assert (same.steps, same.samples, same.minutes) == ((10,), 100, pytest.approx(10 / 60))
    assert (more.steps, more.samples, more.minutes) == ((20,), 200, pytest.approx(20 / 60))
    both = lines["qformer-stage1", "minutes"]
    assert both.steps == (6, 4) and both.minutes == more.minutes and both.got == "6 + 4 × 2"


def test_a_difference_is_paired(compared):
    _, _, lines = compared
    better = difference(lines["linear", "samples"], lines["qformer-stage1", "samples"], "questions picture")
    assert better.is_clear and better.low > 0
    assert better.mean == pytest.approx((share(16) + share(18) - share(8) - share(10)) / 2)
    same = difference(lines["linear", "samples"], lines["linear", "samples"], "questions picture")
    assert (same.mean, same.low, same.high) == (0, 0, 0) and not same.is_clear
    worse = difference(lines["qformer-stage1", "samples"], lines["linear", "samples"], "questions picture")
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))
    assert difference(lines["linear", "samples"], lines["dual-encoder", "samples"], "questions picture") is None


def test_a_paired_interval_of_ratios_by_hand():
    """The denominators differ: F1 of what was named. Drawing each scene alone gives the ratios of the scenes."""
    one, other = (torch.tensor([2.0, 0.0]), torch.tensor([4.0, 2.0])), (torch.tensor([1.0, 1.0]), torch.tensor([2, 4]))
    drawn = torch.tensor([[0, 0], [1, 1]])  # 0.5 - 0.5 and 0 - 0.25
    low, high = metrics.paired_ratio_bootstrap(one, other, drawn)
    assert (low, high) == pytest.approx((-0.25 + 0.25 * 0.025, -0.25 * 0.025))


def test_the_page_names_the_best_bridge(compared):
    options, results, lines = compared
    text = measured(list(lines.values()), options, results, Path("docs/bridges"))
    best = "Best at zero-shot questions: **linear, all features**"  # the one trained on dialogues does not count
    assert text.count(best) == 2 and "ahead of every other row" in text
    assert "gated, then dialogues (*)" in text and "(*) It was trained on dialogues about pictures" in text
    assert "It says: *It writes no text.*" in text
    *rows, cost = [line for line in text.splitlines() if line.startswith("| dual encoder |")]
    assert rows[0].startswith("| dual encoder | 10 × 2 | 100 | 0.2 | – | – | – | – | 1.000 (1.000–1.000) |")
    assert all(f"| {n} × 2 |" in row for n, row in zip((10, 10, 10, 20, 20, 20), rows, strict=True)), rows
    assert cost.startswith("| dual encoder | – | 3.40 M |")
    assert "3.000 | 2.500 |" in text and "--steps 10" in text and "--bridges linear qformer-stage1" in text


def test_rows_that_cannot_be_told_apart_are_named(tmp_path):
    options, results = results_of(tmp_path, {"linear": [10, 10], "qformer-stage1": [10, 10]})
    text = measured(lines_of(options, results), options, results, Path("docs/bridges"))
    assert "not to be told apart from it: Q-Former, both stages" in text


def test_every_row_says_its_steps_and_seeds(compared):
    options, results, lines = compared
    for table in (page.answers_table, page.texts_table):
        for budget in ("samples", "minutes"):
            rows = [line for (_, own), line in lines.items() if own == budget]
            _, _, *cells = table(rows).splitlines()
            assert len(cells) == len(rows) and all(line.got in row for line, row in zip(rows, cells, strict=True))
    columns = {row.count("|") for row in page.answers_table(list(lines.values())).splitlines()}
    assert len(columns) == 1


def test_what_is_not_measured_yet_is_named_and_left_out(compared, tmp_path):
    options, results, _ = compared
    fewer = Results(tmp_path / "none.jsonl")
    fewer.records = [one for one in results.records if (one.get("row"), one.get("seed")) != ("linear", 1)]
    found = lines_of(options, fewer)
    assert {line.row: line.seeds for line in found if line.budget == "samples"}["linear"] == (0,)
    text = measured(found, options, fewer, Path("docs/bridges"))
    assert "each with 1 to 2 seeds" in text and "linear, all features, equal samples, seed 1; " in text
    assert "| linear, all features | 10 × 1 |" in text and "| Q-Former, both stages | 6 + 4 × 2 |" in text
    fewer.records = [one for one in fewer.records if one.get("row") != "linear" or one["kind"] == "cost"]
    assert "linear" not in {line.row for line in lines_of(options, fewer)}
    assert "Not finished" not in measured(lines_of(options, results), options, results, Path("docs/bridges"))


def test_the_written_part_stays(compared, tmp_path):
    options, results, _ = compared
    path = tmp_path / "docs" / "bridges.md"
    path.parent.mkdir()
    path.write_text(f"# Bridges\n\nWritten.\n\n{BEGIN}\nold\n{END}\n\n## At full size\n")
    assert page.write(path.with_suffix(""), options, results) == path
    text = path.read_text()
    assert (
        text.startswith("# Bridges\n\nWritten.\n") and text.endswith("\n\n## At full size\n") and "\nold\n" not in text
    )
    page.write(path.with_suffix(""), options, results)
    assert path.read_text() == text
    names = {file.name for file in (tmp_path / "docs" / "bridges").iterdir()}
    assert names == {"zero-shot-samples.png", "zero-shot-minutes.png", "captions.png", "table.csv"}
    for name in names - {"table.csv"}:
        assert f"bridges/{name})" in text


def test_markers():
    assert between_markers("# A\n", "b") == f"# A\n\n{BEGIN}\n\nb\n\n{END}\n"
    for damaged in (BEGIN, END, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="one of its markers only, or in another order"):
            between_markers(damaged, "b")


def test_the_page_of_the_project_has_its_place_for_the_measured_part():
    text = (Path(__file__).parents[2] / "docs" / "bridges.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    new = between_markers(text, "## Measured")
    assert new.split(BEGIN)[0] == text.split(BEGIN)[0] and new.split(END)[1] == text.split(END)[1]


def test_the_csv_has_every_value_with_its_seeds(compared):
    _, _, lines = compared
    rows = list(csv.DictReader(io.StringIO(table_csv(list(lines.values())))))
    (row,) = [
        one for one in rows if (one["row"], one["budget"], one["value"]) == ("linear", "samples", "questions picture")
    ]
    assert (row["steps"], row["seeds"]) == ("10", "2") and float(row["least"]) == pytest.approx(share(16), abs=1e-4)
    assert float(row["most"]) == pytest.approx(share(18), abs=1e-4)
    assert len(rows) == sum(len(line.values) for line in lines.values())
