"""The annotation files of the benchmarks, read as they are published.

One function for each format (`coco_captions`, `vqa`, `refcoco`, …): it takes the files of the official archives and the
folder of images, and returns an ImageTextList.

Notes:

* No file is converted or written.
* All texts of an image are one record, also where they come from several entries or files (VQA v2: questions and
  answers; Visual Genome: regions and image data).
* RefCOCOg is published as a pickle, which could execute code. The unpickler here accepts lists, dictionaries, strings
  and numbers only.
* Errors in the files (an empty caption, a caption of an unlisted image) are counted by cause.

Paper: section 3.4 (COCO, Visual Genome), 4.1 (VQA v2, OK-VQA, GQA), 4.2 (NoCaps), 4.4 (COCO, Flickr30K). Notebook: 08.
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_lab.data.examples import AskedQuestion, Box, ImageTextList, Record

File = str | os.PathLike


# ------------------------------------------------------------------------------------------------------------ reading


def _read_json(path: File, what: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path} ({what})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, so it is not {what} ({error})") from None


def _entries(content: Any, key: str, keys: Iterable[str], path: File, what: str) -> list[dict]:
    """The list under `key` ("": the content itself). Raises ValueError unless its first entry has `keys`."""
    found = content.get(key) if key and isinstance(content, dict) else content
    place = f"list {key!r}" if key else "list"
    if not isinstance(found, list):
        raise ValueError(f"{path} is not {what}: it has no {place}" if key else f"{path} is not {what}: it is no list")
    missing = [name for name in keys if found and (not isinstance(found[0], dict) or name not in found[0])]
    if missing:
        names = " and no ".join(map(repr, missing))
        raise ValueError(f"{path} is not {what}: the entries of its {place} have no {names}")
    return found


class _Collector:
    """Collects the texts of each image, in the order in which the images are added."""

    def __init__(self, images: File, name: str) -> None:
        self.folder, self.name = Path(images), name
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder of pictures {self.folder}")
        self.records: dict[Any, dict] = {}
        self.skipped: Counter[str] = Counter()

    def add_image(self, key: Any, file: str, domain: str = "") -> None:
        """Add an image: `file` is relative to the folder of images; a path that leads out of it is skipped."""
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            self.skipped["file outside the folder"] += 1
            return
        found = {"file": self.folder / path, "captions": [], "questions": [], "boxes": [], "domain": domain}
        self.records.setdefault(key, found)

    def add_text(
        self, key: Any, caption: str | None = None, question: AskedQuestion | None = None, box: Box | None = None
    ):
        """Add a text of image `key`: a caption, a question, or a caption with its box."""
        record = self.records.get(key)
        text = caption if question is None else question.text
        if record is None:
            self.skipped["text about an unlisted picture"] += 1
        elif not isinstance(text, str) or not text.strip():
            self.skipped["empty caption" if question is None else "empty question"] += 1
        elif question is not None:
            record["questions"].append(question)
        else:
            record["captions"].append(" ".join(text.split()))
            record["boxes"] += [box] if box else []

    def image_text_list(self) -> ImageTextList:
        """All images that have a text; the others are counted."""
        records = []
        for key, found in self.records.items():
            if found["captions"] or found["questions"]:
                texts = {name: tuple(found[name]) for name in ("captions", "questions", "boxes")}
                records.append(Record(found["file"], **texts, id=str(key), domain=found["domain"]))
            else:
                self.skipped["picture without a text"] += 1
        return ImageTextList(records, self.skipped, self.name)


def _fractions(x: float, y: float, w: float, h: float, width: float, height: float) -> tuple[float, ...]:
    """Corner and size in pixels -> (left, top, right, bottom) as fractions, clipped to the image."""
    corners = (x / width, y / height, (x + w) / width, (y + h) / height)
    return tuple(min(1.0, max(0.0, value)) for value in corners)


# ----------------------------------------------------------------------------------------------------------- captions


def coco_captions(annotations: File, images: File) -> ImageTextList:
    """COCO's captions_train2014.json (2014 or 2017, train or val) and the folder of that split's images."""
    return _coco_like(annotations, images, "COCO's captions")


def nocaps(annotations: File, images: File, domain: str = "") -> ImageTextList:
    """NoCaps' nocaps_val_4500_captions.json; `domain`: only "in-domain", "near-domain" or "out-domain"."""
    return _coco_like(annotations, images, "NoCaps' captions", domain)


def _coco_like(annotations: File, images: File, what: str, domain: str = "") -> ImageTextList:
    content = _read_json(annotations, what)
    pictures = _entries(content, "images", ("id", "file_name"), annotations, what)
    texts = _entries(content, "annotations", ("image_id", "caption"), annotations, what)
    if domain:
        known = sorted({entry.get("domain", "") for entry in pictures} - {""})
        if domain not in known:
            raise ValueError(f"{annotations} has no domain {domain!r}: {', '.join(known) or 'its images name none'}")
        pictures = [entry for entry in pictures if entry.get("domain") == domain]
        kept = {entry["id"] for entry in pictures}
        texts = [entry for entry in texts if entry["image_id"] in kept]
    collector = _Collector(images, str(annotations))
    for entry in pictures:
        collector.add_image(entry["id"], entry["file_name"], entry.get("domain", ""))
    for entry in texts:
        collector.add_text(entry["image_id"], entry["caption"])
    return collector.image_text_list()


def karpathy(annotations: File, images: File, split: str = "train") -> ImageTextList:
    """Karpathy's dataset_coco.json or dataset_flickr30k.json: `split` train, val or test.

    COCO's "restval", the rest of its validation images, is included in "train", as is usual.
    """
    what = "Karpathy's splits"
    entries = _entries(_read_json(annotations, what), "images", ("filename", "split", "sentences"), annotations, what)
    wanted = ("train", "restval") if split == "train" else (split,)
    if not any(entry["split"] in wanted for entry in entries):
        known = ", ".join(sorted({entry["split"] for entry in entries}))
        raise ValueError(f"{annotations} has no split {split!r}: it has {known}")
    collector = _Collector(images, str(annotations))
    for number, entry in enumerate(entries):
        if entry["split"] in wanted:
            key = entry.get("cocoid", entry.get("imgid", number))
            collector.add_image(key, str(PurePosixPath(entry.get("filepath", "")) / entry["filename"]))
            for sentence in entry["sentences"]:
                collector.add_text(key, sentence["raw"])
    return collector.image_text_list()


def flickr30k(annotations: File, images: File) -> ImageTextList:
    """Flickr30k's results_20130124.token: `1000092795.jpg#0`, a tab, the caption."""
    collector = _Collector(images, str(annotations))
    try:
        lines = Path(annotations).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ValueError(f"there is no file {annotations} (Flickr30k's captions)") from None
    for number, line in enumerate(lines, 1):
        place, tab, caption = line.partition("\t")
        file, sharp, _ = place.partition("#")
        if line.strip() and not (tab and sharp):
            raise ValueError(f"{annotations}, line {number} is not of the form picture.jpg#0, a tab, a caption")
        if line.strip():
            collector.add_image(file, file)
            collector.add_text(file, caption)
    return collector.image_text_list()


def visual_genome(regions: File, image_data: File, images: File) -> ImageTextList:
    """Visual Genome's region_descriptions.json and image_data.json; below `images` are VG_100K and VG_100K_2.

    A region's phrase is a caption of the whole image, as in BLIP's and BLIP-2's pre-training, and has its box.
    """
    what = "Visual Genome's image data"
    pictures = _entries(_read_json(image_data, what), "", ("image_id", "url", "width", "height"), image_data, what)
    collector, sizes = _Collector(images, str(regions)), {}
    for entry in pictures:
        # …/VG_100K_2/1.jpg: only the URL tells which of the two folders the image is in
        collector.add_image(entry["image_id"], str(PurePosixPath(*PurePosixPath(entry["url"]).parts[-2:])))
        sizes[entry["image_id"]] = entry["width"], entry["height"]
    what = "Visual Genome's region descriptions"
    for entry in _entries(_read_json(regions, what), "", ("id", "regions"), regions, what):
        for region in entry["regions"]:
            key, phrase = region.get("image_id", entry["id"]), region["phrase"]
            corner = (region["x"], region["y"], region["width"], region["height"])
            box = (phrase, _fractions(*corner, *sizes[key])) if key in sizes else None
            collector.add_text(key, phrase, box=box)
    return collector.image_text_list()


# ---------------------------------------------------------------------------------------------------------- questions


def vqa(questions: File, images: File, annotations: File | None = None) -> ImageTextList:
    """VQA v2 and OK-VQA: …_questions.json, …_annotations.json (ten answers each; none for a test set) and COCO's
    images of that split. OK-VQA's answers are the normalized ones, which its evaluation uses."""
    what = "VQA questions"
    content = _read_json(questions, what)
    asked = _entries(content, "questions", ("image_id", "question", "question_id"), questions, what)
    answers: dict[int, dict] = {}
    if annotations is not None:
        found = _read_json(annotations, "VQA annotations")
        wanted = ("question_id", "answers")
        entries = _entries(found, "annotations", wanted, annotations, "VQA annotations")
        answers = {entry["question_id"]: entry for entry in entries}
        if not answers.keys() & {entry["question_id"] for entry in asked}:
            raise ValueError(f"{annotations} answers no question of {questions}: they belong to different splits")
    split = content.get("data_subtype")
    if not isinstance(split, str):
        raise ValueError(f"{questions} does not say which of COCO's splits its pictures are from ('data_subtype')")
    collector = _Collector(images, str(questions))
    for entry in asked:
        key, found = entry["image_id"], answers.get(entry["question_id"])
        if found is None and annotations is not None:
            collector.skipped["question without an answer"] += 1
            continue
        # test-dev2015 is a part of test2015, and its image files are named after test2015
        collector.add_image(key, f"COCO_{split.replace('-dev', '')}_{key:012d}.jpg" if isinstance(key, int) else key)
        words = tuple(str(answer["answer"]) for answer in found["answers"]) if found else ()
        kind = str(found.get("answer_type", "")) if found else ""
        collector.add_text(key, question=AskedQuestion(entry["question"], words, kind, str(entry["question_id"])))
    return collector.image_text_list()


def gqa(questions: File, images: File) -> ImageTextList:
    """GQA's …_questions.json, a dictionary by question number; or a folder: all such files in it.

    Images are `images/2354786.jpg`. The type is the structural one (verify, query, choose, logical, compare).
    """
    path, collector = Path(questions), _Collector(images, str(questions))
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no .json file with GQA questions")
    for file in files:
        content = _read_json(file, "GQA questions")
        first = next(iter(content.values()), {}) if isinstance(content, dict) else None
        if not isinstance(first, dict) or (content and not {"question", "imageId"} <= first.keys()):
            raise ValueError(f"{file} is not a dictionary of GQA questions, with 'question' and 'imageId' in each")
        for number, entry in content.items():
            collector.add_image(entry["imageId"], f"{entry['imageId']}.jpg")
            answers = (str(entry["answer"]),) if entry.get("answer") else ()
            kind = entry.get("types", {}).get("structural", "")
            collector.add_text(entry["imageId"], question=AskedQuestion(entry["question"], answers, kind, number))
    return collector.image_text_list()


# --------------------------------------------------------------------------------------------- referring expressions


class _PlainUnpickler(pickle.Unpickler):
    """Loads lists, dictionaries, strings and numbers. Everything else needs `find_class`, which raises."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and references are plain data")


def refcoco(refs: File, instances: File, images: File, split: str = "train") -> ImageTextList:
    """RefCOCOg's `refs(umd).p` and instances.json (`refs(unc).p` of RefCOCO and RefCOCO+ has the same format); `split`
    train, val or test. The images are COCO's train2014. Each sentence is a caption with the box that it refers to."""
    what = "RefCOCO's instances"
    content = _read_json(instances, what)
    pictures = _entries(content, "images", ("id", "file_name", "width", "height"), instances, what)
    things = _entries(content, "annotations", ("id", "image_id", "bbox"), instances, what)
    try:
        with Path(refs).open("rb") as file:
            # written by Python 2, whose strings are bytes of UTF-8
            references = _PlainUnpickler(file, encoding="utf-8").load()
    except FileNotFoundError:
        raise ValueError(f"there is no file {refs} (RefCOCO's references)") from None
    except Exception as error:  # on damaged data pickle raises many kinds of exceptions
        raise ValueError(f"{refs} is not a pickle of RefCOCO's references: {error}") from None
    keys = ("image_id", "ann_id", "split", "sentences")
    references = _entries(references, "", keys, refs, "a pickle of RefCOCO's references")
    if not any(entry["split"] == split for entry in references):
        known = ", ".join(sorted({entry["split"] for entry in references}))
        raise ValueError(f"{refs} has no split {split!r}: it has {known}")
    by_id, boxes = {entry["id"]: entry for entry in pictures}, {entry["id"]: entry["bbox"] for entry in things}
    collector = _Collector(images, str(refs))
    for entry in references:
        if entry["split"] != split:
            continue
        picture, box = by_id.get(entry["image_id"]), boxes.get(entry["ann_id"])
        if picture is None or box is None:
            collector.skipped["reference without a picture" if picture is None else "reference without a box"] += 1
            continue
        # not the reference's file_name: it ends in the annotation's number, and no image file has that name
        collector.add_image(entry["image_id"], picture["file_name"])
        place = _fractions(*box, picture["width"], picture["height"])
        for sentence in entry["sentences"]:
            text = sentence.get("raw") or sentence.get("sent", "")
            collector.add_text(entry["image_id"], text, box=(" ".join(text.split()), place))
    return collector.image_text_list()
