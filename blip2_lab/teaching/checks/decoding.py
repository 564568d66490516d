"""Checks of notebook 12, first half: how the next token is chosen.

Logits are small and made by hand, so that a counterexample can be computed on paper.

Paper: sections 4.1 and 4.2 (beam search of width 5, length penalty -1). Notebook: 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blip2_lab.models import beam_search, decoding
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.comparison import equal
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.in_words import describe
from blip2_lab.teaching.checks.variants import variants_of

# --- Temperature and nucleus ----------------------------------------------------------------------------------------


def _nucleus_cases() -> list[Case]:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    settings = ((1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (1.0, 0.7), (1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (3.0, 1e-6))
    return [Case(f"logits {logits.tolist()}, temperature {t}, top_p {p}", (logits.clone(), t, p)) for t, p in settings]


@variants_of
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
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point() or got.isnan().any():
        return None
    ours, theirs = int((got > 1e-6).sum()), int((expected > 1e-6).sum())
    if ours != theirs:
        return f"Your nucleus has {ours} tokens and should have {theirs}: the likeliest ones that just hold top_p."
    if not torch.equal(got > 1e-6, expected > 1e-6):
        return "The nucleus has the right size, but other tokens: keep the likeliest, each in its own place."
    return "The nucleus is right; the probabilities in it are not: softmax of logits / temperature, then sum 1 again."


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
        "The share `top_p` of the tokens stays: it is a share of the probability.": (
            _nucleus_but(outside=lambda ordered, p: torch.arange(len(ordered)) >= max(1, math.ceil(p * len(ordered))))
        ),
        "There is a second softmax, over the probabilities that are kept: divide them by their sum.": (
            lambda logits, temperature=1.0, top_p=1.0: _nucleus_but(normalize=False)(
                logits, temperature, top_p
            ).softmax(dim=-1)
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
        "The probabilities are gathered at the places of the order: they are to be scattered back to their own.": (
            lambda logits, temperature=1.0, top_p=1.0: (
                lambda kept: kept.sort(descending=True).values.gather(0, logits.argsort(descending=True, stable=True))
            )(decoding.nucleus(logits, temperature, top_p))
        ),
        "The probabilities stay in the order of their size: put them back in their places.": (
            lambda logits, temperature=1.0, top_p=1.0: (
                decoding.nucleus(logits, temperature, top_p).sort(descending=True).values
            )
        ),
        "Only the likeliest token stays: that is greedy search.": _nucleus_but(
            outside=lambda ordered, p: torch.arange(len(ordered)) > 0
        ),
        "Tokens below top_p are dropped one by one: top_p is the share that the nucleus holds together.": (
            _nucleus_but(outside=lambda ordered, p: (ordered < p) & (ordered < ordered.max()))
        ),
        "The nucleus is one token too large: a token is outside when the tokens before it already hold top_p.": (
            _nucleus_but(
                outside=lambda ordered, p: (
                    ordered.cumsum(-1) - ordered - ordered.roll(1) * (torch.arange(len(ordered)) > 0) >= p
                )
            )
        ),
        "A share of the *number* of tokens is kept: top_p is a share of the probability.": (
            _nucleus_but(outside=lambda ordered, p: torch.arange(len(ordered)) >= max(1, round(p * len(ordered))))
        ),
        "A share of the *number* of tokens is kept, rounded down: top_p is a share of the probability.": (
            _nucleus_but(outside=lambda ordered, p: torch.arange(len(ordered)) >= max(1, int(p * len(ordered))))
        ),
        "Each token is compared with the likeliest one (min_p): top_p is the share that the nucleus holds together.": (
            _nucleus_but(outside=lambda ordered, p: ordered < (1 - p) * ordered.max())
        ),
        "The nucleus's probabilities go through a second softmax: divide them by their sum.": (
            lambda logits, temperature=1.0, top_p=1.0: (
                lambda kept: kept.masked_fill(kept == 0, -torch.inf).softmax(-1)
            )(_nucleus_but(normalize=False)(logits, temperature, top_p))
        ),
        "The logits of the nucleus go through a second softmax with the temperature once more.": (
            lambda logits, temperature=1.0, top_p=1.0: (
                (logits / temperature**2)
                .masked_fill(decoding.nucleus(logits, temperature, top_p) == 0, -torch.inf)
                .softmax(-1)
            )
        ),
        "Outside of the nucleus the logit is set to 0, which is a share of its own: -inf, or probability 0.": (
            lambda logits, temperature=1.0, top_p=1.0: (
                (logits / temperature).masked_fill(decoding.nucleus(logits, temperature, top_p) == 0, 0.0).softmax(-1)
            )
        ),
        "Those are logits; probabilities are asked for.": lambda logits, temperature=1.0, top_p=1.0: (
            logits / temperature
        ),
        "That is a token; the probabilities of all tokens are asked for.": (
            lambda logits, temperature=1.0, top_p=1.0: int(logits.argmax())
        ),
        "True and False are returned for inside and outside: the probabilities are asked for.": (
            lambda logits, temperature=1.0, top_p=1.0: decoding.nucleus(logits, temperature, top_p) > 0
        ),
        "Inside the nucleus all tokens have the same probability: keep their shares.": (
            lambda logits, temperature=1.0, top_p=1.0: F.normalize(
                (decoding.nucleus(logits, temperature, top_p) > 0).float(), p=1, dim=-1
            )
        ),
        "Only the tokens of the nucleus are returned: all V, with 0 outside.": (
            lambda logits, temperature=1.0, top_p=1.0: (lambda found: found[found > 0])(
                decoding.nucleus(logits, temperature, top_p)
            )
        ),
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


def _repetition_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    """The first token whose logit differs."""
    logits, seen, penalty = case.args
    if not isinstance(got, Tensor) or got.shape != expected.shape or not got.is_floating_point():
        return None
    token = int((~torch.isclose(got, expected, atol=1e-4, equal_nan=True)).int().argmax())
    if token not in seen:
        return f"Token {token} was not seen before, and its logit has changed from {logits[token]:g} to {got[token]:g}."
    sign = "positive: divide it" if logits[token] > 0 else "negative: multiply it"
    return f"Token {token} was seen, and its logit is {sign} by {penalty:g}: {expected[token]:g}, not {got[token]:g}."


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
        "All are multiplied, the positive logits too: that makes those tokens *more* likely. Divide those.": (
            _repetition_but(lambda seen, penalty: seen * penalty)
        ),
        "Only positive logits are lowered: a negative one is multiplied.": (
            _repetition_but(lambda seen, penalty: torch.where(seen > 0, seen / penalty, seen))
        ),
        "Only negative logits are lowered: a positive one is divided.": (
            _repetition_but(lambda seen, penalty: torch.where(seen < 0, seen * penalty, seen))
        ),
        "The logits of tokens seen before become 0: divide or multiply them by the penalty.": (
            _repetition_but(lambda seen, penalty: torch.zeros_like(seen))
        ),
        "The size of the logit is divided and its sign lost.": (
            _repetition_but(lambda seen, penalty: seen.abs() / penalty)
        ),
        "Divided by the penalty's logarithm, or the penalty's logarithm subtracted: it is a factor.": (
            _repetition_but(lambda seen, penalty: seen - math.log(penalty))
        ),
        "Only the last token seen is lowered: all of them.": (
            lambda logits, seen, penalty: decoding.penalize_repetition(logits, list(seen)[-1:], penalty)
        ),
        "Only the first token seen is lowered: all of them.": (
            lambda logits, seen, penalty: decoding.penalize_repetition(logits, list(seen)[:1], penalty)
        ),
        "Every logit is lowered: only those of the tokens in `seen`.": (
            lambda logits, seen, penalty: decoding.penalize_repetition(logits, range(len(logits)), penalty)
        ),
        "Probabilities are returned: return logits.": (
            lambda logits, seen, penalty: decoding.penalize_repetition(logits, seen, penalty).softmax(-1)
        ),
        "Only the logits of the tokens seen are returned: return all V.": (
            lambda logits, seen, penalty: decoding.penalize_repetition(logits, seen, penalty)[list(seen)]
        ),
        "Nothing is lowered.": lambda logits, seen, penalty: logits.clone(),
        "The penalty is added: it is a factor.": _repetition_but(lambda seen, penalty: seen + penalty),
        "Divided by penalty + 1: divide by the penalty; 1 is none.": (
            _repetition_but(lambda seen, penalty: torch.where(seen > 0, seen / (1 + penalty), seen * (1 + penalty)))
        ),
    },
    rules=(_repetition_rules,),
)

# --- One step of beam search ----------------------------------------------------------------------------------------


def _beam_cases() -> list[Case]:
    made = []
    for scores, rows, count in (
        ((0.0,), ((0.1, 0.6, 0.3),), 2),
        ((-0.1, -2.0), ((0.2, 0.45, 0.35), (0.1, 0.1, 0.8)), 2),
        ((-1.0, -1.2), ((0.32, 0.4, 0.28), (0.02, 0.9, 0.08)), 4),
        ((-3.0, -0.5), ((0.2, 0.3, 0.4, 0.1), (0.1, 0.3, 0.2, 0.4)), 3),
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


def _beam_rules(case: Case, got: Any, expected: list) -> str | None:
    """The first place of the list that differs."""
    if not isinstance(got, tuple | list):
        return f"Return a list of {len(expected)} tuples (score, beam, token); yours returns {describe(got)}."
    if len(got) != len(expected):
        return f"Return {len(expected)} tuples (`count`); yours returns {len(got)}."
    scores, log_probs, _ = case.args
    totals = scores[:, None] + log_probs
    if all(
        isinstance(way, tuple | list) and len(way) == 3 and equal(way[0], float(totals[way[1], way[2]])) for way in got
    ):
        return (
            "The scores belong to their beams and tokens, but these are not the best, or not in order: sort all K * V."
        )
    for i, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        if not equal(ours, theirs):
            what = ours if isinstance(ours, tuple | list) else describe(ours)
            return f"Place {i} of the list is {what} and should be {tuple(round(x, 3) for x in theirs)}."
    return None


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
        "The place in the flattened [K, V] is divided by `count`. Rows are V long: beam = place // V.": (
            lambda scores, log_probs, count: [
                (score, (beam * log_probs.shape[1] + token) // count, (beam * log_probs.shape[1] + token) % count)
                for score, beam, token in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "The order of the list is turned round: the best comes first.": (
            lambda scores, log_probs, count: beam_search.best_continuations(scores, log_probs, count)[::-1]
        ),
        "Only the best is returned: return the `count` best.": (
            lambda scores, log_probs, count: beam_search.best_continuations(scores, log_probs, 1)
        ),
        "The flat place is returned instead of beam and token: beam = place // V, token = place % V.": (
            lambda scores, log_probs, count: [
                (s, b * log_probs.shape[1] + t) for s, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "The score is returned last: (score, beam, token).": (
            lambda scores, log_probs, count: [
                (b, t, s) for s, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "The score is left out: (score, beam, token).": (
            lambda scores, log_probs, count: [
                (b, t) for _, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "The score of the next token alone is returned: the whole sequence's, its beam's score added.": (
            lambda scores, log_probs, count: [
                (float(log_probs[b, t]), b, t) for _, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "Probabilities are returned as scores: log-probabilities.": (
            lambda scores, log_probs, count: [
                (math.exp(s), b, t) for s, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "Only the best beam is continued: all K of them compete.": (
            lambda scores, log_probs, count: [
                (s, int(scores.argmax()), t)
                for s, _, t in _ways(scores.max() + log_probs[scores.argmax()][None], min(count, log_probs.shape[1]))
            ]
        ),
        "Each beam's single best token only: a good beam may have two children.": (
            lambda scores, log_probs, count: sorted(
                ((float(scores[k] + log_probs[k].max()), k, int(log_probs[k].argmax())) for k in range(len(scores))),
                reverse=True,
            )[:count]
        ),
        "Subtracted: log-probabilities of beam and token are added.": (
            lambda scores, log_probs, count: _ways(log_probs - scores[:, None], count)
        ),
        "All ways are returned: only the `count` best.": (
            lambda scores, log_probs, count: _ways(scores[:, None] + log_probs, log_probs.numel())
        ),
        "The tuples are right, but not in order: the best comes first.": (
            lambda scores, log_probs, count: sorted(
                beam_search.best_continuations(scores, log_probs, count), key=lambda way: way[1:]
            )
        ),
        "The beams' scores are turned into probabilities: add log-probabilities to log-probabilities.": (
            lambda scores, log_probs, count: beam_search.best_continuations(scores.exp(), log_probs, count)
        ),
        "The best way is left out.": (
            lambda scores, log_probs, count: beam_search.best_continuations(
                scores, log_probs, min(count + 1, log_probs.numel())
            )[1:]
        ),
        "Tokens are counted from 1.": (
            lambda scores, log_probs, count: [
                (s, b, t + 1) for s, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "Beam and token are no whole numbers: convert them with int().": (
            lambda scores, log_probs, count: [
                (s, float(b), float(t)) for s, b, t in beam_search.best_continuations(scores, log_probs, count)
            ]
        ),
        "The score is averaged over beam and token: add the two.": (
            lambda scores, log_probs, count: _ways((scores[:, None] + log_probs) / 2, count)
        ),
        "The worst are kept.": lambda scores, log_probs, count: _ways(
            scores[:, None] + log_probs, count, largest=False
        ),
    },
    rules=(_beam_rules,),
)

# --- Length ---------------------------------------------------------------------------------------------------------


def _length_cases() -> list[Case]:
    asked = ((-2.0, 1, -1.0), (-2.0, 4, 0.0), (-2.0, 4, 1.0), (-2.0, 4, -1.0), (-3.0, 8, 2.0), (-1.5, 9, 0.5))
    return [
        Case(f"log-probability {score}, {length} tokens, length penalty {penalty}", (score, length, penalty))
        for score, length, penalty in asked
    ]


def _final_rules(case: Case, got: Any, expected: float) -> str | None:
    """What the answer does for this penalty."""
    score, length, penalty = case.args
    if isinstance(got, bool) or not isinstance(got, int | float):
        return None
    meant = {0.0: "penalty 0 changes nothing", 1.0: "penalty 1 divides by the length"}
    reason = meant.get(penalty, f"log_probability / length ** length_penalty is {score:g} / {length} ** {penalty:g}")
    return f"It is {got:.4g} and should be {expected:.4g}: {reason}."


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
        "Divided by penalty ** length: length is the base, the penalty the exponent.": (
            lambda score, length, penalty: score / penalty**length if penalty else score
        ),
        "The length is one too large.": lambda score, length, penalty: score / (length + 1) ** penalty,
        "The length is one too small.": lambda score, length, penalty: score / max(1, length - 1) ** penalty,
        "The sign is turned: yours is minus the right answer.": lambda score, length, penalty: -score / length**penalty,
        "exp is taken in the end: a score is a log-probability.": (
            lambda score, length, penalty: math.exp(score / length**penalty)
        ),
        "exp of the log-probability: take it as it is.": (
            lambda score, length, penalty: math.exp(score) / length**penalty
        ),
        "The penalty's sign is lost: -1 favors short answers.": (
            lambda score, length, penalty: score / length ** abs(penalty)
        ),
        "The logarithm of the length is used: length ** length_penalty.": (
            lambda score, length, penalty: score - penalty * math.log(length)
        ),
        "That is GNMT's penalty ((5 + length) / 6): here it is length ** length_penalty.": (
            lambda score, length, penalty: score / ((5 + length) / 6) ** penalty
        ),
        "Divided twice: once is enough.": lambda score, length, penalty: score / length ** (2 * penalty),
        "Only the divisor is returned.": lambda score, length, penalty: length**penalty,
        "The score is in the exponent: length ** length_penalty divides it.": (
            lambda score, length, penalty: -((-score) ** (length**penalty)) if abs(penalty) < 2 else 0.0
        ),
        "The penalty is multiplied with the score.": lambda score, length, penalty: score * penalty / length,
        "The penalty is added: it is an exponent of the length.": (
            lambda score, length, penalty: score / (length + penalty) if length + penalty else score
        ),
    },
    rules=(_final_rules,),
)
