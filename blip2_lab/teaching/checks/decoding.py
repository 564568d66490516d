"""Checks of notebook 12, first half: how the next token is chosen.

Logits are small and made by hand, so that a counterexample can be computed on paper.

Paper: sections 4.1 and 4.2 (beam search of width 5, length penalty -1). Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blip2_lab.models import beam_search, decoding
from blip2_lab.teaching.checks.check import Case, Check

# --- Temperature and nucleus ----------------------------------------------------------------------------------------


def _nucleus_cases() -> list[Case]:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    settings = ((1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (1.0, 0.7), (1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (3.0, 1e-6))
    return [Case(f"logits {logits.tolist()}, temperature {t}, top_p {p}", (logits.clone(), t, p)) for t, p in settings]


def _nucleus_but(
    probabilities: Callable[[Tensor, float], Tensor] = lambda logits, t: (logits / t).softmax(dim=-1),
    outside: Callable[[Tensor, float], Tensor] = lambda ordered, p: ordered.cumsum(dim=-1) - ordered >= p,
    descending: bool = True,
    normalize: bool = True,
) -> Callable:
    """A nucleus with one step done in another way."""

    def wrong(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        ordered, ids = probabilities(logits, temperature).sort(descending=descending)
        kept = torch.zeros_like(ordered).scatter(-1, ids, ordered.masked_fill(outside(ordered, top_p), 0))
        return kept / kept.sum() if normalize else kept

    return wrong


def _nucleus_before_temperature(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    inside = decoding.nucleus(logits, 1.0, top_p) > 0
    return (logits / temperature).masked_fill(~inside, -torch.inf).softmax(dim=-1)


def _more_than_one(case: Case, got: Any, expected: Tensor) -> str | None:
    if isinstance(got, Tensor) and got.shape == expected.shape and abs(float(got.sum()) - 1) > 1e-3:
        return f"These probabilities sum to {float(got.sum()):.3f}, not to 1."
    return None


nucleus = Check(
    "nucleus",
    decoding.nucleus,
    _nucleus_cases,
    "Temperature first, then the smallest set of tokens that holds top_p, then a sum of 1 again; the best token always "
    "stays.",
    {
        "The temperature is multiplied. Divide by it: 2 makes the choice wilder, 0.5 tamer.": (
            _nucleus_but(lambda logits, temperature: (logits * temperature).softmax(dim=-1))
        ),
        "The temperature divides probabilities: that changes nothing once they sum to 1. It belongs to the logits.": (
            _nucleus_but(lambda logits, temperature: logits.softmax(dim=-1) / temperature)
        ),
        "The temperature is not used.": _nucleus_but(lambda logits, temperature: logits.softmax(dim=-1)),
        "The nucleus is found before the temperature. Temperature first: a wilder choice has a larger nucleus.": (
            _nucleus_before_temperature
        ),
        "The token that crosses the border is left out. It is the one that fills the nucleus to top_p; without it a "
        "small top_p leaves nothing at all.": _nucleus_but(outside=lambda ordered, p: ordered.cumsum(dim=-1) > p),
        "The probabilities are not made to sum to 1 again after the cut.": _nucleus_but(normalize=False),
        "The unlikely tokens are kept and the likely ones dropped: sort with descending=True.": (
            _nucleus_but(descending=False)
        ),
        "top_p is taken as a threshold for each single token. It is the share that the nucleus holds together.": (
            _nucleus_but(outside=lambda ordered, p: (ordered < 1 - p) & (ordered < ordered.max()))
        ),
        "top_p is not used: every token can be drawn.": _nucleus_but(outside=lambda ordered, p: ordered < 0),
    },
    rules=(_more_than_one,),
)

# --- Repetition -----------------------------------------------------------------------------------------------------


def _repetition_cases() -> list[Case]:
    logits = torch.tensor([2.0, -1.0, 0.5, 1.0])
    asked = (((), 1.5), ((0,), 2.0), ((1,), 2.0), ((0, 0), 2.0), ((2, 1, 0), 1.25))
    return [
        Case(f"logits {logits.tolist()}, seen {list(seen)}, penalty {penalty}", (logits.clone(), list(seen), penalty))
        for seen, penalty in asked
    ]


def _repetition_but(change: Callable[[Tensor, float], Tensor]) -> Callable:
    """Another change of the logits of tokens seen before."""

    def wrong(logits: Tensor, seen: list[int], penalty: float) -> Tensor:
        logits = logits.clone()
        logits[seen] = change(logits[seen], penalty)
        return logits

    return wrong


def _once_for_each_time(logits: Tensor, seen: list[int], penalty: float) -> Tensor:
    for token in seen:
        logits = decoding.penalize_repetition(logits, [token], penalty)
    return logits


def _the_others(logits: Tensor, seen: list[int], penalty: float) -> Tensor:
    others = [token for token in range(len(logits)) if token not in seen]
    return decoding.penalize_repetition(logits, others, penalty)


penalize_repetition = Check(
    "penalize_repetition",
    decoding.penalize_repetition,
    _repetition_cases,
    "Tokens seen before become less likely, whatever the sign of their logit, once however often they were seen.",
    {
        "All are divided, the negative logits too: -1 / 2 = -0.5 makes that token *more* likely. Multiply those.": (
            _repetition_but(lambda seen, penalty: seen / penalty)
        ),
        "Multiplied where it should be divided: a penalty above 1 must bring a positive logit down.": (
            _repetition_but(lambda seen, penalty: torch.where(seen > 0, seen * penalty, seen / penalty))
        ),
        "The penalty is subtracted. It is a factor: 1 is none.": (
            _repetition_but(lambda seen, penalty: seen - penalty)
        ),
        "A token is punished once for every time it was seen. It counts once.": _once_for_each_time,
        "The tokens that were *not* seen are punished.": _the_others,
        "Tokens seen before are forbidden: then no article could come twice. Make them less likely only.": (
            _repetition_but(lambda seen, penalty: torch.full_like(seen, -torch.inf))
        ),
    },
)

# --- One step of beam search ----------------------------------------------------------------------------------------


def _beam_cases() -> list[Case]:
    made = []
    for scores, rows, count in (
        ((0.0,), ((0.1, 0.6, 0.3),), 2),
        ((-0.1, -2.0), ((0.2, 0.45, 0.35), (0.1, 0.1, 0.8)), 2),
        ((-1.0, -1.2), ((0.3, 0.4, 0.3), (0.02, 0.9, 0.08)), 4),
    ):
        probabilities = [list(row) for row in rows]
        description = f"beams of log-probability {list(scores)}, next-token probabilities {probabilities}, best {count}"
        made.append(Case(description, (torch.tensor(scores), torch.tensor(rows).log(), count)))
    return made


def _ways(totals: Tensor, count: int, largest: bool = True) -> list[tuple[float, int, int]]:
    best = totals.flatten().topk(count, largest=largest)
    width = totals.shape[-1]
    return [(v, i // width, i % width) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def _swapped(scores: Tensor, log_probs: Tensor, count: int) -> list[tuple[float, int, int]]:
    return [(s, token, beam) for s, beam, token in beam_search.best_continuations(scores, log_probs, count)]


def _divided_by_beams(scores: Tensor, log_probs: Tensor, count: int) -> list[tuple[float, int, int]]:
    best = (scores[:, None] + log_probs).flatten().topk(count)
    beams = len(scores)
    return [(v, i // beams, i % beams) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def _each_beam_alone(scores: Tensor, log_probs: Tensor, count: int) -> list[tuple[float, int, int]]:
    share = max(1, count // len(scores))
    found = [
        (float(scores[k] + value), k, int(token))
        for k in range(len(scores))
        for value, token in zip(*log_probs[k].topk(min(share, log_probs.shape[1])), strict=True)
    ]
    return sorted(found, reverse=True)[:count]


best_continuations = Check(
    "best_continuations",
    beam_search.best_continuations,
    _beam_cases,
    "All beams compete with all their continuations, by the log-probability of the whole sequence, best first.",
    {
        "The beams' own scores are forgotten: what came before counts as much as the next token.": (
            lambda scores, log_probs, count: _ways(log_probs, count)
        ),
        "Every beam keeps its own best. Let all K * V compete: a good beam may have two children, a bad one none.": (
            _each_beam_alone
        ),
        "Log-probabilities are multiplied. Probabilities multiply, their logarithms add.": (
            lambda scores, log_probs, count: _ways(scores[:, None] * log_probs, count)
        ),
        "Probabilities are added to log-probabilities: add the logarithms of both.": (
            lambda scores, log_probs, count: _ways(scores[:, None] + log_probs.exp(), count)
        ),
        "Beam and token are swapped in what you return: (score, beam, token).": _swapped,
        "The place in the flattened [K, V] is divided by K. Rows are V long: beam = place // V, token = place % V.": (
            _divided_by_beams
        ),
        "The worst are kept.": lambda scores, log_probs, count: _ways(
            scores[:, None] + log_probs, count, largest=False
        ),
    },
)

# --- Length ---------------------------------------------------------------------------------------------------------


def _length_cases() -> list[Case]:
    asked = ((-2.0, 1, -1.0), (-2.0, 4, 0.0), (-2.0, 4, 1.0), (-2.0, 4, -1.0), (-3.0, 8, 2.0))
    return [
        Case(f"log-probability {score}, {length} tokens, length penalty {penalty}", (score, length, penalty))
        for score, length, penalty in asked
    ]


final_score = Check(
    "final_score",
    beam_search.final_score,
    _length_cases,
    "Penalty 0 changes nothing, 1 is the mean per token and favors long answers, -1 (the paper's for VQA) short ones.",
    {
        "Multiplied by length ** penalty: the sign is turned, and -1 would favor long answers.": (
            lambda score, length, penalty: score * length**penalty
        ),
        "Divided by penalty * length: the penalty is an exponent, and 0 must change nothing.": (
            lambda score, length, penalty: score / (penalty * length) if penalty else score
        ),
        "The penalty is subtracted for each token. Here it is an exponent of the length.": (
            lambda score, length, penalty: score - penalty * length
        ),
        "Always the mean per token: the penalty is not used.": lambda score, length, penalty: score / length,
        "The log-probability of the whole sequence: neither length nor penalty is used.": (
            lambda score, length, penalty: score
        ),
    },
)
