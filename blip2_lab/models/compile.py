"""The step from one token to the next through torch.compile: the same answer, sooner.

What is unusual about it:

* Compiled is what is repeated: one more token, with the earlier ones in the cache. What an answer needs once (reading
  the prompt, its first tokens, a likelihood) and what needs gradients runs as written.
* Whoever watches is not fooled: with a hook anywhere inside, for attention maps or your own, a step runs as written.
* The compiler runs when it is switched on, for one streamed answer and for beams, and not during a question.

On a CPU the micro model's token costs three quarters of the time; in float32 the ids are the same, in bfloat16 up to
rounding. A static cache, which CUDA graphs want, is slower on a CPU; on a GPU neither was measured.

Paper: section 4.1 (what is generated). Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import LanguageModel, Text


def compile_decoder(language_model: LanguageModel, backend: str | Callable = "inductor") -> None:
    """Let this language model write with a compiled decoder from now on. Takes a minute, the second time half of it.

    backend  torch.compile's
    Raises ValueError when it cannot be compiled here, and leaves it as it was: on a CPU it takes a C++ compiler.
    """
    decoder = language_model.model.get_decoder()
    as_written, parts = decoder.forward, list(decoder.modules())
    compiled = torch.compile(as_written, dynamic=True, backend=backend)

    @wraps(as_written)
    def forward(*args, **kwargs):
        ids, past = kwargs.get("input_ids"), kwargs.get("past_key_values")
        # a cache of one token is a case of its own for the compiler, which is not worth its time
        repeated = ids is not None and ids.shape[1] == 1 and past is not None and past.get_seq_length() > 1
        watched = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
        return (compiled if repeated and not watched and not torch.is_grad_enabled() else as_written)(*args, **kwargs)

    decoder.forward = forward
    try:
        _warm_up(language_model)
    except torch._dynamo.exc.TorchDynamoException as error:
        decoder.forward = as_written
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise ValueError(
            f"The decoder cannot be compiled here ({reason}). On a CPU that takes a C++ compiler, g++ or clang++; "
            "without compiling the model works as well."
        ) from None


def _warm_up(language_model: LanguageModel) -> None:
    """One answer and five at once: to the compiler one and many are two programs, and all other sizes are unknowns.

    (Two sizes that are equal here it would take to be always equal: so picture, text and beams differ in length.)
    """
    weight = language_model.model.get_input_embeddings().weight
    visual_prompt = weight.new_zeros(1, 7, language_model.width)
    word = torch.full((1, 1), language_model.end_token_id, device=weight.device)
    prompt, length = Text(word, torch.ones_like(word, dtype=torch.bool)), 4
    alone, five = (Decoding(num_beams=n, max_new_tokens=length, min_new_tokens=length) for n in (1, 5))
    list(language_model.stream_ids(visual_prompt, prompt, alone))
    language_model.generate_ids(visual_prompt, prompt, five)
