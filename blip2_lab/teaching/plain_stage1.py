"""Stage 1 in the order of the paper and of LAVIS, one pass for each objective, on the weights of a `Stage1Model`.

`plain_losses` is where to begin: ITC, ITM and ITG one after the other. Read it before models/stage1.py, or beside
`Blip2Qformer.forward` of LAVIS, which has the same order. Tests compare `Stage1Model.losses` with it; a benchmark
measures both.

Notes, on what `Stage1Model.losses` does otherwise:

* Every pass computes the cross-attention keys and values again from the normalized image features: once for ITC (ITG
  reuses its queries), three times for ITM.
* Every text is padded to 32 tokens (`max_text_tokens`); padding goes through every layer and through the language
  modeling head.
* Negatives are sampled in a Python loop, row by row, and their features are copied.

Paper: section 3.2, Figure 2. Notebooks: 05 to 07.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models.attention import MASKED, MultiHeadAttention
from blip2_lab.models.losses import Stage1Losses
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.qformer import FeedForward, QFormer
from blip2_lab.models.stage1 import Stage1Model

KeysValues = tuple[Tensor, Tensor]


def plain_losses(
    stage1: Stage1Model,
    image_features: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    negatives: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Stage1Losses:
    """image_features [B, N, Dv], texts [B, 32] -> the three losses; four passes read each image."""
    config, qformer, size = stage1.config, stage1.qformer, len(input_ids)
    num_queries = qformer.config.num_query_tokens
    image = qformer.image_layer_norm(image_features)

    # ITC: queries alone, text alone
    queries, past = bert_layers(qformer, embed(qformer, None, size), num_queries, image)
    image_embeds = F.normalize(stage1.vision_projection(queries), dim=-1)
    text, _ = bert_layers(qformer, embed(qformer, input_ids, 0), 0, mask=attention_mask[:, None, None, :])
    text_embeds = F.normalize(stage1.text_projection(text[:, 0]), dim=-1)
    similarity = torch.matmul(image_embeds[:, None], text_embeds[None, :, :, None]).squeeze(-1)  # [B, B, Q]
    image_to_text = similarity.max(dim=-1).values / stage1.temperature
    text_to_image = image_to_text.T
    targets = torch.arange(size, device=input_ids.device)
    itc = sum(
        F.cross_entropy(s, targets, label_smoothing=config.label_smoothing) for s in (image_to_text, text_to_image)
    )

    # ITM: three batches, [true; wrong image; wrong text]
    image_index, text_index = negatives or draw_negatives(text_to_image, image_to_text, generator)
    wrong_images = torch.stack([image[i] for i in image_index])
    wrong_ids = torch.stack([input_ids[i] for i in text_index])
    wrong_mask = torch.stack([attention_mask[i] for i in text_index])
    ids, mask = torch.cat([input_ids, input_ids, wrong_ids]), torch.cat([attention_mask, attention_mask, wrong_mask])
    mask = F.pad(mask, (num_queries, 0), value=1)[:, None, None, :]
    images = torch.cat([image, wrong_images, image])
    joint, _ = bert_layers(qformer, embed(qformer, ids, 3 * size), num_queries, images, mask=mask)
    logits = stage1.itm_head(joint[:, :num_queries]).mean(dim=1)
    labels = torch.cat([targets.new_ones(size), targets.new_zeros(2 * size)])
    itm = F.cross_entropy(logits, labels)

    # ITG: text after the queries' keys and values
    decoder_ids = input_ids.clone()
    decoder_ids[:, 0] = config.decode_token_id
    length = input_ids.shape[1]
    causal = torch.ones(length, length, device=input_ids.device, dtype=attention_mask.dtype).tril()
    mask = F.pad(causal * attention_mask[:, None, :], (num_queries, 0), value=1)[:, None]
    text, _ = bert_layers(qformer, embed(qformer, decoder_ids, 0), 0, mask=mask, past=past)
    logits = stage1.lm_head(text, qformer.word_embeddings.weight)[:, :-1]
    labels = decoder_ids.masked_fill(attention_mask == 0, IGNORE_INDEX)[:, 1:]
    itg = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, label_smoothing=config.label_smoothing
    )
    return Stage1Losses(itc / 2, itm, itg)


@torch.no_grad()
def draw_negatives(
    text_to_image: Tensor, image_to_text: Tensor, generator: torch.Generator | None
) -> tuple[list, list]:
    """A wrong image for each text, then a wrong text for each image, one multinomial draw each."""
    drawn = []
    for similarity in (text_to_image, image_to_text):
        weights = similarity.detach().clone()
        weights.fill_diagonal_(-10000)
        weights = weights.softmax(dim=1)
        drawn.append([torch.multinomial(row, 1, generator=generator).item() for row in weights])
    return drawn[0], drawn[1]


def embed(qformer: QFormer, input_ids: Tensor | None, num_samples: int) -> Tensor:
    """[queries ; text] of `num_samples` samples (0: no queries) -> [B, L, D]."""
    parts = [qformer.query_tokens.expand(num_samples, -1, -1)] if num_samples else []
    if input_ids is not None:
        parts.append(qformer.word_embeddings(input_ids) + qformer.position_embeddings.weight[: input_ids.shape[1]])
    return qformer.dropout(qformer.embedding_layer_norm(torch.cat(parts, dim=1)))


def bert_layers(
    qformer: QFormer,
    x: Tensor,
    num_queries: int,
    image: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    past: list[KeysValues] | None = None,
) -> tuple[Tensor, list[KeysValues]]:
    """x [B, L, D], image [B, N, Dv] -> x after all layers, and each layer's self-attention keys and values.

    mask  1 = may attend, [B, 1, 1 or L, M]
    """
    cache = []
    for i, layer in enumerate(qformer.layers):
        attended, keys_values = attend(layer.self_attention, x, x, mask, past[i] if past else None)
        cache.append(keys_values)
        x = layer.self_attention_layer_norm(x + layer.dropout(attended))
        queries, text = x[:, :num_queries], x[:, num_queries:]
        outputs = []
        if num_queries:
            if layer.cross_attention is not None:
                attended, _ = attend(layer.cross_attention, queries, image)
                queries = layer.cross_attention_layer_norm(queries + layer.dropout(attended))
            outputs.append(feed_forward(layer.query_ffn, queries))
        if text.shape[1]:
            outputs.append(feed_forward(layer.text_ffn, text))
        x = torch.cat(outputs, dim=1)
    return x, cache


def attend(
    attention: MultiHeadAttention,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None = None,
    past: KeysValues | None = None,
) -> tuple[Tensor, KeysValues]:
    """BertSelfAttention: scores, mask added, softmax, dropout, values."""
    heads = attention.num_heads
    queries, keys, values = (
        linear(y).unflatten(-1, (heads, -1)).transpose(1, 2)
        for linear, y in ((attention.query, x), (attention.key, memory), (attention.value, memory))
    )
    if past is not None:
        keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
    scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + (1.0 - mask.to(scores.dtype)) * MASKED
    weights = F.dropout(scores.softmax(dim=-1), attention.dropout, attention.training)
    return attention.output((weights @ values).transpose(1, 2).flatten(2)), (keys, values)


def feed_forward(ffn: FeedForward, x: Tensor) -> Tensor:
    """BertIntermediate and BertOutput."""
    return ffn.layer_norm(x + ffn.dropout(ffn.contract(F.gelu(ffn.expand(x)))))
