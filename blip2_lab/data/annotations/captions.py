"""Captions: COCO, NoCaps, Karpathy's splits, Flickr30k, and BLIP's own annotation files.

Notes:

* BLIP's files hold captions, or questions with answers, in one form.

Paper: section 3.4 (COCO), 4.2 (NoCaps), 4.4 (COCO, Flickr30K). Notebook: 08.
"""

from __future__ import annotations

from blip2_lab.data.annotations.entries import Collector, File, format_of, list_in, number_of, read_json
from blip2_lab.data.examples import ImageTextList
from blip2_lab.data.text_files import lines_of, listed, read_text


def coco_captions(annotations: File, images: File) -> ImageTextList:
    """COCO's captions_train2014.json (2014 or 2017, train or val) and the folder of that split's images."""
    return _coco_like(annotations, images, "COCO's captions")


def nocaps(annotations: File, images: File, domain: str = "") -> ImageTextList:
    """NoCaps' nocaps_val_4500_captions.json; `domain`: only "in-domain", "near-domain" or "out-domain"."""
    return _coco_like(annotations, images, "NoCaps' captions", domain)


def _coco_like(annotations: File, images: File, what: str, domain: str = "") -> ImageTextList:
    content = read_json(annotations, what)
    collector, others = Collector(images, str(annotations)), set()
    keys = ("id", "file_name")
    pictures = list(collector.entries(content, "images", keys, annotations, what))
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
    for place, entry in collector.entries(content, "annotations", keys, annotations, what):
        key = collector.key_of(entry["image_id"], place, "image_id")
        if key is not None and key not in others:
            collector.add_captions(key, entry["caption"], place)
    return collector.image_text_list()


def karpathy(annotations: File, images: File, split: str = "train") -> ImageTextList:
    """Karpathy's dataset_coco.json or dataset_flickr30k.json: `split` train, val or test.

    COCO's "restval", the rest of its validation images, is included in "train", as is usual.
    """
    what, keys = "Karpathy's splits", ("filename", "split", "sentences")
    content = read_json(annotations, what)
    wanted = ("train", "restval") if split == "train" else (split,)
    collector = Collector(images, str(annotations))
    entries = collector.entries(content, "images", keys, annotations, what)
    for place, entry in collector.of_split(entries, wanted, split, annotations):
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
    collector = Collector(images, str(annotations))
    for number, line in enumerate(lines_of(read_text(annotations, "Flickr30k's captions")), 1):
        place, (name, tab, caption) = f"{annotations}, line {number}", line.partition("\t")
        file, sharp, _ = name.rpartition("#")
        if line.strip() and not (tab and sharp):
            other = "save a table with named columns as captions.csv in the folder of its pictures, and give the folder"
            raise ValueError(f"{place} is not of the form picture.jpg#0, a tab, a caption: {other}")
        if line.strip() and collector.add_image(file, file, place):
            collector.add_captions(file, caption, place)
    return collector.image_text_list()


def blip(annotations: File, images: File) -> ImageTextList:
    """BLIP's own annotation files, such as coco_karpathy_train.json, coco_karpathy_val.json, vqa_train.json and
    flickr30k_test.json, and JSON lines of this form: a list of objects with `image`, and `caption` (one or a list), or
    `question` and `answer`."""
    what = "BLIP's annotations"
    entries = list_in(read_json(annotations, what), "", ("image",), annotations, what)
    if entries and not any(isinstance(entry, dict) and {"caption", "question"} & entry.keys() for entry in entries):
        other = format_of(entries)
        raise ValueError(f"{annotations} is not {what}: its entries have no 'caption' and no 'question'{other}")
    collector = Collector(images, str(annotations))
    for place, entry in collector.complete(entries, ("image",), annotations):
        image = entry["image"]
        if not isinstance(image, str):
            collector.unfit(place, "'image'", image, "a file name")
            continue
        if not collector.add_image(image, image, place):
            continue
        if "caption" in entry:
            collector.add_captions(image, entry["caption"], place)
        if "question" in entry:
            answers, number = listed(entry.get("answer", entry.get("answers"))), number_of(entry.get("question_id"))
            collector.add_question(image, entry["question"], place, answers, id=number or "")
        elif "caption" not in entry:
            collector.leave_out(place, "incomplete entry", "it has no 'caption' and no 'question'")
    return collector.image_text_list()
