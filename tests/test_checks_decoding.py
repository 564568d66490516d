"""The checks of notebook 12, choosing a token: the library passes, every mistake gets its own message."""

from __future__ import annotations

import pytest
import torch
from checks_room import assert_named, assert_sound, checks_of, mistakes_of

from blip2_lab.checks import decoding

CHECKS = checks_of(decoding)


def test_all_four_are_here():
    assert CHECKS.keys() == {"nucleus", "penalize_repetition", "best_continuations", "final_score"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_sound(name):
    assert_sound(CHECKS[name])


@pytest.mark.parametrize(("name", "message"), mistakes_of(CHECKS))
def test_each_mistake_is_named(name, message):
    assert_named(CHECKS[name], CHECKS[name].mistakes[message], message)


def test_students_mistakes():
    def hotter_is_tamer(logits, temperature=1.0, top_p=1.0):
        probabilities = torch.softmax(logits * temperature, dim=-1)
        order = probabilities.argsort(descending=True)
        kept, total = torch.zeros_like(probabilities), 0.0
        for token in order:
            kept[token] = probabilities[token]
            total += probabilities[token]
            if total >= top_p:
                break
        return kept / kept.sum()

    def stops_too_early(logits, temperature=1.0, top_p=1.0):
        probabilities = torch.softmax(logits / temperature, dim=-1)
        kept, total = torch.zeros_like(probabilities), 0.0
        for token in probabilities.argsort(descending=True):
            total += probabilities[token]
            if total > top_p + 1e-6:
                break
            kept[token] = probabilities[token]
        return kept / kept.sum()

    def encourages(logits, seen, penalty):
        logits = logits.clone()
        for token in set(seen):
            logits[token] /= penalty
        return logits

    def forgets_the_past(scores, log_probs, count):
        best, where = log_probs.flatten().topk(count)
        width = log_probs.shape[1]
        return [(b.item(), w.item() // width, w.item() % width) for b, w in zip(best, where, strict=True)]

    assert_named(decoding.nucleus, hotter_is_tamer, "The temperature is multiplied")
    assert decoding.nucleus(stops_too_early).status == "failed"
    assert_named(decoding.penalize_repetition, encourages, "All are divided")
    assert_named(decoding.best_continuations, forgets_the_past, "The beams' own scores are forgotten")
    assert_named(decoding.final_score, lambda s, n, p: s * n**p, "Multiplied by length ** penalty")


def test_probabilities_that_do_not_sum_to_one_are_told():
    verdict = decoding.nucleus(lambda logits, temperature, top_p: torch.full_like(logits, 0.5))
    assert verdict.message == "These probabilities sum to 2.000, not to 1."
