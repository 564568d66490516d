"""Figures from tensors and strings, and explorers for notebooks. They know tensors and names, and no stage of a model.

    figures    the map of BLIP-2, masks, matrices, curves, bars, pictures
    attention  attention and attribution laid over a picture
    decoding   the next token's probabilities; a beam search as a tree
    widgets    explorers for notebooks, each with a figure that needs no widget

Matplotlib and ipywidgets are imported where a figure or a widget is made; `overlay` needs neither.

Paper: Figures 1 and 2. Notebooks: all.
"""

from blip2_lab.plots.attention import overlay, queries_on_image, words_on_image
from blip2_lab.plots.decoding import beam_tree, next_token
from blip2_lab.plots.figures import attention_on_image, bars, blip2_map, curves, image_grid, mask_grids, matrix

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
    "words_on_image",
]
