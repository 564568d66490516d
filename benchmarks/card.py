"""The tables of the model card, and tables and sentences of the README, written again from what was measured.

    python -m benchmarks.card          after `blip2-lab evaluate`, `benchmarks.chain` and `benchmarks.novelty`

Every table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand. The numbers
come from assets/micro/evaluation*.json, its curves/ and benchmarks/results/chain.txt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

from blip2_lab.checkpoints.load import MICRO
from blip2_lab.evaluation.scenes import scores_table
from blip2_lab.picturebook.words import VISUAL_QUESTIONS
from blip2_lab.training.pipeline import ready
from blip2_lab.training.recipes.registry import get
from blip2_lab.training.recipes.schema import Recipe

ROOT = Path(__file__).parents[1]
CHAIN = Path(__file__).parent / "results" / "chain.txt"
FILES = (MICRO / "README.md", ROOT / "README.md")
SPLITS = {"in": "evaluation.json", "near": "evaluation-near.json", "out": "evaluation-out.json"}


def rows_to_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def minutes_of_log(recipe: Recipe) -> float:
    """The minutes of training that a part's log says."""
    records = [json.loads(line) for line in (MICRO / "curves" / f"{recipe.name}.jsonl").read_text().splitlines()]
    return max(record["seconds"] for record in records if "seconds" in record) / 60


def recipes_table() -> str:
    """Each part, its steps, and the minutes that its log says."""
    rows = []
    for recipe in map(get, get("shipped").sequence):
        steps = f"{recipe.optim.steps:,} of {recipe.optim.batch_size}"
        rows.append((recipe.name, recipe.summary, steps, f"{minutes_of_log(recipe):.0f}"))
    return rows_to_table(("recipe", "what", "steps", "minutes"), rows)


def whole_time(recipes: Sequence[Recipe], minutes: Callable[[Recipe], float], jobs: int) -> float:
    """Minutes from the first start to the last end, if a pipeline trains `jobs` recipes at a time."""
    waiting, running, now = list(recipes), [], 0.0
    while waiting or running:
        for recipe in ready(waiting, [recipe for _, recipe in running])[: jobs - len(running)]:
            waiting.remove(recipe)
            running.append((now + minutes(recipe), recipe))
        running.sort(key=lambda one: one[0])
        now, _ = running.pop(0)
    return now


def hours() -> str:
    recipes = [get(name) for name in get("shipped").sequence]
    alone, paired = (whole_time(recipes, minutes_of_log, jobs) / 60 for jobs in (1, 2))
    told = (
        f"One after another the parts are {alone:.1f} hours by these logs. Two at a time, as `blip2-lab train shipped` "
        f"trains them on a CPU of two cores or more (each as soon as what it needs is trained), they are {paired:.1f}."
    )
    return fill(told, 120)


def domains_table(reports: dict[str, dict]) -> str:
    of = {
        "zero-shot questions": lambda r: r["questions"]["picture"]["total"],
        "knowledge questions": lambda r: r["questions"]["picture"]["knowledge"],
        "natural questions": lambda r: r["natural"]["picture"]["total"],
        "captions, F1 of kinds": lambda r: r["captions"]["picture"]["kinds_f1"],
        "R@1 by ITC, picture to text": lambda r: r["retrieval"]["itc_image_to_text_r1"],
        "R@1 by ITC, text to picture": lambda r: r["retrieval"]["itc_text_to_image_r1"],
        "search by a phrase, precision at 5": lambda r: r["search"]["precision_at_5_both"],
    }
    rows = [(name, *(f"{value(report):.3f}" for report in reports.values())) for name, value in of.items()]
    return rows_to_table(("", *reports), rows)


def chain_table() -> str:
    """A few rows and columns of the printed table."""
    printed = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in CHAIN.read_text().splitlines()
        if line.startswith("| ")
    ]
    head, cells = printed[0], {row[0]: row for row in printed[1:]}
    columns = {"in sentences": "sentences", "word sums, noise 0.5": "sums, noise 0.5", "picture": "picture"}
    named = {
        "accuracy": "all",
        "inventory": "lists, in the corpus's form",
        "asked: inventory": "lists, in a visitor's words",
        "count": "counts",
        "asked: relation check": "is this above (left of, larger than, …) that?",
    }
    rows = [(text, *(cells[name][head.index(column)] for column in columns.values())) for name, text in named.items()]
    scenes = re.search(r"(\d+) scenes of book (\d+)", CHAIN.read_text())
    return rows_to_table((f"{scenes[1]} scenes of book {scenes[2]}", *columns), rows)


def bars_table(reports: dict[str, dict]) -> str:
    """Every bar, what was measured, and whether it is met."""
    report, near = reports["in"], reports["near"]
    asked, natural = report["questions"], report["natural"]["picture"]
    lowest = min((name for name in VISUAL_QUESTIONS if name in asked["picture"]), key=asked["picture"].get)
    captions, found, search = report["captions"]["picture"], report["retrieval"], report["search"]
    below = asked["picture"]["total"] - near["questions"]["picture"]["total"]
    bars = (
        ("natural questions, right", "≥", 0.92, natural["total"]),
        ("natural questions, refused for a word", "≤", 0.02, natural["refused"]),
        (
            '"what is in the picture?": exactly the colored things (natural questions, lists)',
            "≥",
            0.90,
            natural["groups"]["list"]["right"],
        ),
        ("zero-shot questions", "≥", 0.95, asked["picture"]["total"]),
        (f"each type of them (lowest: {lowest})", "≥", 0.90, asked["picture"][lowest]),
        ("the same without a picture", "<", 0.35, asked["no_picture"]["total"]),
        ("the same with shuffled pictures", "<", 0.35, asked["shuffled_picture"]["total"]),
        ("knowledge questions", "≥", 0.95, asked["picture"]["knowledge"]),
        ("knowledge, shuffled pictures", "<", 0.15, asked["shuffled_picture"]["knowledge"]),
        ("captions, F1 of kinds", "≥", 0.97, captions["kinds_f1"]),
        ("captions that tell of one thing twice", "<", 0.02, captions["repeated"]),
        ("R@1 by ITC, picture to text", "≥", 0.98, found["itc_image_to_text_r1"]),
        ("R@1 by ITC, text to picture", "≥", 0.98, found["itc_text_to_image_r1"]),
        ("search by a phrase, precision at 5, ordered by ITM and ITC", "≥", 0.95, search["precision_at_5_both"]),
        ("ITM of a true phrase above 0.5", "≥", 0.95, search["itm_true"]),
        ("ITM of a false phrase below 0.5", "≥", 0.95, search["itm_false"]),
        ("expected calibration error", "≤", 0.05, natural["calibration"]["error"]),
        ('near domain: zero-shot questions, below "in" by', "≤", 0.05, below),
    )
    meets = {"≥": lambda x, bar: x >= bar, "≤": lambda x, bar: x <= bar, "<": lambda x, bar: x < bar}
    rows = []
    for text, sign, bar, measured in bars:
        met = meets[sign](measured, bar)
        # a miss by less than half of the last digit is shown with one digit more
        digits = 4 if not met and f"{measured:.3f}" == f"{bar:.3f}" else 3
        rows.append((text, f"{sign} {bar:.2f}", f"{measured:.{digits}f}", "yes" if met else "**no**"))
    return rows_to_table(("measure", "bar", "measured", "met"), rows)


def summary_table(report: dict) -> str:
    asked, natural = report["questions"], report["natural"]
    pictures = ("picture", "no_picture", "shuffled_picture")
    told = {kind: f"{asked['description'][kind]:.3f}" for kind in ("total", "knowledge")}
    rows = [
        ("zero-shot questions", *(f"{asked[p]['total']:.3f}" for p in pictures), told["total"]),
        ("questions as a visitor types them", *(f"{natural[p]['total']:.3f}" for p in pictures), ""),
        (
            "knowledge questions, answered in no caption",
            *(f"{asked[p]['knowledge']:.3f}" for p in pictures),
            told["knowledge"],
        ),
    ]
    return rows_to_table(("", "picture", "no picture", "another picture", "the same in words"), rows)


def told(report: dict) -> str:
    """The README's sentences with numbers."""
    natural, blind = (report["natural"][picture]["groups"] for picture in ("picture", "no_picture"))
    found, search = report["retrieval"], report["search"]
    recall = min(found["itc_image_to_text_r1"], found["itc_text_to_image_r1"])
    sentences = (
        f"Its captions name the kinds of things with an F1 of {report['captions']['picture']['kinds_f1']:.3f}.",
        f"Among 1,000 pictures and captions it finds the one that belongs to the other in {recall:.3f}. Of the first "
        f'five pictures that a few words find ("a red boat"), {search["precision_at_5_both"]:.3f} show it.',
        f"It lists exactly the things that are there in {natural['list']['right']:.3f}, and counts rightly in "
        f"{natural['count']['right']:.3f}: it may miscount things that are alike.",
        f"Asked about a thing that is not there, it says so in {natural['not there']['right']:.3f} of such questions; "
        f"but without any picture it does in {blind['not there']['right']:.3f}, so much of that is habit.",
        "Of harder questions (what is not red, what else there is, which thing can swim) "
        f"{report['harder']['picture']['total']:.3f} are answered rightly.",
    )
    return "\n".join(fill(sentence, 120, initial_indent="- ", subsequent_indent="  ") for sentence in sentences)


def tables() -> dict[str, str]:
    """Every table by its name, and the sentences of the README."""
    reports = {split: json.loads((MICRO / name).read_text()) for split, name in SPLITS.items()}
    return {
        "recipes": recipes_table(),
        "hours": hours(),
        "scores": scores_table(reports["in"]),
        "domains": domains_table(reports),
        "chain": chain_table(),
        "bars": bars_table(reports),
        "summary": summary_table(reports["in"]),
        "sentences": told(reports["in"]),
    }


def with_tables(text: str, written: dict[str, str]) -> str:
    """The text with what stands between the marks of each table replaced. Raises KeyError for an unknown name."""
    marked = re.compile(r"<!-- table: (\w+) -->\n.*?\n<!-- end -->", re.S)
    return marked.sub(lambda found: f"<!-- table: {found[1]} -->\n{written[found[1]]}\n<!-- end -->", text)


def main() -> None:
    written = tables()
    for file in FILES:
        before = file.read_text(encoding="utf-8")
        file.write_text(with_tables(before, written), encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {'changed' if file.read_text(encoding='utf-8') != before else 'as it was'}")


if __name__ == "__main__":
    main()
