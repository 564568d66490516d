"""Answers as students write them: right ones in unusual styles pass, wrong ones fail and are told their mistake.

None of them is a check's own known mistake; those are tested in test_check.py.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blip2_lab.models.language_model import Text
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.teaching import checks
from blip2_lab.teaching.checks.verdicts import BROKEN, FAILED
from tests.teaching.checks.verdicts import assert_fails, assert_passes

S = {name: check.solution for name, check in vars(checks).items() if hasattr(check, "solution")}


def loop_similarity(image, text):
    return torch.stack([torch.stack([(queries @ t).max() for t in text]) for queries in image])


def log_sum_loss(image, text, t):
    s = loop_similarity(image, text) / t
    rows = (s.logsumexp(1) - s.diagonal()).mean()
    columns = (s.logsumexp(0) - s.diagonal()).mean()
    return 0.5 * rows + 0.5 * columns


def drawn_by_cumulative_sum(similarity, positives, generator=None):
    s = similarity.detach().clone()
    s[positives] = -math.inf
    totals = s.softmax(1).cumsum(1)
    return torch.searchsorted(totals, torch.rand(len(s), 1, generator=generator) * totals[:, -1:])[:, 0].clamp(
        max=s.shape[1] - 1
    )


def with_labels(language_model, visual_prompt, prompt, answer):
    embeds, mask = language_model.prepend(visual_prompt, prompt)
    labels = answer.ids.masked_fill(~answer.mask, IGNORE_INDEX)
    return language_model.model(inputs_embeds=embeds, attention_mask=mask, labels=labels)["logits"]


def shifted_by_the_model(language_model, visual_prompt, prompt, answer):
    embeds, mask = language_model.prepend(visual_prompt, prompt)
    return language_model.model(
        inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=language_model.model._shift_right(answer.ids),
        decoder_attention_mask=answer.mask.long(),
    ).logits  # fmt: skip


def by_numpy(rows, pad_token_id, *, left=False):
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        start = width - len(row) if left else 0
        ids[i, start : start + len(row)], mask[i, start : start + len(row)] = row, True
    return Text(torch.from_numpy(ids), torch.from_numpy(mask))


def picky_nucleus(logits, temperature=1.0, top_p=1.0):
    p = torch.softmax(logits / temperature, 0)
    kept, total = torch.zeros_like(p), 0.0
    for token in sorted(range(len(p)), key=lambda i: -float(p[i])):
        kept[token] = p[token]
        total += float(p[token])
        if total >= top_p:
            break
    return kept / kept.sum()


def clamped_scale(x):
    scale = x.abs().max(1, keepdim=True)[0].clamp(min=1e-8) / 127
    return torch.round(x / scale).char(), scale


def paired_by_lists(one, other, scenes, drawn):
    """Question by question, as lists, with the percentiles by sorting."""
    of_scene = {}
    for s, a, b in zip(scenes.tolist(), one.tolist(), other.tolist(), strict=True):
        of_scene.setdefault(s, []).append(a - b)
    draws = [[gain for s in row for gain in of_scene[s]] for row in drawn.tolist()]
    found = sorted(sum(gains) / len(gains) for gains in draws)
    return found[int(0.025 * len(found))], found[int(0.975 * len(found))]


def embeds_with(bias):
    """Queries and text in front of the first layer, with this in place of the LayerNorm's bias."""

    def answer(qformer, ids):
        norm, table = qformer.embedding_layer_norm, qformer.position_embeddings.weight
        text = qformer.word_embeddings(ids) + table[: ids.shape[1]]
        both = torch.cat([qformer.query_tokens.expand(len(ids), -1, -1), text], 1)
        return F.layer_norm(both, both.shape[-1:], norm.weight, bias(norm), norm.eps)

    return answer


RIGHT = [
    ("embed", embeds_with(lambda norm: norm.bias)),
    ("exact_match", lambda p, a: p.strip().lower().rstrip(" .") == a.lower()),
    ("num_features", lambda s, p: 1 + (s // p) * (s // p)), ("num_features", lambda s, p: np.int64((s // p) ** 2 + 1)),
    ("second_to_last", lambda h: h[len(h) - 2].clone()), ("second_to_last", lambda h: h[:-1][-1]),
    ("attention_weights", lambda q, k, m=None: torch.where(
        torch.ones(len(q), len(k)).bool() if m is None else m, q @ k.mT / q.shape[1] ** 0.5, -torch.inf).softmax(1)),
    ("attention_weights", lambda q, k, m=None: F.softmax(
        (q @ k.T).div(math.sqrt(k.size(-1))) + (0 if m is None else (~m) * -1e9), dim=1)),
    ("cross_attention_head", lambda x, i, q, k, v: F.scaled_dot_product_attention(x @ q, i @ k, i @ v)),
    ("split_heads", lambda x, h: x.reshape(*x.shape[:2], h, -1).permute(0, 2, 1, 3)),
    ("cross_attention_layers", lambda n, f: range(0, n, f)),
    ("cross_attention_layers", lambda n, f: tuple(range(0, n, f))),
    ("itc_similarity", loop_similarity),
    ("itc_similarity", lambda i, t: F.cosine_similarity(i[:, :, None], t[None, None], dim=-1).amax(1)),
    ("contrastive_loss", log_sum_loss),
    ("negative_weights", lambda s, p: F.normalize(s.detach().double().exp().masked_fill(p, 0), p=1, dim=1)),
    ("negative_weights", lambda s, p: s.data.masked_fill(p, -torch.inf).softmax(-1)),
    ("sample_negatives", drawn_by_cumulative_sum),
    ("itm_pairs", lambda i, t: [torch.cat(x) for x in (
        (torch.arange(len(i)), i, torch.arange(len(i))), (torch.arange(len(i)), torch.arange(len(i)), t),
        (torch.ones(len(i)).long(), torch.zeros(2 * len(i)).long()))]),
    ("itm_logits", lambda head, z: torch.stack([head(q) for q in z.unbind(1)]).mean(0)),
    ("next_word_loss", lambda x, y:
        -x.log_softmax(-1)[y != -100][torch.arange((y != -100).sum()), y[y != -100]].mean()),
    ("learning_rate", lambda o, s: o.lr * (s + 1) / o.warmup_steps if s < o.warmup_steps
        else o.min_lr + (o.lr - o.min_lr)
        * math.cos(math.pi / 2 * (s - o.warmup_steps) / (o.steps - o.warmup_steps)) ** 2),
    ("exact_match", lambda p, a: p.strip().removesuffix(".").strip().casefold() == a.casefold()),
    ("confidence_interval", lambda p, n, z=1.96: np.clip(
        (p + z * z / 2 / n + np.array([-1, 1]) * z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n))
        / (1 + z * z / n), 0, 1)),
    ("paired_bootstrap", paired_by_lists),
    ("paired_bootstrap", lambda a, b, s, d: np.percentile(
        [sum((a[s == i].float() - b[s == i].float()).sum() for i in row) / sum((s == i).sum() for i in row)
         for row in d], [2.5, 97.5])),
    ("pointing_game", lambda h, b: bool(
        b[0] <= (int(h.argmax()) % h.shape[1] + 0.5) / h.shape[1] <= b[2]
        and b[1] <= (int(h.argmax()) // h.shape[1] + 0.5) / h.shape[0] <= b[3])),
    ("mass_inside", lambda h, m: (lambda big: (big * m).sum() / big.sum())(
        F.interpolate(h.relu()[None, None], size=m.shape)[0, 0])),
    ("rank_correlation", lambda a, b: np.corrcoef(*(np.argsort(np.argsort(x.numpy().ravel())) for x in (a, b)))[0, 1]),
    ("prepend", lambda lm, v, t: (torch.cat((v, lm.model.get_input_embeddings()(t.ids)), 1),
                                  torch.cat((torch.ones(v.shape[:2]).bool(), t.mask), 1))),
    ("pad", by_numpy),
    ("encoder_decoder_answer_logits", shifted_by_the_model), ("encoder_decoder_answer_logits", with_labels),
    ("answer_loss", lambda lm, v, p, a: (F.cross_entropy(
        lm.answer_logits(v, p, a).mT, a.ids, reduction="none") * a.mask).sum() / a.mask.sum()),
    ("split_caption", lambda c, generator=None: (lambda w, k: [" ".join(w[:k]), " ".join(w[k:])])(
        c.split(), int(torch.randperm(len(c.split()), generator=generator)[0]))),
    ("nucleus", picky_nucleus),
    ("penalize_repetition", lambda x, seen, p: torch.stack([
        v if i not in seen else v / p if v > 0 else v * p for i, v in enumerate(x)])),
    ("best_continuations", lambda s, lp, n: sorted(
        ([s[b] + lp[b, t], b, t] for b in range(len(s)) for t in range(lp.shape[1])), key=lambda w: -w[0])[:n]),
    ("final_score", lambda s, n, p: s * n ** (-p)),
    ("absmax_quantize", clamped_scale),
    ("int8_linear", lambda x, w: (lambda a, b: (a[0].float() @ b[0].float().T) * (a[1] * b[1].T))(
        S["absmax_quantize"](x), S["absmax_quantize"](w))),
]  # fmt: skip


def detached(name):
    def answer(*args, **options):
        with torch.no_grad():
            return S[name](*args, **options)

    return answer


def overwrites(similarity, positives):
    s = similarity.detach()
    s[positives] = -1e4
    return s.softmax(1)


def divides_in_place(queries, keys, mask=None):
    queries /= queries.shape[1] ** 0.5
    scores = queries @ keys.T
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1)


def own_generator(similarity, positives, generator=None):
    weights = S["negative_weights"](similarity, positives).numpy().astype(float)
    rng = np.random.default_rng(0)
    return torch.tensor([rng.choice(len(w), p=w / w.sum()) for w in weights])


def warm(similarity, positives, generator=None):
    weights = (similarity.detach() / 1.3).masked_fill(positives, -1e4).softmax(1)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def draws(weights, generator):
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def seeds_everything(similarity, positives, generator=None):
    torch.manual_seed(0)
    return draws(S["negative_weights"](similarity, positives), generator)


def draws_from_a_copy(similarity, positives, generator=None):
    copy = torch.Generator().manual_seed(generator.initial_seed() if generator else 0)
    return draws(S["negative_weights"](similarity, positives), copy)


def winds_back(similarity, positives, generator=None):
    if generator is not None:
        generator.manual_seed(generator.initial_seed())
    return draws(S["negative_weights"](similarity, positives), generator)


def always_a_generator(similarity, positives, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    return draws(S["negative_weights"](similarity, positives), generator)


def cut_at(caption, place):
    words = caption.split()
    return " ".join(words[:place]), " ".join(words[place:])


def cuts_after_seeding(caption, generator=None):
    torch.manual_seed(0)
    return cut_at(caption, int(torch.randint(len(caption.split()), (), generator=generator)))


def cuts_with_a_generator_of_its_own(caption, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    return cut_at(caption, int(torch.randint(len(caption.split()), (), generator=generator)))


def turns_the_mask_round(queries, keys, mask=None):
    if mask is not None:
        mask ^= True
    return S["attention_weights"](queries, keys, None if mask is None else ~mask)


def patch_at_its_share_of_the_way(heat, box):
    """The first patch at 0, the last at 1."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    y, x = row / (heat.shape[0] - 1), column / (heat.shape[1] - 1)
    return float(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def smoothed(image, text, t):
    s = loop_similarity(image, text) / t
    own = torch.arange(len(s))
    return sum(F.cross_entropy(way, own, label_smoothing=0.2) for way in (s, s.T)) / 2


def query_outputs(model, features):
    return model.qformer(image=model.qformer.read_image(features)).query_output


def float_ids(rows, pad_token_id, *, left=False):
    found = by_numpy(rows, pad_token_id, left=left)
    ids = torch.zeros(found.ids.shape)
    ids[found.mask] = found.ids[found.mask].float()
    return Text(ids, found.mask)


#: name of the check, answer, and a word that its message must have
WRONG = [
    ("attention_weights", divides_in_place, "in place"),
    ("attention_weights", lambda q, k, m=None: (
        q @ k.T / q.shape[1] ** 0.5 - (0 if m is None else 12.0 * ~m)).softmax(-1), "low enough"),
    ("attention_weights", lambda q, k, m=None: S["attention_weights"](k, q, None if m is None else m.T), "shape"),
    ("attention_weights", lambda q, k, m=None: S["attention_weights"](q, k, m).round(), "rounded"),
    ("cross_attention_head", lambda x, i, q, k, v: S["cross_attention_head"](x, i, q, k, v).relu(), "cut off"),
    ("cross_attention_head", lambda x, i, q, k, v: S["attention_weights"](x @ q, i @ v) @ (i @ v), "keys"),
    ("split_heads", lambda x, h: x.view(-1, h, x.shape[1], x.shape[2] // h), "Rows are mixed"),
    ("attention_weights", turns_the_mask_round, "in place"),
    ("attention_weights", lambda q, k, m=None: S["attention_weights"](q, k, m).softmax(-1), "softmax too many"),
    ("cross_attention_head", lambda x, i, q, k, v: (
        (x @ q) @ (i @ k).T * q.shape[1] ** 0.5).softmax(-1) @ (i @ v), "multiplied"),
    ("embed", embeds_with(lambda norm: norm.bias.detach()), "no gradient reaches the LayerNorm's bias"),
    ("qformer_layer", lambda layer, x, n, i, m: S["qformer_layer"](layer, x, n, i, ~m), "True and False exchanged"),
    ("qformer_layer", lambda layer, x, n, i, m: S["qformer_layer"](layer, x, n, i, m[:1]), "`mask`"),
    ("multimodal_causal_mask", lambda q, t: S["multimodal_causal_mask"](q, t) | torch.eye(q + t.shape[1]).bool(),
     "Padding is forgotten"),
    ("bidirectional_mask", lambda q, t: S["bidirectional_mask"](q, t) & ~torch.eye(q + t.shape[1]).bool(),
     "diagonal"),
    ("text_rows", lambda q, t: S["text_rows"](q, t).flip(-1), "reverse order"),
    ("itm_logits", lambda head, z: F.linear(z, head.weight, head.bias.detach()).mean(1), "no gradient"),
    ("contrastive_loss", smoothed, "smoothed"),
    ("contrastive_loss", lambda i, t, x: log_sum_loss(i, t, 0.07), "0.07 in place of `temperature`"),
    ("sample_negatives", seeds_everything, "torch.manual_seed is called"),
    ("sample_negatives", draws_from_a_copy, "second call with the same generator"),
    ("sample_negatives", winds_back, "second call with the same generator"),
    ("sample_negatives", always_a_generator, "Without a generator"),
    ("split_caption", cuts_after_seeding, "torch.manual_seed is called"),
    ("split_caption", cuts_with_a_generator_of_its_own, "Without a generator"),
    ("exact_match", lambda p, a: p.lower().strip().replace(".", "") == a, "Full stops inside"),
    ("pointing_game", patch_at_its_share_of_the_way, "center"),
    ("rank_correlation", lambda a, b: 0.5 * S["rank_correlation"](a, b), "times the right one"),
    ("visual_prompt", lambda m, x: F.linear(
        query_outputs(m, x), m.language_projection.weight, m.language_projection.bias.detach()), "no gradient"),
    ("visual_prompt", lambda m, x: m.language_projection(F.layer_norm(query_outputs(m, x), (8,))), "LayerNorm"),
    ("visual_prompt", lambda m, x: S["visual_prompt"](m, x[:, 1:]), "without its first along dimension 1"),
    ("itc_similarity", detached("itc_similarity"), "no gradient"),
    ("itc_similarity", lambda i, t: torch.tensor(
        [[max(float(a @ b) for a in q) for b in t] for q in i]), "no gradient"),
    ("contrastive_loss", detached("contrastive_loss"), "no gradient"),
    ("contrastive_loss", lambda i, t, x: S["contrastive_loss"](i.detach(), t, x), "image embeddings"),
    ("contrastive_loss", lambda i, t, x: torch.tensor(float(log_sum_loss(i, t, x))), "no gradient"),
    ("contrastive_loss", lambda i, t, x: float(S["contrastive_loss"](i, t, x)), "Return a tensor"),
    ("negative_weights", overwrites, "in place"),
    ("negative_weights", lambda s, p: s.detach().masked_fill(p, -8.0).softmax(1), "positive"),
    ("sample_negatives", own_generator, "generator"), ("sample_negatives", warm, "not as often"),
    ("sample_negatives", lambda s, p, g=None: torch.multinomial(S["negative_weights"](s, p), 1)[:, 0], "generator"),
    ("itm_logits", detached("itm_logits"), "no gradient"),
    ("itm_pairs", lambda i, t: tuple(x.float() for x in S["itm_pairs"](i, t)), "dtype"),
    ("itg_inputs", lambda ids, m, d: (S["itg_inputs"](ids, m, d)[0],
                                      ids[:, 1:].masked_fill(ids[:, 1:] == 0, IGNORE_INDEX)), "id 0"),
    ("next_word_loss", detached("next_word_loss"), "no gradient"),
    ("next_word_loss", lambda x, y: F.cross_entropy(x.transpose(1, 2), y.clamp(min=0)), "word 0"),
    ("learning_rate", lambda o, s: S["learning_rate"](o, s) / o.lr, "lr"),
    ("confidence_interval", lambda p, n, z=1.96: S["confidence_interval"](p, n), "z"),
    ("paired_bootstrap", lambda a, b, s, d: tuple(
        torch.stack([(a.float() - b.float())[torch.isin(s, row)].mean() for row in d])
        .quantile(torch.tensor([0.025, 0.975])).tolist()), "drawn twice"),
    ("visual_prompt", detached("visual_prompt"), "no gradient"),
    ("visual_prompt", lambda m, x: m.language_projection(
        m.qformer(image=m.qformer.read_image(x)).query_output.detach()), "query tokens"),
    ("prepend", lambda lm, v, t: S["prepend"](lm, v.detach(), t), "visual prompt"),
    ("pad", float_ids, "floats"), ("pad", lambda r, p, *, left=False: S["pad"](r, 0, left=left), "0"),
    ("pad", lambda r, p, *, left=False: tuple(vars(S["pad"](r, p, left=left)).values()), "Text"),
    ("decoder_answer_logits", detached("decoder_answer_logits"), "no gradient"),
    ("encoder_decoder_answer_logits", lambda lm, v, p, a: lm.model(
        inputs_embeds=lm.prepend(v, p)[0], atention_mask=None, decoder_input_ids=a.ids).logits, "atention_mask"),
    ("answer_loss", detached("answer_loss"), "no gradient"),
    ("split_caption", lambda c, generator=None: S["split_caption"](c, generator)[::-1], "exchanged"),
    ("split_caption", lambda c, generator=None: tuple(x.split() for x in S["split_caption"](c, generator)), "Lists"),
    ("penalize_repetition", lambda x, seen, p: x.__setitem__(list(set(seen)), torch.where(
        x[list(set(seen))] > 0, x[list(set(seen))] / p, x[list(set(seen))] * p)) or x, "in place"),
    ("absmax_quantize", lambda x: (S["absmax_quantize"](x)[0].float(), S["absmax_quantize"](x)[1]), "int8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_a_right_answer_passes_in_any_style(name, answer):
    assert_passes(name, answer)


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_wrong_answer_fails_and_is_told_why(name, answer, word):
    assert_fails(name, answer, word)


NONSENSE = [
    "boat", 1, 2.5, True, [], {}, (1, 2), [[1], [2, 3]], torch.zeros(0), torch.zeros(2, 3),
    torch.ones(3, dtype=torch.long),
    torch.full((2, 2), torch.nan), torch.ones(2, dtype=torch.cfloat), torch.ones(2, 2, device="meta"), np.ones(3),
    (torch.zeros(2), None), Text(torch.zeros(1), torch.zeros(1)), Text(None, "x"), object(), Ellipsis, 10**400,
]  # fmt: skip


def always(value, *args, **options):
    return value


@pytest.mark.parametrize("name", S)
def test_no_answer_makes_a_check_fail_itself(name):
    for value in NONSENSE:
        verdict = getattr(checks, name)(partial(always, value))
        assert verdict.status == FAILED, (value, verdict)


def test_a_check_that_fails_itself_says_that_it_is_its_own_fault():
    broken = checks.Check("broken", abs, lambda: [checks.Case("1", (1,))], "x", run=lambda function, args: 1 / 0)
    verdict = broken(abs)
    assert verdict.status == BROKEN and "fault of the check, not of your answer" in verdict.message


def test_an_error_inside_a_library_is_not_an_unwritten_answer():
    def inside():
        raise NotImplementedError("no kernel for this dtype")

    def answer(*args):
        return inside()

    assert checks.unimodal_mask(answer).status == FAILED
    assert "ends the whole program" in checks.unimodal_mask(lambda *args: exit()).message
    assert "without calling it" in checks.unimodal_mask(None).message


def test_a_verdict_is_an_error_only_while_it_is_graded(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert checks.num_features(S["num_features"]).passed and checks.prediction("65", 65).passed
    for call in (lambda: checks.num_features(lambda *args: 1), lambda: checks.prediction(None, 1)):
        with pytest.raises(AssertionError):
            call()
