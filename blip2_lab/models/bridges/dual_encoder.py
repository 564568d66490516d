"""A dual encoder with fusion: one encoder for images, one for texts, cross-attention between them, no decoder.

`DualEncoder` is where to begin: `losses` trains it, `match` and `rank` use it, `embed_images` and `embed_texts`
retrieve.

Notes:

* The text encoder is a frozen decoder language model. A token of a decoder reads only what precedes it, so the text's
  vector is the state of its *last* token (last-token pooling, as in arXiv 2401.00368), not that of a [CLS] in front.
* The fusion blocks stand on top of the text encoder: every token attends to the image, in `GatedBlock`s of
  gated_cross_attention.py. Their gates start at 0. The logits of ITM are averaged over the tokens, as BLIP-2 averages
  them over its queries.
* One vocabulary for patches and words: a codebook of `num_codes` vectors replaces each image feature by its nearest
  one, and patch ids follow the word ids (`patch_ids`), as in Chameleon (arXiv 2405.09818). What this loses against
  continuous features is measured by `quantization_error`. `num_codes=None` keeps the continuous features.
* It generates no text: there is no decoder after the fusion. It can match, retrieve, and answer by ranking given
  candidates.
* What it shares with the Q-Former: ITC and ITM, by the same functions (models/losses.py). What it lacks: ITG, queries,
  and a language model that answers.

Paper: arXiv 2107.07651 (ALBEF), section 3; arXiv 2112.04482 (FLAVA). Notebook: 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models.bridges.gated_cross_attention import GatedBlock
from blip2_lab.models.language_model import DecoderLanguageModel, Text
from blip2_lab.models.losses import itc_loss, itm_loss, sample_negatives
from blip2_lab.models.vision_encoder import ImageEncoder, freeze


@dataclass
class DualEncoderConfig:
    """`num_codes` None: continuous image features; else the number of patch ids in the vocabulary.

    ffn_width  None: fusion blocks without a feed-forward network
    """

    image_width: int
    language_width: int
    num_heads: int
    num_blocks: int = 2
    ffn_width: int | None = None
    embed_width: int = 128
    num_codes: int | None = None
    image_layer_norm_eps: float = 1e-6


@dataclass
class DualEncoderLosses:
    itc: Tensor
    itm: Tensor

    @property
    def total(self) -> Tensor:
        return self.itc + self.itm


class DualEncoder(nn.Module):
    """Image encoder (frozen) and text encoder (a frozen decoder), two projections, and fusion blocks."""

    def __init__(
        self, config: DualEncoderConfig, image_encoder: ImageEncoder, language_model: DecoderLanguageModel
    ) -> None:
        super().__init__()
        if not isinstance(language_model, DecoderLanguageModel):
            raise ValueError("The text encoder of a dual encoder is made from a decoder (OPT): a T5 is not one.")
        if (config.image_width, config.language_width) != (image_encoder.width, language_model.width):
            raise ValueError(
                f"The dual encoder was made for widths {config.image_width} and {config.language_width}, and these "
                f"encoders have {image_encoder.width} and {language_model.width}."
            )
        self.config = config
        self.image_encoder, self.language_model = freeze(image_encoder), language_model
        self.image_layer_norm = nn.LayerNorm(config.image_width, eps=config.image_layer_norm_eps)
        self.image_projection = nn.Linear(config.image_width, config.embed_width)
        self.text_layer_norm = nn.LayerNorm(config.language_width)
        self.text_projection = nn.Linear(config.language_width, config.embed_width)
        sizes = (config.language_width, config.num_heads, config.image_width, config.ffn_width)
        self.blocks = nn.ModuleList(GatedBlock(*sizes) for _ in range(config.num_blocks))
        self.itm_layer_norm = nn.LayerNorm(config.language_width)
        self.itm_head = nn.Linear(config.language_width, 2)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.codebook = None  # of continuous features; else zeros until they are fitted to features: `fit_codebook`
        if config.num_codes is not None:
            self.codebook = nn.Parameter(torch.zeros(config.num_codes, config.image_width), requires_grad=False)

    @property
    def device(self) -> torch.device:
        return self.temperature.device

    # -- images ----------------------------------------------------------------------------------------------------

    def patch_ids(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> long[B,N], ids after the words: words have 0 … V-1, patches V … V+codes-1."""
        self._check_codes()
        vocab_size = self.language_model.model.config.vocab_size
        return vocab_size + nearest_codes(self._normalized(image_features), self.codebook)

    def image_tokens(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> what the fusion blocks attend to [B,N,Dv]: codes, or the normalized features."""
        features = self.image_layer_norm(image_features.to(self.image_layer_norm.weight.dtype))
        if self.config.num_codes is None:
            return features
        normalized = self._normalized(image_features)
        codes = self.codebook[nearest_codes(normalized, self.codebook)]
        return codes * self.image_layer_norm.weight + self.image_layer_norm.bias

    def embed_images(self, image_features: Tensor) -> Tensor:
        """image_features [B,N,Dv] -> image_embeds [B,E] of norm 1: the mean of the image's tokens, projected."""
        return F.normalize(self.image_projection(self.image_tokens(image_features).mean(dim=1)), dim=-1)

    def quantization_error(self, image_features: Tensor) -> float:
        """The share of the variance of normalized features [B,N,Dv] that the codes lose: 0 for none, 1 for all."""
        self._check_codes()
        features = self._normalized(image_features)
        codes = self.codebook[nearest_codes(features, self.codebook)]
        spread = features - features.mean(dim=(0, 1))
        return ((features - codes).square().sum() / spread.square().sum()).item()

    @torch.no_grad()
    def fit_codebook(self, image_features: Tensor, steps: int = 20) -> None:
        """Set the codes to the centers of k-means over these features [M,N,Dv], before training."""
        self._check_codes()
        self.codebook.copy_(k_means(self._normalized(image_features).flatten(0, 1), len(self.codebook), steps))

    def _check_codes(self) -> None:
        if self.codebook is None:
            raise ValueError("This dual encoder reads continuous features: it has no codes (num_codes=None).")

    def _normalized(self, image_features: Tensor) -> Tensor:
        """Mean 0 and variance 1 for each feature, without the LayerNorm's trained weight and bias."""
        norm = self.image_layer_norm
        return F.layer_norm(image_features.to(norm.weight.dtype), norm.normalized_shape, eps=norm.eps)

    # -- texts -----------------------------------------------------------------------------------------------------

    def text_states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B texts -> the states [B,T,Dl] of the text encoder, and their mask bool[B,T]; padded on the left, so that the
        last column is every text's last token."""
        return self.states_of(self.language_model.prompt_texts(texts))

    def states_of(self, text: Text) -> tuple[Tensor, Tensor]:
        """`text_states` from ids: text [B,T], padded on the left."""
        decoder = self.language_model.model.get_decoder()
        states = decoder(input_ids=text.ids, attention_mask=text.mask.long(), use_cache=False).last_hidden_state
        return states.to(self.text_layer_norm.weight.dtype), text.mask

    def embed_texts(self, states: Tensor) -> Tensor:
        """states [B,T,Dl] of `text_states` -> text_embeds [B,E] of norm 1: the last token, projected."""
        return F.normalize(self.text_projection(self.text_layer_norm(states[:, -1])), dim=-1)

    # -- both ------------------------------------------------------------------------------------------------------

    def match_logits(self, image_tokens: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """image_tokens [B,N,Dv], states [B,T,Dl], mask bool[B,T] -> logits [B,2]; class 1 is a match.

        No tokens (N = 0) are no image: the heads then read the text encoder's states alone.
        """
        x = states
        for block in self.blocks if image_tokens.shape[1] else ():
            x = block(x, *block.cross_attention.keys_values(image_tokens))
        logits = self.itm_head(self.itm_layer_norm(x)) * mask[:, :, None]
        return logits.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def losses(
        self,
        image_features: Tensor,
        captions: Sequence[str] | Text,
        generator: torch.Generator | None = None,
        matches: Tensor | None = None,
    ) -> DualEncoderLosses:
        """ITC and ITM of B pairs. matches bool[B,B]: captions that are true of an image; None: only its own."""
        text = captions if isinstance(captions, Text) else self.language_model.prompt_texts(captions)
        (states, mask), tokens = self.states_of(text), self.image_tokens(image_features)
        image_embeds = F.normalize(self.image_projection(tokens.mean(dim=1)), dim=-1)
        similarity = image_embeds @ self.embed_texts(states).T / self.temperature
        true = torch.eye(len(states), dtype=torch.bool, device=states.device) if matches is None else matches
        itc = itc_loss(similarity, similarity.T, true, text_positives=true.T)
        wrong_text = sample_negatives(similarity, true, generator)
        wrong_image = sample_negatives(similarity.T, true.T, generator)
        images = torch.cat([tokens, tokens[wrong_image], tokens])
        texts = (torch.cat([each, each, each[wrong_text]]) for each in (states, mask))
        logits = self.match_logits(images, *texts)
        return DualEncoderLosses(itc, itm_loss(logits, ~true.all(dim=1), ~true.T.all(dim=1)))

    @torch.no_grad()
    def match(self, image_features: Tensor, texts: Sequence[str]) -> Tensor:
        """image_features [B,N,Dv] and B texts -> probability of a match [B]."""
        return self.match_logits(self.image_tokens(image_features), *self.text_states(texts)).softmax(dim=-1)[:, 1]

    def rank(self, image_features: Tensor, prompt: str, candidates: Sequence[str]) -> list[tuple[str, float]]:
        """One image [1,N,Dv]: candidate answers with the probability that "prompt candidate" matches, best first."""
        candidates = list(candidates)
        if not candidates or not all(text.strip() for text in candidates):
            raise ValueError("Pass at least one candidate to rank, and no empty one.")
        if len(image_features) != 1:
            raise ValueError(f"rank takes one image at a time; {len(image_features)} were given.")
        texts = [f"{prompt} {candidate}".strip() for candidate in candidates]
        scores = self.match(image_features.expand(len(texts), -1, -1), texts).tolist()
        return sorted(zip(candidates, scores, strict=True), key=lambda pair: -pair[1])

    def generate(self, *_: object, **__: object) -> str:
        """Raises ValueError: a dual encoder has no decoder after its fusion."""
        raise ValueError(
            "A dual encoder generates no text: it has no decoder after its fusion blocks. Rank candidate answers with "
            "`rank`, or use a bridge to a language model (linear, qformer, gated_cross_attention)."
        )


def nearest_codes(features: Tensor, codebook: Tensor) -> Tensor:
    """features [...,D], codebook [K,D] -> long[...]: the nearest code of each feature."""
    # |f - c|^2 without |f|^2, which is the same for all codes
    return (codebook.square().sum(dim=1) - 2 * features @ codebook.T).argmin(dim=-1)


def k_means(features: Tensor, num_codes: int, steps: int = 20) -> Tensor:
    """Centers [K,D] of features [M,D] by Lloyd's algorithm, started by k-means++ (Arthur and Vassilvitskii, 2007): each
    start is drawn by its squared distance to the starts before it."""
    distinct = len(features.unique(dim=0))
    if distinct < num_codes:
        raise ValueError(f"{num_codes} codes need at least as many different features; there are {distinct}.")
    generator = torch.Generator().manual_seed(0)
    centers, distances = features[:1], torch.full((len(features),), torch.inf, device=features.device)
    while len(centers) < num_codes:
        distances = torch.minimum(distances, (features - centers[-1]).square().sum(dim=1))
        drawn = torch.multinomial(distances.double().cpu(), 1, generator=generator)
        centers = torch.cat([centers, features[drawn.to(features.device)]])
    for _ in range(steps):
        nearest = nearest_codes(features, centers)
        counts = torch.bincount(nearest, minlength=num_codes)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, nearest, features)
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)  # a center without features stays
    return centers
