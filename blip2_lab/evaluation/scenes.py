"""A model measured on held-out scenes of the picture book: zero-shot questions, captions, retrieval.

`evaluate` is where to begin; `scores_table` prints its result.

    blip2-lab evaluate --model micro --scenes 1000

Notes:

* Each number has two baselines: the same questions without an image (what the language model guesses from the words)
  and with another scene's image (what it guesses from images in general).
* Questions are zero-shot: stage 2 is trained on captions only. "knowledge" is counted apart, because its answers are in
  no caption.
* The same questions are asked of the language model alone, with a true description of the scene in words.
* `natural/` repeats the questions in hundreds of other wordings, with the prompts of the chat. It also asks harder
  ones, which are counted apart.

Paper: section 4, Tables 1, 2, 3 and 5 in miniature. Notebooks: 09, 11.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from numbers import Integral
from random import Random

import torch
from torch import Tensor

from blip2_lab.evaluation import metrics, natural
from blip2_lab.evaluation.calibration import Calibration, calibration_scores
from blip2_lab.evaluation.natural import harder, harder_judge
from blip2_lab.evaluation.search import search_scores
from blip2_lab.models import retrieval
from blip2_lab.models.decoding import Decoding, check_seed
from blip2_lab.models.language_model import EncoderDecoderLanguageModel
from blip2_lab.models.losses import sample_negatives
from blip2_lab.models.stage1 import Stage1Model
from blip2_lab.models.stage2 import Stage2Model, check_answers
from blip2_lab.picturebook import words
from blip2_lab.picturebook.draw import draw
from blip2_lab.picturebook.scene import COLORS, HELD_OUT_BOOK, KINDS, PLACES, TIMES, Scene, sample_scene

CAPTION_PROMPT = "a picture of"
#: Captions as in the paper (section 4.2, beam search of width 5); greedy captions name less of a scene.
CAPTIONS = Decoding(num_beams=5, max_new_tokens=60, length_penalty=1.0)
SHORTLIST = 16  #: candidates that ITM re-ranks (paper: 128, of galleries of 5,000 and 30,000)
MINING_BATCH = 64  #: pairs among which hard negatives are mined, as in training: the micro recipe's batch size

Say = Callable[[str], None]


def evaluate(
    model: Stage2Model,
    *,
    scenes: int = 1000,
    split: str = "in",
    seed: int = HELD_OUT_BOOK,
    batch_size: int = 128,
    num_beams: int = 1,
    asker: natural.Asker | None = None,
    calibration: Calibration | None = None,
    say: Say = lambda _: None,
) -> dict:
    """All measurements as one dictionary, ready for JSON. `say` gets progress messages.

    num_beams  of the answers; captions use `CAPTIONS`
    asker      prompts and decoding of the natural and the harder questions (`num_beams` does not apply); None: leave
               them out
    calibration  that of the model, to be measured on the natural questions

    Raises ValueError if `scenes` is below 2: shuffling needs two images.
    """
    if not isinstance(scenes, Integral) or scenes < 2:
        raise ValueError(f"scenes is {scenes}; at least 2 are needed, or there is no other picture to shuffle in.")
    check_answers(model)
    check_seed(seed)
    book = [sample_scene(seed, index, split) for index in range(scenes)]
    asked = questions(book, seed)
    say(f"encoding {scenes} pictures")
    features = image_features(model, book, batch_size)
    shown = natural.Shown.of(model, features, batch_size)
    decoding = Decoding(num_beams=num_beams)
    report: dict = {"scenes": scenes, "split": split, "seed": seed, "num_beams": num_beams}
    conditions = {"picture": shown, "no_picture": shown.nothing(), "shuffled_picture": shown.shuffled()}
    report["questions"], report["captions"] = {}, {}
    for name, shown in conditions.items():
        say(f"asking {len(asked)} questions: {name.replace('_', ' ')}")
        report["questions"][name] = question_accuracy(model, shown, asked, decoding, batch_size)
        say(f"writing {scenes} captions: {name.replace('_', ' ')}")
        report["captions"][name] = caption_scores(model, shown, book, batch_size)
    if asker is not None:
        report["natural"] = natural_report(model, conditions, book, asker, calibration, seed, batch_size, say)
        report["harder"] = harder_report(model, conditions, book, asker, seed, batch_size, say)
    if isinstance(model.language_model, EncoderDecoderLanguageModel):
        say("asking the language model alone, about descriptions in words")
        described = [(i, q, f"{words.full_caption(book[i], Random(f'described {seed} {i}'))} ") for i, q, _ in asked]
        report["questions"]["description"] = question_accuracy(
            model, conditions["no_picture"], described, decoding, batch_size
        )
    if model.stage1 is not None:
        say(f"searching among {scenes} pictures and captions")
        report["retrieval"] = retrieval_scores(model.stage1, features, book, seed, batch_size)
        say("searching by phrases")
        report["search"] = search_scores(model.stage1, features, book, seed)
    return report


# ---------------------------------------------------------------------------------------------------------- questions

Asked = tuple[int, words.Question, str]  #: number of the scene, question, text before the prompt


def questions(book: Sequence[Scene], seed: int) -> list[Asked]:
    """For each scene, one question of every type that it allows."""
    return [
        (number, question, "")
        for number, scene in enumerate(book)
        for question in words.questions(scene, Random(f"evaluation {seed} {number}"))
    ]


@torch.no_grad()
def image_features(model: Stage2Model, book: Sequence[Scene], batch_size: int) -> Tensor:
    """The scenes -> image_features of the frozen encoder [M,N,Dv]."""
    encoder, chunks = model.image_encoder, []
    for start in range(0, len(book), batch_size):
        images = [draw(scene, encoder.image_size) for scene in book[start : start + batch_size]]
        chunks.append(encoder(encoder.preprocess(images)))
    return torch.cat(chunks)


@torch.no_grad()
def question_hits(
    model: Stage2Model,
    visual_prompts: Tensor | natural.Shown,
    asked: Sequence[Asked],
    decoding: Decoding,
    batch_size: int,
) -> list[bool]:
    """Whether each question is answered right (exact match), in the order of `asked`."""
    template = model.language_model.question_prompt
    hits = [False] * len(asked)
    by_length = sorted(range(len(asked)), key=lambda i: len(asked[i][1].text) + len(asked[i][2]))  # little padding
    for start in range(0, len(by_length), batch_size):
        chunk = by_length[start : start + batch_size]
        prompts = [asked[i][2] + template.format(asked[i][1].text) for i in chunk]
        visual = natural.prompts_for(model, visual_prompts, [asked[i][0] for i in chunk], prompts)
        answers = model.language_model.generate(visual, prompts, decoding)
        for i, answer in zip(chunk, answers, strict=True):
            hits[i] = metrics.exact_match(answer, asked[i][1].answer)
    return hits


def question_accuracy(
    model: Stage2Model,
    visual_prompts: Tensor | natural.Shown,
    asked: Sequence[Asked],
    decoding: Decoding,
    batch_size: int,
) -> dict[str, float | int]:
    """Exact-match accuracy: "total" over the visual types, "knowledge" over the others, then of each type."""
    of_type: dict[str, list[bool]] = {}
    hits = question_hits(model, visual_prompts, asked, decoding, batch_size)
    for (_, question, _), hit in zip(asked, hits, strict=True):
        of_type.setdefault(question.type, []).append(hit)
    groups = {"total": words.VISUAL_QUESTIONS, "knowledge": words.KNOWLEDGE_QUESTIONS}
    scores: dict[str, float | int] = {}
    for group, types in groups.items():
        together = [hit for type in types for hit in of_type.get(type, [])]
        scores[group] = metrics.accuracy(together)
        scores[f"{group}_count"] = len(together)
    return scores | {type: metrics.accuracy(of_type[type]) for type in words.QUESTION_TYPES if type in of_type}


def natural_report(
    model: Stage2Model,
    conditions: dict[str, natural.Shown],
    book: Sequence[Scene],
    asker: natural.Asker,
    calibration: Calibration | None,
    seed: int,
    batch_size: int,
    say: Say,
) -> dict[str, dict]:
    """`natural.natural_scores` in every condition. With another scene's image, the asked scene is the truth."""
    asked, scores = natural.natural_questions(book, seed), {}
    for name, shown in conditions.items():
        say(f"asking {len(asked)} questions as a visitor does: {name.replace('_', ' ')}")
        answers = natural.ask_all(model, book, asked, asker, visual_prompts=shown, batch_size=batch_size)
        scores[name] = natural.natural_scores(answers, asked, book)
        if name == "picture":
            right, confidences = natural.verdicts(answers, asked, book), [answer.confidence for answer in answers]
            answered = [i for i, answer in enumerate(answers) if not answer.refused]
            scores[name]["calibration"] = calibration_scores(
                [confidences[i] for i in answered], [right[i] for i in answered], calibration
            )
    return scores


def harder_report(
    model: Stage2Model,
    conditions: dict[str, natural.Shown],
    book: Sequence[Scene],
    asker: natural.Asker,
    seed: int,
    batch_size: int,
    say: Say,
) -> dict[str, dict]:
    """The harder questions in every condition, as `natural_report` has the natural ones."""
    asked, scores = harder.harder_questions(book, seed), {}
    for name, shown in conditions.items():
        say(f"asking {len(asked)} harder questions: {name.replace('_', ' ')}")
        answers = natural.ask_all(model, book, asked, asker, visual_prompts=shown, batch_size=batch_size)
        scores[name] = natural.natural_scores(answers, asked, book, harder.GROUPS, harder_judge.is_right)
    return scores


# ----------------------------------------------------------------------------------------------------------- captions

#: Every word for a kind, color, place or time -> its value.
KIND_WORDS = {word: kind for kind in KINDS for word in (kind, words.plural(kind))}
NAMED = {
    "kinds": KIND_WORDS,
    "colors": {color: color for color in COLORS},
    "places": {place: place for place in PLACES},
    "times": {time: time for time in TIMES},
}


def named_values(text: str, meanings: dict[str, str]) -> set[str]:
    """The values that a text names: `named_values("two red boats", KIND_WORDS)` -> `{"boat"}`."""
    found = text.lower().replace(",", " ").replace(".", " ").replace(":", " ").split()
    return {meanings[word] for word in found if word in meanings}


def scene_values(scene: Scene) -> dict[str, set[str]]:
    """What a true caption can name, by the keys of `NAMED`."""
    return {
        "kinds": {thing.kind for thing in scene.things},
        "colors": {thing.color for thing in scene.things},
        "places": {scene.place},
        "times": {scene.time},
    }


def kinds_told(text: str) -> Counter[str]:
    """How many things of each kind a text tells of: `"a red boat and two small blue boats"` -> `{"boat": 3}`."""
    told: Counter[str] = Counter()
    number = 1
    for word in text.lower().replace(",", " , ").replace(".", " , ").split():
        if word in words.NUMBERS:
            number = words.NUMBERS.index(word)
        elif word in KIND_WORDS:
            told[KIND_WORDS[word]] += number
            number = 1
        elif word in (",", "and", "a", "an"):
            number = 1
    return told


def tells_twice(text: str, scene: Scene) -> bool:
    """Does a caption tell of more things of a kind than the scene has, though it has some: of one of them twice?"""
    there = Counter(thing.kind for thing in scene.things)
    return any(count > there[kind] > 0 for kind, count in kinds_told(text).items())


@torch.no_grad()
def caption_scores(
    model: Stage2Model, visual_prompts: Tensor | natural.Shown, book: Sequence[Scene], batch_size: int
) -> dict[str, float]:
    """How well captions generated from `CAPTION_PROMPT` name the kinds, colors, places and times: every score of
    `metrics.SetScores` for each, under keys such as `kinds_f1`; and the share that `tells_twice`, under `repeated`."""
    captions: list[str] = []
    for start in range(0, len(book), batch_size):
        rows = range(start, min(start + batch_size, len(book)))
        texts = [CAPTION_PROMPT] * len(rows)
        captions += model.language_model.generate(
            natural.prompts_for(model, visual_prompts, rows, texts), texts, CAPTIONS
        )
    truth = [scene_values(scene) for scene in book]
    found = {
        what: asdict(metrics.set_scores([named_values(c, meanings) for c in captions], [t[what] for t in truth]))
        for what, meanings in NAMED.items()
    }
    scores = {f"{what}_{score}": value for what, scores in found.items() for score, value in scores.items()}
    return scores | {"repeated": metrics.accuracy([tells_twice(c, s) for c, s in zip(captions, book, strict=True)])}


# ---------------------------------------------------------------------------------------------------------- retrieval


@torch.no_grad()
def retrieval_scores(
    stage1: Stage1Model, features: Tensor, book: Sequence[Scene], seed: int, batch_size: int
) -> dict[str, float | int]:
    """R@1 and R@5 in both directions with full captions, by ITC and after ITM re-ranks the `SHORTLIST`; `_shuffled_r1`
    with the images shuffled. Without an image all scores are equal: chance, 1/M.

    Also ITM's accuracy on true pairs and on hard negatives: mined as in training (section 3.2: in a batch, by ITC
    similarity), and the hardest of the gallery: for each image the wrong caption with the highest ITC score, and for
    each caption such an image.
    """
    captions = [words.full_caption(scene, Random(f"gallery {seed} {i}")) for i, scene in enumerate(book)]
    texts = stage1.tokenize(captions)
    gallery = retrieval.read_gallery(stage1, features.split(batch_size))
    scores = retrieval.retrieve(stage1, gallery, *texts, shortlist=SHORTLIST, batch_size=batch_size)
    result: dict[str, float | int] = {"gallery": len(book), "shortlist": min(SHORTLIST, len(book))}
    ways = {
        "itc_image_to_text": scores.itc,
        "itc_text_to_image": scores.itc.T,
        "itm_image_to_text": scores.image_to_text,
        "itm_text_to_image": scores.text_to_image,
        "both_image_to_text": scores.image_to_text + scores.itc / stage1.temperature,
        "both_text_to_image": scores.text_to_image + scores.itc.T / stage1.temperature,
    }
    for name, matrix in ways.items():
        result |= {f"{name}_r1": metrics.recall_at(matrix, 1), f"{name}_r5": metrics.recall_at(matrix, 5)}
        image_dim = 0 if name.endswith("image_to_text") else 1
        result[f"{name}_shuffled_r1"] = metrics.recall_at(matrix.roll(1, dims=image_dim), 1)
    own = torch.arange(len(book), device=scores.itc.device)
    wrong = scores.itc.masked_fill(own[:, None] == own, -torch.inf)
    mined = [mine_negatives(scores.itc[batch][:, batch] / stage1.temperature, batch, seed) for batch in _batches(own)]
    mined_text, mined_image = map(torch.cat, zip(*mined, strict=True))
    sets = {
        "true": torch.stack([own, own], dim=1),
        "true_shuffled": torch.stack([own.roll(1), own], dim=1),
        "mined_text": torch.stack([own, mined_text], dim=1),
        "mined_image": torch.stack([mined_image, own], dim=1),
        "wrong_text": torch.stack([own, wrong.argmax(dim=1)], dim=1),
        "wrong_image": torch.stack([wrong.argmax(dim=0), own], dim=1),
    }
    share = {}
    for name, pairs in sets.items():
        matched = itm_matches(stage1, gallery, pairs, *texts, batch_size)
        share[name] = (matched if name.startswith("true") else ~matched).float().mean().item()
        result[f"itm_accuracy_{name}"] = share[name]
    # true pairs have half of the weight, so that always saying "no match" scores 0.5
    result["itm_accuracy_mined"] = share["true"] / 2 + (share["mined_text"] + share["mined_image"]) / 4
    result["itm_accuracy_hardest"] = share["true"] / 2 + (share["wrong_text"] + share["wrong_image"]) / 4
    return result


def _batches(numbers: Tensor) -> tuple[Tensor, ...]:
    """Chunks of about `MINING_BATCH`, none of which has a single element."""
    return numbers.tensor_split(max(1, round(len(numbers) / MINING_BATCH)))


def mine_negatives(image_to_text: Tensor, numbers: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Similarities [B, B] over the temperature -> for each pair a wrong text and a wrong image of `numbers` long[B]."""
    generator = torch.Generator(image_to_text.device).manual_seed(seed)
    own = torch.eye(len(numbers), dtype=torch.bool, device=image_to_text.device)
    wrong_text, wrong_image = (sample_negatives(x, own, generator) for x in (image_to_text, image_to_text.T))
    return numbers[wrong_text], numbers[wrong_image]


def itm_matches(
    stage1: Stage1Model,
    gallery: retrieval.Gallery,
    pairs: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    batch_size: int,
) -> Tensor:
    """pairs long[P,2] of (image, text) -> bool[P]: whether ITM's class "match" is the likelier one."""
    matches = []
    for image, text in (chunk.T for chunk in pairs.split(batch_size)):
        logits = stage1.itm_logits(gallery.memory.select(image), input_ids[text], attention_mask[text])
        matches.append(logits[:, 1] > logits[:, 0])
    return torch.cat(matches)


# -------------------------------------------------------------------------------------------------------------- table


def scores_table(report: dict) -> str:
    """A report of `evaluate` as Markdown: each measure next to its baselines, shares with 95 % intervals."""
    conditions = ["description", "picture", "no_picture", "shuffled_picture"]
    conditions = [name for name in conditions if name in report["questions"]]
    titles = {"description": "description in words"}
    heads = [titles.get(name, name.replace("_", " ")) for name in conditions]
    lines = [f"| questions, {report['scenes']} scenes | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for row in ("total", *words.VISUAL_QUESTIONS, "knowledge", *words.KNOWLEDGE_QUESTIONS):
        cells = []
        for name in conditions:
            scores = report["questions"][name]
            cells.append(_share(scores[row], scores.get(f"{row}_count")) if row in scores else "–")
        label = {"total": "**zero-shot, all visual types**", "knowledge": "**knowledge, in no caption**"}.get(row, row)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if found := report.get("natural"):
        lines += ["", *natural_table(found)]
    if found := report.get("harder"):  # reports of before they were asked do not have them
        lines += ["", *natural_table(found, "harder questions")]
    conditions = [name for name in conditions if name in report["captions"]]
    lines += ["", "| captions, F1 | " + " | ".join(name.replace("_", " ") for name in conditions) + " |"]
    lines.append("|---" * (len(conditions) + 1) + "|")
    for what in NAMED:
        lines.append(f"| {what} | " + " | ".join(_f1(report["captions"][name], what) for name in conditions) + " |")
    for score in ("precision", "recall"):
        cells = [f"{report['captions'][name][f'kinds_{score}']:.3f}" for name in conditions]
        lines.append(f"| kinds, {score} instead | " + " | ".join(cells) + " |")
    if "repeated" in report["captions"]["picture"]:
        cells = [f"{report['captions'][name]['repeated']:.3f}" for name in conditions]
        lines.append("| share of captions that tell of one thing twice | " + " | ".join(cells) + " |")
    if found := report.get("retrieval"):
        count = found["gallery"]
        lines += ["", f"| retrieval among {count} | R@1 | R@5 | R@1, shuffled pictures | R@1, no picture |"]
        lines.append("|---" * 5 + "|")
        rows = {
            "picture to text, ITC": "itc_image_to_text",
            "text to picture, ITC": "itc_text_to_image",
            f"picture to text, ITM re-ranks {found['shortlist']}, alone": "itm_image_to_text",
            f"text to picture, ITM re-ranks {found['shortlist']}, alone": "itm_text_to_image",
            f"picture to text, ITM re-ranks {found['shortlist']}, with ITC's logit": "both_image_to_text",
            f"text to picture, ITM re-ranks {found['shortlist']}, with ITC's logit": "both_text_to_image",
        }
        for label, name in rows.items():
            first, five, shuffled = (found[name + end] for end in ("_r1", "_r5", "_shuffled_r1"))
            lines.append(f"| {label} | {_share(first, count)} | {five:.3f} | {shuffled:.3f} | {1 / count:.3f} |")
        lines += ["", "| ITM says the right thing about | share |", "|---|---|"]
        rows = {
            "true pairs": "_true",
            "the same pairs, shuffled pictures": "_true_shuffled",
            "a wrong text, mined in a batch": "_mined_text",
            "a wrong picture, mined in a batch": "_mined_image",
            f"the hardest wrong text of {count}": "_wrong_text",
            f"the hardest wrong picture of {count}": "_wrong_image",
        }
        lines += [f"| {label} | {_share(found['itm_accuracy' + name], count)} |" for label, name in rows.items()]
        lines.append(f"| true and mined, weighted alike (no picture: 0.500) | {found['itm_accuracy_mined']:.3f} |")
        lines.append(f"| true and hardest, weighted alike (no picture: 0.500) | {found['itm_accuracy_hardest']:.3f} |")
    if found := report.get("search"):
        where = f'{found["phrases"]} phrases as "a red boat." among {found["gallery"]} pictures of several things'
        lines += ["", f"| {where} | share |", "|---|---|"]
        rows = {
            "the first five that fit, ITC's shortlist in ITM's order": "precision_at_5_itm",
            "the same in the order of ITM's log-odds plus ITC's logit": "precision_at_5_both",
            "the same in any order": "precision_at_5_random",
            "ITM says match to a picture that fits": "itm_true",
            "ITM says no match to one that does not": "itm_false",
            "the same where color and kind are there, not together": "itm_false_hard",
        }
        lines += [
            f"| {label} | {_share(found[name], found.get(f'{name}_count'))} |"
            for label, name in rows.items()
            if name in found  # a book may have no picture for one of them
        ]
    return "\n".join(lines)


def natural_table(found: dict[str, dict], title: str = "natural questions") -> list[str]:
    """The rows of natural, or of harder, questions: the share of right answers, and the share refused (with image)."""
    first = next(iter(found.values()))
    heads = [name.replace("_", " ") for name in found]
    lines = [f"| {title}, {first['count']} | " + " | ".join(heads) + " | refused, unknown words |"]
    lines.append("|---" * (len(heads) + 2) + "|")
    cells = [_share(scores["total"], scores["count"]) for scores in found.values()]
    lines.append(f"| **as a visitor asks, all groups** | {' | '.join(cells)} | {first['refused']:.3f} |")
    answered = [f"{scores['of_answered']:.3f}" for scores in found.values()]
    lines.append(f"| of those that are answered | {' | '.join(answered)} | – |")
    if "new_wordings" in first:
        cells = [_share(scores["new_wordings"], scores["new_wordings_count"]) for scores in found.values()]
        lines.append(f"| in wordings that the training texts do not have | {' | '.join(cells)} | – |")
    if "error" in (sure := first.get("calibration", {})):
        lines.append(f"| not sure, by its calibrated confidence | {sure['unsure']:.3f} |" + " – |" * len(found))
        if sure["right_sure"] is not None:
            lines.append(f"| right, where it is sure | {sure['right_sure']:.3f} |" + " – |" * len(found))
        lines.append(f"| expected calibration error | {sure['error']:.3f} |" + " – |" * len(found))
    for group, about in first["groups"].items():
        groups = [scores["groups"][group] for scores in found.values()]
        cells = [_share(scores["right"], scores["count"]) for scores in groups]
        lines.append(f"| {group} | {' | '.join(cells)} | {about['refused']:.3f} |")
    return lines


def _f1(scores: dict[str, float], what: str) -> str:
    """`0.853 (0.843–0.863)`"""
    f1, low, high = (scores[f"{what}_{end}"] for end in ("f1", "low", "high"))
    return f"{f1:.3f} ({low:.3f}–{high:.3f})"


def _share(share: float, count: int | None) -> str:
    """`0.912 (0.893–0.928)`; without a count, the share alone."""
    if count is None:
        return f"{share:.3f}"
    low, high = metrics.confidence_interval(share, count)
    return f"{share:.3f} ({low:.3f}–{high:.3f})"
