"""The checks of notebook 09: the library's answer passes, every planted mistake gets its own message."""

from __future__ import annotations

import pytest
import torch

from blip2_lab.checks import grounding
from blip2_lab.checks.report import Check

CHECKS = {name: thing for name, thing in vars(grounding).items() if isinstance(thing, Check)}
MISTAKES = [(name, message) for name, check in CHECKS.items() for message in check.mistakes]


def test_every_check_is_here_and_knows_at_least_four_mistakes():
    assert len(CHECKS) == 5
    assert all(len(check.mistakes) >= 4 and check.name == name for name, check in CHECKS.items())


@pytest.mark.parametrize("name", CHECKS)
def test_the_library_passes_and_an_empty_answer_is_not_attempted(name):
    check = CHECKS[name]
    verdict = check(check.solution)
    assert verdict.passed, verdict

    def empty(*_):
        raise NotImplementedError

    assert check(empty).status == "not attempted"


@pytest.mark.parametrize(("name", "message"), MISTAKES, ids=[f"{name}-{text[:40]}" for name, text in MISTAKES])
def test_each_mistake_is_named(name, message):
    verdict = CHECKS[name](CHECKS[name].mistakes[message])
    assert verdict.status == "failed"
    assert verdict.message == message
    assert verdict.example


# --- as a student would write them ----------------------------------------------------------------------------------


def test_right_answers_in_another_hand_pass():
    def my_rollout(weights):
        result = None
        for layer in weights:
            mixed = 0.5 * layer.mean(0) + 0.5 * torch.eye(layer.shape[-1])
            result = mixed if result is None else mixed @ result
        return result

    def my_pointing(heat, box):
        row, column = (heat == heat.max()).nonzero()[0].tolist()
        x, y = (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]
        return 1.0 if box[0] <= x <= box[2] and box[1] <= y <= box[3] else 0.0

    def my_mass(heat, mask):
        heat = heat.clamp(min=0)
        large = heat.repeat_interleave(2, 0).repeat_interleave(2, 1)
        return float((large * mask).sum() / large.sum())

    def my_correlation(a, b):
        ranks = [x.flatten().argsort().argsort().double() for x in (a, b)]
        return torch.corrcoef(torch.stack(ranks))[0, 1].item()

    assert grounding.rollout(my_rollout).passed
    assert grounding.gradient_weighting(lambda w, g: torch.relu(w * g).mean(0)).passed
    assert grounding.pointing_game(my_pointing).passed
    assert grounding.mass_inside(my_mass).passed
    assert grounding.rank_correlation(my_correlation).passed


def test_wrong_in_a_students_own_way():
    assert (
        "residual"
        in grounding.rollout(
            lambda w: torch.linalg.multi_dot([*w.mean(1).flip(0), torch.eye(w.shape[-1])]) if len(w) else w
        ).message
    )
    assert "too early" in grounding.gradient_weighting(lambda w, g: torch.relu(torch.mean(w * g, 0))).message
    assert (
        "exchanged"
        in grounding.pointing_game(
            lambda heat, box: float(
                box[0] <= (int(heat.argmax()) // 4 + 0.5) / 4 <= box[2]
                and box[1] <= (int(heat.argmax()) % 4 + 0.5) / 4 <= box[3]
            )
        ).message
    )
    assert (
        "very hot patch"
        in grounding.rank_correlation(
            lambda a, b: torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()
        ).message
    )
