"""Wrong answers to the exercises of notebooks 08 to 12, as students write them: each fails with the right message.

The known mistakes of the checks are tested in test_check.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from blip2_lab.models.language_model import Text
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.teaching.checks import accuracies, answer_losses, decoding, int8, soft_prompt, training
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.verdicts import FAILED


def assert_named(check: Check, wrong: Callable, words: str) -> None:
    """A wrong answer fails with a message that begins with `words`, and with an example."""
    verdict = check(wrong)
    assert verdict.status == FAILED
    assert verdict.message.startswith(words), verdict
    assert verdict.example


def test_training_and_measuring():
    def from_zero(optim, step):
        if step < optim.warmup_steps:
            return step / optim.warmup_steps * optim.lr
        done = (step - optim.warmup_steps) / (optim.steps - optim.warmup_steps)
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(done * math.pi) + 1) / 2

    def jumps(optim, step):
        if step < optim.warmup_steps:
            return (step + 1) / optim.warmup_steps * optim.lr
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(step / optim.steps * math.pi) + 1) / 2

    def contains(prediction, answer):
        return prediction.lower().find(answer) >= 0

    def textbook(share, count):
        half = 1.96 * (share * (1 - share) / count) ** 0.5
        return max(share - half, 0.0), min(share + half, 1.0)

    assert_named(training.learning_rate, from_zero, "The first step has rate 0")
    assert_named(training.learning_rate, jumps, "The cosine begins at step 0")
    assert_named(accuracies.exact_match, contains, "It is enough that the answer occurs somewhere")
    assert_named(accuracies.confidence_interval, textbook, "The textbook's normal interval")


def test_soft_prompt():
    def picture_last(language_model, visual_prompt, text):
        words = language_model.model.get_input_embeddings()(text.ids)
        ones = torch.ones(len(words), visual_prompt.shape[1])
        return torch.cat([words, visual_prompt], dim=1), torch.cat([text.mask, ones], dim=1)

    def everything_visible(language_model, visual_prompt, text):
        words = language_model.model.get_input_embeddings()(text.ids)
        both = torch.cat([visual_prompt, words], dim=1)
        return both, torch.ones(both.shape[:2])

    def queries_only(model, image_features):
        return model.language_projection(model.qformer.query_tokens).repeat(len(image_features), 1, 1)

    def compare_ids(rows, pad_token_id, left=False):
        filled = []
        for row in rows:
            padding = [pad_token_id] * (max(len(r) for r in rows) - len(row))
            filled.append(padding + list(row) if left else list(row) + padding)
        ids = torch.tensor(filled)
        return Text(ids, ids != pad_token_id)

    def may_end_empty(caption, generator=None):
        words = caption.split()
        cut = torch.randint(0, len(words) + 1, (1,), generator=generator).item()
        return " ".join(words[:cut]), " ".join(words[cut:])

    assert_named(soft_prompt.prepend, picture_last, "The picture comes after the words")
    assert_named(soft_prompt.prepend, everything_visible, "Padding is forgotten")
    assert_named(soft_prompt.visual_prompt, queries_only, "The queries never look at the picture")
    assert_named(soft_prompt.pad, compare_ids, "The mask is made by comparing ids")
    assert_named(soft_prompt.split_caption, may_end_empty, "The suffix may be empty")


def test_answer_losses():
    def not_shifted(language_model, visual_prompt, prompt, answer):
        embeddings, mask = language_model.prepend(visual_prompt, prompt.then(answer))
        logits = language_model.model(inputs_embeds=embeddings, attention_mask=mask).logits
        return logits[:, visual_prompt.shape[1] + prompt.ids.shape[1] :]

    def leaking_decoder(language_model, visual_prompt, prompt, answer):
        embeddings, mask = language_model.prepend(visual_prompt, prompt)
        return language_model.model(
            inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=answer.ids,
            decoder_attention_mask=answer.mask.long(),
        ).logits  # fmt: skip

    def learns_padding(language_model, visual_prompt, prompt, answer):
        logits = language_model.answer_logits(visual_prompt, prompt, answer)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), answer.ids.reshape(-1))

    def shifts_again(language_model, visual_prompt, prompt, answer):
        logits = language_model.answer_logits(visual_prompt, prompt, answer)[:, :-1]
        labels = answer.ids.clone()
        labels[~answer.mask] = IGNORE_INDEX
        return F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORE_INDEX)

    assert_named(answer_losses.decoder_answer_logits, not_shifted, "Not shifted: these logits stand *at*")
    assert_named(
        answer_losses.encoder_decoder_answer_logits, leaking_decoder, "Not shifted: the decoder reads the very token"
    )
    assert_named(answer_losses.answer_loss, learns_padding, "Padding is learned too")
    assert_named(answer_losses.answer_loss, shifts_again, "Shifted once more")


def test_choosing_a_token():
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
    assert "These probabilities sum to 2.000, not to 1." in verdict.message


def test_eight_bits():
    def cut_off(x):
        scale = x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-9) / 127
        scale[scale < 1e-8] = 1.0
        return (x / scale).to(torch.int8), scale

    def zero_divides(x):
        scale = x.abs().max(dim=-1, keepdim=True).values / 127
        return torch.nan_to_num(x / scale).round().to(torch.int8), scale

    def overflows(x, weight):
        a, b = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1, keepdim=True) / 127
        sums = (x / a).round().int() @ (weight / b).round().int().T
        return sums.to(torch.int8) * a * b.T

    def only_positive(x, weight):
        apart = x.max(dim=0).values >= 6
        rest = int8.int8_linear.solution(x[:, ~apart], weight[:, ~apart])
        return rest + x[:, apart] @ weight[:, apart].T

    assert_named(int8.absmax_quantize, cut_off, "Cut off, not rounded")
    assert_named(int8.absmax_quantize, zero_divides, "A row of zeros")
    assert_named(int8.int8_linear, overflows, "The sums are kept in int8")
    assert_named(int8.mixed_linear, only_positive, "Only positive outliers are found")
