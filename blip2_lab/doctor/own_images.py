"""What a run on your own images has learned, from its evaluations on held-out images and from its words.

`outcome` is what `blip2-lab train --on` says at its end. `unknown_words`, `overfitting` and `what_it_learned` are
findings for the doctor of a run (run.py) and of a finished model (model.py), which has a `TRAINING_FILE` beside it.

Notes:

* Held-out images are never trained on. With shuffled images the texts stay and their images are exchanged: a model that
  does not look at the image has the same loss.
* Retrieval is compared with chance: of M pictures one in M is found by guessing.

Paper: section 3.3. Notebook: 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2_lab.common.characters import printable
from blip2_lab.common.significance import FEWEST_PAIRS, MIN_GALLERY, shows_a_gain
from blip2_lab.doctor.finding import Finding
from blip2_lab.training.run_folder import TRAINING_FILE, RunFolder, read_training

MIN_SHUFFLED_RISE = 0.02  #: if shuffled images raise a loss by less than this share, it does not depend on the image
MANY_UNKNOWN = 0.1  #: the share of unknown running words above which they are a likely cause of a failure
OVERFITTED = 1.03  #: a loss on held-out images that has risen so far above its lowest value
MIN_FOUND = 3  #: pictures that must be found first; by chance it is one

OVERFITTING_CAUSES = (
    "so few pictures are learned by heart: more pictures, more captions of each, or fewer steps (--set optim.steps=…)",
    "the learning rate is too high",
)


@dataclass(frozen=True)
class Outcome:
    """`learned`: whether the model uses the images; None where too little was held out. `says`: one sentence."""

    learned: bool | None
    says: str


def outcome(run: str | Path) -> Outcome:
    """What the last evaluation of the finished model found. Nothing was found without held-out images."""
    return _outcome(RunFolder(run).about_training())


def _outcome(about: dict) -> Outcome:
    evaluation = _of_the_model(about)
    if not evaluation:
        return Outcome(
            None, "nothing was measured on held-out pictures: what the model does with new ones is not known"
        )
    if "shuffled" in evaluation:
        return image_use(evaluation)
    if "pictures" not in evaluation:  # a text encoder, a language model or an image encoder alone
        return Outcome(None, f"the loss on held-out examples is {evaluation['held_out']:.3g}")
    count = evaluation["pictures"]
    found = [evaluation["text_to_image_r1"], evaluation["image_to_text_r1"]]
    says = (
        f"of {count:.0f} held-out pictures {found[0]:.1%} are found first by their caption, and {found[1]:.1%} of the "
        f"captions by their picture (by chance {1 / count:.1%})"
    )
    if count < MIN_GALLERY:
        return Outcome(None, f"{says}: too few pictures to judge")
    learned = sum(found) / 2 * count > MIN_FOUND
    return Outcome(learned, says if learned else f"it finds hardly more than chance: {says}")


def image_use(evaluation: dict) -> Outcome:
    """Whether the loss on held-out images is higher with shuffled ones: by `MIN_SHUFFLED_RISE`, and by more than chance
    explains. The logs of older versions do not tell the second."""
    loss, other = evaluation["held_out"], evaluation["shuffled"]
    pair = f"the loss on held-out pictures is {loss:.3g}, shuffled {other:.3g}"
    learned: bool | None = other > (1 + MIN_SHUFFLED_RISE) * loss
    if {"p", "compared"} <= evaluation.keys():
        count, p = evaluation["compared"], evaluation["p"]
        pair += f" ({count:.0f} pictures, p = {p:.2g})"
        shown = shows_a_gain(other - loss, p, count)
        learned = None if shown is None else shown and learned
    if learned is None:
        few = f"too few pictures to tell whether it looks at them, at least {FEWEST_PAIRS} have to be held out"
        return Outcome(None, f"{few}: {pair}")
    return Outcome(learned, f"{'it looks' if learned else 'nothing shows that it looks'} at the pictures: {pair}")


def _of_the_model(about: dict) -> dict:
    """The evaluation of the finished model: the best one on held-out images."""
    evaluations = about.get("evaluations", [])
    best = about.get("best", {}).get("step")
    chosen = [record for record in evaluations if record["step"] == best] or evaluations
    return chosen[-1]["evaluation"] if chosen else {}


def unknown_words(words: dict) -> list[Finding]:
    """Findings about the words that a tokenizer does not know. `words`: the content of a run's `WORDS_FILE`."""
    found = []
    for part, known in words.items():
        if known["share"] <= 0.01:
            continue
        listed = ", ".join(printable(word) for word, _ in known["most_frequent"][:5])
        says = f"{part} does not know {known['share']:.0%} of the words of the texts ({listed})"
        causes = ("another vocabulary than the texts': train with a tokenizer and a model that know these words",)
        state = "bad" if known["share"] > MANY_UNKNOWN else "wait"
        found.append(Finding("words", state, says, causes if state == "bad" else ()))
    return found


def overfitting(about: dict, training_loss: float | None = None) -> list[Finding]:
    """Whether the loss on held-out images has risen again."""
    losses = [(record["evaluation"]["held_out"], record["step"]) for record in about.get("evaluations", [])]
    if len(losses) < 2:
        return []
    (best, step), (now, last) = min(losses), losses[-1]
    if now <= OVERFITTED * best:
        return []
    fell = f", while it trained down to {training_loss:.3g}" if training_loss is not None else ""
    kept = f"; the model of step {step} is kept" if about.get("best", {}).get("step") == step else ""
    says = (
        f"it overfits: the loss on held-out pictures was {best:.3g} at step {step} and {now:.3g} at step {last}{fell}"
    )
    return [Finding("held-out", "bad", says + kept, OVERFITTING_CAUSES)]


def what_it_learned(model: Path) -> list[Finding]:
    """Findings about the training of a finished model, if it has a `TRAINING_FILE` beside it: for people who were not
    there when it was trained. An overfitted run keeps its best weights, so this is a warning; and so is a damaged
    file, which the other checks of the model do not need."""
    file = model / TRAINING_FILE
    if not file.is_file():
        return []
    try:
        about = read_training(file)
    except ValueError as error:
        return [Finding("pictures", "wait", f"{error}.")]
    found = unknown_words(about["words"])
    for finding in overfitting(about):
        found.append(Finding(finding.about, "wait", finding.says, finding.causes))
    learned = _outcome(about)
    if learned.learned is not None:
        found.append(Finding("pictures", "good" if learned.learned else "bad", learned.says))
    return [_with_causes(finding) for finding in found]


def _with_causes(finding: Finding) -> Finding:
    """The causes as part of the sentence: the report of a model has one line for each finding."""
    causes = f"; maybe: {'; '.join(finding.causes)}" if finding.causes else ""
    return Finding(finding.about, finding.state, f"{finding.says}{causes}.", finding.causes)


def vocabulary_causes(words: dict) -> Sequence[str]:
    """Unknown words as a cause of a model that does not use the images."""
    return [f"{finding.says}: it can neither read nor write them" for finding in unknown_words(words)]
