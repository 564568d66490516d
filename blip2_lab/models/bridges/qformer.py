"""The Q-Former as a bridge: learned queries read the image, their output is projected to the language model's width.

`QFormerBridge` is where to begin; the Q-Former itself is in models/qformer.py.

Notes:

* The only bridge here that has a stage 1 of its own: it has learned to extract what texts say before it meets the
  language model (section 3.2).
* The number of tokens in the language model does not depend on the number of patches.
* With its text side, it reads a question beside the queries, so that the queries extract what the question is about
  (Figure 7). Queries and question share self-attention, as in ITM.

Paper: sections 3.1 and 3.3, Figure 3; section 4.3, Figure 7. Notebooks: 03, 10.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2_lab.models.bridges.bridge import Bridge
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.models.qformer import QFormer


class QFormerBridge(Bridge):
    """image_features [B,N,Dv], with questions or without -> Q-Former -> linear layer -> soft prompt [B,Q,Dl]."""

    def __init__(self, qformer: QFormer, language_width: int) -> None:
        super().__init__()
        self.config = qformer.config
        self.image_width, self.language_width = qformer.config.image_width, language_width
        self.qformer = qformer
        self.language_projection = nn.Linear(qformer.config.width, language_width)

    def forward(
        self, image_features: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Questions are input_ids and attention_mask [S*B,T]: question i is about image i % B -> [S*B,Q,Dl]."""
        text = {}
        if input_ids is not None:
            queries = self.config.num_query_tokens
            mask, real = bidirectional_mask(queries, attention_mask), attention_mask.bool()
            text = dict(input_ids=input_ids, mask=mask, text_mask=real, rows=queries)
        memory = self.qformer.read_image(image_features)
        return self.language_projection(self.qformer(image=memory, **text).query_output)

    def num_visual_tokens(self, num_features: int) -> int:
        return self.config.num_query_tokens

    @torch.no_grad()
    def match_norm(self, norm: float) -> float:
        # the last layer of the Q-Former is a LayerNorm: the entries of its output have variance 1
        factor = (norm / self.language_projection.weight.norm()).item()
        self.language_projection.weight.mul_(factor)
        self.language_projection.bias.zero_()
        return factor
