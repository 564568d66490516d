"""The page of a comparison of bridges: tables, figures and sentences, all from the stored results.

`write` is where to begin. The measured part stands between two markers of the page; what is written around it stays.

Notes:

* A value is the mean over seeds; its interval is from scenes drawn with replacement, and that of a difference from the
  same scenes for both models (paired). Seeds are not drawn: their smallest and largest value stand in `table.csv`.
* Sentences that compare are chosen by these intervals, so they follow the numbers, whichever bridge wins.
* A dash is what a model cannot do; the page says why.

Paper: none. Notebook: none.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2_lab.common.console import count_of
from blip2_lab.common.files import write_atomically
from blip2_lab.compare.bridges import Options, Results, equal_minutes, steps_in
from blip2_lab.compare.rows import BRIDGES, LANGUAGE_MODELS, REFERENCE, ROWS, default_steps, recipes_of
from blip2_lab.evaluation import captioning, metrics
from blip2_lab.evaluation.bridges import CONDITIONS, Exam
from blip2_lab.evaluation.scenes import KIND_WORDS, named_values, scene_values
from blip2_lab.plots.attention import intervals
from blip2_lab.plots.figures import bars, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN = "<!-- measured: begin. `blip2-lab compare bridges` writes what stands from here on -->"
END = "<!-- measured: end -->"
BUDGETS = {"samples": "equal samples", "minutes": "equal minutes"}
RESAMPLES = 1000


@dataclass(frozen=True)
class Value:
    """A mean over seeds with its 95 % interval over scenes, and the value of each seed."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    def text(self, digits: int = 3) -> str:
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"

    def signed(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def is_clear(self) -> bool:
        """Of a difference: the interval does not contain 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Line:
    """A row of the table at one budget: what it got, and what it is worth. A missing value is what it cannot do."""

    row: str
    budget: str
    steps: tuple[int, ...]
    samples: int
    minutes: float
    seeds: tuple[int, ...]
    values: dict[str, Value] = field(default_factory=dict)
    sums: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  #: by scene, for paired differences

    @property
    def title(self) -> str:
        return ROWS[self.row].title + ("" if ROWS[self.row].zero_shot else " (*)")

    @property
    def got(self) -> str:
        """ "1,700 + 1,000 × 3": steps of the phases, times seeds."""
        return f"{' + '.join(f'{steps:,}' for steps in self.steps)} × {len(self.seeds)}"


def write(folder: Path, options: Options, results: Results, spice: bool = False) -> Path:
    """Write figures and `table.csv` to `folder`, and the measured part of the page beside it -> the page's path.

    spice  compute SPICE, too, which takes a Java program; raises ValueError where it is missing
    """
    found = lines_of(options, results, spice)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(found).items():
        (folder / f"{name}.png").write_bytes(png(figure, dpi=90))
    (folder / "table.csv").write_text(table_csv(found), encoding="utf-8")
    path = folder.with_name(f"{folder.name}.md")
    before = path.read_text(encoding="utf-8") if path.is_file() else "# Bridges side by side\n"
    write_atomically(path, between_markers(before, measured(found, options, results, folder)))
    return path


def between_markers(text: str, part: str) -> str:
    """The text with `part` between its markers; without markers, at its end. Raises ValueError for one marker alone."""
    if (BEGIN in text) != (END in text) or text.find(BEGIN) > text.find(END):
        raise ValueError(f"the page has one of its markers only, or in another order: {BEGIN} … {END}")
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{BEGIN}\n\n{part.strip()}\n\n{END}\n"
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{part.strip()}\n\n{END}{rest.split(END)[1]}"


# ------------------------------------------------------------------------------------------------------------- values


def lines_of(options: Options, results: Results, spice: bool = False) -> list[Line]:
    """Every row at both budgets, with all of its values, over the seeds that are measured."""
    found = []
    for budget in BUDGETS:
        for row, cells in _cells(options, results, budget).items():
            if done := [cell for cell in cells.values() if cell]:
                found.append(_line(row, budget, done, options, results, spice))
    return found


def _cells(options: Options, results: Results, budget: str) -> dict[str, dict[int, dict | None]]:
    """Row -> seed -> its result, None where it is not measured."""
    minutes, cells = equal_minutes(options, results), {}
    for row in options.bridges:
        steps = options.steps if budget == "samples" else steps_in(minutes, options, row, results)
        key = dict(kind="model", row=row, steps=steps)
        cells[row] = {seed: results.find(**key, seed=seed) for seed in range(options.seeds)}
    return cells


def _line(row: str, budget: str, cells: Sequence[dict], options: Options, results: Results, spice: bool) -> Line:
    exam, phases = options.exam, results.find(kind="cost", row=row)["phases"]
    trained = cells[0]["training"]
    steps = tuple(phase["steps"] for phase in trained)
    minutes = sum(count * phase["seconds"] for count, phase in zip(steps, phases, strict=True)) / 60
    samples = sum(phase["samples"] for phase in trained)
    line = Line(row, budget, steps, samples, minutes, tuple(cell["seed"] for cell in cells))
    places = {
        "questions": [number for number, _, _ in exam.asked],
        "ranked": [number for number, _, _ in exam.asked if number < exam.ranked],
        "natural": [question.scene for question in exam.natural] if cells[0]["natural"] else [],
    }
    for what, scenes in places.items():
        for condition in CONDITIONS if cells[0][what] else ():
            hits = torch.tensor([_numbers(cell[what][condition]) for cell in cells], dtype=torch.float64)
            # only scenes that were asked about: among few drawn ones there may be none of them, and no question
            count = exam.ranked if what == "ranked" else exam.scenes
            _add(line, f"{what} {condition}", *_by_scene(hits, torch.tensor(scenes), count))
    if cells[0]["questions"]:
        hits = torch.tensor([_numbers(cell["questions"]["picture"]) for cell in cells], dtype=torch.float64)
        for kind, numbers in _by_type(exam).items():
            _add(line, f"questions about {kind}", hits[:, numbers], torch.ones_like(hits[:, numbers]))
    if cells[0]["captions"] is not None:
        _add_captions(line, cells, exam, spice)
    if cells[0]["retrieval"] is not None:
        for name in cells[0]["retrieval"]:
            hits = torch.tensor([_numbers(cell["retrieval"][name]) for cell in cells], dtype=torch.float64)
            _add(line, f"retrieval {name}", hits, torch.ones_like(hits))
    return line


def _numbers(bits: str) -> list[int]:
    return [int(bit) for bit in bits]


def _by_type(exam: Exam) -> dict[str, list[int]]:
    """Type of question -> the numbers of its questions; a scene has at most one of each type."""
    types = dict.fromkeys(question.type for _, question, _ in exam.asked)
    return {kind: [i for i, (_, question, _) in enumerate(exam.asked) if question.type == kind] for kind in types}


def _by_scene(hits: Tensor, scenes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """hits [seeds,Q], the scene of each question [Q] -> hits and questions of each scene, both [seeds,S]."""
    sums = torch.zeros(len(hits), count, dtype=torch.float64).index_add(1, scenes, hits)
    return sums, torch.bincount(scenes, minlength=count).double().expand_as(sums)


def _add_captions(line: Line, cells: Sequence[dict], exam: Exam, spice: bool) -> None:
    truth = [scene_values(scene)["kinds"] for scene in exam.book]
    hits, sizes, cider, whole = [], [], [], {"BLEU-4": [], "SPICE": []}
    for cell in cells:
        named = [named_values(caption, KIND_WORDS) for caption in cell["captions"]]
        hits.append([2.0 * len(one & true) for one, true in zip(named, truth, strict=True)])
        sizes.append([float(len(one) + len(true)) for one, true in zip(named, truth, strict=True)])
        scores = captioning.caption_scores(cell["captions"], exam.references)
        cider.append(scores["CIDEr"].images)
        whole["BLEU-4"].append(scores["BLEU-4"].corpus)
        if spice:
            whole["SPICE"].append(captioning.java_scores(cell["captions"], exam.references, ["SPICE"])["SPICE"].corpus)
    _add(line, "caption f1", *(torch.tensor(x, dtype=torch.float64) for x in (hits, sizes)))
    images = torch.tensor(cider, dtype=torch.float64)
    _add(line, "CIDEr", images, torch.ones_like(images))
    for name, values in whole.items():  # of the whole corpus: no interval over scenes
        if values:
            mean = sum(values) / len(values)
            line.values[name] = Value(mean, mean, mean, tuple(values))


def _add(line: Line, name: str, over: Tensor, under: Tensor) -> None:
    """The ratio of two sums over scenes [seeds,S]: of each seed, and of the means over seeds with its interval."""
    seeds = tuple((over.sum(dim=1) / under.sum(dim=1)).tolist())
    sums = over.mean(dim=0), under.mean(dim=0)
    zero = torch.zeros_like(sums[0]), torch.ones_like(sums[0])
    low, high = metrics.paired_ratio_bootstrap(sums, zero, _drawn(len(sums[0])))
    line.sums[name] = sums
    line.values[name] = Value((sums[0].sum() / sums[1].sum()).item(), low, high, seeds)


def difference(one: Line, other: Line, name: str) -> Value | None:
    """one - other with its paired interval over scenes; None where one of them has no such value."""
    if name not in one.sums or name not in other.sums:
        return None
    drawn = _drawn(len(one.sums[name][0]))
    low, high = metrics.paired_ratio_bootstrap(one.sums[name], other.sums[name], drawn)
    return Value(one.values[name].mean - other.values[name].mean, low, high)


@lru_cache(maxsize=16)
def _drawn(scenes: int) -> Tensor:
    """int[R,S]: R times S scenes, drawn with replacement."""
    return torch.randint(scenes, (RESAMPLES, scenes), generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------------------ figures


def figures(found: Sequence[Line]) -> dict[str, Figure]:
    """File name -> figure."""
    made = {}
    for budget, title in BUDGETS.items():
        lines = [line for line in _of(found, budget) if "questions picture" in line.values]
        rows = {line.title: line.values["questions picture"] for line in lines}
        if not rows:
            continue
        blind = [line.values["questions blind"].mean for line in lines]
        made[f"zero-shot-{budget}"] = intervals(
            {name: (value.mean, value.low, value.high) for name, value in rows.items()},
            x="questions right",
            title=f"Questions about pictures, {title}",
            levels={"without the picture": (sum(blind) / len(blind), min(blind), max(blind))},
        )
    writing = [line.row for line in _of(found, "samples") if "caption f1" in line.values]
    if writing:
        by_row = {budget: {line.row: line for line in _of(found, budget)} for budget in BUDGETS}
        both = [row for row in writing if row in by_row["minutes"]]
        heights = {
            title: [by_row[budget][row].values["caption f1"].mean for row in both] for budget, title in BUDGETS.items()
        }
        made["captions"] = bars(heights, [ROWS[row].title for row in both], y="F1 of the kinds", title="Captions")
    return made


def _of(found: Sequence[Line], budget: str) -> list[Line]:
    return [line for line in found if line.budget == budget]


# ------------------------------------------------------------------------------------------------------------- the page


def measured(found: Sequence[Line], options: Options, results: Results, folder: Path) -> str:
    """The measured part of the page, as Markdown; the page stands beside `folder`."""
    paragraphs = ["## Measured", _how(found, options, results, folder), *_unfinished(options, results)]
    for budget, title in BUDGETS.items():
        lines = _of(found, budget)
        paragraphs += [f"### At {title}", _budget(budget, options, results), *_verdicts(lines), answers_table(lines)]
        if any("questions picture" in line.values for line in lines):
            paragraphs.append(f"![questions about pictures, {title}]({folder.name}/zero-shot-{budget}.png)")
        paragraphs += [texts_table(lines), "Zero-shot questions by what they ask:", types_table(lines, options.exam)]
    if any("caption f1" in line.values for line in found):
        paragraphs.append(f"![F1 of the kinds in captions]({folder.name}/captions.png)")
    paragraphs += ["### What each costs", costs_table(_of(found, "samples"), options, results), *_notes(found, results)]
    return "\n\n".join(paragraphs)


def command(options: Options, folder: Path) -> str:
    """The command that wrote the page."""
    words = ["blip2-lab compare bridges"]
    if options.bridges != list(BRIDGES):
        words.append(f"--bridges {' '.join(options.bridges)}")
    if options.seeds != 3:
        words.append(f"--seeds {options.seeds}")
    if options.steps != default_steps():
        words.append(f"--steps {options.steps}")
    if options.minutes is not None:
        words.append(f"--minutes {options.minutes:g}")
    defaults = {f.name: f.default for f in fields(Exam)}
    words += [f"--scenes {options.exam.scenes}"] if options.exam.scenes != defaults["scenes"] else []
    words += [f"--language-model {options.language_model}"] if options.language_model != LANGUAGE_MODELS[0] else []
    words += [f"--frozen {options.frozen}"] if options.frozen else []
    words += [f"--set {change}" for change in options.changes]
    return " ".join([*words, f"--out {folder.as_posix()}"])


def _how(found: Sequence[Line], options: Options, results: Results, folder: Path) -> str:
    counts = sorted({len(line.seeds) for line in found})
    seeds = count_of(counts[-1], "seed", "seeds") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    exam, about = options.exam, results.find(kind="comparison")["about"]
    parts = ", ".join(f"{name} ({_trained_for(part['steps'], options)})" for name, part in about.items())
    return (
        f"Written by one command, numbers, sentences and figures: `{command(options, folder)}`. Every row reads the "
        "same pictures, through the same frozen image encoder, with the captions of its recipes; each with "
        f"{seeds}. Asked are {len(exam.asked)} questions about {exam.scenes} "
        f"scenes that training never saw, by exact match; {len(exam.natural)} questions in a visitor's own words; and, "
        f"for {exam.ranked} scenes, the same questions by ranking all answers of their type. *Blind*: no picture. "
        "*Shuffled*: another scene's. Brackets are 95 % intervals: scenes are drawn with replacement, the same for "
        f"both sides of a difference. Steps are those of the phases, times seeds. The frozen models: {parts}."
    )


def _unfinished(options: Options, results: Results) -> list[str]:
    """What the command has not trained yet, as a paragraph, or nothing."""
    open_cells = []
    for budget, title in BUDGETS.items():
        for row, cells in _cells(options, results, budget).items():
            if missing := [str(seed) for seed, cell in cells.items() if cell is None]:
                seeds = f"seed{'s' * (len(missing) > 1)} {' and '.join(missing)}"
                open_cells.append(f"{ROWS[row].title}, {title}, {seeds}")
    if not open_cells:
        return []
    return [
        f"Not finished; the same command goes on with: {'; '.join(open_cells)}. Values are means over what is there."
    ]


def _trained_for(steps: int | None, options: Options) -> str:
    return f"{steps:,} steps" if steps else f"of {options.frozen}" if options.frozen else "without a log"


def _budget(budget: str, options: Options, results: Results) -> str:
    threads = results.find(kind="cost", row=options.bridges[0])["threads"]
    if budget == "samples":
        return f"Every row trains for {options.steps:,} steps, those of stage 1 or of a first phase included."
    return (
        f"Every row trains for {equal_minutes(options, results):.1f} minutes, stage 1 or a first phase included: as "
        f"many steps as fit, at the seconds of a step below ({threads} thread{'s' * (threads > 1)})."
    )


def _verdicts(lines: Sequence[Line]) -> list[str]:
    """Which row is best, by the intervals of the paired differences. Only rows that were not trained on questions."""
    said = []
    measures = {"questions picture": "zero-shot questions", "caption f1": "F1 of kinds in captions"}
    for name, what in measures.items():
        able = [line for line in lines if name in line.values and ROWS[line.row].zero_shot]
        if len(able) < 2:
            continue
        able.sort(key=lambda line: -line.values[name].mean)
        best, *rest = able
        near = [line.title for line in rest if not difference(best, line, name).is_clear]
        tied = f"; not to be told apart from it: {', '.join(near)}" if near else ", ahead of every other row"
        said.append(f"Best at {what}: **{best.title}**, {best.values[name].text()}{tied}.")
    return said


def _reference(lines: Sequence[Line]) -> Line:
    return next((line for line in lines if line.row == REFERENCE), lines[0])


def answers_table(lines: Sequence[Line]) -> str:
    """Questions: zero-shot and by ranking, beside blind and shuffled."""
    reference = _reference(lines)
    heads = ["bridge", "steps × seeds", "samples", "minutes", "zero-shot", "blind", "shuffled"]
    heads += [f"zero-shot against {ROWS[reference.row].title}", "by ranking", "blind", "shuffled"]
    rows = []
    for line in lines:
        own = difference(line, reference, "questions picture") if line is not reference else None
        cells = [line.title, line.got, f"{line.samples:,}", f"{line.minutes:.1f}", *_conditions(line, "questions")]
        rows.append([*cells, own.signed() if own else "–", *_conditions(line, "ranked")])
    return markdown(heads, rows)


def texts_table(lines: Sequence[Line]) -> str:
    """Natural questions, captions, retrieval."""
    reference = _reference(lines)
    scored = [name for name in ("CIDEr", "BLEU-4", "SPICE") if any(name in line.values for line in lines)]
    heads = ["bridge", "steps × seeds", "natural questions", "blind", "shuffled", "caption F1"]
    heads += [f"F1 against {ROWS[reference.row].title}", *scored]
    heads += ["R@1 to text, ITC", "R@1 to picture, ITC", "to text, ITM", "to picture, ITM", "ITM right: true", "wrong"]
    ways = ("itc_image_to_text", "itc_text_to_image", "itm_image_to_text", "itm_text_to_image")
    rows = []
    for line in lines:
        own = difference(line, reference, "caption f1") if line is not reference else None
        cells = [line.title, line.got, *_conditions(line, "natural"), _cell(line, "caption f1")]
        cells += [own.signed() if own else "–", *(_cell(line, name, short=True) for name in scored)]
        cells += [_cell(line, f"retrieval {way}") for way in ways]
        rows.append([*cells, *(_cell(line, f"retrieval matched_{what}", short=True) for what in ("true", "wrong"))])
    return markdown(heads, rows)


def types_table(lines: Sequence[Line], exam: Exam) -> str:
    """Zero-shot questions by their type, with the number of questions."""
    types = _by_type(exam)
    rows = [[line.title, line.got, *(_cell(line, f"questions about {kind}") for kind in types)] for line in lines]
    return markdown(["bridge", "steps × seeds", *(f"{kind}, {len(found)}" for kind, found in types.items())], rows)


def costs_table(lines: Sequence[Line], options: Options, results: Results) -> str:
    """Costs do not depend on the budget, except the answers themselves: those at equal samples are measured."""
    heads = ["bridge", "tokens in the language model", "trained parameters", "FLOPs an answer", "ms an answer"]
    heads += ["memory of an answer", "seconds a step", "memory of a step", "perplexity of plain text", "frozen"]
    about, rows = results.find(kind="comparison")["about"], []
    for line in lines:
        cells = [results.find(kind="model", row=line.row, steps=sum(line.steps), seed=seed) for seed in line.seeds]
        phases = results.find(kind="cost", row=line.row)["phases"]
        mean = {key: sum(cell["answer"][key] for cell in cells) / len(cells) for key in cells[0]["answer"]}
        perplexity = sum(cell["perplexity"] for cell in cells) / len(cells)
        tokens = str(cells[0]["tokens"]) if cells[0]["captions"] is not None else "–"
        rows.append(
            [
                line.title,
                tokens,
                " + ".join(f"{phase['parameters'] / 1e6:.2f} M" for phase in phases),
                f"{mean['flops'] / 1e9:.3f} G",
                f"{mean['milliseconds']:.0f}",
                f"{mean['bytes'] / 2**20:.0f} MiB",
                " + ".join(f"{phase['seconds']:.2f}" for phase in phases),
                " + ".join(f"{phase['bytes'] / 2**20:.0f} MiB" for phase in phases),
                f"{perplexity:.3f}",
                f"{about[_language_model(line.row, options)]['perplexity']:.3f}",
            ]
        )
    return markdown(heads, rows)


def _language_model(row: str, options: Options) -> str:
    """The frozen language model that a row was made with."""
    return recipes_of(row, options.steps, 0, language_model=options.language_model)[-1].model.language_model


def _notes(found: Sequence[Line], results: Results) -> list[str]:
    """What a dash means, and what the numbers do not say."""
    cells = [record for record in results.records if record["kind"] == "model"]
    notes = [
        "FLOPs are those of matrix products of a whole answer, image encoder included, and of ranking the answers of "
        "the question's type for a dual encoder; milliseconds are of one picture and one question. They differ between "
        "rows and seeds also because answers differ in length. Memory: the largest sum of all tensors at one time, "
        "weights included; of a step, with gradients and optimizer. Features are computed before training, and not "
        "counted.",
        "*Perplexity of plain text*: of the second halves of texts without a picture, by the language model of the "
        "finished model; *frozen*: by the language model before. Equal numbers mean that it is unharmed.",
        "A dash is what a row cannot do. Retrieval needs a text encoder beside the image: stage 1 has one, and a dual "
        "encoder. Deep fusion has no token of the image in the language model.",
    ]
    if refusal := next((cell["no_captions"] for cell in cells if "no_captions" in cell), None):
        notes.append(f"The dual encoder was asked for captions and for answers in its own words. It says: *{refusal}*")
    if any(not ROWS[line.row].zero_shot for line in found):
        notes.append("(*) It was trained on dialogues about pictures, so its questions are not zero-shot.")
    return notes


def _conditions(line: Line, what: str) -> list[str]:
    return [_cell(line, f"{what} {condition}", short=condition != "picture") for condition in CONDITIONS]


def _cell(line: Line, name: str, short: bool = False) -> str:
    if name not in line.values:
        return "–"
    return f"{line.values[name].mean:.3f}" if short else line.values[name].text()


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def table_csv(found: Sequence[Line]) -> str:
    """Every value of every row, with its interval and with the smallest and largest value of a seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["row", "budget", "steps", "samples", "minutes", "seeds", "value", "mean", "low", "high", "least", "most"]
    writer.writerow(heads)
    for line in found:
        about = [line.row, line.budget, "+".join(map(str, line.steps)), line.samples, f"{line.minutes:.2f}"]
        for name, value in line.values.items():
            numbers = (value.mean, value.low, value.high, min(value.seeds), max(value.seeds))
            writer.writerow([*about, len(line.seeds), name, *(f"{number:.4f}" for number in numbers)])
    return out.getvalue()
