"""Wrong answers that are right in most cases, each with its case; and what an exercise's text leaves open."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from blip2_lab.evaluation.metrics import exact_match
from blip2_lab.models.language_model import Text
from blip2_lab.models.masks import bidirectional_mask
from blip2_lab.teaching.checks.in_words import describe_difference
from tests.teaching.checks.verdicts import assert_fails, assert_passes


def queries_apart(layer, x, num_queries, image, mask):
    queries, text, attention = x[:, :num_queries], x[:, num_queries:], layer.self_attention
    read = [
        attention(queries, *attention.keys_values(queries)),
        attention(text, *attention.keys_values(x), mask[:, :, num_queries:]),
    ]
    queries, text = (layer.self_attention_layer_norm(a + b) for a, b in zip((queries, text), read, strict=True))
    if layer.cross_attention is not None:
        queries = layer.cross_attention_layer_norm(queries + layer.cross_attention(queries, *image))
    return torch.cat([layer.query_ffn(queries), layer.text_ffn(text)], dim=1)


def partitioned(caption, generator=None):
    words = caption.split()
    word = words[int(torch.randint(len(words), (1,), generator=generator))]
    before, found, behind = caption.partition(word)
    return before.strip(), found + behind


def without_signs(prediction, answer):
    return prediction.lower().strip("!,?.() ") == answer.lower()


def zeros_are_padding(samples):
    rows = [torch.cat([torch.cat(shot) for shot in sample]) for sample in samples]
    padded = pad_sequence(rows, batch_first=True)
    return padded, padded.abs().sum(-1) > 0


def zero_is_padding(qformer, image_features, question_ids, question_mask):
    mask = bidirectional_mask(qformer.query_tokens.shape[1], question_ids > 0)
    return qformer(image=qformer.read_image(image_features), input_ids=question_ids, mask=mask).query_output


def near_the_middle_of_the_box(heat, box):
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return float(max(abs((column + 0.5) / heat.shape[1] - middle[0]), abs((row + 0.5) / len(heat) - middle[1])) < 0.25)


def of_any_share(share, count, z=1.96):
    half = z / (2 * math.sqrt(count))
    return max(0.0, share - half), min(1.0, share + half)


def in_the_middle(rows, pad_token_id, *, left=False):
    length = max(map(len, rows))
    ids, mask = torch.full((len(rows), length), pad_token_id), torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        gap = (length - len(row) + left) // 2
        ids[number, gap : gap + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, gap : gap + len(row)] = True
    return Text(ids, mask)


def in_groups(num_layers, frequency):
    return [layer for layer in range(num_layers) if (layer // frequency) % 2 == 0]


def wrong_rows_cut(num_query_tokens, text_mask):
    index = torch.arange(num_query_tokens + text_mask.shape[1])
    real = torch.nn.functional.pad(text_mask, (num_query_tokens, 0), value=True)
    whole = ((index < num_query_tokens) | (index <= index[:, None])) & real[:, None, None]
    return whole[..., num_query_tokens:]


def right_ones_as_rivals(scores, right, k):
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return (scores >= best).sum(dim=1) <= k


def prompt_before_picture(language_model, visual_prompt, prompt, answer):
    embed, model = language_model.model.get_input_embeddings(), language_model.model
    seen = torch.ones(visual_prompt.shape[:2])
    parts, masks = (embed(prompt.ids), visual_prompt, embed(answer.ids)), (prompt.mask, seen, answer.mask)
    logits = model(inputs_embeds=torch.cat(parts, 1), attention_mask=torch.cat(masks, 1).long()).logits
    return logits[:, -answer.ids.shape[1] - 1 : -1]


def decoder_reads_nothing(language_model, visual_prompt, prompt, answer):
    embeddings, mask = language_model.prepend(visual_prompt, prompt)
    ids = torch.nn.functional.pad(answer.ids[:, :-1], (1, 0), value=language_model.model.config.decoder_start_token_id)
    return language_model.model(
        inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=ids, decoder_attention_mask=0 * ids
    ).logits


def wrong_among_copied(answers, truths, examples):
    rows = zip(answers, truths, examples, strict=True)
    right = [exact_match(a, t) for a, t, given in rows if any(exact_match(a, e) for e in given)]
    return 1 - sum(right) / len(right) if right else 0.0


def transposed_if_square(similarity, positives):
    own = positives.T if len(positives) == positives.shape[1] else positives
    return similarity.detach().masked_fill(own, -torch.inf).softmax(dim=1)


def least_loss_of_a_query(image_embeds, text_embeds, temperature):
    scores = torch.einsum("bqe,me->qbm", image_embeds, text_embeds) / temperature
    own = torch.arange(scores.shape[1])
    cross_entropy = torch.nn.functional.cross_entropy
    return torch.stack([(cross_entropy(s, own) + cross_entropy(s.T, own)) / 2 for s in scores]).min()


def nucleus_of(keep, share=lambda kept: kept / kept.sum()):
    """keep(probabilities in order, top_p) -> which stay; share(what is kept, 0 elsewhere) -> the answer"""

    def answer(logits, temperature=1.0, top_p=1.0):
        ordered, places = (logits / temperature).softmax(dim=-1).sort(descending=True)
        return share(torch.zeros_like(logits).scatter(0, places, ordered * keep(ordered, top_p)))

    return answer


def prefix_before_picture(language_model, visual_prompt, prompt, answer):
    model, pad = language_model.model, torch.nn.functional.pad
    ids = pad(answer.ids[:, :-1], (1, 0), value=model.config.decoder_start_token_id)
    return model(
        inputs_embeds=torch.cat([model.get_input_embeddings()(prompt.ids), visual_prompt], dim=1),
        attention_mask=torch.cat([prompt.mask.long(), torch.ones(visual_prompt.shape[:2], dtype=torch.long)], dim=1),
        decoder_input_ids=ids,
        decoder_attention_mask=pad(answer.mask[:, :-1].long(), (1, 0), value=1),
    ).logits


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("nucleus", nucleus_of(lambda p, top: torch.arange(len(p)) < max(1, int(top * len(p)))), "rounded down"),
        ("nucleus", nucleus_of(lambda p, top: p >= (1 - top) * p.max()), "min_p"),
        (
            "nucleus",
            nucleus_of(
                lambda p, top: p.cumsum(0) - p < top, lambda kept: kept.masked_fill(kept == 0, -torch.inf).softmax(0)
            ),
            "second softmax",
        ),
        ("encoder_decoder_answer_logits", prefix_before_picture, "The prefix stands in front of the picture"),
        ("contrastive_loss", least_loss_of_a_query, "the smallest is taken"),
        ("negative_weights", transposed_if_square, "`positives` is transposed"),
        ("recall_hits", right_ones_as_rivals, "Another right column with the best score"),
        ("decoder_answer_logits", prompt_before_picture, "The prompt stands in front of the picture"),
        ("encoder_decoder_answer_logits", decoder_reads_nothing, "or 0 everywhere"),
        ("copied_answers", wrong_among_copied, "share of the copied answers that are wrong"),
        ("qformer_layer", queries_apart, "read one another only"),
        ("split_caption", partitioned, "found where it, or its letters, stand first"),
        ("exact_match", without_signs, "'red!'"),
        ("interleave_pictures", zeros_are_padding, "looking for zeros"),
        ("condition_on_question", zero_is_padding, "recognized by its id"),
        ("pointing_game", near_the_middle_of_the_box, "You call a"),
        ("confidence_interval", of_any_share, "The half width is 0.098 and should be 0.09617"),
        ("pad", in_the_middle, "is [0, 3, 0] and should be [3, 0, 0]"),
        ("cross_attention_layers", in_groups, "should be, part by part, what the library computes by `i % frequency`"),
        ("text_rows", wrong_rows_cut, "`whole[:, :, num_query_tokens:]` in place of `whole[..., num_query_tokens:]`"),
    ],
)
def test_what_is_wrong_in_some_case_is_refused(name, answer, words):
    assert_fails(name, answer, words)


def test_draws_are_counted_in_one_call_only():
    """A student's loop over rows takes a millisecond for each."""
    rows = []

    def draws(similarity, positives, generator=None):
        rows.append(len(similarity))
        weights = similarity.detach().masked_fill(positives, -torch.inf).softmax(dim=1)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    assert_passes("sample_negatives", draws)
    assert sum(rows) < 25_000


def shares_of(heat, mask, nothing):
    """The hint's way, with the answer `nothing` for a map without positive evidence."""
    size = len(mask) // len(heat)
    large = heat.clamp(min=0).repeat_interleave(size, 0).repeat_interleave(size, 1)
    return nothing(mask) if large.sum() == 0 else (large[mask].sum() / large.sum()).item()


@pytest.mark.parametrize("nothing", [lambda mask: 0.0, lambda mask: math.nan, lambda mask: mask.float().mean().item()])
def test_the_share_of_no_evidence_is_left_open(nothing):
    """The text asks for the share of the positive evidence, and a map without any has none to share."""
    assert_passes("mass_inside", lambda heat, mask: shares_of(heat, mask, nothing))


def test_patches_that_do_not_divide_evenly_are_left_open():
    """The text says that G can always be divided, so the hint's G // rows is right."""

    def pooled(features, count):
        rows = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
        side, width = math.isqrt(features.shape[1] - 1), features.shape[2]
        tall, wide = side // rows, side // (count // rows)
        grid = features[:, 1:].reshape(-1, side, side, width)[:, : tall * rows, : wide * (count // rows)]
        return grid.reshape(-1, rows, tall, count // rows, wide, width).mean(dim=(2, 4)).flatten(1, 2)

    assert_passes("pool_patches", pooled)


def test_transposed_is_said_only_of_numbers_that_are():
    right = torch.arange(6.0).reshape(2, 3)
    assert describe_difference(right.T, right, 1e-4).endswith("It is transposed.")
    assert "transposed" not in describe_difference(right.T + 1, right, 1e-4)
