"""Figures from tensors and strings, and interactive explorers for notebooks.

    figures    the map of BLIP-2, masks, matrices, curves, bars, images
    attention  attention and attribution maps over an image
    decoding   probabilities of the next token; a beam search as a tree
    widgets    explorers for notebooks, each with a static figure that needs no widget

No function here takes a model. Matplotlib and ipywidgets are imported inside the functions that need them; `overlay`
needs neither.

Paper: Figures 1 and 2. Notebooks: all.
"""

from blip2_lab.plots.attention import overlay, queries_on_image, words_on_image
from blip2_lab.plots.decoding import beam_tree, next_token
from blip2_lab.plots.figures import (
    attention_on_image,
    bars,
    blip2_map,
    curves,
    image_grid,
    mask_grids,
    matrix,
    reconstructions,
)

__all__ = [
    "attention_on_image",
    "bars",
    "beam_tree",
    "blip2_map",
    "curves",
    "mask_grids",
    "matrix",
    "next_token",
    "overlay",
    "image_grid",
    "queries_on_image",
    "reconstructions",
    "words_on_image",
]
