"""Texts about a region of an image: Visual Genome's region descriptions, and the referring expressions of RefCOCO.

Each text is a caption of the whole image, and has its box.

Notes:

* RefCOCO is published as a pickle, which could execute code. The unpickler here accepts lists, dictionaries, strings
  and numbers only.

Paper: section 3.4 (Visual Genome). Notebook: 08.
"""

from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath
from typing import Any

from blip2_lab.data.annotations.entries import Collector, File, number_of, read_json
from blip2_lab.data.examples import ImageTextList
from blip2_lab.data.text_files import is_number, texts_in


def visual_genome(regions: File, image_data: File, images: File) -> ImageTextList:
    """Visual Genome's region_descriptions.json and image_data.json; below `images` are VG_100K and VG_100K_2.

    A region's phrase is a caption of the whole image, as in BLIP's and BLIP-2's pre-training, and has its box.
    """
    what, keys = "Visual Genome's image data", ("image_id", "url", "width", "height")
    content = read_json(image_data, what)
    collector, sizes = Collector(images, str(regions)), {}
    for place, entry in collector.entries(content, "", keys, image_data, what):
        key = collector.key_of(entry["image_id"], place, "image_id")
        if key is not None:
            # …/VG_100K_2/1.jpg: only the URL tells which of the two folders the image is in
            url = entry["url"]
            name = "/".join(PurePosixPath(url).parts[-2:]) if isinstance(url, str) else url
            if collector.add_image(key, name, place):
                sizes.setdefault(key, (entry["width"], entry["height"]))
    what, keys = "Visual Genome's region descriptions", ("id", "regions")
    for place, entry in collector.entries(read_json(regions, what), "", keys, regions, what):
        if not isinstance(entry["regions"], list):
            collector.leave_out(place, "incomplete entry", "its 'regions' are no list")
            continue
        for where, region in collector.complete(entry["regions"], ("phrase",), place, "regions"):
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


def refcoco(refs: File, instances: File, images: File, split: str = "train") -> ImageTextList:
    """RefCOCOg's `refs(umd).p` and instances.json (`refs(unc).p` of RefCOCO and RefCOCO+ has the same format); `split`
    train, val or test. The images are COCO's train2014. Each sentence is a caption with the box that it refers to."""
    what = "RefCOCO's instances"
    content = read_json(instances, what)
    collector = Collector(images, str(refs))
    by_id: dict[str, dict] = {}
    boxes: dict[tuple[str | None, str | None], dict] = {}  # by box and image
    for key, keys in (("images", ("id", "file_name", "width", "height")), ("annotations", ("id", "image_id", "bbox"))):
        for place, entry in collector.entries(content, key, keys, instances, what):
            number = collector.key_of(entry["id"], place, "id")
            if number is None:
                continue
            if key == "images":
                first = by_id.setdefault(number, entry)
            else:
                first = boxes.setdefault((number, number_of(entry["image_id"])), entry)
            if any(first[name] != entry[name] for name in keys[1:]):
                message = f"{key[:-1]} {number} is listed already, with something else; the first one is used"
                collector.leave_out(place, "listed twice", message)
    keys = ("image_id", "ann_id", "split", "sentences")
    references = collector.entries(_read_pickle(refs), "", keys, refs, "a pickle of RefCOCO's references")
    for place, entry in collector.of_split(references, (split,), split, refs):
        key, number = (collector.key_of(entry[name], place, name) for name in ("image_id", "ann_id"))
        if key is None or number is None:
            continue
        picture, box = by_id.get(key), boxes.get((number, key), {}).get("bbox")
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


def _add_sentences(collector: Collector, key: str, sentences: Any, place: str, box: tuple[float, ...] | None) -> None:
    if sentences == []:
        collector.leave_out(place, "empty caption", "its list of sentences is empty")
    for sentence in sentences if isinstance(sentences, list) else [sentences]:
        text = (sentence.get("raw") or sentence.get("sent")) if isinstance(sentence, dict) else sentence
        collector.add_captions(key, sentence if text is None else text, place, box=box)


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


def _read_pickle(path: File) -> Any:
    try:
        with Path(path).open("rb") as file:
            # written by Python 2, whose strings are bytes of UTF-8
            return _PlainUnpickler(file, encoding="utf-8").load()
    except FileNotFoundError:
        raise ValueError(f"there is no file {path} (RefCOCO's references)") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # on damaged data pickle raises many kinds of exceptions
        raise ValueError(f"{path} is not a pickle of RefCOCO's references: {error}: {_remedy(Path(path))}") from None


def _remedy(path: Path) -> str:
    """What to do about a file that is no pickle of plain data."""
    start = path.read_bytes()[:1] if path.is_file() else b""
    if start in (b"[", b"{"):
        return "it looks like JSON, write its value with pickle.dump"
    if start not in (b"\x80", b"(", b"]", b"}"):
        return "download it again"
    return "write it again with texts, numbers, lists and dictionaries alone, or copy it again"


class _PlainUnpickler(pickle.Unpickler):
    """Loads lists, dictionaries, strings and numbers. Everything else needs `find_class`, which raises."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and references are plain data")
