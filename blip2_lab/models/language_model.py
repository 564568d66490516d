"""Frozen language models with a soft visual prompt: OPT (decoder) and FlanT5 (encoder-decoder).

`LanguageModel` is where to begin; its subclasses implement what differs between the two kinds.

Notes:

* `visual_prompt` [B,Q,Dl] precedes the text embeddings, with attention mask 1. It has no token ids.
* The language model is frozen and always in eval mode. Gradients flow through it to the visual prompt. (differs from
  LAVIS: it keeps the language model's dropout on in training.)
* OPT pads on the left to generate: [visual prompt][pads][prompt]. T5 pads on the right.
* The probability of a token is always the model's (temperature 1, no penalties), for every way of decoding.
* With deep fusion (`with_deep_fusion`), `visual_prompt` is not in front of the text: blocks between the layers attend
  to it (models/bridges/gated_cross_attention.py). It takes up no position.

Paper: section 3.3 (two types of LLM), 4.1 and 4.2 (prompts, beam search of width 5, length penalty -1). Notebook: 10.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_lab.models.decoding import PAPER_DECODING, Decoding, Token, choose_token
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.texts import warn_of_cut
from blip2_lab.models.vision_encoder import freeze

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from blip2_lab.models.bridges.gated_cross_attention import GatedCrossAttention, KeysValues


@dataclass(frozen=True)
class Text:
    """Token ids [B,T] and bool mask [B,T]: True = token, False = padding."""

    ids: Tensor
    mask: Tensor

    def then(self, other: Text) -> Text:
        """Both texts, one after the other: [B,T1+T2]."""
        return Text(torch.cat([self.ids, other.ids], dim=1), torch.cat([self.mask, other.mask], dim=1))


def pad(
    rows: Sequence[Sequence[int]], pad_token_id: int, *, left: bool = False, device: torch.device | None = None
) -> Text:
    """Rows of token ids of any length -> one batch [B,T], padded on the right or on the left."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_token_id)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = True
    return Text(ids.to(device), mask.to(device))


LEARNED, SETTING = "captions and answers", "`max_text_tokens` of the language model"  #: in a warning about cut texts


class LanguageModel(nn.Module):
    """A frozen language model that reads `visual_prompt` [B,Q,Dl] in front of its text.

    `model` is transformers' model and `tokenizer` its tokenizer (None where only ids are used). `end_token_id` ends an
    answer; by default the model's end-of-text token. `max_text_tokens` truncates training texts (LAVIS: 32); prompts
    for generation are not truncated (differs from LAVIS: a long question would lose its "Short answer:"), and neither
    are a decoder's prompts in training (they would leave no room for the answer).
    Use `DecoderLanguageModel` or `EncoderDecoderLanguageModel`, or `language_model(...)`, which selects one.
    """

    question_prompt: str  #: the paper's prompt for a question, which replaces "{}"
    deep_fusion: GatedCrossAttention | None = None  #: set by `with_deep_fusion`

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        end_token_id: int | None = None,
        max_text_tokens: int = 32,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        ends = getattr(model.config, "eos_token_id", None) if end_token_id is None else end_token_id
        self.end_token_id = ends[0] if isinstance(ends, list) else ends
        if self.end_token_id is None or not model.can_generate():
            what = "has no end token: pass end_token_id" if model.can_generate() else "generates no text: take another"
            raise ValueError(f"This language model, a {type(model).__name__}, {what}.")
        self.max_text_tokens = max_text_tokens
        freeze(self)  # differs from LAVIS: its language model keeps dropout on in training

    def with_deep_fusion(self, bridge: GatedCrossAttention) -> LanguageModel:
        """The same frozen model (shared, not copied), with this bridge's blocks between its layers."""
        fused = copy.copy(self)
        # not a submodule: the bridge is trained, saved and frozen apart from the language model
        object.__setattr__(fused, "deep_fusion", bridge)
        bridge.check_layers(decoder_layers(self.model))
        return fused

    @property
    def width(self) -> int:
        """Dl, the width of a word embedding (and of a visual prompt)."""
        return self.model.get_input_embeddings().embedding_dim

    @property
    def pad_token_id(self) -> int:
        """The padding token; where neither model nor tokenizer has one (GPT-2, LLaMA), the end token. The attention
        mask hides it, and it is no target."""
        own = (getattr(self.model.config, "pad_token_id", None), getattr(self.tokenizer, "pad_token_id", None))
        return next((token for token in own if token is not None and token >= 0), self.end_token_id)

    # -- implemented by the subclasses -----------------------------------------------------------------------------

    def answer_logits(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        """[B,Q,Dl], prompt ids [B,P], answer ids [B,T] -> [B,T,V]: logits that predict each answer token."""
        raise NotImplementedError

    def first_logits(self, visual_prompt: Tensor, prompt: Text) -> tuple[Tensor, tuple]:
        """-> logits [B,V] of the first answer token, and the state for `next_logits`."""
        raise NotImplementedError

    def next_logits(self, token: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """token ids [B,1] -> logits [B,V] of the next token, with keys and values of earlier tokens from the cache."""
        raise NotImplementedError

    def select_rows(self, state: tuple, rows: Tensor) -> tuple:
        """The state of `next_logits` for some of its rows, long[B'], when the others have ended. The old state is not
        to be used any more: its cache is changed."""
        raise NotImplementedError

    def pair_texts(
        self, prompts: Sequence[str], answers: Sequence[str], max_tokens: int | None = None
    ) -> tuple[Text, Text]:
        """Prompts and answers as padded ids: answers end in `end_token_id`, both truncated to `max_tokens` (None: not
        truncated)."""
        raise NotImplementedError

    def prompt_texts(self, prompts: Sequence[str]) -> Text:
        """Prompts as padded ids [B,P] for generation, not truncated."""
        raise NotImplementedError

    # -- shared ----------------------------------------------------------------------------------------------------

    def training_texts(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[Text, Text]:
        """`pair_texts`, both truncated to `max_text_tokens`."""
        return self.pair_texts(prompts, answers, self.max_text_tokens)

    @torch.no_grad()
    def log_likelihood(
        self, visual_prompt: Tensor, prompt: Sequence[str], answer: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Log-probability [B] of each answer, its end token included, and the number of its tokens [B], given
        visual_prompt [B,Q,Dl] and prompts."""
        prompt_text, answer_text = self.pair_texts(prompt, answer)
        self.check_length(self.prefix_length(visual_prompt) + prompt_text.ids.shape[1] + answer_text.ids.shape[1])
        return self._log_probability(visual_prompt, prompt_text, answer_text), answer_text.mask.sum(dim=1)

    def _log_probability(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        """`log_likelihood` from ids: the sum [B] over the tokens of each answer."""
        logits = self.answer_logits(visual_prompt, prompt, answer).float().log_softmax(dim=-1)
        each = logits.gather(2, answer.ids[:, :, None])[:, :, 0]
        return each.masked_fill(~answer.mask, 0).sum(dim=1)

    def loss(self, visual_prompt: Tensor, prompt: Sequence[str], answer: Sequence[str]) -> Tensor:
        """Mean cross-entropy of the answers' tokens given image and prompt. visual_prompt [B,Q,Dl] -> scalar."""
        return self.loss_and_count(visual_prompt, prompt, answer)[0]

    def targets(self, answer: Text) -> Tensor:
        """bool[B,T]: the answer tokens that are learned. An unknown token is not: it stands for any word."""
        # differs from LAVIS and transformers: there a model with a small vocabulary learns to write <unk>
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        ends = (self.end_token_id, self.pad_token_id, self.model.config.eos_token_id)  # OPT's unknown token is its end
        return answer.mask if unknown is None or unknown in ends else answer.mask & (answer.ids != unknown)

    def loss_and_count(
        self, visual_prompt: Tensor, prompt: Sequence[str], answer: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """`loss`, and the number of tokens it is the mean of: its weight in a mean over several batches."""
        prompt_text, answer_text = self.training_texts(prompt, answer)
        if prompt_text.ids.shape[1] > self.max_text_tokens:
            self.check_length(visual_prompt.shape[1] + prompt_text.ids.shape[1] + answer_text.ids.shape[1])
        return self.answer_loss(visual_prompt, prompt_text, answer_text), self.targets(answer_text).sum()

    def answer_loss(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        """`loss` from ids: prompt [B,P], answer [B,T] -> scalar, the mean over the answer tokens of the batch."""
        logits = self.answer_logits(visual_prompt, prompt, answer)
        labels = answer.ids.masked_fill(~self.targets(answer), IGNORE_INDEX)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE_INDEX)

    def losses_of_each(
        self, visual_prompt: Tensor, prompt: Sequence[str], answer: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """The sums of which `loss` is the mean: the cross-entropy of each answer [B], and the number of its tokens [B]
        that are learned."""
        prompt_text, answer_text = self.training_texts(prompt, answer)
        logits, learned = self.answer_logits(visual_prompt, prompt_text, answer_text), self.targets(answer_text)
        labels = answer_text.ids.masked_fill(~learned, IGNORE_INDEX)
        each = F.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=IGNORE_INDEX, reduction="none")
        return each.sum(dim=1), learned.sum(dim=1)

    def prepend(self, visual_prompt: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """-> embeddings [B,Q+T,Dl], the visual prompt first, and their attention mask [B,Q+T] (1 = may attend). With
        deep fusion: those of the text alone."""
        words = self.model.get_input_embeddings()(text.ids)
        if self.deep_fusion is not None:
            return words, text.mask.long()
        embeddings = torch.cat([visual_prompt.to(words.dtype), words], dim=1)
        return embeddings, F.pad(text.mask.long(), (visual_prompt.shape[1], 0), value=1)

    def prefix_length(self, visual_prompt: Tensor) -> int:
        """The positions that visual_prompt [B,Q,Dl] takes up: Q, or none with deep fusion."""
        return 0 if self.deep_fusion is not None else visual_prompt.shape[1]

    def image_keys_values(self, visual_prompt: Tensor) -> tuple[KeysValues, ...] | None:
        """With deep fusion: the image's keys and values for each block, for any number of `fused_with`. Else None."""
        return None if self.deep_fusion is None else self.deep_fusion.keys_values(visual_prompt)

    def fused_with(self, image: tuple[KeysValues, ...] | None) -> AbstractContextManager:
        """Inside the block the layers attend to this image (`image_keys_values`), where there is deep fusion."""
        return (
            nullcontext() if self.deep_fusion is None else self.deep_fusion.attending(decoder_layers(self.model), image)
        )

    @torch.no_grad()
    def generate(
        self,
        visual_prompt: Tensor,
        prompt: Sequence[str],
        decoding: Decoding = PAPER_DECODING,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> list[str]:
        """Generate an answer to each prompt about its image. visual_prompt [B,Q,Dl] -> B texts.

        `stop` is called after every token; when it returns True, the answers so far are returned.
        """
        text = self.prompt_texts(prompt)
        return [self.decode(row) for row in self.generate_ids(visual_prompt, text, decoding, stop=stop)]

    @torch.no_grad()
    def generate_with_probability(
        self, visual_prompt: Tensor, prompt: Sequence[str], decoding: Decoding = PAPER_DECODING
    ) -> list[tuple[str, float]]:
        """`generate`, each text with its probability: the product of its tokens', the end token left out."""
        text = self.prompt_texts(prompt)
        rows = self.generate_ids(visual_prompt, text, decoding)
        answer = pad(rows, self.pad_token_id, device=visual_prompt.device)
        probabilities = torch.ones(len(rows))
        if answer.ids.shape[1]:
            probabilities = self._log_probability(visual_prompt, text, answer).exp()
        return list(zip([self.decode(row) for row in rows], probabilities.tolist(), strict=True))

    @torch.no_grad()
    def generate_ids(
        self,
        visual_prompt: Tensor,
        prompt: Text,
        decoding: Decoding = PAPER_DECODING,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> list[list[int]]:
        """`generate` from ids: B rows of new token ids, without the end token."""
        from transformers import GenerationConfig, StoppingCriteriaList

        self.check_length(self.prefix_length(visual_prompt) + prompt.ids.shape[1] + decoding.max_new_tokens)
        embeddings, mask = self.prepend(visual_prompt, prompt)
        beams = 1 if decoding.do_sample else decoding.num_beams
        settings = GenerationConfig(
            num_beams=beams,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            length_penalty=decoding.length_penalty if beams > 1 else None,
            do_sample=decoding.do_sample,
            top_p=decoding.top_p if decoding.do_sample else None,
            top_k=0 if decoding.do_sample else None,  # differs from LAVIS: transformers' default top_k=50 is off
            temperature=decoding.temperature if decoding.do_sample else None,
            repetition_penalty=decoding.repetition_penalty,
            eos_token_id=self.end_token_id,
            pad_token_id=self.pad_token_id,
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
        )
        criteria = StoppingCriteriaList([partial(_stopping_criterion, stop)] if stop else [])
        with self.fused_with(self.image_keys_values(visual_prompt)):
            rows = self.model.generate(
                inputs_embeds=embeddings, attention_mask=mask, generation_config=settings, stopping_criteria=criteria
            )
        if self.model.config.is_encoder_decoder:
            rows = rows[:, 1:]  # the decoder's start token
        return [_before_end_token(row, self.end_token_id) for row in rows.tolist()]

    @torch.no_grad()
    def stream(self, visual_prompt: Tensor, prompt: str, decoding: Decoding = PAPER_DECODING) -> Iterator[Token]:
        """Generate an answer about one image [1,Q,Dl] token by token; the texts joined are the answer.

        Each token is computed when the generator is advanced, so closing it stops the model. Beam search yields all
        tokens at its end.
        """
        text = self.prompt_texts([prompt])
        if decoding.num_beams > 1 and not decoding.do_sample:
            (ids,) = self.generate_ids(visual_prompt, text, decoding)
            steps = zip(ids, self.probabilities(visual_prompt, text, ids), strict=True)
        else:
            self.check_length(self.prefix_length(visual_prompt) + text.ids.shape[1] + decoding.max_new_tokens)
            steps = self.stream_ids(visual_prompt, text, decoding)
        yield from self.as_tokens(steps)

    def as_tokens(self, steps: Iterable[tuple[int, float]]) -> Iterator[Token]:
        """(token id, probability) one after the other -> tokens with the text that each adds."""
        ids, shown = [], ""
        for token_id, probability in steps:
            ids.append(token_id)
            answer = self.decode(ids)
            if answer.endswith("\N{REPLACEMENT CHARACTER}"):
                continue  # an incomplete character: its other bytes are in the next token
            yield Token(answer[len(shown) :], probability)
            shown = answer

    @torch.inference_mode()
    def stream_ids(self, visual_prompt: Tensor, prompt: Text, decoding: Decoding) -> Iterator[tuple[int, float]]:
        """Greedy or nucleus decoding of one row, token by token: (token id, probability). The end token is not
        yielded."""
        logits, state = self.first_logits(visual_prompt, prompt)
        seen = [self.model.config.decoder_start_token_id] if self.model.config.is_encoder_decoder else []
        for step in range(decoding.max_new_tokens):
            may_end = step >= decoding.min_new_tokens
            token_id = choose_token(logits[0].float(), seen, None if may_end else self.end_token_id, decoding)
            if token_id == self.end_token_id:
                return
            yield token_id, logits[0].float().softmax(dim=-1)[token_id].item()
            seen.append(token_id)
            if step + 1 < decoding.max_new_tokens:
                logits, state = self.next_logits(logits.new_tensor([[token_id]], dtype=torch.long), state)

    def probabilities(self, visual_prompt: Tensor, prompt: Text, ids: list[int]) -> list[float]:
        """Probability of each of these answer tokens given image, prompt and the tokens before it (one row)."""
        if not ids:
            return []
        answer = pad([ids], self.pad_token_id, device=visual_prompt.device)
        logits = self.answer_logits(visual_prompt, prompt, answer)
        return logits.float().softmax(dim=-1).gather(2, answer.ids[:, :, None]).flatten().tolist()

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids -> text without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def check_length(self, length: int) -> None:
        """Raises ValueError when visual prompt, prompt and answer are more tokens than the model has positions."""
        limit = getattr(self.model.config, "max_position_embeddings", None) or 512  # T5 was trained with 512
        if length > limit:
            raise ValueError(
                f"Picture, prompt and answer are {length} tokens together and this language model reads {limit}; "
                "shorten the prompt."
            )

    def _encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        if self.tokenizer is None:
            raise ValueError(
                "This language model has no tokenizer: its folder has no tokenizer_config.json. Copy the tokenizer's "
                "files of the model that it was made from into the folder, or set `model.language_model.tokenizer`."
            )
        rows = self.tokenizer(list(texts), truncation=max_tokens is not None, max_length=max_tokens)["input_ids"]
        largest, embeddings = max((max(row, default=0) for row in rows), default=0), self.model.get_input_embeddings()
        if largest >= embeddings.num_embeddings:
            raise ValueError(
                f"The tokenizer gives token {largest}, and this language model has {embeddings.num_embeddings} "
                "embeddings: use the tokenizer that belongs to it, or `resize_token_embeddings` after adding tokens."
            )
        return rows

    @property
    def _device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device


def positions(model: nn.Module, mask: Tensor) -> dict[str, Tensor]:
    """The argument `position_ids` [B,L] without padding, for models that would count it: between visual prompt and
    prompt it would move the picture away, by another length in each batch. OPT's and BLOOM's follow the mask."""
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    if not takes_positions or model.config.model_type == "opt":
        return {}
    return {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}


class DecoderLanguageModel(LanguageModel):
    """OPT: the decoder reads [visual prompt][beginning-of-text][prompt] and continues with the answer."""

    question_prompt = "Question: {} Answer:"  # paper, section 4.1

    def answer_logits(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        embeddings, mask = self.prepend(visual_prompt, prompt.then(answer))
        length = answer.ids.shape[1]
        # the vocabulary is large: compute logits only at the positions that predict an answer token (one before it)
        with self.fused_with(self.image_keys_values(visual_prompt)):
            output = self.model(
                inputs_embeds=embeddings,
                attention_mask=mask,
                use_cache=False,
                logits_to_keep=length + 1,
                **positions(self.model, mask),
            )
        return output.logits[:, :-1]

    def first_logits(self, visual_prompt: Tensor, prompt: Text) -> tuple[Tensor, tuple]:
        embeddings, mask = self.prepend(visual_prompt, prompt)
        image = self.image_keys_values(visual_prompt)
        with self.fused_with(image):
            output = self.model(
                inputs_embeds=embeddings,
                attention_mask=mask,
                use_cache=True,
                logits_to_keep=1,
                **positions(self.model, mask),
            )
        return output.logits[:, -1], (mask, output.past_key_values, image)

    def next_logits(self, token: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        mask, past, image = state
        mask = F.pad(mask, (0, 1), value=1)
        places = {name: ids[:, -1:] for name, ids in positions(self.model, mask).items()}
        with self.fused_with(image):
            output = self.model(input_ids=token, attention_mask=mask, past_key_values=past, use_cache=True, **places)
        return output.logits[:, -1], (mask, output.past_key_values, image)

    def select_rows(self, state: tuple, rows: Tensor) -> tuple:
        mask, past, image = state
        past.batch_select_indices(rows)
        return mask[rows], past, _select_images(image, rows)

    def pair_texts(
        self, prompts: Sequence[str], answers: Sequence[str], max_tokens: int | None = None
    ) -> tuple[Text, Text]:
        """Prompt and answer are tokenized as one text. With an empty prompt the beginning-of-text token is a target
        too, predicted from the last query, as in LAVIS; with deep fusion nothing precedes it, so it is the prompt.
        `max_tokens` is the limit of the answer: a prompt is whole."""
        prompts = [prompt.rstrip() for prompt in prompts]  # the space is part of the answer's first token
        joined = [f"{prompt} {answer}" if prompt else answer for prompt, answer in zip(prompts, answers, strict=True)]
        least = 0 if self.deep_fusion is None else 1
        starts = [len(row) if prompt else least for prompt, row in zip(prompts, self._encode(prompts), strict=True)]
        # differs from LAVIS: it cuts both together, and a long prompt leaves an answer of no token, whose loss is NaN
        ends = [None if max_tokens is None else start + max_tokens for start in starts]
        whole = [[*row, self.end_token_id] for row in self._encode(joined)]
        rows = [row[:end] for row, end in zip(whole, ends, strict=True)]
        if rows != whole:
            warn_of_cut(f"{LEARNED} of more than {max_tokens} tokens", SETTING)
        prompt_rows = [row[:start] for row, start in zip(rows, starts, strict=True)]
        answer_rows = [row[start:] for row, start in zip(rows, starts, strict=True)]
        return (
            pad(prompt_rows, self.pad_token_id, left=True, device=self._device),
            pad(answer_rows, self.pad_token_id, device=self._device),
        )

    def prompt_texts(self, prompts: Sequence[str]) -> Text:
        rows = self._encode([prompt.rstrip() for prompt in prompts])
        return pad(rows, self.pad_token_id, left=True, device=self._device)

    def _encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        start = self.model.config.bos_token_id
        rows = super()._encode(texts, max_tokens)
        if start is None:  # Qwen's, for example: a text begins with its first word
            return [row[:max_tokens] for row in rows]
        return [row if row[:1] == [start] else [start, *row][:max_tokens] for row in rows]


class EncoderDecoderLanguageModel(LanguageModel):
    """FlanT5: the encoder reads [visual prompt][prompt], the decoder generates the answer."""

    question_prompt = "Question: {} Short answer:"  # paper, section 4.1

    def answer_logits(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        embeddings, mask = self.prepend(visual_prompt, prompt)
        start = self.model.config.decoder_start_token_id
        with self.fused_with(self.image_keys_values(visual_prompt)):
            output = self.model(
                inputs_embeds=embeddings,
                attention_mask=mask,
                decoder_input_ids=F.pad(answer.ids[:, :-1], (1, 0), value=start),
                decoder_attention_mask=F.pad(answer.mask[:, :-1].long(), (1, 0), value=1),
                use_cache=False,
            )
        return output.logits

    def first_logits(self, visual_prompt: Tensor, prompt: Text) -> tuple[Tensor, tuple]:
        embeddings, mask = self.prepend(visual_prompt, prompt)
        encoded = self.model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask)
        start = torch.full_like(mask[:, :1], self.model.config.decoder_start_token_id)
        return self.next_logits(start, (mask, encoded, None, self.image_keys_values(visual_prompt)))

    def next_logits(self, token: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        mask, encoded, past, image = state
        with self.fused_with(image):
            output = self.model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=token,
                past_key_values=past,
                use_cache=True,
            )
        return output.logits[:, -1], (mask, encoded, output.past_key_values, image)

    def select_rows(self, state: tuple, rows: Tensor) -> tuple:
        mask, encoded, past, image = state
        past.batch_select_indices(rows)
        encoded = type(encoded)(last_hidden_state=encoded.last_hidden_state[rows])
        return mask[rows], encoded, past, _select_images(image, rows)

    def pair_texts(
        self, prompts: Sequence[str], answers: Sequence[str], max_tokens: int | None = None
    ) -> tuple[Text, Text]:
        return self._cut("prompts", prompts, max_tokens), self._cut(LEARNED, answers, max_tokens)

    def prompt_texts(self, prompts: Sequence[str]) -> Text:
        return self._padded(prompts)

    def count_cut(self, texts: Sequence[str], max_tokens: int) -> tuple[int, int]:
        """How many of these texts `pair_texts` cuts, and the number of tokens of the longest one."""
        lengths = [len(row) for row in self._encode(texts)]
        return sum(length > max_tokens for length in lengths), max(lengths, default=0)

    def _cut(self, what: str, texts: Sequence[str], max_tokens: int | None) -> Text:
        """The texts as padded ids, with a warning where `max_tokens` cuts one. `what`: what they are."""
        found = self._padded(texts, max_tokens)
        if max_tokens is not None and found.ids.shape[1] >= max_tokens and self.count_cut(texts, max_tokens)[0]:
            warn_of_cut(f"{what} of more than {max_tokens} tokens", SETTING)
        return found

    def _padded(self, texts: Sequence[str], max_tokens: int | None = None) -> Text:
        return pad(self._encode(texts, max_tokens), self.pad_token_id, device=self._device)

    def _encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        end = self.end_token_id
        rows = super()._encode(texts, max_tokens)
        return [row if row[-1:] == [end] else [*row, end] for row in rows]


def language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, end_token_id: int | None = None
) -> LanguageModel:
    """A frozen LanguageModel of the class that fits this transformers model."""
    kind = EncoderDecoderLanguageModel if model.config.is_encoder_decoder else DecoderLanguageModel
    return kind(model, tokenizer, end_token_id=end_token_id)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's transformer layers: T5's `block`, OPT's and LLaMA's `layers`."""
    decoder = model.get_decoder()
    return decoder.block if model.config.is_encoder_decoder else decoder.layers


def _select_images(image: tuple[KeysValues, ...] | None, rows: Tensor) -> tuple[KeysValues, ...] | None:
    return None if image is None else tuple((keys[rows], values[rows]) for keys, values in image)


def _before_end_token(ids: list[int], end_token_id: int) -> list[int]:
    return ids[: ids.index(end_token_id)] if end_token_id in ids else ids


def _stopping_criterion(stop: Callable[[], bool], ids: Tensor, scores: Tensor | None, **_: object) -> Tensor:
    """transformers' form of a stopping criterion: one bool for each row of ids [B,T]."""
    return torch.full(ids.shape[:1], stop(), dtype=torch.bool, device=ids.device)
