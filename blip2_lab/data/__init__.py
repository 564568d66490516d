"""Images with their texts: data sets, mixtures of them, augmentation, cached features. Imports no model.

    examples       Example, Batch, ImageTextList; the examples of a batch
    scenes         PictureBook: drawn scenes, an endless data set
    text_files     text and JSON that others wrote: encodings, lines, the captions in a value
    odd_texts      texts that can be read and are probably not meant
    picture_files  the image files that a table names: other spellings, links, the safety rule
    tables         CSV and JSON lines
    image_folder   a folder of your own images
    annotations/   the annotation files of COCO, BLIP, NoCaps, Flickr30k, VQA, GQA, RefCOCO, Visual Genome
    composites     scenes composed of cut-out pictures on backgrounds
    shards         WebDataset shards on disk
    samples        the samples in a shard: which files belong together, and their texts
    tar_files      the files in a tar file, and whether it is whole
    packing        a data set packed into shards: `pack`
    streams        shards at addresses, and the Hugging Face hub
    mixture        several sources, mixed by weights: `open_sources`
    left_out       everything that cannot be used, by name and cause: `check_sources`
    augmentation   random crop and flip that keep captions true
    feature_cache  the features of a frozen image encoder, computed once and kept on disk

Paper: section 3.4. Notebook: 08.
"""

from blip2_lab.data.augmentation import Augmentation
from blip2_lab.data.composites import Composites
from blip2_lab.data.examples import AskedQuestion, Batch, Example, ImageTextList, Record, batch_indices
from blip2_lab.data.feature_cache import cached_features
from blip2_lab.data.image_folder import ImageFolder
from blip2_lab.data.mixture import Mixture, open_sources
from blip2_lab.data.scenes import PictureBook
from blip2_lab.data.shards import ShardFolder
from blip2_lab.data.streams import ShardStream

__all__ = [
    "AskedQuestion",
    "Augmentation",
    "Batch",
    "Composites",
    "Example",
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
