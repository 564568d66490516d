"""A model measured on pictures of one's own: captions, questions and retrieval, each beside its baselines.

`draw_pictures` and `evaluate_on` are where to begin; `own_table` prints the result.

    blip2-lab evaluate --on my_pictures/ --model runs/my_pictures/model

Notes:

* The baselines are the same texts without a picture (blind), with another picture (shuffled), the answer that is most
  frequent among these questions (majority), and retrieval at random (chance).
* Intervals are 95 %, by drawing *pictures* with replacement (bootstrap): texts of one picture are not independent.
  BLEU-4 has none, because it is of the corpus. CIDEr's word weights stay those of all pictures.
* Whether a model uses the pictures is judged by the difference to shuffled pictures, picture by picture, and by
  `significance.randomization_p` at 5 % (`conclusions`). With fewer pictures than `significance.FEWEST_PAIRS`, nothing
  is said.
* Questions that begin alike ("how many", "what is") are also measured by themselves: their most frequent answer is a
  harder baseline than that of all questions.
* A complete BLIP-2 may carry a stage 1 that its training did not change: fine-tuning on captions keeps the one that it
  started from. Retrieval by the shipped stage 1 is left out, with a sentence, because it is no result of that training.
* Pictures that the model was trained on are not told apart (the command notes it where they are all of its run's).
  Keep some in a folder of their own to measure with.

Paper: sections 4.1, 4.2 and 4.4. Notebook: none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral

import torch
from torch import Tensor

from blip2_lab.checkpoints import files
from blip2_lab.checkpoints.load import MICRO
from blip2_lab.common import significance
from blip2_lab.common.characters import has_no_word, printable
from blip2_lab.common.console import count_of
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import AskedQuestion, LeftOut, epoch_order, left_out_report
from blip2_lab.data.left_out import pixels_digest, same_caption
from blip2_lab.data.mixture import Source, is_stream, open_sources
from blip2_lab.evaluation import captioning, metrics, vqa
from blip2_lab.evaluation.natural import Shown, prompts_for
from blip2_lab.evaluation.scenes import CAPTION_PROMPT, CAPTIONS
from blip2_lab.models import retrieval
from blip2_lab.models.bridges import DualEncoder
from blip2_lab.models.decoding import Decoding
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model, check_answers

RANKS = (1, 5, 10)
ANNOTATORS = 10  #: of a question of VQA v2
ENOUGH = 3  #: other annotators with whom an answer has the accuracy 1
FEWEST = 5  #: questions with one beginning that are measured by themselves
SHORTLIST = 128  #: candidates that ITM re-ranks, as in the paper
MOST_TEXTS = 5000  #: captions in the gallery; COCO's test set has as many pictures
GUEST = (
    "retrieval was left out: this model carries the stage 1 that ships with the package, which its training did not "
    "change; `--model micro` measures that one"
)

#: What is said of a part, by `significance.shows_a_gain` over shuffled pictures.
VERDICTS = {
    True: "it looks at the pictures",
    False: "nothing shows that it looks at the pictures",
    None: f"too few pictures to tell whether it looks at them, at least {significance.FEWEST_PAIRS} are needed",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Drawn:
    """Pictures to measure on, not yet opened: (source, number), of how many, and all sources of the place."""

    place: str
    rows: list[tuple[Source, int]]
    count: int
    sources: Sequence[Source] = ()


@dataclass(frozen=True)
class OwnPictures:
    """Pictures that could be opened, encoded, with their texts; and what was left out."""

    features: Tensor  # image_features [P, N, Dv] of the frozen encoder
    captions: list[tuple[str, ...]]
    questions: list[tuple[AskedQuestion, ...]]
    left_out: list[LeftOut]
    copies: int = 0  #: pictures with the same pixels as an earlier one

    @property
    def note(self) -> str:
        """How many pictures there are, and how many were left out, by cause."""
        return left_out_report(len(self.captions), self.left_out)


def evaluate_on(
    model: Stage2Model | Stage1Model,
    drawn: Drawn,
    *,
    num_beams: int = 1,
    batch_size: int = 32,
    say: Say = lambda _: None,
) -> dict:
    """All measurements on pictures that `draw_pictures` drew, as one dictionary, ready for JSON.

    num_beams  of the answers; captions use `scenes.CAPTIONS`

    Raises ValueError if fewer than two pictures can be opened, and for a dual encoder.
    """
    if not isinstance(model, Stage1Model | DualEncoder):
        check_answers(model)
    if not isinstance(drawn, Drawn) or batch_size < 1:
        raise ValueError("Pass the pictures as draw_pictures(PLACE) gives them, and a batch_size of 1 or more.")
    if isinstance(model, DualEncoder):
        raise ValueError(
            "A dual encoder writes no answers and has no stage 1, so it is not measured on other pictures: "
            "`compare bridges` measures it on drawn scenes, and so does `evaluate referring`."
        )
    own = read_pictures(model, drawn, batch_size, say)
    report: dict = {"place": drawn.place, "pictures": len(own.features), "read": own.note, "notes": text_notes(own)}
    report["left_out"] = [asdict(one) for one in own.left_out]
    if isinstance(model, Stage2Model):
        shown = Shown.of(model, own.features, batch_size)
        conditions = {"picture": shown, "no_picture": shown.nothing(), "shuffled_picture": shown.shuffled()}
        if any(own.captions):
            report["captions"] = _captions(model, conditions, own, batch_size, say)
        if any(own.questions):
            report["questions"] = _questions(model, conditions, own, Decoding(num_beams=num_beams), batch_size, say)
    stage1 = model if isinstance(model, Stage1Model) else model.stage1
    if stage1 is None:
        report["notes"].append("retrieval was left out: this model has no stage 1, which compares pictures and texts")
    elif isinstance(model, Stage2Model) and has_guest_stage1(model):
        report["notes"].append(GUEST)
    elif any(own.captions):
        say(f"searching among {len(own.features)} pictures and their captions")
        report["retrieval"] = retrieval_scores(retrieval.require_stage1(model), own, batch_size)
    report["conclusions"] = [asdict(one) for one in conclusions(report)]
    return report


@dataclass(frozen=True)
class Conclusion:
    """What the measurement of one part shows. `uses_pictures`: it is better than with other pictures, or than guessing,
    by more than chance explains; None where there are too few pictures to tell. `says`: one sentence."""

    part: str
    uses_pictures: bool | None
    says: str


def conclusions(report: dict) -> list[Conclusion]:
    """What the numbers of captions, questions and retrieval say about the model."""
    results = []
    for part, measure in (("captions", "CIDEr"), ("questions", "accuracy")):
        if part not in report:
            continue
        with_picture, other = (report[part][name][measure] for name in ("picture", "shuffled_picture"))
        gain, count = report[part]["gain"][measure], report[part]["pictures"]
        numbers = f"{measure} {with_picture:.3f}, with another picture {other:.3f}, p = {gain['p']:.2g}"
        if part == "questions":
            numbers += f", the most frequent answer {report[part]['majority']['accuracy']:.3f}"
        looks = significance.shows_a_gain(gain["value"], gain["p"], count)
        results.append(Conclusion(part, looks, f"{part}: {VERDICTS[looks]} ({numbers}, {count} pictures)"))
    if "retrieval" in report:
        scores = report["retrieval"]["picture"]["itm_text_to_image"]
        count, chance = report["retrieval"]["pictures"], report["retrieval"]["chance"]["text_to_image"]["R@1"]
        better = scores["R@1_low"] > chance if count >= significance.MIN_GALLERY else None
        verdict = {
            True: "it finds pictures by their captions",
            False: "it finds hardly more than chance",
            None: f"too few pictures to judge, {significance.MIN_GALLERY} are needed",
        }[better]
        numbers = f"{scores['R@1']:.1%} of the captions find their picture first among {count}, by chance {chance:.1%}"
        results.append(Conclusion("retrieval", better, f"retrieval: {verdict} ({numbers})"))
    return results


def draw_pictures(place: str | os.PathLike, most: int = 1000) -> Drawn:
    """Draw at most `most` pictures from what `data.mixture.open_sources` finds at a place; none is opened yet.

    Raises ValueError for fewer than two, and for a place that cannot be read by index.
    """
    if not isinstance(most, Integral) or most < 2:
        raise ValueError(f"--pictures is {most}; at least 2 are needed, or there is no other picture to shuffle in")
    sources = open_sources(place).sources
    for source in sources:
        if is_stream(source):
            raise ValueError(f"{source.name} is a stream, which cannot be drawn from at random: download it first")
    rows = [(source, number) for source in sources for number in range(len(source))]
    order = epoch_order(0, 0, len(rows)).tolist()
    return Drawn(os.fspath(place), [rows[i] for i in sorted(order[:most])], len(rows), sources)


@torch.no_grad()
def read_pictures(
    model: Stage2Model | Stage1Model, drawn: Drawn, batch_size: int, say: Say = lambda _: None
) -> OwnPictures:
    """Open and encode the pictures. Those that cannot be opened are left out, and named."""
    encoder = model.image_encoder
    if encoder is None:
        raise ValueError("this stage-1 model has no image encoder, which reads pictures: load one that has")
    say(f"reading {len(drawn.rows)} of {drawn.count} pictures")
    features, captions, questions, waiting, left_out = [], [], [], [], []
    seen: set[bytes] = set()

    def encode() -> None:
        if waiting:
            features.append(encoder(encoder.preprocess(waiting)))
            waiting.clear()

    for source, number in drawn.rows:
        record = None
        try:
            record = source.record(number)
            example = record.open()
        except BrokenSample as broken:
            left_out.append(LeftOut((record and record.id) or str(number), broken.cause, str(broken)))
            continue
        left_out += [LeftOut(record.id, "unread part", sentence) for sentence in record.unread]
        waiting.append(example.image)
        seen.add(pixels_digest(example.image))
        captions.append(tuple(example.captions))
        asked = [q if isinstance(q, AskedQuestion) else AskedQuestion(q.text, (q.answer,)) for q in example.questions]
        questions.append(tuple(question for question in asked if question.answers))
        if len(waiting) == batch_size:
            encode()
    encode()
    left_out = [*(one for source in drawn.sources for one in source.left_out), *left_out]
    if len(captions) < 2:
        note = left_out_report(len(captions), left_out)
        raise ValueError(f"{drawn.place}: {note}; at least 2 pictures are needed to shuffle them")
    if not any(captions) and not any(questions):
        raise ValueError(f"{drawn.place} has no caption and no answered question to measure with")
    return OwnPictures(torch.cat(features), captions, questions, left_out, len(captions) - len(seen))


def text_notes(own: OwnPictures) -> list[str]:
    """What of the texts and pictures makes the numbers say less than they seem to; one sentence each."""
    notes = []
    captions = [caption for texts in own.captions for caption in texts]
    if own.copies:
        all_of_them = f"of the {len(own.captions)} pictures"
        copies = count_of(own.copies, f"{all_of_them} is a copy of another", f"{all_of_them} are copies of others")
        notes.append(
            f"{copies}: for some, another picture is the same one, so nothing shows there whether the model looks at it"
        )
    if len(captions) > 1 and len(set(captions)) == 1:
        notes.append(same_caption(captions[0]))
    if wordless := [caption for caption in captions if has_no_word(caption)]:
        notes.append(
            f"{count_of(len(wordless), 'caption has', 'captions have')} no word ({printable(wordless[0])[:40]!r}): no "
            "answer can match it"
        )
    asked = [question for questions in own.questions for question in questions]
    if len(asked) > 1 and len(answers := {question.answer for question in asked}) == 1:
        answer = next(iter(answers))[:60]
        notes.append(
            f"every question has the same answer ({answer!r}): a model that always says it is right without a picture"
        )
    return notes


def has_guest_stage1(model: Stage2Model) -> bool:
    """Whether the model carries the shipped stage 1, and is not the shipped model itself."""
    folder, names = MICRO / "stage1", ("qformer.query_tokens", "vision_projection.weight", "itm_head.weight")
    if model.stage1 is None or not (folder / "config.json").is_file():
        return False
    return _has_weights(model.stage1, folder, names) and not _has_weights(
        model, MICRO, ("language_projection.weight", "query_tokens")
    )


def _has_weights(module: torch.nn.Module, folder, names: Sequence[str]) -> bool:
    """Whether these tensors of a folder, whatever part of the module has them under this name, are the module's."""
    stored = dict(files.read_tensors(files.weight_files(folder)))
    own = module.state_dict()
    for name in names:
        found = next((tensor for key, tensor in own.items() if key == name or key.endswith(f".{name}")), None)
        if (
            found is None
            or found.shape != stored[name].shape
            or not torch.equal(found.float().cpu(), stored[name].float())
        ):
            return False
    return True


# ------------------------------------------------------------------------------------------------------------ captions

_CAPTION_SCORES = ("CIDEr", "BLEU-4", "ROUGE-L")


@torch.no_grad()
def _captions(model: Stage2Model, conditions: dict[str, Shown], own: OwnPictures, batch_size: int, say: Say) -> dict:
    """`_CAPTION_SCORES` in every condition, and the gain over shuffled pictures."""
    rows = [i for i, texts in enumerate(own.captions) if texts]
    references = [own.captions[i] for i in rows]
    per_picture: dict[str, dict[str, list]] = {}
    report: dict = {"pictures": len(rows), "references": sum(map(len, references)), "examples": []}
    for name, shown in conditions.items():
        say(f"writing {len(rows)} captions: {name.replace('_', ' ')}")
        written: list[str] = []
        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            texts = [CAPTION_PROMPT] * len(chunk)
            written += model.language_model.generate(prompts_for(model, shown, chunk, texts), texts, CAPTIONS)
        scores = captioning.caption_scores(written, references)
        per_picture[name] = {"CIDEr": scores["CIDEr"].images, "ROUGE-L": scores["ROUGE-L"].images}
        report[name] = {measure: scores[measure].corpus for measure in _CAPTION_SCORES}
        report[name] |= {
            f"{measure}_{end}": value
            for measure, values in per_picture[name].items()
            for end, value in zip(("low", "high"), metrics.bootstrap_interval(values), strict=True)
        }
        if name == "picture":
            report["examples"] = [
                {"written": text, "reference": texts[0]} for text, texts in zip(written[:5], references, strict=False)
            ]
    report["gain"] = {
        measure: _gain(per_picture["picture"][measure], per_picture["shuffled_picture"][measure])
        for measure in per_picture["picture"]
    }
    return report


def _gain(picture: Sequence[float], shuffled: Sequence[float], counts: Sequence[int] | None = None) -> dict[str, float]:
    """The difference of the means over pictures, with its interval, and `p` (`significance.randomization_p`)."""
    differences = [one - other for one, other in zip(picture, shuffled, strict=True)]
    low, high = metrics.bootstrap_interval(differences, counts)
    weight = len(differences) if counts is None else sum(counts)
    return {
        "value": sum(differences) / weight,
        "low": low,
        "high": high,
        "p": significance.randomization_p(differences),
    }


# ----------------------------------------------------------------------------------------------------------- questions


@torch.no_grad()
def _questions(
    model: Stage2Model,
    conditions: dict[str, Shown],
    own: OwnPictures,
    decoding: Decoding,
    batch_size: int,
    say: Say,
) -> dict:
    """The accuracy in every condition, of the majority answer, and the gain over shuffled pictures."""
    asked = [(row, question) for row, questions in enumerate(own.questions) for question in questions]
    rows = sorted({row for row, _ in asked})
    counts = [len(own.questions[row]) for row in rows]
    by_several = sum(has_votes(question) for _, question in asked)
    report: dict = {
        "pictures": len(rows),
        "questions": len(asked),
        "vqa_accuracy": by_several,
        "exact": len(asked) - by_several,
    }
    answers = {"majority": [Counter(question.answer for _, question in asked).most_common(1)[0][0]] * len(asked)}
    template = model.language_model.question_prompt
    for name, shown in conditions.items():
        say(f"asking {len(asked)} questions: {name.replace('_', ' ')}")
        answers[name] = []
        for start in range(0, len(asked), batch_size):
            chunk = asked[start : start + batch_size]
            texts = [template.format(question.text) for _, question in chunk]
            seen = prompts_for(model, shown, [row for row, _ in chunk], texts)
            answers[name] += model.language_model.generate(seen, texts, decoding)
    sums: dict[str, list[float]] = {}
    marks: dict[str, list[float]] = {}
    for name, given in answers.items():
        marks[name] = [answer_accuracy(answer, question) for (_, question), answer in zip(asked, given, strict=True)]
        right = dict.fromkeys(rows, 0.0)
        for (row, _), mark in zip(asked, marks[name], strict=True):
            right[row] += mark
        sums[name] = list(right.values())
        low, high = metrics.bootstrap_interval(sums[name], counts)
        report[name] = {"accuracy": sum(sums[name]) / len(asked), "low": low, "high": high}
    report["majority"]["answer"] = answers["majority"][0]
    report["gain"] = {"accuracy": _gain(sums["picture"], sums["shuffled_picture"], counts)}
    report["beginnings"] = _by_beginning([question for _, question in asked], marks)
    return report


def _by_beginning(questions: Sequence[AskedQuestion], marks: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The accuracies of questions that begin with the same two words, `FEWEST` or more, the most frequent first."""
    groups: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(" ".join(question.text.lower().split()[:2]), []).append(place)
    result: dict[str, dict[str, float]] = {}
    for beginning, places in sorted(groups.items(), key=lambda item: -len(item[1])):
        if len(places) < FEWEST:
            continue
        usual = Counter(questions[i].answer for i in places).most_common(1)[0][0]
        result[beginning] = {"questions": len(places)} | {
            name: sum(marks[name][i] for i in places) / len(places)
            for name in ("picture", "no_picture", "shuffled_picture")
        }
        result[beginning]["majority"] = sum(answer_accuracy(usual, questions[i]) for i in places) / len(places)
    return result


def has_votes(question: AskedQuestion) -> bool:
    """Whether the answers are those of annotators, of whom several agree: VQA v2's ten, or fewer of which one is given
    by four. Of two or three, or of a list of different right answers, none could reach a VQA accuracy of 1."""
    answers = Counter(answer.strip().lower() for answer in question.answers)
    return answers.total() >= ANNOTATORS or max(answers.values(), default=0) > ENOUGH


def answer_accuracy(answer: str, question: AskedQuestion) -> float:
    """VQA accuracy by the present rule where annotators voted (`has_votes`), else 1 for one of the answers.

    The answer is lower-cased, as before an upload: the rule does not where all annotators agree.
    """
    answer = answer.strip().removesuffix(".").strip().lower()
    if has_votes(question):
        return vqa.vqa_accuracy(answer, question.answers)
    return float(any(metrics.exact_match(answer, truth) for truth in question.answers))


# ----------------------------------------------------------------------------------------------------------- retrieval


@torch.no_grad()
def retrieval_scores(stage1: Stage1Model, own: OwnPictures, batch_size: int) -> dict:
    """R@1, R@5, R@10 in both directions, by ITC and after ITM re-ranks: with the pictures, shuffled, and by chance."""
    rows = [i for i, texts in enumerate(own.captions) if texts]
    texts = [(place, text) for place, row in enumerate(rows) for text in own.captions[row]][:MOST_TEXTS]
    rows = rows[: texts[-1][0] + 1]
    owner = torch.tensor([place for place, _ in texts])
    ids, mask = stage1.tokenize([text for _, text in texts])
    gallery = retrieval.read_gallery(stage1, own.features[rows].split(batch_size))
    found = retrieval.retrieve(stage1, gallery, ids, mask, shortlist=SHORTLIST, rank_by="both", batch_size=batch_size)
    right = owner[None, :] == torch.arange(len(rows))[:, None]  # bool[P, M]
    report: dict = {"pictures": len(rows), "captions": len(texts), "shortlist": min(SHORTLIST, len(texts))}
    # the shuffled picture of row i is that of row i - 1: its captions are the right ones then
    for name, truth in (("picture", right), ("shuffled_picture", right.roll(1, dims=0))):
        report[name] = {
            "itc_image_to_text": _recalls(found.itc.cpu(), truth),
            "itc_text_to_image": _recalls(found.itc.T.cpu(), truth.T, truth),
            "itm_image_to_text": _recalls(found.image_to_text.cpu(), truth),
            "itm_text_to_image": _recalls(found.text_to_image.cpu(), truth.T, truth),
        }
    of_each = right.sum(dim=1).tolist()
    report["chance"] = {
        "image_to_text": {
            f"R@{k}": sum(metrics.chance_recall(len(texts), own_texts, k) for own_texts in of_each) / len(rows)
            for k in RANKS
        },
        "text_to_image": {f"R@{k}": metrics.chance_recall(len(rows), 1, k) for k in RANKS},
    }
    return report


def _recalls(scores: Tensor, right: Tensor, pictures: Tensor | None = None) -> dict[str, float]:
    """R@k of each row, with the interval over pictures: rows are pictures, or `pictures` bool[P, rows] has theirs."""
    result: dict[str, float] = {}
    for k in RANKS:
        hits = metrics.hits_at(scores, right, k).double()
        result[f"R@{k}"] = hits.mean().item()
        if pictures is None:
            low, high = metrics.bootstrap_interval(hits.tolist())
        else:
            low, high = metrics.bootstrap_interval((pictures.double() @ hits).tolist(), pictures.sum(dim=1).tolist())
        result |= {f"R@{k}_low": low, f"R@{k}_high": high}
    return result


# --------------------------------------------------------------------------------------------------------------- table


def own_table(report: dict) -> str:
    """A report of `evaluate_on` as Markdown: each measure beside its baselines, with 95 % intervals over pictures."""
    lines = [f"{report['place']}: {report['read']}", "", *(f"- {one['says']}" for one in report["conclusions"])]
    if found := report.get("captions"):
        lines += [
            "",
            f"| captions of {found['pictures']} pictures | picture | no picture | shuffled | gain over shuffled |",
        ]
        lines.append("|---" * 5 + "|")
        for measure in _CAPTION_SCORES:
            cells = [_cell(found[name], measure) for name in ("picture", "no_picture", "shuffled_picture")]
            gain = found["gain"].get(measure)
            lines.append(f"| {measure} | {' | '.join(cells)} | {_difference(gain) if gain else '–'} |")
    if found := report.get("questions"):
        ways = [f"{found['vqa_accuracy']} by VQA accuracy ({vqa.RULES[0]})"] if found["vqa_accuracy"] else []
        ways += [f"{found['exact']} by equal answer"] if found["exact"] else []
        heads = f"picture | no picture | shuffled | majority: {found['majority']['answer']} | gain over shuffled"
        lines += ["", f"| {found['questions']} questions | {heads} |", "|---" * 6 + "|"]
        names = ("picture", "no_picture", "shuffled_picture", "majority")
        cells = [f"{found[n]['accuracy']:.3f} ({found[n]['low']:.3f}–{found[n]['high']:.3f})" for n in names]
        lines.append(f"| {', '.join(ways)} | {' | '.join(cells)} | {_difference(found['gain']['accuracy'])} |")
        if len(found["beginnings"]) > 1:
            lines += ["", "| questions that begin with | how many | picture | no picture | shuffled | majority |"]
            lines.append("|---" * 6 + "|")
            for beginning, scores in found["beginnings"].items():
                cells = [f"{scores[name]:.3f}" for name in names]
                lines.append(f"| {beginning} | {scores['questions']} | {' | '.join(cells)} |")
    if found := report.get("retrieval"):
        where = f"{found['pictures']} pictures and {found['captions']} captions"
        lines += ["", f"| retrieval among {where} | R@1 | R@5 | R@10 | R@1 shuffled | R@1 chance |", "|---" * 6 + "|"]
        for way, label in (("itc", "ITC"), ("itm", f"ITM re-ranks {found['shortlist']}, with ITC's logit")):
            for direction in ("image_to_text", "text_to_image"):
                scores = found["picture"][f"{way}_{direction}"]
                cells = [_cell(scores, f"R@{k}") for k in RANKS]
                cells.append(f"{found['shuffled_picture'][f'{way}_{direction}']['R@1']:.3f}")
                cells.append(f"{found['chance'][direction]['R@1']:.3f}")
                name = direction.replace("_", " ").replace("image", "picture")
                lines.append(f"| {name}, {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"note: {note}" for note in report["notes"])]).rstrip()


def _cell(scores: dict[str, float], name: str) -> str:
    if f"{name}_low" not in scores:
        return f"{scores[name]:.3f}"
    return f"{scores[name]:.3f} ({scores[f'{name}_low']:.3f}–{scores[f'{name}_high']:.3f})"


def _difference(gain: dict[str, float]) -> str:
    return f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
