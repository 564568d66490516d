"""Checks of notebook 11: exact match, the interval of an accuracy, the paired difference of two models.

Paper: section 4.1 (zero-shot VQA). Notebook: 11.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blip2_lab.evaluation import metrics
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.variants import variants_of

# --- Is the answer right? -------------------------------------------------------------------------------------------


def _match_cases() -> list[Case]:
    pairs = (
        ("red", "red"), ("blue", "red"), ("Red", "red"), ("red.", "red"), (" red ", "red"), ("a red boat", "red"),
        ("re", "red"), ("", "red"), (" Red. ", "red"), ("bluesky", "blue sky"), ("blue sky", "blue sky"), ("35", "3.5"),
        ("3.5", "3.5"),
        ("the red", "red"), ("a red", "red"), ("reds", "red"), ("der", "red"),
        ("infrared", "red"), ("redder", "red"), ("blue sea", "blue sky"), ("red and blue", "blue and red"),
        ("blue sky", "Blue Sky"), ("cat", "car"), ("red boat", "red"),
        ("red!", "red"), ("red,", "red"), ("(red)", "red"),
    )  # fmt: skip
    return [Case(f"prediction {prediction!r}, answer {answer!r}", (prediction, answer)) for prediction, answer in pairs]


def _match_rules(case: Case, got: object, expected: bool) -> str | None:
    """Which pair is judged wrongly, and what the two differ by."""
    if not isinstance(got, bool):
        return None
    prediction, answer = case.args
    verdict = "right" if got else "wrong"
    told = f"The prediction {prediction!r} is called {verdict} where the answer is {answer!r}"
    return f"{told}: {_differing_by(prediction, answer)}."


def _differing_by(prediction: str, answer: str) -> str:
    """What the two differ by, and whether it matters, in the words of the exercise."""
    if metrics.exact_match(prediction, answer):
        named = {
            "spaces around": prediction != prediction.strip(),
            "a closing full stop": prediction.strip().endswith("."),
            "case": prediction != prediction.lower() or answer != answer.lower(),
        }
        differing = " and ".join(name for name, is_there in named.items() if is_there)
        return f"they differ by {differing}, which must not matter" if differing else "they are equal"
    for name, sign in {"a space inside": " ", "a full stop inside": "."}.items():
        if prediction.replace(sign, "") == answer.replace(sign, ""):
            return f"they differ by {name}, which matters"
    if prediction.strip(string.punctuation) == answer:
        return "they differ by another sign than a full stop, which matters"
    return "they differ by letters or words" if prediction else "the prediction is empty"


exact_match = Check(
    "exact_match",
    metrics.exact_match,
    _match_cases,
    "Case, spaces around and a closing full stop do not matter; a longer or a shorter answer is wrong.",
    {
        "Upper and lower case are told apart: 'Red.' answers 'red'.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip() == answer
        ),
        "The full stop is not taken off.": lambda prediction, answer: prediction.strip().lower() == answer.lower(),
        "It is enough that the answer occurs somewhere: then 'red blue green' answers every question about colors.": (
            lambda prediction, answer: answer in prediction.lower()
        ),
        "It is enough that the prediction occurs in the answer: then saying nothing is always right.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip().lower() in answer
        ),
        "The spaces around are not taken off.": lambda prediction, answer: (
            prediction.rstrip(".").lower() == answer.lower()
        ),
        "The strings are compared as they are: case, spaces and a full stop must not matter.": (
            lambda prediction, answer: prediction == answer
        ),
        "The full stop is taken off before the spaces: 'red. ' keeps it.": (
            lambda prediction, answer: prediction.rstrip(".").strip().lower() == answer.lower()
        ),
        "Spaces inside are taken out as well: 'bluesky' is not 'blue sky'.": (
            lambda prediction, answer: prediction.lower().rstrip(". ").replace(" ", "") == answer.replace(" ", "")
        ),
        "Full stops inside the prediction are taken out: 3.5 is the answer 3.5.": (
            lambda prediction, answer: prediction.lower().replace(".", "").strip() == answer.lower()
        ),
        "Full stops inside are taken out as well: 35 is not 3.5.": (
            lambda prediction, answer: prediction.lower().replace(".", "").strip() == answer.replace(".", "")
        ),
        "Other signs than a full stop are taken off, too: 'red!' is not 'red' here.": (
            lambda prediction, answer: prediction.lower().strip(string.punctuation + " ") == answer.lower()
        ),
        "It is enough that the answer begins the prediction.": (
            lambda prediction, answer: prediction.strip().lower().startswith(answer)
        ),
        "It is enough that the answer ends the prediction.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip().lower().endswith(answer)
        ),
        "It is enough that the answer is one of the words.": (
            lambda prediction, answer: (
                answer in prediction.lower().replace(".", " ").split()
                or prediction.lower().strip(" .") == answer.lower()
            )
        ),
        "It is enough that both have the same words, or letters, in any order.": (
            lambda prediction, answer: sorted(prediction.strip(" .").lower()) == sorted(answer)
        ),
        "That is the opposite.": lambda prediction, answer: not metrics.exact_match(prediction, answer),
        "Everything is right.": lambda prediction, answer: True,
        "Nothing is right.": lambda prediction, answer: False,
        "Articles are taken off, too: only case, spaces around and a full stop are.": (
            lambda prediction, answer: metrics.exact_match(
                prediction.strip().removeprefix("the ").removeprefix("a "), answer
            )
        ),
        "Capitals of the answer are told apart: turn the prediction *and* the answer into lower case.": (
            lambda prediction, answer: prediction.strip().rstrip(".").strip().lower() == answer
        ),
        "It is enough that the first words agree.": (
            lambda prediction, answer: prediction.strip(" .").lower().split()[:1] == answer.lower().split()[:1]
        ),
        "The last character is cut off whatever it is: only a full stop is.": (
            lambda prediction, answer: prediction.strip().lower()[:-1] == answer.lower()[:-1]
        ),
        "The last character of the prediction is cut off whatever it is: only a full stop is.": (
            lambda prediction, answer: prediction.strip().lower()[:-1] == answer.lower()
        ),
        "It is enough that the first letters agree.": (
            lambda prediction, answer: prediction.strip().lower()[:1] == answer[:1]
        ),
        "An s at the end is taken off, too.": (
            lambda prediction, answer: metrics.exact_match(prediction.strip(" .").removesuffix("s"), answer)
        ),
    },
    rules=(_match_rules,),
)

# --- The confidence interval ----------------------------------------------------------------------------------------


def _interval_cases() -> list[Case]:
    asked = ((0.5, 100), (0.9, 40), (1.0, 10), (0.0, 8), (0.3, 50, 2.576))
    return [
        Case(f"a share of {given[0]} among {given[1]}" + (", z = 2.576" if given[2:] else ""), given) for given in asked
    ]


def _wald(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    half = z * math.sqrt(share * (1 - share) / count)
    return max(0.0, share - half), min(1.0, share + half)


def _agresti(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    return _wald((share * count + z * z / 2) / (count + z * z), count + z * z, z)


@variants_of
def _wilson(
    *, divide_half: bool = True, divide_center: bool = True,
    center: float = 0.5, inside: float = 1.0, inside_power: int = 2, times_z: bool = True, width: float = 1.0,
    middle: Callable[[float, int, float], float] | None = None,
    root: Callable[[float, int, float], float] | None = None,
) -> Callable:  # fmt: skip
    """Wilson's interval with one term done differently."""

    def wrong(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
        down = 1 + z * z / count
        above = middle(share, count, z) if middle else share + center * z * z / count
        under = (
            root(share, count, z) if root else share * (1 - share) / count + inside * z * z / (4 * count**inside_power)
        )
        at = above / (down if divide_center else 1)
        half = (z if times_z else 1) * width * math.sqrt(under) / (down if divide_half else 1)
        return max(0.0, at - half), min(1.0, at + half)

    return wrong


def _without_the_root(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * (share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _around_the_share(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    low, high = metrics.confidence_interval(share, count, z)
    return max(0.0, share - (high - low) / 2), min(1.0, share + (high - low) / 2)


def _interval_rules(case: Case, got: Any, expected: tuple[float, float]) -> str | None:
    """Which of middle and half width is wrong, where no limit hides it."""
    if not (isinstance(got, tuple | list) and len(got) == 2 and 0 < min(*got, *expected) and max(*got, *expected) < 1):
        return None
    (middle, half), (right, wanted) = (((low + high) / 2, (high - low) / 2) for low, high in (got, expected))
    wrong = [
        f"the {name} is {ours:.4g} and should be {theirs:.4g}"
        for name, ours, theirs in (("middle of your interval", middle, right), ("half width", half, wanted))
        if abs(ours - theirs) > 1e-4
    ]
    told = " and ".join(wrong)
    return f"{told[:1].upper()}{told[1:]}: both are fractions with 1 + z*z/n below." if told else None


confidence_interval = Check(
    "confidence_interval",
    metrics.confidence_interval,
    _interval_cases,
    "Wilson's interval, also where a share is 1: ten of ten right does not make a model perfect.",
    {
        "The textbook's normal interval: for a share of 1 it has no width at all, as if ten cases proved everything. "
        "Wilson's is the one asked for.": _wald,
        "z stands in the center where z * z belongs: (p + z*z/(2n)) / (1 + z*z/n).": _wilson(
            divide_center=False, middle=lambda p, n, z: (p + z / (2 * n)) / (1 + z / n)
        ),
        "z = 1 gives 68 %, not 95: use 1.96.": lambda share, count, z=1.0: metrics.confidence_interval(share, count, z),
        "`z` is not used: another z gives the same interval.": (
            lambda share, count, z=1.96: metrics.confidence_interval(share, count)
        ),
        "The half width is not divided by 1 + z*z/n.": _wilson(divide_half=False),
        "The center is not divided by 1 + z*z/n.": _wilson(divide_center=False),
        "z*z/(2n) is missing in the center.": _wilson(center=0.0),
        "z*z/n in the center: it is z*z/(2n).": _wilson(center=1.0),
        "z*z/(4n*n) is missing under the root.": _wilson(inside=0.0),
        "z*z/(4n) under the root: it is z*z/(4 n*n).": _wilson(inside_power=1),
        "z = 1.645 gives 90 %, not 95: use the `z` that is given, 1.96.": (
            lambda share, count, z=1.96: metrics.confidence_interval(share, count, 1.645)
        ),
        "The share plus and minus z divided by the root of n: p(1-p) is missing, and Wilson's corrections.": (
            lambda share, count, z=1.96: (share - z / math.sqrt(count), share + z / math.sqrt(count))
        ),
        "The root is taken of p(1-p) alone, and Wilson's corrections are missing.": (
            lambda share, count, z=1.96: tuple(
                share + side * z * math.sqrt(share * (1 - share)) / count for side in (-1, 1)
            )
        ),
        "A bracket is missing: `/ 1 + z*z/n` divides by 1 and adds z*z/n. Divide by (1 + z*z/n).": (
            lambda share, count, z=1.96: tuple(
                share
                + z * z / (2 * count)
                + side * z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
                + z * z / count
                for side in (-1, 1)
            )
        ),
        "The root is not multiplied by z.": _wilson(times_z=False),
        "The whole width on each side: z, not 2z.": _wilson(width=2.0),
        "The half width only: z on each side, not z/2.": _wilson(width=0.5),
        "Neither the center nor the half width is divided by 1 + z*z/n.": _wilson(
            divide_half=False, divide_center=False
        ),
        "z/(2n) in the center: z is squared, z*z/(2n).": _wilson(middle=lambda p, n, z: p + z / (2 * n)),
        "z stands under the root as well: z * sqrt(p(1-p)/n + z*z/(4 n*n)).": (
            _wilson(root=lambda p, n, z: z * p * (1 - p) / n + z * z / (4 * n * n), times_z=False)
        ),
        "p stands under the root without (1-p).": _wilson(root=lambda p, n, z: p / n + z * z / (4 * n * n)),
        "z/(4 n*n) under the root: z is squared, z*z/(4 n*n).": (
            _wilson(root=lambda p, n, z: p * (1 - p) / n + z / (4 * n * n))
        ),
        "p(1-p) stands under the root without n: divide it by n.": (
            _wilson(root=lambda p, n, z: p * (1 - p) + z * z / (4 * n * n))
        ),
        "The larger one comes first: return (low, high).": (
            lambda share, count, z=1.96: metrics.confidence_interval(share, count, z)[::-1]
        ),
        "Center and half width are returned: return (low, high).": (
            lambda share, count, z=1.96: (
                (share + z * z / (2 * count)) / (1 + z * z / count),
                z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count),
            )
        ),
        "Percent are returned: shares are between 0 and 1.": (
            lambda share, count, z=1.96: tuple(100 * end for end in metrics.confidence_interval(share, count, z))
        ),
        "One number is returned: return (low, high).": (
            lambda share, count, z=1.96: metrics.confidence_interval(share, count, z)[0]
        ),
        "Agresti and Coull's interval: close to Wilson's, but its half width is another one.": _agresti,
        "The square root is missing: the width falls with the root of the count, not with the count.": (
            _without_the_root
        ),
        "The middle is not the share itself: Wilson's is pulled towards one half.": _around_the_share,
        "Half the width is returned, or one side only: return (low, high).": (
            lambda share, count, z=1.96: (share, metrics.confidence_interval(share, count, z)[1])
        ),
    },
    rules=(_interval_rules,),
    parts=("low", "high"),
    tolerance=1e-3,
)

# --- Two models on the same questions -------------------------------------------------------------------------------


def _paired_cases() -> list[Case]:
    # 41 and 201 draws: their 2.5 and 97.5 percentiles are draws, so that no way of interpolating matters
    cases = []
    for scenes, most, draws, better in ((4, 3, 41, 0.2), (12, 9, 201, 0.2), (8, 5, 81, 0.0)):
        generator = torch.Generator().manual_seed(scenes)
        counts = torch.randint(1, most + 1, (scenes,), generator=generator)
        numbers = torch.arange(scenes).repeat_interleave(counts)
        numbers = numbers[torch.randperm(len(numbers), generator=generator)]
        easy = torch.rand(scenes, generator=generator)[numbers]  # some scenes are easier, for both models
        one = torch.rand(len(numbers), generator=generator) < better + 0.7 * easy
        other = torch.rand(len(numbers), generator=generator) < 0.7 * easy
        drawn = torch.randint(scenes, (draws, scenes), generator=generator)
        told = f"{len(numbers)} questions about {scenes} scenes, drawn {draws} times"
        cases.append(Case(told, (one, other, numbers, drawn)))
    return cases


def _sums(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hits of both models, and questions, of each scene."""
    zeros = torch.zeros(drawn.shape[1], dtype=torch.float64)
    ones = torch.ones_like(scenes, dtype=torch.float64)
    return tuple(zeros.index_add(0, scenes, value.double()) for value in (one, other, ones))


def _percentiles(values: Tensor, low: float = 0.025, high: float = 0.975) -> tuple[float, float]:
    return tuple(values.quantile(torch.tensor([low, high], dtype=torch.float64)).tolist())


@variants_of
def _paired(
    differences: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = lambda a, b, n, drawn: (
        (a - b)[drawn].sum(1) / n[drawn].sum(1)
    ),
    interval: Callable[[Tensor], object] = _percentiles,
) -> Callable:
    """The paired bootstrap with one part done differently. `differences`: of the hits and questions of each scene."""

    def wrong(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> object:
        return interval(differences(*_sums(one, other, scenes, drawn), drawn))

    return wrong


def _draws_questions(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> tuple[float, float]:
    return _percentiles((one.double() - other.double())[drawn].mean(1))


def _two_intervals(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> tuple[float, float]:
    a, b, n = (value[drawn].sum(1) for value in _sums(one, other, scenes, drawn))
    (a_low, a_high), (b_low, b_high) = _percentiles(a / n), _percentiles(b / n)
    return a_low - b_high, a_high - b_low


def _ends_subtracted(one: Tensor, other: Tensor, scenes: Tensor, drawn: Tensor) -> tuple[float, float]:
    a, b, n = (value[drawn].sum(1) for value in _sums(one, other, scenes, drawn))
    return tuple(x - y for x, y in zip(_percentiles(a / n), _percentiles(b / n), strict=True))


def _middle_and_half(low: float, high: float) -> tuple[float, float]:
    return (low + high) / 2, (high - low) / 2


def _normal(values: Tensor) -> tuple[float, float]:
    middle, half = values.mean().item(), 1.96 * values.std().item()
    return middle - half, middle + half


def _normal_of_mean(values: Tensor) -> tuple[float, float]:
    middle, half = values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5
    return middle - half, middle + half


def _each_scene_once(a: Tensor, b: Tensor, n: Tensor, drawn: Tensor) -> Tensor:
    there = torch.zeros(len(drawn), len(n), dtype=torch.float64).scatter(1, drawn, 1.0)
    return (there @ (a - b)) / (there @ n)


paired_bootstrap = Check(
    "paired_bootstrap",
    metrics.paired_bootstrap,
    _paired_cases,
    "Both models are measured on the same drawn scenes, so what makes a scene easy for both cancels.",
    {
        "Questions are drawn, not scenes: `drawn` holds scenes, and a drawn scene brings all its questions.": (
            _draws_questions
        ),
        "Two intervals are subtracted, the low end of one from the high end of the other: that forgets that both "
        "models answered the same questions. Take the difference in each draw first.": _two_intervals,
        "The ends of two intervals are subtracted: take the difference in each draw first, then its percentiles.": (
            _ends_subtracted
        ),
        "The two models are measured on different draws: use the same drawn scenes for both.": _paired(
            lambda a, b, n, drawn: a[drawn].sum(1) / n[drawn].sum(1) - b[drawn.flip(0)].sum(1) / n[drawn.flip(0)].sum(1)
        ),
        "The sign is turned round: it is the first model minus the second.": _paired(
            lambda a, b, n, drawn: (b - a)[drawn].sum(1) / n[drawn].sum(1)
        ),
        "Each scene counts the same: scenes have different numbers of questions, so divide the sum of all drawn "
        "scenes by the number of their questions.": _paired(lambda a, b, n, drawn: ((a - b) / n)[drawn].mean(1)),
        "Divided by the number of all questions: divide by the number in the drawn scenes.": _paired(
            lambda a, b, n, drawn: (a - b)[drawn].sum(1) / n.sum()
        ),
        "Divided by the number of scenes: an accuracy is a share of questions.": _paired(
            lambda a, b, n, drawn: (a - b)[drawn].mean(1)
        ),
        "Sums are compared, not shares: divide by the number of questions in the drawn scenes.": _paired(
            lambda a, b, n, drawn: (a - b)[drawn].sum(1)
        ),
        "A scene that is drawn twice counts once: it must count twice.": _paired(_each_scene_once),
        "Only the first model is measured: subtract the second's accuracy.": _paired(
            lambda a, b, n, drawn: a[drawn].sum(1) / n[drawn].sum(1)
        ),
        "Only the second model is measured: subtract its accuracy from the first's.": _paired(
            lambda a, b, n, drawn: b[drawn].sum(1) / n[drawn].sum(1)
        ),
        "The two accuracies are added: subtract the second from the first.": _paired(
            lambda a, b, n, drawn: (a + b)[drawn].sum(1) / n[drawn].sum(1)
        ),
        "The signs of the scenes' differences are lost (abs): where the second model is better, it counts below 0.": (
            _paired(lambda a, b, n, drawn: (a - b).abs()[drawn].sum(1) / n[drawn].sum(1))
        ),
        "Divided by the number of draws: divide by the number of questions in the drawn scenes.": _paired(
            lambda a, b, n, drawn: (a - b)[drawn].sum(1) / len(drawn)
        ),
        "Columns of `drawn` are taken for draws: each *row* is one draw.": _paired(
            lambda a, b, n, drawn: (a - b)[drawn.T].sum(1) / n[drawn.T].sum(1)
        ),
        "Equal differences of several draws count once: every draw counts.": _paired(
            lambda a, b, n, drawn: ((a - b)[drawn].sum(1) / n[drawn].sum(1)).unique()
        ),
        "A normal interval of the questions' differences: asked for are percentiles of the drawn scenes.": (
            lambda one, other, scenes, drawn: _normal_of_mean(one.double() - other.double())
        ),
        "The 5 and 95 percentiles hold 90 %: use 2.5 and 97.5.": _paired(
            interval=lambda values: _percentiles(values, 0.05, 0.95)
        ),
        "The smallest and the largest difference are returned: use the 2.5 and 97.5 percentiles.": _paired(
            interval=lambda values: _percentiles(values, 0.0, 1.0)
        ),
        "The quartiles are returned, which hold 50 %: use the 2.5 and 97.5 percentiles.": _paired(
            interval=lambda values: _percentiles(values, 0.25, 0.75)
        ),
        "The mean and 1.96 standard deviations: asked for are the 2.5 and 97.5 percentiles of the draws.": _paired(
            interval=_normal
        ),
        "The lower end is the 5 percentile: it is the 2.5 percentile, so that both sides leave out as much.": _paired(
            interval=lambda values: _percentiles(values, 0.05, 0.975)
        ),
        "The upper end is the 95 percentile: it is the 97.5 percentile, so that both sides leave out as much.": _paired(
            interval=lambda values: _percentiles(values, 0.025, 0.95)
        ),
        "The middle of the interval and half its width are returned: return (low, high).": _paired(
            interval=lambda values: _middle_and_half(*_percentiles(values))
        ),
        "A question that either model answers counts as a hit: subtract one model's hits from the other's.": (
            lambda one, other, scenes, drawn: _paired(lambda a, b, n, d: a[d].sum(1) / n[d].sum(1))(
                one | other, other, scenes, drawn
            )
        ),
        "The signs of the questions' differences are lost (abs): a question that only the second model answers counts "
        "below 0.": (
            lambda one, other, scenes, drawn: _paired(lambda a, b, n, d: a[d].sum(1) / n[d].sum(1))(
                one ^ other, other, scenes, drawn
            )
        ),
        "The larger one comes first: return (low, high).": _paired(interval=lambda values: _percentiles(values)[::-1]),
        "Percent are returned: a difference of shares is between -1 and 1.": _paired(
            interval=lambda values: _percentiles(100 * values)
        ),
        "One number is returned, the mean of the draws: return (low, high).": _paired(
            interval=lambda values: values.mean().item()
        ),
        "All draws are returned: return their 2.5 and 97.5 percentiles (low, high).": _paired(
            interval=lambda values: values
        ),
    },
    parts=("low", "high"),
)
