"""The checks of notebook 15 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from blip2_lab.evaluation.metrics import exact_match
from blip2_lab.teaching.checks.failures import sort_errors, sum_words
from blip2_lab.teaching.checks.in_context import interleave, share_copied
from tests.teaching.checks.verdicts import variant_tests

# --- Right ----------------------------------------------------------------------------------------------------------


def flat(sample):
    return torch.cat([torch.cat(shot) for shot in sample])


def by_pad_sequence(samples):
    rows = [flat(sample) for sample in samples]
    mask = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), mask.bool()


def into_zeros(samples):
    rows = [flat(sample) for sample in samples]
    out = torch.zeros(len(rows), max(map(len, rows)), rows[0].shape[1])
    mask = torch.zeros(out.shape[:2], dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)], mask[i, : len(row)] = row, 1
    return out, mask


def padded_with_the_last(samples):
    """What stands at padding does not matter: the mask hides it."""
    rows = [flat(sample) for sample in samples]
    length = max(map(len, rows))
    filled = [torch.cat([row, row[-1:].expand(length - len(row), -1)]) for row in rows]
    return [torch.stack(filled), torch.arange(length) < torch.tensor([[len(row)] for row in rows])]


def counting_places(samples):
    lengths = [sum(v.shape[0] + t.shape[0] for v, t in sample) for sample in samples]
    rows = []
    for sample, size in zip(samples, lengths, strict=True):
        row = sample[0][0][:0]
        for visual, text in sample:
            row = torch.vstack([row, visual, text])
        rows.append(torch.nn.functional.pad(row, (0, 0, 0, max(lengths) - size)))
    return torch.stack(rows), torch.tensor([[1.0] * n + [0.0] * (max(lengths) - n) for n in lengths])


def counted(answers, truths, examples):
    wrong = copies = 0
    for answer, truth, given in zip(answers, truths, examples, strict=True):
        if exact_match(answer, truth):
            continue
        wrong += 1
        copies += int(answer.strip().rstrip(".").lower() in [e.lower() for e in given])
    return copies / wrong if wrong else 0


def by_numpy(answers, truths, examples):
    wrong = np.array([not exact_match(a, t) for a, t in zip(answers, truths, strict=True)])
    copies = np.array(
        [bool({e.lower() for e in g} & {a.lower().strip(". ")}) for a, g in zip(answers, examples, strict=True)]
    )
    return float(copies[wrong].mean()) if wrong.any() else 0.0


def by_index_add(rows, embedding, size):
    places = torch.tensor([i for i, row in enumerate(rows) for _ in row])
    words = embedding[torch.tensor([token for row in rows for token in row])]
    counts = torch.bincount(places, minlength=size).clamp(min=1)
    return torch.zeros(size, embedding.shape[1]).index_add(0, places, words) / counts.sqrt()[:, None]


def by_one_hot(rows, embedding, size):
    weights = torch.zeros(size, len(embedding))
    for i, row in enumerate(rows):
        for token in row:
            weights[i, token] += len(row) ** -0.5
    return weights @ embedding


def by_loops(right, links):
    causes = []
    for n in range(right.shape[1]):
        cause = None
        if not right[-1, n]:
            for link, ok in zip(links, right[:, n], strict=True):
                if not ok:
                    cause = link
                    break
        causes.append(cause)
    return causes


RIGHT = [
    *(("interleave_pictures", f) for f in (by_pad_sequence, into_zeros, padded_with_the_last, counting_places)),
    ("interleave_pictures", lambda samples: interleave([*map(list, samples)])),
    ("interleave_pictures", lambda samples: (lambda rows: (
        torch.nested.to_padded_tensor(torch.nested.as_nested_tensor(rows), 0.0),
        torch.nested.to_padded_tensor(torch.nested.as_nested_tensor([r[:, 0].detach() * 0 + 1 for r in rows]), 0.0) > 0
    ))([flat(s) for s in samples])),
    ("copied_answers", counted), ("copied_answers", by_numpy),
    ("copied_answers", lambda a, t, e: (lambda w: sum(
        any(exact_match(x, y) for y in g) for x, g in w) / max(1, len(w)))(
        [(x, g) for x, y, g in zip(a, t, e, strict=True) if not exact_match(x, y)])),
    ("copied_answers", lambda a, t, e: torch.tensor(share_copied(a, t, e))),
    ("copied_answers", lambda a, t, e: np.float64(counted(a, t, e))),
    ("copied_answers", lambda a, t, e: (lambda copies, wrong: copies / wrong if wrong else 0.0)(
        sum(not exact_match(x, y) and any(map(lambda one: exact_match(x, one), g))
            for x, y, g in zip(a, t, e, strict=True)),
        sum(not exact_match(x, y) for x, y in zip(a, t, strict=True)))),
    ("word_sums", by_index_add), ("word_sums", by_one_hot),
    ("word_sums", lambda rows, e, size: torch.stack(
        [sum(e[t] for t in row) / len(row) ** 0.5 for row in rows] + [e[0] * 0] * (size - len(rows)))),
    ("word_sums", lambda rows, e, size: torch.nn.functional.pad(torch.stack(
        [e[row].mean(0) * math.sqrt(len(row)) for row in rows]), (0, 0, 0, size - len(rows)))),
    ("word_sums", lambda rows, e, size: torch.cat([sum_words([row], e, 1) for row in rows]
                                                  + [torch.zeros(size - len(rows), e.shape[1])])),
    ("word_sums", lambda rows, e, size: torch.vstack([torch.einsum(
        "td->d", e.index_select(0, torch.tensor(row))) * torch.tensor(len(row)).rsqrt() for row in rows]
        + [torch.zeros(e.shape[1])] * (size - len(rows)))),
    ("first_broken_link", by_loops),
    ("first_broken_link", lambda right, links: [
        None if c[-1] else links[c.index(False)] for c in right.T.tolist()]),
    ("first_broken_link", lambda right, links: tuple(
        None if right[-1, n] else links[int(right[:, n].long().argmin())] for n in range(right.shape[1]))),
    ("first_broken_link", lambda right, links: [None if all(c[-1:]) else links[i] for c, i in zip(
        right.T.tolist(), (~right).long().argmax(0).tolist(), strict=True)]),
    ("first_broken_link", lambda right, links: np.where(
        right[-1].numpy(), None, np.array(links, dtype=object)[np.argmax(~right.numpy(), axis=0)])),
    ("first_broken_link", lambda right, links: [
        None if c[-1] else min((i, x) for i, (x, ok) in enumerate(zip(links, c, strict=True)) if not ok)[1]
        for c in zip(*right.tolist(), strict=True)]),
]  # fmt: skip

# --- Wrong ----------------------------------------------------------------------------------------------------------


def overwrites(samples):
    found = interleave(samples)
    for sample in samples:
        for visual, _ in sample:
            visual += 1
    return found


#: name of the check, answer, and a word that its message must have
WRONG = [
    ("interleave_pictures", lambda s: by_pad_sequence([[*zip((v for v, _ in x), (t for _, t in x[::-1]), strict=True)]
                                                       for x in s]), "swapped"),
    ("interleave_pictures", lambda s: by_pad_sequence([[(t, v) for v, t in x] for x in s]), "in front of their"),
    ("interleave_pictures", lambda s: by_pad_sequence([x[-1:] for x in s]), "left out"),
    ("interleave_pictures", lambda s: (interleave(s)[0], torch.ones(interleave(s)[0].shape[:2])), "not hidden"),
    ("interleave_pictures", lambda s: tuple(x.detach() for x in interleave(s)), "no gradient"),
    ("interleave_pictures", lambda s: interleave([[(v.detach(), t) for v, t in x[:-1]] + [x[-1]] for x in s]),
     "gradient"),
    ("interleave_pictures", lambda s: interleave(s)[0], "2 things"),
    ("interleave_pictures", overwrites, "in place"),
    ("interleave_pictures", lambda s: interleave(s)[::-1], "shape"),
    ("interleave_pictures", lambda s: (interleave(s)[0], interleave(s)[1][:, None]), "shape"),
    ("copied_answers", lambda a, t, e: sum(x in g for x, g in zip(a, e, strict=True)) / len(a), "Right answers"),
    ("copied_answers", lambda a, t, e: (lambda w: sum(w) / len(w))(
        [any(exact_match(x, y) for y in g) for x, z, g in zip(a, t, e, strict=True) if not exact_match(x, z)]),
     "ZeroDivisionError"),
    ("copied_answers", lambda a, t, e: (lambda w: sum(w) / len(w) if w else math.nan)(
        [any(exact_match(x, y) for y in g) for x, z, g in zip(a, t, e, strict=True) if not exact_match(x, z)]),
     "not a number"),
    ("copied_answers", lambda a, t, e: share_copied(a, t, e) > 0.5, "rounded"),
    ("copied_answers", lambda a, t, e: share_copied(t, a, e), "whether the truth"),
    ("copied_answers", lambda a, t, e: share_copied(a, t, [[x] for x in a]), "should be"),
    ("copied_answers", lambda a, t, e: share_copied(a, t, e[::-1]), "should be"),
    ("copied_answers", lambda a, t, e: share_copied(a, ["?"] * len(a), e), "Right answers are counted"),
    ("word_sums", lambda r, e, n: torch.stack([e[x].sum(0) for x in r] + [e[0] * 0] * (n - len(r))), "not divided"),
    ("word_sums", lambda r, e, n: torch.stack([e[x].mean(0) for x in r] + [e[0] * 0] * (n - len(r))), "mean"),
    ("word_sums", lambda r, e, n: sum_words(r, e.detach(), n), "no gradient"),
    ("word_sums", lambda r, e, n: sum_words(r, e, n)[: len(r)], "zeros are missing"),
    ("word_sums", lambda r, e, n: sum_words(r, e, n + 1), "vectors and should be"),
    ("word_sums", lambda r, e, n: sum_words(r[::-1], e, n), "`rows` in reverse order"),
    ("word_sums", lambda r, e, n: sum_words(r, e, n).T, "transposed"),
    ("word_sums", lambda r, e, n: sum_words(r, e, n) + 0.1, "too large"),
    ("word_sums", lambda r, e, n: sum_words(r, e, n).tolist(), "tensor"),
    ("first_broken_link", lambda right, links: sort_errors(right.flip(0), links[::-1]), "Question"),
    ("first_broken_link", lambda right, links: sort_errors(right, links[::-1]), "Question"),
    ("first_broken_link", lambda right, links: sort_errors(~right, links), "Question"),
    ("first_broken_link", lambda right, links: [c is not None for c in sort_errors(right, links)], "Question"),
    ("first_broken_link", lambda right, links: sort_errors(right, links)[0], "returns nothing"),
    ("first_broken_link", lambda right, links: sort_errors(right, links)[1:], "without its first"),
    ("first_broken_link", lambda right, links: [links[0]] * right.shape[1], "Question"),
    ("first_broken_link", lambda right, links: [
        None if all(c) else links[c.index(False)] for c in right.T.tolist()], "have none"),
    ("first_broken_link", lambda right, links: sort_errors(right.T, links), "Error"),
]  # fmt: skip


test_a_right_answer_passes_in_any_style, test_a_wrong_answer_fails_and_is_told_why, test_there_are_enough_of_both = (
    variant_tests(("interleave_pictures", "copied_answers", "word_sums", "first_broken_link"), RIGHT, WRONG)
)
