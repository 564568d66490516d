"""Checks of notebook 14, second half: a question in the Q-Former, and several right captions.

Paper: sections 4.3 and 4.4, Figure 7. Notebook: 14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.evaluation import metrics
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.models.qformer import QFormer
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.qformer import TINY, tiny_qformer
from blip2_lab.teaching.checks.variants import variants_of

# --- The question in the Q-Former -----------------------------------------------------------------------------------


def query_outputs_for(qformer: QFormer, image_features: Tensor, question_ids: Tensor, question_mask: Tensor) -> Tensor:
    """image_features [B,N,Dv], question ids [B,T] and mask bool[B,T] -> query_output [B,Q,Dq], conditioned on the
    question: queries and question read each other, and the queries read the image (Figure 7)."""
    mask = bidirectional_mask(qformer.config.num_query_tokens, question_mask)
    return qformer(
        image=qformer.read_image(image_features), input_ids=question_ids, mask=mask, text_mask=question_mask
    ).query_output


def _question_cases() -> list[Case]:
    cases = []
    texts = {
        "one question of two tokens": [[4, 7]],
        "two questions, the second padded": [[4, 0, 2, 9], [1, 5, 0, 0]],  # 0 is also a word's id
        "the same picture twice, two questions": [[4, 7, 2], [3, 8, 6]],
    }
    for number, (told, ids) in enumerate(texts.items()):
        qformer, ids = tiny_qformer(), torch.tensor(ids)
        mask = (ids != 0).flip(1).cumsum(dim=1).flip(1) > 0
        generator = torch.Generator().manual_seed(number)
        features = torch.randn(len(ids), 5, TINY.image_width, generator=generator)
        if number == 2:
            features = features[:1].expand(2, -1, -1).clone()
        leaf = features.requires_grad_()
        learns = {
            "the image features": leaf,
            "the query tokens": qformer.query_tokens,
            "the question's word embeddings": qformer.word_embeddings.weight,
            "the keys of the cross-attention": qformer.layers[0].cross_attention.key.weight,
        }
        cases.append(Case(f"{told}; {TINY.num_query_tokens} queries", (qformer, leaf, ids, mask), learns))
    return cases


def _masked_by(make: Callable) -> Callable:
    """The pass with another mask."""

    def wrong(qformer: QFormer, image_features: Tensor, question_ids: Tensor, question_mask: Tensor) -> Tensor:
        mask = make(qformer.config.num_query_tokens, question_mask)
        image = qformer.read_image(image_features)
        return qformer(image=image, input_ids=question_ids, mask=mask).query_output

    return wrong


def _joint(qformer: QFormer, image_features: Tensor, question_ids: Tensor, question_mask: Tensor) -> Any:
    mask = bidirectional_mask(qformer.config.num_query_tokens, question_mask)
    return qformer(image=qformer.read_image(image_features), input_ids=question_ids, mask=mask)


def _question_reads_nothing(queries: int, text_mask: Tensor) -> Tensor:
    """The queries read the question, but the question does not read the queries."""
    mask = bidirectional_mask(queries, text_mask).clone()
    mask[:, :, queries:, :queries] = False
    return mask


def _queries_apart(queries: int, text_mask: Tensor) -> Tensor:
    """The queries read the question and themselves alone."""
    mask = bidirectional_mask(queries, text_mask).clone()
    mask[:, :, :queries, :queries] = torch.eye(queries, dtype=torch.bool)
    return mask


def _question_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    if isinstance(got, Tensor) and got.shape[:1] == expected.shape[:1] and got.ndim == 3:
        if got.shape[1] == expected.shape[1] + case.args[2].shape[1]:
            return "Queries and question are returned: the language model gets the queries alone."
        if got.shape[2] != expected.shape[2]:
            return f"The width is {got.shape[2]} and should be {expected.shape[2]}: return query_output as it is."
    return None


condition_on_question = Check(
    "condition_on_question",
    query_outputs_for,
    _question_cases,
    "Queries and question read each other, padding is hidden, and the gradient reaches queries, words and image.",
    {
        "The queries do not read the question: it is not passed, or the mask hides it from them, as the unimodal and "
        "the causal one do. In Figure 7 both read each other: the bidirectional mask.": (
            lambda q, x, ids, mask: q(image=q.read_image(x)).query_output
        ),
        "The mask is turned round as a whole: True means that it may be read.": (
            lambda q, x, ids, mask: (
                q(
                    image=q.read_image(x),
                    input_ids=ids,
                    mask=~bidirectional_mask(q.config.num_query_tokens, mask),
                ).query_output
            )
        ),
        "The first token of the question is hidden: only padding is.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, F.pad(mask[:, 1:], (1, 0), value=False))
        ),
        "The last token of each question is hidden: only padding is.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, F.pad(mask[:, 1:], (0, 1), value=False))
        ),
        "Padding is read: give the mask, and let its columns of padding be False.": (
            lambda q, x, ids, mask: q(image=q.read_image(x), input_ids=ids).query_output
        ),
        "Padding is recognized by its id, 0; here a word has that id as well: use question_mask.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, ids != 0)
        ),
        "The question's own outputs are returned: the language model gets those of the queries.": (
            lambda q, x, ids, mask: _joint(q, x, ids, mask).text_output
        ),
        "Queries and question are returned one after the other: the language model gets the queries alone.": (
            lambda q, x, ids, mask: torch.cat(
                [_joint(q, x, ids, mask).query_output, _joint(q, x, ids, mask).text_output], dim=1
            )
        ),
        "Every picture gets the question of another row.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids.roll(1, 0), mask.roll(1, 0))
        ),
        "Every question gets the picture of another row.": (
            lambda q, x, ids, mask: query_outputs_for(q, x.roll(1, 0), ids, mask)
        ),
        "The picture is not looked at: image features of zeros.": (
            lambda q, x, ids, mask: query_outputs_for(q, torch.zeros_like(x), ids, mask)
        ),
        "The queries read the question, but the question does not read the queries: both directions.": (
            _masked_by(_question_reads_nothing)
        ),
        "The queries do not read one another: they do in every mask.": _masked_by(_queries_apart),
        "The mask is turned round: True means that it may be read.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, ~mask)
        ),
        "The queries are averaged: return all of them.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, mask).mean(dim=1)
        ),
        "Only the first query is returned: return all of them.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids, mask)[:, :1]
        ),
        "The whole output is returned: return its query_output.": _joint,
        "The question is added to the queries after the pass: the queries must read it inside, while they look.": (
            lambda q, x, ids, mask: (
                q(image=q.read_image(x)).query_output + (q.word_embeddings(ids) * mask[:, :, None]).sum(1, keepdim=True)
            )
        ),
        "The first token of the question is left out.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids[:, 1:], mask[:, 1:])
        ),
        "The last token of the question is left out.": (
            lambda q, x, ids, mask: query_outputs_for(q, x, ids[:, :-1], mask[:, :-1])
        ),
    },
    rules=(_question_rules,),
)

# --- Several right captions -----------------------------------------------------------------------------------------


def _hits_cases() -> list[Case]:
    scores = torch.tensor(
        [[0.9, 0.1, 0.8, 0.3], [0.2, 0.7, 0.6, 0.5], [0.4, 0.3, 0.2, 0.1], [0.5, 0.5, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]]
    )
    right = torch.tensor(
        [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(12, 9, generator=generator)
    pairs = torch.rand(12, 9, generator=generator) < 0.3
    pairs[torch.arange(12), torch.arange(12) % 9] = True
    return [
        *(Case(f"5 rows, 4 columns, the best {k}", (scores.clone(), right.clone(), k)) for k in (1, 2, 3)),
        *(
            Case(f"12 rows, 9 columns, several right in a row, the best {k}", (many.clone(), pairs.clone(), k))
            for k in (1, 4)
        ),
        Case("3 rows, 9 columns, several right in a row, the best 2", (many[:3].clone(), pairs[:3].clone(), 2)),
        Case("2 rows, all scores alike, the best 1", (torch.zeros(2, 3), torch.eye(3, dtype=torch.bool)[:2], 1)),
        Case(
            "2 rows, two right columns with the same score, the best 1",
            (torch.tensor([[0.6, 0.6, 0.2], [0.5, 0.9, 0.5]]), torch.tensor([[1, 1, 0], [1, 0, 1]]).bool(), 1),
        ),
    ]


def _hits_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    if isinstance(got, Tensor) and got.ndim == 0 or isinstance(got, float):
        return "One number is returned: return for each row whether it has a right column among its best."
    if isinstance(got, Tensor) and got.shape == expected.shape and got.dtype == torch.bool:
        row = int((got != expected).nonzero()[0])
        verdict = "a hit" if bool(got[row]) else "no hit"
        scores, right, k = case.args
        best = scores[row][right[row]].max() if right[row].any() else torch.tensor(torch.nan)
        above = int((scores[row] >= best)[~right[row]].sum())
        return (
            f"Row {row} is called {verdict} and is {'a hit' if bool(expected[row]) else 'none'}: its best right column "
            f"has the score {float(best):.3g}, {above} wrong ones have as much or more, and k is {k}."
        )
    return None


def _of_order(judge: Callable[[Tensor, Tensor, int], Tensor]) -> Callable:
    """A verdict from the right columns in the order of the scores, bool[R, C]."""

    def wrong(scores: Tensor, right: Tensor, k: int) -> Tensor:
        order = scores.argsort(dim=1, descending=True, stable=True)
        return judge(right.gather(1, order), right, k)

    return wrong


@variants_of
def _hits(*, ties: str = "miss", columns: str = "any", places: int = 0, turned: bool = False) -> Callable:
    """`hits_at` with one thing done differently."""

    def wrong(scores: Tensor, right: Tensor, k: int) -> Tensor:
        scores = -scores if turned else scores
        if ties == "miss":
            above = ((scores[:, None] >= scores[:, :, None]) & ~right[:, None]).sum(2)
        elif ties == "hit":
            above = ((scores[:, None] > scores[:, :, None]) & ~right[:, None]).sum(2)
        else:
            order = (
                scores.argsort(1, descending=True, stable=True)
                if ties == "order"
                else scores.topk(len(scores[0])).indices
            )
            above = order.argsort(1)
        good = above < k + places
        if columns == "first":
            return good.gather(1, right.int().argmax(1, keepdim=True))[:, 0]
        if columns == "own":
            return good[torch.arange(len(good)), torch.arange(len(good)) % good.shape[1]]
        if columns == "all":
            return (good | ~right).all(1)
        return (~good | right).all(1) if columns == "each" else (good & right).any(1)

    return wrong


recall_hits = Check(
    "recall_hits",
    metrics.hits_at,
    _hits_cases,
    "One right column among the best is enough, and a tie with a wrong one is no hit.",
    {
        "Only the column with the row's own number counts: a picture has several right captions, so use `right`.": (
            _hits(columns="own")
        ),
        "All right columns must be among the best: one is enough.": _of_order(
            lambda ordered, right, k: ordered[:, :k].sum(1) == right.sum(1)
        ),
        "Each of the best columns must be right: one is enough.": _hits(columns="each"),
        "`k` is not used: only the very best column is looked at.": lambda s, r, k: metrics.hits_at(s, r, 1),
        "A tie with a wrong column counts as a hit: then a model that gives every pair the same score finds all.": (
            _hits(ties="hit")
        ),
        "Equal scores are ranked by the order of their columns. A tie with a wrong column is no hit.": (
            _hits(ties="order")
        ),
        "Equal scores are ranked as `topk` happens to do it. A tie with a wrong column is no hit.": _hits(ties="topk"),
        "One place too many: among the best `k` means that fewer than `k` wrong ones are above it.": _hits(places=1),
        "One place too few.": _hits(places=-1),
        "Only the k-th best column is looked at: all of the k best.": (
            lambda s, r, k: r.gather(1, s.argsort(1, descending=True)[:, k - 1 : k])[:, 0]
        ),
        "The lowest scores are taken as the best.": _hits(turned=True),
        "The columns are ranked, not the rows: each row ranks its columns.": (
            lambda s, r, k: metrics.hits_at(s.T, r.T, k)
        ),
        "The share of rows is returned: return bool[R], one verdict for each row.": (
            lambda s, r, k: metrics.hits_at(s, r, k).float().mean()
        ),
        "That is the opposite.": lambda s, r, k: ~metrics.hits_at(s, r, k),
        "How many right columns are among the best is returned: one is enough, so return True or False.": (
            _of_order(lambda ordered, right, k: ordered[:, :k].sum(1))
        ),
        "Every row is a hit.": lambda s, r, k: torch.ones(len(s), dtype=torch.bool),
        "Numbers are returned: return True or False (bool).": lambda s, r, k: metrics.hits_at(s, r, k).float(),
        "The right columns' scores are averaged: the best one decides.": (
            lambda s, r, k: ((s >= (s * r).sum(1, keepdim=True) / r.sum(1, keepdim=True)) & ~r).sum(1) < k
        ),
        "Only the first right column is looked at: the best one decides.": _hits(columns="first"),
        "The worst right column is looked for, not the best one.": (_hits(columns="all")),
        "Right columns above the best right one are counted as well: only wrong ones push it down.": (
            lambda s, r, k: (s >= s.masked_fill(~r, torch.inf).amin(1, keepdim=True)).sum(1) <= k
        ),
        "Another right column with the best score is counted as a rival: only wrong ones push it down.": (
            lambda s, r, k: (s >= s.masked_fill(~r, -torch.inf).amax(1, keepdim=True)).sum(1) <= k
        ),
    },
    rules=(_hits_rules,),
)
