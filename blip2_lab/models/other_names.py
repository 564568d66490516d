"""What LAVIS, transformers and peft call something, and what it is called here: the end of an error's sentence.

`TellsOtherNames` and `check_arguments` are where to begin. The options of decoding have a table of their own
(`decoding.OTHER_NAMES`), and so have those of `blip2_lab.load` (`checkpoints/names.py`).

Notes:

* Nothing here makes another name work. One thing has one name, and an error says it.

Paper: none. Notebook: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from blip2_lab.common.console import did_you_mean
from blip2_lab.models.decoding import UnknownOption

_LANGUAGE_MODEL = "model.language_model.model is transformers' language model"
_SAVE = "use blip2_lab.save(model, folder)"
_CHECKPOINTING = "use enable_gradient_checkpointing(model) of blip2_lab.common.distributed"

#: Attributes of a model in LAVIS and transformers -> what to do here.
ATTRIBUTES = {
    "save_pretrained": _SAVE,
    "save_checkpoint": _SAVE,
    "push_to_hub": "save it, and use the client of the hub; for a finished run: blip2-lab push",
    "load_checkpoint": "use blip2_lab.load(file)",
    "gradient_checkpointing_enable": _CHECKPOINTING,
    "activation_checkpointing_enable": _CHECKPOINTING,
    "vision_model": "use image_encoder",
    "visual_encoder": "use image_encoder",
    "ln_vision": "use qformer.image_layer_norm",
    "Qformer": "use qformer",
    "query_tokens": "use qformer.query_tokens",
    "t5_model": _LANGUAGE_MODEL,
    "opt_model": _LANGUAGE_MODEL,
    "llm_model": _LANGUAGE_MODEL,
    "processor": "pictures and prompts are given as they are, without a processor",
}
STAGE2_ATTRIBUTES = {
    **ATTRIBUTES,
    "predict_answers": "use model.generate(pictures, prompts)",
    "predict_class": "use model.rank(picture, prompt, candidates)",
    "extract_features": "use model.encode_image(pictures), or model.stage1 for features of texts",
    "get_image_features": "use model.encode_image(pictures), or model.stage1.embed_image",
    "get_qformer_features": "use model.encode_image(pictures)",
    "get_text_features": "use model.stage1.embed_text",
    "tokenizer": "use language_model.tokenizer",
    "t5_proj": "use language_projection",
    "opt_proj": "use language_projection",
    "llm_proj": "use language_projection",
}
STAGE1_ATTRIBUTES = {
    **ATTRIBUTES,
    "extract_features": "use embed_image and embed_text",
    "get_image_features": "use embed_image",
    "get_text_features": "use embed_text",
    "compute_itm": "use itm_logits",
    "vision_proj": "use vision_projection",
    "text_proj": "use text_projection",
    "temp": "use temperature",
}

_PICTURES = "pass pixels=image_encoder.preprocess(pictures), or image_features"
_TEXTS = "texts are given as they are, as captions and prompts"
#: Arguments of a training step in LAVIS and transformers -> what to do here.
ARGUMENTS = {
    "image": _PICTURES,
    "images": _PICTURES,
    "pixel_values": _PICTURES,
    "labels": "pass captions (for a question: its answer) as texts",
    "text_output": "pass captions (for a question: its answer)",
    "text_input": "pass captions, or a question in prompts",
    "input_ids": _TEXTS,
    "attention_mask": _TEXTS,
    "qformer_input_ids": _TEXTS,
    "qformer_attention_mask": _TEXTS,
    "decoder_input_ids": _TEXTS,
}


class TellsOtherNames:
    """A model, with torch's `nn.Module`, that says what an attribute of another library is called here."""

    other_names: ClassVar[Mapping[str, str]]  #: attribute of another library -> what to do here

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.other_names:
                remedy = self.other_names[name]
                raise AttributeError(f"{type(self).__name__} has no {name!r}: {remedy}.", name=name, obj=self) from None
            raise


def check_arguments(samples: Sequence[object], given: Mapping[str, object], known: Sequence[str]) -> None:
    """The arguments of a call `model(...)`. Raises UnknownOption, a ValueError and a TypeError, for one without a name
    (LAVIS passes a dict), and for one of another library."""
    names = ", ".join(known)
    if samples:
        raise UnknownOption(f"A model is called with arguments by name, and gives its loss. They are: {names}.")
    for name in given:
        if name not in known:
            remedy = ARGUMENTS.get(name) or f"the arguments are {names}{did_you_mean(name, known)}"
            raise UnknownOption(f"The loss has no argument {name!r}: {remedy}.")
