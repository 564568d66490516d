"""The command at its smallest, end to end: frozen models, trainings, measurements, page; and once more."""

import pytest

from blip2_lab.compare.bridges import SMALLEST, SMALLEST_EXAM
from blip2_lab.compare.page import BEGIN, END
from tests.test_cli import complaint, run


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_smallest_comparison(capsys, tmp_path):
    command = ("compare", "bridges", "--smallest", "--quiet", "--runs", str(tmp_path / "runs"))
    command += ("--out", str(tmp_path / "docs" / "bridges"))
    code, out, err = run(capsys, *command)
    page = (tmp_path / "docs" / "bridges.md").read_text()
    assert code == 0 and out == f"written: {tmp_path / 'docs' / 'bridges.md'}\n", err
    assert page.count(BEGIN) == page.count(END) == 1
    for title in ("linear, pooled", "Q-Former, both stages", "gated cross-attention", "dual encoder"):
        assert page.count(f"| {title} |") == 7, title  # three tables at both budgets, and the costs
    assert f"{SMALLEST_EXAM['scenes']} scenes" in page and f"× {SMALLEST['seeds']} |" in page
    assert "the dual encoder was asked for captions" in page.lower() and "nan" not in page
    results = (tmp_path / "docs" / "bridges" / "results.jsonl").read_text()
    models = {p.name: (p / "log.jsonl").stat().st_mtime_ns for p in (tmp_path / "runs").glob("compare-*")}
    assert run(capsys, *command)[0] == 0  # nothing is trained or measured again
    assert models == {p.name: (p / "log.jsonl").stat().st_mtime_ns for p in (tmp_path / "runs").glob("compare-*")}
    assert sorted((tmp_path / "docs" / "bridges" / "results.jsonl").read_text()) == sorted(results)
    assert (tmp_path / "docs" / "bridges.md").read_text() == page
    assert "other questions" in complaint(capsys, *command, "--scenes", "5")
    assert run(capsys, *command, "--page-only")[0] == 0  # the same page, from the results alone
    assert (tmp_path / "docs" / "bridges.md").read_text() == page
    assert "other questions" in complaint(capsys, *command, "--scenes", "5", "--page-only")


def test_mistakes_of_a_comparison_are_one_sentence(capsys, tmp_path):
    place = ("--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    assert "did you mean 'linear'" in complaint(capsys, "compare", "bridges", "--bridges", "linaer", *place)
    assert "above 0" in complaint(capsys, "compare", "bridges", "--minutes", "-1", *place)
    assert "at least one bridge and one seed" in complaint(capsys, "compare", "bridges", "--seeds", "0", *place)
    assert "scenes is 1" in complaint(capsys, "compare", "bridges", "--scenes", "1", *place)
    assert "has no result of 4 steps" in complaint(capsys, "compare", "bridges", "--smallest", "--page-only", *place)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()
