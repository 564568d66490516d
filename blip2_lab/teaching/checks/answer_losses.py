"""Checks of notebook 10, second half: which logits predict an answer, and which of its tokens have a loss.

The language models are those of stand_ins.py, whose logits depend on every token they may attend to, in order.

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blip2_lab.models.language_model import DecoderLanguageModel, EncoderDecoderLanguageModel, LanguageModel, Text
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.teaching.checks.check import Check
from blip2_lab.teaching.checks.exercise import Case, learning
from blip2_lab.teaching.checks.stand_ins import PAD, START, VOCAB, WIDTH, TinyLanguageModel, random, text_of

# --- A decoder ------------------------------------------------------------------------------------------------------


def _answer_cases(encoder_decoder: bool) -> list[Case]:
    made = []
    for i, (prompts, answers, pad_id, start) in enumerate((
        (((3,),), ((4, 5),), PAD, START),
        (((3, 6), (5,)), ((4, 5, 1), (6, 1)), PAD, START),
        (((3, 6, 2), (5, 0)), ((0, 4, 5), (6,)), 1, 2),
    )):  # fmt: skip
        prompt = text_of(*prompts, left=not encoder_decoder, pad_token_id=pad_id)
        answer = text_of(*answers, pad_token_id=pad_id)
        leaf, picture = learning(random(len(prompts), 2 + i, WIDTH, seed=5 + i))
        description = f"{2 + i} soft words, prompt {prompt[0].tolist()}, answer {answer[0].tolist()}, pad id {pad_id}"
        model = TinyLanguageModel(pad_token_id=pad_id, encoder_decoder=encoder_decoder, start=start)
        made.append(Case(description, (model, picture, *prompt, *answer), {"the visual prompt": leaf}))
    return made


def _on_texts(function: Callable, args: tuple) -> Any:
    model, picture, prompt, prompt_mask, answer, answer_mask = args
    return function(model, picture, Text(prompt, prompt_mask), Text(answer, answer_mask))


def _real_logits(function: Callable, args: tuple) -> Any:
    """The logits. Those of padded answer tokens are set to 0, because no loss uses them."""
    logits, real = _on_texts(function, args), args[-1]
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != real.shape:
        return logits
    return logits.masked_fill(~real[:, :, None], 0.0)


def _inputs_told(ours: Case, right: Case) -> str | None:
    """What the student's function gave to the model, where it is something else than the library's function gives."""
    given, wanted = ours.args[0].model.given, right.args[0].model.given
    if not given:
        return "`language_model.model` is never called: it computes the logits."
    for name, theirs in wanted.items():
        mine = given[name]
        if theirs is None or (mine is None and bool((theirs == 1).all())):
            continue
        if mine is None:
            return f"The model is not given `{name}`, so it reads padding."
        if mine.shape != theirs.shape:
            return f"The model is given `{name}` of the shape {list(mine.shape)}; it should be {list(theirs.shape)}."
        wrong = ~torch.isclose(mine.double(), theirs.double(), atol=1e-4)
        if wrong.any() and name == "inputs_embeds":
            places = wrong.any(-1).any(0).nonzero().flatten().tolist()
            return f"`inputs_embeds` differs at the places {places}: they are picture, prompt, and a decoder's answer."
        if wrong.any():
            return (
                f"`{name}` is {mine.long().tolist()} when you call the model, and should be {theirs.long().tolist()}."
            )
    return "What the model reads is right: look at which rows of its logits are returned."


def _window_told(case: Case, got: Tensor, encoder_decoder: bool) -> str | None:
    """From which place on the logits of a decoder are returned, where that is the wrong one."""
    model, picture, prompt, prompt_mask, answer, answer_mask = case.args
    if encoder_decoder:
        return None
    embeddings, mask = model.prepend(picture, Text(prompt, prompt_mask).then(Text(answer, answer_mask)))
    logits = model.model(inputs_embeds=embeddings, attention_mask=mask).logits
    right = picture.shape[1] + prompt.shape[1] - 1
    for place in range(logits.shape[1] - got.shape[1] + 1):
        window = logits[:, place : place + got.shape[1]]
        if place != right and torch.allclose(got[answer_mask], window[answer_mask], atol=1e-4):
            return (
                f"These are the logits from place {place} on. The answer's begin at place {right}: the picture takes "
                f"{picture.shape[1]} places, the prompt {prompt.shape[1]}, and its last one predicts the first token."
            )
    return None


def _logits_rules(case: Case, got: Any, expected: Tensor) -> str | None:
    """What is wrong with logits of a known or an unknown shape."""
    answer_length = case.args[4].shape[1]
    if not isinstance(got, Tensor) or not got.is_floating_point():
        return None
    if got.ndim == 3 and got.shape[1] == answer_length + 1:
        return "One row too many: T rows predict the answer's T tokens; the last one has no target."
    if got.ndim == 3 and got.shape[1] == answer_length - 1:
        return "One row too few: T rows predict the answer's T tokens, the first of them from the end of the prompt."
    if got.ndim == 3 and got.shape[1] != answer_length:
        return f"{got.shape[1]} rows are returned: the {answer_length} that predict the answer's tokens are asked for."
    if got.shape != expected.shape:
        return None
    real = case.args[-1]
    if told := _window_told(case, got, case.args[0].model.config.is_encoder_decoder):
        return told
    if torch.allclose(got.softmax(-1)[real], expected.softmax(-1)[real], atol=1e-4):
        return (
            "Those are the logits up to a constant in each row (log_softmax?): return the model's logits as they are."
        )
    wrong = ~torch.isclose(got, expected, atol=1e-3).all(-1) & real
    rows, places = wrong.any(1), wrong.any(0)
    if not rows.all():
        sample = int(rows.int().argmax())
        return f"Right for some samples of the batch, wrong for number {sample}: what differs is padding."
    if places[0] and not places[1:].any():
        return "Only the first answer token's logits differ: they come from the prompt's last token."
    if not places[0]:
        return "The first answer token's logits are right, the later ones are not: what has the model read by then?"
    return None  # `_inputs_told` says what the model reads


def _all_logits(model: TinyLanguageModel, picture: Tensor, text: Text) -> Tensor:
    embeddings, mask = model.prepend(picture, text)
    return model.model(inputs_embeds=embeddings, attention_mask=mask).logits


def _prompt_first(model: TinyLanguageModel, picture: Tensor, prompt: Text, answer: Text) -> Tensor:
    embed = model.model.get_input_embeddings()
    seen = torch.ones(picture.shape[:2], dtype=torch.bool)
    return model.model(
        inputs_embeds=torch.cat([embed(prompt.ids), picture, embed(answer.ids)], dim=1),
        attention_mask=torch.cat([prompt.mask, seen, answer.mask], dim=1).long(),
    ).logits


def _unmasked(model: TinyLanguageModel, picture: Tensor, text: Text) -> Tensor:
    return model.model(inputs_embeds=model.prepend(picture, text)[0]).logits


def _decoder_but(change: Callable[[Tensor, int], Tensor]) -> Callable:
    """A wrong selection from the logits of all positions, given the answer's length."""
    return lambda model, picture, prompt, answer: change(
        _all_logits(model, picture, prompt.then(answer)), answer.ids.shape[1]
    )


decoder_answer_logits = Check(
    "decoder_answer_logits",
    DecoderLanguageModel.answer_logits,
    lambda: _answer_cases(encoder_decoder=False),
    "Logits [B, T, V], each from the position *before* the token it predicts; the first from the end of the prompt.",
    {
        "Not shifted: these logits stand *at* the answer's tokens, so each has read the token it is to predict. The "
        "loss would fall to nothing.": _decoder_but(lambda logits, length: logits[:, -length:]),
        "Shifted once too often: each token is predicted from two positions before it.": (
            _decoder_but(lambda logits, length: logits[:, -length - 2 : -2])
        ),
        "All positions are returned. Nobody predicts the picture or the prompt: keep the answer's T.": (
            _decoder_but(lambda logits, length: logits)
        ),
        "The first T positions are taken: those are the picture's. The answer stands at the end of the row.": (
            _decoder_but(lambda logits, length: logits[:, :length])
        ),
        "Cut off too early: the soft words stand in front of the prompt and have to be counted.": (
            lambda model, picture, prompt, answer: _all_logits(model, picture, prompt.then(answer))[
                :, prompt.ids.shape[1] - 1 : prompt.ids.shape[1] - 1 + answer.ids.shape[1]
            ]
        ),
        "T + 1 rows: the last one has no target, so leave it out.": (
            _decoder_but(lambda logits, length: logits[:, -length - 1 :])
        ),
        "T - 1 rows: the first answer token is predicted from the end of the prompt.": (
            _decoder_but(lambda logits, length: logits[:, -length:-1])
        ),
        "The attention mask is not given to the model: it reads the prompt's padding.": (
            lambda model, picture, prompt, answer: _unmasked(model, picture, prompt.then(answer))[
                :, -answer.ids.shape[1] - 1 : -1
            ]
        ),
        "The attention mask is upside down: 1 = may attend.": lambda model, picture, prompt, answer: model.model(
            inputs_embeds=model.prepend(picture, prompt.then(answer))[0],
            attention_mask=1 - model.prepend(picture, prompt.then(answer))[1],
        ).logits[:, -answer.ids.shape[1] - 1 : -1],
        "Those are log-probabilities: return the logits, without log_softmax.": (
            _decoder_but(lambda logits, length: logits[:, -length - 1 : -1].log_softmax(-1))
        ),
        "Those are probabilities: return the logits, without softmax.": (
            _decoder_but(lambda logits, length: logits[:, -length - 1 : -1].softmax(-1))
        ),
        "The prompt is missing: the row is [picture][prompt][answer].": (
            lambda model, picture, prompt, answer: _all_logits(model, picture, answer)[:, -answer.ids.shape[1] - 1 : -1]
        ),
        "The prompt stands in front of the picture: the row is [picture][prompt][answer].": (
            lambda model, picture, prompt, answer: _prompt_first(model, picture, prompt, answer)[
                :, -answer.ids.shape[1] - 1 : -1
            ]
        ),
        "The answer stands in front of the prompt: the row is [picture][prompt][answer].": (
            lambda model, picture, prompt, answer: _all_logits(model, picture, answer.then(prompt))[
                :, -answer.ids.shape[1] - 1 : -1
            ]
        ),
        "The answer is missing in what the model reads: later answer tokens are predicted from earlier ones.": (
            lambda model, picture, prompt, answer: _all_logits(model, picture, prompt)[:, -1:].expand(
                -1, answer.ids.shape[1], -1
            )
        ),
        "The chosen tokens (argmax) are returned; logits are asked for.": (
            _decoder_but(lambda logits, length: logits[:, -length - 1 : -1].argmax(-1))
        ),
        "The picture is missing: these logits come from the words alone.": (
            lambda model, picture, prompt, answer: _all_logits(model, picture[:, :0], prompt.then(answer))[
                :, -answer.ids.shape[1] - 1 : -1
            ]
        ),
    },
    rules=(_logits_rules,),
    seen=_inputs_told,
    run=_real_logits,
)


# --- An encoder-decoder ---------------------------------------------------------------------------------------------


def _t5(model: TinyLanguageModel, picture: Tensor, prompt: Text, ids: Tensor, mask: Tensor) -> Tensor:
    embeddings, attention = model.prepend(picture, prompt)
    return model.model(
        inputs_embeds=embeddings, attention_mask=attention, decoder_input_ids=ids, decoder_attention_mask=mask.long()
    ).logits


def _start(model: TinyLanguageModel) -> int:
    return model.model.config.decoder_start_token_id


def _right(model: TinyLanguageModel, answer: Text) -> Text:
    return Text(F.pad(answer.ids[:, :-1], (1, 0), value=_start(model)), F.pad(answer.mask[:, :-1], (1, 0), value=True))


def _both(text: Text) -> tuple[Tensor, Tensor]:
    return text.ids, text.mask


encoder_decoder_answer_logits = Check(
    "encoder_decoder_answer_logits",
    EncoderDecoderLanguageModel.answer_logits,
    lambda: _answer_cases(encoder_decoder=True),
    "The encoder reads picture and prefix; the decoder begins with the start token, one token late.",
    {
        "Not shifted: the decoder reads the very token it is to predict. Begin with the start token and leave the last "
        "one out.": lambda model, v, p, a: _t5(model, v, p, a.ids, a.mask),
        "The start token is missing or another one: the decoder begins with `decoder_start_token_id`.": (
            lambda model, v, p, a: _t5(model, v, p, F.pad(a.ids[:, :-1], (1, 0), value=PAD), _right(model, a).mask)
        ),
        "The start token is a fixed number: take `language_model.model.config.decoder_start_token_id`.": (
            lambda model, v, p, a: _t5(
                model, v, p, F.pad(a.ids[:, :-1], (1, 0), value=START), F.pad(a.mask[:, :-1], (1, 0), value=True)
            )
        ),
        # no token reads the padding behind it, so a mask of zeros gives the same
        "The decoder's mask is upside down, or 0 everywhere: 1 = may attend.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, ~_right(model, a).mask)
        ),
        "The encoder's mask is upside down: 1 = may attend.": lambda model, v, p, a: (
            model.model(
                inputs_embeds=model.prepend(v, p)[0],
                attention_mask=1 - model.prepend(v, p)[1],
                decoder_input_ids=_right(model, a).ids,
                decoder_attention_mask=_right(model, a).mask.long(),
            ).logits
        ),
        "The logits are shifted as well: the ids are shifted already, so row t predicts answer token t.": (
            lambda model, v, p, a: _t5(model, v, p, *_both(_right(model, a))).roll(1, 1)
        ),
        "The decoder reads the prefix, too: the encoder reads it, the decoder reads the answer alone.": (
            lambda model, v, p, a: _t5(model, v, p, *_both(_right(model, p.then(a))))[:, -a.ids.shape[1] :]
        ),
        "The decoder reads the prefix, and the encoder does not: the encoder reads picture and prefix.": (
            lambda model, v, p, a: _t5(model, v, Text(p.ids[:, :0], p.mask[:, :0]), *_both(_right(model, p.then(a))))[
                :, -a.ids.shape[1] :
            ]
        ),
        "Shifted to the left: the decoder reads the token *after* the one it predicts.": (
            lambda model, v, p, a: _t5(
                model, v, p, F.pad(a.ids[:, 1:], (0, 1), value=_start(model)), F.pad(a.mask[:, 1:], (0, 1), value=True)
            )
        ),
        "The prefix is missing in the encoder: it reads the picture alone.": (
            lambda model, v, p, a: _t5(
                model, v, Text(p.ids[:, :0], p.mask[:, :0]), _right(model, a).ids, _right(model, a).mask
            )
        ),
        "The picture is missing in the encoder: it reads the prefix alone.": (
            lambda model, v, p, a: _t5(model, v[:, :0], p, _right(model, a).ids, _right(model, a).mask)
        ),
        "The prefix stands in front of the picture in the encoder: the picture comes first.": (
            lambda model, v, p, a: (
                model.model(
                    inputs_embeds=torch.cat([model.model.get_input_embeddings()(p.ids), v], dim=1),
                    attention_mask=F.pad(p.mask.long(), (0, v.shape[1]), value=1),
                    decoder_input_ids=_right(model, a).ids,
                    decoder_attention_mask=_right(model, a).mask.long(),
                ).logits
            )
        ),
        "The attention mask is not given to the encoder: it reads the prefix's padding.": (
            lambda model, v, p, a: (
                model.model(inputs_embeds=model.prepend(v, p)[0], decoder_input_ids=_right(model, a).ids).logits
            )
        ),
        "Those are log-probabilities: return the logits, without log_softmax.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, _right(model, a).mask).log_softmax(-1)
        ),
        "Those are probabilities: return the logits, without softmax.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, _right(model, a).mask).softmax(-1)
        ),
        "The start token stands in front, but nothing is left out: T + 1 rows. Leave the last token out.": (
            lambda model, v, p, a: _t5(
                model, v, p, F.pad(a.ids, (1, 0), value=_start(model)), F.pad(a.mask, (1, 0), value=True)
            )
        ),
        "The last row is thrown away after the shift: T rows are asked for.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, _right(model, a).mask)[:, :-1]
        ),
        "The first row is thrown away: the decoder's first row predicts the first answer token.": (
            lambda model, v, p, a: _t5(
                model, v, p, F.pad(a.ids, (1, 0), value=_start(model)), F.pad(a.mask, (1, 0), value=True)
            )[:, 1:]
        ),
        "The decoder reads the start token again and again, not the answer's tokens.": (
            lambda model, v, p, a: _t5(model, v, p, torch.full_like(a.ids, _start(model)), torch.ones_like(a.mask))
        ),
        "The decoder's mask hides the start token: the mask shifts along, with a 1 in front.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, F.pad(a.mask[:, :-1], (1, 0), value=False))
        ),
        "Shifted twice: the decoder lags two tokens behind.": (
            lambda model, v, p, a: _t5(
                model,
                v,
                p,
                F.pad(a.ids[:, :-2], (2, 0), value=_start(model))[:, : a.ids.shape[1]],
                torch.ones_like(a.mask),
            )
        ),
        "Encoder and decoder are exchanged: the encoder reads picture and prefix.": (
            lambda model, v, p, a: _t5(
                model,
                v,
                a,
                F.pad(p.ids, (1, a.ids.shape[1]), value=_start(model))[:, : a.ids.shape[1]],
                torch.ones_like(a.mask),
            )
        ),
        "The chosen tokens (argmax) are returned; logits are asked for.": (
            lambda model, v, p, a: _t5(model, v, p, _right(model, a).ids, _right(model, a).mask).argmax(-1)
        ),
        "The encoder reads the answer as well: then there is nothing left to predict.": (
            lambda model, v, p, a: _t5(model, v, p.then(a), _right(model, a).ids, _right(model, a).mask)
        ),
    },
    rules=(_logits_rules,),
    seen=_inputs_told,
    run=_real_logits,
)


# --- The loss -------------------------------------------------------------------------------------------------------


def _loss_cases() -> list[Case]:
    made = []
    for answers, pad_id in (
        (((4, 1),), PAD), (((4, 5, 6, 1), (6, 1)), PAD), (((PAD, 5, 1), (6,)), PAD), (((5, 0, 1), (6, 3)), 1),
    ):  # fmt: skip
        ids, mask = text_of(*answers, pad_token_id=pad_id)
        leaf, logits = learning(3 * random(*ids.shape, VOCAB, seed=sum(map(len, answers))))
        speaker = TinyLanguageModel(logits, pad_token_id=pad_id)
        seen, picture = learning(random(len(ids), 2, WIDTH, seed=len(ids)))
        prompt = text_of(*[(3, 2)] * len(ids))
        description = f"answers {ids.tolist()}, real: {mask.int().tolist()}, pad id {pad_id}"
        learns = {"the logits": leaf, "the visual prompt": seen}
        made.append(Case(description, (speaker, picture, *prompt, ids, mask), learns))
    return made


def _cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, **options)


def _labels(answer: Text) -> Tensor:
    return answer.ids.masked_fill(~answer.mask, IGNORE_INDEX)


def _loss_but(change: Callable[[Tensor, Text], Tensor]) -> Callable:
    """A wrong loss from the logits and the answer."""
    return lambda model, picture, prompt, answer: change(model.answer_logits(picture, prompt, answer), answer)


def _of_each_row(logits: Tensor, answer: Text) -> Tensor:
    rows = [_cross_entropy(x[None], y[None]) for x, y in zip(logits, _labels(answer), strict=True)]
    return torch.stack(rows).mean()


def _each_token(logits: Tensor, answer: Text) -> Tensor:
    """The loss of every token [B, T], 0 where it is padding."""
    return F.cross_entropy(logits.mT, _labels(answer), ignore_index=IGNORE_INDEX, reduction="none")


def _end_ignored(logits: Tensor, answer: Text) -> Tensor:
    last = answer.mask.sum(dim=1, keepdim=True) - 1
    labels = _labels(answer).scatter(1, last, IGNORE_INDEX)
    return _cross_entropy(logits, labels)


answer_loss = Check(
    "answer_loss",
    LanguageModel.answer_loss,
    _loss_cases,
    "The mean over the batch's real answer tokens, the end among them; padding counts for nothing.",
    {
        "Padding is learned too: the model is praised for writing padding. Label it IGNORE_INDEX.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, answer.ids))
        ),
        "Padding is recognized by its id. Here a real token has that id: use answer.mask.": (
            lambda model, picture, prompt, answer: _cross_entropy(
                model.answer_logits(picture, prompt, answer),
                answer.ids.masked_fill(answer.ids == model.pad_token_id, IGNORE_INDEX),
            )
        ),
        "The picture is left out: answer_logits reads the visual prompt as it is given.": (
            lambda model, picture, prompt, answer: _cross_entropy(
                model.answer_logits(0 * picture, prompt, answer), _labels(answer)
            )
        ),
        "The prompt is left out: answer_logits reads picture, prompt and answer.": (
            lambda model, picture, prompt, answer: _cross_entropy(
                model.answer_logits(picture, Text(prompt.ids[:, :0], prompt.mask[:, :0]), answer), _labels(answer)
            )
        ),
        "Shifted once more: these logits already stand one position before their token.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits[:, :-1], _labels(answer)[:, 1:]))
        ),
        "The mean of each answer's mean: a token of a short answer counts more. The mean goes over all tokens.": (
            _loss_but(_of_each_row)
        ),
        "The sum, not the mean: the learning rate would depend on how long captions are.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, _labels(answer), reduction="sum"))
        ),
        "The end token is not learned: the model would never stop writing.": _loss_but(_end_ignored),
        "Padding is recognized by the id 0: use answer.mask.": (
            _loss_but(
                lambda logits, answer: _cross_entropy(logits, answer.ids.masked_fill(answer.ids == 0, IGNORE_INDEX))
            )
        ),
        "The mask is upside down: padding is learned and the answer is not.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, answer.ids.masked_fill(answer.mask, IGNORE_INDEX)))
        ),
        "Padding's loss is 0, but it is in the denominator: divide by the number of real tokens.": (
            _loss_but(lambda logits, answer: _each_token(logits, answer).mean())
        ),
        "Padding's logits are set to 0 and its tokens are learned all the same.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits * answer.mask[..., None], answer.ids))
        ),
        "Padding is labeled 0, which is a token: label it IGNORE_INDEX.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, answer.ids.masked_fill(~answer.mask, 0)))
        ),
        "Divided by the number of answers: take the mean over all tokens.": (
            _loss_but(lambda logits, answer: _each_token(logits, answer).sum() / len(answer.ids))
        ),
        "One loss for each token: take the mean.": _loss_but(_each_token),
        "One loss for each answer: take the mean over all tokens of the batch.": (
            _loss_but(lambda logits, answer: _each_token(logits, answer).sum(1) / answer.mask.sum(1))
        ),
        "There is a softmax before cross_entropy, which takes one itself.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits.softmax(-1), _labels(answer)))
        ),
        "Labels are smoothed: this loss asks for none.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, _labels(answer), label_smoothing=0.1))
        ),
        "The sign is turned: the loss is minus the logarithm of the probability.": (
            _loss_but(lambda logits, answer: -_cross_entropy(logits, _labels(answer)))
        ),
        "The logarithm of the mean probability: take the mean of the tokens' logarithms.": (
            _loss_but(
                lambda logits, answer: (
                    -logits.softmax(-1).gather(2, answer.ids[..., None])[..., 0][answer.mask].mean().log()
                )
            )
        ),
        "The probabilities are averaged, without a logarithm.": (
            _loss_but(
                lambda logits, answer: (
                    1 - logits.softmax(-1).gather(2, answer.ids[..., None])[..., 0][answer.mask].mean()
                )
            )
        ),
        "The perplexity (exp of the loss) is returned.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits, _labels(answer)).exp())
        ),
        "Only the first token of each answer is learned.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits[:, :1], _labels(answer)[:, :1]))
        ),
        "The first token of each answer is not learned.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits[:, 1:], _labels(answer)[:, 1:]))
        ),
        "Only the last place of the row is learned.": (
            _loss_but(lambda logits, answer: F.cross_entropy(logits[:, -1], answer.ids[:, -1]))
        ),
        "The mean of each answer is added up: take the mean over all tokens.": (
            _loss_but(lambda logits, answer: _of_each_row(logits, answer) * len(logits))
        ),
        "The labels lag one token behind: these logits already stand in the right place.": (
            _loss_but(lambda logits, answer: F.cross_entropy(logits[answer.mask][1:], answer.ids[answer.mask][:-1]))
        ),
        "There is a softmax over the places before cross_entropy, which takes one over the vocabulary.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits.log_softmax(1), _labels(answer)))
        ),
        "That is a margin loss: cross-entropy takes the logarithm of the right token's probability.": (
            _loss_but(lambda logits, answer: F.multi_margin_loss(logits[answer.mask], answer.ids[answer.mask]))
        ),
        "Only the last token of each answer is learned: all of its tokens are.": (
            _loss_but(
                lambda logits, answer: torch.stack(
                    [
                        F.cross_entropy(row[real][-1], ids[real][-1])
                        for row, ids, real in zip(logits, answer.ids, answer.mask, strict=True)
                    ]
                ).mean()
            )
        ),
        "Only the first answer of the batch is learned.": (
            _loss_but(lambda logits, answer: _cross_entropy(logits[:1], _labels(answer)[:1]))
        ),
        "The logits of the right tokens are averaged as they are: cross-entropy takes their log_softmax.": (
            _loss_but(lambda logits, answer: -logits.gather(2, answer.ids[..., None])[..., 0][answer.mask].mean())
        ),
    },
    run=_on_texts,
)
