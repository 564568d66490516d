"""The annotation files of the benchmarks, read as they are published. No file is converted or written.

    entries     what all formats share: the entries of a file, collected by image
    captions    COCO, NoCaps, Karpathy's splits, Flickr30k, BLIP's own files
    questions   VQA v2 and OK-VQA, GQA, LLaVA's conversations
    regions     Visual Genome's regions, RefCOCO's referring expressions: texts with boxes

One function for each format: it takes the files of the official archives and the folder of images, and returns an
ImageTextList.

Paper: section 3.4 (COCO, Visual Genome), 4.1 (VQA v2, OK-VQA, GQA), 4.2 (NoCaps), 4.4 (COCO, Flickr30K). Notebook: 08.
"""

from blip2_lab.data.annotations.captions import blip, coco_captions, flickr30k, karpathy, nocaps
from blip2_lab.data.annotations.questions import gqa, llava, vqa
from blip2_lab.data.annotations.regions import refcoco, visual_genome

__all__ = [
    "blip",
    "coco_captions",
    "flickr30k",
    "gqa",
    "karpathy",
    "llava",
    "nocaps",
    "refcoco",
    "visual_genome",
    "vqa",
]
