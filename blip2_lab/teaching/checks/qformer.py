"""Checks of notebook 03: the layers with cross-attention, the input of the first layer, and one layer of the Q-Former.

The functions here are slow and obvious forms of `qformer.QFormer` and `qformer.QFormerLayer`, which skip padding; a
test compares them.

Paper: section 3.1, Figure 2 (left). Notebook: 03.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask
from blip2_lab.models.qformer import KeysValues, QFormer, QFormerConfig, QFormerLayer
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case, learning, parameters_of
from blip2_lab.teaching.checks.variants import variants_of

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
        for layers, frequency in ((4, 2), (12, 2), (6, 3), (5, 2), (3, 1))
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
        "True and False for each layer: return the numbers of the layers.": (
            lambda n, f: [i % f == 0 for i in range(n)]
        ),
        "Those are the layers *without* cross-attention.": lambda n, f: [i for i in range(n) if i % f],
        "The first `frequency` layers only: it says how far apart they are.": lambda n, f: list(range(f)),
        "The first layers only: they are spread evenly over all of them.": lambda n, f: list(range(n // f)),
        "One layer too many: layers are numbered 0 to num_layers - 1.": lambda n, f: list(range(0, n + 1, f)),
        "The last of them is missing.": lambda n, f: list(range(0, n - f, f)),
        "Layer 0 is left out: cross-attention begins with the first layer.": lambda n, f: list(range(f, n, f)),
        "Layer 1 is not one of them when every second layer has cross-attention: 0, 2, 4, ...": (
            lambda n, f: list(range(1, n, f))
        ),
        "The list stops where num_layers is not a multiple of the frequency: 5 layers have 0, 2 and 4.": (
            lambda n, f: [i * f for i in range(n // f)]
        ),
        "The frequency is not used: 2 stands there as a number.": lambda n, f: list(range(0, n, 2)),
        "The order is turned round: count up.": lambda n, f: list(range(0, n, f))[::-1],
    },
)

# --- Before the first layer -----------------------------------------------------------------------------------------


def embed_queries_and_text(qformer: QFormer, input_ids: Tensor) -> Tensor:
    """input_ids [B, T] -> [queries ; text], [B, Q + T, D]: the input of the first layer."""
    queries = qformer.query_tokens.expand(len(input_ids), -1, -1)
    text = qformer.word_embeddings(input_ids) + qformer.position_embeddings.weight[: input_ids.shape[1]]
    return qformer.embedding_layer_norm(torch.cat([queries, text], dim=1))


@variants_of
def _embedded(
    *,
    text_from: int = 0,
    positions: bool = True,
    query_positions: bool = False,
    norm: str = "all",
    order: int = 1,
    words: bool = True,
    step: int = 1,
    late: bool = False,
    batch: int | None = None,
    scale: float = 1.0,
) -> Callable[[QFormer, Tensor], Tensor]:
    """`embed_queries_and_text` with one thing done differently."""

    def wrong(qformer: QFormer, input_ids: Tensor) -> Tensor:
        table = qformer.position_embeddings.weight
        queries = qformer.query_tokens.expand(len(input_ids), -1, -1)
        if query_positions:
            queries = queries + table[: queries.shape[1]]
        text = scale * qformer.word_embeddings(input_ids) if words else 0
        places = table[text_from : text_from + input_ids.shape[1]][::step].expand(len(input_ids), -1, -1)
        if positions and not late:
            text = text + places
        if norm == "text":
            text = qformer.embedding_layer_norm(text)
        both = torch.cat([queries, text][::order], dim=1)
        both = both[:batch]
        for _ in range({"all": 1, "twice": 2}.get(norm, 0)):
            both = qformer.embedding_layer_norm(both)
        if norm == "queries":
            both = torch.cat([qformer.embedding_layer_norm(queries), text], dim=1)
        if norm == "plain":
            both = nn.functional.layer_norm(both, both.shape[-1:])
        if late:
            both = torch.cat([both[:, : queries.shape[1]], both[:, queries.shape[1] :] + places], dim=1)
        return both

    return wrong


def _embed_case(ids: list[list[int]]) -> Case:
    qformer = tiny_qformer()
    learns = {
        "the query tokens": qformer.query_tokens, "the word embeddings": qformer.word_embeddings.weight,
        "the position embeddings": qformer.position_embeddings.weight,
        **parameters_of(qformer.embedding_layer_norm, "the LayerNorm"),
    }  # fmt: skip
    return Case(f"{TINY.num_query_tokens} queries and the ids {ids}", (qformer, torch.tensor(ids)), learns)


def _embed_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Which rows differ: the queries' or the text's."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    queries, text = ((got - expected).abs()[:, part].amax() > 1e-3 for part in (slice(0, 3), slice(3, None)))
    if row := next((f"Row {n} {told}" for n, told in enumerate(_rows_told(case, got)) if told), ""):
        return row
    if text and not queries:
        return "The queries' rows are right; the text's are not: word embedding plus position embedding, from 0."
    if queries and not text:
        return "The text's rows are right; the queries' are not: the same query tokens for every picture, no position."
    return "Both the queries' rows and the text's differ: is it one LayerNorm, once, over [queries ; text]?"


def _rows_told(case: Case, got: Tensor) -> Iterator[str]:
    """What stands in each row of the first answer, where it is something else than it should be."""
    qformer, ids = case.args
    positions = {"without a position": 0 * qformer.position_embeddings.weight[0]}
    positions |= {f"with position {n}": vector for n, vector in enumerate(qformer.position_embeddings.weight)}
    vectors = {f"query {n}": vector for n, vector in enumerate(qformer.query_tokens[0])}
    vectors |= {f"the word {word}": qformer.word_embeddings.weight[word] for word in ids[0].tolist()}
    queries = len(qformer.query_tokens[0])
    for n, row in enumerate(got[0]):
        where = "without a position" if n < queries else f"with position {n - queries}"
        wanted = f"{f'query {n}' if n < queries else f'the word {int(ids[0, n - queries])}'} {where}"
        is_there = {
            f"{name} {position}{norm}": embedded
            for (name, vector), (position, added) in itertools.product(vectors.items(), positions.items())
            for norm, embedded in (
                (" after the LayerNorm", qformer.embedding_layer_norm(vector + added)),
                (" without the LayerNorm", vector + added),
            )
        }
        told = [name for name, vector in is_there.items() if torch.allclose(row, vector, atol=1e-3)]
        right = f"{wanted} after the LayerNorm"
        yield f"is {told[0]}; it should be {right}." if told and right not in told else ""


embed = Check(
    "embed",
    embed_queries_and_text,
    lambda: [_embed_case(ids) for ids in ([[4]], [[4, 7], [1, 2]], [[5, 4, 3, 3]])],
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
        "Text positions start at 1 here; they start at 0.": _embedded(text_from=1),
        "Text positions run backwards here.": _embedded(step=-1, text_from=0),
        "The words are missing: only positions stand in the text's rows.": _embedded(words=False),
        "The LayerNorm goes over the queries alone; it goes over the text, too.": _embedded(norm="queries"),
        "The LayerNorm is applied twice.": _embedded(norm="twice"),
        "A LayerNorm without its learned weight and bias: use qformer.embedding_layer_norm.": _embedded(norm="plain"),
        "The positions are added after the LayerNorm; they belong in front of it.": _embedded(late=True),
        "The word embeddings are multiplied by the root of D: BERT does not do that.": (
            _embedded(scale=TINY.width**0.5)
        ),
        "Only the first caption is left: keep the batch.": _embedded(batch=1),
        "The text is missing: return [queries ; text].": (
            lambda m, ids: m.embedding_layer_norm(m.query_tokens.expand(len(ids), -1, -1))
        ),
        "The queries are missing: return [queries ; text].": (
            lambda m, ids: m.embedding_layer_norm(m.word_embeddings(ids) + m.position_embeddings.weight[: ids.shape[1]])
        ),
    },
    rules=(_embed_rules,),
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
    made = []
    causal = "the multimodal causal mask"
    for has, number, queries, tokens, told in (
        ("with", 0, 3, mask, causal),
        ("without", 1, 3, bidirectional_mask(TINY.num_query_tokens, text_mask), "the bidirectional mask"),
        ("with", 0, 2, _mask_of_two(), causal),
    ):
        layer = copy.deepcopy(qformer.layers[number])
        leaf, rows = learning(x)
        description = f"a layer {has} cross-attention; {queries} queries and {5 - queries} tokens"
        learns = {"x": leaf, **parameters_of(layer, "the layer")}
        args = (layer, rows, queries, tuple(part.clone() for part in image), tokens.clone())
        made.append(Case(f"{description}, {told}", args, learns))
    return made


def _mask_of_two() -> Tensor:
    """The multimodal causal mask of 2 queries and 3 tokens, the second caption one token shorter."""
    return multimodal_causal_mask(2, torch.tensor([[True, True, True], [True, True, False]]))


@variants_of
def _layer(
    *,
    masked: bool = True,
    blind: bool = False,
    residual: int = 1,
    cross: str = "queries",
    towers: tuple[str, str] = ("query", "text"),
    self_norm: str = "self",
    cross_norm: str = "cross",
    self_residual: int = 1,
    cross_residual: int = 1,
    swap: bool = False,
    attend: bool = True,
    extra: int = 0,
    pre: bool = False,
    cross_pre: bool = False,
    keep: str = "all",
    last: bool = False,
) -> Callable[..., Tensor]:
    """`one_layer` with one thing done differently."""

    def wrong(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
        def norm(name: str, rows: Tensor) -> Tensor:
            if name == "none" or (name == "cross" and layer.cross_attention is None):
                return rows
            return (layer.self_attention_layer_norm if name == "self" else layer.cross_attention_layer_norm)(rows)

        def look(rows: Tensor) -> Tensor:
            if layer.cross_attention is None or not rows.shape[1]:
                return rows
            asking = norm("cross", rows) if cross_pre else rows
            read = layer.cross_attention(asking, *(image[::-1] if swap else image))
            summed = residual * cross_residual * rows + read
            return summed if cross_pre else norm(cross_norm, summed)

        if cross == "first":
            x = torch.cat([look(x[:, :num_queries]), x[:, num_queries:]], dim=1)
        keys, values = layer.self_attention.keys_values(x)
        if blind:
            is_text = torch.arange(x.shape[1]) >= num_queries
            mask = mask & (is_text[:, None] | ~is_text)
        attended = layer.self_attention(x, keys, values, mask if masked else None)
        if pre:
            inside = layer.self_attention_layer_norm(x)
            x = x + layer.self_attention(inside, *layer.self_attention.keys_values(inside), mask if masked else None)
        elif attend:
            x = norm(self_norm, residual * self_residual * x + attended)
        looking = {"queries": num_queries, "all": x.shape[1], "first": 0, "none": 0, "text": 0}[cross]
        if cross == "text":
            x = torch.cat([x[:, :num_queries], look(x[:, num_queries:])], dim=1)
        if not last:
            x = torch.cat([look(x[:, :looking]), x[:, looking:]], dim=1)
        ffn: dict[str, nn.Module] = {"query": layer.query_ffn, "text": layer.text_ffn, "none": nn.Identity()}
        queries, text = ffn[towers[0]](x[:, :num_queries]), ffn[towers[1]](x[:, num_queries:])
        if last:
            queries = look(queries)
        queries, text = queries + extra * x[:, :num_queries], text + extra * x[:, num_queries:]
        return {
            "all": torch.cat([queries, text], dim=1), "queries": queries, "turned": torch.cat([text, queries], dim=1)
        }[keep]  # fmt: skip

    return wrong


def _old_residual(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
    new = layer.self_attention_layer_norm(x + layer.self_attention(x, *layer.self_attention.keys_values(x), mask))
    queries = new[:, :num_queries]
    if layer.cross_attention is not None:
        queries = layer.cross_attention_layer_norm(x[:, :num_queries] + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(new[:, num_queries:])], dim=1)


def _always_looks(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
    return layer.cross_attention_layer_norm(x) if layer.cross_attention is None else one_layer(
        layer, x, num_queries, image, mask
    )  # fmt: skip


def _always_attends(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
    return layer.cross_attention(x, *image) if layer.cross_attention is None else one_layer(
        layer, x, num_queries, image, mask
    )  # fmt: skip


def _norm_of_attention_alone(
    layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor
) -> Tensor:
    attended = layer.self_attention(x, *layer.self_attention.keys_values(x), mask)
    x = x + layer.self_attention_layer_norm(attended)
    queries = x[:, :num_queries]
    if layer.cross_attention is not None:
        queries = layer.cross_attention_layer_norm(queries + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(x[:, num_queries:])], dim=1)


def _halves_exchanged(layer: QFormerLayer, x: Tensor, num_queries: int, image: KeysValues, mask: Tensor) -> Tensor:
    attended = layer.self_attention(x, *layer.self_attention.keys_values(x), mask)
    x = layer.self_attention_layer_norm(x + attended)
    queries, text = x[:, num_queries:], x[:, :num_queries]
    if layer.cross_attention is not None:
        queries = layer.cross_attention_layer_norm(queries + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(text)], dim=1)


def _layer_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Which rows differ: the queries' or the text's."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    count = case.args[2]
    queries, text = ((got - expected).abs()[:, part].amax() > 1e-3 for part in (slice(0, count), slice(count, None)))
    if text and not queries:
        return "The queries' rows are right and the text's are not: self-attention, LayerNorm, text_ffn."
    if queries and not text:
        where = "cross-attention with its residual and LayerNorm, then query_ffn"
        return f"The text's rows are right and the queries' are not: {where}."
    return "Both the queries' rows and the text's differ: look at what they share, self-attention, x, LayerNorm."


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
        "The queries read one another only, whatever the mask says: under the bidirectional one they read the text.": (
            _layer(blind=True)
        ),
        "The residual connection around cross-attention adds the old x: add what self-attention has made of it.": (
            _old_residual
        ),
        "The residual connections are missing: add x to what attention returns, before the LayerNorm.": (
            _layer(residual=0)
        ),
        "The residual connection around self-attention is missing: add x.": _layer(self_residual=0),
        "The residual connection around cross-attention is missing: add the queries.": _layer(cross_residual=0),
        "The LayerNorm after self-attention is missing.": _layer(self_norm="none"),
        "The LayerNorm after cross-attention is missing.": _layer(cross_norm="none"),
        "The LayerNorms after self-attention and after cross-attention are missing.": _layer(
            self_norm="none", cross_norm="none"
        ),
        "After cross-attention comes a LayerNorm of its own: cross_attention_layer_norm.": _layer(cross_norm="self"),
        "The two LayerNorms are exchanged.": _layer(self_norm="cross", cross_norm="self"),
        "The text looks at the image and the queries do not: it is the other way round.": _layer(cross="text"),
        "The image's keys and values are exchanged.": _layer(swap=True),
        "The self-attention is missing.": _layer(attend=False),
        "x is added after the feed-forward networks: they add it inside already.": _layer(extra=1),
        "The LayerNorm comes before self-attention here; BERT's comes after the sum.": _layer(pre=True),
        "The LayerNorm comes before cross-attention here; BERT's comes after the sum.": _layer(cross_pre=True),
        "The text is thrown away: return [queries ; text].": _layer(keep="queries"),
        "The text stands in front of the queries in your answer.": _layer(keep="turned"),
        "Cross-attention comes after the feed-forward network here: first talk, then look, then think.": _layer(
            last=True
        ),
        "A layer without cross-attention has None in its place (`layer.cross_attention`) and no LayerNorm for it: "
        "leave this step out there.": _always_looks,
        "A layer without cross-attention has None in its place (`layer.cross_attention`): leave this step out there.": (
            _always_attends
        ),
        "The LayerNorm goes over what self-attention returned alone: it goes over the sum, x + attention.": (
            _norm_of_attention_alone
        ),
        "Queries and text are exchanged: the first `num_queries` rows are the queries.": _halves_exchanged,
        "The feed-forward networks are missing.": _layer(towers=("none", "none")),
        "The text's feed-forward network is missing.": _layer(towers=("query", "none")),
        "The queries' feed-forward network is missing.": _layer(towers=("none", "text")),
    },
    rules=(_layer_rules,),
)
