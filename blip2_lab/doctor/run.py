"""Self-checks of a training run from its log, while it runs or after it.

`diagnose_run` is where to begin; `run_report` prints the findings.

Notes:

* A loss is compared with its chance level, with the shipped run of the same recipe at the same step, and with its value
  on shuffled images. The last comparison shows whether the model uses the image, which a falling loss alone does not.
* ITM at 0.637 for hundreds of steps is normal: its negatives are hard only after ITC has learned to rank.
* Each finding is a sentence with its usual causes, the likeliest first. Early steps are not judged.

Paper: sections 3.2 and 3.3. Notebook: 08.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blip2_lab.common.files import read_object
from blip2_lab.doctor.finding import STATES, Finding
from blip2_lab.doctor.own_images import MIN_SHUFFLED_RISE, image_use, overfitting, unknown_words, vocabulary_causes
from blip2_lab.models.losses import ITM_CHANCE
from blip2_lab.training.run_folder import RunFolder, read_log, reference_log

# ------------------------------------------------------------------------------------------------------------- of a run

EARLY = 200  #: earlier steps are not judged, nor those before twice the warm-up
AT_CHANCE = {
    "itc": 0.95,
    "itm": 0.97,
    "itg": 0.9,
}  #: above this share of its chance level, a loss counts as not learned
CLEARLY_ABOVE = 1.1  #: times its chance level; a loss varies by less around it
SLOW = 0.3  #: a run is slow if it lags by more than this share of the reference's progress
NAMES = {"itc": "ITC", "itm": "ITM", "itg": "ITG", "total": "the loss"}


@dataclass(frozen=True)
class Run:
    """A log. `chance`: chance level by loss, if known; `reference`: another run's log, or empty; `about`: evaluations
    and words of a run on your own images (`RunFolder.about_training`), or empty."""

    records: list[dict]
    evaluations: list[dict]
    chance: dict[str, float]
    reference: list[dict]
    warmup: int
    about: dict = field(default_factory=dict)

    @property
    def step(self) -> int:
        return self.records[-1]["step"]

    @property
    def early(self) -> bool:
        return self.step < max(EARLY, 2 * self.warmup)

    def value(self, name: str) -> float:
        """The current value of a loss: the mean of the last three lines."""
        return _mean([record[name] for record in self.records[-3:]])

    def expected(self, name: str, step: int | None = None) -> float | None:
        """The reference's value at that step (default: the current one); None if the reference is shorter."""
        step = self.step if step is None else step
        known = [record for record in self.reference if name in record]
        if not known or known[-1]["step"] < step:
            return None
        return min(known, key=lambda record: abs(record["step"] - step))[name]

    def learns(self, name: str) -> bool:
        return name in self.chance and self.value(name) < AT_CHANCE[name] * self.chance[name]


def diagnose_run(folder: str | Path, reference: Sequence[dict] | None = None) -> list[Finding]:
    """Findings from the log of a run folder, worst first. `reference`: another log; None: the shipped one of its
    recipe.

    Raises ValueError if there is no log.
    """
    folder = Path(folder)
    log = read_log(folder)
    records = [record for record in log if isinstance(record.get("total"), int | float)]
    if not records and (folder / "run.json").is_file():
        raise ValueError(f"{folder} has not logged a loss yet: it stopped before its first line in log.jsonl")
    if not records:
        raise ValueError(f"{folder} has no log.jsonl with a loss in it: give the folder of a run, such as runs/NAME")
    recipe, settings = _json(folder / "recipe.json"), _json(folder / "run.json")
    optim = recipe.get("optim") or settings
    chance = settings.get("chance", {})
    if not chance and "itc" in records[0] and optim.get("batch_size"):
        chance = {"itc": math.log(optim["batch_size"] // optim.get("accumulate", 1)), "itm": ITM_CHANCE}
    if reference is None:
        reference = reference_log(recipe.get("curve") or recipe.get("name", ""))
    evaluations = [record for record in log if _is_evaluated(record)]
    about = RunFolder(folder).about_training()
    run = Run(records, evaluations, chance, list(reference), optim.get("warmup_steps", 0), about)
    found = [*_numbers(run), *_objectives(run), *_image_use(run), *unknown_words(about.get("words", {}))]
    found += overfitting(about, run.value("total"))
    return sorted(found, key=lambda finding: STATES.index(finding.state))


def _is_evaluated(record: dict) -> bool:
    """Whether a record has measurements, in numbers."""
    measured = [record[name] for name in ("evaluation", "matched", "shuffled") if name in record]
    return bool(measured) and all(
        isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())
        for found in measured
    )


def _json(path: Path) -> dict:
    """The settings in a file; empty where there is none. Raises ValueError for one of another form."""

    def fits(settings: dict) -> bool:
        optim, chance = settings.get("optim") or settings, settings.get("chance", {})
        counts = ("batch_size", "accumulate", "warmup_steps")
        return (
            isinstance(optim, dict)
            and isinstance(chance, dict)
            and all(isinstance(optim.get(name, 0), int) for name in counts)
            and all(isinstance(level, int | float) for level in chance.values())
        )

    return read_object(path, fits=fits) if path.exists() else {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(run: Run) -> list[Finding]:
    """Checks of any loss: not finite, no gradient, rising."""
    last = run.records[-3:]
    if not all(math.isfinite(record["total"]) for record in last):
        causes = (
            "the learning rate is too high, or the warm-up too short",
            "fp16 overflows: --set optim.precision=bf16",
        )
        return [Finding("total", "bad", f"the loss is not a number at step {run.step}", causes)]
    norms = [record["grad_norm"] for record in last if "grad_norm" in record]
    if norms and max(norms) < 1e-6:
        says = f"no gradient arrives: its norm is {max(norms):.1g}"
        causes = ("what should train is frozen", "the loss is computed from detached tensors", "the learning is over")
        return [Finding("total", "bad", says, causes)]
    finite = [record for record in run.records if math.isfinite(record["total"])]  # beside NaN nothing rises
    best, now = min(finite, key=lambda record: record["total"]), run.value("total")
    as_expected = now < 1.15 * (run.expected("total") or 0)  # a curriculum raises the loss on purpose
    if not run.early and not as_expected and now > 1.15 * best["total"] and best["step"] < 0.9 * run.step:
        says = f"the loss was {best['total']:.3g} at step {best['step']} and is {now:.3g} now: it rises"
        causes = ("the learning rate is too high", "no gradient clipping: --set optim.grad_clip=1", "the data changed")
        return [Finding("total", "bad", says, causes)]
    return []


CAUSES = {
    "itc": (
        "captions do not belong to their pictures: look at a few examples",
        "the image features are the same for all pictures (the encoder or its preprocessing)",
        "the learning rate is too low, or the warm-up too long",
        "the batch is full of copies of one picture",
    ),
    "itm": (
        "the mask hides text and queries from each other: ITM needs bidirectional_mask",
        "the negatives are true pairs: the same picture or caption twice in a batch",
        "ITC has only just begun to tell pictures apart: give it some hundred steps more",
    ),
    "itg": (
        "labels and logits are shifted against each other",
        "the learning rate is too low",
        "the tokenizer is not the one of the word embeddings",
    ),
}


def _objectives(run: Run) -> list[Finding]:
    """Stage 1's three losses, one by one; for other tasks the total."""
    names = [name for name in ("itc", "itm", "itg") if all(name in record for record in run.records[-3:])]
    return [_objective(run, name) for name in names or ["total"]]


def _objective(run: Run, name: str) -> Finding:
    title, now, chance = NAMES[name], run.value(name), run.chance.get(name)
    expected = run.expected(name)
    beside = f"; the shipped run had {expected:.3g} here" if expected is not None else ""
    if not math.isfinite(now):
        return Finding(name, "bad", f"{title} is not a number")
    if name == "total":
        return _total(run, now, expected, beside)
    if chance is None:
        return Finding(name, "wait", f"{title} is {now:.3g}{beside}; its chance level is not in the log")
    level = f"{now:.3g}, {'above' if now > CLEARLY_ABOVE * chance else 'at'} its chance level {chance:.3g}"
    if not run.learns(name):
        if run.early:
            return Finding(name, "wait", f"{title} is {level}: {run.step} steps are too few to judge{beside}")
        if name == "itm" and not run.learns("itc"):
            return Finding(name, "wait", f"ITM is {level}: it cannot learn before ITC does")
        if expected is not None and expected >= AT_CHANCE[name] * chance:
            return Finding(name, "wait", f"{title} is {level}; so was the shipped run here")
        return Finding(name, "bad", f"{title} is {level}: it does not learn{beside}", CAUSES[name])
    if name == "itg" and not run.learns("itc") and "itc" in run.chance and now < 0.2 * chance:
        causes = ("the text sees the words it should predict: ITG needs multimodal_causal_mask",)
        return Finding(name, "bad", f"ITG is {now:.3g} while ITC knows nothing: too good to be true", causes)
    if expected is not None:
        if now < 0.5 * expected and expected > 0.3 * chance:
            causes = ("a mask lets the answer through", "another batch size or other data than the shipped run's")
            return Finding(name, "bad", f"{title} is {now:.3g}{beside}: too good to be true", causes)
        if now - expected > SLOW * (chance - expected):
            causes = ("other settings than the shipped run's (learning rate, batch size, data)", *CAUSES[name][:1])
            return Finding(name, "bad", f"{title} learns, but slowly: {now:.3g}{beside}", causes)
    return Finding(name, "good", f"{title} learns: {now:.3g}, from {chance:.3g} by chance{beside}")


def _total(run: Run, now: float, expected: float | None, beside: str) -> Finding:
    first = next(record["total"] for record in run.records if math.isfinite(record["total"]))
    if run.early:
        return Finding("total", "wait", f"the loss is {now:.3g} after {run.step} steps: too few to judge{beside}")
    if now > 0.97 * first:
        causes = ("the learning rate is too low", "what should train is frozen", "it started from a trained model")
        return Finding("total", "bad", f"the loss does not fall: {first:.3g} at first, {now:.3g} now{beside}", causes)
    if expected is not None and now - expected > SLOW * (first - expected):
        causes = ("other settings than the shipped run's", "what it starts from (stage 1, the language model) is worse")
        return Finding("total", "bad", f"the loss falls, but slowly: {now:.3g}{beside}", causes)
    return Finding("total", "good", f"the loss falls: {first:.3g} at first, {now:.3g} now{beside}")


IMAGE_UNUSED_CAUSES = (
    "the image features are the same for all pictures (the encoder or its preprocessing)",
    "nothing carries the picture to the text: cross-attention, language projection or query tokens do not train",
    "the texts can be guessed without a picture",
    "a tokenizer does not know the words of the texts (words.json in the run's folder)",
    "there are too few pictures, or too few steps",
    "stage 2 without stage 1 may need many more steps (Figure 5)",
)


def _image_use(run: Run) -> list[Finding]:
    """Whether the model uses the image: losses and answers with matched and with shuffled images."""
    found = []
    last_pair = next(
        (record for record in reversed(run.evaluations) if "matched" in record and "shuffled" in record), None
    )
    if last_pair:
        matched, shuffled = last_pair["matched"], last_pair["shuffled"]
        both = matched.keys() & shuffled.keys()
        for name in [name for name in ("itg", "total") if name in both and ("itg" not in matched or name == "itg")]:
            pair = f"{NAMES[name]} is {matched[name]:.3g}, with shuffled pictures {shuffled[name]:.3g}"
            found.append(_image_use_finding(run, pair, shuffled[name] > (1 + MIN_SHUFFLED_RISE) * matched[name]))
    last = next(
        (record["evaluation"] for record in reversed(run.evaluations) if "shuffled" in record.get("evaluation", {})), {}
    )
    if "accuracy" in last:
        pair = f"of the questions {last['accuracy']:.0%} are right, with shuffled pictures {last['shuffled']:.0%}"
        found.append(_image_use_finding(run, pair, last["accuracy"] > last["shuffled"] + 0.05))
    if "held_out" in last:
        use = image_use(last)
        if use.learned is None:
            found.append(Finding("pictures", "wait", use.says))
        else:
            found.append(_image_use_finding(run, use.says.partition(": ")[2], use.learned))
    return found


def _image_use_finding(run: Run, pair: str, seen: bool) -> Finding:
    if seen:
        return Finding("pictures", "good", f"it looks at the pictures: {pair}")
    causes = (*vocabulary_causes(run.about.get("words", {})), *IMAGE_UNUSED_CAUSES)
    if run.early:
        return Finding("pictures", "wait", f"{pair}: {run.step} steps are too few to judge", causes)
    return Finding("pictures", "bad", f"nothing shows that it looks at the pictures: {pair}", causes)


def run_report(findings: Sequence[Finding]) -> str:
    """Findings for the terminal, with an overall verdict."""
    marks = {"bad": "!", "wait": "-", "good": "+"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.says}")
        lines += [f"    maybe: {cause}" for cause in finding.causes]
    worst = min((finding.state for finding in findings), key=STATES.index)
    ends = {"bad": "something is wrong", "wait": "nothing is wrong so far", "good": "all is well"}
    return "\n".join([*lines, ends[worst]])
