"""The checks of notebook 14 on answers as students write them; test_check.py goes through their known mistakes."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import torch

from blip2_lab.evaluation.metrics import hits_at
from blip2_lab.models.masks import bidirectional_mask, multimodal_causal_mask, unimodal_mask
from blip2_lab.teaching.checks.fine_tuning import query_outputs_for
from blip2_lab.teaching.checks.held_out import choose_step, hold_out
from tests.teaching.checks.verdicts import variant_tests

# --- Right ----------------------------------------------------------------------------------------------------------


def by_groups(files, count, seed):
    rows = defaultdict(list)
    for i, name in enumerate(files):
        rows[name].append(i)
    names = list(rows)
    random.Random(seed).shuffle(names)
    test = sorted(i for name in names[:count] for i in rows[name])
    return sorted(set(range(len(files))) - set(test)), test


def by_torch(files, count, seed):
    names = sorted(set(files))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    held = torch.tensor([names.index(f) in order[:count].tolist() for f in files])
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def by_numpy(files, count, seed):
    names, which = np.unique(files, return_inverse=True)
    held = np.isin(which, np.random.default_rng(seed).permutation(len(names))[:count])
    return [np.flatnonzero(~held), np.flatnonzero(held)]


def by_popping(files, count, seed):
    rng, names, held = random.Random(f"album {seed}"), list(dict.fromkeys(files)), set()
    while len(held) < count:
        held.add(names.pop(rng.randrange(len(names))))
    return [i for i, f in enumerate(files) if f not in held], tuple(i for i, f in enumerate(files) if f in held)


def by_global_state(files, count, seed):
    random.seed(seed)
    held = random.sample(sorted({*files}), k=count)
    test = [i for i in range(len(files)) if files[i] in held]
    return [i for i in range(len(files)) if i not in test], test


def by_sets(files, count, seed):
    train, test = hold_out(files, count, seed + 100)
    return set(train), set(test)


def loop_step(held_out, tolerance=1.03):
    best_step, best = None, float("inf")
    for step, loss in held_out:
        if loss < best:
            best_step, best = step, loss
    return best_step, loss > best * tolerance


def with_mask(make):
    def answer(qformer, features, ids, mask):
        out = qformer(image=qformer.read_image(features), input_ids=ids, mask=make(qformer, mask), text_mask=mask)
        return out.query_output

    return answer


def mask_by_hand(qformer, mask):
    columns = torch.cat([torch.ones(len(mask), qformer.config.num_query_tokens, dtype=torch.bool), mask], dim=1)
    return columns[:, None, None, :].expand(-1, 1, columns.shape[1], -1)


def one_by_one(qformer, features, ids, mask):
    rows = []
    for i in range(len(ids)):
        short = ids[i : i + 1, : int(mask[i].sum())]
        rows.append(qformer(image=qformer.read_image(features[i : i + 1]), input_ids=short).query_output)
    return torch.cat(rows)


def cut_from_all(qformer, features, ids, mask):
    queries = qformer.config.num_query_tokens
    out = qformer(image=qformer.read_image(features), input_ids=ids, mask=bidirectional_mask(queries, mask))
    return torch.cat([out.query_output, out.text_output], 1)[:, :queries]


def hits_by_sorting(scores, right, k):
    found = []
    for row, own in zip(scores.tolist(), right.tolist(), strict=True):
        # at equal scores a wrong column comes first
        order = sorted(range(len(row)), key=lambda c: (-row[c], own[c]))  # noqa: B023
        found.append(any(own[c] for c in order[:k]))
    return torch.tensor(found)


def hits_by_rank(scores, right, k):
    best = torch.where(right, scores, torch.tensor(-1e9)).max(dim=1).values
    wrong_above = [(row[~own] >= b).sum().item() for row, own, b in zip(scores, right, best, strict=True)]
    return torch.tensor(wrong_above) < k


RIGHT = [
    *(("hold_out_pictures", f) for f in (by_groups, by_torch, by_numpy, by_popping, by_global_state, by_sets)),
    ("best_step", loop_step),
    ("best_step", lambda run, tolerance=1.03: (
        min(run, key=lambda r: r[1])[0], run[-1][1] > tolerance * min(r[1] for r in run))),
    ("best_step", lambda run, t=1.03: [(sorted(run, key=lambda r: (r[1], r[0])))[0][0],
                                       run[-1][1] / min(loss for _, loss in run) > t]),
    ("best_step", lambda run, t=1.03: (lambda s, x: (s[x.argmin()], bool(x[-1] > t * x.min())))(
        [r[0] for r in run], np.array([r[1] for r in run]))),
    ("best_step", lambda run, t=1.03: (lambda x: (torch.tensor([r[0] for r in run])[x == x.min()][0],
                                                  x[-1] > t * x.min()))(torch.tensor([r[1] for r in run]))),
    ("best_step", lambda run, t=1.03: (dict((loss, step) for step, loss in reversed(run))[min(x for _, x in run)],
                                       not run[-1][1] <= t * min(x for _, x in run))),
    *(("condition_on_question", f) for f in (one_by_one, cut_from_all, with_mask(mask_by_hand))),
    ("condition_on_question", with_mask(lambda q, m: bidirectional_mask(q.config.num_query_tokens, m))),
    ("condition_on_question", with_mask(lambda q, m: bidirectional_mask(q.query_tokens.shape[-2], m.long()))),
    ("condition_on_question", lambda q, x, ids, mask: q(
        image=q.read_image(x), input_ids=ids, mask=bidirectional_mask(3, mask), rows=3).query_output),
    ("condition_on_question", lambda q, x, ids, mask: q(
        image=q.read_image(x), input_ids=ids.masked_fill(~mask, 5), mask=mask_by_hand(q, mask)).query_output),
    *(("recall_hits", f) for f in (hits_by_sorting, hits_by_rank)),
    ("recall_hits", lambda s, r, k: ((s[:, None, :] >= s[:, :, None]) & ~r[:, None, :]).sum(2).masked_fill(
        ~r, 10**6).min(1).values < k),
    ("recall_hits", lambda s, r, k: torch.stack([hits_at(s[i:i + 1], r[i:i + 1], k)[0] for i in range(len(s))])),
    ("recall_hits", lambda s, r, k: (s - 1e-6 * r.float()).argsort(1, descending=True)[:, :k].tolist() and torch.tensor(
        [any(r[i, c] for c in row[:k]) for i, row in enumerate(
            (s.double() - 1e-9 * r).argsort(1, descending=True).tolist())])),
    ("recall_hits", lambda s, r, k: (lambda o: r.gather(1, o)[:, :k].any(1))(
        (s.double() - 1e-9 * r.double()).sort(1, descending=True).indices)),
]  # fmt: skip

# --- Wrong ----------------------------------------------------------------------------------------------------------


def rows_at_random(files, count, seed):
    rng = random.Random(seed)
    test = [i for i in range(len(files)) if rng.random() < count / len(set(files))]
    return [i for i in range(len(files)) if i not in test], test


def ends_of_the_table(files, count, seed):
    rows = list(range(len(files)))
    return rows[:-count], rows[-count:]


def unseeded(files, count, seed):
    return hold_out(files, count, random.SystemRandom().randrange(10**9))


def without_repeats(files, count, seed):
    first = {name: i for i, name in reversed([*enumerate(files)])}
    names = random.Random(seed).sample(sorted(first), count)
    return [first[n] for n in first if n not in names], [first[n] for n in names]


def sorts_its_input(files, count, seed):
    files.sort()
    return hold_out(files, count, seed)


def three_neighborhoods(files, count, seed):
    names = sorted(set(files))[seed % 3 :][:count]
    test = [i for i in range(len(files)) if files[i] in names]
    return [i for i in range(len(files)) if i not in test], test


#: name of the check, answer, and a word that its message must have
WRONG = [
    ("hold_out_pictures", sorts_its_input, "in place"), ("hold_out_pictures", three_neighborhoods, "few different"),
    ("hold_out_pictures", lambda f, n, s: (hold_out(f, n, s), f.clear())[0], "in place"),
    ("condition_on_question", lambda q, x, ids, mask: query_outputs_for(q, x.detach(), ids, mask), "image features"),
    ("hold_out_pictures", rows_at_random, "both sides"), ("hold_out_pictures", ends_of_the_table, "both sides"),
    ("hold_out_pictures", unseeded, "same seed"), ("hold_out_pictures", without_repeats, "one row only"),
    ("hold_out_pictures", lambda f, n, s: hold_out(f, n + 2, s), "count"),
    ("hold_out_pictures", lambda f, n, s: hold_out(f, n, s)[1], "two lists"),
    ("hold_out_pictures", lambda f, n, s: (hold_out(f, n, s)[0] * 2, hold_out(f, n, s)[1]), "twice"),
    ("hold_out_pictures", lambda f, n, s: (hold_out(f, n, s)[0], [-1]), "counted from"),
    ("hold_out_pictures", lambda f, n, s: (hold_out(f, n, s)[1], hold_out(f, n, s)[0]), "exchanged"),
    ("hold_out_pictures", lambda f, n, s: hold_out(f, n, len(f)), "seed"),
    ("best_step", lambda run, t=1.03: (run[-1][0], False), "lowest loss"),
    ("best_step", lambda run, t=1.03: (max(run)[0], run[-1][1] > t * min(run)[1]), "step"),
    ("best_step", lambda run, t=1.03: (float(choose_step(run, t)[0]), choose_step(run, t)[1]), "whole number"),
    ("best_step", lambda run, t=1.03: choose_step(run, t)[::-1], "Exchanged"),
    ("best_step", lambda run, t=1.03: (choose_step(run)[0], run[-1][1] - min(x for _, x in run)), "True or False"),
    ("best_step", lambda run, t=1.03: (choose_step(run)[0], run[-1][1] < t * min(x for _, x in run)), "< tolerance"),
    ("best_step", lambda run, t=1.03: (choose_step(run)[0], run[-1][1] > t), "`tolerance` itself"),
    ("best_step", lambda run, t=1.03: (min(run)[0], choose_step(run, t)[1]), "lowest loss"),
    ("best_step", lambda run, t=1.03: run.append(run[-1]) or choose_step(run[:-1], t), "in place"),
    ("condition_on_question", with_mask(lambda q, m: unimodal_mask(3, m)), "do not read the question"),
    ("condition_on_question", with_mask(lambda q, m: multimodal_causal_mask(3, m)), "do not read the question"),
    ("condition_on_question", lambda q, x, ids, mask: q(
        image=q.read_image(x), input_ids=ids, mask=torch.ones(1, 1, 3 + ids.shape[1], 3 + ids.shape[1]).bool()
    ).query_output, "Padding is read"),
    ("condition_on_question", lambda q, x, ids, mask: query_outputs_for(q, x, ids, mask).detach(), "no gradient"),
    ("condition_on_question", lambda q, x, ids, mask: query_outputs_for(q, x.detach(), ids, mask).sum(-1), "sum of"),
    ("condition_on_question", lambda q, x, ids, mask: query_outputs_for(q, x, ids.flip(1), mask.flip(1)),
     "`mask` in place of `mask.flip(1)`"),
    ("condition_on_question", lambda q, x, ids, mask: q(
        queries=False, input_ids=ids, mask=unimodal_mask(0, mask)).text_output, "shape"),
    ("condition_on_question", lambda q, x, ids, mask: q(
        image=q.read_image(x.mean(1, keepdim=True)), input_ids=ids,
        mask=bidirectional_mask(3, mask)).query_output, "`x` in place of `x.mean"),
    ("condition_on_question", lambda q, x, ids, mask: q(
        input_ids=ids, mask=bidirectional_mask(3, mask)).query_output, "ValueError"),
    ("recall_hits", lambda s, r, k: r.gather(1, s.argmax(1, keepdim=True))[:, 0], "very best"),
    ("recall_hits", lambda s, r, k: torch.tensor([bool(r[i, i]) for i in range(len(s))]), "Row"),
    ("recall_hits", lambda s, r, k: r.gather(1, s.topk(k).indices), "shape"),
    ("recall_hits", lambda s, r, k: r.gather(1, s.topk(k).indices).all(1), "Each of the best"),
    ("recall_hits", lambda s, r, k: r.gather(1, s.topk(k, largest=False).indices).any(1), "lowest"),
    ("recall_hits", lambda s, r, k: hits_at(s, r, k).long(), "dtype"),
    ("recall_hits", lambda s, r, k: (s * r).max(1).values >= s.topk(k).values[:, -1], "tie"),
    ("recall_hits", lambda s, r, k: r.gather(1, s.topk(k).indices).any(1), "tie"),
    ("recall_hits", lambda s, r, k: torch.tensor([bool(r[i][o[:k]].any()) for i, o in enumerate(
        s.argsort(1, descending=True, stable=True))]), "tie"),
    ("recall_hits", lambda s, r, k: hits_at(s, ~r, k), "Row"),
    ("recall_hits", lambda s, r, k: hits_at(s, r, k).any(), "number"),
]  # fmt: skip


test_a_right_answer_passes_in_any_style, test_a_wrong_answer_fails_and_is_told_why, test_there_are_enough_of_both = (
    variant_tests(("hold_out_pictures", "best_step", "condition_on_question", "recall_hits"), RIGHT, WRONG)
)
