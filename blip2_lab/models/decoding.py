"""Decoding: how the next token is chosen from a language model's logits.

`Decoding` holds the settings and is where to begin; `Decoding.from_options` makes it of keyword arguments, and
`choose_token` applies it to the logits of one step.

Notes:

* `choose_token` applies the rules of transformers' `generate` in the same order, so a streamed greedy answer has the
  same ids (tested). Beam search is transformers' own (models/language_model.py) or the Q-Former's
  (models/beam_search.py).
* Sampling uses `top_p` alone: the top-50 filter that transformers applies by default is off.

Paper: sections 4.1 and 4.2 (beam search of width 5, length penalty -1). Notebooks: 07, 12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from blip2_lab.common.console import did_you_mean

#: The smallest temperature. Here the likeliest token already has all the probability; with a much smaller one, logits
#: divided by it overflow in float32.
MIN_TEMPERATURE = 1e-6
LARGEST = 1e30  #: of an option that is a number
LARGEST_PENALTY = 100  #: of an exponent of lengths: a power that overflows orders nothing
MOST_BEAMS = 1000
SEED_RANGE = (-(2**63), 2**64 - 1)  #: of torch's generators


_SEVERAL = "pass the picture several times: generate([picture] * 3, prompt, do_sample=True)"
_WAYS = "decoding is greedy (num_beams=1), beam search, or nucleus sampling (do_sample=True)"
_SCORES = "model.stream gives each token with its probability, and model.rank compares answers"
_PICTURE = "the picture comes first: generate(picture, prompt)"
_PROMPT = "the prompt is a text, behind the picture: generate(picture, prompt)"
#: What other libraries call an option -> what to do here. LAVIS's names and transformers'.
OTHER_NAMES = {
    "max_length": "use max_new_tokens, which counts the answer alone",
    "max_tokens": "use max_new_tokens",
    "max_len": "use max_new_tokens",
    "min_length": "use min_new_tokens, which counts the answer alone",
    "min_len": "use min_new_tokens",
    "num_return_sequences": _SEVERAL,
    "num_captions": _SEVERAL,
    "n": _SEVERAL,
    "use_nucleus_sampling": "use do_sample",
    "sample": "use do_sample",
    "beams": "use num_beams",
    "beam_size": "use num_beams",
    "top_k": "sampling uses top_p alone",
    "seed": "call torch.manual_seed before",
    "no_repeat_ngram_size": "use repetition_penalty",
    "early_stopping": "beam search ends when no better answer can follow",
    "num_beam_groups": _WAYS,
    "penalty_alpha": _WAYS,
    "output_scores": _SCORES,
    "return_dict_in_generate": _SCORES,
    "streamer": "use model.stream",
    "max_time": "use model.stream, and stop it when the time is over",
    "stopping_criteria": "use model.stream, and stop it when you have enough",
    "skip_special_tokens": "answers are texts without special tokens",
    "generation_config": "pass its values as options",
    "eos_token_id": "set model.language_model.end_token_id",
    "pixel_values": _PICTURE,
    "images": _PICTURE,
    "samples": _PICTURE,
    "text": _PROMPT,
    "text_input": _PROMPT,
    "input_ids": _PROMPT,
    "inputs_embeds": _PROMPT,
    "attention_mask": _PROMPT,
    "qformer_input_ids": _PROMPT,
}


class UnknownOption(ValueError, TypeError):
    """An option that `Decoding` has not. (A TypeError too, as Python raises for an unknown keyword argument.)"""


@dataclass(frozen=True)
class Decoding:
    """The settings of decoding. The defaults are the paper's for zero-shot VQA: beam search, short answers preferred.

    `length_penalty` is the exponent of the length that divides a beam's log-probability: -1 favors short answers.
    `do_sample` samples tokens from the nucleus, the smallest set that holds `top_p` of the probability; no beams.
    `repetition_penalty` divides the (positive) logits of tokens generated before; 1 turns it off.
    """

    num_beams: int = 5
    max_new_tokens: int = 10
    min_new_tokens: int = 1
    length_penalty: float = -1.0
    do_sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0
    repetition_penalty: float = 1.0

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Decoding:
        """The settings of keyword arguments. Raises UnknownOption, a ValueError, that names the right option."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = did_you_mean(name, known, cutoff=0.6)
                remedy = OTHER_NAMES.get(name) or f"the options are {', '.join(known)}{near}"
                raise UnknownOption(f"There is no option {name!r}: {remedy}.")
        return cls(**options)

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens", "min_new_tokens"):
            if not isinstance(getattr(self, name), Integral) or isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a whole number.")
        if not isinstance(self.do_sample, bool):
            raise ValueError(f"do_sample is {self.do_sample!r}; it must be True or False.")
        for name in ("length_penalty", "top_p", "temperature", "repetition_penalty"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}; it must be a number.")
            if not abs(value) <= LARGEST:  # false for NaN; a whole number may have any number of digits
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number.")
            object.__setattr__(self, name, float(value))  # transformers refuses numpy's
        if not 1 <= self.num_beams <= MOST_BEAMS:
            raise ValueError(f"num_beams is {self.num_beams}; it must be 1 (greedy) or more, {MOST_BEAMS} at most.")
        if abs(self.length_penalty) > LARGEST_PENALTY:
            limits = f"-{LARGEST_PENALTY} to {LARGEST_PENALTY}"
            raise ValueError(f"length_penalty is {self.length_penalty:g}; it is an exponent and must be {limits}.")
        if not 1 <= self.max_new_tokens:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more.")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(f"min_new_tokens is {self.min_new_tokens}; it must be 0 to max_new_tokens.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.temperature < MIN_TEMPERATURE:
            raise ValueError(
                f"temperature is {self.temperature}; it must be {MIN_TEMPERATURE} or more, or do not sample."
            )
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0 (1 is none).")


PAPER_DECODING = Decoding()


def check_seed(seed: int) -> int:
    """Returns the seed. Raises ValueError for one outside the range of torch's generators."""
    if not isinstance(seed, Integral):
        raise ValueError(f"The seed is {seed!r:.40}; it must be a whole number.")
    if not SEED_RANGE[0] <= seed <= SEED_RANGE[1]:
        raise ValueError(f"The seed is {seed}; it must be {SEED_RANGE[0]} to {SEED_RANGE[1]}.")
    return seed


@dataclass(frozen=True)
class Token:
    """The text of a generated token, and its probability. The texts joined are the answer."""

    text: str
    probability: float


def merge_into_words(tokens: Sequence[Token]) -> list[Token]:
    """Tokens -> words. The probability of a word is the product of the probabilities of its tokens."""
    merged: list[Token] = []
    for token in tokens:
        if merged and token.text and not token.text[0].isspace():
            merged[-1] = Token(merged[-1].text + token.text, merged[-1].probability * token.probability)
        else:
            merged.append(token)
    return merged


def penalize_repetition(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Lower the logits of the tokens generated before (`seen`): logits [V] -> logits [V].

    A positive logit is divided by `penalty`, a negative one multiplied. A token seen twice counts once (CTRL).
    """
    repeated = logits[list(seen)]
    penalized = logits.clone()
    penalized[list(seen)] = torch.where(repeated > 0, repeated / penalty, repeated * penalty)
    return penalized


def nucleus(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """The distribution that tokens are sampled from: logits [V] -> probabilities [V], 0 outside the nucleus.

    The nucleus is the smallest set of tokens that holds `top_p` of the probability *after* `temperature` has divided
    the logits; the most likely token is always in it.
    """
    ordered, ids = (logits / temperature).softmax(dim=-1).sort(descending=True, stable=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p  # the more likely tokens hold top_p already
    kept = torch.zeros_like(ordered).scatter(-1, ids, ordered.masked_fill(outside, 0))
    return kept / kept.sum(dim=-1, keepdim=True)


def choose_token(
    logits: Tensor,
    seen: list[int],
    forbidden: int | None,
    decoding: Decoding,
    generator: torch.Generator | None = None,
) -> int:
    """The next token id from logits [V]: repetition penalty, `forbidden`, then argmax or nucleus sampling.

    seen       token ids generated before
    forbidden  a token id that must not be chosen (the end token while the answer is too short), or None
    generator  for sampling; None: torch's own
    """
    logits = logits.clone()
    if decoding.repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, decoding.repetition_penalty)
    if forbidden is not None:
        logits[forbidden] = -torch.inf
    if not decoding.do_sample:
        return int(logits.argmax())
    return int(torch.multinomial(nucleus(logits, decoding.temperature, decoding.top_p), 1, generator=generator))
