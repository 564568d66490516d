"""Checks of notebook 03: the layers with cross-attention, the input of the first layer, and one layer of the Q-Former.

The functions here are slow and obvious forms of `qformer.QFormer` and `qformer.QFormerLayer`, which skip padding; a
test compares them.

Paper: section 3.1, Figure 2 (left). Notebook: 03.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blip2_lab.models.masks import multimodal_causal_mask
from blip2_lab.models.qformer import KeysValues, QFormer, QFormerConfig, QFormerLayer
from blip2_lab.teaching.checks.check import Case, Check

TINY = QFormerConfig(
    vocab_size=11, width=8, num_layers=2, num_heads=2, ffn_width=16, image_width=6, num_query_tokens=3,
    max_positions=16, dropout=0.0,
)  # fmt: skip


def tiny_qformer() -> QFormer:
    """A Q-Former of two layers with large random parameters: as initialized, most would barely change the output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        qformer = QFormer(TINY).eval()
        with torch.no_grad():
            for parameter in qformer.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    return qformer


# --- Layers with cross-attention ------------------------------------------------------------------------------------


def layers_with_cross_attention(num_layers: int, frequency: int) -> list[int]:
    """The numbers of the layers that cross-attend, the first layer being number 0."""
    return [i for i in range(num_layers) if i % frequency == 0]


cross_attention_layers = Check(
    "cross_attention_layers",
    layers_with_cross_attention,
    lambda: [
        Case(f"{layers} layers, in every {frequency}", (layers, frequency))
        for layers, frequency in ((4, 2), (12, 2), (6, 3))
    ],
    "Every other layer beginning with layer 0: 0, 2, 4, 6, 8, 10 of twelve.",
    {
        "It begins with layer 0: the queries look at the image before they have talked for long.": (
            lambda n, f: [i for i in range(n) if i % f == f - 1]
        ),
        "That is every layer. Every second one (cross_attention_frequency=2) saves half.": lambda n, f: list(range(n)),
        "Not the upper part: the layers with cross-attention are spread evenly.": lambda n, f: list(
            range(n - n // f, n)
        ),
        "Layers are counted from 0.": lambda n, f: [i + 1 for i in range(n) if i % f == 0],
        "Not their number but a list of them.": lambda n, f: n // f,
    },
)

# --- Before the first layer -----------------------------------------------------------------------------------------


def embed_queries_and_text(qformer: QFormer, input_ids: Tensor) -> Tensor:
    """input_ids [B, T] -> [queries ; text], [B, Q + T, D]: the input of the first layer."""
    queries = qformer.query_tokens.expand(len(input_ids), -1, -1)
    text = qformer.word_embeddings(input_ids) + qformer.position_embeddings.weight[: input_ids.shape[1]]
    return qformer.embedding_layer_norm(torch.cat([queries, text], dim=1))


def _embedded(
    *, text_from: int = 0, positions: bool = True, query_positions: bool = False, norm: str = "all", order: int = 1
) -> Callable[[QFormer, Tensor], Tensor]:
    """`embed_queries_and_text` with one thing done differently."""

    def wrong(qformer: QFormer, input_ids: Tensor) -> Tensor:
        table = qformer.position_embeddings.weight
        queries = qformer.query_tokens.expand(len(input_ids), -1, -1)
        if query_positions:
            queries = queries + table[: queries.shape[1]]
        text = qformer.word_embeddings(input_ids)
        if positions:
            text = text + table[text_from : text_from + input_ids.shape[1]]
        if norm == "text":
            text = qformer.embedding_layer_norm(text)
        both = torch.cat([queries, text][::order], dim=1)
        return qformer.embedding_layer_norm(both) if norm == "all" else both

    return wrong


embed = Check(
    "embed",
    embed_queries_and_text,
    lambda: [
        Case(f"{TINY.num_query_tokens} queries and the ids {ids}", (tiny_qformer(), torch.tensor(ids)))
        for ids in ([[4]], [[4, 7], [1, 2]])
    ],
    "Queries in front and without positions, text positions from 0, one LayerNorm over both.",
    {
        "Text positions start at Q here. They start at 0, as if no query stood in front; so the text tower stays the "
        "BERT it was.": _embedded(text_from=TINY.num_query_tokens),
        "The queries have positions here. They have none: each is its own learned vector.": _embedded(
            query_positions=True
        ),
        "Both at once: queries have no positions, and the text's begin at 0.": _embedded(
            text_from=TINY.num_query_tokens, query_positions=True
        ),
        "The words have no positions.": _embedded(positions=False),
        "The LayerNorm goes over the text alone here; it goes over the queries, too.": _embedded(norm="text"),
        "The LayerNorm is missing.": _embedded(norm="none"),
        "The queries stand in front of the text.": _embedded(order=-1),
    },
)

# --- One layer ------------------------------------------------------------------------------------------------------


def one_layer(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
    """x [B, L, D] = [queries ; text]; image: keys and values [B, H, N, D/H]; mask bool[B, 1, L, L] -> [B, L, D]."""
    attended = layer.self_attention(x, *layer.self_attention.keys_values(x), mask)
    x = layer.self_attention_layer_norm(x + attended)
    queries, text = x[:, :num_queries], x[:, num_queries:]
    if layer.cross_attention is not None:
        queries = layer.cross_attention_layer_norm(queries + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(text)], dim=1)


def _layer_cases() -> list[Case]:
    qformer = tiny_qformer()
    text_mask = torch.tensor([[True, True], [True, False]])
    mask = multimodal_causal_mask(TINY.num_query_tokens, text_mask)
    x = embed_queries_and_text(qformer, torch.tensor([[4, 7], [1, 0]])).detach()
    memory = qformer.read_image(torch.randn(2, 5, TINY.image_width, generator=torch.Generator().manual_seed(1)))
    image = tuple(tensor.detach() for tensor in memory.keys_values[0])
    described = "3 queries and 2 tokens, the multimodal causal mask"
    return [
        Case(f"a layer with cross-attention; {described}", (qformer.layers[0], x, 3, image, mask)),
        Case(f"a layer without cross-attention; {described}", (qformer.layers[1], x, 3, image, mask)),
    ]


def _layer(
    *, masked: bool = True, residual: int = 1, cross: str = "queries", towers: tuple[str, str] = ("query", "text")
) -> Callable[..., Tensor]:
    """`one_layer` with one thing done differently."""

    def wrong(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
        def look(rows: Tensor) -> Tensor:
            if layer.cross_attention is None or not rows.shape[1]:
                return rows
            return layer.cross_attention_layer_norm(residual * rows + layer.cross_attention(rows, *image))

        if cross == "first":
            x = torch.cat([look(x[:, :num_queries]), x[:, num_queries:]], dim=1)
        keys, values = layer.self_attention.keys_values(x)
        attended = layer.self_attention(x, keys, values, mask if masked else None)
        x = layer.self_attention_layer_norm(residual * x + attended)
        looking = {"queries": num_queries, "all": x.shape[1], "first": 0, "none": 0}[cross]
        x = torch.cat([look(x[:, :looking]), x[:, looking:]], dim=1)
        ffn: dict[str, nn.Module] = {"query": layer.query_ffn, "text": layer.text_ffn}
        return torch.cat([ffn[towers[0]](x[:, :num_queries]), ffn[towers[1]](x[:, num_queries:])], dim=1)

    return wrong


qformer_layer = Check(
    "qformer_layer",
    one_layer,
    _layer_cases,
    "Shared self-attention under the mask, cross-attention for the queries only, then each tower's own FFN; layers "
    "without cross-attention, too.",
    {
        "The text looks at the image, too. Only queries do; the text has to ask them.": _layer(cross="all"),
        "Cross-attention comes before self-attention here. First talk, then look, then think.": _layer(cross="first"),
        "Nobody looks at the image: the cross-attention is missing.": _layer(cross="none"),
        "The text goes through the queries' feed-forward network. Each has its own: that is what makes two towers.": (
            _layer(towers=("query", "query"))
        ),
        "The queries go through the text's feed-forward network.": _layer(towers=("text", "text")),
        "The two feed-forward networks are swapped.": _layer(towers=("text", "query")),
        "The mask is ignored in self-attention.": _layer(masked=False),
        "The residual connections are missing: add x to what attention returns, before the LayerNorm.": (
            _layer(residual=0)
        ),
    },
)
