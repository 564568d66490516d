"""Checks of notebook 10, second half: which logits predict an answer, and which of its tokens have a loss.

The language models are those of soft_prompt.py, whose logits depend on every token they may attend to, in order.

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
from blip2_lab.teaching.checks.check import Case, Check
from blip2_lab.teaching.checks.soft_prompt import PAD, START, VOCAB, WIDTH, TinyLanguageModel, random, text_of

# --- A decoder ------------------------------------------------------------------------------------------------------


def _answer_cases(encoder_decoder: bool) -> list[Case]:
    made = []
    for i, (prompts, answers) in enumerate(((((3,),), ((4, 5),)), (((3, 6), (5,)), ((4, 5, 1), (6, 1))))):
        prompt, answer = text_of(*prompts, left=not encoder_decoder), text_of(*answers)
        picture = random(len(prompts), 2, WIDTH, seed=5 + i)
        description = f"2 soft words, prompt {prompt[0].tolist()}, answer {answer[0].tolist()}"
        made.append(Case(description, (TinyLanguageModel(), picture, *prompt, *answer)))
    return made


def _on_texts(function: Callable, args: tuple) -> Any:
    model, picture, prompt, prompt_mask, answer, answer_mask = args
    return function(model, picture, Text(prompt, prompt_mask), Text(answer, answer_mask))


def _all_logits(model: TinyLanguageModel, picture: Tensor, text: Text) -> Tensor:
    embeddings, mask = model.prepend(picture, text)
    return model.model(inputs_embeds=embeddings, attention_mask=mask).logits


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
        "The picture is missing: these logits come from the words alone.": (
            lambda model, picture, prompt, answer: _all_logits(model, picture[:, :0], prompt.then(answer))[
                :, -answer.ids.shape[1] - 1 : -1
            ]
        ),
    },
    run=_on_texts,
)


# --- An encoder-decoder ---------------------------------------------------------------------------------------------


def _t5(model: TinyLanguageModel, picture: Tensor, prompt: Text, ids: Tensor, mask: Tensor) -> Tensor:
    embeddings, attention = model.prepend(picture, prompt)
    return model.model(
        inputs_embeds=embeddings, attention_mask=attention, decoder_input_ids=ids, decoder_attention_mask=mask.long()
    ).logits


def _right(answer: Text) -> Text:
    return Text(F.pad(answer.ids[:, :-1], (1, 0), value=START), F.pad(answer.mask[:, :-1], (1, 0), value=True))


encoder_decoder_answer_logits = Check(
    "encoder_decoder_answer_logits",
    EncoderDecoderLanguageModel.answer_logits,
    lambda: _answer_cases(encoder_decoder=True),
    "The encoder reads picture and prefix; the decoder begins with the start token, one token late.",
    {
        "Not shifted: the decoder reads the very token it is to predict. Begin with the start token and leave the last "
        "one out.": lambda model, v, p, a: _t5(model, v, p, a.ids, a.mask),
        "The start token is missing or another one: the decoder begins with `decoder_start_token_id`.": (
            lambda model, v, p, a: _t5(model, v, p, F.pad(a.ids[:, :-1], (1, 0), value=PAD), _right(a).mask)
        ),
        "Shifted to the left: the decoder reads the token *after* the one it predicts.": (
            lambda model, v, p, a: _t5(
                model, v, p, F.pad(a.ids[:, 1:], (0, 1), value=START), F.pad(a.mask[:, 1:], (0, 1), value=True)
            )
        ),
        "The prefix is missing in the encoder: it reads the picture alone.": (
            lambda model, v, p, a: _t5(model, v, Text(p.ids[:, :0], p.mask[:, :0]), _right(a).ids, _right(a).mask)
        ),
        "The picture is missing in the encoder: it reads the prefix alone.": (
            lambda model, v, p, a: _t5(model, v[:, :0], p, _right(a).ids, _right(a).mask)
        ),
        "The encoder reads the answer as well: then there is nothing left to predict.": (
            lambda model, v, p, a: _t5(model, v, p.then(a), _right(a).ids, _right(a).mask)
        ),
    },
    run=_on_texts,
)


# --- The loss -------------------------------------------------------------------------------------------------------


def _loss_cases() -> list[Case]:
    made = []
    for answers in (((4, 1),), ((4, 5, 6, 1), (6, 1)), ((PAD, 5, 1), (6,))):
        ids, mask = text_of(*answers)
        speaker = TinyLanguageModel(3 * random(*ids.shape, VOCAB, seed=sum(map(len, answers))))
        nothing = torch.zeros(len(ids), 0, WIDTH)
        prompt = text_of(*[(3,)] * len(ids))
        made.append(
            Case(f"answers {ids.tolist()}, real: {mask.int().tolist()}", (speaker, nothing, *prompt, ids, mask))
        )
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
            _loss_but(
                lambda logits, answer: _cross_entropy(logits, answer.ids.masked_fill(answer.ids == PAD, IGNORE_INDEX))
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
    },
    run=_on_texts,
)
