"""The checks of notebook 10: the library passes, every mistake gets its own message, in students' words, too."""

from __future__ import annotations

import pytest
import torch
from checks_room import assert_named, assert_sound, checks_of, mistakes_of
from torch.nn import functional as F

from blip2_lab.checks import answers, bridge
from blip2_lab.language import Text
from blip2_lab.masks import IGNORE_INDEX

CHECKS = checks_of(bridge, answers)


def test_all_seven_are_here():
    assert CHECKS.keys() == {
        "visual_prompt", "prepend", "pad", "split_caption", "decoder_answer_logits", "encoder_decoder_answer_logits",
        "answer_loss",
    }  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_sound(name):
    assert_sound(CHECKS[name])


@pytest.mark.parametrize(("name", "message"), mistakes_of(CHECKS))
def test_each_mistake_is_named(name, message):
    assert_named(CHECKS[name], CHECKS[name].mistakes[message], message)


# --- as a student writes them ---------------------------------------------------------------------------------------


def test_students_mistakes_before_the_language_model():
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

    assert_named(bridge.prepend, picture_last, "The picture comes after the words")
    assert_named(bridge.prepend, everything_visible, "Padding is forgotten")
    assert_named(bridge.visual_prompt, queries_only, "The queries never look at the picture")
    assert_named(bridge.pad, compare_ids, "The mask is made by comparing ids")
    assert_named(bridge.split_caption, may_end_empty, "The suffix may be empty")


def test_students_mistakes_after_the_language_model():
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

    assert_named(answers.decoder_answer_logits, not_shifted, "Not shifted: these logits stand *at*")
    assert_named(
        answers.encoder_decoder_answer_logits, leaking_decoder, "Not shifted: the decoder reads the very token"
    )
    assert_named(answers.answer_loss, learns_padding, "Padding is learned too")
    assert_named(answers.answer_loss, shifts_again, "Shifted once more")
