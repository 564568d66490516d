"""The protocol of a bridge: image features in, what the language model reads out.

`Bridge` is where to begin. `Stage2Model` calls `forward`, and hands the result to its language model.

Notes:

* The result is called `visual_prompt`, as in the paper, for every bridge. With early fusion it is a soft prompt
  [B,M,Dl] in front of the text. With deep fusion it is the memory [B,M,Dv] that blocks between the language model's
  layers attend to. In both cases `visual_prompt[:, :0]` is "no image".

Paper: section 3.3, Figure 3. Notebooks: 10, 16.
"""

from __future__ import annotations

from torch import Tensor, nn


class Bridge(nn.Module):
    """image_features [B,N,Dv] -> visual_prompt [B,M,Dl] (early fusion) or [B,M,Dv] (deep fusion).

    `image_width` is Dv, `language_width` is Dl. `deep_fusion`: the language model's layers attend to the result, and
    no token of the image is in front of the text.
    """

    deep_fusion = False
    image_width: int
    language_width: int

    def forward(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv], [CLS] first -> visual_prompt."""
        raise NotImplementedError

    def num_visual_tokens(self, num_features: int) -> int:
        """M, for an image of N features."""
        raise NotImplementedError

    def match_norm(self, norm: float) -> float:
        """Scale the new bridge so that a token of a soft prompt has this mean norm; returns the factor.

        Deep fusion puts nothing beside the word embeddings: factor 1.
        """
        return 1.0

    def check_widths(self, image_width: int, language_width: int) -> None:
        """Raises ValueError for an image encoder or a language model of another width."""
        if self.image_width != image_width:
            raise ValueError(
                f"The bridge reads image features of width {self.image_width}, and this image encoder has width "
                f"{image_width}: use the image encoder that the bridge was made for."
            )
        if self.language_width != language_width:
            raise ValueError(
                f"The bridge was made for a language model of width {self.language_width}, and this one has width "
                f"{language_width}: use the language model that the bridge was made for."
            )
