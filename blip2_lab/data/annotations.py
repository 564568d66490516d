"""The annotation files of the benchmarks, read as they are published.

One function for each format (`coco_captions`, `blip`, `vqa`, `refcoco`, …): it takes the files of the official archives
and the folder of images, and returns an ImageTextList.

Notes:

* No file is converted or written.
* All texts of an image are one record, also where they come from several entries or files (VQA v2: questions and
  answers; Visual Genome: regions and image data).
* Numbers of images and questions may be written as numbers or as text: 42 and "42" are the same one.
* RefCOCOg is published as a pickle, which could execute code. The unpickler here accepts lists, dictionaries, strings
  and numbers only.
* An entry that cannot be used (an empty caption, a missing key, a caption of an unlisted image) is named and counted; a
  file in which no entry has the keys of its format is an error.

Paper: section 3.4 (COCO, Visual Genome), 4.1 (VQA v2, OK-VQA, GQA), 4.2 (NoCaps), 4.4 (COCO, Flickr30K). Notebook: 08.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_lab.common.characters import printable
from blip2_lab.common.images import BrokenSample
from blip2_lab.data.examples import AskedQuestion, ImageTextList, LeftOut, Record
from blip2_lab.data.picture_files import PictureFinder
from blip2_lab.data.text_files import captions_in, is_number, lines_of, parse_json, read_text, texts_in, turns_in

File = str | os.PathLike


# ------------------------------------------------------------------------------------------------------------ reading


def _read_json(path: File, what: str) -> Any:
    return parse_json(read_text(path, what), str(path))


def _entries(content: Any, key: str, keys: Iterable[str], path: File, what: str) -> list:
    """The list under `key` ("": the content itself). Raises ValueError unless one of its entries has `keys`."""
    found = content.get(key) if key and isinstance(content, dict) else content
    place = f"list {key!r}" if key and isinstance(content, dict) else "list"
    if not isinstance(found, list) or (key and found == [] and not isinstance(content, dict)):
        raise ValueError(f"{path} is not {what}: it has no {place}" if key else f"{path} is not {what}: it is no list")
    if found and not any(isinstance(entry, dict) and entry.keys() >= set(keys) for entry in found):
        missing = [name for name in keys if not isinstance(found[0], dict) or name not in found[0]]
        names = " and no ".join(map(repr, missing or keys))
        raise ValueError(f"{path} is not {what}: the entries of its {place} have no {names}{_other_format(found)}")
    return found


def _other_format(found: list) -> str:
    """The end of an error: the format that these entries have, if it is known."""
    keys = next((entry.keys() for entry in found if isinstance(entry, dict)), set())
    for format, wanted in (
        ("llava", {"conversations"}),
        ("blip", {"image", "caption"}),
        ("blip", {"image", "question"}),
    ):
        if wanted <= keys:
            return f'; format = "{format}" reads such a file'
    return ""


def _id(value: Any) -> str | None:
    """The number of an image or a question as text: 42, 42.0 and "42" are one. None for what is no number or text."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value).strip() or None


class _Collector:
    """Collects the texts of each image, in the order in which the images are added."""

    def __init__(self, images: File, name: str) -> None:
        self.folder, self.name = Path(images), name
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder of pictures {self.folder}")
        self.finder = PictureFinder(self.folder)
        self.records: dict[Any, dict] = {}
        self.by_name: dict[str, dict] = {}
        self.left_out: list[LeftOut] = []

    def leave_out(self, place: str, cause: str, message: str) -> None:
        """Name something that is not used. `place`: in which file and entry it is."""
        self.left_out.append(LeftOut(printable(place), cause, printable(f"{place}: {message}")))

    def entries(self, found: list, keys: Iterable[str], path: File, key: str = "") -> Iterator[tuple[str, dict]]:
        """(place, entry) of each entry that has `keys`; the others are named."""
        for number, entry in enumerate(found, 1):
            place = f"{path}, entry {number}{key and f' of {key!r}'}"
            missing = [name for name in keys if name not in entry] if isinstance(entry, dict) else list(keys)
            if missing or not isinstance(entry, dict):
                self.leave_out(place, "incomplete entry", f"it has no {' and no '.join(map(repr, missing))}")
            else:
                yield place, entry

    def key_of(self, value: Any, place: str, name: str) -> str | None:
        """`_id` of an entry's `name`; None, and named, where it is none."""
        found = _id(value)
        if found is None:
            self.leave_out(
                place, "incomplete entry", f"its {name!r} is {value!r:.40}, and a number or a text is wanted"
            )
        return found

    def add_image(self, key: Any, files: Any, place: str, domain: Any = "") -> bool:
        """Add image `key`. `files`: its name relative to the folder of images, or several of which one is there. A name
        that leads out of the folder is left out; a file that is missing is found to be so when it is opened."""
        known = self.records.get(key)
        if known is not None and known["given"] == files:
            return True
        missing = ""
        for file in files if isinstance(files, tuple) else (files,):
            if not isinstance(file, str) or not file.strip():
                self.leave_out(place, "incomplete entry", f"its file name is {file!r:.40}, and a text is wanted")
                return False
            try:
                name, path, _ = self.finder.find(file)
                break
            except BrokenSample as broken:
                if broken.cause != "missing file":
                    if known is None:  # later entries about the same image say nothing new
                        self.leave_out(place, broken.cause, str(broken))
                    return False
                missing = missing or file
        else:
            name = PurePosixPath(os.path.normpath(missing.replace("\\", "/"))).as_posix()
            path = self.folder / missing
        if known is not None and known["name"] != name:
            message = f"image {key} is listed with two files, {known['name']!r} and {name!r}; the first one is used"
            self.leave_out(place, "picture listed twice", message)
        if known is None:
            fresh = {"file": path, "name": name, "captions": [], "questions": [], "boxes": [], "id": str(key)}
            fresh |= {"given": files, "domain": domain if isinstance(domain, str) else ""}
            self.records[key] = self.by_name.setdefault(name, fresh)
        return True

    def add_captions(self, key: Any, value: Any, place: str, box: tuple[float, ...] | None = None) -> None:
        """Add the captions of image `key`: a text, or a list of them. `box`: what they are about, as fractions."""
        record = self._record(key, place)
        if record is None:
            return
        captions, problems = captions_in(value)
        for problem in problems:
            cause = "empty caption" if problem == "is empty" else "caption is no text"
            self.leave_out(place, cause, f"the caption {problem}")
        for caption in captions:
            phrase = " ".join(caption.split())
            record["captions"].append(phrase)
            record["boxes"] += [(phrase, box)] if box else []

    def add_question(
        self, key: Any, text: Any, place: str, answers: Iterable[Any], kind: Any = "", id: str = ""
    ) -> None:
        """Add a question about image `key` with its answers."""
        record = self._record(key, place)
        if record is None:
            return
        if not isinstance(text, str) or texts_in(text)[1]:
            cause = "empty question" if text is None or (isinstance(text, str) and not text.strip()) else "no text"
            self.leave_out(
                place, cause, "the question is empty" if cause == "empty question" else "the question is no text"
            )
            return
        known = []
        for answer in answers:
            if is_number(answer):
                answer = str(answer)
            good, problems = texts_in(answer) if not isinstance(answer, list) else ([], ["is a list in a list"])
            known += good
            for problem in problems:
                self.leave_out(place, "answer is no text", f"an answer {problem}")
        kind = kind if isinstance(kind, str) else ""
        record["questions"].append(AskedQuestion(text, tuple(known), kind, id))

    def _record(self, key: Any, place: str) -> dict | None:
        record = self.records.get(key)
        if record is None:
            self.leave_out(place, "text about an unlisted picture", f"no picture {key!r} is listed")
        return record

    def image_text_list(self) -> ImageTextList:
        """All images that have a text; the others are named."""
        records = []
        for found in self.by_name.values():
            if found["captions"] or found["questions"]:
                texts = {name: tuple(found[name]) for name in ("captions", "questions", "boxes")}
                records.append(Record(found["file"], **texts, id=printable(found["id"]), domain=found["domain"]))
            else:
                message = f"picture {found['id']} of {self.name} has no text that can be used"
                self.left_out.append(LeftOut(printable(found["name"]), "picture without a text", printable(message)))
        return ImageTextList(records, self.left_out, self.name)


def _fractions(box: Any, width: Any, height: Any) -> tuple[float, ...] | None:
    """Corner and size in pixels -> (left, top, right, bottom) as fractions, clipped to the image; None for what is no
    box."""
    numbers = [*box, width, height] if isinstance(box, list | tuple) and len(box) == 4 else []
    if not numbers or not all(map(is_number, numbers)) or width <= 0 or height <= 0:
        return None
    x, y, w, h = box
    if min(w, h) <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:  # nothing of it is in the image
        return None
    corners = (x / width, y / height, (x + w) / width, (y + h) / height)
    return tuple(min(1.0, max(0.0, value)) for value in corners)


def _with_split(collector: _Collector, entries: Iterable[tuple[str, dict]]) -> list[tuple[str, dict]]:
    """The entries whose split is a text; the others are named."""
    kept = []
    for place, entry in entries:
        if isinstance(entry["split"], str):
            kept.append((place, entry))
        else:
            collector.leave_out(
                place, "incomplete entry", f"its 'split' is {entry['split']!r:.40}, and a text is wanted"
            )
    return kept


def _split_of(
    entries: list[tuple[str, dict]], wanted: tuple[str, ...], split: str, path: File
) -> list[tuple[str, dict]]:
    """The entries of a split. Raises ValueError that lists the splits, if there are none."""
    chosen = [(place, entry) for place, entry in entries if entry["split"] in wanted]
    if not chosen:
        known = ", ".join(sorted({str(entry["split"]) for _, entry in entries}))
        raise ValueError(f"{path} has no split {split!r}: it has {known or 'none'}")
    return chosen


# ----------------------------------------------------------------------------------------------------------- captions


def coco_captions(annotations: File, images: File) -> ImageTextList:
    """COCO's captions_train2014.json (2014 or 2017, train or val) and the folder of that split's images."""
    return _coco_like(annotations, images, "COCO's captions")


def nocaps(annotations: File, images: File, domain: str = "") -> ImageTextList:
    """NoCaps' nocaps_val_4500_captions.json; `domain`: only "in-domain", "near-domain" or "out-domain"."""
    return _coco_like(annotations, images, "NoCaps' captions", domain)


def _coco_like(annotations: File, images: File, what: str, domain: str = "") -> ImageTextList:
    content = _read_json(annotations, what)
    collector, others = _Collector(images, str(annotations)), set()
    keys = ("id", "file_name")
    pictures = list(
        collector.entries(_entries(content, "images", keys, annotations, what), keys, annotations, "images")
    )
    if domain:
        known = sorted({str(entry.get("domain") or "") for _, entry in pictures} - {""})
        if domain not in known:
            raise ValueError(f"{annotations} has no domain {domain!r}: {', '.join(known) or 'its images name none'}")
    for place, entry in pictures:
        key = collector.key_of(entry["id"], place, "id")
        if key is not None and domain and entry.get("domain") != domain:
            others.add(key)
        elif key is not None:
            collector.add_image(key, entry["file_name"], place, entry.get("domain", ""))
    keys = ("image_id", "caption")
    texts = _entries(content, "annotations", keys, annotations, what)
    for place, entry in collector.entries(texts, keys, annotations, "annotations"):
        key = collector.key_of(entry["image_id"], place, "image_id")
        if key is not None and key not in others:
            collector.add_captions(key, entry["caption"], place)
    return collector.image_text_list()


def blip(annotations: File, images: File) -> ImageTextList:
    """BLIP's own annotation files, such as coco_karpathy_train.json, coco_karpathy_val.json, vqa_train.json and
    flickr30k_test.json: a list of objects with `image`, and `caption` (one or a list), or `question` and `answer`."""
    what = "BLIP's annotations"
    entries = _entries(_read_json(annotations, what), "", ("image",), annotations, what)
    if entries and not any(isinstance(entry, dict) and {"caption", "question"} & entry.keys() for entry in entries):
        other = _other_format(entries)
        raise ValueError(f"{annotations} is not {what}: its entries have no 'caption' and no 'question'{other}")
    collector = _Collector(images, str(annotations))
    for place, entry in collector.entries(entries, ("image",), annotations):
        image = entry["image"]
        if not isinstance(image, str) or not collector.add_image(image, image, place):
            if not isinstance(image, str):
                collector.leave_out(
                    place, "incomplete entry", f"its 'image' is {image!r:.40}, and a file name is wanted"
                )
            continue
        if "caption" in entry:
            collector.add_captions(image, entry["caption"], place)
        if "question" in entry:
            given = entry.get("answer", entry.get("answers"))
            answers = given if isinstance(given, list) else [] if given is None else [given]
            collector.add_question(image, entry["question"], place, answers, id=_id(entry.get("question_id")) or "")
        elif "caption" not in entry:
            collector.leave_out(place, "incomplete entry", "it has no 'caption' and no 'question'")
    return collector.image_text_list()


def llava(annotations: File, images: File) -> ImageTextList:
    """LLaVA's llava_instruct_150k.json and files of this form, also as JSON lines: a list of objects with `image` and
    `conversations`. Each pair of turns is a question with its answer, by itself; `<image>` is no part of a question."""
    what, keys = "LLaVA's conversations", ("image", "conversations")
    if Path(annotations).suffix.lower() == ".jsonl":
        lines = enumerate(lines_of(read_text(annotations, what)), 1)
        content = [parse_json(line, f"{annotations}, line {number}") for number, line in lines if line.strip()]
    else:
        content = _read_json(annotations, what)
    entries = _entries(content, "", keys, annotations, what)
    collector = _Collector(images, str(annotations))
    for place, entry in collector.entries(entries, keys, annotations):
        key = collector.key_of(entry["image"], place, "image")
        if key is None or not collector.add_image(key, entry["image"], place):
            continue
        pairs, problems = turns_in(entry["conversations"])
        for problem in problems:
            collector.leave_out(place, "turn that is not read", f"the conversation {problem}")
        for question, answer in pairs:
            collector.add_question(key, question, place, [answer], id=_id(entry.get("id")) or "")
    return collector.image_text_list()


def karpathy(annotations: File, images: File, split: str = "train") -> ImageTextList:
    """Karpathy's dataset_coco.json or dataset_flickr30k.json: `split` train, val or test.

    COCO's "restval", the rest of its validation images, is included in "train", as is usual.
    """
    what, keys = "Karpathy's splits", ("filename", "split", "sentences")
    entries = _entries(_read_json(annotations, what), "images", keys, annotations, what)
    wanted = ("train", "restval") if split == "train" else (split,)
    collector = _Collector(images, str(annotations))
    whole = _with_split(collector, collector.entries(entries, keys, annotations, "images"))
    for place, entry in _split_of(whole, wanted, split, annotations):
        key = collector.key_of(entry.get("cocoid", entry.get("imgid", f"file {entry['filename']}")), place, "cocoid")
        folder, name = entry.get("filepath", ""), entry["filename"]
        if key is None or not all(isinstance(one, str) for one in (folder, name)):
            if key is not None:
                collector.leave_out(place, "incomplete entry", "its 'filename' or 'filepath' is no text")
            continue
        if collector.add_image(key, f"{folder}/{name}" if folder else name, place):
            collector.add_captions(key, entry["sentences"], place)
    return collector.image_text_list()


def flickr30k(annotations: File, images: File) -> ImageTextList:
    """Flickr30k's results_20130124.token: `1000092795.jpg#0`, a tab, the caption."""
    collector = _Collector(images, str(annotations))
    for number, line in enumerate(lines_of(read_text(annotations, "Flickr30k's captions")), 1):
        place, (name, tab, caption) = f"{annotations}, line {number}", line.partition("\t")
        file, sharp, _ = name.rpartition("#")
        if line.strip() and not (tab and sharp):
            raise ValueError(f"{place} is not of the form picture.jpg#0, a tab, a caption")
        if line.strip() and collector.add_image(file, file, place):
            collector.add_captions(file, caption, place)
    return collector.image_text_list()


def visual_genome(regions: File, image_data: File, images: File) -> ImageTextList:
    """Visual Genome's region_descriptions.json and image_data.json; below `images` are VG_100K and VG_100K_2.

    A region's phrase is a caption of the whole image, as in BLIP's and BLIP-2's pre-training, and has its box.
    """
    what, keys = "Visual Genome's image data", ("image_id", "url", "width", "height")
    pictures = _entries(_read_json(image_data, what), "", keys, image_data, what)
    collector, sizes = _Collector(images, str(regions)), {}
    for place, entry in collector.entries(pictures, keys, image_data):
        key = collector.key_of(entry["image_id"], place, "image_id")
        if key is not None:
            # …/VG_100K_2/1.jpg: only the URL tells which of the two folders the image is in
            url = entry["url"]
            name = "/".join(PurePosixPath(url).parts[-2:]) if isinstance(url, str) else url
            collector.add_image(key, name, place)
            sizes[key] = entry["width"], entry["height"]
    what, keys = "Visual Genome's region descriptions", ("id", "regions")
    described = _entries(_read_json(regions, what), "", keys, regions, what)
    for place, entry in collector.entries(described, keys, regions):
        if not isinstance(entry["regions"], list):
            collector.leave_out(place, "incomplete entry", "its 'regions' are no list")
            continue
        for where, region in collector.entries(entry["regions"], ("phrase",), place, "regions"):
            key = collector.key_of(region.get("image_id", entry["id"]), where, "image_id")
            if key is None:
                continue
            corner = [region.get(name) for name in ("x", "y", "width", "height")]
            box = _fractions(corner, *sizes[key]) if key in sizes else None
            if box is None and key in sizes and not texts_in(region["phrase"])[1]:
                collector.leave_out(
                    where, "region without a box", "x, y, width, height are no box in the picture; its phrase is used"
                )
            collector.add_captions(key, region["phrase"], where, box=box)
    return collector.image_text_list()


# ---------------------------------------------------------------------------------------------------------- questions


def vqa(questions: File, images: File, annotations: File | None = None) -> ImageTextList:
    """VQA v2 and OK-VQA: …_questions.json, …_annotations.json (ten answers each; none for a test set) and COCO's
    images of that split. OK-VQA's answers are the normalized ones, which its evaluation uses.

    An `image_id` that is a number is the number in the name of a COCO image (`COCO_train2014_000000000042.jpg`, or
    `000000000042.jpg`). One that is a text with an ending is a file name, for questions of your own.
    """
    what, keys = "VQA questions", ("image_id", "question", "question_id")
    content = _read_json(questions, what)
    collector = _Collector(images, str(questions))
    found = _entries(content, "questions", keys, questions, what)
    asked = list(collector.entries(found, keys, questions, "questions"))
    answers = _answers_by_question(annotations, collector) if annotations is not None else {}
    if annotations is not None and not answers.keys() & {_id(entry["question_id"]) for _, entry in asked}:
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
        if not collector.add_image(key, _vqa_file(key, split, questions), place):
            continue
        words, kind = given or ([], "")
        collector.add_question(key, entry["question"], place, words, kind, number)
    for number in answers:
        collector.leave_out(str(annotations), "answer without a question", f"question {number} is not in {questions}")
    return collector.image_text_list()


def _vqa_file(key: str, split: Any, questions: File) -> str | tuple[str, ...]:
    """The name of a VQA image, or the names of which it has one."""
    if not key.isascii() or not key.isdigit():
        return key
    if not isinstance(split, str):
        raise ValueError(f"{questions} does not say which of COCO's splits its pictures are from ('data_subtype')")
    # test-dev2015 is a part of test2015, and its image files are named after test2015
    return f"COCO_{split.replace('-dev', '')}_{int(key):012d}.jpg", f"{int(key):012d}.jpg"


def _answers_by_question(annotations: File, collector: _Collector) -> dict[str, tuple[list, Any]]:
    """question number -> (its answers, its type)"""
    what, keys = "VQA annotations", ("question_id", "answers")
    found = _entries(_read_json(annotations, what), "annotations", keys, annotations, what)
    answers: dict[str, tuple[list, Any]] = {}
    for place, entry in collector.entries(found, keys, annotations, "annotations"):
        number, given = collector.key_of(entry["question_id"], place, "question_id"), entry["answers"]
        if number is None:
            continue
        given = given if isinstance(given, list) else [given]
        words = [one.get("answer") if isinstance(one, dict) else one for one in given]
        if number in answers:
            collector.leave_out(place, "answered twice", f"question {number} has answers already; the first are used")
            continue
        answers[number] = words, entry.get("answer_type", "")
    return answers


def gqa(questions: File, images: File) -> ImageTextList:
    """GQA's …_questions.json, a dictionary by question number; or a folder: all such files in it.

    Images are `images/2354786.jpg`. The type is the structural one (verify, query, choose, logical, compare).
    """
    path, collector = Path(questions), _Collector(images, str(questions))
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no .json file with GQA questions")
    keys = {"question", "imageId"}
    for file in files:
        content = _read_json(file, "GQA questions")
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
            answers = [entry["answer"]] if entry.get("answer") not in (None, "") else []
            kind = types.get("structural", "") if isinstance(types, dict) else ""
            collector.add_question(key, entry["question"], place, answers, kind, number)
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
    collector = _Collector(images, str(refs))
    by_id: dict[str, dict] = {}
    boxes: dict[tuple[str | None, str | None], Any] = {}  # by box and image
    for key, keys in (("images", ("id", "file_name", "width", "height")), ("annotations", ("id", "image_id", "bbox"))):
        found = _entries(content, key, keys, instances, what)
        for place, entry in collector.entries(found, keys, instances, key):
            number = collector.key_of(entry["id"], place, "id")
            if number is not None and key == "images":
                by_id[number] = entry
            elif number is not None:
                boxes[number, _id(entry["image_id"])] = entry["bbox"]
    keys = ("image_id", "ann_id", "split", "sentences")
    references = _entries(_read_pickle(refs), "", keys, refs, "a pickle of RefCOCO's references")
    whole = _with_split(collector, collector.entries(references, keys, refs))
    for place, entry in _split_of(whole, (split,), split, refs):
        key, number = (collector.key_of(entry[name], place, name) for name in ("image_id", "ann_id"))
        if key is None or number is None:
            continue
        picture, box = by_id.get(key), boxes.get((number, key))
        if picture is None or box is None:
            cause = "reference without a picture" if picture is None else "reference without a box"
            collector.leave_out(place, cause, f"{instances} has no {'image' if picture is None else 'box'} of it")
            continue
        # not the reference's file_name: it ends in the annotation's number, and no image file has that name
        if collector.add_image(key, picture["file_name"], place):
            fractions = _fractions(box, picture["width"], picture["height"])
            if fractions is None:
                collector.leave_out(place, "reference without a box", f"{box!r:.40} is no box; its sentences are used")
            _add_sentences(collector, key, entry["sentences"], place, fractions)
    return collector.image_text_list()


def _add_sentences(collector: _Collector, key: str, sentences: Any, place: str, box: tuple[float, ...] | None) -> None:
    if sentences == []:
        collector.leave_out(place, "empty caption", "its list of sentences is empty")
    for sentence in sentences if isinstance(sentences, list) else [sentences]:
        text = (sentence.get("raw") or sentence.get("sent")) if isinstance(sentence, dict) else sentence
        collector.add_captions(key, sentence if text is None else text, place, box=box)


def _read_pickle(path: File) -> Any:
    try:
        with Path(path).open("rb") as file:
            # written by Python 2, whose strings are bytes of UTF-8
            return _PlainUnpickler(file, encoding="utf-8").load()
    except FileNotFoundError:
        raise ValueError(f"there is no file {path} (RefCOCO's references)") from None
    except Exception as error:  # on damaged data pickle raises many kinds of exceptions
        raise ValueError(f"{path} is not a pickle of RefCOCO's references: {error}") from None
