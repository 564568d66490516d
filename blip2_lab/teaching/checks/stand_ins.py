"""Models of a few lines in the place of large ones, for the checks of notebook 10.

`TinyLanguageModel` is where to begin. Its logits depend on every token that it may attend to, in order.

Paper: section 3.3, Figure 3. Notebook: 10.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blip2_lab.models import language_model
from blip2_lab.models.language_model import LanguageModel, Text
from blip2_lab.models.masks import IGNORE_INDEX
from blip2_lab.models.qformer import QFormer, QFormerConfig

PAD, START, END, VOCAB, WIDTH = 0, 1, 2, 7, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text_of(*rows: tuple[int, ...], left: bool = False, pad_token_id: int = PAD) -> tuple[Tensor, Tensor]:
    """Ids and mask of rows of token ids."""
    text = language_model.pad(rows, pad_token_id, left=left)
    return text.ids, text.mask


# --- Tiny models ----------------------------------------------------------------------------------------------------


class TinyBridge(nn.Module):
    """The parts of a Stage2Model that `QFormerBridge.forward` uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = dict(width=8, num_layers=2, num_heads=2, ffn_width=16, image_width=6, num_query_tokens=3)
        self.qformer = QFormer(QFormerConfig(**sizes, vocab_size=5, max_positions=8, dropout=0.0, has_text=False))
        self.language_projection = nn.Linear(8, WIDTH)
        with torch.no_grad():  # as initialized, the picture and most parameters would barely change the output
            for parameter in self.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))


class TinyTransformer(nn.Module):
    """transformers' model inside a LanguageModel: embeddings, and logits from a running sum over unmasked tokens.

    It takes the arguments of transformers' OPT or, with `encoder_decoder`, of its T5, and refuses all others.
    """

    def __init__(self, pad_token_id: int = PAD, encoder_decoder: bool = False, start: int = START) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(random(VOCAB, WIDTH, seed=1))
        self.head = random(WIDTH, VOCAB, seed=2)
        self.given: dict[str, Tensor | None] = {}  #: what the last call gave it
        self.config = SimpleNamespace(
            decoder_start_token_id=start, pad_token_id=pad_token_id, vocab_size=VOCAB,
            is_encoder_decoder=encoder_decoder,
        )  # fmt: skip

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def get_encoder(self) -> Callable[..., Output]:
        return lambda *, inputs_embeds, attention_mask=None, return_dict=None: Output(
            last_hidden_state=self._masked(inputs_embeds, attention_mask)
        )

    def _shift_right(self, ids: Tensor) -> Tensor:
        shifted = F.pad(ids[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
        return shifted.masked_fill(shifted == IGNORE_INDEX, self.config.pad_token_id)

    prepare_decoder_input_ids_from_labels = _shift_right

    def _masked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What may be read, each place with a weight of its own: the order counts, padding in front does not."""
        mask = torch.ones(x.shape[:2]) if mask is None else mask
        return x * (mask * (1 + 0.1 * mask.cumsum(dim=1)))[..., None]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
    ) -> Output:
        if encoder_outputs is None and (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        if encoder_outputs is not None:
            x = encoder_outputs[0]
        else:
            x = self._masked(self.embedding(input_ids) if inputs_embeds is None else inputs_embeds, attention_mask)
        if self.config.is_encoder_decoder:
            if decoder_input_ids is None and labels is not None:
                decoder_input_ids = self._shift_right(labels)
            if decoder_inputs_embeds is None:
                if decoder_input_ids is None:
                    raise ValueError("The decoder reads nothing: give decoder_input_ids.")
                decoder_inputs_embeds = self.embedding(decoder_input_ids)
            x = 0.5 * x.sum(dim=1, keepdim=True) + self._masked(decoder_inputs_embeds, decoder_attention_mask)
        elif decoder_input_ids is not None or decoder_attention_mask is not None or decoder_inputs_embeds is not None:
            raise TypeError("A decoder such as OPT has no argument `decoder_input_ids`: it reads one row.")
        self.given = {
            "inputs_embeds": self.embedding(input_ids)
            if inputs_embeds is None and input_ids is not None
            else inputs_embeds,
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
        }
        return Output(logits=(x.cumsum(dim=1) @ self.head)[:, -logits_to_keep:])


class Output(SimpleNamespace):
    """transformers' output: its parts by name or by number."""

    def __getitem__(self, key: int | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else list(vars(self).values())[key]


class TinyLanguageModel(nn.Module):
    """The interface of a LanguageModel: `model`, `prepend` and, where `logits` are given, `answer_logits`: they are
    these logits, and the same amount for every place that depends on picture and prompt."""

    deep_fusion = None
    prepend = LanguageModel.prepend
    image_keys_values = LanguageModel.image_keys_values
    fused_with = LanguageModel.fused_with

    def __init__(
        self,
        logits: Tensor | None = None,
        *,
        pad_token_id: int = PAD,
        encoder_decoder: bool = False,
        start: int = START,
    ) -> None:
        super().__init__()
        self.model = TinyTransformer(pad_token_id, encoder_decoder, start)
        self.pad_token_id = pad_token_id
        self.end_token_id = END
        self.logits = logits

    def answer_logits(self, visual_prompt: Tensor, prompt: Text, answer: Text) -> Tensor:
        words = self.model.embedding(prompt.ids) * prompt.mask[..., None]
        read = torch.cat([visual_prompt, words], dim=1).sum(dim=1, keepdim=True)
        return self.logits + read @ self.model.head

    def targets(self, answer: Text) -> Tensor:
        return answer.mask  # its vocabulary has no unknown token
