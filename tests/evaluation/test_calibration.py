"""Calibration on answers whose true share is known."""

import math
from random import Random

import pytest

from blip2_lab.evaluation import calibration
from blip2_lab.evaluation.calibration import Bin, Calibration, expected_calibration_error, fit, reliability


def answers(share_right, number: int = 4000, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Confidences, and verdicts that are true with `share_right(confidence)`."""
    rng = Random(seed)
    confidences = [rng.random() for _ in range(number)]
    return confidences, [rng.random() < share_right(c) for c in confidences]


def test_reliability_by_hand():
    found = reliability([0.1, 0.15, 0.9, 1.0], [False, True, True, True], bins=2)
    assert found == [Bin(0.125, 0.5, 2), Bin(0.95, 1.0, 2)]
    # (2 * 0.375 + 2 * 0.05) / 4
    assert expected_calibration_error([0.1, 0.15, 0.9, 1.0], [False, True, True, True], bins=2) == pytest.approx(0.2125)
    assert math.isnan(expected_calibration_error([], []))


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -1.0), (2.0, 0.7)])
def test_the_true_curve_is_found_and_others_answers_are_calibrated_by_it(slope, offset):
    truth = Calibration(slope, offset)
    fitted = fit(*answers(truth.share_right))
    assert fitted.slope == pytest.approx(slope, rel=0.12) and fitted.offset == pytest.approx(offset, abs=0.12)
    confidences, right = answers(truth.share_right, seed=1)
    assert expected_calibration_error([fitted.share_right(c) for c in confidences], right) < 0.03
    if (slope, offset) != (1.0, 0.0):
        assert expected_calibration_error(confidences, right) > 0.05, "the raw confidence was not calibrated"


def test_unsure_is_what_is_more_often_wrong_than_right():
    boastful = Calibration(1.0, -1.0)  # right less often than it says
    assert boastful.is_unsure(0.6) and not boastful.is_unsure(0.8) and not Calibration(1.0, 0.0).is_unsure(0.6)
    assert 0 < boastful.share_right(0.0) < boastful.share_right(1.0) < 1


def test_answers_that_are_all_wrong_are_all_unsure():
    found = fit([0.2, 0.9, 0.99], [False] * 3)
    assert math.isfinite(found.offset) and all(found.is_unsure(c) for c in (0.2, 0.9, 0.99))
    with pytest.raises(ValueError, match="no answers"):
        fit([], [])


def test_answers_that_are_parted_by_their_confidence_have_a_finite_curve():
    found = fit([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert math.isfinite(found.slope) and found.share_right(0.1) < 0.1 < 0.9 < found.share_right(0.9)


def test_it_is_kept_beside_the_weights(tmp_path):
    assert calibration.load(tmp_path) is None
    Calibration(1.5, -0.25).save(tmp_path)
    assert calibration.load(tmp_path) == Calibration(1.5, -0.25)
    for wrong in ("{", "[]", "{}", '{"slope": "steep", "offset": 1}'):
        (tmp_path / calibration.FILE).write_text(wrong)
        with pytest.raises(ValueError, match="calibration.json is damaged, or of another version: remove this file"):
            calibration.load(tmp_path)
