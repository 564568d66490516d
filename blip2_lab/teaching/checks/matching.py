"""Checks of notebook 06: hard negatives, and image-text matching (ITM).

The solutions are the functions of models/losses.py where these have the form of the exercise; the others are here.

Paper: section 3.2. Notebook: 06.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip2_lab.models import losses
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import strangest_sum
from blip2_lab.teaching.checks.contrastive import unit_vectors
from blip2_lab.teaching.checks.exercise import Case, learning, parameters_of
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.seeds import SEEDED, set_seeds, was_seeded
from blip2_lab.teaching.checks.variants import variants_of

# --- Hard negatives -------------------------------------------------------------------------------------------------


def _negative_cases() -> list[Case]:
    three = torch.tensor([[9.0, 2.0, 1.0], [0.0, 9.0, 0.0], [3.0, 1.0, 9.0]])
    four = 3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    same_image = torch.tensor([0, 1, 0, 2])
    low = torch.tensor([[14.0, -12.0, -13.0], [-11.0, 14.0, -14.0], [-14.0, -13.0, 14.0]])
    wide = 2 * torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
    made = []
    for description, similarity, positives in (
        ("3 pairs, similarity [[9, 2, 1], [0, 9, 0], [3, 1, 9]]", three, torch.eye(3, dtype=torch.bool)),
        ("4 pairs of which the first and third show the same image", four, same_image[:, None] == same_image),
        ("3 pairs, the wrong ones with similarities near -12", low, torch.eye(3, dtype=torch.bool)),
        ("3 images and their texts in another order", three / 4, torch.eye(3, dtype=torch.bool).roll(1, 1)),
        ("3 images and 5 texts of which the last two belong to image 2", wide, torch.eye(3, 5, dtype=torch.bool)),
    ):
        if similarity is wide:
            positives[2, 3:] = True
        leaf, used = learning(similarity)
        made.append(Case(description, (used, positives), {"the similarity": leaf}))
    return made


def _weights_rules(case: Case, got: object, expected: Tensor) -> str | None:
    """Which property of the weights does not hold."""
    positives = case.args[1]
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point() or got.isnan().any():
        return None
    if (got < -1e-6).any():
        return "There are negative weights: those are scores, or a logarithm."
    if (got[positives] > 1e-5).any():
        return "A positive still gets weight: its similarity has to be so low that nothing is left (-10000, or -inf)."
    if not torch.allclose(got.sum(1), torch.ones(len(got)), atol=1e-3):
        return f"Rows do not sum to 1 ({strangest_sum(got)}): softmax over the candidates, dim=1."
    return "Rows sum to 1 and positives have none, but the shares are not those of a softmax of the similarities."


def _softmax(similarity: Tensor, positives: Tensor, sign: float = 1.0, dim: int = 1) -> Tensor:
    return (sign * similarity.detach()).masked_fill(positives, -10000.0).softmax(dim=dim)


negative_weights = Check(
    "negative_weights",
    losses.negative_weights,
    _negative_cases,
    "Similar wrong pairs are likely, true pairs (all of the same image) impossible, rows sum to 1, no gradient.",
    {
        "Positives are among the negatives: a true pair would be learned as a wrong one.": (
            lambda similarity, positives: similarity.detach().softmax(1)
        ),
        "Only the diagonal is excluded. Another caption of the same image is no negative either: use `positives`.": (
            lambda similarity, positives: _softmax(similarity, torch.eye(len(similarity), dtype=torch.bool))
        ),
        "`positives` is transposed: row i, column j says whether image i and text j belong together.": (
            lambda similarity, positives: _softmax(
                similarity, positives.T if len(set(positives.shape)) == 1 else positives
            )
        ),
        "The positives are taken out after the softmax: rows no longer sum to 1.": (
            lambda similarity, positives: similarity.detach().softmax(1).masked_fill(positives, 0.0)
        ),
        "All negatives are alike here. The more similar a wrong pair looks, the likelier it should be.": (
            lambda similarity, positives: F.normalize((~positives).float(), p=1, dim=1)
        ),
        "The easiest negatives are the likeliest: the sign is wrong.": (
            lambda similarity, positives: _softmax(similarity, positives, sign=-1.0)
        ),
        "Columns sum to 1 here; each row draws its own negative.": (
            lambda similarity, positives: _softmax(similarity, positives, dim=0)
        ),
        "The mask is upside down: `positives` is True where a pair is right, and those are to be taken out.": (
            lambda similarity, positives: _softmax(similarity, ~positives)
        ),
        "Positives get the similarity 0 (similarity * ~positives), and exp(0) is 1: take -10000 or -inf.": (
            lambda similarity, positives: (similarity.detach() * ~positives).softmax(1)
        ),
        "-10 is not low enough for the positives: take -10000 or -inf.": (
            lambda similarity, positives: similarity.detach().masked_fill(positives, -10.0).softmax(1)
        ),
        "Those are similarities: the softmax is missing.": (
            lambda similarity, positives: similarity.detach().masked_fill(positives, -10000.0)
        ),
        "log_softmax gives logarithms: take softmax.": (
            lambda similarity, positives: similarity.detach().masked_fill(positives, -10000.0).log_softmax(1)
        ),
        "The softmax runs over the whole matrix: over each row.": (
            lambda similarity, positives: (
                similarity.detach().masked_fill(positives, -1e4).flatten().softmax(0).view(similarity.shape)
            )
        ),
        "A sigmoid is no softmax: rows do not share out 1.": (
            lambda similarity, positives: similarity.detach().sigmoid().masked_fill(positives, 0.0)
        ),
        "The hardest negative gets everything: draw by a softmax, not the largest.": (
            lambda similarity, positives: F.one_hot(
                similarity.detach().masked_fill(positives, -1e4).argmax(1), similarity.shape[1]
            ).float()
        ),
        "Similarities are shared out as they are: without exp they are no shares.": (
            lambda similarity, positives: F.normalize(
                similarity.detach().masked_fill(positives, 0.0).clamp(min=0), p=1, dim=1
            )
        ),
        "The softmax is taken twice.": (lambda similarity, positives: _softmax(similarity, positives).softmax(1)),
        "The similarities are divided by a temperature; they are already.": (
            lambda similarity, positives: _softmax(similarity / 0.07, positives)
        ),
        "The similarities are multiplied by a temperature: the choice becomes nearly even.": (
            lambda similarity, positives: _softmax(similarity * 0.07, positives)
        ),
        "Every second one is hard and the rest even: use the softmax of the similarity alone.": (
            lambda similarity, positives: (
                (_softmax(similarity, positives) + F.normalize((~positives).float(), p=1, dim=1)) / 2
            )
        ),
    },
    rules=(_weights_rules,),
    no_gradient="A gradient flows through the weights. Drawing is no part of the loss: detach the similarity.",
)

DRAWS, FEW = 20_000, 300  #: rows to count draws in, and to see in what the generator decides


def _draw_cases() -> list[Case]:
    """Few rows, to be drawn from as they are, and the same rows many times, to count what is drawn."""
    made = []
    for case in _negative_cases():
        similarity, positives = (tensor.detach() for tensor in case.args)
        made.append(Case(case.description, (similarity, positives)))
    similarity = torch.tensor([[9.0, 2.0, 1.0, 0.5], [2.0, 3.0, 1.0, 0.0], [-14.0, -13.0, 14.0, -13.5]])
    positives = torch.tensor([[True, False, False, False], [False, True, False, False], [False, False, True, False]])
    rows = DRAWS // 3
    many = similarity.repeat(rows, 1), positives.repeat(rows, 1)
    made.append(Case(f"3 rows of 4 candidates, {rows} times: how often is each drawn?", many))
    return made


def _drawn(function: Callable, args: tuple) -> dict:
    """What is drawn: valid indices, how often each (of the last case), and whether the generator alone decides.

    All rows are drawn from once, to count. What the generator decides is seen in a few of them: a student's function
    may take a millisecond for each row.
    """
    similarity, positives = (tensor[:FEW] for tensor in args)
    draws, untouched, reseeds = [], True, False
    for seed, other_seed in ((1, 0), (1, 1), (2, 0)):
        set_seeds(other_seed)
        generator = torch.Generator().manual_seed(seed)
        similar, positive = similarity.clone(), positives.clone()
        draws.append(function(similar, positive, generator))
        untouched = untouched and torch.equal(similar, similarity) and torch.equal(positive, positives)
        reseeds = reseeds or was_seeded(other_seed)
    later = function(similarity.clone(), positives.clone(), generator)
    without = [function(similarity.clone(), positives.clone()) for _ in range(2)]
    first = draws[0]
    if not all(_is_index(draw, similarity) for draw in [*draws, later, *without]):
        return {"returned": describe(first) + (f" of {first.dtype}" if isinstance(first, Tensor) else "")}
    found = {
        "input as before": untouched,
        "seeds everything anew": reseeds,
        "a positive drawn": any(_has_positive(draw, positives) for draw in [*draws, later, *without]),
    }
    if len(args[0]) <= FEW:
        return found
    many = function(*(tensor.clone() for tensor in args), torch.Generator().manual_seed(1))
    if not _is_index(many, args[0]):
        return {"returned": describe(many) + (f" of {many.dtype}" if isinstance(many, Tensor) else "")}
    return found | {
        "a positive drawn": found["a positive drawn"] or _has_positive(many, args[1]),
        "same generator, same draws": torch.equal(draws[0], draws[1]),
        "another generator, other draws": not torch.equal(draws[0], draws[2]),
        "other draws at the next call": not torch.equal(draws[2], later),
        "other draws without a generator": not torch.equal(*without),
        "how often": F.one_hot(many, similarity.shape[1]).view(-1, 3, similarity.shape[1]).float().mean(0),
    }


def _has_positive(draw: Tensor, positives: Tensor) -> bool:
    return bool(positives[torch.arange(len(draw)), draw].any())


def _is_index(draw: object, similarity: Tensor) -> bool:
    if not isinstance(draw, Tensor) or draw.shape != similarity.shape[:1] or draw.dtype != torch.int64:
        return False
    return bool((draw >= 0).all() and (draw < similarity.shape[1]).all())


def _draw_rules(case: Case, got: dict, expected: dict) -> str | None:
    """The first promise that is not kept."""
    if "returned" in got:
        return f"Return long[B]: one index of a candidate for each row; yours returns {got['returned']}."
    if got["a positive drawn"]:
        return "Positives are drawn, too: a true pair would be learned as a wrong one."
    if not got["input as before"]:
        return "Your function changes its input in place: ITC's loss is made of the same similarity. Work on a copy."
    if got.get("same generator, same draws") and not (
        got["another generator, other draws"] or got["other draws without a generator"]
    ):
        return "Nothing is drawn: the same candidate of a row is returned each time. Draw by the weights."
    if not got.get("same generator, same draws", True):
        return "The generator does not decide alone: give it to the function that draws (generator=generator)."
    if not got.get("another generator, other draws", True):
        return "Another generator gives the same draws: use the one that is given, and do not seed it anew."
    if got["seeds everything anew"]:
        return SEEDED
    if not got.get("other draws at the next call", True):
        return (
            "A second call with the same generator draws the same: it is seeded anew, and every batch draws the same."
        )
    if not got.get("other draws without a generator", True):
        return "Without a generator (None) every call draws the same: then torch's own is to decide, so pass None on."
    return "Candidates are drawn, but not as often as the softmax of the similarity says."


def _draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)


sample_negatives = Check(
    "sample_negatives",
    losses.sample_negatives,
    _draw_cases,
    f"In {DRAWS} draws each candidate came up as often as its weight says, a positive never, and the generator alone "
    "decides.",
    {
        "Always the hardest negative. Draw instead: the hardest is often a true pair that nobody labeled.": (
            lambda s, p, g=None: s.masked_fill(p, -10000.0).argmax(1)
        ),
        "Drawn evenly. Draw with `negative_weights`: hard ones more often.": (
            lambda s, p, g=None: _draw((~p).float(), g)
        ),
        "Positives are drawn, too: a true pair would be learned as a wrong one.": (
            lambda s, p, g=None: _draw(s.softmax(1), g)
        ),
        "The shape is [B, 1]; make it [B], one number for each row.": (
            lambda s, p, g=None: torch.multinomial(losses.negative_weights(s, p), 1, generator=g)
        ),
        "The easiest negatives are drawn most: the sign is wrong.": lambda s, p, g=None: _draw(_softmax(s, p, -1.0), g),
        "Those are weights. Draw an index with them (torch.multinomial).": (
            lambda s, p, g=None: losses.negative_weights(s, p)
        ),
        "The generator is not used: give it to torch.multinomial, or a resumed training draws others.": (
            lambda s, p, g=None: _draw(losses.negative_weights(s, p), None)
        ),
        "The generator is seeded anew at every call: then every batch draws the same.": (
            lambda s, p, g=None: _draw(losses.negative_weights(s, p), torch.Generator().manual_seed(0))
        ),
        "The mask is upside down: only positives are drawn.": lambda s, p, g=None: _draw(_softmax(s, ~p), g),
        "The weights are those of the similarities divided by a temperature once more.": (
            lambda s, p, g=None: _draw(_softmax(s / 2, p), g)
        ),
        "The easiest negative, always: take the hard ones, and draw.": (
            lambda s, p, g=None: s.masked_fill(p, 10000.0).argmin(1)
        ),
        "Each column draws a row: each row draws a column, so do not transpose.": (
            lambda s, p, g=None: _draw(losses.negative_weights(s, p).T, g)
        ),
        "The weights of the first row are used for all rows: each row has its own.": (
            lambda s, p, g=None: torch.multinomial(
                losses.negative_weights(s, p)[0], len(s), replacement=True, generator=g
            )
        ),
        "One row's draw for all rows: each row draws its own.": (
            lambda s, p, g=None: _draw(losses.negative_weights(s, p), g)[:1].expand(len(s))
        ),
        "The softmax runs over the rows (dim=0), so a candidate is drawn as often as it fits this row better than "
        "others: dim=1.": lambda s, p, g=None: _draw(s.masked_fill(p, -10000.0).softmax(0), g),
        "The similarities themselves are the weights: take their softmax (`negative_weights`).": (
            lambda s, p, g=None: _draw(s.clamp(min=1e-3).masked_fill(p, 0.0), g)
        ),
        "The weights are those of the squares, or of twice the similarities.": (
            lambda s, p, g=None: _draw(_softmax(2 * s, p), g)
        ),
        "The wrong dtype: an index is long (int64).": lambda s, p, g=None: _draw(
            losses.negative_weights(s, p), g
        ).float(),
    },
    rules=(_draw_rules,),
    run=_drawn,
    tolerance=0.03,
)

# --- ITM ------------------------------------------------------------------------------------------------------------


def pairs_for_matching(image_index: Tensor, text_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 3B pairs [true; wrong image; wrong text] as numbers of images, numbers of texts and labels, long[3B] each.

    image_index  long[B]: the wrong image drawn for text b
    text_index   long[B]: the wrong text drawn for image b
    """
    own = torch.arange(len(image_index))
    images, texts = torch.cat([own, image_index, own]), torch.cat([own, own, text_index])
    return images, texts, torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])


@variants_of
def _pairs(images: str, texts: str, labels: str) -> Callable:
    """Pairs put together from blocks: o own, i the wrong image, t the wrong text."""

    def wrong(image_index: Tensor, text_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        blocks = {"o": torch.arange(len(image_index)), "i": image_index, "t": text_index}
        ones = torch.ones_like(image_index)
        chosen = [torch.cat([blocks[name] for name in names]) for names in (images, texts)]
        return chosen[0], chosen[1], torch.cat([ones * int(label) for label in labels])

    return wrong


def _pairs_rules(case: Case, got: object, expected: tuple) -> str | None:
    """Which third of which part differs."""
    if not isinstance(got, tuple | list) or len(got) != 3:
        return None
    if isinstance(got[2], Tensor) and not set(got[2].flatten().tolist()) <= {0, 1}:
        return f"A label is 1 for a match and 0 for none; yours are {sorted(set(got[2].flatten().tolist()))}."
    for name, ours, theirs in zip(("images", "texts", "labels"), got, expected, strict=True):
        if not isinstance(ours, Tensor) or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return None
        for third, a, b in zip(
            ("true pairs", "wrong images", "wrong texts"), ours.chunk(3), theirs.chunk(3), strict=True
        ):
            if not torch.equal(a, b):
                return f"`{name}` is {a.tolist()} for the {third} and should be {b.tolist()}."
    return None


itm_pairs = Check(
    "itm_pairs",
    pairs_for_matching,
    lambda: [
        Case("2 pairs", (torch.tensor([1, 0]), torch.tensor([1, 0]))),
        Case("3 pairs", (torch.tensor([2, 2, 0]), torch.tensor([1, 0, 1]))),
        Case("4 pairs", (torch.tensor([3, 2, 1, 0]), torch.tensor([1, 2, 0, 2]))),
    ],
    "3B pairs: all true ones, each text with a wrong image, each image with a wrong text; class 1 is a match.",
    {
        "The labels are upside down: class 1 is a match.": _pairs("oio", "oot", "011"),
        "The wrong image and the wrong text are put together in one pair; each goes with a right partner.": (
            _pairs("oi", "ot", "10")
        ),
        "The drawn numbers are swapped: image_index[b] is the wrong *image* for text b.": _pairs("oto", "ooi", "100"),
        "The true pairs are missing: the head would learn to say no.": _pairs("io", "ot", "00"),
        "Everything is called a match.": _pairs("oio", "oot", "111"),
        "The wrong texts are missing: two thirds of the pairs are wrong ones, half of them by the text.": (
            _pairs("oi", "oo", "10")
        ),
        "The order is another one: [true; wrong image; wrong text].": _pairs("ooi", "oto", "100"),
        "The true pairs stand at the end: [true; wrong image; wrong text].": _pairs("ioo", "oto", "001"),
        "The wrong images are missing: each text needs one, too.": _pairs("oo", "ot", "10"),
        "A wrong image meets a wrong text: each wrong one goes with a right partner.": _pairs("oii", "ott", "100"),
        "The wrong texts go with the wrong images: take `own` for their images.": _pairs("oii", "oot", "100"),
        "The wrong images go with the wrong texts: take `own` for their texts.": _pairs("oio", "ott", "100"),
        "All pairs are true ones: the drawn indices are not used.": _pairs("ooo", "ooo", "100"),
        "Everything is called no match.": _pairs("oio", "oot", "000"),
        "The wrong texts are called a match.": _pairs("oio", "oot", "101"),
        "The wrong images are called a match.": _pairs("oio", "oot", "110"),
        "The labels are numbers of pairs; a label is 1 for a match and 0 for none.": (
            lambda i, t: (*pairs_for_matching(i, t)[:2], torch.arange(3 * len(i)))
        ),
        "The pairs of a row stand side by side here; all true ones come first, then the two thirds of wrong ones.": (
            lambda i, t: tuple(part.view(3, -1).T.flatten() for part in pairs_for_matching(i, t))
        ),
        "Three rows [3, B]: put them into one, [3B] (torch.cat, not torch.stack).": (
            lambda i, t: tuple(part.view(3, -1) for part in pairs_for_matching(i, t))
        ),
        "Labels are float: cross-entropy wants long.": (
            lambda i, t: (*pairs_for_matching(i, t)[:2], pairs_for_matching(i, t)[2].float())
        ),
        "Labels are bool: cross-entropy wants long.": (
            lambda i, t: (*pairs_for_matching(i, t)[:2], pairs_for_matching(i, t)[2].bool())
        ),
        "The labels are missing: return images, texts and labels.": lambda i, t: pairs_for_matching(i, t)[:2],
    },
    rules=(_pairs_rules,),
    parts=("images", "texts", "labels"),
)


def logits_over_queries(itm_head: nn.Module, query_output: Tensor) -> Tensor:
    """query_output [B, Q, D] -> [B, 2]: the logits of each query, averaged over the queries."""
    return itm_head(query_output).mean(dim=1)


def _itm_cases() -> list[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(4, 2)
    made = []
    for b, q in ((1, 2), (2, 3), (3, 5)):
        leaf, query_output = learning(1.5 * unit_vectors(b, q, 4, seed=q))  # no unit vectors: a norm would not show
        learns = {"the query outputs": leaf, **parameters_of(head, "the head")}
        made.append(Case(f"{b} pairs, {q} queries", (head, query_output), learns))
    return made


itm_logits = Check(
    "itm_logits",
    logits_over_queries,
    _itm_cases,
    "One two-way verdict for each pair, the mean over its queries (as `Stage1Model.itm_logits`).",
    {
        "The max over the queries. That is ITC; ITM averages: every query has seen the text and has a say.": (
            lambda head, z: head(z).amax(1)
        ),
        "Only the first query is asked.": lambda head, z: head(z)[:, 0],
        "The sum over the queries: with 32 of them the softmax is always sure.": lambda head, z: head(z).sum(1),
        "Those are probabilities. Cross-entropy wants logits: no softmax here.": lambda head, z: (
            head(z).mean(1).softmax(1)
        ),
        "The verdicts of the queries are not averaged yet.": lambda head, z: head(z),
        "log_softmax: cross-entropy wants logits, no softmax of any kind here.": (
            lambda head, z: head(z).mean(1).log_softmax(1)
        ),
        "The softmax comes before the mean: average the logits.": lambda head, z: head(z).softmax(-1).mean(1),
        "The mean goes over the two classes; it goes over the queries, dim=1.": lambda head, z: head(z).mean(-1),
        "The mean goes over the batch; it goes over the queries, dim=1.": lambda head, z: head(z).mean(0),
        "The mean of everything: average over the queries only, dim=1.": lambda head, z: head(z).mean(),
        "Only the last query is asked.": lambda head, z: head(z)[:, -1],
        "The smallest of the verdicts: average them.": lambda head, z: head(z).amin(1),
        "The median is not the mean.": lambda head, z: head(z).median(1).values,
        "Only the logit of a match: return both, [B, 2].": lambda head, z: head(z).mean(1)[:, 1],
        "The two classes are exchanged.": lambda head, z: head(z).mean(1).flip(1),
        "The head's bias is missing: call the head.": lambda head, z: (z @ head.weight.T).mean(1),
        "The head is missing: these are query outputs.": lambda head, z: z.mean(1),
        "The head is asked about the largest of the query outputs, not about each of them.": (
            lambda head, z: head(z.amax(1))
        ),
        "The query outputs are normalized; the head takes them as they are.": (
            lambda head, z: head(F.normalize(z.mean(1), dim=-1))
        ),
        "A dimension is kept: [B, 2], not [B, 1, 2].": lambda head, z: head(z).mean(1, keepdim=True),
        "The decision (argmax) is returned; logits are asked for.": lambda head, z: head(z).mean(1).argmax(1),
        "A soft maximum (logsumexp) is not the mean.": lambda head, z: head(z).logsumexp(1),
        "Divided by 32: divide by the number of queries that are there.": lambda head, z: head(z).sum(1) / 32,
        "Probabilities are averaged, and their logarithm is taken: average the logits.": (
            lambda head, z: head(z).softmax(-1).mean(1).log()
        ),
        "Log-probabilities are averaged: no softmax of any kind here.": lambda head, z: head(z).log_softmax(-1).mean(1),
        "First and last query are added up: average over all of them.": lambda head, z: head(z)[:, 0] + head(z)[:, -1],
        "The verdicts are weighed by a softmax over the queries: all of them count the same.": (
            lambda head, z: (head(z)[..., 1:].softmax(1) * head(z)).sum(1)
        ),
        "The query that is surest of a match decides alone: average over all of them.": (
            lambda head, z: head(z)[torch.arange(len(z)), head(z)[..., 1].argmax(1)]
        ),
        "Divided by one query too few.": lambda head, z: head(z).sum(1) / (z.shape[1] - 1),
    },
)
