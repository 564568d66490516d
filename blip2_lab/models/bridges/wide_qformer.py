"""A wider Q-Former, for larger image encoders and higher resolutions: the same class with other sizes.

`wide_qformer_config` is where to begin.

Notes:

* It shares everything with the Q-Former except its width and its start: heads of 64, an FFN of four times the width,
  cross-attention in every other layer. It is the expanded Q-Former of a "BLIP2-Adapter-XL"; InstructBLIP
  (arXiv 2305.06500) kept the width of 768.
* There is no BERT of 2,048 to start from (BERT-large has 1,024), so its weights are random, unless a BERT of this width
  is pre-trained first.
* Its cost does not grow with the length of the soft prompt, but with the patches that its queries read: at 518 pixels
  1,370 instead of 257.

Size, query side, for features of width 1,664 and 12 layers: 107 M at width 768, 696 M at 2,048.

Paper: section 3.1. Notebook: 03.
"""

from __future__ import annotations

from blip2_lab.models.qformer import QFormerConfig

HEAD_WIDTH = 64  #: BERT's, at every width


def wide_qformer_config(
    image_width: int, width: int = 2048, *, num_layers: int = 12, num_query_tokens: int = 32, dropout: float = 0.1
) -> QFormerConfig:
    """The sizes of a Q-Former of this width, without text parts (stage 2)."""
    if width % HEAD_WIDTH:
        raise ValueError(f"The width of a Q-Former is a multiple of {HEAD_WIDTH}, the width of a head; {width} is not.")
    return QFormerConfig(
        width=width,
        num_layers=num_layers,
        num_heads=width // HEAD_WIDTH,
        ffn_width=4 * width,
        image_width=image_width,
        num_query_tokens=num_query_tokens,
        dropout=dropout,
        image_layer_norm_eps=1e-6,  # transformers' value, so that a saved model gives the same numbers there
        has_text=False,
    )
