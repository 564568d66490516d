"""The checks of notebook 09 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import torch

from blip2_lab.teaching.checks import attribution, grounding


def test_right_answers_written_differently_pass():
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

    assert attribution.rollout(my_rollout).passed
    assert attribution.gradient_weighting(lambda w, g: torch.relu(w * g).mean(0)).passed
    assert grounding.pointing_game(my_pointing).passed
    assert grounding.mass_inside(my_mass).passed
    assert grounding.rank_correlation(my_correlation).passed


def test_wrong_in_a_students_own_way():
    assert (
        "residual"
        in attribution.rollout(
            lambda w: torch.linalg.multi_dot([*w.mean(1).flip(0), torch.eye(w.shape[-1])]) if len(w) else w
        ).message
    )
    assert "too early" in attribution.gradient_weighting(lambda w, g: torch.relu(torch.mean(w * g, 0))).message
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
