"""Image-text retrieval: ITC makes a shortlist by a matrix product, ITM re-ranks it pair by pair.

`read_gallery` encodes the images, `retrieve` scores them against texts in both directions, `search` in one.

Notes:

* Each image is encoded once, into a `Gallery`: its ITC vectors and the cross-attention keys and values for ITM. (LAVIS
  encodes an image again for each of its 128 candidates, in both directions.)
* A pair (image, text) has one ITM score, which both directions use.
* All texts of an image are matched in one pass over the same keys and values, which are not copied.
* `pair_scores` has three ways to rank by ITM. ITM is trained to separate true pairs from hard negatives, which are
  sampled in proportion to exp(ITC logit) (section 3.2). The optimal ITM log-odds of a pair are therefore its true
  log-odds *minus* the ITC logit, and adding the ITC logit restores the true order. LAVIS adds the cosine instead.

Paper: section 4.4. Notebook: 06.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2_lab.models.losses import itc_similarity
from blip2_lab.models.qformer import ImageMemory
from blip2_lab.models.stage1 import Stage1Model, trim
from blip2_lab.models.stage2 import Stage2Model

#: The score of a pair that is on no shortlist.
NOT_RERANKED = -torch.inf  # differs from LAVIS: its -100 can be above the score of a re-ranked pair
RANKINGS = ("itm", "lavis", "both")


@dataclass(frozen=True)
class Gallery:
    """I images encoded by the Q-Former."""

    image_embeds: Tensor  # [I, Q, E]
    memory: ImageMemory

    def __len__(self) -> int:
        return len(self.image_embeds)


@dataclass(frozen=True)
class RetrievalScores:
    """Higher is better. `itc` is the ranking without ITM: its rows for image-to-text, its columns for text-to-image."""

    itc: Tensor  # [I, M], the largest cosine over the queries
    image_to_text: Tensor  # [I, M]
    text_to_image: Tensor  # [M, I]


@torch.no_grad()
def read_gallery(model: Stage1Model, batches: Iterable[Tensor], *, keep_on: torch.device | None = None) -> Gallery:
    """Encode images, given as batches of image_features [B, N, Dv].

    keep_on  the device of the keys and values (default: the model's); 9.5 MB for each image with ViT-g in float32
    """
    embeds, memories = [], []
    for image_features in batches:
        memory = model.qformer.read_image(image_features.to(model.device))
        embeds.append(model.project_queries(model.qformer(image=memory).query_output))
        memories.append(memory.to(keep_on or model.device))
    if not embeds:
        raise ValueError("There is no picture to search in: give at least one.")
    return Gallery(torch.cat(embeds), ImageMemory.cat(memories))


@torch.no_grad()
def embed_texts(model: Stage1Model, input_ids: Tensor, attention_mask: Tensor, *, batch_size: int = 256) -> Tensor:
    """input_ids, attention_mask [M, T] -> text_embeds [M, E]."""
    batches = zip(input_ids.split(batch_size), attention_mask.split(batch_size), strict=True)
    return torch.cat([model.embed_text(*trim(ids, mask)) for ids, mask in batches])


@torch.no_grad()
def match_pairs(
    model: Stage1Model,
    gallery: Gallery,
    pairs: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    batch_size: int = 256,
) -> Tensor:
    """pairs long[P, 2] of (image, text) indices -> ITM's logits [P, 2]: no match, match."""
    logits = torch.empty(len(pairs), 2, device=model.device)
    for images, places in _batches_of_pairs(pairs, attention_mask.sum(dim=1), batch_size):
        memory, text = gallery.memory.select(images.to(gallery.memory.device)).to(model.device), pairs[places, 1]
        logits[places] = model.itm_logits(memory, *trim(input_ids[text], attention_mask[text])).float()
    return logits


def pair_scores(itm_logits: Tensor, itc: Tensor, temperature: Tensor | float, rank_by: str = "itm") -> Tensor:
    """The score that re-ranked pairs are ordered by: itm_logits [P, 2] and ITC's cosines [P] -> [P].

    rank_by  "itm": ITM's log-odds of a match (the order of its probability)
             "lavis": ITM's logit for a match plus the cosine, as in LAVIS; the cosine is small beside the logit
             "both": ITM's log-odds plus ITC's logit, the cosine over the temperature
    Raises ValueError for any other.
    """
    _check_ranking(rank_by)
    log_odds = itm_logits[:, 1] - itm_logits[:, 0]  # differs from LAVIS: one logit does not order by probability
    return {"itm": log_odds, "lavis": itm_logits[:, 1] + itc, "both": log_odds + itc / temperature}[rank_by]


def _check_ranking(rank_by: str) -> None:
    if rank_by not in RANKINGS:
        raise ValueError(f"rank_by={rank_by!r} is unknown; choose one of {', '.join(RANKINGS)}.")


def _batches_of_pairs(pairs: Tensor, text_lengths: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pairs long[P, 2] in the Q-Former's form: indices of G images, long[G], and positions of S * G pairs,
    where pair i shows image i % G. Images with the same number of pairs are batched together."""
    order = text_lengths[pairs[:, 1]].argsort(stable=True)  # within an image, short texts first
    order = order[pairs[order, 0].argsort(stable=True)]
    images, counts = pairs[order, 0].unique_consecutive(return_counts=True)
    starts = counts.cumsum(dim=0) - counts
    for count in counts.unique().tolist():
        for alike in (counts == count).nonzero().squeeze(1).split(max(1, batch_size // count)):
            for nth in torch.arange(count, device=pairs.device).split(batch_size):
                yield images[alike], order[starts[alike] + nth[:, None]].flatten()


def retrieve(
    model: Stage1Model,
    gallery: Gallery,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    shortlist: int = 128,
    rank_by: str = "itm",
    batch_size: int = 256,
) -> RetrievalScores:
    """Every image of the gallery against M texts (input_ids, attention_mask [M, T]), in both directions.

    shortlist  the number of candidates of each row that are re-ranked (paper: 128); the others score NOT_RERANKED
    rank_by    their order, see `pair_scores`
    """
    texts = input_ids, attention_mask
    itc = itc_similarity(gallery.image_embeds, embed_texts(model, *texts, batch_size=batch_size))
    listed_texts, listed_images = _shortlist(itc, shortlist), _shortlist(itc.T, shortlist).T  # bool[I, M] both
    scores = _rerank(model, gallery, itc, listed_texts | listed_images, *texts, rank_by, batch_size)
    image_to_text = scores.masked_fill(~listed_texts, NOT_RERANKED)
    return RetrievalScores(itc, image_to_text, scores.masked_fill(~listed_images, NOT_RERANKED).T)


def search(
    model: Stage1Model,
    gallery: Gallery,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    shortlist: int = 128,
    rank_by: str = "itm",
    batch_size: int = 256,
) -> Tensor:
    """Text-to-image retrieval: scores [M, I], as `retrieve(...).text_to_image`, at half the cost."""
    texts = input_ids, attention_mask
    itc = itc_similarity(gallery.image_embeds, embed_texts(model, *texts, batch_size=batch_size))
    return _rerank(model, gallery, itc, _shortlist(itc.T, shortlist).T, *texts, rank_by, batch_size).T


@torch.no_grad()
def score_pairs(
    model: Stage1Model, image_features: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores of the pairs (image b, text b): ITC's cosine [B] and ITM's probability of a match [B]. Each image is
    encoded once."""
    memory = model.qformer.read_image(image_features)
    image_embeds = model.project_queries(model.qformer(image=memory).query_output)
    text_embeds = model.embed_text(input_ids, attention_mask)
    itc = torch.einsum("bqe,be->bq", image_embeds, text_embeds).max(dim=1).values
    return itc, model.itm_logits(memory, input_ids, attention_mask).float().softmax(dim=1)[:, 1]


def _shortlist(similarity: Tensor, size: int) -> Tensor:
    """bool, shaped as similarity: True for the `size` best of each row."""
    best = similarity.topk(min(size, similarity.shape[1]), dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, best, True)


def _rerank(
    model: Stage1Model,
    gallery: Gallery,
    itc: Tensor,
    listed: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    rank_by: str,
    batch_size: int,
) -> Tensor:
    """Scores [I, M] where listed bool[I, M] is True, NOT_RERANKED elsewhere."""
    _check_ranking(rank_by)  # before the long computation
    logits = match_pairs(model, gallery, listed.nonzero(), input_ids, attention_mask, batch_size=batch_size)
    scores = torch.full_like(itc, NOT_RERANKED)
    scores[listed] = pair_scores(logits, itc[listed], model.temperature, rank_by)
    return scores


def require_stage1(model: Stage2Model | Stage1Model) -> Stage1Model:
    """The stage-1 model of a model, with image encoder and tokenizer. Raises ValueError when one is missing."""
    stage1 = model if isinstance(model, Stage1Model) else getattr(model, "stage1", None)  # a dual encoder has none
    if stage1 is None:
        raise ValueError(
            "This model has no stage 1, which compares pictures and texts: load micro, or Salesforce/blip2-itm-vit-g."
        )
    if stage1.image_encoder is None or stage1.tokenizer is None:
        raise ValueError("This stage-1 model has no image encoder or no tokenizer: load one that has both to search.")
    return stage1
