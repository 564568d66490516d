"""Questions with answers: VQA v2 and OK-VQA, GQA, LLaVA's conversations.

Paper: section 4.1 and 4.3 (VQA v2, OK-VQA, GQA). Notebook: 08.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2_lab.data.annotations.entries import Collector, File, number_of, read_json
from blip2_lab.data.examples import ImageTextList
from blip2_lab.data.text_files import listed, turns_in


def vqa(questions: File, images: File, annotations: File | None = None) -> ImageTextList:
    """VQA v2 and OK-VQA: …_questions.json, …_annotations.json (ten answers each; none for a test set) and COCO's
    images of that split. OK-VQA's answers are the normalized ones, which its evaluation uses.

    An `image_id` that is a number is the number in the name of a COCO image (`COCO_train2014_000000000042.jpg`, or
    `000000000042.jpg`). One that is a text with an ending is a file name, for questions of your own.
    """
    what, keys = "VQA questions", ("image_id", "question", "question_id")
    content = read_json(questions, what)
    collector = Collector(images, str(questions))
    asked = list(collector.entries(content, "questions", keys, questions, what))
    answers = _answers_by_question(annotations, collector) if annotations is not None else {}
    if annotations is not None and not answers.keys() & {number_of(entry["question_id"]) for _, entry in asked}:
        raise ValueError(f"{annotations} answers no question of {questions}: they belong to different splits")
    split = content.get("data_subtype") if isinstance(content, dict) else None
    listed: set[str] = set()
    for place, entry in asked:
        key, number = (collector.key_of(entry[name], place, name) for name in ("image_id", "question_id"))
        if key is None or number is None:
            continue
        if number in listed:
            message = f"question {number} is listed already; the first one is used"
            collector.leave_out(place, "question listed twice", message)
            continue
        listed.add(number)
        given = answers.pop(number, None)
        if given is None and annotations is not None:
            collector.leave_out(
                place, "question without an answer", f"{annotations} has no answer to question {number}"
            )
            continue
        words, kind, about = given or ([], "", key)
        if about is not None and _without_zeros(about) != _without_zeros(key):
            message = f"{annotations} answers question {number} about image {about}, and it is about {key}"
            collector.leave_out(place, "answer about another picture", message)
            continue
        if not collector.add_image(key, _vqa_file(key, split, questions), place):
            continue
        collector.add_question(key, entry["question"], place, words, kind, number)
    for number in answers:
        collector.leave_out(str(annotations), "answer without a question", f"question {number} is not in {questions}")
    return collector.image_text_list()


def _without_zeros(key: str) -> str:
    """The number of an image without zeros in front: "000042" and 42 are one."""
    return key.lstrip("0") if key.isdigit() else key


def _vqa_file(key: str, split: Any, questions: File) -> str | tuple[str, ...]:
    """The name of a VQA image, or the names of which it has one."""
    if not key.isascii() or not key.isdigit():
        return key
    if not isinstance(split, str):
        raise ValueError(
            f'{questions} does not say which of COCO\'s splits its pictures are from: write "data_subtype": '
            '"train2014" into it, or give each image_id as the name of a file'
        )
    # test-dev2015 is a part of test2015, and its image files are named after test2015
    return f"COCO_{split.replace('-dev', '')}_{int(key):012d}.jpg", f"{int(key):012d}.jpg"


def _answers_by_question(annotations: File, collector: Collector) -> dict[str, tuple[list, Any, str | None]]:
    """question number -> (its answers, its type, the image that they are about, if it is named)"""
    what, keys = "VQA annotations", ("question_id", "answers")
    content = read_json(annotations, what)
    answers: dict[str, tuple[list, Any, str | None]] = {}
    for place, entry in collector.entries(content, "annotations", keys, annotations, what):
        number, given = collector.key_of(entry["question_id"], place, "question_id"), entry["answers"]
        if number is None:
            continue
        given = given if isinstance(given, list) else [given]
        words = [one.get("answer", one) if isinstance(one, dict) else one for one in given]
        if number in answers:
            collector.leave_out(place, "answered twice", f"question {number} has answers already; the first are used")
            continue
        answers[number] = words, entry.get("answer_type", ""), number_of(entry.get("image_id"))
    return answers


def gqa(questions: File, images: File) -> ImageTextList:
    """GQA's …_questions.json, a dictionary by question number; or a folder: all such files in it.

    Images are `images/2354786.jpg`. The type is the structural one (verify, query, choose, logical, compare).
    """
    path, collector = Path(questions), Collector(images, str(questions))
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no .json file with GQA questions")
    keys = {"question", "imageId"}
    for file in files:
        content = read_json(file, "GQA questions")
        entries = list(content.values()) if isinstance(content, dict) else [None]
        if entries and not any(isinstance(entry, dict) and keys <= entry.keys() for entry in entries):
            raise ValueError(f"{file} is not a dictionary of GQA questions, with 'question' and 'imageId' in each")
        for number, entry in content.items():
            place = f"{file}, question {number}"
            if not isinstance(entry, dict) or not keys <= entry.keys():
                collector.leave_out(place, "incomplete entry", "it has no 'question' or no 'imageId'")
                continue
            key, types = collector.key_of(entry["imageId"], place, "imageId"), entry.get("types")
            if key is None or not collector.add_image(key, f"{key}.jpg", place):
                continue
            answers = [] if entry.get("answer") == "" else listed(entry.get("answer"))
            kind = types.get("structural", "") if isinstance(types, dict) else ""
            collector.add_question(key, entry["question"], place, answers, kind, number)
    return collector.image_text_list()


def llava(annotations: File, images: File) -> ImageTextList:
    """LLaVA's llava_instruct_150k.json and files of this form, also as JSON lines: a list of objects with `image` and
    `conversations`. Each pair of turns is a question with its answer, by itself; `<image>` is no part of a question."""
    what, keys = "LLaVA's conversations", ("image", "conversations")
    content = read_json(annotations, what)
    collector = Collector(images, str(annotations))
    for place, entry in collector.entries(content, "", keys, annotations, what):
        key = collector.key_of(entry["image"], place, "image")
        if key is None or not collector.add_image(key, entry["image"], place):
            continue
        pairs, problems = turns_in(entry["conversations"])
        for problem in problems:
            collector.leave_out(place, "turn that is not read", f"the conversation {problem}")
        for question, answer in pairs:
            collector.add_question(key, question, place, [answer], id=number_of(entry.get("id")) or "")
    return collector.image_text_list()
