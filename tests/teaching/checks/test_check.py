"""The exercises' checks: the library's function passes, and typical wrong answers fail with the right message.

The wrong answers are written as a student would, not as the checks write their known mistakes.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blip2_lab.models import masks, vision_encoder
from blip2_lab.models.attention import MultiHeadAttention
from blip2_lab.models.losses import itg_loss, negative_weights, sample_negatives
from blip2_lab.models.qformer import QFormer
from blip2_lab.teaching import checks
from blip2_lab.teaching.checks import attention as attention_checks
from blip2_lab.teaching.checks import captioning, encoders, matching, qformer
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case
from blip2_lab.teaching.checks.verdicts import FAILED, NOT_ATTEMPTED, PASSED, Verdict

MODULES = {
    "encoders": {"num_features", "second_to_last", "freeze"},
    "attention": {"attention_weights", "cross_attention_head", "split_heads"},
    "qformer": {"cross_attention_layers", "embed", "qformer_layer"},
    "masks": {"unimodal_mask", "multimodal_causal_mask", "bidirectional_mask"},
    "contrastive": {"itc_similarity", "contrastive_loss"},
    "matching": {"negative_weights", "sample_negatives", "itm_pairs", "itm_logits"},
    "captioning": {"itg_inputs", "next_word_loss", "text_rows", "cached_step"},
    "training": {"learning_rate"},
    "attribution": {"rollout", "gradient_weighting"},
    "grounding": {"pointing_game", "mass_inside", "rank_correlation"},
    "accuracies": {"exact_match", "confidence_interval", "paired_bootstrap"},
    "soft_prompt": {"visual_prompt", "prepend", "pad", "split_caption"},
    "answer_losses": {"decoder_answer_logits", "encoder_decoder_answer_logits", "answer_loss"},
    "decoding": {"nucleus", "penalize_repetition", "best_continuations", "final_score"},
    "int8": {"absmax_quantize", "int8_linear", "mixed_linear"},
    "four_bits": {"quantize_blocks", "bits_per_weight"},
    "held_out": {"hold_out_pictures", "best_step"},
    "fine_tuning": {"condition_on_question", "recall_hits"},
    "in_context": {"interleave_pictures", "copied_answers"},
    "failures": {"word_sums", "first_broken_link"},
    "bridges": {"pool_patches", "project_features", "gated_block"},
    "counting": {"gated_parameters"},
    "scaling": {"training_memory", "training_flops", "training_days", "batch_schedule"},
}  # fmt: skip
ALL = {name: value for name, value in vars(checks).items() if isinstance(value, Check)}
MISTAKES = [(name, message) for name, check in ALL.items() for message in check.mistakes]


# --- Every check ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_librarys_answer_passes(name):
    verdict = ALL[name](ALL[name].solution)
    assert verdict.passed, verdict
    assert verdict.message == ALL[name].verified


@pytest.mark.parametrize(("name", "message"), MISTAKES)
def test_every_known_mistake_fails_with_its_own_message_and_an_example(name, message):
    verdict = ALL[name](ALL[name].mistakes[message])
    assert (verdict.status, verdict.message) == (FAILED, message)
    assert verdict.example


@pytest.mark.parametrize("name", ALL)
def test_not_attempted_names_the_librarys_function(name):
    def stub(*args, **options):
        raise NotImplementedError

    verdict = ALL[name](stub)
    assert verdict.status == NOT_ATTEMPTED and not verdict.passed
    assert ALL[name].solution.__name__ in verdict.message
    assert ALL[name].solution.__name__ in str(checks.show_source(ALL[name]))


@pytest.mark.parametrize("name", ALL)
def test_wrong_types_fail_with_a_message(name):
    for nonsense in (lambda *args: None, lambda *args: "boat", lambda: 1, lambda *args: 1 / 0):
        verdict = ALL[name](nonsense)
        assert verdict.status == FAILED and len(verdict.message) > 10, verdict


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_checks_and_each_knows_four_mistakes(module):
    here = {name: value for name, value in vars(getattr(checks, module)).items() if isinstance(value, Check)}
    assert here.keys() == MODULES[module]
    assert all(check.name == name and len(check.mistakes) >= 4 for name, check in here.items())
    assert here.items() <= ALL.items() and here.keys() <= set(checks.__all__)


def test_every_check_is_listed_with_its_module():
    assert ALL.keys() == set().union(*MODULES.values())


# --- What students write --------------------------------------------------------------------------------------------


def said(name: str, answer) -> str:
    verdict = ALL[name](answer)
    assert verdict.status == FAILED, verdict
    return verdict.message


def loops(rule):
    """A mask written with loops: rule(i, j, is_query_i, is_query_j, real_j)."""

    def mask(num_queries, text_mask):
        length = num_queries + text_mask.shape[1]
        out = torch.zeros(len(text_mask), 1, length, length, dtype=torch.bool)
        for b in range(len(text_mask)):
            for i in range(length):
                for j in range(length):
                    real = j < num_queries or bool(text_mask[b, j - num_queries])
                    out[b, 0, i, j] = rule(i, j, i < num_queries, j < num_queries, real)
        return out

    return mask


def test_masks_by_loops():
    assert checks.unimodal_mask(loops(lambda i, j, qi, qj, real: qi == qj and real)).passed
    assert checks.multimodal_causal_mask(loops(lambda i, j, qi, qj, real: real and (qj or j <= i))).passed
    assert checks.bidirectional_mask(loops(lambda i, j, qi, qj, real: real)).passed
    causal = "multimodal_causal_mask"
    assert "Padding" in said("unimodal_mask", loops(lambda i, j, qi, qj, real: qi == qj))
    assert "Padding" in said("bidirectional_mask", loops(lambda i, j, qi, qj, real: True))
    assert "each other" in said("unimodal_mask", loops(lambda i, j, qi, qj, real: real))
    assert "swapped" in said(causal, _turned)
    assert "leaks" in said(causal, loops(lambda i, j, qi, qj, real: real and (qi or qj or j <= i)))
    assert "Queries are causal" in said(causal, loops(lambda i, j, qi, qj, real: real and j <= i))
    assert "later tokens" in said(causal, loops(lambda i, j, qi, qj, real: real and (qj or not qi)))
    assert "itself" in said(causal, loops(lambda i, j, qi, qj, real: real and (qj or j < i)))
    assert "without an image" in said(causal, loops(lambda i, j, qi, qj, real: real and qi == qj and (qj or j <= i)))


def _turned(num_queries, text_mask):
    return masks.multimodal_causal_mask(num_queries, text_mask).mT


def test_an_unknown_mistake_is_shown_by_its_cells():
    def only_one_cell(num_queries, text_mask):
        mask = masks.bidirectional_mask(num_queries, text_mask).clone()
        mask[:, :, 0, 0] = False
        return mask

    verdict = checks.bidirectional_mask(only_one_cell)
    assert "query 0 may not read query 0" in verdict.message
    assert "0!" in verdict.example and verdict.example.count("!") == 2  # one in the legend


def test_encoders():
    assert "[CLS]" in said("num_features", lambda size, patch: int(size / patch) ** 2)
    assert "float" in said("num_features", lambda size, patch: (size / patch) * (size / patch) + 1)
    assert "one row" in said("num_features", lambda size, patch: size // patch + 1)
    assert "pixels" in said("num_features", lambda size, patch: size**2 + 1)
    assert "last layer" in said("second_to_last", lambda states: states[len(states) - 1])
    assert "One too far" in said("second_to_last", lambda states: states[len(states) - 3])
    assert "thrown away" in said("second_to_last", lambda states: states[-2][:, 1:, :])
    assert "Second from the front" in said("second_to_last", lambda states: states[1])

    def by_hand(module):
        for parameter in module.parameters():
            parameter.requires_grad = False
        return module

    def and_eval(module):
        by_hand(module).training = False
        return module.eval()

    def by_flags_of_children(module):
        for child in module.modules():
            child.train(False)
        return module

    assert "Dropout" in said("freeze", by_hand)
    assert "undone" in said("freeze", and_eval)
    assert "stops dropout, not learning" in said("freeze", by_flags_of_children)
    assert "returns nothing" in said("freeze", lambda module: vision_encoder.freeze(module) and None)


def test_attention():
    def loop(queries, keys, mask=None):
        rows = []
        for i, query in enumerate(queries):
            powers = [math.exp(float(query @ key) / math.sqrt(len(key))) for key in keys]
            powers = [power * (mask is None or bool(mask[i, j])) for j, power in enumerate(powers)]
            rows.append([power / sum(powers) for power in powers])
        return torch.tensor(rows)

    assert checks.attention_weights(loop).passed
    assert "not divided" in said("attention_weights", lambda q, k, m=None: _soft(q @ k.T, m))
    assert "not by its square root" in said("attention_weights", lambda q, k, m=None: _soft(q @ k.T / q.shape[1], m))
    assert "upside down" in said("attention_weights", lambda q, k, m=None: loop(q, k, None if m is None else ~m))
    assert "ignored" in said("attention_weights", lambda q, k, m=None: loop(q, k))
    assert "after the softmax" in said("attention_weights", lambda q, k, m=None: loop(q, k) * (1 if m is None else m))
    assert "self-attention" in said("cross_attention_head", lambda x, i, q, k, v: loop(x @ q, x @ k) @ (x @ v))
    assert "swapped" in said("cross_attention_head", lambda x, i, q, k, v: loop(i @ q, x @ k) @ (x @ v))
    assert "values, too" in said("cross_attention_head", lambda x, i, q, k, v: loop(x @ q, i @ k) @ (i @ k))
    assert "have to mix" in said("cross_attention_head", lambda x, i, q, k, v: loop(x @ q, i @ k))
    assert "Rows are mixed" in said("split_heads", lambda x, h: x.view(x.shape[0], h, x.shape[1], x.shape[2] // h))
    assert "transpose L and H" in said("split_heads", lambda x, h: x.view(x.shape[0], x.shape[1], h, x.shape[2] // h))
    assert "neighboring" in said("split_heads", lambda x, h: torch.stack([x[..., i::h] for i in range(h)], dim=1))
    assert "before the batch" in said("split_heads", lambda x, h: torch.stack(x.chunk(h, dim=-1)))
    assert checks.split_heads(lambda x, h: torch.stack(x.chunk(h, dim=-1), dim=1)).passed


def _soft(scores, mask):
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)


def test_qformer():
    assert "begins with layer 0" in said("cross_attention_layers", lambda n, f: list(range(f - 1, n, f)))
    assert "every layer" in said("cross_attention_layers", lambda n, f: [*range(n)])
    assert "counted from 0" in said("cross_attention_layers", lambda n, f: list(range(1, n + 1, f)))
    assert "list" in said("cross_attention_layers", lambda n, f: n // f)

    def embed(start, with_queries=False):
        def answer(model, ids):
            places = torch.arange(ids.shape[1]) + start
            text = model.word_embeddings(ids) + model.position_embeddings(places)
            queries = model.query_tokens.repeat(len(ids), 1, 1)
            if with_queries:
                queries = queries + model.position_embeddings.weight[:3]
            return model.embedding_layer_norm(torch.cat((queries, text), 1))

        return answer

    assert checks.embed(embed(0)).passed
    assert "start at Q" in said("embed", embed(3))
    assert "queries have positions" in said("embed", embed(0, with_queries=True))
    assert "Both at once" in said("embed", embed(3, with_queries=True))
    assert "no positions" in said(
        "embed",
        lambda m, ids: m.embedding_layer_norm(
            torch.cat([m.query_tokens.repeat(len(ids), 1, 1), m.word_embeddings(ids)], 1)
        ),
    )

    def layer(text_looks=False, one_tower=False, mask_it=True):
        def answer(part, x, num_queries, image, mask):
            keys, values = part.self_attention.keys_values(x)
            read = part.self_attention(x, keys, values, mask if mask_it else None)
            x = part.self_attention_layer_norm(read + x)
            if part.cross_attention is not None:
                looking = x if text_looks else x[:, :num_queries]
                seen = part.cross_attention_layer_norm(looking + part.cross_attention(looking, image[0], image[1]))
                x = torch.cat([seen, x[:, seen.shape[1] :]], dim=1)
            text_ffn = part.query_ffn if one_tower else part.text_ffn
            return torch.cat([part.query_ffn(x[:, :num_queries]), text_ffn(x[:, num_queries:])], dim=1)

        return answer

    assert checks.qformer_layer(layer()).passed
    assert "The text looks" in said("qformer_layer", layer(text_looks=True))
    assert "two towers" in said("qformer_layer", layer(one_tower=True))
    assert "mask is ignored" in said("qformer_layer", layer(mask_it=False))
    assert "Nobody looks" in said("qformer_layer", lambda p, x, n, image, m: _without_looking(p, x, n, m))


def _without_looking(part, x, num_queries, mask):
    x = part.self_attention_layer_norm(x + part.self_attention(x, *part.self_attention.keys_values(x), mask))
    return torch.cat([part.query_ffn(x[:, :num_queries]), part.text_ffn(x[:, num_queries:])], dim=1)


def test_contrastive():
    assert "mean over the queries" in said("itc_similarity", lambda i, t: (i @ t.mT).mean(dim=1))
    assert "first query" in said("itc_similarity", lambda i, t: i[:, 0] @ t.mT)
    assert "turn it" in said("itc_similarity", lambda i, t: torch.einsum("bqe,me->mbq", i, t).max(-1).values)
    assert "over the texts" in said("itc_similarity", lambda i, t: torch.einsum("bqe,me->bqm", i, t).max(-1).values)

    def loss(temperature=lambda s, t: s / t, both=True, divide=2):
        def answer(image, text, t):
            sim = temperature(torch.einsum("bqe,me->bqm", image, text).max(1).values, t)
            rows = -sim.log_softmax(1).diagonal().mean()
            columns = -sim.log_softmax(0).diagonal().mean()
            return (rows + columns) / divide if both else rows

        return answer

    assert checks.contrastive_loss(loss()).passed
    assert "multiplied" in said("contrastive_loss", loss(lambda s, t: s * t))
    assert "missing" in said("contrastive_loss", loss(lambda s, t: s))
    assert "Only image to text" in said("contrastive_loss", loss(both=False))
    assert "added" in said("contrastive_loss", loss(divide=1))


def test_matching():
    assert "Positives are among" in said("negative_weights", lambda s, p: s.detach().softmax(-1))
    assert "the diagonal" in said("negative_weights", lambda s, p: s.detach().clone().fill_diagonal_(-10000).softmax(1))
    assert "after the softmax" in said("negative_weights", lambda s, p: s.detach().softmax(1) * ~p)
    assert "A gradient flows" in said("negative_weights", lambda s, p: torch.where(p, -1e4, s).softmax(1))
    assert "All negatives are alike" in said("negative_weights", lambda s, p: (~p) / (~p).sum(1, keepdim=True))

    def picky(s, p, generator=None):
        chosen = [torch.multinomial(w, 1, generator=generator) for w in negative_weights(s, p)]
        return torch.cat(chosen)

    assert checks.sample_negatives(picky).passed
    assert "hardest" in said("sample_negatives", lambda s, p, g=None: torch.where(p, -1e4, s).argmax(dim=1))
    assert "true pair" in said(
        "sample_negatives", lambda s, p, g=None: torch.multinomial(s.softmax(1), 1, generator=g)[:, 0]
    )
    assert "[B, 1]" in said("sample_negatives", lambda s, p, g=None: sample_negatives(s, p, g)[:, None])
    assert "evenly" in said(
        "sample_negatives", lambda s, p, g=None: torch.multinomial((~p).float(), 1, generator=g)[:, 0]
    )
    assert "one index" in said("sample_negatives", lambda s, p, g=None: torch.zeros(7))

    def pairs(labels=(1, 0, 0), swap=False):
        def answer(image_index, text_index):
            n = len(image_index)
            if swap:
                image_index, text_index = text_index, image_index
            own = torch.tensor(range(n))
            labels_ = torch.tensor([label for label in labels for _ in range(n)])
            return torch.cat([own, image_index, own]), torch.cat([own, own, text_index]), labels_

        return answer

    assert checks.itm_pairs(pairs()).passed
    assert "upside down" in said("itm_pairs", pairs(labels=(0, 1, 1)))
    assert "swapped" in said("itm_pairs", pairs(swap=True))
    assert "a match" in said("itm_pairs", pairs(labels=(1, 1, 1)))
    assert "3 things" in said("itm_pairs", lambda i, t: torch.cat([i, t]))

    assert checks.itm_logits(lambda head, z: head(z.mean(1))).passed, "a linear head and a mean may change places"
    assert "max" in said("itm_logits", lambda head, z: torch.max(head(z), dim=1).values)
    assert "first query" in said("itm_logits", lambda head, z: head(z[:, 0]))
    assert "probabilities" in said("itm_logits", lambda head, z: F.softmax(head(z).mean(1), dim=-1))
    assert "sum" in said("itm_logits", lambda head, z: sum(head(z).unbind(1)))


def test_captioning():
    ignore = masks.IGNORE_INDEX

    def inputs(dec=True, shift=True, hide=True):
        def answer(ids, mask, decode_id):
            read = ids[:, :-1].clone()
            if dec:
                read[:, 0] = decode_id
            labels = ids[:, 1:].clone() if shift else read.clone()
            if hide:
                labels[~(mask[:, 1:] if shift else mask[:, :-1])] = ignore
            return read, labels

        return answer

    assert checks.itg_inputs(inputs()).passed
    assert "still stands in front" in said("itg_inputs", inputs(dec=False))
    assert "Padding is counted" in said("itg_inputs", inputs(hide=False))
    assert "labels begin with [DEC]" in said("itg_inputs", inputs(shift=False))

    def two_too_far(ids, mask, decode_id):
        read, labels = inputs()(ids, mask, decode_id)
        return read, torch.cat([labels[:, 1:], labels[:, :1] * 0 + ignore], 1)

    assert "once too often" in said("itg_inputs", two_too_far)

    def unshifted(ids, mask, decode_id):
        read, _ = inputs()(ids, mask, decode_id)
        return read, ids[:, :-1].masked_fill(~mask[:, :-1], ignore)

    assert "not shifted" in said("itg_inputs", unshifted)

    def in_place(ids, mask, decode_id):
        ids[:, 0] = decode_id
        return ids[:, :-1], ids[:, 1:].masked_fill(~mask[:, 1:], ignore)

    assert "in place" in said("itg_inputs", in_place)

    flat = lambda logits, labels, **kw: F.cross_entropy(logits.reshape(-1, 5), labels.reshape(-1), **kw)  # noqa: E731
    assert checks.next_word_loss(flat).passed
    assert "sum" in said("next_word_loss", lambda x, y: flat(x, y, reduction="sum"))
    assert "all places" in said("next_word_loss", lambda x, y: flat(x, y, reduction="sum") / y.numel())
    assert "word 0" in said("next_word_loss", lambda x, y: flat(x, torch.where(y == ignore, 0, y)))
    assert "shifted already" in said("next_word_loss", lambda x, y: flat(x[:, :-1], y[:, 1:]))

    causal = masks.multimodal_causal_mask
    assert "keep the text's rows" in said("text_rows", lambda q, t: causal(q, t))
    assert "columns are gone" in said("text_rows", lambda q, t: causal(q, t)[:, :, q:, q:])
    assert "first rows" in said("text_rows", lambda q, t: causal(q, t)[:, :, : t.shape[1]])
    assert "Later tokens" in said("text_rows", lambda q, t: masks.bidirectional_mask(q, t)[:, :, q:])

    def step(front=False, forget=False, blind=False):
        def answer(attention, x, past):
            k, v = attention.keys_values(x)
            pairs = ((k, past[0]), (v, past[1])) if front else ((past[0], k), (past[1], v))
            keys, values = (torch.cat(pair, dim=2) for pair in pairs)
            out = attention(x, *(past if blind else (keys, values)))
            return out, past if forget else (keys, values)

        return answer

    assert checks.cached_step(step()).passed
    assert "in front" in said("cached_step", step(front=True))
    assert "old cache" in said("cached_step", step(forget=True))
    assert "does not read itself" in said("cached_step", step(blind=True))
    assert "only itself" in said("cached_step", lambda a, x, p: (a(x, *a.keys_values(x)), step()(a, x, p)[1]))


# --- The slow forms are the library's -------------------------------------------------------------------------------


def test_slow_attention_equals_the_librarys():
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 2, memory_width=5).eval()
    x, memory = torch.randn(1, 3, 6), torch.randn(1, 4, 5)
    keys, values = attention.keys_values(memory)
    heads = attention_checks.split_into_heads(attention.query(x), 2)
    mask = torch.rand(3, 4) > 0.3
    weights = [attention_checks.weights_of(heads[0, h], keys[0, h], mask) for h in range(2)]
    mixed = torch.cat([weights[h] @ values[0, h] for h in range(2)], dim=-1)
    assert torch.allclose(attention.output(mixed)[None], attention(x, keys, values, mask[None, None]), atol=1e-5)
    first = [layer.weight[:3].T for layer in (attention.query, attention.key, attention.value)]
    for layer in (attention.query, attention.key, attention.value):
        nn.init.zeros_(layer.bias)
    keys, values = attention.keys_values(memory)
    expected = attention.attend(attention_checks.split_into_heads(attention.query(x), 2), keys, values)[0, 0]
    assert torch.allclose(attention_checks.one_cross_attention_head(x[0], memory[0], *first), expected, atol=1e-5)


@torch.no_grad()
def test_slow_layers_equal_the_librarys_qformer():
    model: QFormer = qformer.tiny_qformer()
    ids, text_mask = torch.tensor([[4, 7, 2], [1, 5, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    mask = masks.multimodal_causal_mask(3, text_mask)
    memory = model.read_image(torch.randn(2, 5, qformer.TINY.image_width))
    x = qformer.embed_queries_and_text(model, ids)
    for layer, image in zip(model.layers, memory.keys_values, strict=True):
        x = qformer.one_layer(layer, x, 3, image, mask)
    output = model(image=memory, input_ids=ids, mask=mask)
    assert torch.allclose(x, torch.cat([output.query_output, output.text_output], dim=1), atol=1e-4)
    crosses = [i for i, layer in enumerate(model.layers) if layer.cross_attention is not None]
    assert crosses == qformer.layers_with_cross_attention(2, 2)


def test_slow_counting_equals_the_librarys(tiny_model):
    encoder = tiny_model.image_encoder
    assert encoders.count_features(48, 12) == encoder.num_features
    z = torch.randn(2, 8, 64)
    assert torch.equal(
        matching.logits_over_queries(tiny_model.stage1.itm_head, z),
        tiny_model.stage1.itm_head(z).mean(1),
    )


@torch.no_grad()
def test_the_itg_functions_give_the_librarys_loss(tiny_model):
    model = tiny_model.stage1
    ids, attention_mask = model.tokenize(["a red boat", "a boat and a red house"])
    features = torch.randn(2, 17, 64)
    negatives = torch.tensor([1, 0]), torch.tensor([1, 0])
    library = model.losses(image_features=features, input_ids=ids, attention_mask=attention_mask, negatives=negatives)
    read, labels = captioning.inputs_and_labels(ids, attention_mask.bool(), model.config.decode_token_id)
    memory = model.qformer.read_image(features)
    past = model.qformer(image=memory, use_cache=True).past
    mask = captioning.rows_after_queries(8, attention_mask.bool()[:, :-1])
    text = model.qformer(queries=False, input_ids=read, mask=mask, past=past).text_output
    itg = itg_loss(model.itg_logits(text), labels, model.config.label_smoothing)
    assert torch.allclose(itg, library.itg, atol=1e-5)
    images, texts, labels = matching.pairs_for_matching(*negatives)
    logits = model.itm_logits(memory.select(images), ids[texts], attention_mask[texts])
    assert torch.allclose(F.cross_entropy(logits, labels), library.itm, atol=1e-5)


# --- Verdicts -------------------------------------------------------------------------------------------------------


def test_a_verdict_shows_itself_as_text_and_as_html():
    verdict = Verdict(FAILED, "a<b", "x & y", "1 0\n0 1")
    assert repr(verdict).splitlines() == ["✗ a<b: failed", "x & y", "1 0", "0 1"]
    assert "a&lt;b" in verdict._repr_html_() and "<pre" in verdict._repr_html_()
    assert repr(Verdict(PASSED, "a", "b")).startswith("✓ a: passed")


def test_an_error_becomes_a_sentence_with_its_line():
    def my_mask(num_query_tokens, text_mask):
        return text_mask[99]

    verdict = checks.unimodal_mask(my_mask)
    assert "IndexError" in verdict.message and "return text_mask[99]" in verdict.message and "input:" in verdict.example


def test_differences_are_described():
    check = Check("twice", lambda x: 2 * x, lambda: [Case("1, 2", (torch.tensor([1.0, 2.0]),))], "Twice.")
    assert "should be [2]" in check(lambda x: x.sum()).message
    assert "Return a tensor" in check(lambda x: 4).message
    assert "NaN" in check(lambda x: x / 0 * 0).message
    assert "dtype" in check(lambda x: x > 0).message
    verdict = check(lambda x: x**3)
    assert "If `x` is doubled, the right answer is doubled, too" in verdict.message
    assert "[1.0, 8.0]" in verdict.example and "[2.0, 4.0]" in verdict.example


def test_source_is_folded_in_a_notebook_and_printed_in_full():
    source = checks.show_source(masks.unimodal_mask)
    assert str(source).startswith("def unimodal_mask") and "masks.unimodal_mask" in repr(source)
    assert source._repr_html_().startswith("<details>") and "def unimodal_mask" in source._repr_html_()
