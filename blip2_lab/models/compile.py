"""torch.compile for the decoder's step from one token to the next.

`compile_decoder` changes a language model in place.

Notes:

* Only the step with one new token and a cache is compiled, because it is repeated. The prompt, the first tokens, a
  likelihood, and everything with gradients run on the eager path.
* With forward hooks registered in the decoder (attention maps, for example), the eager path runs.
* Compilation happens in `compile_decoder`, for one streamed answer and for beams, so no question waits for it.
* On a CPU a token of the micro model takes three quarters of the time. In float32 the ids are the same, in bfloat16 up
  to rounding. A static cache, which CUDA graphs need, is slower on a CPU; neither was measured on a GPU.

Paper: section 4.1 (what is generated). Notebook: 12.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

from blip2_lab.models.decoding import Decoding
from blip2_lab.models.language_model import LanguageModel, Text


def compile_decoder(language_model: LanguageModel, backend: str | Callable = "inductor") -> None:
    """Compile the decoder of this language model, in place. Takes a minute, the second time half a minute.

    backend  of torch.compile
    Raises ValueError when compilation fails, and leaves the decoder unchanged. On a CPU it needs a C++ compiler.
    """
    if language_model.deep_fusion is not None:
        raise ValueError("A language model with gated cross-attention between its layers cannot be compiled here.")
    decoder = language_model.model.get_decoder()
    eager, modules = decoder.forward, list(decoder.modules())
    compiled = torch.compile(eager, dynamic=True, backend=backend)

    @wraps(eager)
    def forward(*args, **kwargs):
        ids, past = kwargs.get("input_ids"), kwargs.get("past_key_values")
        # the compiler would specialize on a cache of length 1; one eager step costs less than that compilation
        repeated = ids is not None and ids.shape[1] == 1 and past is not None and past.get_seq_length() > 1
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        return (compiled if repeated and not hooked and not torch.is_grad_enabled() else eager)(*args, **kwargs)

    decoder.forward = forward
    try:
        _warm_up(language_model)
    except torch._dynamo.exc.TorchDynamoException as error:
        decoder.forward = eager
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise ValueError(
            f"The decoder cannot be compiled here ({reason}). On a CPU it needs a C++ compiler: install g++ or "
            "clang++, or use the model without compiling it."
        ) from None


def _warm_up(language_model: LanguageModel) -> None:
    """Generate one answer and five beams, so that torch.compile compiles now.

    It specializes on size 1 and treats other sizes as dynamic, hence the two runs. It assumes that sizes which are
    equal here are always equal, hence different lengths for visual prompt, text and beams.
    """
    weight = language_model.model.get_input_embeddings().weight
    visual_prompt = weight.new_zeros(1, 7, language_model.width)
    word = torch.full((1, 1), language_model.end_token_id, device=weight.device)
    prompt, length = Text(word, torch.ones_like(word, dtype=torch.bool)), 4
    greedy, five_beams = (Decoding(num_beams=n, max_new_tokens=length, min_new_tokens=length) for n in (1, 5))
    list(language_model.stream_ids(visual_prompt, prompt, greedy))
    language_model.generate_ids(visual_prompt, prompt, five_beams)
