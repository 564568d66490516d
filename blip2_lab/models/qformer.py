"""The Querying Transformer: 32 learned queries cross-attend to frozen image features and share layers with the text.

`QFormer.read_image` turns image features into keys and values, `QFormer.forward` runs the transformer over them.

Notes:

* Queries and text share self-attention. Each has its own feed-forward network, and only the queries cross-attend to the
  image, in every other layer beginning with layer 0.
* The layers are BERT's: post-LayerNorm, exact GELU, learned positions. Text positions start at 0 although the queries
  precede the text; queries have no position; one LayerNorm covers [queries ; text]. There are no token types and no
  pooler.
* The keys and values of an image are computed once and shared by all passes. Several sets of queries, each with its own
  text, may attend to one image.
* One `forward` serves all objectives; the mask (models/masks.py) selects the objective. A cached query pass is the
  prefix of ITG.
* A pass computes packed rows (`PackedRows`): all queries, then all tokens, without padding. Only attention itself works
  on the padded batch [B, L].

Size: for ViT-g, layers and embeddings have 185.7 M parameters, 186.3 M with the language modeling head; stage 1 trains
186.7 M in total. The paper says 188 M, 0.7 % more; the released model has the 186.7 M. Stage 2 keeps 105.1 M (no text
embeddings, no text FFNs).

Paper: section 3.1, Figure 2 (left). Notebook: 03.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blip2_lab.models.attention import MultiHeadAttention

KeysValues = tuple[Tensor, Tensor]  # each [B, H, M, D/H]


@dataclass
class QFormerConfig:
    """The defaults are BLIP-2's: BERT-base, 32 queries, ViT-g features."""

    vocab_size: int = 30523  # bert-base-uncased and [DEC]
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn_width: int = 3072
    cross_attention_frequency: int = 2
    image_width: int = 1408
    num_query_tokens: int = 32
    max_positions: int = 512
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    image_layer_norm_eps: float = 1e-5  # differs from transformers: it has 1e-6 here; LAVIS trained with 1e-5
    pad_token_id: int = 0
    initializer_range: float = 0.02
    has_text: bool = True  # False: stage 2's layout, without text embeddings and text FFNs


@dataclass(frozen=True)
class ImageMemory:
    """Cross-attention keys and values of B images, for each layer; None for a layer without cross-attention."""

    keys_values: tuple[KeysValues | None, ...]

    @property
    def _keys(self) -> Tensor:
        return next(pair for pair in self.keys_values if pair is not None)[0]

    @property
    def batch_size(self) -> int:
        return len(self._keys)

    @property
    def device(self) -> torch.device:
        return self._keys.device

    def select(self, index: Tensor) -> ImageMemory:
        """The images at `index` (long[B'], repeats allowed); no keys or values are computed again."""
        return ImageMemory(tuple(pair and tuple(x.index_select(0, index) for x in pair) for pair in self.keys_values))

    def to(self, device: torch.device | str) -> ImageMemory:
        return ImageMemory(tuple(pair and tuple(x.to(device) for x in pair) for pair in self.keys_values))

    @staticmethod
    def cat(memories: list[ImageMemory]) -> ImageMemory:
        """One memory with the images of all `memories`."""
        layers = zip(*(memory.keys_values for memory in memories), strict=True)
        return ImageMemory(tuple(pairs[0] and tuple(map(torch.cat, zip(*pairs, strict=True))) for pairs in layers))


@dataclass(frozen=True)
class PackedRows:
    """The layout of a pass: R rows, first the queries of all B samples, then the tokens of all B texts, no padding.

    `tokens` long[R - B*Q] are the positions of the tokens in the flattened [B, T]; None: there is no padding.
    """

    batch_size: int
    num_queries: int
    text_length: int
    tokens: Tensor | None = None

    def queries(self, x: Tensor) -> Tensor:
        """x [R, D] -> [B, Q, D]."""
        return x[: self.batch_size * self.num_queries].view(self.batch_size, self.num_queries, x.shape[1])

    def text(self, x: Tensor) -> Tensor:
        """x [R, D] -> [B, T, D], zeros at padding."""
        text = x[self.batch_size * self.num_queries :]
        if self.tokens is not None:
            places = text.new_zeros(self.batch_size * self.text_length, x.shape[1])
            text = places.index_put((self.tokens,), text)
        return text.view(self.batch_size, self.text_length, x.shape[1])

    def unpack(self, x: Tensor) -> Tensor:
        """x [R, D] -> the padded batch [B, L, D]."""
        if self.num_queries and self.text_length:
            return torch.cat([self.queries(x), self.text(x)], dim=1)
        return self.queries(x) if self.num_queries else self.text(x)

    def pack(self, x: Tensor) -> Tensor:
        """x [B, L, D] -> rows without padding [R, D]: the inverse of `unpack`."""
        queries, text = x[:, : self.num_queries].flatten(0, 1), x[:, self.num_queries :].flatten(0, 1)
        if self.tokens is not None:
            text = text.index_select(0, self.tokens)
        if self.num_queries and self.text_length:
            return torch.cat([queries, text])
        return queries if self.num_queries else text

    def first(self, columns: int) -> PackedRows:
        """The layout of the first columns of [B, L], padding included."""
        queries = min(columns, self.num_queries)
        return PackedRows(self.batch_size, queries, columns - queries)


@dataclass
class QFormerOutput:
    """`past`: the self-attention keys and values of each layer, for this pass and the earlier ones."""

    query_output: Tensor | None  # [B, Q, D], the paper's Z
    text_output: Tensor | None  # [B, T, D]; zeros where `text_mask` hides padding
    past: tuple[KeysValues, ...] | None


class FeedForward(nn.Module):
    """BERT's feed-forward block: x [B, L, D] -> LayerNorm(x + contract(gelu(expand(x))))."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.expand = nn.Linear(config.width, config.ffn_width)
        self.contract = nn.Linear(config.ffn_width, config.width)
        self.layer_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        # GELU is recomputed in the backward pass: its output would be a fifth of the activations of a training step.
        contracted = checkpoint(self._contract, self.expand(x), use_reentrant=False, preserve_rng_state=False)
        return self.layer_norm(x + self.dropout(contracted))

    def _contract(self, expanded: Tensor) -> Tensor:
        return self.contract(F.gelu(expanded))


class QFormerLayer(nn.Module):
    """Self-attention over [queries ; text], cross-attention of the queries to the image, one FFN each for queries and
    text."""

    def __init__(self, config: QFormerConfig, has_cross_attention: bool):
        super().__init__()
        width, heads = config.width, config.num_heads
        self.self_attention = MultiHeadAttention(width, heads, dropout=config.dropout)
        self.self_attention_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.cross_attention = None
        if has_cross_attention:
            self.cross_attention = MultiHeadAttention(
                width, heads, memory_width=config.image_width, dropout=config.dropout
            )
            self.cross_attention_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.query_ffn = FeedForward(config)
        self.text_ffn = FeedForward(config) if config.has_text else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rows: PackedRows,
        image: KeysValues | None,
        mask: Tensor | None,
        past: KeysValues | None,
        first: int | None,
    ) -> tuple[Tensor, PackedRows, KeysValues]:
        """x [R, D] -> output rows of the `first` columns (None: all), their layout, and keys and values of all rows.

        rows   the layout of x
        image  keys and values of the images, each [B, H, N, D/H]; None in a text-only pass
        past   keys and values of earlier rows, each [B, H, P, D/H]
        """
        attention = self.self_attention
        keys, values = (attention.split(rows.unpack(project(x))) for project in (attention.key, attention.value))
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        if first is not None:
            x, rows, mask = rows.unpack(x)[:, :first], rows.first(first), None if mask is None else mask[:, :, :first]
            x = rows.pack(x)
        context = attention.attend(attention.split(rows.unpack(attention.query(x))), keys, values, mask)
        attended = attention.output(rows.pack(context.transpose(1, 2).flatten(2)))
        x = self.self_attention_layer_norm(x + self.dropout(attended))

        queries, text = x.tensor_split([rows.batch_size * rows.num_queries])
        outputs = []
        if len(queries):
            if self.cross_attention is not None:
                attended = self._cross_attend(image, rows.queries(queries)).flatten(0, 1)
                queries = self.cross_attention_layer_norm(queries + self.dropout(attended))
            outputs.append(self.query_ffn(queries))
        if len(text):
            outputs.append(self.text_ffn(text))
        return torch.cat(outputs), rows, (keys, values)

    def _cross_attend(self, image: KeysValues, queries: Tensor) -> Tensor:
        """queries [S*B, Q, D], keys and values of B images -> [S*B, Q, D]: row i attends to image i % B.

        The S sets of queries of one image attend as one set [B, S*Q, D], so its keys and values are not copied.
        """
        side_by_side = queries.unflatten(0, (-1, len(image[0]))).transpose(0, 1).flatten(1, 2)
        attended = self.cross_attention(side_by_side, *image)
        return attended.unflatten(1, (-1, queries.shape[1])).transpose(0, 1).flatten(0, 1)


class QFormer(nn.Module):
    """Learned queries, text embeddings, transformer layers, and the LayerNorm of the image features."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.config = config
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, config.width))
        # LAVIS's `ln_vision`, not in the paper: it trains in both stages although the image encoder is frozen.
        self.image_layer_norm = nn.LayerNorm(config.image_width, eps=config.image_layer_norm_eps)
        if config.has_text:
            self.word_embeddings = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_token_id)
            self.position_embeddings = nn.Embedding(config.max_positions, config.width)
        self.embedding_layer_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        frequency = config.cross_attention_frequency
        self.layers = nn.ModuleList(QFormerLayer(config, i % frequency == 0) for i in range(config.num_layers))
        self.apply(self._initialize)
        # differs from transformers: it starts from zeros, which makes all queries equal; LAVIS samples them
        nn.init.normal_(self.query_tokens, std=config.initializer_range)

    def read_image(self, image_features: Tensor) -> ImageMemory:
        """image_features [B, N, Dv] -> keys and values of every cross-attention layer."""
        if image_features.shape[-1] != self.config.image_width:
            raise ValueError(
                f"The image features are {image_features.shape[-1]} wide, but this Q-Former reads features "
                f"of width {self.config.image_width}: use the image encoder it was trained with."
            )
        norm = self.image_layer_norm
        # Its weight and bias are folded into the key and value matrices: the image encoder is frozen, so no gradient
        # is needed for the N patches. This saves a third of the cost of reading an image.
        memory = F.layer_norm(image_features.to(norm.weight.dtype), norm.normalized_shape, eps=norm.eps)
        crosses = (layer.cross_attention for layer in self.layers)
        return ImageMemory(tuple(cross and cross.keys_values(memory, norm) for cross in crosses))

    def forward(
        self,
        *,
        image: ImageMemory | None = None,
        queries: bool = True,
        input_ids: Tensor | None = None,
        mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        past: tuple[KeysValues, ...] | None = None,
        use_cache: bool = False,
        rows: int | None = None,
    ) -> QFormerOutput:
        """One pass over [queries ; text], over the queries alone, or over the text alone (`queries=False`).

        image      the output of `read_image`; only queries need it. With S times as many texts as images, text i
                   belongs to image i % B
        input_ids  long[B, T]
        mask       bool[B, 1, L, L], or [B, 1, L, past + L] after `past`; None: every row reads every column
        text_mask  bool[B, T], True = compute the output of this token; False at padding. None: all are computed
        past       `past` of an earlier pass, its queries first: keys and values that precede this pass's rows
        rows       compute only the first `rows` rows of the last layer
        """
        if queries and image is None:
            raise ValueError("Queries need an image: pass image=qformer.read_image(image_features).")
        if not queries and input_ids is None:
            raise ValueError("There is nothing to compute: pass queries, input_ids or both.")
        batch_size = image.batch_size if input_ids is None else len(input_ids)
        if queries and batch_size % image.batch_size:
            raise ValueError(
                f"{image.batch_size} images and {batch_size} texts: give the same number of texts for each image."
            )
        parts, num_queries, text_length, tokens = [], 0, 0, None
        if queries:
            num_queries = self.config.num_query_tokens
            parts.append(self.query_tokens.expand(batch_size, -1, -1).flatten(0, 1))
        if input_ids is not None:
            text, text_length = self._embed(input_ids, past).flatten(0, 1), input_ids.shape[1]
            if text_mask is not None:
                tokens = text_mask.flatten().nonzero().squeeze(1)
                text, tokens = (text, None) if len(tokens) == len(text) else (text.index_select(0, tokens), tokens)
            parts.append(text)
        places = PackedRows(batch_size, num_queries, text_length, tokens)
        x = self.dropout(self.embedding_layer_norm(torch.cat(parts)))  # [R, D]

        cache = []
        for i, layer in enumerate(self.layers):
            last = i == len(self.layers) - 1
            memory = image.keys_values[i] if queries else None
            x, places, keys_values = layer(x, places, memory, mask, past[i] if past else None, rows if last else None)
            cache.append(keys_values)
        return QFormerOutput(
            query_output=places.queries(x) if queries else None,
            text_output=places.text(x) if input_ids is not None else None,
            past=tuple(cache) if use_cache else None,
        )

    def _embed(self, input_ids: Tensor, past: tuple[KeysValues, ...] | None) -> Tensor:
        """Word + position, [B, T, D]. Text positions start at 0, for any number of queries."""
        if not self.config.has_text:
            raise ValueError("This Q-Former has no text parts (has_text=False, as in stage 2): pass no input_ids.")
        start = past[0][0].shape[2] - self.config.num_query_tokens if past else 0
        end = start + input_ids.shape[1]
        if end > self.config.max_positions:
            raise ValueError(
                f"The text has {end} tokens, and this Q-Former has {self.config.max_positions} positions: shorten it."
            )
        return self.word_embeddings(input_ids) + self.position_embeddings.weight[start:end]

    def _initialize(self, module: nn.Module) -> None:
        """BERT's initialization: matrices N(0, 0.02), biases 0; LayerNorms keep torch's default, 1 and 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class LanguageModelingHead(nn.Module):
    """BERT's head: dense layer, GELU, LayerNorm, then the word embeddings (tied) as output matrix, and a bias."""

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x: Tensor, word_embeddings: Tensor) -> Tensor:
        """x [..., Dq], word_embeddings [V, Dq] -> logits [..., V]."""
        return F.linear(self.layer_norm(F.gelu(self.dense(x))), word_embeddings, self.bias)


#: BERT's modules and ours. The feed-forward network initializes both FFNs; BERT has no cross-attention.
BERT_LAYER = (
    ("attention.self.query", "self_attention.query"),
    ("attention.self.key", "self_attention.key"),
    ("attention.self.value", "self_attention.value"),
    ("attention.output.dense", "self_attention.output"),
    ("attention.output.LayerNorm", "self_attention_layer_norm"),
    ("intermediate.dense", "text_ffn.expand"),
    ("output.dense", "text_ffn.contract"),
    ("output.LayerNorm", "text_ffn.layer_norm"),
    ("intermediate.dense", "query_ffn.expand"),
    ("output.dense", "query_ffn.contract"),
    ("output.LayerNorm", "query_ffn.layer_norm"),
)


@torch.no_grad()
def init_from_bert(qformer: QFormer, bert_state_dict: dict[str, Tensor]) -> None:
    """Initialize from a pre-trained BERT (section 3.1); cross-attention and query tokens stay randomly initialized.

    A vocabulary or a number of positions smaller than ours fills the first rows: BERT has no [DEC].
    """
    state = {name.removeprefix("bert."): tensor for name, tensor in bert_state_dict.items()}
    pairs = [("embeddings.LayerNorm", "embedding_layer_norm")]
    if qformer.config.has_text:
        pairs += [("embeddings.word_embeddings", "word_embeddings")]
        pairs += [("embeddings.position_embeddings", "position_embeddings")]
    for i in range(qformer.config.num_layers):
        pairs += [
            (f"encoder.layer.{i}.{theirs}", f"layers.{i}.{ours}")
            for theirs, ours in BERT_LAYER
            if qformer.config.has_text or not ours.startswith("text_ffn")
        ]
    for theirs, ours in pairs:
        for name, parameter in qformer.get_submodule(ours).named_parameters():
            source = state.get(f"{theirs}.{name}")
            if source is None:
                raise ValueError(f"This BERT has no {theirs}.{name}, from which the Q-Former's {ours} is initialized.")
            rows = len(source) if "embeddings." in theirs and name == "weight" else len(parameter)
            if source.shape[1:] != parameter.shape[1:] or rows > len(parameter) or rows != len(source):
                raise ValueError(
                    f"BERT's {theirs}.{name} has shape {list(source.shape)}; "
                    f"the Q-Former's {ours} needs {list(parameter.shape)}."
                )
            parameter[:rows].copy_(source)
