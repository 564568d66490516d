"""Pictures with their texts: data sets, their mixture, what is done to a picture, cached features. Knows no model.

    examples       Example, Batch, PictureList; which examples a batch has
    scenes         PictureBook: the drawn world, endless
    image_folder   a folder of your own pictures
    annotations    the benchmarks' own files: COCO, NoCaps, Flickr30k, VQA, GQA, RefCOCO, Visual Genome
    shards         WebDataset shards and the Hugging Face hub
    mixture        several sources, mixed by weights: `open_sources`
    augmentation   random crop and flip that keep captions true
    feature_cache  what a frozen image encoder says, computed once and kept on disk

Paper: section 3.4. Notebook: 08.
"""

from blip2_lab.data.augmentation import Augmentation
from blip2_lab.data.examples import AskedQuestion, Batch, Example, ImageTextList, Record, batch_indices
from blip2_lab.data.feature_cache import Features, cached_features
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import Mixture, open_sources
from blip2_lab.data.scenes import PictureBook
from blip2_lab.data.shards import ShardFolder, ShardStream

__all__ = [
    "AskedQuestion",
    "Augmentation",
    "Batch",
    "Example",
    "Features",
    "ImageFolder",
    "Mixture",
    "PictureBook",
    "ImageTextList",
    "Record",
    "ShardFolder",
    "ShardStream",
    "batch_indices",
    "cached_features",
    "open_sources",
]
