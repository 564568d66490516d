"""What a reader of the notebooks meets beside the code: the quiz, the links, and the descriptions of the figures."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted((ROOT / "notebooks" / "student").glob("*.ipynb")), *sorted((ROOT / "docs").glob("*.md"))]

nbformat = pytest.importorskip("nbformat", reason="the notebooks are not tested: pip install 'blip2-lab[dev]'")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
WITH_QUIZ = [path for path in NOTEBOOKS if path.stem[:2] <= "12"]
each_with_a_quiz = pytest.mark.parametrize("path", WITH_QUIZ, ids=lambda path: path.stem)
LATER = [path for path in NOTEBOOKS if path.stem[:2] >= "13"]  # their questions are open, without choices

# --- The quiz ----------------------------------------------------------------------------------------------------

QUESTION = re.compile(
    r"\*\*(?P<number>\d)\.\*\* (?P<text>[^\n]+)\n\n"
    r"(?P<options>(?:- [A-C]\. [^\n]+\n)+)\n"
    r"<details><summary>Answer to question (?P=number)</summary>\n\n"
    r"\*\*(?P<right>[A-C])\.\*\* (?P<because>[^\n]+)\n\n</details>"
)
FOLDED = re.compile(r"<details>(?:(?!<details).)*?</details>", re.DOTALL)


def quiz(path: Path) -> str:
    found = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.source.startswith("## Quiz")]
    assert len(found) == 1, f"{path.name} has {len(found)} quizzes"
    return found[0]


def questions(source: str) -> list[dict[str, str]]:
    return [match.groupdict() for match in QUESTION.finditer(source)]


def options(question: dict[str, str]) -> dict[str, str]:
    return {line[2]: line[5:] for line in question["options"].strip().splitlines()}


def visible(source: str) -> str:
    """What is on the screen before anything is unfolded."""
    shown = source
    while FOLDED.search(shown):
        shown = FOLDED.sub(lambda match: (re.search(r"<summary>(.*?)</summary>", match[0]) or [""])[0], shown)
    return shown


@each_with_a_quiz
def test_the_quiz_has_five_questions_with_explanations(path):
    found = questions(quiz(path))
    assert [question["number"] for question in found] == list("12345")
    for question in found:
        assert list(options(question)) == ["A", "B", "C"], question["text"]
        assert len(set(options(question).values())) == 3
        assert question["text"].endswith("?") and len(question["because"].split()) >= 15, question["text"]


@each_with_a_quiz
def test_no_answer_is_visible_before_it_is_unfolded(path):
    source = quiz(path)
    shown = visible(source)
    assert "<details" not in shown.replace("<summary>", "") and "<details open" not in source
    for question in questions(source):
        assert question["because"][:40] not in shown and f"**{question['right']}.**" not in shown
    assert shown.count("Answer to question") == 5 and not re.search(r"\*\*[A-C]\.?\*\*", shown)


@pytest.mark.parametrize("path", LATER, ids=lambda path: path.stem)
def test_a_quiz_without_choices_has_five_folded_answers(path):
    source = quiz(path)
    found = re.findall(r"<details><summary>(\d)\. [^\n]+\?</summary>\n\n([^\n]+)\n\n</details>", source)
    assert [number for number, _ in found] == list("12345") and "<details open" not in source
    assert all(len(answer.split()) >= 10 for _, answer in found)


def test_letters_and_lengths_do_not_give_the_answers_away():
    found = [question for path in WITH_QUIZ for question in questions(quiz(path))]
    letters = Counter(question["right"] for question in found)
    assert set(letters) == set("ABC") and max(letters.values()) < 0.5 * len(found)
    longest = sum(
        len(options(question)[question["right"]]) == max(map(len, options(question).values())) for question in found
    )
    assert longest < 0.5 * len(found)


@pytest.mark.parametrize(
    "broken",
    [
        lambda source: source.replace("<details>", "<details open>", 1),
        lambda source: source.replace("<details><summary>Answer to question 2</summary>", "", 1),
        lambda source: source.replace("- C. ", "- ", 1),
    ],
)
def test_a_broken_quiz_is_noticed(broken, tmp_path):
    source = broken(quiz(NOTEBOOKS[1]))
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)]), path)
    with pytest.raises(AssertionError):
        test_the_quiz_has_five_questions_with_explanations(path)
        test_no_answer_is_visible_before_it_is_unfolded(path)


# --- Links ----------------------------------------------------------------------------------------------------

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)|<a [^>]*href=[\"']([^\"']+)")


def markdown(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them and as JupyterLab does."""
    text = re.sub(r"```.*?```", "", markdown(path), flags=re.DOTALL)
    found: set[str] = set(re.findall(r"<a (?:name|id)=[\"']([^\"']+)", text))
    for heading in re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
        found.add(plain.replace(" ", "-"))
    return found


def relative_links(path: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", markdown(path), flags=re.DOTALL)
    found = ["".join(groups) for groups in LINK.findall(text)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def unresolved(path: Path, root: Path = ROOT) -> list[str]:
    """Links that lead nowhere, or out of the folder that `make lab` serves."""
    lost = []
    for link in relative_links(path):
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or not target.is_relative_to(root):
            lost.append(link)
        elif anchor and target.suffix in (".md", ".ipynb") and anchor not in anchors(target):
            lost.append(link)
    return lost


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path):
    assert not unresolved(path)


def test_lost_links_are_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, and `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-heading-and-code) [c](gone.md) [d](there.md#gone) [e](../out.md) "
        "[f](https://example.org/x.md) `[g](code.md)`\n"
    )
    (tmp_path.parent / "out.md").write_text("outside")
    assert unresolved(page, tmp_path) == ["gone.md", "there.md#gone", "../out.md"]


def test_make_lab_serves_the_folder_that_the_links_need():
    (command,) = re.findall(r"jupyter lab (.*)", (ROOT / "Makefile").read_text())
    assert "--ServerApp.root_dir=. " in command and "default_url=/lab/tree/notebooks" in command
    assert any(link.startswith("../docs/") for path in NOTEBOOKS for link in relative_links(path))


def test_a_notebook_links_to_the_next_one():
    for path, following in zip(NOTEBOOKS, NOTEBOOKS[1:], strict=False):
        assert f"]({following.name})" in markdown(path), path.name


# --- Figures ----------------------------------------------------------------------------------------------------


@each_notebook
def test_every_figure_has_a_text_that_stands_for_it(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt.split()) >= 3, f"{path.name}: the figure of {cell.source[-80:]!r} has no description"


# --- Predictions ----------------------------------------------------------------------------------------------------


def says_before_a_guess(source: str) -> list[int]:
    """The lines on which the cell of a prediction's check prints, or draws, whether or not there is a guess."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [(call, ast.unparse(call.func)) for call in calls]
    progress = {"flush", "on_log"}  # "8 questions asked" is not what comes out
    return [
        call.lineno
        for call, name in names
        if (name == "print" and not progress & {keyword.arg for keyword in call.keywords})
        or name.startswith("figures.")
    ]


def test_the_cell_that_checks_a_prediction_says_nothing_before_a_guess():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    checked = [cell for cell in cells if "checks.prediction(" in cell.source]
    assert len(checked) > 40
    for cell in checked:
        assert not says_before_a_guess(cell.source), f"use checks.print_after, or show_after behind it: {cell.source}"


def test_what_tells_a_result_is_found():
    assert says_before_a_guess("print(1)\ntell(2)\nfigures.bars({})") == [1, 3]
    assert not says_before_a_guess("tell = checks.print_after(guess=my_guess)\nprint('1 of 2', flush=True)")


#: Cells behind a prediction's own that answer it, too: the notebook, a piece of the cell, the guess that it waits for.
ANSWERS_LATER = [
    ("05", "The same model has a larger loss", "my_loss"),
    ("09", "grounding.json", "my_guess"),
    ("11", "By type of question", "my_winner"),
    ("13", "What one outlier costs", "my_times"),
    ("13", "worse than float32", "my_bits"),
    ("14", "diagnose_run", "my_end"),
    ("17", "found.remarks", "my_claim"),
]


def shows_at_once(source: str) -> list[int]:
    """The lines of a cell on which something is printed or drawn that waits for no guess."""
    tree = ast.parse(source)
    statements = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    drawn = [call for call in statements if ast.unparse(call.func).split(".")[0] in ("figures", "attention_plots")]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(call.lineno for call in (*drawn, *(call for call in calls if ast.unparse(call.func) == "print")))


@pytest.mark.parametrize(("number", "piece", "guess"), ANSWERS_LATER)
def test_what_answers_a_prediction_later_waits_for_the_guess(number, piece, guess):
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(number)]
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (cell,) = [cell for cell in cells if piece in cell.source]
    assert f"guess={guess})" in cell.source or (
        "tell(" in cell.source and any(f"tell = checks.print_after(guess={guess})" in other.source for other in cells)
    )
    shown = [line for line in shows_at_once(cell.source) if "the real input" not in cell.source.splitlines()[line - 1]]
    assert not shown, f"use checks.print_after and checks.show_after: {cell.source}"


def test_what_is_shown_at_once_is_found():
    assert shows_at_once("print(1)\nfigure = figures.bars({})\nfigures.curves({})") == [1, 3]
    assert not shows_at_once("tell(1)\nchecks.show_after(figures.bars({}), guess=my_guess)")


# --- Long cells -------------------------------------------------------------------------------------------------------


def silent_trainings(source: str) -> list[int]:
    """The lines on which `train(...)` is called without a live curve."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "train"
        and "on_log" not in {k.arg for k in call.keywords}
    ]


@each_notebook
def test_no_training_is_silent(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not silent_trainings(cell.source), f"{path.name}: hand `on_log=live.watch(...)` to train"


def test_trainings_are_found():
    assert silent_trainings("x = 1\ntrain(task, optim, run_dir=d)") == [2]
    assert not silent_trainings("train(task, on_log=live.watch('a'))\nmodel.train()")
    where = [
        path.stem[:2]
        for path in NOTEBOOKS
        if re.search(
            r"^ *train\(",
            "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"),
            re.MULTILINE,
        )
    ]
    assert {"08", "11"} <= set(where)


@pytest.mark.parametrize("path", NOTEBOOKS[5:8], ids=lambda path: path.stem[:2])
def test_the_objectives_of_stage_1_begin_at_its_plain_version(path):
    assert "(../blip2_lab/teaching/plain_stage1.py)" in nbformat.read(path, as_version=4).cells[0].source
