"""Figures from tensors and strings, and interactive explorers for notebooks.

    figures    the map of BLIP-2, masks, matrices, curves, bars, images
    drawings   how something works: attention by hand, a Q-Former layer, ITM's pairs, a sequence, a KV cache
    live       curves that grow while a model trains, and a count of what is done
    attention  attention and attribution maps over an image
    decoding   probabilities of the next token; a beam search as a tree
    widgets    explorers for notebooks, each with a static figure that needs no widget

No function here takes a model. The drawings are imported from plots/drawings.py. Matplotlib and ipywidgets are imported
inside the functions that need them; `overlay` needs neither.

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
from blip2_lab.plots.live import LiveCurves

__all__ = [
    "attention_on_image",
    "bars",
    "beam_tree",
    "blip2_map",
    "curves",
    "image_grid",
    "LiveCurves",
    "mask_grids",
    "matrix",
    "next_token",
    "overlay",
    "queries_on_image",
    "reconstructions",
    "words_on_image",
]
